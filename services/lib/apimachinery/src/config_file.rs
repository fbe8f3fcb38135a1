//! Configuration files of components: YAML with a version and a kind. What is wrong with one is told by its line and its field.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::Value;
use serde_saphyr::Spanned;

/// On which line each field of a file stands, by its path: `resources[0].providers[1]`.
#[derive(Clone, Debug, Default)]
pub struct Lines(HashMap<String, u64>);

/// Reads a file.
///
/// # Errors
/// It is no YAML, or a field is unknown, missing or of another type.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<(T, Lines), String> {
    let lines = Lines::of(text)?;
    let mut wrong = None;
    let read = serde_saphyr::with_deserializer_from_str(text, |yaml| {
        serde_path_to_error::deserialize(yaml).map_err(|error| {
            wrong = Some(error.path().to_string());
            error.into_inner()
        })
    });
    match read {
        Ok(content) => Ok((content, lines)),
        Err(error) => Err(lines.describe(wrong.as_deref(), &error)),
    }
}

impl Lines {
    fn of(text: &str) -> Result<Self, String> {
        let tree: Spanned<Tree> = serde_saphyr::from_str(text).map_err(|e| Self::default().describe(None, &e))?;
        let mut lines = Self::default();
        lines.add(String::new(), &tree);
        Ok(lines)
    }

    fn add(&mut self, path: String, node: &Spanned<Tree>) {
        match &node.value {
            Tree::Map(fields) => {
                for (key, value) in fields {
                    let below = if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
                    self.0.insert(below.clone(), key.referenced.line());
                    self.add(below, value);
                }
            }
            Tree::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let below = format!("{path}[{index}]");
                    self.0.insert(below.clone(), item.referenced.line());
                    self.add(below, item);
                }
            }
            Tree::Scalar => {}
        }
    }

    /// The line of a field or, if that is not there, of what it belongs to.
    pub fn line(&self, path: &str) -> Option<u64> {
        let mut path = path;
        loop {
            if let Some(line) = self.0.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// A message that begins with a field's path, with the line in front.
    pub fn place(&self, message: &str) -> String {
        let path = message.split(": ").next().unwrap_or_default();
        match self.line(path) {
            Some(line) => format!("line {line}: {message}"),
            None => message.to_owned(),
        }
    }

    /// Reads a part of the file, `at` which it stands.
    ///
    /// # Errors
    /// A field is unknown, missing or of another type.
    pub fn typed<T: DeserializeOwned>(&self, tree: Value, at: &str) -> Result<T, String> {
        serde_path_to_error::deserialize(tree).map_err(|error| {
            let path = match (at, error.path().to_string().as_str()) {
                (at, ".") => at.to_owned(),
                ("", path) => path.to_owned(),
                (at, path) => format!("{at}.{path}"),
            };
            let why = error.into_inner().to_string();
            if path.is_empty() { why } else { self.place(&format!("{path}: {why}")) }
        })
    }

    fn describe(&self, path: Option<&str>, error: &serde_saphyr::Error) -> String {
        let at = error.location();
        let whole = error.without_snippet().to_string();
        let mut why = whole.lines().next().unwrap_or_default();
        if let Some(at) = &at {
            why = why.trim_end_matches(&format!(" at line {}, column {}", at.line(), at.column()));
        }
        // A struct with flattened ones in it tells of unknown fields when it has read all of them.
        let unknown = why.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
        let path = path.filter(|path| *path != ".").or(unknown.filter(|name| self.0.contains_key(*name)));
        let line = path.and_then(|path| self.line(path)).or(at.map(|at| at.line()));
        let path = path.map_or_else(String::new, |path| format!("{path}: "));
        line.map_or_else(|| format!("{path}{why}"), |line| format!("line {line}: {path}{why}"))
    }
}

/// What has lines.
enum Tree {
    Scalar,
    List(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<String>, Spanned<Tree>)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut fields = Vec::new();
        while let Some(entry) = map.next_entry()? {
            fields.push(entry);
        }
        Ok(Tree::Map(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(default)]
        parts: Vec<Inner>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        name: String,
        #[serde(default)]
        size: u8,
    }

    #[test]
    fn mistakes_are_told_by_line_and_field() {
        for (text, wanted) in [
            ("parts:\n- name: a\n  size: 1\n", Ok("a")),
            ("parts:\n- name: a\n  siz: 1\n", Err("line 3: parts[0].siz: unknown field `siz`")),
            ("\nparts: []\nparst: []\n", Err("line 3: parst: unknown field `parst`")),
            ("parts:\n- size: 1\n", Err("line 2: parts[0]: missing field `name`")),
            ("parts:\n- name: a\n- {name: b,\n   size: 300}\n", Err("line 4: parts[1].size: ")),
            ("parts:\n- name: [a]\n", Err("line 2: parts[0].name: ")),
            ("parts:\n- name: a\n  name: b\n", Err("line 3: duplicate")),
            ("parts:\n- [\n", Err("line ")),
            ("- name\n", Err("line 1: ")),
        ] {
            let read = parse::<Outer>(text).map(|(outer, _)| outer.parts[0].name.clone());
            match wanted {
                Ok(name) => assert_eq!(read.as_deref(), Ok(name)),
                Err(part) => {
                    assert!(read.as_ref().is_err_and(|e| e.starts_with(part) && !e.contains('\n')), "{text}: {read:?}")
                }
            }
        }
    }

    #[test]
    fn what_is_found_later_is_placed_as_well() {
        let (tree, lines) = parse::<Value>("a:\n  b:\n  - c: 1\n  - d: {e: 2}\n").expect("valid");
        for (message, wanted) in [
            ("a.b[1].d.e: too small", "line 4: a.b[1].d.e: too small"),
            ("a.b[1].f: Required value", "line 4: a.b[1].f: Required value"),
            ("a.x.y[3]: Required value", "line 1: a.x.y[3]: Required value"),
            ("nothing of that kind", "nothing of that kind"),
        ] {
            assert_eq!(lines.place(message), wanted);
        }
        let part = lines.typed::<Inner>(tree["a"]["b"][0].clone(), "a.b[0]");
        assert_eq!(part.map_err(|e| e.starts_with("line 3: a.b[0].c: unknown field `c`")), Err(true));
        assert_eq!(lines.typed::<Inner>(json!({"name": "n"}), "a"), Ok(Inner { name: "n".into(), size: 0 }));
    }
}
