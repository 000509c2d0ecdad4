//! Watches over all namespaces: the streams of many cells, joined into one in order (architecture, 5.5).
//!
//! Of each resource that somebody watches over all namespaces there is one subscription at each namespace's
//! cell, however many watch. What the cells tell is kept until the frontier has passed it: the least revision
//! up to which root and every namespace cell that root lists have promised that nothing is still to come. Then
//! it is told to all in the order of (revision, cell). So the last revision a client has seen, or a bookmark,
//! says what it has seen of every cell, and a watch can be resumed from it.
//!
//! Root is one of those cells, because a namespace that comes is a cell that comes: what happens in it has
//! greater revisions than its Namespace, so when root has closed T, all cells that can have anything at or
//! below T are known here and hold the frontier until they have closed T, too. The caller must hand in root's
//! promises behind the lists of namespaces they cover ([`Input::Cells`], [`Input::Closed`]).
//!
//! A watch begins at a moment T of the frontier ([`Effect::Begin`]). Its caller then asks each cell for its state
//! at T, or for what happened since the revision it resumes from, and says [`Input::Ready`]; what is released
//! meanwhile waits.
//!
//! A promise costs a message to every cell. While something waits for the frontier it is asked for every 20 ms,
//! otherwise every 5 s, so that resuming does not begin far behind; while nobody watches over namespaces, never.

use crate::cell::{Change, Subscription};
use agree::closed::Frontier;
use base::{CellId, Now, Revision, Time};
use core::time::Duration;
use objects::status::Status;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// How often promises are asked for while something waits for them.
const CADENCE: Duration = Duration::from_millis(20);
/// How often otherwise.
const IDLE: Duration = Duration::from_secs(5);
/// A cell that has not answered for so long is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Between two questions for a stream that is lost each time.
const LOST_PAUSE: Duration = Duration::from_millis(100);
/// How long a watch from a revision that is not there yet waits for it.
const FUTURE: Duration = Duration::from_secs(3);
/// How long a watch waits for cells that promise nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many changes of a resource may wait for the frontier: with more, its watches end and are resumed.
pub const WAITING_MAX: usize = 1 << 16;
/// How many changes may wait for one watch until its caller is ready: with more, it ends and is resumed.
pub const PENDING_MAX: usize = 4096;

/// Names a watch over all namespaces at this gateway.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WatchId(pub u64);

/// Where a watch begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// At any moment of this revision or above; `None`: no older than its arrival.
    At(Option<Revision>),
    /// With what follows this revision, and with what equals it: two cells may have minted the same.
    After(Revision),
}

/// A change and where it happened.
#[derive(Clone, Debug)]
pub struct Happened {
    /// The cell.
    pub cell: CellId,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// What.
    pub change: Change,
}

/// What the machine is told.
#[derive(Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// Root lists these namespace cells now.
    Cells {
        /// With their namespaces.
        cells: BTreeMap<CellId, Arc<str>>,
        /// The newest of root's changes that is in the list.
        number: Revision,
    },
    /// The answer to [`Effect::Subscribe`]; in the order of the cell's effects with the next two.
    Subscribed {
        /// The cell.
        cell: CellId,
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// As it was asked for.
        after: Option<Revision>,
        /// How it begins.
        begin: Subscription,
    },
    /// Changes of a subscribed resource.
    Events {
        /// The cell.
        cell: CellId,
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// What changed, in order.
        changes: Arc<[Change]>,
    },
    /// The cell has promised that nothing at or below this is still to come, and has told all that was.
    Closed {
        /// The cell: root or a namespace's.
        cell: CellId,
        /// The revision.
        revision: Revision,
    },
    /// The cell's subscriptions are gone: its state was replaced, or it sits elsewhere.
    Lost {
        /// The cell.
        cell: CellId,
    },
    /// Somebody wants to watch.
    Watch {
        /// Names the watch.
        id: WatchId,
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// From where.
        start: Start,
    },
    /// The watch has what [`Effect::Begin`] asked it to get: what follows can be told.
    Ready {
        /// Which.
        id: WatchId,
    },
    /// The watch is over, or was never meant.
    Leave {
        /// Which.
        id: WatchId,
    },
    /// Tell every watch up to where it was told.
    Mark,
}

/// What the machine wants done, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Subscribe a resource at a cell; answered by [`Input::Subscribed`].
    Subscribe {
        /// The cell.
        cell: CellId,
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// What was told before; `None` for whatever comes.
        after: Option<Revision>,
    },
    /// Nobody watches the resource over all namespaces any more.
    Unsubscribe {
        /// The cell.
        cell: CellId,
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// The subscription meant.
        serial: u64,
    },
    /// Ask a cell for a promise.
    Close {
        /// The cell: root or a namespace's.
        cell: CellId,
        /// Up to where.
        at: Revision,
    },
    /// The watch begins at this moment of the frontier. Get the state of each cell at it or, of a watch that
    /// is resumed, what happened in each after `after` and up to it; then say [`Input::Ready`].
    Begin {
        /// Which.
        id: WatchId,
        /// The moment: what is told follows it.
        at: Revision,
        /// Where a watch that is resumed goes on.
        after: Option<Revision>,
        /// The cells there are at that moment.
        cells: Arc<[(CellId, Arc<str>)]>,
    },
    /// The watch cannot begin.
    Refuse {
        /// Which.
        id: WatchId,
        /// Why.
        status: Box<Status>,
    },
    /// Tell these changes, in order.
    Tell {
        /// To whom.
        to: Arc<[WatchId]>,
        /// What.
        happened: Arc<[Happened]>,
    },
    /// Everything up to this revision has been told.
    Mark {
        /// To whom.
        to: Arc<[WatchId]>,
        /// The revision.
        revision: Revision,
    },
    /// The watch ends; with a status, it cannot be resumed from where it is.
    End {
        /// Which.
        id: WatchId,
        /// Why, where there is something to say.
        status: Option<Box<Status>>,
    },
}

/// All watches over all namespaces at one gateway.
pub struct Across {
    cells: BTreeMap<CellId, Arc<str>>,
    /// Root's list has come: without it nothing is known to be all there is.
    listed: bool,
    /// The newest of root's changes when a namespace last ended. Its state is not to be had any more: whatever
    /// begins from then on begins after its end.
    ended: Revision,
    frontier: Frontier,
    /// When promises were last asked for, and the questions not answered yet.
    asked_at: Time,
    unanswered: BTreeMap<CellId, Time>,
    resources: BTreeMap<Arc<str>, Resource>,
    /// The resource of each watch.
    watches: BTreeMap<WatchId, Arc<str>>,
}

/// What is watched of one resource.
#[derive(Default)]
struct Resource {
    upstreams: BTreeMap<CellId, Upstream>,
    /// Not released yet, of cells that root lists no more.
    left: Vec<Happened>,
    /// How many changes wait for the frontier.
    waiting: usize,
    /// From here on the streams are complete, and every cell can show its state: a watch begins no earlier.
    base: Revision,
    /// Everything up to here has been told.
    released: Revision,
    joining: BTreeMap<WatchId, Joining>,
    /// Those that have begun; what is still kept for one whose caller is not ready.
    begun: BTreeMap<WatchId, Option<Vec<Happened>>>,
}

/// One cell's stream of one resource.
struct Upstream {
    namespace: Arc<str>,
    /// The subscription, if it is open.
    open: Option<u64>,
    asked_at: Time,
    /// When it is asked for again, while it is not open.
    again_at: Time,
    /// What has been told of it, by this stream or one before: it is opened again after this.
    told: Option<Revision>,
    /// All up to here is told by the stream that is open. Less than `told` when it comes from a replica that
    /// lags behind the one before: what that one promised, this one has yet to tell.
    complete: Revision,
    buffer: VecDeque<Change>,
}

/// A watch that waits for the frontier.
struct Joining {
    start: Start,
    wanted: Revision,
    until: Time,
}

impl Across {
    /// Nobody watches, and no namespace is known.
    pub fn new(root: CellId) -> Across {
        let mut frontier = Frontier::default();
        frontier.add(root);
        Across {
            cells: BTreeMap::new(),
            listed: false,
            ended: Revision::ZERO,
            frontier,
            asked_at: Time::ZERO,
            unanswered: BTreeMap::new(),
            resources: BTreeMap::new(),
            watches: BTreeMap::new(),
        }
    }

    /// Takes one input and appends what is to be done.
    pub fn step(&mut self, now: Now, input: Input, fx: &mut Vec<Effect>) {
        match input {
            Input::Tick => self.on_tick(now, fx),
            Input::Cells { cells, number } => self.on_cells(now, cells, number, fx),
            Input::Subscribed { cell, storage, after, begin } => {
                self.on_subscribed(now, cell, &storage, (after, begin), fx);
            }
            Input::Events { cell, storage, changes } => self.on_events(cell, &storage, &changes, fx),
            Input::Closed { cell, revision } => self.on_closed(cell, revision, fx),
            Input::Lost { cell } => self.on_lost(now, cell, fx),
            Input::Watch { id, storage, start } => self.on_watch(now, id, storage, start, fx),
            Input::Ready { id } => self.on_ready(id, fx),
            Input::Leave { id } => self.drop_watch(id, fx),
            Input::Mark => self.on_mark(fx),
        }
        self.ask(now, fx);
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.resources.is_empty() {
            return None;
        }
        let joining = self.resources.values().flat_map(|r| r.joining.values().map(|j| j.until));
        let opening =
            self.resources.values().flat_map(|r| r.upstreams.values().filter(|u| u.open.is_none()).map(|u| u.again_at));
        joining.chain(opening).chain([self.asked_at + self.cadence()]).min()
    }

    /// Asserts what must hold between steps.
    pub fn check(&self) {
        for r in self.resources.values() {
            assert!(!r.joining.is_empty() || !r.begun.is_empty(), "a resource is kept that nobody watches");
            assert!(r.waiting <= WAITING_MAX, "more waits for the frontier than the bound says");
        }
        let all: usize = self.resources.values().map(|r| r.joining.len() + r.begun.len()).sum();
        assert_eq!(all, self.watches.len(), "a watch of no resource, or of two");
    }

    /// How many watch.
    pub fn len(&self) -> usize {
        self.watches.len()
    }

    /// Whether nobody watches.
    pub fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    fn cadence(&self) -> Duration {
        let waits = |r: &Resource| r.waiting > 0 || !r.joining.is_empty();
        if self.resources.values().any(waits) { CADENCE } else { IDLE }
    }

    /// Asks for promises, if it is time.
    fn ask(&mut self, now: Now, fx: &mut Vec<Effect>) {
        if self.resources.is_empty() || now.mono < self.asked_at + self.cadence() {
            return;
        }
        self.asked_at = now.mono;
        let at = Revision::end_of(now.wall);
        for cell in self.frontier.behind(at) {
            if self.unanswered.get(&cell).is_some_and(|asked| now.mono < *asked + ASK_AGAIN) {
                continue;
            }
            self.unanswered.insert(cell, now.mono);
            fx.push(Effect::Close { cell, at });
        }
    }

    fn on_tick(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let mut late = Vec::new();
        for (storage, r) in &mut self.resources {
            for (cell, u) in r.upstreams.iter_mut().filter(|(_, u)| u.open.is_none()) {
                if now.mono >= u.again_at {
                    u.ask(now, *cell, storage, fx);
                }
            }
            late.extend(
                r.joining.iter().filter(|(_, j)| now.mono >= j.until).map(|(id, j)| (*id, j.wanted, r.released)),
            );
        }
        for (id, wanted, have) in late {
            self.drop_watch(id, fx);
            fx.push(Effect::Refuse { id, status: Box::new(self.too_late(now, wanted, have)) });
        }
    }

    /// Why a watch has not begun in time.
    fn too_late(&mut self, now: Now, wanted: Revision, have: Revision) -> Status {
        if wanted > Revision::end_of(now.wall) {
            return Status::too_large_resource_version(wanted.get(), have.get());
        }
        let reached = self.frontier.reached();
        let behind = self.frontier.behind(reached).into_iter().next();
        let who = match behind.and_then(|cell| self.cells.get(&cell)) {
            Some(namespace) => format!("the cell of namespace {namespace}"),
            None => "the root cell".to_owned(),
        };
        Status::unavailable(&format!(
            "a watch over all namespaces has to know that none of them has anything still to come, and {who} does not say so: watch one namespace, or try again later"
        ))
    }

    fn on_cells(&mut self, now: Now, cells: BTreeMap<CellId, Arc<str>>, number: Revision, fx: &mut Vec<Effect>) {
        self.listed = true;
        let gone: Vec<CellId> = self.cells.keys().filter(|c| !cells.contains_key(c)).copied().collect();
        let new: Vec<(CellId, Arc<str>)> =
            cells.iter().filter(|(c, _)| !self.cells.contains_key(c)).map(|(c, n)| (*c, n.clone())).collect();
        self.cells = cells;
        for (cell, namespace) in &new {
            self.frontier.add(*cell);
            for (storage, r) in &mut self.resources {
                // Whatever happens in it is above what was released; with nobody told anything yet, what
                // was there before does not matter.
                let told = (!r.begun.is_empty()).then_some(r.released);
                r.open(now, *cell, namespace, told, storage, fx);
            }
        }
        let mut missed = Vec::new();
        for cell in gone {
            self.ended = self.ended.max(number);
            self.frontier.remove(cell);
            self.unanswered.remove(&cell);
            for (storage, r) in &mut self.resources {
                let Some(u) = r.upstreams.remove(&cell) else { continue };
                r.base = r.base.max(number);
                if u.open.is_none() && !r.begun.is_empty() {
                    missed.push((storage.clone(), u.namespace.clone()));
                }
                let namespace = u.namespace;
                let happened = u.buffer.into_iter();
                r.left.extend(happened.map(|change| Happened { cell, namespace: namespace.clone(), change }));
            }
        }
        for (storage, namespace) in missed {
            let why =
                format!("namespace {namespace} ended while it was out of reach: list again, and watch from there");
            self.end_begun(&storage, Some(&Status::expired(&why)), fx);
        }
        self.release_all(fx);
    }

    fn on_subscribed(
        &mut self,
        now: Now,
        cell: CellId,
        storage: &Arc<str>,
        (after, begin): (Option<Revision>, Subscription),
        fx: &mut Vec<Effect>,
    ) {
        let Some(r) = self.resources.get_mut(storage) else {
            // Nobody watches it any more.
            if let Subscription::Open { serial, .. } = begin {
                fx.push(Effect::Unsubscribe { cell, storage: storage.clone(), serial });
            }
            return;
        };
        let Some(u) = r.upstreams.get_mut(&cell) else { return };
        if u.open.is_none() && u.told != after {
            // To a question from before it was lost: what was told in between would be missing.
            return;
        }
        match begin {
            Subscription::Open { revision, backlog, serial } => {
                // A second answer, to a question asked again: the first stream goes on.
                if u.open.replace(serial).is_some() {
                    return;
                }
                if u.told.is_none() {
                    r.base = r.base.max(revision);
                }
                u.complete = revision;
                u.told = Some(revision.max(u.told.unwrap_or_default()));
                u.buffer.extend(backlog.iter().cloned());
                r.waiting += backlog.len();
                self.release(storage, fx);
            }
            Subscription::Gone { .. } if u.open.is_some() => {}
            Subscription::Gone { oldest } => {
                let from = u.told.take().unwrap_or_default();
                u.ask(now, cell, storage, fx);
                self.end_begun(storage, Some(&objects::read::WatchPlan::expired(from, oldest)), fx);
            }
        }
    }

    fn on_events(&mut self, cell: CellId, storage: &Arc<str>, changes: &[Change], fx: &mut Vec<Effect>) {
        let Some(r) = self.resources.get_mut(storage) else { return };
        let Some(u) = r.upstreams.get_mut(&cell).filter(|u| u.open.is_some()) else { return };
        let Some(last) = changes.last() else { return };
        u.complete = u.complete.max(last.revision);
        // A replica that lags tells some of it for the second time.
        let new = changes.partition_point(|c| Some(c.revision) <= u.told);
        let new = changes.get(new..).unwrap_or_default();
        u.told = u.told.max(Some(last.revision));
        u.buffer.extend(new.iter().cloned());
        r.waiting += new.len();
        if r.waiting > WAITING_MAX {
            r.forget();
            self.end_begun(storage, None, fx);
        }
    }

    fn on_closed(&mut self, cell: CellId, revision: Revision, fx: &mut Vec<Effect>) {
        self.unanswered.remove(&cell);
        // What is promised has been told already, in the order of the cell's effects: no index to wait for.
        self.frontier.closed(cell, revision, 0);
        for r in self.resources.values_mut() {
            if let Some(u) = r.upstreams.get_mut(&cell).filter(|u| u.open.is_some()) {
                u.complete = u.complete.max(revision);
                u.told = Some(revision.max(u.told.unwrap_or_default()));
            }
        }
        self.release_all(fx);
    }

    fn on_lost(&mut self, now: Now, cell: CellId, fx: &mut Vec<Effect>) {
        self.unanswered.remove(&cell);
        for (storage, r) in &mut self.resources {
            if let Some(u) = r.upstreams.get_mut(&cell) {
                u.open = None;
                // One that is lost as soon as it is asked for is not asked for without pause.
                u.again_at = u.asked_at + LOST_PAUSE;
                if now.mono >= u.again_at {
                    u.ask(now, cell, storage, fx);
                }
            }
        }
    }

    fn on_watch(&mut self, now: Now, id: WatchId, storage: Arc<str>, start: Start, fx: &mut Vec<Effect>) {
        let wanted = match start {
            Start::At(None) => Revision::end_of(now.wall),
            Start::At(Some(r)) | Start::After(r) => r,
        };
        let patience = if wanted > Revision::end_of(now.wall) { FUTURE } else { PATIENCE };
        let r = self.resources.entry(storage.clone()).or_default();
        if r.joining.is_empty() && r.begun.is_empty() {
            r.base = self.ended;
            for (cell, namespace) in &self.cells {
                r.open(now, *cell, namespace, None, &storage, fx);
            }
        }
        r.joining.insert(id, Joining { start, wanted, until: now.mono + patience });
        self.watches.insert(id, storage.clone());
        self.release(&storage, fx);
    }

    fn on_ready(&mut self, id: WatchId, fx: &mut Vec<Effect>) {
        let Some(r) = self.watches.get(&id).and_then(|storage| self.resources.get_mut(storage)) else { return };
        let kept = r.begun.get_mut(&id).and_then(Option::take).unwrap_or_default();
        if !kept.is_empty() {
            fx.push(Effect::Tell { to: [id].into(), happened: kept.into() });
        }
    }

    fn on_mark(&mut self, fx: &mut Vec<Effect>) {
        for r in self.resources.values() {
            let to = r.ready();
            if !to.is_empty() {
                fx.push(Effect::Mark { to, revision: r.released });
            }
        }
    }

    fn release_all(&mut self, fx: &mut Vec<Effect>) {
        let all: Vec<Arc<str>> = self.resources.keys().cloned().collect();
        for storage in all {
            self.release(&storage, fx);
        }
    }

    /// Tells what the frontier has passed, and begins the watches that waited for it.
    fn release(&mut self, storage: &Arc<str>, fx: &mut Vec<Effect>) {
        let reached = self.frontier.reached();
        let Some(r) = self.resources.get_mut(storage).filter(|_| self.listed) else { return };
        if r.upstreams.values().any(|u| u.open.is_none()) {
            return;
        }
        let complete = r.upstreams.values().map(|u| u.complete).min();
        let reached = complete.map_or(reached, |complete| complete.min(reached));
        let mut slow = Vec::new();
        if reached > r.released {
            r.released = reached;
            let happened = r.take_up_to(reached);
            if !happened.is_empty() {
                let to = r.ready();
                for (id, kept) in r.begun.iter_mut().filter_map(|(id, k)| Some((id, k.as_mut()?))) {
                    kept.extend(happened.iter().cloned());
                    if kept.len() > PENDING_MAX {
                        slow.push(*id);
                    }
                }
                if !to.is_empty() {
                    fx.push(Effect::Tell { to, happened: happened.into() });
                }
            }
        }
        if r.released >= r.base {
            let at = r.released;
            let cells: Arc<[_]> = self.cells.iter().map(|(c, n)| (*c, n.clone())).collect();
            for (id, j) in r.joining.extract_if(.., |_, j| j.wanted <= at) {
                let after = match j.start {
                    Start::At(_) => None,
                    Start::After(r) => Some(Revision::from_u64(r.get().saturating_sub(1)).unwrap_or_default()),
                };
                r.begun.insert(id, Some(Vec::new()));
                fx.push(Effect::Begin { id, at, after, cells: cells.clone() });
            }
        }
        for id in slow {
            self.drop_watch(id, fx);
            fx.push(Effect::End { id, status: None });
        }
    }

    /// Ends all watches of a resource that have begun.
    fn end_begun(&mut self, storage: &Arc<str>, status: Option<&Status>, fx: &mut Vec<Effect>) {
        let Some(r) = self.resources.get(storage) else { return };
        let ids: Vec<WatchId> = r.begun.keys().copied().collect();
        for id in ids {
            self.drop_watch(id, fx);
            fx.push(Effect::End { id, status: status.cloned().map(Box::new) });
        }
    }

    fn drop_watch(&mut self, id: WatchId, fx: &mut Vec<Effect>) {
        let Some(storage) = self.watches.remove(&id) else { return };
        let Some(r) = self.resources.get_mut(&storage) else { return };
        r.joining.remove(&id);
        r.begun.remove(&id);
        if r.joining.is_empty() && r.begun.is_empty() {
            let r = self.resources.remove(&storage).unwrap_or_default();
            for (cell, u) in r.upstreams {
                if let Some(serial) = u.open {
                    fx.push(Effect::Unsubscribe { cell, storage: storage.clone(), serial });
                }
            }
        }
    }
}

impl Resource {
    fn open(
        &mut self,
        now: Now,
        cell: CellId,
        namespace: &Arc<str>,
        told: Option<Revision>,
        storage: &Arc<str>,
        fx: &mut Vec<Effect>,
    ) {
        let mut u = Upstream {
            namespace: namespace.clone(),
            open: None,
            asked_at: now.mono,
            again_at: now.mono,
            told,
            complete: Revision::ZERO,
            buffer: VecDeque::new(),
        };
        u.ask(now, cell, storage, fx);
        self.upstreams.insert(cell, u);
    }

    fn ready(&self) -> Arc<[WatchId]> {
        self.begun.iter().filter(|(_, kept)| kept.is_none()).map(|(id, _)| *id).collect()
    }

    /// What waits at or below `reached`, in order.
    fn take_up_to(&mut self, reached: Revision) -> Vec<Happened> {
        let mut out: Vec<Happened> = self.left.extract_if(.., |h| h.change.revision <= reached).collect();
        for (cell, u) in &mut self.upstreams {
            let n = u.buffer.partition_point(|c| c.revision <= reached);
            let namespace = &u.namespace;
            out.extend(u.buffer.drain(..n).map(|change| Happened {
                cell: *cell,
                namespace: namespace.clone(),
                change,
            }));
        }
        self.waiting -= out.len();
        out.sort_by_key(|h| (h.change.revision, h.cell));
        out
    }

    /// Gives up what waits: what begins from now on begins above it.
    fn forget(&mut self) {
        let left = core::mem::take(&mut self.left).into_iter().map(|h| h.change.revision);
        let waiting = self.upstreams.values_mut().flat_map(|u| core::mem::take(&mut u.buffer)).map(|c| c.revision);
        self.base = left.chain(waiting).max().unwrap_or_default().max(self.base);
        self.waiting = 0;
    }
}

impl Upstream {
    fn ask(&mut self, now: Now, cell: CellId, storage: &Arc<str>, fx: &mut Vec<Effect>) {
        self.asked_at = now.mono;
        self.again_at = now.mono + ASK_AGAIN;
        fx.push(Effect::Subscribe { cell, storage: storage.clone(), after: self.told });
    }
}

/// Changes of many cells that a resumed watch is told first, in order.
pub fn in_order(cells: Vec<(CellId, Arc<str>, Vec<Change>)>) -> Vec<Happened> {
    let mut out: Vec<Happened> = cells
        .into_iter()
        .flat_map(|(cell, namespace, changes)| {
            changes.into_iter().map(move |change| Happened { cell, namespace: namespace.clone(), change })
        })
        .collect();
    out.sort_by_key(|h| (h.change.revision, h.cell));
    out
}

/// Whether a namespace that was there before these changes of root's Namespaces is gone after them. What
/// happened in it is no longer to be had, so a watch cannot be resumed over its end.
pub fn lost_a_namespace(changes: &[Change]) -> bool {
    let mut made = std::collections::BTreeSet::new();
    changes.iter().any(|c| match (&c.before, &c.after) {
        (None, Some(_)) => {
            made.insert(&c.key.name);
            false
        }
        (Some(_), None) => !made.remove(&c.key.name),
        _ => false,
    })
}

#[cfg(test)]
mod tests;
