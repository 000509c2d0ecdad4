//! `make bench`: how fast the program is beside a peer or a floor measured in the same run, as JSON lines.
//!
//! A figure alone says something about a machine; a ratio says something about a program. So every line
//! names what it is compared with: etcd's own puts on the same disk, the bare bytes over the same TLS,
//! containerd asked for the same pod directly. The load comes from this process, on the same processors as
//! what is measured, for the peer as for the program.

mod api;
mod etcd;
mod floor;
mod load;
mod pods;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

fn main() -> Result<()> {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = chosen.iter().find(|c| !PARTS.iter().any(|(name, _)| name == c)) {
        let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        bail!("{unknown} is no part of the bench; those are {}", names.join(", "));
    }
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        bail!("TLS is set up twice");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (name, part) in PARTS.iter().filter(|(name, _)| chosen.is_empty() || chosen.iter().any(|c| c == name)) {
        part(&runtime).with_context(|| format!("bench {name}"))?;
    }
    Ok(())
}

type Part = fn(&tokio::runtime::Runtime) -> Result<()>;

const PARTS: &[(&str, Part)] = &[
    ("requests", api::requests),
    ("list", api::list),
    ("watch", api::watch),
    ("idle", api::idle),
    ("pods", pods::run),
];

/// Prints a line: what was measured, beside what.
fn line(measure: &str, of: Value, beside: &str, peer: Value) {
    println!("{}", json!({"measure": measure, "beemesh": of, "beside": beside, "peer": peer}));
}
