//! The visit: a request decided on committed state and what is in flight.

use super::flight::Flight;
use super::hold::Held;
use super::records::{self, Overlaid, key_bytes, stored};
use super::room;
use super::{Asked, Cell, Effect, Finding, Future, Opened, Outcome, Pending, ReplyTo, Role, Snapshot, Waiting};
use crate::bundle::Bundle;
use agree::cell::{After, Change, Commit, Expect, Gone, RequestStamp, Seen, State, Write};
use agree::raft;
use base::{Now, Revision, Time};
use bytes::Bytes;
use objects::decide::{Changed, again, decide};
use objects::decision::{Answer, Decision, Plan, Record};
use objects::read::{At, ListPlan, WatchPlan, WatchStart};
use objects::request::{Env, Key, Request, Shared, Stored, Verb, View};
use objects::status::Status;
use std::sync::Arc;

/// How often a request is decided again because what it was decided on did not come to be.
const TRIES: u32 = 5;

/// The most that one entry may change, and the most it may make of that: far below what a segment of the log
/// can hold, which would refuse it for good.
const ENTRY_BYTES_MAX: usize = 8 << 20;

impl Cell {
    pub(super) fn on_request(&mut self, now: Now, to: ReplyTo, request: Arc<Request>, fx: &mut Vec<Effect>) {
        if !self.leading {
            return self.reply(to, Outcome::NotLeader, fx);
        }
        // A leader behind what its log knew of root would decide by rights that were taken away since, or say that its
        // namespace is not there yet.
        let behind = self.bundle.number().get() < self.known_of_root();
        if behind && self.config.role != Role::Root {
            return self.reply(to, Outcome::NotLeader, fx);
        }
        if self.waiting() >= self.config.waiting_max {
            return self.reply(to, Outcome::Busy, fx);
        }
        self.decide(now, Asked { to, request, tries: 0 }, fx);
    }

    /// Decides a request and proposes, holds or parks what comes of it.
    pub(super) fn decide(&mut self, now: Now, asked: Asked, fx: &mut Vec<Effect>) {
        let request = &asked.request;
        let reads = matches!(request.verb, Verb::Get | Verb::List | Verb::Watch);
        if !reads {
            if let Some(known) = self.retried(request) {
                let finding = known.map_or_else(Finding::Refused, Finding::Done);
                return self.hold_answer(now, false, asked, finding);
            }
            // Its first attempt is under way here: what this one would see in flight is itself.
            if self.proposed.has(request.id) {
                return self.reply(asked.to, Outcome::Unknown, fx);
            }
            if self.member.cell().clock().ahead_ms(now.wall) > self.config.ahead_ms_max {
                return self.reply(asked.to, Outcome::Busy, fx);
            }
            if asked.tries >= TRIES {
                let name = request.name.as_deref().unwrap_or_default();
                let status = Status::modified(request.kind, name);
                return self.hold_answer(now, false, asked, Finding::Refused(Box::new(status)));
            }
        }
        if self.is_elsewhere(request) {
            return self.reply(asked.to, Outcome::NotLeader, fx);
        }
        let decision = {
            // Reads see committed state only; writes are decided on what is in flight as well.
            let flight = (!reads).then_some(&self.flight);
            let view = CellView { state: self.state(), flight, bundle: &self.bundle };
            let env = Env { now: now.wall, revision: self.state().revision(), config: &self.config.settings };
            decide(request, &view, &env)
        };
        match decision {
            Decision::Commit(plan) => self.propose(now, asked, plan, fx),
            Decision::Refuse(status) => self.hold_answer(now, reads, asked, Finding::Refused(status)),
            Decision::Answer(answer) => self.hold_answer(now, reads, asked, Finding::Done(answer)),
            // Root authorises it, and holds no part of it.
            Decision::List(plan) if is_over_all(&asked.request) => {
                self.hold_answer(now, true, asked, Finding::Other(Box::new(Outcome::ListAll(plan))));
            }
            Decision::Watch(plan) if is_over_all(&asked.request) => {
                self.hold_answer(now, true, asked, Finding::Other(Box::new(Outcome::WatchAll(plan))));
            }
            Decision::List(plan) => self.hold_answer(now, true, asked, Finding::List(plan)),
            Decision::Watch(plan) => self.hold_answer(now, true, asked, Finding::Watch(plan)),
            Decision::Token(token) => {
                self.hold_answer(now, false, asked, Finding::Other(Box::new(Outcome::Token(token))));
            }
            Decision::Stream(stream) => {
                self.hold_answer(now, false, asked, Finding::Other(Box::new(Outcome::Stream(stream))));
            }
            // What root gives is looked at when the request comes again; that it was not executed is said now.
            Decision::Reserve(wanted) => {
                self.hold_answer(now, true, asked, Finding::Other(Box::new(Outcome::Reserve(wanted))));
            }
        }
    }

    /// Whether root was asked, by somebody who does not know of a namespace yet, what the cell of that namespace decides.
    fn is_elsewhere(&self, request: &Request) -> bool {
        let Some(namespace) = request.decided_in().filter(|_| self.config.role == Role::Root) else { return false };
        let view = CellView { state: self.state(), flight: Some(&self.flight), bundle: &self.bundle };
        View::get(&view, "Namespace", namespace).is_some()
    }

    /// What is known of a request that was executed before, or is too old to be known.
    fn retried(&self, request: &Request) -> Option<Result<Answer, Box<Status>>> {
        let stamp = RequestStamp { id: request.id, first_sent: request.sent };
        let done = match self.member.cell().requests().look(&stamp) {
            Seen::Fresh => return None,
            Seen::TooOld => {
                let why =
                    "the request was first sent too long ago to know whether it was executed; it was not executed now";
                return Some(Err(Box::new(Status::timeout(why, 0))));
            }
            Seen::Done(done) => done,
        };
        let changed: Vec<Changed> = done.keys.iter().map(|key| self.changed(key, done.revision)).collect();
        Some(Ok(again(request, &changed)))
    }

    /// What has become of an object that a request changed at `revision` or just before.
    fn changed(&self, key: &Bytes, revision: Revision) -> Changed {
        // One that was made since is another of the same name.
        let now = self.state().get(key).filter(|r| r.created <= revision);
        let last = || match &self.member.cell().history().last(key)?.after {
            After::Put(r) | After::Deleted(r) => Some(r.clone()),
        };
        let gone = now.is_none();
        let image = now.cloned().or_else(last).filter(|r| r.created <= revision && !r.is_empty());
        Changed { key: records::key_of(key), image: image.map(|r| stored(&r)), gone }
    }

    fn propose(&mut self, now: Now, asked: Asked, plan: Plan, fx: &mut Vec<Effect>) {
        let finalizers = |key: &Key| self.state().get(&key_bytes(&key.storage, &key.name)).map(|r| stored(r));
        let finalizers = |key: &Key| finalizers(key).map_or(0, |s| s.meta.finalizers.len());
        if (!self.ample || self.unwritten.lags()) && !room::is_deletion(&asked.request, &plan, finalizers) {
            let why = match self.ample {
                true => "the log of the node that leads this cell does not keep up: nothing was written; try again",
                false => {
                    "the disk of the node that leads this cell is full: nothing was written. Delete what is not needed, or free space on the node; writing goes on by itself"
                }
            };
            return self.reply(asked.to, Outcome::Refused(Box::new(Status::unavailable(why))), fx);
        }
        // One entry holds all of it, with the last images of what it removes. What it changes is about as long
        // as it was, and what it makes is bounded by the request.
        let length = |key: &Key| match self.flight.get(key) {
            Some(newest) => newest.map_or(0, |s| s.json.len()),
            None => self.state().get(&key_bytes(&key.storage, &key.name)).map_or(0, |r| r.len()),
        };
        let too_many = |bytes: usize| {
            let why = format!(
                "this would change {bytes} bytes of objects at once, and {ENTRY_BYTES_MAX} is the most; nothing was changed. Do it in parts, by label or one by one"
            );
            Outcome::Refused(Box::new(Status::too_large(&why)))
        };
        let bytes: usize = plan.writes.iter().map(|w| length(&w.key)).sum();
        if bytes > ENTRY_BYTES_MAX {
            return self.reply(asked.to, too_many(bytes), fx);
        }
        let revisions: Vec<Revision> = plan.writes.iter().map(|_| self.member.cell_mut().mint(now.wall)).collect();
        let (mut records, answer) = plan.finish(&revisions);
        self.add_foundings(now, &mut records);
        // Very many small objects may grow by as much again: what marks a deletion is longer than they are.
        let bytes: usize = records.iter().filter_map(|r| r.object.as_ref()).map(|(_, json)| json.len()).sum();
        if bytes > ENTRY_BYTES_MAX {
            return self.reply(asked.to, too_many(bytes), fx);
        }
        let stamp = RequestStamp { id: asked.request.id, first_sent: asked.request.sent };
        self.commit(now, Some((stamp, Waiting { asked, answer })), records);
    }

    /// Proposes results as one entry.
    pub(super) fn commit(&mut self, now: Now, asked: Option<(RequestStamp, Waiting)>, records: Vec<Record>) {
        let changes = records.iter().map(|r| self.change(r)).collect();
        let (request, waiting) = asked.unzip();
        let entry = Commit { bundle: self.bundle.number().get(), request, changes };
        let id = self.call();
        let results = records.into_iter().map(|r| {
            let revision = r.revision;
            (r.key, r.object.map(|(meta, json)| Stored { revision, meta, json }))
        });
        self.flight.push(id.0, results);
        if let Some(waiting) = waiting {
            self.proposed.insert(id, waiting);
        }
        self.raft(now, raft::Input::Propose { id, payload: entry.encode() });
    }

    fn change(&self, r: &Record) -> Change {
        let key = key_bytes(&r.key.storage, &r.key.name);
        let committed = self.state().get(&key);
        let write = match &r.object {
            Some((meta, json)) => Write::Put {
                // The creation of an object that is still in flight has the revision it was expected at,
                // or an earlier one of the same flight: near enough, as nothing depends on more.
                created: r.expected.map_or(r.revision, |at| committed.map_or(at, |c| c.created)),
                meta: meta.encode(),
                value: json.clone(),
            },
            None => {
                let last = match self.flight.get(&r.key) {
                    Some(newest) => newest.map(|s| (s.meta.encode(), s.json.clone())),
                    None => committed.map(|c| (c.meta.clone(), c.value.clone())),
                };
                let (meta, value) = last.unwrap_or_default();
                Write::Delete { meta, value }
            }
        };
        let expect = r.expected.map_or(Expect::Absent, Expect::At);
        Change { key, expect, revision: r.revision, write }
    }

    /// Holds an answer until the entries it rests on are applied (none, if it rests on committed state
    /// only) and leadership is confirmed.
    fn hold_answer(&mut self, now: Now, committed: bool, asked: Asked, finding: Finding) {
        let after = if committed { None } else { self.flight.newest() };
        let id = self.call();
        self.hold.push(Held { after, read: Some(id.0), answer: Pending { asked, finding } });
        self.raft(now, raft::Input::Read { id });
    }

    /// Gives an answer whose conditions are met.
    pub(super) fn finish(&mut self, pending: Pending, fx: &mut Vec<Effect>) {
        let Pending { asked: Asked { to, request, .. }, finding } = pending;
        let outcome = match finding {
            Finding::Done(answer) => Outcome::Done(answer),
            Finding::Refused(status) => Outcome::Refused(status),
            Finding::Other(outcome) => *outcome,
            Finding::List(plan) => match self.list(&request, &plan) {
                Ok(snapshot) => Outcome::List { plan, snapshot },
                Err(Missing::Future(asked)) => return self.park(to, request, asked),
                Err(Missing::Gone(_)) => Outcome::Refused(Box::new(plan.expired())),
            },
            Finding::Watch(plan) => match self.watch(&request, plan) {
                Ok(opened) => Outcome::Watch(Box::new(opened)),
                Err(Missing::Future(asked)) => return self.park(to, request, asked),
                Err(Missing::Gone(g)) => Outcome::Refused(Box::new(WatchPlan::expired(g.asked, g.oldest))),
            },
        };
        self.reply(to, outcome, fx);
    }

    fn list(&self, request: &Request, plan: &ListPlan) -> Result<Snapshot, Missing> {
        let storage = request.kind.storage;
        let have = self.known();
        match plan.at {
            At::Latest => Ok(Snapshot::now(self.state(), storage)),
            At::NotOlderThan(asked) | At::Exactly(asked) if asked > have => Err(Missing::Future(asked)),
            At::NotOlderThan(_) => Ok(Snapshot::now(self.state(), storage)),
            At::Exactly(asked) => {
                let since = self.member.cell().history().since(storage.as_bytes(), asked).map_err(Missing::Gone)?;
                Ok(Snapshot::before(self.state(), storage, asked, since))
            }
        }
    }

    fn watch(&mut self, request: &Request, plan: WatchPlan) -> Result<Opened, Missing> {
        let have = self.known();
        let storage: Arc<str> = request.kind.storage.into();
        let demand = match plan.start {
            WatchStart::State { not_older_than, .. } | WatchStart::Newest(not_older_than) => not_older_than,
            WatchStart::After(r) => Some(r),
        };
        if let Some(asked) = demand.filter(|d| *d > have) {
            return Err(Missing::Future(asked));
        }
        self.next_watch += 1;
        let serial = self.next_watch;
        let mut opened = Opened { kind: request.kind, plan, state: None, backlog: Vec::new(), revision: have, serial };
        match opened.plan.start {
            WatchStart::State { .. } => opened.state = Some(Snapshot::now(self.state(), &storage)),
            WatchStart::Newest(_) => {}
            WatchStart::After(asked) => {
                let since = self.member.cell().history().since(storage.as_bytes(), asked).map_err(Missing::Gone)?;
                opened.backlog = since.map(super::Change::of).collect();
            }
        }
        self.subscribed.insert(storage, serial);
        Ok(opened)
    }

    fn park(&mut self, to: ReplyTo, request: Arc<Request>, asked: Revision) {
        // The moment is set when time is next at hand, in this very step.
        self.futures.push(Future { to, request, asked, until: Time::NEVER });
    }

    /// Looks again at reads of revisions that were not there.
    pub(super) fn release_futures(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let have = self.known();
        for mut f in std::mem::take(&mut self.futures) {
            if f.until == Time::NEVER {
                f.until = now.mono + self.config.future;
            }
            if f.asked <= have {
                self.decide(now, Asked { to: f.to, request: f.request, tries: 0 }, fx);
            } else if now.mono >= f.until {
                let status = Status::too_large_resource_version(f.asked.get(), have.get());
                self.reply(f.to, Outcome::Refused(Box::new(status)), fx);
            } else {
                self.futures.push(f);
            }
        }
    }
}

/// Whether a read is of all namespaces.
fn is_over_all(request: &Request) -> bool {
    request.kind.namespaced && request.namespace.is_none()
}

/// Why a read cannot be answered from what is here.
enum Missing {
    /// Not yet.
    Future(Revision),
    /// No longer.
    Gone(Gone),
}

/// What a decision reads.
struct CellView<'a> {
    state: &'a State,
    flight: Option<&'a Flight>,
    bundle: &'a Bundle,
}

impl View for CellView<'_> {
    fn get(&self, storage: &str, name: &str) -> Option<Stored> {
        if let Some(flight) = self.flight {
            let key = Key { storage: storage.into(), name: name.into() };
            if let Some(newest) = flight.get(&key) {
                return newest.cloned();
            }
        }
        self.state.get(&key_bytes(storage, name)).map(|r| stored(r))
    }

    fn list<'a>(&'a self, storage: &str, after: Option<&str>) -> Box<dyn Iterator<Item = (Arc<str>, Stored)> + 'a> {
        let committed = records::scan(self.state, storage, after);
        let Some(flight) = self.flight.filter(|f| f.len() > 0) else { return Box::new(committed) };
        let over: Vec<(Arc<str>, Option<Stored>)> =
            flight.range(storage, after).map(|(k, s)| (k.name.clone(), s.cloned())).collect();
        Box::new(Overlaid::new(committed, over))
    }

    fn shared(&self) -> &dyn Shared {
        self.bundle
    }
}
