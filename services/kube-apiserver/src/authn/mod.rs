//! Who is asking, by what comes first: the word of a proxy in front of this server, a client certificate, a bearer token (of a service
//! account, a bootstrap token, an OpenID Connect provider's), or nobody.

pub mod bearer;
pub mod bootstrap_token;
pub mod file;
pub mod front_proxy;
pub mod impersonate;
pub mod oidc;
pub mod outside;
pub mod x509;

pub use outside::Outside;

use crate::server::State;
use crate::server::listener::Peer;
use http::HeaderMap;
use std::collections::BTreeMap;

/// What names the credential itself, in a user's extra.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The caller of a request; `Ok(None)` if it carries nothing that says who that is.
pub async fn authenticate(state: &State, peer: &Peer, headers: &HeaderMap) -> Result<Option<UserInfo>, String> {
    if peer.is_front_proxy
        && let Some(user) = front_proxy::user(headers, &state.config.front_proxy)
    {
        return Ok(Some(user));
    }
    if let Some(user) = &peer.user {
        return Ok(Some(user.as_ref().clone()));
    }
    match bearer::from_headers(headers) {
        Some(token) => bearer::verify(state, &token, state.config.audiences()).await.map(|(user, _)| Some(user)),
        None => Ok(None),
    }
}

/// An authenticated (or anonymous) caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// The user name.
    pub name: String,
    /// The uid, where the authenticator has one.
    pub uid: String,
    /// Group names, system:authenticated or system:unauthenticated included.
    pub groups: Vec<String>,
    /// Anything else the authenticator knows, such as a token's pod.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user who has proved who they are; system:authenticated is added.
    pub fn authenticated(name: impl Into<String>, groups: impl IntoIterator<Item = String>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().collect();
        if !groups.iter().any(|g| g == "system:authenticated") {
            groups.push("system:authenticated".into());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// Nobody.
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()], ..Self::default() }
    }

    /// The server itself, for what it writes on its own behalf (bootstrap objects).
    pub fn loopback() -> Self {
        Self::authenticated("system:apiserver", ["system:masters".to_string()])
    }

    /// Whether the user is in a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node name, for a kubelet's identity.
    pub fn node_name(&self) -> Option<&str> {
        if self.in_group("system:nodes") { self.name.strip_prefix("system:node:") } else { None }
    }
}
