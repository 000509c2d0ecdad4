//! Nobody grants what they do not have: the check on writes of roles and bindings.

use super::{Attributes, Rule, allowed, has, path_matches, resource_matches, rules_for, rules_of_ref};
use crate::Tree;
use crate::kinds::{KINDS, Kind};
use crate::request::{User, View};
use crate::status::{Status, quote};

/// Escalation: a role may be written, and a role bound, only by who has all it gives, or may `escalate`
/// (`bind`). `new` and `old` are the objects of an RBAC write, after defaulting.
///
/// # Errors
/// 403 naming every permission that is missing; 404 if the role to be bound is not there.
pub fn check_escalation(
    kind: &Kind,
    new: &Tree,
    old: Option<&Tree>,
    user: &User,
    namespace: &str,
    view: &dyn View,
) -> Result<(), Box<Status>> {
    if kind.group != "rbac.authorization.k8s.io" || user.groups.iter().any(|g| g == "system:masters") {
        return Ok(());
    }
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    let may = |verb: &str, resource: &str, name: &str| {
        let a = Attributes {
            verb: verb.into(),
            namespace: namespace.into(),
            group: kind.group.into(),
            resource: resource.into(),
            name: name.into(),
            ..Attributes::default()
        };
        allowed(user, &a, view)
    };
    let wanted = match kind.kind {
        "Role" | "ClusterRole" => {
            if old.is_some_and(|o| o["rules"] == new["rules"] && o.get("aggregationRule") == new.get("aggregationRule"))
                || may("escalate", kind.plural, name)
            {
                return Ok(());
            }
            if kind.kind == "ClusterRole" && new.get("aggregationRule").is_some_and(|a| !a.is_null()) {
                // Whoever aggregates may come to have anything: Kubernetes asks for everything.
                vec![
                    Rule {
                        verbs: vec!["*".into()],
                        api_groups: vec!["*".into()],
                        resources: vec!["*".into()],
                        ..Rule::default()
                    },
                    Rule { verbs: vec!["*".into()], non_resource_urls: vec!["*".into()], ..Rule::default() },
                ]
            } else {
                Rule::all(new)
            }
        }
        _ => {
            if old.is_some_and(|o| o["roleRef"] == new["roleRef"] && o["subjects"] == new["subjects"]) {
                return Ok(());
            }
            let role = new["roleRef"]["name"].as_str().unwrap_or_default();
            let plural = if new["roleRef"]["kind"].as_str() == Some("ClusterRole") { "clusterroles" } else { "roles" };
            if may("bind", plural, role) {
                return Ok(());
            }
            // Whoever may not bind whatever it will be binds what is there.
            rules_of_ref(&new["roleRef"], view).ok_or_else(|| {
                let referred = KINDS.iter().find(|k| k.group == kind.group && k.plural == plural);
                Status::not_found(referred.unwrap_or(kind), role)
            })?
        }
    };
    let have = rules_for(user, namespace, view);
    let mut missing: Vec<Rule> = Vec::new();
    for one in wanted.iter().flat_map(Rule::broken_down) {
        if !have.iter().any(|h| one.covered_by(h)) {
            // Verbs missing on the same thing are told together.
            match missing.iter_mut().find(|m| {
                m.api_groups == one.api_groups
                    && m.resources == one.resources
                    && m.resource_names == one.resource_names
                    && m.non_resource_urls == one.non_resource_urls
            }) {
                Some(m) => m.verbs.extend(one.verbs),
                None => missing.push(one),
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<String> = missing.iter().map(Rule::compact).collect();
    lines.sort();
    let groups = user.groups.iter().map(|g| quote(g)).collect::<Vec<_>>().join(" ");
    let why = format!(
        "user {} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n{}",
        quote(&user.name),
        lines.join("\n")
    );
    Err(Box::new(Status::forbidden(kind, name, &why)))
}

impl Rule {
    /// Whether everything this single-valued rule allows is allowed by `owner`.
    fn covered_by(&self, owner: &Rule) -> bool {
        let all = |ours: &[String], theirs: &[String]| ours.iter().all(|x| has(theirs, x));
        if !self.non_resource_urls.is_empty() {
            return all(&self.verbs, &owner.verbs)
                && self.non_resource_urls.iter().all(|u| owner.non_resource_urls.iter().any(|o| path_matches(o, u)));
        }
        all(&self.verbs, &owner.verbs)
            && all(&self.api_groups, &owner.api_groups)
            && self.resources.iter().all(|r| {
                let (res, sub) = r.split_once('/').unwrap_or((r, ""));
                owner.resources.iter().any(|o| o == r || resource_matches(o, res, sub))
            })
            && (owner.resource_names.is_empty()
                || (!self.resource_names.is_empty()
                    && self.resource_names.iter().all(|n| owner.resource_names.contains(n))))
    }

    /// The rule as single-valued ones, so that several of an owner's rules together may cover it.
    fn broken_down(&self) -> Vec<Rule> {
        let mut out = Vec::new();
        for verb in &self.verbs {
            for url in &self.non_resource_urls {
                out.push(Rule { verbs: vec![verb.clone()], non_resource_urls: vec![url.clone()], ..Rule::default() });
            }
            for group in &self.api_groups {
                for res in &self.resources {
                    let names: Vec<Vec<String>> = match self.resource_names.as_slice() {
                        [] => vec![vec![]],
                        names => names.iter().map(|n| vec![n.clone()]).collect(),
                    };
                    for resource_names in names {
                        out.push(Rule {
                            verbs: vec![verb.clone()],
                            api_groups: vec![group.clone()],
                            resources: vec![res.clone()],
                            resource_names,
                            non_resource_urls: vec![],
                        });
                    }
                }
            }
        }
        out
    }

    /// As Kubernetes prints it in an escalation error: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
    fn compact(&self) -> String {
        let list = |v: &[String]| v.iter().map(|s| quote(s)).collect::<Vec<_>>().join(", ");
        let mut parts = Vec::new();
        for (k, v) in [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ] {
            if !v.is_empty() {
                parts.push(format!("{k}:[{}]", list(v)));
            }
        }
        format!("{{{}}}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Rule {
        let v = |x: &[&str]| x.iter().map(|s| (*s).to_owned()).collect();
        Rule {
            verbs: v(verbs),
            api_groups: v(groups),
            resources: v(resources),
            resource_names: v(names),
            non_resource_urls: vec![],
        }
    }

    #[test]
    fn a_rule_is_covered_only_by_rules_as_wide() {
        let cases = [
            (rule(&["get"], &[""], &["pods"], &["a"]), rule(&["*"], &[""], &["pods"], &[]), true),
            (rule(&["get"], &[""], &["pods"], &[]), rule(&["get"], &[""], &["pods"], &["a"]), false),
            (rule(&["*"], &[""], &["pods"], &[]), rule(&["get"], &[""], &["pods"], &[]), false),
            (rule(&["get"], &[""], &["pods/log"], &[]), rule(&["get"], &[""], &["pods"], &[]), false),
            (rule(&["get"], &[""], &["pods/log"], &[]), rule(&["get"], &[""], &["*/log"], &[]), true),
            (rule(&["get"], &["*"], &["pods"], &[]), rule(&["get"], &[""], &["pods"], &[]), false),
        ];
        for (ours, theirs, want) in cases {
            assert_eq!(ours.covered_by(&theirs), want, "{ours:?} {theirs:?}");
        }
    }
}
