//! What `peer` reads from its user and from a server's HTTP side.

use std::ffi::OsString;
use std::fs;

use peer::cli::Cli;
use peer::server_url::ServerUrl;
use peer::target::TcpTarget;
use relay::program::Loader;
use rendezvous::well_known::WellKnown;

/// The targets here, by the names of their corpora.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("server_url", server_url),
    ("target", target),
    ("well_known", well_known),
    ("config_file", config_file),
];

/// The URL of a server.
pub fn server_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<ServerUrl>() {
        Ok(url) => {
            // The form without the identity is what is pinned and goes into tickets.
            let shown = url.to_string();
            let again = shown.parse::<ServerUrl>().unwrap_or_else(|error| panic!("{shown:?}: {error}"));
            assert_eq!(again, ServerUrl { peer_id: None, ..url });
            assert!(shown.bytes().all(|byte| byte.is_ascii_graphic()), "{shown:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What to share.
pub fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(target) = text.parse::<TcpTarget>() {
        let shown = target.to_string();
        let again = shown.parse::<TcpTarget>().unwrap_or_else(|error| panic!("{shown:?}: {error}"));
        assert_eq!((again.to_string(), again.describe()), (shown, target.describe()));
    }
}

/// A server's `/.well-known/culvert`.
pub fn well_known(data: &[u8]) {
    if let Ok(document) = serde_json::from_slice::<WellKnown>(data) {
        let text = serde_json::to_vec(&document).expect("it is written");
        assert_eq!(serde_json::from_slice::<WellKnown>(&text).expect("it is read again"), document);
    }
}

/// The file of options.
pub fn config_file(data: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("peer.toml");
    fs::write(&path, data).expect("it is written");
    let env = |name: &str| (name == "CULVERT_CONFIG").then(|| OsString::from(&path));
    let args = ["peer", "share", "8000"].map(OsString::from);
    let _ = Loader::new("peer").env(env).parse::<Cli>(args);
}
