//! The steps of a plan: each changes the model a little, until none has anything left to do.

use super::model::{Model, Seat, Standing};
use super::rank::{Rank, mix, rank};
use super::{Node, Observed, Plan, Policy, Reason, Step};
use base::{NodeId, Time};
use core::cmp::Reverse;
use core::time::Duration;

/// After so long it is looked again whether a snapshot has ended.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(5);
/// Steps of one plan, at most: each seats, unseats or moves the vote of one node.
const STEPS_MAX: usize = 256;

pub(super) fn plan(o: &Observed, policy: &Policy) -> Plan {
    let mut model = Model::new(o, policy);
    let mut thought = Thought::default();
    if o.is_changing {
        thought.say(None, "members or leaders are changing: nothing is begun before that is done");
        return thought.plan;
    }
    if !model.has_quorum() || !model.voters().any(|s| s.node == o.leader) {
        thought.say(None, "fewer than a quorum of the voters answer: members cannot be changed");
        thought.plan.again = deadline(&model);
        return thought.plan;
    }
    // One that is to go hands over first: whoever leads then does the rest.
    if let Some(step) = model.transfer(true, &mut thought.plan.reasons) {
        thought.plan.step = Some(step);
        return thought.plan;
    }
    let before = model.kept();
    for _ in 0..STEPS_MAX {
        let acted = model.swap(&mut thought)
            || model.grow(&mut thought)
            || model.shrink(&mut thought)
            || model.begin_anew(&mut thought)
            || model.unseat(&mut thought)
            || model.seat_learners(&mut thought);
        if !acted {
            break;
        }
    }
    model.explain(&mut thought);
    let keepers = model.kept();
    let mut plan = thought.plan;
    if keepers != before && model.has_quorum() {
        plan.step = Some(Step::Keep { epoch: o.epoch, keepers });
    } else {
        plan.step = model.transfer(false, &mut plan.reasons);
    }
    plan.again = plan.again.into_iter().chain(deadline(&model)).min();
    plan
}

#[derive(Default)]
struct Thought {
    plan: Plan,
}

impl Thought {
    fn say(&mut self, node: Option<NodeId>, text: &'static str) {
        let reason = Reason { node, text };
        if !self.plan.reasons.contains(&reason) {
            self.plan.reasons.push(reason);
        }
    }

    fn wait_for_snapshots(&mut self, now: Time, node: NodeId) {
        self.say(Some(node), "has as many snapshots under way as it may: it waits");
        self.plan.again = Some(now + SNAPSHOT_PAUSE);
    }
}

/// When somebody's standing changes by time alone.
fn deadline(model: &Model<'_>) -> Option<Time> {
    let (o, p) = (model.o, model.policy);
    let of = |n: &&Node| [n.heard + p.learner_after, n.heard + p.vote_after, n.heard_since + p.learner_after];
    let others = model.seats.iter().filter(|s| s.node != o.leader).filter_map(|s| model.nodes.get(&s.node));
    others.flat_map(of).filter(|at| *at > o.now).min()
}

impl Model<'_> {
    /// How many are to vote: as many as wanted if there are so many nodes; 3; or 1. Whoever is a member and has a right to
    /// be counts, however silent it is: failure changes nothing about it.
    fn target(&self) -> usize {
        let stays = |s: &&Seat| match s.standing {
            Standing::Going => false,
            // Who only learns and does not answer takes nothing away by not being counted.
            Standing::Draining | Standing::Lost => s.votes,
            _ => true,
        };
        let possible = self.seats.iter().filter(stays).count() + self.candidates().len();
        let wanted = self.wanted();
        if possible >= wanted {
            wanted
        } else if possible >= 3 {
            3
        } else {
            1
        }
    }

    fn wanted(&self) -> usize {
        match self.o.wanted {
            0 | 1 => 1,
            n => n - (n + 1) % 2,
        }
    }

    fn rank_of(&self, node: &NodeId, beside: impl Fn(&Seat) -> bool) -> Option<Rank> {
        let of = self.nodes.get(node)?;
        Some(rank(self.o.cell, of, self.in_zone(node, beside)))
    }

    /// The learner that is to vote next.
    fn best_ready(&self, gone: Option<NodeId>) -> Option<NodeId> {
        let beside = |s: &Seat| s.votes && Some(s.node) != gone && !s.standing.is_over();
        let ready = self.learners().filter(|s| s.is_ready());
        ready.max_by_key(|s| self.rank_of(&s.node, beside)).map(|s| s.node)
    }

    fn set_votes(&mut self, node: NodeId, votes: bool) {
        self.seats.iter_mut().filter(|s| s.node == node).for_each(|s| s.votes = votes);
    }

    /// The vote of one who is over goes to one who has caught up.
    fn swap(&mut self, t: &mut Thought) -> bool {
        let over = self.voters().filter(|s| s.standing.is_over());
        let Some(gone) = over.max_by_key(|s| (s.standing, s.node)).copied() else { return false };
        let Some(next) = self.best_ready(Some(gone.node)) else { return false };
        t.say(
            Some(gone.node),
            match gone.standing {
                Standing::Lossy => "has lost what it held: its vote goes to one who has caught up",
                Standing::Lost => "is silent for too long: its vote goes to one who has caught up",
                Standing::Draining => "is to keep nothing: its vote goes to one who has caught up",
                _ => "leaves, is expelled or lacks the role: its vote goes to one who has caught up",
            },
        );
        self.seats.retain(|s| s.node != gone.node);
        self.set_votes(next, true);
        true
    }

    /// All that are missing come to vote together.
    fn grow(&mut self, t: &mut Thought) -> bool {
        let missing = self.target().saturating_sub(self.voters().count());
        let ready = self.learners().filter(|s| s.is_ready()).count();
        if missing == 0 || ready < missing {
            return false;
        }
        for _ in 0..missing {
            if let Some(next) = self.best_ready(None) {
                t.say(Some(next), "has caught up and comes to vote");
                self.set_votes(next, true);
            }
        }
        true
    }

    /// Whoever leaves leaves fewer voters behind, if nobody can come in its stead; or fewer are wanted. Of four, three stay:
    /// as many have to agree.
    fn shrink(&mut self, t: &mut Thought) -> bool {
        let (target, have) = (self.target(), self.voters().count());
        let is_even = have > 3 && have.is_multiple_of(2);
        let is_told = is_even || have > self.wanted() || self.voters().any(|s| s.standing == Standing::Going);
        if have <= target || !is_told {
            return false;
        }
        let mut voters: Vec<Seat> = self.voters().copied().collect();
        let beside = |s: &Seat| s.votes && s.standing.is_fine();
        voters.sort_by_key(|s| {
            (s.standing, !s.has_come, s.node != self.o.leader, Reverse(self.rank_of(&s.node, beside)))
        });
        let (stay, go) = voters.split_at(target);
        let able = stay.iter().filter(|s| s.decides() && s.has_come && s.standing < Standing::Going).count();
        // Those who stay decide alone from then on.
        if able <= target / 2 {
            t.say(None, "fewer voters are to be left, once those who stay have caught up");
            return false;
        }
        for s in go {
            t.say(Some(s.node), "votes no more: fewer voters are wanted, or possible");
            if s.standing.is_fine() {
                self.set_votes(s.node, false);
            } else {
                self.seats.retain(|o| o.node != s.node);
            }
        }
        true
    }

    /// Where nobody else can come, one that lost what it held begins anew in its own place. Meanwhile one votes fewer, which
    /// takes nothing away: it answered nobody.
    fn begin_anew(&mut self, t: &mut Thought) -> bool {
        let have = self.voters().count();
        let Some(lossy) = self.voters().find(|s| s.standing == Standing::Lossy).copied() else { return false };
        let others_decide = self.voters().filter(|s| s.node != lossy.node).all(Seat::decides);
        let is_able = self.nodes.get(&lossy.node).map(|n| self.standing(n)).filter(|s| s.is_fine());
        let Some(standing) = is_able.filter(|_| have >= 3 && have % 2 == 1 && others_decide) else { return false };
        if self.learners().any(|s| s.standing.is_fine()) || !self.candidates().is_empty() {
            return false;
        }
        t.say(Some(lossy.node), "has lost what it held, and nobody else can come: it learns anew");
        for s in self.seats.iter_mut().filter(|s| s.node == lossy.node) {
            *s = Seat { replica: None, votes: false, has_come: false, standing, ..*s };
        }
        true
    }

    /// How many nodes are to learn at least, and how many may stay that do; `None`: as many as there are.
    fn learners_wanted(&self) -> Option<(usize, usize)> {
        let target = self.target();
        let (fine, good) = (|s: &&Seat| s.standing.is_fine(), |s: &&Seat| s.standing == Standing::Good);
        if target == 1 && self.wanted() > 1 && self.voters().count() == 1 && self.voters().all(|s| fine(&s)) {
            return None;
        }
        let least = target.saturating_sub(self.voters().filter(fine).count());
        Some((least, target.saturating_sub(self.voters().filter(good).count())))
    }

    /// One that need not learn, or cannot, goes.
    fn unseat(&mut self, t: &mut Thought) -> bool {
        let wanted = self.learners_wanted();
        let fine = self.learners().filter(|s| s.standing.is_fine()).count();
        let is_enough = |least: usize| fine >= least;
        let goes = |s: &&Seat| match s.standing {
            Standing::Going | Standing::Lossy | Standing::Draining => true,
            Standing::Lost | Standing::Silent => wanted.is_some_and(|(least, _)| is_enough(least)),
            Standing::Good | Standing::Back => false,
        };
        let gone = self.learners().find(goes).map(|s| s.node);
        if let Some(gone) = gone {
            t.say(Some(gone), "need not, or cannot, learn any more");
            self.seats.retain(|s| s.node != gone);
            return true;
        }
        let Some((_, most)) = wanted.filter(|(_, most)| fine > *most) else { return false };
        // Those that have come furthest stay.
        let beside = |s: &Seat| s.votes;
        let order = |s: &&Seat| (s.has_come, s.replica.is_some(), self.rank_of(&s.node, beside));
        let mut learners: Vec<&Seat> = self.learners().filter(|s| s.standing.is_fine()).collect();
        learners.sort_by_key(|s| Reverse(order(s)));
        let Some(gone) = learners.get(most).map(|s| s.node) else { return false };
        t.say(Some(gone), "learns in nobody's stead any more, and goes");
        self.seats.retain(|s| s.node != gone);
        true
    }

    /// One that is missing begins to learn.
    fn seat_learners(&mut self, t: &mut Thought) -> bool {
        let fine = self.learners().filter(|s| s.standing.is_fine()).count();
        if self.learners_wanted().is_some_and(|(least, _)| fine >= least) {
            return false;
        }
        let most = self.policy.snapshots_max;
        let begun = self.seats.iter().filter(|s| s.replica.is_none()).count();
        let beside = |s: &Seat| s.standing.is_fine();
        let mut candidates = self.candidates();
        // Where one has just lost what it held, another life is begun if nowhere else.
        let has_lost = |n: &Node| self.o.members.iter().any(|m| m.node == n.id);
        candidates.sort_by_key(|n| (has_lost(n), Reverse(self.rank_of(&n.id, beside))));
        if candidates.is_empty() {
            return false;
        }
        if self.nodes.get(&self.o.leader).is_some_and(|n| n.snapshots + begun >= most) {
            t.wait_for_snapshots(self.o.now, self.o.leader);
            return false;
        }
        let free = candidates.iter().find(|n| n.snapshots < most);
        let Some(next) = free else {
            candidates.iter().take(1).for_each(|n| t.wait_for_snapshots(self.o.now, n.id));
            return false;
        };
        t.say(Some(next.id), "begins to learn");
        let (node, standing) = (next.id, self.standing(next));
        self.seats.push(Seat { replica: None, node, votes: false, has_come: false, standing, is_heard: true });
        true
    }

    /// What is not as it should be, and cannot be helped yet.
    fn explain(&self, t: &mut Thought) {
        let target = self.target();
        if target < self.wanted() {
            t.say(None, "fewer nodes may keep it than voters are wanted");
        }
        for s in self.seats.iter().filter(|s| s.votes || !s.has_come) {
            let text = match s.standing {
                Standing::Silent if s.votes => "is silent; it keeps its vote for now",
                Standing::Lost if s.votes => "is silent for too long, and nobody has caught up in its stead",
                Standing::Lossy if s.votes => "has lost what it held, and nobody has caught up in its stead",
                Standing::Draining | Standing::Going if s.votes => "is to go, and nobody has caught up in its stead",
                Standing::Good | Standing::Back if !s.has_come && s.replica.is_some() && !s.votes => "is catching up",
                _ => continue,
            };
            t.say(Some(s.node), text);
        }
    }

    /// Whether somebody else had better lead: because this node is to go, or because it leads so many.
    fn transfer(&self, is_to_go: bool, reasons: &mut Vec<Reason>) -> Option<Step> {
        let (o, policy) = (self.o, self.policy);
        let leads = |node: &NodeId| self.nodes.get(node).map_or(usize::MAX, |n| n.leads);
        let fit = |s: &&Seat| s.node != o.leader && s.has_come && s.standing == Standing::Good && s.decides();
        let next = self.voters().filter(fit).min_by_key(|s| (leads(&s.node), s.node))?;
        let here = self.nodes.get(&o.leader)?;
        let own = self.seats.iter().find(|s| s.node == o.leader)?;
        let more = here.leads.saturating_sub(leads(&next.node));
        // Of all that a node leads half of what it has too many goes at a time, chosen alike by nobody's word.
        let slot = o.now.0 / u64::try_from(policy.leads_for.as_nanos()).unwrap_or(u64::MAX).max(1);
        let turn = (mix(o.cell, here) ^ slot.wrapping_mul(0x9e37_79b9_7f4a_7c15)) % (here.leads.max(1) as u64);
        let text = if is_to_go != own.standing.is_over() {
            return None;
        } else if is_to_go {
            "is to keep nothing, and leads: another does from now on"
        } else if more >= policy.leads_more.max(2)
            && o.now.since(o.leads_since) >= policy.leads_for
            && turn < (more / 2) as u64
        {
            "leads more cells than another voter: that one does from now on"
        } else {
            return None;
        };
        reasons.push(Reason { node: Some(o.leader), text });
        next.replica.map(|to| Step::Transfer { to })
    }
}
