//! The stories, one a file. `make e2e` tells them: they need root, the built program and kubectl.
#![allow(missing_docs, clippy::unwrap_used)]

mod a_deployment;
mod a_disk_that_forgets;
mod a_machine;
mod a_switch;
mod all_namespaces;
mod at_the_api;
mod bad_days;
mod bad_input;
mod behind_a_router;
mod daemon_killed;
mod day_to_day;
mod env_and_volumes;
mod first_objects;
mod hosts;
mod hosts_fail;
mod images_and_runtime;
mod inside_a_pod;
mod joined_hosts;
mod lives_of_pods;
mod networks;
mod power_cuts;
mod rights;
mod three_hosts;
mod who_runs_where;
mod with_pods;
