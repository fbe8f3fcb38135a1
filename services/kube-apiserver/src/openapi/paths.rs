//! The paths of a row of the resource table.

use super::Row;
use super::definitions::Definitions;
use super::operation::{Target, method, operation};
use crate::registry::Verb;
use serde_json::{Map, Value, json};

/// Verbs on a collection; the others are on one object.
fn on_collection(verb: Verb) -> bool {
    matches!(verb, Verb::Create | Verb::List | Verb::DeleteCollection)
}

/// Adds every path of a row.
pub(super) fn add(row: &Row<'_>, types: &mut Definitions<'_>, paths: &mut Map<String, Value>) {
    let root = format!("/{}", row.group_version());
    let base = if row.namespaced {
        format!("{root}/namespaces/{{namespace}}/{}", row.plural)
    } else {
        format!("{root}/{}", row.plural)
    };
    let target = Target { row, sub: None, in_namespace: row.namespaced };
    let collection = row.verbs.iter().copied().filter(|v| on_collection(*v));
    add_path(base.clone(), target, collection, false, types, paths);
    let single = row.verbs.iter().copied().filter(|v| !on_collection(*v));
    add_path(format!("{base}/{{name}}"), target, single, true, types, paths);
    for sub in row.subresources {
        let target = Target { sub: Some(sub), ..target };
        add_path(format!("{base}/{{name}}/{}", sub.name), target, sub.verbs.iter().copied(), true, types, paths);
    }
    if row.namespaced {
        let everywhere = Target { in_namespace: false, ..target };
        let list = row.verbs.iter().copied().filter(|v| *v == Verb::List);
        add_path(format!("{root}/{}", row.plural), everywhere, list, false, types, paths);
    }
}

fn add_path(
    path: String,
    target: Target<'_>,
    verbs: impl Iterator<Item = Verb>,
    named: bool,
    types: &mut Definitions<'_>,
    paths: &mut Map<String, Value>,
) {
    let mut item = Map::new();
    for verb in verbs {
        if let Some((method, word, action)) = method(verb) {
            item.insert(method.to_string(), operation(target, verb, word, action, types));
        }
    }
    if item.is_empty() {
        return;
    }
    let dialect = types.dialect();
    let mut parameters = Vec::new();
    if named {
        parameters.push(dialect.parameter("name", "path", "string", true, true));
    }
    if target.in_namespace {
        parameters.push(dialect.parameter("namespace", "path", "string", true, true));
    }
    parameters.push(dialect.parameter("pretty", "query", "string", false, true));
    item.insert("parameters".into(), json!(parameters));
    paths.insert(path, item.into());
}
