//! Everything that a server listens on, and why it can't.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use relay::net::{Link, Listener, Net, canonical};
use relay::program::Failure;

use crate::config::{Alternate, Bind, ServerConfig};

/// A socket that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {what} {addr}: {reason}: {remedy}", reason = reason(.source), remedy = remedy(.source, .option))]
pub struct StartError {
    what: &'static str,
    option: &'static str,
    addr: SocketAddr,
    source: io::Error,
}

#[allow(clippy::wildcard_enum_match_arm, reason = "of the system's many errors these have a name of ours")]
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is taken".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not use the port".to_owned(),
        _ => error.to_string(),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "as above")]
fn remedy(error: &io::Error, option: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("stop the program that has it, or choose another with {option}"),
        io::ErrorKind::PermissionDenied => format!("choose one from 1024 on with {option}"),
        _ => format!("choose another with {option}"),
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let slug =
            if error.source.kind() == io::ErrorKind::AddrInUse { "port-taken" } else { "cannot-listen" };
        Self::failed(slug, error)
    }
}

pub(crate) type Socket = (Arc<dyn Link>, SocketAddr);
pub(crate) type Door = (Box<dyn Listener>, SocketAddr);

/// Everything that a server listens on.
pub(crate) struct Bound {
    pub(crate) udp: Socket,
    pub(crate) alternates: Vec<Socket>,
    pub(crate) http: Door,
    pub(crate) admin: Option<Door>,
}

impl Bound {
    pub(crate) fn new(config: &ServerConfig, net: &dyn Net) -> Result<Self, StartError> {
        let udp = bind_udp(net, config.udp, "--udp")?;
        let alternates = match &config.udp_alternate {
            Alternate::NextPort => next_port(net, config.udp, udp.1).into_iter().collect(),
            Alternate::At(all) => {
                all.iter().map(|bind| bind_udp(net, *bind, "--udp-alternate")).collect::<Result<_, _>>()?
            }
        };
        let http = listen_tcp(net, config.http, "HTTP", "--http")?;
        let admin =
            config.admin.map(|admin| listen_tcp(net, admin, "the admin address", "--admin")).transpose()?;
        Ok(Self { udp, alternates, http, admin })
    }
}

/// The alternate that nobody asked for: without it a server works as well, but for what it tells about NATs.
fn next_port(net: &dyn Net, asked: Bind, main: SocketAddr) -> Option<Socket> {
    let port = if asked.addr.port() == 0 { 0 } else { main.port().checked_add(1)? };
    let bind = Bind { addr: SocketAddr::new(asked.addr.ip(), port), or_any_port: asked.or_any_port };
    match bind_udp(net, bind, "--udp-alternate") {
        Ok(socket) => Some(socket),
        Err(error) => {
            tracing::info!("no second UDP port: {error}");
            None
        }
    }
}

fn bind_udp(net: &dyn Net, bind: Bind, option: &'static str) -> Result<Socket, StartError> {
    let bound = bind.bind(|addr| {
        let link = net.bind_udp(addr)?;
        let addr = canonical(link.local_addr()?);
        Ok((link, addr))
    });
    bound.map_err(refused("UDP", option, bind.addr))
}

fn listen_tcp(
    net: &dyn Net,
    bind: Bind,
    what: &'static str,
    option: &'static str,
) -> Result<Door, StartError> {
    let bound = bind.bind(|addr| {
        let listener = net.listen_tcp(addr)?;
        let addr = canonical(listener.local_addr()?);
        Ok((listener, addr))
    });
    bound.map_err(refused(what, option, bind.addr))
}

/// Says what could not be listened on.
pub(crate) fn refused(
    what: &'static str,
    option: &'static str,
    addr: SocketAddr,
) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError { what, option, addr, source }
}
