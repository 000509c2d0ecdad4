//! The plug is pulled: what was not synced is gone, what was acknowledged is not.

use crate::first_objects::{all_are_there, write_until_killed};
use anyhow::{Result, ensure};
use e2e::{Forgetful, Loss, Node, Options, Place};
use std::collections::BTreeSet;
use std::sync::Mutex;

const GIB: u64 = 1 << 30;

#[test]
fn what_was_acknowledged_survives_power_cuts() -> Result<()> {
    let place = Place::new("power-cuts")?;
    let disk = Forgetful::mount(&place.join("disk"), GIB)?;
    let mut node = Node::start(&place, Options::without_pods(disk.path().join("data")))?;
    node.kubectl().ok(&["create", "namespace", "shop"])?;
    let acknowledged = Mutex::new(BTreeSet::new());
    for (round, loss) in [Loss::Everything, Loss::AnySubset(1), Loss::AnySubset(2)].into_iter().enumerate() {
        write_until_killed(&mut node, u32::try_from(round)?, &acknowledged)?;
        disk.cut(loss);
        node.start_again()?;
        all_are_there(&node, &acknowledged)?;
    }
    Ok(())
}

#[test]
fn a_node_that_was_ready_is_the_same_after_a_cut() -> Result<()> {
    let place = Place::new("power-cuts")?;
    let disk = Forgetful::mount(&place.join("disk"), GIB)?;
    let mut node = Node::start(&place, Options::without_pods(disk.path().join("data")))?;
    let domain = std::fs::read(disk.path().join("data/identity/mesh.json"))?;
    node.kill()?;
    disk.cut(Loss::Everything);
    node.start_again()?;
    let after = std::fs::read(disk.path().join("data/identity/mesh.json"))?;
    ensure!(domain == after, "a node that was ready has its identity on the disk");
    Ok(())
}
