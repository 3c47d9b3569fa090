//! What a sharer and its gateway say to each other.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use proto::id::PeerId;
use proto::limit::Rate;
use proto::machine::Bucket;
use proto::name::ShareName;
use proto::tunnel::forward::Rewrite;
use proto::tunnel::label::NotForYou;
use proto::tunnel::names::{Denied, Granted};
use proto::wire::gateway::{EXPORTER_LABEL, FromGateway, NotPublished, Publication, ToGateway, close};
use proto::wire::{Deframer, VERSION, parse};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::{Seat, Sharers, Shown, source};

/// How long a sharer may take to say who it is.
const HELLO: Duration = Duration::from_secs(5);

/// What is read from a stream at a time.
const READ: usize = 4096;

/// Messages of one connection: each costs a signature's check.
const MESSAGES: Rate = Rate { burst: 128, refill: Duration::from_secs(1) };

/// Shares that one connection shows.
const SHARES: usize = 64;

/// Why a conversation is over: with what code the connection is closed.
struct Over(u32);

impl Sharers {
    /// Has a sharer's connection until it ends.
    pub(crate) async fn receive(self: &Arc<Self>, connection: Connection, peer: PeerId) {
        let Some((seat, queue)) = self.seat(peer, &connection) else {
            return connection.close(VarInt::from_u32(close::FULL), b"");
        };
        tracing::debug!(%peer, remote = %connection.remote_address(), "a sharer has come");
        let Over(code) = self.converse(&seat, &connection, queue).await;
        connection.close(VarInt::from_u32(code), b"");
        tracing::debug!(%peer, reason = ?connection.close_reason(), "a sharer has left");
    }

    async fn converse(&self, seat: &Seat, connection: &Connection, queue: mpsc::Receiver<Vec<u8>>) -> Over {
        let mut nonce = [0; 32];
        if connection.export_keying_material(&mut nonce, EXPORTER_LABEL, b"").is_err() {
            return Over(close::PROTOCOL);
        }
        let Ok(Ok((send, recv))) = timeout(HELLO, connection.accept_bi()).await else {
            return Over(close::PROTOCOL);
        };
        // Ends with the queue, whose other end the seat has.
        tokio::spawn(write(send, queue));
        let mut messages = Messages::new(recv);
        let admitted = match timeout(HELLO, messages.next()).await {
            Ok(Ok(ToGateway::Hello { version: VERSION, instance: _, token })) => {
                self.terms.admission.admits(&seat.peer, token.as_deref())
            }
            Ok(Ok(ToGateway::Hello { .. } | ToGateway::Publish(_) | ToGateway::Unpublish { .. }))
            | Err(_) => {
                return Over(close::PROTOCOL);
            }
            Ok(Err(over)) => return over,
        };
        let mut unused = None;
        loop {
            unused = match self.shows_any(seat.key) {
                true => None,
                false => unused.or_else(|| Some(Instant::now() + self.terms.unused)),
            };
            let message = tokio::select! {
                biased;
                message = messages.next() => message,
                () = at(unused) => return Over(close::UNUSED),
            };
            match message {
                Ok(ToGateway::Publish(publication)) => {
                    let share = publication.share;
                    let shown = if admitted {
                        self.publish(seat, connection, publication, &nonce).await
                    } else {
                        Err(NotPublished::NotAdmitted)
                    };
                    if let Err(reason) = shown {
                        tracing::info!(peer = %seat.peer, ?reason, "a share is not published");
                        self.counters.publications_refused.add();
                        self.lock().tell(seat.key, &FromGateway::Refused { share, reason });
                    }
                }
                Ok(ToGateway::Unpublish { share }) => {
                    let names = self.names_of(seat, share);
                    names.iter().for_each(|name| self.hide(seat.key, name));
                }
                Ok(ToGateway::Hello { .. }) => return Over(close::PROTOCOL),
                Err(over) => return over,
            }
        }
    }

    async fn publish(
        &self,
        seat: &Seat,
        connection: &Connection,
        publication: Publication,
        nonce: &[u8; 32],
    ) -> Result<(), NotPublished> {
        let name: ShareName = publication.name.parse().map_err(|_| NotPublished::InvalidName)?;
        if self.terms.hosts.is_own(&name) {
            return Err(NotPublished::Reserved);
        }
        if !publication.is_signed_by(&seat.peer, &self.terms.server, nonce) {
            return Err(NotPublished::BadSignature);
        }
        let Publication { share, keep, host, access, .. } = publication;
        let rewrite = Arc::new(Rewrite { host, without_authorization: access.wants_password() });
        let shown = Arc::new(Shown { share, access, rewrite, active: AtomicUsize::new(0) });
        for other in self.names_of(seat, share).iter().filter(|other| **other != name) {
            self.hide(seat.key, other);
        }
        if !self.show_again(seat.key, &name, &shown) {
            self.claim(seat, connection, &name, keep).await?;
        }
        self.show(seat.key, &name, shown);
        self.counters.published.add();
        tracing::info!(peer = %seat.peer, %name, "a share is published");
        Ok(())
    }

    async fn claim(
        &self,
        seat: &Seat,
        connection: &Connection,
        name: &ShareName,
        keep: bool,
    ) -> Result<(), NotPublished> {
        // Whoever has the name without a key has it for as long as it is there.
        let in_use = self.tunnels.as_ref().is_some_and(|tunnels| tunnels.connections_of(name).is_some());
        if in_use && !self.is_claimed(name) {
            return Err(NotPublished::Taken);
        }
        let place = self.keeper.reserve().await.ok_or(NotPublished::NotKept)?;
        let (claim, kept) = {
            let mut state = self.lock();
            if state.lines.get(&seat.key).is_none_or(|line| line.shown.len() >= SHARES) {
                return Err(NotPublished::Busy);
            }
            match state
                .names
                .claim(name, seat.peer, source(connection), keep, Self::time())
                .map_err(denied)?
            {
                Granted::Now => return Ok(()),
                Granted::Noted(claim) => {
                    place.note(name.clone(), claim);
                    return Ok(());
                }
                Granted::OnceKept(claim) => (claim, place.keep(name.clone(), claim)),
            }
        };
        let is_kept = kept.await.unwrap_or(false);
        let mut state = self.lock();
        if is_kept {
            state.names.handle_kept(name, claim);
            Ok(())
        } else {
            state.names.undo(name);
            Err(NotPublished::NotKept)
        }
    }

    fn names_of(&self, seat: &Seat, share: proto::id::ShareId) -> Vec<ShareName> {
        let state = self.lock();
        let shown = state.lines.get(&seat.key).into_iter().flat_map(|line| &line.shown);
        shown.filter(|(_, shown)| shown.share == share).map(|(name, _)| name.clone()).collect()
    }
}

fn denied(why: Denied) -> NotPublished {
    match why {
        Denied::NotForYou(NotForYou::Invalid) => NotPublished::InvalidName,
        Denied::NotForYou(NotForYou::Reserved) => NotPublished::Reserved,
        Denied::Taken => NotPublished::Taken,
        Denied::TooMany(names) => NotPublished::TooMany(names.iter().map(ShareName::to_string).collect()),
        Denied::Busy => NotPublished::Busy,
    }
}

/// Waits until then, or for ever.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The messages of a sharer.
struct Messages {
    recv: RecvStream,
    deframer: Deframer,
    bucket: Bucket,
}

impl Messages {
    fn new(recv: RecvStream) -> Self {
        let bucket = Bucket::full(MESSAGES.burst, MESSAGES.refill, Instant::now().into_std());
        Self { recv, deframer: Deframer::default(), bucket }
    }

    async fn next(&mut self) -> Result<ToGateway, Over> {
        loop {
            match self.deframer.next_frame() {
                Ok(Some(body)) => {
                    let now = Instant::now().into_std();
                    if !self.bucket.take(MESSAGES.burst, MESSAGES.refill, now) {
                        return Err(Over(close::PROTOCOL));
                    }
                    return parse(&body).map_err(|_| Over(close::PROTOCOL));
                }
                Ok(None) => {}
                Err(_) => return Err(Over(close::PROTOCOL)),
            }
            match self.recv.read_chunk(READ, true).await {
                Ok(Some(chunk)) => self.deframer.push(&chunk.bytes),
                Ok(None) | Err(_) => return Err(Over(close::DONE)),
            }
        }
    }
}

async fn write(mut send: SendStream, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = queue.recv().await {
        if send.write_all(&frame).await.is_err() {
            return;
        }
    }
}
