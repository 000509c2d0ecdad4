//! What happened lately, for watches that resume.
//!
//! Each resource keeps its own events, each referring to the record before and after. Both an age and a
//! weight bound them; what goes, goes from the oldest, and the revision up to which something is gone is
//! remembered, so that a watch either misses nothing or is told.

use super::state::{Applied, resource};
use alloc::collections::BTreeMap;
use base::{Revision, Wall};
use bytes::Bytes;
use core::time::Duration;
use imbl::Vector;

/// How much is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// How long an event is kept.
    pub age: Duration,
    /// Bytes of one resource's events.
    pub resource_bytes: u64,
    /// Bytes of all events of the cell.
    pub cell_bytes: u64,
    /// Resources with bounds of their own: (age, bytes).
    pub own: BTreeMap<Bytes, (Duration, u64)>,
}

impl Default for Bounds {
    /// Ten minutes, 32 MiB a resource, 64 MiB a cell.
    fn default() -> Bounds {
        Bounds { age: Duration::from_secs(600), resource_bytes: 32 << 20, cell_bytes: 64 << 20, own: BTreeMap::new() }
    }
}

/// The revision asked for is no longer covered: list again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("watch from {asked}: what happened up to {oldest} is forgotten; list again, and watch from there")]
pub struct Gone {
    /// From where a watch was asked for.
    pub asked: Revision,
    /// The oldest revision a watch can begin from.
    pub oldest: Revision,
}

/// The events of a cell. Cloning takes an immutable snapshot, in time that grows with the number of
/// resources only.
#[derive(Clone, Debug)]
pub struct History {
    bounds: Bounds,
    resources: BTreeMap<Bytes, Resource>,
    /// Events up to here were never kept, of any resource.
    floor: Revision,
    bytes: u64,
}

#[derive(Clone, Debug)]
struct Resource {
    events: Vector<Applied>,
    bytes: u64,
    /// Events up to here are gone.
    floor: Revision,
}

impl History {
    /// A history that begins after `floor`.
    pub fn new(bounds: Bounds, floor: Revision) -> History {
        History { bounds, resources: BTreeMap::new(), floor, bytes: 0 }
    }

    /// The events of `resource` after `from`, in the order of revisions.
    ///
    /// # Errors
    /// [`Gone`] if some of them are no longer kept.
    pub fn since(&self, resource: &[u8], from: Revision) -> Result<impl Iterator<Item = &Applied> + '_, Gone> {
        let kept = self.resources.get(resource);
        let oldest = kept.map_or(self.floor, |k| k.floor.max(self.floor));
        if from < oldest {
            return Err(Gone { asked: from, oldest });
        }
        let events = kept.map(|k| {
            let first = k.events.binary_search_by(|e| e.revision.cmp(&from)).map_or_else(|i| i, |i| i + 1);
            k.events.focus().narrow(first..).into_iter()
        });
        Ok(events.into_iter().flatten())
    }

    /// The oldest revision a watch of `resource` can begin from.
    pub fn oldest(&self, resource: &[u8]) -> Revision {
        self.resources.get(resource).map_or(self.floor, |k| k.floor.max(self.floor))
    }

    /// The newest event of an object, if it is still kept.
    pub fn last(&self, key: &[u8]) -> Option<&Applied> {
        self.resources.get(resource(key))?.events.iter().rev().find(|e| e.key == key)
    }

    /// Bytes of all events.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds an event, of a revision above all before it, and drops what is beyond its resource's bounds
    /// and the cell's.
    pub(crate) fn push(&mut self, event: Applied) {
        let name = resource(&event.key);
        let wall = event.revision.wall();
        let weight = weight(&event);
        self.bytes += weight;
        if !self.resources.contains_key(name) {
            let new = Resource { events: Vector::new(), bytes: 0, floor: self.floor };
            self.resources.insert(Bytes::copy_from_slice(name), new);
        }
        let (age, most) = match self.bounds.own.get(name) {
            Some(own) => *own,
            None => (self.bounds.age, self.bounds.resource_bytes),
        };
        if let Some(kept) = self.resources.get_mut(name) {
            kept.events.push_back(event);
            kept.bytes += weight;
            self.bytes -= kept.drop_while(|k, e| k.bytes > most || e.revision.wall() + age < wall);
        }
        while self.bytes > self.bounds.cell_bytes {
            let Some(heaviest) = self.resources.values_mut().max_by_key(|k| k.bytes) else { break };
            let mut first = true;
            let dropped = heaviest.drop_while(|_, _| core::mem::take(&mut first));
            if dropped == 0 {
                break;
            }
            self.bytes -= dropped;
        }
    }

    /// Drops what has grown too old at `wall`; for resources in which nothing happens any more. Called now
    /// and then.
    pub(crate) fn expire(&mut self, wall: Wall) {
        for (name, kept) in &mut self.resources {
            let age = self.bounds.own.get(name).map_or(self.bounds.age, |o| o.0);
            self.bytes -= kept.drop_while(|_, e| e.revision.wall() + age < wall);
        }
    }

    /// When the oldest event of all has grown too old; `None` if there is none.
    pub(crate) fn expires(&self) -> Option<Wall> {
        let oldest = self.resources.iter().filter_map(|(name, kept)| {
            let age = self.bounds.own.get(name).map_or(self.bounds.age, |o| o.0);
            // Still kept at its very age.
            Some(kept.events.front()?.revision.wall() + age + Duration::from_millis(1))
        });
        oldest.min()
    }

    pub(crate) fn resource_floors(&self) -> impl Iterator<Item = (&Bytes, Revision)> {
        self.resources.iter().map(|(name, k)| (name, k.floor))
    }

    pub(crate) fn floor(&self) -> Revision {
        self.floor
    }

    /// As a snapshot has it: the events of `name` that follow are those after `floor`.
    pub(crate) fn begin_resource(&mut self, name: Bytes, floor: Revision) {
        self.resources.entry(name).or_insert_with(|| Resource { events: Vector::new(), bytes: 0, floor });
    }

    /// All events, resource by resource, each in order.
    pub(crate) fn resources(&self) -> impl Iterator<Item = &Vector<Applied>> {
        self.resources.values().map(|k| &k.events)
    }
}

impl Resource {
    /// Drops from the oldest while `too_much`; the bytes dropped.
    fn drop_while(&mut self, mut too_much: impl FnMut(&Resource, &Applied) -> bool) -> u64 {
        let before = self.bytes;
        while let Some(oldest) = self.events.front() {
            if !too_much(self, oldest) {
                break;
            }
            self.floor = oldest.revision;
            self.bytes -= weight(oldest);
            self.events.pop_front();
        }
        before - self.bytes
    }
}

/// What an event keeps alive: its record, and as much again for the bookkeeping of a small one.
fn weight(e: &Applied) -> u64 {
    let after = match &e.after {
        super::state::After::Put(r) | super::state::After::Deleted(r) => r.len(),
    };
    (e.key.len() + after + 128) as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::state::{After, Record};
    use super::*;
    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use base::{Clock, Origin};
    use proptest::prelude::*;

    fn at(ms: u64) -> Revision {
        Clock::new(Origin::mainline(1), Revision::ZERO).mint(Wall(ms))
    }

    fn event(key: &str, revision: Revision, bytes: usize) -> Applied {
        let value = Bytes::from(alloc::vec![0; bytes]);
        let record = Record { revision, created: revision, meta: Bytes::new(), value };
        let key = Bytes::copy_from_slice(key.as_bytes());
        Applied { key, revision, before: None, after: After::Put(Arc::new(record)) }
    }

    fn revisions(h: &History, resource: &str, from: Revision) -> Result<Vec<Revision>, Gone> {
        Ok(h.since(resource.as_bytes(), from)?.map(|e| e.revision).collect())
    }

    #[test]
    fn a_watch_resumes_after_its_revision_or_is_told_what_is_gone() {
        let bounds = Bounds { age: Duration::from_secs(10), ..Bounds::default() };
        let mut h = History::new(bounds, at(500));
        h.push(event("pods\0a", at(1_000), 1));
        h.push(event("pods\0b", at(2_000), 1));
        assert_eq!(revisions(&h, "pods", at(500)), Ok(alloc::vec![at(1_000), at(2_000)]));
        assert_eq!(revisions(&h, "pods", at(1_500)), Ok(alloc::vec![at(2_000)]));
        assert_eq!(revisions(&h, "pods", at(2_000)), Ok(alloc::vec![]));
        assert_eq!(revisions(&h, "jobs", at(499)), Err(Gone { asked: at(499), oldest: at(500) }));
        h.push(event("pods\0c", at(11_500), 1));
        assert_eq!(revisions(&h, "pods", at(999)), Err(Gone { asked: at(999), oldest: at(1_000) }));
        assert_eq!(revisions(&h, "pods", at(1_000)), Ok(alloc::vec![at(2_000), at(11_500)]));
        assert_eq!(h.last(b"pods\0b").map(|e| e.revision), Some(at(2_000)));
        assert_eq!(h.expires(), Some(Wall(12_001)));
        h.expire(Wall(12_001));
        assert_eq!(revisions(&h, "pods", at(2_000)), Ok(alloc::vec![at(11_500)]));
        assert_eq!(h.last(b"pods\0b"), None);
        h.expire(Wall(60_000));
        assert_eq!(h.expires(), None);
        assert_eq!((h.oldest(b"pods"), h.bytes()), (at(11_500), 0));
    }

    #[test]
    fn a_resource_with_bounds_of_its_own_does_not_push_out_the_others() {
        let own = [(Bytes::from_static(b"events"), (Duration::from_secs(600), 1_000))];
        let mut h = History::new(Bounds { own: own.into(), ..Bounds::default() }, Revision::ZERO);
        h.push(event("pods\0a", at(1), 100));
        for n in 2..100 {
            h.push(event("events\0e", at(n), 100));
        }
        assert!(h.oldest(b"events") > at(90));
        assert_eq!(revisions(&h, "pods", Revision::ZERO).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn bytes_are_bounded_and_nothing_kept_has_a_hole(
            steps in proptest::collection::vec((0u8..3, 0usize..400, 0u64..2_000), 1..200),
        ) {
            let bounds = Bounds {
                age: Duration::from_secs(20), resource_bytes: 3_000, cell_bytes: 5_000, own: BTreeMap::new(),
            };
            let mut h = History::new(bounds, Revision::ZERO);
            let mut clock = Clock::new(Origin::mainline(1), Revision::ZERO);
            let (mut wall, mut all) = (1_000, Vec::new());
            for (which, size, pause) in steps {
                wall += pause;
                let revision = clock.mint(Wall(wall));
                let name = ["a", "b", "c"][usize::from(which)];
                h.push(event(name, revision, size));
                all.push((name, revision));
                prop_assert!(h.bytes() <= 5_000);
                for name in ["a", "b", "c"] {
                    let oldest = h.oldest(name.as_bytes());
                    let want: Vec<_> = all.iter().filter(|e| e.0 == name && e.1 > oldest).map(|e| e.1).collect();
                    prop_assert_eq!(revisions(&h, name, oldest), Ok(want));
                }
            }
        }
    }
}
