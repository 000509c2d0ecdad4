//! Election Safety: at most one leader in a term (Ongaro and Ousterhout, "In Search of an
//! Understandable Consensus Algorithm", figure 3); and at most one replica at a time that holds a lease.

use super::{Checked, ensure};
use std::collections::BTreeMap;

/// Who led each term.
#[derive(Default)]
pub struct Election {
    leaders: BTreeMap<u64, usize>,
}

impl Election {
    /// A replica leads in this term.
    ///
    /// # Errors
    /// Another one did.
    pub fn leads(&mut self, node: usize, term: u64) -> Checked {
        let first = *self.leaders.entry(term).or_insert(node);
        ensure("election", first == node, || format!("nodes {first} and {node} both lead in term {term}"))
    }

    /// These hold a lease at this moment.
    ///
    /// # Errors
    /// They are more than one.
    pub fn leases(&self, holders: &[usize]) -> Checked {
        ensure("election", holders.len() <= 1, || format!("nodes {holders:?} hold a lease at the same time"))
    }

    /// How many terms had a leader.
    pub fn terms(&self) -> usize {
        self.leaders.len()
    }
}
