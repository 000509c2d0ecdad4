//! Authorisation: role-based access control as Kubernetes evaluates it.
//!
//! Cluster roles and their bindings are made ready once per change of the bundle ([`ClusterPolicy`]);
//! a namespace's roles and bindings are read from its cell. Permissions only add up: there is no deny.

use crate::Tree;
use crate::kinds::Kind;
use crate::record::Stored;
use crate::request::{Request, User, Verb, View};
use crate::select::LabelSelector;
use crate::status::{Status, quote};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Storage names of the four RBAC kinds.
pub const ROLE: &str = "Role.rbac.authorization.k8s.io";
/// See [`ROLE`].
pub const ROLE_BINDING: &str = "RoleBinding.rbac.authorization.k8s.io";
/// See [`ROLE`].
pub const CLUSTER_ROLE: &str = "ClusterRole.rbac.authorization.k8s.io";
/// See [`ROLE`].
pub const CLUSTER_ROLE_BINDING: &str = "ClusterRoleBinding.rbac.authorization.k8s.io";

/// What somebody wants to do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Attributes {
    /// RBAC verb (`get`, `list`, `use`, `escalate`, …).
    pub verb: String,
    /// Namespace; empty for cluster-scoped things and for all namespaces.
    pub namespace: String,
    /// API group.
    pub group: String,
    /// Resource, plural; empty when `path` is asked about.
    pub resource: String,
    /// Subresource; may be empty.
    pub subresource: String,
    /// Object name; empty if none or not known.
    pub name: String,
    /// A path that is no resource: `/metrics`.
    pub path: String,
}

impl Attributes {
    /// What a request wants to do.
    pub fn of(req: &Request) -> Attributes {
        Attributes {
            verb: req.verb.as_str().into(),
            namespace: req.namespace.as_deref().unwrap_or_default().into(),
            group: req.kind.group.into(),
            resource: req.kind.plural.into(),
            subresource: req.subresource.as_ref().into(),
            // A list or watch of one name by field selector counts as one about that name.
            name: match (&req.name, req.verb) {
                (Some(n), _) => n.as_ref().into(),
                (None, Verb::List | Verb::Watch | Verb::DeleteCollection) => {
                    crate::select::name_in_field_selector(&req.options.field_selector).unwrap_or_default()
                }
                (None, _) => String::new(),
            },
            path: String::new(),
        }
    }

    /// `verb path`: of a request that is about no resource.
    pub fn path(verb: &str, path: &str) -> Attributes {
        Attributes { verb: verb.into(), path: path.into(), ..Attributes::default() }
    }

    fn resource_and_sub(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// Why a user is refused, in Kubernetes' words: `User "x" cannot get resource …`.
    pub fn refusal(&self, user: &User) -> String {
        let who = quote(&user.name);
        if !self.path.is_empty() {
            return format!("User {who} cannot {} path {}", self.verb, quote(&self.path));
        }
        let place = match self.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            ns => format!("in the namespace {}", quote(ns)),
        };
        format!(
            "User {who} cannot {} resource {} in API group {} {place}",
            self.verb,
            quote(&self.resource_and_sub()),
            quote(&self.group)
        )
    }

    /// The 403 of a refusal.
    pub fn forbidden(&self, user: &User) -> Status {
        Status::forbidden_resource(&self.group, &self.resource, &self.name, &self.refusal(user))
    }
}

/// One PolicyRule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Rule {
    /// Verbs, or `*`.
    pub verbs: Vec<String>,
    /// API groups, or `*`.
    pub api_groups: Vec<String>,
    /// Resources: `pods`, `pods/log`, `*`, `*/scale`.
    pub resources: Vec<String>,
    /// Names; none means all.
    pub resource_names: Vec<String>,
    /// Paths, or prefixes that end in `*`.
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    fn of(tree: &Tree) -> Rule {
        let texts =
            |f: &str| -> Vec<String> { items(&tree[f]).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect() };
        Rule {
            verbs: texts("verbs"),
            api_groups: texts("apiGroups"),
            resources: texts("resources"),
            resource_names: texts("resourceNames"),
            non_resource_urls: texts("nonResourceURLs"),
        }
    }

    /// All rules of a Role or ClusterRole.
    pub fn all(role: &Tree) -> Vec<Rule> {
        items(&role["rules"]).iter().map(Rule::of).collect()
    }

    /// Whether it allows this.
    pub fn allows(&self, a: &Attributes) -> bool {
        if !has(&self.verbs, &a.verb) {
            return false;
        }
        if !a.path.is_empty() {
            return self.non_resource_urls.iter().any(|u| path_matches(u, &a.path));
        }
        has(&self.api_groups, &a.group)
            && self.resources.iter().any(|r| resource_matches(r, &a.resource, &a.subresource))
            && (self.resource_names.is_empty() || self.resource_names.contains(&a.name))
    }

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

    /// As a tree for a review's answer, empty lists left out.
    pub fn to_tree(&self) -> Tree {
        let mut m = crate::Map::new();
        for (k, v) in [
            ("verbs", &self.verbs),
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ] {
            if !v.is_empty() {
                m.insert(k.into(), json!(v));
            }
        }
        Tree::Object(m)
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

/// Whom a binding speaks of.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Subject {
    User(String),
    Group(String),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // A ServiceAccount is named as bindings name it.
            Subject::User(n) => match n.strip_prefix("system:serviceaccount:").and_then(|n| n.split_once(':')) {
                Some((ns, name)) => write!(f, "ServiceAccount {}", quote(&format!("{name}/{ns}"))),
                None => write!(f, "User {}", quote(n)),
            },
            Subject::Group(g) => write!(f, "Group {}", quote(g)),
        }
    }
}

impl Subject {
    fn all(binding: &Tree, namespace: &str) -> Vec<Subject> {
        let text = |v: &Tree| v.as_str().unwrap_or_default().to_owned();
        items(&binding["subjects"])
            .iter()
            .filter_map(|s| match s["kind"].as_str()? {
                "User" => Some(Subject::User(text(&s["name"]))),
                "Group" => Some(Subject::Group(text(&s["name"]))),
                "ServiceAccount" => {
                    let ns = s["namespace"].as_str().filter(|n| !n.is_empty()).unwrap_or(namespace);
                    if ns.is_empty() {
                        return None;
                    }
                    Some(Subject::User(format!("system:serviceaccount:{ns}:{}", text(&s["name"]))))
                }
                _ => None,
            })
            .collect()
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Subject::User(n) => *n == user.name || (n == "*" && user.name != "system:anonymous"),
            Subject::Group(g) => user.groups.contains(g),
        }
    }
}

/// Cluster roles, aggregated, and cluster role bindings, ready to be asked.
#[derive(Debug, Default)]
pub struct ClusterPolicy {
    roles: BTreeMap<String, Arc<Vec<Rule>>>,
    bindings: Vec<Binding>,
}

#[derive(Debug)]
struct Binding {
    name: String,
    subjects: Vec<Subject>,
    role: String,
}

impl ClusterPolicy {
    /// From all ClusterRoles and ClusterRoleBindings. A role with an aggregation rule has the rules of
    /// all roles it selects, whatever its own `rules` say.
    pub fn new<'a>(
        roles: impl Iterator<Item = &'a Tree> + Clone,
        bindings: impl Iterator<Item = &'a Tree>,
    ) -> ClusterPolicy {
        let name = |t: &Tree| t["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let all: Vec<&Tree> = roles.collect();
        let roles =
            all.iter().map(|r| (name(r), Arc::new(aggregated(r, &all).unwrap_or_else(|| Rule::all(r))))).collect();
        let bindings = bindings
            .map(|b| Binding {
                name: name(b),
                subjects: Subject::all(b, ""),
                role: b["roleRef"]["name"].as_str().unwrap_or_default().to_owned(),
            })
            .collect();
        ClusterPolicy { roles, bindings }
    }

    /// The rules of a cluster role.
    pub fn role(&self, name: &str) -> Option<&[Rule]> {
        self.roles.get(name).map(|r| r.as_slice())
    }

    fn rules<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Rule> {
        self.bindings
            .iter()
            .filter(|b| b.subjects.iter().any(|s| s.is(user)))
            .filter_map(|b| self.role(&b.role))
            .flatten()
    }
}

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

/// Whether a user may do this, by RBAC as the view knows it. `namespace` rules come from the view's own
/// cell, so a namespace's requests must be asked of its cell.
pub fn allowed(user: &User, a: &Attributes, view: &dyn View) -> bool {
    if user.groups.iter().any(|g| g == "system:masters") {
        return true;
    }
    let policy = view.shared().policy();
    if policy.rules(user).any(|r| r.allows(a)) {
        return true;
    }
    !a.namespace.is_empty() && namespace_rules(user, &a.namespace, view).iter().any(|r| r.allows(a))
}

/// Why a user may do this: empty for system:masters, the binding's words for anybody else; `None` if they
/// may not.
pub fn reason(user: &User, a: &Attributes, view: &dyn View) -> Option<String> {
    if user.groups.iter().any(|g| g == "system:masters") {
        return Some(String::new());
    }
    let policy = view.shared().policy();
    for b in &policy.bindings {
        if let Some(s) = b.subjects.iter().find(|s| s.is(user))
            && policy.role(&b.role).is_some_and(|rules| rules.iter().any(|r| r.allows(a)))
        {
            return Some(format!(
                "RBAC: allowed by ClusterRoleBinding {} of ClusterRole {} to {s}",
                quote(&b.name),
                quote(&b.role)
            ));
        }
    }
    if a.namespace.is_empty() {
        return None;
    }
    for (name, stored) in view.list(ROLE_BINDING, None) {
        let b = stored.tree();
        let subjects = Subject::all(&b, &a.namespace);
        if let Some(s) = subjects.iter().find(|s| s.is(user))
            && rules_of_ref(&b["roleRef"], view).iter().any(|r| r.allows(a))
        {
            return Some(format!(
                "RBAC: allowed by RoleBinding {} of {} {} to {s}",
                quote(&format!("{name}/{}", a.namespace)),
                b["roleRef"]["kind"].as_str().unwrap_or_default(),
                quote(b["roleRef"]["name"].as_str().unwrap_or_default())
            ));
        }
    }
    None
}

/// Refuses what a user may not do.
///
/// # Errors
/// 403 in Kubernetes' words.
pub fn authorize(user: &User, a: &Attributes, view: &dyn View) -> Result<(), Box<Status>> {
    if allowed(user, a, view) { Ok(()) } else { Err(Box::new(a.forbidden(user))) }
}

/// All rules a user has in a namespace (cluster-wide ones among them), for SelfSubjectRulesReview.
pub fn rules_for(user: &User, namespace: &str, view: &dyn View) -> Vec<Rule> {
    let mut out: Vec<Rule> = view.shared().policy().rules(user).cloned().collect();
    if !namespace.is_empty() {
        out.extend(namespace_rules(user, namespace, view));
    }
    out
}

fn namespace_rules(user: &User, namespace: &str, view: &dyn View) -> Vec<Rule> {
    let mut out = Vec::new();
    for (_, stored) in view.list(ROLE_BINDING, None) {
        let b = stored.tree();
        if Subject::all(&b, namespace).iter().any(|s| s.is(user)) {
            out.extend(rules_of_ref(&b["roleRef"], view));
        }
    }
    out
}

fn rules_of_ref(role_ref: &Tree, view: &dyn View) -> Vec<Rule> {
    let name = role_ref["name"].as_str().unwrap_or_default();
    match role_ref["kind"].as_str() {
        Some("ClusterRole") => view.shared().policy().role(name).map(<[Rule]>::to_vec).unwrap_or_default(),
        _ => view.get(ROLE, name).map(|s| Rule::all(&s.tree())).unwrap_or_default(),
    }
}

/// Escalation: a role may be written, and a role bound, only by who has all it gives, or may `escalate`
/// (`bind`). `new` and `old` are the objects of an RBAC write, after defaulting.
///
/// # Errors
/// 403 naming every permission that is missing.
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
            rules_of_ref(&new["roleRef"], view)
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

fn items(v: &Tree) -> &[Tree] {
    v.as_array().map_or(&[], Vec::as_slice)
}

fn has(list: &[String], x: &str) -> bool {
    list.iter().any(|l| l == "*" || l == x)
}

fn path_matches(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || rule.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

/// `*` is every resource and subresource, `*/sub` one subresource of all, anything else itself.
fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    let (r, s) = rule.split_once('/').unwrap_or((rule, ""));
    s == subresource && (r == resource || (r == "*" && !s.is_empty()))
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
    fn a_rule_allows_what_it_says_and_no_more() {
        let cases = [
            (rule(&["get"], &[""], &["pods"], &[]), ask("get", "", "pods", "", "x"), true),
            (rule(&["get"], &[""], &["pods"], &[]), ask("get", "", "pods", "log", "x"), false),
            (rule(&["get"], &[""], &["pods/log"], &[]), ask("get", "", "pods", "log", "x"), true),
            (rule(&["get"], &[""], &["pods/log"], &[]), ask("get", "", "pods", "", "x"), false),
            (rule(&["*"], &["*"], &["*"], &[]), ask("get", "apps", "deployments", "scale", ""), true),
            (rule(&["update"], &["*"], &["*/scale"], &[]), ask("update", "apps", "deployments", "scale", ""), true),
            (rule(&["update"], &["*"], &["*/scale"], &[]), ask("update", "apps", "deployments", "", ""), false),
            (rule(&["get"], &[""], &["pods"], &["a"]), ask("get", "", "pods", "", "a"), true),
            (rule(&["get"], &[""], &["pods"], &["a"]), ask("get", "", "pods", "", "b"), false),
            (rule(&["list"], &[""], &["pods"], &["a"]), ask("list", "", "pods", "", ""), false),
            (rule(&["get"], &["apps"], &["pods"], &[]), ask("get", "", "pods", "", ""), false),
        ];
        for (rule, a, want) in cases {
            assert_eq!(rule.allows(&a), want, "{rule:?} {a:?}");
        }
        let urls = Rule { verbs: vec!["get".into()], non_resource_urls: vec!["/healthz/*".into()], ..Rule::default() };
        assert!(urls.allows(&Attributes::path("get", "/healthz/etcd")));
        assert!(!urls.allows(&Attributes::path("get", "/healthz")));
        assert!(!urls.allows(&Attributes::path("post", "/healthz/etcd")));
    }

    #[test]
    fn refusals_are_worded_as_kubernetes_words_them() {
        let user = User { name: "nobody".into(), ..User::default() };
        let a = Attributes { namespace: "gold".into(), ..ask("get", "", "pods", "log", "m") };
        assert_eq!(
            a.forbidden(&user).message,
            r#"pods "m" is forbidden: User "nobody" cannot get resource "pods/log" in API group "" in the namespace "gold""#
        );
        assert_eq!(
            Attributes::path("get", "/metrics").forbidden(&user).message,
            r#"forbidden: User "nobody" cannot get path "/metrics""#
        );
        assert_eq!(
            ask("list", "apps", "deployments", "", "").refusal(&user),
            r#"User "nobody" cannot list resource "deployments" in API group "apps" at the cluster scope"#
        );
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
