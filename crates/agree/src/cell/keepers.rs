//! Who keeps a cell, as its own log says.
//!
//! Each change of members carries the descriptor of the epoch it begins. While voters change, those of the epoch before
//! vote as well and must be reached: both are kept until the joint state is left.

use crate::codec::{DecodeError, Reader, Writer};
use crate::descriptor::{Descriptor, Keeper};
use crate::raft::Members;
use crate::raft::members::Change;
use crate::raft::message::revision;
use alloc::vec::Vec;
use base::{CellId, NodeId, ReplicaId, Revision};
use bytes::Bytes;

/// Who keeps a cell at one point of its log. The signatures of its descriptors lie elsewhere: a log needs none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keepers {
    /// Since the last change.
    pub now: Descriptor,
    /// Before it, until the joint state is left.
    pub before: Option<Descriptor>,
}

/// What a change of members says beside who they are. Version 1: `version u8`, `floor u64`, the descriptor's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changed {
    /// Whoever has this in its log mints above: no new voter knows what others have promised.
    pub floor: Revision,
    /// The descriptor of the epoch that begins.
    pub descriptor: Descriptor,
}

impl Keepers {
    /// Nobody is known to keep it: what a member is that waits for its first snapshot.
    pub fn unknown(cell: CellId) -> Keepers {
        Keepers { now: Descriptor { cell, epoch: 0, keepers: Vec::new(), signatures: Vec::new() }, before: None }
    }

    /// The beginning of a cell. Sorted, each replica once.
    pub fn founding(cell: CellId, mut keepers: Vec<Keeper>) -> Keepers {
        keepers.sort_unstable();
        keepers.dedup_by_key(|k| k.replica);
        Keepers { now: Descriptor { cell, epoch: 1, keepers, signatures: Vec::new() }, before: None }
    }

    /// Where a member lives.
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        let all = self.now.keepers.iter().chain(self.before.iter().flat_map(|b| &b.keepers));
        all.into_iter().find(|k| k.replica == replica).map(|k| k.node)
    }

    /// The members a cell begins with.
    pub fn members(&self) -> Members {
        let of = |votes| self.now.keepers.iter().filter(move |k| k.votes == votes).map(|k| k.replica);
        Members { learners: of(false).collect(), ..Members::of_voters(of(true)) }
    }

    /// The change that makes `keepers` (each replica once) of these; `None` if they are the same, no voter would be
    /// left, or a change is under way. `floor` is above all that was minted or closed.
    pub fn change_to(&self, keepers: &[Keeper], floor: Revision) -> Option<Change> {
        let mut next = Keepers::founding(self.now.cell, keepers.to_vec()).now;
        next.epoch = self.now.epoch + 1;
        if self.before.is_some() || !next.keepers.iter().any(|k| k.votes) || next.keepers.len() != keepers.len() {
            return None;
        }
        let have = |r: ReplicaId| self.now.keepers.iter().find(|k| k.replica == r);
        let made = next.keepers.iter().filter(|k| have(k.replica).is_none_or(|h| h.votes != k.votes));
        let mut changes: Vec<(u8, ReplicaId)> = made.map(|k| (if k.votes { 0 } else { 2 }, k.replica)).collect();
        let gone = self.now.keepers.iter().filter(|k| !next.keepers.iter().any(|n| n.replica == k.replica));
        changes.extend(gone.map(|k| (1, k.replica)));
        if changes.is_empty() {
            return None;
        }
        // Who only learns may come and go by itself; voters change through a joint state.
        let votes = |(what, r): &(u8, ReplicaId)| *what == 0 || have(*r).is_some_and(|k| k.votes);
        let transition = if changes.len() == 1 && !changes.iter().any(votes) { 0 } else { 2 };
        Some(Change { transition, changes, context: Changed { floor, descriptor: next }.encode() })
    }

    /// A change was applied: from here on `members` are in force.
    pub(super) fn changed(&mut self, members: &Members, descriptor: Option<Descriptor>) {
        if let Some(next) = descriptor {
            self.before = Some(core::mem::replace(&mut self.now, next));
        }
        if members.outgoing.is_empty() {
            self.before = None;
        }
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.bytes(&self.now.encode());
        w.bytes(&self.before.as_ref().map(Descriptor::encode).unwrap_or_default());
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Keepers, DecodeError> {
        let (now, before) = (Descriptor::decode(&r.bytes()?)?, r.bytes()?);
        let before = if before.is_empty() { None } else { Some(Descriptor::decode(&before)?) };
        Ok(Keepers { now, before })
    }
}

impl Changed {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(128);
        w.u8(1).u64(self.floor.get()).bytes(&self.descriptor.encode());
        w.finish()
    }

    /// Reads what fills `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &Bytes) -> Result<Changed, DecodeError> {
        let (mut r, _) = Reader::versioned("a change of keepers", bytes, 1)?;
        let (floor, descriptor) = (revision(&mut r)?, Descriptor::decode(&r.bytes()?)?);
        r.end()?;
        Ok(Changed { floor, descriptor })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use alloc::string::String;
    use alloc::{format, vec};
    use base::Uid;

    fn keeper(n: u64, votes: bool) -> Keeper {
        Keeper { replica: ReplicaId(n), node: NodeId([n as u8; 32]), votes }
    }

    fn of(keepers: &[Keeper]) -> Keepers {
        Keepers::founding(CellId(Uid(7)), keepers.to_vec())
    }

    #[test]
    fn a_change_names_who_comes_goes_and_changes_part() {
        let have = of(&[keeper(1, true), keeper(2, false), keeper(3, false)]);
        let floor = Revision::from_u64(99).unwrap();
        let change = have.change_to(&[keeper(1, true), keeper(2, true), keeper(4, true)], floor).unwrap();
        let r = ReplicaId;
        assert_eq!((change.transition, change.changes), (2, vec![(0, r(2)), (0, r(4)), (1, r(3))]));
        let said = Changed::decode(&change.context).unwrap();
        assert_eq!((said.floor, said.descriptor.epoch, said.descriptor.keepers.len()), (floor, 2, 3));
        let one = have.change_to(&[keeper(1, true), keeper(2, false), keeper(3, false), keeper(4, false)], floor);
        assert_eq!(one.map(|c| (c.transition, c.changes)), Some((0, vec![(2, r(4))])));
    }

    #[test]
    fn nothing_is_changed_into_the_same_or_into_no_voter() {
        let have = of(&[keeper(1, true), keeper(2, false)]);
        assert_eq!(have.change_to(&[keeper(2, false), keeper(1, true)], Revision::ZERO), None);
        assert_eq!(have.change_to(&[keeper(2, false)], Revision::ZERO), None);
        assert_eq!(have.change_to(&[keeper(1, true), keeper(1, true)], Revision::ZERO), None, "each once");
    }

    #[test]
    fn those_before_are_reached_until_the_joint_state_is_left() {
        let mut k = of(&[keeper(1, true)]);
        let next = of(&[keeper(2, true)]).now;
        let joint = Members { outgoing: vec![ReplicaId(1)], ..Members::of_voters([ReplicaId(2)]) };
        k.changed(&joint, Some(next));
        assert_eq!((k.node_of(ReplicaId(1)), k.node_of(ReplicaId(2))), (Some(NodeId([1; 32])), Some(NodeId([2; 32]))));
        assert_eq!(k.change_to(&[keeper(3, true)], Revision::ZERO), None, "one at a time");
        k.changed(&Members::of_voters([ReplicaId(2)]), None);
        assert_eq!(k.node_of(ReplicaId(1)), None);
    }

    #[test]
    fn a_change_of_keepers_has_the_bytes_it_always_had() {
        let said = Changed { floor: Revision::from_u64(77).unwrap(), descriptor: of(&[keeper(1, true)]).now };
        let bytes = said.encode();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("../../tests/golden/changed-v1.hex").trim_end());
        assert_eq!(Changed::decode(&bytes), Ok(said));
        assert!((0..bytes.len()).all(|cut| Changed::decode(&bytes.slice(..cut)).is_err()));
    }
}
