//! Services.
//!
//! Addresses and ports are checked for form only: whoever hands them out says whether they can be had.

use super::field::{self, Path};
use super::names::{self, NameRule};
use super::pod::probes;
use super::tree::{self, Fields, text};
use super::{Context, FieldError, Rules, address};
use crate::Tree;
use serde_json::json;
use std::collections::BTreeSet;

/// Service's rules.
pub struct Service;

const SPEC: Path<'static> = Path::Child(&Path::Root, "spec");

/// Whether the world may reach it.
fn external(spec: &Tree) -> bool {
    let kind = spec.text("type");
    kind == "LoadBalancer" || kind == "NodePort" || (kind == "ClusterIP" && !spec.list("externalIPs").is_empty())
}

fn needs_health_check(spec: &Tree) -> bool {
    spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local"
}

fn headless(spec: &Tree) -> bool {
    spec.list("clusterIPs").first().is_some_and(|ip| ip == "None") || spec.text("clusterIP") == "None"
}

impl Rules for Service {
    fn names(&self) -> NameRule {
        NameRule::Label
    }

    fn default(&self, obj: &mut Tree) {
        let spec = tree::child(obj, "spec");
        tree::default_text(spec, "sessionAffinity", "None");
        match spec.text("sessionAffinity") {
            "None" => tree::remove(spec, "sessionAffinityConfig"),
            "ClientIP" if !spec.at("sessionAffinityConfig").at("clientIP").has("timeoutSeconds") => {
                tree::set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10800}}));
            }
            _ => {}
        }
        tree::default_text(spec, "type", "ClusterIP");
        for port in tree::items(spec, "ports") {
            tree::default_text(port, "protocol", "TCP");
            if tree::is_empty(port.at("targetPort")) {
                let number = port.int("port").unwrap_or(0);
                tree::set(port, "targetPort", number);
            }
        }
        if external(spec) {
            tree::default_text(spec, "externalTrafficPolicy", "Cluster");
        }
        if ["NodePort", "LoadBalancer", "ClusterIP"].contains(&spec.text("type")) {
            tree::default_to(spec, "internalTrafficPolicy", "Cluster");
        }
        if spec.text("type") == "LoadBalancer" {
            tree::default_to(spec, "allocateLoadBalancerNodePorts", true);
            if let Some(balancer) = tree::existing(obj, "status").and_then(|s| tree::existing(s, "loadBalancer")) {
                for ingress in tree::items(balancer, "ingress") {
                    if !ingress.text("ip").is_empty() {
                        tree::default_to(ingress, "ipMode", "VIP");
                    }
                }
            }
        }
    }

    fn prepare_create(&self, obj: &mut Tree, _cx: &Context<'_>) {
        tree::set(obj, "status", json!({"loadBalancer": {}}));
        let spec = tree::child(obj, "spec");
        drop_by_type(spec, &Tree::Null);
        twin_addresses(spec, &Tree::Null);
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree, cx: &Context<'_>) {
        if cx.subresource == "status" {
            tree::keep(new, old, "spec");
            return;
        }
        tree::keep(new, old, "status");
        let was = old.at("spec");
        let spec = tree::child(new, "spec");
        twin_addresses(spec, was);
        patch_allocated(spec, was);
        drop_by_type(spec, was);
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        service(obj.at("spec"), &Tree::Null, errs);
        load_balancer_class(obj.at("spec"), &Tree::Null, errs);
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let (is, was) = (new.at("spec"), old.at("spec"));
        if cx.subresource == "status" {
            load_balancer_status(new, old, errs);
            return;
        }
        addresses_change(is, was, errs);
        load_balancer_class(is, was, errs);
        let port = "healthCheckNodePort";
        if needs_health_check(is) && needs_health_check(was) && is.int(port) != was.int(port) {
            errs.push(field::forbidden(&SPEC.child(port), field::IMMUTABLE));
        }
        service(is, was, errs);
    }

    fn warnings(&self, new: &Tree, old: Option<&Tree>, out: &mut Vec<String>) {
        let spec = new.at("spec");
        if old.is_some_and(|o| tree::same(o.at("spec"), spec)) {
            return;
        }
        let kind = spec.text("type");
        let externals = !spec.list("externalIPs").is_empty();
        let alone = kind == "ClusterIP" && spec.text("clusterIP") == "None";
        for (told, warning) in [
            (alone && !spec.text("loadBalancerIP").is_empty(), "spec.loadBalancerIP is ignored for headless services"),
            (alone && externals, "spec.externalIPs is ignored for headless services"),
            (alone && spec.text("sessionAffinity") != "None", "spec.SessionAffinity is ignored for headless services"),
            (
                externals && !alone && kind != "ExternalName",
                "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
            ),
            (externals && kind == "ExternalName", "spec.externalIPs is ignored when spec.type is \"ExternalName\""),
            (
                kind != "ExternalName" && !spec.text("externalName").is_empty(),
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            ),
            (
                spec.text("trafficDistribution") == "PreferClose",
                "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
            ),
        ] {
            if told {
                out.push(warning.to_owned());
            }
        }
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn select(&self, obj: &Tree, field: &str) -> String {
        field.strip_prefix("spec.").map_or("", |name| obj.at("spec").text(name)).to_owned()
    }
}

/// `clusterIP` and the first of `clusterIPs` say the same; which was changed decides.
fn twin_addresses(spec: &mut Tree, was: &Tree) {
    if spec.text("type") == "ExternalName" {
        return;
    }
    let one = spec.text("clusterIP").to_owned();
    let many = spec.list("clusterIPs").to_vec();
    if was.is_null() {
        if !one.is_empty() && many.is_empty() {
            tree::set(spec, "clusterIPs", vec![Tree::from(one)]);
        }
        return;
    }
    let (was_one, was_many) = (was.text("clusterIP"), was.list("clusterIPs"));
    if one != was_one && many == was_many {
        if one.is_empty() {
            tree::remove(spec, "clusterIPs");
        } else {
            tree::set(spec, "clusterIPs", vec![Tree::from(one)]);
        }
    } else if one.is_empty()
        && was_one.is_empty()
        && !many.is_empty()
        && let Some(first) = many.first()
    {
        tree::set(spec, "clusterIP", first.clone());
    }
}

/// What was handed out stays when an update does not mention it.
fn patch_allocated(spec: &mut Tree, was: &Tree) {
    let plain = |spec: &Tree| ["ClusterIP", "NodePort", "LoadBalancer"].contains(&spec.text("type"));
    if plain(was) && plain(spec) {
        for name in ["clusterIP", "clusterIPs"] {
            if tree::is_empty(spec.at(name)) {
                tree::keep(spec, was, name);
            }
        }
    }
    let ports = |spec: &Tree| ["NodePort", "LoadBalancer"].contains(&spec.text("type"));
    if ports(was) && ports(spec) {
        let mut used: BTreeSet<i64> = spec.list("ports").iter().filter_map(|p| p.int("nodePort")).collect();
        for port in tree::items(spec, "ports") {
            // A port is known by its name: its number may be what was changed.
            let same = |p: &&Tree| p.text("name") == port.text("name");
            let before = was.list("ports").iter().find(same).and_then(|p| p.int("nodePort"));
            if let Some(before) = before.filter(|_| port.int("nodePort").unwrap_or(0) == 0)
                && used.insert(before)
            {
                tree::set(port, "nodePort", before);
            }
        }
    }
    if needs_health_check(was) && needs_health_check(spec) && spec.int("healthCheckNodePort").unwrap_or(0) == 0 {
        tree::keep(spec, was, "healthCheckNodePort");
    }
}

/// What a change of type leaves without meaning goes, unless it was changed too.
fn drop_by_type(spec: &mut Tree, was: &Tree) {
    if was.is_null() {
        return;
    }
    let kind = spec.text("type").to_owned();
    let drop = |spec: &mut Tree, name: &str| {
        if tree::same(spec.at(name), was.at(name)) {
            tree::remove(spec, name);
        }
    };
    if kind == "ExternalName" && was.text("type") != "ExternalName" {
        for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            drop(spec, name);
        }
    }
    if !external(spec) && external(was) {
        drop(spec, "externalTrafficPolicy");
    }
    if needs_health_check(was) && !needs_health_check(spec) {
        drop(spec, "healthCheckNodePort");
    }
    if was.text("type") == "LoadBalancer" && kind != "LoadBalancer" {
        for name in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            drop(spec, name);
        }
    }
    let ports = |kind: &str| kind == "NodePort" || kind == "LoadBalancer";
    if ports(was.text("type")) && !ports(&kind) {
        for port in tree::items(spec, "ports") {
            let number = port.int("nodePort");
            if was.list("ports").iter().any(|p| p.int("nodePort") == number) {
                tree::remove(port, "nodePort");
            }
        }
    }
}

fn service(spec: &Tree, was: &Tree, errs: &mut Vec<FieldError>) {
    let kind = spec.text("type");
    let ports = spec.list("ports");
    let at = SPEC.child("ports");
    if ports.is_empty() && !headless(spec) && kind != "ExternalName" {
        errs.push(field::required(&at, ""));
    }
    match kind {
        "LoadBalancer" if headless(spec) => {
            let detail = "may not be set to 'None' for LoadBalancer services";
            errs.push(field::invalid(&SPEC.child("clusterIPs").index(0), spec.text("clusterIP"), detail));
        }
        "NodePort" if headless(spec) => {
            let detail = "may not be set to 'None' for NodePort services";
            errs.push(field::invalid(&SPEC.child("clusterIPs").index(0), spec.text("clusterIP"), detail));
        }
        "ExternalName" => external_name(spec, errs),
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        service_port(port, ports.len() > 1, &mut seen, &at.index(i), errs);
    }
    meta_selector(spec, errs);
    let affinity = spec.text("sessionAffinity");
    field::one_of(&SPEC.child("sessionAffinity"), affinity, &["ClientIP", "None"], true, errs);
    session_affinity(spec, errs);
    if kind != "ExternalName" {
        addresses(spec, was, errs);
    }
    let externals = SPEC.child("externalIPs");
    for (i, ip) in spec.list("externalIPs").iter().enumerate() {
        if !was.list("externalIPs").contains(ip) {
            let before = errs.len();
            field::each(&externals.index(i), text(ip), address::ip, errs);
            if errs.len() == before {
                outside(text(ip), &externals.index(i), errs);
            }
        }
    }
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    field::one_of(&SPEC.child("type"), kind, &kinds, true, errs);
    unique_ports(kind, ports, &at, errs);
    ranges(spec, errs);
    traffic(spec, errs);
}

fn external_name(spec: &Tree, errs: &mut Vec<FieldError>) {
    for (name, held) in [
        ("clusterIPs", !spec.list("clusterIPs").is_empty()),
        ("ipFamilies", !spec.list("ipFamilies").is_empty()),
        ("ipFamilyPolicy", spec.has("ipFamilyPolicy")),
    ] {
        if held {
            errs.push(field::forbidden(&SPEC.child(name), "may not be set for ExternalName services"));
        }
    }
    let target = spec.text("externalName");
    let bare = target.strip_suffix('.').unwrap_or(target);
    if bare.is_empty() {
        errs.push(field::required(&SPEC.child("externalName"), ""));
    } else {
        field::each(&SPEC.child("externalName"), bare, names::subdomain, errs);
    }
}

fn meta_selector(spec: &Tree, errs: &mut Vec<FieldError>) {
    super::meta::labels(spec.at("selector"), &SPEC.child("selector"), errs);
}

fn session_affinity(spec: &Tree, errs: &mut Vec<FieldError>) {
    let config = SPEC.child("sessionAffinityConfig");
    let held = spec.at("sessionAffinityConfig");
    match spec.text("sessionAffinity") {
        "ClientIP" => {
            let client = config.child("clientIP");
            let seconds = held.at("clientIP").int("timeoutSeconds").unwrap_or(0);
            if !(1..=86400).contains(&seconds) {
                let detail = "must be greater than 0 and less than 86400";
                errs.push(field::invalid(&client.child("timeoutSeconds"), seconds, detail));
            }
        }
        "None" if !held.is_null() => {
            errs.push(field::forbidden(&config, "must not be set when session affinity is None"));
        }
        _ => {}
    }
}

fn service_port<'a>(
    port: &'a Tree,
    named: bool,
    seen: &mut BTreeSet<&'a str>,
    at: &Path<'_>,
    errs: &mut Vec<FieldError>,
) {
    let name = port.text("name");
    if name.is_empty() {
        if named {
            errs.push(field::required(&at.child("name"), ""));
        }
    } else {
        field::each(&at.child("name"), name, names::label, errs);
        if !seen.insert(name) {
            errs.push(field::duplicate(&at.child("name"), name));
        }
    }
    let number = port.int("port").unwrap_or(0);
    errs.extend(names::port(number).iter().map(|m| field::invalid(&at.child("port"), number, m)));
    field::one_of(&at.child("protocol"), port.text("protocol"), &["SCTP", "TCP", "UDP"], true, errs);
    probes::port(port.at("targetPort"), &at.child("targetPort"), errs);
    if port.has("appProtocol") {
        field::each(&at.child("appProtocol"), port.text("appProtocol"), names::qualified_name, errs);
    }
}

fn addresses(spec: &Tree, was: &Tree, errs: &mut Vec<FieldError>) {
    let (one, many) = (spec.text("clusterIP"), spec.list("clusterIPs"));
    let at = SPEC.child("clusterIPs");
    let first = many.first().map_or("", text);
    if one.is_empty() {
        if !many.is_empty() {
            errs.push(field::invalid(&at, spec.at("clusterIPs"), "must be empty when `clusterIP` is not specified"));
        }
    } else if many.is_empty() {
        errs.push(field::required(&at, ""));
    } else if first != one {
        errs.push(field::invalid(&at, spec.at("clusterIPs"), "first value must match `clusterIP`"));
    }
    let families = spec.list("ipFamilies");
    let at_families = SPEC.child("ipFamilies");
    for (i, family) in families.iter().enumerate() {
        let at = at_families.index(i);
        if family != "IPv4" && family != "IPv6" {
            errs.push(field::not_supported(&at, family, &["IPv4", "IPv6"]));
        }
        if families.iter().take(i).any(|f| f == family) {
            errs.push(field::duplicate(&at, family));
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    field::one_of(&SPEC.child("ipFamilyPolicy"), spec.text("ipFamilyPolicy"), &policies, false, errs);
    let before = errs.len();
    for (i, ip) in many.iter().enumerate() {
        if i == 0 && ip == "None" {
            if many.len() > 1 {
                errs.push(field::invalid(&at, spec.at("clusterIPs"), "'None' must be the first and only value"));
            }
        } else if !was.list("clusterIPs").contains(ip) {
            field::each(&at.index(i), text(ip), address::ip, errs);
        }
    }
    let broken = errs.len() > before;
    if many.len() > 2 {
        errs.push(field::invalid(&at, spec.at("clusterIPs"), "may only hold up to 2 values"));
    }
    if broken {
        return;
    }
    if many.len() > 1 {
        let six = many.iter().filter(|ip| address::is_v6(text(ip))).count();
        if six == 0 || six == many.len() {
            errs.push(field::invalid(&at, spec.at("clusterIPs"), "may specify no more than one IP for each IP family"));
        }
    }
    if !headless(spec) {
        for (i, (ip, family)) in many.iter().zip(families).enumerate() {
            let wanted = text(family);
            if (wanted == "IPv4" && address::is_v6(text(ip))) || (wanted == "IPv6" && !address::is_v6(text(ip))) {
                let detail = format!("expected an {wanted} value as indicated by `ipFamilies[{i}]`");
                errs.push(field::invalid(&at.index(i), ip, &detail));
            }
        }
    }
}

/// Checks that an address may stand for something outside: not this machine, link or nobody.
pub fn outside(ip: &str, at: &Path<'_>, errs: &mut Vec<FieldError>) {
    let Ok(parsed) = ip.parse::<std::net::IpAddr>() else { return };
    let (link_local, link_multicast) = match parsed {
        std::net::IpAddr::V4(four) => (four.is_link_local(), four.octets().starts_with(&[224, 0, 0])),
        std::net::IpAddr::V6(six) => (six.is_unicast_link_local(), six.segments()[0] & 0xff0f == 0xff02),
    };
    for (wrong, detail) in [
        (parsed.is_unspecified(), format!("may not be unspecified ({ip})")),
        (parsed.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (link_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()),
    ] {
        if wrong {
            errs.push(field::invalid(at, ip, &detail));
        }
    }
}

fn unique_ports(kind: &str, ports: &[Tree], at: &Path<'_>, errs: &mut Vec<FieldError>) {
    if kind == "ClusterIP" {
        for (i, _) in ports.iter().enumerate().filter(|(_, p)| p.int("nodePort").unwrap_or(0) != 0) {
            let detail = "may not be used when `type` is 'ClusterIP'";
            errs.push(field::forbidden(&at.index(i).child("nodePort"), detail));
        }
    }
    let key = |p: &Tree, name: &str| (p.text("protocol").to_owned(), p.int(name).unwrap_or(0));
    for (i, port) in ports.iter().enumerate() {
        let node = key(port, "nodePort");
        if node.1 != 0 && ports.iter().take(i).any(|p| key(p, "nodePort") == node) {
            errs.push(field::duplicate(&at.index(i).child("nodePort"), node.1));
        }
    }
    for (i, port) in ports.iter().enumerate() {
        if ports.iter().take(i).any(|p| key(p, "port") == key(port, "port")) {
            let shown = Port(port.text("protocol"), port.int("port").unwrap_or(0));
            errs.push(field::duplicate(&at.index(i), shown));
        }
    }
}

/// The key of a port as Kubernetes' internal type prints it.
struct Port<'a>(&'a str, i64);
impl field::Shown for Port<'_> {
    fn shown(&self) -> String {
        format!(
            "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
            field::quoted(self.0),
            self.1
        )
    }
}

fn ranges(spec: &Tree, errs: &mut Vec<FieldError>) {
    let at = SPEC.child("LoadBalancerSourceRanges");
    let list = spec.list("loadBalancerSourceRanges");
    if !list.is_empty() {
        if spec.text("type") != "LoadBalancer" {
            errs.push(field::forbidden(&at, "may only be used when `type` is 'LoadBalancer'"));
        }
        for (i, range) in list.iter().enumerate() {
            field::each(&at.index(i), text(range).trim(), address::cidr, errs);
        }
    }
    if spec.text("type") != "LoadBalancer" && spec.has("allocateLoadBalancerNodePorts") {
        let detail = "may only be used when `type` is 'LoadBalancer'";
        errs.push(field::forbidden(&SPEC.child("allocateLoadBalancerNodePorts"), detail));
    }
}

fn traffic(spec: &Tree, errs: &mut Vec<FieldError>) {
    let at = SPEC.child("externalTrafficPolicy");
    let policy = spec.text("externalTrafficPolicy");
    if external(spec) {
        field::one_of(&at, policy, &["Cluster", "Local"], true, errs);
    } else if !policy.is_empty() {
        errs.push(field::invalid(&at, policy, "may only be set for externally-accessible services"));
    }
    let at = SPEC.child("healthCheckNodePort");
    if let Some(port) = spec.int("healthCheckNodePort").filter(|p| *p != 0) {
        if needs_health_check(spec) {
            errs.extend(names::port(port).iter().map(|m| field::invalid(&at, port, m)));
        } else {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errs.push(field::invalid(&at, port, detail));
        }
    }
    let at = SPEC.child("internalTrafficPolicy");
    let internal = spec.text("internalTrafficPolicy");
    if spec.has("internalTrafficPolicy") && internal != "Cluster" && internal != "Local" {
        errs.push(field::not_supported(&at, internal, &["Cluster", "Local"]));
    }
    let kinds = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    let distribution = spec.text("trafficDistribution");
    if spec.has("trafficDistribution") && !kinds.contains(&distribution) {
        errs.push(field::not_supported(&SPEC.child("trafficDistribution"), distribution, &kinds));
    }
}

fn load_balancer_class(is: &Tree, was: &Tree, errs: &mut Vec<FieldError>) {
    let at = SPEC.child("loadBalancerClass");
    let balanced = |spec: &Tree| spec.text("type") == "LoadBalancer";
    let class = is.at("loadBalancerClass");
    if balanced(is) && balanced(was) && class != was.at("loadBalancerClass") {
        errs.push(field::invalid(&at, class, "may not change once set"));
    }
    if class.is_null() {
        return;
    }
    if balanced(is) {
        field::each(&at, text(class), names::qualified_name, errs);
    } else {
        errs.push(field::forbidden(&at, "may only be used when `type` is 'LoadBalancer'"));
    }
}

fn addresses_change(is: &Tree, was: &Tree, errs: &mut Vec<FieldError>) {
    let outer = |spec: &Tree| spec.text("type") == "ExternalName";
    if outer(is) || outer(was) || (headless(is) && headless(was)) {
        return;
    }
    let parent = SPEC.child("clusterIPs");
    let (new, old) = (is.list("clusterIPs"), was.list("clusterIPs"));
    if new.len() == old.len() {
        for (i, _) in old.iter().zip(new).enumerate().filter(|(_, (a, b))| a != b) {
            errs.push(field::invalid(&parent.index(i), is.at("clusterIPs"), "may not change once set"));
        }
        return;
    }
    if new.is_empty() {
        errs.push(field::invalid(&parent.index(0), is.at("clusterIPs"), "primary clusterIP can not be unset"));
    } else if old.first().is_some_and(|ip| Some(ip) != new.first()) {
        errs.push(field::invalid(&parent.index(0), is.at("clusterIPs"), "may not change once set"));
    }
    if old.len() > new.len() && new.len() == 1 && is.text("ipFamilyPolicy") != "SingleStack" {
        let detail = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        errs.push(field::invalid(&SPEC.child("ipFamilyPolicy"), is.at("ipFamilyPolicy"), detail));
    }
}

fn load_balancer_status(new: &Tree, old: &Tree, errs: &mut Vec<FieldError>) {
    let status = Path::Root.child("status");
    let balancer = status.child("loadBalancer");
    let at = balancer.child("ingress");
    let list = |obj: &Tree| obj.at("status").at("loadBalancer").list("ingress").to_vec();
    let (ingress, before) = (list(new), list(old));
    if new.at("spec").text("type") != "LoadBalancer" && !ingress.is_empty() {
        errs.push(field::forbidden(&at, "may only be used when `spec.type` is 'LoadBalancer'"));
        return;
    }
    for (i, point) in ingress.iter().enumerate() {
        let at = at.index(i);
        let (ip, mode, host) = (point.text("ip"), point.text("ipMode"), point.text("hostname"));
        if !ip.is_empty() && !before.iter().any(|b| b.text("ip") == ip) {
            field::each(&at.child("ip"), ip, address::ip, errs);
        }
        if !point.has("ipMode") {
            if !ip.is_empty() {
                errs.push(field::required(&at.child("ipMode"), "must be specified when `ip` is set"));
            }
        } else if ip.is_empty() {
            errs.push(field::forbidden(&at.child("ipMode"), "may not be specified when `ip` is not set"));
        } else if mode != "Proxy" && mode != "VIP" {
            errs.push(field::not_supported(&at.child("ipMode"), mode, &["Proxy", "VIP"]));
        }
        if !host.is_empty() {
            field::each(&at.child("hostname"), host, names::subdomain, errs);
            if host.parse::<std::net::IpAddr>().is_ok() {
                errs.push(field::invalid(&at.child("hostname"), host, "must be a DNS name, not an IP address"));
            }
        }
    }
}
