//! Exec, attach, port-forward and logs of pods, wherever in the mesh they run.
//!
//! A pod of this node is joined with its runtime (`here`). For one of another node the stream goes on to that node
//! (`ask`), which joins it with its own (`serve`); what is said between the two is [`node::wire::pod`], and how it is
//! moved is in `frames`. Whoever serves the client sees no difference: both ends are those of [`api::port`].
//!
//! Nothing is kept in memory but a few frames of each direction: who reads slowly is waited for, through both nodes up
//! to the process or the client at the other end. One who takes nothing for as long as the transport lets a stream
//! stand still (10 min) is given up.

mod ask;
mod frames;
mod here;
mod serve;
#[cfg(test)]
mod tests;

pub(crate) use ask::{Way, connect as connect_elsewhere};
pub(crate) use here::connect;
pub(crate) use serve::Serving;

use api::port::{LogOptions, Remote};
use node::wire::pod;

/// What is asked of a process, as it is written.
fn remote_written(ask: &Remote) -> pod::Remote {
    let Remote { attach, container, command, stdin, stdout, stderr, tty } = ask.clone();
    // A terminal has one output.
    pod::Remote { attach, container, command, stdin, stdout, stderr: stderr && !tty, tty }
}

/// And as it is read.
fn remote_read(ask: pod::Remote) -> Remote {
    let pod::Remote { attach, container, command, stdin, stdout, stderr, tty } = ask;
    Remote { attach, container, command, stdin, stdout, stderr, tty }
}

/// Which part of a log is asked for, as it is written.
fn log_written(options: LogOptions) -> pod::Log {
    let LogOptions {
        container,
        follow,
        previous,
        since_seconds,
        since_time,
        timestamps,
        tail_lines,
        limit_bytes,
        stream,
    } = options;
    pod::Log { container, follow, previous, since_seconds, since_time, timestamps, tail_lines, limit_bytes, stream }
}

/// And as it is read.
fn log_read(log: pod::Log) -> LogOptions {
    let pod::Log {
        container,
        follow,
        previous,
        since_seconds,
        since_time,
        timestamps,
        tail_lines,
        limit_bytes,
        stream,
    } = log;
    LogOptions { container, follow, previous, since_seconds, since_time, timestamps, tail_lines, limit_bytes, stream }
}
