//! Where clients reach this server: what is found out about that, and who is told what.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::Uri;
use proto::reach::{self, Asker, Door, Surroundings};
use proto::server_health::Host;
use proto::ticket::MAX_ADDRS;
use relay::net::{Net, resolve_all};
use tokio::time::{Duration, sleep, timeout};

use crate::checks::Checks;

/// How often the name and this machine's addresses are looked at, and how long a look-up may take. No client waits for it;
/// the operator who has just started the server may be looking at its log.
const LOOK: Duration = Duration::from_secs(60);
const LOOKING: Duration = Duration::from_secs(5);

/// All that is known of where this server is.
#[derive(Debug)]
pub(crate) struct Addresses {
    net: Arc<dyn Net>,
    /// STUN and QUIC.
    main: Vec<Door>,
    /// STUN alone.
    alternates: Vec<Door>,
    /// The name by which clients come, where there is one that the world could know.
    host: Option<Host>,
    /// What the HTTP side is bound to.
    http: SocketAddr,
    known: Mutex<Surroundings>,
}

impl Addresses {
    /// Of a server with these sockets, the main one first.
    pub(crate) fn new(
        net: Arc<dyn Net>,
        mut doors: Vec<Door>,
        http: SocketAddr,
        public_url: Option<&Uri>,
        domain: &str,
    ) -> Self {
        let alternates = doors.split_off(1.min(doors.len()));
        let host = match public_url.and_then(Uri::host) {
            Some(host) => Some(Host::PublicUrl(bare(host).to_owned())),
            None => is_worldly(domain).then(|| Host::Domain(domain.to_owned())),
        };
        let named = host.iter().filter_map(|host| host.name().parse().ok()).collect();
        let own = net.addresses().unwrap_or_default();
        Self { net, main: doors, alternates, host, http, known: Mutex::new(Surroundings { named, own }) }
    }

    /// Who asks over HTTP from `from`: of who comes by a proxy nothing is known.
    pub(crate) fn asker(&self, from: SocketAddr, is_forwarded: bool) -> Asker {
        // A listener doesn't tell at which of its addresses a stream arrived; the route back does.
        let reached = match self.http.ip() {
            ip if ip.is_unspecified() => self.net.source_for(from).ok(),
            ip => Some(ip),
        };
        if is_forwarded { Asker::unknown(reached) } else { Asker::at(from.ip(), reached) }
    }

    /// Where this asker finds STUN and QUIC, best first.
    pub(crate) fn udp(&self, asker: &Asker) -> Vec<SocketAddr> {
        reach::told(&self.main, &self.known(), asker)
    }

    /// Where it finds STUN alone.
    pub(crate) fn udp_alternate(&self, asker: &Asker) -> Vec<SocketAddr> {
        reach::told(&self.alternates, &self.known(), asker)
    }

    /// The ports of all sockets, the main one's first.
    pub(crate) fn ports(&self, asker: &Asker) -> Vec<u16> {
        let is_v4 = asker.reached.is_none_or(|ip| ip.to_canonical().is_ipv4());
        self.main.iter().chain(&self.alternates).map(|door| door.port(is_v4)).take(MAX_ADDRS).collect()
    }

    /// Where a client with a session finds STUN alone.
    pub(crate) fn beside(&self, asker: &Asker) -> Vec<SocketAddr> {
        reach::beside(&self.alternates, &self.known(), asker)
    }

    /// Looks at the name and at this machine, for ever.
    pub(crate) async fn follow(&self, checks: &Checks) {
        let mut was_resolved = false;
        loop {
            if let Ok(own) = self.net.addresses() {
                checks.own(&own);
                self.known().own = own;
            }
            if let Some(host) = &self.host {
                let found = self.look_up(host.name()).await;
                match found {
                    Some(found) => {
                        was_resolved = true;
                        checks.resolved(host, &found);
                        self.known().named = found;
                    }
                    // An old answer is better than none.
                    None if was_resolved => {}
                    None => checks.resolved(host, &[]),
                }
            }
            sleep(LOOK).await;
        }
    }

    async fn look_up(&self, name: &str) -> Option<Vec<IpAddr>> {
        let resolved = timeout(LOOKING, resolve_all(&*self.net, name, self.http.port())).await;
        let found: Vec<IpAddr> = resolved.ok()?.ok()?.iter().map(|addr| addr.ip().to_canonical()).collect();
        (!found.is_empty()).then_some(found)
    }

    fn known(&self) -> MutexGuard<'_, Surroundings> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A URL's host without the brackets of an IPv6 address.
pub(crate) fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Whether it is a name that others than this machine may know.
pub(crate) fn is_worldly(name: &str) -> bool {
    name.contains('.') && name.parse::<IpAddr>().is_err() && !name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_this_machine_alone_is_not_looked_up() {
        for name in ["localhost", "a.localhost", "nas", "192.0.2.1", "2001:db8::1"] {
            assert!(!is_worldly(name), "{name}");
        }
        assert!(is_worldly("example.com"));
        assert_eq!(bare("[2001:db8::1]"), "2001:db8::1");
    }
}
