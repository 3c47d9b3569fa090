//! The `nat-sim` program: the NAT matrix, random worlds, and the story of any one of them.

mod cli;
mod html;
mod matrix;
mod worlds;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use cli::{Cli, Command};
use nat_sim::kind::Kind;

/// Why the program ends badly.
enum Failure {
    /// What was to hold does not; it has been told already.
    Broken,
    /// For this reason.
    Told(String),
    /// Nothing could be written.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn main() -> ExitCode {
    let out = &mut io::BufWriter::new(io::stdout());
    let done = match Cli::parse().command {
        Command::Matrix(options) => matrix::run(&options, out),
        Command::List => list(out),
        Command::Replay(options) => worlds::replay(&options, out),
        Command::Worlds(options) => worlds::run(&options, out),
        #[cfg(target_os = "linux")]
        Command::Wire(command) => {
            nat_sim::wire::run(&command).map_err(|error| Failure::Told(error.to_string()))
        }
    };
    match done.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Broken) => {
            let _ = out.flush();
            ExitCode::FAILURE
        }
        Err(Failure::Told(why)) => {
            let _ = writeln!(io::stderr(), "nat-sim: {why}");
            ExitCode::FAILURE
        }
        // Whoever reads has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Output(error)) => {
            let _ =
                writeln!(io::stderr(), "nat-sim: nothing more can be written: {error}; is the disk full?");
            ExitCode::FAILURE
        }
    }
}

fn list(out: &mut impl io::Write) -> Result<(), Failure> {
    for kind in Kind::all().into_iter().chain(Kind::FURTHER) {
        writeln!(out, "{:<36} {}", kind.to_string(), kind.describe())?;
    }
    Ok(())
}
