//! Exit codes, as a type and as the text that documents them.

/// Why the process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Exit {
    /// What was asked for was done; for `up`: it was told to stop and stopped in order.
    Done = 0,
    /// It failed in a way the message describes.
    Failed = 1,
    /// Another process runs on this data directory.
    InUse = 3,
    /// What is on the disk cannot be trusted; nothing was changed.
    Corrupt = 4,
    /// No node runs on this data directory.
    NotRunning = 5,
    /// The disk failed while running: what was acknowledged is safe, nothing more was accepted.
    DiskFailed = 6,
    /// The mesh's root did not answer; nothing was changed.
    Unreachable = 7,
    /// The node, or the mesh, will not do it; the message says why.
    Refused = 8,
}

impl Exit {
    /// The code of that number, as a running node names it.
    pub(crate) fn of(code: u8) -> Exit {
        let all = [Exit::InUse, Exit::Corrupt, Exit::NotRunning, Exit::DiskFailed, Exit::Unreachable, Exit::Refused];
        all.into_iter().find(|e| *e as u8 == code).unwrap_or(Exit::Failed)
    }
}

/// For `beemesh --help` and the man page.
pub(crate) const HELP: &str = "Exit codes:
  0  done; `up`: asked to stop (SIGTERM, SIGINT), and stopped in order
  1  failed, as the message says
  2  the command line is wrong
  3  another process runs on this data directory
  4  the data directory is damaged; nothing was changed
  5  no node runs on this data directory
  6  the disk failed under a running node; what was acknowledged is safe
  7  the mesh's root did not answer; nothing was changed
  8  refused, as the message says";

/// An error that knows its exit code.
#[derive(Debug)]
pub(crate) struct Coded {
    pub(crate) exit: Exit,
    pub(crate) source: anyhow::Error,
}

impl std::fmt::Display for Coded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.source)
    }
}

impl std::error::Error for Coded {}

/// The exit code an error asks for.
pub(crate) fn code_of(e: &anyhow::Error) -> Exit {
    e.downcast_ref::<Coded>().map_or(Exit::Failed, |c| c.exit)
}
