//! One thread that wakes machines at their deadlines.

use base::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// The deadlines of all machines, by a key that names one.
pub(crate) struct Timers<K> {
    state: Mutex<State<K>>,
    changed: Condvar,
}

struct State<K> {
    by_time: BTreeSet<(Time, K)>,
    by_key: BTreeMap<K, Time>,
    stopped: bool,
}

impl<K: Ord + Copy + Send + 'static> Timers<K> {
    /// No deadlines.
    pub(crate) fn new() -> Arc<Timers<K>> {
        let state = State { by_time: BTreeSet::new(), by_key: BTreeMap::new(), stopped: false };
        Arc::new(Timers { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Sets, moves or clears a machine's deadline.
    pub(crate) fn set(&self, key: K, deadline: Option<Time>) {
        let mut s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = s.by_key.remove(&key) {
            s.by_time.remove(&(old, key));
        }
        let Some(at) = deadline.filter(|t| *t != Time::NEVER) else { return };
        s.by_key.insert(key, at);
        s.by_time.insert((at, key));
        if s.by_time.first() == Some(&(at, key)) {
            self.changed.notify_one();
        }
    }

    /// Ends [`Timers::run`].
    pub(crate) fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.changed.notify_all();
    }

    /// Calls `wake` for each machine whose deadline has come, until stopped. The deadline is cleared
    /// first: the machine sets its next one when it is stepped.
    pub(crate) fn run(&self, now: impl Fn() -> Time, wake: impl Fn(K)) {
        let mut s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !s.stopped {
            let Some(&(at, key)) = s.by_time.first() else {
                s = self.changed.wait(s).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let present = now();
            if at > present {
                s = self.changed.wait_timeout(s, at.since(present)).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            s.by_time.remove(&(at, key));
            s.by_key.remove(&key);
            drop(s);
            wake(key);
            s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn machines_are_woken_in_the_order_of_their_deadlines_and_a_moved_one_only_once() {
        let timers = Timers::new();
        let (tx, rx) = mpsc::channel();
        timers.set('c', Some(Time(30)));
        timers.set('a', Some(Time(90)));
        timers.set('b', Some(Time(20)));
        timers.set('a', Some(Time(10)));
        timers.set('d', Some(Time(5)));
        timers.set('d', None);
        let t = timers.clone();
        let thread = std::thread::spawn(move || t.run(|| Time(100), |k| tx.send(k).unwrap()));
        let woken: Vec<char> = rx.iter().take(3).collect();
        assert_eq!(woken, ['a', 'b', 'c']);
        timers.stop();
        thread.join().unwrap();
        assert!(rx.try_recv().is_err());
    }
}
