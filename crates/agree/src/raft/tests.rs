//! One replica, input by input.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::raft::message::{Candidate, Vote};
use alloc::vec;
use base::{Chance, Now, Uid, Wall};

struct One {
    replica: Replica,
    now: Now,
}

fn config(replica: u64) -> Config {
    Config::new(CellId(Uid(7)), ReplicaId(replica))
}

fn start(replica: u64, durable: Durable) -> One {
    let now = Now { mono: Time::from_ms(60_000), wall: Wall(1_000) };
    let replica = Replica::new(config(replica), durable, &Chance::from_u64(1), now).unwrap();
    One { replica, now }
}

fn members(n: u64) -> Durable {
    Durable::founding(Members::of_voters((1..=n).map(ReplicaId)))
}

impl One {
    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.replica.step(self.now, input, &mut effects);
        self.replica.check();
        effects
    }

    fn after(&mut self, d: Duration, input: Input) -> Vec<Effect> {
        self.now.mono = self.now.mono + d;
        self.step(input)
    }

    fn tick_at_deadline(&mut self) -> Vec<Effect> {
        self.now.mono = self.now.mono.max(self.replica.next_deadline().expect("something waits for time"));
        self.step(Input::Tick)
    }

    /// Everything written becomes durable, and what that brings, and so on; all effects.
    fn settle(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        let mut all = Vec::new();
        while !effects.is_empty() {
            let durable = effects.iter().filter_map(|e| match e {
                Effect::Persist { ticket, .. } => Some(*ticket),
                _ => None,
            });
            let last = durable.max();
            all.append(&mut effects);
            if let Some(ticket) = last {
                effects = self.step(Input::Durable(ticket));
            }
        }
        all
    }

    fn from(&self, from: u64, term: u64, body: Body) -> Input {
        Input::Message(Message { cell: CellId(Uid(7)), epoch: 1, from: ReplicaId(from), to: ReplicaId(1), term, body })
    }

    /// Of three, elected by replica 2 in the next term.
    fn elected(mut self) -> One {
        let asked = self.tick_at_deadline();
        self.settle(asked);
        let term = self.replica.term() + 1;
        let granted = Vote { granted: true, commit: 0, commit_term: 0 };
        let asked = self.step(self.from(2, term, Body::PreVote(granted)));
        self.settle(asked);
        let won = self.step(self.from(2, term, Body::Vote { vote: granted, bound: Revision::ZERO }));
        self.settle(won);
        let index = self.replica.last().0;
        let ready = self.step(self.from(2, term, Body::Appended { index, commit: 0 }));
        assert!(ready.iter().any(|e| matches!(e, Effect::Leading { .. })), "{ready:?}");
        self
    }
}

fn sent(effects: &[Effect]) -> Vec<&Body> {
    let sent = effects.iter().filter_map(|e| match e {
        Effect::Send { message, .. } => Some(&message.body),
        _ => None,
    });
    sent.collect()
}

const ASK: Candidate = Candidate { last_index: 100, last_term: 9, commit: 0, commit_term: 0 };

fn append(prev: u64, prev_term: u64, entries: &[(u64, u64)]) -> Body {
    let entry =
        |&(index, term): &(u64, u64)| message::Entry { term, index, kind: 0, payload: Bytes::from_static(b"x") };
    Body::Append { prev_index: prev, prev_term, commit: 0, entries: entries.iter().map(entry).collect() }
}

#[test]
fn a_voter_alone_leads_at_once_and_its_commit_waits_for_the_disk() {
    let mut one = start(1, members(1));
    assert_eq!(one.replica.next_deadline(), Some(one.now.mono));
    let won = one.step(Input::Tick);
    let all = one.settle(won);
    assert!(matches!(all.last(), Some(Effect::Leading { term: 1, .. })), "{all:?}");

    let proposed = one.step(Input::Propose { id: CallId(5), payload: Bytes::from_static(b"a") });
    let [Effect::Persist { ticket, records }] = &proposed[..] else { panic!("{proposed:?}") };
    assert!(matches!(records.last(), Some(Record::Entry { index: 2, term: 1, .. })));
    assert_eq!(
        one.step(Input::Durable(*ticket)),
        [Effect::Committed { index: 2, term: 1, payload: Bytes::from_static(b"a"), id: Some(CallId(5)) }]
    );
    assert_eq!(one.step(Input::Read { id: CallId(6) }), [Effect::ReadReady { id: CallId(6) }]);
    assert_eq!(one.replica.next_deadline(), None);
}

#[test]
fn a_follower_acknowledges_only_after_its_write() {
    let mut one = start(1, members(3));
    let effects = one.step(one.from(2, 4, append(0, 0, &[(1, 4)])));
    let ticket = effects.iter().find_map(|e| match e {
        Effect::Persist { ticket, .. } => Some(*ticket),
        _ => None,
    });
    let ack = effects.iter().find_map(|e| match e {
        Effect::Send { after, message } => Some((*after, message.body.clone())),
        _ => None,
    });
    assert_eq!(ack, Some((ticket, Body::Appended { index: 1, commit: 0 })));
    // An append that brings nothing new is acknowledged after the same write.
    let again = one.step(one.from(2, 4, append(1, 4, &[])));
    assert!(matches!(&again[..], [Effect::Send { after, .. }] if *after == ticket), "{again:?}");
    assert!(ticket.is_some());
}

#[test]
fn after_a_start_a_voter_keeps_still_for_one_promise() {
    let promise = config(1).promise;
    let ask = Body::AskVote { candidate: ASK, transfer: false };
    let mut one = start(1, members(3));
    assert_eq!(sent(&one.after(promise - Duration::from_nanos(1), one.from(2, 9, ask.clone()))), [] as [&Body; 0]);
    let effects = one.after(Duration::from_nanos(1), one.from(2, 9, ask));
    assert!(matches!(sent(&effects)[..], [Body::Vote { vote: Vote { granted: true, .. }, .. }]), "{effects:?}");
    let restarted = start(1, members(3));
    assert!(restarted.replica.next_deadline().unwrap() >= restarted.now.mono + promise);
    // Those who came since the checkpoint may have been answered, too.
    let came = members::Change { transition: 0, changes: vec![(0, ReplicaId(2))], context: Bytes::new() };
    let entry = message::Entry { term: 1, index: 1, kind: 2, payload: came.encode() };
    let grown = start(1, Durable { entries: vec![entry], hard: (1, 1, 0), ..members(1) });
    assert!(grown.replica.next_deadline().unwrap() >= grown.now.mono + promise);
}

#[test]
fn a_bound_voter_refuses_until_its_node_answers_no_more_and_a_promise_has_passed() {
    let promise = config(1).promise;
    let mut one = start(1, members(3));
    one.now.mono = one.now.mono + promise;
    let effects = one.step(one.from(2, 4, append(0, 0, &[(1, 4)])));
    assert!(effects.contains(&Effect::Follow { id: FollowId(1), leader: ReplicaId(2), term: 4 }));
    one.settle(effects);
    let ask = || Body::AskPreVote(ASK);
    assert_eq!(sent(&one.after(promise * 100, one.from(3, 5, ask()))), [] as [&Body; 0]);
    assert_eq!(one.replica.next_deadline(), None, "a bound voter waits for no time");

    let last = one.now.mono;
    one.after(Duration::from_millis(100), Input::Unfollowed { id: FollowId(1), last: Some(last) });
    one.now.mono = last + promise - Duration::from_nanos(1);
    assert_eq!(sent(&one.step(one.from(3, 5, ask()))), [] as [&Body; 0]);
    one.now.mono = last + promise;
    assert!(matches!(sent(&one.step(one.from(3, 5, ask())))[..], [Body::PreVote(Vote { granted: true, .. })]));
    assert!(one.replica.next_deadline().unwrap() >= last + promise);
}

#[test]
fn a_handed_over_vote_waits_for_the_binding_to_end_but_not_for_the_promise() {
    let mut one = start(1, members(3));
    one.now.mono = one.now.mono + config(1).promise;
    let effects = one.step(one.from(2, 4, append(0, 0, &[(1, 4)])));
    one.settle(effects);
    let ask = Body::AskVote { candidate: ASK, transfer: true };
    let effects = one.step(one.from(3, 5, ask));
    assert_eq!(effects, [Effect::Unfollow { id: FollowId(1), leader: ReplicaId(2), term: 4 }]);
    let effects = one.step(Input::Unfollowed { id: FollowId(1), last: Some(one.now.mono) });
    assert!(matches!(sent(&effects)[..], [Body::Vote { vote: Vote { granted: true, .. }, .. }]), "{effects:?}");
}

#[test]
fn the_lease_counts_from_the_send_time_of_what_a_quorum_answered() {
    let mut one = start(1, members(3)).elected();
    let (term, lease) = (one.replica.term(), config(1).lease);
    let read = one.step(Input::Read { id: CallId(1) });
    assert_eq!(read, [Effect::BeatNow { to: vec![ReplicaId(2), ReplicaId(3)] }], "no lease yet");
    let stale = one.now.mono - Duration::from_millis(1);
    assert_eq!(one.step(Input::Answered { from: ReplicaId(2), term: term + 1, sent: one.now.mono }), []);
    // A heartbeat sent before the read gives the lease, and so the read.
    let effects = one.step(Input::Answered { from: ReplicaId(2), term, sent: stale });
    assert!(effects.contains(&Effect::ReadReady { id: CallId(1) }), "{effects:?}");
    assert_eq!(one.replica.lease_until(one.now.mono), Some(stale + lease));
    one.now.mono = stale + lease;
    assert_eq!(one.replica.lease_until(one.now.mono), None);
    // Without it a read waits for an answer to a heartbeat sent after it came.
    one.step(Input::Read { id: CallId(2) });
    let sent = one.now.mono;
    let effects = one.after(lease * 2 / 3, Input::Answered { from: ReplicaId(3), term, sent });
    assert!(effects.contains(&Effect::ReadReady { id: CallId(2) }));
}

#[test]
fn a_follower_that_started_anew_is_told_the_commit_again() {
    let mut one = start(1, members(3)).elected();
    let (term, index) = (one.replica.term(), one.replica.last().0);
    let said = |commit| Body::Appended { index, commit };
    let answered = |sent| Input::Answered { from: ReplicaId(2), term, sent };
    let told = |fx: &[Effect]| sent(fx).iter().any(|b| matches!(b, Body::Append { commit, .. } if *commit == index));
    one.step(one.from(2, term, said(index)));
    assert!(!told(&one.step(answered(one.now.mono))), "it knows");
    // Its power was cut, and an append from before, without the commit, was what it heard first.
    one.step(one.from(2, term, said(0)));
    assert!(told(&one.step(answered(one.now.mono))));
    one.step(one.from(2, term, said(index)));
    assert!(!told(&one.step(answered(one.now.mono))), "it knows again");
    // What it answered to that was lost; but its node says that it is another process.
    one.step(Input::Restarted { from: ReplicaId(2) });
    assert!(told(&one.step(answered(one.now.mono))));
}

/// Of two voters and a learner.
fn with_learner() -> Durable {
    Durable::founding(Members { learners: vec![ReplicaId(1)], ..Members::of_voters([2, 3].map(ReplicaId)) })
}

#[test]
fn who_only_learns_forgets_a_leader_that_is_silent() {
    let mut one = start(1, with_learner());
    let heard = one.step(one.from(2, 4, append(0, 0, &[(1, 4)])));
    one.settle(heard);
    assert_eq!(one.replica.role(), Role::Follower { leader: Some(ReplicaId(2)) });
    assert_eq!(one.replica.next_deadline(), None, "it is bound");
    let last = one.now.mono;
    one.after(Duration::from_millis(100), Input::Unfollowed { id: FollowId(1), last: Some(last) });
    let forgotten = one.tick_at_deadline();
    assert!(forgotten.contains(&Effect::Role(Role::Follower { leader: None })), "{forgotten:?}");
    assert_eq!((one.replica.next_deadline(), one.replica.term()), (None, 4), "and stands for nothing");
    let again = one.step(one.from(2, 4, append(1, 4, &[])));
    assert!(again.contains(&Effect::Role(Role::Follower { leader: Some(ReplicaId(2)) })), "{again:?}");
}

#[test]
fn that_a_member_holds_nothing_is_not_believed_when_it_comes_late() {
    let mut one = start(1, members(3)).elected();
    let term = one.replica.term();
    let lossy = |fx: &[Effect]| fx.contains(&Effect::PeerLossy { replica: ReplicaId(2) });
    assert!(!lossy(&one.step(one.from(2, term, Body::Blank))), "it was said before it acknowledged");
    one.step(Input::Answered { from: ReplicaId(2), term, sent: one.now.mono });
    let soon = config(1).patience / 2;
    assert!(!lossy(&one.after(soon, one.from(2, term, Body::Blank))), "who holds nothing answers no heartbeat");
    one.step(Input::Answered { from: ReplicaId(3), term, sent: one.now.mono });
    assert!(lossy(&one.after(soon, one.from(2, term, Body::Blank))));
}

#[test]
fn a_leader_that_sends_a_snapshot_hears_that_its_term_is_over() {
    let mut one = start(1, members(3));
    let heard = one.step(one.from(3, 3, append(0, 0, &[])));
    one.settle(heard);
    let (index, index_term, members) = (53, 2, Members::of_voters([1, 2, 3].map(ReplicaId)));
    let piece = Body::Piece { index, index_term, number: 0, last: true, members, data: Bytes::from_static(b"x") };
    let effects = one.step(one.from(2, 2, piece));
    let to_leader = |e: &Effect| match e {
        Effect::Send { message, .. } => (message.to, message.term) == (ReplicaId(2), 3),
        _ => false,
    };
    assert!(effects.iter().any(to_leader), "{effects:?}");
    assert!(!effects.iter().any(|e| matches!(e, Effect::StagePiece { .. })), "{effects:?}");
}

#[test]
fn a_snapshot_goes_on_where_its_receiver_is_whatever_was_lost_or_late_between_them() {
    // The beginning of the log is gone: a member that has nothing needs a snapshot.
    let mut one = start(1, Durable { base: (53, 2), hard: (2, 1, 53), ..members(3) }).elected();
    let (term, last) = (one.replica.term(), one.replica.last().0);
    let refused = Body::AppendRefused { index: 53, hint_index: 0, hint_term: 0, commit: 0 };
    let wanted = |effects: &[Effect]| -> Vec<u32> {
        let number = |e: &Effect| match e {
            Effect::WantPiece { number, .. } => Some(*number),
            _ => None,
        };
        effects.iter().filter_map(number).collect()
    };
    let mut effects = one.step(one.from(3, term, refused));
    effects.extend(one.step(Input::Answered { from: ReplicaId(3), term, sent: one.now.mono }));
    let index = effects.iter().find_map(|e| match e {
        Effect::WantPiece { index, .. } => Some(*index),
        _ => None,
    });
    let index = index.unwrap_or_else(|| panic!("no snapshot is begun: {effects:?}"));
    assert!(index <= last);
    let arrived = |one: &mut One, next: u32| one.step(one.from(3, term, Body::PieceArrived { index, next }));
    let unanswered = |one: &mut One| {
        one.now.mono = one.now.mono + config(1).lease;
        one.step(Input::Answered { from: ReplicaId(2), term, sent: one.now.mono });
        one.step(Input::Strayed { from: ReplicaId(3) })
    };
    assert_eq!(wanted(&arrived(&mut one, 1)), [1]);
    assert_eq!(wanted(&arrived(&mut one, 2)), [2]);
    assert_eq!(wanted(&arrived(&mut one, 1)), [0; 0], "an answer that was late");
    assert_eq!(wanted(&arrived(&mut one, 0)), [0], "it has started anew");
    // Pieces 0 and 1 were still under way to it: it has them.
    assert_eq!(wanted(&arrived(&mut one, 2)), [0; 0], "this may be older than its start");
    assert_eq!(wanted(&unanswered(&mut one)), [0]);
    assert_eq!(wanted(&arrived(&mut one, 2)), [2], "but not what it answers again");
    assert_eq!(wanted(&arrived(&mut one, 3)), [3]);
    // And the other way round.
    assert_eq!(wanted(&arrived(&mut one, 1)), [0; 0]);
    assert_eq!(wanted(&unanswered(&mut one)), [3]);
    assert_eq!(wanted(&arrived(&mut one, 1)), [0; 0], "it would have to make all again for that");
    assert_eq!(wanted(&arrived(&mut one, 9)), [0; 0], "nobody has sent so many");
    assert_eq!(wanted(&arrived(&mut one, 1)), [1]);
}

#[test]
fn a_leader_ends_its_lease_before_it_hands_over() {
    let mut one = start(1, members(3)).elected();
    let term = one.replica.term();
    one.step(Input::Answered { from: ReplicaId(2), term, sent: one.now.mono });
    assert!(one.replica.lease_until(one.now.mono).is_some());
    let effects = one.step(Input::Transfer { to: ReplicaId(2) });
    assert_eq!(sent(&effects), [&Body::TimeoutNow]);
    assert_eq!(one.replica.lease_until(one.now.mono), None);
    let refused = one.step(Input::Propose { id: CallId(1), payload: Bytes::from_static(b"x") });
    assert_eq!(refused, [Effect::Dropped { id: CallId(1), why: Why::Busy }]);
    // Given up, it goes on, and still without a lease: the hand-over may yet be under way.
    let sent = one.now.mono + config(1).patience / 2;
    one.after(config(1).patience / 2, Input::Answered { from: ReplicaId(2), term, sent });
    one.tick_at_deadline();
    one.step(Input::Answered { from: ReplicaId(2), term, sent: one.now.mono });
    assert_eq!(one.replica.lease_until(one.now.mono), None);
    let taken = one.step(Input::Propose { id: CallId(2), payload: Bytes::from_static(b"x") });
    assert!(matches!(taken[0], Effect::Persist { .. }), "{taken:?}");
}

#[test]
fn a_leader_that_no_quorum_answers_steps_down_and_its_proposals_are_unknown() {
    let mut one = start(1, members(3)).elected();
    let proposed = one.step(Input::Propose { id: CallId(1), payload: Bytes::from_static(b"x") });
    one.settle(proposed);
    let effects = one.tick_at_deadline();
    assert!(effects.contains(&Effect::Dropped { id: CallId(1), why: Why::Unknown }), "{effects:?}");
    assert!(effects.contains(&Effect::Unlead { term: 1, to: vec![ReplicaId(2), ReplicaId(3)] }));
    assert_eq!(one.replica.role(), Role::Follower { leader: None });
}

#[test]
fn a_lossy_replica_is_deaf_and_a_lossy_sole_keeper_does_not_start() {
    let mut one = start(1, Durable { lossy: true, ..members(3) });
    assert_eq!(one.replica.next_deadline(), None);
    let ask = Body::AskVote { candidate: ASK, transfer: false };
    assert_eq!(sent(&one.after(config(1).promise * 2, one.from(2, 9, ask))), [&Body::Lossy]);
    assert_eq!(sent(&one.step(one.from(2, 9, append(0, 0, &[(1, 9)])))), [&Body::Lossy]);
    let now = Now::default();
    let alone = Replica::new(config(1), Durable { lossy: true, ..members(1) }, &Chance::from_u64(1), now);
    assert_eq!(alone.err(), Some(StartError::SoleKeeperLossy { cell: CellId(Uid(7)) }));
}

#[test]
fn closed_counts_once_a_quorum_holds_it_durably_and_a_vote_carries_the_bound() {
    let t = Revision::end_of(Wall(5_000));
    let mut one = start(1, members(3)).elected();
    let asked = one.step(Input::Close { revision: t });
    assert!(
        matches!(&asked[0], Effect::Persist { records, .. } if matches!(records[..], [Record::Bound { revision, .. }] if revision > t))
    );
    let all = one.settle(asked);
    assert!(!all.iter().any(|e| matches!(e, Effect::Closed { .. })), "one of three holds it");
    let closed = one.step(one.from(3, 1, Body::Closed { revision: t }));
    assert_eq!(closed, [Effect::Closed { revision: t, term: 1, index: 1 }]);
    // Within the bound no more is written.
    let soon = Revision::end_of(Wall(5_500));
    let asked = one.step(Input::Close { revision: soon });
    assert!(asked.iter().all(|e| matches!(e, Effect::Send { .. })), "{asked:?}");

    let mut voter = start(1, Durable { bound: t, ..members(3) });
    let ask = Body::AskVote { candidate: ASK, transfer: false };
    let effects = voter.after(config(1).promise, voter.from(2, 9, ask));
    assert!(matches!(sent(&effects)[..], [Body::Vote { bound, .. }] if *bound == t));
}

#[test]
fn a_question_that_was_overtaken_takes_nothing_from_the_one_that_came_before_it() {
    let (low, high) = (Revision::end_of(Wall(5_000)), Revision::end_of(Wall(5_100)));
    let mut voter = start(1, members(3));
    let appended = voter.after(config(1).promise, voter.from(2, 1, append(0, 0, &[(1, 1)])));
    voter.settle(appended);
    let asked = voter.step(voter.from(2, 1, Body::Close { revision: high, index: 1 }));
    assert!(matches!(asked[..], [Effect::Persist { .. }]), "{asked:?}");
    assert_eq!(voter.step(voter.from(2, 1, Body::Close { revision: low, index: 1 })), []);
    assert_eq!(sent(&voter.settle(asked)), [&Body::Closed { revision: high }]);
}

#[test]
fn a_replica_whose_settings_contradict_each_other_is_refused() {
    let mut wrong = config(1);
    wrong.lease = wrong.promise;
    let got = Replica::new(wrong, members(3), &Chance::from_u64(1), Now::default());
    assert!(matches!(got.err(), Some(StartError::Config { .. })));
}
