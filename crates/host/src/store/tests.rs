//! The thread and the system calls, driven by the smallest machine that asks for each of them. (What the
//! node's own log makes of them is tested where both may be named, in the program.)

#![allow(clippy::unwrap_used)]

use super::*;
use base::disk::{Done, Failure, File, Found};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

/// Appends what it is told to one segment and says how long that is once it is durable.
struct Tape {
    bytes: u64,
    at: u64,
    begun: bool,
    gathered: Vec<u8>,
    busy: bool,
}

struct TapeRecovery {
    bytes: u64,
    length: Option<u64>,
    content: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
#[error("the tape is spoilt")]
struct Spoilt;

#[derive(Clone, PartialEq, Debug)]
enum Told {
    Durable(u64),
    Full,
    Fatal(String),
}

impl Machine for Tape {
    type Config = u64;
    type Command = Vec<u8>;
    type Notice = Told;
    type Recovery = TapeRecovery;

    fn step(&mut self, _: Now, input: Input<Vec<u8>>, effects: &mut Vec<Effect<Told>>) {
        match input {
            Input::Command(bytes) if bytes == b"panic" => panic!("as told"),
            Input::Command(bytes) => self.gathered.extend(bytes),
            Input::Drained if self.busy || self.gathered.is_empty() => {}
            Input::Drained => {
                self.busy = true;
                if !self.begun {
                    effects.push(Effect::Disk(Op::Prepare { spare: 1, bytes: self.bytes }));
                    effects.push(Effect::Disk(Op::Adopt { spare: 1, segment: 1 }));
                    self.begun = true;
                }
                let bytes = std::mem::take(&mut self.gathered);
                effects.push(Effect::Disk(Op::Write { segment: 1, offset: self.at, bytes }));
                effects.push(Effect::Disk(Op::Sync { segment: 1 }));
            }
            Input::Done(Done::Written { result: Err(Failure::Full(_)), .. }) => {
                effects.push(Effect::Notice(Told::Full));
            }
            Input::Done(Done::Written { bytes, result: Ok(()), .. }) => self.at += bytes.len() as u64,
            Input::Done(Done::Synced(_, Ok(()))) => {
                self.busy = false;
                effects.push(Effect::Notice(Told::Durable(self.at)));
            }
            Input::Done(Done::Synced(_, Err(failure))) => effects.push(Effect::Fatal(failure.to_string())),
            _ => {}
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        None
    }
}

impl Recovery for TapeRecovery {
    type Machine = Tape;
    type Recovered = Vec<u8>;
    type Error = Spoilt;

    fn new(bytes: u64, found: &[Found]) -> TapeRecovery {
        let length = found.iter().find(|f| f.file == File::Segment(1)).map(|f| f.bytes);
        TapeRecovery { bytes, length, content: Vec::new() }
    }

    fn next_read(&mut self) -> Option<(u64, u64, u64)> {
        self.length.take().map(|length| (1, 0, length))
    }

    fn read(&mut self, bytes: Vec<u8>) {
        self.content = bytes;
    }

    fn finish(mut self) -> Result<(Tape, Vec<u8>), Spoilt> {
        if self.content.starts_with(b"spoilt") {
            return Err(Spoilt);
        }
        let begun = !self.content.is_empty();
        let end = self.content.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        self.content.truncate(end);
        let tape = Tape { bytes: self.bytes, at: end as u64, begun, gathered: Vec::new(), busy: false };
        Ok((tape, self.content))
    }
}

struct Ear(std::sync::mpsc::Sender<Told>);

impl Sink<Told> for Ear {
    fn notice(&mut self, notice: Told) {
        let _ = self.0.send(notice);
    }

    fn fatal(&mut self, why: String) {
        let _ = self.0.send(Told::Fatal(why));
    }
}

/// What the next calls answer instead of doing it.
#[derive(Default)]
struct Faults {
    pwrite: Option<i32>,
    /// Every pwrite writes at most so much.
    short: Option<usize>,
    fdatasync: Option<i32>,
    fallocate: Option<i32>,
}

struct Faulty(Arc<Mutex<Faults>>);

impl Edge for Faulty {
    fn pwrite(&mut self, file: &std::fs::File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut faults = self.0.lock().unwrap();
        if let Some(errno) = faults.pwrite.take() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let length = faults.short.unwrap_or(bytes.len()).min(bytes.len());
        Kernel.pwrite(file, &bytes[..length], offset)
    }

    fn fdatasync(&mut self, file: &std::fs::File) -> io::Result<()> {
        self.0
            .lock()
            .unwrap()
            .fdatasync
            .take()
            .map_or_else(|| Kernel.fdatasync(file), |e| Err(io::Error::from_raw_os_error(e)))
    }

    fn fallocate(&mut self, file: &std::fs::File, bytes: u64) -> io::Result<()> {
        let fault = self.0.lock().unwrap().fallocate.take();
        fault.map_or_else(|| Kernel.fallocate(file, bytes), |e| Err(io::Error::from_raw_os_error(e)))
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EOPNOTSUPP: i32 = 95;

type OpenedTape = (Store<Tape>, Vec<u8>, Receiver<Told>);

fn open(dir: &Path, faults: Faults) -> Result<(OpenedTape, Arc<Mutex<Faults>>), OpenError<Spoilt>> {
    let (sender, told) = channel();
    let faults = Arc::new(Mutex::new(faults));
    let edge = Box::new(Faulty(faults.clone()));
    let (store, recovered) = Store::open_at(dir, 64 << 10, 16, Ear(sender), edge)?;
    Ok(((store, recovered, told), faults))
}

#[test]
fn what_was_told_durable_is_there_after_the_next_opening() {
    let dir = tempfile::tempdir().unwrap();
    let ((store, recovered, told), _) = open(&dir.path().join("a/b"), Faults::default()).unwrap();
    assert!(recovered.is_empty());
    for word in ["one ", "two ", "three"] {
        store.send(word.into()).unwrap();
    }
    while told.recv().unwrap() != Told::Durable(13) {}
    store.join();
    let ((_, recovered, _), _) = open(&dir.path().join("a/b"), Faults::default()).unwrap();
    assert_eq!(recovered, b"one two three");
}

#[test]
fn what_is_queued_is_still_written_when_the_last_handle_goes() {
    let dir = tempfile::tempdir().unwrap();
    let ((store, ..), _) = open(dir.path(), Faults::default()).unwrap();
    store.send(b"last".to_vec()).unwrap();
    store.join();
    assert_eq!(open(dir.path(), Faults::default()).unwrap().0.1, b"last");
}

#[test]
fn a_second_opening_is_refused_naming_the_process_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let ((store, ..), _) = open(dir.path(), Faults::default()).unwrap();
    let said = open(dir.path(), Faults::default()).err().unwrap().to_string();
    assert!(said.contains(&format!("process {}", std::process::id())) && said.contains("--data"), "{said}");
    store.join();
    assert!(open(dir.path(), Faults::default()).is_ok());
}

#[test]
fn a_spoilt_log_is_refused_naming_the_directory_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(File::Segment(1).name());
    std::fs::write(&path, "spoilt").unwrap();
    let said = open(dir.path(), Faults::default()).err().unwrap().to_string();
    assert!(said.contains("spoilt") && said.contains(dir.path().to_str().unwrap()), "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), b"spoilt");
}

#[test]
fn a_failed_fdatasync_is_fatal_and_later_commands_are_refused() {
    // Want of space too: what the disk holds after a failed sync is unknown whatever the reason.
    for errno in [EIO, ENOSPC] {
        let dir = tempfile::tempdir().unwrap();
        let ((store, _, told), faults) = open(dir.path(), Faults::default()).unwrap();
        faults.lock().unwrap().fdatasync = Some(errno);
        store.send(b"x".to_vec()).unwrap();
        let heard = told.recv().unwrap();
        assert!(matches!(&heard, Told::Fatal(why) if why.contains("os error")), "{heard:?}");
        while store.send(b"y".to_vec()) != Err(Refused::Ended(b"y".to_vec())) {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_panic_of_the_machine_is_fatal() {
    let dir = tempfile::tempdir().unwrap();
    let ((store, _, told), _) = open(dir.path(), Faults::default()).unwrap();
    store.send(b"panic".to_vec()).unwrap();
    assert!(matches!(told.recv().unwrap(), Told::Fatal(why) if why.contains("panicked")));
}

#[test]
fn a_full_disk_is_told_apart_from_a_broken_one() {
    let dir = tempfile::tempdir().unwrap();
    let ((store, _, told), faults) = open(dir.path(), Faults::default()).unwrap();
    faults.lock().unwrap().short = Some(3);
    store.send(b"a short write is gone on with".to_vec()).unwrap();
    assert_eq!(told.recv().unwrap(), Told::Durable(29));
    faults.lock().unwrap().pwrite = Some(ENOSPC);
    store.send(b"x".to_vec()).unwrap();
    assert_eq!(told.recv().unwrap(), Told::Full);
}

#[test]
fn a_spare_is_allocated_blank_at_its_front_and_gone_if_it_could_not_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(File::Spare(7).name());
    std::fs::write(&path, vec![1; 20_000]).unwrap();
    let faults = Arc::new(Mutex::new(Faults::default()));
    let (mut files, found) = Files::open::<Spoilt>(dir.path(), Box::new(Faulty(faults.clone()))).unwrap();
    assert_eq!(found, [Found { file: File::Spare(7), bytes: 20_000 }]);
    assert_eq!(files.perform(Op::Prepare { spare: 7, bytes: 65_536 }), Done::Prepared(7, Ok(())));
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!((bytes.len(), bytes[8191], bytes[8192]), (65_536, 0, 1));
    let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).unwrap());
    assert!(blocks * 512 >= 65_536, "{blocks} blocks are allocated");
    // Where nothing can be allocated ahead, it is written instead.
    faults.lock().unwrap().fallocate = Some(EOPNOTSUPP);
    assert_eq!(files.perform(Op::Prepare { spare: 8, bytes: 65_536 }), Done::Prepared(8, Ok(())));
    let path = dir.path().join(File::Spare(8).name());
    assert!(std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).unwrap()) * 512 >= 65_536);
    faults.lock().unwrap().fallocate = Some(ENOSPC);
    let done = files.perform(Op::Prepare { spare: 9, bytes: 65_536 });
    assert!(matches!(done, Done::Prepared(9, Err(Failure::Full(_)))), "{done:?}");
    assert!(!dir.path().join(File::Spare(9).name()).exists());
}

#[test]
fn files_are_read_cut_and_removed_and_their_owner_alone_may_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let (mut files, _) = Files::open::<Spoilt>(dir.path(), Box::new(Kernel)).unwrap();
    files.perform(Op::Prepare { spare: 1, bytes: 65_536 });
    assert_eq!(files.perform(Op::Adopt { spare: 1, segment: 4 }), Done::Adopted(4, Ok(())));
    files.perform(Op::Write { segment: 4, offset: 10_000, bytes: b"here".to_vec() });
    let read = Done::Read { segment: 4, offset: 9_999, bytes: b"\0here".to_vec() };
    assert_eq!(files.perform(Op::Read { segment: 4, offset: 9_999, bytes: 5 }), read);
    files.perform(Op::Truncate { segment: 4, bytes: 10_002 });
    let read = Done::Read { segment: 4, offset: 10_000, bytes: b"he".to_vec() };
    assert_eq!(files.perform(Op::Read { segment: 4, offset: 10_000, bytes: 100 }), read);
    let path = dir.path().join(File::Segment(4).name());
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(files.perform(Op::Remove { file: File::Segment(4) }), Done::Removed(File::Segment(4), Ok(())));
    assert!(!path.exists());
    // Twice is no failure: the first may have been forgotten in a power cut.
    assert_eq!(files.perform(Op::Remove { file: File::Segment(4) }), Done::Removed(File::Segment(4), Ok(())));
}
