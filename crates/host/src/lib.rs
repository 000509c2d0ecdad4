//! This machine: it is told what to do by value and does it. What it does is decided elsewhere.

#![forbid(unsafe_code)]

mod cgroup;
pub mod cni;
pub mod containerd;
pub mod cri;
pub mod facts;
mod iptables;
pub mod logs;
pub mod pause;
mod probe;
pub mod runtime;
mod seen;
pub mod services;
pub mod store;
pub mod volumes;

use base::Wall;
use std::time::SystemTime;

/// The calendar as this machine believes it.
pub(crate) fn wall() -> Wall {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
