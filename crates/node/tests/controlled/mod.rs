//! A cell of one voter with its controllers, in memory: errands are carried out by the cell itself, and
//! what it commits is told to the controllers. A test moves every part by hand or lets all settle.

#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

use agree::log::Record;
use base::{CellId, Chance, Now, RequestId, Revision, Time, Uid, Wall};
use node::bundle::Bundle;
use node::cell::{Cell, Config, Effect, Found, Input, Objects, Outcome, ReplyTo, Role};
use node::controllers::{self, Controllers};
use node::errand::{Answered, Errand, ErrandId};
use node::gateway::reserve;
use node::genesis;
use objects::allotment::{self, Allotment, Ranges, Wanted};
use objects::decision::Payload;
use objects::kinds;
use objects::request::{Body, Config as Settings, Options, Request, User, Verb};
use objects::status::Status;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const START: Wall = Wall(1_769_846_400_000);

/// Who answers for other cells.
pub(crate) type Elsewhere = Box<dyn FnMut(Now, &Errand) -> Answered>;

/// The cell of a namespace, what works beside it, and the world.
pub(crate) struct World {
    pub cell: Cell,
    role: Role,
    pub controllers: Controllers,
    pub now: Now,
    pub bundle: Arc<Bundle>,
    disk: Vec<Record>,
    cache: VecDeque<(agree::log::Ticket, Vec<Record>)>,
    outcomes: BTreeMap<u64, Outcome>,
    /// Errands not carried out yet.
    pub errands: VecDeque<(ErrandId, Errand)>,
    /// Errands under way in the cell, by whom their answer is for.
    asked: BTreeMap<u64, ErrandId>,
    /// Answers not told yet.
    pub answers: VecDeque<(ErrandId, Answered)>,
    /// What the cell said to its controllers and has not been told yet.
    told: VecDeque<controllers::Input>,
    /// What the cell committed last, told or not.
    latest: Objects,
    /// Errands of other cells, answered by this.
    pub elsewhere: Elsewhere,
    /// Everything that was ever asked: verb, resource, name.
    pub log: Vec<String>,
    next: u64,
}

pub(crate) fn cell_id() -> CellId {
    CellId(Uid::from_chance(7))
}

/// Root's objects as every mesh has them, and one namespace.
pub(crate) fn first_bundle(namespace: &'static str) -> Arc<Bundle> {
    let mut trees: Vec<(&'static str, Value)> = objects::bootstrap::objects_of("")
        .into_iter()
        .filter(|(k, _)| Bundle::holds(k.storage))
        .map(|(k, t)| (k.storage, t))
        .collect();
    trees.retain(|(_, t)| t["metadata"]["name"] != namespace);
    trees.push(("Namespace", namespace_object(namespace, None)));
    let names: Vec<String> = trees.iter().map(|(_, t)| t["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    let changes = trees.into_iter().zip(&names).map(|((storage, tree), name)| node::bundle::Change {
        storage,
        name,
        tree: Some(tree),
    });
    Arc::new(Bundle::default().with(Revision::end_of(Wall(START.0 - 1000)), changes))
}

/// Namespace `d` as root has it when it is going.
pub(crate) fn namespace(deleted: Option<Wall>) -> Value {
    namespace_object("d", deleted)
}

fn namespace_object(name: &str, deleted: Option<Wall>) -> Value {
    let mut n = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "uid": cell_id().to_string(), "resourceVersion": "7"},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    if let Some(at) = deleted {
        n["metadata"]["deletionTimestamp"] = json!(at.rfc3339());
        n["status"]["phase"] = json!("Terminating");
    }
    n
}

/// Root, as far as these scripts need it: nodes are there, and namespaces take what is written.
fn root(_: Now, errand: &Errand) -> Answered {
    match (&errand.body, errand.kind.kind) {
        (Body::Object { tree, .. }, "Namespace") => Ok(tree.clone()),
        (Body::Object { tree, .. }, "Event") => Ok(tree.clone()),
        (_, "Node") => Ok(json!({"metadata": {"uid": "node"}})),
        (Body::Object { tree, .. }, "Allotment") => {
            let mut own = Allotment::default();
            allotment::hand_out(&Wanted::of(tree), &mut own, &[], &Ranges::default(), 0, START);
            Ok(json!({"metadata": {"name": cell_id().to_string(), "resourceVersion": "1"}, "spec": own.spec()}))
        }
        _ => panic!("{:?} {:?} was not expected", errand.verb, errand.kind),
    }
}

impl World {
    pub(crate) fn new() -> World {
        World::of("d")
    }

    pub(crate) fn of(namespace: &'static str) -> World {
        World::found(
            Role::Namespace(namespace.into()),
            None,
            Now { mono: Time::from_ms(1), wall: START },
            first_bundle(namespace),
        )
    }

    /// The cell of the Nodes.
    pub(crate) fn registry() -> World {
        World::found(Role::Registry, None, Now { mono: Time::from_ms(1), wall: START }, first_bundle("d"))
    }

    fn found(role: Role, found: Option<Found>, now: Now, bundle: Arc<Bundle>) -> World {
        let config = Config::new(cell_id(), role.clone(), base::NodeId([1; 32]), Arc::new(Settings::default()));
        let genesis = match &role {
            Role::Namespace(n) => Some(genesis::namespace(n, cell_id().0, bundle.number(), "PEM", now.wall)),
            _ => None,
        };
        let disk = found.as_ref().map(|f| f.records.clone()).unwrap_or_default();
        let cell = Cell::new(config, found, bundle.clone(), genesis, &Chance::from_u64(1), now).unwrap();
        let config = controllers::Config {
            cell: cell_id(),
            role: role.clone(),
            ca_pem: "PEM".into(),
            settings: Arc::new(Settings::default()),
        };
        let mut w = World {
            cell,
            role,
            controllers: Controllers::new(config, bundle.clone()),
            now,
            bundle,
            disk,
            cache: VecDeque::new(),
            outcomes: BTreeMap::new(),
            errands: VecDeque::new(),
            asked: BTreeMap::new(),
            answers: VecDeque::new(),
            told: VecDeque::new(),
            latest: Objects::default(),
            elsewhere: Box::new(root),
            log: Vec::new(),
            next: now.mono.0,
        };
        w.step(Input::Tick);
        w.sync();
        assert!(w.cell.is_leading());
        w
    }

    /// The controllers are told that the cell is led elsewhere. Errands under way stay so.
    pub(crate) fn depose(&mut self) {
        self.told.clear();
        self.control(controllers::Input::Leading(false));
    }

    /// The cell is led here again.
    pub(crate) fn lead_again(&mut self) {
        self.lead_again_knowing([]);
    }

    /// The same, and this is known before anything is looked at.
    pub(crate) fn lead_again_knowing(&mut self, known: impl IntoIterator<Item = controllers::Input>) {
        self.told.clear();
        self.control(controllers::Input::Leading(true));
        known.into_iter().for_each(|input| self.control(input));
        let objects = self.latest.clone();
        self.control(controllers::Input::Committed { objects, changes: Arc::default() });
    }

    /// The node stops and starts; errands under way are lost.
    pub(crate) fn restart(self) -> World {
        let mut now = self.now;
        now.mono = now.mono + Duration::from_millis(1);
        World::found(self.role, Some(Found { records: self.disk, lossy: false }), now, self.bundle)
    }

    pub(crate) fn step(&mut self, input: Input) {
        let mut fx = Vec::new();
        self.cell.step(self.now, input, &mut fx);
        self.cell.check();
        for e in fx {
            match e {
                Effect::Persist { ticket, records, .. } => self.cache.push_back((ticket, records)),
                Effect::Reply(r) => match self.asked.remove(&r.to.0) {
                    Some(id) => self.answers.push_back((id, answer(r.outcome))),
                    None => {
                        self.outcomes.insert(r.to.0, r.outcome);
                    }
                },
                Effect::Leading(leads) => self.told.push_back(controllers::Input::Leading(leads)),
                Effect::Committed { objects, changes, .. } => {
                    self.latest = objects.clone();
                    self.told.push_back(controllers::Input::Committed { objects, changes });
                }
                _ => {}
            }
        }
    }

    /// The disk has kept everything it was given.
    pub(crate) fn sync(&mut self) {
        while let Some((ticket, records)) = self.cache.pop_front() {
            self.disk.extend(records);
            self.step(Input::Durable(ticket));
        }
    }

    /// The same, of all it was given at once: what it holds is applied together.
    pub(crate) fn sync_together(&mut self) {
        let Some(last) = self.cache.back().map(|(ticket, _)| *ticket) else { return };
        let all = std::mem::take(&mut self.cache);
        self.disk.extend(all.into_iter().flat_map(|(_, records)| records));
        self.step(Input::Durable(last));
        self.sync();
    }

    /// One input of the controllers.
    pub(crate) fn control(&mut self, input: controllers::Input) {
        let mut fx = Vec::new();
        self.controllers.step(self.now, input, &mut fx);
        self.controllers.check();
        for e in fx {
            if let controllers::Effect::Errand { id, errand } = e {
                let sub = if errand.subresource.is_empty() { "" } else { "/" };
                let name = errand.name.as_deref().unwrap_or_default();
                let line = format!("{} {}{sub}{} {name}", errand.verb.as_str(), errand.kind.plural, errand.subresource);
                self.log.push(line.trim_end().to_owned());
                self.errands.push_back((id, *errand));
            }
        }
    }

    /// Tells the controllers what the cell committed.
    pub(crate) fn hear(&mut self) {
        while let Some(input) = self.told.pop_front() {
            self.control(input);
        }
    }

    /// Brings the oldest errand to the cell that decides it.
    pub(crate) fn carry(&mut self) {
        let Some((id, errand)) = self.errands.pop_front() else { return };
        let own = match self.role {
            Role::Namespace(_) => kinds::Home::Namespace,
            _ => kinds::Home::Registry,
        };
        if errand.kind.home != own {
            let answer = (self.elsewhere)(self.now, &errand);
            self.answers.push_back((id, answer));
            return;
        }
        self.next += 1;
        let n = self.next;
        let request = errand.request(
            RequestId(u128::from(n) | u128::from(self.now.wall.0) << 64),
            self.now.wall,
            Uid::from_chance(u128::from(n) << 64 | u128::from(n)),
            n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        self.asked.insert(n, id);
        self.step(Input::Request { to: ReplyTo(n), request: Arc::new(request) });
    }

    /// Tells the controllers the oldest answer.
    pub(crate) fn answer(&mut self) {
        if let Some((id, answer)) = self.answers.pop_front() {
            self.control(controllers::Input::Answered { id, answer });
        }
    }

    /// Lets everything happen that does not need time to pass.
    pub(crate) fn settle(&mut self) {
        for _ in 0..5_000 {
            if !self.go_on() {
                return;
            }
        }
        panic!("it never comes to rest; last: {:?}", &self.log[self.log.len().saturating_sub(20)..]);
    }

    /// Lets the next thing happen; whether there was one.
    pub(crate) fn go_on(&mut self) -> bool {
        self.sync();
        if !self.told.is_empty() {
            self.hear();
        } else if !self.errands.is_empty() {
            self.carry();
        } else if !self.answers.is_empty() {
            self.answer();
        } else if self.controllers.next_deadline().is_some_and(|t| t <= self.now.mono) {
            self.control(controllers::Input::Tick);
        } else {
            return false;
        }
        true
    }

    /// Time passes, in steps no longer than the controllers' deadlines.
    pub(crate) fn pass(&mut self, d: Duration) {
        let until = self.now.mono + d;
        self.settle();
        while self.now.mono < until {
            let next = self.controllers.next_deadline().unwrap_or(until).min(until).max(self.now.mono);
            let step = next.since(self.now.mono).max(Duration::from_millis(1));
            self.now.mono = self.now.mono + step;
            self.now.wall = self.now.wall + step;
            self.step(Input::Tick);
            self.control(controllers::Input::Tick);
            self.settle();
        }
    }

    /// Root's configuration changes.
    pub(crate) fn tell_bundle(&mut self, storage: &'static str, name: &str, tree: Option<Value>) {
        let number = Revision::from_u64(self.bundle.number().get().max(Revision::end_of(self.now.wall).get()) + 1);
        let change = node::bundle::Change { storage, name, tree };
        self.take_bundle(Arc::new(self.bundle.with(number.unwrap(), [change])));
    }

    /// Root's configuration is this.
    pub(crate) fn take_bundle(&mut self, bundle: Arc<Bundle>) {
        self.bundle = bundle;
        self.step(Input::Bundle(self.bundle.clone()));
        self.control(controllers::Input::Bundle(self.bundle.clone()));
    }

    /// A request of an administrator, answered at once.
    pub(crate) fn ask(
        &mut self,
        verb: Verb,
        kind: &str,
        name: &str,
        sub: &'static str,
        body: Option<Value>,
    ) -> Answered {
        let name = if verb == Verb::Create { "" } else { name };
        self.ask_at(verb, kind, name, sub, body)
    }

    fn ask_at(&mut self, verb: Verb, kind: &str, name: &str, sub: &'static str, body: Option<Value>) -> Answered {
        let kind = kinds::KINDS.iter().find(|k| k.kind == kind && k.served).unwrap();
        let errand = Errand {
            user: Arc::new(User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() }),
            verb,
            kind,
            namespace: match &self.role {
                Role::Namespace(n) => Some(n.clone()),
                _ => None,
            },
            name: (!name.is_empty()).then(|| name.into()),
            subresource: sub,
            options: Options { field_manager: "test".into(), ..Options::default() },
            body: body.map_or(Body::None, |tree| Body::Object { tree, strict: Vec::new() }),
        };
        self.next += 1;
        let n = self.next;
        let request = errand.request(
            RequestId(u128::from(n) | u128::from(self.now.wall.0) << 64),
            self.now.wall,
            Uid::from_chance(u128::from(n) << 64 | u128::from(n)),
            n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        self.send(n, request)
    }

    /// A request that somebody made.
    pub(crate) fn request(&mut self, request: Request) -> Answered {
        self.next += 1;
        self.send(self.next, request)
    }

    fn send(&mut self, n: u64, request: Request) -> Answered {
        self.step(Input::Request { to: ReplyTo(n), request: Arc::new(request.clone()) });
        self.sync();
        match self.outcomes.remove(&n).expect("a leader alone answers at once") {
            Outcome::Reserve(wanted) => {
                let user = Arc::new(User { groups: vec!["system:masters".into()], ..User::default() });
                let question = reserve::question(&request, &wanted, user).unwrap();
                let answered = (self.elsewhere)(self.now, &question);
                self.send(n, reserve::with_answer(&request, *wanted, answered)?)
            }
            outcome => answer(outcome),
        }
    }

    pub(crate) fn create(&mut self, tree: Value) -> Value {
        let kind = tree["kind"].as_str().unwrap().to_owned();
        self.ask(Verb::Create, &kind, "", "", Some(tree)).unwrap()
    }

    pub(crate) fn get(&mut self, kind: &str, name: &str) -> Option<Value> {
        self.ask(Verb::Get, kind, name, "", None).ok()
    }

    /// Changes an object by a function.
    pub(crate) fn edit(&mut self, kind: &str, name: &str, sub: &'static str, f: impl FnOnce(&mut Value)) -> Value {
        // What is in flight is committed first, so that the edit is of the newest.
        self.sync();
        let mut tree = self.get(kind, name).unwrap();
        f(&mut tree);
        self.ask(Verb::Update, kind, name, sub, Some(tree)).unwrap()
    }

    pub(crate) fn delete(&mut self, kind: &str, name: &str, propagation: &str) {
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation});
        self.ask(Verb::Delete, kind, name, "", Some(options)).unwrap();
    }

    /// All objects of a kind, by name.
    pub(crate) fn all(&mut self, kind: &str) -> Vec<Value> {
        let kind = kinds::KINDS.iter().find(|k| k.kind == kind && k.served).unwrap();
        let prefix = format!("{}\0", kind.storage);
        self.cell.state().scan(prefix.as_bytes()).map(|(_, r)| serde_json::from_slice(&r.value).unwrap()).collect()
    }

    pub(crate) fn names(&mut self, kind: &str) -> Vec<String> {
        self.all(kind).iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Binds a pod.
    pub(crate) fn bind(&mut self, name: &str, binding: Value) {
        self.ask_at(Verb::Create, "Pod", name, "binding", Some(binding)).unwrap();
    }

    /// Plays the node: every pod that is bound to nothing is bound, runs and is ready; every pod that is
    /// being deleted is gone.
    pub(crate) fn run_pods(&mut self) {
        for pod in self.all("Pod") {
            let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                let now = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
                self.ask(Verb::Delete, "Pod", &name, "", Some(now)).unwrap();
                continue;
            }
            if pod["spec"]["nodeName"].is_null() {
                let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
                self.bind(&name, binding);
            }
            if pod["status"]["phase"] != "Running" {
                let now = self.now.wall.rfc3339();
                self.edit("Pod", &name, "status", |p| {
                    p["status"]["phase"] = json!("Running");
                    let ip = format!(
                        "10.42.0.{}",
                        p["metadata"]["uid"].as_str().unwrap().bytes().map(u32::from).sum::<u32>() % 250
                    );
                    p["status"]["podIP"] = json!(ip);
                    p["status"]["podIPs"] = json!([{"ip": ip}]);
                    p["status"]["conditions"] = json!([{"type": "Ready", "status": "True", "lastTransitionTime": now}]);
                });
            }
        }
    }

    /// Lets controllers and node work until nothing happens any more.
    pub(crate) fn live(&mut self) {
        for _ in 0..200 {
            self.settle();
            let before = self.cell.state().revision();
            self.run_pods();
            self.settle();
            let soon = self.now.mono + Duration::from_millis(500);
            if self.cell.state().revision() != before {
                continue;
            }
            // What was refused because the world had moved on is tried again in a moment.
            if self.controllers.next_deadline().is_none_or(|t| t > soon) {
                return;
            }
            self.pass(Duration::from_millis(500));
        }
        panic!("it never comes to rest; last: {:?}", &self.log[self.log.len().saturating_sub(20)..]);
    }
}

fn answer(outcome: Outcome) -> Answered {
    match outcome {
        Outcome::Done(a) => Ok(match &a.payload {
            Payload::Json(b) => serde_json::from_slice(b).unwrap(),
            p => p.tree(),
        }),
        Outcome::Refused(s) => Err(s),
        Outcome::Busy => Err(Box::new(Status::too_many_requests("busy", 1))),
        _ => Err(Box::new(Status::timeout("unknown", 0))),
    }
}

pub(crate) fn deployment(replicas: u64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "d"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}}})
}

/// The cell of root, for those whose errands go there.
pub(crate) struct Root {
    cell: Cell,
    /// What it told last.
    pub bundle: Arc<Bundle>,
    next: u64,
}

impl Root {
    pub(crate) fn new(now: Now) -> Root {
        let id = CellId(Uid::from_chance(1));
        let config = Config::new(id, Role::Root, base::NodeId([1; 32]), Arc::new(Settings::default()));
        let genesis = genesis::root(Chance::from_u64(2), now.wall);
        let cell = Cell::new(config, None, Arc::default(), Some(genesis), &Chance::from_u64(3), now).unwrap();
        let mut root = Root { cell, bundle: Arc::default(), next: 0 };
        root.step(now, Input::Tick);
        root
    }

    /// One step; what it persists is durable at once.
    fn step(&mut self, now: Now, input: Input) -> Option<Answered> {
        let (mut fx, mut answered) = (Vec::new(), None);
        self.cell.step(now, input, &mut fx);
        for e in fx {
            match e {
                Effect::Persist { ticket, .. } => {
                    answered = self.step(now, Input::Durable(ticket)).or(answered);
                }
                Effect::Bundle(bundle) => self.bundle = bundle,
                Effect::Reply(r) => answered = Some(answer(r.outcome)),
                _ => {}
            }
        }
        answered
    }

    /// A request and its answer.
    pub(crate) fn ask(&mut self, now: Now, errand: &Errand) -> Answered {
        self.next += 1;
        let uid = if errand.verb == Verb::Create { cell_id().0 } else { Uid(0) };
        let request = errand.request(RequestId(u128::from(self.next)), now.wall, uid, self.next);
        self.step(now, Input::Request { to: ReplyTo(self.next), request: Arc::new(request) }).expect("it leads alone")
    }
}

/// An administrator's request about a cluster-scoped object.
pub(crate) fn by_admin(verb: Verb, kind: &str, name: &str, body: Option<Value>) -> Errand {
    Errand {
        user: Arc::new(User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() }),
        verb,
        kind: kinds::KINDS.iter().find(|k| k.kind == kind && k.served).unwrap(),
        namespace: None,
        name: (verb != Verb::Create).then(|| name.into()),
        subresource: "",
        options: Options::default(),
        body: body.map_or(Body::None, |tree| Body::Object { tree, strict: Vec::new() }),
    }
}
