//! Node selectors and node affinity (`core/v1` NodeSelector): which nodes a pod may or would rather run
//! on.

use crate::pod::items;
use objects::Tree;
use std::collections::BTreeMap;

/// Whether the node's labels meet the pod's `nodeSelector` and its required node affinity.
///
/// `metadata.name` is the only field selectable in `matchFields`.
pub fn may_run(spec: &Tree, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let selected = spec["nodeSelector"]
        .as_object()
        .into_iter()
        .flatten()
        .all(|(k, v)| labels.get(k).map(String::as_str) == v.as_str());
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    selected && (required.is_null() || items(&required["nodeSelectorTerms"]).iter().any(|t| term(t, name, labels)))
}

/// The sum of the weights of the preferred terms the node meets.
pub fn preference(spec: &Tree, name: &str, labels: &BTreeMap<String, String>) -> i64 {
    items(&spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"])
        .iter()
        .filter(|p| term(&p["preference"], name, labels))
        .filter_map(|p| p["weight"].as_i64())
        .sum()
}

/// A term is met if all its requirements are; a term without any is met by no node.
fn term(term: &Tree, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = items(&term["matchExpressions"]);
    let fields = items(&term["matchFields"]);
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|r| requirement(r, labels.get(r["key"].as_str().unwrap_or_default()).map(String::as_str)))
        && fields.iter().all(|r| requirement(r, (r["key"] == "metadata.name").then_some(name)))
}

fn requirement(r: &Tree, have: Option<&str>) -> bool {
    let values = || items(&r["values"]).iter().filter_map(Tree::as_str);
    let number = |s: &str| s.parse::<i64>().ok();
    match r["operator"].as_str() {
        Some("In") => have.is_some_and(|h| values().any(|v| v == h)),
        Some("NotIn") => have.is_none_or(|h| values().all(|v| v != h)),
        Some("Exists") => have.is_some(),
        Some("DoesNotExist") => have.is_none(),
        Some("Gt") => have.and_then(number).zip(values().next().and_then(number)).is_some_and(|(h, v)| h > v),
        Some("Lt") => have.and_then(number).zip(values().next().and_then(number)).is_some_and(|(h, v)| h < v),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn every_operator_reads_labels_as_kubernetes_does() {
        let l = labels(&[("zone", "a"), ("cores", "8")]);
        for (op, key, values, want) in [
            ("In", "zone", json!(["a", "b"]), true),
            ("In", "none", json!(["a"]), false),
            ("NotIn", "zone", json!(["b"]), true),
            ("NotIn", "none", json!(["b"]), true),
            ("Exists", "zone", json!([]), true),
            ("DoesNotExist", "zone", json!([]), false),
            ("Gt", "cores", json!(["7"]), true),
            ("Gt", "zone", json!(["7"]), false),
            ("Lt", "cores", json!(["8"]), false),
            ("Bogus", "zone", json!([]), false),
        ] {
            let spec = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": op, "values": values}]}]}}}});
            assert_eq!(may_run(&spec, "n", &l), want, "{op} {key}");
        }
    }

    #[test]
    fn terms_are_alternatives_and_an_empty_one_matches_nothing() {
        let required = |terms: Tree| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        let by_name = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]});
        assert!(may_run(&required(json!([{}, by_name])), "n1", &labels(&[])));
        assert!(!may_run(&required(json!([{}])), "n1", &labels(&[])));
        assert!(!may_run(&json!({"nodeSelector": {"a": "b"}}), "n1", &labels(&[("a", "c")])));
    }

    #[test]
    fn preferred_terms_add_up() {
        let p = |w: i64, key: &str| json!({"weight": w, "preference": {"matchExpressions": [{"key": key, "operator": "Exists"}]}});
        let spec = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [p(10, "a"), p(5, "b"), p(1, "c")]}}});
        assert_eq!(preference(&spec, "n", &labels(&[("a", ""), ("c", "")])), 11);
    }
}
