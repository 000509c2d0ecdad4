//! Versions of one record: what is stored in one version and asked for in another.
//!
//! Events are stored as core v1 and HorizontalPodAutoscalers as autoscaling/v2; `events.k8s.io/v1` and
//! autoscaling/v1 are views of the same record with the same revision. Also the metadata-only view that
//! every kind has.

use crate::kinds::Kind;
use crate::record::encode;
use crate::{Map, Tree};
use bytes::Bytes;
use serde_json::json;

/// `apiVersion` of a kind: `v1`, `apps/v1`.
pub fn api_version(kind: &Kind) -> String {
    if kind.group.is_empty() { kind.version.to_owned() } else { format!("{}/{}", kind.group, kind.version) }
}

/// Whether a kind is a view, not what is stored.
pub fn is_view(kind: &Kind) -> bool {
    matches!((kind.group, kind.version, kind.kind), ("events.k8s.io", _, "Event") | ("autoscaling", "v1", _))
}

/// The kind that records of a kind's storage group-kind are stored as.
pub fn stored_kind(kind: &'static Kind) -> &'static Kind {
    if is_view(kind) { crate::kinds::by_storage(kind.storage).unwrap_or(kind) } else { kind }
}

/// A selectable field's name in the stored version: what headers know it by.
pub fn stored_field(kind: &Kind, field: &str) -> String {
    if kind.group != "events.k8s.io" {
        return field.to_owned();
    }
    match field.split_once('.') {
        Some(("regarding", rest)) => format!("involvedObject.{rest}"),
        _ if field == "reportingController" => "reportingComponent".to_owned(),
        _ => field.to_owned(),
    }
}

/// An object in its storage version, from the version a client wrote.
pub fn to_storage(kind: &Kind, tree: Tree) -> Tree {
    match (kind.group, kind.version, kind.kind) {
        ("events.k8s.io", _, "Event") => event_to_core(tree),
        ("autoscaling", "v1", "HorizontalPodAutoscaler") => hpa_to_v2(tree),
        _ => tree,
    }
}

/// An object in the version asked for, from its storage version.
pub fn from_storage(kind: &Kind, tree: Tree) -> Tree {
    match (kind.group, kind.version, kind.kind) {
        ("events.k8s.io", _, "Event") => event_from_core(tree),
        ("autoscaling", "v1", "HorizontalPodAutoscaler") => hpa_to_v1(tree),
        _ => tree,
    }
}

/// Stored bytes in the version asked for; the same bytes wherever the versions are the same.
pub fn bytes_from_storage(kind: &Kind, json: &Bytes) -> Bytes {
    if is_view(kind) { converted(kind, json) } else { json.clone() }
}

/// Stored bytes in the version asked for, which is not the stored one.
pub fn converted(kind: &Kind, json: &[u8]) -> Bytes {
    encode(&from_storage(kind, serde_json::from_slice(json).unwrap_or(Tree::Null)))
}

/// PartialObjectMetadata of an object.
pub fn partial(object: &Tree) -> Tree {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

/// PartialObjectMetadataList of a list.
pub fn partial_list(list: &Tree) -> Tree {
    let items: Vec<Tree> = list["items"].as_array().into_iter().flatten().map(partial).collect();
    json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list.get("metadata").cloned().unwrap_or_else(|| json!({})),
        // The API server has null for none here, and clients see it.
        "items": if items.is_empty() { Tree::Null } else { Tree::Array(items) },
    })
}

/// Field names of an event: in core v1, in events.k8s.io/v1.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn event_to_core(tree: Tree) -> Tree {
    renamed(
        tree,
        "v1",
        |k| EVENT_FIELDS.iter().find(|(_, new)| *new == k).map(|(core, _)| *core),
        |m| {
            // Core v1 always writes these.
            for f in ["involvedObject", "source"] {
                m.entry(f).or_insert_with(|| json!({}));
            }
            for f in ["firstTimestamp", "lastTimestamp", "eventTime"] {
                m.entry(f).or_insert(Tree::Null);
            }
            for f in ["reportingComponent", "reportingInstance"] {
                m.entry(f).or_insert_with(|| json!(""));
            }
        },
    )
}

fn event_from_core(tree: Tree) -> Tree {
    renamed(
        tree,
        "events.k8s.io/v1",
        |k| EVENT_FIELDS.iter().find(|(core, _)| *core == k).map(|(_, new)| *new),
        |m| {
            for f in ["eventTime", "deprecatedFirstTimestamp", "deprecatedLastTimestamp"] {
                m.entry(f).or_insert(Tree::Null);
            }
            for f in ["regarding", "deprecatedSource"] {
                m.entry(f).or_insert_with(|| json!({}));
            }
            for f in ["reportingController", "reportingInstance"] {
                if m.get(f).and_then(Tree::as_str) == Some("") {
                    m.remove(f);
                }
            }
        },
    )
}

fn renamed(tree: Tree, version: &str, name: impl Fn(&str) -> Option<&'static str>, finish: impl Fn(&mut Map)) -> Tree {
    let Tree::Object(fields) = tree else { return tree };
    let mut out: Map =
        fields.into_iter().map(|(k, v)| (name(&k).map_or_else(|| k.clone(), str::to_owned), v)).collect();
    out.insert("apiVersion".into(), json!(version));
    finish(&mut out);
    Tree::Object(out)
}

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";

/// autoscaling/v1 knows CPU only; what else v2 has travels in annotations, as in Kubernetes.
fn hpa_to_v2(mut tree: Tree) -> Tree {
    tree["apiVersion"] = json!("autoscaling/v2");
    let mut metrics: Vec<Tree> = Vec::new();
    if let Some(cpu) = take(&mut tree["spec"], "targetCPUUtilizationPercentage") {
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": cpu}}}));
    }
    let mut annotation = |key: &str| -> Option<Tree> {
        let all = tree.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?;
        let text = all.remove(key)?;
        let empty = all.is_empty();
        if empty {
            take(&mut tree["metadata"], "annotations");
        }
        serde_json::from_str(text.as_str()?).ok()
    };
    let (more, behavior, conditions, current) =
        (annotation(METRICS), annotation(BEHAVIOR), annotation(CONDITIONS), annotation(CURRENT));
    if let Some(Tree::Array(more)) = more {
        metrics.splice(0..0, more);
    }
    if !metrics.is_empty() {
        tree["spec"]["metrics"] = Tree::Array(metrics);
    }
    if let Some(b) = behavior {
        tree["spec"]["behavior"] = b;
    }
    if tree.get("status").is_some_and(Tree::is_object) {
        let mut shown: Vec<Tree> = current.and_then(|c| c.as_array().cloned()).unwrap_or_default();
        if let Some(cpu) = take(&mut tree["status"], "currentCPUUtilizationPercentage") {
            shown
                .push(json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": cpu}}}));
        }
        tree["status"]["currentMetrics"] = if shown.is_empty() { Tree::Null } else { Tree::Array(shown) };
        if let Some(c) = conditions {
            tree["status"]["conditions"] = c;
        }
    }
    tree
}

fn hpa_to_v1(mut tree: Tree) -> Tree {
    tree["apiVersion"] = json!("autoscaling/v1");
    let cpu = |m: &Tree| m["type"] == "Resource" && m["resource"]["name"] == "cpu";
    let mut notes: Vec<(&str, Tree)> = Vec::new();
    if let Some(Tree::Array(metrics)) = take(&mut tree["spec"], "metrics") {
        let (plain, other): (Vec<Tree>, Vec<Tree>) =
            metrics.into_iter().partition(|m| cpu(m) && m["resource"]["target"]["averageUtilization"].is_i64());
        if let Some(m) = plain.first() {
            tree["spec"]["targetCPUUtilizationPercentage"] = m["resource"]["target"]["averageUtilization"].clone();
        }
        if !other.is_empty() {
            notes.push((METRICS, Tree::Array(other)));
        }
    }
    if let Some(b) = take(&mut tree["spec"], "behavior") {
        notes.push((BEHAVIOR, b));
    }
    if tree.get("status").is_some_and(Tree::is_object) {
        if let Some(Tree::Array(current)) = take(&mut tree["status"], "currentMetrics") {
            if let Some(m) = current.iter().find(|m| cpu(m) && m["resource"]["current"]["averageUtilization"].is_i64())
            {
                tree["status"]["currentCPUUtilizationPercentage"] =
                    m["resource"]["current"]["averageUtilization"].clone();
            }
            let other: Vec<Tree> = current.into_iter().filter(|m| !cpu(m)).collect();
            if !other.is_empty() {
                notes.push((CURRENT, Tree::Array(other)));
            }
        }
        if let Some(c) = take(&mut tree["status"], "conditions")
            && c.as_array().is_some_and(|c| !c.is_empty())
        {
            notes.push((CONDITIONS, c));
        }
    }
    for (key, value) in notes {
        tree["metadata"]["annotations"][key] = Tree::String(value.to_string());
    }
    tree
}

fn take(tree: &mut Tree, field: &str) -> Option<Tree> {
    tree.as_object_mut()?.remove(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_the_same_through_either_group() {
        let core = json!({"apiVersion":"v1","kind":"Event","metadata":{"name":"e"},"involvedObject":{"name":"p"},
            "message":"m","source":{"component":"c"},"firstTimestamp":null,"lastTimestamp":null,"eventTime":null,
            "reportingComponent":"","reportingInstance":"","count":2});
        let view = event_from_core(core.clone());
        assert_eq!(view["regarding"], json!({"name":"p"}));
        assert_eq!((&view["note"], &view["deprecatedCount"]), (&json!("m"), &json!(2)));
        assert_eq!(event_to_core(view), core);
    }

    #[test]
    fn a_field_is_selected_by_its_name_in_either_group() {
        let of =
            |group: &str, field: &str| crate::kinds::by_resource(group, "v1", "events").map(|k| stored_field(k, field));
        assert_eq!(of("events.k8s.io", "regarding.name").as_deref(), Some("involvedObject.name"));
        assert_eq!(of("events.k8s.io", "reportingController").as_deref(), Some("reportingComponent"));
        assert_eq!(of("events.k8s.io", "reason").as_deref(), Some("reason"));
        assert_eq!(of("", "involvedObject.name").as_deref(), Some("involvedObject.name"));
    }

    #[test]
    fn an_autoscaler_keeps_what_v1_cannot_say() {
        let v2 = json!({"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"name":"h"},
            "spec":{"metrics":[{"type":"Pods","pods":{}},
                {"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":80}}}],
                "behavior":{"scaleUp":{}}}});
        let v1 = hpa_to_v1(v2.clone());
        assert_eq!(v1["spec"], json!({"targetCPUUtilizationPercentage":80}));
        assert_eq!(hpa_to_v2(v1), v2);
    }
}
