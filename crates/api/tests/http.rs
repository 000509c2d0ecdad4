//! The gateway over real TLS and HTTP, against what a kube-apiserver answers.

#![allow(clippy::unwrap_used)]

mod support;

use api::port::Event;
use api::server::Limits;
use bytes::Bytes;
use objects::Tree;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::{golden, piece, start};

/// Takes out what two runs differ in, and what belongs to the store and not to HTTP.
fn normalised(mut t: Tree) -> Tree {
    fn walk(t: &mut Tree) {
        match t {
            Tree::Object(m) => {
                for k in ["resourceVersion", "uid", "creationTimestamp", "managedFields"] {
                    m.remove(k);
                }
                m.values_mut().for_each(walk);
            }
            Tree::Array(a) => a.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut t);
    t
}

#[tokio::test]
async fn routing_and_negotiation_answer_as_kube_apiserver_does() {
    let served = start(Limits::default()).await;
    let mut client = served.client().await;
    for name in ["a", "ssa"] {
        assert_eq!(client.create("gold", name, "1").await.status, 201);
    }
    for case in golden("http.json").as_array().unwrap() {
        let (method, path) = (case["method"].as_str().unwrap(), case["path"].as_str().unwrap());
        // Which list options go together is decided with the list.
        if path.contains("resourceVersionMatch") {
            continue;
        }
        let headers: Vec<(&str, &str)> =
            case["headers"].as_object().unwrap().iter().map(|(k, v)| (k.as_str(), v.as_str().unwrap())).collect();
        let body = match &case["body"] {
            Tree::Null => String::new(),
            Tree::String(s) => s.clone(),
            t => t.to_string(),
        };
        let got = client.send(method, path, &headers, body).await;
        assert_eq!(u64::from(got.status), case["status"], "{method} {path} {:?}", got.body);
        assert_eq!(got.header("content-type"), case["response_headers"]["content-type"], "{method} {path}");
        match &case["response"] {
            Tree::String(text) => assert_eq!(got.body, text.as_bytes(), "{method} {path}"),
            // What Go's JSON reader says about bytes is its own.
            want if want["message"].as_str().is_some_and(|m| m.contains("invalid character")) => {
                let first = want["message"].as_str().unwrap().split("invalid character").next().unwrap();
                assert!(got.json()["message"].as_str().unwrap().starts_with(first), "{method} {path} {:?}", got.body);
            }
            want if want["message"].as_str().is_some_and(|m| m.contains(" in scheme ")) => {
                let first = want["message"].as_str().unwrap().split(" in scheme ").next().unwrap();
                assert_eq!(got.json()["message"], first, "{method} {path}");
            }
            want => {
                let (mut want, mut got) = (normalised(want.clone()), normalised(got.json()));
                if path.ends_with("/ssa/") {
                    (want["data"], got["data"]) = (Tree::Null, Tree::Null);
                }
                assert_eq!(got, want, "{method} {path}");
            }
        }
    }
}

/// The golden answers name an address that is not ours.
const ADDRESS: &str = "192.0.2.2:16443";

#[tokio::test]
async fn discovery_is_kube_apiservers_for_every_kind_in_the_table() {
    let served = start(Limits::default()).await;
    let mut client = served.client().await;
    let golden = golden("discovery.json");
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    for path in ["/api", "/apis"] {
        let got = client.get(path).await;
        assert_eq!(
            got.json().to_string().replace(&served.address.to_string(), ADDRESS).parse::<Tree>().unwrap(),
            without_missing(&golden[path]),
            "{path}"
        );
        let got = client.send("GET", path, &[("accept", aggregated)], "").await;
        assert_eq!(got.header("content-type"), "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
        assert_eq!(got.json(), without_missing(&golden[format!("{path} aggregated")]), "{path} aggregated");
        let etag = got.header("etag").to_owned();
        let again = client.send("GET", path, &[("accept", aggregated), ("if-none-match", &etag)], "").await;
        assert_eq!((again.status, again.body.len()), (304, 0));
    }
}

/// Leaves out groups that come from objects (a CRD of the run that was observed), and the one subresource
/// that no node carries out yet: what is not done must not look as if it were.
fn without_missing(t: &Tree) -> Tree {
    fn without_resize(t: &mut Tree) {
        match t {
            Tree::Array(list) => {
                list.retain(|r| r["name"] != "pods/resize" && r["subresource"] != "resize");
                list.iter_mut().for_each(without_resize);
            }
            Tree::Object(map) => map.values_mut().for_each(without_resize),
            _ => {}
        }
    }
    let mut t = t.clone();
    without_resize(&mut t);
    for key in ["groups", "items"] {
        if let Some(list) = t.get_mut(key).and_then(Tree::as_array_mut) {
            list.retain(|g| g["name"] != "gold.test" && g["metadata"]["name"] != "gold.test");
        }
    }
    t
}

#[tokio::test]
async fn version_health_and_group_documents_are_kube_apiservers() {
    let served = start(Limits::default()).await;
    let mut client = served.client().await;
    let golden = golden("version_and_health.json");
    for path in ["/version", "/healthz", "/apis/apps", "/apis/apps/v1", "/nope", "/openid/v1/jwks"] {
        let headers: &[(&str, &str)] =
            if path.starts_with("/openid") { &[("accept", "application/json")] } else { &[] };
        let got = client.send("GET", path, headers, "").await;
        let text = golden[path][1].as_str().unwrap();
        assert_eq!(u64::from(got.status), golden[path][0], "{path}");
        match text.parse::<Tree>() {
            Ok(want) => assert_eq!(got.json(), want, "{path}"),
            Err(_) => assert_eq!(got.body, text.as_bytes(), "{path}"),
        }
    }
    // The observed document is cut off; as far as it goes, ours has the same words.
    let core = client.get("/api/v1").await.json();
    let text = golden["/api/v1"][1].as_str().unwrap();
    let whole = &text[..text.rfind(",{\"name\"").unwrap()];
    let want: Tree = format!("{whole}]}}").parse().unwrap();
    for resource in want["resources"].as_array().unwrap() {
        assert!(core["resources"].as_array().unwrap().contains(resource), "{resource}");
    }
    assert!(core.get("apiVersion").is_none() && core["groupVersion"] == "v1");
}

#[tokio::test]
async fn health_says_what_is_wrong_when_asked_and_withholds_why() {
    let served = start(Limits::default()).await;
    let mut client = served.client_as(None).await;
    assert_eq!(client.get("/livez?verbose").await.body, "[+]ping ok\n[+]log ok\nlivez check passed\n");
    assert_eq!(client.get("/readyz/log").await.body, "ok");
    assert_eq!(client.get("/readyz/nope").await.status, 404);
    *served.backend.unhealthy.lock().unwrap() = Some("log");
    let sick = client.get("/readyz").await;
    assert_eq!(
        (sick.status, &sick.body[..]),
        (500, &b"[+]ping ok\n[-]log failed: reason withheld\nreadyz check failed\n"[..])
    );
    assert_eq!(client.get("/readyz/log").await.status, 500);
    assert_eq!(client.get("/readyz?exclude=log").await.status, 200);
}

#[tokio::test]
async fn only_health_and_version_are_for_everyone() {
    let served = start(Limits::default()).await;
    let mut nobody = served.client_as(None).await;
    for path in ["/healthz", "/livez/ping", "/readyz", "/version"] {
        assert_eq!(nobody.get(path).await.status, 200, "{path}");
    }
    for path in ["/api", "/api/v1/pods", "/metrics", "/openapi/v3", "/", "/nope", "/apis/apps/v1"] {
        let got = nobody.get(path).await;
        assert_eq!(got.status, 401, "{path}");
        assert_eq!(
            got.json(),
            json!({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401})
        );
    }
    let got = nobody.send("GET", "/healthz", &[("authorization", "Bearer bad")], "").await;
    assert_eq!(got.status, 401);
}

#[tokio::test]
async fn a_certificate_a_token_and_impersonation_say_who_asks() {
    let served = start(Limits::default()).await;
    let mut by_cert = served.client_as(Some(("jane", &["ops"]))).await;
    by_cert.get("/api/v1/pods").await;
    by_cert.send("GET", "/api/v1/pods", &[("impersonate-user", "joe"), ("impersonate-group", "qa")], "").await;
    let mut by_token = served.client_as(None).await;
    by_token.send("GET", "/api/v1/pods", &[("authorization", "Bearer good-robot")], "").await;
    let who: Vec<(String, Vec<String>)> =
        served.backend.seen.lock().unwrap().iter().map(|r| (r.user.name.clone(), r.user.groups.clone())).collect();
    let all = |g: &[&str]| g.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        who,
        [
            ("jane".into(), all(&["ops", "system:authenticated"])),
            ("joe".into(), all(&["qa", "system:authenticated"])),
            ("robot".into(), all(&["system:authenticated"])),
        ]
    );
    let got = by_cert.send("GET", "/metrics", &[("impersonate-user", "nobody")], "").await;
    assert_eq!(
        (got.status, got.json()["message"].as_str().unwrap()),
        (403, "forbidden: User \"nobody\" cannot get path \"/metrics\"")
    );
}

#[tokio::test]
async fn every_answer_carries_an_audit_id_and_forbids_caching() {
    let served = start(Limits::default()).await;
    let mut client = served.client().await;
    let got = client.get("/api/v1/pods").await;
    assert_eq!(got.header("cache-control"), "no-cache, private");
    assert_eq!(got.header("audit-id").len(), 36);
    let got = client.send("GET", "/nope", &[("audit-id", "mine")], "").await;
    assert_eq!(got.header("audit-id"), "mine");
}

#[tokio::test]
async fn a_body_beyond_three_mebibytes_is_refused_whether_it_says_so_or_not() {
    let served = start(Limits::default()).await;
    let mut client = served.client().await;
    let path = "/api/v1/namespaces/gold/configmaps";
    let got = client.send("POST", path, &[], vec![b' '; (3 << 20) + 1]).await;
    assert_eq!((got.status, got.json()["reason"].as_str().unwrap()), (413, "RequestEntityTooLarge"));
    assert_eq!(got.json()["message"], "Request entity too large: limit is 3145728");
    use std::io::Write as _;
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&vec![b' '; 4 << 20]).unwrap();
    let got = client.send("POST", path, &[("content-encoding", "gzip")], gz.finish().unwrap()).await;
    assert_eq!(got.status, 413);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(br#"{"metadata":{"name":"z"}}"#).unwrap();
    let got = client.send("POST", path, &[("content-encoding", "gzip")], gz.finish().unwrap()).await;
    assert_eq!(got.status, 201);
}

#[tokio::test]
async fn more_requests_than_places_are_told_to_come_again() {
    let served = start(Limits { requests: 1, ..Limits::default() }).await;
    let (mut first, mut second) = (served.client().await, served.client().await);
    let waiting = tokio::spawn(async move { first.get("/api/v1/namespaces/gold/configmaps/slow").await });
    loop {
        let got = second.get("/api/v1/namespaces/gold/configmaps").await;
        if got.status == 429 {
            assert_eq!(got.header("retry-after"), "1");
            assert_eq!(got.json()["reason"], "TooManyRequests");
            break;
        }
        tokio::task::yield_now().await;
    }
    served.backend.gate.notify_one();
    assert_eq!(waiting.await.unwrap().status, 404);
    assert_eq!(second.get("/api/v1/namespaces/gold/configmaps").await.status, 200);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_as_unknown() {
    let served = start(Limits { request: Duration::from_millis(20), ..Limits::default() }).await;
    let got = served.client().await.get("/api/v1/namespaces/gold/configmaps/slow").await;
    assert_eq!((got.status, got.json()["reason"].as_str().unwrap(), got.header("retry-after")), (504, "Timeout", ""));
}

#[tokio::test]
async fn a_long_list_is_the_same_list() {
    let served = start(Limits::default()).await;
    let mut client = served.client().await;
    let data = "d".repeat(2000);
    for i in 0..200 {
        assert_eq!(client.create("gold", &format!("c{i:03}"), &data).await.status, 201);
    }
    let got = client.get("/api/v1/namespaces/gold/configmaps").await;
    let list = got.json();
    assert_eq!((list["kind"].as_str().unwrap(), list["items"].as_array().unwrap().len()), ("ConfigMapList", 200));
    assert_eq!(list["items"][7]["metadata"]["name"], "c007");
    assert!(list["items"][7].get("kind").is_none());
    let pretty = client.get("/api/v1/namespaces/gold/configmaps?pretty=true").await;
    assert!(pretty.body.starts_with(b"{\n  \"kind\"") || pretty.body.starts_with(b"{\n  \"apiVersion\""));
    assert_eq!(pretty.json(), list);
}

#[tokio::test]
async fn a_watch_sends_state_then_events_then_its_error_and_ends() {
    let served = start(Limits::default()).await;
    let mut client = served.client().await;
    client.create("gold", "a", "1").await;
    let path = "/api/v1/namespaces/gold/configmaps?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let r = client.open("GET", path, &[], "").await;
    assert_eq!((r.status().as_u16(), r.headers()["content-type"].to_str().unwrap()), (200, "application/json"));
    let mut body = r.into_body();
    let mut text = piece(&mut body).await.unwrap();
    client.create("gold", "b", "2").await;
    served.backend.emit(&Event::Bookmark(base::Revision::from_u64(9).unwrap()));
    served.backend.emit(&Event::Error(Box::new(objects::status::Status::expired("too old resource version: 3 (7)"))));
    while let Some(more) = piece(&mut body).await {
        text.push_str(&more);
    }
    let events: Vec<Tree> = text.lines().map(|l| l.parse().unwrap()).collect();
    let summary: Vec<(&str, &str)> = events
        .iter()
        .map(|e| (e["type"].as_str().unwrap(), e["object"]["metadata"]["name"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(summary, [("ADDED", "a"), ("BOOKMARK", ""), ("ADDED", "b"), ("BOOKMARK", ""), ("ERROR", "")]);
    assert_eq!(
        events[1]["object"],
        json!({"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"1","annotations":{"k8s.io/initial-events-end":"true"}}})
    );
    assert_eq!(events[3]["object"], json!({"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"9"}}));
    assert_eq!((&events[4]["object"]["code"], &events[4]["object"]["reason"]), (&json!(410), &json!("Expired")));
}

#[tokio::test]
async fn a_watch_ends_at_its_time_and_a_refused_one_never_begins() {
    let served = start(Limits::default()).await;
    let mut client = served.client().await;
    let got = client.get("/api/v1/watch/namespaces/gold/configmaps?timeoutSeconds=1").await;
    assert_eq!((got.status, got.body.len()), (200, 0));
    let got = client.get("/api/v1/namespaces/gold/configmaps?watch=1&resourceVersion=1").await;
    assert_eq!((got.status, got.json()["reason"].as_str().unwrap()), (410, "Expired"));
}

#[tokio::test]
async fn a_watch_whose_client_does_not_read_is_ended_and_the_server_keeps_little() {
    let served = start(Limits::default()).await;
    let mut client = served.client().await;
    let mut body = client.open("GET", "/api/v1/namespaces/gold/configmaps?watch=1", &[], "").await.into_body();
    let object = Bytes::from(format!("{{\"kind\":\"ConfigMap\",\"data\":\"{}\"}}", "x".repeat(20_000)));
    // Nobody reads: flow control fills, then the buffer, then the watch is ended.
    let mut sent = 0;
    while served.backend.watchers() > 0 {
        served.backend.emit(&Event::Modified(object.clone()));
        sent += 1;
        assert!(sent < 10_000, "the buffer has no bound");
        tokio::task::yield_now().await;
    }
    // The client, reading again, finds whole events and then the end.
    let mut text = String::new();
    while let Some(more) = piece(&mut body).await {
        text.push_str(&more);
    }
    assert!(text.ends_with("}\n") && text.lines().count() <= sent);
}

#[tokio::test]
async fn metadata_is_sent_alone_to_whoever_asks_for_it() {
    let served = start(Limits::default()).await;
    let mut client = served.client().await;
    client.create("gold", "a", "1").await;
    let accept = [("accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")];
    let mut body = client.open("GET", "/api/v1/namespaces/gold/configmaps?watch=1", &accept, "").await.into_body();
    let event: Tree = piece(&mut body).await.unwrap().parse().unwrap();
    assert_eq!(event["object"]["kind"], "PartialObjectMetadata");
    assert!(event["object"].get("data").is_none() && event["object"]["metadata"]["name"] == "a");
    let got = client.send("GET", "/api/v1/namespaces/gold/configmaps", &accept, "").await;
    assert_eq!(got.status, 406);
}

#[tokio::test]
async fn openapi_is_cached_for_ever_by_its_hash() {
    let served = start(Limits::default()).await;
    let mut client = served.client().await;
    let index = client.get("/openapi/v3").await.json();
    let url = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert_eq!(url, "/openapi/v3/api/v1?hash=ABC");
    let got = client.get(&url).await;
    assert_eq!((got.status, got.header("cache-control"), got.header("etag")), (200, "public, immutable", "\"ABC\""));
    let old = client.get("/openapi/v3/api/v1?hash=OLD").await;
    assert_eq!((old.status, old.header("location")), (301, "/openapi/v3/api/v1?hash=ABC"));
    assert_eq!(client.get("/openapi/v3/nope").await.status, 404);
}

#[tokio::test]
async fn an_order_to_stop_ends_watches_and_lets_requests_finish() {
    let served = start(Limits::default()).await;
    let mut client = served.client().await;
    let mut body = client.open("GET", "/api/v1/namespaces/gold/configmaps?watch=1", &[], "").await.into_body();
    let mut other = served.client().await;
    let working = tokio::spawn(async move { other.get("/api/v1/namespaces/gold/configmaps/slow").await.status });
    while served.backend.waiting.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    served.stop.send(true).unwrap();
    assert_eq!(piece(&mut body).await, None);
    served.backend.gate.notify_one();
    assert_eq!(working.await.unwrap(), 404);
    drop((client, body));
    served.done.await.unwrap();
}

/// A body as typed clients of Go send it.
fn protobuf(tree: &Tree) -> Vec<u8> {
    let schema = objects::schema::builtin();
    let ty = schema.by_kind("", "v1", tree["kind"].as_str().unwrap()).unwrap();
    objects::codec::protobuf::encode(schema, ty, tree).unwrap()
}

fn from_protobuf(bytes: &[u8]) -> (String, Tree) {
    let schema = objects::schema::builtin();
    let e = objects::codec::protobuf::open(bytes).unwrap();
    let ty = schema.by_kind("", "v1", e.kind).unwrap();
    (e.kind.to_owned(), objects::codec::protobuf::decode(schema, ty, e.raw).unwrap().tree)
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

#[tokio::test]
async fn protobuf_goes_both_ways_for_objects_lists_watches_and_refusals() {
    let served = start(Limits::default()).await;
    let mut client = served.client().await;
    let path = "/api/v1/namespaces/gold/configmaps";
    let both = [("content-type", PROTOBUF), ("accept", "application/vnd.kubernetes.protobuf,application/json")];
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "p"}, "data": {"x": "1"}});
    let got = client.send("POST", path, &both, protobuf(&object)).await;
    assert_eq!((got.status, got.header("content-type")), (201, PROTOBUF));
    let (kind, tree) = from_protobuf(&got.body);
    assert_eq!(
        (kind.as_str(), &tree["metadata"]["name"], &tree["data"]),
        ("ConfigMap", &json!("p"), &json!({"x": "1"}))
    );
    let list = from_protobuf(&client.send("GET", path, &both, "").await.body);
    assert_eq!((list.0.as_str(), &list.1["items"][0]["metadata"]["name"]), ("ConfigMapList", &json!("p")));
    let refused = client.send("GET", &format!("{path}/none"), &both, "").await;
    let (kind, status) = from_protobuf(&refused.body);
    assert_eq!((refused.status, kind.as_str(), &status["reason"]), (404, "Status", &json!("NotFound")));
    let r = client
        .open("GET", &format!("{path}?watch=1"), &[("accept", "application/vnd.kubernetes.protobuf;stream=watch")], "")
        .await;
    assert_eq!(r.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    use http_body_util::BodyExt as _;
    let frame = r.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
    let object = client.send("GET", &format!("{path}/p"), &both, "").await.body;
    assert_eq!(frame, objects::codec::protobuf::watch_frame("ADDED", &object));
}

#[tokio::test]
async fn yaml_goes_both_ways_and_unknown_fields_are_noted() {
    let served = start(Limits::default()).await;
    let mut client = served.client().await;
    let path = "/api/v1/namespaces/gold/configmaps";
    let both = [("content-type", "application/yaml"), ("accept", "application/yaml")];
    let got = client
        .send("POST", path, &both, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yam\ndata:\n  x: '1'\ndat: 1\n")
        .await;
    assert_eq!((got.status, got.header("content-type")), (201, "application/yaml"), "{:?}", got.body);
    assert_eq!(got.header("warning"), r#"299 - "unknown field \"dat\"""#);
    let text = String::from_utf8(got.body.to_vec()).unwrap();
    assert!(text.starts_with("apiVersion: v1\ndata:\n  x: \"1\"\nkind: ConfigMap\n"), "{text}");
    let watch = client.send("GET", &format!("{path}?watch=1"), &both, "").await;
    assert_eq!(watch.status, 406);
    let list = client.send("GET", path, &both, "").await;
    assert!(list.body.starts_with(b"apiVersion: v1\nitems:\n- "), "{:?}", list.body);
}

#[tokio::test]
async fn a_table_is_one_for_an_object_a_list_and_every_event_of_a_watch() {
    let served = start(Limits::default()).await;
    let mut client = served.client().await;
    client.create("gold", "a", "1").await;
    client.create("gold", "b", "2").await;
    let kubectl = [(
        "accept",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
    )];
    let path = "/api/v1/namespaces/gold/configmaps";
    let one = client.send("GET", &format!("{path}/a?includeObject=None"), &kubectl, "").await.json();
    let (columns, rows) = (&one["columnDefinitions"], &one["rows"]);
    assert_eq!((&one["kind"], &one["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let names: Vec<&str> = columns.as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Name", "Data", "Age"]);
    assert_eq!((&rows[0]["cells"][0], &rows[0]["cells"][1], &rows[0]["object"]), (&json!("a"), &json!(1), &Tree::Null));
    let list = client.send("GET", path, &kubectl, "").await.json();
    assert_eq!((&list["columnDefinitions"], list["rows"].as_array().unwrap().len()), (columns, 2));
    assert_eq!(list["metadata"], json!({"resourceVersion": "2"}));
    assert_eq!(list["rows"][1]["object"]["kind"], "PartialObjectMetadata");
    let got = client.send("GET", "/api/v1/namespaces/none/configmaps", &kubectl, "").await.json();
    assert_eq!((&got["columnDefinitions"], &got["rows"]), (columns, &json!([])));
    let mut body = client.open("GET", &format!("{path}?watch=1"), &kubectl, "").await.into_body();
    let text = piece(&mut body).await.unwrap();
    let events: Vec<Tree> = text.lines().map(|l| l.parse().unwrap()).collect();
    assert_eq!(
        (&events[0]["object"]["columnDefinitions"], &events[1]["object"]["columnDefinitions"]),
        (columns, &Tree::Null)
    );
    assert_eq!((&events[1]["type"], &events[1]["object"]["rows"][0]["cells"][0]), (&json!("ADDED"), &json!("b")));
    let bad = client.send("GET", &format!("{path}?includeObject=Some"), &kubectl, "").await;
    assert_eq!((bad.status, bad.json()["details"]["kind"].as_str().unwrap()), (422, "TableOptions"));
}
