//! What the machines of one node say to those of another, as bytes: a driver carries them and looks into none.
//!
//! | protocol | what | where |
//! |---|---|---|
//! | [`CELL`] | replicas of cells, and heartbeats, many in a frame; may be lost | [`cell`] |
//! | [`ASK`] | a stream for each question to a cell, and its answer | [`ask`] |
//! | [`WATCH`] | a stream for each cell that a gateway watches, in order | [`watch`] |
//! | [`SCHEDULE`] | a cell's leader and nodes about pods; may be lost | [`schedule`] |
//! | [`BUNDLE`] | root's configuration, whole or what changed | [`bundle`] |
//! | [`KEEP`] | who keeps cells, and how nodes are; may be lost | [`keep`] |
//! | [`POD`] | a stream for each exec, attach, log and forwarded connection of a pod elsewhere | [`pod`] |
//!
//! On a stream every message is one frame ([`frame`]). Every frame begins with the version of its layout. A version
//! that is not known, or a variant, is refused by name: the stream's major version was negotiated, so it is for a
//! release to write only what the other side reads.
//!
//! Every decoder takes any bytes: it ends, never panics, and reserves nothing for what is only claimed. What came
//! from a peer is proven to be from that peer, and is checked all the same.

pub mod ask;
pub mod bundle;
pub mod call;
pub mod cell;
mod codec;
pub mod frame;
pub mod keep;
pub mod pod;
mod request;
pub mod schedule;
mod values;
pub mod watch;

#[cfg(test)]
mod tests;

/// The name by which [`cell`] is negotiated.
pub const CELL: &str = "/beemesh/cell/1";
/// The name by which [`ask`] is negotiated.
pub const ASK: &str = "/beemesh/ask/1";
/// The name by which [`watch`] is negotiated.
pub const WATCH: &str = "/beemesh/watch/1";
/// The name by which [`schedule`] is negotiated.
pub const SCHEDULE: &str = "/beemesh/schedule/1";
/// The name by which [`bundle`] is negotiated.
pub const BUNDLE: &str = "/beemesh/bundle/1";
/// The name by which [`keep`] is negotiated.
pub const KEEP: &str = "/beemesh/keep/1";
/// The name by which [`pod`] is negotiated.
pub const POD: &str = "/beemesh/pod/1";
