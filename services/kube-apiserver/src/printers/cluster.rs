//! Nodes, namespaces, configuration, events, leases, priorities, budgets.

use apimachinery::intstr;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, age, int, name, or_none, since};
use super::{AGE, Column, NAME, Printer, number, text, wide};
use crate::registry::strategy::event::from_events_v1;
use crate::registry::strategy::tree::{at, bool_at, int_at, items, map_at, str_at};

pub static PRINTERS: &[Printer] = &[
    Printer {
        group: "",
        plural: "nodes",
        columns: &[
            NAME,
            text("Status"),
            text("Roles"),
            AGE,
            text("Version"),
            wide("Internal-IP"),
            wide("External-IP"),
            wide("OS-Image"),
            wide("Kernel-Version"),
            wide("Container-Runtime"),
        ],
        cells: node,
    },
    Printer {
        group: "",
        plural: "namespaces",
        columns: &[NAME, text("Status"), AGE],
        cells: |n, now| vec![name(n), json!(str_at(n, &["status", "phase"])), age(n, now)],
    },
    Printer {
        group: "",
        plural: "componentstatuses",
        columns: &[NAME, text("Status"), text("Message"), text("Error")],
        cells: |c, _| {
            let healthy = items(c, &["conditions"]).iter().find(|c| str_at(c, &["type"]) == "Healthy");
            let (status, message, error) = healthy.map_or(("Unknown", "", ""), |h| {
                let status = if str_at(h, &["status"]) == "True" { "Healthy" } else { "Unhealthy" };
                (status, str_at(h, &["message"]), str_at(h, &["error"]))
            });
            vec![name(c), json!(status), json!(message), json!(error)]
        },
    },
    Printer {
        group: "",
        plural: "configmaps",
        columns: &[NAME, number("Data"), AGE],
        cells: |c, now| vec![name(c), json!(size(c, "data") + size(c, "binaryData")), age(c, now)],
    },
    Printer {
        group: "",
        plural: "secrets",
        columns: &[NAME, text("Type"), number("Data"), AGE],
        cells: |s, now| vec![name(s), json!(str_at(s, &["type"])), json!(size(s, "data")), age(s, now)],
    },
    Printer {
        group: "",
        plural: "serviceaccounts",
        columns: &[NAME, number("Secrets"), AGE],
        cells: |s, now| vec![name(s), json!(items(s, &["secrets"]).len()), age(s, now)],
    },
    Printer { group: "", plural: "events", columns: EVENT, cells: event },
    Printer {
        group: "events.k8s.io",
        plural: "events",
        columns: EVENT,
        cells: |e, now| {
            let mut core = e.clone();
            from_events_v1(&mut core);
            event(&core, now)
        },
    },
    Printer {
        group: "coordination.k8s.io",
        plural: "leases",
        columns: &[NAME, text("Holder"), AGE],
        cells: |l, now| vec![name(l), json!(str_at(l, &["spec", "holderIdentity"])), age(l, now)],
    },
    Printer {
        group: "scheduling.k8s.io",
        plural: "priorityclasses",
        columns: &[NAME, number("Value"), text("Global-Default"), AGE, text("PreemptionPolicy")],
        cells: |p, now| {
            vec![
                name(p),
                int(p, &["value"]),
                json!(bool_at(p, &["globalDefault"]).to_string()),
                age(p, now),
                json!(str_at(p, &["preemptionPolicy"])),
            ]
        },
    },
    Printer {
        group: "node.k8s.io",
        plural: "runtimeclasses",
        columns: &[NAME, text("Handler"), AGE],
        cells: |r, now| vec![name(r), json!(str_at(r, &["handler"])), age(r, now)],
    },
    Printer {
        group: "policy",
        plural: "poddisruptionbudgets",
        columns: &[NAME, text("Min Available"), text("Max Unavailable"), number("Allowed Disruptions"), AGE],
        cells: |p, now| {
            let bound = |field| at(p, &["spec", field]).map_or("N/A".to_owned(), intstr::to_text);
            vec![
                name(p),
                json!(bound("minAvailable")),
                json!(bound("maxUnavailable")),
                int(p, &["status", "disruptionsAllowed"]),
                age(p, now),
            ]
        },
    },
    Printer {
        group: "",
        plural: "resourcequotas",
        columns: &[NAME, text("Request"), text("Limit"), AGE],
        cells: quota,
    },
    Printer {
        group: "",
        plural: "limitranges",
        columns: &[NAME, text("Created At")],
        cells: |l, _| vec![name(l), json!(apimachinery::meta::creation_timestamp(l))],
    },
    Printer {
        group: "certificates.k8s.io",
        plural: "certificatesigningrequests",
        columns: &[NAME, AGE, text("SignerName"), text("Requestor"), text("RequestedDuration"), text("Condition")],
        cells: request,
    },
];

fn size(object: &Value, field: &str) -> usize {
    map_at(object, &[field]).map_or(0, serde_json::Map::len)
}

fn node(n: &Value, now: Timestamp) -> Vec<Value> {
    let ready = items(n, &["status", "conditions"]).iter().find(|c| str_at(c, &["type"]) == "Ready");
    let mut status = match ready.map(|c| str_at(c, &["status"])) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if bool_at(n, &["spec", "unschedulable"]) {
        status.push_str(",SchedulingDisabled");
    }
    let address = |kind: &str| {
        let found = items(n, &["status", "addresses"]).iter().find(|a| str_at(a, &["type"]) == kind);
        json!(found.map_or(NONE, |a| str_at(a, &["address"])))
    };
    let info = |field: &str| match str_at(n, &["status", "nodeInfo", field]) {
        "" => json!("<unknown>"),
        text => json!(text),
    };
    vec![
        name(n),
        json!(status),
        json!(roles(n)),
        age(n, now),
        json!(str_at(n, &["status", "nodeInfo", "kubeletVersion"])),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn roles(n: &Value) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (k, v) in map_at(n, &["metadata", "labels"]).into_iter().flatten() {
        match k.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => roles.push(role),
            _ if k == "kubernetes.io/role" => roles.extend(v.as_str().filter(|r| !r.is_empty())),
            _ => {}
        }
    }
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }
}

const EVENT: &[Column] = &[
    text("Last Seen"),
    text("Type"),
    text("Reason"),
    text("Object"),
    wide("Subobject"),
    wide("Source"),
    text("Message"),
    wide("First Seen"),
    Column { name: "Count", kind: "integer", wide: true },
    wide("Name"),
];

fn event(e: &Value, now: Timestamp) -> Vec<Value> {
    let pick =
        |fields: [&[&str]; 2]| fields.into_iter().map(|f| str_at(e, f)).find(|t| !t.is_empty()).unwrap_or_default();
    let first = since(pick([&["firstTimestamp"], &["eventTime"]]), now);
    let series = at(e, &["series"]);
    let last = match series {
        Some(s) => since(str_at(s, &["lastObservedTime"]), now),
        None => match str_at(e, &["lastTimestamp"]) {
            "" => first.clone(),
            moment => since(moment, now),
        },
    };
    let count = match series.and_then(|s| int_at(s, &["count"])).or_else(|| int_at(e, &["count"])) {
        None | Some(0) => 1,
        Some(n) => n,
    };
    let component = pick([&["source", "component"], &["reportingComponent"]]);
    let host = pick([&["source", "host"], &["reportingInstance"]]);
    let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    let object =
        format!("{}/{}", str_at(e, &["involvedObject", "kind"]).to_lowercase(), str_at(e, &["involvedObject", "name"]));
    vec![
        json!(last),
        json!(str_at(e, &["type"])),
        json!(str_at(e, &["reason"])),
        json!(object),
        json!(str_at(e, &["involvedObject", "fieldPath"])),
        json!(source),
        json!(str_at(e, &["message"]).trim()),
        json!(first),
        json!(count),
        name(e),
    ]
}

fn quota(q: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in map_at(q, &["status", "hard"]).into_iter().flatten() {
        let used = str_at(q, &["status", "used", resource]);
        let text = format!("{resource}: {used}/{}", hard.as_str().unwrap_or_default());
        if resource.starts_with("limits") { limits.push(text) } else { requests.push(text) }
    }
    vec![name(q), json!(requests.join(", ")), json!(limits.join(", ")), age(q, now)]
}

fn request(c: &Value, now: Timestamp) -> Vec<Value> {
    let has = |kind: &str| items(c, &["status", "conditions"]).iter().any(|x| str_at(x, &["type"]) == kind);
    let mut status: Vec<&str> = ["Approved", "Denied", "Failed"].into_iter().filter(|k| has(k)).collect();
    if status.is_empty() {
        status.push("Pending");
    }
    if !str_at(c, &["status", "certificate"]).is_empty() {
        status.push("Issued");
    }
    let duration = int_at(c, &["spec", "expirationSeconds"]).map_or(NONE.to_owned(), super::cells::human);
    vec![
        name(c),
        age(c, now),
        or_none(c, &["spec", "signerName"]),
        json!(str_at(c, &["spec", "username"])),
        json!(duration),
        json!(status.join(",")),
    ]
}
