//! The real kubectl, at the version the stories are written for.

use crate::process::{self, Answer, Killed, collect};
use crate::until;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A kubectl bound to one kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    pub(crate) fn new(kubeconfig: &Path, home: &Path) -> Kubectl {
        Kubectl { kubeconfig: kubeconfig.to_owned(), home: home.to_owned() }
    }

    /// Runs a command to its end, whatever that is.
    ///
    /// # Errors
    /// If kubectl is not there or is stuck.
    pub fn run(&self, args: &[&str]) -> Result<Answer> {
        self.run_with(args, "")
    }

    /// As [`Kubectl::run`], with `input` on its standard input.
    ///
    /// # Errors
    /// As [`Kubectl::run`].
    pub fn run_with(&self, args: &[&str], input: &str) -> Result<Answer> {
        process::answer(self.command(args)?, &format!("kubectl {}", args.join(" ")), input)
    }

    /// Runs a command that must succeed. Returns what it printed.
    ///
    /// # Errors
    /// If it fails, with all it said.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        self.ok_with(args, "")
    }

    /// As [`Kubectl::ok`], with `input` on its standard input.
    ///
    /// # Errors
    /// As [`Kubectl::ok`].
    pub fn ok_with(&self, args: &[&str], input: &str) -> Result<String> {
        self.run_with(args, input)?.success()
    }

    /// Runs a command that must print JSON.
    ///
    /// # Errors
    /// If it fails or prints something else.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.ok(&args)?).context("kubectl printed no JSON")
    }

    /// Runs a command that must be refused. Returns what it complained.
    ///
    /// # Errors
    /// If it succeeds.
    pub fn refused(&self, args: &[&str], input: &str) -> Result<String> {
        let answer = self.run_with(args, input)?;
        if answer.succeeded() {
            bail!("should have been refused: {}", answer.told());
        }
        Ok(answer.stderr)
    }

    /// Starts a command that goes on (`get --watch`, `logs -f`), line by line.
    ///
    /// # Errors
    /// If kubectl is not there.
    pub fn watch(&self, args: &[&str]) -> Result<Watching> {
        let mut command = self.command(args)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start kubectl")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let stderr = collect(child.stderr.take().context("no stderr")?);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let into = lines.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                into.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Ok(Watching { child: Killed(child), lines, threads: Some((reader, stderr)) })
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let tools = std::env::var_os("BEEMESH_TOOLS").context("BEEMESH_TOOLS names no folder: run `make e2e`")?;
        let mut command = Command::new(Path::new(&tools).join("kubectl"));
        command.args(args).env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.home);
        Ok(command)
    }
}

/// A command that goes on. It is killed when the handle goes.
#[derive(Debug)]
pub struct Watching {
    child: Killed,
    lines: Arc<Mutex<Vec<String>>>,
    threads: Option<(JoinHandle<()>, JoinHandle<String>)>,
}

impl Watching {
    /// The lines printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line.
    ///
    /// # Errors
    /// If it does not come, with what came.
    pub fn until_line(&self, wanted: &str) -> Result<()> {
        let seen = || Ok(self.lines().iter().any(|l| l == wanted).then_some(()));
        until(&format!("the line {wanted:?}"), Duration::from_secs(30), seen)
            .with_context(|| format!("what came: {:?}", self.lines()))
    }

    /// Ends it. Returns the lines it printed and what it complained.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn end(mut self) -> Result<(Vec<String>, String)> {
        self.child.0.kill()?;
        self.child.0.wait()?;
        let mut complaint = String::new();
        if let Some((reader, stderr)) = self.threads.take() {
            drop(reader.join());
            complaint = stderr.join().unwrap_or_default();
        }
        Ok((self.lines(), complaint))
    }
}
