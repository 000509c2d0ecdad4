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
    let gateway = TcpListener::bind("[::]:6443").await.unwrap();
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
    let (v4, v6): (SocketAddr, SocketAddr) = ("10.43.0.1:443".parse().unwrap(), "[fd43::1]:443".parse().unwrap());
    let tcp = |service: SocketAddr| Op::Tcp {
        host: service.ip().to_string(),
        port: service.port(),
        timeout: Duration::from_secs(2),
    };
    let from_pod = |service: SocketAddr| format!("busybox nc -w 5 {} {} </dev/null", service.ip(), service.port());
    for (service, to) in [(v4, "10.77.0.1:6443"), (v4, "0.0.0.0:6443"), (v6, "[fd42:99::1]:6443"), (v6, "[::]:6443")] {
        let way = [Redirect { service, to: to.parse().unwrap() }];
        assert!(runtime.perform(tcp(service)).await.is_err(), "nobody has that address");
        assert!(!services::is_in_force(&way).await);
        // Twice: it is the same afterwards.
        for _ in 0..2 {
            services::redirect(&way).await.unwrap();
        }
        for taken in ["-F BEEMESH-SERVICES", "-F PREROUTING", "-F OUTPUT", "-L"] {
            // What somebody else takes away is noticed, and comes back.
            let program = if service.is_ipv4() { "iptables" } else { "ip6tables" };
            let ran = std::process::Command::new(program).args(["-t", "nat"]).args(taken.split(' ')).output().unwrap();
            assert!(ran.status.success(), "{ran:?}");
            assert_eq!(services::is_in_force(&way).await, taken == "-L", "{taken}");
            services::redirect(&way).await.unwrap();
            let said = pod.exec(&c, &from_pod(service)).await;
            assert_eq!(said, (0, "the gateway\n".into()), "{to} after {taken}");
            assert_eq!(runtime.perform(tcp(service)).await, Ok(Answer::Done), "from the host to {to} after {taken}");
        }
        services::redirect(&[]).await.unwrap();
        assert_ne!(pod.exec(&c, &from_pod(service).replace("-w 5", "-w 2")).await.1, "the gateway\n");
    }
    services::forget().await;
    for program in ["iptables-save", "ip6tables-save"] {
        let rules = std::process::Command::new(program).output().unwrap().stdout;
        assert!(!String::from_utf8(rules).unwrap().contains("BEEMESH-SERVICES"));
    }
    pod.remove().await;
    runtime.end().await;
}
