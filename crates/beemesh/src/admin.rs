//! What `beemesh status` and `beemesh cells` ask a running node, over a socket in its data directory that
//! only its owner may open: one connection, one JSON document.

use crate::backend::Node;
use crate::driver::Driver;
use anyhow::{Context, Result};
use base::CellId;
use node::cell::{Cell, Role};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

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
    /// Where its API listens.
    pub(crate) api: String,
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
}

/// What it says of a cell that could not be started: what the cell holds stays as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FailedReport {
    /// The cell's id.
    pub(crate) id: String,
    /// `root`, `registry` or `namespace`.
    pub(crate) role: String,
    /// The namespace's name.
    pub(crate) namespace: String,
    /// What is wrong with it.
    pub(crate) why: String,
}

/// What it says of a cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CellReport {
    /// The cell's id.
    pub(crate) id: String,
    /// `root`, `registry` or `namespace`.
    pub(crate) role: String,
    /// The namespace's name.
    pub(crate) namespace: String,
    /// `leader`, `follower`, `candidate`.
    pub(crate) part: String,
    /// How many vote.
    pub(crate) voters: usize,
    /// Raft's term.
    pub(crate) term: u64,
    /// The last entry committed.
    pub(crate) commit: u64,
    /// The last entry applied.
    pub(crate) applied: u64,
    /// Its newest revision.
    pub(crate) revision: u64,
    /// How many objects it holds.
    pub(crate) objects: usize,
    /// Bytes of them.
    pub(crate) bytes: u64,
    /// Requests that wait for it.
    pub(crate) waiting: usize,
}

/// Where a node's socket is.
pub(crate) fn socket(data: &Path) -> PathBuf {
    data.join("admin.sock")
}

/// Answers until stopped.
///
/// # Errors
/// If the socket cannot be made.
pub(crate) fn serve(
    data: &Path,
    driver: Arc<Driver>,
    backend: Arc<Node>,
    api: SocketAddr,
    name: String,
    mut stopped: watch::Receiver<bool>,
) -> Result<JoinHandle<()>> {
    let path = socket(data);
    // The directory is locked: a socket that is there is a dead process's.
    let _ = std::fs::remove_file(&path);
    let listener =
        tokio::net::UnixListener::bind(&path).with_context(|| format!("making the socket {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("closing {} to others", path.display()))?;
    let since = Instant::now();
    Ok(tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                a = listener.accept() => a,
                _ = stopped.changed() => break,
            };
            let Ok((mut stream, _)) = accepted else {
                // Out of descriptors: a pause keeps this from becoming a busy loop.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let report = Report {
                version: env!("CARGO_PKG_VERSION").into(),
                name: name.clone(),
                node_id: backend.identity().node_id().to_string(),
                trust_domain: backend.identity().trust_domain().to_string(),
                api: api.to_string(),
                pid: std::process::id(),
                up_seconds: since.elapsed().as_secs(),
                disk_space: driver.has_space(),
                watchers: driver.watchers(),
                cells: driver.all().iter().map(|c| c.look(of_cell)).collect(),
                failed: driver.failed().into_iter().map(of_failed).collect(),
            };
            let bytes = serde_json::to_vec(&report).unwrap_or_default();
            // A client that does not read its few kilobytes is not waited for.
            let patience = std::time::Duration::from_secs(5);
            let _ = tokio::time::timeout(patience, stream.write_all(&bytes)).await;
        }
        let _ = std::fs::remove_file(&path);
    }))
}

fn named(role: &Role) -> (&str, &str) {
    match role {
        Role::Root => ("root", ""),
        Role::Registry => ("registry", ""),
        Role::Namespace(name) => ("namespace", name),
    }
}

fn of_failed((id, role, why): (CellId, Role, String)) -> FailedReport {
    let (role, namespace) = named(&role);
    FailedReport { id: id.to_string(), role: role.into(), namespace: namespace.into(), why }
}

fn of_cell(cell: &Cell) -> CellReport {
    let replica = cell.member().replica();
    let (applied, commit) = replica.progress();
    let (role, namespace) = named(&cell.config().role);
    let part = match replica.role() {
        agree::raft::Role::Leader => "leader",
        agree::raft::Role::Candidate => "candidate",
        agree::raft::Role::Follower { .. } => "follower",
    };
    CellReport {
        id: cell.config().cell.to_string(),
        role: role.into(),
        namespace: namespace.into(),
        part: part.into(),
        voters: replica.members().voters.len(),
        term: replica.term(),
        commit,
        applied,
        revision: cell.state().revision().get(),
        objects: cell.state().len(),
        bytes: cell.state().bytes(),
        waiting: cell.waiting(),
    }
}
