//! What is the same for all pods of their network: the bridge, and the way out.

use crate::node::{Node, Pod, in_own_namespaces, is_running, until};
use base::runtime::{Answer, HttpGet, Op};
use host::runtime::Runtime;
use std::net::IpAddr;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
/// Until something is given up for which a story waits.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn the_first_pod_is_reached_by_ipv6_at_once() {
    in_own_namespaces("network::the_first_pod_is_reached_by_ipv6_at_once", at_once);
}

async fn at_once(node: Node) {
    let runtime = node.start().await;
    // The bridge goes, too, as somebody's network manager may have it: it is as good the second time.
    for uid in ["u1", "u2"] {
        let (pod, c) = web(&node, &runtime, uid).await;
        let seen = until(&runtime, |s| is_running(s, &c)).await;
        let addresses = pod.addresses(&seen);
        // By the first it is seen that somebody listens; the other is asked once.
        at_last("the pod answers", async || get(&runtime, addresses[0], PATIENCE).await.is_ok()).await;
        let answer = get(&runtime, addresses[1], PATIENCE).await;
        assert!(answer.is_ok(), "{answer:?}\n{}", pod.network(&c).await);
        let said = pod.exec(&c, "busybox nc -w 10 fd42:99::1 6443 </dev/null").await;
        assert_eq!(said.1, "the node\n", "{}", pod.network(&c).await);
        pod.remove().await;
        ok("ip link delete beemesh0");
        runtime.keep_network().await.unwrap();
    }
    runtime.end().await;
}

#[test]
fn what_somebody_took_of_the_way_out_comes_back() {
    in_own_namespaces("network::what_somebody_took_of_the_way_out_comes_back", comes_back);
}

async fn comes_back(node: Node) {
    let mut outside = outside(&node);
    let runtime = node.start().await;
    let (pod, c) = web(&node, &runtime, "u1").await;
    until(&runtime, |s| is_running(s, &c)).await;
    // Out there nobody knows a way to pods: only what comes from the node's address is answered.
    let reached = async |to: &str| pod.exec(&c, &asks(to, 7000, "page")).await.1.ends_with("out here\n");
    let ways = [("10.77.0.2", "iptables"), ("fd77::2", "ip6tables")];
    // It listens once this machine itself gets an answer.
    let listens = || Op::Tcp { host: "fd77::2".into(), port: 7000, timeout: PATIENCE };
    at_last("somebody listens outside", async || runtime.perform(listens()).await.is_ok()).await;
    for (to, _) in ways {
        assert!(reached(to).await, "{to}: {}", pod.network(&c).await);
    }
    for (to, program) in ways {
        for taken in ["-F BEEMESH-MASQUERADE", "-F POSTROUTING"] {
            ok(&format!("{program} -t nat {taken}"));
            assert!(!reached(to).await, "{to} is reached without {taken}");
            runtime.keep_network().await.unwrap();
            assert!(reached(to).await, "{to} after {taken}");
        }
    }
    // What lies is left alone.
    let rules = || Command::new("iptables-save").args(["-t", "nat"]).output().unwrap().stdout;
    let lies = |rules: Vec<u8>| String::from_utf8(rules).unwrap().lines().filter(|l| l.contains("BEEMESH")).count();
    let before = lies(rules());
    runtime.keep_network().await.unwrap();
    assert_eq!((lies(rules()), before), (4, 4));
    // Pods know each other by their own addresses.
    let (other, d) = web(&node, &runtime, "u2").await;
    let seen = until(&runtime, |s| is_running(s, &d)).await;
    for address in other.addresses(&seen) {
        let to = address.to_string();
        let itself = async || other.exec(&d, &asks(&to, 8080, "cgi-bin/who")).await.1.contains(&to);
        at_last("the pod answers itself", itself).await;
        let own = pod.addresses(&seen).into_iter().find(|a| a.is_ipv6() == address.is_ipv6()).unwrap();
        let said = pod.exec(&c, &asks(&to, 8080, "cgi-bin/who")).await.1;
        assert!(said.contains(&own.to_string()), "{to} was asked by {own}: {said}");
    }
    pod.remove().await;
    other.remove().await;
    runtime.end().await;
    outside.kill().unwrap();
    outside.wait().unwrap();
}

/// Asks until it is so.
async fn at_last(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !is().await {
        assert!(Instant::now() < end, "never so: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A line of shell that asks for a page.
fn asks(host: &str, port: u16, page: &str) -> String {
    format!("printf 'GET /{page} HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 2 {host} {port}")
}

/// A pod that serves who asks, at 8080; and at 6443 of the node somebody who says so.
async fn web(node: &Node, runtime: &Arc<Runtime>, uid: &str) -> (Pod, String) {
    let listener = tokio::net::TcpListener::bind("[::]:6443").await;
    if let Ok(listener) = listener {
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"the node\n").await;
            }
        });
    }
    let mut pod = node.pod(runtime, uid);
    pod.run().await;
    let line = "mkdir -p /w/cgi-bin && cd /w && printf '#!/bin/sh\\necho; echo $REMOTE_ADDR\\n' >cgi-bin/who && \
                busybox chmod +x cgi-bin/who && exec busybox httpd -f -p 8080 -h /w";
    let c = pod.container("c", line, |_| ()).await;
    (pod, c)
}

async fn get(runtime: &Runtime, host: IpAddr, timeout: Duration) -> Result<Answer, base::runtime::Failure> {
    let get = HttpGet { host: host.to_string(), port: 8080, path: "/cgi-bin/who".into(), ..HttpGet::default() };
    runtime.perform(Op::Http { get, timeout }).await
}

/// Somebody beyond the node's network, with a page at port 7000 of 10.77.0.2 and of fd77::2.
fn outside(node: &Node) -> Child {
    let page = node.path("outside");
    std::fs::create_dir(&page).unwrap();
    std::fs::write(page.join("page"), "out here\n").unwrap();
    for line in [
        "ip netns add outside",
        "ip link set eth1 netns outside",
        "ip -n outside address add 10.77.0.2/24 dev eth1",
        "ip -n outside address add fd77::2/64 dev eth1 nodad",
        "ip -n outside link set eth1 up",
        "ip address add fd77::1/64 dev eth0 nodad",
    ] {
        ok(line);
    }
    let mut server = Command::new("ip");
    server.args(["netns", "exec", "outside", "busybox", "httpd", "-f", "-p", "7000", "-h"]);
    server.arg(page).spawn().unwrap()
}

fn ok(line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let out = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
}
