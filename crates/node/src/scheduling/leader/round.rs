//! One attempt to find a node for one pod: who is asked, what they answer, what follows.

use super::ground::Ground;
use crate::errand::ErrandId;
use crate::scheduling::candidate::Candidate;
use crate::scheduling::message::Ask;
use base::{Chance, NodeId, Time, Uid};
use decide::schedule::{Answer, Award, Beside, Hosted, Tender, Victim, award, better, never};
use objects::Tree;
use objects::request::Stored;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// This many nodes are asked first; without a bid four times as many are asked next.
const SAMPLE: usize = 8;
/// If there are no more than these, all are asked.
pub(super) const ALL_MAX: usize = 16;
/// A pod that looks into other namespaces has so many asked at once, those too who cannot run it.
const BEYOND: usize = 64;
/// At most so many are asked whom they would evict for the sake of what the leader knows.
const WITHOUT_MAX: usize = 16;
/// Who has not answered after this is passed over.
const SILENCE: Duration = Duration::from_secs(1);
/// After the first bid the others have as long as that one took, within these bounds.
const AFTER_FIRST: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// How long the winner may take to confirm.
const CONFIRM: Duration = Duration::from_secs(1);
/// How long the binding may take: longer than a gateway tries.
const BIND: Duration = Duration::from_secs(40);

/// An attempt.
pub(super) struct Round {
    pub(super) tender: Tender,
    pub(super) pod: Arc<str>,
    pub(super) uid: Uid,
    pub(super) stored: Stored,
    pub(super) tree: Arc<Tree>,
    /// As scheduling sees it.
    pub(super) hosted: Arc<Hosted>,
    pub(super) phase: Phase,
    /// What is known of each node so far.
    pub(super) answers: BTreeMap<NodeId, Answer>,
    /// Somebody could, but for what is only reserved there.
    pub(super) contended: bool,
    /// What nodes have told of the pods of other namespaces.
    pub(super) beside: BTreeMap<NodeId, Beside>,
    /// Who may be needed elsewhere than where they say so themselves.
    beyond: bool,
    /// Which pods of the cell would have to go from a node.
    gone: BTreeMap<NodeId, Arc<[Uid]>>,
    /// Of them, those who have not been asked.
    unasked: Vec<NodeId>,
    candidates: Arc<[Candidate]>,
    /// In which order they are asked, and how far that is.
    order: Vec<usize>,
    cursor: usize,
    sample: usize,
    outstanding: BTreeSet<NodeId>,
    /// When those now outstanding were asked.
    sent: Time,
    first_bid: Option<Time>,
}

/// Where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Nodes are asked.
    Asking,
    /// The winner is asked whether its word still holds.
    Confirming { winner: NodeId, until: Time },
    /// The binding is under way.
    Binding { winner: NodeId, errand: ErrandId, until: Time },
}

/// What follows from what is known.
pub(super) enum Next {
    /// Nothing yet.
    Wait,
    /// These are to be asked.
    Ask(Vec<(NodeId, Ask)>),
    /// This is the choice.
    Award(Award),
    /// Nobody can.
    Nobody,
}

/// Who is asked first: those who host the workload already, the others by chance.
pub(super) fn order(chance: &mut Chance, candidates: &[Candidate], first: &BTreeSet<Arc<str>>) -> Vec<usize> {
    let mut order = chance.sample(candidates.len(), candidates.len());
    let hosts = |i: &usize| candidates.get(*i).is_some_and(|c| first.contains(c.facts.name.as_str()));
    order.sort_by_key(|i| !hosts(i));
    order
}

impl Round {
    pub(super) fn new(
        now: Time,
        tender: Tender,
        (pod, stored, tree): (Arc<str>, Stored, Arc<Tree>),
        (candidates, order): (Arc<[Candidate]>, Vec<usize>),
    ) -> Round {
        let hosted = Hosted::of(&tree);
        let beyond = hosted.affinity.looks_beyond(&hosted.namespace);
        let sample = match order.len() {
            all if all <= ALL_MAX => all,
            _ if beyond => BEYOND,
            _ => SAMPLE,
        };
        Round {
            tender,
            pod,
            uid: stored.meta.uid,
            stored,
            tree,
            hosted: Arc::new(hosted),
            phase: Phase::Asking,
            answers: BTreeMap::new(),
            contended: false,
            beside: BTreeMap::new(),
            beyond,
            gone: BTreeMap::new(),
            unasked: Vec::new(),
            candidates,
            order,
            cursor: 0,
            sample,
            outstanding: BTreeSet::new(),
            sent: now,
            first_bid: None,
        }
    }

    /// Whether anything follows now: not while answers are awaited.
    pub(super) fn is_due(&self, now: Time) -> bool {
        if self.outstanding.is_empty() || now >= self.sent + SILENCE {
            return true;
        }
        self.enough_at().is_some_and(|at| now >= at)
    }

    /// When those who have not answered are not waited for any more, once somebody bid.
    fn enough_at(&self) -> Option<Time> {
        let first = self.first_bid.filter(|_| !self.beyond)?;
        Some(first + (first.since(self.sent)).clamp(AFTER_FIRST.0, AFTER_FIRST.1))
    }

    /// What follows now. Those put into `refused` had bid, and cannot have the pod any more.
    pub(super) fn next(&mut self, now: Time, tie: u64, ground: &Ground<'_>, refused: &mut Vec<NodeId>) -> Next {
        if !self.is_due(now) {
            return Next::Wait;
        }
        if now >= self.sent + SILENCE {
            for id in std::mem::take(&mut self.outstanding) {
                self.answers.entry(id).or_insert(Answer::Silent);
            }
        }
        if self.first_bid.take().is_some() {
            // Others have found their place since it was asked.
            for id in self.bidders() {
                let candidate = self.candidates.iter().find(|c| c.id == id);
                let reasons = candidate.map(|c| ground.refuses(c, false)).unwrap_or_default();
                if !reasons.is_empty() {
                    refused.push(id);
                    self.answers.insert(id, Answer::Unfit { reasons, offer: None });
                }
            }
            if let Some(award) = award(&self.answers, &ground.scores(&self.bidders()), tie) {
                return Next::Award(award);
            }
        }
        if !self.outstanding.is_empty() {
            return Next::Wait;
        }
        let mut ask = Vec::new();
        while ask.len() < self.sample {
            let Some(candidate) = self.order.get(self.cursor).and_then(|i| self.candidates.get(*i)) else { break };
            self.cursor += 1;
            let id = candidate.id;
            let mut reasons = never(&candidate.facts, &self.tree);
            if reasons.is_empty() {
                reasons = ground.refuses(candidate, self.beyond);
            }
            if reasons.is_empty() {
                ask.push((id, Ask::Bid));
                continue;
            }
            if reasons.iter().all(|r| r.preemptible)
                && self.unasked.len() < WITHOUT_MAX
                && let Some(gone) = ground.without(candidate)
            {
                self.gone.insert(id, gone);
                self.unasked.push(id);
            }
            self.answers.insert(id, Answer::Unfit { reasons, offer: None });
            if self.beyond {
                ask.push((id, Ask::Look));
            }
        }
        if ask.is_empty() {
            let gone = |id: NodeId| Some((id, Ask::Without(self.gone.get(&id)?.clone())));
            ask = std::mem::take(&mut self.unasked).into_iter().filter_map(gone).collect();
        }
        if ask.is_empty() {
            return Next::Nobody;
        }
        self.sample = self.sample.saturating_mul(4);
        self.sent = now;
        self.outstanding = ask.iter().map(|(id, _)| *id).collect();
        Next::Ask(ask)
    }

    /// Whose offer to evict others is the best, and who has to go there in any case.
    pub(super) fn best_offer(&self, ground: &Ground<'_>) -> Option<(NodeId, Arc<[Uid]>)> {
        let offer = |(id, a): (&NodeId, &'_ Answer)| match a {
            Answer::Unfit { offer: Some(victims), .. } => Some((*id, victims.clone())),
            _ => None,
        };
        let mut offers: Vec<(NodeId, Vec<Victim>)> = self.answers.iter().filter_map(offer).collect();
        offers.sort_by(|a, b| better(&a.1, &b.1));
        let (id, _) = offers.into_iter().find(|(id, victims)| ground.is_well_after(*id, victims))?;
        Some((id, self.gone.get(&id).cloned().unwrap_or_default()))
    }

    /// A node answers. Whether it was expected: a bid that was not is to be released.
    pub(super) fn answer(&mut self, now: Time, from: NodeId, answer: Answer, beside: Option<Beside>) -> bool {
        let waited = self.outstanding.remove(&from);
        let late = matches!(self.answers.get(&from), Some(Answer::Silent));
        if self.phase != Phase::Asking || !(waited || late) {
            return false;
        }
        if matches!(answer, Answer::Bid { .. }) && self.first_bid.is_none() {
            self.first_bid = Some(now);
        }
        if let Some(beside) = beside {
            self.beside.insert(from, beside);
        }
        match (self.answers.get_mut(&from), answer) {
            // Why it cannot was known; it was asked for something else.
            (Some(Answer::Unfit { offer: old, .. }), Answer::Unfit { offer, .. }) => *old = offer,
            (Some(Answer::Unfit { .. }), _) => {}
            (_, answer) => {
                self.answers.insert(from, answer);
            }
        }
        true
    }

    pub(super) fn confirming(&mut self, now: Time, winner: NodeId) {
        self.phase = Phase::Confirming { winner, until: now + CONFIRM };
    }

    pub(super) fn binding(&mut self, now: Time, winner: NodeId, errand: ErrandId) {
        self.phase = Phase::Binding { winner, errand, until: now + BIND };
    }

    /// Who holds a reservation for it, as far as is known.
    pub(super) fn bidders(&self) -> Vec<NodeId> {
        match self.phase {
            Phase::Asking => {
                self.answers.iter().filter(|(_, a)| matches!(a, Answer::Bid { .. })).map(|(id, _)| *id).collect()
            }
            Phase::Confirming { winner, .. } | Phase::Binding { winner, .. } => vec![winner],
        }
    }

    /// Who is to run it, once that is chosen.
    pub(super) fn winner(&self) -> Option<NodeId> {
        match self.phase {
            Phase::Asking => None,
            Phase::Confirming { winner, .. } | Phase::Binding { winner, .. } => Some(winner),
        }
    }

    pub(super) fn deadline(&self) -> Time {
        match self.phase {
            Phase::Asking => {
                let silence = self.sent + SILENCE;
                self.enough_at().map_or(silence, |at| silence.min(at))
            }
            Phase::Confirming { until, .. } | Phase::Binding { until, .. } => until,
        }
    }
}
