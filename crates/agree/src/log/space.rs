//! Space: spare segments, allocated ahead of need; the last of them are the reserve.
//!
//! A segment begins as a spare that is renamed, so beginning one needs no space. A spare is made while
//! there is room for a whole segment more, so a full disk is noticed that much before it hurts. What is
//! then left of the open segment serves everybody, and the reserve serves vital requests only: votes,
//! membership, deletes, and the rewriting that frees space.

use super::machine::{Config, Log, Notice};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use base::disk::{self, Failure, Op};
use base::{Now, Time};

/// How the disk stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Space {
    /// The next segment is there, or can be made.
    #[default]
    Ample,
    /// No further segment can be made. What is left of the open one still takes anything.
    Low,
    /// Only vital requests are taken.
    Full,
}

/// The spare segments.
#[derive(Debug, Default)]
pub(super) struct Spares {
    ready: BTreeSet<u64>,
    /// Those that were there at the start, to be made ready again.
    found: Vec<u64>,
    preparing: Option<u64>,
    next: u64,
    retry_at: Option<Time>,
    pub(super) space: Space,
}

impl Spares {
    /// Begins with the spares of the run before: space that is ours already, and must not be given up
    /// on a disk that may be full.
    pub(super) fn new(found: Vec<u64>) -> Spares {
        let next = found.iter().max().map_or(1, |n| n.saturating_add(1));
        Spares { found, next, ..Spares::default() }
    }

    pub(super) fn count(&self) -> usize {
        self.ready.len() + self.found.len()
    }

    pub(super) fn retry_at(&self) -> Option<Time> {
        if self.preparing.is_some() { None } else { self.retry_at }
    }

    /// A spare to begin a segment with; the last `reserve` only for what is vital, once no more can be
    /// made.
    pub(super) fn take(&mut self, vital: bool, reserve: usize) -> Option<u64> {
        if self.ready.len() > reserve || (vital && self.space > Space::Ample) { self.ready.pop_first() } else { None }
    }

    pub(super) fn set(&mut self, space: Space, effects: &mut Vec<disk::Effect<Notice>>) {
        if self.space != space {
            self.space = space;
            effects.push(disk::Effect::Notice(Notice::Space(space)));
        }
    }

    /// Tries again in a while.
    pub(super) fn wait(&mut self, now: Now, config: &Config) {
        self.retry_at = Some(now.mono + config.retry);
    }

    pub(super) fn prepared(
        &mut self,
        spare: u64,
        result: Result<(), Failure>,
        now: Now,
        config: &Config,
        effects: &mut Vec<disk::Effect<Notice>>,
    ) {
        self.preparing = None;
        match result {
            Ok(()) => {
                self.ready.insert(spare);
                self.retry_at = None;
                if self.ready.len() > config.reserve_segments {
                    self.set(Space::Ample, effects);
                }
            }
            // A disk that cannot make a file is as good as full: what is allocated may still be sound,
            // and if it is not, the next sync says so.
            Err(_) => {
                self.wait(now, config);
                self.set(self.space.max(Space::Low), effects);
            }
        }
    }
}

impl Log {
    /// Makes the next spare, if one is missing and it is not too early to try again.
    pub(super) fn keep_spares(&mut self, now: Now, effects: &mut Vec<disk::Effect<Notice>>) {
        let wanted = self.config.reserve_segments + 1;
        let early = self.spares.retry_at.is_some_and(|at| now.mono < at);
        if self.spares.preparing.is_some() || early || !self.writing() {
            return;
        }
        if self.spares.ready.len() >= wanted {
            // None is missing: it was a write that found the disk full, and it is time to try the next.
            if self.spares.retry_at.take().is_some() {
                self.spares.set(Space::Ample, effects);
            }
            return;
        }
        let spare = self.spares.found.pop().unwrap_or_else(|| {
            self.spares.next += 1;
            self.spares.next - 1
        });
        self.spares.preparing = Some(spare);
        let bytes = self.config.segment_bytes;
        effects.push(disk::Effect::Disk(Op::Prepare { spare, bytes }));
    }

    /// Space was given back: no need to wait before trying again.
    pub(super) fn space_freed(&mut self, now: Now, effects: &mut Vec<disk::Effect<Notice>>) {
        self.spares.retry_at = self.spares.retry_at.map(|at| at.min(now.mono));
        self.keep_spares(now, effects);
    }
}
