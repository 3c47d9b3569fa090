//! localtunnel's clients: their ports, the connections that they hold open, and lending these.
//!
//! Every decision is the [`Pool`]'s. Here each idle connection is a task that waits for the end of the stream,
//! for something unasked, or for being lent.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::name::ShareName;
use proto::tunnel::forward::Rewrite;
use proto::tunnel::pool::{
    ConnectionKey, NotLetIn, Pool, PoolAction, PoolConfig, Refusal, Registered, TunnelKey, VisitorKey,
};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::config::TunnelPorts;
use super::inbox::Inbox;
use super::stats::Counters;
use super::unread::Unread;
use super::upstream::Upstream;
use crate::net::{Listener, Net, Stream};

/// How long to wait when a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Tells the pool of the end of a connection.
struct Lease {
    tunnels: Arc<Tunnels>,
    connection: ConnectionKey,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.tunnels.change(|state| {
            state.idle.remove(&self.connection);
            state.pool.handle_closed(self.connection, now());
        });
    }
}

type Answer = Result<Upstream, Refusal>;

/// All tunnels.
pub(crate) struct Tunnels {
    state: Mutex<State>,
    /// The next timeout is earlier than it was.
    wake: Notify,
    net: Arc<dyn Net>,
    ip: IpAddr,
    ports: TunnelPorts,
    /// How long what was written to a client may be unread.
    patience: Duration,
    /// What local servers may leave unread.
    unread: Arc<Unread>,
    counters: Arc<Counters>,
    /// Requests go to clients as they are.
    unchanged: Arc<Rewrite>,
}

struct State {
    pool: Pool,
    idle: BTreeMap<ConnectionKey, oneshot::Sender<oneshot::Sender<Answer>>>,
    waiting: BTreeMap<VisitorKey, oneshot::Sender<Answer>>,
    open: BTreeMap<TunnelKey, Open>,
    taken: BTreeSet<u16>,
    next_port: u16,
    /// When [`Tunnels::keep_time`] wakes up.
    scheduled: Option<std::time::Instant>,
}

/// A visitor that gets no connection, and why.
type Refused = (oneshot::Sender<Answer>, Refusal);

impl State {
    /// Does what the pool wants done. Who is refused is told when the lock is not held: what is dropped then may
    /// want it.
    fn carry_out(&mut self) -> Vec<Refused> {
        let mut refused = Vec::new();
        while let Some(action) = self.pool.poll_action() {
            match action {
                PoolAction::Lend(visitor, connection) => {
                    let (visitor, idle) = (self.waiting.remove(&visitor), self.idle.remove(&connection));
                    // One whose task has just ended answers nothing, and its visitor asks again.
                    if let (Some(visitor), Some(idle)) = (visitor, idle) {
                        let _ended = idle.send(visitor);
                    }
                }
                PoolAction::Refuse(visitor, why) => {
                    refused.extend(self.waiting.remove(&visitor).map(|visitor| (visitor, why)))
                }
                PoolAction::Release(tunnel) => {
                    if let Some(open) = self.open.remove(&tunnel) {
                        self.taken.remove(&open.port);
                    }
                }
            }
        }
        refused
    }
}

/// A tunnel's port. Dropping the sender ends what listens there, and what waits to be lent.
struct Open {
    port: u16,
    _open: watch::Sender<()>,
}

/// A tunnel as its client is told of it.
pub(crate) struct Told {
    pub(crate) name: ShareName,
    pub(crate) port: u16,
    pub(crate) connections: usize,
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl Tunnels {
    pub(crate) fn new(
        net: Arc<dyn Net>,
        (ip, ports): (IpAddr, TunnelPorts),
        pool: PoolConfig,
        (patience, unread): (Duration, Arc<Unread>),
        seed: [u8; 32],
        counters: Arc<Counters>,
    ) -> Self {
        let pool = PoolConfig { tunnels: pool.tunnels.min(ports.count()), ..pool };
        let state = State {
            pool: Pool::new(pool, seed),
            idle: BTreeMap::new(),
            waiting: BTreeMap::new(),
            open: BTreeMap::new(),
            taken: BTreeSet::new(),
            next_port: ports.from,
            scheduled: None,
        };
        let unchanged = Arc::default();
        let (state, wake) = (Mutex::new(state), Notify::new());
        Self { state, wake, net, ip, ports, patience, unread, counters, unchanged }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the pool, and then what the pool wants done.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let refused = state.carry_out();
        let next = state.pool.poll_timeout();
        if next.is_some_and(|next| state.scheduled.is_none_or(|scheduled| next < scheduled)) {
            self.wake.notify_one();
        }
        drop(state);
        for (visitor, why) in refused {
            let _gone = visitor.send(Err(why));
        }
        result
    }

    /// Opens a tunnel for a client at `source`. `None` where there is no room, or no port.
    ///
    /// A tunnel is the pool's and has its port in one step: whoever resumes it finds both, or neither.
    pub(crate) fn register(self: &Arc<Self>, asked: Option<ShareName>, source: IpAddr) -> Option<Told> {
        let mut refused = Vec::new();
        let (told, opened) = self.change(|state| {
            let Registered { tunnel, name, resumed: _ } = state.pool.register(asked, source, now())?;
            // What made room has a port to give.
            refused = state.carry_out();
            let connections = state.pool.told();
            let told = |port| Told { name, port, connections };
            if let Some(open) = state.open.get(&tunnel) {
                return Some((told(open.port), None));
            }
            let Some((listener, port)) = self.listen(state) else {
                state.pool.release(tunnel);
                return None;
            };
            let (open, closed) = watch::channel(());
            state.taken.insert(port);
            state.open.insert(tunnel, Open { port, _open: open });
            Some((told(port), Some((tunnel, listener, closed))))
        })?;
        for (visitor, why) in refused {
            let _gone = visitor.send(Err(why));
        }
        if let Some((tunnel, listener, closed)) = opened {
            tokio::spawn(Arc::clone(self).accept(tunnel, listener, closed));
        }
        Some(told)
    }

    /// Listens on the next free port of the range.
    fn listen(&self, state: &mut State) -> Option<(Box<dyn Listener>, u16)> {
        for _ in 0..self.ports.count() {
            let port = state.next_port;
            state.next_port = if port >= self.ports.to { self.ports.from } else { port + 1 };
            if port != 0 && state.taken.contains(&port) {
                continue;
            }
            match self
                .net
                .listen_tcp(SocketAddr::new(self.ip, port))
                .and_then(|l| Ok((l.local_addr()?.port(), l)))
            {
                Ok((port, listener)) => return Some((listener, port)),
                Err(error) => tracing::debug!(port, %error, "a tunnel's port can't be had"),
            }
        }
        None
    }

    async fn accept(
        self: Arc<Self>,
        tunnel: TunnelKey,
        listener: Box<dyn Listener>,
        mut closed: watch::Receiver<()>,
    ) {
        loop {
            let accepted = tokio::select! {
                biased;
                _closed = closed.changed() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => self.admit(tunnel, stream, from, &closed),
                Err(error) => {
                    tracing::debug!(%error, "a tunnel's connection could not be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn admit(
        self: &Arc<Self>,
        tunnel: TunnelKey,
        stream: Stream,
        from: SocketAddr,
        closed: &watch::Receiver<()>,
    ) {
        stream.1.give_up_after(self.patience);
        let stream = self.unread.bound(stream);
        let (lend, lent) = oneshot::channel();
        let admitted = self.change(|state| {
            let connection = state.pool.handle_connection(tunnel, from.ip())?;
            state.idle.insert(connection, lend);
            Ok(connection)
        });
        match admitted {
            Ok(connection) => {
                let lease = Lease { tunnels: Arc::clone(self), connection };
                tokio::spawn(idle(stream, lease, lent, closed.clone()));
            }
            Err(why) => {
                tracing::debug!(%from, ?why, "a tunnel's connection is refused");
                match why {
                    NotLetIn::Stranger => self.counters.strangers.add(),
                    NotLetIn::Full | NotLetIn::Gone => self.counters.surplus.add(),
                }
            }
        }
    }

    /// Gives a connection to that name's client, for one exchange that wants it since `since`.
    pub(crate) async fn borrow(&self, name: &ShareName, since: Instant) -> Answer {
        loop {
            let (answer, answered) = oneshot::channel();
            let visitor = self.change(|state| {
                let visitor = state.pool.handle_visitor(name, since.into_std());
                state.waiting.insert(visitor, answer);
                visitor
            });
            let waiting = Waiting { tunnels: self, visitor };
            if let Ok(answer) = answered.await {
                return answer;
            }
            drop(waiting);
        }
    }

    /// Whether the tunnel of that name is there, and how many connections its client holds.
    pub(crate) fn connections_of(&self, name: &ShareName) -> Option<usize> {
        self.lock().pool.connections_of(name)
    }

    /// How many tunnels, connections of clients and waiting visitors there are.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let state = self.lock();
        (state.pool.tunnels(), state.pool.connections(), state.pool.waiting())
    }

    /// Keeps the pool's time, for ever.
    pub(crate) async fn keep_time(&self) {
        loop {
            let next = self.change(|state| {
                state.pool.handle_timeout(now());
                state.scheduled = state.pool.poll_timeout();
                state.scheduled
            });
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                () = at(next) => {}
            }
        }
    }

    /// Ends every tunnel.
    pub(crate) fn close(&self) {
        self.change(|state| {
            let all: Vec<_> = state.open.keys().copied().collect();
            all.into_iter().for_each(|tunnel| state.pool.release(tunnel));
        });
    }
}

async fn at(time: Option<std::time::Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// A wait that ends with its visitor.
struct Waiting<'a> {
    tunnels: &'a Tunnels,
    visitor: VisitorKey,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.tunnels.change(|state| {
            state.waiting.remove(&self.visitor);
            state.pool.handle_visitor_gone(self.visitor);
        });
    }
}

/// What an idle connection is told, or finds.
enum Idle {
    Lent(oneshot::Sender<Answer>),
    Came(io::Result<usize>),
    Over,
}

/// Holds a connection until it is lent or ends.
async fn idle(
    (read, write): Stream,
    lease: Lease,
    mut lent: oneshot::Receiver<oneshot::Sender<Answer>>,
    mut closed: watch::Receiver<()>,
) {
    let mut inbox = Inbox::new(read);
    loop {
        let found = tokio::select! {
            biased;
            visitor = &mut lent => visitor.map_or(Idle::Over, Idle::Lent),
            _closed = closed.changed() => Idle::Over,
            came = inbox.fill(), if !inbox.is_full() => Idle::Came(came),
        };
        match found {
            Idle::Lent(visitor) => {
                // Its own end is the lease's.
                let rewrite = Arc::clone(&lease.tunnels.unchanged);
                let (before, lent, hold) = (Vec::new(), None, Box::new(lease));
                let upstream = Upstream { inbox, write, before, rewrite, lent, has_stayed: false, hold };
                let _gone = visitor.send(Ok(upstream));
                return;
            }
            // A server that speaks first, or one that says goodbye: its connection is no use, and is kept lest
            // its client opens another at once, for ever.
            Idle::Came(Ok(1..)) => {
                lease.tunnels.change(|state| state.pool.handle_unasked(lease.connection, now()))
            }
            Idle::Came(Ok(0) | Err(_)) | Idle::Over => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// Several registrations of one name at the same moment, while others want the lock: each gets the one
    /// tunnel, and with it the port that it has.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn clients_that_register_one_name_at_once_get_one_tunnel_and_no_port_is_lost() {
        let pool = PoolConfig { grace: Duration::from_secs(3600), ..PoolConfig::default() };
        let (ip, net) = (Ipv4Addr::LOCALHOST.into(), Arc::new(crate::net::OsNet));
        let unread = (Duration::MAX, Unread::new(0));
        let tunnels = Tunnels::new(net, (ip, TunnelPorts::ANY), pool, unread, [7; 32], Arc::default());
        let tunnels = Arc::new(tunnels);
        let onlooker = Arc::downgrade(&tunnels);
        for _ in 0..2 {
            let onlooker = onlooker.clone();
            std::thread::spawn(
                move || while onlooker.upgrade().is_some_and(|tunnels| tunnels.counts().0 < 9) {},
            );
        }
        for round in 0..300 {
            let name: ShareName = format!("name-{}", round % 5).parse().unwrap();
            let starting = Arc::new(std::sync::Barrier::new(4));
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    let (tunnels, starting, name) =
                        (Arc::clone(&tunnels), Arc::clone(&starting), name.clone());
                    tokio::spawn(async move {
                        starting.wait();
                        tunnels.register(Some(name), ip)
                    })
                })
                .collect();
            let mut ports = BTreeSet::new();
            for client in clients {
                let told = client.await.unwrap().unwrap();
                assert_eq!(told.name, name);
                ports.insert(told.port);
            }
            assert_eq!(ports.len(), 1, "round {round}");
            let state = tunnels.lock();
            assert_eq!(state.open.len(), state.pool.tunnels());
            assert_eq!(state.taken, state.open.values().map(|open| open.port).collect());
            drop(state);
            if round % 5 == 4 {
                tunnels.close();
            }
        }
    }
}
