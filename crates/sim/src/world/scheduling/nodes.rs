//! The nodes: the worker that ships, which bids and admits.

use super::asks::{GATEWAY, Then};
use super::{Happening, MS, NAMESPACE, World};
use crate::checks::Checked;
use crate::host::Up;
use crate::keeper::EPOCH_MS;
use crate::ports::Bug;
use base::runtime::Seen;
use base::{RequestId, Time, Uid, Wall};
use node::errand::Errand;
use node::pods;
use node::scheduling::{WorkerEffect, WorkerInput};
use objects::request::Request;
use std::collections::BTreeSet;
use std::sync::Arc;

impl World {
    /// A node's process starts, once there is a runtime.
    pub(super) fn start_host(&mut self, host: usize) -> Checked {
        let now = self.now;
        let cells: Vec<_> = self.cell_of_pods().map(|c| (NAMESPACE.into(), c)).into_iter().collect();
        let Some(s) = &mut self.pods else { return Ok(()) };
        let h = &mut s.hosts[host];
        if h.up.is_some() {
            return Ok(());
        }
        if h.runtime_down_until > now {
            let delay = h.runtime_down_until - now;
            self.scene(delay, Happening::Restart { host });
            return Ok(());
        }
        h.runtime.survives = self.bug == Bug::StopForgotten;
        let (seen, found): (Arc<Seen>, BTreeSet<Uid>) = h.start(now);
        let (of_pods, boot) = (h.facts_of_pods(now), h.boot);
        self.begin_node(host, boot);
        self.work(host, WorkerInput::Found(found))?;
        self.run(host, pods::Input::Node(of_pods))?;
        self.run(host, pods::Input::Seen(seen))?;
        self.scene(super::SWEEP, Happening::Sweep { host, boot });
        self.work(host, WorkerInput::Cells(cells))
    }

    pub(in crate::world) fn work(&mut self, host: usize, input: WorkerInput) -> Checked {
        let Some(s) = &mut self.pods else { return Ok(()) };
        let h = &mut s.hosts[host];
        let (now, before) = (h.clock(self.now), h.counts());
        let Some(up) = &mut h.up else { return Ok(()) };
        let mut fx = Vec::new();
        up.worker.step(now, input, &mut fx);
        up.worker.check();
        if !before.is_empty() {
            let new: BTreeSet<Uid> = h.counts().difference(&before).copied().collect();
            if let Some(up) = &h.up {
                h.late.extend(new.iter().filter(|u| up.found.contains(u) || h.early.contains(u)));
            }
        }
        for effect in fx {
            match effect {
                WorkerEffect::Send { message, .. } => {
                    for delay in self.ways_of_host(host) {
                        self.scene(delay, Happening::ToLeader { host, message: message.clone() });
                    }
                }
                WorkerEffect::Errand { id, errand } => {
                    let boot = self.boot_of_host(host);
                    self.run_errand(None, &errand, Then::Worker { host, boot, id });
                }
                WorkerEffect::Admitted { assignment, refused } => {
                    if let Some(s) = &mut self.pods {
                        s.refused += refused.len() as u64;
                    }
                    let refused = refused.into_iter().map(|r| pods::Refusal {
                        uid: r.uid.to_string(),
                        reason: r.why.reason,
                        message: r.why.message,
                    });
                    let refused = refused.collect();
                    self.run(host, pods::Input::Assigned { assignment, refused })?;
                }
            }
        }
        self.wake_worker(host);
        Ok(())
    }

    pub(super) fn boot_of_host(&self, host: usize) -> u64 {
        self.pods.as_ref().map_or(0, |s| s.hosts[host].boot)
    }

    /// A machine's errand, as a request through this gateway, or any. What it makes will have the uid.
    pub(in crate::world) fn run_errand(&mut self, keeper: Option<usize>, errand: &Errand, then: Then) -> Uid {
        let keepers = self.keepers.len() as u64;
        let wall = Wall(EPOCH_MS + self.now / MS);
        let Some(s) = &mut self.pods else { return Uid::default() };
        let uid = Uid::from_chance(s.dice.u128());
        let request: Request = errand.request(RequestId(s.dice.u128()), wall, uid, s.dice.u64());
        let keeper = keeper.unwrap_or_else(|| s.dice.below(keepers) as usize);
        self.ask(keeper, request, GATEWAY, then);
        uid
    }

    pub(super) fn wake_worker(&mut self, host: usize) {
        let now = self.now;
        let Some(s) = &mut self.pods else { return };
        let h = &mut s.hosts[host];
        let deadline = h.up.as_ref().and_then(|up| up.worker.next_deadline());
        let Some(at) = deadline.filter(|t| *t != Time::NEVER) else { return };
        let at = h.when(at).max(now + 1);
        let Some(Up { woken_at: (woken_at, _), .. }) = &mut h.up else { return };
        if at >= *woken_at && *woken_at > now {
            return;
        }
        *woken_at = at;
        let boot = h.boot;
        self.scene(at - now, Happening::WakeWorker { host, boot });
    }
}
