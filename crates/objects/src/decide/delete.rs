//! Delete and deletecollection.

use super::{Operation, Outcome, Visit};
use crate::admission;
use crate::decision::{Answer, Decision, Payload, Plan, Reply, Write};
use crate::kinds::tree::{self, Fields};
use crate::kinds::{FieldError, Kind};
use crate::read::{ListAnswer, ListPlan};
use crate::record::{Stored, encode};
use crate::request::{Body, Key};
use crate::status::{Details, Status, invalid, not_supported};
use crate::{Tree, views};
use base::Wall;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Finalizer that waits until dependents are orphaned.
const ORPHAN: &str = "orphan";
/// Finalizer that waits until dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";

/// DeleteOptions, of the body or else of the query.
#[derive(Clone, Debug, Default)]
pub(super) struct DeleteOptions {
    pub(super) grace: Option<i64>,
    pub(super) uid: Option<String>,
    pub(super) revision: Option<String>,
    policy: String,
    pub(super) orphan: Option<bool>,
    pub(super) dry_run: bool,
}

/// What a delete does to one object.
pub(super) enum Removal {
    /// It goes now; the object as it last was.
    Now(Tree),
    /// It stays, changed so.
    Marked(Tree),
    /// It is on its way already: nothing changes.
    Pending(Tree),
}

impl Visit<'_> {
    pub(super) fn delete(&mut self) -> Outcome<Decision> {
        let options = self.delete_options()?;
        self.delete_with(&options, None)
    }

    /// Deletes the object of the URL; `answer` replaces the usual answer (an eviction's).
    pub(super) fn delete_with(&mut self, options: &DeleteOptions, answer: Option<Answer>) -> Outcome<Decision> {
        let name = self.name().to_owned();
        let stored = self.stored()?;
        let (removal, writes) = self.delete_one(&name, &stored, options)?;
        // Only a delete that asks for its dependents to go, in so many words, is merely accepted.
        let code = if matches!(removal, Removal::Now(_)) || options.orphan != Some(false) { 200 } else { 202 };
        let dry = options.dry_run || self.req.options.dry_run;
        let tree = match &removal {
            Removal::Now(t) | Removal::Marked(t) | Removal::Pending(t) => t.clone(),
        };
        let with_object = match removal {
            Removal::Marked(_) | Removal::Pending(_) => true,
            _ if self.kind.storage == "Namespace" => true,
            _ => returns_object(self.kind),
        };
        let payload = if with_object {
            Payload::Json(encode(&tree))
        } else {
            Payload::Status(Box::new(Status::success(
                200,
                Some(Details {
                    name: name.clone(),
                    group: self.kind.group.into(),
                    kind: self.kind.plural.into(),
                    uid: tree.at("metadata").text("uid").into(),
                    ..Details::default()
                }),
            )))
        };
        if dry || writes.is_empty() {
            return Ok(match answer {
                Some(a) => Decision::Answer(a),
                None => self.answer(code, payload),
            });
        }
        let reply = match (answer, removal) {
            (Some(a), _) => {
                return Ok(Decision::Commit(Plan {
                    writes,
                    warnings: a.warnings,
                    code: a.code,
                    reply: Reply::Fixed(a.payload),
                }));
            }
            (None, Removal::Marked(_)) => {
                Reply::Written { write: 0, view: views::from_storage, kind: self.kind, raw: !views::is_view(self.kind) }
            }
            (None, Removal::Now(t)) if with_object => Reply::Removed { tree: t, write: 0 },
            (None, _) => Reply::Fixed(payload),
        };
        Ok(Decision::Commit(Plan { writes, warnings: std::mem::take(&mut self.warnings), code, reply }))
    }

    pub(super) fn delete_collection(&mut self) -> Outcome<Decision> {
        let options = self.delete_options()?;
        let plan = ListPlan::new(self.kind, self.req.namespace.as_deref(), &self.req.options)?;
        let chosen: Vec<_> = self
            .view
            .list(self.kind.storage, plan.after.as_deref())
            .filter(|(name, s)| plan.selection.matches(&s.meta, name, &plan.namespace))
            .take(if plan.limit == 0 { usize::MAX } else { usize::try_from(plan.limit).unwrap_or(usize::MAX) })
            .collect();
        let mut writes: Vec<Option<Write>> = Vec::new();
        let mut at: BTreeMap<Key, usize> = BTreeMap::new();
        let mut own: BTreeSet<Key> = BTreeSet::new();
        let mut items = Vec::new();
        for (name, stored) in chosen {
            let (_, w) = self.delete_one(&name, &stored, &options)?;
            for (nth, write) in w.into_iter().enumerate() {
                // The first is the object's own; a quota that goes itself counts nothing any more.
                if nth == 0 {
                    own.insert(write.key.clone());
                } else if own.contains(&write.key) {
                    continue;
                }
                // A quota changed by several of these deletes is written once, as the last left it.
                if let Some(earlier) = at.insert(write.key.clone(), writes.len()).and_then(|i| writes.get_mut(i)) {
                    *earlier = None;
                }
                writes.push(Some(write));
            }
            items.push(stored);
        }
        let writes: Vec<Write> = writes.into_iter().flatten().collect();
        let list = ListAnswer { items, revision: self.env.revision, ..ListAnswer::default() };
        let payload = Payload::Json(list.to_json(self.kind));
        if options.dry_run || self.req.options.dry_run || writes.is_empty() {
            return Ok(self.answer(200, payload));
        }
        Ok(Decision::Commit(Plan {
            writes,
            warnings: std::mem::take(&mut self.warnings),
            code: 200,
            reply: Reply::Fixed(payload),
        }))
    }

    /// Decides one object's deletion; the first write is the object's own.
    fn delete_one(&mut self, name: &str, stored: &Stored, options: &DeleteOptions) -> Outcome<(Removal, Vec<Write>)> {
        let old = views::from_storage(self.kind, stored.tree());
        let meta = old.at("metadata");
        let conflict = |why: String| Err(Box::new(Status::conflict_kind(self.kind, name, &why)));
        if let Some(uid) = &options.uid
            && uid != meta.text("uid")
        {
            return conflict(format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
                meta.text("uid")
            ));
        }
        if let Some(r) = &options.revision
            && *r != stored.revision.to_string()
        {
            return conflict(format!(
                "the ResourceVersion in the precondition ({r}) does not match the ResourceVersion in record ({}). The object might have been modified",
                stored.revision
            ));
        }
        admission::validate(self, Operation::Delete, &old, Some(&old))?;
        let removal = removal(self.kind, old.clone(), options, self.env.now);
        if let Removal::Marked(t) = &removal
            && !self.kind.namespaced
            && t.at("metadata").list("finalizers").iter().any(|f| f == ORPHAN)
        {
            return Err(Box::new(Status::bad_request(format!(
                "{} {name:?} cannot be deleted with its dependents orphaned: those in namespaces are in cells of their own, which nobody asks for them yet, and would be deleted. Nothing was changed. Take the owner references out of what is to stay, then delete with propagationPolicy Background",
                self.kind.plural
            ))));
        }
        let mut write =
            Write { key: self.key(name), expected: Some(stored.revision), kind: self.stored_kind(), tree: None };
        let mut writes = Vec::new();
        match &removal {
            Removal::Now(_) => {
                writes.push(write);
                writes.extend(admission::charge(self, None, Some(&old))?);
            }
            Removal::Marked(t) => {
                write.tree = Some(views::to_storage(self.kind, t.clone()));
                writes.push(write);
                writes.extend(admission::charge(self, Some(t), Some(&old))?);
            }
            Removal::Pending(_) => {}
        }
        Ok((removal, writes))
    }

    /// The options of the body, or of the query if there is no body.
    fn delete_options(&mut self) -> Outcome<DeleteOptions> {
        let q = &self.req.options;
        let options = match &self.req.body {
            Body::Object { tree, .. } => DeleteOptions::of(tree),
            _ => DeleteOptions {
                grace: q.grace_period_seconds,
                policy: q.propagation_policy.clone(),
                orphan: q.orphan_dependents,
                ..DeleteOptions::default()
            },
        };
        let mut errs: Vec<FieldError> = Vec::new();
        if !options.policy.is_empty() && options.orphan.is_some() {
            errs.push(invalid(
                "propagationPolicy",
                &json!(options.policy),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        if !matches!(options.policy.as_str(), "" | "Foreground" | "Background" | "Orphan") {
            errs.push(not_supported(
                "propagationPolicy",
                &json!(options.policy),
                &["Foreground", "Background", "Orphan", "nil"],
            ));
        }
        if errs.is_empty() {
            Ok(options)
        } else {
            Err(Box::new(Status::invalid_kind("meta.k8s.io", "DeleteOptions", "", &errs)))
        }
    }
}

impl DeleteOptions {
    pub(super) fn of(tree: &Tree) -> DeleteOptions {
        let text = |v: &Tree| v.as_str().map(str::to_owned);
        DeleteOptions {
            grace: tree["gracePeriodSeconds"].as_i64(),
            uid: text(&tree["preconditions"]["uid"]),
            revision: text(&tree["preconditions"]["resourceVersion"]),
            policy: text(&tree["propagationPolicy"]).unwrap_or_default(),
            orphan: tree["orphanDependents"].as_bool(),
            dry_run: tree["dryRun"].as_array().is_some_and(|d| !d.is_empty()),
        }
    }
}

/// What deleting an object does to it (`Store.Delete` and `BeforeDelete` of k8s.io/apiserver).
fn removal(kind: &Kind, mut obj: Tree, options: &DeleteOptions, now: Wall) -> Removal {
    if kind.storage == "Namespace" {
        return namespace_removal(obj, now);
    }
    let meta = obj.at("metadata");
    let deleting = meta.has("deletionTimestamp");
    let mut graceful = None;
    if kind.storage == "Pod" {
        match (deleting, meta.int("deletionGracePeriodSeconds")) {
            (false, _) => graceful = Some((grace_of_pod(&obj, options), now)),
            // Graceful deletion has begun: it may only be made shorter.
            (true, Some(had)) => match options.grace {
                Some(g) if g.max(0) < had => {
                    let began = meta.at("deletionTimestamp").as_str().and_then(Wall::parse_rfc3339).unwrap_or(now)
                        - Duration::from_secs(had.unsigned_abs());
                    graceful = Some((g.max(0), began));
                }
                _ => return Removal::Pending(obj),
            },
            (true, None) => {}
        }
    }
    let finalizers = garbage_finalizers(kind, &obj, options);
    let pending = !finalizers.is_empty();
    if !pending && graceful.is_none_or(|(g, _)| g == 0) {
        return Removal::Now(obj);
    }
    let before = obj.clone();
    let meta = tree::child(&mut obj, "metadata");
    if finalizers.is_empty() {
        tree::remove(meta, "finalizers");
    } else {
        tree::set(meta, "finalizers", finalizers);
    }
    if !deleting && let Some(g) = meta.int("generation").filter(|g| *g > 0) {
        tree::set(meta, "generation", g + 1);
    }
    match graceful {
        Some((grace, began)) => {
            let at = began + Duration::from_secs(grace.unsigned_abs());
            tree::set(meta, "deletionTimestamp", at.rfc3339());
            tree::set(meta, "deletionGracePeriodSeconds", grace);
        }
        None => {
            if meta.at("deletionTimestamp").as_str().and_then(Wall::parse_rfc3339).is_none_or(|t| t > now) {
                tree::set(meta, "deletionTimestamp", now.rfc3339());
            }
            tree::set(meta, "deletionGracePeriodSeconds", 0);
        }
    }
    if obj == before { Removal::Pending(obj) } else { Removal::Marked(obj) }
}

/// A Namespace is emptied first; it goes when its finalizers are gone.
fn namespace_removal(mut obj: Tree, now: Wall) -> Removal {
    if obj.at("spec").list("finalizers").is_empty() && obj.at("metadata").list("finalizers").is_empty() {
        return Removal::Now(obj);
    }
    if obj.at("metadata").has("deletionTimestamp") {
        return Removal::Pending(obj);
    }
    tree::set(tree::child(&mut obj, "metadata"), "deletionTimestamp", now.rfc3339());
    tree::set(tree::child(&mut obj, "status"), "phase", "Terminating");
    Removal::Marked(obj)
}

/// How long a pod is given, in seconds: nothing if it has not started or has ended.
fn grace_of_pod(pod: &Tree, options: &DeleteOptions) -> i64 {
    let asked = options.grace.or_else(|| pod.at("spec").int("terminationGracePeriodSeconds")).unwrap_or(0);
    let over = matches!(pod.at("status").text("phase"), "Failed" | "Succeeded");
    if pod.at("spec").text("nodeName").is_empty() || over {
        0
    } else if asked < 0 {
        1
    } else {
        asked
    }
}

/// The finalizers an object being deleted shall have: the garbage collector's two as asked, all others
/// as they are. Once deletion has begun the request no longer changes them.
fn garbage_finalizers(kind: &Kind, obj: &Tree, options: &DeleteOptions) -> Vec<Tree> {
    let has = |f: &str| obj.at("metadata").list("finalizers").iter().any(|x| x == f);
    let own = obj.at("metadata").list("finalizers").to_vec();
    // Nothing depends on events.
    if kind.storage == "Event" {
        return own;
    }
    let by_default = matches!((kind.group, kind.kind), ("", "ReplicationController") | ("batch", "Job"));
    let orphan = match (options.orphan, options.policy.as_str()) {
        (Some(o), _) => o,
        (None, "Orphan") => true,
        (None, "Background" | "Foreground") => false,
        _ if has(ORPHAN) => true,
        _ if has(FOREGROUND) => false,
        _ => by_default,
    };
    let foreground = match (options.orphan, options.policy.as_str()) {
        (Some(_), _) | (None, "Orphan" | "Background") => false,
        (None, "Foreground") => true,
        _ => !has(ORPHAN) && has(FOREGROUND),
    };
    let mut out: Vec<Tree> = own.iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned().collect();
    if orphan {
        out.push(ORPHAN.into());
    }
    if foreground {
        out.push(FOREGROUND.into());
    }
    if out.len() == own.len() && out.iter().all(|f| own.contains(f)) { own } else { out }
}

/// Kinds whose deletes answer with the object instead of a Status.
pub(super) fn returns_object(kind: &Kind) -> bool {
    matches!(
        (kind.group, kind.kind),
        (
            "",
            "Pod"
                | "Service"
                | "ServiceAccount"
                | "ResourceQuota"
                | "PodTemplate"
                | "PersistentVolume"
                | "PersistentVolumeClaim"
        ) | ("storage.k8s.io", "StorageClass" | "CSIDriver" | "CSINode" | "VolumeAttachment" | "CSIStorageCapacity")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::by_resource;

    fn options(policy: &str, grace: Option<i64>) -> DeleteOptions {
        DeleteOptions { policy: policy.into(), grace, ..DeleteOptions::default() }
    }

    fn pod(node: &str) -> Tree {
        json!({"metadata":{"name":"p","generation":1},"spec":{"nodeName":node,"terminationGracePeriodSeconds":30},"status":{"phase":"Running"}})
    }

    #[test]
    fn a_pod_is_given_its_grace_once_and_then_only_less() {
        let kind = by_resource("", "v1", "pods").expect("pods are a kind");
        let now = Wall(1_000_000);
        assert!(matches!(removal(kind, pod(""), &options("", None), now), Removal::Now(_)));
        assert!(matches!(removal(kind, pod("n"), &options("", Some(0)), now), Removal::Now(_)));
        let Removal::Marked(p) = removal(kind, pod("n"), &options("", None), now) else { panic!("gone at once") };
        assert_eq!(p["metadata"]["deletionTimestamp"], "1970-01-01T00:17:10Z");
        assert_eq!(
            (&p["metadata"]["deletionGracePeriodSeconds"], &p["metadata"]["generation"]),
            (&json!(30), &json!(2))
        );
        assert!(matches!(removal(kind, p.clone(), &options("", Some(60)), now), Removal::Pending(_)));
        assert!(matches!(removal(kind, p.clone(), &options("", None), now), Removal::Pending(_)));
        let Removal::Marked(q) = removal(kind, p.clone(), &options("", Some(5)), now) else { panic!("not shorter") };
        assert_eq!(q["metadata"]["deletionTimestamp"], "1970-01-01T00:16:45Z");
        assert_eq!(q["metadata"]["generation"], 2);
        assert!(matches!(removal(kind, p, &options("", Some(0)), now), Removal::Now(_)));
    }

    #[test]
    fn propagation_becomes_a_finalizer_and_finalizers_keep_the_object() {
        let kind = by_resource("apps", "v1", "deployments").expect("deployments are a kind");
        let d = json!({"metadata":{"name":"d","generation":4}});
        let now = Wall(1_000_000);
        assert!(matches!(removal(kind, d.clone(), &options("Background", None), now), Removal::Now(_)));
        for (policy, want) in [("Foreground", FOREGROUND), ("Orphan", ORPHAN)] {
            let Removal::Marked(t) = removal(kind, d.clone(), &options(policy, None), now) else { panic!("{policy}") };
            assert_eq!(t["metadata"]["finalizers"], json!([want]));
            assert_eq!(
                (&t["metadata"]["generation"], &t["metadata"]["deletionGracePeriodSeconds"]),
                (&json!(5), &json!(0))
            );
            assert!(matches!(removal(kind, t, &options("", None), now), Removal::Pending(_)));
        }
        let held = json!({"metadata":{"name":"d","finalizers":["x/y"]}});
        assert!(matches!(removal(kind, held, &options("", None), now), Removal::Marked(_)));
    }
}
