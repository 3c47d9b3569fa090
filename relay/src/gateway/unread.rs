//! Writes that wait for somebody to read, under a budget for all of them.
//!
//! Whom one waits for is a visitor, or a local server with an upload. What has come from the other side fills
//! up behind it, buffer by buffer, until that side waits too; then [`HOLD`] bytes are here. A write that does
//! not wait costs nothing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use proto::tunnel::unread::{Unread as Machine, WaitKey};
use tokio::io::AsyncWrite;

use super::stats::Count;
use crate::net::{Outgoing, Stream};

/// What is held behind a write that waits, at the most: a stream's window (256 KiB) at QUIC or HTTP/2, an inbox (64),
/// what was read of it and is being written (128), and a pipe within the process (32). What lies in the system's
/// buffers is the system's.
const HOLD: u32 = 512 * 1024;

/// All writes that wait.
pub(crate) struct Unread {
    state: Mutex<Machine<Arc<Told>>>,
    cut: Count,
}

/// How a waiting write learns that it was cut.
#[derive(Default)]
struct Told {
    cut: AtomicBool,
    waker: AtomicWaker,
}

impl Unread {
    /// With so many bytes for all.
    pub(crate) fn new(budget: u64) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(Machine::new(budget)), cut: Count::default() })
    }

    /// A way out, with its writes under the budget.
    pub(crate) fn bounded(self: &Arc<Self>, write: Box<dyn Outgoing>) -> Bounded<Box<dyn Outgoing>> {
        Bounded::new(write, self)
    }

    /// The same, of a whole stream.
    pub(crate) fn bound(self: &Arc<Self>, (read, write): Stream) -> Stream {
        (read, Box::new(self.bounded(write)))
    }

    /// How many bytes are held at the most, and how many writes were cut for the sake of others.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.lock().held(), self.cut.get())
    }

    fn lock(&self) -> MutexGuard<'_, Machine<Arc<Told>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn block(self: &Arc<Self>) -> Wait {
        let told = Arc::<Told>::default();
        let mut machine = self.lock();
        let key = machine.handle_blocked(HOLD, Arc::clone(&told));
        while let Some(other) = machine.poll_cut() {
            self.cut.add();
            other.cut.store(true, Ordering::Release);
            other.waker.wake();
        }
        Wait { unread: Arc::clone(self), key, told }
    }
}

/// A write waits, until this is dropped.
struct Wait {
    unread: Arc<Unread>,
    key: WaitKey,
    told: Arc<Told>,
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.unread.lock().handle_moved(self.key);
    }
}

/// A way out whose writes are under the budget. One that is cut fails as if its time were up.
pub(crate) struct Bounded<W> {
    write: W,
    /// None where somebody else sees to it.
    unread: Option<Arc<Unread>>,
    wait: Option<Wait>,
}

impl<W: AsyncWrite + Unpin> Bounded<W> {
    pub(crate) fn new(write: W, unread: &Arc<Unread>) -> Self {
        Self { write, unread: Some(Arc::clone(unread)), wait: None }
    }

    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(Pin<&mut W>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = step(Pin::new(&mut self.write), cx) {
            self.wait = None;
            return Poll::Ready(done);
        }
        let Some(unread) = &self.unread else { return Poll::Pending };
        let told = &self.wait.get_or_insert_with(|| unread.block()).told;
        told.waker.register(cx.waker());
        if told.cut.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Bounded<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(cx, |write, cx| write.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, AsyncWrite::poll_shutdown)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(cx, |write, cx| write.poll_write_vectored(cx, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        self.write.is_write_vectored()
    }
}

impl Outgoing for Bounded<Box<dyn Outgoing>> {
    fn abort(self: Box<Self>) {
        let Self { write, wait, .. } = *self;
        drop(wait);
        write.abort();
    }

    fn give_up_after(&self, unread: Duration) {
        self.write.give_up_after(unread);
    }

    fn unbind(&mut self) {
        (self.unread, self.wait) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const ROOM: u64 = 2 * HOLD as u64;

    #[tokio::test]
    async fn over_the_budget_the_write_that_waited_longest_fails_and_nothing_stays_held() {
        let unread = Unread::new(ROOM);
        let mut ends = Vec::new();
        let mut writes = Vec::new();
        for _ in 0..3 {
            let (near, far) = duplex(1);
            let mut write = Bounded::new(near, &unread);
            writes.push(tokio::spawn(async move { write.write_all(b"ab").await }));
            ends.push(far);
            tokio::task::yield_now().await;
        }
        let failed = writes.remove(0).await.unwrap().unwrap_err();
        assert_eq!((failed.kind(), unread.counts()), (io::ErrorKind::TimedOut, (ROOM, 1)));
        for (mut far, write) in ends.drain(..).skip(1).zip(writes) {
            far.read_exact(&mut [0; 2]).await.unwrap();
            write.await.unwrap().unwrap();
        }
        assert_eq!(unread.counts(), (0, 1));
    }

    #[tokio::test]
    async fn a_write_that_is_somebody_elses_affair_is_not_counted() {
        let unread = Unread::new(0);
        let (near, mut far) = duplex(1);
        let (_read, mut write) = unread.bound((Box::new(io::Cursor::new(b"")), boxed(near)));
        write.unbind();
        let written = tokio::spawn(async move { write.write_all(b"ab").await });
        tokio::task::yield_now().await;
        assert_eq!(unread.counts(), (0, 0));
        far.read_exact(&mut [0; 2]).await.unwrap();
        written.await.unwrap().unwrap();
    }

    fn boxed(end: tokio::io::DuplexStream) -> Box<dyn Outgoing> {
        Box::new(tokio::io::split(end).1)
    }
}
