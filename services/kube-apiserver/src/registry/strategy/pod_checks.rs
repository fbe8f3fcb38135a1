//! What makes a pod spec well formed, in pods and in templates.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::checks::{
    Rule, dns_label, dns_subdomain, label_selector, label_value, labels, named, non_negative, one_of, qualified_name,
    required_one_of,
};
use super::container_checks::{Scope, container, field_ref, host_network, local_path};
use super::tree::{at, has, int_at, items, map_at, str_at};
use crate::errors::FieldError;

const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];

/// A whole pod spec.
pub fn pod_spec(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    let volumes = volumes(errors, &format!("{path}.volumes"), spec);
    containers(errors, path, spec, &volumes);
    required_one_of(
        errors,
        &format!("{path}.restartPolicy"),
        str_at(spec, &["restartPolicy"]),
        &["Always", "OnFailure", "Never"],
    );
    required_one_of(errors, &format!("{path}.dnsPolicy"), str_at(spec, &["dnsPolicy"]), &DNS_POLICIES);
    if str_at(spec, &["dnsPolicy"]) == "None" && items(spec, &["dnsConfig", "nameservers"]).is_empty() {
        errors.push(FieldError::required(
            format!("{path}.dnsConfig.nameservers"),
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        ));
    }
    labels(errors, &format!("{path}.nodeSelector"), at(spec, &["nodeSelector"]));
    non_negative(errors, &format!("{path}.terminationGracePeriodSeconds"), spec.get("terminationGracePeriodSeconds"));
    if let Some(n) = int_at(spec, &["activeDeadlineSeconds"]).filter(|n| !(1..=i64::from(i32::MAX)).contains(n)) {
        errors.push(FieldError::invalid(
            format!("{path}.activeDeadlineSeconds"),
            n,
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    let names: [(&str, Rule); 5] = [
        ("nodeName", dns_subdomain),
        ("serviceAccountName", dns_subdomain),
        ("hostname", dns_label),
        ("subdomain", dns_label),
        ("priorityClassName", dns_subdomain),
    ];
    for (field, rule) in names {
        let value = str_at(spec, &[field]);
        if !value.is_empty() {
            named(errors, &format!("{path}.{field}"), value, rule);
        }
    }
    tolerations(errors, &format!("{path}.tolerations"), spec);
    spreading(errors, path, spec);
    affinity(errors, &format!("{path}.affinity"), spec);
    security(errors, path, spec);
    for (i, alias) in items(spec, &["hostAliases"]).iter().enumerate() {
        let ip = str_at(alias, &["ip"]);
        if ip.parse::<IpAddr>().is_err() {
            errors.push(FieldError::invalid(
                format!("{path}.hostAliases[{i}].ip"),
                ip,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ));
        }
    }
}

fn containers(errors: &mut Vec<FieldError>, path: &str, spec: &Value, volumes: &BTreeSet<&str>) {
    if items(spec, &["containers"]).is_empty() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    let scope = Scope { volumes, host_network: host_network(spec) };
    let mut names = BTreeSet::new();
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for (i, c) in items(spec, &[list]).iter().enumerate() {
            let path = format!("{path}.{list}[{i}]");
            container(errors, &path, c, list, &scope);
            let name = str_at(c, &["name"]);
            if !name.is_empty() && !names.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
    }
    let mut host_ports = BTreeSet::new();
    for (i, c) in items(spec, &["containers"]).iter().enumerate() {
        for (j, p) in items(c, &["ports"]).iter().enumerate() {
            let Some(host) = int_at(p, &["hostPort"]).filter(|n| *n != 0) else { continue };
            let key = format!("{}/{}/{host}", str_at(p, &["protocol"]), str_at(p, &["hostIP"]));
            if !host_ports.insert(key.clone()) {
                errors.push(FieldError::duplicate(format!("{path}.containers[{i}].ports[{j}].hostPort"), key));
            }
        }
    }
}

fn volumes<'a>(errors: &mut Vec<FieldError>, path: &str, spec: &'a Value) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (i, v) in items(spec, &["volumes"]).iter().enumerate() {
        let path = format!("{path}[{i}]");
        let name = str_at(v, &["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else {
            named(errors, &format!("{path}.name"), name, dns_label);
            if !names.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
        let sources: Vec<&String> =
            v.as_object().into_iter().flatten().filter(|(k, x)| *k != "name" && !x.is_null()).map(|(k, _)| k).collect();
        match sources.as_slice() {
            [] => errors.push(FieldError::required(path.clone(), "must specify a volume type")),
            [one] => volume_source(errors, &format!("{path}.{one}"), one, &v[one.as_str()]),
            [_, second, ..] => errors
                .push(FieldError::forbidden(format!("{path}.{second}"), "may not specify more than 1 volume type")),
        }
    }
    names
}

fn volume_source(errors: &mut Vec<FieldError>, path: &str, kind: &str, source: &Value) {
    let required = match kind {
        "configMap" => Some("name"),
        "secret" => Some("secretName"),
        "hostPath" => Some("path"),
        "persistentVolumeClaim" => Some("claimName"),
        "csi" => Some("driver"),
        "nfs" => Some("server"),
        _ => None,
    };
    if let Some(field) = required
        && str_at(source, &[field]).is_empty()
    {
        errors.push(FieldError::required(format!("{path}.{field}"), ""));
    }
    mode(errors, &format!("{path}.defaultMode"), source.get("defaultMode"));
    key_paths(errors, path, source);
    if kind == "downwardAPI" {
        downward(errors, path, source);
    }
    for (i, s) in items(source, &["sources"]).iter().enumerate() {
        projection(errors, &format!("{path}.sources[{i}]"), s);
    }
}

fn projection(errors: &mut Vec<FieldError>, path: &str, s: &Value) {
    let kinds: Vec<&String> =
        s.as_object().into_iter().flatten().filter(|(_, x)| !x.is_null()).map(|(k, _)| k).collect();
    if kinds.len() > 1 {
        errors.push(FieldError::forbidden(path, "may not specify more than 1 volume type"));
    }
    for kind in ["configMap", "secret"] {
        if let Some(inner) = at(s, &[kind]) {
            if str_at(inner, &["name"]).is_empty() {
                errors.push(FieldError::required(format!("{path}.{kind}.name"), ""));
            }
            key_paths(errors, &format!("{path}.{kind}"), inner);
        }
    }
    if let Some(inner) = at(s, &["downwardAPI"]) {
        downward(errors, &format!("{path}.downwardAPI"), inner);
    }
    if let Some(token) = at(s, &["serviceAccountToken"]) {
        let path = format!("{path}.serviceAccountToken");
        let seconds = int_at(token, &["expirationSeconds"]).unwrap_or(3600);
        if seconds < 600 {
            errors.push(FieldError::invalid(
                format!("{path}.expirationSeconds"),
                seconds,
                "may not specify a duration less than 10 minutes",
            ));
        }
        if seconds > 1 << 32 {
            errors.push(FieldError::invalid(
                format!("{path}.expirationSeconds"),
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            ));
        }
        if str_at(token, &["path"]).is_empty() {
            errors.push(FieldError::required(format!("{path}.path"), ""));
        }
    }
}

fn key_paths(errors: &mut Vec<FieldError>, path: &str, source: &Value) {
    for (i, item) in items(source, &["items"]).iter().enumerate() {
        let path = format!("{path}.items[{i}]");
        if has(item, "key") && str_at(item, &["key"]).is_empty() {
            errors.push(FieldError::required(format!("{path}.key"), ""));
        }
        match str_at(item, &["path"]) {
            "" => errors.push(FieldError::required(format!("{path}.path"), "")),
            p => local_path(errors, &format!("{path}.path"), p),
        }
        mode(errors, &format!("{path}.mode"), item.get("mode"));
    }
}

fn downward(errors: &mut Vec<FieldError>, path: &str, source: &Value) {
    let fields = ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
    for (i, item) in items(source, &["items"]).iter().enumerate() {
        if let Some(r) = at(item, &["fieldRef"]) {
            field_ref(errors, &format!("{path}.items[{i}].fieldRef.fieldPath"), str_at(r, &["fieldPath"]), &fields);
        }
    }
}

fn mode(errors: &mut Vec<FieldError>, path: &str, v: Option<&Value>) {
    if let Some(n) = v.and_then(Value::as_i64).filter(|n| !(0..=0o777).contains(n)) {
        errors.push(FieldError::invalid(path, n, "must be a number between 0 and 0777 (octal), both inclusive"));
    }
}

/// Tolerations; also of what a pod update adds.
pub fn tolerations(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    for (i, t) in items(spec, &["tolerations"]).iter().enumerate() {
        let path = format!("{path}[{i}]");
        let (key, operator, effect) = (str_at(t, &["key"]), str_at(t, &["operator"]), str_at(t, &["effect"]));
        if !key.is_empty() {
            named(errors, &format!("{path}.key"), key, qualified_name);
        } else if operator != "Exists" {
            errors.push(FieldError::invalid(
                format!("{path}.operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ));
        }
        match operator {
            "" | "Equal" => named(errors, &format!("{path}.value"), str_at(t, &["value"]), label_value),
            "Exists" if !str_at(t, &["value"]).is_empty() => {
                errors.push(FieldError::invalid(
                    format!("{path}.operator"),
                    operator,
                    "value must be empty when `operator` is 'Exists'",
                ));
            }
            "Exists" => {}
            other => errors.push(FieldError::not_supported(format!("{path}.operator"), other, &["Equal", "Exists"])),
        }
        if has(t, "tolerationSeconds") && effect != "NoExecute" {
            errors.push(FieldError::invalid(
                format!("{path}.effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            ));
        }
        if !effect.is_empty() {
            one_of(errors, &format!("{path}.effect"), effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
    }
}

fn spreading(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    for (i, c) in items(spec, &["topologySpreadConstraints"]).iter().enumerate() {
        let path = format!("{path}.topologySpreadConstraints[{i}]");
        let skew = int_at(c, &["maxSkew"]).unwrap_or(0);
        if skew <= 0 {
            errors.push(FieldError::invalid(format!("{path}.maxSkew"), skew, "must be greater than zero"));
        }
        match str_at(c, &["topologyKey"]) {
            "" => errors.push(FieldError::required(format!("{path}.topologyKey"), "can not be empty")),
            key => named(errors, &format!("{path}.topologyKey"), key, qualified_name),
        }
        one_of(
            errors,
            &format!("{path}.whenUnsatisfiable"),
            str_at(c, &["whenUnsatisfiable"]),
            &["DoNotSchedule", "ScheduleAnyway"],
        );
        if let Some(s) = at(c, &["labelSelector"]) {
            label_selector(errors, &format!("{path}.labelSelector"), s);
        }
    }
}

fn affinity(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    if let Some(required) = at(spec, &["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"]) {
        let path = format!("{path}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
        let terms = items(required, &["nodeSelectorTerms"]);
        if terms.is_empty() {
            errors.push(FieldError::required(path.clone(), "must have at least one node selector term"));
        }
        for (i, term) in terms.iter().enumerate() {
            node_term(errors, &format!("{path}[{i}]"), term);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let field = "requiredDuringSchedulingIgnoredDuringExecution";
        for (i, term) in items(spec, &["affinity", kind, field]).iter().enumerate() {
            let path = format!("{path}.{kind}.{field}[{i}]");
            if str_at(term, &["topologyKey"]).is_empty() {
                errors.push(FieldError::required(format!("{path}.topologyKey"), "can not be empty"));
            }
            if let Some(s) = at(term, &["labelSelector"]) {
                label_selector(errors, &format!("{path}.labelSelector"), s);
            }
        }
    }
}

/// One alternative of a node selector.
pub fn node_term(errors: &mut Vec<FieldError>, path: &str, term: &Value) {
    for (j, e) in items(term, &["matchExpressions"]).iter().enumerate() {
        node_requirement(errors, &format!("{path}.matchExpressions[{j}]"), e);
    }
    for (j, e) in items(term, &["matchFields"]).iter().enumerate() {
        node_field(errors, &format!("{path}.matchFields[{j}]"), e);
    }
}

/// The one field there is to select nodes by is their name.
fn node_field(errors: &mut Vec<FieldError>, path: &str, e: &Value) {
    let values = items(e, &["values"]);
    match str_at(e, &["operator"]) {
        "In" | "NotIn" if values.len() != 1 => {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(FieldError::required(format!("{path}.values"), detail));
        }
        "In" | "NotIn" => {}
        other => errors.push(FieldError::invalid(format!("{path}.operator"), other, "not a valid selector operator")),
    }
    match str_at(e, &["key"]) {
        "metadata.name" => {
            for (i, v) in values.iter().enumerate() {
                named(errors, &format!("{path}.values[{i}]"), v.as_str().unwrap_or_default(), dns_subdomain);
            }
        }
        other => errors.push(FieldError::invalid(format!("{path}.key"), other, "not a valid field selector key")),
    }
}

fn node_requirement(errors: &mut Vec<FieldError>, path: &str, e: &Value) {
    named(errors, &format!("{path}.key"), str_at(e, &["key"]), qualified_name);
    let count = items(e, &["values"]).len();
    match str_at(e, &["operator"]) {
        "In" | "NotIn" if count == 0 => {
            errors.push(FieldError::required(
                format!("{path}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ));
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            errors.push(FieldError::forbidden(
                format!("{path}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ));
        }
        "Gt" | "Lt" if count != 1 => {
            errors.push(FieldError::required(
                format!("{path}.values"),
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(FieldError::invalid(format!("{path}.operator"), other, "not a valid selector operator")),
    }
}

fn security(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    let context = format!("{path}.securityContext");
    ids(errors, &context, at(spec, &["securityContext"]).unwrap_or(&Value::Null));
    let mut seen = BTreeSet::new();
    for (i, s) in items(spec, &["securityContext", "sysctls"]).iter().enumerate() {
        let path = format!("{context}.sysctls[{i}].name");
        let name = str_at(s, &["name"]);
        let good = |part: &str| {
            let b = part.as_bytes();
            b.first().is_some_and(u8::is_ascii_alphanumeric)
                && b.last().is_some_and(u8::is_ascii_alphanumeric)
                && b.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_".contains(c))
        };
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if !name.split(['.', '/']).all(good) {
            let detail = r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.push(FieldError::invalid(path, name, detail));
        } else if !seen.insert(name) {
            errors.push(FieldError::duplicate(path, name));
        }
    }
    for list in ["containers", "initContainers"] {
        for (i, c) in items(spec, &[list]).iter().enumerate() {
            let path = format!("{path}.{list}[{i}].securityContext");
            let Some(sc) = at(c, &["securityContext"]) else { continue };
            ids(errors, &path, sc);
            let privileged = sc.get("privileged").and_then(Value::as_bool) == Some(true);
            let escalate = sc.get("allowPrivilegeEscalation").and_then(Value::as_bool);
            if privileged && escalate == Some(false) {
                errors.push(FieldError::invalid(
                    path,
                    Value::Object(map_at(c, &["securityContext"]).cloned().unwrap_or_default()),
                    "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
                ));
            }
        }
    }
}

fn ids(errors: &mut Vec<FieldError>, path: &str, sc: &Value) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        if let Some(n) = int_at(sc, &[field]).filter(|n| !(0..=i64::from(i32::MAX)).contains(n)) {
            errors.push(FieldError::invalid(
                format!("{path}.{field}"),
                n,
                "must be between 0 and 2147483647, inclusive",
            ));
        }
    }
}
