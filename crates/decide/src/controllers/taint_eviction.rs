//! Pods that do not bear their node's `NoExecute` taints go (kube-controller-manager's
//! taint-eviction-controller): at once, or when the time is over for which they tolerate them.
//!
//! The controllers of the pod's cell see to it, not the node: what makes a node unreachable is a taint, too.

use super::{Action, Plan, Target, is_terminating, text};
use crate::pod::is_finished;
use crate::schedule::tolerated_by;
use base::Wall;
use objects::Tree;
use serde_json::json;
use std::time::Duration;

/// What is to become of a pod on a node with these taints.
///
/// How long a taint is tolerated counts from its `timeAdded`, or from when the pod was bound if that was later: who comes
/// to a node that has been tainted for long has its time like everybody.
pub fn plan(pod: &Tree, taints: &[Tree], now: Wall) -> Plan {
    let mut plan = Plan::default();
    if is_terminating(pod) || is_finished(pod) {
        return plan;
    }
    let ends = taints.iter().filter(|t| t["effect"] == "NoExecute").filter_map(|t| end(pod, t, now));
    let Some((at, key)) = ends.min() else { return plan };
    if at > now {
        plan.look_again(at);
        return plan;
    }
    let meta = &pod["metadata"];
    let (namespace, name) = (text(&meta["namespace"]), text(&meta["name"]));
    plan.because(format!("{namespace}/{name} does not tolerate (any longer) the taint {key} of its node"));
    let target = Target::of(pod);
    let patch = json!({"metadata": {"uid": target.uid}, "status": {"conditions": [
        {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": now.rfc3339()}]}});
    plan.actions.push(Action::Patch { target: target.clone(), subresource: "status", patch, beside: None });
    plan.delete(target);
    plan.event(pod, "Normal", "TaintManagerEviction", format!("Marking for deletion Pod {namespace}/{name}"));
    plan
}

/// When the pod is to go because of a taint, if ever.
fn end<'a>(pod: &Tree, taint: &'a Tree, now: Wall) -> Option<(Wall, &'a str)> {
    let key = text(&taint["key"]);
    let Some(toleration) = tolerated_by(&pod["spec"], taint) else { return Some((now, key)) };
    let seconds = toleration["tolerationSeconds"].as_i64()?;
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let mut bound = conditions.filter(|c| c["type"] == "PodScheduled" && c["status"] == "True");
    let time = |t: &Tree| t.as_str().and_then(Wall::parse_rfc3339);
    let bound = bound.next().and_then(|c| time(&c["lastTransitionTime"]));
    let from = time(&taint["timeAdded"]).unwrap_or(now).max(bound.unwrap_or_default());
    Some((from + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)), key))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: Wall = Wall(1_769_846_400_000);

    fn ago(seconds: u64) -> Tree {
        json!(Wall(NOW.0 - seconds * 1000).rfc3339())
    }

    fn pod(tolerations: Tree) -> Tree {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "d", "name": "p", "uid": "u"},
            "spec": {"nodeName": "n", "tolerations": tolerations}, "status": {"phase": "Running"}})
    }

    #[test]
    fn a_pod_goes_when_the_first_of_its_tolerations_ends() {
        let no_execute =
            |key: &str, seconds: u64| json!({"key": key, "effect": "NoExecute", "timeAdded": ago(seconds)});
        let bears = |key: &str, seconds: Tree| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        let (gone, stays) = (Some(0), None);
        for (tolerations, taints, want) in [
            (json!([]), vec![], stays),
            (json!([]), vec![json!({"key": "a", "effect": "NoSchedule"})], stays),
            (json!([]), vec![no_execute("a", 0)], gone),
            (json!([bears("a", Tree::Null)]), vec![no_execute("a", 999)], stays),
            (json!([bears("a", json!(300))]), vec![no_execute("a", 100)], Some(200)),
            (json!([bears("a", json!(300))]), vec![no_execute("a", 300)], gone),
            (json!([bears("a", json!(0))]), vec![no_execute("a", 0)], gone),
            (json!([bears("a", json!(-1))]), vec![no_execute("a", 0)], gone),
            // The first toleration that fits is the one that counts.
            (json!([bears("a", json!(300)), bears("a", json!(10))]), vec![no_execute("a", 100)], Some(200)),
            (
                json!([bears("a", Tree::Null), bears("b", json!(60))]),
                vec![no_execute("a", 9), no_execute("b", 9)],
                Some(51),
            ),
            (json!([bears("a", json!(60))]), vec![no_execute("a", 9), no_execute("b", 9)], gone),
        ] {
            let p = plan(&pod(tolerations.clone()), &taints, NOW);
            let got = match (p.actions.is_empty(), p.again) {
                (false, _) => gone,
                (true, Some(at)) => Some(at.since(NOW).as_secs()),
                (true, None) => stays,
            };
            assert_eq!(got, want, "{tolerations} {taints:?}");
        }
    }

    #[test]
    fn who_comes_to_a_node_that_is_tainted_has_its_time_there() {
        let mut pod = pod(json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 300}]));
        pod["status"]["conditions"] =
            json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": ago(100)}]);
        let p = plan(&pod, &[json!({"key": "a", "effect": "NoExecute", "timeAdded": ago(9999)})], NOW);
        assert!(p.actions.is_empty());
        assert_eq!(p.again.unwrap().since(NOW).as_secs(), 200);
    }

    #[test]
    fn its_status_says_why_and_an_event_that_it_goes() {
        let taint = [json!({"key": "a", "effect": "NoExecute", "timeAdded": ago(0)})];
        let p = plan(&pod(json!([])), &taint, NOW);
        let [
            Action::Patch { patch, subresource: "status", .. },
            Action::Delete { target, grace: None, .. },
            Action::Event { reason, message, .. },
        ] = &p.actions[..]
        else {
            panic!("{:?}", p.actions)
        };
        assert_eq!(patch["status"]["conditions"][0]["reason"], "DeletionByTaintManager");
        assert_eq!(
            (target.uid.as_str(), *reason, message.as_str()),
            ("u", "TaintManagerEviction", "Marking for deletion Pod d/p")
        );
        let mut over = pod(json!([]));
        over["status"]["phase"] = json!("Succeeded");
        let mut going = pod(json!([]));
        going["metadata"]["deletionTimestamp"] = ago(1);
        for p in [over, going] {
            assert_eq!(plan(&p, &taint, NOW), Plan::default());
        }
    }
}
