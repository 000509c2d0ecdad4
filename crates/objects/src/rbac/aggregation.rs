//! Cluster roles made of others (`aggregationRule`).

use super::{CLUSTER_ROLE, Rule, items};
use crate::Tree;
use crate::record::Stored;
use crate::request::View;
use crate::select::LabelSelector;
use std::collections::BTreeMap;

/// The rules that `aggregationRule`s give the cluster roles that have one, by their names: those of all roles they
/// select, in the order of their names, each once. Where a selected role aggregates itself, what counts is what it
/// comes to have, never the `rules` it was written with: so what a role loses, all lose that have it through others.
pub fn aggregated(all: &[&Tree]) -> BTreeMap<String, Vec<Rule>> {
    let chosen = |role: &Tree| {
        let selectors = selectors(role)?;
        let of =
            |r: &&Tree| name(r) != name(role) && selectors.iter().any(|s| s.matches_tree(&r["metadata"]["labels"]));
        let mut chosen: Vec<&Tree> = all.iter().copied().filter(of).collect();
        chosen.sort_by_key(|r| name(r));
        Some(chosen)
    };
    let roles: BTreeMap<&str, Vec<&Tree>> = all.iter().filter_map(|r| Some((name(r), chosen(r)?))).collect();
    let mut rules: BTreeMap<&str, Vec<Rule>> = roles.keys().map(|name| (*name, Vec::new())).collect();
    loop {
        let collect = |chosen: &Vec<&Tree>| {
            let mut out: Vec<Rule> = Vec::new();
            for role in chosen {
                let of = rules.get(name(role)).cloned().unwrap_or_else(|| Rule::all(role));
                for rule in of {
                    if !out.contains(&rule) {
                        out.push(rule);
                    }
                }
            }
            out
        };
        let next: BTreeMap<&str, Vec<Rule>> = roles.iter().map(|(name, chosen)| (*name, collect(chosen))).collect();
        // Each has what it had and perhaps more, also where two select each other.
        let grown = next.iter().any(|(name, of)| of.len() > rules[name].len());
        rules = next;
        if !grown {
            return rules.into_iter().map(|(name, of)| (name.to_owned(), of)).collect();
        }
    }
}

fn name(role: &Tree) -> &str {
    role["metadata"]["name"].as_str().unwrap_or_default()
}

fn selectors(role: &Tree) -> Option<Vec<LabelSelector>> {
    let all = items(role.get("aggregationRule")?.get("clusterRoleSelectors")?);
    Some(all.iter().filter_map(|s| LabelSelector::from_tree(s).ok()).collect())
}

/// Other cluster roles that a change of one (`old` to `new`) makes different, because they aggregate it, or one that
/// does: each with its rules as they become. They change in the same entry, so that no role is ever seen
/// without what it aggregates.
pub fn reaggregated(view: &dyn View, old: Option<&Tree>, new: Option<&Tree>) -> Vec<(Stored, Tree)> {
    let Some(changed) = new.or(old).map(name) else { return Vec::new() };
    let stored: Vec<Stored> = view.list(CLUSTER_ROLE, None).map(|(_, s)| s).collect();
    let trees: Vec<Tree> = stored.iter().map(Stored::tree).collect();
    let selects = |role: &Tree| {
        let labels =
            |t: &Tree| selectors(role).unwrap_or_default().iter().any(|s| s.matches_tree(&t["metadata"]["labels"]));
        old.is_some_and(labels) || new.is_some_and(labels)
    };
    if !trees.iter().any(selects) {
        return Vec::new();
    }
    let all: Vec<&Tree> = trees.iter().filter(|t| name(t) != changed).chain(new).collect();
    let mut rules = aggregated(&all);
    let mut out = Vec::new();
    for (stored, role) in stored.iter().zip(&trees).filter(|(_, t)| name(t) != changed) {
        let Some(rules) = rules.remove(name(role)) else { continue };
        if rules != Rule::all(role) {
            let mut role = role.clone();
            role["rules"] = Tree::Array(rules.iter().map(Rule::to_tree).collect());
            out.push((stored.clone(), role));
        }
    }
    out
}

/// Gives a cluster role that aggregates its rules, whatever was sent as such.
pub fn aggregate(view: &dyn View, role: &mut Tree) {
    if !role["aggregationRule"].is_object() {
        return;
    }
    let trees: Vec<Tree> = view.list(CLUSTER_ROLE, None).map(|(_, s)| s.tree()).collect();
    let all: Vec<&Tree> = trees.iter().filter(|t| name(t) != name(role)).chain([&*role]).collect();
    if let Some(rules) = aggregated(&all).remove(name(role)) {
        role["rules"] = Tree::Array(rules.iter().map(Rule::to_tree).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Attributes, ClusterPolicy};
    use super::*;
    use crate::request::User;
    use serde_json::json;

    fn ask(verb: &str, group: &str, resource: &str, sub: &str, name: &str) -> Attributes {
        Attributes {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: sub.into(),
            name: name.into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn aggregation_collects_the_selected_roles_rules_once() {
        let view = json!({"metadata":{"name":"view"},"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"to":"view"}}]},"rules":[]});
        let b = json!({"metadata":{"name":"b","labels":{"to":"view"}},"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["pods"]}]});
        let a = json!({"metadata":{"name":"a","labels":{"to":"view"}},"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["pods"]},{"verbs":["list"],"apiGroups":[""],"resources":["pods"]}]});
        let c = json!({"metadata":{"name":"c"},"rules":[{"verbs":["*"],"apiGroups":[""],"resources":["secrets"]}]});
        let binding = json!({"roleRef":{"kind":"ClusterRole","name":"view"},"subjects":[{"kind":"Group","name":"g"}]});
        let p = ClusterPolicy::new([&view, &b, &a, &c].into_iter(), [&binding].into_iter());
        assert_eq!(p.role("view").map(<[Rule]>::len), Some(2));
        let user = User { name: "u".into(), groups: vec!["g".into()], ..User::default() };
        assert!(p.rules(&user).any(|r| r.allows(&ask("list", "", "pods", "", ""))));
        assert!(!p.rules(&user).any(|r| r.allows(&ask("get", "", "secrets", "", ""))));
    }

    #[test]
    fn what_is_aggregated_through_others_is_what_they_come_to_have() {
        let aggregates = |name: &str, of: &str, to: &str| {
            json!({"metadata": {"name": name, "labels": {to: "true"}}, "aggregationRule": {"clusterRoleSelectors": [
                {"matchLabels": {of: "true"}}]}, "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["stale"]}]})
        };
        let (view, edit) = (aggregates("view", "to-view", "to-edit"), aggregates("edit", "to-edit", "to-admin"));
        let admin = aggregates("admin", "to-admin", "to-view");
        let own = json!({"metadata": {"name": "x", "labels": {"to-view": "true"}},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["bees"]}]});
        // A circle, too: admin is part of view.
        let rules = aggregated(&[&view, &edit, &admin, &own]);
        for name in ["view", "edit", "admin"] {
            assert_eq!(rules[name], Rule::all(&own), "{name}");
        }
        assert!(aggregated(&[&view, &edit, &admin]).values().all(Vec::is_empty));
    }
}
