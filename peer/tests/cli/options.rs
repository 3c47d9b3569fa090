//! Options: help, mistakes, and where values may come from.

use std::process::Command;

use proto::ticket::Ticket;

use crate::support::origin::Origin;
use crate::support::{Home, Program, Rendezvous};

#[tokio::test]
async fn every_command_has_help_with_an_example() {
    let home = Home::new();
    let commands = [
        &[][..],
        &["share"],
        &["connect"],
        &["ping"],
        &["status"],
        &["alias"],
        &["alias", "list"],
        &["alias", "remove"],
    ];
    for args in commands.map(|command| [command, &["--help"]].concat()) {
        let ended = home.run(&args).await;
        assert_eq!(ended.code, Some(0), "{args:?}");
        assert!(ended.stdout.contains("Example") && ended.stdout.contains("  peer "), "{}", ended.stdout);
        assert_eq!(ended.stderr, "", "{args:?}");
    }
}

#[tokio::test]
async fn the_version_has_name_version_and_commit() {
    let ended = Home::new().run(&["--version"]).await;
    assert_eq!(ended.code, Some(0));
    let commit = ended
        .stdout
        .strip_prefix(concat!("peer ", env!("CARGO_PKG_VERSION"), " ("))
        .and_then(|rest| rest.strip_suffix(")\n"))
        .unwrap_or_else(|| panic!("{}", ended.stdout));
    assert!(commit.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{commit}");
}

#[tokio::test]
async fn what_does_not_exist_is_a_usage_error() {
    let home = Home::new();
    for args in [
        &["share"][..],
        &["share", "8000", "--writable"],
        &["share", "8000", "--host-header", "a b", "--public"],
        &["share", "8000", "--allow-ip", "192.0.2.0/33", "--public"],
        &["share", "./folder"],
        &["share", "unix:/run/x"],
        &["share", "udp:53"],
        &["share", "0"],
        &["share", "70000"],
        &["share", "8000", "--server", "ftp://example.com"],
        &["share", "8000", "--server", "http://host:8080/path"],
        &["share", "8000", "--name", "Not A Name"],
        &["share", "8000", "--expires", "soon"],
        &["connect", "culvert1aaaa", "--listen", "9000"],
        &["connect", "culvert1aaaa", "--stdio"],
        &["ping", "culvert1aaaa"],
        &["ping", "culvert1aaaa", "-c", "0"],
        &["ping", "nobody-by-that-name"],
        &["alias"],
        &["alias", "remove", "nobody-by-that-name"],
        &["alias", "remove", "../identity"],
        &["connect", "culvert1aaaa", "--save", "culvert1aaaa"],
    ] {
        let ended = home.run(&[args, &["--json"]].concat()).await;
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
        assert!(ended.stderr.starts_with("error: "), "{args:?}: {ended:?}");
        let event: serde_json::Value = serde_json::from_str(ended.stdout.trim()).unwrap();
        assert_eq!((&event["event"], &event["code"]), (&"error".into(), &"usage".into()), "{args:?}");
    }
}

#[tokio::test]
async fn a_server_is_taken_from_flag_environment_file_in_that_order() {
    let (home, origin) = (Home::new(), Origin::echo().await);
    let servers = [Rendezvous::start(), Rendezvous::start(), Rendezvous::start()];
    let [flag, environment, file] = &servers;
    home.write_config(&format!("[share]\nserver = \"{}\"\n", file.url()));
    let target = origin.target();
    let args = ["share", &target, "--json", "--ephemeral"];

    server_is(&mut home.command(&args), file).await;
    let url = environment.url();
    server_is(home.command(&args).env("CULVERT_SERVER", &url), environment).await;
    let url = flag.url();
    let args = [&args[..], &["--server", &url]].concat();
    server_is(home.command(&args).env("CULVERT_SERVER", environment.url()), flag).await;
}

async fn server_is(command: &mut Command, server: &Rendezvous) {
    let ticket: Ticket = Program::spawn(command).ticket().await.parse().unwrap();
    assert_eq!(ticket.server.peer_id, server.peer_id());
    assert_eq!(ticket.server.url, server.url());
}

#[tokio::test]
async fn an_unknown_key_in_the_file_is_an_error_with_its_place_and_the_nearest_known() {
    let home = Home::new();
    let file = home.write_config("json = true\n\n[share]\nservr = \"http://127.0.0.1:1\"\n");
    let ended = home.run(&["share", "8000", "--json"]).await;
    ended.failed(2, "bad-config").says(&format!("{}:4", file.display())).says("servr").says("server");
}

#[tokio::test]
async fn a_listener_that_is_taken_is_said_before_anybody_is_asked() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    // Nobody is there: had it asked first, it would take ten seconds and be another error.
    let ticket = super::refusals::ticket_for_nobody();
    let ended = home.run(&["connect", &ticket, "--listen", &addr, "--json"]).await;
    ended.failed(1, "port-taken").says(&addr).says("--listen");
}

#[tokio::test]
async fn more_listeners_than_targets_are_a_usage_error() {
    let (server, origin) = (Rendezvous::start(), Origin::echo().await);
    let (sharer, connector) = (Home::new(), Home::new());
    let mut share = sharer.share(&server.url(), &origin.target());
    let ticket = share.ticket().await;
    let two = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    let ended = connector.run(&[&["connect", &ticket, "--json"], &two[..]].concat()).await;
    ended.failed(2, "usage").says("--listen");
}
