//! The heartbeat between two nodes, for all cells between them (section 5.2 of the architecture).
//!
//! One [`Pair`] stands on each node for each other node. It sends a beat an interval, carrying the boot id
//! of its process and the version of the list of cells that replicas here lead and replicas there take
//! part in. The other side's answer to a beat of list version v is the heartbeat answer of every cell in
//! v but those it names: so nothing is said, sent or stepped per cell unless something changes.
//!
//! A list travels whole until it is acknowledged, and again when either side starts anew; a change sends it
//! at once. What is lost is made good by the next beat.
//!
//! **Bindings.** A replica that follows a leader over there says so once ([`Input::Follow`]); from then on beats are
//! answered on its behalf. It stops when the replica asks ([`Input::Unfollow`]), when the cell leaves the
//! list, when the other side's boot changes, or when beats fail to come for [`Config::silence`]. Each
//! binding ends with one [`Effect::Unfollowed`], after which no answer goes out for it: that is what a voter's
//! promise is counted from.

use crate::codec::{DecodeError, Reader, Writer};
use crate::raft::FollowId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use base::{BootId, CellId, ReplicaId, Time, Uid};
use bytes::Bytes;
use core::time::Duration;

/// How a pair behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Between two beats.
    pub interval: Duration,
    /// Beats out of turn (a changed list, a waiting read) keep this distance from the last: what comes at
    /// once shares one.
    pub gap: Duration,
    /// Beats missing for this long: the leaders over there are taken for silent. Several intervals.
    pub silence: Duration,
    /// At most this many beats are remembered as sent and unanswered.
    pub unanswered: usize,
}

impl Default for Config {
    /// A beat every half second; silent after one and a half.
    fn default() -> Config {
        Config {
            interval: Duration::from_millis(500),
            gap: Duration::from_millis(5),
            silence: Duration::from_millis(1_500),
            unanswered: 256,
        }
    }
}

/// A leader here, as the list names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Led {
    /// The leader's replica id.
    pub leader: ReplicaId,
    /// The other side's replica of the same cell.
    pub member: ReplicaId,
    /// The leader's term.
    pub term: u64,
}

/// What two nodes say to each other. Version 1: `version u8`, `kind u8` (1 beat, 2 answer), then the fields in the
/// order below; a list is a `u32` count and its items; `list` is preceded by a `u8`, 0 if it is absent. Kinds 3 to
/// 7 are reserved (closed(T) of many cells in one, hosting leases, sleep).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// "I am here."
    Beat {
        /// The sender's process.
        boot: BootId,
        /// Rises with every beat of a process.
        number: u64,
        /// The version of its list; rises within a process.
        version: u64,
        /// The list, until it is acknowledged.
        list: Option<BTreeMap<CellId, Led>>,
    },
    /// The answer to one beat.
    Answer {
        /// The process that answers.
        boot: BootId,
        /// The process that is answered.
        to_boot: BootId,
        /// The beat's number.
        number: u64,
        /// The version of the list that is held here and answered for; 0 if none is.
        version: u64,
        /// The cells in it that are *not* answered for: their replicas here do not follow that leader.
        not: BTreeSet<CellId>,
    },
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// [`Pair::next_deadline`] has come.
    Tick,
    /// The other node said this.
    Message(Message),
    /// A replica here leads a cell in which a replica there takes part.
    Lead {
        /// The cell.
        cell: CellId,
        /// Who leads whom.
        led: Led,
    },
    /// It leads no more, in that term.
    Unlead {
        /// The cell.
        cell: CellId,
        /// The term.
        term: u64,
    },
    /// A replica here follows a leader there ([`crate::raft::Effect::Follow`]).
    Follow {
        /// The cell.
        cell: CellId,
        /// The binding.
        id: FollowId,
        /// The replica here.
        member: ReplicaId,
        /// The leader.
        leader: ReplicaId,
        /// Its term.
        term: u64,
    },
    /// End a binding ([`crate::raft::Effect::Unfollow`]).
    Unfollow {
        /// The cell.
        cell: CellId,
        /// The binding.
        id: FollowId,
    },
    /// There is no replica of the cell here any more: nothing is answered or led for it.
    Gone {
        /// The cell.
        cell: CellId,
    },
    /// Send a beat now ([`crate::raft::Effect::BeatNow`]).
    BeatNow,
}

/// What to do, in this order.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Send to the other node; may be lost.
    Send(Message),
    /// For the leader here: [`crate::raft::Input::Answered`].
    Answered {
        /// The cell.
        cell: CellId,
        /// The replica answered for.
        from: ReplicaId,
        /// The leader's term.
        term: u64,
        /// When the answered beat was sent.
        sent: Time,
    },
    /// For the leader here: [`crate::raft::Input::Strayed`].
    Strayed {
        /// The cell.
        cell: CellId,
        /// The replica that does not follow.
        from: ReplicaId,
    },
    /// For the leader here: [`crate::raft::Input::Restarted`].
    Restarted {
        /// The cell.
        cell: CellId,
        /// The replica, whose process is another than the last that answered.
        from: ReplicaId,
    },
    /// For the replica here: [`crate::raft::Input::Unfollowed`].
    Unfollowed {
        /// The cell.
        cell: CellId,
        /// The binding.
        id: FollowId,
        /// When a beat was last answered for it.
        last: Option<Time>,
    },
}

/// One node's side of the heartbeat with one other node.
pub struct Pair {
    config: Config,
    boot: BootId,

    led: BTreeMap<CellId, Led>,
    version: u64,
    number: u64,
    /// Beats sent and not answered: number, when, and under which list version.
    sent: BTreeMap<u64, (Time, u64)>,
    /// The list version the other process holds, as it said last.
    held: Option<(BootId, u64)>,
    next_beat: Time,
    soonest: Time,

    peer: Option<Peer>,
    bound: BTreeMap<CellId, Binding>,
}

/// What is known of the other process.
struct Peer {
    boot: BootId,
    version: u64,
    list: BTreeMap<CellId, Led>,
    number: u64,
    heard: Time,
}

struct Binding {
    id: FollowId,
    member: ReplicaId,
    leader: ReplicaId,
    term: u64,
    since: Time,
    last: Option<Time>,
}

impl Pair {
    /// A pair's side in the process `boot`.
    pub fn new(config: Config, boot: BootId, now: Time) -> Pair {
        Pair {
            config,
            boot,
            led: BTreeMap::new(),
            version: 1,
            number: 0,
            sent: BTreeMap::new(),
            held: None,
            next_beat: now,
            soonest: now,
            peer: None,
            bound: BTreeMap::new(),
        }
    }

    /// Takes one input and appends what is to be done.
    pub fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        let fx = effects;
        match input {
            Input::Tick => {
                if self.is_needed() && now >= self.next_beat {
                    self.beat(now, fx);
                }
            }
            Input::Message(Message::Beat { boot, number, version, list }) => {
                self.on_beat(now, boot, number, version, list, fx);
            }
            Input::Message(Message::Answer { boot, to_boot, number, version, not }) => {
                self.on_answer(boot, to_boot, number, version, &not, fx);
            }
            Input::Lead { cell, led } => {
                if self.led.insert(cell, led) != Some(led) {
                    self.list_changed(now);
                }
            }
            Input::Unlead { cell, term } => {
                if self.led.get(&cell).is_some_and(|l| l.term == term) {
                    self.led.remove(&cell);
                    self.list_changed(now);
                }
            }
            Input::Follow { cell, id, member, leader, term } => {
                let new = Binding { id, member, leader, term, since: now, last: None };
                if let Some(old) = self.bound.insert(cell, new) {
                    fx.push(Effect::Unfollowed { cell, id: old.id, last: old.last });
                }
            }
            Input::Unfollow { cell, id } => {
                // Of a binding that ended before, nothing more is to be said.
                if self.bound.get(&cell).is_some_and(|b| b.id == id) {
                    self.unbind(cell, fx);
                }
            }
            Input::Gone { cell } => {
                self.bound.remove(&cell);
                if self.led.remove(&cell).is_some() {
                    self.list_changed(now);
                }
            }
            Input::BeatNow => self.hurry(now),
        }
        self.find_silent(now, fx);
    }

    /// When a tick is due, perhaps at once: only a tick sends a beat, so that what comes together shares one.
    /// `None` while nothing is shared with the other node.
    pub fn next_deadline(&self) -> Option<Time> {
        let beat = self.is_needed().then_some(self.next_beat);
        let silent = self.bound.values().map(|b| self.silent_at(b)).min();
        beat.into_iter().chain(silent).min()
    }

    /// Asserts what must hold between steps.
    pub fn check(&self) {
        assert!(self.sent.len() <= self.config.unanswered, "more unanswered beats than the bound");
        assert!(self.sent.keys().all(|n| *n <= self.number), "an unanswered beat that was never sent");
    }

    /// Whether any beat of the other process has been heard within the silence.
    pub fn is_heard(&self, now: Time) -> bool {
        self.peer.as_ref().is_some_and(|p| now < p.heard + self.config.silence)
    }

    /// Beats go out while this node leads something the other takes part in, or the other was not told yet
    /// that it no longer does.
    fn is_needed(&self) -> bool {
        !self.led.is_empty() || self.held.is_some_and(|h| h.1 != self.version)
    }

    fn list_changed(&mut self, now: Time) {
        self.version += 1;
        self.hurry(now);
    }

    fn hurry(&mut self, now: Time) {
        self.next_beat = self.next_beat.min(now.max(self.soonest));
    }

    fn silent_at(&self, b: &Binding) -> Time {
        b.last.unwrap_or(b.since).max(b.since) + self.config.silence
    }

    fn unbind(&mut self, cell: CellId, fx: &mut Vec<Effect>) {
        if let Some(b) = self.bound.remove(&cell) {
            fx.push(Effect::Unfollowed { cell, id: b.id, last: b.last });
        }
    }

    fn find_silent(&mut self, now: Time, fx: &mut Vec<Effect>) {
        let silent: Vec<_> = self.bound.iter().filter(|(_, b)| now >= self.silent_at(b)).map(|(c, _)| *c).collect();
        silent.into_iter().for_each(|cell| self.unbind(cell, fx));
    }

    fn beat(&mut self, now: Time, fx: &mut Vec<Effect>) {
        self.number += 1;
        self.next_beat = now + self.config.interval;
        self.soonest = now + self.config.gap;
        self.sent.insert(self.number, (now, self.version));
        while self.sent.len() > self.config.unanswered {
            self.sent.pop_first();
        }
        let held = self.held.is_some_and(|h| h.1 == self.version);
        let list = (!held).then(|| self.led.clone());
        fx.push(Effect::Send(Message::Beat { boot: self.boot, number: self.number, version: self.version, list }));
    }

    /// The other side's beat.
    fn on_beat(
        &mut self,
        now: Time,
        boot: BootId,
        number: u64,
        version: u64,
        list: Option<BTreeMap<CellId, Led>>,
        fx: &mut Vec<Effect>,
    ) {
        if self.peer.as_ref().is_none_or(|p| p.boot != boot) {
            // A process that started anew follows nobody and leads nothing yet; a late beat of one before it
            // is taken for a third, which costs an election at worst.
            let known = self.peer.is_some();
            self.peer = Some(Peer { boot, version: 0, list: BTreeMap::new(), number: 0, heard: now });
            let before = self.held.take();
            self.notice_restart(before, boot, fx);
            let all: Vec<_> = self.bound.keys().copied().filter(|_| known).collect();
            all.into_iter().for_each(|cell| self.unbind(cell, fx));
        }
        let Some(peer) = &mut self.peer else { return };
        if number <= peer.number {
            // Late or twice: what it says is old.
            return;
        }
        (peer.number, peer.heard) = (number, now);
        if let Some(list) = list
            && version > peer.version
        {
            (peer.version, peer.list) = (version, list);
            // Leaders that were replaced on their own node are silent; those not yet named, which spoke to
            // a replica before this list came, may be in the next.
            let named =
                |c: &CellId, b: &Binding| peer.list.get(c).is_some_and(|l| (l.leader, l.term) == (b.leader, b.term));
            let gone: Vec<_> =
                self.bound.iter().filter(|(c, b)| b.last.is_some() && !named(c, b)).map(|(c, _)| *c).collect();
            gone.into_iter().for_each(|cell| self.unbind(cell, fx));
        }
        let Some(peer) = &self.peer else { return };
        let held = if peer.version == version { version } else { 0 };
        let mut not = BTreeSet::new();
        if held != 0 {
            for (cell, led) in &peer.list {
                // An earlier life of the member is not answered for by a later one.
                let is_named = |b: &&mut Binding| (b.member, b.leader, b.term) == (led.member, led.leader, led.term);
                match self.bound.get_mut(cell).filter(is_named) {
                    Some(b) => b.last = Some(now),
                    None => {
                        not.insert(*cell);
                    }
                }
            }
        }
        fx.push(Effect::Send(Message::Answer { boot: self.boot, to_boot: boot, number, version: held, not }));
    }

    /// Tells the leaders here if another process held their list before.
    fn notice_restart(&self, before: Option<(BootId, u64)>, boot: BootId, fx: &mut Vec<Effect>) {
        if before.is_some_and(|(b, _)| b != boot) {
            fx.extend(self.led.iter().map(|(cell, led)| Effect::Restarted { cell: *cell, from: led.member }));
        }
    }

    /// The answer to a beat of this side.
    fn on_answer(
        &mut self,
        boot: BootId,
        to_boot: BootId,
        number: u64,
        version: u64,
        not: &BTreeSet<CellId>,
        fx: &mut Vec<Effect>,
    ) {
        if to_boot != self.boot {
            return;
        }
        let Some((sent, of)) = self.sent.remove(&number) else { return };
        // An answer to a later beat tells more than those still missing would.
        self.sent = self.sent.split_off(&number);
        let before = self.held.replace((boot, version));
        self.notice_restart(before, boot, fx);
        if version != of || version != self.version {
            // Of another list: the cells it answers for are not the ones in ours.
            return;
        }
        for (cell, led) in &self.led {
            fx.push(if not.contains(cell) {
                Effect::Strayed { cell: *cell, from: led.member }
            } else {
                Effect::Answered { cell: *cell, from: led.member, term: led.term, sent }
            });
        }
    }
}

impl Message {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(64);
        match self {
            Message::Beat { boot, number, version, list } => {
                w.u8(1).u8(1).u64(boot.0).u64(*number).u64(*version).u8(u8::from(list.is_some()));
                if let Some(list) = list {
                    w.count(list.len());
                    for (cell, l) in list {
                        w.u128(cell.0.0).u64(l.leader.0).u64(l.member.0).u64(l.term);
                    }
                }
            }
            Message::Answer { boot, to_boot, number, version, not } => {
                w.u8(1).u8(2).u64(boot.0).u64(to_boot.0).u64(*number).u64(*version).count(not.len());
                not.iter().for_each(|cell| {
                    w.u128(cell.0.0);
                });
            }
        }
        w.finish()
    }

    /// Reads a message that fills `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &Bytes) -> Result<Message, DecodeError> {
        let (mut r, _) = Reader::versioned("a heartbeat", bytes, 1)?;
        let cell = |r: &mut Reader<'_>| r.u128().map(|n| CellId(Uid(n)));
        let message = match r.u8()? {
            1 => {
                let (boot, number, version) = (BootId(r.u64()?), r.u64()?, r.u64()?);
                let mut list = None;
                if r.bool()? {
                    let mut all = BTreeMap::new();
                    for _ in 0..r.count(40)? {
                        let cell = cell(&mut r)?;
                        let (leader, member, term) = (ReplicaId(r.u64()?), ReplicaId(r.u64()?), r.u64()?);
                        all.insert(cell, Led { leader, member, term });
                    }
                    list = Some(all);
                }
                Message::Beat { boot, number, version, list }
            }
            2 => {
                let (boot, to_boot, number, version) = (BootId(r.u64()?), BootId(r.u64()?), r.u64()?, r.u64()?);
                let not = (0..r.count(16)?).map(|_| cell(&mut r)).collect::<Result<_, _>>()?;
                Message::Answer { boot, to_boot, number, version, not }
            }
            other => return Err(r.newer(other)),
        };
        r.end()?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests;
