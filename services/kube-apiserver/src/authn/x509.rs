//! Client certificates: the common name is the user, the organizations are the groups.

use super::UserInfo;

/// The user a verified certificate stands for; `None` if it names nobody.
pub fn user(certificate: &[u8]) -> Option<UserInfo> {
    let identity = pki::peer_identity(certificate).ok()?;
    if identity.common_name.is_empty() {
        return None;
    }
    Some(UserInfo::authenticated(identity.common_name, identity.organizations))
}
