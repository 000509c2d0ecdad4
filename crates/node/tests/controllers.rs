//! Controllers of a cell, as scripts: what becomes of objects that people make, change and delete, and
//! what does not happen when answers are late or leaders change.

#![allow(clippy::unwrap_used, clippy::panic)]

mod controlled;

use base::Chance;
use controlled::{Root, World, by_admin, deployment};
use node::errand::{Errand, ErrandId};
use objects::request::{Body, PatchType, Verb};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

fn phase(w: &mut World, condition: &str) -> String {
    let d = w.get("Deployment", "web").unwrap();
    let all = d["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let c = all.into_iter().find(|c| c["type"] == condition).unwrap_or(Value::Null);
    format!("{} {}", c["status"].as_str().unwrap_or("-"), c["reason"].as_str().unwrap_or("-"))
}

fn images(w: &mut World) -> Vec<String> {
    let image = |p: &Value| p["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
    w.all("Pod").iter().map(image).collect()
}

#[test]
fn a_deployment_becomes_pods_and_says_so() {
    let mut w = World::new();
    w.create(deployment(3));
    w.live();
    assert_eq!(images(&mut w), ["v1"; 3]);
    let d = w.get("Deployment", "web").unwrap();
    assert_eq!((&d["status"]["availableReplicas"], &d["status"]["observedGeneration"]), (&json!(3), &json!(1)));
    assert_eq!(phase(&mut w, "Progressing"), "True NewReplicaSetAvailable");
    let events = w.all("Event");
    let said = |reason: &str| events.iter().filter(|e| e["reason"] == reason).count();
    assert_eq!((said("ScalingReplicaSet"), said("SuccessfulCreate")), (1, 3));
    assert!(events.iter().all(|e| e["involvedObject"]["namespace"] == "d" && e["count"] == 1));
}

#[test]
fn a_change_of_the_template_rolls_and_its_undoing_rolls_back() {
    let mut w = World::new();
    w.create(deployment(4));
    w.live();
    let image = |image: &'static str| {
        move |d: &mut Value| d["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image)
    };
    w.edit("Deployment", "web", "", image("v2"));
    w.live();
    assert_eq!(images(&mut w), ["v2"; 4]);
    w.edit("Deployment", "web", "", image("v1"));
    w.live();
    assert_eq!(images(&mut w), ["v1"; 4]);
    let sets = w.all("ReplicaSet");
    assert_eq!(sets.len(), 2, "the old template's set is found again");
    assert_eq!(
        w.get("Deployment", "web").unwrap()["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "3"
    );
}

#[test]
fn a_deleted_pod_is_replaced_and_a_relabelled_one_let_go() {
    let mut w = World::new();
    w.create(deployment(2));
    w.live();
    let [first, second] = <[String; 2]>::try_from(w.names("Pod")).unwrap();
    w.ask(Verb::Delete, "Pod", &first, "", None).unwrap();
    w.live();
    assert!(!w.names("Pod").contains(&first));
    assert_eq!(w.names("Pod").len(), 2);
    w.edit("Pod", &second, "", |p| p["metadata"]["labels"] = json!({"app": "debug"}));
    w.live();
    assert_eq!(w.names("Pod").len(), 3);
    assert_eq!(w.get("Pod", &second).unwrap()["metadata"]["ownerReferences"], Value::Null);
}

#[test]
fn a_pod_that_matches_and_is_nobodys_is_adopted() {
    let mut w = World::new();
    let template = deployment(1)["spec"]["template"].clone();
    w.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alone", "namespace": "d", "labels": {"app": "web"}}, "spec": template["spec"]}));
    w.create(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "namespace": "d"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}}));
    w.live();
    assert_eq!(w.names("Pod").len(), 2);
    assert_eq!(w.get("Pod", "alone").unwrap()["metadata"]["ownerReferences"][0]["name"], "web");
}

#[test]
fn what_is_owned_goes_with_its_owner_as_the_delete_says() {
    for (propagation, left) in [("Background", 0), ("Foreground", 0), ("Orphan", 2)] {
        let mut w = World::new();
        w.create(deployment(2));
        w.live();
        w.delete("Deployment", "web", propagation);
        if propagation == "Foreground" {
            w.settle();
            assert!(w.get("Deployment", "web").is_some(), "it waits for its pods");
        }
        w.live();
        assert!(w.get("Deployment", "web").is_none(), "{propagation}");
        assert_eq!((w.names("ReplicaSet").len(), w.names("Pod").len()), (left / 2, left), "{propagation}");
        if left > 0 {
            assert_eq!(w.all("ReplicaSet")[0]["metadata"]["ownerReferences"], Value::Null);
        }
    }
}

#[test]
fn an_object_made_after_its_owner_went_is_collected_and_one_with_an_owner_left_is_not() {
    let mut w = World::new();
    let owner =
        w.create(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner", "namespace": "d"}}));
    let reference =
        |name: &str, uid: &Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid});
    let living = reference("owner", &owner["metadata"]["uid"]);
    let gone = reference("gone", &json!("00000000-0000-4000-8000-000000000001"));
    let made_again = reference("owner", &json!("00000000-0000-4000-8000-000000000002"));
    for (name, owners) in [
        ("kept", json!([living])),
        ("both", json!([living, gone])),
        ("late", json!([gone])),
        ("stale", json!([made_again])),
        ("strange", json!([{"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": "x"}])),
    ] {
        w.create(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "d", "ownerReferences": owners}}));
    }
    w.settle();
    assert_eq!(w.names("ConfigMap"), ["both", "kept", "kube-root-ca.crt", "owner", "strange"]);
    assert_eq!(w.get("ConfigMap", "both").unwrap()["metadata"]["ownerReferences"], json!([living]));
}

#[test]
fn an_owner_of_another_cell_is_looked_for_there_before_anything_is_deleted() {
    use objects::kinds::by_kind;
    use objects::status::Status;
    let mut w = World::new();
    w.elsewhere = Box::new(|_, errand| match errand.name.as_deref() {
        Some("there") => Ok(json!({"metadata": {"uid": "uid of there"}})),
        Some("gone") => Err(Box::new(Status::not_found(by_kind("", "v1", "Node").unwrap(), "gone"))),
        _ => Err(Box::new(Status::unavailable("nobody leads"))),
    });
    for name in ["there", "gone", "silent"] {
        w.create(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "d",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": format!("uid of {name}")}]}}));
    }
    w.settle();
    assert_eq!(w.names("ConfigMap"), ["kube-root-ca.crt", "silent", "there"]);
    w.pass(Duration::from_secs(60));
    let looks = w.log.iter().filter(|l| *l == "get nodes silent").count();
    assert!((5..20).contains(&looks), "it is asked again, less and less often: {looks}");
    assert_eq!(w.names("ConfigMap"), ["kube-root-ca.crt", "silent", "there"]);
}

/// A Node that is not there.
fn not_found(name: &str) -> Box<objects::status::Status> {
    Box::new(objects::status::Status::not_found(objects::kinds::by_kind("", "v1", "Node").unwrap(), name))
}

#[test]
fn a_reference_with_a_wrong_name_says_nothing_of_whom_its_uid_belongs_to() {
    let mut w = World::new();
    w.elsewhere = Box::new(|_, errand| match errand.name.as_deref() {
        Some("there") => Ok(json!({"metadata": {"uid": "uid of there"}})),
        other => Err(not_found(other.unwrap())),
    });
    // The wrong one is looked at first.
    for (name, owner) in [("wrong", "bogus"), ("right", "there")] {
        w.create(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "d",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": owner, "uid": "uid of there"}]}}));
        w.settle();
    }
    assert_eq!(w.names("ConfigMap"), ["kube-root-ca.crt", "right"]);
}

#[test]
fn owners_without_number_are_looked_for_a_few_at_a_time() {
    let mut w = World::new();
    w.elsewhere = Box::new(|_, errand| match (errand.verb, errand.name.as_deref()) {
        (Verb::Get, Some(name)) => Err(not_found(name)),
        _ => Ok(json!({"metadata": {}})),
    });
    let owners: Vec<Value> = (0..4200)
        .map(|i| json!({"apiVersion": "v1", "kind": "Node", "name": format!("n{i}"), "uid": format!("u{i}")}))
        .collect();
    w.create(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "swarm", "namespace": "d", "ownerReferences": owners}}));
    let looks = |w: &World| w.log.iter().filter(|l| l.starts_with("get nodes")).count();
    w.settle();
    assert!((1..=16).contains(&looks(&w)), "{}", looks(&w));
    w.pass(Duration::from_secs(10));
    assert!((17..500).contains(&looks(&w)), "it is looked on, less and less often: {}", looks(&w));
    // A handful is found out about, and the object goes.
    w.create(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "few", "namespace": "d", "ownerReferences": owners[..40]}}));
    w.pass(Duration::from_secs(1));
    assert_eq!(w.names("ConfigMap"), ["kube-root-ca.crt", "swarm"]);
}

#[test]
fn a_pod_is_not_adopted_by_a_set_that_has_just_gone() {
    let mut w = World::new();
    let template = deployment(1)["spec"]["template"].clone();
    w.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alone", "namespace": "d", "labels": {"app": "web"}}, "spec": template["spec"]}));
    w.create(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "namespace": "d"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template}}));
    let adopts = |w: &World| w.errands.iter().any(|(_, e)| e.verb == Verb::Patch && e.kind.kind == "Pod");
    for _ in 0..1000 {
        w.sync();
        w.hear();
        if adopts(&w) {
            break;
        }
        w.carry();
        w.sync();
        w.hear();
        w.answer();
        w.control(node::controllers::Input::Tick);
    }
    assert!(adopts(&w), "{:?}", w.log);
    w.delete("ReplicaSet", "web", "Background");
    w.settle();
    assert_eq!(w.names("ReplicaSet"), [""; 0]);
    assert_eq!(w.get("Pod", "alone").unwrap()["metadata"]["ownerReferences"], Value::Null);
}

#[test]
fn a_set_of_many_pods_leaves_room_for_the_others() {
    let mut w = World::new();
    let set = |name: &str, replicas: u64| {
        let mut template = deployment(1)["spec"]["template"].clone();
        template["metadata"]["labels"] = json!({"app": name});
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name, "namespace": "d"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}})
    };
    let turn = |w: &mut World| {
        w.sync();
        w.hear();
        w.carry();
        w.sync();
        w.hear();
        w.answer();
        w.control(node::controllers::Input::Tick);
    };
    let pods = |w: &mut World, of: &str| w.names("Pod").iter().filter(|n| n.starts_with(of)).count();
    w.create(set("a-large", 500));
    // Of the burst of 128 half is under way, and half waits for room.
    while pods(&mut w, "a-large") < 127 || w.controllers.flying() < 64 {
        turn(&mut w);
    }
    w.create(set("b-small", 1));
    while pods(&mut w, "b-small") == 0 {
        turn(&mut w);
    }
    let ahead = pods(&mut w, "a-large");
    assert!(ahead < 220, "{ahead} pods of the large one were made first");
}

#[test]
fn nothing_is_made_twice_when_answers_come_before_commits_or_long_after() {
    let mut w = World::new();
    w.create(deployment(3));
    // Commits are told at once, answers only when nothing else can happen.
    w.live();
    assert_eq!(w.names("Pod").len(), 3);
    // Answers first: the controllers hear of the commit only after everything they asked was answered.
    w.edit("Deployment", "web", "", |d| d["spec"]["replicas"] = json!(6));
    w.settle();
    assert_eq!(w.names("Pod").len(), 6);
    w.edit("Deployment", "web", "", |d| d["spec"]["replicas"] = json!(9));
    for _ in 0..200 {
        w.hear();
        while !w.errands.is_empty() {
            w.carry();
        }
        w.sync();
        while !w.answers.is_empty() {
            w.answer();
        }
        w.control(node::controllers::Input::Tick);
    }
    w.settle();
    assert_eq!(w.names("Pod").len(), 9);
    assert_eq!(w.log.iter().filter(|l| *l == "create pods").count(), 9);
}

#[test]
fn a_key_that_changed_meanwhile_is_not_planned_for_before_its_own_creation_is_seen() {
    let mut w = World::new();
    w.create(deployment(1));
    w.live();
    w.edit("Deployment", "web", "", |d| d["spec"]["replicas"] = json!(2));
    let creating = |w: &World| w.errands.iter().any(|(_, e)| e.kind.kind == "Pod" && e.verb == Verb::Create);
    while !creating(&w) {
        w.sync();
        w.hear();
        match creating(&w) {
            true => break,
            false if w.errands.is_empty() => w.answer(),
            false => w.carry(),
        }
    }
    // While it is made the ReplicaSet has another reason to be looked at.
    let pod = w.names("Pod")[0].clone();
    w.edit("Pod", &pod, "", |p| p["metadata"]["annotations"] = json!({"x": "y"}));
    w.hear();
    // Everything is carried out and answered, and nothing that is committed is told.
    while !w.errands.is_empty() || !w.answers.is_empty() {
        w.carry();
        w.sync();
        w.answer();
        w.control(node::controllers::Input::Tick);
    }
    w.live();
    assert_eq!(w.names("Pod").len(), 2);
    assert_eq!(w.log.iter().filter(|l| *l == "create pods").count(), 2);
}

#[test]
fn entries_that_are_applied_together_and_told_one_by_one_make_nothing_twice() {
    let mut w = World::new();
    let mut set = deployment(3);
    set["kind"] = "ReplicaSet".into();
    w.create(set);
    let creates = |w: &World| w.errands.iter().filter(|(_, e)| e.verb == Verb::Create && e.kind.kind == "Pod").count();
    while creates(&w) < 2 {
        assert!(w.go_on(), "two pods are never made side by side");
    }
    // Between the second pod and the third somebody wants four.
    let namespace = w.errands[0].1.namespace.clone();
    let bytes = json!({"spec": {"replicas": 4}}).to_string().into_bytes().into();
    let body = Body::Patch { kind: PatchType::Merge, bytes };
    let scale = Errand { namespace, body, ..by_admin(Verb::Patch, "ReplicaSet", "web", None) };
    w.errands.insert(1, (ErrandId(9999), scale));
    while !w.errands.is_empty() {
        w.carry();
    }
    w.sync_together();
    // The run ends: its status is not written, as the set has changed.
    while !w.answers.is_empty() || !w.errands.is_empty() {
        w.answer();
        w.carry();
        w.sync();
    }
    w.settle();
    assert_eq!(w.log.iter().filter(|l| *l == "create pods").count(), 4, "{:?}", w.log);
}

#[test]
fn a_leader_that_was_lost_in_the_middle_leaves_nothing_half_done() {
    for stop in 0..12 {
        let mut w = World::new();
        w.create(deployment(5));
        // So many errands are carried out and told; then the node dies.
        for _ in 0..stop {
            w.hear();
            w.carry();
            w.sync();
            w.answer();
        }
        let mut w = w.restart();
        w.live();
        assert_eq!((w.names("ReplicaSet").len(), w.names("Pod").len()), (1, 5), "stopped after {stop}");
    }
}

#[test]
fn who_leads_again_waits_for_what_it_asked_for_before_and_makes_nothing_twice() {
    for stop in 0..12 {
        let mut w = World::new();
        w.create(deployment(5));
        for _ in 0..stop {
            w.sync();
            w.hear();
            w.carry();
            w.sync();
            w.answer();
        }
        w.depose();
        assert_eq!(w.controllers.next_deadline(), None);
        let under_way = w.errands.len();
        w.control(node::controllers::Input::Tick);
        assert_eq!(w.errands.len(), under_way, "who does not lead wants nothing");
        w.lead_again();
        w.live();
        assert_eq!((w.names("ReplicaSet").len(), w.names("Pod").len()), (1, 5), "deposed after {stop}");
        assert_eq!(w.log.iter().filter(|l| *l == "create pods").count(), 5, "deposed after {stop}");
    }
}

#[test]
fn pods_that_a_quota_forbids_are_told_and_tried_again_less_and_less_often() {
    let mut w = World::new();
    w.create(json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "d"}, "spec": {"hard": {"pods": "1"}}}));
    w.create(deployment(3));
    w.live();
    w.pass(Duration::from_secs(60));
    assert_eq!(w.names("Pod").len(), 1);
    let set = &w.all("ReplicaSet")[0];
    let failure = set["status"]["conditions"][0].clone();
    assert_eq!((&failure["type"], &failure["reason"]), (&json!("ReplicaFailure"), &json!("FailedCreate")));
    assert!(failure["message"].as_str().unwrap().contains("exceeded quota: q"), "{failure}");
    assert_eq!(phase(&mut w, "ReplicaFailure"), "True FailedCreate");
    let events = w.all("Event");
    let told: Vec<_> = events.iter().filter(|e| e["reason"] == "FailedCreate").collect();
    assert!(told.iter().all(|e| e["message"].as_str().unwrap().contains("Error creating: pods \"web-")));
    assert!(w.log.iter().filter(|l| *l == "create pods").count() < 30);
    w.ask(Verb::Delete, "ResourceQuota", "q", "", None).unwrap();
    w.pass(Duration::from_secs(200));
    w.live();
    assert_eq!(w.names("Pod").len(), 3);
    assert_eq!(phase(&mut w, "ReplicaFailure"), "- -");
}

#[test]
fn many_pods_are_made_in_bursts_that_double() {
    let mut w = World::new();
    w.create(deployment(40));
    let mut most = 0;
    let mut bursts = Vec::new();
    for _ in 0..10_000 {
        w.sync();
        w.hear();
        let creating = w.errands.iter().filter(|(_, e)| e.kind.kind == "Pod" && e.verb == Verb::Create).count();
        if creating > 0 {
            bursts.push(creating);
        }
        most = most.max(w.controllers.flying());
        while !w.errands.is_empty() {
            w.carry();
        }
        w.sync();
        if w.answers.is_empty() {
            break;
        }
        while !w.answers.is_empty() {
            w.answer();
        }
    }
    w.settle();
    assert_eq!(w.names("Pod").len(), 40);
    assert_eq!(bursts, [1, 2, 4, 8, 16, 9]);
    assert!(most <= 64);
}

#[test]
fn a_namespace_that_is_going_is_emptied_pods_first_and_then_finalized() {
    let mut w = World::new();
    w.create(deployment(3));
    w.create(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "d"}}));
    w.live();
    let before = w.log.len();
    w.tell_bundle("Namespace", "d", Some(controlled::namespace(Some(controlled::START))));
    w.settle();
    assert!(w.all("Pod").iter().all(|p| !p["metadata"]["deletionTimestamp"].is_null()), "asked to end");
    assert!(w.get("Secret", "s").is_some(), "pods go first");
    w.pass(Duration::from_secs(2));
    assert!(w.log[before..].contains(&"update namespaces/status d".to_owned()));
    assert!(!w.log.contains(&"update namespaces/finalize d".to_owned()));
    w.live();
    assert_eq!(w.cell.state().len(), 0, "{:?}", w.cell.state().scan(b"").map(|(k, _)| k.clone()).collect::<Vec<_>>());
    assert_eq!(w.log.iter().filter(|l| *l == "update namespaces/finalize d").count(), 1);
}

#[test]
fn a_namespace_is_not_empty_before_every_later_leader_must_know_that_it_is_going() {
    let mut w = World::new();
    w.settle();
    for (kind, name) in [("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")] {
        assert!(w.get(kind, name).is_some());
    }
    w.tell_bundle("Namespace", "d", Some(controlled::namespace(Some(controlled::START))));
    // The entry that binds is proposed with the first thing the cell hears of it, and not durable yet.
    let create = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late", "namespace": "d"}});
    let refused = w.ask(Verb::Create, "ConfigMap", "", "", Some(create)).unwrap_err();
    assert_eq!(refused.code, 403);
    w.settle();
    assert!(w.log.contains(&"update namespaces/finalize d".to_owned()));
    let bundle = w.bundle.number().get();
    let w = w.restart();
    assert_eq!(w.cell.member().cell().bundle(), bundle, "whoever leads next is behind if it knows less");
}

#[test]
fn what_finalizers_hold_is_told_and_waited_for() {
    let mut w = World::new();
    w.create(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "namespace": "d", "finalizers": ["example.com/hold"]}}));
    w.tell_bundle("Namespace", "d", Some(controlled::namespace(Some(controlled::START))));
    w.pass(Duration::from_secs(3));
    assert_eq!(w.names("ConfigMap"), ["held"]);
    assert!(!w.log.contains(&"update namespaces/finalize d".to_owned()));
    w.edit("ConfigMap", "held", "", |c| c["metadata"]["finalizers"] = json!([]));
    w.settle();
    assert!(w.log.contains(&"update namespaces/finalize d".to_owned()));
}

#[test]
fn what_every_namespace_has_is_made_again() {
    let mut w = World::new();
    w.settle();
    for (kind, name) in [("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")] {
        w.ask(Verb::Delete, kind, name, "", None).unwrap();
        assert!(w.get(kind, name).is_none());
        w.settle();
        assert!(w.get(kind, name).is_some(), "{kind}");
    }
    w.edit("ConfigMap", "kube-root-ca.crt", "", |c| c["data"] = json!({"ca.crt": "forged"}));
    w.settle();
    assert_eq!(w.get("ConfigMap", "kube-root-ca.crt").unwrap()["data"], json!({"ca.crt": "PEM"}));
}

#[test]
fn events_are_forgotten_after_an_hour() {
    let mut w = World::new();
    w.create(deployment(2));
    w.live();
    assert!(w.all("Event").len() >= 3);
    w.pass(Duration::from_secs(3500));
    assert!(w.all("Event").len() >= 3);
    w.pass(Duration::from_secs(200));
    assert_eq!(w.names("Event"), [""; 0]);
}

#[test]
fn pods_of_a_node_that_is_gone_are_removed_and_made_again_elsewhere() {
    use objects::kinds::by_kind;
    use objects::status::Status;
    let mut w = World::new();
    w.create(deployment(2));
    w.live();
    let before = w.names("Pod");
    w.pass(Duration::from_secs(150));
    assert_eq!(w.names("Pod"), before);
    w.elsewhere = Box::new(|_, _| Err(Box::new(Status::not_found(by_kind("", "v1", "Node").unwrap(), "n1"))));
    w.pass(Duration::from_secs(39));
    assert_eq!(w.names("Pod"), before, "it may come back");
    w.pass(Duration::from_secs(120));
    let after = w.all("Pod");
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|p| p["spec"]["nodeName"].is_null()));
}

#[test]
fn a_quota_counts_what_there_was_before_it() {
    let mut w = World::new();
    w.create(deployment(2));
    w.live();
    w.create(json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "d"},
        "spec": {"hard": {"pods": "5", "count/deployments.apps": "1"}}}));
    w.settle();
    let status = w.get("ResourceQuota", "q").unwrap()["status"].clone();
    assert_eq!(status["used"], json!({"count/deployments.apps": "1", "pods": "2"}));
    w.edit("ResourceQuota", "q", "", |q| q["spec"]["hard"]["configmaps"] = json!("9"));
    w.settle();
    assert_eq!(w.get("ResourceQuota", "q").unwrap()["status"]["used"]["configmaps"], "1");
}

fn service(selector: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "d"},
        "spec": {"selector": selector, "ports": [{"port": 80, "targetPort": 8080}]}})
}

/// How many endpoints the slices of the service have, in all and ready ones.
fn endpoints(w: &mut World) -> (usize, usize) {
    let all: Vec<Value> =
        w.all("EndpointSlice").iter().flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default()).collect();
    (all.len(), all.iter().filter(|e| e["conditions"]["ready"] == true).count())
}

#[test]
fn a_service_has_the_endpoints_of_its_pods() {
    let mut w = World::new();
    w.create(service(json!({"app": "web"})));
    w.settle();
    assert_eq!((w.names("Endpoints").len(), w.names("EndpointSlice").len()), (1, 1), "seen, and nobody there");
    w.create(deployment(3));
    w.live();
    assert_eq!(endpoints(&mut w), (3, 3));
    let e = w.get("Endpoints", "web").unwrap();
    assert_eq!(e["subsets"][0]["addresses"].as_array().unwrap().len(), 3);
    let pod = w.names("Pod")[0].clone();
    w.ask(Verb::Delete, "Pod", &pod, "", None).unwrap();
    w.settle();
    assert_eq!(endpoints(&mut w), (3, 2), "one ends, another is not ready yet and has no address");
    w.live();
    assert_eq!(endpoints(&mut w), (3, 3));
    let before = w.log.len();
    w.edit("Deployment", "web", "", |d| d["metadata"]["labels"] = json!({"x": "y"}));
    w.live();
    assert!(!w.log[before..].iter().any(|l| l.contains("endpoint")), "{:?}", &w.log[before..]);
    w.ask(Verb::Delete, "Service", "web", "", None).unwrap();
    w.live();
    assert_eq!((w.names("Endpoints").len(), w.names("EndpointSlice").len()), (0, 0));
}

#[test]
fn endpoints_made_by_hand_are_mirrored_and_go_with_their_service() {
    let mut w = World::new();
    w.create(json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web", "namespace": "d"},
        "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 8080}]}]}));
    w.settle();
    assert_eq!((w.names("Endpoints").len(), w.names("EndpointSlice").len()), (1, 0), "no service yet");
    w.create(service(Value::Null));
    w.settle();
    assert_eq!(endpoints(&mut w), (1, 1));
    w.edit("Endpoints", "web", "", |e| e["subsets"][0]["addresses"][0]["ip"] = json!("192.0.2.8"));
    w.settle();
    let slice = &w.all("EndpointSlice")[0];
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.0.2.8"]));
    w.ask(Verb::Delete, "Service", "web", "", None).unwrap();
    w.live();
    assert_eq!((w.names("Endpoints").len(), w.names("EndpointSlice").len()), (0, 0));
}

#[test]
fn the_api_has_a_service_in_default_and_endpoints_that_follow_its_gateways() {
    let gateways = |all: &[&str]| node::controllers::Input::Gateways {
        addresses: all.iter().map(|a| a.parse().unwrap()).collect(),
        port: 6443,
    };
    let mut w = World::of("default");
    w.settle();
    assert_eq!(w.names("Service"), [""; 0]);
    w.control(gateways(&["192.0.2.2"]));
    w.settle();
    let s = w.get("Service", "kubernetes").unwrap();
    assert_eq!((&s["spec"]["clusterIP"], &s["spec"]["ports"][0]["targetPort"]), (&json!("10.43.0.1"), &json!(6443)));
    assert_eq!(endpoints(&mut w), (1, 1), "and no mirror of them");
    w.ask(Verb::Delete, "Service", "kubernetes", "", None).unwrap();
    w.control(gateways(&["192.0.2.3", "192.0.2.2"]));
    w.settle();
    assert_eq!(w.get("Service", "kubernetes").unwrap()["spec"]["clusterIP"], "10.43.0.1");
    let e = w.get("Endpoints", "kubernetes").unwrap();
    assert_eq!(e["subsets"][0]["addresses"], json!([{"ip": "192.0.2.2"}, {"ip": "192.0.2.3"}]));
    assert_eq!(w.names("EndpointSlice"), ["kubernetes"]);
}

/// Root as it ships, which has the namespace `d`; it is where errands go that the cell does not decide.
fn with_root(w: &mut World) -> Rc<RefCell<Root>> {
    let root = Rc::new(RefCell::new(Root::new(w.now)));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "d"}});
    let made = root.borrow_mut().ask(w.now, &by_admin(Verb::Create, "Namespace", "d", Some(namespace))).unwrap();
    assert_eq!(made["metadata"]["uid"], controlled::cell_id().to_string());
    let theirs = root.clone();
    w.elsewhere = Box::new(move |now, errand| match errand.kind.kind {
        "Node" => Ok(json!({"metadata": {"uid": "n"}})),
        _ => theirs.borrow_mut().ask(now, errand),
    });
    tell(w, &root);
    root
}

/// The cell hears of root's newest bundle.
fn tell(w: &mut World, root: &Rc<RefCell<Root>>) {
    let bundle = root.borrow().bundle.clone();
    w.take_bundle(bundle);
}

#[test]
fn what_services_use_no_more_goes_back_to_root_and_not_before_the_log_is_bound() {
    let mut w = World::new();
    let root = with_root(&mut w);
    let node_port = |name: &str, port: Value| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "d"},
            "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}})
    };
    let held = || root.borrow().bundle.allotment(controlled::cell_id()).unwrap().0;
    let reserved = || held().reserved.iter().map(|r| (r.item.to_string(), r.ending)).collect::<Vec<_>>();
    w.create(node_port("chosen", json!(30080)));
    let given = w.create(node_port("given", Value::Null))["spec"]["ports"][0]["nodePort"].to_string();
    tell(&mut w, &root);
    w.live();
    assert_eq!(reserved(), [("30080".to_owned(), false), (given.clone(), false)]);
    assert_eq!(held().blocks.len(), 1, "the second service had an address of the first one's block");

    w.ask(Verb::Delete, "Service", "chosen", "", None).unwrap();
    w.settle();
    let calls_it_ending = [("30080".to_owned(), true), (given.clone(), false)];
    assert_eq!(reserved(), calls_it_ending, "the cell has not heard of that yet");
    w.pass(Duration::from_secs(100));
    assert_eq!(reserved(), calls_it_ending, "and nothing is returned while it may be given away by it");

    // So a service may come for it meanwhile.
    w.create(node_port("chosen", json!(30080)));
    tell(&mut w, &root);
    w.live();
    let in_use = [("30080".to_owned(), false), (given.clone(), false)];
    assert_eq!(reserved(), in_use, "it is used after all");
    tell(&mut w, &root);
    w.ask(Verb::Delete, "Service", "chosen", "", None).unwrap();
    for _ in 0..3 {
        w.pass(Duration::from_secs(1));
        tell(&mut w, &root);
    }
    assert_eq!(reserved(), [(given.clone(), false)]);

    // Asked for, and then no service came of it.
    let wanted = objects::allotment::Wanted {
        namespace: "d".into(),
        uid: controlled::cell_id().to_string(),
        ports: 1,
        ..Default::default()
    };
    let any = by_admin(Verb::Get, "Namespace", "d", None);
    let request = any.request(base::RequestId(1), w.now.wall, base::Uid(1), 1);
    let question = node::gateway::reserve::question(&request, &wanted, any.user.clone()).unwrap();
    root.borrow_mut().ask(w.now, &question).unwrap();
    tell(&mut w, &root);
    w.pass(Duration::from_secs(50));
    assert_eq!(reserved().len(), 2);
    for _ in 0..3 {
        w.pass(Duration::from_secs(20));
        tell(&mut w, &root);
    }
    assert_eq!(reserved(), [(given, false)]);
}

#[test]
fn root_lets_a_namespace_go_when_its_cell_says_that_it_is_empty() {
    let mut w = World::new();
    let root = with_root(&mut w);
    w.create(deployment(2));
    w.create(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "namespace": "d", "finalizers": ["x.io/y"]}}));
    w.live();
    root.borrow_mut().ask(w.now, &by_admin(Verb::Delete, "Namespace", "d", None)).unwrap();
    let bundle = root.borrow().bundle.clone();
    w.take_bundle(bundle);
    w.live();
    w.pass(Duration::from_secs(10));
    let get = |root: &Rc<RefCell<Root>>, w: &World| {
        root.borrow_mut().ask(w.now, &by_admin(Verb::Get, "Namespace", "d", None))
    };
    let conditions = get(&root, &w).unwrap()["status"]["conditions"].clone();
    let said = |ty: &str| conditions.as_array().unwrap().iter().find(|c| c["type"] == ty).unwrap()["message"].clone();
    assert_eq!(said("NamespaceFinalizersRemaining"), "Some finalizers are remaining: x.io/y in 1 resource instances");
    assert_eq!(said("NamespaceContentRemaining"), "Some resources are remaining: configmaps. has 1 resource instances");
    w.edit("ConfigMap", "held", "", |c| c["metadata"]["finalizers"] = json!([]));
    // What the status update made of it is in no bundle that the cell was told: it is refused and tried again.
    for _ in 0..50 {
        let bundle = root.borrow().bundle.clone();
        w.take_bundle(bundle);
        w.pass(Duration::from_millis(100));
        if get(&root, &w).is_err() {
            return;
        }
    }
    panic!("root still has it: {:?}", &w.log[w.log.len() - 10..]);
}

#[test]
fn whatever_the_order_of_commits_answers_and_restarts_the_same_comes_of_it() {
    for seed in 0..25 {
        let mut chance = Chance::from_u64(seed);
        let mut w = World::new();
        w.create(service(json!({"app": "web"})));
        w.create(deployment(4));
        for round in 0..300 {
            match chance.below(12) {
                0..=2 => w.hear(),
                3..=5 => w.carry(),
                6..=7 => w.sync(),
                8..=9 => w.answer(),
                10 => w.run_pods(),
                _ if chance.below(40) == 0 => w = w.restart(),
                _ if chance.below(10) == 0 => {
                    w.depose();
                    for _ in 0..chance.below(20) {
                        w.carry();
                        w.sync();
                        w.answer();
                    }
                    w.lead_again();
                }
                _ => {
                    w.now.mono = w.now.mono + Duration::from_millis(7);
                    w.control(node::controllers::Input::Tick);
                }
            }
            if round == 100 {
                let edit = |d: &mut Value| {
                    d["spec"]["replicas"] = json!(6);
                    d["spec"]["template"]["spec"]["containers"][0]["image"] = json!("v2");
                };
                w.edit("Deployment", "web", "", edit);
            }
            // A surge of two over six, and what is ending.
            let alive = w.all("Pod").iter().filter(|p| p["metadata"]["deletionTimestamp"].is_null()).count();
            assert!(alive <= 8, "seed {seed}, round {round}: {alive} pods at once");
        }
        w.pass(Duration::from_secs(20));
        w.live();
        assert_eq!(images(&mut w), ["v2"; 6], "seed {seed}");
        assert_eq!(endpoints(&mut w), (6, 6), "seed {seed}");
        assert_eq!(phase(&mut w, "Progressing"), "True NewReplicaSetAvailable", "seed {seed}");
    }
}

#[test]
fn a_node_that_is_heard_of_stays_ready_and_one_that_is_not_becomes_unknown() {
    let mut w = World::registry();
    let id = base::NodeId([9; 32]);
    let mut pulse = node::life::Pulse::new(id, base::BootId(1));
    for (name, id) in [("heard", id), ("silent", base::NodeId([8; 32]))] {
        w.create(json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "annotations": {"beemesh.io/node-id": id.to_string()}}}));
        let now = w.now.wall.rfc3339();
        w.edit("Node", name, "status", |n| {
            n["status"]["conditions"] = json!([{"type": "Ready", "status": "True", "reason": "KubeletReady",
                "lastHeartbeatTime": now, "lastTransitionTime": now}]);
        });
    }
    w.settle();
    let seen = |w: &mut World, name: &str| {
        let n = w.get("Node", name).unwrap();
        let taints = n["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let effects: Vec<String> =
            taints.iter().map(|t| format!("{}:{}", t["key"], t["effect"]).replace('"', "")).collect();
        (n["status"]["conditions"][0]["status"].as_str().unwrap().to_owned(), effects)
    };
    assert_eq!(seen(&mut w, "silent"), ("True".to_owned(), vec![]), "the taint it was made with is gone");
    for _ in 0..30 {
        let mut signs = Vec::new();
        pulse.step(w.now, node::life::Input::Tick, &mut signs);
        for node::life::Effect::Send(sign) in signs {
            w.control(node::controllers::Input::Heard { from: id, sign });
        }
        w.pass(Duration::from_secs(2));
    }
    assert_eq!(seen(&mut w, "heard"), ("True".to_owned(), vec![]));
    let gone = "node.kubernetes.io/unreachable";
    assert_eq!(
        seen(&mut w, "silent"),
        ("Unknown".to_owned(), vec![format!("{gone}:NoSchedule"), format!("{gone}:NoExecute")])
    );
    let mut w = w.restart();
    w.settle();
    w.pass(Duration::from_secs(30));
    assert_eq!(seen(&mut w, "heard").0, "True", "a new leader has heard of nobody yet");
}
