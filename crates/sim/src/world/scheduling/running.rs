//! What nodes run: the pods' machine that ships, over a runtime that is slow, fails, does what it is asked
//! without saying so, and is away for a while.

use super::asks::Then;
use super::{Happening, MS, World};
use crate::checks::{Checked, containers};
use crate::host::Up;
use crate::world::nodes::Who;
use base::runtime::{Failure, Op, PodName, Why};
use base::{Time, Uid};
use node::pods::{self, OpId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// In events of a million, while there are faults: an operation fails, or is done and the answer is lost.
const FAILS: u32 = 15_000;
/// How often what is on the disk is gone through; the program does so every few minutes.
pub(super) const SWEEP: u64 = 6 * super::SECOND;

impl World {
    pub(super) fn run(&mut self, host: usize, input: pods::Input) -> Checked {
        let Some(s) = &mut self.pods else { return Ok(()) };
        let h = &mut s.hosts[host];
        let now = h.clock(self.now);
        let (boot, power) = (h.boot, h.power);
        let Some(up) = &mut h.up else { return Ok(()) };
        let mut fx = Vec::new();
        up.pods.step(now, input, &mut fx);
        up.pods.check();
        for effect in fx {
            match effect {
                pods::Effect::Do { id, op, .. } => {
                    let delay = self.takes(&op);
                    self.scene(delay, Happening::Op { host, boot, power, id, op: Box::new(op) });
                }
                pods::Effect::Errand { id, errand } => {
                    self.run_errand(None, &errand, Then::Pods { host, boot, id });
                }
                pods::Effect::Ended { uid } => {
                    if let Ok(uid) = uid.parse::<Uid>() {
                        self.scene(0, Happening::Ended { host, boot, uid });
                    }
                }
                pods::Effect::Look => self.scene_soon(5, Happening::Look { host, boot }),
            }
        }
        self.wake_pods(host);
        Ok(())
    }

    fn scene_soon(&mut self, most_ms: u64, happening: Happening) {
        let delay = self.pods.as_mut().map_or(0, |s| s.of_runtimes.range(1, most_ms));
        self.scene(delay * MS, happening);
    }

    /// How long an operation takes.
    fn takes(&mut self, op: &Op) -> u64 {
        let faults = self.faults;
        let Some(s) = &mut self.pods else { return 0 };
        let dice = &mut s.of_runtimes;
        let most = match op {
            Op::PullImage { .. } => 600,
            Op::RunSandbox(_) => 200,
            Op::StopContainer { .. } => 1_500,
            Op::StopSandbox { .. } => 100,
            _ => 15,
        };
        let late = faults && dice.happens(10_000);
        (if late { dice.range(100, 3_000) } else { dice.range(1, most) }) * MS
    }

    /// An operation comes to the runtime; also one whose asker is dead by now, unless the power was cut meanwhile.
    pub(super) fn operate(&mut self, host: usize, (boot, power): (u64, u64), id: OpId, op: &Op) -> Checked {
        let (now, faults) = (self.now, self.faults);
        let Some(s) = &mut self.pods else { return Ok(()) };
        let h = &mut s.hosts[host];
        let lives = h.boot == boot && h.up.is_some();
        if h.power != power || !(lives || s.of_runtimes.happens(500_000)) {
            return Ok(());
        }
        let fault = |why| Err(Failure { why, message: "a fault".into() });
        let result = if h.runtime_down_until > now {
            fault(Why::NoRuntime)
        } else if faults && s.of_runtimes.happens(FAILS) {
            fault(Why::Failed)
        } else {
            let stopped = h.runtime.stopped_by(op);
            // What it ran on from its own record after the power was back its book may refuse once the cell has told:
            // a node does not know of such a pod that it was admitted before.
            let early = |id: &str| {
                let uid = h.runtime.container(id).and_then(|(pod, _)| pod.uid.parse::<Uid>().ok());
                uid.is_some_and(|uid| h.early.contains(&uid))
            };
            for id in stopped.iter().filter(|id| !early(id)) {
                containers::stops(&s.award, &h.facts().name, &h.runtime, id)?;
            }
            let wall = h.clock(now).wall;
            let result = h.runtime.perform(wall, op);
            if let (Op::StartContainer { id }, true) = (op, result.is_ok()) {
                s.started += 1;
                containers::starts(&s.award, &h.facts().name, &h.runtime, id)?;
                self.takes_room(host, id)?;
            }
            self.show_changes(host);
            let lost = faults && self.pods.as_mut().is_some_and(|s| s.of_runtimes.happens(FAILS));
            if lost { fault(Why::TimedOut) } else { result }
        };
        if lives {
            self.scene_soon(5, Happening::Done { host, boot, id, result });
        }
        Ok(())
    }

    /// A container has begun to run: there must be room for its pod beside the others that the node counts.
    ///
    /// What runs and is not counted (any more) is on its way out, and nobody knows its size. Neither is asked about
    /// what was there before the process: a node that waited for a cell as long as it would has admitted others,
    /// and counts what that cell had started here without question when it turns up.
    fn takes_room(&mut self, host: usize, id: &str) -> Checked {
        let Some(s) = &mut self.pods else { return Ok(()) };
        let h = &mut s.hosts[host];
        let Some(uid) = h.runtime.container(id).and_then(|(pod, _)| pod.uid.parse::<Uid>().ok()) else { return Ok(()) };
        let (counted, runs, facts) = (h.counts(), h.runs(), h.facts());
        if !counted.contains(&uid) {
            h.early.insert(uid);
        }
        let asked = |u: &Uid| counted.contains(u) && !h.late.contains(u);
        let others: BTreeSet<Uid> = runs.into_iter().filter(|u| *u != uid && asked(u)).collect();
        if asked(&uid) { s.award.runs(&facts, uid, &others) } else { Ok(()) }
    }

    /// What has changed at a runtime is seen, some time.
    pub(super) fn show_changes(&mut self, host: usize) {
        let Some(s) = &mut self.pods else { return };
        let h = &mut s.hosts[host];
        let (boot, changes) = (h.boot, h.runtime.changes());
        let Some(up) = h.up.as_mut().filter(|up| up.shown < changes) else { return };
        up.shown = changes;
        self.scene_soon(30, Happening::Look { host, boot });
    }

    /// The runtime is asked for all there is. The answer comes later; none overtakes another.
    pub(super) fn look(&mut self, host: usize) {
        let now = self.now;
        let Some(s) = &mut self.pods else { return };
        let h = &mut s.hosts[host];
        if h.runtime_down_until > now {
            return;
        }
        let (boot, at, changes) = (h.boot, h.clock(now).wall, h.runtime.changes());
        let seen = Arc::new(h.runtime.look(at));
        let Some(up) = &mut h.up else { return };
        up.shown = changes;
        up.sight_at = up.sight_at.max(now + s.of_runtimes.range(1, 15) * MS);
        let delay = up.sight_at - now;
        self.scene(delay, Happening::Sight { host, boot, seen });
    }

    /// What is on the disk is gone through.
    pub(super) fn sweep(&mut self, host: usize) -> Checked {
        let cells = self.cell_of_pods().into_iter().collect();
        let Some(s) = &self.pods else { return Ok(()) };
        let h = &s.hosts[host];
        let boot = h.boot;
        let pods: Vec<PodName> = h.runtime.directories().cloned().collect();
        self.scene(SWEEP, Happening::Sweep { host, boot });
        self.run(host, pods::Input::Left { pods, cells })
    }

    /// The node's pods are told whether there is a runtime.
    pub(super) fn tell_facts_of_pods(&mut self, host: usize) -> Checked {
        let Some(s) = &self.pods else { return Ok(()) };
        let facts = s.hosts[host].facts_of_pods(self.now);
        self.run(host, pods::Input::Node(facts))
    }

    /// A container comes to its end by itself.
    pub(super) fn finish(&mut self, host: usize) {
        let now = self.now;
        let Some(s) = &mut self.pods else { return };
        let h = &mut s.hosts[host];
        let ids: Vec<String> = h.runtime.processes().keys().cloned().collect();
        let Some(id) = s.of_runtimes.pick(&ids) else { return };
        let code = i32::from(s.of_runtimes.below(3) == 0);
        h.runtime.finish(id, h.clock(now).wall, code);
        self.show_changes(host);
    }

    /// The node's process dies; its power may go with it.
    pub(super) fn crash_host(&mut self, host: usize, power: bool) {
        let now = self.now;
        let Some(s) = &mut self.pods else { return };
        let h = &mut s.hosts[host];
        h.up = None;
        s.crashes += 1;
        if power {
            h.power += 1;
            h.runtime.power_cut(h.clock(now).wall);
            s.power_cuts += 1;
        }
        self.end_reader(Who::Host(host));
    }

    pub(super) fn wake_pods(&mut self, host: usize) {
        let now = self.now;
        let Some(s) = &mut self.pods else { return };
        let h = &mut s.hosts[host];
        let deadline = h.up.as_ref().and_then(|up| up.pods.next_deadline());
        let Some(at) = deadline.filter(|t| *t != Time::NEVER) else { return };
        let at = h.when(at).max(now + MS / 10);
        let Some(Up { woken_at: (_, woken_at), .. }) = &mut h.up else { return };
        if at >= *woken_at && *woken_at > now {
            return;
        }
        *woken_at = at;
        let boot = h.boot;
        self.scene(at - now, Happening::WakePods { host, boot });
    }
}
