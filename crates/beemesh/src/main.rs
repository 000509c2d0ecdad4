//! The program: `beemesh up` runs a node, the other commands look at one.

mod admin;
mod backend;
mod cells;
mod cli;
mod config;
mod doctor;
mod driver;
mod expel;
mod files;
mod invite;
mod issue;
mod join;
mod joining;
mod kubeconfig;
mod lease;
mod leave;
mod led;
mod membership;
mod mesh;
mod metrics;
mod net;
mod node_object;
mod nodes;
mod pods;
mod register;
mod standing;
mod streams;
mod up;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use cli::exit::{Exit, code_of};
use cli::{Args, Command};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    // A machine that breaks an invariant of its own must not be stepped again by another thread.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
    match run(args) {
        Ok(()) => ExitCode::from(Exit::Done as u8),
        Err(e) => {
            eprintln!("beemesh: {e:#}");
            ExitCode::from(code_of(&e) as u8)
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Up(up) => {
            log_to_stderr()?;
            up::run(config::Config::new(*up)?, None)
        }
        Command::Join(join) => {
            log_to_stderr()?;
            let (config, wish) = config::joining(*join)?;
            up::run(config, Some(wish))
        }
        Command::Invite(invite) => cli::invite::run(&invite),
        Command::Status(show) => cli::show::status(&show),
        Command::Nodes(show) => cli::nodes::run(&show),
        Command::Cells(show) => cli::cells::run(&show),
        Command::Expel(expel) => cli::expel::run(&expel),
        Command::Leave(leave) => cli::leave::run(&leave),
        Command::Doctor(doctor) => cli::doctor::run(&doctor),
        Command::Man => {
            clap_mangen::Man::new(Args::command()).render(&mut std::io::stdout())?;
            Ok(())
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "beemesh", &mut std::io::stdout());
            Ok(())
        }
    }
}

fn log_to_stderr() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(log_filter()?).with_writer(std::io::stderr).init();
    Ok(())
}

/// What is told of what happens: `BEEMESH_LOG`, in `tracing`'s words (`debug`, `info,agree=trace`).
fn log_filter() -> anyhow::Result<tracing_subscriber::EnvFilter> {
    let asked = std::env::var("BEEMESH_LOG").unwrap_or_default();
    let filter = tracing_subscriber::EnvFilter::builder().parse(if asked.is_empty() { "info" } else { &asked });
    filter.with_context(|| format!("BEEMESH_LOG={asked:?}: expected a level, such as info or debug, or TARGET=LEVEL"))
}
