//! Errors as clients read them: meta/v1 Status with the reasons, codes and wording kubectl and client-go know.

use serde_json::{Value, json};
use std::fmt;

/// Which rule a field broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldReason {
    /// Missing.
    Required,
    /// Malformed or otherwise wrong.
    Invalid,
    /// Of the wrong type.
    TypeInvalid,
    /// Not one of the allowed values.
    NotSupported,
    /// Repeated where values must be unique.
    Duplicate,
    /// Not allowed here.
    Forbidden,
    /// Too many bytes.
    TooLong,
    /// Too many items.
    TooMany,
    /// Refers to something that does not exist.
    NotFound,
    /// Could not be checked.
    Internal,
}

/// One problem with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// The rule.
    pub reason: FieldReason,
    /// The path, as in `spec.containers[0].name`.
    pub field: String,
    /// The offending value, where the message shows it.
    pub value: Option<Value>,
    /// More words.
    pub detail: String,
}

impl FieldError {
    fn new(reason: FieldReason, field: impl Into<String>, value: Option<Value>, detail: impl Into<String>) -> Self {
        Self { reason, field: field.into(), value, detail: detail.into() }
    }

    /// `field: Required value[: detail]`
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldReason::Required, field, None, detail)
    }

    /// `field: Invalid value: "value": detail`
    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldReason::Invalid, field, Some(value.into()), detail)
    }

    /// `field: Invalid value: detail`, where the value is too long to be shown.
    pub fn invalid_whole(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldReason::Invalid, field, None, detail)
    }

    /// As [`Self::invalid`], for a value of the wrong type.
    pub fn type_invalid(field: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldReason::TypeInvalid, field, Some(value.into()), detail)
    }

    /// `field: Unsupported value: "value": supported values: "a", "b"`
    pub fn not_supported(field: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let detail = if quoted.is_empty() { String::new() } else { format!("supported values: {}", quoted.join(", ")) };
        Self::new(FieldReason::NotSupported, field, Some(value.into()), detail)
    }

    /// `field: Duplicate value: "value"`
    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldReason::Duplicate, field, Some(value.into()), "")
    }

    /// `field: Forbidden: detail`
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldReason::Forbidden, field, None, detail)
    }

    /// `field: Too long: may not be more than max bytes`
    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        Self::new(FieldReason::TooLong, field, None, format!("may not be more than {max} bytes"))
    }

    /// `field: Too many: actual: must have at most max items`
    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        Self::new(FieldReason::TooMany, field, Some(json!(actual)), format!("must have at most {max} items"))
    }

    /// `field: Not found: "value"`
    pub fn not_found(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldReason::NotFound, field, Some(value.into()), "")
    }

    /// The cause's reason.
    pub fn cause_reason(&self) -> &'static str {
        match self.reason {
            FieldReason::Required => "FieldValueRequired",
            FieldReason::Invalid => "FieldValueInvalid",
            FieldReason::TypeInvalid => "FieldValueTypeInvalid",
            FieldReason::NotSupported => "FieldValueNotSupported",
            FieldReason::Duplicate => "FieldValueDuplicate",
            FieldReason::Forbidden => "FieldValueForbidden",
            FieldReason::TooLong => "FieldValueTooLong",
            FieldReason::TooMany => "FieldValueTooMany",
            FieldReason::NotFound => "FieldValueNotFound",
            FieldReason::Internal => "InternalError",
        }
    }

    /// The message without the field.
    pub fn body(&self) -> String {
        let head = match self.reason {
            FieldReason::Required => "Required value",
            FieldReason::Invalid | FieldReason::TypeInvalid => "Invalid value",
            FieldReason::NotSupported => "Unsupported value",
            FieldReason::Duplicate => "Duplicate value",
            FieldReason::Forbidden => "Forbidden",
            FieldReason::TooLong => "Too long",
            FieldReason::TooMany => "Too many",
            FieldReason::NotFound => "Not found",
            FieldReason::Internal => "Internal error",
        };
        let mut body = match &self.value {
            // serde_json writes strings quoted and everything else as compact JSON, which is how the messages show values.
            Some(value) => format!("{head}: {}", if value.is_null() { "null".into() } else { value.to_string() }),
            None => head.to_string(),
        };
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// One cause in a Status' details.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// Machine-readable.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The field, if one is to blame.
    pub field: String,
}

/// Machine-readable details of a failure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// The object's name.
    pub name: String,
    /// The resource's group.
    pub group: String,
    /// The resource (or, for 422, the kind).
    pub kind: String,
    /// The object's uid.
    pub uid: String,
    /// The causes.
    pub causes: Vec<Cause>,
    /// When to try again; also sent as a Retry-After header.
    pub retry_after_seconds: u32,
}

/// A failure as meta/v1 Status.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// The reason client-go switches on.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// For machines.
    pub details: Option<Details>,
    /// A fresh list token, with 410.
    pub continue_token: Option<String>,
}

/// The reason of a failure that is no Status.
const PLAIN: &str = "Plain";

/// Every failure the API answers.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError(pub Box<Status>);

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for ApiError {}

impl ApiError {
    /// Any code, reason and message.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Status { code, reason, message: message.into(), details: None, continue_token: None }))
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.0.details.get_or_insert_with(Details::default);
        details.group = group.into();
        details.kind = kind.into();
        details.name = name.into();
        self
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.0.details.get_or_insert_with(Details::default).retry_after_seconds = seconds;
        self
    }

    /// Adds a cause.
    pub fn with_cause(
        mut self,
        reason: impl Into<String>,
        message: impl Into<String>,
        field: impl Into<String>,
    ) -> Self {
        let cause = Cause { reason: reason.into(), message: message.into(), field: field.into() };
        self.0.details.get_or_insert_with(Details::default).causes.push(cause);
        self
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.0.code
    }

    /// The reason.
    pub fn reason(&self) -> &'static str {
        self.0.reason
    }

    /// 404 for an object.
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let gr = crate::registry::group_resource(group, plural);
        Self::new(404, "NotFound", format!("{gr} {name:?} not found")).about(group, plural, name)
    }

    /// 404 for a path.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource").about("", "", "")
    }

    /// 404 for a path below which nothing is known.
    pub fn no_such_page() -> Self {
        Self::new(404, PLAIN, "404 page not found")
    }

    /// Whether the message is all that is sent.
    pub fn is_plain(&self) -> bool {
        self.0.reason == PLAIN
    }

    /// 409 for a create.
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let gr = crate::registry::group_resource(group, plural);
        Self::new(409, "AlreadyExists", format!("{gr} {name:?} already exists")).about(group, plural, name)
    }

    /// 409 with a reason in words.
    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let gr = crate::registry::group_resource(group, plural);
        Self::new(409, "Conflict", format!("Operation cannot be fulfilled on {gr} {name:?}: {why}"))
            .about(group, plural, name)
    }

    /// 409 for a stale resourceVersion.
    pub fn stale(group: &str, plural: &str, name: &str) -> Self {
        Self::conflict(
            group,
            plural,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 403 by admission or a registry rule.
    pub fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let gr = crate::registry::group_resource(group, plural);
        let message = if name.is_empty() {
            format!("{gr} is forbidden: {why}")
        } else {
            format!("{gr} {name:?} is forbidden: {why}")
        };
        Self::new(403, "Forbidden", message).about(group, plural, name)
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 405.
    pub fn method_not_allowed(group: &str, plural: &str) -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
            .about(group, plural, "")
    }

    /// 406.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        Self::new(406, "NotAcceptable", format!("only the following media types are accepted: {}", accepted.join(", ")))
    }

    /// 415.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let list = accepted.join(", ");
        Self::new(
            415,
            "UnsupportedMediaType",
            format!("the body of the request was in an unknown format - accepted media types include: {list}"),
        )
    }

    /// 410: the version asked for has been compacted away.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 422 for an object. `kind` is the kind, not the resource.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let mut seen = Vec::new();
        for text in errors.iter().map(ToString::to_string) {
            if !seen.contains(&text) {
                seen.push(text);
            }
        }
        let list = if seen.len() == 1 { seen.concat() } else { format!("[{}]", seen.join(", ")) };
        let qualified = if group.is_empty() { kind.to_string() } else { format!("{kind}.{group}") };
        let message = if errors.is_empty() {
            format!("{qualified} {name:?} is invalid")
        } else {
            format!("{qualified} {name:?} is invalid: {list}")
        };
        let mut error = Self::new(422, "Invalid", message).about(group, kind, name);
        for e in errors {
            error = error.with_cause(e.cause_reason(), e.body(), e.field.clone());
        }
        error
    }

    /// 422: a patch that does not fit what it is for. Upstream keeps the reason to itself, and clients know its words.
    pub fn unprocessable() -> Self {
        Self::new(422, "Invalid", "the server rejected our request due to an error in our request").about("", "", "")
    }

    /// 429.
    pub fn too_many_requests(message: impl Into<String>, retry_after: u32) -> Self {
        let error = Self::new(429, "TooManyRequests", message);
        if retry_after > 0 { error.retry_after(retry_after) } else { error }
    }

    /// 500.
    pub fn internal(why: impl fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {why}")).with_cause("", why.to_string(), "")
    }

    /// 501 for what this server does not do (yet).
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(501, "NotImplemented", message)
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 504.
    pub fn timeout(message: impl Into<String>, retry_after: u32) -> Self {
        let error = Self::new(504, "Timeout", message);
        if retry_after > 0 { error.retry_after(retry_after) } else { error }
    }

    /// The Status object.
    pub fn to_value(&self) -> Value {
        let s = &self.0;
        let mut metadata = json!({});
        if let Some(token) = &s.continue_token {
            metadata["continue"] = json!(token);
        }
        let mut value = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": s.message, "reason": s.reason, "code": s.code,
        });
        if let Some(details) = &s.details {
            value["details"] = details.to_value();
        }
        value
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut out = json!({});
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !text.is_empty() {
                out[key] = json!(text);
            }
        }
        if !self.causes.is_empty() {
            out["causes"] = self.causes.iter().map(Cause::to_value).collect();
        }
        if self.retry_after_seconds > 0 {
            out["retryAfterSeconds"] = json!(self.retry_after_seconds);
        }
        out
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        let mut out = json!({});
        for (key, text) in [("reason", &self.reason), ("message", &self.message), ("field", &self.field)] {
            if !text.is_empty() {
                out[key] = json!(text);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wording_is_what_clients_know() {
        let table = [
            (FieldError::required("spec.containers", ""), "spec.containers: Required value"),
            (
                FieldError::invalid("metadata.name", "A", "must be lower case"),
                "metadata.name: Invalid value: \"A\": must be lower case",
            ),
            (
                FieldError::not_supported("spec.x", "c", &["a", "b"]),
                "spec.x: Unsupported value: \"c\": supported values: \"a\", \"b\"",
            ),
            (FieldError::duplicate("spec.ports[1]", 80), "spec.ports[1]: Duplicate value: 80"),
        ];
        for (error, want) in table {
            assert_eq!(error.to_string(), want);
        }
        let error = ApiError::invalid(
            "apps",
            "Deployment",
            "x",
            &[FieldError::required("a", ""), FieldError::required("b", "")],
        );
        assert_eq!(error.to_string(), "Deployment.apps \"x\" is invalid: [a: Required value, b: Required value]");
        assert_eq!(ApiError::not_found("apps", "deployments", "x").to_string(), "deployments.apps \"x\" not found");
    }
}
