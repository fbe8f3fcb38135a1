//! Whether the claims of a token that the provider has signed name a user here. No clock, no keys.

use super::provider::{Mapping, Provider};
use crate::authn::UserInfo;
use serde_json::Value;

/// Clocks of provider and cluster may differ by this, in seconds.
const LEEWAY: i64 = 10;
/// Names that begin so are the cluster's own.
const RESERVED: &str = "system:";

/// The user whom the claims name at a time.
pub fn user(claims: &Value, provider: &Provider, now: i64) -> Result<UserInfo, String> {
    if claims["iss"] != provider.issuer.as_str() {
        return Err(format!("oidc: the issuer is not {:?}", provider.issuer));
    }
    let ours = |audience: &Value| provider.audiences.iter().any(|a| audience == a.as_str());
    if !ours(&claims["aud"]) && !claims["aud"].as_array().is_some_and(|list| list.iter().any(ours)) {
        return Err(format!("oidc: the audience is none of {:?}", provider.audiences));
    }
    match claims["exp"].as_f64() {
        Some(exp) if now < exp as i64 => {}
        _ => return Err("oidc: token is expired".into()),
    }
    if claims["nbf"].as_i64().is_some_and(|nbf| now + LEEWAY < nbf) {
        return Err("oidc: token is not valid yet".into());
    }
    for (key, value) in &provider.required {
        if claims[key] != value.as_str() {
            return Err(format!("oidc: required claim {key} is not {value:?}"));
        }
    }
    let mut user = UserInfo::authenticated(name(claims, provider)?, groups(claims, provider)?);
    if let Some(claim) = &provider.uid {
        let uid =
            claims[claim].as_str().ok_or_else(|| format!("oidc: parse uid claim {claim:?}: claim not present"))?;
        user.uid = uid.to_owned();
    }
    if let Some(id) = claims["jti"].as_str().filter(|id| !id.is_empty()) {
        user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={id}")]);
    }
    Ok(user)
}

fn name(claims: &Value, provider: &Provider) -> Result<String, String> {
    let claim = provider.username.claim.as_str();
    let value = claims[claim].as_str().filter(|v| !v.is_empty());
    let value = value.ok_or_else(|| format!("oidc: parse username claims {claim:?}: claim not present"))?;
    if claim == "email" && claims.get("email_verified").is_some_and(|verified| *verified != true) {
        return Err("oidc: email not verified".into());
    }
    ours_stay_ours(format!("{}{value}", provider.username.prefix))
}

fn groups(claims: &Value, provider: &Provider) -> Result<Vec<String>, String> {
    let Some(Mapping { claim, prefix }) = &provider.groups else { return Ok(Vec::new()) };
    let names: Vec<&str> = match claims.get(claim) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
            list.iter().filter_map(Value::as_str).collect()
        }
        Some(_) => return Err(format!("oidc: parse groups claim {claim:?}: neither a string nor a list of strings")),
    };
    names.into_iter().map(|n| ours_stay_ours(format!("{prefix}{n}"))).collect()
}

/// No provider may make somebody a part of the system.
fn ours_stay_ours(name: String) -> Result<String, String> {
    if name.starts_with(RESERVED) { Err(format!("oidc: {name:?} is reserved for the system")) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OidcFlags;
    use serde_json::json;

    fn user_of(claims: &Value, flags: &OidcFlags, now: i64) -> Result<UserInfo, String> {
        user(claims, &Provider::of_flags(flags).expect("a provider"), now)
    }

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
        let got = user_of(&claims(), &flags(), 50).expect("good");
        assert_eq!(
            (got.name.as_str(), got.groups.as_slice()),
            ("https://i#jane", &["o:a".to_owned(), "system:authenticated".into()][..])
        );
        let email = OidcFlags { oidc_username_claim: "email".into(), ..flags() };
        assert_eq!(user_of(&claims(), &email, 50).map(|u| u.name), Ok("j@x.org".into()));
        let bare = OidcFlags { oidc_username_prefix: Some("-".into()), ..flags() };
        assert_eq!(user_of(&claims(), &bare, 50).map(|u| u.name), Ok("jane".into()));
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
            assert!(user_of(&bad, &flags(), 50).is_err(), "{key}");
        }
        let mut unverified = claims();
        unverified["email_verified"] = json!(false);
        assert!(user_of(&unverified, &OidcFlags { oidc_username_claim: "email".into(), ..flags() }, 50).is_err());
        let mut root = claims();
        root["groups"] = json!("system:masters");
        assert!(user_of(&root, &OidcFlags { oidc_groups_prefix: String::new(), ..flags() }, 50).is_err());
    }
}
