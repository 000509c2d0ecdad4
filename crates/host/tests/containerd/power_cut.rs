//! After the machine has been off.

use crate::node::{Node, find, in_own_namespaces, is_running, until};
use base::runtime::{ContainerState, Op, VolumeKind};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::net::IpAddr;

#[test]
fn pods_can_be_cleared_away_and_made_again() {
    in_own_namespaces("power_cut::pods_can_be_cleared_away_and_made_again", power_cut);
}

/// Every process but this one is gone, and so is what is in memory: mounts, `/run`, networks.
fn cut() {
    assert_eq!(std::process::id(), 1, "the machine's first process is this one");
    kill(Pid::from_raw(-1), Signal::SIGKILL).unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for at in mounts.lines().rev().filter_map(|l| l.split(' ').nth(4)).filter(|at| at.contains("/data/")) {
        umount2(at, MntFlags::MNT_DETACH).unwrap();
    }
    umount2("/run", MntFlags::MNT_DETACH).unwrap();
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

async fn power_cut(node: Node) {
    let runtime = node.start().await;
    let mut pod = node.pod(&runtime, "u1");
    let memory = || VolumeKind::Empty { memory: true, bytes_max: 1 << 20 };
    let disk = || VolumeKind::Empty { memory: false, bytes_max: 0 };
    let (lost, kept) = (pod.volume("memory", memory()).await, pod.volume("disk", disk()).await);
    for at in [&lost, &kept] {
        fs::write(format!("{at}/file"), "").unwrap();
    }
    pod.run().await;
    let c = pod.container("c", "sleep 1000", |_| ()).await;
    let seen = until(&runtime, |s| is_running(s, &c)).await;
    let before = pod.addresses(&seen);
    runtime.close();
    drop(pod);
    drop(runtime);
    cut();

    let runtime = node.start().await;
    assert!(!runtime.was_running());
    let seen = runtime.seen().borrow().clone();
    let sandbox = &seen.sandboxes[0];
    assert!(!sandbox.ready && sandbox.pod.uid == "u1" && sandbox.addresses.is_empty(), "{sandbox:?}");
    let ended = &find(&seen, &c).unwrap().state;
    assert!(matches!(ended, ContainerState::Exited { code, .. } if *code != 0), "{ended:?}");
    let mut pod = node.pod(&runtime, "u1");
    pod.ask(Op::StopSandbox { id: sandbox.id.clone() }).await;
    pod.ask(Op::RemoveSandbox { id: sandbox.id.clone() }).await;

    // The pod again: what was on its disk is there, and its address was given back.
    let again = (pod.volume("memory", memory()).await, pod.volume("disk", disk()).await);
    assert_eq!(again, (lost.clone(), kept.clone()));
    assert!(!fs::exists(format!("{lost}/file")).unwrap() && fs::exists(format!("{kept}/file")).unwrap());
    pod.sandbox.attempt = 1;
    pod.run().await;
    let c = pod.container("c", "sleep 1000", |c| c.attempt = 1).await;
    let seen = until(&runtime, |s| is_running(s, &c)).await;
    assert_eq!((seen.sandboxes.len(), seen.containers.len(), seen.sandboxes[0].attempt), (1, 1, 1));
    let given = fs::read_dir(node.path("data/cni/addresses/beemesh0")).unwrap();
    let given = given.filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().parse::<IpAddr>().is_ok());
    assert_eq!((given.count(), pod.addresses(&seen).len()), (before.len(), before.len()));
    pod.remove().await;
    runtime.end().await;
}
