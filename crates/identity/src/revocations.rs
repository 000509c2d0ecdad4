//! Whom the mesh has expelled. A value: it comes with the bundle, and every check is a look into it.
//!
//! Leaving is not expulsion: what a node that left was issued, and what it issued, is good until it
//! expires. An expelled node is refused at once, and so is whatever its issuing keys vouch for, since
//! such a key is good for months and could name any node.

use crate::codec::{self, MessageError, Reader, Writer};
use crate::{Proven, Refusal, lifetime};
use base::{NodeId, Wall};
use std::collections::BTreeMap;
use std::time::Duration;

/// No more nodes than this are listed; root prunes or refuses before it gets there.
pub const MAX_EXPELLED: usize = 16 * 1024;

/// The expelled nodes as of one number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Revocations {
    number: u64,
    expelled: BTreeMap<NodeId, Wall>,
}

impl Revocations {
    /// Nobody, before the first list.
    pub const fn none() -> Revocations {
        Revocations { number: 0, expelled: BTreeMap::new() }
    }

    /// The nodes expelled as of `number`, each with the moment it was. Beyond [`MAX_EXPELLED`] those expelled
    /// last are kept.
    pub fn new(number: u64, expelled: impl IntoIterator<Item = (NodeId, Wall)>) -> Revocations {
        let mut expelled: BTreeMap<NodeId, Wall> = expelled.into_iter().collect();
        if expelled.len() > MAX_EXPELLED {
            let mut by_time: Vec<(Wall, NodeId)> = expelled.iter().map(|(node, at)| (*at, *node)).collect();
            by_time.sort_unstable();
            for (_, node) in by_time.iter().take(expelled.len() - MAX_EXPELLED) {
                expelled.remove(node);
            }
        }
        Revocations { number, expelled }
    }

    /// Counts up with every change: of two lists the one with the higher number holds.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Was this node expelled?
    pub fn is_expelled(&self, node: NodeId) -> bool {
        self.expelled.contains_key(&node)
    }

    /// The expelled nodes and when each was.
    pub fn expelled(&self) -> impl Iterator<Item = (NodeId, Wall)> + '_ {
        self.expelled.iter().map(|(node, at)| (*node, *at))
    }

    /// Refuses what an expelled node is or vouches for. Asked when a connection begins, and of every open
    /// one when the list changes.
    ///
    /// # Errors
    /// [`Refusal::Expelled`].
    pub fn check(&self, proven: &Proven) -> Result<(), Refusal> {
        let itself = proven.node().map(|(node, _)| node);
        match itself.into_iter().chain(proven.issued_by).find(|node| self.is_expelled(*node)) {
            Some(node) => Err(Refusal::Expelled(node)),
            None => Ok(()),
        }
    }

    /// This list as of `number`, with `node` expelled at `now`. Doing it again keeps the first moment.
    #[must_use]
    pub fn with(&self, node: NodeId, now: Wall, number: u64) -> Revocations {
        let first = self.expelled.get(&node).copied().unwrap_or(now);
        Revocations::new(number, self.expelled().chain([(node, first)]))
    }

    /// This list as of `number`, without those whose last certificate, and the last one they could have
    /// issued, has run out at `now`, `grace` included.
    #[must_use]
    pub fn pruned(&self, grace: Duration, now: Wall, number: u64) -> Revocations {
        let longest = lifetime::ISSUER + lifetime::SVID + grace;
        Revocations::new(number, self.expelled().filter(|(_, at)| now.since(*at) <= longest))
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let list = |w: Writer, (node, at): (&NodeId, &Wall)| w.node(*node).wall(*at);
        Writer::new(codec::REVOCATIONS).number(self.number).list(self.expelled.iter(), list).done()
    }

    /// Reads what [`Revocations::encode`] wrote.
    ///
    /// # Errors
    /// If it is something else.
    pub fn decode(bytes: &[u8]) -> Result<Revocations, MessageError> {
        let mut r = Reader::open(codec::REVOCATIONS, bytes)?;
        let number = r.number()?;
        let listed = r.list(MAX_EXPELLED, |r| Ok((r.node()?, r.wall()?)))?;
        if !listed.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(r.damaged("its nodes are out of order"));
        }
        r.end()?;
        Ok(Revocations { number, expelled: listed.into_iter().collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_769_846_400_000);

    #[test]
    fn a_list_reads_back_what_it_wrote_and_nothing_else() {
        let list = Revocations::new(7, [(NodeId([2; 32]), NOW), (NodeId([1; 32]), NOW)]);
        let bytes = list.encode();
        assert_eq!(Revocations::decode(&bytes), Ok(list));
        for cut in 0..bytes.len() {
            assert!(Revocations::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        // Kept for ever.
        let one = Revocations::new(1, [(NodeId([0xaa; 32]), NOW)]).encode();
        assert_eq!(one, [&[9, 1, 1, 1][..], &[0xaa; 32], &[0x80, 0xc8, 0xc3, 0x98, 0xc1, 0x33]].concat());
    }

    #[test]
    fn the_first_moment_counts_and_what_nothing_hangs_on_is_dropped() {
        let day = Duration::from_secs(24 * 3600);
        let list = Revocations::default().with(NodeId([1; 32]), NOW, 1).with(NodeId([1; 32]), NOW + day, 2);
        assert_eq!(list.expelled().collect::<Vec<_>>(), [(NodeId([1; 32]), NOW)]);
        assert!(list.pruned(day, NOW + day * 91, 3).is_expelled(NodeId([1; 32])), "its issuing key may be good still");
        assert_eq!(list.pruned(day, NOW + day * 92, 3), Revocations::new(3, []));
    }

    #[test]
    fn beyond_the_bound_the_latest_stay() {
        let node = |n: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            NodeId(id)
        };
        let list = Revocations::new(1, (0..=MAX_EXPELLED).map(|n| (node(n), NOW - Duration::from_secs(n as u64))));
        assert_eq!(list.expelled().count(), MAX_EXPELLED);
        assert!(!list.is_expelled(node(MAX_EXPELLED)) && list.is_expelled(node(0)));
        assert_eq!(Revocations::decode(&list.encode()), Ok(list));
    }
}
