//! The operating system's network.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod changes;
mod interfaces;
mod joining;
mod names;
#[cfg(unix)]
mod udp;

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::task::{Context, Poll};
use std::time::Duration;

use proto::interface::OwnAddress;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use socket2::{Domain, MsgHdr, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use joining::Joining;

use super::{
    Asking, BoxFuture, Change, IpFamily, Link, Listener, Net, NetworkChanges, Outgoing, Stream, canonical,
    canonical_ip, is_dual_stack, mapped,
};

/// The bytes that are asked of the system for each direction of a UDP socket. One gigabit per second for 32 ms:
/// what one fast stream has in flight fits, and a receiver that is scheduled late loses nothing.
pub const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// When an idle stream's far end is asked whether it is still there, how often, and how many times in vain: one
/// that has vanished without a word is missed after half a minute, and a stream of one that sleeps is kept no
/// longer than that either.
const ASK_AFTER: Duration = Duration::from_secs(15);
const ASK_EVERY: Duration = Duration::from_secs(5);
const ASK_TIMES: u32 = 3;

/// Streams waiting to be accepted, as `std` has it.
const BACKLOG: i32 = 1024;

/// The network of this host. Its methods want a tokio runtime around them.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsNet;

impl Net for OsNet {
    fn bind_udp(&self, local: SocketAddr) -> io::Result<Arc<dyn Link>> {
        Ok(Arc::new(OsLink::bind(local)?))
    }

    fn ask_udp(&self, to: SocketAddr) -> io::Result<Box<dyn Asking>> {
        let socket = std::net::UdpSocket::bind((any_of(to), 0))?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        Ok(Box::new(OsAsking(UdpSocket::from_std(socket)?)))
    }

    fn interfaces(&self) -> io::Result<Vec<OwnAddress>> {
        interfaces::list()
    }

    fn source_for(&self, to: SocketAddr) -> io::Result<IpAddr> {
        let socket = std::net::UdpSocket::bind((any_of(to), 0))?;
        // Connecting a datagram socket only looks the route up.
        socket.connect(to)?;
        Ok(canonical_ip(socket.local_addr()?.ip()))
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn watch_changes(&self) -> Box<dyn NetworkChanges> {
        match changes::OsChanges::listen() {
            Ok(changes) => Box::new(changes),
            Err(error) => {
                tracing::warn!(%error, "the system tells of no network changes; they are looked for instead");
                Box::new(Looking)
            }
        }
    }

    /// No other system is asked yet: whoever listens here looks at the addresses now and then.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn watch_changes(&self) -> Box<dyn NetworkChanges> {
        Box::new(Looking)
    }

    fn connect_tcp(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move { halves(TcpStream::connect(to).await?) })
    }

    fn listen_tcp(&self, local: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let socket = bind(local, Type::STREAM, Protocol::TCP)?;
        socket.listen(BACKLOG)?;
        Ok(Box::new(OsListener(TcpListener::from_std(socket.into())?)))
    }

    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        family: IpFamily,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(names::resolve(host, port, family))
    }
}

/// The unspecified address of an address's family.
const fn any_of(addr: SocketAddr) -> IpAddr {
    match addr {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

#[derive(Debug)]
struct OsAsking(UdpSocket);

impl Asking for OsAsking {
    fn send(&self, payload: &[u8]) -> io::Result<()> {
        // Not through tokio's readiness: a new socket has room, and tokio has not been told so yet.
        SockRef::from(&self.0).send(payload).map(drop)
    }

    fn recv<'a>(&'a self, buf: &'a mut [u8]) -> BoxFuture<'a, io::Result<usize>> {
        Box::pin(self.0.recv(buf))
    }
}

/// How often the network is looked at where the system does not tell.
const LOOK: Duration = Duration::from_secs(5);

/// Where the system does not tell: there may always have been a change.
#[derive(Debug)]
struct Looking;

impl NetworkChanges for Looking {
    fn changed(&mut self) -> BoxFuture<'_, Change> {
        Box::pin(async {
            tokio::time::sleep(LOOK).await;
            Change::Network
        })
    }
}

#[derive(Debug)]
struct OsListener(TcpListener);

impl Listener for OsListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = self.0.accept().await?;
            Ok((halves(stream)?, canonical(from)))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

fn halves(stream: TcpStream) -> io::Result<Stream> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(ASK_AFTER).with_interval(ASK_EVERY).with_retries(ASK_TIMES);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    let (read, write) = stream.into_split();
    Ok((Box::new(read), Box::new(write)))
}

impl Outgoing for OwnedWriteHalf {
    fn abort(self: Box<Self>) {
        let linger =
            SockRef::from(<Self as AsRef<TcpStream>>::as_ref(&self)).set_linger(Some(Duration::ZERO));
        if linger.is_ok() {
            self.forget();
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn give_up_after(&self, unread: Duration) {
        let stream = SockRef::from(<Self as AsRef<TcpStream>>::as_ref(self));
        // It is the system's own patience otherwise: a quarter of an hour.
        let _longer = stream.set_tcp_user_timeout(Some(unread));
    }
}

/// A non-blocking socket bound to `local`; for `[::]` one of both families, where the host has IPv6.
fn bind(local: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let bound = bind_one(local, kind, protocol);
    if bound.is_err() && is_dual_stack(local) {
        let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), local.port());
        // The first error names what was asked for; that of the fallback would only confuse.
        return bind_one(v4, kind, protocol).or(bound);
    }
    bound
}

fn bind_one(local: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(local), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if local.is_ipv6() {
        socket.set_only_v6(!is_dual_stack(local))?;
    }
    if kind == Type::STREAM && cfg!(unix) {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&local.into())?;
    Ok(socket)
}

/// A UDP socket of the operating system.
#[derive(Debug)]
pub struct OsLink {
    /// quinn's socket, with segmentation offload, ECN and the Don't Fragment bit.
    inner: Arc<dyn AsyncUdpSocket>,
    /// What quinn sends by it.
    joining: Arc<Joining>,
    /// The same socket, for datagrams that don't come from quinn.
    socket: Socket,
    family: Family,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
    Dual,
}

impl OsLink {
    /// Binds a socket, within a tokio runtime. `[::]` carries both families, or IPv4 alone on a host
    /// without IPv6.
    ///
    /// # Errors
    /// The address can't be bound.
    pub fn bind(local: SocketAddr) -> io::Result<Self> {
        let socket = bind(local, Type::DGRAM, Protocol::UDP)?;
        enlarge_buffers(&socket);
        let family = match socket.local_addr()?.as_socket() {
            Some(SocketAddr::V6(_)) if is_dual_stack(local) => Family::Dual,
            Some(SocketAddr::V6(_)) => Family::V6,
            Some(SocketAddr::V4(_)) | None => Family::V4,
        };
        let inner = wrap(socket.try_clone()?.into())?;
        let joining = Joining::new(Arc::clone(&inner));
        Ok(Self { inner, joining, socket, family })
    }

    /// `to` as this socket names it; `None` when it is of a family that the socket can't reach.
    fn on_the_wire(&self, to: SocketAddr) -> Option<SocketAddr> {
        let to = canonical(to);
        match (self.family, to) {
            (Family::V4, SocketAddr::V4(_)) | (Family::V6 | Family::Dual, SocketAddr::V6(_)) => Some(to),
            (Family::Dual, SocketAddr::V4(_)) => Some(mapped(to)),
            (Family::V4, SocketAddr::V6(_)) | (Family::V6, SocketAddr::V4(_)) => None,
        }
    }

    fn destination(&self, to: SocketAddr) -> io::Result<SockAddr> {
        let to = self.on_the_wire(to).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(to.into())
    }
}

#[cfg(unix)]
fn wrap(socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    Ok(Arc::new(udp::Udp::new(socket)?))
}

#[cfg(not(unix))]
fn wrap(socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    quinn::Runtime::wrap_udp_socket(&quinn::TokioRuntime, socket)
}

/// Asks for [`SOCKET_BUFFER`] both ways. The system grants what its administrator allows, silently.
fn enlarge_buffers(socket: &Socket) {
    static LOGGED: Once = Once::new();

    let asked =
        socket.set_recv_buffer_size(SOCKET_BUFFER).and_then(|()| socket.set_send_buffer_size(SOCKET_BUFFER));
    LOGGED.call_once(|| {
        let granted = socket.recv_buffer_size().and_then(|recv| Ok((recv, socket.send_buffer_size()?)));
        match asked.and(granted) {
            Ok((receive, send)) => {
                tracing::debug!(receive, send, wanted = SOCKET_BUFFER, "UDP socket buffers")
            }
            Err(error) => {
                tracing::debug!(%error, wanted = SOCKET_BUFFER, "UDP socket buffers stay as they are")
            }
        }
    });
}

impl Link for OsLink {
    fn send_with_ttl(&self, to: SocketAddr, ttl: u8, payload: &[u8]) -> io::Result<()> {
        let to = self.destination(to)?;
        // On a dual-stack socket an IPv4-mapped destination leaves by IPv4, and obeys IPv4's option.
        let is_v4 = to.as_socket().is_some_and(|to| canonical(to).is_ipv4());
        let control = hop_limit(is_v4, ttl)?;
        let buffers = [IoSlice::new(payload)];
        let message = MsgHdr::new().with_addr(&to).with_buffers(&buffers).with_control(&control);
        self.socket.sendmsg(&message, 0).map(drop)
    }

    fn send_datagram(&self, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        self.socket.send_to(payload, &self.destination(to)?).map(drop)
    }
}

/// One control message (cmsg(3)) that sets the hop limit of the datagram which it travels with.
///
/// It is the only way that leaves concurrent senders alone: a socket option would be theirs as well.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn hop_limit(is_v4: bool, ttl: u8) -> io::Result<Vec<u8>> {
    const IPPROTO_IP: i32 = 0;
    const IP_TTL: i32 = 2;
    const IPPROTO_IPV6: i32 = 41;
    const IPV6_HOPLIMIT: i32 = 52;
    /// `struct cmsghdr`: a length, a level, a type. Its data follow, padded to the length's alignment.
    const HEADER: usize = size_of::<usize>() + 2 * size_of::<i32>();

    let (level, kind) = if is_v4 { (IPPROTO_IP, IP_TTL) } else { (IPPROTO_IPV6, IPV6_HOPLIMIT) };
    let length = HEADER + size_of::<i32>();
    let mut control = Vec::with_capacity(length.next_multiple_of(size_of::<usize>()));
    control.extend_from_slice(&length.to_ne_bytes());
    control.extend_from_slice(&level.to_ne_bytes());
    control.extend_from_slice(&kind.to_ne_bytes());
    control.extend_from_slice(&i32::from(ttl).to_ne_bytes());
    control.resize(length.next_multiple_of(size_of::<usize>()), 0);
    Ok(control)
}

/// Elsewhere the layout and the options differ, and none is tested here: priming is left out.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn hop_limit(_is_v4: bool, _ttl: u8) -> io::Result<Vec<u8>> {
    Err(io::ErrorKind::Unsupported.into())
}

impl AsyncUdpSocket for OsLink {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(destination) = self.on_the_wire(transmit.destination) else {
            // An error would end the connection.
            return Ok(());
        };
        self.joining.try_send(&Transmit { destination, ..*transmit })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let result = self.inner.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(received)) = result {
            for meta in meta.iter_mut().take(received) {
                meta.addr = canonical(meta.addr);
                meta.dst_ip = meta.dst_ip.map(canonical_ip);
            }
        }
        result
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests;
