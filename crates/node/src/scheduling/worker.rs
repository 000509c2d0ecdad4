//! A node's half of scheduling: it keeps the account of the node's room, and answers for it.
//!
//! Everything the node has promised or runs is in one [`Book`]. Tenders are answered from it. What the
//! cells say is bound here is admitted by it, and only then goes on to whoever runs pods.
//!
//! After a start the node bids for nothing until it knows what runs on it and has read from the cells what is
//! bound to it: it would offer room that is taken. It waits for all cells it was told of, and
//! [`Worker::PATIENCE`] at most, since a cell without a leader must not keep the others from this node for
//! ever. Such a cell itself gets no bid before it has spoken; what it had started here is counted when it
//! turns up, without question.

use super::evicting::{Evicting, Outcome};
use super::message::{Ask, Assigned, Stands, ToLeader, ToNode};
use crate::assignment::Assignment;
use crate::errand::{Answered, Errand, ErrandId};
use base::{BootId, CellId, Now, Time, Uid, Wall};
use decide::pod::is_finished;
use decide::schedule::{Book, BookError, Labels, Namespaces, NodeFacts, Refusal, Tender, beside};
use objects::request::Stored;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What a worker is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// What the node's own Node object says.
    Facts(NodeFacts),
    /// All namespaces and their cells. The first time it is told, each is asked what is bound here; a cell
    /// that is missing later is gone with all its pods.
    Cells(Vec<(Arc<str>, CellId)>),
    /// The namespaces' labels, told again whenever one has changed.
    Namespaces(Namespaces),
    /// From the leader of a cell.
    Message(ToNode),
    /// Of these pods the runtime had something when the node started: they were admitted before. Told once,
    /// even if there are none.
    Found(BTreeSet<Uid>),
    /// Nothing of this pod runs here any more, nor will: it has finished, or was removed and has stopped.
    Ended {
        /// The pod's.
        uid: Uid,
    },
    /// What became of an errand.
    Answered {
        /// Which.
        id: ErrandId,
        /// What.
        answer: Answered,
    },
}

/// What a worker wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send to whoever leads the cell now. May be lost.
    Send {
        /// The cell.
        cell: CellId,
        /// What.
        message: ToLeader,
    },
    /// These are the pods to run: bound here, and admitted but for those refused.
    Admitted {
        /// As the cell's leader told it, late and doubled ones left out.
        assignment: Assignment,
        /// Who among them is not to be started but failed. Said again whenever such a pod is told again.
        refused: Vec<Refused>,
    },
    /// A request of a cell, in the node's name. Answered by [`Input::Answered`].
    Errand {
        /// Names it.
        id: ErrandId,
        /// The request.
        errand: Box<Errand>,
    },
}

/// A pod that is bound here and cannot run here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The pod's.
    pub uid: Uid,
    /// Why.
    pub why: Refusal,
}

/// What is known of one cell.
#[derive(Default)]
struct Cell {
    namespace: Arc<str>,
    /// The term of the newest leader heard.
    term: u64,
    /// The last it has told.
    number: u64,
    /// Everything up to that is known.
    whole: bool,
    /// By name.
    pods: BTreeMap<Arc<str>, Bound>,
    /// When to ask for everything, and how often that was done without an answer.
    ask: Option<Time>,
    asked: u32,
}

/// A pod that is bound here.
struct Bound {
    uid: Uid,
    refused: Option<Refusal>,
}

/// The machine.
pub struct Worker {
    boot: BootId,
    book: Book,
    evicting: Evicting,
    /// The Node object was read.
    known: bool,
    cells: BTreeMap<CellId, Cell>,
    /// What is bound here and was never started, while it is not known what room there is: neither admitted nor
    /// refused before. What was started runs on without question.
    unmeasured: BTreeMap<(CellId, Arc<str>), Stored>,
    /// When which cell is to be asked.
    asks: BTreeSet<(Time, CellId)>,
    /// The namespaces there are, once told.
    listed: Option<BTreeSet<CellId>>,
    /// Cells asked at the start that have not answered.
    unheard: BTreeSet<CellId>,
    /// What was running when the node started, once told.
    found: Option<BTreeSet<Uid>>,
    /// `None` once bids are given.
    start: Option<Start>,
}

struct Start {
    until: Time,
    /// What was told meanwhile. Who was started here before is counted at once; all others are admitted
    /// when everybody who was is known.
    held: Vec<Assignment>,
}

impl Worker {
    /// The longest that cells are waited for after a start before bids are given.
    pub const PATIENCE: Duration = Duration::from_secs(10);
    /// A cell that has pods here and of which nothing is heard for so long is asked.
    pub const SILENCE: Duration = Duration::from_secs(15);
    /// A cell that does not answer is asked again after this, twice as long each time, and
    /// [`Worker::AGAIN_MAX`] at most.
    pub const AGAIN: Duration = Duration::from_millis(500);
    /// See [`Worker::AGAIN`].
    pub const AGAIN_MAX: Duration = Duration::from_secs(10);

    /// A node that has just started. No other start of it has this number.
    pub fn new(now: Now, boot: BootId) -> Worker {
        Worker {
            boot,
            book: Book::new(NodeFacts::default()),
            evicting: Evicting::default(),
            known: false,
            cells: BTreeMap::new(),
            unmeasured: BTreeMap::new(),
            asks: BTreeSet::new(),
            listed: None,
            unheard: BTreeSet::new(),
            found: None,
            start: Some(Start { until: now.mono + Worker::PATIENCE, held: Vec::new() }),
        }
    }

    /// One bounded step.
    pub fn step(&mut self, now: Now, input: Input, fx: &mut Vec<Effect>) {
        let wall = now.wall;
        let now = now.mono;
        match input {
            Input::Tick => {}
            Input::Facts(facts) => {
                self.book.update(facts);
                if !std::mem::replace(&mut self.known, true) {
                    self.measure(fx);
                }
            }
            Input::Cells(all) => self.on_cells(now, &all, fx),
            Input::Namespaces(namespaces) => self.book.know(namespaces),
            Input::Message(message) => self.on_message(now, wall, message, fx),
            Input::Found(found) => self.found = Some(found),
            Input::Ended { uid } => {
                self.book.ended(&uid.to_string());
                if let Some(found) = &mut self.found {
                    found.remove(&uid);
                }
                self.tell_made(fx);
            }
            Input::Answered { id, answer } => self.on_answered(wall, id, &answer, fx),
        }
        self.on_time(now, fx);
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let asks = self.asks.first().map(|(at, _)| *at);
        [asks, self.book.next_deadline(), self.start.as_ref().map(|s| s.until)].into_iter().flatten().min()
    }

    /// Asserts what must hold between steps.
    pub fn check(&self) {
        self.book.check();
        self.evicting.check();
        let due = self.cells.iter().filter_map(|(id, c)| Some((c.ask?, *id)));
        assert!(due.eq(self.asks_by_cell()), "the index of questions is not that of the cells");
    }

    fn asks_by_cell(&self) -> impl Iterator<Item = (Time, CellId)> {
        let by: BTreeMap<CellId, Time> = self.asks.iter().map(|(at, cell)| (*cell, *at)).collect();
        by.into_iter().map(|(cell, at)| (at, cell))
    }

    /// The account, to be shown.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Whether bids are given.
    pub fn is_bidding(&self) -> bool {
        self.known && self.start.is_none()
    }

    fn on_cells(&mut self, now: Time, all: &[(Arc<str>, CellId)], fx: &mut Vec<Effect>) {
        let listed: BTreeSet<CellId> = all.iter().map(|(_, id)| *id).collect();
        match self.listed.replace(listed.clone()) {
            None => {
                for (namespace, id) in all {
                    let cell = self.cells.entry(*id).or_default();
                    cell.namespace = namespace.clone();
                    if !cell.whole {
                        self.ask_at(*id, Some(now));
                        self.unheard.insert(*id);
                    }
                }
            }
            Some(before) => {
                for gone in before.difference(&listed) {
                    self.on_cell_gone(*gone, fx);
                }
            }
        }
        self.settle_start(now, fx);
    }

    /// A namespace is removed only after everything in it: so are its pods.
    fn on_cell_gone(&mut self, id: CellId, fx: &mut Vec<Effect>) {
        self.book.forget(id);
        self.unmeasured.retain(|(cell, _), _| *cell != id);
        self.ask_at(id, None);
        self.unheard.remove(&id);
        if let Some(start) = &mut self.start {
            start.held.retain(|a| a.cell != id);
        }
        if let Some(cell) = self.cells.remove(&id) {
            let assignment = Assignment { cell: id, namespace: cell.namespace, whole: true, pods: Vec::new() };
            fx.push(Effect::Admitted { assignment, refused: Vec::new() });
        }
    }

    fn on_message(&mut self, now: Time, wall: Wall, message: ToNode, fx: &mut Vec<Effect>) {
        // Whoever led before has nothing to say any more; but to give back what was reserved for it is the part
        // of whoever leads now.
        let release = matches!(message, ToNode::Release { .. } | ToNode::Withdraw { .. });
        if !release && self.cells.get(&message.cell()).is_some_and(|c| message.term() < c.term) {
            return;
        }
        match message {
            ToNode::Tender { tender, pod, ask } => self.on_tender(now, tender, &pod, &ask, fx),
            ToNode::Preempt { tender, pod, gone } => self.on_preempt((now, wall), tender, &pod, &gone, fx),
            ToNode::Withdraw { tender, uid } => self.book.withdraw(tender, &uid.to_string()),
            ToNode::Confirm { tender, uid } => {
                let message = match self.book.confirm(now, tender, &uid.to_string()) {
                    Ok(()) => ToLeader::Confirmed { tender },
                    Err(_) => ToLeader::Lapsed { tender },
                };
                fx.push(Effect::Send { cell: tender.cell, message });
            }
            ToNode::Release { tender, uid } => self.book.release(tender, &uid.to_string()),
            ToNode::Assigned(assigned) => self.on_assigned(now, assigned, fx),
            ToNode::Stands(stands) => self.on_stands(now, stands),
        }
    }

    fn on_tender(&mut self, now: Time, tender: Tender, pod: &Stored, ask: &Ask, fx: &mut Vec<Effect>) {
        let uid = pod.meta.uid.to_string();
        let message = if self.is_bidding() && !self.unheard.contains(&tender.cell) {
            let tree = pod.tree();
            let beside = beside(self.book.facts(), &tree);
            let unfit =
                |reasons, contended, offer, beside| ToLeader::Unfit { tender, reasons, contended, offer, beside };
            match ask {
                Ask::Bid => match self.book.bid(now, tender, &uid, &tree) {
                    Ok(score) => ToLeader::Bid { tender, score, beside },
                    Err(BookError::Unfit { reasons, contended, offer }) => unfit(reasons, contended, offer, beside),
                    Err(BookError::Full | BookError::Lapsed) => ToLeader::NotNow { tender },
                    Err(BookError::Late) => return,
                },
                Ask::Without(gone) => unfit(Vec::new(), false, self.book.offer(&uid, &tree, &written(gone)), beside),
                Ask::Look => unfit(Vec::new(), false, None, beside),
            }
        } else {
            ToLeader::NotNow { tender }
        };
        fx.push(Effect::Send { cell: tender.cell, message });
    }

    /// Room is to be made for a pod. Whoever asks hears of it when there is some.
    fn on_preempt(
        &mut self,
        (now, wall): (Time, Wall),
        tender: Tender,
        pod: &Stored,
        gone: &[Uid],
        fx: &mut Vec<Effect>,
    ) {
        let uid = pod.meta.uid.to_string();
        let Some(victims) = self.book.make_room(now, tender, &uid, &pod.tree(), &written(gone)) else { return };
        let none = victims.is_empty();
        let node = self.book.facts().name.clone();
        for victim in victims {
            let who = victim.uid.clone();
            match self.evicting.begin(&node, victim, &uid, wall) {
                Some((id, errand)) => fx.push(Effect::Errand { id, errand }),
                None => self.book.going(&who, false),
            }
        }
        if none {
            self.tell_made(fx);
        }
    }

    fn on_answered(&mut self, wall: Wall, id: ErrandId, answer: &Answered, fx: &mut Vec<Effect>) {
        let node = self.book.facts().name.clone();
        match self.evicting.answered(&node, id, answer, wall) {
            Outcome::Next(id, errand) => fx.push(Effect::Errand { id, errand }),
            Outcome::Stays(uid) => self.book.going(&uid, false),
            Outcome::Over => {}
        }
    }

    fn tell_made(&self, fx: &mut Vec<Effect>) {
        for (tender, uid, name) in self.book.made() {
            let Ok(uid) = uid.parse() else { continue };
            let message = ToLeader::Made { tender, uid, name: name.into() };
            fx.push(Effect::Send { cell: tender.cell, message });
        }
    }

    fn on_stands(&mut self, now: Time, stands: Stands) {
        let cell = self.cells.entry(stands.cell).or_default();
        if stands.term == cell.term && stands.number < cell.number {
            return;
        }
        if cell.whole && (stands.term, stands.number) == (cell.term, cell.number) {
            let again = (!cell.pods.is_empty()).then_some(now + Worker::SILENCE);
            self.ask_at(stands.cell, again);
        } else if cell.whole || cell.ask.is_none() {
            cell.whole = false;
            cell.asked = 0;
            self.ask_at(stands.cell, Some(now));
        }
    }

    fn on_assigned(&mut self, now: Time, assigned: Assigned, fx: &mut Vec<Effect>) {
        let Assigned { term, number, boot, assignment } = assigned;
        let id = assignment.cell;
        let cell = self.cells.entry(id).or_default();
        if term == cell.term && number <= cell.number {
            return;
        }
        // It may have been sent to an earlier start of this node. Who has heard of the cell since this one can tell
        // what is late by its term and number, from a leader that nobody here has asked yet.
        if boot.is_some_and(|b| b != self.boot) || (boot.is_none() && cell.term == 0) {
            // A burst of them makes one question.
            if cell.whole || cell.ask.is_none_or(|at| at > now + Worker::AGAIN) {
                cell.asked = 0;
                self.ask_at(id, Some(now));
            }
            return;
        }
        let gap = term != cell.term || number != cell.number + 1;
        (cell.term, cell.number) = (term, number);
        cell.namespace = assignment.namespace.clone();
        // What it says is so even if something before it was missed; that is asked for, unless it is already.
        let missed = gap && (cell.whole || cell.ask.is_none());
        if assignment.whole || missed {
            cell.whole = assignment.whole;
            cell.asked = 0;
        }
        let whole = cell.whole;
        let ask = cell.ask.filter(|_| !missed);
        let some = assignment.pods.iter().any(|(_, pod)| pod.is_some());
        if whole {
            self.unheard.remove(&id);
        }
        match &mut self.start {
            Some(start) => start.held.push(assignment),
            None => self.admit(assignment, fx),
        }
        let here = some || self.cells.get(&id).is_some_and(|c| !c.pods.is_empty());
        let next = if whole { here.then_some(now + Worker::SILENCE) } else { Some(ask.unwrap_or(now)) };
        self.ask_at(id, next);
        self.settle_start(now, fx);
    }

    /// Counts what is new in it, and hands it on.
    fn admit(&mut self, mut assignment: Assignment, fx: &mut Vec<Effect>) {
        let id = assignment.cell;
        if assignment.whole {
            self.unmeasured.retain(|(cell, _), _| *cell != id);
        }
        for (name, _) in &assignment.pods {
            self.unmeasured.remove(&(id, name.clone()));
        }
        let mut gone = Vec::new();
        let cell = self.cells.entry(id).or_default();
        if assignment.whole {
            let named: BTreeSet<Arc<str>> = assignment.pods.iter().map(|(name, _)| name.clone()).collect();
            cell.pods.retain(|name, _| {
                named.contains(name) || {
                    gone.push(name.clone());
                    false
                }
            });
        }
        for (name, _) in assignment.pods.iter().filter(|(_, pod)| pod.is_none()) {
            cell.pods.remove(name);
        }
        let mut refused = Vec::new();
        let mut new = Vec::new();
        for (name, pod) in assignment.pods.iter().filter_map(|(name, pod)| Some((name, pod.as_ref()?))) {
            match cell.pods.get(name).filter(|b| b.uid == pod.meta.uid) {
                Some(bound) => {
                    let going = pod.meta.deletion.is_some();
                    self.book.changed(&pod.meta.uid.to_string(), labels(pod), going);
                    refused.extend(bound.refused.clone().map(|why| Refused { uid: pod.meta.uid, why }));
                }
                None => new.push((name, pod)),
            }
        }
        // First who was started before, then who came first.
        let found = self.found.as_ref();
        let mut unstarted = Vec::new();
        for (name, pod) in new {
            cell.pods.insert(name.clone(), Bound { uid: pod.meta.uid, refused: None });
            if !count_started(&mut self.book, pod, found) {
                unstarted.push((pod.meta.created, name, pod));
            }
        }
        unstarted.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        for (_, name, pod) in unstarted {
            let tree = pod.tree();
            if is_finished(&tree) {
                continue;
            }
            let uid = pod.meta.uid;
            if !self.known {
                cell.pods.remove(name);
                self.unmeasured.insert((id, name.clone()), pod.clone());
                continue;
            }
            if let Err(why) = self.book.bound(&uid.to_string(), &tree) {
                cell.pods.insert(name.clone(), Bound { uid, refused: Some(why.clone()) });
                refused.push(Refused { uid, why });
            }
        }
        let told = assignment.pods.len();
        assignment.pods.retain(|(name, _)| !self.unmeasured.contains_key(&(id, name.clone())));
        if assignment.whole && assignment.pods.len() < told {
            // It is not everything: whoever took what is left out for gone would remove what is left of it here.
            assignment.whole = false;
            assignment.pods.extend(gone.into_iter().map(|name| (name, None)));
        }
        fx.push(Effect::Admitted { assignment, refused });
    }

    /// It is known what room there is. What was not told as a whole is asked for as a whole.
    fn measure(&mut self, fx: &mut Vec<Effect>) {
        let mut by_cell: BTreeMap<CellId, Vec<_>> = BTreeMap::new();
        for ((cell, name), pod) in std::mem::take(&mut self.unmeasured) {
            by_cell.entry(cell).or_default().push((name, Some(pod)));
        }
        for (cell, pods) in by_cell {
            let Some(known) = self.cells.get_mut(&cell) else { continue };
            known.asked = 0;
            let namespace = known.namespace.clone();
            self.admit(Assignment { cell, namespace, whole: false, pods }, fx);
            self.ask_at(cell, Some(Time::ZERO));
        }
    }

    /// Bids are given, and what is new is admitted, once the node knows what runs here and every cell has
    /// said what is bound here, or patience ends.
    fn settle_start(&mut self, now: Time, fx: &mut Vec<Effect>) {
        let told = self.listed.is_some() && self.found.is_some() && self.unheard.is_empty();
        let Some(start) = self.start.take_if(|s| told || s.until <= now) else { return };
        let found = self.found.as_ref();
        for pod in start.held.iter().flat_map(|a| &a.pods).filter_map(|(_, pod)| pod.as_ref()) {
            count_started(&mut self.book, pod, found);
        }
        for assignment in start.held {
            self.admit(assignment, fx);
        }
    }

    fn on_time(&mut self, now: Time, fx: &mut Vec<Effect>) {
        self.book.lapse(now);
        self.settle_start(now, fx);
        while let Some((_, id)) = self.asks.first().copied().filter(|(at, _)| *at <= now) {
            let Some(cell) = self.cells.get_mut(&id) else { break };
            cell.whole = false;
            let pause = (Worker::AGAIN * (1 << cell.asked.min(8))).min(Worker::AGAIN_MAX);
            cell.asked += 1;
            self.ask_at(id, Some(now + pause));
            fx.push(Effect::Send { cell: id, message: ToLeader::Ask { cell: id, boot: self.boot } });
        }
        for (tender, uid, name) in self.book.questions(now) {
            let Ok(uid) = uid.parse() else { continue };
            let message = ToLeader::WhatBecame { tender, uid, name: name.into() };
            fx.push(Effect::Send { cell: tender.cell, message });
        }
        for (tender, uid, name) in self.book.keeping(now) {
            let Ok(uid) = uid.parse() else { continue };
            let message = ToLeader::Keeping { tender, uid, name: name.into() };
            fx.push(Effect::Send { cell: tender.cell, message });
        }
    }

    fn ask_at(&mut self, id: CellId, at: Option<Time>) {
        let Some(cell) = self.cells.get_mut(&id) else { return };
        if let Some(old) = std::mem::replace(&mut cell.ask, at) {
            self.asks.remove(&(old, id));
        }
        if let Some(at) = at {
            self.asks.insert((at, id));
        }
    }
}

/// Counts a pod that this node, or who was it before, has admitted already. Whether it had.
fn count_started(book: &mut Book, pod: &Stored, found: Option<&BTreeSet<Uid>>) -> bool {
    let tree = pod.tree();
    let status = &tree["status"];
    let runs = found.is_some_and(|f| f.contains(&pod.meta.uid));
    let started = runs || !status["startTime"].is_null() || status["phase"] == "Running";
    if !started || (is_finished(&tree) && !runs) {
        return false;
    }
    book.found(&pod.meta.uid.to_string(), &tree);
    true
}

/// Uids as they are written.
fn written(uids: &[Uid]) -> BTreeSet<String> {
    uids.iter().map(Uid::to_string).collect()
}

fn labels(pod: &Stored) -> Labels {
    pod.meta.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}
