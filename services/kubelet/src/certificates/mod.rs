//! The node's certificates where the cluster issues them: asked for by CertificateSigningRequest, kept in `pki` below the
//! root folder, renewed before they end, and put into use without a restart.
//!
//! [`plan`] decides, [`store`] has the files; this file asks and waits.

mod plan;
mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::resource::Resource;
use client::{Client, Informer, InformerParams};
use daemon::Shutdown;
use daemon::backoff::Backoff;
use parking_lot::RwLock;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde_json::Value;

use crate::config::{Flags, KubeletConfiguration};
use crate::shared::Shared;
pub use plan::Role;
use plan::Verdict;

const REQUESTS: Resource<'static> =
    Resource::new("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", false);

/// A request that nobody has decided about by then is given up; the next one follows.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// The pauses after failures.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// The certificate that the kubelet's server shows. Until the first is there handshakes fail.
#[derive(Debug, Default)]
pub struct Serving(RwLock<Option<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().clone();
        if shown.is_none() {
            tracing::warn!("no serving certificate available for the kubelet");
        }
        shown
    }
}

/// What one certificate needs.
struct Keeper {
    client: Client,
    role: Role,
    node: String,
    ips: Vec<String>,
    folder: PathBuf,
}

/// Gets the node its first identity with a bootstrap kubeconfig, unless it has one that has not expired.
///
/// # Errors
/// The bootstrap kubeconfig cannot be used, or the request was refused.
pub async fn bootstrap(flags: &Flags, node: &str, shutdown: &Shutdown) -> daemon::Outcome {
    let Some(path) = &flags.bootstrap_kubeconfig else { return Ok(()) };
    let folder = flags.certificates();
    let pem = store::current(&folder, Role::Client.stem());
    let good = store::load(&folder, Role::Client.stem(), pki::now()).is_some();
    // A kubeconfig without a certificate of ours is somebody else's business.
    if flags.kubeconfig.exists() && (good || !pem.exists()) {
        return Ok(());
    }
    if !good {
        let client = Client::from_kubeconfig(path)?;
        let keeper =
            Keeper { client, role: Role::Client, node: node.to_owned(), ips: Vec::new(), folder: folder.clone() };
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            _ = keeper.renewed() => {}
        }
    }
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let config: Value = serde_saphyr::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let own = plan::kubeconfig(&config, &pem.to_string_lossy()).map_err(|e| format!("{}: {e}", path.display()))?;
    write_private(&flags.kubeconfig, &own.to_string()).map_err(|e| format!("{}: {e}", flags.kubeconfig.display()))?;
    tracing::info!(kubeconfig = %flags.kubeconfig.display(), "bootstrapped");
    Ok(())
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// The certificates that the cluster issues to this node.
pub fn roles(config: &KubeletConfiguration) -> impl Iterator<Item = Role> {
    let all = [(config.rotate_certificates, Role::Client), (config.server_tls_bootstrap, Role::Server)];
    all.into_iter().filter_map(|(wanted, role)| wanted.then_some(role))
}

/// Keeps one of the node's certificates good until the end.
pub async fn run(shared: Arc<Shared>, role: Role, folder: PathBuf, shutdown: Shutdown) {
    let keeper = Keeper {
        client: shared.client.clone(),
        role,
        node: shared.node_name.clone(),
        ips: shared.host_ips.clone(),
        folder,
    };
    let use_it = |pem: &str| match role {
        Role::Client => shared.client.set_certificate(pem.as_bytes()).map_err(|e| e.to_string()),
        Role::Server => {
            let key = daemon::tls::certified_key(pem).map_err(|e| e.to_string())?;
            *shared.serving.0.write() = Some(Arc::new(key));
            Ok(())
        }
    };
    let mut pair = store::load(&keeper.folder, role.stem(), pki::now());
    loop {
        let due = match &pair {
            Some((pem, info)) => {
                if let Err(error) = use_it(pem) {
                    tracing::error!(?role, error, "certificate cannot be used");
                }
                plan::renew_at(info.not_before, info.not_after, rand::random::<f64>())
            }
            // Whatever the node came with is replaced at once.
            None => 0,
        };
        let pause = Duration::from_secs(u64::try_from(due - pki::now()).unwrap_or(0));
        tracing::info!(?role, seconds = pause.as_secs(), "certificate is due for renewal");
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(pause) => {}
        }
        tokio::select! {
            () = shutdown.wait() => return,
            fresh = keeper.renewed() => pair = Some(fresh),
        }
    }
}

impl Keeper {
    /// Asks until a certificate is there.
    async fn renewed(&self) -> (String, pki::CertInfo) {
        let mut pauses = Backoff::new(RETRY.0, RETRY.1);
        loop {
            match self.obtain().await {
                Ok(fresh) => return fresh,
                Err(error) => tracing::warn!(role = ?self.role, error, "no certificate"),
            }
            tokio::time::sleep(pauses.next_delay()).await;
        }
    }

    async fn obtain(&self) -> Result<(String, pki::CertInfo), String> {
        let key = pki::KeyPair::generate().map_err(|e| e.to_string())?;
        let request = pki::csr_for(&key, &self.role.names(&self.node, &self.ips)).map_err(|e| e.to_string())?;
        let object = plan::object(self.role, &STANDARD.encode(request));
        let made = self.client.create(REQUESTS, None, &object).await.map_err(|e| e.to_string())?;
        let name = made["metadata"]["name"].as_str().unwrap_or_default();
        let answer = tokio::time::timeout(PATIENCE, self.answer(name)).await;
        let certificate = answer.map_err(|_| format!("request {name} was not decided in time"))??;
        let pem = format!("{certificate}{}", key.private_pem());
        let info = pki::CertInfo::from_pem(&pem).map_err(|e| e.to_string())?;
        let moment: String = apimachinery::time::now_rfc3339()
            .trim_end_matches('Z')
            .chars()
            .map(|c| if c.is_ascii_digit() { c } else { '-' })
            .collect();
        store::keep(&self.folder, self.role.stem(), &pem, &moment)
            .map_err(|e| format!("{}: {e}", self.folder.display()))?;
        tracing::info!(role = ?self.role, request = name, "certificate issued");
        Ok((pem, info))
    }

    /// Waits for the answer to a request: the certificate in PEM.
    async fn answer(&self, name: &str) -> Result<String, String> {
        let params = InformerParams { field_selector: format!("metadata.name={name}"), ..InformerParams::default() };
        let informer = Informer::start(self.client.clone(), REQUESTS, params);
        let mut changes = informer.subscribe();
        while let Some(change) = changes.recv().await {
            match plan::verdict(change.object()) {
                Verdict::Pending => {}
                Verdict::Refused(why) => return Err(why),
                Verdict::Issued(text) => {
                    let bytes = STANDARD.decode(text).map_err(|e| format!("request {name}: {e}"))?;
                    return String::from_utf8(bytes).map_err(|e| format!("request {name}: {e}"));
                }
            }
        }
        Err(format!("request {name} was not followed to its end"))
    }
}
