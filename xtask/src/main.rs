//! The chores behind the Makefile: `cargo xtask verify` proves a change and writes nothing outside
//! `target`; `cargo xtask fix` does what a tool can do about it.
//!
//! Each chore is a file of its own; this one only names them.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

mod arrows;
mod descriptions;
mod fix;
mod length;
mod links;
mod purity;
mod schema;
mod tree;
mod verify;

/// The chores of the beemesh repository.
#[derive(Parser)]
#[command(name = "xtask", version)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Prove the tree: format, arrows between crates, purity, links, lints, documentation, unit tests. Writes nothing.
    Verify {
        /// Only what needs no compiler: format, arrows, purity, links and the file-length report.
        #[arg(long)]
        quick: bool,
    },
    /// Do what a tool can do: format, and apply the lints' own suggestions.
    Fix,
    /// Print the table of arrows between crates, with the reasons.
    Arrows,
    /// Derive data/schema.json from Kubernetes' OpenAPI documents, protobuf layouts and Go struct tags.
    Schema(schema::Args),
    /// Extract data/descriptions.json.z from the sources of the k8s-openapi crate.
    Descriptions(descriptions::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().chore {
        Chore::Schema(args) => schema::run(&args),
        Chore::Descriptions(args) => descriptions::run(&args),
        Chore::Verify { quick } => verify::run(quick),
        Chore::Fix => fix::run(),
        Chore::Arrows => {
            print!("{}", arrows::table());
            Ok(())
        }
    };
    // The chain of reasons, once; where in this program it arose helps nobody.
    outcome.map_or_else(
        |e| {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
