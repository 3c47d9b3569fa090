//! A connection to a local server, wherever it leads through: for one exchange, and never used again.

use std::io;
use std::sync::Arc;

use proto::tunnel::forward::Rewrite;

use super::inbox::Inbox;
use crate::net::Outgoing;

/// A connection for one exchange.
pub(crate) struct Upstream {
    pub(crate) inbox: Inbox,
    pub(crate) write: Box<dyn Outgoing>,
    /// What goes before the request.
    pub(crate) before: Vec<u8>,
    /// What the share changes of the request.
    pub(crate) rewrite: Arc<Rewrite>,
    /// Keeps the connection's place, until it is dropped.
    pub(crate) hold: Box<dyn Send + Sync>,
}

impl Upstream {
    /// Gives the connection up so that the far end sees it, whatever it was about to do.
    pub(crate) fn abort(self) {
        let Self { inbox, write, hold, .. } = self;
        write.abort();
        drop(inbox);
        drop(hold);
    }
}

/// What the end of a stream says about who ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndedBy {
    /// The local server, or nobody knows who.
    Server,
    /// Its sharer refused the exchange with this code of [`proto::wire::gateway::close`].
    Sharer(u64),
    /// The way to the sharer broke.
    Way,
}

impl EndedBy {
    /// Reads it from the error of a stream.
    pub(crate) fn of(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<quinn::ReadError>());
        match inner {
            Some(quinn::ReadError::Reset(code)) => Self::Sharer(code.into_inner()),
            Some(quinn::ReadError::ConnectionLost(_)) => Self::Way,
            Some(
                quinn::ReadError::ClosedStream
                | quinn::ReadError::IllegalOrderedRead
                | quinn::ReadError::ZeroRttRejected,
            )
            | None => Self::Server,
        }
    }
}
