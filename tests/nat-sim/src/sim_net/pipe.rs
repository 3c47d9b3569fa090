//! A TCP stream in memory: two pipes, each with the time that a byte takes.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use relay::net::{Outgoing, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::lock;

/// What is under way or unread before a writer has to wait.
const WINDOW: usize = 256 * 1024;

/// The two ends of a stream on which a byte takes `delay`.
pub(super) fn stream(delay: Duration) -> (Stream, Stream) {
    let [there, back] = [(), ()].map(|()| Arc::new(Mutex::new(Pipe::new(delay))));
    let end = |from: &Arc<Mutex<Pipe>>, to: &Arc<Mutex<Pipe>>| -> Stream {
        (Box::new(Reader { pipe: Arc::clone(from), sleep: None }), Box::new(Writer(Arc::clone(to))))
    };
    (end(&back, &there), end(&there, &back))
}

/// One direction.
#[derive(Debug)]
struct Pipe {
    delay: Duration,
    /// Each with the time at which it can be read.
    chunks: VecDeque<(Instant, Vec<u8>)>,
    /// How much of the first was read.
    read: usize,
    held: usize,
    end: Option<(Instant, End)>,
    reader_is_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Finished,
    Reset,
}

/// What a reader finds.
enum Found {
    Bytes,
    End,
    Reset,
    NotBefore(Instant),
    Nothing,
}

impl Pipe {
    const fn new(delay: Duration) -> Self {
        Self {
            delay,
            chunks: VecDeque::new(),
            read: 0,
            held: 0,
            end: None,
            reader_is_gone: false,
            reader: None,
            writer: None,
        }
    }

    fn end(&mut self, end: End) {
        if self.end.is_none() || end == End::Reset {
            self.end = Some((Instant::now() + self.delay, end));
        }
        wake(&mut self.reader);
    }

    fn look(&self, now: Instant) -> Found {
        match (self.end, self.chunks.front()) {
            (Some((at, End::Reset)), _) if at <= now => Found::Reset,
            (_, Some((at, _))) if *at <= now => Found::Bytes,
            (_, Some((at, _))) => Found::NotBefore(*at),
            (Some((at, End::Finished)), None) if at <= now => Found::End,
            (Some((at, _)), None) => Found::NotBefore(at),
            (None, None) => Found::Nothing,
        }
    }

    fn take(&mut self, buf: &mut ReadBuf<'_>, now: Instant) {
        while let Some((_, chunk)) = self.chunks.front().filter(|(at, _)| *at <= now) {
            let rest = &chunk[self.read..];
            let count = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..count]);
            self.held -= count;
            if count < rest.len() {
                self.read += count;
                break;
            }
            self.read = 0;
            self.chunks.pop_front();
        }
        wake(&mut self.writer);
    }
}

fn wake(sleeper: &mut Option<Waker>) {
    if let Some(sleeper) = sleeper.take() {
        sleeper.wake();
    }
}

#[derive(Debug)]
struct Reader {
    pipe: Arc<Mutex<Pipe>>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { pipe, sleep } = self.get_mut();
        loop {
            let mut pipe = lock(pipe);
            let now = Instant::now();
            pipe.reader = Some(cx.waker().clone());
            let at = match pipe.look(now) {
                Found::Bytes => {
                    pipe.take(buf, now);
                    return Poll::Ready(Ok(()));
                }
                Found::End => return Poll::Ready(Ok(())),
                Found::Reset => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                Found::Nothing => return Poll::Pending,
                Found::NotBefore(at) => at,
            };
            drop(pipe);
            let timer = sleep.insert(Box::pin(sleep_until(at)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut pipe = lock(&self.pipe);
        pipe.reader_is_gone = true;
        wake(&mut pipe.writer);
    }
}

#[derive(Debug)]
struct Writer(Arc<Mutex<Pipe>>);

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = lock(&self.0);
        if pipe.reader_is_gone || pipe.end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(WINDOW - pipe.held);
        if count == 0 && !bytes.is_empty() {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let at = Instant::now() + pipe.delay;
        pipe.chunks.push_back((at, bytes[..count].to_vec()));
        pipe.held += count;
        wake(&mut pipe.reader);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).end(End::Finished);
        Poll::Ready(Ok(()))
    }
}

impl Outgoing for Writer {
    fn abort(self: Box<Self>) {
        lock(&self.0).end(End::Reset);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.0).end(End::Finished);
    }
}
