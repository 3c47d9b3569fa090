//! NAT64: IPv4 addresses as a network of IPv6 alone reaches them (RFC 6052), and how its prefix is learned (RFC 7050).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::candidate::{Scope, scope};

/// The name that has IPv6 addresses only where a network makes them up (RFC 7050 §8.1).
pub const NAME: &str = "ipv4only.arpa";

/// The IPv4 addresses of [`NAME`] (RFC 7050 §8.2).
const WELL_KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// How many bits a prefix may have (RFC 6052 §2.2). The longest is the usual one.
const LENGTHS: [u8; 6] = [96, 64, 56, 48, 40, 32];

/// The bits 64 to 71 of every such address are zero (RFC 6052 §2.2).
const RESERVED: usize = 8;

/// How many answers are looked at. There are two in an honest reply.
const MAX_ANSWERS: usize = 16;

/// Under which IPv6 prefix a network reaches IPv4 addresses: Pref64::/n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nat64Prefix {
    /// The prefix; the rest is zero.
    prefix: [u8; 16],
    /// Its bits: one of [`LENGTHS`].
    length: u8,
}

impl fmt::Display for Nat64Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv6Addr::from(self.prefix), self.length)
    }
}

impl Nat64Prefix {
    /// The prefix of these first bits of `addr`. `None` where no translator could have it: 32, 40, 48, 56, 64 and 96
    /// bits are what there is, bits 64 to 71 are zero, and loopback, link-local, multicast and IPv4-mapped
    /// addresses lead to no translator.
    pub fn new(addr: Ipv6Addr, length: u8) -> Option<Self> {
        if !LENGTHS.contains(&length) {
            return None;
        }
        let mut prefix = addr.octets();
        prefix[usize::from(length / 8)..].fill(0);
        (prefix[RESERVED] == 0 && is_sane(prefix)).then_some(Self { prefix, length })
    }

    /// The prefix that the IPv6 addresses of [`NAME`] show (RFC 7050 §3). `None` where they show none.
    ///
    /// Several prefixes are allowed; the first one wins. An address that could be read in two ways decides nothing
    /// unless another address, with the other of the two IPv4 addresses in it, shows which way is meant.
    pub fn learn(answers: &[Ipv6Addr]) -> Option<Self> {
        let answers = answers.get(..MAX_ANSWERS).unwrap_or(answers);
        let read: Vec<Vec<(Self, Ipv4Addr)>> = answers.iter().map(|answer| readings(*answer)).collect();
        let is_confirmed = |(prefix, one): &&(Self, Ipv4Addr)| {
            read.iter().flatten().any(|(other, another)| other == prefix && another != one)
        };
        let confirmed = read.iter().flatten().find(is_confirmed);
        let only = || read.iter().find_map(|readings| (readings.len() == 1).then(|| &readings[0]));
        confirmed.or_else(only).map(|(prefix, _)| *prefix)
    }

    /// The IPv6 address that stands for an IPv4 address on this network (RFC 6052 §2.3). Whether a packet may be sent
    /// there is to be decided by the IPv4 address: the translator's own network is no business of ours.
    pub fn synthesise(&self, ip: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.prefix;
        for (place, octet) in self.places().zip(ip.octets()) {
            octets[place] = octet;
        }
        octets.into()
    }

    /// The IPv4 address that an IPv6 address stands for on this network (RFC 6052 §2.3); `None` where it is none of the
    /// translator's. What follows the IPv4 address says nothing.
    pub fn extract(&self, ip: Ipv6Addr) -> Option<Ipv4Addr> {
        let octets = ip.octets();
        let length = usize::from(self.length / 8);
        (octets[..length] == self.prefix[..length] && octets[RESERVED] == 0).then(|| self.embedded(octets))
    }

    /// The address by which an IPv4 address of the Internet is reached through the NAT64; none for any other address, which
    /// needs no translation or gets none (RFC 6052 §3.1).
    pub fn reach(&self, addr: SocketAddr) -> Option<SocketAddr> {
        match addr.ip().to_canonical() {
            IpAddr::V4(ip) if scope(addr) == Scope::Global => {
                Some(SocketAddr::new(self.synthesise(ip).into(), addr.port()))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }

    /// How many bits it has.
    pub const fn length(&self) -> u8 {
        self.length
    }

    fn embedded(&self, octets: [u8; 16]) -> Ipv4Addr {
        let mut embedded = [0; 4];
        for (octet, place) in embedded.iter_mut().zip(self.places()) {
            *octet = octets[place];
        }
        embedded.into()
    }

    /// The places of the IPv4 address's octets: behind the prefix, around the reserved octet.
    fn places(&self) -> impl Iterator<Item = usize> + use<> {
        (usize::from(self.length / 8)..16).filter(|place| *place != RESERVED).take(4)
    }
}

/// All the ways in which an address may be one of [`WELL_KNOWN`].
fn readings(answer: Ipv6Addr) -> Vec<(Nat64Prefix, Ipv4Addr)> {
    let prefixes = LENGTHS.into_iter().filter_map(|length| Nat64Prefix::new(answer, length));
    let read = prefixes.filter_map(|prefix| Some((prefix, prefix.extract(answer)?)));
    read.filter(|(_, embedded)| WELL_KNOWN.contains(embedded)).collect()
}

/// Whether packets to addresses under a prefix could reach a translator.
fn is_sane(prefix: [u8; 16]) -> bool {
    let ip = Ipv6Addr::from(prefix);
    let is_zero_but_the_end = prefix[..10].iter().all(|octet| *octet == 0);
    // ::/80 holds the unspecified address, loopback, and IPv4-mapped and IPv4-compatible ones.
    !is_zero_but_the_end
        && !ip.is_multicast()
        && !ip.is_unicast_link_local()
        && IpAddr::V6(ip).to_canonical().is_ipv6()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn prefix(text: &str) -> Nat64Prefix {
        let (addr, length) = text.split_once('/').unwrap();
        Nat64Prefix::new(v6(addr), length.parse().unwrap()).unwrap()
    }

    /// RFC 6052 §2.4, tables 2 and 3, for 192.0.2.33.
    const EXAMPLES: [(&str, &str); 7] = [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
        ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
    ];

    #[test]
    fn the_rfcs_examples_hold_both_ways() {
        let ip = Ipv4Addr::new(192, 0, 2, 33);
        for (text, synthesised) in EXAMPLES {
            let prefix = prefix(text);
            assert_eq!(prefix.to_string(), text);
            assert_eq!(prefix.synthesise(ip), v6(synthesised), "{text}");
            assert_eq!(prefix.extract(v6(synthesised)), Some(ip), "{text}");
        }
    }

    #[test]
    fn a_prefix_is_learned_from_the_well_known_addresses_at_every_length() {
        for (text, _) in EXAMPLES {
            let prefix = prefix(text);
            let [first, second] = WELL_KNOWN.map(|ip| prefix.synthesise(ip));
            for answers in [vec![first], vec![second], vec![first, second], vec![second, first]] {
                assert_eq!(Nat64Prefix::learn(&answers), Some(prefix), "{text} from {answers:?}");
            }
        }
    }

    #[test]
    fn what_follows_the_embedded_address_says_nothing() {
        let learned = Nat64Prefix::learn(&[v6("2001:db8:c000:aa:0:1:2:3")]);
        assert_eq!(learned, Some(prefix("2001:db8::/32")));
        assert_eq!(learned.unwrap().extract(v6("2001:db8:c000:221::9")), Some(Ipv4Addr::new(192, 0, 2, 33)));
    }

    #[test]
    fn an_ordinary_address_is_none_of_the_translators() {
        let usual = prefix("64:ff9b::/96");
        for other in ["2001:db8::1", "64:ff9b:1::192.0.2.33", "64:ff9b::1:192.0.2.33", "::ffff:192.0.2.33"] {
            assert_eq!(usual.extract(v6(other)), None, "{other}");
        }
        assert_eq!(
            prefix("2001:db8::/32").extract(v6("2001:db8:c000:221:100::")),
            None,
            "bits 64 to 71 are set"
        );
    }

    #[test]
    fn of_several_prefixes_the_first_wins() {
        let (one, other) = (prefix("64:ff9b::/96"), prefix("2001:db8:122::/48"));
        let [ip, _] = WELL_KNOWN;
        assert_eq!(Nat64Prefix::learn(&[one.synthesise(ip), other.synthesise(ip)]), Some(one));
        assert_eq!(Nat64Prefix::learn(&[other.synthesise(ip), one.synthesise(ip)]), Some(other));
    }

    #[test]
    fn an_address_with_two_readings_is_decided_by_the_other_well_known_address() {
        // The prefix of 96 bits holds the well-known address behind its own first 32 bits.
        let meant = prefix("2001:db8:c000:aa::/96");
        let [first, second] = WELL_KNOWN.map(|ip| meant.synthesise(ip));
        assert_eq!(readings(first).len(), 2);
        assert_eq!(Nat64Prefix::learn(&[first]), None, "it may be either");
        assert_eq!(Nat64Prefix::learn(&[first, second]), Some(meant));
        assert_eq!(Nat64Prefix::learn(&[second, first]), Some(meant));
    }

    #[test]
    fn no_prefix_is_learned_from_nonsense() {
        for text in [
            "::",
            "::1",
            "::192.0.0.170",
            "::ffff:192.0.0.170",
            "fe80::192.0.0.170",
            "febf:ffff:c000:aa::",
            "ff02::192.0.0.170",
            "ff0e:0:c000:aa::",
            "64:ff9b::192.0.0.172",
            "64:ff9b::192.0.2.33",
            "2001:db8::100:0:192.0.0.170",
            "2001:db8::1",
        ] {
            assert_eq!(Nat64Prefix::learn(&[v6(text)]), None, "{text}");
        }
        assert_eq!(Nat64Prefix::learn(&[]), None);
        for length in [0, 31, 33, 95, 97, 128, 255] {
            assert_eq!(Nat64Prefix::new(v6("2001:db8::"), length), None, "/{length}");
        }
    }

    #[test]
    fn more_answers_than_an_honest_reply_has_are_not_looked_at() {
        let mut answers = vec![v6("2001:db8::1"); MAX_ANSWERS];
        answers.push(v6("64:ff9b::192.0.0.170"));
        assert_eq!(Nat64Prefix::learn(&answers), None);
        assert_eq!(Nat64Prefix::learn(&answers[1..]), Some(prefix("64:ff9b::/96")));
    }

    #[test]
    fn only_addresses_of_the_internet_are_reached_through_a_nat64() {
        let prefix = Nat64Prefix::new("64:ff9b::".parse().unwrap(), 96).unwrap();
        let reach = |text: &str| prefix.reach(text.parse().unwrap()).map(|addr| addr.to_string());
        assert_eq!(reach("192.0.2.1:3478").as_deref(), Some("[64:ff9b::c000:201]:3478"));
        assert_eq!(reach("[::ffff:192.0.2.1]:3478").as_deref(), Some("[64:ff9b::c000:201]:3478"));
        for none in ["10.0.0.5:1", "127.0.0.1:1", "169.254.169.254:80", "[2001:db8::1]:1"] {
            assert_eq!(reach(none), None, "{none}");
        }
    }
}
