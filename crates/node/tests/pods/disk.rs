//! What pods take of the disk: a directory that outgrows its limit, and what is left of pods that are gone.

use super::api::cell;
use super::life::container;
use super::world::World;
use base::runtime::PodName;
use node::pods::Input;
use serde_json::json;
use std::time::Duration;

fn left(uids: &[&str]) -> Input {
    let pod = |uid: &&str| PodName { uid: (*uid).to_owned(), ..PodName::default() };
    Input::Left { pods: uids.iter().map(pod).collect(), cells: vec![cell()] }
}

#[test]
fn a_directory_that_outgrows_its_limit_ends_its_pod_as_the_kubelet_ends_it() {
    let mut w = World::new();
    let uid = w.create(
        "full",
        json!({"terminationGracePeriodSeconds": 600, "containers": [container("c", "run")], "volumes": [
            {"name": "free", "emptyDir": {}},
            {"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}},
        ]}),
    );
    w.wait("full", "Running");
    for (volume, bytes) in [("free", 1 << 40), ("fast", 1 << 40), ("scratch", 1 << 20)] {
        w.rt.used.insert((uid.clone(), volume.into()), bytes);
    }
    w.go(Duration::from_secs(180));
    assert_eq!(w.phase("full"), "Running", "full to its limit is not beyond it");
    w.rt.used.insert((uid.clone(), "scratch".into()), (1 << 20) + 1);
    assert!(w.until(Duration::from_secs(70), |w| w.phase("full") == "Failed"), "{}", w.pod("full")["status"]);
    let status = w.pod("full")["status"].clone();
    assert_eq!(status["reason"], "Evicted");
    assert_eq!(status["message"], "Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Mi\". ");
    assert!(w.until(Duration::from_secs(1), |w| w.api.reasons("full").contains(&"Evicted".to_owned())));
    assert_eq!(w.rt.stops.len(), 1);
    assert!(w.rt.stops[0].1 <= Duration::from_secs(2), "it keeps on writing for its whole grace");
}

#[test]
fn a_pod_whose_namespace_went_while_the_daemon_was_away_goes_too() {
    let mut w = World::new();
    let uid = w.create("web", json!({"containers": [container("c", "run")]}));
    w.wait("web", "Running");
    // The daemon that comes back knows of another cell only.
    for s in w.rt.sandboxes.values_mut() {
        let cell = s.annotations.values_mut().find(|v| **v == cell().to_string()).unwrap();
        *cell = base::CellId(base::Uid(99)).to_string();
    }
    w.api.objects.remove(&("pods".into(), "web".into()));
    w.restart();
    assert!(w.until(Duration::from_secs(60), World::knows));
    w.go(Duration::from_secs(60));
    assert_eq!(w.rt.running(&uid), ["c"], "nobody has said that it is gone");
    w.step(left(&[]));
    assert!(w.until(Duration::from_secs(60), |w| w.rt.sandboxes.is_empty()), "it is ended");
}

#[test]
fn what_is_left_of_a_pod_that_is_gone_is_removed_once_all_cells_have_told() {
    let mut w = World::new();
    let uid = w.create("web", json!({"containers": [container("c", "run")]}));
    w.wait("web", "Running");
    w.step(left(&[&uid, "gone"]));
    w.go(Duration::from_secs(1));
    assert_eq!(w.rt.removed_pods, ["gone"]);
    // A new daemon knows of nothing: what is bound here may have no sandbox (yet).
    w.restart();
    assert!(!w.knows());
    w.step(left(&["bound"]));
    assert!(w.until(Duration::from_secs(60), World::knows));
    w.go(Duration::from_secs(1));
    assert_eq!(w.rt.removed_pods, ["gone"]);
    w.step(left(&["bound", &uid]));
    w.go(Duration::from_secs(1));
    assert_eq!(w.rt.removed_pods, ["gone", "bound"]);
}
