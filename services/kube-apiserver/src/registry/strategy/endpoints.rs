//! Endpoints and EndpointSlices: where a Service's traffic can go.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::checks::{IP, dns_label, immutable, named, one_of, port, required_one_of};
use super::kind::Kind;
use super::tree::{default, each, has, int_at, items, set, str_at};
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
                let host = str_at(a, &["hostname"]);
                if !host.is_empty() {
                    named(errors, &format!("{path}.{list}[{j}].hostname"), host, dns_label);
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
        }
    }
}

fn address(errors: &mut Vec<FieldError>, path: &str, text: &str) {
    match text.parse::<IpAddr>() {
        Err(_) => errors.push(FieldError::invalid(path, text, IP)),
        Ok(ip) => usable(errors, path, text, ip),
    }
}

/// Addresses that lead nowhere in particular, or back to the asker, are no places for traffic.
pub fn usable(errors: &mut Vec<FieldError>, path: &str, text: &str, ip: IpAddr) {
    let local = match ip {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    let detail = match ip {
        a if a.is_unspecified() => "may not be unspecified (0.0.0.0 or ::)",
        a if a.is_loopback() => "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        _ if local => "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        a if a.is_multicast() => "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        _ => return,
    };
    errors.push(FieldError::invalid(path, text, detail));
}

fn check_slice(errors: &mut Vec<FieldError>, e: &Value) {
    let kind = str_at(e, &["addressType"]);
    required_one_of(errors, "addressType", kind, &["FQDN", "IPv4", "IPv6"]);
    let list = items(e, &["endpoints"]);
    if list.len() > 1000 {
        errors.push(FieldError::too_many("endpoints", list.len(), 1000));
    }
    for (i, ep) in list.iter().enumerate() {
        let path = format!("endpoints[{i}].addresses");
        let addresses = items(ep, &["addresses"]);
        if addresses.is_empty() {
            errors.push(FieldError::required(path.clone(), "must contain at least 1 address"));
        }
        if addresses.len() > 100 {
            errors.push(FieldError::too_many(path.clone(), addresses.len(), 100));
        }
        for (j, a) in addresses.iter().enumerate() {
            let (path, text) = (format!("{path}[{j}]"), a.as_str().unwrap_or_default());
            match (kind, text.parse::<IpAddr>()) {
                ("IPv4", Ok(IpAddr::V6(_)) | Err(_)) => {
                    errors.push(FieldError::invalid(path, text, "must be an IPv4 address"))
                }
                ("IPv6", Ok(IpAddr::V4(_)) | Err(_)) => {
                    errors.push(FieldError::invalid(path, text, "must be an IPv6 address"))
                }
                ("IPv4" | "IPv6", Ok(_)) => address(errors, &path, text),
                _ => {}
            }
        }
    }
    let mut names = BTreeSet::new();
    for (i, p) in items(e, &["ports"]).iter().enumerate() {
        let name = str_at(p, &["name"]);
        if !names.insert(name) {
            errors.push(FieldError::duplicate("ports.name", name));
        }
        if !name.is_empty() {
            named(errors, &format!("ports[{i}].name"), name, dns_label);
        }
        one_of(errors, &format!("ports[{i}].protocol"), str_at(p, &["protocol"]), &["SCTP", "TCP", "UDP"]);
    }
}
