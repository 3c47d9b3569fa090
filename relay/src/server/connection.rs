//! One peer's connection: its login, and then frames both ways.

use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{Sink, SinkExt as _, StreamExt as _};
use proto::relay::login;
use proto::wire::relay::{Challenge, Denial, Frame};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::hub::Seat;
use crate::websocket::{Progress, Watched, config};

/// What is taken from a peer's queue at once: a few batches, written in one go. What is taken can't be
/// passed by any more.
const TAKE: usize = 64 * 1024;

/// How often it is looked whether a peer takes what is being written.
const LOOK: Duration = Duration::from_millis(250);

/// How long a peer may take to hear why the relay hangs up.
const LAST_WORD: Duration = Duration::from_secs(1);

type Socket<T> = WebSocketStream<Watched<T>>;

/// Serves a connection until either side ends it.
pub(super) async fn serve<T: AsyncRead + AsyncWrite + Unpin>(seat: Seat, stream: T) {
    let (stream, progress) = Watched::new(stream);
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config())).await;
    let why = tokio::select! {
        biased;
        why = seat.closed() => why,
        () = converse(&seat, &mut socket, &progress) => return,
    };
    tracing::debug!(?why, "the relay hangs up");
    // Who takes nothing would not take that either.
    if why != Denial::Slow {
        let last_word = async {
            let _gone = socket.send(Message::binary(Frame::Denied(why).encode())).await;
            let _gone = socket.close(None).await;
        };
        let _late = timeout(LAST_WORD, last_word).await;
    }
}

async fn converse<T: AsyncRead + AsyncWrite + Unpin>(
    seat: &Seat,
    socket: &mut Socket<T>,
    progress: &Progress,
) {
    let mut challenge = Challenge { relay: seat.relay(), challenge: [0; 32] };
    if SystemRandom::new().fill(&mut challenge.challenge).is_err() {
        tracing::error!("the system has no randomness: nobody can log in");
        return;
    }
    if socket.send(Message::binary(Frame::Challenge(challenge).encode())).await.is_err() {
        return;
    }
    let (sink, mut stream) = socket.split();
    let hear = async {
        if log_in(seat, &challenge, &mut stream).await {
            read(seat, stream).await;
        }
    };
    tokio::select! {
        biased;
        () = hear => {}
        // Before the login there is what the server's own services answered to whom came with a packet for them.
        () = write(seat, sink, progress) => {}
    }
}

/// Has the peer log in. Whether it is still there after that.
async fn log_in<T: AsyncRead + AsyncWrite + Unpin>(
    seat: &Seat,
    challenge: &Challenge,
    stream: &mut SplitStream<&mut Socket<T>>,
) -> bool {
    let Some(message) = next_message(seat, stream).await else { return false };
    match Frame::parse(&message) {
        // Here, where the work holds nobody else up.
        Ok(Frame::Login(answer)) => match login::check(challenge, &answer) {
            Some(proven) => seat.login(proven),
            None => seat.bad_login(),
        },
        Ok(_) | Err(_) => seat.malformed(),
    }
    true
}

async fn read<T: AsyncRead + AsyncWrite + Unpin>(seat: &Seat, mut stream: SplitStream<&mut Socket<T>>) {
    while let Some(message) = next_message(seat, &mut stream).await {
        seat.frame(message);
    }
}

/// The next binary message; none when there won't be another.
async fn next_message(
    seat: &Seat,
    stream: &mut (impl futures_util::Stream<Item = Result<Message, Error>> + Unpin),
) -> Option<Vec<u8>> {
    loop {
        match stream.next().await? {
            // Copied, so that what is queued is as long as it is counted.
            Ok(Message::Binary(bytes)) => return Some(bytes.to_vec()),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Ok(Message::Close(_)) => return None,
            Ok(Message::Text(_)) | Err(Error::Capacity(_) | Error::Protocol(_) | Error::Utf8(_)) => {
                seat.malformed();
                // The hub hangs up.
                std::future::pending::<()>().await;
            }
            Err(error) => {
                tracing::debug!(%error, "a peer's connection broke");
                return None;
            }
        }
    }
}

/// Writes what there is, many frames at once.
async fn write<T: AsyncRead + AsyncWrite + Unpin>(
    seat: &Seat,
    mut sink: SplitSink<&mut Socket<T>, Message>,
    progress: &Progress,
) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let frames = seat.next(TAKE).await;
        let mut written = std::pin::pin!(write_all(&mut sink, frames));
        loop {
            tokio::select! {
                biased;
                result = written.as_mut() => match result {
                    Ok(()) => break,
                    Err(_gone) => return,
                },
                _ = look.tick() => if progress.take() {
                    seat.progress();
                },
            }
        }
    }
}

async fn write_all(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    frames: Vec<Vec<u8>>,
) -> Result<(), Error> {
    for frame in frames {
        sink.feed(Message::binary(frame)).await?;
    }
    sink.flush().await
}
