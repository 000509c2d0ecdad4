//! What a node may do in its own name, and how the rest is refused, asked of a mesh in memory.
#![allow(missing_docs, clippy::unwrap_used)]

mod cell;

use cell::{Call, Mesh, Response};
use objects::kinds;
use objects::request::User;
use serde_json::{Value, json};

fn node(name: &str) -> User {
    let groups = vec!["system:nodes".into(), "system:authenticated".into()];
    User { name: format!("system:node:{name}"), groups, ..User::default() }
}

fn send(mesh: &mut Mesh, user: &User, method: &str, path: &str, body: Value) -> Response {
    let content_type = if method == "PATCH" { "application/strategic-merge-patch+json" } else { "application/json" };
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
    mesh.now.0 += 1000;
    mesh.call(Call { method, path, content_type, user: user.clone(), body })
}

fn insert(mesh: &mut Mesh, group: &str, version: &str, plural: &str, tree: Value) {
    mesh.insert(kinds::by_resource(group, version, plural).unwrap(), tree);
}

/// Namespace `a` with a pod `mine` on node n1 and a pod `other` on n2, each with what it refers to.
fn mesh() -> Mesh {
    let mut m = Mesh::new();
    let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "a"},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    insert(&mut m, "", "v1", "namespaces", namespace);
    for (pod, host) in [("mine", "n1"), ("other", "n2"), ("free", "")] {
        let object = json!({"kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": pod, "namespace": "a", "labels": {"app": pod}},
            "spec": {"nodeName": host, "serviceAccountName": format!("{pod}-account"),
                "imagePullSecrets": [{"name": format!("{pod}-pull")}], "terminationGracePeriodSeconds": 30,
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
                "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always",
                    "terminationMessagePolicy": "File",
                    "envFrom": [{"configMapRef": {"name": format!("{pod}-env")}}]}],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": format!("{pod}-claim")}},
                    {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "a"}},
                        {"serviceAccountToken": {"path": "b", "audience": "vault"}}]}}]},
            "status": {"phase": "Running"}});
        insert(&mut m, "", "v1", "pods", object);
        for (plural, kind, suffix) in [
            ("secrets", "Secret", "pull"),
            ("configmaps", "ConfigMap", "env"),
            ("persistentvolumeclaims", "PersistentVolumeClaim", "claim"),
            ("serviceaccounts", "ServiceAccount", "account"),
        ] {
            let object = json!({"kind": kind, "apiVersion": "v1",
                "metadata": {"name": format!("{pod}-{suffix}"), "namespace": "a"}});
            insert(&mut m, "", "v1", plural, object);
        }
    }
    for name in ["n1", "n2"] {
        let object = json!({"kind": "Node", "apiVersion": "v1",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}, "status": {}});
        insert(&mut m, "", "v1", "nodes", object);
        let object = json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": {"holderIdentity": name}});
        insert(&mut m, "coordination.k8s.io", "v1", "leases", object);
    }
    m
}

const A: &str = "/api/v1/namespaces/a";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const REVIEW: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// What a refusal by the authorizer says.
fn cannot(verb: &str, resource: &str, place: &str, why: &str) -> String {
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    let (resource, group) = resource.split_once('@').unwrap_or((resource, ""));
    let place = if place.is_empty() { "at the cluster scope".into() } else { format!("in the namespace \"{place}\"") };
    format!("User \"system:node:n1\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}{why}")
}

fn unrelated(verb: &str, resource: &str) -> String {
    cannot(verb, resource, "a", "no relationship found between node 'n1' and this object")
}

/// Sends each request to the mesh as it was; `Ok` is the status hoped for, `Err` the end of the refusal.
fn check(cases: Vec<(&str, String, Value, Result<u16, String>)>) {
    let mut m = mesh();
    for (method, path, body, want) in cases {
        let got = send(&mut m, &node("n1"), method, &path, body.clone());
        match want {
            Ok(status) => assert_eq!(got.status, status, "{method} {path} {body}: {}", got.body),
            Err(text) => {
                assert_eq!(got.status, 403, "{method} {path} {body}: {}", got.body);
                let said = got.body["message"].as_str().unwrap();
                assert!(said.ends_with(&format!("forbidden: {text}")), "{method} {path}\n said {said}\n want {text}");
            }
        }
        if method != "GET" && got.status < 300 {
            m = mesh();
        }
    }
}

#[test]
fn a_node_reads_what_its_own_pods_refer_to() {
    let mut cases = Vec::new();
    for (plural, suffix) in [
        ("secrets", "pull"),
        ("configmaps", "env"),
        ("persistentvolumeclaims", "claim"),
        ("serviceaccounts", "account"),
    ] {
        let path = |pod: &str| format!("{A}/{plural}/{pod}-{suffix}");
        cases.push(("GET", path("mine"), Value::Null, Ok(200)));
        cases.push(("GET", path("other"), Value::Null, Err(unrelated("get", plural))));
        cases.push(("GET", path("free"), Value::Null, Err(unrelated("get", plural))));
        cases.push(("GET", path("absent"), Value::Null, Err(unrelated("get", plural))));
    }
    let read_only = |verb, r| Err(cannot(verb, r, "a", "can only read resources of this type"));
    cases.extend([
        ("DELETE", format!("{A}/secrets/mine-pull"), Value::Null, read_only("delete", "secrets")),
        ("DELETE", format!("{A}/configmaps/mine-env"), Value::Null, read_only("delete", "configmaps")),
        ("GET", format!("{A}/secrets"), Value::Null, Err(cannot("list", "secrets", "a", "No Object name found"))),
        ("GET", format!("{A}/configmaps?fieldSelector=metadata.name%3Dmine-env"), Value::Null, Ok(200)),
        ("GET", format!("{A}/configmaps?watch=1&fieldSelector=metadata.name%3Dmine-env"), Value::Null, Ok(200)),
        (
            "GET",
            format!("{A}/configmaps?fieldSelector=metadata.name%3Dother-env"),
            Value::Null,
            Err(unrelated("list", "configmaps")),
        ),
        (
            "GET",
            format!("{A}/persistentvolumeclaims"),
            Value::Null,
            Err(cannot("list", "persistentvolumeclaims", "a", "can only get individual resources of this type")),
        ),
        ("GET", format!("{A}/services"), Value::Null, Ok(200)),
        (
            "GET",
            format!("{A}/replicationcontrollers"),
            Value::Null,
            Err(cannot("list", "replicationcontrollers", "a", "")),
        ),
    ]);
    check(cases);
}

#[test]
fn a_node_sees_and_changes_the_state_of_its_own_pods_alone() {
    let status = json!({"status": {"message": "hello"}});
    let eviction = |name: &str| json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": name}});
    let list = "can only list/watch pods with spec.nodeName field selector";
    check(vec![
        ("GET", format!("{A}/pods/mine"), Value::Null, Ok(200)),
        ("GET", format!("{A}/pods/other"), Value::Null, Err(unrelated("get", "pods"))),
        ("GET", format!("{A}/pods/free"), Value::Null, Err(unrelated("get", "pods"))),
        ("GET", format!("{A}/pods/absent"), Value::Null, Err(unrelated("get", "pods"))),
        ("GET", format!("{A}/pods"), Value::Null, Err(cannot("list", "pods", "a", list))),
        ("GET", format!("{A}/pods?fieldSelector=spec.nodeName%3Dn1"), Value::Null, Ok(200)),
        (
            "GET",
            format!("{A}/pods?fieldSelector=spec.nodeName%3Dn2"),
            Value::Null,
            Err(cannot("list", "pods", "a", list)),
        ),
        ("GET", "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1".into(), Value::Null, Ok(200)),
        ("GET", "/api/v1/pods".into(), Value::Null, Err(cannot("list", "pods", "", list))),
        ("PATCH", format!("{A}/pods/mine/status"), status.clone(), Ok(200)),
        (
            "PATCH",
            format!("{A}/pods/other/status"),
            status.clone(),
            Err("node \"n1\" can only update pod status for pods with spec.nodeName set to itself".into()),
        ),
        (
            "PATCH",
            format!("{A}/pods/mine/status"),
            json!({"metadata": {"labels": {"x": "y"}}}),
            Err("node \"n1\" cannot update labels through pod status".into()),
        ),
        ("PATCH", format!("{A}/pods/mine"), status, Err(cannot("patch", "pods", "a", ""))),
        ("DELETE", format!("{A}/pods/mine"), json!({"gracePeriodSeconds": 0}), Ok(200)),
        (
            "DELETE",
            format!("{A}/pods/other"),
            json!({"gracePeriodSeconds": 0}),
            Err("node \"n1\" can only delete pods with spec.nodeName set to itself".into()),
        ),
        ("DELETE", format!("{A}/pods"), Value::Null, Err(cannot("deletecollection", "pods", "a", ""))),
        ("POST", format!("{A}/pods/mine/eviction"), eviction("mine"), Ok(201)),
        (
            "POST",
            format!("{A}/pods/other/eviction"),
            eviction("other"),
            Err("node n1 can only evict pods with spec.nodeName set to itself".into()),
        ),
        (
            "POST",
            format!("{A}/pods/mine/binding"),
            json!({"target": {"kind": "Node", "name": "n1"}}),
            Err(cannot("create", "pods/binding", "a", "")),
        ),
        ("GET", format!("{A}/pods/mine/log"), Value::Null, Err(cannot("get", "pods/log", "a", ""))),
    ]);
}

#[test]
fn a_node_makes_no_pods_but_mirrors_of_its_own() {
    let pod = |change: &dyn Fn(&mut Value)| {
        let mut pod = json!({"kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "m", "annotations": {"kubernetes.io/config.mirror": "x"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "controller": true, "uid": ""}]},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
        let owner = mesh_uid("n1");
        pod["metadata"]["ownerReferences"][0]["uid"] = owner.into();
        change(&mut pod);
        pod
    };
    let mut cases = vec![("POST", format!("{A}/pods"), pod(&|_| {}), Ok(201))];
    type Change = fn(&mut Value);
    let refused: [(Change, &str); 10] = [
        (
            |p| p["metadata"]["annotations"] = json!({}),
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n1\" can only create mirror pods",
        ),
        (|p| p["spec"]["nodeName"] = "n2".into(), "node \"n1\" can only create pods with spec.nodeName set to itself"),
        (
            |p| p["metadata"]["ownerReferences"] = json!([]),
            "node \"n1\" can only create pods with an owner reference set to itself",
        ),
        (
            |p| p["metadata"]["ownerReferences"][0]["name"] = "n2".into(),
            "node \"n1\" can only create pods with an owner reference set to itself",
        ),
        (
            |p| p["metadata"]["ownerReferences"][0]["controller"] = false.into(),
            "node \"n1\" can only create pods with a controller owner reference set to itself",
        ),
        (
            |p| p["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = true.into(),
            "node \"n1\" must not set blockOwnerDeletion on an owner reference",
        ),
        (
            |p| p["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "other-pull"}}]),
            "node \"n1\" can not create pods that reference secrets",
        ),
        (
            |p| p["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "other-env"}}]),
            "node \"n1\" can not create pods that reference configmaps",
        ),
        (
            |p| p["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "other-claim"}}]),
            "node \"n1\" can not create pods that reference persistentvolumeclaims",
        ),
        (
            |p| p["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimName": "others"}]),
            "node \"n1\" can not create pods that reference resourceclaims",
        ),
    ];
    for (change, why) in refused {
        cases.push(("POST", format!("{A}/pods"), pod(&change), Err(why.to_owned())));
    }
    check(cases);
}

fn mesh_uid(name: &str) -> String {
    let mut m = mesh();
    let admin = User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() };
    let got = send(&mut m, &admin, "GET", &format!("/api/v1/nodes/{name}"), Value::Null);
    got.body["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[test]
fn a_node_gets_tokens_for_its_own_pods_by_uid() {
    let mut m = mesh();
    let admin = User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() };
    let mut uid = |pod: &str| {
        let got = send(&mut m, &admin, "GET", &format!("{A}/pods/{pod}"), Value::Null);
        got.body["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    let (mine, other) = (uid("mine"), uid("other"));
    let ask = |bound: Value| json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"boundObjectRef": bound}});
    let pod = |name: &str, uid: &str| ask(json!({"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid}));
    let of = |account: &str| format!("{A}/serviceaccounts/{account}/token");
    let for_whom = |audiences: Value| {
        let mut ask = pod("mine", &mine);
        ask["spec"]["audiences"] = audiences;
        ask
    };
    check(vec![
        ("POST", of("mine-account"), pod("mine", &mine), Ok(201)),
        ("POST", of("mine-account"), for_whom(json!(["vault"])), Ok(201)),
        (
            "POST",
            of("mine-account"),
            for_whom(json!(["bank"])),
            Err("audience \"bank\" not found in pod spec volume".into()),
        ),
        (
            "POST",
            of("mine-account"),
            for_whom(json!(["vault", "bank"])),
            Err("node may only request 0 or 1 audiences".into()),
        ),
        ("POST", of("other-account"), pod("other", &other), Err(unrelated("create", "serviceaccounts/token"))),
        (
            "POST",
            of("mine-account"),
            pod("other", &other),
            Err("node requested token bound to a pod scheduled on a different node".into()),
        ),
        (
            "POST",
            of("mine-account"),
            pod("mine", ""),
            Err("node requested token with a pod binding without a uid".into()),
        ),
        (
            "POST",
            of("mine-account"),
            pod("mine", &other),
            Err(format!(
                "the UID in the bound object reference ({other}) does not match the UID in record. The object might have been deleted and then recreated"
            )),
        ),
        ("POST", of("mine-account"), ask(Value::Null), Err("node requested token not bound to a pod".into())),
        (
            "POST",
            of("mine-account"),
            ask(json!({"kind": "Secret", "apiVersion": "v1", "name": "mine-pull"})),
            Err("node requested token not bound to a pod".into()),
        ),
        (
            "DELETE",
            format!("{A}/serviceaccounts/mine-account"),
            Value::Null,
            Err(cannot("delete", "serviceaccounts", "a", "can only create tokens for individual service accounts")),
        ),
    ]);
}

#[test]
fn a_node_keeps_its_own_node_and_lease() {
    let made = |name: &str, labels: Value| json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name, "labels": labels}});
    let lease = |name: &str| {
        json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {"name": name},
            "spec": {"holderIdentity": name}})
    };
    let renewed = json!({"spec": {"renewTime": "2026-11-22T20:56:24.000000Z"}});
    let own_lease = "can only access node lease with the same name as the requesting node";
    check(vec![
        ("GET", "/api/v1/nodes/n1".into(), Value::Null, Ok(200)),
        (
            "GET",
            "/api/v1/nodes/n2".into(),
            Value::Null,
            Err(cannot("get", "nodes", "", "node 'n1' cannot read 'n2', only its own Node object")),
        ),
        (
            "GET",
            "/api/v1/nodes".into(),
            Value::Null,
            Err(cannot("list", "nodes", "", "node 'n1' cannot read all nodes, only its own Node object")),
        ),
        ("GET", "/api/v1/nodes?watch=1&fieldSelector=metadata.name%3Dn1".into(), Value::Null, Ok(200)),
        // There is one already: it came through to the creation itself.
        ("POST", "/api/v1/nodes".into(), made("n1", json!({"kubernetes.io/hostname": "n1"})), Ok(409)),
        (
            "POST",
            "/api/v1/nodes".into(),
            made("n3", json!({})),
            Err("node \"n1\" is not allowed to modify node \"n3\"".into()),
        ),
        (
            "POST",
            "/api/v1/nodes".into(),
            made("n1", json!({"node-role.kubernetes.io/x": "", "node-restriction.kubernetes.io/y": "", "own": ""})),
            Err("node \"n1\" is not allowed to set the following labels: node-restriction.kubernetes.io/y, node-role.kubernetes.io/x".into()),
        ),
        ("PATCH", "/api/v1/nodes/n1/status".into(), json!({"status": {"capacity": {"cpu": "4"}}}), Ok(200)),
        (
            "PATCH",
            "/api/v1/nodes/n2/status".into(),
            json!({"status": {"capacity": {"cpu": "4"}}}),
            Err("node \"n1\" is not allowed to modify node \"n2\"".into()),
        ),
        ("PATCH", "/api/v1/nodes/n1".into(), json!({"metadata": {"annotations": {"a": "b"}}}), Ok(200)),
        ("PATCH", "/api/v1/nodes/n1".into(), json!({"spec": {"unschedulable": true}}), Ok(200)),
        (
            "PATCH",
            "/api/v1/nodes/n1".into(),
            json!({"spec": {"taints": [{"key": "z", "effect": "NoSchedule"}]}}),
            Err("node \"n1\" is not allowed to modify taints".into()),
        ),
        (
            "PATCH",
            "/api/v1/nodes/n1".into(),
            json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "gone", "uid": "1"}]}}),
            Err("node \"n1\" is not allowed to modify ownerReferences".into()),
        ),
        (
            "PATCH",
            "/api/v1/nodes/n1".into(),
            json!({"metadata": {"labels": {"node-role.kubernetes.io/x": ""}}}),
            Err("is not allowed to modify labels: node-role.kubernetes.io/x".into()),
        ),
        ("DELETE", "/api/v1/nodes/n1".into(), Value::Null, Err(cannot("delete", "nodes", "", ""))),
        ("GET", format!("{LEASES}/n1"), Value::Null, Ok(200)),
        ("PATCH", format!("{LEASES}/n1"), renewed.clone(), Ok(200)),
        ("PATCH", format!("{LEASES}/n2"), renewed, Err(cannot("patch", "leases@coordination.k8s.io", "kube-node-lease", own_lease))),
        ("POST", LEASES.into(), lease("n3"), Err(own_lease.into())),
        (
            "GET",
            LEASES.into(),
            Value::Null,
            Err(cannot("list", "leases@coordination.k8s.io", "kube-node-lease", "can only get, create, update, patch, or delete a node lease")),
        ),
        (
            "POST",
            "/apis/coordination.k8s.io/v1/namespaces/a/leases".into(),
            lease("n1"),
            Err(cannot("create", "leases@coordination.k8s.io", "a", "can only access leases in the \"kube-node-lease\" system namespace")),
        ),
    ]);
}

#[test]
fn a_node_tells_events_and_does_nothing_else() {
    let event = json!({"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e"}, "reason": "Started",
        "involvedObject": {"kind": "Pod", "namespace": "a", "name": "mine"}, "type": "Normal",
        "firstTimestamp": "2026-11-22T20:56:24Z", "lastTimestamp": "2026-11-22T20:56:24Z", "count": 1,
        "source": {"component": "kubelet", "host": "n1"}});
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x"}});
    check(vec![
        ("POST", format!("{A}/events"), event, Ok(201)),
        ("GET", format!("{A}/events"), Value::Null, Err(cannot("list", "events", "a", ""))),
        (
            "POST",
            format!("{A}/configmaps"),
            map,
            Err(cannot("create", "configmaps", "a", "can only read resources of this type")),
        ),
        ("GET", "/api/v1/namespaces".into(), Value::Null, Err(cannot("list", "namespaces", "", ""))),
        (
            "GET",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles".into(),
            Value::Null,
            Err(cannot("list", "clusterroles@rbac.authorization.k8s.io", "", "")),
        ),
    ]);
}

#[test]
fn whoever_only_calls_itself_a_node_is_none_and_a_node_without_a_name_may_nothing() {
    let mut m = mesh();
    let named = User { name: "system:node:n1".into(), groups: vec!["system:authenticated".into()], ..User::default() };
    let got = send(&mut m, &named, "GET", &format!("{A}/pods/mine"), Value::Null);
    assert_eq!(got.status, 403);
    assert!(!got.body["message"].as_str().unwrap().contains("relationship"));
    let grouped = User { name: "n1".into(), ..node("n1") };
    assert_eq!(send(&mut m, &grouped, "GET", &format!("{A}/pods/mine"), Value::Null).status, 403);
    let got = send(&mut m, &node(""), "GET", &format!("{A}/pods/mine"), Value::Null);
    assert!(
        got.body["message"].as_str().unwrap().ends_with(": unknown node for user \"system:node:\""),
        "{}",
        got.body
    );
}

#[test]
fn a_review_says_what_a_node_may_and_why_not() {
    let mut m = mesh();
    let admin = User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() };
    let mut ask = |resource: &str, name: &str| {
        let spec = json!({"user": "system:node:n1", "groups": ["system:nodes"], "resourceAttributes":
            {"verb": "get", "resource": resource, "name": name, "namespace": "a"}});
        let review = json!({"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": spec});
        let got = send(&mut m, &admin, "POST", REVIEW, review);
        assert_eq!(got.status, 201, "{}", got.body);
        got.body["status"].clone()
    };
    assert_eq!(ask("secrets", "mine-pull"), json!({"allowed": true}));
    let why = "no relationship found between node 'n1' and this object";
    assert_eq!(ask("secrets", "other-pull"), json!({"allowed": false, "reason": why}));
}
