//! What the operator's commands ask a running node, over a socket in its data directory that only its
//! owner may open: one connection, one question, one answer, each a line of JSON that names its version.

use crate::backend::Node;
use crate::cells::{self, CellReport, FailedReport, of_cell, of_failed};
use crate::cli::exit::Exit;
use crate::config::Pods;
use crate::driver::Driver;
use crate::expel::{self, Expelled};
use crate::invite::{Asked, Invited, invite};
use crate::leave::{self, End, Round};
use crate::nodes::{self, NodesReport};
use ::mesh::Mesh;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The version of questions and answers. What is added to either is no new version.
const VERSION: u32 = 1;
/// A question is at most this long.
const QUESTION_BYTES_MAX: u64 = 64 << 10;
/// An answer is at most this long: a cell takes some 300 bytes of it.
pub(crate) const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Connections at once; one more waits until one of them has its answer.
const AT_ONCE: usize = 16;
/// For a question to come, and for an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question or an answer on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Said<T> {
    version: u32,
    #[serde(flatten)]
    pub(crate) what: T,
}

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Question {
    /// How the node is.
    Report,
    /// A ticket.
    Invite(Asked),
    /// Who belongs to the mesh.
    Nodes,
    /// The cells it keeps.
    Cells,
    /// That another node be expelled.
    Expel(expel::Asked),
    /// That this node do what can be done now to leave, or stay after all.
    Leave(leave::Asked),
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    /// How the node is.
    Report(Box<Report>),
    /// A ticket.
    Invited(Invited),
    /// Who belongs to the mesh.
    Nodes(Box<NodesReport>),
    /// The cells it keeps, and those it could not start.
    Cells {
        /// The cells.
        cells: Vec<CellReport>,
        /// What it holds and could not start.
        failed: Vec<FailedReport>,
    },
    /// A node is expelled.
    Expelled(Box<Expelled>),
    /// How far this node is with leaving.
    Leaving(Round),
    /// It was not done.
    Refused {
        /// The exit code of the command that asked.
        exit: u8,
        /// Why, for people.
        why: String,
    },
}

/// A question or an answer as a line.
///
/// # Errors
/// If it cannot be written as JSON.
pub(crate) fn line<T: Serialize + Clone>(what: &T) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Said { version: VERSION, what: what.clone() })?;
    line.push(b'\n');
    Ok(line)
}

/// The question of a line.
fn asked(line: &[u8]) -> Result<Question, Answer> {
    let refused = |why: &str| Answer::Refused { exit: Exit::Failed as u8, why: why.to_owned() };
    // The version first: of a newer one nothing else is to be read.
    let version = serde_json::from_slice::<serde_json::Value>(line).ok().and_then(|v| v["version"].as_u64());
    match version {
        Some(v) if v > u64::from(VERSION) => Err(refused(
            "the node is of an older release than the command: start the newer one, or use the older command",
        )),
        Some(_) => serde_json::from_slice::<Said<Question>>(line)
            .map(|said| said.what)
            .map_err(|_| refused("the node does not know this question: is it of another release than the command?")),
        None => Err(refused("the question cannot be read: is the command of another release than the node?")),
    }
}

/// What a node says of itself. Fields are only ever added.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// The release.
    pub(crate) version: String,
    /// The node's name.
    pub(crate) name: String,
    /// Its id.
    pub(crate) node_id: String,
    /// The mesh.
    pub(crate) trust_domain: String,
    /// What it may do.
    #[serde(default)]
    pub(crate) roles: String,
    /// Where its API listens.
    pub(crate) api: String,
    /// Where its transport listens (UDP).
    #[serde(default)]
    pub(crate) mesh: Vec<String>,
    /// Nodes it has a link to.
    #[serde(default)]
    pub(crate) links: usize,
    /// The process.
    pub(crate) pid: u32,
    /// How long it has been up.
    pub(crate) up_seconds: u64,
    /// Whether the log's disk has room for all writes.
    pub(crate) disk_space: bool,
    /// Watches open at its gateway.
    pub(crate) watchers: usize,
    /// The cells it keeps.
    pub(crate) cells: Vec<CellReport>,
    /// The cells it holds and could not start.
    pub(crate) failed: Vec<FailedReport>,
    /// Who runs its pods: `none`, `containerd`, or `cri:` and a socket.
    #[serde(default)]
    pub(crate) runtime: Option<String>,
    /// From when on its SVID is good, by RFC 3339.
    #[serde(default)]
    pub(crate) svid_from: Option<String>,
    /// Until when its SVID is good, by RFC 3339.
    #[serde(default)]
    pub(crate) svid_to: Option<String>,
}

/// Where a node's socket is.
pub(crate) fn socket(data: &Path) -> PathBuf {
    data.join("admin.sock")
}

/// Whom questions are about.
pub(crate) struct About {
    /// The machines.
    pub(crate) driver: Arc<Driver>,
    /// What stands behind the gateway.
    pub(crate) backend: Arc<Node>,
    /// The transport.
    pub(crate) mesh: Arc<Mesh>,
    /// Addresses the operator named.
    pub(crate) advertised: Vec<SocketAddr>,
    /// Where the API listens.
    pub(crate) api: SocketAddr,
    /// The node's name.
    pub(crate) name: String,
    /// Who runs its pods.
    pub(crate) pods: Pods,
    /// To whoever runs it: it leaves.
    pub(crate) leave: mpsc::Sender<End>,
}

/// Answers until stopped.
///
/// # Errors
/// If the socket cannot be made.
pub(crate) fn serve(data: &Path, about: About, mut stopped: watch::Receiver<bool>) -> Result<JoinHandle<()>> {
    let path = socket(data);
    // The directory is locked: a socket that is there is a dead process's.
    let _ = std::fs::remove_file(&path);
    let listener =
        tokio::net::UnixListener::bind(&path).with_context(|| format!("making the socket {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("closing {} to others", path.display()))?;
    let (since, about) = (Instant::now(), Arc::new(about));
    let places = Arc::new(Semaphore::new(AT_ONCE));
    Ok(tokio::spawn(async move {
        loop {
            let next = async {
                let place = places.clone().acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                next = next => next,
                _ = stopped.changed() => break,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors: a pause keeps this from becoming a busy loop.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let about = about.clone();
            tokio::spawn(async move {
                let _place = place;
                about.answer(stream, since).await;
            });
        }
        let _ = std::fs::remove_file(&path);
    }))
}

impl About {
    async fn answer(&self, mut stream: UnixStream, since: Instant) {
        let (read, mut write) = stream.split();
        let mut question = Vec::new();
        let mut from = BufReader::new(read.take(QUESTION_BYTES_MAX));
        // A client that asks nothing, or does not read its answer, is not waited for.
        let came = timeout(PATIENCE, from.read_until(b'\n', &mut question)).await;
        if !matches!(came, Ok(Ok(_))) {
            return;
        }
        let answer = match asked(&question) {
            Ok(Question::Report) => Answer::Report(Box::new(self.report(since))),
            Ok(Question::Invite(asked)) => match invite(&self.backend, &self.mesh, &self.advertised, &asked).await {
                Ok(made) => Answer::Invited(made),
                Err((exit, why)) => Answer::Refused { exit: exit as u8, why },
            },
            Ok(Question::Nodes) => Answer::Nodes(Box::new(nodes::nodes(&self.backend, &self.mesh, &self.name).await)),
            Ok(Question::Cells) => Answer::Cells {
                cells: cells::cells(&self.backend, &self.name),
                failed: self.driver.failed().into_iter().map(of_failed).collect(),
            },
            Ok(Question::Expel(asked)) => match expel::expel(&self.backend, &self.mesh, &asked).await {
                Ok(done) => Answer::Expelled(Box::new(done)),
                Err((exit, why)) => Answer::Refused { exit: exit as u8, why },
            },
            Ok(Question::Leave(asked)) => match leave::round(self, asked).await {
                Ok(round) => Answer::Leaving(round),
                Err((exit, why)) => Answer::Refused { exit: exit as u8, why },
            },
            Err(refused) => refused,
        };
        let bytes = line(&answer).unwrap_or_default();
        let _ = timeout(PATIENCE, write.write_all(&bytes)).await;
    }

    fn report(&self, since: Instant) -> Report {
        let identity = self.backend.identity();
        let svid = identity.svid();
        Report {
            version: env!("CARGO_PKG_VERSION").into(),
            name: self.name.clone(),
            node_id: identity.node_id().to_string(),
            trust_domain: identity.trust_domain().to_string(),
            roles: identity.roles().to_string(),
            api: self.api.to_string(),
            mesh: self.mesh.bound().iter().map(SocketAddr::to_string).collect(),
            links: self.mesh.peers().len(),
            pid: std::process::id(),
            up_seconds: since.elapsed().as_secs(),
            disk_space: self.driver.has_space(),
            watchers: self.driver.watchers(),
            cells: self.driver.all().iter().map(|c| c.look(of_cell)).collect(),
            failed: self.driver.failed().into_iter().map(of_failed).collect(),
            runtime: Some(match &self.pods {
                Pods::None => "none".to_owned(),
                Pods::Containerd => "containerd".to_owned(),
                Pods::Cri(socket) => format!("cri:{}", socket.display()),
            }),
            svid_from: svid.as_ref().map(|own| own.lifetime.not_before.rfc3339()),
            svid_to: svid.map(|own| own.lifetime.not_after.rfc3339()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn questions_name_their_version_and_what_is_not_known_is_told() {
        let invite = Question::Invite(Asked { ttl_seconds: 60, reusable: false, roles: "keeper".into() });
        assert_eq!(line(&Question::Report).unwrap(), b"{\"version\":1,\"report\":null}\n");
        assert!(matches!(asked(&line(&Question::Report).unwrap()), Ok(Question::Report)));
        assert!(matches!(asked(&line(&invite).unwrap()), Ok(Question::Invite(a)) if a.roles == "keeper"));
        for (bad, words) in [
            (&b""[..], "cannot be read"),
            (b"{}\n", "cannot be read"),
            (b"{\"version\":2,\"dance\":{}}\n", "older release"),
            (b"{\"version\":1,\"dance\":{}}\n", "does not know"),
        ] {
            let refused = asked(bad).unwrap_err();
            assert!(matches!(&refused, Answer::Refused { exit: 1, why } if why.contains(words)), "{refused:?}");
        }
    }
}
