//! How containers are, and what they say at their end: probes, readiness, termination messages, and what
//! becomes of it all in the status.

use super::api::condition;
use super::life::container;
use super::world::World;
use serde_json::{Value, json};
use std::time::Duration;

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn probed(probes: Value) -> Value {
    let mut c = container("c", "run");
    for (name, probe) in probes.as_object().unwrap() {
        c[name] = probe.clone();
    }
    json!({"containers": [c]})
}

#[test]
fn a_pod_is_ready_while_its_probe_says_so() {
    let mut w = World::new();
    w.create(
        "p",
        probed(json!({"readinessProbe": {"httpGet": {"port": 80}, "initialDelaySeconds": 5, "periodSeconds": 2, "failureThreshold": 3, "successThreshold": 2}})),
    );
    w.wait("p", "Running");
    w.rt.ports.insert(80, 200);
    w.go(seconds(4));
    assert_eq!(condition(&w.pod("p"), "Ready"), "False");
    let why =
        w.pod("p")["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap().clone();
    assert_eq!(
        (&why["reason"], &why["message"]),
        (&json!("ContainersNotReady"), &json!("containers with unready status: [c]"))
    );
    w.go(seconds(4));
    assert_eq!(condition(&w.pod("p"), "Ready"), "True");
    w.rt.ports.insert(80, 500);
    w.go(seconds(3));
    assert_eq!(condition(&w.pod("p"), "Ready"), "True", "once is not often enough");
    w.go(seconds(4));
    assert_eq!(condition(&w.pod("p"), "Ready"), "False");
    assert_eq!(w.rt.starts_of("c"), 1, "who is not ready is not restarted");
    assert!(w.api.events("p").iter().any(|e| e.1 == "Readiness probe failed: HTTP probe failed with statuscode: 500"));
}

#[test]
fn who_was_ready_stays_ready_while_the_daemon_restarts() {
    let mut w = World::new();
    w.create("p", probed(json!({"readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 10}})));
    w.rt.ports.insert(80, 200);
    w.wait("p", "Running");
    w.go(seconds(5));
    let writes = w.api.writes;
    w.restart();
    w.go(seconds(60));
    assert_eq!((condition(&w.pod("p"), "Ready"), w.api.writes), ("True", writes));
}

#[test]
fn a_container_that_is_not_alive_is_restarted_with_the_probes_own_grace() {
    let mut w = World::new();
    w.create(
        "p",
        probed(json!({"livenessProbe": {"exec": {"command": ["alive"]}, "periodSeconds": 5, "failureThreshold": 2, "terminationGracePeriodSeconds": 3}})),
    );
    w.wait("p", "Running");
    w.go(seconds(30));
    assert_eq!(w.rt.starts_of("c"), 1);
    w.rt.exec.insert("c alive".into(), 1);
    assert!(w.until(seconds(20), |w| w.rt.starts_of("c") == 2));
    w.rt.exec.clear();
    assert_eq!(w.rt.stops, [("c".to_owned(), seconds(3))]);
    w.go(seconds(60));
    assert_eq!(w.rt.starts_of("c"), 2);
    let said: Vec<String> = w.api.events("p").into_iter().map(|e| e.1).collect();
    assert!(said.contains(&"Container c failed liveness probe, will be restarted".to_owned()), "{said:?}");
    assert!(said.contains(&"Liveness probe failed: said".to_owned()), "{said:?}");
}

#[test]
fn nothing_else_is_asked_of_a_container_that_has_not_started() {
    let mut w = World::new();
    w.create(
        "p",
        probed(json!({
            "startupProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 10, "failureThreshold": 6},
            "livenessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 1},
        })),
    );
    w.go(seconds(45));
    let c = w.pod("p")["status"]["containerStatuses"][0].clone();
    assert_eq!((&c["started"], &c["ready"], w.rt.starts_of("c")), (&json!(false), &json!(false), 1));
    w.rt.ports.insert(1, 200);
    w.go(seconds(15));
    let c = w.pod("p")["status"]["containerStatuses"][0].clone();
    assert_eq!((&c["started"], &c["ready"], w.rt.starts_of("c")), (&json!(true), &json!(true), 1));
    w.rt.ports.clear();
    assert!(w.until(seconds(5), |w| w.rt.starts_of("c") == 2), "now it is asked whether it lives");
    assert!(w.until(seconds(120), |w| w.rt.starts_of("c") == 3), "a container that never starts is restarted");
    let said: Vec<String> = w.api.events("p").into_iter().map(|e| e.1).collect();
    assert!(said.contains(&"Container c failed startup probe, will be restarted".to_owned()), "{said:?}");
}

#[test]
fn a_readiness_gate_is_somebody_elses_word() {
    let mut w = World::new();
    w.create(
        "p",
        json!({"readinessGates": [{"conditionType": "example.com/ok"}], "containers": [container("c", "run")]}),
    );
    w.wait("p", "Running");
    w.go(seconds(3));
    let pod = w.pod("p");
    assert_eq!((condition(&pod, "ContainersReady"), condition(&pod, "Ready")), ("True", "False"));
    w.api.change("p", |p| {
        p["status"]["conditions"].as_array_mut().unwrap().push(json!({"type": "example.com/ok", "status": "True"}));
    });
    w.go(seconds(3));
    let pod = w.pod("p");
    assert_eq!((condition(&pod, "Ready"), condition(&pod, "example.com/ok")), ("True", "True"));
}

#[test]
fn a_container_has_last_words() {
    for (policy, code, file, log, want) in [
        ("File", 1, "bye", "log", "bye"),
        ("File", 1, "", "log", ""),
        ("FallbackToLogsOnError", 1, "", "log", "log"),
        ("FallbackToLogsOnError", 1, "bye", "log", "bye"),
        ("FallbackToLogsOnError", 0, "", "log", ""),
    ] {
        let mut w = World::new();
        let mut c = container("c", &format!("exit-{code}-5"));
        w.rt.registry.insert(format!("exit-{code}-5"));
        c["terminationMessagePolicy"] = policy.into();
        let uid = w.create("p", json!({"restartPolicy": "Never", "containers": [c]}));
        w.wait("p", "Running");
        let path = format!("/pods/{uid}/containers/c/0");
        assert!(w.rt.files.contains_key(&path));
        w.rt.files.insert(path, file.into());
        w.rt.files.insert(format!("/logs/{uid}/c/0.log"), log.into());
        w.go(seconds(10));
        let ended = w.pod("p")["status"]["containerStatuses"][0]["state"]["terminated"].clone();
        assert_eq!(ended["message"].as_str().unwrap_or_default(), want, "{policy} {code} {file}");
    }
}

#[test]
fn while_the_cell_is_out_of_reach_pods_live_and_it_is_told_later() {
    let mut w = World::new();
    w.create("p", json!({"containers": [container("c", "run")]}));
    w.wait("p", "Running");
    w.api.down = Some(503);
    w.rt.kill(w.now, "c", 3);
    w.go(seconds(100));
    assert_eq!(w.rt.starts_of("c"), 2);
    assert_eq!(w.pod("p")["status"]["containerStatuses"][0]["restartCount"], 0);
    w.api.down = None;
    w.go(seconds(40));
    let c = w.pod("p")["status"]["containerStatuses"][0].clone();
    assert_eq!((&c["restartCount"], &c["lastState"]["terminated"]["exitCode"]), (&json!(1), &json!(3)));
}

#[test]
fn without_a_runtime_nothing_is_done_and_nothing_said() {
    let mut w = World::new();
    let uid = w.create("p", json!({"containers": [container("c", "run")]}));
    w.wait("p", "Running");
    w.go(seconds(5));
    w.set_facts(|f| f.runtime = false);
    let writes = w.api.writes;
    w.create("q", json!({"containers": [container("c", "run")]}));
    w.go(seconds(60));
    assert_eq!((w.api.writes, w.phase("q").as_str()), (writes, "Pending"));
    w.set_facts(|f| f.runtime = true);
    w.wait("q", "Running");
    assert_eq!(w.rt.running(&uid), ["c"]);
    assert_eq!(w.rt.starts_of("c"), 2);
}

#[test]
fn a_pod_with_the_hosts_network_has_the_hosts_address() {
    let mut w = World::new();
    w.create("p", json!({"hostNetwork": true, "containers": [container("c", "run")]}));
    w.wait("p", "Running");
    w.go(seconds(2));
    let s = w.pod("p")["status"].clone();
    assert_eq!((&s["podIP"], &s["hostIP"]), (&json!("192.0.2.1"), &json!("192.0.2.1")));
    let hosts = w.rt.files.iter().find(|(p, _)| p.ends_with("etc-hosts")).unwrap().1.clone();
    assert!(String::from_utf8(hosts).unwrap().starts_with("# Kubernetes-managed hosts file (host network)."));
}

#[test]
fn each_life_of_a_container_has_its_own_log_and_the_last_one_stays() {
    let mut w = World::new();
    let uid = w.create("p", json!({"containers": [container("c", "exit-1-700")]}));
    w.wait("p", "Running");
    assert!(w.until(seconds(900), |w| w.rt.starts_of("c") == 2));
    w.go(seconds(1));
    let mut logs: Vec<&str> = w.rt.containers.values().map(|c| c.seen.log_path.as_str()).collect();
    logs.sort_unstable();
    assert_eq!(logs, [format!("/logs/{uid}/c/0.log"), format!("/logs/{uid}/c/1.log")]);
}

#[test]
fn what_cannot_be_made_is_told_and_tried_again() {
    let mut w = World::new();
    w.create("p", json!({"hostUsers": false, "containers": [container("c", "run")]}));
    w.go(seconds(100));
    let told = w.api.events("p").into_iter().find(|e| e.0 == "FailedCreatePodSandBox").unwrap();
    assert_eq!(
        told.1,
        "Failed to create pod sandbox: can't set `spec.hostUsers: false`, runtime does not support user namespaces"
    );
    assert!(told.2 > 5 && told.2 < 20, "{} times", told.2);
    assert_eq!(w.pod("p")["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
}

#[test]
fn one_pod_cannot_flood_its_cell_with_events() {
    let mut w = World::new();
    let mut c = container("c", "run");
    c["readinessProbe"] = json!({"tcpSocket": {"port": 1}, "periodSeconds": 1});
    w.create("p", json!({"containers": [c]}));
    w.go(seconds(3600));
    let told = w.api.events("p").into_iter().find(|e| e.0 == "Unhealthy").unwrap();
    assert!(told.2 <= 25 + 12 + 1, "counted {} times in an hour", told.2);
    assert!(w.pods.events_dropped() > 3000);
}
