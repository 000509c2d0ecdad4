#![allow(clippy::unwrap_used)]

use super::*;
use crate::schema::builtin;
use serde_json::json;

pub(super) fn nowhere(_: &Tree, _: &str) -> Option<(Tree, Option<TypeId>)> {
    None
}

pub(super) fn types(api_version: &'static str, kind: &'static str) -> Types<'static> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Types { schema: builtin(), root: builtin().by_kind(group, version, kind), api_version, kind, convert: &nowhere }
}

/// Observed from kube-apiserver 1.37.0 with default settings.
const BEHAVIOURS: &str = include_str!("../../../tests/golden/behaviours.json");
const CREATED: &str = include_str!("../../../tests/golden/created_with_defaults.json");

fn golden(text: &str) -> Vec<Tree> {
    // Times are blanked out in the golden answers.
    serde_json::from_str(&text.replace("<time>", "2026-11-22T19:56:00Z")).unwrap()
}

pub(super) fn writer<'a>(manager: &'a str, subresource: &'a str, second: u64, reset: &'a FieldSet) -> Writer<'a> {
    Writer { manager, subresource, now: Wall(1_795_000_000_000 + second * 1000), reset }
}

pub(super) fn status_reset() -> FieldSet {
    reset_fields("", "", false)
}

/// The record of an object, without times.
pub(super) fn record(object: &Tree) -> Vec<Tree> {
    let mut entries = managed_fields(object).and_then(Tree::as_array).cloned().unwrap_or_default();
    for e in &mut entries {
        e.as_object_mut().unwrap().remove("time");
    }
    entries
}

pub(super) fn fields<'t>(object: &'t Tree, manager: &str) -> &'t Tree {
    let entries = managed_fields(object).and_then(Tree::as_array).map(Vec::as_slice).unwrap_or_default();
    entries.iter().find(|e| e["manager"] == manager).map_or(&Tree::Null, |e| &e["fieldsV1"])
}

fn leak(text: &Tree) -> &'static str {
    Box::leak(text.as_str().unwrap().to_owned().into_boxed_str())
}

/// Removes what a real API server sets only after it has recorded who set what: admission, allocation
/// and preparation.
fn before_admission(object: &mut Tree) {
    fn remove(object: &mut Tree, path: &str) {
        let (parent, key) = path.rsplit_once('/').unwrap();
        if let Some(Tree::Object(map)) = object.pointer_mut(parent) {
            map.remove(key);
        }
    }
    let paths: &[&str] = match object["kind"].as_str().unwrap() {
        "Pod" => {
            for container in ["/spec/containers/0", "/spec/initContainers/0"] {
                remove(object, &format!("{container}/volumeMounts"));
            }
            if let Some(Tree::Array(volumes)) = object.pointer_mut("/spec/volumes") {
                volumes.retain(|v| !v["name"].as_str().unwrap().starts_with("kube-api-access-"));
                if volumes.is_empty() {
                    remove(object, "/spec/volumes");
                }
            }
            &[
                "/spec/preemptionPolicy",
                "/spec/priority",
                "/spec/serviceAccount",
                "/spec/serviceAccountName",
                "/spec/tolerations",
            ]
        }
        "Job" => &["/metadata/labels", "/spec/selector", "/spec/template/metadata/labels"],
        "Service" => {
            remove(object, "/spec/ports/0/nodePort");
            &["/spec/clusterIPs", "/spec/ipFamilies", "/spec/ipFamilyPolicy", "/spec/healthCheckNodePort"]
        }
        "PersistentVolume" | "PersistentVolumeClaim" => &["/metadata/finalizers"],
        "Node" => &["/spec/taints"],
        "Namespace" => &["/spec/finalizers"],
        "TokenRequest" => &["/spec/audiences", "/spec/boundObjectRef"],
        _ => &[],
    };
    for path in paths {
        remove(object, path);
    }
}

#[test]
fn created_objects_have_the_record_a_real_server_gives_them() {
    let reset = status_reset();
    for entry in golden(CREATED) {
        let answer = &entry["response"];
        let types = types(leak(&answer["apiVersion"]), leak(&answer["kind"]));
        assert!(types.root.is_some(), "{}", types.kind);
        let mut new = answer.clone();
        before_admission(&mut new);
        if entry["body"].pointer("/spec/clusterIP").is_none() {
            new.pointer_mut("/spec").and_then(Tree::as_object_mut).map(|s| s.remove("clusterIP"));
        }
        if types.kind == "CSINode" {
            // The sent list was empty; it is stored and answered as null.
            new["spec"]["drivers"] = json!([]);
        }
        let subresource = if types.kind == "TokenRequest" { "token" } else { "" };
        track_update(&types, None, &mut new, &writer("golden", subresource, 0, &reset));
        assert_eq!(record(&new), record(answer), "{} {}", types.kind, entry["path"]);
    }
}

fn behaviour(index: usize) -> (Tree, Tree) {
    let mut all = golden(BEHAVIOURS);
    let e = all.swap_remove(index);
    (e["body"].clone(), e["response"].clone())
}

#[test]
fn patched_objects_have_the_record_a_real_server_gives_them() {
    let reset = status_reset();
    // A ConfigMap whose one key is replaced by another.
    let ((_, created), (patch, patched)) = (behaviour(2), behaviour(41));
    let mut new = created.clone();
    crate::patch::merge::apply(&mut new, &patch).unwrap();
    track_update(&types("v1", "ConfigMap"), Some(&created), &mut new, &writer("golden", "", 1, &reset));
    assert_eq!(record(&new), record(&patched));
    assert_eq!(new["data"], patched["data"]);

    // A Deployment through three strategic patches, a controller writing its status in between.
    let types = types("apps/v1", "Deployment");
    let (_, mut old) = behaviour(46);
    for index in [47, 49] {
        let (patch, want) = behaviour(index);
        old["status"] = want["status"].clone();
        for key in ["annotations", "generation"] {
            old["metadata"][key] = want["metadata"][key].clone();
        }
        let mut new = old.clone();
        crate::patch::strategic::apply(types.schema, types.root.unwrap(), &mut new, &patch).unwrap();
        assert_eq!(new["spec"], want["spec"], "{index}");
        track_update(&types, Some(&old), &mut new, &writer("golden", "", 1, &reset));
        for manager in ["golden", "kube-controller-manager"] {
            assert_eq!(fields(&new, manager), fields(&want, manager), "{index} {manager}");
        }
        old = want;
    }
}

#[test]
fn entries_are_sorted_as_a_real_server_sorts_them() {
    for e in golden(BEHAVIOURS) {
        let object = &e["response"];
        // The real times are not known, but entries of one operation stand in their order.
        let Some(list) = managed_fields(object).and_then(Tree::as_array) else { continue };
        let mut timed = list.clone();
        for (i, entry) in timed.iter_mut().enumerate() {
            entry["time"] = format!("2026-11-22T19:56:{i:02}Z").into();
        }
        let decoded = managers::decode(Some(&timed.clone().into())).unwrap();
        assert_eq!(managers::encode(decoded), Some(Tree::Array(timed)));
    }
    let entry = |operation: &str, manager: &str, time: Option<&str>| {
        let mut e = json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {}}});
        if let Some(time) = time {
            e["time"] = time.into();
        }
        e
    };
    let sorted = [
        entry("Apply", "z", None),
        entry("Apply", "a", Some("2026-01-01T00:00:01Z")),
        entry("Apply", "b", Some("2026-01-01T00:00:01Z")),
        entry("Update", "z", Some("2026-01-01T00:00:00Z")),
        entry("Update", "a", Some("2026-01-01T00:00:02Z")),
    ];
    let shuffled: Vec<Tree> = [4, 2, 0, 3, 1].iter().map(|i| sorted[*i].clone()).collect();
    let again = managers::encode(managers::decode(Some(&shuffled.into())).unwrap());
    assert_eq!(again, Some(Tree::from(sorted.to_vec())));
}

#[test]
fn applying_a_config_map_goes_as_with_a_real_server() {
    let (types, reset) = (types("v1", "ConfigMap"), status_reset());
    let mut live: Option<Tree> = None;
    for (index, manager, force) in [(51, "m1", false), (52, "m2", true), (53, "m1", false)] {
        let (config, want) = behaviour(index);
        let got = apply(&types, live.as_ref(), &config, &writer(manager, "", index as u64, &reset), force).unwrap();
        assert_eq!(record(&got), record(&want), "{index}");
        assert_eq!(got["data"], want["data"], "{index}");
        let mut stored = want;
        stored["metadata"]["managedFields"] = got["metadata"]["managedFields"].clone();
        live = Some(stored);
    }
    let (config, refusal) = behaviour(55);
    let e = apply(&types, live.as_ref(), &config, &writer("m1", "", 60, &reset), false).unwrap_err();
    assert_eq!(e.to_tree(), refusal);
}

#[test]
fn applying_a_deployment_goes_as_with_a_real_server() {
    let (types, reset) = (types("apps/v1", "Deployment"), status_reset());
    let (config, want) = behaviour(56);
    let created = apply(&types, None, &config, &writer("m1", "", 0, &reset), false).unwrap();
    assert_eq!(record(&created), record(&want));

    let live = want;
    for (index, manager) in [(57, "m2"), (58, "m3")] {
        let (config, refusal) = behaviour(index);
        let e = apply(&types, Some(&live), &config, &writer(manager, "", 1, &reset), false).unwrap_err();
        assert_eq!(e.to_tree(), refusal, "{index}");
    }
}

#[test]
fn a_custom_resource_has_the_record_a_real_server_gives_it() {
    use crate::schema::{Field, ListKind, ObjectType, PatchRule, Scalar, Schema, Type, Zero};
    let mut schema = Schema::default();
    let object = |fields: Vec<(&str, TypeId)>, schema: &mut Schema| {
        let fields = fields
            .into_iter()
            .map(|(name, ty)| Field {
                name: name.into(),
                ty,
                number: 0,
                via: vec![],
                zero: Zero::Kept,
                required: false,
                list: ListKind::Atomic,
                atomic: false,
                granular: false,
                patch: PatchRule::default(),
                default: None,
                values: vec![],
            })
            .collect();
        schema.add(Type::Object(ObjectType { fields, ..ObjectType::default() }))
    };
    let text = schema.add(Type::Scalar(Scalar::String));
    let number = schema.add(Type::Scalar(Scalar::Int64));
    let spec = object(vec![("n", number)], &mut schema);
    let open = object(vec![], &mut schema);
    if let Type::Object(open) = &mut schema.types[open.0 as usize] {
        open.open = true;
    }
    let root = object(
        vec![("apiVersion", text), ("free", open), ("kind", text), ("metadata", open), ("spec", spec)],
        &mut schema,
    );
    let types =
        Types { schema: &schema, root: Some(root), api_version: "gold.test/v1", kind: "Bee", convert: &nowhere };
    let (_, want) = behaviour(83);
    let mut new = want.clone();
    new["metadata"].as_object_mut().unwrap().remove("managedFields");
    let reset = reset_fields("Bee.gold.test", "", true);
    track_update(&types, None, &mut new, &writer("golden", "", 0, &reset));
    assert_eq!(record(&new), record(&want));
    // Below an open struct maps are owned key by key.
    new["free"] = json!({"a": {"b": 1}, "l": [1]});
    let old = want.clone();
    track_update(&types, Some(&old), &mut new, &writer("u", "", 1, &reset));
    assert_eq!(*fields(&new, "u"), json!({"f:free": {".": {}, "f:a": {".": {}, "f:b": {}}, "f:l": {}}}));
}
