//! A connection to a local server, wherever it leads through: for one exchange, and where it may stay, for the next
//! ones of the same visitor.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::FutureExt as _;
use proto::tunnel::forward::Rewrite;

use super::inbox::Inbox;
use super::sharers::Shown;
use crate::net::Outgoing;

/// A connection to a local server.
pub(crate) struct Upstream {
    pub(crate) inbox: Inbox,
    pub(crate) write: Box<dyn Outgoing>,
    /// What goes before the request.
    pub(crate) before: Vec<u8>,
    /// What the share changes of the request.
    pub(crate) rewrite: Arc<Rewrite>,
    /// For whom it may stay behind an exchange; nobody, where this is not known.
    pub(crate) lent: Option<Lent>,
    /// Whether it has.
    pub(crate) has_stayed: bool,
    /// Keeps the connection's place, until it is dropped.
    pub(crate) hold: Box<dyn Send + Sync>,
}

/// Which visitor of which share a connection was made for, and over which of the sharer's connections.
pub(crate) struct Lent {
    pub(crate) connection: usize,
    pub(crate) shown: Arc<Shown>,
    pub(crate) client: IpAddr,
    pub(crate) scheme: &'static str,
    pub(crate) host: String,
}

impl PartialEq for Lent {
    fn eq(&self, other: &Self) -> bool {
        // The same share, shown as it was.
        Arc::ptr_eq(&self.shown, &other.shown)
            && (self.connection, self.client, self.scheme) == (other.connection, other.client, other.scheme)
            && self.host == other.host
    }
}

impl Upstream {
    /// Makes it ready for another exchange of the same visitor, unless something has come that nobody asked for, be it
    /// its end.
    pub(crate) fn again(mut self) -> Option<Self> {
        if !self.inbox.data().is_empty() || self.inbox.fill().now_or_never().is_some() {
            self.abort();
            return None;
        }
        self.inbox.forget();
        self.has_stayed = true;
        Some(self)
    }

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
