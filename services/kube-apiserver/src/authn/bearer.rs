//! Bearer tokens: the service-account tokens this cluster signs, bootstrap tokens, and those of an OpenID Connect provider.

use super::{UserInfo, bootstrap_token};
use crate::proxy::websocket;
use crate::registry::Resource;
use crate::server::State;
use crate::storage::{Preconditions, Stored};
use crate::tokens::VerifiedToken;
use apimachinery::meta;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// The token of an Authorization header, or of the WebSocket subprotocol that browsers use instead.
pub fn from_headers(headers: &http::HeaderMap) -> Option<String> {
    if let Some(header) = headers.get(http::header::AUTHORIZATION).and_then(|h| h.to_str().ok()) {
        let (scheme, token) = header.trim().split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    if !websocket::is_requested(headers) {
        return None;
    }
    let protocols = headers.get_all(http::header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let encoded = protocols.flat_map(|v| v.split(',')).find_map(|p| p.trim().strip_prefix(websocket::BEARER_PREFIX))?;
    let token = String::from_utf8(URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?).ok()?;
    (!token.is_empty()).then_some(token)
}

/// The user behind a token, with the audiences it is good for; an error says why there is none.
pub async fn verify(state: &State, token: &str, audiences: &[String]) -> Result<(UserInfo, Vec<String>), String> {
    // Tokens that know no audience are good for this server.
    let here = || -> Result<Vec<String>, String> {
        let own = state.config.audiences();
        let fitting: Vec<String> = audiences.iter().filter(|a| own.contains(a)).cloned().collect();
        if fitting.is_empty() { Err("the token is not for the target audiences".into()) } else { Ok(fitting) }
    };
    if let Some((id, secret)) = bootstrap_token::parse(token).filter(|_| state.config.enable_bootstrap_token_auth) {
        return Ok((bootstrap(state, id, secret).await?, here()?));
    }
    if let Some(provider) = state.outside.provider(token) {
        return Ok((provider.verify(token).await?, here()?));
    }
    let verified = state.tokens.verify(token, audiences)?;
    still_bound(state, &verified).await?;
    Ok((verified.user, verified.audiences))
}

async fn bootstrap(state: &State, id: &str, secret: &str) -> Result<UserInfo, String> {
    let res = state.resource("", "v1", "secrets").ok_or("the resource table has no secrets")?;
    let name = format!("{}{id}", bootstrap_token::PREFIX);
    let found = state.storage.get(res, bootstrap_token::NAMESPACE, &name).await.map_err(|e| e.to_string())?;
    let object = found.ok_or("the bootstrap token does not exist")?.object();
    bootstrap_token::judge(&object, id, secret, jiff::Timestamp::now())
}

/// A token dies with its service account, and with the pod it was made for.
async fn still_bound(state: &State, token: &VerifiedToken) -> Result<(), String> {
    let pod = token.pod.as_ref().map(|(name, uid)| ("pods", name.as_str(), uid.as_str()));
    let account = ("serviceaccounts", token.service_account.as_str(), token.sa_uid.as_str());
    let secret = token.secret.as_ref().map(|(name, uid)| ("secrets", name.as_str(), uid.as_str()));
    let node = token.node.as_ref().map(|(name, uid)| ("nodes", name.as_str(), uid.as_str()));
    for (plural, name, uid) in [Some(account), pod, secret, node].into_iter().flatten() {
        let res = state.resource("", "v1", plural).ok_or("the resource table lacks what tokens are bound to")?;
        let namespace = if res.namespaced { token.namespace.as_str() } else { "" };
        let found = match state.storage.cached_get(res, namespace, name) {
            Some(found) => Some(found),
            // The cache may be behind the token's making.
            None => state.storage.get(res, namespace, name).await.map_err(|e| e.to_string())?,
        };
        match found {
            Some(object) if object.uid() == uid && plural == "secrets" => legacy(state, res, token, &object).await?,
            Some(object) if object.uid() == uid => {}
            _ => return Err(format!("{plural} \"{}/{name}\" has been deleted or recreated", token.namespace)),
        }
    }
    Ok(())
}

const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// A token that lies in a Secret (KEP-2799): refused once it was marked, and the day of its use is noted.
async fn legacy(state: &State, res: &'static Resource, token: &VerifiedToken, secret: &Stored) -> Result<(), String> {
    let object = secret.object();
    let account = format!("{}/{}", token.namespace, token.service_account);
    if let Some(refusal) = marked(&object, &account) {
        return Err(refusal);
    }
    let now = apimachinery::time::now_rfc3339();
    let today = now.get(..10).unwrap_or_default();
    if !is_legacy(&object) || object["metadata"]["labels"][LAST_USED] == *today {
        return Ok(());
    }
    let (namespace, name) = (meta::namespace(&object), meta::name(&object));
    let note = |mut secret: Value| {
        secret["metadata"]["labels"][LAST_USED] = today.into();
        Ok(secret)
    };
    // The token is good whether or not this is noted.
    if let Err(error) = state.storage.guaranteed_update(res, namespace, name, &Preconditions::default(), note).await {
        tracing::warn!("noting the use of the token in secret {namespace}/{name}: {error}");
    }
    Ok(())
}

fn is_legacy(secret: &Value) -> bool {
    secret["type"] == "kubernetes.io/service-account-token"
}

/// Why a token that was marked is not good any more.
fn marked(secret: &Value, account: &str) -> Option<String> {
    let is_marked = is_legacy(secret) && secret["metadata"]["labels"][INVALID_SINCE].is_string();
    is_marked.then(|| {
        format!(
            "the token in secret {}/{} for service account {account} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token",
            meta::namespace(secret),
            meta::name(secret)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn marked_tokens_are_refused() {
        let secret = |kind: &str, labels: Value| json!({"type": kind, "metadata": {"namespace": "n", "name": "s", "labels": labels}});
        let token = "kubernetes.io/service-account-token";
        let refusal = marked(&secret(token, json!({INVALID_SINCE: "2026-01-01"})), "n/a").unwrap();
        assert!(refusal.starts_with("the token in secret n/s for service account n/a has been marked invalid."));
        assert_eq!(marked(&secret(token, json!({})), "n/a"), None);
        assert_eq!(marked(&secret("Opaque", json!({INVALID_SINCE: "2026-01-01"})), "n/a"), None);
    }

    #[test]
    fn headers() {
        let table =
            [("Bearer abc", Some("abc")), ("bearer  abc ", Some("abc")), ("Basic abc", None), ("Bearer ", None)];
        for (text, want) in table {
            let mut headers = http::HeaderMap::new();
            headers.insert("authorization", text.parse().expect("header"));
            assert_eq!(from_headers(&headers).as_deref(), want, "{text:?}");
        }
    }

    #[test]
    fn browsers_have_no_headers_of_their_own() {
        let mut headers = http::HeaderMap::new();
        let protocols = "base64url.bearer.authorization.k8s.io.YWJj, v4.channel.k8s.io";
        headers.insert("sec-websocket-protocol", protocols.parse().expect("header"));
        assert_eq!(from_headers(&headers), None, "not a WebSocket");
        headers.insert("connection", "Upgrade".parse().expect("header"));
        headers.insert("upgrade", "websocket".parse().expect("header"));
        assert_eq!(from_headers(&headers).as_deref(), Some("abc"));
    }
}
