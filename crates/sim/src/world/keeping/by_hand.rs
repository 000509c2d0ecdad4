//! Keepers that come and go by dice. Whoever places them has a standing order for each member: this life, on this node.

use super::super::{Event, HEALED, MS, World, index_of, node_id};
use super::{Happening, LATER};
use crate::checks::Checked;
use crate::ports::Bug;
use agree::cell::Keepers;
use agree::descriptor::Keeper;
use base::{CellId, ReplicaId};
use node::cell::{Cell, Input, Purpose};
use std::collections::BTreeSet;

/// Voters a cell has at most.
const VOTERS_MAX: usize = 5;

impl World {
    pub(super) fn change_by_hand(&mut self) -> Checked {
        let pause = self.keeping.dice.range(100, 2_500);
        if self.now < HEALED {
            self.at(pause * MS, Event::Keeping(Happening::Change));
            return self.change_keepers();
        }
        Ok(())
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
            let kept = self.keepers[index_of(k.node)].cell(cell);
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
                self.tell(index_of(*node), cell, Input::End)?;
            }
        }
        self.tell(leader, cell, Input::Keep { epoch: present.epoch, keepers: next })
    }

    /// The keepers of a cell have changed, as a node has it: those who are named no more are let go some time later.
    pub(super) fn let_go(&mut self, cell: CellId, keepers: &Keepers) {
        self.keeping.named.extend(keepers.now.keepers.iter().map(|k| k.replica));
        if keepers.before.is_some() {
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
    pub(super) fn end_life(&mut self, node: usize, cell: CellId, life: ReplicaId) -> Checked {
        if self.keeping.lives.get(&(cell, node)) != Some(&life) || self.keepers[node].up.is_none() {
            return Ok(());
        }
        let Some(newest) = self.newest(cell).map(|c| c.member().cell().keepers().clone()) else { return Ok(()) };
        if newest.node_of(life).is_some() {
            return Ok(());
        }
        let knows = |k: &&Keeper| {
            let kept = self.keepers[index_of(k.node)].cell(cell).map(Cell::member);
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
}
