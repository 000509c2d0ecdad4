//! Containers outlive the daemon, and pods outlive the machine's power.

use crate::first_objects::{all_are_there, count, write_until, write_until_killed};
use crate::with_pods::{Mesh, NGINX, SOON, story, story_on};
use anyhow::{Context, Result, ensure};
use e2e::{Loss, Machine, Model, Options, until};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

/// How often the daemon is killed, unless `BEEMESH_KILLS` says otherwise.
const KILLS: u32 = 10;
/// How often the power is cut, unless `BEEMESH_CUTS` says otherwise.
const CUTS: u32 = 1;

/// A number of times, from the environment.
fn times(name: &str, otherwise: u32) -> Result<u32> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is no number of times")),
        Err(_) => Ok(otherwise),
    }
}

/// A Deployment that is never left in peace.
const RESTLESS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: restless}
spec:
  replicas: 0
  selector: {matchLabels: {app: restless}}
  template:
    metadata: {labels: {app: restless}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: 'busybox:1.36', command: [sleep, '100000']}
";

fn rolled_out(mesh: &Mesh, deployment: &str) -> Result<()> {
    mesh.kubectl.ok(&["rollout", "status", deployment, "--timeout=60s"])?;
    Ok(())
}

/// The processes of the containers and of their runtime, as the kernel knows them.
fn processes(machine: &Machine) -> Result<(BTreeSet<Pid>, BTreeSet<Pid>)> {
    let of = |name| Ok::<_, anyhow::Error>(machine.processes(name)?.into_iter().collect());
    Ok((of("httpd")?, of("containerd")?))
}

#[test]
fn no_container_notices_that_the_daemon_was_killed() -> Result<()> {
    story("daemon-killed", |mesh| {
        mesh.kubectl.ok(&["create", "namespace", "shop"])?;
        mesh.apply(NGINX)?;
        mesh.apply(RESTLESS)?;
        rolled_out(mesh, "deployment/nginx-deployment")?;
        let before = mesh.running("app=nginx")?;
        let processes_before = processes(&mesh.machine)?;
        assert_eq!(processes_before.0.len(), 3);
        let acknowledged = Mutex::new(BTreeSet::new());
        let kills = times("BEEMESH_KILLS", KILLS)?;
        for round in 0..kills {
            // Pods come and go when it is killed, each time at another moment of their lives.
            let replicas = format!("--replicas={}", 3 * (round % 2));
            mesh.kubectl.ok(&["scale", "deployment/restless", &replicas])?;
            write_until_killed(&mut mesh.node, round, &acknowledged)?;
            // Every other time it is killed again while it finds everything, each time a little later.
            if round % 2 == 1 {
                mesh.node.start_and_kill_after(Duration::from_millis(u64::from(round) * 97 % 1000))?;
            }
            mesh.node.start_again()?;
            all_are_there(&mesh.node, &acknowledged)?;
        }
        mesh.ready()?;
        mesh.kubectl.ok(&["scale", "deployment/restless", "--replicas=2"])?;
        rolled_out(mesh, "deployment/restless")?;
        assert_eq!(mesh.running("app=nginx")?, before, "the same containers, never restarted");
        assert_eq!(processes(&mesh.machine)?, processes_before, "the same processes in them, the same containerd");
        println!(
            "{} kills, {} acknowledged writes, none lost, no container restarted",
            kills + kills / 2,
            count(&acknowledged)
        );
        // What was half made or half gone at a kill is neither lost nor left.
        until(
            "two containers of the restless",
            SOON,
            || Ok((mesh.machine.processes("sleep")?.len() == 2).then_some(())),
        )
    })
}

#[test]
fn pods_come_back_after_power_cuts() -> Result<()> {
    let model = Model::new("vm")?.forgetting(Options::DATA, 4 << 30, &["containerd", "pods", "logs"]);
    story_on("power", model, |mesh| {
        mesh.kubectl.ok(&["create", "namespace", "shop"])?;
        mesh.apply(NGINX)?;
        rolled_out(mesh, "deployment/nginx-deployment")?;
        let acknowledged = Mutex::new(BTreeSet::new());
        let cuts = times("BEEMESH_CUTS", CUTS)?;
        for round in 0..cuts {
            let before = mesh.running("app=nginx")?;
            let loss = if round == 0 { Loss::Everything } else { Loss::AnySubset(round.into()) };
            write_until(&mut mesh.node, round, &acknowledged, |node| node.power_cut(loss))?;
            mesh.node.start_again()?;
            mesh.ready()?;
            all_are_there(&mesh.node, &acknowledged)?;
            let after = until("the pods' return", SOON, || {
                let now = mesh.running("app=nginx")?;
                let pairs = || before.iter().zip(&now);
                let back = now.len() == before.len() && pairs().all(|(old, new)| old.1 != new.1 && new.2 > old.2);
                Ok(back.then_some(now))
            })?;
            ensure!(before.iter().zip(&after).all(|(old, new)| old.0 == new.0), "the same pods: {before:?} {after:?}");
            rolled_out(mesh, "deployment/nginx-deployment")?;
        }
        println!("{cuts} power cuts, {} acknowledged writes, none lost, the same pods back", count(&acknowledged));
        Ok(())
    })
}
