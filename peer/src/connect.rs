//! `peer connect`: opens the ports of a ticket's share on this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use proto::machine::Backoff;
use proto::ticket::Ticket;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use relay::net::{Listener, Net, OsNet, Stream};
use relay::program::{Ending, Failure, Report, Shutdown};
use serde::Serialize;
use tokio::sync::{broadcast, watch};
use tokio::time::{sleep, timeout};

use crate::cli;
use crate::control::{self, Subject};
use crate::endpoint::{Connection, Endpoint, EndpointConfig, EndpointEvent};
use crate::error::Error;
use crate::forward::{Counters, Ended, forward};
use crate::path_report;
use crate::store::{Alias, Store};
use crate::ticket_source;
use crate::warning;

/// How long a visitor waits for a connection that is being made, or made again.
const WAIT: Duration = Duration::from_secs(30);

/// Between attempts to connect again, at first and at last.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How long the first path may take to be printed, once there is one, before what follows it is.
const PATH_TOLD: Duration = Duration::from_secs(1);

/// After a listener's error (no descriptors left, usually) it pauses, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Serialize)]
struct ReadyFields {
    peer_id: String,
    listen: Vec<SocketAddr>,
}

/// Runs the command.
pub(crate) async fn run(args: cli::Connect, report: Report, started: Instant) -> Result<Ending, Failure> {
    let shutdown = Shutdown::install().map_err(|error| Failure::failed("no-signals", error))?;
    let store = Store::of_this_user()?;
    let ticket = ticket_source::read(args.ticket, &store)?;
    let net: Arc<dyn Net> = Arc::new(OsNet);
    // Listeners come first: a port that is taken is known at once, and a visitor may come early.
    let mut listeners: Vec<Arc<dyn Listener>> = Vec::new();
    for addr in &args.listen {
        listeners.push(Arc::from(listen(&*net, *addr)?));
    }
    let key = store.identity()?;
    let config = EndpointConfig::new(Arc::new(key), ticket_source::server(&ticket, &*net));
    let mut config = EndpointConfig {
        relays: ticket.relay.iter().cloned().collect(),
        proxy: cli::proxy()?,
        paths: args.path,
        ..config
    };
    if !args.no_portmap {
        config = config.with_port_mapping();
    }
    let endpoint = Endpoint::bind(config, Arc::clone(&net))?;
    let listen = Arc::default();
    let subject = Subject {
        command: "connect",
        server: ticket.server.url.clone(),
        name: None,
        targets: Vec::new(),
        listen: Arc::clone(&listen),
    };
    let _control = control::open(&store, endpoint.clone(), subject);
    let save = args.save.map(|alias| (store, alias));
    let tunnel = Tunnel { endpoint: endpoint.clone(), ticket, save, listen, report, net, started };
    let ended = tokio::select! {
        failed = tunnel.run(listeners) => Err(failed),
        reason = shutdown.requested() => Ok(reason),
    };
    shutdown.drained(endpoint.close()).await;
    Ok(ended?.into())
}

fn listen(net: &dyn Net, addr: SocketAddr) -> Result<Box<dyn Listener>, Failure> {
    net.listen_tcp(addr).map_err(|error| {
        Failure::failed(
            "port-taken",
            format_args!("cannot listen on {addr}: {error}; choose another with --listen ADDR:PORT"),
        )
    })
}

/// Listens on the target's own port, or on a free one.
fn listen_for(net: &dyn Net, port: u16) -> Result<Box<dyn Listener>, Failure> {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match net.listen_tcp(at(port)) {
        Ok(listener) => Ok(listener),
        Err(_) => listen(net, at(0)),
    }
}

/// The way from local listeners to a share.
struct Tunnel {
    endpoint: Endpoint,
    ticket: Ticket,
    /// Under what to keep the ticket, once it has let us in.
    save: Option<(Store, Alias)>,
    /// Where it listens, for whoever asks.
    listen: Arc<OnceLock<Vec<SocketAddr>>>,
    report: Report,
    net: Arc<dyn Net>,
    started: Instant,
}

impl Tunnel {
    /// Connects, listens, and connects again whenever the connection is lost.
    async fn run(self, mut listeners: Vec<Arc<dyn Listener>>) -> Failure {
        let (told, mut is_path_told) = watch::channel(false);
        tokio::spawn(print_paths(self.endpoint.events(), self.report.clone(), self.started, told));
        let server = self.ticket.server.clone();
        tokio::spawn(warning::suspect(self.report.clone(), server, self.endpoint.standing()));
        let (current, live) = watch::channel(None);
        let given = listeners.len();
        for (number, listener) in listeners.iter().enumerate() {
            tracing::debug!(number, addr = ?listener.local_addr(), "listening before the connection");
        }
        let begun = match self.endpoint.begin(&self.ticket).await {
            Ok(begun) => begun,
            Err(error) => return warning::of_ticket(error, &self.ticket.server).into(),
        };
        // Whoever came before now need not wait to hear that we are let in: what they send follows the proof.
        let _ = current.send(Some(begun.early()));
        for (number, listener) in listeners.iter().enumerate() {
            self.open(listener, number, &live);
        }
        let mut connection = match begun.finish().await {
            Ok(connection) => connection,
            Err(error) => return error.into(),
        };
        if given > connection.targets().len() {
            return Failure::usage(format_args!(
                "--listen is given {given} times, and the share has {} target(s)",
                connection.targets().len()
            ));
        }
        if let Err(failure) = self.save_ticket() {
            return failure;
        }
        let beside = connection.is_beside();
        for target in &connection.targets()[given..] {
            // On the sharer's own machine its port is the target's, also while nothing listens there: a
            // listener of ours would be shared with itself.
            match listen_for(&*self.net, if beside { 0 } else { target.port }) {
                Ok(listener) => listeners.push(listener.into()),
                Err(failure) => return failure,
            }
        }
        // What the connection goes by was known before it was let in; another task says it.
        let _ = timeout(PATH_TOLD, is_path_told.wait_for(|told| *told)).await;
        self.print_ready(&listeners, &connection);
        let _ = current.send(Some(connection.clone()));
        for (number, listener) in listeners.iter().enumerate().skip(given) {
            self.open(listener, number, &live);
        }
        loop {
            let why = connection.closed().await;
            let _ = current.send(None);
            self.report.line(format_args!("The connection is lost ({why}); connecting again."));
            connection = match self.again().await {
                Ok(connection) => connection,
                Err(error) => return error.into(),
            };
            self.report.line("Connected again.");
            let _ = current.send(Some(connection.clone()));
        }
    }

    fn save_ticket(&self) -> Result<(), Failure> {
        let Some((store, alias)) = &self.save else { return Ok(()) };
        store.save_alias(alias, &self.ticket)?;
        self.report.line(format_args!("Saved: `peer connect {alias}` is enough from now on."));
        Ok(())
    }

    /// Takes in the visitors of a target.
    fn open(&self, listener: &Arc<dyn Listener>, number: usize, live: &watch::Receiver<Option<Connection>>) {
        let number = u16::try_from(number).unwrap_or(u16::MAX);
        tokio::spawn(accept(Arc::clone(listener), number, live.clone(), self.report.clone()));
    }

    fn print_ready(&self, listeners: &[Arc<dyn Listener>], connection: &Connection) {
        let listen: Vec<SocketAddr> =
            listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let _known = self.listen.set(listen.clone());
        let peer_id = connection.peer_id();
        for addr in &listen {
            self.report.line(format_args!(
                "{} is {} of {}.",
                self.report.style().bold(addr),
                connection.name(),
                peer_id.short()
            ));
        }
        self.report.event("ready", ReadyFields { peer_id: peer_id.to_string(), listen });
    }

    /// Tries until the sharer is back; only what no time will mend ends it.
    async fn again(&self) -> Result<Connection, Error> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut rng = ChaCha12Rng::from_seed(EndpointConfig::random_seed());
        loop {
            match self.endpoint.connect(&self.ticket).await {
                Ok(connection) => return Ok(connection),
                Err(error) if error.is_passing() => tracing::debug!(%error, "not connected yet"),
                Err(error) => return Err(error),
            }
            sleep(backoff.next_delay(&mut rng)).await;
        }
    }
}

/// Says what happens, until the endpoint is gone. `told` is raised with the first path.
async fn print_paths(
    mut events: broadcast::Receiver<EndpointEvent>,
    report: Report,
    started: Instant,
    told: watch::Sender<bool>,
) {
    while let Ok(event) = events.recv().await {
        match event {
            EndpointEvent::Path(path) => {
                path_report::print(&report, &path, started);
                told.send_replace(true);
            }
            EndpointEvent::NoUdp(cause) => warning::no_udp(&report, cause),
            EndpointEvent::Registered(_)
            | EndpointEvent::Displaced(_)
            | EndpointEvent::OfferRefused { .. } => {}
        }
    }
}

/// Takes visitors in, for ever.
async fn accept(
    listener: Arc<dyn Listener>,
    target: u16,
    live: watch::Receiver<Option<Connection>>,
    report: Report,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (live, report) = (live.clone(), report.clone());
                tokio::spawn(visit(stream, target, live, report));
            }
            Err(error) => {
                tracing::warn!(%error, "a visitor could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One visitor, from its first byte to its last.
async fn visit(stream: Stream, target: u16, mut live: watch::Receiver<Option<Connection>>, report: Report) {
    let connection = match timeout(WAIT, live.wait_for(Option::is_some)).await {
        Ok(Ok(connection)) => connection.clone(),
        Ok(Err(_)) | Err(_) => None,
    };
    let opened = match connection {
        Some(connection) => connection.open(target).await.ok(),
        None => None,
    };
    let Some((send, recv)) = opened else {
        let (reader, writer) = stream;
        drop(reader);
        return writer.abort();
    };
    let ended = forward(stream, send, recv, &Counters::default()).await;
    if let Ended::ResetByPeer(code) = ended
        && let Some(why) = refusal(code)
    {
        report.warning(format_args!("a visitor was turned away: {why}"));
    }
}

fn refusal(code: u64) -> Option<&'static str> {
    use proto::wire::peer::close;
    match u32::try_from(code).ok()? {
        close::TARGET_REFUSED => {
            Some("what is shared does not accept connections over there; is it running?")
        }
        close::NO_SUCH_TARGET => Some("the share has no such target any more"),
        close::BUSY => Some("the peer has as many visitors as it takes"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_has_the_targets_port_or_a_free_one() {
        let port = |listener: &dyn Listener| listener.local_addr().unwrap().port();
        let first = listen_for(&OsNet, 0).unwrap();
        let second = listen_for(&OsNet, port(&*first)).unwrap();
        assert_ne!(port(&*second), port(&*first), "it was taken");
        let wanted = (10_000..32_000).find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
        let third = listen_for(&OsNet, wanted.unwrap()).unwrap();
        assert_eq!(port(&*third), wanted.unwrap());
    }
}
