//! Who votes and who only learns.

use crate::codec::{DecodeError, Reader, Writer};
use alloc::vec::Vec;
use base::{ReplicaId, Time};
use raft::eraftpb::ConfState;

/// The membership of a cell, joint while it changes (Ongaro and Ousterhout, "In Search of an
/// Understandable Consensus Algorithm", section 6). Lists are sorted and hold no replica twice.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Members {
    /// Who votes.
    pub voters: Vec<ReplicaId>,
    /// Who learns.
    pub learners: Vec<ReplicaId>,
    /// Who voted before the change under way; empty if none is.
    pub outgoing: Vec<ReplicaId>,
    /// Outgoing voters that stay on as learners.
    pub learners_next: Vec<ReplicaId>,
    /// Whether the joint state ends by itself.
    pub auto_leave: bool,
}

/// The layout of the payload of an entry of kind 2, reserved for changes of membership: `version u8` (1),
/// `transition u8` (0 automatic, 1 joint and left by itself, 2 joint and left by an empty change), then a
/// list of `(change u8: 0 voter, 1 removed, 2 learner; replica u64)`, then a context (bytes; what a cell makes of it is
/// [`crate::cell::Changed`]). Replicas refuse transition 1: a joint state is left by an entry of the leader's own, with an
/// empty payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// How the joint state is entered and left.
    pub transition: u8,
    /// (what becomes of it, replica).
    pub changes: Vec<(u8, ReplicaId)>,
    /// The descriptor of the new epoch.
    pub context: bytes::Bytes,
}

impl Change {
    /// Its bytes.
    pub fn encode(&self) -> bytes::Bytes {
        let mut w = Writer::default();
        w.u8(1).u8(self.transition).count(self.changes.len());
        for (what, replica) in &self.changes {
            w.u8(*what).u64(replica.0);
        }
        w.bytes(&self.context);
        w.finish()
    }

    /// Reads a change that fills `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &bytes::Bytes) -> Result<Change, DecodeError> {
        let (mut r, _) = Reader::versioned("a change of membership", bytes, 1)?;
        let transition = r.u8()?;
        let n = r.count(9)?;
        let changes = (0..n).map(|_| Ok((r.u8()?, ReplicaId(r.u64()?)))).collect::<Result<_, _>>()?;
        let context = r.bytes()?;
        r.end()?;
        Ok(Change { transition, changes, context })
    }
}

impl Members {
    /// These voters and nobody else.
    pub fn of_voters(voters: impl IntoIterator<Item = ReplicaId>) -> Members {
        let mut voters: Vec<_> = voters.into_iter().collect();
        voters.sort_unstable();
        voters.dedup();
        Members { voters, ..Members::default() }
    }

    /// Whether `replica` votes, now or until the change under way is done.
    pub fn is_voter(&self, replica: ReplicaId) -> bool {
        self.voters.contains(&replica) || self.outgoing.contains(&replica)
    }

    /// The voters beside `replica`, now or until the change under way is done.
    pub fn peers(&self, replica: ReplicaId) -> impl Iterator<Item = ReplicaId> + '_ {
        self.voters.iter().chain(&self.outgoing).copied().filter(move |other| *other != replica)
    }

    /// All replicas, each once, sorted.
    pub fn all(&self) -> Vec<ReplicaId> {
        let mut all: Vec<_> = [&self.voters, &self.learners, &self.outgoing, &self.learners_next]
            .into_iter()
            .flatten()
            .copied()
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The greatest value that a quorum (of both halves, while joint) has reached: of a time, when a
    /// quorum last spoke; of an index, what a quorum holds. `T::default()` for a voter without one, and
    /// without voters.
    pub fn quorum_of<T: Ord + Copy + Default>(&self, of: impl Fn(ReplicaId) -> Option<T>) -> T {
        let half = |voters: &[ReplicaId]| {
            let mut values: Vec<T> = voters.iter().map(|v| of(*v).unwrap_or_default()).collect();
            values.sort_unstable_by(|a, b| b.cmp(a));
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        let incoming = half(&self.voters);
        if self.outgoing.is_empty() { incoming } else { incoming.min(half(&self.outgoing)) }
    }

    /// When a quorum last answered, if `me` counts as answering at `now`.
    pub(crate) fn quorum_time(&self, me: ReplicaId, now: Time, of: impl Fn(ReplicaId) -> Option<Time>) -> Time {
        self.quorum_of(|v| if v == me { Some(now) } else { of(v) })
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        for list in [&self.voters, &self.learners, &self.outgoing, &self.learners_next] {
            w.count(list.len());
            list.iter().for_each(|r| {
                w.u64(r.0);
            });
        }
        w.u8(u8::from(self.auto_leave));
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Members, DecodeError> {
        let mut list = || -> Result<Vec<ReplicaId>, DecodeError> {
            let list: Vec<_> = r.u64s()?.into_iter().map(ReplicaId).collect();
            if list.contains(&ReplicaId(0)) || !list.is_sorted_by(|a, b| a < b) {
                return Err(r.malformed());
            }
            Ok(list)
        };
        let (voters, learners, outgoing, learners_next) = (list()?, list()?, list()?, list()?);
        Ok(Members { voters, learners, outgoing, learners_next, auto_leave: r.bool()? })
    }

    pub(crate) fn to_conf_state(&self) -> ConfState {
        let ids = |l: &[ReplicaId]| l.iter().map(|r| r.0).collect();
        ConfState {
            voters: ids(&self.voters),
            learners: ids(&self.learners),
            voters_outgoing: ids(&self.outgoing),
            learners_next: ids(&self.learners_next),
            auto_leave: self.auto_leave,
        }
    }

    pub(crate) fn from_conf_state(cs: &ConfState) -> Members {
        let ids = |l: &[u64]| {
            let mut l: Vec<_> = l.iter().copied().map(ReplicaId).collect();
            l.sort_unstable();
            l
        };
        Members {
            voters: ids(&cs.voters),
            learners: ids(&cs.learners),
            outgoing: ids(&cs.voters_outgoing),
            learners_next: ids(&cs.learners_next),
            auto_leave: cs.auto_leave,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_a_majority_of_each_half() {
        let r = ReplicaId;
        let m = Members::of_voters([r(1), r(2), r(3)]);
        let t = |id: ReplicaId| [(r(1), 10), (r(2), 20), (r(4), 5)].into_iter().find(|x| x.0 == id).map(|x| x.1);
        assert_eq!(m.quorum_of(t), 10);
        let joint = Members { outgoing: alloc::vec![r(4)], ..m };
        assert_eq!(joint.quorum_of(t), 5);
        assert_eq!(Members::of_voters([r(2)]).quorum_of(t), 20);
        assert_eq!(Members::default().quorum_of(t), 0);
    }

    #[test]
    fn a_change_of_membership_keeps_its_bytes() {
        let change = Change {
            transition: 2,
            changes: alloc::vec![(0, ReplicaId(4)), (1, ReplicaId(1))],
            context: bytes::Bytes::from_static(b"d"),
        };
        let bytes = change.encode();
        assert_eq!(
            bytes[..],
            [1, 2, 2, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'd']
        );
        assert_eq!(Change::decode(&bytes), Ok(change));
    }
}
