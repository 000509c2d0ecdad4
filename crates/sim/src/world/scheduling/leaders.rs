//! The scheduling leaders beside the replicas that lead, and what they say to nodes.

use super::asks::{GATEWAY, Then};
use super::{Happening, MS, NAMESPACE, World, host};
use crate::keeper::EPOCH_MS;
use crate::ports::Bug;
use base::{BootId, Chance, RequestId, Uid, Wall};
use node::assignment::Assignment;
use node::cell::Objects;
use node::scheduling::message::{Assigned, ToNode};
use node::scheduling::{Config, Leader, LeaderEffect, LeaderInput};
use objects::Tree;
use objects::request::{Body, Request, Stored};
use serde_json::json;
use std::sync::Arc;

impl World {
    /// The cell of a keeper tells what was committed.
    pub(in crate::world) fn committed(
        &mut self,
        keeper: usize,
        term: u64,
        objects: Objects,
        changes: Arc<[node::cell::Change]>,
    ) {
        let Some(cell) = self.cell_of_pods() else { return };
        let Some(s) = &mut self.pods else { return };
        if s.leaders.get(&keeper).is_none_or(|l| l.0 != term) {
            let config = Config { cell, namespace: NAMESPACE.into(), term, node: format!("keeper{keeper}") };
            let chance = Chance::from_u64(s.dice.u64());
            s.leaders.insert(keeper, (term, Leader::new(config, &chance)));
            let boot = self.keepers[keeper].boot;
            self.scene(5 * MS, Happening::Nodes { keeper, boot });
        }
        self.lead(keeper, LeaderInput::Committed { objects, changes });
    }

    /// A keeper leads no more.
    pub(in crate::world) fn unled(&mut self, keeper: usize) {
        if let Some(s) = &mut self.pods {
            s.leaders.remove(&keeper);
        }
    }

    pub(in crate::world) fn lead(&mut self, keeper: usize, input: LeaderInput) {
        let now = self.keepers[keeper].now(self.now);
        let Some((term, leader)) = self.pods.as_mut().and_then(|s| s.leaders.get_mut(&keeper)) else { return };
        let term = *term;
        let mut fx = Vec::new();
        leader.step(now, input, &mut fx);
        leader.check();
        for effect in fx {
            match effect {
                LeaderEffect::Send { to, message } => self.send_to_node(term, to, message),
                LeaderEffect::Errand { id, errand } => {
                    let Some(s) = &mut self.pods else { return };
                    let wall = Wall(EPOCH_MS + self.now / MS);
                    let uid = Uid::from_chance(s.dice.u128());
                    let request = errand.request(RequestId(s.dice.u128()), wall, uid, s.dice.u64());
                    if self.bug == Bug::AwardBeforeCommit && request.subresource.as_ref() == "binding" {
                        self.award_early(keeper, term, &request);
                    }
                    let boot = self.keepers[keeper].boot;
                    self.ask(keeper, request, GATEWAY, Then::Leader { keeper, boot, term, id });
                }
            }
        }
        self.wake_leader(keeper);
    }

    pub(super) fn wake_leader(&mut self, keeper: usize) {
        let now = self.now;
        let k = &self.keepers[keeper];
        let boot = k.boot;
        let Some(s) = &mut self.pods else { return };
        let Some(at) = s.leaders.get(&keeper).and_then(|(_, l)| l.next_deadline()) else { return };
        let at = k.clock.when(at).max(now + MS / 10);
        if s.woken_at.get(&keeper).is_some_and(|w| *w <= at && *w > now) {
            return;
        }
        s.woken_at.insert(keeper, at);
        self.scene(at - now, Happening::WakeLeader { keeper, boot });
    }

    pub(super) fn send_to_node(&mut self, term: u64, to: base::NodeId, message: ToNode) {
        let Some(s) = &mut self.pods else { return };
        let Some(host) = (0..s.hosts.len()).find(|h| host::id(*h) == to) else { return };
        if let ToNode::Assigned(a) = &message {
            s.told.insert((term, host), a.number);
        }
        for delay in self.ways() {
            self.scene(delay, Happening::ToNode { host, message: message.clone() });
        }
    }

    /// How long each copy of a message takes.
    pub(super) fn ways(&mut self) -> Vec<u64> {
        let faults = self.faults;
        let Some(s) = &mut self.pods else { return Vec::new() };
        let copies = if faults { [1, 1, 1, 1, 1, 1, 1, 1, 0, 2][s.dice.below(10) as usize] } else { 1 };
        let mut way = || {
            let late = faults && s.dice.happens(20_000);
            (if late { s.dice.range(100, 6_000) } else { s.dice.range(1, 30) }) * MS
        };
        (0..copies).map(|_| way()).collect()
    }

    /// The bug: a node is told of a binding that is only asked for.
    pub(super) fn award_early(&mut self, keeper: usize, term: u64, request: &Request) {
        let Body::Object { tree, .. } = &request.body else { return };
        let node = tree["target"]["name"].as_str().unwrap_or_default();
        let pod = request.name.clone().unwrap_or_default();
        let Some(cell) = self.cell_of_pods() else { return };
        let Some(replica) = self.keepers[keeper].cell(cell) else { return };
        let Some(record) = replica.state().get(format!("Pod\0{pod}").as_bytes()) else { return };
        let mut bound: Tree = serde_json::from_slice(&record.value).unwrap_or_default();
        bound["spec"]["nodeName"] = json!(node);
        let stored = Stored::from_tree(request.kind, bound, record.revision);
        let Some(s) = &mut self.pods else { return };
        let Some(host) = (0..s.hosts.len()).find(|h| host::name(*h) == node) else { return };
        let number = s.told.get(&(term, host)).copied().unwrap_or_default() + 1;
        let assignment =
            Assignment { cell, namespace: NAMESPACE.into(), whole: false, pods: vec![(pod, Some(stored))] };
        let message = ToNode::Assigned(Assigned { term, number, boot: Some(BootId(s.hosts[host].boot)), assignment });
        self.scene(MS, Happening::ToNode { host, message });
    }
}
