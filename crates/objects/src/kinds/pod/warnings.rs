//! What is allowed in a pod but likely a mistake.

use crate::Tree;
use crate::kinds::tree::{Fields, text};
use std::collections::BTreeSet;

/// Warnings for a Pod.
pub(super) fn pod_warnings(pod: &Tree, out: &mut Vec<String>) {
    spec_warnings(pod.at("spec"), "spec", out);
}

/// Warnings for a template whose path is given.
pub fn template_warnings(template: &Tree, path: &str, out: &mut Vec<String>) {
    spec_warnings(template.at("spec"), &format!("{path}.spec"), out);
}

fn spec_warnings(spec: &Tree, path: &str, out: &mut Vec<String>) {
    for (label, instead) in [
        ("beta.kubernetes.io/arch", "use \"kubernetes.io/arch\" instead"),
        ("beta.kubernetes.io/os", "use \"kubernetes.io/os\" instead"),
        ("failure-domain.beta.kubernetes.io/region", "use \"topology.kubernetes.io/region\" instead"),
        ("failure-domain.beta.kubernetes.io/zone", "use \"topology.kubernetes.io/zone\" instead"),
        ("beta.kubernetes.io/instance-type", "use \"node.kubernetes.io/instance-type\" instead"),
    ] {
        if spec.at("nodeSelector").has(label) {
            let since = if label.ends_with("arch") || label.ends_with("/os") { "v1.14" } else { "v1.17" };
            out.push(format!("{path}.nodeSelector[{label}]: deprecated since {since}; {instead}"));
        }
    }
    let mut ips = BTreeSet::new();
    for (i, alias) in spec.list("hostAliases").iter().enumerate() {
        if !ips.insert(alias.text("ip")) {
            out.push(format!("{path}.hostAliases[{i}].ip: duplicate ip \"{}\"", alias.text("ip")));
        }
    }
    for (i, secret) in spec.list("imagePullSecrets").iter().enumerate() {
        let name = secret.text("name");
        if name.is_empty() {
            out.push(format!("{path}.imagePullSecrets[{i}].name: invalid empty name \"\""));
        }
    }
    for (i, volume) in spec.list("volumes").iter().enumerate() {
        if volume.has("gitRepo") {
            out.push(format!("{path}.volumes[{i}].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"));
        }
        if volume.has("glusterfs") {
            out.push(format!("{path}.volumes[{i}].glusterfs: deprecated in v1.25, non-functional in v1.26+"));
        }
    }
    for list in ["initContainers", "containers"] {
        for (i, container) in spec.list(list).iter().enumerate() {
            container_warnings(container, &format!("{path}.{list}[{i}]"), out);
        }
    }
    if spec.int("terminationGracePeriodSeconds").is_some_and(|s| s < 0) {
        out.push(format!(
            "{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
}

fn container_warnings(container: &Tree, path: &str, out: &mut Vec<String>) {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (i, variable) in container.list("env").iter().enumerate() {
        let name = text(variable.at("name"));
        if !seen.insert(name) && !variable.text("value").contains(&format!("$({name})")) {
            out.push(format!(
                "{path}.env[{i}]: hides previous definition of \"{name}\", which may be dropped when using apply"
            ));
        }
    }
    let mut ports: BTreeSet<(i64, &str, i64, &str)> = BTreeSet::new();
    for (i, port) in container.list("ports").iter().enumerate() {
        let key = (
            port.int("containerPort").unwrap_or(0),
            port.text("protocol"),
            port.int("hostPort").unwrap_or(0),
            port.text("hostIP"),
        );
        if key.2 == 0 && !ports.insert(key) {
            out.push(format!(
                "{path}.ports[{i}]: duplicate port definition with {path}.ports[{}]",
                first(container, key)
            ));
        }
    }
}

fn first(container: &Tree, key: (i64, &str, i64, &str)) -> usize {
    container
        .list("ports")
        .iter()
        .position(|p| p.int("containerPort").unwrap_or(0) == key.0 && p.text("protocol") == key.1)
        .unwrap_or(0)
}
