//! Scheduling and hosting: the two halves of it, linked by messages only.
//!
//! [`Leader`] runs beside the leading replica of a namespace's cell. It asks nodes whether they can run the
//! cell's pods, takes the best bid, has it confirmed and has the binding committed, which is the award;
//! and it tells each node of the pods that are bound to it. [`Worker`] is a node's half: it alone keeps
//! the account of the node's room, bids from it, and admits or refuses what is bound to it.
//!
//! Neither believes the network: a message may be lost, late or doubled, either side may be made again at
//! any moment, and what then holds is what the cell has committed. What both say is in [`message`].

mod candidate;
mod errands;
mod evicting;
mod leader;
pub mod message;
mod worker;

pub use candidate::Candidate;
pub use leader::{Config, Effect as LeaderEffect, Input as LeaderInput, Leader};
pub use worker::{Effect as WorkerEffect, Input as WorkerInput, Refused, Worker};
