//! Messages: order, bounds, and who pays for a peer that does not read.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use mesh::SendError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use support::{CELL, Founder, Heard, PAIR, link, make, two, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_one_protocol_come_in_order_and_whole() {
    let founder = Founder::new();
    let (mut a, b) = (make(), make().of(&founder).await);
    a.config.limits.queue_messages_max = 20_000;
    let a = a.of(&founder).await;
    a.knows(&b);
    let message = |protocol: u8, n: u32| {
        let mut bytes = vec![protocol];
        bytes.extend(n.to_be_bytes());
        // Lengths of all kinds, none at all among them.
        bytes.resize(5 + (n as usize * 7919) % 3000, n as u8);
        bytes
    };
    for n in 0..5000 {
        a.send(&b, CELL, &message(1, n));
        a.send(&b, PAIR, &message(2, n));
    }
    a.send(&b, PAIR, b"");
    until("all came", || b.counters().messages_received == 10_001).await;
    let expected = |p| (0..5000).map(|n| message(p, n)).collect::<Vec<_>>();
    assert_eq!(b.heard.take_messages(CELL), expected(1));
    let came = b.heard.take_messages(PAIR);
    assert_eq!(came[..5000], expected(2));
    assert!(came[5000].is_empty());
    assert_eq!(a.counters().messages_sent, 10_001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_message_passes_and_a_larger_one_is_refused_at_once() {
    let founder = Founder::new();
    let (a, b) = two(&founder).await;
    let bytes_max = 4 << 20;
    a.send(&b, CELL, &vec![7; bytes_max]);
    until("it came", || b.counters().messages_received == 1).await;
    assert_eq!(b.heard.take_messages(CELL)[0], vec![7; bytes_max]);
    let refused = a.mesh.send(b.id(), CELL, vec![7; bytes_max + 1].into());
    assert_eq!(refused, Err(SendError::TooLarge { protocol: CELL, bytes: bytes_max + 1, bytes_max }));
    assert!(matches!(
        a.mesh.send(b.id(), mesh::Protocol::new("other", 1), "x".into()),
        Err(SendError::NotSpoken { .. })
    ));
    assert_eq!(a.counters().messages_refused, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_lets_nothing_go_holds_up_its_own_protocol_and_nobody_else() {
    let founder = Founder::new();
    let (mut a, mut b) = (make(), make());
    for limits in [&mut a.config.limits, &mut b.config.limits] {
        limits.message_bytes_max = 16 * 1024;
        limits.in_flight_bytes_max = 64 * 1024;
        limits.queue_messages_max = 8;
        limits.stream_window_bytes = 64 * 1024;
    }
    let (a, b, c) = (a.of(&founder).await, b.of(&founder).await, make().of(&founder).await);
    a.knows(&b);
    c.knows(&b);
    link(&a, &b).await;
    // The handler keeps whatever it is given: after 64 KiB of one protocol nothing of it is read any more, then QUIC's
    // windows fill, then the queue, and then the oldest go. Every call returns at once.
    let sent = 2000u64;
    for n in 0..sent {
        let mut bytes = vec![0; 10_000];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        a.send(&b, CELL, &bytes);
        if n % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
    until("the oldest are dropped", || a.counters().messages_dropped_queue_full > 0).await;
    let held = |p| b.heard.count(|h| matches!(h, Heard::Message(_, protocol, _) if *protocol == p));
    until("as many came as may be in flight", || held(CELL) == 6).await;
    // Another protocol of the same peer, and another peer, go on.
    a.send(&b, PAIR, b"beside");
    c.send(&b, CELL, b"from another");
    until("both came", || held(PAIR) == 1 && held(CELL) == 7).await;
    // Let go, the rest comes: what was dropped is missing and counted, the order holds.
    let came = Mutex::new(Vec::new());
    let take = || came.lock().unwrap().extend(b.heard.take_messages(CELL).into_iter().filter(|m| m.len() == 10_000));
    let done = || {
        take();
        let (a, b) = (a.counters(), b.counters());
        a.messages_sent + a.messages_dropped_queue_full == sent + 1 && b.messages_received == a.messages_sent + 1
    };
    until("every one came or was counted", done).await;
    take();
    let came = came.into_inner().unwrap();
    assert!(came.len() >= 8, "{} of a queue of eight", came.len());
    let numbers: Vec<u64> = came.iter().map(|m| u64::from_be_bytes(m[..8].try_into().unwrap())).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert_eq!(numbers.last(), Some(&(sent - 1)), "the newest is there");
    assert!(b.counters().messages_received < sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_queues_together_have_a_bound_and_a_dead_peer_costs_no_more() {
    let founder = Founder::new();
    let mut a = make();
    a.config.limits.queued_bytes_total_max = 50_000;
    a.config.limits.queue_messages_max = 4;
    a.config.limits.dial_within = std::time::Duration::from_secs(1);
    let a = a.of(&founder).await;
    // Nobody listens there: a UDP socket that never answers.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let nodes: Vec<_> = (0..2).map(|_| identity::NodeKey::make().unwrap().id()).collect();
    for node in &nodes {
        a.mesh.hint(*node, &[silent.local_addr().unwrap()]);
    }
    let send = |n: usize| a.mesh.send(nodes[n], CELL, vec![0; 10_000].into());
    assert!((0..20).all(|_| send(0).is_ok()), "its queue holds four, the oldest go");
    assert_eq!(a.counters().messages_dropped_queue_full, 16);
    assert_eq!(send(1), Ok(()));
    assert!(matches!(send(1), Err(SendError::Full { .. })));
    until("what waited is dropped with the dial", || a.counters().messages_dropped_unreachable == 5).await;
    assert_eq!(send(1), Ok(()), "and makes room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_waits_goes_when_the_peer_can_be_reached() {
    let founder = Founder::new();
    let (a, b) = (make().of(&founder).await, make().of(&founder).await);
    let stop = Arc::new(AtomicBool::new(false));
    a.mesh.want(b.id(), true).unwrap();
    a.knows(&b);
    // Again and again, as who needs an answer does.
    until("one came", || {
        a.send(&b, CELL, b"are you there");
        stop.load(Ordering::Relaxed) || b.counters().messages_received > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_may_be_sent_from_any_thread() {
    let founder = Founder::new();
    let (a, b) = two(&founder).await;
    let (a, b) = (Arc::new(a), Arc::new(b));
    let (sender, receiver) = (a.clone(), b.clone());
    std::thread::spawn(move || sender.send(&receiver, CELL, b"from outside")).join().unwrap();
    until("it came", || b.counters().messages_received == 1).await;
    // And whatever else does not wait.
    let sender = a.clone();
    let other = b.id();
    std::thread::spawn(move || {
        sender.mesh.check(|_| false);
        sender.mesh.want(other, true).unwrap();
        sender.mesh.expel(support::expelled(1, other));
    })
    .join()
    .unwrap();
    until("the link is closed", || a.mesh.peers().is_empty()).await;
}
