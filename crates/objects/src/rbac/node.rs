//! The node authorizer: what a node may do in its own name.
//!
//! A node is a user named `system:node:NAME` in the group `system:nodes`. It may read what the pods that
//! run on it need and nothing of what others need, write the state of those pods, and keep its own Node and
//! Lease; what it writes there is confined further by NodeRestriction in `admission`. Words and rules are those
//! of Kubernetes' node authorizer with `AuthorizeNodeWithSelectors`
//! (<https://kubernetes.io/docs/reference/access-authn-authz/node/>). Kubernetes keeps a graph of who refers to
//! whom; here the namespace's own cell looks at the pods that are bound to the node.
//!
//! A PersistentVolume or a VolumeAttachment is refused: the pods that lead to it are in another cell than it is.

use super::{Attributes, Rule};
use crate::bootstrap;
use crate::kinds::pod::references::{Referent, refers_to};
use crate::kinds::tree::Fields;
use crate::request::{User, View};
use crate::select::required_field;
use std::sync::LazyLock;

/// Where nodes' Leases are.
pub(crate) const LEASES: &str = "kube-node-lease";

/// The node that a user is; empty for one that does not say which.
pub fn identity(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:")?;
    user.groups.iter().any(|g| g == "system:nodes").then_some(name)
}

/// Rules for what is not looked at one by one: those of the bootstrap role `system:node`, which is never bound
/// to anybody and whose changes change nothing here.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let all = bootstrap::objects();
    let role =
        all.iter().find(|(kind, t)| kind.kind == "ClusterRole" && t.at("metadata").text("name") == "system:node");
    role.map(|(_, tree)| Rule::all(tree)).unwrap_or_default()
});

/// Whether a node may do this; if not, why, where there is more to say than that.
pub(super) fn allows(node: &str, user: &User, a: &Attributes, view: &dyn View) -> Result<(), String> {
    if node.is_empty() {
        return Err(format!("unknown node for user {}", crate::status::quote(&user.name)));
    }
    let unsaid = Err(String::new());
    let (verb, sub) = (a.verb.as_str(), a.subresource.as_str());
    match (a.group.as_str(), a.resource.as_str()) {
        ("", "secrets") => reads(node, a, Referent::Secret, view),
        ("", "configmaps") => reads(node, a, Referent::ConfigMap, view),
        ("", "persistentvolumeclaims") if sub == "status" => match verb {
            "update" | "patch" => refers(node, a, Referent::PersistentVolumeClaim, view),
            _ => Err("can only get/update/patch this type".into()),
        },
        ("", "persistentvolumeclaims") => {
            gets(a)?;
            refers(node, a, Referent::PersistentVolumeClaim, view)
        }
        ("", "persistentvolumes") | ("storage.k8s.io", "volumeattachments") | ("resource.k8s.io", "resourceclaims") => {
            gets(a)?;
            Err(unrelated(node))
        }
        ("", "serviceaccounts") => match (verb, sub) {
            ("get", "") => refers(node, a, Referent::ServiceAccount, view),
            ("create", _) if a.name.is_empty() => Err("can only create tokens for individual service accounts".into()),
            ("create", "token") => refers(node, a, Referent::ServiceAccount, view),
            ("create", _) => Err("can only create token subresource of serviceaccount".into()),
            _ => Err("can only create tokens for individual service accounts".into()),
        },
        ("coordination.k8s.io", "leases") => match verb {
            "get" | "create" | "update" | "patch" | "delete" if a.namespace != LEASES => {
                Err(format!("can only access leases in the {} system namespace", crate::status::quote(LEASES)))
            }
            // The name of what is created is seen by NodeRestriction.
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" if a.name == node => Ok(()),
            "get" | "update" | "patch" | "delete" => {
                Err("can only access node lease with the same name as the requesting node".into())
            }
            _ => Err("can only get, create, update, patch, or delete a node lease".into()),
        },
        ("storage.k8s.io", "csinodes") => match verb {
            "get" | "create" | "update" | "patch" | "delete" if !sub.is_empty() => {
                Err("cannot authorize CSINode subresources".into())
            }
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" if a.name == node => Ok(()),
            "get" | "update" | "patch" | "delete" => {
                Err("can only access CSINode with the same name as the requesting node".into())
            }
            _ => Err("can only get, create, update, patch, or delete a CSINode".into()),
        },
        ("", "nodes") => match (sub, verb) {
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
            ("", "get" | "list" | "watch") if a.name == node => Ok(()),
            ("", "get" | "list" | "watch") if a.name.is_empty() => {
                Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
            }
            ("", "get" | "list" | "watch") => {
                Err(format!("node '{node}' cannot read '{}', only its own Node object", a.name))
            }
            _ => unsaid,
        },
        ("", "pods") => match (sub, verb) {
            ("", "get") => runs(node, a, view),
            ("", "list" | "watch") if required_field(&a.field_selector, "spec.nodeName").as_deref() == Some(node) => {
                Ok(())
            }
            ("", "list" | "watch") if !a.name.is_empty() => runs(node, a, view),
            ("", "list" | "watch") => Err("can only list/watch pods with spec.nodeName field selector".into()),
            // Which pods is seen by NodeRestriction.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => unsaid,
        },
        _ if RULES.iter().any(|r| r.allows(a)) => Ok(()),
        _ => unsaid,
    }
}

fn unrelated(node: &str) -> String {
    format!("no relationship found between node '{node}' and this object")
}

fn gets(a: &Attributes) -> Result<(), String> {
    match (a.verb.as_str(), a.subresource.as_str()) {
        ("get", "") => Ok(()),
        ("get", _) => Err("cannot get subresource".into()),
        _ => Err("can only get individual resources of this type".into()),
    }
}

fn reads(node: &str, a: &Attributes, what: Referent, view: &dyn View) -> Result<(), String> {
    if !matches!(a.verb.as_str(), "get" | "list" | "watch") {
        return Err("can only read resources of this type".into());
    }
    if !a.subresource.is_empty() {
        return Err("cannot read subresource".into());
    }
    if a.namespace.is_empty() {
        return Err("can only read namespaced object of this type".into());
    }
    refers(node, a, what, view)
}

/// A pod that runs on the node must refer to the object.
fn refers(node: &str, a: &Attributes, what: Referent, view: &dyn View) -> Result<(), String> {
    if a.name.is_empty() {
        return Err("No Object name found".into());
    }
    // The header says where a pod runs: of the others none is read.
    let mut own = view.list("Pod", None).filter(|(_, pod)| pod.meta.field("spec.nodeName") == node);
    if own.any(|(_, pod)| refers_to(&pod.tree(), what, &a.name)) { Ok(()) } else { Err(unrelated(node)) }
}

/// The pod must run on the node.
fn runs(node: &str, a: &Attributes, view: &dyn View) -> Result<(), String> {
    let own = view.get("Pod", &a.name).is_some_and(|pod| pod.meta.field("spec.nodeName") == node);
    if own { Ok(()) } else { Err(unrelated(node)) }
}
