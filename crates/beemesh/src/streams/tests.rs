//! Both halves of a pod's stream, joined in memory: the client's end at one gateway, and what runs at another node.
#![allow(clippy::unwrap_used)]

use super::ask::{begin, connection, log, remote};
use super::frames::{Frames, say};
use super::serve::{Opened, Place, Serving, answer, is_meant, may_ask};
use super::{log_read, log_written, remote_read, remote_written};
use crate::driver::work::Work;
use api::port::{LogOptions, Refusal, Remote, RemoteEnd, TerminalSize};
use base::NodeId;
use bytes::Bytes;
use identity::Roles;
use node::wire::pod::{Answer, Ask, Channel, FRAME_BYTES_MAX, Frame, QUESTION_BYTES_MAX, Question};
use objects::Tree;
use objects::status::{Reason, Status};
use serde_json::json;
use std::future::{Future, pending};
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// What the way between two nodes holds.
const WAY_BYTES: usize = 64 << 10;
/// Something that comes at once if it comes at all.
const LONG: Duration = Duration::from_secs(20);

type Half = (Frames<ReadHalf<DuplexStream>>, WriteHalf<DuplexStream>);

fn half(end: DuplexStream, bytes_max: usize) -> Half {
    let (from, to) = tokio::io::split(end);
    (Frames::new(from, bytes_max), to)
}

fn serving() -> Arc<Serving> {
    // Of no pods.
    Arc::new(Serving::of(Weak::<Work>::new(), Handle::current()))
}

fn question(ask: Ask) -> Question {
    Question { namespace: "shop".into(), name: "web".into(), uid: "u".into(), ask }
}

/// The gateway's half of a stream that the other node has accepted and serves with this.
async fn opened(opened: Opened) -> Half {
    let (here, there) = duplex(WAY_BYTES);
    let (frames, send) = half(there, QUESTION_BYTES_MAX);
    let place = serving().place(NodeId([1; 32]));
    tokio::spawn(async move {
        answer(frames, send, pending(), place, |_| async { Ok(opened) }).await;
    });
    let (mut frames, mut send) = half(here, FRAME_BYTES_MAX);
    begin("cow", &question(Ask::Ports), &mut frames, &mut send).await.unwrap();
    (frames, send)
}

/// A process's ends at its node, for a test to play it.
struct Process {
    stdin: DuplexStream,
    stdout: DuplexStream,
    stderr: DuplexStream,
    sizes: mpsc::Receiver<TerminalSize>,
    over: oneshot::Sender<Tree>,
}

fn process() -> (Process, Opened) {
    let ((stdin, stdin_end), (stdout, stdout_end), (stderr, stderr_end)) = (duplex(64), duplex(64), duplex(64));
    let (resize, sizes) = mpsc::channel(4);
    let (over, outcome) = oneshot::channel();
    let end = RemoteEnd {
        stdin: Some(Box::new(stdin_end)),
        stdout: Some(Box::new(stdout_end)),
        stderr: Some(Box::new(stderr_end)),
        resize: Some(resize),
        outcome: Box::pin(async move { outcome.await.unwrap_or(Tree::Null) }),
    };
    (Process { stdin, stdout, stderr, sizes, over }, Opened::Remote(end))
}

fn all() -> Remote {
    Remote { stdin: true, stdout: true, stderr: true, ..Remote::default() }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(LONG, what).await.expect("it never came")
}

async fn read_all(from: Option<Box<dyn AsyncRead + Send + Unpin>>) -> String {
    let mut text = String::new();
    from.unwrap().read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_process_elsewhere_reads_writes_and_ends_as_one_here() {
    let (mut there, end) = process();
    let (frames, send) = opened(end).await;
    let client = remote(&all(), "node cow".into(), frames, send);
    let long = "0123456789abcdef".repeat(20_000);
    let sent = long.clone();
    let mut stdin = client.stdin.unwrap();
    let writing = tokio::spawn(async move {
        stdin.write_all(sent.as_bytes()).await.unwrap();
        stdin.shutdown().await.unwrap();
        stdin
    });
    // It sees the end of its input and goes on writing.
    let mut read = String::new();
    soon(there.stdin.read_to_string(&mut read)).await.unwrap();
    assert!(read == long, "{} bytes of {} came", read.len(), long.len());
    let kept = writing.await.unwrap();
    let writes = async {
        there.stderr.write_all(b"a complaint").await.unwrap();
        drop(there.stderr);
        there.stdout.write_all(read.as_bytes()).await.unwrap();
        drop(there.stdout);
        there.over.send(json!({"status": "Failure", "reason": "NonZeroExitCode"})).unwrap();
    };
    let ((), out, err, outcome) =
        soon(async { tokio::join!(writes, read_all(client.stdout), read_all(client.stderr), client.outcome) }).await;
    assert!(out == long, "{} bytes of {} came back", out.len(), long.len());
    assert_eq!((err.as_str(), &outcome), ("a complaint", &json!({"status": "Failure", "reason": "NonZeroExitCode"})));
    drop(kept);
}

#[tokio::test]
async fn a_terminal_has_one_output_and_tells_its_size() {
    let (mut there, end) = process();
    let (frames, send) = opened(end).await;
    let client = remote(&Remote { tty: true, ..all() }, "node cow".into(), frames, send);
    assert!(client.stderr.is_none());
    let size = TerminalSize { width: 120, height: 40 };
    client.resize.unwrap().send(size).await.unwrap();
    assert_eq!(soon(there.sizes.recv()).await, Some(size));
    there.over.send(json!({"status": "Success"})).unwrap();
    drop((there.stdout, there.stderr));
    assert_eq!(soon(client.outcome).await["status"], "Success");
    let written = remote_written(&Remote { tty: true, ..all() });
    assert!(written.tty && !written.stderr && written.stdout);
}

#[tokio::test]
async fn who_does_not_read_stops_the_process_and_a_process_that_does_not_read_stops_its_client() {
    let (mut there, end) = process();
    let (frames, send) = opened(end).await;
    let client = remote(&all(), "node cow".into(), frames, send);
    let mut stdin = client.stdin.unwrap();
    // What waits anywhere on the way: in pipes, as frames, and on the way itself. Nothing more is ever taken.
    for taken in [taken_by(&mut there.stdout).await, taken_by(&mut stdin).await] {
        assert!((64 << 10..512 << 10).contains(&taken), "{taken} bytes were taken");
    }
    // The reader goes on, and with it the writer.
    let (mut stdout, mut some) = (client.stdout.unwrap(), vec![0; 1 << 20]);
    let more = async { there.stdout.write_all(&vec![8; 1 << 20]).await.unwrap() };
    let ((), read) = soon(async { tokio::join!(more, stdout.read_exact(&mut some)) }).await;
    read.unwrap();
}

/// How many bytes are taken of whoever writes before it comes to a stand.
async fn taken_by(end: &mut (impl AsyncWrite + Unpin)) -> usize {
    let mut taken = 0;
    let filling = async {
        loop {
            taken += end.write(&[7; 8192]).await.unwrap();
            assert!(taken < 16 << 20, "nobody holds this back");
        }
    };
    tokio::select! {
        () = filling => {}
        () = stands_still() => {}
    }
    taken
}

/// Resolves when all tasks of this thread had their turn many times over.
async fn stands_still() {
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_goes_ends_the_process_and_is_heard_to_the_end() {
    let (mut there, end) = process();
    let (frames, send) = opened(end).await;
    let client = remote(&all(), "node cow".into(), frames, send);
    let mut stdin = client.stdin.unwrap();
    stdin.write_all(b"last words").await.unwrap();
    stdin.shutdown().await.unwrap();
    drop((stdin, client.stdout, client.stderr, client.resize, client.outcome));
    let mut read = String::new();
    soon(there.stdin.read_to_string(&mut read)).await.unwrap();
    assert_eq!(read, "last words");
    // Its node lets go of it: it writes to nobody, and nobody waits for its end.
    soon(there.over.closed()).await;
    assert!(there.stdout.write_all(b"x").await.is_err());
}

#[tokio::test]
async fn a_process_that_never_reads_is_let_go_of_when_its_client_is_gone() {
    let (mut there, end) = process();
    let (here, way) = duplex(WAY_BYTES);
    let (frames, send) = half(way, QUESTION_BYTES_MAX);
    let (client, gone) = oneshot::channel::<()>();
    let place = serving().place(NodeId([1; 32]));
    tokio::spawn(async move {
        let gone = async { drop(gone.await) };
        answer(frames, send, gone, place, |_| async { Ok(end) }).await;
    });
    let (mut frames, mut send) = half(here, FRAME_BYTES_MAX);
    begin("cow", &question(Ask::Ports), &mut frames, &mut send).await.unwrap();
    let full = Frame::Data { channel: Channel::Input, bytes: vec![1; 1000].into() }.encode();
    say(&mut send, &full).await.unwrap();
    drop(client);
    // It has a while for the last words, of which it takes none. The way itself stays open.
    soon(there.over.closed()).await;
    drop(send);
}

#[tokio::test]
async fn a_node_that_is_lost_ends_a_process_with_words_that_name_it() {
    let (here, there) = duplex(WAY_BYTES);
    let (frames, send) = half(here, FRAME_BYTES_MAX);
    let client = remote(&all(), "node cow, which runs pod shop/web".into(), frames, send);
    drop(there);
    let outcome = soon(client.outcome).await;
    let words = outcome["message"].as_str().unwrap();
    assert!(outcome["status"] == "Failure" && words.contains("node cow, which runs pod shop/web, was lost"), "{words}");
    assert_eq!(soon(read_all(client.stdout)).await, "");

    let (here, there) = duplex(WAY_BYTES);
    let (frames, send) = half(here, FRAME_BYTES_MAX);
    let mut lines = log("node cow".into(), frames, send);
    drop(there);
    let error = soon(lines.recv()).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("node cow, was lost"), "{error}");
    assert!(soon(lines.recv()).await.is_none());
}

#[tokio::test]
async fn a_forwarded_connection_ends_in_each_direction_by_itself() {
    let (mut pod, end) = duplex(64);
    let (frames, send) = opened(Opened::Port(Box::new(end))).await;
    let mut client = connection("node cow".into(), frames, send);
    client.write_all(b"GET /").await.unwrap();
    client.shutdown().await.unwrap();
    let mut asked = String::new();
    soon(pod.read_to_string(&mut asked)).await.unwrap();
    assert_eq!(asked, "GET /");
    let answer = "an answer ".repeat(50_000);
    let answering = async {
        pod.write_all(answer.as_bytes()).await.unwrap();
        pod.shutdown().await.unwrap();
    };
    let mut came = String::new();
    let ((), read) = soon(async { tokio::join!(answering, client.read_to_string(&mut came)) }).await;
    read.unwrap();
    assert!(came == answer, "{} of {} bytes came", came.len(), answer.len());
    drop(client);
    let mut rest = String::new();
    soon(pod.read_to_string(&mut rest)).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_its_client_drops_is_closed_at_the_pod_after_its_last_bytes() {
    let (mut pod, end) = duplex(64);
    let (frames, send) = opened(Opened::Port(Box::new(end))).await;
    let mut client = connection("node cow".into(), frames, send);
    client.write_all(&[5; 30_000]).await.unwrap();
    client.shutdown().await.unwrap();
    drop(client);
    let mut came = Vec::new();
    soon(pod.read_to_end(&mut came)).await.unwrap();
    assert_eq!(came.len(), 30_000);
    let gone = async { while pod.write_all(&[0; 64]).await.is_ok() {} };
    soon(gone).await;
}

#[tokio::test]
async fn a_log_comes_in_its_order_and_ends_or_breaks_as_it_does_there() {
    let (to, lines) = mpsc::channel(1);
    let (frames, send) = opened(Opened::Log(lines)).await;
    let mut here = log("node cow".into(), frames, send);
    let long = Bytes::from(vec![b'x'; 100_000]);
    let writing = async {
        to.send(Ok("first\n".into())).await.unwrap();
        to.send(Ok(long.clone())).await.unwrap();
        drop(to);
    };
    let reading = async {
        let mut all = Vec::new();
        while let Some(piece) = here.recv().await {
            all.extend_from_slice(&piece.unwrap());
        }
        all
    };
    let ((), all) = soon(async { tokio::join!(writing, reading) }).await;
    assert!(all.len() == 100_006 && all.starts_with(b"first\nx"), "{}", all.len());

    let (to, lines) = mpsc::channel(1);
    let (frames, send) = opened(Opened::Log(lines)).await;
    let mut here = log("node cow".into(), frames, send);
    to.send(Err(io::Error::other("the disk is gone"))).await.unwrap();
    let error = soon(here.recv()).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("the disk is gone"), "{error}");

    // Whoever reads no more is not read for.
    let (to, lines) = mpsc::channel(1);
    let (frames, send) = opened(Opened::Log(lines)).await;
    drop(log("node cow".into(), frames, send));
    soon(to.closed()).await;
}

#[tokio::test]
async fn a_refusal_reaches_the_client_as_it_is_and_a_node_that_says_nothing_is_named() {
    let refusing = |status: Status| async move {
        let (here, there) = duplex(WAY_BYTES);
        let (frames, send) = half(there, QUESTION_BYTES_MAX);
        let place = serving().place(NodeId([1; 32]));
        let serving = tokio::spawn(answer(frames, send, pending(), place, move |asked| async move {
            assert_eq!(asked, question(Ask::Port(80)));
            Err(Box::new(status))
        }));
        let (mut frames, mut send) = half(here, FRAME_BYTES_MAX);
        let refused = begin("cow", &question(Ask::Port(80)), &mut frames, &mut send).await.unwrap_err();
        serving.await.unwrap();
        refused
    };
    assert_eq!(*refusing(Status::bad_request("no")).await, Status::bad_request("no"));
    // However many words a runtime makes.
    let long = refusing(Status::bad_request("ä".repeat(1 << 20))).await;
    assert!(long.code == 400 && (10_000..20_000).contains(&long.message.len()), "{}", long.message.len());

    let (here, there) = duplex(WAY_BYTES);
    drop(there);
    let (mut frames, mut send) = half(here, FRAME_BYTES_MAX);
    let lost = begin("cow", &question(Ask::Ports), &mut frames, &mut send).await.unwrap_err();
    assert!(lost.code == 503 && lost.message.contains("node cow"), "{lost:?}");

    // A node cannot make a refusal a success, nor say what nobody can read.
    for answer in [Answer::Refused(Box::new(Status::success(200, None))).encode(), Bytes::from_static(b"\x01\x09")] {
        let (here, there) = duplex(WAY_BYTES);
        let (_frames, mut to) = half(there, QUESTION_BYTES_MAX);
        say(&mut to, &answer).await.unwrap();
        let (mut frames, mut send) = half(here, FRAME_BYTES_MAX);
        let refused = begin("cow", &question(Ask::Ports), &mut frames, &mut send).await.unwrap_err();
        assert!(refused.code == 503 && refused.message.contains("node cow"), "{refused:?}");
    }
}

#[tokio::test]
async fn frames_that_no_gateway_sends_end_a_process_and_those_that_no_node_sends_its_client() {
    let too_long = (u32::MAX).to_le_bytes().to_vec();
    let framed = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat();
    let output = Frame::Data { channel: Channel::Output, bytes: Bytes::from_static(b"x") }.encode();
    let outcome = Frame::Outcome { status: json!({"status": "Success"}) }.encode();
    for hostile in [too_long.clone(), framed(b""), framed(b"\x01\x63"), framed(&output), framed(&outcome)] {
        let (mut there, end) = process();
        let (_frames, mut send) = opened(end).await;
        send.write_all(&hostile).await.unwrap();
        soon(there.over.closed()).await;
    }
    let input = Frame::Data { channel: Channel::Input, bytes: Bytes::from_static(b"x") }.encode();
    let resize = Frame::Resize { width: 1, height: 1 }.encode();
    for hostile in [too_long, framed(b""), framed(b"\x01\x63"), framed(&input), framed(&resize)] {
        let (here, mut there) = duplex(WAY_BYTES);
        let (frames, send) = half(here, FRAME_BYTES_MAX);
        let client = remote(&all(), "node cow".into(), frames, send);
        there.write_all(&hostile).await.unwrap();
        assert_eq!(soon(client.outcome).await["status"], "Failure");
    }
    // What is input for nobody, or comes on a channel that was not asked for, is passed over.
    let (to, lines) = mpsc::channel(1);
    let (mut frames, mut send) = opened(Opened::Log(lines)).await;
    say(&mut send, &input).await.unwrap();
    to.send(Ok("line".into())).await.unwrap();
    let came = soon(frames.frame()).await.unwrap().unwrap();
    assert_eq!(came, Frame::Data { channel: Channel::Output, bytes: Bytes::from_static(b"line") });
}

#[tokio::test]
async fn what_is_no_question_is_answered_and_nothing_is_opened() {
    let never = |_| async { panic!("nothing was asked") as Result<Opened, Refusal> };
    for bad in [&b""[..], b"\x09\0\0\0", b"\x02\0\0\0\x01\x63", b"\xff\xff\xff\xff"] {
        let (mut here, there) = duplex(WAY_BYTES);
        let (frames, send) = half(there, QUESTION_BYTES_MAX);
        let serving = tokio::spawn(answer(frames, send, pending(), serving().place(NodeId([1; 32])), never));
        here.write_all(bad).await.unwrap();
        here.shutdown().await.unwrap();
        let (mut frames, _send) = half(here, FRAME_BYTES_MAX);
        let answered = soon(frames.next()).await.unwrap().unwrap();
        let Answer::Refused(status) = Answer::decode(&answered).unwrap() else { panic!("it was accepted") };
        assert_eq!(status.code, 400, "{status:?}");
        serving.await.unwrap();
    }
    // Nor is anything when whoever asks is gone.
    let (here, there) = duplex(WAY_BYTES);
    let (frames, send) = half(there, QUESTION_BYTES_MAX);
    let place = serving().place(NodeId([1; 32]));
    soon(answer(frames, send, async {}, place, |_| pending::<Result<Opened, Refusal>>())).await;
    drop(here);
}

#[tokio::test]
async fn a_node_has_so_many_places_and_gives_them_back() {
    let serving = serving();
    let (one, other) = (NodeId([1; 32]), NodeId([2; 32]));
    let mut places: Vec<Place> = (0..256).map(|_| serving.place(one).unwrap()).collect();
    let refused = serving.place(one).err().unwrap();
    assert!(refused.code == 429 && refused.reason == Reason::TooManyRequests, "{refused:?}");
    assert!(refused.message.contains("256 streams of this gateway"), "{}", refused.message);
    let others = serving.place(other).unwrap();
    places.pop();
    places.push(serving.place(one).unwrap());
    drop((places, others));
    let of_many = |n: usize| serving.place(NodeId([u8::try_from(n / 256).unwrap() + 10; 32]));
    let places: Vec<Place> = (0..2048).map(|n| of_many(n).unwrap()).collect();
    let refused = serving.place(one).err().unwrap();
    assert!(refused.message.contains("2048 streams of all gateways"), "{}", refused.message);
    drop(places);
    serving.place(one).unwrap();
}

#[test]
fn only_a_gateway_is_served_and_only_the_pod_that_is_bound_here() {
    may_ask(Roles::GATEWAY | Roles::WORKER).unwrap();
    let refused = may_ask(Roles::WORKER | Roles::KEEPER).unwrap_err();
    assert!(refused.code == 403 && refused.message.contains("not gateway"), "{}", refused.message);

    let pod = |namespace: &str, name: &str, uid: &str, node: &str| json!({"metadata": {"namespace": namespace, "name": name, "uid": uid}, "spec": {"nodeName": node}});
    let asked = question(Ask::Ports);
    let meant = pod("shop", "web", "u", "cow");
    assert_eq!(is_meant(Some(&meant), &asked, "cow").unwrap(), &meant);
    let others = [
        pod("shop", "web", "v", "cow"),
        pod("shop", "other", "u", "cow"),
        pod("bank", "web", "u", "cow"),
        pod("shop", "web", "u", "bee"),
        json!({}),
    ];
    for other in others.iter().map(Some).chain([None]) {
        let refused = is_meant(other, &asked, "cow").unwrap_err();
        assert!(
            refused.code == 503 && refused.message.contains("node cow has no pod shop/web of uid u"),
            "{refused:?}"
        );
    }
    let nobody = Question { uid: String::new(), ..asked };
    is_meant(Some(&pod("shop", "web", "", "cow")), &nobody, "cow").unwrap_err();
}

#[test]
fn what_is_asked_for_is_the_same_at_the_other_end() {
    let ask = Remote { attach: true, container: "c".into(), command: vec!["a".into()], ..all() };
    assert_eq!(remote_read(remote_written(&ask)), ask);
    let options = LogOptions {
        container: "c".into(),
        follow: true,
        previous: true,
        since_seconds: Some(1),
        since_time: "t".into(),
        timestamps: true,
        tail_lines: Some(2),
        limit_bytes: Some(3),
        stream: "Stderr".into(),
    };
    assert_eq!(log_read(log_written(options.clone())), options);
}
