//! One of each thing that travels, every field of it other than its default.

use crate::assignment::Assignment;
use crate::cell::{Change, Kept, Opened, Outcome, Snapshot};
use crate::scheduling::message::{Ask, Assigned, Stands, ToLeader, ToNode};
use crate::wire::ask::{Asked, Only, Question, Redirect};
use crate::wire::watch::{Begin, Call, End, FromCell, ToCell};
use crate::wire::{cell, keep, schedule};
use agree::descriptor::{Descriptor, Keeper};
use agree::{heartbeat, raft};
use base::{BootId, CellId, NodeId, ReplicaId, RequestId, Revision, Uid, Wall};
use bytes::Bytes;
use decide::schedule::{Beside, Reason, Tender, Victim};
use objects::allotment::{Allotment, Block, Given, Item, Reserved, Wanted};
use objects::decision::{Answer, Payload, Stream, Token};
use objects::kinds;
use objects::read::{At, ListAnswer, ListPlan, WatchPlan, WatchStart};
use objects::request::{Body, FieldValidation, Key, Living, Options, PatchType, Request, Stored, User, Verb};
use objects::select::{FieldSelector, LabelSelector, Selection};
use objects::status::{Cause, Details, Reason as Why, Status};
use serde_json::json;
use std::net::Ipv4Addr;
use std::sync::Arc;

pub(super) const CELL: CellId = CellId(Uid(0x0123_4567_89ab_4cde_8f01_2345_6789_abcd));
const NODE: NodeId = NodeId([0xa5; 32]);

pub(super) fn r(n: u64) -> Revision {
    Revision::from_u64(n).unwrap()
}

pub(super) fn stored(name: &str, revision: u64) -> Stored {
    let kind = kinds::by_kind("", "v1", "ConfigMap").unwrap();
    let tree = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "ä"}, "metadata": {
        "name": name, "namespace": "shop", "uid": Uid(7).to_string(), "creationTimestamp": "2026-01-02T03:04:05Z",
        "labels": {"app": "web"}, "finalizers": ["f"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]}});
    Stored::from_tree(kind, tree, r(revision))
}

pub(super) fn change(name: &str, revision: u64) -> Change {
    Change {
        key: Key { storage: "ConfigMap".into(), name: name.into() },
        revision: r(revision),
        before: revision.is_multiple_of(2).then(|| stored(name, revision - 1)),
        after: (!revision.is_multiple_of(3)).then(|| stored(name, revision)),
    }
}

fn selection() -> Selection {
    Selection {
        labels: LabelSelector::parse("a=b,c==d,e!=f,g in (h,i),j notin (k),l,!m,n>1,o<2").unwrap(),
        fields: FieldSelector { terms: vec![("metadata.name".into(), "x".into(), false)] },
    }
}

fn wanted() -> Wanted {
    Wanted {
        namespace: "shop".into(),
        uid: "u".into(),
        service: "s".into(),
        block_after: Some(2),
        chosen: vec![Item::Address(Ipv4Addr::new(10, 43, 0, 9)), Item::Port(30_080)],
        ports: 1,
    }
}

fn options() -> Options {
    Options {
        dry_run: true,
        field_manager: "kubectl".into(),
        field_validation: FieldValidation::Strict,
        force: true,
        label_selector: "a=b".into(),
        field_selector: "metadata.name=x".into(),
        limit: 500,
        continue_token: "token".into(),
        resource_version: "5".into(),
        resource_version_match: "Exact".into(),
        bookmarks: true,
        send_initial_events: Some(true),
        timeout_seconds: 30,
        grace_period_seconds: Some(-1),
        propagation_policy: "Foreground".into(),
        orphan_dependents: Some(false),
        beside: Some(Living { key: Key { storage: "ReplicaSet.apps".into(), name: "web".into() }, uid: "u".into() }),
        given: Some(Arc::new(Given {
            wanted: wanted(),
            allotment: Allotment {
                revision: r(9),
                blocks: vec![Block {
                    first: Ipv4Addr::new(10, 43, 1, 0),
                    last: Ipv4Addr::new(10, 43, 1, 255),
                    ending: true,
                }],
                reserved: vec![Reserved { item: Item::Port(1), service: "s".into(), since: Wall(3), ending: true }],
            },
        })),
    }
}

pub(super) fn request(verb: Verb, body: Body) -> Request {
    Request {
        id: RequestId(0x1122),
        sent: Wall(1_767_323_045_000),
        user: Arc::new(User {
            name: "ann".into(),
            uid: "42".into(),
            groups: vec!["system:authenticated".into(), "dev".into()],
            extra: vec![("scopes".into(), vec!["a".into(), "b".into()])],
        }),
        verb,
        kind: kinds::by_kind("apps", "v1", "Deployment").unwrap(),
        namespace: Some("shop".into()),
        name: Some("web".into()),
        subresource: "scale".into(),
        options: options(),
        body,
        uid: Uid(0x77),
        suffix: 0x88,
    }
}

fn tree() -> objects::Tree {
    json!({"spec": {"replicas": 3, "f": 0.1, "n": -7, "t": true, "f2": false, "z": null, "l": ["a", {}]}})
}

/// Every verb, and every body with every patch type.
pub(super) fn requests() -> Vec<Request> {
    let mut all: Vec<Request> = [
        Verb::Get,
        Verb::List,
        Verb::Watch,
        Verb::Create,
        Verb::Update,
        Verb::Patch,
        Verb::Delete,
        Verb::DeleteCollection,
    ]
    .map(|verb| request(verb, Body::None))
    .into();
    all.push(request(Verb::Create, Body::Object { tree: tree(), strict: vec!["unknown field \"dat\"".into()] }));
    for kind in [PatchType::Json, PatchType::Merge, PatchType::Strategic, PatchType::Apply] {
        all.push(request(Verb::Patch, Body::Patch { kind, bytes: Bytes::from_static(b"{\"a\":1}") }));
    }
    let mut bare = request(Verb::Get, Body::None);
    bare.options = Options { field_validation: FieldValidation::Ignore, ..Options::default() };
    (bare.namespace, bare.name, bare.subresource) = (None, None, "".into());
    all.push(bare);
    all
}

pub(super) fn questions() -> Vec<Question> {
    let asked = requests().into_iter().map(|q| Asked::Request(Arc::new(q)));
    let only = Only { selection: selection(), namespace: "shop".into() };
    let collects = [(None, Some(only)), (Some(r(3)), None)];
    let collects = collects.map(|(after, only)| Asked::Collect { storage: "Pod".into(), at: r(9), after, only });
    let ask = |asked| Question { cell: CELL, epoch: 4, bundle: r(1 << 40), patience_ms: 30_000, asked };
    asked.chain(collects).map(ask).collect()
}

pub(super) fn redirect() -> Redirect {
    let keeper = |n: u64| Keeper { replica: ReplicaId(n), node: NODE, votes: n < 3 };
    let descriptor = Descriptor {
        cell: CELL,
        epoch: 5,
        keepers: (1..4).map(keeper).collect(),
        signatures: vec![(ReplicaId(1), Bytes::from_static(b"signed"))],
    };
    Redirect { epoch: 5, leader: Some(NODE), descriptor: Some(descriptor) }
}

pub(super) fn statuses() -> Vec<Status> {
    let cause = Cause { reason: "FieldValueInvalid".into(), message: "no".into(), field: "spec".into() };
    let details = Details {
        name: "web".into(),
        group: "apps".into(),
        kind: "deployments".into(),
        uid: "u".into(),
        causes: vec![cause],
        retry_after_seconds: 3,
    };
    let reasons = [
        Why::Unknown,
        Why::Unauthorized,
        Why::Forbidden,
        Why::NotFound,
        Why::AlreadyExists,
        Why::Conflict,
        Why::Gone,
        Why::Invalid,
        Why::ServerTimeout,
        Why::StoreReadError,
        Why::Timeout,
        Why::TooManyRequests,
        Why::BadRequest,
        Why::MethodNotAllowed,
        Why::NotAcceptable,
        Why::RequestEntityTooLarge,
        Why::UnsupportedMediaType,
        Why::InternalError,
        Why::Expired,
        Why::ServiceUnavailable,
    ];
    let of = |(n, reason): (usize, Why)| Status {
        code: 400 + n as u16,
        reason,
        message: "why".into(),
        details: n.is_multiple_of(2).then(|| Box::new(details.clone())),
        success: n.is_multiple_of(3),
        continue_token: "on".into(),
    };
    reasons.into_iter().enumerate().map(of).collect()
}

fn list_plan(at: At) -> ListPlan {
    ListPlan {
        at,
        selection: selection(),
        limit: 2,
        after: Some("a".into()),
        namespace: "shop".into(),
        warnings: vec!["old".into()],
    }
}

pub(super) fn watch_plan(start: WatchStart, selection: Selection) -> WatchPlan {
    WatchPlan { start, selection, bookmarks: true, timeout_seconds: 9, namespace: "shop".into() }
}

pub(super) fn snapshot(names: &[&str]) -> Snapshot {
    let objects = names.iter().zip(1..).map(|(n, at)| (Arc::from(*n), stored(n, at))).collect();
    Snapshot::shown("ConfigMap".into(), r(50), objects)
}

fn opened(start: WatchStart, state: bool) -> Outcome {
    Outcome::Watch(Box::new(Opened {
        kind: kinds::by_kind("", "v1", "ConfigMap").unwrap(),
        plan: watch_plan(start, Selection::default()),
        state: state.then(|| snapshot(&["a", "b"])),
        backlog: vec![change("c", 2), change("d", 3)],
        revision: r(60),
        serial: 12,
    }))
}

/// Every outcome, and every plan's every beginning.
pub(super) fn outcomes() -> Vec<Outcome> {
    let answer = |payload| Outcome::Done(Answer { code: 201, warnings: vec!["w".into()], payload });
    let status = statuses().remove(6);
    let mut all: Vec<Outcome> = statuses().into_iter().map(|s| Outcome::Refused(Box::new(s))).collect();
    all.extend([
        answer(Payload::Json(Bytes::from_static("{\"kind\":\"ä\"}".as_bytes()))),
        answer(Payload::Tree(tree())),
        answer(Payload::Status(Box::new(status))),
        Outcome::List {
            plan: ListPlan { selection: Selection::default(), limit: 1, ..list_plan(At::Latest) },
            snapshot: snapshot(&["a", "b", "c"]),
        },
        Outcome::Listed {
            found: ListAnswer {
                items: vec![Kept::Stored(stored("b", 2).json), Kept::Stored(stored("c", 3).json)],
                revision: r(50),
                continue_token: "token".into(),
                remaining: Some(7),
            },
            warnings: vec!["w".into()],
        },
        Outcome::Collected(snapshot(&["a", "b"])),
        Outcome::Collected(snapshot(&[])),
        Outcome::Recalled(vec![change("a", 1), change("b", 2), change("c", 3)]),
        Outcome::ListAll(list_plan(At::Latest)),
        Outcome::ListAll(list_plan(At::NotOlderThan(r(4)))),
        Outcome::ListAll(list_plan(At::Exactly(r(4)))),
        Outcome::WatchAll(watch_plan(WatchStart::After(r(3)), selection())),
        opened(WatchStart::State { not_older_than: Some(r(2)), mark: true }, true),
        opened(WatchStart::Newest(Some(r(2))), false),
        Outcome::Token(Token {
            namespace: "shop".into(),
            service_account: "default".into(),
            uid: "u".into(),
            audiences: vec!["a".into()],
            seconds: 3600,
            bound: Some(("Pod".into(), "p".into(), "v".into())),
            node: Some(("n".into(), "w".into())),
            request: tree(),
            warnings: vec!["w".into()],
        }),
        Outcome::Stream(Stream { object: stored("p", 4), subresource: "exec".into() }),
        Outcome::Reserve(Box::new(wanted())),
        Outcome::NotLeader,
        Outcome::Busy,
        Outcome::Unknown,
    ]);
    all
}

pub(super) fn to_cell() -> Vec<ToCell> {
    vec![
        ToCell::Hello { cell: CELL, epoch: 4, bundle: r(1 << 40) },
        ToCell::Subscribe { storage: "Pod".into(), after: Some(r(3)) },
        ToCell::Unsubscribe { storage: "Pod".into(), serial: 5 },
        ToCell::Progress { storage: "Pod".into() },
        ToCell::Close { at: r(99) },
        ToCell::Watch { call: Call(3), request: Arc::new(request(Verb::Watch, Body::None)) },
        ToCell::Leave { call: Call(3) },
        ToCell::Bundle { number: r(8) },
    ]
}

pub(super) fn from_cell() -> Vec<FromCell> {
    let storage: Arc<str> = "ConfigMap".into();
    let subscribed = |begin| FromCell::Subscribed { storage: storage.clone(), after: Some(r(3)), begin };
    let mut all = vec![
        FromCell::Welcome { epoch: 4, bundle: r(8) },
        subscribed(Begin::Open { revision: r(9), serial: 4, backlog: 2 }),
        subscribed(Begin::Gone { oldest: r(7) }),
        FromCell::Backlog { storage: storage.clone(), changes: vec![change("a", 4), change("b", 5)] },
        FromCell::Events { storage: storage.clone(), changes: vec![change("a", 6)] },
        FromCell::Progress { storage: storage.clone(), revision: r(6) },
        FromCell::Closed { revision: r(77) },
        FromCell::Answer { call: Call(3), frame: Bytes::from_static(b"frame") },
        FromCell::Bundle { number: r(8) },
    ];
    all.extend(ends().into_iter().map(FromCell::End));
    all
}

pub(super) fn ends() -> Vec<End> {
    vec![
        End::Elsewhere(Some(redirect())),
        End::Elsewhere(None),
        End::Replaced,
        End::Slow,
        End::Stopping,
        End::Forbidden("no keeper of it".into()),
    ]
}

pub(super) fn about_pods() -> Vec<schedule::Message> {
    let tender = Tender { cell: CELL, term: 3, number: 4 };
    let (pod, uid) = (stored("web-1", 9), Uid(5));
    let beside = Beside {
        wanted: 1,
        unwanted: vec![0, 2],
        refused: ["zone".to_owned()].into(),
        worth: [("host".to_owned(), -3)].into(),
    };
    let victim =
        Victim { uid: "v".into(), namespace: "shop".into(), name: "old".into(), priority: -5, created: Wall(6) };
    let reason = Reason { text: "Insufficient cpu".into(), preemptible: true };
    let tendered = |ask| ToNode::Tender { tender, pod: pod.clone(), ask };
    let assignment = Assignment {
        cell: CELL,
        namespace: "shop".into(),
        whole: true,
        pods: vec![("web-1".into(), Some(stored("web-1", 9))), ("web-2".into(), None)],
    };
    let to_node = [
        tendered(Ask::Bid),
        tendered(Ask::Without([Uid(1), Uid(2)].into())),
        tendered(Ask::Look),
        ToNode::Preempt { tender, pod: pod.clone(), gone: [Uid(3)].into() },
        ToNode::Withdraw { tender, uid },
        ToNode::Confirm { tender, uid },
        ToNode::Release { tender, uid },
        ToNode::Assigned(Assigned { term: 3, number: 8, boot: Some(BootId(6)), assignment }),
        ToNode::Stands(Stands { cell: CELL, term: 3, number: 8 }),
    ];
    let to_leader = [
        ToLeader::Bid { tender, score: 900, beside: beside.clone() },
        ToLeader::Unfit { tender, reasons: vec![reason], contended: true, offer: Some(vec![victim]), beside },
        ToLeader::NotNow { tender },
        ToLeader::Confirmed { tender },
        ToLeader::Lapsed { tender },
        ToLeader::Made { tender, uid, name: "web-1".into() },
        ToLeader::Keeping { tender, uid, name: "web-1".into() },
        ToLeader::Ask { cell: CELL, boot: BootId(6) },
        ToLeader::WhatBecame { tender, uid, name: "web-1".into() },
    ];
    let to_node = to_node.into_iter().map(schedule::Message::ToNode);
    let to_leader = to_leader.into_iter().map(schedule::Message::ToLeader);
    to_node.chain(to_leader).collect()
}

pub(super) fn of_cells() -> Vec<cell::Message> {
    let entry = raft::message::Entry { term: 3, index: 5, kind: 0, payload: Bytes::from_static(b"objects") };
    let append = raft::Body::Append { prev_index: 4, prev_term: 2, commit: 3, entries: vec![entry] };
    let raft = |body| raft::Message { cell: CELL, epoch: 5, from: ReplicaId(2), to: ReplicaId(1), term: 3, body };
    let led = heartbeat::Led { leader: ReplicaId(1), member: ReplicaId(2), term: 3 };
    let beat = heartbeat::Message::Beat { boot: BootId(1), number: 2, version: 3, list: Some([(CELL, led)].into()) };
    let answer =
        heartbeat::Message::Answer { boot: BootId(2), to_boot: BootId(1), number: 2, version: 3, not: [CELL].into() };
    vec![
        cell::Message::Raft(raft(append)),
        cell::Message::Raft(raft(raft::Body::TimeoutNow)),
        cell::Message::Heartbeat(beat),
        cell::Message::Heartbeat(answer),
    ]
}

/// One of each message about who keeps cells.
pub(super) fn keeping() -> Vec<keep::Message> {
    use keep::Message::{Beacon, Confirm, Confirmed, End, Ended, Former, Seat};
    let (cell, replica, epoch) = (CELL, ReplicaId(0x0102), 0x0304);
    let zone = "zürich".to_owned();
    let beacon = keep::Beacon { boot: BootId(5), up_ms: 6, zone, is_lossy: true, cells: 7, leads: 8, snapshots: 9 };
    vec![
        Beacon(beacon),
        Seat { cell, replica, purpose: Bytes::from_static(b"purpose") },
        Confirm { cell, epoch },
        Confirmed { cell, replica, epoch },
        Former { cell, replica },
        End { cell, replica },
        Ended { cell, replica },
    ]
}
