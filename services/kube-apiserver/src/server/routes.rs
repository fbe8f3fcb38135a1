//! What is not an object: health, version, metrics, discovery, OpenAPI, token issuer documents.

use super::body::Response;
use super::handler::Call;
use super::{GIT_VERSION, metrics, respond};
use crate::endpoints::encode;
use crate::errors::ApiError;
use crate::openapi::Document;
use crate::{discovery, openapi};
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION, VARY,
};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// How long a readiness probe waits for the store.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// Paths anybody may read: probes have no credentials.
pub fn is_public(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    matches!(first, "healthz" | "livez" | "readyz") || path.trim_end_matches('/') == "/version"
}

/// Answers a path that is no resource.
pub async fn serve(call: &Call) -> Result<Response, ApiError> {
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed("", ""));
    }
    let path = call.path.trim_end_matches('/');
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["livez", ..] | ["healthz", ..] | ["readyz", ..] => health(call, &parts).await,
        ["version"] => Ok(respond::json(200, &version())),
        ["metrics"] => Ok(respond::text(200, metrics::text(&call.state))),
        [""] => Ok(respond::json(
            200,
            &json!({"paths": ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]}),
        )),
        ["api"] => Ok(discovered(call, true, discovery::core_versions)),
        ["apis"] => Ok(discovered(call, false, discovery::groups)),
        ["api", version] => found(discovery::resources("", version)),
        ["apis", group] => found(discovery::group(group)),
        ["apis", group, version] => found(discovery::resources(group, version)),
        ["openapi", "v2"] => openapi_v2(call),
        ["openapi", "v3"] => cached(call, openapi::v3_index()),
        ["openapi", "v3", gv @ ..] => match openapi::v3(&gv.join("/")) {
            Some(document) => versioned(call, document),
            None => Err(ApiError::no_such_path()),
        },
        ["openid", "v1", "jwks"] => {
            let mut response = respond::json(200, &call.state.tokens.jwks());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
            Ok(response)
        }
        [".well-known", "openid-configuration"] => Ok(respond::json(200, &call.state.tokens.openid_configuration())),
        _ => Err(ApiError::no_such_path()),
    }
}

fn found(document: Option<Value>) -> Result<Response, ApiError> {
    document.map(|d| respond::json(200, &d)).ok_or_else(ApiError::no_such_path)
}

fn discovered(call: &Call, core: bool, plain: impl Fn() -> Value) -> Response {
    let aggregated = call.header(ACCEPT).is_some_and(wants_aggregated);
    let mut response =
        if aggregated { respond::json(200, &discovery::aggregated(core)) } else { respond::json(200, &plain()) };
    if aggregated {
        let media = HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
        response.headers_mut().insert(CONTENT_TYPE, media);
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn wants_aggregated(accept: &str) -> bool {
    accept.split(',').any(|clause| {
        let has = |p: &str| clause.split(';').any(|part| part.trim() == p);
        has("application/json") && has("g=apidiscovery.k8s.io") && has("v=v2") && has("as=APIGroupDiscoveryList")
    })
}

fn openapi_v2(call: &Call) -> Result<Response, ApiError> {
    use openapi::binary::{MEDIA_TYPE, OLD_MEDIA_TYPE};
    let accept = call.header(ACCEPT).unwrap_or("*/*");
    for clause in accept.split(',').filter_map(|clause| clause.split(';').next()) {
        match clause.trim() {
            "application/json" | "*/*" | "application/*" => return cached(call, openapi::v2()),
            MEDIA_TYPE | OLD_MEDIA_TYPE => {
                let mut response = cached(call, openapi::v2_binary())?;
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
                return Ok(response);
            }
            _ => {}
        }
    }
    Err(ApiError::not_acceptable(&["application/json", MEDIA_TYPE]))
}

/// A document whose address may carry its hash: then clients may keep it for good, and those with an old address are sent to the new one.
fn versioned(call: &Call, document: &Document) -> Result<Response, ApiError> {
    let hash = call.query.get("hash");
    if hash.is_empty() {
        return cached(call, document);
    }
    if hash != document.hash {
        let mut response = respond::text(301, "");
        let address = format!("{}?hash={}", call.path, document.hash);
        response.headers_mut().insert(LOCATION, HeaderValue::from_str(&address).map_err(ApiError::internal)?);
        return Ok(response);
    }
    let mut response = cached(call, document)?;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    Ok(response)
}

/// A large constant document, with an entity tag so that it is sent once, and small to those who can unpack it.
fn cached(call: &Call, document: &Document) -> Result<Response, ApiError> {
    let tag = format!("\"{}\"", document.hash);
    let known = call.header(IF_NONE_MATCH).is_some_and(|tags| tags.split(',').any(|t| t.trim() == tag));
    let packed = || encode::takes_gzip(call).then(|| document.packed()).flatten();
    let mut response = match (known, (!known).then(packed).flatten()) {
        (true, _) => {
            let mut response = respond::bytes(200, bytes::Bytes::new());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        }
        (false, Some(packed)) => {
            let mut response = respond::bytes(200, packed);
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        }
        (false, None) => respond::bytes(200, document.bytes.clone()),
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(response)
}

/// /version.
pub fn version() -> Value {
    json!({
        "major": "1", "minor": "35", "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": format!("linux/{}", go_architecture()),
    })
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// One check of `/livez`, `/readyz` or `/healthz`.
type Check = (&'static str, bool);

async fn health(call: &Call, parts: &[&str]) -> Result<Response, ApiError> {
    let which = parts.first().copied().unwrap_or_default();
    let store = tokio::time::timeout(STORE_PATIENCE, call.state.storage.store().revision()).await;
    let mut checks: Vec<Check> = vec![("ping", true), ("etcd", matches!(store, Ok(Ok(_))))];
    if which != "livez" {
        checks.push(("poststarthook/bootstrap", call.state.is_ready() || call.state.shutdown.triggered()));
    }
    if which == "readyz" {
        checks.push(("shutdown", !call.state.shutdown.triggered()));
    }
    match parts.get(1..).unwrap_or_default().join("/").as_str() {
        "" => {}
        single => {
            checks.retain(|(name, _)| *name == single);
            if checks.is_empty() {
                return Err(ApiError::no_such_path());
            }
            return Ok(report(&format!("{which}/{single}"), &checks, &[], call.query.has("verbose")));
        }
    }
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    Ok(report(which, &checks, &excluded, call.query.has("verbose")))
}

/// What upstream prints: `ok`, or the checks line by line.
fn report(which: &str, checks: &[Check], excluded: &[&str], verbose: bool) -> Response {
    let healthy = checks.iter().all(|(name, ok)| *ok || excluded.contains(name));
    if healthy && !verbose {
        return respond::text(200, "ok");
    }
    let mut text = String::new();
    // Writing to a String cannot fail.
    for (name, ok) in checks {
        let _ = match ok {
            _ if excluded.contains(name) => writeln!(text, "[+]{name} excluded: ok"),
            true => writeln!(text, "[+]{name} ok"),
            false => writeln!(text, "[-]{name} failed: reason withheld"),
        };
    }
    let unknown: Vec<String> =
        excluded.iter().filter(|e| !checks.iter().any(|(name, _)| name == *e)).map(|e| format!("{e:?}")).collect();
    if !unknown.is_empty() {
        let _ = writeln!(text, "warn: some health checks cannot be excluded: no matches for {}", unknown.join(","));
    }
    let _ = writeln!(text, "{which} check {}", if healthy { "passed" } else { "failed" });
    respond::text(if healthy { 200 } else { 500 }, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_paths() {
        for (path, want) in [
            ("/readyz", true),
            ("/livez/ping", true),
            ("/version", true),
            ("/version/x", false),
            ("/api", false),
            ("/healthzz", false),
        ] {
            assert_eq!(is_public(path), want, "{path}");
        }
    }

    #[test]
    fn health_is_reported_check_by_check() {
        let checks: &[Check] = &[("ping", true), ("etcd", false)];
        assert_eq!(report("readyz", checks, &[], false).status(), 500);
        assert_eq!(report("readyz", checks, &["etcd"], false).status(), 200);
    }

    #[test]
    fn aggregated_discovery_is_negotiated() {
        assert!(wants_aggregated(
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
        ));
        assert!(!wants_aggregated("application/json"));
    }
}
