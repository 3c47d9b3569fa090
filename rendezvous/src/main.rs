//! The `rendezvous` program.

use relay::program::{self, Loader};
use rendezvous::cli::Cli;
use rendezvous::program::run;

fn main() -> std::process::ExitCode {
    let loader = Loader::new("rendezvous").default_subcommand("serve");
    program::main(loader, |cli: &Cli| &cli.global, run)
}
