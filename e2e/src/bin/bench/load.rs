//! Closed-loop load: so many connections, each with one request under way.

use anyhow::{Context, Result, bail};
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where to connect, and as whom.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
}

/// One connection, kept alive.
pub(crate) struct Connection(SendRequest<Full<Bytes>>);

impl Target {
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let tls = TlsConnector::from(self.tls.clone()).connect(name, tcp).await?;
        let (sender, connection) = handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(Connection(sender))
    }
}

impl Connection {
    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn begin(&mut self, method: &Method, path: &str, body: Bytes) -> Result<Response<Incoming>> {
        let request = Request::builder().method(method).uri(path).header(HOST, "bench");
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(body))?;
        self.0.ready().await?;
        Ok(self.0.send_request(request).await?)
    }

    /// Sends a request and reads the whole answer, which must be a success.
    pub(crate) async fn whole(&mut self, method: &Method, path: &str, body: Bytes) -> Result<Bytes> {
        let answer = self.begin(method, path, body).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if !(status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS) {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }
}

/// How long each of many things took.
pub(crate) struct Taken {
    sorted: Vec<Duration>,
    over: Duration,
}

impl Taken {
    pub(crate) fn new(mut each: Vec<Duration>, over: Duration) -> Taken {
        each.sort_unstable();
        Taken { sorted: each, over }
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.sorted.len() as f64 / self.over.as_secs_f64()
    }

    pub(crate) fn quantile(&self, q: f64) -> Duration {
        let last = self.sorted.len().saturating_sub(1);
        self.sorted.get((last as f64 * q).round() as usize).copied().unwrap_or_default()
    }

    pub(crate) fn shown(&self) -> Value {
        json!({
            "count": self.sorted.len(),
            "per_second": rounded(self.per_second()),
            "p50_ms": milliseconds(self.quantile(0.5)),
            "p99_ms": milliseconds(self.quantile(0.99)),
        })
    }

    /// Only how long, for things not done one after the other.
    pub(crate) fn times(&self) -> Value {
        json!({"count": self.sorted.len(), "p50_ms": milliseconds(self.quantile(0.5)), "p99_ms": milliseconds(self.quantile(0.99))})
    }
}

/// To three significant places or so: what a bench can know.
pub(crate) fn rounded(x: f64) -> f64 {
    let scale = if x >= 100.0 { 1.0 } else { 100.0 };
    (x * scale).round() / scale
}

pub(crate) fn milliseconds(d: Duration) -> f64 {
    (d.as_secs_f64() * 100_000.0).round() / 100.0
}

/// Lets `clients` do `one` thing after the other, numbered over all of them, until `for_at_least` has passed.
/// The first tenth of the time is not counted.
pub(crate) async fn closed_loop<C, F>(clients: Vec<C>, for_at_least: Duration, one: F) -> Result<Taken>
where
    C: Send + 'static,
    F: AsyncOne<C>,
{
    let number = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let counted_from = begin + for_at_least / 10;
    let mut tasks = Vec::new();
    for mut client in clients {
        let (number, one) = (number.clone(), one.clone());
        tasks.push(tokio::spawn(async move {
            let mut took = Vec::new();
            while begin.elapsed() < for_at_least {
                let start = Instant::now();
                one.call(&mut client, number.fetch_add(1, Ordering::Relaxed)).await?;
                if start >= counted_from {
                    took.push(start.elapsed());
                }
            }
            anyhow::Ok(took)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.context("a client panicked")??);
    }
    Ok(Taken::new(all, counted_from.elapsed()))
}

/// One thing a client does.
pub(crate) trait AsyncOne<C>: Clone + Send + 'static {
    fn call(&self, client: &mut C, number: usize) -> impl Future<Output = Result<()>> + Send;
}
