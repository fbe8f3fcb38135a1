//! What files of the server's configuration have in common: YAML, a version and a kind, and errors that name every field that is wrong. Pure.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::errors::FieldError;

/// Version 1 of the group that most of them are of.
pub const V1: &str = "apiserver.config.k8s.io/v1";

/// What such a file says besides its version and kind; the first of `versions` is the one to use.
///
/// # Errors
/// It is no YAML, is of another version or kind, or has a field that is unknown or of another type.
pub fn parse<T: DeserializeOwned>(text: &str, versions: &[&str], kind: &str) -> Result<T, String> {
    let tree: Map<String, Value> = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    of_kind(tree, versions, kind)
}

/// The same for a part of a file that has a version and kind of its own.
///
/// # Errors
/// As [`parse`].
pub fn of_kind<T: DeserializeOwned>(mut tree: Map<String, Value>, versions: &[&str], kind: &str) -> Result<T, String> {
    let mut own = |key: &str| tree.remove(key).as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
    let (its_version, its_kind) = (own("apiVersion"), own("kind"));
    if !versions.contains(&its_version.as_str()) || its_kind != kind {
        let version = versions.first().unwrap_or(&"");
        return Err(format!("expected {version} {kind}, got {its_version} {its_kind}"));
    }
    serde_json::from_value(Value::Object(tree)).map_err(|e| e.to_string())
}

/// Every field that is wrong, in one line.
///
/// # Errors
/// If there is any.
pub fn checked(errors: &[FieldError]) -> Result<(), String> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct One {
        name: String,
    }

    #[test]
    fn files() {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: One\n";
        for (text, wanted) in [
            (format!("{head}name: x\n"), Ok("x")),
            (format!("{head}nme: x\n"), Err("unknown field `nme`, expected `name`")),
            (format!("{head}name: [x]\n"), Err("invalid type: sequence, expected a string")),
            (format!("{head}name: x\nname: y\n"), Err("duplicate")),
            ("apiVersion: v1\nkind: Pod\n".to_owned(), Err("expected apiserver.config.k8s.io/v1 One, got v1 Pod")),
            ("name: x\n".to_owned(), Err("expected apiserver.config.k8s.io/v1 One, got  ")),
            ("- name\n".to_owned(), Err("expected")),
        ] {
            let read = parse::<One>(&text, &[V1], "One");
            match wanted {
                Ok(name) => assert_eq!(read, Ok(One { name: name.to_owned() })),
                Err(part) => assert!(read.as_ref().is_err_and(|e| e.contains(part)), "{text}: {read:?}"),
            }
        }
    }
}
