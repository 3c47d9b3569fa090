//! The incoming half of a stream with what has come and was not used yet, and the outgoing half with its
//! patience.

use std::io;

use proto::tunnel::head::{BadHead, MAX_HEAD, Scan};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Duration, timeout};

/// What an idle connection has at hand, and one that is busy.
const SMALL: usize = 4 * 1024;
const LARGE: usize = 64 * 1024;

/// Bytes that have come. It grows while they come fast, up to a bound; cancelling a read loses nothing.
pub(crate) struct Inbox {
    read: Box<dyn AsyncRead + Send + Unpin>,
    buffer: Vec<u8>,
    from: usize,
    to: usize,
    /// Everything that has come since the count began.
    total: u64,
}

impl Inbox {
    pub(crate) fn new(read: Box<dyn AsyncRead + Send + Unpin>) -> Self {
        Self { read, buffer: vec![0; SMALL], from: 0, to: 0, total: 0 }
    }

    /// What has come and was not used.
    pub(crate) fn data(&self) -> &[u8] {
        self.buffer.get(self.from..self.to).unwrap_or_default()
    }

    /// The first so many bytes of that are used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.from = self.from.saturating_add(count).min(self.to);
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        }
    }

    /// How many bytes have come since the count began.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// Whether no more fits before something is used.
    pub(crate) const fn is_full(&self) -> bool {
        self.to - self.from >= LARGE
    }

    /// Waits for more; 0 is the end.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        if self.from > 0 {
            self.buffer.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        if self.to == self.buffer.len() && self.to < LARGE {
            self.buffer.resize((self.to * 4).clamp(SMALL, LARGE), 0);
        }
        let room = self.buffer.get_mut(self.to..).unwrap_or_default();
        let offered = room.len();
        let came = self.read.read(room).await?;
        self.to += came;
        self.total += came as u64;
        if came == offered && self.buffer.len() < LARGE {
            self.buffer.resize((self.buffer.len() * 4).min(LARGE), 0);
        }
        Ok(came)
    }

    /// Gives memory back when nothing is at hand.
    pub(crate) fn rest(&mut self) {
        if self.data().is_empty() && self.buffer.len() > SMALL {
            self.buffer = vec![0; SMALL];
        }
    }

    /// Begins to count anew.
    pub(crate) const fn forget(&mut self) {
        self.total = 0;
    }

    /// Waits for a whole head, and takes it out. `None` is the end of the stream. What does not begin with
    /// `start` is none, as soon as that shows.
    pub(crate) async fn head(&mut self, start: &[u8]) -> Result<Option<Vec<u8>>, HeadError> {
        let mut scan = Scan::default();
        loop {
            if self.data().iter().zip(start).any(|(came, wanted)| came != wanted) {
                return Err(HeadError::Bad(BadHead::StatusLine));
            }
            if let Some(end) = scan.find_end(self.data())? {
                let head = self.data().get(..end).unwrap_or_default().to_vec();
                self.consume(end);
                return Ok(Some(head));
            }
            debug_assert!(
                self.data().len() <= MAX_HEAD,
                "the scan has a limit, and it is below that of the buffer"
            );
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The stream, with what has come put back.
    pub(crate) fn into_stream(self) -> Box<dyn AsyncRead + Send + Unpin> {
        let data = self.data().to_vec();
        Box::new(io::Cursor::new(data).chain(self.read))
    }
}

/// Why there is no head.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeadError {
    #[error(transparent)]
    Bad(#[from] BadHead),
    #[error(transparent)]
    Stream(#[from] io::Error),
}

/// Writes everything, and leaves nothing in between; each step forward may take `patience`.
pub(crate) async fn write_all(
    write: &mut (dyn AsyncWrite + Send + Unpin),
    mut bytes: &[u8],
    patience: Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = timeout(patience, write.write(bytes)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    timeout(patience, write.flush()).await.map_err(|_| io::ErrorKind::TimedOut)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_can_be_used_at_once_wherever_the_rest_begins() {
        let mut inbox = Inbox::new(Box::new(&b"GET / HTTP/1.1"[..]));
        inbox.fill().await.unwrap();
        inbox.consume(4);
        assert_eq!(inbox.data(), b"/ HTTP/1.1");
        inbox.consume(usize::MAX);
        assert_eq!((inbox.data(), inbox.total()), (&b""[..], 14));
    }
}
