//! Streams on a pod: exec, attach, port-forward and log.

use crate::handle::{Gateway, Head, Place};
use crate::peer::Peer;
use crate::port::{Backend, Connect, Connected, LogOptions, Refusal, Remote};
use crate::resource::{self, Target};
use crate::respond::{self, Body};
use crate::route::Path;
use crate::server::{told, within};
use crate::status;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Frame, Incoming};
use objects::request::{self, Verb};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

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
        Some(name @ ("exec" | "attach")) => Some(Connect::Remote(Remote {
            attach: name == "attach",
            container: text("container"),
            command: head.query.iter().filter(|(k, _)| k == "command").map(|(_, v)| v.clone()).collect(),
            stdin: flag("stdin", false),
            stdout: flag("stdout", name == "attach"),
            stderr: flag("stderr", name == "attach"),
            tty: flag("tty", false),
        })),
        Some("portforward") => {
            let ports = head.query.iter().filter(|(k, _)| k == "ports").flat_map(|(_, v)| v.split(','));
            let ports = ports.map(|p| {
                p.parse().map_err(|_| {
                    status::bad_request(format!("unable to parse {p:?} as a port: must be between 0 and 65535"))
                })
            });
            Some(Connect::PortForward { ports: ports.collect::<Result<_, _>>()? })
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
    if let Connect::Log(_) = ask {
        let opened = within(gateway.limits().request, gateway.backend.connect(request, ask)).await;
        let Connected::Log(log) = opened.ok_or_else(|| status::timeout("the node of the pod did not answer"))?? else {
            return Err(status::internal("the log's stream is no log"));
        };
        peer.patient.store(true, Ordering::Relaxed);
        let mut closed = gateway.closed.clone();
        let closed = Box::pin(async move { told(&mut closed).await });
        let body = LogBody { log, closed, _place: place };
        return Ok(respond::build(200, Some("text/plain"), Body::new(body)));
    }
    drop(http);
    Err(status::bad_request("Upgrade request required"))
}

/// A log's bytes as they come, until it ends or the server stops.
struct LogBody {
    log: mpsc::Receiver<io::Result<Bytes>>,
    closed: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The place among the streams, held as long as the body.
    _place: Place,
}

impl hyper::body::Body for LogBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        self.log.poll_recv(cx).map(|piece| piece.map(|p| p.map(Frame::data)))
    }
}
