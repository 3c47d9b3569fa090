//! The `peer` program.

use std::process::ExitCode;
use std::time::Instant;

use peer::cli::{self, Cli};
use relay::program::{self, Loader};

fn main() -> ExitCode {
    let started = Instant::now();
    program::main(
        Loader::new("peer"),
        |cli: &Cli| &cli.global,
        move |cli, report| cli::run(cli, report, started),
    )
}
