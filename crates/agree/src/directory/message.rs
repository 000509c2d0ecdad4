//! What two directories say to each other, and its bytes.
//!
//! A message is `version u8, kind u8`, then the fields of its variant of [`Message`] in the order written. A key is
//! `kind u8` (1 node, 2 cell, 3 hive) and 32 or 16 bytes; a version three `u64`; a record `kind u8` (as of keys) and its
//! bytes; an `Option` is a `u8`, 0 if it is absent. Kinds 8 to 15 are reserved for looking up across hives.

use super::{Key, Record, Version};
use crate::codec::{DecodeError, Reader, Writer};
use alloc::vec::Vec;
use base::{CellId, NodeId, Uid};
use bytes::Bytes;

/// Bytes of one message, at most; a longer one is refused unread.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Into how many buckets the keys are spread.
pub const BUCKETS: usize = 256;

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Kind 1. "All that I hold has this hash." Rides with a heartbeat; unanswered if the receiver's is the same.
    Digest {
        /// The hash.
        whole: u64,
    },
    /// Kind 2. The answer to another hash: that of each bucket, [`BUCKETS`] of them.
    Buckets {
        /// The hashes.
        hashes: Vec<u64>,
    },
    /// Kind 3. All that the sender holds in some of the buckets that differ.
    Listing {
        /// The buckets, sorted, each once.
        buckets: Vec<u8>,
        /// The keys in them.
        items: Vec<(Key, Version)>,
        /// Whether other buckets differ as well.
        more: bool,
    },
    /// Kind 4. "Give me these, if yours are newer."
    Want {
        /// The keys, and the versions the sender has.
        items: Vec<(Key, Version)>,
        /// Whether there is more to compare afterwards.
        more: bool,
    },
    /// Kind 5. Records.
    Records {
        /// They are.
        records: Vec<Record>,
        /// They are news, to be told on; else they make up for what was missed.
        news: bool,
        /// There is more to compare.
        more: bool,
    },
    /// Kind 6. "What do you hold of this?"
    Ask {
        /// Names the question.
        id: u64,
        /// Of what.
        key: Key,
        /// What the sender has; nothing older is wanted.
        have: Version,
    },
    /// Kind 7. The answer to one question.
    Answer {
        /// The question.
        id: u64,
        /// `None`: nothing, or nothing newer.
        record: Option<Record>,
        /// Who leads the cell in which term, as far as the sender knows: a hint, and nobody's word.
        leader: Option<(NodeId, u64)>,
    },
}

impl Message {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(64);
        w.u8(1);
        match self {
            Message::Digest { whole } => {
                w.u8(1).u64(*whole);
            }
            Message::Buckets { hashes } => {
                w.u8(2);
                hashes.iter().for_each(|h| {
                    w.u64(*h);
                });
            }
            Message::Listing { buckets, items, more } => {
                w.u8(3).bytes(buckets);
                write_items(&mut w, items);
                w.u8(u8::from(*more));
            }
            Message::Want { items, more } => {
                w.u8(4);
                write_items(&mut w, items);
                w.u8(u8::from(*more));
            }
            Message::Records { records, news, more } => {
                w.u8(5).count(records.len());
                records.iter().for_each(|r| r.write(&mut w));
                w.u8(u8::from(*news)).u8(u8::from(*more));
            }
            Message::Ask { id, key, have } => {
                w.u8(6).u64(*id);
                key.write(&mut w);
                have.write(&mut w);
            }
            Message::Answer { id, record, leader } => {
                w.u8(7).u64(*id).u8(u8::from(record.is_some()));
                if let Some(record) = record {
                    record.write(&mut w);
                }
                w.u8(u8::from(leader.is_some()));
                if let Some((node, term)) = leader {
                    w.0.extend_from_slice(&node.0);
                    w.u64(*term);
                }
            }
        }
        w.finish()
    }

    /// Reads a message that fills `bytes`, sharing their memory.
    ///
    /// # Errors
    /// [`DecodeError`]: the sender speaks a newer version, or the bytes are damaged or too many.
    pub fn decode(bytes: &Bytes) -> Result<Message, DecodeError> {
        let (mut r, _) = Reader::versioned("a message between directories", bytes, 1)?;
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(r.malformed());
        }
        let message = match r.u8()? {
            1 => Message::Digest { whole: r.u64()? },
            2 => Message::Buckets { hashes: (0..BUCKETS).map(|_| r.u64()).collect::<Result<_, _>>()? },
            3 => {
                let buckets = r.bytes()?;
                if !buckets.is_sorted_by(|a, b| a < b) {
                    return Err(r.malformed());
                }
                Message::Listing { buckets: buckets.to_vec(), items: read_items(&mut r)?, more: r.bool()? }
            }
            4 => Message::Want { items: read_items(&mut r)?, more: r.bool()? },
            5 => {
                let records = (0..r.count(5)?).map(|_| Record::read(&mut r)).collect::<Result<_, _>>()?;
                Message::Records { records, news: r.bool()?, more: r.bool()? }
            }
            6 => Message::Ask { id: r.u64()?, key: Key::read(&mut r)?, have: Version::read(&mut r)? },
            7 => {
                let id = r.u64()?;
                let record = if r.bool()? { Some(Record::read(&mut r)?) } else { None };
                let leader = if r.bool()? { Some((NodeId(r.array()?), r.u64()?)) } else { None };
                Message::Answer { id, record, leader }
            }
            other => return Err(r.newer(other)),
        };
        r.end()?;
        Ok(message)
    }
}

/// Bytes of one item of a listing, at most.
pub(super) const ITEM_BYTES: usize = 1 + 32 + 24;

fn write_items(w: &mut Writer, items: &[(Key, Version)]) {
    w.count(items.len());
    for (key, version) in items {
        key.write(w);
        version.write(w);
    }
}

fn read_items(r: &mut Reader<'_>) -> Result<Vec<(Key, Version)>, DecodeError> {
    (0..r.count(41)?).map(|_| Ok((Key::read(r)?, Version::read(r)?))).collect()
}

impl Version {
    fn write(self, w: &mut Writer) {
        w.u64(self.0).u64(self.1).u64(self.2);
    }

    fn read(r: &mut Reader<'_>) -> Result<Version, DecodeError> {
        Ok(Version(r.u64()?, r.u64()?, r.u64()?))
    }
}

impl Key {
    pub(super) fn write(&self, w: &mut Writer) {
        match self {
            Key::Node(node) => {
                w.u8(1);
                w.0.extend_from_slice(&node.0);
            }
            Key::Cell(cell) => {
                w.u8(2).u128(cell.0.0);
            }
            Key::Hive(hive) => {
                w.u8(3).u128(hive.0.0);
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Key, DecodeError> {
        Ok(match r.u8()? {
            1 => Key::Node(NodeId(r.array()?)),
            2 => Key::Cell(CellId(Uid(r.u128()?))),
            3 => Key::Hive(CellId(Uid(r.u128()?))),
            other => return Err(r.newer(other)),
        })
    }
}

impl Record {
    fn write(&self, w: &mut Writer) {
        let (kind, bytes) = match self {
            Record::Node(b) => (1, b),
            Record::Cell(b) => (2, b),
            Record::Hive(b) => (3, b),
        };
        w.u8(kind).bytes(bytes);
    }

    fn read(r: &mut Reader<'_>) -> Result<Record, DecodeError> {
        Ok(match r.u8()? {
            1 => Record::Node(r.bytes()?),
            2 => Record::Cell(r.bytes()?),
            3 => Record::Hive(r.bytes()?),
            other => return Err(r.newer(other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::{format, vec};
    use proptest::prelude::*;

    fn one_of_each() -> Vec<Message> {
        let items = vec![
            (Key::Node(NodeId([1; 32])), Version(2, 3, 4)),
            (Key::Cell(CellId(Uid(5))), Version(6, 1, 0)),
            (Key::Hive(CellId(Uid(7))), Version(8, 0, 9)),
        ];
        let records = vec![
            Record::Node(Bytes::from_static(b"node")),
            Record::Cell(Bytes::from_static(b"chain")),
            Record::Hive(Bytes::from_static(b"hive")),
        ];
        vec![
            Message::Digest { whole: 0x0102_0304 },
            Message::Buckets { hashes: (0..BUCKETS as u64).collect() },
            Message::Listing { buckets: vec![3, 200], items: items.clone(), more: true },
            Message::Want { items, more: false },
            Message::Records { records: records.clone(), news: true, more: false },
            Message::Ask { id: 9, key: Key::Cell(CellId(Uid(5))), have: Version(1, 1, 0) },
            Message::Answer { id: 9, record: records.first().cloned(), leader: Some((NodeId([2; 32]), 4)) },
            Message::Answer { id: 9, record: None, leader: None },
        ]
    }

    #[test]
    fn every_message_has_the_bytes_it_always_had() {
        let hex = |m: &Message| m.encode().iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n";
        let text: String = one_of_each().iter().map(hex).collect();
        assert_eq!(text, include_str!("../../tests/golden/directory-messages-v1.hex"));
    }

    #[test]
    fn a_message_reads_back_and_a_shorter_or_longer_one_is_refused() {
        for m in one_of_each() {
            let bytes = m.encode();
            assert_eq!(Message::decode(&bytes).as_ref(), Ok(&m));
            assert!((0..bytes.len()).all(|cut| Message::decode(&bytes.slice(..cut)).is_err()), "{m:?}");
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert!(Message::decode(&longer.into()).is_err());
        }
        let big = Message::Records {
            records: vec![Record::Node(Bytes::from(vec![0; MESSAGE_BYTES_MAX]))],
            news: false,
            more: false,
        };
        assert!(Message::decode(&big.encode()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0u8..12) {
            let mut all = vec![1, kind];
            all.extend(bytes);
            let all = Bytes::from(all);
            let _ = Message::decode(&all);
            let _ = super::super::Chain::decode(&all);
            let _ = super::super::NodeRecord::decode(&all.slice(1..));
            let _ = super::super::HiveRecord::decode(&all.slice(1..));
        }
    }
}
