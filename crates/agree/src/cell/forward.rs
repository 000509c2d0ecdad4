//! Rewriting forward: what recovery rests on in an old segment of the log is written again, and the segment
//! goes.
//!
//! # What recovery needs
//!
//! Recovery begins at K, the checkpoint that stands last in the log. The objects as they were at K are made of
//! facts: the entries up to K's index that took effect, and what was carried; of each key the newest that is not
//! newer than K. Then the entries after K are applied, each judged by its preconditions as it was the first time.
//! So at any moment the log must hold
//!
//! 1. K, the newest hard state, the greatest bound, and every entry of Raft's log after K;
//! 2. of each object that was there at K, the record it had at K, also if it was changed or deleted since: the
//!    entry that did so is judged by it;
//! 3. behind the last record of each object that is gone, a word that it is gone: the entry that deleted it, or a
//!    mark. Segments go oldest first, so a word outlives all that it speaks of.
//!
//! # What is written
//!
//! What is carried is judged by the objects at K, of which a snapshot is kept ([`Under`]), and not by the present
//! ones. An object that is gone since K is carried with a mark behind it (its deletion may stand before); one that
//! an entry not applied yet deletes gets its mark when that entry is applied ([`Cell::apply`]), and after a restart
//! every deletion that is applied again gets one.
//!
//! A checkpoint holds every request of the last minute, so it is written for a segment at most once, and only if
//! the segment holds K or an entry after K; the entries not applied yet follow it. Then K and all after it
//! stand behind the segment. In a busy cell K is far from the oldest segment, and nothing but objects is
//! written: the log shrinks by what is dead. Hard state and bound, a few bytes, are written when the records asked
//! about hold any.
//!
//! A member that has stopped before an entry it cannot read writes forward like any other: the entry is one that
//! is not applied yet.

use super::commit::Commit;
use super::state::State;
use super::store::{Carried, Cell};
use crate::log::Record;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use base::Revision;
use bytes::Bytes;

/// What recovery would begin from: the newest checkpoint handed out to be logged.
#[derive(Debug, Default)]
pub(super) struct Under {
    /// The last entry it covers.
    pub(super) index: u64,
    /// The objects there were. Holds at most what was live then.
    pub(super) state: State,
    /// The length of its body; 0 if not known.
    pub(super) bytes: u64,
}

impl Cell {
    /// Whether these records hold the newest checkpoint, or an entry after it.
    pub(super) fn rests_on(&self, segment: &[Record]) -> bool {
        let (cell, replica) = (self.config.cell, Some(self.config.replica));
        segment.iter().filter(|r| r.cell() == cell && r.replica() == replica).any(|record| match record {
            Record::Checkpoint { applied_index, .. } => *applied_index >= self.under.index,
            Record::Entry { index, .. } => *index > self.under.index,
            _ => false,
        })
    }

    /// The objects as the newest checkpoint has them whose records are among these, to be written behind it;
    /// `last_index` is the last of the replica's log.
    pub(super) fn carry(&mut self, segment: &[Record], last_index: u64) -> Vec<Record> {
        let cell = self.config.cell;
        let mut carried = BTreeSet::new();
        let mut out = Vec::new();
        let mut consider = |key: &Bytes, revision: Revision| {
            let Some(record) = self.under.state.get(key).filter(|r| r.revision == revision) else { return };
            if !carried.insert(key.clone()) {
                return;
            }
            let object = Carried::Object { key: key.clone(), record: record.clone() };
            out.push(Record::Carried { cell, record: object.encode() });
            if self.state.get(key).is_none() {
                let gone = Carried::Deleted { key: key.clone(), revision: self.state.revision() };
                out.push(Record::Carried { cell, record: gone.encode() });
            }
        };
        for record in segment.iter().filter(|r| r.cell() == cell) {
            match record {
                Record::Entry { index, payload, .. } if *index <= self.under.index => {
                    // What cannot be read was never applied.
                    let commit = Commit::decode(payload).unwrap_or_default();
                    commit.changes.iter().for_each(|c| consider(&c.key, c.revision));
                }
                Record::Carried { record, .. } => match Carried::decode(record) {
                    Ok(Carried::Object { key, record } | Carried::Staged { key, record, .. }) => {
                        consider(&key, record.revision);
                    }
                    // A mark stands behind what it speaks of, which goes with it or went before.
                    Ok(Carried::Deleted { .. }) | Err(_) => {}
                },
                _ => {}
            }
        }
        if !out.is_empty() {
            self.carried_until = self.carried_until.max(last_index);
        }
        out
    }
}
