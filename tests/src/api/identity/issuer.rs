//! An OpenID Connect provider on this host, whose keys change.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pki::KeyPair;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::requests::AUTHENTICATION;
use super::{Client, is, jwt};
use crate::bench::stack::Stack;

/// The provider; it ends with it.
pub struct Issuer {
    url: String,
    keys: Mutex<Vec<KeyPair>>,
    published: Arc<Mutex<Published>>,
    task: tokio::task::JoinHandle<()>,
}

/// What the provider says now, and how often it was asked for its keys.
#[derive(Default)]
struct Published {
    keys: Vec<Value>,
    asked: usize,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Issuer {
    /// Listens, with a certificate of the stack's authority and one key.
    pub async fn start(stack: &Stack) -> Result<Self> {
        let [certificate, key] = ["server.crt", "server.key"].map(|name| stack.path(name));
        let tls = daemon::tls::server_config(&certificate, &key, None, daemon::tls::ClientAuth::None, &[b"http/1.1"])?;
        let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).await?;
        let url = format!("https://{}", listener.local_addr()?);
        let published = Arc::<Mutex<Published>>::default();
        let task = tokio::spawn(serve(listener, TlsAcceptor::from(tls), url.clone(), Arc::clone(&published)));
        let issuer = Self { url, keys: Mutex::default(), published, task };
        issuer.rotate("one")?;
        Ok(issuer)
    }

    /// From now on there is only this key.
    fn rotate(&self, kid: &str) -> Result<()> {
        let key = KeyPair::generate()?;
        lock(&self.published).keys = vec![jwt::published(&key, kid)?];
        lock(&self.keys).push(key);
        Ok(())
    }

    /// A token of Jane with some of its claims changed, by the key that was made `nth`.
    fn token(&self, nth: usize, kid: &str, changes: &Value) -> Result<String> {
        let mut claims = json!({"iss": self.url, "aud": "corten", "sub": "jane", "groups": ["dev"],
            "iat": jwt::now(), "exp": jwt::now() + 600});
        for (claim, value) in changes.as_object().into_iter().flatten() {
            claims[claim] = value.clone();
        }
        jwt::sign(lock(&self.keys)[nth].private_pem(), kid, &claims)
    }

    /// The server reads who the provider is, asks it for its keys, and believes nothing else.
    pub async fn is_accepted(&self, stack: &Stack, nobody: &mut Client) -> Result<()> {
        let token = self.token(0, "one", &json!({}))?;
        nobody.no_bearer(&token, "is of a provider that is not known").await?;
        ensure!(lock(&self.published).asked == 0, "a provider that is not known was asked");
        let authority = std::fs::read_to_string(stack.path("ca.crt"))?.replace('\n', "\n      ");
        let jwt = format!(
            "jwt:\n- issuer:\n    url: {}\n    audiences: [corten]\n    certificateAuthority: |\n      {authority}\n  claimMappings:\n    \
             username: {{claim: sub, prefix: 'oidc:'}}\n    groups: {{claim: groups, prefix: 'oidc:'}}\n",
            self.url
        );
        stack.write("authentication.yaml", &format!("{AUTHENTICATION}{jwt}"))?;
        nobody.until(201, &[("authorization", &format!("Bearer {token}"))]).await?;
        is(&nobody.bearer(&token).await?, "oidc:jane", &["oidc:dev"])?;
        let stranger = KeyPair::generate()?;
        let forged = jwt::sign(stranger.private_pem(), "one", &jwt::claims(&token)?)?;
        for (wrong, why) in [
            (self.token(0, "one", &json!({"aud": "other"}))?, "is for somebody else"),
            (self.token(0, "one", &json!({"exp": jwt::now() - 600}))?, "has expired"),
            (self.token(0, "one", &json!({"sub": null}))?, "has no subject"),
            (forged, "was signed by somebody else"),
        ] {
            nobody.no_bearer(&wrong, why).await?;
        }
        Ok(())
    }

    /// A key that the server does not know makes it ask again, and one that is no longer published counts no more.
    pub async fn rotates(&self, nobody: &mut Client) -> Result<()> {
        self.rotate("two")?;
        let (old, new) = (self.token(0, "one", &json!({}))?, self.token(1, "two", &json!({}))?);
        nobody.bearer(&old).await?;
        let before = lock(&self.published).asked;
        nobody.until(201, &[("authorization", &format!("Bearer {new}"))]).await?;
        is(&nobody.bearer(&new).await?, "oidc:jane", &["oidc:dev"])?;
        let asked = lock(&self.published).asked - before;
        ensure!(asked == 1, "one new key was asked for {asked} times");
        nobody.no_bearer(&old, "was signed by a key that is no longer published").await
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, url: String, published: Arc<Mutex<Published>>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (tls, url, published) = (tls.clone(), url.clone(), Arc::clone(&published));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(tcp).await else { return };
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.uri().path(), &url, &published);
                std::future::ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer.to_string())))))
            });
            // The server closes a connection as soon as it has its answer.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(path: &str, url: &str, published: &Mutex<Published>) -> Value {
    if path == "/.well-known/openid-configuration" {
        return json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
    }
    let mut published = lock(published);
    published.asked += 1;
    json!({"keys": published.keys})
}
