//! Where a pod may run: affinity, tolerations, topology spread.

use crate::Tree;
use crate::kinds::field::{self, Path};
use crate::kinds::tree::{Fields, text};
use crate::kinds::{FieldError, names, selector};
use std::collections::BTreeSet;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Checks `affinity`.
pub fn affinity(affinity: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let (node, at) = (affinity.at("nodeAffinity"), path.child("nodeAffinity"));
    if node.has(REQUIRED) {
        node_selector(node.at(REQUIRED), &at.child(REQUIRED), errs);
    }
    let preferred = at.child(PREFERRED);
    for (i, term) in node.list(PREFERRED).iter().enumerate() {
        let at = preferred.index(i);
        weight(term, &at, errs);
        node_term(term.at("preference"), true, &at.child("preference"), errs);
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let (terms, at) = (affinity.at(name), path.child(name));
        let required = at.child(REQUIRED);
        for (i, term) in terms.list(REQUIRED).iter().enumerate() {
            pod_term(term, &required.index(i), errs);
        }
        let preferred = at.child(PREFERRED);
        for (i, term) in terms.list(PREFERRED).iter().enumerate() {
            let at = preferred.index(i);
            weight(term, &at, errs);
            pod_term(term.at("podAffinityTerm"), &at.child("podAffinityTerm"), errs);
        }
    }
}

fn weight(term: &Tree, at: &Path<'_>, errs: &mut Vec<FieldError>) {
    let weight = term.int("weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errs.push(field::invalid(&at.child("weight"), weight, "must be in the range 1-100"));
    }
}

/// Checks a `NodeSelector`.
pub fn node_selector(selector: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let at = path.child("nodeSelectorTerms");
    let terms = selector.list("nodeSelectorTerms");
    if terms.is_empty() {
        errs.push(field::required(&at, "must have at least one node selector term"));
    }
    for (i, term) in terms.iter().enumerate() {
        node_term(term, false, &at.index(i), errs);
    }
}

fn node_term(term: &Tree, any_value: bool, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let expressions = path.child("matchExpressions");
    for (i, requirement) in term.list("matchExpressions").iter().enumerate() {
        let at = expressions.index(i);
        let (values, at_values) = (requirement.list("values"), at.child("values"));
        match requirement.text("operator") {
            "In" | "NotIn" if values.is_empty() => {
                errs.push(field::required(&at_values, "must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => errs.push(field::forbidden(
                &at_values,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "Gt" | "Lt" if values.len() != 1 => {
                errs.push(field::required(&at_values, "must be specified single value when `operator` is 'Lt' or 'Gt'"))
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errs.push(field::invalid(&at.child("operator"), other, "not a valid selector operator")),
        }
        field::each(&at.child("key"), requirement.text("key"), names::qualified_name, errs);
        if !any_value {
            for (i, value) in values.iter().enumerate() {
                field::each(&at_values.index(i), text(value), names::label_value, errs);
            }
        }
    }
    let fields = path.child("matchFields");
    for (i, requirement) in term.list("matchFields").iter().enumerate() {
        let at = fields.index(i);
        let (values, at_values) = (requirement.list("values"), at.child("values"));
        match requirement.text("operator") {
            "In" | "NotIn" => {
                if values.len() != 1 {
                    let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                    errs.push(field::required(&at_values, detail));
                }
            }
            other => errs.push(field::invalid(&at.child("operator"), other, "not a valid selector operator")),
        }
        let key = requirement.text("key");
        if key != "metadata.name" {
            errs.push(field::invalid(&at.child("key"), key, "not a valid field selector key"));
            continue;
        }
        for (i, value) in values.iter().enumerate() {
            field::each(&at_values.index(i), text(value), names::subdomain, errs);
        }
    }
}

fn pod_term(term: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    selector::validate(term.at("labelSelector"), &path.child("labelSelector"), errs);
    selector::validate(term.at("namespaceSelector"), &path.child("namespaceSelector"), errs);
    for namespace in term.list("namespaces") {
        field::each(&path.child("namespace"), text(namespace), names::label, errs);
    }
    label_keys(term, path, errs);
    let key = term.text("topologyKey");
    if key.is_empty() {
        errs.push(field::required(&path.child("topologyKey"), "can not be empty"));
    }
    field::each(&path.child("topologyKey"), key, names::qualified_name, errs);
}

/// Checks `matchLabelKeys` and `mismatchLabelKeys` against each other and the selector.
fn label_keys(term: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let chosen = term.at("labelSelector");
    for name in ["matchLabelKeys", "mismatchLabelKeys"] {
        let (keys, at) = (term.list(name), path.child(name));
        if !keys.is_empty() && chosen.is_null() {
            errs.push(field::forbidden(&at, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            field::each(&at.index(i), text(key), names::qualified_name, errs);
        }
    }
    let keys = term.list("matchLabelKeys");
    let mut seen: BTreeSet<&str> = chosen.entries("matchLabels").map(|(k, _)| k).collect();
    for expression in chosen.list("matchExpressions") {
        let key = expression.text("key");
        if let Some(i) = keys.iter().rposition(|k| text(k) == key).filter(|_| seen.contains(key)) {
            errs.push(field::invalid(&path.index(i), key, "exists in both matchLabelKeys and labelSelector"));
        }
        seen.insert(key);
    }
    let at = path.child("matchLabelKeys");
    for (i, key) in keys.iter().enumerate() {
        if term.list("mismatchLabelKeys").contains(key) {
            errs.push(field::invalid(&at.index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys"));
        }
    }
}

/// Checks `tolerations`.
pub fn tolerations(list: &[Tree], path: &Path<'_>, errs: &mut Vec<FieldError>) {
    for (i, toleration) in list.iter().enumerate() {
        let at = path.index(i);
        let operator_path = at.child("operator");
        let (key, operator, effect) = (toleration.text("key"), toleration.text("operator"), toleration.text("effect"));
        if !key.is_empty() {
            field::each(&at.child("key"), key, names::qualified_name, errs);
        }
        if key.is_empty() && operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errs.push(field::invalid(&operator_path, operator, detail));
        }
        if toleration.has("tolerationSeconds") && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errs.push(field::invalid(&at.child("effect"), effect, detail));
        }
        let value = toleration.text("value");
        match operator {
            "Equal" | "" => {
                let wrong = names::label_value(value);
                if !wrong.is_empty() {
                    errs.push(field::invalid(&operator_path, value, &wrong.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                errs.push(field::invalid(&operator_path, value, "value must be empty when `operator` is 'Exists'"));
            }
            "Exists" => {}
            "Lt" | "Gt" => {
                errs.push(field::not_supported(&operator_path, operator, &["Equal", "Exists", "Lt", "Gt"]));
            }
            other => errs.push(field::not_supported(&operator_path, other, &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            field::one_of(&at.child("effect"), effect, &effects, false, errs);
        }
    }
}

/// Checks `topologySpreadConstraints`.
pub fn spread(list: &[Tree], path: &Path<'_>, errs: &mut Vec<FieldError>) {
    for (i, constraint) in list.iter().enumerate() {
        let at = path.index(i);
        let skew = constraint.int("maxSkew").unwrap_or(0);
        if skew <= 0 {
            errs.push(field::invalid(&at.child("maxSkew"), skew, "must be greater than zero"));
        }
        let (key, action) = (constraint.text("topologyKey"), constraint.text("whenUnsatisfiable"));
        if key.is_empty() {
            errs.push(field::required(&at.child("topologyKey"), "can not be empty"));
        }
        if action != "DoNotSchedule" && action != "ScheduleAnyway" {
            let supported = ["DoNotSchedule", "ScheduleAnyway"];
            errs.push(field::not_supported(&at.child("whenUnsatisfiable"), action, &supported));
        }
        let twin = |c: &Tree| c.text("topologyKey") == key && c.text("whenUnsatisfiable") == action;
        if list.iter().skip(i + 1).any(twin) {
            let both = format!("{{{key}, {action}}}");
            errs.push(field::duplicate(&at.child("{topologyKey, whenUnsatisfiable}"), both));
        }
        if let Some(domains) = constraint.int("minDomains") {
            if domains <= 0 {
                errs.push(field::invalid(&at.child("minDomains"), domains, "must be greater than zero"));
            }
            if action != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errs.push(field::invalid(&at.child("minDomains"), domains, &detail));
            }
        }
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            let policy = constraint.text(name);
            if constraint.has(name) && policy != "Honor" && policy != "Ignore" {
                errs.push(field::not_supported(&at.child(name), policy, &["Honor", "Ignore"]));
            }
        }
        label_keys(constraint, &at, errs);
        selector::validate(constraint.at("labelSelector"), &at.child("labelSelector"), errs);
    }
}
