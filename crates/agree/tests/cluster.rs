//! A cell of three or five members under faults, in virtual time, from one seed.
//!
//! Each node has a steady clock of its own (another start, up to 4% fast or slow), a disk that loses what
//! was not synced when it crashes (keeping some first part of it), and a network that loses, delays,
//! repeats and reorders. Clients propose, retry under the same request id, and read. After a time of
//! faults comes one without, in which the cell must serve and all members come to the same state.
//!
//! What is checked, at each step: Election Safety, Log Matching and Leader Completeness (Ongaro and
//! Ousterhout, figure 3), State Machine Safety by outcome, one lease at a time, closed(T), and at each answer
//! that an acknowledged write is not lost and each key is linearizable. A request takes effect once at most.
#![allow(clippy::unwrap_used)]

use agree::cell::{self, Change, Commit, Expect, Keepers, Member, Outcome, RequestStamp, Write};
use agree::descriptor::Keeper;
use agree::heartbeat::{self, Led, Pair};
use agree::log::{Record, Ticket};
use agree::raft::{self, CallId, Message};
use base::{BootId, CellId, Chance, NodeId, Now, ReplicaId, RequestId, Revision, Time, Uid, Wall};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const CELL: CellId = CellId(Uid(0x1234 << 96));
const KEYS: u64 = 4;
const WALL: u64 = 1_700_000_000_000;

#[derive(Clone, Debug)]
enum Event {
    Wake { node: usize, boot: u64 },
    Packet { from: usize, to: usize, packet: Packet },
    Synced { node: usize, boot: u64 },
    Client,
    Fault,
    Change,
    Wipe { node: usize, life: ReplicaId },
    Restart { node: usize },
    Heal,
}

#[derive(Clone, Debug)]
enum Packet {
    Raft(Bytes),
    Beat(Bytes),
}

/// What one machine of a node says to another.
enum Local {
    Member(usize, cell::Input),
    Pair(usize, usize, heartbeat::Input),
}

struct Node {
    boot: u64,
    /// Its present life in the cell: 0 for none.
    life: ReplicaId,
    /// `None` while it is down.
    up: Option<Up>,
    log: Vec<Record>,
    /// Its clock: steady = start + time * rate / 1000.
    start: u64,
    rate: u64,
    /// How far its calendar lies ahead, in milliseconds.
    ahead: u64,
}

struct Up {
    member: Member,
    pairs: BTreeMap<usize, Pair>,
    /// Handed to the disk, oldest first.
    writing: VecDeque<(Ticket, Vec<Record>)>,
    durable: Ticket,
    /// Messages that wait for a ticket.
    held: Vec<(Ticket, Message)>,
    woken_at: u64,
    /// The call's request (id, key) or read (key, what it must see).
    proposals: BTreeMap<CallId, Proposal>,
    reads: BTreeMap<CallId, (u64, Revision)>,
    rewrite: Option<Rewriting>,
}

/// The first records of a log are its oldest segment, which is to go.
struct Rewriting {
    segment: u64,
    /// How many there are, and how many of them have been asked about.
    count: usize,
    asked: usize,
    /// The answer to the last question.
    ticket: Option<Ticket>,
}

#[derive(Clone, Debug)]
struct Proposal {
    request: u128,
    key: u64,
    /// What completed on the key before it was proposed.
    floor: Revision,
}

#[derive(Default)]
struct Truth {
    /// Term to leader.
    leaders: BTreeMap<u64, usize>,
    /// Index to (term, outcome) as first applied by anybody.
    applied: BTreeMap<u64, (u64, Outcome)>,
    /// What was applied by somebody when the leader of a term was elected.
    elected: BTreeMap<u64, u64>,
    /// Requests that took effect, and where.
    effective: BTreeMap<u128, u64>,
    /// Acknowledged proposals: index.
    acknowledged: BTreeSet<u64>,
    /// Per key: the greatest revision a completed operation has shown.
    shown: BTreeMap<u64, Revision>,
    closed: Vec<(Revision, u64)>,
    counts: Counts,
}

#[derive(Default, Debug)]
struct Counts {
    commits: usize,
    conflicts: usize,
    reads: usize,
    elections: usize,
    crashes: usize,
    snapshots: usize,
    rewrites: usize,
    closed: usize,
    retries: usize,
    transfers: usize,
    learners: usize,
    joint: usize,
    removed: usize,
    lease_held: usize,
}

struct World {
    chance: Chance,
    now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    order: u64,
    nodes: Vec<Node>,
    cut: BTreeSet<(usize, usize)>,
    faults: bool,
    next_call: u64,
    next_request: u128,
    retry: Vec<Proposal>,
    local: VecDeque<Local>,
    passing: bool,
    segments: u64,
    truth: Truth,
    /// Which node each life of a member is on.
    lives: BTreeMap<ReplicaId, usize>,
    /// Nodes that do not begin in the cell come and go.
    changes: bool,
}

fn key(n: u64) -> Bytes {
    Bytes::from(format!("things\0{n}"))
}

/// What is written with every change of a key and never deleted: the register that reads look at.
fn twin(n: u64) -> Bytes {
    Bytes::from(format!("twins\0{n}"))
}

fn id(node: usize) -> NodeId {
    NodeId([node as u8 + 1; 32])
}

fn raft_config(life: ReplicaId) -> raft::Config {
    let mut config = raft::Config::new(CELL, life);
    // Few, so that who was away needs a snapshot.
    config.entries_kept = 20;
    config
}

impl World {
    /// `founders` of `size` nodes begin the cell.
    fn new(seed: u64, size: usize, founders: usize) -> World {
        let chance = Chance::from_u64(seed);
        let mut world = World {
            chance: chance.stream("world"),
            now: 0,
            queue: BTreeMap::new(),
            order: 0,
            nodes: Vec::new(),
            cut: BTreeSet::new(),
            faults: true,
            next_call: 1,
            next_request: 1,
            retry: Vec::new(),
            local: VecDeque::new(),
            passing: false,
            segments: 0,
            truth: Truth::default(),
            lives: BTreeMap::new(),
            changes: founders < size,
        };
        for node in 0..size {
            let (start, rate) = (world.chance.below(1 << 40), world.chance.range(960, 1_041));
            let ahead = world.chance.below(900);
            let life = if node < founders { ReplicaId(node as u64 + 1) } else { ReplicaId(0) };
            world.nodes.push(Node { boot: 0, life, up: None, log: Vec::new(), start, rate, ahead });
        }
        world.lives = (0..founders).map(|n| (ReplicaId(n as u64 + 1), n)).collect();
        (0..founders).for_each(|n| world.start(n));
        if world.changes {
            world.at(2_000_000_000, Event::Change);
        }
        world.at(1_000_000, Event::Client);
        world.at(1_000_000_000, Event::Fault);
        world
    }

    fn at(&mut self, delay_ns: u64, event: Event) {
        self.order += 1;
        self.queue.insert((self.now + delay_ns, self.order), event);
    }

    fn clock(&self, node: usize) -> Now {
        let n = &self.nodes[node];
        let mono = Time(n.start + self.now / 1_000 * n.rate);
        Now { mono, wall: Wall(WALL + n.ahead + self.now / 1_000_000) }
    }

    fn start(&mut self, node: usize) {
        let now = self.clock(node);
        let chance = Chance::from_u64(self.chance.u64());
        let n = &self.nodes[node];
        let life = n.life;
        if n.up.is_some() || life == ReplicaId(0) {
            return;
        }
        let config = cell::Config::new(CELL, life, id(node));
        let founders = self.lives.iter().filter(|(life, n)| life.0 == **n as u64 + 1);
        let founders: Vec<Keeper> =
            founders.map(|(life, n)| Keeper { replica: *life, node: id(*n), votes: true }).collect();
        let is_founder = life.0 == node as u64 + 1;
        let member = if n.log.is_empty() && is_founder {
            Member::found(config, raft_config(life), Keepers::founding(CELL, founders), &chance, now)
        } else if n.log.is_empty() {
            Member::join(config, raft_config(life), &chance, now)
        } else {
            Member::recover(config, raft_config(life), &n.log, false, &chance, now)
        };
        let member = member.unwrap_or_else(|e| panic!("node {node}: {e}"));
        assert!(!member.replica().is_lossy(), "node {node} took a torn tail for a loss");
        let boot = n.boot + 1;
        let others = (0..self.nodes.len()).filter(|o| *o != node);
        let pairs = others.map(|o| (o, Pair::new(heartbeat::Config::default(), BootId(boot), now.mono))).collect();
        let n = &mut self.nodes[node];
        n.boot = boot;
        n.up = Some(Up {
            member,
            pairs,
            writing: VecDeque::new(),
            durable: Ticket(0),
            held: Vec::new(),
            woken_at: u64::MAX,
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
            rewrite: None,
        });
        self.step(node, raft::Input::Tick);
    }

    fn crash(&mut self, node: usize) {
        self.truth.counts.crashes += 1;
        let keep = self.chance.u64();
        let n = &mut self.nodes[node];
        let up = n.up.take().unwrap();
        // Of what the disk was at, some first part may have come through.
        let all: Vec<Record> = up.writing.into_iter().flat_map(|w| w.1).collect();
        let keep = keep as usize % (all.len() + 1);
        n.log.extend(all.into_iter().take(keep));
        self.retry.extend(up.proposals.into_values());
    }

    fn step(&mut self, node: usize, input: raft::Input) {
        self.step_member(node, cell::Input::Replica(input));
    }

    fn step_member(&mut self, node: usize, input: cell::Input) {
        self.pass(Local::Member(node, input));
    }

    fn step_pair(&mut self, node: usize, other: usize, input: heartbeat::Input) {
        self.pass(Local::Pair(node, other, input));
    }

    /// The machines of a node are linked by messages only: what one says to another waits until it is
    /// through with its step.
    fn pass(&mut self, local: Local) {
        self.local.push_back(local);
        if std::mem::replace(&mut self.passing, true) {
            return;
        }
        while let Some(local) = self.local.pop_front() {
            match local {
                Local::Member(node, input) => self.do_member(node, input),
                Local::Pair(node, other, input) => self.do_pair(node, other, input),
            }
        }
        self.passing = false;
    }

    fn do_member(&mut self, node: usize, input: cell::Input) {
        let now = self.clock(node);
        let Some(up) = &mut self.nodes[node].up else { return };
        let mut effects = Vec::new();
        up.member.step(now, input, &mut effects);
        up.member.check();
        for effect in effects {
            self.take(node, effect);
        }
        self.check_leases();
        self.wake(node);
    }

    fn do_pair(&mut self, node: usize, other: usize, input: heartbeat::Input) {
        let now = self.clock(node).mono;
        let Some(up) = &mut self.nodes[node].up else { return };
        let pair = up.pairs.get_mut(&other).unwrap();
        let mut effects = Vec::new();
        pair.step(now, input, &mut effects);
        pair.check();
        for effect in effects {
            match effect {
                heartbeat::Effect::Send(m) => self.send(node, other, Packet::Beat(m.encode())),
                heartbeat::Effect::Answered { from, term, sent, .. } => {
                    self.step(node, raft::Input::Answered { from, term, sent });
                }
                heartbeat::Effect::Strayed { from, .. } => self.step(node, raft::Input::Strayed { from }),
                heartbeat::Effect::Restarted { from, .. } => self.step(node, raft::Input::Restarted { from }),
                heartbeat::Effect::Unfollowed { id, last, .. } => {
                    self.step(node, raft::Input::Unfollowed { id, last });
                }
            }
        }
        self.wake(node);
    }

    /// Has the node woken at its next deadline.
    fn wake(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let Some(up) = &mut n.up else { return };
        let deadlines = up.pairs.values().map(Pair::next_deadline).chain([up.member.next_deadline()]);
        let Some(at) = deadlines.flatten().min() else { return };
        let at = (at.0.saturating_sub(n.start).div_ceil(n.rate) * 1_000).max(self.now + 1);
        if at >= up.woken_at && up.woken_at > self.now {
            return;
        }
        up.woken_at = at;
        let boot = n.boot;
        self.at(at - self.now, Event::Wake { node, boot });
    }

    fn send(&mut self, from: usize, to: usize, packet: Packet) {
        if self.cut.contains(&(from, to)) {
            return;
        }
        let copies = if !self.faults { 1 } else { [1, 1, 1, 1, 1, 1, 1, 1, 0, 2][self.chance.below(10) as usize] };
        for _ in 0..copies {
            let late = self.faults && self.chance.happens(20_000);
            let delay = if late { self.chance.range(100, 4_000) } else { self.chance.range(1, 30) };
            let delay = delay * 1_000_000 + self.chance.below(1_000_000);
            self.at(delay, Event::Packet { from, to, packet: packet.clone() });
        }
    }

    fn take(&mut self, node: usize, effect: cell::Effect) {
        use raft::Effect as E;
        match effect {
            cell::Effect::Applied { index, term, id, outcome } => self.applied(node, index, term, id, outcome),
            cell::Effect::Replaced { .. } => self.truth.counts.snapshots += 1,
            cell::Effect::Changed { index, term, id, .. } => {
                self.applied(node, index, term, id, Outcome::Nothing);
                self.changed(node);
            }
            cell::Effect::Rewritten { ticket, .. } => {
                if let Some(up) = &mut self.nodes[node].up
                    && let Some(rewrite) = &mut up.rewrite
                {
                    rewrite.ticket = Some(ticket);
                }
            }
            cell::Effect::Over { .. } => unreachable!("no life is ended here"),
            cell::Effect::Stopped { index, error } => panic!("node {node} stopped at {index}: {error}"),
            cell::Effect::Replica(effect) => match effect {
                E::Persist { ticket, records } => self.persist(node, ticket, records),
                E::Send { after, message } => {
                    let up = self.nodes[node].up.as_mut().unwrap();
                    match after {
                        Some(t) if t > up.durable => up.held.push((t, message)),
                        _ => self.send_raft(node, message),
                    }
                }
                E::ReadReady { id } => self.read_ready(node, id),
                E::Dropped { id, why } => {
                    let up = self.nodes[node].up.as_mut().unwrap();
                    up.reads.remove(&id);
                    if let Some(p) = up.proposals.remove(&id)
                        && why == raft::Why::Unknown
                    {
                        self.retry.push(p);
                    }
                }
                E::Lead { term, to } => {
                    let before = self.truth.leaders.insert(term, node);
                    assert!(before.is_none_or(|b| b == node), "two leaders in term {term}: {before:?} and {node}");
                    self.truth.counts.elections += 1;
                    let last = self.truth.applied.keys().next_back().copied().unwrap_or(0);
                    self.truth.elected.entry(term).or_insert(last);
                    for member in to {
                        let led = Led { leader: self.nodes[node].life, member, term };
                        self.step_pair(node, self.lives[&member], heartbeat::Input::Lead { cell: CELL, led });
                    }
                }
                E::Unlead { term, to } => {
                    for member in to {
                        self.step_pair(node, self.lives[&member], heartbeat::Input::Unlead { cell: CELL, term });
                    }
                }
                E::Leading { term, .. } => {
                    let applied = self.nodes[node].up.as_ref().unwrap().member.cell().applied().0;
                    let must = self.truth.elected[&term];
                    assert!(applied > must, "the leader of {term} lacks entry {must}");
                }
                E::Follow { id, leader, term } => {
                    let input =
                        heartbeat::Input::Follow { cell: CELL, id, member: self.nodes[node].life, leader, term };
                    self.step_pair(node, self.lives[&leader], input);
                }
                E::Unfollow { id, leader, .. } => {
                    self.step_pair(node, self.lives[&leader], heartbeat::Input::Unfollow { cell: CELL, id });
                }
                E::BeatNow { to } => {
                    for other in to {
                        self.step_pair(node, self.lives[&other], heartbeat::Input::BeatNow);
                    }
                }
                E::Closed { revision, index, .. } => {
                    self.truth.counts.closed += 1;
                    self.truth.closed.push((revision, index));
                    for (i, (_, outcome)) in self.truth.applied.range(index + 1..) {
                        check_closed(revision, index, *i, outcome);
                    }
                }
                E::Role(_) | E::PeerLossy { .. } => {}
                other => panic!("{other:?} is the member's own affair"),
            },
        }
    }

    fn persist(&mut self, node: usize, ticket: Ticket, records: Vec<Record>) {
        let boot = self.nodes[node].boot;
        let up = self.nodes[node].up.as_mut().unwrap();
        assert!(up.writing.back().is_none_or(|w| w.0 < ticket), "tickets out of order");
        up.writing.push_back((ticket, records));
        let slow = self.faults && self.chance.happens(10_000);
        let delay = if slow { self.chance.range(100, 1_500) } else { self.chance.range(1, 10) };
        self.at(delay * 1_000_000, Event::Synced { node, boot });
    }

    /// One fsync: all that was handed over by now becomes durable.
    fn synced(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let up = n.up.as_mut().unwrap();
        let Some((last, _)) = up.writing.back() else { return };
        up.durable = *last;
        n.log.extend(up.writing.drain(..).flat_map(|w| w.1));
        let (free, held) = std::mem::take(&mut up.held).into_iter().partition(|(t, _)| *t <= up.durable);
        up.held = held;
        let mut asks = false;
        if let Some(r) = up.rewrite.as_mut().filter(|r| r.ticket.is_some_and(|t| t <= up.durable)) {
            asks = r.asked < r.count;
            if !asks {
                n.log.drain(..r.count);
                up.rewrite = None;
                self.truth.counts.rewrites += 1;
            }
        }
        let durable = up.durable;
        let free: Vec<(Ticket, Message)> = free;
        free.into_iter().for_each(|(_, m)| self.send_raft(node, m));
        self.step(node, raft::Input::Durable(durable));
        if asks {
            self.ask(node);
        }
    }

    fn send_raft(&mut self, node: usize, message: Message) {
        let to = self.lives[&message.to];
        self.send(node, to, Packet::Raft(message.encode()));
    }

    fn applied(&mut self, node: usize, index: u64, term: u64, id: Option<CallId>, outcome: Outcome) {
        match self.truth.applied.get(&index) {
            Some(first) => assert_eq!(*first, (term, outcome.clone()), "node {node} differs at {index}"),
            None => {
                for (t, i) in &self.truth.closed {
                    if index > *i {
                        check_closed(*t, *i, index, &outcome);
                    }
                }
                match &outcome {
                    Outcome::Applied(_) => self.truth.counts.commits += 1,
                    Outcome::Conflict(_) => self.truth.counts.conflicts += 1,
                    _ => {}
                }
                self.truth.applied.insert(index, (term, outcome.clone()));
            }
        }
        let proposal = id.and_then(|id| self.nodes[node].up.as_mut().unwrap().proposals.remove(&id));
        if let Some(p) = proposal {
            self.truth.acknowledged.insert(index);
            if let Outcome::Applied(changes) = &outcome {
                let before = self.truth.effective.insert(p.request, index);
                assert_eq!(before, None, "request {} took effect twice", p.request);
                assert!(changes[1].revision > p.floor, "a write below what completed before it began");
                self.show(p.key, changes[1].revision);
            }
        }
    }

    fn show(&mut self, key: u64, revision: Revision) {
        let shown = self.truth.shown.entry(key).or_default();
        *shown = revision.max(*shown);
    }

    fn read_ready(&mut self, node: usize, id: CallId) {
        let up = self.nodes[node].up.as_mut().unwrap();
        let (k, floor) = up.reads.remove(&id).unwrap();
        let got = up.member.cell().state().get(&twin(k)).map_or(Revision::ZERO, |r| r.revision);
        assert!(got >= floor, "node {node} read key {k} at {got:?}, and {floor:?} was shown before the read began");
        self.truth.counts.reads += 1;
        self.show(k, got);
    }

    fn check_leases(&mut self) {
        let holds = |n: usize| {
            let up = self.nodes[n].up.as_ref()?;
            up.member.replica().lease_until(self.clock(n).mono).map(|_| n)
        };
        let all: Vec<_> = (0..self.nodes.len()).filter_map(holds).collect();
        assert!(all.len() <= 1, "leases are held by {all:?}");
        self.truth.counts.lease_held += all.len();
    }

    fn client(&mut self) {
        let node = self.chance.below(self.nodes.len() as u64) as usize;
        let k = self.chance.below(KEYS);
        let kind = self.chance.below(10);
        let floor = self.truth.shown.get(&k).copied().unwrap_or_default();
        let id = CallId(self.next_call);
        self.next_call += 1;
        let now = self.clock(node);
        let Some(up) = &mut self.nodes[node].up else { return };
        if kind < 4 {
            up.reads.insert(id, (k, floor));
            return self.step(node, raft::Input::Read { id });
        }
        if !up.member.replica().is_ready() {
            return;
        }
        if kind == 9 {
            // closed(T) a little ahead of the clock.
            let t = up.member.cell().clock().last().max(Revision::end_of(Wall(now.wall.0 + 3)));
            up.member.cell_mut().mint_above(t);
            return self.step(node, raft::Input::Close { revision: t });
        }
        let proposal = match self.retry.pop() {
            // Not what may be under way here already: the layer above asks its own entries in flight.
            Some(p) if !up.proposals.values().any(|q| q.request == p.request) => {
                self.truth.counts.retries += 1;
                p
            }
            _ => {
                self.next_request += 1;
                Proposal { request: self.next_request, key: k, floor }
            }
        };
        let state = up.member.cell().state();
        let found = state.get(&key(proposal.key)).cloned();
        let expect = match self.chance.below(3) {
            0 => Expect::Any,
            _ => found.as_ref().map_or(Expect::Absent, |r| Expect::At(r.revision)),
        };
        let revision = up.member.cell_mut().mint(now.wall);
        let write = if self.chance.below(5) == 0 {
            Write::Delete { meta: Bytes::new(), value: Bytes::new() }
        } else {
            let value = Bytes::from(vec![proposal.request as u8; self.chance.below(300) as usize]);
            Write::Put { created: found.map_or(revision, |r| r.created), meta: Bytes::new(), value }
        };
        let put = Write::Put { created: revision, meta: Bytes::new(), value: Bytes::new() };
        let second = up.member.cell_mut().mint(now.wall);
        let changes = vec![
            Change { key: key(proposal.key), expect, revision, write },
            Change { key: twin(proposal.key), expect: Expect::Any, revision: second, write: put },
        ];
        let request = Some(RequestStamp { id: RequestId(proposal.request), first_sent: now.wall });
        let payload = Commit { bundle: 1, request, changes }.encode();
        up.proposals.insert(id, proposal);
        self.step(node, raft::Input::Propose { id, payload });
    }

    fn fault(&mut self) {
        let size = self.nodes.len();
        let node = self.chance.below(size as u64) as usize;
        match self.chance.below(9) {
            0..=2 if self.nodes[node].up.is_some() => {
                self.crash(node);
                let down =
                    if self.chance.below(2) == 0 { self.chance.range(1, 100) } else { self.chance.range(10, 8_000) };
                self.at(down * 1_000_000, Event::Restart { node });
            }
            4 if self.leader().is_some() => {
                // The leader hears one other and nobody else does hear it.
                let leader = self.leader().unwrap_or(node);
                let friend = self.chance.below(size as u64) as usize;
                for other in (0..size).filter(|o| *o != leader && *o != friend) {
                    self.cut.insert((leader, other));
                    self.cut.insert((other, leader));
                }
                let long = self.chance.range(100, 6_000);
                self.at(long * 1_000_000, Event::Heal);
                if friend != leader && self.nodes[friend].up.is_some() && self.chance.below(2) == 0 {
                    self.crash(friend);
                    let down = self.chance.range(1, 100);
                    self.at(down * 1_000_000, Event::Restart { node: friend });
                }
            }
            3 | 4 => {
                // Some first part of a random order is cut from the rest, perhaps one way only.
                let order = self.chance.sample(size, size);
                let (left, right) = order.split_at(self.chance.range(1, size as u64) as usize);
                let both = self.chance.below(3) > 0;
                for l in left {
                    for r in right {
                        self.cut.insert((*l, *r));
                        if both {
                            self.cut.insert((*r, *l));
                        }
                    }
                }
                let long = self.chance.range(100, 10_000);
                self.at(long * 1_000_000, Event::Heal);
            }
            5 | 6 => {
                let node = self.leader().unwrap_or(node);
                let to = self.nodes[self.chance.below(size as u64) as usize].life;
                if self.nodes[node].up.as_ref().is_some_and(|u| u.member.replica().is_ready()) {
                    self.truth.counts.transfers += 1;
                    self.step(node, raft::Input::Transfer { to });
                }
            }
            _ => self.rewrite(node),
        }
    }

    /// Somebody changes who keeps the cell, as whoever places keepers would: never an even number of voters, and no voter
    /// that has not caught up.
    fn change(&mut self) {
        let Some(leader) = self.leader() else { return };
        let Some(up) = &self.nodes[leader].up else { return };
        let (member, replica) = (&up.member, up.member.replica());
        if !replica.may_change() {
            return;
        }
        let keepers = &member.cell().keepers().now;
        let has_come = |k: &Keeper| {
            let close = replica.peer(k.replica).is_some_and(|p| p.matched > 0 && p.matched + 20 >= replica.last().0);
            k.replica == self.nodes[leader].life || close
        };
        let (voters, learners): (Vec<Keeper>, Vec<Keeper>) = keepers.keepers.iter().partition(|k| k.votes);
        let ready: Vec<Keeper> = learners.iter().copied().filter(|k| has_come(k)).collect();
        let live = voters.iter().filter(|k| has_come(k)).count();
        let mut next = keepers.keepers.clone();
        let vote = |next: &mut Vec<Keeper>, who: &Keeper, votes: bool| {
            next.iter_mut().filter(|k| k.replica == who.replica).for_each(|k| k.votes = votes);
        };
        let roll = self.chance.below(10);
        let pick = self.chance.u64() as usize;
        let free: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes[*n].life == ReplicaId(0)).collect();
        match (roll, &ready[..]) {
            // Two more vote.
            (0..=2, [a, b, ..]) if voters.len() < 5 => {
                vote(&mut next, a, true);
                vote(&mut next, b, true);
            }
            // One votes in another's place, who learns on or goes; it may be the leader.
            (3..=5, [a, ..]) if live > voters.len() / 2 => {
                let gone = voters[pick % voters.len()];
                vote(&mut next, a, true);
                vote(&mut next, &gone, false);
                if pick.is_multiple_of(2) {
                    next.retain(|k| k.replica != gone.replica);
                }
            }
            // Two vote no more.
            (6, _) if voters.len() > 1 && live > voters.len() / 2 => {
                for gone in voters.iter().filter(|k| k.replica != self.nodes[leader].life).take(2) {
                    next.retain(|k| k.replica != gone.replica);
                }
            }
            (7, [.., gone]) => next.retain(|k| k.replica != gone.replica),
            _ if !free.is_empty() => {
                // The node begins its life before anybody counts on it.
                let node = free[pick % free.len()];
                let life = ReplicaId(1_000 + self.lives.len() as u64);
                self.lives.insert(life, node);
                self.nodes[node].life = life;
                self.start(node);
                next.push(Keeper { replica: life, node: id(node), votes: false });
            }
            _ => return,
        }
        let id = CallId(self.next_call);
        self.next_call += 1;
        let now = self.clock(leader);
        let Some(up) = &mut self.nodes[leader].up else { return };
        let floor = up.member.cell_mut().mint(now.wall);
        let Some(change) = up.member.cell().keepers().change_to(&next, floor) else { return };
        self.step(leader, raft::Input::Change { id, change });
    }

    /// What a change of keepers came to, as this node has it applied.
    fn changed(&mut self, node: usize) {
        let Some(up) = &self.nodes[node].up else { return };
        let (keepers, is_leader) = (up.member.cell().keepers(), up.member.replica().role() == raft::Role::Leader);
        if !is_leader {
            return;
        }
        if keepers.before.is_some() {
            self.truth.counts.joint += 1;
            return;
        }
        let named: BTreeSet<ReplicaId> = keepers.now.keepers.iter().map(|k| k.replica).collect();
        self.truth.counts.learners += keepers.now.keepers.iter().filter(|k| !k.votes).count();
        let gone: Vec<usize> = (0..self.nodes.len())
            .filter(|n| self.nodes[*n].life != ReplicaId(0) && !named.contains(&self.nodes[*n].life))
            .collect();
        for node in gone {
            let (life, later) = (self.nodes[node].life, self.chance.range(1, 4_000));
            self.at(later * 1_000_000, Event::Wipe { node, life });
        }
    }

    /// A node that keeps the cell no more gives up what it has of it.
    fn wipe(&mut self, node: usize, life: ReplicaId) {
        let up = || self.nodes.iter().filter_map(|n| n.up.as_ref()).map(|u| &u.member);
        let Some(newest) = up().max_by_key(|m| m.cell().applied().0).map(|m| m.cell().keepers()) else { return };
        if self.nodes[node].life != life || newest.node_of(life).is_some() {
            return;
        }
        // A quorum of those who keep it now has to say so, of what is on their disks.
        let knows = |m: &&Member| m.cell().keepers() == newest && m.replica().members_are_durable();
        let voters = || newest.now.keepers.iter().filter(|k| k.votes);
        let is_voter = |m: &&Member| voters().any(|k| m.replica().id() == k.replica);
        if up().filter(knows).filter(is_voter).count() * 2 <= voters().count() {
            return self.at(500_000_000, Event::Wipe { node, life });
        }
        self.truth.counts.removed += 1;
        if let Some(up) = self.nodes[node].up.take() {
            self.retry.extend(up.proposals.into_values());
        }
        self.nodes[node].life = ReplicaId(0);
        self.nodes[node].log.clear();
        self.nodes[node].boot += 1;
    }

    fn leader(&self) -> Option<usize> {
        let leads = |n: &Node| n.up.as_ref().is_some_and(|u| u.member.replica().is_ready());
        self.nodes.iter().position(leads)
    }

    fn rewrite(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let Some(up) = &mut n.up else { return };
        if up.rewrite.is_some() || n.log.is_empty() {
            return;
        }
        let count = self.chance.range(1, n.log.len() as u64 + 1) as usize;
        self.segments += 1;
        up.rewrite = Some(Rewriting { segment: self.segments, count, asked: 0, ticket: None });
        self.ask(node);
    }

    /// Asks about some more of the records that are to go.
    fn ask(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let Some(up) = &mut n.up else { return };
        let Some(r) = up.rewrite.as_mut() else { return };
        let more = self.chance.range(1, (r.count - r.asked) as u64 + 1) as usize;
        let records = n.log[r.asked..][..more].to_vec();
        (r.asked, r.ticket) = (r.asked + more, None);
        let segment = r.segment;
        self.step_member(node, cell::Input::Rewrite { id: 1, segment, records });
    }

    fn run(&mut self, until_ns: u64) {
        while self.queue.first_key_value().is_some_and(|((at, _), _)| *at <= until_ns) {
            let Some(((at, _), event)) = self.queue.pop_first() else { break };
            self.now = at;
            match event {
                Event::Wake { node, boot } if self.nodes[node].boot == boot => self.tick(node),
                Event::Synced { node, boot } if self.nodes[node].boot == boot && self.nodes[node].up.is_some() => {
                    self.synced(node);
                }
                Event::Wake { .. } | Event::Synced { .. } => {}
                Event::Packet { from, to, packet } => match packet {
                    Packet::Raft(bytes) => self.step(to, raft::Input::Message(Message::decode(&bytes).unwrap())),
                    Packet::Beat(bytes) => {
                        let m = heartbeat::Message::decode(&bytes).unwrap();
                        self.step_pair(to, from, heartbeat::Input::Message(m));
                    }
                },
                Event::Client => {
                    self.client();
                    let pause = self.chance.range(1, 40);
                    self.at(pause * 1_000_000, Event::Client);
                }
                Event::Fault => {
                    if self.faults {
                        self.fault();
                        let pause = self.chance.range(50, 2_500);
                        self.at(pause * 1_000_000, Event::Fault);
                    }
                }
                Event::Change => {
                    if self.faults {
                        self.change();
                        let pause = self.chance.range(50, 1_500);
                        self.at(pause * 1_000_000, Event::Change);
                    }
                }
                Event::Wipe { node, life } => self.wipe(node, life),
                Event::Restart { node } => self.start(node),
                Event::Heal => self.cut.clear(),
            }
        }
        self.now = until_ns;
    }

    fn tick(&mut self, node: usize) {
        let now = self.clock(node).mono;
        let Some(up) = &mut self.nodes[node].up else { return };
        up.woken_at = u64::MAX;
        let due = |d: Option<Time>| d.is_some_and(|d| d <= now);
        let pairs: Vec<usize> = up.pairs.iter().filter(|(_, p)| due(p.next_deadline())).map(|(o, _)| *o).collect();
        let member = due(up.member.next_deadline());
        for other in pairs {
            self.step_pair(node, other, heartbeat::Input::Tick);
        }
        if member {
            self.step(node, raft::Input::Tick);
        }
        self.wake(node);
    }

    /// No more faults: the cell must serve, and all its members agree.
    fn settle(&mut self) {
        self.faults = false;
        self.cut.clear();
        let before = self.truth.counts.commits;
        self.run(self.now + 30_000_000_000);
        // Of 1,500 calls one in five finds the leader, and half of those are writes; an election takes seconds.
        assert!(self.truth.counts.commits > before + 50, "it does not serve without faults: {:?}", self.truth.counts);
        // And quiet: what is committed reaches everybody.
        self.queue.retain(|_, e| !matches!(e, Event::Client));
        self.run(self.now + 5_000_000_000);
        let last = self.truth.applied.keys().next_back().copied().unwrap();
        assert!(self.truth.acknowledged.iter().all(|i| *i <= last));
        let leader = self.leader().expect("somebody leads");
        let keepers = self.nodes[leader].up.as_ref().unwrap().member.cell().keepers().clone();
        assert_eq!(keepers.before, None, "a joint state was not left");
        let states: Vec<Vec<_>> = keepers
            .now
            .keepers
            .iter()
            .map(|k| {
                let n = &self.nodes[self.lives[&k.replica]];
                assert_eq!(n.life, k.replica, "a keeper was wiped");
                let cell = n.up.as_ref().expect("all are up").member.cell();
                assert_eq!(cell.applied().0, last, "everybody has applied everything");
                assert_eq!(*cell.keepers(), keepers, "everybody knows the same keepers");
                cell.state().scan(b"").map(|(k, r)| (k.clone(), r.clone())).collect()
            })
            .collect();
        assert!(states.iter().all(|s| *s == states[0]), "the members' objects differ");
    }
}

fn check_closed(t: Revision, closed_at: u64, index: u64, outcome: &Outcome) {
    if let Outcome::Applied(changes) = outcome {
        for c in changes {
            assert!(c.revision > t, "{:?} at {index} came after closed({t:?}, {closed_at})", c.revision);
        }
    }
}

fn run(seed: u64, size: usize, founders: usize) -> Counts {
    let mut world = World::new(seed, size, founders);
    world.run(60_000_000_000);
    world.settle();
    world.truth.counts
}

/// Runs seeds and says which one failed; every kind of thing must have happened in them.
fn run_all(seeds: impl Iterator<Item = u64>, size: usize, founders: usize) {
    let mut all = Counts::default();
    for seed in seeds {
        let got = std::panic::catch_unwind(|| run(seed, size, founders));
        let c = got.unwrap_or_else(|_| panic!("seed {seed}, {founders} of {size} begin"));
        all.commits += c.commits;
        all.conflicts += c.conflicts;
        all.reads += c.reads;
        all.elections += c.elections;
        all.crashes += c.crashes;
        all.snapshots += c.snapshots;
        all.rewrites += c.rewrites;
        all.closed += c.closed;
        all.retries += c.retries;
        all.transfers += c.transfers;
        all.learners += c.learners;
        all.joint += c.joint;
        all.removed += c.removed;
        all.lease_held += c.lease_held;
    }
    println!("{founders} of {size}: {all:?}");
    let Counts {
        commits, conflicts, reads, elections, crashes, snapshots, rewrites, closed, retries, transfers, ..
    } = all;
    for n in [commits, conflicts, reads, elections, crashes, snapshots, rewrites, closed, retries, transfers] {
        assert!(n > 0, "something never happened: {all:?}");
    }
    let changes = [all.learners, all.joint, all.removed];
    assert!(
        changes.iter().all(|n| (*n > 0) == (founders < size)),
        "no changes of members, or where there are none: {all:?}"
    );
}

/// Those of every day, and those that once found something; `SEEDS=from..to` runs others.
#[allow(clippy::disallowed_methods, reason = "a knob of the person at the keyboard, not of the machines")]
fn seeds(every_day: std::ops::Range<u64>, kept: &[u64]) -> Vec<u64> {
    let asked = std::env::var("SEEDS").ok();
    let parsed = asked.as_deref().map(|s| {
        let (from, to) = s.split_once("..").expect("SEEDS=from..to");
        from.parse().unwrap()..to.parse().unwrap()
    });
    parsed.map_or_else(|| every_day.chain(kept.iter().copied()).collect(), Iterator::collect)
}

#[test]
fn three_members_keep_their_word_under_faults() {
    // 1003: a snapshot was not begun for a member that had strayed. 1072: nor was a full window of lost
    // appends freed for one.
    run_all(seeds(0..12, &[1003, 1072]).into_iter(), 3, 3);
}

#[test]
fn five_members_keep_their_word_under_faults() {
    run_all(seeds(100..106, &[1001]).into_iter(), 5, 5);
}

#[test]
fn keepers_come_and_go_under_faults() {
    // 315: a leader of the joint state was elected again while the next one left it, and votes no more.
    run_all(seeds(200..208, &[315]).into_iter(), 5, 1);
    run_all(seeds(300..304, &[]).into_iter(), 6, 3);
}

#[test]
fn one_seed_gives_one_history() {
    let history = |_| {
        let mut world = World::new(7, 5, 3);
        world.run(20_000_000_000);
        (world.truth.applied, world.now, world.order)
    };
    assert_eq!(history(1), history(2));
}
