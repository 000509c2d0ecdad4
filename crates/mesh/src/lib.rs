//! The transport of a mesh: nodes reach each other by name, which is their key, and speak only once each
//! has proven to the other that it belongs.
//!
//! It rests on iroh: QUIC whose TLS is keyed by a node's own Ed25519 key, so that whoever answers under a
//! [`base::NodeId`] has that key. That proves a key and not membership; the *hello* (`hello.rs`) adds the rest.
//! Before a byte of payload both ends present their SVIDs, each signed for this very connection, and agree
//! on what they speak. Until then a peer may open one stream and send a few kilobytes, by QUIC's own limits.
//!
//! A [`Mesh`] is one socket with everything behind it:
//!
//! - **messages** ([`Mesh::send`]): small, never blocking, in order within (peer, protocol), lost when they must
//!   be: with a connection, or the oldest first when a queue is full. Every loss that this node
//!   can know of is counted. Whoever needs more asks again, as Raft does.
//! - **streams** ([`Mesh::open`]): a pair of byte streams, QUIC's back-pressure end to end.
//! - **joining** ([`Mesh::ask_to_join`]): one question and one answer for a machine that has no SVID yet.
//!
//! One connection a pair of nodes is kept, dialled when there is something to say, closed when there has not
//! been for a while. What comes in goes to a [`Handler`].
//!
//! What it refuses: it trusts no address (a hint says where to knock, and the key says who opened); it talks to
//! nobody it was not told of, no relay and no lookup service of anybody's; it retries no message; it opens no
//! envelope: bytes are the caller's, and so is every decision about them.
//!
//! There is no relay yet: two nodes of which neither can reach the other do not meet. Why, and what
//! is known about it, is in `docs/decisions/0008-the-link-is-iroh.md`.

#![forbid(unsafe_code)]

mod bound;
mod config;
mod counters;
mod discovery;
mod endpoint;
mod error;
mod hello;
mod join;
mod link;
mod look;
mod message;
mod peer;
mod peers;
mod socket;
mod stream;

pub use config::{Clock, Config, Limits, Protocol};
pub use counters::Counters;
pub use discovery::{MAX_ADDRESSES, MAX_HINTED};
pub use endpoint::{Handler, Mesh};
pub use error::{JoinError, MeshError, OpenError, SendError, Why};
pub use hello::Standing;
pub use join::{MAX_JOIN_ANSWER, MAX_JOIN_REQUEST};
pub use link::Peer;
pub use look::LinkReport;
pub use message::Message;
pub use stream::{StreamReceiver, StreamSender, Streams};
