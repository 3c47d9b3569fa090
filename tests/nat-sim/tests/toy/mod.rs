//! The laboratory's own self-test, never product logic: a server that introduces two hosts, and a puncher
//! that knows just enough to tell a world that works from one that doesn't. It authenticates nothing, bounds
//! nothing, and each of its remedies can be taken away.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nat_sim::kind::Kind;
use nat_sim::net::SocketId;
use nat_sim::world::{Node, Plan, Seat, Transmit, World};

const MAIN: SocketId = SocketId(0);
const REGISTER_EVERY: Duration = Duration::from_millis(500);
const PROBE_EVERY: Duration = Duration::from_millis(50);
const PRIME_WAIT: Duration = Duration::from_millis(60);

/// Which remedies a toy puncher has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Skills {
    /// Sends to the other's own addresses too.
    pub(crate) host_candidates: bool,
    /// Primes before it probes.
    pub(crate) primes: bool,
    /// Answers to the source that it observes, and not to the candidate.
    pub(crate) answers_the_source: bool,
}

impl Skills {
    pub(crate) const ALL: Self = Self { host_candidates: true, primes: true, answers_the_source: true };
}

/// Somebody at a host of a toy world.
pub(crate) enum Toy {
    Server(Server),
    Puncher(Box<Puncher>),
}

/// Tells each of two hosts the addresses of the other, and again when it learns more.
#[derive(Default)]
pub(crate) struct Server {
    guests: BTreeMap<u8, Guest>,
    out: Vec<Transmit>,
}

struct Guest {
    /// Where it is told, and from which socket.
    at: (SocketId, SocketAddr),
    seen: Vec<SocketAddr>,
    own: String,
}

pub(crate) struct Puncher {
    number: u8,
    skills: Skills,
    prime_ttl: u8,
    own: Vec<IpAddr>,
    port: u16,
    servers: Vec<SocketAddr>,
    candidates: Vec<SocketAddr>,
    next: Option<Instant>,
    has_primed: bool,
    /// It got a probe of the other, and an answer to its own.
    pub(crate) heard: bool,
    pub(crate) answered: bool,
    /// Where the other was first heard from.
    pub(crate) source: Option<SocketAddr>,
    out: Vec<Transmit>,
}

impl Toy {
    pub(crate) fn met(&self) -> bool {
        matches!(self, Self::Puncher(puncher) if puncher.heard && puncher.answered)
    }

    pub(crate) fn puncher(&self) -> &Puncher {
        match self {
            Self::Puncher(puncher) => puncher,
            Self::Server(_) => panic!("a server is no puncher"),
        }
    }
}

/// A world of the plan with toys at its hosts.
pub(crate) fn toys(plan: &Plan, skills: Skills) -> World<Toy> {
    plan.build(|seat| if seat.is_server { Toy::Server(Server::default()) } else { puncher(seat, skills) })
}

/// Runs until both `a` and `b` have met or 5 s have passed.
pub(crate) fn meets(world: &mut World<Toy>) -> bool {
    world.run_until(Duration::from_secs(5), |world| world.node("a").met() && world.node("b").met())
}

fn puncher(seat: &Seat<'_>, skills: Skills) -> Toy {
    let reaches = |server: &&SocketAddr| seat.addresses.iter().any(|ip| ip.is_ipv4() == server.is_ipv4());
    let all = &seat.servers[0];
    // The first socket of each family.
    let servers = [&all[0], &all[4]].into_iter().filter(reaches).copied().collect();
    Toy::Puncher(Box::new(Puncher {
        number: u8::try_from(seat.host.0).expect("toy worlds are small"),
        skills,
        prime_ttl: seat.kind.map_or(1, Kind::layers) + 1,
        own: seat.addresses.to_vec(),
        port: seat.port,
        servers,
        candidates: Vec::new(),
        next: Some(seat.start),
        has_primed: false,
        heard: false,
        answered: false,
        source: None,
        out: Vec::new(),
    }))
}

impl Server {
    /// A registration is the host's number and its own addresses as text.
    fn handle(&mut self, socket: SocketId, from: SocketAddr, payload: &[u8]) {
        let own = String::from_utf8_lossy(&payload[1..]).into_owned();
        let guest =
            self.guests.entry(payload[0]).or_insert(Guest { at: (socket, from), seen: Vec::new(), own });
        let is_news = !guest.seen.contains(&from);
        if is_news {
            guest.seen.push(from);
        }
        self.introduce(|whom| is_news || whom == payload[0]);
    }

    fn introduce(&mut self, is_told: impl Fn(u8) -> bool) {
        let guests: Vec<(u8, &Guest)> = self.guests.iter().map(|(number, guest)| (*number, guest)).collect();
        let [a, b] = guests.as_slice() else { return };
        for ((number, whom), (_, of)) in [(a, b), (b, a)] {
            if !is_told(*number) {
                continue;
            }
            let seen: Vec<String> = of.seen.iter().map(SocketAddr::to_string).collect();
            let payload = format!("P{}|{}", seen.join(" "), of.own).into_bytes();
            self.out.push(Transmit { socket: whom.at.0, to: whom.at.1, ttl: None, payload });
        }
    }
}

impl Puncher {
    pub(crate) fn own_endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.own[0], self.port)
    }

    fn register(&mut self) {
        for server in &self.servers {
            let own: Vec<String> =
                self.own.iter().map(|ip| SocketAddr::new(*ip, self.port).to_string()).collect();
            let payload = [vec![self.number], own.join(" ").into_bytes()].concat();
            self.out.push(Transmit { socket: MAIN, to: *server, ttl: None, payload });
        }
    }

    fn send_all(&mut self, ttl: Option<u8>) {
        for to in &self.candidates {
            self.out.push(Transmit { socket: MAIN, to: *to, ttl, payload: b"?".to_vec() });
        }
    }

    fn handle(&mut self, now: Instant, from: SocketAddr, payload: &[u8]) {
        match payload[0] {
            b'P' => {
                let text = String::from_utf8_lossy(&payload[1..]);
                let (seen, own) = text.split_once('|').expect("the toy server writes one");
                let own = if self.skills.host_candidates { own } else { "" };
                let known = seen.split_whitespace().chain(own.split_whitespace());
                let known: Vec<SocketAddr> =
                    known.map(|known| known.parse().expect("the toy server writes addresses")).collect();
                if known.iter().all(|known| self.candidates.contains(known)) {
                    return;
                }
                self.candidates = known;
                self.has_primed = false;
                self.next = Some(now);
            }
            b'?' => {
                self.heard = true;
                self.source.get_or_insert(from);
                let named = self.candidates.iter().find(|known| known.is_ipv4() == from.is_ipv4()).copied();
                if self.skills.answers_the_source && !self.candidates.contains(&from) {
                    self.candidates.push(from);
                }
                let to = if self.skills.answers_the_source { Some(from) } else { named };
                self.out.extend(to.map(|to| Transmit {
                    socket: MAIN,
                    to,
                    ttl: None,
                    payload: b"!".to_vec(),
                }));
            }
            _ => self.answered = true,
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.candidates.is_empty() {
            self.register();
            self.next = Some(now + REGISTER_EVERY);
        } else if self.skills.primes && !self.has_primed {
            self.has_primed = true;
            self.send_all(Some(self.prime_ttl));
            self.next = Some(now + PRIME_WAIT);
        } else {
            self.send_all(None);
            self.next = Some(now + PROBE_EVERY);
        }
    }
}

impl Node for Toy {
    fn handle_datagram(&mut self, now: Instant, socket: SocketId, from: SocketAddr, payload: &[u8]) {
        match self {
            Self::Server(server) => server.handle(socket, from, payload),
            Self::Puncher(puncher) => puncher.handle(now, from, payload),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Self::Puncher(puncher) = self {
            puncher.handle_timeout(now);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Server(_) => None,
            Self::Puncher(puncher) => puncher.next,
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let out = match self {
            Self::Server(server) => &mut server.out,
            Self::Puncher(puncher) => &mut puncher.out,
        };
        (!out.is_empty()).then(|| out.remove(0))
    }
}
