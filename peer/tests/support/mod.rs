//! What the tests of the real programs stand on: a home of their own, a server, an origin, somebody who
//! lies.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]

pub(crate) mod fake_server;
pub(crate) mod impostor;
pub(crate) mod origin;
pub(crate) mod program;
pub(crate) mod server;
pub(crate) mod visitor;

use std::future::Future;
use std::time::Duration;

use proto::key::SecretKey;

pub(crate) use program::{Home, Program};
pub(crate) use server::Rendezvous;

/// Longer than anything here takes on a busy machine, and shorter than a stuck test is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);

/// Waits for what has to happen, and says what did not.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("it never happened: {what}"),
    }
}

/// A key nobody had before.
pub(crate) fn key() -> SecretKey {
    peer::store::new_key()
}

/// `peer share TARGET` and `peer connect` of its ticket, both ready.
pub(crate) async fn joined(homes: (&Home, &Home), url: &str, target: &str) -> (Program, Program) {
    let mut share = homes.0.share(url, target);
    let ticket = share.ticket().await;
    let mut connect = homes.1.connect(&ticket);
    connect.event("ready").await;
    (share, connect)
}
