//! The real kubectl, at the version the stories are written for.

use crate::process::{self, Answer, Killed, collect};
use crate::{Terminal, until};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long something may take that waits for pods.
const LONG: Duration = Duration::from_secs(60);

/// A kubectl bound to one kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    home: PathBuf,
    env: Vec<(String, String)>,
}

impl Kubectl {
    pub(crate) fn new(kubeconfig: &Path, home: &Path) -> Kubectl {
        Kubectl { kubeconfig: kubeconfig.to_owned(), home: home.to_owned(), env: Vec::new() }
    }

    /// The same, with a variable more in its environment.
    #[must_use]
    pub fn with_env(&self, name: &str, value: &str) -> Kubectl {
        let mut other = self.clone();
        other.env.push((name.to_owned(), value.to_owned()));
        other
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

    /// Starts a command at a terminal.
    ///
    /// # Errors
    /// If kubectl is not there.
    pub fn terminal(&self, args: &[&str]) -> Result<Terminal> {
        Terminal::open(&self.command(args)?)
    }

    /// Runs a command until it succeeds and prints this.
    ///
    /// # Errors
    /// If that does not come, with what it said last.
    pub fn until_prints(&self, wanted: &str, args: &[&str]) -> Result<()> {
        let mut last = String::new();
        until(&format!("{wanted:?}"), LONG, || {
            let answer = self.run(args)?;
            last = answer.told();
            Ok((answer.succeeded() && answer.stdout == wanted).then_some(()))
        })
        .with_context(|| format!("what it said last: {last}"))
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
        let mut command = Command::new(process::tool("kubectl")?);
        command.args(args).env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.home);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
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

    /// Waits for a line with something in it. Returns it.
    ///
    /// # Errors
    /// If it does not come, with what came.
    pub fn until_line_with(&self, wanted: &str) -> Result<String> {
        let seen = || Ok(self.lines().into_iter().find(|l| l.contains(wanted)));
        until(&format!("a line with {wanted:?}"), LONG, seen).with_context(|| format!("what came: {:?}", self.lines()))
    }

    /// Waits for its own end. Returns how it ended and the lines it printed.
    ///
    /// # Errors
    /// If it goes on.
    pub fn until_end(mut self) -> Result<(ExitStatus, Vec<String>)> {
        let status = until("the end of a command", LONG, || Ok(self.child.0.try_wait()?));
        let status = status.with_context(|| format!("what came: {:?}", self.lines()))?;
        if let Some((reader, stderr)) = self.threads.take() {
            drop(reader.join());
            drop(stderr.join());
        }
        Ok((status, self.lines()))
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
