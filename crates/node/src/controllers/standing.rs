//! What every cell of a namespace keeps in order without being asked: its first objects, its quotas, its
//! events, its pods' nodes, and its own end.

use super::index::{EVENT, POD};
use super::queue::Work;
use super::{Controller, Controllers, Sighting};
use crate::bundle::Bundle;
use crate::cell::{Objects, Role};
use crate::genesis;
use base::Revision;
use decide::controllers::namespace::{self, Content};
use decide::controllers::pod_garbage::{self, Node};
use decide::controllers::{Action, Plan, Refused, Target, events};
use objects::Tree;
use objects::admission::resource_quota;
use objects::kinds::{self, Kind};
use objects::record::Stored;
use objects::request::{Key, Shared, View};
use std::sync::Arc;
use std::time::Duration;

pub(super) const SERVICE_ACCOUNT: &str = "ServiceAccount";
pub(super) const CONFIG_MAP: &str = "ConfigMap";
pub(super) const QUOTA: &str = "ResourceQuota";
/// The ConfigMap with what pods verify the API with.
pub(super) const ROOT_CA: &str = "kube-root-ca.crt";
const NAMESPACE: &str = "Namespace";

/// How many objects of a namespace that is going are deleted by one plan.
const DELETES: usize = 256;
/// The status of a namespace is written no more often than this, and first after a second: most are gone by
/// then.
const TELL_EVERY: Duration = Duration::from_secs(5);
const TELL_FIRST: Duration = Duration::from_secs(1);
/// How often it is looked whether the nodes of pods are still there, and how long one must be missing, as
/// kube-controller-manager's quarantine.
pub(super) const NODES_EVERY: Duration = Duration::from_secs(60);
const QUARANTINE: Duration = Duration::from_secs(40);

impl Controllers {
    /// Everything has been read: what is looked at whether or not there is an object of it.
    pub(super) fn look_at_standing(&mut self) {
        let Role::Namespace(_) = self.config.role else { return };
        for (controller, storage, name) in [
            (Controller::ServiceAccount, SERVICE_ACCOUNT, "default"),
            (Controller::RootCa, CONFIG_MAP, ROOT_CA),
            (Controller::Events, EVENT, ""),
            (Controller::PodGarbage, POD, ""),
        ] {
            self.add(controller, Key { storage: storage.into(), name: name.into() });
        }
        self.look_at_namespace();
        self.look_at_handing_out();
        self.look_at_allotment();
        self.look_at_kubernetes();
    }

    /// The end of the namespace goes on with every change.
    pub(super) fn look_at_namespace(&mut self) {
        if self.terminating().is_none() {
            return;
        }
        self.ending.seen.get_or_insert(self.now.mono);
        if let Role::Namespace(name) = &self.config.role {
            let key = Key { storage: NAMESPACE.into(), name: name.clone() };
            self.add(Controller::Namespace, key);
        }
    }

    /// The revision of the cell's own Namespace, if it is being deleted.
    fn terminating(&self) -> Option<Revision> {
        match &self.config.role {
            Role::Namespace(name) => self.bundle.terminating(name, self.config.cell),
            _ => None,
        }
    }

    pub(super) fn plan_namespace(&mut self, objects: &Objects, refused: Option<&Refused>) -> Plan {
        let (Some(since), Role::Namespace(name)) = (self.terminating(), &self.config.role) else {
            return Plan::default();
        };
        let Some(tree) = Shared::get(&*self.bundle, NAMESPACE, name) else { return Plan::default() };
        let counts = self.index.counts.iter();
        let remaining: Vec<(&'static Kind, usize)> =
            counts.filter_map(|(storage, n)| Some((kinds::by_storage(storage)?, *n))).collect();
        let finalizers: Vec<(&str, usize)> = self.index.finalizers.iter().map(|(f, n)| (&**f, *n)).collect();
        let content = Content {
            remaining: &remaining,
            finalizers: &finalizers,
            living: self.living(objects),
            is_bound: objects.bundle() >= since.get(),
        };
        let now = self.now.mono;
        let first = self.ending.seen.unwrap_or(now) + TELL_FIRST;
        let due = self.ending.told.map_or(first, |t| (t + TELL_EVERY).max(first));
        let tell = now >= due;
        let plan = namespace::plan(&tree, &content, tell, refused, self.now.wall);
        if tell {
            self.ending.told = Some(now);
        } else if !remaining.is_empty() {
            let key = Key { storage: NAMESPACE.into(), name: name.clone() };
            self.queue.add_at(Work { controller: Controller::Namespace, key }, due);
        }
        plan
    }

    /// What is to be deleted next of a namespace that is going.
    fn living(&self, objects: &Objects) -> Vec<Target> {
        if !self.index.pods.is_empty() {
            let alive = self.index.pods.values().filter(|p| !p.is_terminating());
            let Some(kind) = kinds::by_storage(POD) else { return Vec::new() };
            return alive.take(DELETES).map(|p| Target::new(kind, &p.name, &p.meta)).collect();
        }
        let alive = objects.after(None).filter(|(_, s)| s.meta.deletion.is_none());
        let target = |(key, s): (Key, Stored)| Some(Target::new(kinds::by_storage(&key.storage)?, &key.name, &s.meta));
        alive.filter_map(target).take(DELETES).collect()
    }

    pub(super) fn plan_service_account(&self, stored: Option<Stored>) -> Plan {
        match (&self.config.role, stored) {
            (Role::Namespace(name), None) if self.terminating().is_none() => {
                one(Action::Create { tree: genesis::service_account(name) })
            }
            _ => Plan::default(),
        }
    }

    pub(super) fn plan_root_ca(&self, stored: Option<Stored>) -> Plan {
        let Role::Namespace(name) = &self.config.role else { return Plan::default() };
        if self.terminating().is_some() {
            return Plan::default();
        }
        let wanted = genesis::root_ca(name, &self.config.ca_pem);
        match stored.map(|s| s.tree()) {
            None => one(Action::Create { tree: wanted }),
            Some(have) if have["data"] == wanted["data"] => Plan::default(),
            Some(mut have) => {
                have["data"] = wanted["data"].clone();
                have["metadata"]["annotations"] = wanted["metadata"]["annotations"].clone();
                one(Action::Update { tree: have })
            }
        }
    }

    pub(super) fn plan_events(&self, objects: &Objects) -> Plan {
        let Some(kind) = kinds::by_storage(EVENT) else { return Plan::default() };
        let target = |(revision, name): &(Revision, Arc<str>)| {
            let stored = objects.get(EVENT, name)?;
            Some((*revision, Target::new(kind, name, &stored.meta)))
        };
        events::plan(self.index.events.iter().filter_map(target), self.now.wall)
    }

    pub(super) fn plan_pod_garbage(&mut self) -> Plan {
        let node = |name: &str| self.node(name);
        let pods = self.index.pods.values().map(|p| &**p);
        let mut plan = pod_garbage::plan(pods, &node, pod_garbage::FINISHED_MAX, self.now.wall);
        let missing = self.nodes.values().any(|s| s.absent_since.is_some());
        if self.index.pods.values().any(|p| !p.node.is_empty()) {
            plan.look_again(self.now.wall + if missing { QUARANTINE } else { NODES_EVERY });
        }
        self.nodes.retain(|_, s| self.now.mono.since(s.at) <= NODES_EVERY * 2);
        plan
    }

    /// What is known of a node. What was seen long ago is not.
    fn node(&self, name: &str) -> Node {
        let Some(seen) = self.nodes.get(name) else { return Node::Unknown };
        match seen.absent_since {
            _ if self.now.mono.since(seen.at) >= QUARANTINE => Node::Unknown,
            None => Node::Present,
            Some(since) if seen.at.since(since) >= QUARANTINE => Node::Gone,
            Some(_) => Node::Missing,
        }
    }

    pub(super) fn remember_node(&mut self, name: &str, there: bool) {
        let at = self.now.mono;
        let since = self.nodes.get(name).and_then(|s| s.absent_since);
        let absent_since = (!there).then(|| since.unwrap_or(at));
        self.nodes.insert(name.into(), Sighting { at, absent_since });
    }

    pub(super) fn plan_quota(&self, objects: &Objects, stored: &Stored) -> Plan {
        let tree = stored.tree();
        // What every write charges is exact: only what was never counted is counted here.
        let keys = |t: &Tree| t.as_object().map(|m| m.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
        let (spec, status) = (&tree["spec"]["hard"], &tree["status"]);
        if status["hard"] == *spec && keys(&status["used"]) == keys(spec) {
            return Plan::default();
        }
        let view = Reader { objects, bundle: &self.bundle };
        let mut counted = tree.clone();
        counted["status"] = resource_quota::recount(&tree, &view);
        if counted == tree {
            return Plan::default();
        }
        one(Action::UpdateStatus { tree: counted })
    }
}

fn one(action: Action) -> Plan {
    Plan { actions: vec![action], ..Plan::default() }
}

/// Committed objects as a decision reads them.
struct Reader<'a> {
    objects: &'a Objects,
    bundle: &'a Bundle,
}

impl View for Reader<'_> {
    fn get(&self, storage: &str, name: &str) -> Option<Stored> {
        self.objects.get(storage, name)
    }

    fn list<'a>(&'a self, storage: &str, after: Option<&str>) -> Box<dyn Iterator<Item = (Arc<str>, Stored)> + 'a> {
        let after: Option<Arc<str>> = after.map(Arc::from);
        let list: Vec<_> = self.objects.list(storage).collect();
        Box::new(list.into_iter().filter(move |(n, _)| after.as_ref().is_none_or(|a| n > a)))
    }

    fn shared(&self) -> &dyn Shared {
        self.bundle
    }
}
