//! The proxy subresources of pods, services and nodes: requests passed on, links in the answers made to lead back.

use super::backend::Place;
use super::location::{self, Candidate, Wanted};
use super::rewrite::{Mount, Rewriter};
use super::{admit_connection, object, upgrade};
use crate::endpoints::Target;
use crate::errors::ApiError;
use crate::server::body::{Body, Request, Response, StreamError, full, stream};
use crate::server::handler::Call;
use crate::server::respond;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName,
    HeaderValue, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rand::seq::SliceRandom;
use serde_json::json;
use std::net::SocketAddr;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// What concerns one connection only (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] =
    [CONNECTION, KEEP_ALIVE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// Answers `…/<name>/proxy[/<path>]`, whatever the method.
pub async fn serve(call: &Call, target: &Target, mut request: Request) -> Result<Response, ApiError> {
    let (prefix, path) = split(&call.path, target.res.namespaced);
    let kind = match target.res.plural {
        "pods" => "PodProxyOptions",
        "services" => "ServiceProxyOptions",
        _ => "NodeProxyOptions",
    };
    admit_connection(call, target, "proxy", json!({"apiVersion": "v1", "kind": kind, "path": path})).await?;
    let place = locate(call, target).await?;
    if path.is_empty() && matches!(call.method, Method::GET | Method::HEAD) {
        return moved(&call.path, request.uri().query());
    }
    let failed = |why: String| ApiError::unavailable(format!("error trying to reach service: {why}"));
    let mut backend = call.state.backends.connect(place).await.map_err(failed)?;
    let own = SocketAddr::new(place.address, place.port).to_string();
    let hosts = host(&request).into_iter().chain([own]).collect();
    let mount = Mount { prefix: prefix.to_owned(), hosts };
    let upgrades = is_upgrade(request.headers());
    let client = upgrades.then(|| hyper::upgrade::on(&mut request));
    let onward = onward(call, path, request, upgrades)?;
    match client {
        Some(client) => upgrade::exchange(backend, onward, client).await.map_err(failed),
        None => Ok(answer(backend.send(onward).await.map_err(failed)?, mount)),
    }
}

/// A path up to and with `proxy`, and what the backend sees of it.
fn split(path: &str, namespaced: bool) -> (&str, &str) {
    // /api/v1/namespaces/<namespace>/<plural>/<name>/proxy or /api/v1/nodes/<name>/proxy
    let elements = if namespaced { 7 } else { 5 };
    let end = path.match_indices('/').nth(elements).map_or(path.len(), |(at, _)| at);
    path.split_at(end)
}

/// A page whose links are relative needs a slash at the end of its own path.
fn moved(path: &str, query: Option<&str>) -> Result<Response, ApiError> {
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    let mut response = respond::text(301, Bytes::new());
    let there = HeaderValue::from_str(&format!("{path}/{query}")).map_err(ApiError::internal)?;
    response.headers_mut().insert(LOCATION, there);
    Ok(response)
}

async fn locate(call: &Call, target: &Target) -> Result<Place, ApiError> {
    let (id, namespace, state) = (target.name.as_str(), target.namespace.as_str(), &call.state);
    match target.res.plural {
        "pods" => {
            let wanted = Wanted::parse("pod", id)?;
            location::pod(&object(state, "pods", namespace, wanted.name).await?, wanted)
        }
        "services" => {
            let wanted = Wanted::parse("service", id)?;
            let service = object(state, "services", namespace, wanted.name).await?;
            let endpoints = match object(state, "endpoints", namespace, wanted.name).await {
                Err(error) if error.code() == 404 => return Err(location::none_available(id)),
                result => result?,
            };
            one_of(call, id, location::service(&service, &endpoints, id, wanted)?).await
        }
        _ => {
            let wanted = Wanted::parse("node", id)?;
            location::node(&object(state, "nodes", "", wanted.name).await?, wanted)
        }
    }
}

/// Any candidate whose pod still has the address.
async fn one_of(call: &Call, id: &str, mut candidates: Vec<Candidate>) -> Result<Place, ApiError> {
    candidates.shuffle(&mut rand::rng());
    for candidate in candidates {
        let (namespace, name) = &candidate.pod;
        if let Ok(pod) = object(&call.state, "pods", namespace, name).await
            && candidate.is_of(&pod)
        {
            return Ok(candidate.place);
        }
    }
    Err(location::none_available(id))
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    let wants = |v: &HeaderValue| v.to_str().is_ok_and(|v| v.to_ascii_lowercase().contains("upgrade"));
    headers.contains_key(UPGRADE) && headers.get_all(CONNECTION).iter().any(wants)
}

/// The host by which the client knows this server; HTTP/2 has it in the URI.
fn host(request: &Request) -> Option<String> {
    let header = request.headers().get(HOST).and_then(|h| h.to_str().ok());
    header.or_else(|| request.uri().authority().map(|a| a.as_str())).map(str::to_owned)
}

fn onward(call: &Call, path: &str, request: Request, upgrades: bool) -> Result<http::Request<Body>, ApiError> {
    let path = if path.is_empty() { "/" } else { path };
    let uri = request.uri().query().map_or_else(|| path.to_owned(), |q| format!("{path}?{q}"));
    let host = host(&request);
    let (parts, body) = request.into_parts();
    let mut headers = parts.headers;
    strip(&mut headers, upgrades);
    if let Some(host) = host.and_then(|h| HeaderValue::from_str(&h).ok()) {
        headers.insert(HOST, host);
    }
    for (name, text) in [(FORWARDED_FOR, call.peer.ip().to_string()), (FORWARDED_URI, call.path.clone())] {
        headers.append(name, HeaderValue::from_str(&text).map_err(ApiError::internal)?);
    }
    let body =
        if upgrades { full(Bytes::new()) } else { body.map_err(|e| -> StreamError { Box::new(e) }).boxed_unsync() };
    let mut onward = http::Request::builder().method(parts.method).uri(uri).body(body).map_err(ApiError::internal)?;
    *onward.headers_mut() = headers;
    Ok(onward)
}

/// Takes out what concerns the client's connection and whatever proved to this server who the client is.
fn strip(headers: &mut HeaderMap, upgrades: bool) {
    let own = |name: &HeaderName| {
        let text = name.as_str();
        let connection = HOP_BY_HOP.contains(name) && !(upgrades && [CONNECTION, UPGRADE].contains(name));
        // Without this the backend sends plain text, which can be searched for links.
        connection || name == ACCEPT_ENCODING || name == AUTHORIZATION || text.starts_with("impersonate-")
    };
    let gone: Vec<HeaderName> = headers.keys().filter(|name| own(name)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
    upgrade::without_tokens(headers);
}

fn answer(answer: http::Response<Incoming>, mount: Mount) -> Response {
    let (mut parts, body) = answer.into_parts();
    for name in HOP_BY_HOP {
        parts.headers.remove(name);
    }
    if let Some(location) = parts.headers.get(LOCATION).and_then(|l| l.to_str().ok()) {
        if let Ok(value) = HeaderValue::from_str(&mount.link(location)) {
            parts.headers.insert(LOCATION, value);
        }
    } else if is_plain_html(&parts.headers) {
        parts.headers.remove(CONTENT_LENGTH);
        return Response::from_parts(parts, rewritten(body, mount));
    }
    Response::from_parts(parts, body.map_err(|e| -> StreamError { Box::new(e) }).boxed_unsync())
}

fn is_plain_html(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|t| t.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    media.eq_ignore_ascii_case("text/html") && !headers.contains_key(CONTENT_ENCODING)
}

fn rewritten(body: Incoming, mount: Mount) -> Body {
    let begin = (body.into_data_stream(), Some(Rewriter::new(mount)));
    stream(futures_util::stream::unfold(begin, |(mut pieces, rewriter)| async move {
        let mut rewriter = rewriter?;
        match pieces.next().await {
            Some(Ok(piece)) => Some((Ok(Bytes::from(rewriter.push(&piece))), (pieces, Some(rewriter)))),
            Some(Err(error)) => Some((Err(Box::new(error).into()), (pieces, None))),
            None => Some((Ok(Bytes::from(rewriter.finish())), (pieces, None))),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let pod = "/api/v1/namespaces/n/pods/p:80/proxy";
        for rest in ["", "/", "/a/b%2Fc/"] {
            assert_eq!(split(&format!("{pod}{rest}"), true), (pod, rest));
        }
        assert_eq!(split("/api/v1/nodes/n/proxy/pods", false), ("/api/v1/nodes/n/proxy", "/pods"));
        let response = moved(pod, Some("a=b")).expect("moved");
        assert_eq!(response.headers()[LOCATION], "/api/v1/namespaces/n/pods/p:80/proxy/?a=b");
    }

    #[test]
    fn nothing_that_identifies_the_client_goes_on() {
        let all = [
            ("authorization", "Bearer x"),
            ("impersonate-user", "x"),
            ("impersonate-extra-a", "x"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.eA, chat"),
            ("x-mine", "1"),
        ];
        let headers: HeaderMap =
            all.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect();
        for (upgrades, want) in [
            (false, vec!["sec-websocket-protocol", "x-mine"]),
            (true, vec!["connection", "sec-websocket-protocol", "upgrade", "x-mine"]),
        ] {
            let mut left = headers.clone();
            strip(&mut left, upgrades);
            let mut names: Vec<&str> = left.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, want);
            assert_eq!(left["sec-websocket-protocol"], "chat");
        }
    }
}
