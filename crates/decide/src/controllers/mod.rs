//! Controllers as pure functions: (what is there, now) → a plan with its reasons.
//!
//! A controller reads the objects of its cell and says what should be written; it writes nothing. The
//! cell's leader turns a [`Plan`] into ordinary requests of the controller's own ServiceAccount, each
//! guarded by the uid and revision it was planned on, so that a plan made on an older state is refused
//! and made again rather than moving the world backwards. Running a controller twice on one state gives
//! the same plan; running it on the state its plan leads to gives an empty one.

pub mod allotment;
pub mod backends;
pub mod deployment;
pub mod endpoint_slices;
pub mod endpoints;
pub mod events;
pub mod garbage;
pub mod hosting;
pub mod kubernetes_service;
pub mod mirroring;
pub mod namespace;
pub mod node_lifecycle;
pub mod pod;
pub mod pod_garbage;
pub mod replicaset;
pub mod slices;
pub mod taint_eviction;
pub mod ttl;

use base::Wall;
use objects::Tree;
use objects::allotment::Wanted;
use objects::kinds::Kind;
use objects::record::Meta;
pub use pod::Pod;

/// Which object a write is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`: what is found under the name must have it.
    pub uid: String,
}

impl Target {
    /// An object given as its tree.
    pub fn of(object: &Tree) -> Target {
        Target {
            api_version: text(&object["apiVersion"]).into(),
            kind: text(&object["kind"]).into(),
            name: text(&object["metadata"]["name"]).into(),
            uid: text(&object["metadata"]["uid"]).into(),
        }
    }

    /// An object given as its name and header.
    pub fn new(kind: &Kind, name: &str, meta: &Meta) -> Target {
        Target { api_version: kind.api_version(), kind: kind.kind.into(), name: name.into(), uid: meta.uid.to_string() }
    }
}

/// One thing to be written.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Create this object; its name may be generated.
    Create {
        /// The object.
        tree: Tree,
    },
    /// Create so many of this object, whose name is generated.
    CreateMany {
        /// The object.
        tree: Tree,
        /// How many.
        count: usize,
    },
    /// Replace this object (its spec and metadata), if it is still at the revision in it.
    Update {
        /// The object, with uid and resourceVersion.
        tree: Tree,
    },
    /// Replace this object's status, if it is still at the revision in it.
    UpdateStatus {
        /// The object, with uid and resourceVersion.
        tree: Tree,
    },
    /// Replace the finalizers in the spec of this Namespace, if it is still at the revision in it.
    Finalize {
        /// The Namespace, with uid and resourceVersion.
        tree: Tree,
    },
    /// Change an object by a strategic merge patch. The patch names the uid, so that it finds this object
    /// or none.
    Patch {
        /// The object.
        target: Target,
        /// `status`, or empty for the object itself.
        subresource: &'static str,
        /// The patch.
        patch: Tree,
        /// Only while this object of the same cell is there and not being deleted.
        beside: Option<Target>,
    },
    /// Delete this object, if it still has this uid.
    Delete {
        /// The object.
        target: Target,
        /// Only if it is at this revision, if one is given.
        revision: Option<String>,
        /// What becomes of its dependents: `Background`, `Foreground`, `Orphan`; empty: as its kind has it.
        propagation: &'static str,
        /// Seconds of grace instead of its own.
        grace: Option<i64>,
    },
    /// Ask root for what services have and the namespace does not hold.
    Reserve {
        /// What is wanted.
        wanted: Wanted,
    },
    /// Find out whether an object that another cell decides is there, by a read in that cell.
    Look {
        /// The object. Without a uid any of its name will do.
        target: Target,
    },
    /// Tell whoever looks at the object.
    Event {
        /// The object.
        about: Tree,
        /// `Normal` or `Warning`.
        event_type: &'static str,
        /// CamelCase, for programs.
        reason: &'static str,
        /// For people.
        message: String,
    },
}

/// What a controller wants, and why.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Plan {
    /// In the order to be done. The first that is refused ends the plan.
    pub actions: Vec<Action>,
    /// One sentence each, for the log: what was seen and what follows.
    pub reasons: Vec<String>,
    /// Look again at this moment even if nothing changes.
    pub again: Option<Wall>,
    /// Creations, deletions and refusals of them are told as events of this object.
    pub teller: Option<Tree>,
}

/// A write of an earlier plan that was refused, so that status and events can say so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// What it was.
    pub act: Act,
    /// The refusal's own words.
    pub message: String,
    /// Its name was taken.
    pub taken: bool,
}

/// A kind of write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// A creation.
    Create,
    /// A deletion.
    Delete,
    /// Any other.
    Change,
}

impl Plan {
    /// Look again at `at`, or earlier if that was said before.
    pub fn look_again(&mut self, at: Wall) {
        self.again = Some(self.again.map_or(at, |a| a.min(at)));
    }

    pub(crate) fn because(&mut self, why: impl Into<String>) {
        self.reasons.push(why.into());
    }

    pub(crate) fn delete(&mut self, target: Target) {
        self.actions.push(Action::Delete { target, revision: None, propagation: "", grace: None });
    }

    pub(crate) fn event(&mut self, about: &Tree, event_type: &'static str, reason: &'static str, message: String) {
        self.actions.push(Action::Event { about: about.clone(), event_type, reason, message });
    }
}

/// The owner reference with `controller: true`.
pub(crate) fn controller_of(object: &Tree) -> Option<&Tree> {
    crate::pod::items(&object["metadata"]["ownerReferences"]).iter().find(|o| o["controller"] == true)
}

/// The owner reference an owner puts on what it makes.
pub(crate) fn owner_reference(owner: &Tree) -> Tree {
    serde_json::json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    })
}

/// Makes `owner` the controller of an object that has none.
pub(crate) fn adopt(target: Target, owner: &Tree) -> Action {
    let patch = serde_json::json!({"metadata": {"uid": target.uid, "ownerReferences": [owner_reference(owner)]}});
    // What is adopted by an owner that is gone would be collected.
    Action::Patch { target, subresource: "", patch, beside: Some(Target::of(owner)) }
}

/// Takes the references to these owners from an object.
pub(crate) fn release<'a>(target: Target, owners: impl IntoIterator<Item = &'a str>) -> Action {
    let gone: Vec<Tree> = owners.into_iter().map(|uid| serde_json::json!({"$patch": "delete", "uid": uid})).collect();
    let patch = serde_json::json!({"metadata": {"uid": target.uid, "ownerReferences": gone}});
    Action::Patch { target, subresource: "", patch, beside: None }
}

pub(crate) fn is_terminating(object: &Tree) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

pub(crate) fn text(tree: &Tree) -> &str {
    tree.as_str().unwrap_or_default()
}

pub(crate) fn count(tree: &Tree) -> i64 {
    tree.as_i64().unwrap_or(0)
}

pub(crate) fn labels(object: &Tree) -> std::collections::BTreeMap<String, String> {
    let l = object["metadata"]["labels"].as_object().into_iter().flatten();
    l.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

/// Sets or replaces the condition of `condition["type"]` in `status.conditions`. Its transition time
/// stays if its status stays; the condition as a whole stays if status and reason do, so that a
/// controller that finds what it found before writes nothing.
pub(crate) fn set_condition(status: &mut Tree, mut condition: Tree, now: Wall) {
    if !status["conditions"].is_array() {
        status["conditions"] = Tree::Array(Vec::new());
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    let old = conditions.iter().position(|c| c["type"] == condition["type"]);
    if let Some(old) = old.and_then(|i| conditions.get(i)) {
        if old["status"] == condition["status"] && old["reason"] == condition["reason"] {
            return;
        }
        if old["status"] == condition["status"] {
            condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
        }
    }
    let stamp = Tree::String(now.rfc3339());
    if condition["lastTransitionTime"].is_null() {
        condition["lastTransitionTime"] = stamp.clone();
    }
    condition["lastUpdateTime"] = stamp;
    match old {
        Some(i) => {
            conditions.remove(i);
            conditions.push(condition);
        }
        None => conditions.push(condition),
    }
}
