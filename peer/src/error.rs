//! What keeps two peers apart, by whose fault it is; and the exit code and one line that a user gets for it.

use proto::dial::DialFailure;
use proto::id::PeerId;
use proto::wire::signal::Refusal;
use relay::certificate;
use relay::program::{Code, Failure};

/// Why a share or a connection did not come about, or ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server's URL is none.
    #[error("{url:?} is no server URL: {why}; write https://host[:port], or http://host[:port]")]
    ServerUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The server's HTTP side could not be asked who it is.
    #[error("{}", unreachable_text(url, why))]
    ServerUnreachable {
        /// Its URL.
        url: String,
        /// What failed.
        why: String,
    },
    /// The server could not even be asked: the look-up of a name got no answer.
    #[error(
        "the server {url} cannot be reached: the name {name} has no answer from DNS; check this machine's network, and \
         the DNS servers that it uses"
    )]
    NameUnanswered {
        /// The server's URL.
        url: String,
        /// The name: the server's, or that of the proxy in front of it.
        name: String,
    },
    /// The server did not answer at its UDP port, nor over TCP where that is allowed.
    #[error("the server {url} does not answer: {why}")]
    ServerSilent {
        /// Its URL.
        url: String,
        /// What keeps it away, and how to mend that.
        why: String,
    },
    /// A ticket's server did not answer, and is one that only the sharer's network or machine reaches.
    #[error(
        "this ticket names a server {place} ({host}), and nothing answers there over TCP or UDP: connect from there, or \
         ask the sharer to name the server by an address that others reach"
    )]
    ServerElsewhere {
        /// The host of its URL.
        host: String,
        /// Where that is.
        place: &'static str,
    },
    /// The server is not the one it was.
    #[error(
        "the server {url} has another identity ({found}) than the one known ({known}): somebody may be in \
         between. If its operator says that it is new, {remedy}"
    )]
    ServerChanged {
        /// Its URL.
        url: String,
        /// The one that is pinned.
        known: PeerId,
        /// The one that answered, where it is known.
        found: String,
        /// How to accept the new one.
        remedy: String,
    },
    /// The server does not let us in, or speaks another protocol.
    #[error("the server {url} refused the session: {why}; update whichever of the two is older")]
    ServerRefused {
        /// Its URL.
        url: String,
        /// What it said.
        why: String,
    },
    /// The server is private, and we are nobody to it.
    #[error(
        "the server {url} is private and does not know this identity; ask its operator for a token, and give it with \
         CULVERT_TOKEN or --token @FILE"
    )]
    NotAdmitted {
        /// Its URL.
        url: String,
    },
    /// The offer went nowhere, or was refused.
    #[error("{}", dial_text(*.0))]
    Dial(DialFailure),
    /// No pair of addresses worked.
    #[error(
        "no direct path to the peer could be found: the networks at both ends let no packets through to each \
         other; try from another network"
    )]
    NoPath,
    /// The same, and the relay can't be reached either.
    #[error(
        "no direct path to the peer could be found, and the relay {url} cannot be reached ({why}); try from another \
         network, or have the server's operator look at that relay"
    )]
    RelayAway {
        /// Its URL.
        url: String,
        /// What failed.
        why: String,
    },
    /// The same, where nothing else than a direct path was asked for.
    #[error(
        "no direct path to the peer could be found: the networks at both ends let no packets through to each \
         other; without `--path direct` data takes the relay"
    )]
    NoDirectPath,
    /// No path through a relay, where nothing else was asked for.
    #[error(
        "no relay joins the two: {0}; without `--path relay` a direct path is looked for, and to have a relay let \
         the server run one, or name one with its --relay"
    )]
    NoRelay(&'static str),
    /// Who answered at the far end is not the ticket's sharer.
    #[error("who answers is not the ticket's sharer ({0}); ask for a new ticket")]
    WrongPeer(String),
    /// The connection broke off before it was ready.
    #[error("the connection to the peer broke off: {0}; try again")]
    Broken(String),
    /// This side cannot go on.
    #[error("{0}")]
    Local(String),
}

fn unreachable_text(url: &str, why: &str) -> String {
    // A certificate's fault brings its own cure.
    match why.starts_with(certificate::BEGIN) {
        true => format!("the server {url} cannot be trusted: {why}"),
        false => {
            format!(
                "the server {url} cannot be reached ({why}); check the address, and whether the server runs"
            )
        }
    }
}

fn dial_text(failure: DialFailure) -> &'static str {
    match failure {
        DialFailure::Offline => {
            "the peer is not online: nobody shares under this ticket right now; start `peer share` there, then try \
             again"
        }
        DialFailure::NoAnswer => {
            "the peer did not answer within 10 s, though the server knows it; check its network, then try again"
        }
        DialFailure::Busy => "the server or the peer gets too many requests right now; try again in a minute",
        DialFailure::Refused(Refusal::Expired) => "this ticket has expired; ask for a new one",
        DialFailure::Refused(Refusal::Revoked) => "this ticket was revoked; ask for a new one",
        DialFailure::Refused(Refusal::NotAllowed) => {
            "the peer does not let this identity in; ask its owner to allow it"
        }
        DialFailure::Refused(Refusal::Full) => "the peer has as many visitors as it takes; try again later",
        DialFailure::Refused(Refusal::Version) => {
            "the peer speaks another version; update the older of the two"
        }
        DialFailure::Refused(_) => {
            "the peer does not accept this ticket: its secret is not one of the share's; ask for a new one"
        }
    }
}

impl Error {
    /// Whether trying the same again may help, without anybody doing anything about it.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::ServerUnreachable { .. }
            | Self::NameUnanswered { .. }
            | Self::ServerSilent { .. }
            | Self::ServerElsewhere { .. }
            | Self::NoPath
            | Self::RelayAway { .. }
            | Self::NoDirectPath
            | Self::NoRelay(_)
            | Self::Broken(_)
            | Self::Dial(DialFailure::Offline | DialFailure::NoAnswer | DialFailure::Busy)
            | Self::Dial(DialFailure::Refused(Refusal::Full)) => true,
            Self::ServerUrl { .. }
            | Self::ServerChanged { .. }
            | Self::ServerRefused { .. }
            | Self::NotAdmitted { .. }
            | Self::Dial(DialFailure::Refused(_))
            | Self::WrongPeer(_)
            | Self::Local(_) => false,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (code, slug) = match &error {
            Error::ServerUrl { .. } => (Code::Usage, "usage"),
            Error::ServerUnreachable { .. } | Error::NameUnanswered { .. } => {
                (Code::Unreachable, "server-unreachable")
            }
            Error::ServerSilent { .. } | Error::ServerElsewhere { .. } => {
                (Code::Unreachable, "server-silent")
            }
            Error::ServerChanged { .. } => (Code::NotAuthorised, "server-changed"),
            Error::ServerRefused { .. } => (Code::NotAuthorised, "server-refused"),
            Error::NotAdmitted { .. } => (Code::NotAuthorised, "not-admitted"),
            Error::Dial(DialFailure::Offline) => (Code::Offline, "peer-offline"),
            Error::Dial(DialFailure::NoAnswer) => (Code::Offline, "peer-silent"),
            Error::Dial(DialFailure::Busy) => (Code::Failed, "busy"),
            Error::Dial(DialFailure::Refused(Refusal::Expired)) => (Code::NotAuthorised, "ticket-expired"),
            Error::Dial(DialFailure::Refused(Refusal::Full)) => (Code::Failed, "peer-full"),
            Error::Dial(DialFailure::Refused(_)) => (Code::NotAuthorised, "not-authorised"),
            Error::NoPath | Error::RelayAway { .. } | Error::NoDirectPath | Error::NoRelay(_) => {
                (Code::Failed, "no-path")
            }
            Error::WrongPeer(_) => (Code::NotAuthorised, "wrong-peer"),
            Error::Broken(_) => (Code::Failed, "broken"),
            Error::Local(_) => (Code::Failed, "failed"),
        };
        Self::new(code, slug, error)
    }
}
