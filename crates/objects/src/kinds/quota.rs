//! LimitRanges and ResourceQuotas.

use super::field::{self, Path};
use super::resources::{self, quantity};
use super::tree::{self, Fields, text};
use super::{Context, FieldError, Rules, meta};
use crate::{Map, Tree};
use base::Quantity;
use std::collections::{BTreeMap, BTreeSet};

/// LimitRange's rules.
pub struct LimitRange;
/// ResourceQuota's rules.
pub struct ResourceQuota;

impl Rules for LimitRange {
    fn default(&self, obj: &mut Tree) {
        for item in tree::items(tree::child(obj, "spec"), "limits") {
            for name in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
                resources::default_list(item, name);
            }
            if item.text("type") != "Container" {
                continue;
            }
            let of = |item: &Tree, name: &str| item.at(name).as_object().cloned().unwrap_or_default();
            let mut default = of(item, "default");
            fill(&mut default, of(item, "max"));
            let mut request = of(item, "defaultRequest");
            fill(&mut request, default.clone());
            fill(&mut request, of(item, "min"));
            for (name, list) in [("default", default), ("defaultRequest", request)] {
                if list.is_empty() {
                    tree::remove(item, name);
                } else {
                    tree::set(item, name, list);
                }
            }
        }
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let spec = Path::Root.child("spec");
        let limits = spec.child("limits");
        let mut seen = BTreeSet::new();
        for (i, item) in obj.at("spec").list("limits").iter().enumerate() {
            limit(item, &limits.index(i), &mut seen, errs);
        }
    }

    fn validate_update(&self, new: &Tree, _old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        meta::again(new, self.names(), true, errs);
        self.validate(new, cx, errs);
    }
}

fn fill(into: &mut Map, from: Map) {
    for (key, value) in from {
        into.entry(key).or_insert(value);
    }
}

fn limit<'a>(item: &'a Tree, at: &Path<'_>, seen: &mut BTreeSet<&'a str>, errs: &mut Vec<FieldError>) {
    let kind = item.text("type");
    let before = errs.len();
    field::each(&at.child("type"), kind, super::names::qualified_name, errs);
    if errs.len() == before && !kind.contains('/') && !["Pod", "Container", "PersistentVolumeClaim"].contains(&kind) {
        errs.push(field::invalid(&at.child("type"), kind, "must be a standard limit type or fully qualified"));
    }
    if !seen.insert(kind) {
        errs.push(field::duplicate(&at.child("type"), kind));
    }
    let mut lists: BTreeMap<&str, BTreeMap<&str, Quantity>> = BTreeMap::new();
    let mut keys = BTreeSet::new();
    for name in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        if kind == "Pod" && name.starts_with("default") {
            if item.entries(name).next().is_some() {
                errs.push(field::forbidden(&at.child(name), "may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        if name == "maxLimitRequestRatio"
            && kind == "PersistentVolumeClaim"
            && !item.at("min").has("storage")
            && !item.at("max").has("storage")
        {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            errs.push(field::required(&at.child("limits"), detail));
        }
        for (key, value) in item.entries(name) {
            let path = at.child(name);
            if kind == "Pod" || kind == "Container" {
                resources::container_name(key, &path.key(key), errs);
            } else {
                resources::name(key, &path.key(key), errs);
            }
            keys.insert(key);
            if let Some(q) = quantity(value) {
                lists.entry(name).or_default().insert(key, q);
            }
        }
    }
    for key in keys {
        let of = |name: &str| lists.get(name).and_then(|l| l.get(key)).copied();
        bounds(key, [of("min"), of("max"), of("default"), of("defaultRequest"), of("maxLimitRequestRatio")], at, errs);
    }
}

/// How the five numbers of one resource must relate.
fn bounds(
    key: &str,
    [min, max, default, request, ratio]: [Option<Quantity>; 5],
    at: &Path<'_>,
    errs: &mut Vec<FieldError>,
) {
    let mut wrong = |name: &str, value: Quantity, detail: String| {
        errs.push(field::invalid(&at.child(name).key(key), value.to_string(), &detail));
    };
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        wrong("min", min, format!("min value {min} is greater than max value {max}"));
    }
    if let (Some(request), Some(min)) = (request, min)
        && min > request
    {
        wrong("defaultRequest", request, format!("min value {min} is greater than default request value {request}"));
    }
    if let (Some(request), Some(max)) = (request, max)
        && request > max
    {
        wrong("defaultRequest", request, format!("default request value {request} is greater than max value {max}"));
    }
    if let (Some(request), Some(default)) = (request, default)
        && request > default
    {
        let detail = format!("default request value {request} is greater than default limit value {default}");
        wrong("defaultRequest", request, detail);
    }
    if let (Some(default), Some(min)) = (default, min)
        && min > default
    {
        wrong("default", min, format!("min value {min} is greater than default value {default}"));
    }
    if let (Some(default), Some(max)) = (default, max)
        && default > max
    {
        wrong("default", max, format!("default value {default} is greater than max value {max}"));
    }
    if let Some(ratio) = ratio {
        if ratio < Quantity::from_milli(1000) {
            wrong("maxLimitRequestRatio", ratio, format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (min, max) {
            #[allow(clippy::cast_precision_loss)]
            let limit = max.milli_value() as f64 / min.milli_value() as f64;
            #[allow(clippy::cast_precision_loss)]
            if ratio.milli_value() as f64 / 1000.0 > limit {
                let detail = format!("ratio {ratio} is greater than max/min = {limit:.6}");
                wrong("maxLimitRequestRatio", ratio, detail);
            }
        }
    }
    if let (Some(default), Some(request)) = (default, request)
        && !resources::may_overcommit(key)
        && default != request
    {
        let detail = format!("default value {default} must equal to defaultRequest value {request} in {key}");
        wrong("defaultRequest", request, detail);
    }
}

const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "VolumeAttributesClass",
    "CrossNamespacePodAffinity",
];

impl Rules for ResourceQuota {
    fn default(&self, obj: &mut Tree) {
        if let Some(spec) = tree::existing(obj, "spec") {
            resources::default_list(spec, "hard");
        }
        if let Some(status) = tree::existing(obj, "status") {
            resources::default_list(status, "hard");
            resources::default_list(status, "used");
        }
    }

    fn prepare_create(&self, obj: &mut Tree, _cx: &Context<'_>) {
        tree::set(obj, "status", Map::new());
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree, cx: &Context<'_>) {
        tree::keep(new, old, if cx.subresource == "status" { "spec" } else { "status" });
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        quota_spec(obj.at("spec"), errs);
        quota_status(obj.at("status"), errs);
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        if cx.subresource == "status" {
            if new.at("metadata").text("resourceVersion").is_empty() {
                errs.push(field::required(&Path::Root.child("resourceVersion"), ""));
            }
            quota_status(new.at("status"), errs);
            return;
        }
        quota_spec(new.at("spec"), errs);
        let scopes =
            |obj: &Tree| obj.at("spec").list("scopes").iter().map(|s| text(s).to_owned()).collect::<BTreeSet<_>>();
        if scopes(new) != scopes(old) {
            let spec = Path::Root.child("spec");
            errs.push(field::invalid(&spec.child("scopes"), new.at("spec").at("scopes"), field::IMMUTABLE));
        }
    }

    fn warnings(&self, new: &Tree, old: Option<&Tree>, out: &mut Vec<String>) {
        if old.is_some() {
            return;
        }
        let hard = new.at("spec").at("hard");
        for name in ["cpu", "memory", "storage", "ephemeral-storage"] {
            let mut request_name = format!("requests.{name}");
            if !hard.has(&request_name) && (name == "cpu" || name == "memory") {
                request_name = name.to_owned();
            }
            let limit_name = format!("limits.{name}");
            if let (Some(request), Some(limit)) = (quantity(hard.at(&request_name)), quantity(hard.at(&limit_name)))
                && request > limit
            {
                out.push(format!(
                    "ResourceQuota {request_name} ({request}) should be less than {limit_name} ({limit})"
                ));
            }
        }
    }
}

fn resource_list(owner: &Tree, parent: &Path<'_>, name: &str, errs: &mut Vec<FieldError>) {
    let path = parent.child(name);
    for (key, value) in owner.entries(name) {
        resources::quota_name(key, &path.key(key), errs);
        resources::amount(key, value, &path.key(key), errs);
    }
}

fn quota_status(status: &Tree, errs: &mut Vec<FieldError>) {
    let path = Path::Root.child("status");
    resource_list(status, &path, "hard", errs);
    resource_list(status, &path, "used", errs);
}

fn quota_spec(spec: &Tree, errs: &mut Vec<FieldError>) {
    let path = Path::Root.child("spec");
    resource_list(spec, &path, "hard", errs);
    let hard: Vec<&str> =
        spec.entries("hard").map(|(k, _)| k).filter(|k| resources::is_standard_for_quota(k)).collect();
    let at = path.child("scopes");
    let mut seen = BTreeSet::new();
    for scope in spec.list("scopes").iter().map(text) {
        if !SCOPES.contains(&scope) {
            errs.push(field::invalid(&at, spec.at("scopes"), "unsupported scope"));
        }
        for _ in hard.iter().filter(|k| !scope_fits(scope, k)) {
            errs.push(field::invalid(&at, spec.at("scopes"), "unsupported scope applied to resource"));
        }
        seen.insert(scope);
    }
    conflicting(&seen, &at, spec, errs);
    if spec.has("scopeSelector") {
        let parent = path.child("scopeSelector");
        scope_selector(spec, &hard, &parent.child("matchExpressions"), errs);
    }
}

fn conflicting(seen: &BTreeSet<&str>, at: &Path<'_>, spec: &Tree, errs: &mut Vec<FieldError>) {
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if seen.contains(one) && seen.contains(other) {
            errs.push(field::invalid(at, spec.at("scopes"), "conflicting scopes"));
        }
    }
}

fn scope_selector(spec: &Tree, hard: &[&str], at: &Path<'_>, errs: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for term in spec.at("scopeSelector").list("matchExpressions") {
        let (scope, operator) = (term.text("scopeName"), term.text("operator"));
        if !SCOPES.contains(&scope) {
            errs.push(field::invalid(&at.child("scopeName"), scope, "unsupported scope"));
        }
        for _ in hard.iter().filter(|k| !scope_fits(scope, k)) {
            errs.push(field::invalid(
                at,
                selector_in_go(spec.at("scopeSelector")),
                "unsupported scope applied to resource",
            ));
        }
        let only_exists = ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"]
            .contains(&scope);
        if only_exists && operator != "Exists" {
            errs.push(field::invalid(&at.child("operator"), operator, "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"));
        }
        let values = term.list("values");
        match operator {
            "In" | "NotIn" if values.is_empty() => errs.push(field::required(
                &at.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errs.push(field::invalid(
                &at.child("values"),
                term.at("values"),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errs.push(field::invalid(&at.child("operator"), operator, "not a valid selector operator")),
        }
        seen.insert(scope);
    }
    conflicting(&seen, at, spec, errs);
}

/// The selector as Go's internal type prints it, without JSON names.
fn selector_in_go(selector: &Tree) -> Tree {
    let terms: Vec<Tree> = selector
        .list("matchExpressions")
        .iter()
        .map(|t| {
            serde_json::json!({"ScopeName": t.text("scopeName"), "Operator": t.text("operator"), "Values": t.at("values")})
        })
        .collect();
    serde_json::json!({"MatchExpressions": terms})
}

fn scope_fits(scope: &str, resource: &str) -> bool {
    let compute = ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
    match scope {
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            resource == "pods" || compute.contains(&resource)
        }
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => resource == "persistentvolumeclaims" || resource == "requests.storage",
        _ => true,
    }
}
