//! Streams: whole, many at once, half-closed, refused, short.

use std::io::ErrorKind;
use std::net::SocketAddr;

use peer::endpoint::ShareSpec;
use peer::{Endpoint, EndpointConfig};
use proto::doorman::Admission;
use proto::id::{ShareId, TicketId};
use proto::proof::TicketSecret;
use proto::ticket::Ticket;
use proto::wire::peer::{Target, TargetKind};
use ring::digest::{Context, SHA256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::origin::{Origin, digest_after_eof, echo};
use crate::support::visitor::{ask, is_served, noise};
use crate::support::{Home, Pair, Rendezvous, soon, until};

/// Of a long transfer, in chunks of a MiB.
const CHUNKS: u64 = 96;

/// At once.
const VISITORS: usize = 200;

/// A chunk that is unlike every other.
fn chunk(base: &[u8], number: u64) -> Vec<u8> {
    let mut chunk = base.to_vec();
    chunk[..8].copy_from_slice(&number.to_be_bytes());
    chunk
}

async fn send_all(stream: &mut TcpStream) -> Vec<u8> {
    let (base, mut hash) = (noise(1, 1 << 20), Context::new(&SHA256));
    for number in 0..CHUNKS {
        let chunk = chunk(&base, number);
        hash.update(&chunk);
        stream.write_all(&chunk).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    hash.finish().as_ref().to_vec()
}

#[tokio::test]
async fn a_long_transfer_arrives_whole_both_ways() {
    let giver = Origin::serving("127.0.0.1", |mut stream| async move {
        send_all(&mut stream).await;
    })
    .await;
    let taker = Origin::serving("127.0.0.1", digest_after_eof).await;
    let mut pair = Pair::of(&[&giver.target(), &taker.target()]).await;

    let up = async {
        let mut stream = TcpStream::connect(pair.at[1]).await.unwrap();
        let sent = send_all(&mut stream).await;
        let mut answer = Vec::new();
        soon("the digest", stream.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, sent);
        sent
    };
    let down = async {
        let mut stream = TcpStream::connect(pair.at[0]).await.unwrap();
        let (mut hash, mut buffer, mut length) = (Context::new(&SHA256), vec![0; 1 << 16], 0);
        loop {
            let read = soon("more bytes", stream.read(&mut buffer)).await.unwrap();
            if read == 0 {
                break;
            }
            length += read as u64;
            hash.update(&buffer[..read]);
        }
        (length, hash.finish().as_ref().to_vec())
    };
    let (sent, (length, received)) = tokio::join!(up, down);
    assert_eq!(length, CHUNKS << 20);
    assert_eq!(received, sent, "the same bytes went both ways");
    let mut counted = [(0, 0); 2];
    for count in &mut counted {
        let closed = loop {
            let event = pair.share.event("visitor").await;
            if event["state"] == "closed" {
                break event;
            }
        };
        *count = (closed["bytes_in"].as_u64().unwrap(), closed["bytes_out"].as_u64().unwrap());
    }
    counted.sort_unstable();
    assert_eq!(counted, [(0, CHUNKS << 20), (CHUNKS << 20, 32)]);
}

#[tokio::test]
async fn two_hundred_visitors_at_once_are_all_served() {
    let origin = Origin::echo().await;
    let mut pair = Pair::of(&[&origin.target()]).await;
    visit_together(pair.at[0]).await;
    for _ in 0..2 * VISITORS {
        pair.share.event("visitor").await;
    }
    assert_eq!(pair.share.notes(), [""; 0]);
    assert_eq!(pair.connect.notes(), [""; 0]);
}

/// The same with a sharer that looks at its connections: a library user's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_carries_all_visitors() {
    let (server, home) = (Rendezvous::start(), Home::new());
    let (endpoint, ticket) = share_here(&server);
    let spec = spec_of(&ticket);
    let mut visits = endpoint.share(spec).await.unwrap();
    endpoint.online().await.unwrap();
    let mut connect = home.connect(&ticket.to_text());
    let at = crate::support::visitor::ready(&mut connect).await;
    let visit = soon("the connection", visits.recv()).await.unwrap();
    let serving = tokio::spawn(async move {
        while let Some(mut stream) = visit.accept().await {
            tokio::spawn(async move {
                assert_eq!(stream.target().await, Some(0));
                tokio::io::copy(&mut stream.recv, &mut stream.send).await.unwrap();
                stream.send.finish().unwrap();
            });
        }
    });
    visit_together(at).await;
    assert!(visits.try_recv().is_err(), "there is a second connection");
    serving.abort();
}

/// A sharer in this very process, and a ticket for it.
fn share_here(server: &Rendezvous) -> (Endpoint, Ticket) {
    let key = std::sync::Arc::new(crate::support::key());
    let net = std::sync::Arc::new(relay::net::OsNet);
    let endpoint = Endpoint::bind(EndpointConfig::new(key, server.hint()), net).unwrap();
    let ticket = Ticket {
        version: proto::wire::VERSION,
        id: TicketId([1; 8]),
        secret: TicketSecret::from_bytes([2; 16]),
        expires: None,
        share: ShareId([3; 8]),
        server: server.hint(),
        relay: None,
        sharer: endpoint.peer_id(),
    };
    (endpoint, ticket)
}

fn spec_of(ticket: &Ticket) -> ShareSpec {
    let admission = Admission { secret: ticket.secret.clone(), expires: None, fresh: true };
    ShareSpec {
        share: ticket.share,
        name: "here".into(),
        targets: vec![Target { kind: TargetKind::Tcp, port: 1 }],
        tickets: vec![(ticket.id, admission)],
    }
}

/// So many visitors of an echo that none ends before all are there.
async fn visit_together(at: SocketAddr) {
    let all_here = std::sync::Arc::new(tokio::sync::Barrier::new(VISITORS));
    let mut visitors = JoinSet::new();
    for n in 0..VISITORS {
        let all_here = std::sync::Arc::clone(&all_here);
        visitors.spawn(async move {
            let said = noise(n as u64, 20_000);
            let mut stream = TcpStream::connect(at).await.unwrap();
            let mut heard = vec![0; said.len()];
            stream.write_all(&said[..10_000]).await.unwrap();
            stream.read_exact(&mut heard[..10_000]).await.unwrap();
            all_here.wait().await;
            stream.write_all(&said[10_000..]).await.unwrap();
            stream.shutdown().await.unwrap();
            stream.read_exact(&mut heard[10_000..]).await.unwrap();
            assert!(heard == said && stream.read_u8().await.is_err());
        });
    }
    soon("two hundred echoes", visitors.join_all()).await;
}

#[tokio::test]
async fn an_answer_comes_after_the_visitor_has_said_everything() {
    let origin = Origin::serving("127.0.0.1", digest_after_eof).await;
    let pair = Pair::of(&[&origin.target()]).await;
    let said = noise(3, 300_000);
    let answer = ask(pair.at[0], &said).await.unwrap();
    assert_eq!(answer, ring::digest::digest(&SHA256, &said).as_ref());
}

#[tokio::test]
async fn a_visitor_still_speaks_after_the_server_has_said_everything() {
    // It says goodbye first, and then takes what there is.
    let (heard, mut hears) = tokio::sync::mpsc::channel(1);
    let origin = Origin::serving("127.0.0.1", move |mut stream| {
        let heard = heard.clone();
        async move {
            stream.write_all(b"bye").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            heard.send(bytes).await.unwrap();
        }
    })
    .await;
    let pair = Pair::of(&[&origin.target()]).await;
    let mut stream = TcpStream::connect(pair.at[0]).await.unwrap();
    let mut answer = Vec::new();
    soon("the goodbye", stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"bye");
    let said = noise(4, 300_000);
    stream.write_all(&said).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(soon("what was said", hears.recv()).await.unwrap() == said);
}

#[tokio::test]
async fn a_visitor_that_is_cut_off_is_cut_off_at_the_server_too() {
    let (ended, mut ends) = tokio::sync::mpsc::channel(1);
    let origin = Origin::serving("127.0.0.1", move |mut stream| {
        let ended = ended.clone();
        async move {
            stream.write_all(b"!").await.unwrap();
            ended.send(stream.read_u8().await.unwrap_err().kind()).await.unwrap();
        }
    })
    .await;
    let pair = Pair::of(&[&origin.target()]).await;
    let mut stream = TcpStream::connect(pair.at[0]).await.unwrap();
    assert_eq!(soon("a byte", stream.read_u8()).await.unwrap(), b'!');
    stream.set_zero_linger().unwrap();
    drop(stream);
    assert_eq!(soon("the end", ends.recv()).await, Some(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_target_that_refuses_resets_the_visitor_and_both_programs_live_on() {
    // An address of its own: nobody else takes the port while it is closed.
    let closed = TcpListener::bind("127.0.7.1:0").await.unwrap().local_addr().unwrap();
    let mut pair = Pair::of(&[&closed.to_string()]).await;
    for _ in 0..2 {
        let error = ask(pair.at[0], b"hello").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let line = pair.share.note("warning: ").await;
        assert!(line.contains(&closed.to_string()) && line.contains("refused"), "{line}");
        let line = pair.connect.note("warning: ").await;
        assert!(line.contains("is it running?"), "{line}");
    }
    let _origin = Origin::on(TcpListener::bind(closed).await.unwrap(), echo);
    is_served(pair.at[0]).await;
    assert_eq!((pair.share.notes().len(), pair.connect.notes().len()), (2, 2), "a line each, each time");
}

#[tokio::test]
async fn a_target_on_ipv6_alone_is_found() {
    let origin = Origin::serving("::1", echo).await;
    let pair = Pair::of(&[&origin.addr().port().to_string()]).await;
    is_served(pair.at[0]).await;
}

#[tokio::test]
async fn two_thousand_short_visits_leave_nothing_behind() {
    const AT_ONCE: usize = 20;
    let origin = Origin::echo().await;
    let mut pair = Pair::of(&[&origin.target()]).await;
    is_served(pair.at[0]).await;
    for _ in 0..2 {
        pair.share.event("visitor").await;
    }
    let before = (pair.share.descriptors(), pair.connect.descriptors());
    let mut visitors = JoinSet::new();
    for _ in 0..AT_ONCE {
        let at = pair.at[0];
        visitors.spawn(async move {
            for _ in 0..2000 / AT_ONCE {
                is_served(at).await;
            }
        });
    }
    visitors.join_all().await;
    for _ in 0..4000 {
        pair.share.event("visitor").await;
    }
    until("all descriptors are closed", || {
        (pair.share.descriptors(), pair.connect.descriptors()) <= before
            && pair.connect.descriptors() <= before.1
    })
    .await;
}

/// The README's first command: two terminals of one user, and no server but the one that `share` brings.
#[tokio::test]
async fn one_user_reaches_his_own_share_without_any_server() {
    let (home, origin) = (Home::new(), Origin::echo().await);
    let mut share = home.spawn(&["share", &origin.addr().port().to_string(), "--json"]);
    let ready = share.event("ready").await;
    let mut connect = home.spawn(&["connect", ready["ticket"].as_str().unwrap(), "--json"]);
    let path = connect.event("path").await;
    assert_eq!(path["peer_id"], ready["peer_id"]);
    let at = crate::support::visitor::ready(&mut connect).await;
    assert_ne!(at, origin.addr());
    is_served(at).await;
    let visitor = share.event("visitor").await;
    assert_eq!(visitor["peer_id"], ready["peer_id"], "one identity, two processes");
}
