//! What a host hears of changes of its own network.

use std::fmt::Debug;
use std::time::Duration;

use super::BoxFuture;

/// How long the network must have been quiet for a change to be told: addresses, links and routes change one
/// after the other, and what is between them is no network yet.
pub const QUIET: Duration = Duration::from_millis(100);

/// What may have happened. What really did is seen in the addresses and routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Addresses, links or routes changed.
    Network,
    /// The machine has slept: whatever others kept for it may have ended since.
    Woken,
}

/// Tells of changes of one host's network.
pub trait NetworkChanges: Debug + Send {
    /// Waits for the next change, and until it is over. What happens between two calls is not missed; of
    /// several changes the last is told.
    fn changed(&mut self) -> BoxFuture<'_, Change>;
}
