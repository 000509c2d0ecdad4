//! NodeRestriction: what a node writes is about itself and the pods that run on it.
//!
//! Which requests a node may make at all is `rbac::node`'s to say; this looks at what is in them. Words and
//! rules are those of Kubernetes' plugin of this name
//! (<https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction>).

use super::Outcome;
use crate::Tree;
use crate::decide::{Operation, Visit};
use crate::kinds::by_resource;
use crate::kinds::pod::references::{Referent, refers_to_any};
use crate::kinds::tree::{Fields, same, text};
use crate::rbac::node::{LEASES, identity};
use crate::rbac::{self, Attributes};
use crate::status::{Status, quote};
use std::collections::BTreeSet;

/// Pods that a node made by itself; the API only mirrors them.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Labels of Kubernetes' own namespaces that a node may set on its Node.
const OWN_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
/// Namespaces of labels, with what ends in them, that are a node's to set.
const OWN_LABEL_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// The namespace of labels that are never a node's to set, so that what relies on them can rely on them.
const RESTRICTED: &str = "node-restriction.kubernetes.io";

/// Refuses what a node may not write; lets everybody else pass.
pub(super) fn admit(visit: &Visit<'_>, op: Operation, obj: &Tree, old: Option<&Tree>) -> Outcome<()> {
    let Some(node) = identity(&visit.req.user) else { return Ok(()) };
    let name = obj.at("metadata").text("name");
    let checked = match (visit.kind.group, visit.kind.plural) {
        _ if node.is_empty() => Err(format!("could not determine node from user {}", quote(&visit.req.user.name))),
        ("", "pods") => pod(visit, node, op, obj, old),
        ("", "nodes") => own_node(node, op, obj, old),
        ("", "persistentvolumeclaims") => claim(visit, node, obj, old),
        ("coordination.k8s.io", "leases") if visit.namespace() != LEASES => {
            Err(format!("can only access leases in the {} system namespace", quote(LEASES)))
        }
        ("coordination.k8s.io", "leases") if name != node => {
            Err("can only access node lease with the same name as the requesting node".into())
        }
        ("storage.k8s.io", "csinodes") if name != node => {
            Err("can only access CSINode with the same name as the requesting node".into())
        }
        _ => Ok(()),
    };
    checked.map_err(|why| Box::new(Status::forbidden(visit.kind, name, &why)))
}

/// Refuses a node's request for a token that is not bound to a pod on it, by uid, or not one of that pod's.
pub(crate) fn token(visit: &Visit<'_>, request: &Tree) -> Outcome<()> {
    let Some(node) = identity(&visit.req.user) else { return Ok(()) };
    let refuse = |why: &str| Err(Box::new(Status::forbidden(visit.kind, visit.name(), why)));
    let bound = request.at("spec").at("boundObjectRef");
    let name = bound.text("name");
    if bound.text("apiVersion") != "v1" || bound.text("kind") != "Pod" || name.is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    let uid = bound.text("uid");
    if uid.is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let Some(pod) = visit.view.get("Pod", name) else {
        let row = by_resource("", "v1", "pods").unwrap_or(visit.kind);
        return Err(Box::new(Status::not_found(row, name)));
    };
    if pod.meta.uid.to_string() != uid {
        return refuse(&format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        ));
    }
    if pod.meta.field("spec.nodeName") != node {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    audience(visit, request, &pod.tree()).or_else(|why| refuse(&why))
}

/// A node may have tokens for whom its pods' volumes are made, and for whom it is allowed besides (KEP-4935).
fn audience(visit: &Visit<'_>, request: &Tree, pod: &Tree) -> Result<(), String> {
    let asked = match request.at("spec").list("audiences") {
        [] => "",
        [one] => text(one),
        _ => return Err("node may only request 0 or 1 audiences".into()),
    };
    let sources = pod.at("spec").list("volumes").iter().flat_map(|v| v.at("projected").list("sources"));
    let mut tokens = sources.map(|s| s.at("serviceAccountToken")).filter(|t| t.is_object());
    let attributes = Attributes {
        verb: "request-serviceaccounts-token-audience".into(),
        namespace: visit.namespace().into(),
        resource: asked.into(),
        name: visit.name().into(),
        ..Attributes::default()
    };
    if tokens.any(|t| t.text("audience") == asked) || rbac::authorize(&visit.req.user, &attributes, visit.view).is_ok()
    {
        return Ok(());
    }
    Err(format!("audience {} not found in pod spec volume", quote(asked)))
}

fn pod(visit: &Visit<'_>, node: &str, op: Operation, obj: &Tree, old: Option<&Tree>) -> Result<(), String> {
    let own = |pod: &Tree| pod.at("spec").text("nodeName") == node;
    let n = quote(node);
    match (&*visit.req.subresource, op) {
        ("", Operation::Create) => mirror(visit, node, obj),
        ("", Operation::Delete) if own(obj) => Ok(()),
        ("", Operation::Delete) => Err(format!("node {n} can only delete pods with spec.nodeName set to itself")),
        ("", Operation::Update) => {
            Err(format!("unexpected operation \"UPDATE\", node {n} can only create and delete mirror pods"))
        }
        ("status", _) => {
            let old = old.unwrap_or(obj);
            let claims = |pod: &Tree| pod.at("status").at("resourceClaimStatuses").clone();
            if !own(old) {
                Err(format!("node {n} can only update pod status for pods with spec.nodeName set to itself"))
            } else if !same(obj.at("metadata").at("labels"), old.at("metadata").at("labels")) {
                Err(format!("node {n} cannot update labels through pod status"))
            } else if !same(&claims(obj), &claims(old)) {
                Err(format!("node {n} cannot update resource claim statues"))
            } else {
                Ok(())
            }
        }
        ("eviction", _) if own(obj) => Ok(()),
        ("eviction", _) => Err(format!("node {node} can only evict pods with spec.nodeName set to itself")),
        (other, _) => {
            Err(format!("unexpected pod subresource {}, only 'status' and 'eviction' are allowed", quote(other)))
        }
    }
}

/// A pod that the node runs by itself, and which refers to nothing that it could get a view of by that.
fn mirror(visit: &Visit<'_>, node: &str, pod: &Tree) -> Result<(), String> {
    let n = quote(node);
    let (meta, spec) = (pod.at("metadata"), pod.at("spec"));
    if !meta.at("annotations").has(MIRROR) {
        return Err(format!("pod does not have {} annotation, node {n} can only create mirror pods", quote(MIRROR)));
    }
    if spec.text("nodeName") != node {
        return Err(format!("node {n} can only create pods with spec.nodeName set to itself"));
    }
    let owner = match meta.list("ownerReferences") {
        [owner] => owner,
        [] => return Err(format!("node {n} can only create pods with an owner reference set to itself")),
        _ => return Err(format!("node {n} can only create pods with a single owner reference set to itself")),
    };
    if (owner.text("apiVersion"), owner.text("kind"), owner.text("name")) != ("v1", "Node", node) {
        return Err(format!("node {n} can only create pods with an owner reference set to itself"));
    }
    if !owner.flag("controller") {
        return Err(format!("node {n} can only create pods with a controller owner reference set to itself"));
    }
    if owner.flag("blockOwnerDeletion") {
        return Err(format!("node {n} must not set blockOwnerDeletion on an owner reference"));
    }
    // Nodes are in another cell; where one is known here its uid must be right.
    if let Some(known) = visit.view.shared().get("Node", node) {
        let (said, uid) = (owner.text("uid"), known.at("metadata").text("uid"));
        if said != uid {
            return Err(format!("node {node} UID mismatch: expected {said} got {uid}"));
        }
    }
    for (what, name) in [
        (Referent::ServiceAccount, "not create pods that reference a service account"),
        (Referent::Secret, "not create pods that reference secrets"),
        (Referent::ConfigMap, "not create pods that reference configmaps"),
        (Referent::PersistentVolumeClaim, "not create pods that reference persistentvolumeclaims"),
    ] {
        if refers_to_any(pod, what) {
            return Err(format!("node {n} can {name}"));
        }
    }
    // A claim of somebody else's devices (CVE-2025-4563).
    if !spec.list("resourceClaims").is_empty() {
        return Err(format!("node {n} can not create pods that reference resourceclaims"));
    }
    let mut sources = spec.list("volumes").iter().flat_map(|v| v.at("projected").list("sources"));
    if sources.any(|s| s.has("clusterTrustBundle")) {
        return Err(format!("node {n} can not create pods that reference clustertrustbundles"));
    }
    Ok(())
}

/// Its own Node: not the taints and labels by which others steer what runs where.
fn own_node(node: &str, op: Operation, obj: &Tree, old: Option<&Tree>) -> Result<(), String> {
    let name = obj.at("metadata").text("name");
    if name != node {
        return Err(format!("node {} is not allowed to modify node {}", quote(node), quote(name)));
    }
    let n = quote(node);
    let source = obj.at("spec").at("configSource");
    let old = old.filter(|_| op == Operation::Update);
    let labels = forbidden_labels(obj, old);
    let Some(old) = old else {
        if !source.is_null() {
            return Err(format!("node {n} is not allowed to create pods with a non-nil configSource"));
        }
        if !labels.is_empty() {
            return Err(format!("node {n} is not allowed to set the following labels: {}", labels.join(", ")));
        }
        return Ok(());
    };
    if !source.is_null() && !same(source, old.at("spec").at("configSource")) {
        return Err(format!("node {n} is not allowed to update configSource to a new non-nil configSource"));
    }
    if !same(obj.at("spec").at("taints"), old.at("spec").at("taints")) {
        return Err(format!("node {n} is not allowed to modify taints"));
    }
    // A Node owned by something that is not there is collected: the node could have itself deleted, and be
    // made anew with other taints and labels (CVE-2025-5187).
    if !same(obj.at("metadata").at("ownerReferences"), old.at("metadata").at("ownerReferences")) {
        return Err(format!("node {n} is not allowed to modify ownerReferences"));
    }
    if !labels.is_empty() {
        return Err(format!("is not allowed to modify labels: {}", labels.join(", ")));
    }
    Ok(())
}

/// Labels that differ and are not a node's to change, in order.
fn forbidden_labels<'a>(obj: &'a Tree, old: Option<&'a Tree>) -> Vec<&'a str> {
    let before = old.unwrap_or(&Tree::Null).at("metadata").at("labels");
    let after = obj.at("metadata").at("labels");
    let keys = |of: &'a Tree| of.as_object().into_iter().flat_map(|m| m.keys()).map(String::as_str);
    let all: BTreeSet<&str> = keys(before).chain(keys(after)).collect();
    all.into_iter().filter(|key| before.get(key) != after.get(key) && !may_label(key)).collect()
}

fn may_label(key: &str) -> bool {
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    let within = |of: &str| namespace == of || namespace.strip_suffix(of).is_some_and(|n| n.ends_with('.'));
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    let own = OWN_LABELS.contains(&key) || OWN_LABEL_NAMESPACES.iter().any(|of| within(of));
    !within(RESTRICTED) && (!kubernetes || own)
}

/// A claim's status: what the volume has become, and nothing else.
fn claim(visit: &Visit<'_>, node: &str, obj: &Tree, old: Option<&Tree>) -> Result<(), String> {
    let (Some(old), "status") = (old, &*visit.req.subresource) else {
        return Err("may only update PVC status".into());
    };
    let rest = |claim: &Tree| {
        let mut claim = claim.clone();
        for (parent, field) in [
            ("metadata", "resourceVersion"),
            ("metadata", "managedFields"),
            ("status", "capacity"),
            ("status", "conditions"),
            ("status", "allocatedResourceStatuses"),
            ("status", "allocatedResources"),
        ] {
            if let Some(of) = claim.get_mut(parent).and_then(Tree::as_object_mut) {
                of.remove(field);
            }
        }
        claim
    };
    if same(&rest(obj), &rest(old)) {
        return Ok(());
    }
    Err(format!(
        "node {} is not allowed to update fields other than status.capacity and status.conditions",
        quote(node)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_sets_the_labels_that_are_its_own_and_those_that_are_nobodys() {
        let cases = [
            ("kubernetes.io/hostname", true),
            ("kubernetes.io/hostnames", false),
            ("topology.kubernetes.io/zone", true),
            ("topology.kubernetes.io/rack", false),
            ("beemesh.io/zone", true),
            ("zone", true),
            ("node.kubernetes.io/anything", true),
            ("x.node.kubernetes.io/anything", true),
            ("xnode.kubernetes.io/anything", false),
            ("kubelet.kubernetes.io/x", true),
            ("node-role.kubernetes.io/control-plane", false),
            ("node-restriction.kubernetes.io/pci", false),
            ("a.node-restriction.kubernetes.io/pci", false),
            ("foo.k8s.io/x", false),
            ("notkubernetes.io/x", true),
        ];
        for (key, want) in cases {
            assert_eq!(may_label(key), want, "{key}");
        }
    }
}
