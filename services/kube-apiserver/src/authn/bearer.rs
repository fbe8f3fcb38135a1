//! Bearer tokens: the service-account tokens this cluster signs.

use super::UserInfo;
use crate::server::State;
use crate::tokens::VerifiedToken;

/// The token of an Authorization header, or of the WebSocket subprotocol browsers use instead.
pub fn from_headers(headers: &http::HeaderMap) -> Option<&str> {
    let header = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.trim().split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() { Some(token.trim()) } else { None }
}

/// The user behind a token, with the audiences it is good for; an error says why there is none.
pub async fn verify(state: &State, token: &str, audiences: &[String]) -> Result<(UserInfo, Vec<String>), String> {
    let verified = state.tokens.verify(token, audiences)?;
    still_bound(state, &verified).await?;
    Ok((verified.user, verified.audiences))
}

/// A token dies with its service account, and with the pod it was made for.
async fn still_bound(state: &State, token: &VerifiedToken) -> Result<(), String> {
    let pod = token.pod.as_ref().map(|(name, uid)| ("pods", name.as_str(), uid.as_str()));
    let account = ("serviceaccounts", token.service_account.as_str(), token.sa_uid.as_str());
    for (plural, name, uid) in [Some(account), pod].into_iter().flatten() {
        let res = state.resource("", "v1", plural).ok_or("the resource table lacks what tokens are bound to")?;
        let found = match state.storage.cached_get(res, &token.namespace, name) {
            Some(found) => Some(found),
            // The cache may be behind the token's making.
            None => state.storage.get(res, &token.namespace, name).await.map_err(|e| e.to_string())?,
        };
        match found {
            Some(object) if object.uid() == uid => {}
            _ => return Err(format!("{plural} \"{}/{name}\" has been deleted or recreated", token.namespace)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let table =
            [("Bearer abc", Some("abc")), ("bearer  abc ", Some("abc")), ("Basic abc", None), ("Bearer ", None)];
        for (text, want) in table {
            let mut headers = http::HeaderMap::new();
            headers.insert("authorization", text.parse().expect("header"));
            assert_eq!(from_headers(&headers), want, "{text:?}");
        }
    }
}
