//! The end of a run: everybody has come to the same, and it is what was promised.

use super::{QUIET, ROOT, SECOND, SERVING, World};
use crate::checks::{Checked, ensure};

impl World {
    pub(super) fn end(&mut self) -> Checked {
        ensure("liveness", self.served >= 50, || {
            format!("without faults only {} requests were answered in {} s", self.served, (QUIET - SERVING) / SECOND)
        })?;
        let pending = self.clients.iter().filter(|c| c.operation.is_some()).count();
        ensure("liveness", pending == 0, || format!("{pending} clients were never answered"))?;
        self.end_cells()?;
        self.end_keeping()?;
        self.end_gateway()?;
        self.end_pods()?;
        self.end_control()?;
        self.count();
        Ok(())
    }

    fn end_cells(&self) -> Checked {
        for (cell, truth) in &self.truths {
            let leaders = self.keepers.iter().filter(|k| k.leads(*cell)).count();
            ensure("liveness", leaders == 1, || format!("at the end {leaders} replicas lead {cell}"))?;
            for (node, k) in self.kept_by(*cell)?.into_iter().map(|n| (n, &self.keepers[n])) {
                let member = k.cell(*cell).map(node::cell::Cell::member);
                ensure("liveness", member.is_some() || k.rotten, || {
                    format!("at the end node {node} does not keep {cell}")
                })?;
                let Some(member) = member.filter(|m| !m.replica().is_lossy()) else { continue };
                let applied = member.cell().applied().0;
                ensure("liveness", applied >= truth.settled, || {
                    format!("node {node} has applied {applied} of {} entries of {cell}", truth.settled)
                })?;
                if *cell != ROOT && applied == truth.applied.index() {
                    truth.acknowledged.kept(&truth.applied, node, member)?;
                }
            }
        }
        let Some(truth) = self.watcher.cell.and_then(|c| self.truths.get(&c)) else { return Ok(()) };
        let seen = self.watcher.seen.unwrap_or_default();
        ensure("watch", seen >= truth.applied.last(), || {
            format!("the watcher has seen up to {seen:?} of {:?}", truth.applied.last())
        })
    }

    fn count(&mut self) {
        let counts = &mut self.counts;
        if let Some(pods) = &self.pods {
            counts.awards = pods.awards();
            counts.started = pods.started;
            counts.refused_pods = pods.refused;
            counts.node_crashes = pods.crashes;
            counts.node_power_cuts = pods.power_cuts;
            counts.away = pods.away;
        }
        if let Some(control) = &self.control {
            (counts.deployments, counts.made) = control.counts();
            counts.collected = control.collected;
            counts.services = control.shared.made;
            counts.returned = control.shared.returned;
        }
        counts.cells = self.truths.len() as u64;
        counts.terms = self.truths.values().map(|t| t.election.terms() as u64).sum();
        counts.events = self.watcher.told;
        counts.resumed = self.watcher.resumed;
        counts.joined = self.gateway.stream.told;
        counts.rejoined = self.gateway.resumed;
        counts.lists = self.gateway.lists;
    }
}
