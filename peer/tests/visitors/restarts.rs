//! Programs that die and come back.

use proto::ticket::Ticket;

use crate::support::fake_server::FakeHttp;
use crate::support::origin::Origin;
use crate::support::visitor::{Held, is_served, ready};
use crate::support::wire::Wire;
use crate::support::{Home, Pair, Rendezvous};

#[tokio::test]
async fn visitors_do_not_notice_that_the_server_died_and_newcomers_find_it_again() {
    let (mut server, origin) = (Rendezvous::start(), Origin::echo().await);
    let (sharer, connector, newcomer) = (Home::new(), Home::new(), Home::new());
    let wire = Wire::to(server.udp()).await;
    let http = FakeHttp::naming(server.peer_id(), &[wire.addr()]).await;
    let mut share = sharer.spawn(&["share", &origin.target(), "--server", &http.url()]);
    let line = share.line("peer connect culvert1").await;
    let mut ticket: Ticket = line.trim().strip_prefix("peer connect ").unwrap().parse().unwrap();
    ticket.server.udp = vec![server.udp()];
    let ticket = ticket.to_text();
    let mut connect = connector.connect(&ticket);
    let at = ready(&mut connect).await;
    let mut held = Held::open(at).await;

    // The sharer hears nothing of it.
    wire.cut(true);
    server.kill();
    held.is_served().await;
    is_served(at).await;
    server.start_again();
    wire.cut(false);
    share.line("Registered again.").await;
    let mut late = newcomer.connect(&ticket);
    is_served(ready(&mut late).await).await;
    held.is_served().await;
}

#[tokio::test]
async fn a_connector_finds_its_sharer_again_after_it_was_killed() {
    let origin = Origin::echo().await;
    let Pair { server, homes, ticket, share, connect, at: _ } = Pair::of(&[&origin.target()]).await;
    drop(connect);
    let mut connect = homes.1.spawn(&["connect", &ticket, "--listen", "127.0.0.1:0"]);
    let line = connect.line(" is ").await;
    let at = line.split(' ').next().unwrap().parse().unwrap();
    let mut held = Held::open(at).await;

    share.kill().await;
    let mut share = homes.0.share(&server.url(), &origin.target());
    // The ticket is older than this process: offers have to come with a challenge.
    assert_eq!(share.ticket().await, ticket);
    connect.line("Connected again.").await;
    held.is_cut().await;
    is_served(at).await;
}

#[tokio::test]
async fn a_sharer_takes_a_connector_that_was_killed_and_started_again() {
    let origin = Origin::echo().await;
    let Pair { server: _server, homes, ticket, share: _share, connect, at } =
        Pair::of(&[&origin.target()]).await;
    is_served(at[0]).await;
    connect.kill().await;
    let mut connect = homes.1.connect(&ticket);
    is_served(ready(&mut connect).await).await;
}
