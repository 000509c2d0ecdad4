//! Nodes that may be asked for a bid.

use base::NodeId;
use decide::schedule::{NodeFacts, node_id};
use objects::Tree;

/// A node with a machine behind it, as its Node object describes it.
#[derive(Clone, PartialEq, Debug)]
pub struct Candidate {
    /// The machine.
    pub id: NodeId,
    /// What the object says; nobody is hosted in it.
    pub facts: NodeFacts,
}

impl Candidate {
    /// The candidate of a Node object; `None` if there is no machine behind it.
    pub fn of(node: &Tree) -> Option<Candidate> {
        Some(Candidate { id: node_id(node)?, facts: NodeFacts::of(node) })
    }
}
