//! A stream of a visitor's that is a WebSocket (RFC 8441): to the gateway a connection that asks for an upgrade.

use std::future::poll_fn;
use std::io::Cursor;
use std::pin::pin;

use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use proto::tunnel::http2::websocket::{Answered, Handshake, agreed_fields};
use proto::tunnel::response::ResponseHead;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::data::{Data, Piece};
use super::pipe::{Gone, Near};
use super::stream::{Ended, answer, final_head, pass_on, through};
use crate::gateway::Gateway;
use crate::gateway::inbox::Inbox;
use crate::gateway::page::Page;
use crate::gateway::splice::copy;
use crate::gateway::unread::Bounded;

/// What a handshake's key is made of. It keeps no secret, and a system without randomness serves nobody anyhow.
pub(super) fn nonce() -> [u8; 16] {
    let mut nonce = [0; 16];
    let _same = SystemRandom::new().fill(&mut nonce);
    nonce
}

/// Carries it, from the answer to the handshake on.
pub(super) async fn exchange(
    gateway: &Gateway,
    Near { mut inbox, write, gone, cut }: Near,
    body: RecvStream,
    mut respond: SendResponse<Piece>,
    handshake: &Handshake,
) -> Ended {
    let ended = {
        let mut feeding = pin!(feed(body, write));
        let mut answering = pin!(back(gateway, &mut inbox, &mut respond, handshake, &cut));
        tokio::select! {
            biased;
            (ended, open) = &mut answering => match ended {
                // The other direction ends by itself.
                Ended::Whole if open => match feeding.await {
                    Fed::GivenUp => Ended::GivenUp,
                    Fed::Whole | Fed::Unwanted => Ended::Whole,
                },
                Ended::Whole | Ended::GivenUp | Ended::Cut => ended,
            },
            fed = &mut feeding => match fed {
                Fed::GivenUp => Ended::GivenUp,
                Fed::Whole | Fed::Unwanted => answering.await.0,
            },
        }
    };
    if ended != Ended::Whole {
        gone.away();
    }
    ended
}

/// How what a visitor has to say ended.
enum Fed {
    Whole,
    GivenUp,
    /// Nobody takes it any more.
    Unwanted,
}

/// Carries what the visitor says, which may begin before it has an answer.
async fn feed(mut body: RecvStream, mut to: impl AsyncWrite + Unpin) -> Fed {
    while let Some(data) = body.data().await {
        let Ok(data) = data else { return Fed::GivenUp };
        if to.write_all(&data).await.is_err() {
            return Fed::Unwanted;
        }
        let _ended = body.flow_control().release_capacity(data.len());
    }
    // Such a stream has no trailers (RFC 9113 §8.5).
    let Ok(None) = body.trailers().await else { return Fed::GivenUp };
    let _unwanted = to.shutdown().await;
    Fed::Whole
}

/// Carries the answer, and what comes behind it. Whether the stream has become a WebSocket is told, too.
async fn back(
    gateway: &Gateway,
    from: &mut Inbox,
    respond: &mut SendResponse<Piece>,
    handshake: &Handshake,
    cut: &Gone,
) -> (Ended, bool) {
    let (head, length) = match final_head(from, respond, "GET").await {
        Ok(head) => head,
        Err(ended) => return (ended, false),
    };
    match handshake.answered(&head) {
        Answered::Declined => (pass_on(gateway, from, (&head, length), respond).await, false),
        Answered::Broken => {
            let page = Page::failure(502, None, "What the local server began is no WebSocket.", "");
            let mut bytes = Inbox::new(Box::new(Cursor::new(page.bytes(None, false))));
            let told = answer(gateway, &mut bytes, respond, "GET").await;
            // Whatever the local server goes on with, nobody hears it.
            (if told == Ended::Whole { Ended::Cut } else { told }, false)
        }
        Answered::Agreed => match respond.send_response(agreed(&head), false) {
            Ok(stream) => (raw(gateway, from, Data::new(stream), cut).await, true),
            Err(_) => (Ended::GivenUp, false),
        },
    }
}

fn agreed(head: &ResponseHead) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::OK;
    for (name, value) in agreed_fields(head) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// Carries bytes to the visitor, until they end or break off.
async fn raw(gateway: &Gateway, from: &mut Inbox, to: Data, cut: &Gone) -> Ended {
    let blocked = gateway.config.limits.blocked;
    let (mut way, mut count) = (Bounded::new(&to, &gateway.unread), 0);
    let carried = async {
        copy(from, &mut way, blocked, &mut count).await.map_err(|_| ())?;
        if cut.is_away() {
            return Err(());
        }
        to.end().map_err(|_| ())?;
        through(&to, &mut way, blocked).await.map_err(|_| ())
    };
    let carried = tokio::select! {
        biased;
        carried = carried => carried,
        _reset = poll_fn(|cx| to.lock().poll_reset(cx)) => return Ended::GivenUp,
    };
    match carried {
        Ok(()) => Ended::Whole,
        Err(()) => {
            to.lock().send_reset(Reason::CANCEL);
            Ended::Cut
        }
    }
}
