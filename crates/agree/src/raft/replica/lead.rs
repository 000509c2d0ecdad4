//! Proposals, reads, and what a leader hears.

use super::*;

impl Replica {
    pub(super) fn on_propose(&mut self, id: CallId, payload: Bytes, fx: &mut Vec<Effect>) {
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

    pub(super) fn on_read(&mut self, now: Time, id: CallId, fx: &mut Vec<Effect>) {
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
    pub(super) fn answer_reads(&mut self, now: Time, fx: &mut Vec<Effect>) {
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

    pub(super) fn on_answered(&mut self, now: Time, from: ReplicaId, term: u64, sent: Time, fx: &mut Vec<Effect>) {
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
        } else if p.committed_index < committed || self.is_to_settle(from) {
            self.raw.raft.send_append(from.0);
        }
        self.resend_piece(now, from, fx);
        // A read that came while the heartbeat was under way waits for the next one.
        if self.reads.back().is_some_and(|r| r.arrived > sent) && self.lease_until(now).is_none() {
            fx.push(Effect::BeatNow { to: vec![from] });
        }
    }

    pub(super) fn on_strayed(&mut self, now: Time, from: ReplicaId, fx: &mut Vec<Effect>) {
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
    pub(super) fn on_restarted(&mut self, from: ReplicaId) {
        if self.is_leader()
            && let Some(p) = self.raw.raft.mut_prs().get_mut(from.0)
        {
            p.committed_index = 0;
        }
    }

    pub(super) fn on_transfer(&mut self, now: Time, to: ReplicaId) {
        if self.is_leader() && to != self.me() && self.members().is_voter(to) {
            self.leader.lease_ended = true;
            self.leader.transfer_until = Some(now + self.config.patience);
            self.raw.transfer_leader(to.0);
        }
    }
}
