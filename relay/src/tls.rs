//! Identity on the wire: TLS 1.3 in which both sides present a raw public key (RFC 7250).
//!
//! There are no certificates and no names. A key is an identity, a client knows whom it wants, and a server
//! learns who came: it lets any key in, and what a key may do is decided above. Nothing is resumed and
//! nothing is sent early, so each handshake proves both keys anew.
//!
//! A client's handshake completes *before* the server has checked the client's key. A client knows that it
//! was let in by the first byte from the server.

use std::fmt;
use std::sync::Arc;

use proto::id::PeerId;
use proto::key::SecretKey;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionError, TransportErrorCode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, PeerIncompatible,
    ServerConfig, SignatureScheme,
};

/// What to give as the server's name to `quinn::Endpoint::connect`, which wants one. It is not sent.
pub const SERVER_NAME: &str = "culvert";

/// The DER of an Ed25519 `SubjectPublicKeyInfo` (RFC 8410 §4) before its 32 bytes of key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The client's half: we are `key`, we want `server`, and we speak `alpn` with it.
pub fn client_config(key: &SecretKey, server: PeerId, alpn: &[u8]) -> QuicClientConfig {
    client(certified(key), server, alpn)
}

fn client(key: Arc<CertifiedKey>, server: PeerId, alpn: &[u8]) -> QuicClientConfig {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Verifier::new(&provider, Some(server)));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3's cipher suites")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_sni = false;
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    QuicClientConfig::try_from(config).expect("ring has QUIC's initial cipher suite")
}

/// The server's half: we are `key`, we speak any of `alpns`, the first one preferred, with any client that
/// has a key.
pub fn server_config(key: &SecretKey, alpns: &[&[u8]]) -> QuicServerConfig {
    server(certified(key), alpns)
}

fn server(key: Arc<CertifiedKey>, alpns: &[&[u8]]) -> QuicServerConfig {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Verifier::new(&provider, None));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3's cipher suites")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    config.alpn_protocols = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    QuicServerConfig::try_from(config).expect("ring has QUIC's initial cipher suite")
}

/// Who is at the other end: the key that it proved in the handshake.
pub fn peer_id(connection: &quinn::Connection) -> Option<PeerId> {
    let keys = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    match keys.as_slice() {
        [key] => peer_id_of(key),
        _ => None,
    }
}

/// The protocol that both sides agreed on.
pub fn alpn(connection: &quinn::Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// Why a handshake came to nothing, where a person can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeFailure {
    /// Another key than the pinned one answered: an impostor, or a server whose identity is new.
    #[error("the server's key is not the expected one")]
    WrongServerKey,
    /// The two sides have no protocol in common: other versions, or not what one took the other for.
    #[error("the other side speaks another protocol or version")]
    WrongProtocol,
    /// The other side doesn't believe our key, or does not speak of keys as we do.
    #[error("the other side refused our key")]
    KeyRefused,
    /// Something else in the handshake: the other side is no Culvert, or is broken.
    #[error("the other side does not speak as Culvert does")]
    Incompatible,
}

impl HandshakeFailure {
    /// Tells what kept a connection from coming about; `None` when it was not the handshake.
    pub fn of(error: &ConnectionError) -> Option<Self> {
        match error {
            ConnectionError::TransportError(error) => Self::found_here(error.code),
            ConnectionError::ConnectionClosed(close) => Self::reported(close.error_code),
            ConnectionError::VersionMismatch => Some(Self::Incompatible),
            ConnectionError::ApplicationClosed(_)
            | ConnectionError::Reset
            | ConnectionError::TimedOut
            | ConnectionError::LocallyClosed
            | ConnectionError::CidsExhausted => None,
        }
    }

    /// Our side gave the handshake up, with this code.
    fn found_here(code: TransportErrorCode) -> Option<Self> {
        match alert::of(code)? {
            // Only the pin is reported so: see `Verifier::check`.
            alert::CERTIFICATE_UNKNOWN => Some(Self::WrongServerKey),
            alert::NO_APPLICATION_PROTOCOL => Some(Self::WrongProtocol),
            _ => Some(Self::Incompatible),
        }
    }

    /// The other side gave it up, with this code.
    fn reported(code: TransportErrorCode) -> Option<Self> {
        match alert::of(code)? {
            alert::NO_APPLICATION_PROTOCOL => Some(Self::WrongProtocol),
            alert::BAD_CERTIFICATE | alert::DECRYPT_ERROR | alert::CERTIFICATE_REQUIRED => {
                Some(Self::KeyRefused)
            }
            _ => Some(Self::Incompatible),
        }
    }
}

/// The TLS alerts that tell something (RFC 8446 §6.2), as QUIC carries them.
mod alert {
    use quinn::TransportErrorCode;

    pub(super) const BAD_CERTIFICATE: u8 = 42;
    pub(super) const CERTIFICATE_UNKNOWN: u8 = 46;
    pub(super) const DECRYPT_ERROR: u8 = 51;
    pub(super) const CERTIFICATE_REQUIRED: u8 = 116;
    pub(super) const NO_APPLICATION_PROTOCOL: u8 = 120;

    /// The alert in a QUIC error code: 0x0100 and the alert (RFC 9001 §4.8).
    pub(super) fn of(code: TransportErrorCode) -> Option<u8> {
        u64::from(code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
    }
}

fn certified(key: &SecretKey) -> Arc<CertifiedKey> {
    let pkcs8 = PrivatePkcs8KeyDer::from(key.pkcs8());
    let signer = ring::sign::any_eddsa_type(&pkcs8).expect("the key was read as an Ed25519 key before");
    let spki = [&SPKI_PREFIX[..], key.peer_id().as_bytes()].concat();
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer))
}

/// The identity in a raw public key, if it is an Ed25519 one.
fn peer_id_of(spki: &[u8]) -> Option<PeerId> {
    let key = spki.strip_prefix(&SPKI_PREFIX)?;
    Some(PeerId::from_bytes(key.try_into().ok()?))
}

/// Another key than the pinned one was presented.
struct NotThePinnedKey {
    presented: PeerId,
    pinned: PeerId,
}

impl fmt::Display for NotThePinnedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server is {}, and {} was expected", self.presented, self.pinned)
    }
}

/// rustls shows the reason of a refusal by its `Debug` form.
impl fmt::Debug for NotThePinnedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for NotThePinnedKey {}

/// Checks the other side's key: its form, the pin where there is one, and the signature that proves it.
#[derive(Debug)]
struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    pinned: Option<PeerId>,
}

impl Verifier {
    fn new(provider: &CryptoProvider, pinned: Option<PeerId>) -> Self {
        Self { algorithms: provider.signature_verification_algorithms, pinned }
    }

    /// Exactly one key, an Ed25519 one, and the pinned one.
    fn check(&self, key: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        if !more.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        let presented = peer_id_of(key).ok_or(CertificateError::BadEncoding)?;
        match self.pinned {
            Some(pinned) if pinned != presented => {
                let error = NotThePinnedKey { presented, pinned };
                Err(CertificateError::Other(OtherError(Arc::new(error))).into())
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if signed.scheme != SignatureScheme::ED25519 {
            return Err(CertificateError::BadSignature.into());
        }
        let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signed, &self.algorithms)
    }
}

const TLS12: rustls::Error = rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13);

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
pub(crate) mod tests;
