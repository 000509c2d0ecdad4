//! The form of roles and bindings. What they allow is decided elsewhere.

use super::field::{self, Path};
use super::names::{self, NameRule};
use super::tree::{self, Fields};
use super::{Context, FieldError, Rules, meta, selector};
use crate::Tree;

/// Role's and ClusterRole's rules.
pub struct Role {
    /// Whether it is one namespace's.
    pub namespaced: bool,
}
/// RoleBinding's and ClusterRoleBinding's rules.
pub struct Binding {
    /// Whether it is one namespace's.
    pub namespaced: bool,
}

const GROUP: &str = "rbac.authorization.k8s.io";

impl Rules for Role {
    fn names(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let rules = Path::Root.child("rules");
        for (i, rule) in obj.list("rules").iter().enumerate() {
            policy_rule(rule, self.namespaced, &rules.index(i), errs);
        }
        if self.namespaced || !obj.has("aggregationRule") {
            return;
        }
        let parent = Path::Root.child("aggregationRule");
        let at = parent.child("clusterRoleSelectors");
        let selectors = obj.at("aggregationRule").list("clusterRoleSelectors");
        if selectors.is_empty() {
            errs.push(field::required(&at, "at least one clusterRoleSelector required if aggregationRule is non-nil"));
        }
        for (i, chosen) in selectors.iter().enumerate() {
            let before = errs.len();
            selector::validate(chosen, &at.index(i), errs);
            if errs.len() > before {
                errs.push(field::invalid(&at.index(i), &Tree::Null, "invalid label selector."));
            }
        }
    }

    fn validate_update(&self, new: &Tree, _old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        meta::again(new, self.names(), self.namespaced, errs);
        self.validate(new, cx, errs);
    }
}

fn policy_rule(rule: &Tree, namespaced: bool, at: &Path<'_>, errs: &mut Vec<FieldError>) {
    if rule.list("verbs").is_empty() {
        errs.push(field::required(&at.child("verbs"), ""));
    }
    let filled = |name: &str| !rule.list(name).is_empty();
    if filled("nonResourceURLs") {
        let (at, urls) = (at.child("nonResourceURLs"), rule.at("nonResourceURLs"));
        if namespaced {
            errs.push(field::invalid(&at, urls, "namespaced rules cannot apply to non-resource URLs"));
        }
        if filled("apiGroups") || filled("resources") || filled("resourceNames") {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errs.push(field::invalid(&at, urls, detail));
        }
        return;
    }
    if !filled("apiGroups") {
        errs.push(field::required(&at.child("apiGroups"), "resource rules must supply at least one api group"));
    }
    if !filled("resources") {
        errs.push(field::required(&at.child("resources"), "resource rules must supply at least one resource"));
    }
}

impl Rules for Binding {
    fn names(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn default(&self, obj: &mut Tree) {
        tree::default_text(tree::child(obj, "roleRef"), "apiGroup", GROUP);
        for subject in tree::items(obj, "subjects") {
            if ["User", "Group"].contains(&subject.text("kind")) {
                tree::default_text(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let (role, at) = (obj.at("roleRef"), Path::Root.child("roleRef"));
        if role.text("apiGroup") != GROUP {
            errs.push(field::not_supported(&at.child("apiGroup"), role.text("apiGroup"), &[GROUP]));
        }
        let kinds: &[&str] = if self.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        if !kinds.contains(&role.text("kind")) {
            errs.push(field::not_supported(&at.child("kind"), role.text("kind"), kinds));
        }
        if role.text("name").is_empty() {
            errs.push(field::required(&at.child("name"), ""));
        } else {
            field::each(&at.child("name"), role.text("name"), |s| names::path_segment(s, false), errs);
        }
        let subjects = Path::Root.child("subjects");
        for (i, subject) in obj.list("subjects").iter().enumerate() {
            self.subject(subject, &subjects.index(i), errs);
        }
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        meta::again(new, self.names(), self.namespaced, errs);
        self.validate(new, cx, errs);
        if !tree::same(new.at("roleRef"), old.at("roleRef")) {
            let shown = super::node::GoStruct(new.at("roleRef"), &["apiGroup", "kind", "name"]);
            let shown = GoNames(field::Shown::shown(&shown));
            errs.push(field::invalid(&Path::Root.child("roleRef"), shown, field::IMMUTABLE));
        }
    }
}

/// JSON whose names are turned into those of Kubernetes' internal types.
struct GoNames(String);
impl field::Shown for GoNames {
    fn shown(&self) -> String {
        self.0
            .replace("\"apiGroup\":", "\"APIGroup\":")
            .replace("\"kind\":", "\"Kind\":")
            .replace("\"name\":", "\"Name\":")
    }
}

impl Binding {
    fn subject(&self, subject: &Tree, at: &Path<'_>, errs: &mut Vec<FieldError>) {
        let (name, group) = (subject.text("name"), subject.text("apiGroup"));
        if name.is_empty() {
            errs.push(field::required(&at.child("name"), ""));
        }
        match subject.text("kind") {
            "ServiceAccount" => {
                if !name.is_empty() {
                    field::each(&at.child("name"), name, names::subdomain, errs);
                }
                if !group.is_empty() {
                    errs.push(field::not_supported(&at.child("apiGroup"), group, &[""]));
                }
                if !self.namespaced && subject.text("namespace").is_empty() {
                    errs.push(field::required(&at.child("namespace"), ""));
                }
            }
            "User" | "Group" => {
                if group != GROUP {
                    errs.push(field::not_supported(&at.child("apiGroup"), group, &[GROUP]));
                }
            }
            kind => errs.push(field::not_supported(&at.child("kind"), kind, &["ServiceAccount", "User", "Group"])),
        }
    }
}
