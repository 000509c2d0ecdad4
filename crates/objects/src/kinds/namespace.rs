//! Namespaces and ServiceAccounts.

use super::field::{self, Path};
use super::names::{self, NameRule};
use super::tree::{self, Fields, text};
use super::{Context, FieldError, Rules, meta};
use crate::Tree;
use serde_json::json;

/// Namespace's rules.
pub struct Namespace;
/// ServiceAccount's rules.
pub struct ServiceAccount;

impl Rules for Namespace {
    fn names(&self) -> NameRule {
        NameRule::Label
    }

    fn default(&self, obj: &mut Tree) {
        let name = obj.at("metadata").text("name").to_owned();
        if !name.is_empty() {
            let labels = tree::child(tree::child(obj, "metadata"), "labels");
            tree::set(labels, "kubernetes.io/metadata.name", name);
        }
        tree::default_text(tree::child(obj, "status"), "phase", "Active");
    }

    fn prepare_create(&self, obj: &mut Tree, _cx: &Context<'_>) {
        tree::set(obj, "status", json!({"phase": "Active"}));
        let spec = tree::child(obj, "spec");
        let mut finalizers = spec.list("finalizers").to_vec();
        if !finalizers.iter().any(|f| f == "kubernetes") {
            finalizers.push("kubernetes".into());
        }
        tree::set(spec, "finalizers", finalizers);
        // A generated name is known only now.
        self.default(obj);
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree, cx: &Context<'_>) {
        match cx.subresource {
            "status" => tree::keep(new, old, "spec"),
            "finalize" => tree::keep(new, old, "status"),
            _ => {
                tree::keep(tree::child(new, "spec"), old.at("spec"), "finalizers");
                tree::keep(new, old, "status");
            }
        }
    }

    fn warnings(&self, new: &Tree, old: Option<&Tree>, out: &mut Vec<String>) {
        let name = "pod-security.kubernetes.io/enforce";
        let level = |obj: &Tree| obj.at("metadata").at("labels").text(name).to_owned();
        let asked = level(new);
        if !asked.is_empty() && asked != "privileged" && old.is_none_or(|o| level(o) != asked) {
            out.push(format!(
                "metadata.labels[{name}]: this API server has no PodSecurity admission: pods are not held to it"
            ));
        }
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let spec = Path::Root.child("spec");
        for finalizer in obj.at("spec").list("finalizers") {
            finalizer_name(text(finalizer), &spec.child("finalizers"), errs);
        }
    }

    fn validate_update(&self, new: &Tree, _old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        match cx.subresource {
            "status" => {
                let status = Path::Root.child("status");
                let phase = new.at("status").text("phase");
                let deleted = new.at("metadata").has("deletionTimestamp");
                let (wanted, detail) = if deleted {
                    ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty")
                } else {
                    ("Active", "may only be 'Active' if `deletionTimestamp` is empty")
                };
                if phase != wanted {
                    errs.push(field::invalid(&status.child("Phase"), phase, detail));
                }
            }
            "finalize" => {
                let spec = Path::Root.child("spec");
                let at = spec.child("finalizers");
                for (i, finalizer) in new.at("spec").list("finalizers").iter().enumerate() {
                    finalizer_name(text(finalizer), &at.index(i), errs);
                }
            }
            _ => {
                meta::again(new, self.names(), false, errs);
                self.validate(new, cx, errs);
            }
        }
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["status.phase", "name"]
    }

    fn select(&self, obj: &Tree, field: &str) -> String {
        match field {
            "status.phase" => obj.at("status").text("phase").to_owned(),
            "name" => obj.at("metadata").text("name").to_owned(),
            _ => String::new(),
        }
    }
}

fn finalizer_name(name: &str, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    field::each(path, name, names::qualified_name, errs);
    if !name.contains('/') && !["kubernetes", "orphan", "foregroundDeletion"].contains(&name) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errs.push(field::invalid(path, name, detail));
    }
}

impl Rules for ServiceAccount {
    fn prepare_create(&self, obj: &mut Tree, _cx: &Context<'_>) {
        // Of a reference to a Secret only its name counts.
        for secret in tree::items(obj, "secrets") {
            *secret = json!({"name": secret.text("name")});
        }
    }

    fn prepare_update(&self, new: &mut Tree, _old: &Tree, cx: &Context<'_>) {
        self.prepare_create(new, cx);
    }

    fn validate_update(&self, new: &Tree, _old: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        meta::again(new, self.names(), true, errs);
    }

    fn warnings(&self, new: &Tree, old: Option<&Tree>, out: &mut Vec<String>) {
        let name = "kubernetes.io/enforce-mountable-secrets";
        let marked = |obj: &Tree| obj.at("metadata").at("annotations").has(name);
        if marked(new) && !old.is_some_and(marked) {
            out.push(format!(
                "metadata.annotations[{name}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
            ));
        }
    }
}
