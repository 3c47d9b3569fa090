//! Runs the fuzz targets of this crate over their corpora.

#![allow(
    clippy::type_complexity,
    clippy::print_stderr,
    reason = "the corpora's tables and complaints are shared with the fuzzers"
)]

#[path = "../../fuzz/src/client.rs"]
#[allow(unreachable_pub, reason = "shared with the fuzzers")]
mod client;
#[path = "../../fuzz/src/replay.rs"]
mod replay;

#[test]
fn no_reader_breaks_a_promise_on_its_corpus() {
    replay::all(env!("CARGO_MANIFEST_DIR"), client::TARGETS);
}
