//! What should run where: bids and awards, controllers, placement. State in, plan and reasons out.
//!
//! Everything here is a function of what is handed in. A node's capacity is known only to that node, so
//! scheduling is in two halves that meet in messages: [`schedule::fit`] and [`schedule::Book`] are the
//! bidder's, [`schedule::award`] the cell leader's.

#![forbid(unsafe_code)]

pub mod controllers;
pub mod keepers;
pub mod pod;
pub mod schedule;
