//! The one seam to the network: datagram links, TCP streams, names, interface addresses and their changes.
//!
//! Everything above it holds a `dyn` [`Net`] and the [`Link`]s that it bound. [`OsNet`] is the operating
//! system; the laboratory has another one, in memory and on virtual time. Both are driven by tokio, and
//! quinn runs on both with its own `TokioRuntime`.
//!
//! Addresses that pass this seam are [`canonical`]: an IPv4 remote is always a `SocketAddr::V4`, whatever
//! the family of the socket underneath. Only a [`Link`] knows of IPv4-mapped IPv6 addresses
//! (RFC 4291 §2.5.5.2).

mod changes;
mod os;

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use proto::interface::OwnAddress;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};

pub use changes::{Change, NetworkChanges, QUIET};
pub use os::{OsLink, OsNet, SOCKET_BUFFER};

/// A future behind a pointer, so that [`Net`] can be a `dyn` trait.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The two halves of a TCP stream. Dropping the second one sends the end of the stream.
pub type Stream = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn Outgoing>);

/// The outgoing half of a TCP stream.
pub trait Outgoing: AsyncWrite + Send + Unpin {
    /// Gives the stream up: once the incoming half is dropped too, the far end sees a reset (RFC 9293 §3.5.2)
    /// and not an end.
    fn abort(self: Box<Self>);

    /// Gives the stream up when what was written is not taken for so long: by a far end that has vanished, and
    /// also by one that is there and reads nothing. Where the system can't do that, it does it when it likes.
    fn give_up_after(&self, _unread: Duration) {}

    /// Has whoever bounds what is left unread here stop: from now on somebody else does.
    fn unbind(&mut self) {}
}

/// A stream within a test.
#[cfg(test)]
impl Outgoing for tokio::io::WriteHalf<tokio::io::DuplexStream> {
    fn abort(self: Box<Self>) {}
}

/// A way for datagrams in and out: a UDP socket, or what behaves like one.
///
/// quinn's contract holds for the inherited methods: `try_send` fails with `WouldBlock` or not at all, and
/// what can't be sent is lost without a word.
///
/// A quinn endpoint may *accept* on a link directly. One that *dials* over a link needs a wrapper that maps
/// the addresses back (see [`mapped`]): quinn turns an IPv4 address that it dials into an IPv4-mapped one on
/// a socket that looks like IPv6, and a link hands packets up from the IPv4 address.
pub trait Link: quinn::AsyncUdpSocket {
    /// Sends one datagram that lives for `ttl` hops (IPv6: hop limit). No other datagram of this socket is
    /// affected, whoever sends at the same time.
    ///
    /// # Errors
    /// Whatever the system says of this datagram; `WouldBlock` when its queue is full, and `Unsupported`
    /// where one datagram can't be given a hop limit of its own.
    fn send_with_ttl(&self, to: SocketAddr, ttl: u8, payload: &[u8]) -> io::Result<()>;

    /// Sends one datagram, and never waits.
    ///
    /// # Errors
    /// Whatever the system says of this datagram; `WouldBlock` when its queue is full: the caller drops the
    /// datagram and counts it.
    fn send_datagram(&self, to: SocketAddr, payload: &[u8]) -> io::Result<()>;

    /// Whether a datagram may be too long for something on its way. Where it never is, as on a stream, that a long
    /// one arrived says nothing of any other way.
    fn has_mtu(&self) -> bool {
        true
    }
}

/// A datagram socket that is connected to one address: unlike a [`Link`] it is told what the network says of its
/// datagrams, by ICMP.
pub trait Asking: Debug + Send + Sync {
    /// Sends one datagram, and never waits.
    ///
    /// # Errors
    /// Whatever the system says of this datagram or of an earlier one.
    fn send(&self, payload: &[u8]) -> io::Result<()>;

    /// The next datagram from the address that it is connected to, cut to the length of `buf`, and its length.
    ///
    /// # Errors
    /// What came back in an answer's place. The socket can be used on.
    fn recv<'a>(&'a self, buf: &'a mut [u8]) -> BoxFuture<'a, io::Result<usize>>;
}

/// Accepts TCP streams.
pub trait Listener: Debug + Send + Sync {
    /// The next stream and where it comes from. An error concerns one stream or a moment, not the listener.
    fn accept(&self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>>;

    /// The address listened on, with the port that the system chose.
    ///
    /// # Errors
    /// Whatever the system says.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// The network of one host.
pub trait Net: Debug + Send + Sync {
    /// Binds a datagram socket; `[::]` is both families, or IPv4 alone on a host that has no IPv6.
    ///
    /// # Errors
    /// The address can't be bound.
    fn bind_udp(&self, local: SocketAddr) -> io::Result<Arc<dyn Link>>;

    /// Opens a datagram socket of its own that is connected to `to`. Sends nothing.
    ///
    /// # Errors
    /// There is no route, or no address of this family.
    fn ask_udp(&self, to: SocketAddr) -> io::Result<Box<dyn Asking>>;

    /// The addresses of the interfaces that are up, without loopback, and what is known of those interfaces.
    ///
    /// # Errors
    /// The interfaces can't be listed.
    fn interfaces(&self) -> io::Result<Vec<OwnAddress>>;

    /// The addresses of the interfaces that are up, without loopback.
    ///
    /// # Errors
    /// The interfaces can't be listed.
    fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        Ok(self.interfaces()?.into_iter().map(|address| address.ip).collect())
    }

    /// The local address of the route to `to`. Sends nothing.
    ///
    /// # Errors
    /// There is no route.
    fn source_for(&self, to: SocketAddr) -> io::Result<IpAddr>;

    /// Tells of changes of addresses and routes from here on, and of sleep.
    fn watch_changes(&self) -> Box<dyn NetworkChanges>;

    /// Opens a TCP stream.
    fn connect_tcp(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Stream>>;

    /// Listens for TCP streams.
    ///
    /// # Errors
    /// The address can't be bound.
    fn listen_tcp(&self, local: SocketAddr) -> io::Result<Box<dyn Listener>>;

    /// The addresses that a host's name has in one family, in the resolver's order; none where it has none there.
    /// An address in text is its own. How long it takes is the system's affair; once begun it may go on after its
    /// future is dropped. The error is [`io::ErrorKind::TimedOut`] where DNS gave no answer, and another one where
    /// the look-up itself failed.
    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        family: IpFamily,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// One of the two families of addresses. Names are looked up in each apart (RFC 8305 §3): a resolver that drops the
/// questions for one must not hold up the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    /// IPv4, and A records.
    V4,
    /// IPv6, and AAAA records.
    V6,
}

impl IpFamily {
    /// The family of an address, as it passes the seam.
    pub fn of(ip: IpAddr) -> Self {
        if canonical_ip(ip).is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// An address of each family that the default route leads to. Nothing is ever sent there; the IPv4 one is that by
/// which networks with NAT64 are known (RFC 7050 §2.2), which no host has.
const ELSEWHERE_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 0, 170)), 53);
const ELSEWHERE_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1)), 53);

/// The local address of the route to the Internet in a family; none where there is no such route. Sends nothing.
pub fn source_in(net: &dyn Net, family: IpFamily) -> Option<IpAddr> {
    let elsewhere = match family {
        IpFamily::V4 => ELSEWHERE_V4,
        IpFamily::V6 => ELSEWHERE_V6,
    };
    let source = net.source_for(elsewhere).ok()?;
    let is_link_local = match source {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    (!is_link_local).then_some(source)
}

/// The family whose addresses of a name are tried first (RFC 6724 §5, rules 2, 5 and 6, as far as they can be known
/// before the addresses are): IPv6 where this host has a global address in it, else IPv4.
pub fn preferred(net: &dyn Net) -> IpFamily {
    match source_in(net, IpFamily::V6) {
        Some(IpAddr::V6(ip)) if !ip.is_unique_local() && !ip.is_loopback() => IpFamily::V6,
        Some(_) | None => IpFamily::V4,
    }
}

/// How long one family's addresses wait for those of the other: a resolver may drop the questions for one.
const OTHER_FAMILY: Duration = Duration::from_millis(500);

/// All addresses of a host, those of the preferred family first. It is there when both families have answered, or when one
/// has addresses and the other has had half a second more.
///
/// # Errors
/// No family has an address, and the look-up in one of them failed.
pub async fn resolve_all(net: &dyn Net, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let preferred = preferred(net);
    let other = match preferred {
        IpFamily::V4 => IpFamily::V6,
        IpFamily::V6 => IpFamily::V4,
    };
    let (mut asking_first, mut asking_second) =
        (net.resolve(host, port, preferred), net.resolve(host, port, other));
    let (mut first, mut second) = (None, None);
    let mut until = None;
    while first.is_none() || second.is_none() {
        tokio::select! {
            biased;
            found = &mut asking_first, if first.is_none() => first = Some(found),
            found = &mut asking_second, if second.is_none() => second = Some(found),
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => break,
        }
        let has_any =
            [&first, &second].iter().any(|found| matches!(found, Some(Ok(found)) if !found.is_empty()));
        if has_any {
            until.get_or_insert_with(|| Instant::now() + OTHER_FAMILY);
        }
    }
    match (first.unwrap_or_else(|| Ok(Vec::new())), second.unwrap_or_else(|| Ok(Vec::new()))) {
        (Ok(first), Ok(second)) => Ok([first, second].concat()),
        (Ok(found), Err(error)) | (Err(error), Ok(found)) => {
            if found.is_empty() {
                Err(error)
            } else {
                Ok(found)
            }
        }
        (Err(error), Err(_)) => Err(error),
    }
}

/// The form of an address that passes the seam: IPv4 for an IPv4-mapped one, everything else as it is.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    match canonical_ip(addr.ip()) {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, addr.port()),
        // As it came: a link-local address means nothing without its scope.
        IpAddr::V6(_) => addr,
    }
}

/// [`canonical`], without a port.
pub fn canonical_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// The form in which a dual-stack socket, and quinn above one, name an address: IPv4 as IPv4-mapped IPv6.
pub fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) => SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port()),
        SocketAddr::V6(_) => addr,
    }
}

/// Whether a socket bound to `local` is to carry both families.
fn is_dual_stack(local: SocketAddr) -> bool {
    local.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV6;

    use super::*;

    #[test]
    fn an_address_has_one_form_on_each_side_of_the_seam() {
        let v4: SocketAddr = "192.0.2.1:9".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:9".parse().unwrap();
        assert_eq!(mapped(v4).to_string(), "[::ffff:192.0.2.1]:9");
        assert_eq!(canonical(mapped(v4)), v4);
        assert_eq!(canonical(v4), v4);
        assert_eq!(mapped(v6), v6);
        assert_eq!(canonical(v6), v6);
    }

    #[test]
    fn a_scope_survives_the_rewriting() {
        let local = SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 9, 0, 3));
        assert_eq!(canonical(local), local);
    }
}
