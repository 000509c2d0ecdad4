//! Who is let in and who is not, which link stays, and how one ends.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use identity::{Refusal, Roles};
use mesh::{MeshError, OpenError, Protocol, SendError, Standing, Why};
use std::time::{Duration, Instant};
use support::{CELL, Founder, HOUR, Heard, NOW, expelled, link, make, two, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_of_one_mesh_prove_themselves_to_each_other() {
    let founder = Founder::new();
    let made = make();
    let svid = founder.svid(made.id(), Roles::KEEPER | Roles::WORKER, NOW);
    let (a, b) = (made.start(Some(svid)).await, make().of(&founder).await);
    a.knows(&b);
    a.send(&b, CELL, b"hello");
    until("the message came", || b.counters().messages_received == 1).await;
    let peer = b.mesh.peer(a.id()).unwrap();
    assert_eq!((peer.node, peer.roles), (a.id(), Roles::KEEPER | Roles::WORKER));
    assert_eq!(peer.protocols, [CELL, support::PAIR]);
    assert_eq!(peer.expires, NOW + HOUR + identity::GRACE);
    assert!(matches!(b.heard.heard.lock().unwrap().front(), Some(Heard::Up(_))), "up comes before the message");
    assert_eq!((a.counters().links_up, b.counters().links_up), (1, 1));
}

/// Whether `a` refuses `b`, which dials it, and both know why.
async fn refused(a: support::Node, b: support::Node, ours: impl Fn(&Why) -> bool, letter: &str) {
    let ups = (a.heard.ups(), b.heard.ups());
    b.knows(&a);
    let error = b.mesh.open(a.id(), CELL).await.unwrap_err();
    let said = error.to_string();
    assert!(matches!(&error, OpenError::NoLink { why: Why::Closed { .. }, .. }), "{said}");
    assert!(said.contains(letter), "{said}");
    // The same the other way round, and here it is the one who dials that refuses.
    a.knows(&b);
    let OpenError::NoLink { why, .. } = a.mesh.open(b.id(), CELL).await.unwrap_err() else { panic!("no letter") };
    assert!(ours(&why), "{why}");
    assert!(a.mesh.peers().is_empty() && b.mesh.peers().is_empty());
    assert_eq!((a.heard.ups(), b.heard.ups()), ups, "nobody was told of a link that never was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_meshs_node_is_refused_and_both_are_told_why() {
    let (founder, other) = (Founder::new(), Founder::of("loud-otter.mesh"));
    let (a, b) = (make().of(&founder).await, make().of(&other).await);
    a.knows(&b);
    let OpenError::NoLink { why, .. } = a.mesh.open(b.id(), CELL).await.unwrap_err() else { panic!("no letter") };
    assert!(why.to_string().contains("another trust domain"), "{why}");
    until("it is counted", || a.counters().refused_identity + b.counters().refused_identity > 0).await;
    assert!(a.mesh.peers().is_empty() && b.mesh.peers().is_empty());
    assert_eq!((a.heard.ups(), b.heard.ups()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_svid_ran_out_is_refused_after_the_grace_and_not_before() {
    let founder = Founder::new();
    let old = make();
    let svid = founder.svid(old.id(), Roles::ALL, NOW);
    let (a, old) = (make(), old.start(Some(svid)).await);
    let late = NOW + HOUR + identity::GRACE;
    let fresh = founder.svid(a.id(), Roles::ALL, late - HOUR / 2);
    let a = a.start(Some(fresh)).await;
    a.set_clock(late);
    old.set_clock(late);
    old.knows(&a);
    old.send(&a, CELL, b"still good");
    until("it came", || a.counters().messages_received == 1).await;
    a.set_clock(late + Duration::from_secs(1));
    until("the link is closed", || a.counters().links_expired == 1 && old.heard.downs().len() == 1).await;
    let why = old.heard.downs().remove(0).to_string();
    assert!(why.contains("ran out"), "{why}");
    let expired =
        |why: &Why| matches!(why, Why::Identity { refusal, .. } if matches!(**refusal, Refusal::OutOfTime { .. }));
    old.mesh.want(a.id(), false).unwrap();
    let a2 = make();
    let fresh = founder.svid(a2.id(), Roles::ALL, late - HOUR / 2);
    let a2 = a2.start(Some(fresh)).await;
    a2.set_clock(late + Duration::from_secs(1));
    refused(a2, old, expired, "must be renewed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_wrong_is_named_in_the_letter() {
    let founder = Founder::new();
    let (a, b) = (make().of(&founder).await, make());
    let ahead = NOW + HOUR;
    let svid = founder.svid(b.id(), Roles::ALL, ahead);
    let b = b.start(Some(svid)).await;
    b.set_clock(ahead);
    let clock = |why: &Why| matches!(why, Why::Identity { clocks, .. } if clocks.contains("3600 s"));
    refused(a, b, clock, "clocks differ").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_svid_of_another_node_is_not_even_taken() {
    let founder = Founder::new();
    let (a, b) = (make(), make());
    let svid = founder.svid(b.id(), Roles::ALL, NOW);
    let error = mesh::Mesh::start(a.config, &a.key, Some(svid), std::sync::Arc::new(a.heard)).await.err().unwrap();
    assert!(matches!(&error, MeshError::Svid(why) if why.contains("and this is")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_svid_nobody_is_let_in_and_nobody_is_dialled() {
    let founder = Founder::new();
    let (a, b) = (make().of(&founder).await, make().start(None).await);
    a.knows(&b);
    b.knows(&a);
    let said = a.mesh.open(b.id(), CELL).await.unwrap_err().to_string();
    assert!(said.contains("has no SVID"), "{said}");
    let OpenError::NoLink { why, .. } = b.mesh.open(a.id(), CELL).await.unwrap_err() else { panic!("no letter") };
    assert_eq!(why, Why::NoIdentity);
    b.mesh.set_identity(founder.svid(b.id(), Roles::ALL, NOW)).unwrap();
    b.mesh.open(a.id(), CELL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expelled_node_loses_its_link_within_two_seconds_and_is_not_let_in_again() {
    let founder = Founder::new();
    let (a, b) = two(&founder).await;
    link(&a, &b).await;
    a.mesh.want(b.id(), false).unwrap();
    let stream = b.mesh.open(a.id(), CELL).await.unwrap();
    let start = Instant::now();
    a.mesh.expel(expelled(1, b.id()));
    until("both were told", || a.heard.downs().len() == 1 && b.heard.downs().len() == 1).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(matches!(&a.heard.downs()[0], Why::Expelled { node, .. } if *node == b.id()));
    assert!(b.heard.downs()[0].to_string().contains("was expelled"), "{}", b.heard.downs()[0]);
    drop(stream);
    let said = b.mesh.open(a.id(), CELL).await.unwrap_err().to_string();
    assert!(said.contains("was expelled"), "{said}");
    let OpenError::NoLink { why, .. } = a.mesh.open(b.id(), CELL).await.unwrap_err() else { panic!("no letter") };
    assert!(matches!(why, Why::Expelled { .. }), "{why}");
    // An older list takes nothing back.
    a.mesh.expel(identity::Revocations::none());
    assert!(b.mesh.open(a.id(), CELL).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_expelled_keeper_vouches_for_is_cut_off_too() {
    let founder = Founder::new();
    let (a, b) = two(&founder).await;
    link(&a, &b).await;
    a.mesh.want(b.id(), false).unwrap();
    a.mesh.expel(expelled(1, founder.identity.node_id()));
    until("the link is closed", || a.mesh.peers().is_empty() && b.mesh.peers().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_do_not_pass_the_callers_check_are_closed_and_others_stay() {
    let founder = Founder::new();
    let (a, b) = two(&founder).await;
    let made = make();
    let svid = founder.svid(made.id(), Roles::WORKER, NOW);
    let c = made.start(Some(svid)).await;
    c.knows(&a);
    link(&b, &a).await;
    link(&c, &a).await;
    until("both links", || a.heard.ups() == 2).await;
    c.mesh.want(a.id(), false).unwrap();
    a.mesh.check(|peer| peer.roles.contains(Roles::KEEPER));
    until("one is gone", || a.heard.downs() == [Why::Dismissed(c.id())]).await;
    assert!(a.mesh.peer(b.id()).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_svid_is_renewed_under_traffic_without_losing_a_message() {
    let founder = Founder::new();
    let (a, b) = two(&founder).await;
    link(&a, &b).await;
    let later = NOW + HOUR / 2;
    for round in 0..3u8 {
        for n in 0..200u8 {
            a.send(&b, CELL, &[round, n]);
        }
        a.set_clock(later);
        b.set_clock(later);
        a.mesh.set_identity(founder.svid(a.id(), Roles::WORKER, later)).unwrap();
        b.mesh.set_identity(founder.svid(b.id(), Roles::KEEPER, later)).unwrap();
        until("all came", || b.counters().messages_received == (u64::from(round) + 1) * 200).await;
    }
    until("each saw the other's", || {
        let roles = |at: &support::Node, of: &support::Node| at.mesh.peer(of.id()).map(|p| (p.roles, p.expires));
        let end = later + HOUR + identity::GRACE;
        roles(&a, &b) == Some((Roles::KEEPER, end)) && roles(&b, &a) == Some((Roles::WORKER, end))
    })
    .await;
    until("the handlers heard it", || {
        a.heard.count(|h| matches!(h, Heard::Renewed(p) if p.roles == Roles::KEEPER)) > 0
    })
    .await;
    // Past the end of the first one, nothing has happened to the link.
    let past = NOW + HOUR + identity::GRACE + Duration::from_secs(60);
    a.set_clock(past);
    b.set_clock(past);
    a.send(&b, CELL, b"after");
    until("it came", || b.counters().messages_received == 601).await;
    let sent: Vec<Vec<u8>> = (0..3).flat_map(|round| (0..200).map(move |n| vec![round, n])).collect();
    let came = b.heard.take_messages(CELL);
    assert_eq!(came[..600], sent, "in order, across every renewal");
    assert_eq!((a.counters().links_up, b.counters().links_up), (1, 1));
    assert!(a.heard.downs().is_empty() && b.heard.downs().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_whose_peer_renews_nothing_ends_with_its_svid() {
    let founder = Founder::new();
    let (a, b) = two(&founder).await;
    link(&a, &b).await;
    a.mesh.want(b.id(), false).unwrap();
    a.set_clock(NOW + HOUR + identity::GRACE + Duration::from_secs(1));
    until("the link is closed", || a.heard.downs() == [Why::Expired(b.id())]).await;
    until("and the peer was told", || b.heard.downs().len() == 1).await;
    assert_eq!(a.counters().links_expired, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_dial_each_other_at_once_end_with_one_link_and_lose_nothing() {
    let founder = Founder::new();
    for round in 0..10u8 {
        let (a, b) = two(&founder).await;
        a.send(&b, CELL, &[round]);
        b.send(&a, CELL, &[round]);
        until("both came", || a.counters().messages_received == 1 && b.counters().messages_received == 1).await;
        until("one link", || a.mesh.peers().len() == 1 && b.mesh.peers().len() == 1).await;
        let live = |n: &support::Node| n.counters().links_up - n.counters().links_down;
        until("and no other", || live(&a) == 1 && live(&b) == 1).await;
        assert_eq!((a.heard.ups(), b.heard.ups()), (1, 1), "whatever crossed, the handlers saw one link");
        assert!(a.heard.downs().is_empty() && b.heard.downs().is_empty());
        a.mesh.close().await;
        b.mesh.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_starts_anew_is_linked_again() {
    let founder = Founder::new();
    let (a, b) = two(&founder).await;
    link(&a, &b).await;
    let key = identity::NodeKey::from_pem(&b.key.to_pem()).unwrap();
    b.mesh.close().await;
    until("it is down", || a.heard.downs().len() == 1).await;
    let mut again = make();
    again.key = key;
    let b = again.of(&founder).await;
    a.knows(&b);
    until("it is up again", || a.heard.ups() == 2).await;
    a.send(&b, CELL, b"again");
    until("it came", || b.counters().messages_received == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_highest_common_major_is_spoken_and_no_other() {
    let founder = Founder::new();
    let (mut a, mut b, mut c) = (make(), make(), make());
    let major = |m| Protocol::new("cell", m);
    a.config.protocols = vec![major(1), major(2)];
    b.config.protocols = vec![major(2), major(3)];
    c.config.protocols = vec![major(7), Protocol::new("other", 1)];
    let (a, b, c) = (a.of(&founder).await, b.of(&founder).await, c.of(&founder).await);
    a.knows(&b);
    a.knows(&c);
    link(&a, &b).await;
    assert_eq!(a.mesh.peer(b.id()).unwrap().protocols, [major(2)]);
    let not_spoken = a.mesh.send(b.id(), major(1), "x".into());
    assert_eq!(not_spoken, Err(SendError::NotSpoken { protocol: major(1), node: b.id() }));
    assert!(matches!(a.mesh.open(b.id(), major(1)).await, Err(OpenError::NotSpoken { .. })));
    a.send(&b, major(2), b"x");
    until("it came", || b.counters().messages_received == 1).await;
    // What was queued for a major that is not agreed on is dropped, and counted.
    let said = a.mesh.open(c.id(), major(1)).await.unwrap_err().to_string();
    assert!(said.contains("no protocol in common") && said.contains("/beemesh/cell/7"), "{said}");
    assert_eq!(a.counters().refused_nothing_in_common + c.counters().refused_nothing_in_common, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_link_is_closed_unless_it_is_wanted_or_a_stream_is_open() {
    let founder = Founder::new();
    let (mut a, mut b) = (make(), make());
    a.config.limits.link_idle = Duration::from_millis(300);
    b.config.limits.link_idle = HOUR;
    let (a, b) = (a.of(&founder).await, b.of(&founder).await);
    a.knows(&b);
    let stream = a.mesh.open(b.id(), CELL).await.unwrap();
    until("it is up", || a.heard.ups() == 1).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(a.heard.downs().is_empty(), "a stream is open");
    drop(stream);
    until("it is closed", || a.heard.downs() == [Why::Idle(b.id())]).await;
    a.mesh.want(b.id(), true).unwrap();
    until("it is up again", || a.heard.ups() == 2).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(a.heard.downs().len(), 1, "it is wanted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_and_an_address_of_another_machine_are_clear_errors() {
    let founder = Founder::new();
    let first = make().of(&founder).await;
    for (at, why) in [(first.mesh.bound()[0], "in use"), ("203.0.113.7:7443".parse().unwrap(), "assign")] {
        let mut second = make();
        second.config.bind = vec![at];
        let error = mesh::Mesh::start(second.config, &second.key, None, std::sync::Arc::new(second.heard)).await;
        let said = error.err().expect("it is refused").to_string();
        assert!(said.contains(why) && said.contains(&at.to_string()), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_reached_of_whom_no_address_is_known() {
    let founder = Founder::new();
    let (a, b) = (make().of(&founder).await, make().of(&founder).await);
    let OpenError::NoLink { why, .. } = a.mesh.open(b.id(), CELL).await.unwrap_err() else { panic!("no letter") };
    assert_eq!(why, Why::NoAddress(b.id()));
    a.send(&b, CELL, b"lost");
    until("it is dropped and counted", || a.counters().messages_dropped_unreachable == 1).await;
    // A hint ends the wait at once.
    a.mesh.want(b.id(), true).unwrap();
    a.knows(&b);
    until("it is up", || a.heard.ups() == 1).await;
    assert_eq!(a.mesh.send(a.id(), CELL, "x".into()), Err(SendError::Myself));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_hint_leads_to_nobody_and_does_not_stand_in_the_way_of_a_right_one() {
    let founder = Founder::new();
    let (mut a, b, c) = (make(), make().of(&founder).await, make().of(&founder).await);
    a.config.limits.dial_within = Duration::from_secs(1);
    let a = a.of(&founder).await;
    a.mesh.hint(b.id(), &c.mesh.bound());
    let OpenError::NoLink { why, .. } = a.mesh.open(b.id(), CELL).await.unwrap_err() else { panic!("no letter") };
    assert!(matches!(why, Why::Unreachable { .. }), "{why}");
    assert!(c.mesh.peers().is_empty() && a.mesh.peers().is_empty());
    assert!(c.counters().handshakes_for_others > 0);
    a.mesh.hint(b.id(), &[b.mesh.bound()[0], c.mesh.bound()[0]]);
    a.mesh.open(b.id(), CELL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_tells_the_peers_and_ends_in_time() {
    let founder = Founder::new();
    let (a, b) = two(&founder).await;
    link(&a, &b).await;
    let start = Instant::now();
    a.mesh.close().await;
    assert!(start.elapsed() < Duration::from_secs(5));
    until("the peer was told", || b.heard.downs().len() == 1).await;
    assert!(b.heard.downs()[0].to_string().contains("is closed"), "{}", b.heard.downs()[0]);
    assert_eq!(a.mesh.send(b.id(), CELL, "x".into()), Err(SendError::Stopping));
    assert!(a.mesh.open(b.id(), CELL).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joined_by_a_ticket_stands_by_its_home() {
    let founder = Founder::new();
    let now = NOW;
    let issuer = founder.identity.issuer(base::CellId(base::Uid(7)), &identity::IssuerScope::Registry, now).unwrap();
    founder.identity.issue_svid(&issuer, Roles::ALL, now).unwrap();
    let standing = Standing::of(&founder.identity).unwrap();
    let mut made = make();
    made.key = identity::NodeKey::from_pem(&founder.identity.node_key().to_pem()).unwrap();
    let (a, b) = (made.start(Some(standing)).await, make().of(&founder).await);
    a.knows(&b);
    link(&a, &b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_svid_that_proves_less_than_the_one_before_ends_the_link() {
    let (founder, other) = (Founder::new(), Founder::of("loud-otter.mesh"));
    let (a, b) = two(&founder).await;
    link(&a, &b).await;
    a.mesh.want(b.id(), false).unwrap();
    b.mesh.set_identity(other.svid(b.id(), Roles::ALL, NOW)).unwrap();
    until("the link is closed", || a.heard.downs().len() == 1 && b.heard.downs().len() == 1).await;
    assert!(matches!(a.heard.downs()[0], Why::Identity { .. }), "{}", a.heard.downs()[0]);
    assert!(b.heard.downs()[0].to_string().contains("another trust domain"), "{}", b.heard.downs()[0]);
    assert_eq!(a.counters().refused_identity, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_ends_every_link_at_once_is_not_dialled_at_once_every_time() {
    let founder = Founder::new();
    let (a, b) = two(&founder).await;
    let start = Instant::now();
    a.mesh.want(b.id(), true).unwrap();
    until("eight links came and went", || {
        b.mesh.check(|_| false);
        b.counters().links_down >= 8
    })
    .await;
    // 20, 40, 80, 160, then 200 ms between them, a half less at the least.
    assert!(start.elapsed() > Duration::from_millis(400), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a network interface that passes multicast"]
async fn two_on_one_network_find_each_other_by_mdns_if_they_are_told_to() {
    let founder = Founder::new();
    let (mut a, mut b) = (make(), make());
    for made in [&mut a, &mut b] {
        made.config.lan = true;
        made.config.bind = vec!["0.0.0.0:0".parse().unwrap()];
    }
    let (a, b) = (a.of(&founder).await, b.of(&founder).await);
    a.mesh.open(b.id(), CELL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_tells_who_dialled_where_the_peer_is_seen_and_whose_clock_is_ahead() {
    let founder = Founder::new();
    let (a, b) = two(&founder).await;
    b.set_clock(NOW + Duration::from_secs(7));
    assert_eq!(a.mesh.last_linked(b.id()), None);
    link(&a, &b).await;
    let [to_b] = &a.mesh.links()[..] else { panic!("one link") };
    let [to_a] = &b.mesh.links()[..] else { panic!("one link") };
    assert_eq!((to_b.peer.node, to_b.dialed_here, to_b.clock_ahead_ms), (b.id(), true, 7000));
    assert_eq!((to_a.peer.node, to_a.dialed_here, to_a.clock_ahead_ms), (a.id(), false, -7000));
    let at = |seen: Option<std::net::SocketAddr>, of: &support::Node| of.mesh.bound().contains(&seen.unwrap());
    assert!(at(to_b.seen_at, &b) && at(to_a.seen_at, &a), "{to_b:?} {to_a:?}");
    assert!(to_b.round_trip.is_some());
    b.mesh.close().await;
    until("the end is noted", || a.mesh.last_linked(b.id()).is_some_and(|(_, why)| !why.is_empty())).await;
}
