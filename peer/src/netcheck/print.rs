//! What was found, for a human.

use std::net::IpAddr;

use proto::nat::Dependence;
use proto::no_udp::Cause;
use relay::program::Report;
use relay::program::report::clean;

use super::advice::advice;
use super::{Netcheck, Ports};

/// Prints it, with the advice last.
pub(super) fn print(netcheck: &Netcheck, report: &Report) {
    let line = |name: &str, value: &dyn std::fmt::Display| report.line(format_args!("{name:13} {value}"));
    match netcheck.rtt_ms {
        Some(rtt) => line("UDP", &format_args!("works, {rtt} ms to the server and back")),
        None if netcheck.udp => line("UDP", &"works"),
        None => {
            line("UDP", &format_args!("does not work: {}", netcheck.cause.map_or("no answer", Cause::brief)))
        }
    }
    line("public IPv4", &address(netcheck.public_v4, netcheck.seen_v4));
    line("public IPv6", &address(netcheck.public_v6, netcheck.seen_v6));
    if netcheck.udp {
        print_nat(netcheck, &line);
    }
    let protocols: Vec<&str> = netcheck.port_mapping.iter().map(|protocol| protocol.name()).collect();
    line("port mapping", &if protocols.is_empty() { "none found".to_owned() } else { protocols.join(", ") });
    for relay in &netcheck.relays {
        line("relay", &format_args!("{}, {} ms", clean(&relay.url), relay.rtt_ms));
    }
    report.line("");
    for warning in &netcheck.warnings {
        report.line(format_args!("Note: {}.", clean(warning)));
    }
    report.line(advice(netcheck));
}

fn address(public: Option<IpAddr>, seen: Option<IpAddr>) -> String {
    match (public, seen) {
        (Some(public), _) => public.to_string(),
        (None, Some(seen)) => format!("not known: the server sees {seen}, which is private"),
        (None, None) => "none".to_owned(),
    }
}

fn print_nat(netcheck: &Netcheck, line: &dyn Fn(&str, &dyn std::fmt::Display)) {
    let word = |found: Option<Dependence>| found.map_or("not found out", Dependence::name);
    let unsure = netcheck.server_addresses < 2;
    let mapping = match netcheck.mapping {
        Some(Dependence::EndpointIndependent) if unsure => {
            "endpoint-independent, as far as a server with one IP address can tell"
        }
        found => word(found),
    };
    let filtering = match netcheck.filtering {
        Some(Dependence::AddressDependent) if unsure => {
            "address-dependent or less: a server with one IP address can't tell"
        }
        found => word(found),
    };
    line("mapping", &mapping);
    line("filtering", &filtering);
    match netcheck.ports {
        Some(Ports::Preserved) => line("ports", &"preserved"),
        Some(Ports::Sequential { step }) => line("ports", &format_args!("sequential, step {step:+}")),
        Some(Ports::Random { first, last }) => {
            line("ports", &format_args!("random, about {first} to {last}"))
        }
        None => line("ports", &"not found out"),
    }
    match netcheck.hairpin {
        Some(true) => line("hairpin", &"yes"),
        Some(false) => line("hairpin", &"no"),
        None => line("hairpin", &"not found out"),
    }
}
