//! The bundle: root's configuration, numbered, that every cell decides with (architecture, section 6).
//!
//! An immutable value behind an Arc. Root's leader makes a new one when a commit changed what is in it
//! and hands it out; a cell uses the newest it has been given for its next decision. Trees are kept
//! parsed, since decisions read them far more often than they change.

use base::{CellId, Revision, Uid};
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use objects::Tree;
use objects::allotment::{self, Allotment};
use objects::membership::{self, Founding, Member};
use objects::rbac::ClusterPolicy;
use objects::request::Shared;
use std::sync::Arc;

/// The storage group-kinds whose objects ride in the bundle: what decisions in other cells read.
pub const SECTIONS: &[&str] = &[
    allotment::STORAGE,
    "ClusterRole.rbac.authorization.k8s.io",
    "ClusterRoleBinding.rbac.authorization.k8s.io",
    membership::FOUNDING,
    membership::MEMBER,
    "Namespace",
    "PriorityClass.scheduling.k8s.io",
    membership::REVOCATION,
    "RuntimeClass.node.k8s.io",
    membership::TOKEN_KEYS,
];

/// What every cell knows of root.
#[derive(Clone, Default)]
pub struct Bundle {
    /// The revision of root's newest change that is in here. A cell's entries carry it, and a leader
    /// behind the highest number in its log fetches before it decides.
    number: Revision,
    objects: OrdMap<(Arc<str>, Arc<str>), Arc<Tree>>,
    policy: Arc<ClusterPolicy>,
}

/// A record on its way: storage group-kind, name, the object as it now is; `None` if it is gone.
pub type Record = (Arc<str>, Arc<str>, Option<Arc<Tree>>);

/// One change of root's that the bundle takes up.
pub struct Change<'a> {
    /// The storage group-kind.
    pub storage: &'a str,
    /// The name.
    pub name: &'a str,
    /// The object as it now is; `None` if it is gone.
    pub tree: Option<Tree>,
}

impl Bundle {
    /// Whether objects of a storage group-kind are in the bundle.
    pub fn holds(storage: &str) -> bool {
        SECTIONS.contains(&storage)
    }

    /// The bundle with these changes, numbered by the newest of their revisions. The RBAC policy is made
    /// ready again only if an RBAC object changed.
    #[must_use]
    pub fn with<'a>(&self, number: Revision, changes: impl IntoIterator<Item = Change<'a>>) -> Bundle {
        let mut next = self.clone();
        next.number = next.number.max(number);
        let mut rbac = false;
        for c in changes {
            rbac |= c.storage.ends_with(".rbac.authorization.k8s.io");
            let key = (Arc::from(c.storage), Arc::from(c.name));
            match c.tree {
                Some(tree) => next.objects.insert(key, Arc::new(tree)),
                None => next.objects.remove(&key),
            };
        }
        if rbac {
            let roles = next.list("ClusterRole.rbac.authorization.k8s.io");
            let bindings = next.list("ClusterRoleBinding.rbac.authorization.k8s.io");
            next.policy = Arc::new(ClusterPolicy::new(roles.iter().map(|t| &**t), bindings.iter().map(|t| &**t)));
        }
        next
    }

    /// The number.
    pub fn number(&self) -> Revision {
        self.number
    }

    /// The cell of a namespace: its uid. `None` if root (as far as this bundle goes) has no such
    /// namespace.
    pub fn cell_of(&self, namespace: &str) -> Option<CellId> {
        let tree = self.get("Namespace", namespace)?;
        let uid: Uid = tree["metadata"]["uid"].as_str()?.parse().ok()?;
        Some(CellId(uid))
    }

    /// The cells that are still to be begun, or of which it is not known that they have been.
    pub fn foundings(&self) -> impl Iterator<Item = Founding> {
        self.range(membership::FOUNDING).filter_map(|(_, tree)| Founding::of(tree)).filter(|f| !f.done)
    }

    /// Whether a cell is one of [`Bundle::foundings`].
    pub fn is_to_begin(&self, cell: CellId) -> bool {
        let tree = self.get(membership::FOUNDING, &cell.to_string());
        tree.and_then(|tree| Founding::of(&tree)).is_some_and(|f| !f.done)
    }

    /// The members of the mesh, by name.
    pub fn members(&self) -> impl Iterator<Item = (&Arc<str>, Member)> {
        self.range(membership::MEMBER).filter_map(|(name, tree)| Some((name, Member::of(tree)?)))
    }

    /// The revision of a Namespace that is being deleted, if it is the one of this cell.
    pub fn terminating(&self, namespace: &str, cell: CellId) -> Option<Revision> {
        let meta = &self.get("Namespace", namespace)?["metadata"];
        let own = meta["uid"].as_str() == Some(&cell.to_string()) && !meta["deletionTimestamp"].is_null();
        revision_of(meta).filter(|_| own)
    }

    /// What root has handed out to the cell of a namespace, and its record; `None` if nothing (as far as this bundle
    /// goes).
    pub fn allotment(&self, cell: CellId) -> Option<(Allotment, Arc<Tree>)> {
        let tree = self.get(allotment::STORAGE, &cell.to_string())?;
        Some((Allotment::of(&tree), tree))
    }

    /// The revision by which something of a cell's Allotment is called ending, if something is.
    pub fn ending(&self, cell: CellId) -> Option<Revision> {
        let tree = self.get(allotment::STORAGE, &cell.to_string()).filter(|t| Allotment::is_ending(t))?;
        revision_of(&tree["metadata"])
    }

    /// The last change of a cell's Allotment; cheaper than to read all of it.
    pub fn allotted(&self, cell: CellId) -> Option<Revision> {
        revision_of(&self.get(allotment::STORAGE, &cell.to_string())?["metadata"])
    }

    /// Every namespace's name and cell, by name.
    pub fn cells(&self) -> Vec<(Arc<str>, CellId)> {
        self.range("Namespace")
            .filter_map(|(name, tree)| {
                let uid: Uid = tree["metadata"]["uid"].as_str()?.parse().ok()?;
                Some((name.clone(), CellId(uid)))
            })
            .collect()
    }

    /// Every record: storage group-kind, name, object.
    pub fn records(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, &Arc<Tree>)> {
        self.objects.iter().map(|((storage, name), tree)| (storage, name, tree))
    }

    /// The records that are others than they were in `old`, or are gone. What both share is not looked at.
    pub fn changed_since(&self, old: &Bundle) -> Vec<Record> {
        let changed = old.objects.diff(&self.objects).map(|item| match item {
            DiffItem::Add((storage, name), tree) | DiffItem::Update { new: ((storage, name), tree), .. } => {
                (storage.clone(), name.clone(), Some(tree.clone()))
            }
            DiffItem::Remove((storage, name), _) => (storage.clone(), name.clone(), None),
        });
        changed.collect()
    }

    fn range<'a>(&'a self, storage: &'a str) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Tree>)> + 'a {
        let from: (Arc<str>, Arc<str>) = (Arc::from(storage), Arc::from(""));
        self.objects.range(from..).take_while(move |((s, _), _)| &**s == storage).map(|((_, n), t)| (n, t))
    }
}

fn revision_of(meta: &Tree) -> Option<Revision> {
    meta["resourceVersion"].as_str()?.parse().ok().and_then(Revision::from_u64)
}

impl Shared for Bundle {
    fn get(&self, storage: &str, name: &str) -> Option<Arc<Tree>> {
        self.objects.get(&(Arc::from(storage), Arc::from(name))).cloned()
    }

    fn list(&self, storage: &str) -> Vec<Arc<Tree>> {
        self.range(storage).map(|(_, t)| t.clone()).collect()
    }

    fn policy(&self) -> &ClusterPolicy {
        &self.policy
    }
}
