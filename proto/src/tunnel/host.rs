//! Whose a host is: the server's own, a name's, or nobody's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::name::ShareName;

/// The longest host, in bytes: a DNS name (RFC 1035 §2.3.4).
const MAX_HOST: usize = 253;

/// A host and perhaps a port, as in a URL or in `Host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// As it was written.
    text: String,
    /// In lower case, without a trailing dot; an IPv6 address without its brackets.
    host: String,
    port: Option<u16>,
    is_ip: bool,
}

impl Authority {
    /// Reads one: letters, digits, `-`, `_` and `.`, or an IPv6 address in brackets; then perhaps a port.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (host, port, is_v6) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) }, true)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port), false),
                None => (text, None, false),
            },
        };
        let port = match port {
            None | Some("") => None,
            Some(port) if port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(port.parse().ok()?)
            }
            Some(_) => return None,
        };
        let is_ip = if is_v6 { host.parse::<Ipv6Addr>().is_ok() } else { host.parse::<Ipv4Addr>().is_ok() };
        if is_v6 && !is_ip {
            return None;
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let named = host.strip_suffix('.').unwrap_or(host);
        if !is_v6
            && (named.is_empty()
                || named.len() > MAX_HOST
                || !named.bytes().all(plain)
                || named.split('.').any(str::is_empty))
        {
            return None;
        }
        Some(Self { text: text.to_owned(), host: named.to_ascii_lowercase(), port, is_ip })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host in lower case, without a trailing dot.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the host is an IP address.
    pub const fn is_ip(&self) -> bool {
        self.is_ip
    }

    /// Whether both name the same place. No port is port 80 or 443.
    pub fn same_as(&self, other: &Self) -> bool {
        let usual = |a: Option<u16>, b: Option<u16>| a.is_none() && matches!(b, Some(80 | 443));
        let port = self.port == other.port || usual(self.port, other.port) || usual(other.port, self.port);
        port && self.host == other.host
    }
}

/// Whom a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The server itself.
    Apex,
    /// A name under the domain.
    Name(ShareName),
    /// Nobody here.
    Unknown,
}

/// The hosts that a server answers to.
#[derive(Debug, Clone)]
pub struct Hosts {
    domain: String,
    apex: Vec<String>,
}

impl Hosts {
    /// Those of `domain`, and further names of the server itself.
    pub fn new<'a>(domain: &str, apex: impl IntoIterator<Item = &'a str>) -> Self {
        let clean = |text: &str| text.trim_end_matches('.').to_ascii_lowercase();
        Self { domain: clean(domain), apex: apex.into_iter().map(clean).collect() }
    }

    /// Whom a request to this host is for: the domain itself, an IP address, `localhost` and the further
    /// names are the server, and one label under the domain is a name.
    pub fn destination(&self, authority: &Authority) -> Destination {
        let host = authority.host();
        if authority.is_ip
            || host == self.domain
            || host == "localhost"
            || self.apex.iter().any(|apex| apex == host)
        {
            return Destination::Apex;
        }
        let label = host.strip_suffix(&self.domain).and_then(|label| label.strip_suffix('.'));
        label.and_then(|label| label.parse().ok()).map_or(Destination::Unknown, Destination::Name)
    }

    /// Whether the name's host is the server itself: who had the name would be visited by nobody.
    pub fn is_own(&self, name: &ShareName) -> bool {
        let label = |apex: &str| apex.strip_suffix(&self.domain)?.strip_suffix('.').map(str::to_owned);
        self.apex.iter().any(|apex| label(apex).as_deref() == Some(name.as_str()))
    }
}

/// Whether both addresses are one host's, as far as addresses tell: the same one, or this very machine's.
pub fn same_address(a: IpAddr, b: IpAddr) -> bool {
    let (a, b) = (a.to_canonical(), b.to_canonical());
    a == b || a.is_loopback() && b.is_loopback()
}

/// Whether both addresses count as one source: they are one host's, or of one /64 of IPv6, all of which a host
/// can have (its privacy addresses change by the hour, RFC 8981). A /64 is also a whole house's, office's or
/// cloud's: it is for counting, and lets nobody in.
pub fn same_source(a: IpAddr, b: IpAddr) -> bool {
    match (a.to_canonical(), b.to_canonical()) {
        (IpAddr::V6(a), IpAddr::V6(b)) if a.segments().iter().take(4).eq(b.segments().iter().take(4)) => true,
        (a, b) => same_address(a, b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(host: &str) -> Destination {
        let hosts = Hosts::new("Example.com.", ["gate.example.net"]);
        hosts.destination(&Authority::parse(host.as_bytes()).unwrap())
    }

    #[test]
    fn the_server_itself_has_many_hosts() {
        for host in [
            "example.com",
            "EXAMPLE.com.:80",
            "gate.example.net:8080",
            "localhost",
            "localhost:1",
            "127.0.0.1",
            "203.0.113.1:65535",
            "[::1]",
            "[2001:db8::1]:443",
        ] {
            assert_eq!(destination(host), Destination::Apex, "{host}");
        }
    }

    #[test]
    fn one_label_under_the_domain_is_a_name_and_nothing_else_is() {
        for (host, name) in [
            ("nas.example.com", "nas"),
            ("NAS.Example.com.:80", "nas"),
            ("constructor.example.com:1", "constructor"),
        ] {
            assert_eq!(destination(host), Destination::Name(name.parse().unwrap()), "{host}");
        }
        for host in [
            "a.b.example.com",
            "-a.example.com",
            "a_b.example.com",
            "nasexample.com",
            "example.org",
            "nas.localhost",
            "com",
            "nas.example.com.evil.org",
        ] {
            assert_eq!(destination(host), Destination::Unknown, "{host}");
        }
    }

    #[test]
    fn what_is_no_host_is_none() {
        for host in [
            "",
            ".",
            ":80",
            "a..b",
            "a:b",
            "a:1:2",
            "a:123456",
            "a:70000",
            "a b",
            "a/b",
            "a@b",
            "[::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            "[a]",
            "::1",
            "a,b",
            "ä",
            "a..",
            "[127.0.0.1]",
            "a\u{0}",
            "a:+1",
        ] {
            assert_eq!(Authority::parse(host.as_bytes()), None, "{host}");
        }
        assert_eq!(Authority::parse(&[b'a'; 254]), None);
    }

    #[test]
    fn a_host_of_the_servers_own_is_no_name_to_give_away() {
        let hosts = Hosts::new("example.com", ["Gate.Example.com", "nas.example.net", "a.b.example.com"]);
        let is_own = |name: &str| hosts.is_own(&name.parse().unwrap());
        assert!(is_own("gate") && !is_own("nas") && !is_own("b"));
    }

    #[test]
    fn a_source_is_an_address_a_network_or_this_machine() {
        let same = |a: &str, b: &str| same_source(a.parse().unwrap(), b.parse().unwrap());
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("127.0.0.1", "::1"));
        assert!(!same("127.0.0.1", "192.0.2.1"));
        let same = |a: &str, b: &str| same_address(a.parse().unwrap(), b.parse().unwrap());
        assert!(same("192.0.2.1", "::ffff:192.0.2.1") && same("127.0.0.1", "::1"));
        assert!(same("2001:db8::1", "2001:db8::1") && !same("2001:db8::1", "2001:db8::2"));
    }
}
