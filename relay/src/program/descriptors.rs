//! How many files and sockets the program may have open.

/// Raises the soft limit to the hard one. Shells hand programs the 1024 that select(2) can deal with, which
/// nothing here uses, and each visitor is a socket or two.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn raise() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| (soft, hard)));
    match raised {
        Ok((soft, hard)) => tracing::debug!(soft, hard, "files that can be open"),
        Err(error) => tracing::info!(%error, "the limit of open files stays as it is"),
    }
}

/// Other systems' limits are left alone.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn raise() {}

/// What the user is to be told, where this process may have fewer files open than `needed`, which is what its
/// limits would admit: connections beyond would fail in ways that nobody has decided.
pub fn shortage(needed: usize) -> Option<String> {
    let limit = limit()?;
    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
    (limit < needed).then(|| {
        format!(
            "this process may have {limit} files open, and as many connections as it admits need {needed}: raise \
             the hard limit (LimitNOFILE={needed} in a systemd unit, `ulimit -Hn {needed}` as root)"
        )
    })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn limit() -> Option<u64> {
    use nix::sys::resource::{Resource, getrlimit};

    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn limit() -> Option<u64> {
    None
}
