//! QUIC over a path that is switched by hand, every second, at both ends and not at once: between a direct one
//! and the server's relay.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nat_sim::kind::Kind;
use nat_sim::link::Quality;
use nat_sim::world::World;
use peer::congestion::PerPath;
use peer::path_socket::PathSocket;
use proto::id::Instance;
use proto::key::SecretKey;
use proto::path::{LinkId, PathId, Route};
use proto::wire::peer::ALPN;
use proto::wire::relay::Address;
use quinn::{AsyncUdpSocket, ClientConfig, Connection, Endpoint, RecvStream, SendStream, TokioRuntime};
use relay::client::{RelayClient, RelayClientConfig, RelayState};
use relay::net::Net as _;
use relay::outbound::{Origin, Outbound};
use relay::quic::{self, Addresses, ResetKey};
use relay::tls;
use ring::digest::{Context, Digest, SHA256};
use tokio::time::{sleep, timeout};

use crate::lab::{D, Lab, MS, R, SEC, key, run};
use crate::service::{Bytes, PATIENCE};

/// The relay's link at both ends.
const RELAY: LinkId = LinkId(1);

const CHUNK: usize = 64 * 1024;

/// How many bytes: a GiB in the full size of the tests.
fn size() -> usize {
    let is_full = std::env::var("TEST_SIZE").is_ok_and(|size| size == "full");
    if is_full { 1 << 30 } else { 40 << 20 }
}

/// One end: QUIC, and the links that its socket has.
struct End {
    key: Arc<SecretKey>,
    instance: Instance,
    addr: SocketAddr,
    socket: Arc<PathSocket>,
    relay: RelayClient,
    reset_key: ResetKey,
}

/// The other end as one of them knows it: its stable address, and two paths to it.
struct Ways {
    socket: Arc<PathSocket>,
    remote: SocketAddr,
    paths: [PathId; 2],
}

impl End {
    fn new(lab: &Lab, host: &str, number: u8) -> Self {
        let net = lab.world.net(host);
        let link = net.bind_udp((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        let ip = net.addresses().unwrap().into_iter().find(|ip| ip.is_ipv4()).unwrap();
        let addr = SocketAddr::new(ip, link.local_addr().unwrap().port());
        let (socket, _stun) = PathSocket::new([number; 32]);
        socket.add_link(LinkId::MAIN, link);
        let (me, instance) = (Arc::new(key(number)), Instance([number; 8]));
        let config = RelayClientConfig {
            origin: Origin::of_relay("http://s:8080/relay").unwrap(),
            relay: key(0).peer_id(),
            key: Arc::clone(&me),
            instance,
            wait: Duration::ZERO,
            seed: [number; 32],
        };
        let (relay, _absent) = RelayClient::open(config, Outbound::new(net, None));
        socket.add_link(RELAY, relay.link());
        let reset_key = ResetKey::derive(&me, &[number]);
        Self { key: me, instance, addr, socket, relay, reset_key }
    }

    /// Knows the other end by both ways from here on. Data takes the direct one.
    async fn meet(&self, other: &Self) -> Ways {
        let is_up = |state: &RelayState| matches!(state, RelayState::Up(_));
        self.relay.state().wait_for(is_up).await.unwrap();
        let address = Address { peer: other.key.peer_id(), instance: other.instance };
        let direct = PathId { link: LinkId::MAIN, remote: other.addr };
        let relayed = PathId { link: RELAY, remote: self.relay.allow(address) };
        let remote = self.socket.open_remote().unwrap();
        let ways = Ways { socket: Arc::clone(&self.socket), remote, paths: [direct, relayed] };
        for path in ways.paths {
            ways.socket.accept_from(remote, path);
        }
        ways.take(0);
        ways
    }

    fn endpoint(&self, ways: &Ways) -> Endpoint {
        let tls = tls::server_config(&self.key, &[ALPN]);
        let transport = Arc::new(ways.transport());
        let server = quic::server_config(tls, &self.reset_key, transport, Addresses::Stable);
        Endpoint::new_with_abstract_socket(
            quic::endpoint_config(&self.reset_key, Some([self.instance.0[0]; 32])),
            Some(server),
            Arc::clone(&self.socket) as Arc<dyn AsyncUdpSocket>,
            Arc::new(TokioRuntime),
        )
        .unwrap()
    }
}

impl Ways {
    fn transport(&self) -> quinn::TransportConfig {
        let mut transport = quic::transport();
        transport.congestion_controller_factory(Arc::new(PerPath::new(self.socket.epoch(self.remote))));
        transport
    }

    fn take(&self, way: usize) {
        self.socket.set_route(self.remote, Route { primary: Some(self.paths[way]), also: None });
    }

    /// Takes the other way every second, for ever, and has the connection look for what was lost, as the
    /// endpoint's driver does.
    async fn switch(&self, connection: &Connection, first: Duration) {
        sleep(first).await;
        for way in [1, 0].into_iter().cycle() {
            self.take(way);
            let _full = connection.send_datagram(vec![0].into());
            sleep(SEC).await;
        }
    }

    /// What arrived by each of the two.
    fn received(&self) -> [u64; 2] {
        self.paths.map(|path| self.socket.path_stats(self.remote, path).unwrap().rx_bytes)
    }
}

async fn send(mut stream: SendStream, size: usize) -> Digest {
    let (mut bytes, mut hash, mut left) = (Bytes::default(), Context::new(&SHA256), size);
    while left > 0 {
        let chunk = bytes.take(left.min(CHUNK));
        left -= chunk.len();
        hash.update(&chunk);
        timeout(PATIENCE, stream.write_all(&chunk)).await.expect("it stalls").unwrap();
    }
    stream.finish().unwrap();
    hash.finish()
}

/// What came, its hash, and the longest time in which nothing did.
async fn receive(mut stream: RecvStream) -> (usize, Digest, Duration) {
    let (mut hash, mut got, mut longest) = (Context::new(&SHA256), 0, Duration::ZERO);
    let mut last = tokio::time::Instant::now();
    while let Some(chunk) =
        timeout(PATIENCE, stream.read_chunk(CHUNK, true)).await.expect("it stalls").unwrap()
    {
        hash.update(&chunk.bytes);
        got += chunk.bytes.len();
        longest = longest.max(last.elapsed());
        last = tokio::time::Instant::now();
    }
    (got, hash.finish(), longest)
}

#[test]
fn a_transfer_arrives_whole_over_a_path_that_is_another_one_every_second() {
    let wire = Quality { rate: Some(12_500_000), queue: 250_000, ..Quality::default() };
    let plan = World::plan(1).home("a", Kind::OPEN).over(wire, wire).home("b", Kind::OPEN).over(wire, wire);
    run(&plan.server("s").server_rtt(R).direct_rtt(D), 1, async |lab| {
        let _server = lab.server_with_relay();
        let (a, b) = (End::new(&lab, "a", 10), End::new(&lab, "b", 11));
        let (to_b, to_a) = tokio::join!(a.meet(&b), b.meet(&a));
        let (client, server) = (a.endpoint(&to_b), b.endpoint(&to_a));
        let mut config = ClientConfig::new(Arc::new(tls::client_config(&a.key, b.key.peer_id(), ALPN)));
        config.transport_config(Arc::new(to_b.transport()));
        let connecting = client.connect_with(config, to_b.remote, tls::SERVER_NAME).unwrap();
        let accepting = async { server.accept().await.unwrap().await.unwrap() };
        let (sender, receiver) = tokio::join!(async { connecting.await.unwrap() }, accepting);
        let transfer = async {
            let sending = async { send(sender.open_uni().await.unwrap(), size()).await };
            let receiving = async { receive(receiver.accept_uni().await.unwrap()).await };
            tokio::join!(sending, receiving)
        };
        let began = lab.world.elapsed();
        let (sent, (got, hash, stall)) = tokio::select! {
            done = transfer => done,
            () = to_b.switch(&sender, SEC) => unreachable!(),
            () = to_a.switch(&receiver, SEC + 300 * MS) => unreachable!(),
        };
        let took = lab.world.elapsed() - began;
        let by = to_a.received();
        println!("{got} bytes in {took:?}, {by:?} of them directly and relayed; the longest stall {stall:?}");
        assert_eq!((got, hash.as_ref()), (size(), sent.as_ref()));
        // Both ways carried it, each in its seconds.
        assert!(took > 4 * SEC && by.iter().all(|bytes| *bytes > size() as u64 / 10), "{took:?}, {by:?}");
        // What is on its way through the relay is overtaken, and waited for.
        assert!(stall < 3 * R, "{stall:?}");
    });
}
