//! The options that every command of every program has.

use std::path::PathBuf;

/// Options common to all commands; flatten it into a program's root command.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct GlobalArgs {
    /// The TOML file to read options from.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help = "Read options from this TOML file; every option may also be given as CULVERT_<OPTION>\n\
                [default: culvert/<program>.toml in $XDG_CONFIG_HOME or ~/.config]"
    )]
    pub config: Option<PathBuf>,

    /// Print one JSON object per line, and nothing else, on stdout
    #[arg(long, global = true)]
    pub json: bool,

    /// Log more on stderr: -v for what happens, -vv for how, -vvv for every step (or set RUST_LOG)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}
