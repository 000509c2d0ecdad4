//! Every message reads back as what it was, has the bytes it always had, and no bytes do harm.

mod answers;
mod bundles;
mod hostile;
mod pod_streams;
mod samples;
mod streams;

use super::ask::{AnswerError, Heard, Question, Receiving, Sending};
use super::codec::Wire;
use super::watch::{Begin, End, FromCell, ToCell};
use super::{cell, keep, schedule};
use crate::cell::{Outcome, Snapshot};
use crate::scheduling::message::{ToLeader, ToNode};
use base::Revision;
use bytes::Bytes;
use objects::request::Request;
use std::collections::BTreeSet;

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A golden file holds a message a line. It is written once for a version and never changed.
fn assert_golden(frames: impl IntoIterator<Item = Bytes>, golden: &str) {
    let text: String = frames.into_iter().map(|f| hex(&f) + "\n").collect();
    assert!(text == golden, "the layout has changed; it is now\n=====\n{text}=====");
}

/// The frames of an answer.
pub(super) fn sent(outcome: Outcome) -> Vec<Bytes> {
    let mut sending = Sending::new(Revision::from_u64(77).unwrap(), Some(samples::redirect()), outcome);
    let frames = std::iter::from_fn(|| sending.next_frame()).collect();
    assert!(sending.is_over());
    frames
}

/// An answer that is put together of these.
pub(super) fn heard(frames: &[Bytes]) -> Result<Option<Heard>, AnswerError> {
    let mut receiving = Receiving::new(1 << 30);
    let mut whole = None;
    for frame in frames {
        whole = receiving.frame(frame)?;
    }
    Ok(whole)
}

fn shown_state(s: &Snapshot) -> String {
    format!("{} {:?} {:?}", s.storage(), s.revision(), s.iter(None).collect::<Vec<_>>())
}

/// All of an outcome, to be compared. A new variant does not compile without its line.
pub(super) fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Refused(status) => format!("refused {status:?}"),
        Outcome::Done(answer) => format!("done {answer:?}"),
        // It becomes the other on its way.
        Outcome::List { plan, snapshot } => {
            let found = plan.run(snapshot.lying(plan.after.as_deref()), snapshot.revision());
            shown(&Outcome::Listed { found, warnings: plan.warnings.clone() })
        }
        Outcome::Listed { found, warnings } => {
            let items: Vec<&Bytes> = found.items.iter().map(crate::cell::Kept::json).collect();
            format!(
                "listed {items:?} {:?} {:?} {:?} {warnings:?}",
                found.revision, found.continue_token, found.remaining
            )
        }
        Outcome::Collected(snapshot) => format!("collected {}", shown_state(snapshot)),
        Outcome::Recalled(changes) => format!("recalled {changes:?}"),
        Outcome::ListAll(plan) => format!("list all {plan:?}"),
        Outcome::WatchAll(plan) => format!("watch all {plan:?}"),
        Outcome::Watch(o) => {
            let state = o.state.as_ref().map(shown_state);
            format!("watch {:?} {:?} {state:?} {:?} {:?} {}", o.kind, o.plan, o.backlog, o.revision, o.serial)
        }
        Outcome::Token(token) => format!("token {token:?}"),
        Outcome::Stream(stream) => format!("stream {stream:?}"),
        Outcome::Reserve(wanted) => format!("reserve {wanted:?}"),
        Outcome::NotLeader => "not leader".into(),
        Outcome::Busy => "busy".into(),
        Outcome::Unknown => "unknown".into(),
    }
}

fn shown_request(q: &Request) -> String {
    let Request { id, sent, user, verb, kind, namespace, name, subresource, options, body, uid, suffix } = q;
    format!(
        "{id:?} {sent:?} {user:?} {verb:?} {kind:?} {namespace:?} {name:?} {subresource:?} {options:?} {body:?} {uid:?} {suffix}"
    )
}

/// Every number that [`Wire::VARIANTS`] names stands at `at` in one of the samples.
fn assert_all_sampled<T: Wire>(frames: &[Bytes], at: usize) {
    let seen: BTreeSet<u8> = frames.iter().filter_map(|f| f.get(at).copied()).collect();
    let all: BTreeSet<u8> = T::VARIANTS.iter().copied().collect();
    assert!(all.is_subset(&seen), "variants without a sample: {:?}", all.difference(&seen));
}

#[test]
fn a_question_reads_back_and_has_the_bytes_it_always_had() {
    let all = samples::questions();
    for q in &all {
        let back = Question::decode(&q.encode()).unwrap();
        let of = |q: &Question| match &q.asked {
            super::ask::Asked::Request(request) => shown_request(request),
            super::ask::Asked::Collect { storage, at, after, only } => format!("{storage} {at:?} {after:?} {only:?}"),
        };
        assert_eq!(of(&back), of(q));
        assert_eq!((back.cell, back.epoch, back.bundle, back.patience_ms), (q.cell, q.epoch, q.bundle, q.patience_ms));
    }
    let frames: Vec<Bytes> = all.iter().map(Question::encode).collect();
    assert_all_sampled::<super::ask::Asked>(&frames, 1 + 16 + 8 + 8 + 8);
    assert_golden(frames, include_str!("../../../tests/golden/wire/questions-v1.hex"));
}

#[test]
fn a_message_about_keepers_reads_back_and_has_the_bytes_it_always_had() {
    let all = samples::keeping();
    for message in &all {
        assert_eq!(keep::Message::decode(&message.encode()).as_ref(), Ok(message));
    }
    let frames: Vec<Bytes> = all.iter().map(keep::Message::encode).collect();
    assert_all_sampled::<keep::Message>(&frames, 1);
    assert_golden(frames, include_str!("../../../tests/golden/wire/keepers-v1.hex"));
}

#[test]
fn an_answer_reads_back_and_has_the_bytes_it_always_had() {
    let all = samples::outcomes();
    for (outcome, same) in all.into_iter().zip(samples::outcomes()) {
        let heard = heard(&sent(outcome)).unwrap().unwrap();
        assert_eq!(shown(&heard.outcome), shown(&same));
        assert_eq!((heard.bundle.get(), heard.redirect), (77, Some(samples::redirect())));
    }
    let frames: Vec<Bytes> = samples::outcomes().into_iter().flat_map(sent).collect();
    assert_golden(frames, include_str!("../../../tests/golden/wire/answers-v1.hex"));
}

#[test]
fn a_message_of_a_watch_reads_back_and_has_the_bytes_it_always_had() {
    let to: Vec<Bytes> = samples::to_cell().iter().map(ToCell::encode).collect();
    let from: Vec<Bytes> = samples::from_cell().iter().map(FromCell::encode).collect();
    for bytes in &to {
        assert_eq!(ToCell::decode(bytes).unwrap().encode(), bytes);
    }
    for (bytes, message) in from.iter().zip(samples::from_cell()) {
        let back = FromCell::decode(bytes).unwrap();
        assert_eq!(back.encode(), bytes);
        match (back, message) {
            (FromCell::Subscribed { begin: a, .. }, FromCell::Subscribed { begin: b, .. }) => assert_eq!(a, b),
            (FromCell::End(a), FromCell::End(b)) => assert_eq!(a, b),
            (FromCell::Events { changes: a, .. }, FromCell::Events { changes: b, .. }) => {
                assert_eq!(format!("{a:?}"), format!("{b:?}"));
            }
            _ => {}
        }
    }
    assert_all_sampled::<ToCell>(&to, 1);
    assert_all_sampled::<FromCell>(&from, 1);
    let ends: Vec<Bytes> = samples::ends().iter().map(super::codec::encode).collect();
    assert_all_sampled::<End>(&ends, 1);
    assert_eq!(Begin::VARIANTS, [1, 2]);
    assert_golden(to.into_iter().chain(from), include_str!("../../../tests/golden/wire/watches-v1.hex"));
}

#[test]
fn a_message_about_pods_reads_back_and_has_the_bytes_it_always_had() {
    let all = samples::about_pods();
    for message in &all {
        let back = schedule::Message::decode(&message.encode()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{message:?}"));
    }
    let frames: Vec<Bytes> = all.iter().map(schedule::Message::encode).collect();
    let of = |n: u8| -> Vec<Bytes> { frames.iter().filter(|f| f[1] == n).cloned().collect() };
    assert_all_sampled::<schedule::Message>(&frames, 1);
    assert_all_sampled::<ToNode>(&of(1), 2);
    assert_all_sampled::<ToLeader>(&of(2), 2);
    assert_golden(frames, include_str!("../../../tests/golden/wire/pods-v1.hex"));
}

#[test]
fn messages_of_cells_ride_together_and_have_the_bytes_they_always_had() {
    let all = samples::of_cells();
    let mut batch = cell::Batch::default();
    assert!(all.iter().all(|m| batch.push(m).is_none()));
    let frame = batch.take().unwrap();
    assert_eq!(batch.take(), None);
    let back: Vec<cell::Message> = cell::messages(&frame).unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(back, all);
    assert_golden([frame], include_str!("../../../tests/golden/wire/cells-v1.hex"));
}

#[test]
fn an_entry_that_is_kept_does_not_keep_the_frame_it_came_in() {
    let mut batch = cell::Batch::default();
    samples::of_cells().iter().for_each(|m| assert!(batch.push(m).is_none()));
    let frame = batch.take().unwrap();
    let read = cell::messages(&frame).unwrap().remove(0).unwrap();
    let cell::Message::Raft(agree::raft::Message { body: agree::raft::Body::Append { entries, .. }, .. }) = read else {
        panic!("no entries")
    };
    assert_eq!(entries[0].payload, "objects");
    assert!(!frame.as_ptr_range().contains(&entries[0].payload.as_ptr()));
}

#[test]
fn a_batch_is_a_frame_of_bounded_length_and_count() {
    let message = samples::of_cells().remove(1);
    let mut batch = cell::Batch::new(200);
    let frames: Vec<Bytes> = (0..20).filter_map(|_| batch.push(&message)).collect();
    assert!(!frames.is_empty() && frames.iter().all(|f| f.len() <= 200));
    let count = |f: &Bytes| cell::messages(f).unwrap().len();
    assert_eq!(frames.iter().map(count).sum::<usize>() + count(&batch.take().unwrap()), 20);
    let mut small = cell::Batch::new(1);
    assert_eq!((small.push(&message), small.push(&message).map(|f| count(&f))), (None, Some(1)));
    let mut many = cell::Batch::new(usize::MAX);
    let full: Vec<Bytes> = (0..=cell::BATCH_MAX).filter_map(|_| many.push(&message)).collect();
    assert_eq!(full.iter().map(count).collect::<Vec<_>>(), [cell::BATCH_MAX]);
}

#[test]
fn a_message_of_tomorrow_is_passed_over_and_its_neighbours_are_not() {
    let [one, two] = [0, 2].map(|n| samples::of_cells().remove(n));
    let mut batch = cell::Batch::default();
    let _ = batch.push(&one);
    let mut frame = batch.take().unwrap().to_vec();
    frame.extend([9, 3, 0, 0, 0, 1, 2, 3]);
    let _ = batch.push(&two);
    frame.extend_from_slice(&batch.take().unwrap()[1..]);
    let read = cell::messages(&frame.into()).unwrap();
    assert_eq!((read.len(), read[0].as_ref(), read[2].as_ref()), (3, Ok(&one), Ok(&two)));
    assert!(read[1].as_ref().unwrap_err().to_string().contains("newer release"));
}
