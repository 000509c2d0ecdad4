//! Who should keep a cell: a function of what its leader observes (section 5.1 of the architecture).
//!
//! The rules, each with the part that carries it out:
//!
//! - As many voters as wanted, 3 or 5, on different nodes; of fewer than three eligible nodes one votes and every other
//!   learns; never two voters, but where a replica lost what it had and no other node can take its place.
//! - Only nodes with the role the cell needs, and none that is draining, leaving, expelled or has a disk that forgets. Of
//!   those: spread over zones first, then near the workload, long up, with few cells (`rank`).
//! - A voter that is silent for [`Policy::learner_after`] gets somebody to learn in its stead; after
//!   [`Policy::vote_after`] that one takes the vote. One that comes back in between keeps it, and once it has stayed for a
//!   while the one who learned is dropped.
//! - **Failure never shrinks the voters.** A vote is taken only by one who has caught up. Leaving and expulsion shrink
//!   them, if nobody can be the successor and those who stay can decide alone.
//! - 1 → 3 and 3 → 5 happen in one change, once all who are to come have caught up.
//! - Nobody begins to learn on, or from, a node that has [`Policy::snapshots_max`] snapshots under way, so that a
//!   machine's end does not move a thousand cells at once.
//!
//! A plan is one change to the whole set, thought to its end: asked again after it was applied, and nothing else has
//! happened, there is nothing more to do. Votes and places are not moved for balance alone; leadership is ([`Step::Transfer`]).

mod model;
mod rank;
mod steps;

use base::{CellId, NodeId, ReplicaId, Time};
use core::time::Duration;
use std::fmt;

/// The annotation of a namespace (or a workload) that says how many keepers its cell has.
pub const KEEPERS: &str = "beemesh.io/keepers";
/// Entries that a member may lack and still count as caught up: it gets them within the next exchange.
pub const LAG_MAX: u64 = 128;

/// How patient to be.
#[derive(Clone, Debug)]
pub struct Policy {
    /// A voter is silent for so long: somebody begins to learn in its stead. One that is back has to stay as long before
    /// whoever did is dropped.
    pub learner_after: Duration,
    /// A voter is silent for so long: whoever learned takes its vote.
    pub vote_after: Duration,
    /// A vote is given to, and a quorum counted of, those that were heard within this: several heartbeats.
    pub fresh: Duration,
    /// Snapshots under way to or from one node, at most.
    pub snapshots_max: usize,
    /// How many more cells the leader's node leads than another voter's before it hands over.
    pub leads_more: usize,
    /// A leader stays for so long before it hands over for balance.
    pub leads_for: Duration,
}

impl Default for Policy {
    /// 30 s, 5 min, 5 s, 2 snapshots; handing over at 4 cells more, after 10 min.
    fn default() -> Policy {
        Policy {
            learner_after: Duration::from_secs(30),
            vote_after: Duration::from_secs(300),
            fresh: Duration::from_secs(5),
            snapshots_max: 2,
            leads_more: 4,
            leads_for: Duration::from_secs(600),
        }
    }
}

/// What the mesh wants of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Wanted {
    /// That it stays.
    Stays,
    /// Nothing more is to be put on it, and what is there moves if it can.
    Draining,
    /// It is about to leave for good, and waits for us.
    Leaving,
    /// It is no member any more.
    Expelled,
}

/// A node that might keep the cell, or does.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// Which.
    pub id: NodeId,
    /// Whether it has the role the cell needs: keeper, or authority for root.
    pub has_role: bool,
    /// What the mesh wants of it.
    pub wanted: Wanted,
    /// Its disk has lost what was on it: nothing is put there until somebody says otherwise.
    pub is_lossy: bool,
    /// `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// How long its process runs.
    pub up_for: Duration,
    /// When it was heard last, on the observer's clock; the leader's own node is heard now.
    pub heard: Time,
    /// Since when it is heard without a gap of [`Policy::learner_after`]; if it is silent, since when it was.
    pub heard_since: Time,
    /// How near it is to what the cell is for: 0 far, 1 in a zone where its pods run, 2 it runs some of them.
    pub near: u8,
    /// Cells that it keeps, votes and learns alike.
    pub cells: usize,
    /// Cells that its replicas lead.
    pub leads: usize,
    /// Snapshots under way to or from it.
    pub snapshots: usize,
}

/// A member of the cell, as its descriptor names it and its leader knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// This life of it.
    pub replica: ReplicaId,
    /// The node it lives on.
    pub node: NodeId,
    /// Whether it votes.
    pub votes: bool,
    /// All up to this index is durable there; 0 if nothing is, or it is not known.
    pub matched: u64,
    /// It has said that it lost what it acknowledged.
    pub is_lossy: bool,
}

/// What the leader of a cell sees.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The present, on the leader's steady clock.
    pub now: Time,
    /// The cell.
    pub cell: CellId,
    /// The epoch of the descriptor in force.
    pub epoch: u64,
    /// Voters wanted; read as the next smaller odd number, 1 at least ([`voters_wanted`]).
    pub wanted: usize,
    /// The leader's node.
    pub leader: NodeId,
    /// Since when it leads.
    pub leads_since: Time,
    /// A change of members, or of leaders, is under way.
    pub is_changing: bool,
    /// The leader's last index.
    pub last: u64,
    /// The members.
    pub members: Vec<Member>,
    /// All nodes that are known, each once. A member's node that is not among them counts as one that has left.
    pub nodes: Vec<Node>,
}

/// A keeper to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Kept {
    /// Its node.
    pub node: NodeId,
    /// Its life; `None` of one that is to begin, with a number that was never used.
    pub replica: Option<ReplicaId>,
    /// Whether it votes.
    pub votes: bool,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Make these the keepers, if the epoch is still this one.
    Keep {
        /// The epoch this was decided on.
        epoch: u64,
        /// All of them. The leader may be missing; it then hands over on its way out.
        keepers: Vec<Kept>,
    },
    /// Let this voter lead.
    Transfer {
        /// Its life.
        to: ReplicaId,
    },
}

/// Why something is done or not: a sentence for whoever asks at night.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// Whom it is about; `None`: the cell.
    pub node: Option<NodeId>,
    /// The sentence.
    pub text: &'static str,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Some(node) => write!(f, "{node:?}: {}", self.text),
            None => f.write_str(self.text),
        }
    }
}

/// What is to be done, and why.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Plan {
    /// One thing, if any.
    pub step: Option<Step>,
    /// Why, in the order thought of; also why nothing.
    pub reasons: Vec<Reason>,
    /// When to ask again, though nothing else happens.
    pub again: Option<Time>,
}

/// How many voters an annotation's value asks for: 1, 3 or 5; 3 of anything else.
pub fn voters_wanted(annotation: Option<&str>) -> usize {
    match annotation.map(str::trim) {
        Some("1") => 1,
        Some("5") => 5,
        _ => 3,
    }
}

/// What is to be done about who keeps a cell.
pub fn plan(observed: &Observed, policy: &Policy) -> Plan {
    steps::plan(observed, policy)
}

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
