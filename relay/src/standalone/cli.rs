//! The command line of the `relay` program.

use std::net::SocketAddr;
use std::path::PathBuf;

use proto::relay::RouterLimits;
use proto::tunnel::proxy::Cidr;

use super::RelayConfig;
use crate::https::HttpsArgs;
use crate::listen::Bind;
use crate::program::{Failure, GlobalArgs, VERSION, state};

const EXAMPLE: &str = "\
Example: a relay on a machine of its own, and a rendezvous that tells its peers of it
  relay --http [::]:8080
  rendezvous --relay 'http://relay.example.com:8080/relay#PEERID'

`relay` alone is `relay serve`; its options are in `relay serve --help`.";

const SERVE_EXAMPLE: &str = "\
Example: a relay behind a proxy on the same machine that terminates TLS
  relay serve --http 127.0.0.1:8080
and one that has a certificate of its own
  relay serve --https [::]:443 --cert fullchain.pem --key privkey.pem";

/// Culvert's relay alone: it carries encrypted packets between peers that find no direct path
#[derive(Debug, clap::Parser)]
#[command(name = "relay", version = VERSION, after_help = EXAMPLE, arg_required_else_help = false)]
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
    /// Run the relay, until it is stopped
    Serve(Serve),
}

/// The options of `relay serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = SERVE_EXAMPLE)]
pub struct Serve {
    /// Where peers connect, over HTTP
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:8080")]
    http: SocketAddr,

    #[command(flatten)]
    https: HttpsArgs,

    /// Proxy whose X-Forwarded-For is believed: each peer behind it counts for itself (repeatable)
    #[arg(long, value_name = "CIDR")]
    trusted_proxy: Vec<Cidr>,

    /// Durable state: the relay's identity
    /// [default: culvert/relay in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR", verbatim_doc_comment)]
    data: Option<PathBuf>,

    /// /metrics (Prometheus), /healthz, /readyz
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
}

impl Serve {
    /// Where the relay's state is kept.
    ///
    /// # Errors
    /// No directory was named, and there is no home to put one in.
    pub fn data(&self) -> Result<PathBuf, Failure> {
        match &self.data {
            Some(data) => Ok(data.clone()),
            None => Ok(state::directory("relay")?),
        }
    }

    /// The relay that these options describe.
    ///
    /// # Errors
    /// The options of TLS don't fit together, or there is no certificate where they say.
    pub fn config(&self) -> Result<RelayConfig, Failure> {
        Ok(RelayConfig {
            http: Bind::exactly(self.http),
            https: self.https.load()?,
            admin: Some(Bind::exactly(self.admin)),
            trusted_proxies: self.trusted_proxy.clone(),
            limits: RouterLimits::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::program::{Code, Loader};

    fn parse(args: &[&str]) -> Result<RelayConfig, Code> {
        let args = ["relay"].iter().chain(args).map(OsString::from);
        let loader = Loader::new("relay").default_subcommand("serve").env(|_| None);
        let Cli { command: Command::Serve(serve), .. } = loader.parse(args).map_err(|exit| exit.code())?;
        Ok(serve.config().unwrap())
    }

    #[test]
    fn serve_is_what_is_meant_when_nothing_is_said() {
        for args in [&[][..], &["serve"]] {
            let config = parse(args).unwrap();
            assert_eq!(config.http, Bind::exactly("[::]:8080".parse().unwrap()));
            assert_eq!(config.admin, Some(Bind::exactly("127.0.0.1:9090".parse().unwrap())));
        }
    }

    #[test]
    fn every_option_arrives_and_what_does_not_exist_yet_is_refused() {
        let config = parse(&["--http", "127.0.0.1:1", "--admin", "127.0.0.1:2"]).unwrap();
        assert_eq!((config.http.addr.port(), config.admin.unwrap().addr.port()), (1, 2));
        for option in ["--rendezvous", "--udp", "--cluster"] {
            assert_eq!(parse(&[option, "x"]).unwrap_err(), Code::Usage, "{option}");
        }
    }
}
