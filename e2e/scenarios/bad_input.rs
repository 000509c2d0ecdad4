//! What clients and disks hand in that is wrong: refused with its reason, and nothing else happens.

use anyhow::{Context, Result, ensure};
use e2e::{Kubectl, Node, Options, Place, Watching};
use serde_json::json;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(30);
const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

fn node(place: &Place) -> Result<Node> {
    let node = Node::start(place, Options::without_pods(place.join("data")))?;
    node.kubectl().until_prints("namespace/default\n", &["get", "namespace", "default", "-o", "name"])?;
    Ok(node)
}

/// A Deployment with lines of one's own in its spec.
fn deployment(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n  selector: {{matchLabels: {{a: b}}}}\n  \
         template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}\n"
    )
}

/// kubectl's own proxy: plain HTTP to the node, with kubectl's certificate.
fn proxy(kubectl: &Kubectl) -> Result<(Watching, SocketAddr)> {
    let proxy = kubectl.watch(&["proxy", "--port=0"])?;
    let line = proxy.until_line_with("Starting to serve on ")?;
    let address = line.rsplit(' ').next().context("no address")?.parse()?;
    Ok((proxy, address))
}

/// A request whose answer has begun: a stream, read no further than that.
fn begun(address: SocketAddr, path: &str) -> Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut stream = BufReader::with_capacity(256, stream);
    let mut status = String::new();
    stream.read_line(&mut status)?;
    ensure!(status.starts_with("HTTP/1.1 200"), "{path}: {status}");
    Ok(stream)
}

#[test]
fn objects_that_are_none_are_refused_by_the_field() -> Result<()> {
    let place = Place::new("bad-input")?;
    let node = node(&place)?;
    let kubectl = node.kubectl();
    let refused = |args: &[&str], input: &str, wanted: &str| -> Result<()> {
        let told = kubectl.refused(args, input)?;
        ensure!(told.contains(wanted), "{args:?}: {wanted:?} is not in {told}");
        Ok(())
    };
    let create = ["create", "-f", "-"];
    refused(&create, &deployment("web", "replica: 3"), r#"unknown field "spec.replica""#)?;
    refused(&create, &deployment("web", "replicas: three"), "spec.replicas of type int32")?;
    refused(&create, &deployment("Web_1", "replicas: 1"), "metadata.name: Invalid value: \"Web_1\"")?;
    refused(&create, &deployment("web", "replicas: -1"), "spec.replicas: Invalid value: -1")?;
    // Asked not to mind, it warns and leaves the field out.
    let warned = kubectl.run_with(&["create", "--validate=warn", "-f", "-"], &deployment("web", "replica: 3"))?;
    ensure!(warned.succeeded() && warned.stderr.contains(r#"unknown field "spec.replica""#), "{}", warned.told());

    let raw = ["create", "--raw", CONFIGMAPS, "-f", "-"];
    let deep = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","data":{}1{}}}"#,
        r#"{"a":"#.repeat(20_000),
        "}".repeat(20_000)
    );
    refused(&raw, &deep, "max depth")?;
    let big = |bytes: usize| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"a": "x".repeat(bytes)}})
            .to_string()
    };
    refused(&raw, &big(2 * 1000 * 1000), "may not be more than 1048576 bytes")?;
    refused(&raw, &big(4 * 1000 * 1000), "limit is 3145728")?;
    refused(&raw, "{\"apiVersion\":", "")?;

    // Nothing of it is there, and the node is as it was.
    ensure!(kubectl.ok(&["get", "configmaps", "-o", "name"])? == "configmap/kube-root-ca.crt\n", "something was kept");
    ensure!(kubectl.ok(&["get", "deployments", "-o", "name"])? == "deployment.apps/web\n", "something was kept");
    let resident = node.resident_bytes()?;
    ensure!(resident < 200 * MIB, "{} MiB resident", resident / MIB);
    Ok(())
}

#[test]
fn a_thousand_idle_watches_are_kept_and_told() -> Result<()> {
    let place = Place::new("bad-input")?;
    let node = node(&place)?;
    let kubectl = node.kubectl();
    let (_proxy, address) = proxy(&kubectl)?;
    let before = node.resident_bytes()?;
    let all = (0..1000).map(|_| begun(address, &format!("{CONFIGMAPS}?watch=1&resourceVersion=0")));
    let mut watches = all.collect::<Result<Vec<_>>>()?;
    let grown = node.resident_bytes()?.saturating_sub(before);
    ensure!(grown < 200 * MIB, "{} MiB for 1,000 watches", grown / MIB);
    kubectl.ok(&["create", "configmap", "news"])?;
    for (n, watch) in watches.iter_mut().enumerate() {
        let mut line = String::new();
        while !line.contains(r#""name":"news""#) {
            line.clear();
            let got = watch.read_line(&mut line).with_context(|| format!("watch {n} was not told"))?;
            ensure!(got > 0, "watch {n} ended");
        }
    }
    Ok(())
}

#[test]
fn clients_that_stop_reading_cost_a_bounded_memory_and_nobody_else_anything() -> Result<()> {
    let place = Place::new("bad-input")?;
    let node = node(&place)?;
    let kubectl = node.kubectl();
    let (_proxy, address) = proxy(&kubectl)?;
    let path = format!("{CONFIGMAPS}?watch=1&resourceVersion=0");
    // Each has one object to read and does not.
    let stopped = (0..20).map(|_| begun(address, &path)).collect::<Result<Vec<_>>>()?;
    kubectl.ok(&["create", "configmap", "busy"])?;
    // 200 x 256 KiB are more than all buffers on the way hold.
    let mut after = String::new();
    for n in 0..200 {
        let patch = json!({"data": {"a": format!("{n}-{}", "x".repeat(256 << 10))}}).to_string();
        let put = [
            "patch",
            "configmap",
            "busy",
            "--type=merge",
            "--patch-file=/dev/stdin",
            "-o",
            "jsonpath={.metadata.resourceVersion}",
        ];
        after = kubectl.ok_with(&put, &patch)?;
    }
    // 20 clients x 50 MiB would be a gigabyte.
    let resident = node.resident_bytes()?;
    ensure!(resident < 600 * MIB, "{} MiB resident", resident / MIB);
    // Who reads is told all the same.
    let mut reader = begun(address, &format!("{CONFIGMAPS}?watch=1&resourceVersion={after}"))?;
    kubectl.ok(&["create", "configmap", "news"])?;
    let mut line = String::new();
    while !line.contains(r#""name":"news""#) {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "the watch ended");
    }
    drop(stopped);
    Ok(())
}

#[test]
fn a_log_with_a_hole_is_not_begun_with_and_a_torn_end_is() -> Result<()> {
    let place = Place::new("bad-input")?;
    let mut node = node(&place)?;
    node.kubectl().ok(&["create", "configmap", "kept"])?;
    node.stop()?;
    let path = node.data().join("log/0000000000000001.log");
    let whole = std::fs::read(&path)?;
    let end = whole.iter().rposition(|b| *b != 0).context("an empty log")?;
    let log = File::options().write(true).open(&path)?;

    // In the middle: what follows shows that a write is missing.
    let middle = end / 2;
    log.write_all_at(&[!whole[middle]], middle as u64)?;
    let (status, told) = node.start_refused()?;
    ensure!(status.code() == Some(4), "{status}: {told}");
    for wanted in ["0000000000000001.log", "Nothing was changed", "start again"] {
        ensure!(told.contains(wanted), "{wanted:?} is not in {told}");
    }
    // Put right, it goes on as if nothing had been.
    log.write_all_at(&whole[middle..=middle], middle as u64)?;
    node.start_again()?;
    node.kubectl().ok(&["get", "configmap", "kept"])?;
    node.kill()?;

    // Bytes behind the last write are one that the power took: nobody was told that it is there.
    let newest = std::fs::read_dir(node.data().join("log"))?.flatten().map(|entry| entry.path());
    let newest = newest.filter(|path| path.extension().is_some_and(|e| e == "log")).max().context("no log")?;
    let end = std::fs::read(&newest)?.iter().rposition(|b| *b != 0).context("an empty log")?;
    // A write may end with zeros of its own.
    File::options().write(true).open(&newest)?.write_all_at(&[0xff; 100], end as u64 + 64)?;
    node.start_again()?;
    node.kubectl().ok(&["get", "configmap", "kept"])?;
    ensure!(node.log_tail().contains("was cut off"), "{}", node.log_tail());
    Ok(())
}
