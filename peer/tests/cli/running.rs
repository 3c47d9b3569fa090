//! What a program says while it runs, and how it ends.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::origin::Origin;
use crate::support::{Home, Pair, Program, Rendezvous, soon, visitor};

/// An event has exactly these fields, beside its name and its time.
fn has_fields(event: &Value, fields: &[&str]) {
    let mut expected: Vec<&str> = fields.iter().copied().chain(["event", "at"]).collect();
    expected.sort_unstable();
    let found: Vec<&str> = event.as_object().unwrap().keys().map(String::as_str).collect();
    let mut sorted = found;
    sorted.sort_unstable();
    assert_eq!(sorted, expected, "{event}");
    let at = event["at"].as_str().unwrap();
    humantime::parse_rfc3339(at).unwrap_or_else(|error| panic!("{at}: {error}"));
}

fn is_peer_id(value: &Value) -> &str {
    let text = value.as_str().unwrap();
    text.parse::<proto::id::PeerId>().unwrap();
    text
}

fn check_path(event: &Value, peer: &str) {
    has_fields(event, &["peer_id", "kind", "remote", "rtt_ms", "reason", "since_start_ms"]);
    assert_eq!(event["peer_id"], peer);
    assert!(event["kind"] == "direct" || event["kind"] == "relay", "{event}");
    event["remote"].as_str().unwrap().parse::<SocketAddr>().unwrap();
    assert!(event["rtt_ms"].is_number() && event["since_start_ms"].is_u64(), "{event}");
    assert!(!event["reason"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn events_have_the_documented_fields() {
    let (server, origin) = (Rendezvous::start(), Origin::echo().await);
    let (sharer, connector) = (Home::new(), Home::new());
    let mut share = sharer.share(&server.url(), &origin.target());
    let ready = share.next_event().await;
    has_fields(&ready, &["ticket", "peer_id", "name", "url", "targets"]);
    let sharer_id = is_peer_id(&ready["peer_id"]).to_owned();
    assert!(ready["ticket"].as_str().unwrap().starts_with("culvert1"));
    assert_eq!(ready["name"].as_str().unwrap().split('-').count(), 3, "three words: {ready}");
    assert_eq!(ready["url"], Value::Null);
    assert_eq!(ready["targets"], serde_json::json!([origin.target()]));

    let warning = share.next_event().await;
    has_fields(&warning, &["code", "message"]);
    assert_eq!(warning["code"], "local-ticket");

    let mut connect = connector.connect(ready["ticket"].as_str().unwrap());
    // The first path comes before all, and a relay's gives way to a direct one at any time.
    let (mut kind, mut ready) = (Value::Null, Value::Null);
    while kind != "direct" || ready.is_null() {
        let event = connect.next_event().await;
        if event["event"] == "ready" {
            ready = event;
        } else {
            check_path(&event, &sharer_id);
            kind = event["kind"].clone();
        }
        assert!(!kind.is_null(), "ready without a path");
    }
    has_fields(&ready, &["peer_id", "listen"]);
    assert_eq!(ready["peer_id"], sharer_id);
    let path = share.next_event().await;
    let connector_id = is_peer_id(&path["peer_id"]).to_owned();
    assert_ne!(connector_id, sharer_id);
    check_path(&path, &connector_id);

    visitor::is_served(visitor::listener(&ready)).await;
    for (state, bytes) in [("open", 0), ("closed", 5)] {
        let event = share.event("visitor").await;
        has_fields(&event, &["peer_id", "via", "state", "bytes_in", "bytes_out"]);
        assert_eq!(event["peer_id"], connector_id);
        assert_eq!((&event["via"], &event["state"]), (&"peer".into(), &state.into()));
        assert_eq!((&event["bytes_in"], &event["bytes_out"]), (&bytes.into(), &bytes.into()));
    }
    share.signal("TERM");
    let stopped = share.event("stopped").await;
    has_fields(&stopped, &["reason"]);
    assert_eq!(stopped["reason"], "terminated");
}

#[tokio::test]
async fn a_signal_ends_both_commands_in_time() {
    for (signal, reason, code) in [("TERM", "terminated", 0), ("INT", "interrupted", 130)] {
        let origin = Origin::echo().await;
        let pair = Pair::of(&[&origin.target()]).await;
        for mut program in [pair.connect, pair.share] {
            let since = Instant::now();
            program.signal(signal);
            assert_eq!(program.event("stopped").await["reason"], reason);
            let ended = program.ended().await;
            assert_eq!(ended.code, Some(code), "{ended:#?}");
            assert_eq!(ended.stderr, "", "{ended:#?}");
            assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        }
    }
}

#[tokio::test]
async fn a_signal_ends_what_still_waits_for_its_server() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let share = Home::new().share(&url, "8000");
    // It has asked, so its signals are handled by now.
    let asked = tokio::task::spawn_blocking(move || silent.accept().unwrap());
    let _held = soon("the request", asked).await.unwrap();
    share.signal("INT");
    let ended = share.ended().await;
    assert_eq!(ended.code, Some(130), "{ended:#?}");
    assert!(ended.stdout.contains(r#""reason":"interrupted""#), "{ended:#?}");
}

#[tokio::test]
async fn a_sharer_that_stops_ends_its_visitors_at_once() {
    let (server, origin) = (Rendezvous::start(), Origin::echo().await);
    let (sharer, connector) = (Home::new(), Home::new());
    let mut share = sharer.share(&server.url(), &origin.target());
    let ticket = share.ticket().await;
    let mut connect = connector.connect(&ticket);
    let at = visitor::ready(&mut connect).await;
    let mut held = visitor::Held::open(at).await;
    share.signal("TERM");
    let since = Instant::now();
    held.is_cut().await;
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert_eq!(share.ended().await.code, Some(0));
}

#[tokio::test]
async fn people_get_readable_lines_and_no_json() {
    let (server, origin) = (Rendezvous::start(), Origin::echo().await);
    let (sharer, connector) = (Home::new(), Home::new());
    let name = ["--name", "my-nas"];
    let mut share =
        sharer.spawn(&[&["share", &origin.target(), "--server", &server.url()][..], &name].concat());
    share.line(&format!("Sharing {} as my-nas.", origin.target())).await;
    let line = share.line("peer connect culvert1").await;
    let ticket = line.trim().strip_prefix("peer connect ").unwrap().to_owned();

    let mut connect = connector.spawn(&["connect", &ticket, "--listen", "127.0.0.1:0"]);
    let path = connect.line("path:").await;
    assert!(path.contains(" to ") && path.contains(" ms ("), "{path}");
    let line = connect.line(" is my-nas of ").await;
    let at = line.split(' ').next().unwrap().parse().unwrap();
    visitor::is_served(at).await;
    share.line(" came.").await;
    let left = share.line(" left after ").await;
    assert!(left.ends_with("5 bytes in, 5 out."), "{left}");
    for program in [share, connect] {
        program.signal("TERM");
        let ended = program.ended().await;
        assert!(!ended.stdout.contains('{') && !ended.stdout.contains('\u{1b}'), "{ended:#?}");
        let said: Vec<&str> = ended.stderr.lines().collect();
        assert!(said.iter().all(|line| line.starts_with("warning: this ticket works only on")), "{ended:#?}");
    }
}

#[tokio::test]
async fn a_refused_offer_is_told_to_the_sharer() {
    let (server, origin) = (Rendezvous::start(), Origin::echo().await);
    let (sharer, connector) = (Home::new(), Home::new());
    let mut share = sharer.spawn(&["share", &origin.target(), "--server", &server.url()]);
    let line = share.line("peer connect culvert1").await;
    let mut ticket: proto::ticket::Ticket =
        line.trim().strip_prefix("peer connect ").unwrap().parse().unwrap();
    ticket.secret = proto::proof::TicketSecret::from_bytes([1; 16]);
    connector.run(&["connect", &ticket.to_text(), "--json"]).await.failed(4, "not-authorised");
    share.line("was not let in").await;
}

#[tokio::test]
async fn several_targets_have_a_listener_each_in_their_order() {
    let server = Rendezvous::start();
    let (sharer, connector) = (Home::new(), Home::new());
    let (echo, digest) = (Origin::echo().await, digest().await);
    let mut share =
        sharer.spawn(&["share", &echo.target(), &digest.target(), "--server", &server.url(), "--json"]);
    let ticket = share.ticket().await;
    let listen = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    let mut connect = connector.spawn(&[&["connect", &ticket, "--json"][..], &listen].concat());
    let ready = connect.event("ready").await;
    let at = |n: usize| ready["listen"][n].as_str().unwrap().parse::<SocketAddr>().unwrap();
    visitor::is_served(at(0)).await;
    assert_eq!(visitor::ask(at(1), b"").await.unwrap().len(), 32);
}

async fn digest() -> Origin {
    Origin::serving("127.0.0.1", crate::support::origin::digest_after_eof).await
}

/// `peer share 8000` where nothing listens, tried on one machine: the connector must not become the target.
#[tokio::test]
async fn a_connector_beside_its_sharer_leaves_the_shared_port_alone() {
    let server = Rendezvous::start();
    let (sharer, connector) = (Home::new(), Home::new());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut share = sharer.share(&server.url(), &port.to_string());
    let ticket = share.ticket().await;
    let mut connect: Program = connector.spawn(&["connect", &ticket, "--json"]);
    let at = visitor::ready(&mut connect).await;
    assert_ne!(at.port(), port, "it would be shared with itself");
    let answer = visitor::ask(at, b"").await;
    assert_eq!(answer.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    share.note("does not accept a visitor").await;
    // And the service finds its port free when it comes at last.
    let origin = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let _origin = Origin::on(origin, crate::support::origin::echo);
    visitor::is_served(at).await;
}
