//! `GET /relay`: from HTTP to WebSocket (RFC 6455 §4.2).

use std::net::IpAddr;

use data_encoding::BASE64URL_NOPAD;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, StatusCode, Version};
use proto::tunnel::proxy::{Cidr, client};
use proto::wire::relay::{Denial, FIRST_HEADER, MAX_FIRST, SUBPROTOCOL};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::http::{Page, text};

/// Checks that a request asks for our WebSocket: what to answer, either way.
#[allow(clippy::result_large_err, reason = "either is a page, made once for a connection")]
pub(super) fn check(request: &Request<Incoming>) -> Result<Page, Page> {
    let headers = request.headers();
    let websocket = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && has_token(headers, CONNECTION, "upgrade")
        && has_token(headers, UPGRADE, "websocket");
    if !websocket {
        return Err(upgrade_required("This is a Culvert relay: peers connect here with WebSocket.\n"));
    }
    if headers.contains_key(ORIGIN) {
        return Err(text(StatusCode::FORBIDDEN, "Web pages have no business here.\n"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(upgrade_required("Only version 13 of WebSocket is spoken here.\n"));
    }
    if !has_token(headers, SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        let known = format!("Only the subprotocol {SUBPROTOCOL} is spoken here.\n");
        return Err(text(StatusCode::BAD_REQUEST, known));
    }
    // 16 bytes in base64: what they are is the client's affair.
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24) else {
        return Err(text(StatusCode::BAD_REQUEST, "The request has no Sec-WebSocket-Key.\n"));
    };
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| text(StatusCode::BAD_REQUEST, ""))?;
    let mut page = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = page.headers_mut();
    headers.remove(hyper::header::CONTENT_TYPE);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(page)
}

/// Whom a connection counts for. None: nobody in particular, as for what comes from this machine, where a proxy may stand
/// that says nothing, or from such a proxy elsewhere.
pub(super) fn source(headers: &HeaderMap, from: IpAddr, trusted: &[Cidr]) -> Option<IpAddr> {
    let values = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let claimed: Vec<&str> =
        values.flat_map(|value| value.split(',')).map(str::trim).filter(|ip| !ip.is_empty()).collect();
    client(from, &claimed, trusted).filter(|ip| !ip.is_loopback())
}

/// The packet for the server's own services that comes with a request; none, where there is no such header, or nothing in
/// it that could be one.
pub(super) fn first(headers: &HeaderMap) -> Option<Vec<u8>> {
    let text = headers.get(FIRST_HEADER)?.as_bytes();
    if BASE64URL_NOPAD.decode_len(text.len()).ok()? > MAX_FIRST {
        return None;
    }
    BASE64URL_NOPAD.decode(text).ok()
}

/// What somebody hears who is not even let in.
pub(super) fn denied(why: Denial) -> Page {
    let status = match why {
        Denial::Limited => StatusCode::TOO_MANY_REQUESTS,
        Denial::Full
        | Denial::Restarting
        | Denial::BadLogin
        | Denial::Replaced
        | Denial::Protocol
        | Denial::Silent
        | Denial::Slow => StatusCode::SERVICE_UNAVAILABLE,
    };
    text(status, format!("The relay does not take this connection: {}.\n", why.name()))
}

fn upgrade_required(words: &'static str) -> Page {
    let mut page = text(StatusCode::UPGRADE_REQUIRED, words);
    page.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    page.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    page.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    page
}

/// Whether a header that is a list has this word, in any case.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    let mut words = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    words.any(|word| word.trim().eq_ignore_ascii_case(token))
}
