//! What a cell's log decides: keys, their records, who asked, and what happened lately.
//!
//! Everything here is a function of the entries applied, in order, so it is the same on each replica.
//! Keys are bytes whose first part, up to the first zero byte, is the resource ([`state::resource`]).
//!
//! [`Member`] is the machine to build on: a [`crate::raft::Replica`] and the [`Cell`] it applies to, with
//! checkpoints, recovery, rewriting of old segments and snapshots to peers between them.

pub mod commit;
mod forward;
pub mod history;
pub mod keepers;
pub mod member;
mod recover;
pub mod requests;
mod snapshot;
pub mod state;
mod store;

pub use commit::{Change, Commit, Expect, RequestStamp, Write};
pub use history::{Bounds, Gone, History};
pub use keepers::{Changed, Keepers};
pub use member::{Effect, Input, Member};
pub use recover::{Recorded, RecoverError, recorded};
pub use requests::{Requests, Seen};
pub use state::{After, Applied, Conflict, Record, State};
pub use store::{Cell, Config, Outcome};
