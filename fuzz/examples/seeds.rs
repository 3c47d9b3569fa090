//! Writes the seeds of every corpus that has one: `cargo run --example seeds`, in `fuzz`.

use std::fs;
use std::path::Path;

use proto::id::{Instance, PeerId};
use proto::wire::relay::{Address, Challenge, Check, Data, Denial, Frame, Login};
use proto::wire::{body, frame};
use serde::Serialize;

#[path = "../../proto/tests/samples/mod.rs"]
mod samples;

fn main() {
    for (name, message) in samples::to_server() {
        seed("to_server", name, &[&[7], &frame(&message)[..]].concat());
        seed("matchmaker", name, &[&[0, 1, 5, 0, 1, 12, 0, 0][..], &sized(&message)].concat());
    }
    for (name, message) in samples::from_server() {
        seed("from_server", name, &[&[7], &frame(&message)[..]].concat());
        seed("session", name, &[&[5, 1, 0, 6, 9, 7][..], &sized(&message)].concat());
    }
    for (name, message) in samples::hellos() {
        seed("between_peers", name, &[&[7], &frame(&message)[..]].concat());
        seed("doorman", name, &[&[0, 4, 1][..], &sized(&message)].concat());
    }
    samples::welcomes()
        .iter()
        .for_each(|(name, it)| seed("between_peers", name, &[&[7], &frame(it)[..]].concat()));
    samples::opens()
        .iter()
        .for_each(|(name, it)| seed("between_peers", name, &[&[7], &frame(it)[..]].concat()));
    samples::to_gateway()
        .iter()
        .for_each(|(name, it)| seed("visitors", name, &[&[7], &frame(it)[..]].concat()));
    samples::from_gateway()
        .iter()
        .for_each(|(name, it)| seed("visitors", name, &[&[7], &frame(it)[..]].concat()));
    samples::visitors()
        .iter()
        .for_each(|(name, it)| seed("visitors", name, &[&[7], &frame(it)[..]].concat()));
    samples::offers().iter().for_each(|(name, it)| seed("signals", name, &body(it)));
    samples::offers()
        .iter()
        .for_each(|(name, it)| seed("doorman", name, &[&[0, 5, 1][..], &sized(it)].concat()));
    samples::answers().iter().for_each(|(name, it)| seed("signals", name, &body(it)));
    samples::trickles().iter().for_each(|(name, it)| seed("signals", name, &body(it)));
    for (name, datagram) in samples::stun() {
        let length = datagram.len() as u8;
        seed("stun", name, &datagram);
        seed("public_udp", name, &[&[9, length], &datagram[..], &[200, 4], b"echo"].concat());
        seed("path_agent", name, &[&[1, 0, 0, 3, 0, 6, length, 0, 6], &datagram[..]].concat());
    }
    relay_frames();
    http_heads();
    http2_heads();
    machines();
    texts();
}

fn http_heads() {
    let host = "Host: nas.example.test:81\r\n";
    for (name, text) in [
        (
            "get",
            format!(
                "GET /a?b HTTP/1.1\r\n{host}Accept: */*\r\nConnection: keep-alive, x-drop\r\nX-Drop: 1\r\n\r\n"
            ),
        ),
        ("post", format!("POST / HTTP/1.1\r\n{host}Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello")),
        (
            "chunked",
            format!(
                "PUT / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nTE: trailers\r\n\r\n5\r\nhello\r\n"
            ),
        ),
        ("websocket", format!("GET / HTTP/1.1\r\n{host}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n\0")),
        ("absolute", format!("GET http://nas.example.test:81/a HTTP/1.0\r\n{host}Forwarded: for=x\r\n\r\n")),
        (
            "smuggle",
            format!(
                "GET / HTTP/1.1\r\n{host}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "answer",
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Domain=example.test\r\nContent-Length: 2\r\n\r\nok"
                .to_owned(),
        ),
        (
            "agreed",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
                .to_owned(),
        ),
        ("chunks", "5;a=\"b\"\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n".to_owned()),
    ] {
        seed("http_head", name, text.as_bytes());
    }
}

fn http2_heads() {
    const ALL: u8 = 7;
    const WITH_BODY: u8 = 6;
    const PROTOCOL: u8 = 8;
    let (https, host) = ("https", "nas.example.test:81");
    for (name, flags, parts) in [
        ("get", ALL, &["GET", "/a?b", https, host, "accept", "*/*", "cookie", "a=b", "cookie", "c=d"][..]),
        ("upload", WITH_BODY, &["POST", "/", https, host, "content-type", "text/plain"]),
        ("length", WITH_BODY, &["PUT", "/", https, host, "content-length", "5", "te", "trailers"]),
        ("lengths", WITH_BODY, &["PUT", "/", https, host, "content-length", "5", "content-length", "6"]),
        ("host_alone", 1, &["GET", "/", "host", host]),
        ("two_hosts", ALL, &["GET", "/", https, host, "host", "nas.EXAMPLE.test"]),
        ("smuggle", ALL, &["GET", "/", https, host, "x", "a\r\nTransfer-Encoding: chunked"]),
        ("disguise", ALL, &["GET", "/", https, host, "content_length", "5", "transfer-encoding", "chunked"]),
        ("upgrade", ALL, &["GET", "/", https, host, "connection", "upgrade", "upgrade", "websocket"]),
        ("asterisk", ALL, &["OPTIONS", "*", https, host]),
        (
            "websocket",
            WITH_BODY | PROTOCOL,
            &["CONNECT", "/chat", https, host, "websocket", "sec-websocket-version", "13", "cookie", "a=b"],
        ),
        (
            "websocket_with_key",
            WITH_BODY | PROTOCOL,
            &[
                "CONNECT",
                "/",
                https,
                host,
                "WebSocket",
                "sec-websocket-key",
                "x",
                "sec-websocket-accept",
                "y",
            ],
        ),
        ("other_protocol", WITH_BODY | PROTOCOL, &["CONNECT", "/", https, host, "connect-udp"]),
        ("protocol_alone", ALL | PROTOCOL, &["GET", "/", https, host, "websocket"]),
        ("connect", WITH_BODY, &["CONNECT", "/", https, host]),
    ] {
        let parts = parts.iter().flat_map(|part| [&[part.len() as u8][..], part.as_bytes()].concat());
        seed("http2_head", name, &std::iter::once(flags).chain(parts).collect::<Vec<u8>>());
    }
}

fn relay_frames() {
    let peer = PeerId::from_bytes([0xaa; 32]);
    let remote = Address { peer, instance: Instance([0xbb; 8]) };
    let data = Data { remote, ecn: 2, segment: 8, packets: b"\x40packets\x40more" };
    for (name, frame) in [
        ("challenge", Frame::Challenge(Challenge { relay: peer, challenge: [0xcc; 32] })),
        ("login", Frame::Login(Login { from: remote, signature: [0xdd; 64] })),
        ("denied", Frame::Denied(Denial::Slow)),
        ("data", Frame::Data(data)),
        ("check", Frame::Check(Check { remote, datagram: b"stun" })),
        ("allow", Frame::Allow { from: remote, seconds: 60 }),
        ("ping", Frame::Ping([1; 8])),
        ("gone", Frame::Gone(remote)),
        ("restarting", Frame::Restarting(1500)),
    ] {
        seed("relay_frames", name, &frame.encode());
    }
}

/// The message with its length in one byte before it, as the scripts of the machines have it.
fn sized<T: Serialize>(message: &T) -> Vec<u8> {
    let body = body(message);
    [&[body.len().min(255) as u8], &body[..]].concat()
}

fn machines() {
    // Two peers join, the first shares, the second offers, they answer and trickle, one leaves.
    let exchange = [
        0, 1, 0, 2, 5, 0, 1, 5, 1, 2, 6, 0, 3, 8, 1, 1, 9, 9, 0, 1, 9, 10, 0, 1, 9, 10, 1, 2, 9, 11, 0, 1, 2,
        0,
    ];
    seed("matchmaker", "exchange", &exchange);
    // The same instance comes again and again, beyond what there is room for; then all fall silent.
    let crowd: Vec<u8> = (0..9).flat_map(|n| [0, 1, 5, n, 1, 6, n, 3]).chain([1, 255, 1, 255]).collect();
    seed("matchmaker", "crowd", &crowd);
    seed("session", "life", &[3, 1, 5, 0, 0, 6, 9, 5, 255, 5, 255, 5, 255, 2, 1, 5, 200, 0, 6, 9]);
    seed("doorman", "fresh", &[0, 1, 1, 7, 0, 1, 1, 7, 0, 2, 1, 8, 0, 0, 1, 1, 9, 0]);
    seed("doorman", "older", &[1, 1, 1, 7, 0, 2, 1, 8, 0, 3, 1, 9, 8, 0, 2, 1, 10, 200]);
    let proven = [1, 0, 0, 3, 0, 6, 0, 10, 10, 5, 0, 0, 7, 1, 0, 0, 40, 40, 0, 100, 100, 8, 0, 0];
    seed("path_agent", "proven", &proven);
    seed("path_agent", "learned", &[1, 0, 0, 4, 0, 14, 0, 4, 4, 5, 0, 0, 6, 0, 22, 9, 40, 1, 2, 0, 0]);
    let quic = [0x40; 40];
    let stun = proto::stun::binding_request([1; 12]);
    seed("demux", "mixed", &[&[0, 100, 0, 40][..], &quic, &stun, &[0; 20], &quic].concat());
    seed("demux", "cut", &[&[0, 90, 0, 40][..], &quic, &[0x10; 40], &[0xc0; 10]].concat());
}

fn texts() {
    let ticket = include_str!("../../proto/tests/pins/ticket.txt").trim();
    seed("ticket", "pinned", ticket.as_bytes());
    let code = ticket.trim_start_matches(proto::ticket::PREFIX).to_ascii_uppercase();
    let content = data_encoding::BASE32_NOPAD.decode(code.as_bytes()).expect("a ticket");
    seed("ticket", "content", &content[..content.len() - 4]);
    let id = PeerId::from_bytes([7; 32]).to_string();
    seed("identity", "peer", id.as_bytes());
    seed("identity", "name", b"calm-otter-lamp");
    let key =
        [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &[9; 32]].concat();
    seed("identity", "key", &key);
    seed("server_url", "https", b"https://example.com");
    seed("server_url", "pinned", format!("http://[2001:db8::1]:8080#{id}").as_bytes());
    seed("server_url", "bare", b"Example.com:8443");
    seed("target", "port", b"8000");
    seed("target", "name", b"nas.local:445");
    seed("target", "v6", b"[::1]:80");
    let relay = format!(r#"{{"url":"http://203.0.113.1:8080/relay","peer_id":"{id}"}}"#);
    let known = format!(
        r#"{{"version":1,"peer_id":"{id}","udp":["203.0.113.1:3478"],"udp_alternate":["[2001:db8::1]:3479"],"relays":[{relay}],"domain":"example.com"}}"#
    );
    seed("well_known", "document", known.as_bytes());
    seed(
        "config_file",
        "options",
        b"json = true\n[share]\nserver = \"http://203.0.113.1:8080\"\nname = \"nas\"\n",
    );
    seed("config_file", "mistyped", b"[share]\nsever = [1, 2.5]\n");
    seed("state_file", "fits", b"\x01{\"a\": \"some text\"}\n");
    seed("state_file", "other", b"\x01[1]\n");
    seed("state_file", "newer", b"\x00culvert-state 2 sha256=00\n{}\n");
}

fn seed(target: &str, name: &str, bytes: &[u8]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&directory).expect("a directory");
    fs::write(directory.join(name), bytes).expect("a file");
}
