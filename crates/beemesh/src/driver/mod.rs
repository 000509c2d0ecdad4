//! The driver: joins the machines to the disk, the clocks and the gateway, and has no opinions.
//!
//! Effects are done on the thread that stepped the machine, in their order. What a machine wants written
//! goes to the log's thread; what became durable comes back from it and is stepped there.

pub(crate) mod across;
pub(crate) mod away;
mod beats;
pub(crate) mod clock;
pub(crate) mod errands;
pub(crate) mod fanout;
mod keep;
mod lapses;
pub(crate) mod seat;
pub(crate) mod timers;
mod watched;
pub(crate) mod work;

use across::Joined;
use agree::cell as agreed;
use agree::log::{Answer, Command, Notice, Persist, Refusal, Space};
use api::port::Event;
use arc_swap::ArcSwap;
use away::tell::{Asker, Teller};
use away::{Away, Ears, Tellers};
use base::{BootId, CellId, Chance, NodeId, Now, ReplicaId, RequestId, Revision, Time, Uid};
use beats::{Beats, Outgoing};
use keep::Keep;
use node::bundle::Bundle;
use node::cell::{Cell, Config, Effect, Found, Input, Outcome, Purpose, Reply, ReplyTo, Role};
use node::genesis::{self, Genesis};
use node::wire::cell::Message;
use node::wire::watch::{Call, End};
use objects::request::{Config as Settings, Request};
use seat::{Machine, Seat, Times, World};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use timers::Timers;
use tokio::sync::{mpsc, oneshot, watch};
use watched::Watched;
use work::Work;

impl Machine for Cell {
    type Input = Input;
    type Effect = Effect;
    type Id = CellId;
    fn step(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        Cell::step(self, now, input, effects);
    }
    fn next_deadline(&self) -> Option<Time> {
        Cell::next_deadline(self)
    }
    fn check(&self) {
        Cell::check(self);
    }
}

/// How many inputs a cell's inbox takes from callers. The cell itself bounds what waits for an answer.
const INBOX: usize = 4096;

/// An answer as it reaches the caller: for a watch, with the receiver of what follows.
pub(crate) struct Settled {
    pub(crate) outcome: Outcome,
    pub(crate) events: Option<mpsc::Receiver<Event>>,
}

/// Whoever waits for an answer.
struct Caller {
    cell: CellId,
    to: To,
}

/// The cells that are known by themselves, not by root's list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Founding {
    /// The root.
    pub(crate) root: CellId,
    /// The first hive's registry.
    pub(crate) registry: CellId,
}

/// All machines of this node, and what joins them.
pub(crate) struct Driver {
    me: Weak<Driver>,
    node: NodeId,
    founding: Founding,
    settings: Arc<Settings>,
    bundle_pem: Arc<str>,
    log: OnceLock<Box<dyn Fn(Command) + Send + Sync>>,
    cells: RwLock<BTreeMap<CellId, Arc<Seat<Cell>>>>,
    roles: RwLock<BTreeMap<CellId, Role>>,
    /// What works on what cells hold.
    work: OnceLock<Arc<Work>>,
    callers: Mutex<HashMap<ReplyTo, Caller>>,
    next_reply: AtomicU64,
    bundle: ArcSwap<Bundle>,
    /// Rises with every change of who leads or what the bundle says: wakes callers that wait for either.
    changed: watch::Sender<u64>,
    watched: Watched,
    /// The other nodes, once there is a way to them.
    away: OnceLock<Arc<Away>>,
    /// What is heard of cells that are led elsewhere.
    ears: Ears,
    /// Who hears of cells kept here.
    tellers: Tellers,
    /// The cells that are led here.
    led: RwLock<BTreeSet<CellId>>,
    /// The newest bundle that is not taken yet, and whether somebody is at it: it comes from root's replica here, or from
    /// another node.
    coming: Mutex<(Option<Arc<Bundle>>, bool)>,
    /// The number of the newest bundle whose list of cells was handed to the machine that joins them.
    listed: AtomicU64,
    joined: Joined,
    timers: Arc<Timers<CellId>>,
    /// Heartbeats with other nodes.
    beats: Beats,
    /// Who is to keep the cells that lead here.
    keep: Keep,
    chance: Mutex<Chance>,
    space: AtomicBool,
    /// Records recovered of cells that root's list has not named yet. Held while a cell goes from here to `cells`, and
    /// while it is looked for in both: one that was found in neither would have its records thrown away.
    recovered: Mutex<BTreeMap<CellId, Found>>,
    /// Held by whoever seats a cell.
    seating: Mutex<()>,
    /// Cells that could not be started: what they hold is kept as it is until a release that can.
    failed: Mutex<BTreeMap<CellId, (Role, String)>>,
    /// Of root and the registry those for which somebody has answered when they were asked last.
    answering: Mutex<BTreeSet<CellId>>,
    /// The log's questions about cells that are recovered and not seated.
    parked: Mutex<Vec<(CellId, u64, Input)>>,
}

/// How a cell begins on this node.
enum Begins {
    /// New, with what its first leader commits; or as its log has it.
    Founds(Option<Genesis>),
    /// As its log has it; not at all, if that has nothing of it.
    GoesOn(Option<Genesis>),
    /// In this life, told by others what it holds.
    Joins(ReplicaId),
}

/// Where an answer goes.
enum To {
    /// To a gateway's request on this node.
    Here(oneshot::Sender<Settled>),
    /// Among what a gateway elsewhere is told of the cell: in the order of the cell's effects.
    Away(Arc<Teller>, Call),
}

impl To {
    fn answer(self, bundle: Revision, outcome: Outcome) {
        match self {
            // A caller that has gone away needs no answer.
            To::Here(to) => drop(to.send(Settled { outcome, events: None })),
            To::Away(teller, call) => teller.answer(call, bundle, outcome),
        }
    }
}

impl Driver {
    pub(crate) fn new(
        node: NodeId,
        founding: Founding,
        settings: Settings,
        bundle_pem: &str,
        chance: Chance,
    ) -> Arc<Driver> {
        let boot = BootId(chance.stream("boot").u64());
        Arc::new_cyclic(|me| Driver {
            me: me.clone(),
            node,
            founding,
            settings: Arc::new(settings),
            bundle_pem: bundle_pem.into(),
            log: OnceLock::new(),
            cells: RwLock::default(),
            roles: RwLock::default(),
            work: OnceLock::new(),
            callers: Mutex::default(),
            next_reply: AtomicU64::new(1),
            bundle: ArcSwap::default(),
            changed: watch::Sender::new(0),
            watched: Watched::default(),
            away: OnceLock::new(),
            ears: Ears::default(),
            tellers: Tellers::default(),
            led: RwLock::default(),
            coming: Mutex::default(),
            listed: AtomicU64::new(0),
            joined: Joined::new(),
            timers: Timers::new(),
            beats: Beats::new(boot),
            keep: Keep::new(boot),
            chance: Mutex::new(chance),
            space: AtomicBool::new(true),
            recovered: Mutex::default(),
            seating: Mutex::default(),
            failed: Mutex::default(),
            answering: Mutex::default(),
            parked: Mutex::default(),
        })
    }

    /// The cells that could not be started, and why.
    pub(crate) fn failed(&self) -> Vec<(CellId, Role, String)> {
        lock(&self.failed).iter().map(|(id, (role, why))| (*id, role.clone(), why.clone())).collect()
    }

    /// This node.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Root and the registry.
    pub(crate) fn founding(&self) -> Founding {
        self.founding
    }

    /// What root says, as far as it is known here.
    pub(crate) fn bundle(&self) -> Arc<Bundle> {
        self.bundle.load_full()
    }

    /// Takes the way to the log, and starts the cells: root and the registry at once, the rest as root
    /// names them. `first` is the genesis of root where it was founded.
    pub(crate) fn start(
        self: &Arc<Self>,
        log: impl Fn(Command) + Send + Sync + 'static,
        work: Arc<Work>,
        recovered: BTreeMap<CellId, Found>,
        first: Option<Genesis>,
    ) -> anyhow::Result<()> {
        if self.log.set(Box::new(log)).is_err() {
            anyhow::bail!("the driver was started twice");
        }
        if self.work.set(work).is_err() {
            anyhow::bail!("the driver was given its work twice");
        }
        *lock(&self.recovered) = recovered;
        let me = self.clone();
        std::thread::Builder::new()
            .name("timers".into())
            .spawn(move || me.timers.clone().run(|| clock::now().mono, |cell| me.tick(cell)))?;
        self.joined.start(self)?;
        self.beats.start(self)?;
        let unnamed = |role| Purpose { role, since: Revision::ZERO };
        let founds = first.is_some();
        let Founding { root, registry } = self.founding;
        let keeps = |cell| founds || lock(&self.recovered).contains_key(&cell);
        let (keeps_root, keeps_registry) = (keeps(root), keeps(registry));
        let begins = |genesis| if founds { Begins::Founds(genesis) } else { Begins::GoesOn(genesis) };
        // Before root, which names cells.
        self.seat_kept();
        if keeps_registry {
            self.seat(registry, unnamed(Role::Registry), begins(None))?;
        }
        if keeps_root {
            self.seat(root, unnamed(Role::Root), begins(first))?;
        }
        Ok(())
    }

    /// Opens the way to the other nodes.
    pub(crate) fn goes_by(self: &Arc<Self>, away: Arc<Away>) {
        away.bundle_is(&self.bundle());
        let runtime = away.runtime().clone();
        if self.away.set(away.clone()).is_ok() {
            runtime.spawn(self.clone().follow_root());
            let chance = lock(&self.chance).stream("keep");
            runtime.spawn(self.clone().keep(chance));
        }
        // What came in between.
        away.bundle_is(&self.bundle());
    }

    /// The other nodes, once there is a way to them.
    pub(crate) fn away(&self) -> Option<Arc<Away>> {
        self.away.get().cloned()
    }

    /// Seats what is kept here as its log says what it is for, whether or not root is in reach. Logs of releases that
    /// did not say it wait until root names them.
    fn seat_kept(self: &Arc<Self>) {
        let kept: Vec<(CellId, Purpose)> = {
            let recovered = lock(&self.recovered);
            let recorded = recovered.iter().filter_map(|(id, f)| Some((*id, agreed::recorded(*id, &f.records).ok()??)));
            recorded.filter_map(|(id, said)| Some((id, Purpose::decode(&said.purpose)?))).collect()
        };
        for (id, purpose) in kept {
            let Role::Namespace(name) = &purpose.role else { continue };
            let genesis = genesis::namespace(name, id.0, purpose.since, &self.bundle_pem, clock::wall());
            if let Err(error) = self.seat(id, purpose.clone(), Begins::GoesOn(Some(genesis))) {
                tracing::error!(namespace = %name, cell = %id, "{error:#}");
            }
        }
    }

    /// Makes the cell of a namespace: root has just said that this node is to, and that nobody has.
    pub(crate) fn found(self: &Arc<Self>, cell: CellId) {
        let bundle = self.bundle();
        let Some((name, _)) = bundle.cells().into_iter().find(|(_, c)| *c == cell) else { return };
        let genesis = genesis::namespace(&name, cell.0, bundle.number(), &self.bundle_pem, clock::wall());
        let purpose = Purpose { role: Role::Namespace(name.clone()), since: bundle.number() };
        if let Err(error) = self.seat(cell, purpose, Begins::Founds(Some(genesis))) {
            tracing::error!(namespace = %name, %cell, "{error:#}");
        }
    }

    /// Whether a cell here holds what its first leader committed.
    pub(crate) fn has_begun(&self, cell: CellId) -> bool {
        self.cell(cell).is_some_and(|seat| seat.look(|c| c.state().revision() > Revision::ZERO))
    }

    /// Ends the timers; no deadline is met any more.
    pub(crate) fn stop(&self) {
        self.timers.stop();
        self.beats.stop();
        self.joined.stop();
    }

    /// A request's id, and chance for the names it makes.
    pub(crate) fn request_chance(&self) -> (RequestId, Uid, u64) {
        let mut c = lock(&self.chance);
        (RequestId(c.u128()), Uid::from_chance(c.u128()), c.u64())
    }

    /// The seat of a cell kept here.
    pub(crate) fn cell(&self, id: CellId) -> Option<Arc<Seat<Cell>>> {
        read(&self.cells).get(&id).cloned()
    }

    /// Whether some node leads a cell, here or elsewhere, as far as is known here: of a cell that is kept here its replica
    /// knows, and of root and the registry kept elsewhere the last answer tells.
    pub(crate) fn is_led(&self, id: CellId) -> bool {
        match self.cell(id) {
            Some(seat) => seat.look(|c| c.leader().is_some()),
            None => lock(&self.answering).contains(&id),
        }
    }

    /// Notes whether somebody has answered for a cell that is not kept here.
    pub(crate) fn note(&self, id: CellId, answered: bool) {
        if id != self.founding.root && id != self.founding.registry {
            return;
        }
        let mut answering = lock(&self.answering);
        if answered {
            answering.insert(id);
        } else {
            answering.remove(&id);
        }
    }

    /// All cells kept here.
    pub(crate) fn all(&self) -> Vec<Arc<Seat<Cell>>> {
        read(&self.cells).values().cloned().collect()
    }

    /// Wakes whenever a cell gains or loses its leader here, or the bundle changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether the disk has room for more than what is vital.
    pub(crate) fn has_space(&self) -> bool {
        self.space.load(Ordering::Relaxed)
    }

    /// Asks a cell once.
    pub(crate) async fn ask(&self, cell: &Arc<Seat<Cell>>, request: Arc<Request>) -> Settled {
        self.offer(cell, |to| Input::Request { to, request }).await
    }

    /// Asks a cell once to close a revision and to show a resource at it, or what happened to it after another.
    pub(crate) async fn collect(
        &self,
        cell: &Arc<Seat<Cell>>,
        storage: Arc<str>,
        at: Revision,
        after: Option<Revision>,
    ) -> Settled {
        self.offer(cell, |to| Input::Collect { to, storage, at, after }).await
    }

    async fn offer(&self, cell: &Arc<Seat<Cell>>, input: impl FnOnce(ReplyTo) -> Input) -> Settled {
        let to = ReplyTo(self.next_reply.fetch_add(1, Ordering::Relaxed));
        let (sender, answer) = oneshot::channel();
        lock(&self.callers).insert(to, Caller { cell: cell.id(), to: To::Here(sender) });
        // If the caller goes away, its place does, too.
        let _place = Place { driver: self, to };
        if cell.offer(input(to)).is_err() {
            return Settled { outcome: Outcome::Busy, events: None };
        }
        // The sender is dropped without an answer only when the process ends.
        answer.await.unwrap_or(Settled { outcome: Outcome::Unknown, events: None })
    }

    /// Asks a cell once for a watch of a gateway elsewhere; whether it takes another question.
    fn offer_for(&self, cell: &Arc<Seat<Cell>>, teller: &Arc<Teller>, call: Call, request: Arc<Request>) -> bool {
        let to = ReplyTo(self.next_reply.fetch_add(1, Ordering::Relaxed));
        lock(&self.callers).insert(to, Caller { cell: cell.id(), to: To::Away(teller.clone(), call) });
        let taken = cell.offer(Input::Request { to, request }).is_ok();
        if !taken {
            lock(&self.callers).remove(&to);
        }
        taken
    }

    /// What the log says.
    pub(crate) fn told(self: &Arc<Self>, notice: Notice) {
        match notice {
            Notice::Durable { cell, ticket } => {
                if let Some(seat) = self.cell(cell) {
                    seat.post(Input::Durable(ticket));
                }
            }
            Notice::Refused { cell, ticket, why } => {
                match why {
                    Refusal::AfterRefusal | Refusal::Closing => {}
                    Refusal::TooLarge => tracing::error!(
                        %cell, "a write is longer than the log takes: nothing of it was written, and the cell stands still on this node until beemesh is started again"
                    ),
                    _ => tracing::warn!(%cell, %why, "the log refused a write; nothing of it was written"),
                }
                match (why, self.cell(cell)) {
                    // The process is ending, or the cell must begin a new life: asking again changes nothing.
                    (Refusal::Closing | Refusal::Lossy | Refusal::TooLarge, _) | (_, None) => {}
                    (_, Some(seat)) => seat.post(Input::NotWritten(ticket)),
                }
            }
            Notice::Space(space) => {
                let ample = space == Space::Ample;
                self.space.store(ample, Ordering::Relaxed);
                for seat in self.all() {
                    seat.post(Input::Space { ample });
                }
                if ample {
                    tracing::info!("the disk has room again");
                } else {
                    tracing::error!(
                        "the disk is full: writes are refused until some space is freed; what was acknowledged is safe"
                    );
                }
            }
            Notice::Carry { question, segment, cell, records } => {
                let recovered = lock(&self.recovered);
                let seat = self.cell(cell);
                let asked = Input::Rewrite { question, segment, records };
                // Known from the log and not seated (yet): what it has there may be live.
                if seat.is_none() && recovered.contains_key(&cell) {
                    lock(&self.parked).push((cell, question, asked));
                    return;
                }
                drop(recovered);
                match seat {
                    Some(seat) => seat.post(asked),
                    None => self.to_log(Command::Carried { question, cell, answer: Answer::Nothing }),
                }
            }
            Notice::Damaged { segment, offset } => {
                tracing::error!(
                    segment,
                    offset,
                    "a segment of the log reads back otherwise than it was written: the disk is failing; move this node's cells away"
                );
            }
            Notice::Closed => {}
        }
    }

    fn to_log(&self, command: Command) {
        if let Some(log) = self.log.get() {
            log(command);
        }
    }

    fn tick(&self, cell: CellId) {
        if let Some(seat) = self.cell(cell) {
            seat.post(Input::Tick);
        }
    }

    /// Seats a cell.
    fn seat(self: &Arc<Self>, id: CellId, purpose: Purpose, begins: Begins) -> anyhow::Result<()> {
        let Purpose { role, since } = purpose;
        // One after the other: who looked for a cell's records after another had taken them would found it anew.
        let seating = lock(&self.seating);
        if lock(&self.failed).contains_key(&id) || self.cell(id).is_some() {
            return Ok(());
        }
        let found = lock(&self.recovered).get(&id).cloned();
        let mut config = Config::new(id, role.clone(), self.node, self.settings.clone());
        config.since = since;
        let genesis = match (begins, &found) {
            // Others keep it, or nobody has begun it yet.
            (Begins::GoesOn(_), None) => return Ok(()),
            (Begins::Joins(_), Some(_)) => return Ok(()),
            (Begins::Joins(replica), None) => {
                config = Config { founders: Vec::new(), ..config.in_life(replica) };
                None
            }
            (Begins::Founds(genesis), None) => genesis,
            (Begins::Founds(genesis) | Begins::GoesOn(genesis), Some(found)) => {
                if let Some(replica) = keep::life_of(id, found) {
                    config = config.in_life(replica);
                }
                genesis
            }
        };
        let chance = lock(&self.chance).stream(&id.to_string());
        let cell = match Cell::new(config, found, self.bundle(), genesis, &chance, clock::now()) {
            Ok(cell) => cell,
            Err(e) => {
                // Its records stay as they are: it must never be founded anew over them.
                lock(&self.failed).insert(id, (role, e.to_string()));
                return Err(e.into());
            }
        };
        write(&self.roles).insert(id, role);
        let seat = Seat::new(id, cell, self.clone() as Arc<dyn World<Cell>>, INBOX);
        let asked: Vec<_> = {
            let mut recovered = lock(&self.recovered);
            recovered.remove(&id);
            write(&self.cells).insert(id, seat.clone());
            lock(&self.parked).extract_if(.., |(cell, ..)| *cell == id).collect()
        };
        // What is posted may step machines, and these may seat others.
        drop(seating);
        if !self.has_space() {
            seat.post(Input::Space { ample: false });
            // It may have been told otherwise in between.
            if self.has_space() {
                seat.post(Input::Space { ample: true });
            }
        }
        // Root may have told of a newer bundle while this cell was being made.
        seat.post(Input::Bundle(self.bundle()));
        seat.post(Input::Tick);
        for (_, _, input) in asked {
            seat.post(input);
        }
        Ok(())
    }

    /// A newer bundle, of root's replica here or of another node: every other cell is told, new namespaces get their
    /// cells, gone ones lose them.
    fn take_bundle(self: &Arc<Self>, bundle: &Arc<Bundle>) {
        {
            let mut coming = lock(&self.coming);
            if coming.0.as_ref().is_none_or(|c| c.number() <= bundle.number()) {
                coming.0 = Some(bundle.clone());
            }
            // Whoever is at it comes to this one.
            if std::mem::replace(&mut coming.1, true) {
                return;
            }
        }
        loop {
            let next = {
                let mut coming = lock(&self.coming);
                let next = coming.0.take();
                coming.1 = next.is_some();
                next
            };
            match next {
                Some(bundle) => self.take_one(&bundle),
                None => return,
            }
        }
    }

    fn take_one(self: &Arc<Self>, bundle: &Arc<Bundle>) {
        if bundle.number() < self.bundle().number() {
            return;
        }
        self.bundle.store(bundle.clone());
        if let Some(away) = self.away() {
            away.bundle_is(bundle);
        }
        if let Some(work) = self.work.get() {
            work.bundle_is(bundle);
        }
        let named: BTreeMap<CellId, Arc<str>> = bundle.cells().into_iter().map(|(n, c)| (c, n)).collect();
        for seat in self.all() {
            let id = seat.id();
            if id == self.founding.root {
                continue;
            }
            if id == self.founding.registry || named.contains_key(&id) {
                seat.post(Input::Bundle(bundle.clone()));
            } else if seat.look(|c| c.config().since) <= bundle.number() {
                self.unseat(id);
            }
        }
        // What the log holds of namespaces that root no longer names is not live.
        let asked: Vec<_> = {
            let mut recovered = lock(&self.recovered);
            let own = [self.founding.root, self.founding.registry];
            // One that was named after this bundle is not missing from it; one that does not say when it was is kept, too.
            let since = |f: &Found, id: CellId| {
                agreed::recorded(id, &f.records).ok().flatten().and_then(|s| Purpose::decode(&s.purpose))
            };
            let is_over = |id: &CellId, f: &Found| since(f, *id).is_some_and(|p| p.since <= bundle.number());
            recovered.retain(|id, found| named.contains_key(id) || own.contains(id) || !is_over(id, found));
            lock(&self.failed).retain(|id, _| recovered.contains_key(id) || named.contains_key(id) || own.contains(id));
            lock(&self.parked).extract_if(.., |(cell, ..)| !recovered.contains_key(cell)).collect()
        };
        for (cell, question, ..) in asked {
            self.to_log(Command::Carried { question, cell, answer: Answer::Nothing });
        }
        // What the log here knows goes on here.
        for (id, name) in named {
            if self.cell(id).is_some() || !lock(&self.recovered).contains_key(&id) {
                continue;
            }
            let genesis = genesis::namespace(&name, id.0, bundle.number(), &self.bundle_pem, clock::wall());
            let purpose = Purpose { role: Role::Namespace(name.clone()), since: bundle.number() };
            if let Err(error) = self.seat(id, purpose, Begins::GoesOn(Some(genesis))) {
                tracing::error!(namespace = %name, cell = %id, "{error:#}");
            }
        }
        let cells = bundle.cells().into_iter().map(|(n, c)| (c, n)).collect();
        self.joined.post(across::Told::Cells { cells, number: bundle.number() });
        self.listed.store(bundle.number().get(), Ordering::Release);
        self.changed.send_modify(|n| *n += 1);
    }

    fn unseat(&self, id: CellId) {
        // Nobody seats another life of it before all of this one is gone.
        let seating = lock(&self.seating);
        write(&self.cells).remove(&id);
        write(&self.roles).remove(&id);
        if let Some(work) = self.work.get() {
            work.gone(id);
        }
        self.timers.set(id, None);
        write(&self.led).remove(&id);
        drop(seating);
        self.watched.end(id, false);
        let waiting: Vec<Caller> = lock(&self.callers).extract_if(|_, c| c.cell == id).map(|(_, c)| c).collect();
        for caller in waiting {
            caller.to.answer(self.bundle().number(), Outcome::Unknown);
        }
        self.tellers.gone(id, self.bundle().number());
        self.beat_no_more(id);
        self.keep.ended(id);
        self.to_log(Command::Live { cell: id, bytes: 0 });
    }

    fn reply(&self, cell: CellId, reply: Reply) {
        let mut outcome = reply.outcome;
        let Some(caller) = lock(&self.callers).remove(&reply.to) else {
            // Nobody waits for it any more: a watch opened for nobody is closed, unless others go on.
            if let Outcome::Watch(opened) = outcome
                && let Some(seat) = self.cell(cell)
            {
                let storage: Arc<str> = opened.kind.storage.into();
                self.unsubscribe(&seat, storage, opened.serial);
            }
            return;
        };
        let to = match caller.to {
            To::Here(to) => to,
            To::Away(teller, call) => return teller.answer(call, self.bundle().number(), outcome),
        };
        let events = match &mut outcome {
            Outcome::Watch(opened) => Some(self.join(cell, opened)),
            _ => None,
        };
        // A caller that has gone away needs no answer.
        let _ = to.send(Settled { outcome, events });
    }
}

impl Times<CellId> for Driver {
    fn now(&self) -> Now {
        clock::now()
    }

    fn wake_at(&self, cell: CellId, deadline: Option<Time>) {
        self.timers.set(cell, deadline);
    }
}

impl World<Cell> for Driver {
    fn perform(&self, seat: &Arc<Seat<Cell>>, effects: &mut Vec<Effect>) {
        let (id, away) = (seat.id(), self.away());
        let mut out = Outgoing::default();
        for effect in effects.drain(..) {
            match effect {
                Effect::Reply(reply) => self.reply(id, reply),
                Effect::Persist { ticket, records, vital } => {
                    self.to_log(Command::Persist(Persist { cell: id, ticket, vital, records }));
                }
                Effect::Resume => self.to_log(Command::Resume(id)),
                Effect::Carried { question, ticket, records } => {
                    let answer = Answer::Live(Persist { cell: id, ticket, vital: true, records });
                    self.to_log(Command::Carried { question, cell: id, answer });
                }
                Effect::CarriedLater { question } => {
                    self.to_log(Command::Carried { question, cell: id, answer: Answer::Later });
                }
                Effect::Live { bytes } => self.to_log(Command::Live { cell: id, bytes }),
                Effect::Send { to, message } => out.push(away.as_ref(), to, &Message::Raft(message)),
                Effect::Pair { node, input } => self.beat(node, input),
                Effect::Kept(_) => self.keep.changed(id),
                Effect::KeeperLossy { replica } => self.keep.lossy(id, replica),
                Effect::Ended => self.unseat(id),
                Effect::Bundle(bundle) => {
                    if let Some(me) = self.me.upgrade() {
                        me.take_bundle(&bundle);
                    }
                }
                Effect::Events { storage, changes } => {
                    if self.joined.wants(id, &storage) && self.tells_joined(id) {
                        let (storage, changes) = (storage.clone(), changes.clone());
                        self.joined.post(across::Told::Events { cell: id, storage, changes });
                    }
                    self.tellers.events(id, &storage, &changes);
                    self.fan_out(seat, storage, |f| f.tell(&changes));
                }
                Effect::Progress { storage, revision } => {
                    self.tellers.progress(id, &storage, revision);
                    self.fan_out(seat, storage, |f| f.mark(revision));
                }
                Effect::Committed { term, objects, changes } => {
                    let role = read(&self.roles).get(&id).cloned();
                    if let (Some(work), Some(role)) = (self.work.get(), role) {
                        work.committed(id, &role, term, objects, changes);
                    }
                }
                Effect::Subscribed { storage, after, begin } => {
                    match self.tellers.asked(id, &storage, after) {
                        Some(Asker::Away(teller)) => teller.subscribed(&storage, after, &begin),
                        Some(Asker::Joined) if self.tells_joined(id) => {
                            self.joined.post(across::Told::Subscribed { cell: id, storage, after, begin });
                        }
                        // It leads no more: what it tells is not all that happens.
                        Some(Asker::Joined) => self.joined.post(across::Told::Lost { cell: id }),
                        None => {}
                    }
                }
                Effect::Closed { revision } => {
                    // What is told of root's promise covers no namespace that is not listed yet.
                    let number = (id == self.founding.root).then(|| self.bundle().number());
                    self.tellers.closed(id, number, revision);
                    if self.joined.is_watched() {
                        self.joined.post(across::Told::Closed { cell: id, revision });
                    }
                }
                Effect::Replaced => {
                    self.watched.end(id, false);
                    self.tellers.end(id, &End::Replaced);
                    self.joined.post(across::Told::Lost { cell: id });
                }
                Effect::Stopped { why } => {
                    tracing::error!(
                        "{why}; this member of the cell has stopped, its state is unchanged: start the newer release of beemesh"
                    );
                }
                Effect::Leading(leads) => {
                    tracing::debug!(cell = %id, leads, "leadership");
                    self.keep.changed(id);
                    if leads {
                        write(&self.led).insert(id);
                        // What it was told until now came from elsewhere, and may have ended before its end was noticed.
                        self.joined.post(across::Told::Lost { cell: id });
                    } else {
                        write(&self.led).remove(&id);
                        self.tellers.end(id, &End::Elsewhere(None));
                        if !self.tells_joined(id) {
                            self.joined.post(across::Told::Lost { cell: id });
                        }
                    }
                    if let Some(work) = self.work.get().filter(|_| !leads) {
                        work.over(id);
                    }
                    self.changed.send_modify(|n| *n += 1);
                }
            }
        }
        out.send(away.as_ref());
    }
}

/// Gives a caller's place back when it stops waiting.
struct Place<'a> {
    driver: &'a Driver,
    to: ReplyTo,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.driver.callers).remove(&self.to);
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(l: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    l.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(l: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    l.write().unwrap_or_else(PoisonError::into_inner)
}
