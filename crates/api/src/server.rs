//! Connections: a listener handed in, TLS, and bounds on everything a client can take.

use crate::grant;
use crate::handle::Gateway;
use crate::peer::Peer;
use crate::port::Backend;
use crate::respond::WRITTEN_BYTES;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{SockRef, TcpKeepalive};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

/// What one gateway grants its clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections open at once. What comes beyond waits in the listener's queue.
    pub connections: usize,
    /// Requests at work at once, watches and streams aside; beyond it the answer is 429.
    pub requests: usize,
    /// Watches and streams open at once; beyond it the answer is 429.
    pub streams: usize,
    /// Bytes of a request's body, after decompression; beyond it the answer is 413.
    pub body_bytes: usize,
    /// From the connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the connection to its first request, from the first byte of a request to the last of its headers
    /// (HTTP/1), and between two of its body's pieces; its body as a whole has `request`.
    pub read: Duration,
    /// How long a request that is no watch or stream may take.
    pub request: Duration,
    /// How long a client may leave an answer unread before its connection is cut.
    pub write: Duration,
    /// How often the user of an open watch or stream is asked for proof and rights again; up to twice this,
    /// so that not all ask at once.
    pub renew: Duration,
    /// After the order to stop, or the end of a client's certificate: how long requests at work may go on.
    pub drain: Duration,
}

impl Default for Limits {
    /// kube-apiserver's: 400 + 200 requests at once, 3 MiB of body, 60 s a request. Rights that were taken away
    /// end a stream within 20 s.
    fn default() -> Limits {
        Limits {
            connections: 8192,
            requests: 600,
            streams: 16384,
            body_bytes: 3 << 20,
            handshake: Duration::from_secs(10),
            read: Duration::from_secs(32),
            request: Duration::from_secs(60),
            write: Duration::from_secs(60),
            renew: Duration::from_secs(10),
            drain: Duration::from_secs(10),
        }
    }
}

/// What `tls` must offer by ALPN, best first. HTTP/1.1 is what upgrades (exec, port-forward) need.
pub const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Serves `listener` until `stop` says true, or its sender is gone.
///
/// `tls` holds the server's certificate and verifies a client's if it sends one; its ALPN should be
/// [`ALPN`]. On the order to stop, no connection is accepted any more, watches end, and requests at work
/// have [`Limits::drain`] to finish; then what is left is cut.
pub async fn serve<B: Backend>(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    backend: Arc<B>,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(limits.connections));
    let (closing, closed) = watch::channel(false);
    let gateway = Arc::new(Gateway::new(backend, limits, closed.clone()));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            a = listener.accept() => a,
            () = told(&mut stop) => break,
        };
        let (tcp, remote) = match accepted {
            Ok(c) => c,
            Err(error) => {
                // Out of descriptors, or the client is already gone: a pause keeps the first from
                // becoming a busy loop.
                tracing::warn!(%error, "a connection could not be accepted; trying again");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, gateway, closed) = (acceptor.clone(), gateway.clone(), closed.clone());
        tokio::spawn(async move {
            connection(tcp, remote, acceptor, gateway, closed).await;
            drop(place);
        });
    }
    drop(listener);
    // Receivers see it even if none has looked yet.
    let _ = closing.send(true);
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    if tokio::time::timeout(limits.drain, places.acquire_many(all)).await.is_err() {
        tracing::info!("some connections did not end in time and are cut");
    }
}

/// Resolves when `stop` says true or its sender is gone.
pub(crate) async fn told(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is an order to stop as well.
    let _ = stop.wait_for(|s| *s).await;
}

async fn connection<B: Backend>(
    tcp: TcpStream,
    remote: SocketAddr,
    acceptor: TlsAcceptor,
    gateway: Arc<Gateway<B>>,
    mut closed: watch::Receiver<bool>,
) {
    let limits = gateway.limits();
    // Answers are written whole; waiting for more to send only adds delay.
    let _ = tcp.set_nodelay(true);
    // A client that vanished behind a silent exec or watch is noticed within two minutes.
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    let _ = SockRef::from(&tcp).set_tcp_keepalive(&keepalive.with_retries(4));
    let local = tcp.local_addr().ok();
    let start = Instant::now();
    let mut stream = match tokio::time::timeout(limits.handshake, acceptor.accept(tcp)).await {
        Ok(Ok(s)) => s,
        Ok(Err(error)) => {
            tracing::debug!(%remote, %error, "TLS handshake failed");
            return;
        }
        Err(_) => {
            tracing::debug!(%remote, "TLS handshake took too long");
            return;
        }
    };
    let handshake = start.elapsed();
    stream.get_mut().1.set_buffer_limit(Some(WRITTEN_BYTES));
    let peer = Arc::new(Peer::new(remote, local, stream.get_ref().1, handshake));
    let until = peer.until;
    let slow = crate::peer::WriteDeadline::new(stream, limits.write, peer.patient.clone());
    let asked = Arc::new(AtomicBool::new(false));
    let silent = silent(asked.clone(), limits.read);
    let service = service_fn(move |request| {
        asked.store(true, Ordering::Relaxed);
        let (gateway, peer) = (gateway.clone(), peer.clone());
        async move { Ok::<_, Infallible>(gateway.answer(request, peer).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.read)
        .max_buf_size(64 << 10)
        .http2()
        .timer(TokioTimer::new())
        // kube-apiserver's: Go's server grants 250 streams a connection by default, it lowers this to 100.
        .max_concurrent_streams(250)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15))
        .max_header_list_size(1 << 20)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(slow), service);
    let mut serving = std::pin::pin!(serving);
    let over = tokio::select! {
        ended = serving.as_mut() => Some(ended),
        () = told(&mut closed) => None,
        () = silent => {
            tracing::debug!(%remote, "a client asked nothing: its connection is closed");
            None
        }
        () = grant::ended(until) => {
            tracing::debug!(%remote, "the client's certificate has expired: its connection is closed");
            None
        }
    };
    let ended = match over {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            match tokio::time::timeout(limits.drain, serving).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%remote, %error, "connection ended");
    }
}

/// Resolves if nothing is asked within the limit: places are few, and anybody can connect.
async fn silent(asked: Arc<AtomicBool>, limit: Duration) {
    tokio::time::sleep(limit).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// Waits for `work`, but not longer than `limit`.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, work).await.ok()
}
