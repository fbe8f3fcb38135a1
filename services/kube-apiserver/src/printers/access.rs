//! Roles and bindings.

use apimachinery::meta;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{age, name};
use super::{AGE, NAME, Printer, text, wide};
use crate::registry::strategy::tree::{items, str_at};

const GROUP: &str = "rbac.authorization.k8s.io";
const ROLE: &[super::Column] = &[NAME, text("Created At")];
const BINDING: &[super::Column] = &[NAME, text("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")];

pub static PRINTERS: &[Printer] = &[
    Printer { group: GROUP, plural: "roles", columns: ROLE, cells: role },
    Printer { group: GROUP, plural: "clusterroles", columns: ROLE, cells: role },
    Printer { group: GROUP, plural: "rolebindings", columns: BINDING, cells: binding },
    Printer { group: GROUP, plural: "clusterrolebindings", columns: BINDING, cells: binding },
];

fn role(r: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(r), json!(meta::creation_timestamp(r))]
}

fn binding(b: &Value, now: Timestamp) -> Vec<Value> {
    let of = |kind: &str| {
        let list = items(b, &["subjects"]).iter().filter(|s| str_at(s, &["kind"]) == kind);
        let names: Vec<String> = list
            .map(|s| match str_at(s, &["namespace"]) {
                "" => str_at(s, &["name"]).to_owned(),
                namespace => format!("{namespace}/{}", str_at(s, &["name"])),
            })
            .collect();
        json!(names.join(", "))
    };
    let role = format!("{}/{}", str_at(b, &["roleRef", "kind"]), str_at(b, &["roleRef", "name"]));
    vec![name(b), json!(role), age(b, now), of("User"), of("Group"), of("ServiceAccount")]
}
