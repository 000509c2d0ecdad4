//! What pods need from cells and registries: images, ConfigMaps, Secrets, tokens.

use super::life::container;
use super::world::World;
use base::runtime::{Volume, VolumeKind};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn waiting(w: &World, name: &str) -> (String, String) {
    let state = w.pod(name)["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    (text(&state["reason"]), text(&state["message"]))
}

/// The files of a pod's volume.
fn files(w: &World, uid: &str, volume: &str) -> BTreeMap<String, String> {
    let Some(Volume { kind: VolumeKind::Files(files), .. }) = w.rt.volumes.get(&(uid.into(), volume.into())) else {
        return BTreeMap::new();
    };
    files.iter().map(|f| (f.path.clone(), String::from_utf8_lossy(&f.bytes).into_owned())).collect()
}

fn with_volume(source: Value) -> Value {
    let mut c = container("c", "run");
    c["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    let mut volume = source;
    volume["name"] = "v".into();
    json!({"containers": [c], "volumes": [volume]})
}

#[test]
fn an_image_that_is_not_there_is_waited_for_ever_longer() {
    let mut w = World::new();
    w.create("p", json!({"containers": [container("c", "nowhere")]}));
    w.go(seconds(1));
    let why = "failed to resolve reference \"nowhere\": not found";
    assert_eq!(waiting(&w, "p"), ("ErrImagePull".to_owned(), why.to_owned()));
    w.go(seconds(5));
    let long = format!("Back-off pulling image \"nowhere\": ErrImagePull: {why}");
    assert_eq!(waiting(&w, "p"), ("ImagePullBackOff".to_owned(), long));
    w.go(seconds(594));
    assert_eq!(w.rt.pulls.len(), 6, "at 0, 10, 30, 70, 150, 310 s");
    assert_eq!(w.phase("p"), "Pending");
    let failed = w.api.events("p");
    let pulls = failed.iter().find(|e| e.1.starts_with("Failed to pull image \"nowhere\": failed to resolve")).unwrap();
    assert_eq!((pulls.0.as_str(), pulls.2), ("Failed", 5), "the same event is counted, as long as its pod is heard");
    w.rt.registry.insert("nowhere".into());
    w.wait("p", "Running");
}

#[test]
fn several_pods_that_want_one_image_have_it_pulled_once() {
    let mut w = World::wild(1, super::world::Faults::default());
    let mut c = container("c", "run");
    c["imagePullPolicy"] = "Always".into();
    let uids: Vec<String> = (0..5).map(|i| w.create(&format!("p{i}"), json!({"containers": [c]}))).collect();
    assert!(w.until(seconds(60), |w| uids.iter().all(|u| w.rt.running(u) == ["c"])));
    assert!(w.rt.pulls.len() < 5, "{} pulls", w.rt.pulls.len());
}

#[test]
fn images_that_must_not_or_cannot_be_pulled_are_named() {
    let mut w = World::new();
    let mut never = container("c", "absent");
    never["imagePullPolicy"] = "Never".into();
    w.create("never", json!({"containers": [never]}));
    w.create("wrong", json!({"containers": [container("c", "No Such:Name")]}));
    w.go(seconds(2));
    let (reason, message) = waiting(&w, "never");
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("ErrImageNeverPull", "Container image \"absent\" is not present with pull policy of Never")
    );
    assert_eq!(waiting(&w, "wrong").0, "InvalidImageName");
    assert!(w.rt.pulls.is_empty());
    w.rt.images.insert("absent".into());
    w.wait("never", "Running");
}

#[test]
fn a_missing_key_keeps_a_container_from_being_made_until_it_is_there() {
    let mut w = World::new();
    let mut c = container("c", "run");
    c["env"] = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "a"}}}]);
    let uid = w.create("p", json!({"containers": [c]}));
    w.go(seconds(2));
    let want = ("CreateContainerConfigError".to_owned(), "configmap \"cm\" not found".to_owned());
    assert_eq!(waiting(&w, "p"), want);
    assert!(w.api.events("p").iter().any(|e| e.0 == "Failed" && e.1 == "Error: configmap \"cm\" not found"));
    w.api.put("configmaps", json!({"metadata": {"name": "cm"}, "data": {"b": "1"}}));
    w.go(seconds(15));
    assert_eq!(waiting(&w, "p").1, "couldn't find key a in ConfigMap d/cm");
    w.api.put("configmaps", json!({"metadata": {"name": "cm"}, "data": {"a": "1"}}));
    w.wait("p", "Running");
    let env = w.rt.containers.values().next().unwrap().made.env.clone();
    assert!(env.contains(&("A".to_owned(), "1".to_owned())));
    // Changed meanwhile: the next container of the pod gets it as it is now.
    w.go(seconds(1));
    w.api.put("configmaps", json!({"metadata": {"name": "cm"}, "data": {"a": "2"}}));
    w.rt.kill(w.now, "c", 1);
    assert!(w.until(seconds(30), |w| w.rt.starts_of("c") == 2 && w.rt.running(&uid) == ["c"]));
    let newest = w.rt.containers.values().max_by_key(|c| c.seen.attempt).unwrap();
    assert!(newest.made.env.contains(&("A".to_owned(), "2".to_owned())));
    // And out of reach: what is known will do.
    w.api.down = Some(503);
    w.rt.kill(w.now, "c", 1);
    assert!(w.until(seconds(30), |w| w.rt.starts_of("c") == 3));
}

#[test]
fn files_of_volumes_follow_what_they_show() {
    let mut w = World::new();
    let uid = w.create("p", with_volume(json!({"configMap": {"name": "cm"}})));
    w.go(seconds(5));
    assert_eq!(waiting(&w, "p").0, "ContainerCreating");
    let mounts = w.api.events("p").into_iter().find(|e| e.0 == "FailedMount").unwrap();
    assert_eq!(mounts.1, "MountVolume.SetUp failed for volume \"v\" : configmap \"cm\" not found");
    w.api.put("configmaps", json!({"metadata": {"name": "cm"}, "data": {"a": "1"}, "binaryData": {"b": "AAE="}}));
    w.wait("p", "Running");
    assert_eq!(files(&w, &uid, "v"), [("a".to_owned(), "1".to_owned()), ("b".into(), "\0\u{1}".into())].into());
    w.api.put("configmaps", json!({"metadata": {"name": "cm"}, "data": {"a": "2"}}));
    assert!(w.until(seconds(70), |w| files(w, &uid, "v").get("a").is_some_and(|a| a == "2")));
    assert_eq!(w.rt.starts_of("c"), 1);
    w.restart();
    w.api.put("configmaps", json!({"metadata": {"name": "cm"}, "data": {"a": "3"}, "immutable": true}));
    assert!(w.until(seconds(70), |w| files(w, &uid, "v").get("a").is_some_and(|a| a == "3")));
    assert_eq!(w.rt.starts_of("c"), 1);
}

#[test]
fn what_is_optional_may_be_missing_and_what_is_unknown_is_said() {
    for (source, want) in [
        (json!({"configMap": {"name": "no", "optional": true}}), Ok(vec![])),
        (json!({"secret": {"secretName": "s", "items": [{"key": "k", "path": "x/y", "mode": 256}]}}), Ok(vec!["x/y"])),
        (
            json!({"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}),
            Ok(vec!["name"]),
        ),
        (
            json!({"secret": {"secretName": "s", "items": [{"key": "gone", "path": "x"}]}}),
            Err("references non-existent secret key: gone"),
        ),
        (json!({"nfs": {"server": "a", "path": "/"}}), Err("volumes of type nfs are not supported on this node")),
        (
            json!({"persistentVolumeClaim": {"claimName": "a"}}),
            Err("volumes of type persistentVolumeClaim are not supported on this node"),
        ),
        (
            json!({"projected": {"sources": [{"secret": {"name": "a"}}, {"configMap": {"name": "b"}}]}}),
            Err("[secret \"a\" not found, configmap \"b\" not found]"),
        ),
    ] {
        let mut w = World::new();
        w.api.put("secrets", json!({"metadata": {"name": "s"}, "data": {"k": "dg=="}}));
        let uid = w.create("p", with_volume(source.clone()));
        w.go(seconds(3));
        match want {
            Ok(paths) => {
                assert_eq!(w.phase("p"), "Running", "{source}");
                assert_eq!(files(&w, &uid, "v").keys().collect::<Vec<_>>(), paths, "{source}");
            }
            Err(why) => {
                let told = w.api.events("p").into_iter().find(|e| e.0 == "FailedMount").unwrap();
                assert_eq!(told.1, format!("MountVolume.SetUp failed for volume \"v\" : {why}"), "{source}");
                assert!(w.rt.sandboxes.is_empty());
            }
        }
    }
}

#[test]
fn a_volume_that_the_host_cannot_make_is_named() {
    let mut w = World::new();
    let mut spec = with_volume(json!({"hostPath": {"path": "/no/file", "type": "File"}}));
    spec["volumes"].as_array_mut().unwrap().push(json!({"name": "scratch", "emptyDir": {}}));
    spec["containers"][0]["volumeMounts"].as_array_mut().unwrap().push(json!({"name": "scratch", "mountPath": "/s"}));
    w.create("p", spec);
    w.go(seconds(3));
    let told: Vec<String> = w.api.events("p").into_iter().filter(|e| e.0 == "FailedMount").map(|e| e.1).collect();
    assert_eq!(
        told,
        ["MountVolume.SetUp failed for volume \"v\" : hostPath type check failed: /no/file is not a file"]
    );
    assert!(w.rt.sandboxes.is_empty());
    w.rt.host_paths.insert("/no/file".into());
    w.wait("p", "Running");
}

#[test]
fn a_volume_that_no_container_mounts_is_not_waited_for() {
    let mut w = World::new();
    let mut spec = with_volume(json!({"configMap": {"name": "gone"}}));
    spec["containers"][0].as_object_mut().unwrap().remove("volumeMounts");
    w.create("p", spec);
    w.wait("p", "Running");
}

#[test]
fn tokens_are_bound_to_the_pod_and_renewed_in_time() {
    let mut w = World::new();
    w.api.put("configmaps", json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "PEM"}}));
    let mut spec = with_volume(json!({"projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]}}));
    spec["serviceAccountName"] = "default".into();
    let uid = w.create("p", spec);
    w.wait("p", "Running");
    let want = [("ca.crt", "PEM"), ("namespace", "d"), ("token", "token-1")];
    let want: BTreeMap<String, String> = want.into_iter().map(|(a, b)| (a.into(), b.into())).collect();
    assert_eq!(files(&w, &uid, "v"), want);
    w.go(seconds(2870));
    assert_eq!(files(&w, &uid, "v")["token"], "token-1");
    w.go(seconds(30));
    assert_eq!(files(&w, &uid, "v")["token"], "token-2");
    // The cell is out of reach when it is time: the old one serves until it expires.
    w.api.down = Some(503);
    w.go(seconds(3500));
    assert_eq!(files(&w, &uid, "v")["token"], "token-2");
    w.api.down = None;
    w.go(seconds(120));
    assert_eq!(files(&w, &uid, "v")["token"], "token-3");
}

#[test]
fn who_may_pull_is_told_to_whoever_pulls() {
    let mut w = World::new();
    let spec = json!({"imagePullSecrets": [{"name": "gone"}], "containers": [container("c", "run")]});
    w.create("p", spec);
    w.wait("p", "Running");
    assert!(w.until(seconds(1), |w| w.api.reasons("p").contains(&"FailedToRetrieveImagePullSecret".to_owned())));
}
