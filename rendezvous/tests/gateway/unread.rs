//! Visitors who do not read, all together.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use h2::client::{Builder, ResponseFuture, SendRequest};
use hyper::Request;
use hyper::body::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::https::{Secured, secured};
use crate::sharer::Sharer;
use crate::support::{PATIENCE, until};
use crate::tunnel::{Visit, ask, head, open, server};

/// Room for the waiting writes of two visitors over HTTP/2: one to the visitor, one within the process, each.
const BUDGET: u64 = 2 * 1024 * 1024;

/// What a visitor gets who reads: more than any window on the way.
const WHOLE: usize = 700_000;

/// What a sharer has sent to visitors who have read nothing, and whose exchanges go on.
#[derive(Default)]
struct Sent {
    bytes: AtomicUsize,
    visitors: AtomicUsize,
}

/// Answers `/flood` for as long as anybody takes it, and everything else once.
async fn answer(mut send: SendStream, mut recv: RecvStream, sent: Arc<Sent>) {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        let Ok(Some(chunk)) = recv.read_chunk(4096, true).await else { return };
        asked.extend_from_slice(&chunk.bytes);
    }
    if !asked.windows(12).any(|part| part == b" /flood HTTP") {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {WHOLE}\r\n\r\n{}", "x".repeat(WHOLE));
        return send.write_all(answer.as_bytes()).await.unwrap();
    }
    sent.visitors.fetch_add(1, Ordering::Relaxed);
    send.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let mut flood = 0;
    while let Ok(written) = send.write(&[b'x'; 4096]).await {
        sent.bytes.fetch_add(written, Ordering::Relaxed);
        flood += written;
    }
    sent.bytes.fetch_sub(flood, Ordering::Relaxed);
    sent.visitors.fetch_sub(1, Ordering::Relaxed);
}

async fn serve(connection: Connection, sent: Arc<Sent>) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        tokio::spawn(answer(send, recv, Arc::clone(&sent)));
    }
}

/// A connection whose streams get this much room.
async fn visitor(secured: &Secured, window: u32) -> SendRequest<Bytes> {
    let stream = secured.dial("example.test", &["h2"]).await;
    let (send, connection) = Builder::new().initial_window_size(window).handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send
}

async fn get(visitor: &mut SendRequest<Bytes>, path: &str) -> ResponseFuture {
    poll_fn(|cx| visitor.poll_ready(cx)).await.unwrap();
    let asked = Request::get(format!("https://nas.example.test{path}")).body(()).unwrap();
    visitor.send_request(asked, true).unwrap().0
}

async fn whole(visitor: &mut SendRequest<Bytes>) -> usize {
    let read = async {
        let mut body = get(visitor, "/").await.await.unwrap().into_body();
        let mut length = 0;
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            length += data.len();
        }
        length
    };
    tokio::time::timeout(PATIENCE, read).await.expect("it is not served")
}

#[tokio::test]
async fn visitors_who_do_not_read_have_no_more_held_than_the_budget_and_others_are_served() {
    let secured = secured(|limits| limits.unread_bytes = BUDGET);
    let mut sharer = Sharer::new(&secured.server).await;
    sharer.publish(&secured.server).await;
    let sent = Arc::new(Sent::default());
    tokio::spawn(serve(sharer.connection.clone(), Arc::clone(&sent)));
    let stats = || secured.server.stats().gateway;
    let mut silent = visitor(&secured, 0).await;
    let mut good = visitor(&secured, 65_535).await;
    let mut unread = Vec::new();
    for nth in 0..10 {
        unread.push(get(&mut silent, "/flood").await.await.unwrap().into_body());
        assert_eq!(whole(&mut good).await, WHOLE, "beside {nth} who do not read");
        assert!(stats().unread_bytes <= BUDGET, "{}", stats().unread_bytes);
    }
    until("those who were first are cut", || sent.visitors.load(Ordering::Relaxed) <= 4).await;
    // The visitor takes not a byte, and no socket of the system's has one: all of it is held.
    let held = sent.bytes.load(Ordering::Relaxed) as u64;
    assert!(held <= BUDGET, "{held}");
    assert!(stats().unread_cut >= 6, "{:?}", stats());
    assert_eq!(whole(&mut good).await, WHOLE);
    drop(unread);
    until("nothing is held", || stats().unread_bytes == 0).await;
}

/// Sends for as long as somebody reads, but for who asks for a page.
async fn endless(mut stream: TcpStream) {
    if head(&mut stream).await.starts_with("GET /page ") {
        return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    }
    let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
    while stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
}

#[tokio::test]
async fn over_http_1_too_those_are_cut_first_who_have_not_read_for_longest() {
    let server = server(|limits| limits.unread_bytes = BUDGET);
    let _tunnel = open(&server, "forwstest", 8, endless).await;
    let stats = || server.stats().gateway;
    let mut silent = Vec::new();
    for _ in 0..6 {
        let mut visit = Visit::new(&server).await;
        visit.send("GET / HTTP/1.1\r\nHost: forwstest.example.test\r\n\r\n").await;
        silent.push(visit);
    }
    until("two of them are cut", || stats().unread_cut == 2).await;
    assert_eq!(stats().unread_bytes, BUDGET);
    assert!(ask(&server, "forwstest", "GET /page").await.ends_with("\r\n\r\nok"));
    let mut first = silent.remove(0);
    let cut = tokio::time::timeout(PATIENCE, async {
        let mut rest = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut first.0, &mut rest).await
    });
    assert!(cut.await.expect("it goes on").is_err(), "it looks whole");
}
