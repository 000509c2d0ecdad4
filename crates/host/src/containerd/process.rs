//! containerd as a process of this machine: started, found again, watched, ended.

use super::{Binaries, Config, Error};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

/// The log is begun anew beyond this many bytes; what was there is kept once.
const LOG_MAX: u64 = 16 << 20;

/// A containerd that was started by us, or by our predecessor.
#[derive(Debug)]
pub(super) struct Process {
    pid: i32,
    /// The configuration it was started with.
    pub(super) config: PathBuf,
    /// Set if it is our child, who has to be reaped.
    child: Option<Child>,
}

impl Process {
    /// Starts one, in a session of its own.
    pub(super) fn spawn(config: &Config, binaries: &Binaries, laid_out: &Path) -> Result<Process, Error> {
        let log = config.log();
        let out = OpenOptions::new().create(true).append(true).open(&log).map_err(Error::io("open", &log))?;
        let err = out.try_clone().map_err(Error::io("open", &log))?;
        // A socket left behind would be taken for one that answers.
        let _ = fs::remove_file(config.socket());
        // setsid(1) becomes containerd, with the same number, since it leads no process group here.
        let child = Command::new("setsid")
            .arg(&binaries.containerd)
            .arg("--config")
            .arg(laid_out)
            .env("PATH", &binaries.path)
            .env_remove("NOTIFY_SOCKET")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .kill_on_drop(false)
            .spawn()
            .map_err(Error::io("start (by setsid)", &binaries.containerd))?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(0);
        tracing::info!(pid, program = %binaries.containerd.display(), "containerd started");
        Ok(Process { pid, config: laid_out.to_owned(), child: Some(child) })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it runs; one that has ended and was not reaped does not.
    pub(super) fn runs(&self) -> bool {
        config_of(self.pid).is_some_and(|c| c == self.config)
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&mut self, socket: &Path) {
        if let Some(child) = &mut self.child {
            let _ = child.wait().await;
            return;
        }
        // Not our child: a connection to it closes when it ends (or after a while, since it says nothing).
        while self.runs() {
            if let Ok(mut connection) = UnixStream::connect(socket).await {
                let mut buffer = [0; 256];
                while connection.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends it. Its containers go on.
    ///
    /// It is killed and not asked: asked while it starts (1.6), it takes the shims it has not reached yet
    /// for dead, and kills their containers. To be killed is what it must survive anyway.
    pub(super) async fn end(mut self) {
        if self.runs() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
        while self.runs() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if let Some(child) = &mut self.child {
            let _ = child.wait().await;
        }
    }
}

/// All that run with a configuration in this directory, seen in the file system as we see it.
pub(super) fn find(root: &Path) -> Vec<Process> {
    let ours = fs::read_link("/proc/self/ns/mnt").ok();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| Some((pid, config_of(pid).filter(|c| c.parent() == Some(root))?)))
        .filter(|(pid, _)| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok() == ours)
        .map(|(pid, config)| Process { pid, config, child: None })
        .collect()
}

/// The configuration a process was given on its command line, if it is a containerd (or is about to be).
fn config_of(pid: i32) -> Option<PathBuf> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = line.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
    let at = words.iter().position(|w| w == "--config")?;
    let named = words[..at].iter().any(|w| Path::new(w.as_ref()).file_name().is_some_and(|n| n == "containerd"));
    named.then(|| words.get(at + 1).map(|w| PathBuf::from(w.as_ref())))?
}

/// Begins the log anew if it has grown too large. Whoever writes appends, so it may be cut under them.
pub(super) fn bound_log(log: &Path) {
    if !log.metadata().is_ok_and(|m| m.len() > LOG_MAX) {
        return;
    }
    let cut = || -> std::io::Result<()> {
        fs::copy(log, log.with_extension("log.1"))?;
        OpenOptions::new().write(true).open(log)?.set_len(0)
    };
    if let Err(e) = cut() {
        tracing::warn!("cannot begin {} anew: {e}", log.display());
    }
}

/// The last lines of the log.
pub(super) fn log_tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines: Vec<_> = text.lines().collect();
        Ok(lines[lines.len().saturating_sub(5)..].join("\n"))
    };
    read().unwrap_or_else(|e| format!("(cannot be read: {e})"))
}
