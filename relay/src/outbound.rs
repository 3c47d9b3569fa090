//! TCP connections to servers: by name, through the proxy that the user's environment names, over TLS where
//! the URL says so.

#[cfg(test)]
mod by_name;
mod names;
mod nat64;
mod race;
#[cfg(test)]
mod scripted;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use data_encoding::BASE64;
use proto::candidate::{Scope, scope};
use proto::nat64::Nat64Prefix;
use proto::wire::relay::PATH;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use crate::certificate;
use crate::net::Net;
use names::Names;
pub use names::{LOOKING_UP, LookUp, NameError};

/// The longest head of a proxy's answer, in bytes.
const MAX_ANSWER: usize = 8 * 1024;

/// A byte stream to a server.
pub type Wire = Box<dyn Duplex>;

/// What can be read and written.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Whether TLS is spoken there, checked by certificate.
    pub tls: bool,
    /// A name, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Origin {
    /// The server of a relay's URL, `http(s)://host[:port]/relay`; none where that is no such URL.
    pub fn of_relay(url: &str) -> Option<Self> {
        let url: hyper::Uri = url.parse().ok()?;
        let tls = match url.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = url.host()?.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
        (url.path() == PATH && url.query().is_none() && port != 0).then_some(Self { tls, host, port })
    }

    /// `host:port`, with an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// An HTTP proxy that connects on (RFC 9110 §9.3.6).
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// `USER:PASSWORD`, for Basic authentication (RFC 7617).
    credentials: Option<String>,
    /// Hosts that are reached without it: names with all that ends in them, or `*`.
    except: Vec<String>,
}

impl fmt::Debug for Proxy {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

/// Why text is no proxy's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a proxy is http://[USER:PASSWORD@]HOST:PORT")]
pub struct BadProxy;

impl FromStr for Proxy {
    type Err = BadProxy;

    fn from_str(text: &str) -> Result<Self, BadProxy> {
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return Err(BadProxy),
            None => text,
        };
        let (credentials, authority) = match rest.trim_end_matches('/').rsplit_once('@') {
            Some((credentials, authority)) => (Some(credentials.to_owned()), authority),
            None => (None, rest.trim_end_matches('/')),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| BadProxy)?),
            Some(_) | None => (authority, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || host.contains(['/', ' ']) {
            return Err(BadProxy);
        }
        Ok(Self { host, port, credentials, except: Vec::new() })
    }
}

impl Proxy {
    /// What `HTTPS_PROXY`, `https_proxy` or `ALL_PROXY` names, but for what `NO_PROXY` does.
    ///
    /// # Errors
    /// The first of them that is set is no proxy's URL.
    pub fn from_environment(env: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, BadProxy> {
        let set = |names: &[&str]| names.iter().find_map(|name| env(name).filter(|value| !value.is_empty()));
        let Some(url) = set(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]) else {
            return Ok(None);
        };
        let except = set(&["NO_PROXY", "no_proxy"]).unwrap_or_default();
        let except = except.split(',').map(|host| host.trim().trim_start_matches('.').to_ascii_lowercase());
        Ok(Some(Self { except: except.filter(|host| !host.is_empty()).collect(), ..url.parse()? }))
    }

    fn covers(&self, host: &str) -> bool {
        let is_excepted = |except: &String| {
            except == "*"
                || host == except
                || host.strip_suffix(except.as_str()).is_some_and(|rest| rest.ends_with('.'))
        };
        !self.except.iter().any(is_excepted)
    }
}

/// Opens connections. Clones share what they know of names and of the network.
#[derive(Debug, Clone)]
pub struct Outbound {
    net: Arc<dyn Net>,
    names: Arc<Names>,
    nat64: Arc<nat64::Nat64>,
    proxy: Option<Proxy>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// A connection, and the address at its other end: the proxy's, where there is one.
pub struct Connected {
    /// Its bytes.
    pub wire: Wire,
    /// The other end. On a network without IPv4 it may be the NAT64 address that stands for an IPv4 one.
    pub remote: SocketAddr,
    /// Whether that is a proxy: then it says nothing of where the server is.
    pub is_proxied: bool,
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connected({})", self.remote)
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The network or the other end.
    #[error("{}", io_words(.0))]
    Io(#[from] io::Error),
    /// The name led to no address.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The proxy said no.
    #[error("the proxy refused: {0}")]
    Proxy(String),
    /// This machine has nothing to check a certificate with.
    #[error("this machine has no root certificates; install its ca-certificates package")]
    NoRoots,
    /// The other end's certificate is not one for its name, by an authority that this machine trusts.
    #[error("{}", certificate::fault(.0))]
    Certificate(io::Error),
    /// TLS can't be spoken with such a name.
    #[error("the host's name is none that a certificate could have")]
    BadName,
}

fn io_words(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NetworkUnreachable {
        return "this machine has no route to it; where the server has IPv6 addresses only, this machine needs IPv6 too, \
                and likewise for IPv4"
            .to_owned();
    }
    error.to_string()
}

impl OutboundError {
    /// Whether the same may work in a moment.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Io(_) | Self::Name(_) | Self::Proxy(_) => true,
            Self::NoRoots | Self::Certificate(_) | Self::BadName => false,
        }
    }
}

impl Outbound {
    /// Connections of `net`, through `proxy` if there is one.
    pub fn new(net: Arc<dyn Net>, proxy: Option<Proxy>) -> Self {
        Self { names: Names::new(Arc::clone(&net)), nat64: Arc::default(), net, proxy, tls: None }
    }

    /// Trusts these authorities and no other; else the system's are.
    #[must_use]
    pub fn with_roots(mut self, roots: rustls::RootCertStore) -> Self {
        self.tls = Some(tls_config(roots));
        self
    }

    /// Looks a host up by its name, an IPv4 address, or an IPv6 address without its brackets, within a tokio runtime.
    ///
    /// All that ask for a host at the same time, clones included, share one look-up for each family. It has its own
    /// time, [`LOOKING_UP`], and goes on when nobody waits for it. What it finds is known for 30 s, or until a
    /// connection to the host fails. A proxy takes no part in it.
    pub fn look_up(&self, host: &str, port: u16) -> LookUp {
        self.names.look_up(host, port)
    }

    /// Whether connections to this host go through the user's proxy.
    pub fn is_proxied(&self, host: &str) -> bool {
        self.proxy_for(host).is_some()
    }

    /// The prefix under which this network reaches IPv4 addresses, where it has no IPv4 but NAT64 (RFC 7050).
    ///
    /// Where IPv4 works it costs one question about a route. Else DNS is asked, for 5 s at most; the answer is kept
    /// until the network's address changes, for ten minutes at most.
    pub async fn nat64(&self) -> Option<Nat64Prefix> {
        self.nat64.prefix(&self.net, &self.names).await
    }

    /// Waits until an address is known of the host that [`Self::connect`] connects to first: the proxy, where there is
    /// one. It is here so that a look-up's time need not count as the server's.
    ///
    /// # Errors
    /// There is no address.
    pub async fn find(&self, host: &str) -> Result<(), NameError> {
        let host = self.proxy_for(host).map_or(host, |proxy| &proxy.host);
        let mut look_up = self.look_up(host, 0);
        match look_up.next().await {
            Some(_) => Ok(()),
            None => Err(look_up.error()),
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// Why it can't be. There is no time limit here but that of the look-up.
    pub async fn connect(&self, to: &Origin) -> Result<Connected, OutboundError> {
        let proxy = self.proxy_for(&to.host);
        let (host, port) = proxy.map_or((&to.host, to.port), |proxy| (&proxy.host, proxy.port));
        let reaching = Reaching { names: &self.names, host, is_reached: false };
        let (stream, remote) = race::race(self, host, port).await?;
        let (read, write) = stream;
        let mut wire: Wire = Box::new(tokio::io::join(read, write));
        if let Some(proxy) = proxy {
            connect_on(&mut wire, proxy, to).await?;
        }
        if to.tls {
            wire = self.secure(wire, to).await?;
        }
        reaching.done();
        Ok(Connected { wire, remote, is_proxied: proxy.is_some() })
    }

    fn proxy_for(&self, host: &str) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|proxy| proxy.covers(host))
    }

    /// The address by which this network reaches `addr`: another one where it has NAT64 instead of IPv4.
    async fn passable(&self, addr: SocketAddr) -> SocketAddr {
        let IpAddr::V4(ip) = addr.ip() else { return addr };
        if scope(addr) != Scope::Global || self.net.source_for(addr).is_ok() {
            return addr;
        }
        match self.nat64().await {
            Some(prefix) => SocketAddr::new(prefix.synthesise(ip).into(), addr.port()),
            None => addr,
        }
    }

    async fn secure(&self, wire: Wire, to: &Origin) -> Result<Wire, OutboundError> {
        let name = ServerName::try_from(to.host.clone()).map_err(|_| OutboundError::BadName)?;
        let config = match &self.tls {
            Some(config) => Arc::clone(config),
            None => system_tls()?,
        };
        match TlsConnector::from(config).connect(name, wire).await {
            Ok(wire) => Ok(Box::new(wire)),
            Err(error) if is_certificate_error(&error) => Err(OutboundError::Certificate(error)),
            Err(error) => Err(error.into()),
        }
    }
}

/// A connection that is being opened. Where it fails, or takes too long for whoever asked, the host may have moved:
/// its name is looked up again.
struct Reaching<'a> {
    names: &'a Names,
    host: &'a str,
    is_reached: bool,
}

impl Reaching<'_> {
    fn done(mut self) {
        self.is_reached = true;
    }
}

impl Drop for Reaching<'_> {
    fn drop(&mut self) {
        if !self.is_reached {
            self.names.forget(self.host);
        }
    }
}

/// The authorities that this machine trusts, read once.
fn system_tls() -> Result<Arc<rustls::ClientConfig>, OutboundError> {
    static CONFIG: OnceLock<Option<Arc<rustls::ClientConfig>>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        (!roots.is_empty()).then(|| tls_config(roots))
    });
    config.clone().ok_or(OutboundError::NoRoots)
}

fn tls_config(roots: rustls::RootCertStore) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn is_certificate_error(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

/// Has the proxy connect on.
async fn connect_on(wire: &mut Wire, proxy: &Proxy, to: &Origin) -> Result<(), OutboundError> {
    let authority = to.authority();
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(credentials) = &proxy.credentials {
        let encoded = BASE64.encode(credentials.as_bytes());
        request.push_str(&format!("Proxy-Authorization: Basic {encoded}\r\n"));
    }
    request.push_str("\r\n");
    wire.write_all(request.as_bytes()).await?;
    wire.flush().await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        // A byte at a time: what follows the head is the other end's.
        answer.push(wire.read_u8().await?);
        if answer.len() > MAX_ANSWER {
            return Err(OutboundError::Proxy("its answer has no end".to_owned()));
        }
    }
    let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    let status = line.split_whitespace().nth(1);
    if status.is_some_and(|status| status.len() == 3 && status.starts_with('2')) {
        Ok(())
    } else {
        Err(OutboundError::Proxy(line))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    fn environment(set: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        move |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn a_relays_url_is_read_and_whatever_else_is_none() {
        let origin = |tls, host: &str, port| Some(Origin { tls, host: host.to_owned(), port });
        assert_eq!(Origin::of_relay("https://Relay.example/relay"), origin(true, "relay.example", 443));
        assert_eq!(Origin::of_relay("http://[2001:db8::1]:8080/relay"), origin(false, "2001:db8::1", 8080));
        for url in [
            "/relay",
            "http://x",
            "http://x/other",
            "ftp://x/relay",
            "http://x:0/relay",
            "http://x/relay?a",
            "",
        ] {
            assert_eq!(Origin::of_relay(url), None, "{url}");
        }
    }

    #[test]
    fn the_environment_names_the_proxy_and_its_exceptions() {
        let env = environment(&[
            ("https_proxy", "http://me:secret@proxy.example:3128/"),
            ("NO_PROXY", "localhost, .internal,10.0.0.1"),
        ]);
        let proxy = Proxy::from_environment(env).unwrap().unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.example", 3128));
        assert!(!format!("{proxy:?}").contains("secret"));
        assert!(proxy.covers("example.com") && proxy.covers("notinternal"));
        for host in ["localhost", "nas.internal", "internal", "10.0.0.1"] {
            assert!(!proxy.covers(host), "{host}");
        }
        assert_eq!(Proxy::from_environment(environment(&[])), Ok(None));
        assert_eq!(Proxy::from_environment(environment(&[("HTTPS_PROXY", "")])), Ok(None));
        assert!(Proxy::from_environment(environment(&[("HTTPS_PROXY", "socks5://x:1")])).is_err());
        assert_eq!("[::1]:8080".parse::<Proxy>().unwrap().host, "::1");
    }

    async fn ask(answer: &'static [u8]) -> (Result<(), OutboundError>, String) {
        let (near, mut far) = duplex(16 * 1024);
        let mut wire: Wire = Box::new(near);
        let proxy: Proxy = "http://me:secret@proxy:1".parse().unwrap();
        let to = Origin { tls: true, host: "2001:db8::1".to_owned(), port: 443 };
        far.write_all(answer).await.unwrap();
        let asked = connect_on(&mut wire, &proxy, &to).await;
        drop(wire);
        let mut request = String::new();
        far.read_to_string(&mut request).await.unwrap();
        (asked, request)
    }

    #[tokio::test]
    async fn a_proxy_is_asked_to_connect_on_and_its_refusal_is_repeated() {
        let (asked, request) = ask(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").await;
        assert!(asked.is_ok());
        assert_eq!(
            request,
            "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\
             Proxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n"
        );
        let (asked, _) = ask(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
        assert_eq!(asked.unwrap_err().to_string(), "the proxy refused: HTTP/1.1 403 Forbidden");
        let (asked, _) = ask(&[b'x'; MAX_ANSWER + 10]).await;
        assert!(matches!(asked, Err(OutboundError::Proxy(_))));
    }
}
