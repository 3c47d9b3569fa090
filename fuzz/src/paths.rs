//! What strangers, and a remote that holds the keys, do to a path agent: the bytes are a script of events,
//! and what must hold is asserted after each.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto::candidate::{Candidate, CandidateKind, canonical};
use proto::interface::Rank;
use proto::path::{CheckTransmit, LinkId, PathAgent, PathConfig, PathId, PathKind, Traffic};
use proto::proof::CheckKeys;
use proto::stun::{self, Role};
use proto::wire::signal::Username;

/// The targets here, by the names of their corpora.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[("path_agent", path_agent)];

const CONNECTOR: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const SHARER: &str = "0202020202020202020202020202020202020202020202020202020202020202";
const USERNAME: Username = Username([3; 8]);

struct World {
    agent: PathAgent,
    now: Instant,
    links: BTreeSet<LinkId>,
    sent: Vec<CheckTransmit>,
    /// The paths on which a check was answered as only the remote can.
    answered: BTreeSet<PathId>,
}

/// A connector's agent between its shell, a remote that proves the keys, and whoever else sends.
pub fn path_agent(data: &[u8]) {
    let keys = CheckKeys { username: USERNAME, connector: CONNECTOR.to_owned(), sharer: SHARER.to_owned() };
    let now = Instant::now() + Duration::from_secs(100_000);
    let mut world = World {
        agent: PathAgent::new(PathConfig::default(), Role::Connector, keys, [4; 32], now),
        now,
        links: BTreeSet::new(),
        sent: Vec::new(),
        answered: BTreeSet::new(),
    };
    let mut script = data;
    while let [event, a, b, rest @ ..] = script {
        script = world.handle(*event, *a, *b, rest);
        world.check();
    }
    world.settle();
}

/// One of a few links.
fn link(n: u8) -> LinkId {
    LinkId(u16::from(n % 4))
}

/// One of many addresses of each sort.
fn addr(n: u8) -> SocketAddr {
    let text = match n % 8 {
        0 => format!("192.168.1.{n}:4000"),
        1 => format!("[::ffff:198.51.100.{n}]:4000"),
        2 => format!("[2001:db8::{n:x}]:4000"),
        3 => format!("127.0.0.1:{}", 1000 + u16::from(n)),
        4 => format!("224.0.0.{n}:1"),
        5 => "203.0.113.9:0".to_owned(),
        6..=255 => format!("203.0.113.9:{}", 4000 + u16::from(n)),
    };
    text.parse().expect("an address")
}

impl World {
    /// Carries out one event, and returns what of the script is left.
    fn handle<'a>(&mut self, event: u8, a: u8, b: u8, rest: &'a [u8]) -> &'a [u8] {
        let path = PathId { link: link(a), remote: addr(b) };
        match event {
            0 => {
                self.now += Duration::from_millis(1) * (u32::from(a) * u32::from(b));
                self.agent.handle_timeout(self.now);
            }
            1 => {
                let kind = [PathKind::Direct, PathKind::DirectTcp, PathKind::Relay][usize::from(b % 3)];
                self.agent.add_link(link(a), kind, self.now);
                self.links.insert(link(a));
            }
            2 => {
                self.links.remove(&link(a));
                self.agent.remove_link(link(a), self.now);
            }
            3 => {
                use CandidateKind::{Host, Mapped, PeerReflexive, Reflexive};
                let kind = [Host, PeerReflexive, Mapped, Reflexive][usize::from(a % 4)];
                let rank = [Rank::Lan, Rank::Public, Rank::Overlay][usize::from(a / 4 % 3)];
                self.agent.set_rank(addr(b).ip(), rank);
                self.agent.add_candidate(Candidate { kind, addr: addr(b) }, self.now);
            }
            4 => {
                let check = stun::check_request([b; 12], USERNAME, Role::Sharer, SHARER);
                self.agent.handle_check(path, &check, self.now);
            }
            5 => self.answer(usize::from(a), None),
            6 => self.answer(usize::from(a), Some(path.remote)),
            7 => {
                let traffic = Traffic { sent: a & 1 != 0, received: a & 2 != 0 };
                let path = self.agent.route().primary.unwrap_or(path);
                self.agent.handle_traffic(path, traffic, self.now);
            }
            8 => self.agent.handle_network_change(self.now),
            9 => {
                let mut check = stun::check_request([b; 12], USERNAME, Role::Sharer, SHARER);
                let at = usize::from(a) % check.len();
                check[at] ^= b.max(1);
                self.agent.handle_check(path, &check, self.now);
            }
            _ => {
                let (datagram, rest) = rest.split_at(rest.len().min(usize::from(event)));
                self.agent.handle_check(path, datagram, self.now);
                return rest;
            }
        }
        rest
    }

    /// The remote answers one of the last checks; `elsewhere`, from another address than it went to.
    fn answer(&mut self, which: usize, elsewhere: Option<SocketAddr>) {
        let Some(check) = self.sent.iter().rev().nth(which) else { return };
        let transaction = check.payload[8..20].try_into().expect("twelve bytes");
        let answer = stun::check_answer(transaction, addr(6), CONNECTOR);
        let path = PathId { remote: elsewhere.unwrap_or(check.path.remote), ..check.path };
        if canonical(path.remote) == check.path.remote {
            self.answered.insert(check.path);
        }
        self.agent.handle_check(path, &answer, self.now);
    }

    fn check(&mut self) {
        let mut sent = 0;
        while let Some(transmit) = self.agent.poll_transmit() {
            sent += 1;
            assert!(self.links.contains(&transmit.path.link), "{:?} by a link that is gone", transmit.path);
            assert!(transmit.payload.len() <= stun::CHECK_SIZE);
            // A request's type, and not an answer's.
            if transmit.payload.starts_with(&[0, 1]) {
                self.sent.push(transmit);
            }
        }
        assert!(sent <= 4, "{sent} datagrams for one event: the pace is not kept");
        while self.agent.poll_event().is_some() {}
        let route = self.agent.route();
        for path in [route.primary, route.also].into_iter().flatten() {
            assert!(self.links.contains(&path.link), "{path:?} by a link that is gone");
            assert!(self.answered.contains(&path), "{path:?} carries data and was never proven");
        }
        assert!(route.also.is_none() || route.also != route.primary);
    }

    /// Nothing further comes: time goes on, and no timeout stays due.
    fn settle(&mut self) {
        let mut stuck = 0;
        for _ in 0..40 {
            let Some(at) = self.agent.poll_timeout() else { break };
            stuck = if at <= self.now { stuck + 1 } else { 0 };
            assert!(stuck < 20, "a timeout that stays due");
            self.now = self.now.max(at);
            self.agent.handle_timeout(self.now);
            self.check();
        }
    }
}
