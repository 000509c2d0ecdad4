//! A ReplicaSet whose nodes fall silent and come back.

#![allow(clippy::unwrap_used)]
use super::super::hosting::Hosts;
use super::*;
use std::collections::BTreeSet;
use std::sync::Arc;

const NOW: Wall = Wall(1_769_846_400_000);

fn set(replicas: i64) -> Tree {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": "d", "uid": "rs", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

/// A pod that has been ready on a node for so many seconds; one without is starting.
fn pod(name: &str, node: &str, ready: Option<u64>) -> Pod {
    let mut p = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "uid": name, "creationTimestamp": (NOW - Duration::from_secs(1000)).rfc3339(), "labels": {"app": "web"}, "ownerReferences": [{"uid": "rs", "controller": true}]},
        "spec": {"nodeName": node}, "status": {"phase": "Running"}});
    if let Some(s) = ready {
        let since = NOW - Duration::from_secs(s);
        p["status"]["conditions"] = json!([{"type": "Ready", "status": "True", "lastTransitionTime": since.rfc3339()}]);
    }
    Pod::of_tree(&p)
}

fn hosting(silent: &[&str], unheard: &[&str], returned: &[&str], lapsed: bool) -> Hosting {
    let of = |names: &[&str]| names.iter().map(|n| Arc::from(*n)).collect::<BTreeSet<Arc<str>>>();
    let silent = of(silent).into_iter().map(|n| (n, NOW)).collect();
    Hosting { hosts: Arc::new(Hosts { silent, unheard: of(unheard), returned: of(returned) }), lapsed }
}

/// What is made, what is removed, and the status' replicas, readyReplicas and availableReplicas.
type Done = (usize, Vec<String>, [i64; 3]);

fn done(want: i64, pods: &[Pod], hosting: &Hosting, may_run_twice: bool) -> Done {
    let pods: Vec<&Pod> = pods.iter().collect();
    let beside = Beside { pods: &pods, related: &pods, hosting, may_run_twice, refused: None };
    let mut done: Done = (0, Vec::new(), [-1; 3]);
    for action in super::plan(&set(want), &beside, NOW).actions {
        match action {
            Action::CreateMany { count, .. } => done.0 += count,
            Action::Delete { target, .. } => done.1.push(target.name),
            Action::UpdateStatus { tree } => {
                done.2 =
                    ["replicas", "readyReplicas", "availableReplicas"].map(|f| tree["status"][f].as_i64().unwrap_or(0));
            }
            other => panic!("{other:?}"),
        }
    }
    done
}

fn three() -> Vec<Pod> {
    vec![pod("a", "n1", Some(900)), pod("b", "n2", Some(900)), pod("c", "n3", Some(900))]
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

#[test]
fn pods_of_a_lapsed_node_are_replaced_at_once_and_not_deleted() {
    let lapsed = hosting(&["n3"], &[], &[], true);
    assert_eq!(done(3, &three(), &Hosting::default(), true), (0, vec![], [3, 3, 3]));
    assert_eq!(done(3, &three(), &lapsed, true), (1, vec![], [2, 2, 2]));
    let mut replaced = three();
    replaced.push(pod("d", "n1", None));
    assert_eq!(done(3, &replaced, &lapsed, true), (0, vec![], [3, 2, 2]), "once");
    replaced[3] = pod("d", "n1", Some(1));
    assert_eq!(done(3, &replaced, &lapsed, true), (0, vec![], [3, 3, 3]));
    // All of them are gone.
    assert_eq!(done(3, &three(), &hosting(&["n1", "n2", "n3"], &[], &[], true), true), (3, vec![], [0, 0, 0]));
    // Bound to none, a pod waits for no node.
    assert_eq!(done(1, &[pod("a", "", None)], &lapsed, true), (0, vec![], [1, 0, 0]));
}

#[test]
fn a_pod_that_somebody_puts_on_a_silent_node_is_not_replaced_without_end() {
    let lapsed = hosting(&["n3"], &[], &[], true);
    let mut pods = three();
    let mut late = pod("d", "n3", None);
    late.meta = Arc::new(objects::record::Meta { created: NOW, ..(*late.meta).clone() });
    pods.push(late);
    assert_eq!(done(3, &pods, &lapsed, true), (0, vec![], [3, 2, 2]));
}

#[test]
fn what_must_not_run_twice_waits_and_serves_nobody() {
    let lapsed = hosting(&["n3"], &[], &[], true);
    assert_eq!(done(3, &three(), &lapsed, false), (0, vec![], [3, 2, 2]));
    // Of too many the one that serves nobody goes first, as in Kubernetes one that is not ready.
    assert_eq!(done(2, &three(), &lapsed, false), (0, names(&["c"]), [3, 2, 2]));
}

#[test]
fn a_new_leader_replaces_nobody_yet_and_removes_nothing_for_a_pod_that_may_be_gone() {
    let young = hosting(&["n3"], &[], &[], false);
    assert_eq!(done(3, &three(), &young, true), (0, vec![], [3, 2, 2]));
    let mut replaced = three();
    replaced.push(pod("d", "n1", Some(1)));
    assert_eq!(done(3, &replaced, &young, true), (0, vec![], [3, 3, 3]), "the leader before it has replaced it");
    let unheard = hosting(&[], &["n3"], &[], false);
    assert_eq!(done(3, &replaced, &unheard, true), (0, vec![], [4, 4, 4]), "whether it is there will show");
    assert_eq!(done(2, &replaced, &unheard, true).1.len(), 1, "of those that are there for sure");
}

#[test]
fn when_the_node_returns_the_surplus_is_removed() {
    let back = hosting(&[], &[], &["n3"], true);
    let mut pods = three();
    // What was made in its place is ready: the node's own may be stale.
    pods.push(pod("d", "n1", Some(1)));
    assert_eq!(done(3, &pods, &back, true), (0, names(&["c"]), [4, 4, 4]));
    // It is not yet: as in Kubernetes it goes, since it serves nobody.
    pods[3] = pod("d", "n1", None);
    assert_eq!(done(3, &pods, &back, true), (0, names(&["d"]), [4, 3, 3]));
    // Without the silence Kubernetes' own ranking holds: the younger on the fuller node.
    pods[3] = pod("d", "n1", Some(1));
    assert_eq!(done(3, &pods, &Hosting::default(), true).1, names(&["d"]));
}

#[test]
fn what_is_scaled_down_meanwhile_loses_nothing_that_lives_but_what_is_too_much() {
    let lapsed = hosting(&["n3"], &[], &[], true);
    assert_eq!(done(2, &three(), &lapsed, true), (0, vec![], [2, 2, 2]));
    assert_eq!(done(1, &three(), &lapsed, true).1.len(), 1);
    // To none: nobody waits for the silent node any more.
    let left = [pod("c", "n3", Some(900))];
    for lapsed in [true, false] {
        assert_eq!(done(0, &left, &hosting(&["n3"], &[], &[], lapsed), true), (0, names(&["c"]), [1, 0, 0]));
    }
}
