//! quinn's socket on Unix, which makes no call of the system but those that move packets.
//!
//! tokio's own socket asks the system to be told whenever it may send, and Linux tells it after every send; and it
//! learns that nothing more has arrived by asking for it in vain. Where one packet comes at a time, as for a visitor's
//! request, each of the two is as much work for the system as sending the packet.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// The socket once more, for all who wait for room now.
    waiting: Mutex<Option<Arc<AsyncFd<UdpSocket>>>>,
}

impl Udp {
    /// Within a tokio runtime. The socket does not block.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let io = register(socket, Interest::READABLE)?;
        Ok(Self { io, state, is_full: AtomicBool::new(false), waiting: Mutex::default() })
    }

    /// Until there is room for a packet.
    async fn room(self: Arc<Self>) {
        let Ok(waiting) = self.wait() else { return tokio::time::sleep(RETRY).await };
        // An error is the next send's to find.
        drop(waiting.writable().await.map(drop));
        let mut latest = self.waiting();
        // Who waits anew has found it full again.
        if latest.as_ref().is_some_and(|latest| Arc::ptr_eq(latest, &waiting)) {
            *latest = None;
            self.is_full.store(false, Ordering::Relaxed);
        }
    }

    fn wait(&self) -> io::Result<Arc<AsyncFd<UdpSocket>>> {
        let mut latest = self.waiting();
        if let Some(waiting) = &*latest {
            return Ok(Arc::clone(waiting));
        }
        // One that is registered anew is told of the room that is there already.
        let waiting = Arc::new(register(self.io.get_ref().try_clone()?, Interest::WRITABLE)?);
        Ok(Arc::clone(latest.insert(waiting)))
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Arc<AsyncFd<UdpSocket>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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
#[cfg(target_os = "linux")]
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
            let mut received = 0;
            while received < 2 {
                received += poll_fn(|cx| receive(&udp, cx, 4)).await;
            }
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

    #[tokio::test]
    async fn all_who_wait_for_room_take_one_descriptor_more_and_leave_none() {
        let udp = udp();
        udp.is_full.store(true, Ordering::Relaxed);
        let mut pollers: Vec<_> = (0..100).map(|_| Arc::clone(&udp).create_io_poller()).collect();
        for poller in &mut pollers {
            assert!(poll_fn(|cx| Poll::Ready(poller.as_mut().poll_writable(cx))).await.is_pending());
        }
        assert_eq!(udp.waiting().as_ref().map(Arc::strong_count), Some(101));
        for poller in &mut pollers {
            poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
        }
        assert!(udp.waiting().is_none());
    }
}
