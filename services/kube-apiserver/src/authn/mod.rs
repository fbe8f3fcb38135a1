//! Who is asking: from a client certificate, a service-account token, or nobody.

pub mod bearer;
pub mod impersonate;
pub mod x509;

use std::collections::BTreeMap;

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
