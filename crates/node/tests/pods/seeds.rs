//! Whatever happens, in whatever order: never two live containers of one name in one pod (the runtime
//! asserts it), what is deleted goes, and what is said in the end is what is.

use super::api::condition;
use super::life::container;
use super::world::{Faults, World};
use serde_json::{Value, json};
use std::time::Duration;

fn specs() -> Vec<Value> {
    let mut lively = container("c", "run");
    lively["livenessProbe"] = json!({"exec": {"command": ["alive"]}, "periodSeconds": 5, "failureThreshold": 1});
    lively["readinessProbe"] = json!({"tcpSocket": {"port": 80}, "periodSeconds": 5});
    lively["lifecycle"] = json!({"postStart": {"exec": {"command": ["hello"]}}, "preStop": {"sleep": {"seconds": 1}}});
    let mut sidecar = container("s", "run");
    sidecar["restartPolicy"] = "Always".into();
    let mut mounted = container("c", "run");
    mounted["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    mounted["env"] = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "a"}}}]);
    let volume = json!({"name": "v", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}, {"configMap": {"name": "cm"}},
    ]}});
    vec![
        json!({"containers": [container("c", "run")]}),
        json!({"containers": [container("a", "run"), container("b", "exit-0-5")]}),
        json!({"restartPolicy": "Never", "containers": [container("c", "exit-0-5")]}),
        json!({"restartPolicy": "OnFailure", "containers": [container("c", "exit-1-1")]}),
        json!({"initContainers": [container("i", "exit-0-1"), sidecar], "containers": [lively]}),
        json!({"serviceAccountName": "default", "containers": [mounted], "volumes": [volume]}),
    ]
}

fn story(seed: u64, faults: Faults) {
    let mut w = World::wild(seed, faults);
    w.rt.ports.insert(80, 200);
    let mut pods = Vec::new();
    for (i, spec) in specs().into_iter().enumerate() {
        let name = format!("p{i}");
        let uid = w.create(&name, spec);
        pods.push((name, uid));
        w.go(Duration::from_millis(200));
    }
    w.api.put("configmaps", json!({"metadata": {"name": "cm"}, "data": {"a": "1"}}));
    w.go(Duration::from_secs(40));
    for (name, _) in &pods {
        if w.api.pod(name).is_some() {
            w.delete(name, if seed.is_multiple_of(3) { 0 } else { 5 });
        }
    }
    let kept: Vec<(String, String)> = specs()
        .into_iter()
        .enumerate()
        .map(|(i, spec)| (format!("kept{i}"), w.create(&format!("kept{i}"), spec)))
        .collect();
    w.go(Duration::from_secs(30));
    // The faults end, and all must come to rest.
    w.faults = Faults::default();
    let gone = w.until(Duration::from_secs(300), |w| pods.iter().all(|(n, u)| w.is_gone(n, u)));
    let left: Vec<_> = pods.iter().filter(|(n, u)| !w.is_gone(n, u)).map(|(n, _)| (n, w.pod(n))).collect();
    assert!(gone, "seed {seed}: still there: {left:#?}");
    // Long enough for the back-offs that have come up.
    w.go(Duration::from_secs(330));
    for (name, uid) in &kept {
        // Some end and are started again and again: what has happened this moment is not told yet.
        let same = |w: &World| {
            let pod = w.pod(name);
            told(w, &pod) == runs(w, uid)
        };
        assert!(w.until(Duration::from_secs(10), same), "seed {seed}: {name}: {:#}", w.pod(name));
        is_as_told(&w, seed, name, uid);
    }
    assert!(w.api.refused.is_empty(), "seed {seed}: {:?}", w.api.refused);
    for (name, phases) in &w.api.phases {
        let last = phases.iter().position(|p| p == "Succeeded" || p == "Failed");
        assert!(last.is_none_or(|at| at + 1 == phases.len()), "seed {seed}: {name} was {phases:?}");
    }
}

/// The containers that run, by what the cell has been told.
fn told<'a>(w: &'a World, pod: &Value) -> Vec<&'a str> {
    let lists = ["initContainerStatuses", "containerStatuses"];
    let all = lists.iter().flat_map(|l| pod["status"][l].as_array().into_iter().flatten());
    let running = all.filter(|s| s["state"]["running"].is_object());
    let ids = running.map(|s| s["containerID"].as_str().unwrap().strip_prefix("containerd://").unwrap());
    let mut names: Vec<&str> = ids.map(|id| w.rt.containers[id].seen.name.as_str()).collect();
    names.sort_unstable();
    names
}

/// The containers that run.
fn runs<'a>(w: &'a World, uid: &str) -> Vec<&'a str> {
    let mut names = w.rt.running(uid);
    names.sort_unstable();
    names
}

/// What the cell has been told is what is to be in the end.
fn is_as_told(w: &World, seed: u64, name: &str, uid: &str) {
    let (pod, runs) = (w.pod(name), runs(w, uid));
    let want = match name {
        "kept0" => ("Running", "True", vec!["c"]),
        "kept2" => (if pod["status"]["phase"] == "Failed" { "Failed" } else { "Succeeded" }, "False", vec![]),
        "kept4" => ("Running", "True", vec!["c", "s"]),
        "kept5" => ("Running", "True", vec!["c"]),
        _ => return,
    };
    let is = (pod["status"]["phase"].as_str().unwrap(), condition(&pod, "Ready"), runs);
    assert_eq!(is, want, "seed {seed}: {name}: {pod:#}");
    let sandboxes = w.rt.sandboxes.values().filter(|s| s.pod.uid == uid).count();
    // The last dead container of each name keeps the sandbox it was in.
    assert!(sandboxes <= 4, "seed {seed}: {name} has {sandboxes} sandboxes");
    let dead = w.rt.containers.len();
    assert!(dead <= 40, "seed {seed}: {dead} containers");
}

#[test]
fn in_any_order() {
    for seed in 0..20 {
        story(seed, Faults::default());
    }
}

#[test]
fn with_everything_that_can_go_wrong() {
    let faults = Faults {
        op_fails: 30_000,
        op_performed_and_lost: 30_000,
        errand_fails: 30_000,
        errand_performed_and_lost: 30_000,
        daemon_dies: 3_000,
        runtime_restarts: 2_000,
        reboots: 300,
        container_dies: 5_000,
        clock_jumps: 2_000,
    };
    for seed in 0..80 {
        story(seed, faults);
    }
}
