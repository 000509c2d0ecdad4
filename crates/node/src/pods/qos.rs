//! What a pod's requests and limits come to in the kernel's words.
//!
//! Source: the kubelet's `cm/helpers_linux.go` (shares and quota), `qos/policy.go` (who is killed first)
//! and `cm/pod_container_manager_linux.go` (cgroups by class of service).

use super::facts::NodeFacts;
use super::spec::{List, containers, is_sidecar};
use super::status::limits;
use base::Quantity;
use base::runtime::Resources;
use objects::Tree;
use objects::kinds::pod::spec::qos_class;
use objects::kinds::resources::quantity;
use objects::kinds::tree::Fields;

/// Microseconds in which a quota is counted.
const PERIOD_US: i64 = 100_000;
/// The least quota the kernel takes.
const QUOTA_US_MIN: i64 = 1_000;
const SHARES_MIN: u64 = 2;
const SHARES_MAX: u64 = 262_144;
const OOM_GUARANTEED: i64 = -997;
const OOM_BEST_EFFORT: i64 = 1000;

/// The amount of a resource under `limits` or `requests`; nothing if none is stated.
pub(super) fn amount(owner: &Tree, list: &str, name: &str) -> Option<Quantity> {
    quantity(owner.at("resources").at(list).at(name))
}

/// The pod's class of service.
pub(super) fn class(pod: &Tree) -> &'static str {
    qos_class(pod.at("spec"))
}

/// The pod's cgroup: `/beemesh/kubepods/burstable/podUID`, or as systemd writes the same,
/// `beemesh-kubepods-burstable-podUID.slice`, where a dash says what lies in what.
pub(super) fn cgroup(facts: &NodeFacts, pod: &Tree) -> String {
    let class = match class(pod) {
        "Guaranteed" => "",
        "Burstable" => "/burstable",
        _ => "/besteffort",
    };
    let uid = pod.at("metadata").text("uid");
    if facts.systemd {
        let path = format!("{}/kubepods{class}/pod{}", facts.cgroup_root, uid.replace('-', "_"));
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        return format!("{}.slice", parts.join("-"));
    }
    format!("{}/kubepods{class}/pod{uid}", facts.cgroup_root.trim_end_matches('/'))
}

/// What all of a pod together may use: a limit holds if each of its containers has one, or the pod as a
/// whole. (The kubelet's `ResourceConfigForPod`.)
pub(super) fn of_pod(pod: &Tree) -> Resources {
    let spec = pod.at("spec");
    let each = || containers(pod, List::Init).iter().chain(containers(pod, List::Main));
    let stated = |owner: &Tree, name: &str| amount(owner, "limits", name).is_some_and(|q| !q.is_zero());
    let sums = limits(pod);
    let limit = |name: &str| match stated(spec, name) || each().all(|c| stated(c, name)) {
        true => sums.0.get(name).copied().unwrap_or_default(),
        false => Quantity::default(),
    };
    let asked = decide::pod::requests(spec).0.get("cpu").copied().unwrap_or_default();
    Resources {
        cpu_shares: shares(asked.milli_value()),
        cpu_quota_us: quota(limit("cpu").milli_value()),
        cpu_period_us: PERIOD_US,
        memory_bytes: limit("memory").value(),
        oom_score_adj: 0,
    }
}

/// A container's limits.
pub(super) fn resources(facts: &NodeFacts, pod: &Tree, list: List, container: &Tree) -> Resources {
    // A limit of the pod as a whole stands in for a container's (KEP-2837).
    let limit = |name: &str| {
        amount(container, "limits", name)
            .filter(|q| !q.is_zero())
            .or_else(|| amount(pod.at("spec"), "limits", name))
            .unwrap_or_default()
    };
    let cpu_limit = limit("cpu");
    let cpu_request = amount(container, "requests", "cpu").unwrap_or(cpu_limit);
    Resources {
        cpu_shares: shares(cpu_request.milli_value()),
        cpu_quota_us: quota(cpu_limit.milli_value()),
        cpu_period_us: PERIOD_US,
        memory_bytes: limit("memory").value(),
        oom_score_adj: oom_score_adj(facts, pod, list, container),
    }
}

fn shares(milli: i64) -> u64 {
    (u64::try_from(milli).unwrap_or(0).saturating_mul(1024) / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

fn quota(milli: i64) -> i64 {
    if milli == 0 { 0 } else { (milli.saturating_mul(PERIOD_US) / 1000).max(QUOTA_US_MIN) }
}

fn oom_score_adj(facts: &NodeFacts, pod: &Tree, list: List, container: &Tree) -> i64 {
    // `system-node-critical`.
    if pod.at("spec").int("priority").unwrap_or(0) >= 2_000_001_000 {
        return OOM_GUARANTEED;
    }
    match class(pod) {
        "Guaranteed" => return OOM_GUARANTEED,
        "BestEffort" => return OOM_BEST_EFFORT,
        _ => {}
    }
    let capacity = i64::try_from(facts.memory_bytes).unwrap_or(i64::MAX).max(1);
    let asked = |c: &Tree| amount(c, "requests", "memory").unwrap_or_default().value();
    // What is asked for the pod and for none of its containers is shared out evenly.
    let spare = match amount(pod.at("spec"), "requests", "memory") {
        None => 0,
        Some(all) => {
            let each: Vec<&Tree> = containers(pod, List::Main)
                .iter()
                .chain(containers(pod, List::Init).iter().filter(|c| is_sidecar(List::Init, c)))
                .collect();
            let stated: i64 = each.iter().map(|c| asked(c)).sum();
            (all.value() - stated).max(0) / i64::try_from(each.len()).unwrap_or(1).max(1)
        }
    };
    let adjust = |c: &Tree| {
        let share = i128::from(1000) * i128::from(asked(c) + spare) / i128::from(capacity);
        1000 - i64::try_from(share).unwrap_or(1000)
    };
    let mut score = adjust(container);
    if is_sidecar(list, container) {
        // A sidecar outlives the containers it serves.
        score = containers(pod, List::Main).iter().map(adjust).min().unwrap_or(score).min(score);
    }
    score.clamp(1000 + OOM_GUARANTEED, OOM_BEST_EFFORT - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn facts() -> NodeFacts {
        NodeFacts { memory_bytes: 1 << 30, cgroup_root: "/beemesh".into(), ..NodeFacts::default() }
    }

    fn pod(resources: Tree) -> Tree {
        json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn systemd_names_the_same_place_as_a_slice() {
        let facts = NodeFacts { systemd: true, ..facts() };
        let mut pod = pod(json!({"requests": {"cpu": "1"}}));
        pod["metadata"]["uid"] = "a-b".into();
        assert_eq!(cgroup(&facts, &pod), "beemesh-kubepods-burstable-poda_b.slice");
    }

    #[test]
    fn a_pod_is_limited_as_a_whole_if_all_of_it_is() {
        let mib = 1 << 20;
        let c = |resources: Tree| json!({"name": "c", "resources": resources});
        let limited = |cpu: &str, memory: &str| c(json!({"limits": {"cpu": cpu, "memory": memory}}));
        for (spec, shares, quota_us, bytes) in [
            (json!({"containers": [c(json!({}))]}), 2, 0, 0),
            (json!({"containers": [limited("1", "64Mi"), limited("500m", "64Mi")]}), 1536, 150_000, 128 * mib),
            (
                json!({"containers": [limited("1", "64Mi"), c(json!({"limits": {"memory": "64Mi"}}))]}),
                1024,
                0,
                128 * mib,
            ),
            (
                json!({"containers": [c(json!({})), limited("1", "64Mi")],
                    "resources": {"limits": {"cpu": "2", "memory": "96Mi"}}}),
                2048,
                200_000,
                96 * mib,
            ),
            (json!({"initContainers": [c(json!({}))], "containers": [limited("1", "64Mi")]}), 1024, 0, 0),
        ] {
            let r = of_pod(&json!({"metadata": {"uid": "u"}, "spec": spec.clone()}));
            assert_eq!((r.cpu_shares, r.cpu_quota_us, r.memory_bytes), (shares, quota_us, bytes), "{spec}");
        }
    }

    #[test]
    fn requests_and_limits_become_shares_quotas_bytes_and_scores() {
        let gib = 1 << 30;
        for (resources, shares, quota_us, bytes, score, group) in [
            (json!({}), 2, 0, 0, 1000, "/beemesh/kubepods/besteffort/podu"),
            (json!({"requests": {"cpu": "100m"}}), 102, 0, 0, 999, "/beemesh/kubepods/burstable/podu"),
            (
                json!({"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"cpu": "1500m", "memory": "1Gi"}}),
                1024,
                150_000,
                gib,
                500,
                "/beemesh/kubepods/burstable/podu",
            ),
            (
                json!({"requests": {"cpu": "5m", "memory": "1Gi"}, "limits": {"cpu": "5m", "memory": "1Gi"}}),
                5,
                1_000,
                gib,
                -997,
                "/beemesh/kubepods/podu",
            ),
            (json!({"limits": {"cpu": "2"}}), 2048, 200_000, 0, 999, "/beemesh/kubepods/burstable/podu"),
            (json!({"requests": {"memory": "4Gi"}}), 2, 0, 0, 3, "/beemesh/kubepods/burstable/podu"),
        ] {
            let pod = pod(resources.clone());
            let r = super::resources(&facts(), &pod, List::Main, &pod["spec"]["containers"][0]);
            let want = Resources {
                cpu_shares: shares,
                cpu_quota_us: quota_us,
                cpu_period_us: PERIOD_US,
                memory_bytes: bytes,
                oom_score_adj: score,
            };
            assert_eq!(r, want, "{resources}");
            assert_eq!(cgroup(&facts(), &pod), group, "{resources}");
        }
    }
}
