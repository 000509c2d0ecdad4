//! closed(T): promises that a quorum holds (section 5.5 of the architecture).

use super::*;

impl Replica {
    pub(super) fn on_close(&mut self, revision: Revision, fx: &mut Vec<Effect>) {
        if !self.is_ready() || self.raw.raft.has_pending_conf() {
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
    pub(super) fn on_asked_to_close(&mut self, from: ReplicaId, term: u64, revision: Revision, fx: &mut Vec<Effect>) {
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

    pub(super) fn hold_closed(&mut self, from: ReplicaId, revision: Revision, fx: &mut Vec<Effect>) {
        if from == self.me() {
            self.on_closed(from, self.term(), revision, fx);
        } else {
            self.say(from, Body::Closed { revision }, fx);
        }
    }

    pub(super) fn on_closed(&mut self, from: ReplicaId, term: u64, revision: Revision, fx: &mut Vec<Effect>) {
        if !self.is_leader() || term != self.term() || !self.members().is_voter(from) {
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
}
