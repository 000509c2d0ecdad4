//! ReplicaSet: as many pods of one template as it says.

use super::{Action, Plan, controller_of, count, is_terminating, labels, owner_reference, text};
use crate::pod::{is_finished, is_ready, items};
use crate::schedule::selector_matches;
use base::Wall;
use objects::Tree;
use serde_json::json;
use std::time::Duration;

/// At most this many pods are made or removed by one plan, as kube-controller-manager's burst.
pub const BURST: usize = 500;

/// What a ReplicaSet needs, given all pods of its namespace.
///
/// Pods that match its selector and have no controller are adopted; its own that no longer match are
/// let go; too few are made, too many removed, the least valuable first; the status says what is there.
/// Replacement waits for nothing: a pod that is being deleted no longer counts.
pub fn plan(set: &Tree, pods: &[Tree], now: Wall) -> Plan {
    let mut plan = Plan::default();
    let uid = &set["metadata"]["uid"];
    let selector = &set["spec"]["selector"];
    let mut mine: Vec<&Tree> = Vec::new();
    let mut adopting = 0;
    for pod in pods {
        let matches = selector_matches(selector, &labels(pod));
        match controller_of(pod) {
            Some(owner) if owner["uid"] == *uid => {
                if matches {
                    mine.push(pod);
                } else if !is_terminating(pod) {
                    plan.because(format!("{} no longer matches the selector", text(&pod["metadata"]["name"])));
                    plan.actions.push(Action::Update { tree: without_owner(pod, uid) });
                }
            }
            Some(_) => {}
            None if matches && !is_terminating(pod) && !is_finished(pod) && !is_terminating(set) => {
                plan.because(format!("{} matches and has no controller", text(&pod["metadata"]["name"])));
                plan.actions.push(Action::Update { tree: with_owner(pod, set) });
                adopting += 1;
            }
            None => {}
        }
    }
    let active: Vec<&Tree> = mine.iter().copied().filter(|p| !is_finished(p) && !is_terminating(p)).collect();
    let want = usize::try_from(set["spec"]["replicas"].as_i64().unwrap_or(1)).unwrap_or(0);
    let have = active.len() + adopting;
    if !is_terminating(set) {
        if have < want {
            let missing = (want - have).min(BURST);
            plan.because(format!("{have} of {want} pods: making {missing}"));
            for _ in 0..missing {
                plan.actions.push(Action::Create { tree: new_pod(set) });
            }
        } else if have > want {
            let surplus = (have - want).min(BURST).min(active.len());
            plan.because(format!("{have} of {want} pods: removing {surplus}"));
            for pod in least_valuable(&active, now).into_iter().take(surplus) {
                plan.delete(pod);
                plan.event(
                    set,
                    "Normal",
                    "SuccessfulDelete",
                    format!("Deleted pod: {}", text(&pod["metadata"]["name"])),
                );
            }
        }
    }
    status(set, &active, now, &mut plan);
    plan
}

/// The pod a set makes. Its name is drawn when it is created.
fn new_pod(set: &Tree) -> Tree {
    let template = &set["spec"]["template"];
    let mut metadata = json!({
        "generateName": format!("{}-", text(&set["metadata"]["name"])),
        "namespace": set["metadata"]["namespace"],
        "ownerReferences": [owner_reference(set)],
    });
    for key in ["labels", "annotations", "finalizers"] {
        if !template["metadata"][key].is_null() {
            metadata[key] = template["metadata"][key].clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

fn without_owner(pod: &Tree, uid: &Tree) -> Tree {
    let mut pod = pod.clone();
    if let Some(owners) = pod["metadata"]["ownerReferences"].as_array_mut() {
        owners.retain(|o| o["uid"] != *uid);
    }
    pod
}

fn with_owner(pod: &Tree, set: &Tree) -> Tree {
    let mut pod = pod.clone();
    if !pod["metadata"]["ownerReferences"].is_array() {
        pod["metadata"]["ownerReferences"] = json!([]);
    }
    if let Some(owners) = pod["metadata"]["ownerReferences"].as_array_mut() {
        owners.push(owner_reference(set));
    }
    pod
}

/// Pods in the order in which to remove them: not bound before bound, pending before running, not ready
/// before ready, cheaper to delete first (`controller.kubernetes.io/pod-deletion-cost`), from the node with
/// most of them, younger, more often restarted (client-go's ActivePodsWithRanks).
fn least_valuable<'a>(active: &[&'a Tree], now: Wall) -> Vec<&'a Tree> {
    let on = |p: &Tree| active.iter().filter(|q| q["spec"]["nodeName"] == p["spec"]["nodeName"]).count();
    let mut order: Vec<_> = active
        .iter()
        .map(|p| {
            let bound = !text(&p["spec"]["nodeName"]).is_empty();
            let phase = match text(&p["status"]["phase"]) {
                "Pending" | "" => 0,
                "Unknown" => 1,
                _ => 2,
            };
            let cost: i64 =
                text(&p["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"]).parse().unwrap_or(0);
            // Ages count in doublings, so that pods of about one age are told apart by chance (their
            // uid), not by who was first by a second.
            let age = ready_since(p).map_or(u32::MAX, |t| 64 - now.since(t).as_secs().leading_zeros());
            let restarts: i64 =
                items(&p["status"]["containerStatuses"]).iter().map(|c| count(&c["restartCount"])).max().unwrap_or(0);
            let created = Wall::parse_rfc3339(text(&p["metadata"]["creationTimestamp"])).unwrap_or_default();
            let key = (
                bound,
                phase,
                is_ready(p),
                cost,
                std::cmp::Reverse(on(p)),
                age,
                std::cmp::Reverse(restarts),
                std::cmp::Reverse(created),
                text(&p["metadata"]["uid"]),
            );
            (key, *p)
        })
        .collect();
    order.sort_by(|a, b| a.0.cmp(&b.0));
    order.into_iter().map(|(_, p)| p).collect()
}

/// When a pod became ready, if it is.
pub(crate) fn ready_since(pod: &Tree) -> Option<Wall> {
    let ready = items(&pod["status"]["conditions"]).iter().find(|c| c["type"] == "Ready" && c["status"] == "True")?;
    Wall::parse_rfc3339(text(&ready["lastTransitionTime"]))
}

fn status(set: &Tree, active: &[&Tree], now: Wall, plan: &mut Plan) {
    let min_ready = Duration::from_secs(set["spec"]["minReadySeconds"].as_u64().unwrap_or(0));
    let template: Vec<(String, String)> =
        labels(&json!({"metadata": set["spec"]["template"]["metadata"]})).into_iter().collect();
    let (mut full, mut ready, mut available) = (0, 0, 0);
    for pod in active {
        let l = labels(pod);
        full += i64::from(template.iter().all(|(k, v)| l.get(k) == Some(v)));
        if !is_ready(pod) {
            continue;
        }
        ready += 1;
        let since = ready_since(pod).unwrap_or(now);
        if min_ready.is_zero() || now.since(since) >= min_ready {
            available += 1;
        } else {
            plan.look_again(since + min_ready);
        }
    }
    let mut status = set["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    status["replicas"] = json!(active.len());
    for (field, n) in [("fullyLabeledReplicas", full), ("readyReplicas", ready), ("availableReplicas", available)] {
        put_count(&mut status, field, n);
    }
    status["observedGeneration"] = set["metadata"]["generation"].clone();
    if status != set["status"] {
        let mut tree = set.clone();
        tree["status"] = status;
        plan.actions.push(Action::UpdateStatus { tree });
    }
}

/// Kubernetes leaves counts that are zero out.
pub(crate) fn put_count(status: &mut Tree, field: &str, n: i64) {
    let Some(map) = status.as_object_mut() else { return };
    if n == 0 {
        map.remove(field);
    } else {
        map.insert(field.into(), json!(n));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: Wall = Wall(1_769_846_400_000);

    fn set(replicas: i64) -> Tree {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "web", "namespace": "d", "uid": "rs", "generation": 1},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    }

    fn pod(name: &str, owner: Option<&str>, more: Tree) -> Tree {
        let owners = owner.map(|u| json!([{"uid": u, "controller": true}])).unwrap_or(json!([]));
        let mut p = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "uid": name, "labels": {"app": "web"}, "ownerReferences": owners}, "spec": {}, "status": {}});
        for (k, v) in more.as_object().unwrap() {
            p[k] = v.clone();
        }
        p
    }

    fn ready(at: Wall) -> Tree {
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at.rfc3339()}]}, "spec": {"nodeName": "n"}})
    }

    fn made(p: &Plan) -> usize {
        p.actions.iter().filter(|a| matches!(a, Action::Create { .. })).count()
    }

    fn removed(p: &Plan) -> Vec<&str> {
        p.actions
            .iter()
            .filter_map(|a| match a {
                Action::Delete { name, .. } => Some(name.as_str()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn missing_pods_are_made_from_the_template_and_owned() {
        let p = plan(&set(3), &[pod("a", Some("rs"), json!({}))], NOW);
        assert_eq!(made(&p), 2);
        let Some(Action::Create { tree }) = p.actions.iter().find(|a| matches!(a, Action::Create { .. })) else {
            panic!()
        };
        assert_eq!(tree["metadata"]["generateName"], "web-");
        assert_eq!(tree["metadata"]["ownerReferences"][0]["uid"], "rs");
        assert_eq!(tree["metadata"]["labels"]["app"], "web");
    }

    #[test]
    fn a_pod_that_is_finished_or_going_does_not_count() {
        let pods =
            [pod("done", Some("rs"), json!({"status": {"phase": "Failed"}})), pod("other", Some("else"), json!({})), {
                let mut p = pod("going", Some("rs"), json!({}));
                p["metadata"]["deletionTimestamp"] = json!("x");
                p
            }];
        assert_eq!(made(&plan(&set(1), &pods, NOW)), 1);
    }

    #[test]
    fn orphans_that_match_are_adopted_and_strays_are_let_go() {
        let mut stray = pod("stray", Some("rs"), json!({}));
        stray["metadata"]["labels"]["app"] = json!("debug");
        let p = plan(&set(1), &[pod("orphan", None, json!({})), stray], NOW);
        let updates: Vec<_> = p
            .actions
            .iter()
            .filter_map(|a| match a {
                Action::Update { tree } => Some(tree),
                _ => None,
            })
            .collect();
        assert_eq!(updates[0]["metadata"]["ownerReferences"][0]["uid"], "rs");
        assert_eq!(updates[1]["metadata"]["ownerReferences"], json!([]));
        assert_eq!((made(&p), removed(&p).len()), (0, 0));
    }

    #[test]
    fn the_least_valuable_pods_go_first() {
        let mut cheap = pod("cheap", Some("rs"), ready(NOW - Duration::from_secs(100_000)));
        cheap["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": "-5"});
        let pods = [
            pod("old", Some("rs"), ready(NOW - Duration::from_secs(100_000))),
            pod("young", Some("rs"), ready(NOW - Duration::from_secs(10))),
            cheap,
            pod("unbound", Some("rs"), json!({})),
            pod("starting", Some("rs"), json!({"spec": {"nodeName": "n"}, "status": {"phase": "Pending"}})),
        ];
        assert_eq!(removed(&plan(&set(1), &pods, NOW)), ["unbound", "starting", "cheap", "young"]);
    }

    #[test]
    fn a_pod_is_available_once_it_was_ready_long_enough_and_the_plan_looks_again_then() {
        let mut s = set(1);
        s["spec"]["minReadySeconds"] = json!(30);
        let p = plan(&s, &[pod("a", Some("rs"), ready(NOW - Duration::from_secs(10)))], NOW);
        let Some(Action::UpdateStatus { tree }) = p.actions.last() else { panic!() };
        assert_eq!((&tree["status"]["readyReplicas"], &tree["status"]["availableReplicas"]), (&json!(1), &Tree::Null));
        assert_eq!(p.again, Some(NOW + Duration::from_secs(20)));
    }

    #[test]
    fn what_is_as_it_should_be_needs_nothing() {
        let mut s = set(1);
        let pods = [pod("a", Some("rs"), ready(NOW))];
        let p = plan(&s, &pods, NOW);
        let Some(Action::UpdateStatus { tree }) = p.actions.last() else { panic!() };
        s["status"] = tree["status"].clone();
        assert_eq!(plan(&s, &pods, NOW), Plan::default());
    }
}
