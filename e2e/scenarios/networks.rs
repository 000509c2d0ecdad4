//! Where pods are reached, and where a node's owner sends them away.

use crate::with_pods::{NGINX, SOON, get, story};
use anyhow::{Context, Result, ensure};
use e2e::until;
use std::net::SocketAddr;

const WEB: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  hostname: front
  subdomain: shop
  hostAliases: [{ip: 192.0.2.7, hostnames: [old.example]}]
  containers:
  - {name: main, image: 'nginx:1.14.2', ports: [{containerPort: 80, hostPort: 8081}]}
---
apiVersion: v1
kind: Pod
metadata: {name: host}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: 'busybox:1.36', command: [sh, -c, 'mkdir /www; echo hosts >/www/index.html; httpd -f -p 8082 -h /www']}
---
apiVersion: v1
kind: Pod
metadata: {name: asks}
spec:
  terminationGracePeriodSeconds: 1
  dnsPolicy: None
  dnsConfig: {nameservers: [192.0.2.53], searches: [example.org], options: [{name: ndots, value: '3'}]}
  containers:
  - {name: main, image: 'busybox:1.36', command: [sleep, '100000']}
";

#[test]
fn pods_are_reached_by_pods_by_the_host_and_through_its_ports() -> Result<()> {
    story("networks", |mesh| {
        let kubectl = &mesh.kubectl;
        mesh.apply(WEB)?;
        for pod in ["web", "host", "asks"] {
            mesh.until_ready(pod)?;
        }
        let status =
            |pod: &str, field: &str| kubectl.ok(&["get", "pod", pod, "-o", &format!("jsonpath={{.status.{field}}}")]);
        let node = mesh.machine.address().to_string();
        assert_eq!((status("web", "hostIP")?, status("host", "podIP")?), (node.clone(), node.clone()));
        let address = status("web", "podIP")?;
        let fetch = format!("wget -q -O - http://{address}/");
        ensure!(kubectl.ok(&["exec", "asks", "--", "sh", "-c", &fetch])?.contains("1.14.2"), "from a pod");
        ensure!(kubectl.ok(&["exec", "host", "--", "sh", "-c", &fetch])?.contains("1.14.2"), "from the host's network");
        let own = kubectl.ok(&["exec", "asks", "--", "wget", "-q", "-O", "-", &format!("http://{node}:8082/")])?;
        assert_eq!(own, "hosts\n");
        // From outside the machine.
        let outside = |port: u16| get(SocketAddr::from((mesh.machine.address(), port)), "/");
        ensure!(until("the host's port", SOON, || Ok(outside(8081).ok()))?.contains("1.14.2"));
        assert_eq!(outside(8082)?, "hosts\n");

        let hosts = kubectl.ok(&["exec", "web", "--", "cat", "/etc/hostname", "/etc/hosts"])?;
        ensure!(hosts.starts_with("front\n") && hosts.contains("192.0.2.7\told.example"), "{hosts}");
        ensure!(hosts.contains(&format!("{address}\tfront.shop.default.svc.cluster.local\tfront")), "{hosts}");
        let resolver = kubectl.ok(&["exec", "asks", "--", "cat", "/etc/resolv.conf"])?;
        for line in ["nameserver 192.0.2.53", "search example.org", "options ndots:3"] {
            ensure!(resolver.lines().any(|l| l.trim_end() == line), "{line}: {resolver}");
        }
        // Addresses and ports come back with their pods' ends.
        kubectl.ok(&["delete", "pod", "web", "host", "asks"])?;
        until("the port's end", SOON, || Ok(outside(8081).is_err().then_some(())))
    })
}

#[test]
fn a_node_is_cordoned_drained_and_taken_back() -> Result<()> {
    story("drain", |mesh| {
        let kubectl = &mesh.kubectl;
        mesh.apply(NGINX)?;
        kubectl.ok(&["rollout", "status", "deployment/nginx-deployment", "--timeout=60s"])?;
        assert_eq!(kubectl.ok(&["cordon", "vm"])?, "node/vm cordoned\n");
        ensure!(kubectl.ok(&["get", "nodes"])?.contains("Ready,SchedulingDisabled"));
        let drained = kubectl.ok(&["drain", "vm", "--ignore-daemonsets", "--timeout=90s"])?;
        assert_eq!(drained.matches("evicted").count(), 3, "{drained}");
        let phases = ["get", "pods", "-l", "app=nginx", "-o", "jsonpath={.items[*].status.phase}"];
        kubectl.until_prints("Pending Pending Pending", &phases)?;
        mesh.until_told(None, &["0/1 nodes are available: 1 node(s) were unschedulable"])?;
        assert_eq!(kubectl.ok(&["uncordon", "vm"])?, "node/vm uncordoned\n");
        kubectl.ok(&["rollout", "status", "deployment/nginx-deployment", "--timeout=60s"])?;
        // A pod of nobody's is not evicted without being told so.
        kubectl.ok(&["run", "alone", "--image=busybox:1.36", "--", "sleep", "100000"])?;
        mesh.until_ready("alone")?;
        let told = kubectl.refused(&["drain", "vm", "--timeout=10s"], "").context("alone")?;
        ensure!(told.contains("cannot delete Pods that declare no controller"), "{told}");
        Ok(())
    })
}
