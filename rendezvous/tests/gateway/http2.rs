//! Visitors who speak HTTP/2.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};

use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request, Response};
use relay::gateway::GatewayLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::https::{Secured, secured};
use crate::support::{PATIENCE, until};
use crate::tunnel::{SHORT, Tunnel, head, mirror, open};

const HOST: &str = "forwstest.example.test";

/// A visitor's connection.
pub(crate) struct Visitor {
    pub(crate) send: SendRequest<Bytes>,
    /// How it ends.
    ended: JoinHandle<Result<(), h2::Error>>,
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it does not happen")
}

pub(crate) async fn visitor(secured: &Secured) -> Visitor {
    let stream = secured.dial("example.test", &["h2"]).await;
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    Visitor { send, ended: tokio::spawn(connection) }
}

fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("https://{HOST}{path}")).body(()).unwrap()
}

impl Visitor {
    pub(crate) async fn get(&mut self, path: &str) -> (Response<RecvStream>, String) {
        let answer = self.ask(request("GET", path)).await;
        let (head, mut body) = soon(answer).await.unwrap().into_parts();
        let text = text(&mut body).await;
        (Response::from_parts(head, body), text)
    }

    async fn ask(&mut self, request: Request<()>) -> ResponseFuture {
        poll_fn(|cx| self.send.poll_ready(cx)).await.unwrap();
        self.send.send_request(request, true).unwrap().0
    }
}

pub(crate) async fn text(body: &mut RecvStream) -> String {
    let mut all = Vec::new();
    while let Some(data) = soon(body.data()).await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    String::from_utf8(all).unwrap()
}

/// A server, and a local server behind `forwstest` that answers so.
pub(crate) async fn serve<F>(
    change: impl FnOnce(&mut GatewayLimits),
    answer: fn(TcpStream) -> F,
) -> (Secured, Tunnel)
where
    F: Future<Output = ()> + Send + 'static,
{
    let secured = secured(change);
    let tunnel = open(&secured.server, "forwstest", 8, answer).await;
    (secured, tunnel)
}

#[tokio::test]
async fn a_request_reaches_the_local_server_as_http_1_and_the_answer_comes_back_as_http_2() {
    let (secured, _tunnel) = serve(|_| (), mirror).await;
    let mut visitor = visitor(&secured).await;
    let asked =
        Request::builder().uri(format!("https://{HOST}/a?b")).header("cookie", "a=b").header("cookie", "c=d");
    let answer = visitor.ask(asked.header("te", "trailers").body(()).unwrap()).await;
    let mut answer = soon(answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(
        !answer.headers().contains_key("connection") && !answer.headers().contains_key("transfer-encoding")
    );
    let head = text(answer.body_mut()).await;
    assert_eq!(answer.headers()["content-length"], head.len().to_string());
    assert!(head.starts_with(&format!("GET /a?b HTTP/1.1\r\nHost: {HOST}\r\n")), "{head}");
    for line in ["cookie: a=b; c=d", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: https", "TE: trailers"]
    {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
    assert!(!head.contains("Transfer-Encoding") && !head.contains("Content-Length"), "{head}");
    // And many at the same time on the same connection.
    let mut answers = Vec::new();
    for number in 0..40 {
        answers.push(visitor.ask(request("GET", &format!("/{number}"))).await);
    }
    for (number, answer) in answers.into_iter().enumerate() {
        let head = text(soon(answer).await.unwrap().body_mut()).await;
        assert!(head.starts_with(&format!("GET /{number} HTTP/1.1\r\n")), "{head}");
    }
}

/// Says hello as soon as it is asked, and then what it is told, with a trailer behind it.
async fn echo(mut stream: TcpStream) {
    let asked = head(&mut stream).await;
    assert!(asked.contains("\r\nTransfer-Encoding: chunked\r\n"), "{asked}");
    let hello = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTrailer: x-sum\r\n\
                 Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    stream.write_all(hello.as_bytes()).await.unwrap();
    let mut came = Vec::new();
    while !came.ends_with(b"0\r\nx-asked: 1\r\n\r\n") {
        let at = came.len();
        if stream.read_buf(&mut came).await.unwrap_or(0) == 0 {
            return;
        }
        let piece = &came[at..];
        let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
        stream.write_all(&chunk).await.unwrap();
    }
    stream.write_all(b"0\r\nX-Sum: 7\r\n\r\n").await.unwrap();
}

#[tokio::test]
async fn bodies_hints_and_trailers_pass_both_ways_as_they_come() {
    let (secured, _tunnel) = serve(|_| (), echo).await;
    let mut visitor = visitor(&secured).await;
    let (mut answer, mut body) = visitor.send.send_request(request("POST", "/"), false).unwrap();
    let hint = soon(poll_fn(|cx| answer.poll_informational(cx))).await.unwrap().unwrap();
    assert_eq!((hint.status().as_u16(), hint.headers()["link"].as_bytes()), (103, &b"</a>"[..]));
    let mut answer = soon(answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut came = Vec::new();
    let answer_body = answer.body_mut();
    let mut more = async |came: &mut Vec<u8>, until: &[u8]| {
        while !came.ends_with(until) {
            let data = soon(answer_body.data()).await.unwrap().unwrap();
            came.extend_from_slice(&data);
        }
    };
    // The answer has begun before there is any of the request's body, and each piece comes back by itself.
    more(&mut came, b"hello").await;
    for piece in ["one", "two"] {
        body.send_data(Bytes::from(piece), false).unwrap();
        more(&mut came, format!("3\r\n{piece}\r\n").as_bytes()).await;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-asked", "1".parse().unwrap());
    body.send_trailers(trailers).unwrap();
    more(&mut came, b"0\r\nx-asked: 1\r\n\r\n").await;
    assert!(soon(answer.body_mut().data()).await.is_none());
    let trailers = soon(answer.body_mut().trailers()).await.unwrap().unwrap();
    assert_eq!(trailers["x-sum"], "7");
}

#[tokio::test]
async fn a_whole_upload_is_the_same_at_the_other_end() {
    async fn count(mut stream: TcpStream) {
        let asked = head(&mut stream).await;
        let length: usize =
            asked.split("Content-Length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
        let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{length} {sum}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
    let (secured, _tunnel) = serve(|_| (), count).await;
    let mut visitor = visitor(&secured).await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let sum: u64 = sent.iter().map(|byte| u64::from(*byte)).sum();
    let mut asked = request("POST", "/");
    asked.headers_mut().insert("content-length", sent.len().into());
    let (answer, mut body) = visitor.send.send_request(asked, false).unwrap();
    let mut rest = Bytes::from(sent);
    while !rest.is_empty() {
        body.reserve_capacity(rest.len());
        let room = soon(poll_fn(|cx| body.poll_capacity(cx))).await.unwrap().unwrap();
        body.send_data(rest.split_to(room.min(rest.len())), rest.is_empty()).unwrap();
    }
    let mut answer = soon(answer).await.unwrap();
    assert_eq!(text(answer.body_mut()).await, format!("3000000 {sum}"));
}

/// Reads what it is sent, but for what goes to `/dead`.
async fn reads_all_but_the_dead(mut stream: TcpStream) {
    let asked = head(&mut stream).await;
    if asked.starts_with("POST /dead") {
        return std::future::pending().await;
    }
    let mut body = vec![0; 1 << 20];
    stream.read_exact(&mut body).await.unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole").await.unwrap();
}

#[tokio::test]
async fn uploads_that_nobody_reads_leave_the_others_of_their_connection_their_room() {
    let (secured, _tunnel) = serve(|_| (), reads_all_but_the_dead).await;
    let mut visitor = visitor(&secured).await;
    let piece = Bytes::from(vec![7; 1 << 20]);
    let mut dead = Vec::new();
    for _ in 0..6 {
        poll_fn(|cx| visitor.send.poll_ready(cx)).await.unwrap();
        let (answer, mut upload) = visitor.send.send_request(request("POST", "/dead"), false).unwrap();
        // More than the sockets on the way hold.
        (0..16).for_each(|_| upload.send_data(piece.clone(), false).unwrap());
        dead.push((answer, upload));
    }
    // So many that the dead ones have long been given all that they get.
    for _ in 0..60 {
        let asked = Request::builder().method("POST").uri(format!("https://{HOST}/"));
        let asked = asked.header("content-length", 1 << 20).body(()).unwrap();
        poll_fn(|cx| visitor.send.poll_ready(cx)).await.unwrap();
        let (answer, mut upload) = visitor.send.send_request(asked, false).unwrap();
        upload.send_data(piece.clone(), true).unwrap();
        let mut answer = soon(answer).await.unwrap();
        assert_eq!(text(answer.body_mut()).await, "whole");
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_is_given_up_at_the_local_server() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    static HUNG_UP: AtomicUsize = AtomicUsize::new(0);
    async fn wait(mut stream: TcpStream) {
        if !head(&mut stream).await.is_empty() {
            ASKED.fetch_add(1, Ordering::Relaxed);
            // Nothing is said until the gateway hangs up.
            let _gone = stream.read_u8().await;
            HUNG_UP.fetch_add(1, Ordering::Relaxed);
        }
    }
    let (secured, _tunnel) = serve(|_| (), wait).await;
    let mut visitor = visitor(&secured).await;
    let (answer, mut body) = visitor.send.send_request(request("POST", "/"), false).unwrap();
    until("it is asked", || ASKED.load(Ordering::Relaxed) == 1).await;
    body.send_reset(Reason::CANCEL);
    drop(answer);
    until("it hears of it", || HUNG_UP.load(Ordering::Relaxed) == 1).await;
    until("the stream's place is free", || secured.server.stats().gateway.visitors == 1).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    async fn cut(mut stream: TcpStream) {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await.unwrap();
    }
    let (secured, _tunnel) = serve(|_| (), cut).await;
    let mut visitor = visitor(&secured).await;
    let answer = visitor.ask(request("GET", "/")).await;
    // What came of it may be lost with the rest, but for the fact that there was more.
    let error = match soon(answer).await {
        Ok(mut answer) => loop {
            match soon(answer.body_mut().data()).await.expect("it looks whole") {
                Ok(data) => assert!(b"half".starts_with(&data)),
                Err(error) => break error,
            }
        },
        Err(error) => error,
    };
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
}

#[tokio::test]
async fn failures_and_the_servers_own_pages_are_answered_over_http_2_too() {
    async fn garbage(mut stream: TcpStream) {
        head(&mut stream).await;
        let _gone = stream.write_all(b"SSH-2.0-x\r\n").await;
    }
    let (secured, _tunnel) = serve(|_| (), garbage).await;
    let mut visitor = visitor(&secured).await;
    let (answer, page) = visitor.get("/").await;
    assert_eq!(answer.status(), 502);
    assert!(page.contains("not HTTP"), "{page}");
    for (host, path, status, text) in [
        ("nobody.example.test", "/", 404, "Nothing is shared"),
        ("example.test", "/", 200, "Culvert"),
        ("example.test", "/.well-known/culvert", 200, "\"peer_id\""),
        ("example.test", "/api/status", 200, "\"tunnels\":1"),
        ("example.test", "/relay", 426, "WebSocket"),
    ] {
        let asked = Request::get(format!("https://{host}{path}")).body(()).unwrap();
        let answer = visitor.ask(asked).await;
        let mut answer = soon(answer).await.unwrap();
        assert_eq!(answer.status(), status, "{host}{path}");
        let page = self::text(answer.body_mut()).await;
        assert!(page.contains(text), "{host}{path}: {page}");
    }
    // A head that says two things is none.
    for (name, value, status) in
        [("host", "other.example.test", 400), ("content_length", "5", 400), ("expect", "x", 417)]
    {
        let mut asked = request("GET", "/");
        asked.headers_mut().insert(name, value.parse().unwrap());
        let answer = visitor.ask(asked).await;
        assert_eq!(soon(answer).await.unwrap().status(), status, "{name}: {value}");
    }
    assert_eq!(secured.server.stats().gateway.bad_heads, 3);
    let noted = |status: &str| {
        let line = |line: &&str| line.contains(" http=2 ") && line.contains(&format!(" status={status} "));
        secured.logged().lines().filter(line).count()
    };
    until("each of them is in the access log", || [noted("400"), noted("417")] == [2, 1]).await;
}

#[tokio::test]
async fn who_does_not_read_one_answer_still_gets_the_others_and_holds_little() {
    async fn flood(mut stream: TcpStream) {
        if head(&mut stream).await.starts_with("GET /small ") {
            return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
        let _cut = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
    }
    let (secured, _tunnel) = serve(|_| (), flood).await;
    let stream = secured.dial("example.test", &["h2"]).await;
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(1024 * 1024);
    let (send, connection) = builder.handshake(stream).await.unwrap();
    let mut visitor = Visitor { send, ended: tokio::spawn(connection) };
    let answer = visitor.ask(request("GET", "/flood")).await;
    let unread = soon(answer).await.unwrap();
    for _ in 0..3 {
        assert_eq!(visitor.get("/small").await.1, "ok");
    }
    drop(unread);
    until("the flood has ended", || secured.server.stats().gateway.visitors == 1).await;
    let sent = secured.server.stats().gateway.bytes_out;
    assert!(sent < 1024 * 1024, "{sent} bytes were on their way to somebody who read none");
}

#[tokio::test]
async fn who_opens_requests_only_to_give_them_up_is_closed() {
    let (secured, _tunnel) = serve(|_| (), mirror).await;
    let mut visitor = visitor(&secured).await;
    let flood = async {
        for _ in 0..5_000 {
            if poll_fn(|cx| visitor.send.poll_ready(cx)).await.is_err() {
                return;
            }
            let Ok((answer, mut body)) = visitor.send.send_request(request("POST", "/"), false) else {
                return;
            };
            body.send_reset(Reason::CANCEL);
            drop(answer);
            tokio::task::yield_now().await;
        }
        panic!("5000 requests were given up");
    };
    soon(flood).await;
    until("it is counted", || secured.server.stats().gateway.resets == 1).await;
    until("nothing is left of it", || secured.server.stats().gateway.visitors == 0).await;
}

#[tokio::test]
async fn each_stream_takes_a_place_and_there_are_128_at_the_most() {
    async fn never(mut stream: TcpStream) {
        head(&mut stream).await;
        let _gone = stream.read_u8().await;
    }
    let (secured, _tunnel) = serve(|limits| limits.connections_each = 3, never).await;
    let mut visitor = visitor(&secured).await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        waiting.push(visitor.ask(request("GET", "/")).await);
    }
    until("they have their places", || secured.server.stats().gateway.visitors == 3).await;
    let answer = visitor.ask(request("GET", "/")).await;
    let answer = soon(answer).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().contains_key("retry-after")), (429, true));
    assert_eq!(visitor.send.current_max_send_streams(), 128);
}

#[tokio::test]
async fn an_idle_connection_is_asked_to_leave_and_a_slow_one_closed() {
    let (secured, _tunnel) = serve(|limits| (limits.head, limits.idle) = (SHORT * 3, SHORT), mirror).await;
    let mut visitor = visitor(&secured).await;
    visitor.get("/").await;
    soon(visitor.ended).await.unwrap().unwrap();
    // And one that says nothing after the handshake of TLS.
    let mut silent = secured.dial("example.test", &["h2"]).await;
    let mut rest = Vec::new();
    let _end = soon(silent.read_to_end(&mut rest)).await;
    until("no place is taken", || secured.server.stats().gateway.visitors == 0).await;
}

#[tokio::test]
async fn a_server_that_stops_finishes_what_it_answers() {
    static TOLD: Notify = Notify::const_new();
    async fn slow(mut stream: TcpStream) {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe").await.unwrap();
        TOLD.notified().await;
        stream.write_all(b"llo").await.unwrap();
    }
    let (secured, _tunnel) = serve(|_| (), slow).await;
    let mut visitor = visitor(&secured).await;
    let answer = visitor.ask(request("GET", "/")).await;
    let mut answer = soon(answer).await.unwrap();
    let told = async {
        // GOAWAY: no further requests, while this one has an answer yet to come.
        while poll_fn(|cx| visitor.send.poll_ready(cx)).await.is_ok() {
            tokio::task::yield_now().await;
        }
        TOLD.notify_one();
    };
    let (_, (), whole) = tokio::join!(secured.server.shutdown(), soon(told), text(answer.body_mut()));
    assert_eq!(whole, "hello");
}
