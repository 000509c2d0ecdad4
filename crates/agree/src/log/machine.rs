//! The log while it runs: requests are gathered into a frame, frames are written and synced one at a
//! time, and what is durable is told.

use super::format::{self, HEADER_BYTES, Header, Numbers, Place};
use super::record::{Record, Ticket};
use super::rewrite::Rewrite;
use super::space::{Space, Spares};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use base::disk::{self, Done, Failure, File, Op};
use base::{CellId, Now, Time};

/// The log's bounds. The defaults suit a disk of some gigabytes; tests take small ones.
#[derive(Clone, Debug)]
pub struct Config {
    /// 128 bits of chance: the log's id, if there is no log yet and one is founded.
    pub new_log: u128,
    /// The length of a segment. Nothing longer than one can be persisted.
    pub segment_bytes: u64,
    /// A frame that has reached this length takes no further request, so that what shares a sync is
    /// bounded, and with it the time it takes.
    pub frame_bytes: usize,
    /// How much may wait to be written; what comes beyond is refused as busy.
    pub waiting_bytes: usize,
    /// How many preallocated segments are kept for vital requests on a full disk.
    pub reserve_segments: usize,
    /// The log may be twice its live bytes and this much longer.
    pub slack_bytes: u64,
    /// How much of an old segment is read and handed out at once when it is rewritten forward.
    pub step_bytes: u64,
    /// How long to wait on a full disk before trying again.
    pub retry: core::time::Duration,
    /// Go on from a log that has lost records. Only after the operator has been told: cells that may be
    /// concerned must begin a new life ([`Record::Forget`]) before anything else of them is taken.
    pub accept_loss: bool,
}

impl Config {
    /// The bounds of a node's log, which would be founded with this id.
    pub fn new(new_log: u128) -> Config {
        Config {
            new_log,
            segment_bytes: 64 << 20,
            frame_bytes: 4 << 20,
            waiting_bytes: 64 << 20,
            reserve_segments: 1,
            slack_bytes: 256 << 20,
            step_bytes: 256 << 10,
            retry: core::time::Duration::from_secs(2),
            accept_loss: false,
        }
    }
}

/// Records that become durable together or not at all, behind everything the cell persisted before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Persist {
    /// Whose. Every record is this cell's.
    pub cell: CellId,
    /// What the answer will name.
    pub ticket: Ticket,
    /// Whether it may use the reserve when the disk is full: votes, membership, deletes, checkpoints.
    pub vital: bool,
    /// What to log; encoded into the frame at once, so that nothing is copied twice.
    pub records: Vec<Record>,
}

/// What the log can be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Make this durable.
    Persist(Persist),
    /// The cell has seen the refusal of its request; later ones are not of before it any more.
    Resume(CellId),
    /// How many bytes of records the cell would have to write to keep what is live; 0 for a cell that
    /// is gone. An estimate: it decides when old segments are rewritten, nothing else.
    Live {
        /// Whose.
        cell: CellId,
        /// How many.
        bytes: u64,
    },
    /// The answer to [`Notice::Carry`].
    Carried {
        /// Which question is answered.
        question: u64,
        /// By whom.
        cell: CellId,
        /// What it says.
        answer: Answer,
    },
    /// Finish what waits, take nothing more, and leave a log of which not even the last frame can be
    /// lost unnoticed. [`Notice::Closed`] follows.
    Close,
}

/// What a cell says of the records it is asked about by [`Notice::Carry`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Nothing of them is live, or the cell is gone.
    Nothing,
    /// It waits until the log takes its writes: it is to be asked again in a while.
    Later,
    /// The records still live, and fresh Raft state where it rested on the old segment; counted as vital.
    Live(Persist),
}

/// What the log tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The request, and everything the cell persisted before it, survives a power cut.
    Durable {
        /// Whose.
        cell: CellId,
        /// Which.
        ticket: Ticket,
    },
    /// The request is not in the log and never will be. Every later one of the cell is refused too
    /// ([`Refusal::AfterRefusal`]) until [`Command::Resume`], since it may rest on this one.
    Refused {
        /// Whose.
        cell: CellId,
        /// Which.
        ticket: Ticket,
        /// Why.
        why: Refusal,
    },
    /// How the disk stands has changed. A leader hands over when it is not [`Space::Ample`].
    Space(Space),
    /// An old segment is about to go: which of these records of the cell, in log order, are still live?
    /// Answer with [`Command::Carried`], at once for a cell that is not known here.
    Carry {
        /// What the answer must name.
        question: u64,
        /// The segment: several questions may be asked of one.
        segment: u64,
        /// Who is asked.
        cell: CellId,
        /// The records it has there.
        records: Vec<Record>,
    },
    /// A segment that is read back in order to rewrite it holds something else than was written. It
    /// stays, and rewriting stops; nothing in memory is concerned, but a restart will find the loss.
    Damaged {
        /// Which.
        segment: u64,
        /// Where.
        offset: u64,
    },
    /// All that was taken is durable, and the log takes nothing more.
    Closed,
}

/// Why a request was refused. In every case nothing of it was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The disk is full and the request not vital. Tried again when [`Notice::Space`] says so.
    #[error("the disk is full; free some space: writing goes on by itself")]
    Full,
    /// The disk is full, and the reserve for vital requests is used up.
    #[error(
        "the disk is full, and so is the reserve for votes and deletes; free some space: writing goes on by itself"
    )]
    ReserveSpent,
    /// Too much waits to be written.
    #[error("too much waits to be written to the log; try again")]
    Busy,
    /// Longer than a segment.
    #[error("longer than a segment of the log can hold")]
    TooLarge,
    /// An earlier request of the cell was refused, and [`Command::Resume`] has not come.
    #[error("an earlier request of this cell was refused")]
    AfterRefusal,
    /// The log lost records that may have been the cell's: it must begin a new life with
    /// [`Record::Forget`].
    #[error("the log has lost records that may have been this cell's; it must begin a new life first")]
    Lossy,
    /// The log is closing.
    #[error("the log is closing")]
    Closing,
}

type Effects = Vec<disk::Effect<Notice>>;

/// A file of the log as far as it counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// Where its frames end.
    pub(super) end: u64,
    /// The length of the file.
    pub(super) file: u64,
    /// Bytes of carried records in it.
    pub(super) carried: u64,
    /// It has a hole, which was accepted.
    pub(super) holed: bool,
}

/// One request within a frame that is being filled.
#[derive(Clone, Copy, Debug)]
struct Request {
    cell: CellId,
    ticket: Ticket,
    vital: bool,
    end: usize,
    records: u32,
    carried: u64,
}

/// A frame being filled, or on its way to the disk (then the buffer is there).
#[derive(Debug, Default)]
struct Batch {
    buffer: Vec<u8>,
    requests: Vec<Request>,
}

impl Batch {
    fn vital(&self) -> bool {
        self.requests.iter().all(|r| r.vital)
    }

    /// As it was before it was sealed.
    fn unsealed(mut self) -> Batch {
        let end = self.requests.last().map_or(format::FRAME_BYTES, |r| r.end);
        self.buffer.truncate(end);
        self
    }

    /// Takes out what is meant, and hands it back.
    fn shed(&mut self, mut is_meant: impl FnMut(&Request) -> bool) -> Vec<Request> {
        let mut shed = Vec::new();
        let (mut from, mut to) = (format::FRAME_BYTES, format::FRAME_BYTES);
        let buffer = &mut self.buffer;
        self.requests.retain_mut(|request| {
            let range = from..request.end;
            from = request.end;
            if is_meant(request) {
                shed.push(*request);
                return false;
            }
            let length = range.len();
            buffer.copy_within(range, to);
            to += length;
            request.end = to;
            true
        });
        self.buffer.truncate(to);
        shed
    }
}

/// The frame on its way to the disk.
#[derive(Debug)]
struct Flight {
    batch: Batch,
    segment: u64,
    offset: u64,
    len: u64,
    floor: u64,
    /// The segment was begun for this frame.
    begins: bool,
    /// The first thing that went wrong.
    failed: Option<Failure>,
}

/// The log of one node: the pure machine. Built by [`super::Recovery`].
#[derive(Debug)]
pub struct Log {
    pub(super) config: Config,
    pub(super) log: u128,
    /// The last frame that is durable.
    pub(super) durable: u64,
    /// The lowest segment still needed, and what the last durable frame says it is.
    pub(super) floor: u64,
    pub(super) floor_told: u64,
    /// Holes before this sequence were accepted.
    pub(super) accepted: u64,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// The last segment and where its frames end.
    pub(super) tail: (u64, u64),
    /// Whether frames can be appended to it: not to one of an earlier run.
    pub(super) open: bool,
    pub(super) next_segment: u64,
    /// Files that belong to nobody any more.
    pub(super) litter: Vec<File>,
    pub(super) spares: Spares,
    pub(super) rewrite: Rewrite,
    pub(super) live: BTreeMap<CellId, u64>,
    /// Cells that may have lost something and have not begun a new life.
    pub(super) lossy: BTreeSet<CellId>,
    pub(super) state: Running,
}

/// What does not outlive the process.
#[derive(Debug, Default)]
pub(super) struct Running {
    gathering: VecDeque<Batch>,
    gathered: usize,
    flight: Option<Flight>,
    buffers: Vec<Vec<u8>>,
    refused: BTreeSet<CellId>,
    closing: bool,
    closed: bool,
    dead: bool,
}

impl disk::Machine for Log {
    type Config = Config;
    type Command = Command;
    type Notice = Notice;
    type Recovery = super::Recovery;

    fn step(&mut self, now: Now, input: disk::Input<Command>, effects: &mut Effects) {
        if self.state.dead {
            return;
        }
        match input {
            disk::Input::Command(Command::Persist(persist)) => {
                self.persist(now, persist, effects);
            }
            disk::Input::Command(Command::Resume(cell)) => {
                self.state.refused.remove(&cell);
            }
            disk::Input::Command(Command::Live { cell, bytes: 0 }) => {
                self.live.remove(&cell);
            }
            disk::Input::Command(Command::Live { cell, bytes }) => {
                self.live.insert(cell, bytes);
            }
            disk::Input::Command(Command::Carried { question, cell, answer }) => {
                self.carried(now, question, cell, answer, effects);
            }
            disk::Input::Command(Command::Close) => self.state.closing = true,
            disk::Input::Drained => {
                effects.extend(self.litter.drain(..).map(|file| disk::Effect::Disk(Op::Remove { file })));
                self.rewrite_on(now, effects);
                self.flush(now, effects);
                self.keep_spares(now, effects);
            }
            disk::Input::Done(done) => self.done(now, done, effects),
            disk::Input::Tick => {
                self.keep_spares(now, effects);
                self.rewrite_on(now, effects);
            }
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        if self.state.dead {
            return None;
        }
        [self.spares.retry_at(), self.rewrite.retry_at()].into_iter().flatten().min()
    }
}

impl Log {
    /// The log's id.
    pub fn id(&self) -> u128 {
        self.log
    }

    /// How the disk stands.
    pub fn space(&self) -> Space {
        self.spares.space
    }

    /// The length of all files.
    pub fn total_bytes(&self) -> u64 {
        let segments: u64 = self.segments.values().map(|s| s.file).sum();
        segments + self.spares.count() as u64 * self.config.segment_bytes
    }

    /// The bytes that would be written if everything live were rewritten: what the cells say, or what
    /// they carried, if that is more.
    pub fn live_bytes(&self) -> u64 {
        let carried: u64 = self.segments.values().map(|s| s.carried).sum();
        self.live.values().sum::<u64>().max(carried)
    }

    /// Asserts what must hold between any two steps.
    pub fn check(&self) {
        let gathered: usize = self.state.gathering.iter().map(|b| b.buffer.len()).sum();
        assert_eq!(gathered, self.state.gathered, "bytes waiting are miscounted");
        for batch in &self.state.gathering {
            assert_eq!(batch.requests.last().map(|r| r.end), Some(batch.buffer.len()), "a frame has bytes of nobody");
        }
        if self.open {
            let tail = self.segments.get(&self.tail.0).expect("the open segment is one of the log");
            assert_eq!(tail.end, self.tail.1, "the tail is not where the last frame ends");
        }
        assert!(self.segments.keys().all(|n| *n < self.next_segment), "a segment from the future");
        assert!(self.segments.range(..self.floor).count() <= 1, "a segment below the floor stayed");
        assert!(self.floor_told <= self.floor, "a floor was told before it was reached");
        assert!(!self.state.closed || (self.state.flight.is_none() && gathered == 0), "closed too early");
    }

    /// Takes a request into the frame that is being filled, or refuses it. Returns whether it was taken.
    pub(super) fn persist(&mut self, now: Now, persist: Persist, effects: &mut Effects) -> bool {
        debug_assert!(persist.records.iter().all(|r| r.cell() == persist.cell), "a record of another cell");
        let length: usize = persist.records.iter().map(|r| 4 + r.encoded_len()).sum();
        let new_life = matches!(persist.records.first(), Some(Record::Forget { .. }));
        let vital = persist.vital || new_life;
        let bound = if vital { 2 } else { 1 } * self.config.waiting_bytes;
        let why = if self.state.closing {
            Some(Refusal::Closing)
        } else if self.state.refused.contains(&persist.cell) {
            Some(Refusal::AfterRefusal)
        } else if self.lossy.contains(&persist.cell) && !new_life {
            Some(Refusal::Lossy)
        } else if format::frame_len(length) as u64 > self.config.segment_bytes - HEADER_BYTES {
            Some(Refusal::TooLarge)
        } else if self.state.gathered + length > bound {
            Some(Refusal::Busy)
        } else if self.spares.space == Space::Full && !vital {
            Some(Refusal::Full)
        } else {
            None
        };
        if let Some(why) = why {
            self.refuse(persist.cell, persist.ticket, why, now, effects);
            return false;
        }
        if new_life {
            self.lossy.remove(&persist.cell);
        }
        let fits = |b: &Batch| b.buffer.len() + length <= self.config.frame_bytes;
        if !self.state.gathering.back().is_some_and(fits) {
            let mut buffer = self.state.buffers.pop().unwrap_or_default();
            format::begin_frame(&mut buffer);
            self.state.gathered += buffer.len();
            self.state.gathering.push_back(Batch { buffer, requests: Vec::new() });
        }
        let batch = self.state.gathering.back_mut().expect("one was pushed if there was none");
        let mut carried = 0;
        for record in &persist.records {
            let length = record.encoded_len();
            if matches!(record, Record::Carried { .. }) {
                carried += length as u64;
            }
            batch.buffer.extend_from_slice(&(length as u32).to_le_bytes());
            record.encode(&mut batch.buffer);
        }
        self.state.gathered += length;
        batch.requests.push(Request {
            cell: persist.cell,
            ticket: persist.ticket,
            vital,
            end: batch.buffer.len(),
            records: persist.records.len() as u32,
            carried,
        });
        true
    }

    fn refuse(&mut self, cell: CellId, ticket: Ticket, why: Refusal, now: Now, effects: &mut Effects) {
        self.state.refused.insert(cell);
        self.rewrite.refused(cell, ticket, now.mono + self.config.retry);
        effects.push(disk::Effect::Notice(Notice::Refused { cell, ticket, why }));
    }

    /// Sends the oldest frame to the disk, if none is on its way.
    fn flush(&mut self, now: Now, effects: &mut Effects) {
        while self.state.flight.is_none() && !self.state.closed {
            // A frame without requests tells that segments below the floor are not needed, or vouches
            // for the last frame before the log is closed.
            let Some(batch) = self.next_batch() else {
                if self.state.closing && !self.open {
                    // Nothing was written in this run: there is nothing to vouch for.
                    self.closed(effects);
                }
                return;
            };
            let len = format::frame_len(batch.buffer.len() - format::FRAME_BYTES) as u64;
            if self.open && self.tail.1 + len <= self.config.segment_bytes {
                return self.write(batch, None, effects);
            }
            let vital = batch.vital();
            if let Some(spare) = self.spares.take(vital, self.config.reserve_segments) {
                return self.write(batch, Some(spare), effects);
            }
            if self.spares.space == Space::Ample {
                self.put_back(batch);
                return self.keep_spares(now, effects);
            }
            if vital {
                if batch.requests.is_empty() {
                    return;
                }
                let mut fallen = BTreeSet::new();
                for request in batch.requests {
                    let first = fallen.insert(request.cell);
                    let why = if first { Refusal::ReserveSpent } else { Refusal::AfterRefusal };
                    self.refuse(request.cell, request.ticket, why, now, effects);
                }
                self.shed(fallen, true, now, effects);
            } else {
                self.put_back(batch);
                self.fill_up(now, effects);
            }
        }
    }

    fn next_batch(&mut self) -> Option<Batch> {
        if let Some(batch) = self.state.gathering.pop_front() {
            self.state.gathered -= batch.buffer.len();
            return Some(batch);
        }
        let tell = self.floor_told < self.floor || (self.state.closing && self.open);
        tell.then(|| {
            let mut buffer = self.state.buffers.pop().unwrap_or_default();
            format::begin_frame(&mut buffer);
            Batch { buffer, requests: Vec::new() }
        })
    }

    fn put_back(&mut self, batch: Batch) {
        if !batch.requests.is_empty() {
            self.state.gathered += batch.buffer.len();
            self.state.gathering.push_front(batch);
        }
    }

    /// The disk is full: what waits and is not vital is refused now, and what comes, at the door.
    fn fill_up(&mut self, now: Now, effects: &mut Effects) {
        self.spares.set(Space::Full, effects);
        self.shed(BTreeSet::new(), false, now, effects);
    }

    /// Refuses what waits of cells of which something was refused, and of the others what is not vital, unless all of
    /// that may stay. What a cell has asked for behind a refused write goes with it, vital or not: that it is durable
    /// would say that all before it is.
    fn shed(&mut self, mut fallen: BTreeSet<CellId>, all_may_stay: bool, now: Now, effects: &mut Effects) {
        let mut shed = Vec::new();
        for batch in &mut self.state.gathering {
            let of_batch = batch.shed(|r| {
                let goes = fallen.contains(&r.cell) || (!r.vital && !all_may_stay);
                if goes {
                    fallen.insert(r.cell);
                }
                goes
            });
            shed.extend(of_batch);
        }
        self.state.gathering.retain(|b| !b.requests.is_empty());
        self.state.gathered = self.state.gathering.iter().map(|b| b.buffer.len()).sum();
        for request in shed {
            let why = if request.vital || all_may_stay { Refusal::AfterRefusal } else { Refusal::Full };
            self.refuse(request.cell, request.ticket, why, now, effects);
        }
    }

    fn write(&mut self, mut batch: Batch, spare: Option<u64>, effects: &mut Effects) {
        if let Some(spare) = spare {
            let segment = self.next_segment;
            self.next_segment += 1;
            let header = Header {
                log: self.log,
                segment,
                length: self.config.segment_bytes,
                first_sequence: self.durable + 1,
                previous: self.tail.0,
                previous_end: self.tail.1,
                floor: self.floor,
                accepted: self.accepted,
            };
            effects.push(disk::Effect::Disk(Op::Adopt { spare, segment }));
            effects.push(disk::Effect::Disk(Op::Write { segment, offset: 0, bytes: header.encode() }));
        }
        let (segment, offset) = if spare.is_some() { (self.next_segment - 1, HEADER_BYTES) } else { self.tail };
        let numbers = Numbers { sequence: self.durable + 1, durable: self.durable, floor: self.floor };
        let records = batch.requests.iter().map(|r| r.records).sum();
        format::seal_frame(&mut batch.buffer, Place { log: self.log, segment, offset }, numbers, records);
        let bytes = core::mem::take(&mut batch.buffer);
        let len = bytes.len() as u64;
        effects.push(disk::Effect::Disk(Op::Write { segment, offset, bytes }));
        effects.push(disk::Effect::Disk(Op::Sync { segment }));
        let begins = spare.is_some();
        self.state.flight = Some(Flight { batch, segment, offset, len, floor: self.floor, begins, failed: None });
    }

    fn done(&mut self, now: Now, done: Done, effects: &mut Effects) {
        match done {
            Done::Adopted(_, Ok(())) | Done::Truncated(..) => {}
            Done::Adopted(_, Err(failure)) => self.failed(failure),
            Done::Written { offset, bytes, result, .. } => {
                if let (Some(flight), true) = (&mut self.state.flight, offset > 0) {
                    flight.batch.buffer = bytes;
                }
                if let Err(failure) = result {
                    self.failed(failure);
                }
            }
            Done::Synced(_, result) => self.synced(now, result, effects),
            Done::Prepared(spare, result) => {
                self.spares.prepared(spare, result, now, &self.config, effects);
                self.flush(now, effects);
                self.keep_spares(now, effects);
            }
            Done::Removed(file, Ok(())) => self.removed(now, file, effects),
            Done::Removed(file, Err(failure)) => {
                self.die(format!("cannot remove {}: {failure}", file.name()), effects);
            }
            Done::Read { segment, offset, bytes } => self.segment_read(now, segment, offset, bytes, effects),
        }
    }

    fn failed(&mut self, failure: Failure) {
        if let Some(flight) = &mut self.state.flight {
            flight.failed.get_or_insert(failure);
        }
    }

    fn synced(&mut self, now: Now, result: Result<(), Failure>, effects: &mut Effects) {
        let Some(flight) = self.state.flight.take() else { return };
        let name = File::Segment(flight.segment).name();
        match (result, flight.failed) {
            // After a failed sync the kernel may have dropped the very pages it could not write and
            // call the next sync a success (Rebello et al., "Can Applications Recover from fsync
            // Failures?", 2020). Only reading the disk again tells what it holds: the process ends.
            (Err(failure), _) => self.die(format!("cannot sync {name}: {failure}"), effects),
            (_, Some(Failure::Broken(why))) => self.die(format!("cannot write {name}: {why}"), effects),
            (_, Some(Failure::Full(_))) => {
                // Nothing of the frame counts: the next segment's header will say that this one ended
                // before it.
                self.open = false;
                if flight.begins {
                    self.litter.push(File::Segment(flight.segment));
                }
                self.put_back(flight.batch.unsealed());
                self.fill_up(now, effects);
                self.spares.wait(now, &self.config);
                self.flush(now, effects);
            }
            (Ok(()), None) => {
                self.durable += 1;
                self.floor_told = self.floor_told.max(flight.floor);
                if flight.begins {
                    self.begun(flight.segment, effects);
                }
                let end = flight.offset + flight.len;
                self.tail = (flight.segment, end);
                self.open = true;
                if let Some(segment) = self.segments.get_mut(&flight.segment) {
                    segment.end = end;
                    segment.carried += flight.batch.requests.iter().map(|r| r.carried).sum::<u64>();
                }
                for &Request { cell, ticket, .. } in &flight.batch.requests {
                    effects.push(disk::Effect::Notice(Notice::Durable { cell, ticket }));
                    self.rewrite.durable(cell, ticket);
                }
                let last = flight.batch.requests.is_empty();
                if self.state.buffers.len() < 2 && flight.batch.buffer.capacity() <= 2 * self.config.frame_bytes {
                    self.state.buffers.push(flight.batch.buffer);
                }
                if self.state.closing && last && self.state.gathering.is_empty() {
                    self.closed(effects);
                }
                self.drop_below_floor(effects);
            }
        }
    }

    /// A segment has begun, durably, and says where the one before it ended: what was allocated beyond
    /// can go.
    fn begun(&mut self, segment: u64, effects: &mut Effects) {
        if let Some(before) = self.segments.get_mut(&self.tail.0)
            && before.file > before.end
        {
            before.file = before.end;
            effects.push(disk::Effect::Disk(Op::Truncate { segment: self.tail.0, bytes: before.end }));
        }
        self.segments
            .insert(segment, Segment { end: HEADER_BYTES, file: self.config.segment_bytes, carried: 0, holed: false });
    }

    fn closed(&mut self, effects: &mut Effects) {
        self.state.closed = true;
        effects.push(disk::Effect::Notice(Notice::Closed));
    }

    fn die(&mut self, why: String, effects: &mut Effects) {
        self.state.dead = true;
        effects.push(disk::Effect::Fatal(format!(
            "the log cannot go on: {why}. What was acknowledged is durable; what was not is unknown until the log is \
             read again. Look at the disk (kernel messages, SMART), then start beemesh again"
        )));
    }

    /// Whether the log still takes requests.
    pub(super) fn running(&self) -> bool {
        !self.state.dead && !self.state.closing
    }

    /// Whether the log still writes.
    pub(super) fn writing(&self) -> bool {
        !self.state.dead && !self.state.closed
    }
}
