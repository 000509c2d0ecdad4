//! Hosts of one mesh that are neither well nor gone: cut off one way, slow, frozen, started anew, too few.

use crate::hosts::story_of_a_mesh;
use crate::hosts_fail::{NAMES, Written, all_have_three_keepers, takes_writes};
use crate::with_pods::SOON;
use anyhow::{Context, Result, ensure};
use e2e::{Fault, Kubectl, Loss, until};
use std::time::{Duration, Instant};

/// Waits until so many more writes were acknowledged.
fn goes_on(written: &Written, more: usize) -> Result<()> {
    let wanted = written.count() + more;
    until(&format!("{more} more writes"), SOON, || Ok((written.count() >= wanted).then_some(())))
}

#[test]
fn what_is_acknowledged_survives_all_that_networks_do() -> Result<()> {
    story_of_a_mesh("hosts-suffer", &NAMES, |mesh| {
        all_have_three_keepers(mesh)?;
        let all: Vec<Kubectl> = mesh.hosts.iter().map(|host| host.kubectl.clone()).collect();
        let written = Written::default();
        let network = mesh.network.clone();

        // One does not hear another, who hears it: whoever both reach goes on, and afterwards all do.
        for (from, to, other) in [(0, 1, 2), (1, 0, 2), (2, 0, 1)] {
            let fault = Fault::one_way(NAMES[from], NAMES[to]);
            let during = || {
                network.set(&fault)?;
                let after = takes_writes(&all[other], &format!("{from}-{to}"), Instant::now())?;
                println!("{} does not reach {}: {} ms for a write", NAMES[from], NAMES[to], after.as_millis());
                goes_on(&written, 10)?;
                network.lift(&fault)?;
                for (n, kubectl) in all.iter().enumerate() {
                    let after = takes_writes(kubectl, &format!("{from}-{to}-after-{n}"), Instant::now())?;
                    println!("it does again: {} takes writes {} ms later", NAMES[n], after.as_millis());
                }
                Ok(())
            };
            let by = format!("{}-{}", NAMES[from], NAMES[to]);
            written.meanwhile(&by, &all, during).with_context(|| by.clone())?;
        }

        // Far away, and two of a hundred packets are lost.
        let slow = Fault::all_slow(Duration::from_millis(100), 2);
        let during = || {
            network.set(&slow)?;
            goes_on(&written, 20)?;
            network.lift(&slow)
        };
        written.meanwhile("slow", &all, during).context("far away")?;
        all_have_three_keepers(mesh)?;

        // One stands still, and goes on as if nothing had been.
        for (n, name) in NAMES.iter().enumerate() {
            let others: Vec<Kubectl> = (0..3).filter(|m| *m != n).map(|m| all[m].clone()).collect();
            let host = &mesh.hosts[n];
            let during = || {
                goes_on(&written, 3)?;
                host.machine.freeze()?;
                let frozen = Instant::now();
                for (m, kubectl) in others.iter().enumerate() {
                    let after = takes_writes(kubectl, &format!("frozen-{n}-{m}"), frozen)?;
                    println!("{name} is frozen: writes through another {} ms later", after.as_millis());
                }
                // Longer than anybody waits for it.
                until("twenty seconds", SOON, || Ok((frozen.elapsed() > Duration::from_secs(20)).then_some(())))?;
                host.machine.thaw()?;
                let thawed = Instant::now();
                let after = takes_writes(&all[n], &format!("thawed-{n}"), thawed)?;
                println!("{name} is thawed: it takes writes {} ms later", after.as_millis());
                Ok(())
            };
            written.meanwhile(&format!("frozen-{n}"), &others, during).with_context(|| format!("{name} frozen"))?;
        }

        // All are started anew, one after the other.
        for (n, name) in NAMES.iter().enumerate() {
            let others: Vec<Kubectl> = (0..3).filter(|m| *m != n).map(|m| all[m].clone()).collect();
            let node = &mut mesh.hosts[n].node;
            let during = || {
                goes_on(&written, 3)?;
                node.stop()?;
                node.start_again().map(drop)
            };
            written.meanwhile(&format!("anew-{n}"), &others, during).with_context(|| format!("{name} anew"))?;
        }
        for host in &mesh.hosts {
            written.are_all_at(&host.kubectl)?;
        }

        // Two of three are off: who is left says so, and names them.
        for n in [1, 2] {
            mesh.hosts[n].power_cut(Loss::Everything)?;
        }
        for kind in ["configmap", "namespace"] {
            let refused = all[0].refused(&["create", kind, "too-few", "--request-timeout=60s"], "")?;
            let names = refused.contains("bee, cow") || refused.contains("cow, bee");
            ensure!(refused.contains("2 of the 3 keepers of this cell do not answer") && names, "{refused}");
        }
        for n in [1, 2] {
            mesh.hosts[n].node.start_again()?;
        }
        for (n, kubectl) in all.iter().enumerate() {
            takes_writes(kubectl, &format!("enough-{n}"), Instant::now())?;
        }
        all_have_three_keepers(mesh)?;
        for host in &mesh.hosts {
            let count = written.are_all_at(&host.kubectl)?;
            println!("{}: {count} acknowledged writes are there", host.machine.name());
        }
        Ok(())
    })
}
