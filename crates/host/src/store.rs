//! The node's log on this machine: one thread that owns one directory and moves the bytes for a pure
//! machine ([`base::disk::Machine`]), which decides what they are.
//!
//! Commands come in by a bounded queue. All that is queued goes to the machine, which makes one frame of
//! it; that is one pwrite and one fdatasync, and then whatever has queued up meanwhile is the next frame:
//! the slower the disk, the larger the batch, and nothing waits for company. What the machine has to tell
//! goes to a [`Sink`], on the log's thread.
//!
//! The floor is the disk's fdatasync, some 20 µs to 10 ms: at one commit at a time that is all there is
//! to be seen. The program's example `log_bench` prints how far from it this is.

mod files;

pub use files::Lock;

use base::disk::{Effect, Input, Machine, Op, Recovery};
use base::{Now, Time, Wall};
use files::{Edge, Files, Kernel};
use nix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

/// Who is told what the machine has to tell. Called on the log's thread: whatever takes long holds up
/// every commit of the node.
pub trait Sink<N>: Send + 'static {
    /// One notice, in the order in which the machine told them.
    fn notice(&mut self, notice: N);

    /// The process must end now, saying `why`: nothing more will become durable, and what was on its way
    /// is unknown. If this returns, the log's thread ends and every later command is refused.
    fn fatal(&mut self, why: String);
}

/// Why a log was not opened. `E` is what recovery says.
#[derive(Debug, thiserror::Error)]
pub enum OpenError<E> {
    /// Another process has it.
    #[error(
        "{} is in use by {}; two at once would destroy it, so nothing was touched. Stop that process, or choose \
         another directory with --data", .dir.display(), .pid.map_or("another process".into(), |p| format!("process {p}"))
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process that has it, as far as it said.
        pid: Option<u32>,
    },
    /// The directory or a file in it cannot be used.
    #[error("cannot {operation} {}: {cause}; no record was changed", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// What the files hold is not to be gone on from.
    #[error("the log in {} cannot be used: {reason}", .dir.display())]
    Recovery {
        /// The directory.
        dir: PathBuf,
        /// Why, and what can be done.
        reason: E,
    },
}

/// A command that was not taken, handed back.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused<C> {
    /// As many wait as may.
    #[error("the log's queue is full; try again")]
    Busy(C),
    /// The log's thread has ended.
    #[error("the log has ended; the process is about to")]
    Ended(C),
}

/// A log that runs. Dropping it, and all its handles, ends its thread once what was queued is handed to
/// the machine and the disk is idle.
pub struct Store<M: Machine> {
    handle: Handle<M>,
    thread: JoinHandle<()>,
}

/// Hands commands to a log; as many of them as threads that want to.
pub struct Handle<M: Machine> {
    queue: SyncSender<M::Command>,
}

impl<M: Machine> fmt::Debug for Store<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("thread", &self.thread).finish_non_exhaustive()
    }
}

impl<M: Machine> fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl<M: Machine> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Handle { queue: self.queue.clone() }
    }
}

impl<M: Machine> Handle<M> {
    /// Queues a command.
    ///
    /// # Errors
    /// [`Refused`] with the command, if the queue is full or the log has ended. Nothing was done.
    pub fn send(&self, command: M::Command) -> Result<(), Refused<M::Command>> {
        self.queue.try_send(command).map_err(|e| match e {
            TrySendError::Full(command) => Refused::Busy(command),
            TrySendError::Disconnected(command) => Refused::Ended(command),
        })
    }

    /// Queues a command, waiting for room: as long as the disk takes for one batch. Never to be called
    /// from a [`Sink`], which would wait for itself.
    ///
    /// # Errors
    /// [`Refused::Ended`] with the command. Nothing was done.
    pub fn send_waiting(&self, command: M::Command) -> Result<(), Refused<M::Command>> {
        self.queue.send(command).map_err(|e| Refused::Ended(e.0))
    }
}

/// A log that runs and what was found in it; or why it was not opened.
pub type Opened<M> = Result<
    (Store<M>, <<M as Machine>::Recovery as Recovery>::Recovered),
    OpenError<<<M as Machine>::Recovery as Recovery>::Error>,
>;

impl<M: Machine> Store<M> {
    /// Opens the log in `dir`, making the directory and founding a log if there is none: locks it, reads
    /// every segment, and starts the log's thread. At most `queue` commands wait.
    ///
    /// # Errors
    /// [`OpenError`], worded for the operator. No record was changed.
    pub fn open(dir: &Path, config: M::Config, queue: usize, sink: impl Sink<M::Notice>) -> Opened<M> {
        Store::open_at(dir, config, queue, sink, Box::new(Kernel))
    }

    fn open_at(
        dir: &Path,
        config: M::Config,
        queue: usize,
        mut sink: impl Sink<M::Notice>,
        edge: Box<dyn Edge>,
    ) -> Opened<M> {
        let (files, found) = Files::open(dir, edge)?;
        let mut recovery = M::Recovery::new(config, &found);
        while let Some((segment, offset, bytes)) = recovery.next_read() {
            recovery.read(files.read(segment, offset, bytes));
        }
        let finished = recovery.finish();
        let (machine, recovered) = finished.map_err(|reason| OpenError::Recovery { dir: dir.to_owned(), reason })?;
        let (sender, commands) = sync_channel(queue);
        let spawned = thread::Builder::new().name("log".into()).spawn(move || {
            let worker =
                Worker { machine, files, commands, ops: VecDeque::new(), effects: Vec::new(), most: queue.max(1) };
            let ended = catch_unwind(AssertUnwindSafe(|| worker.run(&mut sink)));
            match ended {
                Ok(None) => {}
                Ok(Some(why)) => sink.fatal(why),
                // The panic's own message has been printed by the hook.
                Err(_) => sink.fatal("the log's thread has panicked; nothing more becomes durable".into()),
            }
        });
        let thread =
            spawned.map_err(|cause| OpenError::Io { operation: "start a thread for", path: dir.to_owned(), cause })?;
        Ok((Store { handle: Handle { queue: sender }, thread }, recovered))
    }

    /// Another way to hand it commands.
    pub fn handle(&self) -> Handle<M> {
        self.handle.clone()
    }

    /// As [`Handle::send`].
    ///
    /// # Errors
    /// As [`Handle::send`].
    pub fn send(&self, command: M::Command) -> Result<(), Refused<M::Command>> {
        self.handle.send(command)
    }

    /// Waits until the thread has ended and the directory is free. It ends once every [`Handle`] is
    /// dropped. For an orderly end tell the machine to close first, and wait for its answer.
    pub fn join(self) {
        drop(self.handle);
        // A panic of the thread has been told to the sink.
        let _ = self.thread.join();
    }
}

/// The log's thread.
struct Worker<M: Machine> {
    machine: M,
    files: Files,
    commands: Receiver<M::Command>,
    ops: VecDeque<Op>,
    effects: Vec<Effect<M::Notice>>,
    /// How many commands are taken before the disk gets its turn.
    most: usize,
}

impl<M: Machine> Worker<M> {
    /// Works until every handle is gone, or until the machine says why the process must end.
    fn run(mut self, sink: &mut impl Sink<M::Notice>) -> Option<String> {
        let mut ended = false;
        // The first time round nothing has come yet: the machine may have something to put in order.
        let mut input = Some(Input::Drained);
        loop {
            if let Some(input) = input.take()
                && let Err(why) = self.step(input, sink)
            {
                return Some(why);
            }
            loop {
                ended |= match self.take_waiting(sink) {
                    Ok(open) => !open,
                    Err(why) => return Some(why),
                };
                if let Err(why) = self.step(Input::Drained, sink) {
                    return Some(why);
                }
                let Some(op) = self.ops.pop_front() else { break };
                let done = self.files.perform(op);
                if let Err(why) = self.step(Input::Done(done), sink) {
                    return Some(why);
                }
            }
            if ended {
                return None;
            }
            input = Some(match self.wait() {
                Ok(input) => input,
                Err(Ended) => return None,
            });
        }
    }

    /// Waits for a command or the machine's deadline.
    fn wait(&self) -> Result<Input<M::Command>, Ended> {
        let Some(deadline) = self.machine.next_deadline() else {
            return self.commands.recv().map(Input::Command).map_err(|_| Ended);
        };
        match self.commands.recv_timeout(deadline.since(now().mono)) {
            Ok(command) => Ok(Input::Command(command)),
            Err(RecvTimeoutError::Timeout) => Ok(Input::Tick),
            Err(RecvTimeoutError::Disconnected) => Err(Ended),
        }
    }

    /// Hands in what waits; says whether more may come.
    fn take_waiting(&mut self, sink: &mut impl Sink<M::Notice>) -> Result<bool, String> {
        for _ in 0..self.most {
            match self.commands.try_recv() {
                Ok(command) => self.step(Input::Command(command), sink)?,
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn step(&mut self, input: Input<M::Command>, sink: &mut impl Sink<M::Notice>) -> Result<(), String> {
        self.machine.step(now(), input, &mut self.effects);
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Disk(op) => self.ops.push_back(op),
                Effect::Notice(notice) => sink.notice(notice),
                Effect::Fatal(why) => return Err(why),
            }
        }
        Ok(())
    }
}

/// Every handle is gone.
struct Ended;

/// The present. A clock that cannot be read stands still: the log only waits by it.
fn now() -> Now {
    let nanos = |clock| clock_gettime(clock).map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64);
    Now { mono: Time(nanos(ClockId::CLOCK_BOOTTIME)), wall: Wall(nanos(ClockId::CLOCK_REALTIME) / 1_000_000) }
}

#[cfg(test)]
mod tests;
