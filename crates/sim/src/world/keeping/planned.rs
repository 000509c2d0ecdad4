//! Keepers that come and go as the program has it: a [`Keeping`] beside each replica, messages between nodes, and
//! [`orders`] for what a node does about one.
//!
//! The mesh wishes something else of a node now and then (that it stays, drains, leaves), and other numbers of voters.
//! Nodes know of each other what that says, and what they say themselves, in beacons.

use super::super::network::Packet;
use super::super::{Event, HEALED, Local, MS, SECOND, SERVING, World, index_of, node_id, replica};
use super::{By, Happening};
use crate::checks::{Checked, ensure};
use crate::ports::Bug;
use agree::cell as agreed;
use agree::descriptor::Keeper;
use agree::raft;
use base::{BootId, CellId, Chance, NodeId, ReplicaId, Time};
use decide::keepers::{Policy, Wanted};
use node::cell::{Cell, Input as ToCell, Purpose};
use node::keeping::orders::{self, Do, Here};
use node::keeping::{Effect, Input, Keeping, Known, View};
use node::wire::keep::{Beacon, Message};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often a node says how it is.
const BEACON: u64 = 2 * SECOND;
/// A life that has no leader for so long says that it is there, and again each time so much has passed. Those it asks may
/// be former ones themselves: a run has time for some rounds of that.
const LEADERLESS: u64 = 5 * SECOND;

/// What the mesh wants.
pub(super) struct Wishes {
    nodes: BTreeMap<NodeId, (Wanted, Option<String>)>,
    /// Voters of a cell; 3 of one that nobody has said anything about.
    voters: BTreeMap<CellId, usize>,
}

impl Wishes {
    pub(super) fn new(dice: &mut Chance, size: usize) -> Wishes {
        let zones = [None, Some("a"), Some("b"), Some("c")];
        let mut zone = || dice.pick(&zones).copied().flatten().map(str::to_owned);
        let nodes = (0..size).map(|n| (node_id(n), (Wanted::Stays, zone()))).collect();
        Wishes { nodes, voters: BTreeMap::new() }
    }

    fn voters_of(&self, cell: CellId) -> usize {
        self.voters.get(&cell).copied().unwrap_or(3)
    }

    /// Nodes that may stay.
    fn staying(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().filter(|(_, (wanted, _))| *wanted == Wanted::Stays).map(|(n, _)| *n)
    }
}

/// As the program's, in a run's time: who is silent is replaced within it.
fn policy() -> Policy {
    Policy {
        learner_after: Duration::from_secs(6),
        vote_after: Duration::from_secs(9),
        fresh: Duration::from_secs(5),
        snapshots_max: 2,
        leads_more: 2,
        leads_for: Duration::from_secs(10),
    }
}

impl World {
    fn is_planned(&self) -> bool {
        self.keeping.by == By::Plan
    }

    /// A node starts: the lives it has are those its log names. What it was ordered to begin and has no record of it has
    /// forgotten, but for what it founds.
    pub(in crate::world) fn recall_lives(&mut self, node: usize) {
        if !self.is_planned() {
            return;
        }
        let boot = self.keepers[node].boot;
        let later = self.keeping.dice.below(BEACON);
        self.at(later, Event::Keeping(Happening::Beacon { node, boot }));
        let Some(up) = &self.keepers[node].up else { return };
        let lives = &mut self.keeping.lives;
        lives.retain(|(_, n), life| *n != node || *life == replica(node));
        let recorded = up.recovered.iter().filter_map(|(id, f)| Some((*id, agreed::recorded(*id, &f.records).ok()??)));
        lives.extend(recorded.map(|(cell, said)| ((cell, node), said.replica)));
    }

    /// A cell is seated: the machine beside it.
    pub(in crate::world) fn have_kept(&mut self, node: usize, cell: CellId) {
        if !self.is_planned() {
            return;
        }
        let chance = Chance::from_u64(self.keeping.dice.u64());
        let Some(up) = &mut self.keepers[node].up else { return };
        up.keeps.machines.insert(cell, Keeping::new(cell, node_id(node), policy(), &chance));
        let (wanted, nodes) = (self.keeping.wishes.voters_of(cell), self.known_at(node));
        self.local.extend([Input::Wanted(wanted), Input::Nodes(nodes)].map(|i| Local::Keeping(node, cell, i)));
        self.look_at_keepers(node, cell);
    }

    /// What a node knows of all nodes.
    fn known_at(&self, node: usize) -> BTreeMap<NodeId, Known> {
        let Some(up) = &self.keepers[node].up else { return BTreeMap::new() };
        let own = (self.beacon_of(node), up.keeps.began);
        let known = |(id, (wanted, zone)): (&NodeId, &(Wanted, Option<String>))| {
            let said = if *id == node_id(node) { Some(&own) } else { up.keeps.beacons.get(id) };
            let said = said.cloned().unwrap_or_else(|| (nothing_said(), self.keepers[node].now(self.now).mono));
            let (beacon, began) = said;
            let known = Known {
                has_role: true,
                wanted: *wanted,
                is_lossy: beacon.is_lossy,
                zone: zone.clone(),
                began,
                near: 0,
                cells: beacon.cells as usize,
                // Nobody hands over for balance while a run is about to end.
                leads: if self.now < SERVING { beacon.leads as usize } else { 0 },
                snapshots: beacon.snapshots as usize,
            };
            (*id, known)
        };
        self.keeping.wishes.nodes.iter().map(known).collect()
    }

    fn beacon_of(&self, node: usize) -> Beacon {
        let k = &self.keepers[node];
        let cells = || k.up.iter().flat_map(|u| u.seats.values()).map(|s| &s.cell);
        let began = k.up.as_ref().map_or(Time::ZERO, |u| u.keeps.began);
        let count = |is: fn(&&Cell) -> bool| cells().filter(is).count() as u32;
        let up_ms = k.now(self.now).mono.since(began).as_millis() as u64;
        Beacon {
            boot: BootId(k.boot),
            up_ms,
            zone: self.keeping.wishes.nodes.get(&node_id(node)).and_then(|n| n.1.clone()).unwrap_or_default(),
            is_lossy: k.rotten,
            cells: count(|_| true),
            leads: count(|c| c.is_leading()),
            snapshots: count(|c| c.member().cell().keepers().now.epoch == 0),
        }
    }

    /// Every now and then a node says how it is, hands what it knows to its machines, and looks after lives that nobody
    /// leads.
    pub(super) fn look_after(&mut self, node: usize, boot: u64) -> Checked {
        if self.keepers[node].boot != boot || self.keepers[node].up.is_none() {
            return Ok(());
        }
        self.at(BEACON, Event::Keeping(Happening::Beacon { node, boot }));
        let beacon = Message::Beacon(self.beacon_of(node));
        for to in (0..self.size()).filter(|to| *to != node) {
            self.say_of_keepers(node, to, &beacon);
        }
        let known = self.known_at(node);
        let Some(up) = &mut self.keepers[node].up else { return Ok(()) };
        let cells: Vec<CellId> = up.keeps.machines.keys().copied().collect();
        up.keeps.leaderless.retain(|c, _| cells.contains(c));
        for cell in cells {
            let wanted = self.keeping.wishes.voters_of(cell);
            self.local.push_back(Local::Keeping(node, cell, Input::Wanted(wanted)));
            self.local.push_back(Local::Keeping(node, cell, Input::Nodes(known.clone())));
            self.say_former(node, cell);
        }
        self.settle()
    }

    /// A life without a leader may be one that nobody names any more.
    fn say_former(&mut self, node: usize, cell: CellId) {
        let (now, size) = (self.now, self.size());
        let Some(up) = &mut self.keepers[node].up else { return };
        let Some(seat) = up.seats.get(&cell) else { return };
        if seat.cell.leader().is_some() || self.bug == Bug::FormerUnsaid {
            up.keeps.leaderless.remove(&cell);
            return;
        }
        let (since, said) = up.keeps.leaderless.entry(cell).or_insert((now, 0));
        if now < *since + LEADERLESS * (*said + 1) {
            return;
        }
        let to = orders::tell_former(&seat.cell, *said, (0..size).map(node_id));
        *said += 1;
        let replica = seat.cell.member().replica().id();
        self.counts.former += 1;
        for to in to {
            self.say_of_keepers(node, index_of(to), &Message::Former { cell, replica });
        }
    }

    /// The machine beside a replica is to see how it is, once the replica is through with its step.
    pub(in crate::world) fn look_at_keepers(&mut self, node: usize, cell: CellId) {
        if self.is_planned() {
            self.local.push_back(Local::Look(node, cell));
        }
    }

    pub(in crate::world) fn step_look(&mut self, node: usize, cell: CellId) {
        let view = self.keepers[node].cell(cell).map(View::of);
        if let Some(view) = view {
            self.step_keeping(node, cell, Input::Look(view));
        }
    }

    pub(in crate::world) fn step_keeping(&mut self, node: usize, cell: CellId, input: Input) {
        let now = self.keepers[node].now(self.now).mono;
        let Some(up) = &mut self.keepers[node].up else { return };
        let Some(machine) = up.keeps.machines.get_mut(&cell) else { return };
        let mut fx = Vec::new();
        machine.step(now, input, &mut fx);
        machine.check();
        for effect in fx {
            self.do_for_keepers(node, cell, effect);
        }
        self.wake(node);
    }

    fn do_for_keepers(&mut self, node: usize, cell: CellId, effect: Effect) {
        let Some(seat) = self.keepers[node].cell(cell) else { return };
        match effect {
            Effect::Seat { node: to, cell, replica } => {
                let config = seat.config();
                let purpose = Purpose { role: config.role.clone(), since: config.since }.encode();
                self.say_of_keepers(node, index_of(to), &Message::Seat { cell, replica, purpose });
            }
            Effect::Keep { epoch, keepers } => {
                let present = seat.member().cell().keepers().now.keepers.clone();
                if self.bug == Bug::EndUnasked {
                    let gone = |k: &&Keeper| !keepers.iter().any(|n| n.replica == k.replica);
                    for Keeper { node: to, replica, .. } in present.iter().filter(gone) {
                        self.say_of_keepers(node, index_of(*to), &Message::End { cell, replica: *replica });
                    }
                }
                self.local.push_back(Local::Cell(node, cell, ToCell::Keep { epoch, keepers }));
            }
            Effect::Transfer { to } => {
                let input = ToCell::Heartbeat(raft::Input::Transfer { to });
                self.local.push_back(Local::Cell(node, cell, input));
            }
            Effect::Confirm { nodes, epoch } => {
                for to in nodes {
                    self.say_of_keepers(node, index_of(to), &Message::Confirm { cell, epoch });
                }
            }
            Effect::End { node: to, cell, replica } => {
                self.say_of_keepers(node, index_of(to), &Message::End { cell, replica });
            }
            Effect::Reasons(_) => {}
        }
    }

    fn say_of_keepers(&mut self, from: usize, to: usize, message: &Message) {
        self.send(from, to, Packet::Keep(message.encode()));
    }

    /// What is at a node of a cell.
    fn here(&self, node: usize, cell: CellId) -> Here {
        let Some(up) = &self.keepers[node].up else { return Here::Closed };
        match up.seats.get(&cell) {
            Some(seat) => Here::of(&seat.cell),
            None if up.recovered.contains_key(&cell) => Here::Closed,
            None => Here::Nothing,
        }
    }

    /// A node hears of who keeps a cell, or how another is.
    pub(in crate::world) fn told_of_keepers(&mut self, from: usize, to: usize, message: &Message) -> Checked {
        let now = self.keepers[to].now(self.now).mono;
        let Some(up) = &mut self.keepers[to].up else { return Ok(()) };
        if let Message::Beacon(beacon) = message {
            let began = Time(now.0.saturating_sub(beacon.up_ms * MS));
            up.keeps.beacons.insert(node_id(from), (beacon.clone(), began));
            let cells = up.keeps.machines.keys().copied();
            self.local.extend(cells.map(|c| Local::Keeping(to, c, Input::Heard(node_id(from)))));
            return self.settle();
        }
        let Some(cell) = orders::cell_of(message) else { return Ok(()) };
        let mut here = self.here(to, cell);
        if let (Bug::AnotherEnded, Message::End { replica, .. }, Here::Life { replica: own, .. }) =
            (self.bug, message, &mut here)
        {
            *own = *replica;
        }
        match orders::told(node_id(from), message, here) {
            None => Ok(()),
            Some(Do::Begin { cell, replica, purpose }) => {
                self.counts.begun += 1;
                self.keeping.lives.insert((cell, to), replica);
                self.seat(to, cell, purpose, None)?;
                self.settle()
            }
            Some(Do::Answer(answer)) => {
                self.say_of_keepers(to, from, &answer);
                Ok(())
            }
            Some(Do::End(cell)) => self.end_ordered(from, to, cell),
            Some(Do::Tell(cell, input)) => self.pass(Local::Keeping(to, cell, input)),
        }
    }

    fn end_ordered(&mut self, from: usize, node: usize, cell: CellId) -> Checked {
        // From here on it is not founded again, whatever becomes of its process.
        let Some(replica) = self.keeping.lives.remove(&(cell, node)) else { return Ok(()) };
        if let Some(up) = &mut self.keepers[node].up {
            up.keeps.ending.insert(cell, (node_id(from), replica));
        }
        self.tell(node, cell, ToCell::End)
    }

    /// Nothing is left of a life: whoever ordered that hears of it.
    pub(super) fn say_ended(&mut self, node: usize, cell: CellId) {
        let Some(up) = &mut self.keepers[node].up else { return };
        up.keeps.machines.remove(&cell);
        if let Some((who, replica)) = up.keeps.ending.remove(&cell) {
            self.say_of_keepers(node, index_of(who), &Message::Ended { cell, replica });
        }
    }

    /// The mesh wants something else, of a node or for a cell.
    pub(super) fn wish(&mut self) {
        if self.now >= HEALED {
            return;
        }
        let k = &mut self.keeping;
        let pause = k.dice.range(500, 6_000) * MS;
        if k.dice.below(2) == 0 {
            let cells: Vec<CellId> = self.truths.keys().copied().collect();
            if let Some(cell) = k.dice.pick(&cells) {
                let voters = k.dice.pick(&[1, 3, 3, 5]).copied().unwrap_or(3);
                k.wishes.voters.insert(*cell, voters);
            }
        } else {
            let ids: Vec<NodeId> = k.wishes.nodes.keys().copied().collect();
            let all = [Wanted::Stays, Wanted::Stays, Wanted::Draining, Wanted::Leaving];
            if let (Some(id), Some(wanted)) = (k.dice.pick(&ids), k.dice.pick(&all)) {
                // Somebody is left.
                let is_last = k.wishes.staying().all(|n| n == *id || self.keepers[index_of(n)].rotten);
                if let Some(node) = k.wishes.nodes.get_mut(id).filter(|_| *wanted == Wanted::Stays || !is_last) {
                    node.0 = *wanted;
                }
            }
        }
        self.at(pause, Event::Keeping(Happening::Wish));
    }

    /// The end: those who are to keep a cell do, and nobody else has anything of it.
    pub(in crate::world) fn end_keeping(&self) -> Checked {
        if !self.is_planned() {
            return Ok(());
        }
        for cell in self.truths.keys() {
            let Some(leads) = self.keepers.iter().find(|k| k.leads(*cell)).and_then(|k| k.cell(*cell)) else {
                continue;
            };
            let named = &leads.member().cell().keepers().now.keepers;
            self.end_voters(*cell, named)?;
            for (node, k) in self.keepers.iter().enumerate() {
                let life = k.cell(*cell).map(|c| c.member().replica().id());
                let is_named = |life: &ReplicaId| named.iter().any(|k| k.replica == *life && k.node == node_id(node));
                ensure("keeping", life.as_ref().is_none_or(is_named), || {
                    format!("at the end node {node} has {life:?} of {cell}, which {named:?} keep")
                })?;
            }
        }
        Ok(())
    }

    fn end_voters(&self, cell: CellId, named: &[Keeper]) -> Checked {
        let wishes = &self.keeping.wishes;
        let fit: Vec<NodeId> = wishes.staying().filter(|n| !self.keepers[index_of(*n)].rotten).collect();
        let wanted = wishes.voters_of(cell);
        let least = [wanted, 3, 1].into_iter().filter(|n| *n <= wanted).find(|n| *n <= fit.len()).unwrap_or(1);
        let voters: Vec<&Keeper> = named.iter().filter(|k| k.votes).collect();
        // One that has lost what it held, and begun anew where nobody else could come, leaves an even number if it goes.
        let may_be_even = fit.len() < 3 && self.keepers.iter().any(|k| k.rotten);
        let has_enough = voters.len() % 2 == 1 && (least..=wanted).contains(&voters.len());
        ensure("keeping", has_enough || may_be_even, || {
            format!("at the end {named:?} keep {cell}; {wanted} voters are wanted, and {fit:?} may vote")
        })?;
        let strays = voters.iter().filter(|k| !fit.contains(&k.node)).count();
        ensure("keeping", strays == 0 || fit.len() < voters.len(), || {
            format!("at the end {named:?} keep {cell}, and {fit:?} are to; {wanted} voters are wanted")
        })
    }
}

/// Of a node of which nothing was heard.
fn nothing_said() -> Beacon {
    let zone = String::new();
    Beacon { boot: BootId(0), up_ms: 0, zone, is_lossy: false, cells: 0, leads: 0, snapshots: 0 }
}
