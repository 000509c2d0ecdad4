//! Authorisation: role-based access control as Kubernetes evaluates it.
//!
//! Cluster roles and their bindings are made ready once per change of the bundle ([`ClusterPolicy`]);
//! a namespace's roles and bindings are read from its cell. Permissions only add up: there is no deny.

mod aggregation;
mod escalation;
pub mod node;

pub use aggregation::{aggregate, aggregated, reaggregated};
pub use escalation::check_escalation;

use crate::Tree;
use crate::request::{Request, User, Verb, View};
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
    /// The field selector of a list, a watch or a deletecollection, unparsed.
    pub field_selector: String,
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
            field_selector: req.options.field_selector.clone(),
        }
    }

    /// What a request must be allowed besides: a WebSocket begins as a GET, and to run something in a container is more
    /// than to read. As of Kubernetes 1.35 both verbs are needed (feature gate
    /// AuthorizePodWebsocketUpgradeCreatePermission).
    pub fn besides(req: &Request) -> Option<Attributes> {
        let runs = matches!(&*req.subresource, "exec" | "attach" | "portforward");
        (runs && req.verb == Verb::Get)
            .then(|| Attributes { verb: Verb::Create.as_str().into(), ..Attributes::of(req) })
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
            // Names alone: `*` is a name like any other, and everybody is the group system:authenticated.
            Subject::User(n) => *n == user.name,
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
        let mut rules = aggregated(&all);
        let of = |r: &&Tree| {
            let name = name(r);
            let rules = rules.remove(&name).unwrap_or_else(|| Rule::all(r));
            (name, Arc::new(rules))
        };
        let roles = all.iter().map(of).collect();
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

/// Whether a user may do this, by RBAC as the view knows it. `namespace` rules come from the view's own
/// cell, so a namespace's requests must be asked of its cell.
pub fn allowed(user: &User, a: &Attributes, view: &dyn View) -> bool {
    if user.groups.iter().any(|g| g == "system:masters") {
        return true;
    }
    if node::identity(user).is_some_and(|n| node::allows(n, user, a, view).is_ok()) {
        return true;
    }
    let policy = view.shared().policy();
    if policy.rules(user).any(|r| r.allows(a)) {
        return true;
    }
    !a.namespace.is_empty() && namespace_rules(user, &a.namespace, view).iter().any(|r| r.allows(a))
}

/// Why a user may do this: empty for system:masters and nodes, the binding's words for anybody else; `None` if
/// they may not.
pub fn reason(user: &User, a: &Attributes, view: &dyn View) -> Option<String> {
    if user.groups.iter().any(|g| g == "system:masters") {
        return Some(String::new());
    }
    if node::identity(user).is_some_and(|n| node::allows(n, user, a, view).is_ok()) {
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
            && rules_of_ref(&b["roleRef"], view).iter().flatten().any(|r| r.allows(a))
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
    if allowed(user, a, view) {
        return Ok(());
    }
    let why = match refused_because(user, a, view) {
        Some(more) => format!("{}: {more}", a.refusal(user)),
        None => a.refusal(user),
    };
    Err(Box::new(Status::forbidden_resource(&a.group, &a.resource, &a.name, &why)))
}

/// What there is to say of a refusal besides that no rule allows it: the node authorizer's words.
pub fn refused_because(user: &User, a: &Attributes, view: &dyn View) -> Option<String> {
    node::allows(node::identity(user)?, user, a, view).err().filter(|why| !why.is_empty())
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
            out.extend(rules_of_ref(&b["roleRef"], view).into_iter().flatten());
        }
    }
    out
}

/// The rules of a role that is referred to, if it is there.
fn rules_of_ref(role_ref: &Tree, view: &dyn View) -> Option<Vec<Rule>> {
    let name = role_ref["name"].as_str().unwrap_or_default();
    match role_ref["kind"].as_str() {
        Some("ClusterRole") => view.shared().policy().role(name).map(<[Rule]>::to_vec),
        _ => view.get(ROLE, name).map(|s| Rule::all(&s.tree())),
    }
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
    fn a_binding_speaks_of_whom_it_names_and_of_nobody_else() {
        let user = User { name: "ann".into(), groups: vec!["qa".into()], ..User::default() };
        for (kind, name, want) in [
            ("User", "ann", true),
            ("User", "*", false),
            ("User", "qa", false),
            ("Group", "qa", true),
            ("Group", "*", false),
            ("Group", "ann", false),
        ] {
            let binding = json!({"subjects": [{"kind": kind, "name": name}]});
            assert_eq!(Subject::all(&binding, "").iter().any(|s| s.is(&user)), want, "{kind} {name}");
        }
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
}
