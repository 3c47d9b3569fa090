//! What is wrong with a server's certificate, in words, with the cure.

use std::io;

use rustls::CertificateError;

/// How the words begin.
pub const BEGIN: &str = "its certificate ";

/// What is wrong with the certificate over which TLS failed.
pub fn fault(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(error)) => format!("{BEGIN}{}", words(error)),
        Some(_) | None => format!("{BEGIN}is not accepted ({error})"),
    }
}

fn words(error: &CertificateError) -> String {
    // webpki's own errors are known by their text alone.
    if format!("{error:?}").contains("CaUsedAsEndEntity") {
        return "is one of an authority, as `openssl req -x509` makes it: its operator should make it anew with `-addext \
                basicConstraints=critical,CA:FALSE`, or have peers use http://HOST:PORT#ID"
            .to_owned();
    }
    let cures: [(bool, &str); 4] = [
        (
            matches!(error, CertificateError::UnknownIssuer),
            "is of an authority that this machine does not know: set SSL_CERT_FILE to a file with that authority's \
             certificate, or use http://HOST:PORT#ID",
        ),
        (
            matches!(error, CertificateError::Expired | CertificateError::ExpiredContext { .. }),
            "has expired: its operator should renew it; if it has not, check this machine's clock",
        ),
        (
            matches!(error, CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }),
            "is not valid yet: check this machine's clock",
        ),
        (
            matches!(
                error,
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            ),
            "is for another name: write the URL with the name that it is for",
        ),
    ];
    let known = cures.into_iter().find(|(is_it, _)| *is_it);
    known.map_or_else(|| format!("is not accepted ({error})"), |(_, cure)| cure.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio::io::duplex;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    fn said(error: CertificateError) -> String {
        fault(&io::Error::other(rustls::Error::InvalidCertificate(error)))
    }

    /// What a client that trusts `root` says of a server that shows `cert`.
    async fn shown(issued: &rcgen::CertifiedKey<rcgen::KeyPair>, root: CertificateDer<'static>) -> String {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(root).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let client = builder.with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let server = builder.unwrap().with_no_client_auth();
        let server = server.with_single_cert(vec![issued.cert.der().clone()], key).unwrap();
        let (near, far) = duplex(64 * 1024);
        let accepting = tokio::spawn(TlsAcceptor::from(Arc::new(server)).accept(far));
        let name = ServerName::try_from("nas.example").unwrap();
        let error = TlsConnector::from(Arc::new(client)).connect(name, near).await.unwrap_err();
        let _refused = accepting.await.unwrap();
        fault(&error)
    }

    fn issued(name: &str, is_ca: rcgen::IsCa) -> rcgen::CertifiedKey<rcgen::KeyPair> {
        let mut params = rcgen::CertificateParams::new(["nas.example".to_owned()]).unwrap();
        params.is_ca = is_ca;
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let signing_key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertifiedKey { cert: params.self_signed(&signing_key).unwrap(), signing_key }
    }

    #[tokio::test]
    async fn what_openssl_makes_by_default_and_an_unknown_authority_are_named() {
        let authority = issued("nas", rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
        let text = shown(&authority, authority.cert.der().clone()).await;
        assert!(text.contains("openssl req -x509") && text.contains("CA:FALSE"), "{text}");
        let (ours, theirs) = (issued("nas", rcgen::IsCa::NoCa), issued("other", rcgen::IsCa::NoCa));
        let text = shown(&ours, theirs.cert.der().clone()).await;
        assert!(text.contains("SSL_CERT_FILE"), "{text}");
    }

    #[test]
    fn each_fault_names_its_cure() {
        for (error, says) in [
            (CertificateError::UnknownIssuer, "SSL_CERT_FILE"),
            (CertificateError::Expired, "renew"),
            (CertificateError::NotValidForName, "another name"),
            (CertificateError::BadEncoding, "is not accepted"),
        ] {
            let text = said(error);
            assert!(text.starts_with(BEGIN) && text.contains(says), "{text}");
        }
        assert!(fault(&io::Error::other("odd")).contains("odd"));
    }
}
