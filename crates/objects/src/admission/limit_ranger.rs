//! LimitRanger: a namespace's bounds for containers, pods and claims, and what a container gets that
//! asks for nothing.

use super::Outcome;
use super::amounts::{self, Amounts};
use crate::Tree;
use crate::decide::Visit;
use crate::kinds::tree::{self, Fields};
use crate::status::Status;
use base::Quantity;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn ranges(visit: &Visit<'_>) -> Vec<Tree> {
    visit.view.list("LimitRange", None).map(|(_, s)| s.tree()).collect()
}

/// Fills in the defaults of the namespace's limit ranges, and notes in an annotation what was filled in.
pub(super) fn fill(visit: &Visit<'_>, pod: &mut Tree) {
    for range in ranges(visit) {
        let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
        for item in range.at("spec").list("limits").iter().filter(|i| i.text("type") == "Container") {
            requests.extend(amounts::of(item.at("defaultRequest")));
            limits.extend(amounts::of(item.at("default")));
        }
        let mut notes = Vec::new();
        for (field, word) in [("containers", "container"), ("initContainers", "init container")] {
            for c in tree::items(tree::child(pod, "spec"), field) {
                for (which, of, defaults) in [("requests", "request", &requests), ("limits", "limit", &limits)] {
                    let set = fill_list(c, which, defaults);
                    if !set.is_empty() {
                        notes.push(format!("{} {of} for {word} {}", set.join(", "), c.text("name")));
                    }
                }
            }
        }
        if !notes.is_empty() {
            let annotations = tree::child(tree::child(pod, "metadata"), "annotations");
            tree::set(annotations, ANNOTATION, format!("LimitRanger plugin set: {}", notes.join("; ")));
        }
    }
}

fn fill_list(container: &mut Tree, which: &str, defaults: &Amounts) -> Vec<String> {
    let mut set = Vec::new();
    for (resource, amount) in defaults {
        if !container.at("resources").at(which).has(resource) {
            let list = tree::child(tree::child(container, "resources"), which);
            tree::set(list, resource, amount.to_string());
            set.push(resource.clone());
        }
    }
    set
}

/// Refuses what is outside the namespace's bounds, naming everything that is.
pub(super) fn check(visit: &Visit<'_>, obj: &Tree) -> Outcome<()> {
    let mut errs = Vec::new();
    for range in ranges(visit) {
        for item in range.at("spec").list("limits") {
            let ty = item.text("type");
            let spec = obj.at("spec");
            match (visit.kind.storage, ty) {
                ("Pod", "Container") => {
                    for c in spec.list("containers").iter().chain(spec.list("initContainers")) {
                        let of = |which: &str| amounts::of(c.at("resources").at(which));
                        bounds(item, ty, &of("requests"), &of("limits"), &mut errs);
                    }
                }
                ("Pod", "Pod") => {
                    let of = |which: &str| amounts::of_pod(spec, which);
                    bounds(item, ty, &of("requests"), &of("limits"), &mut errs);
                }
                ("PersistentVolumeClaim", "PersistentVolumeClaim") => {
                    claim_bounds(item, ty, &amounts::of(spec.at("resources").at("requests")), &mut errs);
                }
                _ => {}
            }
        }
    }
    let why = match errs.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    Err(Box::new(Status::forbidden(visit.kind, obj.at("metadata").text("name"), &why)))
}

fn bounds(item: &Tree, ty: &str, requests: &Amounts, limits: &Amounts, errs: &mut Vec<String>) {
    for (r, min) in amounts::of(item.at("min")) {
        let usage = format!("minimum {r} usage per {ty} is {min}");
        match (requests.get(&r), limits.get(&r)) {
            (None, _) => errs.push(format!("{usage}.  No request is specified")),
            (Some(q), _) if *q < min => errs.push(format!("{usage}, but request is {q}")),
            (_, Some(l)) if *l < min => errs.push(format!("{usage}, but limit is {l}")),
            _ => {}
        }
    }
    for (r, max) in amounts::of(item.at("max")) {
        let usage = format!("maximum {r} usage per {ty} is {max}");
        match (requests.get(&r), limits.get(&r)) {
            (_, None) => errs.push(format!("{usage}.  No limit is specified")),
            (_, Some(l)) if *l > max => errs.push(format!("{usage}, but limit is {l}")),
            (Some(q), _) if *q > max => errs.push(format!("{usage}, but request is {q}")),
            _ => {}
        }
    }
    for (r, ratio) in amounts::of(item.at("maxLimitRequestRatio")) {
        let text = format!("{r} max limit to request ratio per {ty} is {ratio}");
        let there = |a: &Amounts| a.get(&r).copied().filter(|q| !q.is_zero());
        match (there(requests), there(limits)) {
            (None, _) => errs.push(format!("{text}, but no request is specified or request is 0")),
            (_, None) => errs.push(format!("{text}, but no limit is specified or limit is 0")),
            (Some(q), Some(l)) => {
                if exceeds(l, q, ratio) {
                    let observed = l.nano() as f64 / q.nano() as f64;
                    errs.push(format!("{text}, but provided ratio is {observed:.6}"));
                }
            }
        }
    }
}

/// Whether `limit / request > ratio`, without rounding.
fn exceeds(limit: Quantity, request: Quantity, ratio: Quantity) -> bool {
    let left = limit.nano().checked_mul(1_000_000_000);
    let right = ratio.nano().checked_mul(request.nano());
    match (left, right) {
        (Some(l), Some(r)) => l > r,
        // Past 128 bits a rounded answer will do.
        _ => limit.nano() as f64 / request.nano() as f64 > ratio.nano() as f64 / 1e9,
    }
}

fn claim_bounds(item: &Tree, ty: &str, requests: &Amounts, errs: &mut Vec<String>) {
    for (r, min) in amounts::of(item.at("min")) {
        match requests.get(&r) {
            None => errs.push(format!("minimum {r} usage per {ty} is {min}.  No request is specified")),
            Some(q) if *q < min => errs.push(format!("minimum {r} usage per {ty} is {min}, but request is {q}")),
            _ => {}
        }
    }
    for (r, max) in amounts::of(item.at("max")) {
        match requests.get(&r) {
            None => errs.push(format!("maximum {r} usage per {ty} is {max}.  No request is specified")),
            Some(q) if *q > max => errs.push(format!("maximum {r} usage per {ty} is {max}, but request is {q}")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bounds_are_worded_as_kubernetes_words_them() {
        let item = json!({"min": {"cpu": "100m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "2"}});
        let a = |cpu: &str| amounts::of(&json!({"cpu": cpu}));
        let none = Amounts::new();
        let run = |r: &Amounts, l: &Amounts| {
            let mut errs = Vec::new();
            bounds(&item, "Container", r, l, &mut errs);
            errs
        };
        assert!(run(&a("500m"), &a("1")).is_empty());
        assert_eq!(run(&a("50m"), &a("100m")), ["minimum cpu usage per Container is 100m, but request is 50m"]);
        assert_eq!(
            run(&a("250m"), &a("2")),
            [
                "maximum cpu usage per Container is 1, but limit is 2",
                "cpu max limit to request ratio per Container is 2, but provided ratio is 8.000000"
            ]
        );
        assert_eq!(run(&none, &none).len(), 3);
    }
}
