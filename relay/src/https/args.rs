//! The options of TLS, as every server has them.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Certificate, CertificateFiles, Https};
use crate::listen::Bind;
use crate::program::Failure;

/// `--https`, `--cert` and `--key`.
#[derive(Debug, Default, clap::Args)]
pub struct HttpsArgs {
    /// The same as --http over TLS, HTTP/2 included, with the certificate of --cert and --key
    #[arg(long, value_name = "ADDR:PORT")]
    https: Option<SocketAddr>,

    /// Certificate chain in PEM for --https; read again when it changes, and on SIGHUP
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,

    /// Its private key in PEM
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl HttpsArgs {
    /// Reads the certificate.
    ///
    /// # Errors
    /// Some of the options are missing, or there is no certificate where they say.
    pub fn load(&self) -> Result<Option<Https>, Failure> {
        match (self.https, &self.cert, &self.key) {
            (None, None, None) => Ok(None),
            (Some(addr), Some(cert), Some(key)) => {
                let files = CertificateFiles { cert: cert.clone(), key: key.clone() };
                Ok(Some(Https { bind: Bind::exactly(addr), certificate: Certificate::load(files)? }))
            }
            (_, _, _) => Err(Failure::usage(
                "--https, --cert and --key belong together: the address to listen on, the certificate and its key",
            )),
        }
    }
}
