//! Rewriting forward: the oldest segment is read in bounded steps, each cell writes again what of it is
//! still live, and the segment goes.
//!
//! Segments go oldest first and in no other order, so a record that says "deleted" needs no carrying:
//! whatever it deleted was logged before it, and is gone before it or with it.
//!
//! The log may be as long as twice its live bytes and the slack; beyond, the oldest segment goes. So
//! each byte that is live is written again at most about as often as a byte is newly written, and a cell
//! that is idle pins nothing.

use super::format::{Frame, HEADER_BYTES, Head, Place, find_frame};
use super::machine::{Answer, Log, Notice, Persist};
use super::record::{Record, Ticket};
use super::space::Space;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use base::disk::{self, File, Op};
use base::{CellId, Now, Time};
use bytes::Bytes;

type Effects = Vec<disk::Effect<Notice>>;

/// Where rewriting stands.
#[derive(Debug, Default)]
pub(super) struct Rewrite {
    at: Stage,
    /// The number of the last question.
    question: u64,
    retry_at: Option<Time>,
}

#[derive(Debug, Default)]
enum Stage {
    /// No segment has to go.
    #[default]
    Idle,
    /// Waiting for bytes of the segment, to ask these cells; none: all that have records in it.
    Reading { segment: u64, offset: u64, only: BTreeSet<CellId> },
    /// Waiting for the cells that have records in what was read, which ends at `next`; `again` cannot answer yet.
    Asking { segment: u64, offset: u64, next: u64, cells: BTreeMap<CellId, Option<Ticket>>, again: BTreeSet<CellId> },
    /// The answers of some cells were refused: these are asked about what was read at `offset` again later. What the
    /// others wrote stays written.
    Again { segment: u64, offset: u64, only: BTreeSet<CellId> },
    /// A frame must tell that the segment is not needed; then it is removed.
    Telling { segment: u64, removing: bool },
    /// The segment cannot be read. It stays.
    Stuck,
}

impl Rewrite {
    pub(super) fn retry_at(&self) -> Option<Time> {
        if matches!(self.at, Stage::Again { .. }) { self.retry_at } else { None }
    }

    /// A request was refused; perhaps it was an answer.
    pub(super) fn refused(&mut self, cell: CellId, ticket: Ticket, retry_at: Time) {
        if let Stage::Asking { cells, .. } = &self.at
            && cells.get(&cell) == Some(&Some(ticket))
        {
            self.later(cell, retry_at);
        }
    }

    /// A cell is to be asked again.
    fn later(&mut self, cell: CellId, retry_at: Time) {
        if let Stage::Asking { cells, again, .. } = &mut self.at
            && cells.remove(&cell).is_some()
        {
            again.insert(cell);
            self.retry_at = Some(retry_at);
            self.settle();
        }
    }

    /// Once all others have written what they had to, those that could not are asked again.
    fn settle(&mut self) {
        if let Stage::Asking { segment, offset, cells, again, .. } = &mut self.at
            && cells.is_empty()
            && !again.is_empty()
        {
            self.at = Stage::Again { segment: *segment, offset: *offset, only: core::mem::take(again) };
        }
    }

    /// A request is durable; perhaps it was an answer.
    pub(super) fn durable(&mut self, cell: CellId, ticket: Ticket) {
        if let Stage::Asking { cells, .. } = &mut self.at
            && cells.get(&cell) == Some(&Some(ticket))
        {
            cells.remove(&cell);
            self.settle();
        }
    }
}

impl Log {
    /// Takes the next step of rewriting, if one can be taken now.
    pub(super) fn rewrite_on(&mut self, now: Now, effects: &mut Effects) {
        if !self.running() {
            return;
        }
        match &self.rewrite.at {
            Stage::Idle => {
                if let Some(segment) = self.oldest_to_go() {
                    self.read_next(segment, HEADER_BYTES, BTreeSet::new(), effects);
                }
            }
            Stage::Asking { segment, next, cells, .. } if cells.is_empty() => {
                let (segment, next) = (*segment, *next);
                self.read_next(segment, next, BTreeSet::new(), effects);
            }
            Stage::Again { segment, offset, only } if self.rewrite.retry_at.is_some_and(|at| now.mono >= at) => {
                let (segment, offset, only) = (*segment, *offset, only.clone());
                self.read_next(segment, offset, only, effects);
            }
            _ => {}
        }
    }

    /// The segment that has to go, if one has.
    fn oldest_to_go(&self) -> Option<u64> {
        // A cell that may have lost something must settle that first: the hole, once carried away,
        // would be seen no more.
        if !self.open || !self.lossy.is_empty() {
            return None;
        }
        let (&oldest, _) = self.segments.first_key_value()?;
        let live = self.live_bytes();
        let ahead = (self.config.reserve_segments as u64 + 2) * self.config.segment_bytes;
        // On a full disk it pays to rewrite much earlier.
        let most = if self.spares.space == Space::Ample {
            live.saturating_mul(2).saturating_add(self.config.slack_bytes.max(ahead))
        } else {
            live.saturating_add(live / 4).saturating_add(ahead)
        };
        (oldest != self.tail.0 && self.total_bytes() > most).then_some(oldest)
    }

    fn read_next(&mut self, segment: u64, offset: u64, only: BTreeSet<CellId>, effects: &mut Effects) {
        let end = self.segments.get(&segment).map_or(0, |s| s.end);
        if offset >= end {
            self.floor = self.floor.max(segment + 1);
            self.rewrite.at = Stage::Telling { segment, removing: false };
            return;
        }
        // Where frames are missing in between, those behind are found only by looking everywhere.
        let holed = self.segments.get(&segment).is_some_and(|s| s.holed);
        let (offset, bytes) = if holed { (0, end) } else { (offset, self.config.step_bytes.min(end - offset)) };
        self.rewrite.at = Stage::Reading { segment, offset, only };
        effects.push(disk::Effect::Disk(Op::Read { segment, offset, bytes }));
    }

    /// Bytes of the segment that goes.
    pub(super) fn segment_read(&mut self, now: Now, segment: u64, offset: u64, bytes: Vec<u8>, effects: &mut Effects) {
        let only = match &self.rewrite.at {
            Stage::Reading { segment: s, offset: o, only } if (*s, *o) == (segment, offset) => only.clone(),
            _ => return,
        };
        let (log, whole) = (self.log, offset == 0);
        let place = |at: usize| Place { log, segment, offset: offset + at as u64 };
        let read = |at: usize| match whole {
            true => find_frame(log, segment, &bytes, at.max(HEADER_BYTES as usize), bytes.len(), |_| true),
            false => Frame::read(place(at), bytes.get(at..)?).map(|frame| (at, frame)),
        };
        let mut of: BTreeMap<CellId, Vec<Record>> = BTreeMap::new();
        let mut at = 0;
        'frames: while let Some((start, frame)) = read(at) {
            for record in frame.records() {
                // Copied, so that a small record does not hold the whole step's bytes in memory.
                let Ok(record) = Record::decode(&Bytes::copy_from_slice(record)) else { break 'frames };
                of.entry(record.cell()).or_default().push(record);
            }
            at = start + frame.head.len();
        }
        if whole {
            at = bytes.len();
        }
        if at == 0 {
            // Either a frame longer than a step, or no frame at all.
            let end = self.segments.get(&segment).map_or(0, |s| s.end);
            let longer = Head::read(place(0), &bytes)
                .map(|head| head.len() as u64)
                .filter(|len| *len > bytes.len() as u64 && offset + len <= end);
            if let Some(bytes) = longer {
                effects.push(disk::Effect::Disk(Op::Read { segment, offset, bytes }));
            } else {
                self.rewrite.at = Stage::Stuck;
                effects.push(disk::Effect::Notice(Notice::Damaged { segment, offset }));
            }
            return;
        }
        if !only.is_empty() {
            of.retain(|cell, _| only.contains(cell));
        }
        self.rewrite.question += 1;
        let question = self.rewrite.question;
        let cells = of.keys().map(|cell| (*cell, None)).collect();
        self.rewrite.at = Stage::Asking { segment, offset, next: offset + at as u64, cells, again: BTreeSet::new() };
        let ask = |(cell, records)| disk::Effect::Notice(Notice::Carry { question, segment, cell, records });
        effects.extend(of.into_iter().map(ask));
        self.rewrite_on(now, effects);
    }

    /// A cell's answer.
    pub(super) fn carried(&mut self, now: Now, question: u64, cell: CellId, answer: Answer, effects: &mut Effects) {
        if question == self.rewrite.question
            && let Stage::Asking { cells, .. } = &mut self.rewrite.at
        {
            match &answer {
                Answer::Live(persist) => {
                    cells.entry(cell).and_modify(|t| *t = Some(persist.ticket));
                }
                Answer::Nothing => {
                    cells.remove(&cell);
                    self.rewrite.settle();
                }
                Answer::Later => self.rewrite.later(cell, now.mono + self.config.retry),
            }
        }
        if let Answer::Live(persist) = answer {
            self.persist(now, Persist { vital: true, ..persist }, effects);
        }
    }

    /// Removes the segment that was rewritten, once a durable frame says that it is not needed.
    pub(super) fn drop_below_floor(&mut self, effects: &mut Effects) {
        if let Stage::Telling { segment, removing } = &mut self.rewrite.at
            && !*removing
            && self.floor_told > *segment
        {
            *removing = true;
            effects.push(disk::Effect::Disk(Op::Remove { file: File::Segment(*segment) }));
        }
    }

    /// A file is gone.
    pub(super) fn removed(&mut self, now: Now, file: File, effects: &mut Effects) {
        if let File::Segment(gone) = file {
            self.segments.remove(&gone);
            if matches!(self.rewrite.at, Stage::Telling { segment, .. } if segment == gone) {
                self.rewrite.at = Stage::Idle;
            }
        }
        self.space_freed(now, effects);
    }
}
