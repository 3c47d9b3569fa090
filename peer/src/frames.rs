//! Reading framed messages from a QUIC stream, never further than the frame.

use proto::wire::{self, Bounded, MAX_FRAME, Malformed};
use serde::de::DeserializeOwned;

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The stream ended or broke.
    #[error("{0}")]
    Stream(#[from] quinn::ReadExactError),
    /// It held something else.
    #[error("{0}")]
    Malformed(#[from] Malformed),
}

/// Reads one message. What follows it stays in the stream.
pub(crate) async fn read<T: DeserializeOwned + Bounded>(
    recv: &mut quinn::RecvStream,
) -> Result<T, ReadError> {
    let mut head = [0; 2];
    recv.read_exact(&mut head).await?;
    let length = usize::from(u16::from_be_bytes(head));
    if length > MAX_FRAME {
        return Err(Malformed::TooLong(length).into());
    }
    let mut body = vec![0; length];
    recv.read_exact(&mut body).await?;
    Ok(wire::parse(&body)?)
}
