//! The scale subresource: replicas of a workload as an `autoscaling/v1` Scale.

use super::update::check_identity;
use super::{Outcome, Visit, default, with_revision};
use crate::Tree;
use crate::decision::{Decision, Payload, Plan, Reply};
use crate::kinds::Kind;
use crate::kinds::tree::{self, Fields};
use crate::record::Stored;
use crate::request::{Body, PatchType, Verb};
use crate::schema;
use crate::select::LabelSelector;
use crate::status::{Status, invalid};
use crate::{owned, views};
use serde_json::json;

/// The Scale of a workload.
pub(crate) fn scale_of(kind: &Kind, obj: &Tree) -> Tree {
    let mut meta = json!({});
    for f in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if obj.at("metadata").has(f) {
            tree::keep(&mut meta, obj.at("metadata"), f);
        }
    }
    let selector = if kind.kind == "ReplicationController" {
        LabelSelector::from_map(obj.at("spec").at("selector"))
    } else {
        LabelSelector::from_tree(obj.at("spec").at("selector")).unwrap_or_default()
    };
    let mut spec = json!({});
    let replicas = obj.at("spec").int("replicas").unwrap_or(0);
    if replicas != 0 {
        tree::set(&mut spec, "replicas", replicas);
    }
    let mut status = json!({"replicas": obj.at("status").int("replicas").unwrap_or(0)});
    let selector = selector.to_string();
    if !selector.is_empty() {
        tree::set(&mut status, "selector", selector);
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status})
}

impl Visit<'_> {
    pub(super) fn get_scale(&mut self) -> Outcome<Decision> {
        let stored = self.stored()?;
        let scale = scale_of(self.kind, &stored.tree());
        Ok(self.answer(200, Payload::Tree(scale)))
    }

    pub(super) fn write_scale(&mut self) -> Outcome<Decision> {
        let stored = self.stored()?;
        let obj = with_revision(stored.tree(), stored.revision);
        let ty = schema::builtin().by_name("io.k8s.api.autoscaling.v1.Scale");
        let scale = if self.req.verb == Verb::Patch {
            let (kind, bytes) = self.patch_body()?;
            if kind == PatchType::Apply {
                let config = self.configuration(&bytes)?;
                let config = self.conformed(ty, config, &[], Tree::to_string)?;
                return self.apply_scale(stored, &obj, &config);
            }
            self.patched(ty, scale_of(self.kind, &obj))?
        } else {
            let scale = self.scale_body()?;
            check_identity(self.req, &scale)?;
            scale
        };
        let replicas = self.replicas(&scale)?;
        let mut new = self.named(&scale, obj)?;
        tree::set(tree::child(&mut new, "spec"), "replicas", replicas);
        self.change_scale(stored, new, true)
    }

    /// Server-side apply: whoever applies a Scale owns the workload's replicas, and conflicts are the workload's.
    fn apply_scale(&mut self, stored: Stored, obj: &Tree, config: &Tree) -> Outcome<Decision> {
        let replicas = self.replicas(config)?;
        let spec = if config.at("spec").has("replicas") { json!({"replicas": replicas}) } else { json!({}) };
        let name = obj.at("metadata").at("name");
        let (api_version, kind) = (views::api_version(self.kind), self.kind.kind);
        let own = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec});
        let applied = owned::apply(self, Some(obj), &own)?;
        let new = self.conformed(owned::type_of(self.kind), applied, &[], Tree::to_string)?;
        let mut new = self.named(config, new)?;
        // What nobody sets any more is what it is by default.
        default(self.kind, &mut new);
        self.change_scale(stored, new, false)
    }

    fn replicas(&self, scale: &Tree) -> Outcome<i64> {
        let replicas = scale.at("spec").int("replicas").unwrap_or(0);
        if replicas < 0 {
            let e = invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
            return Err(Box::new(Status::invalid_kind("autoscaling", "Scale", self.name(), &[e])));
        }
        Ok(replicas)
    }

    /// The workload at the revision that a Scale names, if it names one.
    ///
    /// # Errors
    /// The Scale is another's.
    fn named(&self, scale: &Tree, mut obj: Tree) -> Outcome<Tree> {
        let given = scale.at("metadata").text("uid");
        if !given.is_empty() && given != obj.at("metadata").text("uid") {
            let why = format!(
                "Precondition failed: UID in precondition: {given}, UID in object meta: {}",
                obj.at("metadata").text("uid")
            );
            return Err(Box::new(Status::conflict(self.kind, self.name(), &why)));
        }
        let asked = scale.at("metadata").text("resourceVersion");
        if !asked.is_empty() {
            tree::set(tree::child(&mut obj, "metadata"), "resourceVersion", asked);
        }
        Ok(obj)
    }

    fn change_scale(&mut self, stored: Stored, new: Tree, manage: bool) -> Outcome<Decision> {
        // What is answered is the Scale, of what is stored or of what is to be stored.
        Ok(match self.change(stored, new, manage)? {
            Decision::Answer(a) => {
                let scale = scale_of(self.kind, &a.payload.tree());
                self.warnings = a.warnings;
                self.answer(a.code, Payload::Tree(scale))
            }
            Decision::Commit(plan) => {
                let reply =
                    Reply::Written { write: 0, view: |kind, tree| scale_of(kind, &tree), kind: self.kind, raw: false };
                Decision::Commit(Plan { reply, ..plan })
            }
            other => other,
        })
    }

    fn scale_body(&mut self) -> Outcome<Tree> {
        match &self.req.body {
            Body::Object { tree, strict } => {
                self.strict(strict, |all| {
                    Status::bad_request(format!(
                        "Scale in version \"v1\" cannot be handled as a Scale: strict decoding error: {all}"
                    ))
                })?;
                Ok(tree.clone())
            }
            _ => Err(Box::new(Status::bad_request("the request has no object in its body"))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kinds::by_resource;

    #[test]
    fn a_scale_shows_replicas_and_the_selector_as_text() {
        let kind = by_resource("apps", "v1", "deployments").unwrap();
        let d = json!({"metadata":{"name":"d","uid":"u","labels":{"x":"y"}},
            "spec":{"replicas":4,"selector":{"matchLabels":{"a":"b"}}},"status":{"replicas":1}});
        assert_eq!(
            scale_of(kind, &d),
            json!({"kind":"Scale","apiVersion":"autoscaling/v1","metadata":{"name":"d","uid":"u"},
                "spec":{"replicas":4},"status":{"replicas":1,"selector":"a=b"}})
        );
        let rc = by_resource("", "v1", "replicationcontrollers").unwrap();
        assert_eq!(scale_of(rc, &json!({"metadata":{},"spec":{"selector":{"a":"b"}}}))["status"]["selector"], "a=b");
    }
}
