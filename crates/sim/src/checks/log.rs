//! Log Matching: two logs that hold an entry of the same index and term hold the same there (Ongaro and
//! Ousterhout, figure 3).

use super::{Checked, ensure};
use agree::log::Record;
use bytes::Bytes;
use std::collections::BTreeMap;

/// What was logged, by index and term.
#[derive(Default)]
pub struct Log {
    entries: BTreeMap<(u64, u64), (usize, u8, Bytes)>,
}

impl Log {
    /// A replica logs these.
    ///
    /// # Errors
    /// Another one logged something else in the same place.
    pub fn logs(&mut self, node: usize, records: &[Record]) -> Checked {
        for r in records {
            let Record::Entry { term, index, kind, payload, .. } = r else { continue };
            let first = self.entries.entry((*index, *term)).or_insert_with(|| (node, *kind, payload.clone()));
            ensure("log", (first.1, &first.2) == (*kind, payload), || {
                format!("nodes {} and {node} hold different entries at index {index} of term {term}", first.0)
            })?;
        }
        Ok(())
    }
}
