use std::future::poll_fn;
use std::io::IoSliceMut;

use quinn::udp::{RecvMeta, Transmit};
use relay::net::{Change, IpFamily, QUIET};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::*;
use crate::link::Quality;

const MS: Duration = Duration::from_millis(1);

/// A home behind a NAT, another of the same kind, and a server, with R = 100 ms and D = 20 ms.
fn plan() -> Plan {
    let plan = World::plan(1).home("a", Kind::PORT_RESTRICTED).home("b", Kind::PORT_RESTRICTED).server("s");
    plan.server_rtt(100 * MS).direct_rtt(20 * MS)
}

fn server_at(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn bind(world: &SimWorld, host: &str, at: &str) -> Arc<dyn Link> {
    world.net(host).bind_udp(at.parse().unwrap()).unwrap()
}

/// The next datagrams: from where, how large, and when.
async fn receive(world: &SimWorld, link: &Arc<dyn Link>) -> Vec<(SocketAddr, usize, Duration)> {
    let mut buffers = vec![vec![0; 2000]; 4];
    let mut metas = [RecvMeta::default(); 4];
    let received = poll_fn(|cx| {
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        link.poll_recv(cx, &mut slices, &mut metas)
    });
    let count = received.await.unwrap();
    metas[..count].iter().map(|meta| (meta.addr, meta.len, world.elapsed())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_datagram_takes_half_a_round_trip_and_comes_from_the_nat() {
    let world = SimWorld::start(&plan());
    let (a, s) = (bind(&world, "a", "[::]:5000"), bind(&world, "s", "[::]:3478"));
    a.send_datagram(server_at(3478), b"hello").unwrap();
    let got = receive(&world, &s).await;
    assert_eq!(got, [("203.0.113.1:5000".parse().unwrap(), 5, 50 * MS)]);
    s.send_datagram(got[0].0, b"hello back").unwrap();
    assert_eq!(receive(&world, &a).await, [(server_at(3478), 10, 100 * MS)]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_arrives_as_the_packets_that_it_was_made_of() {
    let world = SimWorld::start(&plan());
    let (a, s) = (bind(&world, "a", "0.0.0.0:0"), bind(&world, "s", "192.0.2.1:3478"));
    let contents = &[7; 2500][..];
    let transmit = Transmit {
        destination: server_at(3478),
        ecn: None,
        contents,
        segment_size: Some(1200),
        src_ip: None,
    };
    a.try_send(&transmit).unwrap();
    let sizes: Vec<_> = receive(&world, &s).await.iter().map(|(_, len, _)| *len).collect();
    assert_eq!(sizes, [1200, 1200, 100]);
}

#[tokio::test(start_paused = true)]
async fn what_is_larger_than_the_interface_or_the_wire_does_not_arrive() {
    let world = SimWorld::start(&plan());
    let narrow = Quality { mtu: 1280, ..Quality::default() };
    world.with_world(|world| world.set_quality("a", narrow, Quality::default()));
    let (a, s) = (bind(&world, "a", "0.0.0.0:0"), bind(&world, "s", "192.0.2.1:3478"));
    a.send_datagram(server_at(3478), &[0; 1473]).unwrap_err();
    for size in [1472, 1253, 1252] {
        a.send_datagram(server_at(3478), &vec![0; size]).unwrap();
    }
    assert!(matches!(receive(&world, &s).await[..], [(_, 1252, _)]));
}

#[tokio::test(start_paused = true)]
async fn a_datagram_with_a_short_life_opens_its_nat_and_dies() {
    let world = SimWorld::start(&plan());
    let (a, s) = (bind(&world, "a", "0.0.0.0:5000"), bind(&world, "s", "192.0.2.1:3478"));
    a.send_with_ttl(server_at(3478), 2, b"prime").unwrap();
    assert!(timeout(1000 * MS, receive(&world, &s)).await.is_err());
    s.send_datagram("203.0.113.1:5000".parse().unwrap(), b"through").unwrap();
    assert_eq!(receive(&world, &a).await[0].1, 7);
}

#[tokio::test(start_paused = true)]
async fn a_port_is_taken_until_its_socket_is_dropped() {
    let world = SimWorld::start(&plan());
    let first = bind(&world, "a", "[::]:5000");
    let again = || world.net("a").bind_udp("0.0.0.0:5000".parse().unwrap());
    assert_eq!(again().unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(first);
    assert_eq!(again().unwrap().local_addr().unwrap(), "0.0.0.0:5000".parse().unwrap());
    let elsewhere = world.net("a").bind_udp("192.0.2.1:5000".parse().unwrap());
    assert_eq!(elsewhere.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
}

#[tokio::test(start_paused = true)]
async fn a_stream_takes_its_time_and_ends_as_its_writer_ends_it() {
    let world = SimWorld::start(&plan());
    let listener = world.net("s").listen_tcp("[::]:80".parse().unwrap()).unwrap();
    let net = world.net("a");
    let (near, accepted) = tokio::join!(net.connect_tcp(server_at(80)), listener.accept());
    let ((mut read, mut write), ((mut far_read, far_write), from)) = (near.unwrap(), accepted.unwrap());
    assert_eq!(from.ip().to_string(), "203.0.113.1");
    assert_eq!(world.elapsed(), 100 * MS);

    write.write_all(&[1; 100_000]).await.unwrap();
    write.shutdown().await.unwrap();
    let mut got = Vec::new();
    far_read.read_to_end(&mut got).await.unwrap();
    assert_eq!((got, world.elapsed()), (vec![1; 100_000], 150 * MS));

    far_write.abort();
    drop(far_read);
    let error = read.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!((error.kind(), world.elapsed()), (io::ErrorKind::ConnectionReset, 200 * MS));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_stops_its_writer() {
    let world = SimWorld::start(&plan());
    let net = world.net("a");
    let listener = net.listen_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let to = listener.local_addr().unwrap();
    let (near, accepted) = tokio::join!(net.connect_tcp(to), listener.accept());
    let ((_read, mut write), ((mut far_read, _far_write), _)) = (near.unwrap(), accepted.unwrap());
    let mut writing = Box::pin(async {
        write.write_all(&vec![1; 1_000_000]).await.unwrap();
        write.shutdown().await.unwrap();
    });
    assert!(timeout(1000 * MS, &mut writing).await.is_err(), "a megabyte does not fit");
    let mut got = Vec::new();
    let (read, ()) = tokio::join!(far_read.read_to_end(&mut got), writing);
    assert_eq!(read.unwrap(), 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_in_through_a_nat_and_a_port_without_a_listener_refuses() {
    let world = SimWorld::start(&plan());
    let refused = world.net("a").connect_tcp(server_at(80)).await.err().unwrap();
    assert_eq!((refused.kind(), world.elapsed()), (io::ErrorKind::ConnectionRefused, 100 * MS));
    let _listener = world.net("b").listen_tcp("[::]:80".parse().unwrap()).unwrap();
    let silent = world.net("a").connect_tcp("203.0.113.2:80".parse().unwrap()).await.err().unwrap();
    assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_that_of_a_host() {
    let world = SimWorld::start(&plan());
    let resolve = async |name: &str| world.net("a").resolve(name, 80, IpFamily::V4).await.unwrap();
    assert_eq!(resolve("s").await[0], server_at(80));
    assert_eq!(resolve("192.0.2.9").await, ["192.0.2.9:80".parse().unwrap()]);
    assert_eq!(resolve("nobody").await, []);
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_nothing_leaves_and_the_port_is_free() {
    let world = SimWorld::start(&plan());
    let (a, s) = (bind(&world, "a", "[::]:5000"), bind(&world, "s", "[::]:3478"));
    world.crash("a");
    assert_eq!(a.send_datagram(server_at(3478), b"late").unwrap_err().kind(), io::ErrorKind::NotConnected);
    let again = bind(&world, "a", "[::]:5000");
    drop(a);
    again.send_datagram(server_at(3478), b"hello").unwrap();
    assert_eq!(receive(&world, &s).await[0].1, 5);
}

#[tokio::test(start_paused = true)]
async fn who_moves_is_told_once_it_is_over_and_nobody_else_is() {
    let world = SimWorld::start(&plan().empty_home("elsewhere", Kind::PORT_RESTRICTED));
    let (mut mine, mut others) = (world.net("a").watch_changes(), world.net("b").watch_changes());
    for home in ["b", "elsewhere"] {
        world.with_world(|world| world.roam("a", home));
    }
    let addresses = world.net("a").addresses().unwrap();
    assert_eq!((mine.changed().await, world.elapsed()), (Change::Network, QUIET));
    assert_ne!(addresses, world.net("b").addresses().unwrap());
    assert!(timeout(1000 * MS, others.changed()).await.is_err());
    assert!(timeout(1000 * MS, mine.changed()).await.is_err(), "told twice");
}
