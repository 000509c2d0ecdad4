//! Requests that this node's machines make in their own names: sent like anybody's, answered by an input.

use crate::backend::Node;
use api::port::{Event as Watched, Refusal, Watch};
use node::errand::{Answered, Errand};
use node::reflector::Event;
use std::sync::{OnceLock, Weak};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// How many events of a watch are handed on at a time.
const BATCH: usize = 256;

/// What becomes of a watch.
pub(crate) enum Told {
    /// It is open.
    Opened,
    /// What it tells.
    Events(Vec<Event>),
    /// It has ended, or was refused.
    Ended(Option<Refusal>),
}

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

    /// Opens a watch, as any client's; `tell` is called until it says `false`, or the watch has ended. `None`: there is no
    /// way yet.
    pub(crate) fn watch(
        &self,
        errand: Box<Errand>,
        tell: impl Fn(Told) -> bool + Send + 'static,
    ) -> Option<AbortHandle> {
        let backend = self.backend.get().cloned()?;
        let task = self.runtime.spawn(async move {
            let Some(opened) = (match backend.upgrade() {
                Some(backend) => Some(backend.errand_watch(&errand).await),
                None => None,
            }) else {
                return;
            };
            let tree = |json: &[u8]| serde_json::from_slice(json).unwrap_or_default();
            let Watch { initial, mut events, .. } = match opened {
                Ok(watch) => watch,
                Err(why) => {
                    tell(Told::Ended(Some(why)));
                    return;
                }
            };
            tell(Told::Opened);
            if let Some(state) = initial
                && !tell(Told::Events(vec![Event::State(state.map(|json| tree(&json)).collect())]))
            {
                return;
            }
            let mut batch = Vec::new();
            while events.recv_many(&mut batch, BATCH).await > 0 {
                let mut told = Vec::with_capacity(batch.len());
                let mut over = None;
                for event in batch.drain(..) {
                    match event {
                        Watched::Added(json) | Watched::Modified(json) => told.push(Event::There(tree(&json))),
                        Watched::Deleted(json) => told.push(Event::Gone(tree(&json))),
                        Watched::Bookmark(revision) => told.push(Event::Upto(revision)),
                        Watched::Error(status) => {
                            over = Some(status);
                            break;
                        }
                    }
                }
                if !tell(Told::Events(told)) {
                    return;
                }
                if over.is_some() {
                    tell(Told::Ended(over));
                    return;
                }
            }
            tell(Told::Ended(None));
        });
        Some(task.abort_handle())
    }
}
