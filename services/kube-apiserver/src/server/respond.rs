//! Responses.

use super::body::{Body, Response, full};
use crate::errors::ApiError;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

/// JSON text.
pub fn bytes(status: u16, json: impl Into<Bytes>) -> Response {
    with_type(status, "application/json", full(json))
}

/// A JSON value.
pub fn json(status: u16, value: &Value) -> Response {
    bytes(status, serde_json::to_vec(value).unwrap_or_default())
}

/// Plain text.
pub fn text(status: u16, text: impl Into<Bytes>) -> Response {
    with_type(status, "text/plain; charset=utf-8", full(text))
}

/// Any body of a media type.
pub fn with_type(status: u16, media_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A failure as a Status.
pub fn error(error: &ApiError) -> Response {
    let mut response = json(error.code(), &error.to_value());
    if let Some(details) = &error.0.details
        && details.retry_after_seconds > 0
    {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(details.retry_after_seconds));
    }
    response
}

/// Adds Warning headers; kubectl prints them.
pub fn add_warnings(headers: &mut HeaderMap, warnings: &[String]) {
    for warning in warnings {
        let escaped = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\r', '\n'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
            headers.append(WARNING, value);
        }
    }
}
