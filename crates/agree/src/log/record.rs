//! What cells write into the log, and its bytes.
//!
//! A record is `kind: u8`, `version: u8`, `cell: u128`, then what its kind says. Numbers are
//! little-endian, and a trailing byte string reaches to the end of the record (the frame around it knows
//! its length), so encoding copies a payload once and decoding not at all. The layout of a (kind,
//! version) never changes: a new layout is a new version, and every old one is decoded for ever (the
//! golden files of this crate's tests hold one of each).
//!
//! | kind | record | after `cell` |
//! |---|---|---|
//! | 1 | [`Record::Entry`] | `replica u64, term u64, index u64, entry kind u8, payload` |
//! | 2 | [`Record::Hard`] | `replica u64, term u64, vote u64, commit u64` |
//! | 3 | [`Record::Checkpoint`] | `replica u64, applied index u64, applied term u64, body` |
//! | 4 | [`Record::Carried`] | `record` |
//! | 5 | [`Record::Bound`] | `replica u64, revision u64` |
//! | 6 | [`Record::Forget`] | `replica u64` |
//! | 7 | reserved: Sleep | `replica u64, term u64, commit u64` |
//! | 8 | reserved: Branch (a commit on one) | `replica u64, epoch u64, base index u64, sequencer [u8; 32], boot u64, index u64, payload` |
//! | 9 | reserved: View (its opening or sealing) | `replica u64, epoch u64, base index u64, sequencer [u8; 32], boot u64, sealed u8, members` |
//!
//! Changes of membership, learners and joint ones too, are entries (Raft's entry kinds 1 and 2), not a
//! record of their own.

use alloc::vec::Vec;
use base::{CellId, ReplicaId, Revision, Uid};
use bytes::Bytes;

/// One persist request of one cell machine: named by the cell, and told back to it once it is durable.
/// Tickets of one cell rise; those of two cells have nothing to do with each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ticket(pub u64);

/// One record of the log. Every record names its cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// An entry of the cell's Raft log. A later one of an index that was logged before wins, and voids
    /// every index above it, as Raft overwrites.
    Entry {
        /// Whose log.
        cell: CellId,
        /// The life of the member that logged it.
        replica: ReplicaId,
        /// The term it was proposed in.
        term: u64,
        /// Its place in the cell's log.
        index: u64,
        /// Raft's entry kind: 0 a commit of the cell, 1 and 2 changes of membership.
        kind: u8,
        /// What was proposed; `agree::cell`'s encoding.
        payload: Bytes,
    },
    /// Raft's hard state. The last one counts.
    Hard {
        /// Whose.
        cell: CellId,
        /// The life of the member that holds to it.
        replica: ReplicaId,
        /// The latest term seen.
        term: u64,
        /// Whom this member voted for in that term; 0 for nobody.
        vote: u64,
        /// The highest index known committed.
        commit: u64,
    },
    /// What the cell's state rests on besides objects: membership, request ids, bounds. Entries at or
    /// below `applied_index` are needed no more. The last one counts.
    Checkpoint {
        /// Whose.
        cell: CellId,
        /// The life of the member.
        replica: ReplicaId,
        /// The last entry applied.
        applied_index: u64,
        /// That entry's term.
        applied_term: u64,
        /// `agree::cell`'s encoding; never objects.
        body: Bytes,
    },
    /// A live object record written forward out of an old segment, which is then removed.
    Carried {
        /// Whose.
        cell: CellId,
        /// `agree::cell`'s encoding. An object's newest revision wins, wherever it stands in the log.
        record: Bytes,
    },
    /// A promise: this voter lets nothing at or below `revision` be minted (closed(T)).
    Bound {
        /// Whose.
        cell: CellId,
        /// The life of the member that promised.
        replica: ReplicaId,
        /// The bound.
        revision: Revision,
    },
    /// This life of the member is over: earlier records of it are void, and so is all that was carried
    /// for the cell before.
    Forget {
        /// Whose.
        cell: CellId,
        /// The life that ends.
        replica: ReplicaId,
    },
}

/// Bytes of a frame whose checksum is right, and which are no record all the same.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// A release that knows more wrote it.
    #[error(
        "a log record of kind {kind} version {version} was written by a newer release of beemesh; \
         nothing was changed: start that release again, or a newer one"
    )]
    Newer {
        /// The kind byte.
        kind: u8,
        /// The version byte.
        version: u8,
    },
    /// It ends before its kind says it does, or holds a number out of range.
    #[error("a log record of {length} bytes (kind {kind}) is not what its kind says it is")]
    Malformed {
        /// The kind byte; 0 if there is none.
        kind: u8,
        /// The record's length.
        length: usize,
    },
}

const ENTRY: u8 = 1;
const HARD: u8 = 2;
const CHECKPOINT: u8 = 3;
const CARRIED: u8 = 4;
const BOUND: u8 = 5;
const FORGET: u8 = 6;
/// Every kind's present version.
const VERSION: u8 = 1;

impl Record {
    /// The cell it belongs to.
    pub fn cell(&self) -> CellId {
        match self {
            Record::Entry { cell, .. }
            | Record::Hard { cell, .. }
            | Record::Checkpoint { cell, .. }
            | Record::Carried { cell, .. }
            | Record::Bound { cell, .. }
            | Record::Forget { cell, .. } => *cell,
        }
    }

    /// The life of the member it belongs to; `None` for a carried record, which is the cell's.
    pub fn replica(&self) -> Option<ReplicaId> {
        match self {
            Record::Entry { replica, .. }
            | Record::Hard { replica, .. }
            | Record::Checkpoint { replica, .. }
            | Record::Bound { replica, .. }
            | Record::Forget { replica, .. } => Some(*replica),
            Record::Carried { .. } => None,
        }
    }

    /// How many bytes [`Record::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        18 + match self {
            Record::Entry { payload, .. } => 25 + payload.len(),
            Record::Hard { .. } => 32,
            Record::Checkpoint { body, .. } => 24 + body.len(),
            Record::Carried { record, .. } => record.len(),
            Record::Bound { .. } => 16,
            Record::Forget { .. } => 8,
        }
    }

    /// Appends its bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut head = |kind: u8, cell: &CellId, numbers: &[u64]| {
            out.extend_from_slice(&[kind, VERSION]);
            out.extend_from_slice(&cell.0.0.to_le_bytes());
            numbers.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
        };
        match self {
            Record::Entry { cell, replica, term, index, kind, payload } => {
                head(ENTRY, cell, &[replica.0, *term, *index]);
                out.push(*kind);
                out.extend_from_slice(payload);
            }
            Record::Hard { cell, replica, term, vote, commit } => {
                head(HARD, cell, &[replica.0, *term, *vote, *commit]);
            }
            Record::Checkpoint { cell, replica, applied_index, applied_term, body } => {
                head(CHECKPOINT, cell, &[replica.0, *applied_index, *applied_term]);
                out.extend_from_slice(body);
            }
            Record::Carried { cell, record } => {
                head(CARRIED, cell, &[]);
                out.extend_from_slice(record);
            }
            Record::Bound { cell, replica, revision } => head(BOUND, cell, &[replica.0, revision.get()]),
            Record::Forget { cell, replica } => head(FORGET, cell, &[replica.0]),
        }
    }

    /// Reads one record that fills `bytes`. Payloads share `bytes`' memory: who keeps a small one for
    /// long copies it.
    ///
    /// # Errors
    /// [`RecordError`]; never a panic, whatever the bytes.
    pub fn decode(bytes: &Bytes) -> Result<Record, RecordError> {
        let mut rest = Rest { bytes, at: 0 };
        let kind = rest.u8()?;
        let version = rest.u8()?;
        if !(ENTRY..=FORGET).contains(&kind) || version != VERSION {
            return Err(RecordError::Newer { kind, version });
        }
        let cell = CellId(Uid(rest.u128()?));
        match kind {
            CARRIED => return Ok(Record::Carried { cell, record: rest.all() }),
            ENTRY | CHECKPOINT => {}
            _ => rest.ends_after(match kind {
                HARD => 32,
                BOUND => 16,
                _ => 8,
            })?,
        }
        let replica = ReplicaId(rest.u64()?);
        Ok(match kind {
            ENTRY => Record::Entry {
                cell,
                replica,
                term: rest.u64()?,
                index: rest.u64()?,
                kind: rest.u8()?,
                payload: rest.all(),
            },
            HARD => Record::Hard { cell, replica, term: rest.u64()?, vote: rest.u64()?, commit: rest.u64()? },
            CHECKPOINT => Record::Checkpoint {
                cell,
                replica,
                applied_index: rest.u64()?,
                applied_term: rest.u64()?,
                body: rest.all(),
            },
            BOUND => {
                let revision = Revision::from_u64(rest.u64()?).ok_or_else(|| rest.malformed())?;
                Record::Bound { cell, replica, revision }
            }
            _ => Record::Forget { cell, replica },
        })
    }
}

/// What of a record is still to be read.
struct Rest<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Rest<'_> {
    fn malformed(&self) -> RecordError {
        RecordError::Malformed { kind: self.bytes.first().copied().unwrap_or(0), length: self.bytes.len() }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let chunk = self.bytes.get(self.at..).and_then(|b| b.first_chunk::<N>()).ok_or_else(|| self.malformed())?;
        self.at += N;
        Ok(*chunk)
    }

    fn u8(&mut self) -> Result<u8, RecordError> {
        self.take().map(u8::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, RecordError> {
        self.take().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Result<u128, RecordError> {
        self.take().map(u128::from_le_bytes)
    }

    fn ends_after(&self, length: usize) -> Result<(), RecordError> {
        if self.bytes.len() == self.at + length { Ok(()) } else { Err(self.malformed()) }
    }

    fn all(&self) -> Bytes {
        self.bytes.slice(self.at..)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_record() -> impl Strategy<Value = Record> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        let ids = (0u128..4, 1u64..4).prop_map(|(c, r)| (CellId(Uid(c)), ReplicaId(r)));
        let numbers = any::<[u64; 3]>();
        (0u8..6, ids, numbers, any::<u8>(), bytes()).prop_map(|(which, (cell, replica), [a, b, c], kind, body)| {
            match which {
                0 => Record::Entry { cell, replica, term: a, index: b, kind, payload: body },
                1 => Record::Hard { cell, replica, term: a, vote: b, commit: c },
                2 => Record::Checkpoint { cell, replica, applied_index: a, applied_term: b, body },
                3 => Record::Carried { cell, record: body },
                4 => Record::Bound { cell, replica, revision: Revision::from_u64(a >> 1).unwrap() },
                _ => Record::Forget { cell, replica },
            }
        })
    }

    #[test]
    fn a_record_of_a_newer_release_is_named_as_such_and_not_as_damage() {
        for (kind, version) in [(0, 1), (7, 1), (255, 1), (ENTRY, 2), (FORGET, 0)] {
            let mut bytes = alloc::vec![kind, version];
            bytes.resize(64, 0);
            assert_eq!(Record::decode(&bytes.into()), Err(RecordError::Newer { kind, version }));
        }
    }

    #[test]
    fn a_bound_beyond_63_bits_is_refused() {
        let mut bytes = Vec::new();
        let bound = Record::Bound { cell: CellId::default(), replica: ReplicaId(1), revision: Revision::MAX };
        bound.encode(&mut bytes);
        *bytes.last_mut().unwrap() = 0xff;
        assert_eq!(Record::decode(&bytes.into()), Err(RecordError::Malformed { kind: BOUND, length: 34 }));
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(record in any_record()) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), record.encoded_len());
            prop_assert_eq!(Record::decode(&bytes.into()), Ok(record));
        }

        #[test]
        fn a_record_cut_within_its_numbers_is_refused(record in any_record(), cut in 0usize..18) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            bytes.truncate(cut);
            prop_assert!(Record::decode(&bytes.into()).is_err());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), kind in 0u8..8) {
            let _ = Record::decode(&Bytes::from(bytes.clone()));
            let mut likely = alloc::vec![kind, VERSION];
            likely.extend(bytes);
            if let Ok(record) = Record::decode(&likely.clone().into()) {
                let mut again = Vec::new();
                record.encode(&mut again);
                prop_assert_eq!(again, likely);
            }
        }
    }
}
