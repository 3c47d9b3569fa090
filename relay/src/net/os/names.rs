//! Names by the system's resolver, one family at a time. The standard library asks for both at once, and glibc's
//! answer comes when both are there: one question that a router drops costs 5 to 15 s.

use std::io;
use std::net::{IpAddr, SocketAddr};

use dns_lookup::{AddrFamily, AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};

use crate::net::{IpFamily, canonical};

/// As [`Net::resolve`](crate::net::Net::resolve) has it: `/etc/hosts` and whatever else the system knows count.
pub(super) async fn resolve(host: &str, port: u16, family: IpFamily) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        let addr = canonical(SocketAddr::new(ip, port));
        return Ok(of_family(vec![addr], family));
    }
    let host = host.to_owned();
    tokio::task::spawn_blocking(move || ask(&host, port, family)).await.map_err(io::Error::other)?
}

fn ask(host: &str, port: u16, family: IpFamily) -> io::Result<Vec<SocketAddr>> {
    let asked = match family {
        IpFamily::V4 => AddrFamily::Inet,
        IpFamily::V6 => AddrFamily::Inet6,
    };
    // One kind of socket, or each address comes three times.
    let hints = AddrInfoHints {
        address: asked.into(),
        socktype: SockType::Stream.into(),
        ..AddrInfoHints::default()
    };
    match getaddrinfo(Some(host), None, Some(hints)) {
        Ok(found) => {
            let found = found.filter_map(Result::ok).map(|mut found| {
                found.sockaddr.set_port(port);
                canonical(found.sockaddr)
            });
            Ok(of_family(found.collect(), family))
        }
        Err(error) if matches!(error.kind(), LookupErrorKind::NoName | LookupErrorKind::NoData) => {
            Ok(Vec::new())
        }
        Err(error) if matches!(error.kind(), LookupErrorKind::Again) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, io::Error::from(error)))
        }
        Err(error) => Err(error.into()),
    }
}

/// A mapped address is one of the other family's.
fn of_family(mut found: Vec<SocketAddr>, family: IpFamily) -> Vec<SocketAddr> {
    found.retain(|addr| IpFamily::of(addr.ip()) == family);
    found
}
