//! One request and its answer, carried between a visitor and a local server's connection.
//!
//! Both directions run at once: a server may answer before it has read everything, and an upload may wait for
//! what the server says. The visitor's head is written anew, and so is the answer's; nothing is ever copied
//! from one side's framing to the other's.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proto::tunnel::forward::{Framing, request_head, response_head};
use proto::tunnel::head::{Body, Version};
use proto::tunnel::keep;
use proto::tunnel::proxy::Visit;
use proto::tunnel::request::RequestHead;
use proto::tunnel::response::ResponseHead;
use proto::wire::gateway::close;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::body::{BodyError, Carry};
use super::config::GatewayLimits;
use super::inbox::{HeadError, Inbox, write_all};
use super::splice::{Side, splice};
use super::upstream::{EndedBy, Upstream};
use super::visitor::Visitor;
use crate::net::Outgoing;

/// Answers before the final one that are passed on.
const INTERIM: usize = 32;

/// Why there is no answer to pass on; nothing but interim ones has been written to the visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The connection ended without a byte.
    Unanswered,
    /// The way to the sharer broke.
    Lost,
    /// The local server accepts no connection.
    NotThere,
    /// The sharer has as many visitors as it takes.
    Busy,
    /// The sharer does not share this with the world.
    NotPublic,
    /// What came is no answer.
    Garbage,
    /// Nothing came in time.
    Slow,
    /// The request's body is malformed.
    BadBody,
    /// The request's body does not come.
    SlowBody,
    /// The visitor went away.
    Gone,
}

/// Why there is no head, where the stream from the local server has ended before it.
fn unanswered(from: &Inbox, ended: EndedBy) -> Failed {
    match ended {
        EndedBy::Way => Failed::Lost,
        EndedBy::Sharer(_) | EndedBy::Server if from.total() > 0 => Failed::Garbage,
        EndedBy::Sharer(code) if code == u64::from(close::TARGET_REFUSED) => Failed::NotThere,
        EndedBy::Sharer(code) if code == u64::from(close::TARGET_SILENT) => Failed::Slow,
        EndedBy::Sharer(code) if code == u64::from(close::BUSY) => Failed::Busy,
        EndedBy::Sharer(code) if code == u64::from(close::NOT_PUBLIC) => Failed::NotPublic,
        EndedBy::Sharer(_) | EndedBy::Server => Failed::Unanswered,
    }
}

/// How an exchange that was answered ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As it should; whether the visitor may ask again on its connection.
    Whole { keep_alive: bool },
    /// In the middle: the visitor must not take it for whole.
    Cut,
    /// The visitor did not read.
    Blocked,
}

/// What became of an exchange.
pub(crate) struct Exchanged {
    pub(crate) status: u16,
    pub(crate) ended: Ended,
    pub(crate) upgraded: bool,
    /// The connection to the local server, where it can carry another exchange.
    pub(crate) stays: Option<Upstream>,
}

/// How far it has come, as both directions see it.
#[derive(Default)]
struct Progress {
    /// The request has gone out whole.
    uploaded: AtomicBool,
    /// Nothing more of it goes out, whole or not.
    asked: AtomicBool,
    /// Nothing more of the visitor is read until it has its answer.
    unheard: AtomicBool,
    changed: Notify,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Progress {
    fn mark(&self, flag: &AtomicBool) {
        flag.store(true, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    async fn reached(&self, flag: &AtomicBool) {
        loop {
            let changed = self.changed.notified();
            if flag.load(Ordering::Relaxed) {
                return;
            }
            changed.await;
        }
    }
}

/// An exchange under way.
pub(crate) struct Exchange<'a> {
    pub(crate) request: &'a RequestHead,
    pub(crate) visit: &'a Visit,
    pub(crate) limits: &'a GatewayLimits,
    pub(crate) domain: &'a str,
    /// Whether the local server is asked to keep its connection.
    pub(crate) keep: bool,
    /// Content that came from the visitor, and went to it.
    pub(crate) bytes: &'a mut (u64, u64),
}

impl Exchange<'_> {
    /// Carries it through.
    pub(crate) async fn run(
        &mut self,
        visitor: &mut Visitor,
        mut upstream: Upstream,
    ) -> Result<Exchanged, Failed> {
        let progress = Progress::default();
        let result = self.both(visitor, &mut upstream, &progress).await;
        self.bytes.0 += progress.bytes_in.into_inner();
        self.bytes.1 += progress.bytes_out.into_inner();
        match result {
            Ok((head, None)) => Ok(self.upgraded(&head, visitor, upstream).await),
            Ok((head, Some(ended))) => {
                let mut stays = None;
                match ended {
                    Ended::Whole { keep_alive: true } if self.keep && keep::may_stay(&head) => {
                        stays = Some(upstream)
                    }
                    Ended::Whole { .. } => {}
                    Ended::Cut | Ended::Blocked => upstream.abort(),
                }
                Ok(Exchanged { status: head.status, ended, upgraded: false, stays })
            }
            Err(failed) => {
                // A client that has not connected to its local server yet must not ask it when it does.
                upstream.abort();
                Err(failed)
            }
        }
    }

    /// The final answer's head, and how its body ended; nothing for one that has agreed to an upgrade.
    async fn both(
        &self,
        visitor: &mut Visitor,
        upstream: &mut Upstream,
        progress: &Progress,
    ) -> Result<(ResponseHead, Option<Ended>), Failed> {
        let mut head = std::mem::take(&mut upstream.before);
        head.extend(request_head(self.request, self.visit, &upstream.rewrite, self.keep));
        let mut inbound = pin!(self.inbound(head, &mut visitor.inbox, &mut upstream.write, progress));
        let head = tokio::select! {
            biased;
            failed = &mut inbound => return Err(failed),
            head = self.answer(&mut upstream.inbox, &mut visitor.write, progress) => head?,
        };
        if head.status == 101 {
            return Ok((head, None));
        }
        let (bytes, framing, keep_alive) =
            response_head(&head, self.request.version, self.request.keep_alive, self.domain);
        let carry =
            Carry { body: head.body, framing, before: bytes, idle: None, blocked: self.limits.blocked };
        let ended = tokio::select! {
            biased;
            ended = carry.run(&mut upstream.inbox, &mut visitor.write, &progress.bytes_out) => match ended {
                Ok(_) => Ended::Whole { keep_alive: keep_alive && progress.uploaded.load(Ordering::Relaxed) },
                Err(BodyError::Blocked) => Ended::Blocked,
                Err(BodyError::Cut | BodyError::Malformed | BodyError::Idle | BodyError::Unwritable) => Ended::Cut,
            },
            _failed = &mut inbound => Ended::Cut,
            () = self.forgotten(progress) => Ended::Cut,
        };
        Ok((head, Some(ended)))
    }

    /// The request on its way; then the visitor is watched. It comes back only with a failure.
    async fn inbound(
        &self,
        head: Vec<u8>,
        from: &mut Inbox,
        to: &mut Box<dyn Outgoing>,
        progress: &Progress,
    ) -> Failed {
        // By itself: a client that rewrites Host damages content which it gets together with the head.
        let mut written = match write_all(to, &head, self.limits.blocked).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Err(BodyError::Blocked),
            Err(_) => Err(BodyError::Unwritable),
        };
        if written.is_ok() && self.request.body != Body::None {
            let framing = if self.request.body == Body::Chunked { Framing::Chunked } else { Framing::Plain };
            let (body, idle, blocked) = (self.request.body, Some(self.limits.body), self.limits.blocked);
            written = Carry { body, framing, before: Vec::new(), idle, blocked }
                .run(from, to, &progress.bytes_in)
                .await
                .map(drop);
        }
        match written {
            Ok(()) => progress.uploaded.store(true, Ordering::Relaxed),
            // The server may have said why before it stopped reading, or is about to.
            Err(BodyError::Unwritable) => {}
            Err(BodyError::Blocked) => return Failed::Slow,
            Err(BodyError::Malformed) => return Failed::BadBody,
            Err(BodyError::Cut) => return Failed::Gone,
            Err(BodyError::Idle)
                if self.request.expects_continue && progress.bytes_in.load(Ordering::Relaxed) == 0 =>
            {
                return Failed::Slow;
            }
            Err(BodyError::Idle) => return Failed::SlowBody,
        }
        progress.mark(&progress.asked);
        self.watch(from, progress).await
    }

    /// A visitor's next request may come early, and the end of its stream is not the end of its interest; but
    /// an error is. Behind as much as is read early nobody sees the end: it is as if it had come.
    async fn watch(&self, from: &mut Inbox, progress: &Progress) -> Failed {
        while !from.is_full() {
            match from.fill().await {
                Ok(0) => break,
                Ok(_) => {}
                Err(_) => return Failed::Gone,
            }
        }
        progress.mark(&progress.unheard);
        std::future::pending().await
    }

    /// Comes back when a visitor of whom nothing more is heard gets nothing more either.
    async fn forgotten(&self, progress: &Progress) {
        progress.reached(&progress.unheard).await;
        loop {
            let before = progress.bytes_out.load(Ordering::Relaxed);
            sleep(self.limits.body).await;
            if progress.bytes_out.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    /// The head of the final answer; those before it are passed on.
    async fn answer(
        &self,
        from: &mut Inbox,
        to: &mut Box<dyn Outgoing>,
        progress: &Progress,
    ) -> Result<ResponseHead, Failed> {
        for _ in 0..INTERIM {
            let too_slow = async {
                progress.reached(&progress.asked).await;
                sleep(self.limits.answer).await;
            };
            let head = tokio::select! {
                biased;
                head = from.head(b"HTTP/1.") => head,
                () = too_slow => return Err(Failed::Slow),
            };
            let head = match head {
                Ok(Some(head)) => head,
                Ok(None) => return Err(unanswered(from, EndedBy::Server)),
                Err(HeadError::Stream(error)) => return Err(unanswered(from, EndedBy::of(&error))),
                Err(HeadError::Bad(_)) => return Err(Failed::Garbage),
            };
            let head = ResponseHead::parse(&head, &self.request.method).map_err(|_| Failed::Garbage)?;
            if head.status == 101 && !self.agrees(&head) {
                return Err(Failed::Garbage);
            }
            if !head.is_interim() {
                return Ok(head);
            }
            if self.request.version == Version::Current {
                let (bytes, ..) = response_head(&head, Version::Current, true, self.domain);
                write_all(to, &bytes, self.limits.blocked).await.map_err(|_| Failed::Gone)?;
            }
        }
        Err(Failed::Garbage)
    }

    /// Whether the protocol that the server goes on with is the one that was asked for.
    fn agrees(&self, head: &ResponseHead) -> bool {
        let asked = self.request.upgrade.as_deref();
        asked.is_some_and(|asked| {
            head.fields.first("upgrade").is_some_and(|got| got.eq_ignore_ascii_case(asked))
        })
    }

    async fn upgraded(
        &mut self,
        head: &ResponseHead,
        visitor: &mut Visitor,
        mut upstream: Upstream,
    ) -> Exchanged {
        let (bytes, ..) = response_head(head, Version::Current, false, self.domain);
        let blocked = self.limits.blocked;
        let mut ended = Ended::Cut;
        if write_all(&mut visitor.write, &bytes, blocked).await.is_ok() {
            let a = Side { inbox: &mut visitor.inbox, write: &mut visitor.write };
            let b = Side { inbox: &mut upstream.inbox, write: &mut upstream.write };
            let (came, went, whole) = splice(a, b, blocked).await;
            self.bytes.0 += came;
            self.bytes.1 += went;
            if whole {
                ended = Ended::Whole { keep_alive: false };
            }
        }
        if ended == Ended::Cut {
            upstream.abort();
        }
        Exchanged { status: 101, ended, upgraded: true, stays: None }
    }
}

#[cfg(test)]
mod tests;
