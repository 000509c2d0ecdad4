//! Kinds with a handful of rules: leases, priority classes, scales, evictions, and what is only asked.

use super::field::{self, Path};
use super::names::NameRule;
use super::pod::volumes;
use super::tree::{self, Fields};
use super::{Context, FieldError, Rules};
use crate::Tree;

/// Lease's rules.
pub struct Lease;
/// PriorityClass's rules.
pub struct PriorityClass;
/// Scale's rules.
pub struct Scale;
/// Eviction's rules.
pub struct Eviction;
/// TokenRequest's rules.
pub struct TokenRequest;
/// Rules of the reviews that ask about access.
pub struct AccessReview {
    /// Whether somebody other than the one who asks is meant.
    pub subject: bool,
}
/// Rules of what has neither name nor fields to check.
pub struct Review;

const SPEC: Path<'static> = Path::Child(&Path::Root, "spec");

impl Rules for Lease {
    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let spec = obj.at("spec");
        if let Some(seconds) = spec.int("leaseDurationSeconds").filter(|s| *s <= 0) {
            errs.push(field::invalid(&SPEC.child("leaseDurationSeconds"), seconds, "must be greater than 0"));
        }
        field::not_negative(&SPEC.child("leaseTransitions"), spec.int("leaseTransitions"), errs);
        let strategy = spec.text("strategy");
        if spec.has("strategy") && strategy != "OldestEmulationVersion" && !strategy.contains('/') {
            errs.push(field::not_supported(&SPEC.child("strategy"), strategy, &["OldestEmulationVersion"]));
        }
        if !spec.text("preferredHolder").is_empty() && strategy.is_empty() {
            let detail = "may only be specified if `strategy` is defined";
            errs.push(field::forbidden(&SPEC.child("preferredHolder"), detail));
        }
    }
}

/// The highest priority a user's class may have.
const HIGHEST: i64 = 1_000_000_000;

impl Rules for PriorityClass {
    fn default(&self, obj: &mut Tree) {
        tree::default_to(obj, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn prepare_create(&self, obj: &mut Tree, _cx: &Context<'_>) {
        tree::set(tree::child(obj, "metadata"), "generation", 1);
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let name = obj.at("metadata").text("name");
        let value = obj.int("value").unwrap_or(0);
        if name.starts_with("system-") {
            let known = match name {
                "system-node-critical" => Some(2_000_001_000),
                "system-cluster-critical" => Some(2_000_000_000),
                _ => None,
            };
            let problem = match known {
                None => Some(format!("{name} is not a known system priority class")),
                Some(k) if k != value => Some(format!("value of {name} PriorityClass must be {k}")),
                Some(_) if obj.flag("globalDefault") => {
                    Some(format!("globalDefault of {name} PriorityClass must be false"))
                }
                Some(_) => None,
            };
            if let Some(problem) = problem {
                let metadata = Path::Root.child("metadata");
                let detail = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {problem}"
                );
                errs.push(field::forbidden(&metadata.child("name"), &detail));
            }
        } else if value > HIGHEST {
            let detail = format!("maximum allowed value of a user defined priority is {HIGHEST}");
            errs.push(field::forbidden(&Path::Root.child("value"), &detail));
        }
        if obj.has("preemptionPolicy") {
            let policies = ["PreemptLowerPriority", "Never"];
            field::one_of(&Path::Root.child("preemptionPolicy"), obj.text("preemptionPolicy"), &policies, true, errs);
        }
    }

    fn validate_update(&self, new: &Tree, old: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        if new.int("value").unwrap_or(0) != old.int("value").unwrap_or(0) {
            errs.push(field::forbidden(&Path::Root.child("value"), "may not be changed in an update."));
        }
        let at = Path::Root.child("preemptionPolicy");
        field::immutable(&at, new.at("preemptionPolicy"), old.at("preemptionPolicy"), errs);
    }
}

impl Rules for Scale {
    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        field::not_negative(&SPEC.child("replicas"), obj.at("spec").int("replicas"), errs);
    }
}

impl Rules for Eviction {
    fn names(&self) -> NameRule {
        NameRule::Any
    }
}

impl Rules for TokenRequest {
    fn names(&self) -> NameRule {
        NameRule::Any
    }

    fn default(&self, obj: &mut Tree) {
        tree::default_to(tree::child(obj, "spec"), "expirationSeconds", 3600);
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        volumes::token_seconds(obj.at("spec"), &SPEC, errs);
    }
}

impl Rules for Review {
    fn names(&self) -> NameRule {
        NameRule::Any
    }
}

/// What is asked of no resource, as Kubernetes' internal type prints it.
struct Asked<'a>(&'a Tree);
impl field::Shown for Asked<'_> {
    fn shown(&self) -> String {
        if self.0.is_null() {
            return "null".to_owned();
        }
        format!("{{\"Path\":{},\"Verb\":{}}}", field::quoted(self.0.text("path")), field::quoted(self.0.text("verb")))
    }
}

impl Rules for AccessReview {
    fn names(&self) -> NameRule {
        NameRule::Any
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let spec = obj.at("spec");
        let (resource, other) = (spec.has("resourceAttributes"), spec.has("nonResourceAttributes"));
        if resource == other {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errs.push(field::invalid(&SPEC, Asked(spec.at("nonResourceAttributes")), detail));
        }
        if self.subject && spec.text("user").is_empty() && spec.list("groups").is_empty() {
            errs.push(field::invalid(&SPEC.child("user"), "", "at least one of user or group must be specified"));
        }
    }
}
