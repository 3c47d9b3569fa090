//! The certificate in use, and its replacement while the server runs.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::{Duration, MissedTickBehavior, interval};

use crate::program::Failure;

/// How often the files are looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(2);

/// Where a certificate is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, its own certificate first, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file can't be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file has no certificate.
    #[error("{} holds no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// The file has no private key.
    #[error("{} holds no private key in PEM", .0.display())]
    NoKey(PathBuf),
    /// They don't belong together, or are none.
    #[error("{} and {} make no certificate: {source}", files.cert.display(), files.key.display())]
    Unusable {
        /// Both files.
        files: CertificateFiles,
        /// What is wrong.
        source: rustls::Error,
    },
}

impl From<CertificateError> for Failure {
    fn from(error: CertificateError) -> Self {
        Self::failed("bad-certificate", format_args!("{error}; give the right files with --cert and --key"))
    }
}

impl CertificateFiles {
    fn load(&self) -> Result<CertifiedKey, CertificateError> {
        let bad_cert = || CertificateError::NoCertificate(self.cert.clone());
        let chain =
            CertificateDer::pem_slice_iter(&read(&self.cert)?).collect::<Result<Vec<_>, pem::Error>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(bad_cert)?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?);
        let key = key.map_err(|_| CertificateError::NoKey(self.key.clone()))?;
        CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|source| CertificateError::Unusable { files: self.clone(), source })
    }

    /// How the files look from outside: other contents look otherwise.
    fn look(&self) -> Look {
        [&self.cert, &self.key].map(|path| {
            let seen = std::fs::metadata(path).ok()?;
            Some((seen.modified().ok()?, seen.len(), seen.ino()))
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::Unreadable { path: path.to_owned(), source })
}

/// When each was written, how long it is, and which file: two that were written in the same tick differ in that.
type Look = [Option<(SystemTime, u64, u64)>; 2];

/// A certificate with its key, which handshakes from now on use; a newer one takes its place when the files change.
pub struct Certificate {
    files: CertificateFiles,
    current: RwLock<Arc<CertifiedKey>>,
    /// How the files looked before they were read last.
    seen: Mutex<Look>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads it for the first time.
    ///
    /// # Errors
    /// Why there is none.
    pub fn load(files: CertificateFiles) -> Result<Arc<Self>, CertificateError> {
        let seen = Mutex::new(files.look());
        let current = RwLock::new(Arc::new(files.load()?));
        Ok(Arc::new(Self { files, current, seen }))
    }

    /// Reads it again. Connections that are open stay as they are, and so does everything where this fails.
    ///
    /// # Errors
    /// Why the files are no certificate now.
    pub fn reload(&self) -> Result<(), CertificateError> {
        let look = self.files.look();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = look;
        let loaded = Arc::new(self.files.load()?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// [`Self::reload`], for an operator: says what became of it.
    pub fn renew(&self) {
        match self.reload() {
            Ok(()) => tracing::info!(cert = %self.files.cert.display(), "the certificate was read again"),
            Err(error) => tracing::warn!("the certificate stays the one before: {error}"),
        }
    }

    /// Reads it again whenever its files change, for ever.
    pub async fn follow(self: Arc<Self>) {
        self.follow_every(LOOK).await;
    }

    pub(crate) async fn follow_every(self: Arc<Self>, every: Duration) {
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changed = None;
        loop {
            tick.tick().await;
            let look = self.files.look();
            if look == *self.seen.lock().unwrap_or_else(PoisonError::into_inner) {
                changed = None;
            } else if changed == Some(look) {
                // Whoever replaces two files replaces one of them first: they are read once both are still.
                self.renew();
            } else {
                changed = Some(look);
            }
        }
    }

    /// Whether it is a certificate for this host.
    pub fn is_for(&self, host: &str) -> bool {
        let current = self.current();
        let certificate = current.cert.first().and_then(|cert| ParsedCertificate::try_from(cert).ok());
        let name = ServerName::try_from(host).ok();
        certificate.zip(name).is_some_and(|(cert, name)| verify_server_name(&cert, &name).is_ok())
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}
