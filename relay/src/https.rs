//! TLS for visitors and for whoever asks the server itself: a certificate of names, as browsers check it.
//!
//! What peers and servers say to each other has its own TLS, in [`crate::tls`], and nothing of this.

mod args;
mod certificate;
mod stream;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use tokio_rustls::TlsAcceptor;

pub use args::HttpsArgs;
pub use certificate::{Certificate, CertificateError, CertificateFiles};

use crate::listen::{Bind, StartError, listen_tcp};
use crate::net::{Listener, Net, Stream};

/// The protocols that can be spoken inside (RFC 7301).
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Where TLS is spoken, and with which certificate.
#[derive(Debug, Clone)]
pub struct Https {
    /// Where to listen.
    pub bind: Bind,
    /// Who this is.
    pub certificate: Arc<Certificate>,
}

/// A listener for TLS, and the address with the port that it got.
#[derive(Debug)]
pub struct HttpsDoor {
    /// Where connections come from.
    pub listener: Box<dyn Listener>,
    /// What is spoken first there.
    pub tls: Tls,
    /// The address.
    pub addr: SocketAddr,
    /// Who this is.
    pub certificate: Arc<Certificate>,
}

impl Https {
    /// Listens.
    ///
    /// # Errors
    /// The address can't be had.
    pub fn listen(self, net: &dyn Net) -> Result<HttpsDoor, StartError> {
        let (listener, addr) = listen_tcp(net, self.bind, "HTTPS", "--https")?;
        let tls = Tls::new(Arc::clone(&self.certificate));
        Ok(HttpsDoor { listener, tls, addr, certificate: self.certificate })
    }
}

/// What both sides have agreed to speak inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1, or whatever a client that said nothing means.
    Http1,
    /// HTTP/2.
    Http2,
}

/// The server's side of TLS.
#[derive(Clone)]
pub struct Tls {
    http1: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// With this certificate, and with what it is replaced by.
    pub fn new(certificate: Arc<Certificate>) -> Self {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_no_client_auth()
            .with_cert_resolver(certificate);
        // Without the system's randomness sessions are not resumed, and nothing else is amiss.
        if let Ok(ticketer) = ring::Ticketer::new() {
            config.ticketer = ticketer;
        }
        config.alpn_protocols = vec![HTTP1.to_vec()];
        let http1 = Arc::new(config.clone());
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        Self { http1, http2: Arc::new(config) }
    }

    /// Shakes hands over `stream`, and offers HTTP/2 too where that is wanted. There is no time limit here.
    ///
    /// # Errors
    /// The other side speaks no TLS, or none that we do, or has gone.
    pub async fn accept(&self, stream: Stream, http2: bool) -> io::Result<(Stream, Spoken)> {
        let config = if http2 { &self.http2 } else { &self.http1 };
        let tls = TlsAcceptor::from(Arc::clone(config)).accept(stream::Whole::new(stream)).await?;
        let spoken = match tls.get_ref().1.alpn_protocol() {
            Some(HTTP2) => Spoken::Http2,
            Some(_) | None => Spoken::Http1,
        };
        Ok((stream::split(tls), spoken))
    }
}

#[cfg(test)]
mod tests;
