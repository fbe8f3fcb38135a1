//! token-cleaner-controller: bootstrap tokens go when they have expired.

use apimachinery::meta;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::resource::SECRETS;
use client::{DeleteParams, WorkQueue};
use jiff::Timestamp;
use serde_json::Value;

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::worker::{self, Next};
use crate::{clock, object};

/// Where bootstrap tokens are.
pub const NAMESPACE: &str = "kube-system";
const KIND: &str = "bootstrap.kubernetes.io/token";

/// Runs the controller.
pub async fn run(context: Context) {
    let secrets = context.informers.get(SECRETS);
    secrets.synced().await;
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&secrets, move |change| {
        if is_token(change.object()) {
            to.add(meta::name(change.object()).to_owned());
        }
    });
    let sync = async |name: String| -> Result<Next, Error> {
        let Some(secret) = secrets.get(NAMESPACE, &name).filter(|s| is_token(s)) else { return Ok(Next::Done) };
        let Some(expiry) = expiry(&secret) else { return Ok(Next::Done) };
        let left = clock::until(Timestamp::now(), expiry);
        if !left.is_zero() {
            return Ok(Next::After(left));
        }
        let only_this = DeleteParams {
            uid: Some(meta::uid(&secret).to_owned()),
            // Whoever prolongs it meanwhile wins.
            resource_version: Some(meta::resource_version(&secret).to_owned()),
            ..DeleteParams::default()
        };
        ignore_not_found(context.client.delete(SECRETS, Some(NAMESPACE), &name, &only_this).await)?;
        Ok(Next::Done)
    };
    worker::run("token-cleaner", queue, 1, sync).await;
}

/// A bootstrap token.
pub fn is_token(secret: &Value) -> bool {
    object::text(secret, "/type") == KIND && meta::namespace(secret) == NAMESPACE
}

/// One entry of a secret as text.
pub fn entry(secret: &Value, name: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(secret["data"][name].as_str()?).ok()?).ok()
}

/// When it expires; a time that cannot be read has passed already.
pub fn expiry(secret: &Value) -> Option<Timestamp> {
    let text = entry(secret, "expiration").filter(|text| !text.is_empty())?;
    Some(clock::parse(&text).unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_expire() {
        let secret = |expiration: &str| json!({"data": {"expiration": STANDARD.encode(expiration)}});
        assert_eq!(expiry(&secret("2026-01-01T00:00:00Z")), clock::parse("2026-01-01T00:00:00Z"));
        assert_eq!(expiry(&secret("soon")), Some(Timestamp::UNIX_EPOCH));
        assert_eq!(expiry(&json!({})), None);
    }
}
