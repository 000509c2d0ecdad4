//! The fault an election fears most: a candidate reaches no more voters than it needs, each of them loses its
//! power as soon as it has voted, and the candidate, elected, reaches nobody any more.
//!
//! Who was not asked has not heard of the term, and may stand for it with the votes of those that were and
//! are back. Only what they wrote before they voted then keeps a second leader from being elected in one term:
//! their stillness after a start is over by that time. Chance alone meets this once in ten thousand elections.

use super::{Event, MS, SECOND, World};
use agree::raft::{Body, Message};

/// One in this many elections is ambushed.
const ONE_IN: u64 = 12;

/// An election being ambushed.
pub(super) struct Ambush {
    candidate: usize,
    term: u64,
    /// Those who are asked.
    voters: Vec<usize>,
}

impl World {
    /// Looks at a message about to be sent.
    pub(super) fn lie_in_wait(&mut self, from: usize, to: usize, m: &Message) {
        if !self.faults || self.size() < 3 {
            return;
        }
        match &m.body {
            Body::AskVote { .. } => {
                let known = self.ambush.as_ref().is_some_and(|a| (a.candidate, a.term) == (from, m.term));
                if known || self.dice.elections.below(ONE_IN) > 0 {
                    return;
                }
                // A quorum without the candidate itself, and the one who is asked first is in it.
                let mut voters = vec![to];
                let others: Vec<usize> = (0..self.size()).filter(|n| *n != from && *n != to).collect();
                voters.extend(others.into_iter().take(self.size() / 2 - 1));
                let rest: Vec<usize> = (0..self.size()).filter(|n| *n != from && !voters.contains(n)).collect();
                self.sever_for(&[from], &rest, true, 8 * SECOND);
                self.counts.ambushes += 1;
                self.ambush = Some(Ambush { candidate: from, term: m.term, voters });
            }
            Body::Vote { vote, .. } if vote.granted => {
                let caught = |a: &&Ambush| (a.candidate, a.term) == (to, m.term) && a.voters.contains(&from);
                if self.ambush.as_ref().is_some_and(|a| caught(&a)) {
                    // The vote is on its way; nothing that the candidate says of it comes back.
                    let delay = self.dice.elections.range(1, 10) * MS / 10;
                    self.at(delay, Event::PowerCut { node: from });
                    self.sever_after_vote(from, to);
                }
            }
            _ => {}
        }
    }

    /// Whether the node has just voted in an ambushed election: it is back soon.
    pub(super) fn was_ambushed(&self, node: usize) -> bool {
        self.ambush.as_ref().is_some_and(|a| a.voters.contains(&node))
    }

    fn sever_after_vote(&mut self, voter: usize, candidate: usize) {
        self.cut.insert((candidate, voter));
    }
}
