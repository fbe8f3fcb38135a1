//! Objects by which others extend the API: webhooks, admission policies, custom resource definitions, aggregated APIs. Here they are
//! plain resources; what they bring about is done elsewhere.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::checks::{
    dns_1035_label, dns_label, dns_subdomain, label_selector, named, one_of, optional_one_of, path_segment, port,
    qualified_name, required,
};
use super::kind::Kind;
use super::tree::{at, bool_at, default, each, has, int_at, items, object, set, str_at, within};
use crate::errors::FieldError;

/// ValidatingWebhookConfiguration.
pub static VALIDATING_WEBHOOKS: Kind =
    Kind { generation: true, defaults: |c| each(c, "webhooks", webhook_defaults), check: check_webhooks, ..Kind::BASE };

/// MutatingWebhookConfiguration.
pub static MUTATING_WEBHOOKS: Kind = Kind {
    generation: true,
    defaults: |c| {
        each(c, "webhooks", |w| {
            webhook_defaults(w);
            default(w, "reinvocationPolicy", "Never");
        });
    },
    check: check_webhooks,
    ..Kind::BASE
};

/// ValidatingAdmissionPolicy.
pub static ADMISSION_POLICY: Kind = Kind {
    defaults: |p| {
        let spec = object(p, "spec");
        default(spec, "failurePolicy", "Fail");
        within(spec, "matchConstraints", match_defaults);
    },
    check: check_policy,
    ..Kind::SPEC_STATUS
};

/// ValidatingAdmissionPolicyBinding.
pub static ADMISSION_POLICY_BINDING: Kind = Kind {
    generation: true,
    defaults: |b| within(object(b, "spec"), "matchResources", match_defaults),
    check: check_binding,
    ..Kind::BASE
};

fn match_defaults(m: &mut Value) {
    default(m, "matchPolicy", "Equivalent");
    object(m, "namespaceSelector");
    object(m, "objectSelector");
    for list in ["resourceRules", "excludeResourceRules"] {
        each(m, list, |r| default(r, "scope", "*"));
    }
}

fn webhook_defaults(w: &mut Value) {
    default(w, "failurePolicy", "Fail");
    default(w, "matchPolicy", "Equivalent");
    object(w, "namespaceSelector");
    object(w, "objectSelector");
    default(w, "timeoutSeconds", 10);
    each(w, "rules", |r| default(r, "scope", "*"));
    within(object(w, "clientConfig"), "service", |s| default(s, "port", 443));
}

fn check_webhooks(errors: &mut Vec<FieldError>, c: &Value) {
    let mut names = BTreeSet::new();
    for (i, w) in items(c, &["webhooks"]).iter().enumerate() {
        let path = format!("webhooks[{i}]");
        let name = str_at(w, &["name"]);
        domain(errors, &format!("{path}.name"), name);
        if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        webhook(errors, &path, w);
    }
}

/// A name that says whose it is.
fn domain(errors: &mut Vec<FieldError>, path: &str, name: &str) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    named(errors, path, name, dns_subdomain);
    if name.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(path, name, detail));
    }
}

fn webhook(errors: &mut Vec<FieldError>, path: &str, w: &Value) {
    review_versions(errors, &format!("{path}.admissionReviewVersions"), items(w, &["admissionReviewVersions"]));
    for (i, rule) in items(w, &["rules"]).iter().enumerate() {
        operations_rule(errors, &format!("{path}.rules[{i}]"), rule);
    }
    optional_one_of(errors, &format!("{path}.failurePolicy"), str_at(w, &["failurePolicy"]), &["Fail", "Ignore"]);
    optional_one_of(errors, &format!("{path}.matchPolicy"), str_at(w, &["matchPolicy"]), &["Equivalent", "Exact"]);
    match str_at(w, &["sideEffects"]) {
        "" => {
            errors.push(FieldError::required(format!("{path}.sideEffects"), "must specify one of None, NoneOnDryRun"))
        }
        other => one_of(errors, &format!("{path}.sideEffects"), other, &["None", "NoneOnDryRun"]),
    }
    if let Some(n) = int_at(w, &["timeoutSeconds"]).filter(|n| !(1..=30).contains(n)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(format!("{path}.timeoutSeconds"), n, detail));
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        if let Some(s) = at(w, &[selector]) {
            label_selector(errors, &format!("{path}.{selector}"), s);
        }
    }
    let policy = str_at(w, &["reinvocationPolicy"]);
    optional_one_of(errors, &format!("{path}.reinvocationPolicy"), policy, &["IfNeeded", "Never"]);
    conditions(errors, &format!("{path}.matchConditions"), items(w, &["matchConditions"]));
    client_config(errors, &format!("{path}.clientConfig"), at(w, &["clientConfig"]).unwrap_or(&Value::Null));
}

/// Versions of reviews that a webhook understands; one of them this server speaks.
fn review_versions(errors: &mut Vec<FieldError>, path: &str, list: &[Value]) {
    if list.is_empty() {
        errors.push(FieldError::required(path, "must specify one of v1, v1beta1"));
        return;
    }
    for (i, version) in list.iter().enumerate() {
        let (path, text) = (format!("{path}[{i}]"), version.as_str().unwrap_or_default());
        if list[..i].contains(version) {
            errors.push(FieldError::invalid(path, text, "duplicate version"));
        } else {
            named(errors, &path, text, dns_1035_label);
        }
    }
    if !list.iter().any(|v| v == "v1" || v == "v1beta1") {
        errors.push(FieldError::invalid(path, list.to_vec(), "must include at least one of v1, v1beta1"));
    }
}

const CONDITIONS_MAX: usize = 64;

fn conditions(errors: &mut Vec<FieldError>, path: &str, list: &[Value]) {
    if list.len() > CONDITIONS_MAX {
        errors.push(FieldError::too_many(path, list.len(), CONDITIONS_MAX));
    }
    let mut names = BTreeSet::new();
    for (i, c) in list.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let name = str_at(c, &["name"]);
        if str_at(c, &["expression"]).trim().is_empty() {
            errors.push(FieldError::required(format!("{path}.expression"), ""));
        }
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
            continue;
        }
        named(errors, &format!("{path}.name"), name, qualified_name);
        if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
    }
}

fn client_config(errors: &mut Vec<FieldError>, path: &str, c: &Value) {
    let url = str_at(c, &["url"]);
    match (url.is_empty(), at(c, &["service"])) {
        (true, None) | (false, Some(_)) => {
            errors.push(FieldError::required(path, "exactly one of url or service is required"));
        }
        (false, None) => {
            let form = "; desired format: https://host[/path]";
            let path = format!("{path}.url");
            match url.split_once("://") {
                Some(("https", rest)) if rest.is_empty() || rest.starts_with('/') => {
                    errors.push(FieldError::invalid(path, url, format!("host must be specified{form}")));
                }
                Some(("https", _)) => {}
                other => {
                    let scheme = other.map_or("", |(s, _)| s);
                    let detail = format!("'https' is the only allowed URL scheme{form}");
                    errors.push(FieldError::invalid(path, scheme, detail));
                }
            }
        }
        (true, Some(s)) => service(errors, &format!("{path}.service"), s),
    }
}

fn service(errors: &mut Vec<FieldError>, path: &str, s: &Value) {
    required(errors, &format!("{path}.name"), str_at(s, &["name"]));
    required(errors, &format!("{path}.namespace"), str_at(s, &["namespace"]));
    let number = int_at(s, &["port"]).unwrap_or(443);
    if !(1..=65535).contains(&number) {
        let detail = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(format!("{path}.port"), number, detail));
    }
    let way = str_at(s, &["path"]);
    if !way.is_empty() && !way.starts_with('/') {
        errors.push(FieldError::invalid(format!("{path}.path"), way, "must start with a '/'"));
    }
}

fn wildcard_list(errors: &mut Vec<FieldError>, path: &str, list: &[Value], what: &str) {
    if list.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if list.len() > 1 && list.iter().any(|v| v == "*") {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(path, list.to_vec(), detail));
    }
}

fn operations_rule(errors: &mut Vec<FieldError>, path: &str, rule: &Value) {
    let operations = items(rule, &["operations"]);
    wildcard_list(errors, &format!("{path}.operations"), operations, "operations");
    for (i, op) in operations.iter().enumerate() {
        let known = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
        one_of(errors, &format!("{path}.operations[{i}]"), op.as_str().unwrap_or_default(), &known);
    }
    wildcard_list(errors, &format!("{path}.apiGroups"), items(rule, &["apiGroups"]), "API groups");
    wildcard_list(errors, &format!("{path}.apiVersions"), items(rule, &["apiVersions"]), "API versions");
    for (i, _) in items(rule, &["apiVersions"]).iter().enumerate().filter(|(_, v)| *v == "") {
        errors.push(FieldError::required(format!("{path}.apiVersions[{i}]"), ""));
    }
    rule_resources(errors, &format!("{path}.resources"), items(rule, &["resources"]));
    optional_one_of(errors, &format!("{path}.scope"), str_at(rule, &["scope"]), &["*", "Cluster", "Namespaced"]);
}

/// Resources and their subresources; none is named twice by way of a star.
fn rule_resources(errors: &mut Vec<FieldError>, path: &str, list: &[Value]) {
    if list.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let names: Vec<&str> = list.iter().map(|r| r.as_str().unwrap_or_default()).collect();
    let (mut all_subs, mut all_resources) = (BTreeSet::new(), BTreeSet::new());
    for (i, name) in names.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let Some((resource, sub)) = name.split_once('/') else {
            if name.is_empty() {
                errors.push(FieldError::required(path, ""));
            }
            continue;
        };
        if all_subs.contains(resource) {
            let detail = format!("if '{resource}/*' is present, must not specify {name}");
            errors.push(FieldError::invalid(path.clone(), *name, detail));
        }
        if all_resources.contains(sub) {
            let detail = format!("if '*/{sub}' is present, must not specify {name}");
            errors.push(FieldError::invalid(path, *name, detail));
        }
        if sub == "*" {
            all_subs.insert(resource);
        }
        if resource == "*" {
            all_resources.insert(sub);
        }
    }
    if names.len() > 1 && names.contains(&"*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        errors.push(FieldError::invalid(path, list.to_vec(), detail));
    }
    if names.contains(&"*") && names.iter().any(|n| *n != "*" && !n.contains('/')) {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.push(FieldError::invalid(path, list.to_vec(), detail));
    }
}

fn match_resources(errors: &mut Vec<FieldError>, path: &str, m: &Value) {
    for selector in ["namespaceSelector", "objectSelector"] {
        if let Some(s) = at(m, &[selector]) {
            label_selector(errors, &format!("{path}.{selector}"), s);
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for (i, rule) in items(m, &[list]).iter().enumerate() {
            let path = format!("{path}.{list}[{i}]");
            let names = items(rule, &["resourceNames"]);
            for (j, name) in names.iter().enumerate() {
                let (path, text) = (format!("{path}.resourceNames[{j}]"), name.as_str().unwrap_or_default());
                named(errors, &path, text, path_segment);
                if names[..j].contains(name) {
                    errors.push(FieldError::duplicate(path, text));
                }
            }
            operations_rule(errors, &path, rule);
        }
    }
    one_of(errors, &format!("{path}.matchPolicy"), str_at(m, &["matchPolicy"]), &["Equivalent", "Exact"]);
}

fn check_policy(errors: &mut Vec<FieldError>, p: &Value) {
    let spec = at(p, &["spec"]).unwrap_or(&Value::Null);
    optional_one_of(errors, "spec.failurePolicy", str_at(spec, &["failurePolicy"]), &["Fail", "Ignore"]);
    if let Some(kind) = at(spec, &["paramKind"]) {
        param_kind(errors, kind);
    }
    match at(spec, &["matchConstraints"]) {
        None => errors.push(FieldError::required("spec.matchConstraints", "")),
        Some(m) => {
            match_resources(errors, "spec.matchConstraints", m);
            if items(m, &["resourceRules"]).is_empty() {
                errors.push(FieldError::required("spec.matchConstraints.resourceRules", ""));
            }
        }
    }
    conditions(errors, "spec.matchConditions", items(spec, &["matchConditions"]));
    for (i, v) in items(spec, &["variables"]).iter().enumerate() {
        variable(errors, &format!("spec.variables[{i}]"), v);
    }
    let (validations, annotations) = (items(spec, &["validations"]), items(spec, &["auditAnnotations"]));
    if validations.is_empty() && annotations.is_empty() {
        for field in ["validations", "auditAnnotations"] {
            let detail = "validations or auditAnnotations must contain at least one item";
            errors.push(FieldError::required(format!("spec.{field}"), detail));
        }
        return;
    }
    for (i, v) in validations.iter().enumerate() {
        validation(errors, &format!("spec.validations[{i}]"), v);
    }
    if annotations.len() > NOTES_MAX {
        let detail = format!("must not have more than {NOTES_MAX} auditAnnotations");
        errors.push(FieldError::invalid("spec.auditAnnotations", annotations.to_vec(), detail));
    }
    let owner = str_at(p, &["metadata", "name"]);
    for (i, a) in annotations.iter().enumerate() {
        let (path, key) = (format!("spec.auditAnnotations[{i}]"), str_at(a, &["key"]));
        let full = if owner.is_empty() { key.to_owned() } else { format!("{owner}/{key}") };
        named(errors, &format!("{path}.key"), &full, qualified_name);
        let value = str_at(a, &["valueExpression"]);
        if value.trim().is_empty() {
            let detail = "valueExpression is not specified";
            errors.push(FieldError::required(format!("{path}.valueExpression"), detail));
        } else if value.trim().len() > NOTE_MAX {
            let detail = format!("must not exceed {NOTE_MAX} bytes in length");
            errors.push(FieldError::required(format!("{path}.valueExpression"), detail));
        }
        if annotations[..i].iter().any(|o| str_at(o, &["key"]) == key) {
            errors.push(FieldError::duplicate(format!("{path}.key"), key));
        }
    }
}

/// How many notes a policy leaves in the audit log, and how long the expression for one may be, bytes.
const NOTES_MAX: usize = 20;
const NOTE_MAX: usize = 5 * 1024;

fn param_kind(errors: &mut Vec<FieldError>, kind: &Value) {
    let path = "spec.paramKind.apiVersion";
    let version = str_at(kind, &["apiVersion"]);
    match version.split('/').collect::<Vec<_>>().as_slice() {
        [""] => errors.push(FieldError::required(path, "")),
        [version] => named(errors, path, version, dns_1035_label),
        [group, version] => {
            named(errors, path, group, dns_subdomain);
            named(errors, path, version, dns_1035_label);
        }
        _ => {
            let detail = format!("unexpected GroupVersion string: {version}");
            errors.push(FieldError::invalid(path, version, detail));
        }
    }
    let (path, name) = ("spec.paramKind.kind", str_at(kind, &["kind"]));
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    for problem in dns_1035_label(&name.to_lowercase()) {
        let detail = format!("may have mixed case, but should otherwise match: {problem}");
        errors.push(FieldError::invalid(path, name, detail));
    }
}

/// Words of the expression language that cannot be names in it.
const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

fn variable(errors: &mut Vec<FieldError>, path: &str, v: &Value) {
    let name = str_at(v, &["name"]);
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let identifier =
        name.bytes().all(letters) && !name.starts_with(|c: char| c.is_ascii_digit()) && !RESERVED.contains(&name);
    if name.trim().is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), "name is not specified"));
    } else if !identifier {
        errors.push(FieldError::invalid(format!("{path}.name"), name, "name is not a valid CEL identifier"));
    }
    if str_at(v, &["expression"]).trim().is_empty() {
        errors.push(FieldError::required(format!("{path}.expression"), "expression is not specified"));
    }
}

fn validation(errors: &mut Vec<FieldError>, path: &str, v: &Value) {
    if str_at(v, &["expression"]).trim().is_empty() {
        errors.push(FieldError::required(format!("{path}.expression"), "expression is not specified"));
    }
    let (text, message) = (str_at(v, &["messageExpression"]), str_at(v, &["message"]));
    if !text.is_empty() && text.trim().is_empty() {
        let detail = "must be non-empty if specified";
        errors.push(FieldError::invalid(format!("{path}.messageExpression"), text, detail));
    }
    let detail = match message.trim() {
        "" if !message.is_empty() => "message must be non-empty if specified",
        trimmed if trimmed.contains('\n') => "message must not contain line breaks",
        _ => "",
    };
    if !detail.is_empty() {
        errors.push(FieldError::invalid(format!("{path}.message"), message, detail));
    }
    let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
    optional_one_of(errors, &format!("{path}.reason"), str_at(v, &["reason"]), &reasons);
}

fn check_binding(errors: &mut Vec<FieldError>, b: &Value) {
    let spec = at(b, &["spec"]).unwrap_or(&Value::Null);
    match str_at(spec, &["policyName"]) {
        "" => errors.push(FieldError::required("spec.policyName", "")),
        name => named(errors, "spec.policyName", name, dns_subdomain),
    }
    if let Some(r) = at(spec, &["paramRef"]) {
        param_ref(errors, r);
    }
    if let Some(m) = at(spec, &["matchResources"]) {
        match_resources(errors, "spec.matchResources", m);
    }
    let actions = items(spec, &["validationActions"]);
    if actions.is_empty() {
        errors.push(FieldError::required("spec.validationActions", ""));
    }
    for (i, a) in actions.iter().enumerate() {
        let (path, text) = (format!("spec.validationActions[{i}]"), a.as_str().unwrap_or_default());
        one_of(errors, &path, text, &["Audit", "Deny", "Warn"]);
        if actions[..i].contains(a) {
            errors.push(FieldError::duplicate(path, text));
        }
    }
    if ["Deny", "Warn"].iter().all(|both| actions.iter().any(|a| a == both)) {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(FieldError::invalid("spec.validationActions", actions.to_vec(), detail));
    }
}

/// Which objects are a policy's parameters: one by name, or several by their labels.
fn param_ref(errors: &mut Vec<FieldError>, r: &Value) {
    let (name, selector) = (str_at(r, &["name"]), at(r, &["selector"]));
    match (name, selector) {
        ("", None) => {
            errors.push(FieldError::required("spec.paramRef", "one of name or selector must be specified"));
        }
        ("", Some(s)) => label_selector(errors, "spec.paramRef.selector", s),
        (name, None) => named(errors, "spec.paramRef.name", name, path_segment),
        (_, Some(_)) => {
            for field in ["name", "selector"] {
                let detail = "name and selector are mutually exclusive";
                errors.push(FieldError::forbidden(format!("spec.paramRef.{field}"), detail));
            }
        }
    }
    let (path, action) = ("spec.paramRef.parameterNotFoundAction", str_at(r, &["parameterNotFoundAction"]));
    if action.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        one_of(errors, path, action, &["Deny", "Allow"]);
    }
}

/// CustomResourceDefinition.
pub static CUSTOM_RESOURCE_DEFINITION: Kind = Kind {
    defaults: |c| {
        let spec = object(c, "spec");
        let names = object(spec, "names");
        let kind = str_at(names, &["kind"]).to_owned();
        default(names, "singular", kind.to_lowercase());
        default(names, "listKind", format!("{kind}List"));
        let conversion = object(spec, "conversion");
        default(conversion, "strategy", "None");
        within(conversion, "webhook", |w| {
            within(w, "clientConfig", |c| within(c, "service", |s| default(s, "port", 443)));
        });
        let stored = stored_version(spec).map(str::to_owned);
        let status = object(c, "status");
        for field in ["conditions", "acceptedNames", "storedVersions"] {
            if !has(status, field) {
                let empty = if field == "acceptedNames" { json!({"plural": "", "kind": ""}) } else { json!([]) };
                set(status, field, empty);
            }
        }
        if let Some(version) = stored
            && !items(status, &["storedVersions"]).iter().any(|v| v == version.as_str())
            && let Some(list) = status["storedVersions"].as_array_mut()
        {
            list.push(version.into());
        }
    },
    check: check_definition,
    check_update: |errors, sub, new, old| {
        if sub.is_some() {
            return;
        }
        let established = items(old, &["status", "conditions"])
            .iter()
            .any(|c| str_at(c, &["type"]) == "Established" && str_at(c, &["status"]) == "True");
        if established {
            for path in
                [&["spec", "scope"][..], &["spec", "names", "kind"], &["spec", "names", "plural"], &["spec", "group"]]
            {
                super::checks::immutable(errors, &path.join("."), at(new, path), at(old, path));
            }
        }
    },
    ..Kind::SPEC_STATUS
};

fn stored_version(spec: &Value) -> Option<&str> {
    items(spec, &["versions"]).iter().find(|v| bool_at(v, &["storage"])).map(|v| str_at(v, &["name"]))
}

fn check_definition(errors: &mut Vec<FieldError>, c: &Value) {
    let spec = at(c, &["spec"]).unwrap_or(&Value::Null);
    let (group, plural) = (str_at(spec, &["group"]), str_at(spec, &["names", "plural"]));
    let name = str_at(c, &["metadata", "name"]);
    if name != format!("{plural}.{group}") {
        errors.push(FieldError::invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group"));
    }
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else {
        named(errors, "spec.group", group, dns_subdomain);
        if group.split('.').count() < 2 {
            errors.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
        }
    }
    super::checks::required_one_of(errors, "spec.scope", str_at(spec, &["scope"]), &["Cluster", "Namespaced"]);
    for field in ["plural", "singular", "kind", "listKind"] {
        let path = format!("spec.names.{field}");
        let value = str_at(spec, &["names", field]);
        if value.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else {
            let problems = dns_1035_label(&value.to_lowercase());
            let detail = |d: &String| format!("may have mixed case, but should otherwise match: {d}");
            let mixed = matches!(field, "kind" | "listKind");
            errors.extend(
                problems
                    .iter()
                    .map(|d| FieldError::invalid(path.clone(), value, if mixed { detail(d) } else { d.clone() })),
            );
        }
    }
    if str_at(spec, &["names", "kind"]) == str_at(spec, &["names", "listKind"]) && !plural.is_empty() {
        let value = str_at(spec, &["names", "listKind"]);
        errors.push(FieldError::invalid("spec.names.listKind", value, "kind and listKind may not be the same"));
    }
    versions(errors, spec);
}

fn versions(errors: &mut Vec<FieldError>, spec: &Value) {
    let list = items(spec, &["versions"]);
    if list.iter().filter(|v| bool_at(v, &["storage"])).count() != 1 {
        let value = at(spec, &["versions"]).cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(
            "spec.versions",
            value,
            "must have exactly one version marked as storage version",
        ));
    }
    let mut names = BTreeSet::new();
    for (i, v) in list.iter().enumerate() {
        let path = format!("spec.versions[{i}]");
        let name = str_at(v, &["name"]);
        named(errors, &format!("{path}.name"), name, dns_label);
        if !names.insert(name) {
            let value = at(spec, &["versions"]).cloned().unwrap_or(Value::Null);
            errors.push(FieldError::invalid("spec.versions", value, "must contain unique version names"));
        }
        if at(v, &["schema", "openAPIV3Schema"]).is_none() {
            errors.push(FieldError::required(format!("{path}.schema.openAPIV3Schema"), "schemas are required"));
        }
    }
    match str_at(spec, &["conversion", "strategy"]) {
        "Webhook" if at(spec, &["conversion", "webhook", "clientConfig"]).is_none() => {
            let detail = "required when strategy is set to \"Webhook\"";
            errors.push(FieldError::required("spec.conversion.webhook.clientConfig", detail));
        }
        "Webhook" | "None" => {}
        other => one_of(errors, "spec.conversion.strategy", other, &["None", "Webhook"]),
    }
}

/// APIService. One without a service is this server's own and always available.
pub static API_SERVICE: Kind = Kind {
    status_leaves: &["ownerReferences", "labels"],
    names: path_segment,
    generation: false,
    defaults: |a| within(object(a, "spec"), "service", |s| default(s, "port", 443)),
    create: |cx, a| {
        if at(a, &["spec", "service"]).is_none() {
            let condition = json!([{"type": "Available", "status": "True", "lastTransitionTime": cx.now, "reason": "Local",
                "message": "Local APIServices are always available"}]);
            set(object(a, "status"), "conditions", condition);
        }
        Ok(())
    },
    check: check_api_service,
    ..Kind::SPEC_STATUS
};

fn check_api_service(errors: &mut Vec<FieldError>, a: &Value) {
    let spec = at(a, &["spec"]).unwrap_or(&Value::Null);
    let (group, version) = (str_at(spec, &["group"]), str_at(spec, &["version"]));
    let (name, wanted) = (str_at(a, &["metadata", "name"]), format!("{version}.{group}"));
    if name != wanted {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        errors.push(FieldError::invalid("metadata.name", name, detail));
    }
    if group.is_empty() && version != "v1" {
        errors.push(FieldError::required("spec.group", "only v1 may have an empty group and it better be legacy kube"));
    }
    if !group.is_empty() {
        named(errors, "spec.group", group, dns_subdomain);
    }
    named(errors, "spec.version", version, dns_1035_label);
    for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)] {
        let n = int_at(spec, &[field]).unwrap_or(0);
        if n <= 0 || n > max {
            let detail = format!("must be positive and less than {max}");
            errors.push(FieldError::invalid(format!("spec.{field}"), n, detail));
        }
    }
    let (insecure, bundle) = (bool_at(spec, &["insecureSkipTLSVerify"]), str_at(spec, &["caBundle"]));
    let Some(s) = at(spec, &["service"]) else {
        if !bundle.is_empty() {
            let detail = "local APIServices may not have a caBundle";
            errors.push(FieldError::invalid("spec.caBundle", format!("{} bytes", bundle.len()), detail));
        }
        if insecure {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", true, detail));
        }
        return;
    };
    required(errors, "spec.service.namespace", str_at(s, &["namespace"]));
    required(errors, "spec.service.name", str_at(s, &["name"]));
    port(errors, "spec.service.port", int_at(s, &["port"]).unwrap_or(443));
    if insecure && !bundle.is_empty() {
        errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", true, "may not be true if caBundle is present"));
    }
}
