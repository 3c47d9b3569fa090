//! The connector's side of an open connection: proving the ticket on it.

use std::time::Duration;

use proto::dial::DialFailure;
use proto::ticket::Ticket;
use proto::wire::peer::{EXPORTER_LABEL, Hello, Target, Welcome};
use proto::wire::signal::Refusal;
use proto::wire::{self, VERSION};
use relay::tls::HandshakeFailure;
use tokio::time::timeout;

use super::remote::Introduction;
use crate::error::Error;
use crate::frames;

/// How long the sharer may take to let a proven connection in.
const WELCOME: Duration = Duration::from_secs(10);

/// Proves the ticket on the connection's first stream, and reads what there is to visit.
///
/// The handshake's success says nothing yet: the sharer checks our key after our side is done
/// (RFC 8446 §4.4.4), so only its first byte does.
pub(super) async fn introduce(
    connection: &quinn::Connection,
    ticket: &Ticket,
    introduction: &Introduction,
) -> Result<(Vec<Target>, String), Error> {
    let mut exporter = [0; 32];
    connection
        .export_keying_material(&mut exporter, EXPORTER_LABEL, b"")
        .map_err(|_| Error::Broken("TLS exports no keys".into()))?;
    let exchange = &introduction.exchange;
    let hello = Hello {
        version: VERSION,
        share: exchange.share,
        ticket: exchange.ticket,
        instance: exchange.connector_instance,
        proof: ticket.secret.connection_proof(exchange, &exporter),
    };
    let (mut send, mut recv) = connection.open_bi().await.map_err(|error| handshake_error(&error))?;
    let talk = async {
        send.write_all(&wire::frame(&hello)).await.map_err(|error| error.to_string())?;
        frames::read::<Welcome>(&mut recv).await.map_err(|error| error.to_string())
    };
    let welcome = match timeout(WELCOME, talk).await {
        Ok(Ok(welcome)) => welcome,
        Ok(Err(why)) => {
            let closed = connection.close_reason();
            return Err(closed.map_or(Error::Broken(why), |reason| handshake_error(&reason)));
        }
        Err(_) => return Err(Error::Dial(DialFailure::NoAnswer)),
    };
    match welcome {
        Welcome::Ready { name, targets } => {
            // Held open for as long as the connection is: its end is the visit's.
            tokio::spawn(async move {
                let _ = recv.read_to_end(usize::from(u16::MAX)).await;
                drop(send);
            });
            Ok((targets, name))
        }
        Welcome::Refused(refusal) => Err(Error::Dial(DialFailure::Refused(refusal))),
    }
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
