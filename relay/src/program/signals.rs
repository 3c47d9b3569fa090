//! Stopping: the first SIGINT or SIGTERM asks the program to drain, the second ends it at once. And reading files again.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use super::exit::Code;

/// How long draining may take; a little is left of the five seconds to say goodbye in.
pub const DRAIN: Duration = Duration::from_millis(4_500);

/// When a program that was asked to stop is ended, whatever it still does.
pub const LIMIT: Duration = Duration::from_secs(5);

/// What asked the program to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// SIGINT: somebody at a terminal.
    Interrupted,
    /// SIGTERM: a service manager, whose stop is no failure.
    Terminated,
}

impl Reason {
    /// What the process exits with after draining.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::Interrupted => Code::Interrupted,
            Self::Terminated => Code::Done,
        }
    }

    /// The `reason` of the `stopped` event.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
        }
    }
}

/// Whether the program has been asked to stop. Clones learn of the same request.
#[derive(Clone, Debug)]
pub struct Shutdown {
    state: Arc<watch::Sender<Option<(Reason, Instant)>>>,
}

impl Shutdown {
    /// Listens to SIGINT and SIGTERM from now on. Must be called on a runtime.
    ///
    /// # Errors
    /// If the signals cannot be listened to.
    pub fn install() -> io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = Self::by_hand();
        let asked = shutdown.clone();
        tokio::spawn(async move {
            loop {
                let reason = tokio::select! {
                    Some(()) = interrupt.recv() => Reason::Interrupted,
                    Some(()) = terminate.recv() => Reason::Terminated,
                    else => return,
                };
                if asked.reason().is_some() {
                    std::process::exit(Code::Interrupted as i32);
                }
                // On a thread of its own: it must end even a program whose workers are all stuck.
                let _none = std::thread::Builder::new().name("shutdown".to_owned()).spawn(move || {
                    std::thread::sleep(LIMIT);
                    std::process::exit(reason.code() as i32);
                });
                asked.request(reason);
            }
        });
        Ok(shutdown)
    }

    /// Listens to no signal: only [`Shutdown::request`] stops it.
    #[must_use]
    pub fn by_hand() -> Self {
        Self { state: Arc::new(watch::Sender::new(None)) }
    }

    /// Asks to stop, as a signal does; only the first request counts.
    pub fn request(&self, reason: Reason) {
        self.state.send_if_modified(|state| {
            let first = state.is_none();
            if first {
                *state = Some((reason, Instant::now()));
            }
            first
        });
    }

    /// What has asked to stop, if anything has.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.state.borrow().map(|(reason, _)| reason)
    }

    /// Waits until something asks to stop. May be dropped and asked again at any time.
    pub async fn requested(&self) -> Reason {
        let mut seen = self.state.subscribe();
        match seen.wait_for(Option::is_some).await.map(|state| *state) {
            Ok(Some((reason, _))) => reason,
            // Neither can be: we hold the sender, and waited for a reason.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Lets `work` finish, but no longer than [`DRAIN`] after the request to stop (or from now, if there was none).
    /// Says whether it did.
    pub async fn drained<F: Future>(&self, work: F) -> bool {
        let start = self.state.borrow().map_or_else(Instant::now, |(_, at)| at);
        tokio::time::timeout_at(start + DRAIN, work).await.is_ok()
    }
}

/// SIGHUP, by which an operator has a server read its files again.
#[derive(Debug)]
pub struct Hangups(Signal);

impl Hangups {
    /// Listens to SIGHUP from now on, which ends the process no more. Must be called on a runtime.
    ///
    /// # Errors
    /// If the signal cannot be listened to.
    pub fn install() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Waits for `done`, and calls `renew` at each SIGHUP until then.
    pub async fn until<T>(mut self, done: impl Future<Output = T>, mut renew: impl FnMut()) -> T {
        let mut done = std::pin::pin!(done);
        loop {
            tokio::select! {
                biased;
                done = &mut done => return done,
                Some(()) = self.0.recv() => renew(),
            }
        }
    }
}

#[cfg(test)]
mod tests;
