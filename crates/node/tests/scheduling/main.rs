//! Scheduling and hosting as scripts: a cell, its leader's half and nodes, over a network that a test may
//! have lose and double what it likes.

#![allow(clippy::unwrap_used, clippy::panic)]

mod bidding;
mod hosting;
mod neighbours;
mod preempting;
mod world;
