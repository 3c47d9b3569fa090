use std::future::poll_fn;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const PAYLOAD: &[u8] = b"payload";

fn loopback(addr: SocketAddr, v4: bool) -> SocketAddr {
    let ip = if v4 { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
    SocketAddr::new(ip, addr.port())
}

/// The next datagram of a link: its sender and its bytes.
async fn receive(link: &OsLink) -> (SocketAddr, Vec<u8>) {
    poll_fn(|cx| {
        let mut bytes = vec![0; 2048];
        let mut meta = [RecvMeta::default()];
        match link.poll_recv(cx, &mut [IoSliceMut::new(&mut bytes)], &mut meta) {
            Poll::Ready(received) => {
                assert_eq!(received.unwrap(), 1);
                bytes.truncate(meta[0].len);
                Poll::Ready((meta[0].addr, bytes))
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn link(local: &str) -> OsLink {
    OsLink::bind(local.parse().unwrap()).unwrap()
}

#[tokio::test]
async fn a_dual_stack_link_reaches_both_families_by_their_own_addresses() {
    let dual = link("[::]:0");
    let dual_addr = dual.local_addr().unwrap();
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let other = link(local);
        let other_addr = other.local_addr().unwrap();

        dual.send_datagram(other_addr, PAYLOAD).unwrap();
        let (from, bytes) = receive(&other).await;
        assert_eq!((from, bytes.as_slice()), (loopback(dual_addr, other_addr.is_ipv4()), PAYLOAD));

        other.send_datagram(from, PAYLOAD).unwrap();
        assert_eq!(receive(&dual).await, (other_addr, PAYLOAD.to_vec()));
    }
}

#[tokio::test]
async fn quinn_sends_through_a_dual_stack_link_to_canonical_and_to_mapped_addresses() {
    let dual = Arc::new(link("[::]:0"));
    let mut writable = Arc::clone(&dual).create_io_poller();
    poll_fn(|cx| writable.as_mut().poll_writable(cx)).await.unwrap();
    let other = link("127.0.0.1:0");
    let addr = other.local_addr().unwrap();
    for destination in [addr, mapped(addr)] {
        let transmit =
            Transmit { destination, ecn: None, contents: PAYLOAD, segment_size: None, src_ip: None };
        dual.try_send(&transmit).unwrap();
        assert_eq!(receive(&other).await.1, PAYLOAD);
    }
}

#[tokio::test]
async fn the_other_family_is_an_error_to_a_caller_and_a_loss_to_quinn() {
    let v4 = link("127.0.0.1:0");
    let destination = "[::1]:9".parse().unwrap();
    assert!(v4.send_datagram(destination, PAYLOAD).is_err());
    let transmit = Transmit { destination, ecn: None, contents: PAYLOAD, segment_size: None, src_ip: None };
    v4.try_send(&transmit).unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_hop_limit_is_that_of_one_datagram_alone() {
    for (from, to) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:0", "[::1]:0"), ("[::]:0", "127.0.0.1:0")] {
        for (hops, expected) in [(2, [b"low", b"Low"]), (64, [b"any", b"Any"])] {
            let sender = link(from);
            let receiver = std::net::UdpSocket::bind(to).unwrap();
            receiver.set_nonblocking(true).unwrap();
            let addr = receiver.local_addr().unwrap();
            accept_only_hop_limit(SockRef::from(&receiver), addr.is_ipv4(), hops);

            sender.send_datagram(addr, b"any").unwrap();
            sender.send_with_ttl(addr, 2, b"low").unwrap();
            sender.send_datagram(addr, b"Any").unwrap();
            sender.send_with_ttl(addr, 2, b"Low").unwrap();

            // Loopback delivers before the send returns.
            let mut received = Vec::new();
            let mut bytes = [0; 3];
            while receiver.recv(&mut bytes).is_ok() {
                received.push(bytes);
            }
            assert_eq!(received.iter().collect::<Vec<_>>(), expected, "hop limit {hops}, {from} to {to}");
        }
    }
}

/// Has the kernel drop what arrives with another hop limit: a filter of four instructions that reads it in
/// the IP header (`SKF_NET_OFF`, Linux' networking/filter.rst).
#[cfg(target_os = "linux")]
fn accept_only_hop_limit(socket: SockRef<'_>, v4: bool, hops: u32) {
    use socket2::SockFilter;

    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const NETWORK_HEADER: u32 = 0xfff0_0000;
    let offset = if v4 { 8 } else { 7 };
    socket
        .attach_filter(&[
            SockFilter::new(LOAD_BYTE, 0, 0, NETWORK_HEADER + offset),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, hops),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
            SockFilter::new(RETURN, 0, 0, 0),
        ])
        .unwrap();
}

#[tokio::test]
async fn a_full_or_refusing_socket_is_the_callers_to_count() {
    let link = link("127.0.0.1:0");
    let too_long = vec![0; 70_000];
    assert!(link.send_datagram("127.0.0.1:9".parse().unwrap(), &too_long).is_err());
}

#[tokio::test]
async fn segmentation_offload_is_forwarded() {
    let link = link("[::]:0");
    assert_eq!(link.max_transmit_segments(), link.inner.max_transmit_segments());
    assert_eq!(link.max_receive_segments(), link.inner.max_receive_segments());
    assert_eq!(link.may_fragment(), link.inner.may_fragment());
    if cfg!(target_os = "linux") {
        assert!(link.max_transmit_segments() > 1 && link.max_receive_segments() > 1 && !link.may_fragment());
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn batches_arrive_as_the_packets_they_were_and_from_the_address_that_was_named() {
    const PACKET: usize = 1200;

    let sender = link("[::]:0");
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_nonblocking(true).unwrap();
    let destination = receiver.local_addr().unwrap();
    let src_ip = Some("127.0.0.2".parse().unwrap());
    let contents: Vec<_> = (0..31).flat_map(|n| [n; PACKET]).collect();
    for batch in contents.chunks(10 * PACKET) {
        let segment_size = Some(PACKET).filter(|&packet| packet < batch.len());
        let transmit = Transmit { destination, ecn: None, contents: batch, segment_size, src_ip };
        sender.try_send(&transmit).unwrap();
    }

    // Loopback delivers before the send returns.
    let mut bytes = [0; 2 * PACKET];
    for expected in contents.chunks(PACKET) {
        let (len, from) = receiver.recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..len], Some(from.ip())), (expected, src_ip));
    }
    assert_eq!(receiver.recv(&mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_stream_carries_bytes_and_its_end() {
    let listener = OsNet.listen_tcp("[::]:0".parse().unwrap()).unwrap();
    let to = loopback(listener.local_addr().unwrap(), true);
    let (connected, accepted) = tokio::join!(OsNet.connect_tcp(to), listener.accept());
    let (_read, mut write) = connected.unwrap();
    let ((mut read, _write), from) = accepted.unwrap();
    assert_eq!(from.ip(), to.ip(), "a canonical address");

    write.write_all(PAYLOAD).await.unwrap();
    drop(write);
    let mut bytes = Vec::new();
    read.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, PAYLOAD);
}

/// The kernel's table tells which timer of a connection runs: 2 is that of keepalive (proc_net_tcp.txt).
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_far_end_that_vanishes_without_a_word_is_missed() {
    let listener = OsNet.listen_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let to = listener.local_addr().unwrap();
    let (connected, accepted) = tokio::join!(OsNet.connect_tcp(to), listener.accept());
    let (_connected, _accepted) = (connected.unwrap(), accepted.unwrap());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", to.port());
    let timers: Vec<&str> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[3] == "01" && (fields[1].ends_with(&port) || fields[2].ends_with(&port)))
        .map(|fields| fields[5].split(':').next().unwrap())
        .collect();
    assert_eq!(timers, ["02", "02"], "both ends ask");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_nobody_takes_is_given_up_when_its_writer_says() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (_far, _) = listener.accept().unwrap();
    let (_read, mut write) = near.into_split();
    write.give_up_after(Duration::from_millis(100));
    // The far end is there, and reads nothing.
    let block = vec![0; 64 * 1024];
    let error = loop {
        if let Err(error) = write.write_all(&block).await {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn the_source_of_a_route_to_this_host_is_this_host() {
    assert_eq!(OsNet.source_for("127.0.0.1:9".parse().unwrap()).unwrap(), Ipv4Addr::LOCALHOST);
}

#[tokio::test]
async fn addresses_are_those_that_others_can_name() {
    assert!(OsNet.addresses().unwrap().iter().all(|ip| !ip.is_loopback()));
}

#[tokio::test]
async fn an_interface_is_told_with_its_name_and_its_prefix() {
    let own = OsNet.interfaces().unwrap();
    assert!(own.iter().all(|address| !address.device.name.is_empty() && address.prefix.is_some()));
}

#[tokio::test]
async fn an_address_in_text_resolves_to_itself() {
    for (host, v4, v6) in [
        ("192.0.2.1", vec!["192.0.2.1:7"], vec![]),
        ("2001:db8::1", vec![], vec!["[2001:db8::1]:7"]),
        ("::ffff:192.0.2.1", vec!["192.0.2.1:7"], vec![]),
    ] {
        for (family, expected) in [(IpFamily::V4, v4), (IpFamily::V6, v6)] {
            let expected: Vec<SocketAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(OsNet.resolve(host, 7, family).await.unwrap(), expected, "{host} {family:?}");
        }
    }
}

#[tokio::test]
async fn a_name_of_the_hosts_file_has_its_addresses_by_family() {
    let v4 = OsNet.resolve("localhost", 7, IpFamily::V4).await.unwrap();
    assert!(v4.contains(&"127.0.0.1:7".parse().unwrap()), "{v4:?}");
    let v6 = OsNet.resolve("localhost", 7, IpFamily::V6).await.unwrap();
    assert!(v6.iter().all(SocketAddr::is_ipv6), "{v6:?}");
}
