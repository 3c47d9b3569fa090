use std::collections::VecDeque;
use std::net::IpAddr;

use proto::stun;
use quinn::udp::EcnCodepoint;

use super::*;

const CLIENT: &str = "198.51.100.7:4000";
const ASKED: &str = "203.0.113.9";

/// What came in one system call: bytes, the size of each datagram.
type Batch = (Vec<u8>, usize);

/// What went out: where to, from which address, what.
type Sent = (SocketAddr, Option<IpAddr>, Vec<u8>);

/// A link that receives what it is told to and remembers what was sent.
#[derive(Debug, Default)]
struct FakeLink {
    incoming: Mutex<VecDeque<Batch>>,
    sent: Mutex<Vec<Sent>>,
    full: bool,
}

impl AsyncUdpSocket for FakeLink {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        unreachable!("nobody waits in these tests")
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.full {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let sent = (transmit.destination, transmit.src_ip, transmit.contents.to_vec());
        self.sent.lock().unwrap().push(sent);
        Ok(())
    }

    fn poll_recv(
        &self,
        _cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let Some((bytes, stride)) = self.incoming.lock().unwrap().pop_front() else { return Poll::Pending };
        bufs[0][..bytes.len()].copy_from_slice(&bytes);
        meta[0] = RecvMeta {
            addr: CLIENT.parse().unwrap(),
            len: bytes.len(),
            stride,
            ecn: None::<EcnCodepoint>,
            dst_ip: Some(ASKED.parse().unwrap()),
        };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok("[::]:3478".parse().unwrap())
    }
}

impl Link for FakeLink {
    fn send_with_ttl(&self, _to: SocketAddr, _ttl: u8, _payload: &[u8]) -> io::Result<()> {
        unreachable!("a server primes nothing")
    }

    fn send_datagram(&self, _to: SocketAddr, _payload: &[u8]) -> io::Result<()> {
        unreachable!("answers name the address that they leave from")
    }
}

struct Bench {
    link: Arc<FakeLink>,
    socket: ServerSocket,
    counters: Arc<Counters>,
}

impl Bench {
    fn new(full: bool) -> Self {
        let link = Arc::new(FakeLink { full, ..FakeLink::default() });
        let bound = link.local_addr().unwrap();
        let counters = Arc::new(Counters::default());
        let main = (Arc::clone(&link) as Arc<dyn Link>, bound);
        let notary = Notary::new([0; 32], Instant::now().into_std());
        let doors = vec![Door::new(main.1)];
        let desk = Arc::new(Desk::new(true, &[&main], doors, notary, Arc::clone(&counters)));
        let socket = ServerSocket::new(main.0, None, bound, desk);
        Self { link, socket, counters }
    }

    /// What quinn gets of a batch.
    fn receive(&self, bytes: &[u8], stride: usize) -> Vec<u8> {
        self.link.incoming.lock().unwrap().push_back((bytes.to_vec(), stride));
        let mut buffer = vec![0; 65_536];
        let mut metas = [RecvMeta::default()];
        let mut context = Context::from_waker(std::task::Waker::noop());
        let received = self
            .socket
            .poll_recv(&mut context, &mut [IoSliceMut::new(&mut buffer)], &mut metas)
            .map(Result::unwrap);
        assert_eq!(received, Poll::Ready(1));
        buffer[..metas[0].len].to_vec()
    }

    fn sent(&self) -> Vec<Vec<u8>> {
        self.link.sent.lock().unwrap().iter().map(|(_, _, bytes)| bytes.clone()).collect()
    }
}

fn quic(len: usize) -> Vec<u8> {
    vec![0x40; len]
}

#[tokio::test]
async fn an_echo_behind_quic_packets_in_one_batch_is_answered_and_they_go_on() {
    let bench = Bench::new(false);
    let batch = [quic(60), b"echo".to_vec()].concat();
    assert_eq!(bench.receive(&batch, 30), quic(60));
    let echoes: Vec<String> =
        bench.sent().iter().map(|sent| String::from_utf8_lossy(sent).into_owned()).collect();
    assert_eq!(echoes, [r#"{"address":"198.51.100.7","family":"IPv4","port":4000,"size":4}"#]);
}

#[tokio::test]
async fn a_batch_of_echoes_is_answered_one_by_one_as_far_as_the_rate_allows() {
    let bench = Bench::new(false);
    assert_eq!(bench.receive(&b"echo".repeat(9), 4), b"");
    assert_eq!(bench.sent().len(), 5);
}

#[tokio::test]
async fn what_is_not_exactly_echo_is_no_echo() {
    let bench = Bench::new(false);
    assert_eq!(bench.receive(b"echo echo", 9), b"echo echo", "quinn will drop it");
    assert_eq!(bench.receive(b"ECHO", 4), b"");
    assert_eq!(bench.receive(b"echoecho", 8), b"echoecho");
    assert!(bench.sent().is_empty());
}

#[tokio::test]
async fn stun_between_quic_packets_is_answered_from_the_address_that_was_asked() {
    let bench = Bench::new(false);
    let request = stun::binding_request([7; 12]);
    let batch = [quic(20), request, quic(20)].concat();
    assert_eq!(bench.receive(&batch, 20), quic(40));
    let sent = bench.link.sent.lock().unwrap();
    let [(to, from, answer)] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!((to.to_string(), *from), (CLIENT.to_owned(), ASKED.parse().ok()));
    assert_eq!(stun::mapped_address(answer, [7; 12]), CLIENT.parse().ok());
    // RESPONSE-ORIGIN (RFC 5780 §7.3): IPv4, our port, our address.
    let origin = [0x80, 0x2b, 0, 8, 0, 1, 0x0d, 0x96, 203, 0, 113, 9];
    assert!(answer.windows(origin.len()).any(|window| window == origin), "{answer:02x?}");
}

#[tokio::test]
async fn an_answer_that_finds_no_room_is_dropped_and_counted() {
    let bench = Bench::new(true);
    assert_eq!(bench.receive(b"echo", 4), b"");
    assert_eq!(bench.counters.udp_dropped.get(), 1);
}

#[test]
fn a_buffer_that_belies_its_meta_is_left_alone() {
    for (len, stride) in [(9, 4), (8, 0), (0, 0)] {
        let mut meta = RecvMeta { len, stride, ..RecvMeta::default() };
        take_echoes(&[0; 8], &mut meta, |_| panic!("nothing to take"));
        assert_eq!(meta.len, len);
    }
}

#[test]
fn the_origin_is_known_only_where_the_address_is() {
    let origin = |bound: &str, asked: Option<&str>| {
        Origin { bound: bound.parse().unwrap(), asked: asked.map(|ip| ip.parse().unwrap()) }.addr()
    };
    assert_eq!(origin("[::]:1", None), None);
    assert_eq!(origin("[::]:1", Some("192.0.2.1")), "192.0.2.1:1".parse().ok());
    assert_eq!(origin("192.0.2.2:1", None), "192.0.2.2:1".parse().ok());
}
