//! **ServerHealth**: what is wrong with how a server is deployed, told to its operator.
//!
//! Most faults of a deployment show nowhere: all is relayed, and it works. The machine takes what the server sees (what its
//! name resolves to, where sessions come from and by which way, what requests carry, whether its relays answer) and says in
//! one line what is wrong, and what to do. A warning holds for as long as what it says is true; it is news when it begins to.

mod clients;
mod warning;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::candidate::{Family, canonical};
use crate::id::PeerId;
use crate::reach::{Door, Width};
use clients::Clients;
pub use warning::{Host, Warning, WarningKind};

/// A warning that comes and goes is news once in so long.
const AGAIN: Duration = Duration::from_secs(3600);

/// How many sessions by relay, while none comes by UDP, are no accident; and of how many identities.
const RELAYED: u64 = 5;
const RELAYED_IDENTITIES: usize = 2;

/// What the operator has set, as far as it matters here.
#[derive(Debug, Clone, Default)]
pub struct ServerFacts {
    /// The UDP sockets, with what is stated of them; the main one first.
    pub doors: Vec<Door>,
    /// Whether the server says by a public URL how it is reached.
    pub has_public_url: bool,
    /// Whether the HTTP side listens for this machine alone.
    pub http_on_loopback: bool,
    /// The URLs of the relays elsewhere.
    pub relays: Vec<String>,
}

/// How a session comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By UDP, from this address.
    Udp(SocketAddr),
    /// Through the server's relay.
    Relay,
}

/// What a request over HTTP tells of the deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFacts<'a> {
    /// The other end of the connection.
    pub from: IpAddr,
    /// Whether it carries X-Forwarded-For, X-Forwarded-Proto or Forwarded.
    pub is_forwarded: bool,
    /// Whether the other end is a trusted proxy.
    pub is_trusted: bool,
    /// The host that it names, if that is a name and not an address.
    pub name: Option<&'a str>,
    /// Whether it is for one of the server's own pages.
    pub is_for_server: bool,
}

/// A warning's place: its kind, and which of several.
type Slot = (WarningKind, usize);

/// The machine.
#[derive(Debug)]
pub struct ServerHealth {
    facts: ServerFacts,
    active: BTreeMap<Slot, Warning>,
    /// When each was news.
    told: BTreeMap<Slot, Instant>,
    news: VecDeque<Warning>,
    clients: Clients,
    /// Sessions by relay, and by UDP from outside.
    relayed: u64,
    by_udp: u64,
    relays: Vec<Relay>,
    own: Vec<IpAddr>,
}

/// What is known of a relay elsewhere.
#[derive(Debug, Clone, Copy, Default)]
struct Relay {
    up: Option<bool>,
    failures: u32,
}

impl ServerHealth {
    /// Of a server that starts now.
    pub fn new(facts: ServerFacts, now: Instant) -> Self {
        let relays = vec![Relay::default(); facts.relays.len()];
        let mut this = Self {
            facts,
            active: BTreeMap::new(),
            told: BTreeMap::new(),
            news: VecDeque::new(),
            clients: Clients::default(),
            relayed: 0,
            by_udp: 0,
            relays,
            own: Vec::new(),
        };
        let main = this.facts.doors.first().map(Door::bound);
        if let Some(bound) = main.filter(|bound| bound.ip().is_loopback())
            && (this.facts.has_public_url || !this.facts.http_on_loopback)
        {
            this.raise(0, Warning::UdpOnLoopback { bound }, now);
        }
        this
    }

    /// The addresses of this machine.
    pub fn handle_own(&mut self, own: &[IpAddr]) {
        self.own = own.iter().map(IpAddr::to_canonical).collect();
    }

    /// What the name by which clients come resolves to, as this machine sees it.
    pub fn handle_resolved(&mut self, host: &Host, found: &[IpAddr], now: Instant) {
        for kind in
            [WarningKind::NoAddress, WarningKind::Loopback, WarningKind::Private, WarningKind::FamilyNotBound]
        {
            self.clear((kind, 0));
        }
        let is_stated = self.facts.doors.first().is_some_and(Door::is_stated);
        if found.is_empty() {
            if is_stated {
                return;
            }
            return self.raise(0, Warning::NoAddress { host: host.clone() }, now);
        }
        let found: Vec<IpAddr> = found.iter().map(IpAddr::to_canonical).collect();
        for (v6, family) in [(false, Family::V4), (true, Family::V6)] {
            let serves = |ip: &IpAddr| self.facts.doors.first().is_some_and(|door| door.serves(*ip));
            let of_family = |ip: &&IpAddr| ip.is_ipv6() == v6 && Width::of(**ip) == Some(Width::World);
            if found.iter().find(of_family).is_some_and(|ip| !serves(ip)) {
                self.raise(0, Warning::FamilyNotBound { host: host.clone(), family }, now);
            }
        }
        self.judge_width(host, &found, now);
    }

    /// Whether the name leads anybody here who comes from outside. Clients that ask the server itself look the name up
    /// themselves, so this matters only where a URL is told that a proxy may answer, and no address is stated.
    fn judge_width(&mut self, host: &Host, found: &[IpAddr], now: Instant) {
        let Some(door) = self.facts.doors.first() else { return };
        let is_known = door.bound().ip().is_ipv4() && Width::of(door.bound().ip()) == Some(Width::World)
            || door.is_stated();
        let widest = found.iter().copied().max_by_key(|ip| Width::of(*ip));
        let (Some(ip), false) = (widest, is_known || !host.is_public_url()) else { return };
        let host = host.clone();
        match Width::of(ip) {
            Some(Width::Machine) | None => self.raise(0, Warning::Loopback { host, ip }, now),
            Some(Width::Network | Width::Carrier) => self.raise(0, Warning::Private { host, ip }, now),
            Some(Width::World) => {}
        }
    }

    /// A session has come in.
    pub fn handle_session(&mut self, peer: PeerId, way: Way, now: Instant) {
        match way {
            Way::Udp(from) => {
                let ip = canonical(from).ip();
                self.clients.came(peer, ip);
                // What this machine sends itself passes no firewall.
                if Width::of(ip) == Some(Width::World) && !self.own.contains(&ip) {
                    self.by_udp += 1;
                    self.clear((WarningKind::NoUdp, 0));
                }
                self.judge_hidden(now);
            }
            Way::Relay => {
                self.relayed += 1;
                self.clients.was_relayed(peer);
                let ports = self.facts.doors.iter().map(|door| door.bound().port()).collect();
                if self.by_udp == 0 && self.relayed >= RELAYED && self.clients.relayed() >= RELAYED_IDENTITIES
                {
                    self.raise(0, Warning::NoUdp { sessions: self.relayed, ports }, now);
                }
            }
        }
    }

    fn judge_hidden(&mut self, now: Instant) {
        let hidden = self.clients.all_at().filter(|(ip, _)| {
            matches!(Width::of(*ip), Some(Width::Network | Width::Carrier)) && !self.own.contains(ip)
        });
        match hidden {
            Some((ip, clients)) => self.raise(0, Warning::Hidden { ip, clients }, now),
            None => self.clear((WarningKind::Hidden, 0)),
        }
    }

    /// A request has come over HTTP.
    pub fn handle_request(&mut self, request: RequestFacts<'_>, now: Instant) {
        let RequestFacts { from, is_forwarded, is_trusted, name, is_for_server } = request;
        if !is_forwarded {
            return;
        }
        let is_near = matches!(Width::of(from), Some(Width::Machine | Width::Network));
        if is_near && !is_trusted {
            self.raise(0, Warning::ProxyNotTrusted { from: from.to_canonical() }, now);
        }
        if let Some(name) =
            name.filter(|_| is_for_server && !self.facts.has_public_url && (is_near || is_trusted))
        {
            self.raise(0, Warning::NoPublicUrl { name: name.to_owned() }, now);
        }
    }

    /// A client asked for the server itself under a name that is not the server's.
    pub fn handle_unknown_host(&mut self, name: &str, now: Instant) {
        self.raise(0, Warning::NotApex { name: name.to_owned() }, now);
    }

    /// A relay was asked for its identity: whether it answered as it should, or what it did instead. One that was up is
    /// away when it fails twice.
    pub fn handle_relay(&mut self, index: usize, answer: Result<(), String>, now: Instant) {
        let (Some(relay), Some(url)) = (self.relays.get_mut(index), self.facts.relays.get(index)) else {
            return;
        };
        match answer {
            Ok(()) => {
                *relay = Relay { up: Some(true), failures: 0 };
                self.clear((WarningKind::RelayAway, index));
            }
            Err(why) => {
                relay.failures += 1;
                if relay.up != Some(true) || relay.failures > 1 {
                    relay.up = Some(false);
                    let url = url.clone();
                    self.raise(index, Warning::RelayAway { url, why }, now);
                }
            }
        }
    }

    /// Of each relay, in the operator's order, whether it is up; none where it has not been asked yet.
    pub fn relays(&self) -> impl Iterator<Item = (&str, Option<bool>)> {
        self.facts.relays.iter().map(String::as_str).zip(self.relays.iter().map(|relay| relay.up))
    }

    /// Whether a relay is not known to be away.
    pub fn may_be_up(&self, index: usize) -> bool {
        self.relays.get(index).is_none_or(|relay| relay.up != Some(false))
    }

    /// The next warning that the operator has not read yet.
    pub fn poll_warning(&mut self) -> Option<Warning> {
        self.news.pop_front()
    }

    /// All that is wrong now.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.active.values()
    }

    fn raise(&mut self, index: usize, warning: Warning, now: Instant) {
        let slot = (warning.kind(), index);
        let is_due = self.told.get(&slot).is_none_or(|at| now.saturating_duration_since(*at) >= AGAIN);
        // The first of its kind is as good as the next, and a stranger may make many. But a name that a stranger made up
        // must not hide another one for ever.
        let is_another_name =
            |active: &Warning| active.asked_name().is_some_and(|name| Some(name) != warning.asked_name());
        if self.active.get(&slot).is_some_and(|active| !is_due || !is_another_name(active)) {
            return;
        }
        if is_due {
            self.told.insert(slot, now);
            self.news.push_back(warning.clone());
        }
        self.active.insert(slot, warning);
    }

    fn clear(&mut self, slot: Slot) {
        self.active.remove(&slot);
    }
}

#[cfg(test)]
mod tests;
