//! The world of one run: what happens when, and to whom.

mod ambush;
mod clients;
mod control;
mod counts;
mod end;
mod faults;
mod gateway;
mod keeping;
mod log;
mod network;
mod nodes;
mod scheduling;
mod seats;

pub use counts::Counts;

use crate::checks::acknowledged::Acknowledged;
use crate::checks::applied::{Applied, RESOURCE};
use crate::checks::election::Election;
use crate::checks::frontier::Promise;
use crate::checks::log::Log;
use crate::checks::register::Register;
use crate::checks::{Checked, Violation};
use crate::client::{Client, Heard, NAMESPACE as NAMESPACE_OF_PODS};
use crate::keeper::{Clock, Keeper};
use crate::ports::Bug;
use crate::watcher::Watcher;
use agree::heartbeat;
use agree::log::Command;
use base::{CellId, Chance, NodeId, ReplicaId, Uid};
use node::bundle::Bundle;
use node::cell::{Input, Role};
use objects::request::{Config as Settings, Request};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ambush::Ambush;
use gateway::Gateway;
use network::Packet;
use scheduling::Scene;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// The first fault but those of the network: by then there are namespaces, if all goes well.
const FAULTS: u64 = 8 * SECOND;
/// Faults end.
const HEALED: u64 = 35 * SECOND;
/// From here on it must have served.
const SERVING: u64 = 48 * SECOND;
/// Clients stop.
const QUIET: u64 = 56 * SECOND;
/// What was committed by now is everywhere at the end.
const SETTLED: u64 = 58 * SECOND;
/// The run ends.
const END: u64 = 60 * SECOND;
/// Operations a run, and how many of them begin among the faults.
const OPERATIONS: (u64, u64) = (1_000, 650);
const CLIENTS: usize = 4;
/// A client asks again, elsewhere, after this.
const PATIENCE: u64 = 1_500 * MS;
/// A third of the seeds has pods that people make, another one pods that controllers make, and in the last one those who
/// keep the cells come and go; where machines decide that, there are more nodes to choose from.
const KINDS: u64 = 3;
const WITH_CONTROLLERS: u64 = 1;
/// What is reserved for a service that does not come is returned after this.
const INTENT: Duration = Duration::from_secs(5);
/// The cell whose Namespaces say which others there are.
const ROOT: CellId = CellId(Uid(1));
/// The cell of the Nodes, where there are any.
const REGISTRY: CellId = CellId(Uid(2));

/// Runs one seed.
///
/// # Errors
/// The first rule that did not hold.
pub fn run(seed: u64, bug: Bug) -> Result<Counts, Violation> {
    // A machine's own assertions are checkers like the others.
    std::panic::catch_unwind(|| World::new(seed, bug).live()).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(Violation { checker: "invariant", what: text.unwrap_or_default() })
    })
}

enum Event {
    Wake { node: usize, boot: u64 },
    Packet { from: usize, to: usize, packet: Packet },
    Disk { node: usize, boot: u64 },
    Spread,
    Client { client: usize },
    Arrives { node: usize, cell: CellId, attempt: u64, request: Arc<Request> },
    Answered { client: usize, attempt: u64, heard: Heard },
    Watch,
    Gateway(gateway::Happening),
    Fault,
    PowerCut { node: usize },
    Restart { node: usize },
    Reconnect,
    Room { node: usize },
    Healed,
    Settled,
    Keeping(keeping::Happening),
    BeginPods,
    Pods(scheduling::Happening),
    Control(control::Happening),
    Nodes(nodes::Happening),
}

/// What one machine of a node says to another.
enum Local {
    Cell(usize, CellId, Input),
    Pair(usize, usize, heartbeat::Input),
    Log(usize, Command),
    Bundle(usize, Arc<Bundle>),
    /// The machine that has a cell kept looks at it.
    Look(usize, CellId),
    Keeping(usize, CellId, node::keeping::Input),
}

/// A stream of chance for each part of the world, so that one draw more here moves nothing there.
struct Dice {
    network: Chance,
    disk: Chance,
    faults: Chance,
    elections: Chance,
    clients: Chance,
    starts: Chance,
}

/// What is true of one cell, and what its rules have seen.
struct Truth {
    election: Election,
    log: Log,
    applied: Applied,
    promise: Promise,
    register: Register,
    acknowledged: Acknowledged,
    /// The index up to which it had come when everything was to settle.
    settled: u64,
}

impl Truth {
    fn of(role: &Role) -> Truth {
        let resource = if *role == Role::Root { "Namespace" } else { RESOURCE };
        Truth {
            election: Election::default(),
            log: Log::default(),
            applied: Applied::new(resource),
            promise: Promise::default(),
            register: Register::default(),
            acknowledged: Acknowledged::default(),
            settled: 0,
        }
    }
}

struct World {
    bug: Bug,
    dice: Dice,
    now: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), Event>,
    keepers: Vec<Keeper>,
    /// How long an fsync takes at most on a good day, in milliseconds.
    sync_ms: u64,
    /// How long it is from one fault to the next, in milliseconds.
    pause_ms: (u64, u64),
    cut: BTreeSet<(usize, usize)>,
    ambush: Option<Ambush>,
    faults: bool,
    local: VecDeque<Local>,
    settling: bool,
    settings: Arc<Settings>,
    truths: BTreeMap<CellId, Truth>,
    /// The namespaces anybody has heard of.
    names: BTreeMap<Arc<str>, CellId>,
    clients: Vec<Client>,
    /// Who has answered for a cell last: who is asked first.
    answers: BTreeMap<CellId, usize>,
    watcher: Watcher,
    gateway: Gateway,
    attempts: u64,
    operations: u64,
    served: u64,
    events: u64,
    counts: Counts,
    /// Who is to keep which cell.
    keeping: keeping::Keeping,
    /// In some runs there are pods.
    pods: Option<Scene>,
    /// In some of those their controllers make them.
    control: Option<control::Scene>,
    /// Those that run pods are registered.
    nodes: Option<nodes::Scene>,
}

fn replica(node: usize) -> ReplicaId {
    ReplicaId(node as u64 + 1)
}

/// What a node is called, and which it is.
fn node_id(node: usize) -> NodeId {
    NodeId([node as u8; 32])
}

fn index_of(id: NodeId) -> usize {
    usize::from(id.0[0])
}

impl World {
    fn new(seed: u64, bug: Bug) -> World {
        let chance = Chance::from_u64(seed);
        let mut shape = chance.stream("shape");
        let turn = (seed % KINDS > WITH_CONTROLLERS).then_some(seed / KINDS);
        let sizes = if keeping::Keeping::is_planned(turn) { [3, 4, 5, 5, 6, 7] } else { [1, 3, 3, 3, 5, 5] };
        let size = sizes[shape.below(6) as usize];
        let keeper = |_| {
            let start_ns = shape.below(1 << 40);
            Keeper::new(Clock { start_ns, rate: shape.range(960, 1_041), ahead_ms: shape.below(900) })
        };
        let keepers = (0..size).map(keeper).collect();
        let sync_ms = [2, 10, 50, 100][shape.below(4) as usize];
        World {
            bug,
            dice: Dice {
                network: chance.stream("network"),
                disk: chance.stream("disk"),
                faults: chance.stream("faults"),
                elections: chance.stream("elections"),
                clients: chance.stream("clients"),
                starts: chance.stream("starts"),
            },
            now: 0,
            order: 0,
            queue: BTreeMap::new(),
            keepers,
            sync_ms,
            pause_ms: [(50, 2_500), (300, 5_000), (1_000, 9_000)][shape.below(3) as usize],
            cut: BTreeSet::new(),
            ambush: None,
            faults: true,
            local: VecDeque::new(),
            settling: false,
            settings: Arc::new(Settings { intent: INTENT, ..Settings::default() }),
            truths: BTreeMap::new(),
            names: BTreeMap::new(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            answers: BTreeMap::new(),
            watcher: Watcher::default(),
            gateway: Gateway::new(&chance),
            attempts: 0,
            operations: 0,
            served: 0,
            events: 0,
            counts: Counts::default(),
            keeping: keeping::Keeping::new(&chance, size, turn),
            pods: (seed % KINDS <= WITH_CONTROLLERS).then(|| Scene::new(&chance, seed % KINDS == WITH_CONTROLLERS)),
            control: (seed % KINDS == WITH_CONTROLLERS).then(|| control::Scene::new(&chance)),
            nodes: (seed % KINDS <= WITH_CONTROLLERS).then(|| nodes::Scene::new(&chance)),
        }
    }

    fn size(&self) -> usize {
        self.keepers.len()
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.order += 1;
        self.queue.insert((self.now + delay, self.order), event);
    }

    /// The whole run.
    fn live(mut self) -> Result<Counts, Violation> {
        for node in 0..self.size() {
            self.start(node)?;
        }
        for client in 0..CLIENTS {
            self.at(100 * MS, Event::Client { client });
        }
        self.at(200 * MS, Event::Watch);
        self.at(250 * MS, Event::Spread);
        self.at(FAULTS, Event::Fault);
        self.at(HEALED, Event::Healed);
        self.at(SETTLED, Event::Settled);
        self.begin_keeping();
        self.begin_gateway();
        self.begin_pods()?;
        self.begin_marks();
        while let Some(entry) = self.queue.first_entry().filter(|e| e.key().0 <= END) {
            self.now = entry.key().0;
            let event = entry.remove();
            self.happen(event)?;
        }
        self.now = END;
        self.end()?;
        Ok(self.counts)
    }

    fn happen(&mut self, event: Event) -> Checked {
        let whose = match &event {
            Event::Wake { node, .. } | Event::Disk { node, .. } | Event::Arrives { node, .. } => Some(*node),
            Event::Packet { to, .. } => Some(*to),
            Event::Keeping(keeping::Happening::Beacon { node, .. }) => Some(*node),
            _ => None,
        };
        // A process that is not scheduled finds everything when it is.
        if let Some(node) = whose
            && self.keepers[node].paused_until > self.now
        {
            let delay = self.keepers[node].paused_until - self.now;
            self.at(delay, event);
            return Ok(());
        }
        match event {
            Event::Wake { node, boot } if self.keepers[node].boot == boot => self.tick(node)?,
            Event::Disk { node, boot } if self.keepers[node].boot == boot && self.keepers[node].up.is_some() => {
                self.disk_done(node)?;
            }
            Event::Wake { .. } | Event::Disk { .. } => {}
            Event::Packet { from, to, packet } => self.receive(from, to, packet)?,
            Event::Spread => self.spread_bundle(),
            Event::Client { client } => self.client(client),
            Event::Arrives { node, cell, attempt, request } => self.arrives(node, cell, attempt, request)?,
            Event::Answered { client, attempt, heard } => self.answered(client, attempt, heard)?,
            Event::Watch => self.watch(),
            Event::Gateway(happening) => self.happen_at_gateway(happening)?,
            Event::Fault => self.fault()?,
            Event::PowerCut { node } => self.crash(node),
            Event::Restart { node } => self.start(node)?,
            Event::Reconnect => self.cut.clear(),
            Event::Keeping(happening) => self.happen_to_keepers(happening)?,
            Event::BeginPods => self.begin_pods()?,
            Event::Pods(happening) => self.happen_to_pods(happening)?,
            Event::Control(happening) => self.happen_to_control(happening)?,
            Event::Nodes(happening) => self.happen_to_nodes(happening)?,
            Event::Room { node } => {
                self.keepers[node].disk.full = false;
                self.tell_all(node, || Input::Space { ample: true })?;
            }
            Event::Healed => self.heal(),
            Event::Settled => self.truths.values_mut().for_each(|t| t.settled = t.applied.index()),
        }
        Ok(())
    }
}
