//! Receiving from many links, each in its turn.

use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use proto::path::LinkId;
use quinn::udp::RecvMeta;
use relay::net::Link;
use tokio::time::{Instant, Sleep, sleep_until};

use super::lock;
use super::stats::{DropReason, Drops};

/// How long a link that failed to receive is left alone. Most failures pass or the link is removed; until
/// then it may take ten looks a second.
const RETRY: Duration = Duration::from_millis(100);

/// The task that receives: quinn's endpoint driver.
#[derive(Debug, Default)]
pub(super) struct Receiver(Mutex<Option<Waker>>);

impl Receiver {
    pub(super) fn register(&self, waker: &Waker) {
        let mut registered = lock(&self.0);
        if !registered.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *registered = Some(waker.clone());
        }
    }

    pub(super) fn wake(&self) {
        // The lock is free again before the task runs.
        let waker = lock(&self.0).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The bell of one link: which of hundreds has something is known without asking each.
#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    receiver: Arc<Receiver>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.receiver.wake();
    }
}

#[derive(Debug)]
struct Source {
    id: LinkId,
    link: Arc<dyn Link>,
    bell: Arc<Bell>,
    waker: Waker,
    failed: Option<Instant>,
    failures: u64,
}

/// The links, as they are received from.
#[derive(Debug)]
pub(super) struct Inbox {
    sources: Vec<Source>,
    /// Whose turn is first: the one after whoever had the last.
    turn: usize,
    receiver: Arc<Receiver>,
    retry: Option<Pin<Box<Sleep>>>,
}

impl Inbox {
    pub(super) fn new(receiver: Arc<Receiver>) -> Self {
        Self { sources: Vec::new(), turn: 0, receiver, retry: None }
    }

    pub(super) fn add(&mut self, id: LinkId, link: Arc<dyn Link>) {
        self.remove(id);
        // Rung from the start: the first look is what has the link ring it later.
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), receiver: Arc::clone(&self.receiver) });
        let waker = Waker::from(Arc::clone(&bell));
        self.sources.push(Source { id, link, bell, waker, failed: None, failures: 0 });
    }

    pub(super) fn remove(&mut self, id: LinkId) {
        self.sources.retain(|source| source.id != id);
    }

    pub(super) fn is_failing(&self, id: LinkId) -> bool {
        self.sources.iter().any(|source| source.id == id && source.failed.is_some())
    }

    /// Receives from one link: from which, and how many buffers were filled.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
        drops: &Drops,
    ) -> Poll<(LinkId, usize)> {
        loop {
            for _ in 0..self.sources.len() {
                self.turn = (self.turn + 1) % self.sources.len();
                let source = &mut self.sources[self.turn];
                if !source.bell.rung.swap(false, Ordering::AcqRel) {
                    continue;
                }
                match source.link.poll_recv(&mut Context::from_waker(&source.waker), bufs, meta) {
                    Poll::Ready(Ok(received)) => {
                        // There may be more, and nothing else would tell.
                        source.bell.rung.store(true, Ordering::Release);
                        return Poll::Ready((source.id, received.min(meta.len())));
                    }
                    Poll::Ready(Err(error)) => {
                        drops.add(DropReason::LinkFailed, 1);
                        source.fail(&error);
                    }
                    Poll::Pending => {}
                }
            }
            ready!(self.poll_retry(cx));
        }
    }

    /// Ready when a link that failed is due for another look. Never, while none has failed.
    fn poll_retry(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.sources.iter().filter_map(|source| source.failed).min() else {
            self.retry = None;
            return Poll::Pending;
        };
        let retry = self.retry.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if retry.deadline() != due {
            retry.as_mut().reset(due);
        }
        ready!(retry.as_mut().poll(cx));
        let now = Instant::now();
        for source in &mut self.sources {
            if source.failed.is_some_and(|due| due <= now) {
                source.failed = None;
                source.bell.rung.store(true, Ordering::Release);
            }
        }
        Poll::Ready(())
    }
}

impl Source {
    fn fail(&mut self, error: &io::Error) {
        self.failures += 1;
        self.failed = Some(Instant::now() + RETRY);
        if self.failures == 1 {
            tracing::warn!(link = self.id.0, %error, "a link fails to receive; the others go on");
        } else {
            tracing::debug!(link = self.id.0, %error, failures = self.failures, "a link still fails");
        }
    }
}
