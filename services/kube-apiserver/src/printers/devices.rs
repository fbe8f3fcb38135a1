//! Devices and storage drivers.

use apimachinery::meta;
use serde_json::json;

use super::cells::{NONE, age, name, or_none};
use super::{AGE, NAME, Printer, number, text};
use crate::registry::strategy::tree::{at, bool_at, items, str_at};

const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";

pub static PRINTERS: &[Printer] = &[
    Printer {
        group: RESOURCE,
        plural: "resourceclaims",
        columns: &[NAME, text("State"), AGE],
        cells: |c, now| {
            let mut states = Vec::new();
            if meta::deletion_timestamp(c).is_some() {
                states.push("deleted");
            }
            let (allocated, reserved) =
                (at(c, &["status", "allocation"]).is_some(), !items(c, &["status", "reservedFor"]).is_empty());
            states.push(if allocated { "allocated" } else { "pending" });
            if reserved {
                states.push("reserved");
            }
            vec![name(c), json!(states.join(",")), age(c, now)]
        },
    },
    Printer {
        group: RESOURCE,
        plural: "resourceslices",
        columns: &[NAME, text("Node"), text("Driver"), text("Pool"), AGE],
        cells: |s, now| {
            let text = |path: &[&str]| json!(str_at(s, path));
            let node = match str_at(s, &["spec", "nodeName"]) {
                "" => "<unset>",
                node => node,
            };
            vec![name(s), json!(node), text(&["spec", "driver"]), text(&["spec", "pool", "name"]), age(s, now)]
        },
    },
    Printer {
        group: STORAGE,
        plural: "csidrivers",
        columns: &[
            NAME,
            text("AttachRequired"),
            text("PodInfoOnMount"),
            text("StorageCapacity"),
            text("TokenRequests"),
            text("RequiresRepublish"),
            text("Modes"),
            AGE,
        ],
        cells: |d, now| {
            let flag = |field: &str| json!(bool_at(d, &["spec", field]));
            let join = |path: &[&str], field: &str| {
                let list = items(d, path).iter();
                let texts: Vec<&str> = list
                    .map(|v| if field.is_empty() { v.as_str().unwrap_or_default() } else { str_at(v, &[field]) })
                    .collect();
                texts.join(",")
            };
            let tokens = join(&["spec", "tokenRequests"], "audience");
            let modes = join(&["spec", "volumeLifecycleModes"], "");
            vec![
                name(d),
                flag("attachRequired"),
                flag("podInfoOnMount"),
                flag("storageCapacity"),
                json!(if tokens.is_empty() { "<unset>" } else { &tokens }),
                flag("requiresRepublish"),
                json!(if modes.is_empty() { NONE } else { &modes }),
                age(d, now),
            ]
        },
    },
    Printer {
        group: STORAGE,
        plural: "csinodes",
        columns: &[NAME, number("Drivers"), AGE],
        cells: |n, now| vec![name(n), json!(items(n, &["spec", "drivers"]).len()), age(n, now)],
    },
    Printer {
        group: STORAGE,
        plural: "csistoragecapacities",
        columns: &[NAME, text("StorageClassName"), text("Capacity")],
        cells: |c, _| {
            let capacity = match str_at(c, &["capacity"]) {
                "" => "<unset>",
                amount => amount,
            };
            vec![name(c), json!(str_at(c, &["storageClassName"])), json!(capacity)]
        },
    },
    Printer {
        group: STORAGE,
        plural: "volumeattachments",
        columns: &[NAME, text("Attacher"), text("PV"), text("Node"), text("Attached"), AGE],
        cells: |a, now| {
            vec![
                name(a),
                json!(str_at(a, &["spec", "attacher"])),
                json!(str_at(a, &["spec", "source", "persistentVolumeName"])),
                json!(str_at(a, &["spec", "nodeName"])),
                json!(bool_at(a, &["status", "attached"]).to_string()),
                age(a, now),
            ]
        },
    },
    Printer {
        group: STORAGE,
        plural: "volumeattributesclasses",
        columns: &[NAME, text("DriverName"), AGE],
        cells: |c, now| vec![name(c), or_none(c, &["driverName"]), age(c, now)],
    },
];
