//! `nat-sim`: the laboratory's command line.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The NAT laboratory.
#[derive(Debug, Parser)]
#[command(name = "nat-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What the laboratory does for real programs; `scripts/netns.sh` types it.
    #[cfg(target_os = "linux")]
    #[command(subcommand, hide = true)]
    Wire(nat_sim::wire::Command),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        #[cfg(target_os = "linux")]
        Command::Wire(command) => nat_sim::wire::run(&command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "nat-sim: {error}");
            ExitCode::FAILURE
        }
    }
}
