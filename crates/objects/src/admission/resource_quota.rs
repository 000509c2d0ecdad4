//! ResourceQuota: how much a namespace may hold.
//!
//! A quota's `status.used` changes in the entry that changes what it counts, so that it is exact under
//! any concurrency; what deletes give back is given back at once.

use super::Outcome;
use super::amounts::{self, Amounts};
use crate::Tree;
use crate::decide::Visit;
use crate::decision::Write;
use crate::kinds::tree::{self, Fields};
use crate::kinds::{KINDS, Kind, by_resource};
use crate::record::{Key, Stored};
use crate::request::View;
use crate::status::Status;
use base::Quantity;
use std::collections::BTreeSet;

const QUOTA: &str = "ResourceQuota";

/// Kinds that quotas also count under their bare plural.
const COUNTED: [&str; 6] =
    ["configmaps", "secrets", "replicationcontrollers", "resourcequotas", "services", "persistentvolumeclaims"];

/// The quota writes that turn `old` into `new` in a namespace.
pub(super) fn charge(visit: &mut Visit<'_>, new: Option<&Tree>, old: Option<&Tree>) -> Outcome<Vec<Write>> {
    if !visit.kind.namespaced || visit.kind.storage == QUOTA && new.is_none() {
        return Ok(Vec::new());
    }
    let mut writes = Vec::new();
    let quotas: Vec<(std::sync::Arc<str>, Stored)> = visit.view.list(QUOTA, None).collect();
    let name = new.or(old).map(|o| o.at("metadata").text("name")).unwrap_or_default().to_owned();
    for (quota_name, stored) in quotas {
        if visit.kind.storage == QUOTA && *quota_name == *name {
            continue; // its own write is under way
        }
        let mut quota = visit.charged.get(&quota_name).cloned().unwrap_or_else(|| stored.tree());
        let hard = amounts::of(quota.at("spec").at("hard"));
        let counted = |o: Option<&Tree>| match o {
            Some(o) if in_scope(&quota, visit.kind, o) => limited(usage(visit.kind, o), &hard),
            _ => Amounts::new(),
        };
        let (before, after) = (counted(old), counted(new));
        if let (None, Some(new)) = (old, new)
            && in_scope(&quota, visit.kind, new)
        {
            constraints(visit, &quota, &hard, new, &name)?;
        }
        if before == after {
            continue;
        }
        let mut used = used_of(&quota, &hard, visit.view);
        let (mut over, mut asked) = (BTreeSet::new(), Amounts::new());
        for resource in before.keys().chain(after.keys()).cloned().collect::<BTreeSet<String>>() {
            let of = |a: &Amounts| a.get(&resource).copied().unwrap_or(Quantity::ZERO);
            let delta = of(&after).checked_sub(of(&before)).unwrap_or(Quantity::ZERO);
            let was = of(&used);
            let will = was.checked_add(delta).unwrap_or(was);
            // More is refused above the bound; less is never refused, even where the bound was lowered.
            if delta.signum() > 0 && will > of(&hard) {
                over.insert(resource.clone());
                asked.insert(resource, delta);
            } else {
                used.insert(resource, if will.signum() < 0 { Quantity::ZERO } else { will });
            }
        }
        if !over.is_empty() {
            let show = |a: &Amounts| {
                over.iter()
                    .map(|r| format!("{r}={}", a.get(r).copied().unwrap_or(Quantity::ZERO)))
                    .collect::<Vec<_>>()
                    .join(",")
            };
            let why = format!(
                "exceeded quota: {quota_name}, requested: {}, used: {}, limited: {}",
                show(&asked),
                show(&used),
                show(&hard)
            );
            return Err(Box::new(Status::forbidden(visit.kind, &name, &why)));
        }
        let status = tree::child(&mut quota, "status");
        tree::set(status, "hard", amounts::to_tree(&hard));
        tree::set(status, "used", amounts::to_tree(&used));
        visit.charged.insert(quota_name.clone(), quota.clone());
        writes.push(Write {
            key: Key { storage: QUOTA.into(), name: quota_name },
            expected: Some(stored.revision),
            kind: by_resource("", "v1", "resourcequotas").unwrap_or(visit.kind),
            tree: Some(quota),
        });
    }
    Ok(writes)
}

/// What a quota's status shall be, counted anew over a namespace: for a quota that is new or whose bounds
/// have changed.
pub fn recount(quota: &Tree, view: &dyn View) -> Tree {
    let hard = amounts::of(quota.at("spec").at("hard"));
    let used = count(quota, &hard, view);
    serde_json::json!({"hard": amounts::to_tree(&hard), "used": amounts::to_tree(&used)})
}

/// What is used of each bounded resource: as the status says, and counted where it does not say.
fn used_of(quota: &Tree, hard: &Amounts, view: &dyn View) -> Amounts {
    let said = amounts::of(quota.at("status").at("used"));
    if hard.keys().all(|k| said.contains_key(k)) {
        return limited(said, hard);
    }
    count(quota, hard, view)
}

fn count(quota: &Tree, hard: &Amounts, view: &dyn View) -> Amounts {
    let mut used: Amounts = hard.keys().map(|k| (k.clone(), Quantity::ZERO)).collect();
    let mut seen = BTreeSet::new();
    for kind in KINDS.iter().filter(|k| k.namespaced && interests(k, hard)) {
        if !seen.insert(kind.storage) {
            continue;
        }
        for (_, stored) in view.list(kind.storage, None) {
            let obj = stored.tree();
            if in_scope(quota, kind, &obj) {
                amounts::add(&mut used, &limited(usage(kind, &obj), hard));
            }
        }
    }
    used
}

/// Whether a bound could concern objects of a kind: spares reading all others.
fn interests(kind: &Kind, hard: &Amounts) -> bool {
    match kind.storage {
        "Pod" => true,
        "Service" | "PersistentVolumeClaim" => true,
        _ => hard.contains_key(kind.plural) || hard.contains_key(&counter(kind)),
    }
}

fn counter(kind: &Kind) -> String {
    format!("count/{}", kind.qualified_resource())
}

fn limited(mut all: Amounts, hard: &Amounts) -> Amounts {
    all.retain(|k, _| hard.contains_key(k));
    all
}

/// What one object uses, of everything a quota can bound.
fn usage(kind: &Kind, obj: &Tree) -> Amounts {
    let one = Quantity::new(1, base::quantity::Format::DecimalSi);
    let mut out = Amounts::from([(counter(kind), one)]);
    if kind.group.is_empty() && COUNTED.contains(&kind.plural) {
        out.insert(kind.plural.into(), one);
    }
    match kind.storage {
        "Pod" if !is_over(obj) => {
            out.insert("pods".into(), one);
            for (k, v) in amounts::of_pod(obj.at("spec"), "requests") {
                if matches!(k.as_str(), "cpu" | "memory" | "ephemeral-storage") || k.starts_with("hugepages-") {
                    out.insert(k.clone(), v);
                }
                out.insert(format!("requests.{k}"), v);
            }
            for (k, v) in amounts::of_pod(obj.at("spec"), "limits") {
                if matches!(k.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                    out.insert(format!("limits.{k}"), v);
                }
            }
        }
        "Service" => {
            let spec = obj.at("spec");
            let ports = spec.list("ports").len() as i64;
            let units = |n: i64| Quantity::new(n, base::quantity::Format::DecimalSi);
            let (balancers, nodeports) = match spec.text("type") {
                "NodePort" => (0, ports),
                "LoadBalancer" => {
                    let given = spec.list("ports").iter().filter(|p| p.int("nodePort").unwrap_or(0) != 0).count();
                    let all = spec.at("allocateLoadBalancerNodePorts").as_bool().unwrap_or(true);
                    (1, if all { ports } else { given as i64 })
                }
                _ => (0, 0),
            };
            out.insert("services.loadbalancers".into(), units(balancers));
            out.insert("services.nodeports".into(), units(nodeports));
        }
        "PersistentVolumeClaim" => {
            let size = amounts::of(obj.at("spec").at("resources").at("requests")).remove("storage");
            let class = obj.at("spec").text("storageClassName");
            if let Some(size) = size {
                out.insert("requests.storage".into(), size);
                if !class.is_empty() {
                    out.insert(format!("{class}.storageclass.storage.k8s.io/requests.storage"), size);
                }
            }
            if !class.is_empty() {
                out.insert(format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), one);
            }
        }
        _ => {}
    }
    out
}

/// A pod that has ended uses nothing any more. One whose grace has run out does until it has: Kubernetes counts anew now
/// and then and may leave it out; a count that each write carries on must see what it saw before.
fn is_over(pod: &Tree) -> bool {
    matches!(pod.at("status").text("phase"), "Succeeded" | "Failed")
}

/// Whether a quota's scopes, all of them, hold for an object. Scopes other than VolumeAttributesClass
/// speak of pods only.
fn in_scope(quota: &Tree, kind: &Kind, obj: &Tree) -> bool {
    let spec = quota.at("spec");
    let plain = spec.list("scopes").iter().map(|s| (tree::text(s), "Exists", &[][..]));
    let selected = spec
        .at("scopeSelector")
        .list("matchExpressions")
        .iter()
        .map(|e| (e.text("scopeName"), e.text("operator"), e.list("values")));
    plain.chain(selected).all(|(scope, operator, values)| holds(scope, operator, values, kind, obj))
}

fn holds(scope: &str, operator: &str, values: &[Tree], kind: &Kind, obj: &Tree) -> bool {
    let spec = obj.at("spec");
    let chosen = |value: &str| match operator {
        "In" => values.iter().any(|v| v == value),
        "NotIn" => !values.iter().any(|v| v == value),
        "DoesNotExist" => value.is_empty(),
        _ => !value.is_empty(),
    };
    if scope == "VolumeAttributesClass" {
        return kind.storage == "PersistentVolumeClaim" && chosen(spec.text("volumeAttributesClassName"));
    }
    if kind.storage != "Pod" {
        return false;
    }
    match scope {
        "Terminating" => spec.int("activeDeadlineSeconds").is_some_and(|s| s >= 0),
        "NotTerminating" => spec.int("activeDeadlineSeconds").is_none_or(|s| s < 0),
        "BestEffort" => best_effort(spec),
        "NotBestEffort" => !best_effort(spec),
        "PriorityClass" => chosen(spec.text("priorityClassName")),
        "CrossNamespacePodAffinity" => crosses_namespaces(spec),
        _ => false,
    }
}

fn best_effort(spec: &Tree) -> bool {
    let none = |c: &Tree| {
        ["requests", "limits"].iter().all(|w| {
            let all = amounts::of(c.at("resources").at(w));
            ["cpu", "memory"].iter().all(|r| all.get(*r).is_none_or(|q| q.is_zero()))
        })
    };
    spec.list("containers").iter().chain(spec.list("initContainers")).all(none)
}

fn crosses_namespaces(spec: &Tree) -> bool {
    let term = |t: &Tree| !t.list("namespaces").is_empty() || t.has("namespaceSelector");
    ["podAffinity", "podAntiAffinity"].iter().any(|a| {
        let a = spec.at("affinity").at(a);
        a.list("requiredDuringSchedulingIgnoredDuringExecution").iter().any(term)
            || a.list("preferredDuringSchedulingIgnoredDuringExecution").iter().any(|w| term(w.at("podAffinityTerm")))
    })
}

/// Where a quota bounds cpu or memory, every container must say how much.
fn constraints(visit: &Visit<'_>, quota: &Tree, hard: &Amounts, obj: &Tree, name: &str) -> Outcome<()> {
    if visit.kind.storage != "Pod" {
        return Ok(());
    }
    let spec = obj.at("spec");
    // What the pod as a whole asks for is counted, whatever its containers say.
    if ["requests", "limits"].iter().any(|w| spec.at("resources").at(w).as_object().is_some_and(|m| !m.is_empty())) {
        return Ok(());
    }
    let mut missing = Vec::new();
    for resource in hard.keys() {
        let (which, plain) = match resource.as_str() {
            "cpu" | "memory" => ("requests", resource.as_str()),
            "requests.cpu" => ("requests", "cpu"),
            "requests.memory" => ("requests", "memory"),
            "limits.cpu" => ("limits", "cpu"),
            "limits.memory" => ("limits", "memory"),
            _ => continue,
        };
        let silent: Vec<&str> = spec
            .list("containers")
            .iter()
            .chain(spec.list("initContainers"))
            .filter(|c| !c.at("resources").at(which).has(plain))
            .map(|c| c.text("name"))
            .collect();
        if !silent.is_empty() {
            missing.push(format!("{resource} for: {}", silent.join(",")));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let why = format!("failed quota: {}: must specify {}", quota.at("metadata").text("name"), missing.join("; "));
    Err(Box::new(Status::forbidden(visit.kind, name, &why)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_uses_what_it_asks_for_until_it_has_ended() {
        let kind = by_resource("", "v1", "pods").unwrap();
        let mut pod = json!({"metadata": {}, "spec": {"containers": [
            {"resources": {"requests": {"cpu": "1", "x.y/gpu": "2"}, "limits": {"memory": "1Gi"}}}]}});
        let u = usage(kind, &pod);
        let show = |k: &str| u.get(k).map(Quantity::to_string);
        for (k, v) in [
            ("pods", "1"),
            ("count/pods", "1"),
            ("cpu", "1"),
            ("requests.cpu", "1"),
            ("requests.x.y/gpu", "2"),
            ("limits.memory", "1Gi"),
        ] {
            assert_eq!(show(k).as_deref(), Some(v), "{k}");
        }
        pod["metadata"] = json!({"deletionTimestamp": "2020-01-01T00:00:00Z", "deletionGracePeriodSeconds": 1});
        assert_eq!(usage(kind, &pod), u, "what was charged for it is given back when it has ended");
        pod["status"] = json!({"phase": "Succeeded"});
        assert_eq!(usage(kind, &pod).into_keys().collect::<Vec<_>>(), ["count/pods"]);
    }

    #[test]
    fn scopes_choose_pods_only_and_all_must_hold() {
        let pods = by_resource("", "v1", "pods").unwrap();
        let maps = by_resource("", "v1", "configmaps").unwrap();
        let pod = json!({"spec": {"priorityClassName": "high", "containers": [{}]}});
        let quota = |scopes: Tree, expressions: Tree| json!({"spec": {"scopes": scopes, "scopeSelector": {"matchExpressions": expressions}}});
        let high = json!([{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]);
        for (scopes, expressions, want) in [
            (json!(["BestEffort"]), json!([]), true),
            (json!(["NotBestEffort"]), json!([]), false),
            (json!(["Terminating"]), json!([]), false),
            (json!(["NotTerminating", "BestEffort"]), high.clone(), true),
            (json!(["NotBestEffort"]), high, false),
        ] {
            assert_eq!(in_scope(&quota(scopes.clone(), expressions), pods, &pod), want, "{scopes}");
        }
        assert!(!in_scope(&quota(json!(["BestEffort"]), json!([])), maps, &json!({})));
        assert!(in_scope(&quota(json!([]), json!([])), maps, &json!({})));
    }
}
