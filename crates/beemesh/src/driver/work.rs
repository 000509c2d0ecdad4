//! The machines that work on what cells hold: controllers and scheduling beside each cell that leads here,
//! and this node's own half of both, which bids for pods and runs them.
//!
//! They are linked by messages only. On a mesh of one a message to another node is a message to this one;
//! nothing goes past it.

use super::away::Away;
use super::errands::{Errands, Told};
use super::seat::{Machine, Seat, Times, World};
use super::timers::Timers;
use super::{clock, lock, read, write};
use base::runtime::{Failure, Op, PodName, Seen, Why};
use base::{BootId, CellId, Chance, NodeId, Now, Time, Uid};
use host::runtime::Runtime;
use identity::Roles;
use node::bundle::Bundle;
use node::cell::{Change, Objects, Role};
use node::controllers::{self, Controllers};
use node::errand::ErrandId;
use node::leases::{self, Leases};
use node::life::{self, Pulse};
use node::nodes::{self, News, Nodes};
use node::pods::{self, Pods};
use node::reflector::{self, Reflector};
use node::scheduling::{self, Leader, Worker};
use node::wire::schedule::Message;
use objects::Tree;
use objects::request::{Config as Settings, Shared};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// How many refusable inputs an inbox holds; all that these machines are told must arrive.
const INBOX: usize = 1024;

/// Whose deadline it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Who {
    Controllers(CellId),
    Scheduling(CellId),
    Worker,
    Pods,
    Nodes,
    Pulse,
    Leases,
}

macro_rules! machine {
    ($machine:ty, $input:ty, $effect:ty) => {
        impl Machine for $machine {
            type Input = $input;
            type Effect = $effect;
            type Id = Who;
            fn step(&mut self, now: Now, input: Self::Input, effects: &mut Vec<Self::Effect>) {
                <$machine>::step(self, now, input, effects);
            }
            fn next_deadline(&self) -> Option<Time> {
                <$machine>::next_deadline(self)
            }
            fn check(&self) {
                <$machine>::check(self);
            }
        }
    };
}
machine!(Controllers, controllers::Input, controllers::Effect);
machine!(Leader, scheduling::LeaderInput, scheduling::LeaderEffect);
machine!(Worker, scheduling::WorkerInput, scheduling::WorkerEffect);
machine!(Pods, pods::Input, pods::Effect);
machine!(Reflector, reflector::Input, reflector::Effect);
machine!(Pulse, life::Input, life::Effect);

/// What works beside a cell that leads here.
pub(super) struct Leading {
    term: u64,
    pub(super) controllers: Arc<Seat<Controllers>>,
    /// Only a namespace has pods.
    scheduling: Option<Arc<Seat<Leader>>>,
}

/// What these machines are told of the node and its mesh.
pub(crate) struct About {
    /// The node.
    pub(crate) node: NodeId,
    /// Its name.
    pub(crate) name: Arc<str>,
    /// The cell that has the Nodes.
    pub(crate) registry: CellId,
    /// What clients verify the API with, as PEM.
    pub(crate) ca_pem: Arc<str>,
    /// Settings of the mesh that decisions depend on.
    pub(crate) settings: Arc<Settings>,
    /// The port of the Kubernetes API.
    pub(crate) api_port: u16,
}

/// All of them.
pub(crate) struct Work {
    me: Weak<Work>,
    node: NodeId,
    name: Arc<str>,
    registry: CellId,
    ca_pem: Arc<str>,
    settings: Arc<Settings>,
    /// The port all gateways listen on.
    api_port: u16,
    errands: Errands,
    handle: Handle,
    away: OnceLock<Arc<Away>>,
    pub(super) leading: RwLock<BTreeMap<CellId, Leading>>,
    /// Held while their news is told; taken before `leading`.
    pub(super) leases: Mutex<Leases>,
    /// What is known of the hive's Nodes, wherever their cell is led.
    nodes: Mutex<Nodes>,
    reflector: OnceLock<Arc<Seat<Reflector>>>,
    /// The reflector's watch, while it is wanted.
    watching: Mutex<Option<(ErrandId, AbortHandle)>>,
    pulse: OnceLock<Arc<Seat<Pulse>>>,
    bundle: Mutex<Arc<Bundle>>,
    /// Absent without a runtime: such a node bids for nothing.
    worker: OnceLock<Arc<Seat<Worker>>>,
    pods: OnceLock<Arc<Seat<Pods>>>,
    runtime: OnceLock<Arc<Runtime>>,
    pub(super) timers: Arc<Timers<Who>>,
    chance: Mutex<Chance>,
}

impl Work {
    /// Machines of this node, none of them at work yet.
    pub(crate) fn new(about: About, handle: Handle, chance: Chance) -> Arc<Work> {
        let About { node, name, registry, ca_pem, settings, api_port } = about;
        Arc::new_cyclic(|me| Work {
            me: me.clone(),
            node,
            name,
            registry,
            ca_pem,
            settings,
            api_port,
            errands: Errands::new(handle.clone()),
            handle,
            away: OnceLock::new(),
            leading: RwLock::default(),
            leases: Mutex::new(Leases::new(node)),
            nodes: Mutex::new(Nodes::new(node)),
            reflector: OnceLock::new(),
            watching: Mutex::default(),
            pulse: OnceLock::new(),
            bundle: Mutex::default(),
            worker: OnceLock::new(),
            pods: OnceLock::new(),
            runtime: OnceLock::new(),
            timers: Timers::new(),
            chance: Mutex::new(chance),
        })
    }

    /// The way of errands.
    pub(crate) fn errands(&self) -> &Errands {
        &self.errands
    }

    /// Starts waking machines at their deadlines, and those of the node itself.
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let me = self.clone();
        let run = move || me.timers.clone().run(|| clock::now().mono, |who| me.tick(who));
        std::thread::Builder::new().name("work".into()).spawn(run)?;
        let (chance, boot) = {
            let mut chance = lock(&self.chance);
            (chance.stream("nodes"), BootId(chance.u64()))
        };
        if let Some(config) = nodes::reflected() {
            let seat = Seat::new(Who::Nodes, Reflector::new(config, chance), self.clone(), INBOX);
            let _ = self.reflector.set(seat.clone());
            seat.post(reflector::Input::Tick);
        }
        let pulse = Seat::new(Who::Pulse, Pulse::new(self.node, boot), self.clone() as Arc<dyn World<Pulse>>, INBOX);
        let _ = self.pulse.set(pulse.clone());
        pulse.post(life::Input::Tick);
        Ok(())
    }

    /// Ends the deadlines.
    pub(crate) fn stop(&self) {
        self.timers.stop();
    }

    /// A cell has begun to lead here, or an entry was applied while it does.
    pub(crate) fn committed(&self, cell: CellId, role: &Role, term: u64, objects: Objects, changes: Arc<[Change]>) {
        let known = read(&self.leading).get(&cell).filter(|l| l.term == term).map(Leading::seats);
        let (controllers, scheduling) = match known {
            Some(seats) => seats,
            None => self.begin(cell, role, term),
        };
        if let Some(seat) = scheduling {
            let (objects, changes) = (objects.clone(), changes.clone());
            seat.post(scheduling::LeaderInput::Committed { objects, changes });
        }
        controllers.post(controllers::Input::Committed { objects, changes });
    }

    /// The cell leads here no more. Its controllers stay: they know which of their errands are under way.
    pub(crate) fn over(&self, cell: CellId) {
        let controllers = write(&self.leading).get_mut(&cell).map(|l| {
            (l.term, l.scheduling) = (0, None);
            l.controllers.clone()
        });
        self.timers.set(Who::Scheduling(cell), None);
        self.hosts_no_more(cell);
        if let Some(controllers) = controllers {
            controllers.post(controllers::Input::Leading(false));
        }
    }

    /// The cell is kept here no more.
    pub(crate) fn gone(&self, cell: CellId) {
        write(&self.leading).remove(&cell);
        self.hosts_no_more(cell);
        self.timers.set(Who::Controllers(cell), None);
        self.timers.set(Who::Scheduling(cell), None);
    }

    /// The way to the other nodes is open.
    pub(crate) fn goes_by(&self, away: Arc<Away>) {
        let _ = self.away.set(away);
    }

    /// Another node has said something about pods.
    pub(super) fn told(&self, from: NodeId, roles: Roles, message: Message) {
        match message {
            Message::ToNode(message) if roles.contains(Roles::KEEPER) => {
                if let Some(away) = self.away.get().filter(|_| message.cell() != self.registry) {
                    away.is_led_by(message.cell(), from);
                }
                if let Some(worker) = self.worker.get() {
                    worker.post(scheduling::WorkerInput::Message(message));
                }
            }
            Message::ToLeader(message) if roles.contains(Roles::WORKER) => {
                if let Some(seat) = self.scheduling(message.cell()) {
                    seat.post(scheduling::LeaderInput::Message { from, message });
                }
            }
            Message::ToNode(_) | Message::ToLeader(_) => {
                tracing::warn!(%from, %roles, "a node spoke about pods without the role for it: it was not listened to");
            }
        }
    }

    /// A sign of life has come, from this node or another: for the registry's controllers, if the registry is led here.
    pub(crate) fn heard(&self, from: NodeId, sign: life::SignOfLife) {
        let registry = read(&self.leading).get(&self.registry).map(|l| l.controllers.clone());
        if let Some(controllers) = registry {
            controllers.post(controllers::Input::Heard { from, sign });
        }
    }

    /// Root's configuration is now this.
    pub(crate) fn bundle_is(&self, bundle: &Arc<Bundle>) {
        *lock(&self.bundle) = bundle.clone();
        self.members_are(bundle);
        let seats: Vec<_> = read(&self.leading).values().map(|l| l.controllers.clone()).collect();
        for seat in seats {
            seat.post(controllers::Input::Bundle(bundle.clone()));
        }
        let namespaces = namespaces(bundle);
        let leaders: Vec<_> = read(&self.leading).values().filter_map(|l| l.scheduling.clone()).collect();
        for seat in leaders {
            seat.post(scheduling::LeaderInput::Namespaces(namespaces.clone()));
        }
        if let Some(worker) = self.worker.get() {
            worker.post(scheduling::WorkerInput::Cells(bundle.cells()));
            worker.post(scheduling::WorkerInput::Namespaces(namespaces));
        }
    }

    /// There is a runtime: from now on this node bids for pods and runs them.
    pub(crate) fn run_pods(self: &Arc<Self>, runtime: Arc<Runtime>) {
        let now = clock::now();
        let world = || self.clone();
        let pods = Seat::new(Who::Pods, Pods::new(pods::Config::default()), world(), INBOX);
        let worker = Seat::new(Who::Worker, Worker::new(now, BootId(lock(&self.chance).u64())), world(), INBOX);
        let mut seen = runtime.seen();
        let (_, _, _) = (self.runtime.set(runtime), self.pods.set(pods.clone()), self.worker.set(worker.clone()));
        let first = seen.borrow_and_update().clone();
        let found = first.sandboxes.iter().filter(|s| s.ready).filter_map(|s| s.pod.uid.parse().ok()).collect();
        worker.post(scheduling::WorkerInput::Found(found));
        pods.post(pods::Input::Seen(first));
        self.handle.spawn(async move {
            while seen.changed().await.is_ok() {
                let seen: Arc<Seen> = seen.borrow_and_update().clone();
                pods.post(pods::Input::Seen(seen));
            }
        });
        let bundle = lock(&self.bundle).clone();
        worker.post(scheduling::WorkerInput::Namespaces(namespaces(&bundle)));
        // A node that knows nothing of root yet does not know that there are no cells.
        if bundle.number() > base::Revision::ZERO {
            worker.post(scheduling::WorkerInput::Cells(bundle.cells()));
        }
        // The node's own Node object is what it bids by.
        let own = lock(&self.nodes).own().cloned();
        if let Some(own) = own {
            worker.post(scheduling::WorkerInput::Facts(own));
        }
    }

    /// What the node is, for its pods.
    pub(crate) fn node_is(&self, facts: pods::NodeFacts) {
        if let Some(pods) = self.pods.get() {
            pods.post(pods::Input::Node(Arc::new(facts)));
        }
    }

    /// What there is on the disk of pods, of which some may be gone.
    pub(crate) fn left(&self, found: Vec<PodName>) {
        let cells = lock(&self.bundle).cells().into_iter().map(|(_, cell)| cell).collect();
        if let Some(pods) = self.pods.get() {
            pods.post(pods::Input::Left { pods: found, cells });
        }
    }

    /// The name of this node.
    pub(crate) fn node_name(&self) -> &str {
        &self.name
    }

    /// The runtime, once there is one.
    pub(crate) fn runtime(&self) -> Option<&Arc<Runtime>> {
        self.runtime.get()
    }

    /// The object of a pod that is bound to this node.
    pub(crate) fn pod(&self, uid: &str) -> Option<Arc<Tree>> {
        self.pods.get()?.look(|pods| pods.object(uid))
    }

    /// The machine behind a Node, as far as the hive's Nodes are known here.
    pub(crate) fn machine(&self, node: &str) -> Option<NodeId> {
        lock(&self.nodes).machine(node)
    }

    fn begin(&self, cell: CellId, role: &Role, term: u64) -> (Arc<Seat<Controllers>>, Option<Arc<Seat<Leader>>>) {
        // Machines are made only while the driver lives, and it holds this.
        let Some(world) = self.me.upgrade() else { unreachable!("a cell is led for nobody") };
        let kept = read(&self.leading).get(&cell).map(|l| l.controllers.clone());
        let controllers = kept.unwrap_or_else(|| {
            let (ca_pem, settings) = (self.ca_pem.clone(), self.settings.clone());
            let config = controllers::Config { cell, role: role.clone(), ca_pem, settings };
            let bundle = lock(&self.bundle).clone();
            Seat::new(Who::Controllers(cell), Controllers::new(config, bundle), world.clone(), INBOX)
        });
        controllers.post(controllers::Input::Leading(true));
        let scheduling = match role {
            Role::Namespace(namespace) => {
                let namespace = namespace.clone();
                let config = scheduling::Config { cell, namespace, term, node: self.name.to_string() };
                let leader = Leader::new(config, &lock(&self.chance).stream(&format!("{cell}-{term}")));
                let seat = Seat::new(Who::Scheduling(cell), leader, world, INBOX);
                Some(seat)
            }
            _ => None,
        };
        let leading = Leading { term, controllers, scheduling };
        let seats = leading.seats();
        write(&self.leading).insert(cell, leading);
        // Whatever was told while these were being made.
        seats.0.post(controllers::Input::Bundle(lock(&self.bundle).clone()));
        if let Some(scheduling) = &seats.1 {
            scheduling.post(scheduling::LeaderInput::Namespaces(namespaces(&lock(&self.bundle))));
        }
        // Posted while no news comes between: whoever is told of Nodes is never told of older ones afterwards.
        let nodes = lock(&self.nodes);
        if let Some(addresses) = nodes.gateways() {
            seats.0.post(self.gateways(addresses.to_vec()));
        }
        if let Some(taints) = nodes.taints() {
            seats.0.post(controllers::Input::Taints(taints.clone()));
        }
        if let (Some(scheduling), Some(candidates)) = (&seats.1, nodes.candidates()) {
            scheduling.post(scheduling::LeaderInput::Nodes(candidates.clone()));
        }
        drop(nodes);
        if matches!(role, Role::Namespace(_)) {
            self.hosts_for(cell);
        }
        seats
    }

    /// The hive's Nodes are otherwise.
    fn nodes_are(&self, learn: impl FnOnce(&mut Nodes) -> Vec<News>) {
        let mut nodes = lock(&self.nodes);
        for news in learn(&mut nodes) {
            match news {
                News::Candidates(candidates) => {
                    let all: Vec<_> = read(&self.leading).values().filter_map(|l| l.scheduling.clone()).collect();
                    all.iter().for_each(|s| s.post(scheduling::LeaderInput::Nodes(candidates.clone())));
                }
                News::Gateways(addresses) => {
                    let all: Vec<_> = read(&self.leading).values().map(|l| l.controllers.clone()).collect();
                    all.iter().for_each(|s| s.post(self.gateways(addresses.clone())));
                }
                News::Taints(taints) => {
                    let all: Vec<_> = read(&self.leading).values().map(|l| l.controllers.clone()).collect();
                    all.iter().for_each(|s| s.post(controllers::Input::Taints(taints.clone())));
                }
                News::Own(facts) => {
                    if let Some(worker) = self.worker.get() {
                        worker.post(scheduling::WorkerInput::Facts(facts));
                    }
                }
            }
        }
    }

    fn gateways(&self, addresses: Vec<std::net::IpAddr>) -> controllers::Input {
        controllers::Input::Gateways { addresses, port: self.api_port }
    }

    fn tick(&self, who: Who) {
        match who {
            Who::Controllers(cell) => {
                let seat = read(&self.leading).get(&cell).map(|l| l.controllers.clone());
                if let Some(seat) = seat {
                    seat.post(controllers::Input::Tick);
                }
            }
            Who::Scheduling(cell) => {
                if let Some(seat) = self.scheduling(cell) {
                    seat.post(scheduling::LeaderInput::Tick);
                }
            }
            Who::Worker => {
                if let Some(seat) = self.worker.get() {
                    seat.post(scheduling::WorkerInput::Tick);
                }
            }
            Who::Pods => {
                if let Some(seat) = self.pods.get() {
                    seat.post(pods::Input::Tick);
                }
            }
            Who::Nodes => {
                if let Some(seat) = self.reflector.get() {
                    seat.post(reflector::Input::Tick);
                }
            }
            Who::Leases => self.leases_are(leases::Input::Tick),
            Who::Pulse => {
                if let Some(seat) = self.pulse.get() {
                    seat.post(life::Input::Tick);
                }
            }
        }
    }

    fn scheduling(&self, cell: CellId) -> Option<Arc<Seat<Leader>>> {
        read(&self.leading).get(&cell).and_then(|l| l.scheduling.clone())
    }
}

/// The labels of all namespaces.
fn namespaces(bundle: &Bundle) -> decide::schedule::Namespaces {
    let labels = |ns: &Tree| {
        let labels = ns["metadata"]["labels"].as_object().into_iter().flatten();
        labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
    };
    let named = |ns: &Tree| Some((ns["metadata"]["name"].as_str()?.to_owned(), labels(ns)));
    let all = bundle.list("Namespace").iter().filter_map(|ns| named(ns)).collect();
    decide::schedule::Namespaces(Arc::new(all))
}

impl Leading {
    fn seats(&self) -> (Arc<Seat<Controllers>>, Option<Arc<Seat<Leader>>>) {
        (self.controllers.clone(), self.scheduling.clone())
    }
}

impl Times<Who> for Work {
    fn now(&self) -> Now {
        clock::now()
    }

    fn wake_at(&self, who: Who, deadline: Option<Time>) {
        self.timers.set(who, deadline);
    }
}

impl World<Controllers> for Work {
    fn perform(&self, seat: &Arc<Seat<Controllers>>, effects: &mut Vec<controllers::Effect>) {
        for effect in effects.drain(..) {
            match effect {
                controllers::Effect::Errand { id, errand } => {
                    let seat = seat.clone();
                    self.errands.send(errand, move |answer| seat.post(controllers::Input::Answered { id, answer }));
                }
                controllers::Effect::Reasons { controller, object, reasons } => {
                    for reason in reasons {
                        tracing::debug!(controller, object, "{reason}");
                    }
                }
            }
        }
    }
}

impl World<Leader> for Work {
    fn perform(&self, seat: &Arc<Seat<Leader>>, effects: &mut Vec<scheduling::LeaderEffect>) {
        for effect in effects.drain(..) {
            match effect {
                // A node without a runtime is a lost message: nobody bids.
                scheduling::LeaderEffect::Send { to, message } if to == self.node => {
                    if let Some(worker) = self.worker.get() {
                        worker.post(scheduling::WorkerInput::Message(message));
                    }
                }
                scheduling::LeaderEffect::Send { to, message } => {
                    if let Some(away) = self.away.get() {
                        away.schedule(to, &Message::ToNode(message));
                    }
                }
                scheduling::LeaderEffect::Errand { id, errand } => {
                    let seat = seat.clone();
                    self.errands.send(errand, move |answer| {
                        seat.post(scheduling::LeaderInput::Answered { id, answer });
                    });
                }
            }
        }
    }
}

impl World<Reflector> for Work {
    fn perform(&self, seat: &Arc<Seat<Reflector>>, effects: &mut Vec<reflector::Effect>) {
        for effect in effects.drain(..) {
            match effect {
                reflector::Effect::List { id, errand } => {
                    let seat = seat.clone();
                    self.errands.send(errand, move |answer| seat.post(reflector::Input::Listed { id, answer }));
                }
                reflector::Effect::Watch { id, errand } => {
                    let seat = seat.clone();
                    let task = self.errands.watch(errand, move |told| reflected(&seat, id, told));
                    *lock(&self.watching) = task.map(|task| (id, task));
                }
                reflector::Effect::Leave { id } => {
                    if let Some((_, task)) = lock(&self.watching).take_if(|(watch, _)| *watch == id) {
                        task.abort();
                    }
                }
                reflector::Effect::Changed(changes) => self.nodes_are(|nodes| nodes.changed(&changes)),
                reflector::Effect::Synced { revision } => {
                    tracing::debug!(revision = revision.get(), "the hive's Nodes are known");
                    self.nodes_are(Nodes::synced);
                }
                reflector::Effect::Full => {
                    tracing::warn!(
                        "the hive has more Nodes than one node follows: some get no pods of the cells led here"
                    );
                }
            }
        }
    }
}

/// What a watch tells, as the reflector hears it. `false`: it is behind, and goes on with another watch.
fn reflected(seat: &Arc<Seat<Reflector>>, id: ErrandId, told: Told) -> bool {
    match told {
        Told::Opened => seat.post(reflector::Input::Opened { id }),
        Told::Ended(why) => seat.post(reflector::Input::Ended { id, why }),
        Told::Events(events) => {
            if seat.offer(reflector::Input::Told { id, events }).is_err() {
                seat.post(reflector::Input::Ended { id, why: None });
                return false;
            }
        }
    }
    true
}

impl World<Pulse> for Work {
    fn perform(&self, _: &Arc<Seat<Pulse>>, effects: &mut Vec<life::Effect>) {
        for life::Effect::Send(sign) in effects.drain(..) {
            let led_here = read(&self.leading).contains_key(&self.registry);
            match self.away.get() {
                Some(away) if !led_here => away.live(self.registry, &sign),
                // A registry that is led nowhere is a lost message.
                _ => self.heard(self.node, sign),
            }
        }
    }
}

impl World<Worker> for Work {
    fn perform(&self, seat: &Arc<Seat<Worker>>, effects: &mut Vec<scheduling::WorkerEffect>) {
        for effect in effects.drain(..) {
            match effect {
                scheduling::WorkerEffect::Errand { id, errand } => {
                    let seat = seat.clone();
                    self.errands.send(errand, move |answer| {
                        seat.post(scheduling::WorkerInput::Answered { id, answer });
                    });
                }
                scheduling::WorkerEffect::Send { cell, message } => match (self.scheduling(cell), self.away.get()) {
                    (Some(seat), _) => seat.post(scheduling::LeaderInput::Message { from: self.node, message }),
                    (None, Some(away)) => away.schedule_with_leader(cell, &Message::ToLeader(message)),
                    (None, None) => {}
                },
                scheduling::WorkerEffect::Admitted { assignment, refused } => {
                    let names: Vec<&str> = assignment.pods.iter().map(|(name, _)| &**name).collect();
                    tracing::trace!(cell = %assignment.cell, whole = assignment.whole, ?names, ?refused, "admitted");
                    if let Some(pods) = self.pods.get() {
                        let refused = refused.into_iter().map(|r| pods::Refusal {
                            uid: r.uid.to_string(),
                            reason: r.why.reason,
                            message: r.why.message,
                        });
                        pods.post(pods::Input::Assigned { assignment, refused: refused.collect() });
                    }
                }
            }
        }
    }
}

impl World<Pods> for Work {
    fn perform(&self, seat: &Arc<Seat<Pods>>, effects: &mut Vec<pods::Effect>) {
        for effect in effects.drain(..) {
            match effect {
                pods::Effect::Do { pod, id, op } => {
                    tracing::trace!(%pod, ?id, ?op, "operation");
                    self.perform_op(seat, id, op);
                }
                pods::Effect::Errand { id, errand } => {
                    let seat = seat.clone();
                    self.errands.send(errand, move |answer| seat.post(pods::Input::Answered { id, answer }));
                }
                pods::Effect::Ended { uid } => {
                    if let (Some(worker), Ok(uid)) = (self.worker.get(), uid.parse::<Uid>()) {
                        worker.post(scheduling::WorkerInput::Ended { uid });
                    }
                }
                pods::Effect::Look => {
                    if let Some(runtime) = self.runtime.get() {
                        runtime.look_now();
                    }
                }
            }
        }
    }
}

impl Work {
    /// The machine asks for nothing that rests on another answer, so all of it is done side by side.
    fn perform_op(&self, seat: &Arc<Seat<Pods>>, id: pods::OpId, op: Op) {
        let seat = seat.clone();
        let Some(runtime) = self.runtime.get().cloned() else {
            let message = "there is no container runtime".to_owned();
            return seat.post(pods::Input::Done { id, result: Err(Failure { why: Why::NoRuntime, message }) });
        };
        self.handle.spawn(async move {
            let result = runtime.perform(op).await;
            tracing::trace!(?id, ?result, "performed");
            seat.post(pods::Input::Done { id, result });
        });
    }
}
