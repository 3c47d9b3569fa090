//! What happened in a world, with times since its start, and a hash over all of it.
//!
//! The hash is always kept; the entries only when the story is wanted, because a run of 100 000 worlds
//! needs only those that failed, and replays them from their seeds. Hashes compare runs of one build of this
//! program: they are no format.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::time::Duration;

use crate::link::Cut;
use crate::nat::{Refused, Why};
use crate::net::{HostId, RouterId, SocketId};

/// Why a packet got no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Undelivered {
    /// Its TTL ran out at a router of a home or a carrier.
    TtlAt(RouterId),
    /// Its TTL ran out in the public core.
    TtlInCore,
    /// Nothing has its destination, or the network that it is on has no way there.
    NoRoute,
    /// A router's firewall keeps its LANs apart.
    Isolated(RouterId),
    /// A NAT or firewall refused it.
    Refused(RouterId, Refused),
    /// A wire lost it.
    Cut(Cut),
    /// No socket of the host has its destination.
    NoSocket(HostId),
}

/// One event. Packets are numbered in the order in which they were sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum What {
    /// A host sent a packet.
    Sent {
        /// Its number.
        packet: u64,
        /// Who sent it.
        host: HostId,
        /// From which socket.
        socket: SocketId,
        /// Source.
        src: SocketAddr,
        /// Destination.
        dst: SocketAddr,
        /// Hops it may take.
        ttl: u8,
        /// Payload size.
        bytes: usize,
    },
    /// A router rewrote a packet.
    Translated {
        /// Its number.
        packet: u64,
        /// By which router.
        router: RouterId,
        /// Source after it.
        src: SocketAddr,
        /// Destination after it.
        dst: SocketAddr,
    },
    /// A host's socket got a packet.
    Delivered {
        /// Its number.
        packet: u64,
        /// Who got it.
        host: HostId,
        /// On which socket.
        socket: SocketId,
    },
    /// A packet got no further.
    Dropped {
        /// Its number.
        packet: u64,
        /// Why.
        why: Undelivered,
    },
    /// A node said something.
    Note {
        /// Whose node.
        host: HostId,
        /// What.
        text: String,
    },
    /// The world changed under its hosts.
    Fault(String),
}

/// An event and when it happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Since the start of the world.
    pub at: Duration,
    /// The event.
    pub what: What,
}

/// The log of one world.
#[derive(Debug, Clone)]
pub struct Log {
    hash: Fingerprint,
    entries: Option<Vec<Entry>>,
}

impl Log {
    /// An empty log that keeps its entries only if the `story` is wanted.
    #[must_use]
    pub fn new(story: bool) -> Self {
        Self { hash: Fingerprint::default(), entries: story.then(Vec::new) }
    }

    /// Adds an event. `payload` goes into the hash and not into the story.
    pub fn record(&mut self, at: Duration, what: What, payload: &[u8]) {
        let entry = Entry { at, what };
        entry.hash(&mut self.hash);
        self.hash.write(payload);
        if let Some(entries) = &mut self.entries {
            entries.push(entry);
        }
    }

    /// The hash over everything so far.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.hash.finish()
    }

    /// The events; none when the story is not kept.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        self.entries.as_deref().unwrap_or_default()
    }
}

/// Names for a story: by number where a name is missing.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// Of the hosts, in order.
    pub hosts: &'a [String],
    /// Of the routers, in order.
    pub routers: &'a [String],
}

impl Names<'_> {
    fn host(&self, id: HostId) -> &str {
        self.hosts.get(id.0).map_or("?", String::as_str)
    }

    fn router(&self, id: RouterId) -> &str {
        self.routers.get(id.0).map_or("?", String::as_str)
    }

    fn why(&self, why: &Undelivered) -> String {
        match why {
            Undelivered::TtlAt(router) => format!("TTL ran out at {}", self.router(*router)),
            Undelivered::TtlInCore => "TTL ran out in the core".to_owned(),
            Undelivered::NoRoute => "no route".to_owned(),
            Undelivered::Isolated(router) => format!("{} keeps its LANs apart", self.router(*router)),
            Undelivered::Refused(router, refused) => {
                format!("{}: {}", self.router(*router), refusal(refused.why))
            }
            Undelivered::Cut(Cut::Lost) => "lost on the wire".to_owned(),
            Undelivered::Cut(Cut::QueueFull) => "the wire's queue is full".to_owned(),
            Undelivered::Cut(Cut::TooBig) => "larger than the MTU".to_owned(),
            Undelivered::NoSocket(host) => format!("{} has no such socket", self.host(*host)),
        }
    }

    /// One line of a story.
    #[must_use]
    pub fn line(&self, entry: &Entry) -> String {
        let what = match &entry.what {
            What::Sent { packet, host, socket, src, dst, ttl, bytes } => {
                let host = self.host(*host);
                format!("#{packet} {host}/{} sends {bytes} B, TTL {ttl}: {src} → {dst}", socket.0)
            }
            What::Translated { packet, router, src, dst } => {
                format!("#{packet}   {}: {src} → {dst}", self.router(*router))
            }
            What::Delivered { packet, host, socket } => {
                format!("#{packet}   reaches {}/{}", self.host(*host), socket.0)
            }
            What::Dropped { packet, why } => format!("#{packet}   dropped: {}", self.why(why)),
            What::Note { host, text } => format!("{}: {text}", self.host(*host)),
            What::Fault(text) => format!("*** {text}"),
        };
        format!("{:>12.3} ms  {what}", entry.at.as_secs_f64() * 1e3)
    }
}

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hosts {}; routers {}", self.hosts.join(", "), self.routers.join(", "))
    }
}

fn refusal(why: Why) -> &'static str {
    match why {
        Why::UdpBlocked => "passes no UDP",
        Why::NoExternalAddress => "has no address of this family",
        Why::NoPort => "has no port left",
        Why::TableFull => "its table is full",
        Why::NoHairpin => "has no hairpin",
        Why::NoBinding => "no such binding",
        Why::Filtered => "the filter refuses it",
        Why::Stranger => "an earlier probe took the reply tuple",
    }
}

/// A hasher that gives the same number in each run, which the standard one does not promise. Not for
/// hostile input.
#[derive(Debug, Clone)]
struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(texts: &[&str], payload: &[u8]) -> u64 {
        let mut log = Log::new(false);
        for text in texts {
            log.record(Duration::ZERO, What::Fault((*text).to_owned()), payload);
        }
        log.fingerprint()
    }

    #[test]
    fn the_fingerprint_sees_order_text_and_payload() {
        assert_eq!(hash_of(&["one", "two"], &[1]), hash_of(&["one", "two"], &[1]));
        assert_ne!(hash_of(&["one", "two"], &[1]), hash_of(&["two", "one"], &[1]));
        assert_ne!(hash_of(&["one", "two"], &[1]), hash_of(&["one", "two"], &[2]));
    }

    #[test]
    fn the_fingerprint_does_not_depend_on_whether_the_story_is_kept() {
        let run = |story| {
            let mut log = Log::new(story);
            log.record(Duration::from_millis(3), What::Fault("reboot".to_owned()), &[]);
            (log.fingerprint(), log.entries().len())
        };
        assert_eq!(run(true).0, run(false).0);
        assert_eq!((run(true).1, run(false).1), (1, 0));
    }

    #[test]
    fn a_line_tells_the_virtual_time_and_the_names() {
        let names = Names { hosts: &["a".to_owned()], routers: &["a's router".to_owned()] };
        let why = Undelivered::TtlAt(RouterId(0));
        let entry = Entry { at: Duration::from_micros(1_500), what: What::Dropped { packet: 7, why } };
        assert_eq!(names.line(&entry), "       1.500 ms  #7   dropped: TTL ran out at a's router");
    }
}
