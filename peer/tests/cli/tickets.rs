//! Which ticket a share has, from run to run and beside another run of its own.

use std::net::SocketAddr;

use proto::ticket::Ticket;

use crate::support::origin::Origin;
use crate::support::{Home, Program, Rendezvous, visitor};

/// Runs a share for as long as it takes to have its ticket.
async fn ticket(home: &Home, args: &[&str]) -> String {
    let mut share = home.spawn(&[&["share", "--json"], args].concat());
    let ticket = share.ticket().await;
    share.signal("TERM");
    assert_eq!(share.ended().await.code, Some(0));
    ticket
}

#[tokio::test]
async fn a_share_has_the_same_ticket_in_every_run() {
    let (home, server) = (Home::new(), Rendezvous::start());
    let url = server.url();
    let first = ticket(&home, &["8000", "--server", &url]).await;
    assert_eq!(ticket(&home, &["8000", "--server", &url]).await, first);
    assert_eq!(ticket(&home, &["127.0.0.1:8000", "--server", &url]).await, first, "the same, in other words");
    assert_ne!(ticket(&home, &["8001", "--server", &url]).await, first);
    let ephemeral = ticket(&home, &["8000", "--server", &url, "--ephemeral"]).await;
    assert_ne!(ephemeral, first);
    let id = |text: &str| text.parse::<Ticket>().unwrap().sharer;
    assert_ne!(id(&ephemeral), id(&first));
    assert_ne!(ticket(&home, &["8000", "--server", &url, "--ephemeral"]).await, ephemeral);
    assert_eq!(ticket(&home, &["8000", "--server", &url]).await, first, "an ephemeral run left it alone");
    assert_ne!(ticket(&Home::new(), &["8000", "--server", &url]).await, first);
}

#[tokio::test]
async fn an_ephemeral_share_needs_no_place_to_keep_anything_in() {
    let (home, server) = (Home::new(), Rendezvous::start());
    let url = server.url();
    for server in [&["--server", &url][..], &[]] {
        for place in [Some("/proc/sys"), None] {
            let args = [&["share", "8000", "--json", "--ephemeral"], server].concat();
            let mut command = home.command(&args);
            for variable in ["HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"] {
                match place {
                    Some(place) => command.env(variable, place),
                    None => command.env_remove(variable),
                };
            }
            let mut share = Program::spawn(&mut command);
            share.ticket().await;
            share.signal("TERM");
            let ended = share.ended().await;
            assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:#?}");
        }
    }
}

#[tokio::test]
async fn a_share_of_several_targets_has_the_same_ticket_in_any_order() {
    let (home, server) = (Home::new(), Rendezvous::start());
    let url = server.url();
    let first = ticket(&home, &["8000", "8001", "--server", &url]).await;
    assert_eq!(ticket(&home, &["8001", "8000", "--server", &url]).await, first);
    assert_ne!(ticket(&home, &["8001", "--server", &url]).await, first);
    let named = ticket(&home, &["8000", "--server", &url, "--name", "nas"]).await;
    assert_ne!(named, first);
    assert_eq!(ticket(&home, &["9000", "--server", &url, "--name", "nas"]).await, named);
}

#[tokio::test]
async fn an_embedded_server_keeps_its_place_so_the_ticket_stays() {
    let home = Home::new();
    let first = ticket(&home, &["8000"]).await;
    assert_eq!(ticket(&home, &["8000"]).await, first);
    let server = first.parse::<Ticket>().unwrap().server;
    let is_loopback = |addr: &SocketAddr| addr.ip().is_loopback();
    assert_eq!(server.udp.iter().any(is_loopback), server.url.contains("//127."), "{server:?}");
}

#[tokio::test]
async fn a_ticket_that_works_on_this_machine_alone_says_so_and_an_embedded_servers_says_it_already() {
    let (home, server) = (Home::new(), Rendezvous::start());
    let mut share = home.spawn(&["share", "8000", "--server", &server.url(), "--json"]);
    let warning = share.event("warning").await;
    assert_eq!(warning["code"], "local-ticket");
    let message = warning["message"].as_str().unwrap();
    assert!(message.starts_with("this ticket works only on this machine: it names the server at 127.0.0.1"));
    let mut embedded = Home::new().spawn(&["share", "8000", "--json"]);
    embedded.ticket().await;
    embedded.signal("TERM");
    let ended = embedded.ended().await;
    assert!(!ended.stdout.contains("local-ticket"), "{ended:#?}");
}

#[tokio::test]
async fn an_expired_ticket_is_replaced_and_the_share_stays() {
    let (home, server) = (Home::new(), Rendezvous::start());
    let url = server.url();
    let expired: Ticket =
        ticket(&home, &["8000", "--server", &url, "--expires", "1ms"]).await.parse().unwrap();
    let renewed: Ticket = ticket(&home, &["8000", "--server", &url]).await.parse().unwrap();
    assert_eq!((renewed.share, renewed.expires), (expired.share, None));
    // Whoever held the old one is not let in again.
    assert_ne!((renewed.id, &renewed.secret), (expired.id, &expired.secret));
}

#[tokio::test]
async fn two_runs_of_one_share_stand_side_by_side_and_the_newest_gets_the_visitors() {
    let server = Rendezvous::start();
    let (sharer, connector) = (Home::new(), Home::new());
    let origins = [Origin::echo().await, silent().await];
    let named = |origin: &Origin| {
        ["share", &origin.target(), "--server", &server.url(), "--name", "nas"].map(str::to_owned)
    };
    let mut older = sharer.spawn(&named(&origins[0]));
    let line = older.line("peer connect culvert1").await;
    let ticket = line.trim().strip_prefix("peer connect ").unwrap().to_owned();
    // Somebody is connected to the older one, and stays so.
    let mut first = connector.connect(&ticket);
    let first_at = visitor::ready(&mut first).await;

    let mut newer = sharer.spawn(&named(&origins[1]));
    newer.line("peer connect culvert1").await;
    older.line("Another `peer share`").await;
    let mut second = connector.connect(&ticket);
    let second_at = visitor::ready(&mut second).await;
    assert_eq!(visitor::ask(second_at, b"x").await.unwrap(), b"", "the newer one has what is new");
    visitor::is_served(first_at).await;
    drop(second);

    newer.signal("TERM");
    newer.ended().await;
    older.line("Registered again.").await;
    let mut third: Program = connector.connect(&ticket);
    visitor::is_served(visitor::ready(&mut third).await).await;
}

/// Reads, and says nothing.
async fn silent() -> Origin {
    Origin::serving("127.0.0.1", |mut stream| async move {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await
}

#[tokio::test]
async fn a_forged_ticket_sends_no_datagram_to_this_machine() {
    let victim = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = proto::ticket::ServerHint {
        url: "http://forged.invalid:1".into(),
        udp: vec![victim.local_addr().unwrap()],
        peer_id: crate::support::key().peer_id(),
    };
    let ticket = super::refusals::ticket_at(server).to_text();
    let ended = Home::new().run(&["connect", &ticket, "--json"]).await;
    assert!(ended.stderr.len() + ended.stdout.len() > 0, "it says why it ends");
    victim.set_nonblocking(true).unwrap();
    let mut buf = [0; 1500];
    let received = victim.recv(&mut buf);
    assert!(received.is_err(), "{received:?}");
}
