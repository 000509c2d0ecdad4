//! The directory: where a node, a cell's keepers, a hive are (sections 5.1 and 8 of the architecture).
//!
//! It holds signed records. A [`NodeRecord`] is signed by the node's key; a cell's [`Chain`] of descriptors begins with
//! root's signature and goes on by quorums of its keepers; a [`HiveRecord`] is signed by root. Whoever passes one on adds
//! nothing and is believed in nothing else. What a signature is, and who is a member, is handed in ([`Keys`]).
//!
//! # Within a hive
//!
//! Every node's [`Directory`] holds all of its hive: the records of its nodes and those of the cells that any of them
//! keeps. So a lookup asks nobody, and while nothing changes a second costs a node one hash to one other node.
//!
//! - **News** is told to a few others at chance, who tell it on: a change reaches N nodes in about log N intervals. Each
//!   node sends each change to [`Config::fanout`] × [`Config::rounds`] others. That is a cost of N per change of a node's
//!   addresses or a cell's keepers in the hive, which is why a hive is bounded, and why who leads is not in the table.
//! - **What was missed** is found by comparing: the hash of all, then of 256 buckets, then what lies in those that differ.
//!   A hash may be made to collide by whoever chooses what is hashed; so one time in sixteen a bucket is told in full,
//!   whatever its hash, and nothing stays hidden.
//! - **Who leads a cell** is a hint beside its descriptor: from redirects and answers, for some seconds.
//!
//! A subject that is not in the table (another hive's) is asked for, and the answer is cached with an end and a bound.
//! Whom to ask is for now some of the hive at chance; looking up across hives (Kademlia over the same records, whose kinds
//! of message are reserved) will choose better.
//!
//! # Bounds
//!
//! A node's record has at most [`record::NODE_BYTES_MAX`] bytes (some 300 without a proof, 1,500 with an SVID), a cell's
//! [`chain::CHAIN_BYTES_MAX`] (some 500 a link with 3 voters), a hive's [`record::HIVE_BYTES_MAX`]; an entry takes
//! [`ENTRY_BYTES`] beside. The table has at most [`Config::bytes_max`] bytes and so many entries of each kind; the cache
//! [`Config::cache_max`] entries and an eighth of those bytes. When it is full what is new is refused and counted, never
//! what is there pushed out: whoever makes records up gains nothing. 1,000 nodes and 5,000 cells of three links take some
//! 10 MB. A message has at most [`MESSAGE_BYTES_MAX`] bytes; what is sent in answers has a bound per interval, in all and
//! to each; what has come and is not judged yet lies in a bounded inbox, some records of which are judged in each step.

pub mod chain;
mod interface;
mod lookup;
mod machine;
mod message;
pub mod record;
mod refusals;
mod sync;
mod table;
#[cfg(test)]
mod test_keys;
#[cfg(test)]
mod tests;

pub use chain::{Chain, Doubt};
pub use interface::{Config, Durable, Effect, Input};
pub use lookup::{Found, LookupError};
pub use machine::Directory;
pub use message::{BUCKETS, MESSAGE_BYTES_MAX, Message};
pub use record::{Address, HiveRecord, NodeRecord, Roles};
pub use refusals::{Refusal, Refused, SPEAKERS_MAX};
pub use table::{ENTRY_BYTES, FLOORS_MAX};

use base::{CellId, NodeId};
use bytes::Bytes;

/// What a record is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Key {
    /// A node: where it is reached.
    Node(NodeId),
    /// A cell: who keeps it.
    Cell(CellId),
    /// A hive, by its registry: through whom it is reached.
    Hive(CellId),
}

impl Key {
    /// What stands before the bytes that are signed, so that a signature for one purpose is good for no other. The names
    /// end in a zero and none is the beginning of another.
    pub const fn context(&self) -> &'static [u8] {
        match self {
            Key::Node(_) => b"beemesh directory node\0",
            Key::Cell(_) => b"beemesh directory descriptor\0",
            Key::Hive(_) => b"beemesh directory hive\0",
        }
    }
}

/// A record as it travels and is stored: the bytes of its kind's encoding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// A [`NodeRecord`].
    Node(Bytes),
    /// A [`Chain`].
    Cell(Bytes),
    /// A [`HiveRecord`].
    Hive(Bytes),
}

/// Which of two records about one subject is newer: the greater. Of a node boot, serial and, between two records that the
/// node gave one number, their bytes; of a cell the epoch and the epoch of root's last word; of a hive the serial and the
/// bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Version(pub u64, pub u64, pub u64);

/// Signer and verifier. Bytes are signed behind [`Key::context`].
pub trait Keys {
    /// This node's signature.
    fn sign(&self, about: Key, bytes: &[u8]) -> Bytes;
    /// Whether `signature` is that of a node's key.
    fn by_node(&self, node: &NodeId, about: Key, bytes: &[u8], signature: &[u8]) -> bool;
    /// Whether `signature` is root's; about root's own cell, the founder's or, after a recovery, the operator's.
    fn by_root(&self, about: Key, bytes: &[u8], signature: &[u8]) -> bool;
    /// Whether the mesh took this node in, into the hive and for the roles it says, and has not expelled it. Its signature
    /// was verified before.
    fn admits(&self, record: &NodeRecord) -> bool;
}

/// Sixty-four bits that depend on each byte: to find differences and to spread over buckets, never to trust.
pub(crate) fn mix(bytes: &[u8]) -> u64 {
    // FNV-1a, then the finaliser of SplitMix64, without which the low bits of alike inputs are alike.
    let h = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    let h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}
