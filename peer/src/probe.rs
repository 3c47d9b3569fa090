//! The sockets under [`proto::no_udp`]: asks addresses of a server whether their UDP ports answer.
//!
//! Each question has a connected socket of its own, which the system tells what the network says of its packets. The
//! main socket is not disturbed by that.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proto::candidate::canonical;
use proto::machine::random;
use proto::no_udp::{Outcome, Probe, Refused, Tried, Unreachable};
use proto::server_addrs::at_host;
use proto::ticket::MAX_ADDRS;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use relay::net::{Net, resolve_all};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// The largest datagram that is looked at: no answer is longer.
const DATAGRAM: usize = 512;

/// How long the look-up of the URL's host may take.
const RESOLVE: Duration = Duration::from_secs(1);

/// How many addresses are asked.
const MAX_PLACES: usize = 2 * MAX_ADDRS;

/// An address to ask, and whether it belongs to the host of the server's URL.
pub(crate) type Place = (SocketAddr, bool);

/// The UDP addresses that a server names, and those of its URL's host at the same ports: behind address translation it
/// may not know the address by which it is reached. Of the latter only those that the name `may_lead_to`.
pub(crate) async fn places(
    net: &dyn Net,
    host: &str,
    udp: &[SocketAddr],
    may_lead_to: impl Fn(SocketAddr) -> bool,
) -> Vec<Place> {
    let resolved = timeout(RESOLVE, resolve_all(net, host, 0)).await;
    let hosts: Vec<IpAddr> = match resolved {
        Ok(Ok(found)) => found.iter().take(MAX_ADDRS).map(|addr| addr.ip().to_canonical()).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    let named: Vec<SocketAddr> = udp.iter().take(MAX_ADDRS).map(|addr| canonical(*addr)).collect();
    let by_name = at_host(&hosts, named.iter().map(SocketAddr::port));
    let further = by_name.into_iter().filter(|at| !named.contains(at) && may_lead_to(*at));
    let mut places: Vec<Place> = named.iter().map(|addr| (*addr, hosts.contains(&addr.ip()))).collect();
    places.extend(further.map(|at| (at, true)));
    places.truncate(MAX_PLACES);
    places
}

/// The server's other ports at the address of its main one, wherever that is asked.
pub(crate) fn ports_beside(places: &[Place], others: &[SocketAddr]) -> Vec<Place> {
    let mut beside: Vec<Place> = Vec::new();
    let is_beside = |other: &&SocketAddr| places.iter().any(|(main, _)| main.ip() == other.ip());
    for (main, is_by_name) in places {
        for other in others.iter().filter(is_beside) {
            let at = SocketAddr::new(main.ip(), other.port());
            if !places.iter().chain(&beside).any(|(known, _)| *known == at) {
                beside.push((at, *is_by_name));
            }
        }
    }
    beside.truncate(MAX_PLACES);
    beside
}

/// Asks them all at once. The answers come in the order of the places.
pub(crate) async fn probe_all(net: &Arc<dyn Net>, places: &[Place], seed: [u8; 32]) -> Vec<Tried> {
    let mut probes = start(net, places, seed);
    let mut tried = Vec::new();
    while let Some(done) = probes.join_next().await {
        tried.extend(done.ok());
    }
    tried.sort_by_key(|(number, _)| *number);
    tried.into_iter().map(|(_, tried)| tried).collect()
}

/// Asks them all at once. What comes of each is told with its place's number, the soonest first.
pub(crate) fn start(net: &Arc<dyn Net>, places: &[Place], seed: [u8; 32]) -> JoinSet<(usize, Tried)> {
    let mut rng = ChaCha12Rng::from_seed(seed);
    let mut probes = JoinSet::new();
    for (number, (at, is_by_name)) in places.iter().copied().enumerate() {
        let (net, transaction) = (Arc::clone(net), random(&mut rng));
        probes.spawn(async move {
            let outcome = probe(&*net, at, transaction).await;
            tracing::debug!(%at, ?outcome, "a UDP port was asked");
            (number, Tried { at, outcome, is_by_name })
        });
    }
    probes
}

async fn probe(net: &dyn Net, at: SocketAddr, transaction: [u8; 12]) -> Outcome {
    let socket = match net.ask_udp(at) {
        Ok(socket) => socket,
        Err(error) => return Outcome::Refused(not_opened(&error)),
    };
    let mut probe = Probe::new(transaction, now());
    let mut buf = [0; DATAGRAM];
    let mut is_deaf = false;
    loop {
        while let Some(request) = probe.poll_transmit() {
            if let Some(refused) = socket.send(&request).err().and_then(|error| not_carried(&error)) {
                probe.handle_refused(refused);
            }
        }
        if let Some(outcome) = probe.outcome() {
            return outcome;
        }
        let until = probe.poll_timeout().unwrap_or_else(now);
        tokio::select! {
            biased;
            received = socket.recv(&mut buf), if !is_deaf => match received {
                Ok(len) => probe.handle_datagram(&buf[..len]),
                Err(error) => match not_carried(&error) {
                    Some(refused) => probe.handle_refused(refused),
                    // One that stays would be read for ever.
                    None => is_deaf = true,
                },
            },
            () = sleep_until(until.into()) => probe.handle_timeout(now()),
        }
    }
}

/// The socket could not be connected: that is this machine's own doing.
fn not_opened(error: &io::Error) -> Refused {
    if error.kind() == ErrorKind::PermissionDenied { Refused::Here } else { Refused::NoRoute }
}

/// What an error of a connected socket says of a packet; `None` for what is no refusal.
fn not_carried(error: &io::Error) -> Option<Refused> {
    /// Not permitted: a packet filter of this machine. All else of this kind was said by the network (EACCES).
    const EPERM: i32 = 1;

    const MEANINGS: [(ErrorKind, Refused); 7] = [
        (ErrorKind::PermissionDenied, Refused::OnTheWay(Unreachable::Prohibited)),
        (ErrorKind::HostUnreachable, Refused::OnTheWay(Unreachable::Host)),
        (ErrorKind::NetworkUnreachable, Refused::OnTheWay(Unreachable::Network)),
        (ErrorKind::ConnectionRefused, Refused::PortClosed),
        (ErrorKind::ConnectionReset, Refused::PortClosed),
        (ErrorKind::NetworkDown, Refused::NoRoute),
        (ErrorKind::AddrNotAvailable, Refused::NoRoute),
    ];

    if error.raw_os_error() == Some(EPERM) {
        return Some(Refused::Here);
    }
    MEANINGS.into_iter().find(|(kind, _)| *kind == error.kind()).map(|(_, meaning)| meaning)
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use proto::stun::BindingRequest;
    use proto::ticket::Reachable;
    use relay::net::OsNet;

    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    async fn outcome(at: SocketAddr) -> Outcome {
        let net: Arc<dyn Net> = Arc::new(OsNet);
        probe_all(&net, &[(at, false)], [1; 32]).await[0].outcome
    }

    #[tokio::test]
    async fn a_server_that_answers_a_silent_port_and_a_closed_one_are_told_apart() {
        let [server, silent] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let (at, closed) = (server.local_addr().unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let answering = std::thread::spawn(move || {
            let mut buf = [0; 100];
            let (len, from) = server.recv_from(&mut buf).unwrap();
            let answer = BindingRequest::read(&buf[..len]).unwrap().answer(from, None, None);
            server.send_to(&answer, from).unwrap();
        });
        assert!(matches!(outcome(at).await, Outcome::Answered(mapped) if mapped.ip() == at.ip()));
        answering.join().unwrap();
        assert_eq!(outcome(silent.local_addr().unwrap()).await, Outcome::Silent);
        let at = closed.local_addr().unwrap();
        drop(closed);
        #[cfg(target_os = "linux")]
        assert_eq!(outcome(at).await, Outcome::Refused(Refused::PortClosed));
    }

    #[tokio::test]
    async fn a_name_is_followed_only_where_it_may_lead() {
        let named = [addr("203.0.113.1:3478")];
        let ask = async |url_host| {
            let may_lead_to = |at| Reachable::of(url_host).may_lead_to(at);
            places(&OsNet, "127.0.0.1", &named, may_lead_to).await
        };
        assert_eq!(ask("example.com").await, [(named[0], false)], "a stranger's name must not aim us here");
        assert_eq!(ask("localhost").await, [(named[0], false), (addr("127.0.0.1:3478"), true)]);
    }

    #[test]
    fn the_other_ports_are_asked_wherever_the_main_one_is() {
        let places = [(addr("10.0.0.5:3478"), false), (addr("203.0.113.1:3478"), true)];
        let others = [addr("10.0.0.5:3479"), addr("10.0.0.6:3478"), addr("10.0.0.6:3479")];
        assert_eq!(
            ports_beside(&places, &others),
            [(addr("10.0.0.5:3479"), false), (addr("203.0.113.1:3479"), true)]
        );
    }

    #[test]
    fn each_error_of_the_system_has_its_meaning() {
        #[cfg(target_os = "linux")]
        for (number, meaning) in [
            (1, Some(Refused::Here)),
            (13, Some(Refused::OnTheWay(Unreachable::Prohibited))),
            (113, Some(Refused::OnTheWay(Unreachable::Host))),
            (101, Some(Refused::OnTheWay(Unreachable::Network))),
            (111, Some(Refused::PortClosed)),
            (99, Some(Refused::NoRoute)),
            (11, None),
        ] {
            assert_eq!(not_carried(&io::Error::from_raw_os_error(number)), meaning, "{number}");
        }
        assert_eq!(not_opened(&ErrorKind::NetworkUnreachable.into()), Refused::NoRoute);
        assert_eq!(not_opened(&ErrorKind::PermissionDenied.into()), Refused::Here);
    }
}
