//! How far the node's log is from its floor: durable commits of 1 KiB per second with 1, 16 and 128 at a
//! time, beside a bare loop of pwrite and fdatasync that puts as many bytes on the same disk.
//!
//! `cargo run -p beemesh --example log_bench [DIR]` prints a JSON line for each: medians, and how far
//! apart the rounds were (far apart: something else was using the machine). DIR should be on the disk the
//! node will use.

use agree::log::{Command, Config, Log, Notice, Persist, Record, Ticket};
use base::{CellId, ReplicaId, Uid};
use bytes::Bytes;
use host::store::{Handle, Sink, Store};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

const PAYLOAD: usize = 1024;
const RUN: Duration = Duration::from_millis(700);
/// Log and floor take turns, so that what else the machine does meets both.
const ROUNDS: usize = 7;

/// Clients that each send again as soon as they hear that their last commit is durable.
struct Clients {
    log: Receiver<Handle<Log>>,
    handle: Option<Handle<Log>>,
    payload: Bytes,
    until: Instant,
    done: u64,
    running: u64,
    ended: Sender<u64>,
}

impl Sink<Notice> for Clients {
    fn notice(&mut self, notice: Notice) {
        let Notice::Durable { cell, ticket } = notice else { return };
        self.done += 1;
        if self.handle.is_none() {
            self.handle = self.log.recv().ok();
        }
        if let (Some(handle), true) = (&self.handle, Instant::now() < self.until) {
            let _ = handle.send(commit(cell, ticket.0 + 1, &self.payload));
            return;
        }
        self.running -= 1;
        if self.running == 0 {
            self.handle = None;
            let _ = self.ended.send(self.done);
        }
    }

    fn fatal(&mut self, why: String) {
        eprintln!("{why}");
        std::process::exit(1);
    }
}

fn commit(cell: CellId, n: u64, payload: &Bytes) -> Command {
    let record = Record::Entry { cell, replica: ReplicaId(1), term: 1, index: n, kind: 0, payload: payload.clone() };
    Command::Persist(Persist { cell, ticket: Ticket(n), vital: false, records: vec![record] })
}

/// Commits per second through the log.
fn log(dir: &Path, clients: u64) -> anyhow::Result<f64> {
    let (ended, end) = channel();
    let (give, log) = channel();
    let payload = Bytes::from(vec![7; PAYLOAD]);
    let began = Instant::now();
    let (until, running) = (began + RUN, clients);
    let sink = Clients { log, handle: None, payload: payload.clone(), until, done: 0, running, ended };
    let (store, _) = Store::<Log>::open(dir, Config::new(1), 1024, sink)?;
    give.send(store.handle())?;
    for cell in 0..clients {
        store.send(commit(CellId(Uid(u128::from(cell))), 1, &payload))?;
    }
    let done = end.recv()?;
    let rate = done as f64 / began.elapsed().as_secs_f64();
    store.join();
    Ok(rate)
}

/// Commits per second if a frame cost nothing but its bytes.
fn floor(dir: &Path, batch: u64) -> anyhow::Result<f64> {
    let bytes = vec![7_u8; 48 + batch as usize * (4 + 43 + PAYLOAD)];
    let path = dir.join("floor");
    let mut file: Option<File> = None;
    let (mut at, mut done) = (0, 0);
    let began = Instant::now();
    while began.elapsed() < RUN {
        let length = bytes.len() as u64;
        let file = match &mut file {
            Some(file) if at + length <= 64 << 20 => file,
            _ => {
                let fresh = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
                nix::fcntl::fallocate(&fresh, nix::fcntl::FallocateFlags::empty(), 0, 64 << 20)?;
                fresh.sync_all()?;
                at = 0;
                file.insert(fresh)
            }
        };
        file.write_all_at(&bytes, at)?;
        file.sync_data()?;
        at += length;
        done += batch;
    }
    std::fs::remove_file(path)?;
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

fn main() -> anyhow::Result<()> {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("log-bench-{}", std::process::id()));
    for batch in [1, 16, 128] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            std::fs::create_dir_all(&dir)?;
            let floor = floor(&dir, batch)?;
            rounds.push((log(&dir, batch)?, floor));
            std::fs::remove_dir_all(&dir)?;
        }
        let log = sorted(rounds.iter().map(|(log, _)| *log));
        let floor = sorted(rounds.iter().map(|(_, floor)| *floor));
        let part = sorted(rounds.iter().map(|(log, floor)| log / floor));
        let middle = ROUNDS / 2;
        println!(
            "{{\"bench\":\"log\",\"at_once\":{batch},\"commits_per_s\":{:.0},\"floor_per_s\":{:.0},\"of_floor\":{:.2},\
             \"of_floor_least\":{:.2},\"of_floor_most\":{:.2}}}",
            log[middle],
            floor[middle],
            part[middle],
            part[0],
            part[ROUNDS - 1]
        );
    }
    Ok(())
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}
