//! The world of one run: what happens when, and to whom.

mod ambush;
mod scheduling;

use crate::checks::acknowledged::Acknowledged;
use crate::checks::applied::Applied;
use crate::checks::election::Election;
use crate::checks::log::Log;
use crate::checks::register::{Asked, Register, Told};
use crate::checks::{Checked, Violation, ensure};
use crate::client::{self, Client, Heard, NAMESPACE};
use crate::keeper::{EPOCH_MS, Keeper, Up};
use crate::ports::Bug;
use crate::watcher::Watcher;
use agree::heartbeat::{self, Led, Pair};
use agree::log::{Record, Ticket};
use agree::raft::{self, Members};
use base::{BootId, CellId, Chance, ReplicaId, Revision, Time, Uid, Wall};
use bytes::Bytes;
use node::bundle::{self, Bundle};
use node::cell::{Cell, Config, Effect, Found, Input, Outcome, Reply, ReplyTo, Role};
use node::genesis;
use objects::request::{Config as Settings, Request, Verb};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use ambush::Ambush;
use scheduling::{Happening, Scene};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Faults end.
const HEALED: u64 = 35 * SECOND;
/// From here on it must have served.
const SERVING: u64 = 48 * SECOND;
/// Clients stop.
const QUIET: u64 = 56 * SECOND;
/// The run ends.
const END: u64 = 60 * SECOND;
/// Operations a run, and how many of them begin among the faults.
const OPERATIONS: (u64, u64) = (1_000, 650);
const CLIENTS: usize = 4;
/// A client asks again, elsewhere, after this.
const PATIENCE: u64 = 1_500 * MS;

/// What happened in a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)] // each is the count of what it names
pub struct Counts {
    pub writes: u64,
    pub reads: u64,
    pub refusals: u64,
    pub retries: u64,
    pub events: u64,
    pub resumed: u64,
    pub terms: u64,
    pub crashes: u64,
    pub snapshots: u64,
    pub rewrites: u64,
    pub cuts: u64,
    pub ambushes: u64,
    pub steps: u64,
    pub awards: u64,
    pub started: u64,
    pub refused_pods: u64,
    pub node_crashes: u64,
}

impl Counts {
    fn named(&self) -> [(&'static str, u64); 17] {
        [
            ("writes", self.writes),
            ("reads", self.reads),
            ("refusals", self.refusals),
            ("retries", self.retries),
            ("events", self.events),
            ("watches resumed", self.resumed),
            ("terms", self.terms),
            ("crashes", self.crashes),
            ("snapshots", self.snapshots),
            ("rewrites", self.rewrites),
            ("cuts", self.cuts),
            ("ambushed elections", self.ambushes),
            ("steps", self.steps),
            ("awards", self.awards),
            ("pods started", self.started),
            ("pods refused", self.refused_pods),
            ("node crashes", self.node_crashes),
        ]
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Counts) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.refusals += other.refusals;
        self.retries += other.retries;
        self.events += other.events;
        self.resumed += other.resumed;
        self.terms += other.terms;
        self.crashes += other.crashes;
        self.snapshots += other.snapshots;
        self.rewrites += other.rewrites;
        self.cuts += other.cuts;
        self.ambushes += other.ambushes;
        self.steps += other.steps;
        self.awards += other.awards;
        self.started += other.started;
        self.refused_pods += other.refused_pods;
        self.node_crashes += other.node_crashes;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, n)) in self.named().into_iter().enumerate() {
            write!(f, "{}{n} {name}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

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

#[derive(Clone)]
enum Event {
    Wake { node: usize, boot: u64 },
    Packet { from: usize, to: usize, packet: Packet },
    Synced { node: usize, boot: u64 },
    Client { client: usize },
    Arrives { node: usize, attempt: u64, request: Arc<Request> },
    Answered { client: usize, attempt: u64, heard: Heard },
    Watch,
    Fault,
    PowerCut { node: usize },
    Restart { node: usize },
    Reconnect,
    Room { node: usize },
    Healed,
    Pods(Happening),
}

#[derive(Clone)]
enum Packet {
    Raft(Bytes),
    Beat(Bytes),
}

/// What one machine of a node says to another.
enum Local {
    Cell(usize, Input),
    Pair(usize, usize, heartbeat::Input),
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

struct World {
    bug: Bug,
    dice: Dice,
    now: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), Event>,
    keepers: Vec<Keeper>,
    /// How long an fsync takes at most on a good day, in milliseconds.
    sync_ms: u64,
    cut: BTreeSet<(usize, usize)>,
    ambush: Option<Ambush>,
    faults: bool,
    local: VecDeque<Local>,
    bundle: Arc<Bundle>,
    settings: Arc<Settings>,
    clients: Vec<Client>,
    watcher: Watcher,
    attempts: u64,
    operations: u64,
    served: u64,
    events: u64,
    counts: Counts,
    election: Election,
    log: Log,
    applied: Applied,
    register: Register,
    acknowledged: Acknowledged,
    /// In some runs there are pods.
    pods: Option<Scene>,
}

/// Every so manieth seed has pods.
const WITH_PODS: u64 = 3;

fn cell_id() -> CellId {
    CellId(Uid::from_chance(7))
}

fn replica(node: usize) -> ReplicaId {
    ReplicaId(node as u64 + 1)
}

fn node_of(replica: ReplicaId) -> usize {
    (replica.0 - 1) as usize
}

fn root_bundle() -> Arc<Bundle> {
    let namespace = serde_json::json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "uid": cell_id().to_string()},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    let mut trees = scheduling::roles();
    trees.push(("Namespace", NAMESPACE.to_owned(), namespace));
    let changes = trees.iter().map(|(storage, name, t)| bundle::Change { storage, name, tree: Some(t.clone()) });
    Arc::new(Bundle::default().with(Revision::from_u64(1 << 40).unwrap_or_default(), changes))
}

impl World {
    fn new(seed: u64, bug: Bug) -> World {
        let chance = Chance::from_u64(seed);
        let mut shape = chance.stream("shape");
        let size = [1, 3, 3, 3, 5, 5][shape.below(6) as usize];
        let keeper = |_| {
            let start = shape.below(1 << 40);
            Keeper::new(start, shape.range(960, 1_041), shape.below(900))
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
            cut: BTreeSet::new(),
            ambush: None,
            faults: true,
            local: VecDeque::new(),
            bundle: root_bundle(),
            settings: Arc::new(Settings::default()),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            watcher: Watcher::default(),
            attempts: 0,
            operations: 0,
            served: 0,
            events: 0,
            counts: Counts::default(),
            election: Election::default(),
            log: Log::default(),
            applied: Applied::default(),
            register: Register::default(),
            acknowledged: Acknowledged::default(),
            pods: seed.is_multiple_of(WITH_PODS).then(|| Scene::new(&chance)),
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
        self.at(SECOND, Event::Fault);
        self.at(HEALED, Event::Healed);
        self.begin_pods()?;
        while let Some(entry) = self.queue.first_entry().filter(|e| e.key().0 <= END) {
            self.now = entry.key().0;
            let event = entry.remove();
            self.happen(event)?;
        }
        self.now = END;
        self.end()?;
        self.end_pods()?;
        if let Some(pods) = &self.pods {
            self.counts.awards = pods.awards();
            self.counts.started = pods.started;
            self.counts.refused_pods = pods.refused;
            self.counts.node_crashes = pods.crashes;
        }
        self.counts.terms = self.election.terms() as u64;
        self.counts.events = self.watcher.told;
        self.counts.resumed = self.watcher.resumed;
        Ok(self.counts)
    }

    fn happen(&mut self, event: Event) -> Checked {
        let whose = match &event {
            Event::Wake { node, .. } | Event::Synced { node, .. } | Event::Arrives { node, .. } => Some(*node),
            Event::Packet { to, .. } => Some(*to),
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
            Event::Wake { node, boot } if self.keepers[node].boot == boot => self.tick(node),
            Event::Synced { node, boot } if self.keepers[node].boot == boot => self.synced(node),
            Event::Wake { .. } | Event::Synced { .. } => Ok(()),
            Event::Packet { from, to, packet } => match packet {
                Packet::Raft(bytes) => match raft::Message::decode(&bytes) {
                    Ok(m) => self.tell(to, Input::Message(m)),
                    Err(e) => {
                        Err(Violation { checker: "invariant", what: format!("a message does not read back: {e}") })
                    }
                },
                Packet::Beat(bytes) => match heartbeat::Message::decode(&bytes) {
                    Ok(m) => self.pass(Local::Pair(to, from, heartbeat::Input::Message(m))),
                    Err(e) => Err(Violation { checker: "invariant", what: format!("a beat does not read back: {e}") }),
                },
            },
            Event::Client { client } => {
                self.client(client);
                Ok(())
            }
            Event::Arrives { node, attempt, request } => self.arrives(node, attempt, request),
            Event::Answered { client, attempt, heard } => self.answered(client, attempt, heard),
            Event::Watch => {
                self.watch();
                Ok(())
            }
            Event::Fault => self.fault(),
            Event::PowerCut { node } => {
                self.crash(node);
                Ok(())
            }
            Event::Restart { node } => self.start(node),
            Event::Reconnect => {
                self.cut.clear();
                Ok(())
            }
            Event::Pods(happening) => self.happen_to_pods(happening),
            Event::Room { node } => self.tell(node, Input::Space { ample: true }),
            Event::Healed => {
                self.faults = false;
                self.cut.clear();
                self.keepers.iter_mut().for_each(|k| k.ahead_ms = k.ahead_ms.min(900));
                Ok(())
            }
        }
    }

    // The nodes.

    fn start(&mut self, node: usize) -> Checked {
        if self.keepers[node].up.is_some() {
            return Ok(());
        }
        let now = self.keepers[node].clock(self.now);
        let chance = Chance::from_u64(self.dice.starts.u64());
        let mut config = Config::new(cell_id(), Role::Namespace(NAMESPACE.into()), self.settings.clone());
        config.replica = replica(node);
        config.raft = raft::Config::new(cell_id(), replica(node));
        // Few, so that who was away needs a snapshot.
        config.raft.entries_kept = 20;
        config.founders = Members::of_voters((0..self.size()).map(replica));
        let disk = &self.keepers[node].disk;
        let found = (!disk.is_empty()).then(|| Found { records: disk.clone(), lossy: false });
        let above = self.bundle.number();
        let genesis = genesis::namespace(NAMESPACE, cell_id().0, above, "PEM", Wall(EPOCH_MS));
        let cell = Cell::new(config, found, self.bundle.clone(), Some(genesis), &chance, now);
        let cell =
            cell.map_err(|e| Violation { checker: "invariant", what: format!("node {node} does not start: {e}") })?;
        ensure("invariant", !cell.member().replica().is_lossy(), || {
            format!("node {node} took a torn tail for a loss")
        })?;
        let boot = self.keepers[node].boot + 1;
        let others = (0..self.size()).filter(|o| *o != node);
        let pair = |o| (o, Pair::new(heartbeat::Config::default(), BootId(boot), now.mono));
        let pairs = others.map(pair).collect();
        let k = &mut self.keepers[node];
        k.boot = boot;
        k.up = Some(Up::new(cell, pairs));
        self.tell(node, Input::Tick)
    }

    fn crash(&mut self, node: usize) {
        if self.keepers[node].up.is_none() {
            return;
        }
        self.counts.crashes += 1;
        self.unled(node);
        let keep = self.dice.disk.u64();
        self.keepers[node].crash(keep);
        if self.watcher.at.is_some_and(|a| a.0 == node) {
            self.watcher.end();
        }
        let brief = self.dice.faults.below(2) == 0 || self.was_ambushed(node);
        let down = if brief { self.dice.faults.range(1, 100) } else { self.dice.faults.range(10, 8_000) };
        self.at(down * MS, Event::Restart { node });
    }

    fn tell(&mut self, node: usize, input: Input) -> Checked {
        self.pass(Local::Cell(node, input))
    }

    /// The machines of a node are linked by messages only: what one says to another waits until it is
    /// through with its step.
    fn pass(&mut self, local: Local) -> Checked {
        self.local.push_back(local);
        while let Some(local) = self.local.pop_front() {
            match local {
                Local::Cell(node, input) => self.step_cell(node, input)?,
                Local::Pair(node, other, input) => self.step_pair(node, other, input),
            }
        }
        Ok(())
    }

    fn step_cell(&mut self, node: usize, input: Input) -> Checked {
        let now = self.keepers[node].clock(self.now);
        let Some(up) = &mut self.keepers[node].up else { return Ok(()) };
        self.counts.steps += 1;
        let mut fx = Vec::new();
        up.cell.step(now, input, &mut fx);
        up.cell.check();
        let member = up.cell.member();
        self.applied.observe(node, member)?;
        if let Some(pods) = &mut self.pods {
            pods.observe(member)?;
        }
        if member.replica().role() == raft::Role::Leader {
            self.election.leads(node, member.replica().term())?;
        }
        for effect in fx {
            self.take(node, effect)?;
        }
        self.leases()?;
        self.wake(node);
        Ok(())
    }

    fn leases(&self) -> Checked {
        let holds = |n: &usize| {
            let k = &self.keepers[*n];
            let now = k.clock(self.now).mono;
            k.up.as_ref().is_some_and(|u| u.cell.member().replica().lease_until(now).is_some())
        };
        let holders: Vec<usize> = (0..self.size()).filter(holds).collect();
        self.election.leases(&holders)
    }

    fn step_pair(&mut self, node: usize, other: usize, input: heartbeat::Input) {
        let now = self.keepers[node].clock(self.now).mono;
        let Some(up) = &mut self.keepers[node].up else { return };
        let Some(pair) = up.pairs.get_mut(&other) else { return };
        let mut fx = Vec::new();
        pair.step(now, input, &mut fx);
        pair.check();
        for effect in fx {
            let input = match effect {
                heartbeat::Effect::Send(m) => {
                    self.send(node, other, Packet::Beat(m.encode()));
                    continue;
                }
                heartbeat::Effect::Answered { from, term, sent, .. } => raft::Input::Answered { from, term, sent },
                heartbeat::Effect::Strayed { from, .. } => raft::Input::Strayed { from },
                heartbeat::Effect::Unfollowed { id, last, .. } => raft::Input::Unfollowed { id, last },
            };
            self.local.push_back(Local::Cell(node, Input::Heartbeat(input)));
        }
        self.wake(node);
    }

    fn take(&mut self, node: usize, effect: Effect) -> Checked {
        match effect {
            Effect::Reply(reply) => self.reply(node, reply)?,
            Effect::Persist { ticket, records, .. } => self.persist(node, ticket, records)?,
            Effect::Carried { ticket, records, .. } => {
                self.counts.rewrites += 1;
                if let Some(rewrite) = self.keepers[node].up.as_mut().and_then(|u| u.rewrite.as_mut()) {
                    rewrite.1 = Some(ticket);
                }
                self.persist(node, ticket, records)?;
            }
            Effect::Send(m) => {
                let to = node_of(m.to);
                self.lie_in_wait(node, to, &m);
                self.send(node, to, Packet::Raft(m.encode()));
            }
            Effect::Heartbeat(effect) => self.heartbeat(node, effect),
            Effect::Events { changes, .. } => {
                if self.watcher.at == Some((node, self.keepers[node].boot)) {
                    self.events += 1;
                    if self.bug != Bug::EventLost || !self.events.is_multiple_of(20) {
                        self.watcher.hear(&self.applied, &changes)?;
                    }
                }
            }
            Effect::Replaced => {
                self.counts.snapshots += 1;
                if self.watcher.at.is_some_and(|a| a.0 == node) {
                    self.watcher.end();
                }
            }
            Effect::Leading(false) => {
                self.unled(node);
                // Half of the watchers stay where they are: a follower tells its changes as well.
                if self.watcher.at.is_some_and(|a| a.0 == node) && self.dice.clients.below(2) == 0 {
                    self.watcher.end();
                }
            }
            Effect::Committed { term, objects, changes } => self.committed(node, term, objects, changes),
            Effect::Stopped { why } => return Err(Violation { checker: "invariant", what: why }),
            Effect::Leading(true)
            | Effect::Resume
            | Effect::Live { .. }
            | Effect::Bundle(_)
            | Effect::Progress { .. }
            // Nobody reads over many cells here.
            | Effect::Subscribed { .. }
            | Effect::Closed { .. } => {}
        }
        Ok(())
    }

    fn heartbeat(&mut self, node: usize, effect: raft::Effect) {
        use heartbeat::Input as I;
        let cell = cell_id();
        let others = |to: Vec<ReplicaId>| to.into_iter().map(node_of);
        let mut say = |other: usize, input: I| self.local.push_back(Local::Pair(node, other, input));
        match effect {
            raft::Effect::Lead { term, to } => to.into_iter().for_each(|member| {
                say(node_of(member), I::Lead { cell, led: Led { leader: replica(node), member, term } });
            }),
            raft::Effect::Unlead { term } => {
                (0..self.keepers.len()).filter(|o| *o != node).for_each(|o| say(o, I::Unlead { cell, term }));
            }
            raft::Effect::Follow { id, leader, term } => say(node_of(leader), I::Follow { cell, id, leader, term }),
            raft::Effect::Unfollow { id, leader, .. } => say(node_of(leader), I::Unfollow { cell, id }),
            raft::Effect::BeatNow { to } => others(to).for_each(|o| say(o, I::BeatNow)),
            _ => {}
        }
    }

    fn wake(&mut self, node: usize) {
        let k = &mut self.keepers[node];
        let Some(up) = &k.up else { return };
        let deadlines = up.pairs.values().map(Pair::next_deadline).chain([up.cell.next_deadline()]);
        let Some(at) = deadlines.flatten().min().filter(|t| *t != Time::NEVER) else { return };
        let at = k.when(at).max(self.now + 1);
        let Some(up) = &mut k.up else { return };
        if at >= up.woken_at && up.woken_at > self.now {
            return;
        }
        up.woken_at = at;
        let boot = k.boot;
        self.at(at - self.now, Event::Wake { node, boot });
    }

    fn tick(&mut self, node: usize) -> Checked {
        let now = self.keepers[node].clock(self.now).mono;
        let Some(up) = &mut self.keepers[node].up else { return Ok(()) };
        up.woken_at = u64::MAX;
        let due = |d: Option<Time>| d.is_some_and(|d| d <= now);
        let pairs: Vec<usize> = up.pairs.iter().filter(|(_, p)| due(p.next_deadline())).map(|(o, _)| *o).collect();
        let cell = due(up.cell.next_deadline());
        for other in pairs {
            self.pass(Local::Pair(node, other, heartbeat::Input::Tick))?;
        }
        if cell {
            self.tell(node, Input::Tick)?;
        }
        self.wake(node);
        Ok(())
    }

    // The disk and the network.

    fn persist(&mut self, node: usize, ticket: Ticket, mut records: Vec<Record>) -> Checked {
        self.log.logs(node, &records)?;
        if self.bug == Bug::VoteNotPersisted {
            for record in &mut records {
                if let Record::Hard { vote, .. } = record {
                    *vote = 0;
                }
            }
        }
        let k = &mut self.keepers[node];
        let Some(up) = &mut k.up else { return Ok(()) };
        let ordered = up.writing.back().is_none_or(|w| w.0 < ticket);
        ensure("invariant", ordered, || format!("node {node} hands {ticket:?} to its log out of order"))?;
        for record in &records {
            if let Record::Hard { term, vote, .. } = record
                && up.voted != (*term, *vote)
            {
                up.voted = (*term, *vote);
                up.votes.push(ticket);
            }
        }
        up.writing.push_back((ticket, records));
        // Of entries only: a vote that is lost is a bug of its own.
        let early = up.votes.is_empty();
        self.sync(node);
        if self.bug == Bug::AckBeforeFsync && early {
            self.local.push_back(Local::Cell(node, Input::Durable(ticket)));
        }
        Ok(())
    }

    fn sync(&mut self, node: usize) {
        if !self.keepers[node].begin_sync() {
            return;
        }
        let dice = &mut self.dice.disk;
        let slow = self.faults && dice.happens(10_000);
        let delay = if slow { dice.range(100, 1_500) } else { dice.range(1, 2 + self.sync_ms) };
        let boot = self.keepers[node].boot;
        self.at(delay * MS, Event::Synced { node, boot });
    }

    fn synced(&mut self, node: usize) -> Checked {
        let durable = self.keepers[node].end_sync();
        self.sync(node);
        match durable {
            Some(ticket) => self.tell(node, Input::Durable(ticket)),
            None => Ok(()),
        }
    }

    fn send(&mut self, from: usize, to: usize, packet: Packet) {
        if self.cut.contains(&(from, to)) {
            return;
        }
        let dice = &mut self.dice.network;
        let copies = if self.faults { [1, 1, 1, 1, 1, 1, 1, 1, 0, 2][dice.below(10) as usize] } else { 1 };
        for _ in 0..copies {
            let dice = &mut self.dice.network;
            let late = self.faults && dice.happens(20_000);
            let delay = if late { dice.range(100, 4_000) } else { dice.range(1, 30) };
            let delay = delay * MS + dice.below(MS);
            self.at(delay, Event::Packet { from, to, packet: packet.clone() });
        }
    }

    // The clients.

    fn client(&mut self, client: usize) {
        if self.clients[client].operation.is_none() {
            let most = if self.faults { OPERATIONS.1 } else { OPERATIONS.0 };
            if self.now >= QUIET {
                return;
            }
            if self.operations >= most {
                return self.at(100 * MS, Event::Client { client });
            }
            self.operations += 1;
            let wall = Wall(EPOCH_MS + self.now / MS);
            let floor = self.register.floor();
            self.clients[client].begin(&mut self.dice.clients, self.operations, wall, floor);
        } else {
            self.counts.retries += 1;
            self.clients[client].target = self.dice.clients.below(self.keepers.len() as u64) as usize;
        }
        self.attempts += 1;
        let c = &mut self.clients[client];
        c.attempt = self.attempts;
        let (node, attempt) = (c.target, c.attempt);
        let Some(operation) = &c.operation else { return };
        let request = operation.request.clone();
        let delay = self.dice.clients.range(1, 10);
        self.at(delay * MS, Event::Arrives { node, attempt, request });
        self.at(PATIENCE, Event::Answered { client, attempt, heard: Heard::Again });
    }

    fn arrives(&mut self, node: usize, attempt: u64, request: Arc<Request>) -> Checked {
        // A caller that has gone has taken its request with it.
        let waits = self.clients.iter().any(|c| c.attempt == attempt) || self.watcher.attempt == attempt;
        let Some(up) = self.keepers[node].up.as_ref().filter(|_| waits) else { return Ok(()) };
        if self.bug == Bug::ReadWithoutQuorum && request.verb == Verb::Get {
            let key = format!("ConfigMap\0{}", request.name.as_deref().unwrap_or_default());
            let told = match up.cell.state().get(key.as_bytes()) {
                // The revision is the record's; stored bytes carry it too.
                Some(r) => client::told(200, &r.value),
                None => Told::Refused(404),
            };
            self.answer(attempt, Heard::Told(told));
            return Ok(());
        }
        self.tell(node, Input::Request { to: ReplyTo(attempt), request })
    }

    fn reply(&mut self, node: usize, reply: Reply) -> Checked {
        let attempt = reply.to.0;
        if self.answered_pods(attempt, &reply.outcome) {
            return Ok(());
        }
        if self.watcher.attempt == attempt {
            self.watcher.attempt = 0;
            match &reply.outcome {
                Outcome::Watch(opened) => {
                    let boot = self.keepers[node].boot;
                    self.watcher.open(&self.applied, (node, boot), opened)?;
                }
                // The history is gone, or the answer is: from the state again.
                Outcome::Refused(s) if s.code == 410 => self.watcher.seen = None,
                _ => {}
            }
            return Ok(());
        }
        self.answer(attempt, client::heard(reply.outcome));
        Ok(())
    }

    fn answer(&mut self, attempt: u64, heard: Heard) {
        let Some(client) = self.clients.iter().position(|c| c.attempt == attempt) else { return };
        // The way back may lose it, and then the client asks again.
        if self.faults && self.dice.clients.happens(20_000) {
            return;
        }
        let delay = self.dice.clients.range(1, 10);
        self.at(delay * MS, Event::Answered { client, attempt, heard });
    }

    fn answered(&mut self, client: usize, attempt: u64, heard: Heard) -> Checked {
        if self.clients[client].attempt != attempt {
            return Ok(());
        }
        self.clients[client].attempt = 0;
        let told = match heard {
            Heard::Told(told) => told,
            Heard::Again => {
                let pause = self.dice.clients.range(5, 200);
                self.at(pause * MS, Event::Client { client });
                return Ok(());
            }
        };
        let Some(operation) = self.clients[client].operation.take() else { return Ok(()) };
        self.acknowledged.told(&self.applied, &operation.asked, &told)?;
        self.register.told(&self.applied, &operation.name, &operation.asked, &told, operation.floor)?;
        self.clients[client].learn(&operation, &told);
        match (&told, &operation.asked) {
            (Told::Refused(_), _) => self.counts.refusals += 1,
            (_, Asked::Get | Asked::List) => self.counts.reads += 1,
            _ => self.counts.writes += 1,
        }
        if self.now >= SERVING && !matches!(told, Told::Refused(503 | 504 | 429)) {
            self.served += 1;
        }
        // Without faults slower, so that the operations left last to the end.
        let pause = if self.faults { self.dice.clients.range(20, 200) } else { self.dice.clients.range(100, 400) };
        self.at(pause * MS, Event::Client { client });
        Ok(())
    }

    fn watch(&mut self) {
        self.at(250 * MS, Event::Watch);
        if self.watcher.at.is_some() {
            return;
        }
        self.attempts += 1;
        self.watcher.attempt = self.attempts;
        let node = self.dice.clients.below(self.keepers.len() as u64) as usize;
        let wall = Wall(EPOCH_MS + self.now / MS);
        let request = client::watch(&mut self.dice.clients, wall, self.watcher.seen);
        let arrives = Event::Arrives { node, attempt: self.attempts, request: Arc::new(request) };
        self.at(MS, arrives);
    }

    // What goes wrong.

    fn fault(&mut self) -> Checked {
        if !self.faults {
            return Ok(());
        }
        let pause = self.dice.faults.range(50, 2_500);
        self.at(pause * MS, Event::Fault);
        let size = self.size() as u64;
        let any = self.dice.faults.below(size) as usize;
        let leads = |k: &Keeper| k.up.as_ref().is_some_and(|u| u.cell.is_leading());
        let leader = self.keepers.iter().position(leads);
        match self.dice.faults.below(12) {
            0 | 1 => self.crash(any),
            2 => self.crash(leader.unwrap_or(any)),
            3 => {
                // The power of the whole house.
                (0..self.size()).for_each(|n| self.crash(n));
            }
            4 | 5 if size > 1 => {
                // Some first part of a random order is cut from the rest, perhaps one way only.
                let order = self.dice.faults.sample(size as usize, size as usize);
                let (left, right) = order.split_at(self.dice.faults.range(1, size) as usize);
                let both = self.dice.faults.below(3) > 0;
                self.sever(left, right, both);
            }
            6 if size > 1 => {
                // The leader alone, and it does not know.
                let leader = leader.unwrap_or(any);
                let rest: Vec<usize> = (0..self.size()).filter(|n| *n != leader).collect();
                let both = self.dice.faults.below(3) > 0;
                self.sever(&[leader], &rest, both);
            }
            7 => self.keepers[any].ahead_ms = self.dice.faults.below(3_000),
            8 => self.keepers[any].paused_until = self.now + self.dice.faults.range(50, 4_000) * MS,
            9 => {
                let long = self.dice.faults.range(100, 3_000);
                self.at(long * MS, Event::Room { node: any });
                return self.tell(any, Input::Space { ample: false });
            }
            _ => return self.rewrite(any),
        }
        Ok(())
    }

    fn sever(&mut self, left: &[usize], right: &[usize], both: bool) {
        let long = self.dice.faults.range(100, 8_000) * MS;
        self.sever_for(left, right, both, long);
    }

    fn sever_for(&mut self, left: &[usize], right: &[usize], both: bool, long: u64) {
        self.counts.cuts += 1;
        for l in left {
            for r in right {
                self.cut.insert((*l, *r));
                if both {
                    self.cut.insert((*r, *l));
                }
            }
        }
        self.at(long, Event::Reconnect);
    }

    /// The log wants its oldest segment back.
    fn rewrite(&mut self, node: usize) -> Checked {
        let k = &mut self.keepers[node];
        let Some(up) = k.up.as_mut().filter(|u| u.rewrite.is_none()) else { return Ok(()) };
        if k.disk.is_empty() {
            return Ok(());
        }
        let count = self.dice.disk.range(1, k.disk.len() as u64 + 1) as usize;
        up.rewrite = Some((count, None));
        let records = k.disk.get(..count).unwrap_or_default().to_vec();
        self.tell(node, Input::Rewrite { question: 1, segment: self.counts.rewrites + 1, records })
    }

    // The end.

    fn end(&self) -> Checked {
        ensure("liveness", self.served >= 50, || {
            format!("without faults only {} requests were answered in {} s", self.served, (QUIET - SERVING) / SECOND)
        })?;
        let pending = self.clients.iter().filter(|c| c.operation.is_some()).count();
        ensure("liveness", pending == 0, || format!("{pending} clients were never answered"))?;
        let leaders = self.keepers.iter().filter(|k| k.up.as_ref().is_some_and(|u| u.cell.is_leading())).count();
        ensure("liveness", leaders == 1, || format!("at the end {leaders} replicas lead"))?;
        for (node, k) in self.keepers.iter().enumerate() {
            let Some(up) = &k.up else {
                return Err(Violation { checker: "liveness", what: format!("node {node} is down at the end") });
            };
            let applied = up.cell.member().cell().applied().0;
            ensure("liveness", applied == self.applied.index(), || {
                format!("node {node} has applied {applied} of {} entries", self.applied.index())
            })?;
            self.acknowledged.kept(&self.applied, node, up.cell.member())?;
        }
        let seen = self.watcher.seen.unwrap_or_default();
        ensure("watch", seen >= self.applied.last(), || {
            format!("the watcher has seen up to {seen:?} of {:?}", self.applied.last())
        })
    }
}
