//! Watching all namespaces at once, as `kubectl get -A --watch` and informers do.

use anyhow::{Context, Result, ensure};
use e2e::{Kubectl, Node, Options, Place, until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

fn node(place: &Place) -> Result<Node> {
    Node::start(place, Options::without_pods(place.join("data")))
}

const LINE: &str = r#"jsonpath={.type} {.object.metadata.namespace}/{.object.metadata.name}{"\n"}"#;

fn make(kubectl: &Kubectl, namespace: &str, name: &str) -> Result<()> {
    kubectl.ok(&["create", "configmap", name, "-n", namespace, "--from-literal=a=b"]).map(drop)
}

/// A raw watch of all configmaps: the events until the server ends it.
fn events(kubectl: &Kubectl, query: &str) -> Result<Vec<Value>> {
    let told = kubectl.ok(&["get", "--raw", &format!("/api/v1/configmaps?watch=1&{query}")])?;
    told.lines().map(|l| serde_json::from_str(l).context("an event is a line of JSON")).collect()
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// A namespace ends: its objects first, then it.
fn end(kubectl: &Kubectl, namespace: &str) -> Result<()> {
    kubectl.ok(&["delete", "namespace", namespace, "--timeout=60s"]).map(drop)
}

/// `TYPE namespace/name` of each event.
fn names(events: &[Value]) -> Vec<String> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let name = |e: &Value| {
        let meta = &e["object"]["metadata"];
        format!("{} {}/{}", text(&e["type"]), text(&meta["namespace"]), text(&meta["name"]))
    };
    events.iter().map(name).collect()
}

#[test]
fn a_watch_over_all_namespaces_sees_those_that_come_and_outlives_those_that_go() -> Result<()> {
    let place = Place::new("all-namespaces")?;
    let node = node(&place)?;
    let kubectl = node.kubectl();
    for namespace in ["red", "blue"] {
        kubectl.ok(&["create", "namespace", namespace])?;
        make(&kubectl, namespace, "first")?;
    }
    let watch = kubectl.watch(&["get", "configmaps", "-A", "--watch", "--output-watch-events", "-o", LINE])?;
    watch.until_line("ADDED blue/first")?;
    watch.until_line("ADDED red/first")?;

    make(&kubectl, "blue", "second")?;
    make(&kubectl, "red", "second")?;
    watch.until_line("ADDED red/second")?;

    kubectl.ok(&["create", "namespace", "green"])?;
    watch.until_line("ADDED green/kube-root-ca.crt")?;
    make(&kubectl, "green", "first")?;
    watch.until_line("ADDED green/first")?;

    end(&kubectl, "blue")?;
    watch.until_line("DELETED blue/second")?;
    kubectl.ok(&["delete", "configmap", "first", "-n", "red"])?;
    watch.until_line("DELETED red/first")?;

    let (lines, complaint) = watch.end()?;
    ensure!(complaint.is_empty(), "{complaint}");
    let once: BTreeSet<&String> = lines.iter().collect();
    ensure!(once.len() == lines.len(), "something was told twice: {lines:?}");
    let at = |line: &str| lines.iter().position(|l| l == line);
    ensure!(at("ADDED blue/second") < at("ADDED red/second"), "told in another order than it happened: {lines:?}");
    Ok(())
}

#[test]
fn an_informer_begins_with_a_state_and_goes_on_from_any_revision_it_has_seen() -> Result<()> {
    let place = Place::new("all-namespaces")?;
    let mut node = node(&place)?;
    let kubectl = node.kubectl();
    let namespaces = ["red", "blue", "green"];
    for namespace in namespaces {
        kubectl.ok(&["create", "namespace", namespace])?;
    }
    make(&kubectl, "red", "early")?;

    // WatchList: the state, its mark, and nothing more.
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=2";
    let began = events(&kubectl, query)?;
    let (mark, state) = began.split_last().context("a watch without an event")?;
    ensure!(mark["type"] == "BOOKMARK", "{mark}");
    ensure!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true", "{mark}");
    let state = names(state);
    for wanted in ["ADDED red/early", "ADDED blue/kube-root-ca.crt", "ADDED default/kube-root-ca.crt"] {
        ensure!(state.iter().any(|n| n == wanted), "{wanted} is not in {state:?}");
    }
    let start = revision(&mark["object"]);

    // What happens in all of them, while somebody writes in each.
    std::thread::scope(|scope| -> Result<()> {
        let kubectl = &kubectl;
        let writers: Vec<_> = namespaces
            .into_iter()
            .map(|namespace| scope.spawn(move || (0..6).try_for_each(|n| make(kubectl, namespace, &format!("m{n}")))))
            .collect();
        writers.into_iter().try_for_each(|w| w.join().unwrap())
    })?;
    let all = events(&kubectl, &format!("resourceVersion={start}&timeoutSeconds=2"))?;
    let mut wanted: Vec<String> = (0..6).flat_map(|n| namespaces.map(|ns| format!("ADDED {ns}/m{n}"))).collect();
    let mut told = names(&all);
    wanted.sort();
    told.sort();
    ensure!(told == wanted, "wanted {wanted:?}, told {told:?}");
    let revisions: Vec<u64> = all.iter().map(|e| revision(&e["object"])).collect();
    ensure!(revisions.is_sorted(), "revisions run back: {revisions:?}");

    // From each of them on: it, and all that follow it.
    for (n, from) in revisions.iter().enumerate().step_by(5) {
        let rest = events(&kubectl, &format!("resourceVersion={from}&timeoutSeconds=1"))?;
        ensure!(names(&rest) == names(&all[n..]), "from {from}: {:?}", names(&rest));
    }
    // A list's revision is as good.
    let listed = revision(&serde_json::from_str(&kubectl.ok(&["get", "--raw", "/api/v1/configmaps"])?)?);
    make(&kubectl, "green", "late")?;
    let late = events(&kubectl, &format!("resourceVersion={listed}&timeoutSeconds=1"))?;
    ensure!(names(&late) == ["ADDED green/late"], "{:?}", names(&late));

    // A selection is one over all namespaces, too.
    let some =
        events(&kubectl, &format!("resourceVersion={start}&fieldSelector=metadata.namespace%3Dblue&timeoutSeconds=1"))?;
    ensure!(some.len() == 6 && names(&some).iter().all(|n| n.starts_with("ADDED blue/")), "{:?}", names(&some));
    // The log knows what happened before a restart, but of a namespace that has ended nobody does.
    node.kill()?;
    node.start_again()?;
    let again = events(&kubectl, &format!("resourceVersion={start}&timeoutSeconds=2"))?;
    ensure!(names(&again)[..all.len()] == names(&all)[..], "{:?}", names(&again));
    end(&kubectl, "green")?;
    let from = format!("/api/v1/configmaps?watch=1&resourceVersion={start}");
    let gone = kubectl.refused(&["get", "--raw", &from], "")?;
    ensure!(gone.contains("a namespace has ended since then"), "{gone}");
    Ok(())
}

#[test]
fn services_of_all_namespaces_share_addresses_and_ports_and_pass_them_on() -> Result<()> {
    let place = Place::new("all-namespaces")?;
    let mut node = node(&place)?;
    let kubectl = node.kubectl();
    for namespace in ["red", "blue"] {
        kubectl.ok(&["create", "namespace", namespace])?;
    }
    let services = r#"jsonpath={range .items[*]}{.spec.clusterIP} {.spec.ports[*].nodePort}{"\n"}{end}"#;
    for namespace in ["red", "blue"] {
        for n in 0..20 {
            let name = format!("s{n}");
            kubectl.ok(&["create", "service", "nodeport", &name, "--tcp=80:80", "-n", namespace])?;
        }
    }
    let all = kubectl.ok(&["get", "services", "-A", "-o", services])?;
    // `kubernetes` has an address and no port.
    let each: Vec<&str> = all.split_whitespace().collect();
    let once: BTreeSet<&str> = each.iter().copied().collect();
    ensure!(each.len() == 81 && once.len() == 81, "something is there twice: {all}");

    let wanted = ["create", "service", "nodeport", "door", "--tcp=80:80", "--node-port=30080", "-n"];
    let of = |namespace: &'static str| [&wanted[..], &[namespace]].concat();
    kubectl.ok(&of("red"))?;
    let refused = kubectl.refused(&of("blue"), "")?;
    ensure!(refused.contains("30080: provided port is already allocated"), "{refused}");

    // What a service had is free for others when it is gone, also when the node was killed meanwhile.
    kubectl.ok(&["delete", "service", "door", "-n", "red"])?;
    let takes = |kubectl: &Kubectl, namespace: &'static str| {
        until("the port is passed on", Duration::from_secs(20), || {
            let made = kubectl.run(&of(namespace))?;
            Ok(made.succeeded().then_some(()))
        })
    };
    takes(&kubectl, "blue")?;
    kubectl.ok(&["delete", "namespace", "blue", "--timeout=60s"])?;
    node.kill()?;
    node.start_again()?;
    takes(&node.kubectl(), "red")
}
