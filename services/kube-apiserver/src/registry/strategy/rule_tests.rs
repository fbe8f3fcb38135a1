//! The tables in `rules`: per kind a valid object and rows that break one rule each. A row is what is done (`create`, `update`, or
//! an update of a subresource by its name), where, the new value (`null` takes it away), and after ` => ` the error that must be
//! among those found, or `ok` for none at all. A `-` for where and `-` for the value leave the object as it is.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use super::Kind;
use super::{
    autoscaling, batch, certificate, config, csi, device, endpoints, event, extension, flow, namespace, network, node,
    plain, pod, quota, rbac, service, volume, workload,
};
use crate::registry::Strategy;

fn kind(name: &str) -> &'static Kind {
    match name {
        "Pod" => &pod::POD,
        "Service" => &service::SERVICE,
        "Deployment" => &workload::DEPLOYMENT,
        "StatefulSet" => &workload::STATEFUL_SET,
        "DaemonSet" => &workload::DAEMON_SET,
        "Job" => &batch::JOB,
        "CronJob" => &batch::CRON_JOB,
        "PersistentVolume" => &volume::PERSISTENT_VOLUME,
        "PersistentVolumeClaim" => &volume::PERSISTENT_VOLUME_CLAIM,
        "StorageClass" => &volume::STORAGE_CLASS,
        "CSIDriver" => &csi::CSI_DRIVER,
        "Node" => &node::NODE,
        "Namespace" => &namespace::NAMESPACE,
        "Ingress" => &network::INGRESS,
        "NetworkPolicy" => &network::NETWORK_POLICY,
        "ServiceCIDR" => &network::SERVICE_CIDR,
        "HorizontalPodAutoscaler" => &autoscaling::AUTOSCALER_V2,
        "PodDisruptionBudget" => &plain::POD_DISRUPTION_BUDGET,
        "RoleBinding" => &rbac::ROLE_BINDING,
        "CertificateSigningRequest" => &certificate::CERTIFICATE_SIGNING_REQUEST,
        "ResourceQuota" => &quota::RESOURCE_QUOTA,
        "LimitRange" => &quota::LIMIT_RANGE,
        "Secret" => &config::SECRET,
        "ConfigMap" => &config::CONFIG_MAP,
        "FlowSchema" => &flow::FLOW_SCHEMA,
        "PriorityLevelConfiguration" => &flow::PRIORITY_LEVEL,
        "ValidatingWebhookConfiguration" => &extension::VALIDATING_WEBHOOKS,
        "EndpointSlice" => &endpoints::ENDPOINT_SLICE,
        "Endpoints" => &endpoints::ENDPOINTS,
        "Event" => &event::EVENT,
        "DeviceClass" => &device::DEVICE_CLASS,
        "ResourceClaim" => &device::RESOURCE_CLAIM,
        "ResourceClaimTemplate" => &device::RESOURCE_CLAIM_TEMPLATE,
        "ResourceSlice" => &device::RESOURCE_SLICE,
        other => panic!("no kind {other}"),
    }
}

/// Sets what a pointer names, and what is missing on the way there.
fn put(object: &mut Value, pointer: &str, value: Value) {
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
    let mut here = object;
    for part in parent.split('/').skip(1) {
        here = match (part.parse::<usize>(), here.is_array()) {
            (Ok(i), true) => &mut here[i],
            _ => &mut here[part.replace("~1", "/")],
        };
    }
    match (last.parse::<usize>(), here) {
        (Ok(i), Value::Array(list)) if i == list.len() => list.push(value),
        (Ok(i), Value::Array(list)) => list[i] = value,
        (_, Value::Object(map)) if value.is_null() => drop(map.remove(&last.replace("~1", "/"))),
        (_, here) => here[last.replace("~1", "/")] = value,
    }
}

/// What is wrong with a row, nothing if it holds.
fn broken(kind: &Kind, valid: &Value, row: &str) -> Option<String> {
    let (what, want) = row.split_once(" => ").expect("an arrow");
    let mut parts = what.splitn(3, ' ');
    let (verb, pointer, value) = (parts.next()?, parts.next()?, parts.next()?.trim());
    let mut object = valid.clone();
    if pointer != "-" {
        put(&mut object, pointer, serde_json::from_str(value).unwrap_or_else(|e| panic!("{row}: {e}")));
    }
    let errors = match verb {
        "create" => kind.validate(&object),
        "update" => kind.validate_update(None, &object, valid),
        sub => kind.validate_update(Some(sub), &object, valid),
    };
    let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let fits = if want == "ok" { found.is_empty() } else { found.iter().any(|e| e == want) };
    (!fits).then(|| format!("{row}\n    found {found:#?}\n"))
}

#[test]
fn every_row_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/registry/strategy/rules");
    let (mut rows, mut wrong) = (0, String::new());
    for file in std::fs::read_dir(folder).expect("the tables") {
        let path = file.expect("a file").path();
        let (mut of, mut valid) = (&pod::POD, Value::Null);
        for line in std::fs::read_to_string(&path).expect("text").lines().map(str::trim) {
            if line.is_empty() {
                continue;
            }
            if let Some(name) = line.strip_prefix("# ") {
                of = kind(name);
            } else if line.starts_with('{') {
                valid = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
                (of.defaults)(&mut valid);
                let errors: Vec<String> = of.validate(&valid).iter().map(ToString::to_string).collect();
                if !errors.is_empty() {
                    let _ = writeln!(wrong, "{}: not valid: {line}\n    {errors:#?}", path.display());
                }
            } else {
                rows += 1;
                wrong.extend(broken(of, &valid, line));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(rows > 100, "{rows} rows");
}
