//! The pods behind a service: which count, at which address, by which ports.

use super::{Pod, text};
use crate::pod::items;
use objects::Tree;
use objects::select::LabelSelector;
use serde_json::json;

/// Label and annotation that a service without an address of its own gives to its endpoints.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

/// What a service selects; `None` if its endpoints are not ours to make.
pub fn selector(service: &Tree) -> Option<LabelSelector> {
    let spec = &service["spec"];
    if text(&spec["type"]) == "ExternalName" || spec["selector"].as_object().is_none_or(|s| s.is_empty()) {
        return None;
    }
    Some(LabelSelector::from_map(&spec["selector"]))
}

pub(crate) fn is_headless(service: &Tree) -> bool {
    service["spec"]["clusterIP"] == "None"
}

/// Addresses are given also of pods that are not ready.
pub(crate) fn takes_unready(service: &Tree) -> bool {
    service["spec"]["publishNotReadyAddresses"] == true
}

/// The families of a service's addresses, its own first.
pub(crate) fn families(service: &Tree) -> Vec<&str> {
    let given = items(&service["spec"]["ipFamilies"]);
    if given.is_empty() { vec!["IPv4"] } else { given.iter().map(text).collect() }
}

/// The pod's address of a family.
pub(crate) fn address<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    pod.addresses.iter().find(|a| is_v6(a) == (family == "IPv6")).map(|a| &**a)
}

pub(crate) fn is_v6(address: &str) -> bool {
    address.contains(':')
}

/// Whether a pod can be an endpoint at all.
pub(crate) fn counts(pod: &Pod, terminating_too: bool) -> bool {
    !pod.is_finished() && !pod.addresses.is_empty() && (terminating_too || !pod.is_terminating())
}

/// The name under which others know the pod, if it belongs to this service.
pub(crate) fn hostname<'a>(pod: &'a Pod, service: &Tree) -> Option<&'a str> {
    let (host, subdomain) = &pod.host;
    (!host.is_empty() && **subdomain == *text(&service["metadata"]["name"])).then_some(&**host)
}

pub(crate) fn target_ref(pod: &Pod, service: &Tree) -> Tree {
    json!({"kind": "Pod", "namespace": service["metadata"]["namespace"], "name": *pod.name, "uid": *pod.uid})
}

/// The service's ports as this pod has them: a port it does not name is left out.
pub(crate) fn ports(pod: &Pod, service: &Tree) -> Vec<Tree> {
    let of = |port: &Tree| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let number = match &port["targetPort"] {
            Tree::Number(n) => n.as_u64().filter(|n| *n > 0).or(port["port"].as_u64()),
            Tree::String(name) if !name.is_empty() => {
                let named = |p: &&super::pod::Port| *p.name == **name && *p.protocol == *protocol;
                pod.ports.iter().find(named).map(|p| u64::from(p.port))
            }
            _ => port["port"].as_u64(),
        }?;
        let mut out = json!({"port": number, "protocol": protocol});
        for field in ["name", "appProtocol"] {
            if !text(&port[field]).is_empty() {
                out[field] = port[field].clone();
            }
        }
        Some(out)
    };
    items(&service["spec"]["ports"]).iter().filter_map(of).collect()
}
