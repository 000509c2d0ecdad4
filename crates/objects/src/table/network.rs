//! Services, their endpoints, and what leads to them.

use super::{Printer, few, joined, or, pairs, selector};
use crate::Tree;
use crate::kinds::tree::{Fields, text};
use serde_json::json;

pub(super) fn cells(p: &Printer<'_>) -> Option<Vec<Tree>> {
    let spec = p.spec();
    Some(match p.kind.storage {
        "Service" => {
            let ip = match spec.list("clusterIPs").first() {
                Some(ip) => text(ip),
                None => spec.text("clusterIP"),
            };
            vec![
                p.name(),
                spec.at("type").clone(),
                or(ip, "<none>"),
                json!(external(p)),
                or(&ports(spec.list("ports")), "<none>"),
                p.age(),
                pairs(spec.at("selector")),
            ]
        }
        "Endpoints" => vec![p.name(), json!(endpoints(p.obj)), p.age()],
        "EndpointSlice.discovery.k8s.io" => {
            let ports: Vec<String> = p
                .obj
                .list("ports")
                .iter()
                .map(|port| port.int("port").map_or("*".to_owned(), |n| n.to_string()))
                .collect();
            let addresses: Vec<String> =
                p.obj.list("endpoints").iter().flat_map(|e| e.list("addresses")).map(|a| text(a).to_owned()).collect();
            vec![
                p.name(),
                p.obj.at("addressType").clone(),
                or(&few(&ports, 3), "<unset>"),
                or(&few(&addresses, 3), "<unset>"),
                p.age(),
            ]
        }
        "Ingress.networking.k8s.io" => {
            let hosts: Vec<String> =
                spec.list("rules").iter().map(|r| r.text("host").to_owned()).filter(|h| !h.is_empty()).collect();
            vec![
                p.name(),
                or(spec.text("ingressClassName"), "<none>"),
                or(&few(&hosts, 3), "*"),
                json!(balancer(p.status())),
                json!(if spec.list("tls").is_empty() { "80" } else { "80, 443" }),
                p.age(),
            ]
        }
        "IngressClass.networking.k8s.io" => {
            let parameters = spec.at("parameters");
            let shown = if parameters.is_null() {
                "<none>".to_owned()
            } else {
                let group = parameters.text("apiGroup");
                let dot = if group.is_empty() { "" } else { "." };
                format!("{}{dot}{group}/{}", parameters.text("kind"), parameters.text("name"))
            };
            vec![p.name(), spec.at("controller").clone(), json!(shown), p.age()]
        }
        "NetworkPolicy.networking.k8s.io" => vec![p.name(), selector(spec.at("podSelector")), p.age()],
        "IPAddress.networking.k8s.io" => {
            let parent = spec.at("parentRef");
            let all = [parent.text("group"), parent.text("resource"), parent.text("namespace"), parent.text("name")];
            let shown = joined(all.into_iter().filter(|s| !s.is_empty()), "/");
            vec![p.name(), or(&shown, "<none>"), p.age()]
        }
        "ServiceCIDR.networking.k8s.io" => {
            vec![p.name(), json!(joined(spec.list("cidrs").iter().map(text), ",")), p.age()]
        }
        _ => return None,
    })
}

fn ports(ports: &[Tree]) -> String {
    let one = |p: &Tree| match p.int("nodePort").unwrap_or(0) {
        0 => format!("{}/{}", p.int("port").unwrap_or(0), p.text("protocol")),
        node => format!("{}:{node}/{}", p.int("port").unwrap_or(0), p.text("protocol")),
    };
    ports.iter().map(one).collect::<Vec<_>>().join(",")
}

fn balancer(status: &Tree) -> String {
    let mut all: Vec<&str> = Vec::new();
    for i in status.at("loadBalancer").list("ingress") {
        let shown = if i.text("ip").is_empty() { i.text("hostname") } else { i.text("ip") };
        if !shown.is_empty() && !all.contains(&shown) {
            all.push(shown);
        }
    }
    all.sort_unstable();
    all.join(",")
}

fn external(p: &Printer<'_>) -> String {
    let spec = p.spec();
    let given = joined(spec.list("externalIPs").iter().map(text), ",");
    let none = || "<none>".to_owned();
    match spec.text("type") {
        "ExternalName" => spec.text("externalName").to_owned(),
        "LoadBalancer" => {
            let mut all = balancer(p.status());
            if !given.is_empty() {
                all = if all.is_empty() { given } else { format!("{all},{given}") };
            }
            if all.is_empty() { "<pending>".into() } else { all }
        }
        _ if given.is_empty() => none(),
        _ => given,
    }
}

fn endpoints(obj: &Tree) -> String {
    let mut all: Vec<String> = Vec::new();
    for set in obj.list("subsets") {
        if set.list("ports").is_empty() {
            all.extend(set.list("addresses").iter().map(|a| a.text("ip").to_owned()));
        }
        for port in set.list("ports") {
            for address in set.list("addresses") {
                let (ip, port) = (address.text("ip"), port.int("port").unwrap_or(0));
                all.push(if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") });
            }
        }
    }
    if all.is_empty() { "<none>".into() } else { few(&all, 3) }
}
