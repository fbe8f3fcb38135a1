//! Devices for claims on small clusters.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::cache::Cache;
use crate::testing::{cluster, node, pod, run};

fn slice(name: &str, change: impl Fn(&mut Value)) -> (String, SliceObject) {
    let mut slice = json!({"metadata": {"name": name}, "spec": {
        "driver": "gpu.example.com", "pool": {"name": name, "generation": 1, "resourceSliceCount": 1}, "nodeName": name,
        "devices": [
            {"name": "gpu-0", "attributes": {"numa": {"int": 0}, "model": {"string": "a"}}},
            {"name": "gpu-1", "attributes": {"numa": {"int": 1}, "model": {"string": "a"}}},
            {"name": "gpu-2", "attributes": {"gpu.example.com/numa": {"int": 1}, "model": {"string": "b"}}},
        ],
    }});
    change(&mut slice);
    (name.to_owned(), serde_json::from_value(slice).unwrap())
}

fn set(cache: &mut Cache, (name, slice): (String, SliceObject)) {
    cache.devices.set_slice(&name, Some(slice));
}

fn claim(name: &str, devices: Value, status: Value) -> ResourceClaimObject {
    let claim = json!({"metadata": {"namespace": "n", "name": name, "uid": name}, "spec": {"devices": devices}, "status": status});
    serde_json::from_value(claim).unwrap()
}

fn exactly(change: Value) -> Value {
    let mut exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
    for (field, value) in change.as_object().unwrap() {
        exactly[field] = value.clone();
    }
    json!({"requests": [{"name": "r", "exactly": exactly}]})
}

/// Two nodes, `a` with three devices and `b` without any.
fn devices() -> Cache {
    let mut cache = cluster(&[node("a", "4", |_| {}), node("b", "4", |_| {})]);
    set(&mut cache, slice("a", |_| {}));
    cache.devices.set_class("gpu", Some(DeviceClassObject::default()));
    cache
}

fn user(claims: &[&str]) -> Pod {
    pod("p", |pod| {
        let entries: Vec<Value> = claims.iter().map(|c| json!({"name": c, "resourceClaimName": c})).collect();
        pod["spec"]["resourceClaims"] = entries.into();
    })
}

/// The devices that a pod with these claims gets on node `a`.
fn on_a(cache: &Cache, claims: &[&str]) -> Option<Vec<Vec<String>>> {
    let offer = Arc::clone(&cache.node(cache.slot("a").unwrap()).offer);
    let names = |r: &Reservation| {
        let taken = r.allocation.iter().flat_map(|a| list(&a.status, "/devices/results"));
        taken.map(|result| text(result, "/device").to_owned()).collect()
    };
    Some(cache.devices.reservations(&user(claims), &offer)?.iter().map(names).collect())
}

#[test]
fn requests_get_what_they_ask_for() {
    let count = |count: u64| exactly(json!({"count": count}));
    let all = exactly(json!({"allocationMode": "All"}));
    let matched = |count: u64, attribute: &str| {
        let mut devices = exactly(json!({"count": count}));
        devices["constraints"] = json!([{"matchAttribute": attribute}]);
        devices
    };
    let either = json!({"requests": [{"name": "r", "firstAvailable": [
        {"name": "four", "deviceClassName": "gpu", "count": 4}, {"name": "one", "deviceClassName": "gpu", "count": 1}]}]});
    let cases: [(&str, Value, Option<&[&str]>); 9] = [
        ("one", count(1), Some(&["gpu-0"])),
        ("three", count(3), Some(&["gpu-0", "gpu-1", "gpu-2"])),
        ("too many", count(4), None),
        ("all", all, Some(&["gpu-0", "gpu-1", "gpu-2"])),
        ("of one model", matched(2, "gpu.example.com/model"), Some(&["gpu-0", "gpu-1"])),
        ("of one place, by short and full names", matched(2, "gpu.example.com/numa"), Some(&["gpu-1", "gpu-2"])),
        ("of one place, too many", matched(3, "gpu.example.com/numa"), None),
        ("of an attribute that nobody has", matched(1, "other.example.com/numa"), None),
        ("the second choice", either, Some(&["gpu-0"])),
    ];
    for (what, devices_of, expected) in cases {
        let mut cache = devices();
        cache.devices.set_claim(claim("c", devices_of, json!({})));
        let expected = expected.map(|names| vec![names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()]);
        assert_eq!(on_a(&cache, &["c"]), expected, "{what}");
        let placed = run(&mut cache, &user(&["c"]), &[]).ok();
        assert_eq!(placed.as_deref(), expected.map(|_| "a"), "{what}");
    }
}

#[test]
fn a_device_has_one_user() {
    let mut cache = devices();
    for name in ["c", "d"] {
        cache.devices.set_claim(claim(name, exactly(json!({"count": 2})), json!({})));
    }
    assert_eq!(on_a(&cache, &["c", "d"]), None, "three are not two and two");
    let offer = Arc::clone(&cache.node(cache.slot("a").unwrap()).offer);
    let reservations = cache.devices.reservations(&user(&["c"]), &offer).unwrap();
    cache.devices.assume(&reservations);
    assert_eq!(on_a(&cache, &["d"]), None);
    assert_eq!(
        run(&mut cache, &user(&["d"]), &[]).unwrap_err().message(),
        "0/2 nodes are available: 2 cannot allocate all claims."
    );
    cache.devices.forget(&reservations);
    assert!(on_a(&cache, &["d"]).is_some());
    // Once the API server shows the allocation, it is the claim's own.
    let status = reservations[0].allocation.as_ref().unwrap().status.clone();
    cache.devices.assume(&reservations);
    cache.devices.set_claim(claim("c", exactly(json!({"count": 2})), json!({"allocation": status})));
    assert!(cache.devices.assumed.is_empty());
    assert_eq!(on_a(&cache, &["d"]), None);
    let watching = exactly(json!({"allocationMode": "All", "adminAccess": true}));
    cache.devices.set_claim(claim("d", watching, json!({})));
    assert_eq!(on_a(&cache, &["d"]).unwrap()[0].len(), 3, "administrators share");
    cache.devices.remove_claim("n", "c");
    cache.devices.set_claim(claim("d", exactly(json!({"count": 3})), json!({})));
    assert!(on_a(&cache, &["d"]).is_some());
}

#[test]
fn an_allocated_claim_binds_its_pod_to_its_nodes() {
    let mut cache = devices();
    cache.devices.set_claim(claim("c", exactly(json!({})), json!({})));
    let offer = Arc::clone(&cache.node(cache.slot("a").unwrap()).offer);
    let made = cache.devices.reservations(&user(&["c"]), &offer).unwrap().remove(0).allocation.unwrap();
    let only_a =
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]});
    assert_eq!(made.status["nodeSelector"], only_a);
    cache.devices.set_claim(claim("c", exactly(json!({})), json!({"allocation": made.status})));
    assert_eq!(run(&mut cache, &user(&["c"]), &[]).unwrap(), "a");
    let again = cache.devices.reservations(&user(&["c"]), &offer).unwrap();
    assert_eq!(again[0].allocation, None, "only reserved for one more");
    cache.remove_node("a");
    let refused = run(&mut cache, &user(&["c"]), &[]).unwrap_err();
    assert_eq!(refused.message(), "0/1 nodes are available: 1 resourceclaim not available on the node.");
}

/// What a case changes in the slice.
type Change = fn(&mut Value);

#[test]
fn what_pools_offer() {
    let cases: [(&str, Change, usize); 8] = [
        ("as it is", |_| {}, 3),
        ("a pool that is not complete", |s| s["spec"]["pool"]["resourceSliceCount"] = 2.into(), 0),
        ("another node's", |s| s["spec"]["nodeName"] = "b".into(), 0),
        (
            "everybody's",
            |s| {
                s["spec"]["nodeName"] = "".into();
                s["spec"]["allNodes"] = true.into();
            },
            3,
        ),
        (
            "by labels",
            |s| {
                s["spec"]["nodeName"] = "".into();
                let expression = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]});
                s["spec"]["nodeSelector"] = json!({"nodeSelectorTerms": [{"matchExpressions": [expression]}]});
            },
            3,
        ),
        (
            "each for itself",
            |s| {
                s["spec"]["nodeName"] = "".into();
                s["spec"]["perDeviceNodeSelection"] = true.into();
                s["spec"]["devices"][1]["nodeName"] = "a".into();
            },
            1,
        ),
        ("one is tainted", |s| s["spec"]["devices"][0]["taints"] = json!([{"key": "hot", "effect": "NoSchedule"}]), 2),
        ("one shares counters", |s| s["spec"]["devices"][0]["consumesCounters"] = json!([{"counterSet": "x"}]), 2),
    ];
    for (what, change, expected) in cases {
        let mut cache = devices();
        set(&mut cache, slice("a", change));
        let offer = Arc::clone(&cache.node(cache.slot("a").unwrap()).offer);
        let count = cache.devices.reachable(&offer).iter().filter(|device| device.is_borne(&[])).count();
        assert_eq!(count, expected, "{what}");
    }
    let mut cache = devices();
    let (_, newer) = slice("a", |s| {
        s["spec"]["pool"]["generation"] = 2.into();
        s["spec"]["devices"] = json!([{"name": "new"}]);
    });
    cache.devices.set_slice("a-2", Some(newer));
    cache.devices.set_claim(claim("c", exactly(json!({})), json!({})));
    assert_eq!(on_a(&cache, &["c"]), Some(vec![vec!["new".to_owned()]]), "old generations are gone");
}

#[test]
fn drivers_are_told_what_class_and_claim_say() {
    let mut cache = devices();
    let class = json!({"spec": {"config": [{"opaque": {"driver": "gpu.example.com", "parameters": {"a": 1}}}]}});
    cache.devices.set_class("gpu", Some(serde_json::from_value(class).unwrap()));
    let mut wanted = exactly(json!({"count": 2}));
    wanted["config"] = json!([{"requests": ["r"], "opaque": {"driver": "gpu.example.com", "parameters": {"b": 2}}}]);
    cache.devices.set_claim(claim("c", wanted, json!({})));
    let offer = Arc::clone(&cache.node(cache.slot("a").unwrap()).offer);
    let made = cache.devices.reservations(&user(&["c"]), &offer).unwrap().remove(0).allocation.unwrap();
    let told: Vec<_> =
        list(&made.status, "/devices/config").iter().map(|c| (text(c, "/source"), &c["requests"][0])).collect();
    assert_eq!(told, [("FromClass", &json!("r")), ("FromClaim", &json!("r"))]);
}

#[test]
fn refusals_name_what_is_wrong() {
    let templated =
        pod("p", |pod| pod["spec"]["resourceClaims"] = json!([{"name": "g", "resourceClaimTemplateName": "t"}]));
    let made = pod("p", |pod| {
        pod["spec"]["resourceClaims"] = json!([{"name": "g", "resourceClaimTemplateName": "t"}]);
        pod["status"]["resourceClaimStatuses"] = json!([{"name": "g", "resourceClaimName": "c"}]);
    });
    let not_needed = pod("p", |pod| {
        pod["spec"]["resourceClaims"] = json!([{"name": "g", "resourceClaimTemplateName": "t"}]);
        pod["status"]["resourceClaimStatuses"] = json!([{"name": "g"}]);
    });
    let partial = exactly(json!({"capacity": {"requests": {"memory": "1Gi"}}}));
    let others: Vec<Value> = (0..RESERVED_MAX).map(|n| json!({"resource": "pods", "uid": n.to_string()})).collect();
    let plain = || exactly(json!({}));
    let cases = [
        (user(&["c"]), None, "resourceclaim \"c\" not found"),
        (templated, None, "pod \"n/p\": ResourceClaim not created yet"),
        (
            made,
            Some(claim("c", plain(), json!({}))),
            "ResourceClaim n/c was not created for pod n/p (pod is not owner)",
        ),
        (not_needed, None, ""),
        (
            user(&["c"]),
            Some(claim("c", exactly(json!({"deviceClassName": "x"})), json!({}))),
            "request r: device class x does not exist",
        ),
        (
            user(&["c"]),
            Some(claim("c", partial, json!({}))),
            "request r: asks for a part of a device's capacity, which is not supported",
        ),
        (
            user(&["c"]),
            Some(claim("c", plain(), json!({"allocation": {"devices": {"results": []}}, "reservedFor": others}))),
            "resourceclaim in use",
        ),
    ];
    for (pod, claim, expected) in cases {
        let mut cache = devices();
        if let Some(claim) = claim {
            cache.devices.set_claim(claim);
        }
        match run(&mut cache, &pod, &[]) {
            Ok(_) => assert_eq!(expected, ""),
            Err(refused) => assert_eq!(refused.message(), format!("0/2 nodes are available: {expected}.")),
        }
    }
}

#[test]
fn expressions_select_devices() {
    /// The devices, or why there are none.
    type Picked<'a> = Result<&'a [&'a str], &'a str>;
    let by = |expression: &str| exactly(json!({"selectors": [{"cel": {"expression": expression}}]}));
    let attribute = |what: &str| format!("device.attributes[\"gpu.example.com\"].{what}");
    let cases: [(&str, String, &str, Picked<'_>); 8] = [
        ("a value", attribute("model == \"b\""), "true", Ok(&["gpu-2"])),
        ("by its full name", attribute("numa == 1"), "true", Ok(&["gpu-1"])),
        ("the class's too", attribute("numa == 1"), &attribute("model == \"b\""), Ok(&["gpu-2"])),
        ("nothing", attribute("numa == 7"), "true", Err("2 cannot allocate all claims")),
        ("the class's alone", "true".into(), "device.driver == \"x\"", Err("2 cannot allocate all claims")),
        (
            "no answer",
            attribute("size > 1"),
            "true",
            Err("1 claim n/c: selector #0: CEL runtime error: no such key: size"),
        ),
        (
            "no answer of the class",
            "true".into(),
            &attribute("size > 1"),
            Err("1 class gpu: selector #0: CEL runtime error: no such key: size"),
        ),
        ("an answer without the attribute", attribute("?size.orValue(2) > 1"), "true", Ok(&["gpu-0"])),
    ];
    for (what, of_claim, of_class, expected) in cases {
        let mut cache = devices();
        let class = json!({"metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression": of_class}}]}});
        cache.devices.set_class("gpu", Some(serde_json::from_value(class).unwrap()));
        cache.devices.set_claim(claim("c", by(&of_claim), json!({})));
        match expected {
            Ok(names) => {
                let names = names.iter().map(|name| (*name).to_owned()).collect();
                assert_eq!(on_a(&cache, &["c"]), Some(vec![names]), "{what}");
            }
            Err(reason) => {
                let refused = run(&mut cache, &user(&["c"]), &[]).unwrap_err().message();
                assert!(refused.contains(reason), "{what}: {refused}");
            }
        }
    }
    // All that suit, and a device that changed is judged anew.
    let mut cache = devices();
    let mut all = by(&attribute("numa == 1"));
    all["requests"][0]["exactly"]["allocationMode"] = "All".into();
    cache.devices.set_claim(claim("c", all, json!({})));
    assert_eq!(on_a(&cache, &["c"]).unwrap()[0], ["gpu-1", "gpu-2"]);
    set(&mut cache, slice("a", |s| s["spec"]["devices"][0]["attributes"]["numa"]["int"] = 1.into()));
    assert_eq!(on_a(&cache, &["c"]).unwrap()[0], ["gpu-0", "gpu-1", "gpu-2"]);
}
