//! Who may reach whom from where: Ingress, IngressClass, NetworkPolicy, and the address book of Services (ServiceCIDR, IPAddress).

use std::net::IpAddr;

use serde_json::{Value, json};

use super::checks::{
    cidr, dns_1035_label, dns_label, dns_subdomain, domain_prefixed_path, immutable, label_selector, named, one_of,
    optional_named, path_segment, port, port_name, required_named,
};
use super::kind::Kind;
use super::tree::{at, default, each, int_at, items, object, set, str_at};
use crate::errors::FieldError;

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const MAX_CONTROLLER: usize = 250;

/// Ingress.
pub static INGRESS: Kind = Kind {
    defaults: |i| {
        object(object(i, "status"), "loadBalancer");
    },
    check: check_ingress,
    check_create: new_ingress,
    check_update: |errors, sub, new, _| {
        if sub == Some("status") {
            ingress_status(errors, new);
        }
    },
    ..Kind::SPEC_STATUS
};

fn check_ingress(errors: &mut Vec<FieldError>, i: &Value) {
    let spec = at(i, &["spec"]).unwrap_or(&Value::Null);
    for (t, tls) in items(spec, &["tls"]).iter().enumerate() {
        for (h, host) in items(tls, &["hosts"]).iter().enumerate() {
            host_name(errors, &format!("spec.tls[{t}].hosts[{h}]"), host.as_str().unwrap_or_default());
        }
        optional_named(errors, &format!("spec.tls[{t}].secretName"), str_at(tls, &["secretName"]), dns_subdomain);
    }
    let rules = items(spec, &["rules"]);
    match at(spec, &["defaultBackend"]) {
        Some(b) => backend(errors, "spec.defaultBackend", b),
        None if rules.is_empty() => {
            let detail = "either `defaultBackend` or `rules` must be specified";
            errors.push(FieldError::invalid("spec", json!([]), detail));
        }
        None => {}
    }
    for (r, rule) in rules.iter().enumerate() {
        let path = format!("spec.rules[{r}]");
        let host = str_at(rule, &["host"]);
        if host.parse::<IpAddr>().is_ok() {
            errors.push(FieldError::invalid(format!("{path}.host"), host, "must be a DNS name, not an IP address"));
        }
        if !host.is_empty() {
            host_name(errors, &format!("{path}.host"), host);
        }
        let Some(http) = at(rule, &["http"]) else { continue };
        let paths = items(http, &["paths"]);
        if paths.is_empty() {
            errors.push(FieldError::required(format!("{path}.http.paths"), ""));
        }
        for (p, entry) in paths.iter().enumerate() {
            let path = format!("{path}.http.paths[{p}]");
            if str_at(entry, &["pathType"]).is_empty() {
                errors.push(FieldError::required(format!("{path}.pathType"), "pathType must be specified"));
                continue;
            }
            http_path(errors, &path, entry);
            backend(errors, &format!("{path}.backend"), at(entry, &["backend"]).unwrap_or(&Value::Null));
        }
    }
    if let Some(class) = at(spec, &["ingressClassName"]).and_then(Value::as_str) {
        named(errors, "spec.ingressClassName", class, dns_subdomain);
    }
}

fn host_name(errors: &mut Vec<FieldError>, path: &str, host: &str) {
    match host.strip_prefix("*.") {
        None if host.contains('*') => {
            let detail = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
            errors.push(FieldError::invalid(path, host, detail));
        }
        rest => {
            let problems = dns_subdomain(rest.unwrap_or(host));
            errors.extend(problems.into_iter().map(|d| FieldError::invalid(path, host, d)));
        }
    }
}

/// What paths may not hold, wherever it stands, and how they may not end.
const BAD_INSIDE: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_END: [&str; 2] = ["/..", "/."];

fn http_path(errors: &mut Vec<FieldError>, at_path: &str, entry: &Value) {
    let (path, kind) = (str_at(entry, &["path"]), str_at(entry, &["pathType"]));
    let field = format!("{at_path}.path");
    match kind {
        "Exact" | "Prefix" => {
            if !path.starts_with('/') {
                errors.push(FieldError::invalid(field.clone(), path, "must be an absolute path"));
            }
            for bad in BAD_INSIDE.iter().filter(|b| path.contains(**b)) {
                errors.push(FieldError::invalid(field.clone(), path, format!("must not contain '{bad}'")));
            }
            for bad in BAD_END.iter().filter(|b| path.ends_with(**b)) {
                errors.push(FieldError::invalid(field.clone(), path, format!("cannot end with '{bad}'")));
            }
        }
        "ImplementationSpecific" => {
            if !path.is_empty() && !path.starts_with('/') {
                errors.push(FieldError::invalid(field, path, "must be an absolute path"));
            }
        }
        other => {
            let known = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(FieldError::not_supported(format!("{at_path}.pathType"), other, &known));
        }
    }
}

fn backend(errors: &mut Vec<FieldError>, path: &str, b: &Value) {
    match (at(b, &["service"]), at(b, &["resource"])) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(path, "", "cannot set both resource and service backends"));
        }
        (None, None) => errors.push(FieldError::invalid(path, "", "resource or service backend is required")),
        (None, Some(r)) => typed(errors, &format!("{path}.resource"), r),
        (Some(s), None) => {
            match str_at(s, &["name"]) {
                "" => errors.push(FieldError::required(format!("{path}.service.name"), "")),
                name => named(errors, &format!("{path}.service.name"), name, dns_1035_label),
            }
            match (str_at(s, &["port", "name"]), int_at(s, &["port", "number"]).unwrap_or(0)) {
                ("", 0) => errors.push(FieldError::required(path, "port name or number is required")),
                ("", number) => port(errors, &format!("{path}.service.port.number"), number),
                (name, 0) => named(errors, &format!("{path}.service.port.name"), name, port_name),
                _ => errors.push(FieldError::invalid(path, "", "cannot set both port name & port number")),
            }
        }
    }
}

/// A reference to an object by group, kind and name.
fn typed(errors: &mut Vec<FieldError>, path: &str, r: &Value) {
    if let Some(group) = at(r, &["apiGroup"]).and_then(Value::as_str) {
        named(errors, &format!("{path}.apiGroup"), group, dns_subdomain);
    }
    for field in ["kind", "name"] {
        required_named(errors, &format!("{path}.{field}"), str_at(r, &[field]), path_segment);
    }
}

/// What a load balancer says about where it is.
fn ingress_status(errors: &mut Vec<FieldError>, i: &Value) {
    for (n, point) in items(i, &["status", "loadBalancer", "ingress"]).iter().enumerate() {
        let path = format!("status.loadBalancer.ingress[{n}]");
        let ip = str_at(point, &["ip"]);
        if !ip.is_empty() {
            super::checks::ip(errors, &format!("{path}.ip"), ip);
        }
        super::service::host_name(errors, &format!("{path}.hostname"), str_at(point, &["hostname"]));
    }
}

/// Checks of a new Ingress only: the annotation is how classes were named before there were classes.
fn new_ingress(errors: &mut Vec<FieldError>, i: &Value) {
    let annotation = at(i, &["metadata", "annotations", CLASS_ANNOTATION]).and_then(Value::as_str);
    let class = at(i, &["spec", "ingressClassName"]).and_then(Value::as_str);
    if let (Some(annotation), Some(class)) = (annotation, class)
        && annotation != class
    {
        let detail = "must match `ingressClassName` when both are specified";
        errors.push(FieldError::invalid(format!("annotations.{CLASS_ANNOTATION}"), annotation, detail));
    }
}

/// IngressClass.
pub static INGRESS_CLASS: Kind = Kind {
    generation: true,
    defaults: |c| super::tree::within(&mut c["spec"], "parameters", |p| default(p, "scope", "Cluster")),
    check: |errors, c| {
        match str_at(c, &["spec", "controller"]) {
            "" => errors.push(FieldError::required("spec.controller", "")),
            name => {
                if name.len() > MAX_CONTROLLER {
                    errors.push(FieldError::too_long("spec.controller", MAX_CONTROLLER));
                }
                domain_prefixed_path(errors, "spec.controller", name);
            }
        }
        let Some(p) = at(c, &["spec", "parameters"]) else { return };
        typed(errors, "spec.parameters", p);
        let path = "spec.parameters.namespace";
        match (str_at(p, &["scope"]), at(p, &["namespace"]).and_then(Value::as_str)) {
            ("Namespace", None) => {
                errors.push(FieldError::required(path, "`parameters.scope` is set to 'Namespace'"));
            }
            ("Namespace", Some(namespace)) => named(errors, path, namespace, dns_label),
            ("Cluster", Some(_)) => {
                errors.push(FieldError::forbidden(path, "`parameters.scope` is set to 'Cluster'"));
            }
            (scope, _) => one_of(errors, "spec.parameters.scope", scope, &["Cluster", "Namespace"]),
        }
    },
    check_update: |errors, _, new, old| {
        immutable(errors, "spec.controller", at(new, &["spec", "controller"]), at(old, &["spec", "controller"]));
    },
    ..Kind::BASE
};

/// NetworkPolicy.
pub static NETWORK_POLICY: Kind = Kind {
    generation: true,
    defaults: |n| {
        let spec = object(n, "spec");
        for list in ["ingress", "egress"] {
            each(spec, list, |rule| each(rule, "ports", |p| default(p, "protocol", "TCP")));
        }
        if items(spec, &["policyTypes"]).is_empty() {
            let types =
                if items(spec, &["egress"]).is_empty() { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
            set(spec, "policyTypes", types);
        }
        object(spec, "podSelector");
    },
    check: |errors, n| {
        label_selector(errors, "spec.podSelector", &n["spec"]["podSelector"]);
        for (list, peers) in [("ingress", "from"), ("egress", "to")] {
            for (i, rule) in items(n, &["spec", list]).iter().enumerate() {
                policy_rule(errors, &format!("spec.{list}[{i}]"), rule, peers);
            }
        }
        let types = items(n, &["spec", "policyTypes"]);
        if types.len() > 2 {
            let detail = "may not specify more than two policyTypes";
            errors.push(FieldError::invalid("spec.policyTypes", types.to_vec(), detail));
            return;
        }
        for (i, t) in types.iter().enumerate() {
            one_of(errors, &format!("spec.policyTypes[{i}]"), t.as_str().unwrap_or_default(), &["Ingress", "Egress"]);
        }
    },
    ..Kind::BASE
};

fn policy_rule(errors: &mut Vec<FieldError>, path: &str, rule: &Value, peers: &str) {
    for (i, p) in items(rule, &["ports"]).iter().enumerate() {
        let path = format!("{path}.ports[{i}]");
        one_of(errors, &format!("{path}.protocol"), str_at(p, &["protocol"]), &["SCTP", "TCP", "UDP"]);
        let end = int_at(p, &["endPort"]);
        let end_path = format!("{path}.endPort");
        match (p.get("port").filter(|v| !v.is_null()), end) {
            (None, Some(n)) => {
                errors.push(FieldError::invalid(end_path, n, "may not be specified when `port` is not specified"));
            }
            (Some(Value::String(name)), end) => {
                named(errors, &format!("{path}.port"), name, port_name);
                if let Some(n) = end {
                    errors.push(FieldError::invalid(end_path, n, "may not be specified when `port` is non-numeric"));
                }
            }
            (Some(number), end) => {
                let number = number.as_i64().unwrap_or(0);
                port(errors, &format!("{path}.port"), number);
                match end {
                    Some(n) if n < number => {
                        errors.push(FieldError::invalid(end_path, n, "must be greater than or equal to `port`"));
                    }
                    Some(n) => port(errors, &end_path, n),
                    None => {}
                }
            }
            (None, None) => {}
        }
    }
    for (i, peer) in items(rule, &[peers]).iter().enumerate() {
        policy_peer(errors, &format!("{path}.{peers}[{i}]"), peer);
    }
}

fn policy_peer(errors: &mut Vec<FieldError>, path: &str, peer: &Value) {
    let selectors = ["podSelector", "namespaceSelector"];
    let mut count = 0;
    for field in selectors {
        if let Some(s) = at(peer, &[field]) {
            count += 1;
            label_selector(errors, &format!("{path}.{field}"), s);
        }
    }
    let block = at(peer, &["ipBlock"]);
    if let Some(block) = block {
        ip_block(errors, &format!("{path}.ipBlock"), block);
    }
    match (count, block.is_some()) {
        (0, false) => errors.push(FieldError::required(path, "must specify a peer")),
        (1.., true) => errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer")),
        _ => {}
    }
}

fn ip_block(errors: &mut Vec<FieldError>, path: &str, block: &Value) {
    let text = str_at(block, &["cidr"]);
    if text.is_empty() {
        errors.push(FieldError::required(format!("{path}.cidr"), ""));
        return;
    }
    let outer = cidr(errors, &format!("{path}.cidr"), text);
    for (i, except) in items(block, &["except"]).iter().enumerate() {
        let path = format!("{path}.except[{i}]");
        let text = except.as_str().unwrap_or_default();
        let inner = cidr(errors, &path, text);
        if let (Some(outer), Some(inner)) = (outer, inner)
            && (!outer.contains(&inner) || outer.prefix_len() == inner.prefix_len())
        {
            errors.push(FieldError::invalid(path, text, "must be a strict subset of `cidr`"));
        }
    }
}

/// IPAddress: one per allocated Service address, named after it.
pub static IP_ADDRESS: Kind = Kind {
    names: |s| match s.parse::<IpAddr>() {
        Ok(ip) if ip.to_string() == s => Vec::new(),
        Ok(ip) => vec![format!("must be in canonical form ({:?})", ip.to_string())],
        Err(_) => vec![super::checks::IP.into()],
    },
    generation: false,
    check: |errors, ip| match at(ip, &["spec", "parentRef"]) {
        None => errors.push(FieldError::required("spec.parentRef", "")),
        Some(p) => {
            optional_named(errors, "spec.parentRef.group", str_at(p, &["group"]), dns_subdomain);
            for field in ["resource", "name"] {
                required_named(errors, &format!("spec.parentRef.{field}"), str_at(p, &[field]), path_segment);
            }
            optional_named(errors, "spec.parentRef.namespace", str_at(p, &["namespace"]), path_segment);
        }
    },
    check_update: |errors, _, new, old| {
        immutable(errors, "spec.parentRef", at(new, &["spec", "parentRef"]), at(old, &["spec", "parentRef"]));
    },
    ..Kind::BASE
};

/// ServiceCIDR: where Service addresses come from.
pub static SERVICE_CIDR: Kind = Kind {
    check: |errors, c| {
        let list = items(c, &["spec", "cidrs"]);
        match list.len() {
            0 => errors.push(FieldError::required("spec.cidrs", "at least one CIDR required")),
            1 | 2 => {}
            _ => errors.push(FieldError::invalid("spec", c["spec"].clone(), "may only hold up to 2 values")),
        }
        let nets: Vec<_> = list
            .iter()
            .enumerate()
            .filter_map(|(i, t)| {
                let (path, text) = (format!("spec.cidrs[{i}]"), t.as_str().unwrap_or_default());
                let net = cidr(errors, &path, text)?;
                if net.trunc().to_string() != text {
                    let detail = format!("must be in canonical form ({:?})", net.trunc().to_string());
                    errors.push(FieldError::invalid(path, text, detail));
                }
                Some(net)
            })
            .collect();
        if let [a, b] = nets.as_slice()
            && a.addr().is_ipv4() == b.addr().is_ipv4()
        {
            let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96";
            errors.push(FieldError::invalid("spec", json!(list), detail));
        }
    },
    check_update: |errors, sub, new, old| {
        let (n, o) = (items(new, &["spec", "cidrs"]), items(old, &["spec", "cidrs"]));
        if sub.is_some() {
            return;
        }
        // The one change there is: a second family joins.
        if n.len() == o.len() || (o.len(), n.len()) == (1, 2) {
            for (i, (is, _)) in n.iter().zip(o).enumerate().filter(|(_, (is, was))| is != was) {
                let path = format!("spec.cidrs[{i}]");
                errors.push(FieldError::invalid(path, is.clone(), super::checks::IMMUTABLE));
            }
        } else {
            errors.push(FieldError::invalid("spec.cidrs", json!(n), super::checks::IMMUTABLE));
        }
    },
    generation: false,
    ..Kind::SPEC_STATUS
};
