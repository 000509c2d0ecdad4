//! Proposals whose callers wait, by their call and by their request.

use super::Waiting;
use agree::raft::CallId;
use base::RequestId;
use std::collections::{BTreeMap, BTreeSet};

/// The proposals of this leadership that are neither applied nor dropped.
#[derive(Default)]
pub(super) struct Proposed {
    by_call: BTreeMap<CallId, Waiting>,
    /// Their requests, each in one proposal: a second attempt is not proposed while the first is under way.
    requests: BTreeSet<RequestId>,
}

impl Proposed {
    /// Whether a request is under way.
    pub(super) fn has(&self, request: RequestId) -> bool {
        self.requests.contains(&request)
    }

    pub(super) fn insert(&mut self, id: CallId, waiting: Waiting) {
        self.requests.insert(waiting.asked.request.id);
        self.by_call.insert(id, waiting);
    }

    pub(super) fn remove(&mut self, id: CallId) -> Option<Waiting> {
        let waiting = self.by_call.remove(&id)?;
        self.requests.remove(&waiting.asked.request.id);
        Some(waiting)
    }

    /// All of them, in the order proposed; none is left.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Waiting> + use<> {
        std::mem::take(self).by_call.into_values()
    }

    pub(super) fn len(&self) -> usize {
        self.by_call.len()
    }

    pub(super) fn check(&self) {
        assert_eq!(self.requests.len(), self.by_call.len(), "a request is in two proposals, or in none");
    }
}
