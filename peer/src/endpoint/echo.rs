//! The round trip to the other program: a stream whose far end sends back what it gets.

use std::time::Duration;

use proto::wire::peer::{ECHO, close};
use quinn::{ReadError, RecvStream, SendStream, VarInt};
use tokio::time::{Instant, timeout};

use super::Connection;
use crate::error::Error;

/// How much the far end takes in at a time; it reads no further before that is on its way back.
const CHUNK: usize = 1024;

/// Measures round trips over one connection, one at a time.
#[derive(Debug)]
pub struct Echo {
    send: SendStream,
    recv: RecvStream,
    sent: u32,
}

impl Connection {
    /// Opens a stream to measure round trips on.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn echo(&self) -> Result<Echo, Error> {
        let (send, recv) = self.open(ECHO).await?;
        Ok(Echo { send, recv, sent: 0 })
    }
}

impl Echo {
    /// Sends a few bytes and waits until they are back: the application's round trip, retransmissions included.
    /// `None` when they are not back in time; the echo is of no more use then.
    ///
    /// # Errors
    /// The connection is gone, the other program knows no echo, or what came back is something else.
    pub async fn round_trip(&mut self, patience: Duration) -> Result<Option<Duration>, Error> {
        self.sent = self.sent.wrapping_add(1);
        let (words, began) = (self.sent.to_be_bytes(), Instant::now());
        let mut back = [0; 4];
        let there_and_back = async {
            self.send.write_all(&words).await.map_err(|error| error.to_string())?;
            self.recv.read_exact(&mut back).await.map_err(|error| match error {
                quinn::ReadExactError::ReadError(ReadError::Reset(code)) if is_unknown(code) => {
                    "the program over there is too old to answer a ping".to_owned()
                }
                quinn::ReadExactError::ReadError(_) | quinn::ReadExactError::FinishedEarly(_) => {
                    error.to_string()
                }
            })
        };
        match timeout(patience, there_and_back).await {
            Err(_) => Ok(None),
            Ok(Err(why)) => Err(Error::Broken(why)),
            Ok(Ok(())) if back != words => Err(Error::Broken("an echo came back changed".into())),
            Ok(Ok(())) => Ok(Some(began.elapsed())),
        }
    }
}

fn is_unknown(code: VarInt) -> bool {
    [close::PROTOCOL, close::NO_SUCH_TARGET].map(VarInt::from_u32).contains(&code)
}

/// The far end: sends back what it gets, for as long as it gets something.
pub(super) async fn answer(send: &mut SendStream, recv: &mut RecvStream) {
    let mut buffer = [0; CHUNK];
    while let Ok(Some(read)) = recv.read(&mut buffer).await {
        if send.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    let _ = send.finish();
}
