#![allow(clippy::unwrap_used)]
use super::*;
use alloc::string::String;
use alloc::{format, vec};

const CELL: CellId = CellId(Uid(1));
const OTHER: CellId = CellId(Uid(2));
const LED: Led = Led { leader: ReplicaId(1), member: ReplicaId(2), term: 3 };

/// Two sides and what they do, with nothing lost in between but what the test loses.
struct Two {
    leads: Pair,
    follows: Pair,
    now: Time,
}

impl Two {
    fn new() -> Two {
        let now = Time::from_ms(1_000);
        let pair = |boot| Pair::new(Config::default(), BootId(boot), now);
        Two { leads: pair(10), follows: pair(20), now }
    }

    fn lead(&mut self, input: Input) -> Vec<Effect> {
        let mut fx = Vec::new();
        self.leads.step(self.now, input, &mut fx);
        self.leads.check();
        fx
    }

    fn follow(&mut self, input: Input) -> Vec<Effect> {
        let mut fx = Vec::new();
        self.follows.step(self.now, input, &mut fx);
        self.follows.check();
        fx
    }

    /// Passes `from`'s messages on, and the answers back; all other effects.
    fn deliver(&mut self, effects: Vec<Effect>, by_leader: bool) -> Vec<Effect> {
        let mut rest = Vec::new();
        for e in effects {
            let Effect::Send(m) = e else {
                rest.push(e);
                continue;
            };
            let m = Message::decode(&m.encode()).unwrap();
            let got = if by_leader { self.follow(Input::Message(m)) } else { self.lead(Input::Message(m)) };
            rest.extend(self.deliver(got, !by_leader));
        }
        rest
    }

    fn beat(&mut self) -> Vec<Effect> {
        self.now = self.now.max(self.leads.next_deadline().unwrap());
        let sent = self.lead(Input::Tick);
        self.deliver(sent, true)
    }
}

fn answered(sent: Time) -> Effect {
    Effect::Answered { cell: CELL, from: ReplicaId(2), term: 3, sent }
}

fn follow_of(id: u64) -> Input {
    Input::Follow { cell: CELL, id: FollowId(id), member: ReplicaId(2), leader: ReplicaId(1), term: 3 }
}

#[test]
fn an_answer_is_the_heartbeat_of_each_cell_in_the_list_but_those_it_names() {
    let mut two = Two::new();
    two.follow(follow_of(1));
    two.lead(Input::Lead { cell: OTHER, led: LED });
    let sent = two.lead(Input::Lead { cell: CELL, led: LED });
    assert!(sent.is_empty(), "it shares the next beat: {sent:?}");
    let got = two.beat();
    let strayed = Effect::Strayed { cell: OTHER, from: ReplicaId(2) };
    assert_eq!(got, [answered(two.now), strayed.clone()]);
    // The list is acknowledged: the next beat goes without it, and says as much.
    two.now = two.leads.next_deadline().unwrap();
    let sent = two.lead(Input::Tick);
    assert!(matches!(sent[..], [Effect::Send(Message::Beat { list: None, .. })]), "{sent:?}");
    assert_eq!(two.deliver(sent, true), [answered(two.now), strayed]);
}

#[test]
fn an_answer_counts_from_the_send_time_of_its_own_beat() {
    let mut two = Two::new();
    two.follow(follow_of(1));
    two.lead(Input::Lead { cell: CELL, led: LED });
    two.beat();
    let first = two.now + Config::default().interval;
    two.now = first;
    let slow = two.lead(Input::Tick);
    two.now = first + Duration::from_millis(400);
    assert_eq!(two.deliver(slow.clone(), true), [answered(first)]);
    assert_eq!(two.deliver(slow, true), [], "a repeated beat is answered once");
}

#[test]
fn a_binding_ends_once_and_nothing_is_answered_for_it_after() {
    let mut two = Two::new();
    two.follow(follow_of(1));
    two.lead(Input::Lead { cell: CELL, led: LED });
    assert_eq!(two.beat(), [answered(two.now)]);
    let last = Some(two.now);
    assert_eq!(
        two.follow(Input::Unfollow { cell: CELL, id: FollowId(1) }),
        [Effect::Unfollowed { cell: CELL, id: FollowId(1), last }]
    );
    assert_eq!(two.follow(Input::Unfollow { cell: CELL, id: FollowId(1) }), []);
    assert_eq!(two.beat(), [Effect::Strayed { cell: CELL, from: ReplicaId(2) }]);
}

#[test]
fn silence_ends_the_bindings_and_so_does_another_boot() {
    let mut two = Two::new();
    two.follow(follow_of(1));
    two.lead(Input::Lead { cell: CELL, led: LED });
    two.beat();
    let last = two.now;
    two.now = last + Config::default().silence;
    assert!(!two.follows.is_heard(two.now));
    let ended = |id, last| vec![Effect::Unfollowed { cell: CELL, id: FollowId(id), last }];
    assert_eq!(two.follow(Input::Tick), ended(1, Some(last)));

    two.follow(follow_of(2));
    let beat = Message::Beat { boot: BootId(11), number: 1, version: 1, list: None };
    let got = two.follow(Input::Message(beat));
    assert_eq!(got[..1], ended(2, None));
    assert!(matches!(got[1], Effect::Send(Message::Answer { version: 0, .. })), "{got:?}");
}

#[test]
fn a_leader_that_steps_down_is_known_at_once_and_a_restarted_peer_gets_the_list_again() {
    let mut two = Two::new();
    two.follow(follow_of(1));
    two.lead(Input::Lead { cell: CELL, led: LED });
    two.beat();
    let last = Some(two.now);
    two.now = two.now + Duration::from_millis(7);
    two.lead(Input::Unlead { cell: CELL, term: 3 });
    assert_eq!(two.leads.next_deadline(), Some(two.now));
    assert_eq!(two.beat(), [Effect::Unfollowed { cell: CELL, id: FollowId(1), last }]);
    assert_eq!(two.leads.next_deadline(), None, "nothing is shared, nothing is sent");

    two.now = two.now + Duration::from_millis(7);
    two.lead(Input::Lead { cell: CELL, led: LED });
    two.beat();
    two.follows = Pair::new(Config::default(), BootId(21), two.now);
    two.follow(follow_of(1));
    let restarted = Effect::Restarted { cell: CELL, from: ReplicaId(2) };
    assert_eq!(two.beat(), [restarted], "it holds no list");
    assert_eq!(two.beat(), [answered(two.now)]);
}

#[test]
fn heartbeats_have_the_bytes_they_always_had() {
    let all = [
        Message::Beat { boot: BootId(1), number: 2, version: 3, list: None },
        Message::Beat { boot: BootId(1), number: 2, version: 3, list: Some([(CELL, LED)].into()) },
        Message::Answer { boot: BootId(1), to_boot: BootId(2), number: 3, version: 4, not: [CELL, OTHER].into() },
    ];
    let hex = |m: &Message| m.encode().iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n";
    assert_eq!(all.iter().map(hex).collect::<String>(), include_str!("../../tests/golden/heartbeats-v1.hex"));
    for m in all {
        let bytes = m.encode();
        assert_eq!(Message::decode(&bytes), Ok(m));
        assert!((0..bytes.len()).all(|cut| Message::decode(&bytes.slice(..cut)).is_err()));
    }
}
