//! Who keeps the cells: in some runs those who keep them come and go.
//!
//! In most of these the machines that ship decide it: [`planned`]. In the others dice do, as nobody in his right mind
//! would: [`by_hand`]. Those reach states that a plan never asks for, like a leader that takes its own vote.
//!
//! Either way there is for each node and cell the life that the node has, or is to found: a node that is up and has
//! nothing of it begins it. Whoever joins tells nobody that it has a life before: until it was told of a cell it has
//! nothing to lose.

mod by_hand;
mod planned;

use super::{Event, SECOND, World, node_id, replica};
use crate::checks::{Checked, Violation, ensure};
use crate::keeper::EPOCH_MS;
use crate::ports::Bug;
use agree::cell as agreed;
use agree::descriptor::Keeper;
use base::{CellId, Chance, ReplicaId, Wall};
use node::cell::{Cell, Purpose, Role};
use node::genesis;
use planned::Wishes;
use std::collections::{BTreeMap, BTreeSet};

/// From here on keepers come and go: there are namespaces.
const BEGIN: u64 = 6 * SECOND;
/// The least life that is not a founder's.
const LATER: u64 = 1_000;

/// What happens to keepers.
pub(super) enum Happening {
    /// Somebody else is to keep a cell, by dice.
    Change,
    /// A life that is named no more is given up, by dice, once those who keep the cell agree.
    End { node: usize, cell: CellId, life: ReplicaId },
    /// A node says how it is, and looks after its lives.
    Beacon { node: usize, boot: u64 },
    /// The mesh wants something else.
    Wish,
}

/// Who decides who keeps a cell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// Nobody: those who found it.
    Nobody,
    /// Dice.
    Hand,
    /// The machine beside each leader.
    Plan,
}

/// Who has, or is to have, which life of which cell.
pub(super) struct Keeping {
    dice: Chance,
    by: By,
    /// How many nodes, the first ones, found cells.
    founders: usize,
    founded: BTreeSet<CellId>,
    lives: BTreeMap<(CellId, usize), ReplicaId>,
    purposes: BTreeMap<CellId, Purpose>,
    /// Lives that were named once. Of another nobody can say that it will not be: the change that names it may lie in a
    /// log, not committed yet.
    named: BTreeSet<ReplicaId>,
    next: u64,
    wishes: Wishes,
}

impl Keeping {
    /// Whether machines decide, in which of the runs with changes: in two of three. `None`: without changes.
    pub(super) fn is_planned(turn: Option<u64>) -> bool {
        turn.is_some_and(|n| n % 3 > 0)
    }

    /// `turn`: see [`Keeping::is_planned`].
    pub(super) fn new(chance: &Chance, size: usize, turn: Option<u64>) -> Keeping {
        let mut dice = chance.stream("keeping");
        let by = match turn.filter(|_| size > 1) {
            None => By::Nobody,
            Some(_) if Keeping::is_planned(turn) => By::Plan,
            Some(_) => By::Hand,
        };
        let fewer = if size > 4 { [1, 3, 5] } else { [1, 1, 3] };
        let founders = if by == By::Nobody { size } else { dice.pick(&fewer).copied().unwrap_or(1) };
        Keeping {
            wishes: Wishes::new(&mut dice, size),
            dice,
            by,
            founders,
            founded: BTreeSet::new(),
            lives: BTreeMap::new(),
            purposes: BTreeMap::new(),
            named: BTreeSet::new(),
            next: LATER,
        }
    }

    fn changes(&self) -> bool {
        self.by != By::Nobody
    }
}

impl World {
    pub(super) fn begin_keeping(&mut self) {
        match self.keeping.by {
            By::Nobody => {}
            By::Hand => self.at(BEGIN, Event::Keeping(Happening::Change)),
            By::Plan => self.at(BEGIN, Event::Keeping(Happening::Wish)),
        }
    }

    pub(super) fn happen_to_keepers(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Change => self.change_by_hand(),
            Happening::End { node, cell, life } => self.end_life(node, cell, life),
            Happening::Beacon { node, boot } => self.look_after(node, boot),
            Happening::Wish => {
                self.wish();
                Ok(())
            }
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
        self.keeping.changes()
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

    /// The keepers of a cell have changed, as a node has it.
    pub(super) fn kept(&mut self, node: usize, cell: CellId) {
        let Some(seat) = self.keepers[node].cell(cell).filter(|_| self.keeping.changes()) else { return };
        let keepers = seat.member().cell().keepers().clone();
        self.counts.joint += u64::from(keepers.before.is_some());
        match self.keeping.by {
            By::Hand => self.let_go(cell, &keepers),
            _ => self.look_at_keepers(node, cell),
        }
    }

    /// Nothing is left of the cell at a node.
    pub(super) fn ended(&mut self, node: usize, cell: CellId) {
        self.counts.left += 1;
        self.keeping.lives.remove(&(cell, node));
        self.say_ended(node, cell);
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
