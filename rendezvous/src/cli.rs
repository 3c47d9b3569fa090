//! The command line of the `rendezvous` program.

use std::net::SocketAddr;
use std::path::PathBuf;

use hyper::Uri;
use proto::admission::Admission;
use proto::candidate::{Scope, canonical, scope};
use proto::id::PeerId;
use proto::reach::{self, Door};
use proto::tunnel::proxy::Cidr;
use proto::wire::signal::{MAX_URL, RelayHint};
use relay::access_log::{AccessLog, AccessLogTo};
use relay::gateway::TunnelPorts;
use relay::https::HttpsArgs;
use relay::program::{Failure, GlobalArgs, Secret, VERSION, state};

use crate::config::{Alternate, Bind, Relaying, ServerConfig};

const EXAMPLE: &str = "\
Example: a server that everybody reaches at 203.0.113.1
  rendezvous --domain example.com
and on a machine behind a NAT
  peer share 8000 --server http://203.0.113.1:8080

`rendezvous` alone is `rendezvous serve`; its options are in `rendezvous serve --help`.";

const SERVE_EXAMPLE: &str = "\
Example: a server behind a proxy that terminates TLS for https://example.com/
  rendezvous serve --domain example.com --public-url https://example.com --http 127.0.0.1:8080 \
    --trusted-proxy 127.0.0.1
and one with a certificate of its own for example.com and *.example.com
  rendezvous serve --domain example.com --https [::]:443 --cert fullchain.pem --key privkey.pem";

/// Culvert's public server: it tells two machines behind NATs how to reach each other
#[derive(Debug, clap::Parser)]
#[command(name = "rendezvous", version = VERSION, after_help = EXAMPLE, arg_required_else_help = false)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program does.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run the server, until it is stopped
    Serve(Serve),
}

/// The options of `rendezvous serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = SERVE_EXAMPLE)]
pub struct Serve {
    /// Domain of the gateway's subdomains
    #[arg(long, value_name = "DOMAIN", default_value = "localhost")]
    domain: String,

    /// How the outside reaches the HTTP side, when a proxy stands in front
    #[arg(long, value_name = "URL", value_parser = public_url)]
    public_url: Option<Uri>,

    /// Further host that is the server itself; DOMAIN, IP addresses and localhost always are (repeatable)
    #[arg(long, value_name = "NAME")]
    apex: Vec<String>,

    /// Proxy whose X-Forwarded-For and X-Forwarded-Proto are believed (repeatable)
    #[arg(long, value_name = "CIDR")]
    trusted_proxy: Vec<Cidr>,

    /// TCP ports for localtunnel clients
    #[arg(long, value_name = "FROM-TO", default_value = "20000-20099")]
    tunnel_ports: TunnelPorts,

    /// STUN and QUIC
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:3478")]
    udp: SocketAddr,

    /// Further address and port for NAT behaviour discovery (repeatable). For all of RFC 5780: the same two
    /// ports on two addresses, --udp A:P --udp-alternate A:Q --udp-alternate B:P --udp-alternate B:Q
    /// [default: the next port on the same address]
    #[arg(long, value_name = "ADDR:PORT", verbatim_doc_comment)]
    udp_alternate: Vec<SocketAddr>,

    /// Address and port that clients reach in place of --udp, and then of each --udp-alternate in turn, where the server
    /// can't know it: behind a cloud's or a router's address translation (repeatable). Each family counts for itself: a
    /// socket bound to [::] takes one address of each. A socket without one is taken to be at the same IP address, with its
    /// own port
    #[arg(long, value_name = "ADDR:PORT", value_parser = udp_public)]
    udp_public: Vec<SocketAddr>,

    /// Gateway and tunnel API, over HTTP
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:8080")]
    http: SocketAddr,

    #[command(flatten)]
    https: HttpsArgs,

    /// Durable state: the server's identity, the names that sharers have claimed
    /// [default: culvert/rendezvous in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR", verbatim_doc_comment)]
    data: Option<PathBuf>,

    /// Who brings this may share here, and others may not; @FILE reads it from a file
    #[arg(long, value_name = "TOKEN", hide_env_values = true)]
    token: Option<Secret>,

    /// An identity that may share here, and others may not (repeatable)
    #[arg(long, value_name = "PEER_ID")]
    allow: Vec<PeerId>,

    /// /metrics (Prometheus), /healthz, /readyz
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,

    /// A line for each visitor's request, without queries: `-` is stderr, `off` nowhere, and else the end of this file,
    /// which is opened anew on SIGHUP
    #[arg(long, value_name = "FILE", default_value = "-", verbatim_doc_comment)]
    access_log: AccessLogTo,

    /// Do not answer the `echo` datagram
    #[arg(long)]
    no_echo: bool,

    /// Do not run the embedded relay; who has no UDP can't reach this server then
    #[arg(long)]
    no_relay: bool,

    /// A relay elsewhere, which peers use first: the embedded one is for those who have no UDP, and for all where none
    /// elsewhere is there (repeatable)
    #[arg(long, value_name = "URL#PEERID", value_parser = relay_url)]
    relay: Vec<RelayHint>,
}

impl Serve {
    /// Where the server's state is kept.
    ///
    /// # Errors
    /// No directory was named, and there is no home to put one in.
    pub fn data(&self) -> Result<PathBuf, Failure> {
        match &self.data {
            Some(data) => Ok(data.clone()),
            None => Ok(state::directory("rendezvous")?),
        }
    }

    /// The server that these options describe.
    ///
    /// # Errors
    /// The options of TLS don't fit together, there is no certificate where they say, a public UDP address has no socket,
    /// or the access log can't be written.
    pub fn config(self) -> Result<ServerConfig, Failure> {
        let https = self.https.load()?;
        let access_log = AccessLog::open(&self.access_log)?;
        let udp_alternate = match self.udp_alternate.as_slice() {
            [] => Alternate::NextPort,
            all => Alternate::At(all.iter().copied().map(Bind::exactly).collect()),
        };
        self.check_public()?;
        Ok(ServerConfig {
            udp: Bind::exactly(self.udp),
            udp_alternate,
            udp_public: self.udp_public,
            http: Bind::exactly(self.http),
            https,
            admin: Some(Bind::exactly(self.admin)),
            domain: self.domain.trim_end_matches('.').to_ascii_lowercase(),
            public_url: self.public_url,
            apex: self.apex,
            trusted_proxies: self.trusted_proxy,
            tunnel_ports: Some(self.tunnel_ports),
            admission: Admission::new(self.token.as_ref().map(Secret::reveal), self.allow),
            access_log,
            echo: !self.no_echo,
            relay: if self.no_relay || !self.relay.is_empty() {
                Relaying::Elsewhere { relays: self.relay, own: !self.no_relay }
            } else {
                Relaying::Embedded(Box::default())
            },
            ..ServerConfig::default()
        })
    }
}

impl Serve {
    /// Checks that each public UDP address has a socket to stand for.
    fn check_public(&self) -> Result<(), Failure> {
        let next = SocketAddr::new(self.udp.ip(), self.udp.port().saturating_add(1));
        let alternates = if self.udp_alternate.is_empty() { vec![next] } else { self.udp_alternate.clone() };
        let mut doors: Vec<_> = [self.udp].into_iter().chain(alternates).map(Door::new).collect();
        reach::state(&mut doors, &self.udp_public).map_err(Failure::usage)
    }
}

/// Why a text is no public address.
#[derive(Debug, thiserror::Error)]
#[error("expected the ADDR:PORT that clients reach, which is no wildcard, no loopback and not port 0")]
struct NotPublic;

fn udp_public(text: &str) -> Result<SocketAddr, NotPublic> {
    let addr: SocketAddr = text.parse().map_err(|_| NotPublic)?;
    let addr = canonical(addr);
    match scope(addr) {
        Scope::Local | Scope::Global => Ok(addr),
        Scope::Unusable | Scope::Loopback => Err(NotPublic),
    }
}

/// Why a text is no URL of this server.
#[derive(Debug, thiserror::Error)]
#[error("expected http://HOST[:PORT] or https://HOST[:PORT], without a path")]
struct NotAPublicUrl;

fn public_url(text: &str) -> Result<Uri, NotAPublicUrl> {
    let url: Uri = text.parse().map_err(|_| NotAPublicUrl)?;
    let known = matches!(url.scheme_str(), Some("http" | "https"));
    let bare = url.path() == "/" && url.query().is_none();
    let plain = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if known && bare && plain { Ok(url) } else { Err(NotAPublicUrl) }
}

/// Why a text is no relay.
#[derive(Debug, thiserror::Error)]
#[error("expected http://HOST[:PORT]/relay#PEERID or the same with https://, as the relay prints it")]
struct NotARelay;

fn relay_url(text: &str) -> Result<RelayHint, NotARelay> {
    let (url, peer_id) = text.split_once('#').ok_or(NotARelay)?;
    let peer_id = peer_id.parse().map_err(|_| NotARelay)?;
    let uri: Uri = url.parse().map_err(|_| NotARelay)?;
    let known = matches!(uri.scheme_str(), Some("http" | "https")) && url.len() <= MAX_URL;
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if known && plain && uri.query().is_none() {
        Ok(RelayHint { url: url.to_owned(), peer_id })
    } else {
        Err(NotARelay)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use relay::program::{Code, Loader};

    use super::*;

    fn parse(args: &[&str]) -> Result<ServerConfig, Code> {
        let args = ["rendezvous"].iter().chain(args).map(OsString::from);
        let loader = Loader::new("rendezvous").default_subcommand("serve").env(|_| None);
        let Cli { command: Command::Serve(serve), .. } = loader.parse(args).map_err(|exit| exit.code())?;
        serve.config().map_err(|failure| failure.code)
    }

    #[test]
    fn serve_is_what_is_meant_when_nothing_is_said() {
        for args in [&[][..], &["serve"]] {
            let config = parse(args).unwrap();
            let default = ServerConfig::default();
            assert_eq!((config.udp, config.http, config.admin), (default.udp, default.http, default.admin));
            assert_eq!(config.udp_alternate, Alternate::NextPort);
            assert!(config.echo);
            assert_eq!(config.domain, "localhost");
        }
    }

    #[test]
    fn every_option_arrives() {
        let config = parse(&[
            "--domain",
            "Example.test.",
            "--public-url",
            "https://example.test",
            "--udp",
            "127.0.0.1:1",
            "--http",
            "127.0.0.1:2",
            "--admin",
            "127.0.0.1:3",
            "--udp-alternate",
            "127.0.0.1:4",
            "--udp-alternate",
            "127.0.0.2:5",
            "--no-echo",
            "--apex",
            "gate.example.net",
            "--trusted-proxy",
            "10.0.0.0/8",
            "--trusted-proxy",
            "::1",
            "--tunnel-ports",
            "1000-1001",
            "--token",
            "secret",
        ]);
        let config = config.unwrap();
        let at = |text: &str| Bind::exactly(text.parse().unwrap());
        assert_eq!(config.domain, "example.test");
        assert_eq!(config.public_url.unwrap().host(), Some("example.test"));
        assert_eq!((config.udp, config.http), (at("127.0.0.1:1"), at("127.0.0.1:2")));
        assert_eq!(config.admin, Some(at("127.0.0.1:3")));
        assert_eq!(config.udp_alternate, Alternate::At(vec![at("127.0.0.1:4"), at("127.0.0.2:5")]));
        assert!(!config.echo);
        assert!(config.admission.admits(&PeerId::from_bytes([1; 32]), Some("secret")));
        assert!(!config.admission.admits(&PeerId::from_bytes([1; 32]), None));
        assert_eq!(config.apex, ["gate.example.net"]);
        assert_eq!(config.trusted_proxies, ["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()]);
        assert_eq!(config.tunnel_ports, Some(TunnelPorts { from: 1000, to: 1001 }));
    }

    #[test]
    fn what_is_no_url_of_a_server_is_a_usage_error() {
        for url in [
            "example.com",
            "ftp://example.com",
            "https://example.com/path",
            "https://u:p@example.com",
            "https://",
        ] {
            assert_eq!(parse(&["--public-url", url]).unwrap_err(), Code::Usage, "{url}");
        }
    }

    #[test]
    fn the_relay_is_embedded_unless_another_is_named_or_none_is_wanted() {
        let elsewhere = |args: &[&str]| match parse(args).unwrap().relay {
            Relaying::Embedded(_) => None,
            Relaying::Elsewhere { relays, own } => Some((relays, own)),
        };
        assert_eq!(elsewhere(&[]), None);
        assert_eq!(elsewhere(&["--no-relay"]), Some((vec![], false)));
        let peer_id = PeerId::from_bytes([7; 32]);
        let url = "https://relay.example.com/relay";
        let named = format!("{url}#{peer_id}");
        let hint = RelayHint { url: url.to_owned(), peer_id };
        assert_eq!(elsewhere(&["--relay", &named]), Some((vec![hint.clone()], true)));
        assert_eq!(elsewhere(&["--relay", &named, "--no-relay"]), Some((vec![hint.clone()], false)));
        assert_eq!(
            elsewhere(&["--relay", &named, "--relay", &named]),
            Some((vec![hint.clone(), hint], true))
        );
        for bad in [url, "ftp://h/relay#x", "#", &named.replace("https", "ws"), &named[..named.len() - 1]] {
            assert_eq!(parse(&["--relay", bad]).unwrap_err(), Code::Usage, "{bad}");
        }
    }

    #[test]
    fn a_public_udp_address_has_a_socket_to_stand_for_or_is_a_usage_error() {
        let stated = |args: &[&str]| parse(args).map(|config| config.udp_public.len());
        let v4 = ["--udp-public", "203.0.113.1:3478"];
        let second = ["--udp-public", "203.0.113.1:3479"];
        let v6 = ["--udp-public", "[2001:db8::1]:3478"];
        assert_eq!(stated(&v4), Ok(1));
        assert_eq!(stated(&[v4, v6, second].concat()), Ok(3), "both families, and the next port");
        assert_eq!(stated(&[v4, second, second].concat()), Err(Code::Usage));
        assert_eq!(stated(&[&["--udp", "0.0.0.0:3478"][..], &v6].concat()), Err(Code::Usage));
        for bad in ["0.0.0.0:1", "[::]:1", "127.0.0.1:1", "[::1]:1", "203.0.113.1:0", "203.0.113.1", "a:1"] {
            assert_eq!(stated(&["--udp-public", bad]), Err(Code::Usage), "{bad}");
        }
    }

    #[test]
    fn what_does_not_exist_yet_is_refused() {
        assert_eq!(parse(&["--cluster", "http://127.0.0.1:2379"]).unwrap_err(), Code::Usage);
    }
}
