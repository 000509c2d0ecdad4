//! One stream of a resource's changes from a cell, fanned out to the watchers at this gateway.
//!
//! The cell says each change once, however many watch. A watcher's own selection is applied here, on the
//! thread that stepped the cell, and its buffer is bounded: one that does not keep up is ended, and its
//! client resumes from the last revision it saw.

use api::port::{Event, Refusal, WATCH_BUFFER};
use base::Revision;
use node::cell::Change;
use objects::kinds::Kind;
use objects::read::{EventType, WatchPlan};
use std::sync::Arc;
use tokio::sync::mpsc;

/// A watcher at this gateway.
pub(crate) struct Watcher {
    kind: &'static Kind,
    plan: WatchPlan,
    events: mpsc::Sender<Event>,
}

impl Watcher {
    /// A watcher and where its events come out, with room for `backlog` besides the usual.
    pub(crate) fn new(kind: &'static Kind, plan: WatchPlan, backlog: usize) -> (Watcher, mpsc::Receiver<Event>) {
        let (events, out) = mpsc::channel(backlog + WATCH_BUFFER);
        (Watcher { kind, plan, events }, out)
    }

    /// Hands it a change if it is meant. `false`: it is gone or too slow, and is to be dropped.
    pub(crate) fn tell(&self, change: &Change) -> bool {
        self.tell_in(&self.plan.namespace, change)
    }

    /// The same of a change in this namespace, for a watcher of all of them.
    pub(crate) fn tell_in(&self, namespace: &str, change: &Change) -> bool {
        let (before, after) = (change.before.as_ref(), change.after.as_ref());
        let Some(what) = self.plan.event_in(namespace, &change.key.name, before, after) else {
            return !self.events.is_closed();
        };
        let object = self.plan.object(self.kind, what, change.revision, before, after);
        let event = match what {
            EventType::Added => Event::Added(object),
            EventType::Deleted => Event::Deleted(object),
            _ => Event::Modified(object),
        };
        self.events.try_send(event).is_ok()
    }

    /// Says why it cannot go on, where there is room for that.
    pub(crate) fn end(&self, status: Refusal) {
        let _ = self.events.try_send(Event::Error(status));
    }

    /// Tells it up to where it has seen everything. `false` as for [`Watcher::tell`].
    pub(crate) fn mark(&self, revision: Revision) -> bool {
        if self.plan.bookmarks {
            self.events.try_send(Event::Bookmark(revision)).is_ok()
        } else {
            !self.events.is_closed()
        }
    }
}

/// The watchers of one resource of one cell.
#[derive(Default)]
pub(crate) struct Fanout {
    watchers: Vec<Watcher>,
    serial: u64,
}

impl Fanout {
    /// A watcher joins; it has been told everything before.
    pub(crate) fn join(&mut self, watcher: Watcher, serial: u64) {
        self.watchers.push(watcher);
        self.serial = self.serial.max(serial);
    }

    /// Whatever was opened up to this serial is given up with these watchers.
    pub(crate) fn rests_on(&mut self, serial: u64) {
        self.serial = self.serial.max(serial);
    }

    /// The last watch that joined, by the cell's count.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Hands changes to all.
    pub(crate) fn tell(&mut self, changes: &Arc<[Change]>) {
        self.watchers.retain(|w| changes.iter().all(|c| w.tell(c)));
    }

    /// Marks a revision for all who want bookmarks, and forgets those who are gone.
    pub(crate) fn mark(&mut self, revision: Revision) {
        self.watchers.retain(|w| w.mark(revision));
    }

    /// Whether nobody is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// How many watch.
    pub(crate) fn len(&self) -> usize {
        self.watchers.len()
    }
}
