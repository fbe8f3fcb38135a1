//! What is not an object: health, version, metrics, discovery, OpenAPI, token issuer documents.

use super::body::Response;
use super::handler::Call;
use super::{GIT_VERSION, health, metrics, respond};
use crate::discovery::Aggregated;
use crate::endpoints::encode;
use crate::errors::ApiError;
use crate::openapi::Document;
use crate::{discovery, openapi};
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION, VARY,
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

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
        ["livez", single @ ..] => health::serve(call, "livez", &single.join("/")).await,
        ["healthz", single @ ..] => health::serve(call, "healthz", &single.join("/")).await,
        ["readyz", single @ ..] => health::serve(call, "readyz", &single.join("/")).await,
        ["version"] => Ok(respond::json(200, &version())),
        ["metrics", "slis"] => Ok(respond::text(200, metrics::slis(&call.state.metrics))),
        ["metrics"] => Ok(respond::text(200, metrics::text(&call.state))),
        [""] => Ok(respond::json(200, &json!({"paths": paths()}))),
        ["api"] => discovered(call, true, || discovery::core_versions(call.state.config.address())),
        ["apis"] => discovered(call, false, discovery::groups),
        ["api", version] => found(call, discovery::resources("", version)),
        ["apis", group] => found(call, discovery::group(group)),
        ["apis", group, version] => found(call, discovery::resources(group, version)),
        ["openapi", "v2"] => openapi_v2(call),
        ["openapi", "v3"] => cached(call, openapi::v3_index()),
        ["openapi", "v3", gv @ ..] => openapi_v3(call, &gv.join("/")),
        ["openid", "v1", "jwks"] => {
            let mut response = for_verifiers(&call.state.tokens.jwks());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
            Ok(response)
        }
        [".well-known", "openid-configuration"] => Ok(for_verifiers(&call.state.tokens.openid_configuration())),
        _ => Err(ApiError::no_such_page()),
    }
}

/// What /, the list of them, names.
fn paths() -> Vec<String> {
    const FIXED: &[&str] = &[
        "/.well-known/openid-configuration",
        "/metrics",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/openid/v1/jwks",
        "/version",
    ];
    let mut paths = discovery::paths();
    paths.extend(FIXED.iter().map(ToString::to_string));
    paths.extend(health::paths());
    paths.sort_unstable();
    paths
}

/// Those who verify tokens elsewhere may keep what they need for it.
fn for_verifiers(document: &Value) -> Response {
    let mut response = respond::json(200, document);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

fn found(call: &Call, document: Option<Value>) -> Result<Response, ApiError> {
    encode::value(call, 200, &document.ok_or_else(ApiError::no_such_page)?)
}

fn discovered(call: &Call, core: bool, plain: impl Fn() -> Value) -> Result<Response, ApiError> {
    if call.header(ACCEPT).is_some_and(wants_aggregated) {
        return Ok(aggregated(call, discovery::aggregated_document(core)));
    }
    let mut response = encode::value(call, 200, &plain())?;
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

fn aggregated(call: &Call, document: &Aggregated) -> Response {
    let known = knows(call, &document.hash);
    let mut response = if known { not_modified() } else { respond::bytes(200, document.bytes.clone()) };
    let headers = response.headers_mut();
    headers.extend(tag(&document.hash).map(|tag| (ETAG, tag)));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    let media = HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    headers.insert(CONTENT_TYPE, media);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
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
    if !wants_binary(call, MEDIA_TYPE, OLD_MEDIA_TYPE)? {
        return cached(call, openapi::v2());
    }
    let mut response = cached(call, openapi::v2_binary())?;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    Ok(response)
}

fn openapi_v3(call: &Call, group_version: &str) -> Result<Response, ApiError> {
    use openapi::binary3::{MEDIA_TYPE, OLD_MEDIA_TYPE};
    let text = openapi::v3(group_version).ok_or_else(ApiError::no_such_path)?;
    if !wants_binary(call, MEDIA_TYPE, OLD_MEDIA_TYPE)? {
        return versioned(call, text);
    }
    let mut response = versioned(call, openapi::v3_binary(group_version).ok_or_else(ApiError::no_such_path)?)?;
    if response.status() == StatusCode::OK {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    }
    Ok(response)
}

/// Whether the client wants protobuf rather than JSON, by what it names first; 406 if it wants neither.
fn wants_binary(call: &Call, media_type: &str, old_media_type: &str) -> Result<bool, ApiError> {
    let accept = call.header(ACCEPT).unwrap_or("*/*");
    for clause in accept.split(',').filter_map(|clause| clause.split(';').next()) {
        match clause.trim() {
            "application/json" | "*/*" | "application/*" => return Ok(false),
            binary if binary == media_type || binary == old_media_type => return Ok(true),
            _ => {}
        }
    }
    Err(ApiError::not_acceptable(&["application/json", media_type]))
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
    let mut response = if knows(call, &document.hash) {
        not_modified()
    } else if encode::takes_gzip(call) {
        let mut response = respond::bytes(200, document.packed.clone());
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        respond::bytes(200, document.unpacked().map_err(ApiError::internal)?)
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    response.headers_mut().extend(tag(&document.hash).map(|tag| (ETAG, tag)));
    Ok(response)
}

/// Whether the client has it already.
fn knows(call: &Call, hash: &str) -> bool {
    let tag = format!("\"{hash}\"");
    call.header(IF_NONE_MATCH).is_some_and(|tags| tags.split(',').any(|t| t.trim() == tag))
}

fn tag(hash: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("\"{hash}\"")).ok()
}

fn not_modified() -> Response {
    let mut response = respond::bytes(200, bytes::Bytes::new());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

/// /version.
pub fn version() -> Value {
    json!({
        "major": "1", "minor": "35", "emulationMajor": "1", "emulationMinor": "35", "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "34", "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
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
    fn aggregated_discovery_is_negotiated() {
        assert!(wants_aggregated(
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
        ));
        assert!(!wants_aggregated("application/json"));
    }
}
