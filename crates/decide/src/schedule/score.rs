//! How well a node that can take a pod suits it.

use super::affinity;
use super::facts::NodeFacts;
use super::fit::tolerated;
use crate::pod::{items, requests};
use objects::Tree;

/// 0 to 1,000, more is better: free room after the pod, balance between cpu and memory (kube-scheduler's
/// LeastAllocated and BalancedAllocation), preferred node affinity, soft taints, and how few pods of the
/// same labels are here already.
pub fn score(node: &NodeFacts, pod: &Tree) -> u32 {
    let spec = &pod["spec"];
    let mut used = requests(spec);
    for h in node.hosted.values() {
        used.add(&h.requests);
    }
    // In thousandths of what the node has.
    let share = |name: &str| -> i64 {
        let have = node.allocatable.get(name).milli_value();
        let want = used.get(name).milli_value();
        if have <= 0 { 0 } else { (want.saturating_mul(1000) / have).clamp(0, 1000) }
    };
    let (cpu, memory) = (share("cpu"), share("memory"));
    let room = 1000 - (cpu + memory) / 2;
    let balance = 1000 - (cpu - memory).abs();
    let wanted = affinity::preference(spec, &node.name, &node.labels).clamp(0, 100) * 10;
    let soft = node.taints.iter().filter(|t| t["effect"] == "PreferNoSchedule" && !tolerated(spec, t)).count();
    let alike = {
        let labels = &pod["metadata"]["labels"];
        let same = node.hosted.values().filter(|h| {
            labels.as_object().is_some_and(|l| {
                !l.is_empty() && l.iter().all(|(k, v)| h.labels.get(k).map(String::as_str) == v.as_str())
            })
        });
        1000 - (same.count() as i64 * 200).min(1000)
    };
    let spread = if items(&spec["topologySpreadConstraints"]).is_empty() { 1 } else { 3 };
    let total = room + balance + 2 * wanted + spread * alike + if soft == 0 { 3000 } else { 0 };
    u32::try_from(total / (7 + spread)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Resources;
    use crate::schedule::Hosted;
    use serde_json::json;

    fn node(cpu: &str) -> NodeFacts {
        NodeFacts {
            allocatable: Resources::of(&json!({"cpu": cpu, "memory": "8Gi", "pods": "110"})),
            ..NodeFacts::default()
        }
    }

    #[test]
    fn the_node_with_more_room_suits_better() {
        let p = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}});
        assert!(score(&node("16"), &p) > score(&node("2"), &p));
    }

    #[test]
    fn a_soft_taint_a_twin_and_a_missed_preference_count_against_a_node() {
        let p = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": {"matchExpressions": [{"key": "ssd", "operator": "Exists"}]}}]}}}});
        let plain = node("4");
        let mut tainted = node("4");
        tainted.taints = vec![json!({"key": "k", "effect": "PreferNoSchedule"})];
        let mut twin = node("4");
        twin.hosted.insert("a".into(), Hosted::of(&p));
        let mut ssd = node("4");
        ssd.labels.insert("ssd".into(), String::new());
        assert!(score(&plain, &p) > score(&tainted, &p));
        assert!(score(&plain, &p) > score(&twin, &p));
        assert!(score(&ssd, &p) > score(&plain, &p));
        assert!(score(&ssd, &p) <= 1000);
    }
}
