//! The network between keepers: it delays, loses, repeats, and is cut, perhaps one way only.

use super::{Event, MS, World};
use crate::ports::Bug;
use agree::heartbeat;
use agree::raft::{self, Body};
use bytes::Bytes;
use node::bundle::Bundle;
use node::cell::Input;
use node::wire::keep;
use std::sync::Arc;

use super::Local;
use crate::checks::{Checked, Violation};

/// What one keeper sends to another.
#[derive(Clone)]
pub(super) enum Packet {
    Raft(Bytes),
    Beat(Bytes),
    /// Root's configuration, told by the keeper that leads root.
    Bundle(Arc<Bundle>),
    /// About who keeps cells, and how nodes are.
    Keep(Bytes),
}

fn does_not_read_back(what: &str, e: impl std::fmt::Display) -> Violation {
    Violation { checker: "invariant", what: format!("a {what} does not read back: {e}") }
}

impl World {
    pub(super) fn send(&mut self, from: usize, to: usize, packet: Packet) {
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

    pub(super) fn receive(&mut self, from: usize, to: usize, packet: Packet) -> Checked {
        match packet {
            Packet::Raft(bytes) => {
                let m = raft::Message::decode(&bytes).map_err(|e| does_not_read_back("message", e))?;
                if self.bug == Bug::ClosedForgotten
                    && let Body::Close { revision, .. } = m.body
                {
                    let body = Body::Closed { revision };
                    let answer = raft::Message { from: m.to, to: m.from, body, ..m };
                    self.send(to, from, Packet::Raft(answer.encode()));
                    return Ok(());
                }
                self.tell(to, m.cell, Input::Message { from: super::node_id(from), message: m })
            }
            Packet::Beat(bytes) => {
                let m = heartbeat::Message::decode(&bytes).map_err(|e| does_not_read_back("beat", e))?;
                self.pass(Local::Pair(to, from, heartbeat::Input::Message(m)))
            }
            Packet::Bundle(bundle) => self.take_bundle(to, &bundle),
            Packet::Keep(bytes) => {
                let m = keep::Message::decode(&bytes).map_err(|e| does_not_read_back("message about keepers", e))?;
                self.told_of_keepers(from, to, &m)
            }
        }
    }

    /// Whoever leads root tells the others its configuration now and then.
    pub(super) fn spread_bundle(&mut self) {
        self.at(250 * MS, Event::Spread);
        let leads = (0..self.size()).filter(|n| self.keepers[*n].leads(super::ROOT)).collect::<Vec<_>>();
        for from in leads {
            let Some(up) = &self.keepers[from].up else { continue };
            let bundle = up.bundle.clone();
            for to in (0..self.size()).filter(|to| *to != from) {
                self.send(from, to, Packet::Bundle(bundle.clone()));
            }
        }
    }
}
