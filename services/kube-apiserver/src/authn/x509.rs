//! Client certificates: the common name is the user, the organizations are the groups; which certificate it was is told to audit and reviews.

use super::{CREDENTIAL_ID, UserInfo};

/// The user a verified certificate stands for; `None` if it names nobody.
pub fn user(certificate: &[u8]) -> Option<UserInfo> {
    let identity = pki::peer_identity(certificate).ok()?;
    if identity.common_name.is_empty() {
        return None;
    }
    let mut user = UserInfo::authenticated(identity.common_name, identity.organizations);
    user.extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={}", pki::fingerprint(certificate))]);
    Some(user)
}
