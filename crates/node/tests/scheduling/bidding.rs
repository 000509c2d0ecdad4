//! From a pod without a node to one that is bound, and what is said of one that is not.

use crate::world::{Packet, World, cpu, node_id};
use decide::schedule::Beside;
use node::scheduling::message::{ToLeader, ToNode};
use serde_json::json;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_pod_is_bound_to_a_node_that_bid_and_handed_to_it() {
    let mut w = World::new();
    w.add_node(1, "4");
    w.create("p", cpu("1"));
    w.settle();
    assert_eq!(w.host("p").as_deref(), Some("n1"));
    assert_eq!(w.condition("p")["status"], "True");
    assert_eq!(w.handed[&node_id(1)].pods.get("p"), Some(&w.uid("p")));
    assert_eq!(w.reserved(), 0, "what was reserved is bound");
    assert_eq!(w.events("p"), [("Scheduled".into(), "Successfully assigned d/p to n1".into(), 1)]);
}

#[test]
fn nothing_is_told_to_the_node_before_the_binding_is_committed() {
    let mut w = World::new();
    w.add_node(1, "4");
    w.hold_errands = true;
    w.create("p", cpu("1"));
    w.settle();
    assert_eq!(w.asked.len(), 1, "the binding is asked for");
    assert!(w.handed[&node_id(1)].pods.is_empty());
    w.send_errand();
    w.settle();
    assert_eq!(w.handed[&node_id(1)].pods.len(), 1);
}

#[test]
fn pods_spread_over_nodes_by_the_room_that_is_left() {
    let mut w = World::new();
    w.add_node(1, "2");
    w.add_node(2, "4");
    w.add_node(3, "2");
    for n in 0..8 {
        w.create(&format!("p{n}"), cpu("1"));
    }
    w.pass(2 * SECOND);
    let on = |w: &World, node: &str| (0..8).filter(|n| w.host(&format!("p{n}")).as_deref() == Some(node)).count();
    assert_eq!((on(&w, "n1"), on(&w, "n2"), on(&w, "n3")), (2, 4, 2));
    assert_eq!(w.reserved(), 0);
}

#[test]
fn a_pod_nobody_can_run_says_why_and_is_bound_once_somebody_can() {
    let mut w = World::new();
    w.add_node(1, "1");
    w.change_node(1, |n| n["spec"]["unschedulable"] = json!(true));
    w.add_node(2, "1");
    w.create("p", cpu("2"));
    w.settle();
    let message = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
    let condition = w.condition("p");
    assert_eq!(
        (&condition["status"], &condition["reason"], &condition["message"]),
        (&json!("False"), &json!("Unschedulable"), &json!(message))
    );
    assert_eq!(w.events("p"), [("FailedScheduling".into(), message.into(), 1)]);
    w.pass(60 * SECOND);
    let events = w.events("p");
    assert_eq!(events.len(), 1, "counted, not repeated: {events:?}");
    assert!((4..=8).contains(&events[0].2), "{events:?}");
    w.change_node(2, |n| n["status"]["allocatable"]["cpu"] = json!("2"));
    w.pass(SECOND);
    assert_eq!(w.host("p").as_deref(), Some("n2"));
    assert_eq!(w.condition("p")["status"], "True");
}

#[test]
fn without_nodes_there_are_none() {
    let mut w = World::new();
    w.tell_nodes();
    w.create("p", cpu("1"));
    w.settle();
    assert_eq!(w.condition("p")["message"], "no nodes available to schedule pods");
}

#[test]
fn room_that_is_freed_is_used_at_once() {
    let mut w = World::new();
    w.add_node(1, "1");
    w.create("a", cpu("1"));
    w.settle();
    w.create("b", cpu("1"));
    w.pass(20 * SECOND);
    assert_eq!(w.host("b"), None);
    let uid = w.uid("a");
    w.ended(1, uid);
    w.remove("a");
    w.pass(Duration::from_millis(200));
    assert_eq!(w.host("b").as_deref(), Some("n1"), "it did not wait for its back-off");
}

#[test]
fn a_gated_pod_and_one_of_another_scheduler_are_left_alone() {
    let mut w = World::new();
    w.add_node(1, "4");
    let mut gated = cpu("1");
    gated["schedulingGates"] = json!([{"name": "example.com/wait"}]);
    w.create("gated", gated);
    let mut other = cpu("1");
    other["schedulerName"] = json!("mine");
    w.create("other", other);
    w.pass(SECOND);
    assert_eq!((w.host("gated"), w.host("other")), (None, None));
    assert_eq!(w.condition("gated")["reason"], "SchedulingGated");
    assert_eq!(w.leader.as_ref().unwrap().waiting(), 0);
}

#[test]
fn who_matters_more_is_served_first() {
    let mut w = World::new();
    w.hold_errands = true;
    for name in ["a", "b"] {
        w.create(name, cpu("1"));
    }
    let mut high = cpu("1");
    high["priorityClassName"] = json!("system-node-critical");
    w.create("z", high);
    w.hold_errands = false;
    w.add_node(1, "1");
    w.pass(3 * SECOND);
    assert_eq!((w.host("z").as_deref(), w.host("a"), w.host("b")), (Some("n1"), None, None));
}

#[test]
fn a_pod_that_goes_while_it_is_awarded_leaves_no_reservation() {
    let mut w = World::new();
    w.add_node(1, "1");
    w.hold_errands = true;
    w.create("p", cpu("1"));
    w.settle();
    assert_eq!(w.reserved(), 1);
    w.remove("p");
    w.hold_errands = false;
    w.settle();
    assert_eq!(w.reserved(), 0);
    w.create("q", cpu("1"));
    w.settle();
    assert_eq!(w.host("q").as_deref(), Some("n1"));
}

#[test]
fn a_binding_whose_outcome_nobody_heard_is_asked_for() {
    let mut w = World::new();
    w.add_node(1, "1");
    w.hold_errands = true;
    w.create("p", cpu("1"));
    w.settle();
    // The leader goes with the binding on its way, and it never arrives.
    w.change_leader();
    w.hold_errands = false;
    w.lose = |p| matches!(p, Packet::ToNode(_, ToNode::Release { .. }));
    w.pass(20 * SECOND);
    w.lose = |_| false;
    w.pass(20 * SECOND);
    assert_eq!(w.host("p").as_deref(), Some("n1"));
    assert_eq!(w.reserved(), 0);
}

#[test]
fn a_confirmed_reservation_of_a_pod_that_has_gone_is_given_back_when_the_node_asks() {
    let mut w = World::new();
    w.add_node(1, "2");
    w.create("other", cpu("1"));
    w.settle();
    w.hold_errands = true;
    w.create("p", cpu("1"));
    w.settle();
    // The node knows the new leader by what it tells of the other pod.
    w.change_leader();
    w.lose = |p| matches!(p, Packet::ToNode(_, ToNode::Release { .. } | ToNode::Tender { .. }));
    w.remove("p");
    w.pass(9 * SECOND);
    assert_eq!(w.reserved(), 1, "it does not lapse by itself");
    w.lose = |_| false;
    w.pass(2 * SECOND);
    assert_eq!(w.reserved(), 0);
}

#[test]
fn a_node_that_does_not_answer_is_passed_over() {
    let mut w = World::new();
    w.add_node(1, "16");
    w.add_node(2, "1");
    w.lose = |p| matches!(p, Packet::ToNode(to, ToNode::Tender { .. }) if *to == node_id(1));
    w.create("p", cpu("1"));
    w.pass(Duration::from_millis(300));
    assert_eq!(w.host("p").as_deref(), Some("n2"));
}

#[test]
fn a_winner_that_does_not_confirm_is_not_waited_for() {
    let mut w = World::new();
    w.add_node(1, "1");
    w.lose = |p| matches!(p, Packet::ToLeader(_, ToLeader::Confirmed { .. }));
    w.create("p", cpu("1"));
    w.pass(SECOND / 2);
    assert_eq!((w.host("p"), w.reserved()), (None, 1));
    w.lose = |_| false;
    w.pass(2 * SECOND);
    assert_eq!((w.host("p").as_deref(), w.reserved()), (Some("n1"), 0));
}

#[test]
fn a_bid_that_comes_too_late_is_released() {
    let mut w = World::new();
    w.add_node(1, "4");
    w.add_node(2, "4");
    w.lose = |p| matches!(p, Packet::ToLeader(from, ToLeader::Bid { .. }) if *from == node_id(2));
    w.create("p", cpu("1"));
    w.pass(SECOND / 2);
    assert_eq!((w.host("p").as_deref(), w.reserved()), (Some("n1"), 1));
    w.lose = |_| false;
    let tender = decide::schedule::Tender { cell: crate::world::id(), term: w.term, number: 1 };
    w.packets.push_back(Packet::ToLeader(node_id(2), ToLeader::Bid { tender, score: 1, beside: Beside::default() }));
    w.settle();
    assert_eq!(w.reserved(), 0);
}

#[test]
fn what_is_refused_only_for_what_others_reserve_is_not_called_a_failure() {
    let mut w = World::new();
    w.add_node(1, "1");
    w.add_node(2, "1");
    w.create("a", cpu("1"));
    w.create("b", cpu("1"));
    w.pass(SECOND);
    assert!(w.host("a").is_some() && w.host("b").is_some());
    let failed = |name| w.events(name).iter().any(|e| e.0 == "FailedScheduling");
    assert!(!failed("a") && !failed("b"));
}

#[test]
fn a_hundred_pods_of_which_the_nodes_take_half() {
    let mut w = World::new();
    for n in 1..=5 {
        w.add_node(n, "10");
    }
    for n in 0..100 {
        w.create(&format!("p{n:02}"), cpu("1"));
    }
    w.pass(30 * SECOND);
    let bound = (0..100).filter(|n| w.host(&format!("p{n:02}")).is_some()).count();
    assert_eq!((bound, w.reserved()), (50, 0));
}
