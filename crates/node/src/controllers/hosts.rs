//! Which pods are looked at because of their nodes' hosting leases, and how they are seen.

use super::index::{DEPLOYMENT, REPLICA_SET};
use super::{Controller, Controllers};
use crate::cell::Objects;
use decide::controllers::Pod;
use decide::controllers::hosting::{self, Hosting};
use objects::Tree;
use objects::record::{Meta, Stored};
use std::borrow::Cow;
use std::sync::Arc;

const CLAIM: &str = "PersistentVolumeClaim";

impl Controllers {
    /// The hosting leases are now these.
    pub(super) fn hosting_changed(&mut self, hosting: Hosting) {
        let before = std::mem::replace(&mut self.hosting, hosting);
        if !self.leading {
            return;
        }
        let differing = self.hosting.differing(&before);
        if differing.is_empty() {
            return;
        }
        let on_them = self.index.pods.values().filter(|p| differing.contains(&*p.node));
        let metas: Vec<Arc<Meta>> = on_them.map(|p| p.meta.clone()).collect();
        for meta in metas {
            self.add_controller(Controller::ReplicaSet, REPLICA_SET, &meta);
            self.look_at_services_of(&meta);
        }
    }

    /// A pod as services are to take it: on a silent node it is not ready.
    pub(super) fn serving<'a>(&self, pod: &'a Pod) -> Cow<'a, Pod> {
        match self.hosting.is_silent(pod) && pod.is_ready() {
            true => Cow::Owned(pod.unserving()),
            false => Cow::Borrowed(pod),
        }
    }

    /// Whether the pods of a ReplicaSet may run twice for a while.
    pub(super) fn may_run_twice(&self, objects: &Objects, stored: &Stored, set: &Tree) -> bool {
        let owner = stored.meta.controller().and_then(|o| {
            let found = objects.get(DEPLOYMENT, &o.name)?;
            (found.meta.uid.to_string() == *o.uid).then(|| found.tree())
        });
        hosting::may_run_twice(set, owner.as_ref(), &|name| objects.get(CLAIM, name).map(|c| c.tree()))
    }
}
