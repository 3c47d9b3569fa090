//! The table of expectations, at smoke size.

use std::time::Duration;

use nat_sim::kind::Kind;
use nat_sim::oracle::{Between, Remedy, expectations};
use peer::Error;
use proto::path::PathKind;
use tokio::time::sleep;

use crate::lab::{D, GRAIN, MS, R, SEC, pair, run};
use crate::service::Visitor;

/// From the server's forwarding the offer to the connector's first path.
///
/// The sharer's router is open after R/2 and its first check leaves 60 ms later, or at the connector's; the
/// connector knows of the sharer after the answer's way, 3R/2. Then there and back. The clock's grain adds
/// a millisecond at each of five hosts' steps.
fn bound() -> Duration {
    let issue = R / 2 + D * 3 / 2 + 60 * MS + 20 * MS;
    let answer = R * 3 / 2 + D;
    issue.max(answer) + 5 * GRAIN
}

/// How long the search for a path may take before it is given up.
const VERDICT: Duration = Duration::from_secs(13);

/// What a search may send to whom it does not reach: checks of several attempts, the session beside them.
const QUIET: u64 = 300;

/// What a pair came to.
#[derive(Debug)]
struct Outcome {
    verdict: Result<PathKind, Error>,
    /// From the offer's being forwarded.
    path: Option<Duration>,
    verdict_after: Duration,
    /// Datagrams of the connector and the sharer until the data had come, or 20 s after the verdict.
    sent: [u64; 2],
}

/// Lets `a` connect to `b`, and exchanges some data if it can.
fn outcome(a: Kind, b: Kind, seed: u64) -> Outcome {
    run(&pair(seed, a, b), seed, async |lab| {
        let _server = lab.server();
        let (a, _b) = lab.both().await;
        let before = ["a", "b"].map(|host| lab.traffic(host).sent);
        let began = lab.world.elapsed();
        let connected = a.connect(&lab.ticket()).await;
        let verdict_after = lab.world.elapsed() - began;
        let path = a.paths().first().map(|(at, _)| at.saturating_sub(began + R / 2));
        let verdict = match connected {
            Ok(connection) => {
                Visitor::fetch(&connection, 10_000).await;
                Ok(a.paths().last().unwrap().1.kind)
            }
            Err(error) => {
                sleep(20 * SEC).await;
                Err(error)
            }
        };
        let after = ["a", "b"].map(|host| lab.traffic(host).sent);
        Outcome { verdict, path, verdict_after, sent: [after[0] - before[0], after[1] - before[1]] }
    })
}

#[test]
fn two_port_restricted_homes_have_their_path_within_the_bound() {
    for seed in 0..10 {
        let outcome = outcome(Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED, seed);
        let path = outcome.path.unwrap();
        assert!(path <= bound(), "seed {seed}: {path:?} and not {:?}", bound());
        // The handshake, and the proof with its answer.
        let ready = outcome.verdict_after - R / 2 - path;
        assert!(ready <= 2 * D + 5 * GRAIN, "seed {seed}: ready {ready:?} after the path");
    }
}

/// The time within which a pair has its path, by what it needs.
fn limit(remedy: Remedy) -> Duration {
    match remedy {
        // The first side's wait of 60 ms is over before the answer has told the second one to prime, where R
        // is longer: then a second attempt from another port succeeds.
        Remedy::Prime => 2 * SEC,
        // One that is heard from an unknown address is asked back: a trip and a probe interval more.
        Remedy::PeerReflexive => bound() + D / 2 + 20 * MS,
        // An address that is merely claimed gets few probes, and so they are further apart.
        Remedy::Ipv6 => bound() + D + 5 * MS,
        Remedy::Predict => SEC * 3 / 2,
        Remedy::Birthday | Remedy::Scatter => 5 * SEC,
        Remedy::HostCandidate | Remedy::Plain | Remedy::Hairpin | Remedy::SendOrder | Remedy::RelayOnly => {
            bound()
        }
    }
}

/// The rows of the table that are run, in both directions.
fn smoke() -> impl Iterator<Item = (Kind, Kind, Remedy)> {
    let rows = expectations().into_iter().filter(|row| row.between == Between::Core);
    let rows = rows.filter(|row| is_chosen(row.a) && is_chosen(row.b));
    rows.flat_map(|row| [(row.a, row.b, row.remedy), (row.b, row.a, row.remedy)])
}

/// Every kind without a leak or a carrier, and the commonest with one.
fn is_chosen(kind: Kind) -> bool {
    let common = Kind::PORT_RESTRICTED;
    match kind {
        Kind::Home(edge) => !edge.leaky || kind == common.leaky(),
        Kind::Cgnat(_) => kind == common.behind_carrier(),
        Kind::Layers { .. } | Kind::UdpBlocked | Kind::SymmetricBlock | Kind::Mapped => false,
        Kind::Ipv6Firewall | Kind::SameLan | Kind::SameNat | Kind::SameNatHairpin => true,
    }
}

#[test]
fn every_pair_that_can_connects_directly_and_in_time() {
    let mut failures = Vec::new();
    let rows = smoke().filter(|(.., remedy)| remedy.is_direct());
    for (seed, (a, b, remedy)) in (0..).zip(rows) {
        let outcome = outcome(a, b, seed);
        let in_time = outcome.path.is_some_and(|path| path <= limit(remedy));
        if outcome.verdict != Ok(PathKind::Direct) || !in_time {
            failures.push(format!("{a} → {b} ({remedy}): {outcome:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_other_pair_gets_its_verdict_in_time_and_floods_nobody() {
    let mut failures = Vec::new();
    let rows = smoke().filter(|(.., remedy)| !remedy.is_direct());
    // One direction of each: every run has many attempts.
    for (seed, (a, b, remedy)) in (0..).zip(rows.step_by(2)) {
        let outcome = outcome(a, b, seed);
        let is_quiet = outcome.sent.iter().all(|sent| *sent <= QUIET);
        if outcome.verdict != Err(Error::NoPath) || !is_quiet || outcome.verdict_after > VERDICT {
            failures.push(format!("{a} → {b} ({remedy}): {outcome:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
