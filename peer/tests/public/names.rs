//! Whose a name is.

use std::time::{Duration, Instant};

use crate::support::{Home, Rendezvous};
use crate::web::{ask, ask_until, mirror, ready, share};

#[tokio::test]
async fn a_name_stays_its_keys_over_restarts_of_both_and_is_given_to_nobody_else() {
    let (mut server, origin) = (Rendezvous::start(), mirror().await);
    let (owner, other) = (Home::new(), Home::new());
    let mut first = share(&owner, &server, &origin.target(), &["--name", "nas"]);
    ready(&mut first).await;
    first.kill().await;
    let taken = share(&other, &server, &origin.target(), &["--name", "nas"]).ended().await;
    assert_eq!(taken.code, Some(1));
    assert!(taken.stderr.contains("belongs to somebody else"), "{}", taken.stderr);
    server.kill();
    server.start_again();
    let taken = share(&other, &server, &origin.target(), &["--name", "nas"]).ended().await;
    assert!(taken.stderr.contains("belongs to somebody else"), "{}", taken.stderr);
    let lt = page(&server, "/nas-box").await;
    assert!(lt.contains("\"id\":\"nas-box\""), "{lt}");
    // The owner takes it back at once, also from itself.
    let mut again = share(&owner, &server, &origin.target(), &["--name", "nas"]);
    ready(&mut again).await;
    let mut beside = share(&owner, &server, &origin.target(), &["--name", "nas"]);
    ready(&mut beside).await;
    ask_until(server.http(), "nas", "HTTP/1.1 200 ").await;
    beside.signal("TERM");
    beside.ended().await;
    ask_until(server.http(), "nas", "HTTP/1.1 200 ").await;
}

/// A page of the server itself.
async fn page(server: &Rendezvous, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let mut stream = tokio::net::TcpStream::connect(server.http()).await.unwrap();
    let ask = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_claimed_name_is_none_for_a_localtunnel_client_and_the_other_way_round() {
    let (server, origin, home) = (Rendezvous::start(), mirror().await, Home::new());
    let mut first = share(&home, &server, &origin.target(), &["--name", "mine"]);
    ready(&mut first).await;
    assert!(!page(&server, "/mine").await.contains("\"id\":\"mine\""));
    first.kill().await;
    assert!(!page(&server, "/mine").await.contains("\"id\":\"mine\""), "its owner is only away");
    assert!(page(&server, "/anonymous").await.contains("\"id\":\"anonymous\""));
    let taken = share(&home, &server, &origin.target(), &["--name", "anonymous"]).ended().await;
    assert_eq!(taken.code, Some(1));
}

#[tokio::test]
async fn a_name_that_nobody_chose_cannot_be_guessed_and_stays() {
    let (server, origin, home) = (Rendezvous::start(), mirror().await, Home::new());
    let mut first = share(&home, &server, &origin.target(), &[]);
    let name = ready(&mut first).await["name"].as_str().unwrap().to_owned();
    let parts: Vec<&str> = name.split('-').collect();
    assert!(parts.len() == 4 && parts[3].len() == 7, "{name}");
    first.kill().await;
    let mut again = share(&home, &server, &origin.target(), &[]);
    assert_eq!(ready(&mut again).await["name"], name.as_str());
    let mut brief = share(&home, &server, &origin.target(), &["--ephemeral"]);
    assert_ne!(ready(&mut brief).await["name"], name.as_str());
    assert!(ask(server.http(), &name, "GET /").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn an_identity_has_five_names_and_is_told_which() {
    let (server, origin, home) = (Rendezvous::start(), mirror().await, Home::new());
    for name in ["one", "two", "three", "four", "five"] {
        let mut share = share(&home, &server, &origin.target(), &["--name", name]);
        ready(&mut share).await;
    }
    let over = share(&home, &server, &origin.target(), &["--name", "six"]).ended().await;
    assert_eq!(over.code, Some(1));
    assert!(over.stderr.contains("five, four, one, three, two"), "{}", over.stderr);
    let reserved = share(&home, &server, &origin.target(), &["--name", "relay"]).ended().await;
    assert!(reserved.stderr.contains("nobody can have"), "{}", reserved.stderr);
}

#[tokio::test]
async fn a_sharer_that_was_killed_has_its_name_back_at_once() {
    let (server, origin, home) = (Rendezvous::start(), mirror().await, Home::new());
    let mut first = share(&home, &server, &origin.target(), &["--name", "nas"]);
    let url = ready(&mut first).await["url"].clone();
    assert!(ask(server.http(), "nas", "GET /").await.starts_with("HTTP/1.1 200 "));
    // Without a goodbye: the server holds the first one's connection for another 20 s.
    first.kill().await;
    let since = Instant::now();
    let mut again = share(&home, &server, &origin.target(), &["--name", "nas"]);
    assert_eq!(ready(&mut again).await["url"], url);
    let answer = ask(server.http(), "nas", "GET /").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}
