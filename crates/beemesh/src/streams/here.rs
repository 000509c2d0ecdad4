//! Exec, attach, port-forward and logs of the pods that run here: joins the client's end with the
//! runtime's.

use crate::driver::clock;
use api::port::{Connect, Connected, Duplex, LogOptions, Refusal, Remote};
use api::stream::client;
use base::Wall;
use base::runtime::{Failure, Why};
use host::logs;
use host::runtime::{Runtime, Streams};
use objects::status::Status;
use objects::{Tree, pod_stream};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Opens a stream of a pod that is bound to this node.
pub(crate) async fn connect(runtime: &Arc<Runtime>, pod: &Tree, ask: Connect) -> Result<Connected, Refusal> {
    match ask {
        Connect::Remote(ask) => remote(runtime, pod, ask).await,
        Connect::PortForward { ports } => {
            pod_stream::on_a_node(pod)?;
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
            let sandbox = sandbox_of(runtime, uid).ok_or_else(|| {
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                Box::new(Status::bad_request(format!("pod {name} is not running: it has no network to forward to")))
            })?;
            let url = runtime.port_forward_url(&sandbox, &ports).await.map_err(refused)?;
            let (io, host, target) = dial(&url).await?;
            let dial = client::port_forward(io, &host, &target).await.map_err(broken)?;
            Ok(Connected::PortForward(dial))
        }
        Connect::Log(options) => log(runtime, pod, options),
    }
}

async fn remote(runtime: &Runtime, pod: &Tree, mut ask: Remote) -> Result<Connected, Refusal> {
    let name = pod_stream::container(pod, &ask.container)?;
    let seen = runtime.seen().borrow().clone();
    let id = pod_stream::running(pod, &name, &seen)?;
    if ask.tty {
        // A terminal has one output.
        ask.stderr = false;
    }
    let streams = Streams { stdin: ask.stdin, stdout: ask.stdout, stderr: ask.stderr, tty: ask.tty };
    let url = if ask.attach {
        runtime.attach_url(&id, streams).await
    } else {
        runtime.exec_url(&id, ask.command.clone(), streams).await
    };
    let (io, host, target) = dial(&url.map_err(refused)?).await?;
    Ok(Connected::Remote(client::remote(io, &host, &target, &ask).await.map_err(broken)?))
}

/// The runtime's streaming server listens on this machine only.
async fn dial(url: &str) -> Result<(impl Duplex + 'static, String, String), Refusal> {
    let parts = url.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
    let Some((host, path)) = parts else {
        return Err(Box::new(Status::internal(&format!(
            "the runtime gave the address {url}, which is not understood"
        ))));
    };
    let io = TcpStream::connect(host).await.map_err(broken)?;
    // A terminal's keystrokes are small and each of them counts.
    io.set_nodelay(true).map_err(broken)?;
    Ok((io, host.to_owned(), format!("/{path}")))
}

fn log(runtime: &Runtime, pod: &Tree, options: LogOptions) -> Result<Connected, Refusal> {
    let name = pod_stream::container(pod, &options.container)?;
    if pod_stream::on_a_node(pod).is_err() {
        // Nothing was written yet, and nobody is to be asked.
        return Ok(Connected::Log(mpsc::channel(1).1));
    }
    let seen = runtime.seen().borrow().clone();
    let id = pod_stream::log_of(pod, &name, options.previous, &seen)?;
    let count = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok());
    let since = match (count(options.since_seconds), Wall::parse_rfc3339(&options.since_time)) {
        (Some(seconds), _) => Some(Wall(clock::wall().0.saturating_sub(seconds.saturating_mul(1000)))),
        (None, time) => time,
    };
    let asked = logs::Options {
        follow: options.follow,
        since,
        timestamps: options.timestamps,
        tail_lines: count(options.tail_lines),
        limit_bytes: count(options.limit_bytes),
        stream: match options.stream.as_str() {
            "Stdout" => Some(logs::Stream::Stdout),
            "Stderr" => Some(logs::Stream::Stderr),
            _ => None,
        },
    };
    Ok(Connected::Log(runtime.logs(&id, asked).map_err(refused)?))
}

fn sandbox_of(runtime: &Runtime, uid: &str) -> Option<String> {
    let seen = runtime.seen().borrow().clone();
    let ready = seen.sandboxes.iter().filter(|s| s.pod.uid == uid && s.ready);
    ready.max_by_key(|s| s.attempt).map(|s| s.id.clone())
}

fn refused(failure: Failure) -> Refusal {
    Box::new(match failure.why {
        Why::NotFound | Why::Invalid => Status::bad_request(failure.message),
        Why::NoRuntime => Status::unavailable(&failure.message),
        _ => Status::internal(&failure.message),
    })
}

fn broken(error: io::Error) -> Refusal {
    Box::new(Status::internal(&format!("the container runtime's stream: {error}")))
}
