//! A local service at the sharer, and what a visitor does with it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use nat_sim::sim_net::SimNet;
use peer::Visit;
use peer::endpoint::VisitorStream;
use peer::forward::{Counters, forward};
use relay::net::{Listener, Net as _, Stream};
use ring::digest::{Context, SHA256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// The port of the service.
pub(crate) const PORT: u16 = 8000;

/// Longer than any stall that a test is about.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const CHUNK: usize = 16 * 1024;

/// Starts the service: whoever asks for `n` bytes (eight bytes, little-endian) gets them, and then the echo
/// of all that it says.
pub(crate) fn start(net: &Arc<SimNet>) {
    let listener = net.listen_tcp((Ipv4Addr::LOCALHOST, PORT).into()).unwrap();
    tokio::spawn(async move { serve(&*listener).await });
}

async fn serve(listener: &dyn Listener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream));
    }
}

async fn answer((mut read, mut write): Stream) -> std::io::Result<()> {
    let mut left = usize::try_from(read.read_u64_le().await?).unwrap();
    let mut bytes = Bytes::default();
    while left > 0 {
        let chunk = bytes.take(left.min(CHUNK));
        left -= chunk.len();
        write.write_all(&chunk).await?;
    }
    tokio::io::copy(&mut read, &mut write).await?;
    write.shutdown().await
}

/// Lets visitors in to the service.
pub(crate) fn welcome(net: Arc<SimNet>, mut visits: mpsc::Receiver<Visit>) {
    tokio::spawn(async move {
        while let Some(visit) = visits.recv().await {
            let net = Arc::clone(&net);
            tokio::spawn(async move {
                while let Some(stream) = visit.accept().await {
                    tokio::spawn(visitor(Arc::clone(&net), stream));
                }
            });
        }
    });
}

async fn visitor(net: Arc<SimNet>, mut stream: VisitorStream) {
    assert_eq!(stream.target().await, Some(0));
    let local = net.connect_tcp((Ipv4Addr::LOCALHOST, PORT).into()).await.unwrap();
    forward(local, stream.send, stream.recv, &Counters::default()).await;
}

/// Bytes that any mistake shows in, the same ones each time.
#[derive(Default)]
pub(crate) struct Bytes(u64);

impl Bytes {
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let words = count.div_ceil(8);
        let mut bytes: Vec<u8> = (0..words).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(count);
        bytes
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    }
}

/// The times between arrivals, each with that of the second one.
pub(crate) fn stalls(arrivals: &[Instant]) -> impl Iterator<Item = (Instant, Duration)> {
    arrivals.windows(2).map(|pair| (pair[1], pair[1] - pair[0]))
}

/// A visitor's stream to the service.
pub(crate) struct Visitor {
    send: quinn::SendStream,
    recv: quinn::RecvStream,
}

impl Visitor {
    /// Fetches `count` bytes over a stream of its own, compares their hash with that of the bytes that the
    /// service has, and returns how long it took.
    pub(crate) async fn fetch(connection: &peer::Connection, count: usize) -> Duration {
        let began = Instant::now();
        let mut visitor = Self::asking(connection, count).await;
        let (mut got, mut wanted, mut bytes) =
            (Context::new(&SHA256), Context::new(&SHA256), Bytes::default());
        let (mut buffer, mut left) = (vec![0; CHUNK], count);
        while left > 0 {
            let most = left.min(CHUNK);
            let read = timeout(PATIENCE, visitor.recv.read(&mut buffer[..most])).await;
            let read = read.expect("the transfer stalls").unwrap().expect("the transfer is cut short");
            got.update(&buffer[..read]);
            left -= read;
        }
        let took = began.elapsed();
        let mut left = count;
        while left > 0 {
            let chunk = bytes.take(left.min(CHUNK));
            left -= chunk.len();
            wanted.update(&chunk);
        }
        assert_eq!(got.finish().as_ref(), wanted.finish().as_ref());
        took
    }

    /// Fetches `count` bytes, and returns the longest time in which none came.
    pub(crate) async fn longest_stall(connection: &peer::Connection, count: usize) -> Duration {
        let arrivals = Self::arrivals(connection, count).await;
        stalls(&arrivals).map(|(_, stall)| stall).max().unwrap_or_default()
    }

    /// Fetches `count` bytes, and returns when some came, each time.
    pub(crate) async fn arrivals(connection: &peer::Connection, count: usize) -> Vec<Instant> {
        let mut visitor = Self::asking(connection, count).await;
        let (mut buffer, mut left, mut arrivals) = (vec![0; CHUNK], count, Vec::new());
        while left > 0 {
            let most = left.min(CHUNK);
            let read = timeout(PATIENCE, visitor.recv.read(&mut buffer[..most])).await;
            left -= read.expect("the transfer stalls").unwrap().expect("the transfer is cut short");
            arrivals.push(Instant::now());
        }
        arrivals
    }

    /// A stream on which the service echoes.
    pub(crate) async fn echo(connection: &peer::Connection) -> Self {
        Self::asking(connection, 0).await
    }

    async fn asking(connection: &peer::Connection, count: usize) -> Self {
        let (mut send, recv) = connection.open(0).await.unwrap();
        send.write_all(&u64::try_from(count).unwrap().to_le_bytes()).await.unwrap();
        Self { send, recv }
    }

    /// Says something and waits for the echo; returns how long that took.
    pub(crate) async fn round_trip(&mut self) -> Duration {
        let began = Instant::now();
        self.send.write_all(b"ping").await.unwrap();
        let mut echo = [0; 4];
        timeout(PATIENCE, self.recv.read_exact(&mut echo)).await.expect("no echo").unwrap();
        assert_eq!(&echo, b"ping");
        began.elapsed()
    }
}
