//! Which controller looks at what when an object changes, and what each of its plans is made of.

use super::index::{self, DEPLOYMENT, EVENT, POD, REPLICA_SET};
use super::queue::Work;
use super::services::{ENDPOINTS, SERVICE, SLICE};
use super::standing::{CONFIG_MAP, NODES_EVERY, QUOTA, ROOT_CA, SERVICE_ACCOUNT};
use super::{Controller, Controllers};
use crate::bundle::Bundle;
use crate::cell::Objects;
use decide::controllers::garbage::{self, Item, Presence};
use decide::controllers::{Plan, Pod, Refused, Target, deployment, events, node_lifecycle, replicaset, ttl};
use decide::schedule::node_id;
use objects::Tree;
use objects::allotment;
use objects::kinds::{self, Home};
use objects::record::{Meta, Owner, Stored};
use objects::request::{Key, Shared};
use std::time::Duration;

const NODE: &str = "Node";

/// How long it is believed that an owner in another cell is there.
const BELIEVED: Duration = Duration::from_secs(600);
/// How many answers about owners in other cells are remembered.
const LOOKED_MAX: usize = 4096;

impl Controllers {
    /// An object changed, or is seen for the first time.
    pub(super) fn look_at(&mut self, key: &Key, before: Option<&Stored>, after: Option<&Stored>) {
        if &*key.storage == SERVICE {
            self.look_at_allotment_of(before, after);
        }
        let (before, after) = (before.map(|s| &*s.meta), after.map(|s| &*s.meta));
        match &*key.storage {
            POD => {
                self.look_at_pod(before, after);
                self.look_at_taints_of(key, after);
            }
            REPLICA_SET => {
                self.add(Controller::ReplicaSet, key.clone());
                for meta in [before, after].into_iter().flatten() {
                    self.add_controller(Controller::Deployment, DEPLOYMENT, meta);
                }
                if let Some(meta) = after.filter(|m| m.controller().is_none()) {
                    self.add_selecting(Controller::Deployment, DEPLOYMENT, meta);
                }
            }
            DEPLOYMENT => self.add(Controller::Deployment, key.clone()),
            SERVICE_ACCOUNT if &*key.name == "default" => self.add(Controller::ServiceAccount, key.clone()),
            CONFIG_MAP if *key.name == *ROOT_CA => self.add(Controller::RootCa, key.clone()),
            QUOTA => self.add(Controller::Quota, key.clone()),
            SERVICE | ENDPOINTS | SLICE => self.look_at_service(key, before, after),
            NODE => {
                self.add(Controller::NodeLifecycle, key.clone());
                self.add(Controller::Ttl, key.clone());
                if before.is_none() != after.is_none() && ttl::is_step(self.nodes()) {
                    let all = self.objects.iter().flat_map(|o| o.list(NODE)).map(|(name, _)| name);
                    let all: Vec<Key> = all.map(|name| Key { storage: NODE.into(), name }).collect();
                    all.into_iter().for_each(|key| self.add(Controller::Ttl, key));
                }
            }
            EVENT => self.later(Controller::Events, EVENT, events::KEPT),
            _ => {}
        }
        self.look_for_garbage(key, before, after);
    }

    fn look_at_pod(&mut self, before: Option<&Meta>, after: Option<&Meta>) {
        if after.is_some_and(|m| !m.field("spec.nodeName").is_empty()) {
            self.later(Controller::PodGarbage, POD, NODES_EVERY);
        }
        for meta in [before, after].into_iter().flatten() {
            self.add_controller(Controller::ReplicaSet, REPLICA_SET, meta);
            self.look_at_services_of(meta);
        }
        match after {
            Some(meta) if meta.controller().is_none() => {
                self.add_selecting(Controller::ReplicaSet, REPLICA_SET, meta);
            }
            Some(_) => {}
            // A Deployment that recreates waits for the last pod of its old ReplicaSets.
            None => {
                let set = before.and_then(Meta::controller).map(|o| o.name.clone());
                let set = set.and_then(|n| self.objects.as_ref()?.get(REPLICA_SET, &n));
                if let Some(set) = set {
                    self.add_controller(Controller::Deployment, DEPLOYMENT, &set.meta);
                }
            }
        }
    }

    /// What garbage collection has to look at: the object itself if an owner of it may be gone, or if it
    /// waits for its dependents; its dependents if it went or waits for them; owners that wait for it.
    fn look_for_garbage(&mut self, key: &Key, before: Option<&Meta>, after: Option<&Meta>) {
        if let Some(meta) = after {
            let waits = garbage::waits(meta);
            let doubtful = || meta.owners.iter().any(|o| self.presence(o) != Presence::Present);
            if waits || garbage::orphans(meta) || doubtful() {
                self.add(Controller::Garbage, key.clone());
            }
            if waits && !before.is_some_and(garbage::waits) {
                self.add_dependents(meta);
            }
        }
        let Some(before) = before else { return };
        if after.is_none_or(|a| a.uid != before.uid) {
            self.add_dependents(before);
        }
        if after.is_none_or(|a| a.owners != before.owners) {
            let waiting: Vec<Key> = before.owners.iter().filter_map(|o| self.waiting_owner(o)).collect();
            for key in waiting {
                self.add(Controller::Garbage, key);
            }
        }
    }

    fn add_dependents(&mut self, of: &Meta) {
        let keys: Vec<Key> = self.index.dependents(&of.uid.to_string()).cloned().collect();
        for key in keys {
            self.add(Controller::Garbage, key);
        }
    }

    fn waiting_owner(&self, owner: &Owner) -> Option<Key> {
        let kind = index::owner_kind(owner).filter(|k| self.is_own(k))?;
        let found = self.objects.as_ref()?.get(kind.storage, &owner.name)?;
        (garbage::waits(&found.meta) || garbage::orphans(&found.meta))
            .then(|| Key { storage: kind.storage.into(), name: owner.name.as_ref().into() })
    }

    /// Root's objects changed: owners may be gone, or the namespace may be going.
    pub(super) fn look_at_bundle(&mut self) {
        self.look_at_namespace();
        self.look_at_handing_out();
        let foreign: Vec<Key> = self.index.foreign.iter().cloned().collect();
        for key in foreign {
            let Some(stored) = self.objects.as_ref().and_then(|o| o.get(&key.storage, &key.name)) else { continue };
            if stored.meta.owners.iter().any(|o| self.presence(o) != Presence::Present) {
                self.add(Controller::Garbage, key);
            }
        }
    }

    pub(super) fn add(&mut self, controller: Controller, key: Key) {
        self.queue.add(Work { controller, key }, self.cause);
    }

    /// What is looked at as a whole, some time.
    fn later(&mut self, controller: Controller, storage: &str, pause: Duration) {
        let key = Key { storage: storage.into(), name: "".into() };
        self.queue.add_at(Work { controller, key }, self.now.mono + pause);
    }

    /// The object's own controller, if it is of this kind.
    pub(super) fn add_controller(&mut self, controller: Controller, storage: &str, of: &Meta) {
        let is = |o: &&Owner| index::owner_kind(o).is_some_and(|k| k.storage == storage);
        if let Some(owner) = of.controller().filter(is) {
            self.add(controller, Key { storage: storage.into(), name: owner.name.as_ref().into() });
        }
    }

    /// Everything of this kind that selects the object.
    fn add_selecting(&mut self, controller: Controller, storage: &str, meta: &Meta) {
        let keys: Vec<Key> = self.index.selecting(storage, meta).cloned().collect();
        for key in keys {
            self.add(controller, key);
        }
    }

    /// The plan for a key on the objects as they are.
    pub(super) fn plan(&mut self, work: &Work, refused: Option<&Refused>) -> Plan {
        let Some(objects) = self.objects.clone() else { return Plan::default() };
        let stored = objects.get(&work.key.storage, &work.key.name);
        match (work.controller, stored) {
            (Controller::Namespace, _) => self.plan_namespace(&objects, refused),
            (Controller::ServiceAccount, stored) => self.plan_service_account(stored),
            (Controller::RootCa, stored) => self.plan_root_ca(stored),
            (Controller::Kubernetes, _) => self.plan_kubernetes(&objects),
            (Controller::Allotment, _) => self.plan_allotment(&objects),
            (Controller::Endpoints, service) => self.plan_endpoints(&objects, &work.key.name, service),
            (Controller::Mirroring, service) => self.plan_mirror(&objects, &work.key.name, service.as_ref()),
            (Controller::Events, _) => self.plan_events(&objects),
            (Controller::PodGarbage, _) => self.plan_pod_garbage(),
            (_, None) => Plan::default(),
            (Controller::TaintEviction, Some(stored)) => self.plan_taint_eviction(&stored),
            (Controller::NodeLifecycle, Some(stored)) => self.plan_node(&stored),
            (Controller::Ttl, Some(stored)) => ttl::plan(&stored.tree(), self.nodes()),
            (Controller::EndpointSlices, Some(service)) => self.plan_slices(&objects, &service),
            (Controller::ReplicaSet, Some(stored)) => self.plan_replica_set(&objects, &stored, refused),
            (Controller::Deployment, Some(stored)) => self.plan_deployment(&objects, &stored, refused),
            (Controller::Garbage, Some(stored)) => self.plan_garbage(&objects, &work.key, &stored),
            (Controller::Quota, Some(stored)) => self.plan_quota(&objects, &stored),
        }
    }

    fn plan_replica_set(&self, objects: &Objects, stored: &Stored, refused: Option<&Refused>) -> Plan {
        let set = stored.tree();
        let uid = stored.meta.uid.to_string();
        let pods: Vec<&Pod> = self.index.pods_of(&uid).chain(self.index.loose_pods()).map(|p| &**p).collect();
        // Pods are crowded by those of all ReplicaSets of one Deployment.
        let sets: Vec<String> = match stored.meta.controller() {
            Some(owner) => self
                .index
                .owned(&owner.uid, REPLICA_SET)
                .filter_map(|k| Some(objects.get(&k.storage, &k.name)?.meta.uid.to_string()))
                .collect(),
            None => vec![uid],
        };
        let related: Vec<&Pod> =
            sets.iter().flat_map(|uid| self.index.pods_of(uid)).map(|p| &**p).filter(|p| p.is_active()).collect();
        let may_run_twice = self.may_run_twice(objects, stored, &set);
        let hosting = &self.hosting;
        let beside = replicaset::Beside { pods: &pods, related: &related, hosting, may_run_twice, refused };
        replicaset::plan(&set, &beside, self.now.wall)
    }

    fn nodes(&self) -> usize {
        self.index.counts.get(NODE).copied().unwrap_or_default()
    }

    fn plan_node(&self, stored: &Stored) -> Plan {
        let tree = stored.tree();
        // Who has just begun to lead has heard of nobody yet.
        let heard = node_id(&tree).and_then(|id| self.heard.last(id)).unwrap_or_default().max(self.since);
        node_lifecycle::plan(&tree, self.now.mono.since(heard), self.now.wall)
    }

    fn plan_deployment(&self, objects: &Objects, stored: &Stored, refused: Option<&Refused>) -> Plan {
        let uid = stored.meta.uid.to_string();
        let keys = self.index.owned(&uid, REPLICA_SET).chain(self.index.loose(REPLICA_SET));
        let found: Vec<Stored> = keys.filter_map(|k| objects.get(&k.storage, &k.name)).collect();
        let sets: Vec<Tree> = found.iter().map(Stored::tree).collect();
        let pods: Vec<&Pod> =
            found.iter().flat_map(|s| self.index.pods_of(&s.meta.uid.to_string())).map(|p| &**p).collect();
        let is_taken = |name: &str| objects.get(REPLICA_SET, name).is_some();
        let beside = deployment::Beside { sets: &sets, pods: &pods, is_taken: &is_taken, refused };
        deployment::plan(&stored.tree(), &beside, self.now.wall)
    }

    fn plan_garbage(&mut self, objects: &Objects, key: &Key, stored: &Stored) -> Plan {
        let Some(kind) = kinds::by_storage(&key.storage) else { return Plan::default() };
        let found: Vec<(Key, Stored)> = self
            .index
            .dependents(&stored.meta.uid.to_string())
            .filter_map(|k| Some((k.clone(), objects.get(&k.storage, &k.name)?)))
            .collect();
        let item = |key: &'_ Key, s: &'_ Stored| kinds::by_storage(&key.storage).map(|k| (k, s.revision));
        let dependents: Vec<Item<'_>> = found
            .iter()
            .filter_map(|(k, s)| {
                let (kind, revision) = item(k, s)?;
                Some(Item { kind, name: &k.name, meta: &s.meta, revision })
            })
            .collect();
        let item = Item { kind, name: &key.name, meta: &stored.meta, revision: stored.revision };
        // What a namespace has is its own until it is gone: its services may outlive the order to delete it.
        let presence = |owner: &Owner| match self.presence(owner) {
            Presence::Waiting if *key.storage == *allotment::STORAGE => Presence::Present,
            presence => presence,
        };
        let plan = garbage::plan(&item, &presence, &dependents);
        if self.index.foreign.contains(key) {
            // Nobody tells when an owner goes that is in no bundle.
            let at = self.now.mono + BELIEVED;
            self.queue.add_at(Work { controller: Controller::Garbage, key: key.clone() }, at);
        }
        plan
    }

    /// What is known of an owner.
    fn presence(&self, owner: &Owner) -> Presence {
        let Some(kind) = index::owner_kind(owner) else { return Presence::Present };
        let judge = |meta: &Meta| match meta.uid.to_string() == *owner.uid {
            true if garbage::waits(meta) => Presence::Waiting,
            true => Presence::Present,
            false => Presence::Absent,
        };
        if self.is_own(kind) {
            let found = self.objects.as_ref().and_then(|o| o.get(kind.storage, &owner.name));
            return found.map_or(Presence::Absent, |s| judge(&s.meta));
        }
        // What is in no namespace cannot be owned by what is in one.
        if matches!(kind.home, Home::Namespace | Home::Nowhere) {
            return Presence::Present;
        }
        if let Some(found) = Shared::get(&*self.bundle, kind.storage, &owner.name)
            && Bundle::holds(kind.storage)
            && found["metadata"]["uid"].as_str() == Some(&owner.uid)
        {
            return judge(&Meta::of(kind, &found));
        }
        // The bundle may be behind: that it is not in there says nothing.
        match self.looked.get(&(kind.storage, owner.name.clone(), owner.uid.clone())) {
            Some((false, _)) => Presence::Absent,
            Some((true, at)) if self.now.mono.since(*at) < BELIEVED => Presence::Present,
            _ => Presence::Unknown,
        }
    }

    /// Something in another cell was looked for there, for this plan, which is made anew.
    pub(super) fn remember(&mut self, work: &Work, target: &Target, there: bool) {
        if work.controller == Controller::PodGarbage {
            self.remember_node(&target.name, there);
            self.queue.add(work.clone(), None);
            return;
        }
        let Some(kind) = kinds::by_api_version(&target.api_version, &target.kind) else { return };
        // A wrong name with the uid of something that lives is not there, and says nothing of what lives.
        let key = (kind.storage, target.name.as_str().into(), target.uid.as_str().into());
        if self.looked.len() >= LOOKED_MAX && !self.looked.contains_key(&key) {
            let oldest = self.looked.iter().min_by_key(|(_, (_, at))| *at).map(|(k, _)| k.clone());
            oldest.and_then(|k| self.looked.remove(&k));
        }
        self.looked.insert(key, (there, self.now.mono));
    }

    /// Whether more must be looked for in other cells before it is known what an object needs.
    pub(super) fn is_undecided(&self, key: &Key) -> bool {
        let Some(stored) = self.objects.as_ref().and_then(|o| o.get(&key.storage, &key.name)) else { return false };
        let known: Vec<Presence> = stored.meta.owners.iter().map(|o| self.presence(o)).collect();
        known.contains(&Presence::Unknown) && !known.contains(&Presence::Present)
    }
}
