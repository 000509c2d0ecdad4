//! The one door to what runs pods on this machine: a containerd of our own, or a runtime that was given.

mod images;
mod queue;
mod readiness;

pub use images::StoredImage;

use crate::cni::{self, Network};
use crate::containerd::{self, Binaries, Containerd, Registry};
use crate::cri::{Client, Version};
use crate::logs;
use crate::pause;
use crate::probe;
use crate::seen::Watcher;
use crate::volumes::Pods;
use base::runtime::{Answer, ContainerState, Failure, Op, Seen, Why};
use bytes::Bytes;
use k8s_cri::v1;
use queue::Queues;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// What a runtime is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The node's data directory.
    pub data: PathBuf,
    /// The socket of a runtime that was given; none: a containerd of our own.
    pub cri: Option<PathBuf>,
    /// The pods' network; with a runtime that was given, its own is used.
    pub network: Network,
    /// Registries that are asked otherwise than by their own name; of our own containerd only.
    pub registries: Vec<Registry>,
}

/// Why there is no runtime.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Our own containerd is not to be had.
    #[error(transparent)]
    Containerd(#[from] containerd::Error),
    /// A directory cannot be used.
    #[error("cannot {operation} {}: {cause}. No container was touched", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The runtime refuses what every start needs.
    #[error("{0}. No container was touched")]
    Refused(String),
}

/// Performs what is asked, and tells what is seen. Dropping it stops telling and keeping containerd;
/// containerd and containers go on.
#[derive(Debug)]
pub struct Runtime {
    client: Client,
    version: Version,
    pods: Pods,
    owner: String,
    queues: Queues,
    images: images::Notes,
    watcher: Watcher,
    containerd: Option<Containerd>,
    /// Ours to keep, if the runtime is.
    network: Option<Network>,
    systemd: bool,
}

impl Runtime {
    /// Finds or starts the runtime and looks at what is there. Must be called within tokio; with a
    /// containerd that has to be started it takes about half a second.
    ///
    /// # Errors
    /// [`StartError`], a letter for the operator.
    pub async fn start(mut config: Config) -> Result<Arc<Runtime>, StartError> {
        let io = |operation, path: &Path| {
            let path = path.to_owned();
            move |cause| StartError::Io { operation, path, cause }
        };
        fs::create_dir_all(&config.data).map_err(io("make", &config.data))?;
        let data = fs::canonicalize(&config.data).map_err(io("find", &config.data))?;
        let pods = Pods::of(&data);
        pods.lay_out().map_err(io("make", pods.logs()))?;

        let refused = |failure: Failure| StartError::Refused(failure.message);
        let (client, containerd, network) = match &config.cri {
            Some(socket) => (Client::new(socket), None, None),
            None => {
                let binaries = Binaries::find().map_err(containerd::Error::from)?;
                let mut own = containerd::Config::of(&data);
                own.registries = config.registries;
                if !cni::has_v6() && config.network.v6.take().is_some() {
                    tracing::warn!("this machine has no IPv6: pods get IPv4 addresses only");
                }
                let written = config.network.write(&own.cni_conf, &data.join("cni/addresses"));
                written.map_err(io("write the pods' network to", &own.cni_conf))?;
                cni::forward_packets();
                // Pods that run are to be looked after all the same; it is tried again now and then.
                if let Err(e) = config.network.lay().await {
                    tracing::error!("pods cannot reach other machines: {e}");
                }
                let containerd = Containerd::start(own, binaries).await?;
                let client = Client::new(&containerd.socket());
                pause::import(client.channel(), &client).await.map_err(StartError::Refused)?;
                (client, Some(containerd), Some(config.network))
            }
        };
        let version = client.version().await.map_err(refused)?;
        // Our own is told to do without.
        let systemd = containerd.is_none() && client.is_systemd().await.map_err(refused)?;
        let owner = containerd::mark(&data);
        let watcher = Watcher::start(client.clone(), owner.clone()).await.map_err(refused)?;
        let images = images::Notes::default();
        let queues = Queues::default();
        Ok(Arc::new(Runtime { client, version, pods, owner, queues, images, watcher, containerd, network, systemd }))
    }

    /// Performs one operation, now: whoever asks keeps the order ([`Runtime::submit`] does).
    ///
    /// # Errors
    /// Why it failed, in words for the pod's user.
    pub async fn perform(&self, op: Op) -> Result<Answer, Failure> {
        let changes = changes(&op);
        let result = self.do_it(op).await;
        if changes {
            self.watcher.look_now();
        }
        result
    }

    /// Performs an operation of a pod, and calls `reply` once with what it came to, on a thread of tokio's.
    ///
    /// Operations that make or remove something of a pod are performed one after the other, as they came.
    /// Stopping one container does not wait for stopping another. What only asks (images, pulls, commands,
    /// probes, ends of files) waits for nobody and holds up nobody.
    ///
    /// Must be called within tokio. At most 256 may wait for one pod; one more fails at
    /// once.
    pub fn submit(self: &Arc<Self>, pod: &str, op: Op, reply: impl FnOnce(Result<Answer, Failure>) + Send + 'static) {
        self.queues.submit(self, pod, op, Box::new(reply));
    }

    async fn do_it(&self, op: Op) -> Result<Answer, Failure> {
        let cri = &self.client;
        match op {
            Op::FindImage { image } => cri.find_image(&image).await,
            Op::PullImage { image, auth } => cri.pull_image(&image, &auth).await,
            Op::Volumes { pod, volumes } => {
                let pods = self.pods.clone();
                blocking(move || Ok(Answer::Volumes(pods.volumes(&pod, &volumes)))).await
            }
            Op::File { pod, path, bytes, mode } => {
                let pods = self.pods.clone();
                let write = move || pods.file(&pod, &path, &bytes, mode);
                Ok(Answer::Path(blocking(write).await?.to_string_lossy().into_owned()))
            }
            Op::EmptyMemory { pod } => {
                let pods = self.pods.clone();
                blocking(move || pods.empty_memory(&pod)).await?;
                Ok(Answer::Done)
            }
            Op::RemovePod { pod } => {
                let pods = self.pods.clone();
                blocking(move || pods.remove(&pod)).await?;
                Ok(Answer::Done)
            }
            Op::RunSandbox(sandbox) => {
                let (pods, s) = (self.pods.clone(), sandbox.clone());
                blocking(move || pods.before_sandbox(&s)).await?;
                cri.run_sandbox(&sandbox, &self.owner).await
            }
            Op::StopSandbox { id } => cri.stop_sandbox(id).await,
            Op::RemoveSandbox { id } => cri.remove_sandbox(id).await,
            Op::CreateContainer { sandbox, of, mut container } => {
                let (pods, dir, log) = (self.pods.clone(), of.log_directory.clone(), container.log_path.clone());
                blocking(move || pods.before_container(&dir, &log)).await?;
                let mounts = std::mem::take(&mut container.mounts);
                let (pods, pod, name) = (self.pods.clone(), of.pod.uid.clone(), container.name.clone());
                container.mounts = blocking(move || pods.settled(&pod, &name, mounts)).await?;
                cri.create_container(sandbox, &of, &container, &self.owner).await
            }
            Op::StartContainer { id } => cri.start_container(id).await,
            Op::StopContainer { id, grace } => cri.stop_container(id, grace).await,
            Op::RemoveContainer { id, files } => {
                let removed = cri.remove_container(id).await?;
                let pods = self.pods.clone();
                blocking(move || {
                    pods.remove_files(&files);
                    Ok(())
                })
                .await?;
                Ok(removed)
            }
            Op::Exec { id, command, timeout } => cri.exec(id, command, timeout).await,
            Op::Http { get, timeout } => probe::http(&get, timeout).await,
            Op::Tcp { host, port, timeout } => probe::tcp(&host, port, timeout).await,
            Op::Grpc { host, port, service, timeout } => probe::grpc(&host, port, &service, timeout).await,
            Op::Measure { pod, limits } => {
                let pods = self.pods.clone();
                blocking(move || pods.measure(&pod, &limits).map(Answer::Usage)).await
            }
            Op::Tail { path, bytes_max, lines_max, log } => {
                blocking(move || logs::tail(&path, bytes_max, lines_max, log).map(Answer::Bytes)).await
            }
        }
    }

    /// What is there, now and from now on: a new value at least every second, and as soon as something
    /// has begun or ended.
    pub fn seen(&self) -> watch::Receiver<Arc<Seen>> {
        self.watcher.told()
    }

    /// Has what is there looked at once more, at once.
    pub fn look_now(&self) {
        self.watcher.look_now();
    }

    /// What the runtime is: `containerd://1.6.20~ds1`.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Whether the runtime has systemd make control groups: a pod's is a slice then.
    pub fn is_systemd(&self) -> bool {
        self.systemd
    }

    /// What a container wrote, of those that are seen; see [`logs::read`]. A log that is followed ends when
    /// the container is not seen running any more.
    ///
    /// # Errors
    /// [`Why::NotFound`] if there is no such container or it has no log yet, [`Why::Failed`] if its log cannot
    /// be opened.
    pub fn logs(&self, container: &str, options: logs::Options) -> Result<LogPieces, Failure> {
        let seen = self.watcher.told();
        let there = |seen: &Seen| seen.containers.iter().find(|c| c.id == container).map(|c| c.log_path.clone());
        let path = there(&seen.borrow()).filter(|path| !path.is_empty()).ok_or_else(|| Failure {
            why: Why::NotFound,
            message: format!("there is no container {container} with a log"),
        })?;
        let id = container.to_owned();
        let goes_on = |state: &ContainerState| !matches!(state, ContainerState::Exited { .. });
        let has_ended = move || !seen.borrow().containers.iter().any(|c| c.id == id && goes_on(&c.state));
        logs::read(Path::new(&path), options, has_ended).map_err(|e| Failure {
            why: if e.kind() == io::ErrorKind::NotFound { Why::NotFound } else { Why::Failed },
            message: format!("cannot open the log {path}: {e}"),
        })
    }

    /// Puts aside logs that have grown beyond 10 MiB, keeping five files a container. To be called every few
    /// seconds. Says what the runtime refused.
    pub async fn rotate_logs(&self) -> Vec<Failure> {
        let seen = self.watcher.told().borrow().clone();
        logs::rotate(&self.client, &seen, logs::SIZE_MAX, logs::FILES_MAX).await
    }

    /// Lays again what others took away of the pods' network, if that is ours. To be called every few seconds.
    ///
    /// # Errors
    /// What the system said: pods do not reach other machines.
    pub async fn keep_network(&self) -> io::Result<()> {
        match &self.network {
            Some(network) => network.keep().await,
            None => Ok(()),
        }
    }

    /// Pods' directories.
    pub fn pods(&self) -> &Pods {
        &self.pods
    }

    /// Whether our own containerd ran before this process started.
    pub fn was_running(&self) -> bool {
        self.containerd.as_ref().is_none_or(Containerd::was_running)
    }

    /// Where the streams of a command can be had, by the runtime's streaming protocols, within a minute.
    ///
    /// # Errors
    /// As [`Runtime::perform`].
    pub async fn exec_url(&self, container: &str, command: Vec<String>, streams: Streams) -> Result<String, Failure> {
        let Streams { stdin, stdout, stderr, tty } = streams;
        let container_id = container.to_owned();
        self.client.exec_url(v1::ExecRequest { container_id, cmd: command, tty, stdin, stdout, stderr }).await
    }

    /// Where the streams of a container's own process can be had. `streams.tty` as it was made.
    ///
    /// # Errors
    /// As [`Runtime::perform`].
    pub async fn attach_url(&self, container: &str, streams: Streams) -> Result<String, Failure> {
        let Streams { stdin, stdout, stderr, tty } = streams;
        let container_id = container.to_owned();
        self.client.attach_url(v1::AttachRequest { container_id, stdin, tty, stdout, stderr }).await
    }

    /// Where connections to ports of a sandbox can be had.
    ///
    /// # Errors
    /// As [`Runtime::perform`].
    pub async fn port_forward_url(&self, sandbox: &str, ports: &[u16]) -> Result<String, Failure> {
        let port = ports.iter().map(|p| i32::from(*p)).collect();
        self.client.port_forward_url(v1::PortForwardRequest { pod_sandbox_id: sandbox.to_owned(), port }).await
    }

    /// Stops telling what is seen, and keeping containerd. Containerd and containers go on, and are found
    /// again by the next start.
    pub fn close(&self) {
        self.watcher.stop();
        if let Some(containerd) = &self.containerd {
            containerd.leave();
        }
    }

    /// Ends our own containerd, too; containers go on, and nothing is told of them any more. What was asked
    /// for and is not done fails.
    pub async fn end(&self) {
        self.watcher.stop();
        if let Some(containerd) = &self.containerd {
            containerd.end().await;
        }
    }
}

/// What a container wrote, piece by piece.
pub type LogPieces = mpsc::Receiver<io::Result<Bytes>>;

/// Which streams of a process are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)] // they are the CRI's words
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Whether an operation changes what is seen.
fn changes(op: &Op) -> bool {
    matches!(
        op,
        Op::RunSandbox(_)
            | Op::StopSandbox { .. }
            | Op::RemoveSandbox { .. }
            | Op::CreateContainer { .. }
            | Op::StartContainer { .. }
            | Op::StopContainer { .. }
            | Op::RemoveContainer { .. }
    )
}

/// Does what blocks where that is allowed.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| {
        Err(Failure { why: Why::Failed, message: format!("it is not known what became of it: {e}") })
    })
}
