//! Between the replicas of cells on this node and those on others: their messages, and the heartbeat that each pair of
//! nodes shares for all cells between them.

use super::away::Away;
use super::seat::{Machine, Seat, Times, World};
use super::timers::Timers;
use super::{Driver, clock, lock};
use agree::heartbeat::{self, Effect, Input, Pair};
use agree::raft;
use base::{BootId, CellId, NodeId, Now, Time};
use identity::Roles;
use node::cell;
use node::wire::cell::{Batch, Message, messages};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// How many inputs an inbox takes from another node: of more the last are lost, as any message may be.
const INBOX: usize = 1024;

impl Machine for Pair {
    type Input = Input;
    type Effect = Effect;
    type Id = NodeId;
    fn step(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        Pair::step(self, now.mono, input, effects);
    }
    fn next_deadline(&self) -> Option<Time> {
        Pair::next_deadline(self)
    }
    fn check(&self) {
        Pair::check(self);
    }
}

/// The heartbeats with all other nodes.
pub(super) struct Beats {
    boot: BootId,
    pairs: Mutex<BTreeMap<NodeId, Arc<Seat<Pair>>>>,
    timers: Arc<Timers<NodeId>>,
}

impl Beats {
    /// Of the process `boot`.
    pub(super) fn new(boot: BootId) -> Beats {
        Beats { boot, pairs: Mutex::default(), timers: Timers::new() }
    }

    /// Starts waking pairs at their deadlines.
    pub(super) fn start(&self, driver: &Arc<Driver>) -> std::io::Result<()> {
        let (timers, driver) = (self.timers.clone(), driver.clone());
        let wake = move |node| {
            if let Some(pair) = driver.beats.known(node) {
                pair.post(Input::Tick);
            }
        };
        std::thread::Builder::new().name("beats".into()).spawn(move || timers.run(|| clock::now().mono, wake))?;
        Ok(())
    }

    pub(super) fn stop(&self) {
        self.timers.stop();
    }

    fn known(&self, node: NodeId) -> Option<Arc<Seat<Pair>>> {
        lock(&self.pairs).get(&node).cloned()
    }

    /// The pair with a node, made when it is first needed.
    fn with(&self, driver: &Arc<Driver>, node: NodeId) -> Arc<Seat<Pair>> {
        let mut pairs = lock(&self.pairs);
        let pair = pairs.entry(node).or_insert_with(|| {
            let pair = Pair::new(heartbeat::Config::default(), self.boot, clock::now().mono);
            Seat::new(node, pair, driver.clone() as Arc<dyn World<Pair>>, INBOX)
        });
        pair.clone()
    }
}

/// What one step of a machine has to say to other nodes: what goes to one of them goes in one frame.
#[derive(Default)]
pub(super) struct Outgoing(BTreeMap<NodeId, Batch>);

impl Outgoing {
    pub(super) fn push(&mut self, away: Option<&Arc<Away>>, to: NodeId, message: &Message) {
        if let (Some(frame), Some(away)) = (self.0.entry(to).or_default().push(message), away) {
            away.cells(to, frame);
        }
    }

    pub(super) fn send(self, away: Option<&Arc<Away>>) {
        let Some(away) = away else { return };
        for (to, mut batch) in self.0 {
            if let Some(frame) = batch.take() {
                away.cells(to, frame);
            }
        }
    }
}

impl Driver {
    /// A cell here wants something of the heartbeat with another node.
    pub(super) fn beat(&self, node: NodeId, input: Input) {
        if let Some(me) = self.me.upgrade() {
            self.beats.with(&me, node).post(input);
        }
    }

    /// Nothing is left of a cell here: no heartbeat speaks for it.
    pub(super) fn beat_no_more(&self, cell: CellId) {
        let pairs: Vec<_> = lock(&self.beats.pairs).values().cloned().collect();
        for pair in pairs {
            pair.post(Input::Gone { cell });
        }
    }

    /// What the replicas on another node, and the pair there, say.
    ///
    /// # Errors
    /// The frame cannot be read: nothing of it was taken.
    pub(super) fn cells_said(
        self: &Arc<Self>,
        from: NodeId,
        roles: Roles,
        frame: &bytes::Bytes,
    ) -> Result<(), agree::DecodeError> {
        for message in messages(frame)? {
            match message {
                Ok(Message::Raft(message)) => {
                    if !roles.contains(self.keepers_role(message.cell)) {
                        tracing::warn!(node = %from, %roles, cell = %message.cell, "a node spoke for a replica without the role for it: it was not listened to");
                    } else if let Some(seat) = self.cell(message.cell) {
                        // A full inbox loses it; it is said again.
                        let _ = seat.offer(cell::Input::Message { from, message });
                    }
                }
                Ok(Message::Heartbeat(message)) => {
                    let _ = self.beats.with(self, from).offer(Input::Message(message));
                }
                Err(why) => tracing::debug!(node = %from, %why, "a message between cells was passed over"),
            }
        }
        Ok(())
    }

    fn heartbeat(&self, cell: CellId, input: raft::Input) {
        if let Some(seat) = self.cell(cell) {
            seat.post(cell::Input::Heartbeat(input));
        }
    }
}

impl Times<NodeId> for Driver {
    fn now(&self) -> Now {
        clock::now()
    }

    fn wake_at(&self, node: NodeId, deadline: Option<Time>) {
        self.beats.timers.set(node, deadline);
    }
}

impl World<Pair> for Driver {
    fn perform(&self, seat: &Arc<Seat<Pair>>, effects: &mut Vec<Effect>) {
        let (node, away) = (seat.id(), self.away());
        let mut out = Outgoing::default();
        for effect in effects.drain(..) {
            match effect {
                Effect::Send(message) => out.push(away.as_ref(), node, &Message::Heartbeat(message)),
                Effect::Answered { cell, from, term, sent } => {
                    self.heartbeat(cell, raft::Input::Answered { from, term, sent });
                }
                Effect::Strayed { cell, from } => self.heartbeat(cell, raft::Input::Strayed { from }),
                Effect::Restarted { cell, from } => self.heartbeat(cell, raft::Input::Restarted { from }),
                Effect::Unfollowed { cell, id, last } => self.heartbeat(cell, raft::Input::Unfollowed { id, last }),
            }
        }
        out.send(away.as_ref());
    }
}
