//! `/beemesh/pod/1`: exec, attach, port-forward and logs of a pod, between the gateway that was asked and the node that
//! runs the pod.
//!
//! A stream is one exec, attach or log, or one forwarded connection: what is slow in one holds back nothing in another.
//! The gateway's first frame is a [`Question`], the node's an [`Answer`]. If it is [`Answer::Accepted`], both send
//! [`Frame`]s from then on, until the gateway, or the node after the last there is to say, ends its direction; to break
//! off is to say that nobody is interested any more.
//!
//! The two directions hold back by the stream's own back-pressure. Who may do what was decided by the pod's cell; the
//! node checks who asks and that the pod is its own.

use super::codec::{fields, message, variants};
use bytes::Bytes;
use objects::Tree;
use objects::status::Status;

/// The longest [`Question`], framed: a command is no longer than the request that brought it.
pub const QUESTION_BYTES_MAX: usize = 1 << 20;

/// The longest [`Answer`] or [`Frame`]: [`DATA_BYTES_MAX`] and its header, or how a process ended, which is 64 KiB of
/// JSON at most.
pub const FRAME_BYTES_MAX: usize = 256 << 10;

/// Bytes of a channel in one frame.
pub const DATA_BYTES_MAX: usize = 32 << 10;

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// The pod's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: another pod of that name is not meant.
    pub uid: String,
    /// What of it.
    pub ask: Ask,
}

/// What is asked of a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// A process: `exec`, or `attach`.
    Remote(Remote),
    /// Whether ports could be forwarded now. Nothing follows the answer.
    Ports,
    /// One connection to a port.
    Port(u16),
    /// What a container wrote.
    Log(Log),
}

/// A process's channels.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Remote {
    /// Of what runs, instead of running something.
    pub attach: bool,
    /// The container; empty means the only one.
    pub container: String,
    /// What to run; empty when attaching.
    pub command: Vec<String>,
    /// [`Channel::Input`] is wanted.
    pub stdin: bool,
    /// [`Channel::Output`] is.
    pub stdout: bool,
    /// [`Channel::Error`] is.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

/// Which part of a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Log {
    /// The container; empty means the only one.
    pub container: String,
    /// Go on as lines come.
    pub follow: bool,
    /// Of the container's previous life.
    pub previous: bool,
    /// Only what is younger than so many seconds.
    pub since_seconds: Option<i64>,
    /// Only what is younger than this moment (RFC 3339).
    pub since_time: String,
    /// A time before every line.
    pub timestamps: bool,
    /// Only so many last lines.
    pub tail_lines: Option<i64>,
    /// At most so many bytes.
    pub limit_bytes: Option<i64>,
    /// `All`, `Stdout`, `Stderr`; empty means `All`.
    pub stream: String,
}

/// Whether it is to be had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Yes: it has begun.
    Accepted,
    /// No: nothing was begun.
    Refused(Box<Status>),
}

/// Whose bytes they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// Towards the pod: standard input, what a client sends to a port.
    Input,
    /// From it: standard output, what a port answers, a log.
    Output,
    /// From it: standard error.
    Error,
}

/// What is said on a stream that was accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Bytes of a channel.
    Data {
        /// Which.
        channel: Channel,
        /// At most [`DATA_BYTES_MAX`].
        bytes: Bytes,
    },
    /// No more of a channel comes.
    End {
        /// Which.
        channel: Channel,
    },
    /// The terminal has this size now. Only towards the pod.
    Resize {
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
    /// How the process ended, a `metav1.Status` as the runtime told it: the last frame. Only from the pod.
    Outcome {
        /// The Status.
        status: Tree,
    },
    /// What was asked for could not go on: the last frame. Only from the pod.
    Broken {
        /// Why, for people.
        why: String,
    },
    /// Nothing has happened for a while.
    Beat,
}

fields!(Question { namespace: String, name: String, uid: String, ask: Ask });
variants!(Ask { 1 => Remote(remote), 2 => Ports, 3 => Port(port), 4 => Log(log) });
fields!(Remote {
    attach: bool, container: String, command: Vec<String>, stdin: bool, stdout: bool, stderr: bool, tty: bool,
});
fields!(Log {
    container: String, follow: bool, previous: bool, since_seconds: Option<i64>, since_time: String, timestamps: bool,
    tail_lines: Option<i64>, limit_bytes: Option<i64>, stream: String,
});
variants!(Answer { 1 => Accepted, 2 => Refused(status) });
variants!(Channel { 1 => Input, 2 => Output, 3 => Error });
variants!(Frame {
    1 => Data { channel, bytes },
    2 => End { channel },
    3 => Resize { width, height },
    4 => Outcome { status },
    5 => Broken { why },
    6 => Beat,
});
message!(Question, "a question about a pod's stream");
message!(Answer, "an answer about a pod's stream");
message!(Frame, "a frame of a pod's stream");
