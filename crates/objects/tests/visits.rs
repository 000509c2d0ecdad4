//! What one visit decides, told as requests and answers against a mesh in memory.
#![allow(missing_docs, clippy::unwrap_used)]

mod cell;

use cell::{Call, Mesh, Response};
use objects::request::User;
use objects::{Tree, kinds};
use serde_json::{Value, json};

fn mesh() -> Mesh {
    let mut mesh = Mesh::new();
    let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "a"},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    mesh.insert(kinds::by_resource("", "v1", "namespaces").unwrap(), namespace);
    mesh
}

fn send_as(mesh: &mut Mesh, user: &User, method: &str, path: &str, body: Value) -> Response {
    let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
    mesh.now.0 += 1000;
    mesh.call(Call { method, path, content_type, user: user.clone(), body })
}

fn send(mesh: &mut Mesh, method: &str, path: &str, body: Value) -> Response {
    let admin = User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() };
    send_as(mesh, &admin, method, path, body)
}

fn ok(r: Response) -> Tree {
    assert!(r.status < 300, "{} {}", r.status, r.body);
    r.body
}

const MAPS: &str = "/api/v1/namespaces/a/configmaps";
const PODS: &str = "/api/v1/namespaces/a/pods";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/a/rolebindings";

fn map(name: &str, data: Value) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": data})
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "labels": {"app": "x"}}, "spec": {
        "terminationGracePeriodSeconds": 30,
        "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File",
            "resources": {"requests": {"cpu": cpu}}}],
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst"}})
}

/// A role of this kind, bound to a user.
fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({"kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}]})
}

fn revision(t: &Tree) -> String {
    t["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[test]
fn a_write_without_effect_keeps_the_revision() {
    let mut m = mesh();
    let made = ok(send(&mut m, "POST", MAPS, map("x", json!({"k": "v"}))));
    let again = ok(send(&mut m, "PUT", &format!("{MAPS}/x"), map("x", json!({"k": "v"}))));
    assert_eq!(made, again);
    let patched = ok(send(&mut m, "PATCH", &format!("{MAPS}/x"), json!({"data": {"k": "v"}})));
    assert_eq!(made, patched);
    let changed = ok(send(&mut m, "PATCH", &format!("{MAPS}/x"), json!({"data": {"k": "w"}})));
    assert_ne!(revision(&made), revision(&changed));
}

#[test]
fn a_revision_that_is_none_is_refused_or_passed_over_as_kubernetes_does() {
    let mut m = mesh();
    let with = |revision: &str| {
        let mut map = map("x", json!({"k": "v"}));
        map["metadata"]["resourceVersion"] = json!(revision);
        map
    };
    let refused = |r: Response| (r.status, r.body["reason"].clone(), r.body["message"].as_str().unwrap().to_owned());
    let set = "resourceVersion should not be set on objects to be created";
    assert_eq!(refused(send(&mut m, "POST", MAPS, with("5"))), (500, json!(null), set.to_owned()));
    ok(send(&mut m, "POST", &format!("{MAPS}?dryRun=All"), with("abc")));
    ok(send(&mut m, "POST", MAPS, with("0")));
    let path = format!("{MAPS}/x");
    let syntax = r#"strconv.ParseUint: parsing "+5": invalid syntax"#;
    assert_eq!(refused(send(&mut m, "PUT", &path, with("+5"))), (500, json!(null), syntax.to_owned()));
    let get = refused(send(&mut m, "GET", &format!("{path}?resourceVersion=abc"), Value::Null));
    assert_eq!((get.0, get.1), (500, json!(null)));
    assert!(get.2.starts_with(r#"resourceVersion: Invalid value: "abc": strconv.ParseUint"#), "{}", get.2);
    assert_eq!(send(&mut m, "GET", &format!("{MAPS}?resourceVersion=abc"), Value::Null).status, 400);
}

#[test]
fn a_dry_run_answers_and_changes_nothing() {
    let mut m = mesh();
    ok(send(&mut m, "POST", &format!("{MAPS}?dryRun=All"), map("x", json!({}))));
    assert_eq!(send(&mut m, "GET", &format!("{MAPS}/x"), Value::Null).status, 404);
    let made = ok(send(&mut m, "POST", MAPS, map("x", json!({"k": "v"}))));
    ok(send(&mut m, "DELETE", &format!("{MAPS}/x?dryRun=All"), Value::Null));
    let dry = ok(send(&mut m, "PATCH", &format!("{MAPS}/x?dryRun=All"), json!({"data": {"k": "w"}})));
    assert_eq!(dry["data"]["k"], "w");
    assert_eq!(ok(send(&mut m, "GET", &format!("{MAPS}/x"), Value::Null)), made);
}

#[test]
fn finalizers_keep_an_object_until_the_last_is_taken() {
    let mut m = mesh();
    let mut held = map("x", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/a", "example.com/b"]);
    ok(send(&mut m, "POST", MAPS, held));
    let path = format!("{MAPS}/x");
    let marked = ok(send(&mut m, "DELETE", &path, Value::Null));
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let again = ok(send(&mut m, "DELETE", &path, Value::Null));
    assert_eq!(revision(&marked), revision(&again));
    ok(send(&mut m, "PATCH", &path, json!({"metadata": {"finalizers": ["example.com/b"]}})));
    assert_eq!(send(&mut m, "GET", &path, Value::Null).status, 200);
    let last = ok(send(&mut m, "PATCH", &path, json!({"metadata": {"finalizers": null}})));
    assert!(revision(&last) > revision(&marked));
    assert_eq!(send(&mut m, "GET", &path, Value::Null).status, 404);
}

#[test]
fn what_is_in_no_namespace_is_not_deleted_with_its_dependents_orphaned() {
    let mut m = mesh();
    let made =
        json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": "p"}, "value": 1});
    const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
    ok(send(&mut m, "POST", CLASSES, made));
    let orphan = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Orphan"});
    let path = format!("{CLASSES}/p");
    let refused = send(&mut m, "DELETE", &path, orphan.clone());
    assert_eq!(refused.status, 400);
    assert!(refused.body["message"].as_str().unwrap().contains("Nothing was changed"), "{}", refused.body);
    assert!(ok(send(&mut m, "GET", &path, json!(null)))["metadata"]["deletionTimestamp"].is_null());
    // In a namespace all dependents are at hand.
    ok(send(&mut m, "POST", MAPS, map("x", json!({}))));
    ok(send(&mut m, "DELETE", &format!("{MAPS}/x"), orphan));
    ok(send(&mut m, "DELETE", &path, json!(null)));
}

#[test]
fn a_patch_nests_an_object_no_deeper_than_a_body_may() {
    let mut m = mesh();
    const REVISIONS: &str = "/apis/apps/v1/namespaces/a/controllerrevisions";
    let made = json!({"kind": "ControllerRevision", "apiVersion": "apps/v1", "metadata": {"name": "r"}, "revision": 1, "data": {"k": 1}});
    ok(send(&mut m, "POST", REVISIONS, made.clone()));
    let nest = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({"k": inner}));
    let mut body = made;
    body["metadata"]["name"] = json!("s");
    body["data"] = nest(119);
    ok(send(&mut m, "POST", REVISIONS, body));
    let refused = send(&mut m, "PATCH", &format!("{REVISIONS}/r"), json!({"data": nest(120)}));
    assert_eq!(refused.status, 422, "{}", refused.body);
}

#[test]
fn a_list_in_pieces_shows_everything_once() {
    let mut m = mesh();
    for i in 0..5 {
        ok(send(&mut m, "POST", MAPS, map(&format!("m{i}"), json!({}))));
    }
    let (mut names, mut token) = (Vec::new(), String::new());
    loop {
        let page = ok(send(&mut m, "GET", &format!("{MAPS}?limit=2&continue={token}"), Value::Null));
        for item in page["items"].as_array().unwrap() {
            names.push(item["metadata"]["name"].as_str().unwrap().to_owned());
        }
        match page["metadata"]["continue"].as_str() {
            Some(t) => {
                assert_eq!(page["metadata"]["remainingItemCount"], 6 - names.len());
                token = t.to_owned();
            }
            None => break,
        }
    }
    assert_eq!(names, ["kube-root-ca.crt", "m0", "m1", "m2", "m3", "m4"]);
}

#[test]
fn a_quota_is_exact_and_is_given_back() {
    let mut m = mesh();
    let quota = json!({"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": "q"},
        "spec": {"hard": {"configmaps": "3", "requests.cpu": "1"}}});
    let quotas = "/api/v1/namespaces/a/resourcequotas";
    ok(send(&mut m, "POST", quotas, quota));
    // kube-root-ca.crt counts too.
    ok(send(&mut m, "POST", MAPS, map("x", json!({}))));
    ok(send(&mut m, "POST", MAPS, map("y", json!({}))));
    let refused = send(&mut m, "POST", MAPS, map("z", json!({})));
    assert_eq!(
        (refused.status, refused.body["message"].as_str().unwrap()),
        (
            403,
            "configmaps \"z\" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=3, limited: configmaps=3"
        )
    );
    let used = |m: &mut Mesh| ok(send(m, "GET", &format!("{quotas}/q"), Value::Null))["status"]["used"].clone();
    assert_eq!(used(&mut m)["configmaps"], "3");
    ok(send(&mut m, "DELETE", &format!("{MAPS}/x"), Value::Null));
    assert_eq!(used(&mut m)["configmaps"], "2");
    ok(send(&mut m, "POST", PODS, pod("p", "600m")));
    assert_eq!(used(&mut m)["requests.cpu"], "600m");
    let refused = send(&mut m, "POST", PODS, pod("r", "500m"));
    assert!(refused.body["message"].as_str().unwrap().ends_with(
        "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"
    ));
    let mut silent = pod("s", "0");
    silent["spec"]["containers"][0]["resources"] = json!({});
    let why = send(&mut m, "POST", PODS, silent.clone()).body["message"].clone();
    assert!(why.as_str().unwrap().contains("must specify requests.cpu for: c"), "{why}");
    silent["spec"]["resources"] = json!({"requests": {"cpu": "100m"}});
    ok(send(&mut m, "POST", PODS, silent));
    assert_eq!(used(&mut m)["requests.cpu"], "700m", "what a pod asks for as a whole counts");
    ok(send(&mut m, "DELETE", &format!("{MAPS}?labelSelector=!none"), Value::Null));
    assert_eq!(used(&mut m)["configmaps"], "0");
}

#[test]
fn a_limit_range_fills_in_and_refuses() {
    let mut m = mesh();
    let range = json!({"kind": "LimitRange", "apiVersion": "v1", "metadata": {"name": "r"}, "spec": {"limits": [
        {"type": "Container", "defaultRequest": {"memory": "64Mi"}, "default": {"memory": "128Mi", "cpu": "1"}, "max": {"cpu": "1"}}]}});
    ok(send(&mut m, "POST", "/api/v1/namespaces/a/limitranges", range));
    let made = ok(send(&mut m, "POST", PODS, pod("p", "500m")));
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "500m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: memory request for container c; cpu, memory limit for container c"
    );
    let mut big = pod("q", "500m");
    big["spec"]["containers"][0]["resources"]["limits"] = json!({"cpu": "2"});
    let refused = send(&mut m, "POST", PODS, big);
    assert_eq!(
        refused.body["message"],
        "pods \"q\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"
    );
}

#[test]
fn a_pod_is_bound_once_and_evicted_within_its_budget() {
    let mut m = mesh();
    let made = ok(send(&mut m, "POST", PODS, pod("p", "1")));
    assert_eq!(made["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
    let binding = json!({"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    ok(send(&mut m, "POST", &format!("{PODS}/p/binding"), binding.clone()));
    let again = send(&mut m, "POST", &format!("{PODS}/p/binding"), binding);
    assert_eq!(
        again.body["message"],
        "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\""
    );
    let budget = json!({"kind": "PodDisruptionBudget", "apiVersion": "policy/v1", "metadata": {"name": "b", "namespace": "a"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}},
        "status": {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}});
    m.insert(kinds::by_resource("policy", "v1", "poddisruptionbudgets").unwrap(), budget);
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    ok(send(&mut m, "PATCH", &format!("{PODS}/p/status"), ready));
    let eviction = json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "p"}});
    let refused = send(&mut m, "POST", &format!("{PODS}/p/eviction"), eviction.clone());
    assert_eq!(refused.status, 429);
    assert_eq!(
        refused.body["details"]["causes"][0]["message"],
        "The disruption budget b needs 1 healthy pods and has 1 currently"
    );
    let allowed = json!({"status": {"disruptionsAllowed": 1}});
    let budgets = "/apis/policy/v1/namespaces/a/poddisruptionbudgets/b";
    ok(send(&mut m, "PATCH", &format!("{budgets}/status"), allowed));
    ok(send(&mut m, "POST", &format!("{PODS}/p/eviction"), eviction));
    let left = ok(send(&mut m, "GET", budgets, Value::Null));
    assert!(left["status"]["disruptedPods"]["p"].is_string(), "{left}");
    let going = ok(send(&mut m, "GET", &format!("{PODS}/p"), Value::Null));
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    let conditions = going["status"]["conditions"].as_array().unwrap();
    let why = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&why["status"], &why["reason"]), (&json!("True"), &json!("EvictionByEvictionAPI")));
    ok(send(
        &mut m,
        "DELETE",
        &format!("{PODS}/p"),
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}),
    ));
    assert_eq!(send(&mut m, "GET", &format!("{PODS}/p"), Value::Null).status, 404);
}

#[test]
fn nobody_grants_what_they_do_not_have() {
    let mut m = mesh();
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/a/roles";
    let role = |name: &str, resource: &str, verbs: Value| {
        json!({"kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name},
            "rules": [{"verbs": verbs, "apiGroups": ["", "rbac.authorization.k8s.io"], "resources": [resource]}]})
    };
    ok(send(&mut m, "POST", roles, role("editor", "roles", json!(["create", "get"]))));
    ok(send(&mut m, "POST", roles, role("reader", "configmaps", json!(["get"]))));
    for name in ["editor", "reader"] {
        ok(send(&mut m, "POST", BINDINGS, binding(name, "Role", name, "eve")));
    }
    let eve = User { name: "eve".into(), groups: vec!["system:authenticated".into()], ..User::default() };
    let as_eve = |m: &mut Mesh, body: Value| send_as(m, &eve, "POST", roles, body);
    ok(as_eve(&mut m, role("same", "configmaps", json!(["get"]))));
    let mut narrow = role("narrow", "configmaps", json!(["get"]));
    narrow["rules"][0]["apiGroups"] = json!([""]);
    ok(as_eve(&mut m, narrow));
    let refused = as_eve(&mut m, role("more", "secrets", json!(["get", "list"])));
    let text = refused.body["message"].as_str().unwrap();
    let missing = "is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\", \"list\"]}";
    assert!(text.contains(missing), "{text}");
    // What is not there (yet) may come to be anything.
    ok(send(&mut m, "POST", roles, role("binder", "rolebindings", json!(["create"]))));
    ok(send(&mut m, "POST", BINDINGS, binding("binder", "Role", "binder", "eve")));
    for (kind, plural) in [("ClusterRole", "clusterroles"), ("Role", "roles")] {
        let refused = send_as(&mut m, &eve, "POST", BINDINGS, binding("early", kind, "later", "eve"));
        let text = format!("{plural}.rbac.authorization.k8s.io \"later\" not found");
        assert_eq!((refused.status, refused.body["message"].as_str()), (404, Some(&*text)));
    }
    ok(send_as(&mut m, &eve, "POST", BINDINGS, binding("own", "Role", "reader", "eve")));
    assert_eq!(send_as(&mut m, &eve, "GET", MAPS, Value::Null).status, 403);
    assert_eq!(send_as(&mut m, &eve, "GET", &format!("{MAPS}/kube-root-ca.crt"), Value::Null).status, 200);
}

#[test]
fn who_may_only_read_runs_nothing_in_a_container() {
    let mut m = mesh();
    ok(send(&mut m, "POST", PODS, pod("p", "1")));
    for (name, verbs) in [("reader", json!(["get"])), ("writer", json!(["get", "create"]))] {
        let role = json!({"kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name},
            "rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods/exec", "pods/log"]}]});
        ok(send(&mut m, "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/a/roles", role));
        ok(send(&mut m, "POST", BINDINGS, binding(name, "Role", name, name)));
    }
    // A WebSocket begins as a GET.
    let mut asks = |name: &str, sub: &str| {
        let user = User { name: name.into(), groups: vec!["system:authenticated".into()], ..User::default() };
        send_as(&mut m, &user, "GET", &format!("{PODS}/p/{sub}"), Value::Null).status
    };
    assert_eq!((asks("reader", "exec"), asks("writer", "exec")), (403, 200));
    assert_eq!(asks("reader", "log"), 200, "a log is read");
}

#[test]
fn services_get_addresses_and_ports_nobody_else_has() {
    let mut m = mesh();
    let services = "/api/v1/namespaces/a/services";
    let service = |name: &str, spec: Value| json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name}, "spec": spec});
    let port = json!([{"port": 80, "targetPort": 80, "protocol": "TCP"}]);
    let mut seen = std::collections::BTreeSet::new();
    for i in 0..20 {
        let s = service(&format!("s{i}"), json!({"type": "NodePort", "sessionAffinity": "None", "ports": port}));
        let made = ok(send(&mut m, "POST", services, s));
        let ip = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
        assert!(ip.starts_with("10.43."), "{ip}");
        assert_eq!(made["spec"]["clusterIPs"], json!([ip]));
        let node_port = made["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
        assert!((30000..=32767).contains(&node_port));
        assert!(seen.insert(ip) && seen.insert(node_port.to_string()));
    }
    let taken = seen.iter().find(|s| s.starts_with("10.")).unwrap().clone();
    let refused = send(&mut m, "POST", services, service("t", json!({"clusterIP": taken, "ports": port})));
    assert!(refused.body["message"].as_str().unwrap().ends_with("provided IP is already allocated"));
    let headless = ok(send(&mut m, "POST", services, service("h", json!({"clusterIP": "None", "ports": port}))));
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
}

#[test]
fn no_two_services_of_the_mesh_have_the_same_address_or_port() {
    let mut m = mesh();
    for namespace in ["b", "c"] {
        let tree = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": namespace},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        m.insert(kinds::by_resource("", "v1", "namespaces").unwrap(), tree);
    }
    let service = |name: &str, spec: Value| json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name}, "spec": spec});
    let of = |namespace: &str| format!("/api/v1/namespaces/{namespace}/services");
    let port = json!([{"port": 80, "targetPort": 80, "protocol": "TCP"}]);
    let mut seen = std::collections::BTreeSet::new();
    for i in 0..40 {
        for namespace in ["a", "b", "c"] {
            let s = service(&format!("s{i}"), json!({"type": "NodePort", "ports": port}));
            let made = ok(send(&mut m, "POST", &of(namespace), s));
            assert!(seen.insert(made["spec"]["clusterIP"].to_string()));
            assert!(seen.insert(made["spec"]["ports"][0]["nodePort"].to_string()));
        }
    }
    let allotted = |m: &mut Mesh| ok(send(m, "GET", "/apis/beemesh.io/v1/allotments", Value::Null))["items"].clone();
    assert_eq!(allotted(&mut m)[0]["spec"]["blocks"].as_array().unwrap().len(), 3, "40 addresses of blocks of 16");

    let chosen = |address: &str, port: u16| json!({"type": "NodePort", "clusterIP": address, "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP", "nodePort": port}]});
    let before = allotted(&mut m);
    ok(send(&mut m, "POST", &format!("{}?dryRun=All", of("a")), service("x", chosen("10.43.0.10", 30080))));
    assert_eq!(send(&mut m, "POST", &of("a"), service("s1", chosen("10.43.0.10", 30080))).status, 409, "there is one");
    assert_eq!(allotted(&mut m), before, "a dry run and a refusal take nothing");

    ok(send(&mut m, "POST", &of("a"), service("x", chosen("10.43.0.10", 30080))));
    for (spec, why) in [
        (
            chosen("10.43.0.11", 30080),
            "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated",
        ),
        (chosen("10.43.0.10", 30081), "failed to allocate IP 10.43.0.10: provided IP is already allocated"),
    ] {
        let refused = send(&mut m, "POST", &of("b"), service("x", spec));
        assert_eq!(refused.status, 422);
        assert!(refused.body["message"].as_str().unwrap().contains(why), "{}", refused.body);
    }
    // One without anything yet hears what is taken, not that nothing is left.
    let tree = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "d"},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    m.insert(kinds::by_resource("", "v1", "namespaces").unwrap(), tree);
    let refused = send(&mut m, "POST", &of("d"), service("x", chosen("", 30080)));
    assert!(refused.body["message"].as_str().unwrap().contains("30080: provided port is"), "{}", refused.body);
    // Moved to another port it keeps its address, and has both ports until the first is returned.
    let moved = service("x", chosen("10.43.0.10", 30085));
    let moved = ok(send(&mut m, "PUT", &format!("{}/x", of("a")), moved));
    assert_eq!(moved["spec"]["ports"][0]["nodePort"], 30085);
    assert_eq!(send(&mut m, "POST", &of("c"), service("x", chosen("", 30085))).status, 422);

    // What is written in a service that is but a name is not had by it.
    for (name, spec, then) in [
        ("door", json!({"ports": [{"port": 80, "nodePort": 30085}]}), json!({"type": "NodePort"})),
        ("low", json!({"ports": [{"port": 80, "nodePort": 22}]}), json!({"type": "NodePort"})),
        (
            "api",
            json!({"clusterIP": "10.43.0.1", "ports": [{"port": 80}]}),
            json!({"clusterIPs": ["10.43.0.1"], "type": "ClusterIP"}),
        ),
        (
            "dns",
            json!({"clusterIP": "10.43.0.10", "ports": [{"port": 80}]}),
            json!({"clusterIPs": ["10.43.0.10"], "type": "ClusterIP"}),
        ),
    ] {
        let mut spec = spec;
        (spec["type"], spec["externalName"]) = (json!("ExternalName"), json!("x.example.com"));
        let made = send(&mut m, "POST", &of("b"), service(name, spec));
        if made.status == 422 {
            continue;
        }
        let mut then = then;
        then["externalName"] = Value::Null;
        let patched = send(&mut m, "PATCH", &format!("{}/{name}", of("b")), json!({"spec": then}));
        assert_eq!(patched.status, 422, "{name}: {}", patched.body);
    }
    let twice = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30090,
        "ports": [{"port": 80, "nodePort": 30090}]});
    assert_eq!(send(&mut m, "POST", &of("b"), service("twice", twice)).status, 422);
}

#[test]
fn a_service_keeps_its_node_ports_and_has_no_families_nobody_serves() {
    let mut m = mesh();
    let services = "/api/v1/namespaces/a/services";
    let service = |name: &str, spec: Value| json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name}, "spec": spec});
    let ports = json!([{"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"},
        {"name": "tcp", "port": 53, "targetPort": 53, "protocol": "TCP"}]);
    let made = ok(send(&mut m, "POST", services, service("dns", json!({"type": "NodePort", "ports": ports}))));
    let node = |s: &Tree, i: usize| s["spec"]["ports"][i]["nodePort"].as_i64().unwrap();
    assert_eq!(node(&made, 0), node(&made, 1), "one port over two protocols");

    let port = |port: u16| json!({"type": "NodePort", "ports": [{"port": port, "targetPort": 80, "protocol": "TCP"}]});
    let made = ok(send(&mut m, "POST", services, service("web", port(80))));
    let moved = ok(send(&mut m, "PUT", &format!("{services}/web"), service("web", port(8080))));
    assert_eq!((node(&moved, 0), &moved["spec"]["ports"][0]["port"]), (node(&made, 0), &json!(8080)));

    let port = json!([{"port": 80, "targetPort": 80, "protocol": "TCP"}]);
    for (spec, why) in [
        (
            json!({"ipFamilies": ["IPv6"], "ports": port}),
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
        ),
        (
            json!({"ipFamilyPolicy": "RequireDualStack", "ports": port}),
            "this cluster is not configured for dual-stack services",
        ),
        (json!({"clusterIP": "10.43.0.1", "ports": port}), "provided IP is already allocated"),
    ] {
        let refused = send(&mut m, "POST", services, service("none", spec));
        assert_eq!(refused.status, 422);
        assert!(refused.body["message"].as_str().unwrap().contains(why), "{}", refused.body);
    }
    ok(send(&mut m, "POST", services, service("like", json!({"ipFamilyPolicy": "PreferDualStack", "ports": port}))));
}

#[test]
fn an_update_means_the_object_it_names() {
    let mut m = mesh();
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let role = json!({"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "r", "namespace": "a"}, "rules": []});
    let made = ok(send(&mut m, "POST", roles, role.clone()));
    let again = ok(send(&mut m, "PUT", &format!("{roles}/r"), role));
    assert_eq!((&again["metadata"]["uid"], again["metadata"].get("namespace")), (&made["metadata"]["uid"], None));
    ok(send(&mut m, "DELETE", &format!("{roles}/r"), Value::Null));
    let mut gone = made;
    gone["metadata"]["resourceVersion"] = Value::Null;
    let refused = send(&mut m, "PUT", &format!("{roles}/r"), gone);
    assert_eq!((refused.status, &refused.body["reason"]), (409, &json!("Conflict")), "it is not made anew");
}

#[test]
fn a_namespace_that_is_going_takes_nothing_new() {
    let mut m = mesh();
    let gone = ok(send(&mut m, "DELETE", "/api/v1/namespaces/a", Value::Null));
    assert_eq!(gone["status"]["phase"], "Terminating");
    let refused = send(&mut m, "POST", MAPS, map("x", json!({})));
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let none = send(&mut m, "POST", "/api/v1/namespaces/zz/configmaps", map("x", json!({})));
    assert_eq!(none.body["message"], "namespaces \"zz\" not found");
    let body = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "a"}, "spec": {"finalizers": []}});
    ok(send(&mut m, "PUT", "/api/v1/namespaces/a/finalize", body));
    assert_eq!(send(&mut m, "GET", "/api/v1/namespaces/a", Value::Null).status, 404);
}

#[test]
fn a_role_that_aggregates_changes_with_what_it_aggregates() {
    let mut m = mesh();
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let role = |name: &str, resource: &str| {
        json!({"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1",
            "metadata": {"name": name, "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
            "rules": [{"verbs": ["get"], "apiGroups": ["bees.io"], "resources": [resource]}]})
    };
    let has = |m: &mut Mesh, resource: &str| {
        let view = ok(send(m, "GET", &format!("{roles}/view"), Value::Null));
        view["rules"].as_array().unwrap().iter().any(|r| r["resources"] == json!([resource]))
    };
    ok(send(&mut m, "POST", roles, role("bees", "bees")));
    assert!(has(&mut m, "bees"));
    ok(send(&mut m, "PUT", &format!("{roles}/bees"), role("bees", "hives")));
    assert!(has(&mut m, "hives") && !has(&mut m, "bees"));
    ok(send(&mut m, "DELETE", &format!("{roles}/bees"), Value::Null));
    assert!(!has(&mut m, "hives"));
}

#[test]
fn what_a_role_loses_all_lose_that_have_it_through_others() {
    let mut m = mesh();
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let to = |role: &str| format!("rbac.authorization.k8s.io/aggregate-to-{role}");
    let bees = json!({"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "bees", "labels": {to("view"): "true", to("edit"): "true"}},
        "rules": [{"verbs": ["get"], "apiGroups": ["bees.io"], "resources": ["bees"]}]});
    let have = |m: &mut Mesh| {
        ["view", "edit", "admin"].map(|name| {
            let role = ok(send(m, "GET", &format!("{roles}/{name}"), Value::Null));
            role["rules"].as_array().unwrap().iter().any(|r| r["resources"] == json!(["bees"]))
        })
    };
    ok(send(&mut m, "POST", roles, bees));
    assert_eq!(have(&mut m), [true; 3]);
    ok(send(&mut m, "DELETE", &format!("{roles}/bees"), Value::Null));
    assert_eq!(have(&mut m), [false; 3]);
}

fn apply(mesh: &mut Mesh, path: &str, body: Value) -> Response {
    let user = User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() };
    mesh.now.0 += 1000;
    let body = serde_json::to_vec(&body).unwrap();
    mesh.call(Call { method: "PATCH", path, content_type: "application/apply-patch+yaml", user, body })
}

#[test]
fn whoever_applies_a_scale_owns_the_replicas_of_its_workload() {
    let mut m = mesh();
    let labels = json!({"a": "b"});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let path = "/apis/apps/v1/namespaces/a/deployments";
    ok(apply(&mut m, &format!("{path}/web?fieldManager=owner"), deployment.clone()));
    let scale = |n: i64| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": n}});
    let to = format!("{path}/web/scale?fieldManager=autoscaler");
    let refused = apply(&mut m, &to, scale(5));
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert_eq!(refused.body["details"]["causes"][0]["field"], ".spec.replicas");
    let scaled = ok(apply(&mut m, &format!("{to}&force=true"), scale(5)));
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(5)));
    let now = ok(send(&mut m, "GET", &format!("{path}/web"), Value::Null));
    assert_eq!(
        (&now["spec"]["replicas"], &now["spec"]["template"]["spec"]["containers"][0]["image"]),
        (&json!(5), &json!("i"))
    );
    let own =
        now["metadata"]["managedFields"].as_array().unwrap().iter().find(|f| f["manager"] == "autoscaler").unwrap();
    assert_eq!(
        (&own["operation"], &own["subresource"], &own["apiVersion"], &own["fieldsV1"]),
        (&json!("Apply"), &json!("scale"), &json!("apps/v1"), &json!({"f:spec": {"f:replicas": {}}}))
    );
    // The same again changes nothing, and the owner of the rest no longer gets its own number without force.
    assert_eq!(revision(&ok(apply(&mut m, &to, scale(5)))), revision(&now));
    assert_eq!(apply(&mut m, &format!("{path}/web?fieldManager=owner"), deployment).status, 409);
    assert_eq!(apply(&mut m, &to, scale(-1)).status, 422);
    assert_eq!(apply(&mut m, &format!("{path}/web/scale?fieldManager="), scale(1)).status, 422);
}

#[test]
fn a_status_that_is_applied_is_its_appliers_and_nothing_else_is() {
    let mut m = mesh();
    ok(send(&mut m, "POST", PODS, pod("p", "1")));
    let config = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"x": "y"}},
        "status": {"message": "said"}});
    let applied = ok(apply(&mut m, &format!("{PODS}/p/status?fieldManager=teller"), config));
    assert_eq!(applied["status"]["message"], "said");
    let own =
        applied["metadata"]["managedFields"].as_array().unwrap().iter().find(|f| f["manager"] == "teller").unwrap();
    assert_eq!((&own["operation"], &own["subresource"]), (&json!("Apply"), &json!("status")));
    assert_eq!(own["fieldsV1"]["f:status"], json!({"f:message": {}}));
    assert_eq!(
        apply(
            &mut m,
            &format!("{PODS}/none/status?fieldManager=teller"),
            json!({"apiVersion": "v1",
        "kind": "Pod", "metadata": {"name": "none"}})
        )
        .status,
        404
    );
}

#[test]
fn a_name_is_one_nodes_and_a_node_has_one() {
    let mut m = mesh();
    let path = "/apis/beemesh.io/v1/members";
    let member = |name: &str, node: char| {
        json!({"apiVersion": "beemesh.io/v1", "kind": "Member", "metadata": {"name": name}, "spec": {
            "node": node.to_string().repeat(64), "registry": "00000000-0000-0000-0000-000000000007",
            "roles": ["worker"], "addresses": [], "joined": "2026-02-01T08:00:00Z"}})
    };
    let one = ok(send(&mut m, "POST", path, member("one", 'a')));
    let taken = send(&mut m, "POST", path, member("one", 'b'));
    assert_eq!((taken.status, &taken.body["reason"]), (409, &json!("AlreadyExists")));
    let second = send(&mut m, "POST", path, member("two", 'a'));
    assert_eq!((second.status, &second.body["reason"]), (409, &json!("Conflict")));
    assert!(second.body["message"].as_str().unwrap().contains("has the name one already"), "{}", second.body);
    ok(send(&mut m, "POST", path, member("two", 'b')));

    let of_one = format!("{path}/one");
    let mut moved = one.clone();
    moved["spec"]["addresses"] = json!(["192.0.2.1:7443"]);
    let moved = ok(send(&mut m, "PUT", &of_one, moved));
    let mut late = one.clone();
    late["spec"]["roles"] = json!(["authority"]);
    assert_eq!(send(&mut m, "PUT", &of_one, late).status, 409, "it has changed since");
    let mut unread = moved.clone();
    unread["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(send(&mut m, "PUT", &of_one, unread).status, 422, "nobody writes what they have not read");
    let mut damaged = moved;
    damaged["spec"]["addresses"] = json!(["nowhere"]);
    assert_eq!(send(&mut m, "PUT", &of_one, damaged).status, 422);
}
