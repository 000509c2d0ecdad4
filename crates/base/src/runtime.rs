//! The words between a pure machine that runs pods and whoever has a container runtime: the host's, over
//! the Container Runtime Interface, or the simulator's.
//!
//! The one who performs takes any number of [`Op`]s at a time, performs those of one pod in the order in
//! which they were asked for and those of different pods side by side, and answers each once. What runs
//! is not believed from answers but from what is seen: [`Seen`], told whenever it has changed and asked
//! for again after every start. Containers outlive whoever asked for them.
//!
//! The words are those of the Container Runtime Interface v1 (`runtime.v1`, kubernetes/cri-api).

use crate::time::Wall;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

/// A pod's sandbox: its network, and the process that holds it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sandbox {
    /// Whose it is.
    pub pod: PodName,
    /// How many sandboxes this pod has had before.
    pub attempt: u32,
    /// The host name inside; empty with the host's network.
    pub hostname: String,
    /// Where the containers' logs go.
    pub log_directory: String,
    /// `resolv.conf`; none of its parts with the host's network, where the host's own file is used.
    pub dns: Option<Dns>,
    /// Ports of the host that lead into the pod.
    pub ports: Vec<PortMapping>,
    /// Kept by the runtime and shown again in [`Seen`].
    pub labels: BTreeMap<String, String>,
    /// As the labels.
    pub annotations: BTreeMap<String, String>,
    /// The pod's cgroup, relative to the root of the hierarchy, without a slash at its end.
    pub cgroup_parent: String,
    /// What all of the pod together may use: its cgroup's own weight and limits. `oom_score_adj` is a
    /// process's and means nothing here.
    pub resources: Resources,
    /// `net.*` and other namespaced sysctls.
    pub sysctls: BTreeMap<String, String>,
    /// Which namespaces are the host's.
    pub host: HostNamespaces,
    /// All containers see each other's processes.
    pub share_processes: bool,
    /// A container of the pod is privileged.
    pub privileged: bool,
    /// What the sandbox's own process runs with.
    pub security: Security,
    /// Empty for the runtime's default.
    pub handler: String,
}

/// Which pod, in the words the runtime keeps.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid, which no other pod ever has.
    pub uid: String,
}

/// Namespaces of the host that a pod uses instead of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)] // they are the kernel's
pub struct HostNamespaces {
    pub network: bool,
    pub pid: bool,
    pub ipc: bool,
}

/// `resolv.conf`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)] // they are resolv.conf's words
pub struct Dns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// A port of the host that leads into a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortMapping {
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
    /// Inside.
    pub container_port: u16,
    /// Outside.
    pub host_port: u16,
    /// Empty for all addresses.
    pub host_ip: String,
}

/// A container. What its environment holds is not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Container {
    /// Its name in the pod.
    pub name: String,
    /// How many containers of this name the pod has had before.
    pub attempt: u32,
    /// The image, as the runtime said it is called ([`Answer::Image`]).
    pub image: String,
    /// The image as the user wrote it, shown again in [`Seen`].
    pub user_image: String,
    /// Instead of the image's entrypoint, if not empty.
    pub command: Vec<String>,
    /// Instead of the image's command, if not empty.
    pub args: Vec<String>,
    /// Empty for the image's.
    pub working_dir: String,
    /// In this order.
    pub env: Vec<(String, String)>,
    /// What is mounted.
    pub mounts: Vec<Mount>,
    /// Devices of the host, all of them by the same path inside.
    pub devices: Vec<String>,
    /// Kept by the runtime and shown again in [`Seen`].
    pub labels: BTreeMap<String, String>,
    /// As the labels.
    pub annotations: BTreeMap<String, String>,
    /// Relative to the sandbox's log directory.
    pub log_path: String,
    /// A pipe to its input is kept.
    pub stdin: bool,
    /// The pipe is closed when the first who attached has gone.
    pub stdin_once: bool,
    /// A terminal.
    pub tty: bool,
    /// What it may use.
    pub resources: Resources,
    /// What it may do.
    pub security: Security,
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let env: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Container")
            .field("name", &self.name)
            .field("attempt", &self.attempt)
            .field("image", &self.image)
            .field("env", &env)
            .field("mounts", &self.mounts)
            .field("resources", &self.resources)
            .field("security", &self.security)
            .finish_non_exhaustive()
    }
}

/// A mount into a container.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mount {
    /// Inside.
    pub container_path: String,
    /// On the host.
    pub host_path: String,
    /// If not empty: the folder in which `host_path` must lie, also once links are followed (`subPath`);
    /// folders missing on the way are made.
    pub within: String,
    /// It cannot be written through this mount.
    pub read_only: bool,
    /// How mounts made later travel.
    pub propagation: Propagation,
}

/// How mounts made later travel between the host and a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the host to the container (`HostToContainer`).
    HostToContainer,
    /// Both ways (`Bidirectional`).
    Bidirectional,
}

/// Limits, in the kernel's words.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Resources {
    /// Weight against others: 1,024 for a whole CPU asked for, at least 2.
    pub cpu_shares: u64,
    /// Microseconds of CPU time it may use every `cpu_period_us`; 0 is no limit.
    pub cpu_quota_us: i64,
    /// See `cpu_quota_us`; 0 is the kernel's default.
    pub cpu_period_us: i64,
    /// Bytes; 0 is no limit.
    pub memory_bytes: i64,
    /// -1,000 to 1,000: who is killed first when memory runs out.
    pub oom_score_adj: i64,
}

/// What a process may do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Security {
    /// Everything.
    pub privileged: bool,
    /// Capabilities besides the runtime's default, without `CAP_`; `ALL` is all of them.
    pub add_capabilities: Vec<String>,
    /// Capabilities of the runtime's default taken away.
    pub drop_capabilities: Vec<String>,
    /// Instead of the image's user.
    pub run_as_user: Option<i64>,
    /// Instead of the image's user, by name; used if `run_as_user` is not set.
    pub run_as_username: String,
    /// Instead of the image's group. Needs one of the two above.
    pub run_as_group: Option<i64>,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
    /// The root file system cannot be written.
    pub read_only_root: bool,
    /// Nothing it starts can gain rights.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// The AppArmor profile; empty for none said.
    pub apparmor: String,
    /// Paths that are hidden and paths that cannot be written are as usual; `false` for `procMount: Unmasked`.
    pub masked_proc: bool,
    /// Which processes it sees.
    pub pid: PidNamespace,
}

/// Which processes a container sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PidNamespace {
    /// Its own.
    #[default]
    Container,
    /// All of its pod.
    Pod,
    /// All of the host.
    Host,
}

/// Which system calls a process may make.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Seccomp {
    /// All.
    #[default]
    Unconfined,
    /// What the runtime allows by default.
    RuntimeDefault,
    /// What a file of the host says.
    Localhost(String),
}

/// A volume as it is laid out before the first container of its pod starts, and brought up to date while
/// it runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    /// Its name in the pod.
    pub name: String,
    /// What it is.
    pub kind: VolumeKind,
    /// Group that owns what is in it, where that is changed (`fsGroup`).
    pub group: Option<u32>,
}

/// What a volume is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VolumeKind {
    /// An empty directory that goes with the pod: on disk, or in memory with at most so many bytes
    /// (0: no limit of its own).
    Empty {
        /// In memory.
        memory: bool,
        /// The most it holds; in memory only.
        bytes_max: u64,
    },
    /// A path of the host, of this type (`""`, `Directory`, `DirectoryOrCreate`, `File`, `FileOrCreate`,
    /// `Socket`, `CharDevice`, `BlockDevice`).
    Host {
        /// The path.
        path: String,
        /// The type.
        kind: String,
    },
    /// Files whose content is known, in memory, never on disk. All of them change at once: readers see
    /// the old set or the new one.
    Files(Vec<VolumeFile>),
}

/// A file of a volume. Most of them are somebody's secret: `Debug` shows how many bytes there are.
#[derive(Clone, PartialEq, Eq)]
pub struct VolumeFile {
    /// Relative; may lie in folders, never outside.
    pub path: String,
    /// What is in it.
    pub bytes: Arc<[u8]>,
    /// Permission bits.
    pub mode: u32,
    /// The user who owns it, if it is not root.
    pub owner: Option<u32>,
}

impl fmt::Debug for VolumeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolumeFile")
            .field("path", &self.path)
            .field("bytes", &self.bytes.len())
            .field("mode", &self.mode)
            .field("owner", &self.owner)
            .finish()
    }
}

/// Who may pull. `Debug` shows the name, and of what is secret how long it is.
#[derive(Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)] // they are the CRI's AuthConfig
pub struct PullAuth {
    pub username: String,
    pub password: String,
    pub identity_token: String,
    pub registry_token: String,
}

impl fmt::Debug for PullAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullAuth")
            .field("username", &self.username)
            .field("password", &self.password.len())
            .field("identity_token", &self.identity_token.len())
            .field("registry_token", &self.registry_token.len())
            .finish()
    }
}

/// An HTTP request of a probe or a hook.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HttpGet {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Over TLS, whose certificate is not verified.
    pub tls: bool,
    /// Further headers.
    pub headers: Vec<(String, String)>,
}

/// What is asked of the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Is an image there? [`Answer::Image`] or [`Answer::NoImage`].
    FindImage {
        /// As the user wrote it.
        image: String,
    },
    /// Pulls an image. [`Answer::Image`].
    PullImage {
        /// As the user wrote it.
        image: String,
        /// Tried in this order; none: without.
        auth: Vec<PullAuth>,
    },
    /// Makes a pod's volumes, or brings those that are there up to date. [`Answer::Volumes`].
    Volumes {
        /// Whose.
        pod: String,
        /// Which.
        volumes: Vec<Volume>,
    },
    /// Makes a file that a container is mounted as one of its own (`/etc/hosts`, a termination message).
    /// [`Answer::Path`].
    File {
        /// Whose.
        pod: String,
        /// Relative to the pod's directory.
        path: String,
        /// What is in it.
        bytes: Vec<u8>,
        /// Permission bits.
        mode: u32,
    },
    /// Unmounts what of a pod's volumes is memory, once nothing of it will ever run again: what was in it is
    /// gone. Its directories and logs stay. Done also if there is none. [`Answer::Done`].
    EmptyMemory {
        /// Whose.
        pod: String,
    },
    /// Removes a pod's directory: volumes, logs, files. Done also if there is none. [`Answer::Done`].
    RemovePod {
        /// Whose.
        pod: PodName,
    },
    /// Makes and starts a sandbox. [`Answer::Id`].
    RunSandbox(Box<Sandbox>),
    /// Stops a sandbox and whatever runs in it, without grace; gives its address back. [`Answer::Done`].
    StopSandbox {
        /// The runtime's name for it.
        id: String,
    },
    /// Removes a stopped sandbox and its containers. [`Answer::Done`].
    RemoveSandbox {
        /// The runtime's name for it.
        id: String,
    },
    /// Makes a container. [`Answer::Id`].
    CreateContainer {
        /// The runtime's name for the sandbox.
        sandbox: String,
        /// The sandbox as it was made.
        of: Box<Sandbox>,
        /// The container.
        container: Box<Container>,
    },
    /// Starts a container that was made. [`Answer::Done`].
    StartContainer {
        /// The runtime's name for it.
        id: String,
    },
    /// Asks a container to end and kills it after a while. [`Answer::Done`] once it has ended.
    StopContainer {
        /// The runtime's name for it.
        id: String,
        /// How long it may take.
        grace: Duration,
    },
    /// Removes a container that has ended, then its files. [`Answer::Done`].
    RemoveContainer {
        /// The runtime's name for it.
        id: String,
        /// Files of the host that are its own, if it has any: its log, with which goes what was put aside of
        /// it, and its last words.
        files: Vec<String>,
    },
    /// Runs a command in a container. [`Answer::Exit`].
    Exec {
        /// The runtime's name for it.
        id: String,
        /// The command.
        command: Vec<String>,
        /// The most it may take.
        timeout: Duration,
    },
    /// Asks by HTTP. [`Answer::Http`].
    Http {
        /// What.
        get: HttpGet,
        /// The most it may take.
        timeout: Duration,
    },
    /// Opens a TCP connection and closes it. [`Answer::Done`].
    Tcp {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
        /// The most it may take.
        timeout: Duration,
    },
    /// Asks by `grpc.health.v1.Health/Check`. [`Answer::Done`] if it serves.
    Grpc {
        /// Address.
        host: String,
        /// Port.
        port: u16,
        /// The service asked for; may be empty.
        service: String,
        /// The most it may take.
        timeout: Duration,
    },
    /// How much of the disk volumes of a pod take. [`Answer::Usage`].
    Measure {
        /// Whose, by its uid.
        pod: String,
        /// Which, and how many bytes are enough to know: what takes more is counted no further.
        limits: BTreeMap<String, u64>,
    },
    /// The end of a file of the host: a termination message, or the end of a log. [`Answer::Bytes`]; none if
    /// there is no such file.
    Tail {
        /// The file.
        path: String,
        /// The most bytes.
        bytes_max: u64,
        /// The most lines; 0 is no limit.
        lines_max: u64,
        /// It is a container's log: only what the container wrote, without the runtime's own prefixes.
        log: bool,
    },
}

/// What an [`Op`] came to, if it did not fail. What commands, servers and files said is their users' own:
/// `Debug` shows how many bytes it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done,
    /// What was made, by the runtime's name.
    Id(String),
    /// An image.
    Image(Image),
    /// There is no such image here.
    NoImage,
    /// Where each volume lies on the host, or why it could not be made; by its name.
    Volumes(BTreeMap<String, Result<String, Failure>>),
    /// The bytes each volume takes, by its name.
    Usage(BTreeMap<String, u64>),
    /// Where a file lies on the host.
    Path(String),
    /// How a command ended.
    Exit {
        /// Its exit code.
        code: i32,
        /// What it wrote, to both of its outputs, 10 KiB at most.
        output: Vec<u8>,
    },
    /// The answer to an HTTP request.
    Http {
        /// Its status.
        status: u16,
        /// The beginning of its body, 10 KiB at most.
        body: Vec<u8>,
    },
    /// The end of a file.
    Bytes(Vec<u8>),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Done => f.write_str("Done"),
            Answer::NoImage => f.write_str("NoImage"),
            Answer::Id(id) => f.debug_tuple("Id").field(id).finish(),
            Answer::Image(image) => f.debug_tuple("Image").field(image).finish(),
            Answer::Volumes(paths) => f.debug_tuple("Volumes").field(paths).finish(),
            Answer::Usage(bytes) => f.debug_tuple("Usage").field(bytes).finish(),
            Answer::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Answer::Exit { code, output } => {
                f.debug_struct("Exit").field("code", code).field("output", &output.len()).finish()
            }
            Answer::Http { status, body } => {
                f.debug_struct("Http").field("status", status).field("body", &body.len()).finish()
            }
            Answer::Bytes(bytes) => f.debug_tuple("Bytes").field(&bytes.len()).finish(),
        }
    }
}

/// An image that is there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Image {
    /// What containers are made of: the runtime's name for it.
    pub id: String,
    /// Shown as `imageID`: with the digest, where it is known.
    pub digest: String,
    /// Its size.
    pub bytes: u64,
    /// The user it runs as, if it says one by number.
    pub uid: Option<i64>,
    /// The user it runs as, if it says one by name.
    pub username: String,
}

/// Why an [`Op`] failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What kind.
    pub why: Why,
    /// For people: what was tried, what became of it, in the runtime's words where it said some.
    pub message: String,
}

/// What kind of failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It may be tried again later as it is.
    Failed,
    /// What is named is not there: an image, a container, a sandbox.
    NotFound,
    /// What was asked makes no sense: an image's name, a mount's path.
    Invalid,
    /// The registry refuses who asks.
    Denied,
    /// It took too long.
    TimedOut,
    /// The runtime does not answer at all. Nothing is known of what became of it.
    NoRuntime,
}

/// All there is at the runtime.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// When it was asked.
    pub at: Wall,
    /// The sandboxes.
    pub sandboxes: Vec<SeenSandbox>,
    /// The containers.
    pub containers: Vec<SeenContainer>,
}

/// A sandbox that is there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SeenSandbox {
    /// The runtime's name for it.
    pub id: String,
    /// Whose it is.
    pub pod: PodName,
    /// As it was made.
    pub attempt: u32,
    /// It holds its network.
    pub ready: bool,
    /// When it was made.
    pub created: Wall,
    /// The pod's addresses; none with the host's network, or when it is not ready.
    pub addresses: Vec<IpAddr>,
    /// As it was made.
    pub labels: BTreeMap<String, String>,
    /// As it was made.
    pub annotations: BTreeMap<String, String>,
}

/// A container that is there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SeenContainer {
    /// The runtime's name for it.
    pub id: String,
    /// The runtime's name for its sandbox.
    pub sandbox: String,
    /// Its name in the pod.
    pub name: String,
    /// As it was made.
    pub attempt: u32,
    /// How far it is.
    pub state: ContainerState,
    /// The image as the user wrote it.
    pub image: String,
    /// The image with its digest, where it is known.
    pub image_id: String,
    /// As it was made.
    pub labels: BTreeMap<String, String>,
    /// As it was made.
    pub annotations: BTreeMap<String, String>,
    /// Where its log lies on the host.
    pub log_path: String,
}

/// How far a container is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ContainerState {
    /// Made and not started.
    Created {
        /// When.
        at: Wall,
    },
    /// It runs.
    Running {
        /// Since when.
        since: Wall,
    },
    /// It has ended.
    Exited {
        /// When it was started; zero if it never was.
        started: Wall,
        /// When it ended.
        finished: Wall,
        /// Its exit code; 128 and the signal's number if it was killed.
        code: i32,
        /// `Completed`, `Error`, `OOMKilled`, `StartError`, …
        reason: String,
        /// For people.
        message: String,
    },
    /// The runtime does not know.
    #[default]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn what_is_secret_is_not_shown() {
        let auth = PullAuth { username: "ann".into(), password: "hush-1".into(), ..PullAuth::default() };
        let file = VolumeFile { path: "key".into(), bytes: b"hush-2".as_slice().into(), mode: 0o400, owner: None };
        let volume = Volume { name: "v".into(), kind: VolumeKind::Files(alloc::vec![file]), group: None };
        let env = alloc::vec![("PASSWORD".into(), "hush-3".into())];
        let container = Box::new(Container { env, ..Container::default() });
        for op in [
            Op::PullImage { image: "i".into(), auth: alloc::vec![auth] },
            Op::Volumes { pod: "u".into(), volumes: alloc::vec![volume] },
            Op::CreateContainer { sandbox: "s".into(), of: Box::default(), container },
        ] {
            let shown = format!("{op:?}");
            // Bytes may be shown as numbers, too.
            assert!(!shown.contains("hush") && !shown.contains("104, 117"), "{shown}");
        }
        assert!(format!("{:?}", Answer::Bytes(b"hush".to_vec())).contains("4"));
        assert!(!format!("{:?}", Answer::Bytes(b"hush".to_vec())).contains("104, 117"));
    }
}
