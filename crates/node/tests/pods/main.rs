//! The life of pods on a node, as scripts and from seeds: the machine against a runtime and a cell in
//! memory.

#![allow(clippy::unwrap_used, clippy::panic)]

mod api;
mod disk;
mod health;
mod life;
mod order;
mod runtime;
mod seeds;
mod sources;
mod world;
