//! The link itself.

use std::fmt::Debug;
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper::body::Bytes;
use proto::wire::relay::{Address, Check, Data, Frame, MAX_BATCH, MAX_CHECK};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::Book;
use super::inbox::{Batch, Inbox};
use crate::net::Link;

/// Packets that quinn may hand over at once.
const SEGMENTS: usize = 32;

/// Which frames pass by which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Few and urgent.
    Control,
    /// Packets of QUIC.
    Data,
}

/// Where a link's frames leave.
pub trait Outlet: Debug + Send + Sync {
    /// Takes a frame, or has no room for it.
    fn send(&self, lane: Lane, frame: Vec<u8>) -> bool;

    /// Ready when there is room for data.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()>;
}

/// A link through a relay. See the [module](super).
#[derive(Debug)]
pub struct RelayedLink {
    book: Mutex<Book>,
    inbox: Inbox,
    outlet: Arc<dyn Outlet>,
    welcomes_strangers: bool,
    lost: AtomicU64,
}

impl RelayedLink {
    /// A link out of `outlet`. Only a server `welcomes_strangers`: to it anybody may speak, while a peer hears
    /// those alone whom it has given an address.
    pub fn new(outlet: Arc<dyn Outlet>, capacity: usize, welcomes_strangers: bool) -> Self {
        let (book, inbox) = (Mutex::new(Book::new(capacity)), Inbox::default());
        Self { book, inbox, outlet, welcomes_strangers, lost: AtomicU64::new(0) }
    }

    /// The socket address of a process of an identity, on this link.
    pub fn addr(&self, address: Address) -> SocketAddr {
        self.book().addr(address)
    }

    /// The socket address that stands for a process already, if any does.
    pub fn known(&self, address: Address) -> Option<SocketAddr> {
        self.book().known(&address)
    }

    /// For whom a socket address stands.
    pub fn address(&self, addr: SocketAddr) -> Option<Address> {
        self.book().address(addr)
    }

    /// It stands for nobody any more.
    pub fn forget(&self, addr: SocketAddr) {
        self.book().forget(addr);
    }

    /// What came from the relay: a batch of packets, or one datagram. Whatever else it may be is not for here.
    pub fn deliver(&self, message: &Bytes) {
        let (remote, ecn, segment, packets) = match Frame::parse(message) {
            Ok(Frame::Data(Data { remote, ecn, segment, packets })) => {
                (remote, ecn, usize::from(segment), packets)
            }
            Ok(Frame::Check(Check { remote, datagram })) => (remote, 0, datagram.len(), datagram),
            Ok(_) | Err(_) => return self.lose(),
        };
        let from = {
            let mut book = self.book();
            if self.welcomes_strangers { Some(book.addr(remote)) } else { book.known(&remote) }
        };
        let packets = message.slice_ref(packets);
        let delivered = from.is_some_and(|from| self.inbox.push(Batch { from, ecn, segment, packets }));
        if !delivered {
            self.lose();
        }
    }

    /// Waits until what is delivered next finds room: a relay that is not read sends no more.
    pub async fn room(&self) {
        std::future::poll_fn(|cx| self.inbox.poll_room(cx)).await;
    }

    /// How many frames from the relay were of no use: from strangers, or more than there was room for.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remote(&self, to: SocketAddr) -> io::Result<Address> {
        self.address(to).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

impl Link for RelayedLink {
    fn send_with_ttl(&self, _to: SocketAddr, _ttl: u8, _payload: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn send_datagram(&self, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        if payload.is_empty() || payload.len() > MAX_CHECK {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let frame = Frame::Check(Check { remote: self.remote(to)?, datagram: payload }).encode();
        if self.outlet.send(Lane::Control, frame) { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn has_mtu(&self) -> bool {
        false
    }
}

impl AsyncUdpSocket for RelayedLink {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let packets = transmit.contents;
        let segment = transmit.segment_size.unwrap_or(packets.len());
        let Ok(segment) = u16::try_from(segment) else { return Ok(()) };
        let Ok(remote) = self.remote(transmit.destination) else { return Ok(()) };
        if segment == 0 || packets.is_empty() || packets.len() > MAX_BATCH {
            return Ok(());
        }
        let ecn = transmit.ecn.map_or(0, |ecn| ecn as u8);
        let frame = Frame::Data(Data { remote, ecn, segment, packets }).encode();
        if self.outlet.send(Lane::Data, frame) { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inbox.poll(cx, bufs, meta).map(Ok)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok((Ipv6Addr::UNSPECIFIED, 0).into())
    }

    fn max_transmit_segments(&self) -> usize {
        SEGMENTS
    }

    fn max_receive_segments(&self) -> usize {
        SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct Poller(Arc<RelayedLink>);

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.outlet.poll_room(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use proto::id::{Instance, PeerId};

    use super::*;

    /// Keeps what was sent, up to a number of frames.
    #[derive(Debug)]
    struct Kept(Mutex<Vec<(Lane, Vec<u8>)>>, usize);

    impl Outlet for Kept {
        fn send(&self, lane: Lane, frame: Vec<u8>) -> bool {
            let mut kept = self.0.lock().unwrap();
            let fits = kept.len() < self.1;
            if fits {
                kept.push((lane, frame));
            }
            fits
        }

        fn poll_room(&self, _cx: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }

    fn process(n: u8) -> Address {
        Address { peer: PeerId::from_bytes([n; 32]), instance: Instance([n; 8]) }
    }

    fn link(strangers: bool, room: usize) -> (RelayedLink, Arc<Kept>) {
        let kept = Arc::new(Kept(Mutex::new(Vec::new()), room));
        (RelayedLink::new(Arc::clone(&kept) as Arc<dyn Outlet>, 64, strangers), kept)
    }

    fn receive(link: &RelayedLink) -> Option<(SocketAddr, Vec<u8>)> {
        let (mut memory, mut meta) = (vec![0; 65_536], [RecvMeta::default()]);
        let mut bufs = [IoSliceMut::new(&mut memory)];
        let cx = &mut Context::from_waker(Waker::noop());
        match link.poll_recv(cx, &mut bufs, &mut meta) {
            Poll::Ready(Ok(1)) => Some((meta[0].addr, bufs[0][..meta[0].len].to_vec())),
            Poll::Ready(_) | Poll::Pending => None,
        }
    }

    #[test]
    fn a_batch_leaves_as_one_frame_to_the_process_that_its_address_stands_for() {
        let (link, kept) = link(false, 10);
        let to = link.addr(process(1));
        let transmit = Transmit {
            destination: to,
            ecn: Some(quinn::udp::EcnCodepoint::Ect0),
            contents: &[7; 3000],
            segment_size: Some(1200),
            src_ip: None,
        };
        link.try_send(&transmit).unwrap();
        let sent = kept.0.lock().unwrap();
        let data = Data { remote: process(1), ecn: 2, segment: 1200, packets: &[7; 3000] };
        assert_eq!(*sent, [(Lane::Data, Frame::Data(data).encode())]);
    }

    #[test]
    fn checks_take_the_other_lane_and_a_full_outlet_is_said() {
        let (link, kept) = link(false, 1);
        let to = link.addr(process(1));
        link.send_datagram(to, b"check").unwrap();
        assert_eq!(kept.0.lock().unwrap()[0].0, Lane::Control);
        assert_eq!(link.send_datagram(to, b"check").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let nobody = "[fd63::9]:1".parse().unwrap();
        assert!(link.send_datagram(nobody, b"check").is_err());
    }

    #[test]
    fn a_peer_hears_only_whom_it_gave_an_address_and_a_server_everybody() {
        let data = Data { remote: process(2), ecn: 0, segment: 100, packets: &[9; 100] };
        let frame: Bytes = Frame::Data(data).encode().into();
        let (peer, _) = link(false, 10);
        peer.deliver(&frame);
        assert_eq!((receive(&peer), peer.lost()), (None, 1));
        let known = peer.addr(process(2));
        peer.deliver(&frame);
        assert_eq!(receive(&peer), Some((known, vec![9; 100])));
        let (server, _) = link(true, 10);
        server.deliver(&frame);
        let (from, _) = receive(&server).unwrap();
        assert_eq!(server.address(from), Some(process(2)));
    }

    #[test]
    fn what_is_no_packet_is_counted_and_goes_nowhere() {
        let (link, _) = link(true, 10);
        for bytes in [&[][..], b"\x04short", &Frame::Welcome.encode()] {
            link.deliver(&Bytes::copy_from_slice(bytes));
        }
        assert_eq!((receive(&link), link.lost()), (None, 3));
    }
}
