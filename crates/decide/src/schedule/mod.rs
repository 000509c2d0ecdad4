//! Scheduling by offer: a leader tenders, nodes bid, the commit that binds is the award.
//!
//! No scheduler places a pod. The leader of the pod's cell asks a few nodes whether they can run it; a
//! node that can reserves what the pod needs for some seconds and says how well it suits; the leader
//! takes the best bid, has it confirmed, and commits the binding. Capacity is true only at the node, so
//! it is never counted twice, and nothing global is needed (architecture, sections 1 and 8).
//!
//! [`fit()`] says why a node cannot take a pod, in the words kube-scheduler uses; [`score()`] how well a
//! node that can suits; [`Book`] is the node's own account of what is bound and reserved; [`award()`]
//! chooses between bids and counts the reasons of those who could not bid; [`Topology`] is what a leader
//! holds against a node for the sake of the pod's place among others; [`victims()`] whom a node would evict
//! for a pod that matters more, which it offers where it cannot bid; [`admit()`] says whether a node
//! takes a pod that somebody bound to it without asking.

mod admission;
pub mod affinity;
mod award;
mod book;
mod facts;
mod fit;
mod neighbours;
mod preempt;
mod score;
mod topology;

pub use admission::{Refusal, admit};
pub use award::{Answer, Award, Preemption, award, unschedulable};
pub use book::{Book, BookError, Tender};
pub use facts::{Hosted, Labels, NODE_ID, NodeFacts, node_id};
pub use fit::{Reason, fit, never};
pub(crate) use fit::{selector_matches, tolerated_by};
pub use neighbours::{Affinity, Beside, Namespaces, Term, beside};
pub use preempt::{Victim, better, victims};
pub use score::score;
pub use topology::{Among, Topology};
