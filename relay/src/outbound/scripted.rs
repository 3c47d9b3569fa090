//! A network whose DNS and hosts do what a test says.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::interface::OwnAddress;
use tokio::io::{duplex, split};
use tokio::time::sleep;

use super::Outbound;
use crate::net::{Asking, BoxFuture, IpFamily, Link, Listener, Net, NetworkChanges, OsNet, Stream};

/// What DNS says of a name in a family, and when.
#[derive(Debug, Clone)]
pub(super) enum Dns {
    /// These addresses, after so long.
    Says(Duration, Vec<&'static str>),
    /// The system gives up after so long.
    GivesUp(Duration),
    /// Nothing, ever.
    Drops,
}

/// Milliseconds.
pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[derive(Debug, Default)]
struct State {
    dns: BTreeMap<(String, IpFamily), Dns>,
    /// How often each was asked.
    asked: BTreeMap<(String, IpFamily), usize>,
    /// Who accepts, and after how long. Others of a family with a route refuse at once, unless they drop.
    accepts: BTreeMap<IpAddr, Duration>,
    drops: Vec<IpAddr>,
    /// The local address of each family that has a route.
    sources: Vec<IpAddr>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ScriptedNet(Arc<Mutex<State>>);

impl ScriptedNet {
    /// One with routes from these addresses.
    pub(super) fn from(sources: &[&str]) -> Self {
        let net = Self::default();
        net.move_to(sources);
        net
    }

    pub(super) fn outbound(&self) -> Outbound {
        Outbound::new(Arc::new(self.clone()), None)
    }

    pub(super) fn move_to(&self, sources: &[&str]) {
        self.0.lock().unwrap().sources = sources.iter().map(|ip| ip.parse().unwrap()).collect();
    }

    pub(super) fn dns(&self, name: &str, family: IpFamily, dns: Dns) -> &Self {
        self.0.lock().unwrap().dns.insert((name.to_owned(), family), dns);
        self
    }

    pub(super) fn accepts(&self, ip: &str, after: Duration) -> &Self {
        self.0.lock().unwrap().accepts.insert(ip.parse().unwrap(), after);
        self
    }

    pub(super) fn drops(&self, ip: &str) -> &Self {
        self.0.lock().unwrap().drops.push(ip.parse().unwrap());
        self
    }

    pub(super) fn refuses(&self, ip: &str) {
        self.0.lock().unwrap().accepts.remove(&ip.parse().unwrap());
    }

    pub(super) fn asked(&self, name: &str, family: IpFamily) -> usize {
        self.0.lock().unwrap().asked.get(&(name.to_owned(), family)).copied().unwrap_or_default()
    }
}

impl Net for ScriptedNet {
    fn bind_udp(&self, _local: SocketAddr) -> io::Result<Arc<dyn Link>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn ask_udp(&self, _to: SocketAddr) -> io::Result<Box<dyn Asking>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn interfaces(&self) -> io::Result<Vec<OwnAddress>> {
        Ok(self.0.lock().unwrap().sources.iter().copied().map(OwnAddress::from).collect())
    }

    fn source_for(&self, to: SocketAddr) -> io::Result<IpAddr> {
        let state = self.0.lock().unwrap();
        let source = state.sources.iter().find(|ip| ip.is_ipv4() == to.is_ipv4()).copied();
        source.ok_or_else(|| io::ErrorKind::NetworkUnreachable.into())
    }

    fn watch_changes(&self) -> Box<dyn NetworkChanges> {
        OsNet.watch_changes()
    }

    fn connect_tcp(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            self.source_for(to)?;
            let (accepts, drops) = {
                let state = self.0.lock().unwrap();
                (state.accepts.get(&to.ip()).copied(), state.drops.contains(&to.ip()))
            };
            if drops {
                std::future::pending::<()>().await;
            }
            sleep(accepts.ok_or(io::ErrorKind::ConnectionRefused)?).await;
            let (near, far) = duplex(64);
            // The far end lives as long as the test.
            std::mem::forget(far);
            let (read, write) = split(near);
            Ok((Box::new(read) as _, Box::new(write) as _))
        })
    }

    fn listen_tcp(&self, _local: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        family: IpFamily,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let dns = {
            let mut state = self.0.lock().unwrap();
            *state.asked.entry((host.to_owned(), family)).or_default() += 1;
            state.dns.get(&(host.to_owned(), family)).cloned()
        };
        Box::pin(async move {
            match dns {
                None => Ok(Vec::new()),
                Some(Dns::Drops) => std::future::pending().await,
                Some(Dns::GivesUp(after)) => {
                    sleep(after).await;
                    Err(io::ErrorKind::TimedOut.into())
                }
                Some(Dns::Says(after, found)) => {
                    sleep(after).await;
                    Ok(found.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect())
                }
            }
        })
    }
}
