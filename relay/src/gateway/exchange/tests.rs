use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::time::Duration;

use super::*;
use crate::gateway::stayed::Stayed;
use crate::http::Asker;

/// The way to one end of a pipe; or to nobody, where every write fails.
struct Way(Option<tokio::io::WriteHalf<DuplexStream>>);

impl AsyncWrite for Way {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match &mut self.0 {
            Some(way) => Pin::new(way).poll_write(cx, bytes),
            None => Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Outgoing for Way {
    fn abort(self: Box<Self>) {}
}

type Incoming = Box<dyn AsyncRead + Send + Unpin>;

/// A pipe: one end of it as a stream, and the other as it is.
fn pipe() -> (Incoming, Way, DuplexStream) {
    let (near, far) = tokio::io::duplex(1024 * 1024);
    let (read, write) = tokio::io::split(near);
    (Box::new(read), Way(Some(write)), far)
}

const REQUEST: &str = "POST / HTTP/1.1\r\nHost: nas.example.test\r\nContent-Length: 4\r\n\r\n";

/// For limits that a test waits for, and for what never comes.
const SHORT: Duration = Duration::from_millis(60);
const PATIENCE: Duration = Duration::from_secs(20);

/// Carries an exchange whose request's head has been read, between these. How it ended.
async fn exchanged(visitor: (Incoming, Way), server: (Incoming, Way)) -> Result<(u16, Ended), Failed> {
    let asker = Asker { from: ([192, 0, 2, 1], 1).into(), tls: false };
    let mut visitor = Visitor {
        inbox: Inbox::new(visitor.0),
        write: Box::new(visitor.1),
        asker,
        http: "1.1",
        stayed: Stayed::in_turn(),
    };
    let request = RequestHead::parse(REQUEST.as_bytes()).unwrap();
    let visit = Visit::new(asker.from.ip(), asker.tls, &request, &[]);
    let limits = GatewayLimits { answer: SHORT, body: SHORT, ..GatewayLimits::default() };
    let mut bytes = (0, 0);
    let mut exchange = Exchange {
        request: &request,
        visit: &visit,
        limits: &limits,
        domain: "example.test",
        keep: false,
        bytes: &mut bytes,
    };
    let (inbox, write) = (Inbox::new(server.0), Box::new(server.1));
    let (before, rewrite) = (Vec::new(), Arc::default());
    let upstream =
        Upstream { inbox, write, before, rewrite, lent: None, has_stayed: false, hold: Box::new(()) };
    let ended = tokio::time::timeout(PATIENCE, exchange.run(&mut visitor, upstream)).await;
    ended.expect("it never ends").map(|exchanged| (exchanged.status, exchanged.ended))
}

#[tokio::test]
async fn a_server_that_reads_nothing_and_says_nothing_is_given_up_like_any_slow_one() {
    let (visitor_read, visitor_write, mut visitor) = pipe();
    let (server_read, _write, _server) = pipe();
    visitor.write_all(b"body").await.unwrap();
    let ended = exchanged((visitor_read, visitor_write), (server_read, Way(None))).await;
    assert_eq!(ended, Err(Failed::Slow));
}

#[tokio::test]
async fn a_server_that_reads_no_more_may_still_say_why() {
    let (visitor_read, visitor_write, mut visitor) = pipe();
    let (server_read, _write, mut server) = pipe();
    visitor.write_all(b"body").await.unwrap();
    server.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let ended = exchanged((visitor_read, visitor_write), (server_read, Way(None))).await;
    // Whatever there is of the body, it is no next request.
    assert_eq!(ended, Ok((413, Ended::Whole { keep_alive: false })));
}

#[tokio::test]
async fn a_visitor_that_leaves_behind_many_early_requests_is_missed() {
    let (visitor_read, visitor_write, mut visitor) = pipe();
    let (server_read, server_write, mut server) = pipe();
    server.write_all(b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n").await.unwrap();
    visitor.write_all(b"body").await.unwrap();
    // More than is read before its turn: what is behind that, be it the end, nobody reads.
    visitor.write_all(REQUEST.repeat(2000).as_bytes()).await.unwrap();
    visitor.shutdown().await.unwrap();
    let ended = exchanged((visitor_read, visitor_write), (server_read, server_write)).await;
    assert_eq!(ended, Ok((200, Ended::Cut)));
    let mut came = [0; 12];
    visitor.read_exact(&mut came).await.unwrap();
    assert_eq!(&came, b"HTTP/1.1 200");
}

#[test]
fn a_sharer_says_whether_its_server_refused_or_was_silent() {
    let nothing = Inbox::new(Box::new(tokio::io::empty()));
    let failed = |code: u32| unanswered(&nothing, EndedBy::Sharer(code.into()));
    assert_eq!(failed(close::TARGET_REFUSED), Failed::NotThere);
    assert_eq!(failed(close::TARGET_SILENT), Failed::Slow);
    assert_eq!(failed(close::RESET), Failed::Unanswered);
}
