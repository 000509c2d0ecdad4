//! A namespace's cell of one member with its scheduling leader, and nodes: everything that ships, joined by
//! a queue of messages that a test may hold, lose and double.

use agree::log::Ticket;
use base::{BootId, CellId, Chance, NodeId, Now, RequestId, Time, Uid, Wall};
use node::assignment::Assignment;
use node::bundle::{self, Bundle};
use node::cell::{Cell, Config, Effect, Input, Objects, Outcome, ReplyTo, Role};
use node::errand::{Answered, Errand, ErrandId};
use node::genesis;
use node::scheduling::message::{Assigned, ToLeader, ToNode};
use node::scheduling::{
    Candidate, Config as Leading, Leader, LeaderEffect, LeaderInput, Refused, Worker, WorkerEffect, WorkerInput,
};
use objects::bootstrap;
use objects::decision::Payload;
use objects::kinds;
use objects::request::{Body, Config as Settings, Options, PatchType, Request, Stored, User, Verb};
use objects::status::Status;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn id() -> CellId {
    CellId(Uid::from_chance(7))
}

fn bundle() -> Arc<Bundle> {
    let mut trees: Vec<(&'static str, Value)> = bootstrap::objects_of("")
        .into_iter()
        .filter(|(k, _)| Bundle::holds(k.storage))
        .map(|(k, t)| (k.storage, t))
        .collect();
    trees.push((
        "Namespace",
        json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "d", "uid": id().to_string()},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
    ));
    trees.push((
        "PriorityClass.scheduling.k8s.io",
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "patient"},
            "value": 1000, "preemptionPolicy": "Never"}),
    ));
    let names: Vec<String> =
        trees.iter().map(|(_, t)| t["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect();
    let changes =
        trees.iter().zip(&names).map(|((storage, t), name)| bundle::Change { storage, name, tree: Some(t.clone()) });
    Arc::new(Bundle::default().with(base::Revision::from_u64(1 << 40).unwrap(), changes))
}

/// A node's number makes its id and its name.
pub(crate) fn node_id(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// On its way.
#[derive(Clone)]
pub(crate) enum Packet {
    ToNode(NodeId, ToNode),
    ToLeader(NodeId, ToLeader),
}

/// Whose errand it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    Leader(ErrandId),
    Node(NodeId, ErrandId),
}

/// What a node was handed to run.
#[derive(Default)]
pub(crate) struct Handed {
    /// By name: uid.
    pub(crate) pods: BTreeMap<String, Uid>,
    pub(crate) refused: Vec<Refused>,
}

pub(crate) struct World {
    pub(crate) cell: Cell,
    pub(crate) now: Now,

    cache: VecDeque<Ticket>,
    answers: BTreeMap<u64, Outcome>,
    errands: BTreeMap<u64, Asker>,
    /// What was committed last.
    objects: Objects,
    pub(crate) leader: Option<Leader>,
    pub(crate) term: u64,
    pub(crate) nodes: BTreeMap<u8, Value>,
    pub(crate) workers: BTreeMap<NodeId, Worker>,
    pub(crate) handed: BTreeMap<NodeId, Handed>,
    /// What the runtimes say they run when a node starts.
    pub(crate) running: BTreeSet<Uid>,
    pub(crate) packets: VecDeque<Packet>,
    /// Asked for and not yet sent to the cell.
    pub(crate) asked: VecDeque<(Asker, Errand)>,
    /// Errands wait until a test sends them.
    pub(crate) hold_errands: bool,
    /// Packets for which this says so are lost.
    pub(crate) lose: fn(&Packet) -> bool,
    next: u64,
    /// The start of a node that was last.
    boot: BootId,
}

impl World {
    pub(crate) fn new() -> World {
        let wall = Wall(1_769_846_400_000);
        let config = Config::new(id(), Role::Namespace("d".into()), NodeId([1; 32]), Arc::new(Settings::default()));
        let genesis = genesis::namespace("d", id().0, bundle().number(), "PEM", wall);
        let now = Now { mono: Time::from_ms(1), wall };
        let cell = Cell::new(config, None, bundle(), Some(genesis), &Chance::from_u64(1), now).unwrap();
        let mut w = World {
            cell,
            now,
            cache: VecDeque::new(),
            answers: BTreeMap::new(),
            errands: BTreeMap::new(),
            objects: Objects::default(),
            leader: None,
            term: 0,
            nodes: BTreeMap::new(),
            workers: BTreeMap::new(),
            handed: BTreeMap::new(),
            running: BTreeSet::new(),
            packets: VecDeque::new(),
            asked: VecDeque::new(),
            hold_errands: false,
            lose: |_| false,
            next: 1,
            boot: BootId::default(),
        };
        w.step(Input::Tick);
        w.sync();
        assert!(w.cell.is_leading());
        w
    }

    // The cell.

    pub(crate) fn step(&mut self, input: Input) {
        let mut fx = Vec::new();
        self.cell.step(self.now, input, &mut fx);
        self.cell.check();
        for e in fx {
            match e {
                Effect::Persist { ticket, .. } => self.cache.push_back(ticket),
                Effect::Reply(r) => match self.errands.remove(&r.to.0) {
                    Some(Asker::Leader(id)) => self.lead(LeaderInput::Answered { id, answer: answered(r.outcome) }),
                    Some(Asker::Node(node, id)) => {
                        self.work(node, WorkerInput::Answered { id, answer: answered(r.outcome) });
                    }
                    None => {
                        self.answers.insert(r.to.0, r.outcome);
                    }
                },
                Effect::Leading(true) => self.new_leader(),
                Effect::Committed { objects, changes, .. } => {
                    self.objects = objects.clone();
                    self.lead(LeaderInput::Committed { objects, changes });
                }
                _ => {}
            }
        }
    }

    /// The disk has kept everything it was given.
    pub(crate) fn sync(&mut self) {
        while let Some(ticket) = self.cache.pop_front() {
            self.step(Input::Durable(ticket));
        }
    }

    pub(crate) fn request(&mut self, verb: Verb, name: &str, sub: &str, body: Body) -> Outcome {
        self.next += 1;
        let request = Request {
            id: RequestId(u128::from(self.next)),
            sent: self.now.wall,
            user: Arc::new(User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() }),
            verb,
            kind: kinds::by_kind("", "v1", "Pod").unwrap(),
            namespace: Some("d".into()),
            name: (!name.is_empty()).then(|| name.into()),
            subresource: sub.into(),
            options: Options { field_manager: "test".into(), ..Options::default() },
            body,
            uid: Uid::from_chance(u128::from(self.next) << 64 | u128::from(self.next)),
            suffix: self.next,
        };
        let to = self.next;
        self.step(Input::Request { to: ReplyTo(to), request: Arc::new(request) });
        self.sync();
        self.answers.remove(&to).unwrap()
    }

    pub(crate) fn create(&mut self, name: &str, spec: Value) {
        let outcome = self.try_create(name, spec);
        assert!(matches!(&outcome, Outcome::Done(a) if a.code == 201), "{}", text(&outcome));
    }

    pub(crate) fn create_labelled(&mut self, name: &str, app: &str, mut spec: Value) {
        spec["labels"] = json!({"app": app});
        self.create(name, spec);
    }

    fn try_create(&mut self, name: &str, mut spec: Value) -> Outcome {
        let labels = spec.as_object_mut().and_then(|s| s.remove("labels"));
        if spec["containers"].is_null() {
            spec["containers"] = json!([{"name": "c", "image": "i"}]);
        }
        let tree = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "d", "labels": labels}, "spec": spec});
        self.request(Verb::Create, "", "", Body::Object { tree, strict: Vec::new() })
    }

    /// Removes a pod as its node does once nothing of it runs.
    pub(crate) fn remove(&mut self, name: &str) {
        let tree = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
        let outcome = self.request(Verb::Delete, name, "", Body::Object { tree, strict: Vec::new() });
        assert!(matches!(outcome, Outcome::Done(_)), "{}", text(&outcome));
    }

    /// Changes a pod as somebody with a strategic merge patch does.
    pub(crate) fn patch(&mut self, name: &str, patch: &Value) {
        let body = Body::Patch { kind: PatchType::Strategic, bytes: patch.to_string().into() };
        let outcome = self.request(Verb::Patch, name, "", body);
        assert!(matches!(outcome, Outcome::Done(_)), "{}", text(&outcome));
    }

    pub(crate) fn set_status(&mut self, name: &str, f: impl FnOnce(&mut Value)) {
        let mut tree = self.pod(name);
        f(&mut tree["status"]);
        let outcome = self.request(Verb::Update, name, "status", Body::Object { tree, strict: Vec::new() });
        assert!(matches!(outcome, Outcome::Done(_)), "{}", text(&outcome));
    }

    pub(crate) fn pod(&self, name: &str) -> Value {
        self.object(&format!("Pod\0{name}"))
    }

    fn object(&self, key: &str) -> Value {
        self.cell.state().get(key.as_bytes()).map_or(Value::Null, |r| serde_json::from_slice(&r.value).unwrap())
    }

    /// The name of the node a pod is bound to.
    pub(crate) fn host(&self, name: &str) -> Option<String> {
        self.pod(name)["spec"]["nodeName"].as_str().map(Into::into)
    }

    pub(crate) fn uid(&self, name: &str) -> Uid {
        self.pod(name)["metadata"]["uid"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn condition(&self, name: &str) -> Value {
        let pod = self.pod(name);
        let all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|c| c["type"] == "PodScheduled").unwrap_or(Value::Null)
    }

    /// Reason, text and count of the Events about a pod.
    pub(crate) fn events(&self, name: &str) -> Vec<(String, String, i64)> {
        let all = self.cell.state().scan(b"Event\0");
        all.filter_map(|(_, r)| {
            let e: Value = serde_json::from_slice(&r.value).unwrap();
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            let about = e["involvedObject"]["name"] == name;
            about.then(|| (text(&e["reason"]), text(&e["message"]), e["series"]["count"].as_i64().unwrap_or(1)))
        })
        .collect()
    }

    // The leader.

    /// A leader of the next term, which knows nothing but what is committed.
    pub(crate) fn new_leader(&mut self) {
        self.term += 1;
        let config = Leading { cell: id(), namespace: "d".into(), term: self.term, node: "n1".into() };
        self.leader = Some(Leader::new(config, &Chance::from_u64(self.term)));
        self.asked.retain(|(asker, _)| matches!(asker, Asker::Node(..)));
        self.errands.retain(|_, asker| matches!(asker, Asker::Node(..)));
    }

    /// The cell has another leader, here again.
    pub(crate) fn change_leader(&mut self) {
        self.new_leader();
        let objects = self.objects.clone();
        self.lead(LeaderInput::Committed { objects, changes: Arc::default() });
        self.tell_nodes();
    }

    pub(crate) fn lead(&mut self, input: LeaderInput) {
        let Some(leader) = &mut self.leader else { return };
        let mut fx = Vec::new();
        leader.step(self.now, input, &mut fx);
        leader.check();
        for e in fx {
            match e {
                LeaderEffect::Send { to, message } => self.packets.push_back(Packet::ToNode(to, message)),
                LeaderEffect::Errand { id, errand } => self.asked.push_back((Asker::Leader(id), *errand)),
            }
        }
    }

    /// Sends the oldest errand to the cell.
    pub(crate) fn send_errand(&mut self) -> bool {
        let Some((id, errand)) = self.asked.pop_front() else { return false };
        self.next += 1;
        let chance = u128::from(self.next) << 64 | u128::from(self.next);
        let request = errand.request(RequestId(chance), self.now.wall, Uid::from_chance(chance), self.next);
        self.errands.insert(self.next, id);
        self.step(Input::Request { to: ReplyTo(self.next), request: Arc::new(request) });
        self.sync();
        true
    }

    // The nodes.

    /// A node with so much to give, known to the leader, that has just started.
    pub(crate) fn add_node(&mut self, n: u8, cpu: &str) {
        self.nodes.insert(n, node(n, cpu));
        self.start_worker(n);
        self.tell_nodes();
        self.settle();
    }

    pub(crate) fn change_node(&mut self, n: u8, f: impl FnOnce(&mut Value)) {
        f(self.nodes.get_mut(&n).unwrap());
        self.tell_nodes();
        let facts = Candidate::of(&self.nodes[&n]).unwrap().facts;
        self.work(node_id(n), WorkerInput::Facts(facts));
    }

    pub(crate) fn tell_nodes(&mut self) {
        let candidates: Arc<[Candidate]> = self.nodes.values().filter_map(Candidate::of).collect();
        self.lead(LeaderInput::Nodes(candidates));
    }

    pub(crate) fn start_worker(&mut self, n: u8) {
        self.start_unmeasured(n);
        self.measure(n);
    }

    /// It reads its own Node object.
    pub(crate) fn measure(&mut self, n: u8) {
        let facts = Candidate::of(&self.nodes[&n]).unwrap().facts;
        self.work(node_id(n), WorkerInput::Facts(facts));
    }

    /// It starts, and has not read its own Node object.
    pub(crate) fn start_unmeasured(&mut self, n: u8) {
        self.boot.0 += 1;
        self.workers.insert(node_id(n), Worker::new(self.now, self.boot));
        self.handed.insert(node_id(n), Handed::default());
        self.work(node_id(n), WorkerInput::Found(self.running.clone()));
        self.work(node_id(n), WorkerInput::Cells(vec![("d".into(), id())]));
    }

    pub(crate) fn work(&mut self, node: NodeId, input: WorkerInput) {
        let Some(worker) = self.workers.get_mut(&node) else { return };
        let mut fx = Vec::new();
        worker.step(self.now, input, &mut fx);
        worker.check();
        for e in fx {
            match e {
                WorkerEffect::Send { message, .. } => self.packets.push_back(Packet::ToLeader(node, message)),
                WorkerEffect::Admitted { assignment, refused } => {
                    let handed = self.handed.entry(node).or_default();
                    if assignment.whole {
                        handed.pods.clear();
                    }
                    for (name, pod) in assignment.pods {
                        match pod {
                            Some(pod) => handed.pods.insert(name.to_string(), pod.meta.uid),
                            None => handed.pods.remove(&*name),
                        };
                    }
                    handed.refused.extend(refused);
                }
                WorkerEffect::Errand { id, errand } => self.asked.push_back((Asker::Node(node, id), *errand)),
            }
        }
    }

    /// Nothing of a pod runs on a node any more.
    pub(crate) fn ended(&mut self, n: u8, uid: Uid) {
        self.work(node_id(n), WorkerInput::Ended { uid });
    }

    /// The cell of another namespace tells a node of a pod that is bound to it.
    pub(crate) fn assign(&mut self, n: u8, cell: CellId, namespace: &str, pod: &Value) {
        let kind = kinds::by_kind("", "v1", "Pod").unwrap();
        let stored = Stored::from_tree(kind, pod.clone(), base::Revision::from_u64(1 << 41).unwrap());
        let name = pod["metadata"]["name"].as_str().unwrap().into();
        let assignment =
            Assignment { cell, namespace: namespace.into(), whole: true, pods: vec![(name, Some(stored))] };
        let assigned = Assigned { term: 1, number: 1, boot: Some(self.boot), assignment };
        self.work(node_id(n), WorkerInput::Message(ToNode::Assigned(assigned)));
    }

    // What happens.

    pub(crate) fn deliver(&mut self, packet: Packet) {
        match packet {
            Packet::ToNode(to, message) => self.work(to, WorkerInput::Message(message)),
            Packet::ToLeader(from, message) => self.lead(LeaderInput::Message { from, message }),
        }
    }

    /// Everything that is under way, and what follows from it, without time passing.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            if let Some(packet) = self.packets.pop_front() {
                if !(self.lose)(&packet) {
                    self.deliver(packet);
                }
            } else if self.leader.as_ref().is_some_and(|l| l.next_deadline().is_some_and(|t| t <= self.now.mono)) {
                self.lead(LeaderInput::Tick);
            } else if self.hold_errands || !self.send_errand() {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Lets this much time pass, every machine stepped when it wants to be.
    pub(crate) fn pass(&mut self, long: Duration) {
        let end = self.now.mono + long;
        loop {
            self.settle();
            let leader = self.leader.as_ref().and_then(Leader::next_deadline);
            let workers = self.workers.values().filter_map(Worker::next_deadline);
            let next = workers.chain(leader).min().filter(|t| *t <= end);
            let at = next.unwrap_or(end).max(self.now.mono);
            self.now.wall = self.now.wall + at.since(self.now.mono);
            self.now.mono = at;
            let Some(next) = next else { return self.settle() };
            assert!(next <= self.now.mono);
            let due = |t: Option<Time>| t.is_some_and(|t| t <= self.now.mono);
            let workers: Vec<NodeId> =
                self.workers.iter().filter(|(_, w)| due(w.next_deadline())).map(|(id, _)| *id).collect();
            if due(leader) {
                self.lead(LeaderInput::Tick);
            }
            for id in workers {
                self.work(id, WorkerInput::Tick);
            }
        }
    }

    /// How many reservations are open in all.
    pub(crate) fn reserved(&self) -> usize {
        self.workers.values().map(|w| w.book().open()).sum()
    }
}

/// A Node object.
pub(crate) fn node(n: u8, cpu: &str) -> Value {
    json!({
        "metadata": {"name": format!("n{n}"), "labels": {"kubernetes.io/hostname": format!("n{n}")},
            "annotations": {decide::schedule::NODE_ID: node_id(n).to_string()}},
        "spec": {},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}},
    })
}

/// A pod's spec that asks for this much.
pub(crate) fn cpu(amount: &str) -> Value {
    json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": amount}}}]})
}

fn answered(outcome: Outcome) -> Answered {
    match outcome {
        Outcome::Done(answer) => Ok(match answer.payload {
            Payload::Json(b) => serde_json::from_slice(&b).unwrap(),
            p => p.tree(),
        }),
        Outcome::Refused(status) => Err(status),
        _ => Err(Box::new(Status::timeout("the outcome is unknown", 0))),
    }
}

pub(crate) fn text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(a) => format!("done {}", a.code),
        Outcome::Refused(s) => format!("{} {}", s.code, s.message),
        _ => "something else".into(),
    }
}
