//! What this node keeps of one peer, link or not: its queues, its back-off, and which link is in use.

use crate::bound::lock;
use crate::link::{Link, Origin, replaces};
use crate::{Limits, Why};
use base::{Chance, NodeId};
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, watch};

/// A link that lasted so long was a good one.
const LASTS: Duration = Duration::from_secs(5);

/// One peer.
pub(crate) struct PeerState {
    pub(crate) node: NodeId,
    state: Mutex<State>,
    queues: Mutex<Vec<Queue>>,
    /// One for each protocol: something is in its queue.
    pub(crate) filled: Vec<Notify>,
    /// One for each protocol: bytes the handler may still be given. Kept over links, so that a peer that comes
    /// again has no second allowance.
    pub(crate) budgets: Vec<Arc<Semaphore>>,
    /// Counts whatever `State` went through.
    pub(crate) changed: watch::Sender<u64>,
    /// Taken for the length of a hello by the node with the lower id.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
    /// Do not wait out the back-off.
    pub(crate) retry: Notify,
}

#[derive(Default)]
struct State {
    link: Option<Arc<Link>>,
    /// Counts links, but for those that took another's place.
    session: u64,
    /// Which session the handler was told of.
    told: Option<u64>,
    /// Why the last link ended.
    ended: Option<Why>,
    /// Why the last dial failed.
    failure: Option<Why>,
    /// A task sees to it that there is a link.
    dialing: bool,
    /// Failures since a link last lasted; a link that ended at once is one too.
    failures: u32,
    /// To be waited for before the next dial.
    delay: Option<Duration>,
    /// The peer showed a newer SVID, and the handler does not know.
    renewed: bool,
    /// Failures ever.
    failed_ever: u64,
    seen: crate::hello::Seen,
    wanted: bool,
    waiting: usize,
    /// Hellos under way with it.
    held: usize,
    forgotten: bool,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<(u16, Bytes)>,
    bytes: usize,
}

/// What became of a message that was pushed.
pub(crate) struct Pushed {
    /// Older ones dropped for it.
    pub(crate) dropped: usize,
    /// Their bytes.
    pub(crate) dropped_bytes: usize,
}

/// What the handler has to be told.
pub(crate) enum News {
    Nothing,
    Up(Arc<Link>),
    Down(Why),
    /// Both, in this order.
    Again(Why, Arc<Link>),
    /// The same session: a link that took another's place is started, and a newer SVID is told of.
    Same(Arc<Link>, bool),
}

impl PeerState {
    pub(crate) fn new(node: NodeId, protocols: usize, limits: &Limits) -> PeerState {
        let budget = limits.in_flight_bytes_max.max(limits.message_bytes_max).min(Semaphore::MAX_PERMITS);
        PeerState {
            node,
            state: Mutex::default(),
            queues: Mutex::new((0..protocols).map(|_| Queue::default()).collect()),
            filled: (0..protocols).map(|_| Notify::new()).collect(),
            budgets: (0..protocols).map(|_| Arc::new(Semaphore::new(budget))).collect(),
            changed: watch::Sender::new(0),
            turn: Arc::default(),
            retry: Notify::new(),
        }
    }

    fn bump(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// The link in use.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        lock(&self.state).link.clone()
    }

    /// Is this the link in use?
    pub(crate) fn uses(&self, link: &Arc<Link>) -> bool {
        lock(&self.state).link.as_ref().is_some_and(|l| Arc::ptr_eq(l, link))
    }

    /// The highest dial of the peer's that led to a link, and of which start of it.
    pub(crate) fn seen(&self) -> crate::hello::Seen {
        lock(&self.state).seen
    }

    /// Would a link of this origin be used?
    pub(crate) fn would_use(&self, me: NodeId, origin: &Origin) -> bool {
        lock(&self.state).link.as_ref().is_none_or(|old| replaces(me, self.node, &old.origin, origin))
    }

    /// Uses this link from now on, if it is the better one. The one it replaces comes back.
    pub(crate) fn install(&self, me: NodeId, link: &Arc<Link>) -> Result<Option<Arc<Link>>, Why> {
        let mut state = lock(&self.state);
        if state.forgotten {
            return Err(Why::Busy { node: self.node, what: "its place was just given up" });
        }
        if state.link.as_ref().is_some_and(|old| !replaces(me, self.node, &old.origin, &link.origin)) {
            return Err(Why::Duplicate(self.node));
        }
        let old = state.link.replace(link.clone());
        if old.as_ref().is_none_or(|old| old.origin.boot != link.origin.boot) {
            state.session += 1;
            if old.is_some() {
                state.ended = Some(Why::Restarted(self.node));
            }
        }
        if !link.origin.dialed_here {
            state.seen = crate::hello::Seen { boot: link.origin.boot, dial: link.origin.dial };
        }
        state.renewed = false;
        drop(state);
        self.bump();
        Ok(old)
    }

    /// This link ended. Says whether it was in use. A peer that ends every link at once is not dialled at once
    /// every time.
    pub(crate) fn removed(&self, link: &Arc<Link>, why: Why, limits: &Limits, chance: &Mutex<Chance>) -> bool {
        let mut state = lock(&self.state);
        let used = state.link.as_ref().is_some_and(|l| Arc::ptr_eq(l, link));
        if used {
            state.link = None;
            state.ended = Some(why);
            let lasted = link.used.age() >= LASTS;
            state.failures = if lasted { 0 } else { state.failures.saturating_add(1) };
            state.delay = (!lasted).then(|| back_off(state.failures, limits, &mut lock(chance)));
        }
        drop(state);
        self.bump();
        used
    }

    /// What the handler does not know yet; from here on it counts as told.
    pub(crate) fn news(&self) -> News {
        let mut state = lock(&self.state);
        let now = state.link.clone().map(|link| (state.session, link));
        let last = || state.ended.clone().unwrap_or(Why::Restarted(self.node));
        let news = match (state.told, &now) {
            (None, None) => News::Nothing,
            (None, Some((_, link))) => News::Up(link.clone()),
            (Some(_), None) => News::Down(last()),
            (Some(told), Some((session, link))) if told != *session => News::Again(last(), link.clone()),
            (Some(_), Some((_, link))) => News::Same(link.clone(), state.renewed),
        };
        state.renewed = false;
        state.told = now.map(|(session, _)| session);
        news
    }

    /// The peer showed a newer SVID.
    pub(crate) fn renewed(&self) {
        lock(&self.state).renewed = true;
    }

    /// Says whether a task to dial has to be started: there is something to do and nobody does it.
    pub(crate) fn begin_dialing(&self) -> bool {
        let mut state = lock(&self.state);
        let begins = state.link.is_none() && !state.dialing && !state.forgotten;
        state.dialing |= begins;
        begins
    }

    /// Says whether there is still somebody to dial for; if not, the task that asks ends.
    pub(crate) fn goes_on_dialing(&self) -> bool {
        let mut state = lock(&self.state);
        // Under the lock: who pushes asks for a dial afterwards, and must not find this task about to end.
        let queued = !self.is_empty();
        let goes_on = state.link.is_none() && (state.wanted || state.waiting > 0 || queued);
        state.dialing = goes_on;
        goes_on
    }

    /// Is there a reason to dial again at once, the link being lost?
    pub(crate) fn needs_link(&self) -> bool {
        let state = lock(&self.state);
        let queued = !self.is_empty();
        state.wanted || state.waiting > 0 || queued
    }

    /// A dial failed. Says how long to wait.
    pub(crate) fn failed(&self, why: Why, limits: &Limits, chance: &Mutex<Chance>) -> Duration {
        let mut state = lock(&self.state);
        state.failures = state.failures.saturating_add(1);
        state.failed_ever += 1;
        state.failure = Some(why);
        let wait = back_off(state.failures, limits, &mut lock(chance));
        drop(state);
        self.bump();
        wait
    }

    /// What is to be waited before the first dial of a task.
    pub(crate) fn take_delay(&self) -> Duration {
        lock(&self.state).delay.take().unwrap_or_default()
    }

    /// There is a reason to hope: the next wait is a short one.
    pub(crate) fn hope(&self) {
        let mut state = lock(&self.state);
        state.failures = 0;
        state.delay = None;
        drop(state);
        self.retry.notify_one();
    }

    /// How often dials failed, and why the last one did.
    pub(crate) fn failures(&self) -> (u64, Option<Why>) {
        let state = lock(&self.state);
        (state.failed_ever, state.failure.clone())
    }

    pub(crate) fn want(&self, wanted: bool) {
        lock(&self.state).wanted = wanted;
    }

    pub(crate) fn is_wanted(&self) -> bool {
        lock(&self.state).wanted
    }

    /// Somebody waits for a link; until the guard is dropped.
    pub(crate) fn wait(self: &Arc<PeerState>) -> Waiting {
        lock(&self.state).waiting += 1;
        Waiting(self.clone())
    }

    /// The place is not given up until the guard is dropped.
    pub(crate) fn hold(self: &Arc<PeerState>) -> Held {
        lock(&self.state).held += 1;
        Held(self.clone())
    }

    /// Gives up this place if nothing is in it. Nothing is put there any more then.
    pub(crate) fn forget(&self) -> bool {
        let mut state = lock(&self.state);
        let queued = !self.is_empty();
        let nothing =
            state.link.is_none() && state.held == 0 && state.told.is_none() && !state.dialing && !state.wanted;
        let in_flight = self.budgets.iter().any(|b| Arc::strong_count(b) > 1);
        state.forgotten = nothing && state.waiting == 0 && !queued && !in_flight;
        state.forgotten
    }

    pub(crate) fn is_forgotten(&self) -> bool {
        lock(&self.state).forgotten
    }

    fn is_empty(&self) -> bool {
        lock(&self.queues).iter().all(|q| q.items.is_empty())
    }

    /// Puts a message into the queue of a protocol; beyond the bounds the oldest go.
    pub(crate) fn push(&self, protocol: usize, major: u16, bytes: Bytes, limits: &Limits) -> Pushed {
        let mut queues = lock(&self.queues);
        let mut pushed = Pushed { dropped: 0, dropped_bytes: 0 };
        let Some(queue) = queues.get_mut(protocol) else { return pushed };
        queue.bytes += bytes.len();
        queue.items.push_back((major, bytes));
        let bytes_max = limits.queue_bytes_max.max(limits.message_bytes_max);
        while queue.items.len() > limits.queue_messages_max.max(1) || queue.bytes > bytes_max {
            let Some((_, oldest)) = queue.items.pop_front() else { break };
            queue.bytes -= oldest.len();
            pushed.dropped += 1;
            pushed.dropped_bytes += oldest.len();
        }
        drop(queues);
        if let Some(filled) = self.filled.get(protocol) {
            filled.notify_one();
        }
        pushed
    }

    /// The oldest message of a protocol.
    pub(crate) fn pop(&self, protocol: usize) -> Option<(u16, Bytes)> {
        let mut queues = lock(&self.queues);
        let queue = queues.get_mut(protocol)?;
        let (major, bytes) = queue.items.pop_front()?;
        queue.bytes -= bytes.len();
        Some((major, bytes))
    }

    /// Drops all that waits: how many messages, how many bytes.
    pub(crate) fn drop_queued(&self) -> (usize, usize) {
        let mut dropped = (0, 0);
        for queue in lock(&self.queues).iter_mut() {
            dropped.0 += queue.items.len();
            dropped.1 += queue.bytes;
            *queue = Queue::default();
        }
        dropped
    }
}

/// Somebody waits for a link.
pub(crate) struct Waiting(Arc<PeerState>);

impl Drop for Waiting {
    fn drop(&mut self) {
        lock(&self.0.state).waiting -= 1;
    }
}

/// Somebody says hello with a peer.
pub(crate) struct Held(Arc<PeerState>);

impl Deref for Held {
    type Target = Arc<PeerState>;
    fn deref(&self) -> &Arc<PeerState> {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.0.state).held -= 1;
    }
}

/// Doubles with every failure, give or take a half, so that nodes that failed together do not come together.
fn back_off(failures: u32, limits: &Limits, chance: &mut Chance) -> Duration {
    let doubled = limits.back_off_min.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(limits.back_off_max);
    let ms = u64::try_from(doubled.as_millis()).unwrap_or(u64::MAX / 2);
    Duration::from_millis(ms / 2 + chance.below(ms + 1))
}

/// When a link was last used, in a form that is cheap to set.
#[derive(Debug)]
pub(crate) struct Used {
    start: Instant,
    ms: std::sync::atomic::AtomicU64,
}

impl Used {
    pub(crate) fn now() -> Used {
        Used { start: Instant::now(), ms: Default::default() }
    }

    pub(crate) fn again(&self) {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.ms.store(ms, std::sync::atomic::Ordering::Relaxed);
    }

    /// Since it was made.
    pub(crate) fn age(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn since(&self) -> Duration {
        let used = Duration::from_millis(self.ms.load(std::sync::atomic::Ordering::Relaxed));
        self.start.elapsed().saturating_sub(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { queue_messages_max: 3, queue_bytes_max: 10, message_bytes_max: 6, ..Limits::default() }
    }

    #[test]
    fn a_full_queue_drops_its_oldest_and_no_other_protocols() {
        let peer = PeerState::new(NodeId([1; 32]), 2, &limits());
        let push =
            |protocol, bytes: &'static [u8]| peer.push(protocol, 1, Bytes::from_static(bytes), &limits()).dropped;
        assert_eq!([push(0, b"a"), push(0, b"b"), push(0, b"c"), push(1, b"z")], [0; 4]);
        assert_eq!(push(0, b"d"), 1, "by their number");
        assert_eq!(push(0, b"eeeeee"), 1);
        assert_eq!(push(0, b"ffffff"), 3, "and by their bytes");
        assert_eq!(peer.pop(0), Some((1, Bytes::from_static(b"ffffff"))));
        assert_eq!((peer.pop(0), peer.pop(1)), (None, Some((1, Bytes::from_static(b"z")))));
        push(1, b"yy");
        assert_eq!(peer.drop_queued(), (1, 2));
    }

    #[test]
    fn back_off_doubles_to_its_bound_and_never_agrees_with_another_nodes() {
        let limits = Limits::default();
        let mut chance = Chance::from_u64(1);
        for (failures, low, high) in [(1, 50, 150), (2, 100, 300), (5, 800, 2400), (60, 15_000, 45_000)] {
            for _ in 0..100 {
                let ms = back_off(failures, &limits, &mut chance).as_millis();
                assert!((low..=high).contains(&ms), "{failures}: {ms}");
            }
        }
        let waits = |seed| (0..4).map(move |_| back_off(9, &Limits::default(), &mut Chance::from_u64(seed)));
        assert!(waits(1).ne(waits(2)));
    }
}
