//! Streams over many cells are complete below the frontier (architecture, 5.5): once a cell has promised that
//! nothing at or below T is still to come, nothing comes; and what one who watches all namespaces is told, in
//! the order of (revision, cell), is everything that happened in any of them, up to where it was told.

use super::applied::Applied;
use super::{Checked, ensure};
use base::{CellId, Revision};
use node::gateway::across::Happened;
use std::collections::BTreeMap;

/// What one cell has promised.
#[derive(Default)]
pub struct Promise {
    closed: Revision,
    /// How many changes were looked at.
    seen: usize,
}

impl Promise {
    /// Nothing at or below this is still to come.
    pub fn closed(&mut self, revision: Revision) {
        self.closed = self.closed.max(revision);
    }

    /// Looks at what was applied since the last time.
    ///
    /// # Errors
    /// It was promised that it would not be.
    pub fn kept(&mut self, truth: &Applied) -> Checked {
        for change in truth.from(self.seen) {
            self.seen += 1;
            ensure("frontier", change.revision > self.closed, || {
                format!("{} was written at {:?}, where {:?} was closed", change.name, change.revision, self.closed)
            })?;
        }
        Ok(())
    }
}

/// What one who watches all namespaces was told: a change by its number, cell and name.
type Told = (Revision, CellId, String);

/// One who watches all namespaces, through every change of leader, and through the ends of its gateway.
#[derive(Default)]
pub struct Stream {
    /// Everything up to here was told; `None` before the first state.
    pub seen: Option<Revision>,
    /// Told above `seen`, or at it.
    last: Vec<Told>,
    /// How many changes it was told.
    pub told: u64,
}

impl Stream {
    /// It begins with this state of every cell.
    ///
    /// # Errors
    /// It was never so.
    pub fn began(
        &mut self,
        truths: &BTreeMap<CellId, &Applied>,
        at: Revision,
        states: &BTreeMap<CellId, BTreeMap<String, Revision>>,
    ) -> Checked {
        shown("a watch over all namespaces began with", truths, at, states)?;
        (self.seen, self.last) = (Some(at), Vec::new());
        Ok(())
    }

    /// It is told these changes.
    ///
    /// # Errors
    /// They are not in order, or something before them was not told.
    pub fn hear(&mut self, truths: &BTreeMap<CellId, &Applied>, happened: &[Happened]) -> Checked {
        for h in happened {
            let told: Told = (h.change.revision, h.cell, h.change.key.name.to_string());
            if self.last.contains(&told) {
                // What equals the revision a watch goes on from is told again.
                continue;
            }
            let newest = self.last.last().map(|l| (l.0, l.1));
            ensure("frontier", newest.is_none_or(|n| n < (told.0, told.1)), || {
                format!("{told:?} was told after {newest:?}")
            })?;
            self.told += 1;
            self.last.push(told);
        }
        match self.last.last() {
            // Others of the same number may follow.
            Some(last) => self.complete(truths, Revision::from_u64(last.0.get() - 1).unwrap_or_default()),
            None => Ok(()),
        }
    }

    /// It is told that it was told everything up to here.
    ///
    /// # Errors
    /// It was not.
    pub fn complete(&mut self, truths: &BTreeMap<CellId, &Applied>, upto: Revision) -> Checked {
        let Some(from) = self.seen.filter(|s| *s < upto) else { return Ok(()) };
        let mut want: Vec<Told> = Vec::new();
        for (cell, truth) in truths {
            want.extend(truth.between(from, upto).iter().map(|c| (c.revision, *cell, c.name.clone())));
        }
        want.sort();
        let have: Vec<&Told> = self.last.iter().filter(|t| t.0 > from && t.0 <= upto).collect();
        ensure("frontier", have.iter().copied().eq(want.iter()), || {
            format!(
                "from {from:?} to {upto:?} one who watches all namespaces was told {have:?}, where {want:?} happened"
            )
        })?;
        self.seen = Some(upto);
        // What was told at the very end may be told once more.
        self.last.retain(|t| t.0 >= upto);
        Ok(())
    }

    /// Where a watch that is resumed goes on.
    pub fn resume(&self) -> Option<Revision> {
        let seen = self.seen?;
        Some(self.last.last().map_or(seen, |l| l.0.max(seen)))
    }
}

/// A list over all namespaces at one revision.
///
/// # Errors
/// It was never so.
pub fn listed(
    truths: &BTreeMap<CellId, &Applied>,
    at: Revision,
    states: &BTreeMap<CellId, BTreeMap<String, Revision>>,
) -> Checked {
    shown("a list over all namespaces shows", truths, at, states)
}

/// What somebody was shown of every cell is what was there at that revision.
fn shown(
    what: &str,
    truths: &BTreeMap<CellId, &Applied>,
    at: Revision,
    states: &BTreeMap<CellId, BTreeMap<String, Revision>>,
) -> Checked {
    for (cell, truth) in truths {
        let empty = BTreeMap::new();
        let (have, want) = (states.get(cell).unwrap_or(&empty), truth.state_at(at));
        ensure("frontier", *have == want, || format!("at {at:?} {what} {have:?} of {cell}, where {want:?} was"))?;
    }
    Ok(())
}
