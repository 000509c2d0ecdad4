//! The way from pods and from the host to the node's own gateway.

use crate::node::{Node, in_own_namespaces, is_running, until};
use base::runtime::{Answer, Op};
use host::services::{self, Redirect};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

#[test]
fn a_services_address_leads_to_the_gateway() {
    in_own_namespaces("services::a_services_address_leads_to_the_gateway", to_the_gateway);
}

async fn to_the_gateway(node: Node) {
    let gateway = TcpListener::bind("0.0.0.0:6443").await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = gateway.accept().await.unwrap();
            let _ = stream.write_all(b"the gateway\n").await;
        }
    });
    let runtime = node.start().await;
    let mut pod = node.pod(&runtime, "u1");
    pod.run().await;
    let c = pod.container("c", "sleep 1000", |_| ()).await;
    until(&runtime, |s| is_running(s, &c)).await;
    let service: SocketAddr = "10.43.0.1:443".parse().unwrap();
    let tcp = || Op::Tcp { host: "10.43.0.1".into(), port: 443, timeout: Duration::from_secs(2) };
    assert!(runtime.perform(tcp()).await.is_err(), "nobody has that address");
    for to in ["10.77.0.1:6443", "0.0.0.0:6443"] {
        // Twice: it is the same afterwards.
        for _ in 0..2 {
            services::redirect(&[Redirect { service, to: to.parse().unwrap() }]).await.unwrap();
        }
        let said = pod.exec(&c, "busybox nc -w 5 10.43.0.1 443 </dev/null").await;
        assert_eq!(said, (0, "the gateway\n".into()), "{to}");
        assert_eq!(runtime.perform(tcp()).await, Ok(Answer::Done), "from the host to {to}");
    }
    services::redirect(&[]).await.unwrap();
    assert_ne!(pod.exec(&c, "busybox nc -w 2 10.43.0.1 443 </dev/null").await.1, "the gateway\n");
    services::forget().await;
    let rules = std::process::Command::new("iptables-save").output().unwrap().stdout;
    assert!(!String::from_utf8(rules).unwrap().contains("BEEMESH"));
    pod.remove().await;
    runtime.end().await;
}
