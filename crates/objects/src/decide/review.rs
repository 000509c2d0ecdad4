//! Reviews: questions that are answered and not stored.

use super::{Outcome, Visit};
use crate::Tree;
use crate::decision::{Decision, Payload};
use crate::kinds::tree::{self, Fields};
use crate::owned;
use crate::rbac::{self, Attributes, Rule};
use crate::request::User;
use crate::select::escape;
use crate::status::{Status, invalid, required};
use serde_json::json;

impl Visit<'_> {
    pub(super) fn review(&mut self) -> Outcome<Decision> {
        let mut review = self.body()?;
        if self.kind.kind.ends_with("AccessReview") {
            owned::track_act(self, self.kind.type_name, &mut review);
        }
        match self.kind.kind {
            "SelfSubjectReview" => {
                let user = &self.req.user;
                let mut info = json!({"username": user.name, "groups": user.groups});
                if !user.uid.is_empty() {
                    tree::set(&mut info, "uid", user.uid.as_str());
                }
                if !user.extra.is_empty() {
                    let extra: crate::Map = user.extra.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
                    tree::set(&mut info, "extra", extra);
                }
                tree::set(&mut review, "metadata", json!({"creationTimestamp": self.env.now.rfc3339()}));
                tree::set(&mut review, "status", json!({"userInfo": info}));
            }
            "SelfSubjectAccessReview" => {
                let user = (*self.req.user).clone();
                self.access(&mut review, &user)?;
            }
            "SubjectAccessReview" | "LocalSubjectAccessReview" => {
                let spec = review.at("spec");
                let texts = |f: &str| spec.list(f).iter().map(|v| tree::text(v).to_owned()).collect::<Vec<_>>();
                let user = User {
                    name: spec.text("user").into(),
                    uid: spec.text("uid").into(),
                    groups: texts("groups"),
                    extra: Vec::new(),
                };
                if user.name.is_empty() && user.groups.is_empty() {
                    let e = required("spec.user", "at least one of user or group must be specified");
                    return Err(Box::new(Status::invalid(self.kind, "", &[e])));
                }
                if self.kind.kind == "LocalSubjectAccessReview" {
                    let asked = spec.at("resourceAttributes").text("namespace");
                    if asked != self.namespace() {
                        let e = invalid(
                            "spec.resourceAttributes.namespace",
                            &json!(asked),
                            "must match metadata.namespace",
                        );
                        return Err(Box::new(Status::invalid(self.kind, "", &[e])));
                    }
                }
                self.access(&mut review, &user)?;
            }
            "SelfSubjectRulesReview" => {
                let namespace = review.at("spec").text("namespace").to_owned();
                if namespace.is_empty() {
                    return Err(Box::new(Status::bad_request("no namespace on request")));
                }
                let mut rules = rbac::rules_for(&self.req.user, &namespace, self.view);
                if self.req.user.groups.iter().any(|g| g == "system:masters")
                    && !rules.iter().any(|r| r.verbs == ["*"] && r.resources == ["*"])
                {
                    // The group is all-powerful even where no binding says so.
                    let all = || vec!["*".to_owned()];
                    rules.push(Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() });
                    rules.push(Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() });
                }
                let (paths, resources): (Vec<&Rule>, Vec<&Rule>) =
                    rules.iter().partition(|r| !r.non_resource_urls.is_empty());
                let trees = |rules: Vec<&Rule>| Tree::Array(rules.into_iter().map(Rule::to_tree).collect());
                tree::set(&mut review, "metadata", json!({}));
                tree::set(&mut review, "spec", json!({}));
                let mut status =
                    json!({"resourceRules": trees(resources), "nonResourceRules": trees(paths), "incomplete": false});
                if rbac::node::identity(&self.req.user).is_some() {
                    tree::set(&mut status, "incomplete", true);
                    tree::set(&mut status, "evaluationError", "node authorizer does not support user rule resolution");
                }
                tree::set(&mut review, "status", status);
            }
            _ => return Err(Box::new(Status::method_not_allowed())),
        }
        tree::default_to(&mut review, "metadata", json!({}));
        Ok(self.answer(201, Payload::Tree(review)))
    }

    fn access(&self, review: &mut Tree, user: &User) -> Outcome<()> {
        let spec = review.at("spec");
        let (resource, path) = (spec.at("resourceAttributes"), spec.at("nonResourceAttributes"));
        let attributes = match (resource.is_null(), path.is_null()) {
            (false, true) => Attributes {
                verb: resource.text("verb").into(),
                namespace: resource.text("namespace").into(),
                group: resource.text("group").into(),
                resource: resource.text("resource").into(),
                subresource: resource.text("subresource").into(),
                name: resource.text("name").into(),
                path: String::new(),
                field_selector: field_selector(resource.at("fieldSelector")),
            },
            (true, false) => Attributes::path(path.text("verb"), path.text("path")),
            (both, _) => {
                let (value, detail) = if both {
                    (Tree::Null, "exactly one of nonResourceAttributes or resourceAttributes must be specified")
                } else {
                    (path.clone(), "cannot be specified in combination with resourceAttributes")
                };
                let field = if both { "spec.resourceAttributes" } else { "spec.nonResourceAttributes" };
                return Err(Box::new(Status::invalid(self.kind, "", &[invalid(field, &value, detail)])));
            }
        };
        let mut status = json!({"allowed": false});
        if let Some(reason) = rbac::reason(user, &attributes, self.view) {
            tree::set(&mut status, "allowed", true);
            if !reason.is_empty() {
                tree::set(&mut status, "reason", reason);
            }
        } else if let Some(why) = rbac::refused_because(user, &attributes, self.view) {
            tree::set(&mut status, "reason", why);
        }
        tree::set(review, "status", status);
        tree::default_to(review, "metadata", json!({}));
        Ok(())
    }
}

/// The field selector of a review as a request would have it: what it asks to be equal.
fn field_selector(asked: &Tree) -> String {
    let equal = |r: &Tree| match (r.text("operator"), r.list("values")) {
        ("In", [value]) => Some(format!("{}={}", r.text("key"), escape(tree::text(value)))),
        _ => None,
    };
    match asked.text("rawSelector") {
        "" => asked.list("requirements").iter().filter_map(equal).collect::<Vec<_>>().join(","),
        raw => raw.to_owned(),
    }
}
