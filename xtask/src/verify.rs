//! The gate. Every step runs, also after one has failed, so that one visit tells everything; the
//! failures are repeated at the end.
//!
//! The tree is compiled once for tests and once as metadata for lints and documentation (clippy cannot
//! use what rustc has built). Every cargo call names the whole workspace, since cargo chooses features
//! by what is named, and other features would be another build of everything.

use crate::{arrows, length, links, purity, tree};
use anyhow::{Result, bail};
use std::time::Instant;

/// One thing proven.
struct Step {
    name: &'static str,
    /// Needs no compiler.
    quick: bool,
    prove: fn() -> Result<()>,
}

const STEPS: &[Step] = &[
    Step { name: "format", quick: true, prove: || tree::run(&mut tree::cargo(&["fmt", "--all", "--check"])) },
    Step { name: "arrows between crates", quick: true, prove: arrows::check },
    Step { name: "purity of what decides", quick: true, prove: purity::check },
    Step { name: "links in Markdown", quick: true, prove: links::check },
    Step { name: "long files (a report)", quick: true, prove: length::report },
    Step { name: "lints", quick: false, prove: lints },
    Step { name: "documentation", quick: false, prove: documentation },
    Step { name: "unit tests", quick: false, prove: unit_tests },
];

/// Runs the steps; the quick ones only, if asked.
///
/// # Errors
/// If any step fails; all of them have run then.
pub(crate) fn run(quick: bool) -> Result<()> {
    let mut failed = Vec::new();
    for step in STEPS.iter().filter(|s| s.quick || !quick) {
        println!("== verify: {}", step.name);
        let start = Instant::now();
        let outcome = (step.prove)();
        let seconds = start.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => println!("== ok, {seconds:.1} s"),
            Err(e) => {
                eprintln!("{e:#}\n== FAILED: {}, {seconds:.1} s", step.name);
                failed.push(step.name);
            }
        }
    }
    if failed.is_empty() {
        println!("verify: all is well");
        return Ok(());
    }
    bail!("verify: failed: {}. `make fix` mends what a tool can mend.", failed.join(", "))
}

fn lints() -> Result<()> {
    // The end-to-end stories are left out of "all targets", so that a plain `cargo test` leaves them out.
    for targets in [&["--all-targets"][..], &["--test", "containerd", "--test", "scenarios"]] {
        let head = ["clippy", "--locked", "--workspace"];
        tree::run(&mut tree::cargo(&[&head, targets, &["--", "-D", "warnings"]].concat()))?;
    }
    Ok(())
}

fn documentation() -> Result<()> {
    let args = ["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"];
    tree::run(tree::cargo(&args).env("RUSTDOCFLAGS", "-D warnings"))
}

fn unit_tests() -> Result<()> {
    tree::run(&mut tree::cargo(&["test", "--locked", "--workspace", "--no-fail-fast"]))
}
