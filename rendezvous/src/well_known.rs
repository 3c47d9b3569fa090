//! `/.well-known/culvert`: all that a peer has to know of a server whose URL it was given.

use std::fmt::Display;
use std::net::SocketAddr;
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
    /// Where it may answer STUN and QUIC, best first; none where it is reached by a relay alone.
    pub udp: Vec<SocketAddr>,
    /// Where it answers STUN alone.
    #[serde(default)]
    pub udp_alternate: Vec<SocketAddr>,
    /// The ports of all of these, that of QUIC first: for who knows better at which address this server is reached.
    #[serde(default)]
    pub udp_ports: Vec<u16>,
    /// The relays that it recommends, best first.
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
            udp_ports: vec![3478, 3479],
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
                    r#""udp_alternate":[],"udp_ports":[3478,3479],"relays":[{{"url":"http://203.0.113.1:8080/relay","peer_id":"{}"}}],"#,
                    r#""domain":"example.com"}}"#
                ),
                id(7),
                id(8)
            )
        );
        assert_eq!(serde_json::from_str::<WellKnown>(&text).unwrap(), document);
    }
}
