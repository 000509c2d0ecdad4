//! What a cell's leader tells a node of the pods that are bound to it.
//!
//! The leader tells everything once (when it begins to lead, when the node asks after a start) and each
//! change from then on. The node believes no one else about what it is to run.

use base::CellId;
use objects::request::Stored;
use std::sync::Arc;

/// Pods of one cell that are bound to the node it is sent to, as committed.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Whose pods.
    pub cell: CellId,
    /// The cell's namespace.
    pub namespace: Arc<str>,
    /// It is everything: what the node has of this cell and is not named here is gone.
    pub whole: bool,
    /// By name: the pod as it is now, or that it is gone.
    pub pods: Vec<(Arc<str>, Option<Stored>)>,
}
