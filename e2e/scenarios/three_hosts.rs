//! Three hosts on one kernel, each a whole mesh of one: none meets another but over the network, and what becomes of
//! one is nothing to the others.

use crate::hosts::{Host, Hosts, story};
use crate::with_pods::{SOON, get};
use anyhow::{Context, Result, ensure};
use e2e::{Loss, until};
use std::net::{SocketAddr, UdpSocket};

/// The same on each: the same names, the same ports, and by and by the same addresses of pods.
const WEB: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: 'nginx:1.14.2', ports: [{containerPort: 80, hostPort: 8081}]}
  - {name: asks, image: 'busybox:1.36', command: [sleep, '100000']}
";

/// Which containers a host's pod has, and how often they were restarted.
fn containers(host: &Host) -> Result<String> {
    let all = "jsonpath={range .status.containerStatuses[*]}{.containerID} {.restartCount} {.ready}\n{end}";
    host.kubectl.ok(&["get", "pod", "web", "-o", all])
}

/// The pod of one host is answered by that of another, by the host's port. One attempt is short, so that there is
/// another.
fn reaches(from: &Host, at: &Host) -> Result<()> {
    let fetch = format!("timeout 5 wget -q -O - http://{}:8081/", at.machine.address());
    until(&format!("an answer for {} from {}", from.machine.name(), at.machine.name()), SOON, || {
        let answer = from.kubectl.run(&["exec", "web", "-c", "asks", "--", "sh", "-c", &fetch])?;
        Ok(answer.stdout.contains("1.14.2").then_some(()))
    })
}

/// What one host sends to another is lost, and nothing of it arrives.
fn is_silent(mesh: &Hosts, from: &Host, at: &Host) -> Result<()> {
    let traffic = || mesh.network.traffic(from.machine.name(), at.machine.name());
    let before = traffic()?;
    let socket = from.machine.inside(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
    until("a lost frame", SOON, || {
        socket.send_to(b"lost", (at.machine.address(), 9))?;
        Ok((traffic()?.lost > before.lost).then_some(()))
    })?;
    assert_eq!(traffic()?.passed, before.passed);
    Ok(())
}

fn until_all_ask_all(mesh: &Hosts) -> Result<()> {
    for from in &mesh.hosts {
        for at in &mesh.hosts {
            reaches(from, at)?;
        }
    }
    Ok(())
}

/// An API write of that name is acknowledged and there.
fn writes(host: &Host, name: &str) -> Result<()> {
    host.kubectl.ok(&["create", "configmap", name])?;
    has(host, name)
}

fn has(host: &Host, name: &str) -> Result<()> {
    host.kubectl.ok(&["get", "configmap", name])?;
    Ok(())
}

#[test]
fn each_is_alone_with_its_pods_and_its_troubles() -> Result<()> {
    story("three-hosts", &["ant", "bee", "cow"], |mesh| {
        mesh.each(|host| {
            host.kubectl.ok_with(&["apply", "-f", "-"], WEB)?;
            host.until_ready("web")?;
            let name = host.machine.name();
            assert_eq!(host.kubectl.ok(&["get", "nodes", "-o", "name"])?, format!("node/{name}\n"));
            for program in ["beemesh", "containerd"] {
                assert_eq!(host.machine.processes(program)?.len(), 1, "{program} on {name}");
            }
            let outside = SocketAddr::from((host.machine.address(), 8081));
            ensure!(until("the host's port", SOON, || Ok(get(outside, "/").ok()))?.contains("1.14.2"));
            writes(host, "before")
        })?;
        until_all_ask_all(mesh)?;

        // One loses its power: the others answer, write and run on.
        let before = [containers(&mesh.hosts[1])?, containers(&mesh.hosts[2])?];
        let of_ant = containers(&mesh.hosts[0])?;
        mesh.hosts[0].power_cut(Loss::Everything)?;
        let [ant, bee, cow] = &mesh.hosts[..] else { unreachable!() };
        for (host, other) in [(bee, cow), (cow, bee)] {
            writes(host, "without-ant")?;
            reaches(host, other)?;
            is_silent(mesh, host, ant)?;
        }
        assert_eq!([containers(bee)?, containers(cow)?], before, "the same containers, never restarted");
        mesh.hosts[0].node.start_again()?;
        let [ant, bee, cow] = &mesh.hosts[..] else { unreachable!() };
        has(ant, "before")?;
        until("new containers", SOON, || {
            let now = containers(ant)?;
            let is_new = |line: &str| line.ends_with(" true") && !of_ant.lines().any(|old| old == line);
            Ok((now.lines().count() == 2 && now.lines().all(is_new)).then_some(()))
        })?;

        // One stands still and goes on.
        cow.machine.freeze()?;
        is_silent(mesh, ant, cow)?;
        reaches(ant, bee)?;
        writes(bee, "without-cow")?;
        cow.machine.thaw()?;
        writes(cow, "after")?;
        assert_eq!(containers(cow)?, before[1], "the same containers, never restarted");
        until_all_ask_all(mesh)?;

        // All at once.
        mesh.each(|host| host.power_cut(Loss::Everything))?;
        mesh.each(|host| {
            host.node.start_again()?;
            host.ready()?;
            has(host, "before").context("what was acknowledged is there")
        })?;
        until_all_ask_all(mesh)
    })
}
