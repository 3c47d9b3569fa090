//! Tickets: one line of text that lets its holder in to a share.
//!
//! `culvert1` and then lower-case base32 of postcard([`Ticket`]) and the first four bytes of its SHA-256.
//! Addresses, relay and expiry in it are hints; the sharer alone decides.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::candidate::{Scope, scope};
use crate::id::{PeerId, ShareId, TicketId};
use crate::proof::TicketSecret;
use crate::wire::signal::{MAX_URL, RelayHint};
use crate::wire::{self, VERSION};

/// What every ticket starts with. The digit is the text form's version.
pub const PREFIX: &str = "culvert1";

/// The longest ticket, in characters. Real ones have 200 to 400.
pub const MAX_TEXT: usize = 2000;

/// The most addresses of a server in a ticket.
pub const MAX_ADDRS: usize = 8;

const CHECKSUM: usize = 4;

/// The server of a share, with what its holder needs to find it and to know it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerHint {
    /// The URL of its HTTP side.
    pub url: String,
    /// Where its UDP port was, most likely first.
    pub udp: Vec<SocketAddr>,
    /// Its identity.
    pub peer_id: PeerId,
}

/// From where a server is reached by the URL that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reachable {
    /// As far as the URL says, from anywhere.
    Anywhere,
    /// From its own network alone.
    Network,
    /// From its own machine alone.
    Machine,
}

/// The ends of names that only one network knows (RFC 6762 §3, RFC 8375 §3, and what routers give out).
const LOCAL_NAMES: [&str; 5] = [".local", ".lan", ".home", ".internal", ".home.arpa"];

impl Reachable {
    /// That of a host: a name, or an address without brackets.
    pub fn of(host: &str) -> Self {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return match scope(SocketAddr::new(ip, 1)) {
                Scope::Loopback => Self::Machine,
                Scope::Local => Self::Network,
                Scope::Global | Scope::Unusable => Self::Anywhere,
            };
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        // RFC 6761 §6.3.
        if host == "localhost" || host.ends_with(".localhost") {
            Self::Machine
        } else if !host.contains('.') || LOCAL_NAMES.iter().any(|end| host.ends_with(end)) {
            Self::Network
        } else {
            Self::Anywhere
        }
    }
}

impl ServerHint {
    /// The host of its URL, without brackets and port; empty where that is no URL.
    pub fn host(&self) -> &str {
        let authority = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        let authority = authority.split('/').next().unwrap_or_default();
        match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        }
    }

    /// From where it is reached.
    pub fn reachable(&self) -> Reachable {
        Reachable::of(self.host())
    }

    /// The hint of a ticket that others made, which may lie: what is narrower than its URL stays only where `is_near`
    /// says that we are in that network too.
    #[must_use]
    pub fn from_others(mut self, is_near: impl Fn(IpAddr) -> bool) -> Self {
        let reachable = self.reachable();
        self.udp.retain(|addr| {
            reachable.may_lead_to(*addr) || scope(*addr) == Scope::Local && is_near(addr.ip().to_canonical())
        });
        self
    }

    /// The hint as others get it: a loopback address leads them to their own machine, so it stays only where the URL
    /// leads there too. One of each family is enough to begin with: the URL is asked where else the UDP port is.
    #[must_use]
    pub fn for_others(mut self) -> Self {
        if self.reachable() != Reachable::Machine {
            self.udp.retain(|addr| scope(*addr) != Scope::Loopback);
        }
        let first = |v4: bool| self.udp.iter().position(|addr| addr.ip().to_canonical().is_ipv4() == v4);
        let mut kept: Vec<usize> = [first(true), first(false)].into_iter().flatten().collect();
        kept.sort_unstable();
        self.udp = kept.into_iter().filter_map(|place| self.udp.get(place).copied()).collect();
        self
    }
}

impl Reachable {
    /// Whether a host that is reached from so far may lead to this address. A name that anybody can make must not aim
    /// us at our own machine or network.
    pub fn may_lead_to(self, addr: SocketAddr) -> bool {
        match scope(addr) {
            Scope::Unusable => false,
            Scope::Loopback => self == Self::Machine,
            Scope::Local => self != Self::Anywhere,
            Scope::Global => true,
        }
    }
}

/// A ticket's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// [`VERSION`].
    pub version: u8,
    /// By which the sharer knows it.
    pub id: TicketId,
    /// What lets its holder in.
    #[serde(with = "secret_bytes")]
    pub secret: TicketSecret,
    /// When it ends, in seconds since 1970, if it does.
    pub expires: Option<u64>,
    /// The share.
    pub share: ShareId,
    /// Where the sharer is registered.
    pub server: ServerHint,
    /// The relay at which the sharer waited when the ticket was made.
    pub relay: Option<RelayHint>,
    /// The sharer.
    pub sharer: PeerId,
}

/// Why a text is not a ticket. Each says what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTicket {
    /// It does not begin as one.
    #[error(
        "this is not a ticket: one begins with \"{PREFIX}\"; copy the whole line that `peer share` prints"
    )]
    NotATicket,
    /// It is of a later version.
    #[error("this ticket is for a newer version of this program; update it and try again")]
    Newer,
    /// A character that base32 does not have.
    #[error("this ticket has a mistyped character (number {0}); copy it again rather than typing it")]
    Character(usize),
    /// The checksum does not fit.
    #[error("this ticket is mistyped or cut short (its checksum does not fit); copy it again")]
    Checksum,
    /// The checksum fits, and the content breaks a limit.
    #[error("this ticket's content makes no sense; ask for a new one")]
    Content,
}

impl Ticket {
    /// The text form: the prefix and letters a–z and digits 2–7, one word.
    pub fn to_text(&self) -> String {
        let mut bytes = wire::body(self);
        let sum = checksum(&bytes);
        bytes.extend(sum);
        format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl FromStr for Ticket {
    type Err = InvalidTicket;

    fn from_str(text: &str) -> Result<Self, InvalidTicket> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Err(InvalidTicket::NotATicket);
        }
        let lower = text.to_ascii_lowercase();
        let Some(code) = lower.strip_prefix(PREFIX) else {
            let newer = lower.strip_prefix("culvert").and_then(|rest| rest.chars().next());
            return Err(match newer {
                Some(digit @ '2'..='9') if digit.is_ascii_digit() => InvalidTicket::Newer,
                _ => InvalidTicket::NotATicket,
            });
        };
        let bytes = decode(code)?;
        let Some(split) = bytes.len().checked_sub(CHECKSUM) else { return Err(InvalidTicket::Checksum) };
        let (content, sum) = bytes.split_at(split);
        if checksum(content) != sum {
            return Err(InvalidTicket::Checksum);
        }
        let (ticket, _): (Self, _) =
            postcard::take_from_bytes(content).map_err(|_| InvalidTicket::Content)?;
        if ticket.version != VERSION {
            return Err(InvalidTicket::Newer);
        }
        let relay_url = ticket.relay.as_ref().map_or(0, |relay| relay.url.len());
        if ticket.server.udp.len() > MAX_ADDRS || ticket.server.url.len().max(relay_url) > MAX_URL {
            return Err(InvalidTicket::Content);
        }
        Ok(ticket)
    }
}

fn decode(code: &str) -> Result<Vec<u8>, InvalidTicket> {
    let valid = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
    if let Some(at) = code.bytes().position(|byte| !valid(byte)) {
        return Err(InvalidTicket::Character(PREFIX.len() + at + 1));
    }
    // A length that base32 can't have, or stray bits at the end: something was cut off.
    BASE32_NOPAD.decode(code.to_ascii_uppercase().as_bytes()).map_err(|_| InvalidTicket::Checksum)
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM] {
    let hash = digest::digest(&digest::SHA256, content);
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&hash.as_ref()[..CHECKSUM]);
    sum
}

mod secret_bytes {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::TicketSecret;

    pub(super) fn serialize<S: Serializer>(secret: &TicketSecret, serializer: S) -> Result<S::Ok, S::Error> {
        secret.as_bytes().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TicketSecret, D::Error> {
        <[u8; 16]>::deserialize(deserializer).map(TicketSecret::from_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            version: VERSION,
            id: TicketId([1; 8]),
            secret: TicketSecret::from_bytes([2; 16]),
            expires: Some(1_800_000_000),
            share: ShareId([3; 8]),
            server: ServerHint {
                url: "http://203.0.113.1:8080".into(),
                udp: vec!["203.0.113.1:3478".parse().unwrap(), "[2001:db8::1]:3478".parse().unwrap()],
                peer_id: PeerId::from_bytes([4; 32]),
            },
            relay: None,
            sharer: PeerId::from_bytes([5; 32]),
        }
    }

    #[test]
    fn a_ticket_survives_its_text_form() {
        let text = ticket().to_text();
        assert!(text.starts_with("culvert1") && text.len() < 400, "{text}");
        assert_eq!(text.parse(), Ok(ticket()));
        assert_eq!(format!("  {}\n", text.to_uppercase()).parse(), Ok(ticket()));
    }

    #[test]
    fn the_bytes_of_a_ticket_are_pinned() {
        // A change of this breaks every ticket in the world.
        assert_eq!(ticket().to_text(), include_str!("../tests/pins/ticket.txt").trim());
    }

    #[test]
    fn every_mistyped_character_is_noticed() {
        let text = ticket().to_text();
        for at in PREFIX.len()..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            let mistyped = String::from_utf8(bytes).unwrap();
            assert_eq!(mistyped.parse::<Ticket>(), Err(InvalidTicket::Checksum), "at {at}");
        }
    }

    #[test]
    fn a_cut_ticket_is_noticed_at_every_length() {
        let text = ticket().to_text();
        for length in 0..text.len() {
            assert!(text[..length].parse::<Ticket>().is_err(), "at {length}");
        }
    }

    #[test]
    fn each_mistake_has_its_own_words() {
        assert_eq!("hello".parse::<Ticket>(), Err(InvalidTicket::NotATicket));
        assert_eq!("culvert2abc".parse::<Ticket>(), Err(InvalidTicket::Newer));
        assert_eq!("culvert1ab!c".parse::<Ticket>(), Err(InvalidTicket::Character(11)));
    }

    #[test]
    fn a_url_says_from_where_its_server_is_reached() {
        for (reach, urls) in [
            (
                Reachable::Anywhere,
                &["https://example.com", "http://203.0.113.1:8080", "http://[2001:db8::1]:8080"][..],
            ),
            (
                Reachable::Network,
                &[
                    "http://192.168.1.9:8080",
                    "http://[fd00::9]:8080",
                    "http://nas:8080",
                    "https://nas.lan",
                    "http://nas.local:1",
                ],
            ),
            (
                Reachable::Machine,
                &["http://localhost:8080", "http://127.0.1.1:8080", "https://[::1]", "http://a.localhost"],
            ),
        ] {
            for url in urls {
                let hint = ServerHint { url: (*url).into(), ..ticket().server };
                assert_eq!(hint.reachable(), reach, "{url}");
            }
        }
    }

    #[test]
    fn loopback_goes_into_a_ticket_only_where_the_url_is_loopback_too() {
        let udp: Vec<SocketAddr> = ["127.0.1.1:3478", "[::ffff:127.0.0.1]:3478", "203.0.113.1:3478"]
            .map(|addr| addr.parse().unwrap())
            .to_vec();
        let hint = |url: &str| ServerHint { url: url.into(), udp: udp.clone(), ..ticket().server };
        assert_eq!(hint("https://example.com").for_others().udp, udp[2..]);
        assert_eq!(hint("http://192.168.1.9:8080").for_others().udp, udp[2..]);
        assert_eq!(hint("http://localhost:8080").for_others().udp, udp[..1]);
    }

    #[test]
    fn a_ticket_of_others_aims_us_at_no_machine_or_network_of_ours() {
        let udp = [
            "127.0.0.1:53",
            "[::ffff:127.0.0.1]:53",
            "169.254.169.254:80",
            "192.168.1.1:53",
            "203.0.113.1:1",
        ];
        let udp: Vec<SocketAddr> = udp.map(|addr| addr.parse().unwrap()).to_vec();
        let tried = |url: &str, is_near: bool| {
            let hint = ServerHint { url: url.into(), udp: udp.clone(), ..ticket().server };
            hint.from_others(|_| is_near).udp
        };
        assert_eq!(tried("https://example.com", false), udp[4..]);
        assert_eq!(tried("https://example.com", true), udp[3..]);
        assert_eq!(tried("http://nas.lan:8080", false), udp[3..]);
        assert_eq!(tried("http://localhost:8080", false), [&udp[..2], &udp[3..]].concat());
    }

    #[test]
    fn a_ticket_names_the_first_address_of_each_family() {
        let udp = ["[2001:db8::1]:1", "203.0.113.1:1", "203.0.113.2:1", "[2001:db8::2]:1"];
        let udp: Vec<SocketAddr> = udp.map(|addr| addr.parse().unwrap()).to_vec();
        let hint = ServerHint { udp: udp.clone(), ..ticket().server };
        assert_eq!(hint.for_others().udp, udp[..2]);
    }

    #[test]
    fn debug_output_has_no_secret() {
        assert!(!format!("{:?}", ticket()).contains("2, 2, 2"));
    }
}
