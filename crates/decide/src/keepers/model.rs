//! The set of keepers while it is thought over.

use super::{Kept, LAG_MAX, Member, Node, Observed, Policy, Wanted};
use base::{NodeId, ReplicaId};
use std::collections::BTreeMap;

/// How a member, or a node that may become one, stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Standing {
    /// Nothing is to be said against it.
    Good,
    /// It is heard again, but not for long.
    Back,
    /// It is silent; somebody is to learn in its stead.
    Silent,
    /// It should not be here, and stays while there is nobody else.
    Draining,
    /// It is silent for so long that its vote is to be taken.
    Lost,
    /// It has lost what it held.
    Lossy,
    /// It is leaving, or has no right to be here any more.
    Going,
}

impl Standing {
    /// Whether nobody is needed in its stead.
    pub(super) fn is_fine(self) -> bool {
        matches!(self, Standing::Good | Standing::Back)
    }

    /// Whether its vote is taken as soon as somebody can.
    pub(super) fn is_over(self) -> bool {
        self >= Standing::Draining
    }
}

/// A member as it would be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Seat {
    pub(super) replica: Option<ReplicaId>,
    pub(super) node: NodeId,
    pub(super) votes: bool,
    /// It has all but the last entries.
    pub(super) has_come: bool,
    pub(super) standing: Standing,
    /// It was heard just now, whatever becomes of it.
    pub(super) is_heard: bool,
}

impl Seat {
    /// Whether it may be given a vote.
    pub(super) fn is_ready(&self) -> bool {
        !self.votes && self.has_come && self.is_heard && self.standing.is_fine()
    }

    /// Whether its vote can be had for a decision.
    pub(super) fn decides(&self) -> bool {
        self.votes && self.is_heard && self.standing != Standing::Lossy
    }
}

/// The set, and what surrounds it.
pub(super) struct Model<'a> {
    pub(super) o: &'a Observed,
    pub(super) policy: &'a Policy,
    pub(super) nodes: BTreeMap<NodeId, &'a Node>,
    pub(super) seats: Vec<Seat>,
}

impl<'a> Model<'a> {
    pub(super) fn new(o: &'a Observed, policy: &'a Policy) -> Model<'a> {
        let nodes: BTreeMap<NodeId, &Node> = o.nodes.iter().map(|n| (n.id, n)).collect();
        let mut model = Model { o, policy, nodes, seats: Vec::new() };
        model.seats = o.members.iter().map(|m| model.seat(m)).collect();
        model
    }

    fn seat(&self, m: &Member) -> Seat {
        let node = self.nodes.get(&m.node);
        let standing = match node {
            // The log of one that leads is what the others are held against.
            _ if m.is_lossy => Standing::Lossy,
            Some(node) => self.standing(node),
            None => Standing::Going,
        };
        let has_come = m.node == self.o.leader || (m.matched > 0 && m.matched.saturating_add(LAG_MAX) >= self.o.last);
        let is_heard = node.is_some_and(|n| n.id == self.o.leader || self.o.now.since(n.heard) < self.policy.fresh);
        Seat { replica: Some(m.replica), node: m.node, votes: m.votes, has_come, standing, is_heard }
    }

    fn is_heard(&self, node: &Node) -> bool {
        node.id == self.o.leader || self.o.now.since(node.heard) < self.policy.learner_after
    }

    pub(super) fn standing(&self, node: &Node) -> Standing {
        let silent = self.o.now.since(node.heard);
        if matches!(node.wanted, Wanted::Leaving | Wanted::Expelled) || !node.has_role {
            Standing::Going
        } else if !self.is_heard(node) && silent >= self.policy.vote_after {
            Standing::Lost
        } else if node.wanted == Wanted::Draining || node.is_lossy {
            Standing::Draining
        } else if !self.is_heard(node) {
            Standing::Silent
        } else if node.id != self.o.leader && node.heard.since(node.heard_since) < self.policy.learner_after {
            Standing::Back
        } else {
            Standing::Good
        }
    }

    pub(super) fn voters(&self) -> impl Iterator<Item = &Seat> {
        self.seats.iter().filter(|s| s.votes)
    }

    pub(super) fn learners(&self) -> impl Iterator<Item = &Seat> {
        self.seats.iter().filter(|s| !s.votes)
    }

    /// Whether more than half of the voters can be had.
    pub(super) fn has_quorum(&self) -> bool {
        self.voters().filter(|s| s.decides()).count() > self.voters().count() / 2
    }

    pub(super) fn zone(&self, node: &NodeId) -> Option<&str> {
        self.nodes.get(node)?.zone.as_deref()
    }

    /// How many of those who keep it, or are about to, share a node's zone. A node without one shares it with nobody.
    pub(super) fn in_zone(&self, node: &NodeId, beside: impl Fn(&Seat) -> bool) -> usize {
        let Some(zone) = self.zone(node) else { return 0 };
        self.seats.iter().filter(|s| s.node != *node && beside(s) && self.zone(&s.node) == Some(zone)).count()
    }

    /// The nodes that could take it and have no part in it.
    pub(super) fn candidates(&self) -> Vec<&'a Node> {
        let has_seat = |n: &Node| self.seats.iter().any(|s| s.node == n.id);
        self.nodes.values().copied().filter(|n| !has_seat(n) && self.standing(n).is_fine()).collect()
    }

    /// The keepers it has come to.
    pub(super) fn kept(&self) -> Vec<Kept> {
        let of = |s: &Seat| Kept { node: s.node, replica: s.replica, votes: s.votes };
        let mut kept: Vec<Kept> = self.seats.iter().map(of).collect();
        kept.sort_unstable();
        kept
    }
}
