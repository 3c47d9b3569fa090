//! What the running programs tell of themselves, and to whom.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use proto::ticket::Ticket;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;

use crate::support::origin::Origin;
use crate::support::{Home, Pair, Program, Rendezvous, soon, until, visitor};

fn sockets(home: &Home) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home.state().join("run"));
    entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

async fn status(home: &Home) -> Vec<Value> {
    let ended = home.run(&["status", "--json"]).await;
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The status once its one peer has left the relay.
async fn direct_status(home: &Home) -> Vec<Value> {
    let told = async {
        loop {
            let told = status(home).await;
            if told.iter().all(|event| event["peers"][0]["kind"] == "direct") {
                return told;
            }
        }
    };
    soon("a direct path", told).await
}

#[tokio::test]
async fn each_process_tells_of_its_peers_their_paths_and_their_bytes_and_no_secret() {
    let origin = Origin::echo().await;
    let pair = Pair::of(&[&origin.target()]).await;
    visitor::is_served(pair.at[0]).await;
    let ticket: Ticket = pair.ticket.parse().unwrap();
    for (home, command, part) in [(&pair.homes.0, "share", "visitor"), (&pair.homes.1, "connect", "sharer")] {
        let told = direct_status(home).await;
        let [event] = &told[..] else { panic!("{told:?}") };
        assert_eq!((&event["event"], &event["command"]), (&"status".into(), &command.into()), "{event}");
        assert_eq!((&event["server"], &event["session"]), (&pair.server.url().into(), &"up".into()));
        humantime::parse_rfc3339(event["since"].as_str().unwrap()).unwrap();
        let peers = event["peers"].as_array().unwrap();
        let [peer] = &peers[..] else { panic!("{event}") };
        assert_eq!((&peer["part"], &peer["kind"]), (&part.into(), &"direct".into()), "{peer}");
        assert!(peer["bytes_in"].as_u64().unwrap() > 1000 && peer["bytes_out"].as_u64().unwrap() > 1000);
        assert!(peer["rtt_ms"].is_number() && peer["remote"].is_string(), "{peer}");
        let changes = peer["changes"].as_array().unwrap();
        let to_direct = changes.iter().find(|change| change["kind"] == "direct").unwrap();
        let reason = to_direct["reason"].as_str().unwrap();
        assert!(["first path proven", "a better kind of path was proven"].contains(&reason), "{reason}");
        assert!(
            !event.to_string().contains(&pair.ticket["culvert1".len()..][..40]),
            "the ticket is a secret"
        );
        let secret = data_encoding::HEXLOWER.encode(ticket.secret.as_bytes());
        assert!(!event.to_string().contains(&secret));
    }
    let told = status(&pair.homes.1).await;
    assert_eq!(told[0]["listen"], serde_json::json!([pair.at[0]]));
    let human = pair.homes.0.run(&["status"]).await.stdout;
    assert!(
        human.contains(&origin.target()) && human.contains("visitor ") && human.contains("direct at"),
        "{human}"
    );
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_goes_with_the_process() {
    let (server, home) = (Rendezvous::start(), Home::new());
    let mut share = home.share(&server.url(), "8000");
    share.ticket().await;
    let [socket] = &sockets(&home)[..] else { panic!("one socket") };
    for (path, mode) in [(socket.as_path(), 0o600), (socket.parent().unwrap(), 0o700)] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
    share.signal("TERM");
    share.ended().await;
    assert!(sockets(&home).is_empty());
    assert!(status(&home).await.is_empty());
}

#[tokio::test]
async fn a_killed_process_is_not_shown_and_its_socket_is_cleaned_away() {
    let (server, home) = (Rendezvous::start(), Home::new());
    let mut share = home.share(&server.url(), "8000");
    share.ticket().await;
    share.kill().await;
    assert_eq!(sockets(&home).len(), 1, "it could not clean up");
    assert!(status(&home).await.is_empty());
    // A socket that is very young may be about to listen.
    let two_seconds_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(2);
    let socket = sockets(&home).remove(0);
    let touched = std::process::Command::new("touch").arg("-d").arg("3 seconds ago").arg(&socket).status();
    assert!(touched.unwrap().success());
    assert!(std::fs::metadata(&socket).unwrap().modified().unwrap() < two_seconds_ago);
    assert!(status(&home).await.is_empty());
    assert!(sockets(&home).is_empty());
}

#[tokio::test]
async fn a_process_that_is_stopped_holds_nobody_up() {
    let (server, home) = (Rendezvous::start(), Home::new());
    let (mut stopped, mut other) = (home.share(&server.url(), "8000"), home.share(&server.url(), "8001"));
    stopped.ticket().await;
    other.ticket().await;
    stopped.signal("STOP");
    let ended = home.run(&["status", "--json"]).await;
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(0), 1), "{ended:#?}");
    ended.says("does not answer");
    stopped.signal("CONT");
}

#[tokio::test]
async fn what_is_no_request_gets_no_answer_and_many_who_ask_are_bounded() {
    let (server, home) = (Rendezvous::start(), Home::new());
    let mut share = home.share(&server.url(), "8000");
    share.ticket().await;
    let socket = sockets(&home).remove(0);
    for nonsense in [&b"secret\n"[..], b"status ", &[0; 4096], b""] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let _refused = stream.write_all(nonsense);
        stream.shutdown(std::net::Shutdown::Write).unwrap_or_default();
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"", "{nonsense:?}");
    }
    // Eight may be silent at a time, and the others are hung up on at once.
    let mut silent = JoinSet::new();
    for number in 0..50 {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        silent.spawn(async move {
            let _hung_up = stream.read(&mut [0]).await;
            number
        });
    }
    for _ in 0..42 {
        let turned_away = soon("all but eight are turned away", silent.join_next()).await;
        let number = turned_away.unwrap().unwrap();
        assert!(number >= 8, "number {number} is one of the eight that are waited for");
    }
    silent.shutdown().await;
    until("it answers again", || {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let mut answer = String::new();
        stream.write_all(b"status\n").is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.contains("share")
    })
    .await;
}

#[tokio::test]
async fn watching_goes_on_until_it_is_interrupted() {
    let (server, home) = (Rendezvous::start(), Home::new());
    let mut share = home.share(&server.url(), "8000");
    share.ticket().await;
    let mut watch: Program = home.spawn(&["status", "--watch", "--json"]);
    for _ in 0..2 {
        assert_eq!(watch.event("status").await["command"], "share");
    }
    watch.signal("INT");
    assert_eq!(watch.ended().await.code, Some(130));
}
