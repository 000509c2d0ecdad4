//! Pods of nodes whose hosting leases lapse.

#![allow(clippy::unwrap_used, clippy::panic)]

mod controlled;

use controlled::{World, deployment};
use decide::controllers::hosting::{Hosting, Hosts};
use node::controllers::Input;
use objects::request::Verb;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The controllers are told that these nodes are silent, or that they have returned.
fn tell(w: &mut World, silent: &[&str], returned: &[&str], lapsed: bool) {
    let known = hosting(w, silent, returned, lapsed);
    w.control(known);
}

fn hosting(w: &World, silent: &[&str], returned: &[&str], lapsed: bool) -> Input {
    let set = |names: &[&str]| names.iter().map(|n| Arc::from(*n)).collect::<BTreeSet<Arc<str>>>();
    let silent = set(silent).into_iter().map(|n| (n, w.now.wall)).collect();
    let hosts = Hosts { silent, unheard: BTreeSet::new(), returned: set(returned) };
    Input::Hosting(Hosting { hosts: Arc::new(hosts), lapsed })
}

/// Binds what is not bound, one pod to each of these nodes in turn; other pods run and are ready as ever.
fn live_on(w: &mut World, nodes: &[&str]) {
    w.settle();
    let unbound: Vec<Value> = w.all("Pod").into_iter().filter(|p| p["spec"]["nodeName"].is_null()).collect();
    for (pod, node) in unbound.iter().zip(nodes.iter().cycle()) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": node}});
        w.bind(name, binding);
    }
    w.live();
}

fn on(w: &mut World, node: &str) -> Vec<String> {
    let all = w.all("Pod");
    let there = all.iter().filter(|p| p["spec"]["nodeName"] == node && p["metadata"]["deletionTimestamp"].is_null());
    there.map(|p| p["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// A Deployment's replicas, ready and available ones, as kubectl shows them.
fn shown(w: &mut World) -> [i64; 3] {
    let d = w.get("Deployment", "web").unwrap();
    ["replicas", "readyReplicas", "availableReplicas"].map(|f| d["status"][f].as_i64().unwrap_or(0))
}

fn three_on_three() -> World {
    let mut w = World::new();
    w.create(deployment(3));
    live_on(&mut w, &["n1", "n2", "n3"]);
    assert_eq!(shown(&mut w), [3, 3, 3]);
    w.pass(Duration::from_secs(10));
    w
}

#[test]
fn a_pod_of_a_lapsed_node_is_replaced_and_when_the_node_returns_one_goes() {
    let mut w = three_on_three();
    let lost = on(&mut w, "n3");
    tell(&mut w, &["n3"], &[], true);
    w.settle();
    assert_eq!((w.names("Pod").len(), on(&mut w, "n3")), (4, lost.clone()), "one more, and none deleted");
    assert_eq!(shown(&mut w), [3, 2, 2]);
    w.live();
    assert_eq!((w.names("Pod").len(), shown(&mut w)), (4, [3, 3, 3]));
    // Long after: the lost one is still not counted, and nobody is made for it again.
    w.pass(Duration::from_secs(100));
    assert_eq!(w.names("Pod").len(), 4);
    tell(&mut w, &[], &["n3"], true);
    w.live();
    assert_eq!((w.names("Pod").len(), shown(&mut w)), (3, [3, 3, 3]));
    assert!(on(&mut w, "n3").is_empty(), "what was made in its place is known to serve");
}

#[test]
fn a_change_of_leaders_costs_no_pod() {
    let mut w = three_on_three();
    tell(&mut w, &["n3"], &[], true);
    w.live();
    let pods = w.names("Pod");
    w.depose();
    let known = hosting(&w, &["n3"], &[], false);
    w.lead_again_knowing([known]);
    w.live();
    assert_eq!((w.names("Pod"), shown(&mut w)), (pods.clone(), [3, 3, 3]));
    tell(&mut w, &["n3"], &[], true);
    w.live();
    assert_eq!((w.names("Pod"), shown(&mut w)), (pods, [3, 3, 3]));
    // Somebody else falls silent just as leaders change: replaced once the lease has lapsed, and not before.
    w.depose();
    let known = hosting(&w, &["n2", "n3"], &[], false);
    w.lead_again_knowing([known]);
    w.settle();
    assert_eq!((w.names("Pod").len(), shown(&mut w)), (4, [3, 2, 2]));
    tell(&mut w, &["n2", "n3"], &[], true);
    w.live();
    assert_eq!((w.names("Pod").len(), shown(&mut w)), (5, [3, 3, 3]));
}

#[test]
fn a_rollout_goes_on_without_a_lapsed_node_and_keeps_its_bounds() {
    let mut w = three_on_three();
    tell(&mut w, &["n3"], &[], true);
    w.edit("Deployment", "web", "", |d| {
        d["spec"]["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
        d["spec"]["template"]["spec"]["containers"][0]["image"] = json!("v2");
    });
    let lost = on(&mut w, "n3");
    for _ in 0..200 {
        if !w.go_on() {
            w.run_pods();
        }
        let all = w.all("Pod");
        let going = |p: &Value| !p["metadata"]["deletionTimestamp"].is_null();
        let heard = all.iter().filter(|p| !going(p) && p["spec"]["nodeName"] != "n3").count();
        assert!(heard <= 4, "{heard} pods where 3 and a surge of 1 are allowed");
    }
    w.live();
    let d = w.get("Deployment", "web").unwrap();
    let progress = d["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Progressing").cloned();
    assert_eq!(progress.unwrap()["reason"], "NewReplicaSetAvailable");
    assert_eq!((&d["status"]["updatedReplicas"], shown(&mut w)), (&json!(3), [3, 3, 3]));
    // Of the old ReplicaSet none is wanted: the lost pod waits for its node to end it.
    assert!(on(&mut w, "n3").is_empty() && lost.len() == 1);
}

#[test]
fn what_is_recreated_or_has_a_claim_of_unknown_modes_waits_for_its_node() {
    let mut recreated = deployment(1);
    recreated["spec"]["strategy"] = json!({"type": "Recreate"});
    let mut writes = deployment(1);
    writes["spec"]["template"]["spec"]["volumes"] =
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    for (d, pods) in [(deployment(1), 2), (recreated, 1), (writes, 1)] {
        let mut w = World::new();
        w.create(d);
        live_on(&mut w, &["n3"]);
        w.pass(Duration::from_secs(10));
        tell(&mut w, &["n3"], &[], true);
        w.live();
        assert_eq!(w.names("Pod").len(), pods);
        assert_eq!(shown(&mut w)[1..], if pods == 2 { [1, 1] } else { [0, 0] });
        // Whoever deletes the pod says that it is over there.
        let lost = on(&mut w, "n3");
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
        w.ask(Verb::Delete, "Pod", &lost[0], "", Some(options)).unwrap();
        w.live();
        assert_eq!((w.names("Pod").len(), shown(&mut w)), (1, [1, 1, 1]));
    }
}

#[test]
fn a_service_leaves_silent_nodes_out_until_they_speak() {
    let mut w = World::new();
    w.create(deployment(2));
    w.create(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "d"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}));
    live_on(&mut w, &["n1", "n3"]);
    let ready = |w: &mut World| {
        let slices = w.all("EndpointSlice");
        let all = slices.iter().flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default());
        let mut nodes: Vec<String> = all
            .filter(|e| e["conditions"]["ready"] == true)
            .map(|e| e["nodeName"].as_str().unwrap().to_owned())
            .collect();
        nodes.sort();
        let subsets = w.get("Endpoints", "web").unwrap()["subsets"].as_array().cloned().unwrap_or_default();
        let listed: usize = subsets.iter().map(|s| s["addresses"].as_array().map_or(0, Vec::len)).sum();
        assert_eq!(listed, nodes.len());
        nodes
    };
    assert_eq!(ready(&mut w), ["n1", "n3"]);
    // Also while a new leader replaces nobody yet.
    tell(&mut w, &["n3"], &[], false);
    w.settle();
    assert_eq!(ready(&mut w), ["n1"]);
    tell(&mut w, &[], &["n3"], false);
    w.settle();
    assert_eq!(ready(&mut w), ["n1", "n3"]);
}
