//! Handshakes over streams in memory, with certificates that are replaced meanwhile.

use std::fs;
use std::path::Path;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex};
use tokio::time::{Duration, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

const HOST: &str = "nas.example.test";

/// A certificate for [`HOST`] in the directory, as an operator puts it there.
fn issue(dir: &Path) -> CertificateDer<'static> {
    let issued = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    fs::write(dir.join("cert.pem"), issued.cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), issued.signing_key.serialize_pem()).unwrap();
    issued.cert.der().clone()
}

fn files(dir: &Path) -> CertificateFiles {
    CertificateFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem") }
}

fn client(root: &CertificateDer<'static>, alpn: &[&[u8]]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// Connects: what the client has, and what the server has.
async fn connect(
    tls: &Tls,
    root: &CertificateDer<'static>,
    alpn: &[&[u8]],
    http2: bool,
) -> io::Result<(TlsStream<DuplexStream>, (Stream, Spoken))> {
    let (near, far) = duplex(64 * 1024);
    let (read, write): (ReadHalf<_>, WriteHalf<_>) = tokio::io::split(far);
    let server = tls.accept((Box::new(read), Box::new(write)), http2);
    let connector = client(root, alpn);
    let client = connector.connect(ServerName::try_from(HOST).unwrap(), near);
    let (client, server) = tokio::join!(client, server);
    Ok((client?, server?))
}

#[tokio::test]
async fn both_sides_agree_on_http_2_only_where_both_want_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = issue(dir.path());
    let tls = Tls::new(Certificate::load(files(dir.path())).unwrap());
    for (alpn, offered, spoken) in [
        (&[HTTP2, HTTP1][..], true, Spoken::Http2),
        (&[HTTP2, HTTP1], false, Spoken::Http1),
        (&[HTTP1], true, Spoken::Http1),
        (&[], true, Spoken::Http1),
    ] {
        let (_, (_, agreed)) = connect(&tls, &root, alpn, offered).await.unwrap();
        assert_eq!(agreed, spoken, "{alpn:?} {offered}");
    }
    assert!(connect(&tls, &root, &[HTTP2], false).await.is_err(), "nothing in common");
}

#[tokio::test]
async fn both_halves_carry_bytes_and_a_shutdown_is_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let root = issue(dir.path());
    let tls = Tls::new(Certificate::load(files(dir.path())).unwrap());
    let (mut near, ((mut read, mut write), _)) = connect(&tls, &root, &[], true).await.unwrap();
    let sent = vec![7; 300_000];
    let there = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut came = Vec::new();
    let (_, end) = tokio::join!(there, near.read_to_end(&mut came));
    assert_eq!((end.unwrap(), came == sent), (sent.len(), true));
    near.write_all(b"and back").await.unwrap();
    near.shutdown().await.unwrap();
    let mut back = String::new();
    read.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "and back");
}

#[tokio::test]
async fn a_stream_that_is_given_up_has_no_proper_end() {
    let dir = tempfile::tempdir().unwrap();
    let root = issue(dir.path());
    let tls = Tls::new(Certificate::load(files(dir.path())).unwrap());
    let (mut near, ((read, write), _)) = connect(&tls, &root, &[], true).await.unwrap();
    write.abort();
    drop(read);
    let ended = near.read_u8().await.unwrap_err();
    assert_eq!(
        ended.to_string(),
        "peer closed connection without sending TLS close_notify: https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof"
    );
}

#[tokio::test]
async fn a_new_certificate_is_used_once_it_is_told_and_a_bad_one_never() {
    let dir = tempfile::tempdir().unwrap();
    let first = issue(dir.path());
    let certificate = Certificate::load(files(dir.path())).unwrap();
    assert!(certificate.is_for(HOST) && !certificate.is_for("other.example.test"));
    let tls = Tls::new(Arc::clone(&certificate));
    let (mut open, ((_read, mut write), _)) = connect(&tls, &first, &[], true).await.unwrap();

    fs::write(dir.path().join("key.pem"), "no key").unwrap();
    assert!(matches!(certificate.reload(), Err(CertificateError::NoKey(_))));
    let second = issue(dir.path());
    let key = fs::read(dir.path().join("key.pem")).unwrap();
    issue(dir.path());
    fs::write(dir.path().join("key.pem"), &key).unwrap();
    assert!(matches!(certificate.reload(), Err(CertificateError::Unusable { .. })), "another's key");
    fs::remove_file(dir.path().join("cert.pem")).unwrap();
    assert!(matches!(certificate.reload(), Err(CertificateError::Unreadable { .. })));
    fs::write(dir.path().join("cert.pem"), "").unwrap();
    assert!(matches!(certificate.reload(), Err(CertificateError::NoCertificate(_))));
    connect(&tls, &first, &[], true).await.unwrap();
    assert!(connect(&tls, &second, &[], true).await.is_err());

    let third = issue(dir.path());
    certificate.reload().unwrap();
    connect(&tls, &third, &[], true).await.unwrap();
    assert!(connect(&tls, &first, &[], true).await.is_err());
    write.write_all(b"still open").await.unwrap();
    write.shutdown().await.unwrap();
    let mut came = String::new();
    open.read_to_string(&mut came).await.unwrap();
    assert_eq!(came, "still open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_found_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let first = issue(dir.path());
    let certificate = Certificate::load(files(dir.path())).unwrap();
    let tls = Tls::new(Arc::clone(&certificate));
    let following = tokio::spawn(certificate.follow_every(Duration::from_millis(5)));
    connect(&tls, &first, &[], true).await.unwrap();
    // Renamed into place, as those who renew certificates do; one file first.
    let next = tempfile::tempdir().unwrap();
    let second = issue(next.path());
    for name in ["cert.pem", "key.pem"] {
        fs::rename(next.path().join(name), dir.path().join(name)).unwrap();
    }
    let replaced = async { while connect(&tls, &second, &[], true).await.is_err() {} };
    timeout(Duration::from_secs(20), replaced).await.expect("it is never used");
    following.abort();
}
