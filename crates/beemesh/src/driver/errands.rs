//! Requests that this node's machines make in their own names: sent like anybody's, answered by an input.

use crate::backend::Node;
use node::errand::{Answered, Errand};
use std::sync::{OnceLock, Weak};
use tokio::runtime::Handle;

/// The way of errands to the cells. The machines bound how many of theirs are under way.
pub(crate) struct Errands {
    runtime: Handle,
    backend: OnceLock<Weak<Node>>,
}

impl Errands {
    /// Errands that run on this runtime, once there is a backend.
    pub(crate) fn new(runtime: Handle) -> Errands {
        Errands { runtime, backend: OnceLock::new() }
    }

    /// Opens the way.
    pub(crate) fn through(&self, backend: Weak<Node>) {
        // Set once, before any machine is stepped.
        let _ = self.backend.set(backend);
    }

    /// Sends an errand; `answer` is called once, unless the process ends before.
    pub(crate) fn send(&self, errand: Box<Errand>, answer: impl FnOnce(Answered) + Send + 'static) {
        let Some(backend) = self.backend.get().cloned() else { return };
        self.runtime.spawn(async move {
            if let Some(backend) = backend.upgrade() {
                let answered = backend.errand(&errand).await;
                if let Err(status) = &answered {
                    let (user, kind, name) = (&errand.user.name, errand.kind.kind, &errand.name);
                    tracing::debug!(user, verb = errand.verb.as_str(), kind, ?name, why = status.message, "refused");
                }
                answer(answered);
            }
        });
    }
}
