//! ConfigMaps and Secrets: keys with contents, and a switch that freezes them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::checks::{config_key, immutable, named};
use super::kind::{Fields, Kind};
use super::tree::{at, bool_at, default, has, keep, map_at, object, remove, same, set, str_at};
use crate::errors::{ApiError, FieldError};
use crate::registry::Context;

const MAX_BYTES: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";

/// ConfigMap.
pub static CONFIG_MAP: Kind = Kind { check: check_config_map, check_update: frozen, ..Kind::BASE };

/// Secret.
pub static SECRET: Kind = Kind {
    defaults: secret_defaults,
    update: secret_update,
    check: check_secret,
    check_update: check_secret_update,
    fields: |s| -> Fields { vec![("type", str_at(s, &["type"]).to_owned())] },
    ..Kind::BASE
};

fn check_config_map(errors: &mut Vec<FieldError>, cm: &Value) {
    let mut size = 0;
    for (k, v) in map_at(cm, &["data"]).into_iter().flatten() {
        key(errors, "data", k);
        if map_at(cm, &["binaryData"]).is_some_and(|b| b.contains_key(k)) {
            errors.push(FieldError::invalid(
                format!("data[{k}]"),
                k.as_str(),
                "duplicate of key present in binaryData",
            ));
        }
        size += v.as_str().map_or(0, str::len);
    }
    for (k, v) in map_at(cm, &["binaryData"]).into_iter().flatten() {
        key(errors, "binaryData", k);
        size += decoded(errors, &format!("binaryData[{k}]"), v);
    }
    if size > MAX_BYTES {
        errors.push(FieldError::too_long("[]", MAX_BYTES));
    }
}

fn key(errors: &mut Vec<FieldError>, path: &str, k: &str) {
    named(errors, &format!("{path}[{k}]"), k, config_key);
}

fn decoded(errors: &mut Vec<FieldError>, path: &str, v: &Value) -> usize {
    match v.as_str().map(|s| STANDARD.decode(s)) {
        Some(Ok(bytes)) => bytes.len(),
        _ => {
            errors.push(FieldError::invalid(path, v.clone(), "must be base64"));
            0
        }
    }
}

/// Once frozen, always frozen, with what it held.
fn frozen(errors: &mut Vec<FieldError>, _: Option<&str>, new: &Value, old: &Value) {
    if !bool_at(old, &["immutable"]) {
        return;
    }
    if !bool_at(new, &["immutable"]) {
        errors.push(FieldError::forbidden("immutable", FROZEN));
    }
    for field in ["data", "binaryData"] {
        if !same(new.get(field), old.get(field)) {
            errors.push(FieldError::forbidden(field, FROZEN));
        }
    }
}

fn secret_defaults(s: &mut Value) {
    default(s, "type", "Opaque");
    // stringData is for writing only: readers find it in data.
    if let Some(Value::Object(plain)) = remove(s, "stringData")
        && !plain.is_empty()
    {
        let data = object(s, "data");
        for (k, v) in plain {
            set(data, &k, STANDARD.encode(v.as_str().unwrap_or_default()));
        }
    }
}

fn secret_update(_: &Context<'_>, _: Option<&str>, new: &mut Value, old: &Value) -> Result<(), ApiError> {
    if !has(new, "type") {
        keep(new, old, "type");
    }
    Ok(())
}

fn check_secret(errors: &mut Vec<FieldError>, s: &Value) {
    let mut size = 0;
    for (k, v) in map_at(s, &["data"]).into_iter().flatten() {
        key(errors, "data", k);
        size += decoded(errors, &format!("data[{k}]"), v);
    }
    if size > MAX_BYTES {
        errors.push(FieldError::too_long("data", MAX_BYTES));
    }
    let needed: &[&str] = match str_at(s, &["type"]) {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/service-account-token" => {
            if str_at(s, &["metadata", "annotations", "kubernetes.io/service-account.name"]).is_empty() {
                errors.push(FieldError::required("metadata.annotations[kubernetes.io/service-account.name]", ""));
            }
            &[]
        }
        _ => &[],
    };
    for k in needed {
        let path = format!("data[{k}]");
        let value = at(s, &["data", k]).and_then(Value::as_str);
        match value {
            None => errors.push(FieldError::required(path, "")),
            Some("") if *k == "ssh-privatekey" => errors.push(FieldError::required(path, "")),
            Some(text) if k.starts_with(".docker") => docker_config(errors, path, text),
            Some(_) => {}
        }
    }
    let has_key = |k: &str| map_at(s, &["data"]).is_some_and(|d| d.contains_key(k));
    if str_at(s, &["type"]) == "kubernetes.io/basic-auth" && !has_key("username") && !has_key("password") {
        errors.push(FieldError::required("data[username]", ""));
        errors.push(FieldError::required("data[password]", ""));
    }
}

/// Credentials of registries are an object in JSON. What they hold is not repeated to anybody.
fn docker_config(errors: &mut Vec<FieldError>, path: String, text: &str) {
    let bytes = STANDARD.decode(text).unwrap_or_default();
    let why = match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(_) | Value::Null) => return,
        Ok(other) => {
            let kind = match other {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                _ => "number",
            };
            format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")
        }
        Err(_) if bytes.is_empty() => "unexpected end of JSON input".to_owned(),
        Err(why) if why.is_eof() => "unexpected end of JSON input".to_owned(),
        Err(why) => why.to_string(),
    };
    errors.push(FieldError::invalid(path, "<secret contents redacted>", why));
}

fn check_secret_update(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, old: &Value) {
    immutable(errors, "type", new.get("type"), old.get("type"));
    frozen(errors, sub, new, old);
}
