//! The frontier: the number that resumes a watch over many cells (section 5.5 of the architecture).
//!
//! A leader's closed(T, term, index) says that nothing at or below T will be minted and that all that was lies at
//! or below `index`. It counts once a quorum of voters holds it durably (the replicas see to that:
//! [`crate::raft::Input::Close`], [`crate::raft::Effect::Closed`]; a vote carries the bound, and a new leader
//! mints above it) and once the reader has applied `index`. The frontier is the least such T over root and
//! all namespace cells that root lists.
//!
//! The comparison of indexes needs no terms: a log that has applied `index` holds every entry at or below T
//! that will ever be, since what a later leader put in place of others it minted above T.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use base::{CellId, Revision};

/// Promises of one cell that wait for their index; more than this, and the oldest give way: a later one says
/// more.
const WAITING: usize = 64;

/// The frontier over the cells that one reader follows.
#[derive(Clone, Debug, Default)]
pub struct Frontier {
    cells: BTreeMap<CellId, Followed>,
    reached: Revision,
}

#[derive(Clone, Debug, Default)]
struct Followed {
    applied: u64,
    closed: Revision,
    /// (T, index), both rising.
    waiting: VecDeque<(Revision, u64)>,
}

impl Frontier {
    /// A cell that root lists from now on. The frontier waits for it; it does not run back.
    pub fn add(&mut self, cell: CellId) {
        self.cells.entry(cell).or_default();
    }

    /// A cell that root lists no more, or has recorded as passed over.
    pub fn remove(&mut self, cell: CellId) {
        self.cells.remove(&cell);
    }

    /// A promise that a quorum holds.
    pub fn closed(&mut self, cell: CellId, revision: Revision, index: u64) {
        let Some(c) = self.cells.get_mut(&cell) else { return };
        // One that says less than another is passed over: a lower T for a higher index, or an old leader's.
        if revision <= c.closed || c.waiting.iter().any(|(t, i)| *t >= revision && *i <= index) {
            return;
        }
        c.waiting.retain(|(t, i)| *t > revision || *i < index);
        let at = c.waiting.partition_point(|(t, _)| *t < revision);
        c.waiting.insert(at, (revision, index));
        if c.waiting.len() > WAITING {
            c.waiting.remove(1);
        }
        c.settle();
    }

    /// The reader has applied the cell's entries up to `index`.
    pub fn applied(&mut self, cell: CellId, index: u64) {
        if let Some(c) = self.cells.get_mut(&cell) {
            c.applied = c.applied.max(index);
            c.settle();
        }
    }

    /// Everything at or below this, of all cells, is applied here and nothing more will come; never less
    /// than it was. `Revision::ZERO` while no cell is listed.
    pub fn reached(&mut self) -> Revision {
        let least = self.cells.values().map(|c| c.closed).min().unwrap_or_default();
        self.reached = self.reached.max(least);
        self.reached
    }

    /// The cells that hold the frontier at or below `revision`: whom to ask for a promise, or to miss.
    pub fn behind(&self, revision: Revision) -> Vec<CellId> {
        self.cells.iter().filter(|(_, c)| c.closed <= revision).map(|(id, _)| *id).collect()
    }
}

impl Followed {
    fn settle(&mut self) {
        while let Some((revision, _)) = self.waiting.pop_front_if(|w| w.1 <= self.applied) {
            self.closed = revision;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Uid, Wall};

    const A: CellId = CellId(Uid(1));
    const B: CellId = CellId(Uid(2));

    fn t(ms: u64) -> Revision {
        Revision::end_of(Wall(ms))
    }

    #[test]
    fn the_frontier_is_the_least_promise_whose_entries_are_applied() {
        let mut f = Frontier::default();
        assert_eq!(f.reached(), Revision::ZERO);
        f.add(A);
        f.add(B);
        f.closed(A, t(10), 5);
        f.closed(B, t(8), 3);
        f.applied(A, 5);
        assert_eq!(f.reached(), Revision::ZERO, "B's entries are not here yet");
        assert_eq!(f.behind(Revision::ZERO), [B]);
        f.applied(B, 3);
        assert_eq!(f.reached(), t(8));
        f.closed(B, t(20), 9);
        f.applied(B, 8);
        assert_eq!(f.reached(), t(8));
        f.applied(B, 9);
        assert_eq!(f.reached(), t(10));
    }

    #[test]
    fn it_waits_for_a_new_cell_and_never_runs_back() {
        let mut f = Frontier::default();
        f.add(A);
        f.closed(A, t(10), 0);
        assert_eq!(f.reached(), t(10));
        f.add(B);
        assert_eq!(f.reached(), t(10));
        f.closed(A, t(30), 0);
        assert_eq!(f.reached(), t(10));
        f.remove(B);
        assert_eq!(f.reached(), t(30));
    }

    #[test]
    fn promises_come_out_of_order_and_the_weaker_ones_are_passed_over() {
        let mut f = Frontier::default();
        f.add(A);
        f.closed(A, t(30), 7);
        f.closed(A, t(20), 9);
        f.closed(A, t(10), 4);
        f.applied(A, 4);
        assert_eq!(f.reached(), t(10));
        f.applied(A, 7);
        assert_eq!(f.reached(), t(30));
        for n in 0..1_000 {
            f.closed(A, t(100 + n), 10 + n);
        }
        assert!(f.cells.values().all(|c| c.waiting.len() <= WAITING));
    }
}
