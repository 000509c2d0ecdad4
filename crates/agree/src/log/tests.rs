//! The log on a disk that forgets what was not synced, tears writes at sectors, fills up and rots.

#![allow(clippy::unwrap_used)]

use super::format::{self, HEADER_BYTES, Header, Numbers, Place};
use super::*;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use base::disk::{Done, Effect, Failure, File, Found, Input, Machine as _, Op, Recovery as _};
use base::{CellId, Chance, Now, ReplicaId, Uid};
use bytes::Bytes;
use proptest::prelude::*;

const SECTOR: usize = 512;
const SEGMENT: u64 = 16 << 10;

fn small() -> Config {
    Config {
        segment_bytes: SEGMENT,
        frame_bytes: 4 << 10,
        waiting_bytes: 64 << 10,
        slack_bytes: 1 << 40,
        step_bytes: 1 << 10,
        ..Config::new(0x1234)
    }
}

/// A file: what would survive, and what is seen.
#[derive(Clone, Default, PartialEq, Debug)]
struct Inode {
    stable: Vec<u8>,
    seen: Vec<u8>,
}

#[derive(Clone, Default, Debug)]
struct Disk {
    inodes: Vec<Inode>,
    stable: BTreeMap<File, usize>,
    seen: BTreeMap<File, usize>,
    capacity: Option<u64>,
    /// What the next write or sync answers.
    write_fault: Option<Failure>,
    sync_fault: Option<Failure>,
}

impl Disk {
    fn used(&self) -> u64 {
        self.seen.values().map(|i| self.inodes[*i].seen.len() as u64).sum()
    }

    fn perform(&mut self, op: Op) -> Done {
        let at = |disk: &Disk, segment: u64| disk.seen[&File::Segment(segment)];
        match op {
            Op::Prepare { spare, bytes } => {
                let old = self.seen.get(&File::Spare(spare)).map_or(0, |i| self.inodes[*i].seen.len() as u64);
                if self.capacity.is_some_and(|c| self.used() - old + bytes > c) {
                    return Done::Prepared(spare, Err(Failure::Full("no space left on device".into())));
                }
                let inode = *self.seen.entry(File::Spare(spare)).or_insert(self.inodes.len());
                self.inodes.resize(self.inodes.len().max(inode + 1), Inode::default());
                let seen = &mut self.inodes[inode].seen;
                seen.resize(bytes as usize, 0);
                seen[..8192].fill(0);
                self.inodes[inode].stable = self.inodes[inode].seen.clone();
                self.stable = self.seen.clone();
                Done::Prepared(spare, Ok(()))
            }
            Op::Adopt { spare, segment } => {
                let inode = self.seen.remove(&File::Spare(spare)).unwrap();
                assert_eq!(self.seen.insert(File::Segment(segment), inode), None, "a segment was begun twice");
                Done::Adopted(segment, Ok(()))
            }
            Op::Write { segment, offset, bytes } => {
                let result = self.write_fault.take().map_or(Ok(()), Err);
                let inode = at(self, segment);
                let seen = &mut self.inodes[inode].seen;
                let end = offset as usize + bytes.len();
                assert!(end <= seen.len(), "a write beyond what was allocated");
                // One that fails has written a part.
                let written = if result.is_ok() { bytes.len() } else { bytes.len() / 2 };
                seen[offset as usize..][..written].copy_from_slice(&bytes[..written]);
                Done::Written { segment, offset, bytes, result }
            }
            Op::Sync { segment } => {
                if let Some(failure) = self.sync_fault.take() {
                    return Done::Synced(segment, Err(failure));
                }
                let inode = at(self, segment);
                self.inodes[inode].stable = self.inodes[inode].seen.clone();
                self.stable = self.seen.clone();
                Done::Synced(segment, Ok(()))
            }
            Op::Truncate { segment, bytes } => {
                let inode = at(self, segment);
                self.inodes[inode].seen.truncate(bytes as usize);
                Done::Truncated(segment, Ok(()))
            }
            Op::Remove { file } => {
                self.seen.remove(&file);
                self.stable = self.seen.clone();
                Done::Removed(file, Ok(()))
            }
            Op::Read { segment, offset, bytes } => {
                let seen = &self.inodes[at(self, segment)].seen;
                let from = seen.len().min(offset as usize);
                let to = seen.len().min((offset + bytes) as usize);
                Done::Read { segment, offset, bytes: seen[from..to].to_vec() }
            }
        }
    }

    /// The power goes: of what was not synced, any part survives.
    fn crash(&mut self, chance: &mut Chance) {
        if chance.happens(500_000) {
            self.seen = self.stable.clone();
        }
        for inode in &mut self.inodes {
            if inode.seen.len() != inode.stable.len() {
                if chance.happens(500_000) {
                    inode.stable.resize(inode.seen.len(), 0);
                } else {
                    let length = inode.seen.len();
                    inode.seen.extend_from_slice(&inode.stable.clone()[length.min(inode.stable.len())..]);
                    inode.seen.truncate(inode.stable.len());
                }
            }
            for (seen, stable) in inode.seen.chunks_mut(SECTOR).zip(inode.stable.chunks(SECTOR)) {
                if seen != stable && chance.happens(500_000) {
                    seen.copy_from_slice(stable);
                }
            }
            inode.stable = inode.seen.clone();
        }
        self.stable = self.seen.clone();
    }

    fn recover(&self, config: Config) -> Result<(Log, Recovered), RecoverError> {
        let found: Vec<Found> = self
            .seen
            .iter()
            .map(|(file, inode)| Found { file: *file, bytes: self.inodes[*inode].seen.len() as u64 })
            .collect();
        let mut disk = self.clone();
        let mut recovery = Recovery::new(config, &found);
        while let Some((segment, offset, bytes)) = recovery.next_read() {
            let Done::Read { bytes, .. } = disk.perform(Op::Read { segment, offset, bytes }) else { unreachable!() };
            recovery.read(bytes);
        }
        recovery.finish()
    }

    fn segment(&mut self, n: u64) -> &mut Vec<u8> {
        let inode = self.seen[&File::Segment(n)];
        &mut self.inodes[inode].seen
    }

    fn segments(&self) -> Vec<u64> {
        self.seen.keys().filter_map(|f| if let File::Segment(n) = f { Some(*n) } else { None }).collect()
    }
}

/// A log and its disk, stepped together.
struct Rig {
    log: Log,
    disk: Disk,
    ops: VecDeque<Op>,
    /// How many operations the disk performs before the power goes.
    ops_left: usize,
    now: Now,
    heard: Vec<Notice>,
    fatal: Option<alloc::string::String>,
}

impl Rig {
    fn new(config: Config) -> Rig {
        Rig::on(Disk::default(), config).unwrap().0
    }

    fn on(disk: Disk, config: Config) -> Result<(Rig, Recovered), RecoverError> {
        let (log, recovered) = disk.recover(config)?;
        let (ops, heard, fatal) = (VecDeque::new(), Vec::new(), None);
        Ok((Rig { log, disk, ops, ops_left: usize::MAX, now: Now::default(), heard, fatal }, recovered))
    }

    fn step(&mut self, input: Input<Command>) {
        let mut effects = Vec::new();
        self.log.step(self.now, input, &mut effects);
        self.log.check();
        for effect in effects {
            match effect {
                Effect::Disk(op) => self.ops.push_back(op),
                Effect::Notice(notice) => self.heard.push(notice),
                Effect::Fatal(why) => self.fatal = Some(why),
            }
        }
    }

    fn tell(&mut self, command: Command) {
        self.step(Input::Command(command));
    }

    /// Lets the disk work until it has nothing to do, or the power goes.
    fn drain(&mut self) {
        self.step(Input::Drained);
        while self.ops_left > 0
            && let Some(op) = self.ops.pop_front()
        {
            self.ops_left -= 1;
            let done = self.disk.perform(op);
            self.step(Input::Done(done));
            self.step(Input::Drained);
        }
    }

    fn persist(&mut self, cell: u64, ticket: u64, vital: bool, records: Vec<Record>) {
        self.tell(Command::Persist(Persist { cell: id(cell), ticket: Ticket(ticket), vital, records }));
    }

    fn durable(&self, cell: u64) -> u64 {
        let of = |n: &Notice| match n {
            Notice::Durable { cell: c, ticket } if *c == id(cell) => Some(ticket.0),
            _ => None,
        };
        self.heard.iter().filter_map(of).max().unwrap_or(0)
    }

    fn refusals(&self) -> Vec<(u64, Refusal)> {
        let of = |n: &Notice| match n {
            Notice::Refused { ticket, why, .. } => Some((ticket.0, *why)),
            _ => None,
        };
        self.heard.iter().filter_map(of).collect()
    }
}

fn id(cell: u64) -> CellId {
    CellId(Uid(u128::from(cell)))
}

fn entry(cell: u64, index: u64, bytes: usize) -> Record {
    let payload = Bytes::from(vec![index as u8; bytes]);
    Record::Entry { cell: id(cell), replica: ReplicaId(1), term: 1, index, kind: 0, payload }
}

fn records(recovered: &Recovered, cell: u64) -> Vec<Record> {
    recovered.cells.get(&id(cell)).map(|c| c.records.clone()).unwrap_or_default()
}

/// A log of `frames` frames of one record each, with every one acknowledged, over several segments.
fn written(frames: u64) -> Rig {
    let mut rig = Rig::new(small());
    for n in 1..=frames {
        rig.persist(1, n, false, vec![entry(1, n, 900)]);
        rig.drain();
    }
    assert_eq!(rig.durable(1), frames);
    rig
}

#[test]
fn all_that_is_queued_shares_one_sync() {
    let mut rig = Rig::new(small());
    rig.drain();
    for n in 1..=20 {
        rig.persist(n % 3, n, false, vec![entry(n % 3, n, 10)]);
    }
    rig.step(Input::Drained);
    let syncs = rig.ops.iter().filter(|op| matches!(op, Op::Sync { .. })).count();
    assert_eq!((syncs, rig.heard.len()), (1, 0), "nothing is told before it is durable");
    rig.drain();
    assert_eq!(rig.heard.len(), 20);
}

#[test]
fn a_failed_sync_or_write_ends_the_process_and_tells_nobody_durable() {
    for sync in [true, false] {
        let mut rig = written(1);
        let fault = Some(Failure::Broken("input/output error".into()));
        if sync {
            rig.disk.sync_fault = fault
        } else {
            rig.disk.write_fault = fault
        }
        rig.persist(1, 2, true, vec![entry(1, 2, 10)]);
        rig.drain();
        assert!(rig.fatal.as_ref().is_some_and(|w| w.contains("input/output error")), "{:?}", rig.fatal);
        rig.persist(1, 3, true, vec![entry(1, 3, 10)]);
        rig.drain();
        assert_eq!(rig.durable(1), 1);
    }
}

#[test]
fn what_was_closed_in_order_loses_nothing_unnoticed_not_even_its_last_write() {
    let mut rig = written(3);
    rig.tell(Command::Close);
    rig.drain();
    assert_eq!(rig.heard.last(), Some(&Notice::Closed));
    let (_, recovered) = rig.disk.recover(small()).unwrap();
    assert_eq!((records(&recovered, 1).len(), recovered.torn), (3, None));
    // The third frame, which is the last with a request in it.
    let end = format::frame_len(4 + entry(1, 3, 900).encoded_len());
    rig.disk.segment(1)[HEADER_BYTES as usize + 2 * end + 100] ^= 1;
    assert!(matches!(rig.disk.recover(small()), Err(RecoverError::Lossy { .. })));
    rig.persist(1, 9, true, vec![]);
    assert_eq!(rig.refusals(), [(9, Refusal::Closing)]);
}

#[test]
fn a_torn_tail_is_cut_and_does_not_grow_back() {
    let mut rig = written(3);
    let before = rig.disk.clone();
    rig.persist(1, 4, false, vec![entry(1, 4, 900)]);
    rig.drain();
    // The last frame's first sector was not written: what follows it is still there.
    let frame = format::frame_len(4 + entry(1, 1, 900).encoded_len());
    let at = HEADER_BYTES as usize + 3 * frame;
    let sector = at / SECTOR * SECTOR..(at / SECTOR + 1) * SECTOR;
    let mut torn = rig.disk.clone();
    let old = before.clone().segment(1)[sector.clone()].to_vec();
    torn.segment(1)[sector.clone()].copy_from_slice(&old);
    let (mut rig, recovered) = Rig::on(torn, small()).unwrap();
    assert_eq!(recovered.torn, Some(Torn { segment: 1, offset: at as u64 }));
    assert_eq!(records(&recovered, 1).len(), 3);
    rig.persist(1, 4, false, vec![entry(1, 4, 1)]);
    rig.drain();
    let (_, recovered) = rig.disk.recover(small()).unwrap();
    assert_eq!(records(&recovered, 1).last(), Some(&entry(1, 4, 1)));
    assert_eq!((recovered.torn, rig.disk.segment(1).len()), (None, at), "what was cut gives its space back");
}

#[test]
fn a_frame_that_nobody_vouches_for_is_a_tail_even_if_one_behind_it_is_whole() {
    // Two frames written without a sync between them: the second survived, the first did not.
    let header = Header {
        log: 9,
        segment: 1,
        length: 0,
        first_sequence: 1,
        previous: 0,
        previous_end: 0,
        floor: 1,
        accepted: 0,
    };
    for (durable, holes) in [(0, 0), (1, 1)] {
        let mut bytes = header.encode();
        bytes.resize(bytes.len() + 64, 0xff);
        let mut frame = Vec::new();
        format::begin_frame(&mut frame);
        let place = Place { log: 9, segment: 1, offset: bytes.len() as u64 };
        format::seal_frame(&mut frame, place, Numbers { sequence: 2, durable, floor: 1 }, 0);
        bytes.extend(frame);
        let mut disk = Disk { inodes: vec![Inode { seen: bytes, stable: vec![] }], ..Disk::default() };
        disk.seen.insert(File::Segment(1), 0);
        let found = match disk.recover(small()) {
            Ok((_, recovered)) => recovered.holes.len(),
            Err(RecoverError::Lossy { holes, .. }) => holes.len(),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(found, holes, "vouched up to {durable}");
    }
}

#[test]
fn a_damaged_header_costs_nothing_while_its_other_copy_or_its_frames_are_there() {
    let mut rig = written(40);
    let segments = rig.disk.segments();
    assert!(segments.len() > 2);
    for n in segments {
        rig.disk.segment(n)[20] ^= 1;
    }
    assert_eq!(records(&rig.disk.recover(small()).unwrap().1, 1).len(), 40);
    rig.disk.segment(2)[..4096].fill(0);
    assert_eq!(records(&rig.disk.recover(small()).unwrap().1, 1).len(), 40);
}

#[test]
fn a_segment_that_is_gone_is_missed() {
    let rig = written(40);
    let all = rig.disk.segments();
    for n in &all[..all.len() - 1] {
        let mut disk = rig.disk.clone();
        disk.seen.remove(&File::Segment(*n));
        assert!(matches!(disk.recover(small()), Err(RecoverError::Lossy { .. })), "segment {n}");
    }
}

#[test]
fn damage_in_the_middle_is_named_with_its_place_and_nothing_is_opened() {
    let mut rig = written(40);
    let frame = format::frame_len(4 + entry(1, 1, 900).encoded_len()) as u64;
    rig.disk.segment(2)[(HEADER_BYTES + frame + 60) as usize] ^= 1;
    let Err(RecoverError::Lossy { holes, cells }) = rig.disk.recover(small()) else { panic!("not noticed") };
    assert_eq!(holes.len(), 1);
    assert_eq!((holes[0].segment, holes[0].offset, holes[0].next - holes[0].first), (2, HEADER_BYTES + frame, 1));
    assert_eq!(cells, [id(1)]);
    let said = rig.disk.recover(small()).unwrap_err().to_string();
    assert!(said.contains("0000000000000002.log") && said.contains(&alloc::format!("byte {}", HEADER_BYTES + frame)));
}

#[test]
fn after_an_accepted_loss_a_cell_must_begin_a_new_life_and_then_is_whole() {
    let mut rig = written(40);
    rig.disk.segment(2)[HEADER_BYTES as usize + 60] ^= 1;
    let accepting = Config { accept_loss: true, ..small() };
    let (mut rig, recovered) = Rig::on(rig.disk, accepting).unwrap();
    assert!(recovered.cells[&id(1)].lossy && recovered.holes[0].accepted);
    assert_eq!(records(&recovered, 1).len(), 39, "what can be read is handed out");
    rig.persist(1, 1, true, vec![entry(1, 41, 1)]);
    rig.drain();
    assert_eq!(rig.refusals(), [(1, Refusal::Lossy)]);
    rig.tell(Command::Resume(id(1)));
    // A cell that comes later has nothing to do with it.
    rig.persist(2, 1, false, vec![entry(2, 1, 1)]);
    rig.drain();
    let (mut rig, recovered) = Rig::on(rig.disk, small()).unwrap();
    assert!(recovered.cells[&id(1)].lossy && !recovered.cells[&id(2)].lossy, "it is still to be settled");
    let life = Record::Entry { cell: id(1), replica: ReplicaId(2), term: 1, index: 1, kind: 0, payload: Bytes::new() };
    rig.persist(1, 1, false, vec![Record::Forget { cell: id(1), replica: ReplicaId(1) }, life.clone()]);
    rig.drain();
    let (_, recovered) = rig.disk.recover(small()).unwrap();
    assert_eq!(recovered.cells[&id(1)], OfCell { records: vec![life], lossy: false });
}

#[test]
fn files_of_another_log_or_a_newer_release_are_refused_by_name() {
    let rig = written(40);
    let other = {
        // The same numbers, another founding.
        let mut other = Rig::new(Config { new_log: 77, ..small() });
        other.persist(1, 1, false, vec![entry(1, 1, 1)]);
        other.drain();
        other.disk.segment(1).clone()
    };
    let mut disk = rig.disk.clone();
    *disk.segment(1) = other;
    let foreign = RecoverError::Foreign { segment: 1, found: 77, expected: 0x1234 };
    assert_eq!(disk.recover(small()).unwrap_err(), foreign);
    let mut disk = rig.disk.clone();
    disk.segment(2)[8] = 2;
    disk.segment(2)[2056] = 2;
    assert_eq!(disk.recover(small()).unwrap_err(), RecoverError::Newer { segment: 2, version: 2 });
}

#[test]
fn a_block_in_the_wrong_place_is_no_frame() {
    let mut rig = written(3);
    let frame = format::frame_len(4 + entry(1, 1, 900).encoded_len());
    let at = HEADER_BYTES as usize;
    let first = rig.disk.segment(1)[at..at + frame].to_vec();
    rig.disk.segment(1)[at + 3 * frame..at + 4 * frame].copy_from_slice(&first);
    let (_, recovered) = rig.disk.recover(small()).unwrap();
    assert_eq!((records(&recovered, 1).len(), recovered.torn.is_some()), (3, true));
}

#[test]
fn a_first_segment_cut_short_while_it_was_made_is_an_empty_log_and_a_headless_one_is_refused() {
    let mut rig = written(1);
    rig.disk.segment(1)[..4096].fill(0);
    let (log, recovered) = rig.disk.recover(Config { new_log: 5, ..small() }).unwrap();
    assert_eq!((log.id(), recovered.cells.len()), (5, 0), "one first write whose header is not there was not durable");
    let mut rig = written(2);
    rig.disk.segment(1)[..4096].fill(0);
    assert_eq!(rig.disk.recover(small()).unwrap_err(), RecoverError::Headless { segment: 1 });
    let mut rig = written(1);
    rig.disk.segment(1)[..4096].fill(3);
    assert_eq!(rig.disk.recover(small()).unwrap_err(), RecoverError::Headless { segment: 1 });
}

#[test]
fn on_a_full_disk_only_what_is_vital_goes_on_and_all_goes_on_once_there_is_space() {
    let mut rig = Rig::new(small());
    rig.disk.capacity = Some(3 * SEGMENT);
    let mut ticket = 0;
    let mut put = |rig: &mut Rig, vital| {
        ticket += 1;
        rig.persist(1, ticket, vital, vec![entry(1, ticket, 900)]);
        rig.drain();
        rig.tell(Command::Resume(id(1)));
        rig.durable(1) == ticket
    };
    while rig.log.space() != Space::Full {
        put(&mut rig, false);
    }
    assert!(rig.heard.contains(&Notice::Space(Space::Low)), "it is told before it hurts");
    assert!(!put(&mut rig, false));
    assert_eq!(rig.refusals().last().unwrap().1, Refusal::Full);
    assert!(put(&mut rig, true), "the reserve serves what is vital");
    while put(&mut rig, true) {}
    assert_eq!(rig.refusals().last().unwrap().1, Refusal::ReserveSpent);
    rig.disk.capacity = None;
    rig.now.mono = rig.log.next_deadline().unwrap();
    rig.step(Input::Tick);
    rig.drain();
    assert_eq!(rig.log.space(), Space::Ample);
    assert!(put(&mut rig, false));
    let acknowledged = rig.heard.iter().filter(|n| matches!(n, Notice::Durable { .. })).count();
    assert_eq!(records(&rig.disk.recover(small()).unwrap().1, 1).len(), acknowledged);
}

#[test]
fn a_disk_that_is_full_at_the_write_itself_refuses_the_batch_but_for_what_is_vital() {
    let mut rig = written(2);
    rig.disk.write_fault = Some(Failure::Full("no space left on device".into()));
    rig.persist(1, 3, false, vec![entry(1, 3, 300)]);
    rig.persist(2, 4, true, vec![entry(2, 4, 300)]);
    rig.persist(3, 5, false, vec![entry(3, 5, 300)]);
    rig.persist(1, 6, true, vec![entry(1, 6, 300)]);
    rig.drain();
    let told = [(3, Refusal::Full), (5, Refusal::Full), (6, Refusal::AfterRefusal)];
    assert_eq!(rig.refusals(), told, "that 6 is durable would say that 3 is");
    assert_eq!((rig.durable(2), rig.fatal.clone()), (4, None));
    let (_, recovered) = rig.disk.recover(small()).unwrap();
    assert_eq!(records(&recovered, 1).len(), 2);
    assert_eq!((records(&recovered, 2), records(&recovered, 3)), (vec![entry(2, 4, 300)], vec![]));
}

#[test]
fn what_a_spent_reserve_has_no_room_for_takes_all_of_the_cell_behind_it_along() {
    let mut rig = Rig::new(small());
    rig.disk.capacity = Some(3 * SEGMENT);
    let mut ticket = 0;
    while rig.refusals().last().is_none_or(|(_, why)| *why != Refusal::ReserveSpent) {
        ticket += 1;
        rig.persist(1, ticket, true, vec![entry(1, ticket, 900)]);
        rig.drain();
        rig.tell(Command::Resume(id(1)));
    }
    let before = rig.durable(1);
    // Two frames: what is left of the segment takes the second, not the first.
    let long = small().frame_bytes - 100;
    rig.persist(1, ticket + 1, true, vec![entry(1, ticket + 1, long)]);
    rig.persist(1, ticket + 2, true, vec![entry(1, ticket + 2, 100)]);
    rig.persist(2, ticket + 3, true, vec![entry(2, 1, 10)]);
    rig.drain();
    let told = [(ticket + 1, Refusal::ReserveSpent), (ticket + 2, Refusal::AfterRefusal)];
    assert_eq!(rig.refusals()[rig.refusals().len() - 2..], told);
    assert_eq!((rig.durable(1), rig.durable(2)), (before, ticket + 3));
}

#[test]
fn after_a_refusal_nothing_of_the_cell_is_taken_until_it_knows() {
    let mut rig = Rig::new(small());
    rig.persist(1, 1, false, vec![entry(1, 1, SEGMENT as usize)]);
    rig.persist(1, 2, true, vec![entry(1, 2, 1)]);
    rig.persist(2, 1, false, vec![entry(2, 1, 1)]);
    rig.tell(Command::Resume(id(1)));
    rig.persist(1, 3, true, vec![entry(1, 1, 1)]);
    rig.drain();
    assert_eq!(rig.refusals(), [(1, Refusal::TooLarge), (2, Refusal::AfterRefusal)]);
    assert_eq!((rig.durable(1), rig.durable(2)), (3, 1));
}

#[test]
fn what_waits_is_bounded_and_what_is_beyond_is_refused_as_busy() {
    let mut rig = Rig::new(small());
    for n in 1..=100 {
        rig.persist(n, n, false, vec![entry(n, n, 3000)]);
    }
    let refused = rig.refusals();
    assert_eq!(refused.first(), Some(&(22, Refusal::Busy)));
    rig.drain();
    let durable = rig.heard.iter().filter(|n| matches!(n, Notice::Durable { .. })).count();
    assert_eq!(durable + refused.len(), 100);
}

/// Cells that keep the newest revision of each key, as agree::cell does, over a log that rewrites.
struct Keeper {
    rig: Rig,
    /// Cell, key → revision.
    state: BTreeMap<(u64, u64), u64>,
    revision: u64,
    ticket: u64,
    heard: usize,
    /// Cells that cannot answer yet.
    busy: BTreeSet<u64>,
    /// Whoever was asked, in turn.
    asked: Vec<CellId>,
}

fn kept(cell: u64, key: u64, revision: u64, bytes: usize) -> Bytes {
    let mut body = vec![0; 24 + bytes];
    body[..8].copy_from_slice(&cell.to_le_bytes());
    body[8..16].copy_from_slice(&key.to_le_bytes());
    body[16..24].copy_from_slice(&revision.to_le_bytes());
    body.into()
}

fn parts(record: &Record) -> ((u64, u64), u64, Bytes) {
    let body = match record {
        Record::Entry { payload, .. } => payload,
        Record::Carried { record, .. } => record,
        other => panic!("{other:?} was never written"),
    };
    let n = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().unwrap());
    ((n(0), n(8)), n(16), body.clone())
}

impl Keeper {
    fn new(disk: Disk, config: Config) -> Keeper {
        let (rig, recovered) = Rig::on(disk, config).unwrap();
        let mut keeper = Keeper {
            rig,
            state: BTreeMap::new(),
            revision: 0,
            ticket: 0,
            heard: 0,
            busy: BTreeSet::new(),
            asked: Vec::new(),
        };
        for record in recovered.cells.values().flat_map(|c| &c.records) {
            let (key, revision, _) = parts(record);
            let newest = keeper.state.entry(key).or_default();
            *newest = revision.max(*newest);
            keeper.revision = keeper.revision.max(revision);
        }
        keeper
    }

    fn put(&mut self, cell: u64, key: u64, bytes: usize) {
        (self.revision, self.ticket) = (self.revision + 1, self.ticket + 1);
        let payload = kept(cell, key, self.revision, bytes);
        let index = self.revision;
        let record = Record::Entry { cell: id(cell), replica: ReplicaId(1), term: 1, index, kind: 0, payload };
        self.state.insert((cell, key), self.revision);
        self.rig.persist(cell, self.ticket, false, vec![record]);
    }

    /// Lets the disk work, and answers what is asked, until nothing happens any more.
    fn settle(&mut self) {
        loop {
            self.rig.drain();
            let asked: Vec<Notice> = self.rig.heard[self.heard..].to_vec();
            self.heard = self.rig.heard.len();
            let mut answered = false;
            for notice in asked {
                let Notice::Carry { question, cell, records, .. } = notice else { continue };
                answered = true;
                self.asked.push(cell);
                if self.busy.iter().any(|c| id(*c) == cell) {
                    self.rig.tell(Command::Carried { question, cell, answer: Answer::Later });
                    continue;
                }
                let live = |r: &Record| {
                    let (key, revision, body) = parts(r);
                    (self.state.get(&key) == Some(&revision)).then_some(Record::Carried { cell, record: body })
                };
                let records: Vec<Record> = records.iter().filter_map(live).collect();
                self.ticket += 1;
                let ticket = Ticket(self.ticket);
                let answer = match records.is_empty() {
                    true => Answer::Nothing,
                    false => Answer::Live(Persist { cell, ticket, vital: false, records }),
                };
                self.rig.tell(Command::Carried { question, cell, answer });
            }
            if !answered || self.rig.ops_left == 0 {
                return;
            }
        }
    }
}

#[test]
fn an_idle_cell_pins_nothing_and_the_log_stays_within_its_bound() {
    let config = Config { slack_bytes: 5 * SEGMENT, ..small() };
    let mut keeper = Keeper::new(Disk::default(), config.clone());
    for key in 0..10 {
        keeper.put(7, key, 900);
    }
    for n in 0..600 {
        keeper.put(1, n % 5, 900);
        keeper.settle();
        let bound = 2 * 15 * 1000 + config.slack_bytes + 2 * SEGMENT;
        assert!(keeper.rig.disk.used() <= bound, "{} bytes after {n} writes", keeper.rig.disk.used());
    }
    assert!(keeper.rig.disk.segments()[0] > 10, "old segments are gone");
    let again = Keeper::new(keeper.rig.disk.clone(), config);
    assert_eq!(again.state, keeper.state);
}

#[test]
fn rewriting_ends_when_everything_is_live() {
    let config = Config { slack_bytes: 5 * SEGMENT, ..small() };
    let mut keeper = Keeper::new(Disk::default(), config);
    for key in 0..200 {
        keeper.put(1, key, 900);
        keeper.settle();
    }
    let again = Keeper::new(keeper.rig.disk.clone(), small());
    assert_eq!(again.state, keeper.state);
}

#[test]
fn a_cell_that_cannot_answer_yet_is_asked_again_alone_and_its_segment_stays_until_then() {
    let config = Config { slack_bytes: 5 * SEGMENT, ..small() };
    let mut keeper = Keeper::new(Disk::default(), config);
    keeper.put(1, 1, 900);
    keeper.put(2, 1, 900);
    keeper.busy.insert(1);
    let mut n = 0;
    while keeper.asked.is_empty() {
        n += 1;
        keeper.put(3, n % 5, 900);
        keeper.settle();
    }
    assert_eq!(keeper.asked, [id(1), id(2), id(3)]);
    for _ in 0..3 {
        keeper.asked.clear();
        keeper.rig.now.mono = keeper.rig.log.next_deadline().unwrap();
        keeper.rig.step(Input::Tick);
        keeper.settle();
        assert_eq!(keeper.asked, [id(1)], "the others have written what they had to");
        assert!(keeper.rig.disk.segments().contains(&1));
    }
    keeper.busy.clear();
    keeper.rig.now.mono = keeper.rig.log.next_deadline().unwrap();
    keeper.rig.step(Input::Tick);
    keeper.settle();
    for n in 0..100 {
        keeper.put(3, n % 5, 900);
        keeper.settle();
    }
    assert!(!keeper.rig.disk.segments().contains(&1));
    assert_eq!(Keeper::new(keeper.rig.disk.clone(), small()).state, keeper.state);
}

#[test]
fn a_segment_found_damaged_while_it_is_rewritten_stays() {
    let config = Config { slack_bytes: 5 * SEGMENT, ..small() };
    let mut keeper = Keeper::new(Disk::default(), config);
    keeper.put(1, 0, 900);
    keeper.settle();
    keeper.rig.disk.segment(1)[HEADER_BYTES as usize + 50] ^= 1;
    for n in 0..200 {
        keeper.put(1, n % 3, 900);
        keeper.settle();
    }
    assert!(keeper.rig.heard.contains(&Notice::Damaged { segment: 1, offset: HEADER_BYTES }));
    assert!(keeper.rig.disk.segments().contains(&1));
}

/// The frames, counted from 1, whose bytes are as they were.
fn whole_frames(mut before: Disk, after: &mut Disk) -> Vec<u64> {
    let mut whole = Vec::new();
    let mut count = 0;
    for n in before.segments() {
        let (was, is) = (before.segment(n), after.segment(n));
        let mut at = HEADER_BYTES as usize;
        while let Some(head) = format::Head::read(Place { log: 0x1234, segment: n, offset: at as u64 }, &was[at..]) {
            count += 1;
            if is.get(at..at + head.len()) == Some(&was[at..at + head.len()]) {
                whole.push(count);
            }
            at += head.len();
            if at >= was.len() {
                break;
            }
        }
    }
    whole
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever is written, and wherever the power goes, several times over: each cell finds a prefix of
    /// what it persisted, with everything in it that it was told is durable.
    #[test]
    fn a_power_cut_leaves_a_prefix_with_all_that_was_acknowledged(seed in any::<u64>()) {
        let mut chance = Chance::from_u64(seed);
        let mut disk = Disk::default();
        let mut kept: BTreeMap<u64, Vec<Record>> = BTreeMap::new();
        for _ in 0..4 {
            let (mut rig, recovered) = Rig::on(disk, small()).expect("nothing that was acknowledged is missing");
            for cell in 0..3 {
                prop_assert!(records(&recovered, cell) == *kept.entry(cell).or_default());
            }
            rig.ops_left = chance.below(120) as usize;
            let mut asked: BTreeMap<u64, Vec<Vec<Record>>> = BTreeMap::new();
            for _ in 0..60 {
                for _ in 0..chance.range(1, 5) {
                    let cell = chance.below(3);
                    let of = asked.entry(cell).or_default();
                    let n = of.len() as u64;
                    let records: Vec<Record> =
                        (0..chance.below(3)).map(|_| entry(cell, chance.u64(), chance.below(1500) as usize)).collect();
                    of.push(records.clone());
                    rig.persist(cell, n + 1, false, records);
                }
                rig.drain();
            }
            prop_assert!(rig.refusals().iter().all(|(_, why)| matches!(why, Refusal::Busy | Refusal::AfterRefusal)));
            let durable: BTreeMap<u64, u64> = (0..3).map(|cell| (cell, rig.durable(cell))).collect();
            disk = rig.disk;
            disk.crash(&mut chance);
            let (_, recovered) = disk.recover(small()).expect("nothing that was acknowledged is missing");
            for cell in 0..3 {
                let found = records(&recovered, cell);
                let mut prefix = kept[&cell].clone();
                let mut requests = asked.remove(&cell).unwrap_or_default().into_iter();
                for _ in 0..durable[&cell] {
                    prefix.extend(requests.next().unwrap());
                }
                while prefix.len() < found.len() {
                    prefix.extend(requests.next().expect("more was found than was asked for"));
                }
                prop_assert!(found == prefix, "{} records are no prefix", found.len());
                kept.insert(cell, found);
            }
        }
    }

    /// The same while old segments are rewritten forward: the newest acknowledged revision of each key is
    /// found, and none from the future.
    #[test]
    fn a_power_cut_while_rewriting_loses_no_live_record(seed in any::<u64>()) {
        let mut chance = Chance::from_u64(seed);
        let config = Config { slack_bytes: 4 * SEGMENT, ..small() };
        let mut disk = Disk::default();
        for _ in 0..3 {
            let mut keeper = Keeper::new(disk, config.clone());
            keeper.rig.ops_left = chance.range(1, 900) as usize;
            let mut acknowledged = keeper.state.clone();
            while keeper.rig.ops_left > 0 {
                let (cell, key) = (chance.below(3), chance.below(6));
                keeper.put(cell, key, chance.range(1, 1500) as usize);
                let ticket = Ticket(keeper.ticket);
                keeper.settle();
                if keeper.rig.heard.contains(&Notice::Durable { cell: id(cell), ticket }) {
                    acknowledged = keeper.state.clone();
                }
            }
            disk = keeper.rig.disk;
            disk.crash(&mut chance);
            let found = Keeper::new(disk.clone(), config.clone());
            for (key, revision) in acknowledged {
                let newest = found.state.get(&key).copied().unwrap_or(0);
                prop_assert!(newest >= revision && newest <= keeper.revision, "{key:?}: {newest} for {revision}");
            }
        }
    }

    /// Whatever rots: no panic, and nothing that was acknowledged is missing without being called
    /// missing while any frame behind it is whole.
    #[test]
    fn rot_is_never_passed_over_in_silence(seed in any::<u64>(), close in any::<bool>()) {
        let mut chance = Chance::from_u64(seed);
        let frames = chance.range(2, 40);
        let mut rig = written(frames);
        if close {
            rig.tell(Command::Close);
            rig.drain();
        }
        let before = rig.disk.clone();
        for _ in 0..chance.range(1, 6) {
            let n = *chance.pick(&rig.disk.segments()).unwrap();
            let segment = rig.disk.segment(n);
            if segment.is_empty() {
                continue;
            }
            let at = chance.below(segment.len() as u64) as usize;
            match chance.below(4) {
                0 => segment[at] ^= 1 << chance.below(8),
                1 => { let to = segment.len().min(at + SECTOR); segment[at..to].fill(0) },
                2 => { let to = segment.len().min(at + 4096); chance.fill(&mut segment[at..to]) },
                _ => segment.truncate(at),
            }
        }
        match rig.disk.recover(small()) {
            Ok((_, recovered)) => {
                let found = records(&recovered, 1);
                let all: Vec<Record> = (1..=frames).map(|n| entry(1, n, 900)).collect();
                prop_assert!(found == all[..found.len()], "{} records, not the first of {frames}", found.len());
                let whole = whole_frames(before, &mut rig.disk);
                let found = found.len() as u64;
                prop_assert!(found == frames || whole.iter().all(|n| *n <= found), "{found} of {whole:?}");
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
        // With the loss accepted it opens, or says why nothing can be.
        if let Ok((mut rig, _)) = Rig::on(rig.disk, Config { accept_loss: true, ..small() }) {
            rig.persist(1, 1, true, vec![Record::Forget { cell: id(1), replica: ReplicaId(1) }, entry(1, 1, 5)]);
            rig.drain();
            let (_, recovered) = rig.disk.recover(small()).expect("an accepted loss stays accepted");
            prop_assert_eq!(&recovered.cells[&id(1)], &OfCell { records: vec![entry(1, 1, 5)], lossy: false });
        }
    }

    #[test]
    fn no_bytes_make_recovery_panic(
        files in proptest::collection::vec((1u64..5, proptest::collection::vec(any::<u8>(), 0..9000)), 0..4),
    ) {
        let mut disk = Disk::default();
        for (n, bytes) in files {
            disk.seen.insert(File::Segment(n), disk.inodes.len());
            disk.inodes.push(Inode { seen: bytes, stable: vec![] });
        }
        let _ = disk.recover(small());
    }
}
