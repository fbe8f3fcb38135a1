//! Envelope encryption with a key service, KMS v2 (KEP-3299): texts are encrypted by keys derived from a seed, and the seed is encrypted by the
//! service, so that it is asked once per seed and not once per object.

use super::config::KmsConfig;
use super::kms_api::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, EncryptedObject, KEY, SEED, StatusRequest,
    StatusResponse,
};
use super::local::{gcm_key, gcm_open, gcm_seal, random};
use super::{EncryptionError, Opened};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use bytes::Bytes;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// Bytes of a seed, of a derived key, and of what tells derived keys apart.
const SIZE: usize = 32;
/// How often the service is asked which key it uses: KMS v2 has no event for a new one.
const POLL: Duration = Duration::from_secs(60);
/// How long a seed is used after the service last said that its key is the current one.
const TRUST: Duration = Duration::from_secs(180);
/// How long good and bad news of the service count, as upstream has it.
const WELL: Duration = Duration::from_secs(20);
const ILL: Duration = Duration::from_secs(3);
/// Seeds that are remembered; each server start and each change of the service's key makes one.
const SEEDS: usize = 1000;

/// A key service.
pub struct Kms {
    config: KmsConfig,
    prefix: String,
    channel: Channel,
    /// What is written with.
    current: tokio::sync::Mutex<Option<Current>>,
    /// Decrypted seeds, by a hash of everything that identifies them.
    known: Mutex<HashMap<[u8; SIZE], Arc<[u8]>>>,
    /// The service's key, as it last said.
    key_id: Mutex<String>,
    /// How it was when it was last asked, and until when that counts.
    health: tokio::sync::Mutex<Option<(Instant, Result<(), EncryptionError>)>>,
}

#[derive(Clone)]
struct Current {
    seed: Arc<[u8]>,
    source: Vec<u8>,
    key_id: String,
    annotations: BTreeMap<String, Vec<u8>>,
    until: Instant,
}

struct Size;

impl KeyType for Size {
    fn len(&self) -> usize {
        SIZE
    }
}

impl Kms {
    /// The connection is made when first needed.
    pub fn start(config: KmsConfig) -> Arc<Self> {
        let socket = config.socket.clone();
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The authority is never resolved: the connector ignores it.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect);
        let kms = Arc::new(Self {
            prefix: format!("k8s:enc:kms:v2:{}:", config.name),
            config,
            channel,
            current: tokio::sync::Mutex::default(),
            known: Mutex::default(),
            key_id: Mutex::default(),
            health: tokio::sync::Mutex::default(),
        });
        tokio::spawn(poll(Arc::downgrade(&kms)));
        kms
    }

    /// What its values begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A value for a text.
    pub async fn seal(&self, path: &[u8], text: Vec<u8>) -> Result<Vec<u8>, EncryptionError> {
        let current = self.current().await?;
        let info: [u8; SIZE] = random().ok_or_else(|| self.failed("no random numbers"))?;
        let sealed = derived(&current.seed, &info).and_then(|key| gcm_seal(&gcm_key(&key)?, path, text));
        let sealed = sealed.ok_or_else(|| self.failed("encryption failed"))?;
        let object = EncryptedObject {
            data: [info.as_slice(), &sealed].concat(),
            key_id: current.key_id,
            source: current.source,
            annotations: current.annotations,
            kind: SEED,
        };
        Ok([self.prefix.as_bytes(), &object.encode_to_vec()].concat())
    }

    /// The text of a value that begins with the prefix.
    pub async fn open(&self, path: &[u8], value: &[u8]) -> Result<Opened, EncryptionError> {
        let object = EncryptedObject::decode(value.get(self.prefix.len()..).unwrap_or_default())
            .map_err(|e| self.failed(format!("the stored value is not readable: {e}")))?;
        let seed = self.seed(&object).await?;
        let text = match object.kind {
            SEED => object
                .data
                .split_first_chunk::<SIZE>()
                .and_then(|(info, sealed)| gcm_open(&gcm_key(&derived(&seed, info)?)?, path, sealed)),
            KEY => gcm_key(&seed).and_then(|key| gcm_open(&key, path, &object.data)),
            other => return Err(self.failed(format!("unknown kind {other} of encryptedDEKSource"))),
        };
        let text: Bytes = text.ok_or_else(|| EncryptionError::Undecryptable(self.prefix.clone()))?;
        let now = self.key_id.lock().clone();
        Ok(Opened { text, stale: object.kind != SEED || (!now.is_empty() && now != object.key_id) })
    }

    /// The seed to write with: a new one when there is none or when the service has changed its key.
    async fn current(&self) -> Result<Current, EncryptionError> {
        let mut current = self.current.lock().await;
        if let Some(current) = current.as_ref()
            && Instant::now() < current.until
        {
            return Ok(current.clone());
        }
        let seed: [u8; SIZE] = random().ok_or_else(|| self.failed("no random numbers"))?;
        let request = EncryptRequest { plaintext: seed.to_vec(), uid: uuid::Uuid::new_v4().to_string() };
        let reply: EncryptResponse = self.call("/v2.KeyManagementService/Encrypt", request).await?;
        if reply.ciphertext.is_empty() || reply.key_id.is_empty() {
            return Err(self.failed("the service's answer lacks ciphertext or key_id"));
        }
        let made = Current {
            seed: seed.to_vec().into(),
            source: reply.ciphertext,
            key_id: reply.key_id,
            annotations: reply.annotations,
            until: Instant::now() + TRUST,
        };
        self.key_id.lock().clone_from(&made.key_id);
        self.remember(identity(&made.source, &made.key_id, &made.annotations), made.seed.clone());
        *current = Some(made.clone());
        Ok(made)
    }

    async fn seed(&self, object: &EncryptedObject) -> Result<Arc<[u8]>, EncryptionError> {
        let identity = identity(&object.source, &object.key_id, &object.annotations);
        if let Some(seed) = self.known.lock().get(&identity) {
            return Ok(seed.clone());
        }
        let request = DecryptRequest {
            ciphertext: object.source.clone(),
            uid: uuid::Uuid::new_v4().to_string(),
            key_id: object.key_id.clone(),
            annotations: object.annotations.clone(),
        };
        let reply: DecryptResponse = self.call("/v2.KeyManagementService/Decrypt", request).await?;
        let seed: Arc<[u8]> = reply.plaintext.into();
        self.remember(identity, seed.clone());
        Ok(seed)
    }

    fn remember(&self, identity: [u8; SIZE], seed: Arc<[u8]>) {
        let mut known = self.known.lock();
        if known.len() >= SEEDS {
            // So many seeds are not in use; what is will be asked for again.
            known.clear();
        }
        known.insert(identity, seed);
    }

    /// Whether the service is well. Probes come often: it is not asked each time.
    pub async fn health(&self) -> Result<(), EncryptionError> {
        let mut health = self.health.lock().await;
        if let Some((until, known)) = health.as_ref()
            && Instant::now() < *until
        {
            return known.clone();
        }
        let found = self.check().await;
        let lasts = if found.is_ok() { WELL } else { ILL };
        *health = Some((Instant::now() + lasts, found.clone()));
        found
    }

    /// Asks which key the service uses. Another one ends the use of the current seed; the same one prolongs it.
    pub(super) async fn check(&self) -> Result<(), EncryptionError> {
        let status: StatusResponse = self.call("/v2.KeyManagementService/Status", StatusRequest {}).await?;
        if status.healthz != "ok" {
            return Err(self.failed(format!("got unexpected healthz status: {}", status.healthz)));
        }
        if !matches!(status.version.as_str(), "v2" | "v2beta1") {
            return Err(self.failed(format!("expected KMSv2 API version v2, got {}", status.version)));
        }
        let mut current = self.current.lock().await;
        if let Some(now) = current.as_mut() {
            if now.key_id == status.key_id {
                now.until = Instant::now() + TRUST;
            } else {
                *current = None;
            }
        }
        *self.key_id.lock() = status.key_id;
        Ok(())
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, EncryptionError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        let call = async {
            client.ready().await.map_err(|e| daemon::chain(&e))?;
            let codec: ProstCodec<Q, A> = ProstCodec::default();
            let reply = client.unary(tonic::Request::new(request), PathAndQuery::from_static(path), codec).await;
            reply.map(tonic::Response::into_inner).map_err(|e| daemon::chain(&e))
        };
        match tokio::time::timeout(self.config.timeout, call).await {
            Ok(reply) => reply.map_err(|why| self.failed(why)),
            Err(_) => Err(self.failed("the service did not answer in time")),
        }
    }

    fn failed(&self, why: impl Into<String>) -> EncryptionError {
        EncryptionError::Kms(self.config.name.clone(), why.into())
    }
}

/// Ends with the service's last user.
async fn poll(kms: Weak<Kms>) {
    loop {
        match kms.upgrade() {
            Some(kms) => {
                if let Err(error) = kms.check().await {
                    tracing::warn!(%error, "a key service is not well");
                }
            }
            None => return,
        }
        tokio::time::sleep(POLL).await;
    }
}

fn derived(seed: &[u8], info: &[u8]) -> Option<[u8; SIZE]> {
    let mut key = [0; SIZE];
    // Long enough for upstream, which makes seeds of this size.
    if seed.len() < SIZE {
        return None;
    }
    Prk::new_less_safe(HKDF_SHA256, seed).expand(&[info], Size).ok()?.fill(&mut key).ok()?;
    Some(key)
}

fn identity(source: &[u8], key_id: &str, annotations: &BTreeMap<String, Vec<u8>>) -> [u8; SIZE] {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    add(source);
    add(key_id.as_bytes());
    for (key, value) in annotations {
        add(key.as_bytes());
        add(value);
    }
    hash.finalize().into()
}
