//! What a sharer does for its server, whatever the server says.

use proto::id::ShareId;
use proto::wire::gateway::{FromGateway, Scheme, ToGateway, Visitor, close};
use proto::wire::session::{FromServer, ToServer};
use proto::wire::{self, Deframer, VERSION, gateway, session};
use quinn::Connection;

use crate::support::fake_server::FakeServer;
use crate::support::{Home, soon};
use crate::web::mirror;

/// A share that says it is public, at a server that does what a test wants: its gateway connection, and what
/// it published.
async fn published(server: &FakeServer) -> (Connection, quinn::SendStream, gateway::Publication) {
    let mut session = server.session().await;
    let ToServer::Register { share, .. } = session.next().await else { panic!("not registered") };
    session.send(FromServer::Registered { share }).await;
    let connection = server.connection().await;
    tokio::spawn(async move {
        loop {
            session.next().await;
        }
    });
    let (mut send, mut recv) = connection.accept_bi().await.unwrap();
    let mut deframer = Deframer::default();
    let mut messages = Vec::new();
    while messages.len() < 2 {
        let chunk = recv.read_chunk(4096, true).await.unwrap().unwrap();
        deframer.push(&chunk.bytes);
        while let Some(body) = deframer.next_frame().unwrap() {
            messages.push(wire::parse::<ToGateway>(&body).unwrap());
        }
    }
    let Some(ToGateway::Publish(publication)) = messages.pop() else { panic!("nothing is published") };
    let answer = FromGateway::Published { share, url: "http://nas.example.test".to_owned() };
    send.write_all(&wire::frame(&answer)).await.unwrap();
    // The conversation goes on.
    tokio::spawn(async move { while let Ok(Some(_)) = recv.read_chunk(4096, true).await {} });
    (connection, send, publication)
}

async fn visit(connection: &Connection, first: &[u8]) -> Result<Vec<u8>, quinn::ReadToEndError> {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(first).await.unwrap();
    send.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    soon("an answer", recv.read_to_end(4096)).await
}

fn visitor(share: ShareId) -> Visitor {
    let host = "nas.example.test".to_owned();
    Visitor { version: VERSION, share, address: "192.0.2.1".parse().unwrap(), scheme: Scheme::Http, host }
}

#[tokio::test]
async fn only_what_is_public_is_there_for_the_gateways_streams() {
    let server = FakeServer::speaking(&[session::ALPN, gateway::ALPN]).await;
    let (home, origin) = (Home::new(), mirror().await);
    let url = server.url();
    let args = ["share", &origin.target(), "--server", &url, "--public", "--name", "nas", "--json"];
    let _share = home.spawn(&args);
    let (connection, _conversation, publication) = published(&server).await;
    let code = |result| match result {
        Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => code.into_inner(),
        other => panic!("{other:?}"),
    };
    let own = visit(&connection, &wire::frame(&visitor(publication.share))).await.unwrap();
    assert!(own.starts_with(b"HTTP/1.1 200 OK"));
    let other = visit(&connection, &wire::frame(&visitor(ShareId([9; 8])))).await;
    assert_eq!(code(other), u64::from(close::NOT_PUBLIC));
    let newer = Visitor { version: 2, ..visitor(publication.share) };
    assert_eq!(code(visit(&connection, &wire::frame(&newer)).await), u64::from(close::PROTOCOL));
    assert_eq!(code(visit(&connection, &[0xff; 8]).await), u64::from(close::PROTOCOL));
    assert!(visit(&connection, &wire::frame(&visitor(publication.share))).await.is_ok());
}

#[tokio::test]
async fn a_share_that_is_not_public_has_no_connection_for_visitors() {
    let server = FakeServer::speaking(&[session::ALPN, gateway::ALPN]).await;
    let (home, origin) = (Home::new(), mirror().await);
    let mut share = home.share(&server.url(), &origin.target());
    let mut session = server.session().await;
    let ToServer::Register { share: id, .. } = session.next().await else { panic!("not registered") };
    session.send(FromServer::Registered { share: id }).await;
    let told = share.event("ready").await;
    assert!(told["url"].is_null());
    let other = tokio::time::timeout(std::time::Duration::from_millis(300), server.connection()).await;
    assert!(other.is_err(), "it dialled once more");
}
