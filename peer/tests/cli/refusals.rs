//! Each way not to be let in has one line, and its exit code.

use std::net::UdpSocket;

use proto::id::{Instance, PeerId, ShareId, TicketId};
use proto::proof::TicketSecret;
use proto::ticket::{ServerHint, Ticket};
use proto::wire::VERSION;
use proto::wire::session::{self, FromServer, ToServer};
use proto::wire::signal::{Answer, Claims, Mac, Nonce, Verdict};

use crate::support::fake_server::{FakeHttp, FakeServer};
use crate::support::impostor::Impostor;
use crate::support::origin::Origin;
use crate::support::{Home, Program, Rendezvous, key};

/// A ticket at this server for a share that nobody has.
pub(crate) fn ticket_at(server: ServerHint) -> Ticket {
    Ticket {
        version: VERSION,
        id: TicketId([1; 8]),
        secret: TicketSecret::from_bytes([2; 16]),
        expires: None,
        share: ShareId([3; 8]),
        server,
        relay: None,
        sharer: key().peer_id(),
    }
}

/// A ticket at a server that is not there.
pub(crate) fn ticket_for_nobody() -> String {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = vec![silent.local_addr().unwrap()];
    let server = ServerHint { url: "http://127.0.0.1:1".into(), udp, peer_id: PeerId::from_bytes([5; 32]) };
    ticket_at(server).to_text()
}

#[tokio::test]
async fn a_mistyped_ticket_is_a_usage_error_whatever_the_typo() {
    let home = Home::new();
    let good = ticket_for_nobody();
    let (head, tail) = good.split_at(40);
    let swapped = format!("{head}{}{}{}", &tail[1..2], &tail[..1], &tail[2..]);
    assert_ne!(swapped, good, "two unlike neighbours are swapped");
    for (typo, says) in [
        (format!("{head}1{}", &tail[1..]), "number 41"),
        (format!("{head}-{}", &tail[1..]), "number 41"),
        (swapped, "mistyped"),
        (format!("{head}{}", &tail[1..]), "cut short"),
        (format!("{head}a{tail}"), "mistyped"),
        (good[..good.len() - 3].to_owned(), "cut short"),
        (good["culvert1".len()..].to_owned(), "begins with"),
        (good.replace("culvert1", "culvert2"), "newer"),
        (good.replace("culvert1", "culvert"), "ticket"),
        ("http://example.com".to_owned(), "begins with"),
        (String::new(), "begins with"),
    ] {
        let ended = home.run(&["connect", &typo, "--json"]).await;
        ended.failed(2, "usage").says(says);
    }
}

#[tokio::test]
async fn a_ticket_comes_from_the_argument_a_file_standard_input_or_the_environment() {
    let home = Home::new();
    let ended = home.run(&["connect", "--json"]).await;
    ended.failed(2, "usage").says("no ticket").says("CULVERT_TICKET");
    home.run(&["connect", "@nowhere", "--json"]).await.failed(2, "usage").says("nowhere");

    // Each is read as far as to notice the same mistake in it.
    let newer = "culvert2abc\n";
    std::fs::write(home.path().join("ticket"), newer).unwrap();
    home.run(&["connect", "@ticket", "--json"]).await.failed(2, "usage").says("newer");
    let mut command = home.command(&["connect", "-", "--json"]);
    Program::spawn_with_input(&mut command, newer).ended().await.failed(2, "usage").says("newer");
    let mut command = home.command(&["connect", "--json"]);
    let ended = Program::spawn(command.env("CULVERT_TICKET", newer)).ended().await;
    ended.failed(2, "usage").says("newer");
}

#[tokio::test]
async fn an_expired_ticket_is_refused_by_the_sharer() {
    let (server, origin) = (Rendezvous::start(), Origin::echo().await);
    let (sharer, connector) = (Home::new(), Home::new());
    // Over as soon as it begins: the sharer alone decides, so the ticket goes without its expiry.
    let mut share =
        sharer.spawn(&["share", &origin.target(), "--server", &server.url(), "--expires", "1ms", "--json"]);
    let mut ticket: Ticket = share.ticket().await.parse().unwrap();
    assert!(ticket.expires.take().is_some());
    connector
        .run(&["connect", &ticket.to_text(), "--json"])
        .await
        .failed(4, "ticket-expired")
        .says("expired");
}

#[tokio::test]
async fn a_ticket_with_another_secret_is_refused() {
    let (server, origin) = (Rendezvous::start(), Origin::echo().await);
    let (sharer, connector) = (Home::new(), Home::new());
    let mut share = sharer.share(&server.url(), &origin.target());
    let ticket: Ticket = share.ticket().await.parse().unwrap();

    let other = Ticket { secret: TicketSecret::from_bytes([7; 16]), ..ticket.clone() };
    connector.run(&["connect", &other.to_text(), "--json"]).await.failed(4, "not-authorised").says("ticket");
    let other = Ticket { id: TicketId([7; 8]), ..ticket.clone() };
    connector.run(&["connect", &other.to_text(), "--json"]).await.failed(4, "not-authorised");
    // Neither was a reason to turn the right one away.
    connector.connect(&ticket.to_text()).event("ready").await;
}

#[tokio::test]
async fn a_peer_that_is_unknown_or_offline_is_not_online() {
    let (server, origin) = (Rendezvous::start(), Origin::echo().await);
    let (sharer, connector) = (Home::new(), Home::new());
    let mut share = sharer.share(&server.url(), &origin.target());
    let ticket: Ticket = share.ticket().await.parse().unwrap();
    let offline = ["peer-offline", "not online"];

    let other = Ticket { sharer: key().peer_id(), ..ticket.clone() };
    let ended = connector.run(&["connect", &other.to_text(), "--json"]).await;
    ended.failed(5, offline[0]).says(offline[1]);
    let other = Ticket { share: ShareId([7; 8]), ..ticket.clone() };
    let ended = connector.run(&["connect", &other.to_text(), "--json"]).await;
    ended.failed(5, offline[0]).says(offline[1]);
    share.signal("TERM");
    share.ended().await;
    let ended = connector.run(&["connect", &ticket.to_text(), "--json"]).await;
    ended.failed(5, offline[0]).says(offline[1]);
}

#[tokio::test]
async fn another_identity_that_registers_the_same_share_gets_none_of_its_visitors() {
    let (server, origin) = (Rendezvous::start(), Origin::echo().await);
    let (sharer, thief, connector) = (Home::new(), Home::new(), Home::new());
    let mut share = sharer.share(&server.url(), &origin.target());
    let ticket = share.ticket().await;
    share.signal("TERM");
    share.ended().await;
    // The thief has all that is kept of the share, its ticket's secret too, but not the key.
    std::fs::create_dir_all(thief.state()).unwrap();
    let mut copy = std::process::Command::new("cp");
    copy.arg("-r").arg(sharer.state().join("shares")).arg(thief.state());
    assert!(copy.status().unwrap().success());
    let mut stolen = thief.share(&server.url(), &origin.target());
    let (stolen, ticket): (Ticket, Ticket) =
        (stolen.ticket().await.parse().unwrap(), ticket.parse().unwrap());
    assert_eq!((stolen.share, &stolen.secret), (ticket.share, &ticket.secret));
    connector.run(&["connect", &ticket.to_text(), "--json"]).await.failed(5, "peer-offline");
}

#[tokio::test]
async fn an_answer_that_does_not_know_the_secret_is_not_believed() {
    let server = FakeServer::start(session::ALPN).await;
    let ticket = ticket_at(server.hint());
    let home = Home::new();
    let connect = home.spawn(&["connect", &ticket.to_text(), "--json"]);
    let mut session = server.session().await;
    let ToServer::Offer { to, offer } = session.next().await else { panic!("no offer") };
    assert_eq!(to, ticket.sharer);
    let answer = Answer {
        version: VERSION,
        offer: offer.nonce,
        verdict: Verdict::Accepted { nonce: Nonce([1; 16]), claims: Claims::default() },
        mac: Mac([0; 32]),
        nat: None,
    };
    let (from, from_instance) = (ticket.sharer, Instance([1; 8]));
    session.send(FromServer::Answer { from, from_instance, observed: None, answer }).await;
    connect.ended().await.failed(4, "not-authorised");
}

#[tokio::test]
async fn a_server_that_forwards_to_somebody_else_is_found_out_by_the_key() {
    let server = FakeServer::start(session::ALPN).await;
    let ticket = ticket_at(server.hint());
    let home = Home::new();
    let connect = home.spawn(&["connect", &ticket.to_text(), "--json"]);
    let mut session = server.session().await;
    let ToServer::Offer { offer, .. } = session.next().await else { panic!("no offer") };
    let mut impostor = Impostor::start();
    let answer = impostor.answer(&ticket, (session.peer, session.instance), &offer);
    let (from, from_instance) = (ticket.sharer, impostor.instance);
    session.send(FromServer::Answer { from, from_instance, observed: Some(impostor.addr), answer }).await;
    connect.ended().await.failed(4, "wrong-peer").says("not the ticket's sharer");
}

#[tokio::test]
async fn a_server_of_another_protocol_is_refused() {
    let server = FakeServer::start(b"something-else/1").await;
    let _accepting = server.accept_all();
    let home = Home::new();
    let ended = home.run(&["share", "8000", "--server", &server.url(), "--json"]).await;
    ended.failed(4, "server-refused").says("protocol");
    let ticket = ticket_at(server.hint()).to_text();
    home.run(&["connect", &ticket, "--json"]).await.failed(4, "server-refused").says("protocol");
}

#[tokio::test]
async fn a_server_with_another_identity_than_the_pinned_one_is_refused() {
    let home = Home::new();
    let known = key().peer_id();
    let http = FakeHttp::naming(key().peer_id(), &["127.0.0.1:9".parse().unwrap()]).await;
    // By what the URL says.
    let url = format!("{}#{known}", http.url());
    let ended = home.run(&["share", "8000", "--server", &url, "--json"]).await;
    ended.failed(4, "server-changed").says(&known.to_string()).says("#");
    // By what was seen before.
    let store = peer::store::Store::at(home.state());
    store.pin(&http.url(), known).unwrap();
    let pin = store.pin_path(&http.url());
    let ended = home.run(&["share", "8000", "--server", &http.url(), "--json"]).await;
    ended.failed(4, "server-changed").says(&known.to_string()).says(&pin.display().to_string());
}

#[tokio::test]
async fn a_server_is_shown_and_pinned_at_its_first_use() {
    let (server, origin, home) = (Rendezvous::start(), Origin::echo().await, Home::new());
    let mut share = home.spawn(&["share", &origin.target(), "--server", &server.url()]);
    share.line(&server.peer_id().to_string()).await;
    share.line("peer connect culvert1").await;
    let pinned = peer::store::Store::at(home.state()).pinned(&server.url()).unwrap();
    assert_eq!(pinned, Some(server.peer_id()));
}

#[tokio::test]
async fn a_ticket_whose_server_has_another_identity_now_is_refused() {
    let (server, home) = (Rendezvous::start(), Home::new());
    let hint = ServerHint { peer_id: key().peer_id(), ..server.hint() };
    let ended = home.run(&["connect", &ticket_at(hint.clone()).to_text(), "--json"]).await;
    ended.failed(4, "server-changed").says("identity").says("new ticket");
    // Also where another of its addresses says nothing at all, as IPv6 does from a network without it.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut udp = hint.udp.clone();
    udp.push(silent.local_addr().unwrap());
    let ticket = ticket_at(ServerHint { udp, ..hint });
    home.run(&["connect", &ticket.to_text(), "--json"]).await.failed(4, "server-changed");
}
