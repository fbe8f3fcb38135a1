//! Client certificates: the common name is the user, the organizations are the groups.

use super::UserInfo;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// By which an audit log tells certificates of one user apart (KEP-4193).
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The user a verified certificate stands for; `None` if it names nobody.
pub fn user(certificate: &[u8]) -> Option<UserInfo> {
    let identity = pki::peer_identity(certificate).ok()?;
    if identity.common_name.is_empty() {
        return None;
    }
    let mut user = UserInfo::authenticated(identity.common_name, identity.organizations);
    let digest = Sha256::digest(certificate).iter().fold(String::from("X509SHA256="), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    user.extra.insert(CREDENTIAL_ID.into(), vec![digest]);
    Some(user)
}
