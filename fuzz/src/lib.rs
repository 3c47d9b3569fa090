//! What is fuzzed, by crate. `fuzz_targets` runs each under libFuzzer; the crates' own tests run the same
//! functions over the committed corpora.

pub mod client;
pub mod decoders;
pub mod floor;
pub mod http;
pub mod machines;
pub mod paths;
