//! PodSpecs as such, in Pods and in templates.

use super::containers::{self, Surroundings};
use super::{placement, security, volumes};
use crate::Tree;
use crate::kinds::field::{self, Path};
use crate::kinds::resources::{self, quantity};
use crate::kinds::tree::{Fields, text};
use crate::kinds::{FieldError, address, meta, names};
use base::Quantity;
use std::collections::{BTreeMap, BTreeSet};

/// Checks a PodSpec. `pod` is the name of the Pod it belongs to, `None` in a template.
pub fn validate(spec: &Tree, pod: Option<&str>, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if !spec.has("terminationGracePeriodSeconds") {
        errs.push(field::required(&path.child("terminationGracePeriodSeconds"), ""));
    }
    let valid = volumes::volumes(spec.list("volumes"), pod.unwrap_or(""), &path.child("volumes"), errs);
    resource_claims(spec, &path.child("resourceClaims"), errs);
    let claims = spec.list("resourceClaims").iter().map(|c| c.text("name")).filter(|n| !n.is_empty()).collect();
    let around = Surroundings { spec, volumes: valid, claims };
    containers::regular(&around, &path.child("containers"), errs);
    containers::init(&around, &path.child("initContainers"), errs);
    containers::ephemeral(&around, &path.child("ephemeralContainers"), errs);
    pod_resources(spec, &around.claims, path, errs);
    host_network_ports(spec, pod.is_some(), path, errs);
    let restart = ["Always", "OnFailure", "Never"];
    field::one_of(&path.child("restartPolicy"), spec.text("restartPolicy"), &restart, true, errs);
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    field::one_of(&path.child("dnsPolicy"), spec.text("dnsPolicy"), &dns, true, errs);
    meta::labels(spec.at("nodeSelector"), &path.child("nodeSelector"), errs);
    security::pod(spec, &path.child("securityContext"), errs);
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errs.push(field::invalid(&path.child("shareProcessNamespace"), true, detail));
    }
    placement::affinity(spec.at("affinity"), &path.child("affinity"), errs);
    dns_config(spec, &path.child("dnsConfig"), errs);
    let gates = path.child("readinessGates");
    for (i, gate) in spec.list("readinessGates").iter().enumerate() {
        let item = gates.index(i);
        field::each(&item.child("conditionType"), gate.text("conditionType"), names::qualified_name, errs);
    }
    scheduling_gates(spec.list("schedulingGates"), &path.child("schedulingGates"), errs);
    placement::spread(spec.list("topologySpreadConstraints"), &path.child("topologySpreadConstraints"), errs);
    host_users(spec, path, errs);
    host_name(spec, path, errs);
    identity(spec, path, errs);
    if let Some(seconds) = spec.int("activeDeadlineSeconds").filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let detail = names::in_range(1, i32::MAX.into());
        errs.push(field::invalid(&path.child("activeDeadlineSeconds"), seconds, &detail));
    }
    for name in ["hostname", "subdomain"] {
        if !spec.text(name).is_empty() {
            field::each(&path.child(name), spec.text(name), names::label, errs);
        }
    }
    placement::tolerations(spec.list("tolerations"), &path.child("tolerations"), errs);
    let aliases = path.child("hostAliases");
    for (i, alias) in spec.list("hostAliases").iter().enumerate() {
        let at = aliases.index(i);
        field::each(&at.child("ip"), alias.text("ip"), address::ip, errs);
        let hosts = at.child("hostnames");
        for (j, host) in alias.list("hostnames").iter().enumerate() {
            field::each(&hosts.index(j), text(host), names::subdomain, errs);
        }
    }
    if !spec.text("priorityClassName").is_empty() {
        field::each(&path.child("priorityClassName"), spec.text("priorityClassName"), names::subdomain, errs);
    }
    if spec.has("runtimeClassName") {
        field::each(&path.child("runtimeClassName"), spec.text("runtimeClassName"), names::subdomain, errs);
    }
    if spec.has("preemptionPolicy") {
        let policies = ["PreemptLowerPriority", "Never"];
        field::one_of(&path.child("preemptionPolicy"), spec.text("preemptionPolicy"), &policies, true, errs);
    }
    let overhead = serde_json::json!({"limits": spec.at("overhead")});
    let none = BTreeSet::new();
    containers::requirements(&overhead, &none, &resources::container_name, &path.child("overhead"), errs);
    operating_system(spec, path, errs);
    volumes::file_keys(spec, path, errs);
}

fn identity(spec: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let account = spec.text("serviceAccountName");
    if !account.is_empty() {
        field::each(&path.child("serviceAccountName"), account, names::subdomain, errs);
    }
    let twin = spec.text("serviceAccount");
    if twin != account {
        let detail = format!("must be the same as serviceAccountName: {}", field::quoted(account));
        errs.push(field::invalid(&path.child("deprecatedServiceAccount"), twin, &detail));
    }
    if !spec.text("nodeName").is_empty() {
        field::each(&path.child("nodeName"), spec.text("nodeName"), names::subdomain, errs);
    }
}

fn resource_claims(spec: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (i, claim) in spec.list("resourceClaims").iter().enumerate() {
        let (at, name) = (path.index(i), claim.text("name"));
        if name.is_empty() {
            errs.push(field::required(&at.child("name"), ""));
        } else if !seen.insert(name) {
            errs.push(field::duplicate(&at.child("name"), name));
        } else {
            field::each(&at.child("name"), name, names::label, errs);
        }
        let kinds = ["resourceClaimName", "resourceClaimTemplateName"];
        let shown = Claim(claim);
        match kinds.iter().filter(|k| claim.has(k)).count() {
            0 => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errs.push(field::invalid(&at, shown, detail));
            }
            2 => {
                let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errs.push(field::invalid(&at, shown, detail));
            }
            _ => {}
        }
        for kind in kinds.iter().filter(|k| claim.has(k)) {
            field::each(&at.child(kind), claim.text(kind), names::subdomain, errs);
        }
    }
}

/// A pod's resource claim as Kubernetes' internal type prints it.
struct Claim<'a>(&'a Tree);
impl field::Shown for Claim<'_> {
    fn shown(&self) -> String {
        format!(
            "{{\"Name\":{},\"ResourceClaimName\":{},\"ResourceClaimTemplateName\":{}}}",
            field::go_json(&self.0.text("name").into()),
            field::go_json(self.0.at("resourceClaimName")),
            field::go_json(self.0.at("resourceClaimTemplateName")),
        )
    }
}

fn scheduling_gates(list: &[Tree], path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (i, gate) in list.iter().enumerate() {
        let name = gate.text("name");
        field::each(&path.index(i), name, names::qualified_name, errs);
        if !seen.insert(name) {
            errs.push(field::duplicate(&path.index(i), name));
        }
    }
}

fn host_network_ports(spec: &Tree, is_pod: bool, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if !spec.flag("hostNetwork") {
        return;
    }
    let containers = path.child("containers");
    for (i, container) in spec.list("containers").iter().enumerate() {
        let item = containers.index(i);
        let ports = item.child("ports");
        for (j, port) in container.list("ports").iter().enumerate() {
            let (host, own) = (port.int("hostPort").unwrap_or(0), port.int("containerPort").unwrap_or(0));
            if (is_pod || host != 0) && host != own {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errs.push(field::invalid(&ports.index(j).child("hostPort"), host, detail));
            }
        }
    }
}

fn dns_config(spec: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let config = spec.at("dnsConfig");
    let servers = config.list("nameservers");
    let at = path.child("nameservers");
    if spec.text("dnsPolicy") == "None" {
        if config.is_null() {
            errs.push(field::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if servers.is_empty() {
            errs.push(field::required(&at, "must provide at least one DNS nameserver when `dnsPolicy` is None"));
            return;
        }
    }
    if servers.len() > 3 {
        errs.push(field::invalid(&at, config.at("nameservers"), "must not have more than 3 nameservers"));
    }
    for (i, server) in servers.iter().enumerate() {
        field::each(&at.index(i), text(server), address::ip, errs);
    }
    let searches = config.list("searches");
    let at = path.child("searches");
    if searches.len() > 32 {
        errs.push(field::invalid(&at, config.at("searches"), "must not have more than 32 search paths"));
    }
    let length: usize = searches.iter().map(|s| text(s).len() + 1).sum();
    if length.saturating_sub(1) > 2048 {
        let detail = "must not have more than 2048 characters (including spaces) in the search list";
        errs.push(field::invalid(&at, config.at("searches"), detail));
    }
    for (i, search) in searches.iter().map(text).enumerate().filter(|(_, s)| *s != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        field::each(&at.index(i), search, names::subdomain_with_underscore, errs);
    }
    let at = path.child("options");
    for (i, _) in config.list("options").iter().enumerate().filter(|(_, o)| o.text("name").is_empty()) {
        errs.push(field::required(&at.index(i), "must not be empty"));
    }
}

fn host_users(spec: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if spec.at("hostUsers") != &Tree::Bool(false) {
        return;
    }
    for (name, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.flag(name) {
            errs.push(field::forbidden(&path.child(shown), "when `hostUsers` is false"));
        }
    }
}

fn host_name(spec: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if !spec.has("hostnameOverride") {
        return;
    }
    let (at, name) = (path.child("hostnameOverride"), spec.text("hostnameOverride"));
    for other in ["setHostnameAsFQDN", "hostNetwork"] {
        if spec.flag(other) {
            errs.push(field::forbidden(&at, &format!("may not be specified when {other} is true")));
        }
    }
    if name.len() > 64 {
        errs.push(field::too_long(&at, 64));
    }
    field::each(&at, name, names::subdomain, errs);
}

fn operating_system(spec: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let os = spec.at("os");
    if os.is_null() {
        return;
    }
    let at = path.child("os");
    match os.text("name") {
        "" => errs.push(field::required(&at.child("name"), "")),
        "linux" => {
            each_context(spec, path, |context, at| {
                if context.has("windowsOptions") {
                    let detail = "windows options cannot be set for a linux pod";
                    errs.push(field::forbidden(&at.child("windowsOptions"), detail));
                }
            });
        }
        "windows" => windows(spec, path, errs),
        other => errs.push(field::not_supported(&at, other, &["linux", "windows"])),
    }
}

/// Calls `f` with the pod's security context, then with each container's.
fn each_context(spec: &Tree, path: &Path<'_>, mut f: impl FnMut(&Tree, &Path<'_>)) {
    f(spec.at("securityContext"), &path.child("securityContext"));
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = path.child(list);
        for (i, container) in spec.list(list).iter().enumerate() {
            let item = containers.index(i);
            f(container.at("securityContext"), &item.child("securityContext"));
        }
    }
}

fn windows(spec: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    const NOT_SET: &str = "cannot be set for a windows pod";
    const POD: &[&str] = &[
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "sysctls",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "seLinuxChangePolicy",
    ];
    const CONTAINER: &[&str] = &[
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    let mut first = true;
    each_context(spec, path, |context, at| {
        for name in if first { POD } else { CONTAINER } {
            if context.has(name) {
                errs.push(field::forbidden(&at.child(name), NOT_SET));
            }
        }
        if first {
            for name in ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"] {
                let pointer = name == "hostUsers" || name == "shareProcessNamespace";
                if if pointer { spec.has(name) } else { spec.flag(name) } {
                    errs.push(field::forbidden(&path.child(name), NOT_SET));
                }
            }
        }
        first = false;
    });
}

fn pod_resources(spec: &Tree, claims: &BTreeSet<&str>, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let own = spec.at("resources");
    if own.is_null() {
        return;
    }
    let at = path.child("resources");
    if spec.at("os").text("name") == "windows" {
        errs.push(field::forbidden(&at, "may not be set for a windows pod"));
        return;
    }
    if own.has("claims") {
        errs.push(field::forbidden(&at.child("claims"), "claims may not be set for Resources at pod-level"));
    }
    let name = |resource: &str, path: &Path<'_>, errs: &mut Vec<FieldError>| {
        let before = errs.len();
        resources::name(resource, path, errs);
        if errs.len() == before && !["cpu", "memory"].contains(&resource) && !resources::is_huge_page(resource) {
            errs.push(field::not_supported(path, resource, &["cpu", "memory"]));
        }
    };
    containers::requirements(own, claims, &name, &at, errs);
    for (list, what, whole) in [("requests", "requests", false), ("limits", "limits", true)] {
        let parent = at.child(list);
        for (resource, sum) in aggregate(spec, list) {
            let Some(stated) = quantity(own.at(list).at(&resource)) else { continue };
            if sum > stated && (!whole || resources::is_huge_page(&resource)) {
                let detail = format!("must be greater than or equal to aggregate container {what} of {sum}");
                errs.push(field::invalid(&parent.key(&resource), stated.to_string(), &detail));
            }
        }
    }
    let containers = at.child("containers");
    for (i, container) in spec.list("containers").iter().enumerate() {
        let item = containers.index(i);
        for (resource, value) in container.at("resources").entries("limits") {
            if let (Some(limit), Some(stated)) = (quantity(value), quantity(own.at("limits").at(resource)))
                && limit > stated
            {
                let key = item.key(resource);
                let detail = format!("must be less than or equal to pod limits of {stated}");
                errs.push(field::invalid(&key.child("limits"), limit.to_string(), &detail));
            }
        }
    }
}

/// What a pod's containers need together: the sum of those that run at once, or what starting up takes
/// if that is more.
pub fn aggregate(spec: &Tree, list: &str) -> BTreeMap<String, Quantity> {
    let amounts = |container: &Tree| -> BTreeMap<String, Quantity> {
        container.at("resources").entries(list).filter_map(|(k, v)| Some((k.to_owned(), quantity(v)?))).collect()
    };
    let add = |into: &mut BTreeMap<String, Quantity>, more: &BTreeMap<String, Quantity>| {
        for (name, amount) in more {
            let sum = into.entry(name.clone()).or_insert(Quantity::ZERO);
            *sum = sum.checked_add(*amount).unwrap_or(*sum);
        }
    };
    let mut running = BTreeMap::new();
    for container in spec.list("containers") {
        add(&mut running, &amounts(container));
    }
    let (mut sidecars, mut starting) = (BTreeMap::new(), BTreeMap::<String, Quantity>::new());
    for container in spec.list("initContainers") {
        let mut need = amounts(container);
        if container.text("restartPolicy") == "Always" {
            add(&mut running, &need);
            add(&mut sidecars, &need);
            need = sidecars.clone();
        } else {
            add(&mut need, &sidecars);
        }
        for (name, amount) in need {
            let peak = starting.entry(name).or_insert(amount);
            *peak = (*peak).max(amount);
        }
    }
    for (name, amount) in starting {
        let sum = running.entry(name).or_insert(amount);
        *sum = (*sum).max(amount);
    }
    running
}

/// The quality of service class: `Guaranteed` if every container's limits of cpu and memory are stated
/// and asked for in full, `BestEffort` if nothing is stated, else `Burstable`.
pub fn qos_class(spec: &Tree) -> &'static str {
    let compute = ["cpu", "memory"];
    let stated = |owner: &Tree, list: &str, name: &str| {
        quantity(owner.at("resources").at(list).at(name)).filter(|q| q.signum() > 0)
    };
    let own = spec.at("resources");
    let at_pod_level = ["limits", "requests"].iter().any(|l| own.entries(l).next().is_some());
    let owners: Vec<&Tree> = if at_pod_level {
        vec![spec]
    } else {
        spec.list("containers").iter().chain(spec.list("initContainers")).collect()
    };
    let any =
        owners.iter().any(|o| compute.iter().any(|n| stated(o, "limits", n).or(stated(o, "requests", n)).is_some()));
    if !any {
        return "BestEffort";
    }
    let full = owners.iter().all(|o| {
        compute.iter().all(|n| {
            let limit = stated(o, "limits", n);
            limit.is_some() && stated(o, "requests", n).is_none_or(|r| Some(r) == limit)
        })
    });
    if full { "Guaranteed" } else { "Burstable" }
}

/// Checks a PodTemplateSpec.
pub fn template(template: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let metadata = template.at("metadata");
    meta::labels(metadata.at("labels"), &path.child("labels"), errs);
    meta::annotations(metadata.at("annotations"), &path.child("annotations"), errs);
    annotations(metadata.at("annotations"), template.at("spec"), &path.child("annotations"), errs);
    let at = path.child("spec");
    validate(template.at("spec"), None, &at, errs);
    if !template.at("spec").list("ephemeralContainers").is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        errs.push(field::forbidden(&at.child("ephemeralContainers"), detail));
    }
}

/// Checks the annotations that mean something on pods.
pub fn annotations(annotations: &Tree, spec: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let mirror = "kubernetes.io/config.mirror";
    if annotations.has(mirror) && spec.text("nodeName").is_empty() {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errs.push(field::invalid(&path.key(mirror), annotations.text(mirror), detail));
    }
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    let value = annotations.text(cost);
    let fine = value.parse::<i32>().is_ok() && !value.starts_with('+') && (!value.starts_with('0') || value == "0");
    if annotations.has(cost) && !fine {
        errs.push(field::invalid(&path.key(cost), value, "must be a 32bit integer"));
    }
    for (key, value) in annotations.as_object().into_iter().flatten() {
        let Some(container) = key.strip_prefix("container.apparmor.security.beta.kubernetes.io/") else { continue };
        if !containers::has(spec, container) {
            errs.push(field::invalid(&path.key(key), container, "container not found"));
        }
        let profile = text(value);
        if !["", "runtime/default", "unconfined"].contains(&profile) && !profile.starts_with("localhost/") {
            let detail = format!("invalid AppArmor profile name: {}", field::quoted(profile));
            errs.push(field::invalid(&path.key(key), profile, &detail));
        }
    }
}
