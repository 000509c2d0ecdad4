//! One member of a cell of three, as a script: the others are what the test says in their name.

#![allow(clippy::unwrap_used, clippy::panic)]

use agree::descriptor::Keeper;
use agree::raft;
use agree::raft::{Body, Message, Vote};
use base::{CellId, Chance, NodeId, Now, ReplicaId, Revision, Time, Uid, Wall};
use node::bundle::Bundle;
use node::cell::{Cell, Config, Effect, Input, Role};
use node::genesis;
use objects::request::Config as Settings;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const ME: ReplicaId = ReplicaId(1);
const OTHER: ReplicaId = ReplicaId(2);
const WALL: Wall = Wall(1_769_846_400_000);

fn node(replica: ReplicaId) -> NodeId {
    NodeId([replica.0 as u8; 32])
}

fn id() -> CellId {
    CellId(Uid::from_chance(7))
}

struct World {
    cell: Cell,
    now: Now,
    /// What the other one was sent and has not answered.
    sent: VecDeque<Message>,
    closed: Vec<Revision>,
    /// What the other one says in its vote.
    bound: Revision,
    /// It answers that it holds a promise.
    holds: bool,
}

impl World {
    fn new(bound: Revision) -> World {
        let mut config = Config::new(id(), Role::Namespace("d".into()), node(ME), Arc::new(Settings::default()));
        config.replica = ME;
        config.raft = raft::Config::new(id(), ME);
        let keeper = |replica| Keeper { replica, node: node(replica), votes: true };
        config.founders = [ME, OTHER, ReplicaId(3)].map(keeper).to_vec();
        let now = Now { mono: Time::from_ms(1), wall: WALL };
        let genesis = genesis::namespace("d", id().0, Revision::from_u64(1 << 40).unwrap(), "PEM", WALL);
        let bundle = Arc::new(Bundle::default());
        let cell = Cell::new(config, None, bundle, Some(genesis), &Chance::from_u64(1), now).unwrap();
        World { cell, now, sent: VecDeque::new(), closed: Vec::new(), bound, holds: false }
    }

    fn step(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut fx = Vec::new();
            self.cell.step(self.now, input, &mut fx);
            self.cell.check();
            for e in fx {
                match e {
                    Effect::Persist { ticket, .. } => inputs.push_back(Input::Durable(ticket)),
                    Effect::Send { message, .. } if message.to == OTHER => self.sent.push_back(message),
                    Effect::Closed { revision } => self.closed.push(revision),
                    _ => {}
                }
            }
        }
    }

    /// The other one answers everything it was sent.
    fn answer(&mut self) {
        while let Some(m) = self.sent.pop_front() {
            let vote = Vote { granted: true, commit: 0, commit_term: 0 };
            let body = match m.body {
                Body::AskPreVote(_) => Body::PreVote(vote),
                Body::AskVote { .. } => Body::Vote { vote, bound: self.bound },
                Body::Append { prev_index, entries, commit, .. } => {
                    Body::Appended { index: prev_index + entries.len() as u64, commit }
                }
                Body::Close { revision, .. } if self.holds => Body::Closed { revision },
                _ => continue,
            };
            let message = Message { from: OTHER, to: ME, body, ..m };
            self.step(Input::Message { from: node(OTHER), message });
        }
    }

    /// Until it leads.
    fn lead(&mut self) {
        for _ in 0..1_000 {
            if self.cell.is_leading() {
                return;
            }
            self.now.mono = self.now.mono + Duration::from_millis(20);
            self.step(Input::Tick);
            self.answer();
        }
        panic!("it never led");
    }
}

/// One of the voters may hold what a quorum does not: it was on its way when the leader before fell. Who is elected
/// with that vote mints above it, but has promised nothing in its own name.
#[test]
fn what_one_voter_held_is_not_promised_before_a_quorum_holds_it() {
    let bound = Revision::end_of(Wall(WALL.0 + 10_000));
    let mut w = World::new(bound);
    w.lead();
    let written = w.cell.state().revision();
    assert!(written > bound, "{written:?}: it mints above what any of its voters is bound by");
    let present = Revision::end_of(w.now.wall);
    w.step(Input::Close { at: present });
    w.answer();
    assert_eq!(w.closed, [], "nobody else holds it");
    w.holds = true;
    w.step(Input::Close { at: present });
    w.answer();
    assert_eq!(w.closed, [present]);
}

/// Who asks whether a cell is led asks for a leader, here or elsewhere.
#[test]
fn a_member_knows_where_the_leader_is() {
    let mut w = World::new(Revision::ZERO);
    assert_eq!(w.cell.leader(), None);
    w.lead();
    assert_eq!(w.cell.leader(), Some(node(ME)));
    let replica = w.cell.member().replica();
    let term = replica.term() + 1;
    let body = Body::Append { prev_index: 0, prev_term: 0, commit: 0, entries: Vec::new() };
    let message = Message { cell: id(), epoch: 1, from: OTHER, to: ME, term, body };
    w.step(Input::Message { from: node(OTHER), message });
    assert!(!w.cell.is_leading());
    assert_eq!(w.cell.leader(), Some(node(OTHER)));
}
