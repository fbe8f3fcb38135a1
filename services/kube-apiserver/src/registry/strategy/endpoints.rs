//! Endpoints and EndpointSlices: where a Service's traffic can go.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::checks::{
    IP, dns_label, dns_subdomain, immutable, label_value, labels, named, optional_named, port, qualified_name,
    required_one_of,
};
use super::kind::Kind;
use super::tree::{at, default, each, has, int_at, items, map_at, set, str_at};
use crate::errors::FieldError;

/// Endpoints.
pub static ENDPOINTS: Kind = Kind {
    defaults: |e| each(e, "subsets", |s| each(s, "ports", |p| default(p, "protocol", "TCP"))),
    check: check_endpoints,
    ..Kind::BASE
};

/// EndpointSlice.
pub static ENDPOINT_SLICE: Kind = Kind {
    generation: true,
    defaults: |e| {
        each(e, "ports", |p| {
            default(p, "protocol", "TCP");
            if !has(p, "name") {
                set(p, "name", "");
            }
        });
    },
    check: check_slice,
    check_update: |errors, _, new, old| {
        immutable(errors, "addressType", new.get("addressType"), old.get("addressType"))
    },
    ..Kind::BASE
};

fn check_endpoints(errors: &mut Vec<FieldError>, e: &Value) {
    for (i, s) in items(e, &["subsets"]).iter().enumerate() {
        let path = format!("subsets[{i}]");
        if items(s, &["addresses"]).is_empty() && items(s, &["notReadyAddresses"]).is_empty() {
            errors.push(FieldError::required(path.clone(), "must specify `addresses` or `notReadyAddresses`"));
        }
        for list in ["addresses", "notReadyAddresses"] {
            for (j, a) in items(s, &[list]).iter().enumerate() {
                let ip = str_at(a, &["ip"]);
                address(errors, &format!("{path}.{list}[{j}].ip"), ip);
                let path = format!("{path}.{list}[{j}]");
                optional_named(errors, &format!("{path}.hostname"), str_at(a, &["hostname"]), dns_label);
                if let Some(node) = at(a, &["nodeName"]).and_then(Value::as_str) {
                    named(errors, &format!("{path}.nodeName"), node, dns_subdomain);
                }
            }
        }
        let ports = items(s, &["ports"]);
        for (j, p) in ports.iter().enumerate() {
            let path = format!("{path}.ports[{j}]");
            let name = str_at(p, &["name"]);
            if name.is_empty() && ports.len() > 1 {
                errors.push(FieldError::required(format!("{path}.name"), ""));
            } else if !name.is_empty() {
                named(errors, &format!("{path}.name"), name, dns_label);
            }
            port(errors, &format!("{path}.port"), int_at(p, &["port"]).unwrap_or(0));
            required_one_of(errors, &format!("{path}.protocol"), str_at(p, &["protocol"]), &["SCTP", "TCP", "UDP"]);
            app_protocol(errors, &path, p);
        }
    }
}

fn app_protocol(errors: &mut Vec<FieldError>, path: &str, p: &Value) {
    if let Some(name) = at(p, &["appProtocol"]).and_then(Value::as_str) {
        named(errors, &format!("{path}.appProtocol"), name, qualified_name);
    }
}

fn address(errors: &mut Vec<FieldError>, path: &str, text: &str) {
    match text.parse::<IpAddr>() {
        Err(_) => {
            errors.push(FieldError::invalid(path, text, IP));
            errors.push(FieldError::invalid(path, text, "must be a valid IP address"));
        }
        Ok(ip) => usable(errors, path, text, ip),
    }
}

/// Addresses that lead nowhere in particular, or back to the asker, are no places for traffic.
pub fn usable(errors: &mut Vec<FieldError>, path: &str, text: &str, ip: IpAddr) {
    let local = match ip {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    let multicast = match ip {
        IpAddr::V4(a) => a.octets()[..3] == [224, 0, 0],
        IpAddr::V6(a) => a.segments()[0] & 0xff0f == 0xff02,
    };
    let detail = match ip {
        a if a.is_unspecified() => format!("may not be unspecified ({text})"),
        a if a.is_loopback() => "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned(),
        _ if local => "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned(),
        _ if multicast => "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned(),
        _ => return,
    };
    errors.push(FieldError::invalid(path, text, detail));
}

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const TOPOLOGY_MAX: usize = 16;
const HINTS_MAX: usize = 8;

fn check_slice(errors: &mut Vec<FieldError>, e: &Value) {
    let kind = str_at(e, &["addressType"]);
    required_one_of(errors, "addressType", kind, &["FQDN", "IPv4", "IPv6"]);
    let list = items(e, &["endpoints"]);
    if list.len() > ENDPOINTS_MAX {
        errors.push(FieldError::too_many("endpoints", list.len(), ENDPOINTS_MAX));
    } else {
        list.iter().enumerate().for_each(|(i, ep)| endpoint(errors, &format!("endpoints[{i}]"), kind, ep));
    }
    let ports = items(e, &["ports"]);
    if ports.len() > PORTS_MAX {
        errors.push(FieldError::too_many("ports", ports.len(), PORTS_MAX));
        return;
    }
    let mut names = BTreeSet::new();
    for (i, p) in ports.iter().enumerate() {
        let (path, name) = (format!("ports[{i}]"), str_at(p, &["name"]));
        optional_named(errors, &format!("{path}.name"), name, dns_label);
        if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        required_one_of(errors, &format!("{path}.protocol"), str_at(p, &["protocol"]), &["SCTP", "TCP", "UDP"]);
        app_protocol(errors, &path, p);
    }
}

fn endpoint(errors: &mut Vec<FieldError>, path: &str, kind: &str, ep: &Value) {
    let addresses = items(ep, &["addresses"]);
    let list = format!("{path}.addresses");
    if addresses.is_empty() {
        errors.push(FieldError::required(list.clone(), "must contain at least 1 address"));
    } else if addresses.len() > ADDRESSES_MAX {
        errors.push(FieldError::too_many(list.clone(), addresses.len(), ADDRESSES_MAX));
    }
    for (j, a) in addresses.iter().enumerate() {
        let (path, text) = (format!("{list}[{j}]"), a.as_str().unwrap_or_default());
        match (kind, text.parse::<IpAddr>()) {
            ("IPv4", Ok(IpAddr::V6(_)) | Err(_)) => {
                errors.push(FieldError::invalid(path, text, "must be an IPv4 address"));
            }
            ("IPv6", Ok(IpAddr::V4(_)) | Err(_)) => {
                errors.push(FieldError::invalid(path, text, "must be an IPv6 address"));
            }
            ("IPv4" | "IPv6", Ok(_)) => address(errors, &path, text),
            ("FQDN", _) => domain(errors, &path, text),
            _ => {}
        }
    }
    if let Some(node) = at(ep, &["nodeName"]).and_then(Value::as_str) {
        named(errors, &format!("{path}.nodeName"), node, dns_subdomain);
    }
    let topology = map_at(ep, &["deprecatedTopology"]);
    if let Some(n) = topology.map(serde_json::Map::len).filter(|n| *n > TOPOLOGY_MAX) {
        errors.push(FieldError::too_many(format!("{path}.deprecatedTopology"), n, TOPOLOGY_MAX));
    }
    labels(errors, &format!("{path}.deprecatedTopology"), ep.get("deprecatedTopology"));
    if let Some(host) = at(ep, &["hostname"]).and_then(Value::as_str) {
        named(errors, &format!("{path}.hostname"), host, dns_label);
    }
    hints(errors, &format!("{path}.hints"), ep);
}

/// Where traffic for an endpoint should come from.
fn hints(errors: &mut Vec<FieldError>, path: &str, ep: &Value) {
    for (field, what) in [("forZones", "zone"), ("forNodes", "node")] {
        let list = items(ep, &["hints", field]);
        let path = format!("{path}.{field}");
        if list.len() > HINTS_MAX {
            errors.push(FieldError::too_many(path, list.len(), HINTS_MAX));
            continue;
        }
        let mut seen = BTreeSet::new();
        for (i, hint) in list.iter().enumerate() {
            let (path, name) = (format!("{path}[{i}].name"), str_at(hint, &["name"]));
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(path.clone(), name));
            }
            let rule: super::checks::Rule = if what == "zone" { label_value } else { dns_subdomain };
            named(errors, &path, name, rule);
        }
    }
}

/// A fully qualified domain name: at least two parts, perhaps with a dot at its end.
fn domain(errors: &mut Vec<FieldError>, path: &str, name: &str) {
    let plain = name.strip_suffix('.').unwrap_or(name);
    if plain.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let before = errors.len();
    named(errors, path, plain, dns_subdomain);
    if errors.len() == before && plain.split('.').count() < 2 {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, plain, detail));
    }
}
