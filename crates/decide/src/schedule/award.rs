//! The leader's half: choosing between bids, and saying why there was none.

use super::fit::Reason;
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
    Unfit(Vec<Reason>),
    /// It did not answer in time, or had no room to answer.
    Silent,
}

/// A choice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Award {
    /// Whose bid was taken: to be confirmed before the binding is committed.
    pub winner: NodeId,
    /// Who else bid: to be released at once.
    pub losers: Vec<NodeId>,
}

/// Takes the best bid; of equals the one `tie` favours, so that equal nodes take turns. `None` without
/// any bid.
pub fn award(answers: &BTreeMap<NodeId, Answer>, tie: u64) -> Option<Award> {
    let bids: Vec<(NodeId, u32)> = answers
        .iter()
        .filter_map(|(n, a)| match a {
            Answer::Bid { score } => Some((*n, *score)),
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
/// `0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.`
pub fn unschedulable(answers: &BTreeMap<NodeId, Answer>) -> String {
    let asked = answers.len();
    if asked == 0 {
        return "no nodes available to schedule pods".into();
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut helpless = 0;
    let mut silent = 0;
    for a in answers.values() {
        match a {
            Answer::Unfit(reasons) => {
                for r in reasons {
                    *counts.entry(r.text.clone()).or_default() += 1;
                }
                if reasons.iter().any(|r| !r.preemptible) {
                    helpless += 1;
                }
            }
            Answer::Silent => silent += 1,
            Answer::Bid { .. } => {}
        }
    }
    let mut parts: Vec<String> = counts.into_iter().map(|(text, n)| format!("{n} {text}")).collect();
    if silent > 0 {
        parts.push(format!("{silent} node(s) did not answer"));
    }
    parts.sort();
    let preemption = if helpless == asked {
        format!(" preemption: 0/{asked} nodes are available: {asked} Preemption is not helpful for scheduling.")
    } else {
        String::new()
    };
    format!("0/{asked} nodes are available: {}.{preemption}", parts.join(", "))
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
        let a = award(&answers, 0).unwrap();
        assert_eq!(a, Award { winner: id(2), losers: vec![id(1), id(4)] });
        assert_eq!(award(&BTreeMap::from([(id(1), Answer::Silent)]), 0), None);
    }

    #[test]
    fn equal_bids_take_turns() {
        let answers = BTreeMap::from([(id(1), bid(5)), (id(2), bid(5))]);
        assert_ne!(award(&answers, 0).unwrap().winner, award(&answers, 1).unwrap().winner);
    }

    #[test]
    fn the_reasons_are_counted_as_kube_scheduler_counts_them() {
        let r = |t: &str, preemptible| Reason { text: t.into(), preemptible };
        let answers = BTreeMap::from([
            (id(1), Answer::Unfit(vec![r("Insufficient cpu", true), r("Insufficient memory", true)])),
            (id(2), Answer::Unfit(vec![r("Insufficient cpu", true)])),
            (id(3), Answer::Unfit(vec![r("node(s) were unschedulable", false)])),
        ]);
        assert_eq!(
            unschedulable(&answers),
            "0/3 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable, 2 Insufficient cpu."
        );
        let all = BTreeMap::from([(id(1), Answer::Unfit(vec![r("node(s) were unschedulable", false)]))]);
        assert_eq!(
            unschedulable(&all),
            "0/1 nodes are available: 1 node(s) were unschedulable. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        );
    }
}
