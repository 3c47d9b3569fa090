//! What the tests of the real programs stand on: a home of their own, a server, an origin, somebody who
//! lies.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]

pub(crate) mod fake_server;
pub(crate) mod impostor;
pub(crate) mod origin;
pub(crate) mod pair;
pub(crate) mod program;
pub(crate) mod server;
pub(crate) mod visitor;
pub(crate) mod wire;

use std::future::Future;
use std::time::Duration;

use proto::key::SecretKey;

#[allow(unused_imports, reason = "as above")]
pub(crate) use pair::Pair;
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

/// Waits until a condition holds that has no event of its own, and is about to hold: looking is all that it does.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
