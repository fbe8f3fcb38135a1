//! Who issues tokens and what their claims mean here, whether flags say so or a file. Pure.

use crate::config::OidcFlags;
use jsonwebtoken::Algorithm;
use std::path::{Path, PathBuf};

/// Where Debian keeps the authorities a machine trusts.
const MACHINE_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// What a provider of the file may sign with: everything that does not share a secret.
const SIGNATURES: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// A provider of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// What its tokens say they are from; an https URL.
    pub issuer: String,
    /// Where its configuration is, if not below the issuer.
    pub discovery: Option<String>,
    /// Its tokens must be for one of these.
    pub audiences: Vec<String>,
    /// Who vouches for its server.
    pub authorities: Authorities,
    /// What it may sign with.
    pub algorithms: Vec<Algorithm>,
    /// Claims that must have a value.
    pub required: Vec<(String, String)>,
    /// The user's name.
    pub username: Mapping,
    /// The user's groups.
    pub groups: Option<Mapping>,
    /// The claim that is the user's uid.
    pub uid: Option<String>,
}

/// A claim whose value, with something before it, is a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The claim.
    pub claim: String,
    /// What goes before it.
    pub prefix: String,
}

/// Certificates, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorities {
    /// In a file.
    File(PathBuf),
    /// Here.
    Text(String),
}

impl Authorities {
    /// Those that the machine trusts.
    pub fn machine() -> Self {
        Authorities::File(Path::new(MACHINE_AUTHORITIES).to_owned())
    }
}

impl Provider {
    /// A provider of the file, with nothing said that need not be.
    pub fn new(issuer: String, audiences: Vec<String>, username: Mapping) -> Self {
        Self {
            issuer,
            discovery: None,
            audiences,
            authorities: Authorities::machine(),
            algorithms: SIGNATURES.to_vec(),
            required: Vec::new(),
            username,
            groups: None,
            uid: None,
        }
    }

    /// The provider that the flags name, if they name one.
    pub fn of_flags(flags: &OidcFlags) -> Option<Self> {
        let issuer = flags.oidc_issuer_url.clone()?;
        let claim = flags.oidc_username_claim.clone();
        let prefix = match flags.oidc_username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) => prefix.to_owned(),
            None if claim == "email" => String::new(),
            None => format!("{issuer}#"),
        };
        let groups = Mapping { claim: flags.oidc_groups_claim.clone(), prefix: flags.oidc_groups_prefix.clone() };
        Some(Self {
            authorities: flags.oidc_ca_file.clone().map_or_else(Authorities::machine, Authorities::File),
            algorithms: flags.oidc_signing_algs.clone(),
            required: flags.oidc_required_claim.clone(),
            groups: (!groups.claim.is_empty()).then_some(groups),
            ..Self::new(issuer, flags.oidc_client_id.clone().into_iter().collect(), Mapping { claim, prefix })
        })
    }
}
