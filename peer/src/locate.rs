//! Finding a server: who it is and where its UDP port is, by `GET /.well-known/culvert` on its URL.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use proto::ticket::{MAX_ADDRS, ServerHint};
use relay::net::{Net, Stream};
use rendezvous::well_known::{self, WellKnown};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::Error;
use crate::server_url::ServerUrl;

/// How long one attempt may take in all.
const ATTEMPT: Duration = Duration::from_secs(5);

/// How long a server may stay unreachable at the start before that is final.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between attempts.
const RETRY: Duration = Duration::from_millis(500);

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024;

/// Asks a server who and where it is, for ten seconds if need be.
///
/// # Errors
/// [`Error::ServerUnreachable`] with the last attempt's reason.
pub async fn locate(net: &dyn Net, url: &ServerUrl) -> Result<ServerHint, Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let error = match timeout(ATTEMPT, ask(net, url)).await {
            Ok(Ok(known)) => return Ok(hint(url, known)),
            Ok(Err(why)) => why,
            Err(_) => Failed { why: "it did not answer in time".into(), passing: true },
        };
        let next = Instant::now() + RETRY;
        if !error.passing || next >= deadline {
            if error.passing {
                sleep_until(deadline).await;
            }
            return Err(Error::ServerUnreachable { url: url.to_string(), why: error.why });
        }
        tracing::debug!(%url, why = error.why, "the server is asked again");
        sleep_until(next).await;
    }
}

/// Asks once.
///
/// # Errors
/// Why it came to nothing.
pub(crate) async fn ask_once(net: &dyn Net, url: &ServerUrl) -> Result<ServerHint, String> {
    match timeout(ATTEMPT, ask(net, url)).await {
        Ok(Ok(known)) => Ok(hint(url, known)),
        Ok(Err(failed)) => Err(failed.why),
        Err(_) => Err("it did not answer in time".into()),
    }
}

/// Asks once for all that a server says of itself.
///
/// # Errors
/// [`Error::ServerUnreachable`] after `patience` at the latest.
pub(crate) async fn describe(net: &dyn Net, url: &ServerUrl, patience: Duration) -> Result<WellKnown, Error> {
    let why = match timeout(patience, ask(net, url)).await {
        Ok(Ok(known)) => return Ok(known),
        Ok(Err(failed)) => failed.why,
        Err(_) => "it did not answer in time".into(),
    };
    Err(Error::ServerUnreachable { url: url.to_string(), why })
}

/// From a request to the head of its answer, whatever it is, on a connection that stands already; `None` where
/// nothing answers.
pub(crate) async fn round_trip(net: &dyn Net, url: &ServerUrl, path: &str) -> Option<Duration> {
    let mut sender = open(net, url).await.ok()?;
    let request = Request::get(path).header(header::HOST, url.authority()).body(Empty::new()).ok()?;
    let begin = Instant::now();
    sender.send_request(request).await.ok()?;
    Some(begin.elapsed())
}

struct Failed {
    why: String,
    /// Whether the same may work in a moment.
    passing: bool,
}

impl<E: std::fmt::Display> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { why: error.to_string(), passing: true }
    }
}

async fn ask(net: &dyn Net, url: &ServerUrl) -> Result<WellKnown, Failed> {
    let mut sender = open(net, url).await?;
    let request = Request::get(well_known::PATH)
        .header(header::HOST, url.authority())
        .header(header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let wrong = |why: String| Failed { why, passing: false };
    if answer.status() != StatusCode::OK {
        let why = format!("it answered {} where a Culvert server names itself", answer.status());
        return Err(Failed { why, passing: answer.status().is_server_error() });
    }
    let body = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| wrong(format!("its answer cannot be read: {error}")))?
        .to_bytes();
    let known: WellKnown =
        serde_json::from_slice(&body).map_err(|_| wrong("it is no Culvert server".into()))?;
    if known.version != well_known::VERSION || known.udp.is_empty() {
        return Err(wrong("it is a Culvert server of another version".into()));
    }
    Ok(known)
}

/// What of a server's document is kept.
fn hint(url: &ServerUrl, known: WellKnown) -> ServerHint {
    let udp = known.udp.into_iter().take(MAX_ADDRS).map(proto::candidate::canonical).collect();
    ServerHint { url: url.to_string(), udp, peer_id: known.peer_id }
}

/// A way for HTTP requests to a host.
type Requests = SendRequest<Empty<Bytes>>;

/// Opens one to the host of a URL, at the first of its addresses that takes it.
async fn open(net: &dyn Net, url: &ServerUrl) -> Result<Requests, Failed> {
    let addrs = net.resolve(&url.host, url.port).await?;
    let mut last = Failed { why: "its name has no address".into(), passing: true };
    for addr in addrs {
        match net.connect_tcp(addr).await {
            Ok(stream) => return open_over(stream, url).await,
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

async fn open_over(stream: Stream, url: &ServerUrl) -> Result<Requests, Failed> {
    let (reader, writer) = stream;
    let stream = tokio::io::join(reader, writer);
    if url.tls {
        let name = rustls::pki_types::ServerName::try_from(url.host.clone())?;
        let connector = tokio_rustls::TlsConnector::from(https_config()?);
        let stream = connector.connect(name, stream).await.map_err(|error| {
            let passing = !is_certificate_error(&error);
            Failed { why: error.to_string(), passing }
        })?;
        speak_http(stream).await
    } else {
        speak_http(stream).await
    }
}

async fn speak_http<S>(stream: S) -> Result<Requests, Failed>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Whatever breaks the connection shows as the request's own error.
        let _ = connection.await;
    });
    Ok(sender)
}

fn https_config() -> Result<Arc<rustls::ClientConfig>, Failed> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let why = "this machine has no root certificates; install its ca-certificates package";
        return Err(Failed { why: why.into(), passing: false });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn is_certificate_error(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}
