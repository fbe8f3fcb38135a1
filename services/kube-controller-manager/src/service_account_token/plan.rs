//! What a token's Secret lacks. Pure.

use apimachinery::meta;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::object;

pub(super) const KIND: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
pub(super) const UID: &str = "kubernetes.io/service-account.uid";

/// What to do about a Secret.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is as it should be.
    Nothing,
    /// Its account is gone, or another one has taken the name.
    Delete,
    /// Entries to set, already in base64; a token has to be fetched as well.
    Fill { entries: Vec<(&'static str, String)>, token: bool },
}

/// Whether a Secret is for the token of a service account.
pub(super) fn is_token(secret: &Value) -> bool {
    object::text(secret, "/type") == KIND
}

/// The account that a Secret names.
pub(super) fn account_of(secret: &Value) -> &str {
    meta::annotation(secret, NAME).unwrap_or_default()
}

/// Decides. `account` is the service account of that name, as it is now.
pub(super) fn plan(secret: &Value, account: Option<&Value>, root_ca: &str) -> Step {
    if meta::deletion_timestamp(secret).is_some() || account_of(secret).is_empty() {
        return Step::Nothing;
    }
    let uid = meta::annotation(secret, UID).unwrap_or_default();
    let Some(account) = account.filter(|account| uid.is_empty() || meta::uid(account) == uid) else {
        return Step::Delete;
    };
    let has = |name: &str| secret["data"][name].as_str().is_some_and(|value| !value.is_empty());
    let mut entries = Vec::new();
    let ca = STANDARD.encode(root_ca);
    if !root_ca.is_empty() && secret["data"]["ca.crt"] != ca.as_str() {
        entries.push(("ca.crt", ca));
    }
    if !has("namespace") {
        entries.push(("namespace", STANDARD.encode(meta::namespace(account))));
    }
    let token = !has("token");
    if entries.is_empty() && !token && !uid.is_empty() {
        return Step::Nothing;
    }
    Step::Fill { entries, token }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_secret_is_filled_or_goes_with_its_account() {
        let account = json!({"metadata": {"name": "robot", "namespace": "n", "uid": "u"}});
        let secret = |uid: &str, data: Value| json!({"type": KIND, "metadata": {"name": "s", "namespace": "n", "annotations": {NAME: "robot", UID: uid}}, "data": data});
        let namespace = || ("namespace", STANDARD.encode("n"));
        let ca = || ("ca.crt", STANDARD.encode("CA"));
        let whole = json!({"ca.crt": ca().1, "namespace": namespace().1, "token": "dA=="});
        let mut old = whole.clone();
        old["ca.crt"] = STANDARD.encode("old").into();
        let fill = |entries, token| Step::Fill { entries, token };
        let cases = [
            ("new", secret("", json!(null)), Some(&account), fill(vec![ca(), namespace()], true)),
            ("no uid yet", secret("", whole.clone()), Some(&account), fill(vec![], false)),
            ("an old authority", secret("u", old), Some(&account), fill(vec![ca()], false)),
            ("whole", secret("u", whole.clone()), Some(&account), Step::Nothing),
            ("the account is gone", secret("u", whole.clone()), None, Step::Delete),
            ("another account of that name", secret("v", whole), Some(&account), Step::Delete),
        ];
        for (what, secret, account, expected) in cases {
            assert_eq!(plan(&secret, account, "CA"), expected, "{what}");
        }
        let mut nobody = secret("", json!(null));
        nobody["metadata"]["annotations"] = json!({});
        assert_eq!(plan(&nobody, None, "CA"), Step::Nothing);
    }
}
