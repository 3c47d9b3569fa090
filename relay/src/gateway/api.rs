//! The tunnel API of localtunnel's server, as its clients know it.
//!
//! `GET /?new` and `GET /NAME` open a tunnel, `/api/status` and `/api/tunnels/NAME/status` tell of them. One
//! thing differs on purpose: `url` is made from this server's settings alone. The original takes the request's
//! `Host`, so that whoever relays the request chooses where the tunnel seems to be.

use std::sync::Arc;

use proto::name::ShareName;
use proto::tunnel::label::{self, NotForYou};
use proto::tunnel::proxy::Visit;
use proto::tunnel::request::RequestHead;
use serde_json::json;
use tokio::time::Instant;

use super::Gateway;
use super::page::Page;
use super::tunnels::Tunnels;

/// Paths of one segment that belong to the server's other pages.
const NOT_NAMES: [&str; 4] = ["", "relay", "favicon.ico", "robots.txt"];

impl Gateway {
    /// The API's answer to a request for the server itself, where the request is one for the API.
    pub(super) fn api(&self, request: &RequestHead, visit: &Visit) -> Option<Page> {
        let tunnels = self.tunnels.as_ref()?;
        let path = std::str::from_utf8(request.path()).ok()?.strip_prefix('/')?;
        if !matches!(request.method.as_str(), "GET" | "HEAD" | "POST") {
            return None;
        }
        match path.split('/').collect::<Vec<_>>().as_slice() {
            ["api", "status"] => Some(self.status(tunnels)),
            ["api", "tunnels", name, "status"] => Some(tunnel_status(tunnels, name)),
            [""] if request.method != "HEAD" && asks_for_new(request) => {
                Some(self.open(tunnels, None, visit))
            }
            [name] if request.method != "HEAD" && !NOT_NAMES.contains(name) => {
                Some(self.open(tunnels, Some(name), visit))
            }
            _ => None,
        }
    }

    fn open(&self, tunnels: &Arc<Tunnels>, asked: Option<&str>, visit: &Visit) -> Page {
        // Its clients have nothing to prove who they are with.
        if self.config.admission.is_private() {
            self.counters.registrations_refused.add();
            return Page::json(403, &json!({ "message": "This server is private: it opens no tunnels." }));
        }
        let own = |name: &ShareName| self.config.hosts.is_own(name);
        let asked = asked.map(label::asked_for).transpose();
        let name = match asked {
            Ok(Some(name)) if own(&name) => Err(NotForYou::Reserved),
            asked => asked,
        };
        let name = match name {
            // One that is a key's is as good as taken, whether its owner is here or not.
            Ok(Some(name)) if self.sharers.is_claimed(&name) => None,
            Ok(name) => name,
            Err(why @ (NotForYou::Invalid | NotForYou::Reserved)) => {
                self.counters.registrations_refused.add();
                return Page::json(403, &json!({ "message": why.to_string() }));
            }
        };
        let allowed = self.registrations().allow((visit.client, 0).into(), Instant::now().into_std());
        let told = if allowed { tunnels.register(name, visit.client) } else { None };
        let Some(told) = told else {
            self.counters.registrations_refused.add();
            let (status, message) = if allowed {
                (503, "This server has no room for another tunnel.")
            } else {
                (429, "Too many tunnels from your network in a short time.")
            };
            return Page::json(status, &json!({ "message": message }));
        };
        self.counters.registered.add();
        tracing::info!(name = %told.name, port = told.port, client = %visit.client, "a tunnel is registered");
        let url = self.config.urls.of(&told.name);
        let id = told.name.as_str();
        Page::json(
            200,
            &json!({ "id": id, "port": told.port, "max_conn_count": told.connections, "url": url }),
        )
    }

    fn status(&self, tunnels: &Tunnels) -> Page {
        let (count, ..) = tunnels.counts();
        Page::json(200, &json!({ "tunnels": count, "mem": { "rss": resident().unwrap_or(0) } }))
    }
}

fn tunnel_status(tunnels: &Tunnels, name: &str) -> Page {
    match name.parse().ok().and_then(|name| tunnels.connections_of(&name)) {
        Some(connections) => Page::json(200, &json!({ "connected_sockets": connections })),
        None => Page::text(404, "Not Found"),
    }
}

/// Whether the query has a member `new`.
fn asks_for_new(request: &RequestHead) -> bool {
    let mut members = request.query().unwrap_or_default().split(|byte| *byte == b'&');
    members.any(|member| member.split(|byte| *byte == b'=').next() == Some(b"new"))
}

/// The process's resident memory in bytes, where the system says.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}
