//! The node's log as the program puts it together: the pure machine of `agree` on the thread and the
//! directory of `host`.

#![allow(clippy::unwrap_used)]

use agree::log::{Answer, Command, Config, Log, Notice, Persist, Record, Recovered, Refusal, Ticket};
use base::disk::File;
use base::{CellId, ReplicaId, Uid};
use bytes::Bytes;
use host::store::{OpenError, Sink, Store};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

struct Ear(Sender<Notice>);

impl Sink<Notice> for Ear {
    fn notice(&mut self, notice: Notice) {
        let _ = self.0.send(notice);
    }

    fn fatal(&mut self, why: String) {
        panic!("{why}");
    }
}

fn small() -> Config {
    Config { segment_bytes: 64 << 10, slack_bytes: 320 << 10, frame_bytes: 8 << 10, ..Config::new(42) }
}

fn open(dir: &Path, config: Config) -> Result<(Store<Log>, Recovered, Receiver<Notice>), String> {
    let (sender, told) = channel();
    let (store, recovered) = Store::open(dir, config, 256, Ear(sender)).map_err(|e| e.to_string())?;
    Ok((store, recovered, told))
}

fn cell(n: u64) -> CellId {
    CellId(Uid(u128::from(n)))
}

fn entry(of: u64, index: u64) -> Record {
    let payload = Bytes::from(vec![index as u8; 700]);
    Record::Entry { cell: cell(of), replica: ReplicaId(1), term: 1, index, kind: 0, payload }
}

fn persist(of: u64, n: u64) -> Command {
    Command::Persist(Persist { cell: cell(of), ticket: Ticket(n), vital: false, records: vec![entry(of, n)] })
}

/// Waits until every cell has heard of its ticket, answering that nothing old is live.
fn until_durable(store: &Store<Log>, told: &Receiver<Notice>, mut wanted: BTreeMap<CellId, u64>) {
    while !wanted.is_empty() {
        match told.recv().unwrap() {
            Notice::Durable { cell, ticket } if wanted.get(&cell) == Some(&ticket.0) => {
                wanted.remove(&cell);
            }
            Notice::Durable { .. } | Notice::Space(_) => {}
            Notice::Carry { question, cell, .. } => {
                store.send(Command::Carried { question, cell, answer: Answer::Nothing }).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_many_threads_were_told_is_durable_is_there_in_order_after_a_process_that_just_died() {
    let dir = tempfile::tempdir().unwrap();
    let (store, recovered, told) = open(dir.path(), Config::new(42)).unwrap();
    assert!(recovered.cells.is_empty());
    std::thread::scope(|scope| {
        for of in 0..4 {
            let handle = store.handle();
            scope.spawn(move || (1..=200).for_each(|n| handle.send_waiting(persist(of, n)).unwrap()));
        }
    });
    until_durable(&store, &told, (0..4).map(|of| (cell(of), 200)).collect());
    store.join();
    let (_, recovered, _) = open(dir.path(), Config::new(43)).unwrap();
    assert_eq!((recovered.log, recovered.torn), (42, None));
    assert!(recovered.frames < 800, "{} frames for 800 requests: nothing was batched", recovered.frames);
    for of in 0..4 {
        let all: Vec<Record> = (1..=200).map(|n| entry(of, n)).collect();
        assert!(recovered.cells[&cell(of)].records == all);
    }
}

#[test]
fn old_segments_go_and_the_directory_stays_within_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, told) = open(dir.path(), small()).unwrap();
    for n in 1..=1500 {
        store.send(persist(1, n)).unwrap();
        until_durable(&store, &told, [(cell(1), n)].into());
    }
    store.send(Command::Close).unwrap();
    while told.recv().unwrap() != Notice::Closed {}
    store.join();
    let used: u64 = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
    assert!(used <= small().slack_bytes + 2 * small().segment_bytes, "{used} bytes");
    assert!(!dir.path().join(File::Segment(1).name()).exists());
    let (_, recovered, _) = open(dir.path(), small()).unwrap();
    assert_eq!(recovered.cells[&cell(1)].records.last(), Some(&entry(1, 1500)));
}

#[test]
fn a_corrupt_log_is_refused_in_words_and_opens_when_the_loss_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, told) = open(dir.path(), small()).unwrap();
    for n in 1..=20 {
        store.send(persist(1, n)).unwrap();
        until_durable(&store, &told, [(cell(1), n)].into());
    }
    store.join();
    let path = dir.path().join(File::Segment(1).name());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[6000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let said = open(dir.path(), small()).err().unwrap();
    for word in [
        dir.path().to_str().unwrap(),
        "0000000000000001.log",
        "from byte",
        "move the data directory away",
        "Nothing was",
    ] {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
    assert!(std::fs::read(&path).unwrap() == bytes, "a refused log was changed");
    let (store, recovered, told) = open(dir.path(), Config { accept_loss: true, ..small() }).unwrap();
    assert_eq!((recovered.holes.len(), recovered.cells[&cell(1)].lossy), (1, true));
    store.send(persist(1, 21)).unwrap();
    let refused = Notice::Refused { cell: cell(1), ticket: Ticket(21), why: Refusal::Lossy };
    assert_eq!(told.recv().unwrap(), refused);
}

#[test]
fn a_second_process_is_refused_while_the_first_lives() {
    let dir = tempfile::tempdir().unwrap();
    let (first, ..) = open(dir.path(), small()).unwrap();
    let (sender, _told) = channel();
    let second = Store::<Log>::open(dir.path(), small(), 16, Ear(sender));
    assert!(matches!(second, Err(OpenError::InUse { pid, .. }) if pid == Some(std::process::id())));
    first.join();
    assert!(open(dir.path(), small()).is_ok());
}
