//! Who keeps the cell, where they live, and how they are changed.
//!
//! Replicas speak of each other by their lives; what is sent goes to nodes. The cell's own log says which life is on
//! which node. A member that does not know yet (it waits for its first snapshot, or lags behind a change) answers where
//! it was spoken to from; nobody speaks for a replica that is known to live elsewhere.

use super::{Cell, Effect};
use agree::descriptor::Keeper;
use agree::heartbeat::{Input as Pair, Led};
use agree::raft;
use base::{NodeId, Now, ReplicaId};
use std::collections::BTreeMap;

/// How many replicas that the log does not name yet are remembered; of more the least is forgotten, and it has to speak
/// again.
const HEARD_MAX: usize = 16;

/// Where replicas live that the log here does not name (yet), as they spoke.
#[derive(Default)]
pub(super) struct Heard(BTreeMap<ReplicaId, NodeId>);

impl Heard {
    fn note(&mut self, replica: ReplicaId, node: NodeId) {
        self.0.insert(replica, node);
        if self.0.len() > HEARD_MAX {
            self.0.pop_first();
        }
    }
}

impl Cell {
    /// Where a replica of this cell lives, as far as is known here.
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.member.cell().keepers().node_of(replica).or_else(|| self.heard.0.get(&replica).copied())
    }

    /// The node that leads the cell, as far as is known here: this one, once it takes requests.
    pub fn leader(&self) -> Option<NodeId> {
        if self.leading {
            return Some(self.config.node);
        }
        match self.member.replica().role() {
            raft::Role::Follower { leader } => self.node_of(leader?),
            raft::Role::Candidate | raft::Role::Leader => None,
        }
    }

    /// From another replica's node.
    pub(super) fn on_message(&mut self, now: Now, from: NodeId, message: raft::Message) {
        match self.member.cell().keepers().node_of(message.from) {
            Some(node) if node != from => return,
            Some(_) => {}
            None => self.heard.note(message.from, from),
        }
        self.raft(now, raft::Input::Message(message));
    }

    /// Makes these the keepers, if they are still those of that epoch and this replica leads. What becomes of it is told
    /// by [`Effect::Kept`].
    pub(super) fn on_keep(&mut self, now: Now, epoch: u64, keepers: &[Keeper]) {
        let present = self.member.cell().keepers();
        if !self.leading || present.now.epoch != epoch || !self.member.replica().may_change() {
            return;
        }
        // Above all that was minted and promised: whoever comes to vote knows of no promise.
        let floor = self.member.cell_mut().mint(now.wall);
        if let Some(change) = self.member.cell().keepers().change_to(keepers, floor) {
            let id = self.call();
            self.raft(now, raft::Input::Change { id, change });
        }
    }

    pub(super) fn send(&self, message: raft::Message, fx: &mut Vec<Effect>) {
        // Somebody of whom nothing is known is somebody who has gone: it was worth trying.
        if let Some(to) = self.node_of(message.to) {
            fx.push(Effect::Send { to, message });
        }
    }

    /// What a replica wants of the heartbeats between two nodes.
    pub(super) fn beat(&mut self, now: Now, effect: raft::Effect, fx: &mut Vec<Effect>) {
        let (cell, me) = (self.config.cell, self.config.replica);
        // What a leader said last was that it goes: by now nobody knows where it is, nor answers its heartbeats. Whoever
        // waited to be told of its silence would wait for ever.
        if let raft::Effect::Follow { id, leader, .. } = effect
            && self.node_of(leader).is_none()
        {
            return self.raft(now, raft::Input::Unfollowed { id, last: None });
        }
        let mut say = |node: Option<NodeId>, input: Pair| fx.extend(node.map(|node| Effect::Pair { node, input }));
        match effect {
            raft::Effect::Lead { term, to } => {
                for member in to {
                    let node = self.node_of(member);
                    self.led.extend(node.map(|n| (member, n)));
                    say(node, Pair::Lead { cell, led: Led { leader: me, member, term } });
                }
            }
            raft::Effect::Unlead { term, to } => {
                for member in to {
                    let node = self.led.remove(&member);
                    // Where a life follows another, both are led for a while: the later one goes on to be.
                    let next = self.led.iter().find(|(_, at)| Some(**at) == node).map(|(next, _)| *next);
                    let lead = |member| Pair::Lead { cell, led: Led { leader: me, member, term } };
                    say(node, next.map_or(Pair::Unlead { cell, term }, lead));
                }
            }
            raft::Effect::Follow { id, leader, term } => {
                let node = self.node_of(leader);
                self.followed.extend(node.map(|n| (id, n)));
                say(node, Pair::Follow { cell, id, member: me, leader, term });
            }
            raft::Effect::Unfollow { id, .. } => {
                say(self.followed.get(&id).copied(), Pair::Unfollow { cell, id });
            }
            raft::Effect::BeatNow { to } => to.into_iter().for_each(|m| say(self.node_of(m), Pair::BeatNow)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cell::{Config, Input, Role};
    use agree::cell as agreed;
    use agree::raft::Body;
    use agree::raft::message::Entry;
    use base::{CellId, Chance, Time, Uid, Wall};
    use std::sync::Arc;

    #[test]
    fn a_leader_that_is_gone_when_it_is_heard_is_not_waited_for() {
        let now = Now { mono: Time::from_ms(60_000), wall: Wall(1) };
        let keeper = |n: u8| Keeper { replica: ReplicaId(n.into()), node: NodeId([n; 32]), votes: true };
        let mut config = Config::new(CellId(Uid(7)), Role::Registry, NodeId([1; 32]), Arc::default());
        config.founders = vec![keeper(1), keeper(2)];
        let founding = agreed::Keepers::founding(config.cell, config.founders.clone());
        let mut cell = Cell::new(config, None, Arc::default(), None, &Chance::from_u64(1), now).unwrap();
        let alone = founding.change_to(&[keeper(1)], base::Revision::ZERO).unwrap();
        let entry = |index, payload| Entry { term: 1, index, kind: 2, payload };
        let entries = vec![entry(1, alone.encode()), entry(2, bytes::Bytes::new())];
        let append = |term, at: (u64, u64), commit, entries| {
            let body = Body::Append { prev_index: at.0, prev_term: at.1, commit, entries };
            let (from, to) = (ReplicaId(2), ReplicaId(1));
            Input::Message {
                from: NodeId([2; 32]),
                message: raft::Message { cell: CellId(Uid(7)), epoch: 1, from, to, term, body },
            }
        };
        // The disk and the machine that shares heartbeats answer at once.
        let mut step = |input| {
            let mut inputs = vec![input];
            while let Some(input) = inputs.pop() {
                let mut fx = Vec::new();
                cell.step(now, input, &mut fx);
                inputs.extend(fx.into_iter().filter_map(|e| match e {
                    Effect::Persist { ticket, .. } => Some(Input::Durable(ticket)),
                    Effect::Pair { input: Pair::Unfollow { id, .. }, .. } => {
                        Some(Input::Heartbeat(raft::Input::Unfollowed { id, last: None }))
                    }
                    _ => None,
                }));
            }
            (cell.next_deadline(), cell.member().cell().keepers().now.keepers.len())
        };
        assert_eq!(step(append(1, (0, 0), 0, entries)), (None, 2), "it is bound to who leads");
        // Of a later term, with the word that all of it is committed.
        let (deadline, keepers) = step(append(2, (2, 1), 2, Vec::new()));
        assert_eq!(keepers, 1);
        assert!(deadline.is_some(), "it leads before long");
    }

    #[test]
    fn the_end_of_a_life_ends_nothing_of_the_one_that_follows_it_on_its_node() {
        let (now, node) = (Now { mono: Time::from_ms(1), wall: Wall(1) }, NodeId([9; 32]));
        let config = Config::new(CellId(Uid(7)), Role::Registry, NodeId([1; 32]), Arc::default());
        let mut cell = Cell::new(config, None, Arc::default(), None, &Chance::from_u64(1), now).unwrap();
        let (old, new) = (ReplicaId(2), ReplicaId(3));
        cell.heard.note(old, node);
        cell.heard.note(new, node);
        let mut said = |effect| {
            let mut fx = Vec::new();
            cell.beat(now, effect, &mut fx);
            let input = |e| if let Effect::Pair { input, .. } = e { Some(input) } else { None };
            fx.into_iter().filter_map(input).collect::<Vec<_>>()
        };
        said(raft::Effect::Lead { term: 4, to: vec![old] });
        said(raft::Effect::Lead { term: 4, to: vec![new] });
        let still = said(raft::Effect::Unlead { term: 4, to: vec![old] });
        assert!(matches!(still[..], [Pair::Lead { led: Led { member, .. }, .. }] if member == new), "{still:?}");
        let over = said(raft::Effect::Unlead { term: 4, to: vec![new] });
        assert!(matches!(over[..], [Pair::Unlead { term: 4, .. }]), "{over:?}");
    }
}
