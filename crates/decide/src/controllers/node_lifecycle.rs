//! Node life cycle: a node that is not heard of, and the taints that its conditions and its cordon make
//! (kube-controller-manager's node-lifecycle-controller).
//!
//! That a node lives is soft state: it is heard by the leader of its registry, and only what follows from
//! its silence is written.

use super::{Action, Plan, text};
use crate::pod::items;
use base::Wall;
use objects::Tree;
use serde_json::json;
use std::time::Duration;

/// A node not heard of for so long is unreachable.
pub const GRACE: Duration = Duration::from_secs(40);
/// A node that has never said how it is has so long to begin.
pub const STARTUP_GRACE: Duration = Duration::from_secs(60);

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// What each condition that is true (of `NetworkUnavailable` and the pressures) keeps away.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
/// The conditions a node itself says, which nobody knows while it is silent.
const SAID: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// What one Node object needs. `silent` is for how long nothing has been heard of its machine, counted
/// from the beginning of this leadership of its registry at the earliest.
///
/// A silent node's conditions become Unknown; then, or if they say so by themselves, it is tainted so that
/// no new pod comes and those that do not tolerate it go. One write at a time: what follows from it is
/// planned on its result.
pub fn plan(node: &Tree, silent: Duration, now: Wall) -> Plan {
    let mut plan = Plan::default();
    if super::is_terminating(node) {
        return plan;
    }
    let said = condition(node, "Ready").is_some();
    let grace = if said { GRACE } else { STARTUP_GRACE };
    if silent < grace {
        plan.look_again(now + (grace - silent));
    } else if let Some(tree) = unknown(node, now) {
        let name = text(&node["metadata"]["name"]);
        plan.because(format!("nothing was heard of {name} for {} s", silent.as_secs()));
        if condition(node, "Ready").is_some_and(|c| c["status"] == "True") {
            plan.event(node, "Normal", "NodeNotReady", format!("Node {name} status is now: NodeNotReady"));
        }
        plan.actions.insert(0, Action::UpdateStatus { tree });
        return plan;
    }
    let taints = tainted(node, now);
    if taints != items(&node["spec"]["taints"]) {
        plan.because(format!("the taints of {} are to follow its conditions", text(&node["metadata"]["name"])));
        let mut tree = node.clone();
        match tree["spec"].as_object_mut() {
            Some(spec) if taints.is_empty() => {
                spec.remove("taints");
            }
            _ => tree["spec"]["taints"] = Tree::Array(taints),
        }
        plan.actions.push(Action::Update { tree });
    }
    plan
}

fn condition<'a>(node: &'a Tree, kind: &str) -> Option<&'a Tree> {
    items(&node["status"]["conditions"]).iter().find(|c| c["type"] == kind)
}

/// The node with everything it says of itself unknown; `None` if it is so already.
fn unknown(node: &Tree, now: Wall) -> Option<Tree> {
    let mut tree = node.clone();
    if !tree["status"]["conditions"].is_array() {
        tree["status"]["conditions"] = json!([]);
    }
    let conditions = tree["status"]["conditions"].as_array_mut()?;
    let mut changed = false;
    for kind in SAID {
        match conditions.iter_mut().find(|c| c["type"] == kind) {
            Some(c) if c["status"] == "Unknown" => continue,
            Some(c) => {
                c["status"] = json!("Unknown");
                c["reason"] = json!("NodeStatusUnknown");
                c["message"] = json!("Kubelet stopped posting node status.");
                c["lastTransitionTime"] = json!(now.rfc3339());
            }
            None => conditions.push(json!({
                "type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.",
                "lastHeartbeatTime": node["metadata"]["creationTimestamp"], "lastTransitionTime": now.rfc3339(),
            })),
        }
        changed = true;
    }
    changed.then_some(tree)
}

/// The taints a node is to have: foreign ones as they are, ours as its conditions and its cordon say.
fn tainted(node: &Tree, now: Wall) -> Vec<Tree> {
    let is = |kind: &str, status: &str| condition(node, kind).is_some_and(|c| c["status"] == status);
    let mut want: Vec<(&str, &str)> = Vec::new();
    if is("Ready", "Unknown") {
        want.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]);
    } else if is("Ready", "False") {
        want.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]);
    }
    want.extend(PRESSURES.iter().filter(|(kind, _)| is(kind, "True")).map(|(_, key)| (*key, "NoSchedule")));
    if node["spec"]["unschedulable"] == true {
        want.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |t: &Tree| match (text(&t["key"]), text(&t["effect"])) {
        (NOT_READY | UNREACHABLE, "NoSchedule" | "NoExecute") | (UNSCHEDULABLE, "NoSchedule") => true,
        (key, "NoSchedule") => PRESSURES.iter().any(|(_, k)| *k == key),
        _ => false,
    };
    let wanted = |t: &Tree| want.contains(&(text(&t["key"]), text(&t["effect"])));
    let mut taints: Vec<Tree> =
        items(&node["spec"]["taints"]).iter().filter(|t| !ours(t) || wanted(t)).cloned().collect();
    for (key, effect) in want {
        if !taints.iter().any(|t| t["key"] == key && t["effect"] == effect) {
            taints.push(json!({"key": key, "effect": effect, "timeAdded": now.rfc3339()}));
        }
    }
    // How long a pod tolerates it counts from here.
    for taint in taints.iter_mut().filter(|t| t["effect"] == "NoExecute" && t["timeAdded"].is_null()) {
        taint["timeAdded"] = json!(now.rfc3339());
    }
    taints
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: Wall = Wall(1_769_846_400_000);

    fn node(ready: &str, taints: Tree) -> Tree {
        json!({"metadata": {"name": "n", "creationTimestamp": "2026-01-31T07:00:00Z"}, "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready, "reason": "KubeletReady"}]}})
    }

    fn keys(tree: &Tree) -> Vec<(String, String)> {
        let of = |t: &Tree| (text(&t["key"]).replace("node.kubernetes.io/", ""), text(&t["effect"]).to_owned());
        items(&tree["spec"]["taints"]).iter().map(of).collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(k, e)| ((*k).to_owned(), (*e).to_owned())).collect()
    }

    /// What the plan makes of a node, until it wants nothing more.
    fn settled(mut node: Tree, silent: Duration) -> Tree {
        for _ in 0..5 {
            match plan(&node, silent, NOW).actions.into_iter().next() {
                Some(Action::Update { tree } | Action::UpdateStatus { tree }) => node = tree,
                _ => return node,
            }
        }
        panic!("it never has enough");
    }

    #[test]
    fn taints_follow_what_the_node_says() {
        let not_ready = json!({"key": NOT_READY, "effect": "NoSchedule"});
        let foreign = json!({"key": "gpu", "effect": "NoSchedule"});
        for (ready, before, after) in [
            ("True", json!([not_ready]), pairs(&[])),
            ("True", json!([not_ready, foreign]), pairs(&[("gpu", "NoSchedule")])),
            ("False", json!([]), pairs(&[("not-ready", "NoSchedule"), ("not-ready", "NoExecute")])),
            ("Unknown", json!([not_ready]), pairs(&[("unreachable", "NoSchedule"), ("unreachable", "NoExecute")])),
        ] {
            assert_eq!(keys(&settled(node(ready, before), Duration::ZERO)), after, "{ready}");
        }
    }

    #[test]
    fn a_new_node_loses_the_taint_it_was_made_with_unless_it_says_that_it_is_not_ready() {
        // So does kube-controller-manager: its doNoScheduleTaintingPass looks at the conditions there are.
        let mut n = node("True", json!([{"key": NOT_READY, "effect": "NoSchedule"}]));
        n["status"] = json!({});
        let p = plan(&n, Duration::ZERO, NOW);
        assert!(matches!(&p.actions[..], [Action::Update { tree }] if tree["spec"]["taints"].is_null()));
        assert_eq!(p.again, Some(NOW + STARTUP_GRACE));
        assert_eq!(
            keys(&settled(n, STARTUP_GRACE)),
            pairs(&[("unreachable", "NoSchedule"), ("unreachable", "NoExecute")])
        );
    }

    #[test]
    fn a_cordon_and_a_pressure_keep_new_pods_away() {
        let mut n = node("True", json!([]));
        n["spec"]["unschedulable"] = json!(true);
        n["status"]["conditions"].as_array_mut().unwrap().push(json!({"type": "DiskPressure", "status": "True"}));
        let n = settled(n, Duration::ZERO);
        assert_eq!(keys(&n), pairs(&[("disk-pressure", "NoSchedule"), ("unschedulable", "NoSchedule")]));
        let mut lifted = n;
        lifted["spec"]["unschedulable"] = json!(false);
        lifted["status"]["conditions"][1]["status"] = json!("False");
        assert_eq!(keys(&settled(lifted, Duration::ZERO)), pairs(&[]));
    }

    #[test]
    fn a_silent_node_is_unknown_and_then_unreachable() {
        let n = node("True", json!([]));
        let p = plan(&n, GRACE - Duration::from_secs(10), NOW);
        assert!(p.actions.is_empty());
        assert_eq!(p.again, Some(NOW + Duration::from_secs(10)));
        let p = plan(&n, GRACE, NOW);
        assert!(
            matches!(&p.actions[..], [Action::UpdateStatus { tree }, Action::Event { reason: "NodeNotReady", message, .. }]
            if tree["status"]["conditions"].as_array().unwrap().len() == 4 && message == "Node n status is now: NodeNotReady")
        );
        let n = settled(n, GRACE);
        let ready = condition(&n, "Ready").unwrap();
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("Unknown"), &json!("NodeStatusUnknown")));
        assert_eq!(condition(&n, "PIDPressure").unwrap()["reason"], "NodeStatusNeverUpdated");
        assert_eq!(keys(&n), pairs(&[("unreachable", "NoSchedule"), ("unreachable", "NoExecute")]));
        assert!(items(&n["spec"]["taints"]).iter().all(|t| t["timeAdded"] == NOW.rfc3339().as_str()));
    }

    #[test]
    fn a_taint_that_drives_pods_away_says_since_when() {
        let n = settled(node("True", json!([{"key": "k", "effect": "NoExecute"}])), Duration::ZERO);
        assert_eq!(n["spec"]["taints"][0]["timeAdded"], NOW.rfc3339().as_str());
    }
}
