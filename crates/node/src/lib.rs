//! The machines of one node, linked only by messages: what joins agreement, API semantics and decisions.
//!
//! Read [`cell::Cell`] first: one replica of one cell, from a request that comes in to the answer that
//! goes out. [`bundle::Bundle`] is what every cell knows of root.  The program (`beemesh`) and the simulator
//! (`sim`) drive these very types: what is simulated is what ships.
//!
//! Nothing here has a clock, a socket, a task or a thread. A machine has four doors: `step(now, input,
//! &mut effects)`, `next_deadline()`, construction from configuration, durable state and seeded chance,
//! and `check()`.

#![forbid(unsafe_code)]

pub mod assignment;
pub mod bundle;
pub mod cell;
pub mod controllers;
mod correlator;
pub mod errand;
pub mod gateway;
pub mod genesis;
pub mod keeping;
pub mod leases;
pub mod life;
pub mod nodes;
pub mod pods;
pub mod reflector;
pub mod scheduling;
pub mod wire;
