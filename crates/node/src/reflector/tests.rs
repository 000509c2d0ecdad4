#![allow(clippy::unwrap_used)]

use super::*;
use objects::kinds;
use serde_json::json;
use std::collections::VecDeque;

/// A reflector of Nodes and the one who answers it, line by line.
struct Script {
    reflector: Reflector,
    now: Now,
    fx: VecDeque<Effect>,
}

/// A change in short: the name, and the revisions before and after.
type Told = (String, Option<u64>, Option<u64>);

fn config(objects_max: usize) -> Config {
    let kind = kinds::by_kind("", "v1", "Node").unwrap();
    Config { user: crate::errand::scheduler(), kind, namespace: None, objects_max }
}

fn node(name: &str, revision: u64) -> Tree {
    json!({"metadata": {"name": name, "resourceVersion": revision.to_string(), "managedFields": [{}]}})
}

fn list(revision: u64, after: &str, items: &[(&str, u64)]) -> Answered {
    let items: Vec<Tree> = items.iter().map(|(name, revision)| node(name, *revision)).collect();
    Ok(json!({"metadata": {"resourceVersion": revision.to_string(), "continue": after}, "items": items}))
}

fn there(name: &str, revision: u64) -> Event {
    Event::There(node(name, revision))
}

fn gone(name: &str, revision: u64) -> Event {
    Event::Gone(node(name, revision))
}

fn upto(revision: u64) -> Event {
    Event::Upto(Revision::from_u64(revision).unwrap())
}

fn expired() -> Option<Box<Status>> {
    Some(Box::new(Status::expired("forgotten")))
}

fn busy() -> Box<Status> {
    Box::new(Status::unavailable("nobody leads"))
}

impl Script {
    fn new(objects_max: usize, seed: u64) -> Script {
        let reflector = Reflector::new(config(objects_max), Chance::from_u64(seed));
        let mut script = Script { reflector, now: Now::default(), fx: VecDeque::new() };
        script.step(Input::Tick);
        script
    }

    /// One that has listed these, at 10, and watches.
    fn watching(items: &[(&str, u64)]) -> (Script, ErrandId) {
        let mut s = Script::new(100, 7);
        let (id, _) = s.lists();
        s.step(Input::Listed { id, answer: list(10, "", items) });
        s.changed();
        assert_eq!(s.synced(), 10);
        let (id, from) = s.watches();
        assert_eq!(from, "10");
        s.step(Input::Opened { id });
        (s, id)
    }

    fn step(&mut self, input: Input) {
        let mut fx = Vec::new();
        self.reflector.step(self.now, input, &mut fx);
        self.reflector.check();
        self.fx.extend(fx);
    }

    fn tell(&mut self, id: ErrandId, events: &[Event]) {
        self.step(Input::Told { id, events: events.to_vec() });
    }

    /// Until its next deadline, which is so far away.
    fn wait(&mut self) -> Duration {
        assert!(self.fx.is_empty(), "{:?}", self.fx);
        let at = self.reflector.next_deadline().unwrap();
        let pause = at.since(self.now.mono);
        self.now.mono = self.now.mono.max(at);
        self.step(Input::Tick);
        pause
    }

    fn pass(&mut self, pause: Duration) {
        self.now.mono = self.now.mono + pause;
    }

    /// The list it asks for: which question, and where it goes on.
    fn lists(&mut self) -> (ErrandId, String) {
        match self.fx.pop_front() {
            Some(Effect::List { id, errand }) => {
                assert_eq!((errand.verb, errand.options.limit), (Verb::List, PAGE));
                (id, errand.options.continue_token)
            }
            other => panic!("expected a list, not {other:?}"),
        }
    }

    /// The watch it asks for, and from where.
    fn watches(&mut self) -> (ErrandId, String) {
        match self.fx.pop_front() {
            Some(Effect::Watch { id, errand }) => {
                assert!(errand.verb == Verb::Watch && errand.options.bookmarks);
                (id, errand.options.resource_version)
            }
            other => panic!("expected a watch, not {other:?}"),
        }
    }

    fn changed(&mut self) -> Vec<Told> {
        let revision = |t: Option<Arc<Tree>>| t.map(|t| revision_of(&t).unwrap().get());
        match self.fx.pop_front() {
            Some(Effect::Changed(all)) => {
                all.into_iter().map(|c| (c.name.to_string(), revision(c.before), revision(c.after))).collect()
            }
            other => panic!("expected changes, not {other:?}"),
        }
    }

    fn synced(&mut self) -> u64 {
        match self.fx.pop_front() {
            Some(Effect::Synced { revision }) => revision.get(),
            other => panic!("expected the end of a list, not {other:?}"),
        }
    }

    fn leaves(&mut self) -> ErrandId {
        match self.fx.pop_front() {
            Some(Effect::Leave { id }) => id,
            other => panic!("expected that it leaves, not {other:?}"),
        }
    }

    fn names(&self) -> Vec<&str> {
        self.reflector.objects().map(|(name, _)| &**name).collect()
    }
}

fn told(name: &str, before: Option<u64>, after: Option<u64>) -> Told {
    (name.to_owned(), before, after)
}

#[test]
fn what_there_is_is_told_and_then_what_happens() {
    let mut s = Script::new(100, 1);
    assert!(!s.reflector.is_synced() && s.reflector.age(s.now.mono).is_none());
    let (id, after) = s.lists();
    assert_eq!(after, "");
    s.step(Input::Listed { id, answer: list(10, "", &[("a", 3), ("b", 9)]) });
    assert_eq!(s.changed(), [told("a", None, Some(3)), told("b", None, Some(9))]);
    assert_eq!(s.synced(), 10);
    let (id, from) = s.watches();
    assert_eq!(from, "10");
    s.step(Input::Opened { id });
    s.tell(id, &[there("a", 11), there("c", 12), gone("b", 13)]);
    assert_eq!(s.changed(), [told("a", Some(3), Some(11)), told("c", None, Some(12)), told("b", Some(9), None)]);
    assert_eq!(s.names(), ["a", "c"]);
    assert!(s.reflector.get("a").unwrap()["metadata"]["managedFields"].is_null(), "nobody here looks at those");
    assert!(s.fx.is_empty());
}

#[test]
fn a_watch_of_a_cell_that_was_empty_begins_with_what_there_is() {
    let mut s = Script::new(100, 1);
    let (id, _) = s.lists();
    s.step(Input::Listed { id, answer: list(0, "", &[]) });
    assert_eq!(s.synced(), 0);
    let (id, from) = s.watches();
    assert_eq!(from, "0");
    s.step(Input::Opened { id });
    // A state is in the order of names.
    s.tell(id, &[Event::State(vec![node("a", 9), node("b", 3)])]);
    assert_eq!(s.changed(), [told("a", None, Some(9)), told("b", None, Some(3))]);
    s.tell(id, &[there("a", 9), upto(9), there("c", 10)]);
    assert_eq!(s.changed(), [told("c", None, Some(10))]);
    s.tell(id, &[Event::State(vec![json!({})])]);
    assert_eq!(s.leaves(), id);
}

#[test]
fn a_list_in_pieces_is_told_as_one_and_begins_anew_if_its_rest_is_gone() {
    let mut s = Script::new(100, 1);
    let (id, _) = s.lists();
    s.step(Input::Listed { id, answer: list(10, "more", &[("a", 3)]) });
    let (id, after) = s.lists();
    assert_eq!(after, "more");
    s.step(Input::Listed { id, answer: Err(expired().unwrap()) });
    s.wait();
    let (id, after) = s.lists();
    assert_eq!(after, "");
    s.step(Input::Listed { id, answer: list(20, "more", &[("b", 11)]) });
    let (id, _) = s.lists();
    s.step(Input::Listed { id, answer: list(20, "", &[("c", 12)]) });
    assert_eq!(s.changed(), [told("b", None, Some(11)), told("c", None, Some(12))]);
    assert_eq!((s.synced(), s.watches().1.as_str()), (20, "20"));
}

#[test]
fn a_watch_that_ends_goes_on_where_it_was() {
    for why in [None, Some(busy())] {
        let (mut s, id) = Script::watching(&[("a", 3)]);
        s.tell(id, &[there("a", 12), upto(15)]);
        s.changed();
        s.step(Input::Ended { id, why });
        assert!(s.wait() < FIRST * 3, "a new leader is asked soon");
        assert_eq!(s.watches().1, "15");
        assert_eq!(s.names(), ["a"]);
    }
}

#[test]
fn a_gone_revision_lists_again() {
    // Refused at once, or ended so.
    for opened in [false, true] {
        let (mut s, id) = Script::watching(&[("a", 3), ("b", 4), ("c", 5)]);
        s.step(Input::Ended { id, why: None });
        s.wait();
        let (id, _) = s.watches();
        if opened {
            s.step(Input::Opened { id });
        }
        s.step(Input::Ended { id, why: expired() });
        s.wait();
        let (id, _) = s.lists();
        assert_eq!(s.names(), ["a", "b", "c"], "what is known holds until more is known");
        s.step(Input::Listed { id, answer: list(40, "", &[("a", 3), ("c", 30), ("d", 31)]) });
        let changes = [told("c", Some(5), Some(30)), told("d", None, Some(31)), told("b", Some(4), None)];
        assert_eq!(s.changed(), changes, "only what differs");
        assert_eq!((s.synced(), s.watches().1.as_str()), (40, "40"));
    }
}

#[test]
fn nothing_is_told_twice() {
    let (mut s, id) = Script::watching(&[("a", 3)]);
    s.tell(id, &[there("a", 11), gone("b", 12)]);
    assert_eq!(s.changed(), [told("a", Some(3), Some(11))], "what was never told is not told to be gone");
    // The cell goes back a little, as one that does not know what was told may.
    s.tell(id, &[there("a", 11), there("b", 9), gone("b", 12)]);
    assert!(s.fx.is_empty(), "{:?}", s.fx);
    s.step(Input::Ended { id, why: expired() });
    s.wait();
    let (id, _) = s.lists();
    s.step(Input::Listed { id, answer: list(12, "", &[("a", 11)]) });
    assert_eq!(s.synced(), 12, "nothing differs: nothing is told");
}

#[test]
fn a_silent_watch_is_begun_again_and_one_that_says_how_far_it_is_is_not() {
    let (mut s, id) = Script::watching(&[("a", 3)]);
    s.pass(SILENT - Duration::from_secs(1));
    s.tell(id, &[upto(20)]);
    assert_eq!(s.wait(), SILENT);
    assert_eq!(s.leaves(), id);
    s.wait();
    let (next, from) = s.watches();
    assert_eq!(from, "20");
    s.step(Input::Opened { id: next });
    s.tell(id, &[there("a", 21)]);
    assert!(s.fx.is_empty(), "nobody listens to the one that was left");
}

#[test]
fn an_answer_that_does_not_come_is_asked_for_again_and_not_taken_when_it_comes() {
    let mut s = Script::new(100, 1);
    let (id, _) = s.lists();
    assert_eq!(s.wait(), ANSWERED_WITHIN);
    assert_eq!(s.leaves(), id);
    s.wait();
    let (again, _) = s.lists();
    s.step(Input::Listed { id, answer: list(10, "", &[("a", 3)]) });
    assert!(s.fx.is_empty());
    s.step(Input::Listed { id: again, answer: list(12, "", &[]) });
    assert_eq!(s.synced(), 12);
    let (id, _) = s.watches();
    assert_eq!(s.wait(), ANSWERED_WITHIN);
    assert_eq!(s.leaves(), id);
}

#[test]
fn who_is_refused_waits_longer_each_time_and_not_as_long_as_others() {
    let pauses = |seed| {
        let mut s = Script::new(100, seed);
        let mut pause = || {
            let (id, _) = s.lists();
            s.step(Input::Listed { id, answer: Err(busy()) });
            s.wait()
        };
        (0..20).map(|_| pause()).collect::<Vec<_>>()
    };
    let (one, other) = (pauses(1), pauses(2));
    for (n, pause) in one.iter().enumerate() {
        let most = (FIRST * (1 << (n + 1).min(16))).min(LONGEST);
        assert!(*pause >= most / 2 && *pause < most * 3 / 2, "{n}: {pause:?}");
    }
    assert!(one.iter().zip(&other).all(|(a, b)| a != b), "they would all come at once");
    assert_eq!(one, pauses(1));
}

#[test]
fn a_watch_that_stood_is_resumed_soon_and_one_that_never_stands_later_and_later() {
    let (mut s, mut id) = Script::watching(&[("a", 3)]);
    let mut pause = Duration::ZERO;
    for _ in 0..10 {
        s.step(Input::Ended { id, why: None });
        pause = s.wait();
        id = s.watches().0;
        s.step(Input::Opened { id });
    }
    assert!(pause > LONGEST / 4, "{pause:?}");
    s.pass(STOOD);
    s.step(Input::Ended { id, why: None });
    assert!(s.wait() < FIRST * 2);
}

#[test]
fn who_cannot_watch_from_where_it_is_lists_before_it_tries_on() {
    let (mut s, id) = Script::watching(&[("a", 3)]);
    s.step(Input::Ended { id, why: None });
    for _ in 0..OPENINGS {
        s.wait();
        let (id, from) = s.watches();
        assert_eq!(from, "10");
        s.step(Input::Ended { id, why: Some(busy()) });
    }
    s.wait();
    s.lists();
}

#[test]
fn what_makes_no_sense_is_not_believed() {
    let nameless = || json!({"metadata": {"resourceVersion": "11"}});
    let undated = || json!({"metadata": {"name": "a", "resourceVersion": "soon"}});
    for answer in [
        json!({}),
        json!({"metadata": {"resourceVersion": "10"}}),
        json!({"items": []}),
        json!({"metadata": {"resourceVersion": "10"}, "items": {}}),
        json!({"metadata": {"resourceVersion": "10"}, "items": [nameless()]}),
        json!({"metadata": {"resourceVersion": "10"}, "items": [undated()]}),
        json!({"metadata": {"resourceVersion": "10", "continue": "on"}, "items": []}),
        json!({"metadata": {"resourceVersion": u64::MAX.to_string()}, "items": []}),
    ] {
        let mut s = Script::new(100, 1);
        let (id, _) = s.lists();
        s.step(Input::Listed { id, answer: Ok(answer) });
        s.wait();
        assert_eq!(s.lists().1, "");
        assert!(!s.reflector.is_synced());
    }
    for tree in [nameless(), undated(), json!(7)] {
        let (mut s, id) = Script::watching(&[("a", 3)]);
        s.tell(id, &[there("a", 11), Event::There(tree), there("b", 13)]);
        assert_eq!(s.changed(), [told("a", Some(3), Some(11))]);
        assert_eq!(s.leaves(), id);
        s.wait();
        s.lists();
    }
}

#[test]
fn what_is_beyond_the_bound_is_left_out_until_there_is_room() {
    let mut s = Script::new(2, 1);
    let (id, _) = s.lists();
    s.step(Input::Listed { id, answer: list(10, "more", &[("a", 1), ("b", 2), ("c", 3)]) });
    assert_eq!(s.changed().len(), 2);
    assert_eq!(s.synced(), 10);
    assert!(matches!(s.fx.pop_front(), Some(Effect::Full)));
    let (id, _) = s.watches();
    s.step(Input::Opened { id });
    s.tell(id, &[there("d", 11), there("b", 12)]);
    assert_eq!(s.changed(), [told("b", Some(2), Some(12))]);
    s.tell(id, &[gone("a", 13)]);
    assert_eq!(s.changed(), [told("a", Some(1), None)]);
    assert_eq!(s.leaves(), id);
    s.wait();
    let (id, _) = s.lists();
    s.step(Input::Listed { id, answer: list(13, "", &[("b", 12), ("c", 3)]) });
    assert_eq!(s.changed(), [told("c", None, Some(3))]);
    assert_eq!(s.synced(), 13);
    assert_eq!(s.watches().1, "13");
    assert!(s.fx.is_empty(), "now there is room for all of them");
}

#[test]
fn knowledge_is_as_old_as_the_last_word_of_it() {
    let mut s = Script::new(100, 1);
    let (id, _) = s.lists();
    s.pass(Duration::from_secs(3));
    s.step(Input::Listed { id, answer: list(10, "", &[]) });
    let age = |s: &Script| s.reflector.age(s.now.mono).unwrap().as_secs();
    assert_eq!(age(&s), 3, "a list shows what there was when it was asked for, or later");
    s.synced();
    let (id, _) = s.watches();
    s.step(Input::Opened { id });
    s.pass(Duration::from_secs(50));
    assert_eq!(age(&s), 53);
    s.tell(id, &[upto(20)]);
    assert_eq!(age(&s), 0);
    s.step(Input::Ended { id, why: None });
    s.pass(Duration::from_secs(70));
    assert_eq!(age(&s), 70);
}

/// A cell that forgets, and a way to it that loses answers and ends watches.
struct Source {
    chance: Chance,
    all: BTreeMap<String, u64>,
    history: Vec<(u64, String, bool)>,
    oldest: u64,
    revision: u64,
    /// The watch, and up to where it was told.
    watch: Option<(ErrandId, u64)>,
}

impl Source {
    fn change(&mut self) {
        self.revision += 1 + self.chance.below(3);
        let name = format!("n{}", self.chance.below(8));
        let there = self.chance.below(3) > 0;
        if there {
            self.all.insert(name.clone(), self.revision);
        } else if self.all.remove(&name).is_none() {
            return;
        }
        self.history.push((self.revision, name, there));
        if self.chance.below(20) == 0 {
            self.oldest = self.revision;
            self.history.clear();
        }
    }

    fn list(&self, after: &str) -> Answered {
        // Pieces of three; what changes between two of them is in the later one, as no cell would do it.
        let after = after.to_owned();
        let rest: Vec<(&str, u64)> = self.all.iter().filter(|(n, _)| **n > after).map(|(n, r)| (&**n, *r)).collect();
        let piece = &rest[..rest.len().min(3)];
        let next = if rest.len() > 3 { piece.last().map_or("", |p| p.0) } else { "" };
        list(self.revision, next, piece)
    }
}

#[test]
fn a_copy_comes_to_what_there_is_whatever_happens_on_the_way() {
    for seed in 0..300 {
        let mut s = Script::new(100, seed);
        let mut chance = Chance::from_u64(seed).stream("way");
        let mut cell = Source {
            chance: Chance::from_u64(seed).stream("cell"),
            all: BTreeMap::new(),
            history: Vec::new(),
            oldest: 0,
            revision: 1,
            watch: None,
        };
        let mut copy: BTreeMap<String, u64> = BTreeMap::new();
        for round in 0..400 {
            let quiet = round >= 340;
            let fails = |chance: &mut Chance| !quiet && chance.below(6) == 0;
            if !quiet {
                cell.change();
            }
            match s.fx.pop_front() {
                Some(Effect::List { id, errand }) if fails(&mut chance) => {
                    let answer = Err(busy());
                    drop(errand);
                    s.step(Input::Listed { id, answer });
                }
                Some(Effect::List { id, errand }) => {
                    // A cell lists all pieces at one revision: here nothing changes in between.
                    let mut answer = cell.list(&errand.options.continue_token);
                    let mut id = id;
                    loop {
                        s.step(Input::Listed { id, answer });
                        let Some(Effect::List { .. }) = s.fx.front() else { break };
                        let (next, after) = s.lists();
                        (id, answer) = (next, cell.list(&after));
                    }
                }
                Some(Effect::Watch { id, errand }) => {
                    let from: u64 = errand.options.resource_version.parse().unwrap();
                    let why = if fails(&mut chance) { Some(busy()) } else { expired().filter(|_| from < cell.oldest) };
                    if why.is_some() {
                        s.step(Input::Ended { id, why });
                    } else {
                        cell.watch = Some((id, from));
                        s.step(Input::Opened { id });
                    }
                }
                Some(Effect::Leave { id }) => {
                    cell.watch.take_if(|(watch, _)| *watch == id);
                }
                Some(Effect::Changed(changes)) => {
                    for c in changes {
                        let revision = |t: &Arc<Tree>| revision_of(t).unwrap().get();
                        let was = copy.get(&*c.name).copied();
                        assert_eq!(was, c.before.as_ref().map(revision), "seed {seed}: {}", c.name);
                        let is = c.after.as_ref().map(revision);
                        assert_ne!(was, is, "seed {seed}: told twice");
                        match is {
                            Some(revision) => copy.insert(c.name.to_string(), revision),
                            None => copy.remove(&*c.name),
                        };
                    }
                }
                Some(Effect::Synced { .. }) => {}
                Some(Effect::Full) => panic!("seed {seed}: there are few"),
                None => match cell.watch {
                    Some((id, _)) if fails(&mut chance) => {
                        cell.watch = None;
                        s.step(Input::Ended { id, why: None });
                    }
                    Some((id, from)) => {
                        if from < cell.oldest {
                            cell.watch = None;
                            s.step(Input::Ended { id, why: expired() });
                            continue;
                        }
                        let new = cell.history.iter().filter(|(r, ..)| *r > from);
                        let events: Vec<Event> =
                            new.map(|(r, name, is)| if *is { there(name, *r) } else { gone(name, *r) }).collect();
                        cell.watch = Some((id, cell.revision));
                        s.tell(id, &events);
                    }
                    None => {
                        s.wait();
                    }
                },
            }
        }
        assert_eq!(copy, cell.all, "seed {seed}");
        let known: BTreeMap<String, u64> =
            s.reflector.objects().map(|(name, tree)| (name.to_string(), revision_of(tree).unwrap().get())).collect();
        assert_eq!(known, cell.all, "seed {seed}");
    }
}
