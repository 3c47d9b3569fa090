//! What anybody may ask: STUN, echo, HTTP. And what the operator may.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod support;

use proto::id::Instance;
use proto::limit::Rate;
use proto::matchmaker::MatchmakerConfig;
use proto::stun::{self, BindingAnswer, Change};
use proto::wire::frame;
use proto::wire::session::{ALPN, ToServer};
use relay::gateway::GatewayLimits;
use rendezvous::{Alternate, Bind, Limits, Server, ServerConfig, WellKnown};
use std::net::SocketAddr;
use std::time::Duration;
use support::{
    Client, body, get, http, loopback, metric, offer, receive, share, start, trickle, try_start, udp, until,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn any_address() -> Bind {
    Bind::exactly("[::]:0".parse().unwrap())
}

#[tokio::test]
async fn a_stun_client_learns_its_address_at_either_port() {
    let server = start(loopback());
    for to in [server.udp_addrs()[0], server.udp_alternate_addrs()[0]] {
        let socket = udp(to).await;
        socket.send(&stun::binding_request([7; 12])).await.unwrap();
        let answer = receive(&socket).await;
        assert_eq!(stun::mapped_address(&answer, [7; 12]), socket.local_addr().ok());
    }
    assert_eq!(server.stats().udp.stun_answered, 2);
}

/// A server with two addresses and both ports on each, wherever two such ports are free.
fn start_with_two_addresses() -> Server {
    loop {
        let free = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (first, second) = (free(), free());
        let ports = [first, second].map(|socket| socket.local_addr().unwrap().port());
        let at = |ip: &str, port: u16| Bind::exactly(format!("{ip}:{port}").parse().unwrap());
        let [first, second] = ports;
        let alternates = vec![at("127.0.0.1", second), at("127.0.0.2", first), at("127.0.0.2", second)];
        let udp_alternate = Alternate::At(alternates);
        let config = ServerConfig { udp: at("127.0.0.1", first), udp_alternate, ..loopback() };
        match try_start(config) {
            Ok(server) => return server,
            Err(error) => assert!(error.to_string().contains("taken"), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_server_with_two_addresses_names_the_other_and_answers_from_it() {
    let server = start_with_two_addresses();
    let asked = server.udp_addrs()[0];
    let [same_ip, _, other] = server.udp_alternate_addrs() else { panic!("three alternates") };
    let socket = udp(asked).await;
    socket.send(&stun::binding_request([7; 12])).await.unwrap();
    let answer = BindingAnswer::read(&receive(&socket).await, [7; 12]).unwrap();
    assert_eq!(answer.other, Some(*other));
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for (change, from) in [(Change::NONE, asked), (Change::PORT, *same_ip), (Change::BOTH, *other)] {
        socket.send_to(&stun::change_request([7; 12], change), asked).await.unwrap();
        let mut buffer = [0; 1500];
        let (size, source) = socket.recv_from(&mut buffer).await.unwrap();
        assert_eq!(source, from, "{change:?}");
        assert_eq!(stun::mapped_address(&buffer[..size], [7; 12]), socket.local_addr().ok());
    }
}

#[tokio::test]
async fn a_server_with_one_address_names_no_other_and_answers_from_its_second_port() {
    let server = start(ServerConfig { udp: any_address(), ..loopback() });
    let port = |addr: &SocketAddr| addr.port();
    let asked: SocketAddr = format!("127.0.0.2:{}", port(&server.udp_addrs()[0])).parse().unwrap();
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&stun::change_request([7; 12], Change::PORT), asked).await.unwrap();
    let mut buffer = [0; 1500];
    let (size, source) = socket.recv_from(&mut buffer).await.unwrap();
    let second = SocketAddr::new(asked.ip(), port(&server.udp_alternate_addrs()[0]));
    assert_eq!(source, second, "from the address that was asked");
    assert_eq!(BindingAnswer::read(&buffer[..size], [7; 12]).unwrap().other, None);
    socket.send_to(&stun::change_request([7; 12], Change::BOTH), asked).await.unwrap();
    until("it is counted", || server.stats().udp.stun_unchangeable == 1).await;
}

#[tokio::test]
async fn a_wildcard_server_answers_from_the_address_that_was_asked() {
    let server = start(ServerConfig { udp: any_address(), ..loopback() });
    // All of 127/8 is this machine, and only an answer from the very address passes a connected socket.
    let to: SocketAddr = format!("127.0.0.2:{}", server.udp_addrs()[0].port()).parse().unwrap();
    let socket = udp(to).await;
    socket.send(&stun::binding_request([7; 12])).await.unwrap();
    assert_eq!(stun::mapped_address(&receive(&socket).await, [7; 12]), socket.local_addr().ok());
    socket.send(b"echo").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let expected = format!(r#"{{"address":"127.0.0.1","family":"IPv4","port":{port},"size":4}}"#);
    assert_eq!(String::from_utf8(receive(&socket).await).unwrap(), expected);
}

#[tokio::test]
async fn echo_is_five_at_once() {
    let server = start(loopback());
    let socket = udp(server.udp_addrs()[0]).await;
    for _ in 0..20 {
        socket.send(b"echo").await.unwrap();
    }
    until("all 20 were looked at", || {
        let udp = server.stats().udp;
        udp.echo_answered + udp.limited == 20
    })
    .await;
    // One more a second: a slow machine may have taken one.
    assert!((5..=7).contains(&server.stats().udp.echo_answered));
}

#[tokio::test]
async fn without_echo_there_is_no_answer() {
    let server = start(ServerConfig { echo: false, ..loopback() });
    let socket = udp(server.udp_addrs()[0]).await;
    socket.send(b"echo").await.unwrap();
    socket.send(&stun::binding_request([7; 12])).await.unwrap();
    assert!(stun::mapped_address(&receive(&socket).await, [7; 12]).is_some(), "the first answer is to STUN");
    assert_eq!(server.stats().udp.malformed, 1);
}

#[tokio::test]
async fn the_well_known_document_names_the_server() {
    let server = start(ServerConfig { domain: "example.test".to_owned(), ..loopback() });
    let answer = get(server.http_addr(), "/.well-known/culvert").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    let (id, udp, alternate) = (server.peer_id(), server.udp_addrs()[0], server.udp_alternate_addrs()[0]);
    let relay = format!("http://{}/relay", server.http_addr());
    assert_eq!(
        body(&answer),
        format!(
            r#"{{"version":1,"peer_id":"{id}","udp":["{udp}"],"udp_alternate":["{alternate}"],"udp_ports":[{},{}],"relays":[{{"url":"{relay}","peer_id":"{id}"}}],"domain":"example.test"}}"#,
            udp.port(),
            alternate.port()
        )
    );
}

#[tokio::test]
async fn a_wildcard_server_names_the_address_by_which_it_was_asked() {
    let server = start(ServerConfig { udp: any_address(), http: any_address(), ..loopback() });
    let (udp, port) = (server.udp_addrs()[0].port(), server.http_addr().port());
    for ip in ["127.0.0.1", "[::1]"] {
        let Ok(to) = format!("{ip}:{port}").parse::<SocketAddr>() else { panic!() };
        if TcpStream::connect(to).await.is_err() {
            assert_eq!(ip, "[::1]", "this machine has no IPv6");
            continue;
        }
        let document: WellKnown = serde_json::from_str(body(&get(to, "/.well-known/culvert").await)).unwrap();
        assert_eq!(document.udp.first(), format!("{ip}:{udp}").parse().ok().as_ref());
    }
}

#[tokio::test]
async fn behind_a_proxy_the_public_url_names_the_address() {
    let public_url = Some("https://203.0.113.5".parse().unwrap());
    let server = start(ServerConfig { udp: any_address(), public_url, ..loopback() });
    let document: WellKnown =
        serde_json::from_str(body(&get(server.http_addr(), "/.well-known/culvert").await)).unwrap();
    let expected = SocketAddr::new([203, 0, 113, 5].into(), server.udp_addrs()[0].port());
    assert_eq!(document.udp.first(), Some(&expected));
    let page = get(server.http_addr(), "/").await;
    assert!(page.contains("--server 'https://203.0.113.5'"), "{page}");
}

#[tokio::test]
async fn people_and_programs_get_a_page_of_their_own() {
    let domain = "<script>.test".to_owned();
    let server = start(ServerConfig { domain, ..loopback() });
    let to = server.http_addr();
    let (id, text) = (server.peer_id(), get(to, "/").await);
    assert!(text.contains(&format!("peer share 8000 --server 'http://{to}#{id}'")), "{text}");
    let html =
        http(to, "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html,*/*\r\nConnection: close\r\n\r\n")
            .await;
    assert!(html.contains("<h1>Culvert</h1>") && !html.contains("<script>"), "{html}");
    assert!(get(to, "/nothing/at/all").await.starts_with("HTTP/1.1 404 "));
    let post =
        http(to, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx")
            .await;
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
}

#[tokio::test]
async fn a_head_that_never_ends_is_given_up() {
    let gateway = GatewayLimits { head: Duration::from_millis(50), ..GatewayLimits::default() };
    let limits = Limits { gateway, ..Limits::default() };
    let server = start(ServerConfig { limits, ..loopback() });
    let mut slow = TcpStream::connect(server.http_addr()).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let mut rest = Vec::new();
    let _closed =
        tokio::time::timeout(support::PATIENCE, slow.read_to_end(&mut rest)).await.expect("still open");
    until("it is counted", || server.stats().gateway.slow_heads == 1).await;
}

#[tokio::test]
async fn a_server_that_stops_is_alive_and_not_ready() {
    let server = start(loopback());
    let to = server.admin_addr().unwrap();
    assert_eq!(body(&get(to, "/healthz").await), "ok\n");
    assert_eq!(body(&get(to, "/readyz").await), "ready\n");
    assert!(get(to, "/").await.starts_with("HTTP/1.1 404 "));

    // Saying goodbye to a session takes a moment, in which the operator's side still answers.
    let _session = Client::new().session(&server, 1).await;
    let (_, seen) = tokio::join!(server.shutdown(), async {
        let mut seen = get(to, "/readyz").await;
        while body(&seen) == "ready\n" {
            seen = get(to, "/readyz").await;
        }
        seen
    });
    assert!(seen.starts_with("HTTP/1.1 503 "), "{seen}");
}

/// The lines of the metrics that are still zero.
async fn still_zero(to: SocketAddr) -> Vec<String> {
    let answer = get(to, "/metrics").await;
    let lines = body(&answer).lines().filter(|line| line.ends_with(" 0"));
    let lines =
        lines.filter(|line| !line.starts_with("culvert_gateway") && !line.starts_with("culvert_tunnel"));
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn every_metric_moves() {
    let limits = Limits {
        retry_above: 0,
        handshakes_each: Rate { burst: 50, refill: Duration::from_secs(3600) },
        admin_connections: 3,
        queue: 4,
        ..Limits::default()
    };
    let offers_from = Rate { burst: 2, refill: Duration::from_secs(3600) };
    let returning = Duration::ZERO;
    let matchmaker = MatchmakerConfig { offers_from, returning, ..MatchmakerConfig::default() };
    let server = start(ServerConfig { limits, matchmaker, ..loopback() });
    assert_eq!(metric(&server, "culvert_sessions").await, 0);

    // Sessions: offers and signals of each kind.
    let (sharer, connector) = (Client::new(), Client::new());
    let mut sharing = sharer.session(&server, 1).await;
    sharing.register(7).await;
    let mut connecting = connector.session(&server, 2).await;
    for (share, nonce) in [(7, 1), (8, 2), (7, 3)] {
        connecting.send(ToServer::Offer { to: sharer.id(), offer: offer(share, nonce) }).await;
        connecting.next().await;
    }
    for nonce in [1, 9] {
        let (to, to_instance) = (sharer.id(), Instance([1; 8]));
        connecting.send(ToServer::Trickle { to, to_instance, trickle: trickle(nonce, 1) }).await;
    }
    connecting.ping(1).await;

    // Frames that are none, each on a session of its own; and one that is too slow.
    let out_of_bounds =
        ToServer::Hello { version: 1, instance: Instance([3; 8]), token: Some("x".repeat(300)) };
    for bytes in [vec![0xff, 0xff], vec![0, 1, 0xff], frame(&out_of_bounds)] {
        let mut bad = Client::new().open(server.udp_addrs()[0], server.peer_id()).await;
        bad.send.write_all(&bytes).await.unwrap();
        bad.closed_with().await;
    }
    let mut pings = Vec::new();
    (0..900).for_each(|n| pings.extend(frame(&ToServer::Ping(n))));
    let mut unread = Client::new().session(&server, 4).await;
    unread.send.write_all(&pings).await.unwrap();
    until("one is too slow", || server.stats().sessions_overflowed == 1).await;

    // Handshakes.
    assert!(Client::new().dial(server.udp_addrs()[0], server.peer_id(), b"other").await.is_err());
    while Client::new().dial(server.udp_addrs()[0], server.peer_id(), ALPN).await.is_ok() {}

    // Datagrams.
    let socket = udp(server.udp_addrs()[0]).await;
    let unanswerable = stun::change_request([2; 12], Change::BOTH);
    for datagram in [
        &stun::binding_request([1; 12])[..],
        &unanswerable,
        b"\0",
        b"echo",
        b"echo",
        b"echo",
        b"echo",
        b"echo",
        b"echo",
    ] {
        socket.send(datagram).await.unwrap();
    }
    until("one echo is too many", || server.stats().udp.limited > 0).await;

    // HTTP.
    get(server.http_addr(), "/").await;
    get(server.http_addr(), "/nothing/at/all").await;
    let admin = server.admin_addr().unwrap();
    http(admin, "no request at all\r\n\r\n").await;
    let open =
        [TcpStream::connect(admin).await, TcpStream::connect(admin).await, TcpStream::connect(admin).await];
    assert!(open.iter().all(Result::is_ok));
    assert_eq!(get_or_nothing(admin).await, "");
    until("one connection was too many", || server.stats().http_refused > 0).await;

    // The gateway and the relay have tests of their own, and so has a socket without room.
    drop(open);
    assert!(server.stats().sessions_opened.udp_v4 > 2);
    let mut still_zero = still_zero(server.admin_addr().unwrap()).await;
    // What is wrong with a deployment, and the ways that no session came by here.
    let elsewhere =
        ["culvert_relay_", "culvert_warnings", "culvert_sessions_by_way", "culvert_sessions_opened_total"];
    still_zero.retain(|line| !elsewhere.iter().any(|name| line.starts_with(name)));
    assert_eq!(still_zero, ["culvert_udp_answers_dropped_total 0"]);
    sharing.send(ToServer::Unregister { share: share(7) }).await;
    until("the share is gone", || server.stats().matchmaker.shares == 0).await;
}

async fn get_or_nothing(to: SocketAddr) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let _refused = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let mut answer = String::new();
    let _refused = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn the_default_second_port_is_done_without_where_it_is_taken() {
    // A pair of neighbours, the second of which is taken; a free first one is found by trying.
    for _ in 0..20 {
        let first = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let next = SocketAddr::new(first.ip(), first.port().saturating_add(1));
        let Ok(taken) = std::net::UdpSocket::bind(next) else { continue };
        let udp = Bind::preferring(first);
        let server = start(ServerConfig { udp: Bind { or_any_port: false, ..udp }, ..loopback() });
        assert!(server.udp_alternate_addrs().is_empty());
        drop(taken);
        let named = ServerConfig { udp_alternate: Alternate::At(vec![Bind::exactly(next)]), ..loopback() };
        assert_eq!(start(named).udp_alternate_addrs(), [next]);
        return;
    }
    panic!("no two neighbouring ports were free");
}
