//! What nodes are told of the pods bound to them, whatever the network loses.

use crate::world::{Packet, World, cpu, node_id};
use node::scheduling::message::ToNode;
use node::scheduling::{Worker, WorkerInput};
use objects::request::{Body, Verb};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn told(w: &World, n: u8) -> Vec<String> {
    w.handed[&node_id(n)].pods.keys().cloned().collect()
}

#[test]
fn a_node_that_starts_again_is_told_what_is_bound_to_it() {
    let mut w = World::new();
    w.add_node(1, "4");
    w.create("a", cpu("1"));
    w.create("b", cpu("1"));
    w.settle();
    w.start_worker(1);
    assert!(!w.workers[&node_id(1)].is_bidding(), "it does not know what room it has");
    w.settle();
    assert_eq!(told(&w, 1), ["a", "b"]);
    assert!(w.workers[&node_id(1)].is_bidding());
    assert_eq!(w.workers[&node_id(1)].book().facts().hosted.len(), 2);
}

/// Its Node object is in another cell than its pods, and may be out of reach for longer.
#[test]
fn a_node_that_does_not_know_what_room_it_has_neither_admits_nor_refuses_what_is_new() {
    let mut w = World::new();
    w.add_node(1, "4");
    for name in ["ran", "first", "gone", "second"] {
        w.create(name, cpu("1"));
        w.settle();
        assert_eq!(w.host(name), Some("n1".to_owned()));
    }
    w.running.insert(w.uid("ran"));
    w.change_node(1, |n| n["status"]["allocatable"]["cpu"] = json!("2"));
    w.start_unmeasured(1);
    w.settle();
    w.pass(Worker::PATIENCE + SECOND);
    assert_eq!(told(&w, 1), ["ran"], "what was started is not asked about");
    assert!(!w.workers[&node_id(1)].is_bidding());
    w.remove("gone");
    w.pass(SECOND);
    assert!(w.handed[&node_id(1)].refused.is_empty());
    w.measure(1);
    w.settle();
    assert_eq!(told(&w, 1), ["first", "ran", "second"]);
    // Said again when it is told again.
    let refused: BTreeSet<_> = w.handed[&node_id(1)].refused.iter().map(|r| r.uid).collect();
    assert_eq!(refused, [w.uid("second")].into(), "there is room for one more");
    assert!(w.workers[&node_id(1)].is_bidding());
}

#[test]
fn what_was_on_its_way_to_an_earlier_start_is_not_believed() {
    let mut w = World::new();
    w.add_node(1, "4");
    w.create("a", cpu("1"));
    w.settle();
    // It asks for everything once more, and the answer is late.
    w.start_worker(1);
    while !matches!(w.packets.front(), Some(Packet::ToNode(_, ToNode::Assigned(_)))) {
        let packet = w.packets.pop_front().unwrap();
        w.deliver(packet);
    }
    let late = w.packets.pop_front().unwrap();
    w.settle();
    w.create("b", cpu("1"));
    w.remove("a");
    w.settle();
    w.lose = |p| matches!(p, Packet::ToLeader(..));
    w.start_worker(1);
    w.settle();
    w.deliver(late);
    w.settle();
    assert!(told(&w, 1).is_empty(), "of the pods there were before, one is gone and one has come");
    w.lose = |_| false;
    w.pass(5 * SECOND);
    assert_eq!(told(&w, 1), ["b"]);
    assert!(w.workers[&node_id(1)].is_bidding());
}

#[test]
fn a_lost_message_is_noticed_by_the_next() {
    let mut w = World::new();
    w.add_node(1, "4");
    w.create("a", cpu("1"));
    w.settle();
    w.lose = |p| matches!(p, Packet::ToNode(_, ToNode::Assigned(_)));
    w.create("b", cpu("1"));
    w.settle();
    w.lose = |_| false;
    w.create("c", cpu("1"));
    w.settle();
    assert_eq!(told(&w, 1), ["a", "b", "c"]);
}

#[test]
fn a_lost_last_message_is_noticed_after_a_while() {
    let mut w = World::new();
    w.add_node(1, "4");
    w.create("a", cpu("1"));
    w.create("b", cpu("1"));
    w.settle();
    w.lose = |p| matches!(p, Packet::ToNode(_, ToNode::Assigned(_)));
    w.remove("b");
    w.settle();
    assert_eq!(told(&w, 1), ["a", "b"]);
    w.lose = |_| false;
    w.pass(6 * SECOND);
    assert_eq!(told(&w, 1), ["a"]);
}

#[test]
fn a_node_whose_pods_all_went_unheard_asks_by_itself() {
    let mut w = World::new();
    w.add_node(1, "4");
    w.create("a", cpu("1"));
    w.settle();
    w.lose = |p| matches!(p, Packet::ToNode(_, ToNode::Assigned(_)));
    w.remove("a");
    w.settle();
    w.lose = |_| false;
    // A new leader has no pods of this node, and nothing to tell it.
    w.change_leader();
    w.pass(Worker::SILENCE + SECOND);
    assert!(told(&w, 1).is_empty());
}

#[test]
fn a_message_doubled_or_of_an_earlier_leader_changes_nothing() {
    let mut w = World::new();
    w.add_node(1, "4");
    w.hold_errands = true;
    w.create("a", cpu("1"));
    w.settle();
    w.send_errand();
    let old = w.packets.back().cloned().unwrap();
    assert!(matches!(old, Packet::ToNode(_, ToNode::Assigned(_))));
    w.settle();
    w.remove("a");
    w.settle();
    w.deliver(old.clone());
    assert!(told(&w, 1).is_empty(), "the pod does not come back");
    w.change_leader();
    w.create("b", cpu("1"));
    w.hold_errands = false;
    w.settle();
    w.deliver(old);
    assert_eq!(told(&w, 1), ["b"]);
}

#[test]
fn a_pod_bound_by_hand_is_refused_where_there_is_no_room_and_stays_bound() {
    let mut w = World::new();
    w.add_node(1, "1");
    let mut by_hand = cpu("2");
    by_hand["nodeName"] = json!("n1");
    w.create("a", by_hand);
    w.settle();
    let refused = &w.handed[&node_id(1)].refused;
    assert_eq!((refused[0].uid, refused[0].why.reason.as_str()), (w.uid("a"), "OutOfcpu"));
    assert_eq!(w.host("a").as_deref(), Some("n1"));
    assert!(w.workers[&node_id(1)].book().facts().hosted.is_empty());
}

#[test]
fn a_binding_by_somebody_else_ends_the_round_and_frees_what_it_reserved() {
    let mut w = World::new();
    w.add_node(1, "4");
    w.add_node(2, "4");
    w.hold_errands = true;
    w.create("p", cpu("1"));
    w.settle();
    assert_eq!(w.reserved(), 1);
    let winner = if w.workers[&node_id(1)].book().open() == 1 { 1 } else { 2 };
    let other = 3 - winner;
    let tree = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": format!("n{other}")}});
    w.request(Verb::Create, "p", "binding", Body::Object { tree, strict: Vec::new() });
    w.settle();
    assert_eq!(w.reserved(), 0);
    assert_eq!(told(&w, other), ["p"]);
    w.hold_errands = false;
    w.settle();
    assert_eq!(w.host("p"), Some(format!("n{other}")), "the second binding is refused");
    assert!(told(&w, winner).is_empty());
}

#[test]
fn pods_started_before_a_restart_are_counted_before_anything_is_admitted() {
    started_before_a_restart(|w| w.set_status("z-started", |s| s["startTime"] = json!("2026-01-31T08:00:00Z")));
}

#[test]
fn pods_the_runtime_has_are_counted_before_anything_is_admitted() {
    started_before_a_restart(|w| {
        let uid = w.uid("z-started");
        w.running.insert(uid);
    });
}

fn started_before_a_restart(started: impl FnOnce(&mut World)) {
    let mut w = World::new();
    w.add_node(1, "2");
    w.create("z-started", cpu("2"));
    w.settle();
    started(&mut w);
    // While the node is down, a pod is bound to it by hand for which there is no room.
    let mut by_hand = cpu("1");
    by_hand["nodeName"] = json!("n1");
    w.create("a-by-hand", by_hand);
    w.packets.clear();
    w.start_worker(1);
    w.settle();
    let refused: Vec<_> = w.handed[&node_id(1)].refused.iter().map(|r| r.uid).collect();
    assert_eq!(refused, [w.uid("a-by-hand")]);
}

#[test]
fn of_a_cell_that_speaks_late_those_started_are_counted_first() {
    let mut w = World::new();
    w.add_node(1, "2");
    w.create("started", cpu("2"));
    w.settle();
    let uid = w.uid("started");
    w.running.insert(uid);
    let mut by_hand = cpu("1");
    by_hand["nodeName"] = json!("n1");
    w.create("a-by-hand", by_hand);
    w.packets.clear();
    w.start_worker(1);
    w.lose = |p| matches!(p, Packet::ToLeader(..) | Packet::ToNode(_, ToNode::Assigned(_)));
    w.pass(Worker::PATIENCE + SECOND);
    w.lose = |_| false;
    w.pass(Worker::AGAIN_MAX);
    let refused: Vec<_> = w.handed[&node_id(1)].refused.iter().map(|r| r.uid).collect();
    assert!(!refused.is_empty() && refused.iter().all(|r| *r == w.uid("a-by-hand")), "{refused:?}");
}

#[test]
fn room_is_taken_until_the_node_says_that_the_pod_has_ended() {
    let mut w = World::new();
    w.add_node(1, "1");
    w.create("a", cpu("1"));
    w.settle();
    let uid = w.uid("a");
    w.remove("a");
    w.create("b", cpu("1"));
    w.pass(5 * SECOND);
    assert_eq!(w.host("b"), None, "its containers may still run");
    w.ended(1, uid);
    w.pass(11 * SECOND);
    assert_eq!(w.host("b").as_deref(), Some("n1"));
}

#[test]
fn a_finished_pod_takes_no_room_after_a_restart() {
    let mut w = World::new();
    w.add_node(1, "1");
    w.create("a", cpu("1"));
    w.settle();
    w.set_status("a", |s| s["phase"] = json!("Succeeded"));
    w.start_worker(1);
    w.settle();
    assert_eq!(told(&w, 1), ["a"]);
    assert!(w.workers[&node_id(1)].book().facts().hosted.is_empty());
}

#[test]
fn a_node_that_comes_into_sight_is_told_what_is_bound_to_it() {
    let mut w = World::new();
    let mut by_hand = cpu("1");
    by_hand["nodeName"] = json!("n1");
    w.create("a", by_hand);
    w.settle();
    // It has asked in vain for a while, and would not ask again soon.
    w.lose = |p| matches!(p, Packet::ToLeader(..));
    w.add_node(1, "4");
    w.pass(20 * SECOND);
    let node = w.nodes.remove(&1).unwrap();
    w.tell_nodes();
    w.lose = |_| false;
    w.nodes.insert(1, node);
    w.tell_nodes();
    w.settle();
    assert_eq!(told(&w, 1), ["a"]);
}

#[test]
fn with_a_namespace_its_pods_go() {
    let mut w = World::new();
    w.add_node(1, "4");
    w.create("a", cpu("1"));
    w.settle();
    w.work(node_id(1), WorkerInput::Cells(Vec::new()));
    assert!(told(&w, 1).is_empty());
}

#[test]
fn a_node_without_a_runtime_never_bids() {
    let mut w = World::new();
    w.add_node(1, "4");
    w.change_node(1, |n| {
        n["status"]["allocatable"]["pods"] = json!("0");
        n["spec"]["taints"] = json!([{"key": "beemesh.io/no-runtime", "effect": "NoSchedule"}]);
    });
    let mut tolerant = cpu("0");
    tolerant["tolerations"] = json!([{"operator": "Exists"}]);
    w.create("a", tolerant);
    w.create("b", cpu("0"));
    w.settle();
    assert!(w.condition("a")["message"].as_str().unwrap().starts_with("0/1 nodes are available: 1 Too many pods."));
    assert!(w.condition("b")["message"].as_str().unwrap().contains("1 node(s) had untolerated taint(s)"));
}
