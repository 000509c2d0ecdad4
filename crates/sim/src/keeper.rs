//! One node: its replicas of all cells, its heartbeat pairs, its log, its disk and its clock.

use crate::disk::Disk;
use agree::heartbeat::Pair;
use agree::log::{Log, Ticket};
use base::disk::Op;
use base::{CellId, NodeId, Now, ReplicaId, Time, Wall};
use node::bundle::Bundle;
use node::cell::{Cell, Found, Input, Role};
use node::keeping::Keeping;
use node::wire::keep::Beacon;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Where all calendars begin: 2026-01-31, in milliseconds since 1970.
pub const EPOCH_MS: u64 = 1_769_846_400_000;

/// A steady clock and a calendar.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Where the steady clock began, in nanoseconds.
    pub start_ns: u64,
    /// Its rate, in thousandths.
    pub rate: u64,
    /// How far the calendar is ahead of the true one, in milliseconds.
    pub ahead_ms: u64,
}

impl Clock {
    /// What it says.
    pub fn now(&self, now_ns: u64) -> Now {
        let mono = Time(self.start_ns + now_ns / 1_000 * self.rate);
        Now { mono, wall: Wall(EPOCH_MS + self.ahead_ms + now_ns / 1_000_000) }
    }

    /// When the steady clock will say this, in virtual nanoseconds.
    pub fn when(&self, at: Time) -> u64 {
        at.0.saturating_sub(self.start_ns).div_ceil(self.rate) * 1_000
    }
}

/// A node, running or not.
pub struct Keeper {
    /// Which start of it this is.
    pub boot: u64,
    /// `None` while it is down.
    pub up: Option<Up>,
    /// What is on its disk.
    pub disk: Disk,
    /// Its clocks.
    pub clock: Clock,
    /// Until when its process is not scheduled, in virtual nanoseconds.
    pub paused_until: u64,
    /// Its disk has lost what was synced: it is deaf in all cells that were concerned.
    pub rotten: bool,
}

/// What a running node holds.
pub struct Up {
    /// Its replicas.
    pub seats: BTreeMap<CellId, Seat>,
    /// A pair for each other node.
    pub pairs: BTreeMap<usize, Pair>,
    /// The newest bundle it has been given.
    pub bundle: Arc<Bundle>,
    /// Its log.
    pub log: Log,
    /// What the log wants of the disk, in this order; the first may be under way.
    pub ops: VecDeque<Op>,
    /// Whether the first is.
    pub busy: bool,
    /// The log has been told something since it was last told that nothing more comes.
    pub told: bool,
    /// What the log held of cells that are not seated yet.
    pub recovered: BTreeMap<CellId, Found>,
    /// What the log asked of those.
    pub parked: Vec<(CellId, Input)>,
    /// When it is woken next, in virtual nanoseconds.
    pub woken_at: u64,
    /// Who keeps its cells.
    pub keeps: Keeps,
}

/// What a running node has of who keeps cells, where machines decide it.
#[derive(Default)]
pub struct Keeps {
    /// The machine beside each replica.
    pub machines: BTreeMap<CellId, Keeping>,
    /// What other nodes said of themselves last, and when their processes began, on this node's clock.
    pub beacons: BTreeMap<NodeId, (Beacon, Time)>,
    /// Cells without a leader, since when (in virtual nanoseconds), and how often that was said.
    pub leaderless: BTreeMap<CellId, (u64, u64)>,
    /// Lives that are being ended, and who wants to hear of it.
    pub ending: BTreeMap<CellId, (NodeId, ReplicaId)>,
    /// When its process began, on its own clock.
    pub began: Time,
}

/// A replica at its node.
pub struct Seat {
    /// The replica.
    pub cell: Cell,
    /// What the cell is for.
    pub role: Role,
    /// The term and vote last handed to the log, and the writes under way that hold a new one.
    pub voted: (u64, u64),
    /// See [`Seat::voted`].
    pub votes: Vec<Ticket>,
    /// The writes that were refused and not asked for again.
    pub refused: BTreeSet<Ticket>,
    /// The write by which it is forgotten.
    pub last: Option<Ticket>,
}

impl Keeper {
    /// A node that was never started.
    pub fn new(clock: Clock) -> Keeper {
        Keeper { boot: 0, up: None, disk: Disk::default(), clock, paused_until: 0, rotten: false }
    }

    /// What its clocks say.
    pub fn now(&self, now_ns: u64) -> Now {
        self.clock.now(now_ns)
    }

    /// Its replica of a cell, while it runs.
    pub fn cell(&self, cell: CellId) -> Option<&Cell> {
        self.up.as_ref()?.seats.get(&cell).map(|s| &s.cell)
    }

    /// Whether it leads a cell.
    pub fn leads(&self, cell: CellId) -> bool {
        self.cell(cell).is_some_and(Cell::is_leading)
    }
}
