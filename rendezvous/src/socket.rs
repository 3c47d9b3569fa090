//! The server's UDP sockets: STUN and QUIC on one, STUN alone on its alternates.
//!
//! What anybody may ask is answered here, at once, from the socket and the address that were asked, or from
//! another of the server's where a STUN client wants that (RFC 5780); an answer that the socket has no room for is
//! dropped. quinn sees the rest.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use proto::public_udp::{ECHO, PublicUdp, PublicUdpStats, Reply};
use proto::reach::Door;
use proto::sighting::Notary;
use quinn::udp::{BATCH_SIZE, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use relay::demux;
use relay::listen::Socket;
use relay::net::Link;
use relay::relayed::{RelayedLink, is_relayed};
use tokio::time::Instant;

use crate::stats::Counters;

/// The largest datagram that an alternate socket takes in whole: no STUN message is longer.
const DATAGRAM: usize = 1500;

/// What anybody may ask over UDP, whichever socket it comes to: the limits are one for all.
#[derive(Debug)]
pub(crate) struct Desk {
    machine: Mutex<PublicUdp>,
    /// All sockets, by what they are bound to. Not held: their ports are free when their users are gone.
    sockets: Vec<(SocketAddr, Weak<dyn Link>)>,
    counters: Arc<Counters>,
}

impl Desk {
    /// Answers `echo` too, or not. `doors` is what clients reach in place of each socket.
    pub(crate) fn new(
        echo: bool,
        sockets: &[&Socket],
        doors: Vec<Door>,
        notary: Notary,
        counters: Arc<Counters>,
    ) -> Self {
        let machine = PublicUdp::behind(echo, doors, Instant::now().into_std()).with_notary(notary);
        let machine = Mutex::new(machine);
        let sockets = sockets.iter().map(|(link, bound)| (*bound, Arc::downgrade(link))).collect();
        Self { machine, sockets, counters }
    }

    pub(crate) fn stats(&self) -> PublicUdpStats {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner).stats()
    }

    /// Answers a datagram that came over `link`, if it gets an answer.
    fn answer(&self, link: &dyn Link, datagram: &[u8], source: SocketAddr, origin: Origin) {
        let now = Instant::now().into_std();
        let reply = self.machine.lock().unwrap_or_else(PoisonError::into_inner).answer(
            datagram,
            source,
            origin.addr(),
            now,
        );
        let Some(Reply { payload, from }) = reply else { return };
        match from {
            None => self.send(link, &payload, source, origin.asked),
            Some(from) => {
                if let Some(link) = self.socket_at(from) {
                    self.send(&*link, &payload, source, Some(from.ip()));
                }
            }
        }
    }

    fn send(&self, link: &dyn Link, payload: &[u8], to: SocketAddr, src_ip: Option<IpAddr>) {
        let transmit = Transmit { destination: to, ecn: None, contents: payload, segment_size: None, src_ip };
        if link.try_send(&transmit).is_err() {
            self.counters.udp_dropped.add();
        }
    }

    /// The socket that can send from this address.
    fn socket_at(&self, from: SocketAddr) -> Option<Arc<dyn Link>> {
        let is_it =
            |bound: &SocketAddr| *bound == from || bound.ip().is_unspecified() && bound.port() == from.port();
        self.sockets.iter().find(|(bound, _)| is_it(bound)).and_then(|(_, link)| link.upgrade())
    }
}

/// Where a datagram was sent to, as far as it is known.
#[derive(Debug, Clone, Copy)]
struct Origin {
    bound: SocketAddr,
    /// What the system says of this datagram, which matters on a wildcard.
    asked: Option<IpAddr>,
}

impl Origin {
    /// The address that answers, if it is a concrete one.
    fn addr(self) -> Option<SocketAddr> {
        let ip = self.asked.unwrap_or(self.bound.ip());
        (!ip.is_unspecified()).then(|| SocketAddr::new(ip, self.bound.port()))
    }
}

/// The main socket, as quinn has it.
pub(crate) struct ServerSocket {
    link: Arc<dyn Link>,
    /// For peers that come through the server's own relay.
    relayed: Option<Arc<RelayedLink>>,
    /// Whose turn it is to be received from.
    relayed_first: AtomicBool,
    bound: SocketAddr,
    desk: Arc<Desk>,
}

impl fmt::Debug for ServerSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSocket").field("bound", &self.bound).finish_non_exhaustive()
    }
}

impl ServerSocket {
    pub(crate) fn new(
        link: Arc<dyn Link>,
        relayed: Option<Arc<RelayedLink>>,
        bound: SocketAddr,
        desk: Arc<Desk>,
    ) -> Self {
        Self { link, relayed, relayed_first: AtomicBool::new(false), bound, desk }
    }

    fn poll_udp(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // A link's only error is that the runtime is going, and then the endpoint may go too.
        let received = std::task::ready!(self.link.poll_recv(cx, bufs, meta))?;
        for (buf, meta) in bufs.iter_mut().zip(meta.iter_mut()).take(received) {
            self.sort(buf, meta);
        }
        Poll::Ready(Ok(received))
    }

    fn poll_relayed(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let Some(relayed) = &self.relayed else { return Poll::Pending };
        let received = std::task::ready!(relayed.poll_recv(cx, bufs, meta))?;
        for (buf, meta) in bufs.iter_mut().zip(meta.iter_mut()).take(received) {
            // There is nobody's address to be told through a relay.
            demux::split(buf, meta, |_, _| {});
        }
        Poll::Ready(Ok(received))
    }

    /// Answers what is not QUIC, and leaves in the buffer what is.
    fn sort(&self, buf: &mut [u8], meta: &mut RecvMeta) {
        let (source, origin) = (meta.addr, Origin { bound: self.bound, asked: meta.dst_ip });
        let answer = |datagram: &[u8]| self.desk.answer(&*self.link, datagram, source, origin);
        take_echoes(buf, meta, answer);
        demux::split(buf, meta, |_, datagram| answer(datagram));
    }
}

/// Takes the datagrams of four bytes out of a receive buffer, before their first byte is taken for QUIC's:
/// `echo` is such a one, and no QUIC packet is so short. Either all of a batch are, or the last one alone.
fn take_echoes(buf: &[u8], meta: &mut RecvMeta, mut f: impl FnMut(&[u8])) {
    if meta.len > buf.len() || meta.stride == 0 {
        return;
    }
    let last = meta.len % meta.stride;
    let start = if meta.stride == ECHO.len() {
        0
    } else if last == ECHO.len() {
        meta.len - last
    } else {
        return;
    };
    buf[start..meta.len].chunks(meta.stride).for_each(&mut f);
    meta.len = start;
}

impl AsyncUdpSocket for ServerSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.link).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match &self.relayed {
            // What the relay has no room for is lost, as packets are.
            Some(relayed) if is_relayed(transmit.destination) => relayed.try_send(transmit).or(Ok(())),
            Some(_) | None => self.link.try_send(transmit),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // Each in its turn, or one could starve the other.
        let relayed_first = self.relayed_first.fetch_xor(true, Ordering::Relaxed);
        let first =
            if relayed_first { self.poll_relayed(cx, bufs, meta) } else { self.poll_udp(cx, bufs, meta) };
        if first.is_ready() {
            return first;
        }
        if relayed_first { self.poll_udp(cx, bufs, meta) } else { self.poll_relayed(cx, bufs, meta) }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.link.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.link.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.link.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.link.may_fragment()
    }
}

/// Answers at an alternate address, for ever.
pub(crate) async fn serve_alternate(link: Arc<dyn Link>, bound: SocketAddr, desk: Arc<Desk>) {
    let size = DATAGRAM * link.max_receive_segments();
    let mut buffers = vec![vec![0; size]; BATCH_SIZE];
    let mut metas = vec![RecvMeta::default(); BATCH_SIZE];
    loop {
        let received = std::future::poll_fn(|cx| {
            let mut slices: Vec<IoSliceMut<'_>> = buffers.iter_mut().map(|b| IoSliceMut::new(b)).collect();
            link.poll_recv(cx, &mut slices, &mut metas)
        })
        .await;
        // As above: only the end of the runtime comes here.
        let Ok(received) = received else { return };
        for (buffer, meta) in buffers.iter().zip(&metas).take(received) {
            let origin = Origin { bound, asked: meta.dst_ip };
            let batch = &buffer[..meta.len.min(buffer.len())];
            for datagram in batch.chunks(meta.stride.max(1)) {
                desk.answer(&*link, datagram, meta.addr, origin);
            }
        }
    }
}

#[cfg(test)]
mod tests;
