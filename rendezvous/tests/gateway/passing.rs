//! What passes through the gateway, and how.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{body, get, http};
use crate::tunnel::{Visit, ask, head, mirror, open, register, server};

/// Begins an answer, and goes on with it for as long as the visitor is there.
async fn endless(mut stream: TcpStream) {
    head(&mut stream).await;
    let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let _gone = stream.read_u8().await;
}

#[tokio::test]
async fn a_client_that_vanished_and_comes_back_has_its_name_and_serves_it() {
    let server = server(|_| ());
    let told = register(&server, "/forwstest").await;
    let port = u16::try_from(told["port"].as_u64().unwrap()).unwrap();
    // As a client whose end nobody heard of: it is there, and answers nothing.
    let _ghost = TcpStream::connect((server.http_addr().ip(), port)).await.unwrap();
    crate::support::until("it is connected", || server.stats().gateway.connections == 1).await;
    let again = open(&server, "forwstest", 1, mirror).await;
    assert_eq!(again.name, "forwstest");
    assert_ne!(again.port, port);
    assert!(ask(&server, "forwstest", "GET /").await.starts_with("HTTP/1.1 200 "));
    assert!(TcpStream::connect((server.http_addr().ip(), port)).await.is_err());
}

#[tokio::test]
async fn whoever_has_a_name_has_all_its_paths() {
    let server = server(|_| ());
    let tunnel = open(&server, "taken", 1, mirror).await;
    for path in ["/.well-known/culvert", "/relay"] {
        let answer = ask(&server, &tunnel.name, &format!("GET {path}")).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("peer_id"), "{answer}");
    }
    assert_eq!(crate::support::metric(&server, "culvert_warnings{kind=\"not_apex\"}").await, 0);
}

#[tokio::test]
async fn a_name_is_given_with_a_url_of_the_servers_settings() {
    let server = server(|_| ());
    let port = server.http_addr().port();
    let told = register(&server, "/forwstest").await;
    assert_eq!(told["id"], "forwstest");
    assert_eq!(told["url"], format!("http://forwstest.example.test:{port}"));
    assert_eq!(told["max_conn_count"], 32);
    // Whoever asks under a false Host, or for a name that is taken.
    let asked = "GET /?new HTTP/1.1\r\nHost: 127.0.0.1:99\r\nX-Forwarded-Host: evil.test\r\nConnection: close\r\n\r\n";
    let told: serde_json::Value = serde_json::from_str(body(&http(server.http_addr(), asked).await)).unwrap();
    assert_eq!(told["url"], format!("http://{}.example.test:{port}", told["id"].as_str().unwrap()));
    let tunnel = open(&server, "taken", 1, endless).await;
    assert_eq!(tunnel.name, "taken");
    let mut visit = Visit::new(&server).await;
    visit.send("GET / HTTP/1.1\r\nHost: taken.example.test\r\n\r\n").await;
    visit.read_until("\r\n\r\n").await;
    assert_ne!(register(&server, "/taken").await["id"], "taken");
    for path in ["/abc", "/constructor", "/Upper", "/-bad"] {
        assert!(get(server.http_addr(), path).await.starts_with("HTTP/1.1 403 "), "{path}");
    }
    let status = get(server.http_addr(), "/api/tunnels/taken/status").await;
    assert_eq!(body(&status), r#"{"connected_sockets":1}"#);
    assert!(get(server.http_addr(), "/api/tunnels/nobody/status").await.starts_with("HTTP/1.1 404 "));
    let status: serde_json::Value =
        serde_json::from_str(body(&get(server.http_addr(), "/api/status").await)).unwrap();
    assert_eq!(status["tunnels"], 4);
}

#[tokio::test]
async fn hosts_are_the_servers_own_or_a_name_or_nobodys() {
    let server = server(|_| ());
    let _tunnel = open(&server, "forwstest", 2, mirror).await;
    let mut visit = Visit::new(&server).await;
    // One connection may ask for all of them, as a proxy's does.
    visit.send("GET /a HTTP/1.1\r\nHost: FORWSTEST.example.test.:80\r\n\r\n").await;
    assert!(visit.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
    visit.read_until("\r\n\r\n").await;
    visit.send("GET / HTTP/1.1\r\nHost: nobody.example.test\r\n\r\n").await;
    assert!(visit.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 404 "));
    visit.read_until("address.\n").await;
    visit.send("GET / HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
    let page = visit.rest().await;
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("This is a Culvert server"), "{page}");
    for host in ["other.test", "a.b.example.test", "-a.example.test", "constructor.example.test"] {
        let asked = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert!(http(server.http_addr(), &asked).await.starts_with("HTTP/1.1 404 "), "{host}");
    }
}

#[tokio::test]
async fn every_request_is_told_who_asks_and_has_a_connection_of_its_own() {
    let server = server(|_| ());
    let _tunnel = open(&server, "forwstest", 2, mirror).await;
    let mut visit = Visit::new(&server).await;
    for n in 0..5 {
        visit
            .send(&format!(
                "GET /{n} HTTP/1.1\r\nHost: forwstest.example.test\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
            ))
            .await;
        visit.read_until("\r\n\r\n").await;
        let seen = visit.read_until("\r\n\r\n").await;
        assert!(
            seen.starts_with(&format!("GET /{n} HTTP/1.1\r\nHost: forwstest.example.test\r\n")),
            "{seen}"
        );
        assert!(seen.contains("\r\nX-Forwarded-For: 127.0.0.1\r\n") && !seen.contains("6.6.6.6"), "{seen}");
        assert!(seen.ends_with("\r\nConnection: close\r\n\r\n"), "{seen}");
    }
}

/// Answers with half a body, waits for half of the request's, then sends the rest of both.
async fn halves(mut stream: TcpStream) {
    if head(&mut stream).await.is_empty() {
        return;
    }
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nfirst\r\n")
        .await
        .unwrap();
    let mut came = [0; 16];
    // In chunks of its own: as each arrived.
    stream.read_exact(&mut came).await.unwrap();
    assert_eq!(&came, b"5\r\nhalf1\r\n5\r\nhal");
    stream.write_all(b"6\r\nsecond\r\n0\r\nX-Sum: 1\r\n\r\n").await.unwrap();
    let _rest = stream.read(&mut came).await;
}

#[tokio::test]
async fn both_bodies_stream_and_the_first_half_is_there_before_the_second() {
    let server = server(|_| ());
    let _tunnel = open(&server, "forwstest", 1, halves).await;
    let mut visit = Visit::new(&server).await;
    visit.send("POST / HTTP/1.1\r\nHost: forwstest.example.test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let head = visit.read_until("5\r\nfirst\r\n").await;
    assert!(head.contains("\r\nTrailer: X-Sum\r\n"), "{head}");
    visit.send("5;a=b\r\nhalf1\r\n").await;
    visit.send("5\r\nhalf2\r\n").await;
    assert_eq!(visit.read_until("0\r\nX-Sum: 1\r\n\r\n").await, "6\r\nsecond\r\n0\r\nX-Sum: 1\r\n\r\n");
    visit.send("0\r\n\r\n").await;
}

/// Says something in between, then answers by the path.
async fn kinds(mut stream: TcpStream) {
    let asked = head(&mut stream).await;
    let answer: &[u8] = match asked.split(' ').nth(1) {
        Some("/hints") => {
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
        }
        Some("/none") => b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        Some("/same") => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        Some("/head") => b"HTTP/1.1 200 OK\r\nContent-Length: 4294967296\r\n\r\n",
        Some("/close") => b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
        Some("/wait") => {
            assert!(asked.contains("\r\nExpect: 100-continue\r\n"), "{asked}");
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            let mut body = [0; 4];
            stream.read_exact(&mut body).await.unwrap();
            b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
        }
        _ => return,
    };
    let _gone = stream.write_all(answer).await;
}

#[tokio::test]
async fn answers_of_every_kind_end_where_they_should() {
    let server = server(|_| ());
    let _tunnel = open(&server, "forwstest", 4, kinds).await;
    let mut visit = Visit::new(&server).await;
    let mut ask = async |request: &str, fields: &str, end: &str| {
        visit.send(&format!("{request} HTTP/1.1\r\nHost: forwstest.example.test\r\n{fields}\r\n")).await;
        visit.read_until(end).await
    };
    let hints = ask("GET /hints", "", "\r\n\r\nx").await;
    assert_eq!(
        hints,
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
    );
    assert_eq!(ask("GET /none", "", "\r\n\r\n").await, "HTTP/1.1 204 No Content\r\n\r\n");
    assert!(ask("GET /same", "", "\r\n\r\n").await.contains("\r\nContent-Length: 5\r\n"));
    assert!(ask("HEAD /head", "", "\r\n\r\n").await.contains("\r\nContent-Length: 4294967296\r\n"));
    assert!(ask("GET /close", "", "0\r\n\r\n").await.ends_with("\r\n\r\nd\r\nuntil the end\r\n0\r\n\r\n"));
    let told = ask("POST /wait", "Content-Length: 4\r\nExpect: 100-continue\r\n", "\r\n\r\n").await;
    assert_eq!(told, "HTTP/1.1 100 Continue\r\n\r\n");
    visit.send("body").await;
    assert!(visit.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 201 "));
    // An old visitor gets no chunks and no interim answers.
    visit.send("GET /close HTTP/1.0\r\nHost: forwstest.example.test\r\n\r\n").await;
    assert_eq!(visit.rest().await, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end");
}

/// Goes on in capitals, after a handshake that its first bytes came with.
async fn shout(mut stream: TcpStream) {
    let asked = head(&mut stream).await;
    if asked.contains("/refuse") {
        let _gone = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
        return;
    }
    assert!(asked.ends_with("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), "{asked}");
    let agreed =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello";
    stream.write_all(agreed).await.unwrap();
    let mut buffer = [0; 64];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let upper = buffer[..count].to_ascii_uppercase();
        stream.write_all(&upper).await.unwrap();
    }
    let _gone = stream.write_all(b"bye").await;
}

#[tokio::test]
async fn an_upgrade_is_raw_after_a_real_101_and_loses_nothing() {
    let server = server(|_| ());
    let _tunnel = open(&server, "forwstest", 2, shout).await;
    let upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
    let mut visit = Visit::new(&server).await;
    visit.send(&format!("GET / HTTP/1.1\r\nHost: forwstest.example.test\r\n{upgrade}\r\nright behind")).await;
    let answer = visit.read_until("helloRIGHT BEHIND").await;
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    visit.send("again").await;
    assert_eq!(visit.read_until("AGAIN").await, "AGAIN");
    // The end of one direction is not that of the other.
    visit.0.shutdown().await.unwrap();
    assert_eq!(visit.rest().await, "bye");

    let mut refused = Visit::new(&server).await;
    refused.send(&format!("GET /refuse HTTP/1.1\r\nHost: forwstest.example.test\r\n{upgrade}\r\n")).await;
    assert!(refused.read_until("\r\n\r\nno").await.starts_with("HTTP/1.1 403 "));
    assert_eq!(server.stats().gateway.upgraded, 1);
}

/// Agrees to what nobody asked for.
async fn eager(mut stream: TcpStream) {
    if !head(&mut stream).await.is_empty() {
        let agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n";
        let _gone = stream.write_all(agreed).await;
    }
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_is_garbage() {
    let server = server(|_| ());
    let _tunnel = open(&server, "forwstest", 2, eager).await;
    assert!(ask(&server, "forwstest", "GET /").await.starts_with("HTTP/1.1 502 "));
    let upgrade =
        "GET / HTTP/1.1\r\nHost: forwstest.example.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut visit = Visit::new(&server).await;
    visit.send(upgrade).await;
    assert!(visit.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 502 "));
}

#[tokio::test]
async fn a_name_outlives_a_client_that_comes_back() {
    let server = server(|_| ());
    let first = open(&server, "forwstest", 2, mirror).await;
    assert!(ask(&server, "forwstest", "GET /").await.starts_with("HTTP/1.1 200 "));
    let port = first.port;
    drop(first);
    crate::support::until("it has left", || server.stats().gateway.connections == 0).await;
    let second = open(&server, "forwstest", 2, mirror).await;
    assert_eq!((second.name.as_str(), second.port), ("forwstest", port));
    assert!(ask(&server, "forwstest", "GET /").await.starts_with("HTTP/1.1 200 "));
}
