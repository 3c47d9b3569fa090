//! WebSockets of visitors who speak HTTP/2 (RFC 8441).

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{SinkExt as _, StreamExt as _};
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use hyper::body::Bytes;
use hyper::{Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::handshake::server::{Request as Asked, Response as Agreed};

use crate::http2::{Visitor, serve, soon, text, visitor};
use crate::support::until;
use crate::tunnel::head;

/// The request for a stream of bytes on the share's `path`.
fn asks(protocol: &'static str, path: &str) -> Request<()> {
    let asked = Request::builder().method("CONNECT").uri(format!("https://forwstest.example.test{path}"));
    let asked = asked.extension(Protocol::from_static(protocol)).header("sec-websocket-version", "13");
    asked.header("sec-websocket-protocol", "chat").body(()).unwrap()
}

impl Visitor {
    /// Asks so, and says something right behind it.
    async fn connect(
        &mut self,
        asked: Request<()>,
        early: &[u8],
    ) -> (Response<RecvStream>, SendStream<Bytes>) {
        // The server's settings are here with its first answer.
        self.get("/").await;
        assert!(self.send.is_extended_connect_protocol_enabled());
        let (answer, mut say) = self.send.send_request(asked, false).unwrap();
        say.send_data(Bytes::copy_from_slice(early), false).unwrap();
        (soon(answer).await.unwrap(), say)
    }
}

/// The frame of a short text, masked with zeros where it is a visitor's (RFC 6455 §5.2).
fn frame(text: &str, masked: bool) -> Vec<u8> {
    let length = text.len() as u8;
    let start: &[u8] = if masked { &[0x81, 0x80 | length, 0, 0, 0, 0] } else { &[0x81, length] };
    [start, text.as_bytes()].concat()
}

/// Reads so many bytes.
async fn read(body: &mut RecvStream, length: usize) -> Vec<u8> {
    let mut came = Vec::new();
    while came.len() < length {
        let data = soon(body.data()).await.expect("it ended").unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        came.extend_from_slice(&data);
    }
    came
}

/// The first request of each connection in this file is a page.
async fn page(stream: &mut TcpStream) -> bool {
    let mut first = [0; 6];
    let is_page = matches!(stream.peek(&mut first).await, Ok(6)) && &first == b"GET / ";
    if is_page {
        head(stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    }
    is_page
}

/// A real server of WebSockets that speaks first, and then says what it hears.
#[allow(clippy::result_large_err, reason = "the library's form")]
async fn echo(mut stream: TcpStream) {
    if page(&mut stream).await {
        return;
    }
    let checked = |asked: &Asked, mut agreed: Agreed| {
        assert_eq!((asked.method().as_str(), asked.uri().path()), ("GET", "/chat"));
        assert_eq!(asked.headers()["x-forwarded-proto"], "https");
        agreed.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
        Ok(agreed)
    };
    let Ok(mut socket) = accept_hdr_async(stream, checked).await else { return };
    socket.send(Message::text("welcome")).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() {
            socket.send(message).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_websocket_passes_and_what_is_said_right_behind_the_handshake_is_not_lost() {
    let (secured, _tunnel) = serve(|_| (), echo).await;
    let mut visitor = visitor(&secured).await;
    let (mut answer, mut say) = visitor.connect(asks("websocket", "/chat"), &frame("early", true)).await;
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["sec-websocket-protocol"].as_bytes()),
        (200, &b"chat"[..])
    );
    for name in ["sec-websocket-accept", "upgrade", "connection", "content-length"] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
    let heard = [frame("welcome", false), frame("early", false)].concat();
    assert_eq!(read(answer.body_mut(), heard.len()).await, heard);
    for text in ["one", "two"] {
        say.send_data(frame(text, true).into(), false).unwrap();
        let heard = frame(text, false);
        assert_eq!(read(answer.body_mut(), heard.len()).await, heard);
    }
    // Others use the connection meanwhile, and the goodbye of RFC 6455 comes back before the end.
    assert_eq!(visitor.get("/").await.0.status(), 200);
    say.send_data(Bytes::from_static(&[0x88, 0x80, 0, 0, 0, 0]), true).unwrap();
    assert_eq!(read(answer.body_mut(), 2).await, [0x88, 0]);
    assert_eq!(text(answer.body_mut()).await, "");
    until("it is in the access log", || {
        let logged = secured.logged();
        logged.lines().any(|line| line.contains(" http=2 ") && line.contains(" status=101 "))
    })
    .await;
    assert_eq!(secured.server.stats().gateway.upgraded, 1);
    until("its place is free", || secured.server.stats().gateway.visitors == 1).await;
}

/// Agrees to any handshake, as the bytes say.
async fn agree(stream: &mut TcpStream) {
    let asked = head(stream).await;
    let key = asked.split("\r\nSec-WebSocket-Key: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    let accept = derive_accept_key(key.as_bytes());
    let agreed = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(agreed.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    async fn listen_then_speak(mut stream: TcpStream) {
        if page(&mut stream).await {
            return;
        }
        agree(&mut stream).await;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        stream.write_all(&heard).await.unwrap();
    }
    async fn speak_then_listen(mut stream: TcpStream) {
        if page(&mut stream).await {
            return;
        }
        agree(&mut stream).await;
        stream.write_all(b"all of it").await.unwrap();
        stream.shutdown().await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        HEARD.fetch_add(1, Ordering::Relaxed);
    }
    static HEARD: AtomicUsize = AtomicUsize::new(0);
    let (secured, _tunnel) = serve(|_| (), listen_then_speak).await;
    let mut first = visitor(&secured).await;
    let (mut answer, mut say) = first.connect(asks("websocket", "/chat"), b"all ").await;
    say.send_data(Bytes::from_static(b"of it"), true).unwrap();
    assert_eq!(text(answer.body_mut()).await, "all of it");

    let (secured, _tunnel) = serve(|_| (), speak_then_listen).await;
    let mut second = visitor(&secured).await;
    let (mut answer, mut say) = second.connect(asks("websocket", "/chat"), b"").await;
    assert_eq!(text(answer.body_mut()).await, "all of it");
    assert_eq!(HEARD.load(Ordering::Relaxed), 0);
    say.send_data(Bytes::from_static(b"goodbye"), true).unwrap();
    until("the other end has heard the end", || HEARD.load(Ordering::Relaxed) == 1).await;
}

#[tokio::test]
async fn whichever_side_breaks_off_the_other_one_sees_it() {
    static BROKEN: AtomicUsize = AtomicUsize::new(0);
    async fn until_it_breaks(mut stream: TcpStream) {
        if page(&mut stream).await {
            return;
        }
        agree(&mut stream).await;
        if stream.read_u8().await.unwrap() == b'x' {
            // Closed over what was not read, it is reset.
            stream.readable().await.unwrap();
            return;
        }
        let ended = stream.read_to_end(&mut Vec::new()).await;
        BROKEN.fetch_add(usize::from(ended.is_err()), Ordering::Relaxed);
    }
    let (secured, _tunnel) = serve(|_| (), until_it_breaks).await;
    let mut visitor = visitor(&secured).await;
    let (_answer, mut say) = visitor.connect(asks("websocket", "/chat"), b"a").await;
    say.send_reset(Reason::CANCEL);
    until("the local server sees it", || BROKEN.load(Ordering::Relaxed) == 1).await;
    let (mut answer, _say) = visitor.connect(asks("websocket", "/chat"), b"xyz").await;
    let broken = soon(answer.body_mut().data()).await.expect("it looks whole").unwrap_err();
    assert_eq!(broken.reason(), Some(Reason::CANCEL));
}

#[tokio::test]
async fn what_is_no_websocket_is_none_and_what_was_said_to_it_is_no_request() {
    static REQUESTS: AtomicUsize = AtomicUsize::new(0);
    async fn decline(mut stream: TcpStream) {
        let asked = head(&mut stream).await;
        REQUESTS.fetch_add(1, Ordering::Relaxed);
        let path = asked.split(' ').nth(1).unwrap_or_default();
        let answer = match path {
            "/forbidden" => "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
            "/page" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "/unread" => {
                "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n"
            }
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        };
        let _gone = stream.write_all(answer.as_bytes()).await;
    }
    let (secured, _tunnel) = serve(|_| (), decline).await;
    let mut visitor = visitor(&secured).await;
    let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: forwstest.example.test\r\n\r\n";
    for (path, status, text) in
        [("/forbidden", 403, "no"), ("/page", 502, "no WebSocket"), ("/unread", 502, "no WebSocket")]
    {
        let before = REQUESTS.load(Ordering::Relaxed);
        let (mut answer, _say) = visitor.connect(asks("websocket", path), smuggled).await;
        assert_eq!(answer.status(), status, "{path}");
        let page = self::text(answer.body_mut()).await;
        assert!(page.contains(text), "{path}: {page}");
        // And the page that each visit begins with.
        assert_eq!(REQUESTS.load(Ordering::Relaxed), before + 2, "{path}");
    }
    let refused = |asked| async { visitor_asks(&secured, asked).await };
    assert_eq!(refused(asks("connect-udp", "/")).await, 501);
    let mut with_body = asks("websocket", "/");
    with_body.headers_mut().insert("content-length", 5.into());
    assert_eq!(refused(with_body).await, 400);
    let plain = Request::builder().method("CONNECT").uri("forwstest.example.test:443").body(()).unwrap();
    assert_eq!(refused(plain).await, 405);
}

async fn visitor_asks(secured: &crate::https::Secured, asked: Request<()>) -> u16 {
    let mut visitor = visitor(secured).await;
    visitor.get("/").await;
    poll_fn(|cx| visitor.send.poll_ready(cx)).await.unwrap();
    let (answer, _say) = visitor.send.send_request(asked, false).unwrap();
    soon(answer).await.unwrap().status().as_u16()
}
