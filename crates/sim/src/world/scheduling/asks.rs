//! Requests on their way through a gateway to the cell, asked again until they are answered or nobody waits for
//! them any more.

use super::{Happening, MS, NAMESPACE, World};
use crate::checks::Checked;
use crate::keeper::EPOCH_MS;
use crate::ports::Bug;
use crate::world::nodes::Who;
use crate::world::{REGISTRY, ROOT};
use base::{CellId, RequestId, Uid, Wall};
use node::cell::{Input, Outcome, ReplyTo};
use node::errand::{Answered, ErrandId};
use node::gateway::{home, reserve};
use node::scheduling::LeaderInput;
use objects::Tree;
use objects::allotment::{self, Allotment, Ranges, Wanted};
use objects::decision::Payload;
use objects::kinds;
use objects::request::{Body, Options, Request, User, Verb};
use objects::status::Status;
use serde_json::json;
use std::sync::Arc;

/// Somebody who asks a cell asks again after this.
const PATIENCE: u64 = 1_500 * MS;
/// A gateway asks on for so long.
pub(super) const GATEWAY: u64 = 20 * super::SECOND;
/// A person has had enough after this.
const PERSON: u64 = 5 * super::SECOND;

/// A request on its way through a gateway.
pub(super) struct Ask {
    request: Arc<Request>,
    keeper: usize,
    attempt: u64,
    until: u64,
    then: Then,
    /// What root is asked for on its behalf meanwhile.
    wanted: Option<Box<Wanted>>,
}

/// Whose it is.
#[derive(Clone, Copy)]
pub(in crate::world) enum Then {
    /// A leader's errand, of this start and term.
    Leader { keeper: usize, boot: u64, term: u64, id: ErrandId },
    /// A node's errand, of this start.
    Worker { host: usize, boot: u64, id: ErrandId },
    /// An errand of what runs pods at a node, of this start.
    Pods { host: usize, boot: u64, id: ErrandId },
    /// An errand of a cell's controllers, of this start of their keeper.
    Controllers { keeper: usize, boot: u64, cell: CellId, id: ErrandId },
    /// A reader's of the Nodes, of this start.
    Reader { who: Who, boot: u64, id: ErrandId },
    /// A gateway's, which asks root for what another request of its needs.
    Gateway { ask: u64 },
    /// Somebody who does not wait for the answer.
    Nobody,
}

impl World {
    pub(super) fn ask(&mut self, keeper: usize, request: Request, patience: u64, then: Then) {
        let until = self.now.saturating_add(patience);
        let Some(s) = &mut self.pods else { return };
        s.next += 1;
        let ask = s.next;
        self.attempts += 1;
        let attempt = self.attempts;
        s.asks.insert(ask, Ask { request: Arc::new(request), keeper, attempt, until, then, wanted: None });
        let delay = s.dice.range(1, 5) * MS / 2;
        self.scene(delay, Happening::Arrives { ask, attempt });
        self.scene(PATIENCE, Happening::Again { ask, attempt });
    }

    pub(super) fn ask_arrives(&mut self, ask: u64, attempt: u64) -> Checked {
        let Some(ask) = self.pods.as_ref().and_then(|s| s.asks.get(&ask)).filter(|a| a.attempt == attempt) else {
            return Ok(());
        };
        let (keeper, request) = (ask.keeper, ask.request.clone());
        let Some(up) = &self.keepers[keeper].up else { return Ok(()) };
        let cell = home(&request, &up.bundle, ROOT, REGISTRY);
        self.tell(keeper, cell, Input::Request { to: ReplyTo(attempt), request })
    }

    /// Nothing was heard, or nothing that says what became of it.
    pub(super) fn ask_again(&mut self, ask: u64, attempt: u64) {
        let keepers = self.keepers.len() as u64;
        let now = self.now;
        let Some(s) = &mut self.pods else { return };
        let Some(a) = s.asks.get_mut(&ask).filter(|a| a.attempt == attempt) else { return };
        let cell = self.keepers[a.keeper].up.as_ref().map(|up| home(&a.request, &up.bundle, ROOT, REGISTRY));
        let known = cell.and_then(|cell| self.answers.get(&cell).copied());
        if now >= a.until {
            return self.asked(ask, Err(Box::new(Status::timeout("nobody has answered", 0))));
        }
        self.attempts += 1;
        a.attempt = self.attempts;
        // Mostly whoever has answered somebody last; not always, so that others are asked as well.
        let any = s.dice.below(keepers) as usize;
        a.keeper = known.filter(|_| s.dice.below(4) > 0).unwrap_or(any);
        let attempt = a.attempt;
        let delay = s.dice.range(5, 100) * MS;
        self.scene(delay, Happening::Arrives { ask, attempt });
        self.scene(delay + PATIENCE, Happening::Again { ask, attempt });
    }

    /// A cell has answered; whether it was an ask of a pod's.
    pub(in crate::world) fn answered_pods(&mut self, attempt: u64, outcome: &Outcome) -> bool {
        let lost = self.faults && self.pods.as_mut().is_some_and(|s| s.dice.happens(20_000));
        let Some(s) = &mut self.pods else { return false };
        let Some(ask) = s.asks.iter().find(|(_, a)| a.attempt == attempt).map(|(id, _)| *id) else { return false };
        // The way back may lose it.
        if lost {
            return true;
        }
        if let (Outcome::Done(_), Some(a)) = (outcome, s.asks.get(&ask))
            && let Some(up) = &self.keepers[a.keeper].up
        {
            self.answers.insert(home(&a.request, &up.bundle, ROOT, REGISTRY), a.keeper);
        }
        match outcome {
            Outcome::Done(answer) => {
                let tree = match &answer.payload {
                    Payload::Json(b) => serde_json::from_slice(b).unwrap_or_default(),
                    p => p.tree(),
                };
                self.asked(ask, Ok(tree));
            }
            Outcome::Refused(status) => self.asked(ask, Err(status.clone())),
            Outcome::Reserve(wanted) => self.ask_root(ask, wanted),
            Outcome::List { plan, snapshot } => {
                let listed = plan.run(snapshot.iter(None), snapshot.revision());
                let items: Vec<Tree> = listed.items.iter().map(|s| s.tree()).collect();
                let revision = listed.revision.get().to_string();
                let metadata = json!({"resourceVersion": revision, "continue": listed.continue_token});
                self.asked(ask, Ok(json!({"metadata": metadata, "items": items})));
            }
            Outcome::Watch(opened) => {
                let Some(Ask { keeper, then, .. }) = s.asks.remove(&ask) else { return true };
                if let Then::Reader { who, boot, id } = then {
                    self.reader_watches((who, boot, id), keeper, opened);
                }
            }
            _ => {
                let delay = s.dice.range(5, 50) * MS;
                self.scene(delay, Happening::Again { ask, attempt });
            }
        }
        true
    }

    pub(super) fn asked(&mut self, ask: u64, answer: Answered) {
        let Some(ask) = self.pods.as_mut().and_then(|s| s.asks.remove(&ask)) else { return };
        match ask.then {
            Then::Leader { keeper, boot, term, id } => {
                let same = self.pods.as_ref().and_then(|s| s.leaders.get(&keeper)).is_some_and(|l| l.0 == term);
                if same && self.keepers[keeper].boot == boot {
                    self.lead(keeper, LeaderInput::Answered { id, answer });
                }
            }
            Then::Worker { host, boot, id } => {
                self.scene(MS, Happening::Answered { host, boot, id, answer });
            }
            Then::Pods { host, boot, id } => {
                self.scene(MS, Happening::Heard { host, boot, id, answer });
            }
            Then::Controllers { keeper, boot, cell, id } => {
                if self.keepers[keeper].boot == boot {
                    self.control_answered(keeper, cell, id, answer);
                }
            }
            Then::Reader { who, boot, id } => self.reader_asked((who, boot, id), ask.request.verb, answer),
            Then::Gateway { ask } => self.root_answered(ask, answer),
            Then::Nobody => {}
        }
    }

    /// A cell has not decided a request: root is asked first for what it needs.
    fn ask_root(&mut self, ask: u64, wanted: &Wanted) {
        let admin = Arc::new(User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() });
        self.attempts += 1;
        let attempt = self.attempts;
        let wall = Wall(EPOCH_MS + self.now / MS);
        let Some(s) = &mut self.pods else { return };
        let Some(a) = s.asks.get_mut(&ask) else { return };
        // Whatever the cell says now of the first attempt comes too late.
        a.attempt = attempt;
        a.wanted = Some(Box::new(wanted.clone()));
        if self.bug == Bug::RootUnasked {
            let mut own = Allotment::default();
            allotment::hand_out(wanted, &mut own, &[], &Ranges::default(), s.dice.u64(), wall);
            return self.root_answered(
                ask,
                Ok(json!({"metadata": {"name": wanted.uid, "resourceVersion": "1"}, "spec": own.spec()})),
            );
        }
        let (keeper, until) = (a.keeper, a.until);
        let Some(question) = reserve::question(&a.request, wanted, admin) else { return };
        let id = RequestId(s.dice.u128());
        let request = question.request(id, wall, Uid::from_chance(s.dice.u128()), s.dice.u64());
        self.ask(keeper, request, until.saturating_sub(self.now), Then::Gateway { ask });
    }

    /// Root has answered, or nobody has for it: the cell is asked again.
    fn root_answered(&mut self, ask: u64, answer: Answered) {
        let Some(s) = &mut self.pods else { return };
        let Some(a) = s.asks.get_mut(&ask) else { return };
        let Some(wanted) = a.wanted.take() else { return };
        match reserve::with_answer(&a.request, *wanted, answer) {
            Ok(again) => {
                a.request = Arc::new(again);
                let (attempt, delay) = (a.attempt, s.dice.range(1, 5) * MS / 2);
                self.scene(delay, Happening::Arrives { ask, attempt });
                self.scene(PATIENCE, Happening::Again { ask, attempt });
            }
            Err(refused) => self.asked(ask, Err(refused)),
        }
    }

    fn request(&mut self, kind: &str, verb: Verb, (name, sub): (&str, &str), body: Body) -> Option<Request> {
        let kind = kinds::KINDS.iter().find(|k| k.kind == kind && k.served)?;
        let wall = Wall(EPOCH_MS + self.now / MS);
        let s = self.pods.as_mut()?;
        Some(Request {
            id: RequestId(s.dice.u128()),
            sent: wall,
            user: Arc::new(User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() }),
            verb,
            kind,
            namespace: Some(NAMESPACE.into()),
            name: (verb != Verb::Create || !sub.is_empty()).then(|| name.into()),
            subresource: sub.into(),
            options: Options { field_manager: "sim".into(), ..Options::default() },
            body,
            uid: Uid::from_chance(s.dice.u128()),
            suffix: s.dice.u64(),
        })
    }

    /// Somebody asks for something and does not wait for the answer.
    pub(super) fn want(&mut self, verb: Verb, name: &str, sub: &str, body: Option<Tree>) {
        let body = body.map_or(Body::None, |tree| Body::Object { tree, strict: Vec::new() });
        self.want_with("Pod", verb, (name, sub), body);
    }

    /// The same, of another kind.
    pub(in crate::world) fn want_of(&mut self, kind: &str, verb: Verb, name: &str, body: Body) {
        self.want_with(kind, verb, (name, ""), body);
    }

    /// The same, in another namespace.
    pub(in crate::world) fn want_in(&mut self, namespace: &Arc<str>, kind: &str, verb: Verb, name: &str, body: Body) {
        let keepers = self.keepers.len() as u64;
        let Some(mut request) = self.request(kind, verb, (name, ""), body) else { return };
        request.namespace = Some(namespace.clone());
        let known = self.names.get(namespace).and_then(|c| self.answers.get(c).copied());
        let Some(any) = self.pods.as_mut().map(|s| s.dice.below(keepers) as usize) else { return };
        self.ask(known.unwrap_or(any), request, PERSON, Then::Nobody);
    }

    /// The same, of a Node.
    pub(in crate::world) fn want_node(&mut self, verb: Verb, name: &str, sub: &str, body: Body) {
        let keepers = self.keepers.len() as u64;
        let Some(mut request) = self.request("Node", verb, (name, sub), body) else { return };
        request.namespace = None;
        let Some(any) = self.pods.as_mut().map(|s| s.dice.below(keepers) as usize) else { return };
        let keeper = self.answers.get(&REGISTRY).copied().unwrap_or(any);
        self.ask(keeper, request, PERSON, Then::Nobody);
    }

    fn want_with(&mut self, kind: &str, verb: Verb, (name, sub): (&str, &str), body: Body) {
        let keepers = self.keepers.len() as u64;
        let Some(request) = self.request(kind, verb, (name, sub), body) else { return };
        let Some(any) = self.pods.as_mut().map(|s| s.dice.below(keepers) as usize) else { return };
        let known = self.cell_of_pods().and_then(|c| self.answers.get(&c).copied());
        let keeper = known.unwrap_or(any);
        self.ask(keeper, request, PERSON, Then::Nobody);
    }
}
