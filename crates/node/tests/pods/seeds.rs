//! Whatever happens, in whatever order: never two live containers of one name in one pod (the runtime
//! asserts it), what is deleted goes, and what is said in the end is what is.

use super::life::container;
use super::world::{Faults, World};
use serde_json::{Value, json};
use std::time::Duration;

fn specs() -> Vec<Value> {
    vec![
        json!({"containers": [container("c", "run")]}),
        json!({"containers": [container("a", "run"), container("b", "exit-0-5")]}),
        json!({"restartPolicy": "Never", "containers": [container("c", "exit-0-5")]}),
        json!({"restartPolicy": "OnFailure", "containers": [container("c", "exit-1-1")]}),
        json!({"initContainers": [container("i", "exit-0-1")], "containers": [container("c", "run")]}),
    ]
}

fn story(seed: u64, faults: Faults) {
    let mut w = World::wild(seed, faults);
    let mut pods = Vec::new();
    for (i, spec) in specs().into_iter().enumerate() {
        let name = format!("p{i}");
        let uid = w.create(&name, spec);
        pods.push((name, uid));
        w.go(Duration::from_millis(200));
    }
    w.go(Duration::from_secs(60));
    for (name, uid) in &pods {
        if w.api.pod(name).is_some() {
            w.delete(name, if seed.is_multiple_of(3) { 0 } else { 5 });
        }
        let _ = uid;
    }
    w.go(Duration::from_secs(30));
    // The faults end, and all must come to rest.
    w.faults = Faults::default();
    let kept = w.create("kept", json!({"containers": [container("c", "run")]}));
    let gone = w.until(Duration::from_secs(300), |w| pods.iter().all(|(n, u)| w.is_gone(n, u)));
    let left: Vec<_> = pods.iter().filter(|(n, u)| !w.is_gone(n, u)).map(|(n, _)| (n, w.pod(n))).collect();
    assert!(gone, "seed {seed}: still there: {left:#?}\n{:#?}", w.pods);
    assert!(w.until(Duration::from_secs(300), |w| w.rt.running(&kept) == ["c"]), "seed {seed}: {:#?}", w.pods);
    w.go(Duration::from_secs(30));
    let pod = w.pod("kept");
    assert_eq!(pod["status"]["phase"], "Running", "seed {seed}: {pod:#}");
    assert_eq!(super::api::condition(&pod, "Ready"), "True", "seed {seed}");
    assert!(w.api.refused.is_empty(), "seed {seed}: {:?}", w.api.refused);
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
