//! The stories, one a file. `make e2e` tells them: they need root, the built program and kubectl.
#![allow(missing_docs, clippy::unwrap_used)]

mod a_disk_that_forgets;
mod a_machine;
mod bad_days;
mod first_objects;
mod power_cuts;
