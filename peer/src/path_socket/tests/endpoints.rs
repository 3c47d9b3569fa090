//! Real endpoints, over loopback UDP but for one.

use std::net::Ipv4Addr;
use std::time::Duration;

use proto::id::PeerId;
use proto::key::SecretKey;
use quinn::{ClientConfig, Connection, Endpoint, TokioRuntime};
use relay::net::{Net as _, OsNet};
use relay::quic::{self, Addresses, ResetKey};
use relay::tls;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::advance;

use super::super::*;
use super::fake::{FakeLink, address, path, stun};

const ALPN: &[u8] = b"culvert-test/1";
const SECOND: LinkId = LinkId(1);

/// One side: a path socket, one remote, and an endpoint over it.
struct Side {
    socket: Arc<PathSocket>,
    stun: mpsc::Receiver<Datagram>,
    endpoint: Endpoint,
    key: SecretKey,
    remote: SocketAddr,
}

impl Side {
    /// A side with two UDP links.
    fn new() -> Self {
        let bind = || OsNet.bind_udp("[::]:0".parse().unwrap()).unwrap();
        Self::over([(LinkId::MAIN, bind()), (SECOND, bind())])
    }

    fn over(links: impl IntoIterator<Item = (LinkId, Arc<dyn Link>)>) -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let key = SecretKey::from_pkcs8(&key.serialize_der()).unwrap();
        let (socket, stun) = PathSocket::new(*key.peer_id().as_bytes());
        for (id, link) in links {
            socket.add_link(id, link);
        }
        let reset_key = ResetKey::derive(&key, b"test");
        let server = quic::server_config(
            tls::server_config(&key, &[ALPN]),
            &reset_key,
            Arc::new(quic::transport()),
            Addresses::Stable,
        );
        let endpoint = Endpoint::new_with_abstract_socket(
            quic::endpoint_config(&reset_key, None),
            Some(server),
            socket.clone(),
            Arc::new(TokioRuntime),
        );
        let remote = socket.open_remote().unwrap();
        Self { socket, stun, endpoint: endpoint.unwrap(), key, remote }
    }

    /// Where one of its links is, for the other side.
    fn address(&self, link: LinkId) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.socket.link(link).unwrap().local_addr().unwrap().port()).into()
    }

    fn route_to(&self, other: &Self, link: LinkId) {
        let primary = Some(self.path_to(other, link));
        self.socket.set_route(self.remote, Route { primary, also: None });
    }

    fn path_to(&self, other: &Self, link: LinkId) -> PathId {
        PathId { link, remote: other.address(link) }
    }

    fn accept_from(&self, other: &Self, link: LinkId) {
        assert!(self.socket.accept_from(self.remote, self.path_to(other, link)));
    }

    async fn dial(&self, server: PeerId) -> Connection {
        let mut config = ClientConfig::new(Arc::new(tls::client_config(&self.key, server, ALPN)));
        config.transport_config(Arc::new(quic::transport()));
        self.endpoint.connect_with(config, self.remote, tls::SERVER_NAME).unwrap().await.unwrap()
    }
}

/// Two sides that know and accept both paths, and send by the main one.
fn pair() -> (Side, Side) {
    let (a, b) = (Side::new(), Side::new());
    for link in [LinkId::MAIN, SECOND] {
        a.accept_from(&b, link);
        b.accept_from(&a, link);
    }
    a.route_to(&b, LinkId::MAIN);
    b.route_to(&a, LinkId::MAIN);
    (a, b)
}

async fn connect(a: &Side, b: &Side) -> (Connection, Connection) {
    let (dialled, accepted) =
        tokio::join!(a.dial(b.key.peer_id()), async { b.endpoint.accept().await.unwrap().await.unwrap() });
    assert_eq!(dialled.remote_address(), a.remote);
    assert_eq!(accepted.remote_address(), b.remote);
    assert_eq!(tls::peer_id(&accepted), Some(a.key.peer_id()));
    (dialled, accepted)
}

/// Sends `total` bytes that depend on their place, and checks them at the other end.
fn transfer(from: &Connection, to: &Connection, total: usize) -> JoinHandle<()> {
    const CHUNK: usize = 64 * 1024;
    let byte = |place: usize| (place.wrapping_mul(0x9e37_79b9) >> 24) as u8;
    let (from, to) = (from.clone(), to.clone());
    let sending = async move {
        let mut stream = from.open_uni().await.unwrap();
        for start in (0..total).step_by(CHUNK) {
            let chunk: Vec<u8> = (start..total.min(start + CHUNK)).map(byte).collect();
            stream.write_all(&chunk).await.unwrap();
        }
        stream.finish().unwrap();
        stream.stopped().await.unwrap();
    };
    let reading = async move {
        let mut stream = to.accept_uni().await.unwrap();
        let mut place = 0;
        while let Some(chunk) = stream.read_chunk(CHUNK, true).await.unwrap() {
            assert!(chunk.bytes.iter().zip(place..).all(|(&got, place)| got == byte(place)), "after {place}");
            place += chunk.bytes.len();
        }
        assert_eq!(place, total);
    };
    tokio::spawn(async move { tokio::join!(sending, reading).1 })
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn segmentation_offload_is_that_of_the_udp_socket() {
    let side = Side::new();
    assert!(side.socket.max_transmit_segments() > 1);
    assert!(side.socket.max_receive_segments() > 1);
    assert!(!side.socket.may_fragment(), "or there would be no MTU discovery");
}

#[tokio::test]
async fn fifty_megabytes_arrive_whole_among_stun_datagrams() {
    let (a, mut b) = pair();
    let (dialled, accepted) = connect(&a, &b).await;
    let transfer = transfer(&dialled, &accepted, 50_000_000);
    let link = a.socket.link(LinkId::MAIN).unwrap();
    let (mut sent, mut received) = (0_usize, 0_usize);
    while !transfer.is_finished() {
        sent += usize::from(link.send_datagram(b.address(LinkId::MAIN), &stun(20 + sent % 80)).is_ok());
        while let Ok(datagram) = b.stun.try_recv() {
            assert_eq!((datagram.link, datagram.from), (LinkId::MAIN, a.address(LinkId::MAIN)));
            received += 1;
        }
        yield_now().await;
    }
    transfer.await.unwrap();
    assert!(sent > 100 && received > 100, "{received} of {sent} STUN datagrams");

    let stats = a.socket.path_stats(a.remote, a.path_to(&b, LinkId::MAIN)).unwrap();
    assert!(stats.tx_bytes > 50_000_000 && stats.rx_packets > 0, "{stats:?}");
    let drops = b.socket.stats().drops;
    assert!([DropReason::Unknown, DropReason::Malformed, DropReason::HoldFull].iter().all(|r| drops[r] == 0));
}

#[tokio::test]
async fn a_stream_stays_whole_while_its_path_changes() {
    let (a, b) = pair();
    let (dialled, accepted) = connect(&a, &b).await;
    let transfer = transfer(&dialled, &accepted, 20_000_000);
    let sent_by = |link| a.socket.path_stats(a.remote, a.path_to(&b, link)).map_or(0, |stats| stats.tx_bytes);
    for (link, enough) in [(LinkId::MAIN, 3_000_000), (SECOND, 3_000_000), (LinkId::MAIN, 6_000_000)] {
        a.route_to(&b, link);
        b.route_to(&a, link);
        let before = sent_by(link);
        // Counters live as long as their path is accepted, so both paths' go on.
        while sent_by(link) - before < enough && !transfer.is_finished() {
            yield_now().await;
        }
    }
    transfer.await.unwrap();
    assert!(sent_by(LinkId::MAIN) > 3_000_000 && sent_by(SECOND) > 3_000_000);
    assert_eq!(dialled.remote_address(), a.remote, "to QUIC nothing has changed");
}

#[tokio::test(start_paused = true)]
async fn a_first_packet_that_was_held_needs_no_second() {
    // In memory, for the sake of the clock: two fake links at ports 1 and 2.
    let (one, two) = (FakeLink::new(), FakeLink::new());
    FakeLink::join(&one, address(1), &two, address(2));
    let a = Side::over([(LinkId::MAIN, one as Arc<dyn Link>)]);
    let b = Side::over([(LinkId::MAIN, two as Arc<dyn Link>)]);
    for (side, to) in [(&a, 2), (&b, 1)] {
        side.socket.set_route(side.remote, Route { primary: Some(path(LinkId::MAIN, to)), also: None });
    }
    a.socket.accept_from(a.remote, path(LinkId::MAIN, 2));

    let start = Instant::now();
    let proven_late = async {
        while b.socket.stats().held == 0 {
            yield_now().await;
        }
        advance(Duration::from_millis(90)).await;
        b.socket.accept_from(b.remote, path(LinkId::MAIN, 1));
    };
    let ((dialled, _accepted), ()) = tokio::join!(connect(&a, &b), proven_late);
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    assert_eq!(dialled.stats().path.lost_packets, 0);
}

#[tokio::test]
async fn no_path_is_no_error_to_a_connection() {
    let (a, b) = pair();
    let (dialled, accepted) = connect(&a, &b).await;
    a.socket.set_route(a.remote, Route::default());
    let transfer = transfer(&dialled, &accepted, 1_000_000);
    while a.socket.stats().drops[&DropReason::NoPath] < 2 {
        yield_now().await;
    }
    a.route_to(&b, SECOND);
    transfer.await.unwrap();
}

#[tokio::test]
async fn a_link_removed_under_a_transfer_is_survived_by_another_route() {
    let (a, b) = pair();
    let (dialled, accepted) = connect(&a, &b).await;
    let transfer = transfer(&dialled, &accepted, 5_000_000);
    let path = a.path_to(&b, LinkId::MAIN);
    while a.socket.path_stats(a.remote, path).unwrap().tx_bytes < 1_000_000 {
        yield_now().await;
    }
    a.socket.remove_link(LinkId::MAIN);
    b.socket.remove_link(LinkId::MAIN);
    for (from, to) in [(&a, &b), (&b, &a)] {
        from.route_to(to, SECOND);
    }
    transfer.await.unwrap();
}
