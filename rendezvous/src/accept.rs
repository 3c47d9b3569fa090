//! Who gets a QUIC connection: the accept loop, and one task for each. A session is served here, a sharer's
//! connection for visitors is the gateway's.
//!
//! Every choice between futures has an order, so that a simulated run repeats from its seed.
//!
//! Nothing that a client does ends the loop. What strangers may make the server hold is bounded three times
//! before a key is proven: by address validation under load, by the number of handshakes under way, and by
//! their rate.

use std::sync::Arc;

use proto::id::PeerId;
use proto::limit::PrefixLimiter;
use proto::wire::session::{self, ToServer, close};
use proto::wire::{Deframer, gateway, parse};
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, VarInt};
use relay::gateway::Gateway;
use relay::tls;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, timeout};

use crate::config::Limits;
use crate::sessions::{Seat, Sessions};
use crate::stats::Counters;

/// How often a session that says nothing is looked at for a new address: well below the lifetime of any
/// NAT's binding, and no load with 50 000 sessions.
const LOOK: Duration = Duration::from_secs(5);

/// What is read from a stream at a time.
const READ: usize = 4096;

/// What a connection's task needs of the server.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) limits: Limits,
}

/// Accepts connections until the endpoint is closed.
pub(crate) async fn accept(endpoint: Endpoint, gate: Gate) {
    let handshakes = Arc::new(Semaphore::new(gate.limits.handshakes));
    let mut rates = Rates::new(&gate.limits);
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(ended) = tasks.join_next() => report_panic(ended),
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { break };
                if let Some((incoming, permit)) = gate.admit(incoming, &handshakes, &mut rates) {
                    tasks.spawn(gate.clone().serve(incoming, permit));
                }
            }
        }
    }
    while let Some(ended) = tasks.join_next().await {
        report_panic(ended);
    }
}

/// The rates of clients that have proven their address, and of those that have not. Who floods from false
/// addresses uses up the latter alone: the clients that live there then come with proof.
struct Rates {
    proven: PrefixLimiter,
    unproven: PrefixLimiter,
}

impl Rates {
    fn new(limits: &Limits) -> Self {
        let Limits { handshakes_each, handshakes_total, .. } = *limits;
        let full = || PrefixLimiter::new(handshakes_each, handshakes_total, Instant::now().into_std());
        Self { proven: full(), unproven: full() }
    }

    fn allow(&mut self, incoming: &Incoming) -> bool {
        let rate = if incoming.remote_address_validated() { &mut self.proven } else { &mut self.unproven };
        rate.allow(incoming.remote_address(), Instant::now().into_std())
    }
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!("a session's task came to a bad end: {error}");
    }
}

impl Gate {
    /// Lets a handshake begin, asks the client to prove its address, or turns it away.
    fn admit(
        &self,
        incoming: Incoming,
        handshakes: &Arc<Semaphore>,
        rates: &mut Rates,
    ) -> Option<(Incoming, OwnedSemaphorePermit)> {
        let under_way = self.limits.handshakes.saturating_sub(handshakes.available_permits());
        let proven = incoming.remote_address_validated();
        let allowed = rates.allow(&incoming);
        if !proven && (!allowed || under_way >= self.limits.retry_above) {
            self.counters.handshakes_retried.add();
            if let Err(error) = incoming.retry() {
                error.into_incoming().ignore();
            }
            return None;
        }
        let permit = Arc::clone(handshakes).try_acquire_owned().ok().filter(|_| allowed);
        let Some(permit) = permit else {
            self.counters.handshakes_refused.add();
            incoming.refuse();
            return None;
        };
        self.counters.handshakes_begun.add();
        Some((incoming, permit))
    }

    async fn serve(self, incoming: Incoming, permit: OwnedSemaphorePermit) {
        let connection = self.shake_hands(incoming).await;
        drop(permit);
        let Some(connection) = connection else {
            self.counters.handshakes_failed.add();
            return;
        };
        let Some(peer) = tls::peer_id(&connection) else {
            return connection.close(VarInt::from_u32(close::PROTOCOL), b"");
        };
        match tls::alpn(&connection).as_deref() {
            Some(session::ALPN) => self.serve_session(peer, connection).await,
            Some(gateway::ALPN) => self.gateway.receive(connection, peer).await,
            Some(_) | None => connection.close(VarInt::from_u32(close::PROTOCOL), b""),
        }
    }

    async fn serve_session(&self, peer: PeerId, connection: Connection) {
        let (seat, frames) = self.sessions.connected(peer, &connection);
        tracing::debug!(%peer, remote = %connection.remote_address(), "session opened");
        self.converse(&seat, &connection, frames).await;
        tracing::debug!(%peer, reason = ?connection.close_reason(), "session closed");
    }

    async fn shake_hands(&self, incoming: Incoming) -> Option<Connection> {
        let connecting = incoming.accept().ok()?;
        match timeout(self.limits.handshake, connecting).await {
            Ok(Ok(connection)) => Some(connection),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a handshake came to nothing");
                None
            }
            Err(_) => None,
        }
    }

    /// Carries a session's messages both ways until either side ends it.
    async fn converse(&self, seat: &Seat, connection: &Connection, frames: mpsc::Receiver<Vec<u8>>) {
        let streams = tokio::select! {
            biased;
            streams = connection.accept_bi() => streams,
            // Who says no hello is closed by the matchmaker.
            _ = connection.closed() => return,
        };
        let Ok((send, receive)) = streams else { return };
        tokio::select! {
            biased;
            () = write(send, frames) => {}
            () = self.read(seat, connection, receive) => {}
        }
        // Where the session ended with a reason, the connection is closed already, and this changes nothing.
        connection.close(VarInt::from_u32(0), b"");
    }

    async fn read(&self, seat: &Seat, connection: &Connection, mut stream: RecvStream) {
        let mut deframer = Deframer::default();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen_at = connection.remote_address();
        loop {
            let chunk = tokio::select! {
                biased;
                chunk = stream.read_chunk(READ, true) => Some(chunk),
                _ = look.tick() => None,
            };
            let now_at = connection.remote_address();
            if now_at != seen_at {
                seen_at = now_at;
                seat.seen_at(now_at);
            }
            match chunk {
                None => {}
                Some(Ok(Some(chunk))) => {
                    deframer.push(&chunk.bytes);
                    if !self.hand_in(seat, &mut deframer) {
                        return;
                    }
                }
                Some(Ok(None) | Err(_)) => return,
            }
        }
    }

    /// Hands in the messages that are there. Whether the session goes on.
    fn hand_in(&self, seat: &Seat, deframer: &mut Deframer) -> bool {
        loop {
            let message = match deframer.next_frame() {
                Ok(None) => return true,
                Ok(Some(body)) => parse::<ToServer>(&body),
                Err(error) => Err(error),
            };
            match message {
                Ok(message) => seat.message(message),
                Err(error) => {
                    tracing::debug!(%error, "a session sent what is no message");
                    self.counters.malformed(error);
                    seat.malformed();
                    return false;
                }
            }
        }
    }
}

async fn write(mut stream: SendStream, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        if stream.write_all(&frame).await.is_err() {
            return;
        }
    }
}
