//! The command line of the `peer` program.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto::name::ShareName;
use proto::tunnel::proxy::Cidr;
use proto::wire::gateway::is_host;
use relay::outbound::Proxy;
use relay::program::{Ending, Failure, GlobalArgs, NoSecret, Report, Secret, VERSION};

use crate::endpoint::PathPolicy;
use crate::server_url::ServerUrl;
use crate::store::Alias as AliasName;
use crate::target::TcpTarget;
use crate::{alias, connect, netcheck, ping, share, status};

const EXAMPLE: &str = "\
Example: on the machine that has something to show
  peer share 8000
and on the other one, with the line that this prints
  peer connect culvert1…";

const SHARE_EXAMPLE: &str = "\
Example: share a web server through a rendezvous of your own
  peer share 8000 --server http://203.0.113.1:8080
and the same for any browser, at http://nas.example.com:8080/ if that is the server's domain
  peer share 8000 --server http://203.0.113.1:8080 --public --name nas";

const CONNECT_EXAMPLE: &str = "\
Example: reach what is shared under this ticket at port 9000 of this machine
  peer connect culvert1… --listen 127.0.0.1:9000";

const PING_EXAMPLE: &str = "\
Example: ten round trips to whoever shares under the ticket that is saved as `nas`
  peer ping nas -c 10";

const STATUS_EXAMPLE: &str = "\
Example: watch which path each peer's data takes, and why
  peer status --watch";

const ALIAS_EXAMPLE: &str = "\
Example: save a ticket, see whose it is, and forget it
  peer connect culvert1… --save nas
  peer alias list
  peer alias remove nas";

const NETCHECK_EXAMPLE: &str = "\
Example: what kind of NAT is this machine behind?
  peer netcheck --server http://203.0.113.1:8080";

/// Culvert: a local port of one machine, on another one, wherever the two are
#[derive(Debug, clap::Parser)]
#[command(name = "peer", version = VERSION, after_help = EXAMPLE)]
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
    /// Share local services: prints the ticket that lets another machine in
    Share(Share),
    /// Connect to what a ticket is for: opens its ports on this machine
    Connect(Connect),
    /// Measure the round trip to a ticket's sharer, and say which path each takes
    Ping(Ping),
    /// Show how the running `share` and `connect` of this user stand
    Status(Status),
    /// List or forget the short names of tickets
    Alias(Alias),
    /// Say what kind of NAT this machine is behind, and what that means for direct paths
    Netcheck(Netcheck),
}

/// The options of `peer share`.
#[derive(Debug, clap::Args)]
#[command(after_help = SHARE_EXAMPLE)]
pub struct Share {
    /// What to share: a port of this machine, or host:port
    #[arg(value_name = "TARGET", required = true, num_args = 1..=64)]
    pub targets: Vec<TcpTarget>,

    /// The rendezvous: an https:// or http:// URL
    #[arg(
        long,
        value_name = "URL",
        help = "The rendezvous: https://host[:port], or http://host[:port][#PEERID]\n\
                [default: a server embedded in this program, for this machine and its LAN]"
    )]
    pub server: Option<ServerUrl>,

    /// Name of the share; with --public also its name on the server [default: random words]
    #[arg(long, value_name = "NAME")]
    pub name: Option<ShareName>,

    /// Show the first target, a web server, to the world: at http(s)://NAME.DOMAIN/ of the server
    ///
    /// The server sees these visitors' requests and the answers in clear.
    #[arg(long)]
    pub public: bool,

    /// What the local server gets as Host from public visitors; `preserve` keeps what they asked for
    /// [default: the target's host:port]
    #[arg(long, value_name = "HOST", value_parser = host_header, verbatim_doc_comment)]
    pub host_header: Option<HostHeader>,

    /// User and password that public visitors need; @FILE reads them from a file
    #[arg(long, value_name = "USER:PASS", value_parser = credentials, hide_env_values = true)]
    pub auth: Option<Secret>,

    /// Addresses that public visitors may come from (repeatable) [default: all]
    #[arg(long, value_name = "CIDR")]
    pub allow_ip: Vec<Cidr>,

    /// Admission to a private server; @FILE reads it from a file
    #[arg(long, value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,

    /// A new identity and ticket for this run
    #[arg(long)]
    pub ephemeral: bool,

    /// For how long the ticket is good, as in 24h or 7d [default: until it is not]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub expires: Option<Duration>,

    /// Do not ask the router to map a port (PCP, NAT-PMP, UPnP)
    #[arg(long)]
    pub no_portmap: bool,
}

/// What a local server gets as `Host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostHeader {
    /// What the visitor asked for.
    Preserve,
    /// This.
    Is(String),
}

/// Why a text is no host.
#[derive(Debug, thiserror::Error)]
#[error("expected a host such as localhost:8080, or `preserve`")]
struct NotAHost;

fn host_header(text: &str) -> Result<HostHeader, NotAHost> {
    match text {
        "preserve" => Ok(HostHeader::Preserve),
        host if is_host(host) => Ok(HostHeader::Is(host.to_owned())),
        _ => Err(NotAHost),
    }
}

/// Why a text names no user and password.
#[derive(Debug, thiserror::Error)]
enum NotCredentials {
    #[error(transparent)]
    NoSecret(#[from] NoSecret),
    #[error("expected a user and a password with a colon between them")]
    NoColon,
}

fn credentials(text: &str) -> Result<Secret, NotCredentials> {
    let secret: Secret = text.parse()?;
    if secret.reveal().contains(':') { Ok(secret) } else { Err(NotCredentials::NoColon) }
}

/// The options of `peer connect`.
#[derive(Debug, clap::Args)]
#[command(after_help = CONNECT_EXAMPLE)]
pub struct Connect {
    /// The ticket, or its alias, or @FILE that holds it, or - to read it from standard input
    /// [default: what CULVERT_TICKET holds]
    #[arg(value_name = "TICKET", verbatim_doc_comment)]
    pub ticket: Option<String>,

    /// Keep the ticket under a short name, which takes its place in any later command
    #[arg(long, value_name = "ALIAS")]
    pub save: Option<AliasName>,

    /// Where to listen, once for each target (repeatable)
    /// [default: 127.0.0.1 and the target's port, or a free one if that is taken]
    #[arg(long, value_name = "ADDR:PORT", verbatim_doc_comment)]
    pub listen: Vec<SocketAddr>,

    /// Do not ask the router to map a port (PCP, NAT-PMP, UPnP)
    #[arg(long)]
    pub no_portmap: bool,

    /// Which kinds of path may carry data
    #[arg(long, value_name = "KIND", value_enum, default_value_t)]
    pub path: PathPolicy,
}

/// The HTTP proxy that the user's environment names.
pub(crate) fn proxy() -> Result<Option<Proxy>, Failure> {
    Proxy::from_environment(|name| std::env::var(name).ok())
        .map_err(|error| Failure::usage(format_args!("the environment's HTTPS_PROXY can't be used: {error}")))
}

/// The options of `peer netcheck`.
#[derive(Debug, clap::Args)]
#[command(after_help = NETCHECK_EXAMPLE)]
pub struct Netcheck {
    /// The rendezvous to ask: an https:// or http:// URL
    #[arg(
        long,
        value_name = "URL",
        help = "The rendezvous to ask: https://host[:port], or http://host[:port][#PEERID]"
    )]
    pub server: Option<ServerUrl>,
}

/// The options of `peer ping`.
#[derive(Debug, clap::Args)]
#[command(after_help = PING_EXAMPLE)]
pub struct Ping {
    /// The ticket, or its alias, or @FILE that holds it, or - to read it from standard input
    /// [default: what CULVERT_TICKET holds]
    #[arg(value_name = "TICKET", verbatim_doc_comment)]
    pub ticket: Option<String>,

    /// How many round trips, a second apart
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
}

/// The options of `peer status`.
#[derive(Debug, clap::Args)]
#[command(after_help = STATUS_EXAMPLE)]
pub struct Status {
    /// Look again every second, until interrupted
    #[arg(long)]
    pub watch: bool,
}

/// The options of `peer alias`.
#[derive(Debug, clap::Args)]
#[command(after_help = ALIAS_EXAMPLE)]
pub struct Alias {
    /// What to do with them.
    #[command(subcommand)]
    pub command: AliasCommand,
}

/// What `peer alias` does.
#[derive(Debug, clap::Subcommand)]
pub enum AliasCommand {
    /// List them, with whose tickets they are
    #[command(after_help = ALIAS_EXAMPLE)]
    List,
    /// Forget one; its ticket stays good
    #[command(after_help = ALIAS_EXAMPLE)]
    Remove {
        /// Which
        #[arg(value_name = "ALIAS")]
        alias: AliasName,
    },
}

/// Runs the command.
///
/// # Errors
/// The one line that the user gets.
pub async fn run(cli: Cli, report: Report, started: Instant) -> Result<Ending, Failure> {
    match cli.command {
        Command::Share(args) => share::run(args, report, started).await,
        Command::Connect(args) => connect::run(args, report, started).await,
        Command::Ping(args) => ping::run(args, report).await,
        Command::Status(args) => status::run(args, report).await,
        Command::Alias(args) => alias::run(&args, &report),
        Command::Netcheck(args) => netcheck::run(args, report).await,
    }
}
