//! What a simulated host hears of changes of its network: as much as a system tells, and as late.

use relay::net::{BoxFuture, Change, NetworkChanges, QUIET};
use tokio::sync::watch;

/// Hears when the world has moved its host.
#[derive(Debug)]
pub(super) struct SimChanges(watch::Receiver<u64>);

impl SimChanges {
    /// Hears of changes from here on.
    pub(super) fn of(mut told: watch::Receiver<u64>) -> Self {
        told.mark_unchanged();
        Self(told)
    }
}

impl NetworkChanges for SimChanges {
    fn changed(&mut self) -> BoxFuture<'_, Change> {
        Box::pin(async {
            if self.0.changed().await.is_err() {
                // The world is gone, and nothing in it changes any more.
                return std::future::pending().await;
            }
            while let Ok(Ok(())) = tokio::time::timeout(QUIET, self.0.changed()).await {}
            Change::Network
        })
    }
}
