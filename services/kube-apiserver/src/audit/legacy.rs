//! The form that audit lines had before they were JSON: one line of quoted words, for tools that still read it.

use serde_json::Value;

/// An event as such a line.
pub fn line(event: &Value) -> String {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let or = |pointer: &str, otherwise: &'static str| match text(pointer) {
        "" => otherwise,
        found => found,
    };
    let groups = |pointer: &str| {
        let list = event.pointer(pointer)?.as_array()?.iter().filter_map(Value::as_str);
        Some(list.map(|group| format!("{group:?}")).collect::<Vec<_>>().join(","))
    };
    let none = || "<none>".to_owned();
    let (user, user_groups) = (or("/user/username", "<none>"), groups("/user/groups").filter(|g| !g.is_empty()));
    let (other, other_groups) = match event.get("impersonatedUser") {
        Some(_) => (text("/impersonatedUser/username"), groups("/impersonatedUser/groups")),
        None => ("<self>", None),
    };
    let code = event.pointer("/responseStatus/code").map_or("<deferred>".to_owned(), Value::to_string);
    format!(
        "{} AUDIT: id={:?} stage={:?} ip={:?} method={:?} user={user:?} groups={:?} as={other:?} asgroups={:?} user-agent={:?} namespace={:?} uri={:?} response=\"{code}\"",
        text("/requestReceivedTimestamp"),
        text("/auditID"),
        text("/stage"),
        or("/sourceIPs/0", "<unknown>"),
        text("/verb"),
        user_groups.unwrap_or_else(none),
        other_groups.unwrap_or_else(|| "<lookup>".to_owned()),
        text("/userAgent"),
        or("/objectRef/namespace", "<none>"),
        text("/requestURI"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines() {
        let mut event = json!({"auditID": "1", "stage": "RequestReceived", "verb": "get", "requestURI": "/livez", "userAgent": "curl",
            "sourceIPs": ["10.0.0.1"], "user": {"username": "jane", "groups": ["a", "b"]}, "requestReceivedTimestamp": "2026-01-02T03:04:05.000006Z"});
        let first = r#"2026-01-02T03:04:05.000006Z AUDIT: id="1" stage="RequestReceived" ip="10.0.0.1" method="get" user="jane" groups="\"a\",\"b\"" as="<self>" asgroups="<lookup>" user-agent="curl" namespace="<none>" uri="/livez" response="<deferred>""#;
        assert_eq!(line(&event), first);
        event["impersonatedUser"] = json!({"username": "joe", "groups": ["c"]});
        event["objectRef"] = json!({"namespace": "n"});
        event["responseStatus"] = json!({"code": 200});
        let later = line(&event);
        for part in [r#" as="joe" asgroups="\"c\"" "#, r#" namespace="n" "#, r#" response="200""#] {
            assert!(later.contains(part), "{later} has no {part}");
        }
    }
}
