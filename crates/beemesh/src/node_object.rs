//! What this machine's Node object says: made of facts, so that it can be compared and tested.
//!
//! What other hands put there (labels, taints, unschedulable, extended resources) stays as it is.

use crate::config::{Config, Pods};
use base::{NodeId, Wall};
use objects::Tree;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whose key a Node is: its `NodeId` in hex.
pub(crate) const NODE_ID: &str = "beemesh.io/node-id";

/// Memory that is kept from pods, so that the machine can still say that it runs out of it.
const MEMORY_KEPT_KIB: u64 = 100 << 10;

/// What is known of the machine now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Processors.
    pub(crate) cpus: u32,
    /// Memory.
    pub(crate) memory_kib: u64,
    /// Size of the file system that holds the data directory.
    pub(crate) disk_bytes: u64,
    /// Where others reach it.
    pub(crate) addresses: Vec<IpAddr>,
    /// The runtime's name and version, if one answers: `containerd://1.6.20`.
    pub(crate) runtime: Option<String>,
    /// Images that are there: their names and bytes.
    pub(crate) images: Vec<(Vec<String>, u64)>,
    /// `/etc/machine-id` and its like: the field of `status.nodeInfo` and its value.
    pub(crate) info: Vec<(&'static str, String)>,
    /// The disk or the memory is nearly used up: the condition and why. The process table is not looked at, as the
    /// kubelet's own thresholds do not: `PIDPressure` is false.
    pub(crate) pressure: Vec<(&'static str, String)>,
}

/// A Node that is not there yet.
pub(crate) fn fresh(config: &Config, id: NodeId, cidrs: &[String]) -> Tree {
    let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": config.name}, "spec": {}});
    own(config, id, cidrs, &mut node);
    if config.pods == Pods::None {
        node["spec"]["taints"] = json!([{"key": "beemesh.io/no-runtime", "effect": "NoSchedule"}]);
    }
    node
}

/// Puts what is the node's own to say into its metadata and spec.
pub(crate) fn own(config: &Config, id: NodeId, cidrs: &[String], node: &mut Tree) {
    for (k, v) in labels(config) {
        node["metadata"]["labels"][k] = json!(v);
    }
    node["metadata"]["annotations"][NODE_ID] = json!(id.to_string());
    if node["spec"]["podCIDRs"].is_null()
        && let Some(first) = cidrs.first()
    {
        node["spec"]["podCIDR"] = json!(first);
        node["spec"]["podCIDRs"] = json!(cidrs);
    }
}

fn labels(config: &Config) -> Vec<(String, String)> {
    let mut all = vec![
        ("kubernetes.io/hostname".to_owned(), config.name.clone()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), host::facts::architecture().to_owned()),
        ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("beta.kubernetes.io/arch".to_owned(), host::facts::architecture().to_owned()),
    ];
    all.extend(config.labels.clone());
    all
}

/// Brings the status up to date; what is already true stays to the letter.
pub(crate) fn status(config: &Config, facts: &Facts, now: Wall, status: &mut Tree) {
    let pods = if config.pods == Pods::None { "0" } else { "110" };
    for (list, memory, disk) in [
        ("capacity", facts.memory_kib, facts.disk_bytes),
        ("allocatable", facts.memory_kib.saturating_sub(MEMORY_KEPT_KIB), facts.disk_bytes / 10 * 9),
    ] {
        status[list]["cpu"] = json!(facts.cpus.to_string());
        status[list]["memory"] = json!(format!("{memory}Ki"));
        status[list]["ephemeral-storage"] = json!(format!("{}Ki", disk >> 10));
        status[list]["pods"] = json!(pods);
    }
    let mut addresses: Vec<Tree> =
        facts.addresses.iter().map(|a| json!({"type": "InternalIP", "address": a.to_string()})).collect();
    addresses.push(json!({"type": "Hostname", "address": config.name}));
    status["addresses"] = Tree::Array(addresses);
    for (field, value) in &facts.info {
        status["nodeInfo"][field] = json!(value);
    }
    status["nodeInfo"]["containerRuntimeVersion"] = json!(facts.runtime.clone().unwrap_or_default());
    if config.pods != Pods::None {
        // As many as a kubelet reports.
        let images = facts.images.iter().take(50);
        status["images"] = images.map(|(names, bytes)| json!({"names": names, "sizeBytes": bytes})).collect();
    }
    for (condition, well, reason) in [
        ("MemoryPressure", "kubelet has sufficient memory available", "KubeletHasSufficientMemory"),
        ("DiskPressure", "kubelet has no disk pressure", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "kubelet has sufficient PID available", "KubeletHasSufficientPID"),
    ] {
        let pressed = facts.pressure.iter().find(|(c, _)| *c == condition);
        let (state, reason, message) = match pressed {
            Some((_, why)) => ("True", format!("KubeletHas{condition}"), why.clone()),
            None => ("False", reason.to_owned(), well.to_owned()),
        };
        set_condition(status, condition, state, &reason, &message, now);
    }
    let (state, reason, message) = match (&config.pods, &facts.runtime) {
        (Pods::None, _) => ("True", "NoRuntime", "the node keeps cells and serves the API, and runs no pods"),
        (_, Some(_)) => ("True", "KubeletReady", "kubelet is posting ready status"),
        (_, None) => ("False", "KubeletNotReady", "container runtime is down"),
    };
    set_condition(status, "Ready", state, reason, message, now);
}

fn set_condition(status: &mut Tree, condition: &str, state: &str, reason: &str, message: &str, now: Wall) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(all) = status["conditions"].as_array_mut() else { return };
    let stamp = now.rfc3339();
    let mut new = json!({"type": condition, "status": state, "reason": reason, "message": message,
        "lastHeartbeatTime": stamp, "lastTransitionTime": stamp});
    let Some(old) = all.iter_mut().find(|c| c["type"] == condition) else {
        all.push(new);
        return;
    };
    if old["status"] == state && old["reason"] == reason && old["message"] == message {
        return;
    }
    if old["status"] == state {
        new["lastTransitionTime"] = old["lastTransitionTime"].clone();
    }
    *old = new;
}

/// The pods' networks of a new node: the first IPv4 /24 of `10.42.0.0/16` that none of the given Nodes has,
/// and the IPv6 /64 that follows from its key. Without IPv4 when all 256 are taken.
pub(crate) fn pod_networks(trust_domain: &str, id: NodeId, nodes: &[Tree]) -> Vec<String> {
    let taken: BTreeSet<&str> = nodes
        .iter()
        .flat_map(|n| n["spec"]["podCIDRs"].as_array().into_iter().flatten())
        .filter_map(Tree::as_str)
        .collect();
    let v4 = (0..=255).map(|n| format!("{}/24", Ipv4Addr::new(10, 42, n, 0))).find(|c| !taken.contains(c.as_str()));
    v4.into_iter().chain([format!("{}/64", v6_network(trust_domain, id))]).collect()
}

/// A unique local /48 (RFC 4193) drawn from the mesh's name, and 16 bits of the node's key.
fn v6_network(trust_domain: &str, id: NodeId) -> Ipv6Addr {
    let mesh = fnv(trust_domain.as_bytes()).to_be_bytes();
    let node = fnv(&id.0).to_be_bytes();
    let two = |b: &[u8], i: usize| u16::from_be_bytes([b[i], b[i + 1]]);
    let first = 0xfd00 | u16::from(mesh[0]);
    Ipv6Addr::new(first, two(&mesh, 1), two(&mesh, 3), two(&node, 0), 0, 0, 0, 0)
}

/// FNV-1a (64 bits): spreads names over networks; nothing depends on its strength.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pods: Pods) -> Config {
        Config {
            data: "/d".into(),
            listen: ([127, 0, 0, 1], 7443).into(),
            advertise: Vec::new(),
            api: ([127, 0, 0, 1], 6443).into(),
            name: "n1".into(),
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            kubeconfig: None,
            pods,
            mirrors: Vec::new(),
            trust_domain: None,
        }
    }

    #[test]
    fn what_is_true_already_is_not_written_again_and_foreign_words_stay() {
        let c = config(Pods::Containerd);
        let mut node = fresh(&c, NodeId([7; 32]), &["10.42.0.0/24".to_owned()]);
        let facts = Facts { cpus: 2, memory_kib: 1 << 20, runtime: Some("containerd://1".into()), ..Facts::default() };
        status(&c, &facts, Wall(1000), &mut node["status"]);
        node["metadata"]["labels"]["mine"] = json!("x");
        node["spec"]["unschedulable"] = json!(true);
        node["status"]["capacity"]["example.com/gpu"] = json!("1");
        let before = node.clone();
        own(&c, NodeId([7; 32]), &["10.42.9.0/24".to_owned()], &mut node);
        status(&c, &facts, Wall(90_000), &mut node["status"]);
        assert_eq!(node, before);
        assert_eq!(node["status"]["allocatable"]["memory"], format!("{}Ki", (1 << 20) - MEMORY_KEPT_KIB));
    }

    #[test]
    fn a_runtime_that_is_down_makes_the_node_not_ready_and_keeps_the_time_it_became_so() {
        let c = config(Pods::Containerd);
        let mut s = Tree::Null;
        let ready = |s: &Tree| s["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready").cloned();
        status(&c, &Facts { runtime: Some("r".into()), ..Facts::default() }, Wall(1000), &mut s);
        assert_eq!(ready(&s).unwrap_or_default()["status"], "True");
        status(&c, &Facts::default(), Wall(5000), &mut s);
        status(&c, &Facts::default(), Wall(9000), &mut s);
        let now = ready(&s).unwrap_or_default();
        assert_eq!((&now["status"], &now["lastTransitionTime"]), (&json!("False"), &json!(Wall(5000).rfc3339())));
    }

    #[test]
    fn each_node_gets_a_network_that_no_other_has() {
        let id = |n| NodeId([n; 32]);
        let mut nodes = Vec::new();
        for n in 0..3 {
            let cidrs = pod_networks("a.mesh", id(n), &nodes);
            assert_eq!(cidrs.first().map(String::as_str), Some(format!("10.42.{n}.0/24").as_str()));
            nodes.push(json!({"spec": {"podCIDRs": cidrs}}));
        }
        let v6 = |t, n| v6_network(t, id(n));
        assert!(v6("a.mesh", 1).segments()[0] >> 8 == 0xfd);
        assert_ne!(v6("a.mesh", 1), v6("a.mesh", 2));
        assert_ne!(v6("a.mesh", 1), v6("b.mesh", 1));
    }
}
