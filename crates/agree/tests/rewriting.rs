//! One member that writes for a long time into one log: the log stays as long as what is live in it asks for, and
//! the cell can be made again of it.
#![allow(clippy::unwrap_used)]

use agree::cell::{self, Change, Commit, Config, Effect, Expect, Input, Keepers, Member, RequestStamp, Write};
use agree::descriptor::Keeper;
use agree::log::{self, Answer, Command, Log, Notice, Persist, Record, Recovery};
use agree::raft::{self, CallId};
use base::disk::{self, Done, File, Found, Machine as _, Op, Recovery as _};
use base::{CellId, Chance, NodeId, Now, ReplicaId, RequestId, Time, Uid, Wall};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

const CELL: CellId = CellId(Uid(7 << 100));
const ME: ReplicaId = ReplicaId(1);
const SEGMENT: u64 = 1 << 20;
const SLACK: u64 = 4 << 20;
/// Twice what is live in this test at its worst (objects, and the requests of a minute), the slack, the spare
/// segments and those the log is at work on.
const MOST: u64 = 2 * (2 << 20) + SLACK + 5 * SEGMENT;

fn bounds() -> log::Config {
    log::Config { segment_bytes: SEGMENT, slack_bytes: SLACK, step_bytes: 16 << 10, ..log::Config::new(0x1234) }
}

fn config() -> Config {
    Config::new(CELL, ME, NodeId([1; 32]))
}

fn alone() -> Keepers {
    Keepers::founding(CELL, vec![Keeper { replica: ME, node: NodeId([1; 32]), votes: true }])
}

fn raft_config() -> raft::Config {
    raft::Config::new(CELL, ME)
}

/// A disk on which everything is durable at once.
#[derive(Default)]
struct Disk(BTreeMap<File, Vec<u8>>);

impl Disk {
    fn segment(&mut self, n: u64) -> &mut Vec<u8> {
        self.0.get_mut(&File::Segment(n)).unwrap()
    }

    fn perform(&mut self, op: Op) -> Done {
        match op {
            Op::Prepare { spare, bytes } => {
                self.0.insert(File::Spare(spare), vec![0; bytes as usize]);
                Done::Prepared(spare, Ok(()))
            }
            Op::Adopt { spare, segment } => {
                let file = self.0.remove(&File::Spare(spare)).unwrap();
                self.0.insert(File::Segment(segment), file);
                Done::Adopted(segment, Ok(()))
            }
            Op::Write { segment, offset, bytes } => {
                self.segment(segment)[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                Done::Written { segment, offset, bytes, result: Ok(()) }
            }
            Op::Sync { segment } => Done::Synced(segment, Ok(())),
            Op::Truncate { segment, bytes } => {
                self.segment(segment).truncate(bytes as usize);
                Done::Truncated(segment, Ok(()))
            }
            Op::Remove { file } => {
                self.0.remove(&file);
                Done::Removed(file, Ok(()))
            }
            Op::Read { segment, offset, bytes } => {
                let file = self.segment(segment);
                let to = file.len().min((offset + bytes) as usize);
                Done::Read { segment, offset, bytes: file[offset as usize..to].to_vec() }
            }
        }
    }

    fn recover(&mut self) -> (Log, Vec<Record>) {
        let found: Vec<Found> = self.0.iter().map(|(f, b)| Found { file: *f, bytes: b.len() as u64 }).collect();
        let mut recovery = Recovery::new(bounds(), &found);
        while let Some((segment, offset, bytes)) = recovery.next_read() {
            let Done::Read { bytes, .. } = self.perform(Op::Read { segment, offset, bytes }) else { unreachable!() };
            recovery.read(bytes);
        }
        let (log, recovered) = recovery.finish().unwrap();
        let of_cell = recovered.cells.into_iter().find(|(cell, _)| *cell == CELL);
        (log, of_cell.map(|(_, c)| c.records).unwrap_or_default())
    }
}

enum Todo {
    Log(disk::Input<Command>),
    Member(Input),
}

struct Rig {
    member: Member,
    log: Log,
    disk: Disk,
    now: Now,
    todo: VecDeque<Todo>,
    written: u64,
}

impl Rig {
    fn found() -> Rig {
        let now = Now { mono: Time::from_ms(1_000), wall: Wall(1_700_000_000_000) };
        let member = Member::found(config(), raft_config(), alone(), &Chance::from_u64(1), now);
        let mut disk = Disk::default();
        let (log, _) = disk.recover();
        let mut rig = Rig { member: member.unwrap(), log, disk, now, todo: VecDeque::new(), written: 0 };
        rig.run(Todo::Member(Input::Replica(raft::Input::Tick)));
        assert!(rig.member.replica().is_ready());
        rig
    }

    /// The process ends, and starts again from what is on the disk.
    fn restart(mut self) -> Rig {
        let (log, records) = self.disk.recover();
        let config = config();
        let member = Member::recover(config, raft_config(), &records, false, &Chance::from_u64(2), self.now).unwrap();
        let mut rig = Rig { member, log, todo: VecDeque::new(), ..self };
        rig.run(Todo::Member(Input::Replica(raft::Input::Tick)));
        assert!(rig.member.replica().is_ready());
        rig
    }

    fn run(&mut self, first: Todo) {
        self.todo.push_back(first);
        while let Some(todo) = self.todo.pop_front() {
            match todo {
                Todo::Member(input) => self.step_member(input),
                Todo::Log(input) => self.step_log(input),
            }
            let long = self.log.total_bytes();
            assert!(long <= MOST, "the log came to {long} bytes, and {MOST} is the most it may");
        }
    }

    fn step_member(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.member.step(self.now, input, &mut effects);
        let mut carried = None;
        if let Some(Effect::Rewritten { id, ticket, .. }) = effects.last() {
            carried = Some((*id, *ticket));
        }
        for effect in effects {
            let Effect::Replica(raft::Effect::Persist { ticket, records }) = effect else { continue };
            self.written += records.iter().map(|r| r.encoded_len() as u64).sum::<u64>();
            let persist = Persist { cell: CELL, ticket, vital: false, records };
            let command = match carried {
                Some((question, t)) if t == ticket => {
                    Command::Carried { question, cell: CELL, answer: Answer::Live(persist) }
                }
                _ => Command::Persist(persist),
            };
            self.todo.push_back(Todo::Log(disk::Input::Command(command)));
        }
        self.todo.push_back(Todo::Log(disk::Input::Drained));
    }

    fn step_log(&mut self, input: disk::Input<Command>) {
        let mut effects = Vec::new();
        self.log.step(self.now, input, &mut effects);
        self.log.check();
        for effect in effects {
            match effect {
                disk::Effect::Disk(op) => {
                    let done = self.disk.perform(op);
                    self.todo.push_back(Todo::Log(disk::Input::Done(done)));
                    self.todo.push_back(Todo::Log(disk::Input::Drained));
                }
                disk::Effect::Notice(Notice::Durable { ticket, .. }) => {
                    self.todo.push_back(Todo::Member(Input::Replica(raft::Input::Durable(ticket))));
                }
                disk::Effect::Notice(Notice::Carry { question, segment, records, .. }) => {
                    self.todo.push_back(Todo::Member(Input::Rewrite { id: question, segment, records }));
                }
                disk::Effect::Notice(Notice::Refused { why, .. }) => panic!("refused: {why}"),
                disk::Effect::Notice(_) => {}
                disk::Effect::Fatal(why) => panic!("{why}"),
            }
        }
    }

    /// One write of one object under a request of its own.
    fn put(&mut self, request: u128, key: &str, bytes: usize) {
        let revision = self.member.cell_mut().mint(self.now.wall);
        let created = self.member.cell().state().get(key.as_bytes()).map_or(revision, |r| r.created);
        let write = Write::Put { created, meta: Bytes::new(), value: Bytes::from(vec![b'x'; bytes]) };
        self.commit(
            request,
            Change { key: Bytes::copy_from_slice(key.as_bytes()), expect: Expect::Any, revision, write },
        );
    }

    fn delete(&mut self, request: u128, key: &str) {
        let revision = self.member.cell_mut().mint(self.now.wall);
        let write = Write::Delete { meta: Bytes::new(), value: Bytes::new() };
        self.commit(
            request,
            Change { key: Bytes::copy_from_slice(key.as_bytes()), expect: Expect::Any, revision, write },
        );
    }

    fn commit(&mut self, request: u128, change: Change) {
        let stamp = RequestStamp { id: RequestId(request), first_sent: self.now.wall };
        let payload = Commit { bundle: 1, request: Some(stamp), changes: vec![change] }.encode();
        self.run(Todo::Member(Input::Replica(raft::Input::Propose { id: CallId(1), payload })));
    }

    fn wait(&mut self, ms: u64) {
        self.now.mono = self.now.mono + std::time::Duration::from_millis(ms);
        self.now.wall = Wall(self.now.wall.0 + ms);
    }
}

#[test]
fn a_log_under_steady_writes_stays_as_long_as_what_is_live_in_it_asks_for() {
    let mut rig = Rig::found();
    let mut request = 0;
    let mut next = || {
        request += 1;
        request
    };
    // What nobody ever touches again, in the oldest segment of all.
    for n in 0..200 {
        rig.put(next(), &format!("configmaps\0old-{n}"), 500);
    }
    // A hundred writes a second for twenty minutes: a minute's requests are longer than many a question, and
    // all that is written is many times as long as the log may be.
    for n in 0..120_000_u64 {
        rig.wait(10);
        match n % 4 {
            0 => rig.put(next(), &format!("pods\0web-{}", n / 4 % 300), 300),
            1 => rig.put(next(), &format!("leases\0node-{}", n / 4 % 20), 200),
            2 => rig.put(next(), &format!("events\0e-{n}"), 250),
            // An event lives for some 4,000 writes, which is longer than the log keeps a segment at times.
            _ => rig.delete(next(), &format!("events\0e-{}", (n - 1).saturating_sub(4_000))),
        }
    }
    let live = rig.log.live_bytes().max(rig.member.cell().state().bytes());
    assert!(live < 2 << 20, "more is live than was meant: {live} bytes");
    assert!(rig.written > 3 * MOST, "too little was written to tell: {} bytes", rig.written);

    let want: Vec<_> = rig.member.cell().state().scan(b"").map(|(k, r)| (k.clone(), r.clone())).collect();
    let again = rig.restart();
    let got: Vec<_> = again.member.cell().state().scan(b"").map(|(k, r)| (k.clone(), r.clone())).collect();
    assert_eq!(got.len(), want.len());
    assert!(got == want, "the objects differ after a restart");
    let newest = RequestStamp { id: RequestId(request), first_sent: again.now.wall };
    assert!(matches!(again.member.cell().requests().look(&newest), cell::Seen::Done(_)), "a request was forgotten");
}
