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

/// Where containerd keeps what it knows, below the directory of all that is its.
const DATABASE: &str = "root/io.containerd.metadata.v1.bolt/meta.db";

/// The log is begun anew beyond this many bytes; what was there is kept once.
const LOG_MAX: u64 = 16 << 20;

/// A containerd that was started by us, or by our predecessor.
#[derive(Debug)]
pub(super) struct Process {
    pid: i32,
    /// The configuration it was started with.
    pub(super) config: PathBuf,
    whose: Whose,
}

#[derive(Debug)]
enum Whose {
    /// Our child, who has to be reaped.
    Ours(Child),
    /// Found, with the moment at which it was started, by which it is told from another that has its number
    /// later.
    Found { started: u64 },
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
        Ok(Process { pid, config: laid_out.to_owned(), whose: Whose::Ours(child) })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether its database is the one below this directory. It is not if the directory was moved away under it: it
    /// goes on writing where that lies now. One that has none open yet is taken for one that will open this.
    ///
    /// The kernel says by which path a file that is open is reached now. Numbers of inodes would not do: file systems
    /// in user space may give others to a file that is open and to the same file by its path.
    pub(super) fn works_in(&self, root: &Path) -> bool {
        let opened = fs::read_dir(format!("/proc/{}/fd", self.pid)).into_iter().flatten().flatten();
        let databases = opened.filter_map(|fd| fs::read_link(fd.path()).ok()).filter(|to| is_named(to, DATABASE));
        let databases: Vec<PathBuf> = databases.collect();
        let Ok(root) = fs::canonicalize(root) else { return true };
        databases.is_empty() || databases.contains(&root.join(DATABASE))
    }

    /// Whether it runs; one that has ended and was not reaped does not.
    pub(super) fn runs(&mut self) -> bool {
        match &mut self.whose {
            // Its command line says nothing for a moment while it becomes containerd.
            Whose::Ours(child) => matches!(child.try_wait(), Ok(None)),
            Whose::Found { started } => started_at(self.pid) == Some(*started),
        }
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&mut self, socket: &Path) {
        if let Whose::Ours(child) = &mut self.whose {
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
    }
}

/// Whether a file that is open is called so; the kernel says behind its name that it is deleted.
fn is_named(opened: &Path, name: &str) -> bool {
    opened.to_string_lossy().trim_end_matches(" (deleted)").ends_with(name)
}

/// All that run with a configuration in this directory, seen in the file system as we see it.
pub(super) fn find(root: &Path) -> Vec<Process> {
    let ours = fs::read_link("/proc/self/ns/mnt").ok();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| Some((pid, config_of(pid).filter(|c| c.parent() == Some(root))?)))
        .filter(|(pid, _)| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok() == ours)
        .filter_map(|(pid, config)| Some(Process { pid, config, whose: Whose::Found { started: started_at(pid)? } }))
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

/// When a process was started, in the kernel's ticks since the boot, if it has not ended (proc(5), stat:
/// fields 3 and 22, after the name, which may hold anything).
fn started_at(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_until_it_has_ended() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let started = started_at(pid).unwrap();
        assert!(started >= started_at(i32::try_from(std::process::id()).unwrap()).unwrap());
        child.kill().unwrap();
        // It is a zombie before it is reaped.
        while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z ")) {
            std::thread::yield_now();
        }
        assert_eq!(started_at(pid), None);
        child.wait().unwrap();
        assert_eq!(started_at(pid), None);
    }

    #[test]
    fn a_log_that_has_grown_is_begun_anew_once_kept() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("containerd.log");
        let mut writer = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        std::io::Write::write_all(&mut writer, b"a little\n").unwrap();
        bound_log(&log);
        assert_eq!(log_tail(&log), "a little");
        writer.set_len(LOG_MAX + 1).unwrap();
        bound_log(&log);
        std::io::Write::write_all(&mut writer, b"after\n").unwrap();
        assert_eq!((fs::read(&log).unwrap(), log_tail(&log)), (b"after\n".to_vec(), "after".into()));
        assert_eq!(fs::metadata(dir.path().join("containerd.log.1")).unwrap().len(), LOG_MAX + 1);
    }
}
