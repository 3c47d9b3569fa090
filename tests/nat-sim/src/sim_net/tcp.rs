//! TCP between simulated hosts: who may reach whom, and in which time.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use relay::net::{BoxFuture, Listener, Stream};
use tokio::sync::{Mutex, mpsc};
use tokio::time::sleep;

use super::{ByPort, SimNet, State, pipe};
use crate::kind::Kind;
use crate::net::HostId;

/// Streams waiting to be accepted.
const BACKLOG: usize = 128;

/// How long a system tries to connect where nothing answers: six retransmissions (tcp(7)).
const SYN_TIMEOUT: Duration = Duration::from_secs(127);

/// Where the ports of outgoing streams begin.
const FIRST_PORT: u16 = 20_000;

type Arrival = (Stream, SocketAddr);

/// What listens.
#[derive(Debug, Default)]
pub(super) struct Doors {
    open: ByPort<(IpAddr, mpsc::Sender<Arrival>)>,
    streams: u16,
}

/// How a host reaches another one.
#[derive(Debug, Clone, Copy)]
struct Way {
    to: HostId,
    one_way: Duration,
    /// As the other one sees it.
    source: SocketAddr,
}

#[derive(Debug)]
pub(super) struct SimListener {
    net: SimNet,
    local: SocketAddr,
    arrivals: Mutex<mpsc::Receiver<Arrival>>,
}

impl Listener for SimListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<Arrival>> {
        Box::pin(async {
            let arrival = self.arrivals.lock().await.recv().await;
            arrival.ok_or_else(|| io::ErrorKind::NotConnected.into())
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let key = (self.net.host, self.local.port());
        self.net.with_state(|state, _| state.doors.open.remove(&key));
    }
}

impl SimNet {
    pub(super) fn listen(&self, mut local: SocketAddr) -> io::Result<SimListener> {
        let (sender, arrivals) = mpsc::channel(BACKLOG);
        self.with_state(|state, _| {
            if local.port() == 0 {
                let free =
                    (FIRST_PORT..=u16::MAX).find(|port| !state.doors.open.contains_key(&(self.host, *port)));
                local.set_port(free.ok_or(io::ErrorKind::AddrInUse)?);
            }
            let key = (self.host, local.port());
            if state.doors.open.contains_key(&key) {
                return Err(io::Error::from(io::ErrorKind::AddrInUse));
            }
            state.doors.open.insert(key, (local.ip(), sender));
            Ok(())
        })?;
        Ok(SimListener { net: self.clone(), local, arrivals: Mutex::new(arrivals) })
    }

    pub(super) async fn connect(&self, to: SocketAddr) -> io::Result<Stream> {
        let way = self.with_state(|state, _| self.way(state, to))?;
        let Some(Way { to: host, one_way, source }) = way else {
            sleep(SYN_TIMEOUT).await;
            return Err(io::ErrorKind::TimedOut.into());
        };
        pass(one_way).await;
        let (near, far) = pipe::stream(one_way);
        let accepted = self.with_state(|state, _| {
            let door = state.doors.open.get(&(host, to.port()));
            let door = door.filter(|(ip, _)| ip.is_unspecified() || *ip == to.ip());
            door.is_some_and(|(_, sender)| sender.try_send((far, source)).is_ok())
        });
        pass(one_way).await;
        if accepted { Ok(near) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
    }

    /// How a stream gets to `to`; none: its packets are dropped on the way.
    fn way(&self, state: &mut State, to: SocketAddr) -> io::Result<Option<Way>> {
        state.doors.streams = (state.doors.streams + 1) % FIRST_PORT;
        let port = FIRST_PORT + state.doors.streams;
        let net = state.world.net();
        let own = net.addresses(self.host);
        if to.ip().is_loopback() || own.contains(&to.ip()) {
            let source = SocketAddr::new(to.ip(), port);
            return Ok(Some(Way { to: self.host, one_way: Duration::ZERO, source }));
        }
        let Some(local) = own.iter().find(|ip| ip.is_ipv4() == to.is_ipv4()) else {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        };
        let hosts = (0..self.shared.residents.len()).map(HostId);
        let Some(host) = hosts.into_iter().find(|host| net.addresses(*host).contains(&to.ip())) else {
            return Ok(None);
        };
        let (me, other) = (self.shared.resident(self.host), self.shared.resident(host));
        let (one_way, ip) = if other.is_server {
            (net.server_rtt(self.host) / 2, self.seen_ip(state, *local))
        } else if other.kind == Some(Kind::OPEN) {
            (net.core().direct_rtt / 2, self.seen_ip(state, *local))
        } else if me.kind == Some(Kind::SameLan) && other.kind == me.kind {
            (net.core().lan_delay, *local)
        } else {
            return Ok(None);
        };
        Ok(Some(Way { to: host, one_way, source: SocketAddr::new(ip, port) }))
    }

    /// Our address as the Internet sees it: that of the outermost router that translates.
    fn seen_ip(&self, state: &State, local: IpAddr) -> IpAddr {
        if self.shared.resident(self.host).is_server {
            return local;
        }
        let outermost = state.world.routers(self.name()).iter().rev();
        let mut external = outermost.filter_map(|router| state.world.net().nat(*router, local.is_ipv6()));
        external.find_map(|nat| nat.external().first().copied()).unwrap_or(local)
    }
}

/// Waits for what takes time.
async fn pass(delay: Duration) {
    if !delay.is_zero() {
        sleep(delay).await;
    }
}
