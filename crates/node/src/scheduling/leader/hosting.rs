//! What each node is told of the pods bound to it.
//!
//! Every node has its own count of messages, so that it notices one it has not had; and it is told now
//! and then how far the count is, so that it notices that it has not had the last.

use super::Effect;
use crate::assignment::Assignment;
use crate::scheduling::message::{Assigned, Stands, ToNode};
use base::{BootId, CellId, NodeId, Uid};
use decide::schedule::Hosted;
use objects::request::Stored;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The pods of a cell by the nodes they are bound to.
pub(super) struct Hosting {
    cell: CellId,
    namespace: Arc<str>,
    term: u64,
    hosts: BTreeMap<Arc<str>, Host>,
    /// How many pods say something of others beside them.
    choosy: usize,
}

/// A node by its name.
#[derive(Default)]
struct Host {
    /// The machine, as far as one is known.
    id: Option<NodeId>,
    /// Which start of it has asked.
    boot: Option<BootId>,
    /// The last message sent to it.
    number: u64,
    pods: BTreeMap<Arc<str>, Bound>,
}

impl Host {
    /// What it is told next.
    fn next(&mut self, term: u64, assignment: Assignment) -> Assigned {
        self.number += 1;
        Assigned { term, number: self.number, boot: self.boot, assignment }
    }
}

/// A pod that is bound.
struct Bound {
    stored: Stored,
    /// As scheduling sees it.
    hosted: Arc<Hosted>,
}

/// What has changed on a node.
pub(super) type Changed = BTreeMap<Arc<str>, Vec<(Arc<str>, Option<Stored>)>>;

impl Hosting {
    pub(super) fn new(cell: CellId, namespace: Arc<str>, term: u64) -> Hosting {
        Hosting { cell, namespace, term, hosts: BTreeMap::new(), choosy: 0 }
    }

    /// A pod is bound to a node and is this now, or is gone. Told by [`Hosting::tell`].
    pub(super) fn put(&mut self, node: &str, name: &Arc<str>, pod: Option<&Stored>, changed: &mut Changed) {
        let node: Arc<str> = node.into();
        let host = self.hosts.entry(node.clone()).or_default();
        let old = host.pods.remove(name);
        self.choosy -= usize::from(old.as_ref().is_some_and(|b| !b.hosted.affinity.is_empty()));
        if let Some(pod) = pod {
            // Only a pod's status changes often, and of that nothing is read.
            let same = |b: &Bound| b.stored.meta.uid == pod.meta.uid && b.stored.meta.labels == pod.meta.labels;
            let hosted = match old.filter(|b| same(b) && b.hosted.going == pod.meta.deletion.is_some()) {
                Some(bound) => bound.hosted,
                None => Arc::new(Hosted::of(&pod.tree())),
            };
            self.choosy += usize::from(!hosted.affinity.is_empty());
            host.pods.insert(name.clone(), Bound { stored: pod.clone(), hosted });
        }
        changed.entry(node).or_default().push((name.clone(), pod.cloned()));
    }

    /// Tells every node concerned what has changed on it.
    pub(super) fn tell(&mut self, changed: Changed, fx: &mut Vec<Effect>) {
        for (node, pods) in changed {
            let Some(host) = self.hosts.get_mut(&node) else { continue };
            let Some(to) = host.id else { continue };
            let assignment = Assignment { cell: self.cell, namespace: self.namespace.clone(), whole: false, pods };
            let assigned = host.next(self.term, assignment);
            fx.push(Effect::Send { to, message: ToNode::Assigned(assigned) });
        }
    }

    /// Nodes are these machines now. One that pods are bound to and that has come into sight is told
    /// everything.
    pub(super) fn know<'a>(&mut self, nodes: impl Iterator<Item = (&'a str, NodeId)>, fx: &mut Vec<Effect>) {
        let mut ids: BTreeMap<&str, NodeId> = nodes.collect();
        let mut new = Vec::new();
        for (name, host) in &mut self.hosts {
            let id = ids.remove(&**name);
            if id.is_some() && id != host.id && !host.pods.is_empty() {
                new.push(name.clone());
            }
            if id != host.id {
                (host.id, host.boot) = (id, None);
            }
        }
        for (name, id) in ids {
            self.hosts.insert(name.into(), Host { id: Some(id), ..Host::default() });
        }
        for name in new {
            self.tell_whole(&name, fx);
        }
    }

    /// This start of a node asks for everything.
    pub(super) fn asked(&mut self, node: &str, boot: BootId, fx: &mut Vec<Effect>) {
        if let Some(host) = self.hosts.get_mut(node) {
            host.boot = Some(boot);
        }
        self.tell_whole(node, fx);
    }

    /// Tells a node everything.
    pub(super) fn tell_whole(&mut self, node: &str, fx: &mut Vec<Effect>) {
        let Some(host) = self.hosts.get_mut(node) else { return };
        let Some(to) = host.id else { return };
        let pods = host.pods.iter().map(|(name, pod)| (name.clone(), Some(pod.stored.clone()))).collect();
        let assignment = Assignment { cell: self.cell, namespace: self.namespace.clone(), whole: true, pods };
        let assigned = host.next(self.term, assignment);
        fx.push(Effect::Send { to, message: ToNode::Assigned(assigned) });
    }

    /// Tells every node that has pods how far its count is.
    pub(super) fn stand(&self, fx: &mut Vec<Effect>) {
        for host in self.hosts.values().filter(|h| !h.pods.is_empty()) {
            let Some(to) = host.id else { continue };
            let stands = Stands { cell: self.cell, term: self.term, number: host.number };
            fx.push(Effect::Send { to, message: ToNode::Stands(stands) });
        }
    }

    /// Whether the pod of this name and uid is bound to the node.
    pub(super) fn has(&self, node: &str, pod: &str, uid: Uid) -> bool {
        self.hosts.get(node).and_then(|h| h.pods.get(pod)).is_some_and(|p| p.stored.meta.uid == uid)
    }

    /// The nodes that host pods of the same controller.
    pub(super) fn hosts_of(&self, pod: &Stored) -> BTreeSet<Arc<str>> {
        let Some(controller) = pod.meta.controller() else { return BTreeSet::new() };
        let same = |p: &Bound| p.stored.meta.controller().is_some_and(|c| c.uid == controller.uid);
        let hosts = self.hosts.iter().filter(|(_, h)| h.pods.values().any(same));
        hosts.map(|(name, _)| name.clone()).collect()
    }

    /// Whether any pod that is bound says something of others beside it.
    pub(super) fn is_choosy(&self) -> bool {
        self.choosy > 0
    }

    /// All pods that are bound and have not finished: the node, the pod's uid, the pod.
    pub(super) fn running(&self) -> impl Iterator<Item = (&str, Uid, &Hosted)> {
        self.hosts.iter().flat_map(|(node, host)| {
            let runs = host.pods.values().filter(|b| !super::is_finished(&b.stored));
            runs.map(move |b| (&**node, b.stored.meta.uid, &*b.hosted))
        })
    }

    /// Whether any node has pods.
    pub(super) fn is_any(&self) -> bool {
        self.hosts.values().any(|h| !h.pods.is_empty())
    }

    /// The name of a machine's Node.
    pub(super) fn name_of(&self, id: NodeId) -> Option<Arc<str>> {
        self.hosts.iter().find(|(_, h)| h.id == Some(id)).map(|(name, _)| name.clone())
    }
}
