//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use nat_sim::matrix::{Pair, Setting};
use nat_sim::node::Mutation;

const EXAMPLE: &str = "\
Example: two leaky Linux routers on a rough line, a thousand times
  nat-sim matrix --pairs port-restricted+leaky:port-restricted+leaky --runs 1000 --loss 5% --jitter 50";

/// The NAT laboratory: the product's own machines between simulated NATs, from a seed
#[derive(Debug, clap::Parser)]
#[command(name = "nat-sim", version, after_help = EXAMPLE)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Run pairs of NAT kinds many times: how many became direct, and how fast
    #[command(after_help = EXAMPLE)]
    Matrix(MatrixOptions),
    /// Name every kind of access
    #[command(after_help = "Example:\n  nat-sim list")]
    List,
    /// Tell the story of one world, with virtual times
    #[command(after_help = "Examples:\n  nat-sim replay 4711\n  nat-sim replay 4711 --pair open:full-cone")]
    Replay(ReplayOptions),
    /// Run random worlds, and check the rules that hold in all of them
    #[command(after_help = "Example:\n  nat-sim worlds --count 100000 --seed 1")]
    Worlds(WorldsOptions),
    /// What the laboratory does for real programs; `scripts/netns.sh` types it.
    #[cfg(target_os = "linux")]
    #[command(subcommand, hide = true)]
    Wire(nat_sim::wire::Command),
}

#[derive(Debug, clap::Args)]
pub(crate) struct MatrixOptions {
    /// Which pairs, with commas between them [default: all]
    #[arg(long, value_name = "A:B,…", value_delimiter = ',')]
    pub(crate) pairs: Vec<Pair>,
    /// Runs of each pair
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Where all chance comes from
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) setting: SettingOptions,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw the matrix as a page
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SettingOptions {
    /// Loss on each side's line, in each direction, as a share or in percent: 0.05 or 5%
    #[arg(long, value_name = "P", default_value = "0", value_parser = share)]
    pub(crate) loss: f64,
    /// Jitter on each side's line, in each direction, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) jitter: u64,
    /// The round trip to the server, on the mean of both sides, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 40)]
    pub(crate) server_rtt: u64,
    /// The round trip between the two, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 40)]
    pub(crate) direct_rtt: u64,
    /// Flows that other hosts open through each side's router, a second
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(..=1000))]
    pub(crate) foreign_flows: u64,
    /// Let both sides know their NATs before the offer, as a program does that has been running for a second
    #[arg(long)]
    pub(crate) ready: bool,
    /// Take one remedy away from both peers, to see which pairs need it
    #[arg(long, value_enum, value_name = "REMEDY")]
    pub(crate) without: Option<Without>,
}

/// A remedy that can be taken away.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Without {
    /// The checks that die on the way and only open the own NAT
    Prime,
    /// Checks after the first receipt
    Acknowledgements,
    /// Answering to where a check was seen to come from
    ObservedSource,
    /// A new local port after a failure
    NewPort,
    /// Guessing the ports that a NAT gives out
    Guess,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReplayOptions {
    /// The seed that a failure printed
    #[arg(value_name = "SEED")]
    pub(crate) seed: u64,
    /// The pair of a matrix that it is of; without one it is a random world's
    #[arg(long, value_name = "A:B")]
    pub(crate) pair: Option<Pair>,
    #[command(flatten)]
    pub(crate) setting: SettingOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct WorldsOptions {
    /// How many
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) count: u32,
    /// The first one's seed; the others follow it
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

impl SettingOptions {
    pub(crate) fn setting(&self) -> Setting {
        Setting {
            server_rtt: Duration::from_millis(self.server_rtt),
            direct_rtt: Duration::from_millis(self.direct_rtt),
            loss: self.loss,
            jitter: Duration::from_millis(self.jitter),
            foreign_flows: u32::try_from(self.foreign_flows).unwrap_or(u32::MAX),
            is_ready: self.ready,
            mutation: self.without.map(|without| match without {
                Without::Prime => Mutation::SkipsThePrime,
                Without::Acknowledgements => Mutation::StopsAfterTheFirstReceipt,
                Without::ObservedSource => Mutation::AnswersToTheCandidate,
                Without::NewPort => Mutation::NeverChangesThePort,
                Without::Guess => Mutation::GuessesNoPort,
            }),
        }
    }

    /// The options that repeat this setting.
    pub(crate) fn flags(&self) -> String {
        let mut flags = String::new();
        let mut add = |flag: &str, value: String| flags.push_str(&format!(" --{flag} {value}"));
        if self.loss > 0.0 {
            add("loss", self.loss.to_string());
        }
        for (flag, value, usual) in [
            ("jitter", self.jitter, 0),
            ("server-rtt", self.server_rtt, 40),
            ("direct-rtt", self.direct_rtt, 40),
            ("foreign-flows", self.foreign_flows, 5),
        ] {
            if value != usual {
                add(flag, value.to_string());
            }
        }
        if let Some(value) = self.without.as_ref().and_then(clap::ValueEnum::to_possible_value) {
            add("without", value.get_name().to_owned());
        }
        if self.ready {
            flags.push_str(" --ready");
        }
        flags
    }
}

/// A share below 1, or percent.
fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let value: f64 = number.trim().parse().map_err(|_| "write a share or percent: 0.05 or 5%".to_owned())?;
    let share = value / unit;
    if (0.0..1.0).contains(&share) {
        Ok(share)
    } else {
        Err("a share is below 1; for percent write 5%".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser as _};

    #[test]
    fn the_command_line_is_sound_and_every_command_has_an_example() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(command.get_after_help().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn loss_is_a_share_or_percent_and_nothing_else() {
        assert_eq!((share("0.05"), share("5%"), share("0")), (Ok(0.05), Ok(0.05), Ok(0.0)));
        for wrong in ["5", "-1%", "100%", "x", ""] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_flags_of_a_setting_repeat_it() {
        let read = |line: &str| {
            let Command::Matrix(options) = Cli::parse_from(line.split_whitespace()).command else {
                panic!("{line}")
            };
            options.setting
        };
        let line =
            "nat-sim matrix --loss 5% --jitter 50 --server-rtt 90 --foreign-flows 0 --without new-port";
        let again = format!("nat-sim matrix{}", read(line).flags());
        assert_eq!(read(&again).setting(), read(line).setting());
        assert_eq!(read("nat-sim matrix").flags(), "");
    }
}
