//! How a directory behaves, what it is told, and what it wants done.

use super::lookup::{Found, LookupError};
use super::message::Message;
use super::record::{Address, HiveRecord, Roles};
use super::refusals::Refusal;
use super::{Chain, Key, Record};
use crate::descriptor::Descriptor;
use alloc::vec::Vec;
use base::{CellId, NodeId};
use bytes::Bytes;
use core::time::Duration;

/// How a directory behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// Its hive's registry.
    pub hive: CellId,
    /// Greater with each start of the process ([`Effect::Boot`] may raise it).
    pub boot: u64,
    /// Between two rounds of gossip, about.
    pub interval: Duration,
    /// Nodes told in a round.
    pub fanout: usize,
    /// Rounds in which one piece of news is told.
    pub rounds: u8,
    /// News waiting to be told, at most.
    pub hot_max: usize,
    /// Nodes of this hive held, at most.
    pub nodes_max: usize,
    /// Cells held, at most, those kept here beside.
    pub cells_max: usize,
    /// Hives held, at most.
    pub hives_max: usize,
    /// Bytes of the table, at most, the cells kept here beside; an eighth of it again for the cache.
    pub bytes_max: usize,
    /// Entries in the cache, at most.
    pub cache_max: usize,
    /// How long they stay.
    pub cache_for: Duration,
    /// Cells whose leader is remembered, at most.
    pub hints_max: usize,
    /// How long it is.
    pub hint_for: Duration,
    /// Nodes asked at once in a lookup.
    pub alpha: usize,
    /// How long they have to answer.
    pub ask_for: Duration,
    /// How often others are asked.
    pub ask_rounds: usize,
    /// Subjects looked for at once, and who may wait for one of them, at most.
    pub lookups_max: usize,
    /// After so long a node signs its record anew.
    pub refresh: Duration,
    /// A node's record that was not signed anew for so long is dropped.
    pub expiry: Duration,
    /// Nobody who lied is asked for so long.
    pub shun: Duration,
    /// Records that wait to be judged, at most.
    pub inbox_max: usize,
    /// Their bytes, at most.
    pub inbox_bytes: usize,
    /// Records judged in one step: the time goes into signatures, some 50 µs each.
    pub judged_per_step: usize,
    /// Bytes sent in answers in one interval, at most; a quarter of it to one node.
    pub answer_bytes: usize,
}

impl Config {
    /// Of a hive of a thousand nodes.
    pub fn new(node: NodeId, hive: CellId, boot: u64) -> Config {
        Config {
            node,
            hive,
            boot,
            interval: Duration::from_secs(1),
            fanout: 2,
            rounds: 2,
            hot_max: 256,
            nodes_max: 2_048,
            cells_max: 16_384,
            hives_max: 1_024,
            bytes_max: 48 << 20,
            cache_max: 1_024,
            cache_for: Duration::from_secs(600),
            hints_max: 4_096,
            hint_for: Duration::from_secs(30),
            alpha: 3,
            ask_for: Duration::from_secs(1),
            ask_rounds: 3,
            lookups_max: 256,
            refresh: Duration::from_secs(6 * 3_600),
            expiry: Duration::from_secs(7 * 24 * 3_600),
            shun: Duration::from_secs(600),
            inbox_max: 2_048,
            inbox_bytes: 1 << 20,
            judged_per_step: 8,
            answer_bytes: 1 << 20,
        }
    }
}

/// What a directory begins with.
#[derive(Clone, Debug, Default)]
pub struct Durable {
    /// What it held when it was written down last ([`super::Directory::records`]); believed, since it was judged when it came.
    pub records: Vec<Record>,
    /// Nodes to begin with: those that a ticket names. More than sixteen are not looked at.
    pub seeds: Vec<NodeId>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// [`super::Directory::next_deadline`] has come.
    Tick,
    /// Another node sent this.
    Message {
        /// The node that is proven to be at the other end.
        from: NodeId,
        /// A [`Message`]'s encoding, they say.
        bytes: Bytes,
    },
    /// A heartbeat is about to go to this node of the hive: gossip that is nearly due may ride with it.
    Beat {
        /// The node.
        to: NodeId,
    },
    /// This node is reached so, and may be used for this. It is signed and told.
    Node {
        /// Its roles.
        roles: Roles,
        /// Its addresses; of more than [`super::record::ADDRESSES_MAX`] the last are left out.
        addresses: Vec<Address>,
        /// What shows that it is a member.
        proof: Bytes,
    },
    /// A cell kept here has this descriptor now, signed; what else is known of its chain need not be said.
    Kept {
        /// The chain, or its newest links.
        chain: Chain,
    },
    /// A cell is kept here no more. Its record stays, as any other's.
    Unkept {
        /// The cell.
        cell: CellId,
    },
    /// Root has signed this about a hive.
    Hive {
        /// The record.
        record: HiveRecord,
    },
    /// A node has left or was expelled, or a cell or hive is no more: root or the registry says so.
    Gone {
        /// Whatever it is.
        key: Key,
    },
    /// A node that was asked something about a cell said who keeps or leads it.
    Redirect {
        /// Who said so.
        from: NodeId,
        /// The cell.
        cell: CellId,
        /// The epoch it goes by.
        epoch: u64,
        /// Who leads, in which term.
        leader: Option<(NodeId, u64)>,
        /// A [`Chain`]'s encoding, if it sent one.
        chain: Option<Bytes>,
    },
    /// A replica here knows who leads its cell.
    Leads {
        /// The cell.
        cell: CellId,
        /// The leader.
        node: NodeId,
        /// Its term.
        term: u64,
    },
    /// This node was asked and does not lead that cell, or is silent.
    Astray {
        /// The cell.
        cell: CellId,
        /// The node.
        node: NodeId,
    },
    /// Look this up. Answered once by [`Effect::Found`] or [`Effect::Missing`] with the same id.
    Find {
        /// Names the question.
        id: u64,
        /// What is looked for.
        key: Key,
    },
}

/// What to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Send. May be lost.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// The answer to a question.
    Found {
        /// The question.
        id: u64,
        /// What was found.
        found: Found,
    },
    /// There is no answer to a question.
    Missing {
        /// The question.
        id: u64,
        /// Why.
        why: LookupError,
    },
    /// What is held of a subject has changed, or is gone: whatever rests on it is to be looked at.
    Changed {
        /// The subject.
        key: Key,
    },
    /// This boot number has been used by this node's key already (its disk was put back, or it was copied): write down
    /// that the present one is now this, and begin above it next time.
    Boot {
        /// The number.
        boot: u64,
    },
    /// The chain of a cell kept here has grown long: have root sign its descriptor of this epoch (as
    /// [`super::chain::ROOT`]), and say [`Input::Kept`] with it. Until then newcomers may not be able to judge it.
    Anchor {
        /// The cell.
        cell: CellId,
        /// The newest descriptor.
        descriptor: Descriptor,
    },
    /// Something was not believed; what was held stays.
    Refused {
        /// Who said it.
        from: NodeId,
        /// About what, if that could be read.
        key: Option<Key>,
        /// Why not.
        why: Refusal,
    },
}
