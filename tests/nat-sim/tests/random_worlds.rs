//! Random worlds at smoke size. `nat-sim worlds --count 100000` runs the long figure.
#![allow(clippy::unwrap_used, reason = "these are tests")]
#![allow(clippy::print_stdout, reason = "failures name their seeds")]

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use nat_sim::matrix::in_parallel;
use nat_sim::random::{Report, run, tell};

fn hold(seeds: &[u64]) {
    let reports = in_parallel(seeds.len(), |n| run(seeds[n]));
    let broken: Vec<&Report> = reports.iter().filter(|report| !report.broken.is_empty()).collect();
    for report in &broken {
        println!("{report}\n    cargo run -p nat-sim --release -- replay {}", report.seed);
    }
    assert!(broken.is_empty(), "{} of {} worlds broke a rule", broken.len(), seeds.len());
}

#[test]
fn seeds_that_once_broke_a_rule_keep_them_all() {
    let seeds = include_str!("../seeds/worlds.txt").lines().filter(|line| !line.starts_with('#'));
    let seeds: Vec<u64> =
        seeds.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect();
    assert!(!seeds.is_empty());
    hold(&seeds);
}

#[test]
fn thirty_known_worlds_keep_every_rule() {
    hold(&(1_000_000..1_000_030).collect::<Vec<_>>());
}

#[test]
fn ten_fresh_worlds_keep_every_rule() {
    let first = RandomState::new().hash_one("fresh") & 0xffff_ffff;
    println!("seeds {first} to {}", first + 9);
    hold(&(first..first + 10).collect::<Vec<_>>());
}

#[test]
fn the_same_seed_gives_the_same_log_and_another_seed_another() {
    for seed in [3, 39, 186] {
        let (first, again) = (tell(seed, true), tell(seed, true));
        assert_eq!(first.0.fingerprint, again.0.fingerprint);
        assert_eq!(first.1, again.1);
        assert_eq!(run(seed).fingerprint, first.0.fingerprint, "the story changes nothing");
        assert_ne!(run(seed + 1).fingerprint, first.0.fingerprint);
    }
}
