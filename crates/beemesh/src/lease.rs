//! The node's Lease in `kube-node-lease`: the sign of life that others than its registry may read.
//!
//! Whether a node lives is decided by what its registry hears of it, not by this object. So it is renewed
//! less often than a kubelet renews its own, and says for how long it then stands: what is soft does not fill
//! a log.

use crate::backend::Node;
use base::Wall;
use node::errand::{self, Errand};
use objects::Tree;
use objects::kinds;
use objects::request::{Body, Options, Verb};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How often it is renewed.
pub(crate) const EVERY: Duration = Duration::from_secs(60);
/// For how long it stands: four times that, which is a kubelet's proportion.
const STANDS: Duration = Duration::from_secs(240);

const NAMESPACE: &str = "kube-node-lease";

/// Makes or renews the Lease of a node, which is given by its Node object.
///
/// # Errors
/// Why it stands as it stood; to be tried again.
pub(crate) async fn renew(backend: &Node, node: &Tree, now: Wall) -> Result<(), String> {
    let name = node["metadata"]["name"].as_str();
    let done = match ask(backend, node, Verb::Get, name, Body::None).await {
        Ok(have) => ask(backend, node, Verb::Update, name, object(lease(Some(have), node, now))).await,
        Err((404, _)) => ask(backend, node, Verb::Create, None, object(lease(None, node, now))).await,
        Err(e) => Err(e),
    };
    done.map(drop).map_err(|(_, why)| why)
}

fn object(tree: Tree) -> Body {
    Body::Object { tree, strict: Vec::new() }
}

/// A request in the node's own name.
async fn ask(backend: &Node, node: &Tree, verb: Verb, name: Option<&str>, body: Body) -> Result<Tree, (u16, String)> {
    let kind =
        kinds::by_kind("coordination.k8s.io", "v1", "Lease").ok_or((500, "there is no kind Lease".to_owned()))?;
    let errand = Errand {
        user: errand::node(node["metadata"]["name"].as_str().unwrap_or_default()),
        verb,
        kind,
        namespace: Some(NAMESPACE.into()),
        name: name.map(Arc::from),
        subresource: "",
        options: Options { field_manager: "beemesh".into(), ..Options::default() },
        body,
    };
    backend.errand(&errand).await.map_err(|s| (s.code, s.message))
}

/// The Lease as it is to be: held by the node, and gone with its Node object.
fn lease(have: Option<Tree>, node: &Tree, now: Wall) -> Tree {
    let meta = &node["metadata"];
    let mut lease = have.unwrap_or_else(|| {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": meta["name"], "namespace": NAMESPACE}})
    });
    lease["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "Node", "name": meta["name"], "uid": meta["uid"]}]);
    lease["spec"]["holderIdentity"] = meta["name"].clone();
    lease["spec"]["leaseDurationSeconds"] = json!(STANDS.as_secs());
    lease["spec"]["renewTime"] = json!(now.rfc3339_micro());
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_the_nodes_and_what_others_wrote_there_stays() {
        let node = json!({"metadata": {"name": "n", "uid": "u"}});
        let new = lease(None, &node, Wall(1_000));
        assert_eq!((&new["metadata"]["name"], &new["metadata"]["namespace"]), (&json!("n"), &json!(NAMESPACE)));
        assert_eq!(new["metadata"]["ownerReferences"][0]["uid"], "u");
        let mut theirs = new.clone();
        theirs["metadata"]["labels"]["mine"] = json!("x");
        theirs["spec"]["holderIdentity"] = json!("somebody");
        let again = lease(Some(theirs.clone()), &node, Wall(61_000));
        theirs["spec"]["holderIdentity"] = json!("n");
        theirs["spec"]["renewTime"] = json!(Wall(61_000).rfc3339_micro());
        assert_eq!(again, theirs);
    }
}
