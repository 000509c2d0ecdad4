//! The words between a pure machine that keeps its state in numbered files of one directory, and
//! whoever moves the bytes: the host's log thread, or the simulator's disk.
//!
//! The one who moves the bytes performs operations in the order in which they were asked for and answers
//! each with one [`Done`], in that order too, also when it failed. Only what was synced survives a power
//! cut; of anything else, any part may.

use crate::time::{Now, Time};
use alloc::string::String;
use alloc::vec::Vec;

/// A file of the directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum File {
    /// A part of the log. Numbers rise, and are never used twice.
    Segment(u64),
    /// Space held for a segment to come.
    Spare(u64),
}

impl File {
    /// The file's name in its directory.
    pub fn name(self) -> String {
        match self {
            File::Segment(n) => alloc::format!("{n:016}.log"),
            File::Spare(n) => alloc::format!("{n:016}.spare"),
        }
    }

    /// The file of that name; `None` if the name is nobody's here.
    pub fn parse(name: &str) -> Option<File> {
        let (digits, kind) = name.split_once('.')?;
        let number = digits.parse().ok()?;
        let file = match kind {
            "log" => File::Segment(number),
            "spare" => File::Spare(number),
            _ => return None,
        };
        (file.name() == name).then_some(file)
    }
}

/// A file that was there when the directory was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Which.
    pub file: File,
    /// Its length.
    pub bytes: u64,
}

/// What a machine asks of the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Makes a spare, or takes the one that is there: `bytes` long with every block allocated, its
    /// first 8 KiB zeros. Done means durable, the name too. A spare that could not be made is gone.
    Prepare {
        /// Which.
        spare: u64,
        /// How long.
        bytes: u64,
    },
    /// Renames a spare. Durable with the segment's next sync.
    Adopt {
        /// Which.
        spare: u64,
        /// What it becomes.
        segment: u64,
    },
    /// Writes all of `bytes`.
    Write {
        /// Where to.
        segment: u64,
        /// From which byte of it on.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Makes all that was done to a segment durable, its name too.
    Sync {
        /// Which.
        segment: u64,
    },
    /// Cuts a segment, to give space back. Need not be durable.
    Truncate {
        /// Which.
        segment: u64,
        /// What is left.
        bytes: u64,
    },
    /// Removes a file. Done means durable.
    Remove {
        /// Which.
        file: File,
    },
    /// Reads `bytes` bytes, or as many as there are.
    Read {
        /// Where from.
        segment: u64,
        /// From which byte of it on.
        offset: u64,
        /// How many at most.
        bytes: u64,
    },
}

/// Why the disk did not do it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// No space (or quota) is left; nothing is broken.
    #[error("{0}")]
    Full(String),
    /// Anything else. What the disk holds now is unknown.
    #[error("{0}")]
    Broken(String),
}

/// The answer to one [`Op`], naming what it answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Done {
    /// To [`Op::Prepare`].
    Prepared(u64, Result<(), Failure>),
    /// To [`Op::Adopt`]: the segment.
    Adopted(u64, Result<(), Failure>),
    /// To [`Op::Write`]; the buffer comes back, so that it can be filled again.
    Written {
        /// The segment.
        segment: u64,
        /// The offset.
        offset: u64,
        /// What was handed over.
        bytes: Vec<u8>,
        /// Whether all of it was written.
        result: Result<(), Failure>,
    },
    /// To [`Op::Sync`]: the segment.
    Synced(u64, Result<(), Failure>),
    /// To [`Op::Truncate`]: the segment.
    Truncated(u64, Result<(), Failure>),
    /// To [`Op::Remove`].
    Removed(File, Result<(), Failure>),
    /// To [`Op::Read`].
    Read {
        /// The segment.
        segment: u64,
        /// The offset.
        offset: u64,
        /// What was there; blocks that could not be read read as zeros.
        bytes: Vec<u8>,
    },
}

/// What goes into a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input<C> {
    /// Somebody wants something.
    Command(C),
    /// No command waits any more: what was gathered may go to the disk. Said after every [`Done`] and
    /// after every run of commands, once those that wait have been handed in; so all that is queued
    /// shares one sync, and nothing waits for company.
    Drained,
    /// The disk answers.
    Done(Done),
    /// The machine's deadline has come.
    Tick,
}

/// What comes out of a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect<N> {
    /// To do, in this order.
    Disk(Op),
    /// To tell.
    Notice(N),
    /// The process must end, saying this: what the disk holds is no longer known.
    Fatal(String),
}

/// A pure machine that keeps its state in such a directory.
pub trait Machine: Sized + Send + 'static {
    /// What it is built from besides the files.
    type Config: Send;
    /// What it can be told to do.
    type Command: Send + 'static;
    /// What it tells.
    type Notice: Send + 'static;
    /// How it is built from what the directory holds.
    type Recovery: Recovery<Machine = Self>;

    /// Takes one input. Bounded work; effects are appended in order.
    fn step(&mut self, now: Now, input: Input<Self::Command>, effects: &mut Vec<Effect<Self::Notice>>);

    /// When it wants an [`Input::Tick`] though nothing happens.
    fn next_deadline(&self) -> Option<Time>;
}

/// Builds a machine from what its directory holds, one read at a time.
pub trait Recovery: Sized {
    /// What is built.
    type Machine: Machine;
    /// What was found in the files.
    type Recovered: Send;
    /// Why it cannot be built. Nothing was changed then.
    type Error: core::error::Error + Send + Sync + 'static;

    /// Begins with the files there are.
    fn new(config: <Self::Machine as Machine>::Config, found: &[Found]) -> Self;

    /// What to read next, as (segment, offset, bytes); `None` if nothing.
    fn next_read(&mut self) -> Option<(u64, u64, u64)>;

    /// Hands in what was read: as many bytes as asked for, or as there are.
    fn read(&mut self, bytes: Vec<u8>);

    /// Ends it, once nothing is left to read.
    ///
    /// # Errors
    /// If what the files hold is no state to go on from.
    fn finish(self) -> Result<(Self::Machine, Self::Recovered), Self::Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_reads_back_and_a_strangers_does_not() {
        for file in [File::Segment(0), File::Segment(u64::MAX), File::Spare(7)] {
            assert_eq!(File::parse(&file.name()), Some(file));
        }
        for name in ["7.log", "0000000000000007.log.bak", "lock", "+000000000000007.log", "é.log"] {
            assert_eq!(File::parse(name), None, "{name}");
        }
    }
}
