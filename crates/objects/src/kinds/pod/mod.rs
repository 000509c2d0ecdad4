//! Pods: their defaults, their checks, what may change.
//!
//! The rules of PodSpecs are shared with everything that holds a template: one file for each part.

pub mod containers;
pub mod defaults;
pub mod env;
pub mod placement;
pub mod probes;
pub mod references;
pub mod security;
pub mod spec;
pub mod update;
pub mod volumes;
mod warnings;

use super::field::{self, Path};
use super::tree::{self, Fields, text};
use super::{Context, FieldError, Rules, meta, names};
use crate::Tree;
use serde_json::json;

pub use warnings::template_warnings;

/// Pod's rules.
pub struct Pod;
/// PodTemplate's rules.
pub struct PodTemplate;
/// Binding's rules, also as a pod's subresource.
pub struct Binding;

const METADATA: Path<'static> = Path::Child(&Path::Root, "metadata");
const SPEC: Path<'static> = Path::Child(&Path::Root, "spec");

/// Fills in a PodTemplateSpec that stands in a field of `owner`.
pub fn default_template(owner: &mut Tree, name: &str) {
    let template = tree::child(owner, name);
    tree::child(template, "metadata");
    defaults::spec(tree::child(template, "spec"));
}

fn whole(obj: &Tree, errs: &mut Vec<FieldError>) {
    let spec = obj.at("spec");
    let annotations = obj.at("metadata").at("annotations");
    spec::annotations(annotations, spec, &METADATA.child("annotations"), errs);
    spec::validate(spec, Some(obj.at("metadata").text("name")), &SPEC, errs);
    if spec.text("serviceAccountName").is_empty() {
        let volumes = SPEC.child("volumes");
        for (i, volume) in spec.list("volumes").iter().enumerate() {
            let at = volumes.index(i);
            let sources = at.child("projected.sources");
            for (j, _) in
                volume.at("projected").list("sources").iter().enumerate().filter(|(_, s)| s.has("serviceAccountToken"))
            {
                let detail = "must not be specified when serviceAccountName is not set";
                errs.push(field::forbidden(&sources.index(j).child("serviceAccountToken"), detail));
            }
        }
    }
    let grace = "terminationGracePeriodSeconds";
    field::not_negative(&SPEC.child(grace), spec.int(grace), errs);
    for list in ["containers", "initContainers"] {
        let at = SPEC.child(list);
        for (i, container) in spec.list(list).iter().enumerate() {
            containers::trimmed_image(container, &at.index(i), errs);
        }
    }
}

impl Rules for Pod {
    fn default(&self, obj: &mut Tree) {
        let spec = tree::child(obj, "spec");
        defaults::spec(spec);
        defaults::pod_only(spec);
        if let Some(status) = tree::existing(obj, "status") {
            pod_ips(status);
        }
    }

    fn prepare_create(&self, obj: &mut Tree, cx: &Context<'_>) {
        tree::set(tree::child(obj, "metadata"), "generation", 1);
        let labels = obj.at("metadata").at("labels").clone();
        tree::set(obj, "status", json!({"phase": "Pending"}));
        let spec = tree::child(obj, "spec");
        pod_level_resources(spec);
        merge_label_keys(spec, &labels);
        let gated = !spec.list("schedulingGates").is_empty();
        let class = spec::qos_class(spec);
        let status = tree::child(obj, "status");
        tree::set(status, "qosClass", class);
        if gated {
            let condition = json!({
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": null,
                "lastTransitionTime": cx.now.rfc3339(),
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            });
            tree::set(status, "conditions", vec![condition]);
        }
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree, cx: &Context<'_>) {
        match cx.subresource {
            "status" => prepare_status(new, old),
            "ephemeralcontainers" => {
                let containers = new.at("spec").at("ephemeralContainers").clone();
                tree::keep(new, old, "spec");
                tree::keep(new, old, "status");
                keep_metadata(new, old);
                tree::set(tree::child(new, "spec"), "ephemeralContainers", containers);
                tree::count_generation(new, old, "spec");
            }
            _ => {
                tree::keep(new, old, "status");
                tree::count_generation(new, old, "spec");
            }
        }
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        whole(obj, errs);
        let spec = obj.at("spec");
        if !spec.list("ephemeralContainers").is_empty() {
            errs.push(field::forbidden(&SPEC.child("ephemeralContainers"), "cannot be set on create"));
        }
        if !spec.text("nodeName").is_empty() && !spec.list("schedulingGates").is_empty() {
            let detail = "cannot be set until all schedulingGates have been cleared";
            errs.push(field::forbidden(&SPEC.child("nodeName"), detail));
        }
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        if cx.subresource == "status" {
            update::status(new, old, errs);
            return;
        }
        meta::again(new, self.names(), true, errs);
        whole(new, errs);
        match cx.subresource {
            "ephemeralcontainers" => update::ephemeral(new, old, errs),
            _ => update::validate(new, old, errs),
        }
    }

    fn warnings(&self, new: &Tree, old: Option<&Tree>, out: &mut Vec<String>) {
        if old.is_some() {
            return;
        }
        let wrong = names::label(new.at("metadata").text("name"));
        if !wrong.is_empty() {
            out.push(format!(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
                wrong.join(" ")
            ));
        }
        warnings::pod_warnings(new, out);
    }

    fn selectable(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ]
    }

    fn select(&self, obj: &Tree, field: &str) -> String {
        match field.split_once('.') {
            Some(("spec", "hostNetwork")) => obj.at("spec").flag("hostNetwork").to_string(),
            Some(("status", "podIP")) => {
                obj.at("status").list("podIPs").first().map_or("", |ip| ip.text("ip")).to_owned()
            }
            Some((part, name)) => obj.at(part).text(name).to_owned(),
            None => String::new(),
        }
    }
}

/// `podIP` and the first of `podIPs` say the same.
fn pod_ips(status: &mut Tree) {
    let one = status.text("podIP").to_owned();
    match status.list("podIPs").first().map(|ip| ip.text("ip").to_owned()) {
        None if !one.is_empty() => tree::set(status, "podIPs", json!([{"ip": one}])),
        Some(first) if one.is_empty() => tree::set(status, "podIP", first),
        Some(first) if first != one => tree::set(status, "podIPs", json!([{"ip": one}])),
        _ => {}
    }
}

/// What a write of a subresource may change in metadata: labels, annotations, finalizers stay as they were.
fn keep_metadata(new: &mut Tree, old: &Tree) {
    let metadata = tree::child(new, "metadata");
    for name in ["deletionTimestamp", "generation", "labels", "annotations", "finalizers", "ownerReferences"] {
        tree::keep(metadata, old.at("metadata"), name);
    }
}

fn prepare_status(new: &mut Tree, old: &Tree) {
    tree::keep(new, old, "spec");
    let metadata = tree::child(new, "metadata");
    for name in ["ownerReferences", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        tree::keep(metadata, old.at("metadata"), name);
    }
    let was = old.at("status");
    let status = tree::child(new, "status");
    pod_ips(status);
    for name in ["qosClass", "resourceClaimStatuses", "observedGeneration"] {
        if tree::is_empty(status.at(name)) {
            tree::keep(status, was, name);
        }
    }
    for condition in tree::items(status, "conditions") {
        if condition.int("observedGeneration").unwrap_or(0) == 0 {
            let before = was.list("conditions").iter().find(|c| c.text("type") == condition.text("type"));
            if let Some(before) = before {
                tree::keep(condition, before, "observedGeneration");
            }
        }
    }
}

/// A pod's own resources, where stated, are filled in from its containers'.
fn pod_level_resources(spec: &mut Tree) {
    let stated = |spec: &Tree, list: &str| spec.at("resources").entries(list).next().is_some();
    if !stated(spec, "limits") && !stated(spec, "requests") {
        return;
    }
    let sums = spec::aggregate(spec, "requests");
    let limits = spec.at("resources").at("limits").as_object().cloned().unwrap_or_default();
    let requests = tree::fields(tree::child(tree::child(spec, "resources"), "requests"));
    for name in ["cpu", "memory"] {
        if let Some(sum) = sums.get(name) {
            requests.entry(name).or_insert_with(|| sum.to_string().into());
        } else if let Some(limit) = limits.get(name) {
            requests.entry(name).or_insert_with(|| limit.clone());
        }
    }
}

/// `matchLabelKeys` and `mismatchLabelKeys` become terms of the selector they stand beside, with the pod's
/// own values.
fn merge_label_keys(spec: &mut Tree, labels: &Tree) {
    fn merge(term: &mut Tree, labels: &Tree) {
        for (keys, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
            let keys = term.list(keys).to_vec();
            let Some(selector) = tree::existing(term, "labelSelector") else { return };
            let mut terms = selector.list("matchExpressions").to_vec();
            for key in keys.iter().map(text).filter(|k| labels.has(k)) {
                terms.push(json!({"key": key, "operator": operator, "values": [labels.text(key)]}));
            }
            if !terms.is_empty() {
                tree::set(selector, "matchExpressions", terms);
            }
        }
    }
    if let Some(affinity) = tree::existing(spec, "affinity") {
        for kind in ["podAffinity", "podAntiAffinity"] {
            if let Some(kind) = tree::existing(affinity, kind) {
                for term in tree::items(kind, "requiredDuringSchedulingIgnoredDuringExecution") {
                    merge(term, labels);
                }
                for term in tree::items(kind, "preferredDuringSchedulingIgnoredDuringExecution") {
                    if let Some(term) = tree::existing(term, "podAffinityTerm") {
                        merge(term, labels);
                    }
                }
            }
        }
    }
    for constraint in tree::items(spec, "topologySpreadConstraints") {
        merge(constraint, labels);
    }
}

impl Rules for PodTemplate {
    fn default(&self, obj: &mut Tree) {
        default_template(obj, "template");
    }

    fn prepare_create(&self, obj: &mut Tree, _cx: &Context<'_>) {
        tree::set(tree::child(obj, "metadata"), "generation", 1);
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree, _cx: &Context<'_>) {
        tree::count_generation(new, old, "template");
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        spec::template(obj.at("template"), &Path::Root.child("template"), errs);
    }

    fn warnings(&self, new: &Tree, _old: Option<&Tree>, out: &mut Vec<String>) {
        template_warnings(new.at("template"), "template", out);
    }
}

impl Rules for Binding {
    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let target = obj.at("target");
        let path = Path::Root.child("target");
        let (kind, name) = (target.text("kind"), target.text("name"));
        if !kind.is_empty() && kind != "Node" {
            errs.push(field::not_supported(&path.child("kind"), kind, &["Node", "<empty>"]));
        }
        if name.is_empty() {
            errs.push(field::required(&path.child("name"), ""));
        } else if kind.is_empty() || kind == "Node" {
            field::each(&path.child("name"), name, names::subdomain, errs);
        }
    }
}
