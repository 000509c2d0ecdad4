//! Scripts of the machine that stands beside a leader and has its cell kept: from alone to three, and one that leaves.

#![allow(clippy::unwrap_used)]

use agree::descriptor::{Descriptor, Keeper};
use base::{CellId, Chance, NodeId, ReplicaId, Time, Uid};
use core::time::Duration;
use decide::keepers::{Policy, Wanted};
use node::keeping::{Effect, Input, Keeping, Known, View};
use std::collections::BTreeMap;

const CELL: CellId = CellId(Uid(7));

fn id(n: u8) -> NodeId {
    NodeId([n; 32])
}

struct Script {
    machine: Keeping,
    now: Time,
    view: View,
    nodes: BTreeMap<NodeId, Known>,
    up: Vec<u8>,
}

impl Script {
    fn new(nodes: u8) -> Script {
        let known = |n: u8| {
            let known = Known {
                has_role: true,
                wanted: Wanted::Stays,
                is_lossy: false,
                zone: None,
                began: Time::ZERO,
                near: 0,
                cells: 0,
                leads: 0,
                snapshots: 0,
            };
            (id(n), known)
        };
        let keepers = vec![Keeper { replica: ReplicaId(1), node: id(1), votes: true }];
        let view = View {
            leads: true,
            may_change: true,
            is_durable: true,
            now: Descriptor { cell: CELL, epoch: 1, keepers, signatures: vec![] },
            is_joint: false,
            last: 500,
            matched: BTreeMap::new(),
        };
        let mut s = Script {
            machine: Keeping::new(CELL, id(1), Policy::default(), &Chance::from_u64(1)),
            now: Time::from_ms(1_000_000),
            view,
            nodes: (1..=nodes).map(known).collect(),
            up: (2..=nodes).collect(),
        };
        s.step(Input::Nodes(s.nodes.clone()));
        s
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut fx = Vec::new();
        self.machine.step(self.now, input, &mut fx);
        self.machine.check();
        fx.retain(|e| !matches!(e, Effect::Reasons(_)));
        fx
    }

    /// So long passes; the nodes that are up are heard all the time.
    fn pass(&mut self, s: u64) -> Vec<Effect> {
        for _ in 0..s {
            self.now = self.now + Duration::from_secs(1);
            for n in self.up.clone() {
                self.step(Input::Heard(id(n)));
            }
        }
        self.step(Input::Look(self.view.clone()))
    }

    /// The cell carries out the change.
    fn keep(&mut self, fx: &[Effect]) -> Vec<Keeper> {
        let keep = fx
            .iter()
            .find_map(|e| if let Effect::Keep { epoch, keepers } = e { Some((*epoch, keepers.clone())) } else { None });
        let (epoch, mut keepers) = keep.unwrap_or_else(|| panic!("no change: {fx:?}"));
        assert_eq!(epoch, self.view.now.epoch);
        keepers.sort_unstable();
        self.view.now.epoch += 1;
        self.view.now.keepers.clone_from(&keepers);
        keepers
    }

    fn catch_up(&mut self) {
        self.view.matched = self.view.now.keepers.iter().map(|k| (k.replica, 490)).collect();
    }
}

/// A cell of three voters.
fn three(nodes: u8) -> Script {
    let mut s = Script::new(nodes);
    let fx = s.pass(60);
    s.keep(&fx);
    s.catch_up();
    let fx = s.pass(1);
    s.keep(&fx);
    s
}

#[test]
fn of_one_come_three_once_two_have_learned() {
    let mut s = Script::new(3);
    let fx = s.pass(60);
    let keepers = s.keep(&fx);
    let learners: Vec<&Keeper> = keepers.iter().filter(|k| !k.votes).collect();
    assert_eq!(learners.len(), 2);
    let fx = s.pass(1);
    let seats = |fx: &[Effect]| fx.iter().filter(|e| matches!(e, Effect::Seat { .. })).count();
    assert_eq!((seats(&fx), fx.len()), (2, 2), "both are told, and nothing else is to be done yet");
    assert!(learners.iter().all(|k| fx.contains(&Effect::Seat { node: k.node, cell: CELL, replica: k.replica })));
    assert_eq!(seats(&s.pass(2)), 2, "and told again, until they have something");
    s.catch_up();
    let fx = s.pass(1);
    assert_eq!(seats(&fx), 0);
    let keepers = s.keep(&fx);
    assert!(keepers.iter().all(|k| k.votes) && keepers.len() == 3);
    assert_eq!(s.pass(60), [], "and so it stays");
}

#[test]
fn whoever_is_replaced_ends_when_a_quorum_says_so() {
    let mut s = three(4);
    let gone = *s.view.now.keepers.iter().find(|k| k.node != id(1)).unwrap();
    s.nodes.get_mut(&gone.node).unwrap().wanted = Wanted::Leaving;
    s.step(Input::Nodes(s.nodes.clone()));
    let fx = s.pass(1);
    s.keep(&fx);
    s.catch_up();
    let fx = s.pass(1);
    let keepers = s.keep(&fx);
    assert!(keepers.iter().all(|k| k.node != gone.node) && keepers.len() == 3);
    s.view.is_joint = true;
    assert_eq!(s.pass(1), [], "while both sets vote nobody is let go");
    s.view.is_joint = false;
    let epoch = s.view.now.epoch;
    let [Effect::Confirm { nodes, epoch: asked }] = &s.pass(1)[..] else { panic!() };
    assert_eq!((nodes.len(), *asked), (2, epoch));
    let other = *keepers.iter().find(|k| k.node != id(1)).unwrap();
    s.step(Input::Confirmed { replica: other.replica, epoch: epoch - 1 });
    assert!(matches!(s.pass(1)[..], [Effect::Confirm { .. }]), "not of an older one");
    s.step(Input::Confirmed { replica: gone.replica, epoch });
    assert!(matches!(s.pass(1)[..], [Effect::Confirm { .. }]), "not by one that goes itself");
    s.step(Input::Confirmed { replica: other.replica, epoch });
    let end = Effect::End { node: gone.node, cell: CELL, replica: gone.replica };
    assert_eq!(s.pass(1), vec![end.clone()]);
    assert_eq!(s.pass(2), vec![end], "until it has");
    s.step(Input::Ended(gone.node, gone.replica));
    assert_eq!(s.pass(2), []);
}

#[test]
fn whoever_leads_next_ends_those_it_has_seen_go() {
    let mut s = three(4);
    let gone = *s.view.now.keepers.iter().find(|k| k.node != id(1)).unwrap();
    s.view.leads = false;
    s.pass(1);
    s.view.now.epoch += 1;
    let new = Keeper { replica: ReplicaId(77), node: id(4), votes: true };
    s.view.now.keepers.retain(|k| k.replica != gone.replica);
    s.view.now.keepers.push(new);
    s.catch_up();
    assert_eq!(s.pass(1), [], "that is the part of whoever leads");
    s.view.leads = true;
    assert!(matches!(s.pass(1)[..], [Effect::Confirm { .. }]));
    s.step(Input::Confirmed { replica: new.replica, epoch: s.view.now.epoch });
    let end = Effect::End { node: gone.node, cell: CELL, replica: gone.replica };
    assert_eq!(s.pass(1), [end]);
    s.nodes.remove(&gone.node);
    s.step(Input::Nodes(s.nodes.clone()));
    assert_eq!(s.pass(1), [], "where there is no such node nobody is told");
}

#[test]
fn the_word_of_a_leader_whose_own_disk_has_both_sets_vote_does_not_count() {
    let mut s = three(4);
    let gone = *s.view.now.keepers.iter().find(|k| k.node != id(1)).unwrap();
    let new = Keeper { replica: ReplicaId(77), node: id(4), votes: true };
    s.view.now.epoch += 1;
    s.view.now.keepers.retain(|k| k.replica != gone.replica);
    s.view.now.keepers.push(new);
    s.catch_up();
    s.view.is_joint = true;
    s.pass(1);
    (s.view.is_joint, s.view.is_durable) = (false, false);
    s.step(Input::Confirmed { replica: new.replica, epoch: s.view.now.epoch });
    assert!(matches!(s.pass(1)[..], [Effect::Confirm { .. }]));
    s.view.is_durable = true;
    assert!(matches!(s.pass(1)[..], [Effect::End { .. }]));
}

#[test]
fn a_new_leader_lets_them_speak_first() {
    let mut s = three(4);
    s.up.clear();
    s.pass(25);
    s.view.leads = false;
    assert_eq!(s.pass(600), []);
    assert_eq!(s.machine.next_deadline(), None);
    s.view.leads = true;
    assert_eq!(s.pass(1), [], "silence counts from the election");
    s.up = vec![2, 3];
    assert!(s.pass(20).is_empty());
}

#[test]
fn a_member_of_whose_node_nothing_is_known_stays() {
    let mut s = three(4);
    let stranger = s.view.now.keepers.iter().find(|k| k.node != id(1)).unwrap().node;
    s.nodes.remove(&stranger);
    s.step(Input::Nodes(s.nodes.clone()));
    assert_eq!(s.pass(60), []);
}

#[test]
fn where_one_begins_anew_its_last_life_ends_first() {
    let mut s = three(3);
    let lossy = *s.view.now.keepers.iter().find(|k| k.node != id(1)).unwrap();
    s.step(Input::Lossy(lossy.replica));
    let fx = s.pass(1);
    let keepers = s.keep(&fx);
    let anew = *keepers.iter().find(|k| k.node == lossy.node).unwrap();
    assert!(!anew.votes && anew.replica != lossy.replica);
    let is_seat = |e: &Effect| matches!(e, Effect::Seat { .. });
    assert!(!s.pass(1).iter().any(is_seat));
    let epoch = s.view.now.epoch;
    let others: Vec<ReplicaId> = keepers.iter().filter(|k| k.votes).map(|k| k.replica).collect();
    others.into_iter().for_each(|replica| drop(s.step(Input::Confirmed { replica, epoch })));
    assert_eq!(s.pass(1), [Effect::End { node: lossy.node, cell: CELL, replica: lossy.replica }]);
    s.step(Input::Ended(lossy.node, lossy.replica));
    assert_eq!(s.pass(1), [Effect::Seat { node: anew.node, cell: CELL, replica: anew.replica }]);
}
