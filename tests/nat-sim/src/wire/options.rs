//! The command line of `nat-sim wire`.

use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Subnet;
use crate::kind::Kind;

/// What the laboratory does for real programs; `scripts/netns.sh` types it.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Be the router between the interfaces of this network namespace.
    Router(Options),
    /// Print the laboratory's expectations, one JSON object a line.
    Expectations,
}

/// Be the router between the interfaces of this network namespace.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// What the routers do: a name of `nat-sim list`, for IPv4.
    #[arg(long, value_name = "KIND")]
    pub kind: Kind,
    /// An interface to a LAN, and the router's address there: `lan=192.168.1.1/24`.
    #[arg(long, value_name = "IF=ADDR/BITS", required = true)]
    pub lan: Vec<LanPort>,
    /// The interface to the world, the router's address there, and its own gateway:
    /// `wan=198.51.100.2/26,198.51.100.1`.
    #[arg(long, value_name = "IF=ADDR/BITS,GATEWAY")]
    pub wan: WanPort,
    /// The least time that a packet takes, in milliseconds; each direction has it.
    #[arg(long, value_name = "MS", default_value = "0", value_parser = milliseconds)]
    pub delay: Duration,
    /// The most that is added to it.
    #[arg(long, value_name = "MS", default_value = "0", value_parser = milliseconds)]
    pub jitter: Duration,
    /// The share of packets that are lost: `0.05` or `5%`.
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    pub loss: f64,
    /// The share that is overtaken by those 10 ms behind.
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    pub reorder: f64,
    /// The share that arrives twice.
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    pub duplicate: f64,
    /// Bytes per second, with a queue of 64 KiB.
    #[arg(long, value_name = "BYTES")]
    pub rate: Option<u64>,
    /// The largest IP packet; larger ones are lost.
    #[arg(long, value_name = "BYTES", default_value_t = 1500)]
    pub mtu: usize,
    /// Where all chance comes from.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
}

/// An interface to a LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanPort {
    /// Its name.
    pub interface: String,
    /// The router's address there, and the LAN's.
    pub subnet: Subnet,
}

/// The interface to the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WanPort {
    /// Its name.
    pub interface: String,
    /// The router's public address, and who is on the same link.
    pub subnet: Subnet,
    /// The next hop to all others.
    pub upstream: Ipv4Addr,
}

impl FromStr for LanPort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (interface, address) = text.split_once('=')?;
            Some(Self { interface: interface.to_owned(), subnet: subnet(address)? })
        };
        read().ok_or("write it as lan=192.168.1.1/24")
    }
}

impl FromStr for WanPort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (interface, rest) = text.split_once('=')?;
            let (address, upstream) = rest.split_once(',')?;
            let upstream = upstream.parse().ok()?;
            Some(Self { interface: interface.to_owned(), subnet: subnet(address)?, upstream })
        };
        read().ok_or("write it as wan=198.51.100.2/26,198.51.100.1")
    }
}

fn subnet(text: &str) -> Option<Subnet> {
    let (address, prefix) = text.split_once('/')?;
    let subnet = Subnet { address: address.parse().ok()?, prefix: prefix.parse().ok()? };
    (subnet.prefix <= 32).then_some(subnet)
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "write milliseconds as a number".to_owned())?;
    Duration::try_from_secs_f64(number / 1_000.0).map_err(|error| error.to_string())
}

fn probability(text: &str) -> Result<f64, String> {
    let number = match text.strip_suffix('%') {
        Some(percent) => percent.parse().ok().map(|percent: f64| percent / 100.0),
        None => text.parse().ok(),
    };
    number.filter(|p| (0.0..=1.0).contains(p)).ok_or_else(|| "write a share: 0.05, or 5%".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_read_from_its_name_and_addresses() {
        let lan: LanPort = "lan=192.168.1.1/24".parse().unwrap();
        assert!(lan.interface == "lan" && lan.subnet.contains(Ipv4Addr::new(192, 168, 1, 2)));
        assert!(!lan.subnet.contains(Ipv4Addr::new(192, 168, 2, 2)));
        let wan: WanPort = "wan=198.51.100.2/26,198.51.100.1".parse().unwrap();
        assert_eq!((wan.subnet.address.octets()[3], wan.upstream.octets()[3]), (2, 1));
        for wrong in ["", "lan", "lan=1.2.3.4", "lan=1.2.3.4/33", "lan=1.2.3/24"] {
            assert!(wrong.parse::<LanPort>().is_err(), "{wrong}");
        }
        assert!("wan=1.2.3.4/8".parse::<WanPort>().is_err());
    }

    #[test]
    fn shares_and_times_have_limits() {
        assert_eq!((probability("0.05"), milliseconds("2.5")), (Ok(0.05), Ok(Duration::from_micros(2_500))));
        assert_eq!(probability("5%"), Ok(0.05));
        assert!(
            probability("5").is_err()
                && probability("101%").is_err()
                && probability("x").is_err()
                && milliseconds("-1").is_err()
        );
    }
}
