//! A small machine of a story's own, made of namespaces: it has its own disk, processes, network and `/run`,
//! and its plug can be pulled.
//!
//! Its root directory is a file system of its own; programs come from this machine's `/usr`, which it cannot write. What it
//! starts is in control groups of its own. A cable leads to the test and nowhere else, or to a
//! [`Network`] of machines. All of it goes when the handle goes or the test dies.

mod cable;
mod cgroups;
mod disk;
mod inside;
mod uplink;

pub(crate) use cgroups::sweep;
pub use inside::main;

use crate::network::{Namespace, Plug};
use crate::process::{self, Answer};
use crate::{Forgetful, Loss, Network, Place, until};
use anyhow::{Context, Result, bail};
use cable::Cable;
use cgroups::Groups;
use disk::Disk;
use inside::{Bind, Spec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uplink::Uplink;

/// How long a machine may take to start, or a process to begin or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A machine. It is switched off, and what it left is removed, when the handle goes.
#[derive(Debug)]
pub struct Machine {
    name: String,
    disk: Disk,
    console: PathBuf,
    binds: Vec<Bind>,
    power: Mutex<Option<Power>>,
    groups: Groups,
    uplink: Uplink,
    forgetful: Option<Forgetful>,
}

/// A machine that is on.
#[derive(Debug)]
struct Power {
    /// The process that waits for the machine's first one.
    outer: Child,
    /// The machine's first process, by its number out here.
    first: Pid,
    /// The machine lives as long as this is open.
    lifeline: ChildStdin,
    frozen: bool,
}

/// How a machine is made.
#[derive(Clone, Debug)]
pub struct Model {
    name: String,
    programs: Vec<PathBuf>,
    forgetful: Option<(PathBuf, u64, Vec<PathBuf>)>,
}

impl Model {
    /// A machine with that host name, which has `beemesh` as `/opt/beemesh/beemesh`.
    ///
    /// # Errors
    /// If the program is not built.
    pub fn new(name: &str) -> Result<Model> {
        Ok(Model { name: name.to_owned(), programs: vec![process::built("beemesh")?], forgetful: None })
    }

    /// Puts that folder of the machine on a disk of that capacity which forgets what was not synced. Those of
    /// its folders that are named lie on the common disk all the same: a container's root needs a file
    /// system that the kernel itself knows well.
    #[must_use]
    pub fn forgetting(mut self, folder: &str, capacity_bytes: u64, but_for: &[&str]) -> Model {
        let kept = but_for.iter().map(PathBuf::from).collect();
        self.forgetful = Some((PathBuf::from(folder), capacity_bytes, kept));
        self
    }
}

impl Machine {
    /// Makes a machine with a cable to the test, and switches it on.
    ///
    /// # Errors
    /// Without root, or if this kernel lacks something; the machine's console is part of the error.
    pub fn start(place: &Place, model: Model) -> Result<Machine> {
        Machine::make(place, model, Uplink::Cable(Cable::number()?))
    }

    /// Makes a machine that is plugged into the port of its name, and switches it on.
    ///
    /// # Errors
    /// As [`Machine::start`], or if the network has no such port.
    pub fn plugged(place: &Place, model: Model, network: &Arc<Network>) -> Result<Machine> {
        let plug = Plug::new(network, &model.name)?;
        Machine::make(place, model, Uplink::Plug(plug))
    }

    fn make(place: &Place, model: Model, uplink: Uplink) -> Result<Machine> {
        let folder = place.join(&model.name);
        let disk = Disk::mount(&folder)?;
        disk::install(disk.path(), &model.name, uplink.outside(), &uplink.hosts())?;
        let mut binds: Vec<Bind> = Vec::new();
        for program in &model.programs {
            let inside = Path::new(inside::PROGRAMS).join(program.file_name().context("a program without a name")?);
            binds.push(Bind { outside: program.clone(), inside, read_only: true });
        }
        let mut forgetful = None;
        if let Some((at, capacity_bytes, kept)) = model.forgetful {
            let mounted = Forgetful::mount(&folder.join("forgetful"), capacity_bytes)?;
            binds.push(Bind { outside: mounted.path().to_owned(), inside: at.clone(), read_only: false });
            for (n, name) in kept.into_iter().enumerate() {
                let outside = disk.path().join(format!("var/lib/kept-{n}"));
                fs::create_dir_all(&outside)?;
                binds.push(Bind { outside, inside: at.join(name), read_only: false });
            }
            forgetful = Some(mounted);
        }
        let groups = Groups::make(&format!("{}-{}", place.name(), model.name))?;
        let console = folder.join("console");
        let power = Mutex::new(None);
        let machine = Machine { name: model.name, disk, console, binds, power, groups, uplink, forgetful };
        machine.boot()?;
        Ok(machine)
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.uplink.inside()
    }

    /// The test's address, at the other end of its cable or in its network.
    pub fn outside(&self) -> Ipv4Addr {
        self.uplink.outside()
    }

    /// A path of the machine's disk as it is seen from outside.
    pub fn on_disk(&self, path: &str) -> PathBuf {
        self.disk.path().join(path.trim_start_matches('/'))
    }

    /// Where a program from outside is found inside.
    pub fn program(&self, name: &str) -> String {
        format!("{}/{name}", inside::PROGRAMS)
    }

    /// Switches it on again after [`Machine::power_cut`]. Its disk is as it was, its `/run` is empty.
    ///
    /// # Errors
    /// If it is on, or as [`Machine::start`].
    pub fn boot(&self) -> Result<()> {
        let mut power = self.power();
        if power.is_some() {
            bail!("{} is on", self.name);
        }
        let spec = Spec {
            name: self.name.clone(),
            disk: self.disk.path().to_owned(),
            groups: self.groups.clone(),
            addresses: self.uplink.addresses(),
            gateway: self.uplink.gateway().to_string(),
            binds: self.binds.clone(),
        };
        let console = OpenOptions::new().create(true).append(true).open(&self.console)?;
        let mut outer = Command::new(process::built("machine")?)
            .args(["boot", &serde_json::to_string(&spec)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(console)
            .spawn()?;
        let mut lifeline = outer.stdin.take().context("no stdin")?;
        let mut words = BufReader::new(outer.stdout.take().context("no stdout")?).lines();
        let mut heard = |wanted: &str| match words.next() {
            Some(Ok(word)) if word == wanted => Ok(()),
            _ => bail!("{} did not come up: {}", self.name, fs::read_to_string(&self.console).unwrap_or_default()),
        };
        let plugged = (|| {
            heard(inside::MADE)?;
            let first = process::only_child(outer.id())?;
            self.uplink.plug(first)?;
            writeln!(lifeline, "{}", inside::PLUGGED)?;
            heard(inside::UP)?;
            Ok(first)
        })();
        match plugged {
            Ok(first) => {
                *power = Some(Power { outer, first, lifeline, frozen: false });
                Ok(())
            }
            Err(e) => {
                drop(lifeline);
                outer.wait()?;
                Err(e)
            }
        }
    }

    /// Pulls the plug: the cable first, so that nobody hears a last word, then every process dies at once. What
    /// was not synced to a disk that forgets is lost as `loss` says. Returns when nothing is left of what ran.
    ///
    /// # Errors
    /// If it was off.
    pub fn power_cut(&self, loss: Loss) -> Result<()> {
        let power = self.power().take().with_context(|| format!("{} is off", self.name))?;
        self.uplink.silence(true)?;
        power.off(&self.groups)?;
        self.uplink.pull();
        if let Some(forgetful) = &self.forgetful {
            forgetful.cut(loss);
        }
        Ok(())
    }

    /// Stops it in the middle of everything, as when a virtual machine is paused: nothing runs, and nothing comes out
    /// of its network card or goes in. Its clock goes on.
    ///
    /// # Errors
    /// If it is off or frozen.
    pub fn freeze(&self) -> Result<()> {
        self.let_run(false)
    }

    /// Lets it go on after [`Machine::freeze`].
    ///
    /// # Errors
    /// If it is off or was not frozen.
    pub fn thaw(&self) -> Result<()> {
        self.let_run(true)
    }

    fn let_run(&self, run: bool) -> Result<()> {
        let mut power = self.power();
        let power = power.as_mut().with_context(|| format!("{} is off", self.name))?;
        if power.frozen != run {
            bail!("{} is {}", self.name, if run { "not frozen" } else { "frozen" });
        }
        // Its kernel, which is this one, would go on acknowledging: so its network is stopped with it, and before it.
        if run {
            self.groups.freeze(false)?;
            self.uplink.silence(false)?;
        } else {
            self.uplink.silence(true)?;
            if let Err(e) = self.groups.freeze(true) {
                self.groups.freeze(false)?;
                self.uplink.silence(false)?;
                return Err(e);
            }
        }
        power.frozen = !run;
        Ok(())
    }

    /// Does something in its network, here in the test: a socket made there is the machine's to all others.
    ///
    /// # Errors
    /// What `act` says, or if the machine is off.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let first = self.power().as_ref().with_context(|| format!("{} is off", self.name))?.first;
        Namespace::of(first)?.inside(act)
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.power().is_some()
    }

    /// A command that will run inside, in the root directory, with a plain environment. Killing it kills what it
    /// runs; it ends as that ends, with 128 and the signal's number after a signal.
    ///
    /// # Errors
    /// If the machine is off or frozen.
    pub fn command(&self, program: &str) -> Result<Command> {
        let power = self.power();
        let power = power.as_ref().with_context(|| format!("{} is off", self.name))?;
        if power.frozen {
            bail!("{} is frozen: what enters it would be, too", self.name);
        }
        let first = power.first;
        let mut command = Command::new(process::built("machine")?);
        command.args(["enter", &first.to_string(), &serde_json::to_string(&self.groups)?, program]);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", "/root").env("LANG", "C.UTF-8");
        Ok(command)
    }

    /// Runs a command inside to its end, whatever that is.
    ///
    /// # Errors
    /// If the machine is off, or the command is stuck.
    pub fn run(&self, args: &[&str]) -> Result<Answer> {
        let (program, rest) = args.split_first().context("no command")?;
        let mut command = self.command(program)?;
        command.args(rest);
        process::answer(command, &format!("{}# {}", self.name, args.join(" ")), "")
    }

    /// Runs a command inside that must succeed. Returns what it printed.
    ///
    /// # Errors
    /// If it fails, with all it said.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        self.run(args)?.success()
    }

    /// The processes inside, also in containers, whose program has that name; by their numbers out here.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn processes(&self, name: &str) -> Result<Vec<Pid>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?.path();
            // By control group: a container has a namespace of processes of its own.
            let own = fs::read_to_string(entry.join("cgroup")).is_ok_and(|groups| self.groups.are_in(&groups));
            let named = fs::read_to_string(entry.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
            if own && named {
                let number = entry.file_name().and_then(|n| n.to_str()).context("a strange /proc")?;
                found.push(Pid::from_raw(number.parse()?));
            }
        }
        Ok(found)
    }

    /// What its first process complained about.
    pub fn console(&self) -> String {
        fs::read_to_string(&self.console).unwrap_or_default()
    }

    fn power(&self) -> MutexGuard<'_, Option<Power>> {
        self.power.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Power {
    fn off(mut self, groups: &Groups) -> Result<()> {
        kill(self.first, Signal::SIGKILL)?;
        if self.frozen {
            // The signal comes before anything else that they would do, and the one that waits is among them.
            groups.freeze(false)?;
        }
        // The kernel ends all others of the machine before it lets the first one go.
        until("the end of a machine", PATIENCE, || Ok(self.outer.try_wait()?))?;
        drop(self.lifeline);
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let power = self.power().take();
        let off = power.map_or(Ok(()), |power| power.off(&self.groups));
        if let Err(e) = off.and_then(|()| self.groups.remove()) {
            eprintln!("{} leaves something behind: {e:#}", self.name);
        }
    }
}
