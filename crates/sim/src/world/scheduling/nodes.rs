//! The nodes: the worker that ships, and what it has done.

use super::asks::{GATEWAY, Then};
use super::{Act, Happening, MS, NAMESPACE, World};
use crate::checks::Checked;
use crate::keeper::EPOCH_MS;
use base::{BootId, RequestId, Time, Uid, Wall};
use node::scheduling::{Worker, WorkerEffect, WorkerInput};
use objects::request::{Body, Verb};
use serde_json::json;
use std::collections::BTreeSet;

impl World {
    pub(super) fn start_host(&mut self, host: usize) -> Checked {
        let Some(s) = &mut self.pods else { return Ok(()) };
        let h = &mut s.hosts[host];
        if h.worker.is_some() {
            return Ok(());
        }
        h.boot += 1;
        h.worker = Some(Worker::new(h.clock(self.now), BootId(h.boot)));
        let (facts, found) = (h.facts(), h.runs.clone());
        self.work(host, WorkerInput::Facts(facts))?;
        self.work(host, WorkerInput::Found(found))?;
        let cells = self.cell_of_pods().map(|c| (NAMESPACE.into(), c)).into_iter().collect();
        self.work(host, WorkerInput::Cells(cells))
    }

    pub(super) fn work(&mut self, host: usize, input: WorkerInput) -> Checked {
        let Some(s) = &mut self.pods else { return Ok(()) };
        let h = &mut s.hosts[host];
        let now = h.clock(self.now);
        let Some(worker) = &mut h.worker else { return Ok(()) };
        let mut fx = Vec::new();
        worker.step(now, input, &mut fx);
        worker.check();
        for effect in fx {
            match effect {
                WorkerEffect::Send { message, .. } => {
                    let mute = self.pods.as_ref().is_some_and(|s| s.hosts[host].mute_until > self.now);
                    for delay in if mute { Vec::new() } else { self.ways() } {
                        self.scene(delay, Happening::ToLeader { host, message: message.clone() });
                    }
                }
                WorkerEffect::Errand { id, errand } => {
                    let keepers = self.keepers.len() as u64;
                    let Some(s) = &mut self.pods else { return Ok(()) };
                    let wall = Wall(EPOCH_MS + self.now / MS);
                    let uid = Uid::from_chance(s.dice.u128());
                    let request = errand.request(RequestId(s.dice.u128()), wall, uid, s.dice.u64());
                    let (keeper, boot) = (s.dice.below(keepers) as usize, s.hosts[host].boot);
                    self.ask(keeper, request, GATEWAY, Then::Worker { host, boot, id });
                }
                WorkerEffect::Admitted { assignment, refused } => {
                    let Some(s) = &mut self.pods else { return Ok(()) };
                    let h = &mut s.hosts[host];
                    s.refused += refused.len() as u64;
                    let (acts, boot) = (h.take(&assignment, &refused), h.boot);
                    for (uid, act) in acts {
                        let most = if act == Act::Start { 300 } else { 1_000 };
                        let delay = self.pods.as_mut().map_or(0, |s| s.dice.range(1, most)) * MS;
                        self.scene(delay, Happening::Act { host, boot, uid, act });
                    }
                }
            }
        }
        self.wake_worker(host);
        Ok(())
    }

    pub(super) fn wake_worker(&mut self, host: usize) {
        let now = self.now;
        let Some(s) = &mut self.pods else { return };
        let h = &mut s.hosts[host];
        let deadline = h.worker.as_ref().and_then(Worker::next_deadline);
        let Some(at) = deadline.filter(|t| *t != Time::NEVER) else { return };
        let at = h.when(at).max(now + 1);
        if at >= h.woken_at && h.woken_at > now {
            return;
        }
        h.woken_at = at;
        let boot = h.boot;
        self.scene(at - now, Happening::WakeWorker { host, boot });
    }

    pub(super) fn act(&mut self, host: usize, uid: Uid, act: Act) -> Checked {
        let Some(s) = &mut self.pods else { return Ok(()) };
        let h = &mut s.hosts[host];
        let handed = h.handed.iter().find(|(_, p)| p.uid == uid).map(|(n, p)| (n.clone(), p.clone()));
        match act {
            Act::Start => {
                let Some((name, _)) = handed.filter(|(_, p)| !p.going && !p.over) else { return Ok(()) };
                // What runs and nobody has told it of (any more) is on its way out; nobody knows its size.
                let known: BTreeSet<Uid> = h.handed.values().map(|p| p.uid).collect();
                let others = h.runs.intersection(&known).copied().collect();
                s.award.runs(&h.facts(), uid, &others)?;
                h.runs.insert(uid);
                s.started += 1;
                self.say(&name, uid, "Running");
                Ok(())
            }
            Act::Stop => {
                h.runs.remove(&uid);
                h.strays.remove(&uid);
                self.work(host, WorkerInput::Ended { uid })?;
                if let Some((name, _)) = handed {
                    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
                        "preconditions": {"uid": uid.to_string()}});
                    let body = Body::Object { tree: options, strict: Vec::new() };
                    self.send_want(Verb::Delete, &name, "", body, Then::Node);
                }
                Ok(())
            }
            Act::Over => {
                h.runs.remove(&uid);
                self.work(host, WorkerInput::Ended { uid })
            }
            Act::Fail => {
                if let Some((name, _)) = handed {
                    self.say(&name, uid, "Failed");
                }
                Ok(())
            }
        }
    }

    /// A node says how a pod is, until it is heard. What has ended does not begin again.
    pub(super) fn say(&mut self, name: &str, uid: Uid, phase: &str) {
        let mut patch = json!([
            {"op": "test", "path": "/metadata/uid", "value": uid.to_string()},
            {"op": "add", "path": "/status/phase", "value": phase},
        ]);
        if let Some(ops) = patch.as_array_mut().filter(|_| phase == "Running") {
            let started = Wall(EPOCH_MS + self.now / MS).rfc3339();
            ops.insert(0, json!({"op": "test", "path": "/status/phase", "value": "Pending"}));
            ops.push(json!({"op": "add", "path": "/status/startTime", "value": started}));
        }
        let body = Body::Patch { kind: objects::request::PatchType::Json, bytes: patch.to_string().into() };
        self.send_want(Verb::Patch, name, "status", body, Then::Node);
    }
}
