//! Streams: bytes both ways, back-pressure, bounds and time-outs.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use mesh::OpenError;
use std::io::ErrorKind;
use std::time::Duration;
use support::{CELL, Founder, PAIR, make, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_go_both_ways_and_an_end_is_an_end() {
    let founder = Founder::new();
    let (a, mut b) = (make().of(&founder).await, make());
    b.heard.echoes = true;
    let b = b.of(&founder).await;
    a.knows(&b);
    let mut stream = a.mesh.open(b.id(), PAIR).await.unwrap();
    assert_eq!((stream.peer.node, stream.protocol), (b.id(), PAIR));
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
    let (sender, receiver) = (&mut stream.send, &mut stream.receive);
    let mut came = Vec::new();
    let write = async {
        sender.write_all(&sent).await.unwrap();
        sender.shutdown().await.unwrap();
    };
    tokio::join!(write, async { receiver.read_to_end(&mut came).await.unwrap() });
    assert!(came == sent, "{} of {}", came.len(), sent.len());
    assert_eq!((a.counters().streams_opened, b.counters().streams_accepted), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_dropped_half_way_is_no_whole_one() {
    let founder = Founder::new();
    let (a, b) = (make().of(&founder).await, make().of(&founder).await);
    a.knows(&b);
    let mut stream = a.mesh.open(b.id(), CELL).await.unwrap();
    stream.send.write_all(b"half a").await.unwrap();
    until("it is there", || b.heard.streams.lock().unwrap().len() == 1).await;
    let mut there = b.heard.streams.lock().unwrap().pop_front().unwrap();
    let mut head = [0; 6];
    there.receive.read_exact(&mut head).await.unwrap();
    let mut stopped = std::pin::pin!(there.send.stopped());
    assert!(timeout(Duration::ZERO, &mut stopped).await.is_err(), "it is still wanted");
    drop(stream);
    stopped.await;
    let error = there.receive.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
    let error = loop {
        match there.send.write_all(&[0; 1024]).await {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(!error.to_string().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_stops_the_writer_and_no_other_stream() {
    let founder = Founder::new();
    let (a, b) = (make().of(&founder).await, make().of(&founder).await);
    a.knows(&b);
    let mut stuck = a.mesh.open(b.id(), CELL).await.unwrap();
    let wrote = timeout(Duration::from_millis(500), async {
        let mut wrote = 0usize;
        loop {
            stuck.send.write_all(&[0; 64 * 1024]).await.unwrap();
            wrote += 64 * 1024;
            assert!(wrote < 64 << 20, "nobody holds this back");
        }
    });
    assert!(wrote.await.is_err(), "it waits");
    let mut other = a.mesh.open(b.id(), CELL).await.unwrap();
    other.send.write_all(b"past it").await.unwrap();
    until("both are there", || b.heard.streams.lock().unwrap().len() == 2).await;
    let mut there = b.heard.streams.lock().unwrap().pop_back().unwrap();
    let mut came = [0; 7];
    there.receive.read_exact(&mut came).await.unwrap();
    assert_eq!(&came, b"past it");
    a.send(&b, PAIR, b"and messages");
    until("it came", || b.counters().messages_received == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_has_so_many_streams_at_once_and_waits_for_the_next() {
    let founder = Founder::new();
    let (mut a, mut b) = (make(), make());
    a.config.limits.open_within = Duration::from_millis(700);
    b.config.limits.streams_max = 3;
    let (a, b) = (a.of(&founder).await, b.of(&founder).await);
    a.knows(&b);
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(a.mesh.open(b.id(), CELL).await.unwrap());
    }
    let error = a.mesh.open(b.id(), CELL).await.unwrap_err();
    assert!(matches!(error, OpenError::Timeout { .. }), "{error}");
    until("they are there", || b.heard.streams.lock().unwrap().len() == 3).await;
    open.pop();
    b.heard.streams.lock().unwrap().clear();
    open.clear();
    a.mesh.open(b.id(), CELL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_on_which_nothing_moves_is_given_up() {
    let founder = Founder::new();
    let (mut a, b) = (make(), make().of(&founder).await);
    a.config.limits.stream_idle = Duration::from_millis(200);
    let a = a.of(&founder).await;
    a.knows(&b);
    let mut stream = a.mesh.open(b.id(), CELL).await.unwrap();
    let error = stream.receive.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let error = loop {
        if let Err(error) = stream.send.write_all(&[0; 64 * 1024]).await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
}
