//! What requests tell of the deployment, on their way to whom they are for.

use std::net::IpAddr;

use proto::server_health::RequestFacts;
use proto::tunnel::host::Destination;
use proto::tunnel::pool::Refusal;
use proto::tunnel::request::RequestHead;

use super::Gateway;

/// Fields by which a proxy says for whom it speaks.
pub const FORWARDED: [&str; 3] = ["x-forwarded-for", "x-forwarded-proto", "forwarded"];

impl Gateway {
    /// Whom a request is for. Under a host that nobody could claim, some paths are the server's own: a client that knows
    /// the server by such a name finds it. A name under the domain is its owner's, or will be: there they are not.
    pub(super) fn destination(&self, request: &RequestHead) -> Destination {
        match self.config.hosts.destination(&request.authority) {
            Destination::Unknown if self.is_own_path(request) => {
                self.not_apex(request);
                Destination::Apex
            }
            destination @ (Destination::Apex | Destination::Name(_) | Destination::Unknown) => destination,
        }
    }

    /// Says what a forwarded request tells.
    pub(super) fn observe(&self, from: IpAddr, request: &RequestHead, destination: &Destination) {
        let Some(witness) = &self.config.witness else { return };
        if !FORWARDED.iter().any(|name| request.fields.first(name).is_some()) {
            return;
        }
        let host = request.authority.host();
        witness.forwarded(RequestFacts {
            from,
            is_forwarded: true,
            is_trusted: self.config.trusted.iter().any(|net| net.contains(from)),
            name: (host.contains('.') && !request.authority.is_ip()).then_some(host),
            is_for_server: *destination == Destination::Apex,
        });
    }

    /// Says that a client looks for the server where a name could be, if it does: what it is told then.
    pub(super) fn not_here(&self, why: Refusal, request: &RequestHead) -> Option<&'static str> {
        if why != Refusal::Unknown || !self.is_own_path(request) {
            return None;
        }
        self.not_apex(request);
        Some("Where this is to be the server itself, start it with --apex and this name.")
    }

    fn is_own_path(&self, request: &RequestHead) -> bool {
        self.config.own_paths.iter().any(|path| path.as_bytes() == request.path())
    }

    fn not_apex(&self, request: &RequestHead) {
        if let Some(witness) = &self.config.witness {
            witness.not_apex(request.authority.host());
        }
    }
}
