//! `/beemesh/keep/1`: what nodes say to each other about who keeps cells, and how they are.
//!
//! A frame is one message. Any may be lost, come late, or come after a later one of another node: each names the life of
//! the cell that it is about, and is said again until what it asks for is seen.

use super::codec::{fields, message, variants};
use base::{BootId, CellId, ReplicaId};
use bytes::Bytes;

/// How a node is, said to every node it knows, now and then. Nothing is decided by it that could not wait.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beacon {
    /// Which start of its process.
    pub boot: BootId,
    /// How long that is ago, in milliseconds.
    pub up_ms: u64,
    /// `topology.kubernetes.io/zone`; empty for none.
    pub zone: String,
    /// Its disk has lost what was on it.
    pub is_lossy: bool,
    /// Cells that it keeps.
    pub cells: u32,
    /// Cells that its replicas lead.
    pub leads: u32,
    /// Snapshots under way to or from it.
    pub snapshots: u32,
}

/// One frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// To every node.
    Beacon(Beacon),
    /// Of a cell's leader: begin this life of the cell, if there is none; a replica that waits for a snapshot.
    Seat {
        /// The cell.
        cell: CellId,
        /// The life.
        replica: ReplicaId,
        /// What the cell is for ([`crate::cell::Purpose`]).
        purpose: Bytes,
    },
    /// Of a cell's leader: say [`Message::Confirmed`] once the members of this epoch are in force on the disk.
    Confirm {
        /// The cell.
        cell: CellId,
        /// The epoch.
        epoch: u64,
    },
    /// To a cell's leader: the members of this epoch are in force on this keeper's disk.
    Confirmed {
        /// The cell.
        cell: CellId,
        /// The keeper.
        replica: ReplicaId,
        /// The epoch.
        epoch: u64,
    },
    /// To a cell's leader: this node has this life of the cell, and hears nothing of those who keep it.
    Former {
        /// The cell.
        cell: CellId,
        /// The life.
        replica: ReplicaId,
    },
    /// Of a cell's leader: forget this life. Those who keep the cell have it on a quorum of their disks that it is over.
    End {
        /// The cell.
        cell: CellId,
        /// The life.
        replica: ReplicaId,
    },
    /// To a cell's leader: there is nothing of that life here.
    Ended {
        /// The cell.
        cell: CellId,
        /// The life.
        replica: ReplicaId,
    },
}

fields!(Beacon { boot: BootId, up_ms: u64, zone: String, is_lossy: bool, cells: u32, leads: u32, snapshots: u32 });
variants!(Message {
    1 => Beacon(beacon),
    2 => Seat { cell, replica, purpose },
    3 => Confirm { cell, epoch },
    4 => Confirmed { cell, replica, epoch },
    5 => Former { cell, replica },
    6 => End { cell, replica },
    7 => Ended { cell, replica },
});
message!(Message, "a message about who keeps a cell");
