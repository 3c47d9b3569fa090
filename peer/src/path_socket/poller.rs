//! Waiting until a packet can be sent, when "writable" depends on where it goes.
//!
//! quinn asks [`PathPoller::poll_writable`] without a destination, then calls `try_send` in the same breath
//! on the same thread, and asks again at once when that would block. Were the answer then "writable", of
//! another link perhaps, quinn would turn in a circle for ever. So:
//!
//! 1. A poller that is not waiting says "writable", and leaves its [`Waiter`] on the thread.
//! 2. `try_send` takes the waiter, and when all links of the route are full, notes them in it.
//! 3. The poller waits for those links, whichever is first, and for any change of routes or links: the packet
//!    may have another way by then.
//!
//! Nothing but that hand-over is the thread's own: the endpoint, which sends without asking, finds no waiter
//! there and leaves nothing behind for a connection to wait on.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use proto::path::LinkId;
use quinn::UdpPoller;

use super::{PathSocket, lock};

/// How often a link may say that it is writable and then not take the packet, before the connection lets
/// others run. A link that lies costs its own connection time, and nobody else.
const MAX_FUTILE: u8 = 8;

thread_local! {
    /// The waiter of the connection that is about to send.
    static SENDING: Cell<Option<Arc<Waiter>>> = const { Cell::new(None) };
}

/// What one connection waits for. Shared with the socket, which ends the wait when ways change.
#[derive(Debug, Default)]
pub(super) struct Waiter(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    full: Vec<LinkId>,
    /// How many changes of ways the sender knew of when it found the links full.
    known: u64,
    waker: Option<Waker>,
}

impl Waiter {
    /// The waiter of whoever sends on this thread right now.
    pub(super) fn of_sender() -> Option<Arc<Self>> {
        SENDING.take()
    }

    /// Notes that all links of a packet's route are full. `known` changes of ways had happened when the route
    /// was looked up.
    pub(super) fn wait_for(&self, full: Vec<LinkId>, known: u64) {
        let mut waiting = lock(&self.0);
        waiting.full = full;
        waiting.known = known;
    }

    /// Ends the wait: there may be another way.
    pub(super) fn release(&self) {
        let waker = {
            let mut waiting = lock(&self.0);
            waiting.full.clear();
            waiting.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The links that are full, once `waker` is where [`Waiter::release`] finds it.
    fn full(&self, waker: &Waker) -> (Vec<LinkId>, u64) {
        let mut waiting = lock(&self.0);
        if !waiting.full.is_empty() {
            waiting.waker = Some(waker.clone());
        }
        (waiting.full.clone(), waiting.known)
    }
}

/// One connection's poller.
#[derive(Debug)]
pub(super) struct PathPoller {
    socket: Arc<PathSocket>,
    waiter: Arc<Waiter>,
    /// The pollers of the links waited for.
    links: Vec<Pin<Box<dyn UdpPoller>>>,
    futile: u8,
}

impl PathPoller {
    pub(super) fn new(socket: Arc<PathSocket>, waiter: Arc<Waiter>) -> Self {
        Self { socket, waiter, links: Vec::new(), futile: 0 }
    }

    fn writable(&mut self) -> Poll<io::Result<()>> {
        self.links.clear();
        lock(&self.waiter.0).full.clear();
        SENDING.set(Some(Arc::clone(&self.waiter)));
        Poll::Ready(Ok(()))
    }

    /// Whether any link that is waited for takes packets again, or can't be waited for.
    fn any_writable(&mut self, cx: &mut Context<'_>) -> bool {
        // No error is passed on: it would end the connection, and there may be another way.
        self.links.iter_mut().any(|link| link.as_mut().poll_writable(cx).is_ready())
    }
}

impl UdpPoller for PathPoller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (full, known) = this.waiter.full(cx.waker());
        if full.is_empty() {
            this.futile = 0;
            return this.writable();
        }
        if known != this.socket.changes() {
            return this.writable();
        }
        let just_found_full = this.links.is_empty();
        if just_found_full {
            let Some(pollers) =
                full.iter().map(|&id| Some(this.socket.link(id)?.create_io_poller())).collect()
            else {
                return this.writable();
            };
            this.links = pollers;
        }
        if !this.any_writable(cx) {
            this.futile = 0;
            return Poll::Pending;
        }
        if just_found_full {
            this.futile += 1;
            if this.futile >= MAX_FUTILE {
                this.futile = 0;
                this.links.clear();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        this.writable()
    }
}
