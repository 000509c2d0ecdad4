//! The node's one write-ahead log, shared by all its cells and the only store: what lies in it, as a
//! pure machine (bytes in; writes and syncs out).
//!
//! [`record`] says what is logged.

pub mod record;

pub use record::{Record, RecordError, Ticket};
