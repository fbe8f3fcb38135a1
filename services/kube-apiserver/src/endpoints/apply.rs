//! PATCH with application/apply-patch+yaml: server-side apply, which also creates.

use super::ownership::{self, Tracking};
use super::update::{Change, named_alike};
use super::{Target, create, decode, encode, yaml};
use crate::authz::{self, Attributes, Decision};
use crate::errors::ApiError;
use crate::server::body::Response;
use crate::server::handler::Call;
use apimachinery::meta;
use apimachinery::schema::{TypeRef, builtin};
use apimachinery::strict::{self, FieldValidation};
use serde_json::{Value, json};

/// What a client wants an object to be, and what it is to be warned of.
pub struct Configuration {
    /// The configuration, typed.
    pub object: Value,
    /// Texts for Warning headers.
    pub warnings: Vec<String>,
}

/// Applies the body to an object, which need not exist, or to a subresource that shares its shape.
pub async fn apply(call: &Call, target: &Target, text: &[u8]) -> Result<Response, ApiError> {
    let res = target.res;
    let manager = ownership::applier(call)?;
    let Configuration { mut object, warnings } = configuration(call, res.group, res.version, res.kind, text)?;
    if meta::name(&object).is_empty() {
        meta::metadata_mut(&mut object).insert("name".into(), target.name.as_str().into());
    }
    named_alike(&object, target)?;
    if res.namespaced {
        meta::metadata_mut(&mut object).insert("namespace".into(), target.namespace.as_str().into());
    }
    let sub = target.sub.map(|s| s.name);
    let mut change = Change::new(call, target, call.dry_run()?);
    change.tracking = Tracking::Done;
    loop {
        let applied = change.apply(|live| ownership::apply(call, res, sub, &manager, live, &object)).await;
        match applied {
            Err(error) if sub.is_none() && error.reason() == "NotFound" => {}
            Err(error) => return Err(error),
            Ok(stored) => return encode::one(call, res, 200, &stored, &warnings),
        }
        may_create(call)?;
        if !meta::uid(&object).is_empty() || !meta::resource_version(&object).is_empty() {
            return Err(ApiError::stale(res.group, res.plural, &target.name));
        }
        let new = ownership::apply(call, res, sub, &manager, &json!({}), &object)?;
        match create::make(call, res, &target.namespace, new, change.dry_run, &Tracking::Done).await {
            // Someone else was faster: apply to theirs.
            Err(error) if error.reason() == "AlreadyExists" => {}
            Err(error) => return Err(error),
            Ok(stored) => return encode::one(call, res, 201, &stored, &warnings),
        }
    }
}

/// A write that turns out to create needs the right to.
pub fn may_create(call: &Call) -> Result<(), ApiError> {
    let create = Attributes { verb: "create".into(), ..call.attributes().clone() };
    match call.state.authorizer.authorize(&call.user, &create) {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(why) => Err(authz::forbidden(&call.user, &create, &why)),
    }
}

/// Reads an apply configuration for objects of a kind.
pub fn configuration(
    call: &Call,
    group: &str,
    version: &str,
    kind: &str,
    text: &[u8],
) -> Result<Configuration, ApiError> {
    let (tree, complaints) = parse(text).map_err(|why| ApiError::bad_request(format!("error decoding YAML: {why}")))?;
    let warnings = match decode::validation(call)? {
        FieldValidation::Strict if !complaints.is_empty() => {
            let why = format!("error converting YAML to JSON: yaml: unmarshal errors:\n  {}", complaints.join("\n  "));
            return Err(ApiError::bad_request(format!("error strict decoding YAML: {why}")));
        }
        FieldValidation::Warn => complaints,
        _ => Vec::new(),
    };
    let wanted = if group.is_empty() { version.to_string() } else { format!("{group}/{version}") };
    let said = meta::api_version(&tree);
    if said != wanted {
        let message =
            format!("Incorrect version specified in apply patch. Specified patch version: {said}, expected: {wanted}");
        return Err(ApiError::bad_request(message));
    }
    if meta::kind(&tree) != kind {
        let message = format!("the kind in the data ({}) does not match the expected kind ({kind})", meta::kind(&tree));
        return Err(ApiError::bad_request(message));
    }
    if tree["metadata"].get("managedFields").is_some_and(|m| !m.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let object = match builtin().kind(group, version, kind) {
        Some(ty) => typed(ty, tree.clone()).map_err(|why| ownership::untyped(&tree, &why))?,
        None => tree,
    };
    Ok(Configuration { object, warnings })
}

/// JSON is YAML too, and by far the most frequent.
fn parse(text: &[u8]) -> Result<(Value, Vec<String>), String> {
    if text.trim_ascii_start().first() == Some(&b'{')
        && let Ok(decoded) = strict::parse(text)
    {
        return Ok((decoded.object, decoded.complaints));
    }
    let (tree, complaints) = yaml::parse(text)?;
    if tree.is_object() { Ok((tree, complaints)) } else { Err("the configuration is not a map".into()) }
}

/// Fields that the schema does not know are no matter of taste here: nobody could own them.
fn typed(ty: TypeRef<'_>, tree: Value) -> Result<Value, String> {
    let decoded = strict::decode_value(tree, ty).map_err(|e| e.to_string())?;
    let unknown: Vec<String> = decoded
        .complaints
        .iter()
        .filter_map(|c| c.strip_prefix("unknown field \"")?.strip_suffix('"'))
        .map(|path| format!(".{path}: field not declared in schema"))
        .collect();
    match unknown.as_slice() {
        [] => {}
        [one] => return Err(one.clone()),
        several => return Err(format!("errors:\n  {}", several.join("\n  "))),
    }
    Ok(decoded.object)
}
