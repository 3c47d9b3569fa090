//! Secrets stay out of logs, whatever is logged.

use std::os::unix::fs::PermissionsExt as _;

use data_encoding::{BASE32_NOPAD, BASE64, HEXLOWER};
use proto::ticket::Ticket;

use crate::support::origin::Origin;
use crate::support::{Home, Program, Rendezvous, visitor};

/// The forms in which bytes are usually printed.
fn forms(bytes: &[u8]) -> Vec<String> {
    let debug = format!("{bytes:?}");
    let escaped: String = bytes.iter().map(|byte| std::ascii::escape_default(*byte).to_string()).collect();
    let mut forms = vec![
        HEXLOWER.encode(bytes),
        BASE32_NOPAD.encode(bytes).to_ascii_lowercase(),
        BASE64.encode(bytes).trim_end_matches('=').to_owned(),
        debug[1..debug.len() - 1].to_owned(),
        escaped,
    ];
    forms.push(format!("{:x?}", bytes).trim_matches(['[', ']']).to_owned());
    forms
}

#[tokio::test]
async fn no_secret_is_ever_logged() {
    let (server, origin) = (Rendezvous::start(), Origin::echo().await);
    let (sharer, connector) = (Home::new(), Home::new());
    let args = ["share", &origin.target(), "--server", &server.url(), "--json"];
    let mut share = Program::spawn(sharer.command(&args).env("RUST_LOG", "trace"));
    let text = share.ticket().await;
    let ticket: Ticket = text.parse().unwrap();
    let args = ["connect", &text, "--listen", "127.0.0.1:0", "--json"];
    let mut connect = Program::spawn(connector.command(&args).env("RUST_LOG", "trace"));
    visitor::is_served(visitor::ready(&mut connect).await).await;

    let mut secrets = forms(ticket.secret.as_bytes());
    secrets.push(text["culvert1".len()..].to_owned());
    for home in [&sharer, &connector] {
        let key = peer::store::Store::at(home.state()).identity().unwrap();
        // PKCS #8 has the key's 32 bytes from the 16th on.
        secrets.extend(forms(&key.pkcs8()[16..48]));
    }
    for program in [share, connect] {
        program.signal("TERM");
        let logged = program.ended().await.stderr;
        assert!(logged.contains("TRACE") && logged.lines().count() > 50, "little is logged: {logged}");
        for secret in &secrets {
            let found = logged.to_lowercase().find(&secret.to_lowercase());
            assert_eq!(found, None, "{secret} is in the log");
        }
    }
}

#[tokio::test]
async fn state_is_its_owners_alone() {
    let (server, home) = (Rendezvous::start(), Home::new());
    let mut share = home.share(&server.url(), "8000");
    share.ticket().await;
    let mut checked = 0;
    let mut directories = vec![home.state()];
    while let Some(directory) = directories.pop() {
        let mode = std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", directory.display());
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", path.display());
            checked += 1;
        }
    }
    assert!(checked >= 3, "an identity, a share and a server are kept");
}

#[tokio::test]
async fn an_identity_that_others_can_read_is_refused() {
    let (server, home) = (Rendezvous::start(), Home::new());
    peer::store::Store::at(home.state()).identity().unwrap();
    let file = home.state().join("identity");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ended = home.run(&["share", "8000", "--server", &server.url(), "--json"]).await;
    ended.failed(1, "secret-exposed").says(&file.display().to_string());
}
