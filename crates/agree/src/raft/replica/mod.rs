//! The machine.

mod change;
mod closed;
mod lead;
mod message;
mod ready;
mod snapshot;
mod vote;

use super::members::Change;
use super::message::{Body, Candidate, Entry, Message, Vote};
use super::storage::Storage;
use super::{CallId, Config, Durable, Effect, FollowId, Input, Members, Peer, Role, StartError, Why};
use crate::log::{Record, Ticket};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use alloc::{format, vec};
use base::{Chance, Now, ReplicaId, Revision, Time, Wall};
use bytes::Bytes;
use core::time::Duration;
use raft::eraftpb::{self, EntryType, HardState, MessageType, Snapshot};
use raft::{RawNode, SnapshotStatus, StateRole};

/// What the library writes into a vote request's context when the old leader asked for the election.
const TRANSFER: &[u8] = b"CampaignTransfer";

/// How far beyond what is asked a voter's durable bound goes: at most one write a second while asked.
const BOUND_AHEAD: Duration = Duration::from_secs(1);

/// A snapshot without progress for this long is given up; the library then begins another.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(30);

/// One replica of one cell's log. See the module's documentation, and the crate's for the caller's duties.
pub struct Replica {
    config: Config,
    raw: RawNode<Storage>,
    chance: Chance,
    lossy: bool,

    next_ticket: u64,
    /// Writes not yet durable, and the library's number for what becomes persisted with each.
    outstanding: VecDeque<(Ticket, Option<u64>)>,
    /// The commit index last written.
    hard_logged: (u64, u64, u64),
    /// The write that says that the last change of members is committed, until it is durable.
    changing: Option<Ticket>,
    /// The index of the last change of members that was applied here, or, if that was before this start, one behind it.
    changed: u64,
    /// A snapshot handed out to be persisted: its ticket and index.
    installing: Option<(Ticket, u64)>,

    seen: (StateRole, u64, u64),
    proposals: BTreeMap<u64, (u64, CallId)>,
    reads: VecDeque<PendingRead>,
    /// The last index handed out to be applied.
    applied: u64,

    voter: Voter,
    leader: Leader,
    staging: Option<Staging>,
    /// Bounds being written: acknowledged to (leader, term) once durable.
    closing: VecDeque<(Ticket, ReplicaId, u64, Revision)>,
    /// Bounds being written.
    bounds: VecDeque<(Ticket, Revision)>,
}

struct PendingRead {
    id: CallId,
    arrived: Time,
    /// Set once this leader has committed in its own term: what must be applied first.
    index: Option<u64>,
}

/// What this replica has promised as a voter.
struct Voter {
    next_follow: u64,
    bound: BTreeMap<FollowId, Binding>,
    /// Neither vote nor campaign before.
    hold_until: Time,
    campaign_at: Time,
    /// A vote or hand-over that waits for the bindings to end.
    held: Option<Message>,
    /// Promised durably.
    revision: Revision,
    /// Promised, and being made durable: what a vote must carry.
    revision_asked: Revision,
}

struct Binding {
    leader: ReplicaId,
    term: u64,
    /// [`Effect::Unfollow`] has been said.
    withdrawing: bool,
}

/// What this replica knows as leader (and, of `floor`, as candidate).
#[derive(Default)]
struct Leader {
    since: Time,
    /// Whether [`Effect::Leading`] was said.
    ready: bool,
    /// Everyone else, as last told to the pair machines.
    led: Vec<ReplicaId>,
    answered: BTreeMap<ReplicaId, Time>,
    /// The greatest bound among votes received in `floor_term`.
    floor: Revision,
    floor_term: u64,
    transfer_until: Option<Time>,
    lease_ended: bool,
    /// closed(T, index) asked for, and who holds it.
    closing: Option<(Revision, u64)>,
    closed: BTreeMap<ReplicaId, Revision>,
    /// Up to which change of members others have said that it is in force on their disks.
    settled: BTreeMap<ReplicaId, u64>,
    sending: BTreeMap<ReplicaId, Sending>,
}

struct Sending {
    index: u64,
    term: u64,
    members: Members,
    /// The piece under way.
    number: u32,
    /// Whether it was said to be the last.
    last: bool,
    sent: Time,
    progressed: Time,
    /// It was not answered, and was sent again since.
    again: bool,
    /// The highest piece that was sent, and the one that an answer since then would go back to.
    most: u32,
    back: Option<u32>,
}

struct Staging {
    from: ReplicaId,
    leader_term: u64,
    index: u64,
    index_term: u64,
    members: Members,
    next: u32,
    whole: bool,
}

impl Replica {
    /// A replica that goes on from `durable`.
    ///
    /// # Errors
    /// [`StartError`]; nothing was changed.
    pub fn new(config: Config, durable: Durable, chance: &Chance, now: Now) -> Result<Replica, StartError> {
        let cell = config.cell;
        let wrong = |what| Err(StartError::Config { cell, what });
        if config.replica.0 == 0 {
            return wrong("a replica id of 0 means nobody");
        }
        if config.lease.saturating_mul(11) > config.promise.saturating_mul(10) {
            return wrong("the leader's lease must be at most 10/11 of the voters' promise");
        }
        // Whoever may lead and count on this member. A change of members in the log may have made some; one that
        // cannot be read may be any.
        let changes = durable.entries.iter().filter(|e| e.kind != 0).map(|e| Change::decode(&e.payload));
        let voters = |c: Change| c.changes.iter().filter(|(what, r)| *what == 0 && *r != config.replica).count();
        let peers = durable.members.peers(config.replica).count() + changes.map(|c| c.map_or(1, voters)).sum::<usize>();
        // What was lost comes back from a peer or from nobody.
        if durable.lossy && peers == 0 {
            return Err(StartError::SoleKeeperLossy { cell });
        }
        if let Some(e) = durable.entries.iter().find(|e| !change::is_known(e.kind, &e.payload)) {
            let what = format!("a newer release of beemesh wrote entry {}", e.index);
            return Err(StartError::Log { cell, what });
        }
        let entries: Vec<_> = durable.entries.into_iter().map(to_library).collect();
        let (term, vote, commit) = durable.hard;
        let last = entries.last().map_or(durable.base.0, |e| e.index);
        let gapless = entries.iter().zip(durable.base.0 + 1..).all(|(e, i)| e.index == i);
        if !gapless {
            return Err(StartError::Log { cell, what: format!("a gap in the entries after {}", durable.base.0) });
        }
        // A commit index is written before the entries it speaks of may be, and a checkpoint after.
        let commit = commit.clamp(durable.base.0, last);
        let hard = HardState { term: term.max(durable.base.1), vote, commit };
        let logged = (hard.term, hard.vote, hard.commit);
        let storage = Storage::new(durable.base, entries, hard, durable.members);
        let library = raft::Config {
            id: config.replica.0,
            applied: durable.base.0,
            max_size_per_msg: config.append_bytes,
            max_inflight_msgs: config.appends_in_flight,
            max_uncommitted_size: config.uncommitted_bytes.max(config.append_bytes),
            // One step does bounded work.
            max_committed_size_per_ready: 1 << 20,
            pre_vote: true,
            // Both are done here, by time.
            check_quorum: false,
            election_tick: 10,
            heartbeat_tick: 1,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw =
            RawNode::new(&library, storage, &logger).map_err(|e| StartError::Log { cell, what: format!("{e}") })?;
        let mut chance = chance.stream("replica");
        // What this life of the member answered before it stopped is not known: it keeps still as long as a peer may
        // count on such an answer, and then begins apart from them. Each adds what it asks for; the longest counts.
        let longest = |each: Duration| core::iter::repeat_n(each, peers).max().unwrap_or_default();
        let hold_until = now.mono + longest(config.promise);
        let campaign_at = hold_until + jitter(&mut chance, longest(config.election_spread));
        let seen = (StateRole::Follower, raw.raft.term, 0);
        Ok(Replica {
            lossy: durable.lossy,
            next_ticket: 1,
            outstanding: VecDeque::new(),
            hard_logged: logged,
            changing: None,
            changed: durable.base.0.max(1),
            installing: None,
            seen,
            proposals: BTreeMap::new(),
            reads: VecDeque::new(),
            applied: durable.base.0,
            voter: Voter {
                next_follow: 1,
                bound: BTreeMap::new(),
                hold_until,
                campaign_at,
                held: None,
                revision: durable.bound,
                revision_asked: durable.bound,
            },
            leader: Leader::default(),
            staging: None,
            closing: VecDeque::new(),
            bounds: VecDeque::new(),
            config,
            raw,
            chance,
        })
    }

    /// Takes one input and appends what is to be done.
    pub fn step(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        let fx = effects;
        // Of what this step hands out nothing is forgotten: whoever cannot apply it has it written again.
        let (kept, bytes) = (self.config.entries_kept, self.config.bytes_kept);
        self.raw.mut_store().trim(kept, bytes);
        match input {
            Input::Tick => {}
            Input::Message(m) => self.on_message(now.mono, m, fx),
            Input::Durable(ticket) => self.on_durable(ticket, fx),
            Input::Propose { id, payload } => self.on_propose(id, payload, fx),
            Input::Change { id, change } => self.on_change(id, &change, fx),
            Input::Read { id } => self.on_read(now.mono, id, fx),
            Input::Answered { from, term, sent } => self.on_answered(now.mono, from, term, sent, fx),
            Input::Strayed { from } => self.on_strayed(now.mono, from, fx),
            Input::Restarted { from } => self.on_restarted(from),
            Input::Unfollowed { id, last } => self.on_unfollowed(now.mono, id, last),
            Input::Transfer { to } => self.on_transfer(now.mono, to),
            Input::Close { revision } => self.on_close(revision, fx),
            Input::Piece { to, index, number, data } => self.on_piece_made(now.mono, to, index, number, data, fx),
            Input::Staged { index, checkpoint } => self.on_staged(index, checkpoint, fx),
        }
        self.drain(now.mono, fx);
        self.take_held(now.mono, fx);
        self.on_time(now.mono, fx);
    }

    /// When [`Input::Tick`] is due; `None` if nothing waits for time.
    pub fn next_deadline(&self) -> Option<Time> {
        let mut at = Time::NEVER;
        if self.is_leader() {
            at = at.min(self.quorum_deadline());
            at = at.min(self.leader.transfer_until.unwrap_or(Time::NEVER));
        } else if self.may_campaign() || self.has_lost_leader() {
            at = at.min(self.voter.campaign_at.max(self.voter.hold_until));
        }
        (at != Time::NEVER).then_some(at)
    }

    /// Asserts what must hold between steps. O(1).
    pub fn check(&self) {
        let raft = &self.raw.raft;
        assert!(self.applied <= raft.raft_log.committed, "applied beyond commit");
        assert!(raft.raft_log.persisted <= raft.raft_log.last_index(), "persisted beyond the log");
        if self.is_leader() {
            assert!(self.voter.bound.values().all(|b| b.withdrawing), "a leader bound to another");
            assert!(!self.lossy, "a lossy replica leads");
        } else {
            assert!(self.proposals.is_empty() && self.reads.is_empty(), "calls kept without leading");
        }
        assert!(self.voter.revision <= self.voter.revision_asked, "a bound durable before it was asked for");
    }

    /// This life of this member.
    pub fn id(&self) -> ReplicaId {
        self.config.replica
    }

    /// The term.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// What this replica is.
    pub fn role(&self) -> Role {
        role_of(self.seen.0, self.seen.2)
    }

    /// Whether proposals and reads are taken.
    pub fn is_ready(&self) -> bool {
        self.is_leader() && self.leader.ready
    }

    /// The last index handed out to be applied, and the commit index.
    pub fn progress(&self) -> (u64, u64) {
        (self.applied, self.raw.raft.raft_log.committed)
    }

    /// The last entry of the log, durable or not: (index, term).
    pub fn last(&self) -> (u64, u64) {
        (self.raw.raft.raft_log.last_index(), self.raw.raft.raft_log.last_term())
    }

    /// The membership in force.
    pub fn members(&self) -> &Members {
        self.raw.store().members()
    }

    /// The greatest bound promised.
    pub fn bound(&self) -> Revision {
        self.voter.revision_asked
    }

    /// Whether it has lost what it acknowledged, and is deaf.
    pub fn is_lossy(&self) -> bool {
        self.lossy
    }

    /// Until when this leader's lease lasts as far as is known; `None` if it holds none at `now`.
    pub fn lease_until(&self, now: Time) -> Option<Time> {
        if !self.is_leader() || self.leader.lease_ended {
            return None;
        }
        let until = self.quorum_answered(now) + self.config.lease;
        (until > now && self.quorum_answered(now) != Time::ZERO).then_some(until)
    }

    /// Has these records of the cell written after all that was handed out before; used for checkpoints,
    /// carried objects and staged pieces.
    pub fn persist(&mut self, records: Vec<Record>, effects: &mut Vec<Effect>) -> Ticket {
        let ticket = self.ticket();
        self.outstanding.push_back((ticket, None));
        effects.push(Effect::Persist { ticket, records });
        ticket
    }

    /// What this replica has promised, as last written: hard state and bound. Written again when the oldest
    /// segment goes.
    pub fn promises(&self) -> Vec<Record> {
        let (cell, replica) = (self.config.cell, self.config.replica);
        let (term, vote, commit) = self.hard_logged;
        let mut out = vec![Record::Hard { cell, replica, term, vote, commit }];
        if self.voter.revision > Revision::ZERO {
            out.push(Record::Bound { cell, replica, revision: self.voter.revision });
        }
        out
    }

    /// The entries after `index`, to be written again.
    pub fn entries_after(&self, index: u64) -> impl Iterator<Item = Record> + '_ {
        self.raw.store().after(index).map(|e| self.entry_record(e))
    }

    fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    fn me(&self) -> ReplicaId {
        self.config.replica
    }

    fn others(&self) -> Vec<ReplicaId> {
        self.members().all().into_iter().filter(|r| *r != self.me()).collect()
    }

    fn ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    fn message(&self, to: ReplicaId, body: Body) -> Message {
        Message { cell: self.config.cell, epoch: self.config.epoch, from: self.me(), to, term: self.term(), body }
    }

    fn say(&self, to: ReplicaId, body: Body, fx: &mut Vec<Effect>) {
        fx.push(Effect::Send { after: None, message: self.message(to, body) });
    }

    fn entry_record(&self, e: &eraftpb::Entry) -> Record {
        Record::Entry {
            cell: self.config.cell,
            replica: self.config.replica,
            term: e.term,
            index: e.index,
            kind: e.entry_type as u8,
            payload: payload_of(e),
        }
    }
}

fn replica(id: u64) -> Option<ReplicaId> {
    (id != raft::INVALID_ID).then_some(ReplicaId(id))
}

fn role_of(state: StateRole, leader: u64) -> Role {
    match state {
        StateRole::Leader => Role::Leader,
        StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        StateRole::Follower => Role::Follower { leader: replica(leader) },
    }
}

/// What was proposed: a change of members lies in the context.
fn payload_of(e: &eraftpb::Entry) -> Bytes {
    Bytes::copy_from_slice(if e.get_entry_type() == EntryType::EntryNormal { &e.data } else { &e.context })
}

fn jitter(chance: &mut Chance, spread: Duration) -> Duration {
    Duration::from_nanos(chance.below(u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX)))
}

fn to_library(e: Entry) -> eraftpb::Entry {
    let mut out = eraftpb::Entry { term: e.term, index: e.index, data: e.payload.into(), ..eraftpb::Entry::default() };
    // The library reads a change only when it is proposed here; ours goes along as its context.
    if e.kind != 0 {
        out.context = core::mem::take(&mut out.data);
    }
    out.set_entry_type(match e.kind {
        0 => EntryType::EntryNormal,
        1 => EntryType::EntryConfChange,
        _ => EntryType::EntryConfChangeV2,
    });
    out
}

fn from_library(e: eraftpb::Entry) -> Entry {
    Entry {
        term: e.term,
        index: e.index,
        kind: e.entry_type as u8,
        payload: if e.entry_type == 0 { e.data } else { e.context }.into(),
    }
}
