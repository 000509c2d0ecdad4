//! What a cell's log decides: keys, their records, who asked, and what happened lately.
//!
//! Everything here is a function of the entries applied, in order, so it is the same on each replica.
//! Keys are bytes whose first part, up to the first zero byte, is the resource ([`state::resource`]).

pub mod commit;
pub mod state;

pub use commit::{Change, Commit, Expect, RequestStamp, Write};
pub use state::{Record, State};
