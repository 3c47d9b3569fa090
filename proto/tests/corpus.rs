//! Runs the fuzz targets of this crate over their corpora.
#![allow(clippy::disallowed_methods, reason = "a test reads files, and the clock once")]
#![allow(
    clippy::type_complexity,
    clippy::print_stderr,
    reason = "the corpora's tables and complaints are shared with the fuzzers"
)]

#[path = "../../fuzz/src/decoders.rs"]
#[allow(unreachable_pub, reason = "shared with the fuzzers")]
mod decoders;
#[path = "../../fuzz/src/http.rs"]
#[allow(unreachable_pub, reason = "shared with the fuzzers")]
mod http;
#[path = "../../fuzz/src/machines.rs"]
#[allow(unreachable_pub, reason = "shared with the fuzzers")]
mod machines;
#[path = "../../fuzz/src/paths.rs"]
#[allow(unreachable_pub, reason = "shared with the fuzzers")]
mod paths;
#[path = "../../fuzz/src/replay.rs"]
mod replay;

#[test]
fn no_decoder_breaks_a_promise_on_its_corpus() {
    replay::all(env!("CARGO_MANIFEST_DIR"), decoders::TARGETS);
}

#[test]
fn no_head_breaks_a_promise_on_its_corpus() {
    replay::all(env!("CARGO_MANIFEST_DIR"), http::TARGETS);
}

#[test]
fn no_machine_breaks_a_promise_on_its_corpus() {
    replay::all(env!("CARGO_MANIFEST_DIR"), machines::TARGETS);
}

#[test]
fn no_path_agent_breaks_a_promise_on_its_corpus() {
    replay::all(env!("CARGO_MANIFEST_DIR"), paths::TARGETS);
}
