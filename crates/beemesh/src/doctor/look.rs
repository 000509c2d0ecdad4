//! Looking at a machine: what is read, asked and tried for the checks, and nothing changed but one small file that is
//! removed again.

use super::ports::Port;
use crate::admin::{Answer, Question, Report};
use crate::cli::ask::ask;
use crate::cli::exit::{Exit, code_of};
use crate::driver::clock;
use crate::nodes::NodesReport;
use base::Wall;
use host::containerd::{Binaries, Config};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// How often a small write is tried; the one in the middle counts.
const WRITES: usize = 5;

/// What was looked at.
pub(crate) struct Seen {
    pub(crate) data: PathBuf,
    pub(crate) is_root: bool,
    pub(crate) node: Node,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    pub(crate) ports: Vec<Port>,
    pub(crate) pods: Pods,
}

/// The node of the data directory.
pub(crate) enum Node {
    /// None runs.
    None,
    /// One has the socket and does not answer; why.
    Silent(String),
    /// What it says.
    Runs(Box<Running>),
}

/// What a running node says.
pub(crate) struct Running {
    pub(crate) report: Report,
    pub(crate) links: Seeing,
    /// By how much the peers' clocks were ahead.
    pub(crate) peers_ahead_ms: Vec<i64>,
}

/// The links of a running node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Seeing {
    pub(crate) dialled_here: usize,
    pub(crate) dialled_there: usize,
    /// Where others are told that it is.
    pub(crate) own_addresses: Vec<String>,
}

/// The clock, and what it is compared with.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    pub(crate) now: Wall,
    /// When this program was put on the disk.
    pub(crate) built: Wall,
    /// When the running node's SVID is good.
    pub(crate) svid: Option<(Wall, Wall)>,
    /// What the system says; `None` if it does not.
    pub(crate) is_synchronised: Option<bool>,
    pub(crate) peers_ahead_ms: Vec<i64>,
}

/// The disk of the data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Disk {
    /// It could not be looked at.
    Unreadable(String),
    /// What was found.
    Read {
        free_bytes: u64,
        all_bytes: u64,
        free_inodes: u64,
        /// How long a small write took to be durable; `None` if there is no directory to write in.
        sync: Option<Result<Duration, String>>,
    },
}

/// What pods need.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pods {
    pub(crate) cgroup_version: u8,
    pub(crate) controllers: Vec<String>,
    /// Where the runtime is, or would be.
    pub(crate) socket: String,
    /// What it answers; `None` if there is no socket.
    pub(crate) answers: Option<Result<String, String>>,
    /// What is not installed, in words.
    pub(crate) missing: Option<String>,
    /// `net.ipv4.ip_forward`.
    pub(crate) forwarding: Option<bool>,
    pub(crate) has_v6: bool,
    /// Why the rules for addresses cannot be read; `None` if they can, or only root could tell.
    pub(crate) iptables: Option<String>,
}

impl Node {
    /// The process, if one runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self {
            Node::Runs(r) => Some(r.report.pid),
            Node::None | Node::Silent(_) => None,
        }
    }

    /// Its links, if one runs.
    pub(crate) fn links(&self) -> Option<&Seeing> {
        match self {
            Node::Runs(r) => Some(&r.links),
            Node::None | Node::Silent(_) => None,
        }
    }
}

/// Looks at everything.
pub(crate) fn look(data: &Path, api: SocketAddr, listen: SocketAddr) -> Seen {
    let node = node(data);
    let is_root = nix::unistd::geteuid().is_root();
    let (mut api, mut listen, mut svid, mut peers_ahead_ms, mut cri) = (api, listen, None, Vec::new(), None);
    if let Node::Runs(r) = &node {
        api = r.report.api.parse().unwrap_or(api);
        listen = r.report.mesh.first().and_then(|a| a.parse().ok()).unwrap_or(listen);
        let good = r.report.svid_from.as_deref().zip(r.report.svid_to.as_deref());
        svid = good.and_then(|(from, to)| Some((Wall::parse_rfc3339(from)?, Wall::parse_rfc3339(to)?)));
        peers_ahead_ms.clone_from(&r.peers_ahead_ms);
        cri = r.report.runtime.as_deref().and_then(|r| r.strip_prefix("cri:")).map(PathBuf::from);
    }
    let clock = Clock { now: clock::wall(), built: built(), svid, is_synchronised: is_synchronised(), peers_ahead_ms };
    Seen {
        data: data.to_owned(),
        is_root,
        clock,
        disk: disk(data),
        ports: vec![Port::look("API port", "--api", api, false), Port::look("mesh port", "--listen", listen, true)],
        pods: pods(data, cri, is_root),
        node,
    }
}

fn node(data: &Path) -> Node {
    let report = match ask(data, &Question::Report) {
        Ok(Answer::Report(report)) => *report,
        Ok(other) => return Node::Silent(format!("the node answered otherwise than was asked: {other:?}")),
        Err(e) if code_of(&e) == Exit::NotRunning => return Node::None,
        Err(e) => return Node::Silent(format!("{e:#}")),
    };
    // A node of an older release does not know this question: then nothing is known of its links.
    let nodes = match ask(data, &Question::Nodes) {
        Ok(Answer::Nodes(nodes)) => *nodes,
        _ => NodesReport::default(),
    };
    let links: Vec<_> = nodes.nodes.iter().filter_map(|n| n.link.as_ref()).collect();
    let own = nodes.nodes.iter().find(|n| n.node_id == report.node_id);
    let dialled_here = links.iter().filter(|l| l.dialed_here).count();
    let seeing = Seeing {
        dialled_here,
        dialled_there: links.len() - dialled_here,
        own_addresses: own.map(|n| n.addresses.clone()).unwrap_or_default(),
    };
    let peers_ahead_ms = links.iter().map(|l| l.clock_ahead_ms).collect();
    Node::Runs(Box::new(Running { report, links: seeing, peers_ahead_ms }))
}

/// When this program's file was last written: the clock was right then, on the machine that wrote it.
fn built() -> Wall {
    let written = fs::metadata("/proc/self/exe").and_then(|m| m.modified());
    let since = written.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(0))
}

/// What systemd-timesyncd says by files (systemd-timesyncd.service(8)); `None` if it does not run.
fn is_synchronised() -> Option<bool> {
    let timesync = Path::new("/run/systemd/timesync");
    timesync.is_dir().then(|| timesync.join("synchronized").exists())
}

fn disk(data: &Path) -> Disk {
    let there = data.is_dir();
    // Of a directory that is still to be made: the file system it would be on.
    let Some(existing) = data.ancestors().find(|dir| dir.is_dir()) else {
        return Disk::Unreadable("no part of this path is there".to_owned());
    };
    match host::facts::disk(existing) {
        Ok(d) => Disk::Read {
            free_bytes: d.bytes_free,
            all_bytes: d.bytes,
            // Some file systems count none.
            free_inodes: if d.inodes == 0 { 1 } else { d.inodes_free },
            sync: there.then(|| sync(data).map_err(|e| e.to_string())),
        },
        Err(e) => Disk::Unreadable(e.to_string()),
    }
}

/// How long a small write takes to be durable.
fn sync(data: &Path) -> io::Result<Duration> {
    let path = data.join(format!(".doctor-{}", std::process::id()));
    let tried = (|| {
        let mut file = File::create(&path)?;
        let mut took = Vec::new();
        for _ in 0..WRITES {
            let start = Instant::now();
            file.write_all(&[0; 512])?;
            file.sync_data()?;
            took.push(start.elapsed());
        }
        took.sort_unstable();
        Ok(took[WRITES / 2])
    })();
    // Nothing is left behind, also of what failed.
    let _ = fs::remove_file(&path);
    tried
}

fn pods(data: &Path, cri: Option<PathBuf>, is_root: bool) -> Pods {
    let facts = crate::register::machine();
    let is_given = cri.is_some();
    let socket = cri.unwrap_or_else(|| Config::of(data).socket());
    let answers = socket.exists().then(|| version(&socket));
    let missing = if is_given { None } else { Binaries::find().err().map(|e| e.to_string()) };
    let read = |path: &str| fs::read_to_string(path).ok().map(|v| v.trim().to_owned());
    Pods {
        cgroup_version: facts.cgroup_version,
        controllers: controllers(facts.cgroup_version),
        socket: socket.display().to_string(),
        answers,
        missing,
        forwarding: read("/proc/sys/net/ipv4/ip_forward").map(|v| v == "1"),
        has_v6: read("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_some_and(|v| v == "0"),
        iptables: if is_root { iptables().err() } else { None },
    }
}

/// What a runtime says that it is.
fn version(socket: &Path) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let answer = runtime.block_on(async { host::cri::Client::new(socket).version().await });
    answer.map(|version| version.to_string()).map_err(|why| why.message)
}

fn controllers(version: u8) -> Vec<String> {
    let root = Path::new("/sys/fs/cgroup");
    if version == 2 {
        let listed = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        return listed.split_whitespace().map(str::to_owned).collect();
    }
    let mounted = fs::read_dir(root).into_iter().flatten().flatten();
    mounted.filter_map(|dir| dir.file_name().into_string().ok()).collect()
}

/// Reads the rules that pods' addresses are translated by, as the node would.
fn iptables() -> Result<(), String> {
    let mut command = Command::new("iptables");
    command.args(["-w", "5", "-t", "nat", "-S", "POSTROUTING"]).stdin(Stdio::null());
    match command.output() {
        Ok(said) if said.status.success() => Ok(()),
        Ok(said) => Err(String::from_utf8_lossy(&said.stderr).lines().next().unwrap_or("it failed").to_owned()),
        // What is not installed is told of with the runtime.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_directory_is_written_in_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let Disk::Read { sync: Some(Ok(took)), all_bytes, .. } = disk(dir.path()) else { panic!("not written") };
        assert!(took < Duration::from_secs(60) && all_bytes > 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let later = disk(&dir.path().join("not/yet"));
        assert!(matches!(later, Disk::Read { sync: None, .. }), "{later:?}");
        assert!(!dir.path().join("not").exists());
    }

    #[test]
    fn a_machine_without_a_node_can_be_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let seen = look(dir.path(), ([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 1).into());
        assert!(matches!(seen.node, Node::None) && seen.node.pid().is_none() && seen.node.links().is_none());
        let checks = super::super::examine(&seen);
        let whats: Vec<&str> = checks.iter().map(|c| c.what).collect();
        let all =
            ["node", "rights", "clock", "disk", "API port", "mesh port", "reach", "cgroups", "containerd", "network"];
        assert_eq!(whats, all);
    }
}
