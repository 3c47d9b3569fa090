//! Visitors at the gateway, where time costs nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nat_sim::kind::Kind;
use nat_sim::sim_net::SimNet;
use peer::endpoint::{PublicEvent, PublicShare};
use peer::forward::{Counters, forward};
use proto::tunnel::access::Access;
use relay::net::{Net as _, Stream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};

use crate::lab::{Lab, Peer, SEC, pair, run};

/// The port of the local server.
const PORT: u16 = 8001;

/// A ping and a pong of WebSocket without content (RFC 6455 §5.5.2), the visitor's with a mask.
const PING: [u8; 6] = [0x89, 0x80, 1, 2, 3, 4];
const PONG: [u8; 2] = [0x8a, 0x00];

async fn head(read: &mut (dyn AsyncRead + Send + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(read.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Agrees to an upgrade, and answers pings.
async fn origin((mut read, mut write): Stream) -> std::io::Result<()> {
    assert!(head(&mut *read).await.contains("\r\nUpgrade: websocket\r\n"));
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    write.write_all(agreed.as_bytes()).await?;
    let mut ping = [0; PING.len()];
    loop {
        read.read_exact(&mut ping).await?;
        assert_eq!(ping, PING);
        write.write_all(&PONG).await?;
    }
}

fn serve(net: &Arc<SimNet>) {
    let listener = net.listen_tcp((Ipv4Addr::LOCALHOST, PORT).into()).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(origin(stream));
        }
    });
}

/// Shows the local server of `peer` to the world, and waits until it is there.
pub(crate) async fn publish(lab: &Lab, peer: &Peer) {
    serve(&peer.net());
    let share = lab.ticket().share;
    let access = Access::new(Vec::new(), None);
    let public = PublicShare { share, name: "nas".to_owned(), keep: false, host: None, access };
    let mut events = peer.endpoint.publish(public);
    let published = timeout(60 * SEC, events.recv()).await.expect("not public in a minute");
    assert!(matches!(published, Some(PublicEvent::Published(_))), "{published:?}");
    let net = peer.net();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            let PublicEvent::Exchange(exchange) = event else { panic!("{event:?}") };
            let local = net.connect_tcp((Ipv4Addr::LOCALHOST, PORT).into()).await.unwrap();
            tokio::spawn(
                async move { forward(local, exchange.send, exchange.recv, &Counters::default()).await },
            );
        }
    });
}

/// A WebSocket of a visitor at `a` to the share.
pub(crate) async fn websocket(lab: &Lab) -> Stream {
    let server = SocketAddr::new(lab.ticket().server.udp[0].ip(), 8080);
    let (mut read, mut write) = lab.world.net("a").connect_tcp(server).await.unwrap();
    let asked = "GET / HTTP/1.1\r\nHost: nas.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    write.write_all(asked.as_bytes()).await.unwrap();
    let agreed = head(&mut *read).await;
    assert!(agreed.starts_with("HTTP/1.1 101 "), "{agreed}");
    (read, write)
}

pub(crate) async fn ping((read, write): &mut Stream) -> Duration {
    let since = Instant::now();
    write.write_all(&PING).await.unwrap();
    let mut pong = [0; PONG.len()];
    timeout(10 * SEC, read.read_exact(&mut pong)).await.expect("no pong").unwrap();
    assert_eq!(pong, PONG);
    since.elapsed()
}

#[test]
fn a_websocket_lives_for_hours_by_pings_that_come_after_every_proxys_time() {
    run(&pair(1, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED), 1, async |lab| {
        let _server = lab.server();
        let b = lab.peer("b", 0);
        publish(&lab, &b).await;
        let mut session = websocket(&lab).await;
        ping(&mut session).await;
        // The usual limits of proxies are 60 s, 5 minutes, and an hour.
        for minutes in [2, 6, 61, 121] {
            sleep(minutes * 60 * SEC).await;
            let took = ping(&mut session).await;
            assert!(took < SEC, "after {minutes} minutes: {took:?}");
        }
    });
}
