//! quinn's socket on Unix, which makes no call of the system but those that move packets.
//!
//! tokio's own socket asks the system to be told whenever it may send, and Linux tells it after every send; and it
//! learns that nothing more has arrived by asking for it in vain. Where one packet comes at a time, as for a visitor's
//! request, each of the two is as much work for the system as sending the packet.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn::udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// When a full socket is tried again where the system has no descriptor left to wait by.
const RETRY: Duration = Duration::from_millis(1);

/// A UDP socket with segmentation offload, ECN and the Don't Fragment bit.
#[derive(Debug)]
pub(super) struct Udp {
    io: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    /// The last packet found no room.
    is_full: AtomicBool,
}

impl Udp {
    /// Within a tokio runtime. The socket does not block.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let io = register(socket, Interest::READABLE)?;
        Ok(Self { io, state, is_full: AtomicBool::new(false) })
    }

    /// Until there is room for a packet.
    async fn room(self: Arc<Self>) {
        // One that is registered anew is told of the room that is there already.
        let registered = self.io.get_ref().try_clone();
        match registered.and_then(|socket| register(socket, Interest::WRITABLE)) {
            // An error is the next send's to find.
            Ok(socket) => drop(socket.writable().await.map(drop)),
            Err(_) => tokio::time::sleep(RETRY).await,
        }
        self.is_full.store(false, Ordering::Relaxed);
    }
}

#[expect(deprecated, reason = "for types that may lie about their descriptor, which a UdpSocket does not")]
fn register(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, interest)
}

impl AsyncUdpSocket for Udp {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { socket: self, room: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send(self.io.get_ref().into(), transmit);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.is_full.store(true, Ordering::Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut readable = ready!(self.io.poll_read_ready(cx))?;
            match self.state.recv(self.io.get_ref().into(), bufs, meta) {
                Ok(received) => {
                    // The system has no more, and tells of what comes after this.
                    if cfg!(target_os = "linux") && received < bufs.len().min(BATCH_SIZE) {
                        readable.clear_ready();
                    }
                    return Poll::Ready(Ok(received));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => readable.clear_ready(),
                // It is of one packet, or of one that was sent. To hand it up would end the endpoint.
                Err(_) => {}
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// One connection's wait for room.
struct Poller {
    socket: Arc<Udp>,
    room: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.room.is_none() && this.socket.is_full.load(Ordering::Relaxed) {
            this.room = Some(Box::pin(Arc::clone(&this.socket).room()));
        }
        if let Some(room) = &mut this.room {
            ready!(room.as_mut().poll(cx));
            this.room = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("waits", &self.room.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::Ipv4Addr;

    use super::*;

    fn udp() -> Arc<Udp> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Arc::new(Udp::new(socket).unwrap())
    }

    /// Up to `most` datagrams, as many as there are at once.
    fn receive(udp: &Udp, cx: &mut Context<'_>, most: usize) -> Poll<usize> {
        let mut bytes = vec![[0; 64]; most];
        let mut bufs: Vec<_> = bytes.iter_mut().map(|bytes| IoSliceMut::new(bytes)).collect();
        udp.poll_recv(cx, &mut bufs, &mut vec![RecvMeta::default(); most]).map(Result::unwrap)
    }

    #[tokio::test]
    async fn whoever_has_read_all_there_was_is_told_of_what_comes_next() {
        let (udp, sender) = (udp(), UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let to = udp.local_addr().unwrap();
        for _ in 0..100 {
            sender.send_to(b"a", to).unwrap();
            sender.send_to(b"b", to).unwrap();
            assert_eq!(poll_fn(|cx| receive(&udp, cx, 4)).await, 2);
            assert!(poll_fn(|cx| Poll::Ready(receive(&udp, cx, 4))).await.is_pending());
        }
    }

    #[tokio::test]
    async fn what_did_not_fit_is_there_without_anything_new() {
        let (udp, sender) = (udp(), UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        for _ in 0..5 {
            sender.send_to(b"a", udp.local_addr().unwrap()).unwrap();
        }
        for left in [2, 2, 1] {
            assert_eq!(poll_fn(|cx| receive(&udp, cx, 2)).await, left);
        }
    }

    #[tokio::test]
    async fn who_found_no_room_waits_until_the_system_says_that_there_is_some() {
        let udp = udp();
        let mut poller = Arc::clone(&udp).create_io_poller();
        assert!(poll_fn(|cx| Poll::Ready(poller.as_mut().poll_writable(cx))).await.is_ready());
        udp.is_full.store(true, Ordering::Relaxed);
        assert!(poll_fn(|cx| Poll::Ready(poller.as_mut().poll_writable(cx))).await.is_pending());
        poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
        assert!(!udp.is_full.load(Ordering::Relaxed));
    }
}
