//! What happens to one token. Pure.

use apimachinery::meta;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::{clock, object};

/// Where the API server says since when it notes the use of tokens.
pub const NAMESPACE: &str = "kube-system";
/// The ConfigMap there; its entry `since` is a day.
pub const NOTE: &str = "kube-apiserver-legacy-service-account-token-tracking";
/// Labels of a token's Secret: the day on which it was used last, and the day on which it was marked.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// The API server refuses a token with this one.
pub const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Seconds.
pub const DAY: i64 = 24 * 3600;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is none of ours.
    Nothing,
    /// It may be due then.
    WaitUntil(Timestamp),
    /// Say that it is not valid any more.
    Mark,
    /// It was marked long enough.
    Delete,
}

/// A Secret with the token of a service account.
pub fn is_token(secret: &Value) -> bool {
    object::text(secret, "/type") == "kubernetes.io/service-account-token"
}

/// The account's name.
pub fn account_of(secret: &Value) -> &str {
    secret["metadata"]["annotations"]["kubernetes.io/service-account.name"].as_str().unwrap_or_default()
}

/// Whether a pod has the Secret in a volume.
pub fn mounts(pod: &Value, secret: &str) -> bool {
    object::list(pod, "/spec/volumes").iter().any(|volume| volume["secret"]["secretName"] == secret)
}

/// A day as labels have it.
pub fn date(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string()
}

/// The start of the day that a label or an entry names.
fn day(value: &Value) -> Option<Timestamp> {
    clock::parse(&format!("{}T00:00:00Z", value.as_str()?))
}

/// What is to be done with a token, by its account and by what the server notes; `period` is in seconds.
pub fn plan(secret: &Value, account: Option<&Value>, note: &Value, period: i64, now: Timestamp) -> Step {
    let uid = &secret["metadata"]["annotations"]["kubernetes.io/service-account.uid"];
    // Only tokens that the account lists were made for it; whoever made one by hand keeps it.
    let listed = |account: &Value| {
        let secrets = object::list(account, "/secrets");
        account["metadata"]["uid"] == *uid && secrets.iter().any(|s| s["name"] == meta::name(secret))
    };
    if meta::deletion_timestamp(secret).is_some() || !account.is_some_and(listed) {
        return Step::Nothing;
    }
    let (labels, created) = (&secret["metadata"]["labels"], clock::parse(meta::creation_timestamp(secret)));
    // The server may have begun at any time of the day.
    let tracked = day(&note["data"]["since"]).map(|since| clock::plus(since, DAY));
    let (Some(created), Some(tracked)) = (created, tracked) else { return Step::Nothing };
    let used = match &labels[LAST_USED] {
        Value::Null => None,
        other => match day(other) {
            Some(used) => Some(clock::plus(used, DAY)),
            None => return Step::Nothing,
        },
    };
    let quiet_since = [Some(created), Some(tracked), used].into_iter().flatten().max().unwrap_or(now);
    let due = clock::plus(quiet_since, period);
    if due > now {
        return Step::WaitUntil(due);
    }
    match day(&labels[INVALID_SINCE]).map(|marked| clock::plus(marked, DAY + period)) {
        None => Step::Mark,
        Some(end) if end > now => Step::WaitUntil(end),
        Some(_) => Step::Delete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PERIOD: i64 = 100 * DAY;

    fn secret(labels: Value) -> Value {
        let account = json!({"kubernetes.io/service-account.name": "a", "kubernetes.io/service-account.uid": "u"});
        json!({"type": "kubernetes.io/service-account-token", "metadata": {
            "name": "a-token", "creationTimestamp": "2025-01-01T00:00:00Z", "labels": labels, "annotations": account}})
    }

    #[test]
    fn tokens_that_nobody_uses_are_marked_and_then_go() {
        let account = json!({"metadata": {"name": "a", "uid": "u"}, "secrets": [{"name": "a-token"}]});
        let note = json!({"data": {"since": "2025-01-01"}});
        let now = "2025-12-31T12:00:00Z";
        let wait = |until: &str| Step::WaitUntil(clock::parse(until).unwrap());
        let cases = [
            ("never used", json!({}), Step::Mark),
            ("used long ago", json!({LAST_USED: "2025-02-01"}), Step::Mark),
            ("used not long ago", json!({LAST_USED: "2025-12-01"}), wait("2026-03-12T00:00:00Z")),
            ("a label that is no day", json!({LAST_USED: "soon"}), Step::Nothing),
            ("marked not long ago", json!({INVALID_SINCE: "2025-12-01"}), wait("2026-03-12T00:00:00Z")),
            ("marked long ago", json!({INVALID_SINCE: "2025-02-01"}), Step::Delete),
            ("used since", json!({INVALID_SINCE: "2025-02-01", LAST_USED: "2025-12-01"}), wait("2026-03-12T00:00:00Z")),
            ("marked with nonsense", json!({INVALID_SINCE: "x"}), Step::Mark),
        ];
        let at = |now: &str| clock::parse(now).unwrap();
        for (what, labels, expected) in cases {
            assert_eq!(plan(&secret(labels), Some(&account), &note, PERIOD, at(now)), expected, "{what}");
        }
        let others = json!({"metadata": {"name": "a", "uid": "another"}, "secrets": [{"name": "a-token"}]});
        let by_hand = json!({"metadata": {"name": "a", "uid": "u"}});
        for account in [Some(&others), Some(&by_hand), None] {
            assert_eq!(plan(&secret(json!({})), account, &note, PERIOD, at(now)), Step::Nothing);
        }
        let young = json!({"data": {"since": "2025-12-01"}});
        let waits = plan(&secret(json!({})), Some(&account), &young, PERIOD, at(now));
        assert_eq!(waits, wait("2026-03-12T00:00:00Z"), "the server has not looked for long enough");
        assert_eq!(plan(&secret(json!({})), Some(&account), &json!({}), PERIOD, at(now)), Step::Nothing);
    }

    #[test]
    fn pods_keep_what_they_mount() {
        let pod = json!({"spec": {"volumes": [{"name": "v", "secret": {"secretName": "a-token"}}]}});
        assert!(mounts(&pod, "a-token") && !mounts(&pod, "b"));
        assert_eq!(date(clock::parse("2025-12-31T23:59:59Z").unwrap()), "2025-12-31");
    }
}
