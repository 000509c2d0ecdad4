//! Containers of a pod: regular, init and ephemeral ones.

use super::{env, probes, security, volumes};
use crate::Tree;
use crate::kinds::field::{self, Path};
use crate::kinds::resources::{self, quantity};
use crate::kinds::tree::{self, Fields, text};
use crate::kinds::{FieldError, names};
use std::collections::BTreeSet;

/// What containers must know of their pod.
pub struct Surroundings<'a> {
    /// The pod's spec.
    pub spec: &'a Tree,
    /// Its valid volumes.
    pub volumes: volumes::Volumes<'a>,
    /// The names of its resource claims.
    pub claims: BTreeSet<&'a str>,
}

impl Surroundings<'_> {
    fn grace(&self) -> Option<i64> {
        self.spec.int("terminationGracePeriodSeconds")
    }
    fn host_users(&self) -> bool {
        self.spec.at("hostUsers") != &Tree::Bool(false)
    }
}

/// Checks `containers`.
pub fn regular(around: &Surroundings<'_>, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let list = around.spec.list("containers");
    if list.is_empty() {
        errs.push(field::required(path, ""));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, container) in list.iter().enumerate() {
        let at = path.index(i);
        common(container, around, &at, errs);
        if !seen.insert(container.text("name")) {
            errs.push(field::duplicate(&at.child("name"), container.text("name")));
        }
        let hooks = container.at("lifecycle");
        probes::lifecycle(hooks, around.grace(), &at.child("lifecycle"), errs);
        probes::probes(container, around.grace(), &at, errs);
        restart_policy(container, &at, errs);
    }
    host_ports(list, path, errs);
}

/// Checks `initContainers`.
pub fn init(around: &Surroundings<'_>, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let mut seen: BTreeSet<&str> = around.spec.list("containers").iter().map(|c| c.text("name")).collect();
    for (i, container) in around.spec.list("initContainers").iter().enumerate() {
        let at = path.index(i);
        common(container, around, &at, errs);
        restart_policy(container, &at, errs);
        let sidecar = container.text("restartPolicy") == "Always";
        let name = container.text("name");
        if seen.contains(name) {
            errs.push(field::duplicate(&at.child("name"), name));
        } else if !name.is_empty() {
            seen.insert(name);
        }
        host_ports(std::slice::from_ref(container), path, errs);
        if sidecar {
            let hooks = container.at("lifecycle");
            probes::lifecycle(hooks, around.grace(), &at.child("lifecycle"), errs);
            probes::probes(container, around.grace(), &at, errs);
        } else {
            for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if container.has(name) {
                    let detail = "may not be set for init containers without restartPolicy=Always";
                    errs.push(field::forbidden(&at.child(name), detail));
                }
            }
            let policies = at.child("resizePolicy");
            for (j, policy) in container.list("resizePolicy").iter().enumerate() {
                if policy.text("restartPolicy") == "RestartContainer" {
                    let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                    let item = policies.index(j);
                    errs.push(field::invalid(&item.child("restartPolicy"), "RestartContainer", detail));
                }
            }
        }
    }
}

/// Checks `ephemeralContainers`.
pub fn ephemeral(around: &Surroundings<'_>, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let named = |list: &str| around.spec.list(list).iter().map(|c| c.text("name")).collect::<Vec<_>>();
    let others: BTreeSet<&str> = named("containers").into_iter().chain(named("initContainers")).collect();
    let mut seen = others.clone();
    for (i, container) in around.spec.list("ephemeralContainers").iter().enumerate() {
        let at = path.index(i);
        common(container, around, &at, errs);
        trimmed_image(container, &at, errs);
        if !seen.insert(container.text("name")) {
            errs.push(field::duplicate(&at.child("name"), container.text("name")));
        }
        let target = container.text("targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            errs.push(field::not_found(&at.child("targetContainerName"), target));
        }
        const NOT_ALLOWED: &str = "cannot be set for an Ephemeral Container";
        for name in [
            "ports",
            "resources",
            "resizePolicy",
            "restartPolicy",
            "restartPolicyRules",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
        ] {
            if !tree::same(container.at(name), &Tree::Null) {
                errs.push(field::forbidden(&at.child(name), NOT_ALLOWED));
            }
        }
        let mounts = at.child("volumeMounts");
        for (j, mount) in container.list("volumeMounts").iter().enumerate() {
            let item = mounts.index(j);
            for name in ["subPath", "subPathExpr"] {
                if !mount.text(name).is_empty() {
                    errs.push(field::forbidden(&item.child(name), NOT_ALLOWED));
                }
            }
        }
    }
}

/// Checks that an image's name has no blank around it.
pub fn trimmed_image(container: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let image = container.text("image");
    if image.trim() != image {
        errs.push(field::invalid(&path.child("image"), image, "must not have leading or trailing whitespace"));
    }
}

fn common(container: &Tree, around: &Surroundings<'_>, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let name = container.text("name");
    if name.is_empty() {
        errs.push(field::required(&path.child("name"), ""));
    } else {
        field::each(&path.child("name"), name, names::label, errs);
    }
    if container.text("image").is_empty() {
        errs.push(field::required(&path.child("image"), ""));
    }
    field::one_of(
        &path.child("terminationMessagePolicy"),
        container.text("terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
        true,
        errs,
    );
    ports(container.list("ports"), &path.child("ports"), errs);
    env::variables(container.list("env"), &path.child("env"), errs);
    env::sources(container.list("envFrom"), &path.child("envFrom"), errs);
    volumes::mounts(container, &around.volumes, path, errs);
    let policies = ["Always", "IfNotPresent", "Never"];
    field::one_of(&path.child("imagePullPolicy"), container.text("imagePullPolicy"), &policies, true, errs);
    requirements(container.at("resources"), &around.claims, &resources::container_name, &path.child("resources"), errs);
    resize_policy(container, around.spec, &path.child("resizePolicy"), errs);
    security::container(container.at("securityContext"), around.host_users(), &path.child("securityContext"), errs);
}

fn ports(list: &[Tree], path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (i, port) in list.iter().enumerate() {
        let at = path.index(i);
        let name = port.text("name");
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if !wrong.is_empty() {
                errs.extend(wrong.iter().map(|m| field::invalid(&at.child("name"), name, m)));
            } else if !seen.insert(name) {
                errs.push(field::duplicate(&at.child("name"), name));
            }
        }
        let number = port.int("containerPort").unwrap_or(0);
        if number == 0 {
            errs.push(field::required(&at.child("containerPort"), ""));
        } else {
            errs.extend(names::port(number).iter().map(|m| field::invalid(&at.child("containerPort"), number, m)));
        }
        if let Some(host) = port.int("hostPort").filter(|p| *p != 0) {
            errs.extend(names::port(host).iter().map(|m| field::invalid(&at.child("hostPort"), host, m)));
        }
        field::one_of(&at.child("protocol"), port.text("protocol"), &["SCTP", "TCP", "UDP"], true, errs);
    }
}

fn host_ports(list: &[Tree], path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (i, container) in list.iter().enumerate() {
        let item = path.index(i);
        let ports = item.child("ports");
        for (j, port) in container.list("ports").iter().enumerate() {
            let Some(host) = port.int("hostPort").filter(|p| *p != 0) else { continue };
            let key = format!("{}/{}/{host}", port.text("protocol"), port.text("hostIP"));
            if seen.contains(&key) {
                errs.push(field::duplicate(&ports.index(j).child("hostPort"), key));
            } else {
                seen.insert(key);
            }
        }
    }
}

/// The check of a resource's name, which differs between containers and pods.
pub type NameCheck<'a> = &'a dyn Fn(&str, &Path<'_>, &mut Vec<FieldError>);

/// Checks `resources`.
pub fn requirements(
    owner: &Tree,
    claims: &BTreeSet<&str>,
    name: NameCheck<'_>,
    path: &Path<'_>,
    errs: &mut Vec<FieldError>,
) {
    let (limits, requests) = (path.child("limits"), path.child("requests"));
    let (mut compute, mut huge) = (false, false);
    let mut huge_page = |resource: &str, value: &Tree, at: &Path<'_>, errs: &mut Vec<FieldError>| {
        compute |= resource == "cpu" || resource == "memory";
        let Some(size) = resource.strip_prefix("hugepages-") else { return };
        huge = true;
        let Some(amount) = quantity(value) else { return };
        let fits = base::Quantity::parse(size)
            .is_ok_and(|s| s.signum() > 0 && s.is_whole() && amount.value() % s.value() == 0);
        if !fits {
            let detail = format!("{amount} is not positive integer multiple of {resource}");
            errs.push(field::invalid(at, amount.to_string(), &detail));
        }
    };
    for (resource, value) in owner.entries("limits") {
        let at = limits.key(resource);
        name(resource, &at, errs);
        resources::amount(resource, value, &at, errs);
        huge_page(resource, value, &at, errs);
    }
    for (resource, value) in owner.entries("requests") {
        let at = requests.key(resource);
        name(resource, &at, errs);
        resources::amount(resource, value, &at, errs);
        match (quantity(value), quantity(owner.at("limits").at(resource))) {
            (Some(request), Some(limit)) if request != limit && !resources::may_overcommit(resource) => {
                let detail = format!("must be equal to {resource} limit of {limit}");
                errs.push(field::invalid(&requests, request.to_string(), &detail));
            }
            (Some(request), Some(limit)) if request > limit => {
                let detail = format!("must be less than or equal to {resource} limit of {limit}");
                errs.push(field::invalid(&requests, request.to_string(), &detail));
            }
            (_, None) if !resources::may_overcommit(resource) => {
                errs.push(field::required(&limits, "Limit must be set for non overcommitable resources"));
            }
            _ => {}
        }
        huge_page(resource, value, &at, errs);
    }
    if huge && !compute {
        errs.push(field::forbidden(path, "HugePages require cpu or memory"));
    }
    claim_names(owner.list("claims"), claims, &path.child("claims"), errs);
}

fn claim_names(list: &[Tree], claims: &BTreeSet<&str>, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (i, claim) in list.iter().enumerate() {
        let (at, name, request) = (path.index(i), claim.text("name"), claim.text("request"));
        if name.is_empty() {
            errs.push(field::required(&at, ""));
            continue;
        }
        if seen.contains(name) {
            errs.push(field::duplicate(&at, name));
        } else {
            let key = if request.is_empty() {
                name.to_owned()
            } else {
                field::each(&at.child("request"), request, names::label, errs);
                format!("{name}/{request}")
            };
            let covered = request.is_empty() && seen.iter().any(|k| k.split_once('/').is_some_and(|(n, _)| n == name));
            if seen.contains(&key) || covered {
                errs.push(field::duplicate(&at, key.clone()));
            }
            seen.insert(key);
        }
        if !claims.contains(name) {
            let mut error = field::not_found(&at, name);
            error.message.push_str(": must be one of the names in pod.spec.resourceClaims");
            if claims.is_empty() {
                error.message.push_str(" which is empty");
            } else {
                let list: Vec<&str> = claims.iter().copied().collect();
                error.message.push_str(&format!(": {}", list.join(", ")));
            }
            errs.push(error);
        }
    }
}

fn resize_policy(container: &Tree, spec: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (i, policy) in container.list("resizePolicy").iter().enumerate() {
        let (resource, restart) = (policy.text("resourceName"), policy.text("restartPolicy"));
        if !seen.insert(resource) {
            errs.push(field::duplicate(&path.index(i), resource));
        }
        field::one_of(path, resource, &["cpu", "memory"], true, errs);
        field::one_of(path, restart, &["NotRequired", "RestartContainer"], true, errs);
        if spec.text("restartPolicy") == "Never" && restart != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errs.push(field::invalid(path, restart, detail));
        }
    }
}

fn restart_policy(container: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let rules = container.list("restartPolicyRules");
    let at = path.child("restartPolicy");
    if !container.has("restartPolicy") {
        if rules.is_empty() {
            return;
        }
        errs.push(field::required(&at, "must specify restartPolicy when restart rules are used"));
    } else {
        let policy = container.text("restartPolicy");
        let policies = ["Always", "Never", "OnFailure"];
        if !policies.contains(&policy) {
            errs.push(field::not_supported(&at, policy, &policies));
        }
    }
    let list = path.child("restartPolicyRules");
    if rules.len() > 20 {
        errs.push(field::too_many(&list, rules.len(), 20));
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = list.index(i);
        let actions = ["Restart", "RestartAllContainers"];
        if !actions.contains(&rule.text("action")) {
            errs.push(field::not_supported(&at.child("action"), rule.text("action"), &actions));
        }
        let codes = rule.at("exitCodes");
        if codes.is_null() {
            errs.push(field::required(&at.child("exitCodes"), "must be specified"));
            continue;
        }
        let at = at.child("exitCodes");
        let operators = ["In", "NotIn"];
        if !operators.contains(&codes.text("operator")) {
            errs.push(field::not_supported(&at.child("operator"), codes.text("operator"), &operators));
        }
        if codes.list("values").len() > 255 {
            errs.push(field::too_many(&at.child("values"), codes.list("values").len(), 255));
        }
    }
}

/// Whether a pod has a container of a name.
pub fn has(spec: &Tree, name: &str) -> bool {
    ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .any(|list| spec.list(list).iter().any(|c| text(c.at("name")) == name))
}
