//! A link in memory, and a task to poll with.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::task::{Wake, Waker};

use super::super::*;

/// A link whose every move a test decides.
#[derive(Debug)]
pub(super) struct FakeLink {
    state: Mutex<State>,
    pub(super) max_transmit_segments: usize,
}

#[derive(Debug, Default)]
struct State {
    arriving: VecDeque<io::Result<(RecvMeta, Vec<u8>)>>,
    endless: Option<SocketAddr>,
    receiver: Option<Waker>,
    looks: usize,
    sent: Vec<(SocketAddr, Vec<u8>, Option<usize>)>,
    /// What is sent arrives there, from the address.
    wire: Option<(Weak<FakeLink>, SocketAddr)>,
    room: Room,
    senders: Vec<Waker>,
}

/// What becomes of a packet that is given to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Room {
    #[default]
    Takes,
    /// As many as this, then full.
    TakesOnly(usize),
    Full,
    /// Full, but it says that it is writable.
    FullAndLies,
    Refuses,
}

impl FakeLink {
    pub(super) fn new() -> Arc<Self> {
        Self::with_segments(10)
    }

    pub(super) fn with_segments(max_transmit_segments: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), max_transmit_segments })
    }

    /// What one link sends arrives at the other: a wire between `a_addr` and `b_addr`.
    pub(super) fn join(a: &Arc<Self>, a_addr: SocketAddr, b: &Arc<Self>, b_addr: SocketAddr) {
        lock(&a.state).wire = Some((Arc::downgrade(b), a_addr));
        lock(&b.state).wire = Some((Arc::downgrade(a), b_addr));
    }

    /// A buffer arrives, of packets of `stride` bytes.
    pub(super) fn arrive(&self, from: SocketAddr, stride: usize, bytes: &[u8]) {
        let dst_ip = Some(SocketAddr::from(([127, 0, 0, 1], 0)).ip());
        let meta = RecvMeta { addr: from, len: bytes.len(), stride, ecn: None, dst_ip };
        self.arrive_as(meta, bytes);
    }

    pub(super) fn arrive_as(&self, meta: RecvMeta, bytes: &[u8]) {
        self.push(Ok((meta, bytes.to_vec())));
    }

    pub(super) fn fail(&self, kind: io::ErrorKind) {
        self.push(Err(kind.into()));
    }

    /// From now on there is always another packet.
    pub(super) fn arrive_for_ever(&self, from: SocketAddr) {
        lock(&self.state).endless = Some(from);
    }

    fn push(&self, arriving: io::Result<(RecvMeta, Vec<u8>)>) {
        let mut state = lock(&self.state);
        state.arriving.push_back(arriving);
        let waker = state.receiver.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn set_room(&self, room: Room) {
        let mut state = lock(&self.state);
        state.room = room;
        let senders = std::mem::take(&mut state.senders);
        drop(state);
        senders.into_iter().for_each(Waker::wake);
    }

    /// What was sent since the last look: where to, the bytes, the segment size.
    pub(super) fn take_sent(&self) -> Vec<(SocketAddr, Vec<u8>, Option<usize>)> {
        std::mem::take(&mut lock(&self.state).sent)
    }

    /// How often the link was asked for packets.
    pub(super) fn looks(&self) -> usize {
        lock(&self.state).looks
    }
}

impl Link for FakeLink {
    fn send_with_ttl(&self, _to: SocketAddr, _ttl: u8, _payload: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn send_datagram(&self, _to: SocketAddr, _payload: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncUdpSocket for FakeLink {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(FakePoller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        assert_eq!(transmit.src_ip, None, "the system chooses, per path");
        let mut state = lock(&self.state);
        match state.room {
            Room::Takes => {}
            Room::TakesOnly(left) if left > 0 => state.room = Room::TakesOnly(left - 1),
            Room::TakesOnly(_) | Room::Full | Room::FullAndLies => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Room::Refuses => return Err(io::ErrorKind::NetworkUnreachable.into()),
        }
        if let Some((other, from)) = state.wire.clone() {
            drop(state);
            if let Some(other) = other.upgrade() {
                other.arrive(
                    from,
                    transmit.segment_size.unwrap_or(transmit.contents.len()),
                    transmit.contents,
                );
            }
            return Ok(());
        }
        state.sent.push((transmit.destination, transmit.contents.to_vec(), transmit.segment_size));
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.state);
        state.looks += 1;
        if let Some(addr) = state.endless {
            bufs[0][..3].copy_from_slice(&QUIC);
            meta[0] = RecvMeta { addr, len: 3, stride: 3, ..RecvMeta::default() };
            return Poll::Ready(Ok(1));
        }
        match state.arriving.pop_front() {
            Some(Ok((told, bytes))) => {
                bufs[0][..bytes.len()].copy_from_slice(&bytes);
                meta[0] = told;
                Poll::Ready(Ok(1))
            }
            Some(Err(error)) => Poll::Ready(Err(error)),
            None => {
                state.receiver = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 4433)))
    }

    fn max_transmit_segments(&self) -> usize {
        self.max_transmit_segments
    }

    fn max_receive_segments(&self) -> usize {
        64
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct FakePoller(Arc<FakeLink>);

impl UdpPoller for FakePoller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0.state);
        match state.room {
            Room::Full | Room::TakesOnly(0) => {
                state.senders.push(cx.waker().clone());
                Poll::Pending
            }
            Room::Takes | Room::TakesOnly(_) | Room::FullAndLies | Room::Refuses => Poll::Ready(Ok(())),
        }
    }
}

/// A task that counts how often it was woken.
#[derive(Debug, Default)]
pub(super) struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Task {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// How often it was woken since the last look.
    pub(super) fn take_wakes(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

/// A QUIC packet with a short header, as far as anybody here looks.
pub(super) const QUIC: [u8; 3] = [0x40, 1, 2];

/// A STUN message of `len` bytes.
pub(super) fn stun(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
    bytes
}

pub(super) const RELAY: LinkId = LinkId(1);

pub(super) fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], port))
}

pub(super) fn path(link: LinkId, port: u16) -> PathId {
    PathId { link, remote: address(port) }
}

/// A path socket with a main link and a relay's, and one remote.
pub(super) struct World {
    pub(super) socket: Arc<PathSocket>,
    pub(super) stun: mpsc::Receiver<Datagram>,
    pub(super) main: Arc<FakeLink>,
    pub(super) relay: Arc<FakeLink>,
    pub(super) remote: SocketAddr,
    pub(super) task: Arc<Task>,
}

impl World {
    pub(super) fn new() -> Self {
        let (socket, stun) = PathSocket::new([7; 32]);
        let (main, relay) = (FakeLink::new(), FakeLink::new());
        socket.add_link(LinkId::MAIN, main.clone());
        socket.add_link(RELAY, relay.clone());
        let remote = socket.open_remote().unwrap();
        Self { socket, stun, main, relay, remote, task: Task::new() }
    }

    pub(super) fn route(&self, primary: Option<PathId>, also: Option<PathId>) {
        assert!(self.socket.set_route(self.remote, Route { primary, also }));
    }

    /// One call of `poll_recv`: the packets that went up, each with its sender; `None` when it was pending.
    pub(super) fn receive(&self) -> Option<Vec<(SocketAddr, Vec<u8>)>> {
        let waker = self.task.waker();
        let mut bytes = [vec![0; 4096], vec![0; 4096]];
        let mut bufs = bytes.each_mut().map(|bytes| IoSliceMut::new(bytes));
        let mut meta = [RecvMeta::default(); 2];
        match self.socket.poll_recv(&mut Context::from_waker(&waker), &mut bufs, &mut meta) {
            Poll::Pending => None,
            Poll::Ready(received) => {
                let received = received.expect("an error would end every connection");
                let mut packets = Vec::new();
                for (meta, bytes) in meta.iter().zip(&bytes).take(received) {
                    assert_eq!(meta.dst_ip, None, "quinn would answer from it, whatever the path");
                    packets.extend(
                        bytes[..meta.len].chunks(meta.stride.max(1)).map(|p| (meta.addr, p.to_vec())),
                    );
                }
                Some(packets)
            }
        }
    }

    /// One call of `try_send`, to the remote.
    pub(super) fn send(&self, contents: &[u8], segment_size: Option<usize>) -> io::Result<()> {
        self.send_to(self.remote, contents, segment_size)
    }

    pub(super) fn send_to(
        &self,
        destination: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        let src_ip = Some(destination.ip());
        self.socket.try_send(&Transmit { destination, ecn: None, contents, segment_size, src_ip })
    }

    pub(super) fn poller(&self) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    /// Whether a poller says that it is writable.
    pub(super) fn writable(&self, poller: &mut Pin<Box<dyn UdpPoller>>) -> bool {
        let waker = self.task.waker();
        match poller.as_mut().poll_writable(&mut Context::from_waker(&waker)) {
            Poll::Ready(writable) => {
                writable.expect("an error would end the connection");
                true
            }
            Poll::Pending => false,
        }
    }

    pub(super) fn dropped(&self, reason: DropReason) -> u64 {
        self.socket.stats().drops[&reason]
    }
}
