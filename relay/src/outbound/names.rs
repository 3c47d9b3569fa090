//! Names, looked up once for all who ask at the same time, in each family apart.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::net::{self, IpFamily, Net, canonical};

/// How long a look-up may take. Three DNS servers that are asked twice, 5 s each, are what glibc takes.
pub const LOOKING_UP: Duration = Duration::from_secs(30);

/// How long addresses are known, and how long it is known that there are none. The system's cache knows the records'
/// own times; this one saves the attempts that follow each other from asking it.
const KNOWN: Duration = Duration::from_secs(30);
const KNOWN_TO_BE_NONE: Duration = Duration::from_secs(1);

/// How long the first answer waits for that of the preferred family (RFC 8305 §3, Resolution Delay).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// How many look-ups are remembered before those that are over are forgotten.
const MAX_REMEMBERED: usize = 64;

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is no such name, or it has no address.
    #[error("the name {0} has no address")]
    NoAddress(String),
    /// No DNS server answered, or none could.
    #[error("the name {0} has no answer from DNS")]
    NoAnswer(String),
    /// The look-up itself failed.
    #[error("the name {name} cannot be looked up: {why}")]
    Failed {
        /// The name.
        name: String,
        /// What the system said.
        why: String,
    },
}

/// What one family's look-up came to.
#[derive(Debug, Clone)]
struct Answer {
    found: Result<Vec<SocketAddr>, NameError>,
    at: Instant,
}

impl Answer {
    fn is_known(&self) -> bool {
        let is_some = self.found.as_ref().is_ok_and(|found| !found.is_empty());
        self.at.elapsed() < if is_some { KNOWN } else { KNOWN_TO_BE_NONE }
    }
}

/// One family's look-up: none as long as it runs.
type Query = watch::Receiver<Option<Answer>>;

/// The look-ups of all who share it.
#[derive(Debug)]
pub(super) struct Names {
    net: Arc<dyn Net>,
    queries: Mutex<BTreeMap<(String, IpFamily), Query>>,
}

impl Names {
    pub(super) fn new(net: Arc<dyn Net>) -> Arc<Self> {
        Arc::new(Self { net, queries: Mutex::default() })
    }

    /// Looks a host up, or joins in where that is done already.
    pub(super) fn look_up(&self, host: &str, port: u16) -> LookUp {
        let mut look_up = LookUp {
            name: host.to_owned(),
            port,
            preferred: IpFamily::V4,
            running: Vec::new(),
            new: Vec::new(),
            held_until: None,
            found_any: false,
            error: None,
        };
        match host.parse::<IpAddr>() {
            Ok(ip) => look_up.new.push(canonical(SocketAddr::new(ip, port))),
            Err(_) => {
                look_up.preferred = net::preferred(&*self.net);
                look_up.running = [IpFamily::V6, IpFamily::V4].map(|f| (f, self.query(host, f))).into();
            }
        }
        look_up
    }

    /// The IPv6 addresses of a name.
    pub(super) async fn in_v6(&self, host: &str) -> Result<Vec<SocketAddr>, NameError> {
        let mut query = self.query(host, IpFamily::V6);
        let answer = query.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
        answer.map_or_else(|| Err(NameError::NoAnswer(host.to_owned())), |answer| answer.found)
    }

    /// Has the next look-up ask again: what was found was of no use. One that runs is not begun again.
    pub(super) fn forget(&self, host: &str) {
        let is_over = |query: &Query| query.borrow().is_some();
        self.lock().retain(|(name, _), query| name != host || !is_over(query));
    }

    fn query(&self, host: &str, family: IpFamily) -> Query {
        let mut queries = self.lock();
        // One without an answer runs, unless its runtime is gone.
        let is_good = |query: &Query| {
            let is_running = query.has_changed().is_ok();
            query.borrow().as_ref().map_or(is_running, Answer::is_known)
        };
        if queries.len() >= MAX_REMEMBERED {
            queries.retain(|_, query| is_good(query));
        }
        let key = (host.to_owned(), family);
        if let Some(query) = queries.get(&key).filter(|query| is_good(query)) {
            return query.clone();
        }
        let (sender, query) = watch::channel(None);
        queries.insert(key, query.clone());
        let (net, host) = (Arc::clone(&self.net), host.to_owned());
        // A task of its own: who asked first may have no more time.
        tokio::spawn(async move {
            let answer = timeout(LOOKING_UP, net.resolve(&host, 0, family)).await;
            let found = match answer {
                Ok(Ok(found)) => Ok(found),
                Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(NameError::NoAnswer(host)),
                Ok(Err(error)) => Err(NameError::Failed { name: host, why: error.to_string() }),
                Err(_) => Err(NameError::NoAnswer(host)),
            };
            tracing::debug!(?family, ?found, "looked up");
            let _ = sender.send(Some(Answer { found, at: Instant::now() }));
        });
        query
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, IpFamily), Query>> {
        self.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look-up that runs, or is over: the addresses of a host come out of it as they become known.
///
/// Dropping it stops nothing: the look-up goes on for whoever asks next.
#[derive(Debug)]
pub struct LookUp {
    name: String,
    port: u16,
    preferred: IpFamily,
    running: Vec<(IpFamily, Query)>,
    /// What is known and was not handed out yet.
    new: Vec<SocketAddr>,
    /// How long that waits for the preferred family.
    held_until: Option<Instant>,
    found_any: bool,
    error: Option<NameError>,
}

impl LookUp {
    /// The addresses that became known since, in the order in which they are to be tried; `None` when all is known.
    ///
    /// The first ones come when one family has answered: at once for a literal address, after at most 50 ms more
    /// where the answer of the preferred family (IPv6, where this host has it) is outstanding. A family that does not
    /// answer at all ends after 30 s. The future may be dropped and asked for again; nothing is lost.
    pub async fn next(&mut self) -> Option<Vec<SocketAddr>> {
        loop {
            self.take_answers();
            let is_awaited = self.running.iter().any(|(family, _)| *family == self.preferred);
            let now = Instant::now();
            if !self.new.is_empty() {
                let until = *self.held_until.get_or_insert(now + RESOLUTION_DELAY);
                if !is_awaited || self.found_any || until <= now {
                    self.found_any = true;
                    return Some(std::mem::take(&mut self.new));
                }
            }
            if self.running.is_empty() {
                return None;
            }
            let is_held = !self.new.is_empty();
            let until = self.held_until.unwrap_or(now);
            tokio::select! {
                () = answered(&mut self.running) => {}
                () = sleep_until(until), if is_held => {}
            }
        }
    }

    /// Why there is no address, where [`Self::next`] has answered `None` and nothing else before. As long as a family
    /// has not answered: that it has not.
    pub fn error(&self) -> NameError {
        let name = || self.name.clone();
        match &self.error {
            _ if self.is_running() => NameError::NoAnswer(name()),
            Some(error) => error.clone(),
            None => NameError::NoAddress(name()),
        }
    }

    /// Whether a family has not answered yet.
    pub fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    fn take_answers(&mut self) {
        let running = std::mem::take(&mut self.running);
        for (family, query) in running {
            let is_running = query.has_changed().is_ok();
            let answer = query.borrow().clone();
            match answer {
                Some(answer) => self.take(family, answer.found),
                None if is_running => self.running.push((family, query)),
                None => self.take(family, Err(NameError::NoAnswer(self.name.clone()))),
            }
        }
    }

    fn take(&mut self, family: IpFamily, found: Result<Vec<SocketAddr>, NameError>) {
        match found {
            Ok(mut found) => {
                for addr in &mut found {
                    addr.set_port(self.port);
                }
                if family == self.preferred {
                    found.append(&mut self.new);
                    self.new = found;
                } else {
                    self.new.append(&mut found);
                }
            }
            // No answer says more than a failure: DNS may have an address for it.
            Err(error) if matches!(self.error, Some(NameError::NoAnswer(_))) => drop(error),
            Err(error) => self.error = Some(error),
        }
    }
}

/// Waits until one of them has an answer, or will never have one.
async fn answered(running: &mut [(IpFamily, Query)]) {
    let waits = running.iter_mut().map(|(_, query)| Box::pin(query.changed()));
    let _ = futures_util::future::select_all(waits).await;
}
