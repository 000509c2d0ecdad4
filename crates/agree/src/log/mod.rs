//! The node's one write-ahead log, shared by all its cells and the only store: what lies in it, as a
//! pure machine. Bytes and completions go in; writes and syncs come out ([`base::disk`]).
//!
//! - [`record`]: what cells write, and its bytes.
//! - `format`: segments and frames.
//! - `machine`: [`Log`], group commit: all that is queued goes into one frame and shares one sync, with
//!   no delay to wait for company.
//! - `space`: spare segments and the reserve for a full disk.
//! - `rewrite`: live records of the oldest segment are written again, and it goes.
//! - `recover`: [`Recovery`], from the bytes of a directory to records and a running log.
//!
//! # What a cell does
//!
//! It sends [`Command::Persist`] with its records and a ticket, and acts on them (sends, votes,
//! acknowledges) only once [`Notice::Durable`] names the ticket. On [`Notice::Refused`] it answers
//! [`Command::Resume`] and begins again from what is durable. On [`Notice::Carry`] it answers with what of
//! the records is still live. Now and then it says how much is live ([`Command::Live`]). After
//! [`Recovery`] a cell that is marked lossy logs [`Record::Forget`] before anything else.
//!
//! # What it costs
//!
//! A request is encoded once, straight into the frame; the frame is checksummed once and written once.
//! The floor is the disk's: one write and one fdatasync per batch, 48 bytes and padding per frame, 4
//! bytes and 18 to 43 bytes of header per record.

pub mod record;

mod format;
mod machine;
mod recover;
mod rewrite;
mod space;
#[cfg(test)]
mod tests;

pub use machine::{Answer, Command, Config, Log, Notice, Persist, Refusal};
pub use record::{Record, RecordError, Ticket};
pub use recover::{Hole, OfCell, RecoverError, Recovered, Recovery, Torn};
pub use space::Space;
