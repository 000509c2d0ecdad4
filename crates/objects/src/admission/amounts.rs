//! What a pod asks for, added up as Kubernetes adds it up.

use crate::Tree;
use crate::kinds::tree::Fields;
use base::Quantity;
use std::collections::BTreeMap;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// A resource list (`requests`, `hard`, …) of a tree.
pub fn of(list: &Tree) -> Amounts {
    list.as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| {
            let text = v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            Some((k.clone(), Quantity::parse(&text).ok()?))
        })
        .collect()
}

/// A resource list as a tree.
pub fn to_tree(amounts: &Amounts) -> Tree {
    Tree::Object(amounts.iter().map(|(k, v)| (k.clone(), Tree::String(v.to_string()))).collect())
}

/// Adds `more` to `sum`; a sum past all bounds stays as it was.
pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (k, v) in more {
        let slot = sum.entry(k.clone()).or_insert(Quantity::ZERO);
        *slot = slot.checked_add(*v).unwrap_or(*slot);
    }
}

fn at_least(sum: &mut Amounts, other: &Amounts) {
    for (k, v) in other {
        let slot = sum.entry(k.clone()).or_insert(*v);
        *slot = (*slot).max(*v);
    }
}

/// `requests` or `limits` of a whole pod: its containers and sidecars together, or what an init
/// container needs at its turn if that is more, and its overhead. Amounts for the pod as such
/// (`spec.resources`) stand for the sums of cpu, memory and huge pages.
pub fn of_pod(spec: &Tree, which: &str) -> Amounts {
    let mut sum = Amounts::new();
    for c in spec.list("containers") {
        add(&mut sum, &of(c.at("resources").at(which)));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for c in spec.list("initContainers") {
        let mut own = of(c.at("resources").at(which));
        if c.text("restartPolicy") == "Always" {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            own = sidecars.clone();
        } else {
            add(&mut own, &sidecars);
        }
        at_least(&mut peak, &own);
    }
    at_least(&mut sum, &peak);
    for (k, v) in of(spec.at("resources").at(which)) {
        sum.insert(k, v);
    }
    let overhead = of(spec.at("overhead"));
    for (k, v) in &overhead {
        // An overhead adds to a limit only where there is one.
        if which == "requests" || sum.contains_key(k) {
            add(&mut sum, &Amounts::from([(k.clone(), *v)]));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn init_containers_count_at_their_peak_and_sidecars_all_along() {
        let c = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut side = c("100m");
        side["restartPolicy"] = json!("Always");
        let cpu = |spec: &Tree| of_pod(spec, "requests").get("cpu").map(Quantity::to_string);
        assert_eq!(cpu(&json!({"containers": [c("100m"), c("1")]})), Some("1100m".into()));
        assert_eq!(cpu(&json!({"containers": [c("1")], "initContainers": [c("2")]})), Some("2".into()));
        assert_eq!(cpu(&json!({"containers": [c("1")], "initContainers": [side, c("2")]})), Some("2100m".into()));
        assert_eq!(cpu(&json!({"containers": [c("1")], "overhead": {"cpu": "250m"}})), Some("1250m".into()));
    }
}
