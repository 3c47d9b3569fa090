//! Sessions over real QUIC on loopback.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod support;

use proto::id::Instance;
use proto::limit::Rate;
use proto::matchmaker::MatchmakerConfig;
use proto::wire::frame;
use proto::wire::session::{ALPN, FromServer, ToServer, Undeliverable, close};
use proto::wire::signal::Nonce;
use proto::wire::signal::RelayHint;
use quinn::ConnectionError;
use relay::tls::HandshakeFailure;
use rendezvous::Server;
use rendezvous::{Limits, ServerConfig};
use std::sync::Arc;
use std::time::Duration;
use support::{Client, answer, hello, key, loopback, offer, share, start, trickle};

/// The server's relay, as it tells its sessions: the URL is theirs to complete.
fn own_relay(server: &Server) -> Option<RelayHint> {
    Some(RelayHint { url: "/relay".to_owned(), peer_id: server.peer_id() })
}

#[tokio::test]
async fn an_offer_is_answered_and_both_sides_trickle() {
    let server = start(loopback());
    let (sharer, connector) = (Client::new(), Client::new());
    let mut sharing = sharer.session(&server, 1).await;
    let mut connecting = connector.session(&server, 2).await;
    sharing.register(7).await;

    connecting.send(ToServer::Offer { to: sharer.id(), offer: offer(7, 1) }).await;
    let forwarded = connecting.next().await;
    assert_eq!(
        forwarded,
        FromServer::Forwarded {
            offer: Nonce([1; 16]),
            to_instance: Instance([1; 8]),
            relay: own_relay(&server),
            nat: None,
        }
    );
    let observed = connector.endpoint.local_addr().unwrap();
    let offered = sharing.next().await;
    let (from, from_instance) = (connector.id(), Instance([2; 8]));
    assert_eq!(offered, FromServer::Offer { from, from_instance, observed, offer: offer(7, 1) });

    sharing.send(ToServer::Answer { to: from, to_instance: from_instance, answer: answer(1) }).await;
    let observed = sharer.endpoint.local_addr().ok();
    let (from, from_instance) = (sharer.id(), Instance([1; 8]));
    assert_eq!(
        connecting.next().await,
        FromServer::Answer { from, from_instance, observed, answer: answer(1) }
    );

    connecting.send(ToServer::Trickle { to: from, to_instance: from_instance, trickle: trickle(1, 1) }).await;
    let there = sharing.next().await;
    assert!(matches!(there, FromServer::Trickle { ref trickle, .. } if trickle.counter == 1), "{there:?}");
    let (to, to_instance) = (connector.id(), Instance([2; 8]));
    sharing.send(ToServer::Trickle { to, to_instance, trickle: trickle(1, 2) }).await;
    let back = connecting.next().await;
    assert!(matches!(back, FromServer::Trickle { ref trickle, .. } if trickle.counter == 2), "{back:?}");
}

#[tokio::test]
async fn a_welcome_names_the_observed_address_and_the_second_port() {
    let server = start(loopback());
    let client = Client::new();
    let session = client.session(&server, 1).await;
    let Some(FromServer::Welcome { observed, udp_alternate, .. }) = session.welcome else { panic!() };
    assert_eq!(observed, client.endpoint.local_addr().unwrap());
    assert_eq!(udp_alternate, server.udp_alternate_addrs());
    assert_eq!(udp_alternate.len(), 1);
}

#[tokio::test]
async fn a_wildcard_server_names_the_second_port_at_the_address_that_the_peer_talks_to() {
    let any = rendezvous::Bind::exactly("[::]:0".parse().unwrap());
    let server = start(ServerConfig { udp: any, ..loopback() });
    let client = Client::new();
    let to = ("127.0.0.1".parse::<std::net::IpAddr>().unwrap(), server.udp_addrs()[0].port()).into();
    let session = client.session_at(to, server.peer_id(), 1).await;
    let Some(FromServer::Welcome { observed, udp_alternate, .. }) = session.welcome else { panic!() };
    assert_eq!(observed, client.endpoint.local_addr().unwrap());
    assert_eq!(udp_alternate[0].to_string(), format!("127.0.0.1:{}", server.udp_alternate_addrs()[0].port()));
}

#[tokio::test]
async fn an_offer_to_nobody_says_offline() {
    let server = start(loopback());
    let mut session = Client::new().session(&server, 1).await;
    session.send(ToServer::Offer { to: key().peer_id(), offer: offer(7, 1) }).await;
    let reason = Undeliverable::Offline;
    assert_eq!(session.next().await, FromServer::Undelivered { offer: Nonce([1; 16]), reason });
}

#[tokio::test]
async fn the_newest_registration_has_the_offers_and_the_older_gets_them_back() {
    let server = start(loopback());
    let client = Client::new();
    let mut older = client.session(&server, 1).await;
    older.register(7).await;
    let mut newer = client.session(&server, 2).await;
    newer.register(7).await;
    assert_eq!(older.next().await, FromServer::Displaced { share: share(7) });
    newer.connection.close(0_u8.into(), b"");
    assert_eq!(older.next().await, FromServer::Registered { share: share(7) });
}

#[tokio::test]
async fn a_session_of_the_same_instance_replaces_the_older_one() {
    let server = start(loopback());
    let client = Client::new();
    let mut older = client.session(&server, 1).await;
    let mut newer = client.session(&server, 1).await;
    assert_eq!(older.closed_with().await, u64::from(close::REPLACED));
    newer.ping(1).await;
    assert_eq!(server.stats().matchmaker.sessions, 1);
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let server = start(loopback());
    let dialled = Client::new().dial(server.udp_addrs()[0], server.peer_id(), b"culvert/1").await;
    assert_eq!(HandshakeFailure::of(&dialled.unwrap_err()), Some(HandshakeFailure::WrongProtocol));
}

#[tokio::test]
async fn a_server_with_another_key_than_the_pinned_one_is_refused() {
    let server = start(loopback());
    let dialled = Client::new().dial(server.udp_addrs()[0], key().peer_id(), ALPN).await;
    assert_eq!(HandshakeFailure::of(&dialled.unwrap_err()), Some(HandshakeFailure::WrongServerKey));
    assert_eq!(server.stats().matchmaker.sessions, 0);
}

#[tokio::test]
async fn a_client_that_moves_is_told_its_new_address() {
    let server = start(loopback());
    let client = Client::new();
    let mut session = client.session(&server, 1).await;
    client.endpoint.rebind(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    let moved_to = client.endpoint.local_addr().unwrap();
    session.send(ToServer::Ping(1)).await;
    let mut heard = vec![session.next().await, session.next().await];
    heard.sort_by_key(|message| matches!(message, FromServer::Pong(_)));
    assert_eq!(heard, [FromServer::Observed(moved_to), FromServer::Pong(1)]);
}

#[tokio::test]
async fn a_client_proves_its_address_first_when_many_handshakes_are_under_way() {
    let limits = Limits { retry_above: 0, ..Limits::default() };
    let server = start(ServerConfig { limits, ..loopback() });
    Client::new().session(&server, 1).await.ping(1).await;
    assert_eq!((server.stats().handshakes_retried, server.stats().handshakes_begun), (1, 1));
}

#[tokio::test]
async fn a_proven_client_over_the_rate_is_refused() {
    let handshakes_each = Rate { burst: 1, refill: Duration::from_secs(3600) };
    let limits = Limits { handshakes_each, ..Limits::default() };
    let server = start(ServerConfig { limits, ..loopback() });
    let mut first = Client::new().session(&server, 1).await;
    let _with_proof = Client::new().session(&server, 2).await;
    let third = Client::new().dial(server.udp_addrs()[0], server.peer_id(), ALPN).await;
    assert!(matches!(third, Err(ConnectionError::ConnectionClosed(_))), "{third:?}");
    assert_eq!((server.stats().handshakes_retried, server.stats().handshakes_refused), (2, 1));
    first.ping(1).await;
}

#[tokio::test]
async fn a_session_that_says_no_hello_is_closed() {
    let matchmaker = MatchmakerConfig { hello: Duration::from_millis(50), ..MatchmakerConfig::default() };
    let server = start(ServerConfig { matchmaker, ..loopback() });
    let client = Client::new();
    let connection = client.dial(server.udp_addrs()[0], server.peer_id(), ALPN).await.unwrap();
    let ConnectionError::ApplicationClosed(closed) = connection.closed().await else { panic!() };
    assert_eq!(closed.error_code.into_inner(), u64::from(close::SILENT));
}

#[tokio::test]
async fn a_full_server_says_so() {
    let matchmaker = MatchmakerConfig { max_sessions: 1, ..MatchmakerConfig::default() };
    let server = start(ServerConfig { matchmaker, ..loopback() });
    let client = Client::new();
    let mut first = client.session(&server, 1).await;
    let mut second = client.open(server.udp_addrs()[0], server.peer_id()).await;
    assert_eq!(second.closed_with().await, u64::from(close::FULL));
    first.ping(1).await;
}

#[tokio::test]
async fn a_session_that_does_not_read_is_closed_and_others_go_on() {
    let limits = Limits { queue: 8, ..Limits::default() };
    let server = start(ServerConfig { limits, ..loopback() });
    let (mute, good) = (Client::new(), Client::new());
    let mut config =
        quinn::ClientConfig::new(Arc::new(relay::tls::client_config(&mute.key, server.peer_id(), ALPN)));
    let mut transport = relay::quic::session_transport();
    transport.stream_receive_window(8_u8.into());
    config.transport_config(Arc::new(transport));
    let connecting = mute.endpoint.connect_with(config, server.udp_addrs()[0], "culvert").unwrap();
    let connection = connecting.await.unwrap();
    let (mut send, _unread) = connection.open_bi().await.unwrap();
    send.write_all(&frame(&hello(1))).await.unwrap();
    let mut pings = Vec::new();
    (0..100).for_each(|n| pings.extend(frame(&ToServer::Ping(n))));
    send.write_all(&pings).await.unwrap();
    let ConnectionError::ApplicationClosed(closed) = connection.closed().await else { panic!() };
    assert_eq!(closed.error_code.into_inner(), u64::from(close::SILENT));
    assert_eq!(server.stats().sessions_overflowed, 1);
    good.session(&server, 2).await.ping(1).await;
}

#[tokio::test]
async fn a_server_that_stops_says_so_and_frees_its_ports() {
    let server = start(loopback());
    let mut session = Client::new().session(&server, 1).await;
    let exactly = rendezvous::Bind::exactly;
    let ports = ServerConfig {
        udp: exactly(server.udp_addrs()[0]),
        udp_alternate: rendezvous::Alternate::At(vec![exactly(server.udp_alternate_addrs()[0])]),
        http: exactly(server.http_addr()),
        admin: server.admin_addr().map(exactly),
        ..ServerConfig::default()
    };
    server.shutdown().await;
    assert_eq!(session.closed_with().await, u64::from(close::RESTARTING));
    let again = start(ports);
    Client::new().session(&again, 1).await.ping(1).await;
}

#[tokio::test]
async fn a_taken_port_is_explained_and_a_preferred_one_is_replaced() {
    let server = start(loopback());
    let taken = server.udp_addrs()[0];
    let net: Arc<dyn relay::net::Net> = Arc::new(relay::net::OsNet);
    let exactly = ServerConfig { udp: rendezvous::Bind::exactly(taken), ..loopback() };
    let error = Server::start(exactly, &key(), Arc::clone(&net)).unwrap_err();
    assert_eq!(
        relay::program::Failure::from(error).to_string(),
        format!(
            "cannot listen on UDP {taken}: the port is taken: stop the program that has it, or choose another with --udp"
        )
    );
    let preferring = ServerConfig { udp: rendezvous::Bind::preferring(taken), ..loopback() };
    let other = Server::start(preferring, &key(), net).unwrap();
    assert_ne!(other.udp_addrs()[0], taken);
}
