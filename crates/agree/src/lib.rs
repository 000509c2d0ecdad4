//! Agreement on keys and bytes: the log, consensus, leases, membership. It knows keys, bytes and
//! revisions, never what kinds of objects there are.
//!
//! The crate's own code is `no_std`: it cannot name a clock, a thread, a socket or a hash map. (The
//! consensus library below it needs std.)

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod log;
