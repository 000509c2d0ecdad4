//! Bytes of each kind that was ever written must be read for ever. A golden file is made once, when its
//! kind and version are, and never again: a change that makes one of these tests fail makes disks
//! unreadable.

#![allow(clippy::unwrap_used)]

use agree::log::Record;
use base::{CellId, ReplicaId, Revision, Uid};
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
