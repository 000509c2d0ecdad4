//! Containers outlive whoever started them, and whoever supervises them.

use crate::node::{Node, ended, find, in_own_namespaces, is_running, start, until};
use base::runtime::ContainerState;
use host::containerd::Registry;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn containers_outlive_containerd() {
    in_own_namespaces("daemons_die::containers_outlive_containerd", containerd_is_killed);
}

async fn containerd_is_killed(node: Node) {
    let runtime = node.start().await;
    let mut pod = node.pod(&runtime, "u1");
    pod.run().await;
    let c = pod.container("c", "sleep 1000", |_| ()).await;
    let short = pod.container("short", "while [ ! -e /proc/1/root/go ]; do sleep 0.01; done; exit 5", |_| ()).await;
    let before = until(&runtime, |s| is_running(s, &c) && is_running(s, &short)).await;

    for _ in 0..3 {
        let daemons = node.daemons();
        assert_eq!(daemons.len(), 1);
        let died = Instant::now();
        kill(Pid::from_raw(daemons[0]), Signal::SIGKILL).unwrap();
        let at = before.at;
        while runtime.perform(base::runtime::Op::FindImage { image: host::pause::NAME.into() }).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        println!("killed to answering again: {:?}", died.elapsed());
        runtime.look_now();
        let seen = until(&runtime, |s| s.at > at && is_running(s, &c)).await;
        assert_eq!(
            find(&seen, &c).unwrap().state,
            find(&before, &c).unwrap().state,
            "it runs since when it was started"
        );
        assert_eq!(pod.addresses(&seen), pod.addresses(&before));
        assert_ne!(node.daemons(), daemons);
    }
    // It is still told at once when something ends.
    assert_eq!(pod.exec(&short, "echo >/go").await.0, 0);
    let seen = until(&runtime, |s| ended(s, &short).is_some()).await;
    assert_eq!(ended(&seen, &short), Some((5, "Error".into())));
    pod.remove().await;
    runtime.end().await;
}

#[test]
fn a_new_process_finds_everything_again() {
    in_own_namespaces("daemons_die::a_new_process_finds_everything_again", found_again);
}

async fn found_again(node: Node) {
    let runtime = node.start().await;
    let mut pod = node.pod(&runtime, "u1");
    pod.run().await;
    let c = pod.container("c", "sleep 1000", |_| ()).await;
    let before = until(&runtime, |s| is_running(s, &c)).await;
    let daemons = node.daemons();
    drop(pod);
    assert_eq!(Arc::strong_count(&runtime), 1);
    drop(runtime);

    let begun = Instant::now();
    let runtime = node.start().await;
    println!("found again after {:?}", begun.elapsed());
    assert!(runtime.was_running());
    assert_eq!(node.daemons(), daemons, "the same containerd, and no second one");
    let same = |a: &base::runtime::Seen, b: &base::runtime::Seen| {
        assert_eq!((&a.sandboxes, &a.containers), (&b.sandboxes, &b.containers));
    };
    same(&runtime.seen().borrow(), &before);
    drop(runtime);

    // Another configuration, as a new release or another registry brings it: containerd alone is restarted.
    let mut config = node.config();
    config.registries = vec![Registry {
        name: "docker.io".into(),
        mirrors: vec!["http://10.77.0.1:5000".into()],
        or_itself: true,
        insecure: false,
    }];
    let runtime = start(config.clone()).await;
    assert_eq!(node.daemons(), daemons, "registries are read with every pull");
    drop(runtime);
    let written = std::fs::read_dir(node.path("data/containerd")).unwrap().flatten().map(|e| e.path());
    let file = written.filter(|p| p.extension().is_some_and(|e| e == "toml")).last().unwrap();
    let older = file.with_file_name("config-0000000000000000.toml");
    std::fs::rename(&file, &older).unwrap();
    kill(Pid::from_raw(daemons[0]), Signal::SIGKILL).unwrap();
    // Somebody else's start with the older one, as a release before this would have made it.
    let mut old = std::process::Command::new("containerd")
        .arg("--config")
        .arg(std::fs::canonicalize(&older).unwrap())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while node.daemons() != [i32::try_from(old.id()).unwrap()] {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let reaped = std::thread::spawn(move || old.wait().unwrap());
    let runtime = start(config).await;
    assert!(!runtime.was_running());
    reaped.join().unwrap();
    assert_eq!(node.daemons().len(), 1);
    assert!(!older.exists());
    let seen = until(&runtime, |s| is_running(s, &c)).await;
    same(&seen, &before);
    let mut pod = node.pod(&runtime, "u1");
    pod.id = before.sandboxes[0].id.clone();
    assert!(matches!(find(&before, &c).unwrap().state, ContainerState::Running { .. }));
    pod.remove().await;
    runtime.end().await;
}

#[test]
fn a_data_directory_that_was_moved_away_takes_its_containerd_along() {
    in_own_namespaces("daemons_die::a_data_directory_that_was_moved_away_takes_its_containerd_along", moved_away);
}

/// What a person does who begins anew and keeps what was.
async fn moved_away(node: Node) {
    let runtime = node.start().await;
    let mut pod = node.pod(&runtime, "u1");
    pod.run().await;
    let c = pod.container("c", "sleep 1000", |_| ()).await;
    until(&runtime, |s| is_running(s, &c)).await;
    let daemons = node.daemons();
    drop(pod);
    drop(runtime);
    let runtime = node.start().await;
    assert!(runtime.was_running(), "as long as it is where it was");
    drop(runtime);
    std::fs::rename(node.path("data"), node.path("kept")).unwrap();

    let runtime = node.start().await;
    assert!(!runtime.was_running());
    assert_eq!(node.daemons().len(), 1);
    assert_ne!(node.daemons(), daemons);
    let mut pod = node.pod(&runtime, "u2");
    pod.run().await;
    let c = pod.container("c", "sleep 1000", |_| ()).await;
    let seen = until(&runtime, |s| is_running(s, &c)).await;
    assert_eq!((seen.sandboxes.len(), seen.containers.len()), (1, 1), "nothing of before is taken for this node's");
    pod.remove().await;
    runtime.end().await;
}
