//! Every failure has an answer, and in time.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::until;
use crate::tunnel::{SHORT, Visit, ask, head, mirror, open, register, server};

/// Fails by the path it is asked for.
async fn fail(mut stream: TcpStream) {
    let asked = head(&mut stream).await;
    let said: &[u8] = match asked.split(' ').nth(1) {
        Some("/garbage") => b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        Some("/twice") => b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        Some("/half-a-head") => b"HTTP/1.1 200 OK\r\nContent-",
        Some("/short") => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        Some("/bad-chunk") => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nx\r\n",
        Some("/slow") => {
            let mut rest = Vec::new();
            let _given_up = stream.read_to_end(&mut rest).await;
            return;
        }
        _ => return,
    };
    let _gone = stream.write_all(said).await;
}

#[tokio::test]
async fn what_the_local_server_does_wrong_has_a_status() {
    let server = server(|limits| limits.answer = SHORT);
    let _tunnel = open(&server, "forwstest", 4, fail).await;
    for (path, status) in
        [("/reset", 502), ("/garbage", 502), ("/twice", 502), ("/half-a-head", 502), ("/slow", 504)]
    {
        let since = Instant::now();
        let answer = ask(&server, "forwstest", &format!("GET {path}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(since.elapsed().as_millis() < 1000, "{path}");
    }
}

#[tokio::test]
async fn a_connection_that_was_promised_to_stay_stays_behind_a_failure() {
    let server = server(|_| ());
    let _tunnel = open(&server, "forwstest", 2, fail).await;
    let mut visit = Visit::new(&server).await;
    for request in
        ["POST /reset HTTP/1.1\r\nContent-Length: 0", "GET /reset HTTP/1.1", "POST /reset HTTP/1.1"]
    {
        visit.send(&format!("{request}\r\nHost: forwstest.example.test\r\n\r\n")).await;
        let head = visit.read_until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 502 ") && !head.contains("Connection: close"), "{head}");
        visit.read_until("Try again.\n").await;
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_taken_for_whole() {
    let server = server(|_| ());
    let _tunnel = open(&server, "forwstest", 2, fail).await;
    for path in ["/short", "/bad-chunk"] {
        let mut visit = Visit::new(&server).await;
        visit.send(&format!("GET {path} HTTP/1.1\r\nHost: forwstest.example.test\r\n\r\n")).await;
        let mut came = Vec::new();
        let ended = visit.0.read_to_end(&mut came).await;
        assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "{path}");
    }
    until("both are counted", || server.stats().gateway.cut == 2).await;
}

#[tokio::test]
async fn a_name_without_its_client_is_told_from_no_name() {
    let server = server(|_| ());
    let since = Instant::now();
    let unknown = ask(&server, "forwstest", "GET /\r\nAccept: text/html\r\n").await;
    assert!(unknown.starts_with("HTTP/1.1 404 ") && unknown.contains("<h1>404 Not Found</h1>"), "{unknown}");
    register(&server, "/forwstest").await;
    let away = ask(&server, "forwstest", "GET /\r\nAccept: application/json\r\n").await;
    assert!(away.starts_with("HTTP/1.1 503 ") && away.contains("\r\nRetry-After: "), "{away}");
    assert!(away.contains("\"status\":503"), "{away}");
    assert!(since.elapsed().as_millis() < 1500);
}

/// Speaks before it is asked.
async fn banner(mut stream: TcpStream) {
    let _gone = stream.write_all(b"220 mail.test ESMTP\r\n").await;
    let mut rest = Vec::new();
    let _closed = stream.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn a_server_that_speaks_first_is_no_web_server() {
    let server = server(|_| ());
    let _tunnel = open(&server, "forwstest", 2, banner).await;
    let answer = ask(&server, "forwstest", "GET /").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn a_request_that_was_not_answered_is_repeated_once_where_that_does_no_harm() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    static ASKED: AtomicUsize = AtomicUsize::new(0);
    async fn deaf_at_first(mut stream: TcpStream) {
        if !head(&mut stream).await.is_empty() && ASKED.fetch_add(1, Ordering::Relaxed) > 0 {
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    }
    let server = server(|_| ());
    let _tunnel = open(&server, "forwstest", 2, deaf_at_first).await;
    assert!(ask(&server, "forwstest", "GET /").await.starts_with("HTTP/1.1 200 "));
    ASKED.store(0, Ordering::Relaxed);
    let post = ask(&server, "forwstest", "POST /\r\nContent-Length: 0\r\n").await;
    assert!(post.starts_with("HTTP/1.1 502 "), "{post}");
    assert_eq!(ASKED.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_reaches_nobody() {
    let server = server(|_| ());
    let _tunnel = open(&server, "forwstest", 1, mirror).await;
    let host = "Host: forwstest.example.test\r\n";
    for (request, status) in [
        (
            format!(
                "GET / HTTP/1.1\r\n{host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            400,
        ),
        (format!("GET / HTTP/1.1\r\n{host}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"), 400),
        (format!("GET / HTTP/1.1\n{host}\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{host}{host}\r\n"), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(9000)), 414),
        (format!("GET / HTTP/1.1\r\n{host}{}\r\n", "A: b\r\n".repeat(100)), 431),
        (format!("CONNECT forwstest.example.test:80 HTTP/1.1\r\n{host}\r\n"), 405),
        (format!("GET / HTTP/3.0\r\n{host}\r\n"), 505),
        (format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\nzz\r\n"), 400),
    ] {
        let mut visit = Visit::new(&server).await;
        visit.send(&request).await;
        let answer = visit.rest().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.60}: {answer}");
    }
    assert_eq!(server.stats().gateway.bad_heads, 9);
    assert_eq!(server.stats().gateway.by_class[1], 1, "only the registration was answered well");
}
