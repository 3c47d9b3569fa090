//! The heads of HTTP: what is forwarded is what was asked, whichever version it came in.

use proto::tunnel::chunk::{ChunkReader, Piece};
use proto::tunnel::forward::{Rewrite, request_head, response_head};
use proto::tunnel::head::{BadHead, Body, MAX_FIELDS, MAX_HEAD, Scan, Version};
use proto::tunnel::host::Authority;
use proto::tunnel::http2::{Http2Head, answer_fields};
use proto::tunnel::proxy::Visit;
use proto::tunnel::request::RequestHead;
use proto::tunnel::response::ResponseHead;

/// The targets here, by the names of their corpora.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[("http_head", http_head), ("http2_head", http2_head)];

/// A visitor's request, a local server's answer, and a chunked body. What is forwarded of a request is read
/// again as the same request.
pub fn http_head(data: &[u8]) {
    let mut scan = Scan::default();
    if let Ok(Some(end)) = scan.find_end(data) {
        assert!(data[..end].ends_with(b"\r\n\r\n") && end <= MAX_HEAD);
        if let Ok(request) = RequestHead::parse(&data[..end]) {
            forwards_faithfully(&request);
        }
        if let Ok(response) = ResponseHead::parse(&data[..end], "GET") {
            let (head, ..) = response_head(&response, Version::Current, true, "example.test");
            let again = ResponseHead::parse_forwarded(&head, "GET").expect("what we write is an answer");
            assert_eq!(again.status, response.status);
        }
    }
    let mut reader = ChunkReader::default();
    let mut at = 0;
    while let Ok((framing, piece)) = reader.read(&data[at..]) {
        at += framing;
        match piece {
            Piece::Data(length) => at += length,
            Piece::More | Piece::End(_) => break,
        }
    }
    assert!(at <= data.len());
}

/// Fields that a request gets on its way: `Host`, four that say from whom it comes, and `Connection`.
const OURS: usize = 6;

fn forwards_faithfully(request: &RequestHead) {
    let visit = Visit::new([192, 0, 2, 1].into(), false, request, &[]);
    let head = request_head(request, &visit, &Rewrite::default(), false);
    let mut scan = Scan::default();
    assert_eq!(scan.find_end(&head), Ok(Some(head.len())), "the head is one head");
    let again = match RequestHead::parse(&head) {
        // As many as we read ourselves, and ours: whoever gets them has limits of his own.
        Err(BadHead::TooManyFields) if request.fields.0.len() + OURS > MAX_FIELDS => return,
        again => again.expect("what we write is a request"),
    };
    assert_eq!((&again.method, &again.target), (&request.method, &request.target));
    assert_eq!((again.authority.as_str(), again.body), (request.authority.as_str(), request.body));
    assert_eq!(again.upgrade, request.upgrade);
    let from: Vec<_> = again.fields.all("x-forwarded-for").map(|field| field.text().to_owned()).collect();
    assert_eq!(from, ["192.0.2.1"]);
}

/// Which parts a head of HTTP/2 has, in the first byte of its script.
const ENDED: u8 = 1;
const SCHEME: u8 = 2;
const AUTHORITY: u8 = 4;
const PROTOCOL: u8 = 8;

/// A request as HTTP/2 carries it, part by part with a length before each: method, path, scheme, authority and protocol
/// where there are any, then fields. What comes of it in HTTP/1.1 has a line for each of its fields and no other, and
/// is read as the same request, or as the handshake of a WebSocket. Its fields are an answer's, too.
pub fn http2_head(data: &[u8]) {
    let Some((&flags, mut rest)) = data.split_first() else { return };
    let (Some(method), Some(path)) = (text(&mut rest), text(&mut rest)) else { return };
    let mut optional = |flag| (flags & flag != 0).then(|| text(&mut rest).unwrap_or_default());
    let (scheme, authority, protocol) = (optional(SCHEME), optional(AUTHORITY), optional(PROTOCOL));
    let mut fields = Vec::new();
    while let Some(name) = text(&mut rest) {
        fields.push((name, part(&mut rest).unwrap_or_default()));
    }
    let head = Http2Head { method, scheme, authority, path, protocol, fields, ended: flags & ENDED != 0 };
    if head.asks_for_protocol() {
        return asks_for_a_websocket(&head);
    }
    let Ok(written) = head.to_http1() else { return };
    let chunked = !head.ended && named(&head, "content-length") == 0;
    is_one_head(&head, &written, usize::from(chunked));
    if let Ok(request) = RequestHead::parse(&written) {
        is_the_same(&head, &request, chunked);
    }
    answers_over_http2(&written);
}

fn named(head: &Http2Head<'_>, name: &str) -> usize {
    head.fields.iter().filter(|(field, _)| *field == name).count()
}

/// It has a line for each of the fields, and so many others.
fn is_one_head(head: &Http2Head<'_>, written: &[u8], more: usize) {
    match Scan::default().find_end(written) {
        Ok(end) => assert_eq!(end, Some(written.len()), "it is one head"),
        Err(_) => assert!(written.len() > MAX_HEAD, "it has bytes that no head has"),
    }
    // The first line, Host, the fields, and the empty one.
    let others = head.fields.len() - named(head, "host") - named(head, "cookie");
    let expected = 3 + others + usize::from(named(head, "cookie") > 0) + more;
    assert_eq!(written.windows(2).filter(|two| two == b"\r\n").count(), expected, "each field is one line");
}

/// Nothing but a handshake comes of it, whose key is ours.
fn asks_for_a_websocket(head: &Http2Head<'_>) {
    let Ok(handshake) = head.to_handshake([7; 16]) else { return };
    let theirs = ["sec-websocket-key", "sec-websocket-accept"];
    let fields = head.fields.iter().filter(|(name, _)| !theirs.contains(name)).copied().collect();
    is_one_head(&Http2Head { fields, ..head.clone() }, &handshake.head, 3);
    let Ok(request) = RequestHead::parse(&handshake.head) else { return };
    assert_eq!((request.method.as_str(), request.target.as_slice()), ("GET", head.path.as_bytes()));
    assert_eq!((request.upgrade.as_deref(), request.body), (Some("websocket"), Body::None));
    assert!(!request.keep_alive, "another request may follow");
    let keys: Vec<_> = request.fields.all("sec-websocket-key").map(|field| field.text().to_owned()).collect();
    assert_eq!(keys, ["BwcHBwcHBwcHBwcHBwcHBw=="]);
}

fn is_the_same(head: &Http2Head<'_>, request: &RequestHead, chunked: bool) {
    assert_eq!((request.method.as_str(), request.target.as_slice()), (head.method, head.path.as_bytes()));
    assert_eq!((request.version, &request.upgrade), (Version::Current, &None));
    let field = |name| head.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| *value);
    for host in head.authority.map(str::as_bytes).into_iter().chain(field("host")) {
        let host = Authority::parse(host).expect("a host that was let in");
        assert!(host.same_as(&request.authority), "it is for somebody else");
    }
    match request.body {
        Body::Chunked => assert!(chunked),
        Body::Length(length) => {
            let said = std::str::from_utf8(field("content-length").expect("a length that was said"));
            assert_eq!(said.expect("digits").parse(), Ok(length));
        }
        Body::None => assert!(head.ended && field("content-length").is_none()),
        Body::UntilClose => panic!("no request ends so"),
    }
}

/// The same fields as an answer's.
fn answers_over_http2(head: &[u8]) {
    let Some(at) = head.windows(2).position(|two| two == b"\r\n") else { return };
    let answer = [b"HTTP/1.1 200 OK", &head[at..]].concat();
    let Ok(answer) = ResponseHead::parse(&answer, "GET") else { return };
    for (name, _) in answer_fields(&answer.fields) {
        assert_eq!(name, name.to_ascii_lowercase());
        assert!(
            !["connection", "transfer-encoding", "upgrade", "keep-alive"].contains(&name.as_str()),
            "{name}"
        );
    }
}

/// The next part of a script: as many bytes as the one before them says, or all that are left.
fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (&length, after) = rest.split_first()?;
    let (part, after) = after.split_at(usize::from(length).min(after.len()));
    *rest = after;
    Some(part)
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(part(rest)?).ok()
}
