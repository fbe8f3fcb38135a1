//! What extends the API, and priority and fairness.

use apimachinery::meta;
use serde_json::{Value, json};

use super::cells::{NONE, age, int, name, or_none};
use super::{AGE, NAME, Printer, number, text};
use crate::registry::strategy::tree::{at, int_at, items, str_at};

const ADMISSION: &str = "admissionregistration.k8s.io";
const FLOW: &str = "flowcontrol.apiserver.k8s.io";
const WEBHOOKS: &[super::Column] = &[NAME, number("Webhooks"), AGE];

pub static PRINTERS: &[Printer] = &[
    Printer { group: ADMISSION, plural: "mutatingwebhookconfigurations", columns: WEBHOOKS, cells: webhooks },
    Printer { group: ADMISSION, plural: "validatingwebhookconfigurations", columns: WEBHOOKS, cells: webhooks },
    Printer {
        group: ADMISSION,
        plural: "validatingadmissionpolicies",
        columns: &[NAME, number("Validations"), text("ParamKind"), AGE],
        cells: |p, now| {
            let kind = at(p, &["spec", "paramKind"]);
            let shown = kind
                .map_or("<unset>".to_owned(), |k| format!("{}/{}", str_at(k, &["apiVersion"]), str_at(k, &["kind"])));
            vec![name(p), json!(items(p, &["spec", "validations"]).len()), json!(shown), age(p, now)]
        },
    },
    Printer {
        group: ADMISSION,
        plural: "validatingadmissionpolicybindings",
        columns: &[NAME, text("PolicyName"), text("ParamRef"), AGE],
        cells: |b, now| {
            let shown = at(b, &["spec", "paramRef"]).map_or("<unset>".to_owned(), |r| match str_at(r, &["name"]) {
                "" => "*".to_owned(),
                name => match str_at(r, &["namespace"]) {
                    "" => name.to_owned(),
                    namespace => format!("{namespace}/{name}"),
                },
            });
            vec![name(b), json!(str_at(b, &["spec", "policyName"])), json!(shown), age(b, now)]
        },
    },
    Printer {
        group: "apiextensions.k8s.io",
        plural: "customresourcedefinitions",
        columns: &[NAME, text("Created At")],
        cells: |c, _| vec![name(c), json!(meta::creation_timestamp(c))],
    },
    Printer {
        group: "apiregistration.k8s.io",
        plural: "apiservices",
        columns: &[NAME, text("Service"), text("Available"), AGE],
        cells: |a, now| {
            let service = at(a, &["spec", "service"])
                .map_or("Local".to_owned(), |s| format!("{}/{}", str_at(s, &["namespace"]), str_at(s, &["name"])));
            let condition = items(a, &["status", "conditions"]).iter().find(|c| str_at(c, &["type"]) == "Available");
            let available = condition.map_or("Unknown".to_owned(), |c| match str_at(c, &["status"]) {
                "True" => "True".to_owned(),
                status => format!("{status} ({})", str_at(c, &["reason"])),
            });
            vec![name(a), json!(service), json!(available), age(a, now)]
        },
    },
    Printer {
        group: FLOW,
        plural: "flowschemas",
        columns: &[
            NAME,
            text("PriorityLevel"),
            number("MatchingPrecedence"),
            text("DistinguisherMethod"),
            AGE,
            text("MissingPL"),
        ],
        cells: |f, now| {
            let dangling = items(f, &["status", "conditions"]).iter().find(|c| str_at(c, &["type"]) == "Dangling");
            vec![
                name(f),
                json!(str_at(f, &["spec", "priorityLevelConfiguration", "name"])),
                int(f, &["spec", "matchingPrecedence"]),
                or_none(f, &["spec", "distinguisherMethod", "type"]),
                age(f, now),
                json!(dangling.map_or("?", |c| str_at(c, &["status"]))),
            ]
        },
    },
    Printer {
        group: FLOW,
        plural: "prioritylevelconfigurations",
        columns: &[
            NAME,
            text("Type"),
            text("NominalConcurrencyShares"),
            text("Queues"),
            text("HandSize"),
            text("QueueLengthLimit"),
            AGE,
        ],
        cells: |p, now| {
            let limited = at(p, &["spec", "limited"]).or(at(p, &["spec", "exempt"])).unwrap_or(&Value::Null);
            let shown = |path: &[&str]| json!(int_at(limited, path).map_or(NONE.to_owned(), |n| n.to_string()));
            let queuing = |field: &str| shown(&["limitResponse", "queuing", field]);
            vec![
                name(p),
                json!(str_at(p, &["spec", "type"])),
                shown(&["nominalConcurrencyShares"]),
                queuing("queues"),
                queuing("handSize"),
                queuing("queueLengthLimit"),
                age(p, now),
            ]
        },
    },
];

fn webhooks(c: &Value, now: jiff::Timestamp) -> Vec<Value> {
    vec![name(c), json!(items(c, &["webhooks"]).len()), age(c, now)]
}
