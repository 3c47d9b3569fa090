//! What a user shares: a local TCP service.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use proto::wire::peer::{Target, TargetKind};
use relay::net::{Net, Stream, resolve_all};
use tokio::time::timeout;

/// How long a target may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// A TCP service: `8000` on this machine, or `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpTarget {
    host: Option<String>,
    port: u16,
}

/// Why a text is no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a target is a port of this machine (8000) or host:port (192.168.1.10:80)")]
pub struct InvalidTarget;

impl TcpTarget {
    /// What a visitor may know of it.
    pub const fn describe(&self) -> Target {
        Target { kind: TargetKind::Tcp, port: self.port }
    }

    /// Opens a connection to it. A port of this machine is tried on IPv4 and then on IPv6: many servers
    /// listen on one of the two alone.
    ///
    /// # Errors
    /// What the last address said.
    pub async fn connect(&self, net: &dyn Net) -> io::Result<Stream> {
        let addrs = match &self.host {
            Some(host) => resolve_all(net, host, self.port).await?,
            None => [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
                .map(|ip| SocketAddr::new(ip, self.port))
                .to_vec(),
        };
        let mut first = None;
        for addr in addrs {
            match timeout(CONNECT, net.connect_tcp(addr)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => first = first.or(Some(error)),
                Err(_) => first = first.or(Some(io::ErrorKind::TimedOut.into())),
            }
        }
        Err(first.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "its name has no address")))
    }
}

impl fmt::Display for TcpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            None => write!(f, "127.0.0.1:{}", self.port),
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Some(host) => write!(f, "{host}:{}", self.port),
        }
    }
}

impl FromStr for TcpTarget {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let port = |text: &str| text.parse().ok().filter(|port| *port != 0).ok_or(InvalidTarget);
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self { host: None, port: port(text)? });
        }
        let (host, digits) = text.rsplit_once(':').ok_or(InvalidTarget)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                rest.strip_suffix(']').filter(|ip| ip.parse::<Ipv6Addr>().is_ok()).ok_or(InvalidTarget)?
            }
            None if host.contains(':') => return Err(InvalidTarget),
            None => host,
        };
        // What will be a target of another kind is not a host of that name until then.
        if matches!(host, "udp" | "unix") {
            return Err(InvalidTarget);
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(plain) {
            return Err(InvalidTarget);
        }
        Ok(Self { host: Some(host.to_owned()), port: port(digits)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_two_forms() {
        for (text, shown) in [
            ("8000", "127.0.0.1:8000"),
            ("nas.local:445", "nas.local:445"),
            ("192.168.1.10:80", "192.168.1.10:80"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(text.parse::<TcpTarget>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in [
            "", "0", "70000", "host", "host:", ":80", "a:b:80", "[::1]", "./folder", "unix:/x", "unix:1",
            "udp:53", "a b:1",
        ] {
            assert_eq!(text.parse::<TcpTarget>(), Err(InvalidTarget), "{text}");
        }
    }
}
