//! Runs targets over their committed corpora, and over every seed cut and changed: what libFuzzer does for
//! hours on nightly, stable does for a second in every test run.

use std::fs;
use std::path::Path;

/// Changes tried at each byte of a seed.
const CHANGES: [u8; 2] = [0x01, 0xff];

/// How many bytes of a seed are changed one by one; of longer ones, that many evenly.
const PLACES: usize = 8;

/// Runs each target over its corpus under `fuzz/corpus` beside the crate that is tested.
pub(crate) fn all(crate_dir: &str, targets: &[(&str, fn(&[u8]))]) {
    for (name, target) in targets {
        let corpus = Path::new(crate_dir).join("../fuzz/corpus").join(name);
        let mut seeds: Vec<_> = fs::read_dir(&corpus)
            .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
            .map(|entry| entry.expect("a readable corpus").path())
            .collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{} is empty", corpus.display());
        for seed in seeds {
            run(&seed.display().to_string(), &fs::read(&seed).expect("a readable seed"), *target);
        }
    }
}

fn run(seed: &str, bytes: &[u8], target: fn(&[u8])) {
    try_one(seed, bytes, target);
    for at in (0..bytes.len()).step_by(1 + bytes.len() / PLACES) {
        try_one(seed, &bytes[..at], target);
        for change in CHANGES {
            let mut changed = bytes.to_vec();
            changed[at] ^= change;
            try_one(seed, &changed, target);
        }
    }
}

fn try_one(seed: &str, bytes: &[u8], target: fn(&[u8])) {
    if let Err(panic) = std::panic::catch_unwind(|| target(bytes)) {
        eprintln!("with {seed}, as {bytes:02x?}");
        std::panic::resume_unwind(panic);
    }
}
