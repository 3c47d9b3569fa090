//! What the server's operator should mend, in one line each.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use proto::candidate::{Family, Scope, canonical, scope};
use proto::no_udp::{Outcome, Refused, Tried};

use super::ask::Found;

/// All of them. `own` are this machine's addresses.
pub(super) fn warnings(found: &Found, own: &[IpAddr]) -> Vec<String> {
    let seen = [found.v4.mapped, found.v6.mapped].into_iter().flatten();
    let mut lines: Vec<String> = seen.filter_map(|seen| of_seen(seen, found, own)).collect();
    lines.extend(misnamed(&found.tried));
    let has_answered = found.tried.iter().any(Tried::is_answered);
    // Where the main port is silent, that is the news.
    lines.extend(silent_ports(found).into_iter().filter(|_| has_answered).map(|port| {
        format!(
            "UDP port {port} of the server does not answer: its operator should open it; without it, some symmetric NATs \
             get no direct paths"
        )
    }));
    lines
}

/// The ports that do not answer, at addresses where another one does.
pub(super) fn silent_ports(found: &Found) -> Vec<u16> {
    let all = || found.tried.iter().chain(&found.beside);
    let answers_at = |ip: IpAddr| all().any(|tried| tried.is_answered() && tried.at.ip() == ip);
    let silent = all().filter(|tried| is_silent(tried) && answers_at(tried.at.ip()));
    silent.map(|tried| tried.at.port()).collect::<BTreeSet<u16>>().into_iter().collect()
}

fn is_silent(tried: &Tried) -> bool {
    match tried.outcome {
        Outcome::Silent | Outcome::Refused(Refused::PortClosed | Refused::OnTheWay(_)) => true,
        Outcome::Answered(_) | Outcome::Refused(Refused::NoRoute | Refused::Here) => false,
    }
}

/// How the server's view of this machine differs from what others see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// It is the one that everybody has, as far as the server can tell.
    Public,
    /// The server is on this machine.
    OwnMachine,
    /// The two are in one network, or behind one router.
    Inside,
    /// Something at the server hides its clients.
    Hidden,
}

/// What the address at which the server sees this machine says of the place that it sees it from.
pub(super) fn view(seen: SocketAddr, server: Option<SocketAddr>, own: &[IpAddr]) -> View {
    let seen = canonical(seen);
    let is_here = |addr: SocketAddr| scope(addr) == Scope::Loopback || own.contains(&addr.ip());
    match scope(seen) {
        Scope::Global | Scope::Unusable => View::Public,
        Scope::Loopback | Scope::Local if server.is_some_and(is_here) => View::OwnMachine,
        Scope::Loopback => View::Hidden,
        Scope::Local if own.contains(&seen.ip()) => View::Inside,
        Scope::Local if is_dockers(seen.ip()) && !own.iter().any(|ip| is_dockers(*ip)) => View::Hidden,
        Scope::Local => View::Inside,
    }
}

/// What Docker gives its networks first, and few routers give their homes: 172.16.0.0/12.
fn is_dockers(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 172 && v4.octets()[1] & 0xf0 == 16)
}

/// Where the server answered, in the family of an address.
pub(super) fn server_of(seen: SocketAddr, tried: &[Tried]) -> Option<SocketAddr> {
    let same = |tried: &&Tried| tried.is_answered() && Family::of(tried.at) == Family::of(seen);
    tried.iter().find(same).map(|tried| tried.at)
}

fn of_seen(seen: SocketAddr, found: &Found, own: &[IpAddr]) -> Option<String> {
    let ip = seen.ip().to_canonical();
    match view(seen, server_of(seen, &found.tried), own) {
        View::Public | View::OwnMachine => None,
        View::Inside => Some(format!(
            "the server sees {ip}, which is private: the server and this machine are behind the same router, or a proxy \
             or Docker hides the clients there; which address others see is not known"
        )),
        View::Hidden => Some(format!(
            "the server sees this machine as {ip}: a proxy or Docker hides all clients there, so that no direct path can \
             be found; its operator should use host networking, or name the proxy with --trusted-proxy"
        )),
    }
}

/// An address in the server's document that leads nowhere, while its URL's does.
fn misnamed(tried: &[Tried]) -> Option<String> {
    let right = tried.iter().find(|tried| tried.is_answered() && tried.is_by_name)?;
    let is_wrong = |other: &&Tried| {
        is_silent(other) && !other.is_by_name && Family::of(other.at) == Family::of(right.at)
    };
    let wrong = tried.iter().find(is_wrong)?;
    Some(format!(
        "the server says that its UDP address is {}, which does not answer here, and it does answer at {}: its operator \
         should name that one with --udp-public",
        wrong.at, right.at
    ))
}

#[cfg(test)]
mod tests {
    use proto::nat::Findings;

    use super::*;

    const SERVER: &str = "203.0.113.1:3478";
    const SECOND: &str = "203.0.113.1:3479";

    fn tried(at: &str, is_answered: bool, is_by_name: bool) -> Tried {
        let seen = "198.51.100.7:4000".parse().unwrap();
        let outcome = if is_answered { Outcome::Answered(seen) } else { Outcome::Silent };
        Tried { at: at.parse().unwrap(), outcome, is_by_name }
    }

    fn found(seen: &str, tried: Vec<Tried>, beside: Vec<Tried>) -> Found {
        let v4 = Findings { mapped: seen.parse().ok(), ..Findings::default() };
        Found { v4, tried, beside, ..Found::default() }
    }

    fn lines(seen: &str, server: &str, own: &[&str]) -> Vec<String> {
        let own: Vec<IpAddr> = own.iter().map(|ip| ip.parse().unwrap()).collect();
        warnings(&found(seen, vec![tried(server, true, true)], vec![]), &own)
    }

    #[test]
    fn a_private_view_is_named_and_a_public_one_or_the_servers_own_machine_is_not() {
        let own = ["192.168.1.2"];
        assert_eq!(lines("198.51.100.7:4000", SERVER, &own), [""; 0]);
        assert_eq!(lines("127.0.0.1:4000", "127.0.0.1:3478", &own), [""; 0]);
        assert_eq!(lines("192.168.1.2:4000", "192.168.1.2:3478", &own), [""; 0]);
        for (seen, server) in [
            ("192.168.1.2:4000", "192.168.1.9:3478"),
            ("192.168.1.1:4000", SERVER),
            ("192.168.1.2:4000", SERVER),
        ] {
            let said = lines(seen, server, &own);
            assert!(
                said[0].contains("which is private: the server and this machine are behind the same"),
                "{seen}"
            );
        }
        for (seen, server) in [("172.17.0.1:4000", SERVER), ("127.0.0.1:4000", SERVER)] {
            let said = lines(seen, server, &own);
            assert!(said[0].contains("a proxy or Docker hides all clients there, so"), "{seen}");
        }
        let in_docker = lines("172.17.0.3:4000", "172.17.0.2:3478", &["172.17.0.3"]);
        assert!(in_docker[0].contains("behind the same router"), "{in_docker:?}");
    }

    #[test]
    fn a_silent_port_is_named_where_the_server_answers_at_another_one() {
        let public = "198.51.100.7:4000";
        let alternate = found(public, vec![tried(SERVER, true, true)], vec![tried(SECOND, false, true)]);
        assert_eq!(silent_ports(&alternate), [3479]);
        assert!(warnings(&alternate, &[])[0].starts_with("UDP port 3479 of the server does not answer"));
        let main = found("", vec![tried(SERVER, false, true)], vec![tried(SECOND, true, true)]);
        assert_eq!((silent_ports(&main), warnings(&main, &[])), (vec![3478], vec![]));
        let none = found("", vec![tried(SERVER, false, true)], vec![tried(SECOND, false, true)]);
        assert_eq!(silent_ports(&none), [0; 0]);
    }

    #[test]
    fn a_document_with_an_address_that_leads_nowhere_is_named_where_the_urls_answers() {
        let private = tried("10.0.0.5:3478", false, false);
        let said = warnings(&found("198.51.100.7:1", vec![private, tried(SERVER, true, true)], vec![]), &[]);
        assert!(said[0].contains("10.0.0.5:3478") && said[0].contains(SERVER), "{said:?}");
        let v6 = tried("[2001:db8::1]:3478", false, false);
        assert_eq!(misnamed(&[v6, tried(SERVER, true, true)]), None);
    }
}
