//! ReplicaSet: as many pods of one template as it says.

use super::hosting::Hosting;
use super::{Act, Plan, Pod, Refused, adopt, is_terminating, release, text};
use super::{Action, owner_reference};
use base::Wall;
use objects::Tree;
use objects::select::LabelSelector;
use serde_json::json;
use std::time::Duration;

/// At most this many pods are made or removed by one plan, as kube-controller-manager's burst.
pub const BURST: usize = 500;

/// What there is beside a ReplicaSet.
pub struct Beside<'a> {
    /// The pods it controls and those that nobody does.
    pub pods: &'a [&'a Pod],
    /// The active pods of all ReplicaSets of its owner.
    pub related: &'a [&'a Pod],
    /// What is known of the nodes they run on.
    pub hosting: &'a Hosting,
    /// Its pods may run twice for a while ([`super::hosting::may_run_twice`]).
    pub may_run_twice: bool,
    /// The last write in its name, if it was refused.
    pub refused: Option<&'a Refused>,
}

/// The pods that are to be counted.
struct Counted<'a> {
    /// Those that count as there, wherever they run. That of a silent node counts until its lease lapses, as far as pods
    /// would be missing without it; if it must not run twice, until it is deleted.
    there: Vec<&'a Pod>,
    /// Those of them that could be too many: there is no doubt that they are there, or they count in any case.
    sure: Vec<&'a Pod>,
    /// Those that are left to their node, which is silent.
    left: Vec<&'a Pod>,
}

/// What a ReplicaSet needs.
///
/// Pods that match its selector and have no controller are adopted; its own that no longer match are
/// let go; too few are made, too many removed, the least valuable first; the status says what is there.
/// Replacement waits for nothing: a pod that is being deleted no longer counts, nor one whose node's hosting lease has
/// lapsed, if it may run twice. Such a pod is not deleted: if its node is back before anybody else deletes it, what is then
/// too much is removed as ever. After a refusal only the status is written, which tells of it.
pub fn plan(set: &Tree, beside: &Beside<'_>, now: Wall) -> Plan {
    let mut plan = Plan::default();
    let uid = text(&set["metadata"]["uid"]);
    let selector = LabelSelector::from_tree(&set["spec"]["selector"]).unwrap_or_default();
    let going = is_terminating(set);
    let mut mine: Vec<&Pod> = Vec::new();
    let mut adopting = 0;
    for pod in beside.pods.iter().copied() {
        let matches = pod.is_selected(&selector);
        match pod.controller() {
            Some(owner) if owner == uid => {
                if matches {
                    mine.push(pod);
                } else if !pod.is_terminating() && !going {
                    plan.because(format!("{} no longer matches the selector", pod.name));
                    plan.actions.push(release(pod.target(), [uid]));
                }
            }
            Some(_) => {}
            None if matches && pod.is_active() && !going => {
                plan.because(format!("{} matches and has no controller", pod.name));
                plan.actions.push(adopt(pod.target(), set));
                adopting += usize::from(!(beside.may_run_twice && beside.hosting.is_lost(pod)));
            }
            None => {}
        }
    }
    let active: Vec<&Pod> = mine.iter().copied().filter(|p| p.is_active()).collect();
    let counted = Counted::of(&active, adopting, wanted(set), beside);
    if !going && beside.refused.is_none() {
        manage(set, &counted, adopting, beside, now, &mut plan);
    }
    let leaving = mine.iter().filter(|p| p.is_terminating() && !p.is_finished()).count();
    status(set, &counted.there, leaving, beside, now, &mut plan);
    plan
}

fn wanted(set: &Tree) -> usize {
    usize::try_from(set["spec"]["replicas"].as_i64().unwrap_or(1)).unwrap_or(0)
}

impl<'a> Counted<'a> {
    fn of(active: &[&'a Pod], adopting: usize, want: usize, beside: &Beside<'_>) -> Counted<'a> {
        let hosting = beside.hosting;
        // Where none is wanted nobody waits for a node to come back.
        if !beside.may_run_twice || want == 0 {
            return Counted { there: active.to_vec(), sure: active.to_vec(), left: Vec::new() };
        }
        let (mut left, mut there): (Vec<&Pod>, Vec<&Pod>) = active.iter().partition(|p| hosting.is_lost(p));
        let sure = there.iter().copied().filter(|p| !hosting.is_doubtful(p)).collect();
        if !hosting.lapsed {
            let short = want.saturating_sub(there.len() + adopting).min(left.len());
            there.extend(left.drain(..short));
        }
        Counted { there, sure, left }
    }
}

/// Makes what is missing, removes what is too much.
fn manage(set: &Tree, counted: &Counted<'_>, adopting: usize, beside: &Beside<'_>, now: Wall, plan: &mut Plan) {
    let want = wanted(set);
    let have = counted.there.len() + adopting;
    let sure = counted.sure.len() + adopting;
    if have < want {
        let missing = (want - have).min(BURST);
        let without = match counted.left.len() {
            0 => String::new(),
            n => format!(", without {n} on nodes whose hosting leases have lapsed"),
        };
        plan.because(format!("{have} of {want} pods{without}: making {missing}"));
        plan.teller = Some(set.clone());
        plan.actions.push(Action::CreateMany { tree: new_pod(set), count: missing });
    } else if sure > want {
        let surplus = (sure - want).min(BURST).min(counted.sure.len());
        plan.because(format!("{sure} of {want} pods: removing {surplus}"));
        plan.teller = Some(set.clone());
        for pod in least_valuable(&counted.sure, beside, now).into_iter().take(surplus) {
            plan.delete(pod.target());
        }
    }
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

/// Pods in the order in which to remove them: not bound before bound, pending before running, not ready
/// before ready, cheaper to delete first (`controller.kubernetes.io/pod-deletion-cost`), from the node with
/// most of the related ones, shorter ready, more often restarted, younger (client-go's
/// ActivePodsWithRanks, KEP-2185 and KEP-2255).
///
/// One thing is ours: of pods that are as ready and as dear, those go first whose nodes have been silent a short while ago.
/// What was made in their place is known to be ready; what they say of themselves may be from before a power cut.
fn least_valuable<'a>(active: &[&'a Pod], beside: &Beside<'_>, now: Wall) -> Vec<&'a Pod> {
    let mut crowd: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for p in beside.related {
        *crowd.entry(&p.node).or_default() += 1;
    }
    // Ages count in doublings, so that pods of about one age are told apart by chance (their uid), not
    // by who was first by a second.
    let doublings = |since: Wall| 64 - now.since(since).as_secs().leading_zeros();
    let key = |p: &&'a Pod| {
        (
            !p.node.is_empty(),
            p.phase,
            p.is_ready() && !beside.hosting.is_silent(p),
            p.deletion_cost,
            !beside.hosting.has_returned(p),
            std::cmp::Reverse(crowd.get(&*p.node).copied().unwrap_or(0)),
            p.ready_since.map(doublings),
            std::cmp::Reverse(p.restarts),
            doublings(p.meta.created),
            p.uid.clone(),
        )
    };
    let mut order = active.to_vec();
    order.sort_by_cached_key(key);
    order
}

fn status(set: &Tree, there: &[&Pod], leaving: usize, beside: &Beside<'_>, now: Wall, plan: &mut Plan) {
    let min_ready = Duration::from_secs(set["spec"]["minReadySeconds"].as_u64().unwrap_or(0));
    let template = LabelSelector::from_tree(&json!({"matchLabels": set["spec"]["template"]["metadata"]["labels"]}))
        .unwrap_or_default();
    let (mut full, mut ready, mut available) = (0, 0, 0);
    for pod in there {
        full += i64::from(pod.is_selected(&template));
        let Some(since) = pod.ready_since.filter(|_| !beside.hosting.is_silent(pod)) else { continue };
        ready += 1;
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
    status["replicas"] = json!(there.len());
    status["terminatingReplicas"] = json!(leaving);
    for (field, n) in [("fullyLabeledReplicas", full), ("readyReplicas", ready), ("availableReplicas", available)] {
        put_count(&mut status, field, n);
    }
    failure(&mut status, beside.refused, now);
    status["observedGeneration"] = set["metadata"]["generation"].clone();
    if status != set["status"] {
        let mut tree = set.clone();
        tree["status"] = status;
        plan.actions.push(Action::UpdateStatus { tree });
    }
}

/// The condition ReplicaFailure: there while pods cannot be made or removed.
fn failure(status: &mut Tree, refused: Option<&Refused>, now: Wall) {
    let is = |c: &Tree| c["type"] == "ReplicaFailure";
    let had = crate::pod::items(&status["conditions"]).iter().any(is);
    match refused {
        Some(r) if !had => {
            let reason = match r.act {
                Act::Create => "FailedCreate",
                Act::Delete => "FailedDelete",
                Act::Change => return,
            };
            let condition = json!({"type": "ReplicaFailure", "status": "True", "reason": reason,
                "message": r.message, "lastTransitionTime": now.rfc3339()});
            match status["conditions"].as_array_mut() {
                Some(all) => all.push(condition),
                None => status["conditions"] = json!([condition]),
            }
        }
        None if had => {
            if let Some(all) = status["conditions"].as_array_mut() {
                all.retain(|c| !is(c));
            }
            if crate::pod::items(&status["conditions"]).is_empty()
                && let Some(map) = status.as_object_mut()
            {
                map.remove("conditions");
            }
        }
        _ => {}
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
#[path = "replicaset_hosting_tests.rs"]
mod hosting_tests;

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

    /// The plan for a set beside these pods, which alone are related.
    fn plan(set: &Tree, pods: &[Tree], now: Wall) -> Plan {
        let pods: Vec<Pod> = pods.iter().map(Pod::of_tree).collect();
        let related: Vec<&Pod> = pods.iter().filter(|p| p.is_active()).collect();
        let pods: Vec<&Pod> = pods.iter().collect();
        let hosting = Hosting::default();
        let beside = Beside { pods: &pods, related: &related, hosting: &hosting, may_run_twice: true, refused: None };
        super::plan(set, &beside, now)
    }

    fn ready(at: Wall) -> Tree {
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at.rfc3339()}]}, "spec": {"nodeName": "n"}})
    }

    fn made(p: &Plan) -> usize {
        p.actions.iter().map(|a| if let Action::CreateMany { count, .. } = a { *count } else { 0 }).sum()
    }

    fn removed(p: &Plan) -> Vec<&str> {
        p.actions
            .iter()
            .filter_map(|a| match a {
                Action::Delete { target, .. } => Some(target.name.as_str()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn missing_pods_are_made_from_the_template_and_owned() {
        let p = plan(&set(3), &[pod("a", Some("rs"), json!({}))], NOW);
        assert_eq!(made(&p), 2);
        let [Action::CreateMany { tree, .. }, ..] = p.actions.as_slice() else { panic!() };
        assert_eq!(tree["metadata"]["generateName"], "web-");
        assert_eq!(tree["metadata"]["ownerReferences"][0]["uid"], "rs");
        assert_eq!(tree["metadata"]["labels"]["app"], "web");
    }

    #[test]
    fn a_pod_that_is_finished_or_going_does_not_count() {
        let pods =
            [pod("done", Some("rs"), json!({"status": {"phase": "Failed"}})), pod("other", Some("else"), json!({})), {
                let mut p = pod("going", Some("rs"), json!({}));
                p["metadata"]["deletionTimestamp"] = json!(NOW.rfc3339());
                p
            }];
        assert_eq!(made(&plan(&set(1), &pods, NOW)), 1);
    }

    #[test]
    fn orphans_that_match_are_adopted_and_strays_are_let_go() {
        let mut stray = pod("stray", Some("rs"), json!({}));
        stray["metadata"]["labels"]["app"] = json!("debug");
        let p = plan(&set(1), &[pod("orphan", None, json!({})), stray], NOW);
        let patches: Vec<_> = p
            .actions
            .iter()
            .filter_map(|a| match a {
                Action::Patch { target, patch, .. } => Some((target.name.as_str(), patch)),
                _ => None,
            })
            .collect();
        assert_eq!((patches[0].0, &patches[0].1["metadata"]["ownerReferences"][0]["uid"]), ("orphan", &json!("rs")));
        assert_eq!(
            (patches[1].0, &patches[1].1["metadata"]["ownerReferences"]),
            ("stray", &json!([{"$patch": "delete", "uid": "rs"}]))
        );
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
    fn a_refusal_is_a_condition_until_what_was_refused_is_done() {
        let refused = Refused { act: Act::Create, message: "exceeded quota".into(), taken: false };
        let hosting = Hosting::default();
        let beside =
            Beside { pods: &[], related: &[], hosting: &hosting, may_run_twice: true, refused: Some(&refused) };
        let told = super::plan(&set(1), &beside, NOW);
        let [Action::UpdateStatus { tree }] = told.actions.as_slice() else { panic!("nothing else is tried") };
        let c = &tree["status"]["conditions"][0];
        assert_eq!((&c["reason"], &c["message"]), (&json!("FailedCreate"), &json!("exceeded quota")));
        let mended = plan(tree, &[pod("a", Some("rs"), json!({}))], NOW);
        let Some(Action::UpdateStatus { tree }) = mended.actions.last() else { panic!() };
        assert_eq!(tree["status"]["conditions"], Tree::Null);
    }

    #[test]
    fn of_equal_pods_the_one_on_the_fullest_node_goes_first() {
        let on = |name: &str, node: &str| {
            let mut p = ready(NOW - Duration::from_secs(100));
            p["spec"]["nodeName"] = json!(node);
            pod(name, Some("rs"), p)
        };
        assert_eq!(removed(&plan(&set(2), &[on("a", "n1"), on("b", "n2"), on("c", "n2")], NOW)), ["b"]);
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
