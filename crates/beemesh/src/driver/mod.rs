//! The driver: joins the machines to the disk, the clocks and the gateway, and has no opinions.
//!
//! Effects are done on the thread that stepped the machine, in their order. What a machine wants written
//! goes to the log's thread; what became durable comes back from it and is stepped there.

pub(crate) mod across;
pub(crate) mod clock;
pub(crate) mod errands;
pub(crate) mod fanout;
pub(crate) mod seat;
pub(crate) mod timers;
pub(crate) mod work;

use across::Joined;
use agree::cell as agreed;
use agree::log::{Answer, Command, Notice, Persist, Refusal, Space};
use api::port::Event;
use arc_swap::ArcSwap;
use base::{CellId, Chance, NodeId, Now, RequestId, Revision, Time, Uid};
use fanout::{Fanout, Watcher};
use node::bundle::Bundle;
use node::cell::{Cell, Config, Effect, Found, Input, Opened, Outcome, Purpose, Reply, ReplyTo, Role};
use node::genesis::{self, Genesis};
use objects::request::{Config as Settings, Request};
use seat::{Machine, Seat, Times, World};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use timers::Timers;
use tokio::sync::{mpsc, oneshot, watch};
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
    to: oneshot::Sender<Settled>,
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
    fanouts: Mutex<HashMap<(CellId, Arc<str>), Fanout>>,
    joined: Joined,
    timers: Arc<Timers<CellId>>,
    chance: Mutex<Chance>,
    space: AtomicBool,
    /// Records recovered of cells that root's list has not named yet. Held while a cell goes from here to `cells`, and
    /// while it is looked for in both: one that was found in neither would have its records thrown away.
    recovered: Mutex<BTreeMap<CellId, Found>>,
    /// Cells that could not be started: what they hold is kept as it is until a release that can.
    failed: Mutex<BTreeMap<CellId, (Role, String)>>,
    /// The log's questions about cells that are recovered and not seated.
    parked: Mutex<Vec<(CellId, u64, Input)>>,
}

impl Driver {
    pub(crate) fn new(
        node: NodeId,
        founding: Founding,
        settings: Settings,
        bundle_pem: &str,
        chance: Chance,
    ) -> Arc<Driver> {
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
            fanouts: Mutex::default(),
            joined: Joined::new(),
            timers: Timers::new(),
            chance: Mutex::new(chance),
            space: AtomicBool::new(true),
            recovered: Mutex::default(),
            failed: Mutex::default(),
            parked: Mutex::default(),
        })
    }

    /// The cells that could not be started, and why.
    pub(crate) fn failed(&self) -> Vec<(CellId, Role, String)> {
        lock(&self.failed).iter().map(|(id, (role, why))| (*id, role.clone(), why.clone())).collect()
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
    /// names them. `first` is the genesis of a mesh that is being founded.
    pub(crate) fn start(
        self: &Arc<Self>,
        log: impl Fn(Command) + Send + Sync + 'static,
        work: Arc<Work>,
        recovered: BTreeMap<CellId, Found>,
        first: Genesis,
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
        let unnamed = |role| Purpose { role, since: Revision::ZERO };
        self.seat(self.founding.root, unnamed(Role::Root), Some(first))?;
        self.seat(self.founding.registry, unnamed(Role::Registry), None)?;
        self.seat_kept();
        Ok(())
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
            if let Err(error) = self.seat(id, purpose.clone(), Some(genesis)) {
                tracing::error!(namespace = %name, cell = %id, "{error:#}");
            }
        }
    }

    /// Ends the timers; no deadline is met any more.
    pub(crate) fn stop(&self) {
        self.timers.stop();
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

    /// All cells kept here.
    pub(crate) fn all(&self) -> Vec<Arc<Seat<Cell>>> {
        read(&self.cells).values().cloned().collect()
    }

    /// Wakes whenever a cell gains or loses its leader here, or the bundle changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How many watch, by cell and resource.
    pub(crate) fn watchers(&self) -> usize {
        lock(&self.fanouts).values().map(Fanout::len).sum::<usize>() + self.joined.len()
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
        lock(&self.callers).insert(to, Caller { cell: cell.id(), to: sender });
        // If the caller goes away, its place does, too.
        let _place = Place { driver: self, to };
        if cell.offer(input(to)).is_err() {
            return Settled { outcome: Outcome::Busy, events: None };
        }
        // The sender is dropped without an answer only when the process ends.
        answer.await.unwrap_or(Settled { outcome: Outcome::Unknown, events: None })
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

    /// Seats a cell: as it was, or new with its genesis.
    fn seat(self: &Arc<Self>, id: CellId, purpose: Purpose, genesis: Option<Genesis>) -> anyhow::Result<()> {
        let Purpose { role, since } = purpose;
        if lock(&self.failed).contains_key(&id) {
            return Ok(());
        }
        let found = lock(&self.recovered).get(&id).cloned();
        let mut config = Config::new(id, role.clone(), self.node, self.settings.clone());
        config.since = since;
        if let Some(said) = found.as_ref().and_then(|f| agreed::recorded(id, &f.records).ok().flatten()) {
            config = config.in_life(said.replica);
        }
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

    /// A newer bundle: every other cell is told, new namespaces get their cells, gone ones lose them.
    ///
    /// Called only while root is being stepped, so never twice at a time.
    fn take_bundle(self: &Arc<Self>, bundle: &Arc<Bundle>) {
        if bundle.number() < self.bundle().number() {
            return;
        }
        self.bundle.store(bundle.clone());
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
            recovered.retain(|id, _| named.contains_key(id) || own.contains(id));
            lock(&self.failed).retain(|id, _| named.contains_key(id) || own.contains(id));
            lock(&self.parked).extract_if(.., |(cell, ..)| !recovered.contains_key(cell)).collect()
        };
        for (cell, question, ..) in asked {
            self.to_log(Command::Carried { question, cell, answer: Answer::Nothing });
        }
        for (id, name) in named {
            if self.cell(id).is_some() {
                continue;
            }
            let genesis = genesis::namespace(&name, id.0, bundle.number(), &self.bundle_pem, clock::wall());
            let purpose = Purpose { role: Role::Namespace(name.clone()), since: bundle.number() };
            if let Err(error) = self.seat(id, purpose, Some(genesis)) {
                tracing::error!(namespace = %name, cell = %id, "{error:#}");
            }
        }
        let cells = bundle.cells().into_iter().map(|(n, c)| (c, n)).collect();
        self.joined.post(across::Told::Cells { cells, number: bundle.number() });
        self.changed.send_modify(|n| *n += 1);
    }

    fn unseat(&self, id: CellId) {
        write(&self.cells).remove(&id);
        write(&self.roles).remove(&id);
        if let Some(work) = self.work.get() {
            work.gone(id);
        }
        self.timers.set(id, None);
        lock(&self.fanouts).retain(|(cell, _), _| *cell != id);
        let waiting: Vec<Caller> = lock(&self.callers).extract_if(|_, c| c.cell == id).map(|(_, c)| c).collect();
        for caller in waiting {
            let _ = caller.to.send(Settled { outcome: Outcome::Unknown, events: None });
        }
        self.to_log(Command::Live { cell: id, bytes: 0 });
    }

    /// Opens the way from a cell to a watcher, in the order of the cell's effects.
    fn join(&self, cell: CellId, opened: &mut Opened) -> mpsc::Receiver<Event> {
        let backlog = std::mem::take(&mut opened.backlog);
        let (watcher, events) = Watcher::new(opened.kind, opened.plan.clone(), backlog.len());
        if backlog.iter().all(|c| watcher.tell(c)) {
            let key = (cell, Arc::from(opened.kind.storage));
            lock(&self.fanouts).entry(key).or_default().join(watcher, opened.serial);
        }
        events
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
        let events = match &mut outcome {
            Outcome::Watch(opened) => Some(self.join(cell, opened)),
            _ => None,
        };
        // A caller that has gone away needs no answer.
        let _ = caller.to.send(Settled { outcome, events });
    }

    /// Has every resource that is watched say up to where it was told, for bookmarks.
    pub(crate) fn mark(&self) {
        let watched: Vec<(CellId, Arc<str>)> = lock(&self.fanouts).keys().cloned().collect();
        for (cell, storage) in watched {
            if let Some(seat) = self.cell(cell) {
                seat.post(Input::Progress(storage));
            }
        }
        self.joined.post(across::Told::Mark);
    }

    /// Tells a resource's watchers, and the cell if there are none any more.
    fn fan_out(&self, seat: &Arc<Seat<Cell>>, storage: Arc<str>, tell: impl FnOnce(&mut Fanout)) {
        let key = (seat.id(), storage);
        let serial = {
            let mut fanouts = lock(&self.fanouts);
            let Some(f) = fanouts.get_mut(&key) else { return };
            tell(f);
            if !f.is_empty() {
                return;
            }
            fanouts.remove(&key).map_or(0, |f| f.serial())
        };
        self.unsubscribe(seat, key.1, serial);
    }

    /// Has a cell tell no more of a resource, unless somebody else here wants it.
    fn unsubscribe(&self, seat: &Arc<Seat<Cell>>, storage: Arc<str>, serial: u64) {
        let key = (seat.id(), storage);
        if !lock(&self.fanouts).contains_key(&key) && !self.joined.wants(key.0, &key.1) {
            seat.post(Input::Unsubscribe { storage: key.1, serial });
        }
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
        let id = seat.id();
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
                // There are no other nodes yet: nobody to send to, nobody to beat with.
                Effect::Send { .. } | Effect::Pair { .. } | Effect::Kept(_) | Effect::KeeperLossy { .. } => {}
                Effect::Ended => self.unseat(id),
                Effect::Bundle(bundle) => {
                    if let Some(me) = self.me.upgrade() {
                        me.take_bundle(&bundle);
                    }
                }
                Effect::Events { storage, changes } => {
                    if self.joined.wants(id, &storage) {
                        let (storage, changes) = (storage.clone(), changes.clone());
                        self.joined.post(across::Told::Events { cell: id, storage, changes });
                    }
                    self.fan_out(seat, storage, |f| f.tell(&changes));
                }
                Effect::Progress { storage, revision } => {
                    self.fan_out(seat, storage, |f| f.mark(revision));
                }
                Effect::Committed { term, objects, changes } => {
                    let role = read(&self.roles).get(&id).cloned();
                    if let (Some(work), Some(role)) = (self.work.get(), role) {
                        work.committed(id, &role, term, objects, changes);
                    }
                }
                Effect::Subscribed { storage, after, begin } => {
                    self.joined.post(across::Told::Subscribed { cell: id, storage, after, begin });
                }
                Effect::Closed { revision } if self.joined.is_watched() => {
                    self.joined.post(across::Told::Closed { cell: id, revision });
                }
                Effect::Closed { .. } => {}
                Effect::Replaced => {
                    lock(&self.fanouts).retain(|(cell, _), _| *cell != id);
                    self.joined.post(across::Told::Lost { cell: id });
                }
                Effect::Stopped { why } => {
                    tracing::error!(
                        "{why}; this member of the cell has stopped, its state is unchanged: start the newer release of beemesh"
                    );
                }
                Effect::Leading(leads) => {
                    tracing::debug!(cell = %id, leads, "leadership");
                    if let Some(work) = self.work.get().filter(|_| !leads) {
                        work.over(id);
                    }
                    self.changed.send_modify(|n| *n += 1);
                }
            }
        }
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
