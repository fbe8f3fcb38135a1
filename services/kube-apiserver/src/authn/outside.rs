//! Who is known from outside the cluster: providers of tokens, and those who say nothing of themselves. Flags say so once; a file
//! (`--authentication-config`) is followed, and a new version counts as soon as it is valid.

use super::file::{self, Anonymous};
use super::oidc::provider::Provider;
use super::oidc::{self, Oidc};
use crate::config::Config;
use crate::followed::Followed;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// What can be wrong with flags and file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Both say who issues tokens.
    #[error("authentication-config file and oidc-* flags are mutually exclusive")]
    Both,
    /// Both speak of those without credentials.
    #[error(
        "--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file"
    )]
    Anonymous,
    /// The file cannot be read.
    #[error("--authentication-config {0}: {1}")]
    Read(String, std::io::Error),
    /// It is not valid.
    #[error("--authentication-config {0}: {1}")]
    Form(String, String),
    /// A provider cannot be used.
    #[error(transparent)]
    Provider(#[from] oidc::Error),
}

/// What is in force.
pub struct Outside {
    known: ArcSwap<Known>,
    file: Option<Followed>,
    /// The flag, if it was given.
    flag: Option<bool>,
    /// The cluster's own issuers.
    own: Vec<String>,
}

struct Known {
    providers: Vec<Arc<Oidc>>,
    anonymous: Anonymous,
}

impl Outside {
    /// Reads flags and file. Nothing is fetched yet.
    pub fn new(config: &Config) -> Result<Arc<Self>, Error> {
        let flagged = Provider::of_flags(&config.oidc);
        if flagged.is_some() && config.authentication_config.is_some() {
            return Err(Error::Both);
        }
        let providers = flagged.into_iter().map(|p| Oidc::new(p).map(Arc::new)).collect::<Result<_, _>>()?;
        let anonymous = if config.anonymous_auth.unwrap_or(true) { Anonymous::Public } else { Anonymous::Nobody };
        let outside = Self {
            known: ArcSwap::from_pointee(Known { providers, anonymous }),
            file: config.authentication_config.clone().map(|path| Followed::new(path, "authentication")),
            flag: config.anonymous_auth,
            own: config.service_account_issuer.clone(),
        };
        if let Some(file) = &outside.file {
            outside.load(&file.read().map_err(|e| Error::Read(file.name(), e))?)?;
        }
        Ok(Arc::new(outside))
    }

    /// The provider that a token says it is from; nothing is checked.
    pub fn provider(&self, token: &str) -> Option<Arc<Oidc>> {
        self.known.load().providers.iter().find(|provider| provider.is_of(token)).cloned()
    }

    /// Whether a request may do without credentials.
    pub fn admits_anonymous(&self, path: &str, public: bool) -> bool {
        self.known.load().anonymous.admits(path, public)
    }

    /// Follows the file, if there is one.
    pub async fn follow(self: Arc<Self>, shutdown: daemon::Shutdown) {
        if let Some(file) = self.file.clone() {
            file.follow(shutdown, |text| self.load(text)).await;
        }
    }

    fn load(&self, text: &str) -> Result<(), Error> {
        let name = || self.file.as_ref().map(Followed::name).unwrap_or_default();
        let read = file::parse(text, &self.own).map_err(|why| Error::Form(name(), why))?;
        let anonymous = match (read.anonymous, self.flag) {
            (Some(_), Some(_)) => return Err(Error::Anonymous),
            (Some(anonymous), None) => anonymous,
            (None, Some(false)) => Anonymous::Nobody,
            (None, _) => Anonymous::Public,
        };
        let old = self.known.load();
        // Who stays as it is keeps its keys.
        let keep = |provider: Provider| match old.providers.iter().find(|known| known.is(&provider)) {
            Some(known) => Ok(known.clone()),
            None => Oidc::new(provider).map(Arc::new),
        };
        let providers = read.providers.into_iter().map(keep).collect::<Result<_, _>>()?;
        self.known.store(Arc::new(Known { providers, anonymous }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside(text: &str, flag: Option<bool>) -> Outside {
        let known = Known { providers: Vec::new(), anonymous: Anonymous::Public };
        let outside = Outside { known: ArcSwap::from_pointee(known), file: None, flag, own: Vec::new() };
        let _ = outside.load(text);
        outside
    }

    #[test]
    fn who_says_nothing_of_themselves() {
        let file = |anonymous: &str| {
            format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n{anonymous}")
        };
        // file, flag, /livez, /api
        let table = [
            (file(""), None, true, false),
            (file(""), Some(false), false, false),
            (file("anonymous: {enabled: false}"), None, false, false),
            (file("anonymous: {enabled: true}"), None, true, true),
            (file("anonymous: {enabled: true, conditions: [{path: /api}]}"), None, false, true),
            (file("anonymous: {enabled: true}"), Some(true), true, false),
            (file("nonsense: 1"), None, true, false),
        ];
        for (text, flag, livez, api) in table {
            let outside = outside(&text, flag);
            let got = (outside.admits_anonymous("/livez", true), outside.admits_anonymous("/api", false));
            assert_eq!(got, (livez, api), "{text}");
        }
    }
}
