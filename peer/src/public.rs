//! Visitors from the gateway: their exchanges with the local server, and who they are.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::tunnel::access::{Access, MAX_ALLOWED, Password};
use proto::wire::gateway::{NotPublished, close};
use relay::net::Net;
use relay::program::{Code, Failure, Report};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::cli::{self, HostHeader};
use crate::endpoint::{Exchange, PublicEvent, PublicShare};
use crate::forward::{Counters, forward};
use crate::store::StoredShare;
use crate::target::TcpTarget;

/// Exchanges at once, WebSockets included. Each has a socket.
const MAX_EXCHANGES: usize = 12_000;

/// Visitors that are told of by their address.
const MAX_GUESTS: usize = 4096;

/// How long a visitor may be without an exchange and still be here: a browser loads a page in many.
const LINGER: Duration = Duration::from_secs(2);

/// What `peer share` is told of its public side.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Browsers find the share at this URL.
    Published(String),
    /// They do not, for this reason.
    Refused(Failure),
    /// They are served by another process.
    Displaced,
}

/// The public side of a share.
pub(crate) struct Public {
    pub(crate) target: TcpTarget,
    pub(crate) net: Arc<dyn Net>,
    pub(crate) report: Report,
    pub(crate) name: String,
    guests: Mutex<BTreeMap<IpAddr, Guest>>,
    /// The local server was told of as gone.
    gone: AtomicBool,
}

/// A visitor, as far as its address tells one from another.
#[derive(Debug)]
struct Guest {
    exchanges: usize,
    since: Instant,
    /// When the last exchange ended.
    left: Instant,
    bytes: (u64, u64),
}

#[derive(Serialize)]
struct GuestFields {
    peer_id: Option<()>,
    via: &'static str,
    from: IpAddr,
    state: &'static str,
    bytes_in: u64,
    bytes_out: u64,
}

/// How the first target is shown to the world, where it is.
pub(crate) fn describe(args: &cli::Share, stored: &StoredShare) -> Result<Option<PublicShare>, Failure> {
    if !args.public {
        let idle = [
            ("--host-header", args.host_header.is_some()),
            ("--auth", args.auth.is_some()),
            ("--allow-ip", !args.allow_ip.is_empty()),
        ];
        if let Some((option, _)) = idle.into_iter().find(|(_, given)| *given) {
            let text = format!("{option} concerns public visitors, and there are none; add --public");
            return Err(Failure::new(Code::Usage, "usage", text));
        }
        return Ok(None);
    }
    let Some(target) = args.targets.first() else { return Ok(None) };
    if args.allow_ip.len() > MAX_ALLOWED {
        let text = format!("--allow-ip can be given {MAX_ALLOWED} times; write larger networks");
        return Err(Failure::new(Code::Usage, "usage", text));
    }
    let share = stored.share_id();
    let password = args.auth.as_ref().map(|auth| Password::new(&share, auth.reveal()));
    let host = match &args.host_header {
        Some(HostHeader::Preserve) => None,
        Some(HostHeader::Is(host)) => Some(host.clone()),
        None => Some(target.to_string()),
    };
    Ok(Some(PublicShare {
        share,
        name: stored
            .public_name
            .clone()
            .filter(|_| args.name.is_none())
            .unwrap_or_else(|| stored.name.clone()),
        keep: !args.ephemeral,
        host,
        access: Access::new(args.allow_ip.clone(), password),
    }))
}

/// The code by which the gateway is told that the local server has no connection for a visitor.
fn why_not_reached(error: &io::Error) -> u32 {
    if error.kind() == io::ErrorKind::TimedOut { close::TARGET_SILENT } else { close::TARGET_REFUSED }
}

impl Public {
    pub(crate) fn new(target: TcpTarget, net: Arc<dyn Net>, report: Report, name: String) -> Self {
        Self { target, net, report, name, guests: Mutex::default(), gone: AtomicBool::new(false) }
    }

    /// Serves visitors, and passes on what else becomes of the share.
    pub(crate) async fn serve(
        self: Arc<Self>,
        mut events: mpsc::Receiver<PublicEvent>,
        notices: mpsc::Sender<Notice>,
    ) {
        let room = Arc::new(Semaphore::new(MAX_EXCHANGES));
        while let Some(event) = events.recv().await {
            let notice = match event {
                PublicEvent::Exchange(exchange) => {
                    let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                        exchange.refuse(close::BUSY);
                        continue;
                    };
                    let this = Arc::clone(&self);
                    tokio::spawn(async move {
                        this.exchange(exchange).await;
                        drop(place);
                    });
                    continue;
                }
                PublicEvent::Published(url) => Notice::Published(url),
                PublicEvent::Displaced => Notice::Displaced,
                PublicEvent::Refused(why) => Notice::Refused(self.refusal(&why)),
                PublicEvent::NoGateway(why) => Notice::Refused(Failure::failed(
                    "no-gateway",
                    format_args!(
                        "the server has no gateway ({why}); leave out --public, or use another server"
                    ),
                )),
            };
            if notices.send(notice).await.is_err() {
                return;
            }
        }
    }

    async fn exchange(self: &Arc<Self>, exchange: Exchange) {
        let local = match self.target.connect(&*self.net).await {
            Ok(local) => local,
            Err(error) => {
                if !self.gone.swap(true, Ordering::Relaxed) {
                    self.report.warning(format_args!("{} does not accept visitors: {error}", self.target));
                }
                return exchange.refuse(why_not_reached(&error));
            }
        };
        self.gone.store(false, Ordering::Relaxed);
        let from = exchange.address;
        self.came(from);
        let counters = Counters::default();
        // The rest of the exchange is what says that it is under way.
        let _ended = forward(local, exchange.send, exchange.recv, &counters).await;
        self.left(from, counters.read());
    }

    fn guests(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, Guest>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn came(self: &Arc<Self>, from: IpAddr) {
        let now = Instant::now();
        let mut guests = self.guests();
        if let Some(guest) = guests.get_mut(&from) {
            guest.exchanges += 1;
            return;
        }
        if guests.len() >= MAX_GUESTS {
            return;
        }
        guests.insert(from, Guest { exchanges: 1, since: now, left: now, bytes: (0, 0) });
        drop(guests);
        self.tell(from, "open", (0, 0));
        self.report.line(format_args!("A visitor from {from} came."));
        tokio::spawn(Arc::clone(self).see_off(from));
    }

    fn left(&self, from: IpAddr, (bytes_in, bytes_out): (u64, u64)) {
        if let Some(guest) = self.guests().get_mut(&from) {
            guest.exchanges = guest.exchanges.saturating_sub(1);
            guest.left = Instant::now();
            guest.bytes = (guest.bytes.0 + bytes_in, guest.bytes.1 + bytes_out);
        }
    }

    /// Waits until a visitor has been without an exchange for a while, and says so.
    async fn see_off(self: Arc<Self>, from: IpAddr) {
        let mut until = Instant::now() + LINGER;
        let gone = loop {
            sleep_until(until).await;
            let mut guests = self.guests();
            let Some(guest) = guests.get(&from) else { return };
            let now = Instant::now();
            let over = guest.left + LINGER;
            if guest.exchanges == 0 && over <= now {
                break guests.remove(&from);
            }
            until = if guest.exchanges == 0 { over } else { now + LINGER };
        };
        let Some(Guest { since, left, bytes, .. }) = gone else { return };
        self.tell(from, "closed", bytes);
        let seconds = left.duration_since(since).as_secs_f64();
        self.report.line(format_args!(
            "The visitor from {from} left after {seconds:.1} s: {} bytes in, {} out.",
            bytes.0, bytes.1
        ));
    }

    fn tell(&self, from: IpAddr, state: &'static str, (bytes_in, bytes_out): (u64, u64)) {
        let fields = GuestFields { peer_id: None, via: "gateway", from, state, bytes_in, bytes_out };
        self.report.event("visitor", fields);
    }

    fn refusal(&self, why: &NotPublished) -> Failure {
        let name = &self.name;
        let (code, slug, text) = match why {
            NotPublished::InvalidName | NotPublished::Reserved => (
                Code::Failed,
                "name-reserved",
                format!("nobody can have the name {name:?} at this server; choose another with --name"),
            ),
            NotPublished::Taken => (
                Code::Failed,
                "name-taken",
                format!("the name {name:?} belongs to somebody else; choose another with --name"),
            ),
            NotPublished::TooMany(names) => (
                Code::Failed,
                "too-many-names",
                format!(
                    "this identity has as many names as the server allows ({}); use one of them with --name, or wait: \
                     each is given up 30 days after its last use",
                    names.join(", ")
                ),
            ),
            NotPublished::NotAdmitted => (
                Code::NotAuthorised,
                "not-admitted",
                "the server is private and does not know this identity; ask its operator for a token, and give it \
                 with CULVERT_TOKEN or --token @FILE"
                    .to_owned(),
            ),
            NotPublished::Busy => {
                (Code::Failed, "busy", "the server takes no new names right now; try again in a minute".to_owned())
            }
            NotPublished::NotKept => {
                (Code::Failed, "busy", "the server cannot keep the name; tell its operator".to_owned())
            }
            NotPublished::BadSignature | _ => {
                (Code::Failed, "not-published", "the server refused the name; update the older of the two".to_owned())
            }
        };
        Failure::new(code, slug, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_silent_is_told_from_one_that_refuses() {
        assert_eq!(why_not_reached(&io::ErrorKind::TimedOut.into()), close::TARGET_SILENT);
        assert_eq!(why_not_reached(&io::ErrorKind::ConnectionRefused.into()), close::TARGET_REFUSED);
    }
}
