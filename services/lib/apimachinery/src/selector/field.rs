//! Field selectors: exact comparisons of a few fields per resource.

use super::SelectorError;
use std::fmt;

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field's path, such as `metadata.name`.
    pub field: String,
    /// What it is compared with.
    pub value: String,
    /// Whether it must be equal or must differ.
    pub equals: bool,
}

/// A conjunction of comparisons; the default matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Parses `a=b,c==d,e!=f`; a backslash takes the meaning from a comma, equals sign or backslash.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let bad = || SelectorError::Syntax(format!("invalid selector: '{text}'; can't understand '{term}'"));
            let (field, equals, value) = split_term(term).ok_or_else(bad)?;
            requirements.push(FieldRequirement { field: field.to_string(), value: unescape(value)?, equals });
        }
        Ok(Self { requirements })
    }

    /// The comparisons.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object matches, given how to read its fields; a field it does not have reads as empty.
    pub fn matches<'a>(&self, read: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| (read(&r.field).unwrap_or("") == r.value) == r.equals)
    }

    /// The value the selector demands of a field, if it does.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.equals && r.field == field).map(|r| r.value.as_str())
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    (0..term.len()).filter(|i| term.is_char_boundary(*i)).find_map(|i| {
        let (field, rest) = term.split_at(i);
        [("!=", false), ("==", true), ("=", true)]
            .iter()
            .find_map(|(op, equals)| rest.strip_prefix(op).map(|value| (field, *equals, value)))
    })
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => {
                    return Err(SelectorError::Syntax(format!(
                        "invalid field selector: invalid escape sequence: \\{c}"
                    )));
                }
                None => {
                    return Err(SelectorError::Syntax("invalid field selector: invalid escape sequence: \\".into()));
                }
            },
            '=' | ',' => {
                return Err(SelectorError::Syntax(format!(
                    "invalid field selector: unescaped character in value: {value:?}"
                )));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, r) in self.requirements.iter().enumerate() {
            let value = r.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{}{}{}{value}", if index > 0 { "," } else { "" }, r.field, if r.equals { "=" } else { "!=" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let cases: &[(&str, Result<&str, &str>)] = &[
            ("", Ok("")),
            ("a=b,c==d,e!=f,", Ok("a=b,c=d,e!=f")),
            (r"a=x\,y\=z\\", Ok(r"a=x\,y\=z\\")),
            ("a=", Ok("a=")),
            ("a", Err("invalid selector: 'a'; can't understand 'a'")),
            ("a=b=c", Err("invalid field selector: unescaped character in value: \"b=c\"")),
        ];
        for (text, want) in cases {
            let got = FieldSelector::parse(text).map(|s| s.to_string()).map_err(|e| e.to_string());
            assert_eq!(got.as_deref().map_err(|e| e.as_str()), *want, "{text:?}");
        }
        let selector = FieldSelector::parse("spec.nodeName=,status.phase!=Failed").unwrap_or_default();
        assert!(selector.matches(|f| (f == "status.phase").then_some("Running")));
        assert!(!selector.matches(|f| (f == "status.phase").then_some("Failed")));
        assert_eq!(selector.exact("spec.nodeName"), Some(""));
    }
}
