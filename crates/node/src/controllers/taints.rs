//! Which pods are looked at because of their nodes' taints.

use super::index::POD;
use super::{Controller, Controllers, Taints};
use decide::controllers::{Plan, taint_eviction};
use objects::record::{Meta, Stored};
use objects::request::Key;
use std::sync::Arc;

impl Controllers {
    /// The taints of nodes are now these.
    pub(super) fn taints_changed(&mut self, taints: Taints) {
        let before = std::mem::replace(&mut self.taints, taints);
        if !self.leading {
            return;
        }
        let differs = |node: &str| before.get(node) != self.taints.get(node);
        let on_them = self.index.pods.values().filter(|p| !p.node.is_empty() && differs(&p.node));
        let names: Vec<Arc<str>> = on_them.map(|p| p.name.clone()).collect();
        for name in names {
            self.add(Controller::TaintEviction, Key { storage: POD.into(), name });
        }
    }

    /// A pod has changed, or is seen for the first time.
    pub(super) fn look_at_taints_of(&mut self, key: &Key, after: Option<&Meta>) {
        if after.is_some_and(|m| self.taints.contains_key(m.field("spec.nodeName"))) {
            self.add(Controller::TaintEviction, key.clone());
        }
    }

    pub(super) fn plan_taint_eviction(&self, stored: &Stored) -> Plan {
        let Some(taints) = self.taints.get(stored.meta.field("spec.nodeName")) else { return Plan::default() };
        taint_eviction::plan(&stored.tree(), taints, self.now.wall)
    }
}
