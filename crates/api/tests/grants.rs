//! How long somebody is believed: a token that cannot be judged now, a watch whose user has lost the right,
//! a connection whose certificate ends.

#![allow(clippy::unwrap_used)]

mod support;

use api::server::Limits;
use objects::status::Status;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use support::{Client, piece, start};

const PODS: &str = "/api/v1/namespaces/gold/pods";
const TOKEN: [(&str, &str); 1] = [("authorization", "Bearer good-robot")];

#[tokio::test]
async fn a_token_nobody_can_judge_now_is_to_be_shown_again_and_not_dropped() {
    let served = start(Limits::default()).await;
    let mut client = served.client_as(None).await;
    for (doubt, code) in [
        (Status::too_many_requests("too many requests wait for this cell; try again", 1), 429),
        (Status::unavailable("no leader is known for the cell that decides this"), 503),
        (Status::unauthorized(""), 401),
    ] {
        *served.backend.doubt.lock().unwrap() = Some(doubt);
        assert_eq!(client.send("GET", PODS, &TOKEN, "").await.status, code);
    }
    *served.backend.doubt.lock().unwrap() = None;
    assert_eq!(client.send("GET", PODS, &TOKEN, "").await.status, 200);
}

#[tokio::test]
async fn looking_a_token_up_takes_a_place_among_the_requests_and_no_longer_than_one() {
    let served = start(Limits { requests: 1, request: Duration::from_millis(200), ..Limits::default() }).await;
    let (mut first, mut second) = (served.client_as(None).await, served.client_as(None).await);
    let slow = tokio::spawn(async move { first.send("GET", PODS, &[("authorization", "Bearer good-slow")], "").await });
    while served.backend.waiting.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(second.send("GET", PODS, &TOKEN, "").await.status, 429);
    let got = slow.await.unwrap();
    assert_eq!((got.status, got.header("retry-after")), (503, "1"));
    assert_eq!(second.send("GET", PODS, &TOKEN, "").await.status, 200);
}

#[tokio::test]
async fn a_watch_ends_when_its_user_loses_the_right_or_the_token() {
    let served = start(Limits { renew: Duration::from_millis(20), ..Limits::default() }).await;
    let mut client = served.client_as(None).await;
    let mut watches = Vec::new();
    for token in ["Bearer good-jane", "Bearer good-joe"] {
        let path = format!("{PODS}?watch=true");
        let opened = client.open("GET", &path, &[("authorization", token)], "").await;
        assert_eq!(opened.status(), 200);
        watches.push(opened.into_body());
    }
    // Who cannot be judged now goes on.
    *served.backend.doubt.lock().unwrap() = Some(Status::unavailable("no leader is known"));
    let waits = Duration::from_millis(200);
    assert!(tokio::time::timeout(waits, piece(&mut watches[0])).await.is_err(), "a doubt ended a watch");
    *served.backend.doubt.lock().unwrap() = None;
    served.backend.revoked.lock().unwrap().push("jane".into());
    assert_eq!(piece(&mut watches[0]).await, None);
    assert!(tokio::time::timeout(waits, piece(&mut watches[1])).await.is_err(), "joe may still watch");
    *served.backend.doubt.lock().unwrap() = Some(Status::unauthorized(""));
    assert_eq!(piece(&mut watches[1]).await, None);
}

#[tokio::test]
async fn a_connection_lasts_no_longer_than_its_certificate() {
    let served = start(Limits { drain: Duration::from_millis(50), ..Limits::default() }).await;
    let end = SystemTime::now() + Duration::from_secs(2);
    let tls = served.tls_until(Some(("jane", &[])), &[b"h2"], Some(end)).await;
    let mut client = Client::over(tls).await;
    let watching = client.open("GET", &format!("{PODS}?watch=true"), &[], "").await;
    assert_eq!(watching.status(), 200);
    // Whether by the watch's end or by the connection's: nothing more comes.
    let mut body = watching.into_body();
    while let Some(Ok(_)) = http_body_util::BodyExt::frame(&mut body).await {}
    client.closed().await;
    assert!(SystemTime::now() >= end - Duration::from_secs(1));
}
