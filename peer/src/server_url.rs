//! The URL by which a user names a rendezvous.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use proto::id::PeerId;

use crate::error::Error;

/// A server's URL: `https://host[:port]`, or a bare `host[:port]` which means the same, checked by
/// certificate; or `http://host[:port][#PEERID]`, checked by the identity that is given or was pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// Whether the HTTP side is asked over TLS.
    pub tls: bool,
    /// The host: a name, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The identity, where the user gave it.
    pub peer_id: Option<PeerId>,
}

impl ServerUrl {
    /// `host:port`, as the `Host` field has it.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let default = if self.tls { 443 } else { 80 };
        if self.port == default { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for ServerUrl {
    /// Without the identity: this is the form that is pinned and written into tickets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl FromStr for ServerUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = |why| Error::ServerUrl { url: text.to_owned(), why };
        let (rest, identity) = match text.split_once('#') {
            Some((rest, identity)) => (rest, Some(identity)),
            None => (text, None),
        };
        let (tls, rest) = match rest.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return Err(error("it begins neither with https:// nor with http://")),
            None => (true, rest),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '@', ' ']) {
            return Err(error("there is more to it than a host and a port"));
        }
        if !authority.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(error(
                "its host has a character that no host has; a name in another script is written xn--…",
            ));
        }
        let (host, port) =
            split_port(authority).ok_or_else(|| error("its port is no number from 1 to 65535"))?;
        if host.is_empty() {
            return Err(error("it names no host"));
        }
        let is_address = authority.starts_with('[') && host.parse::<Ipv6Addr>().is_ok();
        if !is_address && authority.contains(['[', ']']) {
            return Err(error("what is in brackets is no IPv6 address"));
        }
        let peer_id = match identity {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| error("what follows # is no server identity"))?),
        };
        if tls && peer_id.is_some() {
            return Err(error("an https:// server is checked by its certificate, so # has no place in it"));
        }
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host: host.to_ascii_lowercase(), port, peer_id })
    }
}

/// The host without brackets, and the port if there is one.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let parse = |port: &str| port.parse().ok().filter(|port| *port != 0);
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(parse(port)?))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Some((host, Some(parse(port)?))),
        None => Some((authority, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_is_understood() {
        for (text, shown) in [
            ("example.com", "https://example.com"),
            ("Example.com:8443", "https://example.com:8443"),
            ("https://example.com/", "https://example.com"),
            ("http://203.0.113.1:8080", "http://203.0.113.1:8080"),
            ("http://[2001:db8::1]:8080", "http://[2001:db8::1]:8080"),
            ("http://example.com:80", "http://example.com"),
        ] {
            assert_eq!(text.parse::<ServerUrl>().unwrap().to_string(), shown, "{text}");
        }
        let id = PeerId::from_bytes([7; 32]);
        let url: ServerUrl = format!("http://example.com:8080#{id}").parse().unwrap();
        assert_eq!(url.peer_id, Some(id));
    }

    #[test]
    fn what_is_no_url_is_refused_with_a_reason() {
        for text in [
            "",
            "ftp://example.com",
            "http://",
            "http://host:0",
            "http://host:99999",
            "http://host:8080/path",
            "http://user@host",
            "http://host#nonsense",
            "http://[::1",
            "http://[host]:8",
            "http://[[2001]:8",
            "http://ho]st",
            "https://host#aaaa",
            "https://ho\0st:443",
            "https://bücher.example",
        ] {
            assert!(matches!(text.parse::<ServerUrl>(), Err(Error::ServerUrl { .. })), "{text}");
        }
    }
}
