//! The controllers of a cell, run where it is led.
//!
//! [`Controllers`] sees every committed change of its cell, works out which controller has to look at
//! what (`sources`), makes plans with `decide`'s pure functions one key at a time, and turns what they
//! want into errands (`run`): ordinary requests of the controller's own ServiceAccount. A plan is made
//! only on objects at least as new as what the key's earlier errands were answered with, so nothing is
//! made twice.
//!
//! It holds nothing that cannot be made again from the cell: a new leader begins with a look at
//! everything.

mod hosts;
mod index;
mod queue;
mod recorder;
mod run;
mod services;
mod sources;
mod standing;
mod taints;

use crate::bundle::Bundle;
use crate::cell::{Change, Objects, Role};
use crate::errand::{self, Answered, Errand, ErrandId};
use crate::life::{Heard, SignOfLife};
use base::{CellId, NodeId, Now, Revision, Time};
use decide::controllers::hosting::Hosting;
use index::Index;
use objects::Tree;
use objects::allotment::Reserved;
use objects::request::{Config as Settings, User};
use queue::{Queue, Work};
use recorder::Recorder;
use run::{Run, Wait};
use services::Gateways;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// The field manager of all controllers.
const MANAGER: &str = "kube-controller-manager";
/// At most this many errands of plans are under way.
const FLYING_MAX: usize = 64;
/// At most this many plans are made, and objects read, in one step.
const PLANS_PER_STEP: usize = 8;
const READS_PER_STEP: usize = 64;

/// A controller, by what it looks at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Controller {
    Deployment,
    ReplicaSet,
    Garbage,
    /// The end of the cell's own namespace.
    Namespace,
    /// The ServiceAccount that every namespace has.
    ServiceAccount,
    /// The trust bundle that every namespace has.
    RootCa,
    Events,
    PodGarbage,
    Quota,
    Endpoints,
    EndpointSlices,
    Mirroring,
    /// The service of the API itself, which in Kubernetes the API server keeps.
    Kubernetes,
    /// What root has handed out to the cell's services.
    Allotment,
    NodeLifecycle,
    TaintEviction,
    /// The time for which nodes believe what they read.
    Ttl,
}

impl Controller {
    /// Its ServiceAccount in `kube-system`, which its events name, too.
    const fn account(self) -> &'static str {
        match self {
            Controller::Deployment => "deployment-controller",
            Controller::ReplicaSet => "replicaset-controller",
            // Events have no controller in Kubernetes: its store forgets them.
            Controller::Garbage | Controller::Events => "generic-garbage-collector",
            Controller::Namespace => "namespace-controller",
            Controller::ServiceAccount => "service-account-controller",
            Controller::RootCa => "root-ca-cert-publisher",
            Controller::PodGarbage => "pod-garbage-collector",
            Controller::Quota => "resourcequota-controller",
            Controller::Endpoints => "endpoint-controller",
            Controller::EndpointSlices => "endpointslice-controller",
            Controller::Mirroring => "endpointslicemirroring-controller",
            Controller::Kubernetes | Controller::Allotment => "kube-apiserver",
            Controller::NodeLifecycle | Controller::TaintEviction => "node-controller",
            Controller::Ttl => "ttl-controller",
        }
    }

    /// Whether it tells in an object's status that its writes are refused.
    const fn tells_refusals(self) -> bool {
        matches!(self, Controller::Deployment | Controller::ReplicaSet | Controller::Namespace)
    }
}

/// What the controllers are told.
pub enum Input {
    /// The cell leads here, or does so no more: [`crate::cell::Effect::Leading`].
    Leading(bool),
    /// An entry was applied: [`crate::cell::Effect::Committed`]. The first one while leading is looked at
    /// as a whole.
    Committed {
        /// All objects as they are after it, or later.
        objects: Objects,
        /// What changed.
        changes: Arc<[Change]>,
    },
    /// Root's configuration is now this.
    Bundle(Arc<Bundle>),
    /// The API is served at these addresses, by the registry's Nodes: what is behind the service `kubernetes`
    /// in the cell of `default`. Other cells need not be told.
    Gateways {
        /// The gateways' addresses.
        addresses: Vec<IpAddr>,
        /// The port all of them listen on.
        port: u16,
    },
    /// Nodes with taints that drive pods away, and all their taints: of the registry's Nodes. Only the cell of
    /// a namespace need be told.
    Taints(Taints),
    /// What is known of the nodes' hosting leases ([`crate::leases`]), whenever something else is and when the cell has
    /// begun to lead: only the cell of a namespace need be told. Until it was told no node is silent.
    Hosting(Hosting),
    /// A sign of life has come from a node. The registry's controllers call one silent of which none came for
    /// 40 s; others need not be told.
    Heard {
        /// The node that is proven to be at the other end.
        from: NodeId,
        /// What it says.
        sign: SignOfLife,
    },
    /// An errand was answered. Every errand is, some time.
    Answered {
        /// Which.
        id: ErrandId,
        /// With what.
        answer: Answered,
    },
    /// Time has passed.
    Tick,
}

/// What the controllers want done.
#[derive(Debug)]
pub enum Effect {
    /// Make this request of the cell that decides it, and say [`Input::Answered`].
    Errand {
        /// Names it.
        id: ErrandId,
        /// The request.
        errand: Box<Errand>,
    },
    /// A plan's reasons, for the log.
    Reasons {
        /// The controller.
        controller: &'static str,
        /// The object's storage group-kind and name.
        object: String,
        /// One sentence each.
        reasons: Vec<String>,
    },
}

/// Taints by the names of their nodes.
pub type Taints = Arc<BTreeMap<Box<str>, Vec<Tree>>>;

/// An errand about to be sent.
struct Asked {
    id: ErrandId,
    errand: Errand,
}

/// Whose controllers they are.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cell.
    pub cell: CellId,
    /// What it is for.
    pub role: Role,
    /// What pods verify the API with, as PEM.
    pub ca_pem: Arc<str>,
    /// Settings of the mesh.
    pub settings: Arc<Settings>,
}

/// When a node was looked for, and since when it was not there.
#[derive(Clone, Copy)]
struct Sighting {
    at: Time,
    absent_since: Option<Time>,
}

/// An owner in another cell: its storage, name and uid.
type OwnerKey = (&'static str, Box<str>, Box<str>);

/// How the end of a namespace goes.
#[derive(Default)]
struct Ending {
    /// When it was seen first.
    seen: Option<Time>,
    /// When its status was last written.
    told: Option<Time>,
}

/// The controllers of one cell.
pub struct Controllers {
    config: Config,
    bundle: Arc<Bundle>,
    /// The committed objects; `None` while the cell is not led here.
    objects: Option<Objects>,
    /// Everything up to here was told, and is in the index.
    told: Revision,
    leading: bool,
    index: Index,
    queue: Queue,
    runs: BTreeMap<Work, Run>,
    /// Runs that wait for room among the errands under way.
    starved: VecDeque<Work>,
    /// Which run an errand belongs to.
    flying: BTreeMap<ErrandId, Work>,
    /// Runs that have ended and wait to see what they did.
    waits: BTreeMap<Work, Wait>,
    recorder: Recorder,
    /// What was found out of owners in other cells, by storage, name and uid: there or not, and when.
    looked: BTreeMap<OwnerKey, (bool, Time)>,
    /// The change that is being looked at.
    cause: Option<Revision>,
    /// What was found out of nodes, by name.
    nodes: BTreeMap<Box<str>, Sighting>,
    /// How the end of the namespace goes.
    ending: Ending,
    gateways: Gateways,
    taints: Taints,
    hosting: Hosting,
    /// When each node was heard of last.
    heard: Heard,
    /// Since when the cell leads here.
    since: Time,
    /// Names of services that were deleted while this watched, and whose Endpoints are left.
    serviceless: BTreeSet<Arc<str>>,
    /// The change of the cell's Allotment that is known, if it has one, and while something of it is being returned and
    /// the log is not bound to that.
    allotted: Option<Revision>,
    returning: Option<Revision>,
    /// What services were seen to give up of it.
    freed: Vec<Reserved>,
    users: BTreeMap<&'static str, Arc<User>>,
    next_errand: u64,
    now: Now,
}

impl Controllers {
    /// Controllers of a cell that is not led here yet.
    pub fn new(config: Config, bundle: Arc<Bundle>) -> Controllers {
        Controllers {
            config,
            bundle,
            objects: None,
            told: Revision::ZERO,
            leading: false,
            index: Index::default(),
            queue: Queue::default(),
            runs: BTreeMap::new(),
            starved: VecDeque::new(),
            flying: BTreeMap::new(),
            waits: BTreeMap::new(),
            recorder: Recorder::default(),
            looked: BTreeMap::new(),
            cause: None,
            nodes: BTreeMap::new(),
            ending: Ending::default(),
            gateways: Gateways::default(),
            taints: Taints::default(),
            hosting: Hosting::default(),
            heard: Heard::default(),
            since: Time::ZERO,
            serviceless: BTreeSet::new(),
            allotted: None,
            returning: None,
            freed: Vec::new(),
            users: BTreeMap::new(),
            next_errand: 1,
            now: Now::default(),
        }
    }

    /// One bounded step.
    pub fn step(&mut self, now: Now, input: Input, fx: &mut Vec<Effect>) {
        self.now = now;
        match input {
            Input::Leading(leading) => self.lead(leading),
            Input::Committed { objects, changes } => self.committed(objects, &changes),
            Input::Bundle(bundle) => self.bundle_changed(bundle),
            Input::Heard { from, sign } => self.heard.hear(from, &sign, now.mono),
            Input::Taints(taints) => self.taints_changed(taints),
            Input::Hosting(hosting) => self.hosting_changed(hosting),
            Input::Gateways { addresses, port } => self.gateways_changed(&addresses, port),
            Input::Answered { id, answer } => self.answered(id, answer, fx),
            Input::Tick => {}
        }
        if !self.leading {
            return;
        }
        if !self.index.is_complete() {
            for (key, stored) in self.index.scan(READS_PER_STEP) {
                self.look_at(&key, None, Some(&stored));
            }
            if self.index.is_complete() {
                self.look_at_standing();
            }
        }
        self.release();
        self.queue.tick(now.mono);
        // Before everything has been read, what is there looks as if it were not.
        if self.index.is_complete() && self.is_level() {
            for _ in 0..PLANS_PER_STEP {
                let Some(work) = self.queue.pop() else { break };
                self.start(work, None, Wait::default(), fx);
            }
        }
        self.tell(fx);
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        if !self.leading || self.objects.is_none() {
            return None;
        }
        if !self.index.is_complete() || (self.queue.is_ready() && self.is_level()) {
            return Some(self.now.mono);
        }
        self.queue.next_deadline()
    }

    /// Asserts what must hold between steps.
    pub fn check(&self) {
        self.queue.check();
        assert!(self.flying.len() <= FLYING_MAX, "more errands are under way than the bound says");
        assert!(self.flying.values().all(|w| self.runs.contains_key(w)), "an errand of no run is under way");
        assert!(self.starved.iter().all(|w| self.runs.contains_key(w)), "a run that is over waits for room");
        assert!(self.leading || self.waits.is_empty(), "something waits for commits that nobody tells of");
    }

    /// How many errands are under way.
    pub fn flying(&self) -> usize {
        self.flying.len()
    }

    fn lead(&mut self, leading: bool) {
        self.leading = leading;
        self.since = self.now.mono;
        self.objects = None;
        // Whoever led before knew other leases.
        self.hosting = Hosting::default();
        self.index = Index::default();
        self.recorder.clear();
        self.ending = Ending::default();
        self.serviceless.clear();
        (self.allotted, self.returning) = (None, None);
        self.freed.clear();
        self.starved.clear();
        // What is under way is still answered, and its keys are not planned for until then.
        for run in self.runs.values_mut() {
            run.give_up();
        }
        self.queue.clear();
        for (work, _) in std::mem::take(&mut self.waits) {
            self.queue.done(&work);
        }
        let idle: Vec<Work> = self.runs.iter().filter(|(_, r)| r.is_idle()).map(|(w, _)| w.clone()).collect();
        for work in idle {
            self.runs.remove(&work);
            self.queue.done(&work);
        }
    }

    fn committed(&mut self, objects: Objects, changes: &[Change]) {
        if !self.leading {
            return;
        }
        if self.objects.is_none() {
            self.told = objects.revision();
            self.index.begin(objects.clone());
            self.objects = Some(objects);
            return;
        }
        self.objects = Some(objects);
        // What the first look shows may be told once more.
        let before = self.told;
        for c in changes.iter().filter(|c| c.revision > before) {
            self.told = self.told.max(c.revision);
            self.index.change(&c.key, c.before.as_ref(), c.after.as_ref());
            self.cause = Some(c.revision);
            self.look_at(&c.key, c.before.as_ref(), c.after.as_ref());
        }
        self.cause = None;
        self.look_at_namespace();
        let bound = self.objects.as_ref().map_or(0, Objects::bundle);
        self.look_at_returning(bound);
    }

    /// Whether the index has everything that the objects have. Entries that are applied together are told one by
    /// one, each with the objects as they are after the last: in between a plan would miss what it has made itself.
    fn is_level(&self) -> bool {
        self.objects.as_ref().is_some_and(|o| o.revision() <= self.told)
    }

    fn bundle_changed(&mut self, bundle: Arc<Bundle>) {
        if bundle.number() <= self.bundle.number() {
            return;
        }
        self.bundle = bundle;
        if self.leading {
            self.look_at_bundle();
        }
    }

    /// Sends events.
    fn tell(&mut self, fx: &mut Vec<Effect>) {
        loop {
            let id = ErrandId(self.next_errand);
            let own = match &self.config.role {
                Role::Namespace(n) => &**n,
                _ => "",
            };
            let Some(asked) = self.recorder.next(id, own) else { return };
            self.next_errand += 1;
            fx.push(Effect::Errand { id: asked.id, errand: Box::new(asked.errand) });
        }
    }

    fn user(&mut self, controller: Controller) -> Arc<User> {
        let name = controller.account();
        let user = || match controller {
            Controller::Kubernetes | Controller::Allotment => api_server(),
            _ => errand::controller(name),
        };
        self.users.entry(name).or_insert_with(user).clone()
    }
}

/// Who keeps the objects that Kubernetes' API server keeps for itself.
fn api_server() -> Arc<User> {
    let groups = vec!["system:masters".to_owned(), "system:authenticated".to_owned()];
    Arc::new(User { name: "system:apiserver".into(), groups, ..User::default() })
}
