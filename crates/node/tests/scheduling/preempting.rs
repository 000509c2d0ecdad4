//! Room made for a pod that matters more than those who run.

use crate::world::{Asker, Packet, World, cpu, node_id};
use decide::schedule::Book;
use node::scheduling::message::ToNode;
use serde_json::{Value, json};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn important(amount: &str) -> Value {
    let mut spec = cpu(amount);
    spec["priorityClassName"] = json!("system-cluster-critical");
    spec
}

fn is_going(w: &World, pod: &str) -> bool {
    !w.pod(pod)["metadata"]["deletionTimestamp"].is_null()
}

/// A node of one CPU on which `low` is going to make room for `big`.
fn making_room() -> World {
    let mut w = World::new();
    w.add_node(1, "1");
    w.create("low", cpu("1"));
    w.settle();
    w.create("big", important("1"));
    w.settle();
    w
}

/// The node has stopped a pod that is being deleted.
fn stop(w: &mut World, n: u8, pod: &str) {
    let uid = w.uid(pod);
    w.ended(n, uid);
    w.remove(pod);
}

#[test]
fn a_pod_that_matters_more_takes_the_place_of_another() {
    let mut w = World::new();
    w.add_node(1, "2");
    w.create("small", cpu("1"));
    w.create("other", cpu("1"));
    w.settle();
    w.create("big", important("1"));
    w.settle();
    let going: Vec<&str> = ["small", "other"].into_iter().filter(|p| is_going(&w, p)).collect();
    let [victim] = going[..] else { panic!("{going:?}") };
    assert_eq!(w.host("big"), None, "the award is a binding as ever");
    assert_eq!(w.pod("big")["status"]["nominatedNodeName"], "n1");
    assert_eq!(w.condition("big")["message"], "0/1 nodes are available: 1 Insufficient cpu.");
    let conditions = w.pod(victim)["status"]["conditions"].as_array().cloned().unwrap();
    let why = conditions.into_iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!(
        (&why["reason"], &why["message"]),
        (&json!("PreemptionByScheduler"), &json!("default-scheduler: preempting to accommodate a higher priority pod"))
    );
    let note = format!("Preempted by pod {} on node n1", w.uid("big"));
    assert!(w.events(victim).contains(&("Preempted".into(), note, 1)), "{:?}", w.events(victim));
    // It ends in its own time; nobody else gets its room, and nobody else is evicted.
    w.create("late", cpu("1"));
    w.pass(12 * SECOND);
    assert_eq!(["small", "other"].iter().filter(|p| is_going(&w, p)).count(), 1);
    stop(&mut w, 1, victim);
    w.pass(SECOND);
    assert_eq!((w.host("big").as_deref(), w.host("late")), (Some("n1"), None));
    assert_eq!(w.pod("big")["status"]["nominatedNodeName"], Value::Null, "it is where it was to be");
    assert_eq!(w.reserved(), 0);
}

#[test]
fn who_never_preempts_and_who_matters_no_more_wait() {
    let mut w = World::new();
    w.add_node(1, "1");
    w.create("first", important("1"));
    w.settle();
    w.create("same", important("1"));
    w.settle();
    let message = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    assert_eq!(w.condition("same")["message"], message);
    let mut w = World::new();
    w.add_node(1, "1");
    w.create("first", cpu("1"));
    w.settle();
    let mut never = important("1");
    never["preemptionPolicy"] = json!("Never");
    never["priorityClassName"] = json!("patient");
    w.create("never", never);
    w.pass(2 * SECOND);
    assert!(!is_going(&w, "first"));
    assert_eq!(
        w.condition("never")["message"],
        "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."
    );
}

#[test]
fn the_node_where_it_hurts_least_is_chosen() {
    let mut w = World::new();
    w.add_node(1, "2");
    w.create("a1", cpu("1"));
    w.create("a2", cpu("1"));
    w.settle();
    w.add_node(2, "2");
    w.create("b", cpu("2"));
    w.settle();
    w.create("big", important("2"));
    w.settle();
    assert_eq!((is_going(&w, "a1"), is_going(&w, "a2"), is_going(&w, "b")), (false, false, true));
    assert_eq!(w.pod("big")["status"]["nominatedNodeName"], "n2");
}

#[test]
fn who_stands_in_the_way_of_its_neighbours_rules_goes_too() {
    let mut w = World::new();
    w.add_node(1, "10");
    w.change_node(1, |n| n["metadata"]["labels"]["zone"] = json!("a"));
    w.create_labelled("web", "web", cpu("1"));
    w.create_labelled("db", "db", cpu("1"));
    w.settle();
    let mut alone = important("1");
    alone["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "db"}}}]}});
    w.create_labelled("alone", "alone", alone);
    w.settle();
    assert_eq!((is_going(&w, "web"), is_going(&w, "db")), (false, true));
    stop(&mut w, 1, "db");
    w.pass(SECOND);
    assert_eq!(w.host("alone").as_deref(), Some("n1"));
}

#[test]
fn room_that_is_made_is_given_back_when_the_pod_goes_elsewhere_or_away() {
    for elsewhere in [true, false] {
        let mut w = making_room();
        assert!(is_going(&w, "low"));
        if elsewhere {
            w.add_node(2, "1");
            w.pass(2 * SECOND);
            assert_eq!(w.host("big").as_deref(), Some("n2"));
        } else {
            w.remove("big");
        }
        stop(&mut w, 1, "low");
        w.create("next", cpu("1"));
        w.pass(SECOND);
        assert_eq!(w.host("next").as_deref(), Some("n1"), "elsewhere: {elsewhere}");
    }
}

#[test]
fn room_is_given_back_though_the_word_of_it_is_lost() {
    let mut w = making_room();
    w.lose = |p| matches!(p, Packet::ToNode(_, ToNode::Withdraw { .. }));
    w.remove("big");
    stop(&mut w, 1, "low");
    w.create("next", cpu("1"));
    w.pass(SECOND);
    assert_eq!(w.host("next"), None, "the room is still kept");
    w.lose = |_| false;
    w.pass(Book::ASK + 10 * SECOND);
    assert_eq!(w.host("next").as_deref(), Some("n1"));
}

#[test]
fn room_that_is_wanted_is_kept_on_over_a_new_leader() {
    let mut w = making_room();
    w.lose = |p| matches!(p, Packet::ToNode(_, ToNode::Preempt { .. }));
    w.pass(Book::ASK - SECOND / 10);
    // The new leader is asked before anybody has answered it: it goes by what is written.
    w.lose = |p| matches!(p, Packet::ToNode(_, ToNode::Preempt { .. } | ToNode::Tender { .. }));
    w.change_leader();
    w.pass(SECOND / 5);
    let worker = &w.workers[&node_id(1)];
    assert_eq!(worker.book().kept_for().collect::<Vec<_>>(), [w.uid("big").to_string()]);
}

#[test]
fn an_eviction_that_is_lost_or_forgotten_is_planned_again() {
    let mut w = World::new();
    w.add_node(1, "1");
    w.create("low", cpu("1"));
    w.settle();
    // The offer is taken, and the node never hears of it.
    w.lose = |p| matches!(p, Packet::ToNode(_, ToNode::Preempt { .. }));
    w.create("big", important("1"));
    w.pass(SECOND / 2);
    assert!(!is_going(&w, "low"));
    w.lose = |_| false;
    // The node restarts with its eviction under way.
    w.hold_errands = true;
    w.pass(2 * SECOND);
    w.asked.retain(|(asker, _)| !matches!(asker, Asker::Node(..)));
    w.running.insert(w.uid("low"));
    w.start_worker(1);
    w.hold_errands = false;
    w.pass(25 * SECOND);
    assert!(is_going(&w, "low"));
    stop(&mut w, 1, "low");
    w.pass(SECOND);
    assert_eq!(w.host("big").as_deref(), Some("n1"));
}

#[test]
fn a_new_leader_does_not_evict_more() {
    let mut w = World::new();
    w.add_node(1, "2");
    w.create("a", cpu("1"));
    w.create("b", cpu("1"));
    w.settle();
    w.create("big", important("1"));
    w.settle();
    w.change_leader();
    w.pass(20 * SECOND);
    assert_eq!(["a", "b"].iter().filter(|p| is_going(&w, p)).count(), 1);
}
