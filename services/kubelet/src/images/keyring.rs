//! Which credentials of a pod's pull secrets fit an image. Pure.
//!
//! Secrets hold docker's configuration in one of two forms: `kubernetes.io/dockerconfigjson` with `{"auths": {REGISTRY:
//! {...}}}` and the older `kubernetes.io/dockercfg` without the outer field.

use std::sync::Arc;

use base64::Engine as _;
use cri_api::v1::AuthConfig;
use serde_json::{Map, Value};

use crate::sync::env::{Kind, data};

/// The registry that names without one mean.
const DEFAULT_REGISTRY: &str = "docker.io";

/// Credentials that fit, the most specific first.
pub fn credentials(image: &str, secrets: &[Arc<Value>]) -> Vec<AuthConfig> {
    let image = normal(image);
    let mut found: Vec<(String, AuthConfig)> = Vec::new();
    for entries in secrets.iter().filter_map(|s| entries(s)) {
        for (key, entry) in entries {
            let pattern = pattern(&key);
            if matches(&pattern, &image)
                && let Some(auth) = auth(&entry, &key)
            {
                found.push((pattern, auth));
            }
        }
    }
    // Longer patterns are more specific; equal ones keep the order of the secrets.
    found.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn entries(secret: &Value) -> Option<Map<String, Value>> {
    let parse = |key: &str| data(Kind::Secret, secret, key).and_then(|d| serde_json::from_slice::<Value>(&d).ok());
    let config = match parse(".dockerconfigjson") {
        Some(mut config) => config["auths"].take(),
        None => parse(".dockercfg")?,
    };
    match config {
        Value::Object(entries) => Some(entries),
        _ => None,
    }
}

/// The image's registry and path, with the registry that is meant.
fn normal(image: &str) -> String {
    let name = image.split('@').next().unwrap_or_default();
    // A colon behind the last slash begins the tag; before it, a port.
    let name = match name.rsplit_once('/') {
        Some((path, last)) => format!("{path}/{}", last.split(':').next().unwrap_or_default()),
        None => name.split(':').next().unwrap_or_default().to_owned(),
    };
    match name.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name,
        Some(_) => format!("{DEFAULT_REGISTRY}/{name}"),
        None => format!("{DEFAULT_REGISTRY}/library/{name}"),
    }
}

/// A key without scheme and API version; Docker Hub is known by several names.
fn pattern(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = ["/v1", "/v2"].iter().find_map(|version| key.strip_suffix(version)).unwrap_or(key);
    match key {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY.to_owned(),
        other => other.to_owned(),
    }
}

/// Host parts match one by one, with `*` inside a part; a path is a prefix.
fn matches(pattern: &str, image: &str) -> bool {
    let split = |text: &str| -> (String, String) {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        (host.to_owned(), path.to_owned())
    };
    let ((host, path), (image_host, image_path)) = (split(pattern), split(image));
    let port = |host: &str| host.split_once(':').map(|(_, p)| p.to_owned());
    let parts = |host: &str| -> Vec<String> {
        host.split(':').next().unwrap_or_default().split('.').map(str::to_owned).collect()
    };
    let (wanted, given) = (parts(&host), parts(&image_host));
    let path_fits = path.is_empty() || image_path == path || image_path.starts_with(&format!("{path}/"));
    port(&host) == port(&image_host)
        && wanted.len() == given.len()
        && wanted.iter().zip(&given).all(|(w, g)| glob(w.as_bytes(), g.as_bytes()))
        && path_fits
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|i| glob(rest, &text[i..])),
        ([b'?', rest @ ..], [_, tail @ ..]) => glob(rest, tail),
        ([p, rest @ ..], [t, tail @ ..]) if p == t => glob(rest, tail),
        _ => false,
    }
}

fn auth(entry: &Value, key: &str) -> Option<AuthConfig> {
    let field = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let mut auth = AuthConfig {
        username: field("username"),
        password: field("password"),
        identity_token: field("identitytoken"),
        registry_token: field("registrytoken"),
        server_address: key.to_owned(),
        ..AuthConfig::default()
    };
    if auth.username.is_empty()
        && let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(field("auth"))
        && let Some((user, password)) = String::from_utf8_lossy(&bytes).split_once(':')
    {
        (auth.username, auth.password) = (user.to_owned(), password.trim_end_matches('\0').to_owned());
    }
    let useful = !auth.username.is_empty() || !auth.identity_token.is_empty() || !auth.registry_token.is_empty();
    useful.then_some(auth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn encode(text: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(text)
    }

    fn secret(config: &Value) -> Arc<Value> {
        Arc::new(json!({"data": {".dockerconfigjson": encode(&config.to_string())}}))
    }

    #[test]
    fn names_are_completed() {
        for (image, full) in [
            ("nginx", "docker.io/library/nginx"),
            ("nginx:1.27", "docker.io/library/nginx"),
            ("me/app@sha256:00", "docker.io/me/app"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause"),
        ] {
            assert_eq!(normal(image), full);
        }
    }

    #[test]
    fn registries_match_by_host_port_and_path() {
        for (key, image, fits) in [
            ("https://index.docker.io/v1/", "nginx", true),
            ("registry.k8s.io", "registry.k8s.io/pause:3", true),
            ("*.k8s.io", "registry.k8s.io/pause", true),
            ("*.k8s.io", "a.b.k8s.io/pause", false),
            ("host:5000", "host:5000/a", true),
            ("host.io", "host.io:5000/a", false),
            ("host.io/team", "host.io/team/a", true),
            ("host.io/team", "host.io/teams/a", false),
        ] {
            assert_eq!(matches(&pattern(key), &normal(image)), fits, "{key} {image}");
        }
    }

    #[test]
    fn the_most_specific_credentials_come_first() {
        let broad = secret(&json!({"auths": {"host.io": {"username": "u", "password": "p"}}}));
        let narrow =
            secret(&json!({"auths": {"host.io/team": {"auth": encode("v:q:r")}, "other.io": {"username": "x"}}}));
        let found = credentials("host.io/team/a:1", &[broad, narrow]);
        let pairs: Vec<(&str, &str)> = found.iter().map(|a| (a.username.as_str(), a.password.as_str())).collect();
        assert_eq!(pairs, [("v", "q:r"), ("u", "p")]);
    }

    #[test]
    fn the_older_form_is_read_too() {
        let old = json!({"data": {".dockercfg": encode(&json!({"host.io": {"username": "u"}}).to_string())}});
        assert_eq!(credentials("host.io/a", &[Arc::new(old)])[0].username, "u");
        assert!(credentials("host.io/a", &[Arc::new(json!({"data": {}}))]).is_empty());
    }
}
