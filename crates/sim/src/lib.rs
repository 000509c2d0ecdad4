//! The simulator: the code that ships, in a world of its own.
//!
//! One [`run`] is a cell of one, three or five keepers, each a real [`node::cell::Cell`] joined to the others by
//! real heartbeat pairs, with a virtual disk that forgets what was not synced when power is cut, a
//! virtual network that delays, loses, repeats and cuts one way, and clocks that drift and jump. Clients
//! send it Kubernetes requests, ask again under the same request id when they hear nothing, and watch. Half
//! of a run is faults; in the other half the world is whole again, and the cell must serve, converge and
//! have kept its word.
//!
//! A run is a function of the code and its seed: everything is drawn from the seed, by streams of their
//! own, so that a seed that failed fails again. What is checked lives in [`checks`], one rule a file.
//!
//! Read [`world`] first. Bounds: 60 virtual seconds and 1,000 operations a run.

#![forbid(unsafe_code)]

pub mod checks;
pub mod client;
pub mod host;
pub mod keeper;
pub mod ports;
pub mod watcher;
pub mod world;

pub use checks::Violation;
pub use ports::Bug;
pub use world::{Counts, run};
