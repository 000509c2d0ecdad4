//! The simulator: the code that ships, in a world of its own.
//!
//! One [`run`] is a mesh of one to seven nodes that keep cells. Each keeps a real [`node::cell::Cell`] of root and of
//! every namespace that root lists, joined to the others by real heartbeat pairs, and all of them write to one real
//! [`agree::log::Log`] on a virtual disk that forgets what was not synced when power is cut, tears writes, and
//! rots. The virtual network delays, loses, repeats and cuts one way, and clocks drift and jump. Clients send
//! Kubernetes requests, ask again under the same request id when they hear nothing, and watch: one namespace,
//! and all of them over the machine that joins the cells' streams. In two seeds of three there are nodes that bid for
//! pods and run them, on container runtimes of their own ([`runtime`]); in one of those two people make the pods, in
//! the other the controllers beside the leading cells do, of Deployments that people make. In the third those who keep
//! the cells come and go, mostly as the machines beside the leaders have it ([`node::keeping`]).
//!
//! Half of a run is faults; in the other half the world is whole again, and the cells must serve, converge and
//! have kept their word.
//!
//! A run is a function of the code and its seed: everything is drawn from the seed, by streams of their
//! own, so that a seed that failed fails again. What is checked lives in [`checks`], one rule a file.
//!
//! Read [`world`] first. Bounds: 60 virtual seconds, 1,000 operations and 6 cells a run.

#![forbid(unsafe_code)]

pub mod checks;
pub mod client;
pub mod disk;
pub mod host;
pub mod keeper;
pub mod ports;
pub mod runtime;
pub mod watcher;
pub mod world;

pub use checks::Violation;
pub use ports::Bug;
pub use world::{Counts, run};
