//! What both the deciding and the doing side must name: ids, time, chance, revisions, quantities and
//! bounded queues.
//!
//! The entry rule: a thing is here only if both sides name it and it can be explained without beemesh.
//! The crate is `no_std`: it cannot reach a clock, a thread, the environment or a hash map.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod chance;
pub mod disk;
pub mod id;
pub mod quantity;
pub mod queue;
pub mod revision;
pub mod runtime;
pub mod time;

pub use chance::Chance;
pub use id::{BootId, CellId, NodeId, ReplicaId, RequestId, Uid};
pub use quantity::Quantity;
pub use queue::Bounded;
pub use revision::{Clock, Origin, Revision};
pub use time::{Now, Time, Wall};
