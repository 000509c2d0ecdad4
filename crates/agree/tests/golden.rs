//! Bytes of each kind that was ever written must be read for ever. A golden file is made once, when its
//! kind and version are, and never again: a change that makes one of these tests fail makes disks
//! unreadable.

#![allow(clippy::unwrap_used)]

use agree::log::{Command, Config, Log, Persist, Record, Recovered, Recovery, Ticket};
use base::disk::{Done, Effect, File, Found, Input, Machine as _, Op, Recovery as _};
use base::{CellId, Now, ReplicaId, Revision, Uid};
use bytes::Bytes;

const CELL: CellId = CellId(Uid(0x0123_4567_89ab_4cde_8f01_2345_6789_abcd));
const REPLICA: ReplicaId = ReplicaId(0x1122_3344_5566_7788);

fn records_version_1() -> [(&'static str, &'static [u8], Record); 6] {
    let payload = Bytes::from_static(b"{\"kind\":\"ConfigMap\"}");
    [
        (
            "entry",
            include_bytes!("golden/log/entry.1.bin"),
            Record::Entry {
                cell: CELL,
                replica: REPLICA,
                term: 7,
                index: 0x0102_0304,
                kind: 2,
                payload: payload.clone(),
            },
        ),
        (
            "hard",
            include_bytes!("golden/log/hard.1.bin"),
            Record::Hard { cell: CELL, replica: REPLICA, term: 7, vote: 3, commit: 0x0102_0303 },
        ),
        (
            "checkpoint",
            include_bytes!("golden/log/checkpoint.1.bin"),
            Record::Checkpoint {
                cell: CELL,
                replica: REPLICA,
                applied_index: 9,
                applied_term: 6,
                body: payload.clone(),
            },
        ),
        ("carried", include_bytes!("golden/log/carried.1.bin"), Record::Carried { cell: CELL, record: payload }),
        (
            "bound",
            include_bytes!("golden/log/bound.1.bin"),
            Record::Bound { cell: CELL, replica: REPLICA, revision: Revision::MAX },
        ),
        ("forget", include_bytes!("golden/log/forget.1.bin"), Record::Forget { cell: CELL, replica: REPLICA }),
    ]
}

#[test]
fn records_of_version_1_are_read_for_ever() {
    for (name, bytes, record) in records_version_1() {
        assert_eq!(Record::decode(&Bytes::from_static(bytes)).as_ref(), Ok(&record), "{name}");
    }
}

#[test]
fn records_are_written_as_version_1() {
    for (name, bytes, record) in records_version_1() {
        let mut out = Vec::new();
        record.encode(&mut out);
        assert_eq!(out, bytes, "{name}");
    }
}

/// A segment of 16 KiB, up to the end of its last frame: an entry and hard state; a checkpoint, a carried
/// record and a bound; the empty frame of an orderly end.
const SEGMENT_VERSION_1: &[u8] = include_bytes!("golden/log/segment.1.bin");
const SEGMENT_BYTES: u64 = 16 << 10;
const LOG: u128 = 0x0f1e_2d3c_4b5a_6978_8796_a5b4_c3d2_e1f0;

fn config() -> Config {
    Config { segment_bytes: SEGMENT_BYTES, ..Config::new(LOG) }
}

fn open(found: &[Found], bytes: &[u8]) -> (Log, Recovered) {
    let mut recovery = Recovery::new(config(), found);
    while let Some((_, offset, length)) = recovery.next_read() {
        recovery.read(bytes[offset as usize..bytes.len().min((offset + length) as usize)].to_vec());
    }
    recovery.finish().unwrap()
}

#[test]
fn a_segment_of_version_1_is_read_for_ever() {
    let mut bytes = SEGMENT_VERSION_1.to_vec();
    bytes.resize(SEGMENT_BYTES as usize, 0);
    let (log, recovered) = open(&[Found { file: File::Segment(1), bytes: SEGMENT_BYTES }], &bytes);
    let expected: Vec<Record> = records_version_1().into_iter().take(5).map(|(_, _, record)| record).collect();
    assert_eq!((log.id(), recovered.frames, recovered.torn), (LOG, 3, None));
    assert_eq!(recovered.cells[&CELL].records, expected);
}

#[test]
fn a_segment_is_written_as_version_1() {
    let (mut log, _) = open(&[], &[]);
    let mut written = Vec::new();
    let mut step = |input: Input<Command>| {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut effects = Vec::new();
            log.step(Now::default(), input, &mut effects);
            for effect in effects {
                let Effect::Disk(op) = effect else { continue };
                inputs.push(Input::Done(match op {
                    Op::Prepare { spare, .. } => Done::Prepared(spare, Ok(())),
                    Op::Adopt { segment, .. } => Done::Adopted(segment, Ok(())),
                    Op::Sync { segment } => Done::Synced(segment, Ok(())),
                    Op::Write { segment, offset, bytes } => {
                        written.resize(written.len().max(offset as usize + bytes.len()), 0);
                        written[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                        Done::Written { segment, offset, bytes, result: Ok(()) }
                    }
                    other => panic!("{other:?} was not to be expected"),
                }));
            }
            inputs.sort_by_key(|done| matches!(done, Input::Done(Done::Written { .. } | Done::Adopted(..))));
        }
    };
    let mut records = records_version_1().into_iter().map(|(_, _, record)| record);
    for (ticket, count) in [(1, 2), (2, 3)] {
        let records = records.by_ref().take(count).collect();
        step(Input::Command(Command::Persist(Persist { cell: CELL, ticket: Ticket(ticket), vital: false, records })));
        step(Input::Drained);
    }
    step(Input::Command(Command::Close));
    step(Input::Drained);
    assert!(written == SEGMENT_VERSION_1, "the layout has changed");
}
