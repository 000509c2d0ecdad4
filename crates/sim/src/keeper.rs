//! One node: a cell's replica, its heartbeat pairs, its disk and its clock.

use agree::heartbeat::Pair;
use agree::log::{Record, Ticket};
use base::{Now, Time, Wall};
use node::cell::Cell;
use std::collections::{BTreeMap, VecDeque};

/// Where all calendars begin: 2026-01-31, in milliseconds since 1970.
pub const EPOCH_MS: u64 = 1_769_846_400_000;

/// A node, running or not.
pub struct Keeper {
    /// Which start of it this is.
    pub boot: u64,
    /// `None` while it is down.
    pub up: Option<Up>,
    /// What is durable.
    pub disk: Vec<Record>,
    /// Its steady clock: where it began, in nanoseconds, and its rate in thousandths.
    pub start_ns: u64,
    /// See [`Keeper::start_ns`].
    pub rate: u64,
    /// How far its calendar is ahead of the true one, in milliseconds.
    pub ahead_ms: u64,
    /// Until when its process is not scheduled, in virtual nanoseconds.
    pub paused_until: u64,
}

/// What a running node holds.
pub struct Up {
    /// The replica.
    pub cell: Cell,
    /// A pair for each other node.
    pub pairs: BTreeMap<usize, Pair>,
    /// Handed to the disk and not durable, oldest first.
    pub writing: VecDeque<(Ticket, Vec<Record>)>,
    /// The last ticket that the fsync under way covers, if one is. The log has one thread: what is handed
    /// over meanwhile waits for the next.
    pub syncing: Option<Ticket>,
    /// When it is woken next, in virtual nanoseconds.
    pub woken_at: u64,
    /// An asked rewrite: how many of the disk's first records go once its answer is durable.
    pub rewrite: Option<(usize, Option<Ticket>)>,
    /// The term and vote last handed to the disk, and the writes under way that hold a new one.
    pub voted: (u64, u64),
    /// See [`Up::voted`].
    pub votes: Vec<Ticket>,
}

impl Up {
    /// A process that has just started.
    pub fn new(cell: Cell, pairs: BTreeMap<usize, Pair>) -> Up {
        Up {
            cell,
            pairs,
            writing: VecDeque::new(),
            syncing: None,
            woken_at: u64::MAX,
            rewrite: None,
            voted: (0, 0),
            votes: Vec::new(),
        }
    }
}

impl Keeper {
    /// A node that was never started.
    pub fn new(start_ns: u64, rate: u64, ahead_ms: u64) -> Keeper {
        Keeper { boot: 0, up: None, disk: Vec::new(), start_ns, rate, ahead_ms, paused_until: 0 }
    }

    /// What its clocks say.
    pub fn clock(&self, now_ns: u64) -> Now {
        let mono = Time(self.start_ns + now_ns / 1_000 * self.rate);
        Now { mono, wall: Wall(EPOCH_MS + self.ahead_ms + now_ns / 1_000_000) }
    }

    /// When its steady clock will say this, in virtual nanoseconds.
    pub fn when(&self, at: Time) -> u64 {
        at.0.saturating_sub(self.start_ns).div_ceil(self.rate) * 1_000
    }

    /// Power is cut. Of what the disk was at, some first part may have come through.
    pub fn crash(&mut self, chance: u64) {
        let Some(up) = self.up.take() else { return };
        let all: Vec<Record> = up.writing.into_iter().flat_map(|w| w.1).collect();
        let keep = (chance % (all.len() as u64 + 1)) as usize;
        self.disk.extend(all.into_iter().take(keep));
    }

    /// Begins an fsync of all that was handed over. Whether there is one to begin.
    pub fn begin_sync(&mut self) -> bool {
        let Some(up) = self.up.as_mut().filter(|u| u.syncing.is_none()) else { return false };
        up.syncing = up.writing.back().map(|w| w.0);
        up.syncing.is_some()
    }

    /// The fsync under way is through: what it covers is durable. The last ticket of that.
    pub fn end_sync(&mut self) -> Option<Ticket> {
        let up = self.up.as_mut()?;
        let last = up.syncing.take()?;
        up.votes.retain(|t| *t > last);
        while let Some((_, records)) = up.writing.pop_front_if(|w| w.0 <= last) {
            self.disk.extend(records);
        }
        if let Some((count, _)) = up.rewrite.take_if(|r| r.1.is_some_and(|t| t <= last)) {
            self.disk.drain(..count);
        }
        Some(last)
    }
}
