//! Controllers as pure functions: (what is there, now) → a plan with its reasons.
//!
//! A controller reads the objects of its cell and says what should be written; it writes nothing. The
//! cell's leader turns a [`Plan`] into ordinary requests of the controller's own ServiceAccount, each
//! guarded by the uid and revision it was planned on, so that a plan made on an older state is refused
//! and made again rather than moving the world backwards. Running a controller twice on one state gives
//! the same plan; running it on the state its plan leads to gives an empty one.

pub mod deployment;
pub mod node_lifecycle;
pub mod replicaset;

use base::Wall;
use objects::Tree;

/// One thing to be written.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Create this object; its name may be generated.
    Create {
        /// The object.
        tree: Tree,
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
    /// Delete this object, if it still has this uid.
    Delete {
        /// `apiVersion`.
        api_version: String,
        /// `kind`.
        kind: String,
        /// `metadata.name`.
        name: String,
        /// `metadata.uid`.
        uid: String,
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
}

impl Plan {
    /// Look again at `at`, or earlier if that was said before.
    pub fn look_again(&mut self, at: Wall) {
        self.again = Some(self.again.map_or(at, |a| a.min(at)));
    }

    pub(crate) fn because(&mut self, why: impl Into<String>) {
        self.reasons.push(why.into());
    }

    pub(crate) fn delete(&mut self, object: &Tree) {
        self.actions.push(Action::Delete {
            api_version: text(&object["apiVersion"]).into(),
            kind: text(&object["kind"]).into(),
            name: text(&object["metadata"]["name"]).into(),
            uid: text(&object["metadata"]["uid"]).into(),
        });
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
