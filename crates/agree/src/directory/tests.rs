//! Scripts of one directory. Many together: `tests/directory.rs`.

#![allow(clippy::unwrap_used)]

use super::test_keys::{TestKeys, node};
use super::*;
use crate::descriptor::{Descriptor, Keeper};
use alloc::vec;
use alloc::vec::Vec;
use base::{Chance, ReplicaId, Time, Uid};
use core::time::Duration;

const HIVE: CellId = CellId(Uid(100));
const CELL: CellId = CellId(Uid(7));
const SECOND: u64 = 1_000;

struct Script {
    d: Directory<TestKeys>,
    now: u64,
    fx: Vec<Effect>,
}

impl Script {
    /// Node 1, which knows of some others.
    fn new(change: impl FnOnce(&mut Config)) -> Script {
        let mut config = Config::new(node(1), HIVE, 5);
        // Its own rounds are not part of these stories.
        config.interval = Duration::from_secs(1_000_000_000);
        change(&mut config);
        let d = Directory::new(config, TestKeys(1), Durable::default(), &Chance::from_u64(1), Time::ZERO);
        Script { d, now: 0, fx: Vec::new() }
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let now = Time::from_ms(self.now);
        self.d.step(now, input, &mut self.fx);
        while self.d.next_deadline().is_some_and(|at| at <= now) {
            self.d.step(now, Input::Tick, &mut self.fx);
        }
        self.d.check();
        self.d.audit();
        core::mem::take(&mut self.fx)
    }

    fn hear(&mut self, from: u64, message: &Message) -> Vec<Effect> {
        self.step(Input::Message { from: node(from), bytes: message.encode() })
    }

    fn news(&mut self, from: u64, record: Record) -> Vec<Effect> {
        self.hear(from, &Message::Records { records: vec![record], news: true, more: false })
    }

    fn pass(&mut self, ms: u64) -> Vec<Effect> {
        self.now += ms;
        self.step(Input::Tick)
    }

    fn count(&self, from: u64, why: Refusal) -> u32 {
        self.d.refused().get(&node(from)).map_or(0, |r| r.count(why))
    }
}

fn refused(fx: &[Effect]) -> Vec<(NodeId, Refusal)> {
    fx.iter()
        .filter_map(|e| if let Effect::Refused { from, why, .. } = e { Some((*from, *why)) } else { None })
        .collect()
}

/// The questions asked: of whom, and by which number.
fn asked(fx: &[Effect]) -> Vec<(NodeId, u64)> {
    let ask = |e: &Effect| match e {
        Effect::Send { to, message: Message::Ask { id, .. } } => Some((*to, *id)),
        _ => None,
    };
    fx.iter().filter_map(ask).collect()
}

fn signed_by(key: u64, n: u64, boot: u64, serial: u64, hive: CellId, proof: &'static [u8]) -> Record {
    let (addresses, proof) = (vec![Address::Relay("https://r/".into())], Bytes::from_static(proof));
    let roles = Roles::KEEPER;
    let mut r = NodeRecord { node: node(n), boot, serial, hive, roles, addresses, proof, signature: Bytes::new() };
    r.signature = TestKeys::signature(key, Key::Node(r.node), &r.signed_bytes());
    Record::Node(r.encode())
}

fn of_node(n: u64, boot: u64, serial: u64) -> Record {
    signed_by(n, n, boot, serial, HIVE, b"")
}

fn link(epoch: u64, voters: &[u64], signed: &[u64]) -> Descriptor {
    let keeper = |n: &u64| Keeper { replica: ReplicaId(*n), node: node(*n), votes: true };
    let mut d = Descriptor { cell: CELL, epoch, keepers: voters.iter().map(keeper).collect(), signatures: Vec::new() };
    let bytes = d.signed_bytes();
    let sign = |n: &u64| (ReplicaId(*n), TestKeys::signature(*n, Key::Cell(CELL), &bytes));
    d.signatures = signed.iter().map(sign).collect();
    d
}

fn chain(to: u64) -> Chain {
    let mut c = Chain::new(link(1, &[2, 3, 4], &[0]));
    (2..=to).for_each(|epoch| c.push(link(epoch, &[2, 3, 4], &[2, 3])));
    c
}

fn of_cell(c: &Chain) -> Record {
    Record::Cell(c.encode())
}

#[test]
fn what_the_hive_has_is_found_without_asking() {
    let mut s = Script::new(|_| ());
    assert_eq!(refused(&s.news(2, of_node(3, 1, 1))), []);
    s.news(2, of_cell(&chain(2)));
    for (id, key) in [(1, Key::Node(node(3))), (2, Key::Cell(CELL))] {
        let fx = s.step(Input::Find { id, key });
        assert!(matches!(&fx[..], [Effect::Found { id: found, .. }] if *found == id), "{fx:?}");
    }
    assert_eq!(s.d.peers(), [node(3)]);
}

#[test]
fn what_it_has_not_is_asked_for_and_cached_for_a_while() {
    let mut s = Script::new(|_| ());
    (2..20).for_each(|n| drop(s.news(2, of_node(n, 1, 1))));
    let key = Key::Cell(CELL);
    let fx = s.step(Input::Find { id: 1, key });
    let first = asked(&fx);
    assert_eq!(first.len(), 3, "alpha");
    assert_eq!(asked(&s.step(Input::Find { id: 2, key })), [], "one search for one thing");
    let fx = s.pass(SECOND);
    let second = asked(&fx);
    assert!(second.len() == 3 && second.iter().all(|q| !first.contains(q)), "others are asked after a second");
    let record = Some(of_cell(&chain(2)));
    let leader = Some((node(3), 9));
    let fx = s.step(Input::Message {
        from: second[0].0,
        bytes: Message::Answer { id: second[0].1, record, leader }.encode(),
    });
    let found = |id| {
        let descriptor = chain(2).last().clone();
        Effect::Found { id, found: Found::Cell { descriptor, leader: Some(node(3)) } }
    };
    assert!(fx.contains(&found(1)) && fx.contains(&found(2)), "{fx:?}");
    assert_eq!(s.step(Input::Find { id: 3, key }), [found(3)], "cached");
    assert_eq!(s.d.version(&key), None, "not of the hive's table: nobody here keeps it");
    // After its time it is asked for again, and the same answer is good again.
    let again = s.pass(601 * SECOND);
    assert_eq!(asked(&again), []);
    let fx = s.step(Input::Find { id: 4, key });
    let (to, id) = asked(&fx)[0];
    let record = Some(of_cell(&chain(2)));
    let fx = s.step(Input::Message { from: to, bytes: Message::Answer { id, record, leader: None }.encode() });
    assert!(fx.iter().any(|e| matches!(e, Effect::Found { id: 4, .. })), "{fx:?}");
}

#[test]
fn a_search_ends_when_nobody_knows() {
    let mut s = Script::new(|_| ());
    let key = Key::Node(node(99));
    let fx = s.step(Input::Find { id: 1, key });
    assert_eq!(fx, [Effect::Missing { id: 1, why: LookupError::Unknown { key, asked: 0 } }]);
    (2..5).for_each(|n| drop(s.news(2, of_node(n, 1, 1))));
    let fx = s.step(Input::Find { id: 2, key });
    let mut last = Vec::new();
    for (to, id) in asked(&fx) {
        last = s.step(Input::Message { from: to, bytes: Message::Answer { id, record: None, leader: None }.encode() });
    }
    assert_eq!(
        last,
        [Effect::Missing { id: 2, why: LookupError::Unknown { key, asked: 3 } }],
        "as soon as all said no"
    );
}

#[test]
fn at_the_bound_a_lookup_says_that_it_is_busy() {
    let mut s = Script::new(|c| c.lookups_max = 2);
    s.news(2, of_node(2, 1, 1));
    let find = |s: &mut Script, n| s.step(Input::Find { id: n, key: Key::Node(node(n)) });
    find(&mut s, 50);
    find(&mut s, 51);
    let busy = [Effect::Missing { id: 52, why: LookupError::Busy { key: Key::Node(node(52)) } }];
    assert_eq!(find(&mut s, 52), busy);
}

#[test]
fn lies_are_refused_and_counted_with_who_told_them() {
    let mut s = Script::new(|_| ());
    s.news(2, of_node(3, 4, 4));
    s.news(2, of_cell(&chain(3)));
    let mut forked = chain(2);
    forked.push(link(3, &[2, 3, 9], &[2, 3]));
    let mut stolen = chain(3);
    stolen.push(link(4, &[8, 9], &[8, 9]));
    let mut forged = chain(3);
    forged.push({
        let mut d = link(4, &[8], &[2, 3]);
        d.keepers = link(4, &[9], &[]).keepers;
        d
    });
    let jump = Chain::new(link(9, &[9], &[2, 3]));
    let table: Vec<(Record, Refusal)> = vec![
        (signed_by(8, 3, 9, 9, HIVE, b""), Refusal::Signature),
        (signed_by(8, 8, 1, 1, HIVE, b"expelled"), Refusal::NotMember),
        (signed_by(8, 8, 1, 1, CELL, b""), Refusal::Foreign),
        (of_node(3, 4, 3), Refusal::Old),
        (of_node(3, 3, 9), Refusal::Old),
        (Record::Node(Bytes::from_static(b"junk")), Refusal::Malformed),
        (of_cell(&chain(2)), Refusal::Old),
        (of_cell(&forked), Refusal::Fork),
        (of_cell(&stolen), Refusal::Quorum),
        (of_cell(&forged), Refusal::Signature),
        (of_cell(&jump), Refusal::Gap),
        (Record::Cell(Bytes::new()), Refusal::Malformed),
    ];
    let before = s.d.digest();
    for (n, (record, why)) in table.into_iter().enumerate() {
        let from = 50 + n as u64;
        assert_eq!(refused(&s.news(from, record)), [(node(from), why)]);
        assert_eq!(s.count(from, why), 1);
        assert_eq!(s.d.refused()[&node(from)].lied().is_some(), why.is_lie());
    }
    assert_eq!(s.d.digest(), before, "and nothing was changed");
}

#[test]
fn an_answer_about_something_else_or_that_nobody_asked_for_is_refused() {
    let mut s = Script::new(|_| ());
    s.news(2, of_node(2, 1, 1));
    let fx = s.step(Input::Find { id: 1, key: Key::Node(node(9)) });
    let [(to, id)] = asked(&fx)[..] else { panic!("{fx:?}") };
    let answer = |record| Message::Answer { id, record: Some(record), leader: None };
    assert_eq!(refused(&s.hear(77, &answer(of_node(9, 1, 1)))), [(node(77), Refusal::Unasked)]);
    let fx = s.step(Input::Message { from: to, bytes: answer(of_node(8, 1, 1)).encode() });
    assert_eq!(refused(&fx), [(to, Refusal::WrongKey)]);
    assert!(s.d.node(&node(8)).is_none() && s.d.node(&node(9)).is_none());
}

#[test]
fn a_redirect_corrects_a_lower_epoch_and_never_a_higher_one() {
    let mut s = Script::new(|_| ());
    let redirect = |epoch, chain: Option<Bytes>| Input::Redirect {
        from: node(3),
        cell: CELL,
        epoch,
        leader: Some((node(4), 6)),
        chain,
    };
    s.step(redirect(2, Some(chain(2).encode())));
    assert_eq!(s.d.chain(CELL).unwrap().last().epoch, 2);
    assert_eq!(s.d.leader(Time::from_ms(s.now), CELL), Some(node(4)));
    s.step(redirect(4, Some(chain(4).encode())));
    let fx = s.step(redirect(3, Some(chain(3).encode())));
    assert_eq!((s.d.chain(CELL).unwrap().last().epoch, refused(&fx)), (4, vec![(node(3), Refusal::Old)]));
    // Whoever says that there is a higher one without proving it is asked for the proof.
    let fx = s.step(redirect(6, None));
    let [(to, id)] = asked(&fx)[..] else { panic!("{fx:?}") };
    assert_eq!(to, node(3));
    s.hear(3, &Message::Answer { id, record: Some(of_cell(&chain(6))), leader: None });
    assert_eq!(s.d.chain(CELL).unwrap().last().epoch, 6);
}

#[test]
fn a_hint_is_of_a_voter_and_ends() {
    let mut s = Script::new(|_| ());
    s.news(2, of_cell(&chain(1)));
    let hint = |s: &mut Script, from, leader, term| {
        s.step(Input::Redirect {
            from: node(from),
            cell: CELL,
            epoch: 1,
            leader: Some((node(leader), term)),
            chain: None,
        });
        s.d.leader(Time::from_ms(s.now), CELL)
    };
    assert_eq!(hint(&mut s, 9, 9, 5), None, "no keeper of it");
    assert_eq!(hint(&mut s, 9, 2, u64::MAX), Some(node(2)), "hearsay will do");
    assert_eq!(hint(&mut s, 9, 3, 1), Some(node(3)), "of hearsay the newest");
    assert_eq!(hint(&mut s, 4, 4, 7), Some(node(4)), "the leader itself");
    assert_eq!(hint(&mut s, 9, 2, u64::MAX), Some(node(4)), "hearsay does not replace that");
    s.step(Input::Leads { cell: CELL, node: node(3), term: 8 });
    assert_eq!(s.d.leader(Time::from_ms(s.now), CELL), Some(node(3)));
    s.step(Input::Astray { cell: CELL, node: node(3) });
    assert_eq!(s.d.leader(Time::from_ms(s.now), CELL), None);
    assert_eq!(hint(&mut s, 9, 2, 1), Some(node(2)));
    s.pass(31 * SECOND);
    assert_eq!(s.d.leader(Time::from_ms(s.now), CELL), None);
}

#[test]
fn a_full_table_keeps_what_it_has() {
    let mut s = Script::new(|c| (c.nodes_max, c.bytes_max) = (3, 64 << 10));
    (2..5).for_each(|n| assert_eq!(refused(&s.news(2, of_node(n, 1, 1))), []));
    assert_eq!(refused(&s.news(2, of_node(5, 1, 1))), [(node(2), Refusal::Full)]);
    assert_eq!(refused(&s.news(2, of_node(3, 1, 2))), [], "what it has may change");
    assert_eq!(s.d.peers().len(), 3);
    let listing = Message::Listing {
        buckets: (0..=255).collect(),
        items: vec![(Key::Node(node(5)), Version(1, 1, 1))],
        more: false,
    };
    let wants = |e: &Effect| matches!(e, Effect::Send { message: Message::Want { .. }, .. });
    assert!(!s.hear(2, &listing).iter().any(wants), "nor is asked for what there is no room for");
}

#[test]
fn what_comes_too_fast_is_not_kept_for_later() {
    let mut s = Script::new(|c| (c.inbox_max, c.judged_per_step) = (4, 1));
    let records: Vec<Record> = (2..20).map(|n| of_node(n, 1, 1)).collect();
    let bytes = Message::Records { records, news: true, more: false }.encode();
    let mut fx = Vec::new();
    s.d.step(Time::ZERO, Input::Message { from: node(2), bytes }, &mut fx);
    s.d.check();
    assert_eq!(refused(&fx).len(), 14);
    assert_eq!((s.d.peers().len(), s.d.next_deadline()), (1, Some(Time::ZERO)), "one judged, the rest at once");
    s.step(Input::Tick);
    assert_eq!(s.d.peers().len(), 4);
}

#[test]
fn what_is_gone_comes_back_only_as_something_newer() {
    let mut s = Script::new(|_| ());
    s.news(2, of_node(3, 4, 4));
    s.news(2, of_cell(&chain(2)));
    s.step(Input::Gone { key: Key::Node(node(3)) });
    s.step(Input::Gone { key: Key::Cell(CELL) });
    assert_eq!((s.d.node(&node(3)), s.d.chain(CELL), s.d.peers().len()), (None, None, 0));
    s.news(2, of_node(3, 4, 4));
    assert_eq!(refused(&s.news(2, of_cell(&chain(9)))), [(node(2), Refusal::Old)]);
    assert_eq!((s.d.node(&node(3)), s.d.chain(CELL)), (None, None));
    s.news(2, of_node(3, 5, 1));
    assert!(s.d.node(&node(3)).is_some(), "it joined again");
}

#[test]
fn a_node_that_is_not_heard_of_for_long_is_forgotten() {
    let mut s = Script::new(|c| c.expiry = Duration::from_secs(100));
    s.step(Input::Node { roles: Roles::WORKER, addresses: vec![], proof: Bytes::new() });
    s.news(2, of_node(3, 1, 1));
    s.news(2, of_cell(&chain(2)));
    s.pass(90 * SECOND);
    s.news(2, of_node(4, 1, 1));
    s.pass(60 * SECOND);
    assert_eq!(s.d.peers(), [node(4)]);
    s.news(2, of_node(3, 1, 1));
    assert_eq!(s.d.peers(), [node(4)], "nor does the same word bring it back");
    assert!(s.d.chain(CELL).is_some() && s.d.node(&node(1)).is_some());
}

#[test]
fn a_node_speaks_above_its_earlier_lives() {
    let mut s = Script::new(|_| ());
    s.step(Input::Node { roles: Roles::WORKER, addresses: vec![], proof: Bytes::new() });
    assert_eq!(s.d.version(&Key::Node(node(1))).map(|v| (v.0, v.1)), Some((5, 1)));
    let fx = s.news(2, of_node(1, 8, 3));
    assert!(fx.contains(&Effect::Boot { boot: 9 }), "{fx:?}");
    assert_eq!(s.d.version(&Key::Node(node(1))).map(|v| (v.0, v.1)), Some((9, 2)));
    let forged = s.news(2, signed_by(2, 1, 90, 1, HIVE, b""));
    assert_eq!(refused(&forged), [(node(2), Refusal::Signature)]);
    assert_eq!(s.d.version(&Key::Node(node(1))).map(|v| v.0), Some(9));
    // And so does one that was written down.
    let config = Config::new(node(1), HIVE, 1);
    let durable = Durable { records: s.d.records().collect(), seeds: vec![] };
    let mut d = Directory::new(config, TestKeys(1), durable, &Chance::from_u64(2), Time::ZERO);
    d.audit();
    d.step(Time::ZERO, Input::Node { roles: Roles::WORKER, addresses: vec![], proof: Bytes::new() }, &mut Vec::new());
    assert_eq!(d.version(&Key::Node(node(1))).map(|v| (v.0, v.1)), Some((10, 1)));
}

#[test]
fn a_long_chain_asks_for_roots_word() {
    let mut s = Script::new(|_| ());
    let anchors = |fx: &[Effect]| fx.iter().filter(|e| matches!(e, Effect::Anchor { .. })).count();
    assert_eq!(anchors(&s.step(Input::Kept { chain: chain(3) })), 0);
    assert_eq!(anchors(&s.step(Input::Kept { chain: chain(9) })), 1);
    let fx = s.step(Input::Kept { chain: Chain::new(link(9, &[2, 3, 4], &[0])) });
    assert_eq!((anchors(&fx), s.d.chain(CELL).unwrap().links().len()), (0, 1));
}

#[test]
fn what_is_sent_in_answers_has_a_bound() {
    let mut s = Script::new(|c| c.answer_bytes = 40_000);
    let sent = |fx: &[Effect]| fx.iter().filter(|e| matches!(e, Effect::Send { .. })).count();
    let digest = Message::Digest { whole: 1 };
    let from_one: usize = (0..50).map(|_| sent(&s.hear(2, &digest))).sum();
    assert_eq!(from_one, 10_000 / (8 * BUCKETS), "a quarter to one");
    let from_all: usize = (0..50).map(|n| sent(&s.hear(n, &digest))).sum();
    assert_eq!(from_one + from_all, 40_000 / (8 * BUCKETS));
}

#[test]
fn what_rides_with_a_heartbeat_is_not_sent_again_at_once() {
    let mut s = Script::new(|c| c.interval = Duration::from_secs(1));
    s.news(2, of_node(3, 1, 1));
    s.pass(1_300);
    let sent = |fx: Vec<Effect>| fx.iter().filter(|e| matches!(e, Effect::Send { .. })).count();
    assert_eq!(sent(s.step(Input::Beat { to: node(3) })), 0, "it was just told");
    s.now += 600;
    assert!(sent(s.step(Input::Beat { to: node(3) })) > 0);
    assert_eq!(sent(s.pass(100)), 0);
}
