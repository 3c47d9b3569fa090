use std::net::Ipv4Addr;

use quinn::{ClientConfig as QuinnClientConfig, Endpoint, ServerConfig as QuinnServerConfig};
use rcgen::{KeyPair, PKCS_ED25519};

use super::*;

const ALPN: &[u8] = b"culvert-test/1";

/// A key nobody had before.
pub(crate) fn key() -> SecretKey {
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    SecretKey::from_pkcs8(&pair.serialize_der()).unwrap()
}

/// What each side knew of the other when the server's first byte arrived.
type Met = Result<(PeerId, Vec<u8>), ConnectionError>;

/// Has a client dial a server over loopback.
async fn meet(client: QuicClientConfig, server: QuicServerConfig) -> (Met, Met) {
    let config = QuinnServerConfig::with_crypto(Arc::new(server));
    let server = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let to = server.local_addr().unwrap();
    let dialler = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let dialling = async {
        let config = QuinnClientConfig::new(Arc::new(client));
        let connection = dialler.connect_with(config, to, SERVER_NAME).unwrap().await?;
        let mut first = connection.accept_uni().await?;
        assert_eq!(first.read_to_end(1).await.unwrap(), b"!");
        Ok((peer_id(&connection).unwrap(), alpn(&connection).unwrap()))
    };
    let serving = async {
        let connection = server.accept().await.unwrap().await?;
        let mut first = connection.open_uni().await?;
        first.write_all(b"!").await.unwrap();
        first.finish().unwrap();
        connection.closed().await;
        Ok((peer_id(&connection).unwrap(), alpn(&connection).unwrap()))
    };
    tokio::join!(dialling, serving)
}

fn failure(met: &Met) -> Option<HandshakeFailure> {
    HandshakeFailure::of(met.as_ref().expect_err("they met"))
}

/// The public half of one key with the private half of another.
fn stolen(public: &SecretKey, private: &SecretKey) -> Arc<CertifiedKey> {
    let (public, private) = (certified(public), certified(private));
    Arc::new(CertifiedKey::new(public.cert.clone(), Arc::clone(&private.key)))
}

#[tokio::test]
async fn two_keys_meet_and_know_each_other() {
    let (a, b) = (key(), key());
    let (client, server) =
        meet(client_config(&a, b.peer_id(), ALPN), server_config(&b, &[b"other", ALPN])).await;
    assert_eq!(client.unwrap(), (b.peer_id(), ALPN.to_vec()));
    assert_eq!(server.unwrap(), (a.peer_id(), ALPN.to_vec()));
}

#[tokio::test]
async fn a_key_may_dial_itself() {
    let a = key();
    let (client, server) = meet(client_config(&a, a.peer_id(), ALPN), server_config(&a, &[ALPN])).await;
    assert_eq!(client.unwrap().0, a.peer_id());
    assert_eq!(server.unwrap().0, a.peer_id());
}

#[tokio::test]
async fn another_server_is_named_as_such() {
    let (a, wanted, other) = (key(), key(), key());
    let (client, server) =
        meet(client_config(&a, wanted.peer_id(), ALPN), server_config(&other, &[ALPN])).await;
    assert_eq!(failure(&client), Some(HandshakeFailure::WrongServerKey));
    assert!(client.unwrap_err().to_string().contains(&other.peer_id().to_string()), "the key that was there");
    assert!(server.is_err());
}

#[tokio::test]
async fn a_stolen_public_key_makes_no_server() {
    let (a, victim, thief) = (key(), key(), key());
    let (client, _) =
        meet(client_config(&a, victim.peer_id(), ALPN), server(stolen(&victim, &thief), &[ALPN])).await;
    assert_eq!(failure(&client), Some(HandshakeFailure::Incompatible));
}

#[tokio::test]
async fn a_stolen_public_key_makes_no_client() {
    let (b, victim, thief) = (key(), key(), key());
    let (client, server) =
        meet(client(stolen(&victim, &thief), b.peer_id(), ALPN), server_config(&b, &[ALPN])).await;
    assert_eq!(failure(&client), Some(HandshakeFailure::KeyRefused));
    assert!(server.is_err());
}

/// A client as ours, but for how it shows itself and what it asks for.
fn other_client(
    server: PeerId,
    finish: impl FnOnce(rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>) -> ClientConfig,
) -> QuicClientConfig {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Verifier::new(&provider, Some(server)));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = finish(builder);
    config.alpn_protocols = vec![ALPN.to_vec()];
    QuicClientConfig::try_from(config).unwrap()
}

#[tokio::test]
async fn a_client_without_a_key_is_refused() {
    let b = key();
    let anonymous = other_client(b.peer_id(), |builder| builder.with_no_client_auth());
    let (client, server) = meet(anonymous, server_config(&b, &[ALPN])).await;
    assert!(failure(&client).is_some());
    assert!(server.is_err());
}

#[tokio::test]
async fn a_client_with_a_certificate_is_refused() {
    let b = key();
    let with_certificate = other_client(b.peer_id(), |builder| {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
        let pkcs8 = PrivatePkcs8KeyDer::from(pair.serialize_der());
        builder.with_client_auth_cert(vec![certificate.der().clone()], pkcs8.into()).unwrap()
    });
    let (client, server) = meet(with_certificate, server_config(&b, &[ALPN])).await;
    assert!(failure(&client).is_some());
    assert!(server.is_err());
}

#[tokio::test]
async fn a_server_with_a_certificate_is_refused() {
    let a = key();
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let identity = SecretKey::from_pkcs8(&pair.serialize_der()).unwrap().peer_id();
    let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(pair.serialize_der()).into(),
        )
        .unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let server = QuicServerConfig::try_from(config).unwrap();
    let (client, _) = meet(client_config(&a, identity, ALPN), server).await;
    assert_eq!(failure(&client), Some(HandshakeFailure::Incompatible));
}

#[tokio::test]
async fn no_common_protocol_is_named_as_such() {
    let (a, b) = (key(), key());
    let (client, server) =
        meet(client_config(&a, b.peer_id(), b"culvert-test/2"), server_config(&b, &[ALPN])).await;
    assert_eq!(failure(&client), Some(HandshakeFailure::WrongProtocol));
    assert_eq!(failure(&server), Some(HandshakeFailure::WrongProtocol));
}

#[test]
fn a_key_that_is_not_exactly_one_ed25519_key_is_refused() {
    let verifier = Verifier::new(&ring::default_provider(), None);
    let good = certified(&key()).cert[0].clone();
    assert_eq!(verifier.check(&good, &[]), Ok(()));
    assert!(verifier.check(&good, std::slice::from_ref(&good)).is_err(), "two keys");
    let longer = [good.as_ref(), &[0]].concat();
    assert!(verifier.check(&CertificateDer::from(longer), &[]).is_err(), "one byte more");
    let mut x25519 = good.as_ref().to_vec();
    x25519[8] = 0x6e;
    assert!(verifier.check(&CertificateDer::from(x25519), &[]).is_err(), "another algorithm");
}

#[test]
fn what_is_no_handshake_is_no_handshake_failure() {
    assert_eq!(HandshakeFailure::of(&ConnectionError::TimedOut), None);
    assert_eq!(HandshakeFailure::of(&ConnectionError::LocallyClosed), None);
}
