//! What the findings mean, in one line.

use proto::nat::Dependence;

use super::{Netcheck, Ports};

/// One line of plain advice.
pub(super) fn advice(netcheck: &Netcheck) -> &'static str {
    if !netcheck.udp {
        return "No UDP gets through here: let UDP out to the server's port, or data goes over a relay at best.";
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
        (None, _) => "UDP works; this server has one UDP port alone, and can't tell what the NAT does.",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Findings, summary};
    use super::*;
    use crate::portmap::Protocol;

    #[test]
    fn every_finding_has_its_line_and_a_hard_nat_is_not_called_easy() {
        let mapped = "203.0.113.7:4000".parse().ok();
        let of = |mapping, filtering, port_mapping| {
            let found = Findings { mapped, mapping, filtering, is_translated: true, ..Findings::default() };
            advice(&summary(found, Findings::default(), port_mapping, vec![]))
        };
        let (ei, apd) = (Some(Dependence::EndpointIndependent), Some(Dependence::AddressAndPortDependent));
        assert!(of(ei, ei, vec![]).starts_with("Everybody"));
        assert!(of(ei, apd, vec![]).starts_with("A common NAT"));
        assert!(of(apd, apd, vec![]).starts_with("A symmetric NAT"));
        assert!(of(apd, apd, vec![Protocol::Pcp]).starts_with("The router opens ports"));
        assert!(of(None, None, vec![]).starts_with("UDP works"));
        let blocked = summary(Findings::default(), Findings::default(), vec![], vec![]);
        assert!(advice(&blocked).starts_with("No UDP"));
    }
}
