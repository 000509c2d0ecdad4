//! Who keeps the cells: in some runs those who keep them come and go.
//!
//! Whoever places keepers has a standing order for each member: this life, on this node. A node that is up and has
//! nothing of an ordered life begins it, and tells nobody that it has it before: until it was told of a cell it has
//! nothing to lose.

use super::{Event, HEALED, MS, SECOND, World, node_id, replica};
use crate::checks::{Checked, Violation, ensure};
use crate::keeper::EPOCH_MS;
use crate::ports::Bug;
use agree::cell::{self as agreed, Keepers};
use agree::descriptor::Keeper;
use base::{CellId, Chance, ReplicaId, Wall};
use node::cell::{Cell, Input, Purpose, Role};
use node::genesis;
use std::collections::{BTreeMap, BTreeSet};

/// From here on keepers come and go: there are namespaces.
const BEGIN: u64 = 6 * SECOND;
/// The least life that is not a founder's.
const LATER: u64 = 1_000;
/// Voters a cell has at most.
const VOTERS_MAX: usize = 5;

/// What happens to keepers.
pub(super) enum Happening {
    /// Somebody else is to keep a cell.
    Change,
    /// A life that is named no more is given up, once those who keep the cell agree.
    End { node: usize, cell: CellId, life: ReplicaId },
}

/// The standing orders.
pub(super) struct Keeping {
    dice: Chance,
    /// Whether keepers change.
    changes: bool,
    /// How many nodes, the first ones, found cells.
    founders: usize,
    founded: BTreeSet<CellId>,
    lives: BTreeMap<(CellId, usize), ReplicaId>,
    purposes: BTreeMap<CellId, Purpose>,
    /// Lives that were named once. Of another nobody can say that it will not be: the change that names it may lie in a
    /// log, not committed yet.
    named: BTreeSet<ReplicaId>,
    next: u64,
}

impl Keeping {
    pub(super) fn new(chance: &Chance, size: usize, changes: bool) -> Keeping {
        let mut dice = chance.stream("keeping");
        let changes = changes && size > 1;
        let fewer = if size > 3 { [1, 3, 5] } else { [1, 1, 3] };
        let founders = if changes { dice.pick(&fewer).copied().unwrap_or(1) } else { size };
        Keeping {
            dice,
            changes,
            founders,
            founded: BTreeSet::new(),
            lives: BTreeMap::new(),
            purposes: BTreeMap::new(),
            named: BTreeSet::new(),
            next: LATER,
        }
    }
}

impl World {
    pub(super) fn begin_keeping(&mut self) {
        if self.keeping.changes {
            self.at(BEGIN, Event::Keeping(Happening::Change));
        }
    }

    /// The life that a node is to have in a cell. Whoever hears first of a cell hears who founds it.
    pub(super) fn life(&mut self, cell: CellId, node: usize) -> Option<ReplicaId> {
        let k = &mut self.keeping;
        if k.founded.insert(cell) {
            k.lives.extend((0..k.founders).map(|n| ((cell, n), replica(n))));
        }
        k.lives.get(&(cell, node)).copied()
    }

    /// The founding keepers, for one of them; nobody for others.
    pub(super) fn founders_of(&self, node: usize, life: ReplicaId) -> Vec<Keeper> {
        let founds = life == replica(node);
        let keeper = |n| Keeper { replica: replica(n), node: node_id(n), votes: true };
        if self.bug == Bug::FoundedAnew && !founds {
            return vec![Keeper { replica: life, node: node_id(node), votes: true }];
        }
        (0..self.keeping.founders).filter(|_| founds).map(keeper).collect()
    }

    /// The nodes with an order to keep a cell.
    pub(super) fn nodes_of(&self, cell: CellId) -> Vec<usize> {
        self.keeping.lives.keys().filter(|(c, _)| *c == cell).map(|(_, n)| *n).collect()
    }

    /// What a node that starts has of cells it keeps goes on, whether or not it hears of root; and what it was ordered
    /// to keep and has nothing of begins.
    pub(super) fn seat_kept(&mut self, node: usize) -> Checked {
        let Some(up) = &self.keepers[node].up else { return Ok(()) };
        let recorded = up.recovered.iter().filter_map(|(id, f)| Some((*id, agreed::recorded(*id, &f.records).ok()??)));
        let mut kept: BTreeMap<CellId, Purpose> =
            recorded.filter_map(|(id, said)| Some((id, Purpose::decode(&said.purpose)?))).collect();
        for (cell, purpose) in &self.keeping.purposes {
            if self.keeping.lives.contains_key(&(*cell, node)) {
                kept.entry(*cell).or_insert_with(|| purpose.clone());
            }
        }
        for (cell, purpose) in kept {
            if let Role::Namespace(name) = &purpose.role {
                let genesis = genesis::namespace(name, cell.0, purpose.since, "PEM", Wall(EPOCH_MS));
                self.seat(node, cell, purpose.clone(), Some(genesis))?;
            }
        }
        Ok(())
    }

    /// The nodes that keep a cell, as its leader has it.
    pub(super) fn kept_by(&self, cell: CellId) -> Result<Vec<usize>, Violation> {
        let leads = self.keepers.iter().find(|k| k.leads(cell)).and_then(|k| k.cell(cell));
        let keepers = leads.map(|c| c.member().cell().keepers());
        ensure("liveness", keepers.is_some_and(|k| k.before.is_none()), || {
            format!("at the end the keepers of {cell} are still changing")
        })?;
        let named = keepers.into_iter().flat_map(|k| &k.now.keepers);
        Ok(named.map(|k| super::index_of(k.node)).collect())
    }

    /// Whether a cell would lose its quorum for good with this node.
    pub(super) fn is_needed(&self, node: usize) -> bool {
        let newest = |cell: &CellId| self.newest(*cell).map(|c| c.member().cell().keepers());
        self.keeping.changes
            && self.truths.keys().any(|cell| {
                newest(cell).is_none_or(|k| {
                    let here = |d: &agree::descriptor::Descriptor| {
                        let voters: Vec<_> = d.keepers.iter().filter(|k| k.votes).collect();
                        let others = voters.iter().filter(|k| k.node != node_id(node)).count();
                        others * 2 <= voters.len()
                    };
                    here(&k.now) || k.before.as_ref().is_some_and(here)
                })
            })
    }

    /// The replica that has come furthest.
    fn newest(&self, cell: CellId) -> Option<&Cell> {
        let all = self.keepers.iter().filter_map(|k| k.cell(cell));
        all.max_by_key(|c| c.member().cell().applied().0)
    }

    pub(super) fn happen_to_keepers(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Change => {
                let pause = self.keeping.dice.range(100, 2_500);
                if self.now < HEALED {
                    self.at(pause * MS, Event::Keeping(Happening::Change));
                    return self.change_keepers();
                }
                Ok(())
            }
            Happening::End { node, cell, life } => self.end_life(node, cell, life),
        }
    }

    /// As whoever places keepers would: never an even number of voters, none that has not caught up, and never a quorum
    /// that is not there.
    fn change_keepers(&mut self) -> Checked {
        let cells: Vec<CellId> = self.truths.keys().copied().collect();
        let Some(cell) = self.keeping.dice.pick(&cells).copied() else { return Ok(()) };
        let Some(leader) = (0..self.size()).find(|n| self.keepers[*n].leads(cell)) else { return Ok(()) };
        let Some(seat) = self.keepers[leader].cell(cell) else { return Ok(()) };
        let purpose = Purpose { role: seat.config().role.clone(), since: seat.config().since };
        let replica = seat.member().replica();
        if !replica.may_change() {
            return Ok(());
        }
        let Keepers { now: present, .. } = seat.member().cell().keepers().clone();
        let deaf = |k: &Keeper| {
            let kept = self.keepers[super::index_of(k.node)].cell(cell);
            kept.is_none_or(|c| c.member().replica().is_lossy())
        };
        let close =
            |k: &Keeper| replica.peer(k.replica).is_some_and(|p| p.matched > 0 && p.matched + 20 >= replica.last().0);
        let has_come = |k: &Keeper| k.replica == replica.id() || (close(k) && !deaf(k));
        let come: BTreeSet<ReplicaId> = present.keepers.iter().filter(|k| has_come(k)).map(|k| k.replica).collect();
        let has_quorum = |keepers: &[Keeper]| {
            let voters: Vec<_> = keepers.iter().filter(|k| k.votes).collect();
            voters.iter().filter(|k| come.contains(&k.replica)).count() * 2 > voters.len() && voters.len() % 2 == 1
        };
        let own = replica.id();
        let (voters, learners): (Vec<Keeper>, Vec<Keeper>) = present.keepers.iter().partition(|k| k.votes);
        let ready: Vec<Keeper> = learners.iter().copied().filter(|k| come.contains(&k.replica)).collect();
        let mut next = present.keepers.clone();
        let set = |next: &mut Vec<Keeper>, who: &Keeper, votes: bool| {
            next.iter_mut().filter(|k| k.replica == who.replica).for_each(|k| k.votes = votes);
        };
        let (roll, pick) = (self.keeping.dice.below(10), self.keeping.dice.u64() as usize);
        let free: Vec<usize> = (0..self.size())
            .filter(|n| self.keepers[*n].up.is_some() && !self.keepers[*n].rotten)
            .filter(|n| !self.keeping.lives.contains_key(&(cell, *n)))
            .collect();
        match (roll, &ready[..]) {
            (0..=2, [a, b, ..]) if voters.len() < VOTERS_MAX => {
                set(&mut next, a, true);
                set(&mut next, b, true);
            }
            // One votes in another's place, who learns on or goes; it may be the leader, or one that is deaf.
            (3..=6, [a, ..]) => {
                let lost = voters.iter().find(|k| !come.contains(&k.replica));
                let gone = *lost.unwrap_or(&voters[pick % voters.len()]);
                set(&mut next, a, true);
                set(&mut next, &gone, false);
                if pick.is_multiple_of(2) || lost.is_some() {
                    next.retain(|k| k.replica != gone.replica);
                }
            }
            (7, _) if voters.len() > 1 => {
                let others = voters.iter().filter(|k| k.replica != own);
                let gone: Vec<ReplicaId> = others.take(2).map(|k| k.replica).collect();
                next.retain(|k| !gone.contains(&k.replica));
            }
            (8, [.., gone]) => next.retain(|k| k.replica != gone.replica),
            _ if !free.is_empty() => {
                let node = free[pick % free.len()];
                let life = ReplicaId(self.keeping.next);
                self.keeping.next += 1;
                self.keeping.lives.insert((cell, node), life);
                next.push(Keeper { replica: life, node: node_id(node), votes: false });
                self.keeping.purposes.insert(cell, purpose.clone());
                self.seat(node, cell, purpose, None)?;
            }
            _ => return Ok(()),
        }
        if !has_quorum(&present.keepers) || !has_quorum(&next) {
            return Ok(());
        }
        if self.bug == Bug::EndUnasked {
            let gone = present.keepers.iter().filter(|k| !next.iter().any(|n| n.replica == k.replica));
            for Keeper { node, .. } in gone {
                self.tell(super::index_of(*node), cell, Input::End)?;
            }
        }
        self.tell(leader, cell, Input::Keep { epoch: present.epoch, keepers: next })
    }

    /// The keepers of a cell have changed, as a node has it: those who are named no more are let go some time later.
    pub(super) fn kept(&mut self, node: usize, cell: CellId) {
        let Some(seat) = self.keepers[node].cell(cell).filter(|_| self.keeping.changes) else { return };
        let keepers = seat.member().cell().keepers().clone();
        self.keeping.named.extend(keepers.now.keepers.iter().map(|k| k.replica));
        if keepers.before.is_some() {
            self.counts.joint += 1;
            return;
        }
        let over = |life: &ReplicaId| {
            keepers.node_of(*life).is_none() && (life.0 < LATER || self.keeping.named.contains(life))
        };
        let former = self.keeping.lives.iter().filter(|((c, _), life)| *c == cell && over(life));
        let gone: Vec<(usize, ReplicaId)> = former.map(|((_, n), life)| (*n, *life)).collect();
        for (node, life) in gone {
            let later = self.keeping.dice.range(1, 4_000) * MS;
            self.at(later, Event::Keeping(Happening::End { node, cell, life }));
        }
    }

    /// Whoever keeps it now has to say that it is so, of what is on a quorum's disks.
    fn end_life(&mut self, node: usize, cell: CellId, life: ReplicaId) -> Checked {
        if self.keeping.lives.get(&(cell, node)) != Some(&life) || self.keepers[node].up.is_none() {
            return Ok(());
        }
        let Some(newest) = self.newest(cell).map(|c| c.member().cell().keepers().clone()) else { return Ok(()) };
        if newest.node_of(life).is_some() {
            return Ok(());
        }
        let knows = |k: &&Keeper| {
            let kept = self.keepers[super::index_of(k.node)].cell(cell).map(Cell::member);
            kept.is_some_and(|m| m.cell().keepers() == &newest && m.replica().members_are_durable())
        };
        let voters = || newest.now.keepers.iter().filter(|k| k.votes);
        if voters().filter(knows).count() * 2 <= voters().count() {
            self.at(500 * MS, Event::Keeping(Happening::End { node, cell, life }));
            return Ok(());
        }
        if self.keepers[node].cell(cell).is_none() {
            // It never began.
            self.keeping.lives.remove(&(cell, node));
            return Ok(());
        }
        self.tell(node, cell, Input::End)
    }

    /// Nothing is left of the cell at a node.
    pub(super) fn ended(&mut self, node: usize, cell: CellId) {
        self.counts.left += 1;
        self.keeping.lives.remove(&(cell, node));
        self.unwatch(node, Some(cell));
        if let Some(up) = &mut self.keepers[node].up {
            up.seats.remove(&cell);
            for other in 0..self.keepers.len() {
                let gone = agree::heartbeat::Input::Gone { cell };
                self.local.push_back(super::Local::Pair(node, other, gone));
            }
        }
        self.command(node, agree::log::Command::Live { cell, bytes: 0 });
    }
}
