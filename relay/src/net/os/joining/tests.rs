use std::io::IoSliceMut;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use quinn::UdpPoller;
use quinn::udp::RecvMeta;
use tokio::task::yield_now;

use super::*;

const PACKET: usize = 1452;

/// Where to, bytes, and the length of a packet.
type Sent = (SocketAddr, Vec<u8>, usize);

/// A socket that notes what it is to send, as long as it has room.
#[derive(Debug)]
struct FakeSocket {
    sent: Mutex<Vec<Sent>>,
    /// The addresses that it was sent from.
    sources: Mutex<Vec<Option<IpAddr>>>,
    room: AtomicUsize,
    segments: AtomicUsize,
    waiting: Mutex<Option<Waker>>,
}

impl FakeSocket {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            sent: Mutex::default(),
            sources: Mutex::default(),
            room: AtomicUsize::new(usize::MAX),
            segments: AtomicUsize::new(64),
            waiting: Mutex::default(),
        })
    }

    /// From now on it takes as many sends.
    fn set_room(&self, sends: usize) {
        self.room.store(sends, Ordering::Relaxed);
        if let Some(waker) = self.waiting.lock().unwrap().take() {
            waker.wake();
        }
    }

    /// What was sent since the last look.
    fn take(&self) -> Vec<Sent> {
        std::mem::take(&mut self.sent.lock().unwrap())
    }

    /// As [`Self::take`], the lengths alone.
    fn lengths(&self) -> Vec<usize> {
        self.take().iter().map(|(_, contents, _)| contents.len()).collect()
    }
}

#[derive(Debug)]
struct FakePoller(Arc<FakeSocket>);

impl UdpPoller for FakePoller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.room.load(Ordering::Relaxed) > 0 {
            return Poll::Ready(Ok(()));
        }
        *self.0.waiting.lock().unwrap() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncUdpSocket for FakeSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(FakePoller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let room = self.room.load(Ordering::Relaxed);
        self.room.store(room.checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?, Ordering::Relaxed);
        let packet = transmit.segment_size.unwrap_or(transmit.contents.len());
        self.sources.lock().unwrap().push(transmit.src_ip);
        self.sent.lock().unwrap().push((transmit.destination, transmit.contents.to_vec(), packet));
        Ok(())
    }

    fn poll_recv(
        &self,
        _cx: &mut Context<'_>,
        _bufs: &mut [IoSliceMut<'_>],
        _meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(to(0))
    }

    fn max_transmit_segments(&self) -> usize {
        self.segments.load(Ordering::Relaxed)
    }
}

fn to(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 9))
}

fn transmit(host: u8, contents: &[u8]) -> Transmit<'_> {
    let segment_size = Some(PACKET).filter(|&packet| packet < contents.len());
    Transmit { destination: to(host), ecn: None, contents, segment_size, src_ip: None }
}

fn joining() -> (Arc<FakeSocket>, Arc<Joining>) {
    let socket = FakeSocket::new();
    (Arc::clone(&socket), Joining::new(socket))
}

#[tokio::test]
async fn whole_batches_leave_as_one_with_what_ends_them() {
    let (socket, joining) = joining();
    for len in [WHOLE * PACKET, WHOLE * PACKET, 3 * PACKET + 7] {
        assert!(socket.lengths().is_empty());
        joining.try_send(&transmit(1, &vec![1; len])).unwrap();
    }
    assert_eq!(socket.lengths(), [23 * PACKET + 7]);
}

#[tokio::test]
async fn what_is_no_whole_batch_never_waits() {
    let (socket, joining) = joining();
    for len in [40, PACKET, 9 * PACKET, 9 * PACKET + 1] {
        joining.try_send(&transmit(1, &vec![1; len])).unwrap();
        assert_eq!(socket.lengths(), [len]);
    }
}

#[tokio::test]
async fn a_whole_batch_waits_for_no_more_than_the_tasks_that_are_ready() {
    let (socket, joining) = joining();
    let more = tokio::spawn({
        let joining = Arc::clone(&joining);
        async move { joining.try_send(&transmit(1, &[2; WHOLE * PACKET])) }
    });
    joining.try_send(&transmit(1, &[1; WHOLE * PACKET])).unwrap();
    while joining.held().is_awaited {
        yield_now().await;
    }
    more.await.unwrap().unwrap();
    assert_eq!(socket.lengths(), [2 * WHOLE * PACKET]);
}

#[tokio::test]
async fn one_send_holds_no_more_than_a_datagram_or_the_system_allows() {
    let (socket, joining) = joining();
    for _ in 0..5 {
        joining.try_send(&transmit(1, &[1; WHOLE * PACKET])).unwrap();
    }
    assert_eq!(socket.lengths(), [4 * WHOLE * PACKET]);
    joining.try_send(&transmit(1, &[1])).unwrap();
    assert_eq!(socket.lengths(), [WHOLE * PACKET + 1]);

    socket.segments.store(25, Ordering::Relaxed);
    for _ in 0..2 {
        joining.try_send(&transmit(1, &[1; WHOLE * PACKET])).unwrap();
    }
    assert_eq!(socket.lengths(), [2 * WHOLE * PACKET]);
}

#[tokio::test]
async fn where_the_system_cuts_no_datagrams_nothing_waits() {
    let (socket, joining) = joining();
    socket.segments.store(1, Ordering::Relaxed);
    for _ in 0..WHOLE {
        joining.try_send(&transmit(1, &[1; PACKET])).unwrap();
        assert_eq!(socket.lengths(), [PACKET]);
    }
}

#[tokio::test]
async fn another_flow_is_not_held_up_and_not_mixed_in() {
    let (socket, joining) = joining();
    joining.try_send(&transmit(1, &[1; WHOLE * PACKET])).unwrap();
    joining.try_send(&transmit(2, &[2; 40])).unwrap();
    assert_eq!(socket.take(), [(to(2), vec![2; 40], 40)]);
    let marked = Transmit { ecn: Some(EcnCodepoint::Ect0), ..transmit(1, &[3; 40]) };
    joining.try_send(&marked).unwrap();
    assert_eq!(socket.lengths(), [WHOLE * PACKET, 40]);
    joining.try_send(&transmit(1, &[4; WHOLE * PACKET])).unwrap();
    joining.try_send(&transmit(2, &[5; WHOLE * PACKET])).unwrap();
    assert_eq!(socket.take(), [(to(1), vec![4; WHOLE * PACKET], PACKET)]);
}

#[tokio::test]
async fn each_address_of_this_host_is_a_flow_of_its_own() {
    let (socket, joining) = joining();
    let from = |host: u8, contents| {
        let src_ip = Some(IpAddr::from([198, 51, 100, host]));
        joining.try_send(&Transmit { src_ip, ..transmit(1, contents) }).unwrap();
    };
    from(1, &[1; WHOLE * PACKET]);
    from(1, &[1; WHOLE * PACKET]);
    from(2, &[2; 40]);
    from(2, &[2; WHOLE * PACKET]);
    joining.try_send(&transmit(1, &[3; 40])).unwrap();
    let sources = std::mem::take(&mut *socket.sources.lock().unwrap());
    let [one, two] = [1, 2].map(|host| Some(IpAddr::from([198, 51, 100, host])));
    assert_eq!(sources, [one, two, two, None]);
    assert_eq!(socket.lengths(), [2 * WHOLE * PACKET, 40, WHOLE * PACKET, 40]);
}

#[tokio::test]
async fn what_waits_when_the_system_stops_to_cut_datagrams_stands_in_nobodys_way() {
    let (socket, joining) = joining();
    joining.try_send(&transmit(1, &[1; WHOLE * PACKET])).unwrap();
    socket.segments.store(1, Ordering::Relaxed);
    joining.try_send(&transmit(1, &[2; PACKET])).unwrap();
    joining.try_send(&transmit(1, &[3; PACKET])).unwrap();
    assert_eq!(socket.lengths(), [WHOLE * PACKET, PACKET, PACKET]);
}

#[tokio::test]
async fn two_shorter_packets_do_not_become_one_of_the_longer() {
    let (socket, joining) = joining();
    joining.try_send(&transmit(1, &[1; WHOLE * PACKET])).unwrap();
    joining.try_send(&Transmit { segment_size: Some(600), ..transmit(1, &[2; 1200]) }).unwrap();
    let packets: Vec<_> =
        socket.take().into_iter().map(|(_, contents, packet)| (contents.len(), packet)).collect();
    assert_eq!(packets, [(WHOLE * PACKET, PACKET), (1200, 600)]);
}

#[tokio::test]
async fn what_a_full_socket_was_to_send_waits_for_room_and_leaves_once() {
    let (socket, joining) = joining();
    socket.set_room(0);
    joining.try_send(&transmit(1, &[1; WHOLE * PACKET])).unwrap();
    joining.try_send(&transmit(1, &[2; 7])).unwrap();
    let refused = joining.try_send(&transmit(1, &[3; 7])).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    for _ in 0..10 {
        yield_now().await;
    }
    assert!(socket.lengths().is_empty());
    socket.set_room(usize::MAX);
    while joining.held().is_awaited {
        yield_now().await;
    }
    assert_eq!(socket.lengths(), [WHOLE * PACKET + 7]);
    joining.try_send(&transmit(1, &[3; 7])).unwrap();
    assert_eq!(socket.lengths(), [7]);
}

#[test]
fn without_a_runtime_nothing_waits() {
    let (socket, joining) = joining();
    joining.try_send(&transmit(1, &[1; WHOLE * PACKET])).unwrap();
    assert_eq!(socket.lengths(), [WHOLE * PACKET]);
}

/// The packets of a flow, as they are on the wire.
fn packets(sent: &[Sent], host: u8) -> Vec<Vec<u8>> {
    let batches = sent.iter().filter(|(destination, ..)| *destination == to(host));
    batches.flat_map(|(_, contents, packet)| contents.chunks(*packet).map(<[u8]>::to_vec)).collect()
}

proptest! {
    /// However batches of two flows come, and whenever there is room: each flow's packets leave as they were, in
    /// order, each once.
    #[test]
    fn the_packets_of_a_flow_leave_as_they_came(
        moves in prop::collection::vec((1..3u8, prop::bool::weighted(0.6), 1..12 * PACKET, 500..1452usize, 0..4usize), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (socket, joining) = joining();
        let mut expected = Vec::new();
        runtime.block_on(async {
            for (n, (host, is_whole, len, other, room)) in moves.into_iter().enumerate() {
                socket.set_room(room);
                let packet = if is_whole { PACKET } else { other };
                let len = if is_whole { WHOLE * packet } else { len.min(WHOLE * packet) };
                let contents: Vec<_> = (0..len).map(|at| (at / packet + n) as u8).collect();
                let segment_size = Some(packet).filter(|&packet| packet < len);
                if joining.try_send(&Transmit { segment_size, ..transmit(host, &contents) }).is_ok() {
                    expected.push((to(host), contents, packet));
                }
                if room == 3 {
                    yield_now().await;
                }
            }
            socket.set_room(usize::MAX);
            while joining.held().is_awaited {
                yield_now().await;
            }
        });
        let sent = socket.take();
        prop_assert!(sent.iter().all(|(_, contents, packet)| contents.len() <= MAX_BYTES.min(64 * packet)));
        for host in 1..3 {
            prop_assert_eq!(packets(&sent, host), packets(&expected, host));
        }
    }
}
