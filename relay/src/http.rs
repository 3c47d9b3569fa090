//! An HTTP/1.1 listener, as the public and the operator's side of a server have it: bounded in connections,
//! in time and in what it reads, and deaf to everything but a request's head. A connection that is taken
//! over for another protocol leaves these bounds for that protocol's own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::Full;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use proto::limit::Prefix;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep, timeout};

use crate::gateway::Apex;
use crate::https::Tls;
use crate::metrics::{Count, Metrics};
use crate::net::{BoxFuture, Listener, Stream};

/// A page, whole.
pub type Page = Response<Full<Bytes>>;

/// What a request's head may take, in bytes, and in lines.
const HEAD: usize = 32 * 1024;
const HEADERS: usize = 100;

/// How long to wait when a connection could not be accepted: mostly for a file descriptor.
const PAUSE: Duration = Duration::from_millis(100);

/// Who asks, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The other end of the connection.
    pub from: SocketAddr,
    /// Whether TLS protects what is asked, here or, as a trusted proxy says, on the way to it.
    pub tls: bool,
}

/// What answers on a listener.
pub trait Pages: Send + Sync + 'static {
    /// Answers a request, which is a GET or a HEAD; its body is not read.
    fn answer<'a>(&'a self, request: &'a Request<Incoming>, asker: Asker) -> BoxFuture<'a, Page>;

    /// Takes the connection over, where a request asks for something that lives on it: answers with what to
    /// say first, and has the rest from [`hyper::upgrade::on`].
    fn take_over(&self, _request: &mut Request<Incoming>, _asker: Asker) -> Option<Page> {
        None
    }
}

/// What is counted of HTTP.
#[derive(Debug, Default)]
pub struct HttpCounters {
    /// Requests answered with what was asked for.
    pub answered: Count,
    /// Requests answered with an error.
    pub rejected: Count,
    /// TCP connections that did not speak HTTP, or stopped.
    pub broken: Count,
    /// TCP connections over the limit.
    pub refused: Count,
}

/// What [`HttpCounters`] have come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HttpStats {
    /// Requests answered with what was asked for.
    pub answered: u64,
    /// Requests answered with an error.
    pub rejected: u64,
    /// TCP connections that did not speak HTTP, or stopped.
    pub broken: u64,
    /// TCP connections over the limit.
    pub refused: u64,
}

impl HttpCounters {
    /// What has been counted.
    pub fn stats(&self) -> HttpStats {
        HttpStats {
            answered: self.answered.get(),
            rejected: self.rejected.get(),
            broken: self.broken.get(),
            refused: self.refused.get(),
        }
    }
}

impl HttpStats {
    /// As an operator reads it.
    pub fn write(&self, metrics: &mut Metrics) {
        let Self { answered, rejected, broken, refused } = *self;
        metrics.labelled(
            "http_requests_total",
            "HTTP requests, by what became of them.",
            "result",
            &[("answered", answered), ("rejected", rejected)],
        );
        metrics.labelled(
            "http_connections_failed_total",
            "TCP connections that came to nothing, by reason.",
            "reason",
            &[("broken", broken), ("refused", refused)],
        );
    }
}

/// How much strangers may have of a listener.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one prefix.
    pub connections_each: usize,
    /// How long a request's head may take.
    pub head: Duration,
    /// How long a connection may live.
    pub life: Duration,
}

/// A listener and all that its connections need.
pub struct HttpServer {
    /// Where connections come from.
    pub listener: Box<dyn Listener>,
    /// What is spoken first there, if anything is.
    pub tls: Option<Tls>,
    /// What answers.
    pub pages: Arc<dyn Pages>,
    /// How much of it strangers may have.
    pub limits: HttpLimits,
    /// What is counted.
    pub counters: Arc<HttpCounters>,
}

impl HttpServer {
    /// Accepts and serves until `stop` turns true; then what is being answered is finished.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) {
        let places = Arc::new(Places::default());
        let mut tasks = JoinSet::new();
        let stopping = stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                Some(_) = tasks.join_next() => {}
                accepted = self.listener.accept() => {
                    let place = accepted.map(|(stream, from)| (places.take(from.ip(), self.limits), stream, from));
                    match place {
                        Ok((Some(place), stream, from)) => {
                            let (pages, counters) = (Arc::clone(&self.pages), Arc::clone(&self.counters));
                            let (tls, limits, stop) = (self.tls.clone(), self.limits, stopping.clone());
                            tasks.spawn(async move {
                                if let Some((stream, asker)) = greet(stream, from, tls, limits, &counters).await {
                                    connection(stream, asker, pages, limits, counters, stop, true).await;
                                }
                                drop(place);
                            });
                        }
                        Ok((None, _, _)) => self.counters.refused.add(),
                        Err(error) => pause(&error).await,
                    }
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// The pages of a connection that somebody else has accepted and looked into: the gateway hands each request
/// for the server itself over, with its stream.
pub struct Handed {
    /// What answers.
    pub pages: Arc<dyn Pages>,
    /// How long a head may take and a connection live; the gateway bounds how many there are.
    pub limits: HttpLimits,
    /// What is counted.
    pub counters: Arc<HttpCounters>,
    /// Turns true when what is being answered is to be finished.
    pub stop: watch::Receiver<bool>,
}

impl Apex for Handed {
    fn serve(&self, stream: Stream, asker: Asker) -> BoxFuture<'_, Option<(u16, u64)>> {
        let (pages, counters) = (Arc::clone(&self.pages), Arc::clone(&self.counters));
        // A second request may be for another host, and is not for us.
        Box::pin(connection(stream, asker, pages, self.limits, counters, self.stop.clone(), false))
    }
}

/// Shakes hands where TLS is spoken; nothing where that fails.
async fn greet(
    stream: Stream,
    from: SocketAddr,
    tls: Option<Tls>,
    limits: HttpLimits,
    counters: &HttpCounters,
) -> Option<(Stream, Asker)> {
    let Some(tls) = tls else { return Some((stream, Asker { from, tls: false })) };
    match timeout(limits.head, tls.accept(stream, false)).await {
        Ok(Ok((stream, _))) => Some((stream, Asker { from, tls: true })),
        Ok(Err(_)) | Err(_) => {
            counters.broken.add();
            None
        }
    }
}

/// Serves a connection for one request, or for as long as the client keeps it. Gives the last answer's status, and the
/// bytes of its content.
async fn connection(
    (read, write): Stream,
    asker: Asker,
    pages: Arc<dyn Pages>,
    HttpLimits { head, life, .. }: HttpLimits,
    counters: Arc<HttpCounters>,
    mut stop: watch::Receiver<bool>,
    keep_alive: bool,
) -> Option<(u16, u64)> {
    let answered = Arc::new(Mutex::new(None));
    let told = Arc::clone(&answered);
    let service = service_fn(|mut request| {
        let (pages, counters, answered) = (Arc::clone(&pages), Arc::clone(&counters), Arc::clone(&told));
        async move {
            let mut page = respond(&*pages, &mut request, asker, &counters).await;
            // hyper's own switch would say so of a connection that is taken over as well.
            if !keep_alive && page.status() != StatusCode::SWITCHING_PROTOCOLS {
                page.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            let bytes = page.body().size_hint().lower();
            *answered.lock().unwrap_or_else(PoisonError::into_inner) = Some((page.status().as_u16(), bytes));
            Ok::<_, Infallible>(page)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_headers(HEADERS)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(tokio::io::join(read, write)), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let whole = async {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended,
            () = stopped(&mut stop) => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    };
    // Who uses up the time of a connection was slow on purpose.
    if !matches!(timeout(life, whole).await, Ok(Ok(()))) {
        counters.broken.add();
    }
    *answered.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until the server stops; its being gone is the same.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _gone = stop.wait_for(|stop| *stop).await;
}

async fn pause(error: &io::Error) {
    tracing::debug!(%error, "a TCP connection could not be accepted");
    sleep(PAUSE).await;
}

async fn respond(
    pages: &dyn Pages,
    request: &mut Request<Incoming>,
    asker: Asker,
    counters: &HttpCounters,
) -> Page {
    let mut page = if request.method() == Method::GET || request.method() == Method::HEAD {
        match pages.take_over(request, asker) {
            Some(page) => page,
            None => pages.answer(request, asker).await,
        }
    } else {
        let mut page = text(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are understood here.\n");
        page.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        page
    };
    let headers = page.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if page.status().is_success() || page.status() == StatusCode::SWITCHING_PROTOCOLS {
        counters.answered.add()
    } else {
        counters.rejected.add()
    }
    page
}

/// A page of plain text.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Page {
    page(status, "text/plain; charset=utf-8", body)
}

/// A page of this type.
pub fn page(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Page {
    let mut page = Response::new(Full::new(body.into()));
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    page
}

/// Who has how many connections.
#[derive(Debug, Default)]
struct Places(Mutex<BTreeMap<Prefix, usize>>);

/// One connection's place, until it is dropped.
struct Place {
    places: Arc<Places>,
    prefix: Prefix,
}

impl Places {
    fn take(self: &Arc<Self>, ip: IpAddr, limits: HttpLimits) -> Option<Place> {
        let prefix = Prefix::of(ip);
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let each = taken.get(&prefix).copied().unwrap_or(0);
        if all >= limits.connections || each >= limits.connections_each {
            return None;
        }
        taken.insert(prefix, each + 1);
        Some(Place { places: Arc::clone(self), prefix })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.prefix) {
            Some(each) if *each > 1 => *each -= 1,
            Some(_) | None => drop(taken.remove(&self.prefix)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_prefix_does_not_get_every_place_and_a_place_comes_back() {
        let second = Duration::from_secs(1);
        let limits = HttpLimits { connections: 3, connections_each: 2, head: second, life: second };
        let places = Arc::new(Places::default());
        let take = |text: &str| places.take(text.parse().unwrap(), limits);
        let (first, _second) = (take("192.0.2.1").unwrap(), take("192.0.2.2").unwrap());
        assert!(take("192.0.2.3").is_none());
        let _third = take("198.51.100.1").unwrap();
        assert!(take("203.0.113.1").is_none());
        drop(first);
        assert!(take("203.0.113.1").is_some());
    }
}
