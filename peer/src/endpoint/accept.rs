//! The sharer's side of an open connection: checking the proof, welcoming, handing the visit on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::id::PeerId;
use proto::wire::peer::{ECHO, EXPORTER_LABEL, Hello, Open, Target, Welcome, close};
use proto::wire::signal::Refusal;
use proto::wire::{self};
use relay::{quic, tls};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::driver::Input;
use super::echo;
use crate::congestion::{PathEpoch, PerPath};
use crate::frames::{self, ReadError};
use crate::path_socket::PathSocket;

/// How long a connection may take from its first packet to its proof.
const PROOF: Duration = Duration::from_secs(10);

/// Connections under way at once. Only who holds a ticket gets this far, so it is the number of a
/// household's devices with room to spare.
const MAX_OPENING: usize = 256;

/// How long a stream may take to say which target it is for.
const OPEN: Duration = Duration::from_secs(10);

/// Somebody who was let in: one connection, with as many streams as it has visitors.
#[derive(Debug)]
pub struct Visit {
    /// Who.
    pub peer: PeerId,
    connection: quinn::Connection,
}

/// One visitor's stream.
#[derive(Debug)]
pub struct VisitorStream {
    /// To the visitor.
    pub send: quinn::SendStream,
    /// From the visitor.
    pub recv: quinn::RecvStream,
}

/// What the driver lets a connection do.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) name: String,
    pub(super) targets: Vec<Target>,
    pub(super) visits: mpsc::Sender<Visit>,
}

/// The driver is asked whether a proof lets a connection in.
#[derive(Debug)]
pub(super) struct Knock {
    pub(super) address: SocketAddr,
    pub(super) peer: PeerId,
    pub(super) hello: Hello,
    pub(super) exporter: [u8; 32],
    pub(super) connection: quinn::Connection,
    pub(super) reply: oneshot::Sender<Result<Access, Refusal>>,
}

impl Visit {
    /// The next visitor's stream; `None` when the connection is gone.
    pub async fn accept(&self) -> Option<VisitorStream> {
        let (send, recv) = self.connection.accept_bi().await.ok()?;
        Some(VisitorStream { send, recv })
    }

    /// Ends the visit.
    pub fn close(&self) {
        self.connection.close(close::STOPPING.into(), b"the peer stopped sharing");
    }
}

impl VisitorStream {
    /// Which target the visitor is for. A stream that does not say so in time, or says nonsense, is none; one
    /// that measures the round trip to this very program is answered here, and is none either.
    pub async fn target(&mut self) -> Option<u16> {
        let open: Result<Open, ReadError> = timeout(OPEN, frames::read(&mut self.recv)).await.ok()?;
        let target = open.ok()?.target;
        if target == ECHO {
            echo::answer(&mut self.send, &mut self.recv).await;
            return None;
        }
        Some(target)
    }

    /// Turns the visitor away with a code of [`proto::wire::peer::close`].
    pub fn refuse(mut self, code: u32) {
        let _ = self.send.reset(code.into());
        let _ = self.recv.stop(code.into());
    }
}

/// What it takes to let somebody in.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) config: quinn::ServerConfig,
    pub(super) socket: Arc<PathSocket>,
    pub(super) inputs: mpsc::WeakSender<Input>,
}

/// How a connection to a remote behaves whose paths have this epoch.
pub(super) fn transport(epoch: PathEpoch) -> Arc<quinn::TransportConfig> {
    let mut config = quic::transport();
    config.congestion_controller_factory(Arc::new(PerPath::new(epoch)));
    Arc::new(config)
}

/// Accepts connections until the endpoint is closed.
pub(super) async fn run(endpoint: quinn::Endpoint, door: Door) {
    let opening = Arc::new(Semaphore::new(MAX_OPENING));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(permit) = Arc::clone(&opening).try_acquire_owned() else {
            incoming.ignore();
            continue;
        };
        let door = door.clone();
        tokio::spawn(async move {
            if timeout(PROOF, open(incoming, door)).await.is_err() {
                tracing::debug!("a connection did not prove itself in time");
            }
            drop(permit);
        });
    }
}

async fn open(incoming: quinn::Incoming, door: Door) {
    let Door { mut config, socket, inputs } = door;
    let address = incoming.remote_address();
    config.transport_config(transport(socket.epoch(address)));
    let connecting = match incoming.accept_with(Arc::new(config)) {
        Ok(connecting) => connecting,
        Err(error) => return tracing::debug!(%error, "a connection broke off in its first packet"),
    };
    let connection = match connecting.await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(%error, "a connection broke off in its handshake");
            return;
        }
    };
    if let Err(reason) = welcome(address, &connection, &inputs).await {
        tracing::info!(peer = ?tls::peer_id(&connection), reason, "a connection was turned away");
        connection.close(close::PROTOCOL.into(), reason.as_bytes());
    }
}

async fn welcome(
    address: SocketAddr,
    connection: &quinn::Connection,
    inputs: &mpsc::WeakSender<Input>,
) -> Result<(), &'static str> {
    let peer = tls::peer_id(connection).ok_or("no key")?;
    let mut exporter = [0; 32];
    connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").map_err(|_| "no exporter")?;
    let (mut send, mut recv) = connection.accept_bi().await.map_err(|_| "it left")?;
    let hello: Hello = frames::read(&mut recv).await.map_err(|_| "no hello")?;
    let (reply, decided) = oneshot::channel();
    let knock = Knock { address, peer, hello, exporter, connection: connection.clone(), reply };
    let sender = inputs.upgrade().ok_or("stopping")?;
    sender.send(Input::Knock(Box::new(knock))).await.map_err(|_| "stopping")?;
    match decided.await.map_err(|_| "stopping")? {
        Ok(Access { name, targets, visits }) => {
            let ready = wire::frame(&Welcome::Ready { name, targets });
            send.write_all(&ready).await.map_err(|_| "it left")?;
            visits
                .send(Visit { peer, connection: connection.clone() })
                .await
                .map_err(|_| "no longer shared")?;
            // The first stream stays open for as long as the visit lasts.
            tokio::spawn(async move {
                let _ = recv.read_to_end(usize::from(u16::MAX)).await;
                drop(send);
            });
            Ok(())
        }
        Err(refusal) => {
            let _ = send.write_all(&wire::frame(&Welcome::Refused(refusal))).await;
            let _ = send.finish();
            // The refusal has to arrive before the close does; whoever never reads it times out.
            let _ = send.stopped().await;
            connection.close(close::REFUSED.into(), b"refused");
            Ok(())
        }
    }
}
