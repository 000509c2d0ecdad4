//! What a new cell holds from its first commit.

use base::{Chance, Revision, Uid, Wall};
use objects::kinds::{self, Home, Kind};
use objects::{Tree, bootstrap};

/// The first commit of a cell, made by its first leader. Idempotent: a cell that holds anything has had
/// its genesis.
#[derive(Clone, Default)]
pub struct Genesis {
    /// The objects, complete but for their revisions.
    pub objects: Vec<(&'static Kind, Tree)>,
    /// All revisions of the cell lie above this one: its Namespace's.
    pub above: Revision,
}

/// An object of the mesh's own making.
fn object(mut tree: Tree, uid: Uid, now: Wall) -> Option<(&'static Kind, Tree)> {
    let kind = kinds::by_api_version(tree["apiVersion"].as_str()?, tree["kind"].as_str()?)?;
    tree["metadata"]["uid"] = Tree::String(uid.to_string());
    tree["metadata"]["creationTimestamp"] = Tree::String(now.rfc3339());
    Some((kind, tree))
}

/// A namespace's cell begins with its default ServiceAccount, the trust bundle its pods verify the API
/// with, and what every Kubernetes has in it. The uids come from the namespace's own, so that whoever
/// drives the genesis makes the same.
pub fn namespace(name: &str, uid: Uid, above: Revision, bundle_pem: &str, now: Wall) -> Genesis {
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(&uid.0.to_be_bytes());
    let mut uids = Chance::new(seed).stream("genesis");
    let account = serde_json::json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}});
    let root_ca = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "kube-root-ca.crt", "namespace": name, "annotations": {"kubernetes.io/description":
            "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."}},
        "data": {"ca.crt": bundle_pem}});
    let trees = [account, root_ca].into_iter().chain(bootstrap::objects_of(name).into_iter().map(|(_, t)| t));
    let objects = trees.filter_map(|t| object(t, Uid::from_chance(uids.u128()), now)).collect();
    Genesis { objects, above }
}

/// Root begins with what every Kubernetes has: roles, bindings, namespaces, priority classes.
pub fn root(chance: &mut Chance, now: Wall) -> Genesis {
    let objects = bootstrap::objects_of("")
        .into_iter()
        .filter(|(k, _)| k.home == Home::Root)
        .filter_map(|(_, t)| object(t, Uid::from_chance(chance.u128()), now))
        .collect();
    Genesis { objects, above: Revision::ZERO }
}

impl Genesis {
    /// Whether there is nothing to begin with.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}
