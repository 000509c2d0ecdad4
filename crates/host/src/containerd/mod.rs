//! A containerd of our own: its own root, state, socket and configuration, made of what the system has
//! installed, so that nothing of the system's own containerd is touched or needed.
//!
//! It runs in a session of its own and outlives this process, and the containers outlive it. After a start
//! it is looked for among the running processes by the path of its configuration, whose name holds a hash
//! of what is in it: one that runs with the same configuration is taken as it is, one that runs with an
//! older one is restarted alone, and two are never started on one root. If it ends it is started again.

mod binaries;
mod config;
mod process;

pub(crate) use binaries::search_path;
pub use binaries::{Binaries, Missing};
pub use config::{Config, Registry};
pub(crate) use config::{hex, mark};

use crate::cri;
use process::Process;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How long a socket's path may be: unix(7), `sun_path` but for its end.
pub const SOCKET_BYTES: usize = 107;
/// How long containerd may take until its CRI answers: with thousands of containers to find again, or on
/// a slow disk, it takes many seconds.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// The longest pause before it is started again.
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// Having run so long it counts as healthy, and the next pause is short again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// How often its log is looked at.
const LOG_LOOKED_AT: Duration = Duration::from_secs(60);

/// Why there is no containerd.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program it takes is not installed.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// What is installed is too old.
    #[error(
        "{} is version {found}; beemesh needs 1.6 or newer. Nothing was started. Install a newer one (Debian 12 and \
         later have it: apt-get install containerd), or give another runtime with --cri", .program.display()
    )]
    TooOld {
        /// The program.
        program: PathBuf,
        /// What it says it is.
        found: String,
    },
    /// The path of a socket is too long for the kernel.
    #[error("{} is too long for a socket's path, which has at most {SOCKET_BYTES} bytes. Nothing was started", .0.display())]
    LongPath(PathBuf),
    /// A file or a process could not be had.
    #[error("cannot {operation} {}: {cause}. No container was touched", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It ended, or does not answer.
    #[error("containerd {what}. No container was touched. The end of {}:\n{tail}", .log.display())]
    DoesNotRun {
        /// What became of it.
        what: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
}

impl Error {
    pub(crate) fn io<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
        move |cause| Error::Io { operation, path: path.to_owned(), cause }
    }
}

/// A containerd that is kept running. Dropping it stops keeping it; containerd itself goes on.
#[derive(Debug)]
pub struct Containerd {
    config: Arc<Config>,
    keeper: JoinHandle<()>,
    adopted: bool,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Containerd {
    /// Finds the one that runs, or starts one, and keeps it running. Returns once its CRI answers.
    ///
    /// # Errors
    /// [`Error`]. What was started and does not answer is ended again.
    pub async fn start(config: Config, binaries: Binaries) -> Result<Containerd, Error> {
        binaries.check_version()?;
        if config.socket().as_os_str().len() > SOCKET_BYTES {
            return Err(Error::LongPath(config.socket()));
        }
        let laid_out = config.lay_out(&binaries)?;
        let config = Arc::new(config);
        let mut adopted = false;
        let mut process = None;
        for mut found in process::find(&config.root) {
            if !found.works_in(&config.root) {
                tracing::warn!(
                    pid = found.pid(),
                    "a containerd runs whose files were taken away from {}: it is ended, and one is begun anew. What it ran goes on until the machine is started again",
                    config.root.display()
                );
                found.end().await;
            } else if found.config == laid_out
                && process.is_none()
                && answers(&config, ANSWERS_WITHIN, &mut found).await.is_ok()
            {
                tracing::info!(pid = found.pid(), "containerd runs already");
                process = Some(found);
                adopted = true;
            } else {
                tracing::info!(pid = found.pid(), "containerd runs with another configuration: restarting it alone");
                found.end().await;
            }
        }
        let process = match process {
            Some(process) => process,
            None => begin(&config, &binaries, &laid_out).await?,
        };
        config::forget_others(&laid_out);
        let keeper = tokio::spawn(keep(config.clone(), binaries, laid_out, process));
        Ok(Containerd { config, keeper, adopted })
    }

    /// Its socket, for the CRI and for its own API.
    pub fn socket(&self) -> PathBuf {
        self.config.socket()
    }

    /// It ran before this process did.
    pub fn was_running(&self) -> bool {
        self.adopted
    }

    /// Keeps it no more. It goes on.
    pub fn leave(&self) {
        self.keeper.abort();
    }

    /// Ends containerd itself. Containers and their shims go on.
    pub async fn end(&self) {
        self.keeper.abort();
        for process in process::find(&self.config.root) {
            process.end().await;
        }
    }
}

/// Starts one and waits until it answers.
async fn begin(config: &Config, binaries: &Binaries, laid_out: &Path) -> Result<Process, Error> {
    process::bound_log(&config.log());
    let mut process = Process::spawn(config, binaries, laid_out)?;
    match answers(config, ANSWERS_WITHIN, &mut process).await {
        Ok(()) => Ok(process),
        Err(what) => {
            process.end().await;
            Err(Error::DoesNotRun { what, tail: process::log_tail(&config.log()), log: config.log() })
        }
    }
}

/// Waits until the CRI answers; says what became of it if it does not.
async fn answers(config: &Config, within: Duration, process: &mut Process) -> Result<(), String> {
    let client = cri::Client::new(&config.socket());
    let until = Instant::now() + within;
    loop {
        let why = match client.version().await {
            Ok(_) => return Ok(()),
            Err(failure) => failure.message,
        };
        if !process.runs() {
            return Err("ended as soon as it was started".into());
        }
        if Instant::now() > until {
            return Err(format!("does not answer on {} after {within:?}: {why}", config.socket().display()));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Starts it again whenever it has ended.
async fn keep(config: Arc<Config>, binaries: Binaries, laid_out: PathBuf, first: Process) {
    let mut process = first;
    let socket = config.socket();
    let mut pause = Duration::from_millis(100);
    loop {
        let since = Instant::now();
        loop {
            tokio::select! {
                () = process.ended(&socket) => break,
                () = tokio::time::sleep(LOG_LOOKED_AT) => process::bound_log(&config.log()),
            }
        }
        if since.elapsed() > HEALTHY_AFTER {
            pause = Duration::from_millis(100);
        }
        tracing::warn!(pid = process.pid(), "containerd has ended; containers go on, it is started again");
        process = loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACK_OFF_MAX);
            match begin(&config, &binaries, &laid_out).await {
                Ok(process) => break process,
                Err(e) => tracing::error!("{e}"),
            }
        };
    }
}
