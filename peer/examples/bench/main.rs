//! What the benches in `scripts/bench` measure with, where it takes the library: QUIC with and without the path
//! socket, and many idle peers at a relay. Each prints its figure and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench stops where it fails"
)]

mod quic;
mod relayed;

const USAGE: &str = "\
usage: bench quic paths|stock BYTES      one stream between two endpoints here    → Gbit/s
       bench idle URL PEERID COUNT       as many peers logged in at a relay, until standard input ends";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["quic", kind @ ("paths" | "stock"), bytes] => {
            println!("{:.3}", quic::bulk(*kind == "paths", bytes.parse().unwrap()));
        }
        ["idle", url, relay, count] => relayed::idle(url, relay.parse().unwrap(), count.parse().unwrap()),
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2);
        }
    }
}
