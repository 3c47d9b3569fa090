//! `peer ping`: the round trip to a ticket's sharer, and the path of each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::path::PathKind;
use proto::ticket::Ticket;
use relay::net::OsNet;
use relay::program::{Ending, Failure, Report, Shutdown};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use crate::cli;
use crate::endpoint::{Connection, Endpoint, EndpointConfig};
use crate::error::Error;
use crate::path_report;
use crate::store::Store;
use crate::{ticket_source, warning};

/// From the beginning of one round trip to that of the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a round trip may take: what a path that has died needs to be replaced, and a little more.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct PongFields {
    seq: u32,
    rtt_ms: f64,
    kind: Option<PathKind>,
    remote: Option<SocketAddr>,
}

/// Runs the command.
pub(crate) async fn run(args: cli::Ping, report: Report) -> Result<Ending, Failure> {
    let shutdown = Shutdown::install().map_err(|error| Failure::failed("no-signals", error))?;
    let store = Store::of_this_user()?;
    let ticket = ticket_source::read(args.ticket, &store)?;
    let key = Arc::new(store.identity()?);
    // The router is asked for no port: a path that a ping found by one would be no other visitor's.
    let config = EndpointConfig::new(key, ticket_source::server(&ticket, &OsNet));
    let config =
        EndpointConfig { relays: ticket.relay.iter().cloned().collect(), proxy: cli::proxy()?, ..config };
    let endpoint = Endpoint::bind(config, Arc::new(OsNet))?;
    let ended = tokio::select! {
        ended = ping(&endpoint, &ticket, args.count, &report) => ended.map(Ending::from),
        reason = shutdown.requested() => Ok(reason.into()),
    };
    shutdown.drained(endpoint.close()).await;
    ended
}

async fn ping(endpoint: &Endpoint, ticket: &Ticket, count: u32, report: &Report) -> Result<(), Failure> {
    let connection =
        endpoint.connect(ticket).await.map_err(|error| warning::of_ticket(error, &ticket.server))?;
    let mut echo = connection.echo().await?;
    let mut answered = Vec::new();
    let mut next = Instant::now();
    for seq in 1..=count {
        sleep_until(next).await;
        next += INTERVAL;
        match echo.round_trip(PATIENCE).await? {
            Some(rtt) => {
                answered.push(rtt);
                print(endpoint, &connection, report, seq, rtt).await?;
            }
            None => {
                report.line(format_args!("{seq}: no answer within {} s", PATIENCE.as_secs()));
                echo = connection.echo().await?;
            }
        }
    }
    connection.close();
    summary(report, count, &answered)
}

/// Tells of one round trip, and of the path that data takes right after it.
async fn print(
    endpoint: &Endpoint,
    connection: &Connection,
    report: &Report,
    seq: u32,
    rtt: Duration,
) -> Result<(), Error> {
    let peers = endpoint.status().await?.peers;
    let path = peers.iter().find(|other| other.peer == connection.peer_id()).and_then(|peer| peer.path);
    let (kind, remote) = (path.map(|(kind, ..)| kind), path.map(|(_, remote, _)| remote));
    let rtt_ms = path_report::millis(rtt);
    report.event("pong", PongFields { seq, rtt_ms, kind, remote });
    let way = match (kind, remote) {
        (Some(kind), Some(remote)) => format!("{} at {remote}", path_report::kind_name(kind)),
        _ => "by a path that is gone by now".to_owned(),
    };
    report.line(format_args!("{seq}: {} ms, {way}", report.style().bold(rtt_ms)));
    Ok(())
}

fn summary(report: &Report, sent: u32, answered: &[Duration]) -> Result<(), Failure> {
    let (Some(least), Some(most)) = (answered.iter().min(), answered.iter().max()) else {
        return Err(Failure::failed(
            "no-answer",
            format_args!(
                "none of {sent} pings was answered, though there is a connection: the path has just died; try again"
            ),
        ));
    };
    let mean = answered.iter().sum::<Duration>() / u32::try_from(answered.len()).unwrap_or(u32::MAX);
    report.line(format_args!(
        "{} of {sent} answered; least {} ms, mean {} ms, most {} ms",
        answered.len(),
        path_report::millis(*least),
        path_report::millis(mean),
        path_report::millis(*most),
    ));
    Ok(())
}
