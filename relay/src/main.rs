//! The `relay` program.

use relay::program::{self, Loader};
use relay::standalone::{Cli, run};

fn main() -> std::process::ExitCode {
    let loader = Loader::new("relay").default_subcommand("serve");
    program::main(loader, |cli: &Cli| &cli.global, run)
}
