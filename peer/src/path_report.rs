//! Telling a user which path data takes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto::path::PathKind;
use relay::program::Report;
use serde::Serialize;

use crate::endpoint::PathReport;

#[derive(Serialize)]
struct PathFields {
    peer_id: String,
    kind: PathKind,
    remote: SocketAddr,
    rtt_ms: f64,
    reason: String,
    since_start_ms: u64,
}

/// Prints a path, as a line or an event.
pub(crate) fn print(report: &Report, path: &PathReport, started: Instant) {
    let PathReport { peer, kind, remote, rtt, reason } = path;
    let rtt_ms = millis(*rtt);
    let fields = PathFields {
        peer_id: peer.to_string(),
        kind: *kind,
        remote: *remote,
        rtt_ms,
        reason: reason.to_string(),
        since_start_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    report.event("path", fields);
    let kind = kind_name(*kind);
    report.line(format_args!(
        "{} {kind} to {} at {remote}, {rtt_ms} ms ({reason})",
        report.style().green("path:"),
        peer.short(),
    ));
}

/// A kind of path, as a user reads it.
pub(crate) const fn kind_name(kind: PathKind) -> &'static str {
    match kind {
        PathKind::Direct => "direct",
        PathKind::DirectTcp => "direct over TCP",
        PathKind::Relay => "through a relay",
    }
}

/// A kind of path, as a script reads it: the word of the `path` event.
pub(crate) const fn kind_word(kind: PathKind) -> &'static str {
    match kind {
        PathKind::Direct => "direct",
        PathKind::DirectTcp => "direct-tcp",
        PathKind::Relay => "relay",
    }
}

/// A round trip in milliseconds, to a tenth.
pub(crate) fn millis(rtt: Duration) -> f64 {
    (rtt.as_secs_f64() * 10_000.0).round() / 10.0
}
