//! Selectors: what is printed is read as the same, and matching agrees with the rules written down as plainly as they can be.

use super::random::Random;
use super::{one, times};
use crate::Map;
use crate::selector::{FieldSelector, LabelSelector};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const TRIES: u64 = 5000;
const KEYS: [&str; 5] = ["a", "b", "in", "notin", "example.com/c"];
const VALUES: [&str; 7] = ["", "x", "y", "in", "3", "7", "12"];
const FIELD_VALUES: [&str; 7] = ["", "x", "a,b", "a=b", "\\", "!", "é\\,="];

#[derive(Clone, Debug)]
struct Term {
    key: &'static str,
    operator: &'static str,
    values: Vec<&'static str>,
}

fn term(random: &mut Random) -> Term {
    let key = *one(random, &KEYS);
    let operator = *one(random, &["", "!", "=", "==", "!=", "in", "notin", ">", "<"]);
    let values = match operator {
        "" | "!" => vec![],
        ">" | "<" => vec![*one(random, &["3", "7", "12"])],
        "in" | "notin" => (0..=random.below(3)).map(|_| *one(random, &VALUES)).collect(),
        _ => vec![*one(random, &VALUES)],
    };
    Term { key, operator, values }
}

impl Term {
    /// With spaces where the language allows them.
    fn text(&self, random: &mut Random) -> String {
        let mut gap = || *one(random, &["", " ", "\t "]);
        let (key, operator) = (self.key, self.operator);
        match operator {
            "" => format!("{}{key}{}", gap(), gap()),
            "!" => format!("{}!{}{key}", gap(), gap()),
            "in" | "notin" => {
                let values: Vec<String> = self.values.iter().map(|v| format!("{}{v}{}", gap(), gap())).collect();
                format!("{}{key} {operator}{}({}){}", gap(), gap(), values.join(","), gap())
            }
            _ => format!("{key}{}{operator}{}{}", gap(), gap(), self.values[0]),
        }
    }

    fn matches(&self, labels: &BTreeMap<&str, &str>) -> bool {
        let value = labels.get(self.key).copied();
        let number = |text: &str| text.parse::<i64>().ok();
        let wanted = self.values.first().copied().unwrap_or_default();
        match (self.operator, value) {
            ("", value) => value.is_some(),
            ("!", value) => value.is_none(),
            ("=" | "==", value) => value == Some(wanted),
            ("!=", value) => value != Some(wanted),
            ("in", value) => value.is_some_and(|v| self.values.contains(&v)),
            ("notin", value) => value.is_none_or(|v| !self.values.contains(&v)),
            (_, None) => false,
            (">", Some(value)) => number(value).is_some_and(|v| Some(v) > number(wanted)),
            (_, Some(value)) => number(value).is_some_and(|v| Some(v) < number(wanted)),
        }
    }

    /// As an element of matchExpressions, which knows these operators only.
    fn expression(&self) -> Option<Value> {
        let operator = match self.operator {
            "in" => "In",
            "notin" => "NotIn",
            "" => "Exists",
            "!" => "DoesNotExist",
            _ => return None,
        };
        Some(json!({"key": self.key, "operator": operator, "values": self.values}))
    }
}

fn labels(random: &mut Random) -> BTreeMap<&'static str, &'static str> {
    (0..random.below(4)).map(|_| (*one(random, &KEYS), *one(random, &VALUES))).collect()
}

#[test]
fn label_selectors() {
    times(TRIES, |random| {
        let terms: Vec<Term> = (0..random.below(4)).map(|_| term(random)).collect();
        let text = terms.iter().map(|t| t.text(random)).collect::<Vec<_>>().join(",");
        let selector = LabelSelector::parse(&text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        let printed = selector.to_string();
        assert_eq!(LabelSelector::parse(&printed).as_ref(), Ok(&selector), "{text:?} printed {printed:?}");
        let expressions: Option<Vec<Value>> = terms.iter().map(Term::expression).collect();
        let object = expressions.map(|e| LabelSelector::from_object(&json!({"matchExpressions": e})).expect("valid"));
        for _ in 0..4 {
            let set = labels(random);
            let map: Map = set.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
            let wanted = terms.iter().all(|t| t.matches(&set));
            assert_eq!(selector.matches(Some(&map)), wanted, "{text:?} on {set:?}");
            assert!(
                object.as_ref().is_none_or(|o| o.matches(Some(&map)) == wanted),
                "{text:?} as an object on {set:?}"
            );
            let own = json!({"matchLabels": map});
            assert!(LabelSelector::from_object(&own).is_ok_and(|s| s.matches(Some(&map))), "{own} on itself");
        }
    });
}

#[test]
fn field_selectors() {
    const FIELDS: [&str; 3] = ["metadata.name", "spec.nodeName", "x"];
    times(TRIES, |random| {
        let terms: Vec<_> = (0..random.below(4))
            .map(|_| (*one(random, &FIELDS), *one(random, &["=", "==", "!="]), *one(random, &FIELD_VALUES)))
            .collect();
        let escaped = |v: &str| v.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
        let text = terms.iter().map(|(f, o, v)| format!("{f}{o}{}", escaped(v))).collect::<Vec<_>>().join(",");
        let selector = FieldSelector::parse(&text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        let printed = selector.to_string();
        assert_eq!(FieldSelector::parse(&printed).as_ref(), Ok(&selector), "{text:?} printed {printed:?}");
        let object: BTreeMap<&str, &str> =
            (0..random.below(4)).map(|_| (*one(random, &FIELDS), *one(random, &FIELD_VALUES))).collect();
        let has = |field: &str| object.get(field).copied().unwrap_or_default();
        let wanted = terms.iter().all(|(field, operator, value)| (has(field) == *value) == (*operator != "!="));
        assert_eq!(selector.matches(|f| object.get(f).copied()), wanted, "{text:?} on {object:?}");
    });
}

/// Whatever is accepted, however odd, is printed as something that means the same.
#[test]
fn accepted_rubbish_is_printed_as_it_was_meant() {
    let mut accepted = 0;
    let mut random = Random(4);
    for _ in 0..20_000 {
        let terms: Vec<String> = (0..=random.below(3)).map(|_| term(&mut random).text(&mut random)).collect();
        let mut bytes = terms.join(",").into_bytes();
        random.mutate(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Ok(selector) = LabelSelector::parse(&text) {
            accepted += 1;
            assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector), "{text:?}");
        }
        if let Ok(selector) = FieldSelector::parse(&text) {
            accepted += 1;
            assert_eq!(FieldSelector::parse(&selector.to_string()), Ok(selector), "{text:?}");
        }
    }
    assert!(accepted > 1000, "only {accepted} were accepted");
}
