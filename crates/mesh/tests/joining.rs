//! Joining: one question and one answer, for who has a key and nothing else.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use identity::{Contact, NodeKey};
use mesh::{JoinError, MAX_JOIN_REQUEST};
use std::time::Duration;
use support::{Founder, make, until};

fn contact(node: &support::Node) -> Contact {
    Contact { node: node.id(), addresses: node.mesh.bound() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_without_an_svid_asks_and_is_answered() {
    let founder = Founder::new();
    let (a, b) = (make().of(&founder).await, make().start(None).await);
    let answer = b.mesh.ask_to_join(&contact(&a), b"may I").await.unwrap();
    assert_eq!(answer, [&b.id().0[..4], b"may I"].concat(), "the handler is told whose key asks");
    let large = vec![7; MAX_JOIN_REQUEST];
    assert_eq!(b.mesh.ask_to_join(&contact(&a), &large).await.unwrap().len(), 4 + MAX_JOIN_REQUEST);
    let said = b.mesh.ask_to_join(&contact(&a), b"no").await.unwrap_err();
    assert_eq!(said, JoinError::Refused { node: a.id(), said: "the ticket has expired".into() });
    let said = b.mesh.ask_to_join(&contact(&a), &vec![7; MAX_JOIN_REQUEST + 1]).await.unwrap_err();
    assert_eq!(said, JoinError::TooLarge { bytes: MAX_JOIN_REQUEST + 1 });
    assert!(a.mesh.peers().is_empty(), "nobody is a peer by that");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_answers_has_the_key_the_ticket_names() {
    let founder = Founder::new();
    let (a, mut b) = (make().of(&founder).await, make());
    b.config.limits.dial_within = Duration::from_secs(1);
    let b = b.start(None).await;
    let wrong = Contact { node: NodeKey::make().unwrap().id(), addresses: a.mesh.bound() };
    let said = b.mesh.ask_to_join(&wrong, b"may I").await.unwrap_err();
    assert!(matches!(said, JoinError::NoAnswer { .. }), "{said}");
    assert_eq!(a.counters().joins_asked, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_bounded_in_time_and_number() {
    let founder = Founder::new();
    let mut a = make();
    a.config.limits.join_within = Duration::from_millis(300);
    a.config.limits.joins_per_second = 1;
    a.config.limits.joins_max = 2;
    let (a, b) = (a.of(&founder).await, make().start(None).await);
    let said = b.mesh.ask_to_join(&contact(&a), b"never").await.unwrap_err();
    assert!(matches!(&said, JoinError::Refused { said, .. } if said.contains("not decided in time")), "{said}");
    let at = contact(&a);
    let mut refused = None;
    for _ in 0..20 {
        if let Err(said) = b.mesh.ask_to_join(&at, b"may I").await {
            refused = Some(said.to_string());
            break;
        }
    }
    assert!(refused.as_deref().is_some_and(|said| said.contains("ask again in a while")), "{refused:?}");
    until("it is counted", || a.counters().joins_turned_away > 0).await;
}
