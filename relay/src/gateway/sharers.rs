//! Sharers that serve visitors over a QUIC connection of their own: whose names they have, and a stream to
//! them for each exchange.
//!
//! Whose a name is decides [`Names`], which of an owner's connections serves it [`Lineup`].

mod conversation;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use proto::admission::Admission;
use proto::id::{PeerId, ShareId};
use proto::name::ShareName;
use proto::tunnel::access::Access;
use proto::tunnel::forward::Rewrite;
use proto::tunnel::host::Hosts;
use proto::tunnel::lineup::{Lineup, SharerKey};
use proto::tunnel::names::{Claim, Names, NamesConfig, Time};
use proto::tunnel::pool::Refusal;
use proto::tunnel::proxy::Visit;
use proto::wire::gateway::{FromGateway, Scheme, Visitor, close};
use proto::wire::{VERSION, frame};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, timeout};

use super::claims::Keeper;
use super::config::NameUrls;
use super::inbox::Inbox;
use super::places::{self, Places};
use super::stats::Counters;
use super::tunnels::Tunnels;
use super::unread::Unread;
use super::upstream::{Lent, Upstream};
use crate::net::Outgoing;
use crate::relayed::is_relayed;

/// Sharers' connections in all, of one network, and of one key: one, and one that takes its place, for a few
/// processes.
const SHARERS: usize = 10_000;
const SHARERS_OF_NETWORK: usize = SHARERS / 8;
const SHARERS_EACH: usize = 16;

/// How long a visitor waits for a stream to a sharer that has as many as it takes.
const BUSY: Duration = Duration::from_secs(5);

/// How often the names in use are noted as used.
const NOTE: Duration = Duration::from_secs(3600);

/// What sharers are told, and what they may have.
pub(crate) struct Terms {
    pub(crate) server: PeerId,
    pub(crate) hosts: Hosts,
    pub(crate) urls: NameUrls,
    pub(crate) admission: Admission,
    /// Exchanges of one share at once.
    pub(crate) exchanges: usize,
    /// How long a connection may have no share that is shown.
    pub(crate) unused: Duration,
    /// What local servers may leave unread.
    pub(crate) unread: Arc<Unread>,
}

/// All sharers.
pub(crate) struct Sharers {
    state: Mutex<State>,
    keeper: Keeper,
    terms: Terms,
    places: Arc<Places>,
    /// Names that localtunnel's clients have now.
    tunnels: Option<Arc<Tunnels>>,
    counters: Arc<Counters>,
}

struct State {
    names: Names,
    lineup: Lineup,
    lines: BTreeMap<SharerKey, Line>,
    of_peer: BTreeMap<PeerId, usize>,
    last_key: SharerKey,
}

/// One sharer's connection.
struct Line {
    peer: PeerId,
    connection: Connection,
    frames: mpsc::Sender<Vec<u8>>,
    shown: BTreeMap<ShareName, Arc<Shown>>,
}

/// A share as the world sees it.
pub(crate) struct Shown {
    pub(crate) share: ShareId,
    pub(crate) access: Access,
    rewrite: Arc<Rewrite>,
    /// Exchanges now.
    active: AtomicUsize,
}

/// Who serves a name.
pub(crate) enum Found {
    Served(Served),
    /// Somebody has the name, and is not here.
    Away,
    Nobody,
}

/// A share, and the connection that serves it.
pub(crate) struct Served {
    pub(crate) shown: Arc<Shown>,
    connection: Connection,
}

impl Served {
    /// What a connection is that this visitor gets.
    pub(crate) fn lends(&self, visit: &Visit, host: &str) -> Lent {
        Lent {
            connection: self.connection.stable_id(),
            shown: Arc::clone(&self.shown),
            client: visit.client,
            scheme: visit.scheme,
            host: host.to_owned(),
        }
    }
}

/// A connection's place among the others; dropping it gives its names' visitors to the next.
struct Seat {
    sharers: Arc<Sharers>,
    key: SharerKey,
    peer: PeerId,
    _place: places::Place,
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Sharers {
    pub(crate) fn new(
        config: NamesConfig,
        kept: Vec<(ShareName, Claim)>,
        keeper: Keeper,
        terms: Terms,
        tunnels: Option<Arc<Tunnels>>,
        counters: Arc<Counters>,
    ) -> Self {
        let state = State {
            names: Names::new(config, kept, Instant::now().into_std()),
            lineup: Lineup::default(),
            lines: BTreeMap::new(),
            of_peer: BTreeMap::new(),
            last_key: 0,
        };
        let places = Arc::new(Places::new(SHARERS, SHARERS_OF_NETWORK));
        Self { state: Mutex::new(state), keeper, terms, places, tunnels, counters }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who serves this name.
    pub(crate) fn find(&self, name: &ShareName) -> Found {
        let state = self.lock();
        let line = state.lineup.current(name).and_then(|key| state.lines.get(&key));
        if let Some((line, shown)) = line.and_then(|line| Some((line, line.shown.get(name)?))) {
            return Found::Served(Served { shown: Arc::clone(shown), connection: line.connection.clone() });
        }
        if state.names.is_claimed(name, unix_now()) { Found::Away } else { Found::Nobody }
    }

    /// Whether the name is a key's, here or away.
    pub(crate) fn is_claimed(&self, name: &ShareName) -> bool {
        self.lock().names.is_claimed(name, unix_now())
    }

    /// Connections of sharers, names that are served, and names that are somebody's.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let state = self.lock();
        (state.lines.len(), state.lineup.len(), state.names.len())
    }

    /// Notes the use of names, for ever.
    pub(crate) async fn keep_time(&self) {
        let mut tick = interval(NOTE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let mut state = self.lock();
            let (used, over) = state.names.refresh(unix_now());
            // Under the lock: a claim made behind it is noted behind it.
            self.keeper.note(used, over);
        }
    }

    fn seat(
        self: &Arc<Self>,
        peer: PeerId,
        connection: &Connection,
    ) -> Option<(Seat, mpsc::Receiver<Vec<u8>>)> {
        let (frames, queue) = mpsc::channel(256);
        let source = source(connection);
        // Of who comes from this very machine, or through the relay, no network is known.
        let placeless = source.ip().is_loopback() || is_relayed(source);
        let place = self.places.take(source.ip(), placeless).ok()?;
        let mut state = self.lock();
        let of_peer = state.of_peer.get(&peer).copied().unwrap_or(0);
        if of_peer >= SHARERS_EACH {
            return None;
        }
        state.of_peer.insert(peer, of_peer + 1);
        state.last_key += 1;
        let key = state.last_key;
        let line = Line { peer, connection: connection.clone(), frames, shown: BTreeMap::new() };
        state.lines.insert(key, line);
        Some((Seat { sharers: Arc::clone(self), key, peer, _place: place }, queue))
    }

    /// Whether a connection shows anything.
    fn shows_any(&self, key: SharerKey) -> bool {
        self.lock().lines.get(&key).is_some_and(|line| !line.shown.is_empty())
    }

    /// Whether a connection shows this name already, and from now on so.
    fn show_again(&self, key: SharerKey, name: &ShareName, shown: &Arc<Shown>) -> bool {
        let mut state = self.lock();
        let again = state.lines.get_mut(&key).and_then(|line| line.shown.get_mut(name));
        again.map(|again| *again = Arc::clone(shown)).is_some()
    }

    /// A connection has the visitors of a name.
    fn show(&self, key: SharerKey, name: &ShareName, shown: Arc<Shown>) {
        let mut state = self.lock();
        let Some(line) = state.lines.get_mut(&key) else { return };
        let share = shown.share;
        line.shown.insert(name.clone(), shown);
        let before = state.lineup.join(name, key);
        state.tell(key, &FromGateway::Published { share, url: self.terms.urls.of(name) });
        if let Some(before) = before
            && let Some(shown) = state.lines.get(&before).and_then(|line| line.shown.get(name))
        {
            let share = shown.share;
            state.tell(before, &FromGateway::Displaced { share });
        }
    }

    /// A connection has not.
    fn hide(&self, key: SharerKey, name: &ShareName) {
        let mut state = self.lock();
        if state.lines.get_mut(&key).and_then(|line| line.shown.remove(name)).is_none() {
            return;
        }
        self.passed_on(&mut state, key, name);
    }

    fn passed_on(&self, state: &mut State, key: SharerKey, name: &ShareName) {
        if let Some(heir) = state.lineup.leave(name, key)
            && let Some(shown) = state.lines.get(&heir).and_then(|line| line.shown.get(name))
        {
            let share = shown.share;
            state.tell(heir, &FromGateway::Published { share, url: self.terms.urls.of(name) });
        }
        if let Some(claim) = state.names.release(name, unix_now()) {
            self.keeper.note(vec![(name.clone(), claim)], Vec::new());
        }
    }

    fn time() -> Time {
        Time { now: Instant::now().into_std(), unix: unix_now() }
    }
}

impl State {
    /// One that does not listen is as good as gone, and its connection says so by itself.
    fn tell(&self, key: SharerKey, message: &FromGateway) {
        if let Some(line) = self.lines.get(&key) {
            let _full = line.frames.try_send(frame(message));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.sharers.lock();
        let Some(line) = state.lines.remove(&self.key) else { return };
        match state.of_peer.get_mut(&line.peer) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(state.of_peer.remove(&line.peer)),
        }
        for name in line.shown.keys() {
            self.sharers.passed_on(&mut state, self.key, name);
        }
    }
}

impl Sharers {
    /// A stream to the sharer's local server, for an exchange of this visitor.
    pub(crate) async fn borrow(
        &self,
        Served { shown, connection }: Served,
        lent: Lent,
    ) -> Result<Upstream, Refusal> {
        let place = Place::take(&shown, self.terms.exchanges).ok_or(Refusal::Busy)?;
        let opened = timeout(BUSY, connection.open_bi()).await.map_err(|_| Refusal::Busy)?;
        let (send, recv) = opened.map_err(|_| Refusal::Away)?;
        let scheme = if lent.scheme == "https" { Scheme::Https } else { Scheme::Http };
        let visitor = Visitor {
            version: VERSION,
            share: shown.share,
            address: lent.client,
            scheme,
            host: lent.host.clone(),
        };
        let given_up = Arc::new(AtomicBool::new(false));
        let incoming = Incoming { recv, given_up: Arc::clone(&given_up) };
        Ok(Upstream {
            inbox: Inbox::new(Box::new(incoming)),
            write: Box::new(self.terms.unread.bounded(Box::new(ToSharer { send, given_up }))),
            before: frame(&visitor),
            rewrite: Arc::clone(&shown.rewrite),
            lent: Some(lent),
            has_stayed: false,
            hold: Box::new(place),
        })
    }
}

/// Whether so many of the exchanges that a share may have are taken that none is left to what only waits.
pub(crate) fn is_crowded(shown: &Shown, exchanges: usize) -> bool {
    shown.active.load(Ordering::Relaxed) > exchanges / 2
}

/// One exchange's place among those of its share.
struct Place(Arc<Shown>);

impl Place {
    fn take(shown: &Arc<Shown>, all: usize) -> Option<Self> {
        let place = Self(Arc::clone(shown));
        (shown.active.fetch_add(1, Ordering::Relaxed) < all).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What comes from a sharer. Its end says whether the exchange was over or was given up.
struct Incoming {
    recv: RecvStream,
    given_up: Arc<AtomicBool>,
}

impl AsyncRead for Incoming {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.recv), cx, buf)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let code = if self.given_up.load(Ordering::Relaxed) { close::RESET } else { close::DONE };
        // One that has ended can't be stopped, and need not be.
        let _ended = self.recv.stop(VarInt::from_u32(code));
    }
}

/// The way to a sharer.
struct ToSharer {
    send: SendStream,
    given_up: Arc<AtomicBool>,
}

impl AsyncWrite for ToSharer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
}

impl Outgoing for ToSharer {
    fn abort(mut self: Box<Self>) {
        self.given_up.store(true, Ordering::Relaxed);
        let _ended = self.send.reset(VarInt::from_u32(close::RESET));
    }
}

/// The address of a connection's other end.
fn source(connection: &Connection) -> SocketAddr {
    crate::net::canonical(connection.remote_address())
}
