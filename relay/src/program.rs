//! What every program of Culvert does alike: options, exit codes, output, logs, signals and durable state.

mod args;
pub mod exit;
pub mod logging;
pub mod report;
pub mod signals;
pub mod state;
mod version;

pub use args::GlobalArgs;
pub use exit::{Code, Ending, Exit, Failure};
pub use report::Report;
pub use signals::{Reason, Shutdown};
pub use version::{COMMIT, VERSION, version_text};
