//! What the replicas of a cell say to each other, and its bytes.
//!
//! A message is `version u8, kind u8, cell u128, epoch u64, from u64, to u64, term u64`, then what its
//! kind says (each variant of [`Body`] lists its fields in the order written; an `Option` never occurs,
//! a list is its `u32` count and its items). Numbers are little-endian. A layout never changes: a new one
//! is a new version or a new kind, and golden bytes of each are kept.
//!
//! Kinds 32 to 39 are reserved for sleep (`32 sleep(term, commit)`, `33 slept(term, commit)`, `34 wake`)
//! and kinds 40 to 47 for branches. Changes of membership need no message of their own: they are entries
//! of kind 1 and 2 ([`Entry::kind`]) whose payload is [`super::members::Change`].

use super::members::Members;
use crate::codec::{DecodeError, Reader, Writer};
use alloc::vec::Vec;
use base::{CellId, ReplicaId, Revision, Uid};
use bytes::Bytes;

/// The newest layout this release writes and reads.
pub const VERSION: u8 = 1;

/// An entry of a cell's log as it travels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The term it was proposed in.
    pub term: u64,
    /// Its place in the log.
    pub index: u64,
    /// Raft's entry kind: 0 a commit of the cell (or a new leader's empty one), 1 and 2 a change of
    /// membership.
    pub kind: u8,
    /// What was proposed.
    pub payload: Bytes,
}

/// A message between two replicas of one cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The cell.
    pub cell: CellId,
    /// The epoch of the descriptor the sender goes by; a receiver that knows a higher one refuses.
    pub epoch: u64,
    /// The sender.
    pub from: ReplicaId,
    /// The receiver.
    pub to: ReplicaId,
    /// The sender's term; of a pre-vote (and of the answer that grants it) the term it would campaign in.
    pub term: u64,
    /// What is said.
    pub body: Body,
}

/// What is said in a [`Message`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// Kind 1. The leader's entries after (`prev_index`, `prev_term`), and how far it has committed.
    Append {
        /// The index before the first entry.
        prev_index: u64,
        /// The term of that index.
        prev_term: u64,
        /// The leader's commit index.
        commit: u64,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// Kind 2. All up to `index` matches the leader's log and is durable here.
    Appended {
        /// The last index known to match.
        index: u64,
        /// The sender's commit index.
        commit: u64,
    },
    /// Kind 3. The entry before the appended ones does not match.
    AppendRefused {
        /// The index that did not match.
        index: u64,
        /// Where the leader should look next.
        hint_index: u64,
        /// The term the sender has there.
        hint_term: u64,
        /// The sender's commit index.
        commit: u64,
    },
    /// Kind 4. "Would you vote for me?" Changes nobody's term (Ongaro's dissertation, 9.6).
    AskPreVote(Candidate),
    /// Kind 5.
    PreVote(Vote),
    /// Kind 6.
    AskVote {
        /// The candidate's log.
        candidate: Candidate,
        /// The old leader asked for this election and has ended its lease, so a voter need not wait.
        transfer: bool,
    },
    /// Kind 7.
    Vote {
        /// The answer.
        vote: Vote,
        /// Nothing at or below this was promised to be minted any more by a leader this voter followed;
        /// a new leader mints above every bound it was elected with (section 5.5 of the architecture).
        bound: Revision,
    },
    /// Kind 8. "Campaign now": the leader hands over.
    TimeoutNow,
    /// Kind 9. One piece of a snapshot of the applied state at `index`.
    Piece {
        /// The last entry the snapshot holds.
        index: u64,
        /// That entry's term.
        index_term: u64,
        /// The number of this piece, from 0.
        number: u32,
        /// Whether it is the last.
        last: bool,
        /// The membership at `index`; empty but in piece 0.
        members: Members,
        /// `agree::cell`'s encoding.
        data: Bytes,
    },
    /// Kind 10. Pieces below `next` of the snapshot at `index` have arrived.
    PieceArrived {
        /// Which snapshot.
        index: u64,
        /// The piece awaited next.
        next: u32,
    },
    /// Kind 11. "Hold that nothing at or below `revision` will be minted": closed(T, term, index).
    Close {
        /// T.
        revision: Revision,
        /// All that was minted at or below T lies at or below this index.
        index: u64,
    },
    /// Kind 12. The sender holds that durably.
    Closed {
        /// T.
        revision: Revision,
    },
    /// Kind 13. The sender has lost something it acknowledged: it neither votes nor acknowledges, and
    /// waits to be taken in again under a new replica id.
    Lossy,
    /// Kind 14. The sender holds nothing of the cell, not even who its members are: it needs a snapshot.
    Blank,
    /// Kind 15. The joint state at `index` is in force at the sender, and will be if it starts anew.
    Members {
        /// An index in it.
        index: u64,
    },
}

/// What a candidate says of its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The index of its last entry.
    pub last_index: u64,
    /// The term of its last entry.
    pub last_term: u64,
    /// Its commit index.
    pub commit: u64,
    /// The term of that index.
    pub commit_term: u64,
}

/// An answer to a candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vote {
    /// Whether it is granted.
    pub granted: bool,
    /// The voter's commit index; 0 if granted.
    pub commit: u64,
    /// The term of that index; 0 if granted.
    pub commit_term: u64,
}

impl Message {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(128);
        w.u8(VERSION).u8(self.body.kind()).u128(self.cell.0.0).u64(self.epoch);
        w.u64(self.from.0).u64(self.to.0).u64(self.term);
        self.body.write(&mut w);
        w.finish()
    }

    /// Reads a message that fills `bytes`, sharing their memory.
    ///
    /// # Errors
    /// [`DecodeError`]: the sender speaks a newer version, or the bytes are damaged.
    pub fn decode(bytes: &Bytes) -> Result<Message, DecodeError> {
        let (mut r, _) = Reader::versioned("a message between replicas", bytes, VERSION)?;
        let kind = r.u8()?;
        let cell = CellId(Uid(r.u128()?));
        let epoch = r.u64()?;
        let (from, to, term) = (ReplicaId(r.u64()?), ReplicaId(r.u64()?), r.u64()?);
        let body = Body::read(kind, &mut r)?;
        r.end()?;
        if from.0 == 0 || to.0 == 0 {
            return Err(DecodeError::Malformed { what: "a message between replicas", length: bytes.len(), at: 0 });
        }
        Ok(Message { cell, epoch, from, to, term, body })
    }
}

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Body::Append { .. } => 1,
            Body::Appended { .. } => 2,
            Body::AppendRefused { .. } => 3,
            Body::AskPreVote(_) => 4,
            Body::PreVote(_) => 5,
            Body::AskVote { .. } => 6,
            Body::Vote { .. } => 7,
            Body::TimeoutNow => 8,
            Body::Piece { .. } => 9,
            Body::PieceArrived { .. } => 10,
            Body::Close { .. } => 11,
            Body::Closed { .. } => 12,
            Body::Lossy => 13,
            Body::Blank => 14,
            Body::Members { .. } => 15,
        }
    }

    fn write(&self, w: &mut Writer) {
        match self {
            Body::Append { prev_index, prev_term, commit, entries } => {
                w.u64(*prev_index).u64(*prev_term).u64(*commit).count(entries.len());
                for e in entries {
                    w.u64(e.term).u64(e.index).u8(e.kind).bytes(&e.payload);
                }
            }
            Body::Appended { index, commit } => {
                w.u64(*index).u64(*commit);
            }
            Body::AppendRefused { index, hint_index, hint_term, commit } => {
                w.u64(*index).u64(*hint_index).u64(*hint_term).u64(*commit);
            }
            Body::AskPreVote(candidate) => candidate.write(w),
            Body::PreVote(vote) => vote.write(w),
            Body::AskVote { candidate, transfer } => {
                candidate.write(w);
                w.u8(u8::from(*transfer));
            }
            Body::Vote { vote, bound } => {
                vote.write(w);
                w.u64(bound.get());
            }
            Body::Members { index } => {
                w.u64(*index);
            }
            Body::TimeoutNow | Body::Lossy | Body::Blank => {}
            Body::Piece { index, index_term, number, last, members, data } => {
                w.u64(*index).u64(*index_term).u32(*number).u8(u8::from(*last));
                members.write(w);
                w.bytes(data);
            }
            Body::PieceArrived { index, next } => {
                w.u64(*index).u32(*next);
            }
            Body::Close { revision, index } => {
                w.u64(revision.get()).u64(*index);
            }
            Body::Closed { revision } => {
                w.u64(revision.get());
            }
        }
    }

    fn read(kind: u8, r: &mut Reader<'_>) -> Result<Body, DecodeError> {
        Ok(match kind {
            1 => {
                let (prev_index, prev_term, commit) = (r.u64()?, r.u64()?, r.u64()?);
                let mut entries = Vec::new();
                for n in 1..=r.count(21)? as u64 {
                    let e = Entry { term: r.u64()?, index: r.u64()?, kind: r.u8()?, payload: r.bytes()? };
                    // The library below asserts this of what it is handed.
                    if prev_index.checked_add(n) != Some(e.index) || e.kind > 2 {
                        return Err(r.malformed());
                    }
                    entries.push(e);
                }
                Body::Append { prev_index, prev_term, commit, entries }
            }
            2 => Body::Appended { index: r.u64()?, commit: r.u64()? },
            3 => Body::AppendRefused { index: r.u64()?, hint_index: r.u64()?, hint_term: r.u64()?, commit: r.u64()? },
            4 => Body::AskPreVote(Candidate::read(r)?),
            5 => Body::PreVote(Vote::read(r)?),
            6 => Body::AskVote { candidate: Candidate::read(r)?, transfer: r.bool()? },
            7 => Body::Vote { vote: Vote::read(r)?, bound: revision(r)? },
            8 => Body::TimeoutNow,
            9 => Body::Piece {
                index: r.u64()?,
                index_term: r.u64()?,
                number: r.u32()?,
                last: r.bool()?,
                members: Members::read(r)?,
                data: r.bytes()?,
            },
            10 => Body::PieceArrived { index: r.u64()?, next: r.u32()? },
            11 => Body::Close { revision: revision(r)?, index: r.u64()? },
            12 => Body::Closed { revision: revision(r)? },
            13 => Body::Lossy,
            14 => Body::Blank,
            15 => Body::Members { index: r.u64()? },
            other => return Err(r.newer(other)),
        })
    }
}

impl Candidate {
    fn write(&self, w: &mut Writer) {
        w.u64(self.last_index).u64(self.last_term).u64(self.commit).u64(self.commit_term);
    }

    fn read(r: &mut Reader<'_>) -> Result<Candidate, DecodeError> {
        Ok(Candidate { last_index: r.u64()?, last_term: r.u64()?, commit: r.u64()?, commit_term: r.u64()? })
    }
}

impl Vote {
    fn write(&self, w: &mut Writer) {
        w.u8(u8::from(self.granted)).u64(self.commit).u64(self.commit_term);
    }

    fn read(r: &mut Reader<'_>) -> Result<Vote, DecodeError> {
        Ok(Vote { granted: r.bool()?, commit: r.u64()?, commit_term: r.u64()? })
    }
}

/// A revision as formats of this crate write it: below 2^63.
pub(crate) fn revision(r: &mut Reader<'_>) -> Result<Revision, DecodeError> {
    let n = r.u64()?;
    Revision::from_u64(n).ok_or_else(|| r.malformed())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use alloc::string::String;
    use alloc::{format, vec};
    use proptest::prelude::*;

    fn one_of_each() -> Vec<Message> {
        let candidate = Candidate { last_index: 9, last_term: 3, commit: 7, commit_term: 2 };
        let r = |n| Revision::from_u64(n).unwrap();
        let members = Members::of_voters([ReplicaId(1), ReplicaId(2), ReplicaId(3)]);
        [
            Body::Append {
                prev_index: 4,
                prev_term: 2,
                commit: 3,
                entries: vec![
                    Entry { term: 3, index: 5, kind: 0, payload: Bytes::new() },
                    Entry { term: 3, index: 6, kind: 2, payload: Bytes::from_static(b"joint") },
                ],
            },
            Body::Appended { index: 6, commit: 3 },
            Body::AppendRefused { index: 6, hint_index: 4, hint_term: 2, commit: 3 },
            Body::AskPreVote(candidate),
            Body::PreVote(Vote { granted: true, commit: 0, commit_term: 0 }),
            Body::AskVote { candidate, transfer: true },
            Body::Vote { vote: Vote { granted: false, commit: 7, commit_term: 2 }, bound: r(1 << 40) },
            Body::TimeoutNow,
            Body::Piece {
                index: 9,
                index_term: 3,
                number: 0,
                last: false,
                members,
                data: Bytes::from_static(b"state"),
            },
            Body::PieceArrived { index: 9, next: 1 },
            Body::Close { revision: r(77), index: 9 },
            Body::Closed { revision: r(77) },
            Body::Lossy,
            Body::Blank,
            Body::Members { index: 9 },
        ]
        .into_iter()
        .map(|body| Message {
            cell: CellId(Uid(0x0102_0304)),
            epoch: 5,
            from: ReplicaId(2),
            to: ReplicaId(1),
            term: 3,
            body,
        })
        .collect()
    }

    #[test]
    fn every_message_has_the_bytes_it_always_had() {
        let text: String = one_of_each()
            .iter()
            .map(|m| m.encode().iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n")
            .collect();
        assert_eq!(text, include_str!("../../tests/golden/messages-v1.hex"));
    }

    #[test]
    fn a_message_reads_back_and_a_shorter_or_longer_one_is_refused() {
        for m in one_of_each() {
            let bytes = m.encode();
            assert_eq!(Message::decode(&bytes).as_ref(), Ok(&m));
            for cut in 0..bytes.len() {
                assert!(Message::decode(&bytes.slice(..cut)).is_err(), "{m:?} cut at {cut}");
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert!(Message::decode(&longer.into()).is_err());
        }
    }

    #[test]
    fn a_message_of_a_newer_release_is_named_as_such() {
        for (at, value) in [(0, VERSION + 1), (1, 32)] {
            let mut bytes = one_of_each().remove(12).encode().to_vec();
            bytes[at] = value;
            assert!(
                matches!(Message::decode(&bytes.into()), Err(DecodeError::Newer { version, .. }) if version == value)
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..20) {
            if let [version, k, ..] = &mut bytes[..] {
                (*version, *k) = (VERSION, kind);
            }
            let _ = Message::decode(&bytes.into());
        }
    }
}
