//! Sending several of quinn's batches as one.
//!
//! quinn hands over ten packets at once at the most, of which it has many more where a stream is full. What a batch
//! costs is mostly not its bytes: it is a system call, and the way through the system's routing, filters and
//! interfaces, which a batch goes in one piece. So a whole batch waits for the next, and no longer than until the
//! tasks that are ready have had their turn. Less than a whole one is the last for now: it never waits, and takes with
//! it what does. Nothing leaves in a burst that quinn's pacing would not have let go in the same moment.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn::AsyncUdpSocket;
use quinn::udp::{EcnCodepoint, Transmit};
use tokio::runtime::Handle;

/// Packets that quinn hands over at once where it has more (its `MAX_TRANSMIT_SEGMENTS`).
const WHOLE: usize = 10;

/// What one send may hold: a datagram of IPv4 (RFC 791, RFC 768) to the system, until it is cut into packets.
const MAX_BYTES: usize = 65_535 - 20 - 8;

/// What the packets of a batch have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    destination: SocketAddr,
    /// The one of this host's addresses that they leave from, where that is not the system's to choose.
    src_ip: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
    /// Bytes of each, but for the last.
    packet: usize,
}

/// What waits for more: whole batches of one flow.
#[derive(Debug, Default)]
struct Held {
    flow: Option<Flow>,
    contents: Vec<u8>,
    /// Its last packet is shorter than the others, and nothing may follow.
    is_ended: bool,
    /// A task will come for it.
    is_awaited: bool,
}

/// A socket that joins batches.
#[derive(Debug)]
pub(super) struct Joining {
    socket: Arc<dyn AsyncUdpSocket>,
    held: Mutex<Held>,
}

impl Joining {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Arc<Self> {
        Arc::new(Self { socket, held: Mutex::default() })
    }

    /// As [`AsyncUdpSocket::try_send`]; what it takes may leave a moment later.
    pub(super) fn try_send(self: &Arc<Self>, transmit: &Transmit<'_>) -> io::Result<()> {
        let flow = Flow::of(transmit);
        let len = transmit.contents.len();
        let is_whole = len >= WHOLE * flow.packet && len.is_multiple_of(flow.packet);
        // Locked while it is sent too: packets of one flow that pass each other look lost to QUIC.
        let mut held = self.held();
        let room = self.room(held.flow.unwrap_or(flow).packet);
        if held.takes(flow, len, room) {
            held.push(flow, transmit.contents);
            if !is_whole || held.contents.len() + len > room {
                // What the system has no room for waits for the task that comes for it.
                let _full = self.send(&mut held);
            }
            return Ok(());
        }
        if is_whole || held.flow.is_some_and(|held| held.destination == flow.destination) {
            self.send(&mut held)?;
        }
        if is_whole && 2 * len <= self.room(flow.packet) && self.is_awaited(&mut held) {
            held.push(flow, transmit.contents);
            return Ok(());
        }
        drop(held);
        self.socket.try_send(transmit)
    }

    /// Bytes of one send of such packets. Before Linux 5.16 the headers count as if they were part of one packet more.
    fn room(&self, packet: usize) -> usize {
        packet * (MAX_BYTES / packet).min(self.socket.max_transmit_segments().saturating_sub(1))
    }

    /// Has a task come for what is held, if none is on its way. Tells whether there is one.
    fn is_awaited(self: &Arc<Self>, held: &mut Held) -> bool {
        if !held.is_awaited
            && let Ok(runtime) = Handle::try_current()
        {
            held.is_awaited = true;
            runtime.spawn(Arc::clone(self).send_soon());
        }
        held.is_awaited
    }

    async fn send_soon(self: Arc<Self>) {
        tokio::task::yield_now().await;
        let mut writable = None;
        loop {
            {
                let mut held = self.held();
                if self.send(&mut held).is_ok() {
                    held.is_awaited = false;
                    return;
                }
            }
            let writable = writable.get_or_insert_with(|| Arc::clone(&self.socket).create_io_poller());
            // An error of this socket is no reason to try any less: the send will tell.
            let _ = std::future::poll_fn(|cx| writable.as_mut().poll_writable(cx)).await;
        }
    }

    /// Sends what is held, if anything is. Fails where the system has no room for it now.
    fn send(&self, held: &mut Held) -> io::Result<()> {
        let Some(flow) = held.flow else { return Ok(()) };
        let sent = self.socket.try_send(&Transmit {
            destination: flow.destination,
            ecn: flow.ecn,
            contents: &held.contents,
            segment_size: Some(flow.packet),
            src_ip: flow.src_ip,
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            // What can't be sent is lost without a word, as packets are.
            Ok(()) | Err(_) => {}
        }
        held.flow = None;
        held.is_ended = false;
        held.contents.clear();
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flow {
    fn of(transmit: &Transmit<'_>) -> Self {
        let packet = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        Self { destination: transmit.destination, src_ip: transmit.src_ip, ecn: transmit.ecn, packet }
    }
}

impl Held {
    /// Whether a batch of `len` bytes may go behind what is held, in one send of at most `room` bytes.
    fn takes(&self, flow: Flow, len: usize, room: usize) -> bool {
        let Some(held) = self.flow else { return false };
        let is_short = len == flow.packet && len < held.packet;
        let is_same = Flow { packet: held.packet, ..flow } == held;
        is_same
            && (flow.packet == held.packet || is_short)
            && !self.is_ended
            && self.contents.len() + len <= room
    }

    fn push(&mut self, flow: Flow, contents: &[u8]) {
        let flow = *self.flow.get_or_insert(flow);
        self.contents.extend_from_slice(contents);
        self.is_ended = !contents.len().is_multiple_of(flow.packet);
    }
}

#[cfg(test)]
mod tests;
