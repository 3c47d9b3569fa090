//! A TLS stream in two halves, of which the outgoing one can still be given up.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use crate::net::{Outgoing, Stream};

/// Both halves of the stream underneath.
pub(super) struct Whole {
    read: Box<dyn AsyncRead + Send + Unpin>,
    /// None once it was given up.
    write: Option<Box<dyn Outgoing>>,
}

impl Whole {
    pub(super) fn new((read, write): Stream) -> Self {
        Self { read, write: Some(write) }
    }

    fn write(&mut self) -> io::Result<Pin<&mut (dyn Outgoing + '_)>> {
        match &mut self.write {
            Some(write) => Ok(Pin::new(&mut **write)),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl AsyncRead for Whole {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncWrite for Whole {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write()?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write()?.poll_shutdown(cx)
    }
}

/// What both halves share. Only one of them is at it at a time, and never for long.
type Shared = Arc<Mutex<TlsStream<Whole>>>;

fn lock(shared: &Shared) -> MutexGuard<'_, TlsStream<Whole>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a stream apart.
pub(super) fn split(tls: TlsStream<Whole>) -> Stream {
    let shared = Arc::new(Mutex::new(tls));
    (Box::new(Incoming(Arc::clone(&shared))), Box::new(ToClient(shared)))
}

struct Incoming(Shared);

impl AsyncRead for Incoming {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_read(cx, buf)
    }
}

struct ToClient(Shared);

impl AsyncWrite for ToClient {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *lock(&self.0)).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_shutdown(cx)
    }
}

impl Outgoing for ToClient {
    fn abort(self: Box<Self>) {
        let write = lock(&self.0).get_mut().0.write.take();
        if let Some(write) = write {
            write.abort();
        }
    }
}

impl Drop for ToClient {
    /// Dropping this half ends the stream; what there is of an end in TLS was said by a shutdown, or not at all.
    fn drop(&mut self) {
        lock(&self.0).get_mut().0.write = None;
    }
}
