//! A pod's place among others: spreading, and affinity over domains of several nodes.

use crate::world::{World, cpu};
use decide::schedule::Namespaces;
use node::scheduling::{LeaderInput, WorkerInput};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Nodes 1 and 2 in zone a, 3 in zone b.
fn zones() -> World {
    let mut w = World::new();
    for (n, zone) in [(1, "a"), (2, "a"), (3, "b")] {
        w.add_node(n, "10");
        w.change_node(n, |n| n["metadata"]["labels"]["zone"] = json!(zone));
    }
    w.settle();
    w
}

fn zone(w: &World, pod: &str) -> &'static str {
    match w.host(pod).as_deref() {
        Some("n1" | "n2") => "a",
        Some("n3") => "b",
        _ => "nowhere",
    }
}

fn term(app: &str, key: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}})
}

fn wants(kind: &str, term: &Value) -> Value {
    let mut spec = cpu("1");
    spec["affinity"] = json!({kind: {REQUIRED: [term]}});
    spec
}

#[test]
fn pods_are_spread_over_zones_though_they_come_at_once() {
    let mut w = zones();
    let mut spec = cpu("1");
    spec["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}}]);
    for n in 0..10 {
        w.create_labelled(&format!("p{n}"), "web", spec.clone());
    }
    w.pass(5 * SECOND);
    let of = |w: &World, z: &str| (0..10).filter(|n| zone(w, &format!("p{n}")) == z).count();
    assert_eq!((of(&w, "a"), of(&w, "b")), (5, 5));
    w.change_node(3, |n| n["spec"]["unschedulable"] = json!(true));
    w.create_labelled("one", "web", spec.clone());
    w.pass(SECOND);
    assert_eq!(zone(&w, "one"), "a");
    w.create_labelled("more", "web", spec);
    w.pass(SECOND);
    assert_eq!(
        w.condition("more")["message"],
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't match pod topology spread constraints. preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod."
    );
    assert_eq!(w.reserved(), 0);
}

#[test]
fn pods_that_refuse_each_other_come_into_different_zones_and_no_more_of_them_than_there_are() {
    let mut w = zones();
    for name in ["p", "q", "r"] {
        w.create_labelled(name, "db", wants("podAntiAffinity", &term("db", "zone")));
    }
    w.pass(3 * SECOND);
    let mut at: Vec<&str> = ["p", "q", "r"].map(|p| zone(&w, p)).into();
    at.sort_unstable();
    assert_eq!(at, ["a", "b", "nowhere"]);
    // Whom they refuse is kept away, too, and told why.
    w.create_labelled("plain", "db", cpu("1"));
    w.pass(SECOND);
    assert_eq!(
        w.condition("plain")["message"],
        "0/3 nodes are available: 3 node(s) didn't satisfy existing pods anti-affinity rules. preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."
    );
    let gone = if zone(&w, "p") == "nowhere" { "q" } else { "p" };
    let (uid, host) = (w.uid(gone), w.host(gone).unwrap());
    w.ended(host[1..].parse().unwrap(), uid);
    w.remove(gone);
    w.pass(SECOND);
    assert!(["p", "q", "r"].iter().filter(|p| **p != gone).all(|p| zone(&w, p) != "nowhere"));
}

#[test]
fn a_pod_follows_the_one_it_wants_and_waits_for_it() {
    let mut w = zones();
    w.create_labelled("web", "web", wants("podAffinity", &term("db", "zone")));
    w.pass(SECOND);
    assert_eq!(
        w.condition("web")["message"],
        "0/3 nodes are available: 3 node(s) didn't match pod affinity rules. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    );
    let mut db = cpu("1");
    db["nodeSelector"] = json!({"zone": "b"});
    w.create_labelled("db", "db", db);
    w.pass(11 * SECOND);
    assert_eq!((zone(&w, "db"), zone(&w, "web")), ("b", "b"));
    // The first of a group that wants to be together goes anywhere, the others where it is.
    for n in 0..4 {
        w.create_labelled(&format!("g{n}"), "group", wants("podAffinity", &term("group", "zone")));
    }
    w.pass(3 * SECOND);
    let first = zone(&w, "g0");
    assert!(first != "nowhere" && (1..4).all(|n| zone(&w, &format!("g{n}")) == first));
}

#[test]
fn what_runs_of_other_namespaces_is_known_by_the_nodes() {
    let mut w = zones();
    let labels = BTreeMap::from([("team".to_owned(), "data".to_owned())]);
    let namespaces = Namespaces(Arc::new(BTreeMap::from([("other".to_owned(), labels)])));
    w.lead(LeaderInput::Namespaces(namespaces.clone()));
    for n in 1..=3 {
        w.work(crate::world::node_id(n), WorkerInput::Namespaces(namespaces.clone()));
    }
    let cell = base::CellId(base::Uid::from_chance(99));
    let db = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db", "namespace": "other",
        "uid": base::Uid::from_chance(98).to_string(), "labels": {"app": "db"}}, "spec": {"nodeName": "n3"}});
    w.assign(3, cell, "other", &db);
    // Cordoned, the node takes nothing; it still tells what runs there.
    w.change_node(3, |n| n["spec"]["unschedulable"] = json!(true));
    w.add_node(4, "10");
    w.change_node(4, |n| n["metadata"]["labels"]["zone"] = json!("b"));
    let mut selected = term("db", "zone");
    selected["namespaceSelector"] = json!({"matchLabels": {"team": "data"}});
    w.create_labelled("near", "x", wants("podAffinity", &selected));
    w.create_labelled("far", "x", wants("podAntiAffinity", &selected));
    w.pass(3 * SECOND);
    assert_eq!((w.host("near").as_deref(), zone(&w, "far")), (Some("n4"), "a"));
    assert_eq!(w.reserved(), 0);
}

#[test]
fn a_pod_is_scheduled_when_its_gates_are_lifted() {
    let mut w = World::new();
    w.add_node(1, "4");
    let mut gated = cpu("1");
    gated["schedulingGates"] = json!([{"name": "example.com/a"}, {"name": "example.com/b"}]);
    w.create("p", gated);
    w.patch("p", &json!({"spec": {"schedulingGates": [{"$patch": "delete", "name": "example.com/a"}]}}));
    w.pass(SECOND);
    assert_eq!((w.host("p"), w.condition("p")["reason"].as_str()), (None, Some("SchedulingGated")));
    w.patch("p", &json!({"spec": {"schedulingGates": null}}));
    w.pass(SECOND);
    assert_eq!((w.host("p").as_deref(), w.condition("p")["status"].as_str()), (Some("n1"), Some("True")));
}
