use super::*;
use crate::config::OidcFlags;
use crate::tokens::keys::Signer;
use daemon::tls::ClientAuth;
use hyper::service::service_fn;
use serde_json::json;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;

/// A provider on the loopback address that publishes its newest key and counts how often it is asked.
struct Server {
    issuer: String,
    newest: Arc<Mutex<Signer>>,
    asked: Arc<AtomicUsize>,
    folder: PathBuf,
    _shutdown: daemon::ShutdownTrigger,
}

fn signer() -> Signer {
    Signer::from_pem(pki::KeyPair::generate().expect("key").private_pem()).expect("signer")
}

impl Server {
    async fn start(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("oidc-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("folder");
        let ca = pki::Ca::generate("provider").expect("authority");
        let issued = ca.issue(pki::IssueRequest {
            common_name: "provider".into(),
            ips: vec![[127, 0, 0, 1].into()],
            usage: pki::Usage::Server,
            valid_for_days: 1,
            ..Default::default()
        });
        let issued = issued.expect("certificate");
        for (file, text) in [("ca", ca.cert_pem()), ("crt", &issued.cert_pem), ("key", &issued.key_pem)] {
            std::fs::write(folder.join(file), text).expect("file");
        }
        let tls = daemon::tls::server_config(
            &folder.join("crt"),
            &folder.join("key"),
            None,
            ClientAuth::None,
            &[b"http/1.1"],
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let issuer = format!("https://{}", listener.local_addr().expect("address"));
        let (newest, asked) = (Arc::new(Mutex::new(signer())), Arc::new(AtomicUsize::new(0)));
        let (trigger, shutdown) = daemon::Shutdown::pair();
        let state = (issuer.clone(), newest.clone(), asked.clone());
        tokio::spawn(daemon::accept::tls(listener, tls.expect("tls"), shutdown, move |stream, _| {
            let state = state.clone();
            async move {
                let service = service_fn(move |request| std::future::ready(answer(&state, &request)));
                let io = hyper_util::rt::TokioIo::new(stream);
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            }
        }));
        Self { issuer, newest, asked, folder, _shutdown: trigger }
    }

    fn verifier(&self) -> Oidc {
        let flags = OidcFlags {
            oidc_issuer_url: Some(self.issuer.clone()),
            oidc_client_id: Some("cluster".into()),
            oidc_ca_file: Some(self.folder.join("ca")),
            oidc_username_claim: "sub".into(),
            oidc_username_prefix: Some("-".into()),
            oidc_signing_algs: vec![jsonwebtoken::Algorithm::ES256],
            ..OidcFlags::default()
        };
        Oidc::new(provider::Provider::of_flags(&flags).expect("a provider")).expect("flags")
    }

    fn token(&self, signer: &Signer) -> String {
        let claims = json!({"iss": self.issuer, "aud": "cluster", "sub": "jane", "exp": 4_000_000_000_u64});
        let mut header = jsonwebtoken::Header::new(signer.algorithm);
        header.kid = Some(signer.kid.clone());
        jsonwebtoken::encode(&header, &claims, &signer.key).expect("token")
    }
}

type Served = (String, Arc<Mutex<Signer>>, Arc<AtomicUsize>);

fn answer(
    (issuer, newest, asked): &Served,
    request: &http::Request<hyper::body::Incoming>,
) -> Result<http::Response<body::Body>, Infallible> {
    let document = match request.uri().path() {
        "/.well-known/openid-configuration" => json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}),
        _ => {
            asked.fetch_add(1, Ordering::Relaxed);
            json!({"keys": [newest.lock().verifier().jwk]})
        }
    };
    Ok(http::Response::new(full(document.to_string())))
}

#[tokio::test]
async fn keys_are_fetched_when_they_are_needed_and_not_more_often() {
    let provider = Server::start("rotation").await;
    let oidc = provider.verifier();
    let token = provider.token(&provider.newest.lock());
    assert!(oidc.is_of(&token) && !oidc.is_of("abc"));
    for _ in 0..3 {
        assert_eq!(oidc.verify(&token).await.map(|u| u.name), Ok("jane".into()));
    }
    assert_eq!(provider.asked.load(Ordering::Relaxed), 1, "known keys are not asked for again");

    // The provider's key changes. Until the pause is over its tokens are refused, after it they are good.
    *provider.newest.lock() = signer();
    let newer = provider.token(&provider.newest.lock());
    assert!(oidc.verify(&newer).await.is_err());
    oidc.keys.lock().asked = Instant::now().checked_sub(PAUSE);
    assert!(oidc.verify(&newer).await.is_ok());
    assert_eq!(provider.asked.load(Ordering::Relaxed), 2);
    assert!(oidc.verify(&token).await.is_err(), "the old key is gone");

    let stranger = provider.token(&signer());
    for _ in 0..3 {
        assert!(oidc.verify(&stranger).await.is_err());
    }
    assert_eq!(provider.asked.load(Ordering::Relaxed), 2, "invented keys are no load");
    std::fs::remove_dir_all(&provider.folder).expect("removed");
}

#[test]
fn issuers_are_https_urls() {
    for issuer in ["http://i", "i", "https://i?x=1", ""] {
        let flags = OidcFlags { oidc_issuer_url: Some(issuer.into()), ..OidcFlags::default() };
        let provider = provider::Provider::of_flags(&flags).expect("a provider");
        assert!(matches!(Oidc::new(provider), Err(Error::Issuer(_))), "{issuer}");
    }
    assert!(provider::Provider::of_flags(&OidcFlags::default()).is_none());
}
