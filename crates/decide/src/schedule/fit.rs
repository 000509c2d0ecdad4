//! Why a node cannot take a pod, in kube-scheduler's words.

use super::affinity;
use super::facts::{Hosted, Labels, NodeFacts};
use super::neighbours::Term;
use crate::pod::{Resources, items, requests};
use objects::Tree;

/// The topology whose domains are single nodes.
pub(super) const HOSTNAME: &str = "kubernetes.io/hostname";

/// The pod refuses one that is there.
pub(super) const REFUSES: &str = "node(s) didn't match pod anti-affinity rules";
/// One that is there refuses the pod.
pub(super) const REFUSED: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// One reason why a node cannot take a pod: what follows the count in
/// `0/3 nodes are available: 2 Insufficient cpu, 1 node(s) had untolerated taint(s).`
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reason {
    /// The words.
    pub text: String,
    /// Evicting pods of lower priority could help.
    pub preemptible: bool,
}

pub(super) fn reason(text: impl Into<String>, preemptible: bool) -> Reason {
    Reason { text: text.into(), preemptible }
}

/// All reasons why the node cannot take the pod now; none if it can. As in kube-scheduler, the first
/// filter that refuses ends the search, and a filter names everything it finds.
pub fn fit(node: &NodeFacts, pod: &Tree) -> Vec<Reason> {
    if let Some(reason) = kept_out(node, pod) {
        return vec![reason];
    }
    let new = Hosted::of(pod);
    if new.ports.iter().any(|p| node.hosted.values().any(|h| h.ports.iter().any(|q| p.clashes(q)))) {
        return vec![reason("node(s) didn't have free ports for the requested pod ports", true)];
    }
    let short = short_of(node, &new);
    if !short.is_empty() {
        return short;
    }
    beside_on_host(node, &new)
}

/// Reasons why the node cannot take the pod whatever else runs there: what a leader, who knows nodes by
/// their objects only, can tell without asking. A node of which nothing is said here has to be asked.
pub fn never(node: &NodeFacts, pod: &Tree) -> Vec<Reason> {
    if let Some(reason) = kept_out(node, pod) {
        return vec![reason];
    }
    let mut reasons = Vec::new();
    if node.allocatable.get("pods").value() < 1 {
        reasons.push(reason("Too many pods", false));
    }
    for (name, want) in &requests(&pod["spec"]).0 {
        if name != "pods" && *want > node.allocatable.get(name) {
            reasons.push(reason(format!("Insufficient {name}"), false));
        }
    }
    reasons
}

/// What keeps the pod from the node whatever room there is.
fn kept_out(node: &NodeFacts, pod: &Tree) -> Option<Reason> {
    let spec = &pod["spec"];
    if node.unschedulable && !tolerates_unschedulable(spec) {
        return Some(reason("node(s) were unschedulable", false));
    }
    if spec["nodeName"].as_str().is_some_and(|n| !n.is_empty() && n != node.name) {
        return Some(reason("node(s) didn't match the requested node name", false));
    }
    if node.taints.iter().any(|t| repels(t) && !tolerated(spec, t)) {
        return Some(reason("node(s) had untolerated taint(s)", false));
    }
    if !affinity::may_run(spec, &node.name, &node.labels) {
        return Some(reason("node(s) didn't match Pod's node affinity/selector", false));
    }
    None
}

/// `node.kubernetes.io/unschedulable` may be tolerated like any other taint.
fn tolerates_unschedulable(spec: &Tree) -> bool {
    tolerated(spec, &serde_json::json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}))
}

pub(super) fn repels(taint: &Tree) -> bool {
    matches!(taint["effect"].as_str(), Some("NoSchedule" | "NoExecute"))
}

/// Whether one of the pod's tolerations tolerates a taint.
pub(super) fn tolerated(spec: &Tree, taint: &Tree) -> bool {
    tolerated_by(spec, taint).is_some()
}

/// The first of the pod's tolerations that tolerates a taint (`core/v1` Toleration).
pub(crate) fn tolerated_by<'a>(spec: &'a Tree, taint: &Tree) -> Option<&'a Tree> {
    items(&spec["tolerations"]).iter().find(|t| {
        let text = |v: &Tree| v.as_str().unwrap_or_default().to_owned();
        let effect_ok = text(&t["effect"]).is_empty() || t["effect"] == taint["effect"];
        let key = text(&t["key"]);
        let key_ok = key.is_empty() || key == text(&taint["key"]);
        effect_ok
            && key_ok
            && match text(&t["operator"]).as_str() {
                "Exists" => true,
                "" | "Equal" => !key.is_empty() && text(&t["value"]) == text(&taint["value"]),
                _ => false,
            }
    })
}

fn short_of(node: &NodeFacts, new: &Hosted) -> Vec<Reason> {
    let mut used = Resources::default();
    for h in node.hosted.values() {
        used.add(&h.requests);
    }
    let mut reasons = Vec::new();
    if (node.hosted.len() as i64) + 1 > node.allocatable.get("pods").value() {
        reasons.push(reason("Too many pods", true));
    }
    for (name, want) in &new.requests.0 {
        if want.is_zero() || name == "pods" {
            continue;
        }
        let have = node.allocatable.get(name);
        let free = have.checked_sub(used.get(name));
        if free.is_none_or(|f| *want > f) {
            // Evicting everybody would not help a pod that asks for more than the node has.
            reasons.push(reason(format!("Insufficient {name}"), *want <= have));
        }
    }
    reasons
}

/// Pod anti-affinity whose topology is the host: the bidder alone knows all who are on it. What is wanted
/// beside a pod, and what is in wider domains, is the leader's affair ([`super::Topology`]).
fn beside_on_host(node: &NodeFacts, new: &Hosted) -> Vec<Reason> {
    let on_host = |t: &&Term| t.topology == HOSTNAME;
    let met = |term: &Term, h: &Hosted| term.means(&node.namespaces, &h.namespace, &h.labels);
    if new.affinity.refuses.iter().filter(on_host).any(|t| node.hosted.values().any(|h| met(t, h))) {
        return vec![reason(REFUSES, true)];
    }
    if node.hosted.values().any(|h| h.affinity.refuses.iter().filter(on_host).any(|t| met(t, new))) {
        return vec![reason(REFUSED, true)];
    }
    Vec::new()
}

/// A LabelSelector object on labels: null matches nothing, an empty one everything.
pub(crate) fn selector_matches(selector: &Tree, labels: &Labels) -> bool {
    if selector.is_null() {
        return false;
    }
    let exact = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .all(|(k, v)| labels.get(k).map(String::as_str) == v.as_str());
    exact
        && items(&selector["matchExpressions"]).iter().all(|r| {
            let have = labels.get(r["key"].as_str().unwrap_or_default()).map(String::as_str);
            let values = || items(&r["values"]).iter().filter_map(Tree::as_str);
            match r["operator"].as_str() {
                Some("In") => have.is_some_and(|h| values().any(|v| v == h)),
                Some("NotIn") => have.is_none_or(|h| values().all(|v| v != h)),
                Some("Exists") => have.is_some(),
                Some("DoesNotExist") => have.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> NodeFacts {
        NodeFacts {
            name: "n1".into(),
            allocatable: Resources::of(&json!({"cpu": "2", "memory": "4Gi", "pods": "3"})),
            ..NodeFacts::default()
        }
    }

    fn host(n: &mut NodeFacts, uid: &str, pod: Tree) {
        n.hosted.insert(uid.into(), Hosted::of(&pod));
    }

    fn texts(n: &NodeFacts, pod: &Tree) -> Vec<String> {
        fit(n, pod).into_iter().map(|r| r.text).collect()
    }

    fn pod(spec: Tree) -> Tree {
        json!({"metadata": {"namespace": "d", "labels": {"app": "x"}}, "spec": spec})
    }

    #[test]
    fn a_node_says_everything_it_is_short_of() {
        let mut n = node();
        host(&mut n, "a", pod(json!({"containers": [{"resources": {"requests": {"cpu": "1500m"}}}]})));
        let p = pod(
            json!({"containers": [{"resources": {"requests": {"cpu": "1", "memory": "8Gi", "example.com/gpu": "1"}}}]}),
        );
        assert_eq!(texts(&n, &p), ["Insufficient cpu", "Insufficient example.com/gpu", "Insufficient memory"]);
        let preemptible: Vec<bool> = fit(&n, &p).into_iter().map(|r| r.preemptible).collect();
        assert_eq!(preemptible, [true, false, false]);
        assert!(texts(&n, &pod(json!({"containers": [{"resources": {"requests": {"cpu": "500m"}}}]}))).is_empty());
        host(&mut n, "b", pod(json!({})));
        host(&mut n, "c", pod(json!({})));
        assert_eq!(texts(&n, &pod(json!({}))), ["Too many pods"]);
    }

    #[test]
    fn taints_repel_those_who_do_not_tolerate_them() {
        let mut n = node();
        n.taints = vec![
            json!({"key": "gpu", "value": "yes", "effect": "NoSchedule"}),
            json!({"key": "soft", "effect": "PreferNoSchedule"}),
        ];
        let refused = ["node(s) had untolerated taint(s)"];
        for (tolerations, ok) in [
            (json!([]), false),
            (json!([{"key": "gpu", "value": "yes"}]), true),
            (json!([{"key": "gpu", "operator": "Equal", "value": "no"}]), false),
            (json!([{"operator": "Exists"}]), true),
            (json!([{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}]), false),
        ] {
            let got = texts(&n, &pod(json!({"tolerations": tolerations})));
            assert_eq!(got.is_empty(), ok, "{tolerations}");
            assert!(ok || got == refused);
        }
        n.unschedulable = true;
        assert_eq!(texts(&n, &pod(json!({}))), ["node(s) were unschedulable"]);
    }

    #[test]
    fn pods_that_refuse_each_other_do_not_share_a_host() {
        let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}});
        let anti =
            pod(json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}));
        let mut n = node();
        assert!(texts(&n, &anti).is_empty());
        host(&mut n, "a", pod(json!({})));
        assert_eq!(texts(&n, &anti), ["node(s) didn't match pod anti-affinity rules"]);
        let mut n = node();
        host(&mut n, "a", anti);
        assert_eq!(texts(&n, &pod(json!({}))), ["node(s) didn't satisfy existing pods anti-affinity rules"]);
    }

    #[test]
    fn two_pods_cannot_have_one_port_of_the_host() {
        let p = pod(json!({"containers": [{"ports": [{"hostPort": 80}]}]}));
        let mut n = node();
        host(&mut n, "a", p.clone());
        assert_eq!(texts(&n, &p), ["node(s) didn't have free ports for the requested pod ports"]);
    }
}
