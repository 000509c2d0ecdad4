//! Resources: their names, and lists of them with quantities.

use super::field::{self, Path};
use super::tree;
use super::{FieldError, names};
use crate::Tree;
use base::Quantity;

const HUGE_PAGES: &str = "hugepages-";

/// A quantity as it stands in a tree: a text, or a number as JSON allows.
pub fn quantity(v: &Tree) -> Option<Quantity> {
    match v {
        Tree::String(s) => Quantity::parse(s).ok(),
        Tree::Number(n) => Quantity::parse(&n.to_string()).ok(),
        _ => None,
    }
}

/// Rounds a resource list's quantities up to thousandths and writes them as Kubernetes does.
pub fn default_list(owner: &mut Tree, name: &str) {
    let Some(Tree::Object(list)) = owner.get_mut(name) else { return };
    for value in list.values_mut() {
        let text = match &*value {
            Tree::String(s) => s.trim().to_owned(),
            Tree::Number(n) => n.to_string(),
            _ => continue,
        };
        let Ok(q) = Quantity::parse(&text) else { continue };
        let rounded = q.rounded_to_milli();
        let written =
            if rounded == q { Quantity::written(&text).map(|s| s.into_owned()) } else { Ok(rounded.to_string()) };
        if let Ok(written) = written {
            *value = Tree::String(written);
        }
    }
}

/// The same for `limits` and `requests` of what stands in a field.
pub fn default_requirements(owner: &mut Tree, name: &str) {
    if let Some(resources) = tree::existing(owner, name) {
        default_list(resources, "limits");
        default_list(resources, "requests");
    }
}

/// `hugepages-2Mi`.
pub fn is_huge_page(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// Without a domain, or in Kubernetes' own.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// `example.com/gpu`.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether limits may exceed requests.
pub fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// What a container may ask for by a bare name.
pub fn is_standard_for_container(name: &str) -> bool {
    ["cpu", "memory", "ephemeral-storage"].contains(&name) || is_huge_page(name)
}

fn counts_objects(name: &str) -> bool {
    [
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    ]
    .contains(&name)
}

fn is_quota_huge_page(name: &str) -> bool {
    is_huge_page(name) || name.starts_with("requests.hugepages-")
}

/// What a quota may limit by a bare name.
pub fn is_standard_for_quota(name: &str) -> bool {
    counts_objects(name)
        || is_quota_huge_page(name)
        || [
            "cpu",
            "memory",
            "ephemeral-storage",
            "requests.cpu",
            "requests.memory",
            "requests.storage",
            "requests.ephemeral-storage",
            "limits.cpu",
            "limits.memory",
            "limits.ephemeral-storage",
        ]
        .contains(&name)
}

/// Whether only whole numbers of it exist.
pub fn is_whole(name: &str) -> bool {
    counts_objects(name) || is_extended(name)
}

/// A resource's name as such.
pub fn name(name: &str, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let before = errs.len();
    field::each(path, name, names::qualified_name, errs);
    if errs.len() == before && !name.contains('/') && !is_standard_for_quota(name) && name != "storage" {
        errs.push(field::invalid(path, name, "must be a standard resource type or fully qualified"));
    }
}

/// A resource's name in a container's resources or a LimitRange for containers.
pub fn container_name(resource: &str, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    name(resource, path, errs);
    if !resource.contains('/') {
        if !is_standard_for_container(resource) {
            errs.push(field::invalid(path, resource, "must be a standard resource for containers"));
        }
    } else if !is_native(resource) && !is_extended(resource) {
        errs.push(field::invalid(path, resource, "doesn't follow extended resource name standard"));
    }
}

/// A resource's name in a quota.
pub fn quota_name(resource: &str, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    name(resource, path, errs);
    if !resource.contains('/') && !is_standard_for_quota(resource) {
        errs.push(field::invalid(path, resource, "must be a standard resource for quota"));
    }
}

/// An amount: not negative, whole where only whole ones exist.
pub fn amount(resource: &str, value: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let Some(q) = quantity(value) else { return };
    if q.signum() < 0 {
        errs.push(field::invalid(path, q.to_string(), field::NOT_NEGATIVE));
    }
    if is_whole(resource) && q.milli_value() % 1000 != 0 {
        errs.push(field::invalid(path, value, "must be an integer"));
    }
}
