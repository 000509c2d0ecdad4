//! One attempt to find a node for one pod: who is asked, what they answer, what follows.

use crate::errand::ErrandId;
use crate::scheduling::candidate::Candidate;
use base::{Chance, NodeId, Time, Uid};
use decide::schedule::{Answer, Award, Reason, Tender, award, never};
use objects::Tree;
use objects::request::Stored;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// This many nodes are asked first; without a bid four times as many are asked next.
const SAMPLE: usize = 8;
/// If there are no more than these, all are asked.
pub(super) const ALL_MAX: usize = 16;
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
    pub(super) phase: Phase,
    /// What is known of each node so far.
    pub(super) answers: BTreeMap<NodeId, Answer>,
    /// Somebody could, but for what is only reserved there.
    pub(super) contended: bool,
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
    Ask(Vec<NodeId>),
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
        let sample = if order.len() <= ALL_MAX { order.len() } else { SAMPLE };
        Round {
            tender,
            pod,
            uid: stored.meta.uid,
            stored,
            tree,
            phase: Phase::Asking,
            answers: BTreeMap::new(),
            contended: false,
            candidates,
            order,
            cursor: 0,
            sample,
            outstanding: BTreeSet::new(),
            sent: now,
            first_bid: None,
        }
    }

    /// What follows now. `ruled_out` says what the leader itself holds against a node.
    pub(super) fn next(&mut self, now: Time, tie: u64, ruled_out: impl Fn(&Candidate) -> Vec<Reason>) -> Next {
        if now >= self.sent + SILENCE {
            for id in std::mem::take(&mut self.outstanding) {
                self.answers.insert(id, Answer::Silent);
            }
        }
        if let Some(first) = self.first_bid {
            let enough = first + (first.since(self.sent)).clamp(AFTER_FIRST.0, AFTER_FIRST.1);
            if self.outstanding.is_empty() || now >= enough {
                return award(&self.answers, tie).map_or(Next::Wait, Next::Award);
            }
            return Next::Wait;
        }
        if !self.outstanding.is_empty() {
            return Next::Wait;
        }
        let mut ask = Vec::new();
        while ask.len() < self.sample {
            let Some(candidate) = self.order.get(self.cursor).and_then(|i| self.candidates.get(*i)) else { break };
            self.cursor += 1;
            let mut reasons = never(&candidate.facts, &self.tree);
            if reasons.is_empty() {
                reasons = ruled_out(candidate);
            }
            if reasons.is_empty() {
                ask.push(candidate.id);
            } else {
                self.answers.insert(candidate.id, Answer::Unfit(reasons));
            }
        }
        if ask.is_empty() {
            return Next::Nobody;
        }
        self.sample *= 4;
        self.sent = now;
        self.outstanding = ask.iter().copied().collect();
        Next::Ask(ask)
    }

    /// A node answers. Whether it was expected: a bid that was not is to be released.
    pub(super) fn answer(&mut self, now: Time, from: NodeId, answer: Answer) -> bool {
        let waited = self.outstanding.remove(&from);
        let late = matches!(self.answers.get(&from), Some(Answer::Silent));
        if self.phase != Phase::Asking || !(waited || late) {
            return false;
        }
        if matches!(answer, Answer::Bid { .. }) && self.first_bid.is_none() {
            self.first_bid = Some(now);
        }
        self.answers.insert(from, answer);
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
                match self.first_bid {
                    Some(first) => silence.min(first + (first.since(self.sent)).clamp(AFTER_FIRST.0, AFTER_FIRST.1)),
                    None => silence,
                }
            }
            Phase::Confirming { until, .. } | Phase::Binding { until, .. } => until,
        }
    }
}
