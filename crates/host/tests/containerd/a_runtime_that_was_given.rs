//! `--cri SOCKET`: somebody else's runtime, with somebody else's pods in it.

use crate::node::{Node, ended, in_own_namespaces, is_running, start, until};
use base::runtime::{Answer, Op};
use host::runtime::{Config, Runtime};
use std::time::Duration;

#[test]
fn only_our_own_pods_are_seen_there() {
    in_own_namespaces("a_runtime_that_was_given::only_our_own_pods_are_seen_there", only_our_own);
}

async fn only_our_own(node: Node) {
    let theirs = node.start().await;
    let mut pod = node.pod(&theirs, "theirs");
    pod.run().await;
    pod.container("c", "sleep 1000", |_| ()).await;

    let data = std::fs::canonicalize(node.path("data")).unwrap();
    let socket = host::containerd::Config::of(&data).socket();
    let config = Config { data: node.path("given"), cri: Some(socket), ..node.config() };
    let ours = start(config.clone()).await;
    assert!(ours.seen().borrow().sandboxes.is_empty());
    assert_eq!(ours.version(), theirs.version());
    assert_eq!(ours.lacks().await.unwrap(), Vec::<String>::new());
    let mut own = node.pod(&ours, "own");
    own.run().await;
    let c = own.container("c", "while [ ! -e /go ]; do sleep 0.01; done", |_| ()).await;
    let seen = until(&ours, |s| is_running(s, &c)).await;
    assert_eq!((seen.sandboxes.len(), seen.containers.len()), (1, 1));
    own.exec(&c, "echo >/go").await;
    until(&ours, |s| ended(s, &c) == Some((0, "Completed".into()))).await;
    own.remove().await;
    assert_eq!(theirs.seen().borrow().sandboxes.len(), 1);

    // What it lacks is told in a letter.
    assert_eq!(theirs.perform(Op::FindImage { image: "nothing".into() }).await, Ok(Answer::NoImage));
    let network = data.join("cni/net.d/10-beemesh.conflist");
    std::fs::rename(&network, network.with_extension("away")).unwrap();
    let letters = lacks(&ours, |letters| !letters.is_empty()).await;
    assert!(letters[0].contains("has no network for pods") && letters[0].contains("/etc/cni/net.d"), "{letters:?}");
    std::fs::rename(network.with_extension("away"), &network).unwrap();
    lacks(&ours, <[String]>::is_empty).await;
    ours.end().await;
    assert_eq!(node.daemons().len(), 1, "a runtime that was given is not ours to end");
    pod.remove().await;
    theirs.end().await;

    let gone = Runtime::start(config).await;
    let letter = gone.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(letter.contains("does not answer"), "{letter}");
}

/// What the runtime lacks, once it is as it should be.
async fn lacks(runtime: &Runtime, what: impl Fn(&[String]) -> bool) -> Vec<String> {
    loop {
        let letters = runtime.lacks().await.unwrap();
        if what(&letters) {
            return letters;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
