//! Short names for tickets.

use std::os::unix::fs::PermissionsExt as _;

use proto::ticket::Ticket;

use crate::support::origin::Origin;
use crate::support::{Home, Rendezvous, visitor};

#[tokio::test]
async fn an_alias_stands_for_its_ticket_from_the_first_connection_until_it_is_removed() {
    let (server, origin) = (Rendezvous::start(), Origin::echo().await);
    let (sharer, connector) = (Home::new(), Home::new());
    let mut share = sharer.share(&server.url(), &origin.target());
    let text = share.ticket().await;
    let ticket: Ticket = text.parse().unwrap();

    let args = ["connect", &text, "--save", "nas", "--listen", "127.0.0.1:0", "--json"];
    let mut first = connector.spawn(&args);
    visitor::ready(&mut first).await;
    drop(first);
    let file = connector.state().join("aliases/nas");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let mut second = connector.connect("nas");
    visitor::is_served(visitor::ready(&mut second).await).await;

    let mut list = connector.spawn(&["alias", "list", "--json"]);
    let alias = list.event("alias").await;
    assert_eq!((&alias["alias"], &alias["server"]), (&"nas".into(), &server.url().into()));
    assert_eq!(alias["peer_id"], ticket.sharer.to_string());
    let listed = list.ended().await;
    assert!(!listed.stdout.contains(&text["culvert1".len()..][..40]), "the ticket is a secret");

    assert_eq!(connector.run(&["alias", "remove", "nas"]).await.code, Some(0));
    assert_eq!(connector.run(&["alias", "list", "--json"]).await.stdout, "");
    connector.run(&["connect", "nas", "--json"]).await.failed(2, "usage").says("peer alias list");
}

#[tokio::test]
async fn a_ticket_that_lets_nobody_in_is_not_saved() {
    let (server, origin) = (Rendezvous::start(), Origin::echo().await);
    let (sharer, connector) = (Home::new(), Home::new());
    let mut share = sharer.share(&server.url(), &origin.target());
    let text = share.ticket().await;
    share.signal("TERM");
    share.ended().await;
    let ended = connector.run(&["connect", &text, "--save", "nas", "--json"]).await;
    ended.failed(5, "peer-offline");
    assert_eq!(connector.run(&["alias", "list", "--json"]).await.stdout, "");
}
