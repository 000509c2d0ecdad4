//! The part of a cell's log that Raft may still ask for, in memory.
//!
//! What is durable is the node's one log; this is what `raft` reads. It is told of entries and hard
//! state when they are handed out to be persisted, so it may be ahead of the disk: the library keeps
//! count of what is durable itself.

use super::members::Members;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use raft::eraftpb::{Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, StorageError};

/// Raft's entries after a base, and its hard state.
pub(crate) struct Storage {
    /// The entry before the first one kept.
    base: (u64, u64),
    entries: VecDeque<Entry>,
    bytes: usize,
    hard: HardState,
    /// The last entry applied and the membership there: what a snapshot would hold.
    applied: (u64, u64),
    members: Members,
}

impl Storage {
    pub(crate) fn new(base: (u64, u64), entries: Vec<Entry>, hard: HardState, members: Members) -> Storage {
        let bytes = entries.iter().map(length).sum();
        Storage { base, entries: entries.into(), bytes, hard, applied: base, members }
    }

    pub(crate) fn last(&self) -> (u64, u64) {
        self.entries.back().map_or(self.base, |e| (e.index, e.term))
    }

    pub(crate) fn hard(&self) -> &HardState {
        &self.hard
    }

    pub(crate) fn set_hard(&mut self, hard: HardState) {
        self.hard = hard;
    }

    pub(crate) fn set_applied(&mut self, index: u64, term: u64) {
        self.applied = (index, term);
    }

    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    /// The members are these from the entry on that was applied last.
    pub(crate) fn set_members(&mut self, members: Members) {
        self.members = members;
    }

    /// The entries after `index`, for a segment to be carried forward.
    pub(crate) fn after(&self, index: u64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |e| e.index > index)
    }

    /// Appends, voiding what stood at and above the first index.
    pub(crate) fn append(&mut self, new: &[Entry]) {
        let Some(first) = new.first() else { return };
        debug_assert!(first.index > self.base.0 && first.index <= self.last().0 + 1, "a gap in the log");
        while self.entries.back().is_some_and(|e| e.index >= first.index) {
            self.bytes -= self.entries.pop_back().map_or(0, |e| length(&e));
        }
        self.bytes += new.iter().map(length).sum::<usize>();
        self.entries.extend(new.iter().cloned());
    }

    /// Everything is replaced by a snapshot.
    pub(crate) fn install(&mut self, index: u64, term: u64, members: Members) {
        self.entries.clear();
        self.bytes = 0;
        self.base = (index, term);
        self.applied = self.base;
        self.members = members;
        self.hard.commit = self.hard.commit.max(index);
    }

    /// Forgets the oldest applied entries beyond what is kept for members that lag.
    pub(crate) fn trim(&mut self, entries_kept: usize, bytes_kept: usize) {
        while self.entries.len() > entries_kept || self.bytes > bytes_kept {
            let Some(first) = self.entries.front() else { return };
            if first.index > self.applied.0 {
                return;
            }
            self.base = (first.index, first.term);
            self.bytes -= self.entries.pop_front().map_or(0, |e| length(&e));
        }
    }

    fn at(&self, index: u64) -> Option<&Entry> {
        let i = usize::try_from(index.checked_sub(self.base.0 + 1)?).ok()?;
        self.entries.get(i)
    }
}

fn length(e: &Entry) -> usize {
    e.data.len() + e.context.len()
}

impl raft::Storage for Storage {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState { hard_state: self.hard.clone(), conf_state: self.members.to_conf_state() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last().0 + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let mut room = max_size.into().unwrap_or(u64::MAX);
        let mut out = Vec::new();
        for e in (low..high).map_while(|i| self.at(i)) {
            // The first entry is always handed out, or a large one could never leave.
            let size = length(e) as u64 + 32;
            if size > room && !out.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            out.push(e.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        if index < self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.at(index).map(|e| e.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last().0)
    }

    /// A snapshot's description: its pieces are made by the cell, from the same applied state.
    fn snapshot(&self, request_index: u64, _to: u64) -> Result<Snapshot> {
        let (index, term) = self.applied;
        if index < request_index || index == 0 {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = index;
        metadata.term = term;
        metadata.conf_state = Some(self.members.to_conf_state());
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use raft::Storage as _;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: alloc::vec![0; 10], ..Entry::default() }
    }

    fn storage(upto: u64) -> Storage {
        Storage::new((0, 0), (1..=upto).map(|i| entry(i, 1)).collect(), HardState::default(), Members::default())
    }

    #[test]
    fn appending_at_an_index_voids_what_stood_above() {
        let mut s = storage(5);
        s.append(&[entry(3, 2)]);
        assert_eq!((s.last(), s.bytes), ((3, 2), 30));
        assert_eq!(s.term(2), Ok(1));
        assert_eq!(s.term(4), Err(Error::Store(StorageError::Unavailable)));
    }

    #[test]
    fn only_applied_entries_are_forgotten_and_the_base_keeps_its_term() {
        let mut s = storage(5);
        s.set_applied(3, 1);
        s.trim(1, usize::MAX);
        assert_eq!((s.first_index(), s.last_index(), s.term(3)), (Ok(4), Ok(5), Ok(1)));
        assert_eq!(s.term(2), Err(Error::Store(StorageError::Compacted)));
    }

    #[test]
    fn a_large_entry_still_leaves_alone() {
        let s = storage(3);
        let got = s.entries(1, 4, Some(1), GetEntriesContext::empty(false)).unwrap();
        assert_eq!(got.len(), 1);
        assert_eq!(s.entries(1, 4, None, GetEntriesContext::empty(false)).unwrap().len(), 3);
    }
}
