//! Forwarded ports, over SPDY (a pair of streams a connection) or WebSocket channels (a pair a port).

use super::LAST_WORDS_WITHIN;
use super::multiplex::{Connection, Stream};
use super::websocket::PortEnds;
use crate::port::Dial;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;

/// The one protocol.
pub(crate) const PROTOCOL: &str = "portforward.k8s.io";
/// Pairs of streams of which one has not come yet.
const HALF_OPEN: usize = 256;

/// Serves a SPDY client until it goes: for every pair of an `error` and a `data` stream with the same
/// request id, a connection to the port they name.
pub(crate) async fn spdy(connection: Connection, dial: Arc<dyn Dial>) {
    // Data and error streams by request id, while one waits for the other.
    let mut halves: BTreeMap<String, (Option<Stream>, Option<Stream>)> = BTreeMap::new();
    let mut count = 0u64;
    // They end with this, also where it is cut off.
    let mut forwarded = JoinSet::new();
    while let Some(stream) = connection.accept().await {
        while forwarded.try_join_next().is_some() {}
        // Very old clients send no request id; their pairs come one after another.
        count += 1;
        let is_data = match stream.header("streamtype") {
            Some("data") => true,
            Some("error") => false,
            _ => continue,
        };
        let id = stream.header("requestid").map_or_else(|| format!("pair {}", count.div_ceil(2)), str::to_owned);
        let pair = halves.entry(id.clone()).or_default();
        if is_data {
            pair.0 = Some(stream);
        } else {
            pair.1 = Some(stream);
        }
        if let (Some(_), Some(_)) = pair
            && let Some((Some(data), Some(error))) = halves.remove(&id)
        {
            forwarded.spawn(one(data, error, dial.clone()));
        } else if halves.len() > HALF_OPEN {
            // Those that are whole go on.
            tracing::debug!("a port-forward client opens streams without their other halves: one is let go");
            halves.remove(&id);
        }
    }
    // What the client sent before it left goes to the pod, if that takes it.
    let all = async { while forwarded.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_WORDS_WITHIN, all).await;
}

async fn one(data: Stream, mut error: Stream, dial: Arc<dyn Dial>) {
    let named = data.header("port").unwrap_or_default().to_owned();
    let Ok(port) = named.parse::<u16>() else {
        return say(&mut error, &format!("unable to parse {named:?} as a port")).await;
    };
    match dial.dial(port).await {
        Ok(mut there) => {
            let mut data = data;
            // A connection that breaks is an end like another; its client sees it end.
            let _ = tokio::io::copy_bidirectional(&mut data, &mut there).await;
            let _ = error.shutdown().await;
        }
        Err(e) => say(&mut error, &format!("error forwarding port {port}: {e}")).await,
    }
}

/// Serves a WebSocket client's ports, each until one side ends.
pub(crate) async fn channels(ports: Vec<PortEnds>, dial: Arc<dyn Dial>) {
    let mut all = JoinSet::new();
    for PortEnds { port, mut from_client, mut to_client, mut errors } in ports {
        let dial = dial.clone();
        all.spawn(async move {
            match dial.dial(port).await {
                Ok(there) => {
                    let (mut r, mut w) = tokio::io::split(there);
                    let up = async {
                        let _ = tokio::io::copy(&mut from_client, &mut w).await;
                        let _ = w.shutdown().await;
                    };
                    let down = async {
                        let _ = tokio::io::copy(&mut r, &mut to_client).await;
                        let _ = to_client.shutdown().await;
                    };
                    // The other side's end is the end: a WebSocket channel cannot be half closed.
                    tokio::select! { () = up => {}, () = down => {} }
                }
                Err(e) => say(&mut errors, &format!("error forwarding port {port}: {e}")).await,
            }
        });
    }
    while all.join_next().await.is_some() {}
}

async fn say(to: &mut (impl AsyncWrite + Unpin), text: &str) {
    // Whoever is gone needs no explanation.
    let _ = to.write_all(text.as_bytes()).await;
    let _ = to.shutdown().await;
}
