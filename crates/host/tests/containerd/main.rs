//! Stories with the real containerd, each in namespaces of its own: mounts, processes, network, host name.
//! They need root, so a plain `cargo test` leaves them out and `make e2e` names them.
//!
//! No registry and no image but the one that beemesh makes: programs in containers are busybox, mounted
//! from this machine.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod node;

mod a_pod;
mod a_runtime_that_was_given;
mod daemons_die;
mod network;
mod power_cut;
mod pulls;
mod services;
mod several_containers;
