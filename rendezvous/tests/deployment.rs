//! Where a server says that it is, and what it says is wrong, in the places where people put it.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proto::interface::OwnAddress;
use proto::wire::session::FromServer;
use proto::wire::signal::RelayHint;
use relay::net::{Asking, BoxFuture, IpFamily, Link, Listener, Net, NetworkChanges, OsNet, Stream};
use relay::standalone::{RelayConfig, StandAlone};
use rendezvous::{Alternate, Bind, Relaying, Server, ServerConfig, WellKnown};
use support::{Client, body, get, http, key, loopback, metric, start};

/// This machine's network, where each name is what a test says, and no interface has an address.
#[derive(Debug)]
struct Names(Vec<IpAddr>);

impl Names {
    fn are(all: &[&str]) -> Arc<Self> {
        Arc::new(Self(all.iter().map(|text| text.parse().unwrap()).collect()))
    }
}

impl Net for Names {
    fn bind_udp(&self, local: SocketAddr) -> io::Result<Arc<dyn Link>> {
        OsNet.bind_udp(local)
    }

    fn ask_udp(&self, to: SocketAddr) -> io::Result<Box<dyn Asking>> {
        OsNet.ask_udp(to)
    }

    fn interfaces(&self) -> io::Result<Vec<OwnAddress>> {
        Ok(Vec::new())
    }

    fn source_for(&self, to: SocketAddr) -> io::Result<IpAddr> {
        OsNet.source_for(to)
    }

    fn watch_changes(&self) -> Box<dyn NetworkChanges> {
        OsNet.watch_changes()
    }

    fn connect_tcp(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        OsNet.connect_tcp(to)
    }

    fn listen_tcp(&self, local: SocketAddr) -> io::Result<Box<dyn Listener>> {
        OsNet.listen_tcp(local)
    }

    /// With no address at all, there is no resolver, and it takes for ever to find that out.
    fn resolve<'a>(
        &'a self,
        _host: &'a str,
        port: u16,
        family: IpFamily,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let all = self.0.iter().map(|ip| SocketAddr::new(*ip, port));
        let found = all.filter(|addr| addr.is_ipv4() == (family == IpFamily::V4)).collect();
        let is_silent = self.0.is_empty();
        Box::pin(async move { if is_silent { std::future::pending().await } else { Ok(found) } })
    }
}

fn any() -> Bind {
    Bind::exactly("[::]:0".parse().unwrap())
}

fn start_in(net: Arc<Names>, config: ServerConfig) -> Server {
    Server::start(config, &key(), net).unwrap()
}

/// What is told to whom nothing is known of, as behind a proxy.
async fn told_far_away(server: &Server, host: &str) -> WellKnown {
    let request =
        "GET /.well-known/culvert HTTP/1.1\r\nConnection: close\r\nX-Forwarded-For: 198.51.100.7\r\n";
    let answer = http(server.http_addr(), &format!("{request}Host: {host}\r\n\r\n")).await;
    serde_json::from_str(body(&answer)).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

async fn readyz(server: &Server) -> String {
    let answer = get(server.admin_addr().unwrap(), "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    body(&answer).to_owned()
}

/// Waits for a warning of this kind, and gives all of them.
async fn warned(server: &Server, kind: &str) -> String {
    let line = format!("culvert_warnings{{kind=\"{kind}\"}}");
    while metric(server, &line).await == 0 {
        tokio::task::yield_now().await;
    }
    let text = readyz(server).await;
    assert!(text.starts_with("ready\nwarning: "), "{text}");
    text
}

#[tokio::test]
async fn all_addresses_of_the_servers_name_are_told_in_both_families() {
    let net = Names::are(&["203.0.113.9", "2001:db8::9"]);
    for public_url in ["http://example.test".parse().ok(), None] {
        let domain = "example.test".to_owned();
        let server =
            start_in(Arc::clone(&net) as _, ServerConfig { udp: any(), public_url, domain, ..loopback() });
        let port = |addr: SocketAddr| addr.port();
        let (udp, second) = (port(server.udp_addrs()[0]), port(server.udp_alternate_addrs()[0]));
        let mut told = told_far_away(&server, "example.test").await;
        while told.udp.is_empty() {
            told = told_far_away(&server, "example.test").await;
        }
        let both = |port| ["203.0.113.9", "2001:db8::9"].map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
        assert_eq!((told.udp, told.udp_alternate), (both(udp).to_vec(), both(second).to_vec()));
    }
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_told_to_nobody_and_the_operator_is_warned() {
    for (found, kind) in [("127.0.1.1", "name_is_loopback"), ("10.0.0.5", "name_is_private")] {
        let public_url = "https://example.test".parse().ok();
        let server = start_in(Names::are(&[found]), ServerConfig { udp: any(), public_url, ..loopback() });
        let text = warned(&server, kind).await;
        assert!(text.contains(found) && text.contains("--udp-public"), "{text}");
        let told = told_far_away(&server, "example.test").await;
        assert!(told.udp.is_empty() && told.udp_alternate.is_empty(), "{told:?}");
        assert_eq!(told.relays[0].url, "https://example.test/relay", "the way that is left");
    }
}

#[tokio::test]
async fn a_family_that_is_not_bound_is_not_told_and_the_operator_is_warned() {
    let net = Names::are(&["2001:db8::9", "203.0.113.9"]);
    let udp = Bind::exactly("0.0.0.0:0".parse().unwrap());
    let server =
        start_in(net, ServerConfig { udp, public_url: "https://example.test".parse().ok(), ..loopback() });
    let text = warned(&server, "family_not_bound").await;
    assert!(text.contains("--udp [::]:3478"), "{text}");
    let told = told_far_away(&server, "example.test").await.udp;
    assert_eq!(told, [SocketAddr::new([203, 0, 113, 9].into(), server.udp_addrs()[0].port())]);
}

#[tokio::test]
async fn without_a_resolver_every_request_is_answered_at_once() {
    let public_url = "https://example.test".parse().ok();
    let server = start_in(Names::are(&[]), ServerConfig { udp: any(), public_url, ..loopback() });
    assert!(told_far_away(&server, "example.test").await.udp.is_empty());
    let here: WellKnown =
        serde_json::from_str(body(&get(server.http_addr(), "/.well-known/culvert").await)).unwrap();
    assert_eq!(here.udp, [SocketAddr::new([127, 0, 0, 1].into(), server.udp_addrs()[0].port())]);
}

#[tokio::test]
async fn what_the_operator_states_is_in_the_document_and_in_the_welcome() {
    let stated = ["203.0.113.1:13478", "203.0.113.1:13479", "[2001:db8::1]:3478"];
    let udp_public = stated.map(|text| text.parse().unwrap()).to_vec();
    let server = start(ServerConfig { udp: any(), udp_public, ..loopback() });
    let told = told_far_away(&server, "localhost").await;
    assert_eq!(told.udp[..2], [stated[0].parse().unwrap(), stated[2].parse().unwrap()]);
    let second = SocketAddr::new("2001:db8::1".parse().unwrap(), server.udp_alternate_addrs()[0].port());
    assert_eq!(told.udp_alternate[..2], [stated[1].parse().unwrap(), second]);
    let to = SocketAddr::new([127, 0, 0, 1].into(), server.udp_addrs()[0].port());
    let session = Client::new().session_at(to, server.peer_id(), 1).await;
    let Some(FromServer::Welcome { udp_alternate, .. }) = session.welcome else { panic!() };
    assert_eq!(udp_alternate, [stated[1].parse().unwrap(), second]);
}

#[tokio::test]
async fn the_page_for_people_names_a_url_that_they_can_use() {
    let page = async |server: &Server, fields: &str| {
        http(server.http_addr(), &format!("GET / HTTP/1.1\r\nConnection: close\r\n{fields}\r\n")).await
    };
    let server = start(loopback());
    let (id, far) = (server.peer_id(), "X-Forwarded-For: 198.51.100.7\r\n");
    let text = page(&server, "Host: 203.0.113.1:8080\r\n").await;
    assert!(text.contains(&format!("--server 'http://203.0.113.1:8080#{id}'")), "{text}");
    let server = start(ServerConfig { domain: "example.test".to_owned(), ..loopback() });
    let port = server.http_addr().port();
    for host in ["127.0.0.1:8080", "10.0.0.5:8080", "localhost", "example.test:80"] {
        let text = page(&server, &format!("Host: {host}\r\n{far}")).await;
        let expected =
            if host == "example.test:80" { host.to_owned() } else { format!("example.test:{port}") };
        assert!(text.contains(&format!("--server 'http://{expected}#")), "{host}: {text}");
    }
}

#[tokio::test]
async fn a_proxy_with_an_option_forgotten_is_said_so() {
    let trusted = vec!["127.0.0.0/8".parse().unwrap()];
    let public_url = "https://example.test".parse().ok();
    let config = ServerConfig { domain: "example.test".to_owned(), ..loopback() };
    let ask = async |config| {
        let server = start_in(Names::are(&["203.0.113.9"]), config);
        told_far_away(&server, "example.test").await;
        (readyz(&server).await, server)
    };
    let (text, _) = ask(config.clone()).await;
    assert!(text.contains("add --trusted-proxy 127.0.0.1") && text.contains("--public-url"), "{text}");
    let (text, _) = ask(ServerConfig { public_url: public_url.clone(), ..config.clone() }).await;
    assert!(text.contains("--trusted-proxy") && !text.contains("set --public-url"), "{text}");
    let whole = ServerConfig { public_url, trusted_proxies: trusted, udp: any(), ..config };
    let (text, _server) = ask(whole).await;
    assert_eq!(text, "ready\n");
}

#[tokio::test]
async fn under_a_name_that_nobody_can_claim_the_server_is_found_and_its_pages_are_not() {
    let server = start(ServerConfig { domain: "example.test".to_owned(), ..loopback() });
    let id = server.peer_id();
    let at = async |host: &str, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        http(server.http_addr(), &request).await
    };
    for host in ["gate.example.net:8080", "a.b.example.test", "example.net"] {
        let answer = at(host, "/.well-known/culvert").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(&id.to_string()), "{host}: {answer}");
        assert!(answer.contains(&format!("http://{host}/relay")), "{answer}");
        assert!(at(host, "/relay").await.starts_with("HTTP/1.1 426 "));
        for path in ["/", "/.well-known/culvert/", "/api/status"] {
            assert!(at(host, path).await.starts_with("HTTP/1.1 404 "), "{host}{path}");
        }
    }
    let text = readyz(&server).await;
    assert_eq!(text.matches("add --apex gate.example.net").count(), 1, "{text}");
}

#[tokio::test]
async fn under_a_name_that_could_be_claimed_the_server_is_not_found_and_the_operator_is_told_why() {
    let server = start(ServerConfig { domain: "example.test".to_owned(), ..loopback() });
    let request =
        "GET /.well-known/culvert HTTP/1.1\r\nHost: culvert.example.test\r\nConnection: close\r\n\r\n";
    let answer = http(server.http_addr(), request).await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("--apex"), "{answer}");
    assert!(readyz(&server).await.contains("add --apex culvert.example.test"));
    let apex = vec!["culvert.example.test".to_owned()];
    let server = start(ServerConfig { domain: "example.test".to_owned(), apex, ..loopback() });
    assert!(http(server.http_addr(), request).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(metric(&server, "culvert_warnings{kind=\"not_apex\"}").await, 0);
}

#[tokio::test]
async fn a_relay_that_is_away_is_told_last_behind_the_servers_own_and_the_operator_is_warned() {
    let any = Bind::exactly("127.0.0.1:0".parse().unwrap());
    let (limits, trusted_proxies) = (Default::default(), Vec::new());
    let config = RelayConfig { http: any, https: None, admin: None, trusted_proxies, limits };
    let there = StandAlone::start(config, key().peer_id(), &OsNet).unwrap();
    let hint = |addr: SocketAddr, peer_id| RelayHint { url: format!("http://{addr}/relay"), peer_id };
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // One is away, one is another relay than the operator thinks, one is there.
    let relays = vec![
        hint(closed, key().peer_id()),
        hint(there.http_addr(), key().peer_id()),
        hint(there.http_addr(), there.peer_id()),
    ];
    let relay = Relaying::Elsewhere { relays: relays.clone(), own: true };
    let server = start(ServerConfig { relay, udp_alternate: Alternate::NextPort, ..loopback() });
    while metric(&server, "culvert_warnings{kind=\"relay_away\"}").await < 2 {
        tokio::task::yield_now().await;
    }
    let text = readyz(&server).await;
    assert!(text.contains(&relays[0].url) && text.contains("another relay"), "{text}");
    let own = hint(server.http_addr(), server.peer_id());
    let expected = [&relays[2], &own, &relays[0], &relays[1]];
    let document: WellKnown =
        serde_json::from_str(body(&get(server.http_addr(), "/.well-known/culvert").await)).unwrap();
    let urls = |relays: &[&RelayHint]| relays.iter().map(|relay| relay.peer_id).collect::<Vec<_>>();
    assert_eq!(document.relays.iter().map(|relay| relay.peer_id).collect::<Vec<_>>(), urls(&expected));
    let session = Client::new().session(&server, 1).await;
    let Some(FromServer::Welcome { relays: told, .. }) = session.welcome else { panic!() };
    assert_eq!(told.iter().map(|relay| relay.peer_id).collect::<Vec<_>>(), urls(&expected));
    assert_eq!(told[1].url, "/relay");
    let up = format!("culvert_relay_up{{url=\"{}\"}}", relays[0].url);
    assert_eq!(metric(&server, &up).await, 0);
}
