//! Where cells are led, as far as this node was told: soft, corrected by every answer.

use base::{CellId, NodeId};
use std::collections::BTreeMap;

/// Of so many cells at most it is remembered who led them; of more the first is forgotten and found again by asking.
const PLACES_MAX: usize = 65_536;

/// Where cells are led.
#[derive(Default)]
pub(crate) struct Places {
    leads: BTreeMap<CellId, NodeId>,
    /// Who knows: nodes that keep root, and with them every cell's beginning.
    contacts: Vec<NodeId>,
    /// Whom to ask next that knows nothing of a cell.
    turn: usize,
}

impl Places {
    /// These may be asked about every cell.
    pub(crate) fn contacts_are(&mut self, contacts: Vec<NodeId>) {
        self.contacts = contacts;
    }

    /// Whom to ask about a cell: who led it last, or one after the other of those who may know; first those that answer.
    pub(crate) fn whom(&mut self, cell: CellId, answers: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let last = self.leads.get(&cell).copied();
        if last.is_some_and(&answers) {
            return last;
        }
        let from = self.turn % self.contacts.len().max(1);
        let mut in_turn = self.contacts.iter().copied().cycle().skip(from).take(self.contacts.len()).enumerate();
        let next = in_turn.find(|(_, node)| answers(*node));
        // Nobody is known to answer: somebody may.
        let next = next.or_else(|| last.map(|node| (0, node))).or_else(|| Some((0, *self.contacts.get(from)?)));
        let (passed, node) = next?;
        self.turn = self.turn.wrapping_add(passed + 1);
        Some(node)
    }

    /// All who may be asked.
    pub(crate) fn contacts(&self) -> &[NodeId] {
        &self.contacts
    }

    /// All who may be asked, but one.
    pub(crate) fn others(&self, but: NodeId) -> impl Iterator<Item = NodeId> {
        let all: Vec<NodeId> = self.contacts.iter().copied().filter(|n| *n != but).collect();
        all.into_iter()
    }

    /// Who led the cell when it was asked last.
    pub(crate) fn leader(&self, cell: CellId) -> Option<NodeId> {
        self.leads.get(&cell).copied()
    }

    /// Whether nobody is known who leads a cell or may know who does.
    pub(crate) fn is_empty(&self, cell: CellId) -> bool {
        self.contacts.is_empty() && !self.leads.contains_key(&cell)
    }

    /// A node has answered for a cell.
    pub(crate) fn leads(&mut self, cell: CellId, node: NodeId) {
        if self.leads.insert(cell, node).is_none() && self.leads.len() > PLACES_MAX {
            self.leads.pop_first();
        }
    }

    /// A node does not lead a cell, or cannot be reached.
    pub(crate) fn leads_not(&mut self, cell: CellId, node: NodeId) {
        if self.leads.get(&cell) == Some(&node) {
            self.leads.remove(&cell);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Uid;

    #[test]
    fn who_answered_is_asked_first_and_then_those_who_may_know_in_turn() {
        let (cell, other) = (CellId(Uid(1)), CellId(Uid(2)));
        let node = |n| NodeId([n; 32]);
        let mut places = Places::default();
        let all = |_| true;
        assert_eq!(places.whom(cell, all), None);
        places.contacts_are(vec![node(1), node(2)]);
        let asked: Vec<_> = (0..3).filter_map(|_| places.whom(cell, all)).collect();
        assert_eq!(asked, [node(1), node(2), node(1)]);
        places.leads(cell, node(7));
        assert_eq!((places.whom(cell, all), places.leader(cell)), (Some(node(7)), Some(node(7))));
        places.leads_not(cell, node(8));
        assert_eq!(places.whom(cell, all), Some(node(7)), "what another does not lead says nothing");
        let but_seven = |n| n != node(7);
        assert_eq!(places.whom(cell, but_seven), Some(node(2)), "one that does not answer is not waited for");
        places.leads_not(cell, node(7));
        assert_eq!((places.leader(cell), places.whom(other, all)), (None, Some(node(1))));
        assert_eq!((0..2).filter_map(|_| places.whom(cell, |n| n == node(1))).collect::<Vec<_>>(), [node(1); 2]);
        assert!(places.whom(cell, |_| false).is_some(), "if nobody is known to answer, somebody may");
        assert_eq!(places.others(node(1)).collect::<Vec<_>>(), [node(2)]);
    }
}
