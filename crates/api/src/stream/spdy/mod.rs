//! SPDY/3.1 (the draft of 2013) as a pure machine: bytes in, bytes out, streams in between.
//!
//! kubectl speaks it for port-forward (inside a WebSocket) and as its second choice for exec; container
//! runtimes speak it for everything. [`Session`] holds one connection, as server or as client, and knows
//! no socket and no clock. Everything a peer can make it keep has a bound ([`Bounds`]).
//!
//! The peers met in practice are all one Go library that neither keeps nor grants flow-control windows,
//! so keeping them is a choice ([`Bounds::windows`]); without them the only brake is to stop reading,
//! which [`Session::wants_input`] asks for.

mod frame;
mod headers;
mod session;
#[cfg(test)]
mod tests;

pub use headers::Headers;
pub use session::{Bounds, Role, Session, StreamId, StreamRead, Violation};
