//! Bootstrap tokens: secrets in kube-system by which new nodes join. Pure.

use super::UserInfo;
use apimachinery::time;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Where the secrets are.
pub const NAMESPACE: &str = "kube-system";
/// What their names begin with; the token's id follows.
pub const PREFIX: &str = "bootstrap-token-";

const KIND: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";

/// The id and the secret of a token, if it has the form of one: six and sixteen small letters or digits.
pub fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// Whether a secret object makes the token good at a time; the user is the token itself.
pub fn judge(object: &Value, id: &str, secret: &str, now: jiff::Timestamp) -> Result<UserInfo, String> {
    let data = |key: &str| -> String {
        let bytes = object["data"][key].as_str().and_then(|text| STANDARD.decode(text).ok());
        bytes.and_then(|b| String::from_utf8(b).ok()).unwrap_or_default()
    };
    if object["type"] != KIND || !object["metadata"]["deletionTimestamp"].is_null() || data("token-id") != id {
        return Err("the bootstrap token does not exist".into());
    }
    let stored = data("token-secret");
    if aws_lc_rs::constant_time::verify_slices_are_equal(stored.as_bytes(), secret.as_bytes()).is_err() {
        return Err("the bootstrap token's secret is wrong".into());
    }
    let expiration = data("expiration");
    if !expiration.is_empty() && time::parse_rfc3339(&expiration).map_or(true, |end| end <= now) {
        return Err("the bootstrap token has expired".into());
    }
    if data("usage-bootstrap-authentication") != "true" {
        return Err("the bootstrap token is not for authentication".into());
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in data("auth-extra-groups").split(',').map(str::trim).filter(|g| !g.is_empty()) {
        if !is_group(group) {
            return Err(format!("the bootstrap token's group {group:?} is not allowed"));
        }
        groups.push(group.to_owned());
    }
    Ok(UserInfo::authenticated(format!("system:bootstrap:{id}"), groups))
}

/// Only groups below the one that all such tokens have.
fn is_group(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(GROUP).and_then(|r| r.strip_prefix(':')) else { return false };
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b':' | b'-');
    rest.len() <= 256 && rest.bytes().all(good) && rest.ends_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(changes: &[(&str, &str)]) -> Value {
        let mut data = json!({});
        let base =
            [("token-id", "abcdef"), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-authentication", "true")];
        for (key, value) in base.iter().chain(changes) {
            data[*key] = json!(STANDARD.encode(value));
        }
        json!({"metadata": {}, "type": KIND, "data": data})
    }

    #[test]
    fn tokens_have_one_form() {
        assert_eq!(parse("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for bad in ["abcde.0123456789abcdef", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde", "a.b.c", ""] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn secrets_make_tokens_good() {
        let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
        let judge = |changes: &[(&str, &str)]| judge(&secret(changes), "abcdef", "0123456789abcdef", now);
        let user = judge(&[("auth-extra-groups", "system:bootstrappers:workers")]).expect("good");
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, [GROUP, "system:bootstrappers:workers", "system:authenticated"]);
        assert!(judge(&[("expiration", "2026-01-01T00:00:01Z")]).is_ok());
        for bad in [
            ("expiration", "2026-01-01T00:00:00Z"),
            ("expiration", "soon"),
            ("token-secret", "0123456789abcdeX"),
            ("token-id", "zzzzzz"),
            ("usage-bootstrap-authentication", "false"),
            ("auth-extra-groups", "system:masters"),
            ("auth-extra-groups", "system:bootstrappers:"),
        ] {
            assert!(judge(&[bad]).is_err(), "{bad:?}");
        }
        let mut other = secret(&[]);
        other["type"] = json!("Opaque");
        assert!(super::judge(&other, "abcdef", "0123456789abcdef", now).is_err());
        let mut dying = secret(&[]);
        dying["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(super::judge(&dying, "abcdef", "0123456789abcdef", now).is_err());
    }
}
