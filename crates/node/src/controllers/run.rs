//! A plan carried out: its actions as errands, in order; creations, deletions and patches that stand
//! together go side by side, creations in bursts that double (kube-controller-manager's slow start).

use super::queue::Work;
use super::recorder::Said;
use super::{Controller, Controllers, Effect, FLYING_MAX, MANAGER};
use crate::cell::{Objects, Role};
use crate::errand::{Answered, Errand, ErrandId};
use base::{Revision, Wall};
use decide::controllers::{Act, Action, Plan, Refused, Target};
use objects::Tree;
use objects::kinds::{self, Home, Kind};
use objects::request::{Body, Key, Living, Options, PatchType, Verb};
use objects::status::{Reason, Status};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// What stands together may be under way together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Batch {
    Creates,
    Deletes,
    Patches,
    Looks,
    Alone,
}

impl Batch {
    fn of(action: &Action) -> Batch {
        match action {
            Action::Create { .. } | Action::CreateMany { .. } => Batch::Creates,
            Action::Delete { .. } => Batch::Deletes,
            Action::Patch { .. } => Batch::Patches,
            Action::Look { .. } => Batch::Looks,
            Action::Update { .. }
            | Action::UpdateStatus { .. }
            | Action::Finalize { .. }
            | Action::Reserve { .. }
            | Action::Event { .. } => Batch::Alone,
        }
    }
}

/// Why a run did not do all it was to.
enum Fault {
    /// The world has moved on: it is planned anew.
    Stale,
    /// Its namespace is going: there is nothing more to do.
    Over,
    /// A write was refused.
    Refused(Refused),
}

/// What was asked.
struct Sent {
    action: Action,
    /// This cell decides it.
    own: bool,
}

/// A plan under way.
#[derive(Default)]
pub(super) struct Run {
    steps: VecDeque<Action>,
    teller: Option<Tree>,
    flying: BTreeMap<ErrandId, Sent>,
    batch: Option<(Batch, usize)>,
    burst: usize,
    fault: Option<Fault>,
    /// The plan says no more than that an earlier one was refused.
    telling: bool,
    /// What it wrote, as it then was, by uid.
    written: BTreeMap<String, Tree>,
    wait: Wait,
    again: Option<Wall>,
    /// It waits in `starved`.
    starved: bool,
    /// It has learned something of owners in other cells.
    looked: bool,
}

/// What must be seen committed before the key is planned for again.
#[derive(Default)]
pub(super) struct Wait {
    revision: Revision,
    /// The revisions of what was written.
    own: BTreeSet<Revision>,
    gone: Vec<(Key, String)>,
    failed: bool,
}

impl Wait {
    fn is_over(&self, objects: &Objects) -> bool {
        self.revision <= objects.revision()
            && self.gone.iter().all(|(key, uid)| {
                objects
                    .get(&key.storage, &key.name)
                    .is_none_or(|s| s.meta.uid.to_string() != *uid || s.meta.deletion.is_some())
            })
    }
}

impl Run {
    /// Does nothing more than hear what was already asked.
    pub(super) fn give_up(&mut self) {
        self.steps.clear();
        self.fault = Some(Fault::Stale);
        self.wait = Wait::default();
        self.starved = false;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.flying.is_empty()
    }

    /// The next action that may be sent beside what is under way.
    fn next(&mut self) -> Option<Action> {
        let batch = Batch::of(self.steps.front()?);
        let left = match self.batch {
            _ if self.flying.is_empty() => match batch {
                Batch::Creates => {
                    self.burst = (self.burst * 2).max(1);
                    self.burst
                }
                Batch::Alone => 1,
                _ => usize::MAX,
            },
            Some((same, left)) if same == batch && left > 0 => left,
            _ => return None,
        };
        self.batch = Some((batch, left - 1));
        if let Some(Action::CreateMany { tree, count }) = self.steps.front_mut()
            && *count > 1
        {
            *count -= 1;
            return Some(Action::Create { tree: tree.clone() });
        }
        self.steps.pop_front()
    }
}

impl Controllers {
    /// Plans for a key and begins to carry it out. `wait` is what an earlier plan of the same run did.
    pub(super) fn start(&mut self, work: Work, refused: Option<&Refused>, wait: Wait, fx: &mut Vec<Effect>) {
        let plan = self.plan(&work, refused);
        if !plan.reasons.is_empty() {
            let object = format!("{} {}", work.key.storage, work.key.name);
            fx.push(Effect::Reasons { controller: work.controller.account(), object, reasons: plan.reasons.clone() });
        }
        let Plan { actions, teller, again, .. } = plan;
        let run = Run { steps: actions.into(), teller, again, telling: refused.is_some(), wait, ..Run::default() };
        self.runs.insert(work.clone(), run);
        self.advance(work, fx);
    }

    /// Sends what may be sent; ends the run when nothing is left.
    fn advance(&mut self, work: Work, fx: &mut Vec<Effect>) {
        loop {
            let Some(run) = self.runs.get_mut(&work) else { return };
            if matches!(run.steps.front(), Some(Action::Event { .. })) && run.flying.is_empty() {
                let Some(Action::Event { about, event_type, reason, message }) = run.steps.pop_front() else { return };
                self.say(&work, about, event_type, reason, message);
                continue;
            }
            if self.flying.len() >= FLYING_MAX && !run.steps.is_empty() {
                return self.starve(work);
            }
            let Some(action) = run.next() else { break };
            let Some((errand, own)) = self.errand(&work, &action) else {
                // A kind that no release serves any more: planned anew, it is not planned again.
                continue;
            };
            let id = ErrandId(self.next_errand);
            self.next_errand += 1;
            self.flying.insert(id, work.clone());
            if let Some(run) = self.runs.get_mut(&work) {
                run.flying.insert(id, Sent { action, own });
            }
            fx.push(Effect::Errand { id, errand: Box::new(errand) });
        }
        if self.runs.get(&work).is_some_and(|r| r.flying.is_empty() && r.steps.is_empty()) {
            self.end(work, fx);
        }
    }

    /// Lets a run wait for its turn.
    fn starve(&mut self, work: Work) {
        if let Some(run) = self.runs.get_mut(&work)
            && !std::mem::replace(&mut run.starved, true)
        {
            self.starved.push_back(work);
        }
    }

    fn end(&mut self, work: Work, fx: &mut Vec<Effect>) {
        let Some(run) = self.runs.remove(&work) else { return };
        if !self.leading {
            self.queue.done(&work);
            return;
        }
        let mut wait = run.wait;
        match run.fault {
            Some(Fault::Refused(refused)) if !run.telling && work.controller.tells_refusals() => {
                return self.start(work, Some(&refused), wait, fx);
            }
            Some(Fault::Over) => {}
            Some(_) => wait.failed = true,
            // What was found out leads to another plan; if that is only more to be found out, not at once.
            None if run.looked && self.is_undecided(&work.key) => wait.failed = true,
            None if run.looked => self.queue.add(work.clone(), None),
            None => wait.failed = run.telling,
        }
        if let Some(at) = run.again {
            let pause = at.since(self.now.wall).max(Duration::from_millis(1));
            self.queue.add_at(work.clone(), self.now.mono + pause);
        }
        self.waits.insert(work, wait);
        self.release();
    }

    /// Ends the waiting of those that have seen what they did.
    pub(super) fn release(&mut self) {
        let Some(objects) = self.objects.as_ref().filter(|_| self.is_level()) else { return };
        let over: Vec<Work> = self.waits.iter().filter(|(_, w)| w.is_over(objects)).map(|(w, _)| w.clone()).collect();
        for work in over {
            match self.waits.remove(&work) {
                Some(wait) if wait.failed => self.queue.failed(&work, self.now.mono, &wait.own),
                _ => self.queue.done(&work),
            }
        }
    }

    /// An errand was answered.
    pub(super) fn answered(&mut self, id: ErrandId, answer: Answered, fx: &mut Vec<Effect>) {
        if self.recorder.answered(id, answer.as_ref().err().map(|s| &**s)) {
            return;
        }
        let Some(work) = self.flying.remove(&id) else { return };
        let Some(sent) = self.runs.get_mut(&work).and_then(|r| r.flying.remove(&id)) else { return };
        match answer {
            Ok(tree) => self.done(&work, &sent, &tree),
            Err(status) => self.refused(&work, &sent, &status),
        }
        // Others may have waited for its place, and it has had its turn.
        if !self.starved.is_empty() && self.runs.get(&work).is_some_and(|r| !r.steps.is_empty()) {
            self.starve(work);
        } else {
            self.advance(work, fx);
        }
        while self.flying.len() < FLYING_MAX
            && let Some(work) = self.starved.pop_front()
        {
            if let Some(run) = self.runs.get_mut(&work) {
                run.starved = false;
            }
            self.advance(work, fx);
        }
    }

    fn done(&mut self, work: &Work, sent: &Sent, tree: &Tree) {
        let mut told = None;
        let Some(run) = self.runs.get_mut(work) else { return };
        let meta = &tree["metadata"];
        let text = |t: &Tree| t.as_str().unwrap_or_default().to_owned();
        let revision = text(&meta["resourceVersion"]).parse().ok().and_then(Revision::from_u64);
        if let Some(revision) = revision.filter(|_| sent.own) {
            run.wait.revision = run.wait.revision.max(revision);
            run.wait.own.insert(revision);
        }
        if meta["uid"].is_string() {
            run.written.insert(text(&meta["uid"]), tree.clone());
        }
        match &sent.action {
            Action::Create { .. } | Action::CreateMany { .. } => {
                let what = text(&tree["kind"]).to_lowercase();
                told = Some(("SuccessfulCreate", format!("Created {what}: {}", text(&meta["name"]))));
            }
            Action::Delete { target, .. } => {
                if revision.is_none() {
                    run.wait.gone.extend(key_of(target).map(|k| (k, target.uid.clone())));
                }
                let what = target.kind.to_lowercase();
                told = Some(("SuccessfulDelete", format!("Deleted {what}: {}", target.name)));
            }
            Action::Look { target } => {
                let there = target.uid.is_empty() || text(&meta["uid"]) == target.uid;
                run.looked |= work.controller == Controller::Garbage;
                self.remember(work, target, there);
            }
            _ => {}
        }
        let teller = self.runs.get(work).and_then(|r| r.teller.clone());
        if let (Some(about), Some((reason, message))) = (teller, told) {
            self.say(work, about, "Normal", reason, message);
        }
    }

    fn refused(&mut self, work: &Work, sent: &Sent, status: &Status) {
        let act = match &sent.action {
            // It is gone, as it should be.
            Action::Delete { .. } if status.code == 404 => return,
            Action::Look { target } if status.code == 404 => {
                if let Some(run) = self.runs.get_mut(work) {
                    run.looked |= work.controller == Controller::Garbage;
                }
                self.remember(work, target, false);
                return;
            }
            Action::Create { .. } | Action::CreateMany { .. } => Act::Create,
            Action::Delete { .. } => Act::Delete,
            _ => Act::Change,
        };
        let causes = status.details.as_deref().map(|d| d.causes.as_slice()).unwrap_or_default();
        let fault = if causes.iter().any(|c| c.reason == "NamespaceTerminating") {
            Fault::Over
        } else if status.reason == Reason::Conflict || status.code == 404 {
            Fault::Stale
        } else {
            let taken = status.reason == Reason::AlreadyExists;
            Fault::Refused(Refused { act, message: status.message.clone(), taken })
        };
        let mut told = None;
        if let Some(run) = self.runs.get_mut(work) {
            run.steps.clear();
            if let (Some(about), Fault::Refused(r)) = (&run.teller, &fault) {
                told = match act {
                    Act::Create => Some((about.clone(), "FailedCreate", format!("Error creating: {}", r.message))),
                    Act::Delete => Some((about.clone(), "FailedDelete", format!("Error deleting: {}", r.message))),
                    Act::Change => None,
                };
            }
            // The first fault is the one that is told.
            run.fault.get_or_insert(fault);
        }
        if let Some((about, reason, message)) = told {
            self.say(work, about, "Warning", reason, message);
        }
    }

    fn say(&mut self, work: &Work, about: Tree, event_type: &'static str, reason: &'static str, message: String) {
        let said = Said {
            component: work.controller.account(),
            user: self.user(work.controller),
            about,
            event_type,
            reason,
            message,
        };
        self.recorder.say(said, self.now.mono, self.now.wall);
    }

    /// The request of an action, and whether this cell decides it.
    fn errand(&mut self, work: &Work, action: &Action) -> Option<(Errand, bool)> {
        let text = |t: &Tree| t.as_str().unwrap_or_default().to_owned();
        let mut options = Options { field_manager: MANAGER.into(), ..Options::default() };
        let (verb, kind, name, subresource, body) = match action {
            Action::Create { tree } | Action::CreateMany { tree, .. } => {
                (Verb::Create, kind_of(tree)?, None, "", object(tree.clone()))
            }
            Action::Update { tree } | Action::UpdateStatus { tree } | Action::Finalize { tree } => {
                let mut tree = tree.clone();
                let uid = text(&tree["metadata"]["uid"]);
                // An earlier action of this very plan has changed it: it goes on from there.
                if let Some(written) = self.runs.get(work).and_then(|r| r.written.get(&uid)) {
                    if matches!(action, Action::UpdateStatus { .. }) {
                        let status = tree["status"].take();
                        tree = written.clone();
                        tree["status"] = status;
                    }
                    tree["metadata"]["resourceVersion"] = written["metadata"]["resourceVersion"].clone();
                }
                let name = text(&tree["metadata"]["name"]);
                let subresource = match action {
                    Action::UpdateStatus { .. } => "status",
                    Action::Finalize { .. } => "finalize",
                    _ => "",
                };
                (Verb::Update, kind_of(&tree)?, Some(name), subresource, object(tree))
            }
            Action::Patch { target, subresource, patch, beside } => {
                if let Some(owner) = beside {
                    options.beside = Some(Living { key: key_of(owner)?, uid: owner.uid.clone() });
                }
                let body = Body::Patch { kind: PatchType::Strategic, bytes: patch.to_string().into_bytes().into() };
                (Verb::Patch, kind_at(target)?, Some(target.name.clone()), *subresource, body)
            }
            Action::Delete { target, revision, propagation, grace } => {
                let mut body =
                    json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": target.uid}});
                if let Some(revision) = revision {
                    let written = self.runs.get(work).and_then(|r| r.written.get(&target.uid));
                    let written = written.map(|t| t["metadata"]["resourceVersion"].clone());
                    body["preconditions"]["resourceVersion"] = written.unwrap_or_else(|| json!(revision));
                }
                if !propagation.is_empty() {
                    body["propagationPolicy"] = json!(propagation);
                }
                if let Some(grace) = grace {
                    body["gracePeriodSeconds"] = json!(grace);
                }
                (Verb::Delete, kind_at(target)?, Some(target.name.clone()), "", object(body))
            }
            Action::Reserve { wanted } => {
                let tree = wanted.tree();
                (Verb::Create, kind_of(&tree)?, Some(wanted.uid.clone()), "reserve", object(tree))
            }
            Action::Look { target } => (Verb::Get, kind_at(target)?, Some(target.name.clone()), "", Body::None),
            Action::Event { .. } => return None,
        };
        let namespace = match &self.config.role {
            Role::Namespace(n) if kind.namespaced => Some(n.clone()),
            _ => None,
        };
        let errand = Errand {
            user: self.user(work.controller),
            verb,
            kind,
            namespace,
            name: name.map(Arc::from),
            subresource,
            options,
            body,
        };
        Some((errand, self.is_own(kind)))
    }

    /// Whether this cell decides objects of a kind.
    pub(super) fn is_own(&self, kind: &Kind) -> bool {
        match &self.config.role {
            Role::Root => kind.home == Home::Root,
            Role::Registry => kind.home == Home::Registry,
            Role::Namespace(_) => kind.home == Home::Namespace,
        }
    }
}

fn object(tree: Tree) -> Body {
    Body::Object { tree, strict: Vec::new() }
}

fn kind_of(tree: &Tree) -> Option<&'static Kind> {
    kinds::by_api_version(tree["apiVersion"].as_str()?, tree["kind"].as_str()?)
}

fn kind_at(target: &Target) -> Option<&'static Kind> {
    kinds::by_api_version(&target.api_version, &target.kind)
}

fn key_of(target: &Target) -> Option<Key> {
    kind_at(target).map(|k| Key { storage: k.storage.into(), name: target.name.as_str().into() })
}
