//! A pod's whole life, told one story at a time.

use super::api::{condition, wall};
use super::world::{World, facts};
use node::pods::{Config, Pods};
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) fn container(name: &str, image: &str) -> Value {
    json!({"name": name, "image": image, "imagePullPolicy": "IfNotPresent"})
}

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[test]
fn a_pod_runs_and_its_cell_is_told_all_of_it() {
    let mut w = World::new();
    let uid = w.create("web", json!({"containers": [container("c", "run")]}));
    w.wait("web", "Running");
    w.go(seconds(2));
    let pod = w.pod("web");
    let s = &pod["status"];
    assert_eq!(w.rt.running(&uid), ["c"]);
    for (ty, want) in [
        ("PodReadyToStartContainers", "True"),
        ("Initialized", "True"),
        ("ContainersReady", "True"),
        ("Ready", "True"),
        ("PodScheduled", "True"),
    ] {
        assert_eq!(condition(&pod, ty), want, "{ty}");
    }
    let c = &s["containerStatuses"][0];
    assert_eq!((&c["ready"], &c["started"], &c["restartCount"]), (&json!(true), &json!(true), &json!(0)));
    assert_eq!(c["imageID"], "sha256:run");
    assert!(c["containerID"].as_str().unwrap().starts_with("containerd://"));
    assert!(s["podIP"].as_str().unwrap().starts_with("10.42.0."));
    assert_eq!((&s["hostIP"], &s["qosClass"]), (&json!("192.0.2.1"), &json!("BestEffort")));
    assert_eq!(s["observedGeneration"], 1);
    assert_eq!(w.api.reasons("web"), ["Pulling", "Pulled", "Created", "Started"]);
    assert_eq!(w.api.phases["web"], ["Running"]);
    assert_eq!(w.api.writes, 1, "a pod that starts within a second is written once");
    assert!(w.api.refused.is_empty(), "{:?}", w.api.refused);
}

#[test]
fn a_container_that_fails_waits_twice_as_long_each_time() {
    let mut w = World::new();
    w.create("bad", json!({"containers": [container("c", "exit-1-1")]}));
    let mut starts = Vec::new();
    for n in 1..=4 {
        assert!(w.until(seconds(600), |w| w.rt.starts_of("c") >= n));
        starts.push(w.now.mono.as_ms() / 1000);
    }
    let waits: Vec<u64> = starts.windows(2).map(|p| p[1] - p[0]).collect();
    assert_eq!(waits, [1, 11, 21]);
    w.go(seconds(5));
    let c = w.pod("bad")["status"]["containerStatuses"][0].clone();
    assert_eq!(c["restartCount"], 3);
    assert_eq!(c["state"]["waiting"]["reason"], "CrashLoopBackOff");
    let message = c["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.starts_with("back-off 40s restarting failed container=c pod=bad_d("), "{message}");
    assert_eq!(c["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(w.phase("bad"), "Running");
    let dead = w.rt.containers.len();
    assert_eq!(dead, 1, "dead containers but the last are removed");
    let uid = w.pod("bad")["metadata"]["uid"].as_str().unwrap().to_owned();
    let files = [format!("/logs/{uid}/c/0.log"), format!("/pods/{uid}/containers/c/0")];
    assert_eq!(w.rt.removed_files[..2], files, "with their logs and last words");
}

#[test]
fn ten_minutes_of_running_make_up_for_failures() {
    let mut w = World::new();
    w.create("slow", json!({"containers": [container("c", "exit-1-700")]}));
    let mut starts = Vec::new();
    for n in 1..=4 {
        assert!(w.until(seconds(3000), |w| w.rt.starts_of("c") >= n));
        starts.push(w.now.mono.as_ms() / 1000);
    }
    let waits: Vec<u64> = starts.windows(2).map(|p| p[1] - p[0]).collect();
    assert_eq!(waits, [700, 700, 700]);
}

#[test]
fn a_pod_that_never_restarts_ends_with_its_containers() {
    for (image, phase) in [("exit-0-5", "Succeeded"), ("exit-1-1", "Failed")] {
        let mut w = World::new();
        let uid = w.create("job", json!({"restartPolicy": "Never", "containers": [container("c", image)]}));
        w.wait("job", phase);
        w.go(seconds(30));
        assert_eq!(w.rt.starts_of("c"), 1);
        assert!(w.ended.contains(&uid));
        assert!(w.rt.sandboxes.values().all(|s| !s.ready));
        let pod = w.pod("job");
        assert_eq!(condition(&pod, "Ready"), "False");
        assert!(pod["status"]["podIP"].is_string(), "it keeps the address it had");
        w.delete("job", 30);
        assert!(w.until(seconds(10), |w| w.is_gone("job", &uid)));
        assert_eq!(w.rt.removed_pods, [uid]);
    }
}

#[test]
fn a_pods_object_is_known_as_long_as_it_is_bound_also_cut_off_and_after_its_end() {
    let mut w = World::new();
    let uid = w.create("job", json!({"restartPolicy": "Never", "containers": [container("c", "exit-0-5")]}));
    assert_eq!(w.pods.object(&uid), None, "it has not been told of it");
    w.wait("job", "Running");
    w.restart();
    w.api.feed.clear();
    w.api.down = Some(503);
    w.go(seconds(1));
    let found = w.pods.object(&uid).unwrap();
    assert_eq!((&found["metadata"]["name"], &found["spec"]["nodeName"]), (&json!("job"), &json!(&*facts().name)));
    w.api.down = None;
    w.api.feed.push_back(w.api.whole());
    w.wait("job", "Succeeded");
    w.go(seconds(30));
    assert_eq!(w.pods.object(&uid).unwrap()["status"]["phase"], "Succeeded");
    assert_eq!(w.pods.object("another"), None);
    w.delete("job", 30);
    assert!(w.until(seconds(10), |w| w.is_gone("job", &uid)));
    w.go(seconds(5));
    assert_eq!(w.pods.object(&uid), None);
}

#[test]
fn memory_of_a_pod_that_has_ended_is_given_back_while_its_object_stays() {
    for (volume, emptied) in [(json!({"medium": "Memory"}), true), (json!({}), false)] {
        let mut w = World::new();
        let mut c = container("c", "exit-0-5");
        c["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        let volumes = json!([{"name": "v", "emptyDir": volume}]);
        let uid = w.create("job", json!({"restartPolicy": "Never", "containers": [c], "volumes": volumes}));
        w.wait("job", "Succeeded");
        w.go(seconds(100));
        let once: &[String] = if emptied { std::slice::from_ref(&uid) } else { &[] };
        assert_eq!(w.rt.emptied_pods, once);
        assert!(w.rt.removed_pods.is_empty());
        w.delete("job", 30);
        assert!(w.until(seconds(10), |w| w.is_gone("job", &uid)));
        assert_eq!((w.rt.emptied_pods.len(), &w.rt.removed_pods), (once.len(), &vec![uid]));
    }
}

#[test]
fn a_deleted_pod_goes_only_when_nothing_of_it_runs() {
    let mut w = World::new();
    let uid = w.create("web", json!({"containers": [container("a", "polite"), container("b", "run")]}));
    w.wait("web", "Running");
    w.delete("web", 30);
    assert!(w.until(seconds(60), |w| w.is_gone("web", &uid)));
    assert!(w.rt.containers.is_empty());
    assert_eq!(w.rt.stops.len(), 2);
    assert!(w.rt.stops.iter().all(|(_, grace)| *grace == seconds(30)));
    assert_eq!(w.api.phases["web"].last().unwrap(), "Failed");
    assert!(w.until(seconds(1), |w| w.api.reasons("web").contains(&"Killing".to_owned())));
    assert_eq!(w.rt.removed_pods, [uid]);
    assert!(w.api.refused.is_empty(), "{:?}", w.api.refused);
}

#[test]
fn a_pod_whose_object_vanishes_is_killed() {
    let mut w = World::new();
    let uid = w.create("web", json!({"terminationGracePeriodSeconds": 7, "containers": [container("c", "run")]}));
    w.wait("web", "Running");
    w.delete("web", 0);
    assert!(w.until(seconds(60), |w| w.is_gone("web", &uid)));
    assert_eq!(w.rt.stops, [("c".to_owned(), seconds(7))]);
    assert!(w.ended.contains(&uid));
}

#[test]
fn a_daemon_that_is_killed_restarts_no_container() {
    let mut w = World::new();
    let uid = w.create("web", json!({"containers": [container("a", "run"), container("b", "run")]}));
    w.wait("web", "Running");
    w.go(seconds(3));
    let before = w.pod("web")["status"].clone();
    for _ in 0..5 {
        w.restart();
        w.go(seconds(60));
    }
    assert_eq!((w.rt.starts_of("a"), w.rt.starts_of("b")), (1, 1));
    assert_eq!(w.rt.running(&uid).len(), 2);
    assert_eq!(w.pod("web")["status"], before);
}

#[test]
fn after_a_reboot_pods_start_again_and_count_on() {
    let mut w = World::new();
    let uid = w.create("web", json!({"containers": [container("c", "run")]}));
    w.wait("web", "Running");
    w.reboot();
    assert!(w.until(seconds(60), |w| w.rt.running(&uid) == ["c"]));
    w.go(seconds(5));
    let c = w.pod("web")["status"]["containerStatuses"][0].clone();
    assert_eq!(c["restartCount"], 1);
    assert_eq!(c["lastState"]["terminated"]["exitCode"], 255);
    assert!(w.api.reasons("web").contains(&"SandboxChanged".to_owned()));
    assert_eq!(w.rt.made_sandboxes.iter().map(|s| s.attempt).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(w.rt.holding.len(), 1, "the addresses of the first are given back");
}

#[test]
fn a_pod_that_ended_with_the_machine_gives_its_addresses_back() {
    let mut w = World::new();
    w.create("once", json!({"restartPolicy": "Never", "containers": [container("c", "run")]}));
    w.wait("once", "Running");
    w.reboot();
    w.wait("once", "Failed");
    assert!(w.until(seconds(5), |w| w.rt.holding.is_empty()), "{:?}", w.rt.holding);
}

#[test]
fn a_restart_of_the_daemon_gives_no_new_grace() {
    let mut w = World::new();
    let mut slow = container("c", "run");
    slow["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 100}}});
    let uid = w.create("web", json!({"terminationGracePeriodSeconds": 60, "containers": [slow]}));
    w.wait("web", "Running");
    w.delete("web", 60);
    let deleted = w.now.wall;
    for _ in 0..3 {
        w.go(seconds(25));
        w.restart();
    }
    assert!(w.until(seconds(60), |w| w.is_gone("web", &uid)));
    let took = w.now.wall.since(deleted);
    assert!(took >= seconds(60) && took < seconds(80), "{took:?}");
    assert_eq!(w.rt.starts_of("c"), 1);
}

#[test]
fn cut_off_from_its_cell_a_node_runs_its_pods_on() {
    let mut w = World::new();
    let uid = w.create("web", json!({"containers": [container("c", "run")]}));
    w.wait("web", "Running");
    w.go(seconds(5));
    w.restart();
    w.api.feed.clear();
    w.api.down = Some(503);
    w.go(seconds(30));
    assert!(!w.knows());
    assert_eq!(w.rt.starts_of("c"), 1);
    w.rt.kill(w.now, "c", 1);
    assert!(w.until(seconds(60), |w| w.rt.running(&uid) == ["c"]));
    w.rt.reboot(w.now);
    w.restart();
    w.api.feed.clear();
    assert!(w.until(seconds(60), |w| w.rt.running(&uid) == ["c"]));
    w.api.down = None;
    w.api.feed.push_back(w.api.whole());
    w.go(seconds(30));
    assert_eq!(w.pod("web")["status"]["containerStatuses"][0]["restartCount"], 2);
}

#[test]
fn what_is_no_longer_bound_is_removed_but_not_before_its_cell_has_told_everything() {
    let mut w = World::new();
    let uid = w.create("web", json!({"containers": [container("c", "run")]}));
    w.wait("web", "Running");
    w.api.objects.remove(&("pods".into(), "web".into()));
    w.restart();
    let whole = w.api.feed.pop_front().unwrap();
    w.go(seconds(300));
    assert_eq!(w.rt.running(&uid), ["c"]);
    w.api.feed.push_back(whole);
    assert!(w.until(seconds(60), |w| w.is_gone("web", &uid) && w.rt.removed_pods == [uid.clone()]));
}

#[test]
fn a_refused_pod_fails_and_is_never_started() {
    let mut w = World::new();
    w.api.feed.clear();
    let uid = w.create("big", json!({"containers": [container("c", "run")]}));
    w.refuse.push(node::pods::Refusal {
        uid: uid.clone(),
        reason: "OutOfcpu".into(),
        message: "Node didn't have enough resource: cpu, requested: 9000, used: 0, capacity: 4000".into(),
    });
    w.wait("big", "Failed");
    let s = w.pod("big")["status"].clone();
    assert_eq!(s["reason"], "OutOfcpu");
    assert!(s["message"].as_str().unwrap().starts_with("Pod was rejected: Node didn't have enough resource: cpu"));
    assert!(w.rt.starts.is_empty() && w.ended.contains(&uid));
    w.delete("big", 30);
    assert!(w.until(seconds(10), |w| w.is_gone("big", &uid)));
}

#[test]
fn a_pod_may_run_so_long_only() {
    let mut w = World::new();
    w.create("late", json!({"activeDeadlineSeconds": 20, "containers": [container("c", "run")]}));
    w.wait("late", "Running");
    let start = wall(&w.pod("late")["status"]["startTime"]);
    w.wait("late", "Failed");
    assert!(w.now.wall.since(start) >= seconds(20) && w.now.wall.since(start) < seconds(22));
    let s = w.pod("late")["status"].clone();
    assert_eq!(s["reason"], "DeadlineExceeded");
    assert_eq!(s["message"], "Pod was active on the node longer than the specified deadline");
}

#[test]
fn a_dead_sandbox_takes_its_containers_with_it_into_a_new_one() {
    let mut w = World::new();
    let uid = w.create("web", json!({"containers": [container("a", "run"), container("b", "run")]}));
    w.wait("web", "Running");
    w.go(seconds(2));
    let id = w.rt.sandboxes.keys().next().unwrap().clone();
    w.rt.perform(w.now, &base::runtime::Op::StopSandbox { id }).unwrap();
    assert!(w.until(seconds(60), |w| w.rt.running(&uid).len() == 2));
    w.go(seconds(60));
    assert_eq!((w.rt.starts_of("a"), w.rt.starts_of("b")), (2, 2));
    assert_eq!(w.rt.made_sandboxes.len(), 2);
}

#[test]
fn an_object_that_is_held_stays_and_the_node_has_done_its_part() {
    let mut w = World::new();
    let uid = w.create("held", json!({"containers": [container("c", "run")]}));
    w.api.change("held", |p| p["metadata"]["finalizers"] = json!(["example.com/hold"]));
    w.wait("held", "Running");
    w.delete("held", 30);
    assert!(w.until(seconds(30), |w| w.rt.removed_pods == [uid.clone()]));
    w.go(seconds(600));
    assert_eq!(w.phase("held"), "Failed");
    assert!(w.ended.contains(&uid) && w.rt.sandboxes.is_empty());
    w.restart();
    w.go(seconds(60));
    assert!(w.rt.sandboxes.is_empty(), "it is not started again");
    w.delete("held", 0);
    w.go(seconds(10));
    assert!(w.is_gone("held", &uid));
}

#[test]
fn a_name_used_again_is_another_pod() {
    let mut w = World::new();
    let first = w.create("web", json!({"terminationGracePeriodSeconds": 5, "containers": [container("c", "run")]}));
    w.wait("web", "Running");
    w.delete("web", 0);
    let second = w.create("web", json!({"containers": [container("c", "run")]}));
    assert_ne!(first, second);
    assert!(w.until(seconds(30), |w| w.is_gone("web", &first) && w.rt.running(&second) == ["c"]));
    w.go(seconds(30));
    assert_eq!(w.pod("web")["metadata"]["uid"], second.as_str());
    assert_eq!(w.phase("web"), "Running");
    assert_eq!(w.rt.removed_pods, [first]);
}

#[test]
fn one_pod_more_than_fit_is_refused() {
    let mut w = World::new();
    w.pods = Pods::new(Config { pods_max: 2, ..Config::default() });
    w.boot();
    for name in ["a", "b", "c"] {
        w.create(name, json!({"containers": [container("c", "run")]}));
        w.go(seconds(2));
    }
    assert_eq!((w.phase("a").as_str(), w.phase("b").as_str(), w.phase("c").as_str()), ("Running", "Running", "Failed"));
    assert_eq!(w.pod("c")["status"]["reason"], "OutOfpods");
    w.delete("a", 1);
    w.go(seconds(5));
    w.create("d", json!({"containers": [container("c", "run")]}));
    w.wait("d", "Running");
}

#[test]
fn what_one_cell_says_of_its_pods_says_nothing_of_anothers() {
    let mut w = World::new();
    let uid = w.create("web", json!({"containers": [container("c", "run")]}));
    w.wait("web", "Running");
    w.go(seconds(2));
    w.restart();
    w.api.feed.clear();
    w.api.feed.push_back(node::assignment::Assignment {
        cell: base::CellId(base::Uid::from_chance(99)),
        namespace: "other".into(),
        whole: true,
        pods: Vec::new(),
    });
    w.go(seconds(60));
    assert_eq!(w.rt.running(&uid), ["c"]);
    assert_eq!(w.rt.starts_of("c"), 1);
}

#[test]
fn who_learns_late_of_a_pod_that_has_ended_is_told_so_again() {
    let mut w = World::new();
    let uid = w.create("job", json!({"restartPolicy": "Never", "containers": [container("c", "exit-0-5")]}));
    w.wait("job", "Running");
    // It ends while the daemon is away, and its cell cannot be reached at first.
    w.pass(seconds(6));
    w.restart();
    let told: Vec<_> = w.api.feed.drain(..).collect();
    w.go(seconds(10));
    assert!(w.ended.remove(&uid), "what is seen to have ended has");
    w.api.feed.extend(told);
    w.go(seconds(1));
    assert!(w.ended.contains(&uid), "whoever counts the pod only now must not count it for ever");
}
