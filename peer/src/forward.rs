//! Moving bytes between a TCP stream and a QUIC stream, both ways at once.
//!
//! Each direction ends by itself: an end of file on one side becomes one on the other, and the opposite
//! direction goes on. A reset on either side resets both directions on the other. Nothing is buffered beyond
//! one read, so a slow reader slows its writer down, through QUIC's flow control.

use std::sync::atomic::{AtomicU64, Ordering};

use proto::wire::peer::close;
use quinn::{RecvStream, SendStream, VarInt};
use relay::net::{Outgoing, Stream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

/// How much one read takes at the most: several GSO batches, so that system calls are few.
const BUFFER: usize = 64 * 1024;

/// How much the first one takes.
const FIRST: usize = 8 * 1024;

/// Bytes that have passed, as seen from the TCP side.
#[derive(Debug, Default)]
pub struct Counters {
    /// From QUIC to TCP.
    pub to_tcp: AtomicU64,
    /// From TCP to QUIC.
    pub from_tcp: AtomicU64,
}

impl Counters {
    /// Both counts: to TCP, from TCP.
    pub fn read(&self) -> (u64, u64) {
        (self.to_tcp.load(Ordering::Relaxed), self.from_tcp.load(Ordering::Relaxed))
    }
}

/// How a forwarded stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Both directions to their end.
    Complete,
    /// The far end reset it, with this code of [`proto::wire::peer::close`].
    ResetByPeer(u64),
    /// The near end, or the connection, broke.
    Broken,
}

/// Moves bytes until both directions are done, or one breaks.
pub async fn forward(
    stream: Stream,
    mut send: SendStream,
    mut recv: RecvStream,
    counters: &Counters,
) -> Ended {
    let (mut reader, mut writer) = stream;
    let result = tokio::try_join!(
        tcp_to_quic(&mut *reader, &mut send, &counters.from_tcp),
        quic_to_tcp(&mut recv, &mut *writer, &counters.to_tcp),
    );
    match result {
        Ok(((), ())) => Ended::Complete,
        Err(ended) => {
            let code = VarInt::from_u32(close::RESET);
            let _ = send.reset(code);
            let _ = recv.stop(code);
            // Who has all it wanted leaves an end, not a reset.
            if ended != Ended::ResetByPeer(close::DONE.into()) {
                writer.abort();
            }
            ended
        }
    }
}

async fn tcp_to_quic(
    reader: &mut (dyn AsyncRead + Send + Unpin),
    send: &mut SendStream,
    count: &AtomicU64,
) -> Result<(), Ended> {
    let mut buffer = Vec::with_capacity(FIRST);
    loop {
        let read = tokio::select! {
            biased;
            read = reader.read_buf(&mut buffer) => read.map_err(|_| Ended::Broken)?,
            stopped = send.stopped() => return Err(stopped_by(stopped)),
        };
        if read == 0 {
            let _ = send.finish();
            return Ok(());
        }
        let room = buffer.capacity();
        let written = if read >= room / 2 {
            let next = Vec::with_capacity(if read == room { BUFFER } else { room });
            send.write_chunk(std::mem::replace(&mut buffer, next).into()).await
        } else {
            // A few bytes are copied: as they are they would keep their whole buffer until they are acknowledged.
            let written = send.write_all(&buffer).await;
            buffer.clear();
            written
        };
        written.map_err(|error| match error {
            quinn::WriteError::Stopped(code) => Ended::ResetByPeer(code.into_inner()),
            quinn::WriteError::ConnectionLost(_)
            | quinn::WriteError::ClosedStream
            | quinn::WriteError::ZeroRttRejected => Ended::Broken,
        })?;
        count.fetch_add(read as u64, Ordering::Relaxed);
    }
}

fn stopped_by(stopped: Result<Option<VarInt>, quinn::StoppedError>) -> Ended {
    match stopped {
        Ok(Some(code)) => Ended::ResetByPeer(code.into_inner()),
        // Everything acknowledged can't be before the end was sent.
        Ok(None) | Err(_) => Ended::Broken,
    }
}

async fn quic_to_tcp(
    recv: &mut RecvStream,
    writer: &mut dyn Outgoing,
    count: &AtomicU64,
) -> Result<(), Ended> {
    // Copied out of quinn's chunks, of which each keeps the whole batch that it came in: a writer that waits would keep
    // many of those.
    let mut buffer = vec![0; FIRST];
    loop {
        let read = recv.read(&mut buffer).await.map_err(|error| match error {
            quinn::ReadError::Reset(code) => Ended::ResetByPeer(code.into_inner()),
            quinn::ReadError::ConnectionLost(_)
            | quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => Ended::Broken,
        })?;
        let Some(read) = read else {
            return writer.shutdown().await.map_err(|_| Ended::Broken);
        };
        writer.write_all(&buffer[..read]).await.map_err(|_| Ended::Broken)?;
        count.fetch_add(read as u64, Ordering::Relaxed);
        grow(&mut buffer, read);
    }
}

/// One that was filled is enlarged: most streams are short, and few are long.
fn grow(buffer: &mut Vec<u8>, read: usize) {
    if read == buffer.len() && read < BUFFER {
        buffer.resize(BUFFER, 0);
    }
}
