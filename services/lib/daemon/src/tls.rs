//! rustls configurations from PEM files, with errors that name the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ResolvesServerCert, WantsServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

/// Whether a server asks its clients for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Never asks.
    None,
    /// Verifies a certificate if one is sent; a wrong one ends the handshake.
    Optional,
    /// Refuses clients without a certificate.
    Required,
}

/// Why a TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read or holds no such PEM block.
    #[error("{path}: {reason}")]
    File {
        /// The file that was read.
        path: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
    /// Client authentication was asked for without certificate authorities.
    #[error("client certificates cannot be verified without a certificate authority file")]
    NoClientCa,
    /// The certificate and key do not work together or the authorities are unusable.
    #[error("TLS configuration: {0}")]
    Config(String),
}

/// Makes aws-lc-rs the process's cryptography provider; later calls change nothing.
pub fn install_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A server configuration.
///
/// # Errors
/// A file that cannot be read or parsed, by name; or an unusable combination.
pub fn server_config(
    cert: &Path,
    key: &Path,
    client_ca: Option<&Path>,
    auth: ClientAuth,
    alpn: &[&[u8]],
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    server_config_of(cert, key, client_ca.as_slice(), auth, alpn)
}

/// A server configuration whose clients' certificates may come from any of several authorities' files.
///
/// # Errors
/// As for [`server_config`].
pub fn server_config_of(
    cert: &Path,
    key: &Path,
    client_cas: &[&Path],
    auth: ClientAuth,
    alpn: &[&[u8]],
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let mut config = builder_of(client_cas, auth)?
        .with_single_cert(certificates(cert)?, private_key(key)?)
        .map_err(|e| TlsError::Config(format!("{}: {e}", cert.display())))?;
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A server configuration whose certificate may change while it serves.
///
/// # Errors
/// As for [`server_config`].
pub fn server_config_with(
    resolver: Arc<dyn ResolvesServerCert>,
    client_ca: Option<&Path>,
    auth: ClientAuth,
    alpn: &[&[u8]],
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let mut config = builder_of(client_ca.as_slice(), auth)?.with_cert_resolver(resolver);
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Ok(Arc::new(config))
}

fn builder_of(
    client_cas: &[&Path],
    auth: ClientAuth,
) -> Result<rustls::ConfigBuilder<rustls::ServerConfig, WantsServerCert>, TlsError> {
    install_provider();
    let builder = rustls::ServerConfig::builder();
    Ok(match auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Optional | ClientAuth::Required => {
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots_of(client_cas)?));
            let verifier = if auth == ClientAuth::Optional { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|e| TlsError::Config(e.to_string()))?)
        }
    })
}

/// A certificate with its key, from one PEM text, for a resolver.
///
/// # Errors
/// The text does not hold both, or they do not belong together.
pub fn certified_key(pem: &str) -> Result<CertifiedKey, TlsError> {
    install_provider();
    let wrong = |e: &dyn std::fmt::Display| TlsError::Config(e.to_string());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| wrong(&e))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain.map_err(|e| wrong(&e))?, key, &provider).map_err(|e| wrong(&e))
}

/// A client configuration that trusts only `ca`, with an optional certificate and key.
///
/// # Errors
/// As for [`server_config`].
pub fn client_config(ca: &Path, identity: Option<(&Path, &Path)>) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    install_provider();
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots(ca)?);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|e| TlsError::Config(format!("{}: {e}", cert.display())))?,
    };
    Ok(Arc::new(config))
}

fn file_error(path: &Path, reason: impl ToString) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: reason.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|e| file_error(path, e))?;
    if chain.is_empty() { Err(file_error(path, "holds no certificate")) } else { Ok(chain) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| file_error(path, e))
}

/// Judges chains that must lead to an authority of the file; for telling clients of one listener apart.
///
/// # Errors
/// As for [`server_config`].
pub fn client_verifier(ca: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    install_provider();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots(ca)?)).build();
    verifier.map_err(|e| TlsError::Config(e.to_string()))
}

/// Whether a chain, the client's own certificate first, is good now.
pub fn is_good(verifier: &dyn ClientCertVerifier, chain: &[CertificateDer<'_>]) -> bool {
    let Some((own, rest)) = chain.split_first() else { return false };
    verifier.verify_client_cert(own, rest, UnixTime::now()).is_ok()
}

fn roots_of(paths: &[&Path]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for path in paths {
        store.extend(roots(path)?.roots);
    }
    if store.is_empty() { Err(TlsError::NoClientCa) } else { Ok(store) }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|e| file_error(path, e))?;
    }
    Ok(store)
}
