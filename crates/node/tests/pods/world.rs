//! The machine, a runtime and a cell, in time that passes when nothing else happens. Calmly: everything is
//! answered in order, at once. Wildly: in any order, late, with faults, all from one seed.

use super::api::{Api, cell};
use super::runtime::Runtime;
use base::runtime::{Answer, Failure, Op, Seen, Why};
use base::{Chance, Now, Time, Wall};
use node::errand::{Answered, Errand, ErrandId};
use node::pods::{Config, Effect, Input, NodeFacts, OpId, Pods, Refusal};
use objects::Tree;
use objects::status::Status;
use serde_json::Value;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How badly things go, in events of a million.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) op_fails: u32,
    pub(crate) op_performed_and_lost: u32,
    pub(crate) errand_fails: u32,
    pub(crate) errand_performed_and_lost: u32,
    pub(crate) daemon_dies: u32,
    pub(crate) runtime_restarts: u32,
    pub(crate) reboots: u32,
    pub(crate) container_dies: u32,
    pub(crate) clock_jumps: u32,
}

pub(crate) struct World {
    pub(crate) now: Now,
    pub(crate) pods: Pods,
    pub(crate) api: Api,
    pub(crate) rt: Runtime,
    pub(crate) ended: BTreeSet<String>,
    pub(crate) refuse: Vec<Refusal>,
    /// Operations asked for and not performed yet.
    ops: Vec<(OpId, Op)>,
    /// Containers do not stop: who asks is not answered.
    pub(crate) no_stops: bool,
    /// Requests to stop that were not answered, by their graces.
    pub(crate) unanswered_stops: Vec<Duration>,
    answers: Vec<(OpId, Result<Answer, Failure>)>,
    errands: Vec<(ErrandId, Errand)>,
    replies: Vec<(ErrandId, Answered)>,
    looks: usize,
    sights: VecDeque<Arc<Seen>>,
    chance: Option<Chance>,
    pub(crate) faults: Faults,
    pub(crate) steps: u64,
    pub(crate) restarts: u64,
    facts: NodeFacts,
    /// The runtime is seen without being asked when something has changed since.
    shown: u64,
    /// The last effects.
    trace: VecDeque<String>,
}

pub(crate) fn facts() -> NodeFacts {
    NodeFacts {
        name: "here".into(),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        memory_bytes: 8 << 30,
        logs: "/var/log/pods".into(),
        api: Some(("10.43.0.1".into(), 443)),
        cluster_domain: "cluster.local".into(),
        cgroup_root: "/beemesh".into(),
        runtime: true,
        ..NodeFacts::default()
    }
}

impl World {
    pub(crate) fn new() -> World {
        World::with(None, Faults::default())
    }

    pub(crate) fn wild(seed: u64, faults: Faults) -> World {
        World::with(Some(Chance::from_u64(seed)), faults)
    }

    fn with(chance: Option<Chance>, faults: Faults) -> World {
        let mut w = World {
            now: Now { mono: Time::from_ms(1_000_000), wall: Wall(1_770_000_000_000) },
            pods: Pods::new(Config::default()),
            api: Api::default(),
            rt: Runtime::default(),
            ended: BTreeSet::new(),
            refuse: Vec::new(),
            ops: Vec::new(),
            no_stops: false,
            unanswered_stops: Vec::new(),
            answers: Vec::new(),
            errands: Vec::new(),
            replies: Vec::new(),
            looks: 0,
            sights: VecDeque::new(),
            chance,
            faults,
            steps: 0,
            restarts: 0,
            facts: facts(),
            shown: 0,
            trace: VecDeque::new(),
        };
        for image in ["run", "polite", "exit-0-1", "exit-1-1", "exit-0-5", "exit-1-700", "exit-0-60", "exit-1-0"] {
            w.rt.registry.insert(image.into());
        }
        w.boot();
        w
    }

    /// A daemon starts.
    pub(crate) fn boot(&mut self) {
        self.step(Input::Node(Arc::new(self.facts.clone())));
        self.looks += 1;
        self.api.feed.clear();
        self.api.feed.push_back(self.api.whole());
    }

    /// The daemon is killed and starts again. What it had asked for may still happen.
    pub(crate) fn restart(&mut self) {
        self.restarts += 1;
        self.pods = Pods::new(Config::default());
        self.answers.clear();
        self.replies.clear();
        self.sights.clear();
        self.looks = 0;
        let ops = std::mem::take(&mut self.ops);
        for (_, op) in ops {
            if self.happens(500_000) {
                let _ = self.rt.perform(self.now, &op);
            }
        }
        let errands = std::mem::take(&mut self.errands);
        for (_, errand) in errands {
            if self.happens(500_000) {
                let _ = self.api.perform(self.now, &errand);
            }
        }
        self.boot();
    }

    pub(crate) fn reboot(&mut self) {
        self.ops.clear();
        self.rt.reboot(self.now);
        self.restart();
    }

    pub(crate) fn set_facts(&mut self, change: impl FnOnce(&mut NodeFacts)) {
        change(&mut self.facts);
        self.step(Input::Node(Arc::new(self.facts.clone())));
    }

    fn happens(&mut self, per_million: u32) -> bool {
        self.chance.as_mut().is_some_and(|c| c.happens(per_million))
    }

    fn below(&mut self, n: usize) -> usize {
        self.chance.as_mut().map_or(0, |c| c.below(n as u64) as usize)
    }

    pub(crate) fn step(&mut self, input: Input) {
        self.steps += 1;
        let mut fx = Vec::new();
        self.pods.step(self.now, input, &mut fx);
        self.pods.check();
        for effect in fx {
            self.trace.push_back(match &effect {
                Effect::Do { op, .. } => format!("{:?} {op:?}", self.now.mono),
                other => format!("{:?} {other:?}", self.now.mono),
            });
            if self.trace.len() > 20 {
                self.trace.pop_front();
            }
            match effect {
                Effect::Do { op: Op::StopContainer { grace, .. }, .. } if self.no_stops => {
                    self.unanswered_stops.push(grace);
                }
                Effect::Do { id, op, .. } => self.ops.push((id, op)),
                Effect::Errand { id, errand } => self.errands.push((id, *errand)),
                Effect::Ended { uid } => {
                    assert!(self.rt.running(&uid).is_empty(), "pod {uid} is called ended while it runs");
                    self.ended.insert(uid.to_string());
                }
                Effect::Look => self.looks += 1,
            }
        }
    }

    pub(crate) fn create(&mut self, name: &str, spec: Value) -> String {
        self.api.create(self.now, name, spec)
    }

    pub(crate) fn delete(&mut self, name: &str, grace: u64) {
        self.api.delete(self.now, name, grace);
    }

    pub(crate) fn pod(&self, name: &str) -> Tree {
        self.api.pod(name).cloned().unwrap_or(Tree::Null)
    }

    pub(crate) fn phase(&self, name: &str) -> String {
        self.pod(name)["status"]["phase"].as_str().unwrap_or_default().to_owned()
    }

    /// One thing happens; false if there is nothing left to happen now.
    fn happen(&mut self) -> bool {
        self.rt.advance(self.now);
        if self.shown != self.rt.changes {
            self.looks = self.looks.max(1);
        }
        let counts = [
            self.ops.len(),
            self.answers.len(),
            self.errands.len(),
            self.replies.len(),
            self.looks.min(1),
            self.sights.len().min(1),
            self.api.feed.len().min(1),
        ];
        let all: usize = counts.iter().sum();
        if all == 0 {
            return false;
        }
        let mut pick = self.below(all);
        let mut which = 0;
        while pick >= counts[which] {
            pick -= counts[which];
            which += 1;
        }
        match which {
            0 => self.perform(pick),
            1 => {
                let (id, result) = self.answers.remove(pick);
                self.step(Input::Done { id, result });
            }
            2 => self.decide(pick),
            3 => {
                let (id, answer) = self.replies.remove(pick);
                self.step(Input::Answered { id, answer });
            }
            4 => {
                self.looks -= 1;
                self.shown = self.rt.changes;
                let seen = self.rt.look(self.now);
                if self.facts.runtime {
                    self.sights.push_back(Arc::new(seen));
                }
            }
            5 => {
                let seen = self.sights.pop_front().unwrap();
                self.step(Input::Seen(seen));
            }
            _ => {
                let assignment = self.api.feed.pop_front().unwrap();
                let refused = self.refuse.clone();
                self.step(Input::Assigned { assignment, refused });
            }
        }
        true
    }

    fn perform(&mut self, pick: usize) {
        let (id, op) = self.ops.remove(pick);
        let fault = |why| Err(Failure { why, message: "a fault".into() });
        let result = if !self.facts.runtime {
            fault(Why::NoRuntime)
        } else if self.happens(self.faults.op_fails) {
            fault(Why::Failed)
        } else {
            let result = self.rt.perform(self.now, &op);
            if self.happens(self.faults.op_performed_and_lost) { fault(Why::TimedOut) } else { result }
        };
        self.answers.push((id, result));
    }

    fn decide(&mut self, pick: usize) {
        let (id, errand) = self.errands.remove(pick);
        let lost = || Err(Box::new(Status::timeout("a fault", 0)));
        let reply = if self.happens(self.faults.errand_fails) {
            lost()
        } else {
            let reply = self.api.perform(self.now, &errand);
            if self.happens(self.faults.errand_performed_and_lost) { lost() } else { reply }
        };
        self.replies.push((id, reply));
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        self.now.wall = self.now.wall + time;
        self.rt.advance(self.now);
    }

    /// Lets time go on to the next thing that waits for it, at most to `end`; false if nothing does.
    fn on(&mut self, end: Time) -> bool {
        let next = [self.pods.next_deadline(), self.rt.next_end()].into_iter().flatten().min();
        let at = next.unwrap_or(end).min(end).max(self.now.mono);
        if at >= end && next.is_none_or(|n| n > end) {
            let left = end.since(self.now.mono);
            self.pass(left);
            return false;
        }
        let step = at.since(self.now.mono).max(Duration::from_millis(1));
        self.pass(step);
        self.step(Input::Tick);
        true
    }

    fn mischief(&mut self) {
        let f = self.faults;
        if self.happens(f.daemon_dies) {
            self.restart();
        }
        if self.happens(f.reboots) {
            self.reboot();
        }
        if self.happens(f.runtime_restarts) {
            self.set_facts(|f| f.runtime = false);
            for _ in 0..20 {
                self.happen();
            }
            self.set_facts(|f| f.runtime = true);
        }
        if self.happens(f.container_dies) {
            let names: Vec<String> = self.rt.containers.values().map(|c| c.seen.name.clone()).collect();
            if !names.is_empty() {
                let name = names[self.below(names.len())].clone();
                self.rt.kill(self.now, &name, 1);
            }
        }
        if self.happens(f.clock_jumps) {
            let by = Duration::from_millis(self.below(5000) as u64);
            self.now.wall = if self.happens(500_000) { self.now.wall + by } else { self.now.wall - by };
        }
    }

    /// Goes on until `done`, for at most `most` of virtual time; whether it came to be.
    pub(crate) fn until(&mut self, most: Duration, mut done: impl FnMut(&World) -> bool) -> bool {
        let end = self.now.mono + most;
        let mut idle = 0;
        loop {
            if done(self) {
                return true;
            }
            if self.chance.is_some() {
                self.mischief();
                let ms = self.below(4) as u64;
                self.pass(Duration::from_millis(ms));
            }
            if self.happen() {
                idle += 1;
                assert!(idle < 20_000, "the machine never rests: {:#?}", self.trace);
                if self.now.mono >= end {
                    return done(self);
                }
                continue;
            }
            idle = 0;
            if self.now.mono >= end || !self.on(end) {
                while self.happen() {}
                return done(self);
            }
        }
    }

    /// Lets that much time pass.
    pub(crate) fn go(&mut self, time: Duration) {
        self.until(time, |_| false);
    }

    /// Waits for a phase.
    pub(crate) fn wait(&mut self, name: &str, phase: &str) {
        let came = self.until(Duration::from_secs(600), |w| w.phase(name) == phase);
        assert!(came, "pod {name} did not become {phase}: {:#}", self.pod(name)["status"]);
    }

    /// Nothing of a pod is left, here or there.
    pub(crate) fn is_gone(&self, name: &str, uid: &str) -> bool {
        self.api.pod(name).is_none_or(|p| p["metadata"]["uid"] != uid)
            && !self.rt.sandboxes.values().any(|s| s.pod.uid == uid)
    }

    pub(crate) fn knows(&self) -> bool {
        self.pods.knows(cell())
    }
}
