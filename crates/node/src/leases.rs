//! Hosting leases: which nodes have been silent for so long that their pods may be replaced.
//!
//! One table of a node says when it heard each other member last, whatever was said: a node that speaks renews its leases
//! of all cells that lead here. A lease lapses [`LAPSE`] after the later of the node's last word and the election of the
//! cell's leader, who takes every lease as renewed by the leader before it (architecture, section 8). So one set of silent
//! nodes serves all cells, but for those whose leader is younger than [`LAPSE`]: theirs have not lapsed yet.
//!
//! Two more things are known, so that nobody whole is lost for somebody who is not: whom this process has never heard, and
//! who was silent until a short while ago ([`Hosts`]).
//!
//! It is soft state: nothing here is written, and a lease of a pod that may run twice fences nobody.

use base::{CellId, NodeId, Now, Time, Wall};
use decide::controllers::hosting::{Hosting, Hosts};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long a hosting lease lasts: L of architecture, section 8.
pub const LEASE: Duration = Duration::from_secs(6);
/// So long after a word the lease it renewed has lapsed for the cell: 1.1 L + 1 s (architecture, section 8: clocks may drift
/// by up to 5% either way, and a word is on its way for up to a second).
pub const LAPSE: Duration = Duration::from_millis(LEASE.as_millis() as u64 * 11 / 10 + 1000);
/// For so long it is remembered that a node had been silent: by then its pods' status is its own again, or it has left what
/// was too much.
const RETURNED: Duration = Duration::from_secs(60);
/// This node's own beacons come here, too, once a second. If nothing at all came for this long it was this process that
/// stood still, and nobody's silence is told from it.
const STOOD_STILL: Duration = Duration::from_secs(3);
/// Who is no member any more is remembered for so long: by then its pods are collected with its Node
/// (`decide::controllers::pod_garbage`).
const DEPARTED: Duration = Duration::from_secs(600);
/// So many of them at most; of more the first are forgotten, and their pods count as there until they are collected.
const DEPARTED_MAX: usize = 1024;

/// What the table is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// The members of the mesh, by the names of their Nodes.
    Members(BTreeMap<Arc<str>, NodeId>),
    /// A node has said something, just now.
    Heard(NodeId),
    /// A cell with pods has just begun to lead here. Whoever tells an older term's end does so before.
    Leads(CellId),
    /// A cell leads here no more.
    Over(CellId),
    /// Time has passed.
    Tick,
}

/// What it wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Tell the controllers of a cell what is known of its hosts.
    Tell {
        /// The cell.
        cell: CellId,
        /// What is known.
        hosting: Hosting,
    },
}

/// A member, or one that was.
struct Host {
    name: Arc<str>,
    /// Its last word; before there was one, when it became known.
    last: Time,
    heard: bool,
    /// When its lease lapsed, if it has.
    silent_since: Option<Wall>,
    /// Since when it is no member any more.
    departed: Option<Time>,
}

/// The table.
pub struct Leases {
    own: NodeId,
    hosts: BTreeMap<NodeId, Host>,
    /// Those whose lease runs, by their last word.
    running: BTreeSet<(Time, NodeId)>,
    /// Those that were silent, by when they spoke again.
    returned: BTreeSet<(Time, NodeId)>,
    departed: BTreeSet<(Time, NodeId)>,
    /// When each cell's leader was elected.
    cells: BTreeMap<CellId, Time>,
    /// Cells whose leases cannot have lapsed yet.
    young: BTreeSet<(Time, CellId)>,
    /// The sets that were told last.
    told: Arc<Hosts>,
    /// When it was told anything last.
    stepped: Time,
    /// No lease ends earlier than [`LAPSE`] after this: when this process went on after it had stood still.
    floor: Time,
}

impl Leases {
    /// Of this node, which hears itself for as long as it can think.
    pub fn new(own: NodeId) -> Leases {
        Leases {
            own,
            hosts: BTreeMap::new(),
            running: BTreeSet::new(),
            returned: BTreeSet::new(),
            departed: BTreeSet::new(),
            cells: BTreeMap::new(),
            young: BTreeSet::new(),
            told: Arc::default(),
            stepped: Time::ZERO,
            floor: Time::ZERO,
        }
    }

    /// One bounded step.
    pub fn step(&mut self, at: Now, input: Input, fx: &mut Vec<Effect>) {
        let now = at.mono;
        if now.since(self.stepped) >= STOOD_STILL {
            self.floor = now;
        }
        self.stepped = now;
        let mut changed = false;
        match input {
            Input::Members(members) => changed |= self.members(now, &members),
            Input::Heard(node) => changed |= self.heard(now, node),
            Input::Leads(cell) => self.leads(now, cell, fx),
            Input::Over(cell) => self.over(cell),
            Input::Tick => {}
        }
        changed |= self.pass(at);
        // Whose leases can have lapsed from now on.
        let mut matured = BTreeSet::new();
        while let Some((elected, cell)) = self.young.first().copied().filter(|(at, _)| *at + LAPSE <= now) {
            self.young.remove(&(elected, cell));
            matured.insert(cell);
        }
        if changed {
            self.told = Arc::new(self.sets());
            self.cells.keys().for_each(|cell| fx.push(self.tell(*cell)));
        } else if !self.told.silent.is_empty() {
            matured.into_iter().for_each(|cell| fx.push(self.tell(cell)));
        }
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let running = self.running.first().map(|(last, _)| (*last).max(self.floor) + LAPSE);
        let young = self.young.first().map(|(elected, _)| *elected + LAPSE);
        let returned = self.returned.first().map(|(at, _)| *at + RETURNED);
        let departed = self.departed.first().map(|(at, _)| *at + DEPARTED);
        [running, young, returned, departed].into_iter().flatten().min()
    }

    /// Asserts what must hold between steps.
    pub fn check(&self) {
        assert!(!self.hosts.contains_key(&self.own), "this node counts itself among those that may be silent");
        assert!(
            self.running.iter().all(|(last, node)| self.hosts.get(node).is_some_and(|h| h.last == *last)),
            "a lease runs from another moment than the last word"
        );
        assert!(
            self.hosts.iter().all(|(n, h)| h.silent_since.is_some() != self.running.contains(&(h.last, *n))),
            "a lease has neither lapsed nor does it run"
        );
        assert!(self.departed.len() <= DEPARTED_MAX, "more who left are remembered than the bound says");
        assert!(
            self.young.iter().all(|(at, cell)| self.cells.get(cell) == Some(at)),
            "a cell waits for leases of another leadership"
        );
    }

    fn members(&mut self, now: Time, members: &BTreeMap<Arc<str>, NodeId>) -> bool {
        let mut changed = false;
        let names: BTreeMap<NodeId, &Arc<str>> = members.iter().map(|(name, node)| (*node, name)).collect();
        // A name that is somebody else's now says nothing any more of who had it.
        let named = |host: &Host, node: NodeId| members.get(&host.name).is_none_or(|n| *n == node);
        let gone: Vec<NodeId> = self.hosts.iter().filter(|(n, h)| !named(h, **n)).map(|(n, _)| *n).collect();
        for node in gone {
            self.forget(node);
            changed = true;
        }
        for (node, name) in names.into_iter().filter(|(node, _)| *node != self.own) {
            if let Some(host) = self.hosts.get_mut(&node) {
                changed |= host.name != *name;
                host.name = name.clone();
                if let Some(at) = host.departed.take() {
                    self.departed.remove(&(at, node));
                }
                continue;
            }
            self.hosts
                .insert(node, Host { name: name.clone(), last: now, heard: false, silent_since: None, departed: None });
            self.running.insert((now, node));
            changed = true;
        }
        for (node, host) in self.hosts.iter_mut().filter(|(_, h)| h.departed.is_none()) {
            if members.get(&host.name) != Some(node) {
                host.departed = Some(now);
                self.departed.insert((now, *node));
            }
        }
        while self.departed.len() > DEPARTED_MAX {
            let Some((_, first)) = self.departed.first().copied() else { break };
            self.forget(first);
            changed = true;
        }
        changed
    }

    fn heard(&mut self, now: Time, node: NodeId) -> bool {
        let Some(host) = self.hosts.get_mut(&node).filter(|h| h.departed.is_none()) else { return false };
        self.running.remove(&(host.last, node));
        host.last = now;
        self.running.insert((now, node));
        let was_silent = host.silent_since.take().is_some();
        if was_silent {
            self.returned.insert((now, node));
        }
        !std::mem::replace(&mut host.heard, true) || was_silent
    }

    fn leads(&mut self, now: Time, cell: CellId, fx: &mut Vec<Effect>) {
        self.over(cell);
        self.cells.insert(cell, now);
        self.young.insert((now, cell));
        fx.push(self.tell(cell));
    }

    fn over(&mut self, cell: CellId) {
        if let Some(elected) = self.cells.remove(&cell) {
            self.young.remove(&(elected, cell));
        }
    }

    /// What ends by the mere passing of time.
    fn pass(&mut self, Now { mono: now, wall }: Now) -> bool {
        let mut changed = false;
        while let Some((last, node)) =
            self.running.first().copied().filter(|(last, _)| (*last).max(self.floor) + LAPSE <= now)
        {
            self.running.remove(&(last, node));
            self.returned.retain(|(_, n)| *n != node);
            if let Some(host) = self.hosts.get_mut(&node) {
                host.silent_since = Some(wall);
            }
            changed = true;
        }
        while let Some((at, node)) = self.returned.first().copied().filter(|(at, _)| *at + RETURNED <= now) {
            self.returned.remove(&(at, node));
            changed = true;
        }
        while let Some((at, node)) = self.departed.first().copied().filter(|(at, _)| *at + DEPARTED <= now) {
            self.departed.remove(&(at, node));
            self.forget(node);
            changed = true;
        }
        changed
    }

    fn forget(&mut self, node: NodeId) {
        let Some(host) = self.hosts.remove(&node) else { return };
        self.running.remove(&(host.last, node));
        self.returned.retain(|(_, n)| *n != node);
        if let Some(at) = host.departed {
            self.departed.remove(&(at, node));
        }
    }

    fn sets(&self) -> Hosts {
        let mut sets = Hosts::default();
        for host in self.hosts.values() {
            match host.silent_since {
                Some(since) => drop(sets.silent.insert(host.name.clone(), since)),
                None if !host.heard => drop(sets.unheard.insert(host.name.clone())),
                None => {}
            }
        }
        let named = |(_, node): &(Time, NodeId)| Some(self.hosts.get(node)?.name.clone());
        sets.returned = self.returned.iter().filter_map(named).collect();
        sets
    }

    fn tell(&self, cell: CellId) -> Effect {
        let young = self.cells.get(&cell).is_none_or(|elected| self.young.contains(&(*elected, cell)));
        Effect::Tell { cell, hosting: Hosting { hosts: self.told.clone(), lapsed: !young } }
    }
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
