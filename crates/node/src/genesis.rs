//! What a new cell holds from its first commit.

use base::{Chance, Revision, Uid, Wall};
use objects::kinds::{self, Home, Kind};
use objects::{Tree, bootstrap};

/// The first commit of a cell, made by its first leader. Idempotent: a cell that was ever written to has
/// had its genesis. So it is only described here, and made when it is needed: of the cells that a node
/// starts, all but the new ones are past it.
#[derive(Clone)]
pub struct Genesis {
    of: Of,
    uids: Chance,
    now: Wall,
    above: Revision,
}

#[derive(Clone)]
enum Of {
    Root,
    Namespace { name: String, bundle_pem: String },
}

/// A namespace's cell begins with its default ServiceAccount, the trust bundle its pods verify the API
/// with, and what every Kubernetes has in it. The uids come from the namespace's own, so that whoever
/// drives the genesis makes the same.
pub fn namespace(name: &str, uid: Uid, above: Revision, bundle_pem: &str, now: Wall) -> Genesis {
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(&uid.0.to_be_bytes());
    let of = Of::Namespace { name: name.to_owned(), bundle_pem: bundle_pem.to_owned() };
    Genesis { of, uids: Chance::new(seed).stream("genesis"), now, above }
}

/// Root begins with what every Kubernetes has: roles, bindings, namespaces, priority classes.
pub fn root(uids: Chance, now: Wall) -> Genesis {
    Genesis { of: Of::Root, uids, now, above: Revision::ZERO }
}

impl Genesis {
    /// All revisions of the cell lie above this one: its Namespace's.
    pub fn above(&self) -> Revision {
        self.above
    }

    /// The objects, complete but for their revisions.
    pub fn objects(self) -> Vec<(&'static Kind, Tree)> {
        let (mut uids, now) = (self.uids, self.now);
        let trees: Vec<Tree> = match self.of {
            Of::Root => {
                let all = bootstrap::objects_of("").into_iter().filter(|(k, _)| k.home == Home::Root);
                all.map(|(_, t)| t).collect()
            }
            Of::Namespace { name, bundle_pem } => {
                let mut root_ca = root_ca(&name, &bundle_pem);
                // As if the controller had made it that publishes it later on.
                root_ca["metadata"]["managedFields"] = serde_json::json!([{
                    "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
                    "time": now.rfc3339(), "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:data": {".": {}, "f:ca.crt": {}},
                        "f:metadata": {"f:annotations": {".": {}, "f:kubernetes.io/description": {}}}}}]);
                let own = [service_account(&name), root_ca].into_iter();
                own.chain(bootstrap::objects_of(&name).into_iter().map(|(_, t)| t)).collect()
            }
        };
        trees.into_iter().filter_map(|t| object(t, Uid::from_chance(uids.u128()), now)).collect()
    }
}

/// The ServiceAccount that every namespace has.
pub(crate) fn service_account(namespace: &str) -> Tree {
    serde_json::json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}})
}

/// What pods verify the API with.
pub(crate) fn root_ca(namespace: &str, bundle_pem: &str) -> Tree {
    serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "kube-root-ca.crt", "namespace": namespace, "annotations": {"kubernetes.io/description":
            "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."}},
        "data": {"ca.crt": bundle_pem}})
}

/// An object of the mesh's own making.
fn object(mut tree: Tree, uid: Uid, now: Wall) -> Option<(&'static Kind, Tree)> {
    let kind = kinds::by_api_version(tree["apiVersion"].as_str()?, tree["kind"].as_str()?)?;
    tree["metadata"]["uid"] = Tree::String(uid.to_string());
    tree["metadata"]["creationTimestamp"] = Tree::String(now.rfc3339());
    Some((kind, tree))
}
