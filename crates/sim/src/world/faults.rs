//! What goes wrong.

use super::{Event, MS, SECOND, World};
use crate::checks::Checked;
use crate::client::NAMESPACE;
use node::cell::Input;

/// How far calendars are apart at most without faults.
const CALENDARS_MS: u64 = 400;

/// How far a calendar jumps ahead at most.
const JUMP_MS: u64 = 8_000;
/// And those that a wrong time server sets.
const AHEAD_MS: (u64, u64) = (6_000, 14_000);
/// From here on a disk may rot: there is something on it.
const ROT: u64 = 10 * SECOND;

impl World {
    pub(super) fn fault(&mut self) -> Checked {
        if !self.faults {
            return Ok(());
        }
        let pause = self.dice.faults.range(self.pause_ms.0, self.pause_ms.1);
        self.at(pause * MS, Event::Fault);
        let size = self.size() as u64;
        let any = self.dice.faults.below(size) as usize;
        let cell = self.names.get(NAMESPACE).copied().unwrap_or(super::ROOT);
        let leader = self.keepers.iter().position(|k| k.leads(cell));
        match self.dice.faults.below(14) {
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
            7 => self.keepers[any].clock.ahead_ms = self.dice.faults.below(JUMP_MS),
            8 => self.gateway.clock.ahead_ms = self.dice.faults.below(JUMP_MS),
            9 => self.keepers[any].paused_until = self.now + self.dice.faults.range(50, 4_000) * MS,
            10 => {
                let long = self.dice.faults.range(100, 3_000);
                self.at(long * MS, Event::Room { node: any });
                self.keepers[any].disk.full = true;
                return self.tell_all(any, || Input::Space { ample: false });
            }
            11 => self.crash_gateway(),
            12 if size > 1 && self.now > ROT && self.dice.faults.below(6) == 0 => self.rot(any),
            13 => {
                // A leader and a gateway by one wrong time server; and then the leader is gone, so that the next
                // one's calendar is far behind what was promised: by more than an election takes.
                let ahead = self.dice.faults.range(AHEAD_MS.0, AHEAD_MS.1);
                let node = leader.unwrap_or(any);
                self.keepers[node].clock.ahead_ms = ahead;
                self.gateway.clock.ahead_ms = ahead;
                let delay = self.dice.faults.range(200, 2_500);
                self.at(delay * MS, Event::PowerCut { node });
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn crash(&mut self, node: usize) {
        if self.keepers[node].up.take().is_none() {
            return;
        }
        self.counts.crashes += 1;
        self.unled(node);
        self.control_gone(node, None);
        self.keepers[node].disk.cut(&mut self.dice.disk);
        self.unwatch(node, None);
        let brief = self.dice.faults.below(2) == 0 || self.was_ambushed(node);
        let down = if brief { self.dice.faults.range(1, 100) } else { self.dice.faults.range(10, 8_000) };
        self.at(down * MS, Event::Restart { node });
    }

    /// One disk a run forgets something that was synced: its keeper is deaf from then on, and the others must
    /// do without it.
    fn rot(&mut self, node: usize) {
        if self.keepers.iter().any(|k| k.rotten) || self.is_needed(node) {
            return;
        }
        self.crash(node);
        let k = &mut self.keepers[node];
        if k.up.is_none() && k.disk.rot(&mut self.dice.disk) {
            k.rotten = true;
            self.counts.rotten += 1;
        }
    }

    fn sever(&mut self, left: &[usize], right: &[usize], both: bool) {
        let long = self.dice.faults.range(100, 8_000) * MS;
        self.sever_for(left, right, both, long);
    }

    pub(super) fn sever_for(&mut self, left: &[usize], right: &[usize], both: bool, long: u64) {
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

    /// Without faults calendars agree to within what a cell grants one that asks it to close the present.
    pub(super) fn heal(&mut self) {
        self.faults = false;
        self.cut.clear();
        self.keepers.iter_mut().for_each(|k| k.clock.ahead_ms = k.clock.ahead_ms.min(CALENDARS_MS));
        self.gateway.clock.ahead_ms = self.gateway.clock.ahead_ms.min(CALENDARS_MS);
    }
}
