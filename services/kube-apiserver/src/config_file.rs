//! What files of the server's configuration have in common: a version and a kind, and errors that name every field that is wrong with its line. Pure.

use apimachinery::config_file::{self, Lines};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::errors::FieldError;

/// Version 1 of the group that most of them are of.
pub const V1: &str = "apiserver.config.k8s.io/v1";

/// What such a file says besides its version and kind; the first of `versions` is the one to use.
///
/// # Errors
/// It is no YAML, is of another version or kind, or has a field that is unknown or of another type.
pub fn parse<T: DeserializeOwned>(text: &str, versions: &[&str], kind: &str) -> Result<(T, Lines), String> {
    let (tree, lines) = config_file::parse(text)?;
    let content = of_kind(tree, versions, kind, &lines, "")?;
    Ok((content, lines))
}

/// The same for a part of a file, `at` which it has a version and kind of its own.
///
/// # Errors
/// As [`parse`].
pub fn of_kind<T: DeserializeOwned>(
    mut tree: Map<String, Value>,
    versions: &[&str],
    kind: &str,
    lines: &Lines,
    at: &str,
) -> Result<T, String> {
    let mut own = |key: &str| tree.remove(key).as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
    let (its_version, its_kind) = (own("apiVersion"), own("kind"));
    if !versions.contains(&its_version.as_str()) || its_kind != kind {
        let why = format!("expected {} {kind}, got {its_version} {its_kind}", versions.first().unwrap_or(&""));
        return Err(if at.is_empty() { why } else { lines.place(&format!("{at}: {why}")) });
    }
    lines.typed(Value::Object(tree), at)
}

/// Every field that is wrong, in one line.
///
/// # Errors
/// If there is any.
pub fn checked(errors: &[FieldError], lines: &Lines) -> Result<(), String> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(errors.iter().map(|error| lines.place(&error.to_string())).collect::<Vec<_>>().join("; "))
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
            (format!("{head}nme: x\n"), Err("line 3: nme: unknown field `nme`, expected `name`")),
            (format!("{head}name: [x]\n"), Err("line 3: name: invalid type: sequence, expected a string")),
            (format!("{head}name: x\nname: y\n"), Err("line 4: duplicate")),
            ("apiVersion: v1\nkind: Pod\n".to_owned(), Err("expected apiserver.config.k8s.io/v1 One, got v1 Pod")),
            ("name: x\n".to_owned(), Err("expected apiserver.config.k8s.io/v1 One, got  ")),
            ("- name\n".to_owned(), Err("line 1: ")),
        ] {
            let read = parse::<One>(&text, &[V1], "One").map(|(one, _)| one);
            match wanted {
                Ok(name) => assert_eq!(read, Ok(One { name: name.to_owned() })),
                Err(part) => assert!(read.as_ref().is_err_and(|e| e.starts_with(part)), "{text}: {read:?}"),
            }
        }
    }

    #[test]
    fn wrong_fields_have_their_line() {
        let (_, lines) = parse::<One>("apiVersion: v1\nkind: One\n\nname: x\n", &["v1"], "One").expect("valid");
        let errors = [FieldError::required("name", "twice"), FieldError::required("other", "never there")];
        assert_eq!(
            checked(&errors, &lines),
            Err("line 4: name: Required value: twice; other: Required value: never there".into())
        );
    }
}
