//! Finding a server: who it is and where its UDP port is, by `GET /.well-known/culvert` on its URL.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use proto::server_addrs::{ServerAddrs, at_host, meant_for_us};
use proto::ticket::{MAX_ADDRS, ServerHint};
use proto::wire::session::MAX_HINTS;
use proto::wire::signal::RelayHint;
use relay::outbound::{Connected, NameError, Origin, Outbound, OutboundError};
use rendezvous::well_known::{self, WellKnown};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::error::Error;
use crate::server_url::ServerUrl;

/// How long one attempt may take once the server's name has an address.
const ATTEMPT: Duration = Duration::from_secs(5);

/// How long a server may stay unreachable at the start before that is final.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long its name may stay without an answer: a router that drops questions costs 5 s for each of glibc's attempts.
const NAME_PATIENCE: Duration = Duration::from_secs(20);

/// Between attempts.
const RETRY: Duration = Duration::from_millis(500);

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024;

/// A server, and what it says of itself.
#[derive(Debug, Clone)]
pub struct Located {
    /// Who and where it is.
    pub server: ServerHint,
    /// The relays at which its peers may wait, in its order.
    pub relays: Vec<RelayHint>,
}

/// Asks a server who and where it is, for ten seconds if need be, and longer only while its name is being looked up.
///
/// # Errors
/// [`Error::ServerUnreachable`] or [`Error::NameUnanswered`], with the last attempt's reason.
pub async fn locate(outbound: &Outbound, url: &ServerUrl) -> Result<Located, Error> {
    let begin = Instant::now();
    let (deadline, name_deadline) = (begin + PATIENCE, begin + NAME_PATIENCE);
    loop {
        let error = match attempt(outbound, url, name_deadline, ATTEMPT).await {
            Ok(answer) => return Ok(located(url, answer)),
            Err(why) => why,
        };
        let next = Instant::now() + RETRY;
        if !error.passing || next >= deadline {
            if error.passing {
                sleep_until(deadline).await;
            }
            return Err(error.of(url));
        }
        tracing::debug!(%url, why = error.why, "the server is asked again");
        sleep_until(next).await;
    }
}

/// Asks once, in a time that begins when the server's name has an address.
async fn attempt(
    outbound: &Outbound,
    url: &ServerUrl,
    name_deadline: Instant,
    patience: Duration,
) -> Result<Answered, Failed> {
    match timeout_at(name_deadline, outbound.find(&url.host)).await {
        Ok(found) => found?,
        Err(_) => return Err(NameError::NoAnswer(url.host.clone()).into()),
    }
    let late = || Failed { why: "it did not answer in time".into(), passing: true, name: None };
    timeout(patience, ask(outbound, url)).await.unwrap_or_else(|_| Err(late()))
}

/// Asks once.
///
/// # Errors
/// Why it came to nothing.
pub(crate) async fn ask_once(outbound: &Outbound, url: &ServerUrl) -> Result<Located, String> {
    let name_deadline = Instant::now() + NAME_PATIENCE;
    match attempt(outbound, url, name_deadline, ATTEMPT).await {
        Ok(answer) => Ok(located(url, answer)),
        Err(failed) => Err(failed.why),
    }
}

/// Asks once for all that a server says of itself.
///
/// # Errors
/// [`Error::ServerUnreachable`] after `patience` at the latest, or after the time that its name had.
pub(crate) async fn describe(
    outbound: &Outbound,
    url: &ServerUrl,
    patience: Duration,
) -> Result<WellKnown, Error> {
    let name_deadline = Instant::now() + NAME_PATIENCE;
    match attempt(outbound, url, name_deadline, patience).await {
        Ok(answer) => Ok(answer.known),
        Err(failed) => Err(failed.of(url)),
    }
}

/// From a request to the head of its answer, whatever it is, on a connection that stands already; `None` where
/// nothing answers.
pub(crate) async fn round_trip(outbound: &Outbound, url: &ServerUrl, path: &str) -> Option<Duration> {
    let (mut sender, _) = open(outbound, url).await.ok()?;
    let request = Request::get(path).header(header::HOST, url.authority()).body(Empty::new()).ok()?;
    let begin = Instant::now();
    sender.send_request(request).await.ok()?;
    Some(begin.elapsed())
}

struct Failed {
    why: String,
    /// Whether the same may work in a moment.
    passing: bool,
    /// The name that has no answer from DNS, where that is what failed.
    name: Option<String>,
}

impl Failed {
    /// What a user gets.
    fn of(self, url: &ServerUrl) -> Error {
        let url = url.to_string();
        match self.name {
            Some(name) => Error::NameUnanswered { url, name },
            None => Error::ServerUnreachable { url, why: self.why },
        }
    }
}

impl From<NameError> for Failed {
    fn from(error: NameError) -> Self {
        OutboundError::from(error).into()
    }
}

impl From<hyper::Error> for Failed {
    fn from(error: hyper::Error) -> Self {
        Self { why: error.to_string(), passing: true, name: None }
    }
}

impl From<hyper::http::Error> for Failed {
    fn from(error: hyper::http::Error) -> Self {
        Self { why: error.to_string(), passing: false, name: None }
    }
}

impl From<OutboundError> for Failed {
    fn from(error: OutboundError) -> Self {
        let (passing, why) = (error.is_passing(), error.to_string());
        let name = match error {
            OutboundError::Name(NameError::NoAnswer(name)) => Some(name),
            OutboundError::Name(NameError::NoAddress(_) | NameError::Failed { .. })
            | OutboundError::Io(_)
            | OutboundError::Proxy(_)
            | OutboundError::NoRoots
            | OutboundError::Certificate(_)
            | OutboundError::BadName => None,
        };
        Self { why, passing, name }
    }
}

/// What a server says of itself.
struct Answered {
    known: WellKnown,
    /// Where it was reached by TCP; through a proxy that is not known.
    reached: Option<IpAddr>,
}

async fn ask(outbound: &Outbound, url: &ServerUrl) -> Result<Answered, Failed> {
    let (mut sender, reached) = open(outbound, url).await?;
    let request = Request::get(well_known::PATH)
        .header(header::HOST, url.authority())
        .header(header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let wrong = |why: String| Failed { why, passing: false, name: None };
    if answer.status() != StatusCode::OK {
        let why = format!("it answered {} where a Culvert server names itself", answer.status());
        return Err(Failed { passing: answer.status().is_server_error(), ..wrong(why) });
    }
    let body = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| wrong(format!("its answer cannot be read: {error}")))?
        .to_bytes();
    let known: WellKnown =
        serde_json::from_slice(&body).map_err(|_| wrong("it is no Culvert server".into()))?;
    if known.version != well_known::VERSION {
        return Err(wrong("it is a Culvert server of another version".into()));
    }
    Ok(Answered { known, reached })
}

/// What of a server's document is kept: of its UDP ports, first those at the address where it was just reached by TCP.
fn located(url: &ServerUrl, Answered { known, reached }: Answered) -> Located {
    let hosts: Vec<IpAddr> = reached.into_iter().collect();
    let ports = known.udp.iter().map(SocketAddr::port).chain(known.udp_ports.first().copied());
    let likely = at_host(&hosts, ports);
    let mut udp = ServerAddrs::new(likely);
    udp.learn(meant_for_us(&known.udp, reached));
    let udp = udp.as_slice().iter().copied().take(MAX_ADDRS).collect();
    let relays = known.relays.into_iter().take(MAX_HINTS);
    let relays = relays.map(|relay| RelayHint { url: relay.url, peer_id: relay.peer_id }).collect();
    Located { server: ServerHint { url: url.to_string(), udp, peer_id: known.peer_id }, relays }
}

/// A way for HTTP requests to a host.
type Requests = SendRequest<Empty<Bytes>>;

/// Opens one to the host of a URL, and tells where that was reached, if it was not through a proxy.
async fn open(outbound: &Outbound, url: &ServerUrl) -> Result<(Requests, Option<IpAddr>), Failed> {
    let origin = Origin { tls: url.tls, host: url.host.clone(), port: url.port };
    let Connected { wire, remote, is_proxied } = outbound.connect(&origin).await?;
    let reached = (!is_proxied).then(|| remote.ip().to_canonical());
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(wire)).await?;
    tokio::spawn(async move {
        // Whatever breaks the connection shows as the request's own error.
        let _ = connection.await;
    });
    Ok((sender, reached))
}
