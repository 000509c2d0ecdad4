//! Environment variables and the fields and keys they may come from.

use crate::Tree;
use crate::kinds::field::{self, Path};
use crate::kinds::tree::Fields;
use crate::kinds::{FieldError, NameRule, names, resources};

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of a pod that a downward API file may hold.
pub const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const DIVISORS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// Checks `env`.
pub fn variables(vars: &[Tree], path: &Path<'_>, errs: &mut Vec<FieldError>) {
    for (i, var) in vars.iter().enumerate() {
        let at = path.index(i);
        if var.text("name").is_empty() {
            errs.push(field::required(&at.child("name"), ""));
        } else {
            field::each(&at.child("name"), var.text("name"), names::env_name, errs);
        }
        if var.has("valueFrom") {
            value_from(var, &at.child("valueFrom"), errs);
        }
    }
}

fn value_from(var: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let from = var.at("valueFrom");
    let mut sources = 0;
    if from.has("fieldRef") {
        sources += 1;
        object_field(from.at("fieldRef"), ENV_FIELDS, &path.child("fieldRef"), errs);
    }
    if from.has("resourceFieldRef") {
        sources += 1;
        resource_field(from.at("resourceFieldRef"), false, &path.child("resourceFieldRef"), errs);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        if from.has(name) {
            sources += 1;
            let (key, at) = (from.at(name), path.child(name));
            field::each(&at.child("name"), key.text("name"), |s| NameRule::Subdomain.check(s, false), errs);
            if key.text("key").is_empty() {
                errs.push(field::required(&at.child("key"), ""));
            } else {
                field::each(&at.child("key"), key.text("key"), names::config_key, errs);
            }
        }
    }
    if from.has("fileKeyRef") {
        sources += 1;
        file_key(from.at("fileKeyRef"), &path.child("fileKeyRef"), errs);
    }
    if sources == 0 {
        let detail =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errs.push(field::invalid(path, "", detail));
    } else if !var.text("value").is_empty() {
        errs.push(field::invalid(path, "", "may not be specified when `value` is not empty"));
    } else if sources > 1 {
        errs.push(field::invalid(path, "", "may not have more than one field specified at a time"));
    }
}

fn file_key(key: &Tree, at: &Path<'_>, errs: &mut Vec<FieldError>) {
    if key.text("key").is_empty() {
        errs.push(field::required(&at.child("key"), ""));
    } else {
        field::each(&at.child("key"), key.text("key"), names::env_name, errs);
    }
    if key.text("volumeName").is_empty() {
        errs.push(field::required(&at.child("volumeName"), ""));
    } else {
        field::each(&at.child("volumeName"), key.text("volumeName"), names::label, errs);
    }
    if key.text("path").is_empty() {
        errs.push(field::required(&at.child("path"), ""));
    } else {
        super::volumes::no_backsteps(key.text("path"), &at.child("path"), errs);
    }
}

/// Checks an `ObjectFieldSelector`.
pub fn object_field(selector: &Tree, allowed: &[&str], path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let (version, label) = (selector.text("apiVersion"), selector.text("fieldPath"));
    for (name, value) in [("apiVersion", version), ("fieldPath", label)] {
        if value.is_empty() {
            errs.push(field::required(&path.child(name), ""));
            return;
        }
    }
    let subscript = label.strip_suffix("']").and_then(|l| l.split_once("['")).filter(|(path, _)| !path.is_empty());
    let problem = match subscript {
        _ if version != "v1" => Some(format!("unsupported pod version: {version}")),
        Some((path, _)) if path != "metadata.annotations" && path != "metadata.labels" => {
            Some(format!("field label does not support subscript: {label}"))
        }
        None if !KNOWN_FIELDS.contains(&label) && label != "spec.host" => {
            Some(format!("field label not supported: {label}"))
        }
        _ => None,
    };
    if let Some(problem) = problem {
        let detail = format!("error converting fieldPath: {problem}");
        errs.push(field::invalid(&path.child("fieldPath"), label, &detail));
        return;
    }
    match subscript {
        Some(("metadata.annotations", key)) => field::each(path, &key.to_lowercase(), names::qualified_name, errs),
        Some((_, key)) => field::each(path, key, names::qualified_name, errs),
        None => {
            let label = if label == "spec.host" { "spec.nodeName" } else { label };
            if !allowed.contains(&label) {
                errs.push(field::not_supported(&path.child("fieldPath"), label, allowed));
            }
        }
    }
}

/// Checks a `ResourceFieldSelector`, which in a volume must name its container.
pub fn resource_field(selector: &Tree, volume: bool, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let resource = selector.text("resource");
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if volume && selector.text("containerName").is_empty() {
        errs.push(field::required(&path.child("containerName"), ""));
    } else if resource.is_empty() {
        errs.push(field::required(&path.child("resource"), ""));
    } else if !RESOURCES.contains(&resource) && !huge {
        errs.push(field::not_supported(&path.child("resource"), resource, RESOURCES));
    }
    let Some(divisor) = resources::quantity(selector.at("divisor")).filter(|d| !d.is_zero()) else { return };
    let (allowed, what) = match resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" => (&["1m", "1"][..], "cpu"),
        "memory" => (DIVISORS, "memory"),
        "ephemeral-storage" => (DIVISORS, "local ephemeral storage"),
        _ if huge => (DIVISORS, "hugepages"),
        _ => return,
    };
    if !allowed.contains(&divisor.to_string().as_str()) {
        let list = if what == "cpu" { "1m and 1".to_owned() } else { DIVISORS.join(", ") };
        let detail = format!("only divisor's values {list} are supported with the {what} resource");
        errs.push(field::invalid(&path.child("divisor"), resource, &detail));
    }
}

/// Checks `envFrom`.
pub fn sources(list: &[Tree], path: &Path<'_>, errs: &mut Vec<FieldError>) {
    for (i, source) in list.iter().enumerate() {
        let at = path.index(i);
        if !source.text("prefix").is_empty() {
            field::each(&at.child("prefix"), source.text("prefix"), names::env_name, errs);
        }
        let mut count = 0;
        for name in ["configMapRef", "secretRef"] {
            if source.has(name) {
                count += 1;
                let (reference, at) = (source.at(name), at.child(name));
                if reference.text("name").is_empty() {
                    errs.push(field::required(&at.child("name"), ""));
                } else {
                    let check = |s: &str| NameRule::Subdomain.check(s, true);
                    field::each(&at.child("name"), reference.text("name"), check, errs);
                }
            }
        }
        if count == 0 {
            errs.push(field::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"));
        } else if count > 1 {
            errs.push(field::invalid(path, "", "may not have more than one field specified at a time"));
        }
    }
}
