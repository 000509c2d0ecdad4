//! What a leader itself knows of the nodes for one pod, before and after they were asked: where its own
//! pods are, and what that means for this one.

use super::hosting::Hosting;
use super::round::Round;
use crate::scheduling::candidate::Candidate;
use base::{NodeId, Uid};
use decide::pod::{items, may_preempt};
use decide::schedule::{Among, Beside, Hosted, Namespaces, NodeFacts, Reason, Topology, Victim};
use objects::Tree;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Of so many pods at most it is tried one by one whether they can stay.
const SPARED_MAX: usize = 16;

/// The ground on which one pod is to be placed.
pub(super) struct Ground<'a> {
    tree: Arc<Tree>,
    new: Arc<Hosted>,
    candidates: &'a [Candidate],
    nodes: BTreeMap<&'a str, &'a NodeFacts>,
    pods: Vec<(&'a str, Uid, &'a Hosted)>,
    beside: BTreeMap<NodeId, Beside>,
    namespaces: &'a Namespaces,
    topology: Topology,
}

impl<'a> Ground<'a> {
    /// The ground for the pod of a round that is not among the others under way.
    pub(super) fn new(
        round: &Round,
        candidates: &'a [Candidate],
        hosting: &'a Hosting,
        others: &'a BTreeMap<u64, Round>,
        namespaces: &'a Namespaces,
    ) -> Ground<'a> {
        let (tree, new) = (round.tree.clone(), round.hosted.clone());
        let beside = round.beside.clone();
        let stated = !items(&tree["spec"]["topologySpreadConstraints"]).is_empty() || !new.affinity.is_empty();
        let family = new.controller.is_some() && candidates.len() > 1;
        let asked = || others.values().any(|r| !r.hosted.affinity.is_empty());
        let told = beside.values().any(|b| *b != Beside::default());
        let mut nodes = BTreeMap::new();
        let mut pods: Vec<(&str, Uid, &Hosted)> = Vec::new();
        if stated || family || told || hosting.is_choosy() || asked() {
            nodes = candidates.iter().map(|c| (c.facts.name.as_str(), &c.facts)).collect();
            pods = hosting.running().collect();
            // Who has won and is not bound yet is as good as there.
            let name = |id: NodeId| candidates.iter().find(|c| c.id == id).map(|c| c.facts.name.as_str());
            pods.extend(others.values().filter_map(|r| Some((name(r.winner()?)?, r.uid, &*r.hosted))));
        }
        let topology = topology(&tree, &nodes, &pods, &beside, candidates, namespaces, &BTreeSet::new());
        Ground { tree, new, candidates, nodes, pods, beside, namespaces, topology }
    }

    /// Why the pod cannot be on a node; see [`Topology::refuses`].
    pub(super) fn refuses(&self, candidate: &Candidate, ask_first: bool) -> Vec<Reason> {
        self.topology.refuses(&candidate.facts, ask_first)
    }

    /// What is added to the bids of these.
    pub(super) fn scores(&self, bidders: &[NodeId]) -> BTreeMap<NodeId, i64> {
        let known: Vec<&Candidate> = self.candidates.iter().filter(|c| bidders.contains(&c.id)).collect();
        let facts: Vec<&NodeFacts> = known.iter().map(|c| &c.facts).collect();
        known.iter().map(|c| c.id).zip(self.topology.scores(&facts)).collect()
    }

    /// Whether the pod could be on a node without these pods of the cell.
    fn is_well_without(&self, candidate: &Candidate, gone: &BTreeSet<Uid>) -> bool {
        let all = topology(&self.tree, &self.nodes, &self.pods, &self.beside, self.candidates, self.namespaces, gone);
        all.refuses(&candidate.facts, false).is_empty()
    }

    /// Which of the cell's less important pods on a node would have to go for the pod to be there: as few as
    /// can be, the most important spared first. `None` if that does not help.
    pub(super) fn without(&self, candidate: &Candidate) -> Option<Arc<[Uid]>> {
        if !may_preempt(&self.tree["spec"]) {
            return None;
        }
        let here =
            |(node, _, h): &&(&str, Uid, &Hosted)| *node == candidate.facts.name && h.priority < self.new.priority;
        let mut lower: Vec<&(&str, Uid, &Hosted)> = self.pods.iter().filter(here).collect();
        let mut gone: BTreeSet<Uid> = lower.iter().map(|p| p.1).collect();
        if gone.is_empty() || !self.is_well_without(candidate, &gone) {
            return None;
        }
        lower.sort_by_key(|(_, uid, h)| (Reverse(h.priority), h.created, *uid));
        for (_, uid, _) in lower.into_iter().take(SPARED_MAX) {
            gone.remove(uid);
            if !self.is_well_without(candidate, &gone) {
                gone.insert(*uid);
            }
        }
        Some(gone.into_iter().collect())
    }

    /// Whether an offer leaves the pod where it may be.
    pub(super) fn is_well_after(&self, node: NodeId, victims: &[Victim]) -> bool {
        let gone = victims.iter().filter_map(|v| v.uid.parse().ok()).collect();
        self.candidates.iter().find(|c| c.id == node).is_some_and(|c| self.is_well_without(c, &gone))
    }
}

fn topology(
    tree: &Tree,
    nodes: &BTreeMap<&str, &NodeFacts>,
    pods: &[(&str, Uid, &Hosted)],
    beside: &BTreeMap<NodeId, Beside>,
    candidates: &[Candidate],
    namespaces: &Namespaces,
    gone: &BTreeSet<Uid>,
) -> Topology {
    let pods: Vec<(&str, &Hosted)> =
        pods.iter().filter(|(_, uid, _)| !gone.contains(uid)).map(|(node, _, h)| (*node, *h)).collect();
    let name = |id: &NodeId| candidates.iter().find(|c| c.id == *id).map(|c| c.facts.name.as_str());
    let beside: BTreeMap<&str, &Beside> = beside.iter().filter_map(|(id, b)| Some((name(id)?, b))).collect();
    Topology::new(tree, &Among { nodes, pods: &pods, beside: &beside, namespaces })
}
