//! Nodes.

use super::field::{self, Path};
use super::resources;
use super::tree::{self, Fields, text};
use super::{Context, FieldError, Rules, meta, names};
use crate::Tree;
use serde_json::json;

/// Node's rules.
pub struct Node;

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

impl Rules for Node {
    fn default(&self, obj: &mut Tree) {
        let Some(status) = tree::existing(obj, "status") else { return };
        resources::default_list(status, "capacity");
        resources::default_list(status, "allocatable");
        if status.has("capacity") && !status.has("allocatable") {
            let capacity = status.at("capacity").clone();
            tree::set(status, "allocatable", capacity);
        }
    }

    fn prepare_create(&self, obj: &mut Tree, _cx: &Context<'_>) {
        // Dynamic kubelet configuration is gone; what is left of its fields is dropped.
        if let Some(spec) = tree::existing(obj, "spec") {
            tree::remove(spec, "configSource");
            single_cidr(spec);
        }
        if let Some(status) = tree::existing(obj, "status") {
            tree::remove(status, "config");
        }
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree, cx: &Context<'_>) {
        if cx.subresource == "status" {
            tree::keep(new, old, "spec");
            return;
        }
        tree::keep(new, old, "status");
        if let Some(spec) = tree::existing(new, "spec") {
            if !old.at("spec").has("configSource") {
                tree::remove(spec, "configSource");
            }
            single_cidr(spec);
        }
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let (metadata, status) = (Path::Root.child("metadata"), Path::Root.child("status"));
        // Kubernetes says metadata.taints; people search for it.
        taints(obj.at("spec"), &metadata.child("taints"), errs);
        amounts(obj.at("status"), &status, errs);
        let swap = obj.at("status").at("nodeInfo").at("swap").int("capacity");
        if let Some(capacity) = swap.filter(|c| *c <= 0) {
            let parent = metadata.child("nodeSwapStatus");
            errs.push(field::invalid(&parent.child("capacity"), capacity, "must be greater than zero"));
        }
        cidrs(obj.at("spec"), errs);
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        if cx.subresource != "status" {
            meta::again(new, self.names(), false, errs);
            self.validate(new, cx, errs);
        }
        let (metadata, spec, status) =
            (Path::Root.child("metadata"), Path::Root.child("spec"), Path::Root.child("status"));
        amounts(new.at("status"), &status, errs);
        let addresses = new.at("status").list("addresses");
        let at = status.child("addresses");
        for (i, address) in addresses.iter().enumerate() {
            if addresses.iter().take(i).any(|a| a == address) {
                let shown = json!({"Type": address.text("type"), "Address": address.text("address")});
                errs.push(field::duplicate(&at.index(i), GoStruct(&shown, &["Type", "Address"])));
            }
        }
        let (was, is) = (old.at("spec"), new.at("spec"));
        let changed =
            was.list("podCIDRs").iter().enumerate().filter(|(i, c)| is.list("podCIDRs").get(*i) != Some(c)).count();
        if !was.list("podCIDRs").is_empty() {
            let times = if was.list("podCIDRs").len() == is.list("podCIDRs").len() { changed } else { 1 };
            for _ in 0..times {
                let detail = "node updates may not change podCIDR except from \"\" to valid";
                errs.push(field::forbidden(&spec.child("podCIDRs"), detail));
            }
        }
        let (before, after) = (was.text("providerID"), is.text("providerID"));
        if !before.is_empty() && before != after {
            let detail =
                if after.is_empty() { "field cannot be cleared once set" } else { "field cannot be modified once set" };
            errs.push(field::invalid(&spec.child("providerID"), &Tree::Null, detail));
        }
        taints(is, &metadata.child("taints"), errs);
        if is.text("externalID") != was.text("externalID") {
            errs.push(field::forbidden(&spec.child("externalID"), "may not be updated"));
        }
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn select(&self, obj: &Tree, field: &str) -> String {
        if field == "spec.unschedulable" { obj.at("spec").flag("unschedulable").to_string() } else { String::new() }
    }
}

/// A value of an internal Go type: JSON in the order its fields are declared.
pub struct GoStruct<'a>(pub &'a Tree, pub &'a [&'a str]);
impl field::Shown for GoStruct<'_> {
    fn shown(&self) -> String {
        let parts: Vec<String> =
            self.1.iter().map(|n| format!("{}:{}", field::quoted(n), field::go_json(self.0.at(n)))).collect();
        format!("{{{}}}", parts.join(","))
    }
}

/// `podCIDR` is the first of `podCIDRs`, whichever was given.
fn single_cidr(spec: &mut Tree) {
    let (one, first) = (spec.text("podCIDR").to_owned(), spec.list("podCIDRs").first().map(|c| text(c).to_owned()));
    match first {
        None if !one.is_empty() => tree::set(spec, "podCIDRs", vec![Tree::from(one)]),
        Some(first) if one.is_empty() => tree::set(spec, "podCIDR", first),
        _ => {}
    }
}

fn amounts(status: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    for name in ["capacity", "allocatable"] {
        let at = path.child(name);
        for (key, value) in status.entries(name) {
            resources::amount(key, value, &at.child(key), errs);
        }
    }
}

fn taints(spec: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let list = spec.list("taints");
    for (i, taint) in list.iter().enumerate() {
        let at = path.index(i);
        let (key, effect) = (taint.text("key"), taint.text("effect"));
        field::each(&at.child("key"), key, names::qualified_name, errs);
        let wrong = names::label_value(taint.text("value"));
        if !wrong.is_empty() {
            errs.push(field::invalid(&at.child("value"), taint.text("value"), &wrong.join(";")));
        }
        field::one_of(&at.child("effect"), effect, EFFECTS, true, errs);
        if list.iter().take(i).any(|t| t.text("key") == key && t.text("effect") == effect) {
            let shown = json!({
                "Key": key, "Value": taint.text("value"), "Effect": effect, "TimeAdded": taint.at("timeAdded"),
            });
            let mut error = field::duplicate(&at, GoStruct(&shown, &["Key", "Value", "Effect", "TimeAdded"]));
            error.message.push_str(": taints must be unique by key and effect pair");
            errs.push(error);
        }
    }
}

fn cidrs(spec: &Tree, errs: &mut Vec<FieldError>) {
    let parent = Path::Root.child("spec");
    let path = parent.child("podCIDRs");
    let list = spec.list("podCIDRs");
    for (i, cidr) in list.iter().enumerate() {
        field::each(&path.index(i), text(cidr), super::address::cidr, errs);
    }
    if list.len() > 1 {
        let broken =
            list.iter().enumerate().find(|(_, c)| super::address::cidr(text(c)).join("").contains("valid CIDR"));
        if let Some((i, cidr)) = broken {
            let cidr = text(cidr);
            let detail = format!(
                "invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR[{i}]: <nil> (invalid CIDR address: {cidr})"
            );
            errs.push(field::internal(&path, &detail));
        }
    }
    let six = list.iter().filter(|c| text(c).contains(':')).count();
    if list.len() > 2 || (list.len() == 2 && six != 1) {
        errs.push(field::invalid(&path, spec.at("podCIDRs"), "may specify no more than one CIDR for each IP family"));
    }
}
