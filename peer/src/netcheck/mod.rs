//! `peer netcheck`: what kind of NAT this machine is behind, and what that means for direct paths.

mod advice;
mod ask;
mod discover;
mod print;
mod warnings;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use proto::candidate::{Scope, scope};
use proto::nat::{Allocation, Dependence};
use proto::no_udp::{Cause, Here, diagnose};
use relay::net::{Net, OsNet};
use relay::outbound::Outbound;
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
use ask::Found;
use warnings::{View, server_of, silent_ports, view, warnings};

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
    /// Our addresses as the server sees them, private ones too.
    seen_v4: Option<IpAddr>,
    seen_v6: Option<IpAddr>,
    /// Why no UDP passes: see [`Cause::code`].
    udp_error: Option<&'static str>,
    /// Ports of the server that do not answer, while another one does.
    silent_ports: Vec<u16>,
    warnings: Vec<String>,
    #[serde(skip)]
    cause: Option<Cause>,
    /// Whether the server sees this machine as others do.
    #[serde(skip)]
    is_seen_from_outside: bool,
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
    let (found, relays, port_mapping) = tokio::join!(
        ask::ask(&net, &known, &url.host),
        measure(&outbound, &known.relays),
        look_for_router(&known),
    );
    let own = net.addresses().unwrap_or_default();
    let netcheck = summary(&found, &own, port_mapping, relays);
    print::print(&netcheck, report);
    report.event("netcheck", &netcheck);
    Ok(())
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
fn summary(
    found: &Found,
    own: &[IpAddr],
    port_mapping: Vec<Protocol>,
    relays: Vec<RelayLatency>,
) -> Netcheck {
    let main = if found.v4.has_udp() { found.v4 } else { found.v6 };
    let view_of = |seen: SocketAddr| view(seen, server_of(seen, &found.tried), own);
    let is_public = |seen: &SocketAddr| scope(*seen) == Scope::Global;
    let cause = diagnose(&found.tried, &found.beside, Here::with(own)).filter(|_| !main.has_udp());
    Netcheck {
        udp: main.has_udp(),
        public_v4: found.v4.mapped.filter(is_public).map(|addr| addr.ip()),
        public_v6: found.v6.mapped.filter(is_public).map(|addr| addr.ip()),
        mapping: main.mapping,
        filtering: main.filtering,
        hairpin: main.hairpin,
        port_mapping,
        relays,
        translated: main.is_translated,
        ports: main.allocation.map(Ports::from),
        rtt_ms: main.rtt.map(milliseconds),
        server_addresses: u8::from(main.has_udp()) + u8::from(main.has_two_addresses),
        seen_v4: found.v4.mapped.map(|addr| addr.ip()),
        seen_v6: found.v6.mapped.map(|addr| addr.ip()),
        udp_error: cause.map(Cause::code),
        silent_ports: silent_ports(found),
        warnings: warnings(found, own),
        cause,
        is_seen_from_outside: main
            .mapped
            .is_none_or(|seen| matches!(view_of(seen), View::Public | View::OwnMachine)),
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use proto::nat::Findings;

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
        let found = Found { v4: found, ..Found::default() };
        let text = serde_json::to_string(&summary(&found, &[], vec![Protocol::Pcp], relays)).unwrap();
        let contract = concat!(
            r#"{"udp":true,"public_v4":"203.0.113.7","public_v6":null,"mapping":"endpoint-independent","#,
            r#""filtering":"address-and-port-dependent","hairpin":true,"port_mapping":["pcp"],"#,
            r#""relays":[{"url":"http://203.0.113.1/relay","rtt_ms":9.1}],"#,
            r#""translated":true,"ports":{"kind":"sequential","step":-2},"rtt_ms":12.3,"server_addresses":2,"#,
            r#""seen_v4":"203.0.113.7","seen_v6":null,"udp_error":null,"silent_ports":[],"warnings":[]}"#
        );
        assert_eq!(text, contract);
    }

    #[test]
    fn a_private_address_is_never_called_public() {
        for seen in ["192.168.1.2:4000", "127.0.0.1:4000"] {
            let v4 = Findings { mapped: seen.parse().ok(), ..Findings::default() };
            let said = summary(&Found { v4, ..Found::default() }, &[], vec![], vec![]);
            assert_eq!((said.udp, said.public_v4, said.seen_v4.is_some()), (true, None, true));
        }
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
