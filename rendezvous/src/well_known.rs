//! `/.well-known/culvert`: all that a peer has to know of a server whose URL it was given.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use proto::id::PeerId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The path of the document.
pub const PATH: &str = "/.well-known/culvert";

/// The version of the document.
pub const VERSION: u8 = 1;

/// The document. Fields that it gains later are ignored by those who don't know them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WellKnown {
    /// [`VERSION`].
    pub version: u8,
    /// The server's identity.
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub peer_id: PeerId,
    /// Where it answers STUN and QUIC.
    pub udp: Vec<SocketAddr>,
    /// Where it answers STUN alone.
    #[serde(default)]
    pub udp_alternate: Vec<SocketAddr>,
    /// The relays that it recommends.
    #[serde(default)]
    pub relays: Vec<WellKnownRelay>,
    /// The domain of the gateway's subdomains.
    #[serde(default)]
    pub domain: String,
}

/// A relay in the document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WellKnownRelay {
    /// `http://…/relay` or `https://…/relay`.
    pub url: String,
    /// The relay's identity.
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub peer_id: PeerId,
}

fn to_text<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn from_text<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// The addresses by which `bound` is reached by somebody who reached this machine at `asked`: a wildcard
/// stands for that one, where the family fits, and everything else for itself.
pub(crate) fn reached_at(bound: &[SocketAddr], asked: IpAddr) -> Vec<SocketAddr> {
    let asked = asked.to_canonical();
    let concrete = |addr: &SocketAddr| match addr.ip() {
        ip if !ip.is_unspecified() => Some(*addr),
        // Bound to no family in particular: the socket has both.
        IpAddr::V6(_) => Some(SocketAddr::new(asked, addr.port())),
        IpAddr::V4(_) => asked.is_ipv4().then(|| SocketAddr::new(asked, addr.port())),
    };
    bound.iter().filter_map(concrete).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_the_documented_one() {
        let document = WellKnown {
            version: VERSION,
            peer_id: PeerId::from_bytes([7; 32]),
            udp: vec!["203.0.113.1:3478".parse().unwrap(), "[2001:db8::1]:3478".parse().unwrap()],
            udp_alternate: vec![],
            relays: vec![WellKnownRelay {
                url: "http://203.0.113.1:8080/relay".to_owned(),
                peer_id: PeerId::from_bytes([8; 32]),
            }],
            domain: "example.com".to_owned(),
        };
        let text = serde_json::to_string(&document).unwrap();
        let id = |n: u8| PeerId::from_bytes([n; 32]).to_string();
        assert_eq!(
            text,
            format!(
                concat!(
                    r#"{{"version":1,"peer_id":"{}","udp":["203.0.113.1:3478","[2001:db8::1]:3478"],"#,
                    r#""udp_alternate":[],"relays":[{{"url":"http://203.0.113.1:8080/relay","peer_id":"{}"}}],"#,
                    r#""domain":"example.com"}}"#
                ),
                id(7),
                id(8)
            )
        );
        assert_eq!(serde_json::from_str::<WellKnown>(&text).unwrap(), document);
    }

    #[test]
    fn a_wildcard_is_the_address_that_was_asked() {
        let at = |bound: &str, asked: &str| reached_at(&[bound.parse().unwrap()], asked.parse().unwrap());
        let is = |text: &str| vec![text.parse::<SocketAddr>().unwrap()];
        assert_eq!(at("[::]:1", "::ffff:192.0.2.1"), is("192.0.2.1:1"));
        assert_eq!(at("[::]:1", "2001:db8::1"), is("[2001:db8::1]:1"));
        assert_eq!(at("0.0.0.0:1", "192.0.2.1"), is("192.0.2.1:1"));
        assert_eq!(at("0.0.0.0:1", "2001:db8::1"), vec![]);
        assert_eq!(at("198.51.100.1:1", "192.0.2.1"), is("198.51.100.1:1"));
    }
}
