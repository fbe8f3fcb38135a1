//! Tokens of an OpenID Connect provider. Its keys are fetched when a token needs one that is not known, at most every so often: that is
//! how keys rotate. [`claims`] judges what a signed token says.

mod claims;
pub mod provider;

use super::UserInfo;
use crate::server::body::{self, full};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};
use parking_lot::Mutex;
use provider::{Authorities, Provider};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The provider has this long for each of its two documents.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tokens with invented keys must not make this server a load for the provider.
const PAUSE: Duration = Duration::from_secs(10);

/// What can be wrong with a provider.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The issuer is not an https URL.
    #[error("the issuer {0:?} is not an https URL without query")]
    Issuer(String),
    /// The authorities cannot be read.
    #[error(transparent)]
    Tls(#[from] daemon::tls::TlsError),
}

/// A provider with its keys.
pub struct Oidc {
    provider: Provider,
    tls: TlsConnector,
    keys: Mutex<Keys>,
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Keys {
    set: Arc<Vec<(Option<String>, DecodingKey)>>,
    asked: Option<Instant>,
}

impl Oidc {
    /// Nothing is fetched yet.
    pub fn new(provider: Provider) -> Result<Self, Error> {
        let url: Option<http::Uri> = provider.issuer.parse().ok();
        if url.is_none_or(|u| u.scheme_str() != Some("https") || u.host().is_none() || u.query().is_some()) {
            return Err(Error::Issuer(provider.issuer));
        }
        let mut tls = match &provider.authorities {
            Authorities::File(path) => daemon::tls::client_config(path, None)?,
            Authorities::Text(pem) => trusting(pem)?,
        };
        Arc::make_mut(&mut tls).alpn_protocols = vec![b"http/1.1".to_vec()];
        let (tls, keys) = (TlsConnector::from(tls), Mutex::default());
        Ok(Self { provider, tls, keys, fetching: tokio::sync::Mutex::default() })
    }

    /// Whether this is that provider, in every respect.
    pub fn is(&self, provider: &Provider) -> bool {
        self.provider == *provider
    }

    /// Whether a token says that this provider has issued it; nothing is checked.
    pub fn is_of(&self, token: &str) -> bool {
        unchecked(token).is_some_and(|claims| claims["iss"] == self.provider.issuer.as_str())
    }

    /// The user behind a token.
    pub async fn verify(&self, token: &str) -> Result<UserInfo, String> {
        let signed = match self.signed(token) {
            Some(claims) => claims,
            None => {
                self.refresh().await?;
                self.signed(token).ok_or("oidc: failed to verify signature: no key of the provider fits")?
            }
        };
        claims::user(&signed, &self.provider, jsonwebtoken::get_current_timestamp().cast_signed())
    }

    /// The claims, if a known key has signed them.
    fn signed(&self, token: &str) -> Option<Value> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        if !self.provider.algorithms.contains(&header.alg) {
            return None;
        }
        // Signature only: times and audiences are judged in claims.
        let mut validation = Validation::new(header.alg);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let keys = self.keys.lock().set.clone();
        let fits = |kid: &Option<String>| kid.is_none() || header.kid.is_none() || *kid == header.kid;
        keys.iter()
            .filter(|(kid, _)| fits(kid))
            .find_map(|(_, key)| jsonwebtoken::decode::<Value>(token, key, &validation).ok())
            .map(|data| data.claims)
    }

    /// Fetches the keys, unless that has just been done.
    async fn refresh(&self) -> Result<(), String> {
        let begun = Instant::now();
        let _one = self.fetching.lock().await;
        // Whoever waited for another's refresh has its result.
        if self.keys.lock().asked.is_some_and(|asked| asked >= begun || asked.elapsed() < PAUSE) {
            return Ok(());
        }
        self.keys.lock().asked = Some(Instant::now());
        let issuer = self.provider.issuer.as_str();
        let below = || format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let configuration = self.provider.discovery.clone().unwrap_or_else(below);
        let document = self.get(&configuration).await?;
        if document["issuer"] != issuer {
            return Err(format!("oidc: {configuration} is of the issuer {}", document["issuer"]));
        }
        let url = document["jwks_uri"].as_str().ok_or("oidc: the provider names no jwks_uri")?.to_owned();
        let set: JwkSet = serde_json::from_value(self.get(&url).await?).map_err(|e| format!("oidc: {url}: {e}"))?;
        let keys = set.keys.iter().filter_map(|jwk| {
            let key = DecodingKey::from_jwk(jwk).ok()?;
            Some((jwk.common.key_id.clone(), key))
        });
        self.keys.lock().set = Arc::new(keys.collect());
        Ok(())
    }

    async fn get(&self, url: &str) -> Result<Value, String> {
        let failed = |why: &dyn std::fmt::Display| format!("oidc: {url}: {why}");
        match tokio::time::timeout(PATIENCE, self.fetch(url)).await {
            Ok(result) => result.map_err(|e| failed(&e)),
            Err(_) => Err(failed(&"timed out")),
        }
    }

    async fn fetch(&self, url: &str) -> Result<Value, daemon::Failure> {
        let uri: http::Uri = url.parse()?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https")).ok_or("not an https URL")?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let tcp = TcpStream::connect((host.as_str(), authority.port_u16().unwrap_or(443))).await?;
        let stream = self.tls.connect(ServerName::try_from(host)?, tcp).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let request = http::Request::builder()
            .uri(path)
            .header(http::header::HOST, authority.as_str())
            .header(http::header::ACCEPT, "application/json")
            .body(full(bytes::Bytes::new()))?;
        let answer = sender.send_request(request).await?;
        if !answer.status().is_success() {
            return Err(format!("answered {}", answer.status()).into());
        }
        Ok(serde_json::from_slice(&body::read(answer.into_body()).await?)?)
    }
}

/// TLS that trusts these authorities only.
fn trusting(pem: &str) -> Result<Arc<rustls::ClientConfig>, daemon::tls::TlsError> {
    let wrong = |why: String| daemon::tls::TlsError::Config(format!("certificateAuthority: {why}"));
    daemon::tls::install_provider();
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|e| wrong(e.to_string()))?).map_err(|e| wrong(e.to_string()))?;
    }
    Ok(Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

/// The claims of a token whoever signed it.
fn unchecked(token: &str) -> Option<Value> {
    jsonwebtoken::dangerous::insecure_decode_claims(token).ok()
}

#[cfg(test)]
mod tests;
