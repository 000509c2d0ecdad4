//! The switch between the machines: it reads each frame from one network card and writes it to another, unless a
//! fault has it otherwise. It is a thread of the test and not the kernel's bridge, since a kernel may be built
//! without what delays and loses frames (netem), and since what runs in the test goes with the test.

use super::fault::{Fault, Link};
use super::tap::FRAME_BYTES;
use anyhow::{Context, Result};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// So many frames are under way at most. A link that is slow and full loses what comes on top, as a router does.
const UNDER_WAY_MAX: usize = 1 << 16;
/// So many senders are remembered. What is sent to one more goes to every port.
const SENDERS_MAX: usize = 1 << 10;

/// What went from one port to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Frames handed over.
    pub passed: u64,
    /// Frames that a fault took, or a machine that is off or frozen.
    pub lost: u64,
}

/// A running switch. It ends, and the network cards plugged in go, when the handle goes.
#[derive(Debug)]
pub(super) struct Switch {
    shared: Arc<Shared>,
    runtime: Runtime,
}

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    /// There is something new under way.
    sent: Notify,
}

#[derive(Debug)]
struct Table {
    ports: Vec<Port>,
    faults: Vec<Fault>,
    /// Which port a sender was last heard at.
    senders: BTreeMap<[u8; 6], usize>,
    /// The soonest first. Frames that are due at once keep their order.
    under_way: BinaryHeap<Reverse<(Instant, u64, Frame)>>,
    /// How many frames were ever under way.
    number: u64,
    /// The state of a xorshift generator (Marsaglia 2003), the same in every run.
    chance: u64,
}

#[derive(Debug)]
struct Port {
    name: String,
    card: Option<(Arc<AsyncFd<File>>, JoinHandle<()>)>,
    /// Nothing comes out of it or goes in, though the card sees no difference.
    silent: bool,
    /// From here to each port.
    links: Vec<Link>,
    traffic: Vec<Traffic>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Frame {
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

impl Switch {
    /// A switch whose ports have these names.
    pub(super) fn new(names: &[String]) -> Result<Switch> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let port = |name: &String| Port {
            name: name.clone(),
            card: None,
            silent: false,
            links: vec![Link::PLAIN; names.len()],
            traffic: vec![Traffic::default(); names.len()],
        };
        let table = Table {
            ports: names.iter().map(port).collect(),
            faults: Vec::new(),
            senders: BTreeMap::new(),
            under_way: BinaryHeap::new(),
            number: 0,
            chance: 0x9e37_79b9_7f4a_7c15,
        };
        let shared = Arc::new(Shared { table: Mutex::new(table), sent: Notify::new() });
        runtime.spawn(deliver_what_is_due(shared.clone()));
        Ok(Switch { shared, runtime })
    }

    /// Plugs a network card into a port, in place of the one that was there.
    pub(super) fn plug(&self, port: usize, card: File) -> Result<()> {
        let _entered = self.runtime.enter();
        // A file is the same open descriptor until it is dropped, which the one that owns it does last; nobody here
        // changes or closes it before.
        #[allow(unsafe_code)]
        let card = unsafe { AsyncFd::register(card) };
        let card = Arc::new(card.context("cannot wait for frames")?);
        // The table is held until the port knows the card: no frame comes before.
        let mut table = self.shared.table();
        let task = self.runtime.spawn(listen(self.shared.clone(), port, card.clone()));
        table.unplug(port);
        table.ports[port].card = Some((card, task));
        table.ports[port].silent = false;
        Ok(())
    }

    /// Takes the card out of a port. It goes soon.
    pub(super) fn unplug(&self, port: usize) {
        self.shared.table().unplug(port);
    }

    /// From now on nothing passes a port, or again. The card does not notice.
    pub(super) fn silence(&self, port: usize, silent: bool) {
        self.shared.table().ports[port].silent = silent;
    }

    /// Changes which faults there are.
    pub(super) fn faults<T>(&self, change: impl FnOnce(&mut Vec<Fault>) -> T) -> T {
        let mut table = self.shared.table();
        let outcome = change(&mut table.faults);
        let names: Vec<String> = table.ports.iter().map(|port| port.name.clone()).collect();
        let Table { ports, faults, .. } = &mut *table;
        for port in ports {
            port.links = names.iter().map(|to| Link::with(faults, &port.name, to)).collect();
        }
        outcome
    }

    /// What went from one port to another since the switch is there.
    pub(super) fn traffic(&self, from: usize, to: usize) -> Traffic {
        self.shared.table().ports[from].traffic[to]
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads what comes from a card, until that is gone.
async fn listen(shared: Arc<Shared>, port: usize, card: Arc<AsyncFd<File>>) {
    let mut frame = [0; FRAME_BYTES];
    while let Ok(mut ready) = card.readable().await {
        match ready.try_io(|card| card.get_ref().read(&mut frame)) {
            Ok(Ok(length)) => {
                if shared.table().take(port, &frame[..length]) {
                    shared.sent.notify_one();
                }
            }
            // The machine is gone, and its card with it.
            Ok(Err(_)) => return,
            Err(_not_ready) => {}
        }
    }
}

async fn deliver_what_is_due(shared: Arc<Shared>) {
    /// How long to sleep if nothing is under way; whatever comes wakes it.
    const LONG: Duration = Duration::from_secs(3600);
    loop {
        let next = shared.table().deliver(Instant::now()).unwrap_or_else(|| Instant::now() + LONG);
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = shared.sent.notified() => {}
        }
    }
}

impl Table {
    fn unplug(&mut self, port: usize) {
        if let Some((_, task)) = self.ports[port].card.take() {
            task.abort();
        }
    }

    /// Takes a frame from a port. Returns whether something is under way that was not.
    fn take(&mut self, from: usize, bytes: &[u8]) -> bool {
        let (Some(&to), Some(&sender)) = (bytes.first_chunk::<6>(), bytes.get(6..).and_then(|b| b.first_chunk::<6>()))
        else {
            return false;
        };
        const TO_A_GROUP: u8 = 1;
        if sender[0] & TO_A_GROUP == 0 && (self.senders.len() < SENDERS_MAX || self.senders.contains_key(&sender)) {
            self.senders.insert(sender, from);
        }
        let only = self.senders.get(&to).copied().filter(|_| to[0] & TO_A_GROUP == 0);
        let mut delayed = false;
        for to in (0..self.ports.len()).filter(|&port| port != from && only.is_none_or(|only| port == only)) {
            let link = self.ports[from].links[to];
            if !link.passes(self.draw()) || self.under_way.len() >= UNDER_WAY_MAX {
                self.ports[from].traffic[to].lost += 1;
            } else if link.delay.is_zero() {
                self.hand_over(from, to, bytes);
            } else {
                self.number += 1;
                let frame = Frame { from, to, bytes: bytes.to_owned() };
                self.under_way.push(Reverse((Instant::now() + link.delay, self.number, frame)));
                delayed = true;
            }
        }
        delayed
    }

    /// Hands over what is due. Returns when the next is.
    fn deliver(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((due, ..))) = self.under_way.peek() {
            if *due > now {
                return Some(*due);
            }
            let Some(Reverse((.., frame))) = self.under_way.pop() else { break };
            self.hand_over(frame.from, frame.to, &frame.bytes);
        }
        None
    }

    /// A cable that was cut meanwhile loses what was on it.
    fn hand_over(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let silent = self.ports[from].silent || self.ports[to].silent || self.ports[from].links[to].cut;
        // A card whose queue is full, or that is not up yet, does not take it.
        let taken = |card: &(Arc<AsyncFd<File>>, _)| card.0.get_ref().write(bytes).is_ok();
        let passed = !silent && self.ports[to].card.as_ref().is_some_and(taken);
        let traffic = &mut self.ports[from].traffic[to];
        *if passed { &mut traffic.passed } else { &mut traffic.lost } += 1;
    }

    fn draw(&mut self) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance
    }
}
