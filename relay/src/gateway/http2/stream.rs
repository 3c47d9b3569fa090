//! One stream of a visitor: its request to the gateway, and the answer back.

use std::future::{pending, poll_fn};
use std::io::{self, Cursor};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use hyper::body::Bytes;
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use proto::tunnel::chunk;
use proto::tunnel::forward::Framing;
use proto::tunnel::head::{BadHead, Body, Field, Fields};
use proto::tunnel::http2::{Http2Head, answer_fields};
use proto::tunnel::response::ResponseHead;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::Duration;

use super::pipe::{Near, pipe};
use crate::access_log::Entry;
use crate::gateway::Gateway;
use crate::gateway::body::{BodyError, Carry};
use crate::gateway::inbox::Inbox;
use crate::gateway::page::Page;
use crate::http::Asker;

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Its answer is whole.
    Whole,
    /// The visitor wants no answer any more.
    GivenUp,
    /// Its answer broke off.
    Cut,
}

/// A visitor's request.
pub(super) struct Visit {
    pub(super) asker: Asker,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) request: Request<RecvStream>,
    pub(super) respond: SendResponse<Bytes>,
}

impl Visit {
    /// Serves it as if it were a connection's only request.
    pub(super) async fn serve(self, gateway: Arc<Gateway>) -> Ended {
        let Self { asker, stop, request, mut respond } = self;
        let (head, body) = request.into_parts();
        let (method, blocked) = (head.method.as_str(), gateway.config.limits.blocked);
        let asked = (asker.from.ip(), &head);
        let place = gateway.place(asker.from.ip());
        let (first, framing) = match (written(&head, body.is_end_stream()), &place) {
            (Ok(written), Ok(_)) => written,
            (Err(why), _) => {
                gateway.counters.bad_heads.add();
                let page = Page::failure(why.status(), None, &format!("The request is refused: {why}."), "");
                return say(&gateway, &page, &mut respond, asked, blocked).await;
            }
            (Ok(_), Err(why)) => {
                return say(&gateway, &gateway.no_place(*why), &mut respond, asked, blocked).await;
            }
        };
        let (near, far) = pipe(first);
        let visiting = gateway.visit(far, asker, "2", stop);
        let exchanging = exchange(near, (body, framing), respond, method, blocked);
        let ((), ended) = tokio::join!(visiting, exchanging);
        drop(place);
        ended
    }
}

/// The head as the gateway reads it, and how its body goes on.
fn written(head: &Parts, ended: bool) -> Result<(Vec<u8>, Framing), BadHead> {
    let head = Http2Head {
        method: head.method.as_str(),
        scheme: head.uri.scheme_str(),
        authority: head.uri.authority().map(|authority| authority.as_str()),
        path: head.uri.path_and_query().map_or("/", |path| path.as_str()),
        fields: head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect(),
        ended,
    };
    let framing = if ended || head.length().is_some() { Framing::Plain } else { Framing::Chunked };
    Ok((head.to_http1()?, framing))
}

/// Answers what somebody asked, and the gateway never saw, with a page of our own.
async fn say(
    gateway: &Gateway,
    page: &Page,
    respond: &mut SendResponse<Bytes>,
    (client, asked): (IpAddr, &Parts),
    blocked: Duration,
) -> Ended {
    gateway.counters.answered(page.status);
    let method = asked.method.as_str();
    if let Some(log) = &gateway.config.access_log {
        let host = asked.uri.authority().map_or("-", |authority| authority.as_str());
        let (status, path) = (page.status, asked.uri.path().as_bytes());
        log.note(&Entry { status, method, host, path, ..Entry::nothing(client, "2") });
    }
    let mut bytes = Inbox::new(Box::new(Cursor::new(page.bytes(None, false))));
    answer(&mut bytes, respond, method, blocked).await
}

async fn exchange(
    Near { mut inbox, write, gone }: Near,
    (body, framing): (RecvStream, Framing),
    mut respond: SendResponse<Bytes>,
    method: &str,
    blocked: Duration,
) -> Ended {
    let ended = {
        let feeding = pin!(feed(body, framing, write));
        let answering = pin!(answer(&mut inbox, &mut respond, method, blocked));
        tokio::select! {
            biased;
            ended = answering => ended,
            () = feeding => Ended::GivenUp,
        }
    };
    if ended != Ended::Whole {
        gone.away();
    }
    ended
}

/// Carries the request's body to the gateway. It comes back only when the visitor has given up.
async fn feed(mut body: RecvStream, framing: Framing, mut to: impl AsyncWrite + Unpin) {
    let chunked = framing == Framing::Chunked;
    while let Some(data) = body.data().await {
        let Ok(data) = data else { return };
        if data.is_empty() {
            continue;
        }
        let mut framed = Vec::with_capacity(data.len() + 16);
        if chunked {
            framed.extend_from_slice(chunk::before(data.len()).as_bytes());
        }
        framed.extend_from_slice(&data);
        if chunked {
            framed.extend_from_slice(chunk::BEHIND);
        }
        if to.write_all(&framed).await.is_err() {
            // The answer came before the body was wanted: it ends the stream, and until then this one is held.
            return pending().await;
        }
        let _ended = body.flow_control().release_capacity(data.len());
    }
    if chunked {
        let Ok(trailers) = body.trailers().await else { return };
        let _answered = to.write_all(&chunk::last(&fields(trailers.unwrap_or_default()))).await;
    }
    pending().await
}

fn fields(map: HeaderMap) -> Fields {
    let field = |(name, value): (&HeaderName, &HeaderValue)| Field {
        name: name.as_str().to_owned(),
        value: value.as_bytes().to_vec(),
    };
    Fields(map.iter().map(field).collect())
}

/// Carries the answer to the visitor.
async fn answer(
    from: &mut Inbox,
    respond: &mut SendResponse<Bytes>,
    method: &str,
    blocked: Duration,
) -> Ended {
    loop {
        let head = tokio::select! {
            biased;
            head = from.head(b"HTTP/1.") => head,
            _reset = poll_fn(|cx| respond.poll_reset(cx)) => return Ended::GivenUp,
        };
        let head = head.ok().flatten().and_then(|head| ResponseHead::parse(&head, method).ok());
        let Some(head) = head else {
            respond.send_reset(Reason::INTERNAL_ERROR);
            return Ended::Cut;
        };
        let response = response(&head);
        if head.is_interim() {
            let _ended = respond.send_informational(response);
            continue;
        }
        let bodiless = matches!(head.body, Body::None | Body::Length(0));
        return match respond.send_response(response, bodiless) {
            Ok(_) if bodiless => Ended::Whole,
            Ok(stream) => carry(from, head.body, Data(Mutex::new(stream)), blocked).await,
            Err(_) => Ended::GivenUp,
        };
    }
}

fn response(head: &ResponseHead) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    for (name, value) in answer_fields(&head.fields) {
        // Both are checked already, and more strictly.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    if let Some(length) = head.length.filter(|_| head.status != 204) {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    response
}

async fn carry(from: &mut Inbox, body: Body, to: Data, blocked: Duration) -> Ended {
    let carry = Carry { body, framing: Framing::Plain, before: Vec::new(), idle: None, blocked };
    let (mut way, sent) = (&to, AtomicU64::new(0));
    let carried = tokio::select! {
        biased;
        carried = carry.run(from, &mut way, &sent) => carried,
        _reset = poll_fn(|cx| to.lock().poll_reset(cx)) => return Ended::GivenUp,
    };
    let mut stream = to.lock();
    let (ended, reason) = match carried {
        Ok(trailers) if trailers.0.is_empty() => {
            let sent = stream.send_data(Bytes::new(), true);
            return if sent.is_ok() { Ended::Whole } else { Ended::GivenUp };
        }
        Ok(trailers) => {
            let sent = stream.send_trailers(header_map(&trailers));
            return if sent.is_ok() { Ended::Whole } else { Ended::GivenUp };
        }
        Err(BodyError::Unwritable) => (Ended::GivenUp, Reason::CANCEL),
        Err(BodyError::Blocked) => (Ended::Cut, Reason::CANCEL),
        Err(BodyError::Cut | BodyError::Malformed | BodyError::Idle) => (Ended::Cut, Reason::INTERNAL_ERROR),
    };
    stream.send_reset(reason);
    ended
}

fn header_map(fields: &Fields) -> HeaderMap {
    let named = answer_fields(fields);
    named
        .filter_map(|(name, value)| {
            Some((HeaderName::try_from(name).ok()?, HeaderValue::from_bytes(value).ok()?))
        })
        .collect()
}

/// The way of an answer's body. Its stream is looked at from two sides: whether there is room, and whether the
/// visitor has given it up.
struct Data(Mutex<SendStream<Bytes>>);

impl Data {
    fn lock(&self) -> MutexGuard<'_, SendStream<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncWrite for &Data {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut stream = self.lock();
        stream.reserve_capacity(bytes.len());
        while stream.capacity() == 0 {
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let piece = bytes.get(..stream.capacity().min(bytes.len())).unwrap_or_default();
        stream.send_data(Bytes::copy_from_slice(piece), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
