//! Programs that a story runs to their end, and where they are found.

use crate::until;
use anyhow::{Context, Result, bail};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

/// No single command of a story takes this long; one that does is stuck, and is killed.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a command answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The command as typed, for errors.
    command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained or warned about.
    pub stderr: String,
}

impl Answer {
    /// Did it end with success?
    pub fn succeeded(&self) -> bool {
        self.status.success()
    }

    /// What it printed, if it ended with success.
    ///
    /// # Errors
    /// If it did not, with all it said.
    pub fn success(self) -> Result<String> {
        if !self.succeeded() {
            bail!("{}", self.told());
        }
        Ok(self.stdout)
    }

    /// All of it, for people.
    pub fn told(&self) -> String {
        format!("`{}` ended with {}\n{}{}", self.command, self.status, self.stdout, self.stderr)
    }
}

/// Runs a command to its end, whatever that is, with `input` on its standard input.
pub(crate) fn answer(mut command: Command, shown: &str, input: impl AsRef<[u8]>) -> Result<Answer> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Killed(command.spawn().with_context(|| format!("cannot start `{shown}`"))?);
    let (mut stdin, input) = (child.0.stdin.take().context("no stdin")?, input.as_ref().to_owned());
    // A command may end without reading its input: then the write fails, and its own message tells why.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = collect(child.0.stdout.take().context("no stdout")?);
    let stderr = collect(child.0.stderr.take().context("no stderr")?);
    let status = until(&format!("the end of `{shown}`"), PATIENCE, || Ok(child.0.try_wait()?))?;
    let joined = |thread: JoinHandle<String>| thread.join().unwrap_or_default();
    drop(writer.join());
    Ok(Answer { command: shown.to_owned(), status, stdout: joined(stdout), stderr: joined(stderr) })
}

/// Reads all there is, as text, on a thread of its own.
pub(crate) fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(from.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A process that does not outlive its handle.
#[derive(Debug)]
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself: either way it is gone after this.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The resident memory of a process, in bytes.
///
/// # Errors
/// If there is no such process.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// The one child of a process that has one.
///
/// # Errors
/// If none comes.
pub(crate) fn only_child(of: u32) -> Result<Pid> {
    until("a child process", Duration::from_secs(30), || {
        let children = fs::read_to_string(format!("/proc/{of}/task/{of}/children"))?;
        Ok(children.split_whitespace().next().map(str::parse).transpose()?.map(Pid::from_raw))
    })
}

/// A program as the workspace built it: beside the folder this test was built into.
///
/// # Errors
/// If it is not built.
pub(crate) fn built(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("this test is in no folder")?;
    let target = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let program = target.join(name);
    File::open(&program).with_context(|| format!("{} is not built: make e2e builds it", program.display()))?;
    Ok(Path::new(&program).to_owned())
}

/// A program that `make` fetched.
///
/// # Errors
/// If it is not known where it is.
pub fn tool(name: &str) -> Result<PathBuf> {
    let tools = std::env::var_os("BEEMESH_TOOLS").context("BEEMESH_TOOLS names no folder: run `make e2e`")?;
    Ok(Path::new(&tools).join(name))
}
