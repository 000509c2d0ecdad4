//! Hosts of one mesh fail, one after the other and all at once: whoever is left answers, nothing acknowledged is lost, and
//! nobody has to do anything.

use crate::hosts::{Hosts, story_of_a_mesh};
use crate::with_pods::SOON;
use anyhow::{Context, Result, bail, ensure};
use e2e::{Kubectl, Loss, until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) const NAMES: [&str; 3] = ["ant", "bee", "cow"];
/// A single request is given up after so long, and said again.
const ONCE: &str = "--request-timeout=30s";

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 6
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      containers:
      - {name: main, image: 'busybox:1.36', command: [sleep, '100000']}
";

/// What was acknowledged to those who wrote.
#[derive(Default)]
pub(crate) struct Written {
    names: Mutex<BTreeSet<String>>,
    stop: AtomicBool,
}

impl Written {
    /// Writes through one host until told to stop. What is refused is no failure: it says that nothing, or perhaps something, came
    /// of it.
    fn write(&self, kubectl: &Kubectl, by: &str) -> Result<()> {
        for n in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let name = format!("w-{by}-{n}");
            if kubectl.run(&["create", "configmap", &name, ONCE])?.succeeded() {
                self.names.lock().unwrap().insert(name);
            }
        }
        Ok(())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.names.lock().unwrap().len()
    }

    /// Has all of these write while something is done, each in its own thread.
    pub(crate) fn meanwhile(&self, by: &str, writers: &[Kubectl], act: impl FnOnce() -> Result<()>) -> Result<()> {
        self.stop.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let begin = |(n, kubectl)| scope.spawn(move || self.write(kubectl, &format!("{by}-{n}")));
            let threads: Vec<_> = writers.iter().enumerate().map(begin).collect();
            let done = act();
            self.stop.store(true, Ordering::Relaxed);
            threads.into_iter().try_for_each(|thread| thread.join().unwrap())?;
            done
        })
    }

    pub(crate) fn are_all_at(&self, kubectl: &Kubectl) -> Result<usize> {
        let listed = kubectl.ok(&["get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}"])?;
        let listed: BTreeSet<&str> = listed.split_whitespace().collect();
        let names = self.names.lock().unwrap();
        let lost: Vec<&String> = names.iter().filter(|n| !listed.contains(n.as_str())).collect();
        ensure!(lost.is_empty(), "acknowledged and not there: {lost:?}");
        Ok(names.len())
    }
}

/// Waits until every host keeps every cell, each with three that vote and nobody who lags behind for long.
pub(crate) fn all_have_three_keepers(mesh: &Hosts) -> Result<()> {
    for host in &mesh.hosts {
        until("three voters of every cell", SOON, || {
            let said = host.node.beemesh(&["cells", "--output", "json"])?.success()?;
            let cells: Vec<Value> = serde_json::from_str(&said)?;
            let voters =
                |cell: &Value| cell["keepers"].as_array().map(|all| all.iter().filter(|k| k["votes"] == true).count());
            let whole = |cell: &Value| cell["changing"] == false && voters(cell) == Some(3);
            Ok((cells.len() >= 6 && cells.iter().all(whole)).then_some(()))
        })
        .with_context(|| format!("at {}", host.machine.name()))?;
    }
    Ok(())
}

/// How long it takes until a host takes a write.
pub(crate) fn takes_writes(kubectl: &Kubectl, name: &str, since: Instant) -> Result<Duration> {
    let mut said = String::new();
    for n in 0..200 {
        let answer = kubectl.run(&["create", "configmap", &format!("{name}-{n}"), "--request-timeout=3s"])?;
        if answer.succeeded() {
            return Ok(since.elapsed());
        }
        said = answer.told();
    }
    bail!("no write was taken: {said}")
}

fn ready_pods(kubectl: &Kubectl, but: &str) -> Result<usize> {
    let rows = r#"jsonpath={range .items[*]}{.spec.nodeName}{" "}{.status.phase}{" "}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
    let rows = kubectl.ok(&["get", "pods", "-l", "app=web", "-o", rows, ONCE])?;
    Ok(rows.lines().filter(|r| !r.starts_with(but) && r.ends_with("Running True")).count())
}

#[test]
fn any_host_can_lose_its_power_and_then_all_at_once() -> Result<()> {
    story_of_a_mesh("hosts-fail", &NAMES, |mesh| {
        all_have_three_keepers(mesh)?;
        mesh.hosts[0].kubectl.ok_with(&["apply", "-f", "-"], WEB)?;
        let written = Written::default();
        for (n, name) in NAMES.iter().enumerate() {
            let kubectl = mesh.hosts[(n + 1) % 3].kubectl.clone();
            until("six pods", SOON, || Ok((ready_pods(&kubectl, "-")? >= 6).then_some(())))?;
            let writers: Vec<Kubectl> = (0..3).filter(|m| *m != n).map(|m| mesh.hosts[m].kubectl.clone()).collect();
            written
                .meanwhile(name, &writers, || {
                    let before = written.count();
                    until("some writes", SOON, || Ok((written.count() > before + 5).then_some(())))?;
                    let cut = Instant::now();
                    mesh.hosts[n].power_cut(Loss::Everything)?;
                    for (w, kubectl) in writers.iter().enumerate() {
                        let after = takes_writes(kubectl, &format!("after-{name}-{w}"), cut)?;
                        println!("{name} is off: writes through another gateway {} ms later", after.as_millis());
                    }
                    until("six pods elsewhere", SOON, || Ok((ready_pods(&writers[0], name)? >= 6).then_some(())))?;
                    println!("{name} is off: all pods run elsewhere {} ms later", cut.elapsed().as_millis());
                    let back = Instant::now();
                    mesh.hosts[n].node.start_again()?;
                    println!("{name} is on again and answers {} ms later", back.elapsed().as_millis());
                    Ok(())
                })
                .with_context(|| format!("without {name}"))?;
            all_have_three_keepers(mesh)?;
            for host in &mesh.hosts {
                written.are_all_at(&host.kubectl)?;
            }
        }

        // All at once.
        mesh.each(|host| host.power_cut(Loss::Everything))?;
        let on = Instant::now();
        mesh.each(|host| host.node.start_again().map(drop))?;
        println!("all were off: all answer {} ms after they were switched on", on.elapsed().as_millis());
        all_have_three_keepers(mesh)?;
        for host in &mesh.hosts {
            let all = written.are_all_at(&host.kubectl)?;
            println!("{}: {all} acknowledged writes are there", host.machine.name());
        }
        let kubectl = &mesh.hosts[0].kubectl;
        until("six pods again", SOON, || Ok((ready_pods(kubectl, "-")? >= 6).then_some(())))
    })
}
