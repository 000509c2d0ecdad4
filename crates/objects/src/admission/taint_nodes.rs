//! TaintNodesByCondition: a new node takes no pods until it has said that it is ready.

use crate::Tree;
use crate::kinds::tree::{self, Fields};
use serde_json::json;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) fn admit(node: &mut Tree) {
    let spec = tree::child(node, "spec");
    let mut taints = spec.list("taints").to_vec();
    if !taints.iter().any(|t| t.text("key") == NOT_READY && t.text("effect") == "NoSchedule") {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        tree::set(spec, "taints", taints);
    }
}
