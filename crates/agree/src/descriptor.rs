//! The descriptor of a cell: who keeps it, since which epoch (section 5.1 of the architecture).
//!
//! Descriptors form a chain: the first is a commit of root (of the founder, for root itself), each later one is
//! signed by a quorum of the keepers of the one before. What a signature is, and whether one is good, is
//! the caller's to say ([`Descriptor::follows`] takes the verdict as a function): identity lies outside.

use crate::codec::{DecodeError, Reader, Writer};
use alloc::vec::Vec;
use base::{CellId, NodeId, ReplicaId, Uid};
use bytes::Bytes;

/// A voting or learning member of a cell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Keeper {
    /// This life of the member.
    pub replica: ReplicaId,
    /// The node it lives on.
    pub node: NodeId,
    /// Whether it votes.
    pub votes: bool,
}

/// Who keeps a cell. Version 1: `version u8`, `cell u128`, `epoch u64`, then of each keeper (a `u32` count; sorted by
/// replica) `replica u64`, `node 32 bytes`, `votes u8`; then of each signature (a `u32` count) `replica u64` and its
/// bytes. What is signed is everything before the signatures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// The cell.
    pub cell: CellId,
    /// Rises by one with each change of keepers; 1 at first.
    pub epoch: u64,
    /// The keepers, sorted by replica, each once.
    pub keepers: Vec<Keeper>,
    /// By keepers of the epoch before; by whoever began the cell, for the first.
    pub signatures: Vec<(ReplicaId, Bytes)>,
}

/// Why a descriptor is not the next in its chain. The one held stays.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChainError {
    /// It is of another cell.
    #[error("descriptor of {found:?} refused: this is {cell:?}; the present one stays")]
    Cell {
        /// The cell at hand.
        cell: CellId,
        /// The descriptor's.
        found: CellId,
    },
    /// Its epoch does not follow.
    #[error("descriptor of epoch {found} refused: after {present} comes {}; the present one stays", present + 1)]
    Epoch {
        /// The epoch held.
        present: u64,
        /// The descriptor's.
        found: u64,
    },
    /// Too few of those who kept the cell before have signed it.
    #[error("descriptor refused: {signed} of {voters} voters before it signed, a quorum is {}; the present one stays", voters / 2 + 1)]
    Signatures {
        /// Voters with good signatures.
        signed: usize,
        /// Voters before it.
        voters: usize,
    },
}

impl Descriptor {
    /// What signatures are made over.
    pub fn signed_bytes(&self) -> Bytes {
        self.unsigned().finish()
    }

    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut w = self.unsigned();
        w.count(self.signatures.len());
        for (replica, signature) in &self.signatures {
            w.u64(replica.0).bytes(signature);
        }
        w.finish()
    }

    /// Reads a descriptor that fills `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &Bytes) -> Result<Descriptor, DecodeError> {
        let (mut r, _) = Reader::versioned("a cell's descriptor", bytes, 1)?;
        let (cell, epoch) = (CellId(Uid(r.u128()?)), r.u64()?);
        let mut keepers: Vec<Keeper> = Vec::new();
        for _ in 0..r.count(41)? {
            let keeper = Keeper { replica: ReplicaId(r.u64()?), node: NodeId(r.array()?), votes: r.bool()? };
            if keeper.replica.0 == 0 || keepers.last().is_some_and(|k| k.replica >= keeper.replica) {
                return Err(r.malformed());
            }
            keepers.push(keeper);
        }
        let mut signatures = Vec::new();
        for _ in 0..r.count(12)? {
            signatures.push((ReplicaId(r.u64()?), r.bytes()?));
        }
        r.end()?;
        Ok(Descriptor { cell, epoch, keepers, signatures })
    }

    /// Whether `self` may replace `before`: the same cell, the next epoch, signed by a quorum of the voters
    /// before. `is_good(node, signed bytes, signature)` judges one signature.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn follows(
        &self,
        before: &Descriptor,
        is_good: impl Fn(&NodeId, &[u8], &[u8]) -> bool,
    ) -> Result<(), ChainError> {
        if self.cell != before.cell {
            return Err(ChainError::Cell { cell: before.cell, found: self.cell });
        }
        if Some(self.epoch) != before.epoch.checked_add(1) {
            return Err(ChainError::Epoch { present: before.epoch, found: self.epoch });
        }
        let bytes = self.signed_bytes();
        let voters: Vec<_> = before.keepers.iter().filter(|k| k.votes).collect();
        // Counted by voter, so that one who signs twice counts once.
        let has_signed = |k: &&&Keeper| {
            self.signatures.iter().any(|(replica, s)| *replica == k.replica && is_good(&k.node, &bytes, s))
        };
        let signed = voters.iter().filter(has_signed).count();
        if signed > voters.len() / 2 { Ok(()) } else { Err(ChainError::Signatures { signed, voters: voters.len() }) }
    }

    fn unsigned(&self) -> Writer {
        let mut w = Writer::with_capacity(64 + 48 * self.keepers.len());
        w.u8(1).u128(self.cell.0.0).u64(self.epoch).count(self.keepers.len());
        for k in &self.keepers {
            w.u64(k.replica.0);
            w.0.extend_from_slice(&k.node.0);
            w.u8(u8::from(k.votes));
        }
        w
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    fn descriptor(epoch: u64, signed_by: &[u64]) -> Descriptor {
        let keeper = |n: u64| Keeper { replica: ReplicaId(n), node: NodeId([n as u8; 32]), votes: n < 4 };
        let signatures = signed_by.iter().map(|n| (ReplicaId(*n), Bytes::from_static(b"good"))).collect();
        Descriptor { cell: CellId(Uid(7)), epoch, keepers: (1..=4).map(keeper).collect(), signatures }
    }

    #[test]
    fn the_next_epoch_needs_a_quorum_of_the_voters_before() {
        let good = |_: &NodeId, _: &[u8], s: &[u8]| s == b"good";
        let before = descriptor(3, &[]);
        assert_eq!(descriptor(4, &[1, 3]).follows(&before, good), Ok(()));
        let few = Err(ChainError::Signatures { signed: 1, voters: 3 });
        assert_eq!(descriptor(4, &[1, 1, 4]).follows(&before, good), few, "twice is once, and a learner has no say");
        assert!(descriptor(4, &[1, 3]).follows(&before, |_, _, _| false).is_err());
        assert_eq!(descriptor(5, &[1, 3]).follows(&before, good), Err(ChainError::Epoch { present: 3, found: 5 }));
    }

    #[test]
    fn a_descriptor_has_the_bytes_it_always_had() {
        let d = descriptor(3, &[2]);
        let bytes = d.encode();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("../tests/golden/descriptor-v1.hex").trim_end());
        assert_eq!(Descriptor::decode(&bytes), Ok(d));
        assert!((0..bytes.len()).all(|cut| Descriptor::decode(&bytes.slice(..cut)).is_err()));
    }
}
