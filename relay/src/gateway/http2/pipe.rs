//! A connection within the process, as one stream of HTTP/2 looks to the rest of the gateway.

use std::io::{self, Cursor};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, DuplexStream, ReadBuf, ReadHalf, WriteHalf, duplex, split,
};

use crate::gateway::inbox::Inbox;
use crate::net::{Outgoing, Stream};

/// What waits in each direction at the most, in bytes.
const ROOM: usize = 32 * 1024;

/// The visitor's end.
pub(super) struct Near {
    /// What comes from the gateway.
    pub(super) inbox: Inbox,
    /// What goes to it.
    pub(super) write: WriteHalf<DuplexStream>,
    pub(super) gone: Gone,
    /// That the gateway's end broke off, once nothing more comes of it.
    pub(super) cut: Gone,
}

/// Says of one end that it went away, before it is dropped; else that is the end of what it had to say.
#[derive(Debug, Clone, Default)]
pub(super) struct Gone(Arc<AtomicBool>);

impl Gone {
    pub(super) fn away(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_away(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Both ends; at the gateway's `first` comes first.
pub(super) fn pipe(first: Vec<u8>) -> (Near, Stream) {
    let (near, far) = duplex(ROOM);
    let (read, write) = split(near);
    let (gone, cut) = (Gone::default(), Gone::default());
    let near = Near { inbox: Inbox::new(Box::new(read)), write, gone: gone.clone(), cut: cut.clone() };
    let (read, write) = split(far);
    let read = Cursor::new(first).chain(FromVisitor { read, gone });
    (near, (Box::new(read), Box::new(ToVisitor { write, cut })))
}

struct FromVisitor {
    read: ReadHalf<DuplexStream>,
    gone: Gone,
}

impl AsyncRead for FromVisitor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.read).poll_read(cx, buf))?;
        if buf.filled().len() == before && self.gone.is_away() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

struct ToVisitor {
    write: WriteHalf<DuplexStream>,
    cut: Gone,
}

impl AsyncWrite for ToVisitor {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(cx)
    }
}

impl Outgoing for ToVisitor {
    /// Where an answer ends says its framing; what has none is cut.
    fn abort(self: Box<Self>) {
        self.cut.away();
    }
}
