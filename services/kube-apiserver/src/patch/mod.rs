//! PATCH bodies: which algorithm a content type names. The algorithms are apimachinery's.

use crate::errors::{ApiError, FieldError};
use apimachinery::patch::{self, PatchError};
use apimachinery::schema::{TypeRef, builtin};
use apimachinery::strict;
use serde_json::Value;

/// The media types of patches this server applies.
const ACCEPTED: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", APPLY];

const APPLY: &str = "application/apply-patch+yaml";

/// A patch algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own, driven by the schema.
    Strategic,
    /// A configuration: server-side apply, which is no patch of the others' kind.
    Apply,
}

impl Kind {
    /// Reads a Content-Type; 415 for what this server does not apply.
    pub fn of(content_type: Option<&str>) -> Result<Self, ApiError> {
        match content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Kind::Json),
            "application/merge-patch+json" => Ok(Kind::Merge),
            "application/strategic-merge-patch+json" => Ok(Kind::Strategic),
            APPLY => Ok(Kind::Apply),
            _ => Err(ApiError::unsupported_media_type(ACCEPTED)),
        }
    }
}

/// A parsed patch.
#[derive(Debug)]
pub struct Patch {
    kind: Kind,
    body: Value,
    ty: Option<TypeRef<'static>>,
    /// Fields that stand twice in it, for clients who want to hear of that.
    pub complaints: Vec<String>,
}

impl Patch {
    /// Parses a patch for objects of a kind.
    pub fn parse(kind: Kind, text: &[u8], group: &str, version: &str, object_kind: &str) -> Result<Self, ApiError> {
        let decoded = strict::parse(text).map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
        let (body, complaints) = (decoded.object, decoded.complaints);
        let ty = builtin().kind(group, version, object_kind);
        if kind == Kind::Strategic && ty.is_none() {
            return Err(ApiError::unsupported_media_type(&[ACCEPTED[0], ACCEPTED[1], ACCEPTED[3]]));
        }
        Ok(Self { kind, body, ty, complaints })
    }

    /// The object after the patch.
    pub fn apply(&self, object: &Value) -> Result<Value, ApiError> {
        let result = match (self.kind, self.ty) {
            (Kind::Json, _) => patch::json(object.clone(), &self.body),
            (Kind::Strategic, Some(ty)) => patch::strategic(ty, object.clone(), self.body.clone()),
            (Kind::Merge | Kind::Strategic | Kind::Apply, _) => patch::merge(object.clone(), &self.body),
        };
        result.map_err(|e| refused(&e))
    }

    /// The 422 for a patch that a strict client does not want.
    pub fn invalid(&self, why: &str) -> ApiError {
        ApiError::invalid("", "", "", &[FieldError::invalid("patch", self.body.to_string(), why)])
    }
}

fn refused(error: &PatchError) -> ApiError {
    match error {
        PatchError::Malformed(why) => ApiError::bad_request(why.clone()),
        PatchError::Unprocessable(_) => ApiError::unprocessable(),
        PatchError::Meaningless(why) => ApiError::new(500, "", why.clone()),
        PatchError::TooLarge(why) => ApiError::too_large(why.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        assert_eq!(Kind::of(Some("application/merge-patch+json; charset=utf-8")), Ok(Kind::Merge));
        assert_eq!(Kind::of(Some("application/apply-patch+yaml")), Ok(Kind::Apply));
        for refused in [Some("application/json"), None] {
            assert_eq!(Kind::of(refused).map_err(|e| e.code()), Err(415), "{refused:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_said_as_upstream_says_it() {
        let patch = Patch::parse(Kind::Json, br#"[{"op": "test", "path": "/a", "value": 1}]"#, "", "v1", "ConfigMap");
        let error = patch.expect("a patch").apply(&serde_json::json!({"a": 2})).expect_err("it does not fit");
        let want = serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 422,
            "message": "the server rejected our request due to an error in our request", "reason": "Invalid", "details": {}});
        assert_eq!(error.to_value(), want);
    }
}
