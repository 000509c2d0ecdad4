//! At the pod's node: whoever has the role `gateway` is joined with a pod that is bound here.
//!
//! Whether the user may was decided by the pod's cell, when the gateway asked it. That the pod is this node's, and the
//! very one that was meant, is this node's to know.

use super::frames::{Frames, Held, LAST_WORDS_WITHIN, QUEUE, astray, say, speak, tell, tell_all};
use super::{here, log_read, remote_read};
use crate::driver::work::Work;
use ::mesh::{Peer, Streams};
use api::port::{Connect, Connected, Dial, Duplex, Refusal, RemoteEnd, TerminalSize};
use base::NodeId;
use bytes::Bytes;
use identity::Roles;
use node::wire::pod::{Answer, Ask, Channel, DATA_BYTES_MAX, FRAME_BYTES_MAX, Frame, QUESTION_BYTES_MAX, Question};
use objects::Tree;
use objects::status::Status;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// So many streams of one node are served at once; one more is refused with 429. A forwarded connection is one.
const PER_NODE: usize = 256;
/// And of all nodes together: each has some 300 KiB of buffers at most.
const OF_ALL: usize = 2048;
/// For the question, and for an answer that refuses.
const WITHIN: Duration = Duration::from_secs(10);
/// Of a refusal's words so many bytes are passed on.
const WORDS_BYTES: usize = 16 << 10;

/// Serves other nodes' gateways.
pub(crate) struct Serving {
    work: Weak<Work>,
    runtime: Handle,
    taken: Mutex<BTreeMap<NodeId, usize>>,
}

/// One of a node's places, given back when it goes.
pub(super) struct Place(Arc<Serving>, NodeId);

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = taken.get_mut(&self.1) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                taken.remove(&self.1);
            }
        }
    }
}

/// What was opened here for another node.
pub(super) enum Opened {
    /// A process.
    Remote(RemoteEnd),
    /// Ports can be forwarded.
    Ports,
    /// A connection.
    Port(Box<dyn Duplex>),
    /// A log.
    Log(mpsc::Receiver<io::Result<Bytes>>),
}

impl Serving {
    /// Of the pods of this node.
    pub(crate) fn new(work: &Arc<Work>, runtime: Handle) -> Serving {
        Serving::of(Arc::downgrade(work), runtime)
    }

    pub(super) fn of(work: Weak<Work>, runtime: Handle) -> Serving {
        Serving { work, runtime, taken: Mutex::default() }
    }

    /// Serves what another node has opened, on a task of its own.
    pub(crate) fn serve(self: Arc<Self>, streams: Streams) {
        self.runtime.clone().spawn(async move {
            let Streams { peer, send, receive, .. } = streams;
            let gone = send.stopped();
            let opening = {
                let me = self.clone();
                let peer = peer.clone();
                move |question| async move { me.open(&peer, question).await }
            };
            let place = self.place(peer.node);
            answer(Frames::new(receive, QUESTION_BYTES_MAX), send, gone, place, opening).await;
        });
    }

    /// A place for one stream more of a node.
    pub(super) fn place(self: &Arc<Self>, node: NodeId) -> Result<Place, Refusal> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.entry(node).or_default();
        if *own >= PER_NODE || all >= OF_ALL {
            let (n, whose) = if *own >= PER_NODE { (*own, "this gateway") } else { (all, "all gateways") };
            if *own == 0 {
                taken.remove(&node);
            }
            return Err(Box::new(Status::too_many_requests(
                format!(
                    "the pod's node serves {n} streams of {whose} already, which is the most: nothing was begun; end one, or try again later"
                ),
                1,
            )));
        }
        *own += 1;
        Ok(Place(self.clone(), node))
    }

    async fn open(&self, peer: &Peer, question: Question) -> Result<Opened, Refusal> {
        may_ask(peer.roles)?;
        let stopping = || Box::new(Status::unavailable("the pod's node is stopping: nothing was begun"));
        let work = self.work.upgrade().ok_or_else(stopping)?;
        let Some(runtime) = work.runtime() else {
            let why = format!("node {} has no container runtime (yet): it runs no pods", work.node_name());
            return Err(Box::new(Status::unavailable(&why)));
        };
        let pod = work.pod(&question.uid);
        let pod = is_meant(pod.as_deref(), &question, work.node_name())?;
        let ask = match question.ask {
            Ask::Remote(ask) => Connect::Remote(remote_read(ask)),
            Ask::Ports => Connect::PortForward { ports: Vec::new() },
            Ask::Port(port) => Connect::PortForward { ports: vec![port] },
            Ask::Log(log) => Connect::Log(log_read(log)),
        };
        let port = match &ask {
            Connect::PortForward { ports } => ports.first().copied(),
            _ => None,
        };
        Ok(match here::connect(runtime, pod, ask).await? {
            Connected::Remote(process) => Opened::Remote(process),
            Connected::Log(log) => Opened::Log(log),
            Connected::PortForward(dial) => match port {
                Some(port) => Opened::Port(dialled(dial, port).await?),
                None => Opened::Ports,
            },
        })
    }
}

async fn dialled(dial: Arc<dyn Dial>, port: u16) -> Result<Box<dyn Duplex>, Refusal> {
    let io = dial.dial(port).await.map_err(|e| Status::internal(&format!("the container runtime's stream: {e}")))?;
    // The connection is a part of what was opened.
    Ok(Box::new(Held(io, dial)))
}

/// Whether a node may have what its users asked for: one that has not the role could claim anything of them.
///
/// # Errors
/// 403, saying what role it lacks.
pub(super) fn may_ask(roles: Roles) -> Result<(), Refusal> {
    if roles.contains(Roles::GATEWAY) {
        return Ok(());
    }
    let why = format!("the node that asks has the roles {roles} and not {}: it may speak for nobody", Roles::GATEWAY);
    Err(Box::new(Status::forbidden_resource("", "", "", &why)))
}

/// The pod that is meant, if it is the one bound here.
///
/// # Errors
/// 503: the node has not been told of it, or no more.
pub(super) fn is_meant<'p>(pod: Option<&'p Tree>, asked: &Question, node: &str) -> Result<&'p Tree, Refusal> {
    let meant = pod.filter(|pod| {
        let metadata = &pod["metadata"];
        !asked.uid.is_empty()
            && metadata["uid"] == *asked.uid
            && metadata["name"] == *asked.name
            && metadata["namespace"] == *asked.namespace
            && pod["spec"]["nodeName"] == *node
    });
    meant.ok_or_else(|| {
        Box::new(Status::unavailable(&format!(
            "node {node} has no pod {}/{} of uid {}: it was bound there just now, or is gone. Nothing was begun; look at the pod, and try again",
            asked.namespace, asked.name, asked.uid
        )))
    })
}

/// Reads the question, answers it, and serves what was opened.
pub(super) async fn answer<R, W, O>(
    mut frames: Frames<R>,
    mut send: W,
    gone: impl Future<Output = ()>,
    place: Result<Place, Refusal>,
    open: impl FnOnce(Question) -> O,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    O: Future<Output = Result<Opened, Refusal>>,
{
    let mut gone = std::pin::pin!(gone);
    let opening = async {
        let place = place?;
        let unread = |why: String| Box::new(Status::bad_request(format!("the question could not be read: {why}")));
        let question = match timeout(WITHIN, frames.next()).await {
            Ok(Ok(Some(question))) => Question::decode(&question).map_err(|e| unread(e.to_string()))?,
            Ok(Ok(None)) => return Err(unread("there was none".to_owned())),
            Ok(Err(why)) => return Err(unread(why.to_string())),
            Err(_) => return Err(unread(format!("it did not come within {} s", WITHIN.as_secs()))),
        };
        Ok((open(question).await?, place))
    };
    let opened = tokio::select! {
        opened = opening => opened,
        // Nobody waits for it any more.
        () = &mut gone => return,
    };
    match opened {
        Ok((opened, _place)) => {
            if say(&mut send, &Answer::Accepted.encode()).await.is_ok() {
                converse(frames, send, gone, opened).await;
            }
        }
        Err(mut refusal) => {
            cut(&mut refusal.message);
            let told = async {
                say(&mut send, &Answer::Refused(refusal).encode()).await?;
                send.shutdown().await
            };
            // One who does not take it needs it no more.
            let _ = timeout(WITHIN, told).await;
        }
    }
}

/// Keeps the first words.
fn cut(words: &mut String) {
    let end = (0..=WORDS_BYTES.min(words.len())).rev().find(|at| words.is_char_boundary(*at));
    words.truncate(end.unwrap_or(0));
}

/// Moves bytes between a gateway and what was opened here, until one of them has ended.
async fn converse<R, W>(mut frames: Frames<R>, send: W, gone: impl Future<Output = ()>, opened: Opened)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (to, said) = mpsc::channel(QUEUE);
    let (open, over) = oneshot::channel();
    let mut input = Input { to: None, sizes: None, open: Some(open) };
    let telling: Pin<Box<dyn Future<Output = io::Result<()>> + Send>> = match opened {
        Opened::Ports => {
            drop(to);
            Box::pin(async { Ok(()) })
        }
        Opened::Remote(RemoteEnd { stdin, stdout, stderr, resize, outcome }) => {
            (input.to, input.sizes) = (stdin, resize);
            Box::pin(async move { tell_process(stdout, stderr, outcome, to).await })
        }
        Opened::Port(io) => {
            let (from, into) = tokio::io::split(io);
            input.to = Some(Box::new(into));
            Box::pin(async move {
                tell_all(Some(from), Channel::Output, &to).await?;
                // Each direction ends by itself.
                let _ = over.await;
                Ok(())
            })
        }
        Opened::Log(log) => Box::pin(tell_log(log, to)),
    };
    let heard = tokio::select! {
        over = async { tokio::try_join!(telling, speak(said, send)) } => over.map(drop),
        heard = input.hear(&mut frames) => heard,
        // What came before that is still handed on.
        () = async { gone.await; tokio::time::sleep(LAST_WORDS_WITHIN).await } => Ok(()),
    };
    if let Err(why) = heard {
        tracing::debug!(%why, "a pod's stream of another node's gateway has broken");
    }
}

async fn tell_process(
    stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    outcome: impl Future<Output = Tree>,
    to: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let (out, err) = (tell_all(stdout, Channel::Output, &to), tell_all(stderr, Channel::Error, &to));
    // The outcome comes behind all that was written.
    let ((), (), status) = tokio::try_join!(out, err, async { Ok(outcome.await) })?;
    let frame = Frame::Outcome { status }.encode();
    if frame.len() <= FRAME_BYTES_MAX {
        return to.send(frame).await.map_err(|_| io::ErrorKind::BrokenPipe.into());
    }
    let why = format!("how the process ended takes {} bytes to say, and {FRAME_BYTES_MAX} are the most", frame.len());
    tell(&to, Frame::Broken { why }).await
}

async fn tell_log(mut log: mpsc::Receiver<io::Result<Bytes>>, to: mpsc::Sender<Bytes>) -> io::Result<()> {
    while let Some(piece) = log.recv().await {
        match piece {
            Ok(mut bytes) => {
                while !bytes.is_empty() {
                    let bytes = bytes.split_to(bytes.len().min(DATA_BYTES_MAX));
                    tell(&to, Frame::Data { channel: Channel::Output, bytes }).await?;
                }
            }
            Err(why) => {
                let mut why = why.to_string();
                cut(&mut why);
                return tell(&to, Frame::Broken { why }).await;
            }
        }
    }
    tell(&to, Frame::End { channel: Channel::Output }).await
}

/// Where what a gateway says goes.
struct Input {
    to: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    sizes: Option<mpsc::Sender<TerminalSize>>,
    /// Dropped when no more input is taken.
    open: Option<oneshot::Sender<()>>,
}

impl Input {
    /// Takes what a gateway says, until it has nothing more to say.
    ///
    /// # Errors
    /// It broke off, or sent what no gateway sends.
    async fn hear<R: AsyncRead + Unpin>(&mut self, frames: &mut Frames<R>) -> io::Result<()> {
        while let Some(frame) = frames.frame().await? {
            match frame {
                Frame::Data { channel: Channel::Input, bytes } => {
                    let Some(to) = &mut self.to else { continue };
                    let written = async {
                        to.write_all(&bytes).await?;
                        to.flush().await
                    };
                    // A process that has closed its input ends only this direction: the rest is passed over.
                    if written.await.is_err() {
                        (self.to, self.open) = (None, None);
                    }
                }
                Frame::End { channel: Channel::Input } => {
                    if let Some(mut to) = self.to.take() {
                        let _ = to.shutdown().await;
                    }
                    self.open = None;
                }
                Frame::Resize { width, height } => {
                    if let Some(sizes) = &self.sizes {
                        // Only the newest counts; a full queue means that one is on its way.
                        let _ = sizes.try_send(TerminalSize { width, height });
                    }
                }
                Frame::Beat => {}
                Frame::Data { .. } | Frame::End { .. } | Frame::Outcome { .. } | Frame::Broken { .. } => {
                    return Err(astray());
                }
            }
        }
        Ok(())
    }
}
