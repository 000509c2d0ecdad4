//! Addresses and node ports of services.
//!
//! What a service does not choose comes from the cell's own blocks, so that no other cell need be asked.
//! What it chooses must lie in the mesh's ranges and be free in this cell; that nobody else in the mesh
//! has it is for root's reservations to say, before the request comes here.

use super::Outcome;
use crate::Tree;
use crate::decide::{Visit, remix};
use crate::kinds::tree::{self, Fields};
use crate::status::{Status, invalid};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// The range Kubernetes names when a port is outside it.
const NODE_PORTS: std::ops::RangeInclusive<i64> = 30000..=32767;

/// Fills in the families of a service that has addresses at all: ours are IPv4.
pub(super) fn families(service: &mut Tree) {
    let spec = tree::child(service, "spec");
    if spec.text("type") == "ExternalName" {
        return;
    }
    tree::default_text(spec, "ipFamilyPolicy", "SingleStack");
    if spec.list("ipFamilies").is_empty() {
        tree::set(spec, "ipFamilies", json!(["IPv4"]));
    }
}

/// Gives a service, which is valid, its addresses and ports.
pub(super) fn allocate(visit: &Visit<'_>, service: &mut Tree, old: Option<&Tree>) -> Outcome<()> {
    if service.at("spec").text("type") == "ExternalName" {
        return Ok(());
    }
    let name = service.at("metadata").text("name").to_owned();
    check_families(visit, service, old)?;
    let others: Vec<Tree> =
        visit.view.list("Service", None).filter(|(n, _)| **n != *name).map(|(_, s)| s.tree()).collect();
    address(visit, service, old, &others)?;
    ports(visit, service, old, &others)
}

/// 422 for what a mesh whose services have IPv4 addresses only does not have. A headless service without a selector has
/// none that would be given, and may say what it likes.
fn check_families(visit: &Visit<'_>, service: &Tree, old: Option<&Tree>) -> Outcome<()> {
    let spec = service.at("spec");
    let was = old.map_or(&Tree::Null, |o| o.at("spec"));
    let same = |name: &str| old.is_some() && tree::same(spec.at(name), was.at(name));
    if spec.text("clusterIP") == "None" && spec.at("selector").as_object().is_none_or(|s| s.is_empty()) {
        return Ok(());
    }
    let mut errs = Vec::new();
    if spec.text("ipFamilyPolicy") == "RequireDualStack" && !same("ipFamilyPolicy") {
        let why = "this cluster is not configured for dual-stack services";
        errs.push(invalid("spec.ipFamilyPolicy", spec.at("ipFamilyPolicy"), why));
    }
    if !same("ipFamilies") {
        let others = spec.list("ipFamilies").iter().enumerate().filter(|(_, f)| *f != "IPv4");
        errs.extend(others.map(|(i, f)| invalid(format!("spec.ipFamilies[{i}]"), f, "not configured on this cluster")));
    }
    if errs.is_empty() {
        return Ok(());
    }
    Err(Box::new(Status::invalid(visit.kind, service.at("metadata").text("name"), &errs)))
}

fn address(visit: &Visit<'_>, service: &mut Tree, old: Option<&Tree>, others: &[Tree]) -> Outcome<()> {
    let config = visit.env.config;
    let name = service.at("metadata").text("name").to_owned();
    let given = service.at("spec").text("clusterIP").to_owned();
    let used: BTreeSet<&str> = others.iter().map(|o| o.at("spec").text("clusterIP")).collect();
    let chosen = match given.as_str() {
        "None" => given,
        "" => {
            let (first, last) = config.service_block;
            let size = u64::from(last.saturating_sub(first)) + 1;
            let start = remix(visit.req.suffix, 200) % size;
            // Looking from a random place on keeps two services made at once apart.
            let free = (0..size)
                .map(|i| first.wrapping_add(u32::try_from((start + i) % size).unwrap_or(0)))
                .map(|n| Ipv4Addr::from(n).to_string())
                .find(|ip| !used.contains(ip.as_str()));
            match free {
                Some(ip) => ip,
                None => return Err(Box::new(Status::internal("failed to allocate a serviceIP: range is full"))),
            }
        }
        ip if old.is_some_and(|o| o.at("spec").text("clusterIP") == ip) => given,
        ip => {
            let (network, prefix) = config.service_network;
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            let inside = ip.parse::<Ipv4Addr>().is_ok_and(|a| u32::from(a) & mask == network & mask);
            let why = if !inside {
                "the provided network does not match the current range"
            } else if used.contains(ip) || (ip == config.api_address().to_string() && !is_the_api(service)) {
                "provided IP is already allocated"
            } else {
                ""
            };
            if !why.is_empty() {
                let e = invalid("spec.clusterIPs", &json!([ip]), &format!("failed to allocate IP {ip}: {why}"));
                return Err(Box::new(Status::invalid(visit.kind, &name, &[e])));
            }
            given
        }
    };
    let spec = tree::child(service, "spec");
    if spec.list("clusterIPs").is_empty() {
        tree::set(spec, "clusterIPs", json!([chosen]));
    }
    tree::set(spec, "clusterIP", chosen);
    Ok(())
}

fn is_the_api(service: &Tree) -> bool {
    let meta = service.at("metadata");
    (meta.text("namespace"), meta.text("name")) == ("default", "kubernetes")
}

fn ports(visit: &Visit<'_>, service: &mut Tree, old: Option<&Tree>, others: &[Tree]) -> Outcome<()> {
    let name = service.at("metadata").text("name").to_owned();
    let spec = tree::child(service, "spec");
    let ty = spec.text("type").to_owned();
    let wanted =
        ty == "NodePort" || ty == "LoadBalancer" && spec.at("allocateLoadBalancerNodePorts").as_bool().unwrap_or(true);
    let health = ty == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local";
    let of = |s: &Tree| -> Vec<i64> {
        let ports = s.at("spec").list("ports").iter().filter_map(|p| p.int("nodePort"));
        ports.chain(s.at("spec").int("healthCheckNodePort")).filter(|n| *n != 0).collect()
    };
    let mut used: BTreeSet<i64> = others.iter().flat_map(of).collect();
    let had: Vec<i64> = old.map(of).unwrap_or_default();
    let refuse = |field: String, port: i64, why: &str| {
        Err(Box::new(Status::invalid(visit.kind, &name, &[invalid(field, &json!(port), why)])))
    };
    let range = "provided port is not in the valid range. The range of valid ports is 30000-32767";
    for (i, p) in spec.list("ports").iter().enumerate() {
        let Some(port) = p.int("nodePort").filter(|n| *n != 0 && !had.contains(n)) else { continue };
        let field = format!("spec.ports[{i}].nodePort");
        if !NODE_PORTS.contains(&port) {
            return refuse(field, port, range);
        }
        if used.contains(&port) {
            return refuse(field, port, "provided port is already allocated");
        }
    }
    used.extend(spec.list("ports").iter().filter_map(|p| p.int("nodePort")));
    let mut next = |n: u64| -> Outcome<i64> {
        let (first, last) = visit.env.config.node_port_block;
        let size = u64::from(last.saturating_sub(first)) + 1;
        let start = remix(visit.req.suffix, 300 + n) % size;
        let free = (0..size)
            .map(|i| i64::from(first) + i64::try_from((start + i) % size).unwrap_or(0))
            .find(|p| !used.contains(p));
        match free {
            Some(p) => {
                used.insert(p);
                Ok(p)
            }
            None => Err(Box::new(Status::internal("failed to allocate a nodePort: range is full"))),
        }
    };
    if wanted {
        // A port that is served over several protocols is one port of the node, too.
        let mut of_port: BTreeMap<i64, i64> = BTreeMap::new();
        for p in spec.list("ports") {
            if let (Some(port), Some(node)) = (p.int("port"), p.int("nodePort").filter(|n| *n != 0)) {
                of_port.entry(port).or_insert(node);
            }
        }
        for (i, p) in tree::items(spec, "ports").iter_mut().enumerate() {
            if p.int("nodePort").unwrap_or(0) == 0 {
                let port = p.int("port").unwrap_or(0);
                let node = match of_port.get(&port) {
                    Some(node) => *node,
                    None => next(i as u64)?,
                };
                of_port.insert(port, node);
                tree::set(p, "nodePort", node);
            }
        }
    }
    if health && spec.int("healthCheckNodePort").unwrap_or(0) == 0 {
        tree::set(spec, "healthCheckNodePort", next(1 << 32)?);
    }
    Ok(())
}
