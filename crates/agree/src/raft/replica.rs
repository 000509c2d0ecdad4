//! The machine.

use super::members::Change;
use super::message::{Body, Candidate, Entry, Message, Vote};
use super::storage::Storage;
use super::{CallId, Config, Durable, Effect, FollowId, Input, Members, Role, StartError, Why};
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
    answered: BTreeMap<ReplicaId, Time>,
    /// The greatest bound among votes received in `floor_term`.
    floor: Revision,
    floor_term: u64,
    transfer_until: Option<Time>,
    lease_ended: bool,
    /// closed(T, index) asked for, and who holds it.
    closing: Option<(Revision, u64)>,
    closed: BTreeMap<ReplicaId, Revision>,
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
        } else if self.may_campaign() {
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
            payload: Bytes::copy_from_slice(&e.data),
        }
    }

    // ---- time, leases, elections ------------------------------------------------------------------

    /// When a quorum, this replica at `now` among it, last answered; `Time::ZERO` if none has.
    fn quorum_answered(&self, now: Time) -> Time {
        self.members().quorum_time(self.me(), now, |r| self.leader.answered.get(&r).copied())
    }

    /// When a leader without answers steps down; never, if its own vote is a quorum.
    fn quorum_deadline(&self) -> Time {
        self.quorum_answered(Time::NEVER).max(self.leader.since) + self.config.patience
    }

    fn may_campaign(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        !self.lossy
            && self.raw.raft.promotable()
            && self.voter.bound.is_empty()
            // The library asserts that all is durable when it becomes leader; with the last ticket
            // outstanding it would only have to wait for it later.
            && log.persisted == log.last_index()
            && self.outstanding.is_empty()
    }

    fn on_time(&mut self, now: Time, fx: &mut Vec<Effect>) {
        if self.is_leader() {
            if self.leader.transfer_until.is_some_and(|t| now >= t) {
                self.leader.transfer_until = None;
                self.raw.raft.abort_leader_transfer();
            }
            if now >= self.quorum_deadline() {
                let term = self.term();
                self.raw.raft.become_follower(term, raft::INVALID_ID);
                self.drain(now, fx);
            }
        } else if now >= self.voter.campaign_at.max(self.voter.hold_until) && self.may_campaign() {
            self.voter.campaign_at = now + self.config.patience + self.jitter();
            // The only error is of a message that cannot be stepped; this one always can.
            let _ = self.raw.campaign();
            self.drain(now, fx);
        }
    }

    fn jitter(&mut self) -> Duration {
        jitter(&mut self.chance, self.config.election_spread)
    }

    /// Binds this voter to the leader it follows.
    fn follow(&mut self, leader: ReplicaId, term: u64, fx: &mut Vec<Effect>) {
        self.voter.campaign_at = Time::NEVER;
        if self.voter.bound.values().any(|b| (b.leader, b.term, b.withdrawing) == (leader, term, false)) {
            return;
        }
        let id = FollowId(self.voter.next_follow);
        self.voter.next_follow += 1;
        self.voter.bound.insert(id, Binding { leader, term, withdrawing: false });
        fx.push(Effect::Follow { id, leader, term });
    }

    /// Ends the bindings to leaders of terms below `term`.
    fn unfollow_below(&mut self, term: u64, fx: &mut Vec<Effect>) {
        for (id, b) in &mut self.voter.bound {
            if !b.withdrawing && b.term < term {
                b.withdrawing = true;
                fx.push(Effect::Unfollow { id: *id, leader: b.leader, term: b.term });
            }
        }
    }

    fn on_unfollowed(&mut self, now: Time, id: FollowId, last: Option<Time>) {
        if let Some(last) = last {
            self.voter.hold_until = self.voter.hold_until.max(last + self.config.promise);
        }
        let Some(gone) = self.voter.bound.remove(&id) else { return };
        if !gone.withdrawing {
            // The leader is silent. The library need not be told: it would only refuse what is refused
            // here already.
            self.voter.campaign_at = now.max(self.voter.hold_until) + self.jitter();
        }
    }

    fn take_held(&mut self, now: Time, fx: &mut Vec<Effect>) {
        if !self.voter.bound.is_empty() {
            return;
        }
        if let Some(m) = self.voter.held.take() {
            self.on_message(now, m, fx);
            self.drain(now, fx);
        }
    }

    // ---- messages -----------------------------------------------------------------------------------

    fn on_message(&mut self, now: Time, m: Message, fx: &mut Vec<Effect>) {
        if m.cell != self.config.cell || m.to != self.me() || m.from == self.me() || m.epoch < self.config.epoch {
            return;
        }
        let (from, term) = (m.from, m.term);
        if self.lossy {
            if matches!(m.body, Body::Append { .. } | Body::AskVote { .. } | Body::AskPreVote(_) | Body::Piece { .. }) {
                self.say(from, Body::Lossy, fx);
            }
            return;
        }
        match m.body {
            Body::AskPreVote(c) => self.on_ask(now, from, term, MessageType::MsgRequestPreVote, c, false, fx),
            Body::AskVote { candidate, transfer } => {
                self.on_ask(now, from, term, MessageType::MsgRequestVote, candidate, transfer, fx);
            }
            Body::TimeoutNow if term == self.term() && self.raw.raft.leader_id == from.0 => {
                if self.voter.bound.is_empty() {
                    if self.may_campaign() {
                        self.voter.campaign_at = now + self.config.patience + self.jitter();
                        self.library(MessageType::MsgTimeoutNow, from, term, |_| {});
                    }
                } else {
                    self.unfollow_below(u64::MAX, fx);
                    self.voter.held = Some(self.held(from, term, Body::TimeoutNow));
                }
            }
            Body::TimeoutNow => {}
            Body::Append { prev_index, prev_term, commit, entries } => {
                // Changes of membership are not of this release; the mesh level keeps them away.
                if entries.iter().any(|e| e.kind != 0) {
                    return;
                }
                self.library(MessageType::MsgAppend, from, term, |m| {
                    m.index = prev_index;
                    m.log_term = prev_term;
                    m.commit = commit;
                    m.entries = entries.into_iter().map(to_library).collect();
                });
                self.after_leader_spoke(from, term, fx);
            }
            Body::Appended { index, commit } => {
                self.library(MessageType::MsgAppendResponse, from, term, |m| {
                    m.index = index;
                    m.commit = commit;
                });
                // The library takes the highest that was ever said; but who has started anew may know less. A late
                // answer that is too low costs one more append; one from before a start, too high, can hide what that
                // start has lost until the next entry.
                if self.is_leader()
                    && term == self.term()
                    && let Some(p) = self.raw.raft.mut_prs().get_mut(from.0)
                {
                    p.committed_index = commit;
                }
            }
            Body::AppendRefused { index, hint_index, hint_term, commit } => {
                self.library(MessageType::MsgAppendResponse, from, term, |m| {
                    m.index = index;
                    m.reject = true;
                    m.reject_hint = hint_index;
                    m.log_term = hint_term;
                    m.commit = commit;
                });
            }
            Body::PreVote(vote) => self.on_vote(MessageType::MsgRequestPreVoteResponse, from, term, vote),
            Body::Vote { vote, bound } => {
                if self.leader.floor_term < term {
                    (self.leader.floor_term, self.leader.floor) = (term, Revision::ZERO);
                }
                if vote.granted && self.leader.floor_term == term {
                    self.leader.floor = self.leader.floor.max(bound);
                }
                self.on_vote(MessageType::MsgRequestVoteResponse, from, term, vote);
            }
            Body::Piece { index, index_term, number, last, members, data } => {
                self.on_piece(from, term, (index, index_term), (number, last), members, data, fx);
            }
            Body::PieceArrived { index, next } => self.on_piece_arrived(now, from, term, index, next, fx),
            Body::Close { revision, .. } => self.on_asked_to_close(from, term, revision, fx),
            Body::Closed { revision } => self.on_closed(from, term, revision, fx),
            Body::Lossy => fx.push(Effect::PeerLossy { replica: from }),
        }
    }

    fn held(&self, from: ReplicaId, term: u64, body: Body) -> Message {
        Message { cell: self.config.cell, epoch: self.config.epoch, from, to: self.me(), term, body }
    }

    /// Hands the library a message. Its errors are those of messages from strangers, which it ignores.
    fn library(&mut self, kind: MessageType, from: ReplicaId, term: u64, fill: impl FnOnce(&mut eraftpb::Message)) {
        let mut m = eraftpb::Message { from: from.0, to: self.me().0, term, ..eraftpb::Message::default() };
        m.set_msg_type(kind);
        fill(&mut m);
        let _ = self.raw.step(m);
    }

    #[allow(clippy::too_many_arguments)]
    fn on_ask(
        &mut self,
        now: Time,
        from: ReplicaId,
        term: u64,
        kind: MessageType,
        c: Candidate,
        transfer: bool,
        fx: &mut Vec<Effect>,
    ) {
        if transfer {
            // The old leader ended its lease before it asked for this election, so no promise stands in
            // the way; but nothing may be answered on this voter's behalf after it has voted.
            if term <= self.term() {
                return;
            }
            if !self.voter.bound.is_empty() {
                self.unfollow_below(u64::MAX, fx);
                self.voter.held = Some(self.held(from, term, Body::AskVote { candidate: c, transfer }));
                return;
            }
        } else if self.lease_until(now).is_some() || !self.voter.bound.is_empty() || now < self.voter.hold_until {
            return;
        }
        self.library(kind, from, term, |m| {
            m.index = c.last_index;
            m.log_term = c.last_term;
            m.commit = c.commit;
            m.commit_term = c.commit_term;
            if transfer {
                m.context = TRANSFER.to_vec();
            }
        });
        let raft = &self.raw.raft;
        if kind == MessageType::MsgRequestVote && raft.vote == from.0 && raft.term == term {
            self.voter.campaign_at = now + self.config.patience + self.jitter();
        }
    }

    fn on_vote(&mut self, kind: MessageType, from: ReplicaId, term: u64, vote: Vote) {
        self.library(kind, from, term, |m| {
            m.reject = !vote.granted;
            m.commit = vote.commit;
            m.commit_term = vote.commit_term;
        });
    }

    fn after_leader_spoke(&mut self, from: ReplicaId, term: u64, fx: &mut Vec<Effect>) {
        let raft = &self.raw.raft;
        if raft.state == StateRole::Follower && raft.leader_id == from.0 && raft.term == term {
            self.unfollow_below(term, fx);
            self.follow(from, term, fx);
        }
    }

    // ---- leading --------------------------------------------------------------------------------------

    fn on_propose(&mut self, id: CallId, payload: Bytes, fx: &mut Vec<Effect>) {
        debug_assert!(!payload.is_empty(), "an empty proposal is a new leader's own entry");
        let why = if !self.is_leader() {
            Why::NotLeader { leader: replica(self.raw.raft.leader_id) }
        } else if !self.leader.ready || self.leader.transfer_until.is_some() {
            Why::Busy
        } else if self.raw.propose(Vec::new(), payload.into()).is_ok() {
            self.proposals.insert(self.raw.raft.raft_log.last_index(), (self.term(), id));
            return;
        } else {
            Why::Busy
        };
        fx.push(Effect::Dropped { id, why });
    }

    fn on_read(&mut self, now: Time, id: CallId, fx: &mut Vec<Effect>) {
        if !self.is_leader() {
            let why = Why::NotLeader { leader: replica(self.raw.raft.leader_id) };
            return fx.push(Effect::Dropped { id, why });
        }
        if self.reads.len() >= self.config.reads_waiting {
            return fx.push(Effect::Dropped { id, why: Why::Busy });
        }
        let index = self.raw.raft.commit_to_current_term().then_some(self.raw.raft.raft_log.committed);
        let first = self.reads.is_empty();
        self.reads.push_back(PendingRead { id, arrived: now, index });
        if first && self.lease_until(now).is_none() {
            fx.push(Effect::BeatNow { to: self.others() });
        }
    }

    /// Answers the reads that are confirmed and whose index is applied, in order of arrival.
    fn answer_reads(&mut self, now: Time, fx: &mut Vec<Effect>) {
        if self.reads.is_empty() || !self.raw.raft.commit_to_current_term() {
            return;
        }
        let committed = self.raw.raft.raft_log.committed;
        let leased = self.lease_until(now).is_some();
        let confirmed = self.quorum_answered(now);
        self.reads.iter_mut().for_each(|r| {
            r.index.get_or_insert(committed);
        });
        while let Some(r) = self.reads.front() {
            if !(leased || confirmed >= r.arrived) || r.index.is_none_or(|i| i > self.applied) {
                break;
            }
            fx.push(Effect::ReadReady { id: r.id });
            self.reads.pop_front();
        }
    }

    fn on_answered(&mut self, now: Time, from: ReplicaId, term: u64, sent: Time, fx: &mut Vec<Effect>) {
        if !self.is_leader() || term != self.term() {
            return;
        }
        let at = self.leader.answered.entry(from).or_default();
        *at = sent.max(*at);
        // What Raft's own heartbeat answer would do.
        let log = &self.raw.raft.raft_log;
        let (last, committed) = (log.last_index(), log.committed);
        let Some(p) = self.raw.raft.prs().get(from.0) else { return };
        if p.matched < last {
            self.library(MessageType::MsgHeartbeatResponse, from, term, |_| {});
        } else if p.committed_index < committed {
            self.raw.raft.send_append(from.0);
        }
        self.resend_piece(now, from, fx);
        // A read that came while the heartbeat was under way waits for the next one.
        if self.reads.back().is_some_and(|r| r.arrived > sent) && self.lease_until(now).is_none() {
            fx.push(Effect::BeatNow { to: vec![from] });
        }
    }

    fn on_strayed(&mut self, now: Time, from: ReplicaId, fx: &mut Vec<Effect>) {
        if !self.is_leader() || from == self.me() {
            return;
        }
        let Some(p) = self.raw.raft.prs().get(from.0) else { return };
        if p.matched < self.raw.raft.raft_log.last_index() {
            // To the library this is life: it frees a window full of lost appends, and lets a snapshot begin.
            let term = self.term();
            self.library(MessageType::MsgHeartbeatResponse, from, term, |_| {});
        } else {
            self.raw.raft.send_append(from.0);
        }
        // While a snapshot is under way the library sends nothing: its piece has to tell.
        self.resend_piece(now, from, fx);
    }

    /// Whoever starts anew knows no commit that it had not written down, and most are not: it is told again, with
    /// every beat it answers until it says that it knows.
    fn on_restarted(&mut self, from: ReplicaId) {
        if self.is_leader()
            && let Some(p) = self.raw.raft.mut_prs().get_mut(from.0)
        {
            p.committed_index = 0;
        }
    }

    fn on_transfer(&mut self, now: Time, to: ReplicaId) {
        if self.is_leader() && to != self.me() && self.members().is_voter(to) {
            self.leader.lease_ended = true;
            self.leader.transfer_until = Some(now + self.config.patience);
            self.raw.transfer_leader(to.0);
        }
    }

    // ---- closed(T) ------------------------------------------------------------------------------------

    fn on_close(&mut self, revision: Revision, fx: &mut Vec<Effect>) {
        if !self.is_ready() {
            return;
        }
        let index = self.last().0;
        self.leader.closing = Some((revision, index));
        for to in self.members().all().into_iter().filter(|r| self.members().is_voter(*r)).collect::<Vec<_>>() {
            if to == self.me() {
                self.on_asked_to_close(to, self.term(), revision, fx);
            } else {
                self.say(to, Body::Close { revision, index }, fx);
            }
        }
    }

    /// As a voter. Only of the leader of the present term: a vote for a later one has already said what
    /// this voter is bound by.
    fn on_asked_to_close(&mut self, from: ReplicaId, term: u64, revision: Revision, fx: &mut Vec<Effect>) {
        if term != self.term() || self.raw.raft.leader_id != from.0 {
            return;
        }
        if revision <= self.voter.revision {
            return self.hold_closed(from, revision, fx);
        }
        let ticket = if revision <= self.voter.revision_asked {
            // It rides on the bound being written.
            self.outstanding.back().map(|o| o.0)
        } else {
            let bound = Revision::end_of(Wall(revision.wall().0) + BOUND_AHEAD).max(revision);
            self.voter.revision_asked = bound;
            let record = Record::Bound { cell: self.config.cell, replica: self.me(), revision: bound };
            let ticket = self.persist(vec![record], fx);
            self.bounds.push_back((ticket, bound));
            Some(ticket)
        };
        if let Some(ticket) = ticket {
            // A leader's highest question answers its lower ones, in whatever order they come.
            let same = |c: &(Ticket, ReplicaId, u64, Revision)| (c.0, c.1, c.2) == (ticket, from, term);
            let asked = self.closing.iter().filter(|c| same(c)).map(|c| c.3).fold(revision, Revision::max);
            self.closing.retain(|c| c.0 != ticket || c.1 != from);
            self.closing.push_back((ticket, from, term, asked));
        }
    }

    fn hold_closed(&mut self, from: ReplicaId, revision: Revision, fx: &mut Vec<Effect>) {
        if from == self.me() {
            self.on_closed(from, self.term(), revision, fx);
        } else {
            self.say(from, Body::Closed { revision }, fx);
        }
    }

    fn on_closed(&mut self, from: ReplicaId, term: u64, revision: Revision, fx: &mut Vec<Effect>) {
        if !self.is_leader() || term != self.term() {
            return;
        }
        let held = self.leader.closed.entry(from).or_default();
        *held = revision.max(*held);
        let Some((asked, index)) = self.leader.closing else { return };
        let closed = self.members().quorum_of(|r| self.leader.closed.get(&r).copied());
        if closed >= asked {
            self.leader.closing = None;
            fx.push(Effect::Closed { revision: asked, term, index });
        }
    }

    // ---- snapshots ------------------------------------------------------------------------------------

    fn begin_snapshot(&mut self, now: Time, to: ReplicaId, snapshot: &Snapshot, fx: &mut Vec<Effect>) {
        let metadata = snapshot.get_metadata();
        let (index, term) = (metadata.index, metadata.term);
        if let Some(old) = self.leader.sending.remove(&to) {
            fx.push(Effect::SnapshotDone { to, index: old.index });
        }
        let members = Members::from_conf_state(metadata.get_conf_state());
        let sending = Sending {
            index,
            term,
            members,
            number: 0,
            last: false,
            sent: now,
            progressed: now,
            again: false,
            most: 0,
            back: None,
        };
        self.leader.sending.insert(to, sending);
        fx.push(Effect::WantPiece { to, index, number: 0 });
    }

    fn on_piece_made(
        &mut self,
        now: Time,
        to: ReplicaId,
        index: u64,
        number: u32,
        data: Option<(Bytes, bool)>,
        fx: &mut Vec<Effect>,
    ) {
        let Some(s) = self.leader.sending.get_mut(&to).filter(|s| (s.index, s.number) == (index, number)) else {
            return;
        };
        let Some((data, last)) = data else { return self.end_snapshot(to, false, fx) };
        (s.last, s.sent) = (last, now);
        let members = if number == 0 { s.members.clone() } else { Members::default() };
        let body = Body::Piece { index, index_term: s.term, number, last, members, data };
        self.say(to, body, fx);
    }

    fn on_piece_arrived(&mut self, now: Time, from: ReplicaId, term: u64, index: u64, next: u32, fx: &mut Vec<Effect>) {
        if term > self.term() {
            return;
        }
        let Some(s) = self.leader.sending.get_mut(&from).filter(|s| s.index == index) else { return };
        if next == s.number + 1 {
            if s.last {
                return self.end_snapshot(from, true, fx);
            }
            (s.number, s.progressed, s.again, s.back) = (next, now, false, None);
            s.most = s.most.max(next);
            fx.push(Effect::WantPiece { to: from, index, number: next });
        } else if next != s.number && next <= s.most + 1 && (next == 0 || s.again) {
            // It has started anew and knows nothing of the pieces it took; or what was on its way to and from it then
            // made either believe otherwise. An answer that is older than it seems is corrected by the next one; to go
            // back means to make all pieces before that again, so it takes two.
            if next > s.number {
                s.progressed = now;
            } else if next > 0 && s.back.replace(next) != Some(next) {
                return;
            }
            (s.number, s.again, s.back) = (next, false, None);
            s.most = s.most.max(next);
            fx.push(Effect::WantPiece { to: from, index, number: next });
        }
    }

    fn resend_piece(&mut self, now: Time, to: ReplicaId, fx: &mut Vec<Effect>) {
        let Some(s) = self.leader.sending.get_mut(&to) else { return };
        if now.since(s.progressed) > SNAPSHOT_PATIENCE {
            self.end_snapshot(to, false, fx);
        } else if now.since(s.sent) >= self.config.lease {
            (s.sent, s.again) = (now, true);
            fx.push(Effect::WantPiece { to, index: s.index, number: s.number });
        }
    }

    fn end_snapshot(&mut self, to: ReplicaId, arrived: bool, fx: &mut Vec<Effect>) {
        if let Some(s) = self.leader.sending.remove(&to) {
            fx.push(Effect::SnapshotDone { to, index: s.index });
            let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
            self.raw.report_snapshot(to.0, status);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn on_piece(
        &mut self,
        from: ReplicaId,
        term: u64,
        (index, index_term): (u64, u64),
        (number, last): (u32, bool),
        members: Members,
        data: Bytes,
        fx: &mut Vec<Effect>,
    ) {
        if self.is_leader() && term == self.term() {
            return;
        }
        // A piece says who leads, as an append does; the library is told by what is a heartbeat to it. It answers a
        // leader whose term is over: whoever is sent a snapshot is sent nothing else that could tell that leader.
        self.library(MessageType::MsgHeartbeat, from, term, |_| {});
        if term < self.term() {
            return;
        }
        self.after_leader_spoke(from, term, fx);
        if index <= self.raw.raft.raft_log.committed {
            // Already here: the library answers with what it has, and the leader goes on from there.
            let body = Body::PieceArrived { index, next: number + 1 };
            return self.say(from, body, fx);
        }
        // The first piece begins anew what is not whole: a snapshot that was given up and begun again at the same index
        // may be cut otherwise. One that comes late costs the sender two more questions.
        let other = |s: &Staging| (s.from, s.leader_term, s.index) != (from, term, index) || !s.whole;
        if number == 0 && self.staging.as_ref().is_none_or(other) {
            let members = members.clone();
            let (leader_term, next, whole) = (term, 0, false);
            self.staging = Some(Staging { from, leader_term, index, index_term, members, next, whole });
        }
        let next = match self.staging.as_mut().filter(|s| (s.from, s.leader_term, s.index) == (from, term, index)) {
            None => 0,
            Some(s) => {
                if number == s.next && !s.whole {
                    s.next += 1;
                    s.whole = last;
                    fx.push(Effect::StagePiece { index, number, last, members, data });
                }
                s.next
            }
        };
        self.say(from, Body::PieceArrived { index, next }, fx);
    }

    fn on_staged(&mut self, index: u64, checkpoint: Option<Bytes>, fx: &mut Vec<Effect>) {
        let Some(s) = self.staging.take_if(|s| s.index == index && s.whole) else { return };
        let Some(body) = checkpoint else { return };
        let mut snapshot = Snapshot { data: body.into(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, s.index_term);
        metadata.conf_state = Some(s.members.to_conf_state());
        self.library(MessageType::MsgSnapshot, s.from, s.leader_term, |m| m.snapshot = Some(snapshot));
        self.after_leader_spoke(s.from, s.leader_term, fx);
    }

    // ---- the library's readies -----------------------------------------------------------------------

    fn on_durable(&mut self, ticket: Ticket, fx: &mut Vec<Effect>) {
        let mut number = None;
        while let Some((_, n)) = self.outstanding.pop_front_if(|o| o.0 <= ticket) {
            number = n.or(number);
        }
        if let Some(number) = number {
            self.raw.on_persist_ready(number);
        }
        if let Some((_, index)) = self.installing.take_if(|i| i.0 <= ticket) {
            self.raw.advance_apply_to(index);
        }
        while let Some((_, bound)) = self.bounds.pop_front_if(|b| b.0 <= ticket) {
            self.voter.revision = bound;
        }
        while let Some((_, to, term, revision)) = self.closing.pop_front_if(|c| c.0 <= ticket) {
            if term == self.term() {
                self.hold_closed(to, revision, fx);
            }
        }
    }

    fn drain(&mut self, now: Time, fx: &mut Vec<Effect>) {
        loop {
            self.note_role(now, fx);
            if !self.raw.has_ready() {
                break;
            }
            self.take_ready(now, fx);
        }
        if self.is_leader() {
            if !self.leader.ready && self.raw.raft.apply_to_current_term() {
                self.leader.ready = true;
                let floor = self.leader.floor.max(self.voter.revision_asked);
                fx.push(Effect::Leading { term: self.term(), floor });
            }
            self.answer_reads(now, fx);
        }
    }

    fn take_ready(&mut self, now: Time, fx: &mut Vec<Effect>) {
        let mut ready = self.raw.ready();
        let mut records = Vec::new();
        let (cell, replica) = (self.config.cell, self.me());
        if let Some(hard) = ready.hs() {
            self.raw.mut_store().set_hard(hard.clone());
        }
        if ready.must_sync() {
            // A commit index alone is worth no write: it is found again. It rides along with others, and of
            // durable entries only, so that one beyond the end of a log tells of a loss.
            let hard = self.raw.store().hard();
            let hard = (hard.term, hard.vote, hard.commit.min(self.raw.raft.raft_log.persisted));
            if self.hard_logged != hard {
                let (term, vote, commit) = hard;
                records.push(Record::Hard { cell, replica, term, vote, commit });
                self.hard_logged = hard;
            }
        }
        let installed = (!ready.snapshot().is_empty()).then(|| {
            let metadata = ready.snapshot().get_metadata();
            let members = Members::from_conf_state(metadata.get_conf_state());
            (metadata.index, metadata.term, members)
        });
        if let Some((index, term, members)) = installed.clone() {
            let body = Bytes::copy_from_slice(ready.snapshot().get_data());
            records.push(Record::Checkpoint { cell, replica, applied_index: index, applied_term: term, body });
            self.raw.mut_store().install(index, term, members);
        }
        records.extend(ready.entries().iter().map(|e| self.entry_record(e)));
        self.raw.mut_store().append(ready.entries());

        let number = ready.number();
        if !records.is_empty() {
            let ticket = self.ticket();
            self.outstanding.push_back((ticket, Some(number)));
            fx.push(Effect::Persist { ticket, records });
        } else if let Some(last) = self.outstanding.back_mut() {
            // Nothing of its own to write, but nothing after an unwritten one counts as persisted.
            last.1 = Some(number);
        }
        let after = self.outstanding.back().map(|o| o.0);
        if let Some((index, term, _)) = installed {
            self.installing = after.map(|t| (t, index));
            self.applied = index;
            fx.push(Effect::Install { index, term });
        }
        for m in ready.take_messages() {
            self.send(now, m, None, fx);
        }
        for m in ready.take_persisted_messages() {
            self.send(now, m, after, fx);
        }
        for e in ready.take_committed_entries() {
            self.apply(e, fx);
        }
        self.raw.advance_append_async(ready);
        if after.is_none() {
            self.raw.on_persist_ready(number);
        }
        if self.installing.is_none() {
            self.raw.advance_apply_to(self.applied);
        }
    }

    fn apply(&mut self, e: eraftpb::Entry, fx: &mut Vec<Effect>) {
        self.applied = e.index;
        self.raw.mut_store().set_applied(e.index, e.term);
        let id = match self.proposals.remove(&e.index) {
            Some((term, id)) if term == e.term => Some(id),
            Some((_, id)) => {
                fx.push(Effect::Dropped { id, why: Why::Overwritten });
                None
            }
            None => None,
        };
        fx.push(Effect::Committed { index: e.index, term: e.term, payload: e.data.into(), id });
    }

    /// Says what changed in part, term or leader since it was last noted.
    fn note_role(&mut self, now: Time, fx: &mut Vec<Effect>) {
        let raft = &self.raw.raft;
        let present = (raft.state, raft.term, raft.leader_id);
        let before = core::mem::replace(&mut self.seen, present);
        if before == present {
            return;
        }
        let (led, leads) = (before.0 == StateRole::Leader, present.0 == StateRole::Leader);
        if led && (!leads || before.1 != present.1) {
            self.stop_leading(now, before.1, fx);
        }
        if present.1 > before.1 {
            // Nobody may be answered for a leader of an earlier term.
            self.unfollow_below(present.1, fx);
        }
        if leads && !(led && before.1 == present.1) {
            let floor = if self.leader.floor_term == present.1 { self.leader.floor } else { Revision::ZERO };
            self.leader = Leader { since: now, floor, floor_term: present.1, ..Leader::default() };
            fx.push(Effect::Lead { term: present.1, to: self.others() });
        }
        if role_of(before.0, before.2) != role_of(present.0, present.2) {
            fx.push(Effect::Role(role_of(present.0, present.2)));
        }
        if !leads && self.voter.campaign_at == Time::NEVER && self.voter.bound.values().all(|b| b.withdrawing) {
            self.voter.campaign_at = now + self.config.patience + self.jitter();
        }
    }

    fn stop_leading(&mut self, now: Time, term: u64, fx: &mut Vec<Effect>) {
        fx.push(Effect::Unlead { term });
        let leader = replica(self.raw.raft.leader_id);
        for (_, (_, id)) in core::mem::take(&mut self.proposals) {
            fx.push(Effect::Dropped { id, why: Why::Unknown });
        }
        for read in core::mem::take(&mut self.reads) {
            fx.push(Effect::Dropped { id: read.id, why: Why::NotLeader { leader } });
        }
        for (to, s) in core::mem::take(&mut self.leader.sending) {
            fx.push(Effect::SnapshotDone { to, index: s.index });
        }
        self.leader = Leader::default();
        self.voter.campaign_at = now + self.config.patience + self.jitter();
    }

    fn send(&mut self, now: Time, m: eraftpb::Message, after: Option<Ticket>, fx: &mut Vec<Effect>) {
        let Some(to) = replica(m.to) else { return };
        let candidate =
            Candidate { last_index: m.index, last_term: m.log_term, commit: m.commit, commit_term: m.commit_term };
        let vote = Vote { granted: !m.reject, commit: m.commit, commit_term: m.commit_term };
        let body = match m.get_msg_type() {
            MessageType::MsgAppend => Body::Append {
                prev_index: m.index,
                prev_term: m.log_term,
                commit: m.commit,
                entries: m.entries.into_iter().map(from_library).collect(),
            },
            MessageType::MsgAppendResponse if m.reject => Body::AppendRefused {
                index: m.index,
                hint_index: m.reject_hint,
                hint_term: m.log_term,
                commit: m.commit,
            },
            MessageType::MsgAppendResponse => Body::Appended { index: m.index, commit: m.commit },
            MessageType::MsgRequestPreVote => Body::AskPreVote(candidate),
            MessageType::MsgRequestPreVoteResponse => Body::PreVote(vote),
            MessageType::MsgRequestVote => Body::AskVote { candidate, transfer: m.context == TRANSFER },
            MessageType::MsgRequestVoteResponse => Body::Vote { vote, bound: self.voter.revision_asked },
            MessageType::MsgTimeoutNow => Body::TimeoutNow,
            MessageType::MsgSnapshot => return self.begin_snapshot(now, to, m.get_snapshot(), fx),
            // Heartbeats are the pair's; proposals and reads are never forwarded.
            _ => return,
        };
        let message =
            Message { cell: self.config.cell, epoch: self.config.epoch, from: self.me(), to, term: m.term, body };
        fx.push(Effect::Send { after, message });
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

fn jitter(chance: &mut Chance, spread: Duration) -> Duration {
    Duration::from_nanos(chance.below(u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX)))
}

fn to_library(e: Entry) -> eraftpb::Entry {
    let mut out = eraftpb::Entry { term: e.term, index: e.index, data: e.payload.into(), ..eraftpb::Entry::default() };
    out.set_entry_type(match e.kind {
        0 => EntryType::EntryNormal,
        1 => EntryType::EntryConfChange,
        _ => EntryType::EntryConfChangeV2,
    });
    out
}

fn from_library(e: eraftpb::Entry) -> Entry {
    Entry { term: e.term, index: e.index, kind: e.entry_type as u8, payload: e.data.into() }
}
