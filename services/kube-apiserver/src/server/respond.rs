//! Responses.

use super::body::{Body, Response, full};
use super::negotiate::{self, Encoding};
use crate::errors::ApiError;
use crate::protobuf;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING, X_CONTENT_TYPE_OPTIONS};
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

/// A Status, in protobuf for those who ask for that. Nobody is refused an answer for what they accept.
pub fn status(accept: Option<&HeaderValue>, code: u16, status: &Value) -> Response {
    let accepted = negotiate::accept(accept.and_then(|v| v.to_str().ok()));
    match protobuf::object(status) {
        Ok(message) if accepted.is_ok_and(|a| a.encoding == Encoding::Protobuf) => {
            with_type(code, protobuf::MEDIA_TYPE, full(message))
        }
        _ => json(code, status),
    }
}

/// A failure as a Status, or as text where no kind of object is meant.
pub fn error(accept: Option<&HeaderValue>, error: &ApiError) -> Response {
    if error.is_plain() {
        let mut response = text(error.code(), format!("{error}\n"));
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        return response;
    }
    let mut response = status(accept, error.code(), &error.to_value());
    if let Some(details) = &error.0.details
        && details.retry_after_seconds > 0
    {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(details.retry_after_seconds));
    }
    response
}

/// Adds Warning headers; kubectl prints them.
pub fn add_warnings(headers: &mut HeaderMap, warnings: &[impl AsRef<str>]) {
    for warning in warnings {
        let escaped = warning.as_ref().replace('\\', "\\\\").replace('"', "\\\"").replace(['\r', '\n'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
            headers.append(WARNING, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_come_in_protobuf_to_those_who_ask_for_it() {
        let failure = ApiError::not_found("apps", "deployments", "x");
        for (accept, want) in [
            (None, "application/json"),
            (Some("application/vnd.kubernetes.protobuf,application/json"), "application/vnd.kubernetes.protobuf"),
            (Some("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"), "application/json"),
            (Some("image/png"), "application/json"),
        ] {
            let accept = accept.map(HeaderValue::from_static);
            let response = error(accept.as_ref(), &failure);
            assert_eq!(
                (response.status().as_u16(), &response.headers()[CONTENT_TYPE]),
                (404, &HeaderValue::from_static(want))
            );
        }
        let message = protobuf::object(&failure.to_value()).expect("a Status has a protobuf form");
        let ty = apimachinery::schema::builtin().of("v1", "Status").expect("in the schema");
        let read = protobuf::decode(&message, ty).expect("readable");
        assert_eq!((read["code"].as_i64(), read["details"]["name"].as_str()), (Some(404), Some("x")));
    }
}
