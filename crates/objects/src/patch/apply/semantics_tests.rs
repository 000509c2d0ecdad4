//! What server-side apply means, case by case, and its laws.

#![allow(clippy::unwrap_used)]

use super::tests::{fields, nowhere, record, status_reset, types, writer};
use super::*;
use crate::schema::builtin;
use proptest::prelude::*;
use serde_json::json;

const POD: (&str, &str) = ("v1", "Pod");

fn pod(spec: Tree) -> Tree {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
}

/// A configuration that says nothing. (`spec: {}` would say that there is a spec.)
fn nothing() -> Tree {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}})
}

fn meta(meta: Tree) -> Tree {
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    for (k, v) in meta.as_object().unwrap() {
        object["metadata"][k] = v.clone();
    }
    object
}

/// A world of one object, whose clock goes on a second with every write.
struct World {
    types: Types<'static>,
    live: Option<Tree>,
    second: u64,
}

impl World {
    fn new((api_version, kind): (&'static str, &'static str)) -> World {
        World { types: types(api_version, kind), live: None, second: 0 }
    }

    fn apply_as(&mut self, manager: &str, config: Tree, force: bool, subresource: &str) -> Result<&Tree, Status> {
        self.second += 1;
        let reset = status_reset();
        let writer = writer(manager, subresource, self.second, &reset);
        let mut object = apply(&self.types, self.live.as_ref(), &config, &writer, force)?;
        object["metadata"]["uid"] = "u".into();
        Ok(self.live.insert(object))
    }

    fn apply(&mut self, manager: &str, config: Tree) -> Result<&Tree, Status> {
        self.apply_as(manager, config, false, "")
    }

    fn write(&mut self, manager: &str, subresource: &str, change: impl FnOnce(&mut Tree)) -> &Tree {
        self.second += 1;
        let mut new = self.live.clone().unwrap_or_else(|| self.types.zero());
        change(&mut new);
        let reset = reset_fields("", subresource, false);
        track_update(&self.types, self.live.as_ref(), &mut new, &writer(manager, subresource, self.second, &reset));
        new["metadata"]["uid"] = "u".into();
        self.live.insert(new)
    }

    fn live(&self) -> &Tree {
        self.live.as_ref().unwrap()
    }
}

fn env(object: &Tree) -> &Tree {
    &object["spec"]["containers"][0]["env"]
}

fn with_env(vars: Tree) -> Tree {
    pod(json!({"containers": [{"name": "c", "env": vars}]}))
}

#[test]
fn what_an_applier_says_no_more_is_removed() {
    let mut w = World::new(POD);
    w.apply(
        "m",
        pod(json!({"hostname": "h", "nodeName": "n", "containers": [{"name": "a", "tty": true}, {"name": "b"}]})),
    )
    .unwrap();
    let got = w.apply("m", pod(json!({"nodeName": "n", "containers": [{"name": "a"}]}))).unwrap();
    assert_eq!(got["spec"], json!({"nodeName": "n", "containers": [{"name": "a"}]}));
    // A map that is emptied thereby goes too.
    let mut w = World::new(("v1", "ConfigMap"));
    w.apply("m", meta(json!({"labels": {"a": "1"}}))).unwrap();
    assert_eq!(w.apply("m", meta(json!({}))).unwrap()["metadata"].get("labels"), None);
}

#[test]
fn what_another_manager_owns_too_stays_when_one_says_it_no_more() {
    let mut w = World::new(POD);
    w.apply("a", with_env(json!([{"name": "X", "value": "1"}]))).unwrap();
    w.apply("b", with_env(json!([{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]))).unwrap();
    let got = w.apply("b", nothing()).unwrap();
    assert_eq!(*env(got), json!([{"name": "X", "value": "1"}]));
    assert_eq!(*fields(got, "b"), Tree::Null);
    // What an updater set below a struct stays as well.
    let mut w = World::new(POD);
    w.apply("a", pod(json!({"securityContext": {"runAsUser": 1}}))).unwrap();
    w.write("u", "", |o| o["spec"]["securityContext"]["runAsGroup"] = 2.into());
    let got = w.apply("a", nothing()).unwrap();
    assert_eq!(got["spec"]["securityContext"], json!({"runAsGroup": 2}));
    // But the item of a list goes with all that is in it, when nobody else owns the item itself.
    let mut w = World::new(POD);
    w.apply("a", with_env(json!([]))).unwrap();
    w.write("u", "", |o| o["spec"]["containers"][0]["image"] = "i".into());
    let item = json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {"f:image": {}}}}});
    assert_eq!(*fields(w.live(), "u"), item);
    let got = w.apply("a", nothing()).unwrap();
    assert_eq!((got.get("spec"), record(got).len()), (None, 0));
}

#[test]
fn fields_nobody_owns_stay() {
    let mut w = World::new(POD);
    w.live = Some(pod(json!({"hostname": "h", "containers": [{"name": "c", "image": "i"}]})));
    w.apply("m", pod(json!({"nodeName": "n"}))).unwrap();
    let got = w.apply("m", nothing()).unwrap();
    assert_eq!(got["spec"], json!({"hostname": "h", "containers": [{"name": "c", "image": "i"}]}));
}

#[test]
fn what_was_there_before_the_first_apply_has_an_owner() {
    let mut w = World::new(POD);
    w.live = Some(pod(json!({"hostname": "h", "containers": null})));
    let e = w.apply("m", pod(json!({"hostname": "x"}))).unwrap_err();
    assert_eq!(
        e.message,
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .spec.hostname"
    );
    let got = w.apply_as("m", pod(json!({"nodeName": "n"})), false, "").unwrap();
    assert_eq!(*fields(got, "before-first-apply"), json!({"f:spec": {"f:hostname": {}}}));
}

#[test]
fn conflicts_name_every_field_and_who_has_it() {
    let mut w = World::new(("v1", "ConfigMap"));
    w.apply("a", meta(json!({"labels": {"x": "1", "y": "1"}}))).unwrap();
    w.write("u", "status", |o| o["metadata"]["annotations"] = json!({"k": "1"}));
    let e =
        w.apply("b", meta(json!({"labels": {"x": "2", "y": "2", "z": "2"}, "annotations": {"k": "2"}}))).unwrap_err();
    assert_eq!(
        e.message,
        "Apply failed with 3 conflicts: conflicts with \"a\":\n- .metadata.labels.x\n- .metadata.labels.y\nconflicts with \"u\" with subresource \"status\" using v1:\n- .metadata.annotations.k"
    );
    let causes = e.details.unwrap().causes;
    assert_eq!(causes.len(), 3);
    assert_eq!(causes[2].message, "conflict with \"u\" with subresource \"status\" using v1");
    assert_eq!(
        (causes[2].field.as_str(), causes[2].reason.as_str()),
        (".metadata.annotations.k", "FieldManagerConflict")
    );
}

#[test]
fn force_takes_fields_and_equal_values_share_them() {
    let mut w = World::new(("v1", "ConfigMap"));
    w.apply("a", meta(json!({"labels": {"x": "1", "y": "1"}}))).unwrap();
    w.apply("b", meta(json!({"labels": {"y": "1"}}))).unwrap();
    let got = w.apply_as("c", meta(json!({"labels": {"x": "2"}})), true, "").unwrap();
    assert_eq!(got["metadata"]["labels"], json!({"x": "2", "y": "1"}));
    assert_eq!(*fields(got, "a"), json!({"f:metadata": {"f:labels": {"f:y": {}}}}));
    assert_eq!(*fields(got, "b"), *fields(got, "a"));
    // Whoever updates a field has it alone.
    let got = w.write("u", "", |o| o["metadata"]["labels"]["y"] = "3".into());
    assert_eq!(record(got).len(), 2);
    assert_eq!(*fields(got, "u"), json!({"f:metadata": {"f:labels": {"f:y": {}}}}));
}

#[test]
fn lists_keep_the_applied_order_and_live_items_their_place() {
    let cases = [
        (json!(["a", "b"]), json!(["c"]), json!(["a", "b", "c"])),
        (json!(["a", "b"]), json!(["b", "a"]), json!(["b", "a"])),
        (json!(["a", "b", "c"]), json!(["x", "b", "y"]), json!(["a", "x", "b", "c", "y"])),
        (json!(["a", "b", "c", "d"]), json!(["d", "a"]), json!(["b", "c", "d", "a"])),
        (json!(["a", "b"]), json!([]), json!(["a", "b"])),
        (json!([]), json!(["a"]), json!(["a"])),
    ];
    for (live, applied, want) in cases {
        let mut w = World::new(("v1", "ConfigMap"));
        w.live = Some(meta(json!({"finalizers": live})));
        let got = w.apply("m", meta(json!({"finalizers": applied}))).unwrap();
        assert_eq!(got["metadata"]["finalizers"], want, "{live} applied {applied}");
    }
}

#[test]
fn sets_are_owned_item_by_item_and_atomic_lists_as_one() {
    let mut w = World::new(("v1", "ConfigMap"));
    w.apply("a", meta(json!({"finalizers": ["x/a"]}))).unwrap();
    let got = w.apply("b", meta(json!({"finalizers": ["x/b"]}))).unwrap();
    assert_eq!(*fields(got, "b"), json!({"f:metadata": {"f:finalizers": {"v:\"x/b\"": {}}}}));
    let got = w.apply("a", meta(json!({}))).unwrap();
    assert_eq!(got["metadata"]["finalizers"], json!(["x/b"]));

    let mut w = World::new(POD);
    w.apply("a", pod(json!({"containers": [{"name": "c", "args": ["1"]}]}))).unwrap();
    let e = w.apply("b", pod(json!({"containers": [{"name": "c", "args": ["1", "2"]}]}))).unwrap_err();
    assert_eq!(e.details.unwrap().causes[0].field, ".spec.containers[name=\"c\"].args");
}

#[test]
fn a_key_left_out_has_its_default() {
    let ports = |ports: Tree| pod(json!({"containers": [{"name": "c", "ports": ports}]}));
    let mut w = World::new(POD);
    w.apply("a", ports(json!([{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "UDP"}])))
        .unwrap();
    let got = w.apply("b", ports(json!([{"containerPort": 80, "name": "web"}]))).unwrap();
    assert_eq!(
        got["spec"]["containers"][0]["ports"],
        json!([{"containerPort": 80, "protocol": "TCP", "name": "web"}, {"containerPort": 80, "protocol": "UDP"}])
    );
    assert!(fields(got, "b").to_string().contains(r#"k:{\"containerPort\":80,\"protocol\":\"TCP\"}"#));
}

#[test]
fn a_configuration_that_does_not_fit_the_schema_is_refused() {
    let deployment = |spec: Tree| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}, "spec": spec});
    let template = |container: Tree| deployment(json!({"template": {"spec": {"containers": [container]}}}));
    let cases = [
        (deployment(json!({"nope": 1})), ".spec.nope: field not declared in schema"),
        (deployment(json!({"replicas": "3"})), ".spec.replicas: expected numeric (int or float), got string"),
        (deployment(json!({"paused": "yes"})), ".spec.paused: expected boolean, got &{yes}"),
        (deployment(json!([])), ".spec: expected map, got &{[]}"),
        (
            deployment(json!({"template": {"spec": {"containers": {"a": 1}}}})),
            ".spec.template.spec.containers: expected list, got &{map[a:1]}",
        ),
        (
            template(json!({"image": "x"})),
            ".spec.template.spec.containers: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)",
        ),
        (
            template(json!(null)),
            ".spec.template.spec.containers: element 0: associative list with keys may not have a null element",
        ),
        (
            template(json!("x")),
            ".spec.template.spec.containers: element 0: associative list with keys may not have non-map elements",
        ),
        (
            template(json!({"name": "c", "image": 1, "args": [1]})),
            "errors:\n  .spec.template.spec.containers[name=\"c\"].args[0]: expected string, got &value.valueUnstructured{Value:1}\n  .spec.template.spec.containers[name=\"c\"].image: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (
            template(json!({"name": "c", "resources": {"limits": {"cpu": {}}}})),
            ".spec.template.spec.containers[name=\"c\"].resources.limits.cpu: expected any scalar, got &{map[]}",
        ),
    ];
    for (config, why) in cases {
        let e = World::new(("apps/v1", "Deployment")).apply("m", config.clone()).unwrap_err();
        assert_eq!(e.code, 500);
        assert_eq!(
            e.message,
            format!("failed to create typed patch object (n/d; apps/v1, Kind=Deployment): {why}"),
            "{config}"
        );
    }
    let e = World::new(POD).apply("m", meta(json!({}))).unwrap_err();
    assert_eq!((e.code, e.message.as_str()), (400, "invalid object type: /v1, Kind=ConfigMap"));
}

#[test]
fn applying_the_same_again_changes_nothing_not_even_the_time() {
    let mut w = World::new(POD);
    let config = pod(json!({"hostname": "h", "containers": [{"name": "a", "ports": [{"containerPort": 1}]}]}));
    let first = w.apply("m", config.clone()).unwrap().clone();
    assert_eq!(*w.apply("m", config.clone()).unwrap(), first);
    // A second owner changes the record, and nobody's time.
    let got = w.apply("n", config).unwrap();
    assert_eq!(record(got).len(), 2);
    assert_eq!(managed_fields(got).unwrap()[0].get("time"), None, "nothing was set by this apply");
    assert_eq!(managed_fields(got).unwrap()[1], managed_fields(&first).unwrap()[0]);
    // An update that changes nothing neither.
    let before = w.live().clone();
    assert_eq!(*w.write("u", "", |_| {}), before);
}

#[test]
fn the_same_manager_has_one_entry_per_operation_version_and_subresource() {
    let mut w = World::new(POD);
    w.write("m", "", |o| o["spec"]["hostname"] = "h".into());
    w.write("m", "", |o| o["spec"]["nodeName"] = "n".into());
    w.write("m", "status", |o| o["status"]["phase"] = "Running".into());
    let got = w.apply("m", pod(json!({"subdomain": "s"}))).unwrap();
    let entries = managed_fields(got).unwrap().as_array().unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[0]["operation"], "Apply");
    assert_eq!(entries[1]["fieldsV1"], json!({"f:spec": {"f:hostname": {}, "f:nodeName": {}}}));
    assert_eq!(entries[1]["time"], "2026-11-18T11:06:42Z");
    assert_eq!(entries[2]["subresource"], "status");
    assert_eq!(entries[2]["fieldsV1"], json!({"f:status": {"f:phase": {}}}));
}

#[test]
fn what_a_door_does_not_write_nobody_comes_to_own_through_it() {
    let mut w = World::new(POD);
    w.write("kubelet", "status", |o| o["status"]["phase"] = "Running".into());
    // The object's own door: status is sent along, and will be dropped later.
    let got = w.write("u", "", |o| {
        o["status"]["phase"] = "Failed".into();
        o["spec"]["hostname"] = "h".into();
    });
    assert_eq!(*fields(got, "u"), json!({"f:spec": {"f:hostname": {}}}));
    assert_eq!(*fields(got, "kubelet"), json!({"f:status": {"f:phase": {}}}));
    let config = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {"phase": "x"}});
    let got = w.apply("m", config).unwrap();
    assert_eq!(*fields(got, "m"), json!({"f:spec": {"f:nodeName": {}}}));
}

#[test]
fn a_record_brought_along_counts_unless_it_is_unreadable_or_comes_through_a_subresource() {
    let mine = json!([{"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:hostname": {}}}, "time": "2020-01-01T01:00:00+01:00"}]);
    let start = || {
        let mut w = World::new(POD);
        w.write("u", "", |o| o["spec"]["hostname"] = "h".into());
        w
    };
    let mut w = start();
    let got = w.write("v", "", |o| o["metadata"]["managedFields"] = mine.clone());
    assert_eq!(managed_fields(got).unwrap()[0]["manager"], "x");
    assert_eq!(managed_fields(got).unwrap()[0]["time"], "2020-01-01T00:00:00Z");
    let mut w = start();
    let before = record(w.live());
    let got = w.write("v", "status", |o| o["metadata"]["managedFields"] = mine.clone());
    assert_eq!(record(got), before);
    for bad in [
        json!([{"manager": "x", "operation": "Nope", "apiVersion": "v1", "fieldsType": "FieldsV1"}]),
        json!([{"manager": "x", "operation": "Apply", "apiVersion": "", "fieldsType": "FieldsV1"}]),
        json!([{"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsType": "V2"}]),
        json!([{"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f": {}}}]),
        json!([1]),
        json!("x"),
        json!(null),
    ] {
        let got = w.write("v", "", |o| o["metadata"]["managedFields"] = bad.clone());
        assert_eq!(record(got), before, "{bad}");
    }
}

#[test]
fn an_empty_record_throws_it_away_until_the_next_apply() {
    for empty in [json!([]), json!([{}])] {
        let mut w = World::new(POD);
        w.write("u", "", |o| o["spec"]["hostname"] = "h".into());
        let got = w.write("u", "", |o| {
            o["metadata"]["managedFields"] = empty;
            o["spec"]["nodeName"] = "n".into();
        });
        assert_eq!(got["metadata"].get("managedFields"), None);
        w.write("u", "", |o| o["spec"]["hostname"] = "i".into());
        assert_eq!(w.live()["metadata"].get("managedFields"), None);
        w.apply("m", pod(json!({"subdomain": "s"}))).unwrap();
        assert_eq!(record(w.live()).len(), 2);
    }
}

#[test]
fn of_many_updaters_the_oldest_become_one() {
    let mut w = World::new(("v1", "ConfigMap"));
    for i in 0..14 {
        w.write(&format!("m{i:02}"), "", |o| o["data"][format!("k{i:02}")] = "v".into());
    }
    let got = w.live();
    let entries = managed_fields(got).unwrap().as_array().unwrap();
    assert_eq!(entries.len(), UPDATE_MANAGERS_MAX);
    assert_eq!(entries[0]["manager"], "ancient-changes");
    assert_eq!(
        entries[0]["fieldsV1"],
        json!({"f:data": {".": {}, "f:k00": {}, "f:k01": {}, "f:k02": {}, "f:k03": {}, "f:k04": {}}})
    );
    // The time of the latest of them.
    assert_eq!(entries[0]["time"], "2026-11-18T11:06:45Z");
    assert_eq!(entries[1]["manager"], "m05");
    // Appliers do not count.
    w.apply("a", meta(json!({"labels": {"x": "1"}}))).unwrap();
    assert_eq!(record(w.live()).len(), UPDATE_MANAGERS_MAX + 1);
}

#[test]
fn a_nameless_manager_is_called_unknown() {
    let mut w = World::new(POD);
    w.write("", "", |o| o["spec"]["hostname"] = "h".into());
    assert_eq!(record(w.live())[0]["manager"], "unknown");
}

#[test]
fn kubectl_takes_over_what_its_client_side_applied() {
    const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let config = |hostname: &str| pod(json!({"hostname": hostname}));
    let start = || {
        let mut w = World::new(POD);
        w.write("kubectl-client-side-apply", "", |o| {
            *o = config("h");
            o["spec"]["nodeName"] = "n".into();
            o["metadata"]["annotations"] = json!({LAST: config("h").to_string()});
        });
        w
    };
    // Others still conflict, and so do fields that were not applied.
    assert_eq!(start().apply("m", config("x")).unwrap_err().code, 409);
    let e = start().apply("kubectl", pod(json!({"hostname": "x", "nodeName": "y"}))).unwrap_err();
    assert_eq!(e.details.unwrap().causes.len(), 1);
    let mut w = start();
    let got = w.apply("kubectl", config("x")).unwrap();
    assert_eq!(got["spec"]["hostname"], "x");
    let kept = got["metadata"]["annotations"][LAST].as_str().unwrap();
    assert!(kept.ends_with('\n'));
    assert_eq!(serde_json::from_str::<Tree>(kept).unwrap(), config("x"));
    // A field changed since is nobody's to take.
    let mut w = start();
    w.write("u", "", |o| o["spec"]["hostname"] = "z".into());
    assert_eq!(w.apply("kubectl", config("x")).unwrap_err().code, 409);
}

/// v1 has `spec.a`; v2 calls it `spec.b`; there is no v3.
fn renaming(object: &Tree, version: &str) -> Option<(Tree, Option<TypeId>)> {
    let (from, to) = match version {
        "x/v1" => ("b", "a"),
        "x/v2" => ("a", "b"),
        _ => return None,
    };
    let mut object = object.clone();
    object["apiVersion"] = version.into();
    if let Some(v) = object["spec"].as_object_mut().and_then(|spec| spec.remove(from)) {
        object["spec"][to] = v;
    }
    Some((object, None))
}

#[test]
fn managers_of_other_versions_are_compared_in_theirs() {
    let reset = status_reset();
    let at =
        |api_version: &'static str| Types { schema: builtin(), root: None, api_version, kind: "X", convert: &renaming };
    let config = |version: &str, spec: Tree| json!({"apiVersion": version, "kind": "X", "metadata": {"name": "x"}, "spec": spec});
    let v1 =
        apply(&at("x/v1"), None, &config("x/v1", json!({"a": 1, "c": 1})), &writer("m", "", 0, &reset), false).unwrap();
    let (v2, _) = renaming(&v1, "x/v2").unwrap();
    let e = apply(&at("x/v2"), Some(&v2), &config("x/v2", json!({"b": 2})), &writer("n", "", 1, &reset), false)
        .unwrap_err();
    assert_eq!(e.message, "Apply failed with 1 conflict: conflict with \"m\": .spec.a");
    // The same applier in the new version: what it said in the old one counts.
    let got =
        apply(&at("x/v2"), Some(&v2), &config("x/v2", json!({"c": 1})), &writer("m", "", 1, &reset), false).unwrap();
    assert_eq!(got["spec"], json!({"c": 1}));
    assert_eq!(record(&got).len(), 1);
    assert_eq!(record(&got)[0]["apiVersion"], "x/v2");
    // A version that is no more owns nothing.
    let mut old = v2.clone();
    old["metadata"]["managedFields"][0]["apiVersion"] = "x/v3".into();
    let got =
        apply(&at("x/v2"), Some(&old), &config("x/v2", json!({"b": 2})), &writer("n", "", 1, &reset), false).unwrap();
    assert_eq!(record(&got).len(), 1);
}

#[test]
fn without_a_schema_maps_merge_and_lists_are_one() {
    let types = Types { schema: builtin(), root: None, api_version: "x/v1", kind: "X", convert: &nowhere };
    let reset = status_reset();
    let config = |spec: Tree| json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "x"}, "spec": spec});
    let a = apply(&types, None, &config(json!({"m": {"x": 1}, "l": [1]})), &writer("a", "", 0, &reset), false).unwrap();
    assert_eq!(*fields(&a, "a"), json!({"f:spec": {".": {}, "f:l": {}, "f:m": {".": {}, "f:x": {}}}}));
    let b = apply(&types, Some(&a), &config(json!({"m": {"y": 2}})), &writer("b", "", 1, &reset), false).unwrap();
    assert_eq!(b["spec"], json!({"m": {"x": 1, "y": 2}, "l": [1]}));
    let e = apply(&types, Some(&b), &config(json!({"l": [2]})), &writer("b", "", 2, &reset), false).unwrap_err();
    assert_eq!(e.details.unwrap().causes[0].field, ".spec.l");
}

#[test]
fn items_that_share_a_key_in_the_live_list_are_replaced_as_one() {
    let mut w = World::new(POD);
    let twice = json!([{"name": "X", "value": "1"}, {"name": "X", "value": "2"}, {"name": "Y", "value": "3"}]);
    w.write("u", "", |o| *o = with_env(twice));
    assert!(fields(w.live(), "u").to_string().contains(r#""k:{\"name\":\"X\"}":{}"#));
    let e = w.apply("m", with_env(json!([{"name": "X", "value": "9"}]))).unwrap_err();
    assert_eq!(e.details.unwrap().causes[0].field, ".spec.containers[name=\"c\"].env[name=\"X\"]");
    let got = w.apply_as("m", with_env(json!([{"name": "X", "value": "9"}])), true, "").unwrap();
    assert_eq!(*env(got), json!([{"name": "X", "value": "9"}, {"name": "Y", "value": "3"}]));
}

#[test]
fn a_part_of_what_has_become_atomic_is_now_the_whole() {
    let mut w = World::new(POD);
    w.write("u", "", |o| o["spec"]["containers"] = json!([{"name": "c", "args": ["1"]}]));
    w.live.as_mut().unwrap()["metadata"]["managedFields"][0]["fieldsV1"] =
        json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:args": {"i:0": {}}}}}});
    let got = w.write("v", "", |o| o["spec"]["hostname"] = "h".into());
    assert_eq!(*fields(got, "u"), json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:args": {}}}}}));
}

#[test]
fn times_alone_are_no_change() {
    let mut w = World::new(POD);
    let old = w.write("u", "", |o| o["spec"]["hostname"] = "h".into()).clone();
    let mut new = old.clone();
    new["metadata"]["managedFields"][0]["time"] = "2030-01-01T00:00:00Z".into();
    let mut other = new.clone();
    keep_times_if_unchanged(&old, &mut new);
    assert_eq!(new, old);
    other["spec"]["hostname"] = "i".into();
    let changed = other.clone();
    keep_times_if_unchanged(&old, &mut other);
    assert_eq!(other, changed);
}

/// Any tree at all, with names that mean something to a Pod among its keys.
fn anything() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::from),
        (-2..90i64).prop_map(Tree::from),
        "[a-c]{0,2}".prop_map(Tree::from)
    ];
    leaf.prop_recursive(6, 48, 5, |inner| {
        let keys = prop::sample::select(vec![
            "metadata",
            "labels",
            "finalizers",
            "managedFields",
            "spec",
            "containers",
            "name",
            "ports",
            "env",
            "containerPort",
            "status",
            "$patch",
            "fieldsV1",
            "f:spec",
            "manager",
            "operation",
            "apiVersion",
            "$setElementOrder/containers",
            "$retainKeys",
            "$deleteFromPrimitiveList/finalizers",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Tree::from),
            prop::collection::btree_map(keys, inner, 0..5)
                .prop_map(|m| Tree::Object(m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

fn container() -> impl Strategy<Value = Tree> {
    let ports = prop::collection::btree_set((80..83u16, prop::option::of("TCP|UDP")), 0..3);
    ("[a-c]", prop::option::of("[x-z]"), ports, prop::option::of(prop::collection::vec("[a-b]", 0..2))).prop_map(
        |(name, image, ports, args)| {
            let mut c = json!({"name": name});
            let mut seen = std::collections::BTreeSet::new();
            let ports: Vec<Tree> = ports
                .into_iter()
                .filter(|(port, protocol)| seen.insert((*port, protocol.clone().unwrap_or("TCP".into()))))
                .map(|(port, protocol)| match protocol {
                    Some(p) => json!({"containerPort": port, "protocol": p}),
                    None => json!({"containerPort": port}),
                })
                .collect();
            if !ports.is_empty() {
                c["ports"] = ports.into();
            }
            if let Some(image) = image {
                c["image"] = image.into();
            }
            if let Some(args) = args {
                c["args"] = args.into();
            }
            c
        },
    )
}

fn config() -> impl Strategy<Value = Tree> {
    let labels = prop::collection::btree_map("[a-d]", "[0-2]", 0..3);
    let finalizers = prop::collection::btree_set("[a-d]", 0..3);
    let containers = prop::collection::vec(container(), 0..3);
    (labels, finalizers, containers, prop::option::of("[h-i]")).prop_map(
        |(labels, finalizers, mut containers, host)| {
            let mut seen = std::collections::BTreeSet::new();
            containers.retain(|c| seen.insert(c["name"].to_string()));
            let mut p = pod(json!({"containers": containers}));
            p["metadata"]["labels"] = labels.into_iter().map(|(k, v)| (k, Tree::from(v))).collect::<Map>().into();
            p["metadata"]["finalizers"] = finalizers.into_iter().map(Tree::from).collect::<Vec<_>>().into();
            if let Some(host) = host {
                p["spec"]["hostname"] = host.into();
            }
            p
        },
    )
}

/// The leaves of one configuration with names that no other manager's can have.
fn apart(config: &Tree, manager: &str) -> Tree {
    let rename = |v: &Tree| json!(format!("{manager}-{}", v.as_str().unwrap()));
    let mut out = config.clone();
    for c in out["spec"]["containers"].as_array_mut().unwrap() {
        c["name"] = rename(&c["name"]);
    }
    for f in out["metadata"]["finalizers"].as_array_mut().unwrap() {
        *f = rename(f);
    }
    let labels: Map = config["metadata"]["labels"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(k, v)| (format!("{manager}-{k}"), v.clone()))
        .collect();
    out["metadata"]["labels"] = labels.into();
    out["spec"].as_object_mut().unwrap().remove("hostname");
    out
}

/// Lists whose order depends on who came first, sorted.
fn sorted(mut object: Tree) -> Tree {
    for path in ["/spec/containers", "/metadata/finalizers", "/metadata/managedFields"] {
        if let Some(Tree::Array(list)) = object.pointer_mut(path) {
            list.sort_by_key(|v| v.to_string());
        }
    }
    object
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(live in config(), first in config(), second in config()) {
        let mut w = World::new(POD);
        w.write("u", "", |o| *o = live);
        w.apply_as("m", first, true, "").unwrap();
        let once = w.apply_as("m", second.clone(), true, "").unwrap().clone();
        let twice = w.apply_as("m", second, false, "").unwrap();
        prop_assert_eq!(&once, twice);
    }

    #[test]
    fn no_tree_is_too_strange(live in anything(), new in anything(), patch in anything()) {
        let types = types("v1", "Pod");
        let reset = status_reset();
        let writer = writer("m", "", 0, &reset);
        let mut config = new.clone();
        if let Some(config) = config.as_object_mut() {
            config.insert("apiVersion".into(), "v1".into());
            config.insert("kind".into(), "Pod".into());
        }
        let _ = apply(&types, Some(&live), &config, &writer, true);
        let mut tracked = new.clone();
        track_update(&types, Some(&live), &mut tracked, &writer);
        keep_times_if_unchanged(&live, &mut tracked);
        let (mut a, mut b, mut c) = (live.clone(), live.clone(), live);
        let _ = crate::patch::strategic::apply(types.schema, types.root.unwrap(), &mut a, &patch);
        let _ = crate::patch::merge::apply(&mut b, &patch);
        let _ = crate::patch::json::apply(&mut c, &patch);
    }

    #[test]
    fn a_forced_configuration_is_in_the_object_and_owned(live in config(), config in config()) {
        let mut w = World::new(POD);
        w.write("u", "", |o| *o = live);
        let got = w.apply_as("m", config.clone(), true, "").unwrap().clone();
        // Laying it over again changes nothing, so all of it is there.
        let mut again = without_record(&got);
        merge::merge(builtin(), Place::root(w.types.root), &mut again, &config);
        prop_assert_eq!(&again, &without_record(&got));
        let mut wanted = fields_of::fields_of(builtin(), Place::root(w.types.root), &config);
        wanted.subtract(&never_owned());
        let own = FieldSet::decode(fields(&got, "m")).unwrap_or_default();
        prop_assert_eq!(own, wanted);
    }

    #[test]
    fn managers_of_different_fields_may_come_in_any_order(a in config(), b in config()) {
        let (a, b) = (apart(&a, "a"), apart(&b, "b"));
        let run = |first: (&str, &Tree), second: (&str, &Tree)| {
            let mut w = World::new(POD);
            w.apply(first.0, first.1.clone()).unwrap();
            w.second = 0;
            sorted(w.apply(second.0, second.1.clone()).unwrap().clone())
        };
        let one_way = run(("a", &a), ("b", &b));
        let other_way = run(("b", &b), ("a", &a));
        // Who comes first to an empty configuration leaves no trace, and no time.
        let strip = |t: &Tree| (t["spec"].clone(), t["metadata"]["labels"].clone(), t["metadata"]["finalizers"].clone());
        prop_assert_eq!(strip(&one_way), strip(&other_way));
        prop_assert_eq!(record(&one_way), record(&other_way));
    }

    #[test]
    fn what_one_applies_and_takes_back_leaves_what_was_there(live in config(), config in config()) {
        let config = apart(&config, "m");
        let mut w = World::new(POD);
        w.write("u", "", |o| *o = live);
        let before = w.live().clone();
        w.apply("m", config).unwrap();
        let after = w.apply("m", nothing()).unwrap();
        let strip = |t: &Tree| (record(t), t["spec"].clone(), t["metadata"]["labels"].clone());
        // An empty list or map that was applied over and emptied again may go.
        let normal = |t: &Tree| {
            let text = t.to_string();
            text.contains("[]") || text.contains("{}") && t["metadata"]["labels"] == json!({})
        };
        if !normal(&without_record(&before)) {
            prop_assert_eq!(strip(after), strip(&before));
        }
    }

    #[test]
    fn a_record_survives_being_written_and_read(a in config(), b in config()) {
        let mut w = World::new(POD);
        w.write("u", "", |o| *o = a);
        w.apply_as("m", b, true, "").unwrap();
        let written = managed_fields(w.live()).cloned();
        let read = managers::decode(written.as_ref()).unwrap();
        prop_assert_eq!(managers::encode(read), written);
    }
}
