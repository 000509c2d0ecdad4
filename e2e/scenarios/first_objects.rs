//! A mesh of one, as its first user meets it: namespaces and configmaps by kubectl, then `kill -9`.

use anyhow::{Result, ensure};
use e2e::{Node, Options, Place};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn node(place: &Place) -> Result<Node> {
    Node::start(place, Options::without_pods(place.join("data")))
}

#[test]
fn configmaps_are_made_changed_watched_and_deleted() -> Result<()> {
    let place = Place::new("first-objects")?;
    let mut node = node(&place)?;
    let kubectl = node.kubectl();

    assert_eq!(kubectl.ok(&["create", "namespace", "shop"])?, "namespace/shop created\n");
    let line = r#"jsonpath={.type} {.object.metadata.name}{"\n"}"#;
    let watch = kubectl.watch(&["get", "configmaps", "-n", "shop", "--watch", "--output-watch-events", "-o", line])?;
    watch.until_line("ADDED kube-root-ca.crt")?;

    kubectl.ok(&["create", "configmap", "prices", "-n", "shop", "--from-literal=apple=1"])?;
    watch.until_line("ADDED prices")?;
    let made = kubectl.json(&["get", "configmap", "prices", "-n", "shop"])?;
    assert_eq!(made["data"], json!({"apple": "1"}));
    ensure!(made["metadata"]["uid"].as_str().is_some_and(|uid| uid.len() == 36), "{made}");

    let applied = "{apiVersion: v1, kind: ConfigMap, metadata: {name: stock, namespace: shop}, data: {apple: '5'}}";
    assert_eq!(kubectl.ok_with(&["apply", "-f", "-"], applied)?, "configmap/stock created\n");
    assert_eq!(kubectl.ok_with(&["apply", "-f", "-"], applied)?, "configmap/stock unchanged\n");
    let changed = applied.replace("'5'", "'4'");
    assert_eq!(kubectl.ok_with(&["apply", "-f", "-"], &changed)?, "configmap/stock configured\n");
    watch.until_line("MODIFIED stock")?;

    kubectl.ok(&["patch", "configmap", "prices", "-n", "shop", "--type=merge", "-p", r#"{"data":{"pear":"2"}}"#])?;
    let patched = kubectl.json(&["get", "configmap", "prices", "-n", "shop"])?;
    assert_eq!(patched["data"], json!({"apple": "1", "pear": "2"}));
    ensure!(patched["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"], "a write has a revision");

    kubectl.ok(&["delete", "configmap", "prices", "-n", "shop"])?;
    watch.until_line("DELETED prices")?;
    let missing = kubectl.refused(&["get", "configmap", "prices", "-n", "shop"], "")?;
    assert_eq!(missing, "Error from server (NotFound): configmaps \"prices\" not found\n");

    let (lines, _) = watch.end()?;
    let prices: Vec<&String> = lines.iter().filter(|l| l.ends_with(" prices")).collect();
    assert_eq!(prices, ["ADDED prices", "MODIFIED prices", "DELETED prices"]);
    ensure!(node.stop()?.success(), "SIGTERM is orderly");
    Ok(())
}

#[test]
fn a_second_process_on_the_same_data_is_refused() -> Result<()> {
    let place = Place::new("first-objects")?;
    let first = node(&place)?;
    let mut second = Node::prepare(&place, Options::without_pods(first.data().to_owned()))?;
    let (status, told) = second.start_refused()?;
    assert_eq!(status.code(), Some(3), "{told}");
    first.kubectl().ok(&["get", "namespaces"])?;
    Ok(())
}

#[test]
fn what_was_acknowledged_survives_kill_9() -> Result<()> {
    let place = Place::new("kill-9")?;
    let mut node = node(&place)?;
    node.kubectl().ok(&["create", "namespace", "shop"])?;
    let acknowledged = Mutex::new(BTreeSet::new());
    for round in 0..3 {
        write_until_killed(&mut node, round, &acknowledged)?;
        node.start_again()?;
        all_are_there(&node, &acknowledged)?;
    }
    Ok(())
}

/// Writers create configmaps until the node is killed under them; what kubectl called created is noted.
pub(crate) fn write_until_killed(node: &mut Node, round: u32, acknowledged: &Mutex<BTreeSet<String>>) -> Result<()> {
    write_until(node, round, acknowledged, Node::kill)
}

/// The same until the node's end of any kind.
pub(crate) fn write_until(
    node: &mut Node,
    round: u32,
    acknowledged: &Mutex<BTreeSet<String>>,
    end: impl FnOnce(&mut Node) -> Result<()>,
) -> Result<()> {
    let stop = AtomicBool::new(false);
    let kubectl = node.kubectl();
    let before = count(acknowledged);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (kubectl, stop) = (&kubectl, &stop);
            scope.spawn(move || {
                for n in 0.. {
                    let name = format!("r{round}-w{writer}-{n}");
                    let args = ["create", "configmap", &name, "-n", "shop", "--from-literal=a=b"];
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    if kubectl.run(&args).is_ok_and(|a| a.succeeded()) {
                        acknowledged.lock().unwrap().insert(name);
                    }
                }
            });
        }
        let enough = e2e::until("ten acknowledged writes", Duration::from_secs(60), || {
            Ok((count(acknowledged) >= before + 10).then_some(()))
        });
        let ended = end(node);
        stop.store(true, Ordering::Relaxed);
        enough.and(ended)
    })
}

/// Everything noted is still there.
pub(crate) fn all_are_there(node: &Node, acknowledged: &Mutex<BTreeSet<String>>) -> Result<()> {
    let listed = node.kubectl().ok(&["get", "configmaps", "-n", "shop", "-o", "name"])?;
    let listed: BTreeSet<String> = listed.lines().map(|l| l.trim_start_matches("configmap/").to_owned()).collect();
    let noted = acknowledged.lock().unwrap();
    let lost: Vec<_> = noted.difference(&listed).collect();
    ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}\n{}", node.log_tail());
    Ok(())
}

/// How many are noted.
pub(crate) fn count(acknowledged: &Mutex<BTreeSet<String>>) -> usize {
    acknowledged.lock().unwrap().len()
}
