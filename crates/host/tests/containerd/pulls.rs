//! What a registry says reaches the pod's user.

use crate::node::{Node, in_own_namespaces, start};
use base::runtime::{Answer, Failure, Op, PullAuth, Why};
use host::containerd::Registry;
use host::runtime::Runtime;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[test]
fn what_the_registry_says_is_told() {
    in_own_namespaces("pulls::what_the_registry_says_is_told", refusals);
}

/// Answers every request with the same status, and tells what was asked.
async fn registry(status: &'static str) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("10.77.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                asked.push(byte);
            }
            let _ = tell.send(String::from_utf8_lossy(&asked).into_owned());
            let answer = format!(
                "HTTP/1.1 {status}\r\nwww-authenticate: Basic realm=\"shop\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, told)
}

async fn pull(runtime: &Arc<Runtime>, image: &str, auth: Vec<PullAuth>) -> Failure {
    runtime.perform(Op::PullImage { image: image.into(), auth }).await.unwrap_err()
}

async fn refusals(node: Node) {
    let (missing, mut asked_missing) = registry("404 Not Found").await;
    let (closed, mut asked_closed) = registry("401 Unauthorized").await;
    let mut config = node.config();
    let mirror =
        |name: &str, url: String| Registry { name: name.into(), mirrors: vec![url], or_itself: false, insecure: false };
    config.registries = vec![
        mirror("missing.example", missing),
        mirror("closed.example", closed),
        mirror("gone.example", "http://10.77.0.1:1".into()),
    ];
    let runtime = start(config).await;

    let failure = pull(&runtime, "missing.example/shop/web:1", Vec::new()).await;
    assert_eq!(failure.why, Why::NotFound, "{}", failure.message);
    assert!(failure.message.ends_with("missing.example/shop/web:1: not found"), "{}", failure.message);
    assert!(asked_missing.recv().await.unwrap().starts_with("HEAD /v2/shop/web/manifests/1?ns=missing.example "));

    let user = PullAuth { username: "u".into(), password: "p".into(), ..PullAuth::default() };
    let failure = pull(&runtime, "closed.example/web", vec![user.clone(), user]).await;
    assert_eq!(failure.why, Why::Denied, "{}", failure.message);
    let mut tried = 0;
    while let Ok(asked) = asked_closed.try_recv() {
        tried += usize::from(asked.to_lowercase().contains("authorization: basic dtpw"));
    }
    assert!(tried >= 2, "each of the two credentials was tried");

    let failure = pull(&runtime, "gone.example/web", Vec::new()).await;
    assert_eq!(failure.why, Why::Failed, "{}", failure.message);
    let failure = pull(&runtime, "Not A Name", Vec::new()).await;
    assert_eq!(failure.why, Why::Invalid, "{}", failure.message);
    let found = runtime.perform(Op::FindImage { image: "missing.example/shop/web:1".into() }).await;
    assert_eq!(found, Ok(Answer::NoImage));

    // The pause image is used by nothing now and pinned: it stays however full the disk is.
    let freed = runtime.collect_images(0, 0).await;
    assert!(freed.is_err(), "{freed:?}");
    assert!(matches!(runtime.perform(Op::FindImage { image: host::pause::NAME.into() }).await, Ok(Answer::Image(_))));
    runtime.end().await;
}
