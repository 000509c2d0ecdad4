//! Update, of an object or of its status, and what every change of an object has in common.

use super::{Operation, Outcome, Visit, default, with_revision};
use crate::admission;
use crate::decision::{Decision, Payload, Plan, Reply, Write};
use crate::kinds::Kind;
use crate::kinds::tree::{self, Fields};
use crate::membership;
use crate::owned;
use crate::rbac::{self, Attributes};
use crate::record::Stored;
use crate::request::{Request, Verb};
use crate::status::{Status, invalid};
use crate::{Tree, views};
use base::Revision;

impl Visit<'_> {
    pub(super) fn update(&mut self) -> Outcome<Decision> {
        let mut obj = self.body()?;
        check_identity(self.req, &obj)?;
        default(self.kind, &mut obj);
        let stored = match self.stored() {
            Ok(s) => s,
            Err(_) if self.req.subresource.is_empty() && creates_on_update(self.kind) => {
                // Who names an object means that one: it is gone, and another is not made in its place.
                self.check_uid(&obj, "")?;
                let req = Request { verb: Verb::Create, ..self.req.clone() };
                rbac::authorize(&self.req.user, &Attributes::of(&req), self.view)?;
                return self.create_object(obj, true);
            }
            Err(e) => return Err(e),
        };
        self.check_uid(&obj, &stored.meta.uid.to_string())?;
        self.change(stored, obj, true)
    }

    /// 409 if the object names another uid than its `own`.
    fn check_uid(&self, obj: &Tree, own: &str) -> Outcome<()> {
        let uid = obj.at("metadata").text("uid");
        if !uid.is_empty() && uid != own {
            // Kubernetes answers with its storage's own words, key and all.
            let group = if self.kind.group.is_empty() { String::new() } else { format!("{}/", self.kind.group) };
            let place = if self.namespace().is_empty() { String::new() } else { format!("{}/", self.namespace()) };
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: /registry/{group}{}/{place}{}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {own}",
                self.kind.plural,
                self.name()
            );
            return Err(Box::new(Status::conflict(self.kind, self.name(), &why)));
        }
        Ok(())
    }

    /// Turns a stored object into `new`, which is decoded and defaulted: checks revisions, prepares,
    /// admits and plans.
    pub(super) fn change(&mut self, stored: Stored, mut new: Tree, manage: bool) -> Outcome<Decision> {
        let old = with_revision(views::from_storage(self.kind, stored.tree()), stored.revision);
        self.check_revision(&new, stored.revision)?;
        {
            let old = old.at("metadata");
            let meta = tree::child(&mut new, "metadata");
            for f in ["resourceVersion", "creationTimestamp", "selfLink"] {
                tree::keep(meta, old, f);
            }
            if !self.kind.namespaced {
                // As at its creation: there it has none, whatever is said.
                tree::remove(meta, "namespace");
            }
            for f in ["uid", "namespace"] {
                if meta.text(f).is_empty() {
                    tree::keep(meta, old, f);
                }
            }
            // An update can never remove or change a deletion timestamp, nor remove the grace period.
            if old.has("deletionTimestamp") {
                tree::keep(meta, old, "deletionTimestamp");
                if !meta.has("deletionGracePeriodSeconds") {
                    tree::keep(meta, old, "deletionGracePeriodSeconds");
                }
            }
        }
        if manage {
            owned::track(self, Some(&old), &mut new);
        }
        crate::kinds::prepare_update(self.kind, &mut new, &old, &self.context());
        self.admit(Operation::Update, &mut new, Some(&old))?;
        owned::keep_times_if_equal(&mut new, &old);
        if new == old {
            return Ok(self.answer(200, Payload::Json(views::bytes_from_storage(self.kind, &stored.json))));
        }
        let name = self.name().to_owned();
        if is_finished(self.kind, &new) {
            return self.remove_updated(&name, new, &stored, &old);
        }
        let more = admission::charge(self, Some(&new), Some(&old))?;
        self.commit_object(200, &name, new, Some(&stored), more)
    }

    /// An update that took the last finalizer of an object being deleted removes it.
    fn remove_updated(&mut self, name: &str, new: Tree, stored: &Stored, old: &Tree) -> Outcome<Decision> {
        if self.req.options.dry_run {
            return Ok(self.answer(200, Payload::Tree(new)));
        }
        let mut writes =
            vec![Write { key: self.key(name), expected: Some(stored.revision), kind: self.stored_kind(), tree: None }];
        writes.extend(admission::charge(self, None, Some(old))?);
        Ok(Decision::Commit(Plan {
            writes,
            warnings: std::mem::take(&mut self.warnings),
            code: 200,
            reply: Reply::Removed { tree: new, write: 0 },
        }))
    }

    /// Optimistic concurrency: the revision in the object, if there is one, must be the stored one.
    fn check_revision(&self, new: &Tree, stored: Revision) -> Outcome<()> {
        let text = new.at("metadata").text("resourceVersion");
        if text.is_empty() || text == "0" {
            if self.req.verb == Verb::Update && !unconditional_update(self.kind) {
                let e = invalid("metadata.resourceVersion", &Tree::from(0), "must be specified for an update");
                return Err(Box::new(Status::invalid_kind(self.kind.group, self.kind.plural, self.name(), &[e])));
            }
            return Ok(());
        }
        match crate::read::parse_uint(text) {
            Ok(n) if n == stored.get() => Ok(()),
            Ok(_) => Err(Box::new(Status::modified(self.kind, self.name()))),
            Err(why) => Err(Box::new(Status::bare(why))),
        }
    }
}

/// The object must be the one the URL names.
pub(super) fn check_identity(req: &Request, obj: &Tree) -> Outcome<()> {
    let bad = |m: String| Err(Box::new(Status::bad_request(m)));
    let url = req.name.as_deref().unwrap_or_default();
    let name = obj.at("metadata").text("name");
    if name.is_empty() {
        return bad(format!("the name of the object ({url} based on URL) was undeterminable: name must be provided"));
    }
    if name != url {
        return bad(format!("the name of the object ({name}) does not match the name on the URL ({url})"));
    }
    let (have, want) = (obj.at("metadata").text("namespace"), req.namespace.as_deref().unwrap_or_default());
    if !have.is_empty() && !want.is_empty() && have != want {
        return bad(format!(
            "the namespace of the object ({have}) does not match the namespace on the request ({want})"
        ));
    }
    Ok(())
}

/// Whether nothing keeps an object that is being deleted: no finalizers (of a Namespace, none in its
/// spec either) and no grace left.
pub(super) fn is_finished(kind: &Kind, obj: &Tree) -> bool {
    let meta = obj.at("metadata");
    meta.has("deletionTimestamp")
        && meta.list("finalizers").is_empty()
        && meta.int("deletionGracePeriodSeconds").unwrap_or(0) == 0
        && (kind.storage != "Namespace" || obj.at("spec").list("finalizers").is_empty())
}

/// Kinds whose strategy says `AllowCreateOnUpdate`.
fn creates_on_update(kind: &Kind) -> bool {
    matches!(
        (kind.group, kind.kind),
        ("", "Endpoints" | "Event" | "LimitRange" | "Service")
            | ("events.k8s.io", "Event")
            | ("coordination.k8s.io", "Lease")
            | ("rbac.authorization.k8s.io", _)
    )
}

/// Kinds whose strategy says `AllowUnconditionalUpdate`: all but these, and our own.
fn unconditional_update(kind: &Kind) -> bool {
    !matches!(
        (kind.group, kind.kind),
        ("coordination.k8s.io", _)
            | ("apiextensions.k8s.io", _)
            | ("apiregistration.k8s.io", _)
            | ("admissionregistration.k8s.io", _)
            | ("flowcontrol.apiserver.k8s.io", _)
            | ("policy", _)
            | ("node.k8s.io", _)
            | ("storage.k8s.io", "CSINode" | "CSIDriver" | "VolumeAttachment" | "CSIStorageCapacity")
            | ("networking.k8s.io", "ServiceCIDR" | "IPAddress")
            | ("storagemigration.k8s.io", _)
            | (membership::GROUP, _)
    )
}
