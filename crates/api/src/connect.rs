//! Streams on a pod: exec, attach, port-forward and log.

use crate::authenticate::WEBSOCKET_BEARER;
use crate::handle::{Gateway, Head, Place};
use crate::peer::Peer;
use crate::port::{Backend, Connect, Connected, LogOptions, Refusal, Remote};
use crate::resource::{self, Target};
use crate::respond::{self, Body};
use crate::route::Path;
use crate::server::within;
use crate::status;
use crate::stream::multiplex::Connection;
use crate::stream::spdy::{Bounds, Role};
use crate::stream::tunnel::Tunnel;
use crate::stream::websocket::{self, Protocol};
use crate::stream::{forward, remote};
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use hyper::body::{Frame, Incoming};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use objects::request::{self, Verb};
use objects::status::Reason;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, handshake::derive_accept_key, protocol::WebSocketConfig};

/// Ports one request may forward: over a WebSocket each has two of the channels that a byte numbers, and the
/// last is the one that closes others.
const PORTS_MAX: usize = 127;

/// The stream a request asks for; `None` if it is for no stream.
///
/// # Errors
/// 400 for a parameter that does not read.
pub(crate) fn ask(target: &Target, head: &Head) -> Result<Option<Connect>, Refusal> {
    if target.kind.plural != "pods" || !target.kind.group.is_empty() {
        return Ok(None);
    }
    let text = |key: &str| head.param(key).unwrap_or_default().to_owned();
    let flag = |key: &str, default: bool| head.param(key).map_or(default, |_| head.flag(key));
    Ok(match target.sub.map(|s| s.name) {
        Some(name @ ("exec" | "attach")) => {
            let tty = flag("tty", false);
            let remote = Remote {
                attach: name == "attach",
                container: text("container"),
                command: head.query.iter().filter(|(k, _)| k == "command").map(|(_, v)| v.clone()).collect(),
                stdin: flag("stdin", false),
                // Both commands' options default these to true.
                stdout: flag("stdout", true),
                // A terminal has one output.
                stderr: flag("stderr", true) && !tty,
                tty,
            };
            if !(remote.stdin || remote.stdout || remote.stderr) {
                return Err(status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
            }
            Some(Connect::Remote(remote))
        }
        Some("portforward") => {
            let ports = head.query.iter().filter(|(k, _)| k == "ports").flat_map(|(_, v)| v.split(','));
            let ports = ports.map(|p| {
                p.parse().map_err(|_| {
                    status::bad_request(format!("unable to parse {p:?} as a port: must be between 0 and 65535"))
                })
            });
            let ports: Vec<u16> = ports.collect::<Result<_, _>>()?;
            if ports.len() > PORTS_MAX {
                return Err(status::bad_request(format!(
                    "{} ports are asked for at once, and {PORTS_MAX} is the most",
                    ports.len()
                )));
            }
            Some(Connect::PortForward { ports })
        }
        Some("log") => Some(Connect::Log(log_options(head)?)),
        _ => None,
    })
}

fn log_options(head: &Head) -> Result<LogOptions, Refusal> {
    let text = |key: &str| head.param(key).unwrap_or_default().to_owned();
    let number = |key: &str| match head.param(key) {
        None | Some("") => Ok(None),
        Some(v) => v
            .parse()
            .map(Some)
            .map_err(|_| status::bad_request(format!("strconv.ParseInt: parsing {v:?}: invalid syntax"))),
    };
    Ok(LogOptions {
        container: text("container"),
        follow: head.flag("follow"),
        previous: head.flag("previous"),
        since_seconds: number("sinceSeconds")?,
        since_time: text("sinceTime"),
        timestamps: head.flag("timestamps"),
        tail_lines: number("tailLines")?,
        limit_bytes: number("limitBytes")?,
        stream: text("stream"),
    })
}

/// Opens a stream and hands the connection to it.
pub(crate) async fn answer<B: Backend>(
    gateway: &Gateway<B>,
    head: &Head,
    path: &Path,
    target: &Target,
    ask: Connect,
    http: Request<Incoming>,
    peer: &Arc<Peer>,
) -> Result<Response<Body>, Refusal> {
    let place = gateway.stream_place()?;
    let target = Target { verb: if target.verb == Verb::Get { Verb::Get } else { Verb::Create }, ..*target };
    let request = resource::finish(gateway, head, path, &target, request::Options::default(), request::Body::None);
    let ended = gateway.ended(head, &request);
    if let Connect::Log(_) = ask {
        let opened = within(gateway.limits().request, gateway.backend.connect(request, ask)).await;
        let Connected::Log(log) = opened.ok_or_else(|| status::timeout("the node of the pod did not answer"))?? else {
            return Err(status::internal("the log's stream is no log"));
        };
        peer.patient.store(true, Ordering::Relaxed);
        let body = LogBody { log, ended: Box::pin(ended), _place: place };
        return Ok(respond::build(200, Some("text/plain"), Body::new(body)));
    }
    let upgrade = Upgrade::of(head, &ask)?;
    let opened = within(gateway.limits().request, gateway.backend.connect(request, ask.clone())).await;
    let connected = opened.ok_or_else(|| status::timeout("the node of the pod did not answer"))??;
    peer.patient.store(true, Ordering::Relaxed);
    let response = upgrade.response();
    tokio::spawn(async move {
        let wire = match hyper::upgrade::on(http).await {
            Ok(wire) => TokioIo::new(wire),
            Err(error) => return tracing::debug!(%error, "a client did not go through with its upgrade"),
        };
        let (uncut, cut) = watch::channel(());
        let moved = Arc::new(AtomicU64::new(0));
        let wire = Wire::new(wire, cut, moved.clone());
        tokio::select! {
            () = upgrade.serve(wire, ask, connected) => {}
            // Whoever may not have it any more is cut off, whatever still moves its bytes.
            () = ended => return,
        }
        drop(place);
        // A person may read the last of it page by page; a client that never closes its end is not kept.
        tokio::select! {
            () = uncut.closed() => {}
            () = idle(&moved, GOODBYE_WITHIN) => {}
        }
    });
    Ok(response)
}

/// How long a client that was served may take nothing of what is left, and keep its end open.
const GOODBYE_WITHIN: Duration = Duration::from_secs(300);

/// Resolves when nothing has moved for so long.
async fn idle(moved: &AtomicU64, limit: Duration) {
    loop {
        let before = moved.load(Ordering::Relaxed);
        tokio::time::sleep(limit).await;
        if moved.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

/// A client's connection, which breaks when the sender of `cut` goes.
struct Wire {
    wire: TokioIo<Upgraded>,
    /// Counts writes that went on.
    moved: Arc<AtomicU64>,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_cut: bool,
}

impl Wire {
    fn new(wire: TokioIo<Upgraded>, mut cut: watch::Receiver<()>, moved: Arc<AtomicU64>) -> Wire {
        // Nothing is ever sent: it fails once the sender is gone.
        Wire { wire, moved, cut: Box::pin(async move { while cut.changed().await.is_ok() {} }), is_cut: false }
    }

    fn count<T>(&self, written: Poll<T>) -> Poll<T> {
        if written.is_ready() {
            self.moved.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.is_cut = self.is_cut || self.cut.as_mut().poll(cx).is_ready();
        if self.is_cut { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.wire).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let written = Pin::new(&mut self.wire).poll_write(cx, buf);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let written = Pin::new(&mut self.wire).poll_write_vectored(cx, bufs);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

/// What a client wants its connection to become.
enum Upgrade {
    /// SPDY, for exec and attach of this version or for port-forward, and the protocol's name.
    Spdy { protocol: &'static str, version: u8 },
    /// A WebSocket with channels, and the answer to its key.
    Channels { protocol: Protocol, accept: String },
    /// SPDY for port-forward in a WebSocket.
    Tunnel { accept: String },
}

/// The subprotocol of a tunnel.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Bytes of one WebSocket message from a client.
const MESSAGE_BYTES: usize = 4 << 20;

impl Upgrade {
    /// Chooses a protocol among those offered.
    ///
    /// # Errors
    /// 400 if no upgrade is asked for or its headers are not whole, 403 if no protocol offered is spoken.
    fn of(head: &Head, ask: &Connect) -> Result<Upgrade, Refusal> {
        let has = |name: &str, word: &str| {
            let values = head.headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
            values.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(word))
        };
        let all = |name: &str| -> Vec<&str> {
            let values = head.headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
            values.flat_map(|v| v.split(',')).map(str::trim).filter(|v| !v.is_empty()).collect()
        };
        if !has("connection", "upgrade") {
            return Err(status::bad_request("Upgrade request required"));
        }
        let forward = matches!(ask, Connect::PortForward { .. });
        if has("upgrade", "SPDY/3.1") {
            let offered = all("x-stream-protocol-version");
            let spoken: Vec<(&'static str, u8)> =
                if forward { vec![(forward::PROTOCOL, 1)] } else { remote::SPDY_PROTOCOLS.to_vec() };
            let chosen = offered.iter().find_map(|o| spoken.iter().find(|(name, _)| name == o));
            return match chosen {
                Some((protocol, version)) => Ok(Upgrade::Spdy { protocol, version: *version }),
                // Clients older than the header speak the first protocol.
                None if offered.is_empty() => Ok(Upgrade::Spdy { protocol: "", version: 1 }),
                None => {
                    let names: Vec<&str> = spoken.iter().map(|(name, _)| *name).collect();
                    Err(status::failure(
                        403,
                        Reason::Forbidden,
                        format!(
                            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server supports {names:?}"
                        ),
                    ))
                }
            };
        }
        let key = head.headers.get("sec-websocket-key");
        let (true, Some(key), Some("13")) =
            (has("upgrade", "websocket"), key, head.headers.get("sec-websocket-version").and_then(|v| v.to_str().ok()))
        else {
            return Err(status::bad_request("Upgrade request required"));
        };
        let accept = derive_accept_key(key.as_bytes());
        let offered: Vec<&str> =
            all("sec-websocket-protocol").into_iter().filter(|p| !p.starts_with(WEBSOCKET_BEARER)).collect();
        if forward && offered.contains(&TUNNEL) {
            return Ok(Upgrade::Tunnel { accept });
        }
        let spoken: &[Protocol] = if forward { &websocket::FORWARD } else { &websocket::REMOTE };
        let chosen = if offered.is_empty() {
            spoken.iter().find(|p| p.name.is_empty())
        } else {
            offered.iter().find_map(|o| spoken.iter().find(|p| p.name == *o))
        };
        match chosen {
            Some(protocol) => Ok(Upgrade::Channels { protocol: *protocol, accept }),
            None => {
                let names: Vec<&str> = spoken.iter().map(|p| p.name).filter(|n| !n.is_empty()).collect();
                Err(status::failure(
                    403,
                    Reason::Forbidden,
                    format!(
                        "unable to upgrade: requested protocol(s) are not supported: {offered:?}; supports {names:?}"
                    ),
                ))
            }
        }
    }

    /// 101 with what was chosen.
    fn response(&self) -> Response<Body> {
        let mut r = respond::empty(101);
        let mut put = |name: &'static str, value: &str| {
            if let Ok(v) = HeaderValue::from_str(value)
                && !value.is_empty()
            {
                r.headers_mut().insert(name, v);
            }
        };
        put("connection", "Upgrade");
        match self {
            Upgrade::Spdy { protocol, .. } => {
                put("upgrade", "SPDY/3.1");
                put("x-stream-protocol-version", protocol);
            }
            Upgrade::Channels { protocol, accept } => {
                put("upgrade", "websocket");
                put("sec-websocket-accept", accept);
                put("sec-websocket-protocol", protocol.name);
            }
            Upgrade::Tunnel { accept } => {
                put("upgrade", "websocket");
                put("sec-websocket-accept", accept);
                put("sec-websocket-protocol", TUNNEL);
            }
        }
        r
    }

    /// Serves the stream on the connection it has become.
    async fn serve(self, wire: Wire, ask: Connect, connected: Connected) {
        match (self, ask, connected) {
            (Upgrade::Spdy { version, .. }, Connect::Remote(ask), Connected::Remote(process)) => {
                let connection = Connection::start(wire, Role::Server, Bounds::default());
                match remote::spdy_ends(connection, &ask, version).await {
                    Ok(client) => remote::join(client, process).await,
                    Err(error) => tracing::debug!(%error, "a client did not open its streams"),
                }
            }
            (Upgrade::Channels { protocol, .. }, Connect::Remote(ask), Connected::Remote(process)) => {
                remote::join(websocket::ends(socket(wire).await, &ask, protocol), process).await;
            }
            (Upgrade::Spdy { .. }, _, Connected::PortForward(dial)) => {
                forward::spdy(Connection::start(wire, Role::Server, Bounds::default()), dial).await;
            }
            (Upgrade::Tunnel { .. }, _, Connected::PortForward(dial)) => {
                let tunnel = Tunnel::new(socket(wire).await);
                forward::spdy(Connection::start(tunnel, Role::Server, Bounds::default()), dial).await;
            }
            (Upgrade::Channels { protocol, .. }, Connect::PortForward { ports }, Connected::PortForward(dial)) => {
                forward::channels(websocket::ports(socket(wire).await, &ports, protocol), dial).await;
            }
            _ => tracing::error!("a stream of another sort than was asked for was opened; it is closed"),
        }
    }
}

async fn socket(wire: Wire) -> WebSocketStream<Wire> {
    let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES)).max_frame_size(Some(MESSAGE_BYTES));
    WebSocketStream::from_raw_socket(wire, tungstenite::protocol::Role::Server, Some(config)).await
}

/// A log's bytes as they come, until it ends, the server stops, or its reader may not read it any more.
struct LogBody {
    log: mpsc::Receiver<io::Result<Bytes>>,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The place among the streams, held as long as the body.
    _place: Place,
}

impl hyper::body::Body for LogBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        self.log.poll_recv(cx).map(|piece| piece.map(|p| p.map(Frame::data)))
    }
}
