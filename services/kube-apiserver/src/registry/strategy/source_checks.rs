//! Where the bytes of a volume are, in pods and in PersistentVolumes: one table of what each kind of source cannot do without, and the
//! few that have more rules. Paths are the ones clients know, with their old misspellings.

use serde_json::{Value, json};

use super::checks::{dns_label, dns_subdomain, driver_name, named, one_of, optional_named, required, required_named};
use super::container_checks::local_path;
use super::tree::{at, bool_at, has, int_at, items, map_at, str_at};
use crate::errors::FieldError;

/// Kinds of sources in the order in which they are counted, and the texts they need.
const NEEDED: [(&str, &[&str]); 31] = [
    ("emptyDir", &[]),
    ("hostPath", &["path"]),
    ("gitRepo", &["repository"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("secret", &["secretName"]),
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("flocker", &[]),
    ("persistentVolumeClaim", &["claimName"]),
    ("rbd", &["image"]),
    ("cinder", &["volumeID"]),
    ("cephfs", &[]),
    ("quobyte", &["volume"]),
    ("downwardAPI", &[]),
    ("fc", &[]),
    ("flexVolume", &["driver"]),
    ("configMap", &["name"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("storageos", &[]),
    ("projected", &[]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("local", &["path"]),
    ("csi", &[]),
    ("ephemeral", &[]),
    ("image", &[]),
];
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
/// Sources that name a Secret, and would like it in a namespace where they outlive pods.
const WITH_SECRET: [&str; 2] = ["cinder", "storageos"];

/// What the field is called in messages.
fn shown(kind: &str) -> &str {
    match kind {
        "gcePersistentDisk" => "persistentDisk",
        other => other,
    }
}

/// Exactly one of the sources under `holder`, whose other fields `foreign` knows. Returns its name.
pub fn exactly_one<'a>(
    errors: &mut Vec<FieldError>,
    path: &str,
    holder: &'a Value,
    foreign: &[&str],
) -> Option<&'a str> {
    let given: Vec<&str> = holder
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(k, v)| !foreign.contains(&k.as_str()) && !v.is_null())
        .map(|(k, _)| k.as_str())
        .collect();
    let mut known = NEEDED.iter().filter_map(|(kind, _)| given.iter().copied().find(|g| g == kind));
    let first = known.next();
    for extra in known {
        let name = match extra {
            "cephfs" => "cephFS",
            "downwardAPI" => "downwarAPI",
            other => other,
        };
        errors.push(FieldError::forbidden(format!("{path}.{name}"), "may not specify more than 1 volume type"));
    }
    if first.is_none() {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
    first
}

/// One source; `persistent` where it stands in a PersistentVolume, whose references may lead to other namespaces.
pub fn source(errors: &mut Vec<FieldError>, path: &str, kind: &str, source: &Value, persistent: bool) {
    let path = format!("{path}.{}", shown(kind));
    let needed = NEEDED.iter().find(|(k, _)| *k == kind).map_or(&[][..], |(_, fields)| fields);
    for field in needed {
        required(errors, &format!("{path}.{field}"), str_at(source, &[field]));
    }
    if WITH_SECRET.contains(&kind)
        && let Some(secret) = at(source, &["secretRef"])
    {
        required(errors, &format!("{path}.secretRef.name"), str_at(secret, &["name"]));
        if persistent {
            required(errors, &format!("{path}.secretRef.namespace"), str_at(secret, &["namespace"]));
        }
    }
    match kind {
        "hostPath" | "local" => host(errors, &path, source),
        "gitRepo" => local_path(errors, &format!("{path}.directory"), str_at(source, &["directory"])),
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            if let Some(n) = int_at(source, &["partition"]).filter(|n| !(0..=255).contains(n)) {
                let detail = "must be between 1 and 255, inclusive";
                errors.push(FieldError::invalid(format!("{path}.partition"), n, detail));
            }
        }
        "nfs" if !str_at(source, &["path"]).starts_with('/') => {
            let detail = "must be an absolute path";
            errors.push(FieldError::invalid(format!("{path}.path"), str_at(source, &["path"]), detail));
        }
        "iscsi" => iscsi(errors, &path, source, persistent),
        "glusterfs" => {
            if let Some(namespace) = at(source, &["endpointsNamespace"]).and_then(Value::as_str).filter(|_| persistent)
            {
                named(errors, &format!("{path}.endpointsNamespace"), namespace, dns_label);
            }
        }
        "flocker" => flocker(errors, &path, source),
        "rbd" | "cephfs" if items(source, &["monitors"]).is_empty() => {
            errors.push(FieldError::required(format!("{path}.monitors"), ""));
        }
        "quobyte" => quobyte(errors, &path, source),
        "fc" => fibre(errors, &path, source),
        "flexVolume" => flex(errors, &path, source),
        "azureFile" if persistent && at(source, &["secretNamespace"]).is_some_and(|v| v == "") => {
            errors.push(FieldError::required(format!("{path}.secretNamespace"), ""));
        }
        "azureDisk" => azure_disk(errors, &path, source),
        "storageos" => {
            required_named(errors, &format!("{path}.volumeName"), str_at(source, &["volumeName"]), dns_label);
            let namespace = str_at(source, &["volumeNamespace"]);
            optional_named(errors, &format!("{path}.volumeNamespace"), namespace, dns_label);
        }
        "csi" if persistent => csi_persistent(errors, &path, source),
        "csi" => csi(errors, &path, source),
        _ => {}
    }
}

fn host(errors: &mut Vec<FieldError>, path: &str, source: &Value) {
    let place = str_at(source, &["path"]);
    if place.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(format!("{path}.path"), place, "must not contain '..'"));
    }
    one_of(errors, &format!("{path}.type"), str_at(source, &["type"]), &HOST_PATH_TYPES);
}

/// A name of an iSCSI node: `iqn.`, `eui.` or `naa.` and what belongs to each.
fn is_node_name(name: &str) -> bool {
    let hex = |n: usize| {
        let rest = name.get(4..).unwrap_or_default();
        rest.len() == n && rest.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    match name.get(..3) {
        Some("eui") => hex(16),
        Some("naa") => hex(32),
        Some("iqn") => name.get(4..).and_then(|rest| rest.split_once('.')).is_some_and(|(date, rest)| {
            let (authority, unique) = rest.split_once(':').map_or((rest, None), |(a, u)| (a, Some(u)));
            let digits = |t: &str, n: usize| t.len() == n && t.bytes().all(|b| b.is_ascii_digit());
            date.split_once('-').is_some_and(|(y, m)| digits(y, 4) && digits(m, 2))
                && !authority.is_empty()
                && authority.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
                && unique.is_some_and(|u| {
                    !u.is_empty() && !u.contains([',', ';', '*', '&', '$', '|']) && !u.contains(char::is_whitespace)
                })
        }),
        _ => false,
    }
}

fn iscsi(errors: &mut Vec<FieldError>, path: &str, source: &Value, persistent: bool) {
    for (field, place) in [("iqn", "iqn"), ("initiatorName", "initiatorname")] {
        let name = str_at(source, &[field]);
        let start = ["iqn", "eui", "naa"].iter().any(|p| name.starts_with(p));
        let detail = match (start, persistent) {
            _ if name.is_empty() || is_node_name(name) => continue,
            (false, false) => "must be valid format starting with iqn, eui, or naa",
            _ => "must be valid format",
        };
        errors.push(FieldError::invalid(format!("{path}.{place}"), name, detail));
    }
    lun(errors, path, int_at(source, &["lun"]).unwrap_or(0));
    let chap = ["chapAuthDiscovery", "chapAuthSession"].iter().any(|f| bool_at(source, &[f]));
    if chap && at(source, &["secretRef"]).is_none() {
        errors.push(FieldError::required(format!("{path}.secretRef"), ""));
    }
    if persistent && let Some(secret) = at(source, &["secretRef"]) {
        required(errors, &format!("{path}.secretRef.name"), str_at(secret, &["name"]));
    }
}

fn lun(errors: &mut Vec<FieldError>, path: &str, n: i64) {
    if !(0..=255).contains(&n) {
        errors.push(FieldError::invalid(format!("{path}.lun"), n, "must be between 0 and 255, inclusive"));
    }
}

fn flocker(errors: &mut Vec<FieldError>, path: &str, source: &Value) {
    let (name, uuid) = (str_at(source, &["datasetName"]), str_at(source, &["datasetUUID"]));
    if name.is_empty() && uuid.is_empty() {
        errors.push(FieldError::required(path, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let detail = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(FieldError::invalid(path, "resource", detail));
    }
    if name.contains('/') {
        errors.push(FieldError::invalid(format!("{path}.datasetName"), name, "must not contain '/'"));
    }
}

fn quobyte(errors: &mut Vec<FieldError>, path: &str, source: &Value) {
    let (registry, detail) =
        (str_at(source, &["registry"]), "must be a host:port pair or multiple pairs separated by commas");
    let path = format!("{path}.registry");
    if registry.is_empty() {
        errors.push(FieldError::required(path, detail));
        return;
    }
    for pair in registry.split(',') {
        if pair.rsplit_once(':').is_none_or(|(host, _)| host.contains(':') && !host.ends_with(']')) {
            errors.push(FieldError::invalid(path.clone(), registry, detail));
        }
    }
}

fn fibre(errors: &mut Vec<FieldError>, path: &str, source: &Value) {
    let (targets, wwids) = (items(source, &["targetWWNs"]), items(source, &["wwids"]));
    if targets.is_empty() && wwids.is_empty() {
        let detail = "must specify either targetWWNs or wwids, but not both";
        errors.push(FieldError::required(format!("{path}.targetWWNs"), detail));
    }
    if !targets.is_empty() && !wwids.is_empty() {
        let detail = "targetWWNs and wwids can not be specified simultaneously";
        errors.push(FieldError::invalid(format!("{path}.targetWWNs"), targets.to_vec(), detail));
    }
    match int_at(source, &["lun"]).filter(|_| !targets.is_empty()) {
        Some(n) => lun(errors, path, n),
        None if !targets.is_empty() => {
            errors.push(FieldError::required(format!("{path}.lun"), "lun is required if targetWWNs is specified"));
        }
        None => {}
    }
}

fn flex(errors: &mut Vec<FieldError>, path: &str, source: &Value) {
    for (key, _) in map_at(source, &["options"]).into_iter().flatten() {
        let domain = format!(".{}", key.split_once('/').map_or(key.as_str(), |(d, _)| d).to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(FieldError::invalid(format!("{path}.options[{key}]"), key.as_str(), detail));
        }
    }
}

fn azure_disk(errors: &mut Vec<FieldError>, path: &str, source: &Value) {
    let (kind, uri) = (str_at(source, &["kind"]), str_at(source, &["diskURI"]));
    for (field, known) in
        [("cachingMode", ["None", "ReadOnly", "ReadWrite"]), ("kind", ["Dedicated", "Managed", "Shared"])]
    {
        super::checks::optional_one_of(errors, &format!("{path}.{field}"), str_at(source, &[field]), &known);
    }
    let form = match kind {
        "" => return,
        "Managed" if !uri.starts_with("/subscriptions/") => {
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
        }
        "Managed" => return,
        _ if !uri.starts_with("https://") => {
            "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
        }
        _ => return,
    };
    errors.push(FieldError::not_supported(format!("{path}.diskURI"), uri, &[form]));
}

fn csi(errors: &mut Vec<FieldError>, path: &str, source: &Value) {
    driver_name(errors, &format!("{path}.driver"), str_at(source, &["driver"]));
    let Some(secret) = at(source, &["nodePublishSecretRef"]) else { return };
    match str_at(secret, &["name"]) {
        "" => errors.push(FieldError::required(format!("{path}.nodePublishSecretRef.name"), "")),
        name => named(errors, &format!("{path}.name"), name, dns_subdomain),
    }
}

fn csi_persistent(errors: &mut Vec<FieldError>, path: &str, source: &Value) {
    driver_name(errors, &format!("{path}.driver"), str_at(source, &["driver"]));
    required(errors, &format!("{path}.volumeHandle"), str_at(source, &["volumeHandle"]));
    for field in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        let Some(secret) = at(source, &[field]) else { continue };
        required_named(errors, &format!("{path}.{field}.name"), str_at(secret, &["name"]), dns_subdomain);
        required_named(errors, &format!("{path}.{field}.namespace"), str_at(secret, &["namespace"]), dns_label);
    }
}

/// The name of an initiator and a target become one name on the node.
pub fn iscsi_names(errors: &mut Vec<FieldError>, path: &str, value: &str, name: &str, iscsi: &Value) {
    let portal = str_at(iscsi, &["targetPortal"]);
    if has(iscsi, "initiatorName") && name.len() + 1 + portal.len() > 64 {
        let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        errors.push(FieldError::invalid(path, json!(value), detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iscsi_node_names() {
        for good in ["iqn.2015-02.example.com:test", "eui.0123456789ABCDEF", "naa.62004567BA64678D0123456789ABCDEF"] {
            assert!(is_node_name(good), "{good}");
        }
        for bad in
            ["iqn.2015-2.example.com:t", "iqn.2015-02.example.com", "eui.0123", "naa.62", "x", "iqn.2015-02.a:b c"]
        {
            assert!(!is_node_name(bad), "{bad}");
        }
    }

    #[test]
    fn every_source_has_its_rules() {
        let bad = "must be valid format starting with iqn, eui, or naa";
        let table = [
            ("nfs", json!({"server": "s", "path": "p"}), false, "v.nfs.path: Invalid value: \"p\": must be an absolute path".to_owned()),
            ("iscsi", json!({"targetPortal": "t", "iqn": "x"}), false, format!("v.iscsi.iqn: Invalid value: \"x\": {bad}")),
            ("iscsi", json!({"targetPortal": "t", "iqn": "eui.0123456789ABCDEF", "lun": 256}), true,
                "v.iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive".to_owned()),
            ("fc", json!({"targetWWNs": ["a"]}), false, "v.fc.lun: Required value: lun is required if targetWWNs is specified".to_owned()),
            ("flocker", json!({}), false, "v.flocker: Required value: one of datasetName and datasetUUID is required".to_owned()),
            ("rbd", json!({"image": "i"}), false, "v.rbd.monitors: Required value".to_owned()),
            ("gcePersistentDisk", json!({"pdName": ""}), false, "v.persistentDisk.pdName: Required value".to_owned()),
            ("quobyte", json!({"volume": "v", "registry": "host"}), false,
                "v.quobyte.registry: Invalid value: \"host\": must be a host:port pair or multiple pairs separated by commas".to_owned()),
            ("flexVolume", json!({"driver": "d", "options": {"x.k8s.io/a": "b"}}), false,
                "v.flexVolume.options[x.k8s.io/a]: Invalid value: \"x.k8s.io/a\": kubernetes.io and k8s.io namespaces are reserved".to_owned()),
            ("cinder", json!({"volumeID": "v", "secretRef": {"name": "s"}}), true, "v.cinder.secretRef.namespace: Required value".to_owned()),
            ("csi", json!({"driver": "d.example.com"}), true, "v.csi.volumeHandle: Required value".to_owned()),
            ("csi", json!({"driver": "d.example.com", "volumeHandle": "h", "nodeExpandSecretRef": {"name": "s"}}), true,
                "v.csi.nodeExpandSecretRef.namespace: Required value".to_owned()),
            ("azureDisk", json!({"diskName": "d", "diskURI": "x", "kind": "Managed"}), false,
                "v.azureDisk.diskURI: Unsupported value: \"x\": supported values: \"/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}\"".to_owned()),
        ];
        for (kind, value, persistent, want) in table {
            let mut errors = Vec::new();
            source(&mut errors, "v", kind, &value, persistent);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [want], "{kind} {value}");
        }
    }
}
