//! A process's channels between a client and whoever runs it: exec and attach, protocols v1 to v5.
//!
//! The protocols differ in what ends a session: from v4 on the error channel carries a Status; before, it
//! carries words, and nothing means success. v3 has the terminal's size, v5 can close standard input over
//! a WebSocket.

use super::LAST_WORDS_WITHIN;
use super::multiplex::{Connection, Stream};
use crate::port::{BoxFuture, Remote, RemoteEnd, TerminalSize};
use objects::Tree;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long a client may take to open the streams it said it would.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// A size is a line of some thirty bytes; what is longer than this is none.
const SIZE_BYTES: usize = 4096;
/// Bytes of output handed on at a time.
const COPIED_BYTES: usize = 16 << 10;

/// The protocols spoken over SPDY, best first, and their numbers.
pub(crate) const SPDY_PROTOCOLS: [(&str, u8); 4] =
    [("v4.channel.k8s.io", 4), ("v3.channel.k8s.io", 3), ("v2.channel.k8s.io", 2), ("channel.k8s.io", 1)];

/// The client's ends of a process's channels.
pub(crate) struct ClientEnds {
    pub(crate) stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub(crate) stdout: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    pub(crate) stderr: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    pub(crate) error: Box<dyn AsyncWrite + Send + Unpin>,
    pub(crate) resize: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// From v4 on the outcome is a Status.
    pub(crate) version: u8,
    /// Comes to its end once the client is gone.
    pub(crate) gone: BoxFuture<'static, ()>,
}

/// Waits for the streams that a SPDY client opens for what it asked.
///
/// # Errors
/// `TimedOut` if they do not all come, `InvalidData` for one that nobody asked for.
pub(crate) async fn spdy_ends(connection: Connection, ask: &Remote, version: u8) -> io::Result<ClientEnds> {
    let mut ends: [Option<Stream>; 5] = [None, None, None, None, None];
    let resize = ask.tty && version >= 3;
    let wanted = [ask.stdin, ask.stdout, ask.stderr && !ask.tty, true, resize];
    let all = async {
        while wanted.iter().zip(&ends).any(|(w, e)| *w && e.is_none()) {
            let stream = connection.accept().await.ok_or(io::ErrorKind::UnexpectedEof)?;
            let slot = match stream.header("streamtype") {
                Some("stdin") => 0,
                Some("stdout") => 1,
                Some("stderr") => 2,
                Some("error") => 3,
                Some("resize") => 4,
                other => {
                    let message = format!("a client opened a stream of type {other:?}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
            };
            if let Some(end) = ends.get_mut(slot) {
                *end = Some(stream);
            }
        }
        Ok(())
    };
    tokio::time::timeout(OPEN_WITHIN, all).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let [stdin, stdout, stderr, error, resize] = ends;
    let Some(error) = error else { return Err(io::ErrorKind::InvalidData.into()) };
    Ok(ClientEnds {
        stdin: stdin.map(|s| Box::new(s) as _),
        stdout: stdout.map(|s| Box::new(s) as _),
        stderr: stderr.map(|s| Box::new(s) as _),
        error: Box::new(error),
        resize: resize.map(|s| Box::new(s) as _),
        version,
        // One stream more than was asked for is let go of at once.
        gone: Box::pin(async move { while connection.accept().await.is_some() {} }),
    })
}

/// Joins a client's channels to a process's, until the process is over and all it wrote is with the
/// client, or the client is gone.
pub(crate) async fn join(client: ClientEnds, process: RemoteEnd) {
    let ClientEnds { stdin, stdout, stderr, mut error, resize, version, gone } = client;
    let RemoteEnd { stdin: process_stdin, stdout: process_stdout, stderr: process_stderr, resize: sizes, outcome } =
        process;
    let mut input = Task(tokio::spawn(async move {
        if let (Some(mut from), Some(mut to)) = (stdin, process_stdin) {
            // A process that has closed its input, or a client that is gone, ends only this direction.
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        }
    }));
    let _resizing = Task(tokio::spawn(async move {
        if let (Some(from), Some(to)) = (resize, sizes) {
            resize_events(from, to).await;
        }
    }));
    let output = async {
        let (out, err) = tokio::join!(copy(process_stdout, stdout), copy(process_stderr, stderr));
        out.and(err)
    };
    // The outcome alone ends nothing: what was written before it must arrive first.
    let over = async {
        let outcome = async { Ok(outcome.await) };
        tokio::try_join!(outcome, output).map(|(outcome, ()): (Tree, ())| outcome)
    };
    // A client that is gone ends everything, for its process would wait for a reader for ever, and whoever
    // attached to a silent one would hold a connection to the runtime as long as that runs.
    let left = async {
        gone.await;
        // What it said before goes to the process, if that takes it.
        let _ = tokio::time::timeout(LAST_WORDS_WITHIN, &mut input.0).await;
    };
    let outcome: io::Result<Tree> = tokio::select! {
        biased;
        outcome = over => outcome,
        () = left => Err(io::ErrorKind::ConnectionAborted.into()),
    };
    if let Ok(status) = outcome {
        let text = outcome_text(&status, version);
        // The client may have left without waiting for it.
        let _ = error.write_all(text.as_bytes()).await;
    }
    let _ = error.shutdown().await;
}

/// Ends with whoever began it, also where that is cut off: who may not be heard any more is not.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the error channel carries at the end.
fn outcome_text(status: &Tree, version: u8) -> String {
    if version >= 4 {
        return status.to_string();
    }
    if status.get("status").and_then(Tree::as_str) == Some("Success") {
        return String::new();
    }
    status.get("message").and_then(Tree::as_str).unwrap_or("the process failed").to_owned()
}

/// Hands on what a process writes, until it writes no more.
///
/// # Errors
/// The client takes nothing more. Where the process's side breaks is an end like any other: a runtime breaks
/// off the outputs of a process that it could not start, and why is in the outcome.
async fn copy(
    from: Option<Box<dyn AsyncRead + Send + Unpin>>,
    to: Option<Box<dyn AsyncWrite + Send + Unpin>>,
) -> io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    // If nobody listens, the process must not wait for that.
    let mut to = to.unwrap_or_else(|| Box::new(tokio::io::sink()));
    let mut buf = vec![0; COPIED_BYTES];
    while let Ok(n @ 1..) = from.read(&mut buf).await {
        to.write_all(buf.get(..n).unwrap_or_default()).await?;
        to.flush().await?;
    }
    to.shutdown().await
}

/// Hands on the terminal's sizes: JSON objects, one after another.
async fn resize_events(mut from: Box<dyn AsyncRead + Send + Unpin>, to: mpsc::Sender<TerminalSize>) {
    let mut buf = Vec::new();
    while from.read_buf(&mut buf).await.is_ok_and(|n| n > 0) {
        let mut sizes = serde_json::Deserializer::from_slice(&buf).into_iter::<TerminalSize>();
        let mut whole = 0;
        while let Some(Ok(size)) = sizes.next() {
            whole = sizes.byte_offset();
            // Only the newest counts; a full queue means that one is on its way.
            let _ = to.try_send(size);
        }
        buf.drain(..whole);
        if buf.len() > SIZE_BYTES {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn before_v4_success_is_silence_and_failure_words() {
        let success = json!({"status": "Success"});
        let failure = json!({"status": "Failure", "message": "command terminated with exit code 3"});
        assert_eq!(outcome_text(&success, 3), "");
        assert_eq!(outcome_text(&failure, 3), "command terminated with exit code 3");
        assert_eq!(outcome_text(&success, 4), r#"{"status":"Success"}"#);
    }

    #[tokio::test]
    async fn sizes_are_read_however_they_are_cut() {
        let (mut a, b) = tokio::io::duplex(100);
        let (tx, mut rx) = mpsc::channel(8);
        let reader = tokio::spawn(resize_events(Box::new(b), tx));
        for piece in ["{\"Width\":80,\"Hei", "ght\":24}{\"Width\":100,", "\"Height\":30}\n"] {
            a.write_all(piece.as_bytes()).await.unwrap();
        }
        assert_eq!(rx.recv().await, Some(TerminalSize { width: 80, height: 24 }));
        assert_eq!(rx.recv().await, Some(TerminalSize { width: 100, height: 30 }));
        drop(a);
        reader.await.unwrap();
    }
}
