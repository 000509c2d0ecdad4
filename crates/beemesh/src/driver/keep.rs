//! Beside the cells that lead here: who is to keep them; and what this node does when others ask it to keep theirs.
//!
//! One task has the machines of all cells ([`node::keeping::Keeping`]) and looks at each when it is due or something of it
//! has changed. It tells every member of the mesh now and then how this node is, and hears the same of them.

use super::seat::Seat;
use super::{Driver, clock, lock};
use crate::membership as kept;
use agree::cell as agreed;
use agree::raft;
use base::{BootId, CellId, Chance, NodeId, ReplicaId, Revision, Time};
use decide::keepers::{KEEPERS, Policy, Reason, Wanted};
use identity::Roles;
use mesh::Peer;
use node::cell::{self, Cell, Purpose, Role};
use node::keeping::orders::{self, Do, Here};
use node::keeping::{Effect, Input, Keeping, Known, View};
use node::wire::keep::{Beacon, Message};
use objects::membership::{Member, REVOCATION};
use objects::request::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// How often a node says how it is: two in a row may be lost before it counts as silent, also to those who wait for its answers.
const BEACON_EVERY: Duration = Duration::from_secs(1);
/// A replica that hears of no leader says that it is there, so often: it may have been let go, and the word that it was lost.
const FORMER_EVERY: Duration = Duration::from_secs(10);
/// To so many nodes at once.
const FORMER_TO_MAX: usize = 64;
/// Messages of other nodes that wait; of more the last are lost, and are said again.
const SAID_MAX: usize = 4096;

/// What the task is told.
pub(super) struct Keep {
    /// Cells of which something has changed.
    changed: Mutex<BTreeSet<CellId>>,
    /// Members that say they have lost what they acknowledged.
    lossy: Mutex<BTreeSet<(CellId, ReplicaId)>>,
    /// Cells of which nothing is left here.
    ended: Mutex<BTreeSet<CellId>>,
    wake: Notify,
    said: mpsc::Sender<(NodeId, Roles, Message)>,
    heard: Mutex<Option<mpsc::Receiver<(NodeId, Roles, Message)>>>,
    /// What was thought of each cell that leads here.
    reasons: Mutex<BTreeMap<CellId, Vec<Reason>>>,
    boot: BootId,
}

impl Keep {
    /// Of the process `boot`.
    pub(super) fn new(boot: BootId) -> Keep {
        let (said, heard) = mpsc::channel(SAID_MAX);
        Keep {
            changed: Mutex::default(),
            lossy: Mutex::default(),
            ended: Mutex::default(),
            wake: Notify::new(),
            said,
            heard: Mutex::new(Some(heard)),
            reasons: Mutex::default(),
            boot,
        }
    }

    /// Who leads or keeps a cell is another than before.
    pub(super) fn changed(&self, cell: CellId) {
        lock(&self.changed).insert(cell);
        self.wake.notify_one();
    }

    /// A member says that it has lost what it acknowledged.
    pub(super) fn lossy(&self, cell: CellId, replica: ReplicaId) {
        lock(&self.lossy).insert((cell, replica));
        self.changed(cell);
    }

    /// Nothing is left of a cell here.
    pub(super) fn ended(&self, cell: CellId) {
        lock(&self.ended).insert(cell);
        self.wake.notify_one();
    }

    /// Another node has said something.
    pub(super) fn said(&self, peer: &Peer, message: Message) {
        if self.said.try_send((peer.node, peer.roles, message)).is_err() {
            tracing::debug!(node = %peer.node, "a message about keepers was lost: too many wait");
        }
    }
}

impl Driver {
    /// Why the keepers of a cell that leads here are as they are.
    pub(crate) fn reasons(&self, cell: CellId) -> Vec<Reason> {
        lock(&self.keep.reasons).get(&cell).cloned().unwrap_or_default()
    }

    /// Sees to who keeps the cells that lead here, and does what others ask for, until the process ends.
    pub(crate) async fn keep(self: Arc<Self>, chance: Chance) {
        let Some(said) = lock(&self.keep.heard).take() else { return };
        let mut task = Task {
            driver: self,
            said,
            chance,
            cells: BTreeMap::new(),
            due: BTreeSet::new(),
            beacons: BTreeMap::new(),
            known: (Revision::ZERO, BTreeMap::new()),
            version: 0,
            ordered: BTreeMap::new(),
            began: clock::now().mono,
            next_beacon: Time::ZERO,
            next_former: clock::now().mono + FORMER_EVERY,
            sweeps: 0,
        };
        task.run().await;
    }
}

/// A machine, and what it was told last.
struct Beside {
    machine: Keeping,
    due: Option<Time>,
    version: u64,
    heard: Time,
}

struct Task {
    driver: Arc<Driver>,
    said: mpsc::Receiver<(NodeId, Roles, Message)>,
    chance: Chance,
    cells: BTreeMap<CellId, Beside>,
    due: BTreeSet<(Time, CellId)>,
    /// What the others said of themselves last, and when.
    beacons: BTreeMap<NodeId, (Beacon, Time)>,
    /// The members by the bundle of this number: their roles, and what the mesh wants of them.
    known: (Revision, BTreeMap<NodeId, (Roles, Wanted)>),
    /// Rises when what is known of nodes changes.
    version: u64,
    /// Who ordered the end of a cell here, and of which life.
    ordered: BTreeMap<CellId, (NodeId, ReplicaId)>,
    began: Time,
    next_beacon: Time,
    next_former: Time,
    sweeps: u64,
}

impl Task {
    async fn run(&mut self) {
        let mut changes = self.driver.changes();
        loop {
            let now = clock::now().mono;
            let due = self.due.first().map(|d| d.0);
            let until = due.into_iter().chain([self.next_beacon, self.next_former]).min().unwrap_or(now);
            tokio::select! {
                () = self.driver.keep.wake.notified() => {}
                said = self.said.recv() => {
                    if let Some((from, roles, message)) = said {
                        self.take(from, roles, message);
                    }
                }
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(until.since(now)) => {}
            }
            self.step();
        }
    }

    fn step(&mut self) {
        let now = clock::now().mono;
        self.know_members();
        let ended = std::mem::take(&mut *lock(&self.driver.keep.ended));
        for cell in ended {
            self.forget(cell);
            if let Some((node, replica)) = self.ordered.remove(&cell) {
                self.say(node, &Message::Ended { cell, replica });
            }
        }
        let mut cells = std::mem::take(&mut *lock(&self.driver.keep.changed));
        while let Some((at, cell)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, cell));
            cells.insert(cell);
        }
        for cell in cells {
            self.look(now, cell);
        }
        if now >= self.next_beacon {
            self.next_beacon = now + BEACON_EVERY;
            self.beacon(now);
        }
        if now >= self.next_former {
            self.next_former = now + FORMER_EVERY;
            self.say_who_hears_nobody();
        }
    }

    /// A cell here as it is now: its machine looks at it.
    fn look(&mut self, now: Time, cell: CellId) {
        let Some(seat) = self.driver.cell(cell) else { return self.forget(cell) };
        // One that follows is looked at, too: whoever leads next is to know whom it has seen go.
        let view = seat.look(View::of);
        let authority = cell == self.driver.founding.root;
        let mut fx = Vec::new();
        let is_old = self.cells.get(&cell).is_none_or(|beside| beside.version != self.version);
        let known = if is_old { self.known_for(now, authority) } else { None };
        let lossy: Vec<ReplicaId> =
            lock(&self.driver.keep.lossy).extract_if(.., |(c, _)| *c == cell).map(|(_, replica)| replica).collect();
        let (node, chance) = (self.driver.node, &self.chance);
        let beside = self.cells.entry(cell).or_insert_with(|| Beside {
            machine: Keeping::new(cell, node, Policy::default(), &chance.stream(&cell.to_string())),
            due: None,
            version: 0,
            heard: Time::ZERO,
        });
        if let Some(known) = known {
            beside.version = self.version;
            beside.machine.step(now, Input::Nodes(known), &mut fx);
        }
        for (node, (_, at)) in self.beacons.iter().filter(|(_, (_, at))| *at > beside.heard) {
            beside.machine.step(*at, Input::Heard(*node), &mut fx);
        }
        beside.heard = now;
        for replica in lossy {
            beside.machine.step(now, Input::Lossy(replica), &mut fx);
        }
        let wanted = if authority { None } else { self.driver.keepers_wanted(cell) };
        beside.machine.step(now, Input::Wanted(decide::keepers::voters_wanted(wanted.as_deref())), &mut fx);
        beside.machine.step(now, Input::Look(view), &mut fx);
        // As long as root may have it begun again, nobody else keeps it.
        if self.driver.bundle().is_to_begin(cell) {
            fx.retain(|e| !matches!(e, Effect::Keep { .. }));
        }
        self.perform(cell, fx);
        self.wake(cell);
    }

    /// Sets a machine's next deadline.
    fn wake(&mut self, cell: CellId) {
        let Some(beside) = self.cells.get_mut(&cell) else { return };
        if cfg!(debug_assertions) {
            beside.machine.check();
        }
        if let Some(old) = beside.due.take() {
            self.due.remove(&(old, cell));
        }
        beside.due = beside.machine.next_deadline();
        match beside.due {
            Some(at) => drop(self.due.insert((at, cell))),
            // It leads here no more.
            None => drop(lock(&self.driver.keep.reasons).remove(&cell)),
        }
    }

    fn forget(&mut self, cell: CellId) {
        if let Some(at) = self.cells.remove(&cell).and_then(|b| b.due) {
            self.due.remove(&(at, cell));
        }
        lock(&self.driver.keep.reasons).remove(&cell);
    }

    fn perform(&mut self, cell: CellId, effects: Vec<Effect>) {
        let Some(seat) = self.driver.cell(cell) else { return };
        for effect in effects {
            match effect {
                Effect::Seat { node, cell, replica } => {
                    let purpose = seat.look(purpose).encode();
                    self.say(node, &Message::Seat { cell, replica, purpose });
                }
                Effect::Keep { epoch, keepers } => {
                    let named: Vec<String> = keepers
                        .iter()
                        .map(|k| format!("{}{}", k.node.short(), if k.votes { "" } else { "?" }))
                        .collect();
                    tracing::info!(%cell, epoch, keepers = named.join(" "), "the keepers of a cell are to change");
                    seat.post(cell::Input::Keep { epoch, keepers });
                }
                Effect::Transfer { to } => {
                    tracing::info!(%cell, ?to, "a cell is handed over");
                    seat.post(cell::Input::Heartbeat(raft::Input::Transfer { to }));
                }
                Effect::Confirm { nodes, epoch } => {
                    nodes.into_iter().for_each(|node| self.say(node, &Message::Confirm { cell, epoch }));
                }
                Effect::End { node, cell, replica } => self.say(node, &Message::End { cell, replica }),
                Effect::Reasons(reasons) => {
                    tracing::debug!(%cell, ?reasons, "who is to keep a cell");
                    lock(&self.driver.keep.reasons).insert(cell, reasons);
                }
            }
        }
    }

    /// Another node has said something.
    fn take(&mut self, from: NodeId, roles: Roles, message: Message) {
        let now = clock::now().mono;
        if let Message::Beacon(beacon) = message {
            let before = self.beacons.insert(from, (beacon.clone(), now));
            self.driver.spoke(from);
            // That it goes on is no news.
            let same = |b: &Beacon| Beacon { up_ms: beacon.up_ms, ..b.clone() } == beacon;
            if !before.is_some_and(|(b, _)| same(&b)) {
                self.version += 1;
            }
            return;
        }
        let Some(cell) = orders::cell_of(&message) else { return };
        if !roles.contains(self.driver.keepers_role(cell)) {
            tracing::warn!(%from, %roles, %cell, "a node spoke about keepers without the role for it: it was not listened to");
            return;
        }
        let here = self.driver.here(cell);
        match orders::told(from, &message, here) {
            None => {}
            Some(Do::Begin { cell, replica, purpose }) => self.driver.begin_life(cell, replica, purpose),
            Some(Do::Answer(answer)) => self.say(from, &answer),
            Some(Do::End(cell)) => {
                // Whoever hears a leader obeys that one alone.
                let other = |seat: &Arc<Seat<Cell>>| seat.look(Cell::leader).is_some_and(|leader| leader != from);
                if let (Some(seat), Message::End { replica, .. }) =
                    (self.driver.cell(cell).filter(|seat| !other(seat)), &message)
                {
                    tracing::info!(%cell, by = %from, "this node keeps a cell no more");
                    self.ordered.insert(cell, (from, *replica));
                    seat.post(cell::Input::End);
                }
            }
            Some(Do::Tell(cell, input)) => {
                let mut fx = Vec::new();
                if let Some(beside) = self.cells.get_mut(&cell) {
                    beside.machine.step(now, input, &mut fx);
                }
                self.perform(cell, fx);
                self.wake(cell);
                // What was said may be what it waits for.
                self.look(now, cell);
            }
        }
    }

    /// To this node itself it is said as to others.
    fn say(&self, node: NodeId, message: &Message) {
        if node == self.driver.node {
            // What is lost is said again.
            let _ = self.driver.keep.said.try_send((node, Roles::ALL, message.clone()));
        } else if let Some(away) = self.driver.away() {
            away.keep(node, message);
        }
    }

    fn beacon(&mut self, now: Time) {
        let all = self.driver.all();
        let leads = all.iter().filter(|s| s.look(Cell::is_leading)).count();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let beacon = Beacon {
            boot: self.driver.keep.boot,
            up_ms: u64::try_from(now.since(self.began).as_millis()).unwrap_or(u64::MAX),
            zone: String::new(),
            // Replicas say themselves what they have lost, and begin anew in their own place.
            is_lossy: false,
            cells: count(all.len()),
            leads: count(leads),
            snapshots: 0,
        };
        let message = Message::Beacon(beacon.clone());
        let own = self.driver.node;
        // As long as root is not known, to those this node has met, and that keep what it keeps.
        let met = || {
            let keepers = |c: &Cell| c.member().cell().keepers().now.keepers.iter().map(|k| k.node).collect::<Vec<_>>();
            let beside = all.iter().flat_map(|s| s.look(keepers));
            beside.chain(self.driver.away().into_iter().flat_map(|a| a.contacts())).collect()
        };
        let to: BTreeSet<NodeId> = match self.known.1.is_empty() {
            true => met(),
            false => self.known.1.keys().copied().collect(),
        };
        to.into_iter().filter(|n| *n != own).for_each(|n| self.say(n, &message));
        self.take(own, Roles::NONE, message);
        self.beacons.retain(|n, _| self.known.1.contains_key(n) || *n == own);
    }

    /// Replicas that hear of no leader may have been let go without knowing.
    fn say_who_hears_nobody(&mut self) {
        let times = self.sweeps;
        self.sweeps += 1;
        // Of very many members some are asked, each time others.
        let all: Vec<NodeId> = self.known.1.keys().copied().collect();
        let from = usize::try_from(times).unwrap_or_default().wrapping_mul(FORMER_TO_MAX) % all.len().max(1);
        let asked: Vec<NodeId> = all.iter().cycle().skip(from).take(all.len().min(FORMER_TO_MAX)).copied().collect();
        for seat in self.driver.all() {
            let about = seat.look(|c| {
                let whom = || (c.member().replica().id(), orders::tell_former(c, times, asked.iter().copied()));
                c.leader().is_none().then(whom)
            });
            let Some((replica, nodes)) = about else { continue };
            nodes.into_iter().for_each(|node| self.say(node, &Message::Former { cell: seat.id(), replica }));
        }
    }

    /// What root says of the members, whenever it says something else.
    fn know_members(&mut self) {
        let bundle = self.driver.bundle();
        if bundle.number() == self.known.0 {
            return;
        }
        let wanted = |m: &Member| if m.leaving { Wanted::Leaving } else { Wanted::Stays };
        let roles = |listed: &[String]| kept::roles_of(listed).unwrap_or(Roles::NONE);
        let mut members: BTreeMap<NodeId, (Roles, Wanted)> =
            bundle.members().map(|(_, m)| (m.node, (roles(&m.roles), wanted(&m)))).collect();
        for revoked in bundle.list(REVOCATION).into_iter().filter_map(|t| objects::membership::Revocation::of(&t)) {
            members.insert(revoked.node, (Roles::NONE, Wanted::Expelled));
        }
        let changed = members != self.known.1;
        self.known = (bundle.number(), members);
        if changed {
            self.version += 1;
        }
    }

    /// What is known of all nodes, for a cell that asks for keepers or for authorities; nothing before root is known.
    fn known_for(&self, now: Time, authority: bool) -> Option<BTreeMap<NodeId, Known>> {
        if self.known.1.is_empty() {
            return None;
        }
        let role = if authority { Roles::AUTHORITY } else { Roles::KEEPER };
        let known = |(node, (roles, wanted)): (&NodeId, &(Roles, Wanted))| {
            let beacon = self.beacons.get(node);
            let said = beacon.map(|(b, _)| b);
            let began = beacon.map_or(now, |(b, at)| Time(at.0.saturating_sub(b.up_ms.saturating_mul(1_000_000))));
            let known = Known {
                has_role: roles.contains(role),
                wanted: *wanted,
                is_lossy: said.is_some_and(|b| b.is_lossy),
                zone: said.map(|b| b.zone.clone()).filter(|z| !z.is_empty()),
                began,
                near: 0,
                cells: said.map_or(0, |b| b.cells as usize),
                leads: said.map_or(0, |b| b.leads as usize),
                snapshots: said.map_or(0, |b| b.snapshots as usize),
            };
            (*node, known)
        };
        Some(self.known.1.iter().map(known).collect())
    }
}

fn purpose(cell: &Cell) -> Purpose {
    Purpose { role: cell.config().role.clone(), since: cell.config().since }
}

impl Driver {
    /// What is here of a cell.
    fn here(&self, cell: CellId) -> Here {
        // Held, so that one that is being seated is not found in neither place.
        let recovered = lock(&self.recovered);
        match self.cell(cell) {
            Some(seat) => {
                drop(recovered);
                seat.look(Here::of)
            }
            None if recovered.contains_key(&cell) || lock(&self.failed).contains_key(&cell) => Here::Closed,
            None => Here::Nothing,
        }
    }

    /// Begins a life of a cell that others keep: a replica that waits for a snapshot.
    fn begin_life(self: &Arc<Self>, cell: CellId, replica: ReplicaId, purpose: Purpose) {
        let named = match &purpose.role {
            Role::Namespace(name) => {
                let bundle = self.bundle();
                // One that is over is not begun; of one that root is not known to have named yet root is heard later.
                bundle.number() < purpose.since || bundle.cell_of(name) == Some(cell)
            }
            Role::Root => cell == self.founding.root,
            Role::Registry => cell == self.founding.registry,
        };
        if !named {
            return;
        }
        tracing::info!(%cell, ?replica, role = ?purpose.role, "this node is to keep a cell");
        if let Err(error) = self.seat(cell, purpose, super::Begins::Joins(replica)) {
            tracing::error!(%cell, "{error:#}");
        }
    }

    /// The role it takes to keep a cell.
    pub(super) fn keepers_role(&self, cell: CellId) -> Roles {
        if cell == self.founding.root { Roles::AUTHORITY } else { Roles::KEEPER }
    }

    /// How many keepers a namespace asks for, as its annotation says.
    fn keepers_wanted(&self, cell: CellId) -> Option<String> {
        let role = super::read(&self.roles).get(&cell).cloned()?;
        let Role::Namespace(name) = role else { return None };
        let tree = self.bundle().get("Namespace", &name)?;
        tree["metadata"]["annotations"][KEEPERS].as_str().map(str::to_owned)
    }
}

/// What the log holds of a cell says which life it is.
pub(super) fn life_of(cell: CellId, found: &cell::Found) -> Option<ReplicaId> {
    agreed::recorded(cell, &found.records).ok().flatten().map(|said| said.replica)
}
