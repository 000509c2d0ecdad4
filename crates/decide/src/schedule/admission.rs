//! Whether a node takes a pod that somebody bound to it without asking, in the kubelet's words.
//!
//! The binding stands: a pod that is refused here is failed, never unbound. A cordon, and taints that
//! only keep new pods away, do not undo somebody else's binding.

use super::affinity;
use super::facts::{Hosted, NodeFacts};
use super::fit::tolerated;
use crate::pod::Resources;
use objects::Tree;

/// Why a node refuses a pod that is bound to it: `status.reason` and the message of its Event. In
/// `status.message` the kubelet writes `Pod was rejected: ` before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// CamelCase, for programs: `OutOfcpu`, `NodeAffinity`.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Refusal {
    fn predicate(name: &str, why: &str) -> Refusal {
        Refusal { reason: name.into(), message: format!("Predicate {name} failed: {why}") }
    }
}

/// Admits a pod, or says the first reason why not, in the order of the kubelet's `generalFilter`.
///
/// # Errors
/// See [`Refusal`].
pub fn admit(node: &NodeFacts, pod: &Tree) -> Result<(), Refusal> {
    let new = Hosted::of(pod);
    let mut used = Resources::default();
    for h in node.hosted.values() {
        used.add(&h.requests);
    }
    let lacks = |name: &str, requested: i64, used: i64, capacity: i64| Refusal {
        reason: format!("OutOf{name}"),
        message: format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        ),
    };
    let pods = node.allocatable.get("pods").value();
    if node.hosted.len() as i64 + 1 > pods {
        return Err(lacks("pods", 1, node.hosted.len() as i64, pods));
    }
    // The usual ones first, then the others by name.
    let usual = ["cpu", "memory", "ephemeral-storage"];
    let others = new.requests.0.keys().map(String::as_str).filter(|n| !usual.contains(n) && *n != "pods");
    for name in usual.into_iter().chain(others) {
        let (want, have, used) = (new.requests.get(name), node.allocatable.get(name), used.get(name));
        // An extended resource the node has never heard of is somebody else's to count.
        let foreign = name.contains('/') && !node.allocatable.0.contains_key(name);
        if want.is_zero() || foreign || have.checked_sub(used).is_some_and(|free| want <= free) {
            continue;
        }
        return Err(match name {
            "cpu" => lacks(name, want.milli_value(), used.milli_value(), have.milli_value()),
            _ => lacks(name, want.value(), used.value(), have.value()),
        });
    }
    let spec = &pod["spec"];
    if !affinity::may_run(spec, &node.name, &node.labels) {
        return Err(Refusal::predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"));
    }
    if spec["nodeName"].as_str().is_some_and(|n| !n.is_empty() && n != node.name) {
        return Err(Refusal::predicate("NodeName", "node(s) didn't match the requested node name"));
    }
    if new.ports.iter().any(|p| node.hosted.values().any(|h| h.ports.iter().any(|q| p.clashes(q)))) {
        return Err(Refusal::predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports"));
    }
    if node.taints.iter().any(|t| t["effect"] == "NoExecute" && !tolerated(spec, t)) {
        return Err(Refusal::predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn node() -> NodeFacts {
        NodeFacts {
            name: "n".into(),
            allocatable: Resources::of(&json!({"cpu": "2", "memory": "1Gi", "pods": "2"})),
            ..NodeFacts::default()
        }
    }

    fn asks(cpu: &str, memory: &str) -> Tree {
        json!({"spec": {"containers": [{"resources": {"requests": {"cpu": cpu, "memory": memory}}}]}})
    }

    #[test]
    fn a_refusal_is_worded_as_the_kubelet_words_it() {
        let mut full = node();
        full.hosted.insert("a".into(), Hosted::of(&asks("1500m", "0")));
        let mut crowded = full.clone();
        crowded.hosted.insert("b".into(), Hosted::default());
        let mut burning = node();
        burning.taints = vec![json!({"key": "k", "effect": "NoExecute"})];
        let mut taken = node();
        let web = json!({"spec": {"containers": [{"ports": [{"hostPort": 80}]}]}});
        taken.hosted.insert("a".into(), Hosted::of(&web));
        for (node, pod, reason, message) in [
            (
                full,
                asks("1", "2Gi"),
                "OutOfcpu",
                "Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000",
            ),
            (
                node(),
                asks("1", "2Gi"),
                "OutOfmemory",
                "Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824",
            ),
            (
                crowded,
                asks("0", "0"),
                "OutOfpods",
                "Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2",
            ),
            (
                node(),
                json!({"spec": {"nodeSelector": {"a": "b"}}}),
                "NodeAffinity",
                "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
            ),
            (
                taken,
                web,
                "NodePorts",
                "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
            ),
            (
                burning,
                asks("0", "0"),
                "TaintToleration",
                "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
            ),
        ] {
            let refusal = admit(&node, &pod).unwrap_err();
            assert_eq!((refusal.reason.as_str(), refusal.message.as_str()), (reason, message));
        }
    }

    #[test]
    fn what_only_keeps_new_pods_away_does_not_undo_a_binding() {
        let mut n = node();
        n.unschedulable = true;
        n.taints = vec![json!({"key": "k", "effect": "NoSchedule"})];
        assert_eq!(admit(&n, &asks("1", "0")), Ok(()));
    }

    #[test]
    fn an_extended_resource_the_node_does_not_know_is_not_counted() {
        let gpu = json!({"spec": {"containers": [{"resources": {"requests": {"example.com/gpu": "1"}}}]}});
        assert_eq!(admit(&node(), &gpu), Ok(()));
        let mut n = node();
        n.allocatable.add(&Resources::of(&json!({"example.com/gpu": "0"})));
        assert_eq!(admit(&n, &gpu).unwrap_err().reason, "OutOfexample.com/gpu");
    }
}
