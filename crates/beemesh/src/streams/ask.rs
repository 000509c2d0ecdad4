//! At the gateway: the client's end of a stream of a pod that another node runs.

use super::frames::{Frames, Held, LAST_WORDS_WITHIN, QUEUE, astray, say, speak, tell, tell_all};
use super::{log_written, remote_written};
use crate::backend::Node;
use crate::driver::work::Work;
use crate::membership as kept;
use crate::net::POD;
use ::mesh::{Mesh, OpenError, StreamReceiver, StreamSender};
use api::port::{BoxFuture, Connect, Connected, Dial, Duplex, Refusal, Remote, RemoteEnd, TerminalSize};
use base::NodeId;
use bytes::Bytes;
use node::wire::pod::{Answer, Ask, Channel, DATA_BYTES_MAX, FRAME_BYTES_MAX, Frame, QUESTION_BYTES_MAX, Question};
use objects::Tree;
use objects::membership::Member;
use objects::status::Status;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long root is asked where a node is; after that what is known has to do.
const ROOT_WITHIN: Duration = Duration::from_secs(5);
/// How long the pod's node has to answer: it asks its runtime.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Bytes of a channel that wait between the client's end and the stream.
const PIPE_BYTES: usize = DATA_BYTES_MAX;
/// Terminal sizes that wait.
const SIZES: usize = 4;

/// What is needed to find a node.
pub(crate) struct Way<'a> {
    /// Asks root.
    pub(crate) backend: &'a Node,
    /// Knows the hive's Nodes.
    pub(crate) work: &'a Work,
    /// Goes there.
    pub(crate) mesh: &'a Arc<Mesh>,
}

/// Opens a stream of a pod that is bound to another node, whose name that is.
pub(crate) async fn connect(way: &Way<'_>, node: &str, pod: &Tree, ask: Connect) -> Result<Connected, Refusal> {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
    let id = way.find(node).await?;
    let there = There {
        mesh: way.mesh.clone(),
        id,
        node: node.to_owned(),
        namespace: text("namespace"),
        name: text("name"),
        uid: text("uid"),
    };
    Ok(match ask {
        Connect::Remote(ask) => {
            let (frames, send) = there.open(Ask::Remote(remote_written(&ask))).await?;
            Connected::Remote(remote(&ask, there.named(), frames, send))
        }
        Connect::Log(options) => {
            let (frames, send) = there.open(Ask::Log(log_written(options))).await?;
            Connected::Log(log(there.named(), frames, send))
        }
        Connect::PortForward { .. } => {
            there.open(Ask::Ports).await?;
            Connected::PortForward(Arc::new(there))
        }
    })
}

impl Way<'_> {
    /// The machine behind a Node, and that the transport knows where it is.
    async fn find(&self, node: &str) -> Result<NodeId, Refusal> {
        let known = self.work.machine(node);
        if let Some(id) = known
            && self.mesh.peer(id).is_some()
        {
            return Ok(id);
        }
        // There is no link, and where a node is only root is told.
        let asked = timeout(ROOT_WITHIN, kept::get(self.backend, "Member", node)).await;
        let why = match asked {
            Ok(Ok(Some(member))) => match Member::of(&member) {
                Some(member) => {
                    self.mesh.hint(member.node, &member.addresses);
                    return Ok(member.node);
                }
                None => "root's record of it cannot be read".to_owned(),
            },
            Ok(Ok(None)) => "root knows no member of that name".to_owned(),
            Ok(Err(status)) => format!("root could not be asked where it is: {}", status.message),
            Err(_) => "root, which knows where it is, is not in reach".to_owned(),
        };
        known.ok_or_else(|| unreached(node, &why))
    }
}

/// 503: the pod's node is not to be had.
fn unreached(node: &str, why: &str) -> Refusal {
    Box::new(Status::unavailable(&format!(
        "the pod is on node {node}, which this node does not reach: {why}. Nothing was begun; try again, or ask at node {node} itself"
    )))
}

/// A pod on another node.
struct There {
    mesh: Arc<Mesh>,
    id: NodeId,
    node: String,
    namespace: String,
    name: String,
    uid: String,
}

impl There {
    /// What broken streams are told by.
    fn named(&self) -> String {
        format!("node {}, which runs pod {}/{}", self.node, self.namespace, self.name)
    }

    async fn open(&self, ask: Ask) -> Result<(Frames<StreamReceiver>, StreamSender), Refusal> {
        let streams = self.mesh.open(self.id, POD).await.map_err(|why| {
            let why = match why {
                OpenError::NotSpoken { .. } => {
                    "it runs a release of beemesh that serves its own gateway only: update it".to_owned()
                }
                other => other.to_string(),
            };
            unreached(&self.node, &why)
        })?;
        let question =
            Question { namespace: self.namespace.clone(), name: self.name.clone(), uid: self.uid.clone(), ask };
        let (mut frames, mut send) = (Frames::new(streams.receive, FRAME_BYTES_MAX), streams.send);
        begin(&self.node, &question, &mut frames, &mut send).await?;
        Ok((frames, send))
    }
}

impl Dial for There {
    fn dial(&self, port: u16) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
        Box::pin(async move {
            let opened = self.open(Ask::Port(port)).await;
            let (frames, send) = opened.map_err(|status| io::Error::other(status.message))?;
            Ok(Box::new(connection(self.named(), frames, send)) as Box<dyn Duplex>)
        })
    }
}

/// Asks the question, and returns if it is granted.
pub(super) async fn begin<R, W>(
    node: &str,
    question: &Question,
    frames: &mut Frames<R>,
    send: &mut W,
) -> Result<(), Refusal>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let question = question.encode();
    if question.len() > QUESTION_BYTES_MAX {
        let why = format!("a command of {} bytes was not sent: {QUESTION_BYTES_MAX} are the most", question.len());
        return Err(Box::new(Status::too_large(&why)));
    }
    let answer = async {
        // One that refuses whatever is asked does not listen; its answer says so.
        let _ = say(send, &question).await;
        frames.next().await
    };
    let lost = |why: &str| {
        Box::new(Status::unavailable(&format!(
            "node {node}, where the pod is, {why}: whether what was asked for was begun there is not known, and its end was lost; try again"
        )))
    };
    match timeout(ANSWER_WITHIN, answer).await {
        Ok(Ok(Some(answer))) => match Answer::decode(&answer) {
            Ok(Answer::Accepted) => Ok(()),
            Ok(Answer::Refused(status)) if !status.success && (400..600).contains(&status.code) => Err(status),
            Ok(Answer::Refused(_)) => Err(lost("refused with a success")),
            Err(why) => Err(lost(&format!("answered what cannot be read ({why})"))),
        },
        Ok(Ok(None)) => Err(lost("ended the stream without an answer")),
        Ok(Err(why)) => Err(lost(&format!("was lost ({why})"))),
        Err(_) => Err(lost(&format!("did not answer within {} s", ANSWER_WITHIN.as_secs()))),
    }
}

/// Resolves when the client's end is gone.
#[derive(Clone)]
struct Gone(watch::Receiver<()>);

impl Gone {
    /// What the client's end holds, and what tells that it is dropped.
    fn new() -> (watch::Sender<()>, Gone) {
        let (held, gone) = watch::channel(());
        (held, Gone(gone))
    }

    async fn wait(mut self) {
        // Nothing is ever sent.
        while self.0.changed().await.is_ok() {}
    }
}

/// Ends with whoever began it.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Says what the client does, and when it is gone that nothing more comes.
fn speaking<W>(send: W, input: Option<DuplexStream>, sizes: Option<mpsc::Receiver<TerminalSize>>, gone: Gone) -> Task
where
    W: AsyncWrite + Send + Unpin + 'static,
{
    let (to, said) = mpsc::channel(QUEUE);
    Task(tokio::spawn(async move {
        let telling = async move {
            let resizing = async {
                let Some(mut sizes) = sizes else { return Ok(()) };
                while let Some(TerminalSize { width, height }) = sizes.recv().await {
                    tell(&to, Frame::Resize { width, height }).await?;
                }
                Ok(())
            };
            tokio::try_join!(tell_all(input, Channel::Input, &to), resizing)?;
            // An end of this direction says that nobody is there any more, and an end of input does not.
            gone.wait().await;
            Ok(())
        };
        // One that takes nothing more may still have to say why.
        let _ = tokio::try_join!(telling, speak(said, send));
    }))
}

/// Where what comes from the pod goes.
struct Outputs {
    output: Option<DuplexStream>,
    error: Option<DuplexStream>,
}

/// The last there was to hear.
enum Last {
    /// How the process ended.
    Outcome(Tree),
    /// Why it could not go on.
    Broken(String),
    /// The node had nothing more to say.
    End,
}

impl Outputs {
    /// Hands on what the pod's node says.
    ///
    /// # Errors
    /// It broke off, or sent what no node sends.
    async fn listen<R: AsyncRead + Unpin>(&mut self, frames: &mut Frames<R>) -> io::Result<Last> {
        while let Some(frame) = frames.frame().await? {
            match frame {
                Frame::Data { channel, bytes } => {
                    let to = self.of(channel)?;
                    if let Some(open) = to
                        && open.write_all(&bytes).await.is_err()
                    {
                        // Nobody reads it; the rest is passed over.
                        *to = None;
                    }
                }
                Frame::End { channel } => {
                    if let Some(mut to) = self.of(channel)?.take() {
                        let _ = to.shutdown().await;
                    }
                }
                Frame::Outcome { status } => return Ok(Last::Outcome(status)),
                Frame::Broken { why } => return Ok(Last::Broken(why)),
                Frame::Beat => {}
                Frame::Resize { .. } => return Err(astray()),
            }
        }
        Ok(Last::End)
    }

    fn of(&mut self, channel: Channel) -> io::Result<&mut Option<DuplexStream>> {
        match channel {
            Channel::Output => Ok(&mut self.output),
            Channel::Error => Ok(&mut self.error),
            Channel::Input => Err(astray()),
        }
    }
}

/// Both ends of a channel, if it is wanted: the client's and the stream's.
fn pipe(wanted: bool) -> (Option<DuplexStream>, Option<DuplexStream>) {
    if wanted {
        let (here, there) = duplex(PIPE_BYTES);
        return (Some(here), Some(there));
    }
    (None, None)
}

/// A process on another node, `named` for people.
pub(super) fn remote<R, W>(ask: &Remote, named: String, mut frames: Frames<R>, send: W) -> RemoteEnd
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let (stdin, input) = pipe(ask.stdin);
    let (stdout, output) = pipe(ask.stdout);
    let (stderr, error) = pipe(ask.stderr && !ask.tty);
    let (resize, sizes) = ask.tty.then(|| mpsc::channel(SIZES)).unzip();
    let (held, gone) = Gone::new();
    let (told, outcome) = oneshot::channel();
    tokio::spawn(async move {
        let mut speaking = speaking(send, input, sizes, gone.clone());
        let mut outputs = Outputs { output, error };
        let last = tokio::select! {
            last = outputs.listen(&mut frames) => last,
            () = last_words(gone, &mut speaking) => return,
        };
        let lost = |why: &str| lost(&format!("{named}, was lost: {why}. How the process ended is not known"));
        // Whoever went away meanwhile needs no outcome.
        let _ = told.send(match last {
            Ok(Last::Outcome(status)) => status,
            Ok(Last::Broken(why)) => Status::internal(&why).to_tree(),
            Ok(Last::End) => lost("it ended the stream before the process was over"),
            Err(why) => lost(&why.to_string()),
        });
    });
    RemoteEnd {
        stdin: stdin.map(|s| Box::new(s) as _),
        stdout: stdout.map(|s| Box::new(s) as _),
        stderr: stderr.map(|s| Box::new(s) as _),
        resize,
        outcome: Box::pin(async move {
            let _held = held;
            outcome.await.unwrap_or_else(|_| lost("this node is stopping: how the process ended is not known"))
        }),
    }
}

/// Resolves when the client is gone and what it said before is on its way.
async fn last_words(gone: Gone, speaking: &mut Task) {
    gone.wait().await;
    let _ = timeout(LAST_WORDS_WITHIN, &mut speaking.0).await;
}

/// The outcome of a process of which nothing more is heard.
fn lost(message: &str) -> Tree {
    Status::unavailable(message).to_tree()
}

/// A forwarded connection. It ends for the client when it ends there, or is lost.
pub(super) fn connection<R, W>(named: String, mut frames: Frames<R>, send: W) -> impl Duplex + 'static
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    // A pipe for each direction: one that ends leaves the other.
    let ((reads, output), (writes, input)) = (duplex(PIPE_BYTES), duplex(PIPE_BYTES));
    let (held, gone) = Gone::new();
    tokio::spawn(async move {
        let mut speaking = speaking(send, Some(input), None, gone.clone());
        let mut outputs = Outputs { output: Some(output), error: None };
        let why = tokio::select! {
            last = outputs.listen(&mut frames) => match last {
                Ok(Last::End) => return,
                Ok(Last::Broken(why)) => why,
                Ok(Last::Outcome(_)) => astray().to_string(),
                Err(why) => why.to_string(),
            },
            () = last_words(gone, &mut speaking) => return,
        };
        tracing::debug!(why, "{named}, was lost: a forwarded connection has broken");
    });
    Held(tokio::io::join(reads, writes), held)
}

/// A log on another node.
pub(super) fn log<R, W>(named: String, mut frames: Frames<R>, send: W) -> mpsc::Receiver<io::Result<Bytes>>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let (to, log) = mpsc::channel(1);
    tokio::spawn(async move {
        // Held as long as this runs: it has nothing to say but that it is there.
        let (_held, gone) = Gone::new();
        let _speaking = speaking(send, None, None, gone);
        let end = tokio::select! {
            end = pieces(&mut frames, &to) => end,
            // Whoever read it is gone: nobody wants the rest.
            () = to.closed() => return,
        };
        if let Err(why) = end {
            tracing::info!(%why, "{named}, was lost: the log ends before its time");
            let _ = to.send(Err(io::Error::new(why.kind(), format!("{named}, was lost: {why}")))).await;
        }
    });
    log
}

async fn pieces<R: AsyncRead + Unpin>(frames: &mut Frames<R>, to: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    while let Some(frame) = frames.frame().await? {
        match frame {
            Frame::Data { channel: Channel::Output, bytes } => {
                if to.send(Ok(bytes)).await.is_err() {
                    return Ok(());
                }
            }
            Frame::End { channel: Channel::Output } => return Ok(()),
            Frame::Broken { why } => return Err(io::Error::other(why)),
            Frame::Beat => {}
            _ => return Err(astray()),
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
