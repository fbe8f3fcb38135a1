//! Encryption at rest: what stands in the store for an object's text, as an EncryptionConfiguration says (`--encryption-provider-config`).
//!
//! A value begins with who can read it: `k8s:enc:<provider>:v1:<key>:`, `k8s:enc:kms:v2:<name>:`, or nothing for plain text. The bytes that follow are
//! upstream's, and so is the authenticated data (the object's key in the store, so that values cannot be moved): data written by one is read by the
//! other. [`config`] reads the file, [`local`] has the ciphers, [`kms`] asks a key service. Pure but for the last.
//!
//! The first provider that is configured for a resource writes; all are tried for reading, so that a new key can be put in front while old values last.
//! Values that the first provider's first key did not write are stale: the next update writes them anew even if nothing has changed.

pub mod config;
pub mod kms;
mod kms_api;
pub mod local;

use crate::config::Config;
use crate::followed::Followed;
use crate::registry::Resource;
use arc_swap::ArcSwap;
use bytes::Bytes;
use config::{Configuration, Provider};
use kms::Kms;
use local::Keys;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What all encrypted values begin with.
const MARK: &[u8] = b"k8s:enc:";

/// Why a value cannot be read or written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EncryptionError {
    /// Somebody encrypted it and nobody who could read it is configured.
    #[error("no matching prefix found")]
    NoProvider,
    /// Plain text is expected.
    #[error("identity transformer tried to read encrypted data")]
    Encrypted,
    /// Plain text is not among what is configured.
    #[error("no matching prefix found: the value is plain text and the identity provider is not configured")]
    Plain,
    /// No key fits, or the value was changed or moved.
    #[error("{0}: cannot be decrypted with any key of this name")]
    Undecryptable(String),
    /// The key service.
    #[error("kms provider {0}: {1}")]
    Kms(String, String),
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("--encryption-provider-config {0}: {1}")]
    Read(String, std::io::Error),
    /// It is not a valid EncryptionConfiguration.
    #[error("--encryption-provider-config {0}: {1}")]
    Form(String, String),
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The object's text.
    pub text: Bytes,
    /// It should be written anew.
    pub stale: bool,
}

/// Every resource's providers.
#[derive(Default)]
pub struct Encryption {
    rules: ArcSwap<Vec<Rule>>,
    /// Whether the rules are not those that the server began with.
    changed: AtomicBool,
    file: Option<Followed>,
}

struct Rule {
    resources: Vec<config::Pattern>,
    chain: Vec<Link>,
}

enum Link {
    Identity,
    Local(Keys),
    Kms(Arc<Kms>),
}

impl Encryption {
    /// Reads the file, if there is one.
    pub fn new(config: &Config) -> Result<Arc<Self>, FileError> {
        let file = config.encryption_provider_config.clone().map(|path| Followed::new(path, "encryption"));
        let encryption = Arc::new(Self { rules: ArcSwap::default(), changed: AtomicBool::new(false), file });
        if let Some(file) = &encryption.file {
            encryption.load(&file.read().map_err(|e| FileError::Read(file.name(), e))?)?;
        }
        Ok(encryption)
    }

    /// Follows the file: a new version counts as soon as it is valid; until then the old one does.
    pub async fn follow(self: Arc<Self>, shutdown: daemon::Shutdown) {
        if let Some(file) = self.file.clone() {
            let load = |text: &str| {
                self.load(text)?;
                self.changed.store(true, Ordering::Relaxed);
                Ok::<_, FileError>(())
            };
            file.follow(shutdown, load).await;
        }
    }

    /// Whether what was read of a resource before may be stale by now without saying so: [`Opened::stale`] is by the rules of its time.
    pub fn has_changed(&self, res: &Resource) -> bool {
        self.changed.load(Ordering::Relaxed) && self.rules.load().iter().any(|rule| rule.covers(res))
    }

    fn load(&self, text: &str) -> Result<(), FileError> {
        let name = || self.file.as_ref().map(Followed::name).unwrap_or_default();
        let configuration = Configuration::parse(text).map_err(|why| FileError::Form(name(), why))?;
        let rules: Result<Vec<Rule>, String> = configuration.rules.into_iter().map(Rule::new).collect();
        self.rules.store(Arc::new(rules.map_err(|why| FileError::Form(name(), why))?));
        Ok(())
    }

    /// What is to be stored for an object's text under a key.
    pub async fn seal(&self, res: &Resource, key: &[u8], text: Vec<u8>) -> Result<Vec<u8>, EncryptionError> {
        let rules = self.rules.load_full();
        match rules.iter().find(|r| r.covers(res)).and_then(|r| r.chain.first()) {
            None | Some(Link::Identity) => Ok(text),
            Some(Link::Local(keys)) => keys.seal(key, text),
            Some(Link::Kms(kms)) => kms.seal(key, text).await,
        }
    }

    /// Whether all key services are well; `None`: there are none.
    pub async fn health(&self) -> Option<Result<(), EncryptionError>> {
        let rules = self.rules.load_full();
        let links = rules.iter().flat_map(|rule| &rule.chain);
        let services: Vec<&Arc<Kms>> =
            links.filter_map(|l| if let Link::Kms(kms) = l { Some(kms) } else { None }).collect();
        let mut health = (!services.is_empty()).then_some(Ok(()));
        for service in services {
            if let Err(error) = service.health().await {
                health = Some(Err(error));
            }
        }
        health
    }

    /// The text of what is stored under a key.
    pub async fn open(&self, res: &Resource, key: &[u8], value: &Bytes) -> Result<Opened, EncryptionError> {
        let encrypted = value.starts_with(MARK);
        let rules = self.rules.load_full();
        let Some(rule) = rules.iter().find(|r| r.covers(res)) else {
            return if encrypted {
                Err(EncryptionError::Encrypted)
            } else {
                Ok(Opened { text: value.clone(), stale: false })
            };
        };
        let mut failure = if encrypted { EncryptionError::NoProvider } else { EncryptionError::Plain };
        for (place, link) in rule.chain.iter().enumerate() {
            let opened = match link {
                Link::Identity if encrypted => continue,
                Link::Identity => Ok(Opened { text: value.clone(), stale: false }),
                Link::Local(keys) if value.starts_with(keys.prefix().as_bytes()) => keys.open(key, value),
                Link::Kms(kms) if value.starts_with(kms.prefix().as_bytes()) => kms.open(key, value).await,
                Link::Local(_) | Link::Kms(_) => continue,
            };
            match opened {
                Ok(opened) => return Ok(Opened { stale: opened.stale || place > 0, ..opened }),
                // Another provider of the same kind may have the key.
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

impl Rule {
    fn new(rule: config::Rule) -> Result<Self, String> {
        let link = |provider| {
            Ok(match provider {
                Provider::Identity => Link::Identity,
                Provider::Local(cipher, keys) => Link::Local(Keys::new(cipher, keys)?),
                Provider::Kms(kms) => Link::Kms(Kms::start(kms)),
            })
        };
        let chain: Result<Vec<Link>, String> = rule.providers.into_iter().map(link).collect();
        Ok(Self { resources: rule.resources, chain: chain? })
    }

    fn covers(&self, res: &Resource) -> bool {
        // Events of both groups are the same objects.
        let group = if res.storage == "events" { "" } else { res.group };
        self.resources.iter().any(|pattern| pattern.matches(group, res.plural))
    }
}

#[cfg(test)]
mod tests;
