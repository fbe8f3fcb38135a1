//! Priority and fairness as data: which requests belong together, and how many of them may run at once.

use serde_json::Value;

use super::checks::{dns_subdomain, named, one_of, required, required_one_of};
use super::kind::Kind;
use super::tree::{at, default, int_at, items, object, str_at, within};
use crate::errors::FieldError;
use crate::flowcontrol::defaults;

const MAX_PRECEDENCE: i64 = 10_000;
const MAX_QUEUES: i64 = 10_000_000;

/// FlowSchema.
pub static FLOW_SCHEMA: Kind = Kind {
    status_leaves: Kind::CLIENTS_METADATA,
    defaults: |f| {
        super::tree::default_int(object(f, "spec"), "matchingPrecedence", 1000);
    },
    check: check_schema,
    ..Kind::SPEC_STATUS
};

/// PriorityLevelConfiguration.
pub static PRIORITY_LEVEL: Kind = Kind {
    status_leaves: Kind::CLIENTS_METADATA,
    defaults: |p| {
        let spec = object(p, "spec");
        if str_at(spec, &["type"]) == "Exempt" {
            let exempt = object(spec, "exempt");
            default(exempt, "nominalConcurrencyShares", 0);
            default(exempt, "lendablePercent", 0);
        }
        within(spec, "limited", |l| {
            default(l, "nominalConcurrencyShares", 30);
            default(l, "lendablePercent", 0);
            let response = object(l, "limitResponse");
            within(response, "queuing", |q| {
                for (field, value) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                    super::tree::default_int(q, field, value);
                }
            });
        });
    },
    check: check_level,
    ..Kind::SPEC_STATUS
};

/// What is mandatory cannot be changed, as the server relies on it.
fn check_fixed(errors: &mut Vec<FieldError>, kind: &str, object: &Value) {
    let (name, spec) = (str_at(object, &["metadata", "name"]), at(object, &["spec"]).unwrap_or(&Value::Null));
    if defaults::fixed_spec(kind, name, spec).is_some_and(|fixed| *spec != fixed) {
        let detail = format!("spec of '{name}' must equal the fixed value");
        errors.push(FieldError::invalid("spec", spec.clone(), detail));
    }
}

fn check_schema(errors: &mut Vec<FieldError>, f: &Value) {
    check_fixed(errors, "FlowSchema", f);
    let spec = at(f, &["spec"]).unwrap_or(&Value::Null);
    let n = int_at(spec, &["matchingPrecedence"]).unwrap_or(0);
    let path = "spec.matchingPrecedence";
    if n <= 0 {
        errors.push(FieldError::invalid(path, n, "must be a positive value"));
    }
    if n > MAX_PRECEDENCE {
        errors.push(FieldError::invalid(path, n, format!("must not be greater than {MAX_PRECEDENCE}")));
    }
    if n == 1 && str_at(f, &["metadata", "name"]) != "exempt" {
        let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.push(FieldError::invalid(path, n, detail));
    }
    if let Some(method) = at(spec, &["distinguisherMethod"]) {
        let known = ["ByNamespace", "ByUser"];
        required_one_of(errors, "spec.distinguisherMethod.type", str_at(method, &["type"]), &known);
    }
    match str_at(spec, &["priorityLevelConfiguration", "name"]) {
        "" => {
            errors.push(FieldError::required("spec.priorityLevelConfiguration.name", "must reference a priority level"))
        }
        name => named(errors, "spec.priorityLevelConfiguration.name", name, dns_subdomain),
    }
    for (i, rule) in items(spec, &["rules"]).iter().enumerate() {
        policy(errors, &format!("spec.rules[{i}]"), rule);
    }
}

fn policy(errors: &mut Vec<FieldError>, path: &str, rule: &Value) {
    let subjects = items(rule, &["subjects"]);
    if subjects.is_empty() {
        errors.push(FieldError::required(format!("{path}.subjects"), "subjects must contain at least one value"));
    }
    for (i, s) in subjects.iter().enumerate() {
        let path = format!("{path}.subjects[{i}]");
        let field = match str_at(s, &["kind"]) {
            "User" => "user",
            "Group" => "group",
            "ServiceAccount" => "serviceAccount",
            other => {
                let known = ["Group", "ServiceAccount", "User"];
                errors.push(FieldError::not_supported(format!("{path}.kind"), other, &known));
                continue;
            }
        };
        match at(s, &[field]) {
            None => {
                let detail = format!("{field} is required when subject kind is '{}'", str_at(s, &["kind"]));
                errors.push(FieldError::required(format!("{path}.{field}"), detail));
            }
            Some(who) => {
                required(errors, &format!("{path}.{field}.name"), str_at(who, &["name"]));
                if field == "serviceAccount" {
                    let detail = "must specify namespace for service account";
                    if str_at(who, &["namespace"]).is_empty() {
                        errors.push(FieldError::required(format!("{path}.{field}.namespace"), detail));
                    }
                }
            }
        }
    }
    let (resources, urls) = (items(rule, &["resourceRules"]), items(rule, &["nonResourceRules"]));
    if resources.is_empty() && urls.is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, detail));
    }
    for (i, r) in resources.iter().enumerate() {
        let path = format!("{path}.resourceRules[{i}]");
        for (field, what) in [
            ("verbs", "verbs must contain at least one value"),
            ("apiGroups", "resource rules must supply at least one api group"),
            ("resources", "resource rules must supply at least one resource"),
        ] {
            if items(r, &[field]).is_empty() {
                errors.push(FieldError::required(format!("{path}.{field}"), what));
            }
        }
        if items(r, &["namespaces"]).is_empty() && !super::tree::bool_at(r, &["clusterScope"]) {
            let detail = "resource rules that are not cluster scoped must supply at least one namespace";
            errors.push(FieldError::required(format!("{path}.namespaces"), detail));
        }
    }
    for (i, r) in urls.iter().enumerate() {
        let path = format!("{path}.nonResourceRules[{i}]");
        for (field, what) in [
            ("verbs", "verbs must contain at least one value"),
            ("nonResourceURLs", "nonResourceURLs must contain at least one value"),
        ] {
            if items(r, &[field]).is_empty() {
                errors.push(FieldError::required(format!("{path}.{field}"), what));
            }
        }
    }
}

fn check_level(errors: &mut Vec<FieldError>, p: &Value) {
    check_fixed(errors, "PriorityLevelConfiguration", p);
    let spec = at(p, &["spec"]).unwrap_or(&Value::Null);
    let limited = at(spec, &["limited"]);
    match (str_at(spec, &["type"]), limited) {
        ("Exempt", Some(_)) => {
            errors.push(FieldError::forbidden("spec.limited", "must be nil if the type is not Limited"));
        }
        ("Limited", None) => {
            errors.push(FieldError::required("spec.limited", "must not be empty when type is Limited"))
        }
        ("Exempt" | "Limited", _) => {}
        (other, _) => errors.push(FieldError::not_supported("spec.type", other, &["Exempt", "Limited"])),
    }
    if str_at(spec, &["type"]) == "Limited" && at(spec, &["exempt"]).is_some() {
        errors.push(FieldError::forbidden("spec.exempt", "must be nil if the type is Limited"));
    }
    let Some(l) = limited else { return };
    let shares = int_at(l, &["nominalConcurrencyShares"]).unwrap_or(0);
    if shares < 0 {
        errors.push(FieldError::invalid(
            "spec.limited.nominalConcurrencyShares",
            shares,
            "must be a non-negative integer",
        ));
    }
    let percent = int_at(l, &["lendablePercent"]).unwrap_or(0);
    if !(0..=100).contains(&percent) {
        let detail = "must be between 0 and 100, inclusive";
        errors.push(FieldError::invalid("spec.limited.lendablePercent", percent, detail));
    }
    if let Some(n) = int_at(l, &["borrowingLimitPercent"]).filter(|n| *n < 0) {
        let detail = "if specified, must be a non-negative integer";
        errors.push(FieldError::invalid("spec.limited.borrowingLimitPercent", n, detail));
    }
    let response = at(l, &["limitResponse"]).unwrap_or(&Value::Null);
    let path = "spec.limited.limitResponse";
    one_of(errors, &format!("{path}.type"), str_at(response, &["type"]), &["Queue", "Reject"]);
    match (str_at(response, &["type"]), at(response, &["queuing"])) {
        ("Reject", Some(_)) => {
            errors.push(FieldError::forbidden(
                format!("{path}.queuing"),
                "must be nil if limited.limitResponse.type is not Limited",
            ));
        }
        ("Queue", None) => {
            errors.push(FieldError::required(
                format!("{path}.queuing"),
                "must not be empty if limited.limitResponse.type is Limited",
            ));
        }
        ("Queue", Some(q)) => queuing(errors, &format!("{path}.queuing"), q),
        _ => {}
    }
}

fn queuing(errors: &mut Vec<FieldError>, path: &str, q: &Value) {
    for field in ["queueLengthLimit", "queues", "handSize"] {
        let n = int_at(q, &[field]).unwrap_or(0);
        if n <= 0 {
            errors.push(FieldError::invalid(format!("{path}.{field}"), n, "must be positive"));
        }
    }
    let (queues, hand) = (int_at(q, &["queues"]).unwrap_or(0), int_at(q, &["handSize"]).unwrap_or(0));
    if queues > MAX_QUEUES {
        let detail = format!("must not be greater than {MAX_QUEUES}");
        errors.push(FieldError::invalid(format!("{path}.queues"), queues, detail));
    }
    if hand > queues {
        let detail = format!("should not be greater than queues ({queues})");
        errors.push(FieldError::invalid(format!("{path}.handSize"), hand, detail));
    }
}
