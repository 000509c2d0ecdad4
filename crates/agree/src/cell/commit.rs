//! The payload of a commit entry, and its bytes.
//!
//! An entry holds results, never requests to be computed again: two releases must apply alike. So it
//! holds, of each object it changes, the key, what must be true of it, the revision minted for the
//! change, and the record as it is to be.
//!
//! Version 1: `version u8`, `bundle u64`, `stamped u8` and if 1 `request u128, first sent u64` (ms of Unix time),
//! `count u32`, then of each change `key`, `expect u8` (0 any, 1 absent, 2 at and `revision u64`), `revision u64`,
//! `write u8` (1 put, 2 delete), `created u64`, `meta`, `value`. Byte strings have a `u32` length before
//! them.

use crate::codec::{DecodeError, Reader, Writer};
use crate::raft::message::revision;
use alloc::vec::Vec;
use base::{RequestId, Revision, Wall};
use bytes::Bytes;

/// The newest layout this release writes and reads.
pub const VERSION: u8 = 1;

/// One commit: changes that happen together or not at all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Commit {
    /// The number of the bundle it was decided under.
    pub bundle: u64,
    /// The request it answers; `None` for the cell's own.
    pub request: Option<RequestStamp>,
    /// The changes, with rising revisions, no key twice.
    pub changes: Vec<Change>,
}

/// Which request, and when its first attempt was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestStamp {
    /// The same for every retry.
    pub id: RequestId,
    /// By the gateway's calendar.
    pub first_sent: Wall,
}

/// One object's change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The object.
    pub key: Bytes,
    /// What must be true of it when the entry is applied.
    pub expect: Expect,
    /// The change's number.
    pub revision: Revision,
    /// What becomes of it.
    pub write: Write,
}

/// A precondition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// None.
    Any,
    /// There is no such object.
    Absent,
    /// It is there, at this revision.
    At(Revision),
}

/// What becomes of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// It is this.
    Put {
        /// The revision of its creation: this change's own, if it creates it. Written down, because a log
        /// whose oldest segments are gone no longer tells.
        created: Revision,
        /// The header; opaque here.
        meta: Bytes,
        /// The canonical bytes; opaque here.
        value: Bytes,
    },
    /// It is gone. Its last image (the bytes a watcher is shown) may come along; empty if not.
    Delete {
        /// The header of the last image.
        meta: Bytes,
        /// The last image.
        value: Bytes,
    },
}

impl Commit {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let size = |c: &Change| c.key.len() + 48 + c.write.len();
        let mut w = Writer::with_capacity(40 + self.changes.iter().map(size).sum::<usize>());
        w.u8(VERSION).u64(self.bundle);
        write_stamp(&mut w, self.request.as_ref());
        w.count(self.changes.len());
        for c in &self.changes {
            w.bytes(&c.key);
            match c.expect {
                Expect::Any => w.u8(0),
                Expect::Absent => w.u8(1),
                Expect::At(r) => w.u8(2).u64(r.get()),
            };
            w.u64(c.revision.get());
            match &c.write {
                Write::Put { created, meta, value } => w.u8(1).u64(created.get()).bytes(meta).bytes(value),
                Write::Delete { meta, value } => w.u8(2).u64(0).bytes(meta).bytes(value),
            };
        }
        w.finish()
    }

    /// Reads a commit that fills `bytes`, sharing their memory.
    ///
    /// # Errors
    /// [`DecodeError`]: a newer release wrote it, or it is damaged. A replica that cannot read an entry
    /// must not go on past it.
    pub fn decode(bytes: &Bytes) -> Result<Commit, DecodeError> {
        let (mut r, _) = Reader::versioned("a commit", bytes, VERSION)?;
        let bundle = r.u64()?;
        let request = read_stamp(&mut r)?;
        let mut changes = Vec::new();
        for _ in 0..r.count(30)? {
            let key = r.bytes()?;
            let expect = match r.u8()? {
                0 => Expect::Any,
                1 => Expect::Absent,
                2 => Expect::At(revision(&mut r)?),
                other => return Err(r.newer(other)),
            };
            let at = revision(&mut r)?;
            let (what, created) = (r.u8()?, revision(&mut r)?);
            let (meta, value) = (r.bytes()?, r.bytes()?);
            let write = match what {
                1 => Write::Put { created, meta, value },
                2 => Write::Delete { meta, value },
                other => return Err(r.newer(other)),
            };
            changes.push(Change { key, expect, revision: at, write });
        }
        r.end()?;
        Ok(Commit { bundle, request, changes })
    }

    /// The greatest revision among its changes.
    pub fn last_revision(&self) -> Option<Revision> {
        self.changes.iter().map(|c| c.revision).max()
    }
}

impl Write {
    fn len(&self) -> usize {
        match self {
            Write::Put { meta, value, .. } | Write::Delete { meta, value } => meta.len() + value.len(),
        }
    }
}

pub(crate) fn write_stamp(w: &mut Writer, stamp: Option<&RequestStamp>) {
    match stamp {
        Some(s) => w.u8(1).u128(s.id.0).u64(s.first_sent.0),
        None => w.u8(0),
    };
}

pub(crate) fn read_stamp(r: &mut Reader<'_>) -> Result<Option<RequestStamp>, DecodeError> {
    Ok(if r.bool()? { Some(RequestStamp { id: RequestId(r.u128()?), first_sent: Wall(r.u64()?) }) } else { None })
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use proptest::prelude::*;

    pub(crate) fn revision_of(n: u64) -> Revision {
        Revision::from_u64(n).unwrap()
    }

    pub(crate) fn any_commit() -> impl Strategy<Value = Commit> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let rev = || (0u64..1 << 63).prop_map(revision_of);
        let expect = prop_oneof![Just(Expect::Any), Just(Expect::Absent), rev().prop_map(Expect::At)];
        let write = prop_oneof![
            (rev(), bytes(), bytes()).prop_map(|(created, meta, value)| Write::Put { created, meta, value }),
            (bytes(), bytes()).prop_map(|(meta, value)| Write::Delete { meta, value }),
        ];
        let change = (bytes(), expect, rev(), write).prop_map(|(key, expect, revision, write)| Change {
            key,
            expect,
            revision,
            write,
        });
        let request = proptest::option::of((any::<u128>(), any::<u64>()))
            .prop_map(|r| r.map(|(id, ms)| RequestStamp { id: RequestId(id), first_sent: Wall(ms) }));
        (any::<u64>(), request, proptest::collection::vec(change, 0..4)).prop_map(|(bundle, request, changes)| Commit {
            bundle,
            request,
            changes,
        })
    }

    #[test]
    fn a_commit_has_the_bytes_it_always_had() {
        let commit = Commit {
            bundle: 7,
            request: Some(RequestStamp { id: RequestId(0xabcd), first_sent: Wall(1_700_000_000_000) }),
            changes: alloc::vec![
                Change {
                    key: Bytes::from_static(b"pods\0web-0"),
                    expect: Expect::At(revision_of(41)),
                    revision: revision_of(42),
                    write: Write::Put {
                        created: revision_of(40),
                        meta: Bytes::from_static(b"m"),
                        value: Bytes::from_static(b"{}"),
                    },
                },
                Change {
                    key: Bytes::from_static(b"q"),
                    expect: Expect::Absent,
                    revision: revision_of(43),
                    write: Write::Delete { meta: Bytes::new(), value: Bytes::new() },
                },
            ],
        };
        let hex: String = commit.encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("../../tests/golden/commit-v1.hex").trim_end());
    }

    proptest! {
        #[test]
        fn a_commit_reads_back_and_a_cut_one_is_refused(commit in any_commit(), cut in 0usize..30) {
            let bytes = commit.encode();
            prop_assert_eq!(Commit::decode(&bytes), Ok(commit));
            if cut < bytes.len() {
                prop_assert!(Commit::decode(&bytes.slice(..bytes.len() - 1 - cut)).is_err());
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Some(first) = bytes.first_mut() { *first = VERSION; }
            let _ = Commit::decode(&bytes.into());
        }
    }
}
