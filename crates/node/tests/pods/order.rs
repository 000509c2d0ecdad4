//! In which order the containers of a pod start and end: init containers, sidecars, hooks, grace.

use super::api::condition;
use super::life::container;
use super::world::World;
use serde_json::{Value, json};
use std::time::Duration;

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn names(w: &World) -> Vec<&str> {
    w.rt.starts.iter().map(|(_, n)| n.as_str()).collect()
}

fn sidecar(name: &str) -> Value {
    let mut c = container(name, "run");
    c["restartPolicy"] = "Always".into();
    c
}

fn state<'a>(pod: &'a Value, list: &str, name: &str) -> &'a Value {
    pod["status"][list].as_array().unwrap().iter().find(|s| s["name"] == name).unwrap()
}

#[test]
fn init_containers_run_one_after_the_other_before_all_else() {
    let mut w = World::new();
    w.create(
        "p",
        json!({"initContainers": [container("i1", "exit-0-5"), container("i2", "exit-0-5")], "containers": [container("c", "run")]}),
    );
    w.go(seconds(3));
    let pod = w.pod("p");
    assert_eq!((names(&w), condition(&pod, "Initialized")), (vec!["i1"], "False"));
    assert_eq!(state(&pod, "containerStatuses", "c")["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(state(&pod, "initContainerStatuses", "i2")["state"]["waiting"]["reason"], "PodInitializing");
    w.wait("p", "Running");
    w.go(seconds(2));
    let pod = w.pod("p");
    assert_eq!(names(&w), ["i1", "i2", "c"]);
    assert_eq!(condition(&pod, "Initialized"), "True");
    let i1 = state(&pod, "initContainerStatuses", "i1");
    assert_eq!((&i1["ready"], &i1["state"]["terminated"]["reason"]), (&json!(true), &json!("Completed")));
    w.restart();
    w.go(seconds(30));
    assert_eq!(names(&w), ["i1", "i2", "c"], "a restart of the daemon runs no init container again");
}

#[test]
fn an_init_container_that_fails_is_tried_again_or_fails_the_pod() {
    let spec = |policy: &str| json!({"restartPolicy": policy, "initContainers": [container("i", "exit-1-1")], "containers": [container("c", "run")]});
    let mut w = World::new();
    w.create("again", spec("Always"));
    w.go(seconds(60));
    let pod = w.pod("again");
    assert_eq!((names(&w), w.phase("again").as_str()), (vec!["i", "i", "i", "i"], "Pending"));
    assert_eq!(state(&pod, "initContainerStatuses", "i")["state"]["waiting"]["reason"], "CrashLoopBackOff");
    let mut w = World::new();
    let uid = w.create("once", spec("Never"));
    w.wait("once", "Failed");
    assert_eq!(names(&w), ["i"]);
    assert!(w.ended.contains(&uid));
}

#[test]
fn a_sidecar_starts_before_and_ends_after_what_it_serves() {
    let mut w = World::new();
    let mut first = sidecar("s1");
    first["startupProbe"] = json!({"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 100});
    let uid = w.create(
        "p",
        json!({"initContainers": [first, container("i", "exit-0-1"), sidecar("s2")], "containers": [container("c", "polite")]}),
    );
    w.go(seconds(5));
    assert_eq!(names(&w), ["s1"], "what comes after a sidecar waits until it has started");
    w.rt.ports.insert(1, 200);
    w.wait("p", "Running");
    w.go(seconds(2));
    assert_eq!(names(&w), ["s1", "i", "s2", "c"]);
    assert_eq!(condition(&w.pod("p"), "Ready"), "True");
    w.rt.kill(w.now, "s1", 1);
    w.go(seconds(5));
    assert_eq!(names(&w), ["s1", "i", "s2", "c", "s1"], "a sidecar that ended is started again, alone");
    w.delete("p", 30);
    assert!(w.until(seconds(60), |w| w.is_gone("p", &uid)));
    let stopped: Vec<&str> = w.rt.stops.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(stopped, ["c", "s2", "s1"]);
}

#[test]
fn a_job_with_a_sidecar_ends_with_its_containers() {
    let mut w = World::new();
    let uid = w.create(
        "job",
        json!({"restartPolicy": "Never", "initContainers": [sidecar("s")], "containers": [container("c", "exit-0-5")]}),
    );
    w.wait("job", "Succeeded");
    assert!(w.rt.running(&uid).is_empty());
    assert_eq!(w.rt.starts_of("s"), 1);
}

#[test]
fn a_hook_after_the_start_holds_back_the_next_and_its_failure_restarts() {
    let mut w = World::new();
    let mut first = container("a", "run");
    first["lifecycle"] = json!({"postStart": {"sleep": {"seconds": 20}}});
    w.create("slow", json!({"containers": [first, container("b", "run")]}));
    w.go(seconds(15));
    assert_eq!(names(&w), ["a"]);
    w.go(seconds(10));
    assert_eq!(names(&w), ["a", "b"]);
    let mut w = World::new();
    let mut bad = container("a", "run");
    bad["lifecycle"] = json!({"postStart": {"exec": {"command": ["false"]}}});
    w.rt.exec.insert("a false".into(), 1);
    w.create("bad", json!({"containers": [bad]}));
    w.go(seconds(8));
    assert!(w.api.reasons("bad").contains(&"FailedPostStartHook".to_owned()));
    assert!(w.rt.starts_of("a") >= 2);
    let c = w.pod("bad")["status"]["containerStatuses"][0].clone();
    assert_eq!(c["state"]["waiting"]["reason"], "CrashLoopBackOff");
}

#[test]
fn a_hook_before_the_end_uses_up_the_grace() {
    for (handler, grace_left) in [
        (json!({"sleep": {"seconds": 10}}), 20),
        (json!({"exec": {"command": ["bye"]}}), 30),
        (json!({"sleep": {"seconds": 100}}), 2),
    ] {
        let mut w = World::new();
        let mut c = container("c", "run");
        c["lifecycle"] = json!({"preStop": handler});
        let uid = w.create("p", json!({"containers": [c]}));
        w.wait("p", "Running");
        w.delete("p", 30);
        assert!(w.until(seconds(100), |w| w.is_gone("p", &uid)));
        assert_eq!(w.rt.stops, [("c".to_owned(), seconds(grace_left))], "{handler}");
    }
}

#[test]
fn a_grace_made_shorter_cuts_what_is_left() {
    let mut w = World::new();
    let mut c = container("c", "run");
    c["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 500}}});
    let uid = w.create("p", json!({"terminationGracePeriodSeconds": 600, "containers": [c]}));
    w.wait("p", "Running");
    w.delete("p", 600);
    w.go(seconds(5));
    assert_eq!(w.rt.running(&uid), ["c"]);
    w.delete("p", 8);
    assert!(w.until(seconds(4), |w| w.is_gone("p", &uid)));
}

#[test]
fn however_often_a_grace_is_shortened_the_runtime_is_asked_three_times() {
    let mut w = World::new();
    w.create("p", json!({"terminationGracePeriodSeconds": 600, "containers": [container("c", "run")]}));
    w.wait("p", "Running");
    w.no_stops = true;
    for grace in (100..=600).rev().step_by(5) {
        w.delete("p", grace);
        w.go(Duration::from_millis(10));
    }
    assert_eq!(w.unanswered_stops.len(), 2, "{:?}", w.unanswered_stops);
    w.go(seconds(90));
    assert_eq!(w.unanswered_stops.len(), 2, "{:?}", w.unanswered_stops);
    w.go(seconds(20));
    assert_eq!(w.unanswered_stops[2..], [seconds(2)], "the shortest grace is over");
    w.go(seconds(1000));
    assert_eq!(w.unanswered_stops.len(), 3, "{:?}", w.unanswered_stops);
}

#[test]
fn containers_decide_for_themselves_whether_they_start_again() {
    let mut w = World::new();
    let mut never = container("never", "exit-1-1");
    never["restartPolicy"] = "Never".into();
    never["restartPolicyRules"] = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    let mut rule = container("rule", "exit-1-5");
    rule["restartPolicy"] = "Never".into();
    rule["restartPolicyRules"] = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]);
    w.rt.registry.insert("exit-1-5".into());
    w.create("p", json!({"containers": [never, rule, container("c", "run")]}));
    w.go(seconds(60));
    assert_eq!(w.rt.starts_of("never"), 1);
    assert!(w.rt.starts_of("rule") >= 3);
    assert_eq!(w.phase("p"), "Running");
}

#[test]
fn an_ephemeral_container_joins_a_pod_that_runs() {
    let mut w = World::new();
    let uid = w.create("p", json!({"containers": [container("c", "run")]}));
    w.wait("p", "Running");
    w.api.change("p", |p| p["spec"]["ephemeralContainers"] = json!([container("debug", "run")]));
    assert!(w.until(seconds(10), |w| w.rt.running(&uid) == ["c", "debug"]));
    w.go(seconds(2));
    let pod = w.pod("p");
    assert!(state(&pod, "ephemeralContainerStatuses", "debug")["state"]["running"].is_object());
    w.rt.kill(w.now, "debug", 1);
    w.go(seconds(60));
    assert_eq!(w.rt.starts_of("debug"), 1, "it is not started again");
    assert_eq!(condition(&w.pod("p"), "Ready"), "True");
}

#[test]
fn a_container_of_another_image_replaces_the_old_one() {
    let mut w = World::new();
    w.create("p", json!({"containers": [container("c", "run")]}));
    w.wait("p", "Running");
    w.api.change("p", |p| p["spec"]["containers"][0]["image"] = "polite".into());
    assert!(w.until(seconds(30), |w| w.rt.starts_of("c") == 2));
    w.go(seconds(5));
    let c = w.pod("p")["status"]["containerStatuses"][0].clone();
    assert_eq!((&c["image"], &c["restartCount"]), (&json!("polite"), &json!(1)));
    let said = w.api.events("p").into_iter().any(|e| e.1 == "Container c definition changed, will be restarted");
    assert!(said);
}
