//! One stream of QUIC between two endpoints on loopback, over the path socket or over quinn's own.
//!
//! Keys, transport settings and the size of the sockets' buffers are the same for both; the two ends have a
//! thread each.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use peer::congestion::{PathEpoch, PerPath};
use peer::path_socket::PathSocket;
use peer::store::new_key;
use proto::key::SecretKey;
use proto::path::{LinkId, PathId, Route};
use proto::wire::peer::ALPN;
use quinn::{AsyncUdpSocket, ClientConfig, Endpoint, Runtime as _, TokioRuntime, TransportConfig};
use relay::net::{Net as _, OsNet, SOCKET_BUFFER};
use relay::quic::{self, Addresses, ResetKey};
use relay::tls;
use socket2::SockRef;

const CHUNK: usize = 256 * 1024;

/// One end, and the address under which it knows the other.
struct End {
    key: Arc<SecretKey>,
    addr: SocketAddr,
    /// None for quinn's own socket.
    paths: Option<Arc<PathSocket>>,
    udp: Arc<dyn AsyncUdpSocket>,
}

impl End {
    /// Within a tokio runtime.
    fn new(over_paths: bool) -> Self {
        let key = Arc::new(new_key());
        if !over_paths {
            let udp = quinns_own();
            return Self { key, addr: udp.local_addr().unwrap(), paths: None, udp };
        }
        let link = OsNet.bind_udp((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let addr = link.local_addr().unwrap();
        let (paths, _stun) = PathSocket::new([7; 32]);
        paths.add_link(LinkId::MAIN, link);
        Self { key, addr, udp: Arc::clone(&paths) as Arc<dyn AsyncUdpSocket>, paths: Some(paths) }
    }

    /// The address at which the other end is reached, and how often its path has changed.
    fn meet(&self, other: SocketAddr) -> (SocketAddr, PathEpoch) {
        let Some(paths) = &self.paths else { return (other, PathEpoch::default()) };
        let remote = paths.open_remote().unwrap();
        let path = PathId { link: LinkId::MAIN, remote: other };
        paths.accept_from(remote, path);
        paths.set_route(remote, Route { primary: Some(path), also: None });
        (remote, paths.epoch(remote))
    }

    fn transport(&self, epoch: PathEpoch) -> TransportConfig {
        let mut transport = quic::transport();
        if self.paths.is_some() {
            transport.congestion_controller_factory(Arc::new(PerPath::new(epoch)));
        }
        transport
    }

    fn endpoint(&self, epoch: PathEpoch) -> Endpoint {
        let reset_key = ResetKey::derive(&self.key, b"bench");
        let tls = tls::server_config(&self.key, &[ALPN]);
        let transport = Arc::new(self.transport(epoch));
        let server = quic::server_config(tls, &reset_key, transport, Addresses::Stable);
        let config = quic::endpoint_config(&reset_key, None);
        let udp = Arc::clone(&self.udp);
        Endpoint::new_with_abstract_socket(config, Some(server), udp, Arc::new(TokioRuntime)).unwrap()
    }
}

/// A socket as quinn makes it, with buffers of the size that our links ask for.
fn quinns_own() -> Arc<dyn AsyncUdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let asked = SockRef::from(&socket);
    asked
        .set_recv_buffer_size(SOCKET_BUFFER)
        .and_then(|()| asked.set_send_buffer_size(SOCKET_BUFFER))
        .unwrap();
    TokioRuntime.wrap_udp_socket(socket).unwrap()
}

fn in_a_runtime<T>(story: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(story())
}

/// Sends `bytes` and waits until they were all read; gigabits per second.
pub(crate) fn bulk(over_paths: bool, bytes: u64) -> f64 {
    let (tell_server, server_is) = mpsc::channel();
    let (tell_client, client_is) = mpsc::channel();
    let receiver = thread::spawn(move || {
        in_a_runtime(async || {
            let end = End::new(over_paths);
            tell_server.send((end.addr, end.key.peer_id())).unwrap();
            let (_, epoch) = end.meet(client_is.recv().unwrap());
            let endpoint = end.endpoint(epoch);
            let connection = endpoint.accept().await.unwrap().await.unwrap();
            let (mut send, mut recv) = connection.accept_bi().await.unwrap();
            let mut left = bytes;
            while left > 0 {
                let chunk = recv.read_chunk(CHUNK, true).await.unwrap().unwrap();
                left -= chunk.bytes.len() as u64;
            }
            send.write_all(&[1]).await.unwrap();
            connection.closed().await;
        });
    });
    let (addr, peer_id) = server_is.recv().unwrap();
    let rate = in_a_runtime(async || {
        let end = End::new(over_paths);
        let (remote, epoch) = end.meet(addr);
        tell_client.send(end.addr).unwrap();
        let endpoint = end.endpoint(epoch.clone());
        let mut config = ClientConfig::new(Arc::new(tls::client_config(&end.key, peer_id, ALPN)));
        config.transport_config(Arc::new(end.transport(epoch)));
        let connecting = endpoint.connect_with(config, remote, tls::SERVER_NAME).unwrap();
        let connection = connecting.await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        let (chunk, began, mut left) = (vec![0x5a; CHUNK], Instant::now(), bytes);
        while left > 0 {
            let count = left.min(CHUNK as u64);
            send.write_all(&chunk[..usize::try_from(count).unwrap()]).await.unwrap();
            left -= count;
        }
        recv.read_exact(&mut [0]).await.unwrap();
        let took = began.elapsed();
        connection.close(0_u32.into(), b"");
        endpoint.wait_idle().await;
        bytes as f64 * 8.0 / 1e9 / took.as_secs_f64()
    });
    receiver.join().unwrap();
    rate
}
