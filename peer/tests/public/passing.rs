//! What passes between a browser and the local server of a share.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::origin::{Origin, echo};
use crate::support::{Home, Rendezvous, key, soon, until};
use crate::web::{ask, head, mirror, ready, share};

#[tokio::test]
async fn a_public_share_has_a_url_and_visitors_that_are_told_of() {
    let (server, home, origin) = (Rendezvous::start(), Home::new(), mirror().await);
    let mut share = share(&home, &server, &origin.target(), &["--name", "nas"]);
    let told = ready(&mut share).await;
    let port = server.http().port();
    assert_eq!(
        (&told["name"], &told["url"]),
        (&"nas".into(), &format!("http://nas.example.test:{port}").into())
    );
    let answer = ask(server.http(), "nas", "GET /a?b\r\nX-Forwarded-For: 6.6.6.6\r\n").await;
    let seen = answer.split_once("\r\n\r\n").unwrap().1;
    assert!(seen.starts_with(&format!("GET /a?b HTTP/1.1\r\nHost: {}\r\n", origin.target())), "{seen}");
    for field in
        ["X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: nas.example.test", "X-Forwarded-Proto: http"]
    {
        assert!(seen.contains(&format!("\r\n{field}\r\n")), "{field}: {seen}");
    }
    let open = share.event("visitor").await;
    assert_eq!(
        (&open["via"], &open["state"], &open["peer_id"]),
        (&"gateway".into(), &"open".into(), &().into())
    );
    let closed = share.event("visitor").await;
    assert_eq!(closed["state"], "closed");
    assert!(closed["bytes_in"].as_u64().unwrap() > 100 && closed["bytes_out"].as_u64().unwrap() > 100);
}

#[tokio::test]
async fn the_host_is_the_sharers_choice() {
    let (server, origin) = (Rendezvous::start(), mirror().await);
    for (choice, seen) in [("preserve", "nas.example.test"), ("app.internal:81", "app.internal:81")] {
        let home = Home::new();
        let name = format!("nas-{}", choice.len());
        let mut share = share(&home, &server, &origin.target(), &["--name", &name, "--host-header", choice]);
        ready(&mut share).await;
        let answer = ask(server.http(), &name, "GET /").await;
        let seen = seen.replace("nas.", &format!("{name}."));
        assert!(answer.contains(&format!("\r\nHost: {seen}\r\n")), "{answer}");
    }
}

#[tokio::test]
async fn a_failure_has_an_answer_within_a_second_of_its_cause() {
    let (server, home) = (Rendezvous::start(), Home::new());
    let origin = Origin::serving("127.0.0.1", |mut stream: TcpStream| async move {
        let asked = head(&mut stream).await;
        if asked.starts_with("GET /garbage") {
            let _gone = stream.write_all(b"220 mail.test ESMTP\r\n\r\n").await;
        }
    })
    .await;
    let mut share = share(&home, &server, &origin.target(), &["--name", "nas"]);
    ready(&mut share).await;
    let asked = async |request, status| {
        let since = Instant::now();
        let answer = ask(server.http(), "nas", request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(since.elapsed().as_millis() < 1000, "{request}");
    };
    asked("GET /garbage", 502).await;
    asked("GET /reset", 502).await;
    asked("POST /reset\r\nContent-Length: 0\r\n", 502).await;
    drop(origin);
    asked("GET /", 502).await;
    share.signal("TERM");
    assert_eq!(share.ended().await.code, Some(0));
    asked("GET /", 503).await;
    let unknown = ask(server.http(), "nobody", "GET /").await;
    assert!(unknown.starts_with("HTTP/1.1 404 "), "{unknown}");
}

/// Agrees to anything, says hello at once, and sends back what it gets.
async fn upgraded(mut stream: TcpStream) {
    let asked = head(&mut stream).await;
    if asked.contains("\r\nUpgrade: websocket\r\n") {
        let agreed =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nhello";
        let _gone = stream.write_all(agreed.as_bytes()).await;
        return echo(stream).await;
    }
    let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain").await;
}

async fn websocket(server: &Rendezvous, right_behind: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.http()).await.unwrap();
    let ask = format!(
        "GET /ws HTTP/1.1\r\nHost: nas.example.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{right_behind}"
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    stream
}

async fn expect(stream: &mut TcpStream, text: &str) {
    let mut got = vec![0; text.len()];
    soon(text, stream.read_exact(&mut got)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&got), text);
}

#[tokio::test]
async fn two_hundred_websockets_leave_room_for_a_page_and_lose_nothing_behind_their_handshake() {
    let (server, home) = (Rendezvous::start(), Home::new());
    let origin = Origin::serving("127.0.0.1", upgraded).await;
    let mut share = share(&home, &server, &origin.target(), &["--name", "nas"]);
    ready(&mut share).await;
    let mut open = Vec::new();
    for n in 0..200 {
        let mut stream = websocket(&server, "early").await;
        expect(&mut stream, "helloearly").await;
        if n % 50 == 0 {
            let since = Instant::now();
            assert!(ask(server.http(), "nas", "GET /").await.ends_with("plain"));
            assert!(since.elapsed().as_millis() < 1000);
        }
        open.push(stream);
    }
    for stream in &mut open {
        stream.write_all(b"still here").await.unwrap();
        expect(stream, "still here").await;
    }
    // One end says that it has ended, and hears the other one's end.
    let mut last = open.pop().unwrap();
    last.shutdown().await.unwrap();
    assert_eq!(soon("its end", last.read(&mut [0; 8])).await.unwrap(), 0);
    until("it is over", || server.stats().gateway.upgraded == 1).await;
}

#[tokio::test]
async fn both_bodies_stream_while_the_other_side_waits() {
    let (server, home) = (Rendezvous::start(), Home::new());
    // Answers the first half of the upload before it has the second, and ends after it.
    let origin = Origin::serving("127.0.0.1", |mut stream: TcpStream| async move {
        head(&mut stream).await;
        let mut half = [0; 5];
        stream.read_exact(&mut half).await.unwrap();
        let first = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nfirst\r\n";
        stream.write_all(first.as_bytes()).await.unwrap();
        stream.read_exact(&mut half).await.unwrap();
        stream.write_all(b"6\r\nsecond\r\n0\r\nX-Sum: 7\r\n\r\n").await.unwrap();
    })
    .await;
    let mut share = share(&home, &server, &origin.target(), &["--name", "nas"]);
    ready(&mut share).await;
    let mut visit = TcpStream::connect(server.http()).await.unwrap();
    let start = "POST / HTTP/1.1\r\nHost: nas.example.test\r\nContent-Length: 10\r\n\r\n12345";
    visit.write_all(start.as_bytes()).await.unwrap();
    let answer = head(&mut visit).await;
    assert!(answer.contains("\r\nTransfer-Encoding: chunked\r\n"), "{answer}");
    expect(&mut visit, "5\r\nfirst\r\n").await;
    visit.write_all(b"67890").await.unwrap();
    expect(&mut visit, "6\r\nsecond\r\n0\r\nX-Sum: 7\r\n\r\n").await;
}

#[tokio::test]
async fn a_slow_reader_holds_up_nobody_else() {
    let (server, home) = (Rendezvous::start(), Home::new());
    let origin = Origin::serving("127.0.0.1", |mut stream: TcpStream| async move {
        let endless = head(&mut stream).await.starts_with("GET /endless");
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while endless && stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
    })
    .await;
    let mut share = share(&home, &server, &origin.target(), &["--name", "nas"]);
    ready(&mut share).await;
    let mut slow = Vec::new();
    for _ in 0..24 {
        let mut visit = TcpStream::connect(server.http()).await.unwrap();
        visit.write_all(b"GET /endless HTTP/1.1\r\nHost: nas.example.test\r\n\r\n").await.unwrap();
        visit.read_exact(&mut [0; 1024]).await.unwrap();
        slow.push(visit);
    }
    for _ in 0..10 {
        let since = Instant::now();
        assert!(ask(server.http(), "nas", "GET /").await.starts_with("HTTP/1.1 200 "));
        assert!(since.elapsed().as_millis() < 1000);
    }
}

#[tokio::test]
async fn a_share_comes_back_under_its_name_when_its_server_was_killed() {
    let (mut server, home, origin) = (Rendezvous::with(key(), |_| ()), Home::new(), mirror().await);
    let (url, target) = (server.url(), origin.target());
    let mut share = home.spawn(&["share", &target, "--server", &url, "--public", "--name", "nas"]);
    share.line("Sharing").await;
    server.kill();
    server.start_again();
    share.line("Public again.").await;
    assert!(ask(server.http(), "nas", "GET /").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(server.stats().gateway.sharers, 1);
}
