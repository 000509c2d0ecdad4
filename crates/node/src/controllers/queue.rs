//! What is to be looked at: each key once, one run of a key at a time, after a pause that doubles with
//! every failure (client-go's rate-limited work queue).

use super::Controller;
use base::{Revision, Time};
use objects::request::Key;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// A key of a controller.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Work {
    /// Whose.
    pub controller: Controller,
    /// Which object.
    pub key: Key,
}

/// The first pause after a failure, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1000));

#[derive(Default)]
struct Entry {
    /// It waits in `ready`.
    queued: bool,
    /// It is being run.
    running: bool,
    /// What was seen of it during its run.
    meanwhile: Meanwhile,
    /// How many runs have failed one after the other.
    failures: u32,
    /// When it is to be run again.
    at: Option<Time>,
}

/// At most so many changes during one run are told apart.
const CHANGES_MAX: usize = 1024;

/// Why a key is to be run again once its run has ended.
#[derive(Default)]
struct Meanwhile {
    /// Changes that may be the run's own.
    changes: BTreeSet<Revision>,
    /// Something that is not.
    other: bool,
}

impl Meanwhile {
    fn add(&mut self, cause: Option<Revision>) {
        match cause {
            Some(revision) if self.changes.len() < CHANGES_MAX => drop(self.changes.insert(revision)),
            _ => self.other = true,
        }
    }

    fn is_empty(&self) -> bool {
        !self.other && self.changes.is_empty()
    }

    /// Whether there is more than the run's own writes.
    fn is_more_than(&self, own: &BTreeSet<Revision>) -> bool {
        self.other || !self.changes.is_subset(own)
    }
}

/// The queue.
#[derive(Default)]
pub(super) struct Queue {
    entries: BTreeMap<Work, Entry>,
    ready: VecDeque<Work>,
    timers: BTreeSet<(Time, Work)>,
}

impl Queue {
    /// Look at this as soon as it can be, because of a change or of something else.
    pub(super) fn add(&mut self, work: Work, cause: Option<Revision>) {
        let e = self.entries.entry(work.clone()).or_default();
        if e.running {
            e.meanwhile.add(cause);
        } else if !e.queued {
            e.queued = true;
            self.ready.push_back(work);
        }
    }

    /// Look at this at a moment, or earlier if that was said before.
    pub(super) fn add_at(&mut self, work: Work, at: Time) {
        let e = self.entries.entry(work.clone()).or_default();
        if e.at.is_some_and(|t| t <= at) {
            return;
        }
        if let Some(later) = e.at.replace(at) {
            self.timers.remove(&(later, work.clone()));
        }
        self.timers.insert((at, work));
    }

    /// The next to be run. It runs until [`Queue::done`].
    pub(super) fn pop(&mut self) -> Option<Work> {
        let work = self.ready.pop_front()?;
        if let Some(e) = self.entries.get_mut(&work) {
            e.queued = false;
            e.running = true;
        }
        Some(work)
    }

    /// A run has ended well: the next failure is the first again.
    pub(super) fn done(&mut self, work: &Work) {
        self.end(work, None);
    }

    /// A run has failed: it is run again after a pause, or at once if something changed during it but what it
    /// wrote itself.
    pub(super) fn failed(&mut self, work: &Work, now: Time, own: &BTreeSet<Revision>) {
        self.end(work, Some((now, own)));
    }

    fn end(&mut self, work: &Work, failed: Option<(Time, &BTreeSet<Revision>)>) {
        let Some(e) = self.entries.get_mut(work) else { return };
        e.running = false;
        let meanwhile = std::mem::take(&mut e.meanwhile);
        match failed {
            Some((now, own)) => {
                let pause = PAUSE.0.saturating_mul(1 << e.failures.min(20)).min(PAUSE.1);
                e.failures = e.failures.saturating_add(1);
                if meanwhile.is_more_than(own) {
                    e.queued = true;
                    self.ready.push_back(work.clone());
                } else {
                    self.add_at(work.clone(), now + pause);
                }
            }
            None => {
                e.failures = 0;
                if !meanwhile.is_empty() {
                    e.queued = true;
                    self.ready.push_back(work.clone());
                } else if e.at.is_none() {
                    self.entries.remove(work);
                }
            }
        }
    }

    /// Moves what is due to what is ready.
    pub(super) fn tick(&mut self, now: Time) {
        while let Some((at, _)) = self.timers.first()
            && *at <= now
            && let Some((_, work)) = self.timers.pop_first()
        {
            if let Some(e) = self.entries.get_mut(&work) {
                e.at = None;
            }
            self.add(work, None);
        }
    }

    /// Whether something can be run.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the next thing is due.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Forgets everything but what is being run.
    pub(super) fn clear(&mut self) {
        self.ready.clear();
        self.timers.clear();
        self.entries.retain(|_, e| {
            *e = Entry { running: e.running, ..Entry::default() };
            e.running
        });
    }

    pub(super) fn check(&self) {
        for work in &self.ready {
            assert!(self.entries.get(work).is_some_and(|e| e.queued && !e.running), "{work:?} is queued and not known");
        }
        assert!(self.ready.len() <= self.entries.len(), "something is queued twice");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(name: &str) -> Work {
        Work { controller: Controller::Garbage, key: Key { storage: "ConfigMap".into(), name: name.into() } }
    }

    #[test]
    fn a_key_is_run_once_at_a_time_and_once_more_if_it_changed_meanwhile() {
        let mut q = Queue::default();
        q.add(work("a"), None);
        q.add(work("a"), None);
        assert_eq!((q.pop(), q.pop()), (Some(work("a")), None));
        q.add(work("a"), None);
        q.check();
        assert_eq!(q.pop(), None);
        q.done(&work("a"));
        assert_eq!((q.pop(), q.pop()), (Some(work("a")), None));
    }

    #[test]
    fn a_failed_run_waits_unless_something_but_its_own_writes_happened_meanwhile() {
        let revision = |n: u64| Revision::from_u64(n).unwrap_or_default();
        let own = BTreeSet::from([revision(5), revision(7)]);
        for (causes, waits) in [
            (vec![], true),
            (vec![Some(5), Some(7)], true),
            (vec![Some(5), Some(6)], false),
            (vec![Some(8)], false),
            (vec![None], false),
        ] {
            let mut q = Queue::default();
            q.add(work("a"), None);
            q.pop();
            for cause in &causes {
                q.add(work("a"), cause.map(revision));
            }
            q.failed(&work("a"), Time::ZERO, &own);
            q.check();
            assert_eq!((q.is_ready(), q.next_deadline().is_some()), (!waits, waits), "{causes:?}");
        }
    }

    #[test]
    fn pauses_double_from_5_ms_to_1000_s_and_begin_anew_after_a_success() {
        let mut q = Queue::default();
        for n in 0..30u32 {
            q.add(work("a"), None);
            q.pop();
            q.failed(&work("a"), Time::ZERO, &BTreeSet::new());
            let at = q.next_deadline().unwrap_or_default();
            assert_eq!(at.since(Time::ZERO), PAUSE.0.saturating_mul(1 << n.min(20)).min(PAUSE.1));
            q.tick(at);
        }
        q.pop();
        q.done(&work("a"));
        q.add(work("a"), None);
        q.pop();
        q.failed(&work("a"), Time::ZERO, &BTreeSet::new());
        assert_eq!(q.next_deadline(), Some(Time::from_ms(5)));
    }
}
