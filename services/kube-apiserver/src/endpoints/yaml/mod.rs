//! YAML texts as trees, as upstream reads them: YAML 1.1 as sigs.k8s.io/yaml has it, which turns a text into JSON before anything else looks at it.
//!
//! Of several documents the first is read. A key that stands twice in a map keeps its last value, and is complained about. [`compose`] makes nodes of a text,
//! each once however often it is referred to; this file makes the tree, with go-yaml's limit on what references may add up to; [`resolve`] reads scalars.

mod compose;
mod resolve;

use compose::{Composed, Id, Node};
use resolve::Scalar;
use serde_json::{Map, Value};

/// How deep lists and maps may be nested: what is stored has to be read again, and serde_json reads no more than 128.
const DEPTH: usize = 120;
/// The document so far may consist to this part of what references repeat; larger documents to a smaller part, as in go-yaml.
const REPEATED: (f64, f64) = (0.99, 0.10);
/// Between these numbers of nodes that part shrinks.
const LARGE: (f64, f64) = (400_000.0, 4_000_000.0);

/// A tree and what a strict client wants to hear: `line 9: key "foo" already set in map`.
pub fn parse(text: &[u8]) -> Result<(Value, Vec<String>), String> {
    let text = std::str::from_utf8(text).map_err(|_| "yaml: control characters are not allowed".to_string())?;
    let composed = compose::compose(text, DEPTH)?;
    let mut builder = Builder { composed: &composed, open: Vec::new(), nodes: 0, repeated: 0, complaints: Vec::new() };
    let tree = composed.root.map_or(Ok(Value::Null), |root| builder.value(root, 0))?;
    Ok((tree, builder.complaints))
}

struct Builder<'a> {
    composed: &'a Composed<'a>,
    /// Nodes within which we are: none of them may refer to itself.
    open: Vec<Id>,
    nodes: u64,
    repeated: u64,
    complaints: Vec<String>,
}

impl<'a> Builder<'a> {
    /// The tree of a node; `references` says within how many we are.
    fn value(&mut self, id: Id, references: usize) -> Result<Value, String> {
        self.count(references)?;
        if self.open.len() > DEPTH {
            return Err(format!("yaml: exceeded max depth of {DEPTH}"));
        }
        match &self.composed.nodes[id] {
            Node::Scalar(text, tag) => resolve::resolve(text, *tag)?.into_json(),
            Node::Alias(target) => self.value(*target, references + 1),
            Node::List(items) => self.within(id, |builder| {
                items
                    .iter()
                    .map(|item| builder.value(*item, references))
                    .collect::<Result<Vec<_>, _>>()
                    .map(Value::from)
            }),
            Node::Map(_) => {
                let mut map = Map::new();
                self.within(id, |builder| builder.fill(&mut map, id, references))?;
                Ok(Value::Object(map))
            }
        }
    }

    fn within<T>(&mut self, id: Id, act: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        if self.open.contains(&id) {
            return Err("yaml: an anchor's value contains itself".into());
        }
        self.open.push(id);
        let result = act(self);
        self.open.pop();
        result
    }

    /// References make small texts large: the rule is go-yaml's.
    fn count(&mut self, references: usize) -> Result<(), String> {
        self.nodes += 1;
        self.repeated += u64::from(references > 0);
        let (nodes, repeated) = (self.nodes as f64, self.repeated as f64);
        let place = ((nodes - LARGE.0) / (LARGE.1 - LARGE.0)).clamp(0.0, 1.0);
        let allowed = REPEATED.0 - (REPEATED.0 - REPEATED.1) * place;
        if self.repeated > 100 && self.nodes > 1000 && repeated / nodes > allowed {
            return Err("yaml: document contains excessive aliasing".into());
        }
        Ok(())
    }

    fn fill(&mut self, map: &mut Map<String, Value>, id: Id, references: usize) -> Result<(), String> {
        let Node::Map(entries) = &self.composed.nodes[id] else { return Err(NO_MAP.into()) };
        for (key, value) in entries {
            if matches!(&self.composed.nodes[*key], Node::Scalar(text, None) if text == "<<") {
                self.merge(map, *value, references)?;
                continue;
            }
            let (key, shown) = self.key(*key, references)?;
            let line = self.composed.lines[*value];
            let value = self.value(*value, references)?;
            if map.insert(key, value).is_some() {
                self.complaints.push(format!("line {line}: key {shown} already set in map"));
            }
        }
        Ok(())
    }

    /// `<<`: the entries of another map, or of several, of which the first counts most.
    fn merge(&mut self, map: &mut Map<String, Value>, id: Id, references: usize) -> Result<(), String> {
        self.count(references)?;
        match &self.composed.nodes[id] {
            Node::Map(_) => self.within(id, |builder| builder.fill(map, id, references)),
            Node::Alias(target) if matches!(self.composed.nodes[*target], Node::Map(_)) => {
                self.within(*target, |builder| builder.fill(map, *target, references + 1))
            }
            Node::List(items) => items.iter().rev().try_for_each(|item| match self.composed.nodes[*item] {
                Node::List(_) => Err(NO_MAP.into()),
                _ => self.merge(map, *item, references),
            }),
            _ => Err(NO_MAP.into()),
        }
    }

    /// A key as JSON has it, and as messages show it.
    fn key(&mut self, id: Id, references: usize) -> Result<(String, String), String> {
        self.count(references)?;
        let node = match &self.composed.nodes[id] {
            Node::Alias(target) => &self.composed.nodes[*target],
            node => node,
        };
        let Node::Scalar(text, tag) = node else { return Err("yaml: invalid map key".into()) };
        match resolve::resolve(text, *tag)? {
            Scalar::Text(text) => Ok((text.clone(), format!("{text:?}"))),
            Scalar::Null => Err("unsupported map key of type: <nil>".into()),
            Scalar::Float(f) if f.is_infinite() => Ok((if f > 0.0 { ".inf" } else { "-.inf" }.into(), f.to_string())),
            Scalar::Float(f) if f.is_nan() => Ok((".nan".into(), "NaN".into())),
            other => other.into_json().map(|v| (v.to_string(), v.to_string())),
        }
    }
}

const NO_MAP: &str = "yaml: map merge requires map or sequence of maps as the value";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_are_read_as_upstream_reads_them() {
        let table = [
            ("a: y", json!({"a": true})),
            ("a: [yes, On, TRUE, n, No, off, False]", json!({"a": [true, true, true, false, false, false, false]})),
            ("a: [yES, oN, tRUE, 'yes', \"on\", !!str no]", json!({"a": ["yES", "oN", "tRUE", "yes", "on", "no"]})),
            ("on: 1\n2: b\n0x10: c\n1.5: d", json!({"true": 1, "2": "b", "16": "c", "1.5": "d"})),
            ("a: [0777, 0o17, 08, 0x1F, 0b11, -0b11, 1_000, +5]", json!({"a": [511, 15, 8, 31, 3, -3, 1000, 5]})),
            ("a: [1.0, 1e3, .5, 1., -2.5, 1_0.5]", json!({"a": [1, 1000, 0.5, 1, -2.5, 10.5]})),
            (
                "a: [18446744073709551615, 1e400x, 0x, 1.2.3, '1']",
                json!({"a": [u64::MAX, "1e400x", "0x", "1.2.3", "1"]}),
            ),
            (
                "a: [2001-12-14, 2001-12-14T21:59:43Z, 12:30:45]",
                json!({"a": ["2001-12-14", "2001-12-14T21:59:43Z", "12:30:45"]}),
            ),
            ("a: [null, ~, Null, '']", json!({"a": [null, null, null, ""]})),
            ("a:", json!({"a": null})),
            ("a: !!binary aGk=", json!({"a": "hi"})),
            ("a: !!float 3\nb: !own 3", json!({"a": 3, "b": "3"})),
            ("a: |\n  x\n  y\nb: >\n  x\n  y\n", json!({"a": "x\ny\n", "b": "x y\n"})),
            ("x: &x {a: 1, b: 2}\nz: {<<: *x, b: 3}", json!({"x": {"a": 1, "b": 2}, "z": {"a": 1, "b": 3}})),
            ("z: {b: 3, <<: {b: 2, c: 4}}", json!({"z": {"b": 2, "c": 4}})),
            ("z: {<<: [{a: 1}, {a: 2, b: 2}], c: 3}", json!({"z": {"a": 1, "b": 2, "c": 3}})),
            ("'<<': 1", json!({"<<": 1})),
            ("a: &x [1]\nb: *x", json!({"a": [1], "b": [1]})),
            ("a: 1\n---\nb: 2\n", json!({"a": 1})),
            ("--- {a: 1}\n...\nrubbish: [", json!({"a": 1})),
            ("", Value::Null),
            ("# nothing", Value::Null),
            ("{\"a\": \"\\u00e9\"}", json!({"a": "é"})),
        ];
        for (text, want) in table {
            assert_eq!(parse(text.as_bytes()).map(|(tree, _)| tree), Ok(want), "{text}");
        }
    }

    #[test]
    fn keys_that_stand_twice() {
        let (tree, complaints) = parse(b"\na: 1\nb:\n  c: x\n  c: z\na: 2\n").expect("a tree");
        let said = ["line 5: key \"c\" already set in map", "line 6: key \"a\" already set in map"];
        assert_eq!((tree, complaints), (json!({"a": 2, "b": {"c": "z"}}), said.map(String::from).to_vec()));
    }

    #[test]
    fn what_cannot_be_read() {
        let bomb = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, i| {
            let alias = vec![format!("*a{}", i - 1); 9].join(",");
            format!("{text}a{i}: &a{i} [{alias}]\n")
        });
        let table = [
            ("a: [", "yaml: line"),
            ("a: .inf", "json: unsupported value: +Inf"),
            ("{[1]: 2}", "yaml: invalid map key"),
            ("~: 2", "unsupported map key"),
            ("a: !!int x", "yaml: cannot decode !!str `x` as a !!int"),
            ("a: &a [*a]", "yaml: an anchor's value contains itself"),
            ("a: *b", "yaml: "),
            ("<<: 5", "yaml: map merge requires"),
            (bomb.as_str(), "yaml: document contains excessive aliasing"),
            (&format!("{}{}", "[".repeat(DEPTH + 2), "]".repeat(DEPTH + 2)), "yaml: exceeded max depth"),
            (&"- ".repeat(100_000), "yaml: exceeded max depth"),
        ];
        for (text, want) in table {
            let error = parse(text.as_bytes()).expect_err(want);
            assert!(error.starts_with(want), "{error}");
        }
        assert!(parse(b"a: \xff").is_err());
    }
}
