//! meta.k8s.io/v1 Tables: the columns `kubectl get` shows, computed here so that every client shows the same.
//!
//! A kind is a [`Printer`]: its columns and a function for a row. Kinds without one get name and age. [`cells`] has what rows share.

mod access;
mod autoscaling;
mod cells;
mod cluster;
mod devices;
mod extension;
mod network;
mod pods;
mod storage;
mod workloads;

#[cfg(test)]
mod tests;

use apimachinery::time;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::Resource;

/// One column.
pub struct Column {
    name: &'static str,
    kind: &'static str,
    wide: bool,
}

/// A column of text.
const fn text(name: &'static str) -> Column {
    Column { name, kind: "string", wide: false }
}

/// A column of numbers.
const fn number(name: &'static str) -> Column {
    Column { name, kind: "integer", wide: false }
}

/// A column of text for `-o wide`.
const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", wide: true }
}

const NAME: Column = text("Name");
const AGE: Column = text("Age");

/// How one kind is shown.
pub struct Printer {
    group: &'static str,
    plural: &'static str,
    columns: &'static [Column],
    cells: fn(&Value, Timestamp) -> Vec<Value>,
}

static PRINTERS: &[&[Printer]] = &[
    pods::PRINTERS,
    workloads::PRINTERS,
    autoscaling::PRINTERS,
    network::PRINTERS,
    cluster::PRINTERS,
    storage::PRINTERS,
    devices::PRINTERS,
    access::PRINTERS,
    extension::PRINTERS,
];

static FALL_BACK: Printer =
    Printer { group: "", plural: "", columns: &[NAME, AGE], cells: |o, now| vec![cells::name(o), cells::age(o, now)] };

fn printer(group: &str, plural: &str) -> &'static Printer {
    let mut all = PRINTERS.iter().flat_map(|p| p.iter());
    all.find(|p| p.group == group && p.plural == plural).unwrap_or(&FALL_BACK)
}

/// The Table of some objects at a moment. Rows carry their whole object; the caller cuts it down to what was asked for.
pub fn table(resource: &Resource, items: &[Value], now: &str) -> Value {
    let printer = printer(resource.group, resource.plural);
    let now = time::parse_rfc3339(now).unwrap_or_else(|_| Timestamp::now());
    let is_pod = resource.group.is_empty() && resource.plural == "pods";
    let rows: Vec<Value> = items
        .iter()
        .map(|object| {
            let mut row = json!({"cells": (printer.cells)(object, now), "object": object});
            if is_pod && let Some(condition) = pods::completed(object) {
                row["conditions"] = json!([condition]);
            }
            row
        })
        .collect();
    let columns: Vec<Value> = printer.columns.iter().map(definition).collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": columns, "rows": rows})
}

fn definition(column: &Column) -> Value {
    let format = if column.name == "Name" { "name" } else { "" };
    json!({
        "name": column.name,
        "type": column.kind,
        "format": format,
        "description": format!("{} of the object", column.name),
        "priority": i32::from(column.wide),
    })
}
