//! What may change in a pod.

use super::{containers, placement, spec};
use crate::Tree;
use crate::kinds::field::{self, Path};
use crate::kinds::tree::{self, Fields, same};
use crate::kinds::{FieldError, names};

const UPDATABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Checks the change of a pod by itself (its new spec has been checked).
pub fn validate(new: &Tree, old: &Tree, errs: &mut Vec<FieldError>) {
    annotations(new, old, errs);
    let path = Path::Root.child("spec");
    let (is, was) = (new.at("spec"), old.at("spec"));
    for list in ["containers", "initContainers"] {
        let at = path.child(list);
        if is.list(list).len() != was.list(list).len() {
            errs.push(field::forbidden(&at, "pod updates may not add or remove containers"));
            return;
        }
        for (i, container) in is.list(list).iter().enumerate() {
            if container.text("image").is_empty() {
                errs.push(field::required(&at.index(i).child("image"), ""));
            }
            containers::trimmed_image(container, &at.index(i), errs);
        }
    }
    if !deadline(is, was, &path.child("activeDeadlineSeconds"), errs) {
        return;
    }
    only_added_tolerations(is, was, &path.child("tolerations"), errs);
    only_deleted_gates(is, was, &path.child("schedulingGates"), errs);
    if same(is, was) {
        return;
    }
    let mut rest = is.clone();
    for list in ["containers", "initContainers"] {
        for (container, before) in tree::items(&mut rest, list).iter_mut().zip(was.list(list)) {
            tree::keep(container, before, "image");
        }
    }
    for name in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        tree::keep(&mut rest, was, name);
    }
    if was.int("terminationGracePeriodSeconds").is_some_and(|s| s < 0)
        && is.int("terminationGracePeriodSeconds") == Some(1)
    {
        tree::keep(&mut rest, was, "terminationGracePeriodSeconds");
    }
    if !was.list("schedulingGates").is_empty() {
        gated(&mut rest, was, &path, errs);
    }
    if !same(&rest, was) {
        let detail = format!("{UPDATABLE}\n{}", changes(was, &rest));
        errs.push(field::forbidden(&path, &detail));
    }
}

/// A pod that waits for gates may still be narrowed down.
fn gated(rest: &mut Tree, was: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if !same(rest.at("nodeSelector"), was.at("nodeSelector")) {
        let kept = was.entries("nodeSelector").all(|(k, v)| rest.at("nodeSelector").at(k) == v);
        if !kept {
            let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errs.push(field::invalid(&path.child("nodeSelector"), rest.at("nodeSelector"), detail));
        }
        tree::keep(rest, was, "nodeSelector");
    }
    let node = |spec: &Tree| spec.at("affinity").at("nodeAffinity").clone();
    let (after, before) = (node(rest), node(was));
    if same(&after, &before) {
        return;
    }
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = |affinity: &Tree| affinity.at(required).at("nodeSelectorTerms").clone();
    let (new_terms, old_terms) = (terms(&after), terms(&before));
    let (new_list, old_list) = (new_terms.as_array(), old_terms.as_array());
    let parent = path.child("affinity.nodeAffinity");
    let at = parent.child(required);
    let at = at.child("nodeSelectorTerms");
    let (new_list, old_list) = (new_list.map_or(&[][..], |l| l), old_list.map_or(&[][..], |l| l));
    if !old_list.is_empty() && old_list.len() != new_list.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errs.push(field::invalid(&at, &new_terms, detail));
    } else {
        for (i, (after, before)) in new_list.iter().zip(old_list).enumerate() {
            let prefix = |name: &str| after.list(name).starts_with(before.list(name));
            let was_empty = before.list("matchExpressions").is_empty() && before.list("matchFields").is_empty();
            if was_empty || !prefix("matchExpressions") || !prefix("matchFields") {
                let detail = "only additions are allowed (no mutations or deletions)";
                errs.push(field::invalid(&at.index(i), after, detail));
            }
        }
    }
    if before.is_null() {
        if let Some(affinity) = tree::existing(rest, "affinity") {
            tree::remove(affinity, "nodeAffinity");
        }
    } else {
        tree::set(tree::child(rest, "affinity"), "nodeAffinity", before);
    }
}

fn annotations(new: &Tree, old: &Tree, errs: &mut Vec<FieldError>) {
    let metadata = Path::Root.child("metadata");
    let at = metadata.child("annotations");
    let (is, was) = (new.at("metadata").at("annotations"), old.at("metadata").at("annotations"));
    let mirror = "kubernetes.io/config.mirror";
    let guarded = |key: &str| {
        if key.starts_with("container.apparmor.security.beta.kubernetes.io/") {
            Some("AppArmor annotations")
        } else {
            (key == mirror).then_some("mirror pod annotation")
        }
    };
    for (key, value) in was.as_object().into_iter().flatten() {
        if let Some(what) = guarded(key).filter(|_| is.at(key) != value) {
            errs.push(field::forbidden(&at.key(key), &format!("may not remove or update {what}")));
        }
    }
    for (key, _) in is.as_object().into_iter().flatten() {
        if let Some(what) = guarded(key).filter(|_| !was.has(key)) {
            errs.push(field::forbidden(&at.key(key), &format!("may not add {what}")));
        }
    }
    spec::annotations(is, new.at("spec"), &at, errs);
}

/// Whether the rest is still worth checking.
fn deadline(is: &Tree, was: &Tree, at: &Path<'_>, errs: &mut Vec<FieldError>) -> bool {
    let before = was.int("activeDeadlineSeconds");
    match (is.int("activeDeadlineSeconds"), before) {
        (Some(now), _) if !(0..=i64::from(i32::MAX)).contains(&now) => {
            errs.push(field::invalid(at, now, &names::in_range(0, i32::MAX.into())));
            false
        }
        (Some(now), Some(before)) if before < now => {
            errs.push(field::invalid(at, now, "must be less than or equal to previous value"));
            false
        }
        (None, Some(_)) => {
            errs.push(field::invalid(at, &Tree::Null, "must not update from a positive integer to nil value"));
            true
        }
        _ => true,
    }
}

fn only_added_tolerations(is: &Tree, was: &Tree, at: &Path<'_>, errs: &mut Vec<FieldError>) {
    let but_seconds = |t: &Tree| {
        let mut t = t.clone();
        tree::remove(&mut t, "tolerationSeconds");
        t
    };
    let list = is.list("tolerations");
    for old in was.list("tolerations") {
        if !list.iter().any(|new| same(&but_seconds(new), &but_seconds(old))) {
            errs.push(field::forbidden(at, "existing toleration can not be modified except its tolerationSeconds"));
            return;
        }
    }
    placement::tolerations(list, at, errs);
}

fn only_deleted_gates(is: &Tree, was: &Tree, at: &Path<'_>, errs: &mut Vec<FieldError>) {
    for (i, gate) in is.list("schedulingGates").iter().enumerate() {
        let name = gate.text("name");
        if !was.list("schedulingGates").iter().any(|g| g.text("name") == name) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errs.push(field::forbidden(&at.index(i).child("name"), &detail));
        }
    }
}

/// The fields that differ, a line for each value before (`-`) and after (`+`).
///
/// Kubernetes prints here a diff of the JSON of its own Go types; the sentence before it is the one people
/// and tools look for.
fn changes(was: &Tree, is: &Tree) -> String {
    let mut out = String::new();
    difference("spec", was, is, &mut out);
    out
}

fn difference(path: &str, was: &Tree, is: &Tree, out: &mut String) {
    if same(was, is) {
        return;
    }
    match (was, is) {
        (Tree::Object(a), Tree::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                difference(&format!("{path}.{key}"), was.at(key), is.at(key), out);
            }
        }
        (Tree::Array(a), Tree::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                difference(&format!("{path}[{i}]"), a, b, out);
            }
        }
        _ => {
            for (sign, value) in [('-', was), ('+', is)] {
                if !value.is_null() {
                    out.push_str(&format!("{sign} {path}: {}\n", field::go_json(value)));
                }
            }
        }
    }
}

/// Checks what a write of `status` changes.
pub fn status(new: &Tree, old: &Tree, errs: &mut Vec<FieldError>) {
    annotations(new, old, errs);
    let path = Path::Root.child("status");
    let (is, was) = (new.at("status"), old.at("status"));
    let conditions = path.child("conditions");
    for (i, condition) in is.list("conditions").iter().enumerate() {
        let at = conditions.index(i);
        if let Some(generation) = condition.int("observedGeneration").filter(|g| *g < 0) {
            errs.push(field::invalid(&at.child("observedGeneration"), generation, "must be a non-negative integer"));
        }
        let kind = condition.text("type");
        if !["PodScheduled", "Ready", "Initialized"].contains(&kind) {
            field::each(&at.child("Type"), kind, names::qualified_name, errs);
        }
    }
    if new.at("spec").text("nodeName") != old.at("spec").text("nodeName") {
        errs.push(field::forbidden(&path.child("nodeName"), "may not be changed directly"));
    }
    let nominated = is.text("nominatedNodeName");
    if nominated != was.text("nominatedNodeName") && !nominated.is_empty() {
        field::each(&path.child("nominatedNodeName"), nominated, names::subdomain, errs);
    }
    if let Some(generation) = is.int("observedGeneration").filter(|g| *g < 0) {
        errs.push(field::invalid(&path.child("observedGeneration"), generation, "must be a non-negative integer"));
    }
    if is.text("qosClass") != was.text("qosClass") {
        errs.push(field::invalid(&path.child("qosClass"), is.text("qosClass"), field::IMMUTABLE));
    }
    restarts(is, was, old.at("spec"), "containerStatuses", &path, errs);
    ips(is, was, &path, errs);
}

/// A container that has ended for good stays ended.
fn restarts(is: &Tree, was: &Tree, spec: &Tree, list: &str, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let at = path.child(list);
    for (i, before) in was.list(list).iter().enumerate() {
        let ended = before.at("state").at("terminated");
        let container = spec.list("containers").iter().find(|c| c.text("name") == before.text("name"));
        let (Some(container), false) = (container, ended.is_null()) else { continue };
        let code = ended.int("exitCode").unwrap_or(0);
        let rule = container.list("restartPolicyRules").iter().any(|rule| {
            let among = rule.at("exitCodes").list("values").iter().any(|v| v.as_i64() == Some(code));
            (rule.at("exitCodes").text("operator") == "In") == among
        });
        let policy = if container.has("restartPolicy") { container } else { spec }.text("restartPolicy");
        let may = rule || policy == "Always" || (policy == "OnFailure" && code != 0);
        let after = is.list(list).iter().find(|s| s.text("name") == before.text("name"));
        if !may && after.is_some_and(|s| !s.at("state").has("terminated")) {
            let detail = "may not be transitioned to non-terminated state";
            errs.push(field::forbidden(&at.index(i).child("state"), detail));
        }
    }
}

fn ips(is: &Tree, was: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    for (one, many) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
        let (list, at) = (is.list(many), path.child(many));
        for (i, item) in list.iter().enumerate() {
            let ip = item.text("ip");
            if !was.list(many).iter().any(|o| o.text("ip") == ip) {
                field::each(&at.index(i), ip, crate::kinds::address::ip, errs);
            }
        }
        let six = list.iter().filter(|i| i.text("ip").contains(':')).count();
        if list.len() > 2 || (list.len() == 2 && six != 1) {
            let detail = "may specify no more than one IP for each IP family";
            errs.push(field::invalid(&at, is.at(many), detail));
        }
        let first = list.first().map_or("", |i| i.text("ip"));
        if !list.is_empty() && is.text(one) != first {
            let detail = format!("must be equal to `{one}`");
            errs.push(field::invalid(&at.index(0).child("ip"), first, &detail));
        }
    }
}

/// Checks that ephemeral containers only come.
pub fn ephemeral(new: &Tree, old: &Tree, errs: &mut Vec<FieldError>) {
    annotations(new, old, errs);
    let spec = Path::Root.child("spec");
    let at = spec.child("ephemeralContainers");
    for before in old.at("spec").list("ephemeralContainers") {
        let name = field::quoted(before.text("name"));
        match new.at("spec").list("ephemeralContainers").iter().find(|c| c.text("name") == before.text("name")) {
            None => {
                errs.push(field::forbidden(&at, &format!("existing ephemeral containers {name} may not be removed\n")))
            }
            Some(after) if !same(after, before) => {
                let detail =
                    format!("existing ephemeral containers {name} may not be changed\n{}", changes(before, after));
                errs.push(field::forbidden(&at, &detail));
            }
            Some(_) => {}
        }
    }
}
