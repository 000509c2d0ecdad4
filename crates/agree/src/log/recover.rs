//! Recovery: from the bytes of every segment to the records in them, telling what ended cleanly from
//! what was torn and what was lost.
//!
//! - **Clean end**: behind the last frame there is no other.
//! - **Torn tail**: the next frame is not whole, and no frame behind it vouches that it was durable. It
//!   was never acknowledged: it is cut.
//! - **Hole**: a frame is missing that a later frame, or the header of a later segment, vouches for. It
//!   may have been acknowledged: the log is lossy. Damage to the very last frame looks like a torn
//!   tail; only after an orderly end ([`super::Command::Close`]) is it told apart.
//!
//! (The difference matters: to take damage for a torn tail makes a replica forget what it promised;
//! Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage", 2018.)
//!
//! Appending goes on in a new segment whose header says where the last one ended, so what was cut cannot
//! come back, and no byte of a log that could not be opened is changed.

use super::format::{self, Frame, HEADER_BYTES, Header, HeaderRead, Place};
use super::machine::{Config, Log, Segment};
use super::record::{Record, RecordError};
use super::rewrite::Rewrite;
use super::space::Spares;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use base::CellId;
use base::disk::{self, File, Found};
use bytes::Bytes;
use core::fmt::{self, Write as _};

/// Frames that were durable and cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hole {
    /// The segment in which reading failed.
    pub segment: u64,
    /// The byte of it from which on.
    pub offset: u64,
    /// The first frame that is missing.
    pub first: u64,
    /// The frame at which reading could go on.
    pub next: u64,
    /// Whether the operator has accepted it, in this start or an earlier one.
    pub accepted: bool,
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = File::Segment(self.segment).name();
        let count = self.next.saturating_sub(self.first);
        write!(f, "{name} cannot be read from byte {} on; at least {count} write(s) are missing", self.offset)
    }
}

/// A write that had not become durable when the node went down, now cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Torn {
    /// The segment it is in.
    pub segment: u64,
    /// Where it began.
    pub offset: u64,
}

/// What the log holds of one cell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OfCell {
    /// Its records in log order, without those a [`Record::Forget`] voids (the Forget itself is gone
    /// too).
    pub records: Vec<Record>,
    /// Records of it may be missing, acknowledged ones too: this replica may neither vote nor
    /// acknowledge again. It must log a [`Record::Forget`] and begin a new life; nothing else is taken
    /// before.
    pub lossy: bool,
}

/// What the log holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// The log's id.
    pub log: u128,
    /// Every cell that has records.
    pub cells: BTreeMap<CellId, OfCell>,
    /// What is missing.
    pub holes: Vec<Hole>,
    /// What was cut.
    pub torn: Option<Torn>,
    /// The number of frames read.
    pub frames: u64,
}

/// Why a log cannot be gone on from. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecoverError {
    /// Records are missing, and [`Config::accept_loss`] is not set.
    #[error(
        "the log has lost writes that may have been acknowledged: {}. Cells that may be concerned: {}. Nothing was \
         changed. If the disk can be put right (remounted, cabled, restored from an image), do that and start again. \
         If it cannot, move the data directory away and keep it, for it holds all that is left of cells that were \
         kept here alone; a node that begins anew with an empty one has the others from their other keepers", list(.holes), list(.cells)
    )]
    Lossy {
        /// What is missing.
        holes: Vec<Hole>,
        /// Whose it may have been.
        cells: Vec<CellId>,
    },
    /// No segment says which log it is of.
    #[error(
        "{} holds data, but its header cannot be read, and no other segment has one: nothing of this log can be \
         trusted. Nothing was changed. Restore the directory from an image of the disk, or move it away and let this \
         node join anew", File::Segment(*.segment).name()
    )]
    Headless {
        /// The newest such segment.
        segment: u64,
    },
    /// Two logs in one directory.
    #[error(
        "{} belongs to another log ({found:032x}, not {expected:032x}): files of two nodes, or of two foundings, lie \
         in one directory. Nothing was changed. Move away what does not belong here", File::Segment(*.segment).name()
    )]
    Foreign {
        /// The segment that does not belong.
        segment: u64,
        /// Its log.
        found: u128,
        /// The log of the newest segment.
        expected: u128,
    },
    /// A newer release wrote it.
    #[error(
        "{} has format version {version}, which a newer release of beemesh wrote. Nothing was changed. Start that \
         release again, or a newer one", File::Segment(*.segment).name()
    )]
    Newer {
        /// The segment.
        segment: u64,
        /// Its format version.
        version: u32,
    },
    /// A frame is sound, a record in it is not one this release knows.
    #[error("{}, the write at byte {offset}", File::Segment(*.segment).name())]
    Record {
        /// The segment.
        segment: u64,
        /// Where the frame begins.
        offset: u64,
        /// What is wrong.
        source: RecordError,
    },
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    const SHOWN: usize = 8;
    let mut text = String::new();
    for (i, item) in items.iter().take(SHOWN).enumerate() {
        let _ = write!(text, "{}{item}", if i > 0 { "; " } else { "" });
    }
    if items.len() > SHOWN {
        let _ = write!(text, "; and {} more", items.len() - SHOWN);
    }
    if items.is_empty() { String::from("none") } else { text }
}

/// Recovery on its way: says what to read, takes it, and becomes a [`Log`].
///
/// It holds one segment's bytes at a time, and every record found so far.
#[derive(Debug)]
pub struct Recovery {
    config: Config,
    /// Segments and their lengths.
    found: BTreeMap<u64, u64>,
    spares: Vec<u64>,
    headers: BTreeMap<u64, HeaderRead>,
    stage: Stage,
    plan: VecDeque<u64>,
    log: Option<u128>,
    floor: u64,
    accepted: u64,
    /// The sequence of the next frame; `None` before the first.
    expected: Option<u64>,
    /// The last segment that counts, and where its frames end.
    tail: (u64, u64),
    segments: BTreeMap<u64, Segment>,
    cells: BTreeMap<CellId, Collected>,
    recovered: Recovered,
    error: Option<RecoverError>,
}

/// A cell's records while they are collected.
#[derive(Debug, Default)]
struct Collected {
    records: Vec<Record>,
    /// The sequence of the frame with the first of them.
    oldest: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Reading the header of a segment, lowest first.
    Headers(Option<u64>),
    /// Reading the newest segment, for the floor.
    Floor(u64),
    /// Reading segments that count, in order.
    Segments,
    Ended,
}

impl disk::Recovery for Recovery {
    type Machine = Log;
    type Recovered = Recovered;
    type Error = RecoverError;

    fn new(config: Config, found: &[Found]) -> Recovery {
        assert!(
            config.segment_bytes >= 2 * HEADER_BYTES && config.segment_bytes <= 1 << 30 && config.step_bytes > 0,
            "a segment has 8 KiB to 1 GiB"
        );
        let mut segments = BTreeMap::new();
        let mut spares = Vec::new();
        for f in found {
            match f.file {
                File::Segment(n) => {
                    segments.insert(n, f.bytes);
                }
                File::Spare(n) => spares.push(n),
            }
        }
        let mut recovery = Recovery {
            config,
            stage: Stage::Headers(segments.keys().next().copied()),
            found: segments,
            spares,
            headers: BTreeMap::new(),
            plan: VecDeque::new(),
            log: None,
            floor: 1,
            accepted: 0,
            expected: None,
            tail: (0, 0),
            segments: BTreeMap::new(),
            cells: BTreeMap::new(),
            recovered: Recovered::default(),
            error: None,
        };
        if recovery.found.is_empty() {
            recovery.stage = Stage::Ended;
        }
        recovery
    }

    fn next_read(&mut self) -> Option<(u64, u64, u64)> {
        if self.error.is_some() {
            return None;
        }
        let whole = |n: u64| (n, 0, self.found.get(&n).copied().unwrap_or(0));
        match self.stage {
            Stage::Headers(at) => at.map(|n| (n, 0, HEADER_BYTES)),
            Stage::Floor(n) => Some(whole(n)),
            Stage::Segments => self.plan.front().map(|n| whole(*n)),
            Stage::Ended => None,
        }
    }

    fn read(&mut self, bytes: Vec<u8>) {
        match self.stage {
            Stage::Headers(Some(n)) => {
                self.headers.insert(n, Header::decode(n, &bytes));
                let next = self.found.range(n.saturating_add(1)..).next().map(|(n, _)| *n);
                self.stage = Stage::Headers(next);
                if next.is_none() {
                    self.headers_read();
                }
            }
            Stage::Headers(None) | Stage::Ended => {}
            Stage::Floor(n) => {
                if let Some(log) = self.log {
                    let mut at = HEADER_BYTES as usize;
                    while let Some((offset, frame)) = format::find_frame(log, n, &bytes, at, bytes.len(), |_| true) {
                        self.floor = self.floor.max(frame.head.numbers.floor);
                        at = offset + frame.head.len();
                    }
                }
                self.plan_segments();
            }
            Stage::Segments => {
                if let Some(n) = self.plan.pop_front() {
                    match self.log {
                        Some(log) => self.segment(log, n, &bytes),
                        // A first segment whose creation was cut short holds a first write at most.
                        None => {
                            let blank = self.headers.get(&n) == Some(&HeaderRead::Blank);
                            if !blank || format::looks_used(&bytes) {
                                self.error = Some(RecoverError::Headless { segment: n });
                            }
                        }
                    }
                }
                if self.plan.is_empty() {
                    self.stage = Stage::Ended;
                }
            }
        }
    }

    fn finish(mut self) -> Result<(Log, Recovered), RecoverError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.shortened();
        let last = self.expected.map_or(0, |e| e - 1);
        for hole in &mut self.recovered.holes {
            hole.accepted = hole.next <= self.accepted;
        }
        let fresh: Vec<Hole> = self.recovered.holes.iter().filter(|h| !h.accepted).copied().collect();
        // A cell is concerned by a hole if it has anything from before the hole was accepted.
        let bound = if fresh.is_empty() { self.accepted } else { u64::MAX };
        let holes = !self.recovered.holes.is_empty();
        for (cell, found) in self.cells {
            if !found.records.is_empty() {
                let lossy = holes && found.oldest < bound;
                self.recovered.cells.insert(cell, OfCell { records: found.records, lossy });
            }
        }
        let lossy: BTreeSet<CellId> = self.recovered.cells.iter().filter(|(_, c)| c.lossy).map(|(id, _)| *id).collect();
        if !fresh.is_empty() {
            if !self.config.accept_loss {
                return Err(RecoverError::Lossy { holes: fresh, cells: lossy.into_iter().collect() });
            }
            self.accepted = last + 1;
            self.recovered.holes.iter_mut().for_each(|h| h.accepted = true);
        }
        let id = self.log.unwrap_or(self.config.new_log);
        self.recovered.log = id;
        let litter = self.found.keys().filter(|n| !self.segments.contains_key(n)).map(|n| File::Segment(*n)).collect();
        let log = Log {
            log: id,
            durable: last,
            floor: self.floor,
            floor_told: self.floor,
            accepted: self.accepted,
            tail: self.tail,
            open: false,
            next_segment: self.found.keys().next_back().map_or(1, |n| n + 1),
            segments: self.segments,
            litter,
            spares: Spares::new(self.spares),
            rewrite: Rewrite::default(),
            live: BTreeMap::new(),
            lossy,
            state: super::machine::Running::default(),
            config: self.config,
        };
        Ok((log, self.recovered))
    }
}

impl Recovery {
    /// All headers are known: which log it is, and what to read next.
    fn headers_read(&mut self) {
        for (n, read) in self.headers.iter().rev() {
            match read {
                HeaderRead::Newer(version) => {
                    self.error = Some(RecoverError::Newer { segment: *n, version: *version });
                    return;
                }
                HeaderRead::Valid(header) => {
                    let expected = *self.log.get_or_insert(header.log);
                    if expected != header.log {
                        self.error = Some(RecoverError::Foreign { segment: *n, found: header.log, expected });
                        return;
                    }
                    self.floor = self.floor.max(header.floor);
                    self.accepted = self.accepted.max(header.accepted);
                }
                HeaderRead::Blank | HeaderRead::Damaged => {}
            }
        }
        match self.newest() {
            Some(n) => self.stage = Stage::Floor(n),
            None => {
                self.plan = self.found.keys().copied().collect();
                self.stage = Stage::Segments;
            }
        }
    }

    fn header(&self, n: u64) -> Option<&Header> {
        match self.headers.get(&n) {
            Some(HeaderRead::Valid(header)) => Some(header),
            _ => None,
        }
    }

    /// The newest segment with a header.
    fn newest(&self) -> Option<u64> {
        self.headers.keys().rev().copied().find(|n| self.header(*n).is_some())
    }

    /// Follows the headers from the newest segment back: what they pass over was never part of the log.
    fn plan_segments(&mut self) {
        let Some(newest) = self.newest() else { return };
        let mut at = newest;
        loop {
            self.plan.push_front(at);
            let below = self.found.range(self.floor..at).next_back().map(|(n, _)| *n);
            // A segment whose header is damaged cannot say which is before it: any may be, and frames
            // tell by their numbers whether they belong.
            let before = match self.header(at) {
                Some(header) => Some(header.previous)
                    .filter(|p| self.found.contains_key(p))
                    .or(if header.previous >= self.floor { below } else { None }),
                None => below,
            };
            match before {
                Some(before) if before >= self.floor && before < at => at = before,
                _ => break,
            }
        }
        self.plan.extend(self.found.range(newest.saturating_add(1)..).map(|(n, _)| *n));
        self.stage = Stage::Segments;
    }

    fn hole(&mut self, segment: u64, offset: u64, first: u64, next: u64) {
        self.recovered.holes.push(Hole { segment, offset, first, next, accepted: false });
    }

    /// The last segment is as long as it was allocated: it is cut only once another has begun behind it.
    fn shortened(&mut self) {
        let (n, end) = self.tail;
        let allocated = self.header(n).map_or(0, |h| h.length);
        if let (Some(segment), Some(expected)) = (self.segments.get_mut(&n), self.expected)
            && segment.file < allocated
        {
            segment.holed = true;
            self.hole(n, end, expected, expected.saturating_add(1));
            self.expected = Some(expected.saturating_add(1));
        }
    }

    /// Reads one segment that counts, or that comes after the last header that could be read.
    fn segment(&mut self, log: u128, n: u64, bytes: &[u8]) {
        let header = self.header(n).copied();
        let successor = self.plan.front().and_then(|next| self.header(*next)).filter(|h| h.previous == n);
        let to = successor.map_or(bytes.len(), |h| h.previous_end.min(bytes.len() as u64) as usize);
        let is_last = successor.is_none();
        if let Some(header) = header {
            match self.expected {
                Some(expected) if header.first_sequence > expected => {
                    let (segment, offset) = self.tail;
                    self.hole(segment, offset, expected, header.first_sequence);
                    self.expected = Some(header.first_sequence);
                }
                Some(_) => {}
                None => {
                    let first = header.first_sequence;
                    if header.previous >= self.floor {
                        self.hole(header.previous, HEADER_BYTES, first.saturating_sub(1), first);
                    }
                    self.expected = Some(first);
                }
            }
        }
        let mut carried = 0;
        let mut frames = 0_u64;
        let mut end = HEADER_BYTES as usize;
        let mut at = end;
        while at < to {
            let expected = self.expected;
            // Only the frame that is due counts, or one that vouches for what is missing before it.
            let due = |h: &format::Head| expected.is_none_or(|e| h.numbers.sequence == e);
            let vouches = |h: &format::Head| expected.is_none_or(|e| h.numbers.sequence > e && h.numbers.durable >= e);
            let place = Place { log, segment: n, offset: at as u64 };
            let here = bytes.get(at..to).and_then(|b| Frame::read(place, b)).filter(|f| due(&f.head));
            let (offset, frame) = match here {
                Some(frame) => (at, frame),
                None => match format::find_frame(log, n, bytes, at, to, |h| due(h) || vouches(h)) {
                    Some(found) => found,
                    None => break,
                },
            };
            let sequence = frame.head.numbers.sequence;
            match expected {
                // The frame that is due stands where no frame was to be looked for: nothing was lost.
                Some(e) if e == sequence => {}
                Some(e) => self.hole(n, at as u64, e, sequence),
                // The first segment has no header to say where it begins, and what was before it.
                None if offset > at || (n != self.floor && sequence > 1) => {
                    self.hole(n, at as u64, sequence.saturating_sub(1), sequence);
                }
                None => {}
            }
            match self.frame(sequence, &frame) {
                Ok(bytes) => carried += bytes,
                Err(source) => {
                    self.error = Some(RecoverError::Record { segment: n, offset: offset as u64, source });
                    return;
                }
            }
            self.expected = Some(sequence.saturating_add(1));
            frames += 1;
            at = offset + frame.head.len();
            end = at;
        }
        self.recovered.frames += frames;
        if header.is_none() && frames == 0 {
            // Its creation was cut short; or all of it is lost, which whatever follows will tell.
            return;
        }
        let torn = is_last && bytes.get(end..).is_some_and(|rest| rest.iter().any(|b| *b != 0));
        self.recovered.torn = torn.then_some(Torn { segment: n, offset: end as u64 });
        self.tail = (n, end as u64);
        let holed = self.recovered.holes.iter().any(|h| h.segment == n);
        self.segments.insert(n, Segment { end: end as u64, file: bytes.len() as u64, carried, holed });
    }

    /// Takes the records of a frame; returns how many bytes of them were carried.
    fn frame(&mut self, sequence: u64, frame: &Frame<'_>) -> Result<u64, RecordError> {
        let mut carried = 0;
        for bytes in frame.records() {
            // Copied, so that a record that is kept does not keep its whole segment in memory.
            let record = Record::decode(&Bytes::copy_from_slice(bytes))?;
            let cell = self.cells.entry(record.cell()).or_default();
            match &record {
                Record::Forget { replica, .. } => {
                    cell.records.retain(|r| r.replica().is_some_and(|of| of != *replica));
                    continue;
                }
                Record::Carried { .. } => carried += bytes.len() as u64,
                _ => {}
            }
            if cell.records.is_empty() {
                cell.oldest = sequence;
            }
            cell.records.push(record);
        }
        Ok(carried)
    }
}
