//! A set of paths into objects, with the algebra that field ownership needs.

use crate::Map;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A set of paths. Each step is written as in the FieldsV1 format: `f:NAME` a field or key, `k:{...}` the list element with these keys, `v:VALUE` the
/// list element of this value, `i:N` the list element at this place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Whether the path that leads here is itself in the set.
    pub(super) member: bool,
    /// No child is empty.
    pub(super) children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// The set of nothing but the path that leads here.
    pub(super) fn leaf() -> Self {
        Self { member: true, children: BTreeMap::new() }
    }

    /// Reads FieldsV1; `None` for what is not in its format.
    pub fn parse(fields: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (step, below) in fields.as_object()? {
            if step == "." {
                set.member = true;
                continue;
            }
            let known = ["f:", "k:", "v:", "i:"].iter().any(|kind| step.starts_with(kind));
            let child = Self::parse(below).filter(|_| known)?;
            // Nothing below a step: the step is what is meant.
            set.children.insert(step.clone(), if child.is_empty() { Self::leaf() } else { child });
        }
        Some(set)
    }

    /// As FieldsV1.
    pub fn to_value(&self) -> Value {
        let mut map: Map = self.children.iter().map(|(step, child)| (step.clone(), child.to_value())).collect();
        if self.member && !map.is_empty() {
            map.insert(".".into(), json!({}));
        }
        Value::Object(map)
    }

    /// Whether no path is in it.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// What lies below a step.
    pub fn child(&self, step: &str) -> Option<&Self> {
        self.children.get(step)
    }

    /// Puts what lies below a step there.
    pub(super) fn put(&mut self, step: String, child: Self) {
        if !child.is_empty() {
            self.children.insert(step, child);
        }
    }

    /// Whether the path that leads here is in the set.
    pub fn is_member(&self) -> bool {
        self.member
    }

    /// What is in either.
    pub fn union(mut self, other: &Self) -> Self {
        self.member |= other.member;
        for (step, theirs) in &other.children {
            let ours = self.children.remove(step).unwrap_or_default();
            self.children.insert(step.clone(), ours.union(theirs));
        }
        self
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut out = Self { member: self.member && other.member, children: BTreeMap::new() };
        for (step, ours) in &self.children {
            if let Some(theirs) = other.children.get(step) {
                out.put(step.clone(), ours.intersection(theirs));
            }
        }
        out
    }

    /// What is here and not there.
    pub fn difference(mut self, other: &Self) -> Self {
        self.member &= !other.member;
        for (step, theirs) in &other.children {
            if let Some(ours) = self.children.remove(step) {
                self.put(step.clone(), ours.difference(theirs));
            }
        }
        self
    }

    /// Takes out a path and everything below it.
    pub fn without(&mut self, path: &[&str]) {
        match path {
            [] => *self = Self::default(),
            [first, rest @ ..] => {
                if let Some(child) = self.children.get_mut(*first) {
                    child.without(rest);
                    if child.is_empty() {
                        self.children.remove(*first);
                    }
                }
            }
        }
    }

    /// Keeps what lies below these first steps.
    pub fn keep(&mut self, steps: &[&str]) {
        self.children.retain(|step, _| steps.contains(&step.as_str()));
    }

    /// Every path, as error messages show them: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect(&mut String::new(), &mut found);
        found
    }

    fn collect(&self, at: &mut String, found: &mut Vec<String>) {
        if self.member {
            found.push(at.clone());
        }
        for (step, child) in &self.children {
            let before = at.len();
            at.push_str(&path_text(step));
            child.collect(at, found);
            at.truncate(before);
        }
    }
}

/// A step as error messages show it.
pub fn path_text(step: &str) -> String {
    match step.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("k:", keys)) => {
            let keys: Map = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        Some(("v:", value)) => format!("[={value}]"),
        Some((_, index)) => format!("[{index}]"),
        None => String::new(),
    }
}
