//! One connection to a relay, from the first byte to the last.

use std::sync::atomic::Ordering;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::body::Bytes;
use proto::id::PeerId;
use proto::relay::login;
use proto::wire::relay::{Challenge, Denial, FIRST_HEADER, Frame, MAX_ALLOW, PATH, SUBPROTOCOL};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Ended, Shared};
use crate::outbound::{Origin, Outbound, Wire};
use crate::relayed::{Lane, Outlet as _};
use crate::websocket::config;

/// How long a connection may take from nothing to its login.
const CONNECT: Duration = Duration::from_secs(10);
const LATE: &str = "it did not answer in time";

/// A relay says something every 15 s; one that has been silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(40);

/// How long it may take to answer when it is asked whether it is there.
const ANSWER: Duration = Duration::from_secs(2);

/// How often the relay is told again whom to let in, well before it forgets.
const RENEW: Duration = Duration::from_secs(MAX_ALLOW as u64 / 2);

/// What is written at once.
const TAKE: usize = 64 * 1024;

type Socket = WebSocketStream<Wire>;

/// Asks a relay who it is, as a peer would before its login, and goes.
///
/// # Errors
/// Why it is none that peers could use, in a few words.
pub async fn probe(origin: &Origin, relay: PeerId, outbound: &Outbound) -> Result<(), String> {
    let asked = async {
        let wire = outbound.connect(origin).await.map_err(|error| error.to_string())?.wire;
        let (mut socket, _) =
            tokio_tungstenite::client_async_with_config(request(origin)?, wire, Some(config()))
                .await
                .map_err(|error| refused(&error))?;
        let challenge = challenge(&mut socket).await.map_err(|ended| ended.why);
        let _gone = socket.close(None).await;
        is_meant(&challenge?, relay)
    };
    match timeout(CONNECT, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(LATE.to_owned()),
    }
}

/// Connects, logs in, and carries frames until it breaks.
pub(super) async fn hold(shared: &Shared, outbound: &Outbound) -> Ended {
    // The look-up has its own time.
    if let Err(error) = outbound.find(&shared.origin.host).await {
        return Ended::passing(&error);
    }
    let socket = match timeout(CONNECT, connect(shared, outbound)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(ended)) => return ended,
        Err(_) => return Ended::passing(LATE),
    };
    let ended = converse(shared, socket).await;
    shared.outbox.close();
    ended
}

async fn connect(shared: &Shared, outbound: &Outbound) -> Result<Socket, Ended> {
    let origin = &shared.origin;
    let began = Instant::now();
    let connected = outbound.connect(origin).await.map_err(|error| Ended::passing(&error))?;
    shared.reached(connected.remote, began.elapsed());
    let mut request = request(origin).map_err(|why| Ended::passing(&why))?;
    let first = shared.first().await.and_then(|packet| BASE64URL_NOPAD.encode(&packet).parse().ok());
    let is_laden = first.is_some();
    if let Some(first) = first {
        request.headers_mut().insert(FIRST_HEADER, first);
    }
    let opened = tokio_tungstenite::client_async_with_config(request, connected.wire, Some(config())).await;
    let (mut socket, _) = opened.map_err(|error| {
        shared.unladen.store(is_laden, Ordering::Relaxed);
        Ended::passing(&refused(&error))
    })?;
    log_in(shared, &mut socket).await?;
    Ok(socket)
}

/// The request for a relay's WebSocket.
fn request(origin: &Origin) -> Result<Request, String> {
    let scheme = if origin.tls { "wss" } else { "ws" };
    let url = format!("{scheme}://{}{PATH}", origin.authority());
    let mut request = url.into_client_request().map_err(|error| error.to_string())?;
    if let Ok(subprotocol) = SUBPROTOCOL.parse() {
        request.headers_mut().insert("Sec-WebSocket-Protocol", subprotocol);
    }
    Ok(request)
}

/// Why there is no WebSocket.
fn refused(error: &Error) -> String {
    let Error::Http(answer) = error else { return error.to_string() };
    format!("it answered {}", answer.status())
}

/// The relay's first word.
async fn challenge<T: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<T>,
) -> Result<Challenge, Ended> {
    let broken = || Ended::passing("it hung up before the login");
    let first = next_frame(socket).await.ok_or_else(broken)??;
    match Frame::parse(&first) {
        Ok(Frame::Challenge(challenge)) => Ok(challenge),
        Ok(Frame::Denied(why)) => Err(denied(why)),
        Ok(_) | Err(_) => Err(Ended::passing("it is no relay")),
    }
}

fn is_meant(challenge: &Challenge, relay: PeerId) -> Result<(), String> {
    if challenge.relay == relay { Ok(()) } else { Err(format!("it is another relay, {}", challenge.relay)) }
}

/// Signs the challenge of the relay that we mean, and of no other.
async fn log_in(shared: &Shared, socket: &mut Socket) -> Result<(), Ended> {
    let challenge = challenge(socket).await?;
    is_meant(&challenge, shared.relay).map_err(|why| Ended::passing(&why))?;
    let login = login::answer(&challenge, &shared.key, shared.instance);
    let sent = socket.send(Message::binary(Frame::Login(login).encode())).await;
    sent.map_err(|error| Ended::passing(&error))?;
    // What follows the login needs no welcome: where the login is refused, nothing of it is forwarded.
    shared.opened();
    Ok(())
}

async fn converse(shared: &Shared, socket: Socket) -> Ended {
    let (sink, stream) = socket.split();
    tokio::select! {
        biased;
        ended = read(shared, stream) => ended,
        ended = write(shared, sink) => ended,
        ended = renew(shared) => ended,
        ended = doubt(shared) => ended,
    }
}

async fn read(shared: &Shared, mut stream: SplitStream<Socket>) -> Ended {
    let mut back_in = None;
    loop {
        // A relay that is not read sends no more, and drops what is for us.
        shared.link.room().await;
        let silent_at = Instant::now() + SILENCE;
        let frame = tokio::select! {
            biased;
            frame = next_frame(&mut stream) => frame,
            () = sleep_until(silent_at) => return Ended::passing("it fell silent"),
        };
        let message = match frame {
            Some(Ok(message)) => message,
            Some(Err(ended)) => return Ended { back_in, ..ended },
            None => return Ended { back_in, ..Ended::passing("it hung up") },
        };
        shared.heard.send_replace(());
        match Frame::parse(&message) {
            Ok(Frame::Data(_) | Frame::Check(_)) => shared.link.deliver(&message),
            Ok(Frame::Ping(bytes)) => {
                shared.outbox.send(Lane::Control, Frame::Pong(bytes).encode());
            }
            Ok(Frame::Welcome) => shared.welcomed(),
            Ok(Frame::Gone(address)) => shared.gone(address),
            Ok(Frame::Restarting(millis)) => back_in = Some(Duration::from_millis(millis.into())),
            Ok(Frame::Denied(why)) => return Ended { back_in, ..denied(why) },
            Ok(Frame::Pong(_)) => {}
            Ok(Frame::Challenge(_) | Frame::Login(_) | Frame::Allow { .. }) | Err(_) => {
                tracing::debug!("a relay said what it may not, or what is not known");
            }
        }
    }
}

async fn write(shared: &Shared, mut sink: SplitSink<Socket, Message>) -> Ended {
    loop {
        let frames = shared.outbox.next(TAKE).await;
        let written = async {
            for frame in frames {
                sink.feed(Message::binary(frame)).await?;
            }
            sink.flush().await
        };
        if let Err(error) = written.await {
            return Ended::passing(&error);
        }
    }
}

/// Keeps open what was opened, for as long as it is let.
async fn renew(shared: &Shared) -> Ended {
    let mut again = interval(RENEW);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once, and that was done at the login.
    again.tick().await;
    loop {
        again.tick().await;
        for frame in shared.allows() {
            shared.outbox.send(Lane::Control, frame);
        }
    }
}

/// Where the network may have changed, the relay is asked whether it is still there.
async fn doubt(shared: &Shared) -> Ended {
    loop {
        shared.now.notified().await;
        let mut heard = shared.heard.subscribe();
        heard.mark_unchanged();
        shared.outbox.send(Lane::Control, Frame::Ping(*b"culvert?").encode());
        if timeout(ANSWER, heard.changed()).await.is_err() {
            return Ended::passing("it does not answer any more");
        }
    }
}

/// The next binary message; none when there won't be another.
async fn next_frame(
    stream: &mut (impl futures_util::Stream<Item = Result<Message, Error>> + Unpin),
) -> Option<Result<Bytes, Ended>> {
    loop {
        match stream.next().await? {
            Ok(Message::Binary(bytes)) => return Some(Ok(bytes)),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Ok(Message::Close(_)) => return None,
            Ok(Message::Text(_)) => return Some(Err(Ended::passing("it is no relay"))),
            Err(error) => return Some(Err(Ended::passing(&error))),
        }
    }
}

fn denied(why: Denial) -> Ended {
    Ended::passing(&format!("it turned us away: {}", why.name()))
}
