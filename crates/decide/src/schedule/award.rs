//! The leader's half: choosing between bids, and saying why there was none.

use super::fit::Reason;
use super::preempt::Victim;
use base::NodeId;
use std::collections::BTreeMap;

/// What a node answered to a tender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It reserved room.
    Bid {
        /// How well it suits: 0 to 1,000.
        score: u32,
    },
    /// It cannot run the pod.
    Unfit {
        /// Why.
        reasons: Vec<Reason>,
        /// It could, if it evicted these.
        offer: Option<Vec<Victim>>,
    },
    /// It did not answer in time, or had no room to answer.
    Silent,
}

/// What is said of preemption where nobody bid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preemption {
    /// Room is being made.
    Begun,
    /// The pod's policy is `Never`.
    Never,
    /// Nobody made an offer that could be taken.
    Tried,
}

/// A choice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Award {
    /// Whose bid was taken: to be confirmed before the binding is committed.
    pub winner: NodeId,
    /// Who else bid: to be released at once.
    pub losers: Vec<NodeId>,
}

/// How often a bid counts beside each score of [`super::Topology::scores`]: the sum of the weights that
/// kube-scheduler gives to what the bidder's score is made of.
const BID_WEIGHT: i64 = 8;

/// Takes the best bid, what the leader adds to it counted; of equals the one `tie` favours, so that equal
/// nodes take turns. `None` without any bid.
pub fn award(answers: &BTreeMap<NodeId, Answer>, added: &BTreeMap<NodeId, i64>, tie: u64) -> Option<Award> {
    let bids: Vec<(NodeId, i64)> = answers
        .iter()
        .filter_map(|(n, a)| match a {
            Answer::Bid { score } => Some((*n, BID_WEIGHT * i64::from(*score) + added.get(n).copied().unwrap_or(0))),
            _ => None,
        })
        .collect();
    let best = bids.iter().map(|b| b.1).max()?;
    let top: Vec<NodeId> = bids.iter().filter(|b| b.1 == best).map(|b| b.0).collect();
    let winner = *top.get((tie % top.len() as u64) as usize)?;
    let losers = bids.iter().map(|b| b.0).filter(|n| *n != winner).collect();
    Some(Award { winner, losers })
}

/// The message of condition PodScheduled and Event FailedScheduling, as kube-scheduler words it:
/// `0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu. preemption: 0/3 nodes are
/// available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod.`
pub fn unschedulable(answers: &BTreeMap<NodeId, Answer>, preemption: Preemption) -> String {
    let asked = answers.len();
    if asked == 0 {
        return "no nodes available to schedule pods".into();
    }
    let mut why = Counts::default();
    let mut tried = Counts::default();
    for a in answers.values() {
        match a {
            Answer::Unfit { reasons, .. } => {
                for r in reasons {
                    why.count(&r.text);
                }
                tried.count(match reasons.iter().all(|r| r.preemptible) {
                    true => "No preemption victims found for incoming pod",
                    false => "Preemption is not helpful for scheduling",
                });
            }
            Answer::Silent => {
                why.count("node(s) did not answer");
                tried.count("node(s) did not answer");
            }
            Answer::Bid { .. } => {}
        }
    }
    let none = format!("0/{asked} nodes are available");
    let preemption = match preemption {
        Preemption::Begun => String::new(),
        Preemption::Never => " preemption: not eligible due to preemptionPolicy=Never.".to_owned(),
        Preemption::Tried => format!(" preemption: {none}: {}.", tried.text()),
    };
    format!("{none}: {}.{preemption}", why.text())
}

/// How often each thing is said.
#[derive(Default)]
struct Counts(BTreeMap<String, usize>);

impl Counts {
    fn count(&mut self, what: &str) {
        *self.0.entry(what.to_owned()).or_default() += 1;
    }

    fn text(self) -> String {
        let mut parts: Vec<String> = self.0.into_iter().map(|(text, n)| format!("{n} {text}")).collect();
        parts.sort();
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn bid(score: u32) -> Answer {
        Answer::Bid { score }
    }

    #[test]
    fn the_best_bid_wins_and_all_others_are_released() {
        let answers = BTreeMap::from([(id(1), bid(10)), (id(2), bid(30)), (id(3), Answer::Silent), (id(4), bid(20))]);
        let a = award(&answers, &BTreeMap::new(), 0).unwrap();
        assert_eq!(a, Award { winner: id(2), losers: vec![id(1), id(4)] });
        assert_eq!(award(&BTreeMap::from([(id(1), Answer::Silent)]), &BTreeMap::new(), 0), None);
    }

    #[test]
    fn equal_bids_take_turns() {
        let answers = BTreeMap::from([(id(1), bid(5)), (id(2), bid(5))]);
        let none = BTreeMap::new();
        assert_ne!(award(&answers, &none, 0).unwrap().winner, award(&answers, &none, 1).unwrap().winner);
    }

    #[test]
    fn what_the_leader_adds_counts_beside_the_bid() {
        let answers = BTreeMap::from([(id(1), bid(500)), (id(2), bid(600))]);
        for (added, winner) in [(700, 2), (900, 1)] {
            assert_eq!(award(&answers, &BTreeMap::from([(id(1), added)]), 0).unwrap().winner, id(winner));
        }
    }

    #[test]
    fn the_reasons_are_counted_as_kube_scheduler_counts_them() {
        let unfit = |reasons: &[(&str, bool)]| Answer::Unfit {
            reasons: reasons.iter().map(|(t, p)| Reason { text: (*t).into(), preemptible: *p }).collect(),
            offer: None,
        };
        let (cpu, memory) = (("Insufficient cpu", true), ("Insufficient memory", true));
        let cordon = ("node(s) were unschedulable", false);
        let three = vec![unfit(&[cpu, memory]), unfit(&[cpu]), unfit(&[cordon])];
        let why = "0/3 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable, 2 Insufficient cpu.";
        for (answers, preemption, want) in [
            (three.clone(), Preemption::Begun, why.to_owned()),
            (three.clone(), Preemption::Never, format!("{why} preemption: not eligible due to preemptionPolicy=Never.")),
            (three, Preemption::Tried, format!("{why} preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod.")),
            (vec![unfit(&[cordon])], Preemption::Tried, "0/1 nodes are available: 1 node(s) were unschedulable. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.".into()),
            (vec![Answer::Silent], Preemption::Tried, "0/1 nodes are available: 1 node(s) did not answer. preemption: 0/1 nodes are available: 1 node(s) did not answer.".into()),
            (vec![], Preemption::Tried, "no nodes available to schedule pods".into()),
        ] {
            let answers = answers.into_iter().enumerate().map(|(n, a)| (id(n as u8), a)).collect();
            assert_eq!(unschedulable(&answers, preemption), want);
        }
    }
}
