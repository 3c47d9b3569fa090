//! What every program of Culvert does alike: options, exit codes, output, logs, signals and durable state.
//!
//! A program's `main` is [`main`] with its own options and body:
//!
//! ```no_run
//! use relay::program::{self, GlobalArgs, Loader, Failure};
//!
//! #[derive(clap::Parser)]
//! #[command(name = "peer", version = program::VERSION)]
//! struct Cli {
//!     #[command(flatten)]
//!     global: GlobalArgs,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     program::main(Loader::new("peer"), |cli: &Cli| &cli.global, |_cli, report| async move {
//!         report.line("hello");
//!         Ok::<(), Failure>(())
//!     })
//! }
//! ```

mod args;
pub mod config;
pub mod descriptors;
pub mod exit;
pub mod identity;
pub mod logging;
pub mod report;
mod secret;
pub mod signals;
pub mod state;
mod version;

use std::future::Future;
use std::process::ExitCode;

pub use args::GlobalArgs;
pub use config::Loader;
pub use exit::{Code, Ending, Exit, Failure};
pub use report::Report;
pub use secret::{NoSecret, Secret};
pub use signals::{Hangups, Reason, Shutdown};
pub use version::{COMMIT, VERSION, version_text};

/// A whole program: reads its options, starts its logs, runs its body and reports how it ended.
pub fn main<C, G, B, F, E>(loader: Loader<'_>, global: G, body: B) -> ExitCode
where
    C: clap::Parser,
    G: FnOnce(&C) -> &GlobalArgs,
    B: FnOnce(C, Report) -> F,
    F: Future<Output = Result<E, Failure>>,
    E: Into<Ending>,
{
    let cli: C = match loader.parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(exit) => return exit.finish(),
    };
    let GlobalArgs { json, verbose, .. } = *global(&cli);
    logging::init(verbose);
    descriptors::raise();
    let report = Report::new(json);
    exit::run(&report, body(cli, report.clone()))
}
