//! One `beemesh up`, started, killed and started again.

use crate::{Answer, Kubectl, Loss, Machine, Place, process, until};
use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a node may take to serve, or to stop, before the story fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a node with a machine of its own writes its kubeconfig.
const KUBECONFIG: &str = "/root/admin.kubeconfig";

/// How a node is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its data lies.
    pub data: PathBuf,
    /// The address it listens at.
    pub address: Ipv4Addr,
    /// More flags of `beemesh up`.
    pub flags: Vec<String>,
    /// What it joins a mesh by, instead of founding one.
    pub ticket: Option<String>,
    /// The machine it runs in; none: this one. Paths are the machine's.
    pub machine: Option<Arc<Machine>>,
}

impl Options {
    /// A node that keeps cells and serves the API without running pods.
    pub fn without_pods(data: PathBuf) -> Options {
        let flags = vec!["--runtime".to_owned(), "none".to_owned()];
        Options { data, address: Place::address(), flags, ticket: None, machine: None }
    }

    /// A node that runs pods, in a machine of its own.
    pub fn with_pods(machine: &Arc<Machine>) -> Options {
        let flags = vec!["--runtime".to_owned(), "containerd".to_owned()];
        let (data, address) = (PathBuf::from(Options::DATA), machine.address());
        Options { data, address, flags, ticket: None, machine: Some(machine.clone()) }
    }

    /// Where its API listens. On this machine not at the usual port: somebody who runs a node here has it, at every
    /// address.
    pub fn api(&self) -> SocketAddr {
        (self.address, if self.machine.is_some() { 6443 } else { 26443 }).into()
    }

    /// Where a node with a machine of its own has its data.
    pub const DATA: &str = "/var/lib/beemesh";
}

/// A running node. It is killed when the handle goes.
#[derive(Debug)]
pub struct Node {
    options: Options,
    kubeconfig: PathBuf,
    home: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// Starts a node and waits until it says that it is ready.
    ///
    /// # Errors
    /// If it cannot be started, ends, or is not ready in time; its log is part of the error.
    pub fn start(place: &Place, options: Options) -> Result<Node> {
        let mut node = Node::prepare(place, options)?;
        node.start_again()?;
        Ok(node)
    }

    /// A node that is not started yet.
    ///
    /// # Errors
    /// If its home folder cannot be made.
    pub fn prepare(place: &Place, options: Options) -> Result<Node> {
        let name = options.address.to_string();
        let home = place.join(&format!("home-{name}"));
        std::fs::create_dir_all(&home)?;
        let kubeconfig = match &options.machine {
            Some(machine) => machine.on_disk(KUBECONFIG),
            None => place.join(&format!("kubeconfig-{name}")),
        };
        Ok(Node { kubeconfig, log: place.join(&format!("log-{name}")), home, options, child: None })
    }

    /// Starts it again after [`Node::kill`] or [`Node::stop`] and waits until it is ready. Returns how long
    /// that took.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_again(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.spawn()?;
        let kubectl = self.kubectl();
        let mut said = String::new();
        let ready = until("a ready node", PATIENCE, || {
            self.still_runs()?;
            if !self.kubeconfig.exists() {
                return Ok(None);
            }
            let answer = kubectl.run(&["get", "--raw", "/readyz?verbose"])?;
            said = answer.told();
            Ok(answer.succeeded().then_some(()))
        });
        ready.with_context(|| format!("{said}\n{}", self.log_tail()))?;
        Ok(start.elapsed())
    }

    /// Starts it and kills it so long afterwards, somewhere in its start.
    ///
    /// # Errors
    /// If it cannot be started, or ends by itself.
    pub fn start_and_kill_after(&mut self, after: Duration) -> Result<()> {
        self.spawn()?;
        // In a machine the process is a child of the way in, which has to come first.
        self.pid()?;
        std::thread::sleep(after);
        self.kill().with_context(|| self.log_tail())
    }

    /// Starts it, expecting that it refuses. Returns how it ended and what it printed.
    ///
    /// # Errors
    /// If it cannot be started or goes on running.
    pub fn start_refused(&mut self) -> Result<(ExitStatus, String)> {
        self.spawn()?;
        let status = self.wait_for_its_end()?;
        Ok((status, self.log_tail()))
    }

    fn spawn(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("the node runs already");
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = match &self.options.machine {
            Some(machine) => {
                if !machine.is_on() {
                    machine.boot()?;
                }
                let mut command = machine.command(&machine.program("beemesh"))?;
                command.args(self.verb()).args(["--kubeconfig", KUBECONFIG]);
                command
            }
            None => {
                // setpriv: if this test is killed, the kernel kills the node, and nothing is left behind. It
                // execs, so the pid is the node's.
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL"]).arg(process::built("beemesh")?).args(self.verb());
                command.arg("--kubeconfig").arg(&self.kubeconfig).env("HOME", &self.home).env_remove("KUBECONFIG");
                command
            }
        };
        let child = command
            .arg("--data")
            .arg(&self.options.data)
            .args(["--api", &self.options.api().to_string(), "--listen", &format!("{}:7443", self.options.address)])
            .args(&self.options.flags)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start setpriv (package util-linux)")?;
        self.child = Some(child);
        Ok(())
    }

    /// `up`, or `join` and a ticket.
    fn verb(&self) -> Vec<&str> {
        self.options.ticket.as_ref().map_or(vec!["up"], |ticket| vec!["join", ticket])
    }

    /// From now on it is started to join a mesh by this ticket, or, without one, as it is.
    pub fn joins_by(&mut self, ticket: Option<String>) {
        self.options.ticket = ticket;
    }

    /// What `beemesh invite` prints on the node's machine.
    ///
    /// # Errors
    /// If it refuses; what it said is part of the error.
    pub fn invite(&self, flags: &[&str]) -> Result<String> {
        let ticket = self.beemesh(&[&["invite"], flags].concat())?.success()?;
        Ok(ticket.trim_end().to_owned())
    }

    /// Runs a command of the operator's on the node's machine to its end, whatever that is.
    ///
    /// # Errors
    /// If it has no machine of its own, or the command does not end.
    pub fn beemesh(&self, args: &[&str]) -> Result<Answer> {
        let data = self.options.data.to_str().context("a path of the stage is UTF-8")?;
        let machine = self.options.machine.as_ref().context("the node has no machine of its own")?;
        let program = machine.program("beemesh");
        machine.run(&[&[program.as_str()], args, &["--data", data]].concat())
    }

    fn still_runs(&mut self) -> Result<()> {
        let child = self.child.as_mut().context("the node was not started")?;
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                self.child = None;
                Err(anyhow!("the node ended ({status})"))
            }
        }
    }

    /// A kubectl that speaks to this node as its administrator.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.kubeconfig, &self.home)
    }

    /// `kill -9`: what it had in memory is gone, what it wrote is in the page cache. Returns when the process
    /// is gone.
    ///
    /// # Errors
    /// If it was not running.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait_for_its_end()?;
        Ok(())
    }

    /// Pulls the plug of the node's machine: see [`Machine::power_cut`]. [`Node::start_again`] switches it on.
    ///
    /// # Errors
    /// If it has no machine of its own, or that was off.
    pub fn power_cut(&mut self, loss: Loss) -> Result<()> {
        self.options.machine.as_ref().context("the node has no machine of its own")?.power_cut(loss)?;
        if self.child.is_some() {
            self.wait_for_its_end()?;
        }
        Ok(())
    }

    /// SIGTERM, then waits for its orderly end.
    ///
    /// # Errors
    /// If it was not running or does not end in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait_for_its_end()
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        self.still_runs()?;
        Ok(kill(self.pid()?, signal)?)
    }

    /// The number of its process, as it is known here.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pid(&self) -> Result<Pid> {
        let child = self.child.as_ref().context("the node does not run")?;
        match self.options.machine {
            // The child is the way into the machine; the node is its child.
            Some(_) => process::only_child(child.id()),
            None => Ok(Pid::from_raw(i32::try_from(child.id())?)),
        }
    }

    /// Waits for an end that nobody asked for.
    ///
    /// # Errors
    /// If it was not running or goes on.
    pub fn wait_for_its_end(&mut self) -> Result<ExitStatus> {
        let child = self.child.as_mut().context("the node does not run")?;
        let status = until("the node's end", PATIENCE, || Ok(child.try_wait()?));
        let status = status.with_context(|| self.log_tail())?;
        self.child = None;
        Ok(status)
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// If it does not run.
    pub fn resident_bytes(&self) -> Result<u64> {
        process::resident_bytes(self.pid()?.as_raw().unsigned_abs())
    }

    /// Where its data lies.
    pub fn data(&self) -> &Path {
        &self.options.data
    }

    /// The end of what it printed, for people.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(80)..].join("\n");
        format!("--- {}, the end of its log:\n{tail}\n---", self.options.address)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.child.is_some() {
            // Shown of a story that fails, and only then.
            eprintln!("{}", self.log_tail());
            // It may have ended by itself: either way it is gone after this.
            let _ = self.kill();
        }
    }
}
