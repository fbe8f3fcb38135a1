//! Request bodies as objects of the kind a path stands for: JSON, YAML or protobuf, typed, pruned, with unknown fields refused or warned about.

use super::yaml;
use crate::errors::{ApiError, FieldError};
use crate::patch::Patch;
use crate::protobuf;
use crate::server::body::{self, Request};
use crate::server::handler::Call;
use crate::server::negotiate::{self, Content};
use apimachinery::schema::{TypeRef, builtin};
use apimachinery::strict::{self, DecodeError, FieldValidation};
use apimachinery::{defaults, meta};
use serde_json::{Value, json};

/// An object and what the client is to be warned of.
#[derive(Debug)]
pub struct Decoded {
    /// The object, with apiVersion and kind filled in.
    pub object: Value,
    /// Texts for Warning headers.
    pub warnings: Vec<String>,
}

/// Reads a request's body as an object of that kind.
pub async fn object(
    call: &Call,
    request: Request,
    group: &str,
    version: &str,
    kind: &str,
) -> Result<Decoded, ApiError> {
    let content = negotiate::content(call.header(http::header::CONTENT_TYPE))?;
    let validation = validation(call)?;
    let text = body::read(request.into_body()).await?;
    let ty = builtin().kind(group, version, kind);
    let decoded = match decode(&text, content, ty) {
        Ok(decoded) if content != Content::Json || !is_blank(&text) => decoded,
        Err(error) if content != Content::Json || !is_cut_off(&text) => {
            return Err(unfit(version, kind, &error.to_string()));
        }
        _ => return Err(cut_off(kind, &text)),
    };
    if let Some(record) = &call.audit {
        record.sent(&decoded.object);
    }
    finish(decoded, validation, group, version, kind, |strict| unfit(version, kind, strict))
}

/// Checks a patched tree the way a body is checked.
pub fn patched(
    call: &Call,
    patch: &Patch,
    tree: Value,
    group: &str,
    version: &str,
    kind: &str,
) -> Result<(Value, Vec<String>), ApiError> {
    let validation = validation(call)?;
    let Some(ty) = builtin().kind(group, version, kind) else { return Ok((tree, patch.complaints.clone())) };
    let refused = |why: String| ApiError::invalid(group, kind, "", &[FieldError::invalid("patch", "", why)]);
    let decoded = strict::decode_value(tree, ty).map_err(|e| refused(e.to_string()))?;
    let complaints = patch.complaints.iter().chain(&decoded.complaints).cloned().collect();
    let decoded = strict::Decoded { complaints, ..decoded };
    finish(decoded, validation, group, version, kind, |strict| patch.invalid(strict)).map(|d| (d.object, d.warnings))
}

/// DeleteOptions in any form.
pub fn delete_options(text: &[u8], content_type: Option<&str>) -> Result<Value, ApiError> {
    let content = negotiate::content(content_type)?;
    if content == Content::Protobuf {
        return protobuf::delete_options(text).map_err(|e| ApiError::bad_request(e.to_string()));
    }
    decode(text, content, None).map(|d| d.object).map_err(|e| ApiError::bad_request(e.to_string()))
}

/// Fills in the schema's defaults.
pub fn default(group: &str, version: &str, kind: &str, object: &mut Value) {
    if let Some(ty) = builtin().kind(group, version, kind) {
        defaults::apply(ty, object);
    }
}

/// What the request wants done about unknown and duplicate fields.
pub fn validation(call: &Call) -> Result<FieldValidation, ApiError> {
    let text = call.query.get("fieldValidation");
    FieldValidation::parse(text).ok_or_else(|| {
        let error = FieldError::not_supported("fieldValidation", text, &["Ignore", "Strict", "Warn"]);
        ApiError::invalid("meta.k8s.io", "CreateOptions", "", &[error])
    })
}

fn decode(text: &[u8], content: Content, ty: Option<TypeRef<'_>>) -> Result<strict::Decoded, DecodeError> {
    if content != Content::Protobuf && is_blank(text) {
        return Ok(strict::Decoded { object: json!({}), complaints: Vec::new() });
    }
    if content == Content::Protobuf {
        let ty = ty.ok_or_else(|| DecodeError::Syntax("a body of this kind cannot be protobuf".into()))?;
        let tree = protobuf::decode(text, ty).map_err(|e| DecodeError::Syntax(e.to_string()))?;
        return strict::decode_value(tree, ty);
    }
    if content == Content::Json {
        return match ty {
            Some(ty) => strict::decode(text, ty),
            None => strict::parse(text),
        };
    }
    let (tree, mut complaints) =
        yaml::parse(text).map_err(|why| DecodeError::Syntax(format!("error converting YAML to JSON: {why}")))?;
    let decoded = match ty {
        Some(ty) => strict::decode_value(tree, ty)?,
        None => strict::Decoded { object: tree, complaints: Vec::new() },
    };
    complaints.extend(decoded.complaints);
    Ok(strict::Decoded { complaints, ..decoded })
}

fn is_blank(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_whitespace)
}

/// Whether there is nothing, or not all of a JSON value.
fn is_cut_off(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_err_and(|error| error.is_eof())
}

/// Upstream reads what an object is before the object itself, and shows how a body begins in which it does not find that.
fn cut_off(kind: &str, text: &[u8]) -> ApiError {
    const SHOWN: usize = 30;
    let hex: String = text.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
    let summary = match text.len() {
        0 => "<empty>".to_owned(),
        1..=SHOWN => hex,
        _ => format!("{hex} ..."),
    };
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: \
         unexpected end of JSON input ({summary})"
    ))
}

fn unfit(version: &str, kind: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
}

fn finish(
    decoded: strict::Decoded,
    validation: FieldValidation,
    group: &str,
    version: &str,
    kind: &str,
    refuse: impl Fn(&str) -> ApiError,
) -> Result<Decoded, ApiError> {
    if validation == FieldValidation::Strict
        && let Some(error) = decoded.strict_error()
    {
        return Err(refuse(&error));
    }
    let warnings = if validation == FieldValidation::Warn { decoded.complaints } else { Vec::new() };
    let mut object = decoded.object;
    if !object.is_object() {
        return Err(unfit(version, kind, "the body is not an object"));
    }
    let api_version = if group.is_empty() { version.to_string() } else { format!("{group}/{version}") };
    let (said_version, said_kind) = (meta::api_version(&object), meta::kind(&object));
    if !said_version.is_empty() && said_version != api_version {
        let message = format!(
            "the API version in the data ({said_version}) does not match the expected API version ({api_version})"
        );
        return Err(ApiError::bad_request(message));
    }
    if !said_kind.is_empty() && said_kind != kind {
        return Err(ApiError::bad_request(format!("{said_kind} in version {version:?} cannot be handled as a {kind}")));
    }
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    Ok(Decoded { object, warnings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strictness_is_the_clients_choice() {
        let text = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"dat":{}}"#;
        let run = |validation| {
            let decoded = decode(text, Content::Json, builtin().kind("", "v1", "ConfigMap")).expect("typed");
            finish(decoded, validation, "", "v1", "ConfigMap", |s| unfit("v1", "ConfigMap", s))
                .map(|d| d.warnings)
                .map_err(|e| e.to_string())
        };
        assert_eq!(run(FieldValidation::Ignore), Ok(vec![]));
        assert_eq!(run(FieldValidation::Warn), Ok(vec!["unknown field \"dat\"".to_string()]));
        let refused = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"dat\"";
        assert_eq!(run(FieldValidation::Strict), Err(refused.to_string()));
    }

    #[test]
    fn a_body_that_ends_too_soon_is_shown() {
        for (text, shown) in [
            ("", "<empty>"),
            ("{", "7b"),
            (
                "{\"a\":\"0123456789012345678901234567890",
                &format!("{} ...", "7b2261223a22303132333435363738393031323334353637383930313233"),
            ),
        ] {
            assert!(is_cut_off(text.as_bytes()), "{text}");
            let said = cut_off("ConfigMap", text.as_bytes()).to_string();
            assert!(said.ends_with(&format!("unexpected end of JSON input ({shown})")), "{said}");
        }
        assert!(!is_cut_off(b"{} x") && !is_cut_off(b"{}"));
    }

    #[test]
    fn the_kind_must_be_the_paths() {
        let check = |text: &[u8]| {
            let decoded = decode(text, Content::Yaml, None).expect("yaml");
            finish(decoded, FieldValidation::Ignore, "apps", "v1", "Deployment", |strict| ApiError::bad_request(strict))
                .map(|d| d.object)
        };
        assert_eq!(check(b"metadata: {name: a}").map(|o| o["apiVersion"].clone()), Ok(json!("apps/v1")));
        assert!(check(b"kind: Pod\napiVersion: v1").is_err());
        assert!(check(b"kind: ReplicaSet\napiVersion: apps/v1").is_err());
        assert!(check(b"[1]").is_err());
    }
}
