//! Allocation, case by case.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Pool;
use super::plan::{ADDRESSES, MARK, POOL, Verdict, plan};
use super::range::PoolError;

fn pools(text: &[&str]) -> Vec<Pool> {
    text.iter().map(|pool| pool.parse().unwrap()).collect()
}

/// A load balancer with what differs; `has` are its addresses, which we gave it.
fn service(name: &str, spec: &Value, annotations: &Value, has: &[&str]) -> Arc<Value> {
    let mut service = json!({
        "metadata": {"namespace": "n", "name": name, "creationTimestamp": name, "annotations": annotations},
        "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"]},
    });
    for (field, value) in spec.as_object().unwrap() {
        service["spec"][field] = value.clone();
    }
    let ingress: Vec<Value> = has.iter().map(|ip| json!({"ip": ip})).collect();
    if !ingress.is_empty() {
        service["status"] =
            json!({"conditions": [{"type": MARK, "status": "True"}], "loadBalancer": {"ingress": ingress}});
    }
    Arc::new(service)
}

fn decide(services: &[Arc<Value>], from: &[&str]) -> Vec<String> {
    let shown = |(service, verdict): (Arc<Value>, Verdict)| {
        let name = service["metadata"]["name"].as_str().unwrap().to_owned();
        match verdict {
            Verdict::Assign(ips) => ips.iter().fold(name, |text, ip| format!("{text} {ip}")),
            Verdict::Release => format!("{name} -"),
            Verdict::Refuse(why) => format!("{name}: {why}"),
        }
    };
    plan(services, &pools(from)).into_iter().map(shown).collect()
}

#[test]
fn the_oldest_service_gets_the_first_free_address() {
    let plain = |name, has: &[&str]| service(name, &json!({}), &json!({}), has);
    let pool = ["a=192.0.2.1-192.0.2.2"];
    assert_eq!(decide(&[plain("2", &[]), plain("1", &[])], &pool), ["1 192.0.2.1", "2 192.0.2.2"]);
    assert!(decide(&[plain("1", &["192.0.2.2"])], &pool).is_empty(), "what it has stays");
    assert_eq!(decide(&[plain("1", &[]), plain("2", &["192.0.2.1"])], &pool), ["1 192.0.2.2"]);
    let full = [plain("1", &["192.0.2.1"]), plain("2", &["192.0.2.2"]), plain("3", &[])];
    assert_eq!(decide(&full, &pool), ["3: the address pools have no free IPv4 address"]);
}

#[test]
fn what_is_wrong_at_the_start_is_repaired() {
    let plain = |name, has: &[&str]| service(name, &json!({}), &json!({}), has);
    let pool = ["a=192.0.2.0/30"];
    assert_eq!(decide(&[plain("1", &["192.0.2.0"]), plain("2", &["192.0.2.0"])], &pool), ["2 192.0.2.1"], "twice");
    assert_eq!(decide(&[plain("1", &["198.51.100.1"])], &pool), ["1 192.0.2.0"], "from a pool that is gone");
    let former = service("1", &json!({"type": "ClusterIP"}), &json!({}), &["192.0.2.0"]);
    assert_eq!(decide(&[former], &pool), ["1 -"]);
    let unmarked = |ip: &str, spec: Value| {
        let mut service = (*service("1", &spec, &json!({}), &[ip])).clone();
        service["status"]["conditions"] = json!([{"type": "Other", "status": "True"}]);
        Arc::new(service)
    };
    assert_eq!(decide(&[unmarked("192.0.2.2", json!({}))], &pool), ["1 192.0.2.2"], "marked with what it has");
    assert!(decide(&[unmarked("192.0.2.2", json!({"type": "ClusterIP"}))], &pool).is_empty(), "another's");
    let foreign = service("1", &json!({"loadBalancerClass": "example.com/x"}), &json!({}), &["192.0.2.0"]);
    assert!(decide(&[foreign], &pool).is_empty());
}

#[test]
fn requests_are_honoured_or_refused_with_the_field_that_asks() {
    let from = ["a=192.0.2.1", "b=198.51.100.0/29,2001:db8::/126"];
    let cases = [
        (json!({"loadBalancerIP": "198.51.100.3"}), json!({}), "1 198.51.100.3"),
        (json!({"loadBalancerClass": "corten.dev/l2"}), json!({}), "1 192.0.2.1"),
        (json!({}), json!({POOL: "b"}), "1 198.51.100.0"),
        (json!({}), json!({POOL: "c"}), "1: there is no address pool \"c\" (annotation corten.dev/load-balancer-pool)"),
        (json!({}), json!({ADDRESSES: "198.51.100.4, 2001:db8::1"}), "1 198.51.100.4 2001:db8::1"),
        (
            json!({"loadBalancerIP": "10.0.0.1"}),
            json!({}),
            "1: spec.loadBalancerIP: 10.0.0.1 is in none of the address pools it may be taken from",
        ),
        (json!({"loadBalancerIP": "x"}), json!({}), "1: spec.loadBalancerIP: \"x\" is not an IP address"),
        (json!({"ipFamilies": ["IPv6"]}), json!({}), "1 2001:db8::"),
        (
            json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}),
            json!({}),
            "1 192.0.2.1 2001:db8::",
        ),
        (
            json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}),
            json!({POOL: "a"}),
            "1: the address pools have no free IPv6 address",
        ),
        (
            json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"}),
            json!({POOL: "a"}),
            "1 192.0.2.1",
        ),
    ];
    for (spec, annotations, expected) in cases {
        assert_eq!(decide(&[service("1", &spec, &annotations, &[])], &from), [expected], "{spec} {annotations}");
    }
    let owner = service("1", &json!({}), &json!({}), &["192.0.2.1"]);
    let rival = service("2", &json!({"loadBalancerIP": "192.0.2.1"}), &json!({}), &[]);
    assert_eq!(decide(&[owner, rival], &from), ["2: 192.0.2.1 belongs to another Service"]);
    let none = "1: no address pools are configured (cluster.loadBalancerPools of the machine configuration)";
    assert_eq!(decide(&[service("1", &json!({}), &json!({}), &[])], &[]), [none]);
}

#[test]
fn pools_that_are_no_pools() {
    let cases = [
        ("a", PoolError::Form),
        ("=192.0.2.1", PoolError::Form),
        ("a=192.0.2.9-192.0.2.1", PoolError::Range("192.0.2.9-192.0.2.1".to_owned())),
        ("a=192.0.2.1,b", PoolError::Range("b".to_owned())),
    ];
    for (text, error) in cases {
        assert_eq!(text.parse::<Pool>(), Err(error), "{text}");
    }
}
