//! Service-account tokens for pods: requested from the API server, kept until they are due for renewal.

use std::collections::HashMap;

use client::Client;
use parking_lot::Mutex;
use serde_json::json;

use crate::pod::Pod;

/// A token is renewed after this share of its life, in percent, or after a day.
const RENEW_AFTER_PERCENT: i64 = 80;
const RENEW_AFTER_SECONDS: i64 = 24 * 3600;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    audience: String,
    seconds: i64,
}

#[derive(Clone, Debug)]
struct Token {
    text: String,
    issued: i64,
    expires: i64,
}

impl Token {
    fn renew_at(&self) -> i64 {
        let life = self.expires - self.issued;
        self.issued + (life * RENEW_AFTER_PERCENT / 100).min(RENEW_AFTER_SECONDS)
    }
}

/// The tokens of this node's pods.
#[derive(Debug)]
pub struct Tokens {
    client: Client,
    kept: Mutex<HashMap<Key, Token>>,
}

impl Tokens {
    /// Starts empty: after a restart every token is requested anew.
    pub fn new(client: Client) -> Self {
        Tokens { client, kept: Mutex::default() }
    }

    /// A token for the pod's service account, bound to the pod.
    ///
    /// # Errors
    /// The API server gave none and no valid one is left.
    pub async fn get(&self, pod: &Pod, audience: &str, seconds: i64) -> Result<String, String> {
        self.get_until(pod, audience, seconds).await.map(|(text, _)| text)
    }

    /// As above, with the second since 1970 in which the token ends.
    ///
    /// # Errors
    /// As above.
    pub async fn get_until(&self, pod: &Pod, audience: &str, seconds: i64) -> Result<(String, i64), String> {
        let key = Key { uid: pod.metadata.uid.clone(), audience: audience.to_owned(), seconds };
        let kept = self.kept.lock().get(&key).cloned();
        if let Some(token) = kept.as_ref().filter(|t| now() < t.renew_at()) {
            return Ok((token.text.clone(), token.expires));
        }
        match self.request(pod, audience, seconds).await {
            Ok(token) => {
                let (text, expires) = (token.text.clone(), token.expires);
                self.kept.lock().insert(key, token);
                Ok((text, expires))
            }
            // A token that is merely due for renewal still works while the server is away.
            Err(error) => match kept.filter(|t| now() < t.expires) {
                Some(token) => Ok((token.text, token.expires)),
                None => Err(error),
            },
        }
    }

    async fn request(&self, pod: &Pod, audience: &str, seconds: i64) -> Result<Token, String> {
        let account = if pod.spec.service_account_name.is_empty() { "default" } else { &pod.spec.service_account_name };
        let mut spec = json!({
            "expirationSeconds": seconds,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid},
        });
        if !audience.is_empty() {
            spec["audiences"] = json!([audience]);
        }
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let issued = now();
        let answer = self
            .client
            .create_sub(client::resource::SERVICEACCOUNTS, Some(&pod.metadata.namespace), account, "token", &request)
            .await
            .map_err(|e| format!("failed to fetch token: {e}"))?;
        let text = answer["status"]["token"].as_str().ok_or("failed to fetch token: the answer holds none")?.to_owned();
        let expires = answer["status"]["expirationTimestamp"]
            .as_str()
            .and_then(|t| t.parse::<jiff::Timestamp>().ok())
            .map_or(issued + seconds, jiff::Timestamp::as_second);
        Ok(Token { text, issued, expires })
    }

    /// When the first of the pod's tokens is due, in seconds since 1970.
    pub fn next_renewal(&self, uid: &str) -> Option<i64> {
        self.kept.lock().iter().filter(|(k, _)| k.uid == uid).map(|(_, t)| t.renew_at()).min()
    }

    /// Forgets the tokens of a pod that is gone.
    pub fn forget(&self, uid: &str) {
        self.kept.lock().retain(|key, _| key.uid != uid);
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_well_before_they_expire() {
        let token = |life: i64| Token { text: String::new(), issued: 1000, expires: 1000 + life };
        assert_eq!(token(3600).renew_at(), 1000 + 2880);
        assert_eq!(token(365 * 86400).renew_at(), 1000 + 86400);
    }
}
