//! One cell of one member, as scripts: requests in, answers out, a disk that keeps only what it said it
//! kept.

#![allow(clippy::unwrap_used, clippy::panic)]

use agree::log::Record;
use base::{CellId, Chance, NodeId, Now, RequestId, Time, Uid, Wall};
use node::bundle::Bundle;
use node::cell::{Cell, Config, Effect, Found, Input, Outcome, ReplyTo, Role};
use node::genesis;
use objects::decision::Payload;
use objects::kinds;
use objects::request::{Body, Config as Settings, Options, Request, User, Verb};
use objects::select::LabelSelector;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A cell, its disk and whoever waits for it.
struct World {
    cell: Cell,
    now: Now,
    /// Written and durable.
    disk: Vec<Record>,
    /// Written, not durable: lost in a power cut.
    cache: VecDeque<(agree::log::Ticket, Vec<Record>)>,
    answers: BTreeMap<u64, Outcome>,
    events: Vec<(String, String)>,
    next: u64,
    /// The disk is full: only what is vital may be written.
    full: bool,
    /// How often the log was told to go on after a refusal.
    resumed: u64,
    /// The log's questions that are to be asked again.
    later: Vec<u64>,
    /// Those that were answered.
    carried: Vec<u64>,
    /// Nothing is left of it.
    ended: bool,
}

fn id() -> CellId {
    CellId(Uid::from_chance(7))
}

fn bundle() -> Arc<Bundle> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "d", "uid": id().to_string()},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    let change = node::bundle::Change { storage: "Namespace", name: "d", tree: Some(namespace) };
    Arc::new(Bundle::default().with(base::Revision::from_u64(1 << 40).unwrap(), [change]))
}

impl World {
    fn new(found: Option<Found>, wall: Wall) -> World {
        World::with(
            Config::new(id(), Role::Namespace("d".into()), NodeId([1; 32]), Arc::new(Settings::default())),
            found,
            wall,
        )
    }

    fn with(config: Config, found: Option<Found>, wall: Wall) -> World {
        let genesis = genesis::namespace("d", id().0, bundle().number(), "PEM", wall);
        let now = Now { mono: Time::from_ms(1), wall };
        let disk = found.as_ref().map(|f| f.records.clone()).unwrap_or_default();
        let cell = Cell::new(config, found, bundle(), Some(genesis), &Chance::from_u64(1), now).unwrap();
        let mut w = World {
            cell,
            now,
            disk,
            cache: VecDeque::new(),
            answers: BTreeMap::new(),
            events: Vec::new(),
            next: 1,
            full: false,
            resumed: 0,
            later: Vec::new(),
            carried: Vec::new(),
            ended: false,
        };
        w.step(Input::Tick);
        w
    }

    fn step(&mut self, input: Input) {
        let mut fx = Vec::new();
        self.cell.step(self.now, input, &mut fx);
        self.cell.check();
        for e in fx {
            match e {
                Effect::Resume => self.resumed += 1,
                Effect::Ended => self.ended = true,
                Effect::CarriedLater { question } => self.later.push(question),
                Effect::Carried { question, .. } => self.carried.push(question),
                Effect::Persist { ticket, records, vital } => {
                    assert!(vital || !self.full, "the log would refuse this: {records:?}");
                    self.cache.push_back((ticket, records));
                }
                Effect::Reply(r) => {
                    assert!(self.answers.insert(r.to.0, r.outcome).is_none(), "answered twice");
                }
                Effect::Events { changes, .. } => {
                    for c in changes.iter() {
                        let what = match (&c.before, &c.after) {
                            (None, Some(_)) => "added",
                            (Some(_), Some(_)) => "modified",
                            _ => "deleted",
                        };
                        self.events.push((what.into(), c.key.name.to_string()));
                    }
                }
                _ => {}
            }
        }
    }

    /// The disk has kept everything it was given.
    fn sync(&mut self) {
        while let Some((ticket, records)) = self.cache.pop_front() {
            self.disk.extend(records);
            self.step(Input::Durable(ticket));
        }
    }

    /// Power is cut and comes back.
    fn power_cut(self) -> World {
        let found = Found { records: self.disk, lossy: false };
        World::new(Some(found), self.now.wall)
    }

    fn request(&mut self, verb: Verb, name: &str, body: Option<Value>) -> Request {
        self.next += 1;
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
            body: body.map_or(Body::None, |tree| Body::Object { tree, strict: Vec::new() }),
            uid: Uid::from_chance(u128::from(self.next) << 64 | u128::from(self.next)),
            suffix: self.next,
        }
    }

    /// Carries a request out to its answer.
    fn done(&mut self, request: Request) -> Outcome {
        let to = self.post(request);
        self.sync();
        self.answers.remove(&to).expect("it was answered")
    }

    fn post(&mut self, request: Request) -> u64 {
        self.next += 1;
        let to = self.next;
        self.step(Input::Request { to: ReplyTo(to), request: Arc::new(request) });
        to
    }

    fn create(&mut self, name: &str, value: &str) -> u64 {
        let body = map(name, value);
        let r = self.request(Verb::Create, name, Some(body));
        self.post(r)
    }

    fn get(&mut self, name: &str) -> Outcome {
        let r = self.request(Verb::Get, name, None);
        let to = self.post(r);
        self.answers.remove(&to).expect("a leader alone confirms itself at once")
    }

    fn code(&mut self, to: u64) -> Option<u16> {
        self.answers.remove(&to).map(|o| code(&o))
    }
}

fn map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "d"}, "data": {"v": value}})
}

fn code(o: &Outcome) -> u16 {
    match o {
        Outcome::Done(a) => a.code,
        Outcome::Refused(s) => s.code,
        Outcome::NotLeader => 1,
        Outcome::Busy => 2,
        Outcome::Unknown => 3,
        _ => 0,
    }
}

fn tree(o: &Outcome) -> Value {
    match o {
        Outcome::Done(a) => match &a.payload {
            Payload::Json(b) => serde_json::from_slice(b).unwrap(),
            p => p.tree(),
        },
        _ => Value::Null,
    }
}

fn world() -> World {
    let mut w = World::new(None, Wall(1_769_846_400_000));
    w.sync();
    assert!(w.cell.is_leading());
    w
}

#[test]
fn a_write_is_answered_only_once_it_is_on_the_disk() {
    let mut w = world();
    let to = w.create("a", "1");
    assert_eq!(w.code(to), None);
    assert_eq!(code(&w.get("a")), 404, "nobody sees what is not committed");
    w.sync();
    assert_eq!(w.code(to), Some(201));
    assert_eq!(tree(&w.get("a"))["data"]["v"], "1");
}

#[test]
fn two_creates_of_one_name_in_flight_see_each_other() {
    let mut w = world();
    let (first, second) = (w.create("a", "1"), w.create("a", "2"));
    assert_eq!(w.code(second), None, "the refusal rests on an entry that is not committed");
    w.sync();
    assert_eq!((w.code(first), w.code(second)), (Some(201), Some(409)));
}

#[test]
fn a_write_that_was_not_taken_leaves_what_is_in_flight_below_it() {
    let mut config = Config::new(id(), Role::Namespace("d".into()), NodeId([1; 32]), Arc::new(Settings::default()));
    // One entry at a time: any further proposal is refused as long as it is not committed.
    (config.raft.uncommitted_bytes, config.raft.append_bytes) = (1, 1);
    let mut w = World::with(config, None, Wall(1_769_846_400_000));
    w.sync();
    let first = w.create("a", "1");
    let delete = w.request(Verb::Delete, "a", None);
    let delete = w.post(delete);
    assert_eq!(w.code(delete), Some(2), "the replica took it");
    let second = w.create("a", "2");
    assert_eq!(w.code(second), None, "decided without the first, which is still in flight");
    w.sync();
    assert_eq!((w.code(first), w.code(second)), (Some(201), Some(409)));
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_and_what_was_not_may_be_gone() {
    let mut w = world();
    let kept = w.create("kept", "1");
    w.sync();
    assert_eq!(w.code(kept), Some(201));
    let lost = w.create("lost", "1");
    assert_eq!(w.code(lost), None);
    let mut w = w.power_cut();
    w.sync();
    assert_eq!(tree(&w.get("kept"))["data"]["v"], "1");
    assert_eq!(code(&w.get("lost")), 404);
    assert_eq!(tree(&w.get("kube-root-ca.crt"))["data"]["ca.crt"], "PEM");
}

#[test]
fn a_retry_of_a_request_is_answered_and_not_executed_again() {
    let mut w = world();
    let r = w.request(Verb::Create, "a", Some(map("a", "1")));
    let first = w.post(r.clone());
    w.sync();
    assert_eq!(w.code(first), Some(201));
    let again = w.post(r.clone());
    assert_eq!(w.code(again), Some(201), "not AlreadyExists: it is the same request");
    let mut w = w.power_cut();
    w.sync();
    let after_restart = w.post(r);
    w.sync();
    assert_eq!(w.code(after_restart), Some(201), "the table is kept with the log");
}

#[test]
fn a_retry_that_meets_its_first_attempt_in_flight_is_told_to_ask_again() {
    let mut w = world();
    let r = w.request(Verb::Create, "a", Some(map("a", "1")));
    let (first, again) = (w.post(r.clone()), w.post(r.clone()));
    assert_eq!(w.code(again), Some(3), "neither AlreadyExists nor a revision that is never written");
    w.sync();
    assert_eq!(w.code(first), Some(201));
    let later = w.post(r);
    assert_eq!(w.code(later), Some(201));
}

#[test]
fn a_retry_is_answered_as_its_first_attempt_was_whatever_it_was_for() {
    let mut w = world();
    let of = |w: &mut World, kind: (&str, &str), verb, name: &str, sub: &str, body: Value| {
        let mut r = w.request(verb, name, Some(body));
        r.kind = kinds::by_kind(kind.0, "v1", kind.1).unwrap();
        r.subresource = sub.into();
        // In the URL of a subresource, of a create as well.
        r.name = (!sub.is_empty() || verb != Verb::Create).then(|| name.into());
        r
    };
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (kind, name, body) in [(("apps", "Deployment"), "web", deployment), (("", "Pod"), "p", pod)] {
        let r = of(&mut w, kind, Verb::Create, name, "", body);
        let made = w.done(r);
        assert_eq!(code(&made), 201, "{}", tree(&made));
    }
    for name in ["a", "b"] {
        let r = w.request(Verb::Create, name, Some(map(name, "1")));
        w.done(r);
    }
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 3}});
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": "n1"}});
    let now = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    let scale = of(&mut w, ("apps", "Deployment"), Verb::Update, "web", "scale", scale);
    let binding = of(&mut w, ("", "Pod"), Verb::Create, "p", "binding", binding);
    let one = w.request(Verb::Delete, "a", None);
    let pod = of(&mut w, ("", "Pod"), Verb::Delete, "p", "", now);
    let mut all = w.request(Verb::DeleteCollection, "", None);
    all.name = None;
    // What a list of a collection says of itself (its revision) and an object's change by its removal may differ.
    let shown = |o: &Outcome| {
        let mut t = tree(o);
        let names: Option<Vec<Value>> =
            t["items"].as_array().map(|i| i.iter().map(|o| o["metadata"]["name"].clone()).collect());
        t["metadata"]["resourceVersion"].take();
        (code(o), names.map_or(t.clone(), |n| json!([t["kind"], n])))
    };
    for r in [scale, binding, one, pod, all] {
        let what = (r.verb, r.subresource.clone());
        let first = shown(&w.done(r.clone()));
        assert_eq!(shown(&w.done(r)), first, "{what:?}");
    }
}

#[test]
fn one_entry_changes_no_more_than_the_log_can_hold() {
    let mut w = world();
    let large = |name: &str, finalizers: Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "finalizers": finalizers},
            "data": {"k": "x".repeat(900 << 10)}})
    };
    // Removed, and only marked.
    for finalizers in [json!([]), json!(["example.com/held"])] {
        for i in 0..11 {
            let r = w.request(Verb::Create, "", Some(large(&format!("m{i}"), finalizers.clone())));
            assert_eq!(code(&w.done(r)), 201);
        }
        let mut all = w.request(Verb::DeleteCollection, "", None);
        all.name = None;
        let Outcome::Refused(status) = w.done(all) else { panic!("an entry of {} MiB", 10) };
        assert_eq!((status.code, status.message.contains("nothing was changed")), (413, true));
        for i in 0..11 {
            let r = w.request(Verb::Delete, &format!("m{i}"), None);
            assert_eq!(code(&w.done(r)), 200);
        }
    }
    // In flight, where nothing is committed of them.
    let mut w = world();
    for i in 0..11 {
        let r = w.request(Verb::Create, "", Some(large(&format!("m{i}"), json!([]))));
        w.post(r);
    }
    let mut all = w.request(Verb::DeleteCollection, "", None);
    all.name = None;
    let to = w.post(all);
    assert!(matches!(&w.answers[&to], Outcome::Refused(s) if s.code == 413));
}

#[test]
fn who_may_act_as_an_account_of_a_namespace_is_known_in_its_cell() {
    use node::gateway::{grant, impersonate};
    let mut w = world();
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"},
        "rules": [{"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["ci"], "verbs": ["impersonate"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "r"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "ann"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}});
    for tree in [role, binding] {
        let kind = kinds::by_kind("rbac.authorization.k8s.io", "v1", tree["kind"].as_str().unwrap()).unwrap();
        let mut r = w.request(Verb::Create, "", Some(tree));
        r.kind = kind;
        assert_eq!(code(&w.done(r)), 201);
    }
    let admin = w.request(Verb::Get, "x", None).user;
    for (who, account, want) in [("ann", "ci", true), ("ann", "other", false), ("bob", "ci", false)] {
        let who = User { name: who.into(), ..User::default() };
        let wanted = User { name: format!("system:serviceaccount:d:{account}"), ..User::default() };
        let [asked] = &impersonate::required(&wanted)[..] else { panic!("{wanted:?}") };
        let question = grant::review(&who, asked, admin.clone()).unwrap();
        w.next += 1;
        let id = RequestId(u128::from(w.next) + (u128::from(w.now.wall.0) << 64));
        let answer = tree(&w.done(question.request(id, w.now.wall, Uid::from_chance(1), 1)));
        assert_eq!(grant::allows(Ok(answer)).unwrap(), want, "{who:?} {account}");
    }
}

#[test]
fn a_quiet_cell_forgets_what_happened_and_says_so_to_whoever_asks_for_it() {
    let mut w = world();
    let then = w.cell.state().revision();
    w.create("a", "1");
    w.sync();
    let since = |w: &mut World| {
        let mut r = w.request(Verb::Watch, "", None);
        r.options.resource_version = then.to_string();
        let to = w.post(r);
        w.answers.remove(&to).unwrap()
    };
    assert!(matches!(since(&mut w), Outcome::Watch(o) if o.backlog.len() == 1));
    assert!(w.cell.member().cell().history().bytes() > 0);
    // Nothing happens but what the cell itself asks to be woken for.
    let until = w.now.mono + std::time::Duration::from_secs(900);
    while let Some(at) = w.cell.next_deadline().filter(|at| *at < until) {
        w.now = Now { mono: at, wall: w.now.wall + at.since(w.now.mono) };
        w.step(Input::Tick);
        w.sync();
    }
    assert_eq!(w.cell.member().cell().history().bytes(), 0);
    let Outcome::Refused(gone) = since(&mut w) else { panic!("a watch with a hole in it") };
    assert_eq!((gone.code, gone.message.starts_with("too old resource version: ")), (410, true));
}

#[test]
fn a_watch_goes_on_where_its_list_ended() {
    let mut w = world();
    let a = w.create("a", "1");
    w.sync();
    w.code(a);
    let r = w.request(Verb::List, "", None);
    let to = w.post(r);
    let Some(Outcome::List { plan, snapshot }) = w.answers.remove(&to) else { panic!("no list") };
    let listed = plan.run(snapshot.iter(None), snapshot.revision());
    assert_eq!(listed.items.len(), 2);
    let b = w.create("b", "1");
    w.sync();
    w.code(b);
    let mut r = w.request(Verb::Watch, "", None);
    r.options.resource_version = listed.revision.to_string();
    let to = w.post(r);
    let Some(Outcome::Watch(opened)) = w.answers.remove(&to) else { panic!("no watch") };
    assert!(opened.state.is_none());
    let names: Vec<&str> = opened.backlog.iter().map(|c| &*c.key.name).collect();
    assert_eq!(names, ["b"]);
    let r = w.request(Verb::Delete, "a", None);
    w.post(r);
    w.sync();
    assert_eq!(w.events, [("deleted".to_owned(), "a".to_owned())]);
}

#[test]
fn a_list_at_an_older_revision_shows_what_was_then() {
    let mut w = world();
    w.create("a", "old");
    w.sync();
    let then = w.cell.state().revision();
    let mut changed = tree(&w.get("a"));
    changed["data"]["v"] = json!("new");
    let r = w.request(Verb::Update, "a", Some(changed));
    w.post(r);
    w.create("b", "1");
    w.sync();
    let mut r = w.request(Verb::List, "", None);
    r.options.resource_version = then.to_string();
    r.options.resource_version_match = "Exact".into();
    let to = w.post(r);
    let Some(Outcome::List { plan, snapshot }) = w.answers.remove(&to) else { panic!("no list") };
    let listed = plan.run(snapshot.iter(None), snapshot.revision());
    let mut shown = plan.clone();
    for (selector, after) in [("", None), ("a=b", None), ("a!=b", None), ("", Some("a")), ("", Some("zz"))] {
        shown.selection.labels = LabelSelector::parse(selector).unwrap();
        shown.after = after.map(str::to_owned);
        let made = shown.run(snapshot.iter(after), then).items;
        let lying = shown.run(snapshot.lying(after), then).items;
        let of = |json: &[u8]| String::from_utf8_lossy(json).into_owned();
        let made: Vec<String> = made.iter().map(|s| of(&s.json)).collect();
        assert_eq!(lying.iter().map(|k| of(k.json())).collect::<Vec<_>>(), made, "{selector:?} {after:?}");
    }
    let seen: Vec<Value> = listed.items.iter().map(|s| s.tree()["data"]["v"].clone()).collect();
    assert_eq!(seen[0], "old");
    assert_eq!(listed.items.len(), 2, "a and the trust bundle, and not b");
}

#[test]
fn a_revision_that_is_not_there_yet_is_waited_for_and_then_refused() {
    let mut w = world();
    let future = Wall(w.now.wall.0 + 3_600_000);
    let mut r = w.request(Verb::List, "", None);
    r.options.resource_version = base::Revision::end_of(future).to_string();
    let to = w.post(r);
    assert!(w.code(to).is_none());
    w.now.mono = w.cell.next_deadline().expect("it waits for a moment");
    w.step(Input::Tick);
    assert_eq!(w.code(to), Some(504));
}

#[test]
fn more_callers_than_the_bound_are_told_to_come_back() {
    let mut w = world();
    let all: Vec<u64> = (0..1100).map(|n| w.create(&format!("c{n}"), "x")).collect();
    let busy = all.iter().filter(|to| matches!(w.answers.get(to), Some(Outcome::Busy))).count();
    assert_eq!(busy, 76);
    w.sync();
    assert_eq!(all.iter().filter(|to| w.answers.get(to).is_some_and(|o| code(o) == 201)).count(), 1024);
}

#[test]
fn a_life_ends_though_the_log_takes_nothing_else_of_it() {
    let mut w = world();
    w.create("a", "1");
    let written: Vec<_> = w.cache.drain(..).collect();
    w.create("b", "1");
    // A log that has lost what it held refuses what is not the end of it, and what comes behind.
    w.cache.clear();
    w.step(Input::NotWritten(written[0].0));
    w.step(Input::End);
    let [(end, records)] = &w.cache.iter().cloned().collect::<Vec<_>>()[..] else { panic!("{:?}", w.cache) };
    assert!(matches!(records[..], [Record::Forget { .. }]) && w.resumed == 1, "{records:?}");
    w.cache.clear();
    w.step(Input::Rewrite { question: 1, segment: 1, records: Vec::new() });
    assert_eq!((&w.later[..], &w.carried[..]), (&[1][..], &[][..]), "behind its end nothing is carried");
    w.step(Input::End);
    assert!(w.cache.is_empty() && !w.ended, "it is being ended");
    w.step(Input::Durable(*end));
    assert!(w.ended);
}

#[test]
fn what_the_log_refused_is_asked_for_again_once_all_before_it_is_known_and_in_order() {
    let mut w = world();
    let (first, second) = (w.create("a", "1"), w.create("b", "1"));
    let written: Vec<_> = w.cache.drain(..).collect();
    let [a, b] = &written[..] else { panic!("{} writes", written.len()) };
    // The log sheds the second while the first is on its way.
    w.step(Input::NotWritten(b.0));
    let third = w.create("c", "1");
    assert_eq!(w.code(third), Some(503), "nothing new is taken meanwhile");
    w.now.mono = w.now.mono + std::time::Duration::from_secs(60);
    w.step(Input::Tick);
    assert!(w.cache.is_empty() && w.resumed == 0, "the first is not known yet");
    w.disk.extend(a.1.clone());
    w.step(Input::Durable(a.0));
    assert_eq!((w.code(first), w.code(second)), (Some(201), None));
    w.step(Input::Tick);
    assert_eq!(w.resumed, 1);
    assert_eq!(w.cache.pop_front().unwrap(), *b);
    let third = w.create("c", "1");
    assert_eq!(w.code(third), Some(503), "nor while the log has not caught up");
    let rewrite = |question| Input::Rewrite { question, segment: 1, records: Vec::new() };
    w.step(rewrite(1));
    w.disk.extend(b.1.clone());
    w.step(Input::Durable(b.0));
    w.step(rewrite(2));
    assert_eq!((w.later.clone(), w.carried.clone()), (vec![1], vec![2]), "answers do not pile up behind it");
    w.sync();
    assert_eq!(w.code(second), Some(201));
    let third = w.create("c", "1");
    w.sync();
    assert_eq!(w.code(third), Some(201));
}

#[test]
fn on_a_full_disk_writes_are_refused_deletes_go_through_and_nothing_acknowledged_is_lost() {
    let mut w = world();
    w.create("a", "1");
    let mut held = map("held", "1");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let held = w.request(Verb::Create, "held", Some(held));
    w.post(held);
    w.sync();
    w.step(Input::Space { ample: false });
    w.full = true;
    let refused = w.create("b", "1");
    assert_eq!(w.code(refused), Some(503));
    let r = w.request(Verb::Delete, "a", None);
    let deleted = w.post(r);
    w.sync();
    assert_eq!(w.code(deleted), Some(200));
    // One that somebody holds is marked first, which is a write, and goes when it is let go, which is another.
    let mut object = tree(&w.get("held"));
    object["metadata"]["labels"] = json!({"x": "y"});
    let label = w.request(Verb::Update, "held", Some(object.clone()));
    assert_eq!(code(&w.done(label)), 503, "a label makes no room");
    let delete = w.request(Verb::Delete, "held", None);
    assert_eq!(code(&w.done(delete)), 200);
    let mut object = tree(&w.get("held"));
    assert!(object["metadata"]["deletionTimestamp"].is_string());
    object["metadata"]["finalizers"] = json!([]);
    let release = w.request(Verb::Update, "held", Some(object));
    assert_eq!(code(&w.done(release)), 200);
    assert_eq!(code(&w.get("held")), 404);
    w.full = false;
    w.step(Input::Space { ample: true });
    let again = w.create("b", "1");
    w.sync();
    assert_eq!(w.code(again), Some(201));
}
