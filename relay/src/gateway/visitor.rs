//! One connection of a visitor: its requests one after the other, each to whom its host names.

use std::sync::Arc;

use proto::name::ShareName;
use proto::tunnel::head::{BadHead, Body};
use proto::tunnel::host::Destination;
use proto::tunnel::keep;
use proto::tunnel::pool::Refusal;
use proto::tunnel::proxy::Visit;
use proto::tunnel::request::RequestHead;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, timeout};

use super::exchange::{Ended, Exchange, Exchanged, Failed};
use super::inbox::{HeadError, Inbox, write_all};
use super::page::Page;
use super::sharers::is_crowded;
use super::stayed::Stayed;
use super::upstreams::NoUpstream;
use super::{Gateway, stopped};
use crate::access_log::{AccessLog, Entry};
use crate::http::Asker;
use crate::https::Tls;
use crate::net::{Outgoing, Stream};

/// How long, and how much, a visitor may go on sending after its answer: a connection that is closed over
/// unread bytes is reset, and the answer may be lost with it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 1024 * 1024;

/// A visitor's connection.
pub(crate) struct Visitor {
    pub(crate) inbox: Inbox,
    pub(crate) write: Box<dyn Outgoing>,
    pub(crate) asker: Asker,
    /// The version of HTTP that it really speaks.
    pub(crate) http: &'static str,
    /// The connections to local servers that have stayed behind its exchanges.
    pub(crate) stayed: Stayed,
}

/// What follows a request on its connection.
enum Next {
    Another,
    Close,
    /// At once, and so that the visitor notices.
    Abort,
    /// The server's own pages take it from here.
    Apex(Box<ForApex>),
}

/// A request for the server itself.
struct ForApex {
    raw: Vec<u8>,
    request: RequestHead,
    visit: Visit,
    since: Instant,
}

/// Why there is no request.
enum NoRequest {
    /// There won't be another one.
    End,
    /// It did not come in time.
    Late,
    Bad(BadHead),
}

impl Gateway {
    /// Serves a visitor's connection until it ends, or until `stop` turns true and nothing is being answered.
    pub(super) async fn visit(
        &self,
        (read, write): Stream,
        asker: Asker,
        http: &'static str,
        stayed: Stayed,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut visitor = Visitor { inbox: Inbox::new(read), write, asker, http, stayed };
        let mut patience = self.config.limits.head;
        loop {
            let Visitor { inbox, stayed, .. } = &mut visitor;
            let next = tokio::select! {
                biased;
                next = self.next_request(inbox, patience, &mut stop) => next,
                never = stayed.expire(), if !stayed.is_shared() => match never {},
            };
            let next = match next {
                Ok((raw, request)) => self.route(&mut visitor, raw, request).await,
                Err(NoRequest::End) => {
                    // Inside TLS an end has to be said.
                    let _gone = timeout(LINGER, visitor.write.shutdown()).await;
                    return;
                }
                Err(NoRequest::Late) => {
                    self.counters.slow_heads.add();
                    self.refuse(&mut visitor, 408, "The request did not come in time.").await;
                    Next::Close
                }
                Err(NoRequest::Bad(why)) => {
                    self.counters.bad_heads.add();
                    self.refuse(&mut visitor, why.status(), &format!("The request is refused: {why}.")).await;
                    Next::Close
                }
            };
            match next {
                Next::Another => visitor.inbox.rest(),
                Next::Close => return linger(visitor).await,
                Next::Abort => return visitor.write.abort(),
                Next::Apex(apex) => return self.hand_over(*apex, visitor).await,
            }
            patience = self.config.limits.idle;
        }
    }

    /// The next request's head, raw and understood. Its first byte may take `patience`, the rest as long as any
    /// head may.
    async fn next_request(
        &self,
        inbox: &mut Inbox,
        patience: Duration,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(Vec<u8>, RequestHead), NoRequest> {
        if inbox.data().is_empty() {
            tokio::select! {
                biased;
                came = timeout(patience, inbox.fill()) => match came {
                    Ok(Ok(1..)) => {}
                    Ok(Ok(0) | Err(_)) | Err(_) => return Err(NoRequest::End),
                },
                () = stopped(stop) => return Err(NoRequest::End),
            }
        }
        let head = async {
            // One empty line before a request is to be ignored (RFC 9112 §2.2).
            while inbox.data() == b"\r" && inbox.fill().await? > 0 {}
            if inbox.data().starts_with(b"\r\n") {
                inbox.consume(2);
            }
            inbox.head(b"").await
        };
        match timeout(self.config.limits.head, head).await {
            Err(_) => Err(NoRequest::Late),
            Ok(Ok(Some(raw))) => {
                let request = RequestHead::parse(&raw).map_err(NoRequest::Bad)?;
                Ok((raw, request))
            }
            Ok(Ok(None) | Err(HeadError::Stream(_))) => Err(NoRequest::End),
            Ok(Err(HeadError::Bad(why))) => Err(NoRequest::Bad(why)),
        }
    }

    async fn route(&self, visitor: &mut Visitor, raw: Vec<u8>, request: RequestHead) -> Next {
        let visit = Visit::new(visitor.asker.from.ip(), visitor.asker.tls, &request, &self.config.trusted);
        let since = Instant::now();
        let stayed = visitor.stayed.for_request();
        let log = Log {
            to: self.config.access_log.as_ref(),
            request: &request,
            visit: &visit,
            http: visitor.http,
            since,
        };
        let destination = self.destination(&request);
        self.observe(visitor.asker.from.ip(), &request, &destination);
        match destination {
            Destination::Apex => match self.api(&request, &visit) {
                Some(page) => self.answer(visitor, &request, &page, &log).await,
                None => Next::Apex(Box::new(ForApex { raw, request, visit, since })),
            },
            Destination::Name(name) => self.forward(visitor, &request, (&visit, &name), stayed, &log).await,
            Destination::Unknown => {
                let page = Page::failure(
                    404,
                    Some(&request),
                    "Nothing is shared under this name.",
                    "Check the address.",
                );
                self.answer(visitor, &request, &page, &log).await
            }
        }
    }

    async fn forward(
        &self,
        visitor: &mut Visitor,
        request: &RequestHead,
        (visit, name): (&Visit, &ShareName),
        stayed: Stayed,
        log: &Log<'_>,
    ) -> Next {
        // A second try has a connection of its own.
        let (mut stayed, mut bytes) = (Some(stayed), (0, 0));
        let mut tries = if request.may_be_repeated() { 2 } else { 1 };
        let failed = loop {
            let upstream = match self.upstream(name, request, visit, stayed.take(), log.since).await {
                Ok(upstream) => upstream,
                Err(NoUpstream::Refused(why)) => {
                    let page = refusal(why, self.not_here(why, request), request);
                    return self.answer(visitor, request, &page, log).await;
                }
                Err(NoUpstream::Told(page)) => return self.answer(visitor, request, &page, log).await,
            };
            let (limits, domain) = (&self.config.limits, self.config.urls.domain.as_str());
            let keep = upstream.lent.is_some() && keep::may_ask(request, visit);
            let has_stayed = upstream.has_stayed;
            let mut exchange = Exchange { request, visit, limits, domain, keep, bytes: &mut bytes };
            tries -= 1;
            match exchange.run(visitor, upstream).await {
                Ok(mut exchanged) => {
                    if let Some(stays) = exchanged.stays.take()
                        && let Some(lent) = &stays.lent
                        && !is_crowded(&lent.shown, limits.exchanges)
                    {
                        visitor.stayed.put(stays);
                    }
                    return self.finished(&exchanged, bytes, log);
                }
                // The local server may have closed the connection just before it was lent.
                Err(Failed::Unanswered | Failed::Lost) if tries > 0 => {}
                // It belongs to what was asked before: a server may send content where there is none to send.
                Err(Failed::Garbage) if tries > 0 && has_stayed => {}
                Err(failed) => break failed,
            }
        };
        self.counters.bytes_in.add_many(bytes.0);
        if failed == Failed::SlowBody {
            self.counters.slow_bodies.add();
        }
        match failure(failed, request) {
            Some(page) => match self.answer(visitor, request, &page, log).await {
                // Whatever there was of a body, it was not read to its end.
                Next::Another if matches!(request.body, Body::None | Body::Length(0)) => Next::Another,
                Next::Another | Next::Close | Next::Abort | Next::Apex(..) => Next::Close,
            },
            None => {
                log.write(499, bytes);
                Next::Abort
            }
        }
    }

    fn finished(&self, exchanged: &Exchanged, bytes: (u64, u64), log: &Log<'_>) -> Next {
        self.counters.answered(exchanged.status);
        self.counters.bytes_in.add_many(bytes.0);
        self.counters.bytes_out.add_many(bytes.1);
        if exchanged.upgraded {
            self.counters.upgraded.add();
        }
        log.write(exchanged.status, bytes);
        match exchanged.ended {
            Ended::Whole { keep_alive: true } => Next::Another,
            Ended::Whole { keep_alive: false } => Next::Close,
            Ended::Cut => {
                self.counters.cut.add();
                Next::Abort
            }
            Ended::Blocked => {
                self.counters.slow_readers.add();
                Next::Abort
            }
        }
    }

    /// Answers with a page of our own.
    async fn answer(&self, visitor: &mut Visitor, request: &RequestHead, page: &Page, log: &Log<'_>) -> Next {
        let keep_alive = request.keep_alive && matches!(request.body, Body::None | Body::Length(0));
        self.counters.answered(page.status);
        let bytes = page.bytes(Some(request), keep_alive);
        let written = write_all(&mut visitor.write, &bytes, self.config.limits.blocked).await;
        log.write(page.status, (0, bytes.len() as u64));
        match written {
            Ok(()) if keep_alive => Next::Another,
            Ok(()) => Next::Close,
            Err(_) => Next::Abort,
        }
    }

    /// Answers what is no request.
    async fn refuse(&self, visitor: &mut Visitor, status: u16, what: &str) {
        self.counters.answered(status);
        tracing::debug!(client = %visitor.asker.from.ip(), status, what, "refused");
        if let Some(log) = &self.config.access_log {
            let (client, http) = (visitor.asker.from.ip(), visitor.http);
            log.note(&Entry { status, ..Entry::nothing(client, http) });
        }
        let page = Page::failure(status, None, what, "");
        let _gone = write_all(&mut visitor.write, &page.bytes(None, false), LINGER).await;
    }

    async fn hand_over(&self, ForApex { raw, request, visit, since }: ForApex, mut visitor: Visitor) {
        use tokio::io::AsyncReadExt as _;

        // Its pages are small, and the relay has a bound of its own.
        visitor.write.unbind();
        let rest = visitor.inbox.into_stream();
        let read = Box::new(std::io::Cursor::new(raw).chain(rest));
        let asker = Asker { from: visitor.asker.from, tls: visit.scheme == "https" };
        let answered = self.apex.serve((read, visitor.write), asker).await;
        let (status, bytes) = answered.unwrap_or((499, 0));
        let (to, http) = (self.config.access_log.as_ref(), visitor.http);
        Log { to, request: &request, visit: &visit, http, since }.write(status, (0, bytes));
    }
}

/// Says that nothing more comes, and lets the visitor finish.
async fn linger(mut visitor: Visitor) {
    let drained = async {
        visitor.write.shutdown().await?;
        let limit = visitor.inbox.total() + LINGER_BYTES;
        while visitor.inbox.total() < limit {
            visitor.inbox.consume(usize::MAX);
            if visitor.inbox.fill().await? == 0 {
                break;
            }
        }
        std::io::Result::Ok(())
    };
    let _late = timeout(LINGER, drained).await;
}

fn refusal(why: Refusal, remedy_here: Option<&str>, request: &RequestHead) -> Page {
    let (status, what, remedy) = match why {
        Refusal::Unknown => (404, "Nothing is shared under this name.", "Check the address."),
        Refusal::Away => (503, "Who shares this is away.", "Try again in a moment."),
        Refusal::Busy => (503, "All connections to who shares this are busy.", "Try again in a moment."),
        Refusal::NotHttp => (502, "What is shared here is no web server.", "Ask who shares it."),
    };
    Page::failure(status, Some(request), what, remedy_here.unwrap_or(remedy))
}

fn failure(failed: Failed, request: &RequestHead) -> Option<Page> {
    let (status, what, remedy) = match failed {
        Failed::Unanswered => {
            (502, "The local server closed the connection without an answer.", "Try again.")
        }
        Failed::Lost => (503, "Who shares this is away.", "Try again in a moment."),
        Failed::Busy => (503, "Who shares this has as many visitors as it takes.", "Try again in a moment."),
        Failed::NotThere => {
            (502, "The local server accepts no connection.", "Ask who shares it to start it.")
        }
        Failed::NotPublic => (502, "Who had this name does not share it with the world.", "Ask them."),
        Failed::Garbage => (502, "The local server's answer is not HTTP.", "Ask who shares it."),
        Failed::Slow => (504, "The local server did not answer in time.", "Try again later."),
        Failed::BadBody => (400, "The request's body is malformed.", ""),
        Failed::SlowBody => (408, "The request's body did not come in time.", ""),
        Failed::Gone => return None,
    };
    Some(Page::failure(status, Some(request), what, remedy))
}

/// One request, for the access log.
struct Log<'a> {
    to: Option<&'a AccessLog>,
    request: &'a RequestHead,
    visit: &'a Visit,
    http: &'static str,
    since: Instant,
}

impl Log<'_> {
    fn write(&self, status: u16, bytes: (u64, u64)) {
        let Some(to) = self.to else { return };
        let (method, host) = (self.request.method.as_str(), self.request.authority.as_str());
        let (client, path, took) = (self.visit.client, self.request.path(), self.since.elapsed());
        to.note(&Entry { client, http: self.http, method, host, path, status, bytes, took });
    }
}

/// Serves one visitor who came when there was no room: it is told so, and nothing is read.
pub(super) async fn turn_away(stream: Stream, tls: Option<Tls>, gateway: Arc<Gateway>, page: &Page) {
    gateway.counters.answered(page.status);
    let (_read, mut write) = match tls {
        None => stream,
        Some(tls) => match timeout(LINGER, tls.accept(stream, false)).await {
            Ok(Ok((stream, _))) => stream,
            Ok(Err(_)) | Err(_) => return,
        },
    };
    let _gone = write_all(&mut write, &page.bytes(None, false), LINGER).await;
    let _gone = timeout(LINGER, write.shutdown()).await;
}
