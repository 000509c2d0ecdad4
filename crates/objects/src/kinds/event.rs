//! Events, in their two versions: what core v1 takes as it comes, events.k8s.io checks.

use super::field::{self, Path};
use super::names::NameRule;
use super::tree::{self, Fields};
use super::{Context, FieldError, Rules, names};
use crate::Tree;

/// Rules of `v1` Events.
pub struct Core;
/// Rules of `events.k8s.io/v1` Events.
pub struct Events;

/// The checks both versions share; names differ between them.
fn shared(obj: &Tree, [object, controller, message]: [&str; 3], errs: &mut Vec<FieldError>) {
    let path = |name: &'static str| Path::Child(&Path::Root, name);
    let involved = Path::Root.child("involvedObject");
    let (own, its) = (obj.at("metadata").text("namespace"), obj.at(object).text("namespace"));
    let mut wrong_namespace = || {
        errs.push(field::invalid(&involved.child("namespace"), its, "does not match event.namespace"));
    };
    if !obj.has("eventTime") {
        if (its.is_empty() && !own.is_empty() && own != "default") || (!its.is_empty() && its != own) {
            wrong_namespace();
        }
        return;
    }
    if its.is_empty() && own != "default" && own != "kube-system" {
        wrong_namespace();
    }
    let at = Path::Root.child(controller);
    if obj.text(controller).is_empty() {
        errs.push(field::required(&at, ""));
    }
    field::each(&at, obj.text(controller), names::qualified_name, errs);
    for (name, most) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
        if obj.text(name).is_empty() {
            errs.push(field::required(&path(name), ""));
        }
        if obj.text(name).len() > most {
            errs.push(field::invalid(&path(name), "", &format!("can have at most {most} characters")));
        }
    }
    if obj.text(message).len() > 1024 {
        errs.push(field::invalid(&path("message"), "", "can have at most 1024 characters"));
    }
}

fn selected(obj: &Tree, object: &str, field: &str) -> String {
    match field.split_once('.') {
        Some((_, name)) => obj.at(object).text(name),
        None => match field {
            "source" => match obj.at("source").text("component") {
                "" => obj.text("reportingComponent"),
                component => component,
            },
            name => obj.text(name),
        },
    }
    .to_owned()
}

impl Rules for Core {
    fn names(&self) -> NameRule {
        // Kubernetes checks of these only what it checks of everything.
        NameRule::PathSegment
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        shared(obj, ["involvedObject", "reportingComponent", "message"], errs);
    }

    fn selectable(&self) -> &'static [&'static str] {
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ]
    }

    fn select(&self, obj: &Tree, field: &str) -> String {
        selected(obj, "involvedObject", field)
    }
}

impl Rules for Events {
    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        shared(obj, ["regarding", "reportingController", "note"], errs);
        series(obj, errs);
        if !obj.has("eventTime") {
            errs.push(field::required(&Path::Root.child("eventTime"), ""));
        }
        let kind = obj.text("type");
        if kind != "Normal" && kind != "Warning" {
            errs.push(field::invalid(&Path::Root.child("type"), "", &format!("has invalid value: {kind}")));
        }
        for (name, shown) in [
            ("deprecatedFirstTimestamp", "firstTimestamp"),
            ("deprecatedLastTimestamp", "lastTimestamp"),
            ("deprecatedCount", "count"),
            ("deprecatedSource", "source"),
        ] {
            let set = match obj.at(name) {
                source @ Tree::Object(_) => !source.text("component").is_empty() || !source.text("host").is_empty(),
                other => !tree::is_empty(other),
            };
            if set {
                errs.push(field::invalid(&Path::Root.child(shown), "", "needs to be unset"));
            }
        }
    }

    fn validate_update(&self, new: &Tree, old: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        shared(new, ["regarding", "reportingController", "note"], errs);
        if !tree::same(new.at("series"), old.at("series")) {
            series(new, errs);
        }
        for (name, shown) in [
            ("regarding", "involvedObject"),
            ("reason", "reason"),
            ("note", "message"),
            ("deprecatedSource", "source"),
            ("deprecatedFirstTimestamp", "firstTimestamp"),
            ("deprecatedLastTimestamp", "lastTimestamp"),
            ("deprecatedCount", "count"),
            ("type", "type"),
            ("eventTime", "eventTime"),
            ("action", "action"),
            ("related", "related"),
            ("reportingController", "reportingController"),
            ("reportingInstance", "reportingInstance"),
        ] {
            if !tree::same(new.at(name), old.at(name)) {
                errs.push(field::invalid(&Path::Root.child(shown), new.at(name), field::IMMUTABLE));
            }
        }
    }

    fn selectable(&self) -> &'static [&'static str] {
        &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ]
    }

    fn select(&self, obj: &Tree, field: &str) -> String {
        selected(obj, "regarding", field)
    }
}

fn series(obj: &Tree, errs: &mut Vec<FieldError>) {
    let series = obj.at("series");
    if series.is_null() {
        return;
    }
    if series.int("count").unwrap_or(0) < 2 {
        errs.push(field::invalid(&Path::Root.child("series.count"), "", "should be at least 2"));
    }
    if !series.has("lastObservedTime") {
        errs.push(field::required(&Path::Root.child("series.lastObservedTime"), ""));
    }
}
