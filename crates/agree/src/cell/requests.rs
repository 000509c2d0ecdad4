//! Which requests a cell has carried out lately, so that a retry is answered and not done again.
//!
//! The table is the same on each replica: it is filled by entries as they are applied and emptied by
//! their revisions' times, never by a local clock. It travels in checkpoints and snapshots.

use super::commit::RequestStamp;
use crate::codec::{DecodeError, Reader, Writer};
use crate::raft::message::revision;
use alloc::sync::Arc;
use alloc::vec::Vec;
use base::{RequestId, Revision, Wall};
use bytes::Bytes;
use core::time::Duration;
use imbl::{OrdMap, Vector};

/// How long a request is remembered.
pub const MEMORY: Duration = Duration::from_secs(60);
/// How many are remembered at most.
pub const MOST: usize = 1 << 18;
/// How far the calendars of a gateway and a leader may lie apart (section 5.3 of the architecture).
pub const DRIFT: Duration = Duration::from_millis(500);

/// What a request did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    /// The objects it changed, in the order of the commit.
    pub keys: Vec<Bytes>,
    /// The greatest revision it was given.
    pub revision: Revision,
}

/// What the table knows of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen<'a> {
    /// It was carried out.
    Done(&'a Done),
    /// It was not carried out by any entry applied so far.
    Fresh,
    /// It was first sent before the table begins: whether it was carried out is not known. Never execute
    /// it; the outcome is unknown.
    TooOld,
}

/// The requests carried out lately. Cloning takes an immutable snapshot, in constant time.
#[derive(Clone, Default, Debug)]
pub struct Requests {
    done: OrdMap<RequestId, Arc<Done>>,
    order: Vector<RequestId>,
    /// Everything carried out after this is in the table.
    reach: Wall,
}

impl Requests {
    /// What is known of a request.
    pub fn look(&self, stamp: &RequestStamp) -> Seen<'_> {
        match self.done.get(&stamp.id) {
            Some(done) => Seen::Done(done),
            None if stamp.first_sent <= self.reach + DRIFT && self.reach > Wall(0) => Seen::TooOld,
            None => Seen::Fresh,
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.done.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    /// Remembers a request that an entry carried out, and forgets what its time makes too old.
    pub(crate) fn insert(&mut self, id: RequestId, keys: Vec<Bytes>, revision: Revision) {
        if self.done.insert(id, Arc::new(Done { keys, revision })).is_none() {
            self.order.push_back(id);
        }
        self.forget_before(revision);
    }

    /// Forgets what is too old once the log has come to `revision`.
    pub(crate) fn forget_before(&mut self, revision: Revision) {
        let horizon = revision.wall() - MEMORY;
        while let Some(oldest) = self.order.front() {
            let at = self.done.get(oldest).map_or(Wall(0), |d| d.revision.wall());
            if at > horizon && self.order.len() <= MOST {
                break;
            }
            self.reach = self.reach.max(at);
            self.done.remove(oldest);
            self.order.pop_front();
        }
        self.reach = self.reach.max(horizon);
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.u64(self.reach.0).count(self.order.len());
        for (id, done) in self.iter() {
            write_one(w, id, done);
        }
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Requests, DecodeError> {
        let mut out = Requests { reach: Wall(r.u64()?), ..Requests::default() };
        for _ in 0..r.count(28)? {
            let (id, done) = read_one(r)?;
            out.push(id, done);
        }
        Ok(out)
    }

    pub(crate) fn reach(&self) -> Wall {
        self.reach
    }

    pub(crate) fn with_reach(reach: Wall) -> Requests {
        Requests { reach, ..Requests::default() }
    }

    /// Up to `most` of them from the `from`th on, oldest first.
    pub(crate) fn some(&self, from: usize, most: usize) -> impl Iterator<Item = (RequestId, &Done)> {
        let to = (from + most).min(self.order.len());
        let ids = self.order.focus().narrow(from.min(to)..to).into_iter();
        ids.filter_map(|id| Some((*id, &**self.done.get(id)?)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (RequestId, &Done)> {
        self.order.iter().filter_map(|id| Some((*id, &**self.done.get(id)?)))
    }

    pub(crate) fn push(&mut self, id: RequestId, done: Done) {
        if self.done.insert(id, Arc::new(done)).is_none() {
            self.order.push_back(id);
        }
    }
}

pub(crate) fn write_one(w: &mut Writer, id: RequestId, done: &Done) {
    w.u128(id.0).u64(done.revision.get()).count(done.keys.len());
    done.keys.iter().for_each(|k| {
        w.bytes(k);
    });
}

pub(crate) fn read_one(r: &mut Reader<'_>) -> Result<(RequestId, Done), DecodeError> {
    let id = RequestId(r.u128()?);
    let revision = revision(r)?;
    let keys = (0..r.count(4)?).map(|_| r.bytes()).collect::<Result<_, _>>()?;
    Ok((id, Done { keys, revision }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Clock, Origin};

    fn at(ms: u64) -> Revision {
        Clock::new(Origin::mainline(1), Revision::ZERO).mint(Wall(ms))
    }

    fn stamp(id: u128, ms: u64) -> RequestStamp {
        RequestStamp { id: RequestId(id), first_sent: Wall(ms) }
    }

    #[test]
    fn a_request_is_known_for_a_minute_and_then_too_old_never_fresh() {
        let mut t = Requests::default();
        assert_eq!(t.look(&stamp(1, 5)), Seen::Fresh);
        t.insert(RequestId(1), alloc::vec![Bytes::from_static(b"k")], at(100_000));
        assert!(matches!(t.look(&stamp(1, 99_000)), Seen::Done(d) if d.keys == [Bytes::from_static(b"k")]));
        t.insert(RequestId(2), Vec::new(), at(160_001));
        assert_eq!(t.look(&stamp(1, 99_000)), Seen::TooOld);
        assert_eq!(t.look(&stamp(3, 100_400)), Seen::TooOld, "it may have been carried out by a clock that drifts");
        assert_eq!(t.look(&stamp(3, 160_000)), Seen::Fresh);
    }

    #[test]
    fn a_full_table_forgets_the_oldest_and_says_so() {
        let mut t = Requests::default();
        for n in 0..=MOST as u64 {
            t.insert(RequestId(u128::from(n)), Vec::new(), at(1_000_000 + n / 100));
        }
        assert_eq!(t.len(), MOST);
        assert_eq!(t.look(&stamp(0, 1_000_000)), Seen::TooOld);
    }

    #[test]
    fn a_table_reads_back_as_it_was_written() {
        let mut t = Requests::default();
        for n in 1..5 {
            t.insert(RequestId(n), alloc::vec![Bytes::from_static(b"k"); n as usize], at(200_000 + n as u64));
        }
        let mut w = Writer::default();
        t.write(&mut w);
        let bytes = w.finish();
        let mut r = Reader::new("requests", &bytes);
        let back = Requests::read(&mut r);
        assert!(r.end().is_ok());
        assert!(back.is_ok_and(|b| b.iter().eq(t.iter()) && b.reach() == t.reach()));
    }
}
