//! `/beemesh/watch/1`: what a gateway is told by a replica of a cell, in the order of the cell's effects.
//!
//! One stream stands for each (gateway, cell) of which something is watched, whatever and however many watch: a
//! promise ([`FromCell::Closed`]) counts only behind all it covers, and what follows a watch's beginning only behind
//! that. The gateway begins it with [`ToCell::Hello`]. It ends with [`FromCell::End`], or by being broken: then whatever
//! was watched is begun anew, after what was told.
//!
//! [`Telling`] is the cell's side: a queue with a bound. A gateway that does not take what it is told in time is told
//! so, and resumes. [`Hearing`] is the gateway's: what was cut for the way comes out whole.

mod hearing;
mod telling;

pub use hearing::{Hearing, Told};
pub use telling::Telling;

use super::ask::Redirect;
use super::codec::{DecodeError, message, variants, written_as};
use crate::cell::Change;
use base::{CellId, Revision};
use bytes::Bytes;
use objects::request::Request;
use std::sync::Arc;

/// How many bytes may wait for a gateway before it is told that it is too slow. More than what a cell tells in the
/// second or two that a way may hang, and than what a subscription that is resumed begins with.
pub const WAITING_BYTES_MAX: usize = 64 << 20;

/// How many watches may be beginning on one stream; one more is [`crate::cell::Outcome::Busy`].
pub const CALLS_MAX: usize = 256;

/// Names a watch that is asked for on a stream, uniquely while it waits for its answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Call(pub u64);

written_as! { Call as u64: |v| v.0, |n| Some(Call(n)); }

/// From a gateway to a replica.
#[derive(Clone)]
pub enum ToCell {
    /// First on every stream.
    Hello {
        /// The cell.
        cell: CellId,
        /// The epoch of the descriptor by which the replica was found, 0 if by none.
        epoch: u64,
        /// The number of the sender's bundle.
        bundle: Revision,
    },
    /// [`crate::cell::Input::Subscribe`]; answered by [`FromCell::Subscribed`].
    Subscribe {
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// What was told before; `None` for whatever comes.
        after: Option<Revision>,
    },
    /// [`crate::cell::Input::Unsubscribe`].
    Unsubscribe {
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// The last watch or subscription that it knows of.
        serial: u64,
    },
    /// [`crate::cell::Input::Progress`]; answered by [`FromCell::Progress`].
    Progress {
        /// The resource's storage group-kind.
        storage: Arc<str>,
    },
    /// [`crate::cell::Input::Close`]; answered by [`FromCell::Closed`], if the replica leads.
    Close {
        /// Up to where.
        at: Revision,
    },
    /// A request to watch; answered by [`FromCell::Answer`]. What is told of its resource behind that continues it.
    Watch {
        /// Names it.
        call: Call,
        /// What is wanted.
        request: Arc<Request>,
    },
    /// Nobody waits for that answer any more.
    Leave {
        /// Which.
        call: Call,
    },
    /// The sender's bundle has this number now.
    Bundle {
        /// The number.
        number: Revision,
    },
}

/// From a replica to a gateway, one frame each.
pub enum FromCell {
    /// First, unless the stream ends at once.
    Welcome {
        /// The epoch of the cell's keepers, as the replica knows them.
        epoch: u64,
        /// The number of its node's bundle.
        bundle: Revision,
    },
    /// [`crate::cell::Effect::Subscribed`]. What happened in between follows in frames of [`FromCell::Backlog`].
    Subscribed {
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// As it was asked for.
        after: Option<Revision>,
        /// How it begins.
        begin: Begin,
    },
    /// Of what happened before a subscription was open.
    Backlog {
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// A part of it, in order.
        changes: Vec<Change>,
    },
    /// [`crate::cell::Effect::Events`]; what was committed together may come in several.
    Events {
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// What changed, in order.
        changes: Vec<Change>,
    },
    /// [`crate::cell::Effect::Progress`]: of what bookmarks are made.
    Progress {
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// Everything of it up to here has been told.
        revision: Revision,
    },
    /// [`crate::cell::Effect::Closed`]: of what the frontier is made.
    Closed {
        /// Nothing at or below this is still to come, and all that was has been told.
        revision: Revision,
    },
    /// A frame of the answer to [`ToCell::Watch`] ([`super::ask`]).
    Answer {
        /// Which.
        call: Call,
        /// The frame.
        frame: Bytes,
    },
    /// The sender's bundle has this number now.
    Bundle {
        /// The number.
        number: Revision,
    },
    /// Nothing more is told: whatever was watched is to be begun anew, after what was told.
    End(End),
}

/// How a subscription begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    /// [`crate::cell::Subscription::Open`].
    Open {
        /// All up to here is in the backlog, or was before what was asked for.
        revision: Revision,
        /// [`crate::cell::Opened::serial`].
        serial: u64,
        /// How many changes the backlog holds.
        backlog: u64,
    },
    /// [`crate::cell::Subscription::Gone`].
    Gone {
        /// The oldest revision one can begin after.
        oldest: Revision,
    },
}

/// Why nothing more is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// There is no such replica here (any more), or it goes by a higher epoch: ask elsewhere.
    Elsewhere(Option<Redirect>),
    /// The replica's state was replaced by a leader's snapshot: what happened meanwhile was not told.
    Replaced,
    /// More waited to be told than [`WAITING_BYTES_MAX`].
    Slow,
    /// The node is stopping.
    Stopping,
    /// The sender may not watch here.
    Forbidden(String),
}

variants!(ToCell {
    1 => Hello { cell, epoch, bundle },
    2 => Subscribe { storage, after },
    3 => Unsubscribe { storage, serial },
    4 => Progress { storage },
    5 => Close { at },
    6 => Watch { call, request },
    7 => Leave { call },
    8 => Bundle { number },
});
message!(ToCell, "a message to a cell that is watched");
variants!(FromCell {
    1 => Welcome { epoch, bundle },
    2 => Subscribed { storage, after, begin },
    3 => Backlog { storage, changes },
    4 => Events { storage, changes },
    5 => Progress { storage, revision },
    6 => Closed { revision },
    7 => Answer { call, frame },
    8 => Bundle { number },
    9 => End(end),
});
message!(FromCell, "a message of a cell that is watched");
variants!(Begin { 1 => Open { revision, serial, backlog }, 2 => Gone { oldest } });
variants!(End { 1 => Elsewhere(redirect), 2 => Replaced, 3 => Slow, 4 => Stopping, 5 => Forbidden(why) });

/// Reads the first frame of a stream.
///
/// # Errors
/// It cannot be read, or is no [`ToCell::Hello`].
pub fn hello(frame: &Bytes) -> Result<(CellId, u64, Revision), DecodeError> {
    match ToCell::decode(frame)? {
        ToCell::Hello { cell, epoch, bundle } => Ok((cell, epoch, bundle)),
        _ => Err(DecodeError::Malformed { what: "the beginning of a watch of a cell", length: frame.len(), at: 1 }),
    }
}
