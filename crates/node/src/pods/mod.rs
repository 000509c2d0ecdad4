//! The pods bound to this node, as the kubelet runs them: a machine that is told what cells bind here and
//! what is seen at the runtime, and says what to ask of the host and of the cells.
//!
//! It remembers next to nothing. What runs is what is seen ([`base::runtime::Seen`]); what shall run is what
//! the cells say ([`Assignment`]); what it does is the difference, worked out anew for each pod whenever
//! something is learnt of it (`life`). So a daemon that is killed at any moment finds everything again, and
//! no container restarts for it. A pod's object is kept beside its sandbox, so that a node cut off from a
//! pod's cell runs it on, also through its own restart.
//!
//! It never asks for an operation that rests on another one not answered yet, so those who perform may
//! perform all of them side by side, also those of one pod: a probe does not wait for a stop.
//!
//! | file | its question |
//! |---|---|
//! | `life` | what is to be done next about a pod? |
//! | `start`, `stop` | how does one container start, and end? |
//! | `container`, `sandbox`, `security`, `qos`, `env`, `volumes` | what is the runtime asked for? |
//! | `seen` | what is there, and since when is that certain? |
//! | `probes`, `words` | how is a container, and what did it say at its end? |
//! | `status`, `conditions`, `report` | what is said of the pod, and to whom? |
//! | `usage` | what does it hold on the disk? |
//! | `sources`, `tokens`, `images`, `events`, `post` | what is wanted from cells and registries? |

mod admission;
mod backoff;
mod conditions;
mod container;
mod credentials;
mod downward;
mod env;
mod events;
mod expand;
mod facts;
mod handler;
mod images;
mod life;
mod ops;
mod pod;
mod post;
mod probes;
mod qos;
mod report;
mod sandbox;
mod security;
mod seen;
mod sources;
mod spec;
mod start;
mod status;
mod stop;
mod tokens;
mod usage;
mod volumes;
mod words;

pub use facts::NodeFacts;
pub use ops::OpId;

use crate::assignment::Assignment;
use crate::errand::{self, Answered, Errand, ErrandId};
use base::runtime::{Answer, Failure, Op, PodName, Seen};
use base::{CellId, Now, Time};
use events::{Events, Type};
use images::Images;
use objects::Tree;
use objects::kinds::tree::Fields;
use objects::request::{Stored, User};
use ops::{Ops, What};
use pod::{Pod, Verdict};
use post::{Post, Purpose};
use seen::{Mark, Sight, View};
use sources::Sources;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// At most this many pods are looked at in one step; the rest in the next, at once.
const LOOKED_AT: usize = 16;
/// At most this many leftovers are removed at a time.
const SWEPT: usize = 32;
/// How long it is remembered that a pod is gone, for sights that still show it.
const BURIED: Duration = Duration::from_secs(60);

/// How the machine behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most pods that run here at a time; one more is refused as `OutOfpods`.
    pub pods_max: usize,
    /// Most images that are pulled at a time.
    pub pulls_max: usize,
    /// Most errands under way at a time.
    pub errands_max: usize,
    /// Most events that wait; what comes then is dropped and counted.
    pub events_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { pods_max: 250, pulls_max: 4, errands_max: 64, events_max: 1000 }
    }
}

/// A pod that the node will not run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Which.
    pub uid: String,
    /// `OutOfcpu`, `NodeAffinity`, …
    pub reason: String,
    /// For people.
    pub message: String,
}

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// The node is now this. Nothing is done before the first.
    Node(Arc<NodeFacts>),
    /// Pods of a cell, as it has them now; and those of them that the node's book does not admit.
    Assigned {
        /// The pods.
        assignment: Assignment,
        /// They become Failed and are never started.
        refused: Vec<Refusal>,
    },
    /// All there is at the runtime, and `now` read after it was. Nothing is done before the first, and after a
    /// runtime that did not answer has come back nothing before the next.
    Seen(Arc<Seen>),
    /// The pods of which there is anything on the disk. Told every few minutes.
    Left {
        /// The pods.
        pods: Vec<PodName>,
        /// All cells that have pods. Those of others are gone with their cells.
        cells: Vec<CellId>,
    },
    /// An operation has been performed, or has failed.
    Done {
        /// Which.
        id: OpId,
        /// What came of it.
        result: Result<Answer, Failure>,
    },
    /// An errand came back.
    Answered {
        /// Which.
        id: ErrandId,
        /// The object, or the refusal.
        answer: Answered,
    },
}

/// What the machine wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Ask the host, and say [`Input::Done`]. All of them may be performed side by side.
    Do {
        /// For which pod, by its uid: for logs and metrics.
        pod: Arc<str>,
        /// Names it.
        id: OpId,
        /// What.
        op: Op,
    },
    /// Ask a cell, and say [`Input::Answered`].
    Errand {
        /// Names it.
        id: ErrandId,
        /// What.
        errand: Box<Errand>,
    },
    /// All containers of this pod have ended for good: its room is free. Told again when its cell first tells
    /// of a pod that had ended by then, and after a restart of the daemon.
    Ended {
        /// Its uid.
        uid: Arc<str>,
    },
    /// Look at the runtime now and say [`Input::Seen`]; `at` no earlier than this moment.
    Look,
}

/// What all pods share.
#[derive(Debug)]
struct Shared {
    config: Config,
    facts: Arc<NodeFacts>,
    user: Arc<User>,
    ops: Ops,
    post: Post,
    images: Images,
    sources: Sources,
    events: Events,
    /// Pods to be looked at.
    dirty: BTreeSet<Arc<str>>,
    /// The runtime has been seen since it last answered.
    seen: bool,
    /// It has to be seen again.
    look: bool,
    /// When it was last asked for.
    looked: Time,
}

impl Shared {
    /// Whether what is seen can be acted on.
    fn may_act(&self) -> bool {
        self.seen && self.facts.runtime
    }
}

/// What a pod is handed while it is looked at.
struct Cx<'a> {
    now: Now,
    shared: &'a mut Shared,
    fx: &'a mut Vec<Effect>,
}

/// A cell, as far as it has told of its pods.
#[derive(Debug, Default)]
struct Cell {
    /// It has told everything once.
    whole: bool,
    /// uids by name.
    names: BTreeMap<Arc<str>, Arc<str>>,
}

/// The machine.
#[derive(Debug)]
pub struct Pods {
    shared: Shared,
    pods: BTreeMap<Arc<str>, Pod>,
    cells: BTreeMap<CellId, Cell>,
    /// What was seen last: a pod may be told of after it was seen.
    last: Arc<Seen>,
    /// Pods that are gone, and what must be seen before they can be found again.
    buried: BTreeMap<Arc<str>, Mark>,
}

impl Pods {
    /// A machine that knows of nothing yet.
    pub fn new(config: Config) -> Pods {
        Pods {
            shared: Shared {
                facts: Arc::default(),
                user: errand::node(""),
                ops: Ops::default(),
                post: Post::new(config.errands_max),
                images: Images::new(config.pulls_max),
                sources: Sources::default(),
                events: Events::new(config.events_max),
                dirty: BTreeSet::new(),
                seen: false,
                look: false,
                looked: Time::ZERO,
                config,
            },
            pods: BTreeMap::new(),
            cells: BTreeMap::new(),
            last: Arc::default(),
            buried: BTreeMap::new(),
        }
    }

    /// Learns something and says what it wants done.
    pub fn step(&mut self, now: Now, input: Input, fx: &mut Vec<Effect>) {
        match input {
            Input::Tick => {}
            Input::Node(facts) => {
                let shared = &mut self.shared;
                if facts.name != shared.facts.name {
                    shared.user = errand::node(&facts.name);
                }
                if facts.runtime && !shared.facts.runtime {
                    shared.seen = false;
                    shared.look = true;
                }
                shared.facts = facts;
                shared.dirty.extend(self.pods.keys().cloned());
            }
            Input::Assigned { assignment, refused } => self.assigned(now, assignment, refused, fx),
            Input::Seen(seen) => self.seen(now, seen),
            Input::Left { pods, cells } => self.sweep(pods, &cells, fx),
            Input::Done { id, result } => self.done(now, id, result, fx),
            Input::Answered { id, answer } => self.answered(now, id, answer, fx),
        }
        self.settle(now, fx);
    }

    /// Looks at the pods of which something was learnt, or whose time has come.
    fn settle(&mut self, now: Now, fx: &mut Vec<Effect>) {
        for id in self.shared.post.overdue(now.mono) {
            self.answered(now, id, Err(sources::overdue()), fx);
        }
        self.shared.sources.tidy(now.mono);
        self.buried.retain(|_, mark| now.mono.since(mark.since()) < BURIED);
        let due = self.pods.iter().filter(|(_, p)| p.wake <= now.mono).map(|(uid, _)| uid.clone());
        self.shared.dirty.extend(due);
        for _ in 0..LOOKED_AT {
            let Some(uid) = self.shared.dirty.pop_first() else { break };
            let Some(mut pod) = self.pods.remove(&uid) else { continue };
            let mut cx = Cx { now, shared: &mut self.shared, fx };
            pod.reconcile(&mut cx);
            if pod.dead {
                self.buried.insert(uid, Mark::new(now, seen::Expect::Anything));
                cx.shared.look = true;
                if let Some(cell) = self.cells.get_mut(&pod.cell) {
                    cell.names.retain(|_, u| *u != pod.uid);
                }
            } else {
                self.pods.insert(uid, pod);
            }
        }
        let mut cx = Cx { now, shared: &mut self.shared, fx };
        Events::tick(&mut cx);
        if std::mem::take(&mut self.shared.look) && self.shared.facts.runtime {
            self.shared.looked = now.mono;
            fx.push(Effect::Look);
        }
    }

    /// When to step again if nothing else happens.
    pub fn next_deadline(&self) -> Option<Time> {
        let busy = (!self.shared.dirty.is_empty()).then_some(Time::ZERO);
        let pods = self.pods.values().map(|p| p.wake).min().filter(|t| *t != Time::NEVER);
        [busy, pods, self.shared.post.next_deadline(), self.shared.events.next_deadline()].into_iter().flatten().min()
    }

    /// Panics if the machine contradicts itself.
    pub fn check(&self) {
        self.shared.post.check();
        self.shared.images.check();
        self.shared.events.check();
        for pod in self.pods.values() {
            let open = self.shared.ops.of(&pod.uid);
            let most = 16 + 8 * pod.view.containers.len();
            assert!(open <= most, "{open} operations of pod {} are under way", pod.uid);
        }
    }

    /// How many events nobody will see, because there were too many.
    pub fn events_dropped(&self) -> u64 {
        self.shared.events.dropped
    }

    /// Whether a cell has told this node of all its pods since the start.
    pub fn knows(&self, cell: CellId) -> bool {
        self.cells.get(&cell).is_some_and(|c| c.whole)
    }

    /// The object of a pod that is bound here, as far as is known now: of one that is gone there is none.
    pub fn object(&self, uid: &str) -> Option<Arc<Tree>> {
        self.pods.get(uid).filter(|p| !p.gone).map(|p| p.tree.clone())
    }

    /// Ends pods whose cell is gone, and has what is left of pods that are gone removed: of `found`, those that no
    /// cell has bound here, that the runtime does not show, and that are not being removed already. A pod that failed
    /// before it had a sandbox, or that was removed while the daemon was away, leaves nothing else behind that tells
    /// of it.
    ///
    /// Nothing is removed before every one of `cells`, all that have pods, has told what is bound here.
    fn sweep(&mut self, found: Vec<PodName>, cells: &[CellId], fx: &mut Vec<Effect>) {
        if !self.shared.may_act() || cells.is_empty() || !cells.iter().all(|c| self.knows(*c)) {
            return;
        }
        // A pod that was found after a start tells its cell; that a namespace went while the daemon was away nobody
        // tells.
        let homeless = |p: &Pod| !p.gone && !cells.contains(&p.cell) && !self.cells.contains_key(&p.cell);
        let homeless: Vec<_> = self.pods.iter().filter(|(_, p)| homeless(p)).map(|(uid, _)| uid.clone()).collect();
        for uid in homeless {
            self.gone(&uid);
        }
        let shown: BTreeSet<&str> = self.last.sandboxes.iter().map(|s| s.pod.uid.as_str()).collect();
        let left = found.into_iter().filter(|pod| {
            let uid = pod.uid.as_str();
            !(self.pods.contains_key(uid) || self.buried.contains_key(uid) || shown.contains(uid))
        });
        for pod in left.take(SWEPT) {
            let uid: Arc<str> = pod.uid.as_str().into();
            if self.shared.ops.of(&uid) == 0 {
                self.shared.ops.ask(&uid, What::RemovePod, Op::RemovePod { pod }, fx);
            }
        }
    }

    fn assigned(&mut self, now: Now, assignment: Assignment, refused: Vec<Refusal>, fx: &mut Vec<Effect>) {
        let Assignment { cell, whole, pods, .. } = assignment;
        let mut named: BTreeSet<Arc<str>> = BTreeSet::new();
        for (name, stored) in pods {
            match stored {
                Some(stored) => drop(named.insert(self.bound(now, cell, name, &stored, &refused, fx))),
                None => {
                    let uid = self.cells.entry(cell).or_default().names.remove(&name);
                    if let Some(uid) = uid {
                        self.gone(&uid);
                    }
                }
            }
        }
        if whole {
            self.cells.entry(cell).or_default().whole = true;
            let others: Vec<Arc<str>> = self
                .pods
                .iter()
                .filter(|(uid, p)| p.cell == cell && !named.contains(*uid))
                .map(|(uid, _)| uid.clone())
                .collect();
            for uid in others {
                self.gone(&uid);
            }
        }
    }

    /// A pod that is bound here.
    fn bound(
        &mut self,
        now: Now,
        cell: CellId,
        name: Arc<str>,
        stored: &Stored,
        refused: &[Refusal],
        fx: &mut Vec<Effect>,
    ) -> Arc<str> {
        let tree = stored.tree();
        let uid: Arc<str> = tree.at("metadata").text("uid").into();
        let before = self.cells.entry(cell).or_default().names.insert(name, uid.clone());
        if let Some(before) = before.filter(|b| *b != uid) {
            self.gone(&before);
        }
        let running = self.pods.values().filter(|p| !p.ended && !p.is_told_ended() && p.verdict.is_none()).count();
        let new = !self.pods.contains_key(&uid);
        let most = self.shared.config.pods_max;
        let last = &self.last;
        let pod = self.pods.entry(uid.clone()).or_insert_with(|| {
            let mut pod = Pod::new(uid.clone(), cell, Arc::new(tree.clone()), now.mono);
            pod.view = Sight::of_one(last, &uid).view();
            pod
        });
        pod.cell = cell;
        if !std::mem::replace(&mut pod.known, true) {
            pod.report.forget();
            // Whoever keeps the account of the node counts a pod when its cell tells of it: that one which was found
            // here had ended by then is news to it.
            if pod.ended {
                fx.push(Effect::Ended { uid: uid.clone() });
            }
        }
        if stored.revision >= pod.revision {
            pod.update(stored.revision, tree);
        }
        let refusal = refused.iter().find(|r| *r.uid == *uid).cloned();
        let refusal = refusal.or_else(|| admission::refuse(&pod.tree)).or_else(|| {
            (new && running >= most && !pod.is_told_ended()).then(|| Refusal {
                uid: uid.to_string(),
                reason: "OutOfpods".to_owned(),
                message: format!(
                    "Node didn't have enough resource: pods, requested: 1, used: {running}, capacity: {most}"
                ),
            })
        });
        if let Some(refusal) = refusal
            && pod.verdict.is_none()
            && !pod.is_told_ended()
        {
            let tree = pod.tree.clone();
            let message = format!("Pod was rejected: {}", refusal.message);
            pod.verdict = Some(Verdict { reason: refusal.reason.clone(), message, at_once: false });
            let mut cx = Cx { now, shared: &mut self.shared, fx };
            Events::record(&mut cx, &tree, "", Type::Warning, &refusal.reason, &refusal.message);
        }
        self.shared.dirty.insert(uid.clone());
        uid
    }

    /// A pod whose cell has no such object (any more).
    fn gone(&mut self, uid: &Arc<str>) {
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.gone = true;
            self.shared.dirty.insert(uid.clone());
        }
    }

    /// All there is at the runtime.
    fn seen(&mut self, now: Now, seen: Arc<Seen>) {
        if !std::mem::replace(&mut self.shared.seen, true) {
            self.shared.dirty.extend(self.pods.keys().cloned());
        }
        self.last = seen.clone();
        let mut sights = Sight::of_all(&seen);
        for (uid, pod) in &mut self.pods {
            let sight = sights.remove(&**uid).unwrap_or_default();
            let mut new = !sight.is(&pod.view);
            if new {
                pod.view = sight.view();
            }
            if !pod.marks.is_empty() {
                let before = pod.marks.len();
                let view = &pod.view;
                pod.marks.retain(|m| !m.is_met(seen.at, now, view));
                new |= pod.marks.len() < before;
            }
            if new {
                self.shared.dirty.insert(uid.clone());
            }
        }
        for (uid, sight) in sights {
            let view = sight.view();
            if self.buried.get(uid).is_none_or(|mark| mark.is_met(seen.at, now, &view)) {
                self.find(now, uid, view);
            }
        }
    }

    /// A pod that is at the runtime and of which no cell has told (yet).
    fn find(&mut self, now: Now, uid: &str, view: View) {
        let Some(sandbox) = view.sandboxes.first() else { return };
        let said = |key: &str| sandbox.annotations.get(key).map(String::as_str).unwrap_or_default();
        if said(sandbox::NODE) != &*self.shared.facts.name {
            return;
        }
        let Ok(cell) = said(sandbox::CELL).parse::<CellId>() else { return };
        let object: Tree = serde_json::from_str(said(sandbox::OBJECT)).unwrap_or(Tree::Null);
        let tree = if object.at("metadata").text("uid") == uid {
            object
        } else {
            serde_json::json!({"metadata": {"name": sandbox.pod.name, "namespace": sandbox.pod.namespace, "uid": uid}})
        };
        let uid: Arc<str> = uid.into();
        let mut pod = Pod::new(uid.clone(), cell, Arc::new(tree), now.mono);
        pod.gone = self.cells.get(&cell).is_some_and(|c| c.whole);
        pod.view = view;
        self.shared.dirty.insert(uid.clone());
        self.pods.insert(uid, pod);
    }

    fn done(&mut self, now: Now, id: OpId, result: Result<Answer, Failure>, fx: &mut Vec<Effect>) {
        let Some((uid, what)) = self.shared.ops.answered(id) else { return };
        let mut cx = Cx { now, shared: &mut self.shared, fx };
        if let What::Pull(name) = &what {
            Images::done(&mut cx, name, result);
            return;
        }
        let Some(pod) = self.pods.get_mut(&uid) else { return };
        cx.shared.dirty.insert(uid);
        match what {
            What::Volumes => pod.volumes_done(&mut cx, result),
            What::Start(serial) | What::Write(serial) => pod.started_step(&mut cx, serial, result),
            What::PreStop(id) => pod.pre_stopped(&mut cx, &id, result),
            What::Stop(id) => pod.stopped(&mut cx, &id, result),
            What::Probe(id, which) => pod.probed(&mut cx, &id, which, result),
            What::Words(id, log) => pod.words_read(&mut cx, &id, log, result),
            What::Measure => pod.measured(&mut cx, result),
            what => pod.acted(&mut cx, what, result),
        }
    }

    fn answered(&mut self, now: Now, id: ErrandId, answer: Answered, fx: &mut Vec<Effect>) {
        let Some(purpose) = self.shared.post.answered(now.mono, id, fx) else { return };
        let mut cx = Cx { now, shared: &mut self.shared, fx };
        let uid = match purpose {
            Purpose::Source(key) => return Sources::answered(&mut cx, &key, answer),
            Purpose::Event(number) => return Events::answered(&mut cx, number, &answer),
            Purpose::Token(ref uid, _) | Purpose::Status(ref uid) | Purpose::Delete(ref uid) => uid.clone(),
        };
        let Some(pod) = self.pods.get_mut(&uid) else { return };
        cx.shared.dirty.insert(uid);
        match purpose {
            Purpose::Token(_, place) => pod.token_answered(&mut cx, place, answer),
            Purpose::Status(_) => pod.status_written(&mut cx, answer),
            _ => pod.deleted(&mut cx, answer),
        }
    }
}
