//! What was asked of the host and not answered yet.

use super::Effect;
use super::probes::Which;
use base::runtime::Op;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names an operation asked of the host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub u64);

/// What an operation was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// The pod's volumes.
    Volumes,
    RunSandbox,
    StopSandbox(String),
    RemoveSandbox(String),
    RemovePod,
    EmptyMemory,
    RemoveContainer(String),
    /// A step of a start, by its number.
    Start(u64),
    /// The same, where it writes into the pod's directory.
    Write(u64),
    /// The hook before a container is stopped.
    PreStop(String),
    Stop(String),
    Probe(String, Which),
    /// A container's last words; from its log.
    Words(String, bool),
    /// How much its volumes hold.
    Measure,
    /// An image, for whoever waits for it.
    Pull(String),
}

/// The operations.
#[derive(Debug, Default)]
pub(super) struct Ops {
    next: u64,
    open: BTreeMap<OpId, (Arc<str>, What)>,
}

impl Ops {
    /// Asks.
    pub(super) fn ask(&mut self, pod: &Arc<str>, what: What, op: Op, fx: &mut Vec<Effect>) -> OpId {
        self.next += 1;
        let id = OpId(self.next);
        self.open.insert(id, (pod.clone(), what));
        fx.push(Effect::Do { pod: pod.clone(), id, op });
        id
    }

    /// It was answered: for whom and what.
    pub(super) fn answered(&mut self, id: OpId) -> Option<(Arc<str>, What)> {
        self.open.remove(&id)
    }

    /// Whether something is under way that writes into a pod's directory: what is removed meanwhile would
    /// come back.
    pub(super) fn writes(&self, pod: &str) -> bool {
        self.open.values().any(|(p, what)| &**p == pod && matches!(what, What::Volumes | What::Write(_)))
    }

    /// How many of a pod's are open.
    pub(super) fn of(&self, pod: &str) -> usize {
        self.open.values().filter(|(p, _)| &**p == pod).count()
    }
}
