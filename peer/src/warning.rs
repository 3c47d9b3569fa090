//! What a user should know before going on: one line each, once, and a `warning` event for scripts.

use std::time::Duration;

use proto::no_udp::Cause;
use proto::ticket::{Reachable, ServerHint};
use relay::program::Report;
use relay::program::report::clean;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::endpoint::Standing;
use crate::error::Error;

/// How long a server of the sharer's own network may be silent before the visitor is told what may be wrong.
const SUSPICION: Duration = Duration::from_secs(3);

#[derive(Serialize)]
struct WarningFields<'a> {
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    message: &'a str,
}

fn warn(report: &Report, code: &str, cause: Option<&str>, message: &str) {
    if report.json() {
        report.event("warning", WarningFields { code, cause, message });
    } else {
        report.warning(message);
    }
}

/// All data takes the relay, because no UDP passes to the server.
pub(crate) fn no_udp(report: &Report, cause: Cause) {
    warn(report, "no-udp-from-server", Some(cause.code()), &format!("relayed, because {cause}"));
}

/// A ticket that others can't use, as far as its server's URL says.
pub(crate) fn local_ticket(report: &Report, server: &ServerHint) {
    if let Some(message) = local_ticket_text(server) {
        warn(report, "local-ticket", None, &message);
    }
}

fn local_ticket_text(server: &ServerHint) -> Option<String> {
    let place = match server.reachable() {
        Reachable::Anywhere => return None,
        Reachable::Network => "in this network",
        Reachable::Machine => "on this machine",
    };
    Some(format!(
        "this ticket works only {place}: it names the server at {}; to let others in, name the server with --server by \
         an address that they reach",
        clean(server.host())
    ))
}

/// Tells of a ticket's server that is silent and can be reached from the sharer's own network alone.
pub(crate) async fn suspect(report: Report, server: ServerHint, mut standing: watch::Receiver<Standing>) {
    let is_known = |standing: &Standing| *standing != Standing::Starting;
    let Some(place) = place_of(&server) else { return };
    if timeout(SUSPICION, standing.wait_for(is_known)).await.is_err() {
        let message = format!(
            "nothing has answered yet: this ticket names a server {place} ({}), which may not be reached from here",
            clean(server.host())
        );
        warn(&report, "local-server-silent", None, &message);
    }
}

/// Where a server is that not everybody reaches.
fn place_of(server: &ServerHint) -> Option<&'static str> {
    match server.reachable() {
        Reachable::Anywhere => None,
        Reachable::Network => Some("of the sharer's own network"),
        Reachable::Machine => Some("on the sharer's own machine"),
    }
}

/// The error as the holder of a ticket needs it: its server may be one that is not reached from here at all.
pub(crate) fn of_ticket(error: Error, server: &ServerHint) -> Error {
    match (error, place_of(server)) {
        (Error::ServerSilent { .. }, Some(place)) => {
            Error::ServerElsewhere { host: clean(server.host()).into_owned(), place }
        }
        (error, _) => error,
    }
}

#[cfg(test)]
mod tests {
    use proto::id::PeerId;

    use super::*;

    fn server(url: &str) -> ServerHint {
        ServerHint { url: url.into(), udp: vec![], peer_id: PeerId::from_bytes([1; 32]) }
    }

    #[test]
    fn a_ticket_is_called_local_only_where_its_url_is() {
        assert_eq!(local_ticket_text(&server("https://example.com")), None);
        let text = local_ticket_text(&server("http://192.168.1.9:8080")).unwrap();
        assert!(
            text.starts_with("this ticket works only in this network: it names the server at 192.168.1.9;")
        );
        let text = local_ticket_text(&server("http://localhost:8080")).unwrap();
        assert!(
            text.starts_with("this ticket works only on this machine: it names the server at localhost;")
        );
    }

    #[test]
    fn a_silent_server_is_called_the_sharers_own_only_where_the_ticket_says_so() {
        let silent = || Error::ServerSilent { url: "x".into(), why: "no answer".into() };
        assert_eq!(of_ticket(silent(), &server("https://example.com")), silent());
        let text = of_ticket(silent(), &server("http://192.168.1.9:8080")).to_string();
        assert!(
            text.starts_with("this ticket names a server of the sharer's own network (192.168.1.9)"),
            "{text}"
        );
        let other = Error::NoPath;
        assert_eq!(of_ticket(other.clone(), &server("http://192.168.1.9:8080")), other);
    }
}
