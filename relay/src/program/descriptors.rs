//! How many files and sockets the program may have open.

/// What the relay's and the gateway's limits are made for, roughly.
#[cfg(any(target_os = "linux", target_os = "android"))]
const ENOUGH: u64 = 20_000;

/// Raises the soft limit to the hard one. Shells hand programs the 1024 that select(2) can deal with, which
/// nothing here uses, and each visitor is a socket or two.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn raise() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| (soft, hard)));
    match raised {
        Ok((soft, hard)) if hard < ENOUGH => {
            tracing::info!(soft, hard, "fewer files can be open than the limits would have room for");
        }
        Ok((soft, hard)) => tracing::debug!(soft, hard, "files that can be open"),
        Err(error) => tracing::info!(%error, "the limit of open files stays as it is"),
    }
}

/// Other systems' limits are left alone.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn raise() {}
