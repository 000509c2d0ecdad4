//! What happens on the machine's own side: the namespaces are made, its first process lays out the file
//! system and then reaps, and programs are brought in from outside. `e2e/src/bin/machine.rs` runs this; it
//! is a program of its own because namespaces belong to processes, and tests are threads.

use super::cgroups::{Groups, Hierarchy};
use crate::network;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{chdir, pivot_root, sethostname};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the first process needs to know. Handed over as JSON, on the command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    /// Its host name.
    pub(super) name: String,
    /// The folder that becomes its root directory.
    pub(super) disk: PathBuf,
    /// Its control groups.
    pub(super) groups: Groups,
    /// Its addresses, each with the length of the prefix.
    pub(super) addresses: Vec<String>,
    /// Where it sends what is for elsewhere.
    pub(super) gateway: String,
    /// Further paths from outside.
    pub(super) binds: Vec<Bind>,
}

/// A path from outside, seen inside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Bind {
    pub(super) outside: PathBuf,
    pub(super) inside: PathBuf,
    pub(super) read_only: bool,
}

/// Said on standard output when the namespaces are there.
pub(super) const MADE: &str = "made";
/// Said to the machine when its cable is plugged in.
pub(super) const PLUGGED: &str = "plugged";
/// Said on standard output when the machine is up.
pub(super) const UP: &str = "up";

/// The folder, below the machine's disk, of programs that come from outside.
pub(super) const PROGRAMS: &str = "/opt/beemesh";

type Text<'a> = Option<&'a str>;

/// The program `machine`.
///
/// # Errors
/// If the machine cannot be made or entered, in a sentence for its console.
pub fn main() -> Result<i32> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["boot", spec] => boot(spec),
        ["init", spec] => init(&serde_json::from_str(spec)?),
        ["enter", pid, groups, program, ref rest @ ..] => enter(pid, &serde_json::from_str(groups)?, program, rest),
        _ => bail!("this program is started by e2e::Machine"),
    }
}

/// Makes the namespaces and starts the first process in them; ends when that has ended, which is when all
/// others have.
fn boot(spec: &str) -> Result<i32> {
    let parsed: Spec = serde_json::from_str(spec)?;
    // Before the namespace of control groups is made: it is rooted where its maker is.
    parsed.groups.join()?;
    let all = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    let all = all | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWPID;
    unshare(all).context("cannot make namespaces: root is needed")?;
    let status = Command::new(std::env::current_exe()?).args(["init", spec]).status()?;
    Ok(status.code().unwrap_or(1))
}

/// The first process of a machine.
fn init(spec: &Spec) -> Result<i32> {
    say(MADE)?;
    let mut stdin = BufReader::new(std::io::stdin());
    let mut line = String::new();
    stdin.read_line(&mut line)?;
    if line.trim_end() != PLUGGED {
        bail!("the test ended before the machine was up");
    }
    // Before the second thread is there: it would take the signal.
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block()?;
    // Whoever made this machine holds the other end. When it goes, however it goes, all here goes with the
    // first process.
    std::thread::spawn(move || {
        let _ = stdin.read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    sethostname(&spec.name)?;
    network(spec).context("the network")?;
    root(spec).context("the file system")?;
    say(UP)?;
    loop {
        reap()?;
        children.wait()?;
    }
}

fn say(word: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{word}")?;
    Ok(out.flush()?)
}

/// Takes note of every orphan that has ended.
fn reap() -> Result<()> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn network(spec: &Spec) -> Result<()> {
    network::ip(&["link", "set", "lo", "up"])?;
    for address in &spec.addresses {
        network::add_address(address, "eth0")?;
    }
    network::ip(&["link", "set", "eth0", "up"])?;
    network::ip(&["route", "add", "default", "via", &spec.gateway])
}

/// Lays out the file system on the machine's disk and makes it the root.
fn root(spec: &Spec) -> Result<()> {
    let disk = &spec.disk;
    umask(Mode::empty());
    // Nothing that is mounted from here on is seen outside.
    mount(Text::None, "/", Text::None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, Text::None)?;
    bind(disk, disk, false)?;
    for name in ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        let (outside, inside) = (Path::new("/").join(name), disk.join(name));
        match fs::symlink_metadata(&outside) {
            Ok(m) if m.is_symlink() => {
                let _ = fs::remove_file(&inside);
                symlink(fs::read_link(&outside)?, &inside)?;
            }
            Ok(_) => bind(&outside, &inside, true)?,
            Err(_) => {}
        }
    }
    for each in &spec.binds {
        let inside = disk.join(each.inside.strip_prefix("/")?);
        bind(&each.outside, &inside, each.read_only)?;
    }
    let fresh = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    of_kind("proc", &disk.join("proc"), fresh, "")?;
    of_kind("sysfs", &disk.join("sys"), fresh, "")?;
    of_kind("tmpfs", &disk.join("run"), fresh, "mode=755")?;
    of_kind("tmpfs", &disk.join("dev"), MsFlags::MS_NOSUID, "mode=755")?;
    devices(&disk.join("dev"))?;
    groups(&disk.join("sys/fs/cgroup"), &spec.groups)?;
    boot_id(disk)?;
    chdir(disk)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    // As systemd has it: volumes that are mounted later may be passed on into pods.
    mount(Text::None, "/", Text::None, MsFlags::MS_REC | MsFlags::MS_SHARED, Text::None)?;
    Ok(())
}

/// Shows a file or folder from outside at a place that is made for it.
fn bind(outside: &Path, inside: &Path, read_only: bool) -> Result<()> {
    let told = || format!("cannot bind {} to {}", outside.display(), inside.display());
    if outside.is_dir() {
        fs::create_dir_all(inside)?;
    } else if !inside.exists() {
        fs::create_dir_all(inside.parent().context("a bind to /")?)?;
        File::create(inside)?;
    }
    mount(Some(outside), inside, Text::None, MsFlags::MS_BIND | MsFlags::MS_REC, Text::None).with_context(told)?;
    if read_only {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(Text::None, inside, Text::None, flags, Text::None).with_context(told)?;
    }
    Ok(())
}

fn of_kind(kind: &str, at: &Path, flags: MsFlags, options: &str) -> Result<()> {
    fs::create_dir_all(at)?;
    mount(Some(kind), at, Some(kind), flags, Some(options))
        .with_context(|| format!("cannot mount {kind} ({options}) at {}", at.display()))
}

/// The devices every Linux machine has, and those containers and file systems ask for.
fn devices(dev: &Path) -> Result<()> {
    let kinds = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    for (name, major, minor) in kinds.into_iter().chain([("fuse", 10, 229), ("kmsg", 1, 11)]) {
        mknod(&dev.join(name), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))
            .with_context(|| format!("cannot make /dev/{name}"))?;
    }
    of_kind("devpts", &dev.join("pts"), MsFlags::MS_NOSUID, "newinstance,ptmxmode=0666,mode=0620")?;
    of_kind("tmpfs", &dev.join("shm"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=1777")?;
    of_kind("mqueue", &dev.join("mqueue"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "")?;
    for (name, target) in
        [("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1")]
    {
        symlink(target, dev.join(name))?;
    }
    Ok(symlink("/proc/self/fd/2", dev.join("stderr"))?)
}

/// The control groups as they are mounted outside, rooted at the machine's own.
fn groups(at: &Path, groups: &Groups) -> Result<()> {
    if let [Hierarchy { options: None, .. }] = groups.hierarchies() {
        of_kind("cgroup2", at, MsFlags::empty(), "")?;
        return Groups::delegate(at);
    }
    of_kind("tmpfs", at, MsFlags::empty(), "mode=755")?;
    for hierarchy in groups.hierarchies() {
        let at = at.join(&hierarchy.name);
        match &hierarchy.options {
            Some(options) => of_kind("cgroup", &at, MsFlags::empty(), options)?,
            None => of_kind("cgroup2", &at, MsFlags::empty(), "")?,
        }
        // Two controllers in one hierarchy are found by either name.
        for name in hierarchy.name.split(',').filter(|name| *name != hierarchy.name) {
            symlink(&hierarchy.name, at.with_file_name(name))?;
        }
    }
    Ok(())
}

/// Each time the machine starts it is another boot, though the kernel below is the same.
fn boot_id(disk: &Path) -> Result<()> {
    let path = disk.join("run/boot_id");
    fs::write(&path, fs::read("/proc/sys/kernel/random/uuid")?)?;
    bind(&path, &disk.join("proc/sys/kernel/random/boot_id"), true)
}

/// Runs a program inside, from outside: in the machine's control groups and namespaces, with these standard
/// streams and environment. It dies with this process.
fn enter(pid: &str, groups: &Groups, program: &str, args: &[&str]) -> Result<i32> {
    let open = |name: &str| File::open(format!("/proc/{pid}/ns/{name}"));
    let namespaces = [
        (open("cgroup"), CloneFlags::CLONE_NEWCGROUP),
        (open("ipc"), CloneFlags::CLONE_NEWIPC),
        (open("uts"), CloneFlags::CLONE_NEWUTS),
        (open("net"), CloneFlags::CLONE_NEWNET),
        (open("pid"), CloneFlags::CLONE_NEWPID),
        (open("mnt"), CloneFlags::CLONE_NEWNS),
    ];
    groups.join()?;
    for (namespace, kind) in namespaces {
        setns(namespace.context("the machine is off")?, kind)?;
    }
    chdir("/")?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]).args(args);
    let status = command.status().context("cannot start setpriv (package util-linux)")?;
    Ok(status.code().or(status.signal().map(|s| 128 + s)).unwrap_or(1))
}
