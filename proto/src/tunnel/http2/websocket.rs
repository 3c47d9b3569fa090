//! WebSockets over HTTP/2 (RFC 8441), as the handshake of HTTP/1.1 (RFC 6455 §4) and back.
//!
//! Over HTTP/2 a stream is known for what it is, and nobody has to show that he has read the other's handshake.
//! The local server does it as it always does, so that the key is asked and the answer checked here.

use data_encoding::BASE64;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::super::head::{BadHead, Field};
use super::super::response::ResponseHead;
use super::{Http2Head, answer_fields, put};

/// What every server appends to the key (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Fields that the handshake has in HTTP/1.1 alone: of a visitor's they say nothing (RFC 8441 §5).
const HANDSHAKE: [&str; 2] = ["sec-websocket-key", "sec-websocket-accept"];

/// A handshake that a local server has yet to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The head in HTTP/1.1. Nothing but the bytes of the WebSocket follows it.
    pub head: Vec<u8>,
    accept: String,
}

/// What a local server's answer to a handshake comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// The stream is a WebSocket.
    Agreed,
    /// It is not, and the visitor gets this answer.
    Declined,
    /// It says so, and has not read the handshake, or calls something else a success: over HTTP/2 that would be a
    /// WebSocket.
    Broken,
}

impl Http2Head<'_> {
    /// Whether it asks for a stream of bytes, and not for an answer.
    pub fn asks_for_protocol(&self) -> bool {
        self.method == "CONNECT" && self.protocol.is_some()
    }

    /// The handshake of the WebSocket that it asks for. `nonce` is nobody else's.
    ///
    /// # Errors
    /// It asks for something else, or its head can't be one of HTTP/1.1.
    pub fn to_handshake(&self, nonce: [u8; 16]) -> Result<Handshake, BadHead> {
        let is_websocket = |protocol: &str| protocol.eq_ignore_ascii_case("websocket");
        if !self.asks_for_protocol() || !self.protocol.is_some_and(is_websocket) {
            return Err(BadHead::ProtocolNotServed);
        }
        if self.scheme.is_none() {
            return Err(BadHead::Scheme);
        }
        if self.length().is_some() {
            return Err(BadHead::UpgradeWithBody);
        }
        let key = BASE64.encode(&nonce);
        let mut head = self.written("GET", &HANDSHAKE)?;
        // What the visitor says in the WebSocket is never another request, whatever the answer is.
        put(&mut head, &[b"Connection: Upgrade, close\r\nUpgrade: websocket\r\n"]);
        put(&mut head, &[b"Sec-WebSocket-Key: ", key.as_bytes(), b"\r\n\r\n"]);
        let accept = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID].concat());
        Ok(Handshake { head, accept: BASE64.encode(accept.as_ref()) })
    }
}

impl Handshake {
    /// What this final answer to it is.
    pub fn answered(&self, answer: &ResponseHead) -> Answered {
        let mut accepts = answer.fields.all("sec-websocket-accept").map(Field::text);
        match (answer.status, accepts.next(), accepts.next()) {
            (101, Some(accept), None) if accept == self.accept => Answered::Agreed,
            (101 | 200..=299, ..) => Answered::Broken,
            _ => Answered::Declined,
        }
    }
}

/// The fields of an answer that agreed, as HTTP/2 carries them.
pub fn agreed_fields(answer: &ResponseHead) -> impl Iterator<Item = (String, &[u8])> {
    answer_fields(&answer.fields).filter(|(name, _)| !HANDSHAKE.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::super::super::head::{Body, Scan};
    use super::super::super::request::RequestHead;
    use super::*;

    const CHAT: Http2Head<'_> = Http2Head {
        method: "CONNECT",
        scheme: Some("https"),
        authority: Some("nas.example.test"),
        path: "/chat",
        protocol: Some("websocket"),
        fields: Vec::new(),
        ended: false,
    };

    /// That of RFC 6455 §1.3.
    const NONCE: [u8; 16] = *b"the sample nonce";

    fn answer(text: &str) -> ResponseHead {
        ResponseHead::parse(text.as_bytes(), "GET").unwrap()
    }

    #[test]
    fn a_websocket_is_asked_for_with_a_key_that_is_ours() {
        let fields: Vec<(&str, &[u8])> = vec![
            ("sec-websocket-version", b"13"),
            ("sec-websocket-key", b"x"),
            ("cookie", b"a=b"),
            ("origin", b"https://nas.example.test"),
        ];
        let handshake = Http2Head { fields, ..CHAT }.to_handshake(NONCE).unwrap();
        assert_eq!(
            String::from_utf8(handshake.head.clone()).unwrap(),
            "GET /chat HTTP/1.1\r\nHost: nas.example.test\r\nsec-websocket-version: 13\r\n\
             origin: https://nas.example.test\r\ncookie: a=b\r\nConnection: Upgrade, close\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        assert_eq!(Scan::default().find_end(&handshake.head), Ok(Some(handshake.head.len())));
        let request = RequestHead::parse(&handshake.head).unwrap();
        assert_eq!((request.upgrade.as_deref(), request.body), (Some("websocket"), Body::None));
        assert!(!request.keep_alive, "a second request could follow");
    }

    #[test]
    fn a_server_has_read_the_handshake_or_there_is_no_websocket() {
        let handshake = CHAT.to_handshake(NONCE).unwrap();
        let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        let judged = |text: &str| handshake.answered(&answer(text));
        assert_eq!(judged(&format!("HTTP/1.1 101 X\r\n{accept}\r\n")), Answered::Agreed);
        for broken in [
            "HTTP/1.1 101 X\r\n\r\n",
            "HTTP/1.1 101 X\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOp=\r\n\r\n",
            &format!("HTTP/1.1 101 X\r\n{accept}{accept}\r\n"),
            &format!("HTTP/1.1 200 OK\r\n{accept}\r\n"),
            "HTTP/1.1 204 X\r\n\r\n",
        ] {
            assert_eq!(judged(broken), Answered::Broken, "{broken}");
        }
        for declined in ["HTTP/1.1 401 X\r\n\r\n", "HTTP/1.1 302 X\r\n\r\n", "HTTP/1.1 503 X\r\n\r\n"] {
            assert_eq!(judged(declined), Answered::Declined, "{declined}");
        }
    }

    #[test]
    fn what_was_agreed_is_told_without_the_handshake_of_http_1() {
        let answer = answer(
            "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\
             Sec-WebSocket-Protocol: chat\r\n\r\n",
        );
        let told: Vec<_> = agreed_fields(&answer).collect();
        assert_eq!(told, [("sec-websocket-protocol".to_owned(), &b"chat"[..])]);
    }

    #[test]
    fn nothing_but_a_websocket_is_made_of_a_connect() {
        let refused = |head: Http2Head<'_>| head.to_handshake(NONCE).unwrap_err();
        for protocol in [None, Some(""), Some("connect-udp"), Some("h2c"), Some("websocket\r\nX: y")] {
            assert_eq!(refused(Http2Head { protocol, ..CHAT }), BadHead::ProtocolNotServed, "{protocol:?}");
        }
        assert_eq!(refused(Http2Head { method: "GET", ..CHAT }), BadHead::ProtocolNotServed);
        assert_eq!(refused(Http2Head { scheme: None, ..CHAT }), BadHead::Scheme);
        assert_eq!(refused(Http2Head { scheme: Some("wss"), ..CHAT }), BadHead::Scheme);
        assert_eq!(refused(Http2Head { authority: None, ..CHAT }), BadHead::NoHost);
        for path in ["", "chat", "/a b", "/a\r\nX: y"] {
            assert_eq!(refused(Http2Head { path, ..CHAT }), BadHead::Target, "{path:?}");
        }
        for (name, value, why) in [
            ("content-length", "0", BadHead::UpgradeWithBody),
            ("transfer-encoding", "chunked", BadHead::NotInHttp2),
            ("upgrade", "websocket", BadHead::NotInHttp2),
            ("x", "a\r\nb: c", BadHead::Control),
        ] {
            let fields = vec![(name, value.as_bytes())];
            assert_eq!(refused(Http2Head { fields, ..CHAT }), why, "{name}: {value:?}");
        }
        assert_eq!(CHAT.to_http1(), Err(BadHead::ProtocolNotServed));
    }
}
