//! Pods nobody will ever remove: of nodes that are gone, and finished ones past a bound.

use super::{Action, Plan, Pod, Target};
use base::Wall;
use serde_json::json;
use std::collections::BTreeSet;

/// How many finished pods may stay, as kube-controller-manager's `--terminated-pod-gc-threshold`.
pub const FINISHED_MAX: usize = 12_500;
/// At most this many are removed by one plan.
const BURST: usize = 500;

/// What is known of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Node {
    /// It is there, or was a moment ago.
    Present,
    /// It was not there twice, the quarantine apart.
    Gone,
    /// It was not there once; it may be on its way.
    Missing,
    /// Nobody has looked lately.
    Unknown,
}

/// What is to be removed of all pods of a namespace.
pub fn plan<'a>(
    pods: impl Iterator<Item = &'a Pod> + Clone,
    node: &dyn Fn(&str) -> Node,
    finished_max: usize,
    now: Wall,
) -> Plan {
    let mut plan = Plan::default();
    let mut looked: BTreeSet<&str> = BTreeSet::new();
    for pod in pods.clone().filter(|p| !p.node.is_empty()) {
        match node(&pod.node) {
            Node::Gone if plan.actions.len() < BURST => {
                plan.because(format!("{} is bound to {}, which is gone", pod.name, pod.node));
                remove(pod, now, &mut plan);
            }
            Node::Unknown if looked.insert(&pod.node) => {
                let target = Target {
                    api_version: "v1".into(),
                    kind: "Node".into(),
                    name: pod.node.to_string(),
                    uid: String::new(),
                };
                plan.actions.push(Action::Look { target });
            }
            _ => {}
        }
    }
    let mut finished: Vec<&Pod> = pods.filter(|p| p.is_finished() && !p.is_terminating()).collect();
    if finished.len() > finished_max {
        let surplus = finished.len() - finished_max;
        plan.because(format!("{} pods have finished, and {finished_max} may stay", finished.len()));
        finished.sort_by_key(|p| (p.meta.created, p.name.clone()));
        for pod in finished.into_iter().take(surplus.min(BURST)) {
            remove(pod, now, &mut plan);
        }
    }
    plan
}

/// Nobody is left to end it: it has failed, and goes at once.
fn remove(pod: &Pod, now: Wall, plan: &mut Plan) {
    if !pod.is_finished() {
        let target = pod.target();
        let patch = json!({"metadata": {"uid": target.uid}, "status": {"phase": "Failed", "conditions": [
            {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists", "lastTransitionTime": now.rfc3339()}]}});
        plan.actions.push(Action::Patch { target, subresource: "status", patch, beside: None });
    }
    plan.actions.push(Action::Delete { target: pod.target(), revision: None, propagation: "", grace: Some(0) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use objects::Tree;

    fn pod(name: &str, node: &str, phase: &str, age: u64) -> Pod {
        let created = Wall(1_769_846_400_000 - age * 1000).rfc3339();
        Pod::of_tree(&json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "uid": name, "creationTimestamp": created},
            "spec": {"nodeName": if node.is_empty() { Tree::Null } else { json!(node) }}, "status": {"phase": phase}}))
    }

    fn acts(pods: &[Pod], max: usize) -> Vec<String> {
        let node = |n: &str| match n {
            "gone" => Node::Gone,
            "missing" => Node::Missing,
            "new" => Node::Unknown,
            _ => Node::Present,
        };
        let act = |a: &Action| match a {
            Action::Look { target } => format!("look {}", target.name),
            Action::Patch { target, .. } => format!("fail {}", target.name),
            Action::Delete { target, .. } => format!("delete {}", target.name),
            _ => String::new(),
        };
        plan(pods.iter(), &node, max, Wall(0)).actions.iter().map(act).collect()
    }

    #[test]
    fn pods_of_a_node_that_is_gone_fail_and_go_and_only_they() {
        let all = [
            pod("a", "gone", "Running", 1),
            pod("b", "missing", "Running", 1),
            pod("c", "new", "Running", 1),
            pod("d", "new", "Running", 1),
            pod("e", "here", "Running", 1),
            pod("f", "", "Pending", 1),
            pod("g", "gone", "Failed", 1),
        ];
        assert_eq!(acts(&all, 10), ["fail a", "delete a", "look new", "delete g"]);
    }

    #[test]
    fn the_oldest_finished_pods_go_past_the_bound() {
        let all = [
            pod("young", "n", "Succeeded", 1),
            pod("old", "n", "Failed", 9),
            pod("mid", "n", "Succeeded", 5),
            pod("runs", "n", "Running", 99),
        ];
        assert_eq!(acts(&all, 2), ["delete old"]);
        assert_eq!(acts(&all, 3), [""; 0]);
    }
}
