//! What a server listens on, and why it can't.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::net::{Link, Listener, Net, canonical};
use crate::program::Failure;

/// An address to listen on, and what to do when it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind {
    /// The address. Port 0 lets the system choose.
    pub addr: SocketAddr,
    /// Whether any other port of the same address will do.
    pub or_any_port: bool,
}

impl Bind {
    /// This address and no other.
    pub const fn exactly(addr: SocketAddr) -> Self {
        Self { addr, or_any_port: false }
    }

    /// This address, or one on a free port.
    pub const fn preferring(addr: SocketAddr) -> Self {
        Self { addr, or_any_port: true }
    }

    /// Binds with `bind`, on the port asked for or, where that is allowed, on a free one.
    fn bind<T>(self, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
        match bind(self.addr) {
            Err(_) if self.or_any_port => bind(SocketAddr::new(self.addr.ip(), 0)),
            result => result,
        }
    }
}

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

/// A datagram socket, and its address with the port that it got.
pub type Socket = (Arc<dyn Link>, SocketAddr);

/// A listener, and its address with the port that it got.
pub type Door = (Box<dyn Listener>, SocketAddr);

/// Binds a datagram socket, which the user chooses with `option`.
///
/// # Errors
/// It can't be had.
pub fn bind_udp(net: &dyn Net, bind: Bind, option: &'static str) -> Result<Socket, StartError> {
    let bound = bind.bind(|addr| {
        let link = net.bind_udp(addr)?;
        let addr = canonical(link.local_addr()?);
        Ok((link, addr))
    });
    bound.map_err(refused("UDP", option, bind.addr))
}

/// Listens for TCP streams, at what the user chooses with `option`.
///
/// # Errors
/// It can't be had.
pub fn listen_tcp(
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
pub fn refused(
    what: &'static str,
    option: &'static str,
    addr: SocketAddr,
) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError { what, option, addr, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(bind: Bind, taken: u16) -> io::Result<SocketAddr> {
        bind.bind(|addr| if addr.port() == taken { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(addr) })
    }

    #[test]
    fn a_preferred_port_is_given_up_only_where_it_is_taken() {
        let addr = "127.0.0.1:9".parse().unwrap();
        assert_eq!(bind(Bind::preferring(addr), 8).unwrap(), addr);
        assert_eq!(bind(Bind::preferring(addr), 9).unwrap().port(), 0);
        assert!(bind(Bind::exactly(addr), 9).is_err());
    }
}
