//! The connector's side of an open connection: proving the ticket on it.

use std::time::Duration;

use proto::dial::DialFailure;
use proto::proof::Exchange;
use proto::ticket::Ticket;
use proto::wire::peer::{EXPORTER_LABEL, Hello, Target, Welcome};
use proto::wire::signal::Refusal;
use proto::wire::{self, VERSION};
use relay::tls::HandshakeFailure;
use tokio::sync::watch;
use tokio::time::timeout;

use super::remote::Meeting;
use crate::error::Error;
use crate::frames;

/// How long the sharer may take to let a proven connection in.
const WELCOME: Duration = Duration::from_secs(10);

/// The stream of the proof, held open for as long as the connection is: its end is the visit's.
pub(super) type HelloStream = (quinn::SendStream, quinn::RecvStream);

/// Sends the proof of the ticket on the connection's first stream.
///
/// The handshake's success says nothing yet: the sharer checks our key after our side is done
/// (RFC 8446 §4.4.4), so only its first byte does.
pub(super) async fn prove(
    connection: &quinn::Connection,
    ticket: &Ticket,
    exchange: &Exchange,
) -> Result<HelloStream, Error> {
    let mut exporter = [0; 32];
    connection
        .export_keying_material(&mut exporter, EXPORTER_LABEL, b"")
        .map_err(|_| Error::Broken("TLS exports no keys".into()))?;
    let hello = Hello {
        version: VERSION,
        share: exchange.share,
        ticket: exchange.ticket,
        instance: exchange.connector_instance,
        proof: ticket.secret.connection_proof(exchange, &exporter),
    };
    let (mut send, recv) = connection.open_bi().await.map_err(|error| handshake_error(&error))?;
    match send.write_all(&wire::frame(&hello)).await {
        Ok(()) => Ok((send, recv)),
        Err(error) => Err(broken(connection, error.to_string())),
    }
}

/// Waits to be let in, and reads what there is to visit.
pub(super) async fn welcomed(
    connection: &quinn::Connection,
    (send, mut recv): HelloStream,
) -> Result<(Vec<Target>, String), Error> {
    let welcome = match timeout(WELCOME, frames::read::<Welcome>(&mut recv)).await {
        Ok(Ok(welcome)) => welcome,
        Ok(Err(why)) => return Err(broken(connection, why.to_string())),
        Err(_) => return Err(Error::Dial(DialFailure::NoAnswer)),
    };
    match welcome {
        Welcome::Ready { name, targets } => {
            tokio::spawn(async move {
                let _ = recv.read_to_end(usize::from(u16::MAX)).await;
                drop(send);
            });
            Ok((targets, name))
        }
        Welcome::Refused(refusal) => Err(Error::Dial(DialFailure::Refused(refusal))),
    }
}

/// Waits for the word that the two don't meet: for ever, where they do.
pub(super) async fn refused(met: &mut watch::Receiver<Meeting>) -> Error {
    let refusal = met.wait_for(|meeting| matches!(meeting, Some(Err(_)))).await;
    let error = refusal.ok().and_then(|meeting| meeting.as_ref().and_then(|met| met.as_ref().err().cloned()));
    match error {
        Some(error) => error,
        None => std::future::pending().await,
    }
}

fn broken(connection: &quinn::Connection, why: String) -> Error {
    let closed = connection.close_reason();
    closed.map_or(Error::Broken(why), |reason| handshake_error(&reason))
}

/// What a user is told of a connection that never came about.
pub(super) fn handshake_error(error: &quinn::ConnectionError) -> Error {
    match HandshakeFailure::of(error) {
        Some(HandshakeFailure::WrongServerKey) => Error::WrongPeer("its key is another one".into()),
        Some(HandshakeFailure::WrongProtocol) => Error::Dial(DialFailure::Refused(Refusal::Version)),
        Some(failure) => Error::WrongPeer(failure.to_string()),
        None => Error::Broken(error.to_string()),
    }
}
