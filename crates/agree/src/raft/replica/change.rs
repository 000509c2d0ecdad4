//! Changes of members: one at a time, through a joint state where voters change (Ongaro and Ousterhout, "In Search of
//! an Understandable Consensus Algorithm", section 6).
//!
//! A change is in force where it is applied. A joint state is left by whoever leads then and goes on to vote, with an entry of its own, so
//! that a leader's end in between leaves nothing half done; and not before a quorum of the new voters says of its disks
//! that it is in force there ([`Body::Members`]): they are to be able to elect, whoever of the old ones ends then.
//!
//! What a quorum of voters has promised not to mint ([`Input::Close`]) is not known to those who come to vote: whoever
//! proposes a change says in it above what they must mint, and between proposal and application nothing is closed.

use super::*;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};

impl Replica {
    /// How far another member has come, as this leader knows it; `None` of one that is no member, and elsewhere than on
    /// the leader.
    pub fn peer(&self, of: ReplicaId) -> Option<Peer> {
        if !self.is_leader() {
            return None;
        }
        let matched = self.raw.raft.prs().get(of.0)?.matched;
        Some(Peer { matched, answered: self.leader.answered.get(&of).copied() })
    }

    /// Whether members may be changed now: this replica leads, and no other change is under way.
    pub fn may_change(&self) -> bool {
        self.is_ready() && self.leader.transfer_until.is_none() && !self.is_changing()
    }

    /// Whether the members in force here are those it will begin with if it starts anew: what was applied is known to be
    /// committed by what is on the disk. Until a quorum of the new members can say so, one that is a member no more may
    /// be needed yet.
    pub fn members_are_durable(&self) -> bool {
        self.changing.is_none()
    }

    /// It knows nothing of its cell yet, not even who its members are.
    pub(super) fn is_blank(&self) -> bool {
        self.members().voters.is_empty()
    }

    /// A change is proposed and not applied, or the joint state is not left.
    pub(super) fn is_changing(&self) -> bool {
        self.raw.raft.has_pending_conf() || !self.members().outgoing.is_empty()
    }

    pub(super) fn on_change(&mut self, id: CallId, change: &Change, fx: &mut Vec<Effect>) {
        let why = if !self.is_leader() {
            Why::NotLeader { leader: replica(self.raw.raft.leader_id) }
        } else if !self.may_change() {
            Why::Busy
        } else if !self.allows(change) {
            Why::Refused
        } else if self.raw.propose_conf_change(change.encode().into(), conf_change(change)).is_ok() {
            self.leader.closing = None;
            self.proposals.insert(self.raw.raft.raft_log.last_index(), (self.term(), id));
            return;
        } else {
            Why::Busy
        };
        fx.push(Effect::Dropped { id, why });
    }

    /// Whether the library will make something of it, voters are left, and none of them begins to vote with nothing in its
    /// log: such a one answers nobody, and may be needed for a quorum.
    fn allows(&self, change: &Change) -> bool {
        let mut of: Vec<ReplicaId> = change.changes.iter().map(|c| c.1).collect();
        of.sort_unstable();
        let each_once = of.windows(2).all(|w| w.first() != w.last());
        if of.is_empty() || of.contains(&ReplicaId(0)) || !each_once || change.changes.iter().any(|c| c.0 > 2) {
            return false;
        }
        let holds = |r: ReplicaId| self.raw.raft.prs().get(r.0).is_some_and(|p| p.matched > 0);
        if change.changes.iter().any(|(what, r)| *what == 0 && !holds(*r)) {
            return false;
        }
        // Whoever leads knows the way out of a joint state only while it is a member.
        if change.transition == 0 && change.changes.iter().any(|(what, r)| *what == 0 || self.members().is_voter(*r)) {
            return false;
        }
        let cc = conf_change(change);
        let mut changer = raft::Changer::new(self.raw.raft.prs());
        match cc.enter_joint() {
            Some(auto_leave) => changer.enter_joint(auto_leave, &cc.changes).is_ok(),
            None => changer.simple(&cc.changes).is_ok(),
        }
    }

    /// An entry that changes the members is applied.
    pub(super) fn apply_change(&mut self, e: &eraftpb::Entry, id: Option<CallId>, fx: &mut Vec<Effect>) {
        let payload = Bytes::copy_from_slice(&e.context);
        // What cannot be read is not taken into the log.
        let change = (!payload.is_empty()).then(|| Change::decode(&payload).ok()).flatten();
        let cc = change.as_ref().map(conf_change).unwrap_or_default();
        let mut context = change.map(|c| c.context).unwrap_or_default();
        match self.raw.apply_conf_change(&cc) {
            Ok(state) => self.raw.mut_store().set_members(Members::from_conf_state(&state)),
            // It cannot be made of these members: that is so for each replica, and nothing changes.
            Err(_) => context = Bytes::new(),
        }
        // That it is committed would be found again by those who were members before; they are to be let go.
        let (term, vote, _) = self.hard_logged;
        self.hard_logged = (term, vote, e.index);
        let (cell, replica) = (self.config.cell, self.me());
        self.changing = Some(self.persist(vec![Record::Hard { cell, replica, term, vote, commit: e.index }], fx));
        self.changed = e.index;
        let members = self.members().clone();
        fx.push(Effect::Changed { index: e.index, term: e.term, members, context, id });
        // It was elected while the last leader left the joint state, and does not vote beyond it.
        if self.is_leader() && !self.members().is_voter(self.me()) {
            let term = self.term();
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
        self.lead_members(fx);
    }

    /// Who is led is told to the pair machines: whoever is new, and whoever goes.
    pub(super) fn lead_members(&mut self, fx: &mut Vec<Effect>) {
        if !self.is_leader() || self.seen.0 != StateRole::Leader {
            return;
        }
        let (term, now) = (self.term(), self.others());
        let new: Vec<ReplicaId> = now.iter().copied().filter(|r| !self.leader.led.contains(r)).collect();
        let gone: Vec<ReplicaId> = self.leader.led.iter().copied().filter(|r| !now.contains(r)).collect();
        self.leader.led = now;
        for r in &gone {
            self.leader.answered.remove(r);
            self.leader.closed.remove(r);
            self.leader.settled.remove(r);
            if let Some(s) = self.leader.sending.remove(r) {
                fx.push(Effect::SnapshotDone { to: *r, index: s.index });
            }
        }
        if !gone.is_empty() {
            fx.push(Effect::Unlead { term, to: gone });
        }
        if !new.is_empty() {
            fx.push(Effect::Lead { term, to: new });
        }
    }

    /// What a leader does while voters change: it leaves the joint state, or, if it is not to vote, has one lead that is.
    /// Whether anything was done.
    pub(super) fn conclude_change(&mut self, now: Time) -> bool {
        let members = self.members();
        let is_under_way = self.raw.raft.has_pending_conf() || self.leader.transfer_until.is_some();
        if members.outgoing.is_empty() || !self.is_ready() || is_under_way {
            return false;
        }
        let settled = |r: ReplicaId| match r == self.me() {
            true => self.changing.is_none().then_some(self.changed),
            false => self.leader.settled.get(&r).copied(),
        };
        let half = Members { outgoing: Vec::new(), ..members.clone() };
        if half.quorum_of(settled) < self.changed {
            return false;
        }
        if half.is_voter(self.me()) {
            let leaves = self.raw.propose_conf_change(Vec::new(), ConfChangeV2::default()).is_ok();
            self.leader.closing = self.leader.closing.take_if(|_| !leaves);
            return leaves;
        }
        let able = half.voters.iter().copied().filter(|r| settled(*r).is_some_and(|at| at >= self.changed));
        let best = able.max_by_key(|r| self.raw.raft.prs().get(r.0).map(|p| p.matched));
        if let Some(best) = best {
            self.on_transfer(now, best);
        }
        best.is_some()
    }

    /// As a follower: the change is in force here, and on the disk.
    pub(super) fn tell_members(&self, to: ReplicaId, fx: &mut Vec<Effect>) {
        if !self.members().outgoing.is_empty() && self.changing.is_none() {
            // There is one joint state at a time: whoever is in one beyond a change is in that one.
            self.say(to, Body::Members { index: self.applied }, fx);
        }
    }

    pub(super) fn on_members(&mut self, from: ReplicaId, term: u64, index: u64) {
        if self.is_leader() && term == self.term() {
            let known = self.leader.settled.entry(from).or_default();
            *known = index.max(*known);
        }
    }

    /// Whether this member has not said yet that the joint state is in force there.
    pub(super) fn is_to_settle(&self, member: ReplicaId) -> bool {
        !self.members().outgoing.is_empty()
            && self.leader.settled.get(&member).copied().unwrap_or_default() < self.changed
    }

    /// It holds nothing at all: it is sent a snapshot. A member that held something has lost it; unless this was said
    /// before it held anything, and comes late. Who holds nothing follows nobody, and answers no heartbeat: one that has
    /// just answered holds something, and one that never has is about to.
    pub(super) fn on_blank(&mut self, now: Time, from: ReplicaId, term: u64, fx: &mut Vec<Effect>) {
        if !self.is_leader() || term > self.term() {
            return;
        }
        let at = self.applied.max(1);
        match self.raw.raft.prs().get(from.0).map(|p| p.matched) {
            Some(0) if !self.leader.sending.contains_key(&from) => {
                let term = self.term();
                self.library(MessageType::MsgAppendResponse, from, term, |m| {
                    m.reject = true;
                    m.request_snapshot = at;
                });
            }
            Some(0) | None => {}
            Some(_) => {
                let answered = self.leader.answered.get(&from);
                if answered.is_some_and(|at| now.since(*at) >= self.config.patience) {
                    fx.push(Effect::PeerLossy { replica: from });
                }
            }
        }
    }
}

/// The library's form of a change. A joint state is left by an entry of its own.
fn conf_change(change: &Change) -> ConfChangeV2 {
    let mut cc = ConfChangeV2::default();
    cc.set_transition(match change.transition {
        0 => ConfChangeTransition::Auto,
        1 => ConfChangeTransition::Implicit,
        _ => ConfChangeTransition::Explicit,
    });
    let single = |(what, replica): &(u8, ReplicaId)| {
        let mut single = ConfChangeSingle { node_id: replica.0, ..ConfChangeSingle::default() };
        single.set_change_type(match what {
            0 => ConfChangeType::AddNode,
            1 => ConfChangeType::RemoveNode,
            _ => ConfChangeType::AddLearnerNode,
        });
        single
    };
    cc.changes = change.changes.iter().map(single).collect();
    cc
}

/// Whether an entry of this kind and payload is one this release can apply.
pub(super) fn is_known(kind: u8, payload: &Bytes) -> bool {
    match kind {
        0 => true,
        2 => payload.is_empty() || Change::decode(payload).is_ok_and(|c| c.transition != 1),
        _ => false,
    }
}
