//! The public HTTP side: what this server is, for programs and for people.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_SECURITY_POLICY, HOST, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Request, StatusCode, Uri};
use proto::id::PeerId;
use proto::tunnel::proxy::Cidr;
use proto::wire::relay::PATH as RELAY;
use proto::wire::signal::{MAX_URL, RelayHint};
use relay::http::{Asker, Page, Pages, page, text};
use relay::net::{BoxFuture, Net, resolve_all};
use relay::server::RelayServer;
use tokio::time::{Duration, Instant, timeout};

use crate::well_known::{self, WellKnown, WellKnownRelay, reached_at};

/// How long the address of the public URL's host is believed, and how long looking it up may take.
const RESOLVED: Duration = Duration::from_secs(60);
const RESOLVING: Duration = Duration::from_secs(2);

/// All that this server says of itself in public.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) net: Arc<dyn Net>,
    pub(crate) peer_id: PeerId,
    pub(crate) udp: Vec<SocketAddr>,
    pub(crate) udp_alternate: Vec<SocketAddr>,
    pub(crate) http: SocketAddr,
    pub(crate) https: Option<SocketAddr>,
    pub(crate) domain: String,
    pub(crate) public_url: Option<Uri>,
    /// Proxies that are believed whom they speak for.
    pub(crate) trusted: Vec<Cidr>,
    /// The relay of this server, which is found by the server's own URL: for peers, or for their sessions alone.
    pub(crate) relay: Option<Arc<RelayServer>>,
    /// Others.
    pub(crate) relays: Vec<RelayHint>,
    /// The public URL's host, and until when that holds.
    pub(crate) public_ip: Mutex<Option<(IpAddr, Instant)>>,
}

impl Front {
    /// The document, for somebody who reached this machine at `asked`.
    pub(crate) fn well_known(&self, asked: IpAddr) -> WellKnown {
        self.describe(asked, &format!("http://{}", SocketAddr::new(asked, self.http.port())))
    }

    /// The same, where the HTTP side was asked by the URL `base`.
    fn describe(&self, asked: IpAddr, base: &str) -> WellKnown {
        let base = self.public_url.as_ref().map_or_else(|| base.to_owned(), Uri::to_string);
        let own = self.relay.as_ref().filter(|relay| relay.is_between_peers()).map(|relay| RelayHint {
            url: format!("{}{RELAY}", base.trim_end_matches('/')),
            peer_id: relay.peer_id(),
        });
        let relays = own.iter().chain(&self.relays);
        WellKnown {
            version: well_known::VERSION,
            peer_id: self.peer_id,
            udp: reached_at(&self.udp, asked),
            udp_alternate: reached_at(&self.udp_alternate, asked),
            relays: relays
                .cloned()
                .map(|RelayHint { url, peer_id }| WellKnownRelay { url, peer_id })
                .collect(),
            domain: self.domain.clone(),
        }
    }

    /// The address by which the outside reaches this machine: the public URL's, or the one that `from` asked.
    async fn asked_by(&self, from: SocketAddr) -> IpAddr {
        if let Some(ip) = self.public_ip().await {
            return ip;
        }
        if !self.http.ip().is_unspecified() {
            return self.http.ip();
        }
        // A listener doesn't tell at which of its addresses a stream arrived; the route back does.
        self.net.source_for(from).unwrap_or(self.http.ip())
    }

    async fn public_ip(&self) -> Option<IpAddr> {
        let host = self.public_url.as_ref()?.host()?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = host.parse() {
            return Some(ip);
        }
        let known = *self.public_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((ip, until)) = known
            && Instant::now() < until
        {
            return Some(ip);
        }
        let resolved = timeout(RESOLVING, resolve_all(&*self.net, host, self.http.port())).await;
        // An old answer is better than none.
        let ip = resolved
            .ok()
            .and_then(Result::ok)
            .and_then(|all| Some(all.first()?.ip()))
            .or(known.map(|k| k.0))?;
        *self.public_ip.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((ip, Instant::now() + RESOLVED));
        Some(ip)
    }

    /// The URL to give to `--server`, with the identity to expect there.
    fn server_url(&self, asked: IpAddr) -> String {
        match &self.public_url {
            Some(url) if url.scheme_str() == Some("https") => {
                url.to_string().trim_end_matches('/').to_owned()
            }
            Some(url) => format!("{}#{}", url.to_string().trim_end_matches('/'), self.peer_id),
            None => self.https_url().unwrap_or_else(|| {
                format!("http://{}#{}", SocketAddr::new(asked, self.http.port()), self.peer_id)
            }),
        }
    }

    /// The server itself over TLS, by the name that its certificate is to have.
    pub(crate) fn https_url(&self) -> Option<String> {
        let port = self.https?.port();
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        Some(format!("https://{}{port}", self.domain))
    }

    fn document(&self, request: &Request<Incoming>, asked: IpAddr, tls: bool) -> Page {
        let scheme = if tls { "https" } else { "http" };
        let document = match asked_host(request) {
            Some(host) => self.describe(asked, &format!("{scheme}://{host}")),
            None => self.well_known(asked),
        };
        match serde_json::to_vec(&document) {
            Ok(json) => page(StatusCode::OK, "application/json", json),
            Err(error) => {
                tracing::error!("the document about this server has no JSON form: {error}");
                text(StatusCode::INTERNAL_SERVER_ERROR, "")
            }
        }
    }

    fn landing(&self, asked: IpAddr, browser: bool) -> Page {
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
    fn answer<'a>(&'a self, request: &'a Request<Incoming>, asker: Asker) -> BoxFuture<'a, Page> {
        Box::pin(async move {
            let Asker { from, tls } = asker;
            match request.uri().path() {
                well_known::PATH => self.document(request, self.asked_by(from).await, tls),
                "/" => {
                    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
                    let browser = accept.is_some_and(|accept| accept.contains("text/html"));
                    self.landing(self.asked_by(from).await, browser)
                }
                _ => text(StatusCode::NOT_FOUND, "There is nothing here.\n"),
            }
        })
    }

    fn take_over(&self, request: &mut Request<Incoming>, asker: Asker) -> Option<Page> {
        let relay = self.relay.as_ref().filter(|_| request.uri().path() == RELAY)?;
        Some(relay.upgrade(request, asker.from, &self.trusted))
    }
}

/// The host and port by which the server was asked. It is repeated to nobody but who said it.
fn asked_host(request: &Request<Incoming>) -> Option<Authority> {
    let host = request.headers().get(HOST)?;
    let host = Authority::try_from(host.as_bytes()).ok()?;
    let plain = !host.as_str().contains('@') && host.as_str().len() + "http:///relay".len() <= MAX_URL;
    plain.then_some(host)
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
