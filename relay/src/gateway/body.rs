//! Bodies on their way from one side to the other: read strictly, framed anew, never held as a whole.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use proto::tunnel::chunk::{self, ChunkReader, Piece};
use proto::tunnel::forward::Framing;
use proto::tunnel::head::{Body, Fields};
use tokio::io::AsyncWrite;
use tokio::time::{Duration, timeout};

use super::inbox::{Inbox, write_all};

/// Why a body did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It ended before its end.
    Cut,
    /// It is not what its head says.
    Malformed,
    /// Nothing came for too long.
    Idle,
    /// It can't be written any more.
    Unwritable,
    /// Nothing could be written for too long.
    Blocked,
}

/// How a body is to be carried.
pub(crate) struct Carry {
    /// How it comes.
    pub(crate) body: Body,
    /// How it goes.
    pub(crate) framing: Framing,
    /// Goes first: a head that nobody has seen yet.
    pub(crate) before: Vec<u8>,
    /// How long nothing may come.
    pub(crate) idle: Option<Duration>,
    /// How long nothing may go.
    pub(crate) blocked: Duration,
}

impl Carry {
    /// Carries the body, each piece as soon as it is there, and counts its content in `sent`. Gives the trailers behind
    /// it, which only chunks can carry.
    pub(crate) async fn run(
        mut self,
        from: &mut Inbox,
        to: &mut (dyn AsyncWrite + Send + Unpin),
        sent: &AtomicU64,
    ) -> Result<Fields, BodyError> {
        let mut out = std::mem::take(&mut self.before);
        let mut source = Source::new(self.body);
        loop {
            let step = source.step(from.data())?;
            self.put(&mut out, from.data().get(step.framing..step.framing + step.data).unwrap_or_default());
            sent.fetch_add(step.data as u64, Ordering::Relaxed);
            from.consume(step.framing + step.data);
            if let Some(trailers) = step.end {
                if self.framing == Framing::Chunked {
                    out.extend_from_slice(&chunk::last(&trailers));
                }
                self.flush(&mut out, to).await?;
                return Ok(trailers);
            }
            if step.data > 0 && out.len() < FULL && !from.data().is_empty() {
                continue;
            }
            self.flush(&mut out, to).await?;
            if step.data == 0 || from.data().is_empty() {
                self.more(from, &mut source).await?;
            }
        }
    }

    async fn more(&self, from: &mut Inbox, source: &mut Source) -> Result<(), BodyError> {
        let came = match self.idle {
            Some(idle) => timeout(idle, from.fill()).await.map_err(|_| BodyError::Idle)?,
            None => from.fill().await,
        };
        match came {
            Ok(0) => source.ended(),
            Ok(_) => Ok(()),
            Err(_) => Err(BodyError::Cut),
        }
    }

    fn put(&self, out: &mut Vec<u8>, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        match self.framing {
            Framing::Plain => out.extend_from_slice(data),
            Framing::Chunked => {
                out.extend_from_slice(chunk::before(data.len()).as_bytes());
                out.extend_from_slice(data);
                out.extend_from_slice(chunk::BEHIND);
            }
        }
    }

    async fn flush(
        &self,
        out: &mut Vec<u8>,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<(), BodyError> {
        let written = write_all(to, out, self.blocked).await;
        out.clear();
        written.map_err(|error| {
            let is_late = error.kind() == io::ErrorKind::TimedOut;
            if is_late { BodyError::Blocked } else { BodyError::Unwritable }
        })
    }
}

/// What is written at once at the most, roughly.
const FULL: usize = 64 * 1024;

/// A body as it comes.
enum Source {
    Left(u64),
    Chunks(ChunkReader),
    UntilClose,
    Ended,
}

/// What the bytes at hand are: framing, then data, and then perhaps the end.
struct Step {
    framing: usize,
    data: usize,
    end: Option<Fields>,
}

impl Source {
    fn new(body: Body) -> Self {
        match body {
            Body::None => Self::Left(0),
            Body::Length(length) => Self::Left(length),
            Body::Chunked => Self::Chunks(ChunkReader::default()),
            Body::UntilClose => Self::UntilClose,
        }
    }

    fn step(&mut self, bytes: &[u8]) -> Result<Step, BodyError> {
        match self {
            Self::Left(left) => {
                let data = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= data as u64;
                Ok(Step { framing: 0, data, end: (*left == 0).then(Fields::default) })
            }
            Self::Chunks(reader) => match reader.read(bytes).map_err(|_| BodyError::Malformed)? {
                (framing, Piece::More) => Ok(Step { framing, data: 0, end: None }),
                (framing, Piece::Data(data)) => Ok(Step { framing, data, end: None }),
                (framing, Piece::End(trailers)) => Ok(Step { framing, data: 0, end: Some(trailers) }),
            },
            Self::UntilClose => Ok(Step { framing: 0, data: bytes.len(), end: None }),
            Self::Ended => Ok(Step { framing: 0, data: 0, end: Some(Fields::default()) }),
        }
    }

    /// The stream has ended.
    fn ended(&mut self) -> Result<(), BodyError> {
        match self {
            Self::UntilClose => {
                *self = Self::Ended;
                Ok(())
            }
            Self::Left(_) | Self::Chunks(_) | Self::Ended => Err(BodyError::Cut),
        }
    }
}
