//! Elections and the promises of a voter, by time.

use super::*;

impl Replica {
    /// When a quorum, this replica at `now` among it, last answered; `Time::ZERO` if none has.
    pub(super) fn quorum_answered(&self, now: Time) -> Time {
        self.members().quorum_time(self.me(), now, |r| self.leader.answered.get(&r).copied())
    }

    /// When a leader without answers steps down; never, if its own vote is a quorum.
    pub(super) fn quorum_deadline(&self) -> Time {
        self.quorum_answered(Time::NEVER).max(self.leader.since) + self.config.patience
    }

    pub(super) fn may_campaign(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        !self.lossy
            && self.raw.raft.promotable()
            && self.voter.bound.is_empty()
            // The library asserts that all is durable when it becomes leader; with the last ticket
            // outstanding it would only have to wait for it later.
            && log.persisted == log.last_index()
            && self.outstanding.is_empty()
    }

    /// One that does not vote goes on to believe in a leader that has long gone, or names it no more, if it is not told.
    pub(super) fn has_lost_leader(&self) -> bool {
        let raft = &self.raw.raft;
        !raft.promotable() && raft.leader_id != raft::INVALID_ID && self.voter.bound.is_empty()
    }

    pub(super) fn on_time(&mut self, now: Time, fx: &mut Vec<Effect>) {
        if self.is_leader() {
            if self.leader.transfer_until.is_some_and(|t| now >= t) {
                self.leader.transfer_until = None;
                self.raw.raft.abort_leader_transfer();
                // The lease has ended for this term.
                self.drain(now, fx);
            }
            if now >= self.quorum_deadline() {
                let term = self.term();
                self.raw.raft.become_follower(term, raft::INVALID_ID);
                self.drain(now, fx);
            }
        } else if now < self.voter.campaign_at.max(self.voter.hold_until) {
            // A voter waits, and so does who only learns.
        } else if self.has_lost_leader() {
            let term = self.term();
            self.raw.raft.become_follower(term, raft::INVALID_ID);
            self.drain(now, fx);
        } else if self.may_campaign() {
            self.voter.campaign_at = now + self.config.patience + self.jitter();
            // The only error is of a message that cannot be stepped; this one always can.
            let _ = self.raw.campaign();
            self.drain(now, fx);
        }
    }

    pub(super) fn jitter(&mut self) -> Duration {
        jitter(&mut self.chance, self.config.election_spread)
    }

    /// Binds this voter to the leader it follows.
    pub(super) fn follow(&mut self, leader: ReplicaId, term: u64, fx: &mut Vec<Effect>) {
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
    pub(super) fn unfollow_below(&mut self, term: u64, fx: &mut Vec<Effect>) {
        for (id, b) in &mut self.voter.bound {
            if !b.withdrawing && b.term < term {
                b.withdrawing = true;
                fx.push(Effect::Unfollow { id: *id, leader: b.leader, term: b.term });
            }
        }
    }

    pub(super) fn on_unfollowed(&mut self, now: Time, id: FollowId, last: Option<Time>) {
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

    pub(super) fn take_held(&mut self, now: Time, fx: &mut Vec<Effect>) {
        if !self.voter.bound.is_empty() {
            return;
        }
        if let Some(m) = self.voter.held.take() {
            self.on_message(now, m, fx);
            self.drain(now, fx);
        }
    }
}
