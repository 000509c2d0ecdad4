//! One member of a cell: its replica and what the replica's log decides, as one machine.
//!
//! It adds to the replica's effects what only the two together know: entries come out applied, snapshots
//! are made and installed, checkpoints are logged when due, and an old segment's live records are
//! written forward.

use super::RecoverError;
use super::keepers::Keepers;
use super::snapshot::{Incoming, Outgoing};
use super::store::{Cell, Config, Outcome};
use crate::codec::DecodeError;
use crate::log::{Record, Ticket};
use crate::raft::{self, CallId, Durable, Replica, StartError};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use base::{Chance, Now, ReplicaId, Revision, Time};
use core::time::Duration;

/// History is looked through for what has grown too old at most this often.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// An answer to [`Input::Rewrite`] longer than this is more than one write (a record may be longer by itself). It
/// may hold every entry that is not applied yet, more than one write of the log can take.
const PART_BYTES: usize = 256 << 10;

/// What happened to a member.
#[derive(Clone, Debug)]
pub enum Input {
    /// For the replica. The snapshot inputs are the member's own affair.
    Replica(raft::Input),
    /// These records of the cell lie in the log's oldest segment, which is to go. Answered by
    /// [`Effect::Rewritten`].
    Rewrite {
        /// Names the question.
        id: u64,
        /// The segment: several questions may be asked of one.
        segment: u64,
        /// The segment's records; those of other cells are passed over.
        records: Vec<Record>,
    },
    /// This life is over: it is a member no more, and a quorum of those who are says so. It says no more, and has
    /// [`Record::Forget`] written: once that is durable nothing is left of it. Answered by [`Effect::Over`].
    End,
}

/// What to do, in this order.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// An effect of the replica: any but `Committed`, `Changed`, `WantPiece`, `SnapshotDone`, `StagePiece` and `Install`.
    Replica(raft::Effect),
    /// The next entry has been applied to [`Member::cell`].
    Applied {
        /// Its index.
        index: u64,
        /// Its term.
        term: u64,
        /// Our own proposal, if it was.
        id: Option<CallId>,
        /// What became of it.
        outcome: Outcome,
    },
    /// The next entry has changed who keeps the cell: [`Cell::keepers`], [`Replica::members`].
    Changed {
        /// Its index.
        index: u64,
        /// Its term.
        term: u64,
        /// The state's revision after it.
        revision: Revision,
        /// Our own proposal, if it was.
        id: Option<CallId>,
    },
    /// The state was replaced by a snapshot: what watches [`Member::cell`] goes on from its history, or begins
    /// anew.
    Replaced {
        /// The snapshot's index.
        index: u64,
    },
    /// Once `ticket` is durable, nothing of the cell needs the segment any more.
    Rewritten {
        /// The question.
        id: u64,
        /// The first of the writes that carry what was live: all since are of this answer, and as vital as it.
        first: Ticket,
        /// The last of them.
        ticket: Ticket,
    },
    /// The answer to [`Input::End`].
    Over {
        /// Once this is durable it may be dropped.
        ticket: Ticket,
    },
    /// An entry cannot be read: the member has stopped, before it. Its state may still be read, and its
    /// records are still written forward.
    Stopped {
        /// The entry.
        index: u64,
        /// Why.
        error: DecodeError,
    },
}

/// Why a member was not started. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// Its log.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// Its replica.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// One member of one cell.
pub struct Member {
    replica: Replica,
    cell: Cell,
    outgoing: BTreeMap<(ReplicaId, u64), Outgoing>,
    incoming: Option<Incoming>,
    stopped: bool,
    /// The segment of the log that was moved past last: the newest checkpoint and all entries after it stand
    /// behind its end.
    past: Option<u64>,
    /// What a founding member logs before anything else.
    first: Vec<Record>,
    /// When history is to be looked through, if there is any.
    expire_at: Option<Time>,
}

/// What follows from an effect, once the others of its step are through: tickets must leave in order.
enum Then {
    Step(raft::Input),
    Persist(Vec<Record>),
}

impl Member {
    /// A founding member of a cell that begins with these keepers. Its first step logs the beginning.
    ///
    /// # Errors
    /// [`Error`].
    pub fn found(
        config: Config,
        raft: raft::Config,
        keepers: Keepers,
        chance: &Chance,
        now: Now,
    ) -> Result<Member, Error> {
        let mut cell = Cell::new(config);
        let members = keepers.members();
        cell.begin_with(keepers);
        let first = vec![cell.checkpoint(&members)];
        let replica = Replica::new(raft, Durable::founding(members), chance, now)?;
        Ok(Member {
            replica,
            cell,
            outgoing: BTreeMap::new(),
            incoming: None,
            stopped: false,
            past: None,
            first,
            expire_at: None,
        })
    }

    /// A member that knows nothing yet: it is told everything by a leader that has made it a learner. Its first step logs
    /// that this life has begun, so that one that has lost what it was told does not begin it again.
    ///
    /// # Errors
    /// [`Error`].
    pub fn join(config: Config, raft: raft::Config, chance: &Chance, now: Now) -> Result<Member, Error> {
        let nobody = Keepers::unknown(config.cell);
        Member::found(config, raft, nobody, chance, now)
    }

    /// A member that goes on from the records of its cell, in log order. `lossy`: some that were
    /// acknowledged are missing.
    ///
    /// # Errors
    /// [`Error`].
    pub fn recover(
        config: Config,
        raft: raft::Config,
        records: &[Record],
        lossy: bool,
        chance: &Chance,
        now: Now,
    ) -> Result<Member, Error> {
        let (cell, durable) = Cell::recover(config, records, lossy)?;
        let replica = Replica::new(raft, durable, chance, now)?;
        Ok(Member {
            replica,
            cell,
            outgoing: BTreeMap::new(),
            incoming: None,
            stopped: false,
            past: None,
            first: Vec::new(),
            expire_at: None,
        })
    }

    /// Takes one input and appends what is to be done.
    pub fn step(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        self.expire(now);
        let mut raw = Vec::new();
        let mut then = VecDeque::new();
        if !self.first.is_empty() {
            self.replica.persist(core::mem::take(&mut self.first), &mut raw);
        }
        match input {
            Input::Replica(_) if self.stopped => return,
            Input::Replica(input) => self.replica.step(now, input, &mut raw),
            Input::End => {
                self.stopped = true;
                let (cell, replica) = (self.cell.config.cell, self.replica.id());
                let ticket = self.replica.persist(vec![Record::Forget { cell, replica }], &mut raw);
                effects.extend(raw.drain(..).map(Effect::Replica));
                effects.push(Effect::Over { ticket });
                return;
            }
            Input::Rewrite { id, segment, records } => self.rewrite(id, segment, &records, &mut raw, effects),
        }
        loop {
            for effect in raw.drain(..) {
                self.take(effect, &mut then, effects);
                if self.stopped {
                    return;
                }
            }
            match then.pop_front() {
                Some(Then::Step(input)) => self.replica.step(now, input, &mut raw),
                Some(Then::Persist(records)) => {
                    self.replica.persist(records, &mut raw);
                }
                None if self.cell.checkpoint_due() && !self.stopped => {
                    let checkpoint = self.cell.checkpoint(self.replica.members());
                    self.replica.persist(vec![checkpoint], &mut raw);
                }
                None => break,
            }
        }
        if self.expire_at.is_none() && self.cell.history().bytes() > 0 {
            self.expire_at = Some(now.mono + EXPIRE_EVERY);
        }
    }

    /// Drops history that has grown too old. Each member for itself: what is kept is nothing the others rest on.
    /// Nothing happens in a quiet cell, so it asks to be woken when its oldest event is due; once all are gone it
    /// sleeps.
    fn expire(&mut self, now: Now) {
        if self.expire_at.is_none_or(|at| now.mono < at) {
            return;
        }
        self.cell.expire(now.wall);
        let due = self.cell.history().expires();
        self.expire_at = due.map(|wall| now.mono + wall.since(now.wall).max(EXPIRE_EVERY));
    }

    /// When a tick is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let replica = if self.stopped { None } else { self.replica.next_deadline() };
        [replica, self.expire_at].into_iter().flatten().min()
    }

    /// Asserts what must hold between steps.
    pub fn check(&self) {
        self.replica.check();
        if !self.stopped {
            assert_eq!(self.cell.applied().0, self.replica.progress().0, "handed out and applied differ");
        }
    }

    /// The replica.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// What its log has decided so far.
    pub fn cell(&self) -> &Cell {
        &self.cell
    }

    /// For minting; the leader's affair.
    pub fn cell_mut(&mut self) -> &mut Cell {
        &mut self.cell
    }

    fn take(&mut self, effect: raft::Effect, then: &mut VecDeque<Then>, effects: &mut Vec<Effect>) {
        match effect {
            raft::Effect::Committed { index, term, payload, id } => match self.cell.apply(index, term, &payload) {
                Ok((outcome, marks)) => {
                    if !marks.is_empty() {
                        then.push_back(Then::Persist(marks));
                    }
                    effects.push(Effect::Applied { index, term, id, outcome });
                }
                Err(error) => {
                    self.stopped = true;
                    effects.push(Effect::Stopped { index, error });
                }
            },
            raft::Effect::Changed { index, term, members, context, id } => {
                match self.cell.change(index, term, &members, &context) {
                    Ok(()) => {
                        let revision = self.cell.state().revision();
                        effects.push(Effect::Changed { index, term, revision, id });
                    }
                    Err(error) => {
                        self.stopped = true;
                        effects.push(Effect::Stopped { index, error });
                    }
                }
            }
            raft::Effect::Leading { term, floor } => {
                self.cell.mint_above(floor);
                effects.push(Effect::Replica(raft::Effect::Leading { term, floor }));
            }
            raft::Effect::WantPiece { to, index, number } => {
                if number == 0 && self.cell.applied().0 == index {
                    let body = self.cell.checkpoint_body(self.replica.members(), 0);
                    let (state, history) = (self.cell.state().clone(), self.cell.history().clone());
                    self.outgoing.entry((to, index)).or_insert_with(|| Outgoing::new(state, history, body));
                }
                let data = self.outgoing.get_mut(&(to, index)).and_then(|o| o.piece(number));
                then.push_back(Then::Step(raft::Input::Piece { to, index, number, data }));
            }
            raft::Effect::SnapshotDone { to, index } => {
                self.outgoing.remove(&(to, index));
            }
            raft::Effect::StagePiece { index, number, last, members, data } => {
                if number == 0 {
                    self.incoming = Some(Incoming::new(&self.cell.config, index, members));
                }
                match self.incoming.as_mut().filter(|i| i.index == index).map(|i| i.take(&data)) {
                    Some(Ok(records)) if !records.is_empty() => then.push_back(Then::Persist(records)),
                    Some(Ok(_)) => {}
                    // Refused as a whole once its last piece is here; the leader tries again.
                    Some(Err(_)) | None => self.incoming = None,
                }
                if last {
                    let staged = self.incoming.as_ref().and_then(|i| i.body());
                    let checkpoint = staged.map(|b| b.encode());
                    then.push_back(Then::Step(raft::Input::Staged { index, checkpoint }));
                }
            }
            raft::Effect::Install { index, term } => {
                let staged = self.incoming.take().filter(|i| i.index == index).and_then(Incoming::into_parts);
                let (body, state, history) = staged.expect("only what was staged whole is installed");
                self.cell.restore((index, term), body, state, Some(history));
                effects.push(Effect::Replaced { index });
            }
            other => effects.push(Effect::Replica(other)),
        }
    }

    /// See [`super::forward`] for what is written, and why.
    fn rewrite(
        &mut self,
        id: u64,
        segment: u64,
        asked: &[Record],
        raw: &mut Vec<raft::Effect>,
        effects: &mut Vec<Effect>,
    ) {
        let mut records = Vec::new();
        if self.past != Some(segment) && self.cell.rests_on(asked) {
            self.past = Some(segment);
            // Before what is carried, which is judged by it.
            records.push(self.cell.checkpoint(self.replica.members()));
            records.extend(self.replica.promises());
            records.extend(self.replica.entries_after(self.cell.applied().0));
        } else if asked.iter().any(|r| matches!(r, Record::Hard { .. } | Record::Bound { .. })) {
            records.extend(self.replica.promises());
        }
        records.extend(self.cell.carry(asked, self.replica.last().0));
        if let Some(incoming) = &self.incoming {
            records.extend(incoming.carry(asked));
        }
        // The segment goes once all parts are durable. Of fewer of them nothing is missed before that: the same entry
        // again voids nothing, and a mark that is not there yet is written by whoever recovers.
        let mut tickets = parts(records).map(|part| self.replica.persist(part, raw));
        // Even if nothing is left: what makes the segment dead may be on its way to the disk yet.
        let first = tickets.next().expect("there is always a part");
        let ticket = tickets.last().unwrap_or(first);
        effects.extend(raw.drain(..).map(Effect::Replica));
        effects.push(Effect::Rewritten { id, first, ticket });
    }
}

/// The records in the same order, in writes of a bounded length: at least one.
fn parts(records: Vec<Record>) -> impl Iterator<Item = Vec<Record>> {
    let mut parts = vec![Vec::new()];
    let mut length = 0;
    for record in records {
        length += record.encoded_len();
        if length > PART_BYTES && parts.last().is_some_and(|p| !p.is_empty()) {
            length = record.encoded_len();
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(record);
        }
    }
    parts.into_iter()
}

#[cfg(test)]
mod tests;
