//! Which claims a pod has, whether it may use them, and what of them its containers get. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::state::{Claim, Device};
use crate::pod::{Container, Pod};

/// The claims of a pod: its own name for each and the object's. A claim that turned out not to be needed is left out.
///
/// # Errors
/// The object of a template is not made yet.
pub fn names(pod: &Pod) -> Result<Vec<(String, String)>, String> {
    let statuses = || pod.status["resourceClaimStatuses"].as_array().into_iter().flatten();
    let mut all = Vec::new();
    for claim in &pod.spec.resource_claims {
        if let Some(name) = &claim.resource_claim_name {
            all.push((claim.name.clone(), name.clone()));
            continue;
        }
        let made = statuses().find(|s| s["name"] == claim.name.as_str());
        let made = made.ok_or_else(|| format!("pod claim {:?}: ResourceClaim not created yet", claim.name))?;
        if let Some(name) = made["resourceClaimName"].as_str() {
            all.push((claim.name.clone(), name.to_owned()));
        }
    }
    Ok(all)
}

/// The claim as it is to be prepared for the pod.
///
/// # Errors
/// It is not allocated, or not for this pod.
pub fn wanted(pod: &Pod, object: &Value) -> Result<Claim, String> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (uid, name) = (text("uid"), text("name"));
    let status = &object["status"];
    let mut holders = status["reservedFor"].as_array().into_iter().flatten();
    if !holders.any(|h| h["resource"] == "pods" && h["uid"] == pod.metadata.uid.as_str()) {
        let m = &pod.metadata;
        return Err(format!("pod {} ({}) is not allowed to use ResourceClaim {name} ({uid})", m.name, m.uid));
    }
    let Some(results) = status["allocation"]["devices"]["results"].as_array() else {
        return Err(format!("ResourceClaim {name} ({uid}) is not allocated"));
    };
    let drivers = results.iter().filter_map(|r| r["driver"].as_str()).map(|d| (d.to_owned(), Vec::new()));
    Ok(Claim {
        uid,
        name,
        namespace: text("namespace"),
        pods: BTreeSet::from([pod.metadata.uid.clone()]),
        drivers: drivers.collect(),
    })
}

/// Whether a device is for a container's part of a claim: `request` names one request of it, or all if it is empty. A
/// device of an alternative (`request/alternative`) is one of its request.
fn serves(device: &Device, request: &str) -> bool {
    let of = |name: &String| name == request || name.split_once('/').is_some_and(|(parent, _)| parent == request);
    request.is_empty() || device.request_names.is_empty() || device.request_names.iter().any(of)
}

/// What a container gets of one claim: driver and device.
pub type Given<'a> = (&'a Claim, Vec<(&'a str, &'a Device)>);

/// What a container gets of its pod's claims.
///
/// # Errors
/// A claim that it names is not prepared.
pub fn given<'a>(
    pod: &Pod,
    container: &Container,
    claims: &'a BTreeMap<(String, String), Claim>,
) -> Result<Vec<Given<'a>>, String> {
    if container.resources.claims.is_empty() {
        return Ok(Vec::new());
    }
    let names = names(pod)?;
    let mut all = Vec::new();
    for part in &container.resources.claims {
        for (_, name) in names.iter().filter(|(own, _)| *own == part.name) {
            let namespace = &pod.metadata.namespace;
            let claim = claims
                .get(&(namespace.clone(), name.clone()))
                .ok_or_else(|| format!("unable to get claim info for claim {name} in namespace {namespace}"))?;
            let devices = claim.drivers.iter().flat_map(|(driver, d)| d.iter().map(move |d| (driver.as_str(), d)));
            all.push((claim, devices.filter(|(_, d)| serves(d, &part.request)).collect()));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        let spec = json!({
            "resourceClaims": [
                {"name": "own", "resourceClaimName": "shared"},
                {"name": "made", "resourceClaimTemplateName": "t"},
                {"name": "unneeded", "resourceClaimTemplateName": "t"},
            ],
            "containers": [
                {"name": "all", "resources": {"claims": [{"name": "own"}, {"name": "unneeded"}]}},
                {"name": "one", "resources": {"claims": [{"name": "own", "request": "gpu"}]}},
                {"name": "none"},
            ],
        });
        let statuses = json!([{"name": "made", "resourceClaimName": "p-made-x"}, {"name": "unneeded"}]);
        let object = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec,
            "status": {"resourceClaimStatuses": statuses}});
        Pod::from_value(&object).unwrap()
    }

    fn device(name: &str, requests: &[&str]) -> Device {
        let request_names = requests.iter().map(|r| (*r).to_owned()).collect();
        Device { device_name: name.into(), request_names, ..Device::default() }
    }

    #[test]
    fn claims_are_named_by_the_pod_or_by_its_status() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(names(&pod()).unwrap(), [pair("own", "shared"), pair("made", "p-made-x")]);
        let mut early = pod();
        early.status = Value::Null;
        assert_eq!(names(&early).unwrap_err(), "pod claim \"made\": ResourceClaim not created yet");
    }

    #[test]
    fn only_an_allocated_claim_that_is_reserved_for_the_pod_is_prepared() {
        let claim = |reserved: &str, status: Value| {
            let mut object = json!({"metadata": {"name": "c", "namespace": "n", "uid": "cu"}, "status": status});
            object["status"]["reservedFor"] = json!([{"resource": "pods", "name": "p", "uid": reserved}]);
            wanted(&pod(), &object)
        };
        let results = json!([{"driver": "a"}, {"driver": "b"}, {"driver": "a"}]);
        let allocated = json!({"allocation": {"devices": {"results": results}}});
        let drivers: Vec<String> = claim("u", allocated.clone()).unwrap().drivers.into_keys().collect();
        assert_eq!(drivers, ["a", "b"]);
        assert!(claim("other", allocated).unwrap_err().contains("is not allowed to use ResourceClaim c"));
        assert!(claim("u", json!({})).unwrap_err().contains("is not allocated"));
    }

    #[test]
    fn containers_get_the_devices_of_their_requests() {
        let devices = vec![device("a", &["gpu/big"]), device("b", &["nic"]), device("c", &[])];
        let claim = Claim { drivers: [("d".to_owned(), devices)].into(), ..Claim::default() };
        let claims = BTreeMap::from([(("n".to_owned(), "shared".to_owned()), claim)]);
        let pod = pod();
        let of = |index: usize| -> Vec<String> {
            let all = given(&pod, &pod.spec.containers[index], &claims).unwrap();
            all.into_iter().flat_map(|(_, d)| d).map(|(_, d)| d.device_name.clone()).collect()
        };
        assert_eq!(
            (of(0), of(1), of(2)),
            (vec!["a".into(), "b".into(), "c".into()], vec!["a".into(), "c".into()], vec![])
        );
        let error = given(&pod, &pod.spec.containers[0], &BTreeMap::new()).unwrap_err();
        assert_eq!(error, "unable to get claim info for claim shared in namespace n");
    }
}
