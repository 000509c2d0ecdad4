//! The node's own Node object: made when the registry takes writes, kept true afterwards.
//!
//! What other hands put there (labels, taints, unschedulable, extended resources) is adopted and never
//! overwritten.

use crate::backend::{Node, system};
use crate::config::{Config, Pods};
use crate::driver::clock;
use objects::Tree;
use objects::kinds;
use objects::request::{Body, Options, Request, Verb};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the node looks whether its object is still true.
const EVERY: Duration = Duration::from_secs(10);

/// Keeps the Node object until stopped.
pub(crate) async fn run(config: Config, backend: Arc<Node>, mut stopped: watch::Receiver<bool>) {
    loop {
        if let Err(why) = once(&config, &backend).await {
            tracing::warn!(node = %config.name, %why, "the Node object could not be brought up to date; trying again");
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = stopped.changed() => return,
        }
    }
}

async fn once(config: &Config, backend: &Node) -> Result<(), String> {
    let have = match ask(config, backend, Verb::Get, "", Body::None).await {
        Ok(tree) => tree,
        Err((404, _)) => {
            let body = Body::Object { tree: fresh(config), strict: Vec::new() };
            ask(config, backend, Verb::Create, "", body).await.map_err(|e| e.1)?
        }
        Err((_, why)) => return Err(why),
    };
    let mut want = have.clone();
    for (k, v) in labels(config) {
        want["metadata"]["labels"][k] = json!(v);
    }
    if want != have {
        let body = Body::Object { tree: want.clone(), strict: Vec::new() };
        want = ask(config, backend, Verb::Update, "", body).await.map_err(|e| e.1)?;
    }
    let mut with_status = want.clone();
    status(config, &mut with_status["status"]);
    if with_status != want {
        let body = Body::Object { tree: with_status, strict: Vec::new() };
        ask(config, backend, Verb::Update, "status", body).await.map_err(|e| e.1)?;
    }
    Ok(())
}

async fn ask(config: &Config, backend: &Node, verb: Verb, sub: &str, body: Body) -> Result<Tree, (u16, String)> {
    let kind = kinds::by_kind("", "v1", "Node").ok_or((500, "there is no kind Node".to_owned()))?;
    let (id, uid, suffix) = backend.driver().request_chance();
    let request = Request {
        id,
        sent: clock::wall(),
        user: Arc::new(system()),
        verb,
        kind,
        namespace: None,
        name: (verb != Verb::Create).then(|| config.name.as_str().into()),
        subresource: sub.into(),
        options: Options { field_manager: "beemesh".into(), ..Options::default() },
        body,
        uid,
        suffix,
    };
    backend.once(request).await.map_err(|s| (s.code, s.message))
}

fn fresh(config: &Config) -> Tree {
    let mut node =
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": config.name, "labels": {}}, "spec": {}});
    for (k, v) in labels(config) {
        node["metadata"]["labels"][k] = json!(v);
    }
    if config.pods == Pods::None {
        node["spec"]["taints"] = json!([{"key": "beemesh.io/no-runtime", "effect": "NoSchedule"}]);
    }
    node
}

fn labels(config: &Config) -> Vec<(String, String)> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut all = vec![
        ("kubernetes.io/hostname".to_owned(), config.name.clone()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), arch.to_owned()),
    ];
    all.extend(config.labels.clone());
    all
}

/// Brings the status up to date; what is already true stays to the letter.
fn status(config: &Config, status: &mut Tree) {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let memory_kib = memory_kib().unwrap_or(0);
    let pods = if config.pods == Pods::None { "0" } else { "110" };
    for list in ["capacity", "allocatable"] {
        status[list]["cpu"] = json!(cpus.to_string());
        status[list]["memory"] = json!(format!("{memory_kib}Ki"));
        status[list]["pods"] = json!(pods);
    }
    let mut found: Vec<Tree> =
        addresses().into_iter().map(|a| json!({"type": "InternalIP", "address": a.to_string()})).collect();
    found.push(json!({"type": "Hostname", "address": config.name}));
    status["addresses"] = Tree::Array(found);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let os = read("/etc/os-release");
    let pretty = os.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"');
    let info = &mut status["nodeInfo"];
    for (field, value) in [
        ("machineID", read("/etc/machine-id")),
        ("systemUUID", read("/sys/class/dmi/id/product_uuid")),
        ("bootID", read("/proc/sys/kernel/random/boot_id")),
        ("kernelVersion", read("/proc/sys/kernel/osrelease")),
        ("osImage", pretty.to_owned()),
        ("containerRuntimeVersion", String::new()),
        ("kubeletVersion", crate::backend::version().git_version),
        ("kubeProxyVersion", String::new()),
        ("operatingSystem", "linux".to_owned()),
        ("architecture", labels(config)[2].1.clone()),
    ] {
        info[field] = json!(value);
    }
    let (reason, message) = match config.pods {
        Pods::None => ("NoRuntime", "the node keeps cells and serves the API, and runs no pods"),
        _ => ("NodeReady", "the node takes pods"),
    };
    let ready = json!({"type": "Ready", "status": "True", "reason": reason, "message": message});
    let now = clock::wall().rfc3339();
    let conditions = match status["conditions"].as_array_mut() {
        Some(c) => c,
        None => {
            status["conditions"] = json!([]);
            let Some(c) = status["conditions"].as_array_mut() else { return };
            c
        }
    };
    let old = conditions.iter().position(|c| c["type"] == "Ready");
    let same = old.and_then(|i| conditions.get(i)).is_some_and(|c| c["status"] == "True" && c["reason"] == reason);
    if !same {
        let mut c = ready;
        c["lastHeartbeatTime"] = json!(now);
        c["lastTransitionTime"] = json!(now);
        if let Some(i) = old {
            conditions.remove(i);
        }
        conditions.push(c);
    }
}

fn memory_kib() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    info.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
}

/// This machine's addresses other machines may reach it at.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let mut found: Vec<IpAddr> = all
        .filter_map(|i| {
            let a = i.address?;
            let v4 = a.as_sockaddr_in().map(|s| IpAddr::V4(s.ip()));
            v4.or_else(|| a.as_sockaddr_in6().map(|s| IpAddr::V6(s.ip())))
        })
        .filter(|a| match a {
            IpAddr::V4(a) => !a.is_loopback() && *a != Ipv4Addr::UNSPECIFIED && !a.is_link_local(),
            IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local(),
        })
        .collect();
    found.sort();
    found.dedup();
    found
}
