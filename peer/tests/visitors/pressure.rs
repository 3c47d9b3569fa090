//! A reader that stops stops its writer, costs a bounded amount of memory, and concerns nobody else.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::support::origin::Origin;
use crate::support::visitor::{ask, noise};
use crate::support::{Pair, soon};

/// What is on its way at the most, in bytes: a stream's window of 4 MiB and the programs' own buffers, and
/// what the system keeps at each end of the two TCP connections.
fn on_the_way() -> u64 {
    let limit = |name: &str| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
        text.split_whitespace().last().unwrap().parse().unwrap()
    };
    (5 << 20) + 2 * (limit("tcp_rmem") + limit("tcp_wmem"))
}

/// By how much a program may grow while it holds that, in kB.
const GROWTH: u64 = 24 << 10;

/// Offers bytes without end, and says how many were taken.
async fn endless() -> (Origin, watch::Receiver<u64>) {
    let (taken, watched) = watch::channel(0);
    let origin = Origin::serving("127.0.0.1", move |stream| {
        let taken = taken.clone();
        async move { pour(stream, &taken).await }
    })
    .await;
    (origin, watched)
}

async fn pour(mut stream: TcpStream, taken: &watch::Sender<u64>) {
    let chunk = noise(5, 1 << 16);
    while let Ok(written) = stream.write(&chunk).await {
        taken.send_modify(|taken| *taken += written as u64);
    }
}

/// Waits until nothing more is taken, and gives how much was.
async fn stalled(taken: &mut watch::Receiver<u64>) -> u64 {
    soon("the writer is stopped", async {
        while let Ok(more) = tokio::time::timeout(Duration::from_millis(700), taken.changed()).await {
            more.unwrap();
        }
    })
    .await;
    *taken.borrow()
}

async fn take(stream: &mut TcpStream, mut length: usize) {
    let mut buffer = vec![0; 1 << 18];
    while length > 0 {
        let read = soon("more bytes", stream.read(&mut buffer)).await.unwrap();
        assert_ne!(read, 0, "it ended");
        length = length.saturating_sub(read);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_that_stops_reading_stops_the_server_and_nobody_else() {
    let ((endless, mut taken), echo) = (endless().await, Origin::echo().await);
    let pair = Pair::of(&[&endless.target(), &echo.target()]).await;
    let said = noise(6, 2 << 20);
    // Whatever a program needs for its first bytes, it has after them.
    assert!(ask(pair.at[1], &said).await.unwrap() == said);
    let before = (pair.share.memory(), pair.connect.memory());

    let mut slow = TcpStream::connect(pair.at[0]).await.unwrap();
    let first = stalled(&mut taken).await;
    assert!(first < on_the_way(), "{first} bytes went into nothing");
    let full = (pair.share.memory(), pair.connect.memory());
    assert!(full.0 < before.0 + GROWTH && full.1 < before.1 + GROWTH, "{before:?} → {full:?} kB");

    // Others are served as before.
    assert!(ask(pair.at[1], &said).await.unwrap() == said);
    assert_eq!(*taken.borrow(), first, "what is stopped stays so");

    // It reads on, and stops again: as much is on the way as before, in as much memory.
    take(&mut slow, 128 << 20).await;
    let second = stalled(&mut taken).await;
    assert!(second < (128 << 20) + on_the_way(), "{second}");
    let again = (pair.share.memory(), pair.connect.memory());
    assert!(again.0 < full.0 + GROWTH / 2 && again.1 < full.1 + GROWTH / 2, "{full:?} → {again:?} kB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_reading_stops_the_visitor() {
    let (sleeper, mut arrivals) = sleeping().await;
    let pair = Pair::of(&[&sleeper.target()]).await;
    let before = (pair.share.memory(), pair.connect.memory());
    let (taken, mut watched) = watch::channel(0);
    let stream = TcpStream::connect(pair.at[0]).await.unwrap();
    let pouring = tokio::spawn(async move { pour(stream, &taken).await });
    let _held = soon("the visitor arrives", arrivals.recv()).await.unwrap();
    let length = stalled(&mut watched).await;
    assert!(length < on_the_way(), "{length} bytes went into nothing");
    let full = (pair.share.memory(), pair.connect.memory());
    assert!(full.0 < before.0 + GROWTH && full.1 < before.1 + GROWTH, "{before:?} → {full:?} kB");
    pouring.abort();
}

/// Accepts, and never reads.
async fn sleeping() -> (Origin, tokio::sync::mpsc::Receiver<TcpStream>) {
    let (arrived, arrivals) = tokio::sync::mpsc::channel(8);
    let origin = Origin::serving("127.0.0.1", move |stream| {
        let arrived = arrived.clone();
        async move { arrived.send(stream).await.unwrap() }
    })
    .await;
    (origin, arrivals)
}
