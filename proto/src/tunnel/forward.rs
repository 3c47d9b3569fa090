//! Heads, written anew for the next hop from what was understood of them.

use super::head::{Body, Field, Fields, Version};
use super::proxy::Visit;
use super::request::RequestHead;
use super::response::ResponseHead;

/// Fields that concern one hop (RFC 9110 §7.6.1), and those that frame a message.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
    "te",
    "transfer-encoding",
    "upgrade",
    "content-length",
];

/// Fields that only a gateway may set, beside all that begin with [`FORWARDED`]: what servers take for a
/// visitor's address, host or path, whatever stands in the request itself.
const OURS: [&str; 13] = [
    "forwarded",
    "x-forwarded",
    "x-real-ip",
    "client-ip",
    "x-client-ip",
    "true-client-ip",
    "x-cluster-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-original-url",
    "x-original-host",
    "x-original-forwarded-for",
    "x-rewrite-url",
];

const FORWARDED: &str = "x-forwarded-";

/// Fields that mean something only before the content: what routes, authenticates or describes a message
/// (RFC 9110 §6.5.1), beside all that begin with [`CONTENT`].
const NO_TRAILERS: [&str; 12] = [
    "host",
    "trailer",
    "authorization",
    "www-authenticate",
    "cookie",
    "set-cookie",
    "origin",
    "expect",
    "range",
    "location",
    "cache-control",
    "vary",
];

const CONTENT: &str = "content-";

/// Fields that `Connection` can't take away: without them a message means something else.
const KEPT: [&str; 12] = [
    "host",
    "cookie",
    "set-cookie",
    "authorization",
    "content-type",
    "content-encoding",
    "content-range",
    "range",
    "origin",
    "cache-control",
    "expect",
    "location",
];

/// How a body is written to the visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// As it is: it has a known length, none, or ends with the connection.
    Plain,
    /// In chunks.
    Chunked,
}

/// What a share changes of the requests to it. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The local server's `Host`, in the place of the visitor's.
    pub host: Option<String>,
    /// Whether `Authorization` was meant for the gateway, and ends there.
    pub without_authorization: bool,
}

/// The request's head for the local server. `Host` is the first field, on a line that localtunnel's client
/// finds to rewrite. `keep` is whether the connection is to stay behind the answer.
pub fn request_head(request: &RequestHead, visit: &Visit, rewrite: &Rewrite, keep: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    put(&mut out, &[request.method.as_bytes(), b" ", &request.target, b" HTTP/1.1\r\n"]);
    let host = request.authority.as_str();
    put_field(&mut out, "Host", rewrite.host.as_deref().unwrap_or(host));
    let dropped = named_by_connection(&request.fields);
    for field in &request.fields.0 {
        let ours =
            is_ours(&field.name) || rewrite.without_authorization && reads_as(&field.name, "authorization");
        if !ours && !is_dropped(field, &dropped) {
            put(&mut out, &[field.name.as_bytes(), b": ", &field.value, b"\r\n"]);
        }
    }
    put_field(&mut out, "X-Forwarded-For", &visit.forwarded_for());
    put_field(&mut out, "X-Forwarded-Proto", visit.scheme);
    put_field(&mut out, "X-Forwarded-Host", host);
    put_field(&mut out, "Forwarded", &visit.forwarded(host));
    match request.body {
        Body::None | Body::UntilClose => {}
        Body::Length(length) => put_field(&mut out, "Content-Length", &length.to_string()),
        Body::Chunked => put_field(&mut out, "Transfer-Encoding", "chunked"),
    }
    let trailers = request.fields.lists("te", "trailers");
    if trailers {
        put_field(&mut out, "TE", "trailers");
    }
    match &request.upgrade {
        Some(protocol) => {
            put_field(&mut out, "Connection", "Upgrade");
            put_field(&mut out, "Upgrade", protocol);
        }
        None => match (keep, trailers) {
            (true, true) => put_field(&mut out, "Connection", "TE"),
            // Saying nothing keeps it (RFC 9112 §9.3).
            (true, false) => {}
            (false, true) => put_field(&mut out, "Connection", "close, TE"),
            (false, false) => put_field(&mut out, "Connection", "close"),
        },
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The answer's head for a visitor who speaks `version`, and how its body goes on. `keep_alive` is whether
/// the visitor may ask again on this connection, as far as the request goes; what comes back is whether it
/// still may. `domain` is the zone that all names share.
pub fn response_head(
    response: &ResponseHead,
    version: Version,
    keep_alive: bool,
    domain: &str,
) -> (Vec<u8>, Framing, bool) {
    let mut out = Vec::with_capacity(1024);
    let status = response.status.to_string();
    put(&mut out, &[b"HTTP/1.1 ", status.as_bytes(), b" ", &response.reason, b"\r\n"]);
    let dropped = named_by_connection(&response.fields);
    for field in response.fields.0.iter().filter(|field| !is_dropped(field, &dropped)) {
        if field.is("set-cookie") {
            put(&mut out, &[field.name.as_bytes(), b": ", &own_cookie(&field.value, domain), b"\r\n"]);
        } else {
            put(&mut out, &[field.name.as_bytes(), b": ", &field.value, b"\r\n"]);
        }
    }
    if response.status < 200 {
        if let (101, Some(protocol)) = (response.status, response.fields.first("upgrade")) {
            put(&mut out, &[b"Connection: Upgrade\r\nUpgrade: ", protocol.as_bytes(), b"\r\n"]);
        }
        out.extend_from_slice(b"\r\n");
        return (out, Framing::Plain, keep_alive);
    }
    let mut keep_alive = keep_alive;
    let framing = match (response.body, response.length) {
        (Body::Chunked | Body::UntilClose, _) if version == Version::Current => {
            put_field(&mut out, "Transfer-Encoding", "chunked");
            Framing::Chunked
        }
        (Body::Chunked | Body::UntilClose, _) => {
            keep_alive = false;
            Framing::Plain
        }
        (Body::None | Body::Length(_), Some(length)) if response.status != 204 => {
            put_field(&mut out, "Content-Length", &length.to_string());
            Framing::Plain
        }
        (Body::None | Body::Length(_), _) => Framing::Plain,
    };
    if !keep_alive {
        put_field(&mut out, "Connection", "close");
    }
    out.extend_from_slice(b"\r\n");
    (out, framing, keep_alive)
}

/// Whether a field with this name may come behind the content. One that ends here, or is another one's to set,
/// may not come in by the back door either.
pub(super) fn may_trail(name: &str) -> bool {
    let listed = |names: &[&str]| names.iter().any(|other| reads_as(name, other));
    !(is_ours(name) || listed(&HOP_BY_HOP) || listed(&NO_TRAILERS) || begins_as(name, CONTENT))
}

fn is_ours(name: &str) -> bool {
    begins_as(name, FORWARDED) || OURS.iter().any(|ours| reads_as(name, ours))
}

fn begins_as(name: &str, start: &str) -> bool {
    name.get(..start.len()).is_some_and(|name| reads_as(name, start))
}

/// Whether some server takes the one name for the other.
fn reads_as(name: &str, other: &str) -> bool {
    let same = |(a, b): (u8, u8)| a.eq_ignore_ascii_case(&b) || (a == b'_' && b == b'-');
    name.len() == other.len() && name.bytes().zip(other.bytes()).all(same)
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn put_field(out: &mut Vec<u8>, name: &str, value: &str) {
    put(out, &[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
}

fn named_by_connection(fields: &Fields) -> Vec<&str> {
    let named = fields.all("connection").flat_map(|field| field.list());
    named.filter(|name| !KEPT.iter().any(|kept| name.eq_ignore_ascii_case(kept))).collect()
}

fn is_dropped(field: &Field, named: &[&str]) -> bool {
    HOP_BY_HOP.iter().any(|name| field.is(name)) || named.iter().any(|name| field.is(name))
}

/// The cookie, without a `Domain` that would hand it to the other names of the zone.
fn own_cookie(value: &[u8], domain: &str) -> Vec<u8> {
    let is_shared = |part: &&[u8]| {
        let Ok(text) = std::str::from_utf8(part) else { return false };
        let Some((name, of)) = text.split_once('=') else { return false };
        let of = of.trim().trim_matches(['.', '"']).to_ascii_lowercase();
        let parent = domain == of || domain.strip_suffix(&of).is_some_and(|rest| rest.ends_with('.'));
        name.trim().eq_ignore_ascii_case("domain") && parent
    };
    let parts: Vec<&[u8]> = value.split(|byte| *byte == b';').collect();
    let (cookie, attributes) =
        parts.split_first().map_or((&b""[..], &[][..]), |(first, rest)| (*first, rest));
    let kept: Vec<&[u8]> =
        std::iter::once(cookie).chain(attributes.iter().copied().filter(|part| !is_shared(part))).collect();
    kept.join(&b';')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &str) -> String {
        rewritten(fields, &Rewrite::default())
    }

    fn rewritten(fields: &str, rewrite: &Rewrite) -> String {
        let head = format!("GET /a HTTP/1.1\r\nhOsT: Nas.example.test:81\r\n{fields}\r\n");
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        let visit = Visit::new("192.0.2.1".parse().unwrap(), false, &request, &[]);
        String::from_utf8(request_head(&request, &visit, rewrite, false)).unwrap()
    }

    fn response(head: &str, version: Version) -> (String, Framing, bool) {
        let response = ResponseHead::parse(head.as_bytes(), "GET").unwrap();
        let (out, framing, keep_alive) = response_head(&response, version, true, "example.test");
        (String::from_utf8(out).unwrap(), framing, keep_alive)
    }

    #[test]
    fn a_request_is_written_anew() {
        assert_eq!(
            request(
                "Accept: */*\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_Proto: https\r\nforwarded: for=6.6.6.6\r\n"
            ),
            "GET /a HTTP/1.1\r\nHost: Nas.example.test:81\r\nAccept: */*\r\nX-Forwarded-For: 192.0.2.1\r\n\
             X-Forwarded-Proto: http\r\nX-Forwarded-Host: Nas.example.test:81\r\n\
             Forwarded: for=192.0.2.1;host=\"Nas.example.test:81\";proto=http\r\nConnection: close\r\n\r\n"
        );
        assert!(request("Content-Length: 5\r\n").contains("\r\nContent-Length: 5\r\nConnection: close\r\n"));
        assert!(request("transfer-encoding: chunked\r\n").contains("\r\nTransfer-Encoding: chunked\r\n"));
    }

    #[test]
    fn no_visitor_says_where_it_comes_from_or_where_it_goes() {
        let theirs = "X-Forwarded-For X_Forwarded_User X-FORWARDED-Prefix x-forwarded Forwarded X-Real-IP \
                      X_Real_Ip Client-IP X-Client-IP True-Client-IP CF-Connecting-IP X-Original-URL X-Rewrite_URL";
        for name in theirs.split_whitespace() {
            let out = request(&format!("{name}: evil\r\nX-Forward: kept\r\n"));
            assert!(!out.contains("evil") && out.contains("\r\nX-Forward: kept\r\n"), "{name}: {out}");
        }
    }

    #[test]
    fn a_share_chooses_its_host_and_keeps_its_password_from_the_local_server() {
        let rewrite = Rewrite { host: Some("127.0.0.1:8080".to_owned()), without_authorization: true };
        let out = rewritten("Authorization: Basic x\r\nA: b\r\n", &rewrite);
        assert!(out.starts_with("GET /a HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nA: b\r\n"), "{out}");
        assert!(out.contains("\r\nX-Forwarded-Host: Nas.example.test:81\r\n"), "{out}");
        assert!(request("Authorization: Basic x\r\n").contains("\r\nAuthorization: Basic x\r\n"));
    }

    #[test]
    fn what_concerns_one_hop_ends_here() {
        let out = request(
            "Connection: keep-alive, X-Drop, Cookie, Content-Length\r\nX-Drop: 1\r\nCookie: a=b\r\nKeep-Alive: 5\r\n\
             Proxy-Connection: x\r\nProxy-Authorization: x\r\nTE: trailers, gzip\r\nContent-Length: 0\r\n",
        );
        for gone in ["X-Drop", "Keep-Alive", "Proxy", "gzip", "keep-alive"] {
            assert!(!out.contains(gone), "{gone}: {out}");
        }
        for kept in [
            "\r\nCookie: a=b\r\n",
            "\r\nTE: trailers\r\nConnection: close, TE\r\n",
            "\r\nContent-Length: 0\r\n",
        ] {
            assert!(out.contains(kept), "{kept}: {out}");
        }
        let out = request("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n");
        assert!(out.ends_with("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), "{out}");
        let out = request("Upgrade: h2c\r\nConnection: upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\n");
        assert!(!out.to_ascii_lowercase().contains("h2c") && !out.contains("HTTP2"), "{out}");
    }

    #[test]
    fn an_answer_keeps_its_length_or_gets_chunks() {
        let (out, framing, keep) =
            response("HTTP/1.0 200 Fine\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", Version::Current);
        assert_eq!(
            (out.as_str(), framing, keep),
            ("HTTP/1.1 200 Fine\r\nContent-Length: 5\r\n\r\n", Framing::Plain, true)
        );
        let (out, framing, keep) = response("HTTP/1.1 200 OK\r\n\r\n", Version::Current);
        assert_eq!(
            (out.as_str(), framing, keep),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Framing::Chunked, true)
        );
        let (out, framing, keep) =
            response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Version::Old);
        assert_eq!(
            (out.as_str(), framing, keep),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", Framing::Plain, false)
        );
        let (out, ..) = response("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", Version::Current);
        assert_eq!(out, "HTTP/1.1 204 No\r\n\r\n");
        let (out, ..) = response("HTTP/1.1 304 No\r\nContent-Length: 5\r\nEtag: x\r\n\r\n", Version::Current);
        assert_eq!(out, "HTTP/1.1 304 No\r\nEtag: x\r\nContent-Length: 5\r\n\r\n");
        let (out, ..) = response(
            "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\nA: b\r\n\r\n",
            Version::Current,
        );
        assert_eq!(out, "HTTP/1.1 101 S\r\nA: b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    }

    #[test]
    fn a_cookie_stays_with_its_name() {
        let cookie =
            |value: &str| String::from_utf8(own_cookie(value.as_bytes(), "tun.example.test")).unwrap();
        assert_eq!(cookie("a=b; Domain=.Tun.example.test; Path=/"), "a=b; Path=/");
        assert_eq!(cookie("a=b;domain=example.test"), "a=b");
        assert_eq!(cookie("a=b; domain=nas.tun.example.test"), "a=b; domain=nas.tun.example.test");
        assert_eq!(cookie("domain=tun.example.test; Secure"), "domain=tun.example.test; Secure");
    }
}
