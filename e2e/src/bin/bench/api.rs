//! The API, over TLS, as a client with a certificate.

use crate::etcd::Etcd;
use crate::floor::Floor;
use crate::line;
use crate::load::{AsyncOne, Connection, Taken, Target, closed_loop, milliseconds};
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::{Node, Options, Place};
use http::Method;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// What one load lasts.
const TIME: Duration = Duration::from_secs(5);
/// What is in an object besides its names.
const PAYLOAD_BYTES: usize = 1024;
const CONNECTIONS: [usize; 2] = [1, 32];

/// A node that runs, and how its administrator connects.
pub(crate) struct Served {
    pub(crate) node: Node,
    pub(crate) target: Target,
    /// From its start to its first answer.
    ready_after: Duration,
}

impl Served {
    /// One that keeps cells and serves the API without running pods.
    fn start(place: &Place) -> Result<Served> {
        Served::of(Node::prepare(place, Options::without_pods(place.join("data")))?)
    }

    pub(crate) fn of(mut node: Node) -> Result<Served> {
        let ready_after = node.start_again()?;
        let config = node.kubectl().json(&["config", "view", "--raw"])?;
        let data =
            |value: &Value| Ok::<_, anyhow::Error>(STANDARD.decode(value.as_str().context("a strange kubeconfig")?)?);
        let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&data(&cluster["certificate-authority-data"])?) {
            roots.add(root?)?;
        }
        let own: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&data(&user["client-certificate-data"])?).collect();
        let key = PrivateKeyDer::from_pem_slice(&data(&user["client-key-data"])?)?;
        let tls = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(own?, key)?;
        let server = cluster["server"].as_str().and_then(|s| s.strip_prefix("https://")).context("no server")?;
        let target = Target { address: server.parse()?, tls: Arc::new(tls) };
        Ok(Served { node, target, ready_after })
    }

    async fn connections(&self, n: usize) -> Result<Vec<Connection>> {
        connections(&self.target, n).await
    }

    fn namespace(&self, name: &str) -> Result<()> {
        self.node.kubectl().ok(&["create", "namespace", name])?;
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // In order: it has nothing to tell.
        let _ = self.node.stop();
    }
}

async fn connections(target: &Target, n: usize) -> Result<Vec<Connection>> {
    let mut all = Vec::new();
    for _ in 0..n {
        all.push(target.connect().await?);
    }
    Ok(all)
}

fn object(name: &str, number: usize) -> Bytes {
    let filled = format!("{number:0>PAYLOAD_BYTES$}");
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"payload": filled}});
    Bytes::from(object.to_string())
}

/// One kind of request, each to an object of its own.
#[derive(Clone)]
enum Ask {
    Create { prefix: String },
    Get { prefix: String, of: usize },
    Update { prefix: String, of: usize },
}

const ALL: &str = "/api/v1/namespaces/bench/configmaps";

impl AsyncOne<Connection> for Ask {
    async fn call(&self, connection: &mut Connection, number: usize) -> Result<()> {
        match self {
            Ask::Create { prefix } => {
                connection.whole(&Method::POST, ALL, object(&format!("{prefix}-{number}"), number)).await?;
            }
            Ask::Get { prefix, of } => {
                let path = format!("{ALL}/{prefix}-{}", number % of);
                connection.whole(&Method::GET, &path, Bytes::new()).await?;
            }
            Ask::Update { prefix, of } => {
                let name = format!("{prefix}-{}", number % of);
                connection.whole(&Method::PUT, &format!("{ALL}/{name}"), object(&name, number)).await?;
            }
        }
        Ok(())
    }
}

/// Creates, gets and updates, beside etcd's own puts and reads.
pub(crate) fn requests(runtime: &Runtime) -> Result<()> {
    let place = Place::new("bench")?;
    let served = Served::start(&place)?;
    served.namespace("bench")?;
    let etcd = Etcd::start(runtime, &place)?;
    runtime.block_on(async {
        for n in CONNECTIONS {
            let prefix = format!("c{n}");
            let puts = etcd.puts(n, PAYLOAD_BYTES, TIME).await?;
            let reads = etcd.gets(n, PAYLOAD_BYTES, TIME).await?;
            let put = format!("{} put, 1 KiB", etcd.version);
            let created =
                closed_loop(served.connections(n).await?, TIME, Ask::Create { prefix: prefix.clone() }).await?;
            compared("create", n, &created, &put, &puts);
            // The first that were made: fewer than any of the loads makes.
            let of = 100;
            let got = closed_loop(served.connections(n).await?, TIME, Ask::Get { prefix: prefix.clone(), of }).await?;
            compared("get", n, &got, &format!("{} linearizable range, 1 KiB", etcd.version), &reads);
            let updated = closed_loop(served.connections(n).await?, TIME, Ask::Update { prefix, of }).await?;
            compared("update", n, &updated, &put, &puts);
        }
        Ok(())
    })
}

fn compared(what: &str, connections: usize, of: &Taken, beside: &str, peer: &Taken) {
    let mut shown = of.shown();
    shown["of_peer"] = json!(crate::load::rounded(of.per_second() / peer.per_second()));
    line(&format!("{what}, 1 KiB, {connections} connections"), shown, beside, peer.shown());
}

/// How many objects are listed.
const LISTED: usize = 10_000;

#[derive(Clone)]
struct List(&'static str, usize);

impl AsyncOne<Connection> for List {
    async fn call(&self, connection: &mut Connection, _: usize) -> Result<()> {
        let bytes = connection.whole(&Method::GET, self.0, Bytes::new()).await?.len();
        ensure!(bytes.abs_diff(self.1) < 1024, "a list of {bytes} bytes, where {} were listed first", self.1);
        Ok(())
    }
}

/// A list of 10,000, beside the same bytes sent by a server that has them ready.
pub(crate) fn list(runtime: &Runtime) -> Result<()> {
    let place = Place::new("bench")?;
    let served = Served::start(&place)?;
    served.namespace("bench")?;
    runtime.block_on(async {
        let clients = served.connections(32).await?;
        let share = LISTED.div_ceil(clients.len());
        let mut filling = Vec::new();
        for (i, mut client) in clients.into_iter().enumerate() {
            filling.push(tokio::spawn(async move {
                for number in i * share..((i + 1) * share).min(LISTED) {
                    client.whole(&Method::POST, ALL, object(&format!("n{number:05}"), number)).await?;
                }
                anyhow::Ok(())
            }));
        }
        for filled in filling {
            filled.await??;
        }
        let body = served.target.connect().await?.whole(&Method::GET, ALL, Bytes::new()).await?;
        let bytes = body.len();
        let floor = Floor::serve(body)?;
        for n in [1, 4] {
            let floored = closed_loop(connections(&floor.target, n).await?, TIME, List("/", bytes)).await?;
            let listed = closed_loop(served.connections(n).await?, TIME, List(ALL, bytes)).await?;
            let mut shown = listed.shown();
            let ratio = listed.quantile(0.5).as_secs_f64() / floored.quantile(0.5).as_secs_f64();
            shown["of_floor"] = json!(crate::load::rounded(ratio));
            shown["bytes"] = json!(bytes);
            line(&format!("list of {LISTED}, {n} connections"), shown, "the same bytes over TLS", floored.shown());
        }
        Ok(())
    })
}

/// How many watch, and what they see a second and in all.
const WATCHERS: usize = 500;
const EVENTS_PER_SECOND: u32 = 16;
const EVENTS: usize = 160;

/// Each event to 500 watchers, beside the same bytes told to 500 by a server that does nothing else.
pub(crate) fn watch(runtime: &Runtime) -> Result<()> {
    let place = Place::new("bench")?;
    let served = Served::start(&place)?;
    served.namespace("bench")?;
    runtime.block_on(async {
        let path = format!("{ALL}?watch=true&resourceVersion=0");
        let mut writer = served.target.connect().await?;
        // One event as it is told, to know its size.
        let mut first = served.target.connect().await?.begin(&Method::GET, &path, Bytes::new()).await?;
        writer.whole(&Method::POST, ALL, object("sample", 0)).await?;
        let event = next_line_with(&mut first, "sample").await?;
        drop(first);
        let seen = fan_out(&served.target, &path, writer, ALL, |n| object(&name(n), n)).await?;

        let floor = Floor::serve(Bytes::new())?;
        let told = |n| {
            let mut event = event.replace("sample", &name(n)).into_bytes();
            event.push(b'\n');
            Bytes::from(event)
        };
        let writer = floor.target.connect().await?;
        let floored = fan_out(&floor.target, "/watch", writer, "/", told).await?;
        let mut shown = seen.times();
        shown["events_per_second"] = json!(WATCHERS as u64 * u64::from(EVENTS_PER_SECOND));
        let ratio = seen.quantile(0.5).as_secs_f64() / floored.quantile(0.5).as_secs_f64();
        shown["of_floor"] = json!(crate::load::rounded(ratio));
        line(&format!("write to seen by {WATCHERS} watchers"), shown, "the same bytes over TLS", floored.times());
        Ok(())
    })
}

fn name(n: usize) -> String {
    format!("event-{n:05}")
}

/// Reads a watch up to a line with something in it.
pub(crate) async fn next_line_with(answer: &mut http::Response<Incoming>, wanted: &str) -> Result<String> {
    let mut text = String::new();
    loop {
        let frame = answer.body_mut().frame().await.context("the watch ended")??;
        text.push_str(std::str::from_utf8(frame.data_ref().context("no data")?)?);
        if let Some(line) = text.lines().find(|line| line.contains(wanted) && line.ends_with('}')) {
            return Ok(line.to_owned());
        }
    }
}

/// Lets one writer write and 500 watch. Returns how long each event took to each watcher, from when its writing
/// began.
async fn fan_out(
    target: &Target,
    path: &str,
    mut writer: Connection,
    write_to: &str,
    written: impl Fn(usize) -> Bytes,
) -> Result<Taken> {
    let begun: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        let mut connection = target.connect().await?;
        let mut answer = connection.begin(&Method::GET, path, Bytes::new()).await?;
        let begun = begun.clone();
        watchers.push(tokio::spawn(async move {
            let (mut took, mut rest) = (Vec::new(), Vec::new());
            while took.len() < EVENTS {
                let frame = answer.body_mut().frame().await.context("a watch ended")??;
                rest.extend_from_slice(frame.data_ref().context("no data")?);
                while let Some(end) = rest.iter().position(|&b| b == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    let Some(number) = number_in(&line) else { continue };
                    let begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
                    took.push(begun.get(number).context("an event before its time")?.elapsed());
                }
            }
            drop(connection);
            anyhow::Ok(took)
        }));
    }
    let begin = Instant::now();
    for n in 0..EVENTS {
        tokio::time::sleep_until((begin + Duration::from_secs(1) / EVENTS_PER_SECOND * n as u32).into()).await;
        begun.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        writer.whole(&Method::POST, write_to, written(n)).await?;
    }
    let mut all = Vec::new();
    for watcher in watchers {
        all.extend(watcher.await??);
    }
    Ok(Taken::new(all, begin.elapsed()))
}

/// The number in the first name of an event.
fn number_in(line: &[u8]) -> Option<usize> {
    let mark = b"event-";
    let at = line.windows(mark.len()).position(|w| w == mark)? + mark.len();
    std::str::from_utf8(line.get(at..at + 5)?).ok()?.parse().ok()
}

/// Start-up and memory, beside etcd's.
pub(crate) fn idle(runtime: &Runtime) -> Result<()> {
    let place = Place::new("bench")?;
    let etcd = Etcd::start(runtime, &place)?;
    let served = Served::start(&place)?;
    let beside = format!("{} to its first put", etcd.version);
    let shown = |after: Duration| json!({"ms": milliseconds(after)});
    line("start of an empty node to /readyz by kubectl", shown(served.ready_after), &beside, shown(etcd.ready_after));
    // Not a condition that is waited for: a minute of idleness is what is measured.
    std::thread::sleep(Duration::from_secs(60));
    let mib = |bytes: u64| json!({"mib": (bytes as f64 / (1 << 20) as f64 * 10.0).round() / 10.0});
    let (own, peer) = (served.node.resident_bytes()?, e2e::process::resident_bytes(etcd.pid())?);
    line("resident after an idle minute", mib(own), &etcd.version, mib(peer));
    Ok(())
}
