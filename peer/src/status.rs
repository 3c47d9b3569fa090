//! `peer status`: how the running programs of this user stand.

use std::path::Path;
use std::time::Duration;

use relay::program::report::clean;
use relay::program::{Ending, Failure, Report, Shutdown};
use tokio::time::sleep;

use crate::cli;
use crate::control::{self, ChangeFields, PeerFields, Snapshot};
use crate::store::Store;

/// Between two looks of `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

/// How many of a peer's changes a human sees.
const SHOWN: usize = 3;

/// Runs the command.
pub(crate) async fn run(args: cli::Status, report: Report) -> Result<Ending, Failure> {
    let shutdown = Shutdown::install().map_err(|error| Failure::failed("no-signals", error))?;
    let store = Store::of_this_user()?;
    loop {
        look(&store, &report).await;
        if !args.watch || report.closed() {
            return Ok(().into());
        }
        tokio::select! {
            () = sleep(INTERVAL) => report.line(""),
            reason = shutdown.requested() => return Ok(reason.into()),
        }
    }
}

async fn look(store: &Store, report: &Report) {
    let answers = control::ask(store).await;
    if answers.is_empty() {
        report.line("No `peer share` or `peer connect` of this user is running.");
    }
    for answer in answers {
        match answer {
            Ok(snapshot) => print(report, &snapshot),
            Err(path) => print_silent(report, &path),
        }
    }
}

fn print_silent(report: &Report, path: &Path) {
    report.warning(format_args!(
        "the process at {} does not answer; it may be stopped, or of another version",
        path.display()
    ));
}

fn print(report: &Report, snapshot: &Snapshot) {
    report.event("status", snapshot);
    let style = report.style();
    let what = match &snapshot.name {
        Some(name) => format!("{} as {}", snapshot.targets.join(", "), name),
        None => snapshot.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    let Snapshot { pid, command, since, server, session, .. } = snapshot;
    report.line(format_args!(
        "{} {} (process {pid}, since {})",
        style.bold(clean(command)),
        clean(&what),
        clean(since)
    ));
    report.line(format_args!("  server {}: {}{}", clean(server), clean(session), relayed(snapshot)));
    if let Some(seconds) = snapshot.nat_keeps_s {
        report.line(format_args!("  NAT: keeps an idle flow for {seconds} s at least"));
    }
    for peer in &snapshot.peers {
        print_peer(report, peer);
    }
}

/// How the session goes, where it is not by UDP.
fn relayed(snapshot: &Snapshot) -> String {
    match &snapshot.relayed_because {
        _ if !snapshot.relayed => String::new(),
        Some(because) => format!(", through its relay, because {}", clean(because)),
        None => ", through its relay".to_owned(),
    }
}

fn print_peer(report: &Report, peer: &PeerFields) {
    let id: String = peer.peer_id.chars().take(10).collect();
    let path = match (&peer.kind, peer.remote, peer.rtt_ms) {
        (Some(kind), Some(remote), Some(rtt_ms)) => format!("{} at {remote}, {rtt_ms} ms", clean(kind)),
        _ => "no path".to_owned(),
    };
    report.line(format_args!(
        "  {} {}: {}, {} bytes in, {} out, since {}",
        clean(&peer.part),
        clean(&id),
        report.style().green(path),
        peer.bytes_in,
        peer.bytes_out,
        clean(&peer.since),
    ));
    for ChangeFields { at, kind, remote, reason } in peer.changes.iter().rev().take(SHOWN).rev() {
        let path = match (kind, remote) {
            (Some(kind), Some(remote)) => format!("{} at {remote}", clean(kind)),
            _ => "no path".to_owned(),
        };
        report.line(format_args!("    {} {path}: {}", clean(at), clean(reason)));
    }
}
