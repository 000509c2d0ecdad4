//! The port: what the gateway asks of the rest of the program, as values.
//!
//! The gateway speaks HTTP and has no opinions. Who may do what, what an object becomes, what a watch
//! sees: all that is decided behind [`Backend`], and comes back ready to be written.

use crate::catalogue::Catalogue;
use base::Revision;
use bytes::Bytes;
use objects::Tree;
pub use objects::decision::{Answer, Payload};
use objects::kinds::Kind;
use objects::read::ListAnswer;
use objects::request::{Request, User};
use objects::status::Status;
use objects::views;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// A future behind a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A refusal.
pub type Refusal = Box<Status>;

/// How many events may wait for one slow watch client before its watch is ended.
///
/// 100 is what kube-apiserver's watch cache gives one watcher at most by default for busy kinds, times ten.
pub const WATCH_BUFFER: usize = 1000;

/// The rest of the program, as the gateway sees it. Implemented by the program that composes it, and by a
/// small map in this crate's tests.
pub trait Backend: Send + Sync + 'static {
    /// The resources served now. The same `Arc` as long as nothing has changed, for documents are cached
    /// by it.
    fn catalogue(&self) -> Arc<Catalogue>;

    /// Decides a request that is no watch and no stream.
    fn decide(&self, request: Request) -> BoxFuture<'_, Result<Reply, Refusal>>;

    /// Opens a watch. The answer's events end when the watch must be resumed: its buffer ran over, its
    /// leader changed, its grant ended.
    fn watch(&self, request: Request) -> BoxFuture<'_, Result<Watch, Refusal>>;

    /// Opens exec, attach, port-forward or log on a pod.
    fn connect(&self, request: Request, ask: Connect) -> BoxFuture<'_, Result<Connected, Refusal>>;

    /// May the user of a watch or stream that is open still have it? Asked from time to time, with the
    /// request that opened it. 403 ends it; any other refusal says that it cannot be told now.
    fn still<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<(), Refusal>>;

    /// The user a bearer token stands for. 401 if it stands for nobody; another refusal if that cannot be
    /// told now (clients give up a credential that is answered with 401, and repeat the others).
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<User, Refusal>>;

    /// May `real` act as `wanted`? A refusal is sent as it is.
    fn impersonate<'a>(&'a self, real: &'a User, wanted: &'a User) -> BoxFuture<'a, Result<(), Refusal>>;

    /// May this user do this with a path that is no resource (`/metrics`)? The verb is the method in
    /// lower case.
    fn authorize_path<'a>(&'a self, user: &'a User, verb: &'a str, path: &'a str)
    -> BoxFuture<'a, Result<(), Refusal>>;

    /// `/version`.
    fn version(&self) -> Version;

    /// The checks behind `/healthz`, `/livez` and `/readyz`, in the order printed.
    fn checks(&self, probe: Probe) -> Vec<Check>;

    /// `/metrics`, in Prometheus' text format.
    fn metrics(&self) -> String;

    /// The paths with an OpenAPI v3 document (`api/v1`, `apis/apps/v1`) and each document's hash.
    fn openapi_index(&self) -> Vec<(String, String)>;

    /// An OpenAPI v3 document as JSON; `None` if the path has none.
    fn openapi(&self, path: &str) -> Option<Document>;

    /// The OpenAPI v2 document, if one is kept.
    fn openapi_v2(&self) -> Option<Document> {
        None
    }

    /// Issuer of ServiceAccount tokens, the address of the key set, and the key set (JWKS) as JSON.
    fn token_keys(&self) -> TokenKeys;
}

/// What a decision answers.
pub enum Reply {
    /// One body: an object, a Status of success, a review.
    One(Answer),
    /// A list, written on the connection's task.
    List(List),
}

/// A list's snapshot. Nothing is held for it but what `items` holds.
pub struct List {
    /// `metadata.resourceVersion`.
    pub revision: Revision,
    /// `metadata.continue`; empty at the end.
    pub continue_token: String,
    /// `metadata.remainingItemCount`, where it is known.
    pub remaining: Option<u64>,
    /// Texts for Warning headers.
    pub warnings: Vec<String>,
    /// The objects' bytes in the version asked for, `kind` and `apiVersion` first.
    pub items: Box<dyn Items>,
}

impl List {
    /// What a [`objects::read::ListPlan`] found, in the version of `kind`.
    ///
    /// Of a list that its client reads slowly no more is held than the objects it names, and each only until it is
    /// written: never the state around them, which goes on and would be kept whole.
    pub fn of<K: AsRef<[u8]> + Send + 'static>(
        kind: &'static Kind,
        answer: ListAnswer<K>,
        warnings: Vec<String>,
    ) -> List {
        List {
            revision: answer.revision,
            continue_token: answer.continue_token,
            remaining: answer.remaining,
            warnings,
            items: Box::new(Held { kind, is_view: views::is_view(kind), held: answer.items.into_iter() }),
        }
    }
}

/// Objects one after the other, each lent while it is written: counting that somebody holds its bytes, and again that
/// nobody does, costs as much as to write them.
pub trait Items: Send {
    /// Hands out the next one; false if there is none.
    fn write_next(&mut self, write: &mut dyn FnMut(&[u8])) -> bool;
}

impl<I: Iterator<Item = Bytes> + Send> Items for I {
    fn write_next(&mut self, write: &mut dyn FnMut(&[u8])) -> bool {
        self.next().map(|json| write(&json)).is_some()
    }
}

/// So many objects ahead of the one that is written the memory of the next is asked for: as far as a few copies take as
/// long as it takes to come.
const AHEAD: usize = 6;

/// What a list has kept, in the version of a kind.
struct Held<K> {
    kind: &'static Kind,
    is_view: bool,
    held: std::vec::IntoIter<K>,
}

impl<K: AsRef<[u8]> + Send> Items for Held<K> {
    fn write_next(&mut self, write: &mut dyn FnMut(&[u8])) -> bool {
        let Some(kept) = self.held.next() else { return false };
        // Each object lies where it came to lie in memory, and to wait for the first bytes of each in its turn takes
        // as long as to copy it. Nothing waits for this byte.
        if let Some(coming) = self.held.as_slice().get(AHEAD) {
            std::hint::black_box(coming.as_ref().first());
        }
        match self.is_view {
            true => write(&views::converted(self.kind, kept.as_ref())),
            false => write(kept.as_ref()),
        }
        true
    }
}

/// A watch that is open.
pub struct Watch {
    /// State to be sent before anything that happens, if the request asks for it.
    pub initial: Option<Box<dyn Iterator<Item = Bytes> + Send>>,
    /// Set if a bookmark that says `k8s.io/initial-events-end` follows the state: its revision.
    pub initial_end: Option<Revision>,
    /// What happens. The sender must never wait: with `try_send`, it ends the watch (drops itself) when
    /// the buffer of [`WATCH_BUFFER`] is full, and the client resumes.
    pub events: mpsc::Receiver<Event>,
    /// Texts for Warning headers.
    pub warnings: Vec<String>,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub enum Event {
    /// An object is there that was not, or that did not match.
    Added(Bytes),
    /// An object is another.
    Modified(Bytes),
    /// An object is gone, or does not match any more.
    Deleted(Bytes),
    /// Nothing at or below this revision is still to come.
    Bookmark(Revision),
    /// A Status (410 Expired, …); the watch ends after it.
    Error(Refusal),
}

/// What a stream is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Connect {
    /// `exec` or `attach`.
    Remote(Remote),
    /// `portforward`: the ports named in the URL; SPDY clients name theirs stream by stream instead.
    PortForward {
        /// Ports.
        ports: Vec<u16>,
    },
    /// `log`.
    Log(LogOptions),
}

/// `PodExecOptions` and `PodAttachOptions`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Remote {
    /// Attach to what runs, instead of running something.
    pub attach: bool,
    /// Container; empty means the default one.
    pub container: String,
    /// What to run; empty when attaching.
    pub command: Vec<String>,
    /// The client sends standard input.
    pub stdin: bool,
    /// The client wants standard output.
    pub stdout: bool,
    /// The client wants standard error.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

/// `PodLogOptions`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogOptions {
    /// Container; empty means the only one.
    pub container: String,
    /// Go on as lines come.
    pub follow: bool,
    /// Of the container's previous life.
    pub previous: bool,
    /// Only what is younger than this.
    pub since_seconds: Option<i64>,
    /// Only what is younger than this moment (RFC 3339).
    pub since_time: String,
    /// A time before every line.
    pub timestamps: bool,
    /// Only so many last lines.
    pub tail_lines: Option<i64>,
    /// At most so many bytes.
    pub limit_bytes: Option<i64>,
    /// `All`, `Stdout`, `Stderr`; empty means `All`.
    pub stream: String,
}

/// The other end of a stream that is open.
pub enum Connected {
    /// A process's channels.
    Remote(RemoteEnd),
    /// Where forwarded connections go.
    PortForward(Arc<dyn Dial>),
    /// A log's bytes.
    Log(mpsc::Receiver<std::io::Result<Bytes>>),
}

/// The channels of a process that runs. Those not asked for are `None`.
pub struct RemoteEnd {
    /// Its standard input; shutting it down tells the process that no more comes.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Its standard output.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Its standard error.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Takes the terminal's sizes.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// How it ended: a Status (`Success`, or `Failure` with reason `NonZeroExitCode` and the code as a cause).
    pub outcome: BoxFuture<'static, Tree>,
}

/// A terminal's size in cells, as clients send it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A connection as two-way bytes.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Opens connections to a pod's ports.
pub trait Dial: Send + Sync {
    /// A connection to `port` of the pod.
    fn dial(&self, port: u16) -> BoxFuture<'_, std::io::Result<Box<dyn Duplex>>>;
}

/// `/version`.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // they are the fields of version.Info
pub struct Version {
    pub major: String,
    pub minor: String,
    pub emulation_major: String,
    pub emulation_minor: String,
    pub min_compatibility_major: String,
    pub min_compatibility_minor: String,
    pub git_version: String,
    pub git_commit: String,
    pub git_tree_state: String,
    pub build_date: String,
    pub go_version: String,
    pub compiler: String,
    pub platform: String,
}

/// Which of the three health paths is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// `/healthz`.
    Health,
    /// `/livez`.
    Live,
    /// `/readyz`.
    Ready,
}

/// One health check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// `ping`, `log`, …
    pub name: &'static str,
    /// Whether it passes.
    pub ok: bool,
}

/// A document and its hash, which is its ETag.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    /// JSON.
    pub json: Bytes,
    /// Hex digits.
    pub hash: String,
}

/// What verifiers of ServiceAccount tokens fetch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenKeys {
    /// `iss`.
    pub issuer: String,
    /// Where the key set is.
    pub jwks_uri: String,
    /// The key set.
    pub jwks: Bytes,
}
