//! Many peers at a relay that say nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use peer::store::new_key;
use proto::id::{Instance, PeerId};
use proto::interface::OwnAddress;
use relay::client::{RelayClient, RelayClientConfig, RelayState};
use relay::net::{Asking, BoxFuture, IpFamily, Link, Listener, Net, NetworkChanges, OsNet, Stream};
use relay::outbound::{Origin, Outbound};
use tokio::net::TcpSocket;

/// Clients of one loopback address: a relay lets only so many in from one network at once.
const EACH: usize = 100;

/// The system's network, from one loopback address.
#[derive(Debug)]
struct From(Ipv4Addr);

impl Net for From {
    fn bind_udp(&self, local: SocketAddr) -> io::Result<Arc<dyn Link>> {
        OsNet.bind_udp(local)
    }

    fn ask_udp(&self, to: SocketAddr) -> io::Result<Box<dyn Asking>> {
        OsNet.ask_udp(to)
    }

    fn interfaces(&self) -> io::Result<Vec<OwnAddress>> {
        OsNet.interfaces()
    }

    fn source_for(&self, to: SocketAddr) -> io::Result<IpAddr> {
        OsNet.source_for(to)
    }

    fn watch_changes(&self) -> Box<dyn NetworkChanges> {
        OsNet.watch_changes()
    }

    fn connect_tcp(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind((self.0, 0).into())?;
            let (read, write) = socket.connect(to).await?.into_split();
            Ok((Box::new(read) as _, Box::new(write) as _))
        })
    }

    fn listen_tcp(&self, local: SocketAddr) -> io::Result<Box<dyn Listener>> {
        OsNet.listen_tcp(local)
    }

    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        family: IpFamily,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        OsNet.resolve(host, port, family)
    }
}

/// Logs `count` peers in and keeps them until standard input ends.
pub(crate) fn idle(url: &str, relay: PeerId, count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut clients = Vec::with_capacity(count);
        for n in 0..count {
            let group = u8::try_from(n / EACH + 1).unwrap();
            let outbound = Outbound::new(Arc::new(From(Ipv4Addr::new(127, 9, group, 1))), None);
            let config = RelayClientConfig {
                origin: Origin::of_relay(url).unwrap(),
                relay,
                key: Arc::new(new_key()),
                instance: Instance([1; 8]),
                wait: Duration::ZERO,
                seed: [0; 32],
            };
            let (client, absent) = RelayClient::open(config, outbound);
            let mut state = client.state();
            let is_up = |state: &RelayState| matches!(state, RelayState::Up(_));
            state.wait_for(is_up).await.unwrap();
            clients.push((client, absent));
        }
        println!("{count} logged in");
        tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await.unwrap().unwrap();
    });
}
