//! Showing a share to the world: a connection to the server's gateway, kept up for as long as the share is
//! public.
//!
//! It goes to the very address of the session, and so over whatever path that has. When the session is made
//! anew, so is this connection, while exchanges that are under way on the old one come to their end.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::id::{Instance, PeerId, ShareId};
use proto::key::SecretKey;
use proto::machine::Backoff;
use proto::tunnel::access::Access;
use proto::wire::gateway::{
    ALPN, EXPORTER_LABEL, FromGateway, NotPublished, Publication, Scheme, ToGateway, Visitor, close,
};
use proto::wire::{self, VERSION};
use rand_chacha::ChaCha12Rng;
use relay::quic;
use relay::tls::{self, HandshakeFailure};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::server_session::Address;
use crate::congestion::PerPath;
use crate::frames;

/// How long the gateway may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// How long a stream may take to say whom it is for.
const HEAD: Duration = Duration::from_secs(10);

/// Between two attempts, the shortest and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// How long a connection that is replaced takes visitors beside its successor.
const OVERLAP: Duration = Duration::from_secs(5);

/// Exchanges that nobody has looked at yet.
const QUEUE: usize = 256;

/// A share as the world is to see it.
#[derive(Debug, Clone)]
pub struct PublicShare {
    /// The share.
    pub share: ShareId,
    /// The name that is claimed for it.
    pub name: String,
    /// Whether the name is to be held while we are away.
    pub keep: bool,
    /// What the local server gets as `Host`; the visitor's own where there is none.
    pub host: Option<String>,
    /// Who may visit.
    pub access: Access,
}

/// What becomes of a public share.
#[derive(Debug)]
pub enum PublicEvent {
    /// Browsers find it at this URL from now on.
    Published(String),
    /// The server does not show it. It is asked again, later.
    Refused(NotPublished),
    /// The server has no gateway that we understand. It is asked again, later.
    NoGateway(String),
    /// A newer process of the identity has the name's visitors.
    Displaced,
    /// Somebody visits.
    Exchange(Exchange),
}

/// One exchange of a visitor's with the local server: a stream that carries HTTP/1.1.
#[derive(Debug)]
pub struct Exchange {
    /// Where the visitor is, by the server's word.
    pub address: IpAddr,
    /// How it came to the server.
    pub scheme: Scheme,
    /// The host that it asked for.
    pub host: String,
    /// To the visitor.
    pub send: quinn::SendStream,
    /// From the visitor.
    pub recv: quinn::RecvStream,
    _active: mpsc::Sender<Infallible>,
}

impl Exchange {
    /// Turns the visitor away with a code of [`proto::wire::gateway::close`].
    pub fn refuse(self, code: u32) {
        refuse(self.send, self.recv, code);
    }
}

fn refuse(mut send: quinn::SendStream, mut recv: quinn::RecvStream, code: u32) {
    // What has ended by itself needs no refusing.
    let _ended = send.reset(code.into());
    let _ended = recv.stop(code.into());
}

/// What a publisher is made of.
pub(super) struct Publisher {
    pub(super) key: Arc<SecretKey>,
    pub(super) instance: Instance,
    pub(super) server: PeerId,
    pub(super) token: Option<String>,
    pub(super) quinn: quinn::Endpoint,
    /// Where the session has found the server.
    pub(super) reached: watch::Receiver<Option<Arc<Address>>>,
    pub(super) share: PublicShare,
    pub(super) events: mpsc::Sender<PublicEvent>,
    pub(super) rng: ChaCha12Rng,
}

/// Why a connection for visitors did not come about, or is over.
enum Lost {
    /// Trying again may help.
    Passing(String),
    /// Nobody listens any more.
    Unwanted,
}

type Streams = (quinn::SendStream, quinn::RecvStream);

impl Publisher {
    /// Keeps the share public until nobody listens to its events any more.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let Some(address) = self.address().await else { return };
            let outcome = match self.connect(&address).await {
                Ok((connection, control)) => {
                    backoff.reset();
                    self.serve(connection, control, address).await
                }
                Err(lost) => Err(lost),
            };
            match outcome {
                // The session has found the server elsewhere, or anew.
                Ok(()) => {}
                Err(Lost::Unwanted) => return,
                Err(Lost::Passing(why)) => {
                    tracing::debug!(why, "the connection for visitors is lost");
                    let delay = backoff.next_delay(&mut self.rng);
                    tokio::select! {
                        biased;
                        () = self.events.closed() => return,
                        changed = self.reached.changed() => if changed.is_err() { return },
                        () = sleep(delay) => {}
                    }
                }
            }
        }
    }

    /// Where the server is now, as soon as that is known.
    async fn address(&mut self) -> Option<Arc<Address>> {
        let reached = self.reached.wait_for(Option::is_some);
        let reached = tokio::select! {
            biased;
            () = self.events.closed() => return None,
            reached = reached => reached.ok()?.clone(),
        };
        self.reached.mark_unchanged();
        reached
    }

    async fn connect(&self, address: &Address) -> Result<(quinn::Connection, Streams), Lost> {
        let passing = |error: &dyn std::fmt::Display| Lost::Passing(error.to_string());
        let mut config = quinn::ClientConfig::new(Arc::new(tls::client_config(&self.key, self.server, ALPN)));
        let mut transport = quic::visitors_transport();
        transport.congestion_controller_factory(Arc::new(PerPath::new(address.epoch())));
        config.transport_config(Arc::new(transport));
        let connecting = self
            .quinn
            .connect_with(config, address.addr(), tls::SERVER_NAME)
            .map_err(|error| passing(&error))?;
        let connection = match timeout(ANSWER, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                if let Some(failure) = HandshakeFailure::of(&error) {
                    self.tell(PublicEvent::NoGateway(failure.to_string())).await?;
                }
                return Err(passing(&error));
            }
            Err(_) => return Err(Lost::Passing("the server did not answer in time".into())),
        };
        let (mut send, recv) = connection.open_bi().await.map_err(|error| passing(&error))?;
        let hello = ToGateway::Hello { version: VERSION, instance: self.instance, token: self.token.clone() };
        let publish = ToGateway::Publish(self.publication(&connection)?);
        let first = [wire::frame(&hello), wire::frame(&publish)].concat();
        send.write_all(&first).await.map_err(|error| passing(&error))?;
        Ok((connection, (send, recv)))
    }

    fn publication(&self, connection: &quinn::Connection) -> Result<Publication, Lost> {
        let mut nonce = [0; 32];
        connection
            .export_keying_material(&mut nonce, EXPORTER_LABEL, b"")
            .map_err(|_| Lost::Passing("no exporter".into()))?;
        let PublicShare { share, name, keep, host, access } = self.share.clone();
        let claim = Publication::new(&self.key, &self.server, &nonce, share, &name);
        Ok(Publication { keep, host, access, ..claim })
    }

    async fn tell(&self, event: PublicEvent) -> Result<(), Lost> {
        self.events.send(event).await.map_err(|_| Lost::Unwanted)
    }

    /// Takes visitors until the connection is lost, or the session has gone elsewhere.
    async fn serve(
        &mut self,
        connection: quinn::Connection,
        (send, mut recv): Streams,
        address: Arc<Address>,
    ) -> Result<(), Lost> {
        let (share, events) = (self.share.share, self.events.clone());
        let (active, idle) = mpsc::channel(1);
        let door = tokio::spawn(admit(connection.clone(), share, events.clone(), active)).abort_handle();
        let open = Open { connection, door, idle, _control: send, _address: address };
        let broken = |error: &dyn std::fmt::Display| Lost::Passing(error.to_string());
        loop {
            let message = tokio::select! {
                biased;
                () = events.closed() => return Err(Lost::Unwanted),
                changed = self.reached.changed() => {
                    if changed.is_err() {
                        return Err(Lost::Unwanted);
                    }
                    tokio::spawn(open.retire());
                    return Ok(());
                }
                message = frames::read::<FromGateway>(&mut recv) => message.map_err(|error| broken(&error))?,
            };
            match message {
                FromGateway::Published { url, .. } => self.tell(PublicEvent::Published(url)).await?,
                FromGateway::Displaced { .. } => self.tell(PublicEvent::Displaced).await?,
                FromGateway::Refused { reason, .. } => {
                    self.tell(PublicEvent::Refused(reason)).await?;
                    return Err(Lost::Passing("the server does not publish the share".into()));
                }
            }
        }
    }
}

/// A connection for visitors, and all that keeps it.
struct Open {
    connection: quinn::Connection,
    door: AbortHandle,
    /// Gone when no exchange is under way.
    idle: mpsc::Receiver<Infallible>,
    /// Its end would be the end of the conversation.
    _control: quinn::SendStream,
    _address: Arc<Address>,
}

impl Open {
    /// Ends it, but not before the exchanges that are under way. Whoever comes in the moment in which the server
    /// does not know of a newer connection yet is let in here.
    async fn retire(mut self) {
        sleep(OVERLAP).await;
        self.door.abort();
        let _idle = self.idle.recv().await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.door.abort();
        self.connection.close(close::DONE.into(), b"");
    }
}

/// Lets the streams of visitors in, for as long as the connection is there.
async fn admit(
    connection: quinn::Connection,
    share: ShareId,
    events: mpsc::Sender<PublicEvent>,
    active: mpsc::Sender<Infallible>,
) {
    let room = Arc::new(Semaphore::new(QUEUE));
    while let Ok((send, mut recv)) = connection.accept_bi().await {
        // Who says whom it is for late holds one of these places, and no more.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let (events, active) = (events.clone(), active.clone());
        tokio::spawn(async move {
            let head = timeout(HEAD, frames::read::<Visitor>(&mut recv)).await;
            drop(place);
            let Ok(Ok(Visitor { version: VERSION, share: wanted, address, scheme, host })) = head else {
                return refuse(send, recv, close::PROTOCOL);
            };
            // Whatever the server says: only what this process shows is there for visitors.
            if wanted != share {
                return refuse(send, recv, close::NOT_PUBLIC);
            }
            let exchange = Exchange { address, scheme, host, send, recv, _active: active };
            if let Err(mpsc::error::SendError(PublicEvent::Exchange(exchange))) =
                events.send(PublicEvent::Exchange(exchange)).await
            {
                exchange.refuse(close::NOT_PUBLIC);
            }
        });
    }
}
