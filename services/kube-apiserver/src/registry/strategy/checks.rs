//! Checks many kinds share, in the words clients know.

pub use apimachinery::names::{
    config_map_key as config_key, dns1035_label as dns_1035_label, dns1123_label as dns_label,
    dns1123_subdomain as dns_subdomain, env_var_name, label_value, path_segment, port_name, qualified_name,
};
use serde_json::Value;

use super::tree::{at, has, items, same, str_at};
use crate::errors::FieldError;

/// What a changed immutable field is told.
pub const IMMUTABLE: &str = "field is immutable";
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// A rule for a text; what is wrong with it, or nothing.
pub type Rule = fn(&str) -> Vec<String>;

/// A port number.
pub fn port(errors: &mut Vec<FieldError>, path: &str, n: i64) {
    errors.extend(apimachinery::names::port_number(n).into_iter().map(|detail| FieldError::invalid(path, n, detail)));
}

/// An integer that may not be negative.
pub fn non_negative(errors: &mut Vec<FieldError>, path: &str, v: Option<&Value>) {
    if let Some(n) = v.and_then(Value::as_i64).filter(|n| *n < 0) {
        errors.push(FieldError::invalid(path, n, "must be greater than or equal to 0"));
    }
}

/// A string that must be one of `allowed`.
pub fn one_of(errors: &mut Vec<FieldError>, path: &str, v: &str, allowed: &[&str]) {
    if !allowed.contains(&v) {
        errors.push(FieldError::not_supported(path, v, allowed));
    }
}

/// As [`one_of`], but empty is a missing required field.
pub fn required_one_of(errors: &mut Vec<FieldError>, path: &str, v: &str, allowed: &[&str]) {
    if v.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        one_of(errors, path, v, allowed);
    }
}

/// A field that may not change.
pub fn immutable(errors: &mut Vec<FieldError>, path: &str, new: Option<&Value>, old: Option<&Value>) {
    if !same(new, old) {
        errors.push(FieldError::invalid(path, new.cloned().unwrap_or(Value::Null), IMMUTABLE));
    }
}

/// Adds `invalid` for everything a rule complains about.
pub fn named(errors: &mut Vec<FieldError>, path: &str, value: &str, rule: Rule) {
    errors.extend(rule(value).into_iter().map(|detail| FieldError::invalid(path, value, detail)));
}

/// Labels of anything.
pub fn labels(errors: &mut Vec<FieldError>, path: &str, v: Option<&Value>) {
    for (k, value) in v.and_then(Value::as_object).into_iter().flatten() {
        named(errors, path, k, qualified_name);
        match value.as_str() {
            Some(s) => named(errors, path, s, label_value),
            None => errors.push(FieldError::type_invalid(path, value.clone(), "must be a string")),
        }
    }
}

/// Annotations of anything: keys whose case does not matter, and not too much text.
pub fn annotations(errors: &mut Vec<FieldError>, path: &str, v: Option<&Value>) {
    let mut size = 0;
    for (k, v) in v.and_then(Value::as_object).into_iter().flatten() {
        let problems = qualified_name(&k.to_lowercase());
        errors.extend(problems.into_iter().map(|detail| FieldError::invalid(path, k.as_str(), detail)));
        size += k.len() + v.as_str().map_or(0, str::len);
    }
    if size > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long(path, MAX_ANNOTATIONS));
    }
}

/// metadata, with the kind's own rule for names. A name made from generateName is checked like any other.
pub fn metadata(obj: &Value, name_rule: Rule) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = str_at(obj, &["metadata", "name"]);
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        named(&mut errors, "metadata.name", name, name_rule);
    }
    let prefix = str_at(obj, &["metadata", "generateName"]);
    if !prefix.is_empty() {
        // What follows it ends well; it may itself end in a dash.
        let masked = prefix.strip_suffix('-').map_or_else(|| prefix.to_owned(), |p| format!("{p}a"));
        let problems = name_rule(&masked).into_iter();
        errors.extend(problems.map(|detail| FieldError::invalid("metadata.generateName", prefix, detail)));
    }
    metadata_body(&mut errors, obj);
    errors
}

fn metadata_body(errors: &mut Vec<FieldError>, obj: &Value) {
    labels(errors, "metadata.labels", at(obj, &["metadata", "labels"]));
    annotations(errors, "metadata.annotations", at(obj, &["metadata", "annotations"]));
    finalizers(errors, obj);
    owner_references(errors, obj);
}

/// Finalizers that need no domain: those of garbage collection and of namespaces.
pub const STANDARD_FINALIZERS: [&str; 3] = ["foregroundDeletion", "kubernetes", "orphan"];

fn finalizers(errors: &mut Vec<FieldError>, obj: &Value) {
    let list: Vec<&str> = items(obj, &["metadata", "finalizers"]).iter().filter_map(Value::as_str).collect();
    for (i, finalizer) in list.iter().enumerate() {
        let path = format!("metadata.finalizers[{i}]");
        let before = errors.len();
        named(errors, &path, finalizer, qualified_name);
        if errors.len() == before && !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(finalizer) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(path, *finalizer, detail));
        }
    }
    if list.contains(&"orphan") && list.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid("metadata.finalizers", list, detail));
    }
}

/// What is being deleted waits for nobody new.
fn no_new_finalizers(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    if !has(&old["metadata"], "deletionTimestamp") {
        return;
    }
    let was = items(old, &["metadata", "finalizers"]);
    let added = items(new, &["metadata", "finalizers"]).iter().filter(|f| !was.contains(f));
    let added: Vec<String> = added.filter_map(Value::as_str).map(|f| format!("{f:?}")).collect();
    if !added.is_empty() {
        let list = added.join(", ");
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
        );
        errors.push(FieldError::forbidden("metadata.finalizers", detail));
    }
}

fn owner_references(errors: &mut Vec<FieldError>, obj: &Value) {
    let mut controller: Option<&str> = None;
    for (i, r) in items(obj, &["metadata", "ownerReferences"]).iter().enumerate() {
        let path = format!("metadata.ownerReferences[{i}]");
        if (str_at(r, &["apiVersion"]), str_at(r, &["kind"])) == ("v1", "Event") {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(path.clone(), r.clone(), detail));
        }
        for (field, detail) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if str_at(r, &[field]).is_empty() {
                errors.push(FieldError::invalid(format!("{path}.{field}"), "", detail));
            }
        }
        if r.get("controller").and_then(Value::as_bool) == Some(true) {
            if let Some(first) = controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                    str_at(r, &["name"])
                );
                let all = obj["metadata"]["ownerReferences"].clone();
                errors.push(FieldError::invalid("metadata.ownerReferences", all, detail));
            }
            controller = Some(str_at(r, &["name"]));
        }
    }
}

/// metadata of an update: what may never change, and that the rest is still well formed.
pub fn metadata_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (n, o) = (&new["metadata"], &old["metadata"]);
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp"] {
        // A client that leaves them out gets the stored ones; only a different value is a change.
        if has(n, field) {
            immutable(&mut errors, &format!("metadata.{field}"), n.get(field), o.get(field));
        }
    }
    no_new_finalizers(&mut errors, new, old);
    metadata_body(&mut errors, new);
    errors
}

/// A label selector's own well-formedness.
pub fn label_selector(errors: &mut Vec<FieldError>, path: &str, v: &Value) {
    labels(errors, &format!("{path}.matchLabels"), v.get("matchLabels"));
    for (i, e) in items(v, &["matchExpressions"]).iter().enumerate() {
        let p = format!("{path}.matchExpressions[{i}]");
        named(errors, &format!("{p}.key"), str_at(e, &["key"]), qualified_name);
        let count = items(e, &["values"]).len();
        match str_at(e, &["operator"]) {
            "In" | "NotIn" if count == 0 => {
                errors.push(FieldError::required(
                    format!("{p}.values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                ));
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if count > 0 => {
                errors.push(FieldError::forbidden(
                    format!("{p}.values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ));
            }
            "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(format!("{p}.operator"), other, "not a valid selector operator")),
        }
    }
}

/// What a wrong address is told.
pub const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
/// What a wrong range of addresses is told.
pub const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
/// What a wrong percentage is told.
pub const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

/// A text that must be there.
pub fn required(errors: &mut Vec<FieldError>, path: &str, v: &str) {
    if v.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
}

/// A text that must be there and follow a rule.
pub fn required_named(errors: &mut Vec<FieldError>, path: &str, v: &str, rule: Rule) {
    if v.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        named(errors, path, v, rule);
    }
}

/// A text that may be missing but otherwise follows a rule.
pub fn optional_named(errors: &mut Vec<FieldError>, path: &str, v: &str, rule: Rule) {
    if !v.is_empty() {
        named(errors, path, v, rule);
    }
}

/// A text that may be missing but otherwise is one of a few.
pub fn optional_one_of(errors: &mut Vec<FieldError>, path: &str, v: &str, allowed: &[&str]) {
    if !v.is_empty() {
        one_of(errors, path, v, allowed);
    }
}

/// An IP address.
pub fn ip(errors: &mut Vec<FieldError>, path: &str, v: &str) {
    if v.parse::<std::net::IpAddr>().is_err() {
        errors.push(FieldError::invalid(path, v, IP));
    }
}

/// A range of addresses.
pub fn cidr(errors: &mut Vec<FieldError>, path: &str, v: &str) -> Option<ipnet::IpNet> {
    let net = v.parse::<ipnet::IpNet>().ok();
    if net.is_none() {
        errors.push(FieldError::invalid(path, v, CIDR));
    }
    net
}

/// A domain name with a path behind it, such as example.com/controller.
pub fn domain_prefixed_path(errors: &mut Vec<FieldError>, path: &str, v: &str) {
    let Some((domain, rest)) = v.split_once('/').filter(|(d, r)| !d.is_empty() && !r.is_empty()) else {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.push(FieldError::invalid(path, v, detail));
        return;
    };
    for what in dns_subdomain(domain) {
        errors.push(FieldError::invalid(path, domain, format!("prefix part {what}")));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || "/_-.~%!$&'()*+,;=:".contains(c);
    if !rest.chars().all(good) {
        let detail = "Invalid path: must consist only of alphanumeric characters and \"/_-.~%!$&'()*+,;=:\"";
        errors.push(FieldError::invalid(path, rest, detail));
    }
}

/// A count or a percentage, neither negative.
pub fn int_or_percent(errors: &mut Vec<FieldError>, path: &str, v: Option<&Value>) {
    match v {
        Some(Value::Number(_)) => non_negative(errors, path, v),
        Some(text @ Value::String(_)) if apimachinery::intstr::percent(text).is_err() => {
            errors.push(FieldError::invalid(path, text.clone(), PERCENT));
        }
        _ => {}
    }
}

/// A percentage that may not exceed the whole.
pub fn at_most_all(errors: &mut Vec<FieldError>, path: &str, v: Option<&Value>) {
    if let Some(text @ Value::String(_)) = v
        && apimachinery::intstr::percent(text).is_ok_and(|n| n > 100)
    {
        errors.push(FieldError::invalid(path, text.clone(), "must not be greater than 100%"));
    }
}

/// The name of an extension API's class or driver: a subdomain of at most 63 characters whose case does not matter.
pub fn driver_name(errors: &mut Vec<FieldError>, path: &str, v: &str) {
    if v.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    if v.len() > apimachinery::names::DNS_LABEL_MAX {
        errors.push(FieldError::too_long(path, apimachinery::names::DNS_LABEL_MAX));
    }
    let problems = dns_subdomain(&v.to_ascii_lowercase());
    errors.extend(problems.into_iter().map(|detail| FieldError::invalid(path, v, detail)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_rules() {
        let bad = json!({"metadata": {"name": "x", "labels": {"a b": "c"}, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": true},
            {"apiVersion": "v1", "kind": "Pod", "name": "q", "uid": "2", "controller": true}]}});
        let fields: Vec<String> = metadata(&bad, dns_label).into_iter().map(|e| e.field).collect();
        assert_eq!(fields, ["metadata.labels", "metadata.ownerReferences"]);
        let old = json!({"metadata": {"name": "x", "uid": "1"}});
        assert!(metadata_update(&json!({"metadata": {"name": "x"}}), &old).is_empty());
        assert_eq!(metadata_update(&json!({"metadata": {"name": "x", "uid": "2"}}), &old).len(), 1);
    }

    #[test]
    fn generated_names_and_finalizers() {
        let said = |metadata: Value| {
            let errors = metadata_of(metadata);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        fn metadata_of(metadata: Value) -> Vec<FieldError> {
            super::metadata(&json!({"metadata": metadata}), dns_label)
        }
        assert!(said(json!({"name": "x-1", "generateName": "x-", "finalizers": ["orphan", "a.b/c"]})).is_empty());
        let bad = said(json!({"name": "x-1", "generateName": "X-", "finalizers": ["mine", "a b/c"]}));
        assert!(
            bad[0].starts_with("metadata.generateName: Invalid value: \"X-\": a lowercase RFC 1123 label"),
            "{bad:?}"
        );
        assert_eq!(
            bad[1],
            "metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified"
        );
        assert!(bad[2].starts_with("metadata.finalizers[1]: Invalid value: \"a b/c\""), "{bad:?}");
        let both = said(json!({"name": "x", "finalizers": ["orphan", "foregroundDeletion"]}));
        assert_eq!(
            both,
            [
                "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set"
            ]
        );
        let old = json!({"metadata": {"name": "x", "deletionTimestamp": "t", "finalizers": ["a.b/c"]}});
        let mut new = old.clone();
        assert!(metadata_update(&new, &old).is_empty());
        new["metadata"]["finalizers"] = json!(["a.b/c", "a.b/d"]);
        assert_eq!(
            metadata_update(&new, &old).iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"a.b/d\"}"
            ]
        );
    }
}
