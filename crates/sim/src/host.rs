//! A node that runs pods: the worker that ships, and a stand-in for whoever has a container runtime.
//!
//! What runs outlives the process that started it; what the process knows does not.

use base::{NodeId, Now, Time, Uid, Wall};
use decide::schedule::{NODE_ID, NodeFacts};
use node::assignment::Assignment;
use node::scheduling::{Refused, Worker};
use objects::Tree;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// A node, running or not.
pub struct Host {
    /// Which start of it this is.
    pub boot: u64,
    /// `None` while it is down.
    pub worker: Option<Worker>,
    /// Its Node object.
    pub tree: Tree,
    /// Its steady clock: where it began, in nanoseconds, and its rate in thousandths.
    start_ns: u64,
    rate: u64,
    /// When it is woken next, in virtual nanoseconds.
    pub woken_at: u64,
    /// What runs, whoever started it.
    pub runs: BTreeSet<Uid>,
    /// What has run to its end: its containers are found again as well.
    pub done: BTreeSet<Uid>,
    /// What runs and was bound here no longer when the process found it: on its way out.
    pub strays: BTreeSet<Uid>,
    /// What the process was handed, by name.
    pub handed: BTreeMap<String, Handed>,
    /// It hears nothing until then, and nothing of what it says arrives until then.
    pub deaf_until: u64,
    /// See [`Host::deaf_until`].
    pub mute_until: u64,
}

/// A pod the process was handed.
#[derive(Clone, Debug)]
pub struct Handed {
    /// Its uid.
    pub uid: Uid,
    /// Its user wants it gone.
    pub going: bool,
    /// It has been failed, or has finished.
    pub over: bool,
}

/// What is to be done about a pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Start it.
    Start,
    /// Stop it, and then say that it has gone.
    Stop,
    /// Say in its status that it has failed.
    Fail,
    /// It has ended, or its status says so: nothing of it may run, and it takes no room.
    Over,
}

/// The id of a host.
pub fn id(host: usize) -> NodeId {
    NodeId([host as u8 + 1; 32])
}

/// The name of a host.
pub fn name(host: usize) -> String {
    format!("n{host}")
}

impl Host {
    /// A node that was never started.
    pub fn new(host: usize, cpu: u64, start_ns: u64, rate: u64) -> Host {
        let name = name(host);
        let zone = if host.is_multiple_of(2) { "even" } else { "odd" };
        let tree = json!({
            "metadata": {"name": name, "annotations": {NODE_ID: id(host).to_string()},
                "labels": {"kubernetes.io/hostname": name, "zone": zone}},
            "spec": {},
            "status": {"allocatable": {"cpu": cpu.to_string(), "pods": "8"}},
        });
        Host {
            boot: 0,
            worker: None,
            tree,
            start_ns,
            rate,
            woken_at: u64::MAX,
            runs: BTreeSet::new(),
            done: BTreeSet::new(),
            strays: BTreeSet::new(),
            handed: BTreeMap::new(),
            deaf_until: 0,
            mute_until: 0,
        }
    }

    /// What its clocks say.
    pub fn clock(&self, now_ns: u64) -> Now {
        Now { mono: Time(self.start_ns + now_ns / 1_000 * self.rate), wall: Wall(crate::keeper::EPOCH_MS) }
    }

    /// When its steady clock will say this, in virtual nanoseconds.
    pub fn when(&self, at: Time) -> u64 {
        at.0.saturating_sub(self.start_ns).div_ceil(self.rate) * 1_000
    }

    /// What its Node object says.
    pub fn facts(&self) -> NodeFacts {
        NodeFacts::of(&self.tree)
    }

    /// Power is not cut, the process is gone.
    pub fn crash(&mut self) {
        self.worker = None;
        self.handed.clear();
        self.strays.clear();
        self.woken_at = u64::MAX;
    }

    /// Takes what was handed to it. What is to be done about which pod follows.
    pub fn take(&mut self, assignment: &Assignment, refused: &[Refused]) -> Vec<(Uid, Act)> {
        let mut acts = Vec::new();
        let mut gone: Vec<String> = Vec::new();
        if assignment.whole {
            let named: BTreeSet<&str> =
                assignment.pods.iter().filter(|(_, p)| p.is_some()).map(|(n, _)| &**n).collect();
            gone.extend(self.handed.keys().filter(|n| !named.contains(n.as_str())).cloned());
            // What runs and nobody knows of any more is stopped.
            let uids: BTreeSet<Uid> = assignment.pods.iter().filter_map(|(_, p)| Some(p.as_ref()?.meta.uid)).collect();
            let known: BTreeSet<Uid> = self.handed.values().map(|h| h.uid).collect();
            let stray = self.runs.iter().filter(|u| !uids.contains(u) && !known.contains(u));
            for uid in stray.copied().collect::<Vec<Uid>>() {
                if self.strays.insert(uid) {
                    acts.push((uid, Act::Stop));
                }
            }
        }
        gone.extend(assignment.pods.iter().filter(|(_, p)| p.is_none()).map(|(n, _)| n.to_string()));
        for name in gone {
            if let Some(handed) = self.handed.remove(&name)
                && !handed.going
            {
                acts.push((handed.uid, Act::Stop));
            }
        }
        for (name, pod) in &assignment.pods {
            let Some(pod) = pod else { continue };
            let uid = pod.meta.uid;
            let going = pod.meta.deletion.is_some();
            let phase = pod.meta.field("status.phase");
            let over = matches!(phase, "Succeeded" | "Failed") || self.done.contains(&uid);
            let old = self.handed.remove(&**name);
            if let Some(other) = old.as_ref().filter(|h| h.uid != uid && !h.going) {
                acts.push((other.uid, Act::Stop));
            }
            let was = old.as_ref().filter(|h| h.uid == uid);
            if refused.iter().any(|r| r.uid == uid) {
                if !was.is_some_and(|h| h.over) && !over {
                    acts.push((uid, Act::Fail));
                }
                if going && !was.is_some_and(|h| h.going) {
                    acts.push((uid, Act::Stop));
                }
                self.handed.insert(name.to_string(), Handed { uid, going, over: true });
                continue;
            }
            if over && !was.is_some_and(|h| h.over) {
                acts.push((uid, Act::Over));
            }
            let over = over || was.is_some_and(|h| h.over);
            if going && !was.is_some_and(|h| h.going) {
                acts.push((uid, Act::Stop));
            } else if !going && !over && was.is_none() && !self.runs.contains(&uid) {
                acts.push((uid, Act::Start));
            }
            self.handed.insert(name.to_string(), Handed { uid, going, over });
        }
        acts
    }
}
