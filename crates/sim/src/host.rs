//! A node that runs pods: the worker and the pods' machine that ship, over a container runtime.
//!
//! What runs outlives the process that started it; what the process knows does not.

use crate::keeper::Clock;
use crate::runtime::Runtime;
use base::runtime::Seen;
use base::{BootId, NodeId, Now, Time, Uid};
use decide::schedule::{NODE_ID, NodeFacts};
use node::pods::{self, Pods};
use node::scheduling::Worker;
use objects::Tree;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A node, running or not.
pub struct Host {
    /// Which start of its process this is.
    pub boot: u64,
    /// How often its power was cut.
    pub power: u64,
    /// `None` while it is down.
    pub up: Option<Up>,
    /// Its container runtime.
    pub runtime: Runtime,
    /// The runtime does not answer until then, in virtual nanoseconds.
    pub runtime_down_until: u64,
    /// What its Node object is to say; what others write there is theirs.
    pub tree: Tree,
    /// Its clocks.
    clock: Clock,
    /// It hears nothing until then, and nothing of what it says arrives until then.
    pub deaf_until: u64,
    /// See [`Host::deaf_until`].
    pub mute_until: u64,
    /// What was run on from the node's own record before its cell told of it.
    pub early: BTreeSet<Uid>,
    /// Of that, and of what a process found, whose cell told of it when others had been admitted already: counted
    /// without question, then and after every later start.
    pub late: BTreeSet<Uid>,
}

/// The machines of a node that is up.
pub struct Up {
    /// It bids, and admits what is bound.
    pub worker: Worker,
    /// It runs what is admitted.
    pub pods: Pods,
    /// When each is woken next, in virtual nanoseconds.
    pub woken_at: (u64, u64),
    /// What was last seen of the runtime's changes, or is about to be.
    pub shown: u64,
    /// When the last sight arrives: they come in order.
    pub sight_at: u64,
    /// What had a sandbox when the process started.
    pub found: BTreeSet<Uid>,
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
    pub fn new(host: usize, cpu: u64, pods: u64, clock: Clock) -> Host {
        let name = name(host);
        let zone = if host.is_multiple_of(2) { "even" } else { "odd" };
        let tree = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "annotations": {NODE_ID: id(host).to_string()},
                "labels": {"kubernetes.io/hostname": name, "zone": zone}},
            "spec": {},
            "status": {"allocatable": {"cpu": cpu.to_string(), "pods": pods.to_string()},
                "addresses": [{"type": "InternalIP", "address": format!("192.0.2.{}", host + 1)}],
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]},
        });
        Host {
            boot: 0,
            power: 0,
            up: None,
            runtime: Runtime::default(),
            runtime_down_until: 0,
            tree,
            clock,
            deaf_until: 0,
            mute_until: 0,
            early: BTreeSet::new(),
            late: BTreeSet::new(),
        }
    }

    /// What its clocks say.
    pub fn clock(&self, now_ns: u64) -> Now {
        self.clock.now(now_ns)
    }

    /// When its steady clock will say this, in virtual nanoseconds.
    pub fn when(&self, at: Time) -> u64 {
        self.clock.when(at)
    }

    /// What it knows of itself.
    pub fn facts(&self) -> NodeFacts {
        NodeFacts::of(&self.tree)
    }

    /// What its pods are told of it.
    pub fn facts_of_pods(&self, now_ns: u64) -> Arc<pods::NodeFacts> {
        let facts = self.facts();
        Arc::new(pods::NodeFacts {
            name: facts.name.as_str().into(),
            addresses: vec![[192, 0, 2, 1].into()],
            allocatable: facts.allocatable,
            memory_bytes: 8 << 30,
            logs: "/var/log/pods".into(),
            api: Some(("10.43.0.1".into(), 443)),
            cluster_domain: "cluster.local".into(),
            cgroup_root: "/beemesh".into(),
            runtime: self.runtime_down_until <= now_ns,
            ..pods::NodeFacts::default()
        })
    }

    /// The process starts: what it sees first of the runtime, and the pods of which that had anything.
    pub fn start(&mut self, now_ns: u64) -> (Arc<Seen>, BTreeSet<Uid>) {
        let now = self.clock(now_ns);
        let seen = self.runtime.look(now.wall);
        let ready = seen.sandboxes.iter().filter(|s| s.ready);
        let found: BTreeSet<Uid> = ready.filter_map(|s| s.pod.uid.parse().ok()).collect();
        self.boot += 1;
        self.up = Some(Up {
            worker: Worker::new(now, BootId(self.boot)),
            pods: Pods::new(pods::Config::default()),
            woken_at: (u64::MAX, u64::MAX),
            shown: self.runtime.changes(),
            sight_at: now_ns,
            found: found.clone(),
        });
        (Arc::new(seen), found)
    }

    /// The pods for which it has reserved or counted room.
    pub fn counts(&self) -> BTreeSet<Uid> {
        let hosted = self.up.iter().flat_map(|up| up.worker.book().facts().hosted.keys());
        hosted.filter_map(|uid| uid.parse().ok()).collect()
    }

    /// The pods of which a process runs.
    pub fn runs(&self) -> BTreeSet<Uid> {
        self.runtime.processes().values().filter_map(|p| p.pod.uid.parse().ok()).collect()
    }
}
