//! The pods that are to be scheduled: in which order, and when again.

use base::{NodeId, Time, Uid, Wall};
use decide::schedule::Tender;
use objects::Tree;
use objects::request::Stored;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The first pause after an attempt without success, doubled after each, and the longest: kube-scheduler's
/// `podInitialBackoffSeconds` and `podMaxBackoffSeconds`.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// The shortest time between two attempts, whatever happens.
const BETWEEN: Duration = Duration::from_millis(100);

/// A pod that is to be scheduled.
pub(super) struct Waiting {
    pub(super) uid: Uid,
    pub(super) stored: Stored,
    pub(super) tree: Arc<Tree>,
    rank: Rank,
    state: State,
    /// Attempts without success, since something last changed that may help.
    tries: u32,
    /// The last attempt ended.
    tried: Time,
    /// Attempts in a row that failed only for what was reserved.
    pub(super) contended: u32,
    /// What its last FailedScheduling Event says.
    pub(super) failure: Option<Failure>,
    /// Which node is making room for it, and the tender it offered that for.
    pub(super) nominated: Option<(NodeId, Tender)>,
}

/// An Event that may happen again.
pub(super) struct Failure {
    /// The Event's name.
    pub(super) event: String,
    pub(super) note: String,
    pub(super) count: u64,
    /// The count last written, and when.
    pub(super) written: (u64, Time),
}

/// Higher priority first, then who came first.
type Rank = (Reverse<i64>, Wall, Arc<str>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Queued,
    /// In a round.
    Under,
    /// Not before this.
    Pausing(Time),
}

/// All of them.
#[derive(Default)]
pub(super) struct Pods {
    pods: BTreeMap<Arc<str>, Waiting>,
    queue: BTreeSet<Rank>,
    pauses: BTreeSet<(Time, Arc<str>)>,
}

impl Pods {
    pub(super) fn get(&self, name: &str) -> Option<&Waiting> {
        self.pods.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Waiting> {
        self.pods.get_mut(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Waiting)> {
        self.pods.iter()
    }

    /// A pod that waits has come or changed. What its status says is not a change that could help.
    pub(super) fn put(&mut self, now: Time, name: &Arc<str>, stored: Stored, tree: Tree) {
        let priority = tree["spec"]["priority"].as_i64().unwrap_or(0);
        let rank = (Reverse(priority), stored.meta.created, name.clone());
        let uid = stored.meta.uid;
        let old = self.pods.get(name).filter(|w| w.uid == uid);
        let Some(old) = old else {
            self.remove(name);
            self.queue.insert(rank.clone());
            let waiting = Waiting {
                uid,
                stored,
                tree: Arc::new(tree),
                rank,
                state: State::Queued,
                tries: 0,
                tried: Time::ZERO,
                contended: 0,
                failure: None,
                nominated: None,
            };
            self.pods.insert(name.clone(), waiting);
            return;
        };
        let same = old.stored.meta.generation == stored.meta.generation && old.stored.meta.labels == stored.meta.labels;
        if old.state == State::Queued && old.rank != rank {
            self.queue.remove(&old.rank);
            self.queue.insert(rank.clone());
        }
        if let Some(waiting) = self.pods.get_mut(name) {
            waiting.stored = stored;
            waiting.tree = Arc::new(tree);
            waiting.rank = rank;
        }
        if !same {
            self.soon(now, name);
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Waiting> {
        let waiting = self.pods.remove(name)?;
        self.unplace(name, waiting.state, &waiting.rank);
        Some(waiting)
    }

    fn unplace(&mut self, name: &str, state: State, rank: &Rank) {
        match state {
            State::Queued => {
                self.queue.remove(rank);
            }
            State::Pausing(until) => {
                self.pauses.remove(&(until, name.into()));
            }
            State::Under => {}
        }
    }

    fn place(&mut self, name: &str, state: State) {
        let Some((key, waiting)) = self.pods.get_key_value(name) else { return };
        let (key, old, rank) = (key.clone(), waiting.state, waiting.rank.clone());
        self.unplace(name, old, &rank);
        match state {
            State::Queued => {
                self.queue.insert(rank);
            }
            State::Pausing(until) => {
                self.pauses.insert((until, key));
            }
            State::Under => {}
        }
        if let Some(waiting) = self.pods.get_mut(name) {
            waiting.state = state;
        }
    }

    /// The pod whose turn it is, which now is in a round.
    pub(super) fn next(&mut self, now: Time) -> Option<Arc<str>> {
        while let Some((_, name)) = self.pauses.first().filter(|(until, _)| *until <= now).cloned() {
            self.place(&name, State::Queued);
        }
        let name = self.queue.first()?.2.clone();
        self.place(&name, State::Under);
        Some(name)
    }

    /// Whether somebody's turn has come.
    pub(super) fn is_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Its attempt was without success: the next comes after the back-off.
    pub(super) fn back_off(&mut self, now: Time, name: &str) {
        let Some(waiting) = self.pods.get_mut(name) else { return };
        let pause = (BACK_OFF.0 * (1 << waiting.tries.min(8))).min(BACK_OFF.1);
        waiting.tries += 1;
        waiting.tried = now;
        waiting.contended = 0;
        self.place(name, State::Pausing(now + pause));
    }

    /// Its attempt came to nothing for what will have passed soon.
    pub(super) fn again(&mut self, now: Time, name: &str, pause: Duration) {
        if let Some(waiting) = self.pods.get_mut(name) {
            waiting.tried = now;
        }
        self.place(name, State::Pausing(now + pause));
    }

    /// Something changed that may help this pod.
    pub(super) fn soon(&mut self, now: Time, name: &str) {
        let Some(waiting) = self.pods.get_mut(name) else { return };
        waiting.tries = 0;
        let until = now.max(waiting.tried + BETWEEN);
        if let State::Pausing(old) = waiting.state
            && until < old
        {
            self.place(name, State::Pausing(until));
        }
    }

    /// Something changed that may help those for whom this holds.
    pub(super) fn soon_if(&mut self, now: Time, helps: impl Fn(&Waiting) -> bool) {
        let helped: Vec<Arc<str>> = self.pauses.iter().map(|(_, name)| name.clone()).collect();
        for name in helped {
            if self.pods.get(&name).is_some_and(&helps) {
                self.soon(now, &name);
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.pauses.first().map(|(until, _)| *until)
    }

    pub(super) fn check(&self) {
        let queued = self.pods.values().filter(|w| w.state == State::Queued).count();
        let pausing = self.pods.values().filter(|w| matches!(w.state, State::Pausing(_))).count();
        assert!(
            (queued, pausing) == (self.queue.len(), self.pauses.len()),
            "a pod that waits is in no queue, or in two"
        );
    }
}
