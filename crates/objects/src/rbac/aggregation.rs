//! Cluster roles made of others (`aggregationRule`).

use super::{CLUSTER_ROLE, Rule, items};
use crate::Tree;
use crate::record::Stored;
use crate::request::View;
use crate::select::LabelSelector;

/// The rules a ClusterRole's `aggregationRule` gives it, in order of the selected roles' names, each once;
/// `None` if it has no such rule.
pub fn aggregated(role: &Tree, all: &[&Tree]) -> Option<Vec<Rule>> {
    let selectors: Vec<LabelSelector> = items(role.get("aggregationRule")?.get("clusterRoleSelectors")?)
        .iter()
        .filter_map(|s| LabelSelector::from_tree(s).ok())
        .collect();
    let own = role["metadata"]["name"].as_str();
    let mut chosen: Vec<&Tree> = all
        .iter()
        .copied()
        .filter(|r| r["metadata"]["name"].as_str() != own)
        .filter(|r| selectors.iter().any(|s| s.matches_tree(&r["metadata"]["labels"])))
        .collect();
    chosen.sort_by_key(|r| r["metadata"]["name"].as_str().unwrap_or_default());
    let mut out: Vec<Rule> = Vec::new();
    for rule in chosen.into_iter().flat_map(Rule::all) {
        if !out.contains(&rule) {
            out.push(rule);
        }
    }
    Some(out)
}

/// Other cluster roles that a change of one (`old` to `new`) makes different, because they aggregate it:
/// each with its rules as they become. They change in the same entry, so that no role is ever seen
/// without what it aggregates.
pub fn reaggregated(view: &dyn View, old: Option<&Tree>, new: Option<&Tree>) -> Vec<(Stored, Tree)> {
    let name = |t: &Tree| t["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let Some(changed) = new.or(old).map(name) else { return Vec::new() };
    let stored: Vec<Stored> = view.list(CLUSTER_ROLE, None).map(|(_, s)| s).collect();
    let trees: Vec<Tree> = stored.iter().map(Stored::tree).collect();
    let all: Vec<&Tree> = trees.iter().filter(|t| name(t) != changed).chain(new).collect();
    let concerned = |role: &Tree| {
        let selectors = items(&role["aggregationRule"]["clusterRoleSelectors"]);
        let chosen = |t: &Tree| {
            selectors
                .iter()
                .filter_map(|s| LabelSelector::from_tree(s).ok())
                .any(|s| s.matches_tree(&t["metadata"]["labels"]))
        };
        old.is_some_and(chosen) || new.is_some_and(chosen)
    };
    let mut out = Vec::new();
    for (stored, role) in stored.iter().zip(&trees).filter(|(_, t)| name(t) != changed && concerned(t)) {
        let Some(rules) = aggregated(role, &all) else { continue };
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
    let all: Vec<&Tree> = trees.iter().collect();
    if let Some(rules) = aggregated(role, &all) {
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
}
