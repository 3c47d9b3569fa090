//! Many runs of one pair, summed up.

use std::time::Duration;

use super::{Pair, Run, Setting, in_parallel};

/// Many runs of one pair.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Which pair.
    pub pair: Pair,
    /// How many runs.
    pub runs: usize,
    /// How many became direct in time.
    pub direct: usize,
    /// How many became direct too late to count.
    pub late: usize,
    /// How many ended with both sides' verdict that there is no path.
    pub unreached: usize,
    /// The times of those that became direct, in order.
    pub times: Vec<Duration>,
    /// The times by which one side knew that no direct path leads through both NATs, in order: the sharer, mostly,
    /// which reads so in the offer.
    pub first_verdicts: Vec<Duration>,
    /// And those by which both did.
    pub verdicts: Vec<Duration>,
    /// Mean checks and answers of each side.
    pub packets: [f64; 2],
    /// Seeds of the runs that were not direct.
    pub failed: Vec<u64>,
    /// Rules that were broken, with the seed.
    pub faults: Vec<(u64, String)>,
}

impl Cell {
    /// Runs a pair so many times, on all processors.
    #[must_use]
    pub fn measure(pair: Pair, setting: &Setting, runs: usize, seed: u64) -> Self {
        Self::of(pair, &in_parallel(runs, |n| pair.run(setting, spread(seed, n as u64))))
    }

    /// Sums runs up.
    #[must_use]
    pub fn of(pair: Pair, runs: &[Run]) -> Self {
        let mut times: Vec<Duration> = runs.iter().filter_map(|run| run.direct).collect();
        times.sort_unstable();
        let (mut first_verdicts, mut verdicts): (Vec<_>, Vec<_>) =
            runs.iter().filter_map(|run| run.verdict).unzip();
        first_verdicts.sort_unstable();
        verdicts.sort_unstable();
        let mean = |side: usize| {
            runs.iter().map(|run| run.checks[side] as f64).sum::<f64>() / runs.len().max(1) as f64
        };
        Self {
            pair,
            runs: runs.len(),
            direct: times.len(),
            late: runs.iter().filter(|run| run.late).count(),
            unreached: runs.iter().filter(|run| run.unreached).count(),
            times,
            first_verdicts,
            verdicts,
            packets: [mean(0), mean(1)],
            failed: runs.iter().filter(|run| run.direct.is_none()).map(|run| run.seed).collect(),
            faults: runs
                .iter()
                .flat_map(|run| run.faults.iter().map(|fault| (run.seed, fault.clone())))
                .collect(),
        }
    }

    /// The time by which this share of the direct runs was direct.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        quantile(&self.times, share)
    }

    /// The times by which this share of the verdicts was given on one side, and on both.
    #[must_use]
    pub fn verdict_quantile(&self, share: f64) -> Option<(Duration, Duration)> {
        quantile(&self.first_verdicts, share).zip(quantile(&self.verdicts, share))
    }

    /// Whether every run was direct.
    #[must_use]
    pub fn is_always_direct(&self) -> bool {
        self.direct == self.runs
    }
}

fn quantile(times: &[Duration], share: f64) -> Option<Duration> {
    let last = times.len().checked_sub(1)?;
    let at = (share * times.len() as f64).ceil() as usize;
    times.get(at.saturating_sub(1).min(last)).copied()
}

/// The seed of run `n` of a series: neighbouring series share none.
#[must_use]
pub fn spread(seed: u64, n: u64) -> u64 {
    let mixed = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n).wrapping_mul(0xd6e8_feb8_6659_fd93);
    // Short enough to be typed.
    (mixed ^ (mixed >> 32)) & 0xffff_ffff_ffff
}
