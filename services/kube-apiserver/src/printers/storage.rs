//! Volumes and their classes.

use serde_json::{Value, json};

use super::cells::{age, name};
use super::{AGE, NAME, Printer, text, wide};
use crate::registry::strategy::tree::{at, bool_at, items, str_at};

pub static PRINTERS: &[Printer] = &[
    Printer {
        group: "",
        plural: "persistentvolumes",
        columns: &[
            NAME,
            text("Capacity"),
            text("Access Modes"),
            text("Reclaim Policy"),
            text("Status"),
            text("Claim"),
            text("StorageClass"),
            text("VolumeAttributesClass"),
            text("Reason"),
            AGE,
            wide("VolumeMode"),
        ],
        cells: |v, now| {
            let claim = at(v, &["spec", "claimRef"])
                .map_or(String::new(), |c| format!("{}/{}", str_at(c, &["namespace"]), str_at(c, &["name"])));
            vec![
                name(v),
                json!(str_at(v, &["spec", "capacity", "storage"])),
                modes(items(v, &["spec", "accessModes"])),
                json!(str_at(v, &["spec", "persistentVolumeReclaimPolicy"])),
                json!(phase(v)),
                json!(claim),
                json!(str_at(v, &["spec", "storageClassName"])),
                json!(or_unset(str_at(v, &["spec", "volumeAttributesClassName"]))),
                json!(str_at(v, &["status", "reason"])),
                age(v, now),
                json!(or_unset(str_at(v, &["spec", "volumeMode"]))),
            ]
        },
    },
    Printer {
        group: "",
        plural: "persistentvolumeclaims",
        columns: &[
            NAME,
            text("Status"),
            text("Volume"),
            text("Capacity"),
            text("Access Modes"),
            text("StorageClass"),
            text("VolumeAttributesClass"),
            AGE,
            wide("VolumeMode"),
        ],
        cells: |c, now| {
            let bound = !str_at(c, &["spec", "volumeName"]).is_empty();
            vec![
                name(c),
                json!(phase(c)),
                json!(str_at(c, &["spec", "volumeName"])),
                json!(if bound { str_at(c, &["status", "capacity", "storage"]) } else { "" }),
                if bound { modes(items(c, &["status", "accessModes"])) } else { json!("") },
                json!(str_at(c, &["spec", "storageClassName"])),
                json!(or_unset(str_at(c, &["spec", "volumeAttributesClassName"]))),
                age(c, now),
                json!(or_unset(str_at(c, &["spec", "volumeMode"]))),
            ]
        },
    },
    Printer {
        group: "storage.k8s.io",
        plural: "storageclasses",
        columns: &[
            NAME,
            text("Provisioner"),
            text("ReclaimPolicy"),
            text("VolumeBindingMode"),
            text("AllowVolumeExpansion"),
            AGE,
        ],
        cells: |s, now| {
            let mut shown = str_at(s, &["metadata", "name"]).to_owned();
            if str_at(s, &["metadata", "annotations", "storageclass.kubernetes.io/is-default-class"]) == "true" {
                shown.push_str(" (default)");
            }
            vec![
                json!(shown),
                json!(str_at(s, &["provisioner"])),
                json!(str_at(s, &["reclaimPolicy"])),
                json!(str_at(s, &["volumeBindingMode"])),
                json!(bool_at(s, &["allowVolumeExpansion"]).to_string()),
                age(s, now),
            ]
        },
    },
];

fn phase(v: &Value) -> &str {
    if apimachinery::meta::deletion_timestamp(v).is_some() { "Terminating" } else { str_at(v, &["status", "phase"]) }
}

fn or_unset(text: &str) -> &str {
    if text.is_empty() { "<unset>" } else { text }
}

fn modes(modes: &[Value]) -> Value {
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let shown: Vec<&str> = short.iter().filter(|(long, _)| modes.iter().any(|m| m == long)).map(|(_, s)| *s).collect();
    json!(shown.join(","))
}
