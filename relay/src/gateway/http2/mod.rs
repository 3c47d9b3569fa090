//! Visitors who speak HTTP/2 (RFC 9113): each of their streams is to the rest of the gateway a connection that
//! carries one request.
//!
//! A library takes the frames apart, and their limits are given to it. What it can't tell from a busy visitor is
//! seen to here: who opens streams only to give them up, who is idle, and who has vanished.

mod data;
mod pipe;
mod stream;
mod websocket;

use std::future::poll_fn;
use std::sync::Arc;

use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use hyper::Request;
use proto::limit::Rate;
use proto::machine::Bucket;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::stayed::Stayed;
use super::{Gateway, stopped};
use crate::http::Asker;
use crate::net::Stream;
use data::Piece;
use stream::{Ended, Visit};

/// Streams of one connection at once.
const STREAMS: u32 = 128;

/// Bytes of bodies that a visitor may send ahead: of a stream, of a connection. Thirty uploads that a local server does not
/// read leave the others of their connection their room, until the slow ones' limit ends them.
const STREAM_WINDOW: u32 = 256 * 1024;
const WINDOW: u32 = 32 * STREAM_WINDOW;

/// Bytes of an answer that wait for a visitor to make room, of a stream.
const SEND_BUFFER: usize = 64 * 1024;

/// A head at the most, as the library counts it; those over it get 431. Then our own limits.
const HEAD: u32 = 64 * 1024;

/// Streams that are remembered after a reset, and errors of a visitor's that cost a reset each.
const RESETS: usize = 64;

/// Streams that a visitor may give up: a browser that leaves a page has given up all that was loading.
const GIVEN_UP: Rate = Rate { burst: 256, refill: Duration::from_millis(100) };

/// How often a visitor is asked for a sign of life, and how long that may take.
const PULSE: Duration = Duration::from_secs(30);

/// How long the last words to a visitor may take.
const GOODBYE: Duration = Duration::from_secs(2);

impl Gateway {
    /// Serves a visitor's connection until it ends, or until `stop` turns true and nothing is being answered.
    pub(super) async fn visit_http2(
        self: &Arc<Self>,
        (read, write): Stream,
        asker: Asker,
        stop: watch::Receiver<bool>,
    ) {
        let handshake = builder().handshake::<_, Piece>(tokio::io::join(read, write));
        let Ok(Ok(connection)) = timeout(self.config.limits.head, handshake).await else {
            return self.counters.bad_handshakes.add();
        };
        let now = Instant::now();
        let visitor = Visitor {
            gateway: Arc::clone(self),
            connection,
            asker,
            stop,
            streams: JoinSet::new(),
            stayed: Stayed::at_once(),
            given_up: Bucket::full(GIVEN_UP.burst, GIVEN_UP.refill, now.into_std()),
            leaving: false,
            idle_until: now + self.config.limits.head,
        };
        let stayed = visitor.stayed.clone();
        tokio::select! {
            () = visitor.run() => {}
            never = stayed.expire() => match never {},
        }
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEAD)
        .max_concurrent_reset_streams(RESETS)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(Some(RESETS))
        .enable_connect_protocol();
    builder
}

/// A visitor's connection.
struct Visitor<T: AsyncRead + AsyncWrite + Unpin> {
    gateway: Arc<Gateway>,
    connection: Connection<T, Piece>,
    asker: Asker,
    stop: watch::Receiver<bool>,
    streams: JoinSet<Ended>,
    /// The connections to local servers that any of its streams may have next.
    stayed: Stayed,
    given_up: Bucket,
    /// Whether it was asked to open no further streams.
    leaving: bool,
    /// When it has had its time without a stream.
    idle_until: Instant,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Visitor<T> {
    async fn run(mut self) {
        let mut pulse = Pulse::of(&mut self.connection);
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.streams.join_next() => {
                    self.idle_until = Instant::now() + self.gateway.config.limits.idle;
                    if matches!(ended, Ok(Ended::GivenUp)) && !self.may_give_up() {
                        break self.calm_down().await;
                    }
                }
                accepted = self.connection.accept() => match accepted {
                    Some(Ok((request, respond))) => self.begin(request, respond),
                    Some(Err(error)) => {
                        // The library has seen it first.
                        if error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                            self.gateway.counters.resets.add();
                        }
                        break tracing::debug!(%error, "a visitor's HTTP/2 connection broke");
                    }
                    None => break,
                },
                () = sleep_until(self.idle_until), if self.streams.is_empty() => {
                    if self.leaving {
                        break;
                    }
                    self.leave();
                }
                () = stopped(&mut self.stop), if !self.leaving => self.leave(),
                () = pulse.missed() => break,
            }
        }
        let Self { connection, mut streams, .. } = self;
        drop(connection);
        // Each of them sees that the visitor is gone.
        while streams.join_next().await.is_some() {}
    }

    fn begin(&mut self, request: Request<RecvStream>, respond: SendResponse<Piece>) {
        let (stop, stayed) = (self.stop.clone(), self.stayed.clone());
        let visit = Visit { asker: self.asker, stop, stayed, request, respond };
        let gateway = Arc::clone(&self.gateway);
        self.streams.spawn(visit.serve(gateway));
    }

    /// Opens no further streams, and ends once those that are there have.
    fn leave(&mut self) {
        self.leaving = true;
        self.connection.graceful_shutdown();
        self.idle_until = Instant::now() + GOODBYE;
    }

    fn may_give_up(&mut self) -> bool {
        self.given_up.take(GIVEN_UP.burst, GIVEN_UP.refill, Instant::now().into_std())
    }

    /// Closes on somebody who has streams opened for nothing (CVE-2023-44487).
    async fn calm_down(&mut self) {
        self.gateway.counters.resets.add();
        self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        let _gone = timeout(GOODBYE, poll_fn(|cx| self.connection.poll_closed(cx))).await;
    }
}

/// Asks a visitor for signs of life: one that has vanished does not say so.
struct Pulse {
    pings: Option<PingPong>,
    next: Instant,
    waiting: bool,
}

impl Pulse {
    fn of<T: AsyncRead + AsyncWrite + Unpin>(connection: &mut Connection<T, Piece>) -> Self {
        Self { pings: connection.ping_pong(), next: Instant::now() + PULSE, waiting: false }
    }

    /// Comes back when there was no sign in time.
    async fn missed(&mut self) {
        let Some(pings) = &mut self.pings else { return std::future::pending().await };
        loop {
            tokio::select! {
                biased;
                pong = poll_fn(|cx| pings.poll_pong(cx)), if self.waiting => match pong {
                    Ok(_) => self.waiting = false,
                    // The connection has ended, and says so itself.
                    Err(_) => return std::future::pending().await,
                },
                () = sleep_until(self.next) => {
                    if self.waiting {
                        return;
                    }
                    self.waiting = pings.send_ping(Ping::opaque()).is_ok();
                    self.next = Instant::now() + PULSE;
                }
            }
        }
    }
}
