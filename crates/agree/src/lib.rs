//! Agreement on keys and bytes: the log, consensus, leases, membership. It knows keys, bytes and
//! revisions, never what kinds of objects there are.
//!
//! - [`raft::Replica`] is one member's part in agreeing on a cell's log; [`cell`] is what that log decides
//!   (objects, who asked, what happened lately); [`log`] is what a node writes down of all its cells.
//! - All are pure machines: inputs in, effects out, no clock or chance but what is handed in. One seed
//!   and one order of inputs give one history.
//!
//! # The caller's duties
//!
//! For each replica, for each step, take the effects in the order they stand in:
//!
//! 1. **Persist.** Hand the records of every `Persist` to the node's log, in the order of tickets. Say
//!    `Durable(ticket)` when they, and all before them, are on the disk; never before.
//! 2. **Send.** Send each message; hold one that names a ticket back until that ticket is durable. Losing,
//!    delaying, repeating and reordering messages harms nothing but progress.
//! 3. **Apply.** Give each `Committed` payload to the cell before the next input is stepped: the replica
//!    counts it as applied. Answers to `ReadReady` come from the state as it is at that effect.
//! 4. **Bind.** Hand `Lead`, `Unlead`, `Follow`, `Unfollow` and `BeatNow` to the pair machines of the nodes
//!    concerned, in order, and their words back as inputs. No answer may go out for a binding after
//!    `Unfollowed` was said of it.
//! 5. **Advance.** Step `Tick` when `next_deadline` comes. Keep no timer of your own.
//!
//! A replica that is dropped and made again must be made of what its log holds, nothing less: what was
//! not durable may be missing, what was durable may not.
//!
//! The crate's own code is `no_std`: it cannot name a clock, a thread, a socket or a hash map. (The
//! consensus library below it needs std.)

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod cell;
pub mod closed;
pub mod codec;
pub mod descriptor;
pub mod directory;
pub mod heartbeat;
pub mod log;
pub mod raft;

pub use codec::DecodeError;
