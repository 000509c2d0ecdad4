//! Label selectors in objects.

use super::field::{self, Path};
use super::tree::{Fields, text};
use super::{FieldError, meta, names};
use crate::Tree;

/// Checks a `metav1.LabelSelector`; nothing there is fine.
pub fn validate(selector: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    meta::labels(selector.at("matchLabels"), &path.child("matchLabels"), errs);
    let expressions = path.child("matchExpressions");
    for (i, term) in selector.list("matchExpressions").iter().enumerate() {
        requirement(term, &expressions.index(i), errs);
    }
}

fn requirement(term: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let values = term.list("values");
    let at = path.child("values");
    match term.text("operator") {
        "In" | "NotIn" => {
            if values.is_empty() {
                errs.push(field::required(&at, "must be specified when `operator` is 'In' or 'NotIn'"));
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                errs.push(field::forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
            }
        }
        other => errs.push(field::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    field::each(&path.child("key"), term.text("key"), names::qualified_name, errs);
    for (i, value) in values.iter().enumerate() {
        field::each(&at.index(i), text(value), names::label_value, errs);
    }
}

/// Whether a selector says nothing.
pub fn is_empty(selector: &Tree) -> bool {
    selector.list("matchExpressions").is_empty() && selector.entries("matchLabels").next().is_none()
}

/// Whether a selector (already found valid) matches a set of labels.
pub fn matches(selector: &Tree, labels: &Tree) -> bool {
    selector.entries("matchLabels").all(|(k, v)| labels.has(k) && labels.text(k) == text(v))
        && selector.list("matchExpressions").iter().all(|term| {
            let (key, values) = (term.text("key"), term.list("values"));
            let held = labels.has(key);
            let among = held && values.iter().any(|v| text(v) == labels.text(key));
            match term.text("operator") {
                "In" => among,
                "NotIn" => !among,
                "Exists" => held,
                "DoesNotExist" => !held,
                _ => false,
            }
        })
}
