//! Who gets in: visitors to a share, and sharers to a private server.

use data_encoding::BASE64;
use proto::admission::Admission;

use crate::support::{Home, Rendezvous, key};
use crate::web::{ask, mirror, ready, share};

#[tokio::test]
async fn a_password_is_asked_for_at_the_gateway_and_ends_there() {
    let (server, origin, home) = (Rendezvous::start(), mirror().await, Home::new());
    std::fs::write(home.path().join("auth"), "me:secret\n").unwrap();
    let mut share = share(&home, &server, &origin.target(), &["--name", "nas", "--auth", "@auth"]);
    ready(&mut share).await;
    let none = ask(server.http(), "nas", "GET /").await;
    assert!(none.starts_with("HTTP/1.1 401 "), "{none}");
    assert!(none.contains("\r\nWWW-Authenticate: Basic realm=\"nas\""), "{none}");
    let with = async |text: &str| {
        let field = format!("GET /\r\nAuthorization: Basic {}\r\n", BASE64.encode(text.as_bytes()));
        ask(server.http(), "nas", &field).await
    };
    let right = with("me:secret").await;
    assert!(right.starts_with("HTTP/1.1 200 ") && !right.contains("Authorization"), "{right}");
    assert!(with("me:wrong").await.starts_with("HTTP/1.1 401 "));
    assert_eq!(share.count("visitor"), 1, "nobody else came as far as the sharer");
    for _ in 0..20 {
        with("me:guess").await;
    }
    let limited = with("me:secret").await;
    assert!(limited.starts_with("HTTP/1.1 429 ") && limited.contains("\r\nRetry-After: "), "{limited}");
}

#[tokio::test]
async fn other_networks_are_not_let_in() {
    let (server, origin, home) = (Rendezvous::start(), mirror().await, Home::new());
    let mut one =
        share(&home, &server, &origin.target(), &["--name", "closed", "--allow-ip", "192.0.2.0/24"]);
    ready(&mut one).await;
    assert!(ask(server.http(), "closed", "GET /").await.starts_with("HTTP/1.1 403 "));
    let nets = ["--name", "open", "--allow-ip", "192.0.2.0/24", "--allow-ip", "127.0.0.0/8"];
    let mut two = share(&home, &server, &origin.target(), &nets);
    ready(&mut two).await;
    assert!(ask(server.http(), "open", "GET /").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(one.count("visitor"), 0);
}

#[tokio::test]
async fn options_of_public_visitors_want_some() {
    let home = Home::new();
    for option in [["--auth", "a:b"], ["--allow-ip", "::1"], ["--host-header", "x"]] {
        let ended = home.run(&[&["share", "8000"], &option[..]].concat()).await;
        assert_eq!(ended.code, Some(2), "{option:?}");
        assert!(ended.stderr.contains("--public"), "{}", ended.stderr);
    }
    let ended = home.run(&["share", "8000", "--public", "--auth", "nocolon"]).await;
    assert_eq!(ended.code, Some(2));
}

#[tokio::test]
async fn a_private_server_wants_its_token_of_sharers_and_of_nobody_else() {
    let server = Rendezvous::with(key(), |config| config.admission = Admission::new(Some("secret"), []));
    let (origin, home) = (mirror().await, Home::new());
    let refused = share(&home, &server, &origin.target(), &["--name", "nas"]).ended().await;
    assert_eq!(refused.code, Some(4));
    assert!(refused.stderr.contains("is private"), "{}", refused.stderr);
    let refused = home.share(&server.url(), &origin.target()).ended().await;
    assert_eq!(refused.code, Some(4));
    let url = server.url();
    let args = ["share", &origin.target(), "--server", &url, "--public", "--name", "nas", "--json"];
    let mut admitted = crate::support::Program::spawn(home.command(&args).env("CULVERT_TOKEN", "secret"));
    let told = ready(&mut admitted).await;
    assert!(ask(server.http(), "nas", "GET /").await.starts_with("HTTP/1.1 200 "));
    let visitor = Home::new();
    visitor.connect(told["ticket"].as_str().unwrap()).event("ready").await;
}
