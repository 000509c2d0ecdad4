//! NamespaceLifecycle: nothing is created in a namespace that is not there or is going, and three
//! namespaces never go.

use super::Outcome;
use crate::Tree;
use crate::decide::{Operation, Visit};
use crate::kinds::by_resource;
use crate::kinds::tree::Fields;
use crate::status::Status;

/// Namespaces that may not be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) fn admit(visit: &Visit<'_>, op: Operation, obj: &Tree) -> Outcome<()> {
    let kind = visit.kind;
    let object = obj.at("metadata").text("name");
    if op == Operation::Delete {
        if kind.storage == "Namespace" && IMMORTAL.contains(&object) {
            return Err(Box::new(Status::forbidden(kind, object, "this namespace may not be deleted")));
        }
        return Ok(());
    }
    if op != Operation::Create || !kind.namespaced {
        return Ok(());
    }
    let name = visit.namespace();
    let Some(namespace) = visit.view.shared().get("Namespace", name) else {
        let row = by_resource("", "v1", "namespaces").unwrap_or(kind);
        return Err(Box::new(Status::not_found(row, name)));
    };
    if namespace.at("status").text("phase") != "Terminating" {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    Err(Box::new(Status::forbidden(kind, object, &why).with_cause(
        "NamespaceTerminating",
        &format!("namespace {name} is being terminated"),
        "metadata.namespace",
    )))
}
