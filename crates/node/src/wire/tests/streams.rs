//! A watch's stream: order, pieces, bounds.

use super::samples::{self, change, r};
use crate::cell::{Change, Opened, Outcome, Snapshot, Subscription};
use crate::gateway::across;
use crate::wire::ask::AnswerError;
use crate::wire::watch::{CALLS_MAX, Call, End, FromCell, Hearing, Telling, ToCell, Told, hello};
use base::Revision;
use objects::read::WatchStart;
use objects::request::{Body, Verb};
use objects::select::Selection;
use std::sync::Arc;

fn storage() -> Arc<str> {
    "ConfigMap".into()
}

fn changes(from: u64, to: u64) -> Arc<[Change]> {
    (from..to).map(|n| change(&format!("c-{n}"), n)).collect()
}

fn opened(revision: u64, state: Option<Snapshot>, serial: u64) -> Outcome {
    Outcome::Watch(Box::new(Opened {
        kind: objects::kinds::by_kind("", "v1", "ConfigMap").unwrap(),
        plan: samples::watch_plan(WatchStart::After(r(1)), Selection::default()),
        state,
        backlog: changes(2, 4).to_vec(),
        revision: r(revision),
        serial,
    }))
}

fn large(count: usize) -> Snapshot {
    let names: Vec<String> = (0..count).map(|n| format!("m-{n:05}")).collect();
    samples::snapshot(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn telling() -> Telling {
    Telling::new(4, r(8))
}

/// All that waits, heard.
fn pass(telling: &mut Telling, hearing: &mut Hearing) -> Vec<Told> {
    let mut told = Vec::new();
    while let Some(frame) = telling.next_frame() {
        told.extend(hearing.frame(&frame).unwrap());
    }
    told
}

fn watch(hearing: &mut Hearing) -> Call {
    hearing.watch(Arc::new(samples::request(Verb::Watch, Body::None))).unwrap().0
}

fn revisions(changes: &[Change]) -> Vec<u64> {
    changes.iter().map(|c| c.revision.get()).collect()
}

#[test]
fn what_a_cell_says_is_heard_in_its_order_and_only_what_is_watched() {
    let (mut telling, mut hearing) = (telling(), Hearing::default());
    telling.events(&storage(), &changes(1, 3));
    telling.subscribed(
        &storage(),
        Some(r(3)),
        &Subscription::Open { revision: r(9), backlog: changes(4, 9), serial: 1 },
    );
    telling.events(&storage(), &changes(10, 12));
    telling.events(&"Secret".into(), &changes(10, 12));
    telling.progress(&storage(), r(11));
    telling.closed(r(20));
    telling.subscribed(&"Pod".into(), None, &Subscription::Gone { oldest: r(5) });
    telling.bundle(r(30));
    let told = pass(&mut telling, &mut hearing);
    let [a, b, c, d, e, f, g] = told.as_slice() else { panic!("{} things were told", told.len()) };
    assert!(matches!(a, Told::Welcome { epoch: 4, bundle } if bundle.get() == 8));
    let Told::Subscribed { begin: Subscription::Open { revision, backlog, serial: 1 }, after, .. } = b else {
        panic!("not subscribed")
    };
    assert_eq!((*revision, *after, revisions(backlog)), (r(9), Some(r(3)), (4..9).collect()));
    assert!(matches!(c, Told::Events { changes, .. } if revisions(changes) == [10, 11]));
    assert!(matches!(d, Told::Progress { revision, .. } if revision.get() == 11));
    assert!(matches!(e, Told::Closed { revision } if revision.get() == 20));
    assert!(matches!(f, Told::Subscribed { begin: Subscription::Gone { oldest }, .. } if oldest.get() == 5));
    assert!(matches!(g, Told::Bundle { number } if number.get() == 30));
    assert_eq!((telling.waiting(), telling.next_frame()), (0, None));
    let across: Vec<bool> = told.iter().map(|t| t.across(samples::CELL).is_some()).collect();
    assert_eq!(across, [false, true, true, false, true, true, false]);
    assert!(telling.unsubscribe("ConfigMap", 1) && !telling.wants("ConfigMap"));
}

#[test]
fn a_long_backlog_is_whole_before_anything_that_follows_it() {
    let (mut telling, mut hearing) = (telling(), Hearing::default());
    let backlog = changes(1, 3_000);
    let begin = Subscription::Open { revision: r(3_000), backlog: backlog.clone(), serial: 1 };
    telling.subscribed(&storage(), None, &begin);
    telling.events(&storage(), &changes(3_001, 6_000));
    telling.closed(r(9_000));
    let mut frames = 0;
    let mut told = Vec::new();
    while let Some(frame) = telling.next_frame() {
        assert!(frame.len() < 300_000);
        frames += 1;
        told.extend(hearing.frame(&frame).unwrap());
    }
    assert!(frames > 6, "{frames}");
    assert!(matches!(&told[1], Told::Subscribed { begin: Subscription::Open { backlog: b, .. }, .. }
        if format!("{b:?}") == format!("{backlog:?}")));
    let all: Vec<u64> = told
        .iter()
        .flat_map(|t| match t {
            Told::Events { changes, .. } => revisions(changes),
            _ => Vec::new(),
        })
        .collect();
    assert_eq!(all, (3_001..6_000).collect::<Vec<_>>());
    assert!(matches!(told.last(), Some(Told::Closed { .. })));
}

#[test]
fn a_watch_misses_nothing_that_happens_while_its_state_is_on_its_way() {
    let (mut telling, mut hearing) = (telling(), Hearing::default());
    let call = watch(&mut hearing);
    let mut told = pass(&mut telling, &mut hearing);
    telling.answer(call, r(8), None, opened(60, Some(large(3_000)), 7));
    // Something happens after every frame of it.
    let mut happened = Vec::new();
    let mut n = 61;
    while let Some(frame) = telling.next_frame() {
        told.extend(hearing.frame(&frame).unwrap());
        if told.iter().any(|t| matches!(t, Told::Answer { .. })) {
            break;
        }
        telling.events(&storage(), &changes(n, n + 1));
        happened.push(n);
        n += 1;
    }
    let before = told.len();
    told.extend(pass(&mut telling, &mut hearing));
    let answer = told.iter().position(|t| matches!(t, Told::Answer { .. })).unwrap();
    assert_eq!(answer, before - 1);
    let Told::Answer { call: c, heard } = told.remove(answer) else { panic!("no answer") };
    let Outcome::Watch(opened) = heard.outcome else { panic!("no watch") };
    assert_eq!((c, opened.serial, opened.revision), (call, 7, r(60)));
    assert_eq!(opened.state.unwrap().iter(None).count(), 3_000);
    let behind = told.split_off(answer).into_iter().flat_map(|t| match t {
        Told::Events { changes, .. } => revisions(&changes),
        _ => Vec::new(),
    });
    let mut seen = revisions(&opened.backlog);
    seen.extend(behind);
    assert_eq!(seen, [vec![2, 3], happened].concat());
    assert!(seen.len() > 6);
}

#[test]
fn two_watches_begin_side_by_side_and_one_that_is_left_is_not_told() {
    let (mut telling, mut hearing) = (telling(), Hearing::default());
    let [a, b, c] = [(); 3].map(|()| watch(&mut hearing));
    for call in [a, b, c] {
        telling.answer(call, r(8), None, opened(60, Some(large(2_000)), call.0));
    }
    let first: Vec<_> = (0..3).filter_map(|_| telling.next_frame()).collect();
    assert_eq!(hearing.leave(b).map(|m| m.encode()), Some(ToCell::Leave { call: b }.encode()));
    telling.leave(b);
    first.iter().for_each(|f| drop(hearing.frame(f).unwrap()));
    let answered: Vec<Call> = pass(&mut telling, &mut hearing)
        .into_iter()
        .filter_map(|t| match t {
            Told::Answer { call, heard } => {
                assert!(matches!(heard.outcome, Outcome::Watch(_)));
                Some(call)
            }
            _ => None,
        })
        .collect();
    assert_eq!(answered, [a, c]);
    assert_eq!(hearing.waiting().count(), 0);
}

#[test]
fn a_gateway_that_does_not_take_what_it_is_told_is_told_that_it_is_too_slow() {
    let (mut telling, mut hearing) = (telling().at_most(50_000), Hearing::default());
    telling.subscribed(&storage(), None, &Subscription::Open { revision: r(1), backlog: Arc::default(), serial: 1 });
    telling.closed(r(2));
    for n in 0..1_000 {
        telling.events(&storage(), &changes(10 + n, 11 + n));
        assert!(telling.waiting() <= 50_000);
    }
    assert!(telling.is_ended() && !telling.wants("ConfigMap"));
    let told = pass(&mut telling, &mut hearing);
    assert!(matches!(told.as_slice(), [Told::End(End::Slow)]));
    assert!(matches!(told[0].across(samples::CELL), Some(across::Input::Lost { .. })));
    telling.closed(r(9));
    assert_eq!(telling.next_frame(), None, "nothing comes after the end");
    let late = FromCell::Closed { revision: r(9) }.encode();
    assert_eq!(hearing.frame(&late).err(), Some(AnswerError::OutOfTurn));
}

#[test]
fn an_end_comes_behind_what_was_told_before_it() {
    let (mut telling, mut hearing) = (telling(), Hearing::default());
    let call = watch(&mut hearing);
    telling.answer(call, r(8), None, opened(60, Some(large(2_000)), 1));
    telling.closed(r(70));
    telling.end(End::Replaced);
    telling.end(End::Stopping);
    let told = pass(&mut telling, &mut hearing);
    assert!(matches!(told.as_slice(), [Told::Welcome { .. }, Told::Closed { .. }, Told::End(End::Replaced)]));
    assert_eq!(hearing.waiting().collect::<Vec<_>>(), [call], "it is asked elsewhere");
}

#[test]
fn more_watches_than_may_begin_at_once_are_told_to_come_later() {
    let (mut telling, mut hearing) = (telling(), Hearing::default());
    let calls: Vec<Call> = (0..CALLS_MAX).map(|_| watch(&mut hearing)).collect();
    assert!(hearing.watch(Arc::new(samples::request(Verb::Watch, Body::None))).is_none());
    for call in calls.iter().chain([&Call(9_999)]) {
        telling.answer(*call, r(8), None, opened(60, None, 1));
    }
    let told = pass(&mut telling, &mut hearing);
    let watches =
        told.iter().filter(|t| matches!(t, Told::Answer { heard, .. } if matches!(heard.outcome, Outcome::Watch(_))));
    assert_eq!(watches.count(), CALLS_MAX);
    telling.answer(Call(1), r(8), None, Outcome::Busy);
}

#[test]
fn what_is_not_whole_is_kept_within_a_bound() {
    let (mut telling, mut hearing) = (telling(), Hearing::new(600_000));
    let backlog = changes(1, 3_000);
    telling.subscribed(&storage(), None, &Subscription::Open { revision: r(3_000), backlog, serial: 1 });
    let refused = std::iter::from_fn(|| telling.next_frame()).find_map(|f| hearing.frame(&f).err());
    assert!(matches!(refused, Some(AnswerError::TooLong { max: 600_000, .. })));
}

#[test]
fn a_stream_begins_with_hello() {
    let all = samples::to_cell();
    assert_eq!(hello(&all[0].encode()), Ok((samples::CELL, 4, Revision::from_u64(1 << 40).unwrap())));
    assert!(all[1..].iter().all(|m| hello(&m.encode()).is_err()));
}
