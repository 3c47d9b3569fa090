//! Where a request comes from, when proxies stand between.

use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::request::RequestHead;

/// How many addresses of a chain are kept.
const MAX_CHAIN: usize = 16;

/// A network: an address and how many of its bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "(IpAddr, u8)", try_from = "(IpAddr, u8)")]
pub struct Cidr {
    ip: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a network such as 10.0.0.0/8 or 2001:db8::/32, or one address")]
pub struct InvalidCidr;

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let ip: IpAddr = ip.parse().map_err(|_| InvalidCidr)?;
        let all = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => all,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().map_err(|_| InvalidCidr)?
            }
            Some(_) => return Err(InvalidCidr),
        };
        Self::try_from((ip, bits))
    }
}

impl TryFrom<(IpAddr, u8)> for Cidr {
    type Error = InvalidCidr;

    fn try_from((ip, bits): (IpAddr, u8)) -> Result<Self, InvalidCidr> {
        let all = if ip.is_ipv4() { 32 } else { 128 };
        if bits > all { Err(InvalidCidr) } else { Ok(Self { ip, bits }) }
    }
}

impl From<Cidr> for (IpAddr, u8) {
    fn from(net: Cidr) -> Self {
        (net.ip, net.bits)
    }
}

impl Cidr {
    /// Whether an address is in the network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => same_bits(&net.octets(), &ip.octets(), self.bits),
            (IpAddr::V6(net), IpAddr::V6(ip)) => same_bits(&net.octets(), &ip.octets(), self.bits),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

fn same_bits(a: &[u8], b: &[u8], bits: u8) -> bool {
    let (whole, rest) = (usize::from(bits / 8), u32::from(bits % 8));
    let mask = !(0xff_u8.checked_shr(rest).unwrap_or(0));
    let part = |bytes: &[u8]| bytes.get(whole).map_or(0, |byte| byte & mask);
    a.get(..whole) == b.get(..whole) && (rest == 0 || part(a) == part(b))
}

/// Where a request comes from, as far as it can be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// The visitor's address.
    pub client: IpAddr,
    /// `http` or `https`, as the visitor sees it.
    pub scheme: &'static str,
    /// The addresses from the visitor to here, the last hop last.
    chain: Vec<IpAddr>,
    direct: bool,
}

impl Visit {
    /// Of a request that `peer` sent, through TLS or not. Only what a trusted proxy says is believed, and it alone: a
    /// visitor may have written whatever stands before that in the chain.
    pub fn new(peer: IpAddr, tls: bool, request: &RequestHead, trusted: &[Cidr]) -> Self {
        let is_proxy = trusts(trusted, peer);
        let claimed: Vec<&str> = match is_proxy {
            true => request.fields.all("x-forwarded-for").flat_map(|field| field.list()).collect(),
            false => Vec::new(),
        };
        let mut chain = chain(peer, &claimed, trusted);
        let mut scheme = if tls { "https" } else { "http" };
        if is_proxy {
            match request.fields.first("x-forwarded-proto") {
                Some(proto) if proto.eq_ignore_ascii_case("https") => scheme = "https",
                Some(proto) if proto.eq_ignore_ascii_case("http") => scheme = "http",
                Some(_) | None => {}
            }
        }
        chain.reverse();
        Self { client: chain.first().copied().unwrap_or(peer), scheme, chain, direct: !is_proxy }
    }

    /// Whether the visitor itself sent the request, and no trusted proxy.
    pub const fn is_direct(&self) -> bool {
        self.direct
    }

    /// The value of X-Forwarded-For.
    pub fn forwarded_for(&self) -> String {
        let chain: Vec<_> = self.chain.iter().map(IpAddr::to_string).collect();
        chain.join(", ")
    }

    /// The value of Forwarded (RFC 7239). `host` is as [`super::host::Authority`] has it: it needs quotes, and
    /// can't contain one.
    pub fn forwarded(&self, host: &str) -> String {
        let node = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => format!("for={ip}"),
            IpAddr::V6(ip) => format!("for=\"[{ip}]\""),
        };
        let hops: Vec<_> = self.chain.iter().map(node).collect();
        format!("{};host=\"{host}\";proto={}", hops.join(", "), self.scheme)
    }
}

/// Who really asks, where `peer` may be a trusted proxy that says so in X-Forwarded-For, of which `claimed` has the
/// members in their order. `None` behind one that says nothing.
pub fn client(peer: IpAddr, claimed: &[&str], trusted: &[Cidr]) -> Option<IpAddr> {
    chain(peer, claimed, trusted).last().copied().filter(|ip| !trusts(trusted, *ip))
}

fn trusts(trusted: &[Cidr], ip: IpAddr) -> bool {
    trusted.iter().any(|net| net.contains(ip))
}

/// The addresses from here to the visitor, as far as they can be believed.
fn chain(peer: IpAddr, claimed: &[&str], trusted: &[Cidr]) -> Vec<IpAddr> {
    let mut chain = vec![peer.to_canonical()];
    if trusts(trusted, peer) {
        for ip in claimed.iter().rev().take(MAX_CHAIN).map_while(|text| text.parse::<IpAddr>().ok()) {
            chain.push(ip.to_canonical());
            if !trusts(trusted, ip) {
                break;
            }
        }
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(peer: &str, fields: &str, trusted: &[&str]) -> Visit {
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        let trusted: Vec<Cidr> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        Visit::new(peer.parse().unwrap(), false, &RequestHead::parse(head.as_bytes()).unwrap(), &trusted)
    }

    #[test]
    fn a_network_contains_its_addresses() {
        let inside = |net: &str, ip: &str| net.parse::<Cidr>().unwrap().contains(ip.parse().unwrap());
        assert!(inside("10.0.0.0/8", "10.255.0.1") && inside("10.0.0.0/8", "::ffff:10.0.0.1"));
        assert!(!inside("10.0.0.0/8", "11.0.0.1") && !inside("10.0.0.0/8", "::1"));
        assert!(inside("192.0.2.128/25", "192.0.2.200") && !inside("192.0.2.128/25", "192.0.2.127"));
        assert!(inside("2001:db8::/33", "2001:db8:7fff::1") && !inside("2001:db8::/33", "2001:db8:8000::1"));
        assert!(inside("0.0.0.0/0", "192.0.2.1") && inside("::1", "::1") && !inside("::1", "::2"));
        for text in ["", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "::/129", "x/8"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_strangers_word_about_itself_is_nothing() {
        let fields = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n";
        let visit = visit("192.0.2.1", fields, &["10.0.0.0/8"]);
        assert_eq!((visit.client, visit.scheme), ("192.0.2.1".parse().unwrap(), "http"));
        assert_eq!(visit.forwarded_for(), "192.0.2.1");
        assert_eq!(visit.forwarded("x:1"), "for=192.0.2.1;host=\"x:1\";proto=http");
    }

    #[test]
    fn a_trusted_proxy_is_believed_as_far_as_it_saw() {
        let fields = "X-Forwarded-For: 1.1.1.1, 203.0.113.9\r\nX-Forwarded-For: 10.0.0.2\r\nX-Forwarded-Proto: https\r\n";
        let visit = visit("10.0.0.1", fields, &["10.0.0.0/8"]);
        assert_eq!((visit.client, visit.scheme), ("203.0.113.9".parse().unwrap(), "https"));
        assert_eq!(visit.forwarded_for(), "203.0.113.9, 10.0.0.2, 10.0.0.1");
        assert_eq!(
            visit.forwarded("x"),
            "for=203.0.113.9, for=10.0.0.2, for=10.0.0.1;host=\"x\";proto=https"
        );
    }

    #[test]
    fn a_chain_that_is_none_ends_where_it_stops_being_one() {
        let trusted = &["10.0.0.0/8", "2001:db8::/32"];
        assert_eq!(visit("10.0.0.1", "X-Forwarded-For: unknown\r\n", trusted).forwarded_for(), "10.0.0.1");
        assert_eq!(visit("10.0.0.1", "", trusted).forwarded_for(), "10.0.0.1");
        let many = format!("X-Forwarded-For: {}10.0.0.9\r\n", "10.0.0.7, ".repeat(500));
        assert_eq!(visit("10.0.0.1", &many, trusted).chain.len(), MAX_CHAIN + 1);
        let six = visit("2001:db8::1", "X-Forwarded-For: 2001:db9::1\r\n", trusted);
        assert_eq!(six.forwarded("x"), "for=\"[2001:db9::1]\", for=\"[2001:db8::1]\";host=\"x\";proto=http");
    }

    #[test]
    fn who_asks_is_known_as_far_as_a_trusted_proxy_tells() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let client = |peer: &str, claimed: &[&str]| client(peer.parse().unwrap(), claimed, &trusted);
        assert_eq!(client("192.0.2.1", &["6.6.6.6"]), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "192.0.2.7"]), Some("192.0.2.7".parse().unwrap()));
        assert_eq!(client("10.0.0.1", &["192.0.2.7", "10.9.9.9"]), Some("192.0.2.7".parse().unwrap()));
        assert_eq!(client("10.0.0.1", &[]), None);
        assert_eq!(client("10.0.0.1", &["unknown"]), None);
    }
}
