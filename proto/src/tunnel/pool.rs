//! **Pool**: the tunnels of localtunnel clients, and who gets which of their connections.
//!
//! A client registers and gets a name. It then holds connections open, as many as it was told; each is lent
//! to one exchange and never used again, after which the client opens another. (Its `--local-host` rewrites
//! one `Host` per connection, and a connection that a second visitor got could hold the first one's bytes.)
//! A visitor waits where no connection is free: briefly where the client is away, longer where all are busy.
//! A name without connections is kept for its client for a while. One whose connections are all idle is its
//! client's too, when that asks again: it has forgotten them, or they would be in its way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::host::{same_address, same_source};
use super::label;
use crate::machine::earliest;
use crate::name::ShareName;

/// Names a tunnel among those of this server, never reused.
pub type TunnelKey = u64;

/// Names a connection of a tunnel, never reused.
pub type ConnectionKey = u64;

/// Names a visitor's wait, never reused.
pub type VisitorKey = u64;

/// What the pool allows.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Tunnels in all.
    pub tunnels: usize,
    /// Tunnels of one source. One more takes the place of the one that its client left first.
    pub tunnels_each: usize,
    /// Connections that a client is told to hold. The original has 10, which one browser uses up; each is one
    /// to the local server too.
    pub connections: usize,
    /// Connections that are let in: a client may see the end of one before we do, and open another.
    pub connections_let_in: usize,
    /// Visitors that wait for one tunnel.
    pub waiting: usize,
    /// How long a visitor waits where all connections are busy.
    pub busy: Duration,
    /// How long a visitor waits where there are none: a client that was away for a moment.
    pub away: Duration,
    /// How long a name is kept for a client that is away.
    pub grace: Duration,
    /// Whether anybody may connect to a tunnel's port, and so become the sharer.
    pub open: bool,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            tunnels: 100,
            tunnels_each: 20,
            connections: 32,
            connections_let_in: 64,
            waiting: 256,
            busy: Duration::from_secs(10),
            away: Duration::from_millis(500),
            grace: Duration::from_secs(60),
            open: false,
        }
    }
}

/// A tunnel that was registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Which.
    pub tunnel: TunnelKey,
    /// Its name.
    pub name: ShareName,
    /// Whether it was there already, and its client came back.
    pub resumed: bool,
}

/// Why a connection to a tunnel's port is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotLetIn {
    /// It does not come from where the tunnel was registered.
    Stranger,
    /// The tunnel has its connections.
    Full,
    /// There is no such tunnel any more.
    Gone,
}

/// Why a visitor gets no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody has this name.
    Unknown,
    /// The name's client is away.
    Away,
    /// All connections are busy, and others wait already.
    Busy,
    /// What listens behind the tunnel speaks first: it is no web server.
    NotHttp,
}

/// What the shell must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolAction {
    /// Give that visitor that connection.
    Lend(VisitorKey, ConnectionKey),
    /// Tell that visitor why there is none.
    Refuse(VisitorKey, Refusal),
    /// Close the tunnel's port, and the connections that it has.
    Release(TunnelKey),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionState {
    Idle,
    Lent,
    /// The local server said something before it was asked.
    Spoiled,
}

#[derive(Debug)]
struct Tunnel {
    name: ShareName,
    source: IpAddr,
    connections: BTreeMap<ConnectionKey, ConnectionState>,
    /// Those idle, the newest last. It is lent first: its way through NATs is the surest.
    idle: Vec<ConnectionKey>,
    waiting: VecDeque<(VisitorKey, Instant)>,
    /// Since when there has been no connection that can be or is lent.
    away_since: Option<Instant>,
}

impl Tunnel {
    fn is_present(&self) -> bool {
        self.connections.values().any(|state| *state != ConnectionState::Spoiled)
    }

    /// Whether nobody would miss its connections but the client that holds them.
    fn is_unused(&self) -> bool {
        self.connections.values().all(|state| *state != ConnectionState::Lent)
    }

    /// Until when the first visitor waits.
    fn patience(&self, config: &PoolConfig) -> Option<Instant> {
        let (_, since) = self.waiting.front()?;
        Some(match self.away_since {
            Some(away) => (*since).max(away) + config.away,
            None => *since + config.busy,
        })
    }

    /// When the name is free again.
    fn released(&self, config: &PoolConfig) -> Option<Instant> {
        let since = self.away_since.filter(|_| self.connections.is_empty())?;
        Some(since + config.grace)
    }
}

/// The machine.
#[derive(Debug)]
pub struct Pool {
    config: PoolConfig,
    tunnels: BTreeMap<TunnelKey, Tunnel>,
    names: BTreeMap<ShareName, TunnelKey>,
    homes: BTreeMap<ConnectionKey, TunnelKey>,
    visitors: BTreeMap<VisitorKey, TunnelKey>,
    actions: VecDeque<PoolAction>,
    rng: ChaCha12Rng,
    last_key: u64,
}

impl Pool {
    /// An empty one.
    pub fn new(config: PoolConfig, seed: [u8; 32]) -> Self {
        Self {
            config,
            tunnels: BTreeMap::new(),
            names: BTreeMap::new(),
            homes: BTreeMap::new(),
            visitors: BTreeMap::new(),
            actions: VecDeque::new(),
            rng: ChaCha12Rng::from_seed(seed),
            last_key: 0,
        }
    }

    /// A client at `source` wants a tunnel, perhaps by that name. Who comes back to a name from where it was
    /// left gets it again, and on a port of its own where connections are still there that nobody uses: those of
    /// a client that vanished, mostly. A name that is taken is silently another one, as the protocol has it.
    /// `None` where there is no room.
    pub fn register(&mut self, asked: Option<ShareName>, source: IpAddr, now: Instant) -> Option<Registered> {
        if let Some(name) = &asked
            && let Some((tunnel, found)) =
                self.names.get(name).and_then(|key| Some((*key, self.tunnels.get_mut(key)?)))
            && same_address(found.source, source)
        {
            if found.connections.is_empty() {
                found.away_since = Some(now);
                return Some(Registered { tunnel, name: name.clone(), resumed: true });
            }
            if found.is_unused() {
                self.release(tunnel);
            }
        }
        self.make_room(source)?;
        let name = asked.filter(|name| !self.names.contains_key(name));
        let name = name.unwrap_or_else(|| self.unused_name());
        let tunnel = self.next_key();
        self.names.insert(name.clone(), tunnel);
        let away_since = Some(now);
        let (connections, idle, waiting) = (BTreeMap::new(), Vec::new(), VecDeque::new());
        self.tunnels
            .insert(tunnel, Tunnel { name: name.clone(), source, connections, idle, waiting, away_since });
        Some(Registered { tunnel, name, resumed: false })
    }

    /// A source's own tunnel that was left first goes, where it has as many as it may.
    fn make_room(&mut self, source: IpAddr) -> Option<()> {
        let own = || self.tunnels.iter().filter(|(_, tunnel)| same_source(tunnel.source, source));
        if own().count() >= self.config.tunnels_each || self.tunnels.len() >= self.config.tunnels {
            let left = own().filter(|(_, tunnel)| tunnel.connections.is_empty());
            let (key, _) = left.min_by_key(|(_, tunnel)| tunnel.away_since)?;
            self.release(*key);
        }
        Some(())
    }

    fn unused_name(&mut self) -> ShareName {
        loop {
            let name = label::unguessable(&mut self.rng);
            if !self.names.contains_key(&name) {
                return name;
            }
        }
    }

    const fn next_key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }

    /// The tunnel ends now: its port can't be had, or the server stops.
    pub fn release(&mut self, key: TunnelKey) {
        let Some(tunnel) = self.tunnels.remove(&key) else { return };
        self.names.remove(&tunnel.name);
        for (visitor, _) in tunnel.waiting {
            self.visitors.remove(&visitor);
            self.actions.push_back(PoolAction::Refuse(visitor, Refusal::Unknown));
        }
        for connection in tunnel.connections.keys() {
            self.homes.remove(connection);
        }
        self.actions.push_back(PoolAction::Release(key));
    }

    /// Somebody connected to a tunnel's port.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn handle_connection(&mut self, key: TunnelKey, from: IpAddr) -> Result<ConnectionKey, NotLetIn> {
        let connection = self.next_key();
        let tunnel = self.tunnels.get_mut(&key).ok_or(NotLetIn::Gone)?;
        if !self.config.open && !same_address(tunnel.source, from) {
            return Err(NotLetIn::Stranger);
        }
        if tunnel.connections.len() >= self.config.connections_let_in {
            return Err(NotLetIn::Full);
        }
        tunnel.connections.insert(connection, ConnectionState::Idle);
        tunnel.idle.push(connection);
        tunnel.away_since = None;
        self.homes.insert(connection, key);
        self.serve(key);
        Ok(connection)
    }

    /// A connection that was not lent said something.
    pub fn handle_unasked(&mut self, connection: ConnectionKey, now: Instant) {
        self.change(connection, now, |tunnel| {
            if let Some(state @ ConnectionState::Idle) = tunnel.connections.get_mut(&connection) {
                *state = ConnectionState::Spoiled;
                tunnel.idle.retain(|idle| *idle != connection);
            }
        });
    }

    /// A connection has ended, lent or not.
    pub fn handle_closed(&mut self, connection: ConnectionKey, now: Instant) {
        self.change(connection, now, |tunnel| {
            tunnel.connections.remove(&connection);
            tunnel.idle.retain(|idle| *idle != connection);
        });
        self.homes.remove(&connection);
    }

    fn change(&mut self, connection: ConnectionKey, now: Instant, change: impl FnOnce(&mut Tunnel)) {
        let Some(tunnel) = self.homes.get(&connection).and_then(|key| self.tunnels.get_mut(key)) else {
            return;
        };
        change(tunnel);
        if !tunnel.is_present() && (tunnel.away_since.is_none() || tunnel.connections.is_empty()) {
            tunnel.away_since = Some(now);
        }
    }

    /// A visitor wants a connection to this name, and has since `since`. The answer is an action, which may
    /// be there already.
    pub fn handle_visitor(&mut self, name: &ShareName, since: Instant) -> VisitorKey {
        let visitor = self.next_key();
        let key = self.names.get(name).copied();
        let Some((key, tunnel)) = key.and_then(|key| Some((key, self.tunnels.get_mut(&key)?))) else {
            self.actions.push_back(PoolAction::Refuse(visitor, Refusal::Unknown));
            return visitor;
        };
        if tunnel.waiting.len() >= self.config.waiting {
            self.actions.push_back(PoolAction::Refuse(visitor, Refusal::Busy));
            return visitor;
        }
        tunnel.waiting.push_back((visitor, since));
        self.visitors.insert(visitor, key);
        self.serve(key);
        visitor
    }

    /// A visitor does not wait any more.
    pub fn handle_visitor_gone(&mut self, visitor: VisitorKey) {
        let Some(key) = self.visitors.remove(&visitor) else { return };
        if let Some(tunnel) = self.tunnels.get_mut(&key) {
            tunnel.waiting.retain(|(waiting, _)| *waiting != visitor);
        }
    }

    /// Lends what is idle to who waits.
    fn serve(&mut self, key: TunnelKey) {
        let Some(tunnel) = self.tunnels.get_mut(&key) else { return };
        while !tunnel.waiting.is_empty()
            && let Some(connection) = tunnel.idle.pop()
            && let Some((visitor, _)) = tunnel.waiting.pop_front()
        {
            tunnel.connections.insert(connection, ConnectionState::Lent);
            self.visitors.remove(&visitor);
            self.actions.push_back(PoolAction::Lend(visitor, connection));
        }
    }

    /// Refuses who has waited enough, and releases the names whose grace is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut over = BTreeSet::new();
        for (key, tunnel) in &mut self.tunnels {
            while tunnel.patience(&self.config).is_some_and(|until| until <= now)
                && let Some((visitor, _)) = tunnel.waiting.pop_front()
            {
                let refusal = match tunnel.away_since {
                    None => Refusal::Busy,
                    Some(_) if tunnel.connections.is_empty() => Refusal::Away,
                    Some(_) => Refusal::NotHttp,
                };
                self.visitors.remove(&visitor);
                self.actions.push_back(PoolAction::Refuse(visitor, refusal));
            }
            if tunnel.released(&self.config).is_some_and(|until| until <= now) {
                over.insert(*key);
            }
        }
        over.into_iter().for_each(|key| self.release(key));
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timeouts = self
            .tunnels
            .values()
            .map(|tunnel| earliest(tunnel.patience(&self.config), tunnel.released(&self.config)));
        timeouts.fold(None, earliest)
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<PoolAction> {
        self.actions.pop_front()
    }

    /// How many tunnels there are.
    pub fn tunnels(&self) -> usize {
        self.tunnels.len()
    }

    /// How many connections there are, of all tunnels.
    pub fn connections(&self) -> usize {
        self.homes.len()
    }

    /// How many connections the tunnel of that name has.
    pub fn connections_of(&self, name: &ShareName) -> Option<usize> {
        Some(self.tunnels.get(self.names.get(name)?)?.connections.len())
    }

    /// How many visitors wait.
    pub fn waiting(&self) -> usize {
        self.visitors.len()
    }

    /// How many connections a client is told to hold.
    pub const fn told(&self) -> usize {
        self.config.connections
    }
}

#[cfg(test)]
mod tests;
