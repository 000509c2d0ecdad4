//! The kinds' rules against what a kube-apiserver 1.37.0 with default settings was seen to answer.
//!
//! `golden/created_with_defaults.json`: small objects and what came back. `golden/validation_*.json`: requests
//! (`body`; `old`: the stored object of an update) with status, causes, warnings and response. Where the server
//! walks a Go map the order of causes is chance, so causes are compared sorted.

#![allow(clippy::unwrap_used)]

use objects::kinds::{self, Context, Kind, field, tree};
use serde_json::{Value, json};

fn kind_of(obj: &Value) -> &'static Kind {
    let version = obj["apiVersion"].as_str().unwrap();
    kinds::by_api_version(version, obj["kind"].as_str().unwrap()).unwrap()
}

fn context(subresource: &str) -> Context<'_> {
    Context { now: base::Wall(1_767_225_600_000), subresource }
}

/// Drops what says nothing, as Go's `omitempty` does: the schema decides the rest, and has tests of its own.
fn canonical(v: &mut Value) {
    match v {
        Value::Object(map) => {
            map.values_mut().for_each(canonical);
            map.retain(|_, v| !tree::is_empty(v) || matches!(v, Value::Bool(_)));
        }
        Value::Array(list) => list.iter_mut().for_each(canonical),
        _ => {}
    }
}

/// What the server sets, allocates or admits on its own: not these rules' matter.
fn without_the_servers_own(mut v: Value) -> Value {
    if let Some(metadata) = v.get_mut("metadata").and_then(Value::as_object_mut) {
        for name in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "selfLink"] {
            metadata.remove(name);
        }
        if let Some(list) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
            list.retain(|f| f != "kubernetes.io/pvc-protection" && f != "kubernetes.io/pv-protection");
        }
    }
    if v["kind"] == "Pod" {
        let spec = v["spec"].as_object_mut().unwrap();
        for name in ["priority", "preemptionPolicy", "serviceAccount", "serviceAccountName"] {
            spec.remove(name);
        }
        let token = |m: &Value| m["name"].as_str().is_some_and(|n| n.starts_with("kube-api-access-"));
        if let Some(list) = spec.get_mut("volumes").and_then(Value::as_array_mut) {
            list.retain(|v| !token(v));
        }
        for containers in ["containers", "initContainers"] {
            for container in spec.get_mut(containers).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(list) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
                    list.retain(|v| !token(v));
                }
            }
        }
        if let Some(list) = spec.get_mut("tolerations").and_then(Value::as_array_mut) {
            list.retain(|t| {
                let key = t["key"].as_str().unwrap_or("");
                key != "node.kubernetes.io/not-ready" && key != "node.kubernetes.io/unreachable"
            });
        }
        if let Some(list) = v["status"].get_mut("conditions").and_then(Value::as_array_mut) {
            list.iter_mut().for_each(|c| drop(c.as_object_mut().unwrap().remove("lastTransitionTime")));
        }
    }
    if v["kind"] == "Node" {
        if let Some(list) = v["spec"].get_mut("taints").and_then(Value::as_array_mut) {
            list.retain(|t| t["key"] != "node.kubernetes.io/not-ready");
        }
        if let Some(status) = v["status"].as_object_mut() {
            // Written although empty, which is the schema's business.
            status.remove("daemonEndpoints");
            status.remove("nodeInfo");
        }
    }
    if v["kind"] == "PersistentVolume" {
        v["status"].as_object_mut().unwrap().remove("lastPhaseTransitionTime");
    }
    if v["kind"] == "Service" {
        let spec = v["spec"].as_object_mut().unwrap();
        for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"] {
            spec.remove(name);
        }
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            port.as_object_mut().unwrap().remove("nodePort");
        }
    }
    canonical(&mut v);
    v
}

/// What admission gives every pod before it is checked.
fn admit(kind: &Kind, obj: &mut Value) {
    if kind.kind == "Pod" {
        let spec = tree::child(obj, "spec");
        tree::default_text(spec, "serviceAccountName", "default");
        tree::default_text(spec, "serviceAccount", "default");
    }
}

/// One request through the rules: causes, warnings and the object.
fn decide(entry: &Value) -> (Vec<[String; 3]>, Vec<String>, Value) {
    let kind = kind_of(&entry["body"]);
    let cx = context(entry["subresource"].as_str().unwrap_or(""));
    let mut obj = entry["body"].clone();
    kind.rules.default(&mut obj);
    let old = entry.get("old");
    let errors = match old {
        Some(old) => {
            kinds::prepare_update(kind, &mut obj, old, &cx);
            kinds::validate_update(kind, &obj, old, &cx)
        }
        None => {
            admit(kind, &mut obj);
            kinds::prepare_create(kind, &mut obj, &cx);
            kinds::validate_create(kind, &obj, &cx)
        }
    };
    let mut causes: Vec<[String; 3]> = errors.into_iter().map(|e| [e.field, e.reason.to_owned(), e.message]).collect();
    causes.sort();
    let mut warnings = Vec::new();
    kind.rules.warnings(&obj, old, &mut warnings);
    (causes, warnings, obj)
}

fn replay(golden: &str) {
    let entries: Vec<Value> = serde_json::from_str(golden).unwrap();
    assert!(entries.len() > 20);
    let mut wrong = Vec::new();
    for entry in &entries {
        let what = entry["what"].as_str().unwrap();
        let (causes, warnings, obj) = decide(entry);
        let mut expected: Vec<[String; 3]> =
            entry.get("causes").map_or_else(Vec::new, |c| serde_json::from_value(c.clone()).unwrap());
        expected.sort();
        for cause in &mut expected {
            // What follows is a diff of Go's own types.
            if let Some(at) = cause[2].find("\n@@") {
                cause[2].truncate(at);
            }
        }
        let causes: Vec<[String; 3]> = causes
            .into_iter()
            .map(|[field, reason, message]| {
                let message = match message.find("\n- ").or(message.find("\n+ ")) {
                    Some(at) if message.contains("may not change fields") => message[..at].to_owned(),
                    _ => message,
                };
                [field, reason, message]
            })
            .collect();
        if causes != expected {
            let missing: Vec<_> = expected.iter().filter(|c| !causes.contains(c)).collect();
            let surplus: Vec<_> = causes.iter().filter(|c| !expected.contains(c)).collect();
            wrong.push(format!(
                "{what}: causes\n   missing {missing:#?}\n   surplus {surplus:#?} ({} for {})",
                causes.len(),
                expected.len()
            ));
            continue;
        }
        let Some(response) = entry.get("response") else { continue };
        let expected_warnings: Vec<String> =
            entry.get("warnings").map_or_else(Vec::new, |w| serde_json::from_value(w.clone()).unwrap());
        if warnings != expected_warnings {
            wrong.push(format!("{what}: warnings\n   {warnings:#?}\n   instead of {expected_warnings:#?}"));
        }
        let (is, should) = (without_the_servers_own(obj), without_the_servers_own(response.clone()));
        if is != should {
            wrong.push(format!(
                "{what}: object\n   {}\n   instead of\n   {}",
                field::go_json(&is),
                field::go_json(&should)
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ\n{}", wrong.len(), entries.len(), wrong.join("\n"));
}

/// The kinds of the golden objects that have rules of their own.
const HAVE_RULES: &[&str] = &[
    "Pod",
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "ControllerRevision",
    "ReplicationController",
    "CronJob",
    "Service",
    "ConfigMap",
    "Secret",
    "ServiceAccount",
    "EndpointSlice",
    "Event",
    "ResourceQuota",
    "PersistentVolumeClaim",
    "PersistentVolume",
    "PodTemplate",
    "Node",
    "Namespace",
    "Lease",
    "PriorityClass",
    "ClusterRole",
    "RoleBinding",
];

#[test]
fn small_objects_come_back_with_the_defaults_a_real_server_gives() {
    let entries: Vec<Value> = serde_json::from_str(include_str!("golden/created_with_defaults.json")).unwrap();
    let mut checked = 0;
    for entry in &entries {
        if !entry["path"].as_str().unwrap().contains("/api") || entry["body"]["metadata"].is_null() {
            continue;
        }
        let kind = kind_of(&entry["body"]);
        if !HAVE_RULES.contains(&kind.kind) {
            continue;
        }
        let mut body = entry["body"].clone();
        if kind.namespaced {
            body["metadata"]["namespace"] = json!("gold");
        }
        let (causes, _, obj) = decide(&json!({"body": body}));
        assert_eq!(causes, Vec::<[String; 3]>::new(), "{body}");
        let (is, should) = (without_the_servers_own(obj), without_the_servers_own(entry["response"].clone()));
        assert_eq!(field::go_json(&is), field::go_json(&should));
        checked += 1;
    }
    assert!(checked >= 27, "{checked}");
}

#[test]
fn workloads_services_and_rbac_answer_as_a_real_server() {
    replay(include_str!("golden/validation_apps.json"));
}

#[test]
fn core_kinds_answer_as_a_real_server() {
    replay(include_str!("golden/validation_core.json"));
}

#[test]
fn sizes_are_bounded() {
    let too_long = |body: Value| {
        let (causes, ..) = decide(&json!({"body": body}));
        causes.into_iter().map(|[field, _, message]| format!("{field}: {message}")).collect::<Vec<_>>()
    };
    let meta = json!({"name": "x", "namespace": "gold"});
    let data =
        |n: usize| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "x".repeat(n)}});
    assert_eq!(too_long(data(1024 * 1024 + 1)), ["[]: Too long: may not be more than 1048576 bytes"]);
    assert_eq!(too_long(data(1024 * 1024)), Vec::<String>::new());
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"a": "x".repeat(1024 * 1024 + 1)}});
    assert_eq!(too_long(secret), ["data: Too long: may not be more than 1048576 bytes"]);
    let mut annotated = data(1);
    annotated["metadata"]["annotations"] = json!({"a": "x".repeat(256 * 1024)});
    assert_eq!(too_long(annotated), ["metadata.annotations: Too long: may not be more than 262144 bytes"]);
}
