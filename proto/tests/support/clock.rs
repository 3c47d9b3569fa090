//! The one clock that is read in this crate, by its tests alone. Machines only ever see differences to it.

use std::time::{Duration, Instant};

/// Where a test's time begins.
#[allow(clippy::disallowed_methods)]
pub(crate) fn start() -> Instant {
    // Tests look back, too.
    Instant::now() + Duration::from_secs(100_000)
}
