//! Somebody who watches all ConfigMaps of a namespace for the whole of a run, through every change of leader.

use crate::checks::applied::Applied;
use crate::checks::{Checked, watch};
use base::{CellId, Revision};
use node::cell::{Change, Opened};

/// The watcher.
#[derive(Default)]
pub struct Watcher {
    /// Everything up to here was seen; `None` before the first state.
    pub seen: Option<Revision>,
    /// The cell.
    pub cell: Option<CellId>,
    /// The node whose cell it hears, and that node's boot.
    pub at: Option<(usize, u64)>,
    /// The present attempt to open a watch.
    pub attempt: u64,
    /// How many changes it was told.
    pub told: u64,
    /// How often it went on elsewhere.
    pub resumed: u64,
}

impl Watcher {
    /// A watch is open.
    ///
    /// # Errors
    /// It does not begin where the last one ended.
    pub fn open(&mut self, truth: &Applied, node: (usize, u64), opened: &Opened) -> Checked {
        self.at = Some(node);
        match (&opened.state, self.seen) {
            (Some(state), _) => {
                let items = state.iter(None).map(|(n, s)| (n.to_string(), s.revision)).collect();
                watch::began(truth, opened.revision, &items)?;
            }
            (None, Some(seen)) => {
                watch::told(truth, seen, opened.revision.max(seen), &opened.backlog)?;
                self.resumed += 1;
            }
            (None, None) => {}
        }
        self.seen = Some(opened.revision.max(self.seen.unwrap_or_default()));
        self.told += opened.backlog.len() as u64;
        Ok(())
    }

    /// Changes come.
    ///
    /// # Errors
    /// They are not what happened.
    pub fn hear(&mut self, truth: &Applied, changes: &[Change]) -> Checked {
        let (Some(seen), Some(last)) = (self.seen, changes.last()) else { return Ok(()) };
        watch::told(truth, seen, last.revision, changes)?;
        self.seen = Some(last.revision);
        self.told += changes.len() as u64;
        Ok(())
    }

    /// The watch ended: it is to be opened again.
    pub fn end(&mut self) {
        self.at = None;
    }
}
