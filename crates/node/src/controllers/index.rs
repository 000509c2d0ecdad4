//! What controllers ask of a cell's objects, kept up to date change by change, so that no question reads
//! all of them.

use super::services::SERVICE;
use crate::cell::Objects;
use base::Revision;
use decide::controllers::{Pod, backends};
use objects::kinds::{self, Home};
use objects::record::{Meta, Owner, Stored};
use objects::request::Key;
use objects::select::LabelSelector;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Storage group-kinds that controllers work on.
pub(super) const POD: &str = "Pod";
pub(super) const REPLICA_SET: &str = "ReplicaSet.apps";
pub(super) const DEPLOYMENT: &str = "Deployment.apps";
pub(super) const EVENT: &str = "Event";

/// A label's key and value.
type Label = (Box<str>, Box<str>);

/// The index.
#[derive(Default)]
pub(super) struct Index {
    /// All pods, by name.
    pub pods: BTreeMap<Arc<str>, Arc<Pod>>,
    /// Names of pods by each of their labels.
    labelled: BTreeMap<Label, BTreeSet<Arc<str>>>,
    /// What ReplicaSets, Deployments and Services select.
    selecting: BTreeMap<Key, LabelSelector>,
    /// Objects by the uid of an owner.
    dependents: BTreeMap<Box<str>, BTreeSet<Key>>,
    /// Pods and ReplicaSets without a controller.
    loose: BTreeSet<Key>,
    /// Events, the longest unchanged first.
    pub events: BTreeSet<(Revision, Arc<str>)>,
    /// How many objects there are of each storage group-kind, and how many each finalizer holds.
    pub counts: BTreeMap<Arc<str>, usize>,
    pub finalizers: BTreeMap<Box<str>, usize>,
    /// Objects with an owner that another cell decides.
    pub foreign: BTreeSet<Key>,
    /// How far the first look at everything has come; `None` when it is over.
    scan: Option<Scan>,
}

struct Scan {
    objects: Objects,
    /// The last key that was read.
    after: Option<Key>,
    /// Keys that changed since: what is read of them is old.
    newer: BTreeSet<Key>,
}

impl Index {
    /// Begins anew on these objects. They are read by [`Index::scan`].
    pub(super) fn begin(&mut self, objects: Objects) {
        *self = Index { scan: Some(Scan { objects, after: None, newer: BTreeSet::new() }), ..Index::default() };
    }

    /// Whether everything has been read.
    pub(super) fn is_complete(&self) -> bool {
        self.scan.is_none()
    }

    /// Reads the next objects, `most` at the most, and says which.
    pub(super) fn scan(&mut self, most: usize) -> Vec<(Key, Stored)> {
        let Some(mut scan) = self.scan.take() else { return Vec::new() };
        let read: Vec<(Key, Stored)> = scan.objects.after(scan.after.as_ref()).take(most).collect();
        let last = read.last().map(|(k, _)| k.clone()).filter(|_| read.len() == most);
        let fresh: Vec<(Key, Stored)> = read.into_iter().filter(|(k, _)| !scan.newer.contains(k)).collect();
        if last.is_some() {
            scan.after = last;
            self.scan = Some(scan);
        }
        for (key, stored) in &fresh {
            self.put(key, stored);
        }
        fresh
    }

    /// Takes up a change.
    pub(super) fn change(&mut self, key: &Key, before: Option<&Stored>, after: Option<&Stored>) {
        // What the first look has not come to is not in here yet.
        let known = match &mut self.scan {
            Some(scan) => !scan.newer.insert(key.clone()) || scan.after.as_ref().is_some_and(|a| key <= a),
            None => true,
        };
        if let Some(before) = before.filter(|_| known) {
            self.forget(key, before);
        }
        if let Some(after) = after {
            self.put(key, after);
        }
    }

    fn forget(&mut self, key: &Key, before: &Stored) {
        let meta = &before.meta;
        count(&mut self.counts, &key.storage, -1);
        for finalizer in &meta.finalizers {
            count(&mut self.finalizers, finalizer, -1);
        }
        if &*key.storage == EVENT {
            self.events.remove(&(before.revision, key.name.clone()));
        }
        for owner in &meta.owners {
            if let Some(of) = self.dependents.get_mut(&owner.uid) {
                of.remove(key);
                if of.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        self.loose.remove(key);
        self.foreign.remove(key);
        if &*key.storage == POD {
            self.pods.remove(&key.name);
            for label in &meta.labels {
                if let Some(of) = self.labelled.get_mut(label) {
                    of.remove(&key.name);
                    if of.is_empty() {
                        self.labelled.remove(label);
                    }
                }
            }
        }
        self.selecting.remove(key);
    }

    fn put(&mut self, key: &Key, stored: &Stored) {
        count(&mut self.counts, &key.storage, 1);
        for finalizer in &stored.meta.finalizers {
            count(&mut self.finalizers, finalizer, 1);
        }
        if &*key.storage == EVENT {
            self.events.insert((stored.revision, key.name.clone()));
        }
        for owner in &stored.meta.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(key.clone());
            if home(owner).is_some_and(|h| h != Home::Namespace) {
                self.foreign.insert(key.clone());
            }
        }
        let alone = stored.meta.controller().is_none();
        match &*key.storage {
            POD => {
                if alone {
                    self.loose.insert(key.clone());
                }
                for label in &stored.meta.labels {
                    self.labelled.entry(label.clone()).or_default().insert(key.name.clone());
                }
                self.pods.insert(key.name.clone(), Arc::new(Pod::of(&key.name, stored)));
            }
            SERVICE => {
                let selector = backends::selector(&stored.tree());
                self.selecting.extend(selector.map(|s| (key.clone(), s)));
            }
            REPLICA_SET | DEPLOYMENT => {
                if alone {
                    self.loose.insert(key.clone());
                }
                let selector = LabelSelector::from_tree(&stored.tree()["spec"]["selector"]).unwrap_or_default();
                self.selecting.insert(key.clone(), selector);
            }
            _ => {}
        }
    }

    /// The objects of a storage group-kind that name this uid as an owner.
    pub(super) fn owned<'a>(&'a self, uid: &str, storage: &'a str) -> impl Iterator<Item = &'a Key> + use<'a> {
        self.dependents(uid).filter(move |k| &*k.storage == storage)
    }

    /// All objects that name this uid as an owner.
    pub(super) fn dependents<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Key> + use<'a> {
        self.dependents.get(uid).into_iter().flatten()
    }

    /// The objects of a storage group-kind without a controller.
    pub(super) fn loose<'a>(&'a self, storage: &'a str) -> impl Iterator<Item = &'a Key> + 'a {
        let from = Key { storage: storage.into(), name: "".into() };
        self.loose.range(from..).take_while(move |k| &*k.storage == storage)
    }

    /// The objects of a storage group-kind that select these labels.
    pub(super) fn selecting<'a>(&'a self, storage: &'a str, meta: &'a Meta) -> impl Iterator<Item = &'a Key> + 'a {
        let from = Key { storage: storage.into(), name: "".into() };
        let of = self.selecting.range(from..).take_while(move |(k, _)| &*k.storage == storage);
        of.filter(|(_, s)| s.matches(|l| meta.label(l))).map(|(k, _)| k)
    }

    /// The pods that have one of these labels, the one that the fewest have.
    pub(super) fn labelled<'a>(&'a self, labels: &[(&str, &str)]) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
        let of = |(k, v): &(&str, &str)| self.labelled.get(&((*k).into(), (*v).into()));
        let fewest = labels.iter().map(of).min_by_key(|names| names.map_or(0, BTreeSet::len)).flatten();
        fewest.into_iter().flatten().filter_map(|name| self.pods.get(name))
    }

    /// Pods that name this uid as an owner.
    pub(super) fn pods_of<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
        self.owned(uid, POD).filter_map(|k| self.pods.get(&k.name))
    }

    /// Pods without a controller.
    pub(super) fn loose_pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.loose(POD).filter_map(|k| self.pods.get(&k.name))
    }
}

/// One more or one less; none is not kept.
fn count<K: Ord + Clone>(of: &mut BTreeMap<K, usize>, key: &K, by: isize) {
    let n = of.entry(key.clone()).or_default();
    *n = n.saturating_add_signed(by);
    if *n == 0 {
        of.remove(key);
    }
}

/// Which cell decides objects of an owner's kind; `None` if no such kind is served.
pub(super) fn home(owner: &Owner) -> Option<Home> {
    owner_kind(owner).map(|k| k.home)
}

/// The kind of an owner, whatever version it was named in; `None` if no such kind is served.
pub(super) fn owner_kind(owner: &Owner) -> Option<&'static kinds::Kind> {
    let group = owner.api_version.split_once('/').map_or("", |(g, _)| g);
    kinds::KINDS.iter().find(|k| k.group == group && k.kind == &*owner.kind && k.served)
}
