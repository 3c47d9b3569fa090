//! One stream of a visitor: its request to the gateway, and the answer back.

use std::future::{pending, poll_fn};
use std::io::Cursor;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use proto::tunnel::chunk;
use proto::tunnel::forward::Framing;
use proto::tunnel::head::{BadHead, Body, Field, Fields};
use proto::tunnel::http2::websocket::Handshake;
use proto::tunnel::http2::{Http2Head, answer_fields};
use proto::tunnel::response::ResponseHead;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{Duration, timeout};

use super::data::{Data, Piece};
use super::pipe::{Near, pipe};
use super::websocket;
use crate::access_log::Entry;
use crate::gateway::Gateway;
use crate::gateway::body::{BodyError, Carry};
use crate::gateway::inbox::Inbox;
use crate::gateway::page::Page;
use crate::gateway::stayed::Stayed;
use crate::gateway::unread::Bounded;
use crate::http::Asker;

/// Bytes of the heads before an answer that are passed on: the library waits for nobody to read them.
const HINTS: usize = 16 * 1024;

/// A head that may wait by itself, when nothing else is left of its stream.
const SMALL_HEAD: usize = 4 * 1024;

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
    /// What has stayed behind the other streams of its connection.
    pub(super) stayed: Stayed,
    pub(super) request: Request<RecvStream>,
    pub(super) respond: SendResponse<Piece>,
}

impl Visit {
    /// Serves it as if it were a connection's only request.
    pub(super) async fn serve(self, gateway: Arc<Gateway>) -> Ended {
        let Self { asker, stop, stayed, request, mut respond } = self;
        let (head, body) = request.into_parts();
        let method = head.method.as_str();
        let asked = (asker.from.ip(), &head);
        let place = gateway.place(asker.from.ip());
        let (first, content) = match (written(&head, body.is_end_stream()), &place) {
            (Ok(written), Ok(_)) => written,
            (Err(why), _) => {
                gateway.counters.bad_heads.add();
                let page = Page::failure(why.status(), None, &format!("The request is refused: {why}."), "");
                return say(&gateway, &page, &mut respond, asked).await;
            }
            (Ok(_), Err(why)) => {
                return say(&gateway, &gateway.no_place(*why), &mut respond, asked).await;
            }
        };
        let (near, far) = pipe(first);
        let visiting = gateway.visit(gateway.unread.bound(far), asker, "2", stayed, stop);
        let exchanging = async {
            match content {
                Content::Body(framing) => exchange(&gateway, near, (body, framing), respond, method).await,
                Content::WebSocket(handshake) => {
                    websocket::exchange(&gateway, near, body, respond, &handshake).await
                }
            }
        };
        let ((), ended) = tokio::join!(visiting, exchanging);
        drop(place);
        ended
    }
}

/// What follows a head.
enum Content {
    Body(Framing),
    WebSocket(Handshake),
}

/// The head as the gateway reads it, and what follows.
fn written(head: &Parts, ended: bool) -> Result<(Vec<u8>, Content), BadHead> {
    let head = Http2Head {
        method: head.method.as_str(),
        scheme: head.uri.scheme_str(),
        authority: head.uri.authority().map(|authority| authority.as_str()),
        path: head.uri.path_and_query().map_or("/", |path| path.as_str()),
        protocol: head.extensions.get::<Protocol>().map(Protocol::as_str),
        fields: head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect(),
        ended,
    };
    if head.asks_for_protocol() {
        let mut handshake = head.to_handshake(websocket::nonce())?;
        return Ok((std::mem::take(&mut handshake.head), Content::WebSocket(handshake)));
    }
    let framing = if ended || head.length().is_some() { Framing::Plain } else { Framing::Chunked };
    Ok((head.to_http1()?, Content::Body(framing)))
}

/// Answers what somebody asked, and the gateway never saw, with a page of our own.
async fn say(
    gateway: &Gateway,
    page: &Page,
    respond: &mut SendResponse<Piece>,
    (client, asked): (IpAddr, &Parts),
) -> Ended {
    gateway.counters.answered(page.status);
    let method = asked.method.as_str();
    if let Some(log) = &gateway.config.access_log {
        let host = asked.uri.authority().map_or("-", |authority| authority.as_str());
        let (status, path) = (page.status, asked.uri.path().as_bytes());
        log.note(&Entry { status, method, host, path, ..Entry::nothing(client, "2") });
    }
    let mut bytes = Inbox::new(Box::new(Cursor::new(page.bytes(None, false))));
    answer(gateway, &mut bytes, respond, method).await
}

async fn exchange(
    gateway: &Gateway,
    Near { mut inbox, write, gone, cut: _ }: Near,
    (body, framing): (RecvStream, Framing),
    mut respond: SendResponse<Piece>,
    method: &str,
) -> Ended {
    let ended = {
        let feeding = pin!(feed(body, framing, write));
        let answering = pin!(answer(gateway, &mut inbox, &mut respond, method));
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
pub(super) async fn answer(
    gateway: &Gateway,
    from: &mut Inbox,
    respond: &mut SendResponse<Piece>,
    method: &str,
) -> Ended {
    match final_head(from, respond, method).await {
        Ok((head, length)) => pass_on(gateway, from, (&head, length), respond).await,
        Err(ended) => ended,
    }
}

/// The head of the final answer to `method`, and its length, once those before it are passed on; or how the stream has
/// ended instead.
pub(super) async fn final_head(
    from: &mut Inbox,
    respond: &mut SendResponse<Piece>,
    method: &str,
) -> Result<(ResponseHead, usize), Ended> {
    let mut hints = 0;
    loop {
        let (head, length) = next_head(from, respond, method).await?;
        if !head.is_interim() {
            return Ok((head, length));
        }
        hints += length;
        if hints <= HINTS {
            let _ended = respond.send_informational(response(&head));
        }
    }
}

/// Carries a final answer, of whose head that was the length.
pub(super) async fn pass_on(
    gateway: &Gateway,
    from: &mut Inbox,
    (head, length): (&ResponseHead, usize),
    respond: &mut SendResponse<Piece>,
) -> Ended {
    // The end of a long one goes behind it, so that it is seen when that has left.
    let at_once = matches!(head.body, Body::None | Body::Length(0)) && length <= SMALL_HEAD;
    match respond.send_response(response(head), at_once) {
        Ok(_) if at_once => Ended::Whole,
        Ok(stream) => carry(gateway, from, head.body, Data::new(stream)).await,
        Err(_) => Ended::GivenUp,
    }
}

async fn next_head(
    from: &mut Inbox,
    respond: &mut SendResponse<Piece>,
    method: &str,
) -> Result<(ResponseHead, usize), Ended> {
    let head = tokio::select! {
        biased;
        head = from.head(b"HTTP/1.") => head,
        _reset = poll_fn(|cx| respond.poll_reset(cx)) => return Err(Ended::GivenUp),
    };
    let head = head.ok().flatten();
    let read = head.and_then(|head| Some((ResponseHead::parse_forwarded(&head, method).ok()?, head.len())));
    read.ok_or_else(|| {
        respond.send_reset(Reason::INTERNAL_ERROR);
        Ended::Cut
    })
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

async fn carry(gateway: &Gateway, from: &mut Inbox, body: Body, to: Data) -> Ended {
    let blocked = gateway.config.limits.blocked;
    let carry = Carry { body, framing: Framing::Plain, before: Vec::new(), idle: None, blocked };
    let (mut way, sent) = (Bounded::new(&to, &gateway.unread), AtomicU64::new(0));
    let carried = async {
        let trailers = carry.run(from, &mut way, &sent).await?;
        let ended =
            if trailers.0.is_empty() { to.end() } else { to.lock().send_trailers(header_map(&trailers)) };
        ended.map_err(|_| BodyError::Unwritable)?;
        through(&to, &mut way, blocked).await
    };
    let carried = tokio::select! {
        biased;
        carried = carried => carried,
        _reset = poll_fn(|cx| to.lock().poll_reset(cx)) => return Ended::GivenUp,
    };
    let (ended, reason) = match carried {
        Ok(()) => return Ended::Whole,
        Err(BodyError::Unwritable) => (Ended::GivenUp, Reason::CANCEL),
        Err(BodyError::Blocked) => (Ended::Cut, Reason::CANCEL),
        Err(BodyError::Cut | BodyError::Malformed | BodyError::Idle) => (Ended::Cut, Reason::INTERNAL_ERROR),
    };
    to.lock().send_reset(reason);
    ended
}

/// Waits until an answer has left. What a visitor leaves unread is its stream's as long, and so is the time for it.
pub(super) async fn through(to: &Data, way: &mut Bounded<&Data>, blocked: Duration) -> Result<(), BodyError> {
    loop {
        let before = to.unsent();
        match timeout(blocked, way.shutdown()).await {
            Ok(Ok(())) => return Ok(()),
            Err(_) if to.unsent() < before => {}
            Ok(Err(_)) | Err(_) => return Err(BodyError::Blocked),
        }
    }
}

fn header_map(fields: &Fields) -> HeaderMap {
    let named = answer_fields(fields);
    named
        .filter_map(|(name, value)| {
            Some((HeaderName::try_from(name).ok()?, HeaderValue::from_bytes(value).ok()?))
        })
        .collect()
}
