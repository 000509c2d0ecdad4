//! Pods that their nodes' taints drive away.

#![allow(clippy::unwrap_used, clippy::panic)]

mod controlled;

use controlled::World;
use node::controllers::Input;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The namespace's controllers are told of these taints of node `n1`.
fn taint(w: &mut World, taints: &[Value]) {
    let all = (!taints.is_empty()).then(|| (Box::from("n1"), taints.to_vec()));
    w.control(Input::Taints(Arc::new(BTreeMap::from_iter(all))));
}

fn no_execute(w: &World, key: &str) -> Value {
    json!({"key": key, "effect": "NoExecute", "timeAdded": w.now.wall.rfc3339()})
}

fn pod(w: &mut World, name: &str, node: &str, tolerations: Value) {
    w.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "d"},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}], "tolerations": tolerations}}));
}

fn is_going(w: &mut World, name: &str) -> bool {
    w.get("Pod", name).is_none_or(|p| !p["metadata"]["deletionTimestamp"].is_null())
}

#[test]
fn a_pod_goes_from_a_tainted_node_at_once_or_when_its_tolerations_end() {
    let mut w = World::new();
    let bears = |seconds: Value| json!([{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
    for (name, node, tolerations) in [
        ("none", "n1", json!([])),
        ("minute", "n1", bears(json!(60))),
        ("ever", "n1", bears(Value::Null)),
        ("elsewhere", "n2", json!([])),
    ] {
        pod(&mut w, name, node, tolerations);
    }
    w.settle();
    let all = ["none", "minute", "ever", "elsewhere"];
    let going = |w: &mut World| all.map(|p| is_going(w, p));
    let taints = [no_execute(&w, "k")];
    taint(&mut w, &taints);
    w.settle();
    assert_eq!(going(&mut w), [true, false, false, false]);
    w.pass(Duration::from_secs(59));
    assert_eq!(going(&mut w), [true, false, false, false]);
    w.pass(Duration::from_secs(2));
    assert_eq!(going(&mut w), [true, true, false, false]);
    let why = w.get("Pod", "minute").unwrap()["status"]["conditions"].as_array().cloned().unwrap();
    assert!(why.iter().any(|c| c["type"] == "DisruptionTarget" && c["reason"] == "DeletionByTaintManager"), "{why:?}");
    // Bound to such a node by somebody, a pod goes, too.
    pod(&mut w, "late", "n1", json!([]));
    w.settle();
    assert!(is_going(&mut w, "late"));
}

#[test]
fn a_taint_that_is_lifted_in_time_drives_nobody_away_even_over_a_change_of_leader() {
    let mut w = World::new();
    // Every pod tolerates an unreachable node for five minutes.
    for name in ["p", "q"] {
        pod(&mut w, name, "n1", json!([]));
    }
    let taints = [no_execute(&w, "node.kubernetes.io/unreachable")];
    taint(&mut w, &taints);
    w.pass(Duration::from_secs(290));
    assert!(!is_going(&mut w, "p"));
    taint(&mut w, &[]);
    w.pass(Duration::from_secs(60));
    assert!(!is_going(&mut w, "p"));
    let taints = [no_execute(&w, "node.kubernetes.io/unreachable")];
    taint(&mut w, &taints);
    w.pass(Duration::from_secs(200));
    w.depose();
    w.lead_again();
    w.pass(Duration::from_secs(90));
    assert!(!is_going(&mut w, "p"));
    w.pass(Duration::from_secs(12));
    assert!(is_going(&mut w, "p") && is_going(&mut w, "q"));
}
