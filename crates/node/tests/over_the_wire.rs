//! A gateway on one node and a cell on another: questions, answers and watches as bytes on streams that come in
//! pieces, compared with what the cell says at home.

#![allow(clippy::unwrap_used, clippy::panic)]

use base::{CellId, Chance, NodeId, Now, RequestId, Revision, Time, Uid, Wall};
use bytes::Bytes;
use core::time::Duration;
use node::bundle::Bundle;
use node::cell::{Cell, Change, Config, Effect, Input, Kept, Outcome, ReplyTo, Role, Snapshot};
use node::genesis;
use node::wire::ask::{Asked, Heard, Only, Question};
use node::wire::call::{
    AnswerEffect, AnswerInput, Answering, CallEffect, CallInput, Calling, PATIENCE_MAX, QUESTION_TIME, STALLED,
};
use node::wire::frame::FRAME_BYTES_MAX;
use node::wire::watch::{Call, FromCell, Hearing, Telling, ToCell, Told};
use objects::decision::Payload;
use objects::kinds;
use objects::request::{Body, Config as Settings, Options, Request, User, Verb};
use objects::select::{LabelSelector, Selection};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

fn id() -> CellId {
    CellId(Uid::from_chance(7))
}

fn bundle() -> Arc<Bundle> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "d", "uid": id().to_string()},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    let change = node::bundle::Change { storage: "Namespace", name: "d", tree: Some(namespace) };
    Arc::new(Bundle::default().with(Revision::from_u64(1 << 40).unwrap(), [change]))
}

/// A cell alone, whose disk is fast, and one stream on which it is watched.
struct World {
    cell: Cell,
    now: Now,
    answers: BTreeMap<u64, Outcome>,
    telling: Telling,
    next: u64,
    chance: Chance,
}

impl World {
    fn new() -> World {
        let config = Config::new(id(), Role::Namespace("d".into()), NodeId([1; 32]), Arc::new(Settings::default()));
        let now = Now { mono: Time::from_ms(1), wall: Wall(1_000_000) };
        let genesis = genesis::namespace("d", id().0, bundle().number(), "PEM", now.wall);
        let cell = Cell::new(config, None, bundle(), Some(genesis), &Chance::from_u64(1), now).unwrap();
        let telling = Telling::new(1, bundle().number());
        let mut w = World { cell, now, answers: BTreeMap::new(), telling, next: 1, chance: Chance::from_u64(3) };
        w.step(Input::Tick);
        w.pass(Duration::from_secs(10));
        assert!(w.cell.is_leading());
        w
    }

    fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut fx = Vec::new();
            self.cell.step(self.now, input, &mut fx);
            self.cell.check();
            for effect in fx {
                match effect {
                    Effect::Persist { ticket, .. } => inputs.insert(0, Input::Durable(ticket)),
                    Effect::Reply(r) => assert!(self.answers.insert(r.to.0, r.outcome).is_none()),
                    Effect::Events { storage, changes } => self.telling.events(&storage, &changes),
                    Effect::Subscribed { storage, after, begin } => self.telling.subscribed(&storage, after, &begin),
                    Effect::Closed { revision } => self.telling.closed(revision),
                    Effect::Progress { storage, revision } => self.telling.progress(&storage, revision),
                    _ => {}
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now.mono + time;
        while let Some(at) = self.cell.next_deadline().filter(|at| *at <= until) {
            let passed = at.since(self.now.mono);
            self.now.mono = at;
            self.now.wall = self.now.wall + passed;
            self.step(Input::Tick);
        }
        self.now.wall = self.now.wall + until.since(self.now.mono);
        self.now.mono = until;
    }

    fn request(&mut self, verb: Verb, name: &str, body: Body) -> Request {
        self.next += 1;
        self.now.wall = self.now.wall + Duration::from_millis(1);
        Request {
            id: RequestId(u128::from(self.next) + (u128::from(self.now.wall.0) << 64)),
            sent: self.now.wall,
            user: Arc::new(User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() }),
            verb,
            kind: kinds::by_kind("", "v1", "ConfigMap").unwrap(),
            namespace: Some("d".into()),
            name: (!name.is_empty() && verb != Verb::Create).then(|| name.into()),
            subresource: "".into(),
            options: Options { field_manager: "test".into(), ..Options::default() },
            body,
            uid: Uid::from_chance(u128::from(self.next) << 64 | u128::from(self.next)),
            suffix: self.next,
        }
    }

    fn create(&mut self, name: &str) -> Request {
        let tree = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"v": "x".repeat(3_000)},
            "metadata": {"name": name, "namespace": "d", "labels": {"odd": (name.bytes().last().unwrap_or_default() % 2).to_string()}}});
        self.request(Verb::Create, name, Body::Object { tree, strict: Vec::new() })
    }

    fn fill(&mut self, from: usize, to: usize) {
        for n in from..to {
            let request = self.create(&format!("m-{n:04}"));
            assert!(matches!(self.at_home(request), Outcome::Done(a) if a.code == 201));
        }
    }

    /// Asked where the cell is.
    fn at_home(&mut self, request: Request) -> Outcome {
        self.decide(Asked::Request(Arc::new(request)))
    }

    fn decide(&mut self, asked: Asked) -> Outcome {
        self.next += 1;
        let to = ReplyTo(self.next);
        self.step(match asked {
            Asked::Request(request) => Input::Request { to, request },
            Asked::Collect { storage, at, after, .. } => Input::Collect { to, storage, at, after },
        });
        self.answers.remove(&to.0).expect("it was answered")
    }

    /// Asked from another node: one stream, in pieces of any length.
    fn afar(&mut self, asked: Asked) -> Heard {
        let question = Question { cell: id(), epoch: 1, bundle: bundle().number(), patience_ms: 30_000, asked };
        let mut calling = Calling::new(&question, self.now).unwrap();
        let mut answering = Answering::new(self.now);
        let (mut to_cell, mut to_caller) = (Vec::new(), Vec::new());
        calling.step(self.now, CallInput::Opened, &mut to_cell);
        let mut heard = None;
        while !(to_cell.is_empty() && to_caller.is_empty()) {
            for effect in std::mem::take(&mut to_cell) {
                match effect {
                    CallEffect::Ask(framed) => {
                        let bytes = [&framed.prefix[..], &framed.frame].concat();
                        for piece in self.cut(&bytes) {
                            answering.step(self.now, AnswerInput::Bytes(&piece), &mut to_caller);
                        }
                        answering.step(self.now, AnswerInput::Finished, &mut to_caller);
                    }
                    CallEffect::Heard(h) => assert!(heard.replace(*h).is_none(), "answered twice"),
                    CallEffect::Stop => panic!("the stream was given up"),
                }
            }
            for effect in std::mem::take(&mut to_caller) {
                match effect {
                    AnswerEffect::Asked(question) => {
                        assert_eq!((question.cell, question.epoch), (id(), 1));
                        let outcome = self.decide(question.asked);
                        answering.step(self.now, answer(outcome), &mut to_caller);
                    }
                    AnswerEffect::Send(framed) => {
                        let bytes = [&framed.prefix[..], &framed.frame].concat();
                        for piece in self.cut(&bytes) {
                            calling.step(self.now, CallInput::Bytes(&piece), &mut to_cell);
                            calling.check();
                        }
                        answering.step(self.now, AnswerInput::Writable, &mut to_caller);
                    }
                    AnswerEffect::Finish => calling.step(self.now, CallInput::Finished, &mut to_cell),
                    AnswerEffect::Stop | AnswerEffect::Abandoned => panic!("the answer was given up"),
                }
            }
        }
        assert!(calling.is_over() && answering.is_over());
        heard.unwrap()
    }

    fn cut(&mut self, bytes: &[u8]) -> Vec<Bytes> {
        let (mut rest, mut pieces) = (bytes, Vec::new());
        while !rest.is_empty() {
            let length = (1 + self.chance.below(20_000) as usize).min(rest.len());
            let (piece, after) = rest.split_at(length);
            pieces.push(Bytes::copy_from_slice(piece));
            rest = after;
        }
        pieces
    }

    fn told(&mut self, hearing: &mut Hearing) -> Vec<Told> {
        let mut told = Vec::new();
        while let Some(frame) = self.telling.next_frame() {
            told.extend(hearing.frame(&frame).unwrap());
        }
        told
    }
}

fn answer(outcome: Outcome) -> AnswerInput<'static> {
    AnswerInput::Answer(Box::new(Heard { bundle: bundle().number(), redirect: None, outcome }))
}

fn state(s: &Snapshot) -> String {
    format!("{} {:?} {:?}", s.storage(), s.revision(), s.iter(None).collect::<Vec<_>>())
}

fn jsons(items: &[Kept]) -> Vec<&Bytes> {
    items.iter().map(Kept::json).collect()
}

fn revisions(changes: &[Change]) -> Vec<Revision> {
    changes.iter().map(|c| c.revision).collect()
}

#[test]
fn a_write_and_what_it_wrote_read_alike_afar() {
    let mut w = World::new();
    let create = w.create("one");
    let again = create.clone();
    let Outcome::Done(made) = w.afar(Asked::Request(Arc::new(create))).outcome else { panic!("not made") };
    let Outcome::Done(known) = w.afar(Asked::Request(Arc::new(again.clone()))).outcome else { panic!("forgotten") };
    assert_eq!((made.code, &made.payload), (201, &known.payload), "a retry from afar is the same request");
    let get = w.request(Verb::Get, "one", Body::None);
    let Outcome::Done(here) = w.at_home(get.clone()) else { panic!("not there") };
    let Outcome::Done(there) = w.afar(Asked::Request(Arc::new(get))).outcome else { panic!("not there") };
    assert_eq!(here, there);
    assert!(matches!(there.payload, Payload::Json(_)));
    let same = Request { id: RequestId(1 << 100), ..again };
    let Outcome::Refused(here) = w.at_home(same.clone()) else { panic!("made twice") };
    let Outcome::Refused(there) = w.afar(Asked::Request(Arc::new(same))).outcome else { panic!("made twice") };
    assert_eq!((here.code, here), (409, there));
}

#[test]
fn a_list_and_a_state_of_the_past_read_alike_afar() {
    let mut w = World::new();
    w.fill(0, 200);
    let past = w.cell.state().revision();
    w.fill(200, 250);
    let delete = w.request(Verb::Delete, "m-0007", Body::None);
    assert!(matches!(w.at_home(delete), Outcome::Done(_)));
    for (limit, labels) in [(0, ""), (20, ""), (20, "odd=0"), (0, "odd=1")] {
        let mut list = w.request(Verb::List, "", Body::None);
        (list.options.limit, list.options.label_selector) = (limit, labels.into());
        let Outcome::List { plan, snapshot } = w.at_home(list.clone()) else { panic!("no list") };
        let here = plan.run(snapshot.lying(None), snapshot.revision());
        let Outcome::Listed { found, warnings } = w.afar(Asked::Request(Arc::new(list))).outcome else {
            panic!("no list")
        };
        assert_eq!(jsons(&found.items), jsons(&here.items));
        assert_eq!(
            (found.revision, found.continue_token, found.remaining, warnings),
            (here.revision, here.continue_token, here.remaining, plan.warnings)
        );
    }
    for at in [past, w.cell.state().revision()] {
        let collect = |after| Asked::Collect { storage: "ConfigMap".into(), at, after, only: None };
        let Outcome::Collected(here) = w.decide(collect(None)) else { panic!("no state") };
        let Outcome::Collected(there) = w.afar(collect(None)).outcome else { panic!("no state") };
        assert_eq!(state(&here), state(&there));
    }
    let at = w.cell.state().revision();
    let labels = LabelSelector::parse("odd=0").unwrap();
    let selection = Selection { labels, ..Selection::default() };
    let only = Some(Only { selection: selection.clone(), namespace: "d".into() });
    let some = Asked::Collect { storage: "ConfigMap".into(), at, after: None, only };
    let Outcome::Collected(here) = w.decide(some.clone()) else { panic!("no state") };
    let Outcome::Collected(there) = w.afar(some).outcome else { panic!("no state") };
    let meant: Vec<_> = here.iter(None).filter(|(n, s)| selection.matches(&s.meta, n, "d")).collect();
    assert_eq!(there.iter(None).collect::<Vec<_>>(), meant);
    assert_eq!((meant.len(), here.iter(None).count()), (125, 250));
    let since = Asked::Collect { storage: "ConfigMap".into(), at, after: Some(past), only: None };
    let Outcome::Recalled(here) = w.decide(since.clone()) else { panic!("nothing recalled") };
    let Outcome::Recalled(there) = w.afar(since).outcome else { panic!("nothing recalled") };
    assert_eq!((format!("{here:?}"), here.len()), (format!("{there:?}"), 51));
}

#[test]
fn a_watch_afar_sees_its_state_and_then_everything_once_and_in_order() {
    let mut w = World::new();
    w.fill(0, 150);
    let mut hearing = Hearing::default();
    let request = w.request(Verb::Watch, "", Body::None);
    let (call, message) = hearing.watch(Arc::new(request)).unwrap();
    let ToCell::Watch { call: c, request } = ToCell::decode(&message.encode()).unwrap() else { panic!("no watch") };
    assert_eq!(c, call);
    let outcome = w.decide(Asked::Request(request));
    w.telling.answer(call, bundle().number(), None, outcome);
    // Things happen while the state is on its way, and after.
    let mut told = Vec::new();
    let mut seen: Vec<Revision> = Vec::new();
    let mut n = 150;
    while let Some(frame) = w.telling.next_frame() {
        told.extend(hearing.frame(&frame).unwrap());
        if n < 170 {
            w.fill(n, n + 1);
            n += 1;
        }
    }
    let mut begun = false;
    for t in told {
        match t {
            Told::Answer { call: c, heard } => {
                let Outcome::Watch(opened) = heard.outcome else { panic!("no watch") };
                // `kube-root-ca.crt` is there from the beginning.
                assert_eq!((c, opened.state.unwrap().iter(None).count()), (call, 151));
                seen.extend(revisions(&opened.backlog));
                begun = true;
            }
            Told::Events { changes, .. } if begun => seen.extend(revisions(&changes)),
            _ => {}
        }
    }
    let state = w.cell.state().revision();
    let Outcome::Recalled(all) =
        w.decide(Asked::Collect { storage: "ConfigMap".into(), at: state, after: Some(bundle().number()), only: None })
    else {
        panic!("nothing recalled")
    };
    let all = revisions(&all);
    assert_eq!(seen, all[all.len() - 20..]);
}

#[test]
fn a_subscription_afar_is_told_what_happened_what_happens_and_what_is_closed() {
    let mut w = World::new();
    w.fill(0, 10);
    let past = w.cell.state().revision();
    w.fill(10, 120);
    let mut hearing = Hearing::default();
    w.step(Input::Subscribe { storage: "ConfigMap".into(), after: Some(past) });
    w.fill(120, 125);
    let at = Revision::end_of(w.now.wall);
    w.step(Input::Close { at });
    w.step(Input::Progress("ConfigMap".into()));
    let told = w.told(&mut hearing);
    let mut seen = Vec::new();
    let mut closed = Revision::ZERO;
    for t in &told {
        match t {
            Told::Subscribed { begin: node::cell::Subscription::Open { backlog, .. }, .. } => {
                seen.extend(revisions(backlog));
            }
            Told::Events { changes, .. } => {
                assert!(revisions(changes).iter().all(|r| *r > closed), "behind the promise that covers it");
                seen.extend(revisions(changes));
            }
            Told::Closed { revision } => closed = *revision,
            _ => {}
        }
    }
    assert_eq!(seen.len(), 115);
    assert!(seen.is_sorted() && closed >= at);
    assert!(matches!(told.last(), Some(Told::Progress { .. })));
}

// What becomes of a question that is not answered.

fn question(w: &mut World, verb: Verb) -> Question {
    let request = w.request(verb, "x", Body::None);
    let asked = Asked::Request(Arc::new(request));
    Question { cell: id(), epoch: 1, bundle: bundle().number(), patience_ms: 5_000, asked }
}

fn outcome(fx: Vec<CallEffect>) -> Option<Outcome> {
    fx.into_iter().find_map(|e| match e {
        CallEffect::Heard(heard) => Some(heard.outcome),
        _ => None,
    })
}

#[test]
fn a_question_that_was_lost_is_called_what_it_is() {
    let mut w = World::new();
    let at = w.now;
    let inputs = || [CallInput::Broken, CallInput::Finished, CallInput::Bytes(&[0xff; 9])];
    for (verb, sent) in [(Verb::Delete, true), (Verb::Delete, false), (Verb::Get, true)] {
        for input in inputs() {
            let mut calling = Calling::new(&question(&mut w, verb), at).unwrap();
            let mut fx = Vec::new();
            if sent {
                calling.step(at, CallInput::Opened, &mut fx);
            }
            calling.step(at, input, &mut fx);
            match outcome(fx) {
                Some(Outcome::Unknown) => assert!(verb == Verb::Delete && sent, "{input:?}"),
                Some(Outcome::NotLeader) => assert!(verb == Verb::Get || !sent, "{input:?}"),
                _ => panic!("{input:?} told nothing"),
            }
            assert_eq!(calling.next_deadline(), None);
        }
        let mut calling = Calling::new(&question(&mut w, verb), at).unwrap();
        let mut fx = Vec::new();
        calling.step(at, CallInput::NotOpened, &mut fx);
        assert!(matches!(outcome(fx), Some(Outcome::NotLeader)), "nothing was sent");
    }
}

#[test]
fn patience_ends_and_a_caller_who_leaves_hears_nothing() {
    let mut w = World::new();
    let at = w.now;
    let mut calling = Calling::new(&question(&mut w, Verb::Delete), at).unwrap();
    let mut fx = Vec::new();
    calling.step(at, CallInput::Opened, &mut fx);
    let late = Now { mono: calling.next_deadline().unwrap(), ..at };
    assert_eq!(late.mono, at.mono + Duration::from_secs(5));
    calling.step(at, CallInput::Tick, &mut fx);
    assert_eq!(fx.len(), 1, "not yet");
    calling.step(late, CallInput::Tick, &mut fx);
    assert!(matches!(fx.as_slice(), [CallEffect::Ask(_), CallEffect::Stop, CallEffect::Heard(h)]
        if matches!(h.outcome, Outcome::Unknown)));

    let mut calling = Calling::new(&question(&mut w, Verb::Delete), at).unwrap();
    let mut fx = Vec::new();
    for input in [CallInput::Opened, CallInput::Cancel, CallInput::Bytes(b"late"), CallInput::Broken] {
        calling.step(at, input, &mut fx);
    }
    assert!(matches!(fx.as_slice(), [CallEffect::Ask(_), CallEffect::Stop]));
}

#[test]
fn a_question_that_is_too_long_is_not_sent() {
    let mut w = World::new();
    let tree = json!({"data": "x".repeat(9 << 20)});
    let request = w.request(Verb::Create, "x", Body::Object { tree, strict: Vec::new() });
    let q = Question { asked: Asked::Request(Arc::new(request)), ..question(&mut w, Verb::Get) };
    assert!(Calling::new(&q, w.now).is_err());
}

fn framed(q: &Question) -> Vec<u8> {
    let frame = q.encode();
    [&(frame.len() as u32).to_le_bytes()[..], &frame].concat()
}

#[test]
fn one_who_asks_badly_or_never_is_given_up() {
    let mut w = World::new();
    let at = w.now;
    let good = framed(&question(&mut w, Verb::Get));
    let twice = [&good[..], &good[..]].concat();
    let mut bad = good.clone();
    bad[4] = 9;
    let long = ((FRAME_BYTES_MAX as u32) + 1).to_le_bytes();
    for bytes in [&twice[..], &bad, &long, &[4, 0, 0, 0, 1, 2, 3, 4]] {
        let (mut answering, mut fx) = (Answering::new(at), Vec::new());
        answering.step(at, AnswerInput::Bytes(bytes), &mut fx);
        answering.check();
        assert!(matches!(fx.as_slice(), [AnswerEffect::Stop]) && answering.is_over());
    }
    let (mut answering, mut fx) = (Answering::new(at), Vec::new());
    answering.step(at, AnswerInput::Bytes(&good[..20]), &mut fx);
    assert_eq!(answering.next_deadline(), Some(at.mono + QUESTION_TIME));
    answering.step(Now { mono: at.mono + QUESTION_TIME, ..at }, AnswerInput::Tick, &mut fx);
    assert!(matches!(fx.as_slice(), [AnswerEffect::Stop]));
    let (mut answering, mut fx) = (Answering::new(at), Vec::new());
    answering.step(at, AnswerInput::Bytes(&good[..20]), &mut fx);
    answering.step(at, AnswerInput::Finished, &mut fx);
    assert!(matches!(fx.as_slice(), [AnswerEffect::Stop]));
}

#[test]
fn an_answer_nobody_waits_for_is_not_worked_for() {
    let mut w = World::new();
    let at = w.now;
    let patient = Question { patience_ms: u64::MAX, ..question(&mut w, Verb::Get) };
    for (input, effects) in [(AnswerInput::Broken, 1), (AnswerInput::Tick, 2), (AnswerInput::Bytes(b"more"), 2)] {
        let (mut answering, mut fx) = (Answering::new(at), Vec::new());
        answering.step(at, AnswerInput::Bytes(&framed(&patient)), &mut fx);
        assert!(matches!(fx.pop(), Some(AnswerEffect::Asked(_))));
        assert_eq!(answering.next_deadline(), Some(at.mono + PATIENCE_MAX), "whatever it claims");
        answering.step(Now { mono: at.mono + PATIENCE_MAX, ..at }, input, &mut fx);
        assert!(matches!(fx.first(), Some(AnswerEffect::Abandoned)) && fx.len() == effects);
        let answer = answer(Outcome::Busy);
        answering.step(at, answer, &mut fx);
        assert_eq!(fx.len(), effects, "too late");
    }
    // One who asks and does not listen.
    let (mut answering, mut fx) = (Answering::new(at), Vec::new());
    answering.step(at, AnswerInput::Bytes(&framed(&patient)), &mut fx);
    let answer = answer(Outcome::Busy);
    answering.step(at, answer, &mut fx);
    answering.step(Now { mono: at.mono + STALLED, ..at }, AnswerInput::Tick, &mut fx);
    assert!(matches!(fx.as_slice(), [AnswerEffect::Asked(_), AnswerEffect::Send(_), AnswerEffect::Stop]));
    let late = FromCell::Answer { call: Call(1), frame: Bytes::new() };
    assert!(Hearing::default().frame(&late.encode()).is_ok_and(|t| t.is_none()), "nobody waits for it");
}
