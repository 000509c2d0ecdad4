//! Pods in the world: the scheduling leaders beside the keepers' cells, nodes that bid and run, and people
//! who make, bind and remove pods.

use super::{MS, SECOND, World};
use crate::checks::award::Award;
use crate::checks::{Checked, ensure};
use crate::client::NAMESPACE;
use crate::host::{self, Act, Host};
use crate::keeper::EPOCH_MS;
use crate::ports::Bug;
use base::{Chance, RequestId, Time, Uid, Wall};
use decide::schedule::Book;
use node::assignment::Assignment;
use node::cell::{Input, Objects, Outcome, ReplyTo};
use node::errand::{Answered, ErrandId};
use node::scheduling::message::{Assigned, ToLeader, ToNode};
use node::scheduling::{Candidate, Config, Leader, LeaderEffect, LeaderInput, Worker, WorkerEffect, WorkerInput};
use objects::decision::Payload;
use objects::kinds;
use objects::request::{Body, Options, Request, Stored, User, Verb};
use objects::status::Status;
use objects::{Tree, bootstrap};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// People stop here: what waits longest, a back-off or a question, is over before the end.
const QUIET: u64 = 42 * SECOND;
/// At most so many pods are there at a time.
const PODS_MAX: usize = 30;
/// Somebody who asks a cell asks again after this.
const PATIENCE: u64 = 1_500 * MS;
/// A gateway asks on for so long.
const GATEWAY: u64 = 20 * SECOND;
/// A person has had enough after this.
const PERSON: u64 = 5 * SECOND;

/// What happens to pods.
#[derive(Clone)]
pub(super) enum Happening {
    /// Somebody wants something.
    People,
    WakeLeader {
        keeper: usize,
        boot: u64,
    },
    WakeWorker {
        host: usize,
        boot: u64,
    },
    ToNode {
        host: usize,
        message: ToNode,
    },
    ToLeader {
        host: usize,
        message: ToLeader,
    },
    Restart {
        host: usize,
    },
    /// A node hears what became of its errand.
    Answered {
        host: usize,
        boot: u64,
        id: ErrandId,
        answer: Answered,
    },
    Act {
        host: usize,
        boot: u64,
        uid: Uid,
        act: Act,
    },
    Arrives {
        ask: u64,
        attempt: u64,
    },
    Again {
        ask: u64,
        attempt: u64,
    },
    /// A leader reads the Nodes.
    Nodes {
        keeper: usize,
        boot: u64,
    },
    /// A node reads its own.
    Facts {
        host: usize,
        boot: u64,
    },
    Fault,
}

/// A request on its way through a gateway.
struct Ask {
    request: Arc<Request>,
    keeper: usize,
    attempt: u64,
    until: u64,
    then: Then,
}

/// Whose it is.
#[derive(Clone, Copy)]
enum Then {
    /// A leader's errand, of this start and term.
    Leader { keeper: usize, boot: u64, term: u64, id: ErrandId },
    /// A node's errand, of this start.
    Worker { host: usize, boot: u64, id: ErrandId },
    /// Somebody who does not wait for the answer.
    Nobody,
    /// A node, which says it anew until it is heard.
    Node,
}

/// The pods' part of the world.
pub(super) struct Scene {
    dice: Chance,
    hosts: Vec<Host>,
    /// By keeper, while it leads: the term, and the machine.
    leaders: BTreeMap<usize, (u64, Leader)>,
    /// When each is woken next, in virtual nanoseconds.
    woken_at: BTreeMap<usize, u64>,
    asks: BTreeMap<u64, Ask>,
    next: u64,
    /// The last number a leader of this term has told a node, for the bug at that port.
    told: BTreeMap<(u64, usize), u64>,
    award: Award,
    pub(super) started: u64,
    pub(super) refused: u64,
    pub(super) crashes: u64,
}

/// The roles that the scheduler's errands need.
pub(super) fn roles() -> Vec<(&'static str, String, Tree)> {
    let all = bootstrap::objects_of("").into_iter();
    let of_scheduler = all.filter(|(_, t)| t["metadata"]["name"] == "system:kube-scheduler");
    of_scheduler.map(|(k, t)| (k.storage, "system:kube-scheduler".to_owned(), t)).collect()
}

impl Scene {
    pub(super) fn new(chance: &Chance) -> Scene {
        let mut dice = chance.stream("pods");
        let count = dice.range(1, 5) as usize;
        let host = |n| Host::new(n, dice.range(2, 5), dice.below(1 << 40), dice.range(960, 1_041));
        let hosts = (0..count).map(host).collect();
        Scene {
            dice,
            hosts,
            leaders: BTreeMap::new(),
            woken_at: BTreeMap::new(),
            asks: BTreeMap::new(),
            next: 0,
            told: BTreeMap::new(),
            award: Award::default(),
            started: 0,
            refused: 0,
            crashes: 0,
        }
    }

    fn candidates(&self) -> Arc<[Candidate]> {
        self.hosts.iter().filter_map(|h| Candidate::of(&h.tree)).collect()
    }

    pub(super) fn observe(&mut self, member: &agree::cell::Member) -> Checked {
        self.award.observe(member)
    }

    pub(super) fn awards(&self) -> u64 {
        self.award.awards
    }
}

impl World {
    fn scene(&mut self, delay: u64, happening: Happening) {
        self.at(delay, super::Event::Pods(happening));
    }

    /// The nodes start, and people come.
    pub(super) fn begin_pods(&mut self) -> Checked {
        let count = self.pods.as_ref().map_or(0, |s| s.hosts.len());
        for host in 0..count {
            self.start_host(host)?;
        }
        self.scene(300 * MS, Happening::People);
        self.scene(SECOND, Happening::Fault);
        Ok(())
    }

    pub(super) fn happen_to_pods(&mut self, happening: Happening) -> Checked {
        let now = self.now;
        let Some(s) = &mut self.pods else { return Ok(()) };
        let boot_of = |keepers: &[crate::keeper::Keeper], k: usize| keepers.get(k).map_or(0, |k| k.boot);
        match happening {
            Happening::People => {
                self.people();
                Ok(())
            }
            Happening::WakeLeader { keeper, boot } if boot_of(&self.keepers, keeper) == boot => {
                s.woken_at.remove(&keeper);
                self.lead(keeper, LeaderInput::Tick);
                Ok(())
            }
            Happening::WakeWorker { host, boot } if s.hosts[host].boot == boot => {
                s.hosts[host].woken_at = u64::MAX;
                self.work(host, WorkerInput::Tick)
            }
            Happening::ToNode { host, message } if s.hosts[host].deaf_until <= now => {
                self.work(host, WorkerInput::Message(message))
            }
            Happening::ToLeader { host, message } => {
                // Whoever believes to lead is found; there may be more than one.
                let leads: Vec<usize> = s.leaders.keys().copied().collect();
                if let Some(keeper) = s.dice.pick(&leads).copied() {
                    let from = host::id(host);
                    self.lead(keeper, LeaderInput::Message { from, message });
                }
                Ok(())
            }
            Happening::Restart { host } => self.start_host(host),
            Happening::Answered { host, boot, id, answer } if s.hosts[host].boot == boot => {
                self.work(host, WorkerInput::Answered { id, answer })
            }
            Happening::Act { host, boot, uid, act } if s.hosts[host].boot == boot => self.act(host, uid, act),
            Happening::Arrives { ask, attempt } => self.ask_arrives(ask, attempt),
            Happening::Again { ask, attempt } => {
                self.ask_again(ask, attempt);
                Ok(())
            }
            Happening::Nodes { keeper, boot } if boot_of(&self.keepers, keeper) == boot => {
                let candidates = s.candidates();
                self.lead(keeper, LeaderInput::Nodes(candidates));
                Ok(())
            }
            Happening::Facts { host, boot } if s.hosts[host].boot == boot => {
                let facts = s.hosts[host].facts();
                self.work(host, WorkerInput::Facts(facts))
            }
            Happening::Fault => {
                self.fault_of_pods();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    // The leaders.

    /// The cell of a keeper tells what was committed.
    pub(super) fn committed(&mut self, keeper: usize, term: u64, objects: Objects, changes: Arc<[node::cell::Change]>) {
        let Some(s) = &mut self.pods else { return };
        if s.leaders.get(&keeper).is_none_or(|l| l.0 != term) {
            let cell = super::cell_id();
            let config = Config { cell, namespace: NAMESPACE.into(), term, node: format!("keeper{keeper}") };
            let chance = Chance::from_u64(s.dice.u64());
            s.leaders.insert(keeper, (term, Leader::new(config, &chance)));
            let boot = self.keepers[keeper].boot;
            self.scene(5 * MS, Happening::Nodes { keeper, boot });
        }
        self.lead(keeper, LeaderInput::Committed { objects, changes });
    }

    /// A keeper leads no more.
    pub(super) fn unled(&mut self, keeper: usize) {
        if let Some(s) = &mut self.pods {
            s.leaders.remove(&keeper);
        }
    }

    fn lead(&mut self, keeper: usize, input: LeaderInput) {
        let now = self.keepers[keeper].clock(self.now);
        let Some((term, leader)) = self.pods.as_mut().and_then(|s| s.leaders.get_mut(&keeper)) else { return };
        let term = *term;
        let mut fx = Vec::new();
        leader.step(now, input, &mut fx);
        leader.check();
        for effect in fx {
            match effect {
                LeaderEffect::Send { to, message } => self.send_to_node(term, to, message),
                LeaderEffect::Errand { id, errand } => {
                    let Some(s) = &mut self.pods else { return };
                    let wall = Wall(EPOCH_MS + self.now / MS);
                    let uid = Uid::from_chance(s.dice.u128());
                    let request = errand.request(RequestId(s.dice.u128()), wall, uid, s.dice.u64());
                    if self.bug == Bug::AwardBeforeCommit && request.subresource.as_ref() == "binding" {
                        self.award_early(keeper, term, &request);
                    }
                    let boot = self.keepers[keeper].boot;
                    self.ask(keeper, request, GATEWAY, Then::Leader { keeper, boot, term, id });
                }
            }
        }
        self.wake_leader(keeper);
    }

    fn wake_leader(&mut self, keeper: usize) {
        let now = self.now;
        let k = &self.keepers[keeper];
        let boot = k.boot;
        let Some(s) = &mut self.pods else { return };
        let Some(at) = s.leaders.get(&keeper).and_then(|(_, l)| l.next_deadline()) else { return };
        let at = k.when(at).max(now + MS / 10);
        if s.woken_at.get(&keeper).is_some_and(|w| *w <= at && *w > now) {
            return;
        }
        s.woken_at.insert(keeper, at);
        self.scene(at - now, Happening::WakeLeader { keeper, boot });
    }

    fn send_to_node(&mut self, term: u64, to: base::NodeId, message: ToNode) {
        let Some(s) = &mut self.pods else { return };
        let Some(host) = (0..s.hosts.len()).find(|h| host::id(*h) == to) else { return };
        if let ToNode::Assigned(a) = &message {
            s.told.insert((term, host), a.number);
        }
        for delay in self.ways() {
            self.scene(delay, Happening::ToNode { host, message: message.clone() });
        }
    }

    /// How long each copy of a message takes.
    fn ways(&mut self) -> Vec<u64> {
        let faults = self.faults;
        let Some(s) = &mut self.pods else { return Vec::new() };
        let copies = if faults { [1, 1, 1, 1, 1, 1, 1, 1, 0, 2][s.dice.below(10) as usize] } else { 1 };
        let mut way = || {
            let late = faults && s.dice.happens(20_000);
            (if late { s.dice.range(100, 6_000) } else { s.dice.range(1, 30) }) * MS
        };
        (0..copies).map(|_| way()).collect()
    }

    /// The bug: a node is told of a binding that is only asked for.
    fn award_early(&mut self, keeper: usize, term: u64, request: &Request) {
        let Body::Object { tree, .. } = &request.body else { return };
        let node = tree["target"]["name"].as_str().unwrap_or_default();
        let pod = request.name.clone().unwrap_or_default();
        let Some(up) = &self.keepers[keeper].up else { return };
        let Some(record) = up.cell.state().get(format!("Pod\0{pod}").as_bytes()) else { return };
        let mut bound: Tree = serde_json::from_slice(&record.value).unwrap_or_default();
        bound["spec"]["nodeName"] = json!(node);
        let stored = Stored::from_tree(request.kind, bound, record.revision);
        let Some(s) = &mut self.pods else { return };
        let Some(host) = (0..s.hosts.len()).find(|h| host::name(*h) == node) else { return };
        let number = s.told.get(&(term, host)).copied().unwrap_or_default() + 1;
        let assignment = Assignment {
            cell: super::cell_id(),
            namespace: NAMESPACE.into(),
            whole: false,
            pods: vec![(pod, Some(stored))],
        };
        let message = ToNode::Assigned(Assigned { term, number, assignment });
        self.scene(MS, Happening::ToNode { host, message });
    }

    // Requests.

    fn ask(&mut self, keeper: usize, request: Request, patience: u64, then: Then) {
        let until = self.now.saturating_add(patience);
        let Some(s) = &mut self.pods else { return };
        s.next += 1;
        let ask = s.next;
        self.attempts += 1;
        let attempt = self.attempts;
        s.asks.insert(ask, Ask { request: Arc::new(request), keeper, attempt, until, then });
        let delay = s.dice.range(1, 5) * MS / 2;
        self.scene(delay, Happening::Arrives { ask, attempt });
        self.scene(PATIENCE, Happening::Again { ask, attempt });
    }

    fn ask_arrives(&mut self, ask: u64, attempt: u64) -> Checked {
        let Some(ask) = self.pods.as_ref().and_then(|s| s.asks.get(&ask)).filter(|a| a.attempt == attempt) else {
            return Ok(());
        };
        let (keeper, request) = (ask.keeper, ask.request.clone());
        if self.keepers[keeper].up.is_none() {
            return Ok(());
        }
        self.tell(keeper, Input::Request { to: ReplyTo(attempt), request })
    }

    /// Nothing was heard, or nothing that says what became of it.
    fn ask_again(&mut self, ask: u64, attempt: u64) {
        let keepers = self.keepers.len() as u64;
        let now = self.now;
        let Some(s) = &mut self.pods else { return };
        let Some(a) = s.asks.get_mut(&ask).filter(|a| a.attempt == attempt) else { return };
        if now >= a.until {
            return self.asked(ask, Err(Box::new(Status::timeout("nobody has answered", 0))));
        }
        self.attempts += 1;
        a.attempt = self.attempts;
        a.keeper = s.dice.below(keepers) as usize;
        let attempt = a.attempt;
        let delay = s.dice.range(5, 100) * MS;
        self.scene(delay, Happening::Arrives { ask, attempt });
        self.scene(delay + PATIENCE, Happening::Again { ask, attempt });
    }

    /// A cell has answered; whether it was an ask of a pod's.
    pub(super) fn answered_pods(&mut self, attempt: u64, outcome: &Outcome) -> bool {
        let lost = self.faults && self.pods.as_mut().is_some_and(|s| s.dice.happens(20_000));
        let Some(s) = &mut self.pods else { return false };
        let Some(ask) = s.asks.iter().find(|(_, a)| a.attempt == attempt).map(|(id, _)| *id) else { return false };
        // The way back may lose it.
        if lost {
            return true;
        }
        match outcome {
            Outcome::Done(answer) => {
                let tree = match &answer.payload {
                    Payload::Json(b) => serde_json::from_slice(b).unwrap_or_default(),
                    p => p.tree(),
                };
                self.asked(ask, Ok(tree));
            }
            Outcome::Refused(status) => self.asked(ask, Err(status.clone())),
            _ => {
                let delay = s.dice.range(5, 50) * MS;
                self.scene(delay, Happening::Again { ask, attempt });
            }
        }
        true
    }

    fn asked(&mut self, ask: u64, answer: Answered) {
        let Some(ask) = self.pods.as_mut().and_then(|s| s.asks.remove(&ask)) else { return };
        match ask.then {
            Then::Leader { keeper, boot, term, id } => {
                let same = self.pods.as_ref().and_then(|s| s.leaders.get(&keeper)).is_some_and(|l| l.0 == term);
                if same && self.keepers[keeper].boot == boot {
                    self.lead(keeper, LeaderInput::Answered { id, answer });
                }
            }
            Then::Worker { host, boot, id } => {
                self.scene(MS, Happening::Answered { host, boot, id, answer });
            }
            Then::Node if answer.is_err_and(|s| !matches!(s.code, 404 | 409 | 422)) => {
                let keepers = self.keepers.len() as u64;
                let Some(s) = &mut self.pods else { return };
                let keeper = s.dice.below(keepers) as usize;
                let wall = Wall(EPOCH_MS + self.now / MS);
                let request = Request { id: RequestId(s.dice.u128()), sent: wall, ..Request::clone(&ask.request) };
                self.ask(keeper, request, GATEWAY, ask.then);
            }
            Then::Nobody | Then::Node => {}
        }
    }

    fn request(&mut self, verb: Verb, name: &str, sub: &str, body: Body) -> Option<Request> {
        let wall = Wall(EPOCH_MS + self.now / MS);
        let s = self.pods.as_mut()?;
        Some(Request {
            id: RequestId(s.dice.u128()),
            sent: wall,
            user: Arc::new(User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() }),
            verb,
            kind: kinds::by_kind("", "v1", "Pod")?,
            namespace: Some(NAMESPACE.into()),
            name: (verb != Verb::Create || !sub.is_empty()).then(|| name.into()),
            subresource: sub.into(),
            options: Options { field_manager: "sim".into(), ..Options::default() },
            body,
            uid: Uid::from_chance(s.dice.u128()),
            suffix: s.dice.u64(),
        })
    }

    /// Somebody asks for something and does not wait for the answer.
    fn want(&mut self, verb: Verb, name: &str, sub: &str, body: Option<Tree>) {
        let body = body.map_or(Body::None, |tree| Body::Object { tree, strict: Vec::new() });
        self.send_want(verb, name, sub, body, Then::Nobody);
    }

    fn send_want(&mut self, verb: Verb, name: &str, sub: &str, body: Body, then: Then) {
        let keepers = self.keepers.len() as u64;
        let Some(request) = self.request(verb, name, sub, body) else { return };
        let Some(keeper) = self.pods.as_mut().map(|s| s.dice.below(keepers) as usize) else { return };
        self.ask(keeper, request, if matches!(then, Then::Node) { GATEWAY } else { PERSON }, then);
    }

    // The nodes.

    fn start_host(&mut self, host: usize) -> Checked {
        let Some(s) = &mut self.pods else { return Ok(()) };
        let h = &mut s.hosts[host];
        if h.worker.is_some() {
            return Ok(());
        }
        h.boot += 1;
        h.worker = Some(Worker::new(h.clock(self.now)));
        let (facts, found) = (h.facts(), h.runs.clone());
        self.work(host, WorkerInput::Facts(facts))?;
        self.work(host, WorkerInput::Found(found))?;
        self.work(host, WorkerInput::Cells(vec![(NAMESPACE.into(), super::cell_id())]))
    }

    fn work(&mut self, host: usize, input: WorkerInput) -> Checked {
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

    fn wake_worker(&mut self, host: usize) {
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

    fn act(&mut self, host: usize, uid: Uid, act: Act) -> Checked {
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
    fn say(&mut self, name: &str, uid: Uid, phase: &str) {
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

    // People.

    fn people(&mut self) {
        if self.now >= QUIET {
            return;
        }
        let now = self.now;
        let Some(s) = &mut self.pods else { return };
        let pause = s.dice.range(20, 400) * MS;
        let pods: Vec<(String, Option<String>)> =
            s.award.pods().map(|(name, _, node)| (name.to_owned(), node.map(str::to_owned))).collect();
        let any = s.dice.pick(&pods).map(|p| p.0.clone());
        let waiting: Vec<&String> = pods.iter().filter(|p| p.1.is_none()).map(|p| &p.0).collect();
        let waiting = s.dice.pick(&waiting).map(|n| (*n).clone());
        let host = s.dice.below(s.hosts.len() as u64) as usize;
        let roll = s.dice.below(20);
        match (roll, any, waiting) {
            (0..=9, ..) if pods.len() < PODS_MAX => {
                let tree = new_pod(&mut s.dice, now, None);
                self.want(Verb::Create, "", "", Some(tree));
            }
            (10, ..) if pods.len() < PODS_MAX => {
                let tree = new_pod(&mut s.dice, now, Some(host::name(host)));
                self.want(Verb::Create, "", "", Some(tree));
            }
            (11..=14, Some(name), _) => self.want(Verb::Delete, &name, "", None),
            (15, Some(name), _) => {
                let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
                self.want(Verb::Delete, &name, "", Some(options));
            }
            (16, _, Some(name)) => {
                let tree = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                    "target": {"kind": "Node", "name": host::name(host)}});
                self.want(Verb::Create, &name, "binding", Some(tree));
            }
            (17, ..) => {
                let h = &mut s.hosts[host];
                let cordoned = h.tree["spec"]["unschedulable"] == true;
                h.tree["spec"]["unschedulable"] = json!(!cordoned);
                let boot = h.boot;
                let delay = s.dice.range(1, 200) * MS;
                self.scene(delay, Happening::Facts { host, boot });
                self.tell_nodes();
            }
            (18 | 19, ..) => self.finish(host),
            _ => {}
        }
        self.scene(pause, Happening::People);
    }

    /// A pod on this node comes to its end by itself.
    fn finish(&mut self, host: usize) {
        let Some(s) = &mut self.pods else { return };
        let h = &mut s.hosts[host];
        if h.worker.is_none() {
            return;
        }
        // What it said last is heard: one thing at a time is said of a pod.
        let (runs, award) = (&h.runs, &s.award);
        let ends = |p: &host::Handed| runs.contains(&p.uid) && !p.going && !p.over && award.is_running(p.uid);
        let found = h.handed.iter_mut().find(|(_, p)| ends(p));
        let Some((name, handed)) = found else { return };
        handed.over = true;
        let (name, uid) = (name.clone(), handed.uid);
        h.runs.remove(&uid);
        h.done.insert(uid);
        // Nothing of it runs: its room is free before its status says so.
        if self.work(host, WorkerInput::Ended { uid }).is_ok() {
            self.say(&name, uid, "Succeeded");
        }
    }

    fn tell_nodes(&mut self) {
        for keeper in 0..self.keepers.len() {
            let boot = self.keepers[keeper].boot;
            let Some(delay) = self.pods.as_mut().map(|s| s.dice.range(1, 100) * MS) else { return };
            self.scene(delay, Happening::Nodes { keeper, boot });
        }
    }

    fn fault_of_pods(&mut self) {
        let (now, faults) = (self.now, self.faults);
        let Some(s) = &mut self.pods else { return };
        if !faults {
            return;
        }
        let pause = s.dice.range(100, 4_000) * MS;
        let host = s.dice.below(s.hosts.len() as u64) as usize;
        let long = s.dice.range(50, 8_000) * MS;
        let h = &mut s.hosts[host];
        match s.dice.below(4) {
            0 | 1 if h.worker.is_some() => {
                h.crash();
                s.crashes += 1;
                self.scene(long / 2, Happening::Restart { host });
            }
            2 => h.deaf_until = now + long,
            _ => h.mute_until = now + long,
        }
        self.scene(pause, Happening::Fault);
    }

    // The end.

    pub(super) fn end_pods(&self) -> Checked {
        let Some(s) = &self.pods else { return Ok(()) };
        for (host, h) in s.hosts.iter().enumerate() {
            let name = host::name(host);
            let Some(worker) = &h.worker else {
                ensure("liveness", false, || format!("{name} is down at the end"))?;
                continue;
            };
            let open = worker.book().open();
            ensure("award", open == 0, || {
                format!("{name} still keeps {open} reservations, where nothing has happened for {:?}", Book::ASK)
            })?;
            let want = s.award.bound_to(&name);
            let runs: BTreeSet<Uid> = h.runs.clone();
            ensure("award", runs == want, || format!("{name} runs {runs:?}, and {want:?} are bound to it"))?;
            let counted: BTreeSet<Uid> =
                worker.book().facts().hosted.keys().filter_map(|uid| uid.parse().ok()).collect();
            ensure("award", counted == want, || format!("{name} counts {counted:?}, and {want:?} are bound to it"))?;
        }
        let nodes: Vec<_> = s.hosts.iter().map(Host::facts).collect();
        s.award.served(&nodes)
    }
}

/// A pod somebody wants, on this node if one is given.
fn new_pod(dice: &mut Chance, now: u64, node: Option<String>) -> Tree {
    let cpu = ["100m", "500m", "1", "1", "2", "3", "9"][dice.below(7) as usize];
    let mut container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}});
    if dice.below(10) == 0 {
        container["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
    }
    let mut spec = json!({"containers": [container]});
    // Who matters more may have others evicted.
    if dice.below(8) == 0 {
        spec["priorityClassName"] = json!("system-cluster-critical");
    }
    if dice.below(6) == 0 {
        spec["topologySpreadConstraints"] = json!([{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {}}]);
    }
    if dice.below(6) == 0 {
        spec["nodeSelector"] = json!({"zone": if dice.below(2) == 0 { "even" } else { "odd" }});
    }
    if dice.below(8) == 0 {
        spec["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"alone": "yes"}}}]}});
    }
    if let Some(node) = node {
        spec["nodeName"] = json!(node);
    }
    let name = format!("p{}-{}", now / MS, dice.below(1_000));
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"alone": if dice.below(4) == 0 { "yes" } else { "no" }}},
        "spec": spec})
}
