//! The public HTTP side: what this server is, for programs and for people.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_SECURITY_POLICY, HOST, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Request, StatusCode, Uri};
use proto::id::PeerId;
use proto::reach::{Asker, Width};
use proto::tunnel::proxy::Cidr;
use proto::wire::relay::PATH as RELAY;
use proto::wire::signal::{MAX_URL, RelayHint};
use relay::gateway::FORWARDED;
use relay::http::{self, Page, Pages, page, text};
use relay::net::BoxFuture;

use crate::addresses::{self, Addresses};
use crate::relays::Relays;
use crate::well_known::{self, WellKnown, WellKnownRelay};

/// All that this server says of itself in public.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) peer_id: PeerId,
    pub(crate) udp: Vec<SocketAddr>,
    pub(crate) udp_alternate: Vec<SocketAddr>,
    pub(crate) http: SocketAddr,
    pub(crate) https: Option<SocketAddr>,
    pub(crate) domain: String,
    pub(crate) public_url: Option<Uri>,
    /// Proxies that are believed whom they speak for.
    pub(crate) trusted: Vec<Cidr>,
    /// The relays; this server's own is found by the server's own URL.
    pub(crate) relays: Arc<Relays>,
}

/// How the HTTP side was asked.
struct Asked {
    asker: Asker,
    /// The host that the request names.
    host: Option<Authority>,
    tls: bool,
}

impl Front {
    /// The document, for somebody on this machine's network who reached it at `asked`.
    pub(crate) fn well_known(&self, asked: IpAddr) -> WellKnown {
        self.describe(&Asked { asker: Asker::at(asked, Some(asked)), host: None, tls: false })
    }

    /// The relays that sessions hear of. This server's own is `/relay` on the URL by which the server was asked, and what
    /// that is its peers know best.
    pub(crate) fn session_relays(&self) -> Vec<RelayHint> {
        self.relays.told(&self.public_url.as_ref().map(Uri::to_string).unwrap_or_default())
    }

    fn describe(&self, asked: &Asked) -> WellKnown {
        let base = self.public_url.as_ref().map_or_else(|| self.asked_url(asked), Uri::to_string);
        let relays = self.relays.told(&base).into_iter();
        WellKnown {
            version: well_known::VERSION,
            peer_id: self.peer_id,
            udp: self.addresses.udp(&asked.asker),
            udp_alternate: self.addresses.udp_alternate(&asked.asker),
            udp_ports: self.addresses.ports(&asked.asker),
            relays: relays.map(|RelayHint { url, peer_id }| WellKnownRelay { url, peer_id }).collect(),
            domain: self.domain.clone(),
        }
    }

    /// The URL by which the HTTP side was asked.
    fn asked_url(&self, Asked { asker, host, tls }: &Asked) -> String {
        let scheme = if *tls { "https" } else { "http" };
        match host {
            Some(host) => format!("{scheme}://{host}"),
            None => format!("http://{}", self.reached(asker)),
        }
    }

    fn reached(&self, asker: &Asker) -> SocketAddr {
        SocketAddr::new(asker.reached.unwrap_or(self.http.ip()), self.http.port())
    }

    /// The URL to give to `--server`, with the identity to expect there: one that the asker can use, where there is one.
    fn server_url(&self, asked: &Asked) -> String {
        let with_id = |url: &str| format!("{}#{}", url.trim_end_matches('/'), self.peer_id);
        if let Some(url) = &self.public_url {
            let (url, https) = (url.to_string(), url.scheme_str() == Some("https"));
            return if https { url.trim_end_matches('/').to_owned() } else { with_id(&url) };
        }
        if let Some(url) = self.https_url() {
            return url;
        }
        let host = asked.host.as_ref().filter(|host| is_of_use(host.host(), &asked.asker));
        match host {
            Some(host) if asked.tls => format!("https://{host}"),
            Some(host) => with_id(&format!("http://{host}")),
            None if addresses::is_worldly(&self.domain) => {
                with_id(&format!("http://{}:{}", self.domain, self.http.port()))
            }
            None => with_id(&format!("http://{}", self.reached(&asked.asker))),
        }
    }

    /// The server itself over TLS, by the name that its certificate is to have.
    pub(crate) fn https_url(&self) -> Option<String> {
        let port = self.https?.port();
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        Some(format!("https://{}{port}", self.domain))
    }

    /// How a request asks.
    fn asked(&self, request: &Request<Incoming>, http::Asker { from, tls }: http::Asker) -> Asked {
        let is_forwarded = FORWARDED.iter().any(|name| request.headers().contains_key(*name))
            || self.trusted.iter().any(|net| net.contains(from.ip()));
        Asked { asker: self.addresses.asker(from, is_forwarded), host: asked_host(request), tls }
    }

    fn document(&self, asked: &Asked) -> Page {
        let document = self.describe(asked);
        match serde_json::to_vec(&document) {
            Ok(json) => page(StatusCode::OK, "application/json", json),
            Err(error) => {
                tracing::error!("the document about this server has no JSON form: {error}");
                text(StatusCode::INTERNAL_SERVER_ERROR, "")
            }
        }
    }

    fn landing(&self, asked: &Asked, browser: bool) -> Page {
        let url = self.server_url(asked);
        if !browser {
            return text(StatusCode::OK, landing_text(&self.domain, &url));
        }
        let mut page = page(
            StatusCode::OK,
            "text/html; charset=utf-8",
            landing_html(&escape(&self.domain), &escape(&url)),
        );
        let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
        page.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
        page
    }
}

impl Pages for Front {
    fn answer<'a>(&'a self, request: &'a Request<Incoming>, asker: http::Asker) -> BoxFuture<'a, Page> {
        let page = match request.uri().path() {
            well_known::PATH => self.document(&self.asked(request, asker)),
            "/" => {
                let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
                let browser = accept.is_some_and(|accept| accept.contains("text/html"));
                self.landing(&self.asked(request, asker), browser)
            }
            _ => text(StatusCode::NOT_FOUND, "There is nothing here.\n"),
        };
        Box::pin(std::future::ready(page))
    }

    fn take_over(&self, request: &mut Request<Incoming>, asker: http::Asker) -> Option<Page> {
        let relay = self.relays.own.as_ref().filter(|_| request.uri().path() == RELAY)?;
        Some(relay.upgrade(request, asker.from, &self.trusted))
    }
}

/// Whether who asks can use a URL with this host. A name is looked up where it is used.
fn is_of_use(host: &str, asker: &Asker) -> bool {
    let host = addresses::bare(host);
    match host.parse() {
        Ok(ip) => Width::of(ip).is_some_and(|width| width >= asker.width),
        Err(_) => addresses::is_worldly(host) || asker.width < Width::World,
    }
}

/// The host and port by which the server was asked. It is repeated to nobody but who said it.
fn asked_host(request: &Request<Incoming>) -> Option<Authority> {
    let host = request.headers().get(HOST)?;
    let host = Authority::try_from(host.as_bytes()).ok()?;
    let fits = host.as_str().len() + "http:///relay".len() <= MAX_URL;
    (fits && is_plain(host.as_str())).then_some(host)
}

/// Whether a host is no more than a name or an address, with a port or without. What else a URL allows there (quotes,
/// `;`, `$`, a user before `@`) would come to stand in a command line that a reader is to copy.
fn is_plain(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
}

fn landing_text(domain: &str, url: &str) -> String {
    format!(
        "This is a Culvert server for {domain}. It connects two machines that are both behind NATs; what\n\
         they say to each other it can't read.\n\n\
         On the machine that has the service (here at port 8000):\n\n    \
         peer share 8000 --server '{url}'\n\n\
         It prints a ticket. On the other machine:\n\n    \
         peer connect TICKET\n"
    )
}

fn landing_html(domain: &str, url: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Culvert: {domain}</title>\n\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem}}\
         pre{{background:#eee;color:#111;padding:.75rem;white-space:pre-wrap;overflow-wrap:anywhere}}</style>\n\
         <h1>Culvert</h1>\n\
         <p>This server connects two machines that are both behind NATs. What they say to each other it can't \
         read.</p>\n\
         <p>On the machine that has the service (here at port 8000):</p>\n\
         <pre>peer share 8000 --server '{url}'</pre>\n\
         <p>It prints a ticket. On the other machine:</p>\n\
         <pre>peer connect TICKET</pre>\n</html>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_would_be_more_than_a_word_for_a_shell_is_not_repeated() {
        for host in ["example.com", "nas_1.lan:8080", "203.0.113.1:80", "[2001:db8::1]:8080"] {
            assert!(Authority::try_from(host).is_ok() && is_plain(host), "{host}");
        }
        for host in
            ["a';id;'.example.com", "$(id).example.com", "a&b", "user@example.com", "a,b", "a!b", "a*"]
        {
            assert!(!is_plain(host), "{host}");
        }
    }
}
