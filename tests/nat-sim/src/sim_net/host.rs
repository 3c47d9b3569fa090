//! What sits at a host of the world: the sockets that the libraries above have opened.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::sync::watch;

use super::lock;
use crate::net::{HostId, SocketId};
use crate::world::{Node, Seat, Transmit};

/// What a socket holds for a reader that is late; more is dropped, as by a system's receive buffer.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// The sockets of one host.
#[derive(Debug)]
pub struct SimHost {
    host: HostId,
    sockets: BTreeMap<SocketId, (SocketAddr, Arc<Inbox>)>,
    last: u16,
    closing: VecDeque<SocketId>,
    /// Counts how often its addresses have changed.
    changes: watch::Sender<u64>,
    tape: Arc<Tape>,
}

/// What has reached a socket and was not read yet.
#[derive(Debug, Default)]
pub(super) struct Inbox(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    bytes: usize,
    reader: Option<Waker>,
}

/// The record of all datagrams, and whom those that arrived are to wake once nothing is locked.
#[derive(Debug)]
pub(super) struct Tape {
    hash: Mutex<DefaultHasher>,
    sleepers: Mutex<Vec<Waker>>,
    start: Instant,
}

impl Default for Tape {
    fn default() -> Self {
        Self { hash: Mutex::default(), sleepers: Mutex::default(), start: super::now() }
    }
}

impl Tape {
    /// Records a datagram that left a host (`out`) or reached one.
    pub(super) fn record(
        &self,
        at: Instant,
        out: bool,
        (host, socket): (HostId, SocketId),
        far: SocketAddr,
        bytes: usize,
    ) {
        let at = at.saturating_duration_since(self.start);
        (at, out, host, socket, far, bytes).hash(&mut *lock(&self.hash));
    }

    pub(super) fn fingerprint(&self) -> u64 {
        lock(&self.hash).finish()
    }

    /// Wakes whoever has something to read.
    pub(super) fn wake(&self) {
        let sleepers = std::mem::take(&mut *lock(&self.sleepers));
        sleepers.into_iter().for_each(Waker::wake);
    }
}

impl Inbox {
    /// Adds a datagram, and returns whom to wake.
    fn push(&self, from: SocketAddr, payload: &[u8]) -> Option<Waker> {
        let mut queue = lock(&self.0);
        if queue.bytes + payload.len() > RECEIVE_BUFFER {
            return None;
        }
        queue.bytes += payload.len();
        queue.datagrams.push_back((from, payload.to_vec()));
        queue.reader.take()
    }

    /// The next datagrams, `most` of them; whoever finds none is woken by the next.
    pub(super) fn poll(&self, cx: &mut Context<'_>, most: usize) -> Poll<Vec<(SocketAddr, Vec<u8>)>> {
        let mut queue = lock(&self.0);
        if queue.datagrams.is_empty() {
            queue.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = most.min(queue.datagrams.len());
        let taken: Vec<_> = queue.datagrams.drain(..count).collect();
        queue.bytes -= taken.iter().map(|(_, payload)| payload.len()).sum::<usize>();
        Poll::Ready(taken)
    }
}

impl SimHost {
    /// An empty host. The sockets that every world has opened for its nodes are closed again.
    pub(super) fn new(seat: &Seat<'_>, tape: Arc<Tape>) -> Self {
        let opened = if seat.is_server { seat.servers.first().map_or(0, Vec::len) } else { 1 };
        let closing = (0..).take(opened).map(SocketId).collect();
        let (sockets, changes) = (BTreeMap::new(), watch::Sender::default());
        Self { host: seat.host, sockets, last: 0, closing, changes, tape }
    }

    /// A number for a socket at `local`, unless another one is there.
    pub(super) fn vacant(&mut self, local: SocketAddr) -> io::Result<SocketId> {
        let clashes = |bound: &SocketAddr| {
            let any = bound.ip().is_unspecified() || local.ip().is_unspecified();
            bound.port() == local.port() && (any || bound.ip() == local.ip())
        };
        if self.sockets.values().any(|(bound, _)| clashes(bound)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let free = (0..=u16::MAX).map(|n| self.last.wrapping_add(1).wrapping_add(n)).map(SocketId);
        let mut free = free.filter(|id| !self.sockets.contains_key(id));
        let id = free.next().ok_or(io::ErrorKind::OutOfMemory)?;
        self.last = id.0;
        Ok(id)
    }

    /// Takes a socket's datagrams from here on.
    pub(super) fn receive_at(&mut self, id: SocketId, bound: SocketAddr) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::default());
        self.sockets.insert(id, (bound, Arc::clone(&inbox)));
        inbox
    }

    /// Whether a socket is open.
    pub(super) fn has(&self, id: SocketId) -> bool {
        self.sockets.contains_key(&id)
    }

    /// Counts how often its addresses have changed.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// How many want to know of changes.
    pub(super) fn watched(&self) -> usize {
        self.changes.receiver_count()
    }

    /// Closes every socket.
    pub(super) fn close_all(&mut self) {
        self.closing.extend(std::mem::take(&mut self.sockets).into_keys());
    }

    /// Closes a socket, if it is open.
    pub(super) fn close(&mut self, id: SocketId) {
        if self.sockets.remove(&id).is_some() {
            self.closing.push_back(id);
        }
    }
}

impl Node for SimHost {
    fn handle_datagram(&mut self, now: Instant, socket: SocketId, from: SocketAddr, payload: &[u8]) {
        self.tape.record(now, false, (self.host, socket), from, payload.len());
        let Some((bound, inbox)) = self.sockets.get(&socket) else { return };
        if bound.is_ipv4() && from.is_ipv6() {
            return;
        }
        if let Some(reader) = inbox.push(from, payload) {
            lock(&self.tape.sleepers).push(reader);
        }
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn handle_network_change(&mut self, _now: Instant, _addresses: &[IpAddr]) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }

    fn poll_close(&mut self) -> Option<SocketId> {
        self.closing.pop_front()
    }
}
