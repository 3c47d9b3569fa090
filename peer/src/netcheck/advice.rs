//! What the findings mean, in one line.

use proto::nat::Dependence;

use super::{Netcheck, Ports};

/// One line of plain advice.
pub(super) fn advice(netcheck: &Netcheck) -> String {
    if !netcheck.udp {
        let cause = netcheck.cause.map(|cause| cause.to_string());
        let cause = cause.unwrap_or_else(|| "the server names no UDP address".to_owned());
        return format!("No UDP comes through: {cause}. Until then all data takes a relay.");
    }
    of_nat(netcheck).to_owned()
}

/// What the NAT means.
fn of_nat(netcheck: &Netcheck) -> &'static str {
    if !netcheck.is_seen_from_outside {
        return "UDP works; only a server outside of this network can tell what NAT there is: ask one with --server.";
    }
    if !netcheck.port_mapping.is_empty() {
        return "The router opens ports on request: direct paths to nearly everybody, whatever NAT they have.";
    }
    match (netcheck.mapping, netcheck.filtering) {
        (Some(Dependence::EndpointIndependent), Some(Dependence::EndpointIndependent)) => {
            "Everybody can send here: direct paths to all whose UDP is not blocked."
        }
        (Some(Dependence::EndpointIndependent), Some(Dependence::AddressDependent)) => {
            "An easy NAT: direct paths to nearly everybody, symmetric NATs included."
        }
        (Some(Dependence::EndpointIndependent), Some(Dependence::AddressAndPortDependent) | None) => {
            if netcheck.translated {
                "A common NAT: direct paths to nearly everybody; to symmetric NATs they take a moment."
            } else {
                "A public address behind a firewall: direct paths to nearly everybody; to symmetric NATs they take a moment."
            }
        }
        (Some(Dependence::AddressDependent | Dependence::AddressAndPortDependent), _) => match netcheck.ports
        {
            Some(Ports::Sequential { .. }) => {
                "A symmetric NAT that counts its ports: direct paths to all but symmetric NATs that draw theirs; port mapping (UPnP or PCP) in the router would reach those too."
            }
            Some(Ports::Preserved | Ports::Random { .. }) | None => {
                "A symmetric NAT that draws its ports: direct paths to all but other symmetric NATs; port mapping (UPnP or PCP) in the router would reach those too."
            }
        },
        (None, _) if !netcheck.silent_ports.is_empty() => {
            "UDP works; the server's second UDP port does not answer, so that netcheck can't tell what the NAT does."
        }
        (None, _) => "UDP works; this server has one UDP port alone, and can't tell what the NAT does.",
    }
}

#[cfg(test)]
mod tests {
    use proto::nat::Findings;
    use proto::no_udp::{Outcome, Refused, Tried};

    use super::super::ask::Found;
    use super::super::summary;
    use super::*;
    use crate::portmap::Protocol;

    #[test]
    fn every_finding_has_its_line_and_a_hard_nat_is_not_called_easy() {
        let mapped = "203.0.113.7:4000".parse().ok();
        let of = |mapping, filtering, port_mapping| {
            let v4 = Findings { mapped, mapping, filtering, is_translated: true, ..Findings::default() };
            advice(&summary(&Found { v4, ..Found::default() }, &[], port_mapping, vec![]))
        };
        let (ei, apd) = (Some(Dependence::EndpointIndependent), Some(Dependence::AddressAndPortDependent));
        assert!(of(ei, ei, vec![]).starts_with("Everybody"));
        assert!(of(ei, apd, vec![]).starts_with("A common NAT"));
        assert!(of(apd, apd, vec![]).starts_with("A symmetric NAT"));
        assert!(of(apd, apd, vec![Protocol::Pcp]).starts_with("The router opens ports"));
        assert!(of(None, None, vec![]).starts_with("UDP works"));
    }

    #[test]
    fn without_udp_both_sides_are_named_unless_more_is_known() {
        let at = "203.0.113.1:3478".parse().unwrap();
        let of = |outcome| {
            let tried = vec![Tried { at, outcome, is_by_name: true }];
            advice(&summary(&Found { tried, ..Found::default() }, &[], vec![], vec![]))
        };
        let silent = of(Outcome::Silent);
        assert!(silent.contains("either the server's firewall or this network drops it"), "{silent}");
        let here = of(Outcome::Refused(Refused::Here));
        assert!(here.starts_with("No UDP comes through: this machine's own firewall refuses"), "{here}");
    }

    #[test]
    fn what_is_seen_from_inside_says_nothing_of_the_nat() {
        let mapped = "192.168.1.1:4000".parse().ok();
        let ei = Some(Dependence::EndpointIndependent);
        let v4 = Findings { mapped, mapping: ei, filtering: ei, ..Findings::default() };
        let said = advice(&summary(&Found { v4, ..Found::default() }, &[], vec![], vec![]));
        assert!(said.starts_with("UDP works; only a server outside"), "{said}");
    }
}
