//! What strangers and broken peers send: it is bounded, counted, and ends nothing but their own connection.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use base::Chance;
use identity::{NodeKey, Roles};
use iroh::endpoint::{Connection, presets};
use iroh::{Endpoint, EndpointAddr, PublicKey, SecretKey, TransportAddr};
use std::time::Duration;
use support::{CELL, Founder, NOW, Node, link, make, two, until};
use tokio::time::timeout;

const LINK: &[u8] = b"/beemesh/link/1";

/// A program of somebody else's, on the same library.
async fn stranger() -> Endpoint {
    stranger_at("127.0.0.1:0").await
}

async fn stranger_at(address: &str) -> Endpoint {
    let builder = Endpoint::builder(presets::Minimal).secret_key(SecretKey::generate()).clear_ip_transports();
    builder.bind_addr(address).unwrap().bind().await.unwrap()
}

fn address(of: &Node) -> EndpointAddr {
    let id = PublicKey::from_bytes(&of.id().0).unwrap();
    EndpointAddr::from_parts(id, of.mesh.bound().into_iter().map(TransportAddr::Ip))
}

async fn closed(connection: &Connection) -> String {
    timeout(Duration::from_secs(20), connection.closed()).await.expect("it is closed").to_string()
}

async fn still_serves(a: &Node, founder: &Founder) {
    let b = make().of(founder).await;
    b.knows(a);
    let before = a.counters().messages_received;
    b.send(a, CELL, b"still there");
    until("it serves others", || a.counters().messages_received == before + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_instead_of_a_hello_ends_that_connection_and_is_counted() {
    let founder = Founder::new();
    let a = make().of(&founder).await;
    let stranger = stranger().await;
    let mut chance = Chance::from_u64(3);
    for round in 0..40u64 {
        let connection = stranger.connect(address(&a), LINK).await.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        let mut bytes = vec![0; chance.below(3000) as usize + 5];
        chance.fill(&mut bytes);
        if round % 2 == 0 {
            // A frame of the right kind and length.
            bytes[0] = 1;
            let length = (bytes.len() - 5) as u32;
            bytes[1..5].copy_from_slice(&length.to_be_bytes());
        }
        // It may be closed before all of it is written.
        let _ = send.write_all(&bytes).await;
        let _ = send.finish();
        let said = closed(&connection).await;
        assert!(said.contains("broke the protocol"), "{said}");
    }
    assert!(a.counters().violations >= 40, "{:?}", a.counters());
    assert!(a.heard.heard.lock().unwrap().is_empty());
    still_serves(&a, &founder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_closed_in_time() {
    let founder = Founder::new();
    let mut a = make();
    a.config.limits.hello_within = Duration::from_millis(300);
    let a = a.of(&founder).await;
    let stranger = stranger().await;
    let connection = stranger.connect(address(&a), LINK).await.unwrap();
    let said = closed(&connection).await;
    assert!(said.contains("did not finish its hello"), "{said}");
    assert_eq!(a.counters().handshakes_silent, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_its_hello_is_believed_a_peer_has_one_stream_and_little_room() {
    let founder = Founder::new();
    let mut a = make();
    a.config.limits.hello_within = Duration::from_secs(3);
    let a = a.of(&founder).await;
    let stranger = stranger().await;
    let connection = stranger.connect(address(&a), LINK).await.unwrap();
    let (mut first, _) = connection.open_bi().await.unwrap();
    assert!(timeout(Duration::from_millis(300), connection.open_bi()).await.is_err());
    assert!(timeout(Duration::from_millis(300), connection.open_uni()).await.is_err());
    // A frame that announces 32 KiB, and then far more than may be sent.
    first.write_all(&[1, 0, 0, 0x80, 0]).await.unwrap();
    let flood = timeout(Duration::from_secs(20), async { while first.write_all(&[0; 8192]).await.is_ok() {} });
    flood.await.expect("it is cut off");
    assert!(closed(&connection).await.contains("broke the protocol"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_svid_that_was_seen_on_one_connection_is_no_good_on_another() {
    let founder = Founder::new();
    let a = make().of(&founder).await;
    // A node of the mesh whose hello somebody records: with its node key, and without the key of its SVID.
    let victim = NodeKey::make().unwrap();
    let recorder = make();
    let key = NodeKey::from_pem(&victim.to_pem()).unwrap();
    let svid = founder.svid(key.id(), Roles::ALL, NOW);
    let listener = Endpoint::builder(presets::Minimal).clear_ip_transports().alpns(vec![LINK.to_vec()]);
    let listener = listener.bind_addr("127.0.0.1:0").unwrap().bind().await.unwrap();
    let node = support::Made { key, ..recorder }.start(Some(svid)).await;
    node.mesh.hint(base::NodeId(*listener.id().as_bytes()), &listener.bound_sockets());
    node.mesh.want(base::NodeId(*listener.id().as_bytes()), true).unwrap();
    let heard = listener.accept().await.unwrap().await.unwrap();
    let (_send, mut recv) = heard.accept_bi().await.unwrap();
    let mut head = [0; 5];
    recv.read_exact(&mut head).await.unwrap();
    let mut hello = vec![0; u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize];
    recv.read_exact(&mut hello).await.unwrap();
    let seed = seed(&victim);
    node.mesh.close().await;

    let thief = Endpoint::builder(presets::Minimal).secret_key(SecretKey::from_bytes(&seed)).clear_ip_transports();
    let thief = thief.bind_addr("127.0.0.1:0").unwrap().bind().await.unwrap();
    let connection = thief.connect(address(&a), LINK).await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&[&head[..], &hello].concat()).await.unwrap();
    let said = closed(&connection).await;
    assert!(said.contains("did not sign this connection"), "{said}");
    assert_eq!(a.counters().refused_identity, 1);
    assert!(a.mesh.peers().is_empty());
}

/// The seed of a key, by its place in PKCS #8 (RFC 8410).
fn seed(key: &NodeKey) -> [u8; 32] {
    use rustls_pki_types::pem::PemObject;
    let der = rustls_pki_types::PrivatePkcs8KeyDer::from_pem_slice(key.to_pem().as_bytes()).unwrap();
    der.secret_pkcs8_der()[16..48].try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_strangers_leaves_room_for_others_once_it_is_over() {
    let founder = Founder::new();
    let mut a = make();
    a.config.limits.hello_within = Duration::from_millis(500);
    a.config.limits.handshakes_max = 16;
    let a = a.of(&founder).await;
    let stranger = stranger().await;
    // All from one address, which may have two of sixteen places.
    let knocks = (0..60).map(|_| {
        let (stranger, address) = (stranger.clone(), address(&a));
        tokio::spawn(async move { stranger.connect(address, LINK).await.map(|c| async move { closed(&c).await }) })
    });
    let mut refused = 0;
    for knock in knocks.collect::<Vec<_>>() {
        match knock.await.unwrap() {
            Ok(held) => drop(held.await),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0 && a.counters().handshakes_turned_away > 0, "{refused} {:?}", a.counters());
    still_serves(&a, &founder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_strangers_is_let_in_by_its_addresses_and_no_further_than_there_is_room() {
    let founder = Founder::new();
    let mut a = make();
    a.config.limits.hello_within = Duration::from_secs(3);
    a.config.limits.handshakes_max = 16;
    let a = a.of(&founder).await;
    // Two from each of eight addresses: from the ninth on each has to show that it can be answered.
    let (mut silent, mut strangers) = (Vec::new(), Vec::new());
    for host in 2..10 {
        let stranger = stranger_at(&format!("127.0.0.{host}:0")).await;
        for _ in 0..2 {
            silent.push(stranger.connect(address(&a), LINK).await.unwrap());
        }
        strangers.push(stranger);
    }
    let late = stranger_at("127.0.0.99:0").await;
    assert!(late.connect(address(&a), LINK).await.is_err());
    assert!(a.counters().handshakes_turned_away > 0);
    for connection in &silent {
        closed(connection).await;
    }
    assert_eq!(a.counters().handshakes_silent, 16);
    still_serves(&a, &founder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authenticated_peer_that_breaks_the_protocol_loses_its_link_and_may_come_again() {
    let founder = Founder::new();
    let (mut a, mut b) = (make(), make());
    // The two disagree on how long a message may be.
    a.config.limits.message_bytes_max = 1000;
    b.config.limits.message_bytes_max = 5000;
    let (a, b) = (a.of(&founder).await, b.of(&founder).await);
    b.knows(&a);
    link(&b, &a).await;
    b.send(&a, CELL, &[0; 3000]);
    until("the link is closed", || b.heard.downs().len() == 1).await;
    assert!(b.heard.downs()[0].to_string().contains("longer than any may be"), "{}", b.heard.downs()[0]);
    assert_eq!(a.counters().violations, 1);
    until("it is there again", || b.heard.ups() == 2).await;
    b.send(&a, CELL, &[0; 900]);
    until("it came", || a.counters().messages_received == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_datagrams_at_the_port_change_nothing() {
    let founder = Founder::new();
    let (a, b) = two(&founder).await;
    link(&a, &b).await;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut chance = Chance::from_u64(9);
    for _ in 0..5000 {
        let mut bytes = vec![0; chance.below(1400) as usize];
        chance.fill(&mut bytes);
        socket.send_to(&bytes, a.mesh.bound()[0]).unwrap();
    }
    b.send(&a, CELL, b"through it all");
    until("it came", || a.counters().messages_received == 1).await;
    assert!(a.heard.downs().is_empty() && b.heard.downs().is_empty());
}
