//! Deployments, ReplicaSets, StatefulSets, DaemonSets, ReplicationControllers and ControllerRevisions:
//! what keeps a number of pods made from a template.

use super::field::{self, Path};
use super::pod::{self, spec as pod_spec};
use super::tree::{self, Fields};
use super::{Context, FieldError, Rules, claim, meta, names, selector};
use crate::Tree;
use serde_json::json;

/// Deployment's rules.
pub struct Deployment;
/// ReplicaSet's rules.
pub struct ReplicaSet;
/// StatefulSet's rules.
pub struct StatefulSet;
/// DaemonSet's rules.
pub struct DaemonSet;
/// ReplicationController's rules.
pub struct ReplicationController;
/// ControllerRevision's rules.
pub struct ControllerRevision;

const SPEC: Path<'static> = Path::Child(&Path::Root, "spec");
const STATUS: Path<'static> = Path::Child(&Path::Root, "status");

/// Before create: generation 1, no status.
pub fn created(obj: &mut Tree) {
    tree::set(tree::child(obj, "metadata"), "generation", 1);
    tree::set(obj, "status", json!({}));
}

/// Before update: a write of the object keeps the status and counts the generation, one of the status
/// keeps the rest.
pub fn updated(new: &mut Tree, old: &Tree, cx: &Context<'_>) {
    if cx.subresource == "status" {
        tree::keep(new, old, "spec");
        let metadata = tree::child(new, "metadata");
        tree::keep(metadata, old.at("metadata"), "labels");
    } else {
        tree::keep(new, old, "status");
        tree::count_generation(new, old, "spec");
    }
}

fn as_before(new: &mut Tree, old: &Tree, cx: &Context<'_>) {
    if cx.subresource == "status" {
        tree::keep(new, old, "spec");
    } else {
        updated(new, old, cx);
    }
}

fn not_negative(owner: &Tree, names: &[&str], path: &Path<'_>, errs: &mut Vec<FieldError>) {
    for name in names {
        field::not_negative(&path.child(name), owner.int(name), errs);
    }
}

/// Checks that the selector is there, sound and says something, and that the template matches it.
fn selects(spec: &Tree, what: &str, errs: &mut Vec<FieldError>) {
    let chosen = spec.at("selector");
    let at = SPEC.child("selector");
    if chosen.is_null() {
        errs.push(field::required(&at, ""));
    } else {
        selector::validate(chosen, &at, errs);
        if selector::is_empty(chosen) {
            errs.push(field::invalid(&at, chosen, &format!("empty selector is invalid for {what}")));
        }
    }
}

/// Whether Go could make a selector of it.
fn usable(chosen: &Tree) -> bool {
    let mut errs = Vec::new();
    selector::validate(chosen, &Path::Root, &mut errs);
    errs.is_empty()
}

fn matching_template(spec: &Tree, owner: &str, errs: &mut Vec<FieldError>) {
    let (chosen, template) = (spec.at("selector"), spec.at("template"));
    let at = SPEC.child("template");
    if !usable(chosen) {
        errs.push(field::invalid(&SPEC.child("selector"), chosen, "invalid label selector"));
        return;
    }
    labels_match(chosen, template, &at, errs);
    pod_spec::template(template, &at, errs);
    always_restarts(template, owner, &at, errs);
}

fn labels_match(chosen: &Tree, template: &Tree, at: &Path<'_>, errs: &mut Vec<FieldError>) {
    let labels = template.at("metadata").at("labels");
    // No selector at all selects nothing; an empty one has been refused already.
    if chosen.is_null() || (!selector::is_empty(chosen) && !selector::matches(chosen, labels)) {
        let at = at.child("metadata.labels");
        errs.push(field::invalid(&at, labels, "`selector` does not match template `labels`"));
    }
}

fn always_restarts(template: &Tree, owner: &str, at: &Path<'_>, errs: &mut Vec<FieldError>) {
    let spec = template.at("spec");
    let at = at.child("spec");
    if spec.text("restartPolicy") != "Always" {
        errs.push(field::not_supported(&at.child("restartPolicy"), spec.text("restartPolicy"), &["Always"]));
    }
    if spec.has("activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {owner} is not Supported");
        errs.push(field::forbidden(&at.child("activeDeadlineSeconds"), &detail));
    }
}

/// Checks a number or percentage.
pub fn int_or_percent(value: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    match value {
        Tree::String(s) => field::each(path, s, names::percent, errs),
        other => field::not_negative(path, other.as_i64(), errs),
    }
}

fn at_most_all(value: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let percent = value.as_str().and_then(|s| s.strip_suffix('%')).and_then(|s| s.parse::<i64>().ok());
    if percent.is_some_and(|p| p > 100) {
        errs.push(field::invalid(path, value, "must not be greater than 100%"));
    }
}

fn is_zero(value: &Tree) -> bool {
    match value {
        Tree::String(s) => s.trim_end_matches('%').parse::<i64>().unwrap_or(0) == 0,
        other => other.as_i64().unwrap_or(0) == 0,
    }
}

/// The numbers in a status agree with one another.
fn counts(status: &Tree, names: &[&str], of_replicas: &[&str], errs: &mut Vec<FieldError>) {
    not_negative(status, names, &STATUS, errs);
    let number = |name: &str| status.int(name).unwrap_or(0);
    for name in of_replicas {
        if number(name) > number("replicas") {
            errs.push(field::invalid(&STATUS.child(name), number(name), "cannot be greater than status.replicas"));
        }
    }
    if number("availableReplicas") > number("readyReplicas") {
        let at = STATUS.child("availableReplicas");
        errs.push(field::invalid(&at, number("availableReplicas"), "cannot be greater than readyReplicas"));
    }
}

/// A strategy as Kubernetes' internal type prints it.
struct Strategy<'a>(&'a Tree, &'a [(&'a str, &'a str)]);
impl field::Shown for Strategy<'_> {
    fn shown(&self) -> String {
        let rolling = Rolling(self.0.at("rollingUpdate"), self.1).shown();
        format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", field::quoted(self.0.text("type")))
    }
}
/// The part of it that says how to roll.
struct Rolling<'a>(&'a Tree, &'a [(&'a str, &'a str)]);
impl field::Shown for Rolling<'_> {
    fn shown(&self) -> String {
        if self.0.is_null() {
            return "null".to_owned();
        }
        let parts: Vec<String> =
            self.1.iter().map(|(go, json)| format!("\"{go}\":{}", field::go_json(self.0.at(json)))).collect();
        format!("{{{}}}", parts.join(","))
    }
}
const MAXIMA: &[(&str, &str)] = &[("MaxUnavailable", "maxUnavailable"), ("MaxSurge", "maxSurge")];

impl Rules for Deployment {
    fn default(&self, obj: &mut Tree) {
        let spec = tree::child(obj, "spec");
        tree::default_to(spec, "replicas", 1);
        tree::default_to(spec, "revisionHistoryLimit", 10);
        tree::default_to(spec, "progressDeadlineSeconds", 600);
        let strategy = tree::child(spec, "strategy");
        tree::default_text(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate" {
            let rolling = tree::child(strategy, "rollingUpdate");
            tree::default_to(rolling, "maxUnavailable", "25%");
            tree::default_to(rolling, "maxSurge", "25%");
        }
        pod::default_template(spec, "template");
    }

    fn prepare_create(&self, obj: &mut Tree, _cx: &Context<'_>) {
        created(obj);
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree, cx: &Context<'_>) {
        if cx.subresource == "status" {
            updated(new, old, cx);
            return;
        }
        tree::keep(new, old, "status");
        // Annotations count too: the controller copies them to its ReplicaSets.
        let annotations = |obj: &Tree| obj.at("metadata").at("annotations").clone();
        if tree::same(new.at("spec"), old.at("spec")) && tree::same(&annotations(new), &annotations(old)) {
            return;
        }
        let generation = old.at("metadata").int("generation").unwrap_or(0) + 1;
        tree::set(tree::child(new, "metadata"), "generation", generation);
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let spec = obj.at("spec");
        not_negative(spec, &["replicas"], &SPEC, errs);
        selects(spec, "deployment", errs);
        matching_template(spec, "ReplicaSet", errs);
        let (strategy, at) = (spec.at("strategy"), SPEC.child("strategy"));
        let rolling = at.child("rollingUpdate");
        match strategy.text("type") {
            "Recreate" => {
                if strategy.has("rollingUpdate") {
                    errs.push(field::forbidden(&rolling, "may not be specified when strategy `type` is 'Recreate'"));
                }
            }
            "RollingUpdate" => {
                let (down, up) =
                    (strategy.at("rollingUpdate").at("maxUnavailable"), strategy.at("rollingUpdate").at("maxSurge"));
                let at = rolling.child("maxUnavailable");
                int_or_percent(down, &at, errs);
                int_or_percent(up, &rolling.child("maxSurge"), errs);
                if is_zero(down) && is_zero(up) {
                    errs.push(field::invalid(&at, down, "may not be 0 when `maxSurge` is 0"));
                }
                at_most_all(down, &at, errs);
            }
            _ => errs.push(field::not_supported(&at, Strategy(strategy, MAXIMA), &["Recreate", "RollingUpdate"])),
        }
        not_negative(spec, &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"], &SPEC, errs);
        if let Some(deadline) = spec.int("progressDeadlineSeconds")
            && deadline <= spec.int("minReadySeconds").unwrap_or(0)
        {
            let at = SPEC.child("progressDeadlineSeconds");
            errs.push(field::invalid(&at, deadline, "must be greater than minReadySeconds"));
        }
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        if cx.subresource == "status" {
            let names = [
                "observedGeneration",
                "replicas",
                "updatedReplicas",
                "readyReplicas",
                "availableReplicas",
                "unavailableReplicas",
                "terminatingReplicas",
                "collisionCount",
            ];
            counts(new.at("status"), &names, &["updatedReplicas", "readyReplicas", "availableReplicas"], errs);
            let (is, was) = (new.at("status").int("collisionCount"), old.at("status").int("collisionCount"));
            if let Some(was) = was
                && is.is_none_or(|is| is < was)
            {
                let at = STATUS.child("collisionCount");
                errs.push(field::invalid(&at, new.at("status").at("collisionCount"), "cannot be decremented"));
            }
            return;
        }
        self.validate(new, cx, errs);
        selector_stays(new, old, errs);
    }

    fn warnings(&self, new: &Tree, _old: Option<&Tree>, out: &mut Vec<String>) {
        pod::template_warnings(new.at("spec").at("template"), "spec.template", out);
    }
}

fn selector_stays(new: &Tree, old: &Tree, errs: &mut Vec<FieldError>) {
    let (is, was) = (new.at("spec").at("selector"), old.at("spec").at("selector"));
    if !tree::same(is, was) {
        errs.push(field::invalid(&SPEC.child("selector"), is, field::IMMUTABLE));
    }
}

impl Rules for ReplicaSet {
    fn default(&self, obj: &mut Tree) {
        let spec = tree::child(obj, "spec");
        tree::default_to(spec, "replicas", 1);
        pod::default_template(spec, "template");
    }

    fn prepare_create(&self, obj: &mut Tree, _cx: &Context<'_>) {
        created(obj);
        tree::set(tree::child(obj, "status"), "replicas", 0);
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree, cx: &Context<'_>) {
        as_before(new, old, cx);
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let spec = obj.at("spec");
        not_negative(spec, &["replicas", "minReadySeconds"], &SPEC, errs);
        // Kubernetes says deployment here too.
        selects(spec, "deployment", errs);
        matching_template(spec, "ReplicaSet", errs);
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        if cx.subresource == "status" {
            let names = [
                "replicas",
                "fullyLabeledReplicas",
                "readyReplicas",
                "availableReplicas",
                "observedGeneration",
                "terminatingReplicas",
            ];
            counts(new.at("status"), &names, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], errs);
            return;
        }
        self.validate(new, cx, errs);
        selector_stays(new, old, errs);
    }

    fn warnings(&self, new: &Tree, _old: Option<&Tree>, out: &mut Vec<String>) {
        pod::template_warnings(new.at("spec").at("template"), "spec.template", out);
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn select(&self, obj: &Tree, _field: &str) -> String {
        obj.at("status").int("replicas").unwrap_or(0).to_string()
    }
}

impl Rules for ReplicationController {
    fn default(&self, obj: &mut Tree) {
        let labels = obj.at("spec").at("template").at("metadata").at("labels").clone();
        if !tree::is_empty(&labels) {
            if tree::is_empty(obj.at("spec").at("selector")) {
                tree::set(tree::child(obj, "spec"), "selector", labels.clone());
            }
            if tree::is_empty(obj.at("metadata").at("labels")) {
                tree::set(tree::child(obj, "metadata"), "labels", labels);
            }
        }
        let spec = tree::child(obj, "spec");
        tree::default_to(spec, "replicas", 1);
        if spec.has("template") {
            pod::default_template(spec, "template");
        }
    }

    fn prepare_create(&self, obj: &mut Tree, _cx: &Context<'_>) {
        created(obj);
        tree::set(tree::child(obj, "status"), "replicas", 0);
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree, cx: &Context<'_>) {
        as_before(new, old, cx);
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let spec = obj.at("spec");
        not_negative(spec, &["minReadySeconds"], &SPEC, errs);
        if spec.entries("selector").next().is_none() {
            errs.push(field::required(&SPEC.child("selector"), ""));
        }
        not_negative(spec, &["replicas"], &SPEC, errs);
        let (template, at) = (spec.at("template"), SPEC.child("template"));
        if template.is_null() {
            errs.push(field::required(&at, ""));
            return;
        }
        let labels = template.at("metadata").at("labels");
        if !spec.entries("selector").all(|(k, v)| labels.at(k) == v) {
            let at = at.child("metadata.labels");
            errs.push(field::invalid(&at, labels, "`selector` does not match template `labels`"));
        }
        pod_spec::template(template, &at, errs);
        always_restarts(template, "ReplicationController", &at, errs);
    }

    fn validate_update(&self, new: &Tree, _old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        if cx.subresource == "status" {
            let names =
                ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];
            counts(new.at("status"), &names, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], errs);
        } else {
            self.validate(new, cx, errs);
        }
    }

    fn warnings(&self, new: &Tree, _old: Option<&Tree>, out: &mut Vec<String>) {
        pod::template_warnings(new.at("spec").at("template"), "spec.template", out);
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn select(&self, obj: &Tree, _field: &str) -> String {
        obj.at("status").int("replicas").unwrap_or(0).to_string()
    }
}

impl Rules for DaemonSet {
    fn default(&self, obj: &mut Tree) {
        let spec = tree::child(obj, "spec");
        let strategy = tree::child(spec, "updateStrategy");
        tree::default_text(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate" {
            let rolling = tree::child(strategy, "rollingUpdate");
            tree::default_to(rolling, "maxUnavailable", 1);
            tree::default_to(rolling, "maxSurge", 0);
        }
        tree::default_to(spec, "revisionHistoryLimit", 10);
        pod::default_template(spec, "template");
    }

    fn prepare_create(&self, obj: &mut Tree, _cx: &Context<'_>) {
        created(obj);
        let zero = json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0});
        tree::set(obj, "status", zero);
        // An old version's counter of templates lives on in an annotation.
        let annotations = tree::child(tree::child(obj, "metadata"), "annotations");
        tree::set(annotations, "deprecated.daemonset.template.generation", "1");
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree, cx: &Context<'_>) {
        as_before(new, old, cx);
        if cx.subresource.is_empty() {
            let name = "deprecated.daemonset.template.generation";
            let before = old.at("metadata").at("annotations").text(name).parse::<i64>().unwrap_or(0);
            let changed = !tree::same(new.at("spec").at("template"), old.at("spec").at("template"));
            let annotations = tree::child(tree::child(new, "metadata"), "annotations");
            tree::set(annotations, name, (before + i64::from(changed)).to_string());
        }
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let spec = obj.at("spec");
        let (chosen, template) = (spec.at("selector"), spec.at("template"));
        let at = SPEC.child("template");
        selector::validate(chosen, &SPEC.child("selector"), errs);
        let nothing = chosen.is_null();
        if usable(chosen) && (nothing || !selector::matches(chosen, template.at("metadata").at("labels"))) {
            let at = at.child("metadata.labels");
            let labels = template.at("metadata").at("labels");
            errs.push(field::invalid(&at, labels, "`selector` does not match template `labels`"));
        }
        if !nothing && selector::is_empty(chosen) {
            errs.push(field::invalid(&SPEC.child("selector"), chosen, "empty selector is invalid for daemonset"));
        }
        pod_spec::template(template, &at, errs);
        always_restarts(template, "DaemonSet", &at, errs);
        not_negative(spec, &["minReadySeconds"], &SPEC, errs);
        let (strategy, at) = (spec.at("updateStrategy"), SPEC.child("updateStrategy"));
        match strategy.text("type") {
            "OnDelete" => {}
            "RollingUpdate" => {
                let at = at.child("rollingUpdate");
                let (down, up) =
                    (strategy.at("rollingUpdate").at("maxUnavailable"), strategy.at("rollingUpdate").at("maxSurge"));
                int_or_percent(down, &at.child("maxUnavailable"), errs);
                int_or_percent(up, &at.child("maxSurge"), errs);
                at_most_all(down, &at.child("maxUnavailable"), errs);
                at_most_all(up, &at.child("maxSurge"), errs);
                match (is_zero(down), is_zero(up)) {
                    (false, false) => {
                        let detail = "may not be set when maxUnavailable is non-zero";
                        errs.push(field::invalid(&at.child("maxSurge"), up, detail));
                    }
                    (true, true) => {
                        errs.push(field::required(&at.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"));
                    }
                    _ => {}
                }
            }
            _ => errs.push(field::not_supported(&at, Strategy(strategy, MAXIMA), &["RollingUpdate", "OnDelete"])),
        }
        not_negative(spec, &["revisionHistoryLimit"], &SPEC, errs);
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        if cx.subresource == "status" {
            let names = [
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
            ];
            not_negative(new.at("status"), &names, &STATUS, errs);
            return;
        }
        self.validate(new, cx, errs);
        selector_stays(new, old, errs);
    }

    fn warnings(&self, new: &Tree, _old: Option<&Tree>, out: &mut Vec<String>) {
        pod::template_warnings(new.at("spec").at("template"), "spec.template", out);
    }
}

impl Rules for StatefulSet {
    fn names(&self) -> super::NameRule {
        super::NameRule::Label
    }

    fn default(&self, obj: &mut Tree) {
        let spec = tree::child(obj, "spec");
        tree::default_text(spec, "podManagementPolicy", "OrderedReady");
        let strategy = tree::child(spec, "updateStrategy");
        if strategy.text("type").is_empty() {
            tree::set(strategy, "type", "RollingUpdate");
            tree::child(strategy, "rollingUpdate");
        }
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = tree::existing(strategy, "rollingUpdate")
        {
            tree::default_to(rolling, "partition", 0);
            tree::default_to(rolling, "maxUnavailable", 1);
        }
        let retention = tree::child(spec, "persistentVolumeClaimRetentionPolicy");
        tree::default_text(retention, "whenDeleted", "Retain");
        tree::default_text(retention, "whenScaled", "Retain");
        tree::default_to(spec, "replicas", 1);
        tree::default_to(spec, "revisionHistoryLimit", 10);
        for template in tree::items(spec, "volumeClaimTemplates") {
            tree::default_text(template, "kind", "PersistentVolumeClaim");
            tree::default_text(template, "apiVersion", "v1");
            tree::child(template, "metadata");
            claim::PersistentVolumeClaim.default(template);
        }
        pod::default_template(spec, "template");
    }

    fn prepare_create(&self, obj: &mut Tree, _cx: &Context<'_>) {
        created(obj);
        tree::set(obj, "status", json!({"replicas": 0, "availableReplicas": 0}));
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree, cx: &Context<'_>) {
        as_before(new, old, cx);
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let spec = obj.at("spec");
        let policy = spec.text("podManagementPolicy");
        if policy != "OrderedReady" && policy != "Parallel" {
            let at = SPEC.child("podManagementPolicy");
            errs.push(field::invalid(&at, policy, "must be 'OrderedReady' or 'Parallel'"));
        }
        let (strategy, at) = (spec.at("updateStrategy"), SPEC.child("updateStrategy"));
        let names = [("Partition", "partition"), ("MaxUnavailable", "maxUnavailable")];
        let rolling = at.child("rollingUpdate");
        match strategy.text("type") {
            "RollingUpdate" => {
                let stated = strategy.at("rollingUpdate");
                field::not_negative(&rolling.child("partition"), stated.int("partition"), errs);
                if stated.has("maxUnavailable") {
                    let at = rolling.child("maxUnavailable");
                    int_or_percent(stated.at("maxUnavailable"), &at, errs);
                    if is_zero(stated.at("maxUnavailable")) {
                        errs.push(field::invalid(&at, stated.at("maxUnavailable"), "cannot be 0"));
                    }
                    at_most_all(stated.at("maxUnavailable"), &at, errs);
                }
            }
            "OnDelete" => {
                if strategy.has("rollingUpdate") {
                    let detail = "only allowed for updateStrategy 'RollingUpdate'";
                    errs.push(field::invalid(&rolling, Rolling(strategy.at("rollingUpdate"), &names), detail));
                }
            }
            _ => {
                let shown = Strategy(strategy, &names);
                errs.push(field::invalid(&at, shown, "must be 'RollingUpdate' or 'OnDelete'"));
            }
        }
        let at = SPEC.child("persistentVolumeClaimRetentionPolicy");
        for name in ["whenDeleted", "whenScaled"] {
            let policy = spec.at("persistentVolumeClaimRetentionPolicy").text(name);
            if policy != "Retain" && policy != "Delete" {
                errs.push(field::not_supported(&at.child(name), policy, &["Retain", "Delete"]));
            }
        }
        let templates = SPEC.child("volumeClaimTemplates");
        for (i, template) in spec.list("volumeClaimTemplates").iter().enumerate() {
            let item = templates.index(i);
            claim::spec(template.at("spec"), &item.child("spec"), errs);
        }
        not_negative(spec, &["replicas", "minReadySeconds", "revisionHistoryLimit"], &SPEC, errs);
        let ordinals = SPEC.child("ordinals");
        let start = spec.at("ordinals").int("start");
        field::not_negative(&ordinals.child("start"), start, errs);
        selects(spec, "statefulset", errs);
        let (chosen, template) = (spec.at("selector"), spec.at("template"));
        let at = SPEC.child("template");
        if usable(chosen) {
            labels_match(chosen, template, &at, errs);
            pod_spec::template(template, &at, errs);
        } else {
            errs.push(field::invalid(&SPEC.child("selector"), chosen, ""));
        }
        always_restarts(template, "StatefulSet", &at, errs);
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        if cx.subresource == "status" {
            let names = [
                "replicas",
                "readyReplicas",
                "currentReplicas",
                "updatedReplicas",
                "availableReplicas",
                "observedGeneration",
                "collisionCount",
            ];
            let of = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
            counts(new.at("status"), &names, &of, errs);
            return;
        }
        self.validate(new, cx, errs);
        let (is, was) = (new.at("spec"), old.at("spec"));
        for name in ["selector", "volumeClaimTemplates", "serviceName", "podManagementPolicy"] {
            if !tree::same(is.at(name), was.at(name)) {
                errs.push(field::invalid(&SPEC.child(name), is.at(name), field::IMMUTABLE));
            }
        }
    }

    fn warnings(&self, new: &Tree, _old: Option<&Tree>, out: &mut Vec<String>) {
        pod::template_warnings(new.at("spec").at("template"), "spec.template", out);
        if new.at("spec").int("revisionHistoryLimit").is_some_and(|n| n < 0) {
            out.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
        }
    }
}

impl Rules for ControllerRevision {
    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        field::not_negative(&Path::Root.child("revision"), obj.int("revision"), errs);
        let at = Path::Root.child("data");
        if obj.at("data").is_null() {
            errs.push(field::required(&at, "data is mandatory"));
        } else if !obj.at("data").is_object() {
            errs.push(field::invalid(&at, "<value omitted>", "data should be a JSON object"));
        }
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        meta::again(new, self.names(), true, errs);
        self.validate(new, cx, errs);
        if new.at("data") != old.at("data") {
            errs.push(field::invalid(&Path::Root.child("data"), new.at("data"), field::IMMUTABLE));
        }
    }
}
