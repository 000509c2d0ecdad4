//! Addresses and node ports of services.
//!
//! An address that a service does not choose comes from the blocks that the cell holds, so that nobody need be asked.
//! One that it chooses, and every node port, is reserved in root: where the cell holds no reservation (or no block with
//! a free address) the visit ends in what is wanted of root, and begins anew with what root gave
//! ([`crate::allotment`]). What a service has it keeps, whatever root says.

use super::Outcome;
use crate::Tree;
use crate::allotment::{Allotment, Given, Item, STORAGE, Wanted, used_by};
use crate::decide::{Visit, remix};
use crate::kinds::tree::{self, Fields};
use crate::status::{Status, invalid};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

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

/// What a service may take.
struct Room {
    /// What the newest Allotment holds that this cell knows.
    held: Allotment,
    /// What other services of the namespace have.
    used: BTreeSet<Item>,
    /// What this service had before.
    had: BTreeSet<Item>,
    /// What it lacks.
    wanted: Wanted,
    /// What root was asked for this request, and has answered.
    given: Option<Given>,
}

impl Room {
    fn of(visit: &Visit<'_>, service: &Tree, old: Option<&Tree>) -> Room {
        let meta = service.at("metadata");
        let namespace = visit.view.shared().get("Namespace", visit.namespace());
        let uid = namespace.map(|n| n.at("metadata").text("uid").to_owned()).unwrap_or_default();
        let bundled = visit.view.shared().get(STORAGE, &uid).map(|t| Allotment::of(&t)).unwrap_or_default();
        // One of that name may have come in the place of the one that asked.
        let given = visit.req.options.given.as_deref().filter(|g| g.wanted.uid == uid);
        // In a dry run what was given is in no log, and newer than what is.
        let newer = |g: &&Given| visit.req.options.dry_run || g.allotment.revision > bundled.revision;
        let others = visit.view.list("Service", None).filter(|(n, _)| **n != *meta.text("name"));
        Room {
            held: given.filter(newer).map_or(bundled, |g| g.allotment.clone()),
            used: others.flat_map(|(_, s)| used_by(&s.tree())).collect(),
            had: old.map(used_by).unwrap_or_default(),
            wanted: Wanted {
                namespace: visit.namespace().to_owned(),
                uid,
                service: meta.text("uid").to_owned(),
                ..Wanted::default()
            },
            given: given.cloned(),
        }
    }

    /// Whether the service may have what it chooses; if root is to say, that is noted.
    fn choose(&mut self, item: Item) -> bool {
        if self.had.contains(&item) {
            return true;
        }
        if self.used.contains(&item) {
            return false;
        }
        if self.held.allows(item) {
            return true;
        }
        // Given, and being returned since, it may be asked for again.
        let denied = |g: &Given| g.wanted.chosen.contains(&item) && !g.allotment.allows(item);
        let denied = self.given.as_ref().is_some_and(denied);
        if !denied {
            self.wanted.chosen.push(item);
        }
        !denied
    }

    /// A free address of the blocks. `None`: there is none, and if root is to give some, that is noted.
    fn address(&mut self, chance: u64) -> Option<Ipv4Addr> {
        let blocks = self.held.blocks.iter().filter(|b| !b.ending);
        let all: Vec<Ipv4Addr> = blocks.flat_map(|b| b.addresses()).collect();
        let begin = chance.checked_rem(all.len() as u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        // Looking from a random place on keeps an address from being used again at once.
        let mut from_there = all.iter().cycle().skip(begin).take(all.len());
        let free = from_there.find(|ip| !self.used.contains(&Item::Address(**ip))).copied();
        // Others may have taken what was given for this one.
        let denied = |g: &Given| g.wanted.block_after.is_some_and(|after| after >= g.allotment.blocks.len());
        if free.is_none() && !self.given.as_ref().is_some_and(denied) {
            self.wanted.block_after = Some(self.held.blocks.len());
        }
        free
    }

    /// A node port that root chose for this service. `None`: there is none, and if root is to choose one, that is noted.
    fn port(&mut self) -> Option<u16> {
        let free = self.ports_of(&self.held).find(|port| !self.used.contains(&Item::Port(*port)));
        // As many as were asked for, and more taken since than were: others may be had.
        let denied = |g: &Given| self.ports_of(&g.allotment).count() < g.wanted.ports;
        let denied = self.given.as_ref().is_some_and(denied);
        match free {
            Some(port) => drop(self.used.insert(Item::Port(port))),
            None if denied => {}
            None => self.wanted.ports += 1,
        }
        free
    }

    /// The node ports that root chose for this service and that it did not have before.
    fn ports_of(&self, allotment: &Allotment) -> impl Iterator<Item = u16> {
        let own = allotment.reserved.iter().filter(|r| !r.ending && r.service == self.wanted.service);
        own.filter(|r| !self.had.contains(&r.item)).filter_map(|r| match r.item {
            Item::Port(port) => Some(port),
            Item::Address(_) => None,
        })
    }
}

/// Gives a service, which is valid, its addresses and ports.
pub(super) fn allocate(visit: &mut Visit<'_>, service: &mut Tree, old: Option<&Tree>) -> Outcome<()> {
    if service.at("spec").text("type") == "ExternalName" {
        return Ok(());
    }
    check_families(visit, service, old)?;
    let mut room = Room::of(visit, service, old);
    address(visit, service, &mut room)?;
    ports(visit, service, &mut room)?;
    if !room.wanted.is_empty() {
        // A dry run leaves nothing behind that a second question could build on.
        if let Some(given) = room.given.filter(|_| visit.req.options.dry_run) {
            room.wanted.chosen.extend(given.wanted.chosen);
            room.wanted.ports += given.wanted.ports;
            room.wanted.block_after = room.wanted.block_after.or(given.wanted.block_after);
        }
        visit.wanted = Some(Box::new(room.wanted));
    }
    Ok(())
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

fn address(visit: &Visit<'_>, service: &mut Tree, room: &mut Room) -> Outcome<()> {
    let ranges = &visit.env.config.services;
    let name = service.at("metadata").text("name").to_owned();
    let given = service.at("spec").text("clusterIP").to_owned();
    let chosen = match given.as_str() {
        "None" => given,
        "" => match room.address(remix(visit.req.suffix, 200)) {
            Some(ip) => ip.to_string(),
            None if room.wanted.block_after.is_some() => return Ok(()),
            None => return Err(Box::new(Status::internal("failed to allocate a serviceIP: range is full"))),
        },
        text => {
            let ip = text.parse::<Ipv4Addr>().ok().filter(|ip| ranges.contains(*ip));
            let had = ip.is_some_and(|ip| room.had.contains(&Item::Address(ip)));
            let why = match ip {
                _ if had => "",
                None => "the provided network does not match the current range",
                Some(ip) if ip == ranges.api() && is_the_api(service) => "",
                Some(ip) if ip == ranges.api() || !room.choose(Item::Address(ip)) => "provided IP is already allocated",
                Some(_) => "",
            };
            if !why.is_empty() {
                let e = invalid("spec.clusterIPs", &json!([text]), &format!("failed to allocate IP {text}: {why}"));
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

fn ports(visit: &Visit<'_>, service: &mut Tree, room: &mut Room) -> Outcome<()> {
    let name = service.at("metadata").text("name").to_owned();
    let spec = tree::child(service, "spec");
    let ty = spec.text("type").to_owned();
    let wanted =
        ty == "NodePort" || ty == "LoadBalancer" && spec.at("allocateLoadBalancerNodePorts").as_bool().unwrap_or(true);
    let health = ty == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local";
    let refuse = |field: String, port: i64, why: &str| {
        Err(Box::new(Status::invalid(visit.kind, &name, &[invalid(field, &json!(port), why)])))
    };
    let (first, last) = visit.env.config.services.ports;
    let given = spec.list("ports").iter().enumerate().filter_map(|(i, p)| {
        let port = p.int("nodePort").filter(|n| *n != 0)?;
        Some((format!("spec.ports[{i}].nodePort"), port))
    });
    let health_given = spec.int("healthCheckNodePort").filter(|n| *n != 0);
    let given = given.chain(health_given.map(|port| ("spec.healthCheckNodePort".to_owned(), port)));
    let mut own = BTreeSet::new();
    for (field, port) in given {
        let item = u16::try_from(port).ok().map(Item::Port);
        let Some(item) = item.filter(|i| room.had.contains(i) || (i64::from(first)..=i64::from(last)).contains(&port))
        else {
            let why = format!("provided port is not in the valid range. The range of valid ports is {first}-{last}");
            return refuse(field, port, &why);
        };
        // Two ports of a service may be one over two protocols.
        let is_twice = !own.insert(item) && field.ends_with("healthCheckNodePort");
        if is_twice || !room.choose(item) {
            return refuse(field, port, "provided port is already allocated");
        }
    }
    // What the service itself names is not free for another port of it.
    room.used.extend(own);
    let full = || Status::internal("failed to allocate a nodePort: range is full");
    let mut next = || match room.port() {
        Some(port) => Ok(i64::from(port)),
        // Decided anew with what root chooses: until then any will do.
        None if room.wanted.ports > 0 => Ok(0),
        None => Err(Box::new(full())),
    };
    if wanted {
        // A port that is served over several protocols is one port of the node, too.
        let mut of_port: BTreeMap<i64, i64> = BTreeMap::new();
        for p in spec.list("ports") {
            if let (Some(port), Some(node)) = (p.int("port"), p.int("nodePort").filter(|n| *n != 0)) {
                of_port.entry(port).or_insert(node);
            }
        }
        for p in tree::items(spec, "ports") {
            if p.int("nodePort").unwrap_or(0) == 0 {
                let port = p.int("port").unwrap_or(0);
                let node = match of_port.get(&port) {
                    Some(node) => *node,
                    None => next()?,
                };
                of_port.insert(port, node);
                tree::set(p, "nodePort", node);
            }
        }
    }
    if health && spec.int("healthCheckNodePort").unwrap_or(0) == 0 {
        tree::set(spec, "healthCheckNodePort", next()?);
    }
    Ok(())
}
