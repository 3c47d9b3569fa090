//! The way of an answer's body into frames, and when it is through.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use h2::SendStream;
use hyper::body::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// A piece at the most: the library keeps one whose first byte has left, whatever becomes of its stream.
const PIECE: usize = 16 * 1024;

/// Bytes that may wait in the library while an answer goes on: the end of a small one leaves together with it.
const LITTLE: usize = 16 * 1024;

/// Bytes of an answer, which say when they have left: the library takes whole answers for a visitor who has given it
/// room, and keeps them if that one reads nothing.
pub(super) struct Piece {
    bytes: Bytes,
    unsent: Arc<Unsent>,
}

/// What the library has of one stream. The end of an answer counts as a byte.
#[derive(Default)]
struct Unsent {
    bytes: AtomicUsize,
    changed: AtomicWaker,
}

impl Unsent {
    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    fn poll_below(&self, bytes: usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.bytes() > bytes {
            self.changed.register(cx.waker());
            if self.bytes() > bytes {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Piece {
    fn new(bytes: Bytes, unsent: &Arc<Unsent>) -> Self {
        unsent.bytes.fetch_add(bytes.len() + 1, Ordering::AcqRel);
        Self { bytes, unsent: Arc::clone(unsent) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.unsent.bytes.fetch_sub(self.bytes.len() + 1, Ordering::AcqRel);
        self.unsent.changed.wake();
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.unsent.bytes.fetch_sub(count, Ordering::AcqRel);
    }
}

/// The way. Its stream is looked at from two sides: whether there is room, and whether the visitor has given it up.
/// Flushing it leaves little of what was written with the library, shutting it down nothing.
pub(super) struct Data {
    stream: Mutex<SendStream<Piece>>,
    unsent: Arc<Unsent>,
}

impl Data {
    pub(super) fn new(stream: SendStream<Piece>) -> Self {
        Self { stream: Mutex::new(stream), unsent: Arc::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SendStream<Piece>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that there is no more.
    pub(super) fn end(&self) -> Result<(), h2::Error> {
        self.lock().send_data(Piece::new(Bytes::new(), &self.unsent), true)
    }

    /// How much of it has not left yet.
    pub(super) fn unsent(&self) -> usize {
        self.unsent.bytes()
    }
}

impl AsyncWrite for &Data {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut stream = self.lock();
        stream.reserve_capacity(bytes.len());
        while stream.capacity() == 0 {
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let piece = bytes.get(..stream.capacity().min(bytes.len()).min(PIECE)).unwrap_or_default();
        let length = piece.len();
        let piece = Piece::new(Bytes::copy_from_slice(piece), &self.unsent);
        stream.send_data(piece, false).map_err(io::Error::other)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unsent.poll_below(LITTLE, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unsent.poll_below(0, cx)
    }
}

#[cfg(test)]
mod tests {
    use h2::client::{Connection, SendRequest, handshake};
    use h2::{Reason, RecvStream, server};
    use hyper::{Request, Response};
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    /// A visitor who has read the head of an answer, and whose connection reads on only when it is polled.
    struct Visitor {
        _send: SendRequest<Bytes>,
        connection: Connection<DuplexStream>,
        body: RecvStream,
    }

    const LENGTH: usize = 50_000;

    /// An answer of [`LENGTH`] bytes, for all of which the visitor has given room.
    async fn answer() -> (Data, Visitor) {
        let (near, far) = duplex(1024);
        let answering = async {
            let mut connection = server::Builder::new().handshake::<_, Piece>(far).await.unwrap();
            let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
            tokio::spawn(async move { while connection.accept().await.is_some() {} });
            let data = Data::new(respond.send_response(Response::new(()), false).unwrap());
            let mut way = &data;
            let mut left = LENGTH;
            while left > 0 {
                left -= way.write(&vec![7; left]).await.unwrap();
            }
            data
        };
        let asking = async {
            let (mut send, mut connection) = handshake(near).await.unwrap();
            let request = Request::get("https://a.test/").body(()).unwrap();
            let (answer, _) = send.send_request(request, true).unwrap();
            let answer = tokio::select! {
                answer = answer => answer.unwrap(),
                _ended = &mut connection => panic!("it ended"),
            };
            Visitor { _send: send, connection, body: answer.into_body() }
        };
        tokio::join!(answering, asking)
    }

    #[tokio::test]
    async fn an_answer_is_through_when_the_visitor_has_read_it_and_not_before() {
        let (data, Visitor { _send, connection, mut body }) = answer().await;
        let mut way = &data;
        assert!(data.unsent() > LITTLE, "{}", data.unsent());
        tokio::spawn(connection);
        way.flush().await.unwrap();
        data.end().unwrap();
        way.shutdown().await.unwrap();
        assert_eq!(data.unsent(), 0);
        let mut read = 0;
        while let Some(piece) = body.data().await {
            read += piece.unwrap().len();
        }
        assert_eq!(read, LENGTH);
    }

    #[tokio::test]
    async fn nothing_stays_of_what_is_cut_but_the_piece_that_has_begun() {
        let (data, _visitor) = answer().await;
        data.lock().send_reset(Reason::CANCEL);
        assert!(data.unsent() <= PIECE + 1, "{}", data.unsent());
    }
}
