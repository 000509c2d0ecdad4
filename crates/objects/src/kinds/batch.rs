//! Jobs and CronJobs.

use super::field::{self, Path};
use super::pod;
use super::tree::{self, Fields};
use super::workload::created;
use super::{Context, FieldError, Rules, selector};
use crate::Tree;

/// Job's rules.
pub struct Job;
/// CronJob's rules.
pub struct CronJob;

const SPEC: Path<'static> = Path::Child(&Path::Root, "spec");

fn job_spec_defaults(spec: &mut Tree) {
    if !spec.has("completions") && !spec.has("parallelism") {
        tree::set(spec, "completions", 1);
    }
    tree::default_to(spec, "parallelism", 1);
    let limit = if spec.has("backoffLimitPerIndex") { i32::MAX } else { 6 };
    tree::default_to(spec, "backoffLimit", limit);
    tree::default_to(spec, "completionMode", "NonIndexed");
    tree::default_to(spec, "suspend", false);
    let replacement = if spec.has("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    tree::default_to(spec, "podReplacementPolicy", replacement);
    tree::default_to(spec, "manualSelector", false);
}

impl Rules for Job {
    fn default(&self, obj: &mut Tree) {
        let labels = obj.at("spec").at("template").at("metadata").at("labels").clone();
        if !tree::is_empty(&labels) && tree::is_empty(obj.at("metadata").at("labels")) {
            tree::set(tree::child(obj, "metadata"), "labels", labels);
        }
        let spec = tree::child(obj, "spec");
        job_spec_defaults(spec);
        pod::default_template(spec, "template");
    }

    fn prepare_create(&self, obj: &mut Tree, _cx: &Context<'_>) {
        created(obj);
        if obj.at("spec").flag("manualSelector") {
            return;
        }
        let (name, uid) = (obj.at("metadata").text("name").to_owned(), obj.at("metadata").text("uid").to_owned());
        let spec = tree::child(obj, "spec");
        let labels = tree::child(tree::child(tree::child(spec, "template"), "metadata"), "labels");
        for (label, value) in [
            ("job-name", &name),
            ("batch.kubernetes.io/job-name", &name),
            ("controller-uid", &uid),
            ("batch.kubernetes.io/controller-uid", &uid),
        ] {
            tree::default_to(labels, label, value.as_str());
        }
        let labels = labels.clone();
        let chosen = tree::child(tree::child(spec, "selector"), "matchLabels");
        tree::default_to(chosen, "batch.kubernetes.io/controller-uid", uid);
        if tree::is_empty(obj.at("metadata").at("labels")) {
            tree::set(tree::child(obj, "metadata"), "labels", labels);
        }
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree, cx: &Context<'_>) {
        if cx.subresource == "status" {
            tree::keep(new, old, "spec");
        } else {
            tree::keep(new, old, "status");
            tree::count_generation(new, old, "spec");
        }
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let spec = obj.at("spec");
        for name in [
            "parallelism",
            "completions",
            "activeDeadlineSeconds",
            "backoffLimit",
            "ttlSecondsAfterFinished",
            "backoffLimitPerIndex",
            "maxFailedIndexes",
        ] {
            field::not_negative(&SPEC.child(name), spec.int(name), errs);
        }
        let (mode, at) = (spec.text("completionMode"), SPEC.child("completionMode"));
        if mode != "NonIndexed" && mode != "Indexed" {
            errs.push(field::not_supported(&at, mode, &["NonIndexed", "Indexed"]));
        }
        if mode == "Indexed" && !spec.has("completions") {
            errs.push(field::required(&SPEC.child("completions"), "when completion mode is Indexed"));
        }
        let template = SPEC.child("template");
        pod::spec::template(spec.at("template"), &template, errs);
        let pod_spec = template.child("spec");
        let (policy, at) = (spec.at("template").at("spec").text("restartPolicy"), pod_spec.child("restartPolicy"));
        if policy == "Always" || policy.is_empty() {
            errs.push(field::required(&at, "valid values: \"OnFailure\", \"Never\""));
        } else if policy != "OnFailure" && policy != "Never" {
            errs.push(field::not_supported(&at, policy, &["OnFailure", "Never"]));
        }
        if !spec.has("selector") {
            errs.push(field::required(&SPEC.child("selector"), ""));
        }
        selector::validate(spec.at("selector"), &SPEC.child("selector"), errs);
        let labels = spec.at("template").at("metadata").at("labels");
        if !selector::matches(spec.at("selector"), labels) {
            let at = template.child("metadata.labels");
            errs.push(field::invalid(&at, labels, "`selector` does not match template `labels`"));
        }
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        if cx.subresource == "status" {
            return;
        }
        self.validate(new, cx, errs);
        let (is, was) = (new.at("spec"), old.at("spec"));
        for name in [
            "completions",
            "selector",
            "template",
            "completionMode",
            "podFailurePolicy",
            "backoffLimitPerIndex",
            "managedBy",
            "successPolicy",
        ] {
            // An elastic indexed job scales both numbers alike.
            let elastic = name == "completions"
                && is.text("completionMode") == "Indexed"
                && is.int("completions") == is.int("parallelism")
                && was.int("completions") == was.int("parallelism");
            if !elastic && !tree::same(is.at(name), was.at(name)) {
                errs.push(field::invalid(&SPEC.child(name), is.at(name), field::IMMUTABLE));
            }
        }
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn select(&self, obj: &Tree, _field: &str) -> String {
        obj.at("status").int("succeeded").unwrap_or(0).to_string()
    }
}

impl Rules for CronJob {
    fn default(&self, obj: &mut Tree) {
        let spec = tree::child(obj, "spec");
        tree::default_text(spec, "concurrencyPolicy", "Allow");
        tree::default_to(spec, "suspend", false);
        tree::default_to(spec, "successfulJobsHistoryLimit", 3);
        tree::default_to(spec, "failedJobsHistoryLimit", 1);
        let template = tree::child(spec, "jobTemplate");
        tree::child(template, "metadata");
        pod::default_template(tree::child(template, "spec"), "template");
    }

    fn prepare_create(&self, obj: &mut Tree, _cx: &Context<'_>) {
        created(obj);
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree, cx: &Context<'_>) {
        Job.prepare_update(new, old, cx);
    }
}
