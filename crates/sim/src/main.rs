//! `sim --seeds A..B`: runs these seeds, says in one line what happened in them, and of one that failed
//! which rule was broken and how to see it again.

use clap::Parser;
use sim::{Bug, Counts, run};
use std::process::ExitCode;

/// Simulates a cell of one, three or five keepers under faults, one run a seed.
#[derive(Parser)]
#[command(name = "sim", version)]
struct Arguments {
    /// The seeds to run: from A up to and without B.
    #[arg(long, value_name = "A..B", default_value = "0..2000", value_parser = seeds)]
    seeds: (u64, u64),
    /// Print what happened in each seed.
    #[arg(long)]
    verbose: bool,
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let bad = || format!("{text:?} is not a range of seeds: write A..B, for example 0..100");
    let (a, b) = text.split_once("..").ok_or_else(bad)?;
    let (a, b) = (a.parse().map_err(|_| bad())?, b.parse().map_err(|_| bad())?);
    if a < b { Ok((a, b)) } else { Err(bad()) }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (from, to) = arguments.seeds;
    let mut all = Counts::default();
    for seed in from..to {
        match run(seed, Bug::None) {
            Ok(counts) => {
                if arguments.verbose {
                    println!("seed {seed}: {counts}");
                }
                all.add(&counts);
            }
            Err(violation) => {
                println!("seed {seed}: checker {}: {}", violation.checker, violation.what);
                println!("again: cargo run -p sim -- --seeds {seed}..{}", seed + 1);
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{} seeds, no violation: {all}", to - from);
    ExitCode::SUCCESS
}
