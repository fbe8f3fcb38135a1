//! HorizontalPodAutoscalers.

use apimachinery::meta;
use serde_json::{Value, json};

use super::cells::{NONE, age, int, name};
use super::{AGE, NAME, Printer, text};
use crate::registry::strategy::autoscaling::to_v2;
use crate::registry::strategy::tree::{at, int_at, items, str_at};

/// How many metrics are shown before the rest is only counted.
const SHOWN: usize = 2;

pub static PRINTERS: &[Printer] = &[Printer {
    group: "autoscaling",
    plural: "horizontalpodautoscalers",
    columns: &[NAME, text("Reference"), text("Targets"), text("MinPods"), text("MaxPods"), text("Replicas"), AGE],
    cells: |h, now| {
        let mut newer = h.clone();
        if meta::api_version(h) == "autoscaling/v1" {
            to_v2(&mut newer);
        }
        let h = &newer;
        let about = |field: &str| str_at(h, &["spec", "scaleTargetRef", field]);
        let min = int_at(h, &["spec", "minReplicas"]).map_or("<unset>".to_owned(), |n| n.to_string());
        vec![
            name(h),
            json!(format!("{}/{}", about("kind"), about("name"))),
            json!(targets(items(h, &["spec", "metrics"]), items(h, &["status", "currentMetrics"]))),
            json!(min),
            int(h, &["spec", "maxReplicas"]),
            int(h, &["status", "currentReplicas"]),
            age(h, now),
        ]
    },
}];

fn targets(specs: &[Value], statuses: &[Value]) -> String {
    if specs.is_empty() {
        return NONE.to_owned();
    }
    let shown: Vec<String> = specs.iter().enumerate().take(SHOWN).map(|(i, s)| target(s, statuses.get(i))).collect();
    let rest = specs.len().saturating_sub(SHOWN);
    let more = if rest > 0 { format!(" + {rest} more...") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// `measured/wanted` of one metric.
fn target(spec: &Value, status: Option<&Value>) -> String {
    let source = match str_at(spec, &["type"]) {
        "ContainerResource" => "containerResource",
        "External" => "external",
        "Object" => "object",
        "Pods" => "pods",
        _ => "resource",
    };
    let (wanted, current) = (at(spec, &[source, "target"]), status.and_then(|s| at(s, &[source, "current"])));
    let read = |v: Option<&Value>, field: &str| v.map_or("", |v| str_at(v, &[field])).to_owned();
    let percent = |v: Option<&Value>| v.and_then(|v| int_at(v, &["averageUtilization"])).map(|n| format!("{n}%"));
    let field = if read(wanted, "averageValue").is_empty() { "value" } else { "averageValue" };
    let (is, should) = match percent(wanted) {
        Some(should) => (percent(current).unwrap_or_default(), should),
        None => (read(current, field), read(wanted, field)),
    };
    let average = if percent(wanted).is_none() && field == "averageValue" && source != "pods" && source != "resource" {
        " (avg)"
    } else {
        ""
    };
    let is = if is.is_empty() { "<unknown>" } else { &is };
    match source {
        "resource" | "containerResource" => format!("{}: {is}/{should}{average}", str_at(spec, &[source, "name"])),
        _ => format!("{is}/{should}{average}"),
    }
}
