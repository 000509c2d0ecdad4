//! One member alone: what it decides, what it logs, and what it is made of again.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::cell::{Change, Commit, Expect, RequestStamp, Seen, Write};
use crate::descriptor::Keeper;
use alloc::string::String;
use base::{CellId, NodeId, RequestId, Revision, Uid, Wall};
use bytes::Bytes;

const CELL: CellId = CellId(Uid(7 << 100));
const ME: ReplicaId = ReplicaId(1);
const HERE: NodeId = NodeId([1; 32]);

struct Alone {
    member: Member,
    now: Now,
    log: Vec<Record>,
    unsynced: Vec<(Ticket, Vec<Record>)>,
    next_segment: u64,
}

fn configs() -> (Config, raft::Config) {
    (Config::new(CELL, ME, HERE), raft::Config::new(CELL, ME))
}

impl Alone {
    fn found() -> Alone {
        Alone::found_for("")
    }

    fn found_for(purpose: &'static str) -> Alone {
        let (config, raft) = configs();
        let config = Config { purpose: Bytes::from_static(purpose.as_bytes()), ..config };
        let now = Now { mono: Time::from_ms(1_000), wall: Wall(1_000_000) };
        let member = Member::found(
            config,
            raft,
            Keepers::founding(CELL, vec![Keeper { replica: ME, node: HERE, votes: true }]),
            &Chance::from_u64(1),
            now,
        )
        .unwrap();
        let mut alone = Alone { member, now, log: Vec::new(), unsynced: Vec::new(), next_segment: 1 };
        alone.step(Input::Replica(raft::Input::Tick));
        assert!(alone.member.replica().is_ready());
        alone
    }

    /// Stops, and starts again from what was durable.
    fn restart(self) -> Alone {
        let (config, raft) = configs();
        let member = Member::recover(config, raft, &self.log, false, &Chance::from_u64(2), self.now).unwrap();
        let mut alone = Alone { member, unsynced: Vec::new(), ..self };
        alone.step(Input::Replica(raft::Input::Tick));
        assert!(alone.member.replica().is_ready());
        alone
    }

    fn only_step(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.member.step(self.now, input, &mut effects);
        self.member.check();
        for e in &effects {
            if let Effect::Replica(raft::Effect::Persist { ticket, records }) = e {
                self.unsynced.push((*ticket, records.clone()));
            }
        }
        effects
    }

    /// Steps, and lets everything become durable.
    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut all = self.only_step(input);
        while !self.unsynced.is_empty() {
            let (ticket, records) = self.unsynced.remove(0);
            self.log.extend(records);
            all.extend(self.only_step(Input::Replica(raft::Input::Durable(ticket))));
        }
        all
    }

    fn change(&mut self, key: &str, expect: Expect, value: Option<&str>) -> Change {
        let revision = self.member.cell_mut().mint(self.now.wall);
        let created = self.member.cell().state().get(key.as_bytes()).map_or(revision, |r| r.created);
        let write = match value {
            Some(v) => Write::Put { created, meta: Bytes::new(), value: Bytes::copy_from_slice(v.as_bytes()) },
            None => Write::Delete { meta: Bytes::new(), value: Bytes::new() },
        };
        Change { key: Bytes::copy_from_slice(key.as_bytes()), expect, revision, write }
    }

    fn commit(&mut self, request: u128, changes: Vec<Change>) -> Outcome {
        let stamp = RequestStamp { id: RequestId(request), first_sent: self.now.wall };
        let payload = Commit { bundle: 3, request: Some(stamp), changes }.encode();
        let effects = self.step(Input::Replica(raft::Input::Propose { id: CallId(9), payload }));
        let outcome = effects.into_iter().find_map(|e| match e {
            Effect::Applied { id: Some(CallId(9)), outcome, .. } => Some(outcome),
            _ => None,
        });
        outcome.unwrap()
    }

    fn put(&mut self, request: u128, key: &str, value: &str) -> Outcome {
        let change = self.change(key, Expect::Any, Some(value));
        self.commit(request, vec![change])
    }

    fn delete(&mut self, request: u128, key: &str) -> Outcome {
        let change = self.change(key, Expect::Any, None);
        self.commit(request, vec![change])
    }

    fn all(&self) -> Vec<(String, String, Revision, Revision)> {
        let text = |b: &Bytes| String::from_utf8(b.to_vec()).unwrap();
        let all = self.member.cell().state().scan(b"");
        all.map(|(k, r)| (text(k), text(&r.value), r.revision, r.created)).collect()
    }

    /// Asks about the log's first `n` records, as those of its oldest segment; what was written for them.
    fn ask(&mut self, n: usize) -> Vec<Record> {
        let (segment, end) = (self.next_segment, self.log.len());
        self.next_segment += 1;
        let records = self.log[..n].to_vec();
        let effects = self.step(Input::Rewrite { id: 1, segment, records });
        assert!(effects.iter().any(|e| matches!(e, Effect::Rewritten { id: 1, .. })));
        self.log[end..].to_vec()
    }

    /// The log's first `n` records are its oldest segment, and it goes; what was written for it.
    fn drop_segment(&mut self, n: usize) -> Vec<Record> {
        let written = self.ask(n);
        self.log.drain(..n);
        written
    }
}

#[test]
fn a_member_is_made_again_of_its_log() {
    let mut a = Alone::found();
    a.put(1, "pods\0a", "1");
    a.put(2, "pods\0b", "2");
    a.delete(3, "pods\0a");
    a.put(4, "pods\0b", "3");
    let (before, revision) = (a.all(), a.member.cell().state().revision());
    let mut a = a.restart();
    assert_eq!((a.all(), a.member.cell().state().revision()), (before, revision));
    assert_eq!(a.member.cell().bundle(), 3);
    assert!(a.member.cell_mut().mint(Wall(0)) > revision, "it mints above all in its log");
    let stamp = RequestStamp { id: RequestId(4), first_sent: a.now.wall };
    assert!(matches!(a.member.cell().requests().look(&stamp), Seen::Done(d) if d.keys == ["pods\0b"]));
}

#[test]
fn a_repeated_request_changes_nothing() {
    let mut a = Alone::found();
    a.put(1, "pods\0a", "1");
    assert_eq!(a.put(1, "pods\0a", "2"), Outcome::Repeated);
    assert_eq!(a.all()[0].1, "1");
    assert_eq!(a.restart().all()[0].1, "1");
}

#[test]
fn an_old_segment_goes_and_what_was_live_in_it_stays() {
    let mut a = Alone::found();
    a.put(1, "pods\0old", "kept");
    a.put(2, "pods\0gone", "x");
    a.put(3, "pods\0changed", "x");
    a.delete(4, "pods\0gone");
    let segment = a.log.len();
    a.put(5, "pods\0changed", "y");
    let before = a.all();
    for _ in 0..3 {
        a.drop_segment(segment.min(a.log.len()));
        a = a.restart();
        assert_eq!(a.all(), before);
    }
    a.put(6, "pods\0old", "new");
    assert_eq!(a.restart().all().len(), 2);
}

#[test]
fn what_failed_its_precondition_stays_undone_when_its_grounds_are_gone() {
    let mut a = Alone::found();
    a.put(1, "pods\0a", "1");
    let n = a.log.len();
    // A blind write of b beside a precondition on a that does not hold.
    let wrong = a.change("pods\0a", Expect::Absent, Some("2"));
    let blind = a.change("pods\0b", Expect::Any, Some("2"));
    assert!(matches!(a.commit(2, vec![wrong, blind]), Outcome::Conflict(_)));
    a.put(3, "pods\0a", "3");
    let before = a.all();
    a.drop_segment(n);
    assert_eq!(a.restart().all(), before);
}

#[test]
fn a_deletion_in_flight_while_its_object_is_carried_forward_still_holds() {
    let mut a = Alone::found();
    a.put(1, "pods\0a", "1");
    let first = a.log.len();
    // The deletion is proposed and written, but not yet known durable, when the first segment goes.
    let change = a.change("pods\0a", Expect::Any, None);
    let payload = Commit { changes: vec![change], ..Commit::default() }.encode();
    a.only_step(Input::Replica(raft::Input::Propose { id: CallId(1), payload }));
    a.drop_segment(first);
    assert!(a.all().is_empty());
    let second = a.log.len();
    let mut a = a.restart();
    assert!(a.all().is_empty());
    // The deletion's own segment goes; the object was carried behind it.
    let deletion = a.log.iter().position(|r| matches!(r, Record::Entry { .. })).unwrap();
    assert!(deletion < second);
    a.drop_segment(deletion + 1);
    assert!(a.restart().all().is_empty());
}

#[test]
fn a_log_without_its_beginning_is_refused_and_a_gap_is_a_loss() {
    let mut a = Alone::found();
    a.put(1, "pods\0a", "1");
    a.put(2, "pods\0b", "1");
    let (config, raft) = configs();
    let start = |records: &[Record]| {
        Member::recover(config.clone(), raft.clone(), records, false, &Chance::from_u64(2), a.now).err()
    };
    assert_eq!(start(&a.log[1..]), Some(Error::Recover(RecoverError::NoCheckpoint { cell: CELL })));
    let hole: Vec<_> = a.log.iter().filter(|r| !matches!(r, Record::Entry { index: 2, .. })).cloned().collect();
    assert_eq!(start(&hole), Some(Error::Start(StartError::SoleKeeperLossy { cell: CELL })));
    let end = a.log.iter().rposition(|r| matches!(r, Record::Entry { .. })).unwrap();
    assert_eq!(start(&a.log[..end]), None, "a torn tail is no loss");
}

fn checkpoints(records: &[Record]) -> usize {
    records.iter().filter(|r| matches!(r, Record::Checkpoint { .. })).count()
}

#[test]
fn a_checkpoint_is_written_for_a_segment_once_and_only_if_recovery_begins_in_it() {
    let mut a = Alone::found();
    for n in 1..=20 {
        a.put(n, &alloc::format!("pods\0{}", n % 5), "x");
    }
    // One segment, asked about record by record: it holds the only checkpoint.
    let (end, mut written) = (a.log.len(), 0);
    for n in 0..end {
        let records = a.log[n..=n].to_vec();
        let before = a.log.len();
        a.step(Input::Rewrite { id: 1, segment: 1, records });
        written += checkpoints(&a.log[before..]);
    }
    assert_eq!(written, 1);
    a.log.drain(..end);
    let before = a.all();
    a = a.restart();
    assert_eq!(a.all(), before);

    let objects = a.log.iter().rposition(|r| matches!(r, Record::Carried { .. })).unwrap() + 1;
    a.put(30, "pods\0new", "x");
    // The checkpoint that was written goes, and the next one stands behind the objects that it speaks of.
    a.drop_segment(objects);
    let next = a.log.len();
    a.put(31, "pods\0new", "y");
    let before = a.all();
    let second = a.log[..next].iter().position(|r| matches!(r, Record::Checkpoint { .. })).unwrap();
    let written = a.drop_segment(second);
    assert_eq!(checkpoints(&written), 0, "nothing before it is needed to begin from it");
    assert_eq!(a.restart().all(), before);
}

#[test]
fn a_long_answer_is_several_writes_and_any_of_them_may_be_the_last_one_to_be_durable() {
    let mut a = Alone::found();
    let long = "x".repeat(100_000);
    for n in 1..=9 {
        a.put(n, &alloc::format!("pods\0{n}"), &long);
    }
    let before = a.all();
    let all = a.log.clone();
    let effects = a.only_step(Input::Rewrite { id: 1, segment: 1, records: all.clone() });
    let Some(Effect::Rewritten { first, ticket, .. }) = effects.last() else { panic!("no answer") };
    let writes = core::mem::take(&mut a.unsynced);
    let tickets: Vec<Ticket> = writes.iter().map(|w| w.0).collect();
    assert_eq!(tickets, (first.0..=ticket.0).map(Ticket).collect::<Vec<_>>());
    assert!(writes.len() > 3, "{} writes", writes.len());
    for (_, records) in &writes {
        assert!(records.iter().map(Record::encoded_len).sum::<usize>() <= super::PART_BYTES);
    }
    // The power may go behind each of them: the segment is still there.
    for durable in 0..=writes.len() {
        let written = writes.iter().take(durable).flat_map(|w| w.1.clone());
        a.log = all.iter().cloned().chain(written).collect();
        a = a.restart();
        assert_eq!(a.all(), before, "with {durable} of {} writes", writes.len());
    }
    // With the last of them it goes.
    a.log = writes.into_iter().flat_map(|w| w.1).collect();
    assert_eq!(a.restart().all(), before);
}

#[test]
fn what_was_changed_after_the_checkpoint_is_still_carried_as_it_was_at_it() {
    let mut a = Alone::found();
    a.put(1, "pods\0a", "1");
    a.put(2, "pods\0b", "1");
    let entries = a.log.len();
    // The checkpoint moves behind what was written so far.
    a.ask(entries);
    let at = |a: &Alone, key: &str| Expect::At(a.member.cell().state().get(key.as_bytes()).unwrap().revision);
    let (change, gone) = (at(&a, "pods\0a"), at(&a, "pods\0b"));
    let change = a.change("pods\0a", change, Some("2"));
    let gone = a.change("pods\0b", gone, None);
    assert!(matches!(a.commit(3, vec![change, gone]), Outcome::Applied(_)));
    let before = a.all();
    // What stood before the checkpoint goes, with all that it carried: the entry after it is judged by that.
    let second = a.log.iter().rposition(|r| matches!(r, Record::Checkpoint { .. })).unwrap();
    let written = a.drop_segment(second);
    assert_eq!(checkpoints(&written), 0);
    a = a.restart();
    assert_eq!(a.all(), before);
    // And once more, when the entries themselves have gone.
    for _ in 0..3 {
        let half = a.log.len() / 2;
        a.drop_segment(half);
        a = a.restart();
        assert_eq!(a.all(), before);
    }
}

#[test]
fn a_member_that_stopped_before_an_entry_still_lets_segments_go_and_keeps_the_entry() {
    let mut a = Alone::found();
    a.put(1, "pods\0a", "1");
    let payload = Bytes::from_static(&[99]);
    let effects = a.step(Input::Replica(raft::Input::Propose { id: CallId(1), payload: payload.clone() }));
    assert!(effects.iter().any(|e| matches!(e, Effect::Stopped { .. })));
    let all = a.log.len();
    let written = a.drop_segment(all);
    assert!(written.iter().any(|r| matches!(r, Record::Entry { payload: p, .. } if *p == payload)));
    let (config, raft) = configs();
    let mut again = Member::recover(config, raft, &a.log, false, &Chance::from_u64(2), a.now).unwrap();
    let mut effects = Vec::new();
    again.step(a.now, Input::Replica(raft::Input::Tick), &mut effects);
    assert_eq!(again.cell().state().get(b"pods\0a").unwrap().value, "1");
}

#[test]
fn what_a_cell_is_for_is_known_from_its_log() {
    let mut alone = Alone::found_for("to be tried");
    let recorded = |alone: &Alone| crate::cell::recorded(CELL, &alone.log).unwrap();
    let said = crate::cell::Recorded { replica: ME, purpose: Bytes::from_static(b"to be tried") };
    assert_eq!(recorded(&alone), Some(said));
    assert_eq!(crate::cell::recorded(CellId(Uid(1)), &alone.log).unwrap(), None);
    alone.step(Input::End);
    assert_eq!(recorded(&alone), None, "nothing is left of it");
}
