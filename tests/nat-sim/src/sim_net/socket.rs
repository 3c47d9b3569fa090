//! A datagram socket of a simulated host, as quinn and the seam want one.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use relay::net::{Asking, BoxFuture, Link, Net as _, canonical};

use super::SimNet;
use super::host::Inbox;
use crate::net::SocketId;

/// The largest IP packet that a host's own interface takes. Wires may take less.
const INTERFACE_MTU: usize = 1500;

/// Packets that one call may send, as Linux's segmentation offload takes them.
const SEGMENTS: usize = 10;

/// A socket of a simulated host. It always has room: the wires behind it queue and drop.
#[derive(Debug)]
pub(super) struct SimLink {
    net: SimNet,
    id: SocketId,
    bound: SocketAddr,
    inbox: Arc<Inbox>,
}

impl SimLink {
    pub(super) fn bind(net: SimNet, local: SocketAddr) -> io::Result<Self> {
        let (host, name) = (net.host, net.name().to_owned());
        let (id, bound, inbox) = net.with_state(|state, _| {
            let id = state.world.with_node(&name, |node, _| node.vacant(local))?;
            let bound = state.world.net_mut().open(host, id, Some(local));
            let inbox = state.world.with_node(&name, |node, _| node.receive_at(id, bound));
            io::Result::Ok((id, bound, inbox))
        })?;
        Ok(Self { net, id, bound, inbox })
    }

    /// Puts one datagram on the wire.
    fn put(&self, to: SocketAddr, ttl: Option<u8>, payload: &[u8]) -> io::Result<()> {
        let to = canonical(to);
        if self.bound.is_ipv4() != to.is_ipv4() && !self.is_dual_stack() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        self.net.source_for(to)?;
        let headers = if to.is_ipv4() { 28 } else { 48 };
        if payload.len() + headers > INTERFACE_MTU {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let who = (self.net.host, self.id);
        self.net.with_state(|state, now| {
            if !state.world.node(self.net.name()).has(self.id) {
                return Err(io::ErrorKind::NotConnected.into());
            }
            self.net.shared.tape.record(now, true, who, to, payload.len());
            state.world.net_mut().send(now, who, to, ttl, payload.to_vec());
            Ok(())
        })
    }

    fn is_dual_stack(&self) -> bool {
        self.bound.is_ipv6() && self.bound.ip().is_unspecified()
    }

    /// The address that a datagram from `from` was sent to.
    fn own_ip(&self, from: SocketAddr) -> Option<IpAddr> {
        if self.bound.ip().is_unspecified() { self.net.source_for(from).ok() } else { Some(self.bound.ip()) }
    }
}

impl Drop for SimLink {
    fn drop(&mut self) {
        let name = self.net.name().to_owned();
        self.net.with_state(|state, _| state.world.with_node(&name, |node, _| node.close(self.id)));
    }
}

impl Link for SimLink {
    fn send_with_ttl(&self, to: SocketAddr, ttl: u8, payload: &[u8]) -> io::Result<()> {
        self.put(to, Some(ttl), payload)
    }

    fn send_datagram(&self, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        self.put(to, None, payload)
    }
}

impl AsyncUdpSocket for SimLink {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for packet in transmit.contents.chunks(segment) {
            // An error would end the connection; a packet that can't leave is lost.
            let _lost = self.put(transmit.destination, None, packet);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let datagrams = ready!(self.inbox.poll(cx, bufs.len().min(meta.len())));
        for ((buf, meta), (from, payload)) in bufs.iter_mut().zip(meta).zip(&datagrams) {
            let len = payload.len().min(buf.len());
            buf[..len].copy_from_slice(&payload[..len]);
            *meta = RecvMeta { addr: *from, len, stride: len, ecn: None, dst_ip: self.own_ip(*from) };
        }
        Poll::Ready(Ok(datagrams.len()))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.bound)
    }

    fn max_transmit_segments(&self) -> usize {
        SEGMENTS
    }

    fn max_receive_segments(&self) -> usize {
        1
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// A socket that is connected to one address. The simulated network has no ICMP: what is refused is silent.
#[derive(Debug)]
pub(super) struct SimAsking {
    link: SimLink,
    to: SocketAddr,
}

impl SimAsking {
    pub(super) fn open(net: SimNet, to: SocketAddr) -> io::Result<Self> {
        let source = net.source_for(to)?;
        let any = if source.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let link = SimLink::bind(net, any.parse().map_err(io::Error::other)?)?;
        Ok(Self { link, to })
    }
}

impl Asking for SimAsking {
    fn send(&self, payload: &[u8]) -> io::Result<()> {
        self.link.put(self.to, None, payload)
    }

    fn recv<'a>(&'a self, buf: &'a mut [u8]) -> BoxFuture<'a, io::Result<usize>> {
        Box::pin(async move {
            loop {
                let received = poll_fn(|cx| self.link.inbox.poll(cx, 1)).await;
                if let Some((_, payload)) = received.into_iter().find(|(from, _)| canonical(*from) == self.to)
                {
                    let len = payload.len().min(buf.len());
                    buf[..len].copy_from_slice(&payload[..len]);
                    return Ok(len);
                }
            }
        })
    }
}

/// A socket's queue never fills.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
