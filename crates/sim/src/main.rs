//! `sim --seeds A..B`: runs these seeds, says in one line what happened in them, and of one that failed
//! which rule was broken and how to see it again.

use clap::Parser;
use sim::{Bug, Counts, Violation, run};
use std::process::ExitCode;

/// Simulates meshes of one to seven nodes under faults, one run a seed.
#[derive(Parser)]
#[command(name = "sim", version)]
struct Arguments {
    /// The seeds to run: from A up to and without B.
    #[arg(long, value_name = "A..B", default_value = "0..2000", value_parser = seeds)]
    seeds: (u64, u64),
    /// Print what happened in each seed.
    #[arg(long)]
    verbose: bool,
    /// How many seeds run side by side.
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Put a known bug back at one of the simulator's ports, by its name in `ports.rs`.
    #[arg(long, default_value = "None", value_parser = bug)]
    bug: Bug,
}

fn bug(name: &str) -> Result<Bug, String> {
    Bug::named(name).ok_or_else(|| format!("{name:?} is none of {:?}", Bug::ALL))
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let bad = || format!("{text:?} is not a range of seeds: write A..B, for example 0..100");
    let (a, b) = text.split_once("..").ok_or_else(bad)?;
    let (a, b) = (a.parse().map_err(|_| bad())?, b.parse().map_err(|_| bad())?);
    if a < b { Ok((a, b)) } else { Err(bad()) }
}

/// What a thread found: how many seeds it ran clean, what happened in them, and the first that failed.
type Found = (u64, Counts, Option<(u64, Violation)>);

/// Runs every so manieth seed from the given one on.
fn share((from, to, step): (u64, u64, u64), bug: Bug, verbose: bool) -> Found {
    let mut all = Counts::default();
    let mut clean = 0;
    for seed in (from..to).step_by(step as usize) {
        match run(seed, bug) {
            Ok(counts) => {
                if verbose {
                    println!("seed {seed}: {counts}");
                }
                all.add(&counts);
                clean += 1;
            }
            Err(violation) => return (clean, all, Some((seed, violation))),
        }
    }
    (clean, all, None)
}

// Threads say which seeds run where, and nothing of what happens in them: a run is a function of its seed.
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (from, to) = arguments.seeds;
    // A panic is a violation and told as one, with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let threads = arguments.threads.max(1).min(to - from);
    let (bug, verbose) = (arguments.bug, arguments.verbose);
    let found: Vec<Found> = std::thread::scope(|scope| {
        let running: Vec<_> =
            (0..threads).map(|n| scope.spawn(move || share((from + n, to, threads), bug, verbose))).collect();
        running.into_iter().filter_map(|t| t.join().ok()).collect()
    });
    let mut all = Counts::default();
    let mut clean = 0;
    for (n, counts, _) in &found {
        clean += n;
        all.add(counts);
    }
    let first = found.into_iter().filter_map(|f| f.2).min_by_key(|f| f.0);
    if let Some((seed, violation)) = first {
        println!("seed {seed}: checker {}: {}", violation.checker, violation.what);
        println!("again: cargo run --workspace --bin sim -- --seeds {seed}..{} --bug {bug:?}", seed + 1);
        return ExitCode::FAILURE;
    }
    println!("{clean} seeds, no violation: {all}");
    ExitCode::SUCCESS
}
