//! Workloads.

use apimachinery::time;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, age, human, int, name, or_none, pairs, selector, since, template};
use super::{AGE, NAME, Printer, number, text, wide};
use crate::registry::strategy::tree::{at, bool_at, int_at, items, map_at, str_at};

const TEMPLATE: &[&str] = &["spec", "template", "spec"];

pub static PRINTERS: &[Printer] = &[
    Printer {
        group: "apps",
        plural: "deployments",
        columns: &[
            NAME,
            text("Ready"),
            number("Up-to-date"),
            number("Available"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        cells: |d, now| {
            let row = vec![
                name(d),
                ready(d),
                int(d, &["status", "updatedReplicas"]),
                int(d, &["status", "availableReplicas"]),
                age(d, now),
            ];
            with_template(row, d)
        },
    },
    Printer { group: "apps", plural: "replicasets", columns: SET, cells: |rs, now| with_template(set(rs, now), rs) },
    Printer {
        group: "",
        plural: "replicationcontrollers",
        columns: SET,
        cells: |rc, now| {
            let [containers, images] = template(rc, TEMPLATE);
            let mut row = set(rc, now);
            row.extend([containers, images, json!(pairs(map_at(rc, &["spec", "selector"])))]);
            row
        },
    },
    Printer {
        group: "apps",
        plural: "daemonsets",
        columns: &[
            NAME,
            number("Desired"),
            number("Current"),
            number("Ready"),
            number("Up-to-date"),
            number("Available"),
            text("Node Selector"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        cells: |ds, now| {
            let count = |field| int(ds, &["status", field]);
            let row = vec![
                name(ds),
                count("desiredNumberScheduled"),
                count("currentNumberScheduled"),
                count("numberReady"),
                count("updatedNumberScheduled"),
                count("numberAvailable"),
                json!(pairs(map_at(ds, &["spec", "template", "spec", "nodeSelector"]))),
                age(ds, now),
            ];
            with_template(row, ds)
        },
    },
    Printer {
        group: "apps",
        plural: "statefulsets",
        columns: &[NAME, text("Ready"), AGE, wide("Containers"), wide("Images")],
        cells: |ss, now| {
            let mut row = vec![name(ss), ready(ss), age(ss, now)];
            row.extend(template(ss, TEMPLATE));
            row
        },
    },
    Printer {
        group: "apps",
        plural: "controllerrevisions",
        columns: &[NAME, text("Controller"), number("Revision"), AGE],
        cells: |r, now| {
            let owner = apimachinery::meta::controller_of(r);
            let owner = owner.map_or(NONE.to_owned(), |o| {
                format!("{}.apps/{}", str_at(o, &["kind"]).to_lowercase(), str_at(o, &["name"]))
            });
            vec![name(r), json!(owner), int(r, &["revision"]), age(r, now)]
        },
    },
    Printer {
        group: "batch",
        plural: "jobs",
        columns: &[
            NAME,
            text("Status"),
            text("Completions"),
            text("Duration"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        cells: job,
    },
    Printer {
        group: "batch",
        plural: "cronjobs",
        columns: &[
            NAME,
            text("Schedule"),
            text("Timezone"),
            text("Suspend"),
            number("Active"),
            text("Last Schedule"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        cells: |c, now| {
            let last = str_at(c, &["status", "lastScheduleTime"]);
            let [containers, images] = template(c, &["spec", "jobTemplate", "spec", "template", "spec"]);
            vec![
                name(c),
                json!(str_at(c, &["spec", "schedule"])),
                or_none(c, &["spec", "timeZone"]),
                json!(if bool_at(c, &["spec", "suspend"]) { "True" } else { "False" }),
                json!(items(c, &["status", "active"]).len()),
                json!(if last.is_empty() { NONE.to_owned() } else { since(last, now) }),
                age(c, now),
                containers,
                images,
                json!(selector(at(c, &["spec", "jobTemplate", "spec", "selector"]))),
            ]
        },
    },
    Printer {
        group: "",
        plural: "podtemplates",
        columns: &[NAME, text("Containers"), text("Images"), text("Pod Labels")],
        cells: |t, _| {
            let [containers, images] = template(t, &["template", "spec"]);
            vec![name(t), containers, images, json!(pairs(map_at(t, &["template", "metadata", "labels"])))]
        },
    },
];

const SET: &[super::Column] = &[
    NAME,
    number("Desired"),
    number("Current"),
    number("Ready"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

fn set(rs: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(rs),
        int(rs, &["spec", "replicas"]),
        int(rs, &["status", "replicas"]),
        int(rs, &["status", "readyReplicas"]),
        age(rs, now),
    ]
}

fn ready(w: &Value) -> Value {
    let count = |path: [&str; 2]| int_at(w, &path).unwrap_or(0);
    json!(format!("{}/{}", count(["status", "readyReplicas"]), count(["spec", "replicas"])))
}

fn with_template(mut row: Vec<Value>, w: &Value) -> Vec<Value> {
    row.extend(template(w, TEMPLATE));
    row.push(json!(selector(at(w, &["spec", "selector"]))));
    row
}

fn job(j: &Value, now: Timestamp) -> Vec<Value> {
    let done = int_at(j, &["status", "succeeded"]).unwrap_or(0);
    let completions = match (int_at(j, &["spec", "completions"]), int_at(j, &["spec", "parallelism"]).unwrap_or(0)) {
        (Some(n), _) => format!("{done}/{n}"),
        (None, p) if p > 1 => format!("{done}/1 of {p}"),
        (None, _) => format!("{done}/1"),
    };
    let (start, end) = (str_at(j, &["status", "startTime"]), str_at(j, &["status", "completionTime"]));
    let duration = match (time::parse_rfc3339(start), time::parse_rfc3339(end)) {
        (Err(_), _) => String::new(),
        (Ok(s), Ok(e)) => human(e.as_second() - s.as_second()),
        (Ok(s), Err(_)) => human(now.as_second() - s.as_second()),
    };
    let is = |kind| apimachinery::meta::is_condition_true(j, kind);
    let status = match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if apimachinery::meta::deletion_timestamp(j).is_some() => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    };
    with_template(vec![name(j), json!(status), json!(completions), json!(duration), age(j, now)], j)
}
