//! What a machine does to a program: the port is taken, the disk is full, the disk fails.

use anyhow::{Result, ensure};
use e2e::{Forgetful, Loss, Machine, Model, Node, Options, Place, until};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

const MIB: u64 = 1 << 20;

fn shop(node: &Node) -> Result<()> {
    node.kubectl().ok(&["create", "namespace", "shop"])?;
    Ok(())
}

#[test]
fn a_port_in_use_is_said_by_its_name() -> Result<()> {
    let place = Place::new("bad-days")?;
    let options = Options::without_pods(place.join("data"));
    let taken = TcpListener::bind(options.api())?;
    let mut node = Node::prepare(&place, options)?;
    let (status, told) = node.start_refused()?;
    ensure!(!status.success(), "{told}");
    ensure!(told.contains(&taken.local_addr()?.to_string()), "the address is named: {told}");
    drop(taken);
    node.start_again()?;
    Ok(())
}

#[test]
fn a_machine_has_one_node_that_runs_pods() -> Result<()> {
    let place = Place::new("bad-days")?;
    let machine = Arc::new(Machine::start(&place, Model::new("lamp")?)?);
    let mut node = Node::start(&place, Options::with_pods(&machine))?;
    let mut other = Node::prepare(&place, Options { data: "/var/lib/other".into(), ..Options::with_pods(&machine) })?;
    let (status, told) = other.start_refused()?;
    assert_eq!(status.code(), Some(1), "{told}");
    ensure!(told.contains("another beemesh runs pods on this machine"), "{told}");
    node.kill()?;
    other.start_again()?;
    Ok(())
}

#[test]
fn what_cannot_be_meant_is_said_before_anything_is_made() -> Result<()> {
    let place = Place::new("bad-days")?;
    let long = "a".repeat(64);
    let too_long = place.join(&"d".repeat(100));
    let none = place.join("none");
    for (data, flags, says) in [
        (&none, ["--label", "a b=c"], "a b"),
        (&none, ["--zone", "eu west"], "eu west"),
        (&none, ["--name", &*long], "63"),
        (&none, ["--registry-mirror", "https://docker.io=http://m"], "HOST=URL"),
        (&too_long, ["--name", "lamp"], "too long"),
    ] {
        let mut options = Options::without_pods(data.clone());
        options.flags.extend(flags.map(str::to_owned));
        let (status, told) = Node::prepare(&place, options)?.start_refused()?;
        assert_eq!(status.code(), Some(1), "{flags:?}: {told}");
        ensure!(told.contains(says), "{flags:?}: {told}");
        ensure!(!data.exists(), "{flags:?} left something behind");
    }
    Ok(())
}

#[test]
fn a_failed_sync_ends_the_node_and_loses_nothing_acknowledged() -> Result<()> {
    let place = Place::new("bad-days")?;
    let disk = Forgetful::mount(&place.join("disk"), 1024 * MIB)?;
    let mut node = Node::start(&place, Options::without_pods(disk.path().join("data")))?;
    shop(&node)?;
    node.kubectl().ok(&["create", "configmap", "before", "-n", "shop"])?;
    disk.fail_syncs(true);
    node.kubectl().refused(&["create", "configmap", "during", "-n", "shop", "--request-timeout=10s"], "")?;
    let status = node.wait_for_its_end()?;
    assert_eq!(status.code(), Some(6), "{}", node.log_tail());
    // After a failed sync nobody knows what the disk holds: the worst is that it holds nothing of it.
    disk.cut(Loss::Everything);
    disk.fail_syncs(false);
    node.start_again()?;
    node.kubectl().ok(&["get", "configmap", "before", "-n", "shop"])?;
    node.kubectl().ok(&["create", "configmap", "after", "-n", "shop"])?;
    Ok(())
}

#[test]
fn a_full_disk_refuses_what_grows_and_still_deletes() -> Result<()> {
    let place = Place::new("bad-days")?;
    let disk = Forgetful::mount(&place.join("disk"), 4096 * MIB)?;
    let node = Node::start(&place, Options::without_pods(disk.path().join("data")))?;
    shop(&node)?;
    let kubectl = node.kubectl();
    kubectl.ok(&["create", "configmap", "old", "-n", "shop"])?;
    disk.resize(0);
    // What is preallocated still takes some; a disk that takes no end of it is not full.
    let big = format!("--from-literal=a={}", "x".repeat(100_000));
    let mut told = String::new();
    for n in 0..10_000 {
        let answer = kubectl.run(&["create", "configmap", &format!("big-{n}"), "-n", "shop", &big])?;
        if !answer.succeeded() {
            told = answer.stderr;
            break;
        }
    }
    ensure!(told.contains("disk"), "the refusal names the disk: {told:?}");
    kubectl.ok(&["get", "configmap", "old", "-n", "shop"])?;
    kubectl.ok(&["delete", "configmap", "old", "-n", "shop"])?;
    disk.resize(4096 * MIB);
    // The log looks for room every two seconds: writing goes on by itself.
    until("a write after space was freed", Duration::from_secs(30), || {
        Ok(kubectl.run(&["create", "configmap", "new", "-n", "shop"])?.succeeded().then_some(()))
    })
}
