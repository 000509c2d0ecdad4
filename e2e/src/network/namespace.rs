//! A network namespace, and doing something in it.

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::Pid;
use std::fs::File;
use std::panic::resume_unwind;

/// A network namespace. It lives as long as this handle, a process or a socket in it: there is no name of it in
/// any folder that could stay behind.
#[derive(Debug)]
pub struct Namespace(File);

/// Namespaces of networks belong to threads, so a thread that ends can have another than its process.
const OF_THIS_THREAD: &str = "/proc/thread-self/ns/net";

impl Namespace {
    /// Makes an empty one.
    ///
    /// # Errors
    /// Without root.
    pub fn new() -> Result<Namespace> {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace: root is needed")?;
            Ok(Namespace(File::open(OF_THIS_THREAD)?))
        })
    }

    /// The one that a process is in.
    ///
    /// # Errors
    /// If there is no such process.
    pub(crate) fn of(pid: Pid) -> Result<Namespace> {
        Ok(Namespace(File::open(format!("/proc/{pid}/ns/net"))?))
    }

    /// Does something in it. What it makes there, sockets above all, stays there and can be used from anywhere;
    /// programs that it starts are in there.
    ///
    /// # Errors
    /// What `act` says.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_a_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")?;
            act()
        })
    }
}

/// On a thread that ends with it: nobody else is ever in another namespace than they think.
fn on_a_thread<T: Send>(act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| scope.spawn(act).join().unwrap_or_else(|panic| resume_unwind(panic)))
}
