//! Long answers: pieces, bounds, and that a list which is run where the cell is is the list.

use super::{heard, samples, sent, shown};
use crate::cell::{Outcome, Snapshot};
use crate::wire::ask::{AnswerError, Receiving};
use crate::wire::frame::PIECE_BYTES;
use bytes::Bytes;
use objects::read::{At, ListPlan, WatchStart};
use objects::request::Stored;
use objects::select::{LabelSelector, Selection};
use serde_json::json;
use std::sync::Arc;

const COUNT: u64 = 400;

fn many() -> Snapshot {
    let object = |n: u64| {
        let kind = objects::kinds::by_kind("", "v1", "ConfigMap").unwrap();
        let name = format!("m-{n:05}");
        let tree = json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"v": "x".repeat(2_000)},
            "metadata": {"name": name, "labels": {"third": (n % 3).to_string()}}});
        (Arc::from(name), Stored::from_tree(kind, tree, samples::r(n + 1)))
    };
    Snapshot::shown("ConfigMap".into(), samples::r(1_000), (0..COUNT).map(object).collect())
}

fn json_bytes() -> usize {
    many().iter(None).map(|(_, s)| s.json.len()).sum()
}

#[test]
fn a_list_that_was_run_where_the_cell_is_is_the_same_list() {
    let labels = LabelSelector::parse("third=1").unwrap();
    for selection in [Selection::default(), Selection { labels, ..Selection::default() }] {
        for limit in [0, 1, 7, COUNT - 1, COUNT, COUNT + 1] {
            for after in [None, Some("m-00003".to_owned()), Some("z".to_owned())] {
                let plan = ListPlan {
                    at: At::Latest,
                    selection: selection.clone(),
                    limit,
                    after,
                    namespace: "d".into(),
                    warnings: Vec::new(),
                };
                let here = Outcome::List { plan: plan.clone(), snapshot: many() };
                let there = heard(&sent(Outcome::List { plan, snapshot: many() })).unwrap().unwrap();
                assert_eq!(shown(&there.outcome), shown(&here));
            }
        }
    }
}

#[test]
fn a_long_answer_comes_in_pieces_and_costs_little_more_than_its_objects() {
    let list = ListPlan {
        at: At::Latest,
        selection: Selection::default(),
        limit: 0,
        after: None,
        namespace: "d".into(),
        warnings: Vec::new(),
    };
    let json = json_bytes();
    for (outcome, header) in [(Outcome::List { plan: list, snapshot: many() }, 8), (Outcome::Collected(many()), 90)] {
        let frames = sent(outcome);
        assert!(frames.len() > 3 && frames.iter().all(|f| f.len() < PIECE_BYTES + 4_000), "{}", frames.len());
        let bytes: usize = frames.iter().map(Bytes::len).sum();
        assert!(bytes < json + COUNT as usize * header + 1_000, "{bytes} bytes for {json}");
    }
}

#[test]
fn a_watch_is_sent_the_state_it_selects_and_no_other() {
    let labels = LabelSelector::parse("third=1").unwrap();
    let selection = Selection { labels, ..Selection::default() };
    let plan = samples::watch_plan(WatchStart::State { not_older_than: None, mark: true }, selection.clone());
    let kind = objects::kinds::by_kind("", "v1", "ConfigMap").unwrap();
    let opened = crate::cell::Opened {
        kind,
        plan,
        state: Some(many()),
        backlog: Vec::new(),
        revision: samples::r(1_000),
        serial: 1,
    };
    let heard = heard(&sent(Outcome::Watch(Box::new(opened)))).unwrap().unwrap();
    let Outcome::Watch(opened) = heard.outcome else { panic!("no watch") };
    let state = opened.state.unwrap();
    let names: Vec<Arc<str>> = state.iter(None).map(|(n, _)| n).collect();
    let meant = |(n, s): &(Arc<str>, Stored)| selection.matches(&s.meta, n, "shop");
    assert_eq!(names, many().iter(None).filter(meant).map(|(n, _)| n).collect::<Vec<_>>());
    assert_eq!((names.len() as u64, state.revision()), (COUNT / 3, samples::r(1_000)));
}

#[test]
fn a_state_out_of_order_is_refused() {
    let mut frames = sent(Outcome::Collected(many()));
    frames.swap(1, 2);
    assert_eq!(heard(&frames).err(), Some(AnswerError::OutOfTurn));
}

#[test]
fn more_of_an_answer_than_there_is_room_for_is_given_up() {
    let frames = sent(Outcome::Collected(many()));
    let mut receiving = Receiving::new(PIECE_BYTES * 2);
    let refused = frames.iter().find_map(|f| receiving.frame(f).err()).unwrap();
    assert!(matches!(refused, AnswerError::TooLong { max, .. } if max == PIECE_BYTES * 2));
    assert!(refused.to_string().contains("list in parts"));
    assert_eq!(
        receiving.frame(&frames[0]).err(),
        Some(AnswerError::TooLong { bytes: receiving.held(), max: PIECE_BYTES * 2 })
    );
}

#[test]
fn what_was_shown_can_be_gone_through_from_any_name_on() {
    let heard = heard(&sent(Outcome::Collected(many()))).unwrap().unwrap();
    let Outcome::Collected(there) = heard.outcome else { panic!("nothing collected") };
    let here = many();
    for after in [None, Some("m-00007"), Some("m-00007x"), Some("m-00399"), Some("a")] {
        let names = |s: &Snapshot| s.iter(after).map(|(n, _)| n).collect::<Vec<_>>();
        assert_eq!(names(&there), names(&here));
        assert_eq!(there.lying(after).count(), here.iter(after).count());
    }
    assert_eq!(there.revision(), here.revision());
}
