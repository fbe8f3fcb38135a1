//! Whether the claims of a token that the provider has signed name a user here. No clock, no keys.

use crate::authn::UserInfo;
use crate::config::OidcFlags;
use serde_json::Value;

/// Clocks of provider and cluster may differ by this, in seconds.
const LEEWAY: i64 = 10;
/// Names that begin so are the cluster's own.
const RESERVED: &str = "system:";

/// The user whom the claims name at a time.
pub fn user(claims: &Value, flags: &OidcFlags, now: i64) -> Result<UserInfo, String> {
    let issuer = flags.oidc_issuer_url.as_deref().unwrap_or_default();
    if claims["iss"] != issuer {
        return Err(format!("oidc: the issuer is not {issuer:?}"));
    }
    let client = flags.oidc_client_id.as_deref().unwrap_or_default();
    let in_list = claims["aud"].as_array().is_some_and(|list| list.iter().any(|a| a == client));
    if claims["aud"] != client && !in_list {
        return Err(format!("oidc: the audience is not {client:?}"));
    }
    match claims["exp"].as_f64() {
        Some(exp) if now < exp as i64 => {}
        _ => return Err("oidc: token is expired".into()),
    }
    if claims["nbf"].as_i64().is_some_and(|nbf| now + LEEWAY < nbf) {
        return Err("oidc: token is not valid yet".into());
    }
    for (key, value) in &flags.oidc_required_claim {
        if claims[key] != value.as_str() {
            return Err(format!("oidc: required claim {key} is not {value:?}"));
        }
    }
    let mut user = UserInfo::authenticated(name(claims, flags)?, groups(claims, flags)?);
    if let Some(id) = claims["jti"].as_str().filter(|id| !id.is_empty()) {
        user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={id}")]);
    }
    Ok(user)
}

fn name(claims: &Value, flags: &OidcFlags) -> Result<String, String> {
    let claim = flags.oidc_username_claim.as_str();
    let value = claims[claim].as_str().filter(|v| !v.is_empty());
    let value = value.ok_or_else(|| format!("oidc: parse username claims {claim:?}: claim not present"))?;
    if claim == "email" && claims.get("email_verified").is_some_and(|verified| *verified != true) {
        return Err("oidc: email not verified".into());
    }
    let prefix = match flags.oidc_username_prefix.as_deref() {
        Some("-") => String::new(),
        Some(prefix) => prefix.to_owned(),
        None if claim == "email" => String::new(),
        None => format!("{}#", flags.oidc_issuer_url.as_deref().unwrap_or_default()),
    };
    ours_stay_ours(format!("{prefix}{value}"))
}

fn groups(claims: &Value, flags: &OidcFlags) -> Result<Vec<String>, String> {
    let claim = flags.oidc_groups_claim.as_str();
    let names: Vec<&str> = match claims.get(claim).filter(|_| !claim.is_empty()) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
            list.iter().filter_map(Value::as_str).collect()
        }
        Some(_) => return Err(format!("oidc: parse groups claim {claim:?}: neither a string nor a list of strings")),
    };
    names.into_iter().map(|n| ours_stay_ours(format!("{}{n}", flags.oidc_groups_prefix))).collect()
}

/// No provider may make somebody a part of the system.
fn ours_stay_ours(name: String) -> Result<String, String> {
    if name.starts_with(RESERVED) { Err(format!("oidc: {name:?} is reserved for the system")) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn flags() -> OidcFlags {
        OidcFlags {
            oidc_issuer_url: Some("https://i".into()),
            oidc_client_id: Some("c".into()),
            oidc_username_claim: "sub".into(),
            oidc_groups_claim: "groups".into(),
            oidc_groups_prefix: "o:".into(),
            oidc_required_claim: vec![("hd".into(), "x.org".into())],
            ..OidcFlags::default()
        }
    }

    fn claims() -> Value {
        json!({"iss": "https://i", "aud": ["c", "d"], "exp": 100, "sub": "jane", "groups": ["a"], "hd": "x.org", "email": "j@x.org"})
    }

    #[test]
    fn claims_name_a_user() {
        let got = user(&claims(), &flags(), 50).expect("good");
        assert_eq!(
            (got.name.as_str(), got.groups.as_slice()),
            ("https://i#jane", &["o:a".to_owned(), "system:authenticated".into()][..])
        );
        let email = OidcFlags { oidc_username_claim: "email".into(), ..flags() };
        assert_eq!(user(&claims(), &email, 50).map(|u| u.name), Ok("j@x.org".into()));
        let bare = OidcFlags { oidc_username_prefix: Some("-".into()), ..flags() };
        assert_eq!(user(&claims(), &bare, 50).map(|u| u.name), Ok("jane".into()));
    }

    #[test]
    fn other_claims_name_nobody() {
        let table = [
            ("iss", json!("https://j")),
            ("aud", json!("d")),
            ("exp", json!(50)),
            ("exp", Value::Null),
            ("nbf", json!(61)),
            ("hd", json!("y.org")),
            ("sub", json!("")),
            ("groups", json!([1])),
        ];
        for (key, value) in table {
            let mut bad = claims();
            bad[key] = value;
            assert!(user(&bad, &flags(), 50).is_err(), "{key}");
        }
        let mut unverified = claims();
        unverified["email_verified"] = json!(false);
        assert!(user(&unverified, &OidcFlags { oidc_username_claim: "email".into(), ..flags() }, 50).is_err());
        let mut root = claims();
        root["groups"] = json!("system:masters");
        assert!(user(&root, &OidcFlags { oidc_groups_prefix: String::new(), ..flags() }, 50).is_err());
    }
}
