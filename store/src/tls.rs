//! TLS to Postgres, with as much verification as `sslmode` asks for.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_postgres::Socket;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

pub(crate) use rustls::Error;

/// What a server's certificate must prove.
#[derive(Debug)]
pub(crate) enum Verification {
    /// Nothing: the connection is encrypted, and the server may be any.
    None,
    /// That one of these authorities signed it, for whichever host.
    Authority(Roots),
    /// That one of these authorities signed it for the host of the URL.
    Name(Roots),
}

/// Certificates that are trusted, as authorities or as a server's own.
#[derive(Debug)]
pub(crate) struct Roots {
    store: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
}

/// The certificate with which this program proves who it is, and those that signed it.
pub(crate) struct ClientCertificate {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// What encrypts connections.
#[derive(Clone)]
pub struct Connector(MakeRustlsConnect);

/// Makes what encrypts connections.
pub(crate) fn connector(
    verification: Verification,
    client: Option<ClientCertificate>,
) -> Result<Connector, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier {
        verification,
        algorithms: provider.signature_verification_algorithms,
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match client {
        Some(client) => config.with_client_auth_cert(client.chain, client.key)?,
        None => config.with_no_client_auth(),
    };
    Ok(Connector(MakeRustlsConnect::new(config)))
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        // A socket has no host, and no TLS either, but the driver asks all the same.
        let host = if host.is_empty() { "localhost" } else { host };
        MakeTlsConnect::<Socket>::make_tls_connect(&mut self.0, host)
    }
}

/// The authorities that this machine trusts. `SSL_CERT_FILE` replaces them.
pub(crate) fn system_roots() -> Roots {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Roots {
        store,
        certificates: Vec::new(),
    }
}

/// Reads the certificates of a PEM file that are to be trusted.
pub(crate) fn read_roots(path: &Path) -> io::Result<Roots> {
    let certificates = read_certificates(path)?;
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        store
            .add(certificate.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    }
    Ok(Roots {
        store,
        certificates,
    })
}

/// Reads the certificates of a PEM file.
pub(crate) fn read_certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(not_pem)?;
    if certificates.is_empty() {
        return Err(not_pem(pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

/// Reads an unencrypted key from a PEM file.
pub(crate) fn read_key(path: &Path) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(not_pem)
}

fn not_pem(error: pem::Error) -> io::Error {
    match error {
        pem::Error::Io(error) => error,
        // The error could quote the file.
        _ => io::Error::new(
            io::ErrorKind::InvalidData,
            "it has no unencrypted PEM section of this kind",
        ),
    }
}

#[derive(Debug)]
struct Verifier {
    verification: Verification,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify_authority = |roots: &Roots| {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let signed = verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &roots.store,
                intermediates,
                now,
                self.algorithms.all,
            );
            match signed {
                // A self-signed server certificate that is trusted itself. Its dates are checked
                // before its kind is.
                Err(error) if !is_about_dates(&error) && roots.contains(end_entity) => Ok(()),
                signed => signed,
            }
            .map(|()| certificate)
        };
        match &self.verification {
            Verification::None => {}
            Verification::Authority(roots) => drop(verify_authority(roots)?),
            Verification::Name(roots) => {
                verify_server_name(&verify_authority(roots)?, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    // Signatures are verified whatever the mode: channel binding relies on the server having the
    // key of its certificate.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl Roots {
    fn contains(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates
            .iter()
            .any(|trusted| trusted.as_ref() == certificate.as_ref())
    }
}

fn is_about_dates(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
        )
    )
}
