//! Whether somebody may still have what is open: the question to the cell that decided it.

use crate::errand::{Answered, Errand};
use objects::kinds;
use objects::rbac::Attributes;
use objects::request::{Body, Options, Request, User, Verb};
use objects::status::Status;
use serde_json::json;
use std::sync::Arc;

/// Asks, in the name of `user` (the node's own), whether the user of `request` may make it now. It is a
/// SubjectAccessReview, and so decided where the request was: by the cell's own roles and root's.
pub fn question(request: &Request, user: Arc<User>) -> Option<Errand> {
    review(&request.user, &about(request), user)
}

/// What is asked about: of what began with two rights, the one that says more.
fn about(request: &Request) -> Attributes {
    Attributes::besides(request).unwrap_or_else(|| Attributes::of(request))
}

/// Asks, in the name of `user` (the node's own), whether `who` may do this.
pub fn review(who: &User, a: &Attributes, user: Arc<User>) -> Option<Errand> {
    let kind = kinds::by_kind("authorization.k8s.io", "v1", "SubjectAccessReview")?;
    let mut resource = json!({
        "verb": a.verb,
        "namespace": a.namespace,
        "group": a.group,
        "resource": a.resource,
        "subresource": a.subresource,
        "name": a.name,
    });
    if !a.field_selector.is_empty() {
        resource["fieldSelector"] = json!({"rawSelector": a.field_selector});
    }
    let spec = json!({"user": who.name, "uid": who.uid, "groups": who.groups, "resourceAttributes": resource});
    let tree = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
    Some(Errand {
        user,
        verb: Verb::Create,
        kind,
        namespace: None,
        name: None,
        subresource: "",
        options: Options::default(),
        body: Body::Object { tree, strict: Vec::new() },
    })
}

/// What the cell answered.
///
/// # Errors
/// 403 if the user may not have it any more; another refusal if the cell could not tell.
pub fn verdict(request: &Request, answered: Answered) -> Result<(), Box<Status>> {
    if allows(answered)? {
        return Ok(());
    }
    let a = about(request);
    Err(Box::new(Status::forbidden(request.kind, &a.name, &a.refusal(&request.user))))
}

/// Whether a review allows what was asked.
///
/// # Errors
/// A refusal if the cell could not tell.
pub fn allows(answered: Answered) -> Result<bool, Box<Status>> {
    let review = answered.map_err(|why| match why.code {
        // A refusal of the question is no answer to it.
        401 | 403 => Box::new(Status::internal(&why.message)),
        _ => why,
    })?;
    Ok(review["status"]["allowed"] == true)
}
