//! Streams as a client: towards a container runtime's streaming server, which speaks SPDY for all of
//! them (its WebSockets stop at v4, which cannot close standard input).

use super::forward;
use super::multiplex::{Connection, Stream};
use super::remote::SPDY_PROTOCOLS;
use super::spdy::{Bounds, Role};
use crate::port::{BoxFuture, Dial, Duplex, Remote, RemoteEnd, TerminalSize};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use objects::Tree;
use serde_json::json;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf};
use tokio::sync::mpsc;

/// Bytes of an outcome, or of an error in words.
const OUTCOME_BYTES: u64 = 64 << 10;

/// Opens exec or attach: `io` is a connection to the server at `host`, `target` the path and query that
/// the runtime gave for it.
///
/// # Errors
/// The server's own words if it refuses; the process was then not started.
pub async fn remote(io: impl Duplex + 'static, host: &str, target: &str, ask: &Remote) -> io::Result<RemoteEnd> {
    let offered: Vec<&str> = SPDY_PROTOCOLS.iter().map(|(name, _)| *name).collect();
    let (connection, chosen) = upgrade(io, host, target, &offered).await?;
    let version = SPDY_PROTOCOLS.iter().find(|(name, _)| *name == chosen).map_or(1, |(_, v)| *v);
    let open = |ty: &str| connection.open(vec![("streamtype".into(), ty.into())]);
    let error = open("error")?;
    let stdin = if ask.stdin { Some(open("stdin")?) } else { None };
    let stdout = if ask.stdout { Some(open("stdout")?) } else { None };
    let stderr = if ask.stderr && !ask.tty { Some(open("stderr")?) } else { None };
    let resize = if ask.tty && version >= 3 { Some(open("resize")?) } else { None };
    let resize = resize.map(|mut stream| {
        let (tx, mut sizes) = mpsc::channel::<TerminalSize>(4);
        tokio::spawn(async move {
            while let Some(size) = sizes.recv().await {
                let text = serde_json::to_vec(&size).unwrap_or_default();
                if stream.write_all(&text).await.is_err() {
                    return;
                }
            }
        });
        tx
    });
    Ok(RemoteEnd {
        stdin: stdin.map(|s| Box::new(s) as Box<dyn AsyncWrite + Send + Unpin>),
        stdout: stdout.map(|s| Box::new(s) as Box<dyn AsyncRead + Send + Unpin>),
        stderr: stderr.map(|s| Box::new(s) as Box<dyn AsyncRead + Send + Unpin>),
        resize,
        outcome: Box::pin(outcome(error, version, connection)),
    })
}

/// Opens port-forward. Every [`Dial::dial`] is a pair of streams of the one connection.
///
/// # Errors
/// The server's own words if it refuses.
pub async fn port_forward(io: impl Duplex + 'static, host: &str, target: &str) -> io::Result<Arc<dyn Dial>> {
    let (connection, _) = upgrade(io, host, target, &[forward::PROTOCOL]).await?;
    Ok(Arc::new(Forward { connection, requests: AtomicU64::new(0) }))
}

/// What the error stream says in the end.
async fn outcome(error: Stream, version: u8, connection: Connection) -> Tree {
    let mut text = Vec::new();
    let read = error.take(OUTCOME_BYTES).read_to_end(&mut text).await;
    drop(connection);
    let failure = |message: String| json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500});
    let success = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    match read {
        // A server may hang up as soon as it has said how the process ended.
        Err(e) if text.is_empty() => {
            failure(format!("the container runtime went away before the process was over: {e}"))
        }
        // From v4 on success has its words, too.
        Ok(_) if text.is_empty() && version >= 4 => {
            failure("the container runtime did not say how the process ended".to_owned())
        }
        Ok(_) if text.is_empty() => success,
        _ if version >= 4 => {
            serde_json::from_slice(&text).unwrap_or_else(|_| failure(String::from_utf8_lossy(&text).into_owned()))
        }
        _ => failure(String::from_utf8_lossy(&text).into_owned()),
    }
}

/// Upgrades an HTTP connection to SPDY; also the protocol that the server chose.
async fn upgrade(
    io: impl Duplex + 'static,
    host: &str,
    target: &str,
    offered: &[&str],
) -> io::Result<(Connection, String)> {
    let (mut sender, http) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
    tokio::spawn(http.with_upgrades());
    let mut request =
        Request::post(target).header(HOST, host).header(CONNECTION, "Upgrade").header(UPGRADE, "SPDY/3.1");
    for protocol in offered {
        request = request.header("X-Stream-Protocol-Version", *protocol);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let limit = usize::try_from(OUTCOME_BYTES).unwrap_or(usize::MAX);
        let body = Limited::new(response.into_body(), limit).collect().await;
        let words = body.map(|b| b.to_bytes()).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        return Err(io::Error::other(format!("the container runtime refused the stream: {status}: {}", words.trim())));
    }
    let chosen = response
        .headers()
        .get("X-Stream-Protocol-Version")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let upgraded = hyper::upgrade::on(response).await.map_err(io::Error::other)?;
    Ok((Connection::start(TokioIo::new(upgraded), Role::Client, Bounds::default()), chosen))
}

struct Forward {
    connection: Connection,
    requests: AtomicU64,
}

impl Dial for Forward {
    fn dial(&self, port: u16) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
        Box::pin(async move {
            let id = self.requests.fetch_add(1, Ordering::Relaxed).to_string();
            let headers = |ty: &str| {
                vec![
                    ("streamtype".to_owned(), ty.to_owned()),
                    ("port".to_owned(), port.to_string()),
                    ("requestid".to_owned(), id.clone()),
                ]
            };
            let mut error = self.connection.open(headers("error"))?;
            // Nothing is ever said on it from here.
            error.shutdown().await?;
            let data = self.connection.open(headers("data"))?;
            let (error, _) = tokio::io::split(error);
            tokio::spawn(log_error(error, port));
            Ok(Box::new(data) as Box<dyn Duplex>)
        })
    }
}

/// A refusal comes beside the data, which then just ends.
async fn log_error(error: ReadHalf<Stream>, port: u16) {
    let mut text = String::new();
    if error.take(OUTCOME_BYTES).read_to_string(&mut text).await.is_ok() && !text.is_empty() {
        tracing::debug!(port, text, "the container runtime could not forward a connection");
    }
}
