//! The leader's half of scheduling, beside the leading replica of a namespace's cell.
//!
//! A pod's way: it waits its turn ([`waiting`]); nodes are asked and one is chosen ([`round`]); the chosen one
//! confirms; an errand binds the pod, and the commit of that is the award, whoever asked for it. Only what
//! is committed is told to nodes ([`hosting`]). If nobody can run a pod, its status and an Event say why; and
//! where a node offers to evict others for one that matters more, the best offer is taken, and the pod is
//! tendered for again when there is room.
//!
//! What a pod wants of its neighbours is decided here ([`ground`]): by the pods of the cell, and by what nodes
//! tell of others.

mod ground;
mod hosting;
mod round;
mod telling;
mod waiting;

use super::candidate::Candidate;
use super::errands::{Errands, Said};
use super::message::{Stands, ToLeader, ToNode};
use crate::cell::{Change, Objects};
use crate::errand::{Answered, Errand, ErrandId};
use base::{CellId, Chance, NodeId, Now, Time, Uid};
use decide::pod::{items, may_preempt};
use decide::schedule::{Answer, Beside, Namespaces, Preemption, Tender, unschedulable};
use ground::Ground;
use hosting::{Changed, Hosting};
use objects::request::Stored;
use round::{Next, Phase, Round};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use telling::TELLING_MAX;
use waiting::{Pods, Waiting};

const POD: &str = "Pod";
/// At most so many pods are under way at a time.
const ROUNDS_MAX: usize = 64;
/// At most so many of them begin in one step.
const BEGIN_MAX: usize = 8;
/// So many tenders that have ended are remembered, so that bids which come late are released.
const ENDED_MAX: usize = 256;
/// What is refused only for what others have reserved is tried again after this, twice as long each time,
/// and so often before it is called a failure.
const CONTENDED: (Duration, u32) = (Duration::from_millis(20), 8);
/// A winner that has let its reservation go is not the pod's fault.
const LAPSED: Duration = Duration::from_millis(100);

/// What a leader is told.
#[derive(Clone)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// [`crate::cell::Effect::Committed`] of the cell it runs beside; the first is the one without changes.
    Committed {
        /// All objects.
        objects: Objects,
        /// What changed.
        changes: Arc<[Change]>,
    },
    /// All nodes that may be asked, told again whenever one has changed. Nothing is scheduled before it was
    /// told once.
    Nodes(Arc<[Candidate]>),
    /// The labels of all namespaces, told again whenever one has changed.
    Namespaces(Namespaces),
    /// From a node. Who it is, is known from the connection.
    Message {
        /// The node.
        from: NodeId,
        /// What it says.
        message: ToLeader,
    },
    /// What became of an errand.
    Answered {
        /// Which.
        id: ErrandId,
        /// What.
        answer: Answered,
    },
}

/// What a leader wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send to a node. May be lost.
    Send {
        /// The node.
        to: NodeId,
        /// What.
        message: ToNode,
    },
    /// A request of the cell. Answered by [`Input::Answered`].
    Errand {
        /// Names it.
        id: ErrandId,
        /// The request.
        errand: Box<Errand>,
    },
}

/// Which leadership it is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cell.
    pub cell: CellId,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// The term of this leadership: greater than that of every leader the cell had before.
    pub term: u64,
    /// The name of the node it runs on, for Events.
    pub node: String,
}

/// What an errand is for.
enum Purpose {
    Bind { tender: u64 },
    NewEvent { pod: Arc<str>, event: String },
    AgainEvent { pod: Arc<str>, event: String },
    Condition,
}

/// The machine. Made when the cell begins to lead here, dropped when it no longer does.
pub struct Leader {
    config: Config,
    chance: Chance,
    errands: Errands,
    begun: bool,
    candidates: Option<Arc<[Candidate]>>,
    namespaces: Namespaces,
    hosting: Hosting,
    pods: Pods,
    /// By the numbers of their tenders.
    rounds: BTreeMap<u64, Round>,
    tenders: u64,
    /// The tenders that ended last: the pod's uid, and who was chosen if it was bound.
    ended: VecDeque<(u64, Uid, Option<NodeId>)>,
    asked: BTreeMap<ErrandId, Purpose>,
    next_errand: u64,
    /// How many of those asked only tell somebody something.
    telling: usize,
    stand_at: Option<Time>,
}

impl Leader {
    /// A leader of this term.
    pub fn new(config: Config, chance: &Chance) -> Leader {
        let errands = Errands::new(config.namespace.clone(), &config.node);
        let hosting = Hosting::new(config.cell, config.namespace.clone(), config.term);
        Leader {
            chance: chance.stream("scheduling"),
            errands,
            begun: false,
            candidates: None,
            namespaces: Namespaces::default(),
            hosting,
            pods: Pods::default(),
            rounds: BTreeMap::new(),
            tenders: 0,
            ended: VecDeque::new(),
            asked: BTreeMap::new(),
            next_errand: 1,
            telling: 0,
            stand_at: None,
            config,
        }
    }

    /// One bounded step.
    pub fn step(&mut self, now: Now, input: Input, fx: &mut Vec<Effect>) {
        match input {
            Input::Tick => {}
            Input::Committed { objects, changes } => self.on_committed(now, &objects, &changes, fx),
            Input::Nodes(candidates) => self.on_nodes(now, candidates, fx),
            Input::Namespaces(namespaces) => {
                if self.namespaces != namespaces {
                    self.namespaces = namespaces;
                    self.pods.soon_if(now.mono, |w| !w.tree["spec"]["affinity"].is_null());
                }
            }
            Input::Message { from, message } => self.on_message(now, from, message, fx),
            Input::Answered { id, answer } => self.on_answered(now, id, answer, fx),
        }
        self.on_time(now, fx);
        self.begin_rounds(now, fx);
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        // Whose turn has come and who finds room begins at once, in steps of a bounded size.
        let more = (self.candidates.is_some() && self.pods.is_queued() && self.rounds.len() < ROUNDS_MAX)
            .then_some(Time::ZERO);
        let pauses = self.pods.next_deadline().filter(|_| self.candidates.is_some());
        let rounds = self.rounds.values().map(Round::deadline).min();
        [more, pauses, rounds, self.stand_at].into_iter().flatten().min()
    }

    /// Asserts what must hold between steps.
    pub fn check(&self) {
        self.pods.check();
        assert!(self.rounds.len() <= ROUNDS_MAX, "more pods are under way than the bound says");
        assert!(
            self.rounds.values().all(|r| self.pods.get(&r.pod).is_some_and(|w| w.uid == r.uid)),
            "a round for nobody"
        );
        assert!(self.telling <= TELLING_MAX, "more is being told than the bound says");
    }

    /// How many pods wait for a node.
    pub fn waiting(&self) -> usize {
        self.pods.iter().count()
    }

    // What the cell has committed.

    fn on_committed(&mut self, now: Now, objects: &Objects, changes: &[Change], fx: &mut Vec<Effect>) {
        let mut changed = Changed::new();
        if !self.begun {
            self.begun = true;
            for (name, pod) in objects.list(POD) {
                self.look(now, &name, &pod, &mut changed, fx);
            }
            for node in changed.into_keys() {
                self.hosting.tell_whole(&node, fx);
            }
            return;
        }
        for change in changes.iter().filter(|c| &*c.key.storage == POD) {
            self.on_change(now, change, &mut changed, fx);
        }
        self.hosting.tell(changed, fx);
    }

    fn on_change(&mut self, now: Now, change: &Change, changed: &mut Changed, fx: &mut Vec<Effect>) {
        let name = &change.key.name;
        let before = change.before.as_ref().filter(|b| !b.meta.field("spec.nodeName").is_empty());
        match &change.after {
            Some(after) => {
                // Made again under the name of one that was bound, in one entry.
                if let Some(before) = before.filter(|b| b.meta.uid != after.meta.uid) {
                    self.hosting.put(before.meta.field("spec.nodeName"), name, None, changed);
                }
                self.look(now, name, after, changed, fx);
            }
            None => {
                if let Some(before) = before {
                    self.hosting.put(before.meta.field("spec.nodeName"), name, None, changed);
                }
                self.forget(name, None, fx);
            }
        }
        let took_room = before.is_some_and(|b| !is_finished(b));
        let takes_room = change.after.as_ref().is_some_and(|a| is_bound(a) && !is_finished(a));
        if took_room && !takes_room {
            self.pods.soon_if(now.mono, |_| true);
        }
    }

    /// A pod is this now.
    fn look(&mut self, now: Now, name: &Arc<str>, pod: &Stored, changed: &mut Changed, fx: &mut Vec<Effect>) {
        if is_bound(pod) {
            let node = pod.meta.field("spec.nodeName");
            self.hosting.put(node, name, Some(pod), changed);
            self.forget(name, Some((now, node, pod)), fx);
            return;
        }
        let other = pod.meta.deletion.is_some()
            || is_finished(pod)
            || !matches!(pod.meta.field("spec.schedulerName"), "" | "default-scheduler");
        if other {
            return self.forget(name, None, fx);
        }
        let tree = pod.tree();
        if !items(&tree["spec"]["schedulingGates"]).is_empty() {
            return self.forget(name, None, fx);
        }
        if self.pods.get(name).is_some_and(|w| w.uid != pod.meta.uid) {
            self.forget(name, None, fx);
        }
        self.pods.put(now.mono, name, pod.clone(), tree);
    }

    /// A pod is no longer to be scheduled: it is bound, or need not be.
    fn forget(&mut self, name: &str, bound: Option<(Now, &str, &Stored)>, fx: &mut Vec<Effect>) {
        let Some(waiting) = self.pods.remove(name) else { return };
        // Whoever it is bound to keeps its reservation until it has read that.
        let host = bound.and_then(|(_, node, _)| self.id_of(node));
        if let Some((to, tender)) = waiting.nominated.filter(|n| Some(n.0) != host) {
            fx.push(Effect::Send { to, message: ToNode::Withdraw { tender, uid: waiting.uid } });
        }
        let Some(number) = self.round_of(name) else { return };
        let Some(round) = self.end(number, host) else { return };
        for bidder in round.bidders().into_iter().filter(|b| Some(*b) != host) {
            release(bidder, &round, fx);
        }
        if let (Phase::Binding { winner, .. }, Some((now, node, pod))) = (round.phase, bound)
            && Some(winner) == host
        {
            let note = format!("Successfully assigned {}/{name} to {node}", self.config.namespace);
            let said = Said { warning: false, reason: "Scheduled", action: "Binding", note: &note };
            self.tell_event(now.wall, name, waiting.uid, pod, &said, fx);
        }
    }

    /// Takes a round away whose pod is bound to this node, if to any.
    fn end(&mut self, number: u64, bound: Option<NodeId>) -> Option<Round> {
        let round = self.rounds.remove(&number)?;
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back((number, round.uid, bound));
        Some(round)
    }

    fn round_of(&self, pod: &str) -> Option<u64> {
        self.rounds.iter().find(|(_, r)| &*r.pod == pod).map(|(n, _)| *n)
    }

    // Who may be asked.

    fn on_nodes(&mut self, now: Now, candidates: Arc<[Candidate]>, fx: &mut Vec<Effect>) {
        if self.candidates.as_ref().is_some_and(|old| **old == *candidates) {
            return;
        }
        self.hosting.know(candidates.iter().map(|c| (c.facts.name.as_str(), c.id)), fx);
        self.candidates = Some(candidates);
        self.pods.soon_if(now.mono, |_| true);
    }

    fn id_of(&self, node: &str) -> Option<NodeId> {
        self.candidates.iter().flat_map(|c| c.iter()).find(|c| c.facts.name == node).map(|c| c.id)
    }

    fn name_of(&self, id: NodeId) -> Option<&str> {
        self.candidates.iter().flat_map(|c| c.iter()).find(|c| c.id == id).map(|c| c.facts.name.as_str())
    }

    // What nodes say.

    fn on_message(&mut self, now: Now, from: NodeId, message: ToLeader, fx: &mut Vec<Effect>) {
        if message.cell() != self.config.cell {
            return;
        }
        match message {
            ToLeader::Bid { tender, score, beside } => {
                self.on_answer(now, from, tender, Answer::Bid { score }, Some(beside), fx);
            }
            ToLeader::Unfit { tender, reasons, contended, offer, beside } => {
                if let Some(round) = self.rounds.get_mut(&tender.number).filter(|r| r.tender == tender) {
                    round.contended |= contended;
                }
                self.on_answer(now, from, tender, Answer::Unfit { reasons, offer }, Some(beside), fx);
            }
            ToLeader::NotNow { tender } => {
                if let Some(round) = self.rounds.get_mut(&tender.number).filter(|r| r.tender == tender) {
                    round.contended = true;
                }
                self.on_answer(now, from, tender, Answer::Silent, None, fx);
            }
            ToLeader::Confirmed { tender } => self.on_confirmed(now, from, tender, fx),
            ToLeader::Lapsed { tender } => {
                let confirming = |r: &Round| matches!(r.phase, Phase::Confirming { winner, .. } if winner == from);
                if self.rounds.get(&tender.number).is_some_and(|r| r.tender == tender && confirming(r)) {
                    self.give_up(now, tender.number, LAPSED, fx);
                }
            }
            ToLeader::Made { uid, name, .. } => {
                if self.pods.get(&name).is_some_and(|w| w.uid == uid) {
                    self.pods.soon(now.mono, &name);
                }
            }
            ToLeader::Ask { boot, .. } => {
                if let Some(node) = self.hosting.name_of(from).filter(|_| self.begun) {
                    self.hosting.asked(&node, boot, fx);
                }
            }
            ToLeader::WhatBecame { tender, uid, name } => self.on_what_became(from, tender, uid, &name, fx),
            ToLeader::Keeping { tender, uid, name } => self.on_keeping(from, tender, uid, &name, fx),
        }
    }

    fn on_answer(
        &mut self,
        now: Now,
        from: NodeId,
        tender: Tender,
        answer: Answer,
        beside: Option<Beside>,
        fx: &mut Vec<Effect>,
    ) {
        let bid = matches!(answer, Answer::Bid { .. });
        if tender.term != self.config.term {
            return;
        }
        let Some(round) = self.rounds.get_mut(&tender.number) else {
            let late = self.ended.iter().find(|e| e.0 == tender.number).filter(|e| e.2 != Some(from));
            if let Some((_, uid, _)) = late.filter(|_| bid) {
                fx.push(Effect::Send { to: from, message: ToNode::Release { tender, uid: *uid } });
            }
            return;
        };
        if round.answer(now.mono, from, answer, beside) {
            self.advance(now, tender.number, fx);
        } else if bid && !round.bidders().contains(&from) {
            release(from, round, fx);
        }
    }

    /// A node holds a reservation that was confirmed, and has not heard what came of it.
    fn on_what_became(&mut self, from: NodeId, tender: Tender, uid: Uid, name: &str, fx: &mut Vec<Effect>) {
        if !self.begun {
            return;
        }
        let node = self.hosting.name_of(from);
        if let Some(node) = node.filter(|n| self.hosting.has(n, name, uid)) {
            return self.hosting.tell_whole(&node, fx);
        }
        let under_way = |r: &Round| r.tender == tender && r.winner() == Some(from);
        if !self.rounds.values().any(under_way) {
            fx.push(Effect::Send { to: from, message: ToNode::Release { tender, uid } });
        }
    }

    /// A node keeps room for a pod. What a leader before this one has taken an offer for is written in the pod's
    /// status only.
    fn on_keeping(&self, from: NodeId, tender: Tender, uid: Uid, name: &str, fx: &mut Vec<Effect>) {
        if !self.begun {
            return;
        }
        let written = |w: &Waiting| {
            let node = self.name_of(from);
            tender.term < self.config.term && node.is_some() && node == w.tree["status"]["nominatedNodeName"].as_str()
        };
        let wanted = |w: &Waiting| w.uid == uid && w.nominated.map_or_else(|| written(w), |n| n.0 == from);
        if !self.pods.get(name).is_some_and(wanted) {
            fx.push(Effect::Send { to: from, message: ToNode::Withdraw { tender, uid } });
        }
    }

    // Rounds.

    fn begin_rounds(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(candidates) = self.candidates.clone().filter(|_| self.begun) else { return };
        for _ in 0..BEGIN_MAX {
            if self.rounds.len() >= ROUNDS_MAX {
                return;
            }
            let Some(name) = self.pods.next(now.mono) else { return };
            let Some(waiting) = self.pods.get(&name) else { return };
            self.tenders += 1;
            let tender = Tender { cell: self.config.cell, term: self.config.term, number: self.tenders };
            let first = match candidates.len() {
                n if n <= round::ALL_MAX => BTreeSet::new(),
                _ => self.hosting.hosts_of(&waiting.stored),
            };
            let order = round::order(&mut self.chance, &candidates, &first);
            let pod = (name, waiting.stored.clone(), waiting.tree.clone());
            self.rounds.insert(tender.number, Round::new(now.mono, tender, pod, (candidates.clone(), order)));
            self.advance(now, tender.number, fx);
        }
    }

    /// Does what follows in a round from what is known.
    fn advance(&mut self, now: Now, number: u64, fx: &mut Vec<Effect>) {
        let due = |r: &&Round| r.phase == Phase::Asking && r.is_due(now.mono);
        if self.rounds.get(&number).filter(due).is_none() {
            return;
        }
        // It is not among the others while it is looked at.
        let (Some(mut round), Some(candidates)) = (self.rounds.remove(&number), &self.candidates) else { return };
        let tie = self.chance.u64();
        let ground = Ground::new(&round, candidates, &self.hosting, &self.rounds, &self.namespaces);
        let mut refused = Vec::new();
        let next = round.next(now.mono, tie, &ground, &mut refused);
        for bidder in refused {
            release(bidder, &round, fx);
        }
        match next {
            Next::Wait => {}
            Next::Ask(nodes) => {
                for (to, ask) in nodes {
                    let message = ToNode::Tender { tender: round.tender, pod: round.stored.clone(), ask };
                    fx.push(Effect::Send { to, message });
                }
            }
            Next::Award(award) => {
                for loser in award.losers {
                    release(loser, &round, fx);
                }
                round.confirming(now.mono, award.winner);
                let message = ToNode::Confirm { tender: round.tender, uid: round.uid };
                fx.push(Effect::Send { to: award.winner, message });
            }
            Next::Nobody => {
                let offer = round.best_offer(&ground);
                self.rounds.insert(number, round);
                return self.nobody(now, number, offer, fx);
            }
        }
        self.rounds.insert(number, round);
    }

    fn on_confirmed(&mut self, now: Now, from: NodeId, tender: Tender, fx: &mut Vec<Effect>) {
        let Some(node) = self.name_of(from).map(str::to_owned) else { return };
        let Some(round) = self.rounds.get_mut(&tender.number).filter(|r| r.tender == tender) else { return };
        if !matches!(round.phase, Phase::Confirming { winner, .. } if winner == from) {
            return;
        }
        let Some(errand) = self.errands.bind(&round.pod, round.uid, &node) else { return };
        let id = ErrandId(self.next_errand);
        self.next_errand += 1;
        round.binding(now.mono, from, id);
        self.asked.insert(id, Purpose::Bind { tender: tender.number });
        fx.push(Effect::Errand { id, errand: Box::new(errand) });
    }

    /// Ends a round that came to nothing through no fault of the pod's.
    fn give_up(&mut self, now: Now, number: u64, pause: Duration, fx: &mut Vec<Effect>) {
        let Some(round) = self.end(number, None) else { return };
        for bidder in round.bidders() {
            release(bidder, &round, fx);
        }
        self.pods.again(now.mono, &round.pod, pause);
    }

    /// Nobody bid; but there may be an offer to make room.
    fn nobody(&mut self, now: Now, number: u64, offer: Option<(NodeId, Arc<[Uid]>)>, fx: &mut Vec<Effect>) {
        let Some(round) = self.end(number, None) else { return };
        let Some(waiting) = self.pods.get_mut(&round.pod) else { return };
        if round.contended && waiting.contended < CONTENDED.1 {
            let pause = CONTENDED.0 * (1 << waiting.contended);
            waiting.contended += 1;
            return self.pods.again(now.mono, &round.pod, pause);
        }
        let preemption = match offer {
            Some(_) => Preemption::Begun,
            None if !may_preempt(&round.tree["spec"]) => Preemption::Never,
            None => Preemption::Tried,
        };
        let node = offer.as_ref().map(|(node, _)| *node);
        let before = std::mem::replace(&mut waiting.nominated, node.map(|n| (n, round.tender)));
        if let Some((to, tender)) = before.filter(|b| Some(b.0) != node) {
            fx.push(Effect::Send { to, message: ToNode::Withdraw { tender, uid: round.uid } });
        }
        if let Some((to, gone)) = offer {
            let message = ToNode::Preempt { tender: round.tender, pod: round.stored.clone(), gone };
            fx.push(Effect::Send { to, message });
        }
        let message = unschedulable(&round.answers, preemption);
        self.failed(now, &round.pod, "Unschedulable", &message, fx);
    }

    // Errands.

    fn on_answered(&mut self, now: Now, id: ErrandId, answer: Answered, fx: &mut Vec<Effect>) {
        let Some(purpose) = self.asked.remove(&id) else { return };
        if !matches!(purpose, Purpose::Bind { .. }) {
            self.telling = self.telling.saturating_sub(1);
        }
        match purpose {
            Purpose::Bind { tender } => self.on_bound(now, tender, answer, fx),
            Purpose::Condition => {}
            Purpose::NewEvent { pod, event } | Purpose::AgainEvent { pod, event } => {
                // It is not there (any more): what happens next is told as a new one.
                if answer.is_err()
                    && let Some(waiting) = self.pods.get_mut(&pod)
                    && waiting.failure.as_ref().is_some_and(|f| f.event == event)
                {
                    waiting.failure = None;
                }
            }
        }
    }

    fn on_bound(&mut self, now: Now, number: u64, answer: Answered, fx: &mut Vec<Effect>) {
        // Most often the commit was told first, and the round is over.
        let Some(round) = self.rounds.get(&number) else { return };
        let Err(status) = answer else { return };
        let (pod, winner) = (round.pod.clone(), round.winner());
        match status.code {
            // It may have been committed, or may yet be. The node keeps its word until it asks.
            504 => {
                self.end(number, winner);
                self.pods.back_off(now.mono, &pod);
            }
            // The pod has changed, is going or gone: what is committed says what follows.
            404 | 409 => {
                self.give_up(now, number, LAPSED, fx);
                self.pods.back_off(now.mono, &pod);
            }
            _ => {
                self.give_up(now, number, LAPSED, fx);
                self.failed(now, &pod, "SchedulerError", &format!("binding rejected: {}", status.message), fx);
            }
        }
    }

    // Time.

    fn on_time(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let due: Vec<(u64, Phase)> =
            self.rounds.iter().filter(|(_, r)| r.deadline() <= now.mono).map(|(n, r)| (*n, r.phase)).collect();
        for (number, phase) in due {
            match phase {
                Phase::Asking => self.advance(now, number, fx),
                Phase::Confirming { .. } => self.give_up(now, number, LAPSED, fx),
                // Nobody has said what became of it: as if that had been the answer.
                Phase::Binding { errand, winner, .. } => {
                    self.asked.remove(&errand);
                    if let Some(round) = self.end(number, Some(winner)) {
                        self.pods.back_off(now.mono, &round.pod);
                    }
                }
            }
        }
        if self.stand_at.is_some_and(|at| at <= now.mono) {
            self.stand_at = None;
            self.hosting.stand(fx);
        }
        if self.stand_at.is_none() && self.hosting.is_any() {
            self.stand_at = Some(now.mono + Stands::EVERY);
        }
    }
}

fn release(to: NodeId, round: &Round, fx: &mut Vec<Effect>) {
    fx.push(Effect::Send { to, message: ToNode::Release { tender: round.tender, uid: round.uid } });
}

fn event_name(pod: &str, chance: u64) -> String {
    format!("{pod}.{chance:016x}")
}

fn is_bound(pod: &Stored) -> bool {
    !pod.meta.field("spec.nodeName").is_empty()
}

fn is_finished(pod: &Stored) -> bool {
    matches!(pod.meta.field("status.phase"), "Succeeded" | "Failed")
}
