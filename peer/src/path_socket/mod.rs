//! quinn's socket over many paths.
//!
//! To quinn each remote peer is one address for ever, a random private IPv6 address made by
//! [`PathSocket::open_remote`]. What is sent to that address leaves by the remote's route, and what arrives
//! by a path that was accepted for the remote goes up as sent from that address. QUIC never sees a path
//! change.
//!
//! ```text
//!   quinn ── fd12:…:1 ──▶ route {primary, also} ──▶ link 0 (UDP)   192.0.2.7:4433
//!                                              └──▶ link 1 (relay) the peer's number there
//!   quinn ◀─ fd12:…:1 ──  accepted paths  ◀── QUIC ◀── any link ── STUN ──▶ Datagram channel
//!                              └ from nobody known: held 100 ms
//! ```
//!
//! The rules that keep quinn alive are its own, learned from its source, and each has a test here:
//!
//! - Receiving never fails, for an error would end every connection. A link that fails is left alone a while.
//! - Sending fails with `WouldBlock` only, for any other error would end the connection; what has no way is
//!   lost, as packets are. And after `WouldBlock` the connection waits for the very links that were full
//!   (`poller.rs`).
//! - Segmentation offload both ways is forwarded, and so is whether packets may be fragmented, which would
//!   switch MTU discovery off.
//! - The socket looks like an IPv6 one, or quinn refuses private addresses; local addresses are not handed
//!   up, or quinn would send from one that a later path doesn't have.
//! - What a link says about a packet is checked before it is believed: it may come from a relay.

mod hold;
mod hop;
mod inbox;
mod outbox;
mod poller;
mod stats;
mod table;

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::task::{Context, Poll, ready};

use proto::path::{LinkId, PathId, Route};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use relay::demux::{self, Class};
use relay::net::Link;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::congestion::PathEpoch;

use hold::Hold;
use hop::{Hop, Sent};
use inbox::{Inbox, Receiver};
use outbox::Outbox;
use poller::{PathPoller, Waiter};
use stats::Drops;
pub use stats::{DropReason, PathStats, Stats};
use table::Table;

/// STUN datagrams that wait for the shell. A check that is lost is sent again; one that waits long is worth
/// nothing.
const STUN_QUEUE: usize = 1024;

/// A STUN datagram that arrived on any link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// The link that it arrived on.
    pub link: LinkId,
    /// Its sender, as that link knows it.
    pub from: SocketAddr,
    /// All of it.
    pub payload: Vec<u8>,
}

/// quinn's socket over many paths. See the module's page.
pub struct PathSocket {
    table: RwLock<Table>,
    /// Counts changes of routes and links, so that no wait outlives one.
    changes: AtomicU64,
    waiters: Mutex<Vec<Weak<Waiter>>>,
    inbox: Mutex<Inbox>,
    hold: Mutex<Hold>,
    outbox: Mutex<Outbox>,
    receiver: Arc<Receiver>,
    stun: mpsc::Sender<Datagram>,
    drops: Drops,
    /// Whether the next packet is to be told of, and who waits for that.
    resting: AtomicBool,
    stirred: Notify,
}

impl PathSocket {
    /// A socket without links, and where the STUN that arrives on any of them goes. `seed` makes the remotes'
    /// addresses; it must be one that nobody can guess.
    pub fn new(seed: [u8; 32]) -> (Arc<Self>, mpsc::Receiver<Datagram>) {
        let (stun, datagrams) = mpsc::channel(STUN_QUEUE);
        let receiver = Arc::new(Receiver::default());
        let socket = Self {
            table: RwLock::new(Table::new(seed)),
            changes: AtomicU64::new(0),
            waiters: Mutex::new(Vec::new()),
            inbox: Mutex::new(Inbox::new(Arc::clone(&receiver))),
            hold: Mutex::new(Hold::default()),
            outbox: Mutex::new(Outbox::default()),
            receiver,
            stun,
            drops: Drops::default(),
            resting: AtomicBool::new(false),
            stirred: Notify::new(),
        };
        (Arc::new(socket), datagrams)
    }

    /// Adds a link, or puts another one in the place of one. quinn sizes its receive buffers once: add
    /// [`LinkId::MAIN`] before the endpoint is made.
    pub fn add_link(&self, id: LinkId, link: Arc<dyn Link>) {
        self.table_mut().add_link(id, Arc::clone(&link));
        lock(&self.inbox).add(id, link);
        self.ways_changed();
        self.receiver.wake();
    }

    /// Removes a link. Its paths are accepted no more; a route by it loses its packets until it is set again.
    pub fn remove_link(&self, id: LinkId) {
        self.table_mut().remove_link(id);
        lock(&self.inbox).remove(id);
        self.ways_changed();
        self.receiver.wake();
    }

    /// A link, to send what is not QUIC.
    pub fn link(&self, id: LinkId) -> Option<Arc<dyn Link>> {
        self.table().link(id).cloned()
    }

    /// Whether a link failed to receive when it was looked at last.
    pub fn is_failing(&self, id: LinkId) -> bool {
        lock(&self.inbox).is_failing(id)
    }

    /// A new address that stands for one remote peer; `None` when there are 4096 of them.
    pub fn open_remote(&self) -> Option<SocketAddr> {
        self.table_mut().open()
    }

    /// Forgets a remote with its route and paths.
    pub fn close_remote(&self, remote: SocketAddr) {
        self.table_mut().close(remote);
        self.ways_changed();
    }

    /// Sets the paths by which data leaves for a remote; what was sent to it in the last moment, without a
    /// path, leaves now. Tells whether there is such a remote.
    pub fn set_route(&self, remote: SocketAddr, route: Route) -> bool {
        let now = Instant::now();
        let known = self.table_mut().set_route(remote, route, now);
        if let Ok((primary, also)) = self.table().hops(remote) {
            let (waiting, lost) = lock(&self.outbox).take(remote, now);
            self.drops.add(DropReason::NoPath, lost);
            for waiting in &waiting {
                for hop in std::iter::once(&primary).chain(&also) {
                    if hop.send(&waiting.transmit(), &self.drops) == Sent::Full {
                        self.drops.add(DropReason::LinkFull, 1);
                    }
                }
            }
        }
        self.ways_changed();
        known
    }

    /// What is raised when the remote's primary path is another one; of nobody's path where there is no such
    /// remote.
    pub fn epoch(&self, remote: SocketAddr) -> PathEpoch {
        self.table().epoch(remote).unwrap_or_default()
    }

    /// Hands up what arrives by `path` as from `remote`, and what arrived by it in the last 100 ms. Tells
    /// whether there is such a remote.
    ///
    /// A path is one remote's: the last that asked has it. A remote has 16 of them: a further one displaces
    /// the one, off the route, that has been silent longest.
    pub fn accept_from(&self, remote: SocketAddr, path: PathId) -> bool {
        let now = Instant::now();
        let accepted = self.table_mut().accept(remote, path, now);
        accepted && self.hand_up_held(remote, path, now)
    }

    /// As [`Self::accept_from`], and keeps the path from every other remote that does not reserve it as well:
    /// a peer's check that seems to come from the server must not take the server's packets away.
    pub fn reserve(&self, remote: SocketAddr, path: PathId) -> bool {
        let now = Instant::now();
        let accepted = self.table_mut().reserve(remote, path, now);
        accepted && self.hand_up_held(remote, path, now)
    }

    fn hand_up_held(&self, remote: SocketAddr, path: PathId, now: Instant) -> bool {
        let released = {
            let mut hold = lock(&self.hold);
            self.drops.add(DropReason::HoldExpired, hold.expire(now));
            hold.release(path, remote)
        };
        if released {
            self.receiver.wake();
        }
        true
    }

    /// Hands up no more of what arrives by `path` as from `remote`.
    pub fn stop_accepting(&self, remote: SocketAddr, path: PathId) {
        self.table_mut().stop_accepting(remote, path);
    }

    /// What went over one path of a remote, which is accepted or on its route.
    pub fn path_stats(&self, remote: SocketAddr, path: PathId) -> Option<PathStats> {
        self.table().path_stats(remote, path)
    }

    /// From here on nothing passes, as far as anybody knows: the next packet to or from any remote ends
    /// [`Self::stirred`]. Whoever rests reads the counters after this, so that no packet falls between.
    pub fn rest(&self) {
        self.resting.store(true, Ordering::Release);
    }

    /// The counters are read in a moment anyhow: no packet is told of.
    pub fn stay_awake(&self) {
        self.resting.store(false, Ordering::Release);
    }

    /// Waits for the first packet after [`Self::rest`].
    pub async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// A packet passes.
    fn stir(&self) {
        // Mostly it is not resting, and a look costs less than a swap.
        if self.resting.load(Ordering::Acquire) && self.resting.swap(false, Ordering::AcqRel) {
            self.stirred.notify_one();
        }
    }

    /// All counters.
    pub fn stats(&self) -> Stats {
        let held = {
            let mut hold = lock(&self.hold);
            self.drops.add(DropReason::HoldExpired, hold.expire(Instant::now()));
            hold.len()
        };
        Stats { drops: self.drops.snapshot(), held, paths: self.table().stats() }
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Ends the waits for links that packets might not go by any more.
    fn ways_changed(&self) {
        // First, so that whoever begins to wait after its waiter was looked at sees it.
        self.changes.fetch_add(1, Ordering::AcqRel);
        let waiters: Vec<_> = lock(&self.waiters).iter().filter_map(Weak::upgrade).collect();
        for waiter in waiters {
            waiter.release();
        }
    }

    /// Where a packet goes. One for a remote without a path waits a moment for one; else it says why it, and
    /// how many packets with it, are lost.
    fn hops(&self, transmit: &Transmit<'_>) -> Result<(Hop, Option<Hop>), (DropReason, usize)> {
        let packets = transmit.segment_size.map_or(1, |size| transmit.contents.len().div_ceil(size.max(1)));
        match self.table().hops(transmit.destination) {
            Err(DropReason::NoPath) => {}
            found => return found.map_err(|reason| (reason, packets)),
        }
        let mut outbox = lock(&self.outbox);
        // Whoever sets a route from here on comes for the packet after it is put there.
        match self.table().hops(transmit.destination) {
            Err(DropReason::NoPath) => Err((DropReason::NoPath, outbox.push(transmit, Instant::now()))),
            found => found.map_err(|reason| (reason, packets)),
        }
    }

    /// Hands up packets whose source has been accepted since they came.
    fn take_released(&self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> usize {
        let mut hold = lock(&self.hold);
        let mut taken = 0;
        while taken < bufs.len().min(meta.len()) {
            let Some(packet) = hold.pop_released() else { break };
            let len = packet.payload.len();
            let Some(buf) = bufs[taken].get_mut(..len) else {
                self.drops.add(DropReason::Malformed, 1);
                continue;
            };
            buf.copy_from_slice(&packet.payload);
            meta[taken] = RecvMeta { addr: packet.remote, len, stride: len, ecn: packet.ecn, dst_ip: None };
            taken += 1;
        }
        taken
    }

    /// Sends each packet of one receive buffer its way, and leaves in it what goes up to quinn.
    fn sort(&self, link: LinkId, buf: &mut [u8], meta: &mut RecvMeta) {
        meta.dst_ip = None;
        if meta.len > 0 && (meta.len > buf.len() || meta.stride == 0) {
            self.drops.add(DropReason::Malformed, 1);
            meta.len = 0;
            return;
        }
        let from = meta.addr;
        demux::split(buf, meta, |class, payload| match class {
            Class::Stun => {
                let datagram = Datagram { link, from, payload: payload.to_vec() };
                if self.stun.try_send(datagram).is_err() {
                    self.drops.add(DropReason::StunOverflow, 1);
                }
            }
            Class::Other => self.drops.add(DropReason::Unknown, 1),
            Class::Quic => {}
        });
        let path = PathId { link, remote: from };
        if meta.len > 0 && !self.hand_up(path, meta) {
            self.hold(path, buf, meta);
        }
    }

    /// Gives a buffer the address of the remote that `path` is accepted for, if it is for one.
    fn hand_up(&self, path: PathId, meta: &mut RecvMeta) -> bool {
        let table = self.table();
        let Some((remote, counters)) = table.accepted(path) else { return false };
        counters.received(meta.len.div_ceil(meta.stride), meta.len);
        meta.addr = remote;
        self.stir();
        true
    }

    /// Holds the packets of a buffer, unless their path was accepted just then.
    fn hold(&self, path: PathId, buf: &[u8], meta: &mut RecvMeta) {
        let mut hold = lock(&self.hold);
        // Whoever accepts the path from here on comes for the packets after they are held.
        if self.hand_up(path, meta) {
            return;
        }
        let now = Instant::now();
        for packet in buf[..meta.len].chunks(meta.stride) {
            let cost = hold.push(now, path, meta.ecn, packet);
            self.drops.add(DropReason::HoldExpired, cost.expired);
            self.drops.add(DropReason::HoldFull, cost.crowded_out);
        }
        meta.len = 0;
    }
}

impl AsyncUdpSocket for PathSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let waiter = Arc::new(Waiter::default());
        let mut waiters = lock(&self.waiters);
        waiters.retain(|waiter| waiter.strong_count() > 0);
        waiters.push(Arc::downgrade(&waiter));
        drop(waiters);
        Box::pin(PathPoller::new(self, waiter))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let waiter = Waiter::of_sender();
        let known = self.changes();
        let packets = transmit.segment_size.map_or(1, |size| transmit.contents.len().div_ceil(size.max(1)));
        let (primary, also) = match self.hops(transmit) {
            Ok(hops) => hops,
            Err((reason, lost)) => {
                self.drops.add(reason, lost);
                return Ok(());
            }
        };
        let hops = [Some(primary), also];
        let mut full = Vec::new();
        let mut sent = false;
        for hop in hops.iter().flatten() {
            match hop.send(transmit, &self.drops) {
                Sent::Yes => sent = true,
                Sent::Full => full.push(hop.path.link),
                Sent::Refused => {}
            }
        }
        if sent {
            self.stir();
        }
        if full.is_empty() {
            return Ok(());
        }
        match waiter {
            // What one path took is on its way; the copy that another one had no room for is not waited for.
            Some(waiter) if !sent => {
                waiter.wait_for(full, known);
                Err(io::ErrorKind::WouldBlock.into())
            }
            // Or nobody will send it again: the endpoint's own packets are sent once.
            Some(_) | None => {
                self.drops.add(DropReason::LinkFull, packets * full.len());
                Ok(())
            }
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.receiver.register(cx.waker());
        let released = self.take_released(bufs, meta);
        if released > 0 {
            return Poll::Ready(Ok(released));
        }
        let (link, received) = ready!(lock(&self.inbox).poll(cx, bufs, meta, &self.drops));
        for (buf, meta) in bufs.iter_mut().zip(meta).take(received) {
            self.sort(link, buf, meta);
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        let main = self.table().link(LinkId::MAIN).and_then(|link| link.local_addr().ok());
        Ok(SocketAddr::from((Ipv6Addr::UNSPECIFIED, main.map_or(0, |addr| addr.port()))))
    }

    /// The main link's; a link that takes fewer at once gets its batches cut.
    fn max_transmit_segments(&self) -> usize {
        let table = self.table();
        let main = table.link(LinkId::MAIN).map(|link| link.max_transmit_segments());
        main.or_else(|| table.links().map(|link| link.max_transmit_segments()).min()).unwrap_or(1)
    }

    /// Enough for every link's batches.
    fn max_receive_segments(&self) -> usize {
        self.table().links().map(|link| link.max_receive_segments()).max().unwrap_or(1)
    }

    /// The main link's: what is not UDP has no fragments.
    fn may_fragment(&self) -> bool {
        let table = self.table();
        let main = table.link(LinkId::MAIN).map(|link| link.may_fragment());
        main.unwrap_or_else(|| table.links().any(|link| link.may_fragment()))
    }
}

impl fmt::Debug for PathSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathSocket").field("changes", &self.changes()).finish_non_exhaustive()
    }
}

/// Locks what no panic can leave half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
