//! `peer share`: lets the holders of a ticket in to local services.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proto::doorman::Admission;
use proto::id::{PeerId, ShareId, TicketId};
use proto::machine::random;
use proto::name::ShareName;
use proto::proof::TicketSecret;
use proto::ticket::{ServerHint, Ticket};
use proto::tunnel::label;
use proto::wire::VERSION;
use proto::wire::peer::close;
use proto::wire::signal::RelayHint;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use relay::net::{Net, OsNet};
use relay::outbound::Outbound;
use relay::program::{Ending, Failure, Report, Shutdown};
use rendezvous::Server;
use serde::Serialize;
use tokio::sync::{Semaphore, broadcast, mpsc};

use crate::cli;
use crate::control::{self, Subject};
use crate::endpoint::{
    Endpoint, EndpointConfig, EndpointEvent, PublicShare, ShareSpec, Standing, Visit, VisitorStream,
};
use crate::error::Error;
use crate::forward::{Counters, Ended, forward};
use crate::locate::Located;
use crate::path_report;
use crate::public::{self, Notice, Public};
use crate::store::{self, Store, StoredShare};
use crate::target::TcpTarget;
use crate::{embedded, trust};

/// Visitors at once, over all connections. Each has a socket and two buffers of 64 kB.
const MAX_VISITORS: usize = 4096;

#[derive(Serialize)]
struct ReadyFields<'a> {
    ticket: &'a str,
    peer_id: String,
    name: &'a str,
    url: Option<&'a str>,
    targets: Vec<String>,
}

#[derive(Serialize)]
struct VisitorFields {
    peer_id: String,
    via: &'static str,
    state: &'static str,
    bytes_in: u64,
    bytes_out: u64,
}

/// Runs the command.
pub(crate) async fn run(args: cli::Share, report: Report, started: Instant) -> Result<Ending, Failure> {
    let shutdown = Shutdown::install().map_err(|error| Failure::failed("no-signals", error))?;
    let net: Arc<dyn Net> = Arc::new(OsNet);
    let store = Store::of_this_user()?;
    let proxy = cli::proxy()?;
    let (server, located) = match &args.server {
        Some(url) => {
            let outbound = Outbound::new(Arc::clone(&net), proxy.clone());
            let found = tokio::select! {
                found = trust::find_server(&outbound, url, &store, &report) => found?,
                reason = shutdown.requested() => return Ok(reason.into()),
            };
            (None, found)
        }
        None => {
            let (server, located) = embedded::start(&store, Arc::clone(&net))?;
            (Some(server), located)
        }
    };
    let key = if args.ephemeral { store::new_key() } else { store.identity()? };
    let Located { server: hint, relay, .. } = located;
    let config = EndpointConfig::new(Arc::new(key), hint.clone());
    let mut config = EndpointConfig { relay: relay.clone(), proxy, ..config };
    if !args.no_portmap {
        config = config.with_port_mapping();
    }
    config.token = args.token.as_ref().map(|token| token.reveal().to_owned());
    let endpoint = Endpoint::bind(config, Arc::clone(&net))?;
    let (stored, fresh) = stored_share(&args, &store)?;
    let public = public::describe(&args, &stored)?;
    let subject = Subject {
        command: "share",
        server: hint.url.clone(),
        name: Some(stored.name.clone()),
        targets: args.targets.iter().map(ToString::to_string).collect(),
        listen: Arc::default(),
    };
    let _control = control::open(&store, endpoint.clone(), subject);
    let offered = Offered {
        ticket: ticket(&stored, (hint, relay), endpoint.peer_id()).to_text(),
        name: public.as_ref().map_or_else(|| stored.name.clone(), |public| public.name.clone()),
        public,
        embedded: server.is_some(),
        report: report.clone(),
        targets: args.targets,
        endpoint: endpoint.clone(),
        net,
        started,
    };
    let serving = offered.serve(&stored, fresh);
    let ended = tokio::select! {
        failed = serving => Err(failed),
        reason = shutdown.requested() => Ok(reason),
    };
    shutdown.drained(goodbye(&endpoint, server)).await;
    Ok(ended?.into())
}

async fn goodbye(endpoint: &Endpoint, server: Option<Server>) {
    endpoint.close().await;
    if let Some(server) = server {
        server.shutdown().await;
    }
}

/// The share of these targets, as it was before or made anew, and whether its ticket is of this very run.
fn stored_share(args: &cli::Share, store: &Store) -> Result<(StoredShare, bool), Failure> {
    let targets: Vec<String> = args.targets.iter().map(ToString::to_string).collect();
    let key = args.name.as_ref().map_or_else(|| key_of(&targets), |name| format!("name {name}"));
    let nameless = args.public && args.name.is_none();
    let known = if args.ephemeral { None } else { store.share(&key)? };
    let is_over = |share: &StoredShare| share.expires.is_some_and(|at| at <= unix_now().as_secs());
    let fresh = known.as_ref().is_none_or(is_over);
    let mut share = match known {
        Some(known) if fresh => with_new_ticket(known),
        Some(known) => known,
        None => new_share(args.name.clone()),
    };
    let expires = args.expires.map(|life| unix_now().saturating_add(life).as_secs());
    let unnamed = nameless && share.public_name.is_none();
    if unnamed {
        let mut rng = ChaCha12Rng::from_seed(EndpointConfig::random_seed());
        share.public_name = Some(label::unguessable(&mut rng).to_string());
    }
    if fresh || unnamed || share.targets != targets || expires.is_some() {
        share.targets = targets;
        share.expires = expires.or(share.expires);
        if !args.ephemeral {
            store.save_share(&key, &share)?;
        }
    }
    Ok((share, fresh))
}

/// The same targets are the same share, in whatever order.
fn key_of(targets: &[String]) -> String {
    let mut sorted = targets.to_vec();
    sorted.sort_unstable();
    sorted.join(",")
}

/// The share whose ticket has expired: who held that one stays out.
fn with_new_ticket(share: StoredShare) -> StoredShare {
    let mut rng = ChaCha12Rng::from_seed(EndpointConfig::random_seed());
    StoredShare { ticket: random(&mut rng), secret: random(&mut rng), expires: None, ..share }
}

fn new_share(name: Option<ShareName>) -> StoredShare {
    let mut rng = ChaCha12Rng::from_seed(EndpointConfig::random_seed());
    let name = name.unwrap_or_else(|| ShareName::random(&mut rng));
    StoredShare {
        targets: Vec::new(),
        share: random(&mut rng),
        name: name.to_string(),
        public_name: None,
        ticket: random(&mut rng),
        secret: random(&mut rng),
        expires: None,
    }
}

fn ticket(stored: &StoredShare, (server, relay): (ServerHint, Option<RelayHint>), sharer: PeerId) -> Ticket {
    let StoredShare { share, ticket, secret, expires, .. } = stored;
    Ticket {
        version: VERSION,
        id: TicketId(*ticket),
        secret: TicketSecret::from_bytes(*secret),
        expires: *expires,
        share: ShareId(*share),
        server,
        relay,
        sharer,
    }
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// How far a share has come.
struct Progress {
    registered: bool,
    url: Option<String>,
    ready: bool,
}

async fn next(notices: &mut Option<mpsc::Receiver<Notice>>) -> Option<Notice> {
    match notices {
        Some(notices) => notices.recv().await,
        None => None,
    }
}

fn stopped() -> Failure {
    Error::Local("the endpoint has stopped".into()).into()
}

/// What is shared, and everything that serving it takes.
struct Offered {
    ticket: String,
    name: String,
    /// How it is shown to the world, where it is.
    public: Option<PublicShare>,
    embedded: bool,
    report: Report,
    targets: Vec<TcpTarget>,
    endpoint: Endpoint,
    net: Arc<dyn Net>,
    started: Instant,
}

impl Offered {
    /// Registers and serves until something ends it for good.
    async fn serve(self, stored: &StoredShare, fresh: bool) -> Failure {
        let mut events = self.endpoint.events();
        let admission = Admission { secret: stored.ticket_secret(), expires: stored.expires, fresh };
        let spec = ShareSpec {
            share: stored.share_id(),
            name: self.name.clone(),
            targets: self.targets.iter().map(TcpTarget::describe).collect(),
            tickets: vec![(stored.ticket_id(), admission)],
        };
        let visits = match self.endpoint.share(spec).await {
            Ok(visits) => visits,
            Err(error) => return error.into(),
        };
        if let Err(error) = self.endpoint.online().await {
            return error.into();
        }
        let this = Arc::new(self);
        tokio::spawn(Arc::clone(&this).receive(visits));
        let notices = this.publish();
        this.tell(&mut events, notices).await
    }

    /// Shows the first target to the world, where it is to be; what becomes of that comes out of the receiver.
    fn publish(&self) -> Option<mpsc::Receiver<Notice>> {
        let (share, target) = (self.public.clone()?, self.targets.first()?.clone());
        let (notices, receiver) = mpsc::channel(16);
        let public = Public::new(target, Arc::clone(&self.net), self.report.clone(), share.name.clone());
        tokio::spawn(Arc::new(public).serve(self.endpoint.publish(share), notices));
        Some(receiver)
    }

    /// Prints what happens.
    async fn tell(
        &self,
        events: &mut broadcast::Receiver<EndpointEvent>,
        mut notices: Option<mpsc::Receiver<Notice>>,
    ) -> Failure {
        let mut progress = Progress { registered: false, url: None, ready: false };
        let mut standing = self.endpoint.standing();
        loop {
            let gone = tokio::select! {
                event = events.recv() => self.tell_event(event, &mut progress),
                Some(notice) = next(&mut notices) => self.tell_notice(notice, &mut progress),
                changed = standing.changed() => match &*standing.borrow_and_update() {
                    Standing::Failed(error) => Some(error.clone().into()),
                    standing @ (Standing::Starting | Standing::Up | Standing::Down) => {
                        self.print_standing(standing, progress.ready);
                        changed.is_err().then(stopped)
                    }
                },
            };
            if let Some(failure) = gone {
                return failure;
            }
            if !progress.ready && progress.registered && progress.url.is_some() == self.public.is_some() {
                progress.ready = true;
                self.print_ready(progress.url.as_deref());
            }
        }
    }

    fn tell_event(
        &self,
        event: Result<EndpointEvent, broadcast::error::RecvError>,
        progress: &mut Progress,
    ) -> Option<Failure> {
        match event {
            Ok(EndpointEvent::Registered(_)) if !progress.ready => progress.registered = true,
            Ok(EndpointEvent::Registered(_)) => self.report.line("Registered again."),
            Ok(EndpointEvent::Displaced(_)) => self.report.line(
                "Another `peer share` of the same identity shares the same now: new visitors go there until it \
                 ends.",
            ),
            Ok(EndpointEvent::OfferRefused { peer, .. }) => self.report.line(format_args!(
                "{} was not let in: its ticket is not, or no longer, good here.",
                peer.short()
            )),
            Ok(EndpointEvent::Path(path)) => path_report::print(&self.report, &path, self.started),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return Some(stopped()),
        }
        None
    }

    fn tell_notice(&self, notice: Notice, progress: &mut Progress) -> Option<Failure> {
        match notice {
            Notice::Published(url) if progress.url.is_none() => progress.url = Some(url),
            Notice::Published(_) => self.report.line("Public again."),
            Notice::Displaced => {
                self.report.line("Another `peer share` of the same identity has the public visitors now.");
            }
            // Once it was public, it will be again.
            Notice::Refused(why) if progress.ready => {
                self.report.warning(format_args!("not public right now: {why}"));
            }
            Notice::Refused(why) => return Some(why),
        }
        None
    }

    fn print_standing(&self, standing: &Standing, ready: bool) {
        if *standing == Standing::Down && ready {
            self.report.line("The server is away; trying to reach it again. Direct visitors stay connected.");
        }
    }

    fn print_ready(&self, url: Option<&str>) {
        let targets: Vec<String> = self.targets.iter().map(ToString::to_string).collect();
        self.report.event(
            "ready",
            ReadyFields {
                ticket: &self.ticket,
                peer_id: self.endpoint.peer_id().to_string(),
                name: &self.name,
                url,
                targets: targets.clone(),
            },
        );
        let style = self.report.style();
        if self.embedded {
            self.report.line(
                "No server is configured, so this program runs one itself: it is reached from this machine and its \
                 LAN.",
            );
        }
        self.report.line(format_args!("Sharing {} as {}.", style.bold(targets.join(", ")), self.name));
        if let Some(url) = url {
            self.report
                .line("Any browser finds it at this address, and the server sees what they say in clear:");
            self.report.line(format_args!("\n  {}\n", style.green(url)));
        }
        self.report.line("Whoever has this line gets in; on the other machine, run");
        self.report.line(format_args!("\n  {}\n", style.green(format_args!("peer connect {}", self.ticket))));
    }

    async fn receive(self: Arc<Self>, mut visits: mpsc::Receiver<Visit>) {
        let room = Arc::new(Semaphore::new(MAX_VISITORS));
        while let Some(visit) = visits.recv().await {
            tokio::spawn(Arc::clone(&self).receive_visit(visit, Arc::clone(&room)));
        }
    }

    async fn receive_visit(self: Arc<Self>, visit: Visit, room: Arc<Semaphore>) {
        while let Some(stream) = visit.accept().await {
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                stream.refuse(close::BUSY);
                continue;
            };
            let (this, peer) = (Arc::clone(&self), visit.peer);
            tokio::spawn(async move {
                this.serve_visitor(peer, stream).await;
                drop(permit);
            });
        }
    }

    async fn serve_visitor(&self, peer: PeerId, mut stream: VisitorStream) {
        let Some(number) = stream.target().await else { return stream.refuse(close::PROTOCOL) };
        let Some(target) = self.targets.get(usize::from(number)) else {
            return stream.refuse(close::NO_SUCH_TARGET);
        };
        let local = match target.connect(&*self.net).await {
            Ok(local) => local,
            Err(error) => {
                self.report
                    .warning(format_args!("{target} does not accept a visitor of {}: {error}", peer.short()));
                return stream.refuse(close::TARGET_REFUSED);
            }
        };
        self.print_visitor(peer, "open", (0, 0), None);
        let (counters, since) = (Counters::default(), Instant::now());
        let ended = forward(local, stream.send, stream.recv, &counters).await;
        self.print_visitor(peer, "closed", counters.read(), Some((since.elapsed(), ended)));
    }

    fn print_visitor(
        &self,
        peer: PeerId,
        state: &'static str,
        (bytes_in, bytes_out): (u64, u64),
        end: Option<(Duration, Ended)>,
    ) {
        let fields = VisitorFields { peer_id: peer.to_string(), via: "peer", state, bytes_in, bytes_out };
        self.report.event("visitor", fields);
        match end {
            None => self.report.line(format_args!("{} came.", peer.short())),
            Some((time, ended)) => {
                let how = if ended == Ended::Complete { "left" } else { "was cut off" };
                self.report.line(format_args!(
                    "{} {how} after {:.1} s: {bytes_in} bytes in, {bytes_out} out.",
                    peer.short(),
                    time.as_secs_f64(),
                ));
            }
        }
    }
}
