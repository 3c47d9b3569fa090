//! Logs: compact lines on stderr through `tracing`, warnings only unless asked for more.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Our own crates; `-v` and `-vv` are about them, not about every library beneath.
const OURS: [&str; 5] = ["proto", "relay", "rendezvous", "peer", "nat_sim"];

/// Without any `-v`. What quinn's sockets can't send, they say packet by packet; where it matters, the program says it once
/// in its own words.
const QUIET: &str = "warn,quinn_udp=error";

/// Starts logging. `RUST_LOG` says exactly what to log and wins; else `verbose` counts the `-v`s.
/// Calling it again changes nothing.
pub fn init(verbose: u8) {
    let asked = std::env::var("RUST_LOG").ok();
    let (directives, mistake) = directives(verbose, asked.as_deref());
    let colour = super::report::colour(std::io::stderr().is_terminal(), |name| std::env::var_os(name));
    let subscriber = tracing_subscriber::fmt()
        .compact()
        .with_env_filter(EnvFilter::new(directives))
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        // It would print to stderr that stderr cannot be written to, and panic.
        .log_internal_errors(false)
        .finish();
    if tracing::subscriber::set_global_default(subscriber).is_ok()
        && let Some(mistake) = mistake
    {
        tracing::warn!("RUST_LOG is not understood and was ignored: {mistake}");
    }
}

/// The filter for this many `-v`s and this `RUST_LOG`, and what was wrong with the latter.
fn directives(verbose: u8, asked: Option<&str>) -> (String, Option<String>) {
    let mut mistake = None;
    if let Some(asked) = asked.filter(|asked| !asked.trim().is_empty()) {
        match EnvFilter::try_new(asked) {
            Ok(_) => return (asked.to_owned(), None),
            Err(error) => mistake = Some(error.to_string()),
        }
    }
    let (ours, others) = match verbose {
        0 => return (QUIET.to_owned(), mistake),
        1 => ("info", "warn"),
        2 => ("debug", "info"),
        _ => ("trace", "debug"),
    };
    let filter =
        OURS.iter().fold(others.to_owned(), |filter, ours_name| format!("{filter},{ours_name}={ours}"));
    (filter, mistake)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_warnings_are_logged_unless_asked() {
        assert_eq!(directives(0, None), (QUIET.to_owned(), None));
        assert_eq!(directives(0, Some("")), (QUIET.to_owned(), None));
    }

    #[test]
    fn each_v_logs_more_of_our_own_crates() {
        for (verbose, ours) in [(1, "peer=info"), (2, "peer=debug"), (3, "peer=trace"), (200, "peer=trace")] {
            let (filter, _) = directives(verbose, None);
            assert!(filter.contains(ours), "{filter}");
            assert!(EnvFilter::try_new(&filter).is_ok(), "{filter}");
        }
    }

    #[test]
    fn rust_log_wins_unless_it_is_not_understood() {
        assert_eq!(directives(2, Some("quinn=trace")), ("quinn=trace".to_owned(), None));
        let (filter, mistake) = directives(0, Some("peer=loudly"));
        assert_eq!(filter, QUIET);
        assert!(mistake.is_some());
    }
}
