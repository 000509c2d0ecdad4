//! Exec and port-forward over every protocol that clients speak, each through a real gateway.

#![allow(clippy::unwrap_used)]

mod support;

use api::port::*;
use api::server::Limits;
use api::stream::client;
use api::stream::multiplex::Connection;
use api::stream::spdy::{Bounds, Role};
use base64::Engine as _;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use support::{Served, start};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, protocol};

const EXEC: &str = "/api/v1/namespaces/gold/pods/p/exec?command=cat&stdin=true&stdout=true&stderr=true";

/// A process that copies its input to its output, says `done` on its error output at the end of its
/// input, and exits with 3.
fn cat(sizes: Arc<Mutex<Vec<TerminalSize>>>) -> RemoteEnd {
    let (stdin, mut input) = tokio::io::duplex(1000);
    let (mut output, stdout) = tokio::io::duplex(1000);
    let (mut errors, stderr) = tokio::io::duplex(1000);
    let (resize, mut resized) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(size) = resized.recv().await {
            sizes.lock().unwrap().push(size);
        }
    });
    let run = tokio::spawn(async move {
        tokio::io::copy(&mut input, &mut output).await.unwrap();
        errors.write_all(b"done").await.unwrap();
    });
    RemoteEnd {
        stdin: Some(Box::new(stdin)),
        stdout: Some(Box::new(stdout)),
        stderr: Some(Box::new(stderr)),
        resize: Some(resize),
        outcome: Box::pin(async move {
            run.await.unwrap();
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": "command terminated with non-zero exit code", "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}})
        }),
    }
}

/// Answers every connection with what it was sent, turned about; port 9 is closed.
struct Backwards;

impl Dial for Backwards {
    fn dial(&self, port: u16) -> BoxFuture<'_, std::io::Result<Box<dyn Duplex>>> {
        Box::pin(async move {
            if port == 9 {
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
            let (near, far) = tokio::io::duplex(1000);
            tokio::spawn(async move {
                let (mut r, mut w) = tokio::io::split(far);
                let mut buf = [0; 3];
                while r.read_exact(&mut buf).await.is_ok() {
                    buf.reverse();
                    w.write_all(&buf).await.unwrap();
                }
            });
            Ok(Box::new(near) as Box<dyn Duplex>)
        })
    }
}

async fn served() -> (Served, Arc<Mutex<Vec<TerminalSize>>>) {
    let served = start(Limits::default()).await;
    let sizes: Arc<Mutex<Vec<TerminalSize>>> = Arc::default();
    let seen = sizes.clone();
    *served.backend.streams.lock().unwrap() = Some(Box::new(move |ask| match ask {
        Connect::Remote(_) => Ok(Connected::Remote(cat(seen.clone()))),
        Connect::PortForward { .. } => Ok(Connected::PortForward(Arc::new(Backwards))),
        Connect::Log(options) => {
            let (tx, rx) = mpsc::channel(4);
            tx.try_send(Ok(Bytes::from(format!("follow={}\n", options.follow)))).unwrap();
            Ok(Connected::Log(rx))
        }
    }));
    (served, sizes)
}

type Wire = TokioIo<hyper::upgrade::Upgraded>;

/// Asks for an upgrade: the connection and the protocol chosen, or the code and body of the refusal.
async fn upgrade(served: &Served, path: &str, headers: &[(&str, &str)]) -> Result<(Wire, String), (u16, Bytes)> {
    let tls = served.tls(Some(("admin", &["system:masters"])), &[b"http/1.1"]).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::get(path).header("host", "localhost");
    for (k, v) in headers {
        request = request.header(*k, *v);
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    if response.status() != 101 {
        return Err((response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes()));
    }
    let header = |n: &str| response.headers().get(n).map(|v| v.to_str().unwrap().to_owned());
    let chosen = header("sec-websocket-protocol").or(header("x-stream-protocol-version")).unwrap_or_default();
    Ok((TokioIo::new(hyper::upgrade::on(response).await.unwrap()), chosen))
}

async fn websocket(served: &Served, path: &str, protocols: &str) -> (WebSocketStream<Wire>, String) {
    let mut headers = vec![
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    if !protocols.is_empty() {
        headers.push(("sec-websocket-protocol", protocols));
    }
    let (wire, chosen) = upgrade(served, path, &headers).await.unwrap();
    (WebSocketStream::from_raw_socket(wire, protocol::Role::Client, None).await, chosen)
}

/// All messages until the close, by channel.
async fn channels(ws: &mut WebSocketStream<Wire>, base64: bool) -> std::collections::BTreeMap<u8, Vec<u8>> {
    let mut out: std::collections::BTreeMap<u8, Vec<u8>> = Default::default();
    while let Some(Ok(m)) = ws.next().await {
        match m {
            // Without a code, client-go takes the end for a failure.
            Message::Close(frame) => {
                assert_eq!(frame.map(|f| u16::from(f.code)), Some(1000));
                break;
            }
            Message::Text(t) if base64 => {
                let data = base64::engine::general_purpose::STANDARD.decode(&t.as_bytes()[1..]).unwrap();
                out.entry(t.as_bytes()[0] - b'0').or_default().extend(data);
            }
            Message::Binary(b) => out.entry(b[0]).or_default().extend(&b[1..]),
            _ => {}
        }
    }
    out
}

#[tokio::test]
async fn exec_over_v5_closes_its_input_and_ends_with_a_status() {
    let (served, sizes) = served().await;
    let (mut ws, chosen) =
        websocket(&served, &format!("{EXEC}&tty=true"), "v5.channel.k8s.io, v4.channel.k8s.io").await;
    assert_eq!(chosen, "v5.channel.k8s.io");
    ws.send(Message::Binary(Bytes::from_static(b"\x04{\"Width\":80,\"Height\":24}"))).await.unwrap();
    let big = vec![b'x'; 100_000];
    ws.send(Message::Binary([&[0u8][..], &big].concat().into())).await.unwrap();
    ws.send(Message::Binary(Bytes::from_static(&[255, 0]))).await.unwrap();
    let got = channels(&mut ws, false).await;
    assert!(got[&1] == big);
    let status: objects::Tree = serde_json::from_slice(&got[&3]).unwrap();
    assert_eq!(
        (&status["reason"], &status["details"]["causes"][0]["message"]),
        (&json!("NonZeroExitCode"), &json!("3"))
    );
    // A terminal has no error output of its own.
    assert!(!got.contains_key(&2));
    assert_eq!(sizes.lock().unwrap().as_slice(), [TerminalSize { width: 80, height: 24 }]);
}

#[tokio::test]
async fn exec_over_the_older_channel_protocols_echoes_and_the_client_leaves() {
    let (served, _) = served().await;
    for (protocols, base64) in
        [("v4.channel.k8s.io", false), ("channel.k8s.io", false), ("base64.channel.k8s.io", true), ("", false)]
    {
        let (mut ws, chosen) = websocket(&served, EXEC, protocols).await;
        assert_eq!(chosen, protocols);
        let hello = ws.next().await.unwrap().unwrap();
        let (message, want) = if base64 {
            (Message::Text("0aGk=".into()), Message::Text("1aGk=".into()))
        } else {
            (Message::Binary(Bytes::from_static(b"\0hi")), Message::Binary(Bytes::from_static(b"\x01hi")))
        };
        assert_eq!(hello.len(), 1, "{protocols}");
        ws.send(message).await.unwrap();
        assert_eq!(ws.next().await.unwrap().unwrap(), want, "{protocols}");
    }
}

#[tokio::test]
async fn exec_over_spdy_is_what_the_runtimes_client_speaks() {
    let (served, _) = served().await;
    let tls = served.tls(Some(("admin", &["system:masters"])), &[b"http/1.1"]).await;
    let ask = Remote { command: vec!["cat".into()], stdin: true, stdout: true, stderr: true, ..Remote::default() };
    let end = client::remote(tls, "localhost", EXEC, &ask).await.unwrap();
    let (mut stdin, mut stdout, mut stderr) = (end.stdin.unwrap(), end.stdout.unwrap(), end.stderr.unwrap());
    let big: Vec<u8> = (0..500_000u32).map(|i| (i % 253) as u8).collect();
    let sent = big.clone();
    let writer = tokio::spawn(async move {
        stdin.write_all(&sent).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let (mut out, mut err) = (Vec::new(), String::new());
    stdout.read_to_end(&mut out).await.unwrap();
    stderr.read_to_string(&mut err).await.unwrap();
    writer.await.unwrap();
    assert!(out == big);
    assert_eq!((err.as_str(), &end.outcome.await["reason"]), ("done", &json!("NonZeroExitCode")));
}

/// An output that breaks as soon as it is read, as a runtime leaves those of what it could not start.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()))
    }
}

#[tokio::test]
async fn a_process_that_could_not_be_started_is_told_of_though_its_outputs_break() {
    let served = start(Limits::default()).await;
    *served.backend.streams.lock().unwrap() = Some(Box::new(|_| {
        Ok(Connected::Remote(RemoteEnd {
            stdin: None,
            stdout: Some(Box::new(Broken)),
            stderr: Some(Box::new(Broken)),
            resize: None,
            outcome: Box::pin(async {
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no such program"})
            }),
        }))
    }));
    let (mut ws, _) = websocket(&served, EXEC, "v5.channel.k8s.io").await;
    let got = channels(&mut ws, false).await;
    assert!(String::from_utf8_lossy(&got[&3]).contains("no such program"), "{got:?}");
    let tls = served.tls(Some(("admin", &["system:masters"])), &[b"http/1.1"]).await;
    let ask = Remote { command: vec!["x".into()], stdout: true, stderr: true, ..Remote::default() };
    let end = client::remote(tls, "localhost", &EXEC.replace("stdin=true&", ""), &ask).await.unwrap();
    assert_eq!(end.outcome.await["message"], "no such program");
}

#[tokio::test]
async fn a_client_that_leaves_a_silent_process_lets_go_of_it() {
    let served = start(Limits::default()).await;
    let outputs: Arc<Mutex<Vec<tokio::io::DuplexStream>>> = Arc::default();
    let kept = outputs.clone();
    *served.backend.streams.lock().unwrap() = Some(Box::new(move |_| {
        let (output, stdout) = tokio::io::duplex(10);
        kept.lock().unwrap().push(output);
        Ok(Connected::Remote(RemoteEnd {
            stdin: None,
            stdout: Some(Box::new(stdout)),
            stderr: None,
            resize: None,
            outcome: Box::pin(std::future::pending()),
        }))
    }));
    let silent = EXEC.replace("stdin=true&", "").replace("&stderr=true", "");
    let (ws, _) = websocket(&served, &silent, "v5.channel.k8s.io").await;
    drop(ws);
    let mut output = outputs.lock().unwrap().pop().unwrap();
    assert_eq!(output.read(&mut [0; 1]).await.unwrap(), 0, "nobody holds its output any more");
    let tls = served.tls(Some(("admin", &["system:masters"])), &[b"http/1.1"]).await;
    let ask = Remote { command: vec!["x".into()], stdout: true, ..Remote::default() };
    drop(client::remote(tls, "localhost", &silent, &ask).await.unwrap());
    let mut output = outputs.lock().unwrap().pop().unwrap();
    assert_eq!(output.read(&mut [0; 1]).await.unwrap(), 0, "nobody holds its output any more");
}

#[tokio::test]
async fn port_forward_over_spdy_pairs_streams_and_says_what_failed() {
    let (served, _) = served().await;
    let path = "/api/v1/namespaces/gold/pods/p/portforward";
    let tls = served.tls(Some(("admin", &["system:masters"])), &[b"http/1.1"]).await;
    let dial = client::port_forward(tls, "localhost", path).await.unwrap();
    let (mut a, mut b) = (dial.dial(80).await.unwrap(), dial.dial(81).await.unwrap());
    a.write_all(b"abc").await.unwrap();
    b.write_all(b"xyz").await.unwrap();
    let mut buf = [0; 3];
    b.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"zyx");
    a.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"cba");
}

#[tokio::test]
async fn port_forward_tunnelled_in_a_websocket_is_spdy_inside() {
    let (served, _) = served().await;
    let (ws, chosen) =
        websocket(&served, "/api/v1/namespaces/gold/pods/p/portforward", "SPDY/3.1+portforward.k8s.io").await;
    assert_eq!(chosen, "SPDY/3.1+portforward.k8s.io");
    // The client's side of the tunnel: messages to bytes and back.
    let (near, far) = tokio::io::duplex(10_000);
    let (mut sink, mut stream) = ws.split();
    let (mut r, mut w) = tokio::io::split(far);
    tokio::spawn(async move {
        let mut buf = [0; 100];
        while let Ok(n @ 1..) = r.read(&mut buf).await {
            sink.send(Message::Binary(Bytes::copy_from_slice(&buf[..n]))).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Some(Ok(Message::Binary(b))) = stream.next().await {
            w.write_all(&b).await.unwrap();
        }
    });
    let c = Connection::start(near, Role::Client, Bounds::default());
    let open = |ty: &str, port: &str, id: &str| {
        c.open(vec![("streamtype".into(), ty.into()), ("port".into(), port.into()), ("requestid".into(), id.into())])
            .unwrap()
    };
    let (_e0, mut e1, mut d0, _d1) =
        (open("error", "80", "0"), open("error", "9", "1"), open("data", "80", "0"), open("data", "9", "1"));
    d0.write_all(b"abc").await.unwrap();
    let mut buf = [0; 3];
    d0.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"cba");
    let mut words = String::new();
    e1.read_to_string(&mut words).await.unwrap();
    assert!(words.starts_with("error forwarding port 9: "), "{words}");
}

#[tokio::test]
async fn port_forward_over_channels_begins_with_the_ports() {
    let (served, _) = served().await;
    let (mut ws, _) =
        websocket(&served, "/api/v1/namespaces/gold/pods/p/portforward?ports=80&ports=9", "v4.channel.k8s.io").await;
    let mut first = Vec::new();
    for _ in 0..4 {
        first.push(ws.next().await.unwrap().unwrap().into_data().to_vec());
    }
    assert_eq!(first, [[0, 80, 0], [1, 80, 0], [2, 9, 0], [3, 9, 0]]);
    ws.send(Message::Binary(Bytes::from_static(b"\0abc"))).await.unwrap();
    let (mut data, mut errors) = (Vec::new(), Vec::new());
    while data.is_empty() || errors.is_empty() {
        let m = ws.next().await.unwrap().unwrap().into_data();
        if m[0] == 0 { &mut data } else { &mut errors }.extend(&m[1..]);
    }
    assert_eq!(data, b"cba");
    assert!(errors.starts_with(b"error forwarding port 9: "));
}

#[tokio::test]
async fn no_more_ports_are_forwarded_than_there_are_channels() {
    let (served, _) = served().await;
    let path = |n: u16| {
        let ports: Vec<String> = (1..=n).map(|p| format!("ports={p}")).collect();
        format!("/api/v1/namespaces/gold/pods/p/portforward?{}", ports.join("&"))
    };
    let (mut ws, _) = websocket(&served, &path(127), "v4.channel.k8s.io").await;
    for n in 0..254u8 {
        assert_eq!(ws.next().await.unwrap().unwrap().into_data()[0], n);
    }
    let refused = served.client().await.get(&path(128)).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["message"], "128 ports are asked for at once, and 127 is the most");
}

#[tokio::test]
async fn a_log_comes_as_it_is_written() {
    let (served, _) = served().await;
    let got = served.client().await.get("/api/v1/namespaces/gold/pods/p/log?follow=true&tailLines=5").await;
    assert_eq!((got.status, got.header("content-type"), &got.body[..]), (200, "text/plain", &b"follow=true\n"[..]));
    let bad = served.client().await.get("/api/v1/namespaces/gold/pods/p/log?tailLines=x").await;
    assert_eq!(bad.status, 400);
}

#[tokio::test]
async fn a_stream_without_its_upgrade_or_with_unknown_protocols_is_refused() {
    let (served, _) = served().await;
    let refused = |headers: &'static [(&'static str, &'static str)]| {
        let served = &served;
        async move { upgrade(served, EXEC, headers).await.err().unwrap().0 }
    };
    assert_eq!(refused(&[]).await, 400);
    assert_eq!(refused(&[("connection", "upgrade"), ("upgrade", "websocket")]).await, 400);
    assert_eq!(
        refused(&[("connection", "upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v9")]).await,
        403
    );
    let ws = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "x"),
        ("sec-websocket-protocol", "v9"),
    ];
    assert_eq!(upgrade(&served, EXEC, &ws).await.err().unwrap().0, 403);
    let none = "/api/v1/namespaces/gold/pods/p/exec?command=x&stdout=false&stderr=false";
    assert_eq!(upgrade(&served, none, &[]).await.err().unwrap().0, 400);
}
