//! Endpoints and EndpointSlices.

use super::field::{self, Path};
use super::service::outside;
use super::tree::{self, Fields, text};
use super::{Context, FieldError, Rules, address, meta, names};
use crate::Tree;
use std::collections::BTreeSet;

/// Endpoints' rules.
pub struct Endpoints;
/// EndpointSlice's rules.
pub struct EndpointSlice;

impl Rules for Endpoints {
    fn default(&self, obj: &mut Tree) {
        for subset in tree::items(obj, "subsets") {
            for port in tree::items(subset, "ports") {
                tree::default_text(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let subsets = Path::Root.child("subsets");
        for (i, subset) in obj.list("subsets").iter().enumerate() {
            let at = subsets.index(i);
            if subset.list("addresses").is_empty() && subset.list("notReadyAddresses").is_empty() {
                errs.push(field::required(&at, "must specify `addresses` or `notReadyAddresses`"));
            }
            for name in ["addresses", "notReadyAddresses"] {
                let list = at.child(name);
                for (j, point) in subset.list(name).iter().enumerate() {
                    endpoint_address(point, &list.index(j), errs);
                }
            }
            let (ports, list) = (subset.list("ports"), at.child("ports"));
            for (j, port) in ports.iter().enumerate() {
                endpoint_port(port, ports.len() > 1, &list.index(j), errs);
            }
        }
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        meta::again(new, self.names(), true, errs);
        if !tree::same(new.at("subsets"), old.at("subsets")) {
            self.validate(new, cx, errs);
        }
    }

    fn warnings(&self, _new: &Tree, _old: Option<&Tree>, out: &mut Vec<String>) {
        out.push("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned());
    }
}

fn endpoint_address(point: &Tree, at: &Path<'_>, errs: &mut Vec<FieldError>) {
    let ip = point.text("ip");
    field::each(&at.child("ip"), ip, address::ip, errs);
    if !point.text("hostname").is_empty() {
        field::each(&at.child("hostname"), point.text("hostname"), names::label, errs);
    }
    if point.has("nodeName") {
        field::each(&at.child("nodeName"), point.text("nodeName"), names::subdomain, errs);
    }
    if ip.parse::<std::net::IpAddr>().is_err() {
        errs.push(field::invalid(&at.child("ip"), ip, "must be a valid IP address"));
    }
    outside(ip, &at.child("ip"), errs);
}

fn endpoint_port(port: &Tree, named: bool, at: &Path<'_>, errs: &mut Vec<FieldError>) {
    let name = port.text("name");
    if !name.is_empty() {
        field::each(&at.child("name"), name, names::label, errs);
    } else if named {
        errs.push(field::required(&at.child("name"), ""));
    }
    let number = port.int("port").unwrap_or(0);
    errs.extend(names::port(number).iter().map(|m| field::invalid(&at.child("port"), number, m)));
    field::one_of(&at.child("protocol"), port.text("protocol"), &["SCTP", "TCP", "UDP"], true, errs);
    if port.has("appProtocol") {
        field::each(&at.child("appProtocol"), port.text("appProtocol"), names::qualified_name, errs);
    }
}

impl Rules for EndpointSlice {
    fn default(&self, obj: &mut Tree) {
        for port in tree::items(obj, "ports") {
            tree::default_to(port, "name", "");
            tree::default_to(port, "protocol", "TCP");
        }
    }

    fn prepare_create(&self, obj: &mut Tree, _cx: &Context<'_>) {
        tree::set(tree::child(obj, "metadata"), "generation", 1);
        without_topology(obj);
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree, _cx: &Context<'_>) {
        without_topology(new);
        let labels = |obj: &Tree| obj.at("metadata").at("labels").clone();
        let same = ["ports", "endpoints", "addressType"].iter().all(|n| tree::same(new.at(n), old.at(n)))
            && tree::same(&labels(new), &labels(old));
        if !same {
            let generation = old.at("metadata").int("generation").unwrap_or(0) + 1;
            tree::set(tree::child(new, "metadata"), "generation", generation);
        }
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let kinds = ["FQDN", "IPv4", "IPv6"];
        field::one_of(&Path::Root.child("addressType"), obj.text("addressType"), &kinds, true, errs);
        slice_ports(obj, errs);
        slice_endpoints(obj, errs);
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        meta::again(new, self.names(), true, errs);
        self.validate(new, cx, errs);
        if new.text("addressType") != old.text("addressType") {
            let at = Path::Root.child("addressType");
            // The value is not told, as by Kubernetes.
            errs.push(field::invalid(&at, &Tree::Null, field::IMMUTABLE));
        }
    }
}

/// The field of an old version that v1 no longer takes.
fn without_topology(obj: &mut Tree) {
    for point in tree::items(obj, "endpoints") {
        tree::remove(point, "deprecatedTopology");
    }
}

fn slice_ports(obj: &Tree, errs: &mut Vec<FieldError>) {
    let (ports, path) = (obj.list("ports"), Path::Root.child("ports"));
    if ports.len() > 20_000 {
        errs.push(field::too_many(&path, ports.len(), 20_000));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let (at, name) = (path.index(i), port.text("name"));
        if !name.is_empty() {
            field::each(&at.child("name"), name, names::label, errs);
        }
        if !seen.insert(name) {
            errs.push(field::duplicate(&at.child("name"), name));
        }
        let protocol = port.text("protocol");
        if !["SCTP", "TCP", "UDP"].contains(&protocol) {
            errs.push(field::not_supported(&at.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]));
        }
        if port.has("appProtocol") {
            field::each(&at.child("appProtocol"), port.text("appProtocol"), names::qualified_name, errs);
        }
    }
}

fn slice_endpoints(obj: &Tree, errs: &mut Vec<FieldError>) {
    let (points, path) = (obj.list("endpoints"), Path::Root.child("endpoints"));
    if points.len() > 1000 {
        errs.push(field::too_many(&path, points.len(), 1000));
        return;
    }
    for (i, point) in points.iter().enumerate() {
        let at = path.index(i);
        let (addresses, list) = (point.list("addresses"), at.child("addresses"));
        if addresses.is_empty() {
            errs.push(field::required(&list, ""));
        } else if addresses.len() > 100 {
            errs.push(field::too_many(&list, addresses.len(), 100));
        }
        for (j, one) in addresses.iter().map(text).enumerate() {
            slice_address(obj.text("addressType"), one, &list, j, errs);
        }
        if point.has("nodeName") {
            field::each(&at.child("nodeName"), point.text("nodeName"), names::subdomain, errs);
        }
        if point.has("hostname") {
            field::each(&at.child("hostname"), point.text("hostname"), names::label, errs);
        }
        let hints = at.child("hints");
        for name in ["forZones", "forNodes"] {
            let (list, at) = (point.at("hints").list(name), hints.child(name));
            if list.len() > 8 {
                errs.push(field::too_many(&at, list.len(), 8));
                return;
            }
            let mut seen = BTreeSet::new();
            for (j, hint) in list.iter().enumerate() {
                let item = at.index(j);
                let at = item.child("name");
                if !seen.insert(hint.text("name")) {
                    errs.push(field::duplicate(&at, hint.text("name")));
                }
                let check = if name == "forZones" { names::label_value } else { names::subdomain };
                field::each(&at, hint.text("name"), check, errs);
            }
        }
    }
}

fn slice_address(kind: &str, one: &str, list: &Path<'_>, i: usize, errs: &mut Vec<FieldError>) {
    let at = list.index(i);
    let before = errs.len();
    match kind {
        "IPv4" => field::each(&at, one, address::ip, errs),
        "IPv6" => field::each(&at, one, address::canonical_ip, errs),
        "FQDN" => {
            let bare = one.strip_suffix('.').unwrap_or(one);
            if one.is_empty() {
                errs.push(field::required(&at, ""));
            } else if let wrong @ [_, ..] = names::subdomain(bare).as_slice() {
                errs.push(field::invalid(&at, bare, &wrong.join(",")));
            } else if !bare.contains('.') {
                let detail = "should be a domain with at least two segments separated by dots";
                errs.push(field::invalid(&at, bare, detail));
            }
            return;
        }
        _ => return,
    }
    if errs.len() > before {
        return;
    }
    if (kind == "IPv6") != address::is_v6(one) {
        errs.push(field::invalid(list, one, &format!("must be an {kind} address")));
    }
    outside(one, &at, errs);
}
