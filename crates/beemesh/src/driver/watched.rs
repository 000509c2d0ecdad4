//! Who watches what of which cell at this gateway, and the way from the cell to them.
//!
//! A cell that is led here tells its watchers itself, in the order of its effects. One that is led elsewhere tells them
//! through [`super::away`]. The two are kept apart: while the lead moves, both tell.

use super::fanout::{Fanout, Watcher};
use super::seat::Seat;
use super::{Driver, across, lock, read};
use api::port::Event;
use base::{CellId, Revision};
use node::cell::{Cell, Input, Opened};
use node::wire::watch::ToCell;
use std::collections::{HashMap, hash_map::Entry};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// A resource of a cell, and whether it is told from elsewhere.
type Key = (CellId, Arc<str>, bool);

/// The watchers of one cell and resource each.
#[derive(Default)]
pub(super) struct Watched(Mutex<HashMap<Key, Fanout>>);

impl Watched {
    fn len(&self) -> usize {
        lock(&self.0).values().map(Fanout::len).sum()
    }

    /// Opens the way from a cell to a watcher.
    fn join(&self, cell: CellId, away: bool, opened: &mut Opened) -> mpsc::Receiver<Event> {
        let backlog = std::mem::take(&mut opened.backlog);
        let (watcher, events) = Watcher::new(opened.kind, opened.plan.clone(), backlog.len());
        if backlog.iter().all(|c| watcher.tell(c)) {
            let key = (cell, Arc::from(opened.kind.storage), away);
            lock(&self.0).entry(key).or_default().join(watcher, opened.serial);
        }
        events
    }

    /// Tells a resource's watchers. The last serial, if there are none any more.
    fn tell(&self, key: Key, tell: impl FnOnce(&mut Fanout)) -> Option<u64> {
        let mut all = lock(&self.0);
        let Entry::Occupied(mut fanout) = all.entry(key) else { return None };
        tell(fanout.get_mut());
        fanout.get().is_empty().then(|| fanout.remove().serial())
    }

    /// Ends all watchers of a cell that are told from there, or from here.
    pub(super) fn end(&self, cell: CellId, away: bool) {
        lock(&self.0).retain(|key, _| key.0 != cell || key.2 != away);
    }
}

impl Driver {
    /// How many watch, by cell and resource.
    pub(crate) fn watchers(&self) -> usize {
        self.watched.len() + self.joined.len()
    }

    /// Opens the way from a cell kept here to a watcher, in the order of the cell's effects.
    pub(super) fn join(&self, cell: CellId, opened: &mut Opened) -> mpsc::Receiver<Event> {
        self.watched.join(cell, false, opened)
    }

    /// The same of a cell that is led elsewhere, in the order in which it is heard.
    pub(super) fn join_away(&self, cell: CellId, opened: &mut Opened) -> mpsc::Receiver<Event> {
        self.watched.join(cell, true, opened)
    }

    /// Has every resource that is watched say up to where it was told, for bookmarks.
    pub(crate) fn mark(self: &Arc<Self>) {
        let watched: Vec<Key> = lock(&self.watched.0).keys().cloned().collect();
        for (cell, storage, away) in watched {
            if away {
                self.tell_away(cell, ToCell::Progress { storage });
            } else if let Some(seat) = self.cell(cell) {
                seat.post(Input::Progress(storage));
            }
        }
        self.joined.post(across::Told::Mark);
    }

    /// Tells a resource's watchers, and the cell if there are none any more.
    pub(super) fn fan_out(&self, seat: &Arc<Seat<Cell>>, storage: Arc<str>, tell: impl FnOnce(&mut Fanout)) {
        if let Some(serial) = self.watched.tell((seat.id(), storage.clone(), false), tell) {
            self.unsubscribe(seat, storage, serial);
        }
    }

    /// The same of a cell that is led elsewhere.
    pub(super) fn fan_out_away(self: &Arc<Self>, cell: CellId, storage: &Arc<str>, tell: impl FnOnce(&mut Fanout)) {
        let last = self.watched.tell((cell, storage.clone(), true), tell);
        if let Some(serial) = last.filter(|_| !self.joined.wants(cell, storage)) {
            self.tell_away(cell, ToCell::Unsubscribe { storage: storage.clone(), serial });
        }
    }

    /// Whether anything here rests on what a cell elsewhere tells.
    pub(super) fn listens(&self, cell: CellId) -> bool {
        !self.leads(cell) && self.joined.is_about(cell) || lock(&self.watched.0).keys().any(|k| k.0 == cell && k.2)
    }

    /// A cell elsewhere is heard no more: whoever watches resumes.
    pub(super) fn heard_last(&self, cell: CellId) {
        self.watched.end(cell, true);
        if !self.tells_joined(cell) {
            self.joined.post(across::Told::Lost { cell });
        }
    }

    /// Whether what the replica here tells is what the machine that joins the cells goes by: it leads, or nobody else is
    /// known that could.
    pub(super) fn tells_joined(&self, cell: CellId) -> bool {
        self.leads(cell) || self.cell(cell).is_some() && self.away().is_none_or(|away| away.is_alone_with(cell))
    }

    /// The machine that joins the cells wants no more of a resource of a cell that is led elsewhere. Others may: their
    /// last one says so then, with a serial that counts.
    pub(super) fn leave_away(self: &Arc<Self>, cell: CellId, storage: Arc<str>, serial: u64) {
        if let Some(fanout) = lock(&self.watched.0).get_mut(&(cell, storage.clone(), true)) {
            return fanout.rests_on(serial);
        }
        self.tell_away(cell, ToCell::Unsubscribe { storage, serial });
    }

    /// Whether the machine that joins the cells has had the list of a bundle, or of a newer one.
    pub(super) fn has_listed(&self, bundle: Revision) -> bool {
        self.listed.load(Ordering::Acquire) >= bundle.get()
    }

    /// Whether a cell is led here.
    pub(crate) fn leads(&self, cell: CellId) -> bool {
        read(&self.led).contains(&cell)
    }

    /// Has a cell tell no more of a resource, unless somebody else wants it of this replica.
    pub(super) fn unsubscribe(&self, seat: &Arc<Seat<Cell>>, storage: Arc<str>, serial: u64) {
        let key = (seat.id(), storage, false);
        let wanted = lock(&self.watched.0).contains_key(&key)
            || self.joined.wants(key.0, &key.1)
            || self.tellers.wants(key.0, &key.1);
        if !wanted {
            seat.post(Input::Unsubscribe { storage: key.1, serial });
        }
    }
}
