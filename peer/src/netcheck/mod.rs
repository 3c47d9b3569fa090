//! `peer netcheck`: what kind of NAT this machine is behind, and what that means for direct paths.

mod advice;
mod discover;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use proto::nat::{Allocation, Dependence, Findings};
use relay::net::{Net, OsNet};
use relay::outbound::Outbound;
use relay::program::report::clean;
use relay::program::{Ending, Failure, Report, Shutdown};
use rendezvous::well_known::{WellKnown, WellKnownRelay};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cli;
use crate::error::Error;
use crate::locate;
use crate::portmap::{self, Protocol};
use crate::server_url::ServerUrl;
use advice::advice;

/// How long the server may take to say where its UDP ports are. With the two seconds of the tests it is less than the
/// five that a user waits where UDP is blocked.
const DESCRIBE: Duration = Duration::from_millis(2500);

/// How long a relay may take to answer, and the router to say what port mapping it has.
const BESIDES: Duration = Duration::from_millis(1500);

/// How many relays are measured.
const MAX_RELAYS: usize = 8;

#[derive(Debug, Serialize)]
struct Netcheck {
    udp: bool,
    public_v4: Option<IpAddr>,
    public_v6: Option<IpAddr>,
    mapping: Option<Dependence>,
    filtering: Option<Dependence>,
    hairpin: Option<bool>,
    port_mapping: Vec<Protocol>,
    relays: Vec<RelayLatency>,
    /// Whether the server sees another address than this machine's own.
    translated: bool,
    ports: Option<Ports>,
    rtt_ms: Option<f64>,
    /// At how many IP addresses the server answered: with one, `mapping` may be address-dependent where it says
    /// endpoint-independent, and `filtering` endpoint-independent where it says address-dependent.
    server_addresses: u8,
}

#[derive(Debug, Serialize)]
struct RelayLatency {
    url: String,
    rtt_ms: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Ports {
    Preserved,
    Sequential { step: i16 },
    Random { first: u16, last: u16 },
}

impl From<Allocation> for Ports {
    fn from(allocation: Allocation) -> Self {
        match allocation {
            Allocation::Preserving => Self::Preserved,
            Allocation::Sequential { step } => Self::Sequential { step },
            Allocation::Random { range } => Self::Random { first: range.first(), last: range.last() },
        }
    }
}

/// Runs the command.
pub(crate) async fn run(args: cli::Netcheck, report: Report) -> Result<Ending, Failure> {
    let shutdown = Shutdown::install().map_err(|error| Failure::failed("no-signals", error))?;
    let url = args.server.ok_or_else(|| {
        Failure::usage("there is no server to ask: name one with --server, or in the options file")
    })?;
    let net: Arc<dyn Net> = Arc::new(OsNet);
    tokio::select! {
        done = check(net, &url, &report) => done.map(Ending::from),
        reason = shutdown.requested() => Ok(reason.into()),
    }
}

async fn check(net: Arc<dyn Net>, url: &ServerUrl, report: &Report) -> Result<(), Failure> {
    let outbound = Outbound::new(Arc::clone(&net), cli::proxy()?);
    let known = locate::describe(&outbound, url, DESCRIBE).await?;
    if let Some(given) = url.peer_id.filter(|given| *given != known.peer_id) {
        let remedy = "write the new one behind the # of its URL".into();
        let (url, found) = (url.to_string(), known.peer_id.to_string());
        return Err(Error::ServerChanged { url, known: given, found, remedy }.into());
    }
    let (v4, v6, relays, port_mapping) = tokio::join!(
        find(&*net, &known, SocketAddr::is_ipv4),
        find(&*net, &known, SocketAddr::is_ipv6),
        measure(&outbound, &known.relays),
        look_for_router(&known),
    );
    let netcheck = summary(v4, v6, port_mapping, relays);
    print(&netcheck, report);
    report.event("netcheck", &netcheck);
    Ok(())
}

/// What is found at the server's first address of a family; nothing where it has none.
async fn find(net: &dyn Net, known: &WellKnown, family: impl Fn(&SocketAddr) -> bool) -> Findings {
    match known.udp.iter().copied().map(proto::candidate::canonical).find(&family) {
        Some(server) => discover::discover(net, server, &known.udp_alternate).await,
        None => Findings::default(),
    }
}

/// What port mapping the router has. On the server's own machine there is none in between.
async fn look_for_router(known: &WellKnown) -> Vec<Protocol> {
    if known.udp.iter().all(|addr| addr.ip().to_canonical().is_loopback()) {
        return Vec::new();
    }
    portmap::probe(BESIDES).await
}

/// The relays that answer, and how soon, in the server's order.
async fn measure(outbound: &Outbound, relays: &[WellKnownRelay]) -> Vec<RelayLatency> {
    let mut tasks = JoinSet::new();
    for (number, relay) in relays.iter().take(MAX_RELAYS).enumerate() {
        let (outbound, url) = (outbound.clone(), relay.url.clone());
        tasks.spawn(async move {
            let (server, path) = split(&url)?;
            let took = timeout(BESIDES, locate::round_trip(&outbound, &server, &path)).await.ok()??;
            Some((number, RelayLatency { url, rtt_ms: milliseconds(took) }))
        });
    }
    let mut found: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    found.sort_by_key(|(number, _)| *number);
    found.into_iter().map(|(_, latency)| latency).collect()
}

/// A relay's URL as the host to connect to, and the path to ask for there.
fn split(url: &str) -> Option<(ServerUrl, String)> {
    let url: Uri = url.parse().ok()?;
    let server = format!("{}://{}", url.scheme_str()?, url.authority()?).parse().ok()?;
    Some((server, url.path().to_owned()))
}

/// IPv4 is what NATs are about; where there is none, IPv6 shows what its firewall does.
fn summary(v4: Findings, v6: Findings, port_mapping: Vec<Protocol>, relays: Vec<RelayLatency>) -> Netcheck {
    let main = if v4.has_udp() { v4 } else { v6 };
    Netcheck {
        udp: main.has_udp(),
        public_v4: v4.mapped.map(|addr| addr.ip()),
        public_v6: v6.mapped.map(|addr| addr.ip()),
        mapping: main.mapping,
        filtering: main.filtering,
        hairpin: main.hairpin,
        port_mapping,
        relays,
        translated: main.is_translated,
        ports: main.allocation.map(Ports::from),
        rtt_ms: main.rtt.map(milliseconds),
        server_addresses: u8::from(main.has_udp()) + u8::from(main.has_two_addresses),
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

fn print(netcheck: &Netcheck, report: &Report) {
    let line = |name: &str, value: &dyn std::fmt::Display| report.line(format_args!("{name:13} {value}"));
    match netcheck.rtt_ms {
        Some(rtt) => line("UDP", &format_args!("works, {rtt} ms to the server and back")),
        None if netcheck.udp => line("UDP", &"works"),
        None => line("UDP", &"blocked: nothing comes back from the server"),
    }
    let address = |ip: Option<IpAddr>| ip.map_or_else(|| "none".to_owned(), |ip| ip.to_string());
    line("public IPv4", &address(netcheck.public_v4));
    line("public IPv6", &address(netcheck.public_v6));
    if netcheck.udp {
        print_nat(netcheck, &line);
    }
    let protocols: Vec<&str> = netcheck.port_mapping.iter().map(|protocol| protocol.name()).collect();
    line("port mapping", &if protocols.is_empty() { "none found".to_owned() } else { protocols.join(", ") });
    for relay in &netcheck.relays {
        line("relay", &format_args!("{}, {} ms", clean(&relay.url), relay.rtt_ms));
    }
    report.line("");
    report.line(advice(netcheck));
}

fn print_nat(netcheck: &Netcheck, line: &dyn Fn(&str, &dyn std::fmt::Display)) {
    let word = |found: Option<Dependence>| found.map_or("not found out", Dependence::name);
    let unsure = netcheck.server_addresses < 2;
    let mapping = match netcheck.mapping {
        Some(Dependence::EndpointIndependent) if unsure => {
            "endpoint-independent, as far as a server with one IP address can tell"
        }
        found => word(found),
    };
    let filtering = match netcheck.filtering {
        Some(Dependence::AddressDependent) if unsure => {
            "address-dependent or less: a server with one IP address can't tell"
        }
        found => word(found),
    };
    line("mapping", &mapping);
    line("filtering", &filtering);
    match netcheck.ports {
        Some(Ports::Preserved) => line("ports", &"preserved"),
        Some(Ports::Sequential { step }) => line("ports", &format_args!("sequential, step {step:+}")),
        Some(Ports::Random { first, last }) => {
            line("ports", &format_args!("random, about {first} to {last}"))
        }
        None => line("ports", &"not found out"),
    }
    match netcheck.hairpin {
        Some(true) => line("hairpin", &"yes"),
        Some(false) => line("hairpin", &"no"),
        None => line("hairpin", &"not found out"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_is_the_documented_one() {
        let found = Findings {
            mapped: "203.0.113.7:4000".parse().ok(),
            rtt: Some(Duration::from_micros(12_340)),
            is_translated: true,
            has_two_addresses: true,
            mapping: Some(Dependence::EndpointIndependent),
            filtering: Some(Dependence::AddressAndPortDependent),
            allocation: Some(Allocation::Sequential { step: -2 }),
            hairpin: Some(true),
        };
        let relays = vec![RelayLatency { url: "http://203.0.113.1/relay".into(), rtt_ms: 9.1 }];
        let text =
            serde_json::to_string(&summary(found, Findings::default(), vec![Protocol::Pcp], relays)).unwrap();
        let contract = concat!(
            r#"{"udp":true,"public_v4":"203.0.113.7","public_v6":null,"mapping":"endpoint-independent","#,
            r#""filtering":"address-and-port-dependent","hairpin":true,"port_mapping":["pcp"],"#,
            r#""relays":[{"url":"http://203.0.113.1/relay","rtt_ms":9.1}],"#,
            r#""translated":true,"ports":{"kind":"sequential","step":-2},"rtt_ms":12.3,"server_addresses":2}"#
        );
        assert_eq!(text, contract);
    }

    #[test]
    fn a_relays_url_is_a_host_and_a_path() {
        let (server, path) = split("https://relay.example.com:8443/relay").unwrap();
        assert_eq!(
            (server.to_string().as_str(), path.as_str()),
            ("https://relay.example.com:8443", "/relay")
        );
        assert!(split("ftp://x/relay").is_none() && split("/relay").is_none());
    }
}
