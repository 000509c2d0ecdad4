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
    pub(super) fn beat(&mut self, effect: raft::Effect, fx: &mut Vec<Effect>) {
        let (cell, me) = (self.config.cell, self.config.replica);
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
                    say(self.led.remove(&member), Pair::Unlead { cell, term });
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
