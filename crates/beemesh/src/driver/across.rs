//! Watches over all namespaces: where the machine that joins the cells' streams sits, and the way from it
//! to each watcher.

use super::away::tell::Asker;
use super::fanout::Watcher;
use super::seat::{Machine, Seat, Times, World};
use super::timers::Timers;
use super::{Driver, clock, lock};
use api::port::{Event, Refusal};
use base::{CellId, Now, Revision, Time};
use node::cell;
pub(super) use node::gateway::across::Input as Told;
use node::gateway::across::{Across, Effect, Happened, Input, PENDING_MAX, Start, WatchId};
use node::wire::watch::ToCell;
use objects::kinds::Kind;
use objects::read::WatchPlan;
use objects::status::Status;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::{mpsc, oneshot};

impl Machine for Across {
    type Input = Input;
    type Effect = Effect;
    type Id = ();
    fn step(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        Across::step(self, now, input, effects);
    }
    fn next_deadline(&self) -> Option<Time> {
        Across::next_deadline(self)
    }
    fn check(&self) {
        Across::check(self);
    }
}

/// The machine's seat and its watchers.
pub(super) struct Joined {
    seat: OnceLock<Arc<Seat<Across>>>,
    timers: Arc<Timers<()>>,
    watches: Mutex<HashMap<WatchId, Watching>>,
    next: AtomicU64,
    /// How many watch: what cells promise is of use to somebody.
    count: AtomicUsize,
    /// What is subscribed for the machine.
    subscribed: Mutex<BTreeSet<(CellId, Arc<str>)>>,
}

/// How far a watch has come.
enum Watching {
    /// It waits for a moment of the frontier.
    Joining(oneshot::Sender<Result<Begun, Refusal>>),
    /// Its caller gets what it begins with.
    Getting,
    /// It is told what happens.
    Open(Watcher),
    /// It ended before it was open.
    Ended(Option<Refusal>),
}

/// The moment at which a watch begins.
pub(crate) struct Begun {
    /// What is told follows this.
    pub(crate) at: Revision,
    /// Where a watch that is resumed goes on.
    pub(crate) after: Option<Revision>,
    /// The namespaces' cells at that moment.
    pub(crate) cells: Arc<[(CellId, Arc<str>)]>,
}

/// A place among those who watch, given back when it is dropped before it was opened.
pub(crate) struct Place {
    driver: Arc<Driver>,
    id: Option<WatchId>,
    pub(crate) begun: Begun,
}

impl Joined {
    pub(super) fn new() -> Joined {
        Joined {
            seat: OnceLock::new(),
            timers: Timers::new(),
            watches: Mutex::default(),
            next: AtomicU64::new(1),
            count: AtomicUsize::new(0),
            subscribed: Mutex::default(),
        }
    }

    pub(super) fn start(&self, driver: &Arc<Driver>) -> std::io::Result<()> {
        let seat =
            Seat::new((), Across::new(driver.founding.root), driver.clone() as Arc<dyn World<Across>>, usize::MAX);
        let _ = self.seat.set(seat.clone());
        let timers = self.timers.clone();
        let run = move || timers.run(|| clock::now().mono, |()| seat.post(Input::Tick));
        std::thread::Builder::new().name("across".into()).spawn(run).map(drop)
    }

    pub(super) fn stop(&self) {
        self.timers.stop();
    }

    /// Tells the machine.
    pub(super) fn post(&self, input: Input) {
        if let Some(seat) = self.seat.get() {
            seat.post(input);
        }
    }

    /// Whether anybody watches.
    pub(super) fn is_watched(&self) -> bool {
        self.len() > 0
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether the cell is to tell of the resource for the machine.
    pub(super) fn wants(&self, cell: CellId, storage: &Arc<str>) -> bool {
        self.is_watched() && lock(&self.subscribed).contains(&(cell, storage.clone()))
    }

    /// Whether anything of the cell is to be told for the machine.
    pub(super) fn is_about(&self, cell: CellId) -> bool {
        self.is_watched() && lock(&self.subscribed).iter().any(|(c, _)| *c == cell)
    }

    fn insert(&self, id: WatchId, watching: Watching) {
        let mut watches = lock(&self.watches);
        watches.insert(id, watching);
        self.count.store(watches.len(), Ordering::Relaxed);
    }

    fn remove(&self, id: WatchId) -> Option<Watching> {
        let mut watches = lock(&self.watches);
        let removed = watches.remove(&id);
        self.count.store(watches.len(), Ordering::Relaxed);
        removed
    }

    /// Hands each watcher something; those who are gone or too slow are told of to the machine.
    fn each(&self, to: &[WatchId], mut tell: impl FnMut(&Watcher) -> bool) {
        let mut over = Vec::new();
        {
            let watches = lock(&self.watches);
            for id in to {
                if let Some(Watching::Open(watcher)) = watches.get(id)
                    && !tell(watcher)
                {
                    over.push(*id);
                }
            }
        }
        for id in over {
            self.remove(id);
            self.post(Input::Leave { id });
        }
    }

    fn end(&self, id: WatchId, status: Option<Refusal>) {
        let mut watches = lock(&self.watches);
        match watches.get_mut(&id) {
            Some(Watching::Open(watcher)) => {
                if let Some(status) = status {
                    watcher.end(status);
                }
                watches.remove(&id);
            }
            Some(other) => *other = Watching::Ended(status),
            None => {}
        }
        self.count.store(watches.len(), Ordering::Relaxed);
    }
}

impl Driver {
    /// Waits for the moment at which a watch over all namespaces begins.
    pub(crate) async fn join_all(self: &Arc<Self>, kind: &Kind, start: Start) -> Result<Place, Refusal> {
        let id = WatchId(self.joined.next.fetch_add(1, Ordering::Relaxed));
        let (sender, begun) = oneshot::channel();
        self.joined.insert(id, Watching::Joining(sender));
        let nowhere = Begun { at: Revision::ZERO, after: None, cells: Arc::default() };
        let mut place = Place { driver: self.clone(), id: Some(id), begun: nowhere };
        self.joined.post(Input::Watch { id, storage: kind.storage.into(), start });
        match begun.await {
            Ok(begun) => place.begun = begun?,
            // The sender goes without a word only with the process.
            Err(_) => return Err(Box::new(Status::unavailable("this node is stopping"))),
        }
        Ok(place)
    }
}

impl Driver {
    fn led_here(&self, cell: CellId) -> Option<Arc<Seat<cell::Cell>>> {
        self.cell(cell).filter(|_| self.tells_joined(cell))
    }

    fn say_away(&self, cell: CellId, what: ToCell) {
        if let Some(me) = self.me.upgrade() {
            me.tell_away(cell, what);
        }
    }
}

impl Place {
    /// Opens the way to the watcher, which is told `first` and then what happens after its beginning. `None`:
    /// it fell behind or lost a cell before it was open, and may be begun again.
    pub(crate) fn open(
        mut self,
        kind: &'static Kind,
        plan: WatchPlan,
        first: &[Happened],
    ) -> Result<Option<mpsc::Receiver<Event>>, Refusal> {
        let Some(id) = self.id else { return Ok(None) };
        let (watcher, events) = Watcher::new(kind, plan, first.len() + PENDING_MAX);
        if !first.iter().all(|h| watcher.tell_in(&h.namespace, &h.change)) {
            return Ok(None);
        }
        let joined = &self.driver.joined;
        {
            let mut watches = lock(&joined.watches);
            match watches.get_mut(&id) {
                Some(slot @ Watching::Getting) => *slot = Watching::Open(watcher),
                Some(Watching::Ended(status)) => {
                    return match status.take() {
                        Some(status) => Err(status),
                        None => Ok(None),
                    };
                }
                _ => return Ok(None),
            }
        }
        joined.post(Input::Ready { id });
        self.id = None;
        Ok(Some(events))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.driver.joined.remove(id);
            self.driver.joined.post(Input::Leave { id });
        }
    }
}

impl Times<()> for Driver {
    fn now(&self) -> Now {
        clock::now()
    }

    fn wake_at(&self, (): (), deadline: Option<Time>) {
        self.joined.timers.set((), deadline);
    }
}

impl World<Across> for Driver {
    fn perform(&self, _: &Arc<Seat<Across>>, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Subscribe { cell, storage, after } => {
                    lock(&self.joined.subscribed).insert((cell, storage.clone()));
                    match self.led_here(cell) {
                        Some(seat) => {
                            self.tellers.asks(cell, &storage, after, Asker::Joined);
                            seat.post(cell::Input::Subscribe { storage, after });
                        }
                        None => self.say_away(cell, ToCell::Subscribe { storage, after }),
                    }
                }
                Effect::Unsubscribe { cell, storage, serial } => {
                    lock(&self.joined.subscribed).remove(&(cell, storage.clone()));
                    match self.led_here(cell) {
                        Some(seat) => self.unsubscribe(&seat, storage, serial),
                        None => {
                            if let Some(me) = self.me.upgrade() {
                                me.leave_away(cell, storage, serial);
                            }
                        }
                    }
                }
                Effect::Close { cell, at } => match self.led_here(cell) {
                    Some(seat) => seat.post(cell::Input::Close { at }),
                    None => self.say_away(cell, ToCell::Close { at }),
                },
                Effect::Begin { id, at, after, cells } => {
                    let joining = lock(&self.joined.watches)
                        .get_mut(&id)
                        .map(|watching| std::mem::replace(watching, Watching::Getting));
                    if let Some(Watching::Joining(sender)) = joining {
                        // One that has gone away gives its place back by itself.
                        let _ = sender.send(Ok(Begun { at, after, cells }));
                    }
                }
                Effect::Refuse { id, status } => {
                    if let Some(Watching::Joining(sender)) = self.joined.remove(id) {
                        let _ = sender.send(Err(status));
                    }
                }
                Effect::Tell { to, happened } => {
                    self.joined.each(&to, |w| happened.iter().all(|h| w.tell_in(&h.namespace, &h.change)));
                }
                Effect::Mark { to, revision } => self.joined.each(&to, |w| w.mark(revision)),
                Effect::End { id, status } => self.joined.end(id, status),
            }
        }
    }
}
