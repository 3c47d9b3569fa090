//! A peer's connection to a relay, with the real relay at its other end.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod peers;

use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peers::{PATIENCE, key, relay, until};
use proto::id::{Instance, PeerId};
use proto::relay::{DropReason, RouterLimits};
use proto::wire::relay::Address;
use quinn::AsyncUdpSocket as _;
use quinn::udp::{RecvMeta, Transmit};
use relay::client::{RelayClient, RelayClientConfig, RelayState, probe};
use relay::net::{Link as _, OsNet};
use relay::outbound::{Origin, Outbound};
use relay::relayed::RelayedLink;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

struct Peer {
    client: RelayClient,
    address: Address,
    absent: mpsc::Receiver<SocketAddr>,
}

impl Peer {
    fn of(at: SocketAddr, relay: PeerId, outbound: Outbound) -> Self {
        let key = Arc::new(key());
        let address = Address { peer: key.peer_id(), instance: Instance([1; 8]) };
        let origin = Origin { tls: false, host: at.ip().to_string(), port: at.port() };
        let (instance, wait) = (address.instance, Duration::ZERO);
        let config = RelayClientConfig { origin, relay, key, instance, wait, seed: [1; 32] };
        let (client, absent) = RelayClient::open(config, outbound);
        Self { client, address, absent }
    }

    async fn up(&self, nth: u64) {
        let mut state = self.client.state();
        timeout(PATIENCE, state.wait_for(|state| *state == RelayState::Up(nth))).await.unwrap().unwrap();
    }
}

fn plain() -> Outbound {
    Outbound::new(Arc::new(OsNet), None)
}

fn send(link: &RelayedLink, to: SocketAddr, contents: &[u8]) {
    let transmit = Transmit { destination: to, ecn: None, contents, segment_size: Some(1200), src_ip: None };
    link.try_send(&transmit).unwrap();
}

async fn receive(link: &RelayedLink) -> (SocketAddr, usize, u8) {
    let (mut memory, mut meta) = (vec![0; 65_536], [RecvMeta::default()]);
    let received =
        std::future::poll_fn(|cx| link.poll_recv(cx, &mut [IoSliceMut::new(&mut memory)], &mut meta));
    assert_eq!(timeout(PATIENCE, received).await.unwrap().unwrap(), 1);
    (meta[0].addr, meta[0].len, memory[0])
}

#[tokio::test]
async fn a_relay_that_is_asked_says_who_it_is_and_what_is_none_is_named() {
    let relay = relay(RouterLimits::default());
    let at = |addr: SocketAddr| Origin { tls: false, host: addr.ip().to_string(), port: addr.port() };
    let ask = async |addr, id| probe(&at(addr), id, &plain()).await;
    assert_eq!(ask(relay.http_addr(), relay.peer_id()).await, Ok(()));
    let other = key().peer_id();
    let why = ask(relay.http_addr(), other).await.unwrap_err();
    assert!(why.contains("another relay") && why.contains(&relay.peer_id().to_string()), "{why}");
    let why = ask(relay.admin_addr().unwrap(), relay.peer_id()).await.unwrap_err();
    assert!(why.contains("404"), "{why}");
    let nothing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let why = ask(nothing, relay.peer_id()).await.unwrap_err();
    assert!(why.contains("refused"), "{why}");
    let tls = Origin { tls: true, ..at(relay.http_addr()) };
    assert!(probe(&tls, relay.peer_id(), &plain()).await.is_err());
    assert_eq!(relay.stats().logins, 0);
}

#[tokio::test]
async fn packets_and_checks_pass_between_two_that_let_each_other_in() {
    let relay = relay(RouterLimits::default());
    let [a, b] = [(); 2].map(|()| Peer::of(relay.http_addr(), relay.peer_id(), plain()));
    // Before either is connected: what is said early is not lost.
    let (to_b, to_a) = (a.client.allow(b.address), b.client.allow(a.address));
    b.up(1).await;
    send(&a.client.link(), to_b, &[0x40; 30_000]);
    assert_eq!(receive(&b.client.link()).await, (to_a, 30_000, 0x40));
    b.client.link().send_datagram(to_a, b"\0check").unwrap();
    assert_eq!(receive(&a.client.link()).await, (to_b, 6, 0));
    assert_eq!(a.client.reached(), Some(relay.http_addr()));
}

#[tokio::test]
async fn whoever_is_let_in_no_longer_is_not_heard_and_who_is_not_there_is_named() {
    let relay = relay(RouterLimits::default());
    let [mut a, b] = [(); 2].map(|()| Peer::of(relay.http_addr(), relay.peer_id(), plain()));
    let to_b = a.client.allow(b.address);
    b.up(1).await;
    send(&a.client.link(), to_b, &[0x40; 1000]);
    until("it is held", || relay.stats().held_bytes > 0).await;
    let nobody = a.client.allow(peers::nobody());
    send(&a.client.link(), nobody, &[0x40; 1000]);
    assert_eq!(timeout(PATIENCE, a.absent.recv()).await.unwrap(), Some(nobody));
    assert_eq!(relay.stats().dropped(DropReason::Offline), 1);
    a.client.forbid(nobody);
    assert_eq!(a.client.link().address(nobody), None);
}

#[tokio::test]
async fn a_connection_that_broke_is_made_again_and_the_allowed_stay_so() {
    let relay = relay(RouterLimits::default());
    let gate = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, to) = (gate.local_addr().unwrap(), relay.http_addr());
    let first = tokio::spawn(async move {
        let (mut near, _) = gate.accept().await.unwrap();
        let mut far = TcpStream::connect(to).await.unwrap();
        let _cut = copy_bidirectional(&mut near, &mut far).await;
        gate
    });
    let (a, b) = (Peer::of(at, relay.peer_id(), plain()), Peer::of(to, relay.peer_id(), plain()));
    a.up(1).await;
    let (to_a, to_b) = (b.client.allow(a.address), a.client.allow(b.address));
    first.abort();
    let _cut = first.await;
    let gate = TcpListener::bind(at).await.unwrap();
    let second = tokio::spawn(async move {
        let (mut near, _) = gate.accept().await.unwrap();
        let mut far = TcpStream::connect(to).await.unwrap();
        let _ended = copy_bidirectional(&mut near, &mut far).await;
    });
    a.up(2).await;
    send(&b.client.link(), to_a, &[0x40; 100]);
    assert_eq!(receive(&a.client.link()).await, (to_b, 100, 0x40));
    second.abort();
}

#[tokio::test]
async fn a_request_that_was_refused_with_a_packet_in_it_is_repeated_without() {
    let narrow = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay = key().peer_id();
    let peer = Peer::of(narrow.local_addr().unwrap(), relay, plain());
    let _expected = peer.client.expect_first();
    let link = peer.client.link();
    let server = link.addr(Address { peer: relay, instance: Instance::SERVICE });
    (0..2).for_each(|_| send(&link, server, &[0x40; 1200]));
    let laden = std::iter::repeat_n((), 4).map(async |()| {
        let (mut near, _) = narrow.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            near.read_buf(&mut head).await.unwrap();
        }
        near.write_all(b"HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        let head = String::from_utf8(head).unwrap();
        let packet = head.lines().find_map(|line| line.strip_prefix("culvert-first: "));
        packet.map(|packet| (packet.len(), packet.trim_end_matches(&packet[..4]).len()))
    });
    let mut heads = Vec::new();
    for head in laden {
        heads.push(timeout(PATIENCE, head).await.unwrap());
    }
    assert_eq!(heads, [Some((1600, 0)), None, Some((1600, 0)), None]);
}

#[tokio::test]
async fn no_login_is_signed_for_another_relay() {
    let relay = relay(RouterLimits::default());
    let peer = Peer::of(relay.http_addr(), key().peer_id(), plain());
    let mut state = peer.client.state();
    let is_down =
        |state: &RelayState| matches!(state, RelayState::Down(why) if why.contains("another relay"));
    timeout(PATIENCE, state.wait_for(is_down)).await.unwrap().unwrap();
    assert_eq!(relay.stats().logins, 0);
}

#[tokio::test]
async fn a_proxy_is_passed_through() {
    let relay = relay(RouterLimits::default());
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let (mut near, _) = proxy.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            near.read_buf(&mut head).await.unwrap();
        }
        let head = String::from_utf8(head).unwrap();
        let to = head.split(' ').nth(1).unwrap().to_owned();
        let mut far = TcpStream::connect(&to).await.unwrap();
        near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        to
    });
    let outbound = Outbound::new(Arc::new(OsNet), Some(url.parse().unwrap()));
    let peer = Peer::of(relay.http_addr(), relay.peer_id(), outbound);
    peer.up(1).await;
    assert_eq!(asked.await.unwrap(), relay.http_addr().to_string());
}
