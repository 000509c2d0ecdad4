//! This machine: it is told what to do by value and does it. What it does is decided elsewhere.

#![forbid(unsafe_code)]

pub mod store;
